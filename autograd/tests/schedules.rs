//! What is kept between the sweeps changes memory and time, never the meta-gradient.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;
#[path = "schedules/free_memory.rs"]
mod free_memory;
#[path = "schedules/reversible.rs"]
mod reversible;
use autograd::prelude::*;
use autograd::{CotangentNorms, Distribution, Forecast, Losses, Planned};
use common::{gradients, hyper_specs, starts};
use proptest::prelude::*;
use std::ops::Range;
use tensor::Arrays;

/// A network with a running mean and with noise drawn inside the step, taught by data that a linear
/// generator makes. Steps take their data in turn from `rows` rows. Everything but labels, keys and outer
/// data is learned: the start, too.
fn training(optimizer: Optimizer, dtype: DType, rows: usize, steps: usize) -> Training<'static> {
    let array = |name: &str, shape: &[usize]| ArraySpec::new(name, dtype, shape);
    let weights = [array("w", &[5, 4]), array("v", &[3, 5])];
    let mean = [array("mean", &[1, 5])];
    Training::new(optimizer)
        .weights(&weights)
        .buffers(&mean)
        .learned(starts(optimizer, &weights).iter().chain(&mean))
        .learned(hyper_specs(optimizer, dtype, steps))
        .learned([array("g", &[4, 2]), array("z", &[rows, 6, 2])])
        .given([
            array("y", &[rows, 6, 3]),
            ArraySpec::new("key", U32, [rows, 4]),
            array("x", &[steps, 8, 4]),
            array("t", &[steps, 8, 3]),
        ])
        .prepare("g", |s| s["g"] * s["g"])
        .per_step(["z", "y", "key"])
        .per_outer(["x", "t"])
        .loss_and_buffers(move |s| {
            let noise = |op, shape: [usize; 2]| {
                let uniform = Distribution::Uniform;
                s.tape().random(s["key"], op, uniform, dtype, shape)
            };
            let x = s["z"].matmul_with(s["g"], false, true)?.tanh()?;
            let h = (x * noise(0, [6, 4])?)?.matmul_with(s["w"], false, true)?;
            let mean = h.mean_keep(&[0])?;
            let h = ((h - mean)?.tanh()? * noise(1, [6, 5])?)?;
            let error = (h.matmul_with(s["v"], false, true)? - s["y"])?;
            Ok(((error * error)?.mean_all()?, vec![mean]))
        })
        .outer(|s| {
            let h = s["x"].matmul_with(s["w"], false, true)?;
            let h = (h - s["mean"])?.tanh()?;
            let error = (h.matmul_with(s["v"], false, true)? - s["t"])?;
            (error * error)?.mean_all()
        })
}

/// Numbers for everything that a training declares. They are twice the common ones: noise makes gradients small.
fn values(device: &Device, training: &Training<'_>) -> Values {
    let values = common::values(device, training);
    for name in ["w", "v", "mean", "g", "z", "y", "x", "t"] {
        if values.has(name) {
            let array = values.get(name).unwrap();
            let twice: Vec<f64> = array.to_f64_vec().iter().map(|v| 2.0 * v).collect();
            let twice = Array::new(array.shape().clone(), twice).unwrap();
            values.write(name, &twice.cast(array.dtype())).unwrap();
        }
    }
    values
}

/// Rows of an array.
fn rows(array: &Array, rows: Range<usize>) -> Array {
    let mut shape = array.shape().to_vec();
    let bytes = array.bytes().len() / shape[0];
    shape[0] = rows.len();
    let part = &array.bytes()[rows.start * bytes..rows.end * bytes];
    Array::from_bytes(array.dtype(), shape, part).unwrap()
}

fn is_zero(array: &Array) -> bool {
    array.to_f64_vec().iter().all(|&number| number == 0.0)
}

/// A problem: how long, and every how many steps an outer loss is looked at beside the last.
#[derive(Clone, Copy, Debug)]
struct Case {
    optimizer: Optimizer,
    mode: Mode,
    steps: usize,
    outer_every: usize,
}

