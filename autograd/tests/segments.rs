//! Plans in segments: the same bits from less memory.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

use autograd::optim::Optimizer;
use autograd::{
    Distribution, Forecast, Given, Horizon, Mode, Plan, Port, Records, Result, Row, Schedule,
    Scope, Tape, Training, Unroll, Var, reference,
};
use common::{Arrays, arrays as values, gradients, noise, port};
use kernels::Device;
use tensor::{Array, DType};

const BLOCKS: usize = 9;
const ROWS: usize = 64;
const WIDTH: usize = 8;

/// A residual network with statistics, noise, biases and views between its products; its gradient, and the
/// tangent of that in a direction.
fn deep(tape: &Tape, dtype: DType) -> Result<Vec<Var<'_>>> {
    let x = tape.input("x", dtype, [ROWS, WIDTH])?;
    let key = tape.input("key", DType::U32, [4])?;
    let (mut wrt, mut tangents) = (vec![x], Vec::new());
    let mut h = x;
    for block in 0..BLOCKS {
        let mut input = |name: &str, shape: &[usize]| {
            let var = tape.input(&format!("{name} {block}"), dtype, shape)?;
            wrt.push(var);
            Ok::<_, autograd::Error>(var)
        };
        let (w, b) = (input("w", &[2, WIDTH, WIDTH])?, input("b", &[WIDTH])?);
        let part = |side| {
            w.slice(&[side, 0, 0], &[1, WIDTH, WIDTH])?
                .reshape([WIDTH, WIDTH])
        };
        let mean = h.mean_keep(&[0])?;
        let u = ((h - mean)?.matmul(part(0)?)? + b)?;
        let shape = [ROWS, WIDTH];
        let kept = tape.random(key, block as u32, Distribution::Uniform, dtype, shape)?;
        let u = (u.leaky_relu(0.1)? * kept)?;
        h = (h + u.matmul(part(1)?)?.tanh()?)?;
        let direction = tape.input(&format!("d {block}"), dtype, [2, WIDTH, WIDTH])?;
        tangents.push((w, direction));
    }
    let loss = (h * h)?.mean_all()?;
    let gradient = tape.grad(loss, &wrt)?;
    let tangent = tape.jvp(&gradient, &tangents)?;
    Ok([vec![loss], gradient, tangent].concat())
}

fn arrays(dtype: DType) -> Vec<(String, Array)> {
    let random = |shape: &[usize], seed| noise(&shape.into(), seed, dtype);
    let mut arrays = vec![
        ("x".to_owned(), random(&[ROWS, WIDTH], 1)),
        (
            "key".to_owned(),
            Array::new([4], vec![5u32, 6, 7, 8]).unwrap(),
        ),
    ];
    for block in 0..BLOCKS {
        let seed = 10 * block as u64;
        arrays.push((format!("w {block}"), random(&[2, WIDTH, WIDTH], seed + 2)));
        arrays.push((format!("b {block}"), random(&[WIDTH], seed + 3)));
        arrays.push((format!("d {block}"), random(&[2, WIDTH, WIDTH], seed + 4)));
    }
    arrays
}

#[test]
fn segments_change_memory_and_work_but_no_bit() {
    for dtype in [DType::F32, DType::F64] {
        let tape = Tape::new();
        let outs = deep(&tape, dtype).unwrap();
        let arrays = arrays(dtype);
        let given: Vec<(&str, &Array)> =
            arrays.iter().map(|(name, a)| (name.as_str(), a)).collect();
        let whole = Plan::new(&outs).unwrap();
        let expected = whole.run(&Device::cpu(Some(1)).unwrap(), &given).unwrap();
        let mut arenas = vec![whole.arena_bytes()];
        for segments in [1, 2, 3, 5, 9, 40] {
            let plan = Plan::in_segments(&outs, segments).unwrap();
            for threads in 1..=3 {
                let device = Device::cpu(Some(threads)).unwrap();
                let results = plan.run(&device, &given).unwrap();
                for (i, (a, b)) in results.iter().zip(&expected).enumerate() {
                    assert_eq!(a.bytes(), b.bytes(), "output {i} of {segments} segments");
                }
            }
            let again = plan.flops() - whole.flops();
            assert_eq!(again == 0, segments == 1, "{segments}");
            // What is computed again is the way out, in primal and tangent: less than half of it all.
            assert!(2 * again < whole.flops(), "{segments}: {again} more");
            arenas.push(plan.arena_bytes());
        }
        assert_eq!(arenas[0], arenas[1]);
        assert!(
            arenas[2..].iter().all(|&arena| 10 * arena < 7 * arenas[0]),
            "{arenas:?}"
        );
        assert!(2 * arenas[4] < arenas[0], "{arenas:?}");
    }
}

