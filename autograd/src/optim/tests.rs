//! Optimisers beside their textbook formulas.

use super::*;
use crate::{Tape, reference};
use tensor::{Array, DType};

/// Three textbook steps of one parameter in plain f64, with 1 − βᵗ.
fn textbook(optimizer: Optimizer, mut theta: f64, gradients: [f64; 3], h: &[f64]) -> f64 {
    let (mut u, mut m, mut v) = (0.0, 0.0, 0.0);
    for (step, g) in (1..).zip(gradients) {
        let lr = h[0];
        match optimizer {
            Optimizer::Sgd => theta -= lr * g,
            Optimizer::Momentum | Optimizer::ReversibleMomentum => {
                u = h[1] * u + g;
                theta -= lr * u;
            }
            // A number is no matrix.
            Optimizer::Nesterov | Optimizer::Muon => {
                u = h[1] * u + g;
                theta -= lr * (g + h[1] * u);
            }
            Optimizer::RmsProp => {
                v = h[1] * v + (1.0 - h[1]) * g * g;
                theta -= lr * g / (v.sqrt() + h[2]);
            }
            Optimizer::Adam | Optimizer::AdamW => {
                m = h[1] * m + (1.0 - h[1]) * g;
                v = h[2] * v + (1.0 - h[2]) * g * g;
                let m_hat = m / (1.0 - h[1].powi(step));
                let v_hat = v / (1.0 - h[2].powi(step));
                let decay = h.get(4).unwrap_or(&0.0) * theta;
                theta -= lr * (m_hat / (v_hat.sqrt() + h[3]) + decay);
            }
            Optimizer::Lion => {
                let c = h[1] * m + (1.0 - h[1]) * g;
                theta -= lr * (c.signum() + h[3] * theta);
                m = h[2] * m + (1.0 - h[2]) * g;
            }
        }
    }
    theta
}

fn customary(optimizer: Optimizer) -> Vec<f64> {
    optimizer.hyper().iter().map(|&(_, value)| value).collect()
}

/// The inputs of steps from a zero state: θ, the gradients, the hyper-parameters; and θ after them.
fn record(tape: &Tape, optimizer: Optimizer, steps: usize) -> (Vec<Var<'_>>, Var<'_>) {
    let scalar = |name: &str| tape.input(name, DType::F64, []).unwrap();
    let mut inputs = vec![scalar("theta")];
    inputs.extend((0..steps).map(|_| scalar("gradient")));
    inputs.extend(optimizer.hyper().iter().map(|(name, _)| scalar(name)));
    let (gradients, hyper) = inputs[1..].split_at(steps);
    let zeros = optimizer.state(&Shape::scalar(), DType::F64);
    let mut state: Vec<_> = zeros
        .iter()
        .map(|spec| tape.constant(0.0, spec.dtype, spec.shape.clone()))
        .collect();
    let mut theta = inputs[0];
    for &gradient in gradients {
        (theta, state) = optimizer.update(theta, gradient, &state, hyper).unwrap();
    }
    (inputs, theta)
}

fn run(outs: &[Var<'_>], inputs: &[Var<'_>], values: &[f64]) -> Vec<f64> {
    let arrays: Vec<Array> = values
        .iter()
        .map(|&x| Array::scalar(x, DType::F64))
        .collect();
    let given: Vec<_> = inputs.iter().copied().zip(&arrays).collect();
    let results = reference::run(outs, &given).unwrap();
    results.iter().map(|array| array.to_f64_vec()[0]).collect()
}

#[test]
fn three_steps_are_the_textbook_ones() {
    let gradients = [0.3, -1.7, 0.01];
    for optimizer in Optimizer::ALL {
        let tape = Tape::new();
        let (inputs, moved) = record(&tape, optimizer, 3);
        let hyper = customary(optimizer);
        let values = [&[0.8], &gradients[..], &hyper].concat();
        let result = run(&[moved], &inputs, &values)[0];
        let expected = textbook(optimizer, 0.8, gradients, &hyper);
        // Where 0.9 is a multiple of 2⁻²⁴.
        let fixed = optimizer == Optimizer::ReversibleMomentum;
        let allowed = if fixed { 1e-9 } else { 1e-14 };
        assert!((result - expected).abs() < allowed, "{}", optimizer.name());
        assert!((result - 0.8).abs() > 1e-5, "{} moves", optimizer.name());
    }
}