impl Case {
    fn training(self) -> Training<'static> {
        training(self.optimizer, F32, self.steps, self.steps)
    }

    fn horizon(self, policy: impl Into<Policy>) -> Horizon {
        let horizon = Horizon::new(self.steps).schedule(policy).mode(self.mode);
        horizon.outer_at(|t| t == self.steps || t.is_multiple_of(self.outer_every))
    }

    fn forecast(self, policy: impl Into<Policy>) -> Result<Forecast> {
        Forecast::new(&self.training(), &self.horizon(policy))
    }

    /// Losses and gradients; that the memory is what was forecast is checked on the way.
    fn run(self, threads: usize, policy: impl Into<Policy>) -> (Losses, Arrays) {
        self.run_to(threads, &self.horizon(policy))
    }

    fn run_to(self, threads: usize, horizon: &Horizon) -> (Losses, Arrays) {
        let device = Device::cpu(Some(threads)).unwrap();
        let training = self.training();
        let values = values(&device, &training);
        let before = device.held_bytes();
        device.reset_peak();
        let mut unroll = Unroll::new(&device, &training, horizon).unwrap();
        let losses = unroll.gradient(&values).unwrap();
        let gradients = gradients(&unroll);
        let forecast = Forecast::new(&training, horizon).unwrap();
        assert_eq!(forecast, unroll.forecast(), "{horizon:?}");
        assert_eq!(
            device.peak_bytes() - before,
            forecast.bytes,
            "{horizon:?} {self:?}"
        );
        (losses, gradients)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_schedule_gives_the_same_bits(
        steps in 1usize..=40,
        outer_every in 1usize..=50,
        c in 1usize..=12,
        kept in 1usize..=40,
        k in 1usize..=41,
        share in 0.0..1.0f64,
        on_disk in 0usize..=41,
        in_host in 0usize..=41,
        optimizer in prop::sample::select(vec![
            Optimizer::Momentum,
            Optimizer::Adam,
            Optimizer::ReversibleMomentum,
        ]),
        reverse: bool,
    ) {
        let case = Case {
            optimizer,
            mode: if reverse { Mode::Reverse } else { Mode::Mixed },
            steps,
            outer_every,
        };
        let bytes = |schedule: Schedule| case.forecast(schedule).unwrap().bytes;
        let (least, most) = (bytes(Schedule::binomial(1)), bytes(Schedule::store_all()));
        let budget = least + (share * most.saturating_sub(least) as f64) as usize;
        let expected = case.run(1, Schedule::per_step());
        let (every, binomial) = (Schedule::every(k), Schedule::binomial(c));
        let policies = [
            Schedule::store_all().into(),
            every.into(),
            binomial.into(),
            binomial.with_activations(kept).into(),
            every.with_prelude().into(),
            binomial.with_prelude().into(),
            binomial.with_activations(kept).with_prelude().into(),
            Policy::Budget(budget),
            Policy::Auto,
            Policy::Lean,
            Policy::Window(steps),
            Schedule::reversible(1.0).into(),
        ];
        let undone = usize::from(optimizer == Optimizer::ReversibleMomentum);
        let policies = &policies[..policies.len() - 1 + undone];
        for (threads, policy) in (1..=3).cycle().zip(policies) {
            let horizon = case.horizon(*policy).free_bytes(2 * budget);
            prop_assert_eq!(&case.run_to(threads, &horizon), &expected, "{} {:?}", policy, case);
            let away = horizon
                .on_disk(on_disk, std::env::temp_dir())
                .in_host(in_host);
            prop_assert_eq!(&case.run_to(threads, &away), &expected, "{:?} {:?}", away, case);
        }
    }
}

const CASE: Case = Case {
    optimizer: Optimizer::Momentum,
    mode: Mode::Mixed,
    steps: 40,
    outer_every: 40,
};

#[test]
fn noise_is_drawn_anew_at_every_step() {
    let device = Device::cpu(Some(1)).unwrap();
    let training = CASE.training();
    let mut unroll = Unroll::new(&device, &training, &CASE.horizon(Policy::default())).unwrap();
    let values = values(&device, &training);
    let drawn_anew = unroll.gradient(&values).unwrap().total();
    let key = rows(&values.get("key").unwrap(), 0..1)
        .reshape([4])
        .unwrap();
    (0..40).for_each(|step| values.set_row("key", step, &key).unwrap());
    assert_ne!(unroll.gradient(&values).unwrap().total(), drawn_anew);
}

