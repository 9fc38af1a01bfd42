//! The work of a meta-gradient, counted.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use autograd::Forecast;
use autograd::prelude::*;

const SIDE: usize = 96;
const LAYERS: usize = 4;
const STEPS: usize = 16;

/// Square layers on a square batch, so that every product of a layer is as large; the data is learned, so that
/// the first layer has all of its products.
fn training() -> Training<'static> {
    let square = |name: &str, shape: &[usize]| ArraySpec::new(name, F32, shape);
    let weights: Vec<ArraySpec> = (0..LAYERS)
        .map(|i| square(&format!("w{i}"), &[SIDE, SIDE]))
        .collect();
    Training::new(Optimizer::Momentum)
        .weights(&weights)
        .learned([square("x", &[STEPS, SIDE, SIDE])])
        .per_step(["x"])
        .loss(|s| {
            let mut x = s["x"];
            for &weight in s.weights() {
                x = x.matmul(weight)?;
                // A rectifier: it has no second derivative of its own.
                x = x.relu()?;
            }
            (x * x)?.sum_all()
        })
        .outer(|s| s["w0"].sum_all())
}

/// In products of a layer per inner step.
fn products(schedule: Schedule, mode: Mode) -> f64 {
    let horizon = Horizon::new(STEPS).schedule(schedule).mode(mode);
    let flops = Forecast::new(&training(), &horizon).unwrap().flops;
    flops as f64 / (STEPS * 2 * SIDE * SIDE * SIDE) as f64
}

/// 9 F where all is kept, 11 F where each step is computed again: less the products that a first layer does
/// not have.
#[test]
fn work_is_as_counted_by_hand() {
    // A gradient is 3 F; that of the data is not needed for it. Its tangent is 6 F; the data has no tangent
    // that the first layer or its weights' gradient would multiply with. To compute activations and
    // cotangents again is 2 F.
    let advance = (3 * LAYERS - 1) as f64;
    let tangent = (6 * LAYERS - 2) as f64;
    let again = (2 * LAYERS - 1) as f64;
    // 16 steps in stretches of 4: three of each but the last are advanced again.
    let advances = 1.0 + 9.0 / STEPS as f64;
    for (schedule, expected) in [
        (Schedule::store_all(), advance + tangent),
        (Schedule::per_step(), advance + again + tangent),
        (Schedule::every(4), advances * advance + again + tangent),
    ] {
        for mode in [Mode::Mixed, Mode::Reverse] {
            let counted = products(schedule, mode);
            // A product is 192 FLOPs an element: what is element-wise adds a few percent.
            let ratio = counted / expected;
            assert!(
                (1.0..1.06).contains(&ratio),
                "{schedule} {mode:?}: {counted} of {expected}"
            );
        }
    }
}
