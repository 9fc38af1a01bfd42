//! What a step computes without the learner's state is kept where it pays, and need not be computed again.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

use autograd::prelude::*;
use autograd::{Distribution, Forecast, Phase, Planned};
use common::{gradients, starts, values};

const SIDE: usize = 32;
const LAYERS: usize = 3;
const GENERATED: usize = 2;
const STEPS: usize = 16;

fn array(name: &str, shape: &[usize]) -> ArraySpec {
    ArraySpec::new(name, F32, shape)
}

fn squares(name: &str, count: usize) -> Vec<ArraySpec> {
    let square = |i| array(&format!("{name}{i}"), &[SIDE, SIDE]);
    (0..count).map(square).collect()
}

/// Square layers on the square images of a generator of square layers, so that all products are alike. The steps take
/// their rows of noise in turn.
fn training(rows: usize) -> Training<'static> {
    Training::new(Optimizer::Momentum)
        .weights(squares("w", LAYERS))
        .learned_list("g", squares("g", GENERATED))
        .learned([array("z", &[rows, SIDE, SIDE])])
        .per_step(["z"])
        .loss(|s| {
            let layers = s.list("g").iter().chain(s.weights());
            let x = layers
                .copied()
                .try_fold(s["z"], |x, weight| x.matmul(weight)?.relu())?;
            (x * x)?.sum_all()
        })
        .outer(|s| s["w0"].sum_all())
}

/// The products that a phase launches.
fn products(phase: &Phase<'_>) -> usize {
    let kernels = phase.plan.kernels();
    kernels
        .filter(|(kernel, _)| kernel.name().starts_with("matmul"))
        .count()
}

/// Without the images' products only the learner's are left: 3 F, less the data's gradient.
#[test]
fn a_step_that_is_advanced_again_has_no_product_of_its_prelude() {
    let training = training(STEPS);
    let at = |schedule| {
        let planned = Planned::new(&training, &Horizon::new(STEPS).schedule(schedule)).unwrap();
        let phases = planned.phases();
        let phases: Vec<_> = phases
            .iter()
            .map(|p| (p.name, p.runs, products(p)))
            .collect();
        (planned.forecast(), phases)
    };
    // Of 16 steps in stretches of 4 three each of the first three are advanced again.
    let (plain, plain_phases) = at(Schedule::every(4));
    let (with, phases) = at(Schedule::every(4).with_prelude());
    let learner = 3 * LAYERS - 1;
    assert_eq!(plain_phases[0], ("inner step", 16 + 9, GENERATED + learner));
    let expected = [
        ("inner step", 7, GENERATED + learner),
        ("inner step, prelude kept", 9, GENERATED + learner),
        ("inner step, prelude given", 9, learner),
    ];
    assert_eq!(phases[..3], expected);
    assert_eq!(phases[3..], plain_phases[1..]);
    // The images are a square of floats, and nine of them are kept.
    let square = 4 * SIDE * SIDE;
    assert_eq!(with.snapshot_bytes, plain.snapshot_bytes + 9 * square);
    assert_eq!(with.evaluations, plain.evaluations);
    // Beside its products a layer has a rectifier: a comparison and a choice.
    let layer = (2 * SIDE + 2) * SIDE * SIDE;
    assert_eq!(plain.flops - with.flops, (9 * GENERATED * layer) as u64);
}

/// Binomial schedules take no more memory for more steps, and keep preludes only if they are asked to.
#[test]
fn preludes_grow_with_the_steps_and_snapshots_do_not() {
    let training = training(1);
    let bytes = |steps, schedule| {
        let horizon = Horizon::new(steps).schedule(schedule);
        Forecast::new(&training, &horizon).unwrap().snapshot_bytes
    };
    for c in [1, 4] {
        let plain = Schedule::binomial(c);
        assert_eq!(bytes(100, plain), bytes(1000, plain));
        let [short, long] = [100, 1000].map(|steps| bytes(steps, plain.with_prelude()));
        assert_eq!(short - bytes(100, plain), (100 - c - 1) * 4 * SIDE * SIDE);
        assert_eq!(long - short, 900 * 4 * SIDE * SIDE);
    }
}

/// Where a step reads its rows as they are, nothing is worth keeping, and the schedule says so.
#[test]
fn without_a_contraction_nothing_is_kept() {
    let training = training(STEPS).loss(|s| {
        let x = (s["z"] * s.list("g")[0])?.tanh()?.matmul(s["w0"])?;
        (x * x)?.mean_all()
    });
    let (three, both) = (
        Schedule::binomial(3),
        Schedule::binomial(2).with_activations(3),
    );
    for plain in [three, Schedule::every(3), both] {
        let with = plain.with_prelude();
        assert_ne!(with, plain);
        let planned = |schedule| {
            let horizon = Horizon::new(STEPS).schedule(schedule);
            Planned::new(&training, &horizon).unwrap()
        };
        let (with, without) = (planned(with), planned(plain));
        assert_eq!(
            (with.schedule(), with.forecast()),
            (plain, without.forecast())
        );
    }
}