/// Snapshots of a binomial schedule do not grow with T, those of per-step by one state a step.
#[test]
fn memory_is_a_function_of_snapshots() {
    let at = |steps, schedule: Schedule| {
        let case = Case { steps, ..CASE };
        case.forecast(schedule).unwrap()
    };
    let state: usize = [20, 15, 20, 15, 5]
        .map(|floats: usize| (4 * floats).next_multiple_of(64))
        .iter()
        .sum();
    for c in [1, 3, 8] {
        let schedule = Schedule::binomial(c);
        let snapshots = at(100, schedule).snapshot_bytes;
        assert_eq!(snapshots, (c + 3) * state);
        assert_eq!(at(1000, schedule).snapshot_bytes, snapshots);
    }
    let slope =
        at(31, Schedule::per_step()).snapshot_bytes - at(30, Schedule::per_step()).snapshot_bytes;
    assert_eq!(slope, state);
    assert_eq!(at(40, Schedule::store_all()).evaluations, 40);
    assert_eq!(at(40, Schedule::per_step()).evaluations, 80);
    // C(4 + 3, 3) = 35 < 40 ≤ C(4 + 4, 4): r = 4 repetitions, 4·40 − C(8, 5) advances, one for the outer loss.
    let binomial = at(40, Schedule::binomial(4));
    assert_eq!(binomial.evaluations, 160 - 56 + 1 + 40);
}

/// With every snapshot away, what the device holds does not depend on T.
#[test]
fn snapshots_on_disk_leave_two_states_on_the_device() {
    let at = |steps| {
        let case = Case { steps, ..CASE };
        let horizon = case.horizon(Schedule::per_step());
        let horizon = horizon
            .on_disk(steps - 10, std::env::temp_dir())
            .in_host(10);
        Forecast::new(&case.training(), &horizon).unwrap()
    };
    let (short, long) = (at(40), at(1000));
    assert_eq!(short.snapshot_bytes, long.snapshot_bytes);
    let state = short.snapshot_bytes / 2;
    assert_eq!(long.disk_bytes - short.disk_bytes, 960 * state);
    // Nine in host memory, for the last is never put away; two on their way to the disk or back.
    assert_eq!(long.host_bytes, (9 + 2) * state);
    assert_eq!(long.evaluations, 2000);

    let nowhere = CASE
        .horizon(Schedule::per_step())
        .on_disk(3, "/no/such/folder");
    let device = Device::cpu(Some(1)).unwrap();
    let refused = Unroll::new(&device, &CASE.training(), &nowhere).unwrap_err();
    let said = refused.to_string();
    assert!(said.contains("snapshots on disk: ") && said.contains(" in /no/such/folder"));
}

#[test]
fn more_budget_never_takes_more_work() {
    let refused = CASE.forecast(Policy::Budget(1000)).unwrap_err().to_string();
    let least = refused.split("the least is ").nth(1).unwrap();
    let least: usize = least.split(' ').next().unwrap().parse().unwrap();
    assert!(CASE.forecast(Policy::Budget(least - 1)).is_err());
    let most = CASE.forecast(Schedule::store_all()).unwrap().bytes;
    let mut before = u64::MAX;
    let mut different = Vec::new();
    for tenth in 0..=9 {
        let budget = least + (most - least) * tenth / 9;
        let device = Device::cpu(Some(1)).unwrap();
        let training = CASE.training();
        let values = values(&device, &training);
        let held = device.held_bytes();
        device.reset_peak();
        let horizon = CASE.horizon(Policy::Budget(budget));
        let mut unroll = Unroll::new(&device, &training, &horizon).unwrap();
        unroll.gradient(&values).unwrap();
        assert!(device.peak_bytes() - held <= budget);
        assert_eq!(device.peak_bytes() - held, unroll.forecast().bytes);
        assert!(unroll.forecast().flops <= before, "{}", unroll.schedule());
        before = unroll.forecast().flops;
        different.push(unroll.schedule());
    }
    assert_eq!(different.last(), Some(&Schedule::store_all()));
    different.dedup();
    assert!(different.len() > 4, "{different:?}");
    let with = |schedule: &Schedule| schedule.to_string().ends_with("-prelude");
    assert!(different.iter().any(with), "{different:?}");
}

