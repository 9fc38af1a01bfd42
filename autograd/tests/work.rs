//! The work of a meta-gradient, counted.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use autograd::optim::Optimizer;
use autograd::{Forecast, Horizon, Mode, Port, Row, Schedule, Scope, Training};
use tensor::DType;

const SIDE: usize = 96;
const LAYERS: usize = 4;
const STEPS: usize = 16;

/// Square layers on a square batch, so that every product of a layer is as large; the data is learned, so that
/// the first layer has all of its products.
fn training() -> Training<'static> {
    let square = |name: String| Port {
        name,
        dtype: DType::F32,
        shape: [SIDE, SIDE].into(),
    };
    Training {
        theta: (0..LAYERS).map(|i| square(format!("w{i}"))).collect(),
        buffers: vec![],
        shared: vec![],
        rows: vec![Row {
            port: square("x".into()),
            learned: true,
        }],
        outer_rows: vec![],
        optimizer: Optimizer::Momentum,
        precondition: None,
        prepare: Box::new(|_, _| Ok(vec![])),
        loss: Box::new(|s: Scope<'_, '_>| {
            let mut x = s.rows[0];
            for &weight in s.theta {
                x = x.matmul(weight)?;
                // A rectifier: it has no second derivative of its own.
                x = x.relu()?;
            }
            Ok(((x * x)?.sum_all()?, vec![]))
        }),
        outer: Box::new(|s: Scope<'_, '_>| s.theta[0].sum_all()),
    }
}

/// In products of a layer per inner step.
fn products(schedule: Schedule, mode: Mode) -> f64 {
    let horizon = Horizon::new(STEPS).schedule(schedule).mode(mode);
    let flops = Forecast::new(&training(), &horizon).unwrap().flops;
    flops as f64 / (STEPS * 2 * SIDE * SIDE * SIDE) as f64
}

/// 9 F where all is kept, 11 F where each step is computed again: less what a first layer has not.
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
        (Schedule::StoreAll, advance + tangent),
        (Schedule::PerStep, advance + again + tangent),
        (Schedule::EveryK(4), advances * advance + again + tangent),
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
