//! Gradients through training: modes, schedules and finite differences agree.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

use autograd::prelude::*;
use common::{gradients, horizon, meta_gradient, noise, training, values};

#[test]
fn mixed_mode_equals_reverse_over_reverse() {
    let device = Device::cpu(Some(1)).unwrap();
    for optimizer in Optimizer::ALL {
        let of = |mode| meta_gradient(&device, optimizer, F64, Schedule::per_step(), mode);
        let ((loss, mixed), (same, reverse)) = (of(Mode::Mixed), of(Mode::Reverse));
        assert_eq!(loss, same);
        for ((name, a), b) in mixed.iter().zip(reverse.values()) {
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
            let device = Device::cpu(Some(1)).unwrap();
            let first = meta_gradient(&device, optimizer, F32, Schedule::per_step(), mode);
            for threads in [1, 2, 3] {
                let device = Device::cpu(Some(threads)).unwrap();
                for schedule in [
                    Schedule::store_all(),
                    Schedule::per_step(),
                    Schedule::every(2),
                    Schedule::every(3),
                    Schedule::every(9),
                ] {
                    assert_eq!(
                        meta_gradient(&device, optimizer, F32, schedule, mode),
                        first,
                        "{schedule} {mode:?} {threads}"
                    );
                }
            }
        }
    }
}

/// The slope of the meta-loss along random directions of everything that is learned, by differences.
#[test]
fn the_meta_gradient_is_the_slope_of_the_meta_loss() {
    let device = Device::cpu(Some(1)).unwrap();
    // Fixed point has steps, which differences would see.
    let smooth = |optimizer: &Optimizer| *optimizer != Optimizer::ReversibleMomentum;
    for optimizer in Optimizer::ALL.into_iter().filter(smooth) {
        let training = training(optimizer, F64);
        let horizon = horizon(Schedule::per_step(), Mode::Mixed);
        let mut unroll = Unroll::new(&device, &training, &horizon).unwrap();
        let values = values(&device, &training);
        unroll.gradient(&values).unwrap();
        let mut slope = 0.0;
        let mut directions = Vec::new();
        for (i, (name, gradient)) in gradients(&unroll).iter().enumerate() {
            let direction = noise(gradient.shape(), 7 + i as u64, F64).to_f64_vec();
            let along = direction.iter().zip(gradient.to_f64_vec());
            let along: f64 = along.map(|(d, g)| d * g).sum();
            // The first mean is replaced before anybody reads it. A sign, as Lion's, has the slope 0.
            let flat = name == "mean" || optimizer == Optimizer::Lion && name.starts_with("beta");
            assert_eq!(along == 0.0, flat, "{optimizer:?} {name}");
            slope += along;
            directions.push((name.clone(), direction, values.get(name).unwrap()));
        }
        let h = 1e-5;
        let mut losses = [0.0; 4];
        for (loss, sign) in losses.iter_mut().zip([1.0, -1.0, 2.0, -2.0]) {
            for (name, direction, base) in &directions {
                let moved = base.to_f64_vec().into_iter().zip(direction);
                let moved: Vec<f64> = moved.map(|(b, d)| b + sign * h * d).collect();
                let moved = Array::new(base.shape().clone(), moved).unwrap();
                values.write(name, &moved).unwrap();
            }
            *loss = unroll.gradient(&values).unwrap().total();
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
    let training = training(Optimizer::Momentum, F32);
    let values = values(&device, &training);
    for schedule in [
        Schedule::store_all(),
        Schedule::per_step(),
        Schedule::every(3),
    ] {
        let before = device.held_bytes();
        device.reset_peak();
        let horizon = horizon(schedule, Mode::Mixed);
        let mut unroll = Unroll::new(&device, &training, &horizon).unwrap();
        unroll.gradient(&values).unwrap();
        assert_eq!(
            device.peak_bytes() - before,
            unroll.forecast().bytes,
            "{schedule}"
        );
    }
}
