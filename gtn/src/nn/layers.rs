//! Layers: functions that record. Images are \[n, h, w, c\], convolution weights \[out, kh, kw, in\],
//! dense weights \[out, in\].
//!
//! Layers of K learners at once have a first axis of K more: on weights, on what there is per channel, and on
//! activations.

use autograd::{ConvOptions, Moments, Result, Var};

/// Slope of the leaky rectifier below zero, in generator and learners.
pub const LEAK: f64 = 0.1;

/// What batch norm adds to the variance.
pub const BATCH_NORM_EPS: f64 = 1e-5;

/// The factor per output unit with which weight norm scales the rows of `v`: s / ‖v‖, of the shape of `s`; 0 for a
/// row of zeros. The weight is W = s·v/‖v‖ (Salimans and Kingma 2016).
pub fn weight_scale<'t>(v: Var<'t>, s: Var<'t>) -> Result<Var<'t>> {
    let [unit, rest] = inverse_norms(v, s)?;
    s * (unit * rest)?.reshape(s.shape())?
}

/// The weight W itself, written out: for kernels of convolutions, which are small.
pub fn kernel<'t>(v: Var<'t>, s: Var<'t>) -> Result<Var<'t>> {
    let [unit, rest] = inverse_norms(v, s)?;
    (v * unit)? * (s.reshape(rest.shape())? * rest)?
}

/// 1/‖v‖ of every row, as two factors.
fn inverse_norms<'t>(v: Var<'t>, s: Var<'t>) -> Result<[Var<'t>; 2]> {
    let inputs: Vec<usize> = (s.shape().len()..v.shape().len()).collect();
    v.inverse_norm_keep(&inputs)
}

/// A dense layer without its bias: x·Wᵀ for x \[n, in\] and W = `scale`·v, one factor per output unit.
///
/// The factors go where there is less to multiply: onto the result of a small batch, else onto v.
pub fn dense<'t>(x: Var<'t>, v: Var<'t>, scale: Var<'t>) -> Result<Var<'t>> {
    match x.shape()[..] {
        [.., n, inputs] if n > inputs => {
            let per_row = scale.reshape([&scale.shape()[..], &[1]].concat())?;
            x.matmul_with((v * per_row)?, false, true)
        }
        _ => x.matmul_with(v, false, true)? * per_channel(scale, x)?,
    }
}

/// Numbers per channel, \[c\] or \[K, c\], in a shape that broadcasts over the activations `x`.
pub fn per_channel<'t>(p: Var<'t>, x: Var<'t>) -> Result<Var<'t>> {
    let &[learners, channels] = &*p.shape() else {
        return Ok(p);
    };
    let mut shape = vec![1; x.shape().len()];
    (shape[0], shape[x.shape().len() - 1]) = (learners, channels);
    p.reshape(shape)
}

/// The mean of every channel (last axis) over the axes from `first` on: of shape \[c\] if that is 0, and
/// \[K, c\] if it is 1.
pub fn mean(x: Var<'_>, first: usize) -> Result<Var<'_>> {
    let shape = x.shape();
    let channels = shape.len() - 1;
    let others: Vec<usize> = (first..channels).collect();
    x.mean_keep(&others)?
        .reshape([&shape[..first], &shape[channels..]].concat())
}

/// Mean and variance of every channel (last axis) over the axes from `first` on.
pub fn moments(x: Var<'_>, first: usize) -> Result<Moments<'_>> {
    x.moments(&(first..x.shape().len() - 1).collect::<Vec<_>>())
}

/// Batch norm (Ioffe and Szegedy 2015): normalises every channel by these moments, then applies the affine
/// map `gamma`·x + `beta`.
pub fn batch_norm<'t>(moments: &Moments<'t>, [gamma, beta]: [Var<'t>; 2]) -> Result<Var<'t>> {
    let x = moments.centered;
    normalized(moments, [per_channel(gamma, x)?, per_channel(beta, x)?])
}

/// The normalised array, scaled and shifted. Scale and 1/deviation are multiplied first, because both are
/// smaller than the array.
fn normalized<'t>(moments: &Moments<'t>, [scale, shift]: [Var<'t>; 2]) -> Result<Var<'t>> {
    let scale = (scale * moments.inverse_deviation(BATCH_NORM_EPS)?)?;
    (moments.centered * scale)? + shift
}

/// Mean-only batch norm: every channel shifted by its mean, then a learned bias (Salimans and Kingma 2016).
pub fn mean_only_batch_norm<'t>(x: Var<'t>, mean: Var<'t>, bias: Var<'t>) -> Result<Var<'t>> {
    x + per_channel((bias - mean)?, x)?
}

/// Normalisation of every example by itself: channels in groups of one size, each by mean and variance over the image,
/// then the affine map of every channel. The axis `first` is that of examples (Wu and He 2018).
pub fn group_norm<'t>(
    x: Var<'t>,
    groups: usize,
    affine: [Var<'t>; 2],
    first: usize,
) -> Result<Var<'t>> {
    let shape = x.shape();
    let last = shape.len() - 1;
    let channels = shape[last];
    if groups == channels {
        return batch_norm(&moments(x, first + 1)?, affine);
    }
    let split = |x: Var<'t>| {
        let shape = x.shape();
        let (channels, outer) = shape.split_last().expect("channels");
        x.reshape([outer, &[groups, channels / groups]].concat())
    };
    let own: Vec<usize> = (first + 1..last).chain([last + 1]).collect();
    let moments = split(x)?.moments(&own)?;
    let [gamma, beta] = affine;
    let affine = [
        split(per_channel(gamma, x)?)?,
        split(per_channel(beta, x)?)?,
    ];
    normalized(&moments, affine)?.reshape(shape)
}

