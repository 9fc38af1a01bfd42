//! Plans and meta-gradients on a CUDA device against the processor: see `kernels/tests/stand_in`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "../../kernels/tests/stand_in/mod.rs"]
mod stand_in;

use autograd::prelude::*;
use autograd::{ConvOptions, Error};
use common::{gradients, horizon, meta_gradient, noise, training, values};
use kernels::{Cuda, DeviceError, Precision};
use stand_in::StandIn;

#[test]
fn plans_and_meta_gradients_agree_with_the_processor() {
    if let Some(device) = StandIn::build() {
        // Free memory is the whole card's: the forecast is measured with nobody beside it.
        let forecast = "a_forecast_that_holds";
        device.pass(&["--skip", forecast], &[]);
        device.pass(&[forecast], &[]);
    }
}

fn cpu() -> Device {
    Device::cpu(Some(1)).unwrap()
}

fn cuda() -> Device {
    Device::cuda(0, Precision::Fp32).unwrap()
}

/// The largest difference, as a share of the largest number.
fn difference(x: &Array, y: &Array) -> f64 {
    let (x, y) = (x.to_f64_vec(), y.to_f64_vec());
    let size = y.iter().fold(1e-6_f64, |size, y| size.max(y.abs()));
    let off = x.iter().zip(&y).map(|(x, y)| (x - y).abs());
    off.fold(0.0, f64::max) / size
}

