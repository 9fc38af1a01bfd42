//! What is kept between the sweeps changes memory and time, never the meta-gradient.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "schedules/reversible.rs"]
mod reversible;

use autograd::optim::Optimizer;
use autograd::{
    CotangentNorms, Distribution, Forecast, Given, Horizon, Losses, Mode, Port, Records, Row,
    Schedule, Scope, Training, Unroll,
};
use kernels::Device;
use proptest::prelude::*;
use tensor::{Array, DType, Shape};

fn port(name: &str, shape: impl Into<Shape>, dtype: DType) -> Port {
    Port {
        name: name.into(),
        dtype,
        shape: shape.into(),
    }
}

/// A network with a running mean and with noise drawn inside the step, taught by data that a linear
/// generator makes.
fn training(optimizer: Optimizer, dtype: DType) -> Training<'static> {
    let row = |name, shape: &[usize], dtype, learned| Row {
        port: port(name, shape, dtype),
        learned,
    };
    Training {
        theta: vec![port("w", [5, 4], dtype), port("v", [3, 5], dtype)],
        buffers: vec![port("mean", [1, 5], dtype)],
        shared: vec![port("g", [4, 2], dtype)],
        rows: vec![
            row("z", &[6, 2], dtype, true),
            row("y", &[6, 3], dtype, false),
            row("key", &[4], DType::U32, false),
        ],
        outer_rows: vec![port("x", [8, 4], dtype), port("t", [8, 3], dtype)],
        optimizer,
        precondition: None,
        prepare: Box::new(|_, shared| Ok(vec![(shared[0] * shared[0])?])),
        loss: Box::new(move |s: Scope<'_, '_>| {
            let noise = |op, shape: [usize; 2]| {
                let uniform = Distribution::Uniform;
                s.tape.random(s.rows[2], op, uniform, dtype, shape)
            };
            let x = s.rows[0].matmul_with(s.shared[0], false, true)?.tanh()?;
            let h = (x * noise(0, [6, 4])?)?.matmul_with(s.theta[0], false, true)?;
            let mean = h.mean_keep(&[0])?;
            let h = ((h - mean)?.tanh()? * noise(1, [6, 5])?)?;
            let error = (h.matmul_with(s.theta[1], false, true)? - s.rows[1])?;
            Ok(((error * error)?.mean_all()?, vec![mean]))
        }),
        outer: Box::new(|s: Scope<'_, '_>| {
            let h = s.rows[0].matmul_with(s.theta[0], false, true)?;
            let h = (h - s.buffers[0])?.tanh()?;
            let error = (h.matmul_with(s.theta[1], false, true)? - s.rows[1])?;
            (error * error)?.mean_all()
        }),
    }
}

/// Records of numbers that depend on the seed and on the first step.
fn fill(device: &Device, ports: &[Port], steps: std::ops::Range<usize>, seed: u64) -> Records {
    let records = Records::new(device, ports.to_vec(), steps.len()).unwrap();
    for (record, step) in steps.enumerate() {
        for (field, port) in ports.iter().enumerate() {
            let mut state = seed + 100 * step as u64 + field as u64;
            let mut value = |_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let v = (state >> 33) as f64 / f64::from(1u32 << 31) - 0.5;
                match port.name.as_str() {
                    "lr" => 0.1 + 0.05 * v,
                    "momentum" | "beta1" => 0.6 + 0.2 * v,
                    "beta2" => 0.8 + 0.1 * v,
                    "eps" => 1e-2,
                    "key" => (1e6 * (v + 0.5)).floor(),
                    name if name.contains('.') => 0.0,
                    _ => 2.0 * v,
                }
            };
            let values: Vec<f64> = (0..port.shape.count()).map(&mut value).collect();
            let array = Array::new(port.shape.clone(), values).unwrap();
            let array = array.cast(port.dtype);
            records.set(record, field, &array).unwrap();
        }
    }
    records
}

struct Arrays {
    start: Records,
    shared: Records,
    rows: Records,
    hyper: Records,
    outer: Records,
}

