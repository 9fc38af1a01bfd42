//! Several learners at once against as many learners by themselves.

use super::family;
use super::gradients::{check, joined, split};
use super::values::noise;
use crate::nn::{Learner, Network, Norm, ParamSpec, Statistics, init, stack};
use autograd::{Plan, Result, Tape, Var};
use kernels::Device;
use rand::{SeedableRng, rngs::StdRng};
use tensor::{Array, DType};

const EXAMPLES: usize = 6;
const CLASSES: usize = 3;

/// Layers that the families below lack: every other kind, before the first weights and after.
const OTHERS: [&str; 8] = [
    "batch | relu | conv 4 | instance | tanh | avg 3 stride 2 pad 1 | dense",
    "depthwise | conv 4 groups 2 | group 2 | gelu | conv 4 groups 2 dilation 2 | depthwise stride 2 | layer | dense",
    "bias | add(conv 2 | mean_only; input) | silu | add(conv 3 1x1; conv 3) | max 2 | dense 4 | layer | dense",
    "concat(conv 3 | batch | relu) | concat(conv 2 1x3; max 3 stride 1 pad 1) | mean | dense",
    "weight_norm off | init pytorch | conv 3 | relu | add(mean; flatten | dense 3) | dense 4 | leaky 0.3 | dense",
    "weight_norm off | instance | mean | concat(dense 3; dense 2 no_bias) | tanh | dense",
    "graph(a = relu; b = add(a | conv 2 | batch; input); c = b | zero; add(a; b | avg 3 stride 1 pad 1; c)) | mean | dense",
    "conv 3 | graph(a = conv 2 | batch; b = a | conv 2 1x1; unused = b | conv 4; concat(add(b; a); graph(c = b; c))) | dense",
];

/// All structures, with all norms: convolution first and last, dense layers first, the mean, pooling.
fn learners() -> Vec<Learner> {
    let kinds = [
        ("base_fc", &[2, 3, 4][..]),
        ("base", &[3, 2]),
        ("base_larger2", &[2, 3, 2, 3, 2]),
        ("linear", &[5, 4]),
    ];
    let with = |norm| {
        let learner = move |&(name, widths): &(&str, &[usize])| {
            let family = family(name);
            family.learner([8, 8, 2], CLASSES, widths, norm).unwrap()
        };
        kinds.each_ref().map(learner)
    };
    let families = [Norm::None, Norm::MeanOnly, Norm::Batch].map(with).concat();
    let others = OTHERS.map(|text| {
        let network: Network = text.parse().unwrap();
        network.learner([8, 8, 2], CLASSES).unwrap()
    });
    families.into_iter().chain(others).collect()
}

fn starts(learner: &Learner, count: u64, dtype: DType) -> Vec<Vec<Array>> {
    let draw = |seed| init(learner.params(), dtype, &mut StdRng::seed_from_u64(seed)).unwrap();
    (0..count).map(draw).collect()
}

fn data(dtype: DType) -> [Array; 2] {
    let (x, y) = (
        noise(&[EXAMPLES, 8, 8, 2], 1),
        noise(&[EXAMPLES, CLASSES], 2),
    );
    [x, y].map(|array| array.cast(dtype))
}

/// Logits, buffers, logits again with stored statistics, loss, and the gradients with respect to θ and images.
fn results(learner: &Learner, theta: &[Array]) -> Vec<Array> {
    let tape = Tape::new();
    let dtype = theta[0].dtype();
    let [x, y] = data(dtype);
    let arrays: Vec<&Array> = theta.iter().chain([&x, &y]).collect();
    let input = |a: &&Array| tape.input("array", dtype, a.shape().clone()).unwrap();
    let vars: Vec<Var<'_>> = arrays.iter().map(input).collect();
    let [theta @ .., x, y] = &vars[..] else {
        unreachable!("parameters, x and y")
    };
    let record = || -> Result<Vec<Var<'_>>> {
        let (logits, buffers) = learner.logits(theta, *x, Statistics::Batch)?;
        let (again, _) = learner.logits(theta, *x, Statistics::Stored(&buffers))?;
        let losses = logits.cross_entropy(*y)?;
        let gradients = tape.grad(losses.sum_all()?, &vars[..vars.len() - 1])?;
        Ok([vec![logits, again, losses], buffers, gradients].concat())
    };
    let plan = Plan::new(&record().unwrap()).unwrap();
    let given: Vec<_> = vars.iter().copied().zip(arrays).collect();
    plan.run(&Device::cpu(Some(1)).unwrap(), &given).unwrap()
}

/// The greatest distance, as a fraction of the greatest number. The floor is for arrays that are zero up to
/// rounding, such as the gradient of a gain before a batch norm.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let greatest = |numbers: &mut dyn Iterator<Item = f64>| numbers.fold(0.0, f64::max);
    let apart = greatest(&mut a.iter().zip(b).map(|(a, b)| (a - b).abs()));
    apart / greatest(&mut b.iter().map(|b| b.abs())).max(0.1)
}