/// A convolutional learner with batch norm, pooling and cross-entropy of labels.
fn loss<'t>(x: Var<'t>, w: Var<'t>, v: Var<'t>, labels: Var<'t>) -> Result<Var<'t>> {
    let batch = x.shape()[0];
    let h = x.upsample(2)?.reflect_pad(1, 1)?.reflect_pad(2, 1)?;
    let h = h.conv2d(w, ConvOptions::padded(0))?;
    let centred = (h - h.mean_keep(&[0, 1, 2])?)?;
    let scale = ((centred * centred)?.mean_keep(&[0, 1, 2])? + 1e-5)?.rsqrt()?;
    let h = (centred * scale)?.leaky_relu(0.1)?;
    let h = h.max_pool([2, 2], [2, 2], [0; 4])?;
    let width = h.shape().count() / batch;
    let z = h.reshape([batch, width])?.matmul_with(v, false, true)?;
    let z = (z - z.max_last()?.stop_gradient())?;
    let logsum = z.exp()?.sum_keep(&[1])?.log()?;
    let hot = labels.one_hot(4, F32)?;
    (hot * (z - logsum)?)?.sum_all()? * (-1.0 / batch as f64)
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn a_learners_gradients_and_their_tangents() {
    let tape = Tape::new();
    let x = tape.input("x", F32, [3, 4, 4, 2]).unwrap();
    let w = tape.input("w", F32, [5, 3, 3, 2]).unwrap();
    let v = tape.input("v", F32, [4, 80]).unwrap();
    let dw = tape.input("dw", F32, [5, 3, 3, 2]).unwrap();
    let labels = tape.input("labels", I32, [3]).unwrap();
    let loss = loss(x, w, v, labels).unwrap();
    let gradients = tape.grad(loss, &[x, w, v]).unwrap();
    let tangents = tape.jvp(&gradients, &[(w, dw)]).unwrap();
    let plan = Plan::new(&[&[loss][..], &gradients, &tangents].concat()).unwrap();
    let f32s = |shape: &[usize], seed| noise(&shape.to_vec().into(), seed, F32);
    let given = [
        (x, &f32s(&[3, 4, 4, 2], 1)),
        (w, &f32s(&[5, 3, 3, 2], 2)),
        (v, &f32s(&[4, 80], 3)),
        (dw, &f32s(&[5, 3, 3, 2], 4)),
        (labels, &Array::new([3], vec![2_i32, 0, 3]).unwrap()),
    ];
    let expected = plan.run(&cpu(), &given).unwrap();
    let device = cuda();
    let found = plan.run(&device, &given).unwrap();
    for (i, (x, y)) in found.iter().zip(&expected).enumerate() {
        assert!(difference(x, y) < 1e-4, "{i}: {}", difference(x, y));
    }
    assert_eq!(found, plan.run(&device, &given).unwrap(), "two runs differ");
    let plain = Cuda::open(0, Precision::Fp32).unwrap().without_graphs();
    let plain = Device::from(plain);
    assert_eq!(
        found,
        plan.run(&plain, &given).unwrap(),
        "graphs differ from launches"
    );
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn a_meta_gradient() {
    let (cpu, cuda) = (cpu(), cuda());
    for optimizer in [
        Optimizer::Momentum,
        Optimizer::Adam,
        Optimizer::ReversibleMomentum,
    ] {
        let of = |device, schedule, mode| meta_gradient(device, optimizer, F32, schedule, mode);
        let (loss, expected) = of(&cpu, Schedule::per_step(), Mode::Mixed);
        let (found_loss, found) = of(&cuda, Schedule::per_step(), Mode::Mixed);
        assert!(
            (loss - found_loss).abs() < 1e-4 * loss.abs(),
            "{loss} {found_loss}"
        );
        for ((name, x), y) in found.iter().zip(expected.values()) {
            assert!(
                difference(x, y) < 2e-3,
                "{optimizer:?} {name}: {}",
                difference(x, y)
            );
        }
        // All schedules, the same bits; and again.
        let undone =
            (optimizer == Optimizer::ReversibleMomentum).then_some(Schedule::reversible(1.0));
        let schedules = [
            Schedule::per_step(),
            Schedule::store_all(),
            Schedule::every(3),
        ];
        for schedule in schedules.into_iter().chain(undone) {
            assert_eq!(
                of(&cuda, schedule, Mode::Mixed),
                (found_loss, found.clone()),
                "{schedule:?}"
            );
        }
        // Launched kernel by kernel, with the time of each.
        let training = training(optimizer, F32);
        let values = values(&cuda, &training);
        let horizon = horizon(Schedule::per_step(), Mode::Mixed);
        let mut unroll = Unroll::new(&cuda, &training, &horizon).unwrap();
        let (losses, runs) = unroll.timed_gradient(&values).unwrap();
        assert_eq!((losses.total(), gradients(&unroll)), (found_loss, found));
        let laps: usize = runs.iter().map(|run| run.laps.len()).sum();
        let launches = unroll
            .phases()
            .iter()
            .map(|p| p.runs as usize * p.plan.launches())
            .sum::<usize>();
        assert_eq!(laps, launches);
    }
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn a_forecast_that_holds() {
    let device = cuda();
    let facts = || device.as_cuda().unwrap().facts().unwrap();
    // A card gives memory in blocks of 2 MiB, some of which other arrays may have begun, and loads code into it; the
    // stand-in does neither.
    let (block, code) = match facts().name.as_str() {
        "CUDA on CPU" => (0, 0),
        _ => (2 << 20, 4 << 20),
    };
    let before = facts().free_bytes;
    let training = training(Optimizer::Momentum, F32);
    let values = values(&device, &training);
    let held = device.held_bytes();
    let horizon = horizon(Schedule::per_step(), Mode::Mixed);
    let mut unroll = Unroll::new(&device, &training, &horizon).unwrap();
    let forecast = unroll.forecast().bytes;
    unroll.gradient(&values).unwrap();
    assert_eq!(device.held_bytes() - held, forecast);
    assert_eq!(
        device.peak_bytes() - held,
        forecast,
        "running takes nothing more"
    );
    // Beside buffers there are only the constants of the programs.
    let own = held + forecast;
    let taken = before - facts().free_bytes;
    assert!(taken + block >= own, "{taken}");
    assert!(taken < own + block + code + (1 << 20), "{taken}");
    for _ in 0..3 {
        unroll.gradient(&values).unwrap();
    }
    assert_eq!(before - facts().free_bytes, taken, "runs take memory");
    assert!(!gradients(&unroll).is_empty());
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn f64_is_refused() {
    let tape = Tape::new();
    let x = tape.input("x", F64, [2]).unwrap();
    let plan = Plan::new(&[x.exp().unwrap()]).unwrap();
    let numbers = Array::new([2], vec![1.0, 2.0]).unwrap();
    let error = plan.run(&cuda(), &[(x, &numbers)]).unwrap_err();
    assert!(error.to_string().contains("use the CPU"), "{error}");
    let lost: Error = DeviceError::NoCuda("why".into()).into();
    assert_eq!(lost.to_string(), "no usable CUDA device: why");
}
