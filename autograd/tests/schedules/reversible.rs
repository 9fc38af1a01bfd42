//! Trainings that are undone step by step.

use super::*;
use autograd::Error;

const REVERSIBLE: Optimizer = Optimizer::ReversibleMomentum;

/// The arrays of a training with momenta of the caller's, one for every step.
fn values_with(device: &Device, training: &Training<'_>, momenta: &[f64]) -> Values {
    let mut values = values(device, training);
    let dtype = training.weight_specs()[0].dtype;
    let momenta = Array::new([momenta.len()], momenta.to_vec()).unwrap();
    values.set("momentum", &momenta.cast(dtype)).unwrap();
    values
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
    values: &Values,
) -> (Losses, Arrays) {
    let mut unroll = Unroll::new(device, training, horizon).unwrap();
    let losses = unroll.gradient(values).unwrap();
    (losses, gradients(&unroll))
}

fn refused(training: &Training<'_>, schedule: Schedule, momenta: &[f64]) -> Error {
    let device = Device::cpu(Some(1)).unwrap();
    let horizon = Horizon::new(momenta.len()).schedule(schedule);
    match Unroll::new(&device, training, &horizon) {
        Ok(mut unroll) => {
            let values = values_with(&device, training, momenta);
            unroll.gradient(&values).unwrap_err()
        }
        Err(error) => error,
    }
}

/// Words are taken out and put in again, rows are taken in turn, and it is done twice.
#[test]
fn words_that_were_taken_out_come_back() {
    let device = Device::cpu(Some(2)).unwrap();
    for (dtype, mode) in [(F32, Mode::Mixed), (F64, Mode::Reverse)] {
        let training = training(REVERSIBLE, dtype, 7, 90);
        let values = values_with(&device, &training, &momenta(90));
        let horizon = Horizon::new(90).mode(mode);
        let horizon = horizon.outer_at(|t| t % 40 == 0 || t == 90);
        let expected = run(&device, &training, &horizon, &values);
        let room = Schedule::reversible(12.0);
        let before = device.held_bytes();
        let mut undone = Unroll::new(&device, &training, &horizon.schedule(room)).unwrap();
        assert_eq!(device.held_bytes() - before, undone.forecast().bytes);
        for _ in 0..2 {
            let losses = undone.gradient(&values).unwrap();
            assert_eq!((losses, gradients(&undone)), expected, "{mode:?}");
        }
    }
}

/// The words of a state have no cotangent to be clipped.
#[test]
fn cotangents_are_clipped_under_any_schedule() {
    let device = Device::cpu(Some(1)).unwrap();
    let training = training(REVERSIBLE, F32, 6, 6);
    let values = values_with(&device, &training, &momenta(6));
    let unclipped = run(&device, &training, &Horizon::new(6), &values);
    let horizon = Horizon::new(6).clip(1e-3);
    let expected = run(&device, &training, &horizon, &values);
    assert_ne!(unclipped.1, expected.1);
    let undone = horizon.schedule(Schedule::reversible(12.0));
    assert_eq!(run(&device, &training, &undone, &values), expected);
}

/// From a state in the middle of a training, with its velocities and bits.
#[test]
fn a_training_goes_on_from_a_state() {
    let device = Device::cpu(Some(1)).unwrap();
    let training = training(REVERSIBLE, F32, 30, 30);
    let mut values = values_with(&device, &training, &momenta(30));
    let state = ["w", "v", "w.u", "v.u", "w.fixed", "v.fixed", "mean"];
    let mut middle = Vec::new();
    let mut trainer = Trainer::new(&device, &training, 30).unwrap();
    let observed = trainer.train(&values, |done, at| {
        if done == 13 {
            middle = state.map(|name| at.get(name).unwrap()).to_vec();
        }
        Ok(())
    });
    observed.unwrap();
    values.set_all(state.into_iter().zip(&middle)).unwrap();
    let horizon = Horizon::new(30);
    let expected = run(&device, &training, &horizon, &values);
    let horizon = horizon.schedule(Schedule::reversible(12.0));
    assert_eq!(run(&device, &training, &horizon, &values), expected);
}