#[test]
fn learners_at_once_are_those_learners() {
    for (dtype, most) in [(DType::F64, 1e-12), (DType::F32, 1e-4)] {
        for learner in learners() {
            let starts = starts(&learner, 3, dtype);
            let together = results(&learner, &stack(&starts).unwrap());
            let alone: Vec<Vec<Array>> = starts.iter().map(|t| results(&learner, t)).collect();
            let of_images = together.len() - 1;
            let stacked = stack(&alone).unwrap();
            for (at, (found, wanted)) in together.iter().zip(&stacked).enumerate() {
                let mut wanted = wanted.to_f64_vec();
                if at == of_images {
                    // The gradient of the sum of their losses.
                    let (one, rest) = wanted.split_at_mut(found.shape().count());
                    for other in rest.chunks(one.len()) {
                        one.iter_mut().zip(other).for_each(|(a, b)| *a += b);
                    }
                    wanted.truncate(found.shape().count());
                } else {
                    assert_eq!(found.shape(), stacked[at].shape());
                }
                let apart = distance(&found.to_f64_vec(), &wanted);
                assert!(
                    apart <= most,
                    "{learner:?}, result {at}, {dtype}: {apart:e}"
                );
            }
            // Matrix products have the order of a single learner's. (A convolution for more channels may take
            // another.)
            let dense = learner.params()[0].name == "d1.v";
            if dense && learner.buffers().is_empty() {
                assert_eq!(together[0].bytes(), stacked[0].bytes(), "{learner:?}");
            }
        }
    }
}

#[test]
fn a_single_learner_with_an_axis_is_that_learner() {
    for learner in learners() {
        let theta = starts(&learner, 1, DType::F64).remove(0);
        let with_axis = |array: &Array| {
            let shape = [&[1], &array.shape()[..]].concat();
            array.clone().reshape(shape).unwrap()
        };
        let axis: Vec<Array> = theta.iter().map(with_axis).collect();
        for (a, b) in results(&learner, &axis)
            .iter()
            .zip(results(&learner, &theta))
        {
            assert!(distance(&a.to_f64_vec(), &b.to_f64_vec()) <= 1e-12);
        }
        assert_eq!(stack(std::slice::from_ref(&theta)).unwrap(), theta);
    }
}

#[test]
fn gradients_of_learners_at_once() {
    for (name, widths, norm) in [
        ("base_fc", &[2, 3, 4][..], Norm::MeanOnly),
        ("base", &[2, 3], Norm::Batch),
        ("linear", &[4, 3], Norm::Batch),
    ] {
        let family = family(name);
        let learner = family.learner([8, 8, 2], CLASSES, widths, norm).unwrap();
        let theta = joined(&stack(&starts(&learner, 2, DType::F64)).unwrap());
        let [x, y] = data(DType::F64);
        check(
            |_, a| {
                let theta = split(a[0], learner.params(), &[2])?;
                let (logits, mut outs) = learner.logits(&theta, a[1], Statistics::Batch)?;
                outs.push(logits.cross_entropy(a[2])?);
                Ok(outs)
            },
            &[theta, x, y],
        );
    }
}

#[test]
fn learners_at_once_must_be_alike() {
    let start = |units| {
        let learner = family("linear").learner([2, 2, 1], CLASSES, &[units, 2], Norm::None);
        starts(&learner.unwrap(), 1, DType::F32).remove(0)
    };
    let error = stack(&[start(3), start(4)]).unwrap_err().to_string();
    assert!(error.contains("differ in number, shape or type"), "{error}");

    // Parameters and statistics of as many learners, too.
    let learner = family("linear").learner([2, 2, 1], CLASSES, &[3, 2], Norm::MeanOnly);
    let learner = learner.unwrap();
    let tape = Tape::new();
    let input = |spec: &ParamSpec, learners: &[usize]| {
        let shape = [learners, &spec.shape[..]].concat();
        tape.input(&format!("{} {learners:?}", spec.name), DType::F32, shape)
    };
    let inputs = |specs: &[ParamSpec], learners: &[usize]| -> Vec<Var<'_>> {
        specs.iter().map(|s| input(s, learners).unwrap()).collect()
    };
    let theta = inputs(learner.params(), &[2]);
    let x = tape.input("x", DType::F32, [4, 2, 2, 1]).unwrap();
    let refused = |theta: &[Var<'_>], statistics| {
        let error = learner.logits(theta, x, statistics).unwrap_err();
        error.to_string()
    };
    let mixed = [&theta[..1], &inputs(&learner.params()[1..], &[])].concat();
    let error = refused(&mixed, Statistics::Batch);
    assert!(
        error.contains("`d1.s` has shape [3], not [2, 3]"),
        "{error}"
    );
    let means = inputs(learner.buffers(), &[3]);
    let error = refused(&theta, Statistics::Stored(&means));
    assert!(error.contains("`d1.mean` has shape [3, 3]"), "{error}");
    let nobody = inputs(learner.params(), &[0]);
    let error = refused(&nobody, Statistics::Batch);
    assert!(error.contains("0 learners at once"), "{error}");
}
