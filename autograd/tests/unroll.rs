//! Gradients through training: modes, schedules and finite differences agree.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use autograd::optim::Optimizer;
use autograd::{Given, Mode, Port, Records, Row, Schedule, Scope, Training, Unroll};
use kernels::Device;
use tensor::{Array, DType, Shape};

fn noise(shape: &Shape, seed: u64, dtype: DType) -> Array {
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

fn port(name: &str, shape: impl Into<Shape>, dtype: DType) -> Port {
    Port {
        name: name.into(),
        dtype,
        shape: shape.into(),
    }
}

const STEPS: usize = 7;
const OUTER: [usize; 2] = [3, STEPS];

/// A network with a running mean, taught by data that a linear generator makes.
fn training(optimizer: Optimizer, dtype: DType) -> Training<'static> {
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

struct Arrays {
    start: Records,
    shared: Records,
    rows: Records,
    outer: Records,
}

fn fill(device: &Device, ports: &[Port], count: usize, seed: u64) -> Records {
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

fn arrays(device: &Device, training: &Training<'_>) -> Arrays {
    Arrays {
        start: fill(device, &training.start_ports(), 1, 1),
        shared: fill(device, &training.shared, 1, 50),
        rows: fill(device, &training.row_ports(), STEPS, 1000),
        outer: fill(device, &training.outer_rows, OUTER.len(), 9000),
    }
}

fn given(arrays: &Arrays) -> Given<'_> {
    Given {
        start: &arrays.start,
        shared: &arrays.shared,
        rows: &arrays.rows,
        outer_rows: &arrays.outer,
    }
}

/// Every meta-gradient, by name.
fn gradients(unroll: &Unroll) -> Vec<(String, Array)> {
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
        for (i, port) in unroll.row_gradient().ports().iter().enumerate() {
            all.push((
                format!("row {t} {}", port.name),
                unroll.row_gradient().get(t, i).unwrap(),
            ));
        }
    }
    all
}

fn meta_gradient(
    device: &Device,
    optimizer: Optimizer,
    dtype: DType,
    schedule: Schedule,
    mode: Mode,
) -> (f64, Vec<(String, Array)>) {
    let training = training(optimizer, dtype);
    let arrays = arrays(device, &training);
    let mut unroll = Unroll::new(
        device,
        &training,
        STEPS,
        |t| OUTER.contains(&t),
        schedule,
        mode,
    )
    .unwrap();
    let losses = unroll.gradient(given(&arrays)).unwrap();
    (losses.total(), gradients(&unroll))
}

#[test]
fn mixed_mode_equals_reverse_over_reverse() {
    let device = Device::cpu(Some(1)).unwrap();
    for optimizer in Optimizer::ALL {
        let (loss, mixed) = meta_gradient(
            &device,
            optimizer,
            DType::F64,
            Schedule::PerStep,
            Mode::Mixed,
        );
        let (same, reverse) = meta_gradient(
            &device,
            optimizer,
            DType::F64,
            Schedule::PerStep,
            Mode::Reverse,
        );
        assert_eq!(loss, same);
        for ((name, a), (_, b)) in mixed.iter().zip(&reverse) {
            let (a, b) = (a.to_f64_vec(), b.to_f64_vec());
            let size = b.iter().fold(1e-9f64, |m, v| m.max(v.abs()));
            let worst = a
                .iter()
                .zip(&b)
                .fold(0.0f64, |m, (x, y)| m.max((x - y).abs()));
            assert!(
                worst <= 1e-12 * size,
                "{optimizer:?} {name}: {worst} of {size}"
            );
        }
    }
}

