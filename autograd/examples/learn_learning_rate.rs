//! Learns a learning rate for every step of gradient descent on a regression, by the gradient of the trained weights' error
//! on other data: `cargo run -p gtn-autograd --release --example learn_learning_rate`

use autograd::prelude::*;

fn learn(data: [(&str, &Array); 4]) -> Result<()> {
    let (weights, rates) = (Array::zeros(F32, [8, 1]), Array::full(F32, [32], -4.0));
    let training = Training::new(Optimizer::Sgd)
        .weights([("w", &weights)])
        .learned([("log_lr", &rates)])
        .given(data)
        .prepare("lr", |s| s["log_lr"].exp())
        .loss(|s| (s["x"].matmul(s["w"])? - s["y"])?.powi(2)?.mean_all())
        .outer(|s| (s["xv"].matmul(s["w"])? - s["yv"])?.powi(2)?.mean_all());
    let mut unroll = Unroll::new(&Device::cpu(None)?, &training, &Horizon::new(32))?;
    let values = unroll.values(&training)?;
    let adam = Descent::new(unroll.gradients(), Optimizer::Adam, &[("lr", 0.1)])?;
    for _ in 0..50 {
        println!("{:.5}", adam.descend(&mut unroll, &values)?.total());
    }
    Ok(())
}

fn main() -> Result<()> {
    let x = [1, 2].map(|seed| Array::normal(F32, [64, 8], 1.0, seed));
    // The sum of an example's features, so that the best weights are ones.
    let sum = |row: &[f64]| row.iter().sum::<f64>() as f32;
    let sums = |x: &Array| x.to_f64_vec().chunks(8).map(sum).collect::<Vec<f32>>();
    let y = [
        Array::new([64, 1], sums(&x[0]))?,
        Array::new([64, 1], sums(&x[1]))?,
    ];
    learn([("x", &x[0]), ("y", &y[0]), ("xv", &x[1]), ("yv", &y[1])])
}
