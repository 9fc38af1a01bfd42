//! Hyper-parameter gradients of a regulariser: a weight decay for each of many features, learned by the
//! gradient of the validation error through 200 steps of training (Maclaurin et al. 2015, arXiv 1502.03492).
//! Three features tell something, the others nothing; the gradient finds out which.
//!
//! `cargo run -p gtn-autograd --release --example tune_regularizer`

use autograd::prelude::*;

const FEATURES: usize = 20;
const TELLING: usize = 3;
const STEPS: usize = 200;

fn error<'t>(w: Var<'t>, x: Var<'t>, y: Var<'t>) -> Result<Var<'t>> {
    (x.matmul(w)? - y)?.powi(2)?.mean_all()
}

/// Inputs, and targets that few of the features tell, under noise.
fn data(examples: usize, seed: u64) -> Result<[Array; 2]> {
    let x = Array::normal(F64, [examples, FEATURES], 1.0, seed);
    let noise = Array::normal(F64, [examples], 1.0, seed + 1).to_f64_vec();
    let rows = x.to_f64_vec();
    let targets = rows.chunks(FEATURES).zip(noise);
    let y: Vec<f64> = targets
        .map(|(x, noise)| x[..TELLING].iter().sum::<f64>() + noise)
        .collect();
    Ok([x, Array::new([examples, 1], y)?].map(|array| array.cast(F32)))
}

/// Moves the decays for `outer_steps` outer steps. Gives the error on validation data before and after, and
/// the decays.
fn tune(outer_steps: usize) -> Result<([f64; 2], Vec<f64>)> {
    let ([x, y], [x_valid, y_valid]) = (data(25, 1)?, data(200, 3)?);
    let (weights, decays) = (
        Array::zeros(F32, [FEATURES, 1]),
        Array::full(F32, [FEATURES, 1], 1e-3f64.ln()),
    );
    let (rate, momentum) = (Array::scalar(0.05, F32), Array::scalar(0.8, F32));
    let training = Training::new(Optimizer::Momentum)
        .weights([("w", &weights)])
        .learned([("log_decay", &decays)])
        .given([
            ("x", &x),
            ("y", &y),
            ("x_valid", &x_valid),
            ("y_valid", &y_valid),
        ])
        .given([("lr", &rate), ("momentum", &momentum)])
        // The decays themselves are computed once, not at every step.
        .prepare("decay", |s| s["log_decay"].exp())
        .loss(|s| {
            let penalty = (s["decay"] * s["w"].powi(2)?)?.sum_all()?;
            error(s["w"], s["x"], s["y"])? + penalty
        })
        .outer(|s| error(s["w"], s["x_valid"], s["y_valid"]));
    // Eight snapshots are enough for 200 steps.
    let horizon = Horizon::new(STEPS).schedule(Schedule::binomial(8));
    let mut unroll = Unroll::new(&Device::cpu(Some(1))?, &training, &horizon)?;
    let values = unroll.values(&training)?;
    let adam = Descent::new(unroll.gradients(), Optimizer::Adam, &[("lr", 0.1)])?;
    let before = unroll.gradient(&values)?.total();
    for outer_step in 0..outer_steps {
        let loss = adam.descend(&mut unroll, &values)?.total();
        if outer_step % 50 == 0 {
            println!("outer step {outer_step:3}: validation error {loss:.3}");
        }
    }
    let after = unroll.gradient(&values)?.total();
    let decays = values.get("log_decay")?.to_f64_vec().into_iter();
    Ok(([before, after], decays.map(f64::exp).collect()))
}

fn main() -> Result<()> {
    let ([before, after], decays) = tune(120)?;
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
