//! A small training, and its meta-gradient.
#![allow(dead_code, reason = "every test uses a part of it")]

use autograd::optim::Optimizer;
use autograd::{Given, Horizon, Mode, Port, Records, Row, Schedule, Scope, Training, Unroll};
use kernels::Device;
use tensor::{Array, DType, Shape};

pub(crate) fn noise(shape: &Shape, seed: u64, dtype: DType) -> Array {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1u32 << 31) - 0.5
    };
    Array::new(
        shape.clone(),
        (0..shape.count()).map(next).collect::<Vec<f64>>(),
    )
    .unwrap()
    .cast(dtype)
}

pub(crate) fn port(name: &str, shape: impl Into<Shape>, dtype: DType) -> Port {
    Port {
        name: name.into(),
        dtype,
        shape: shape.into(),
    }
}

pub(crate) const STEPS: usize = 7;
pub(crate) const OUTER: [usize; 2] = [3, STEPS];

/// A network with a running mean, taught by data that a linear generator makes.
pub(crate) fn training(optimizer: Optimizer, dtype: DType) -> Training<'static> {
    Training {
        theta: vec![
            port("w", [5, 4], dtype),
            port("b", [5], dtype),
            port("v", [3, 5], dtype),
        ],
        buffers: vec![port("mean", [1, 5], dtype)],
        shared: vec![port("g", [4, 2], dtype), port("scale", [4], dtype)],
        rows: vec![
            Row {
                port: port("z", [6, 2], dtype),
                learned: true,
            },
            Row {
                port: port("y", [6, 3], dtype),
                learned: false,
            },
        ],
        outer_rows: vec![port("x", [8, 4], dtype), port("t", [8, 3], dtype)],
        optimizer,
        precondition: None,
        prepare: Box::new(|_, shared| {
            let scale = (shared[1] * shared[1])?.sqrt()?;
            Ok(vec![shared[0], scale])
        }),
        loss: Box::new(|s: Scope<'_, '_>| {
            let x = (s.rows[0].matmul_with(s.shared[0], false, true)? * s.shared[1])?.tanh()?;
            let h = x.matmul_with(s.theta[0], false, true)?;
            let mean = h.mean_keep(&[0])?;
            let h = ((h - mean)? + s.theta[1])?.leaky_relu(0.1)?;
            let out = h.matmul_with(s.theta[2], false, true)?;
            let error = (out - s.rows[1])?;
            Ok(((error * error)?.mean_all()?, vec![mean]))
        }),
        outer: Box::new(|s: Scope<'_, '_>| {
            let h = s.rows[0].matmul_with(s.theta[0], false, true)?;
            let h = ((h - s.buffers[0])? + s.theta[1])?.tanh()?;
            let error = (h.matmul_with(s.theta[2], false, true)? - s.rows[1])?;
            (error * error)?.mean_all()
        }),
    }
}

pub(crate) fn horizon(schedule: Schedule, mode: Mode) -> Horizon {
    let horizon = Horizon::new(STEPS).schedule(schedule).mode(mode);
    horizon.outer_at(|t| OUTER.contains(&t))
}

pub(crate) struct Arrays {
    pub(crate) start: Records,
    pub(crate) shared: Records,
    pub(crate) rows: Records,
    pub(crate) hyper: Records,
    pub(crate) outer: Records,
}

pub(crate) fn fill(device: &Device, ports: &[Port], count: usize, seed: u64) -> Records {
    let records = Records::new(device, ports.to_vec(), count).unwrap();
    for record in 0..count {
        for (field, port) in ports.iter().enumerate() {
            let values = noise(
                &port.shape,
                seed + 100 * record as u64 + field as u64,
                DType::F64,
            );
            let values: Vec<f64> = values
                .to_f64_vec()
                .iter()
                .map(|v| match port.name.as_str() {
                    "lr" => 0.1 + 0.05 * v,
                    "momentum" | "beta1" | "decay" => 0.6 + 0.2 * v,
                    "beta2" => 0.8 + 0.1 * v,
                    "eps" => 1e-2,
                    "weight_decay" => 0.1,
                    name if name.contains('.') => 0.0,
                    _ => *v,
                })
                .collect();
            records
                .set(
                    record,
                    field,
                    &Array::new(port.shape.clone(), values)
                        .unwrap()
                        .cast(port.dtype),
                )
                .unwrap();
        }
    }
    records
}

pub(crate) fn arrays(device: &Device, training: &Training<'_>) -> Arrays {
    Arrays {
        start: fill(device, &training.start_ports(), 1, 1),
        shared: fill(device, &training.shared, 1, 50),
        rows: fill(device, &training.row_ports(), STEPS, 1000),
        hyper: fill(device, &training.hyper_ports(), STEPS, 1050),
        outer: fill(device, &training.outer_rows, OUTER.len(), 9000),
    }
}

pub(crate) fn given(arrays: &Arrays) -> Given<'_> {
    Given {
        start: &arrays.start,
        shared: &arrays.shared,
        rows: &arrays.rows,
        hyper: &arrays.hyper,
        outer_rows: &arrays.outer,
    }
}

/// Every meta-gradient, by name.
pub(crate) fn gradients(unroll: &Unroll) -> Vec<(String, Array)> {
    let mut all = Vec::new();
    let (start, record) = unroll.start_gradient();
    for (i, port) in start.ports().iter().enumerate() {
        all.push((
            format!("start {}", port.name),
            start.get(record, i).unwrap(),
        ));
    }
    for (i, port) in unroll.shared_gradient().ports().iter().enumerate() {
        all.push((
            format!("shared {}", port.name),
            unroll.shared_gradient().get(0, i).unwrap(),
        ));
    }
    for t in 0..STEPS {
        for gradient in [unroll.row_gradient(), unroll.hyper_gradient()] {
            for (i, port) in gradient.ports().iter().enumerate() {
                all.push((
                    format!("row {t} {}", port.name),
                    gradient.get(t, i).unwrap(),
                ));
            }
        }
    }
    all
}

pub(crate) fn meta_gradient(
    device: &Device,
    optimizer: Optimizer,
    dtype: DType,
    schedule: Schedule,
    mode: Mode,
) -> (f64, Vec<(String, Array)>) {
    let training = training(optimizer, dtype);
    let arrays = arrays(device, &training);
    let mut unroll = Unroll::new(device, &training, &horizon(schedule, mode)).unwrap();
    let losses = unroll.gradient(given(&arrays)).unwrap();
    (losses.total(), gradients(&unroll))
}
