//! Layers: functions that record. Images are \[n, h, w, c\], convolution weights \[out, kh, kw, in\],
//! dense weights \[out, in\].

use autograd::{ConvOptions, Error, Result, Var};
use serde::{Deserialize, Serialize};

/// Slope of the leaky rectifier below zero, in generator and learners.
pub const LEAK: f64 = 0.1;

/// What batch norm adds to the variance.
pub const BATCH_NORM_EPS: f64 = 1e-5;

/// The factor per output unit with which weight norm scales the rows of `v`: s / ‖v‖, of shape \[out\].
/// The weight is W = s·v/‖v‖ (Salimans and Kingma 2016).
pub fn weight_scale<'t>(v: Var<'t>, s: Var<'t>) -> Result<Var<'t>> {
    let inputs: Vec<usize> = (1..v.shape().len()).collect();
    s * (v * v)?.sum(&inputs)?.rsqrt()?
}

/// The weight-normed kernel of a convolution, written out: it is small.
pub fn kernel<'t>(v: Var<'t>, s: Var<'t>) -> Result<Var<'t>> {
    v * weight_scale(v, s)?.reshape([v.shape()[0], 1, 1, 1])?
}

/// A dense layer without its bias: x·Wᵀ for x \[n, in\] and W = `scale`·v, one factor per output unit.
///
/// The factors go where there is less to multiply: onto the result of a small batch, else onto v.
pub fn dense<'t>(x: Var<'t>, v: Var<'t>, scale: Var<'t>) -> Result<Var<'t>> {
    match (&*x.shape(), &*v.shape()) {
        (&[n, inputs], &[out, _]) if n > inputs => {
            x.matmul_with((v * scale.reshape([out, 1])?)?, false, true)
        }
        _ => x.matmul_with(v, false, true)? * scale,
    }
}

/// Everything but the first axis as one: \[n, features\].
pub fn flatten(x: Var<'_>) -> Result<Var<'_>> {
    let shape = x.shape();
    x.reshape([shape[0], shape[1..].iter().product()])
}

/// The mean of every channel (last axis) over all else, of shape \[c\].
pub fn mean(x: Var<'_>) -> Result<Var<'_>> {
    let shape = x.shape();
    let channels = shape.len() - 1;
    let others: Vec<usize> = (0..channels).collect();
    x.mean_keep(&others)?.reshape([shape[channels]])
}

/// Mean and variance of every channel over all else, of shape \[c\] each. The variance is divided by the
/// count, not the count − 1.
pub fn moments(x: Var<'_>) -> Result<[Var<'_>; 2]> {
    let center = mean(x)?;
    Ok([center, mean((x - center)?.powi(2)?)?])
}

/// Batch norm (Ioffe and Szegedy 2015): the affine map `gamma`·x + `beta` of x shifted and scaled per
/// channel by the given mean and variance.
pub fn batch_norm<'t>(
    x: Var<'t>,
    [mean, variance]: [Var<'t>; 2],
    [gamma, beta]: [Var<'t>; 2],
) -> Result<Var<'t>> {
    let scale = (gamma * (variance + BATCH_NORM_EPS)?.rsqrt()?)?;
    ((x - mean)? * scale)? + beta
}

/// Mean-only batch norm: every channel shifted by its mean, then a learned bias (Salimans and Kingma 2016).
pub fn mean_only_batch_norm<'t>(x: Var<'t>, mean: Var<'t>, bias: Var<'t>) -> Result<Var<'t>> {
    (x - mean)? + bias
}

/// What lies outside an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Border {
    /// Zeros.
    Zero,
    /// The image mirrored, without its edge.
    Reflect,
}

/// Taps of a 3×3 kernel \[out, 3, 3, in\] that fall on the same pixel of the image before upsampling,
/// summed: a kernel \[out, 2, 2, in\] for each parity (row, column) of the upsampled pixel, in the order
/// (0, 0), (0, 1), (1, 0), (1, 1).
pub fn phase_kernels(kernel: Var<'_>) -> Result<[Var<'_>; 4]> {
    let [even, odd] = merge_taps(kernel, 1)?;
    let ([a, b], [c, d]) = (merge_taps(even, 2)?, merge_taps(odd, 2)?);
    Ok([a, b, c, d])
}

