//! Steps of momentum that are undone to the last bit.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{bytes, numbers, run_all};
use kernels::{Float, Kernel, Ratio, Reversible, ReversibleKind};
use proptest::prelude::*;

fn kernel(count: usize, kind: ReversibleKind) -> Kernel {
    Kernel::Reversible(Reversible {
        float: Float::F64,
        count,
        kind,
    })
}

fn one(kernel: &Kernel, inputs: &[Vec<u8>]) -> Vec<u8> {
    run_all(kernel, inputs).remove(0)
}

/// The state after a step.
fn advance(state: &[u8], start: &[Vec<u8>; 2], gradient: &[f64], rates: [f64; 2]) -> Vec<u8> {
    let [lr, momentum] = rates.map(|rate| bytes(&[rate]));
    let [theta, u] = start.clone();
    let inputs = [state.to_vec(), theta, u, bytes(gradient), lr, momentum];
    one(&kernel(gradient.len(), ReversibleKind::Advance), &inputs)
}

/// The state before it.
fn undo(state: &[u8], gradient: &[f64], rates: [f64; 2]) -> Vec<u8> {
    let [lr, momentum] = rates.map(|rate| bytes(&[rate]));
    let inputs = [state.to_vec(), bytes(gradient), lr, momentum];
    one(&kernel(gradient.len(), ReversibleKind::Undo), &inputs)
}

fn look(state: &[u8], count: usize, kind: ReversibleKind) -> Vec<f64> {
    numbers(&one(&kernel(count, kind), &[state.to_vec()]))
}

fn noise(count: usize, seed: usize, scale: f64) -> Vec<f64> {
    let numbers = common::noise(count, seed as u64);
    numbers.iter().map(|x| scale * x).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Forward, with words taken out when the kernel says so; then back, with words put in again.
    #[test]
    fn a_training_is_undone(
        momenta in prop::collection::vec(
            prop_oneof![0.0..=1.0, Just(0.0), Just(1.0), Just(0.5), 0.0..1e-6, 0.999..1.0], 1..60),
        count in 0usize..40,
        scale in prop_oneof![Just(1e-9), Just(1.0), Just(300.0)],
    ) {
        let start = [noise(count, 1, scale), noise(count, 2, scale)].map(|x| bytes(&x));
        let mut state = vec![0; 4 * Reversible::words(count)];
        let planes = 24 * count;
        let (mut before, mut stash) = (Vec::new(), Vec::new());
        let mut most = 0;
        for (t, &momentum) in momenta.iter().enumerate() {
            let (carry, next) = Ratio::new(momentum).unwrap().grow(most);
            stash.push(carry.then(|| state[16 * count..20 * count].to_vec()));
            let new = advance(&state, &start, &noise(count, 3 + t, scale), [0.03, momentum]);
            prop_assert_eq!(&new[planes..], &bytes(&[next])[..]);
            before.push(std::mem::replace(&mut state, new));
            most = next;
        }
        for (t, &momentum) in momenta.iter().enumerate().skip(1).rev() {
            let lr = bytes(&[0.03]);
            let kernel = kernel(count, ReversibleKind::WeightBefore);
            let weight = one(&kernel, &[state.clone(), lr]);
            state = undo(&state, &noise(count, 3 + t, scale), [0.03, momentum]);
            if let Some(word) = &stash[t] {
                state.copy_within(16 * count..20 * count, 20 * count);
                state[16 * count..20 * count].copy_from_slice(word);
            }
            prop_assert_eq!(&state[..planes], &before[t][..planes], "{} {}", t, momentum);
            let weights = look(&state, count, ReversibleKind::Weight);
            prop_assert_eq!(weights, numbers::<f64>(&weight));
        }
    }
}

/// What it computes is momentum, to the last places of fixed point.
#[test]
fn it_is_momentum() {
    let count = 1000;
    let (mut theta, mut u) = (noise(count, 1, 1.0), noise(count, 2, 1.0));
    let start = [&theta, &u].map(|x| bytes(x));
    let mut state = vec![0; 4 * Reversible::words(count)];
    for t in 0..100 {
        let (gradient, momentum) = (noise(count, 3 + t, 1.0), (1 + t % 4) as f64 / 4.0);
        state = advance(&state, &start, &gradient, [0.01, momentum]);
        for i in 0..count {
            u[i] = momentum * u[i] + gradient[i];
            theta[i] -= 0.01 * u[i];
        }
    }
    for (kind, expected) in [
        (ReversibleKind::Weight, theta),
        (ReversibleKind::Velocity, u),
    ] {
        let found = look(&state, count, kind);
        for (x, y) in found.iter().zip(&expected) {
            assert!((x - y).abs() < 1e-10, "{kind:?}: {x} {y}");
        }
    }
}

/// What cannot be held is not a number, and stays so; the others do not mind.
#[test]
fn what_is_out_of_range_is_nan_from_there_on() {
    let start = [vec![1.0, 2.0, 32767.0, 4.0], vec![0.0; 4]].map(|x| bytes(&x));
    let zero = vec![0; 4 * Reversible::words(4)];
    let gradient = [f64::NAN, 40000.0, -2.0, 0.5];
    let after = advance(&zero, &start, &gradient, [1.0, 0.5]);
    let floats = [ReversibleKind::Weight, ReversibleKind::Velocity];
    let floats = floats.map(|kind| bytes(&look(&after, 4, kind)));
    let again = advance(&after, &floats, &[0.5; 4], [1.0, 0.5]);
    for (state, last) in [(&after, 3.5), (&again, 2.75)] {
        let weights = look(state, 4, ReversibleKind::Weight);
        assert!(weights[..3].iter().all(|w| w.is_nan()), "{weights:?}");
        assert_eq!(weights[3], last);
    }
    for rates in [[1.0, 1.5], [1.0, -0.5], [1.0, f64::NAN], [f64::NAN, 0.5]] {
        let state = advance(&zero, &start, &[0.5; 4], rates);
        let weights = look(&state, 4, ReversibleKind::Weight);
        assert!(weights.iter().all(|w| w.is_nan()), "{rates:?}");
    }
    assert!(look(&zero, 4, ReversibleKind::Velocity)[0].is_nan());
}