#[test]
fn segments_agree_with_the_reference() {
    let tape = Tape::new();
    let outs = deep(&tape, DType::F64).unwrap();
    let arrays = arrays(DType::F64);
    let given: Vec<(&str, &Array)> = arrays.iter().map(|(name, a)| (name.as_str(), a)).collect();
    let expected = reference::run(&outs, &given).unwrap();
    let plan = Plan::in_segments(&outs, 4).unwrap();
    let results = plan.run(&Device::cpu(Some(2)).unwrap(), &given).unwrap();
    for (a, b) in results.iter().zip(&expected) {
        let (a, b) = (a.to_f64_vec(), b.to_f64_vec());
        let size = b.iter().fold(0.0f64, |size, v| size.max(v.abs()));
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * size;
        assert!(a.iter().zip(&b).all(near));
    }
}

/// A deep learner with noise drawn in its steps, taught by data that is learned.
fn training() -> Training<'static> {
    let dtype = DType::F32;
    Training {
        theta: (0..2 * BLOCKS)
            .map(|i| port(&format!("w{i}"), [WIDTH, WIDTH], dtype))
            .collect(),
        buffers: Vec::new(),
        shared: vec![port("scale", [WIDTH], dtype)],
        rows: vec![
            Row {
                port: port("x", [ROWS, WIDTH], dtype),
                learned: true,
            },
            Row {
                port: port("key", [4], DType::U32),
                learned: false,
            },
        ],
        outer_rows: vec![port("x", [ROWS, WIDTH], dtype)],
        optimizer: Optimizer::Momentum,
        precondition: None,
        prepare: Box::new(|_, shared| Ok(vec![shared[0]])),
        loss: Box::new(|s: Scope<'_, '_>| {
            let uniform = Distribution::Uniform;
            let kept = |op| {
                s.tape
                    .random(s.rows[1], op, uniform, DType::F32, [ROWS, WIDTH])
            };
            let mut h = (s.rows[0] * s.shared[0])?;
            for (block, w) in s.theta.chunks(2).enumerate() {
                let u = (h.matmul(w[0])?.leaky_relu(0.1)? * kept(block as u32)?)?;
                h = (h + u.matmul(w[1])?.tanh()?)?;
            }
            Ok(((h * h)?.mean_all()?, Vec::new()))
        }),
        outer: Box::new(|s: Scope<'_, '_>| {
            let mut h = s.rows[0];
            for w in s.theta.chunks(2) {
                h = (h + h.matmul(w[0])?.leaky_relu(0.1)?.matmul(w[1])?.tanh()?)?;
            }
            (h - 0.5)?.powi(2)?.mean_all()
        }),
    }
}

/// The meta-gradient, and what it took: bytes as forecast and FLOPs. The bytes measured are those forecast.
fn meta_gradient(threads: usize, horizon: &Horizon) -> (Vec<(String, Array)>, Forecast, usize) {
    let device = Device::cpu(Some(threads)).unwrap();
    let training = training();
    let Arrays {
        start,
        shared,
        rows,
        hyper,
        outer,
    } = values(&device, &training);
    let held = device.held_bytes();
    device.reset_peak();
    let mut unroll = Unroll::new(&device, &training, horizon).unwrap();
    let given = Given {
        start: &start,
        shared: &shared,
        rows: &rows,
        hyper: &hyper,
        outer_rows: &outer,
    };
    unroll.gradient(given).unwrap();
    let forecast = unroll.forecast();
    assert_eq!(device.peak_bytes() - held, forecast.bytes);
    assert_eq!(Forecast::new(&training, horizon).unwrap(), forecast);
    (gradients(&unroll), forecast, unroll.segments())
}

#[test]
fn meta_gradients_in_segments_are_the_same_in_every_schedule() {
    for mode in [Mode::Mixed, Mode::Reverse] {
        let horizon = Horizon::new(common::STEPS).mode(mode);
        let (expected, whole, _) = meta_gradient(1, &horizon);
        for (i, schedule) in [
            Schedule::StoreAll,
            Schedule::PerStep,
            Schedule::Binomial(2),
            Schedule::BinomialKept(2, 3),
        ]
        .into_iter()
        .enumerate()
        {
            for segments in [2, 4, 9] {
                let horizon = horizon.clone().schedule(schedule).segments(segments);
                let (found, forecast, _) = meta_gradient(1 + i % 3, &horizon);
                for ((name, a), (_, b)) in found.iter().zip(&expected) {
                    assert_eq!(a.bytes(), b.bytes(), "{name}, {schedule} {segments}");
                }
                if schedule == Schedule::PerStep {
                    assert!(forecast.arena_bytes < whole.arena_bytes, "{segments}");
                    assert!(forecast.flops > whole.flops, "{segments}");
                }
            }
        }
    }
}

