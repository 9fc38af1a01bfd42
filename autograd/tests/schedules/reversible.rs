//! Trainings that are undone step by step.

use super::*;
use autograd::Error;

const REVERSIBLE: Optimizer = Optimizer::ReversibleMomentum;

/// The arrays of a training with momenta of the caller's.
fn arrays(device: &Device, training: &Training<'_>, momenta: &[f64]) -> Arrays {
    let arrays = Arrays::new(device, training, momenta.len());
    let dtype = training.theta[0].dtype;
    for (t, &momentum) in momenta.iter().enumerate() {
        let momentum = Array::scalar(momentum, dtype);
        arrays.hyper.set(t, 1, &momentum).unwrap();
    }
    arrays
}

/// Momenta from one extreme to the other.
fn momenta(steps: usize) -> Vec<f64> {
    let some = [0.9, 0.05, 1.0, 0.5, 0.0, 0.999, 1e-6, 0.7];
    some.into_iter().cycle().take(steps).collect()
}

fn run(
    device: &Device,
    training: &Training<'_>,
    horizon: &Horizon,
    arrays: &Arrays,
) -> (Losses, [Vec<Array>; 4]) {
    let mut unroll = Unroll::new(device, training, horizon).unwrap();
    let losses = unroll.gradient(arrays.given()).unwrap();
    (losses, gradients(&unroll))
}

fn refused(training: &Training<'_>, schedule: Schedule, momenta: &[f64]) -> Error {
    let device = Device::cpu(Some(1)).unwrap();
    let horizon = Horizon::new(momenta.len()).schedule(schedule);
    match Unroll::new(&device, training, &horizon) {
        Ok(mut unroll) => {
            let arrays = arrays(&device, training, momenta);
            unroll.gradient(arrays.given()).unwrap_err()
        }
        Err(error) => error,
    }
}

/// Words are taken out and put in again, rows are taken in turn, and it is done twice.
#[test]
fn words_that_were_taken_out_come_back() {
    let device = Device::cpu(Some(2)).unwrap();
    for (dtype, mode) in [(DType::F32, Mode::Mixed), (DType::F64, Mode::Reverse)] {
        let training = training(REVERSIBLE, dtype);
        let arrays = arrays(&device, &training, &momenta(90));
        let horizon = Horizon::new(90).rows(7).mode(mode);
        let horizon = horizon.outer_at(|t| t % 40 == 0 || t == 90);
        let expected = run(&device, &training, &horizon, &arrays);
        let room = Schedule::Reversible(1200);
        let before = device.held_bytes();
        let mut undone = Unroll::new(&device, &training, &horizon.schedule(room)).unwrap();
        assert_eq!(device.held_bytes() - before, undone.forecast().bytes);
        for _ in 0..2 {
            let losses = undone.gradient(arrays.given()).unwrap();
            assert_eq!((losses, gradients(&undone)), expected, "{mode:?}");
        }
    }
}

/// From a state in the middle of a training, with its velocities and bits.
#[test]
fn a_training_goes_on_from_a_state() {
    let device = Device::cpu(Some(1)).unwrap();
    let training = training(REVERSIBLE, DType::F32);
    let arrays = arrays(&device, &training, &momenta(30));
    let horizon = Horizon::new(30);
    let middle = Records::new(&device, training.start_ports(), 1).unwrap();
    let keep = |done: usize, states: &Records, record: usize| match done {
        13 => middle.copy(0, states, record),
        _ => Ok(()),
    };
    let mut unroll = Unroll::new(&device, &training, &horizon).unwrap();
    unroll.train(arrays.given(), keep).unwrap();
    let arrays = Arrays {
        start: middle,
        ..arrays
    };
    let expected = run(&device, &training, &horizon, &arrays);
    let horizon = horizon.schedule(Schedule::Reversible(1200));
    assert_eq!(run(&device, &training, &horizon, &arrays), expected);
}

/// 0.152 bits a parameter and step at 0.9, and no record of a state for a step.
#[test]
fn memory_is_that_of_the_bits() {
    let steps = 2000;
    let device = Device::cpu(Some(1)).unwrap();
    let mut training = training(REVERSIBLE, DType::F32);
    training.buffers.clear();
    training.loss = Box::new(|s: Scope<'_, '_>| {
        let x = s.rows[0].matmul_with(s.shared[0], false, true)?;
        let h = x.matmul_with(s.theta[0], false, true)?.tanh()?;
        let error = (h.matmul_with(s.theta[1], false, true)? - s.rows[1])?;
        Ok(((error * error)?.mean_all()?, vec![]))
    });
    training.outer = Box::new(|s: Scope<'_, '_>| (s.theta[0] * s.theta[0])?.sum_all());
    let arrays = arrays(&device, &training, &vec![0.9; steps]);
    let horizon = Horizon::new(steps);
    let lean = horizon.clone().schedule(Schedule::Reversible(15));
    let undone = run(&device, &training, &lean, &arrays);
    assert_eq!(undone, run(&device, &training, &horizon, &arrays));
    let bytes = |schedule| {
        let horizon = horizon.clone().schedule(schedule);
        Forecast::new(&training, &horizon).unwrap().snapshot_bytes
    };
    // A word of 20 and 15 parameters: two cache lines and one.
    let words = |hundredths: usize| (hundredths * steps).div_ceil(3200);
    let more = bytes(Schedule::Reversible(100)) - bytes(Schedule::Reversible(15));
    assert_eq!(more, (words(100) - words(15)) * (128 + 64));
    let Error::Setting(said) = refused(&training, Schedule::Reversible(12), &vec![0.9; steps])
    else {
        unreachable!("there is no room")
    };
    // 2000·0.152 + 24 bits, of which the state holds up to 64.
    assert!(said.contains("lose 9 words a parameter"), "{said}");
    assert!(said.ends_with("use the schedule reversible-0.13"), "{said}");
}

