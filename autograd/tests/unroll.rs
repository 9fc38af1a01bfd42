//! Gradients through training: modes, schedules and finite differences agree.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

use autograd::optim::Optimizer;
use autograd::{Mode, Schedule, Unroll};
use common::{STEPS, arrays, given, horizon, meta_gradient, noise, training};
use kernels::Device;
use tensor::{Array, DType};

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
    // Fixed point has steps, which differences would see.
    let smooth = |optimizer: &Optimizer| *optimizer != Optimizer::ReversibleMomentum;
    for optimizer in Optimizer::ALL.into_iter().filter(smooth) {
        let training = training(optimizer, DType::F64);
        let mut unroll =
            Unroll::new(&device, &training, &horizon(Schedule::PerStep, Mode::Mixed)).unwrap();
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
        let of_steps = (0..STEPS).flat_map(|t| {
            [
                (&arrays.rows, unroll.row_gradient(), t, t),
                (&arrays.hyper, unroll.hyper_gradient(), t, t),
            ]
        });
        for (values, gradient, from, to) in fields.into_iter().chain(of_steps) {
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
            let mut again =
                Unroll::new(&device, &training, &horizon(Schedule::PerStep, Mode::Mixed)).unwrap();
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
        let mut unroll = Unroll::new(&device, &training, &horizon(schedule, Mode::Mixed)).unwrap();
        unroll.gradient(given(&arrays)).unwrap();
        assert_eq!(
            device.peak_bytes() - before,
            unroll.forecast().bytes,
            "{schedule}"
        );
    }
}
