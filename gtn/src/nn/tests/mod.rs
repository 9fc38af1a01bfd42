mod dropout;
mod gradients;
mod network;
mod together;
mod values;
mod windows;

use super::network::Start;
use super::*;
use autograd::Tape;
use rand::{SeedableRng, rngs::StdRng};
use tensor::{Array, DType};

fn count(specs: &[ParamSpec]) -> usize {
    specs.iter().map(|p| p.shape.count()).sum()
}

fn family(name: &str) -> Family {
    Family::named(name).unwrap()
}

fn inputs<'t>(tape: &'t Tape, specs: &[ParamSpec]) -> Vec<Var<'t>> {
    let input = |p: &ParamSpec| tape.input(&p.name, DType::F64, p.shape.clone()).unwrap();
    specs.iter().map(input).collect()
}

#[test]
fn networks_have_as_many_parameters_as_published() {
    let mnist = Generator::new(GeneratorConfig::default()).unwrap();
    assert_eq!(count(mnist.params()), 6_660_226);
    let image = [32, 32, 3];
    let config = GeneratorConfig {
        image,
        ..GeneratorConfig::default()
    };
    assert_eq!(count(Generator::new(config).unwrap().params()), 8_633_222);
    let published = |name, image, weight_norm| {
        let family = family(name);
        let network = family.network(&family.usual, family.norms[0]).unwrap();
        let network = Network {
            weight_norm,
            ..network
        };
        network.learner(image, 10).unwrap().parameter_count()
    };
    assert_eq!(published("base_fc", [28, 28, 1], true), 1_683_668);
    assert_eq!(published("base_larger2", image, true), 1_111_892);
    // As they are published, without weight norm.
    assert_eq!(published("lenet", [28, 28, 1], false), 61_706);
    assert_eq!(published("convnet3", image, false), 320_010);
}

#[test]
fn every_learner_gives_logits_and_buffers() {
    for family in ["base_fc", "base", "base_larger2", "linear"].map(family) {
        for (norm, buffers) in [(Norm::None, 0), (Norm::MeanOnly, 1), (Norm::Batch, 2)] {
            let widths = &family.usual;
            let learner = family.learner([32, 32, 3], 7, widths, norm).unwrap();
            let tape = Tape::new();
            let theta = inputs(&tape, learner.params());
            let stored = inputs(&tape, learner.buffers());
            let x = tape.input("x", DType::F64, [5, 32, 32, 3]).unwrap();
            let (logits, fresh) = learner.logits(&theta, x, Statistics::Batch).unwrap();
            assert_eq!(logits.shape()[..], [5, 7]);
            assert_eq!(fresh.len(), buffers * widths.len());
            for (var, spec) in fresh.iter().zip(learner.buffers()) {
                assert_eq!(var.shape(), spec.shape);
            }
            let (logits, kept) = learner
                .logits(&theta, x, Statistics::Stored(&stored))
                .unwrap();
            assert_eq!(logits.shape()[..], [5, 7]);
            assert_eq!(kept, stored);
            let error = learner.logits(&theta[1..], x, Statistics::Batch);
            let error = error.unwrap_err().to_string();
            assert!(error.contains("variables wanted"), "{error}");
        }
    }
}

#[test]
fn an_auxiliary_head_stands_where_images_become_smaller_for_the_last_time() {
    for (text, image, wanted) in [
        (
            "conv 4 | max 2 | conv 4 stride 2 | relu | mean | dense",
            16,
            Some("3"),
        ),
        ("conv 4 | relu | mean | dense", 16, None),
        ("dense 8 | relu | dense", 16, None),
        ("conv 8 3x3 stride 2 | relu | mean | dense", 16, Some("1")),
        // The second residual block that halves, and the second reduction cell.
        ("nasbench201:334131", 32, Some("14")),
        (
            "cells:0414041404140414041404140414041404140414",
            32,
            Some("1.cell7.1"),
        ),
    ] {
        let Learners::Family(family) = text.parse().unwrap() else {
            panic!("{text} is one network")
        };
        let network = family.network(&family.usual, family.norms[0]).unwrap();
        let learner = network.learner([image, image, 3], 10).unwrap();
        let number = learner
            .last_reduction([image, image, 3])
            .map(|i| &*learner.layers()[i].number);
        assert_eq!(number, wanted, "{text}");
        let Some(layer) = learner.last_reduction([image, image, 3]) else {
            continue;
        };
        let tape = Tape::new();
        let theta = inputs(&tape, learner.params());
        let x = tape.input("x", DType::F64, [2, image, image, 3]).unwrap();
        let found = learner.logits_and_layer(&theta, x, Statistics::Batch, layer);
        let half_way = found.unwrap().1;
        assert_eq!(
            half_way.shape()[1..],
            learner.layers()[layer].shape[..],
            "{text}"
        );
    }
}