/// Rows i−1, i, i+1 around upsampled row i lie on rows (i/2 − 1, i/2, i/2) of the image for even i, on
/// (i/2, i/2, i/2 + 1) for odd i.
fn merge_taps(kernel: Var<'_>, axis: usize) -> Result<[Var<'_>; 2]> {
    let tap = |i: usize| {
        let (mut start, mut extent) = ([0; 4], kernel.shape().to_vec());
        (start[axis], extent[axis]) = (i, 1);
        kernel.slice(&start, &extent)
    };
    let [first, middle, last] = [tap(0)?, tap(1)?, tap(2)?];
    let tape = kernel.tape();
    Ok([
        tape.concat(&[first, (middle + last)?], axis)?,
        tape.concat(&[(first + middle)?, last], axis)?,
    ])
}

/// Nearest-neighbour upsampling by 2, a border of 1, and a 3×3 convolution, in one: images \[n, h, w, in\]
/// to \[n, 2h, 2w, out\].
///
/// Every upsampled pixel of one parity sees the image through the same 2×2 kernel, so four small
/// convolutions of the small image do it, with 4/9 of the arithmetic and no upsampled copy
/// (Shi et al. 2016 on sub-pixel convolution).
pub fn upsample_conv<'t>(x: Var<'t>, phases: [Var<'t>; 4], border: Border) -> Result<Var<'t>> {
    let &[n, h, w, _] = &*x.shape() else {
        return Err(Error::Setting(format!(
            "upsample_conv: images are [n, h, w, c], not {}",
            x.shape()
        )));
    };
    let out = phases[0].shape()[0];
    let mut rows = Vec::with_capacity(2);
    for (row, pair) in [0, 1].into_iter().zip(phases.chunks(2)) {
        let mut pixels = Vec::with_capacity(2);
        for (column, kernel) in [0, 1].into_iter().zip(pair) {
            let part = parity_conv(x, *kernel, [row, column], border)?;
            pixels.push(part.reshape([n, h, w, 1, out])?);
        }
        let interleaved = x.tape().concat(&pixels, 3)?;
        rows.push(interleaved.reshape([n, h, 1, 2 * w, out])?);
    }
    x.tape().concat(&rows, 2)?.reshape([n, 2 * h, 2 * w, out])
}

/// Half-way between pixels, a 2×2 kernel reaches over one edge only: before the image for parity 0, after
/// it for parity 1. Mirroring the upsampled image, without its edge, is repeating the edge of the image.
fn parity_conv<'t>(
    x: Var<'t>,
    kernel: Var<'t>,
    [row, column]: [usize; 2],
    border: Border,
) -> Result<Var<'t>> {
    let (x, pad) = match border {
        Border::Zero => (x, [1 - row, row, 1 - column, column]),
        Border::Reflect => (repeat_edge(repeat_edge(x, 1, row)?, 2, column)?, [0; 4]),
    };
    let stride = [1, 1];
    x.conv2d(kernel, ConvOptions { stride, pad })
}

/// The first (`side` 0) or last (`side` 1) slice along an axis twice.
fn repeat_edge(x: Var<'_>, axis: usize, side: usize) -> Result<Var<'_>> {
    let extent = x.shape()[axis] as u32;
    let index: Vec<u32> = match side {
        0 => std::iter::once(0).chain(0..extent).collect(),
        _ => (0..extent).chain([extent - 1]).collect(),
    };
    x.take(axis, &index)
}

/// Cross-entropy of logits \[n, classes\] against soft labels of the same shape: −Σ y·log-softmax / n.
pub fn cross_entropy<'t>(logits: Var<'t>, labels: Var<'t>) -> Result<Var<'t>> {
    // A shift changes nothing, and keeps exp from overflowing; so its derivative is none either.
    let shifted = (logits - logits.max_last()?.stop_gradient())?;
    let log_sum = shifted.exp()?.sum_keep(&[1])?.log()?;
    let likelihood = (labels * (shifted - log_sum)?)?.sum_all()?;
    likelihood * (-1.0 / logits.shape()[0] as f64)
}

/// How many rows of the logits \[n, classes\] have their greatest at the label (i32 \[n\]); a scalar of the
/// logits' type.
pub fn count_correct<'t>(logits: Var<'t>, labels: Var<'t>) -> Result<Var<'t>> {
    let dtype = logits.dtype();
    let said = logits.argmax(1)?.cast(dtype);
    said.equal(labels.cast(dtype))?.sum_all()
}
