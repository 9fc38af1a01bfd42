//! Model-agnostic meta-learning (Finn et al. 2017, arXiv 1703.03400) of sine waves: weights from which a few
//! steps on ten points fit any wave. The rates of the steps are learned too.
//!
//! `cargo run -p autograd --release --example maml_sine`

mod support;

use autograd::optim::Optimizer;
use autograd::{Horizon, Result, Row, Scope, Training, Unroll, Values, Var};
use kernels::Device;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::f64::consts::PI;
use support::{Adam, array, normal, numbers, port, put};
use tensor::Array;

/// Units of the hidden layers, points to learn from, inner steps, tasks in an outer step.
const UNITS: usize = 40;
const POINTS: usize = 10;
const STEPS: usize = 5;
const TASKS: usize = 10;

/// The mean square error of the network θ = (w₁, b₁, w₂, b₂, w₃, b₃) on points (x, y).
fn error<'t>(theta: &[Var<'t>], points: &[Var<'t>]) -> Result<Var<'t>> {
    let dense = |x: Var<'t>, layer: usize| x.matmul(theta[2 * layer])? + theta[2 * layer + 1];
    let first = dense(points[0], 0)?.tanh()?;
    let second = dense(first, 1)?.tanh()?;
    (dense(second, 2)? - points[1])?.powi(2)?.mean_all()
}

fn training() -> Training<'static> {
    let points = [port("x", &[POINTS, 1]), port("y", &[POINTS, 1])];
    let layer = |i: usize, o: usize| [port("w", &[i, o]), port("b", &[1, o])];
    let given = |port| Row {
        port,
        learned: false,
    };
    Training {
        theta: [layer(1, UNITS), layer(UNITS, UNITS), layer(UNITS, 1)].concat(),
        buffers: vec![],
        shared: vec![],
        // All steps look at the same ten points: one row, taken again and again.
        rows: points.clone().map(given).to_vec(),
        outer_rows: points.to_vec(),
        optimizer: Optimizer::Sgd,
        precondition: None,
        prepare: Box::new(|_, _| Ok(vec![])),
        loss: Box::new(|s: Scope<'_, '_>| Ok((error(s.theta, s.rows)?, vec![]))),
        outer: Box::new(|s: Scope<'_, '_>| error(s.theta, s.rows)),
    }
}

/// Points of a sine wave, twice: to learn from, and to be judged by.
fn task(rng: &mut ChaCha8Rng) -> [[Array; 2]; 2] {
    let (height, phase) = (rng.random_range(0.1..5.0), rng.random_range(0.0..PI));
    [(); 2].map(|()| {
        let x: Vec<f64> = (0..POINTS).map(|_| rng.random_range(-5.0..5.0)).collect();
        let y: Vec<f64> = x.iter().map(|x| height * f64::sin(x - phase)).collect();
        [array(&[POINTS, 1], &x), array(&[POINTS, 1], &y)]
    })
}

/// Meta-trains for so many outer steps. Gives the mean error on waves never seen, after the inner steps:
/// before and after meta-training.
fn learn(outer_steps: usize) -> Result<[f64; 2]> {
    let device = Device::cpu(Some(1))?;
    let (training, horizon) = (training(), Horizon::new(STEPS).rows(1));
    let mut unroll = Unroll::new(&device, &training, &horizon)?;
    let values = Values::new(&device, &training, &horizon)?;
    let rng = &mut ChaCha8Rng::seed_from_u64(1);

    // What is learned: θ before the first step, and the logarithm of every step's rate.
    let mut learned: Vec<f64> = Vec::new();
    for port in &training.theta {
        let fan_in = port.shape[0] as f64;
        let scale = if port.name == "w" {
            fan_in.sqrt().recip()
        } else {
            0.0
        };
        learned.extend(normal(port.shape.count(), scale, rng));
    }
    let weights = learned.len();
    learned.resize(weights + STEPS, 0.01f64.ln());
    let mut adam = Adam::new(0.002, learned.len());

    // The gradient of the mean error over some tasks, and that error.
    let mut meta_gradient = |learned: &[f64], tasks: usize, rng: &mut ChaCha8Rng| {
        put(&values.start, 0, &learned[..weights])?;
        for (step, rate) in learned[weights..].iter().enumerate() {
            put(&values.hyper, step, &[rate.exp()])?;
        }
        let (mut gradient, mut loss) = (vec![0.0; learned.len()], 0.0);
        for _ in 0..tasks {
            let [seen, unseen] = task(rng);
            for (records, points) in [(&values.rows, seen), (&values.outer_rows, unseen)] {
                for (field, array) in points.iter().enumerate() {
                    records.set(0, field, array)?;
                }
            }
            loss += unroll.gradient(values.given())?.total() / tasks as f64;
            let (start, record) = unroll.start_gradient();
            let mut one = numbers(start, record)?;
            for step in 0..STEPS {
                // d/d log h = h · d/dh
                let slope = numbers(unroll.hyper_gradient(), step)?[0];
                one.push(learned[weights + step].exp() * slope);
            }
            let sum = gradient.iter_mut().zip(one);
            sum.for_each(|(sum, g)| *sum += g / tasks as f64);
        }
        Result::Ok((gradient, loss))
    };

    let exam = || ChaCha8Rng::seed_from_u64(2);
    let before = meta_gradient(&learned, 100, &mut exam())?.1;
    for outer_step in 0..outer_steps {
        let (gradient, loss) = meta_gradient(&learned, TASKS, rng)?;
        if outer_step % 500 == 0 {
            let rates: Vec<f64> = learned[weights..].iter().map(|r| r.exp()).collect();
            println!("outer step {outer_step:4}: error {loss:.3}, rates {rates:.3?}");
        }
        adam.step(&mut learned, &gradient);
    }
    let after = meta_gradient(&learned, 100, &mut exam())?.1;
    Ok([before, after])
}

fn main() -> Result<()> {
    let [before, after] = learn(3000)?;
    println!(
        "on 100 new waves, {STEPS} steps on {POINTS} points: {before:.3} before, {after:.3} after"
    );
    Ok(())
}

#[test]
fn meta_learning_helps_on_new_waves() {
    let [before, after] = learn(60).expect("finite");
    assert!(after < 0.8 * before, "{before} {after}");
}
