//! A small training, and its meta-gradient.
#![allow(dead_code, reason = "every test uses a part of it")]

use autograd::prelude::*;
use tensor::Arrays;

pub(crate) fn noise(shape: &Shape, seed: u64, dtype: DType) -> Array {
    Array::uniform(F64, shape.clone(), [-0.5, 0.5], seed).cast(dtype)
}

pub(crate) const STEPS: usize = 7;
pub(crate) const OUTER: [usize; 2] = [3, STEPS];

/// A number for every step, of each hyper-parameter.
pub(crate) fn hyper_specs(optimizer: Optimizer, dtype: DType, steps: usize) -> Vec<ArraySpec> {
    let hyper = optimizer.hyper().iter();
    hyper
        .map(|(name, _)| ArraySpec::new(*name, dtype, [steps]))
        .collect()
}

/// The arrays that weights start from: they, and the floats that the optimiser keeps for each.
pub(crate) fn starts(optimizer: Optimizer, weights: &[ArraySpec]) -> Vec<ArraySpec> {
    let of_one = |weight: &ArraySpec| {
        let kept = optimizer.state(&weight.shape, weight.dtype).into_iter();
        let named = kept.map(|array| {
            let name = format!("{}.{}", weight.name, array.name);
            array.named(name)
        });
        named.filter(|array| array.dtype.is_float()).collect()
    };
    let kept: Vec<Vec<ArraySpec>> = weights.iter().map(of_one).collect();
    [weights.to_vec(), kept.concat()].concat()
}

/// A network with a running mean, taught by data that a linear generator makes. Everything but labels and outer data is
/// learned: the start, too.
pub(crate) fn training(optimizer: Optimizer, dtype: DType) -> Training<'static> {
    let array = |name: &str, shape: &[usize]| ArraySpec::new(name, dtype, shape);
    let weights = [array("w", &[5, 4]), array("b", &[5]), array("v", &[3, 5])];
    let mean = [array("mean", &[1, 5])];
    Training::new(optimizer)
        .weights(&weights)
        .buffers(&mean)
        .learned(weights.iter().chain(&mean))
        .learned([
            array("g", &[4, 2]),
            array("scale", &[4]),
            array("z", &[STEPS, 6, 2]),
        ])
        .learned(hyper_specs(optimizer, dtype, STEPS))
        .given([
            array("y", &[STEPS, 6, 3]),
            array("x", &[2, 8, 4]),
            array("t", &[2, 8, 3]),
        ])
        .prepare("scale", |s| (s["scale"] * s["scale"])?.sqrt())
        .per_step(["z", "y"])
        .per_outer(["x", "t"])
        .loss_and_buffers(|s| {
            let x = (s["z"].matmul_with(s["g"], false, true)? * s["scale"])?.tanh()?;
            let h = x.matmul_with(s["w"], false, true)?;
            let mean = h.mean_keep(&[0])?;
            let h = ((h - mean)? + s["b"])?.leaky_relu(0.1)?;
            let error = (h.matmul_with(s["v"], false, true)? - s["y"])?;
            Ok(((error * error)?.mean_all()?, vec![mean]))
        })
        .outer(|s| {
            let h = s["x"].matmul_with(s["w"], false, true)?;
            let h = ((h - s["mean"])? + s["b"])?.tanh()?;
            let error = (h.matmul_with(s["v"], false, true)? - s["t"])?;
            (error * error)?.mean_all()
        })
}

pub(crate) fn horizon(schedule: impl Into<Policy>, mode: Mode) -> Horizon {
    let horizon = Horizon::new(STEPS).schedule(schedule).mode(mode);
    horizon.outer_at(|t| OUTER.contains(&t))
}

/// Numbers for everything that a training declares: small and different ones, and rates that train.
pub(crate) fn values(device: &Device, training: &Training<'_>) -> Values {
    let declared: Vec<&ArraySpec> = training
        .learned_specs()
        .chain(training.given_specs())
        .collect();
    let starts = training.weight_specs().iter();
    let starts = starts.filter(|spec| !declared.iter().any(|known| known.name == spec.name));
    let mut values = Values::zeros(device, &[]).unwrap();
    for spec in declared.iter().copied().chain(starts) {
        values.set(&spec.name, &some(spec)).unwrap();
    }
    values
}

/// Numbers for one array. They depend on its name.
pub(crate) fn some(spec: &ArraySpec) -> Array {
    let seed = spec
        .name
        .bytes()
        .fold(7, |seed, byte| seed * 31 + u64::from(byte));
    let numbers = noise(&spec.shape, seed, F64).to_f64_vec().into_iter();
    let numbers = numbers.map(|v| match spec.name.as_str() {
        "lr" => 0.1 + 0.05 * v,
        "momentum" | "beta1" | "decay" => 0.6 + 0.2 * v,
        "beta2" => 0.8 + 0.1 * v,
        "eps" => 1e-2,
        "weight_decay" => 0.1,
        "key" => (1e6 * (v + 0.5)).floor(),
        name if name.contains('.') => 0.0,
        _ => v,
    });
    let numbers: Vec<f64> = numbers.collect();
    Array::new(spec.shape.clone(), numbers)
        .unwrap()
        .cast(spec.dtype)
}

/// Every meta-gradient, by name.
pub(crate) fn gradients(unroll: &Unroll) -> Arrays {
    unroll.gradients().to_arrays().unwrap()
}

pub(crate) fn meta_gradient(
    device: &Device,
    optimizer: Optimizer,
    dtype: DType,
    schedule: Schedule,
    mode: Mode,
) -> (f64, Arrays) {
    let training = training(optimizer, dtype);
    let values = values(device, &training);
    let mut unroll = Unroll::new(device, &training, &horizon(schedule, mode)).unwrap();
    let losses = unroll.gradient(&values).unwrap();
    (losses.total(), gradients(&unroll))
}
