//! Learners: networks that are trained on what the generator makes.

use super::layers::{batch_norm, kernel, mean_only_batch_norm, per_channel};
use super::network::{Activation, Layer, Network, Norm};
use super::role::{RateGroup, rate_groups};
use super::together::Activations;
use super::{Feed, ParamSpec};
use autograd::{Distribution, Error, Moments, Result, Var};

/// Where normalisations take means and variances from, and whether anything is dropped.
#[derive(Clone, Copy, Debug)]
pub enum Statistics<'a, 't> {
    /// From the batch at hand; nothing is dropped.
    Batch,
    /// From the batch at hand, as in training: what is dropped depends on a key, u32 \[4\] (see
    /// [`Tape::random`](autograd::Tape::random)), and on nothing else.
    Training(Var<'t>),
    /// From the buffers that the last training batch left, as in evaluation.
    Stored(&'a [Var<'t>]),
}

/// A learner: a [`Network`] for images of one shape, with its parameters and buffers.
///
/// ```
/// use autograd::Tape;
/// use gtn::nn::{Network, Statistics};
/// use tensor::DType::F32;
/// let network: Network = "conv 64 | batch | relu | max 2 | dense".parse().unwrap();
/// let learner = network.learner([28, 28, 1], 10)?;
/// let tape = Tape::new();
/// let theta: Vec<_> = learner
///     .params()
///     .iter()
///     .map(|p| tape.input(&p.name, F32, p.shape.clone()))
///     .collect::<Result<_, _>>()?;
/// let x = tape.input("x", F32, [128, 28, 28, 1])?;
/// let (logits, statistics) = learner.logits(&theta, x, Statistics::Batch)?;
/// assert_eq!(logits.shape()[..], [128, 10]);
/// assert_eq!(statistics.len(), learner.buffers().len());
/// # Ok::<(), autograd::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Learner {
    network: Network,
    params: Vec<ParamSpec>,
    buffers: Vec<ParamSpec>,
    layers: Vec<Described>,
    drops: bool,
}

/// A layer of a learner, as a table shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// Numbers from 1: of the layer, and within `add` and `concat` of the branch and of the layer there, as 3.1.2. In a graph
    /// the name of the node stands for the branch, as in 3.n1.2, and `result` for the last.
    pub number: String,
    /// The layer as text; of branches the word alone.
    pub layer: String,
    /// The shape of one example after the layer.
    pub shape: Vec<usize>,
    /// Its parameters.
    pub parameters: usize,
    /// Multiply-adds of its convolution or product, for one example.
    pub multiply_adds: usize,
}

impl Learner {
    pub(super) fn new(
        network: Network,
        [params, buffers]: [Vec<ParamSpec>; 2],
        layers: Vec<Described>,
        drops: bool,
    ) -> Self {
        Self {
            network,
            params,
            buffers,
            layers,
            drops,
        }
    }

    /// Its layers, with all numbers.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Its layers in the order in which they are computed, with shapes and counts.
    pub fn layers(&self) -> &[Described] {
        &self.layers
    }

    /// The number of its parameters.
    pub fn parameter_count(&self) -> usize {
        self.params.iter().map(|param| param.shape.count()).sum()
    }

    /// Multiply-adds of its convolutions and products for one example, forward; `usize::MAX` if they are more.
    pub fn multiply_adds(&self) -> usize {
        let adds = self.layers.iter().map(|layer| layer.multiply_adds);
        adds.fold(0, usize::saturating_add)
    }

    /// Whether the logits of an image depend on the other images of its batch.
    pub fn norms_over_batches(&self) -> bool {
        !self.buffers.is_empty()
    }

    /// Whether it drops numbers at random in training, which takes a key: [`Statistics::Training`].
    pub fn drops(&self) -> bool {
        self.drops
    }

    /// Its parameters θ, in the order that [`logits`](Self::logits) takes them.
    pub fn params(&self) -> &[ParamSpec] {
        &self.params
    }

    /// What the learning rate of each of its parameters depends on.
    pub fn rate_groups(&self) -> Vec<RateGroup> {
        rate_groups(&self.params)
    }