/// Below what fits without, segments are taken; the least is told, and does.
#[test]
fn a_budget_takes_segments_where_it_must() {
    let (device, horizon) = (Device::cpu(Some(1)).unwrap(), Horizon::new(common::STEPS));
    let budget = |bytes| horizon.clone().schedule(Schedule::Budget(bytes));
    let whole = horizon.clone().schedule(Schedule::Binomial(1));
    let (expected, whole, _) = meta_gradient(1, &whole);
    let refused = Unroll::new(&device, &training(), &budget(1)).unwrap_err();
    let text = refused.to_string();
    let least = text.split("least is ").nth(1).unwrap();
    let least: usize = least.split(' ').next().unwrap().parse().unwrap();
    assert!(least < whole.bytes, "{least} of {}", whole.bytes);
    let error = Unroll::new(&device, &training(), &budget(least - 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        text.replace("of 1 bytes", &format!("of {} bytes", least - 1))
    );
    let mut work = u64::MAX;
    for share in 0..=4 {
        let bytes = least + share * (whole.bytes - least) / 4;
        let (found, forecast, segments) = meta_gradient(2, &budget(bytes));
        assert!(forecast.bytes <= bytes);
        assert!(forecast.flops <= work, "{share}");
        assert!(segments > 1 || share == 4);
        work = forecast.flops;
        for ((name, a), (_, b)) in found.iter().zip(&expected) {
            assert_eq!(a.bytes(), b.bytes(), "{name} within {bytes}");
        }
    }
}

/// ½Σθ² in T = 2 steps with rates r: θ₂ = (1 − r)²θ₀, so that the loss has the slope −2 θ₀² (1 − r)³ along r.
#[test]
fn a_rate_for_every_parameter_is_learned() {
    let device = Device::cpu(Some(1)).unwrap();
    let training = Training {
        theta: vec![port("theta", [3], DType::F64)],
        buffers: Vec::new(),
        shared: vec![port("rate", [3], DType::F64)],
        rows: Vec::new(),
        outer_rows: Vec::new(),
        optimizer: Optimizer::Sgd,
        precondition: Some(Box::new(|i, gradient, shared| shared[i] * gradient)),
        prepare: Box::new(|_, shared| Ok(shared.to_vec())),
        loss: Box::new(|s: Scope<'_, '_>| {
            let loss = (s.theta[0] * s.theta[0])?.sum_all()? * 0.5;
            Ok((loss?, Vec::new()))
        }),
        outer: Box::new(|s: Scope<'_, '_>| (s.theta[0] * s.theta[0])?.sum_all()? * 0.5),
    };
    let (theta, rate) = ([1.0, -2.0, 3.0], [0.1, 0.2, 0.3]);
    let record = |ports: &[Port], values: &[f64]| {
        let records = Records::new(&device, ports.to_vec(), 1).unwrap();
        let values = Array::new([3], values.to_vec()).unwrap();
        records.set(0, 0, &values).unwrap();
        records
    };
    let (start, shared) = (
        record(&training.start_ports(), &theta),
        record(&training.shared, &rate),
    );
    let hyper = Records::new(&device, training.hyper_ports(), 2).unwrap();
    for step in 0..2 {
        hyper.set(step, 0, &Array::scalar(1.0, DType::F64)).unwrap();
    }
    let none = Records::new(&device, Vec::new(), 2).unwrap();
    let given = Given {
        start: &start,
        shared: &shared,
        rows: &none,
        hyper: &hyper,
        outer_rows: &none,
    };
    for mode in [Mode::Mixed, Mode::Reverse] {
        let mut unroll = Unroll::new(&device, &training, &Horizon::new(2).mode(mode)).unwrap();
        unroll.gradient(given).unwrap();
        let found = unroll.shared_gradient().get(0, 0).unwrap().to_f64_vec();
        for ((found, theta), rate) in found.iter().zip(theta).zip(rate) {
            let slope = -2.0 * theta * theta * (1.0f64 - rate).powi(3);
            assert!(
                (found - slope).abs() < 1e-14 * slope.abs(),
                "{found} {slope}"
            );
        }
    }
}
