//! Plans compute what the tape says, in the memory they forecast.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use autograd::{ConvOptions, Plan, Result, Tape, Var};
use kernels::Device;
use tensor::{Array, DType};

fn noise(shape: &[usize], seed: u64) -> Array {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1u32 << 31) - 0.5
    };
    let count = shape.iter().product();
    Array::new(shape.to_vec(), (0..count).map(next).collect::<Vec<f64>>()).unwrap()
}

/// A convolutional learner with batch norm, pooling and a soft loss: every family of primitives.
fn loss<'t>(x: Var<'t>, w: Var<'t>, v: Var<'t>, y: Var<'t>) -> Result<Var<'t>> {
    let b = y.shape()[0];
    let h = x
        .upsample(2)?
        .reflect_pad(1, 1)?
        .reflect_pad(2, 1)?
        .conv2d(w, ConvOptions::padded(0))?;
    let centred = (h - h.mean_keep(&[0, 1, 2])?)?;
    let scale = ((centred * centred)?.mean_keep(&[0, 1, 2])? + 1e-5)?.rsqrt()?;
    let h = (centred * scale)?
        .leaky_relu(0.1)?
        .max_pool([2, 2], [2, 2], [0; 4])?;
    let width = h.shape().count() / b;
    let z = h.reshape([b, width])?.matmul_with(v, false, true)?.tanh()?;
    let z = (z - z.max_last()?.stop_gradient())?;
    let logsum = z.exp()?.sum_keep(&[1])?.log()?;
    (y * (z - logsum)?)?.sum_all()? * (-1.0 / b as f64)
}

#[test]
fn gradients_of_a_whole_learner_agree_with_differences_and_modes_with_each_other() {
    let device = Device::cpu(Some(2)).unwrap();
    let tape = Tape::new();
    let x = tape.input("x", DType::F64, [3, 4, 4, 2]).unwrap();
    let w = tape.input("w", DType::F64, [5, 3, 3, 2]).unwrap();
    let v = tape.input("v", DType::F64, [4, 80]).unwrap();
    let y = tape.input("y", DType::F64, [3, 4]).unwrap();
    let dw = tape.input("dw", DType::F64, [5, 3, 3, 2]).unwrap();
    let l = loss(x, w, v, y).unwrap();
    let g = tape.grad(l, &[x, w, v]).unwrap();
    let forward = tape.jvp(&g, &[(w, dw)]).unwrap();
    let along = (g[1] * dw).unwrap().sum_all().unwrap();
    let reverse = tape.grad(along, &[x, w, v]).unwrap();
    let outs = [&[l, along][..], &g, &forward, &reverse].concat();
    let plan = Plan::new(&outs).unwrap();
    println!("{plan}");
    let arrays = [
        ("x", noise(&[3, 4, 4, 2], 1)),
        ("w", noise(&[5, 3, 3, 2], 2)),
        ("v", noise(&[4, 80], 3)),
        ("y", noise(&[3, 4], 4)),
        ("dw", noise(&[5, 3, 3, 2], 5)),
    ];
    let run = |arrays: &[(&str, Array)]| {
        let given: Vec<(&str, &Array)> = arrays.iter().map(|(n, a)| (*n, a)).collect();
        plan.run(&device, &given).unwrap()
    };
    let at = run(&arrays);
    for i in 0..3 {
        let (f, r) = (at[5 + i].to_f64_vec(), at[8 + i].to_f64_vec());
        let size = r.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (a, b) in f.iter().zip(&r) {
            assert!((a - b).abs() <= 1e-12 * size, "modes differ: {a} {b}");
        }
    }
    let h = 1e-5;
    let moved = |sign: f64| {
        let mut arrays = arrays.clone();
        let d = arrays[4].1.to_f64_vec();
        let w: Vec<f64> = arrays[1]
            .1
            .to_f64_vec()
            .iter()
            .zip(&d)
            .map(|(w, d)| w + sign * h * d)
            .collect();
        arrays[1].1 = Array::new([5, 3, 3, 2], w).unwrap();
        run(&arrays)
    };
    let (plus, minus) = (moved(1.0), moved(-1.0));
    let slope = (plus[0].to_f64_vec()[0] - minus[0].to_f64_vec()[0]) / (2.0 * h);
    let along = at[1].to_f64_vec()[0];
    assert!(
        (slope - along).abs() < 1e-8 * along.abs().max(1e-3),
        "{slope} {along}"
    );
    for i in 0..3 {
        let exact = at[5 + i].to_f64_vec();
        let size = exact.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (j, e) in exact.iter().enumerate() {
            let difference =
                (plus[2 + i].to_f64_vec()[j] - minus[2 + i].to_f64_vec()[j]) / (2.0 * h);
            assert!(
                (difference - e).abs() < 1e-6 * size,
                "{i} {j}: {difference} {e}"
            );
        }
    }
}