/// 0.152 bits a parameter and step at 0.9, and no record of a state for a step.
#[test]
fn memory_is_that_of_the_bits() {
    let steps = 2000;
    let device = Device::cpu(Some(1)).unwrap();
    let array = |name: &str, shape: &[usize]| ArraySpec::new(name, F32, shape);
    let weights = [array("w", &[5, 4]), array("v", &[3, 5])];
    let training = Training::new(REVERSIBLE)
        .weights(&weights)
        .learned(starts(REVERSIBLE, &weights))
        .learned(hyper_specs(REVERSIBLE, F32, steps))
        .learned([array("g", &[4, 2]), array("z", &[steps, 6, 2])])
        .given([array("y", &[steps, 6, 3])])
        .prepare("g", |s| s["g"] * s["g"])
        .per_step(["z", "y"])
        .loss(|s| {
            let x = s["z"].matmul_with(s["g"], false, true)?;
            let h = x.matmul_with(s["w"], false, true)?.tanh()?;
            let error = (h.matmul_with(s["v"], false, true)? - s["y"])?;
            (error * error)?.mean_all()
        })
        .outer(|s| (s["w"] * s["w"])?.sum_all());
    let values = values_with(&device, &training, &vec![0.9; steps]);
    let horizon = Horizon::new(steps);
    let lean = horizon.clone().schedule(Schedule::reversible(0.15));
    let undone = run(&device, &training, &lean, &values);
    assert_eq!(undone, run(&device, &training, &horizon, &values));
    let bytes = |schedule| {
        let horizon = horizon.clone().schedule(schedule);
        Forecast::new(&training, &horizon).unwrap().snapshot_bytes
    };
    // A word of 20 and 15 parameters: two cache lines and one.
    let words = |hundredths: usize| (hundredths * steps).div_ceil(3200);
    let more = bytes(Schedule::reversible(1.0)) - bytes(Schedule::reversible(0.15));
    assert_eq!(more, (words(100) - words(15)) * (128 + 64));
    let Error::Setting(said) = refused(&training, Schedule::reversible(0.12), &vec![0.9; steps])
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
            let training = training(optimizer, F64, 30, 30);
            let values = values_with(&device, &training, &momenta);
            let horizon = Horizon::new(30).schedule(schedule);
            run(&device, &training, &horizon, &values).1
        };
        let expected = of(Optimizer::Momentum, Schedule::per_step());
        let found = of(REVERSIBLE, Schedule::reversible(4.0));
        for kind in [
            &["w", "v", "w.u", "v.u", "mean"][..],
            &["g"],
            &["z"],
            &["lr", "momentum"],
        ] {
            let flat = |arrays: &Arrays| -> Vec<f64> {
                let numbers = kind.iter().flat_map(|name| arrays[*name].to_f64_vec());
                numbers.collect()
            };
            let (found, expected) = (flat(&found), flat(&expected));
            assert_eq!(found.len(), expected.len());
            let size = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
            let pairs = found.iter().zip(&expected);
            let worst = pairs.fold(0.0_f64, |worst, (x, y)| worst.max((x - y).abs()));
            assert!(size > 1e-3, "{kind:?}: there is a gradient");
            assert!(worst <= allowed * size, "{kind:?}: {worst} of {size}");
        }
    }
}

#[test]
fn what_cannot_be_undone_is_refused() {
    let of = |optimizer, steps| training(optimizer, F32, steps, steps);
    let momentum = of(Optimizer::Momentum, 3);
    let said = refused(&momentum, Schedule::reversible(1.0), &[0.5; 3]).to_string();
    assert_eq!(
        said,
        "steps of the optimiser momentum cannot be undone: the schedule `reversible` is for \
         reversible-momentum"
    );
    let long = of(REVERSIBLE, 100);
    let said = refused(&long, Schedule::reversible(1.0), &[0.1; 100]).to_string();
    assert_eq!(
        said,
        "the momenta of 100 inner steps lose 10 words a parameter, and 4 have room: use the schedule \
         reversible-2.89"
    );
    let enough: Policy = said.rsplit(' ').next().unwrap().parse().unwrap();
    let device = Device::cpu(Some(1)).unwrap();
    let values = values_with(&device, &long, &[0.1; 100]);
    run(&device, &long, &Horizon::new(100).schedule(enough), &values);
    let said = refused(&of(REVERSIBLE, 2), Schedule::reversible(1.0), &[0.5, 1.25]).to_string();
    assert_eq!(
        said,
        "the momentum of inner step 1 is 1.25: reversible momentum is for 0 to 1"
    );
    let error = refused(&of(REVERSIBLE, 3), Schedule::per_step(), &[0.5, 1.25, 0.5]);
    assert!(matches!(error, Error::NotFinite { step: 2, .. }), "{error}");
}

/// Rates may differ by weight and be prepared. The momentum is one for all, because it says which bits are
/// lost.
#[test]
fn rates_differ_by_weight_and_momenta_do_not() {
    let device = Device::cpu(Some(1)).unwrap();
    let of_weights = |training: Training<'static>| {
        training
            .learned([ArraySpec::new("rates", F32, [2])])
            .hyper("lr", |s, weight| {
                s["lr"] * s["rates"].slice(&[weight], &[1])?
            })
    };
    let training = of_weights(training(REVERSIBLE, F32, 30, 30))
        .prepare("momentum", |s| s["momentum"].powi(2));
    let values = values_with(&device, &training, &momenta(30));
    let horizon = Horizon::new(30);
    let expected = run(&device, &training, &horizon, &values);
    let horizon = horizon.schedule(Schedule::reversible(20.0));
    assert_eq!(run(&device, &training, &horizon, &values), expected);

    let halved = training.hyper("momentum", |s, _| s["momentum"] * 0.5);
    let said = refused(&halved, Schedule::reversible(20.0), &momenta(30)).to_string();
    assert_eq!(
        said,
        "the schedule `reversible` needs an array `momentum`, with one number for every step or for all, and \
         no `hyper` for it"
    );
}

/// A weight that grows out of range is seen at once, or at the latest with the outer loss: a `ReLU` would hide
/// the NaN.
#[test]
fn numbers_out_of_range_are_an_error() {
    let steep = Training::new(REVERSIBLE)
        .weights([ArraySpec::new("w", F32, [3])])
        .given(hyper_specs(REVERSIBLE, F32, 3))
        .loss(|s| (s["w"] * -1e6)?.relu()?.sum_all())
        .outer(|s| s["w"].relu()?.sum_all());
    for schedule in [Schedule::per_step(), Schedule::reversible(1.0)] {
        let error = refused(&steep, schedule, &[0.5; 3]);
        assert!(matches!(error, Error::NotFinite { .. }), "{error}");
    }
}