/// What lies outside an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Border {
    /// Zeros.
    Zero,
    /// The image mirrored, without its edge.
    Reflect,
}

/// The kernel \[in, 4, 4, out\] with which [`upsample_conv`] does what a 3×3 kernel \[out, 3, 3, in\] would do
/// on the upsampled image.
pub fn upsampling_kernel(kernel: Var<'_>) -> Result<Var<'_>> {
    spread_taps(spread_taps(kernel, 1)?, 2)?.permute(&[3, 1, 2, 0])
}

/// Pixel i of the image is pixels 2i and 2i + 1 of the upsampled one. Of the four pixels of the result
/// from 2i − 1 to 2i + 2, it is seen by the first through the last tap of the kernel, by the second
/// through the last two, by the third through the first two, and by the fourth through the first.
fn spread_taps(kernel: Var<'_>, axis: usize) -> Result<Var<'_>> {
    let tap = |i: usize| {
        let (mut start, mut extent) = ([0; 4], kernel.shape().to_vec());
        (start[axis], extent[axis]) = (i, 1);
        kernel.slice(&start, &extent)
    };
    let [first, middle, last] = [tap(0)?, tap(1)?, tap(2)?];
    let taps = [last, (middle + last)?, (first + middle)?, first];
    kernel.tape().concat(&taps, axis)
}

/// Nearest-neighbour upsampling by 2, a border of 1, and a 3×3 convolution, in one: images \[n, h, w, in\]
/// to \[n, 2h, 2w, out\], with an [`upsampling_kernel`].
///
/// Upsampling repeats every pixel 2×2 times, and the convolution spreads each over 3×3. Both together
/// spread a pixel over 4×4 with step 2, which is a transposed convolution: 4/9 of the arithmetic, and no
/// upsampled image.
pub fn upsample_conv<'t>(x: Var<'t>, kernel: Var<'t>, border: Border) -> Result<Var<'t>> {
    let (x, crop) = match border {
        Border::Zero => (x, 1),
        // To mirror the upsampled image, without its edge, is to repeat the edge of the image.
        Border::Reflect => (x.edge_pad(1, 1)?.edge_pad(2, 1)?, 3),
    };
    let (stride, pad) = ([2; 2], [crop; 4]);
    x.conv2d_transposed(kernel, ConvOptions { stride, pad })
}

/// How many rows of the logits \[n, classes\] have their max at the label (i32 \[n\]), and how many have a NaN, which
/// never count as right; two scalars of the logits' type.
pub fn count_correct<'t>(logits: Var<'t>, labels: Var<'t>) -> Result<[Var<'t>; 2]> {
    let dtype = logits.dtype();
    let said = logits.argmax(1)?.cast(dtype);
    let max = logits.max_last()?.reshape(labels.shape())?;
    let whole = max.equal(max)?;
    let correct = (said.equal(labels.cast(dtype))? * whole)?;
    let broken = ((whole * -1.0)? + 1.0)?;
    Ok([correct.sum_all()?, broken.sum_all()?])
}
