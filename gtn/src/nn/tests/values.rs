//! Layers against their definitions, computed in other ways, in f64.

use super::family;
use crate::nn::layers::*;
use crate::nn::{Generator, GeneratorConfig, Network, Norm, Statistics, init};
use autograd::{ConvOptions, Plan, Result, Tape, Var};
use kernels::Device;
use rand::{SeedableRng, rngs::StdRng};
use rand_distr::{Distribution, StandardNormal};
use tensor::{Array, DType};

pub(super) fn noise(shape: &[usize], seed: u64) -> Array {
    let rng = StdRng::seed_from_u64(seed);
    let count = shape.iter().product();
    let numbers: Vec<f64> = StandardNormal.sample_iter(rng).take(count).collect();
    Array::new(shape, numbers).unwrap()
}

/// Records a function of named arrays, and computes it.
pub(super) fn compute(
    arrays: &[(&str, &Array)],
    record: impl for<'t> FnOnce(&[Var<'t>]) -> Result<Vec<Var<'t>>>,
) -> Vec<Vec<f64>> {
    let tape = Tape::new();
    let input = |(name, a): &(&str, &Array)| tape.input(name, a.dtype(), a.shape().clone());
    let vars: Vec<_> = arrays.iter().map(|a| input(a).unwrap()).collect();
    let device = Device::cpu(Some(1)).unwrap();
    let plan = Plan::new(&record(&vars).unwrap()).unwrap();
    let given = vars
        .iter()
        .zip(arrays)
        .map(|(var, (_, array))| (*var, *array));
    let results = plan.run(&device, &given.collect::<Vec<_>>()).unwrap();
    results.iter().map(Array::to_f64_vec).collect()
}

pub(super) fn assert_close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    let worst = worst.fold(0.0, f64::max);
    assert!(worst < 1e-11, "differs by {worst:e}");
}

fn plain_upsample_conv<'t>(x: Var<'t>, kernel: Var<'t>, border: Border) -> Result<Var<'t>> {
    let up = x.upsample(2)?;
    match border {
        Border::Zero => up.conv2d(kernel, ConvOptions::padded(1)),
        Border::Reflect => up
            .reflect_pad(1, 1)?
            .reflect_pad(2, 1)?
            .conv2d(kernel, ConvOptions::padded(0)),
    }
}

#[test]
fn upsampling_into_a_convolution_is_upsampling_then_convolution() {
    for border in [Border::Zero, Border::Reflect] {
        for [h, w] in [[3, 4], [1, 2]] {
            let (x, kernel) = (noise(&[2, h, w, 3], 1), noise(&[5, 3, 3, 3], 2));
            let results = compute(&[("x", &x), ("w", &kernel)], |v| {
                let fast = upsample_conv(v[0], upsampling_kernel(v[1])?, border)?;
                let plain = plain_upsample_conv(v[0], v[1], border)?;
                let [f, p] = [fast, plain].map(|y| v[0].tape().grad(y.powi(3)?.sum_all()?, v));
                Ok([vec![fast, plain], f?, p?].concat())
            });
            assert_close(&results[0], &results[1]);
            assert_close(&results[2], &results[4]);
            assert_close(&results[3], &results[5]);
        }
    }
}

#[test]
fn weight_norm_starts_as_no_norm_and_scales_by_the_gain() {
    let network: Network = "conv 3 no_bias".parse().unwrap();
    let learner = network.unchecked([5, 5, 2], 3).unwrap();
    let start = init(learner.params(), DType::F64, &mut StdRng::seed_from_u64(0)).unwrap();
    let kernels = compute(&[("v", &start[0]), ("s", &start[1])], |v| {
        Ok(vec![
            v[0],
            kernel(v[0], v[1])?,
            kernel((v[0] * 3.0)?, v[1])?,
        ])
    });
    assert_close(&kernels[0], &kernels[1]);
    assert_close(&kernels[0], &kernels[2]);

    // A batch of 2 scales the result, one of 9 the weights.
    for n in [2, 9] {
        let (x, v, s) = (noise(&[n, 4], 1), noise(&[3, 4], 2), noise(&[3], 3));
        let got = compute(&[("x", &x), ("v", &v), ("s", &s)], |a| {
            Ok(vec![dense(a[0], a[1], weight_scale(a[1], a[2])?)?])
        });
        let (x, v, s) = (x.to_f64_vec(), v.to_f64_vec(), s.to_f64_vec());
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let unit = |x: &[f64], o: usize| {
            let v = &v[4 * o..][..4];
            s[o] * dot(x, v) / dot(v, v).sqrt()
        };
        let rows = x.chunks(4);
        let wanted: Vec<f64> = rows.flat_map(|x| [0, 1, 2].map(|o| unit(x, o))).collect();
        assert_close(&got[0], &wanted);
    }
}