/// The last W steps from a state that is given: the reference of a truncated gradient.
#[test]
fn a_window_is_the_gradient_from_a_given_state() {
    let device = Device::cpu(Some(2)).unwrap();
    let outer = |t: usize| t.is_multiple_of(3) || t == 13;
    for (steps, window) in [(13, 1), (13, 4), (13, 12), (9, 5)] {
        let begin = steps - window;
        let whole = training(Optimizer::Momentum, F32, steps, steps);
        let mut values = values(&device, &whole);
        let policy = Policy::Window(window);
        let horizon = Horizon::new(steps).schedule(policy).outer_at(outer);
        let mut truncated = Unroll::new(&device, &whole, &horizon).unwrap();
        let losses = truncated.gradient(&values).unwrap();
        let truncated = gradients(&truncated);

        let start = ["w", "v", "w.u", "v.u", "mean"];
        let mut middle = Vec::new();
        let mut trainer = Trainer::new(&device, &whole, steps).unwrap();
        let observed = trainer.train(&values, |done, state| {
            if done == begin {
                middle = start.map(|name| state.get(name).unwrap()).to_vec();
            }
            Ok(())
        });
        assert_eq!(observed.unwrap(), losses.inner);
        values.set_all(start.into_iter().zip(&middle)).unwrap();
        for (names, begin) in [
            (&["z", "y", "key", "lr", "momentum"][..], begin),
            (&["x", "t"], begin / 3),
        ] {
            for name in names {
                let later = rows(&values.get(name).unwrap(), begin..begin + window);
                values.set(name, &later).unwrap();
            }
        }
        let rest = training(Optimizer::Momentum, F32, window, window);
        let horizon = Horizon::new(window).outer_at(|t| outer(t + begin));
        let mut exact = Unroll::new(&device, &rest, &horizon).unwrap();
        let later_losses = exact.gradient(&values).unwrap();
        assert_eq!(losses.inner[begin..], later_losses.inner);
        assert_eq!(losses.outer[begin / 3..], later_losses.outer);
        for (name, expected) in gradients(&exact) {
            let found = &truncated[&name];
            if start.contains(&&*name) {
                assert!(is_zero(found), "{name}: nothing flows before");
            } else if name == "g" {
                assert_eq!(*found, expected, "{window} of {steps}");
            } else {
                assert_eq!(rows(found, begin..steps), expected, "{name}");
                assert!(
                    is_zero(&rows(found, 0..begin)),
                    "{name}: nothing flows before"
                );
            }
        }
    }
}

/// Rows that are taken in turn: the sum, from the last step to the first, of what the steps give alone.
#[test]
fn rows_in_turn_sum_their_gradients() {
    let device = Device::cpu(Some(2)).unwrap();
    for (steps, turns) in [(11, 4), (8, 4), (5, 1), (3, 7)] {
        let in_turn = training(Optimizer::Momentum, F32, turns, steps);
        let values = values(&device, &in_turn);
        // The same with a row for every step.
        let one_each = training(Optimizer::Momentum, F32, steps, steps);
        let copies = common::values(&device, &one_each);
        for spec in values.specs() {
            let array = values.get(&spec.name).unwrap();
            if !["z", "y", "key"].contains(&&*spec.name) {
                copies.write(&spec.name, &array).unwrap();
                continue;
            }
            for step in 0..steps {
                let row = step % turns;
                let row = rows(&array, row..row + 1);
                let row = row.reshape(&array.shape()[1..]).unwrap();
                copies.set_row(&spec.name, step, &row).unwrap();
            }
        }
        let horizon = Horizon::new(steps);
        let mut each = Unroll::new(&device, &one_each, &horizon).unwrap();
        let losses = each.gradient(&copies).unwrap();
        let mut expected = gradients(&each);
        let z = &expected["z"];
        let size = z.shape()[1..].iter().product::<usize>();
        let mut sums = vec![0f32; turns * size];
        for step in (0..steps).rev() {
            let alone = rows(z, step..step + 1).to_f64_vec();
            let sum = &mut sums[step % turns * size..][..size];
            sum.iter_mut()
                .zip(alone)
                .for_each(|(sum, number)| *sum += number as f32);
        }
        let sums = Array::new([&[turns], &z.shape()[1..]].concat(), sums).unwrap();
        expected.insert("z".into(), sums);
        for schedule in [
            Schedule::per_step(),
            Schedule::binomial(2),
            Schedule::store_all(),
        ] {
            let before = device.held_bytes();
            let horizon = horizon.clone().schedule(schedule);
            let mut turn = Unroll::new(&device, &in_turn, &horizon).unwrap();
            assert_eq!(device.held_bytes() - before, turn.forecast().bytes);
            for _ in 0..2 {
                assert_eq!(turn.gradient(&values).unwrap(), losses);
            }
            assert_eq!(gradients(&turn), expected, "{schedule} {steps} {turns}");
        }
    }
}

