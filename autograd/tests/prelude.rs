//! What a step computes without the learner's state is kept where it pays, and need not be computed again.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

use autograd::optim::Optimizer;
use autograd::{
    Distribution, Forecast, Horizon, Mode, Phase, Planned, Port, Row, Schedule, Scope, Training,
    Unroll,
};
use common::{arrays, given, gradients, port};
use kernels::Device;
use tensor::{DType, Shape};

const SIDE: usize = 32;
const LAYERS: usize = 3;
const GENERATED: usize = 2;
const STEPS: usize = 16;

fn square(name: &str) -> Port {
    port(name, [SIDE, SIDE], DType::F32)
}

/// Square layers on the square images of a generator of square layers, so that all products are alike.
fn squares() -> Training<'static> {
    let row = Row {
        port: square("z"),
        learned: true,
    };
    Training {
        theta: (0..LAYERS).map(|i| square(&format!("w{i}"))).collect(),
        buffers: vec![],
        shared: (0..GENERATED).map(|i| square(&format!("g{i}"))).collect(),
        rows: vec![row],
        outer_rows: vec![],
        optimizer: Optimizer::Momentum,
        precondition: None,
        prepare: Box::new(|_, shared| Ok(shared.to_vec())),
        loss: Box::new(|s: Scope<'_, '_>| {
            let layers = s.shared.iter().chain(s.theta);
            let x = layers
                .copied()
                .try_fold(s.rows[0], |x, weight| x.matmul(weight)?.relu())?;
            Ok(((x * x)?.sum_all()?, vec![]))
        }),
        outer: Box::new(|s: Scope<'_, '_>| s.theta[0].sum_all()),
    }
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
    let training = squares();
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
    let (plain, plain_phases) = at(Schedule::EveryK(4));
    let (with, phases) = at(Schedule::EveryKPrelude(4));
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
    let training = squares();
    let bytes = |steps, schedule| {
        let horizon = Horizon::new(steps).rows(1).schedule(schedule);
        Forecast::new(&training, &horizon).unwrap().snapshot_bytes
    };
    for c in [1, 4] {
        let plain = Schedule::Binomial(c);
        assert_eq!(bytes(100, plain), bytes(1000, plain));
        let [short, long] = [100, 1000].map(|steps| bytes(steps, Schedule::BinomialPrelude(c)));
        assert_eq!(short - bytes(100, plain), (100 - c - 1) * 4 * SIDE * SIDE);
        assert_eq!(long - short, 900 * 4 * SIDE * SIDE);
    }
}

