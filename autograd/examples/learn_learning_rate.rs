//! Learns a learning rate for every step of gradient descent on a small regression, by the gradient of
//! the trained weights' error on other data: `cargo run -p autograd --example learn_learning_rate`

use autograd::optim::Optimizer;
use autograd::{Horizon, Port, Result, Training, Unroll, Values, Var};
use kernels::Device;
use tensor::{Array, DType};

const STEPS: usize = 6;
const EXAMPLES: usize = 32;
/// Sizes of the features: so different ones that no single rate is good for all.
const SCALES: [f64; 4] = [1.5, 1.0, 0.7, 0.5];

fn port(name: &str, shape: &[usize]) -> Port {
    Port {
        name: name.into(),
        dtype: DType::F64,
        shape: shape.into(),
    }
}

/// The mean square error of the linear model y = x·w on data (x, y).
fn error<'t>(data: &[Var<'t>], theta: &[Var<'t>]) -> Result<Var<'t>> {
    (data[0].matmul(theta[0])? - data[1])?.powi(2)?.mean_all()
}

/// Inputs that look random, and the sums of their features as targets.
fn examples(seed: usize) -> [Array; 2] {
    let noise = |i: usize| 2.0 * ((i * i + 7 * seed) as f64 * 0.618_034).fract() - 1.0;
    let x = (0..4 * EXAMPLES)
        .map(|i| SCALES[i % 4] * noise(i))
        .collect::<Vec<f64>>();
    let y: Vec<f64> = x.chunks(4).map(|row| row.iter().sum()).collect();
    let arrays = [Array::new([EXAMPLES, 4], x), Array::new([EXAMPLES, 1], y)];
    arrays.map(|array| array.expect("as many numbers as the shape has"))
}

/// Learns for so many outer steps. Gives the meta-loss along the way.
fn learn(outer_steps: usize) -> Result<Vec<f64>> {
    let data = vec![port("x", &[EXAMPLES, 4]), port("y", &[EXAMPLES, 1])];
    let training = Training {
        theta: vec![port("w", &[4, 1])],
        buffers: vec![],
        // All steps train on the same examples. Of its own, a step has the optimiser's `lr` only.
        shared: data.clone(),
        rows: vec![],
        outer_rows: data,
        optimizer: Optimizer::Sgd,
        precondition: None,
        prepare: Box::new(|_, shared| Ok(shared.to_vec())),
        loss: Box::new(|scope| Ok((error(scope.shared, scope.theta)?, vec![]))),
        outer: Box::new(|scope| error(scope.rows, scope.theta)),
    };
    let device = Device::cpu(None)?;
    let horizon = Horizon::new(STEPS);
    let mut unroll = Unroll::new(&device, &training, &horizon)?;
    // Values are zero at first, and the weights stay so.
    let values = Values::new(&device, &training, &horizon)?;
    for (field, (inner, outer)) in examples(1).iter().zip(&examples(2)).enumerate() {
        values.shared.set(0, field, inner)?;
        values.outer_rows.set(0, field, outer)?;
    }
    // Different from the start: equal rates have equal gradients here, and would stay equal.
    let mut rates: [f64; STEPS] = std::array::from_fn(|step| 0.1 + 0.02 * step as f64);
    let mut losses = Vec::new();
    for outer_step in 0..=outer_steps {
        for (step, &rate) in rates.iter().enumerate() {
            values
                .hyper
                .set(step, 0, &Array::scalar(rate, DType::F64))?;
        }
        let loss = unroll.gradient(values.given())?.total();
        losses.push(loss);
        if outer_step % 50 == 0 {
            println!("outer step {outer_step:3}: meta-loss {loss:.5}, rates {rates:.2?}");
        }
        for (step, rate) in rates.iter_mut().enumerate() {
            // A step on the logarithm, whose slope is rate·slope: rates stay positive.
            let slope = unroll.hyper_gradient().get(step, 0)?.to_f64_vec()[0];
            *rate *= (-0.3 * *rate * slope).exp();
        }
    }
    Ok(losses)
}

fn main() -> Result<()> {
    learn(400).map(|_| ())
}

#[test]
fn learned_rates_train_better() {
    let losses = learn(100).expect("finite");
    let (first, last) = (losses[0], losses[100]);
    assert!(last < 0.2 * first, "{first} {last}");
}