/// Mean and variance of every channel.
fn naive_moments(x: &[f64], channels: usize) -> Vec<[f64; 2]> {
    let channel = |c: usize| {
        let own: Vec<f64> = x.iter().skip(c).step_by(channels).copied().collect();
        let mean = own.iter().sum::<f64>() / own.len() as f64;
        let squares = own.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
        [mean, squares / own.len() as f64]
    };
    (0..channels).map(channel).collect()
}

#[test]
fn norms_give_the_statistics_that_they_promise() {
    for shape in [&[6, 4][..], &[3, 2, 5, 4]] {
        let (x, gamma, beta) = (noise(shape, 1), noise(&[4], 2), noise(&[4], 3));
        let arrays = [("x", &x), ("gamma", &gamma), ("beta", &beta)];
        let results = compute(&arrays, |a| {
            let moments = moments(a[0], 0)?;
            let full = batch_norm(&moments, [a[1], a[2]])?;
            let only = mean_only_batch_norm(a[0], mean(a[0], 0)?, a[2])?;
            Ok(vec![full, only, moments.mean, moments.variance])
        });
        let before = naive_moments(&x.to_f64_vec(), 4);
        let (full, only) = (naive_moments(&results[0], 4), naive_moments(&results[1], 4));
        let (gamma, beta) = (gamma.to_f64_vec(), beta.to_f64_vec());
        for c in 0..4 {
            let [center, spread] = before[c];
            assert_close(&[results[2][c], results[3][c]], &[center, spread]);
            let scaled = gamma[c].powi(2) * spread / (spread + 1e-5);
            assert_close(&full[c], &[beta[c], scaled]);
            assert_close(&only[c], &[beta[c], spread]);
        }
    }
}

#[test]
fn cross_entropy_is_safe_and_counts_are_right() {
    let logits = Array::new([2, 3], vec![1e4, 1e4 + 1.0, -1e4, 0.5, 0.0, -0.5]).unwrap();
    let soft = Array::new([2, 3], vec![0.25, 0.75, 0.0, 0.2, 0.0, 0.8]).unwrap();
    let labels = Array::new([2], vec![1, 2]).unwrap();
    let results = compute(&[("z", &logits), ("y", &soft), ("l", &labels)], |a| {
        let hard = a[2].one_hot(3, DType::F64)?;
        let loss = a[0].cross_entropy(a[1])?;
        let slope = a[0].tape().grad(loss, &a[..1])?[0];
        let [correct, broken] = count_correct(a[0], a[2])?;
        let soft_and_hard = [loss, a[0].cross_entropy(hard)?];
        Ok([&soft_and_hard[..], &[slope, correct, broken]].concat())
    });
    let first = 1.0 + (-1.0_f64).exp().ln_1p();
    let exps: [f64; 3] = [0.5, 0.0, -0.5].map(f64::exp);
    let sum: f64 = exps.iter().sum();
    let (soft_loss, hard_loss) = (
        0.25 * first + 0.75 * (first - 1.0) + 0.2 * (sum.ln() - 0.5) + 0.8 * (sum.ln() + 0.5),
        first - 1.0 + sum.ln() + 0.5,
    );
    assert_close(&results[0], &[soft_loss / 2.0]);
    assert_close(&results[1], &[hard_loss / 2.0]);
    let sigmoid = 1.0 / (1.0 + (-1.0_f64).exp());
    let slope = [
        1.0 - sigmoid - 0.25,
        sigmoid - 0.75,
        0.0,
        exps[0] / sum - 0.2,
        exps[1] / sum,
        exps[2] / sum - 0.8,
    ];
    assert_close(&results[2], &slope.map(|s| s / 2.0));
    assert_eq!((&results[3], &results[4]), (&vec![1.0], &vec![0.0]));
}

