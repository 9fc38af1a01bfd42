//! Every kernel at every level of vector instructions that this machine has, against the others.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{at_level, bytes, every, levels, numbers, run};
use kernels::{Kernel, Simd};

fn is_contraction(kernel: &Kernel) -> bool {
    let name = kernel.name();
    name.starts_with("conv") || name.starts_with("matmul")
}

/// Contractions of the baseline of x86-64 are compared with nothing: they round products, which others fuse.
#[test]
fn levels_give_the_same_bits() {
    let devices: Vec<_> = levels().map(|level| at_level(2, level)).collect();
    for (name, kernel, inputs) in every::kernels() {
        let apart = cfg!(target_arch = "x86_64") && is_contraction(&kernel);
        let results = devices.iter().skip(usize::from(apart));
        let results: Vec<_> = results
            .map(|device| run(device, kernel.clone(), &inputs))
            .collect();
        for pair in results.windows(2) {
            assert!(pair[0] == pair[1], "{name}");
        }
    }
}

/// Every f32 contraction is within 8 ε Σ|a||b| of the one in f64, at every level (measured: 2.3).
#[test]
fn contractions_are_as_exact_at_every_level() {
    let all = every::kernels();
    let (single, double) = all.split_at(all.len() / 2);
    let (device, mut worst) = (at_level(2, Simd::detected()), 0.0f64);
    for ((name, kernel, inputs), (_, exact, _)) in single.iter().zip(double) {
        if !is_contraction(kernel) {
            continue;
        }
        let widened = |change: fn(f64) -> f64| {
            let widen = |input: &Vec<u8>| {
                let input = numbers::<f32>(input).into_iter();
                bytes(&input.map(|x| change(f64::from(x))).collect::<Vec<_>>())
            };
            let inputs: Vec<_> = inputs.iter().map(widen).collect();
            numbers::<f64>(&run(&device, exact.clone(), &inputs)[0])
        };
        let (exact, size) = (widened(|x| x), widened(f64::abs));
        for level in levels() {
            let found = run(&at_level(2, level), kernel.clone(), inputs).remove(0);
            for ((x, exact), size) in numbers::<f32>(&found).into_iter().zip(&exact).zip(&size) {
                let error = (f64::from(x) - exact).abs() / (f64::from(f32::EPSILON) * size);
                assert!(error < 8.0, "{name}, {level}: {error} ε");
                worst = worst.max(error);
            }
        }
    }
    println!("worst: {worst} ε");
}