/// Of a step on rows as they are, nothing is worth to be kept, and the schedule says so.
#[test]
fn without_a_contraction_nothing_is_kept() {
    let mut training = squares();
    training.loss = Box::new(|s: Scope<'_, '_>| {
        let x = (s.rows[0] * s.shared[0])?.tanh()?.matmul(s.theta[0])?;
        Ok(((x * x)?.mean_all()?, vec![]))
    });
    for (with, plain) in [
        (Schedule::BinomialPrelude(3), Schedule::Binomial(3)),
        (Schedule::EveryKPrelude(3), Schedule::EveryK(3)),
        (
            Schedule::BinomialKeptPrelude(2, 3),
            Schedule::BinomialKept(2, 3),
        ),
    ] {
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

/// A budget takes preludes where they save the most work for their bytes; `auto` here does, too.
#[test]
fn a_budget_keeps_preludes_where_that_saves_work() {
    let mut training = squares();
    // A state of three layers with velocities is 24 times the images.
    training.loss = Box::new(|s: Scope<'_, '_>| {
        let mut x = s.rows[0];
        for _ in 0..8 {
            x = x.matmul(s.shared[0])?.tanh()?;
        }
        let mut x = x.slice(&[0, 0], &[8, SIDE])?;
        for &weight in s.theta {
            x = x.matmul(weight)?.tanh()?;
        }
        Ok(((x * x)?.mean_all()?, vec![]))
    });
    let planned = |schedule| {
        let horizon = Horizon::new(STEPS).schedule(schedule);
        Planned::new(&training, &horizon).unwrap()
    };
    let names = |planned: &Planned| planned.schedule().to_string();
    let auto = planned(Schedule::Auto);
    assert!(names(&auto).ends_with("-prelude"), "{}", names(&auto));
    let budget = auto.forecast().bytes;
    let chosen = planned(Schedule::Budget(budget));
    assert!(names(&chosen).ends_with("-prelude"), "{}", names(&chosen));
    assert!(chosen.forecast().bytes <= budget);
    assert!(chosen.forecast().flops <= auto.forecast().flops);
    for c in 1..STEPS {
        let plain = planned(Schedule::Binomial(c)).forecast();
        assert!(
            plain.bytes > budget || plain.flops > chosen.forecast().flops,
            "{c}"
        );
    }
}

/// A step with noise, a product with a learned rate and a hyper-parameter, and a buffer that the state does not
/// reach, all in its prelude.
fn varied(optimizer: Optimizer) -> Training<'static> {
    let dtype = DType::F32;
    let row = |name, shape: &[usize], dtype, learned| Row {
        port: port(name, Shape::from(shape), dtype),
        learned,
    };
    Training {
        theta: vec![port("w", [5, 4], dtype)],
        buffers: vec![port("mean", [1, 4], dtype), port("running", [1, 5], dtype)],
        shared: vec![port("g", [4, 2], dtype), port("l", [3, 5], dtype)],
        rows: vec![
            row("z", &[6, 2], dtype, true),
            row("y", &[6, 3], dtype, true),
            row("key", &[4], DType::U32, false),
        ],
        outer_rows: vec![port("x", [8, 4], dtype)],
        optimizer,
        precondition: None,
        prepare: Box::new(|_, shared| Ok(vec![(shared[0] * shared[0])?, shared[1]])),
        loss: Box::new(move |s: Scope<'_, '_>| {
            let x = s.rows[0].matmul_with(s.shared[0], false, true)?;
            let noise = s
                .tape
                .random(s.rows[2], 0, Distribution::Normal, dtype, [6, 4])?;
            let x = (x + noise)?.tanh()?;
            let labels = s.rows[1].matmul(s.shared[1])?.tanh()?;
            let h = x.matmul_with(s.theta[0], false, true)?;
            let running = ((s.buffers[1] * 0.5)? + h.mean_keep(&[0])?)?;
            let error = ((h - running)?.tanh()? - labels)?;
            Ok((
                (error * error)?.mean_all()?,
                vec![x.mean_keep(&[0])?, running],
            ))
        }),
        outer: Box::new(|s: Scope<'_, '_>| {
            let h = (s.rows[0] - s.buffers[0])?.matmul_with(s.theta[0], false, true)?;
            let h = (h - s.buffers[1])?;
            (h * h)?.mean_all()
        }),
    }
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
            let arrays = arrays(&device, &training);
            let before = device.held_bytes();
            device.reset_peak();
            let horizon = common::horizon(schedule, mode);
            let mut unroll = Unroll::new(&device, &training, &horizon).unwrap();
            assert_eq!(unroll.schedule(), schedule);
            // Twice: the second finds records that the first has filled.
            unroll.gradient(given(&arrays)).unwrap();
            let losses = unroll.gradient(given(&arrays)).unwrap();
            assert_eq!(device.peak_bytes() - before, unroll.forecast().bytes);
            (losses, gradients(&unroll))
        };
        let expected = run(1, Schedule::PerStep);
        for (threads, schedule) in (1..=3).cycle().zip([
            Schedule::EveryKPrelude(3),
            Schedule::BinomialPrelude(1),
            Schedule::BinomialPrelude(3),
            Schedule::BinomialKeptPrelude(1, 2),
        ]) {
            assert_eq!(run(threads, schedule), expected, "{schedule} {mode:?}");
        }
    }
}
