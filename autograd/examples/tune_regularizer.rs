//! Hyper-parameter gradients of a regulariser: a weight decay for each of many features, learned by the
//! gradient of the validation error through 200 steps of training (Maclaurin et al. 2015, arXiv 1502.03492).
//! Three features tell something, the others nothing; the gradient finds out which.
//!
//! `cargo run -p autograd --release --example tune_regularizer`

mod support;

use autograd::optim::Optimizer;
use autograd::{Horizon, Result, Schedule, Scope, Training, Unroll, Values, Var};
use kernels::Device;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use support::{Adam, normal, numbers, port, put};

const FEATURES: usize = 20;
const TELLING: usize = 3;
const EXAMPLES: usize = 25;
const VALIDATION: usize = 200;
const STEPS: usize = 200;

fn error<'t>(theta: &[Var<'t>], data: &[Var<'t>]) -> Result<Var<'t>> {
    (data[0].matmul(theta[0])? - data[1])?.powi(2)?.mean_all()
}

fn training() -> Training<'static> {
    let data = |n: usize| [port("x", &[n, FEATURES]), port("y", &[n, 1])];
    let decay = port("log decay", &[FEATURES, 1]);
    Training {
        theta: vec![port("w", &[FEATURES, 1])],
        buffers: vec![],
        shared: [&data(EXAMPLES)[..], &[decay]].concat(),
        rows: vec![],
        outer_rows: data(VALIDATION).to_vec(),
        optimizer: Optimizer::Momentum,
        // The decays themselves are computed once, not at every step.
        precondition: None,
        prepare: Box::new(|_, shared| Ok(vec![shared[0], shared[1], shared[2].exp()?])),
        loss: Box::new(|s: Scope<'_, '_>| {
            let penalty = (s.shared[2] * s.theta[0].powi(2)?)?.sum_all()?;
            Ok(((error(s.theta, s.shared)? + penalty)?, vec![]))
        }),
        outer: Box::new(|s: Scope<'_, '_>| error(s.theta, s.rows)),
    }
}

/// Inputs, and targets that few of the features tell, under noise.
fn data(examples: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let x = normal(examples * FEATURES, 1.0, rng);
    let noise = normal(examples, 1.0, rng);
    let targets = x.chunks(FEATURES).zip(noise);
    let y: Vec<f64> = targets
        .map(|(x, noise)| x[..TELLING].iter().sum::<f64>() + noise)
        .collect();
    [x, y].concat()
}

/// Moves the decays for so many outer steps. Gives the error on validation data before and after, and the
/// decays.
fn tune(outer_steps: usize) -> Result<([f64; 2], Vec<f64>)> {
    let device = Device::cpu(Some(1))?;
    // Eight snapshots are enough for 200 steps.
    let horizon = Horizon::new(STEPS).rows(1).schedule(Schedule::Binomial(8));
    let training = training();
    let mut unroll = Unroll::new(&device, &training, &horizon)?;
    let values = Values::new(&device, &training, &horizon)?;
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    let train = data(EXAMPLES, rng);
    put(&values.outer_rows, 0, &data(VALIDATION, rng))?;
    for step in 0..STEPS {
        put(&values.hyper, step, &[0.05, 0.8])?;
    }

    let mut decays = vec![1e-3f64.ln(); FEATURES];
    let mut adam = Adam::new(0.1, FEATURES);
    let mut errors = [0.0; 2];
    for outer_step in 0..=outer_steps {
        put(&values.shared, 0, &[&train[..], &decays].concat())?;
        let loss = unroll.gradient(values.given())?.total();
        if outer_step % 50 == 0 {
            println!("outer step {outer_step:3}: validation error {loss:.3}");
        }
        errors[usize::from(outer_step > 0)] = loss;
        let gradient = numbers(unroll.shared_gradient(), 0)?.split_off(train.len());
        if outer_step < outer_steps {
            adam.step(&mut decays, &gradient);
        }
    }
    Ok((errors, decays.into_iter().map(f64::exp).collect()))
}

fn main() -> Result<()> {
    let ([before, after], decays) = tune(200)?;
    let (telling, others) = decays.split_at(TELLING);
    println!("validation error {before:.3} with equal decays, {after:.3} with learned ones");
    println!("decays of the telling features {telling:.4?}");
    println!("decays of the others {others:.3?}");
    Ok(())
}

#[test]
fn telling_features_keep_small_decays() {
    let ([before, after], decays) = tune(60).expect("finite");
    assert!(after < 0.95 * before, "{before} {after}");
    let (telling, others) = decays.split_at(TELLING);
    let most = telling.iter().fold(0.0, |a: f64, &b| a.max(b));
    let mean = others.iter().sum::<f64>() / others.len() as f64;
    assert!(most < mean, "{telling:?} {others:?}");
}
