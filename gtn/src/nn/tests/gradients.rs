//! First and second derivatives of whole networks: against differences, and forward against reverse.

use super::family;
use super::values::noise;
use crate::nn::{Generator, GeneratorConfig, Learner, Norm, ParamSpec, Statistics, Variant, init};
use autograd::check::{self, Options};
use autograd::{Result, Tape, Var};
use rand::{SeedableRng, rngs::StdRng};
use tensor::{Array, DType};

pub(super) fn check<F>(f: F, points: &[Array])
where
    F: for<'t> Fn(&'t Tape, &[Var<'t>]) -> Result<Vec<Var<'t>>>,
{
    // Networks curve more than single operations do.
    let options = Options {
        step: 1e-6,
        ..Options::default()
    };
    if let Err(error) = check::gradients(f, points, &options) {
        panic!("{error}");
    }
}

/// Arrays end to end in one: as one input they are moved together.
pub(super) fn joined(arrays: &[Array]) -> Array {
    let numbers: Vec<f64> = arrays.iter().flat_map(Array::to_f64_vec).collect();
    Array::new([numbers.len()], numbers).unwrap()
}

/// Splits such an array into parameters: of several learners, or of one if `learners` is empty.
pub(super) fn split<'t>(
    all: Var<'t>,
    specs: &[ParamSpec],
    learners: &[usize],
) -> Result<Vec<Var<'t>>> {
    let mut start = 0;
    let mut next = |spec: &ParamSpec| {
        let (from, shape) = (start, [learners, &spec.shape[..]].concat());
        let count = shape.iter().product();
        start += count;
        all.slice(&[from], &[count])?.reshape(shape)
    };
    specs.iter().map(&mut next).collect()
}

fn start(specs: &[ParamSpec]) -> Array {
    joined(&init(specs, DType::F64, &mut StdRng::seed_from_u64(1)).unwrap())
}

#[test]
fn generators() {
    for (variant, image) in [
        (Variant::Paper, [8, 8, 2]),
        (Variant::Benchmark, [8, 8, 2]),
        (Variant::Paper, [7, 5, 1]),
        (Variant::Paper, [1, 45, 1]),
    ] {
        let config = GeneratorConfig {
            variant,
            noise: 3,
            classes: 2,
            labels: false,
            hidden: 4,
            channels: [3, 2],
            image,
        };
        let generator = Generator::new(config).unwrap();
        let phi = start(generator.params());
        check(
            |_, a| {
                let prepared = generator.prepare(&split(a[0], generator.params(), &[])?)?;
                Ok(vec![generator.images(&prepared, a[1], a[2])?])
            },
            &[phi, noise(&[6, 3], 1), noise(&[6, 2], 2)],
        );
    }
}

#[test]
fn generators_of_images_and_labels() {
    let config = GeneratorConfig {
        noise: 3,
        classes: 2,
        labels: true,
        hidden: 4,
        channels: [3, 2],
        image: [8, 8, 1],
        ..GeneratorConfig::default()
    };
    let generator = Generator::new(config).unwrap();
    check(
        |_, a| {
            let prepared = generator.prepare(&split(a[0], generator.params(), &[])?)?;
            Ok(generator.images_and_labels(&prepared, a[1])?.to_vec())
        },
        &[start(generator.params()), noise(&[6, 3], 1)],
    );
}

/// Checks the loss of six examples, and the statistics that a step leaves.
fn check_learner(learner: &Learner, image: [usize; 3]) {
    let [rows, columns, channels] = image;
    check(
        |_, a| {
            let theta = split(a[0], learner.params(), &[])?;
            let (logits, mut outs) = learner.logits(&theta, a[1], Statistics::Batch)?;
            outs.push(logits.cross_entropy(a[2])?);
            Ok(outs)
        },
        &[
            start(learner.params()),
            noise(&[6, rows, columns, channels], 1),
            noise(&[6, 3], 2),
        ],
    );
}

#[test]
fn learners() {
    for (name, widths, norm) in [
        ("base_fc", &[2, 3, 4][..], Norm::MeanOnly),
        ("base_larger2", &[2, 3, 2, 3, 2], Norm::Batch),
        ("base", &[2, 3], Norm::None),
    ] {
        let learner = family(name).learner([8, 8, 2], 3, widths, norm).unwrap();
        check_learner(&learner, [8, 8, 2]);
    }
}

#[test]
fn graphs() {
    for text in [
        "graph(a = conv 2 | tanh; b = add(a | conv 2 1x1 | batch; a); unused = b | conv 2; concat(a; b; b | silu)) | mean | dense",
        "weight_norm off | conv 2 | graph(a = zero; b = add(a; batch); add(a | batch; b)) | tanh | dense",
    ] {
        let network: crate::nn::Network = text.parse().unwrap();
        check_learner(&network.learner([4, 4, 2], 3).unwrap(), [4, 4, 2]);
    }
}
