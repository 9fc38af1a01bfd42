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

/// Weights of two types are clipped by one norm: the cotangents are 3 in f32 and 4 in f64, shortened to 1.
#[test]
fn cotangents_of_both_types_are_clipped_by_one_norm() {
    let starts = [("a", F32), ("b", F64)].map(|(name, dtype)| (name, Array::zeros(dtype, [1])));
    let lrs = [F32, F64].map(|dtype| scalar(0.1, dtype));
    let [a, b] = &starts;
    let training = Training::new(Optimizer::Sgd)
        .learned([("start a", &a.1), ("start b", &b.1)])
        .given([("lr a", &lrs[0]), ("lr b", &lrs[1])])
        .weights([(a.0, &a.1), (b.0, &b.1)])
        .prepare("a", |s| Ok(s["start a"]))
        .prepare("b", |s| Ok(s["start b"]))
        .hyper("lr", |s, weight| Ok(s[["lr a", "lr b"][weight]]))
        .loss(|s| (s["a"] * 0.0)?.sum_all()? + (s["b"].cast(F32) * 0.0)?.sum_all()?)
        .outer(|s| (s["a"] * 3.0)?.sum_all()? + (s["b"].cast(F32) * 4.0)?.sum_all()?);
    let device = Device::cpu(Some(1)).unwrap();
    let mut unroll = Unroll::new(&device, &training, &Horizon::new(2).clip(1.0)).unwrap();
    let values = unroll.values(&training).unwrap();
    unroll.gradient(&values).unwrap();
    for (name, expected) in [("start a", 0.6), ("start b", 0.8)] {
        let found = unroll.gradients().get(name).unwrap().to_f64_vec()[0];
        assert!((found - expected).abs() < 1e-6, "{name}: {found}");
    }
}

/// The square of a norm is in range where the norm's own unit, squared, is not.
#[test]
fn squares_of_norms_stay_in_range() {
    for (dtype, length) in [
        (F32, 1e-13),
        (F32, 2.0_f64.powi(61)),
        (F64, 1e-130),
        (F64, 1e140),
    ] {
        let tape = Tape::new();
        let x = tape.input("x", dtype, [1]).unwrap();
        let square = x.norm().unwrap().powi(2).unwrap();
        let plan = Plan::new(&[square]).unwrap();
        let device = Device::cpu(Some(1)).unwrap();
        let given = Array::new([1], vec![length]).unwrap().cast(dtype);
        let found = plan.run(&device, &[(x, &given)]).unwrap()[0].to_f64_vec()[0];
        let expected = length * length;
        assert!(
            (found / expected - 1.0).abs() < 1e-6,
            "{dtype} {length}: {found}"
        );
    }
}

#[test]
fn a_descent_measures_gradients_whose_squares_leave_the_range() {
    let device = Device::cpu(Some(1)).unwrap();
    for (dtype, length) in [(F32, 1e20), (F32, 1e-30), (F64, 1e200), (F64, 1e-200)] {
        let arrays = [3.0, 4.0].map(|side| scalar(side * length, dtype));
        let gradients = Values::new(&device, [("a", &arrays[0]), ("b", &arrays[1])]).unwrap();
        let descent = Descent::new(&gradients, Optimizer::Sgd, &[("lr", 0.1)]).unwrap();
        let found = descent.norm(&gradients).unwrap();
        assert!(
            (found / (5.0 * length) - 1.0).abs() < 1e-6,
            "{dtype} {length}: {found}"
        );
    }
}
