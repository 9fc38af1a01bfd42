mod gradients;
mod together;
mod values;

use super::*;
use autograd::Tape;
use rand::{SeedableRng, rngs::StdRng};

fn count(specs: &[ParamSpec]) -> usize {
    specs.iter().map(|p| p.shape.count()).sum()
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
    let published = |kind: LearnerKind, image| {
        let learner = kind.learner(image, 10, kind.default_widths(), Norm::MeanOnly);
        count(learner.unwrap().params())
    };
    assert_eq!(published(LearnerKind::BaseFc, [28, 28, 1]), 1_683_668);
    assert_eq!(published(LearnerKind::BaseLarger2, image), 1_111_892);
}

#[test]
fn every_learner_gives_logits_and_buffers() {
    for kind in [
        LearnerKind::BaseFc,
        LearnerKind::Base,
        LearnerKind::BaseLarger2,
        LearnerKind::Linear,
    ] {
        for (norm, buffers) in [(Norm::None, 0), (Norm::MeanOnly, 1), (Norm::Batch, 2)] {
            let widths = kind.default_widths();
            let learner = kind.learner([32, 32, 3], 7, widths, norm).unwrap();
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
fn names_are_unique_and_layers_must_fit() {
    for kind in [LearnerKind::BaseFc, LearnerKind::BaseLarger2] {
        let learner = kind
            .learner([32, 32, 3], 10, kind.default_widths(), Norm::Batch)
            .unwrap();
        let mut names: Vec<_> = learner.params().iter().map(|p| &p.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), learner.params().len());
    }
    for layers in [
        &[Layer::Bias][..],
        &[Layer::Dense { units: 0 }],
        &[Layer::Conv {
            filters: 2,
            stride: 0,
        }],
        &[Layer::MaxPool {
            window: 5,
            stride: 1,
            pad: 0,
        }],
        &[Layer::GlobalMean, Layer::GlobalMean],
    ] {
        let error = Learner::new([4, 4, 1], layers).unwrap_err().to_string();
        assert!(error.contains("does not fit an input of shape"), "{error}");
    }
    assert!(
        LearnerKind::Base
            .learner([8, 8, 1], 10, &[3], Norm::None)
            .is_err()
    );
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
    for image in [[28, 28, 1], [1, 1, 1], [30, 17, 3], [5, 8, 1]] {
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
    }
}

#[test]
fn a_seed_means_the_same_numbers_in_every_precision() {
    let specs = [
        ParamSpec::weight("a", [50, 4, 10]).to_vec(),
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

#[test]
fn names_of_kinds_are_the_same_in_files_and_on_the_command_line() {
    for kind in <LearnerKind as clap::ValueEnum>::value_variants() {
        let value = clap::ValueEnum::to_possible_value(kind).unwrap();
        assert_eq!(
            serde_json::to_value(kind).unwrap(),
            serde_json::Value::from(value.get_name())
        );
    }
}