#[test]
fn the_meta_gradient_is_that_of_momentum() {
    let device = Device::cpu(Some(1)).unwrap();
    let exact = [0.5, 0.75, 1.0, 0.25, 0.875];
    let any = [0.9, 0.7, 0.1, 0.33, 0.999];
    for (some, allowed) in [(exact, 1e-9), (any, 1e-6)] {
        let momenta: Vec<f64> = some.into_iter().cycle().take(30).collect();
        let of = |optimizer, schedule| {
            let training = training(optimizer, DType::F64);
            let arrays = arrays(&device, &training, &momenta);
            let horizon = Horizon::new(30).schedule(schedule);
            run(&device, &training, &horizon, &arrays).1
        };
        let expected = of(Optimizer::Momentum, Schedule::PerStep);
        let found = of(REVERSIBLE, Schedule::Reversible(400));
        for (kind, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let flat = |arrays: &[Array]| -> Vec<f64> {
                let floats = arrays.iter().filter(|array| array.dtype().is_float());
                floats.flat_map(Array::to_f64_vec).collect()
            };
            let (found, expected) = (flat(found), flat(expected));
            assert_eq!(found.len(), expected.len());
            let size = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
            let pairs = found.iter().zip(&expected);
            let worst = pairs.fold(0.0_f64, |worst, (x, y)| worst.max((x - y).abs()));
            assert!(size > 1e-3, "{kind}: there is a gradient");
            assert!(worst <= allowed * size, "{kind}: {worst} of {size}");
        }
    }
}

#[test]
fn what_cannot_be_undone_is_refused() {
    let momentum = training(Optimizer::Momentum, DType::F32);
    let said = refused(&momentum, Schedule::Reversible(100), &[0.5; 3]).to_string();
    assert_eq!(
        said,
        "steps of the optimiser momentum cannot be undone: the schedule `reversible` is for \
         reversible-momentum"
    );
    let training = training(REVERSIBLE, DType::F32);
    let said = refused(&training, Schedule::Reversible(100), &[0.1; 100]).to_string();
    assert_eq!(
        said,
        "the momenta of 100 inner steps lose 10 words a parameter, and 4 have room: use the schedule \
         reversible-2.89"
    );
    let enough = said.rsplit(' ').next().unwrap().parse().unwrap();
    let device = Device::cpu(Some(1)).unwrap();
    let arrays = arrays(&device, &training, &[0.1; 100]);
    let horizon = Horizon::new(100).schedule(enough);
    run(&device, &training, &horizon, &arrays);
    let said = refused(&training, Schedule::Reversible(100), &[0.5, 1.25]).to_string();
    assert_eq!(
        said,
        "the momentum of inner step 1 is 1.25: reversible momentum is for 0 to 1"
    );
    let error = refused(&training, Schedule::PerStep, &[0.5, 1.25, 0.5]);
    assert!(matches!(error, Error::NotFinite { step: 2, .. }), "{error}");
}

/// A weight that grows out of range is seen at once, or at the latest with the outer loss: a `ReLU` would hide
/// the NaN.
#[test]
fn numbers_out_of_range_are_an_error() {
    let steep = Training {
        theta: vec![port("w", [3], DType::F32)],
        buffers: vec![],
        shared: vec![],
        rows: vec![],
        outer_rows: vec![],
        optimizer: REVERSIBLE,
        precondition: None,
        prepare: Box::new(|_, _| Ok(vec![])),
        loss: Box::new(|s: Scope<'_, '_>| {
            let steep = (s.theta[0] * -1e6)?;
            Ok((steep.relu()?.sum_all()?, vec![]))
        }),
        outer: Box::new(|s: Scope<'_, '_>| s.theta[0].relu()?.sum_all()),
    };
    for schedule in [Schedule::PerStep, Schedule::Reversible(100)] {
        let error = refused(&steep, schedule, &[0.5; 3]);
        assert!(matches!(error, Error::NotFinite { .. }), "{error}");
    }
}