/// A budget takes preludes where they save the most work for their bytes; `lean` here does, too.
#[test]
fn a_budget_keeps_preludes_where_that_saves_work() {
    // A state of three layers with velocities is 24 times the images.
    let training = training(STEPS).loss(|s| {
        let mut x = s["z"];
        for _ in 0..8 {
            x = x.matmul(s.list("g")[0])?.tanh()?;
        }
        let mut x = x.slice(&[0, 0], &[8, SIDE])?;
        for &weight in s.weights() {
            x = x.matmul(weight)?.tanh()?;
        }
        (x * x)?.mean_all()
    });
    let planned = |policy: Policy| {
        let horizon = Horizon::new(STEPS).schedule(policy);
        Planned::new(&training, &horizon).unwrap()
    };
    let names = |planned: &Planned| planned.schedule().to_string();
    let lean = planned(Policy::Lean);
    assert!(names(&lean).ends_with("-prelude"), "{}", names(&lean));
    let budget = lean.forecast().bytes;
    let chosen = planned(Policy::Budget(budget));
    assert!(names(&chosen).ends_with("-prelude"), "{}", names(&chosen));
    assert!(chosen.forecast().bytes <= budget);
    assert!(chosen.forecast().flops <= lean.forecast().flops);
    for c in 1..STEPS {
        let plain = planned(Schedule::binomial(c).into()).forecast();
        assert!(
            plain.bytes > budget || plain.flops > chosen.forecast().flops,
            "{c}"
        );
    }
}

/// A step with noise, a product with a learned rate and a hyper-parameter, and a buffer that the state does not
/// reach, all in its prelude. Every start is learned.
fn varied(optimizer: Optimizer) -> Training<'static> {
    let weights = [array("w", &[5, 4])];
    let buffers = [array("mean", &[1, 4]), array("running", &[1, 5])];
    let hyper = common::hyper_specs(optimizer, F32, common::STEPS);
    Training::new(optimizer)
        .weights(&weights)
        .buffers(&buffers)
        .learned(
            starts(optimizer, &weights)
                .iter()
                .chain(&buffers)
                .chain(&hyper),
        )
        .learned([array("g", &[4, 2]), array("l", &[3, 5])])
        .learned([
            array("z", &[common::STEPS, 6, 2]),
            array("y", &[common::STEPS, 6, 3]),
        ])
        .given([
            ArraySpec::new("key", U32, [common::STEPS, 4]),
            array("x", &[common::OUTER.len(), 8, 4]),
        ])
        .prepare("g", |s| s["g"] * s["g"])
        .per_step(["z", "y", "key"])
        .per_outer(["x"])
        .loss_and_buffers(|s| {
            let x = s["z"].matmul_with(s["g"], false, true)?;
            let noise = s
                .tape()
                .random(s["key"], 0, Distribution::Normal, F32, [6, 4])?;
            let x = (x + noise)?.tanh()?;
            let labels = s["y"].matmul(s["l"])?.tanh()?;
            let h = x.matmul_with(s["w"], false, true)?;
            let running = ((s["running"] * 0.5)? + h.mean_keep(&[0])?)?;
            let error = ((h - running)?.tanh()? - labels)?;
            let buffers = vec![x.mean_keep(&[0])?, running];
            Ok(((error * error)?.mean_all()?, buffers))
        })
        .outer(|s| {
            let h = (s["x"] - s["mean"])?.matmul_with(s["w"], false, true)?;
            let h = (h - s["running"])?;
            (h * h)?.mean_all()
        })
}

#[test]
fn preludes_with_noise_and_buffers_have_the_same_bits() {
    for (optimizer, mode) in [
        (Optimizer::Momentum, Mode::Mixed),
        (Optimizer::Adam, Mode::Reverse),
    ] {
        let training = varied(optimizer);
        let run = |threads, schedule| {
            let device = Device::cpu(Some(threads)).unwrap();
            let values = values(&device, &training);
            let before = device.held_bytes();
            device.reset_peak();
            let horizon = common::horizon(schedule, mode);
            let mut unroll = Unroll::new(&device, &training, &horizon).unwrap();
            assert_eq!(unroll.schedule(), schedule);
            // Twice: the second finds records that the first has filled.
            unroll.gradient(&values).unwrap();
            let losses = unroll.gradient(&values).unwrap();
            assert_eq!(device.peak_bytes() - before, unroll.forecast().bytes);
            (losses, gradients(&unroll))
        };
        let expected = run(1, Schedule::per_step());
        for (threads, schedule) in (1..=3).cycle().zip([
            Schedule::every(3),
            Schedule::binomial(1),
            Schedule::binomial(3),
            Schedule::binomial(1).with_activations(2),
        ]) {
            let schedule = schedule.with_prelude();
            assert_eq!(run(threads, schedule), expected, "{schedule} {mode:?}");
        }
    }
}