    /// The means and variances of its normalisations over batches, which evaluation takes from the last training
    /// batch. They are part of the state that an inner step changes, though not of its optimiser's.
    pub fn buffers(&self) -> &[ParamSpec] {
        &self.buffers
    }

    /// Logits \[n, classes\] of images \[n, h, w, c\], and the means and variances that were used: the new
    /// buffers. (The momentum of the running statistics is 0: nothing is left of earlier batches.)
    ///
    /// Parameters with a first axis of K are those of K learners, which see the same images: logits
    /// \[K, n, classes\], and buffers with that axis.
    pub fn logits<'t>(
        &self,
        params: &[Var<'t>],
        images: Var<'t>,
        statistics: Statistics<'_, 't>,
    ) -> Result<(Var<'t>, Vec<Var<'t>>)> {
        let (last, pass) = self.pass(params, images, statistics)?;
        Ok((last.flat()?.x, pass.buffers))
    }

    /// As [`Learner::logits`], for one learner. The second result is the output of a layer, which is given by
    /// its place among [`Learner::layers`].
    ///
    /// # Panics
    /// If it has no such layer.
    pub fn logits_and_layer<'t>(
        &self,
        params: &[Var<'t>],
        images: Var<'t>,
        statistics: Statistics<'_, 't>,
        layer: usize,
    ) -> Result<(Var<'t>, Var<'t>, Vec<Var<'t>>)> {
        let (last, pass) = self.pass(params, images, statistics)?;
        Ok((last.flat()?.x, pass.results[layer], pass.buffers))
    }

    /// The place among [`Learner::layers`] of the last layer that makes images of that size smaller. In the
    /// usual network of three stages, a third of the layers come after it. Outer layers go before layers in
    /// branches and graphs. `None` if no layer makes them smaller.
    pub fn last_reduction(&self, [h, w, _]: [usize; 3]) -> Option<usize> {
        let area = |layer: &Described| match layer.shape[..] {
            [h, w, _] => Some(h * w),
            _ => None,
        };
        let at_depth = |depth: usize| {
            let layers = self.layers.iter().enumerate();
            let layers = layers.filter(|(_, layer)| layer.number.matches('.').count() == depth);
            let areas = layers.filter_map(|(i, layer)| Some((i, area(layer)?)));
            // What is before the first layer of a branch is not known here.
            let before = (depth == 0).then_some((0, h * w));
            let areas: Vec<_> = before.into_iter().chain(areas).collect();
            let shrinks = |pair: &&[(usize, usize)]| pair[1].1 < pair[0].1;
            areas.windows(2).rfind(shrinks).map(|pair| pair[1].0)
        };
        (0..3).find_map(at_depth)
    }

    /// What goes into every activation layer for a batch of images, with the statistics of the batch.
    pub fn before_activations<'t>(
        &self,
        params: &[Var<'t>],
        images: Var<'t>,
    ) -> Result<Vec<Var<'t>>> {
        let (_, pass) = self.pass(params, images, Statistics::Batch)?;
        Ok(pass.activated)
    }

    fn pass<'a, 't>(
        &'a self,
        params: &'a [Var<'t>],
        images: Var<'t>,
        statistics: Statistics<'a, 't>,
    ) -> Result<(Activations<'t>, Pass<'a, 't>)> {
        let (mut stored, mut key) = (None, None);
        match statistics {
            Statistics::Batch => {}
            Statistics::Training(own) => key = Some(own),
            Statistics::Stored(buffers) => {
                let feed = Feed::new("learner's buffers", buffers, self.buffers.len())?;
                stored = Some(feed);
            }
        }
        let mut pass = Pass {
            weight_norm: self.network.weight_norm,
            params: Feed::new("learner", params, self.params.len())?,
            stored,
            key,
            draws: 0,
            buffers: Vec::with_capacity(self.buffers.len()),
            nodes: Vec::new(),
            activated: Vec::new(),
            results: Vec::with_capacity(self.layers.len()),
        };
        let images = Activations::new(images, self.several(params, statistics)?);
        let last = pass.sequence(&self.network.layers, images)?;
        Ok((last, pass))
    }

    /// K, if the parameters have a first axis for several learners. Then all parameters must have it, and
    /// stored statistics, too.
    fn several(&self, params: &[Var<'_>], statistics: Statistics<'_, '_>) -> Result<Option<usize>> {
        let learners = match (params.first().map(Var::shape), self.params.first()) {
            (Some(shape), Some(spec)) if shape.len() > spec.shape.len() => shape[0],
            _ => return Ok(None),
        };
        let buffers = match statistics {
            Statistics::Batch | Statistics::Training(_) => &[],
            Statistics::Stored(buffers) => buffers,
        };
        let given = params.iter().chain(buffers).map(Var::shape);
        for (shape, spec) in given.zip(self.params.iter().chain(&self.buffers)) {
            let wanted = [&[learners], &spec.shape[..]].concat();
            if learners == 0 || shape[..] != wanted[..] {
                return Err(Error::Setting(format!(
                    "{learners} learners at once: `{}` has shape {shape}, not {wanted:?}",
                    spec.name
                )));
            }
        }
        Ok(Some(learners))
    }
}

