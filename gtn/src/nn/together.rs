//! Activations of several learners that are trained at once.
//!
//! K learners of one structure see the same images. Their first layer with weights is one product: the images
//! are not repeated, and the learners' channels come out side by side, as if one learner had K times as many.
//! What works channel by channel leaves them there. The next layer with weights moves the axis of learners to
//! the front, and from there on products are batched.

use super::layers::{dense, group_norm, mean, moments, weight_scale};
use super::network::{Norm, Pool, Window};
use super::windows::{average_pool, depthwise_conv, dilated, grouped_conv};
use autograd::{ConvOptions, Error, Moments, Result, Var};
use tensor::Array;

/// Stacks the parameters of K learners of one structure along a new first axis of K. The parameters of a
/// single learner stay as they are.
///
/// # Errors
/// If the learners' parameters differ in number, shape or type.
pub fn stack(learners: &[Vec<Array>]) -> Result<Vec<Array>> {
    let [first, others @ ..] = learners else {
        return Ok(Vec::new());
    };
    if others.is_empty() {
        return Ok(first.clone());
    }
    let kinds = |learner: &[Array]| -> Vec<_> {
        let kind = |array: &Array| (array.dtype(), array.shape().clone());
        learner.iter().map(kind).collect()
    };
    if others.iter().any(|other| kinds(other) != kinds(first)) {
        let reason = "learners at once: their parameters differ in number, shape or type";
        return Err(Error::Setting(reason.to_owned()));
    }
    let all = |(i, array): (usize, &Array)| {
        let bytes: Vec<u8> = learners
            .iter()
            .flat_map(|l| l[i].bytes())
            .copied()
            .collect();
        let shape = [&[learners.len()], &array.shape()[..]].concat();
        Array::from_bytes(array.dtype(), shape, &bytes).expect("as many from every learner")
    };
    Ok(first.iter().enumerate().map(all).collect())
}

/// Where activations have the axis of learners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    /// Nowhere, \[n, …, c\]: they are those of a single learner, or the images that all see.
    None,
    /// Beside the channels: \[n, …, K·c\].
    Channels,
    /// Before all else: \[K, n, …, c\].
    First,
}

/// The input or output of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Activations<'t> {
    pub(super) x: Var<'t>,
    axis: Axis,
    /// K, if parameters have an axis for it.
    learners: Option<usize>,
}

impl<'t> Activations<'t> {
    /// The images that all learners see.
    pub(super) fn new(images: Var<'t>, learners: Option<usize>) -> Self {
        Self {
            x: images,
            axis: Axis::None,
            learners,
        }
    }

    /// The output of a function that leaves the axes as they are.
    pub(super) fn with(self, x: Var<'t>) -> Self {
        Self { x, ..self }
    }

    /// A parameter in the shape that fits the activations. If K learners are not on an axis of their own
    /// there, their parameters stand side by side.
    pub(super) fn fit(self, p: Var<'t>) -> Result<Var<'t>> {
        let shape = p.shape();
        match (self.learners, self.axis) {
            (Some(learners), Axis::None | Axis::Channels) => {
                p.reshape([&[learners * shape[1]], &shape[2..]].concat())
            }
            _ => Ok(p),
        }
    }

    /// Undoes [`Self::fit`] for numbers per channel.
    fn unfit(self, statistic: Var<'t>) -> Result<Var<'t>> {
        let channels = statistic.shape().count();
        match self.learners {
            Some(learners) => statistic.reshape([learners, channels / learners]),
            None => statistic.reshape([channels]),
        }
    }

    /// Convolution with a kernel \[out, kh, kw, in / groups\], or with one for each learner.
    pub(super) fn conv(self, kernel: Var<'t>, window: &Window, groups: usize) -> Result<Self> {
        let kernel = dilated(kernel, window.dilation)?;
        let (stride, pad) = (window.stride, window.pad);
        let options = ConvOptions { stride, pad };
        if groups > 1 {
            let before = self.own()?.apart()?;
            return Ok(before.with(grouped_conv(before.x, kernel, groups, options)?));
        }
        let before = self.apart()?;
        let kernel = before.fit(kernel)?;
        Ok(before.weighted(before.x.conv2d(kernel, options)?))
    }

    /// Convolution of every channel with a window of its own, \[c, kh, kw, 1\], or with one for each learner.
    pub(super) fn depthwise(self, kernel: Var<'t>, window: &Window) -> Result<Self> {
        let before = self.own()?;
        let kernel = before.fit(kernel)?;
        Ok(before.with(depthwise_conv(before.x, kernel, window)?))
    }

    /// Dense layer on all of an example, with weight norm's direction \[out, in\] and gain \[out\], or with
    /// those of each learner.
    pub(super) fn normed_dense(self, v: Var<'t>, s: Var<'t>) -> Result<Self> {
        let before = self.flat()?;
        let [v, scale] = [v, weight_scale(v, s)?].map(|p| before.fit(p));
        Ok(before.weighted(dense(before.x, v?, scale?)?))
    }

    /// The same with weights \[out, in\] as they are.
    pub(super) fn dense(self, weight: Var<'t>) -> Result<Self> {
        let before = self.flat()?;
        let weight = before.fit(weight)?;
        Ok(before.weighted(before.x.matmul_with(weight, false, true)?))
    }

    fn weighted(self, x: Var<'t>) -> Self {
        let axis = match (self.axis, self.learners) {
            (Axis::None, Some(_)) => Axis::Channels,
            (axis, _) => axis,
        };
        Self { x, axis, ..self }
    }

    /// Gives images that all learners see an axis of learners, before the parameters of each apply to them.
    pub(super) fn own(self) -> Result<Self> {
        let (Axis::None, Some(learners)) = (self.axis, self.learners) else {
            return Ok(self);
        };
        let shape = self.x.shape();
        let x = self.x.reshape([&[1], &shape[..]].concat())?;
        Ok(Self {
            x: x.expand([&[learners], &shape[..]].concat())?,
            axis: Axis::First,
            ..self
        })
    }

    /// With the axis of learners in front, if there is one.
    pub(super) fn apart(self) -> Result<Self> {
        let (shape, Axis::Channels, Some(learners)) = (self.x.shape(), self.axis, self.learners)
        else {
            return Ok(self);
        };
        let (last, others) = shape.split_last().expect("there are channels");
        let split = [others, &[learners, last / learners]].concat();
        let mut axes: Vec<usize> = (0..split.len()).collect();
        axes[..=others.len()].rotate_right(1);
        Ok(Self {
            x: self.x.reshape(split)?.permute(&axes)?,
            axis: Axis::First,
            ..self
        })
    }

    /// Everything of an example as one axis.
    pub(super) fn flat(self) -> Result<Self> {
        let apart = self.apart()?;
        let shape = apart.x.shape();
        let (examples, rest) = shape.split_at(apart.first() + 1);
        let flat = [examples, &[rest.iter().product()]].concat();
        Ok(apart.with(apart.x.reshape(flat)?))
    }

    /// The number of the axis of examples.
    pub(super) fn first(self) -> usize {
        usize::from(self.axis == Axis::First)
    }

    /// The mean of every channel, for buffers: \[c\], or \[K, c\].
    pub(super) fn mean(self) -> Result<Var<'t>> {
        self.unfit(mean(self.x, self.first())?)
    }

    /// Mean and variance of every channel; and the same for buffers.
    pub(super) fn moments(self) -> Result<(Moments<'t>, [Var<'t>; 2])> {
        let moments = moments(self.x, self.first())?;
        let buffers = [self.unfit(moments.mean)?, self.unfit(moments.variance)?];
        Ok((moments, buffers))
    }

