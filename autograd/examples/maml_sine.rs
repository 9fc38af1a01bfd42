//! Model-agnostic meta-learning (Finn et al. 2017, arXiv 1703.03400) of sine waves: weights from which five steps on ten
//! points fit any wave. The rates of the steps are learned too: `cargo run -p gtn-autograd --release --example maml_sine`

use autograd::prelude::*;

fn error<'t>(w: &[Var<'t>], x: Var<'t>, y: Var<'t>) -> Result<Var<'t>> {
    let first = (x.matmul(w[0])? + w[1])?.tanh()?;
    let second = (first.matmul(w[2])? + w[3])?.tanh()?;
    (second.matmul(w[4])? + w[5] - y)?.powi(2)?.mean_all()
}

fn learn(start: &[(&str, &Array)], waves: impl Iterator<Item = [Array; 4]>) -> Result<Vec<f64>> {
    let rates = Array::full(F32, [5], -4.6);
    let names = ["x", "y", "x_new", "y_new"];
    let training = Training::new(Optimizer::Sgd)
        .weights(start.iter().copied())
        .learned(start.iter().copied().chain([("log_lr", &rates)]))
        .given(names.map(|name| ArraySpec::new(name, F32, [10, 1])))
        .prepare("lr", |s| s["log_lr"].exp())
        .loss(|s| error(s.weights(), s["x"], s["y"]))
        .outer(|s| error(s.weights(), s["x_new"], s["y_new"]));
    let mut unroll = Unroll::new(&Device::cpu(None)?, &training, &Horizon::new(5))?;
    let mut values = unroll.values(&training)?;
    let adam = Descent::new(unroll.gradients(), Optimizer::Adam, &[("lr", 0.002)])?;
    let outer_step = |wave: [Array; 4]| {
        values.set_all(names.into_iter().zip(&wave))?;
        Ok(adam.descend(&mut unroll, &values)?.total())
    };
    waves.map(outer_step).collect()
}

/// The errors of a network after five steps on each of `waves` waves in turn; it learns from all of them.
fn errors(waves: u64) -> Result<Vec<f64>> {
    let weight = |i: usize, o: usize| Array::normal(F32, [i, o], (i as f64).powf(-0.5), o as u64);
    let bias = |units: usize| Array::zeros(F32, [1, units]);
    let start = [
        ("w1", &weight(1, 40)),
        ("b1", &bias(40)),
        ("w2", &weight(40, 40)),
        ("b2", &bias(40)),
        ("w3", &weight(40, 1)),
        ("b3", &bias(1)),
    ];
    // Points of a wave of random height and phase: ten to learn from, and ten others.
    let wave = |seed: u64| {
        let [height, phase] = [0, 1].map(|i| {
            let range = [[0.1, 5.0], [0.0, std::f64::consts::PI]][i];
            Array::uniform(F64, [], range, 4 * seed + i as u64).to_f64_vec()[0]
        });
        let points = |seed| {
            let x = Array::uniform(F64, [10, 1], [-5.0, 5.0], seed);
            let y = x
                .to_f64_vec()
                .iter()
                .map(|x| height * f64::sin(x - phase))
                .collect::<Vec<f64>>();
            [x.cast(F32), Array::new([10, 1], y).expect("ten").cast(F32)]
        };
        let [[x, y], [x_new, y_new]] = [points(4 * seed + 2), points(4 * seed + 3)];
        [x, y, x_new, y_new]
    };
    learn(&start, (0..waves).map(wave))
}

fn mean(errors: &[f64]) -> f64 {
    errors.iter().sum::<f64>() / errors.len() as f64
}

fn main() -> Result<()> {
    for (i, some) in errors(10_000)?.chunks(1000).enumerate() {
        println!(
            "waves {:5} to {:5}: mean error {:.3}",
            1000 * i,
            1000 * (i + 1),
            mean(some)
        );
    }
    Ok(())
}

#[test]
fn meta_learning_helps_on_new_waves() {
    let errors = errors(1200).expect("finite");
    let (before, after) = (mean(&errors[..100]), mean(&errors[1000..]));
    assert!(after < 0.8 * before, "{before} {after}");
}
