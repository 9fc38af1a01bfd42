//! Whole meta-gradients of the tiny set-ups against JAX's, in f64, in both modes.

use autograd::prelude::*;
use benches::{DataKind, Problem, Setup};
use tests::Golden;

fn check(setup: &str, data: DataKind, bn: bool) {
    let kind = if data == DataKind::Gen {
        "gen"
    } else {
        "direct"
    };
    let name = format!("{setup}-{kind}{}", if bn { "-bn" } else { "" });
    let golden = Golden::read(&name).expect("a stored golden");
    let setup = Setup::parse(setup, bn).expect("a known set-up");
    let problem = Problem {
        steps: setup.steps,
        rows: setup.steps,
        batch: setup.batch,
        data,
        learners: 1,
        dtype: F64,
        optimizer: Optimizer::Momentum,
        setup,
    };
    let device = Device::cpu(Some(2)).expect("two threads");
    let values = problem
        .load(&device, &golden.init)
        .expect("a golden's arrays");
    for mode in [Mode::Mixed, Mode::Reverse] {
        let horizon = Horizon::new(problem.steps).mode(mode);
        let mut unroll = Unroll::new(&device, &problem.training(), &horizon).expect("a plan");
        let loss = unroll.gradient(&values).expect("a meta-gradient").total();
        assert!(
            (loss - golden.loss).abs() < 1e-12,
            "{name}: loss {loss}, JAX {}",
            golden.loss
        );
        let gradient = problem.gradient(&unroll).expect("arrays");
        let (worst, array) = golden.worst(&gradient);
        assert!(
            worst <= 1e-9,
            "{name} {mode:?}: {array} differs by {worst:e}"
        );
    }
}

#[test]
fn tiny_with_a_generator() {
    check("tiny", DataKind::Gen, false);
}

#[test]
fn tiny_with_a_generator_and_batch_norm() {
    check("tiny", DataKind::Gen, true);
}

#[test]
fn tiny_with_free_images() {
    check("tiny", DataKind::Direct, false);
}

#[test]
fn tiny_with_free_images_and_batch_norm() {
    check("tiny", DataKind::Direct, true);
}

#[test]
fn tinymlp_with_a_generator() {
    check("tinymlp", DataKind::Gen, false);
}

#[test]
fn tinymlp_with_free_images() {
    check("tinymlp", DataKind::Direct, false);
}