#[test]
fn names_are_unique_and_layers_must_fit() {
    for family in Family::all() {
        let learner = family
            .learner([32, 32, 3], 10, &family.usual, Norm::Batch)
            .unwrap();
        let mut names: Vec<_> = learner.params().iter().map(|p| &p.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), learner.params().len());
    }
    for (layers, wanted) in [
        (
            "dense 4 | conv 3 | dense",
            "layer 2: `conv 3 3x3` does not fit an input of shape [4]",
        ),
        (
            "max 5 | dense",
            "layer 1: `max 5` does not fit an input of shape [4, 4, 1]",
        ),
        (
            "conv 2 5x5 pad 0 | dense",
            "layer 1: `conv 2 5x5 pad 0` does not fit an input of shape",
        ),
        (
            "avg 2 pad 2 | dense",
            "layer 1: `avg 2 pad 2` does not fit an input of shape",
        ),
        (
            "mean | mean | dense",
            "layer 2: `mean` does not fit an input of shape [1]",
        ),
        (
            "add(relu | max 2 | depthwise 5x5 pad 1) | dense",
            "layer 1.2.3: `depthwise 5x5 pad 1` does not fit",
        ),
        (
            "add(conv 3) | dense",
            "layer 1: `add`: its branches give [[4, 4, 1], [4, 4, 3]], which are not of one shape",
        ),
        (
            "concat(max 2) | dense",
            "which are not of images of one size",
        ),
        (
            "conv 6 groups 2 | dense",
            "layer 1: `conv 6 3x3 groups 2`: 1 channels to 6 cannot be in 2 groups",
        ),
        (
            "dense 3 | instance | dense",
            "layer 2: `instance`: of an input of shape [3] every number",
        ),
        (
            "conv 3 | relu",
            "layer 2: the last layer gives [4, 4, 3], not a number for each of 10 classes",
        ),
    ] {
        let network: Network = layers.parse().unwrap();
        let error = network.learner([4, 4, 1], 10).unwrap_err().to_string();
        assert!(error.contains(wanted), "{layers}: {error}");
    }
    let few = family("base").learner([8, 8, 1], 10, &[3], Norm::None);
    let error = few.unwrap_err().to_string();
    assert!(error.contains("base: 2 widths wanted, 1 given"), "{error}");
    let image = [30, 0, 1];
    assert!(
        Generator::new(GeneratorConfig {
            image,
            ..GeneratorConfig::default()
        })
        .is_err()
    );
}

#[test]
fn generators_make_images_of_any_size() {
    for image in [[28, 28, 1], [1, 1, 1], [30, 17, 3], [5, 8, 1], [64, 50, 3]] {
        let config = GeneratorConfig {
            image,
            ..GeneratorConfig::default()
        };
        let (generator, tape) = (Generator::new(config).unwrap(), Tape::new());
        let phi = inputs(&tape, generator.params());
        let [z, y] = [("z", 128), ("y", 10)]
            .map(|(name, length)| tape.input(name, DType::F64, [2, length]).unwrap());
        let images = generator.images(&generator.prepare(&phi).unwrap(), z, y);
        assert_eq!(images.unwrap().shape()[1..], image);
        // The smallest image stays small: 11 × 11 at most.
        assert!(generator.params()[4].shape[0] <= 128 * 11 * 11);
    }
}

#[test]
fn a_seed_means_the_same_numbers_in_every_precision() {
    let specs = [
        ParamSpec::weight("a", [50, 4, 10], Start::default()).to_vec(),
        ParamSpec::affine("a", 3).to_vec(),
    ]
    .concat();
    let draw = |dtype| init(&specs, dtype, &mut StdRng::seed_from_u64(5)).unwrap();
    let (wide, narrow) = (draw(DType::F64), draw(DType::F32));
    for (w, n) in wide.iter().zip(&narrow) {
        assert_eq!(w.cast(DType::F32), *n);
    }
    let [v, s, gamma, beta] = &wide[..] else {
        panic!("four parameters")
    };
    for (row, gain) in v.to_f64_vec().chunks(40).zip(s.to_f64_vec()) {
        let squares: f64 = row.iter().map(|x| x * x).sum();
        assert!((squares.sqrt() - gain).abs() < 1e-12);
    }
    let spread = |a: &Array| {
        let numbers = a.to_f64_vec();
        (numbers.iter().map(|x| x * x).sum::<f64>() / numbers.len() as f64).sqrt()
    };
    assert!((spread(v) - (2.0_f64 / 40.0).sqrt()).abs() < 0.01);
    assert_eq!(
        (gamma.to_f64_vec(), beta.to_f64_vec()),
        (vec![1.0; 3], vec![0.0; 3])
    );

    let orphan = [ParamSpec::new("s", [3], Init::NormOf("v".into()))];
    let error = init(&orphan, DType::F32, &mut StdRng::seed_from_u64(0));
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("no earlier parameter `v`")
    );
}