/// A result may go over an input as soon as nobody reads that any more, and straight there; but not while another
/// result is to be that input.
#[test]
fn results_go_over_inputs_that_are_done_with() {
    let device = Device::cpu(Some(1)).unwrap();
    let tape = Tape::new();
    let x = tape.input("x", DType::F64, [6, 6]).unwrap();
    let w = tape.input("w", DType::F64, [6, 6]).unwrap();
    let product = x.matmul(w).unwrap();
    let after = product.matmul(w).unwrap();
    let late = (after + x).unwrap();
    let arrays = [noise(&[6, 6], 1), noise(&[6, 6], 2)];
    let given = [("x", &arrays[0]), ("w", &arrays[1])];
    // Names of outputs that go over x, and how many launches more there are than kernels: copies.
    for (outs, over, copies) in [
        (vec![after], 0, 0),
        (vec![product], 0, 1),
        (vec![after, late], 0, 1),
        (vec![after, late], 1, 0),
        (vec![after, x], 0, 2),
        (vec![x, after], 1, 2),
        (vec![x], 0, 0),
    ] {
        let plain = Plan::new(&outs).unwrap();
        let plan = Plan::in_place(&outs, &[(over, "x")]).unwrap();
        let expected = plain.run(&device, &given).unwrap();
        assert_eq!(plan.run(&device, &given).unwrap(), expected, "{plan}");
        let own = plain.launches() - usize::from(outs.contains(&x));
        assert_eq!(plan.launches() - own, copies, "{plan}\n{plain}");
    }
    let swap = Plan::in_place(&[w, x], &[(0, "x"), (1, "w")]).unwrap();
    let [first, second] = arrays.clone();
    assert_eq!(
        swap.run(&device, &given).unwrap(),
        [second, first],
        "{swap}"
    );
}

/// The step of a weight with its norm: the sum of its squares, its update and the inner products with the update
/// are one pass.
#[test]
fn sums_over_rows_and_over_all_share_a_pass() {
    let tape = Tape::new();
    let input = |name, shape: &[usize]| tape.input(name, DType::F64, shape.to_vec()).unwrap();
    let (v, u, g) = (
        input("v", &[8, 40]),
        input("u", &[8, 40]),
        input("g", &[8, 40]),
    );
    let rate = input("rate", &[]);
    let moved = (u + (rate * g).unwrap()).unwrap();
    let squares = (v * v).unwrap().sum_keep(&[1]).unwrap();
    let along = (v * moved).unwrap().sum_keep(&[1]).unwrap();
    let all = (u * g).unwrap().sum_all().unwrap();
    let plan = Plan::new(&[moved, squares, along, all]).unwrap();
    let over: Vec<usize> = plan
        .kernels()
        .map(|(kernel, _)| kernel.bytes() as usize)
        .collect();
    // Three arrays read, one written, and three sums over rows; then the sum of one of those.
    let row = 8 * 8;
    assert_eq!(over, [40 * row * 4 + 3 * row + 8, row + 8], "{plan}");
    let arrays = [noise(&[8, 40], 1), noise(&[8, 40], 2), noise(&[8, 40], 3)];
    let rate = Array::new([], vec![0.5]).unwrap();
    let given = [
        ("v", &arrays[0]),
        ("u", &arrays[1]),
        ("g", &arrays[2]),
        ("rate", &rate),
    ];
    let results = plan.run(&Device::cpu(Some(1)).unwrap(), &given).unwrap();
    let numbers = |array: &Array| array.to_f64_vec();
    let (u, g) = (numbers(&arrays[1]), numbers(&arrays[2]));
    let sum: f64 = u.iter().zip(&g).map(|(u, g)| u * g).sum();
    assert!((numbers(&results[3])[0] - sum).abs() < 1e-12);
}