#[test]
fn every_schedule_gives_the_same_bits() {
    for optimizer in [Optimizer::Momentum, Optimizer::Adam] {
        for mode in [Mode::Mixed, Mode::Reverse] {
            let first = meta_gradient(
                &Device::cpu(Some(1)).unwrap(),
                optimizer,
                DType::F32,
                Schedule::PerStep,
                mode,
            );
            for threads in [1, 2, 3] {
                let device = Device::cpu(Some(threads)).unwrap();
                for schedule in [
                    Schedule::StoreAll,
                    Schedule::PerStep,
                    Schedule::EveryK(2),
                    Schedule::EveryK(3),
                    Schedule::EveryK(9),
                ] {
                    assert_eq!(
                        meta_gradient(&device, optimizer, DType::F32, schedule, mode),
                        first,
                        "{schedule} {mode:?} {threads}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_meta_gradient_is_the_slope_of_the_meta_loss() {
    let device = Device::cpu(Some(1)).unwrap();
    for optimizer in Optimizer::ALL {
        let training = training(optimizer, DType::F64);
        let mut unroll = Unroll::new(
            &device,
            &training,
            STEPS,
            |t| OUTER.contains(&t),
            Schedule::PerStep,
            Mode::Mixed,
        )
        .unwrap();
        let arrays = arrays(&device, &training);
        unroll.gradient(given(&arrays)).unwrap();
        let mut slope = 0.0;
        let learned = |name: &str| name != "y" && !name.contains('.');
        let mut directions = Vec::new();
        let (start, record) = unroll.start_gradient();
        let fields = [
            (&arrays.start, start, record, 0),
            (&arrays.shared, unroll.shared_gradient(), 0, 0),
        ];
        let rows = (0..STEPS).map(|t| (&arrays.rows, unroll.row_gradient(), t, t));
        for (values, gradient, from, to) in fields.into_iter().chain(rows) {
            for (i, port) in values
                .ports()
                .iter()
                .enumerate()
                .filter(|(_, p)| learned(&p.name))
            {
                let d = noise(&port.shape, 7 + i as u64 + 31 * to as u64, DType::F64).to_f64_vec();
                let g = gradient.get(from, i).unwrap().to_f64_vec();
                slope += d.iter().zip(&g).map(|(d, g)| d * g).sum::<f64>();
                directions.push((values, to, i, d, values.get(to, i).unwrap().to_f64_vec()));
            }
        }
        let h = 1e-5;
        let mut losses = [0.0; 4];
        for (loss, sign) in losses.iter_mut().zip([1.0, -1.0, 2.0, -2.0]) {
            for (values, record, i, d, base) in &directions {
                let moved: Vec<f64> = base.iter().zip(d).map(|(b, d)| b + sign * h * d).collect();
                let shape = values.ports()[*i].shape.clone();
                values
                    .set(*record, *i, &Array::new(shape, moved).unwrap())
                    .unwrap();
            }
            let mut again = Unroll::new(
                &device,
                &training,
                STEPS,
                |t| OUTER.contains(&t),
                Schedule::PerStep,
                Mode::Mixed,
            )
            .unwrap();
            *loss = again.gradient(given(&arrays)).unwrap().total();
        }
        // Central differences of fourth order: the loss bends much where RMSprop divides by small roots.
        let difference = (8.0 * (losses[0] - losses[1]) - (losses[2] - losses[3])) / (12.0 * h);
        assert!(
            (difference - slope).abs() <= 1e-7 * slope.abs(),
            "{optimizer:?}: {difference} {slope}"
        );
    }
}

#[test]
fn the_forecast_is_what_is_held() {
    let device = Device::cpu(Some(1)).unwrap();
    let training = training(Optimizer::Momentum, DType::F32);
    let arrays = arrays(&device, &training);
    for schedule in [Schedule::StoreAll, Schedule::PerStep, Schedule::EveryK(3)] {
        let before = device.held_bytes();
        device.reset_peak();
        let mut unroll = Unroll::new(
            &device,
            &training,
            STEPS,
            |t| OUTER.contains(&t),
            schedule,
            Mode::Mixed,
        )
        .unwrap();
        unroll.gradient(given(&arrays)).unwrap();
        assert_eq!(
            device.peak_bytes() - before,
            unroll.forecast().bytes,
            "{schedule}"
        );
    }
}