    /// The greatest or the mean of every window.
    pub(super) fn pool(self, kind: Pool, window: &Window) -> Result<Self> {
        let pool = |x: Var<'t>| match kind {
            Pool::Max => x.max_pool(window.size, window.stride, window.pad),
            Pool::Average => average_pool(x, window),
        };
        let shape = self.x.shape();
        if self.axis != Axis::First {
            return Ok(self.with(pool(self.x)?));
        }
        // Windows stay within an image, so the images of all learners can be treated as one batch.
        let pooled = pool(
            self.x
                .reshape([&[shape[0] * shape[1]], &shape[2..]].concat())?,
        )?;
        let pooled = pooled.reshape([&shape[..2], &pooled.shape()[1..]].concat())?;
        Ok(self.with(pooled))
    }

    /// Normalisation of every example by itself, then the affine map of every channel.
    pub(super) fn group_norm(self, norm: Norm, affine: [Var<'t>; 2]) -> Result<Self> {
        let channels = self.x.shape().last().copied().unwrap_or(1);
        // Learners side by side are groups side by side.
        let beside = match (self.axis, self.learners) {
            (Axis::Channels, Some(learners)) => learners,
            _ => 1,
        };
        let groups = norm.groups(channels / beside).unwrap_or(1) * beside;
        Ok(self.with(group_norm(self.x, groups, affine, self.first())?))
    }

    /// The mean of every channel over the image.
    pub(super) fn global_mean(self) -> Result<Self> {
        let rows = self.first() + 1;
        Ok(self.with(self.x.mean_keep(&[rows, rows + 1])?))
    }

    /// The sum of branches.
    pub(super) fn sum(branches: &[Self]) -> Result<Self> {
        let channels = branches.iter().all(|b| b.axis == Axis::Channels);
        let branches = aligned(branches, channels)?;
        let xs: Vec<_> = branches.iter().map(|branch| branch.x).collect();
        Ok(branches[0].with(xs[0].tape().sum_of(&xs)?))
    }

    /// Branches side by side, channel after channel.
    pub(super) fn concat(branches: &[Self]) -> Result<Self> {
        let branches = aligned(branches, false)?;
        let xs: Vec<_> = branches.iter().map(|branch| branch.x).collect();
        let last = xs[0].shape().len() - 1;
        Ok(branches[0].with(xs[0].tape().concat(&xs, last)?))
    }
}

/// Brings branches into one form: the axis of learners in one place, and all as vectors if one is a vector.
/// With `channels`, all have it beside the channels already, where it may stay.
fn aligned<'t>(branches: &[Activations<'t>], channels: bool) -> Result<Vec<Activations<'t>>> {
    let rank = |b: &Activations<'_>| b.x.shape().len() - b.first();
    let same_rank = branches
        .windows(2)
        .all(|pair| rank(&pair[0]) == rank(&pair[1]));
    let one = |branch: &Activations<'t>| {
        let shared = branches.iter().all(|b| b.axis == Axis::None);
        let branch = if channels || shared {
            *branch
        } else {
            branch.own()?.apart()?
        };
        if same_rank { Ok(branch) } else { branch.flat() }
    };
    branches.iter().map(one).collect()
}