impl Arrays {
    fn new(device: &Device, training: &Training<'_>, steps: usize) -> Self {
        Self {
            start: fill(device, &training.start_ports(), 0..1, 1),
            shared: fill(device, &training.shared, 0..1, 50),
            rows: fill(device, &training.row_ports(), 0..steps, 1000),
            hyper: fill(device, &training.hyper_ports(), 0..steps, 1050),
            outer: fill(device, &training.outer_rows, 0..steps, 900_000),
        }
    }

    fn given(&self) -> Given<'_> {
        Given {
            start: &self.start,
            shared: &self.shared,
            rows: &self.rows,
            hyper: &self.hyper,
            outer_rows: &self.outer,
        }
    }
}

fn of_records(records: &Records, record: usize) -> Vec<Array> {
    let fields = 0..records.ports().len();
    fields.map(|i| records.get(record, i).unwrap()).collect()
}

/// Every meta-gradient: of the start, of what is shared, of every row, of every hyper-parameter.
fn gradients(unroll: &Unroll) -> [Vec<Array>; 4] {
    let (start, record) = unroll.start_gradient();
    let all = |records: &Records| {
        (0..records.count())
            .flat_map(|t| of_records(records, t))
            .collect()
    };
    [
        of_records(start, record),
        of_records(unroll.shared_gradient(), 0),
        all(unroll.row_gradient()),
        all(unroll.hyper_gradient()),
    ]
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
    fn horizon(self, schedule: Schedule) -> Horizon {
        let horizon = Horizon::new(self.steps).schedule(schedule).mode(self.mode);
        horizon.outer_at(|t| t == self.steps || t.is_multiple_of(self.outer_every))
    }

    fn forecast(self, schedule: Schedule) -> autograd::Result<Forecast> {
        let training = training(self.optimizer, DType::F32);
        Forecast::new(&training, &self.horizon(schedule))
    }

    /// Losses and gradients; that the memory is what was forecast is checked on the way.
    fn run(self, threads: usize, schedule: Schedule) -> (Losses, [Vec<Array>; 4]) {
        self.run_to(threads, &self.horizon(schedule))
    }

    fn run_to(self, threads: usize, horizon: &Horizon) -> (Losses, [Vec<Array>; 4]) {
        let device = Device::cpu(Some(threads)).unwrap();
        let training = training(self.optimizer, DType::F32);
        let arrays = Arrays::new(&device, &training, self.steps);
        let before = device.held_bytes();
        device.reset_peak();
        let mut unroll = Unroll::new(&device, &training, horizon).unwrap();
        let losses = unroll.gradient(arrays.given()).unwrap();
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
        let bytes = |schedule| case.forecast(schedule).unwrap().bytes;
        let (least, most) = (bytes(Schedule::Binomial(1)), bytes(Schedule::StoreAll));
        let budget = least + (share * most.saturating_sub(least) as f64) as usize;
        let expected = case.run(1, Schedule::PerStep);
        let schedules = [
            Schedule::StoreAll,
            Schedule::EveryK(k),
            Schedule::Binomial(c),
            Schedule::BinomialKept(c, kept),
            Schedule::EveryKPrelude(k),
            Schedule::BinomialPrelude(c),
            Schedule::BinomialKeptPrelude(c, kept),
            Schedule::Budget(budget),
            Schedule::Auto,
            Schedule::Window(steps),
            Schedule::Reversible(100),
        ];
        let undone = usize::from(optimizer == Optimizer::ReversibleMomentum);
        let schedules = &schedules[..schedules.len() - 1 + undone];
        for (threads, schedule) in (1..=3).cycle().zip(schedules) {
            prop_assert_eq!(&case.run(threads, *schedule), &expected, "{} {:?}", schedule, case);
            let away = case
                .horizon(*schedule)
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
    let training = training(Optimizer::Momentum, DType::F32);
    let total = |same_keys: bool| {
        let arrays = Arrays::new(&device, &training, 40);
        if same_keys {
            let key = arrays.rows.get(0, 2).unwrap();
            (0..40).for_each(|t| arrays.rows.set(t, 2, &key).unwrap());
        }
        let horizon = CASE.horizon(Schedule::PerStep);
        let mut unroll = Unroll::new(&device, &training, &horizon).unwrap();
        unroll.gradient(arrays.given()).unwrap().total()
    };
    assert_ne!(total(true), total(false));
}

/// Snapshots of a binomial schedule do not grow with T, those of per-step by one state a step.
#[test]
fn memory_is_a_function_of_snapshots() {
    let at = |steps, schedule| {
        let case = Case { steps, ..CASE };
        case.forecast(schedule).unwrap()
    };
    let state: usize = [20, 15, 20, 15, 5]
        .map(|floats: usize| (4 * floats).next_multiple_of(64))
        .iter()
        .sum();
    for c in [1, 3, 8] {
        let schedule = Schedule::Binomial(c);
        let snapshots = at(100, schedule).snapshot_bytes;
        assert_eq!(snapshots, (c + 3) * state);
        assert_eq!(at(1000, schedule).snapshot_bytes, snapshots);
    }
    let slope = at(31, Schedule::PerStep).snapshot_bytes - at(30, Schedule::PerStep).snapshot_bytes;
    assert_eq!(slope, state);
    assert_eq!(at(40, Schedule::StoreAll).evaluations, 40);
    assert_eq!(at(40, Schedule::PerStep).evaluations, 80);
    // C(4 + 3, 3) = 35 < 40 ≤ C(4 + 4, 4): r = 4 repetitions, 4·40 − C(8, 5) advances, one for the outer loss.
    let binomial = at(40, Schedule::Binomial(4));
    assert_eq!(binomial.evaluations, 160 - 56 + 1 + 40);
}

/// With every snapshot away, what the device holds does not depend on T.
#[test]
fn snapshots_on_disk_leave_two_states_on_the_device() {
    let at = |steps| {
        let case = Case { steps, ..CASE };
        let horizon = case.horizon(Schedule::PerStep);
        let horizon = horizon
            .on_disk(steps - 10, std::env::temp_dir())
            .in_host(10);
        let training = training(CASE.optimizer, DType::F32);
        Forecast::new(&training, &horizon).unwrap()
    };
    let (short, long) = (at(40), at(1000));
    assert_eq!(short.snapshot_bytes, long.snapshot_bytes);
    let state = short.snapshot_bytes / 2;
    assert_eq!(long.disk_bytes - short.disk_bytes, 960 * state);
    // Nine in host memory, for the last is never put away; two on their way to the disk or back.
    assert_eq!(long.host_bytes, (9 + 2) * state);
    assert_eq!(long.evaluations, 2000);

    let training = training(CASE.optimizer, DType::F32);
    let nowhere = CASE
        .horizon(Schedule::PerStep)
        .on_disk(3, "/no/such/folder");
    let device = Device::cpu(Some(1)).unwrap();
    let refused = Unroll::new(&device, &training, &nowhere).unwrap_err();
    let said = refused.to_string();
    assert!(said.contains("snapshots on disk: ") && said.contains(" in /no/such/folder"));
}

#[test]
fn more_budget_never_takes_more_work() {
    let bytes = |schedule| CASE.forecast(schedule).unwrap();
    let refused = CASE
        .forecast(Schedule::Budget(1000))
        .unwrap_err()
        .to_string();
    let least = refused.split("the least is ").nth(1).unwrap();
    let least: usize = least.split(' ').next().unwrap().parse().unwrap();
    assert!(CASE.forecast(Schedule::Budget(least - 1)).is_err());
    let most = bytes(Schedule::StoreAll).bytes;
    let mut before = u64::MAX;
    let mut different = Vec::new();
    for tenth in 0..=9 {
        let budget = least + (most - least) * tenth / 9;
        let device = Device::cpu(Some(1)).unwrap();
        let training = training(CASE.optimizer, DType::F32);
        let arrays = Arrays::new(&device, &training, CASE.steps);
        let held = device.held_bytes();
        device.reset_peak();
        let schedule = Schedule::Budget(budget);
        let mut unroll = Unroll::new(&device, &training, &CASE.horizon(schedule)).unwrap();
        unroll.gradient(arrays.given()).unwrap();
        assert!(device.peak_bytes() - held <= budget);
        assert_eq!(device.peak_bytes() - held, unroll.forecast().bytes);
        assert!(unroll.forecast().flops <= before, "{}", unroll.schedule());
        before = unroll.forecast().flops;
        different.push(unroll.schedule());
    }
    assert_eq!(different.last(), Some(&Schedule::StoreAll));
    different.dedup();
    assert!(different.len() > 4, "{different:?}");
    let with = |schedule: &Schedule| schedule.to_string().ends_with("-prelude");
    assert!(different.iter().any(with), "{different:?}");
}

/// The last W steps from a state that is given: the reference of a truncated gradient.
#[test]
fn a_window_is_the_gradient_from_a_given_state() {
    let device = Device::cpu(Some(2)).unwrap();
    let training = training(Optimizer::Momentum, DType::F32);
    let outer = |t: usize| t.is_multiple_of(3) || t == 13;
    for (steps, window) in [(13, 1), (13, 4), (13, 12), (9, 5)] {
        let begin = steps - window;
        let arrays = Arrays::new(&device, &training, steps);
        let schedule = Schedule::Window(window);
        let horizon = Horizon::new(steps).schedule(schedule).outer_at(outer);
        let mut truncated = Unroll::new(&device, &training, &horizon).unwrap();
        let losses = truncated.gradient(arrays.given()).unwrap();
        let [start, shared, rows, rates] = gradients(&truncated);

        let given = Records::new(&device, training.start_ports(), 1).unwrap();
        let observe = |done: usize, states: &Records, record: usize| {
            if done == begin {
                given.copy(0, states, record)?;
            }
            Ok(())
        };
        truncated.train(arrays.given(), observe).unwrap();
        let rest = Arrays {
            start: given,
            rows: fill(&device, &training.row_ports(), begin..steps, 1000),
            hyper: fill(&device, &training.hyper_ports(), begin..steps, 1050),
            outer: fill(&device, &training.outer_rows, begin / 3..steps, 900_000),
            ..arrays
        };
        let later = |t: usize| outer(t + begin);
        let horizon = Horizon::new(window).outer_at(later);
        let mut exact = Unroll::new(&device, &training, &horizon).unwrap();
        let later_losses = exact.gradient(rest.given()).unwrap();
        let [_, expected, expected_rows, expected_rates] = gradients(&exact);
        assert_eq!(losses.inner[begin..], later_losses.inner);
        assert_eq!(losses.outer[begin / 3..], later_losses.outer);
        assert_eq!(shared, expected, "{window} of {steps}");
        let (before, within) = rows.split_at(rows.len() - expected_rows.len());
        assert_eq!(within, expected_rows);
        let (rates_before, rates) = rates.split_at(rates.len() - expected_rates.len());
        assert_eq!(rates, expected_rates);
        let zero = |array: &Array| array.to_f64_vec().iter().all(|&v| v == 0.0);
        assert!(
            before.iter().chain(rates_before).chain(&start).all(zero),
            "nothing flows before"
        );
    }
}

/// Rows that are taken in turn: the sum, from the last step to the first, of what the steps give alone.
#[test]
fn rows_in_turn_sum_their_gradients() {
    let device = Device::cpu(Some(2)).unwrap();
    let training = training(Optimizer::Momentum, DType::F32);
    for (steps, rows) in [(11, 4), (8, 4), (5, 1), (3, 7)] {
        let arrays = Arrays::new(&device, &training, steps);
        let turns = arrays.rows.count().min(rows);
        for step in turns..steps {
            arrays.rows.copy(step, &arrays.rows, step % turns).unwrap();
        }
        let horizon = Horizon::new(steps);
        let mut each = Unroll::new(&device, &training, &horizon).unwrap();
        let losses = each.gradient(arrays.given()).unwrap();
        let [start, shared, alone, rates] = gradients(&each);
        let fields = training.row_ports().len();
        for schedule in [Schedule::PerStep, Schedule::Binomial(2), Schedule::StoreAll] {
            let before = device.held_bytes();
            let horizon = horizon.clone().rows(rows).schedule(schedule);
            let mut turn = Unroll::new(&device, &training, &horizon).unwrap();
            assert_eq!(device.held_bytes() - before, turn.forecast().bytes);
            for _ in 0..2 {
                assert_eq!(turn.gradient(arrays.given()).unwrap(), losses);
            }
            let [start_in_turn, shared_in_turn, summed, rates_in_turn] = gradients(&turn);
            assert_eq!((&start_in_turn, &shared_in_turn), (&start, &shared));
            assert_eq!(rates_in_turn, rates);
            assert_eq!(summed.len(), turns * fields);
            for (i, sum) in summed.iter().enumerate() {
                let mut expected = vec![0f32; sum.shape().count()];
                for step in (i / fields..steps)
                    .step_by(turns)
                    .collect::<Vec<_>>()
                    .iter()
                    .rev()
                {
                    let gradient = alone[step * fields + i % fields].to_f64_vec();
                    expected
                        .iter_mut()
                        .zip(gradient)
                        .for_each(|(e, g)| *e += g as f32);
                }
                let expected: Vec<f64> = expected.into_iter().map(f64::from).collect();
                assert_eq!(sum.to_f64_vec(), expected, "{schedule} {steps} {i}");
            }
        }
    }
}

/// θ' = θ − lr·2θ stretches the cotangent by 1 − 2 lr a step: the norms are known.
#[test]
fn cotangent_norms_are_those_of_a_closed_form() {
    let device = Device::cpu(Some(1)).unwrap();
    let quadratic = Training {
        theta: vec![port("w", [3], DType::F64)],
        buffers: vec![],
        shared: vec![],
        rows: vec![],
        outer_rows: vec![],
        optimizer: Optimizer::Sgd,
        precondition: None,
        prepare: Box::new(|_, _| Ok(vec![])),
        loss: Box::new(|s: Scope<'_, '_>| Ok(((s.theta[0] * s.theta[0])?.sum_all()?, vec![]))),
        outer: Box::new(|s: Scope<'_, '_>| s.theta[0].sum_all()),
    };
    let arrays = Arrays::new(&device, &quadratic, 6);
    for t in 0..6 {
        arrays
            .hyper
            .set(t, 0, &Array::scalar(1.5, DType::F64))
            .unwrap();
    }
    let norms = |schedule| {
        let horizon = Horizon::new(6).schedule(schedule);
        let mut unroll = Unroll::new(&device, &quadratic, &horizon).unwrap();
        unroll.gradient(arrays.given()).unwrap();
        assert_eq!(unroll.cotangent_norms(), None, "only if asked");
        unroll.watch_cotangents(true);
        unroll.gradient(arrays.given()).unwrap();
        unroll.cotangent_norms().unwrap().clone()
    };
    let full = norms(Schedule::Binomial(2));
    for (t, &norm) in full.norms().iter().enumerate() {
        let expected = 3f64.sqrt() * 2f64.powi(6 - t as i32);
        assert!((norm / expected - 1.0).abs() < 1e-14, "{t}: {norm}");
    }
    // At 10 the cotangent is 2√3, 4√3, and then shortened to 10 wherever it has doubled.
    let clipped = |schedule| {
        let horizon = Horizon::new(6).schedule(schedule).clip(10.0);
        let mut unroll = Unroll::new(&device, &quadratic, &horizon).unwrap();
        unroll.watch_cotangents(true);
        unroll.gradient(arrays.given()).unwrap();
        unroll.cotangent_norms().unwrap().clone()
    };
    let norms_clipped = clipped(Schedule::PerStep);
    for (t, &norm) in norms_clipped.norms().iter().enumerate() {
        let expected = (3f64.sqrt() * 2f64.powi(6 - t as i32)).min(10.0);
        assert!((norm / expected - 1.0).abs() < 1e-14, "{t}: {norm}");
    }
    assert_eq!(clipped(Schedule::Binomial(2)), norms_clipped);
    let refused = Unroll::new(&device, &quadratic, &Horizon::new(6).clip(0.0));
    assert!(refused.unwrap_err().to_string().starts_with("clip is 0: "));
    let exploded = autograd::Trouble::Explodes { step: 2 };
    assert_eq!(full.trouble(10.0), Some(exploded));
    let mut truncated = full.norms().to_vec();
    truncated[..4].fill(0.0);
    assert_eq!(norms(Schedule::Window(2)), CotangentNorms::new(truncated));
}