/// From a zero state Adam moves by lr·g/(|g| + eps): slope −lr/eps at g = 0, and none in the rest.
#[test]
fn derivatives_are_finite_and_right_at_a_zero_gradient() {
    for optimizer in Optimizer::ALL {
        let tape = Tape::new();
        let (inputs, moved) = record(&tape, optimizer, 1);
        let first = tape.grad(moved, &inputs).unwrap();
        let sum = tape.sum_of(&first).unwrap();
        let second = tape.grad(sum, &inputs).unwrap();
        let mut values = vec![0.8, 0.0];
        values.extend(customary(optimizer));
        let outs = [first, second].concat();
        let results = run(&outs, &inputs, &values);
        assert!(
            results.iter().all(|x| x.is_finite()),
            "{optimizer:?} {results:?}"
        );
        let lr = values[2];
        let slope = match optimizer {
            Optimizer::Sgd | Optimizer::Momentum | Optimizer::ReversibleMomentum => -lr,
            Optimizer::Nesterov => -lr * 1.9,
            Optimizer::Muon => -lr * 1.95,
            Optimizer::Lion => 0.0,
            Optimizer::RmsProp | Optimizer::Adam | Optimizer::AdamW => -lr / 1e-8,
        };
        let apart = (results[1] - slope).abs();
        assert!(apart <= 1e-14 * slope.abs(), "{optimizer:?}");
        let decay = match optimizer {
            Optimizer::AdamW | Optimizer::Lion => 0.01,
            _ => 0.0,
        };
        assert!((results[0] - (1.0 - lr * decay)).abs() < 1e-15);
        assert!((results[2] + decay * 0.8).abs() < 1e-15, "the rate's");
        let rest = 3..inputs.len() - usize::from(decay > 0.0);
        assert!(results[rest].iter().all(|&x| x == 0.0), "{optimizer:?}");
    }
}

#[test]
fn adam_without_a_first_mean_has_a_derivative() {
    let tape = Tape::new();
    let (inputs, moved) = record(&tape, Optimizer::Adam, 3);
    let slope = tape.grad(moved, &inputs[5..6]).unwrap()[0];
    let values = |beta1| [0.0, 0.3, -1.7, 0.01, 1e-3, beta1, 0.999, 1e-8];
    let at = |out, beta1| run(&[out], &inputs, &values(beta1))[0];
    let difference = (at(moved, 1e-5) - at(moved, -1e-5)) / 2e-5;
    let slope = at(slope, 0.0);
    assert!(
        (slope / difference - 1.0).abs() < 1e-7,
        "{slope} {difference}"
    );
}

#[test]
fn mistakes_are_named() {
    let tape = Tape::new();
    let array = |name: &str, shape: &[usize]| tape.input(name, DType::F32, shape).unwrap();
    let (theta, wide, rate) = (
        array("theta", &[2]),
        array("wide", &[3]),
        array("rate", &[]),
    );
    let refused = |optimizer: Optimizer, g, state: &[_], hyper: &[_]| {
        optimizer
            .update(theta, g, state, hyper)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(Optimizer::Sgd, wide, &[], &[rate]),
        "sgd: a gradient [3] for a parameter [2]"
    );
    assert_eq!(
        refused(Optimizer::Momentum, theta, &[theta], &[rate]),
        "momentum: the hyper-parameters are lr, momentum, but 1 were given"
    );
    let error = refused(Optimizer::RmsProp, theta, &[], &[rate; 3]);
    assert_eq!(error, "rmsprop: the state is (v [2]), but () was given");
    let error = refused(Optimizer::Sgd, theta, &[], &[array("rates", &[4, 1])]);
    assert_eq!(
        error,
        "sgd: hyper-parameters of shapes [4, 1] do not stretch to [2] and its state"
    );
}

#[test]
fn a_rate_per_element() {
    let tape = Tape::new();
    let theta = tape.input("theta", DType::F32, [2, 3]).unwrap();
    let rates = tape.input("rates", DType::F32, [2, 3]).unwrap();
    let (moved, _) = Optimizer::Sgd.update(theta, theta, &[], &[rates]).unwrap();
    assert_eq!(moved.shape(), theta.shape());
}

/// A sign has the slope 0: nothing reaches the gradients and the decays of the mean, in either order.
#[test]
fn lion_passes_to_the_weight_the_rate_and_its_decay() {
    let tape = Tape::new();
    let (inputs, moved) = record(&tape, Optimizer::Lion, 2);
    let slopes = tape.grad(moved.powi(2).unwrap(), &inputs).unwrap();
    let [theta, lr, decay] = [0.8, 0.1, 0.25];
    let values = [theta, 0.3, -1.7, lr, 0.9, 0.99, decay];
    let found = run(&[&slopes[..], &[moved]].concat(), &inputs, &values);
    let (slopes, moved) = found.split_at(inputs.len());
    // θ″ = (1 − lr·decay)²·θ − lr·sign(g₁)·(1 − lr·decay) − lr·sign(0.9·m + 0.1·g₂), m = 0.01·g₁.
    let kept = 1.0 - lr * decay;
    assert!((moved[0] - (kept * (kept * theta - lr) + lr)).abs() < 1e-15);
    let of_lr = -2.0 * decay * kept * theta - kept + lr * decay + 1.0;
    let of_decay = -2.0 * lr * kept * theta + lr * lr;
    let wanted = [kept * kept, 0.0, 0.0, of_lr, 0.0, 0.0, of_decay];
    for (slope, wanted) in slopes.iter().zip(wanted) {
        let apart = (slope - 2.0 * moved[0] * wanted).abs();
        assert!(apart < 1e-14, "{slopes:?}");
    }
}