/// One forward pass: it takes parameters in their order and collects buffers.
struct Pass<'a, 't> {
    weight_norm: bool,
    params: Feed<'a, 't>,
    /// Statistics to normalise by; without them those of the batch.
    stored: Option<Feed<'a, 't>>,
    /// The random key of dropout, if anything is dropped.
    key: Option<Var<'t>>,
    /// How many layers have dropped something.
    draws: u32,
    buffers: Vec<Var<'t>>,
    /// Results of nodes, by name.
    nodes: Vec<(&'a str, Activations<'t>)>,
    /// What went into activation layers.
    activated: Vec<Var<'t>>,
    /// What came out of every layer, in the order of [`Learner::layers`].
    results: Vec<Var<'t>>,
}

impl<'a, 't> Pass<'a, 't> {
    fn sequence(
        &mut self,
        layers: &'a [Layer],
        mut now: Activations<'t>,
    ) -> Result<Activations<'t>> {
        for layer in layers {
            now = self.layer(layer, now)?;
            self.results.push(now.x);
        }
        Ok(now)
    }

    fn layer(&mut self, layer: &'a Layer, now: Activations<'t>) -> Result<Activations<'t>> {
        match layer {
            Layer::Conv {
                window,
                groups,
                bias,
                ..
            } => {
                let kernel = self.kernel()?;
                let now = now.conv(kernel, window, *groups)?;
                self.bias(*bias, now)
            }
            Layer::Depthwise { window, bias } => {
                let kernel = self.kernel()?;
                let now = now.depthwise(kernel, window)?;
                self.bias(*bias, now)
            }
            Layer::Dense { bias, .. } => {
                let now = if self.weight_norm {
                    let [v, s] = self.params.take()?;
                    now.normed_dense(v, s)?
                } else {
                    let [weight] = self.params.take()?;
                    now.dense(weight)?
                };
                self.bias(*bias, now)
            }
            Layer::Bias => self.bias(true, now),
            Layer::Norm(norm) => self.norm(*norm, now),
            Layer::Activation(activation) => {
                self.activated.push(now.x);
                Ok(now.with(activated(*activation, now.x)?))
            }
            Layer::Pool { kind, window } => now.pool(*kind, window),
            Layer::Dropout(rate) => {
                let now = now.own()?;
                self.dropped(*rate, now, now.x.shape().len())
            }
            Layer::DropPath(rate) => {
                let now = now.own()?.apart()?;
                self.dropped(*rate, now, now.first() + 1)
            }
            Layer::Mean => now.global_mean(),
            Layer::Flatten => now.flat(),
            Layer::Add(branches) => Activations::sum(&self.branches(branches, now)?),
            Layer::Concat(branches) => Activations::concat(&self.branches(branches, now)?),
            Layer::Graph { nodes, result } => {
                let known = self.nodes.len();
                for node in nodes {
                    let made = self.sequence(&node.layers, now)?;
                    self.nodes.push((&node.name, made));
                }
                let made = self.sequence(result, now);
                self.nodes.truncate(known);
                made
            }
            Layer::Node(name) => self.node(name),
            Layer::Zero => {
                let x = now.x;
                Ok(now.with(x.tape().constant(0.0, x.dtype(), x.shape())))
            }
        }
    }

    fn node(&self, name: &str) -> Result<Activations<'t>> {
        let found = self.nodes.iter().rev().find(|(known, _)| *known == name);
        let missing = || Error::Setting(format!("learner: there is no node `{name}`"));
        found.map(|(_, made)| *made).ok_or_else(missing)
    }

    fn branches(
        &mut self,
        branches: &'a [Vec<Layer>],
        now: Activations<'t>,
    ) -> Result<Vec<Activations<'t>>> {
        let end = |branch: &'a Vec<Layer>| self.sequence(branch, now);
        branches.iter().map(end).collect()
    }

    /// The kernel of a convolution.
    fn kernel(&mut self) -> Result<Var<'t>> {
        if self.weight_norm {
            let [v, s] = self.params.take()?;
            return kernel(v, s);
        }
        let [weight] = self.params.take()?;
        Ok(weight)
    }

    fn bias(&mut self, wanted: bool, now: Activations<'t>) -> Result<Activations<'t>> {
        if !wanted {
            return Ok(now);
        }
        let now = now.own()?;
        let [bias] = self.params.take()?;
        Ok(now.with((now.x + per_channel(now.fit(bias)?, now.x)?)?))
    }

    fn norm(&mut self, norm: Norm, now: Activations<'t>) -> Result<Activations<'t>> {
        if norm == Norm::None {
            return Ok(now);
        }
        let now = now.own()?;
        let x = now.x;
        match norm {
            Norm::MeanOnly => {
                let [mean] = match &mut self.stored {
                    Some(stored) => stored.take()?,
                    None => [now.mean()?],
                };
                self.buffers.push(mean);
                let [bias] = self.params.take()?;
                Ok(now.with(mean_only_batch_norm(x, now.fit(mean)?, now.fit(bias)?)?))
            }
            Norm::Batch => {
                let (moments, of_channels) = match &mut self.stored {
                    Some(stored) => {
                        let of_channels @ [mean, variance] = stored.take()?;
                        let along = |p| per_channel(now.fit(p)?, x);
                        (
                            Moments::given(x, along(mean)?, along(variance)?)?,
                            of_channels,
                        )
                    }
                    None => now.moments()?,
                };
                self.buffers.extend(of_channels);
                let affine = self.affine(now)?;
                Ok(now.with(batch_norm(&moments, affine)?))
            }
            _ => {
                let affine = self.affine(now)?;
                now.group_norm(norm, affine)
            }
        }
    }

    /// In training, drops with probability `rate`. Numbers with equal places on the first `axes` axes are
    /// dropped together.
    fn dropped(&mut self, rate: f64, now: Activations<'t>, axes: usize) -> Result<Activations<'t>> {
        let Some(key) = self.key else {
            return Ok(now);
        };
        let (x, mut shape) = (now.x, now.x.shape().to_vec());
        shape[axes..].fill(1);
        let (tape, uniform) = (x.tape(), Distribution::Uniform);
        let drawn = tape.random(key, self.draws, uniform, x.dtype(), shape)?;
        self.draws += 1;
        let kept = tape.constant(rate, x.dtype(), []).less_eq(drawn)?;
        Ok(now.with((x * (kept * (1.0 - rate).recip())?)?))
    }

    /// Scale and bias of a normalisation.
    fn affine(&mut self, now: Activations<'t>) -> Result<[Var<'t>; 2]> {
        let [gamma, beta] = self.params.take()?;
        Ok([now.fit(gamma)?, now.fit(beta)?])
    }
}

fn activated(activation: Activation, x: Var<'_>) -> Result<Var<'_>> {
    match activation {
        Activation::Relu => x.relu(),
        Activation::Leaky(slope) => x.leaky_relu(slope),
        Activation::Gelu => x.gelu(),
        Activation::Silu => x.silu(),
        Activation::Tanh => x.tanh(),
    }
}
