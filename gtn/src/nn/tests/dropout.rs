//! What is dropped in training, by which key, and what goes through.

use super::gradients::{check, joined, split};
use super::values::{compute, noise};
use crate::nn::{Learner, Network, Statistics, init};
use rand::{SeedableRng, rngs::StdRng};
use tensor::{Array, DType};

fn learner(text: &str, image: [usize; 3]) -> Learner {
    let network: Network = text.parse().unwrap();
    network.unchecked(image, 3).unwrap()
}

fn key(number: u32) -> Array {
    Array::new([4], vec![1, 2, 3, number]).unwrap()
}

/// The results for ones: twice by one key, by another key, with the batch's statistics, and in evaluation.
fn outcomes(text: &str, shape: [usize; 4]) -> Vec<Vec<f64>> {
    let [_, rows, columns, channels] = shape;
    let learner = learner(text, [rows, columns, channels]);
    let ones = Array::full(DType::F64, shape, 1.0);
    let named = [("x", &ones), ("key", &key(1)), ("other", &key(2))];
    compute(&named, |a| {
        let of = |statistics| Ok(learner.logits(&[], a[0], statistics)?.0);
        [
            Statistics::Training(a[1]),
            Statistics::Training(a[1]),
            Statistics::Training(a[2]),
            Statistics::Batch,
            Statistics::Stored(&[]),
        ]
        .map(of)
        .into_iter()
        .collect()
    })
}

#[test]
fn numbers_are_dropped_in_training_only_and_by_the_key() {
    for (text, rate, kept) in [
        ("dropout 0.25", 0.25, 4.0 / 3.0),
        ("dropout 0.5 | dropout 0.2", 0.6, 2.5),
        ("drop_path 0.25", 0.25, 4.0 / 3.0),
    ] {
        let found = outcomes(text, [1000, 2, 2, 2]);
        let dropped = found[0].iter().filter(|&&x| x == 0.0).count() as f64;
        assert!(
            found[0]
                .iter()
                .all(|&x| x == 0.0 || (x - kept).abs() < 1e-12)
        );
        // Of a thousand examples that drop out whole, the share has a standard deviation of 0.014.
        assert!((dropped / 8000.0 - rate).abs() < 0.05, "{text}: {dropped}");
        assert_eq!(found[0], found[1]);
        assert_ne!(found[0], found[2]);
        assert!(found[3..].iter().flatten().all(|&x| x == 1.0));
        let whole = found[0]
            .chunks(8)
            .all(|example| example.iter().all(|x| *x == example[0]));
        assert_eq!(whole, text.starts_with("drop_path"));
    }
}

#[test]
fn learners_at_once_drop_by_themselves() {
    for (text, values) in [
        (
            "weight_norm off | dropout 0.5 | conv 1 1x1 no_bias",
            [0.0, 2.0],
        ),
        (
            "weight_norm off | conv 1 1x1 no_bias | dropout 0.5",
            [0.0, 2.0],
        ),
        (
            "weight_norm off | conv 1 1x1 no_bias | drop_path 0.5",
            [0.0, 2.0],
        ),
    ] {
        let learner = learner(text, [2, 2, 1]);
        let [ones, weights] =
            [&[50, 2, 2, 1][..], &[2, 1, 1, 1, 1]].map(|shape| Array::full(DType::F64, shape, 1.0));
        let named = [("w", &weights), ("x", &ones), ("key", &key(1))];
        let found = compute(&named, |a| {
            Ok(vec![
                learner.logits(&a[..1], a[1], Statistics::Training(a[2]))?.0,
            ])
        });
        let (first, second) = found[0].split_at(200);
        assert_ne!(first, second, "{text}");
        assert!(found[0].iter().all(|x| values.contains(x)), "{text}");
    }
}

#[test]
fn derivatives_are_those_of_what_is_kept() {
    let text = "conv 3 | batch | tanh | dropout 0.3 | add(conv 3 | silu | drop_path 0.4) | dropout 0.2 | dense";
    let learner = learner(text, [4, 4, 2]);
    let theta = init(learner.params(), DType::F64, &mut StdRng::seed_from_u64(1)).unwrap();
    check(
        |_, a| {
            let theta = split(a[0], learner.params(), &[])?;
            let training = Statistics::Training(a[3]);
            let (logits, mut outs) = learner.logits(&theta, a[1], training)?;
            outs.push(logits.cross_entropy(a[2])?);
            Ok(outs)
        },
        &[
            joined(&theta),
            noise(&[6, 4, 4, 2], 1),
            noise(&[6, 3], 2),
            key(5),
        ],
    );
}