#[test]
fn rows_with_nan_are_broken_and_never_right() {
    let logits = vec![f64::NAN, 1.0, 2.0, 3.0, 1.0, 0.0, 1.0, f64::NAN, 0.0];
    let logits = Array::new([3, 3], logits).unwrap();
    let labels = Array::new([3], vec![0, 0, 1]).unwrap();
    let results = compute(&[("z", &logits), ("l", &labels)], |a| {
        Ok(count_correct(a[0], a[1])?.into())
    });
    assert_eq!(results, [[1.0], [2.0]]);
}

/// The published generator written out plainly, apart from the layers' own functions.
fn plain_images<'t>(p: &[Var<'t>], z: Var<'t>, y: Var<'t>) -> Result<Var<'t>> {
    let weight = |v: Var<'t>, s: Var<'t>| v * weight_scale(v, s)?.reshape([v.shape()[0], 1])?;
    let norm = |x: Var<'t>, affine: &[Var<'t>]| {
        batch_norm(&moments(x, 0)?, [affine[0], affine[1]])?.leaky_relu(0.1)
    };
    let x = z.tape().concat(&[z, y], 1)?;
    let x = norm(x.matmul_with(weight(p[0], p[1])?, false, true)?, &p[2..4])?;
    let x = norm(x.matmul_with(weight(p[4], p[5])?, false, true)?, &p[6..8])?;
    let x = x.reshape([z.shape()[0], 2, 3, 4])?;
    let x = plain_upsample_conv(x, kernel(p[8], p[9])?, Border::Reflect)?;
    let x = norm(x, &p[10..12])?;
    let x = plain_upsample_conv(x, kernel(p[12], p[13])?, Border::Reflect)?;
    (x + p[14])?.tanh()? * 2.0
}

#[test]
fn the_published_generator_is_its_description() {
    let config = GeneratorConfig {
        noise: 5,
        classes: 3,
        hidden: 6,
        channels: [4, 3],
        image: [8, 12, 2],
        ..GeneratorConfig::default()
    };
    let generator = Generator::new(config).unwrap();
    let mut arrays = init(
        generator.params(),
        DType::F64,
        &mut StdRng::seed_from_u64(3),
    )
    .unwrap();
    arrays.extend([noise(&[7, 5], 1), noise(&[7, 3], 2)]);
    let names = generator.params().iter().map(|p| &p.name[..]);
    let named: Vec<_> = names.chain(["z", "y"]).zip(&arrays).collect();
    let results = compute(&named, |a| {
        let [phi @ .., z, y] = a else {
            unreachable!("parameters, z and y")
        };
        let images = generator.images(&generator.prepare(phi)?, *z, *y)?;
        Ok(vec![images, plain_images(phi, *z, *y)?])
    });
    assert_close(&results[0], &results[1]);
}

#[test]
fn evaluation_by_the_last_batch_repeats_its_logits() {
    for norm in [Norm::MeanOnly, Norm::Batch] {
        let learner = family("base_fc")
            .learner([8, 8, 1], 4, &[2, 3, 5], norm)
            .unwrap();
        let mut arrays = init(learner.params(), DType::F64, &mut StdRng::seed_from_u64(3)).unwrap();
        arrays.push(noise(&[6, 8, 8, 1], 1));
        let names = learner.params().iter().map(|p| &p.name[..]);
        let named: Vec<_> = names.chain(["x"]).zip(&arrays).collect();
        let results = compute(&named, |a| {
            let [theta @ .., x] = a else {
                unreachable!("parameters and x")
            };
            let (fresh, buffers) = learner.logits(theta, *x, Statistics::Batch)?;
            let (again, _) = learner.logits(theta, *x, Statistics::Stored(&buffers))?;
            let first = x.slice(&[0; 4], &[1, 8, 8, 1])?;
            let (alone, _) = learner.logits(theta, first, Statistics::Stored(&buffers))?;
            let (other, _) = learner.logits(theta, first, Statistics::Batch)?;
            Ok(vec![fresh, again, alone, other])
        });
        assert_close(&results[0], &results[1]);
        assert_close(&results[0][..4], &results[2]);
        assert!((results[0][0] - results[3][0]).abs() > 1e-3);
    }
}
