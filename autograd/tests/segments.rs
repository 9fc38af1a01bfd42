//! Plans in segments: the same bits from less memory.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

use autograd::{Distribution, Plan, Result, Tape, Var, reference};
use common::noise;
use kernels::Device;
use tensor::{Array, DType};

const BLOCKS: usize = 9;
const ROWS: usize = 64;
const WIDTH: usize = 8;

/// A residual network with statistics, noise, biases and views between its products; its gradient, and the
/// tangent of that in a direction.
fn deep(tape: &Tape, dtype: DType) -> Result<Vec<Var<'_>>> {
    let x = tape.input("x", dtype, [ROWS, WIDTH])?;
    let key = tape.input("key", DType::U32, [4])?;
    let (mut wrt, mut tangents) = (vec![x], Vec::new());
    let mut h = x;
    for block in 0..BLOCKS {
        let mut input = |name: &str, shape: &[usize]| {
            let var = tape.input(&format!("{name} {block}"), dtype, shape)?;
            wrt.push(var);
            Ok::<_, autograd::Error>(var)
        };
        let (w, b) = (input("w", &[2, WIDTH, WIDTH])?, input("b", &[WIDTH])?);
        let part = |side| {
            w.slice(&[side, 0, 0], &[1, WIDTH, WIDTH])?
                .reshape([WIDTH, WIDTH])
        };
        let mean = h.mean_keep(&[0])?;
        let u = ((h - mean)?.matmul(part(0)?)? + b)?;
        let shape = [ROWS, WIDTH];
        let kept = tape.random(key, block as u32, Distribution::Uniform, dtype, shape)?;
        let u = (u.leaky_relu(0.1)? * kept)?;
        h = (h + u.matmul(part(1)?)?.tanh()?)?;
        let direction = tape.input(&format!("d {block}"), dtype, [2, WIDTH, WIDTH])?;
        tangents.push((w, direction));
    }
    let loss = (h * h)?.mean_all()?;
    let gradient = tape.grad(loss, &wrt)?;
    let tangent = tape.jvp(&gradient, &tangents)?;
    Ok([vec![loss], gradient, tangent].concat())
}

fn arrays(dtype: DType) -> Vec<(String, Array)> {
    let random = |shape: &[usize], seed| noise(&shape.into(), seed, dtype);
    let mut arrays = vec![
        ("x".to_owned(), random(&[ROWS, WIDTH], 1)),
        (
            "key".to_owned(),
            Array::new([4], vec![5u32, 6, 7, 8]).unwrap(),
        ),
    ];
    for block in 0..BLOCKS {
        let seed = 10 * block as u64;
        arrays.push((format!("w {block}"), random(&[2, WIDTH, WIDTH], seed + 2)));
        arrays.push((format!("b {block}"), random(&[WIDTH], seed + 3)));
        arrays.push((format!("d {block}"), random(&[2, WIDTH, WIDTH], seed + 4)));
    }
    arrays
}

#[test]
fn segments_change_memory_and_work_but_no_bit() {
    for dtype in [DType::F32, DType::F64] {
        let tape = Tape::new();
        let outs = deep(&tape, dtype).unwrap();
        let arrays = arrays(dtype);
        let given: Vec<(&str, &Array)> =
            arrays.iter().map(|(name, a)| (name.as_str(), a)).collect();
        let whole = Plan::new(&outs).unwrap();
        let expected = whole.run(&Device::cpu(Some(1)).unwrap(), &given).unwrap();
        let mut arenas = vec![whole.arena_bytes()];
        for segments in [1, 2, 3, 5, 9, 40] {
            let plan = Plan::in_segments(&outs, segments).unwrap();
            for threads in 1..=3 {
                let device = Device::cpu(Some(threads)).unwrap();
                let results = plan.run(&device, &given).unwrap();
                for (i, (a, b)) in results.iter().zip(&expected).enumerate() {
                    assert_eq!(a.bytes(), b.bytes(), "output {i} of {segments} segments");
                }
            }
            let again = plan.flops() - whole.flops();
            assert_eq!(again == 0, segments == 1, "{segments}");
            // What is computed again is the way out, in primal and tangent: less than half of it all.
            assert!(2 * again < whole.flops(), "{segments}: {again} more");
            arenas.push(plan.arena_bytes());
        }
        assert_eq!(arenas[0], arenas[1]);
        assert!(
            arenas[2..].iter().all(|&arena| 10 * arena < 7 * arenas[0]),
            "{arenas:?}"
        );
        assert!(2 * arenas[4] < arenas[0], "{arenas:?}");
    }
}

#[test]
fn segments_agree_with_the_reference() {
    let tape = Tape::new();
    let outs = deep(&tape, DType::F64).unwrap();
    let arrays = arrays(DType::F64);
    let given: Vec<(&str, &Array)> = arrays.iter().map(|(name, a)| (name.as_str(), a)).collect();
    let expected = reference::run(&outs, &given).unwrap();
    let plan = Plan::in_segments(&outs, 4).unwrap();
    let results = plan.run(&Device::cpu(Some(2)).unwrap(), &given).unwrap();
    for (a, b) in results.iter().zip(&expected) {
        let (a, b) = (a.to_f64_vec(), b.to_f64_vec());
        let size = b.iter().fold(0.0f64, |size, v| size.max(v.abs()));
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * size;
        assert!(a.iter().zip(&b).all(near));
    }
}