/// θ' = θ − lr·2θ stretches the cotangent by 1 − 2 lr a step: the norms are known.
#[test]
fn cotangent_norms_are_those_of_a_closed_form() {
    let device = Device::cpu(Some(1)).unwrap();
    let quadratic = Training::new(Optimizer::Sgd)
        .weights([ArraySpec::new("w", F64, [3])])
        .given([ArraySpec::new("lr", F64, [6])])
        .loss(|s| (s["w"] * s["w"])?.sum_all())
        .outer(|s| s["w"].sum_all());
    let mut values = values(&device, &quadratic);
    values.set("lr", &Array::full(F64, [6], 1.5)).unwrap();
    let norms = |policy: Policy| {
        let horizon = Horizon::new(6).schedule(policy);
        let mut unroll = Unroll::new(&device, &quadratic, &horizon).unwrap();
        unroll.gradient(&values).unwrap();
        assert_eq!(unroll.cotangent_norms(), None, "only if asked");
        unroll.watch_cotangents(true);
        unroll.gradient(&values).unwrap();
        unroll.cotangent_norms().unwrap().clone()
    };
    let full = norms(Schedule::binomial(2).into());
    for (t, &norm) in full.norms().iter().enumerate() {
        let expected = 3f64.sqrt() * 2f64.powi(6 - t as i32);
        assert!((norm / expected - 1.0).abs() < 1e-14, "{t}: {norm}");
    }
    // At 10 the cotangent is 2√3, 4√3, and then shortened to 10 wherever it has doubled.
    let clipped = |schedule| {
        let horizon = Horizon::new(6).schedule(schedule).clip(10.0);
        let mut unroll = Unroll::new(&device, &quadratic, &horizon).unwrap();
        unroll.watch_cotangents(true);
        unroll.gradient(&values).unwrap();
        unroll.cotangent_norms().unwrap().clone()
    };
    let norms_clipped = clipped(Schedule::per_step());
    for (t, &norm) in norms_clipped.norms().iter().enumerate() {
        let expected = (3f64.sqrt() * 2f64.powi(6 - t as i32)).min(10.0);
        assert!((norm / expected - 1.0).abs() < 1e-14, "{t}: {norm}");
    }
    assert_eq!(clipped(Schedule::binomial(2)), norms_clipped);
    let refused = Unroll::new(&device, &quadratic, &Horizon::new(6).clip(0.0));
    assert!(refused.unwrap_err().to_string().starts_with("clip is 0: "));
    let exploded = autograd::Trouble::Explodes { step: 2 };
    assert_eq!(full.trouble(10.0), Some(exploded));
    let mut truncated = full.norms().to_vec();
    truncated[..4].fill(0.0);
    assert_eq!(norms(Policy::Window(2)), CotangentNorms::new(truncated));
}

/// Fresh memory is full of zeros; memory of another training is not.
#[test]
fn memory_that_was_used_changes_no_bit() {
    let device = Device::cpu(Some(1)).unwrap();
    let of = |steps| training(Optimizer::Momentum, F32, steps, steps);
    let schedules = [
        (9, "store-all"),
        (4, "store-all"),
        (9, "per-step"),
        (7, "binomial-2-prelude"),
    ];
    let mut used: Option<Unroll> = None;
    for (steps, schedule) in schedules {
        let training = of(steps);
        let policy: Policy = schedule.parse().unwrap();
        let horizon = Horizon::new(steps).schedule(policy);
        let values = values(&device, &training);
        let mut fresh = Unroll::new(&device, &training, &horizon).unwrap();
        let expected = (fresh.gradient(&values).unwrap(), gradients(&fresh));
        let planned = Planned::new(&training, &horizon).unwrap();
        let mut again = match used.take() {
            Some(unroll) => unroll.turn_to(planned).unwrap().0,
            None => Unroll::of(&device, planned).unwrap(),
        };
        let found = (again.gradient(&values).unwrap(), gradients(&again));
        assert_eq!(found, expected, "{steps} steps, {schedule}");
        used = Some(again);
    }
}
