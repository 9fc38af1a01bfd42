//! Plans in segments: the same bits from less memory.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

use autograd::prelude::*;
use autograd::{Distribution, Forecast, reference};
use common::{gradients, noise, starts, values};
use tensor::Arrays;

const BLOCKS: usize = 9;
const ROWS: usize = 64;
const WIDTH: usize = 8;

/// A residual network with statistics, noise, biases and views between its products.
struct Deep<'t> {
    /// Its loss, the gradient, and the tangent of that in a direction.
    outs: Vec<Var<'t>>,
    arrays: Vec<(Var<'t>, Array)>,
}

impl<'t> Deep<'t> {
    fn record(tape: &'t Tape, dtype: DType) -> Result<Self> {
        let mut arrays = Vec::new();
        let mut input = |name: String, shape: &[usize], seed| {
            let var = tape.input(&name, dtype, shape)?;
            arrays.push((var, noise(&shape.into(), seed, dtype)));
            Ok::<_, Error>(var)
        };
        let x = input("x".into(), &[ROWS, WIDTH], 1)?;
        let key = tape.input("key", U32, [4])?;
        let (mut wrt, mut tangents) = (vec![x], Vec::new());
        let mut h = x;
        for block in 0..BLOCKS {
            let seed = 10 * block as u64;
            let w = input(format!("w {block}"), &[2, WIDTH, WIDTH], seed + 2)?;
            let b = input(format!("b {block}"), &[WIDTH], seed + 3)?;
            wrt.extend([w, b]);
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
            let direction = input(format!("d {block}"), &[2, WIDTH, WIDTH], seed + 4)?;
            tangents.push((w, direction));
        }
        arrays.push((key, Array::new([4], vec![5u32, 6, 7, 8])?));
        let loss = (h * h)?.mean_all()?;
        let gradient = tape.grad(loss, &wrt)?;
        let tangent = tape.jvp(&gradient, &tangents)?;
        Ok(Self {
            outs: [vec![loss], gradient, tangent].concat(),
            arrays,
        })
    }

    fn given(&self) -> Vec<(Var<'t>, &Array)> {
        self.arrays
            .iter()
            .map(|(var, array)| (*var, array))
            .collect()
    }
}

#[test]
fn segments_change_memory_and_work_but_no_bit() {
    for dtype in [F32, F64] {
        let tape = Tape::new();
        let deep = Deep::record(&tape, dtype).unwrap();
        let (outs, given) = (&deep.outs, deep.given());
        let whole = Plan::new(outs).unwrap();
        let expected = whole.run(&Device::cpu(Some(1)).unwrap(), &given).unwrap();
        let mut arenas = vec![whole.arena_bytes()];
        for segments in [1, 2, 3, 5, 9, 40] {
            let plan = Plan::in_segments(outs, segments).unwrap();
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
    let deep = Deep::record(&tape, F64).unwrap();
    let (outs, given) = (&deep.outs, deep.given());
    let expected = reference::run(outs, &given).unwrap();
    let plan = Plan::in_segments(outs, 4).unwrap();
    let results = plan.run(&Device::cpu(Some(2)).unwrap(), &given).unwrap();
    for (a, b) in results.iter().zip(&expected) {
        let (a, b) = (a.to_f64_vec(), b.to_f64_vec());
        let size = b.iter().fold(0.0f64, |size, v| size.max(v.abs()));
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * size;
        assert!(a.iter().zip(&b).all(near));
    }
}

/// A deep learner with noise drawn in its steps, taught by data that is learned; its start is learned, too.
fn training() -> Training<'static> {
    let array = |name: &str, shape: &[usize]| ArraySpec::new(name, F32, shape);
    let weight = |i| array(&format!("w{i}"), &[WIDTH, WIDTH]);
    let weights: Vec<ArraySpec> = (0..2 * BLOCKS).map(weight).collect();
    let hyper = common::hyper_specs(Optimizer::Momentum, F32, common::STEPS);
    Training::new(Optimizer::Momentum)
        .weights(&weights)
        .learned(starts(Optimizer::Momentum, &weights).iter().chain(&hyper))
        .learned([
            array("scale", &[WIDTH]),
            array("x", &[common::STEPS, ROWS, WIDTH]),
        ])
        .given([
            ArraySpec::new("key", U32, [common::STEPS, 4]),
            array("data", &[ROWS, WIDTH]),
        ])
        .per_step(["x", "key"])
        .loss(|s| {
            let uniform = Distribution::Uniform;
            let kept = |op| s.tape().random(s["key"], op, uniform, F32, [ROWS, WIDTH]);
            let mut h = (s["x"] * s["scale"])?;
            for (block, w) in s.weights().chunks(2).enumerate() {
                let u = (h.matmul(w[0])?.leaky_relu(0.1)? * kept(block as u32)?)?;
                h = (h + u.matmul(w[1])?.tanh()?)?;
            }
            (h * h)?.mean_all()
        })
        .outer(|s| {
            let mut h = s["data"];
            for w in s.weights().chunks(2) {
                h = (h + h.matmul(w[0])?.leaky_relu(0.1)?.matmul(w[1])?.tanh()?)?;
            }
            (h - 0.5)?.powi(2)?.mean_all()
        })
}

/// The meta-gradient, and what it took: bytes as forecast and FLOPs. The bytes measured are those forecast.
fn meta_gradient(threads: usize, horizon: &Horizon) -> (Arrays, Forecast, usize) {
    let device = Device::cpu(Some(threads)).unwrap();
    let training = training();
    let values = values(&device, &training);
    let held = device.held_bytes();
    device.reset_peak();
    let mut unroll = Unroll::new(&device, &training, horizon).unwrap();
    unroll.gradient(&values).unwrap();
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
            Schedule::store_all(),
            Schedule::per_step(),
            Schedule::binomial(2),
            Schedule::binomial(2).with_activations(3),
        ]
        .into_iter()
        .enumerate()
        {
            for segments in [2, 4, 9] {
                let horizon = horizon.clone().schedule(schedule).segments(segments);
                let (found, forecast, _) = meta_gradient(1 + i % 3, &horizon);
                for ((name, a), b) in found.iter().zip(expected.values()) {
                    assert_eq!(a.bytes(), b.bytes(), "{name}, {schedule} {segments}");
                }
                if schedule == Schedule::per_step() {
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
    let budget = |bytes| horizon.clone().schedule(Policy::Budget(bytes));
    let whole = horizon.clone().schedule(Schedule::binomial(1));
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
    let none = horizon.clone().schedule(Policy::Auto).free_bytes(0);
    let (found, forecast, segments) = meta_gradient(1, &none);
    assert!(segments > 1 && forecast.bytes <= least + least * 3 / 100);
    assert_eq!(found, expected);
    let mut work = u64::MAX;
    for share in 0..=4 {
        let bytes = least + share * (whole.bytes - least) / 4;
        let (found, forecast, segments) = meta_gradient(2, &budget(bytes));
        assert!(forecast.bytes <= bytes);
        assert!(forecast.flops <= work, "{share}");
        assert!(segments > 1 || share == 4);
        work = forecast.flops;
        for ((name, a), b) in found.iter().zip(expected.values()) {
            assert_eq!(a.bytes(), b.bytes(), "{name} within {bytes}");
        }
    }
}
