//! Optimisers and clipping where squares leave the range of the type.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use autograd::prelude::*;

fn scalar(value: f64, dtype: DType) -> Array {
    Array::scalar(value, dtype)
}

/// θ after one step along the gradient `g`.
fn step(optimizer: Optimizer, dtype: DType, g: &[f64], hyper: &[(&str, f64)]) -> Vec<f64> {
    let of = |numbers: Vec<f64>| Array::new([g.len()], numbers).unwrap().cast(dtype);
    let (theta, g) = (of(vec![1.0; g.len()]), of(g.to_vec()));
    let hyper: Vec<(&str, Array)> = hyper.iter().map(|&(n, x)| (n, scalar(x, dtype))).collect();
    let given = hyper.iter().map(|(name, x)| (*name, x)).chain([("g", &g)]);
    let training = Training::new(optimizer)
        .weights([("w", &theta)])
        .given(given)
        .loss(|s| (s["w"] * s["g"])?.sum_all());
    let device = Device::cpu(Some(1)).unwrap();
    let all = hyper.iter().map(|(name, x)| (*name, x));
    let values = Values::new(&device, all.chain([("g", &g), ("w", &theta)])).unwrap();
    let mut trainer = Trainer::new(&device, &training, 1).unwrap();
    let mut after = Vec::new();
    let watched = trainer.train(&values, |_, state| {
        after = state.get("w")?.to_f64_vec();
        Ok(())
    });
    watched.unwrap();
    after
}

#[test]
fn without_eps_what_has_no_gradient_stays() {
    for dtype in [F32, F64] {
        for eps in [0.0, 1e-46] {
            let hyper = [("lr", 0.01), ("decay", 0.99), ("eps", eps)];
            let found = step(Optimizer::RmsProp, dtype, &[0.0, 1.0, 0.0], &hyper);
            let near = |(x, e): (&f64, f64)| (x - e).abs() < 1e-6;
            let fits = found.iter().zip([1.0, 0.9, 1.0]).all(near);
            assert!(fits, "{dtype} {eps}: {found:?}");
            let hyper = [("lr", 0.1), ("beta1", 0.9), ("beta2", 0.999), ("eps", eps)];
            let found = step(Optimizer::Adam, dtype, &[0.0, 1.0, 0.0], &hyper);
            let fits = found.iter().zip([1.0, 0.9, 1.0]).all(near);
            assert!(fits, "{dtype} {eps}: {found:?}");
        }
    }
}

/// Nothing that a step depends on has a derivative that is NaN; that of eps may be infinite.
#[test]
fn derivatives_of_a_step_without_eps_are_numbers() {
    for dtype in [F32, F64] {
        let tape = Tape::new();
        let input = |shape: &[usize]| tape.input("x", dtype, shape).unwrap();
        let (theta, g, v) = (input(&[3]), input(&[3]), input(&[3]));
        let hyper = [input(&[]), input(&[]), input(&[])];
        let moved = Optimizer::RmsProp.update(theta, g, &[v], &hyper);
        let sum = moved.unwrap().0.sum_all().unwrap();
        let wrt = [g, hyper[0], hyper[1], hyper[2]];
        let gradients = tape.grad(sum, &wrt).unwrap();
        let of = |numbers: [f64; 3]| Array::new([3], numbers.to_vec()).unwrap().cast(dtype);
        let given = [
            (theta, &of([1.0; 3])),
            (g, &of([0.0, 1.0, 0.0])),
            (v, &of([0.0; 3])),
            (hyper[0], &scalar(0.01, dtype)),
            (hyper[1], &scalar(0.99, dtype)),
            (hyper[2], &scalar(0.0, dtype)),
        ];
        let device = Device::cpu(Some(1)).unwrap();
        let found = Plan::new(&gradients).unwrap().run(&device, &given).unwrap();
        let numbers: Vec<f64> = found.iter().flat_map(Array::to_f64_vec).collect();
        assert!(numbers.iter().all(|x| !x.is_nan()), "{dtype}: {numbers:?}");
    }
}

/// The cotangent [1e20, 1e20], shortened to 1.
#[test]
fn cotangents_whose_squares_overflow_are_clipped() {
    for (dtype, large) in [(F32, 1e20), (F64, 1e200)] {
        let start = Array::zeros(dtype, [2]);
        let (scale, lr) = (scalar(large, dtype), scalar(0.1, dtype));
        let training = Training::new(Optimizer::Sgd)
            .learned([("start", &start)])
            .given([("scale", &scale), ("lr", &lr)])
            .weights([("w", &start)])
            .prepare("w", |s| Ok(s["start"]))
            .loss(|s| (s["w"] * 0.0)?.sum_all())
            .outer(|s| (s["w"] * s["scale"])?.sum_all());
        let device = Device::cpu(Some(1)).unwrap();
        let mut unroll = Unroll::new(&device, &training, &Horizon::new(1).clip(1.0)).unwrap();
        let values = unroll.values(&training).unwrap();
        unroll.gradient(&values).unwrap();
        let found = unroll.gradients().get("start").unwrap().to_f64_vec();
        for x in found {
            assert!((x - 0.5_f64.sqrt()).abs() < 1e-6, "{dtype}: {x}");
        }
    }
}
