//! Learners: plain networks that are trained on what the generator makes.

use super::layers::{LEAK, batch_norm, kernel, mean_only_batch_norm, per_channel};
use super::together::Activations;
use super::{Feed, Init, ParamSpec};
use autograd::{ConvOptions, Error, Moments, Result, Var};
use serde::Serialize;

/// How a layer's results are normalised over the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Norm {
    /// Not at all; a learned bias only.
    None,
    /// By their mean; a learned bias.
    #[default]
    MeanOnly,
    /// By mean and variance; a learned scale and bias.
    Batch,
}

/// One layer. Those with weights have weight norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// 3×3 convolution with a zero border of 1, without bias.
    Conv {
        /// Channels of the result.
        filters: usize,
        /// Step, the same along both axes.
        stride: usize,
    },
    /// Dense layer over everything but the batch axis, without bias.
    Dense {
        /// Width of the result.
        units: usize,
    },
    /// A learned bias per channel.
    Bias,
    /// Normalisation per channel with its learned bias.
    Norm(Norm),
    /// Leaky rectifier.
    Leaky,
    /// The greatest of square windows.
    MaxPool {
        /// Side of a window.
        window: usize,
        /// Step, the same along both axes.
        stride: usize,
        /// Border on every side, which never wins.
        pad: usize,
    },
    /// The mean of every channel over the image.
    GlobalMean,
}

/// Where normalisations take means and variances from.
#[derive(Clone, Copy, Debug)]
pub enum Statistics<'a, 't> {
    /// From the batch at hand, as in training.
    Batch,
    /// From the buffers that the last training batch left, as in evaluation.
    Stored(&'a [Var<'t>]),
}

/// A learner: layers one after another.
///
/// ```
/// use autograd::Tape;
/// use gtn::nn::{LearnerKind, Norm, Statistics};
/// use tensor::DType::F32;
/// let learner = LearnerKind::BaseFc.learner([28, 28, 1], 10, &[64, 128, 256], Norm::MeanOnly)?;
/// let tape = Tape::new();
/// let theta: Vec<_> = learner
///     .params()
///     .iter()
///     .map(|p| tape.input(&p.name, F32, p.shape.clone()))
///     .collect::<Result<_, _>>()?;
/// let x = tape.input("x", F32, [128, 28, 28, 1])?;
/// let (logits, means) = learner.logits(&theta, x, Statistics::Batch)?;
/// assert_eq!(logits.shape()[..], [128, 10]);
/// assert_eq!(means.len(), learner.buffers().len());
/// # Ok::<(), autograd::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Learner {
    layers: Vec<Layer>,
    params: Vec<ParamSpec>,
    buffers: Vec<ParamSpec>,
    /// Of one example after the last layer.
    shape: Vec<usize>,
}

impl Learner {
    /// The learner with these layers for images \[h, w, c\]. Convolutions are named c1, c2, … and dense
    /// layers d1, d2, …; biases and normalisations go by the name of the weights before them.
    ///
    /// # Errors
    /// If a layer does not fit what comes before it.
    pub fn new(image: [usize; 3], layers: &[Layer]) -> Result<Self> {
        let mut learner = Self {
            layers: Vec::new(),
            params: Vec::new(),
            buffers: Vec::new(),
            shape: image.to_vec(),
        };
        for &layer in layers {
            let before = learner.shape.clone();
            let fits = learner.push(layer).is_some() && !learner.shape.contains(&0);
            if !fits {
                return Err(Error::Setting(format!(
                    "learner: {layer:?} does not fit an input of shape {before:?}"
                )));
            }
        }
        Ok(learner)
    }

    /// Adds a layer; `None` if it takes no input like that.
    fn push(&mut self, layer: Layer) -> Option<()> {
        let channels = *self.shape.last()?;
        match (layer, &self.shape[..]) {
            (Layer::Conv { filters, stride }, &[h, w, c]) => {
                let name = self.next_name('c');
                self.params
                    .extend(ParamSpec::weight(&name, [filters, 3, 3, c]));
                let strided = |extent: usize| Some(extent.checked_sub(1)?.checked_div(stride)? + 1);
                self.shape = vec![strided(h)?, strided(w)?, filters];
            }
            (Layer::Dense { units }, shape) => {
                let (name, inputs) = (self.next_name('d'), shape.iter().product());
                self.params
                    .extend(ParamSpec::weight(&name, [units, inputs]));
                self.shape = vec![units];
            }
            (
                Layer::MaxPool {
                    window,
                    stride,
                    pad,
                },
                &[h, w, c],
            ) => {
                let pooled = |extent: usize| {
                    let last = (extent + 2 * pad).checked_sub(window)?;
                    Some(last.checked_div(stride)? + 1)
                };
                self.shape = vec![pooled(h)?, pooled(w)?, c];
            }
            (Layer::GlobalMean, &[_, _, c]) => self.shape = vec![c],
            (Layer::Bias, _) => self.params.push(ParamSpec::bias(self.name()?, channels)),
            (Layer::Norm(norm), _) => {
                let name = self.name()?.to_owned();
                let [gamma, beta] = ParamSpec::affine(&name, channels);
                let buffer =
                    |role| ParamSpec::new(format!("{name}.{role}"), [channels], Init::Zeros);
                match norm {
                    Norm::None => {}
                    Norm::MeanOnly => {
                        self.params.push(beta);
                        self.buffers.push(buffer("mean"));
                    }
                    Norm::Batch => {
                        self.params.extend([gamma, beta]);
                        self.buffers.extend([buffer("mean"), buffer("variance")]);
                    }
                }
            }
            (Layer::Leaky, _) => {}
            _ => return None,
        }
        self.layers.push(layer);
        Some(())
    }

    /// The name of the last layer with weights.
    fn name(&self) -> Option<&str> {
        self.params.last()?.name.split('.').next()
    }

    fn next_name(&self, letter: char) -> String {
        let gains = self.params.iter().filter(|p| p.name.ends_with(".s"));
        format!(
            "{letter}{}",
            gains.filter(|p| p.name.starts_with(letter)).count() + 1
        )
    }

    /// Whether a result depends on the other images of its batch.
    pub fn norms_over_batches(&self) -> bool {
        let norms = |layer: &Layer| matches!(layer, Layer::Norm(norm) if *norm != Norm::None);
        self.layers.iter().any(norms)
    }

    /// Its parameters θ, in the order that [`logits`](Self::logits) takes them.
    pub fn params(&self) -> &[ParamSpec] {
        &self.params
    }

    /// The means and variances of its normalisations, which evaluation takes from the last training
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
        let mut feed = Feed::new("learner", params, self.params.len())?;
        let mut stored = match statistics {
            Statistics::Batch => None,
            Statistics::Stored(buffers) => {
                Some(Feed::new("learner's buffers", buffers, self.buffers.len())?)
            }
        };
        let mut now = Activations::new(images, self.several(params, statistics)?);
        let mut buffers = Vec::with_capacity(self.buffers.len());
        for &layer in &self.layers {
            let x = now.x;
            now = match layer {
                Layer::Conv { stride, .. } => {
                    let [v, s] = feed.take()?;
                    let (stride, pad) = ([stride; 2], [1; 4]);
                    now.conv(kernel(v, s)?, ConvOptions { stride, pad })?
                }
                Layer::Dense { .. } => {
                    let [v, s] = feed.take()?;
                    now.dense(v, s)?
                }
                Layer::Bias => {
                    let [bias] = feed.take()?;
                    now.with((x + per_channel(now.fit(bias)?, x)?)?)
                }
                Layer::Norm(Norm::None) => now,
                Layer::Norm(Norm::MeanOnly) => {
                    let [mean] = match &mut stored {
                        Some(stored) => stored.take()?,
                        None => [now.mean()?],
                    };
                    buffers.push(mean);
                    let [bias] = feed.take()?;
                    now.with(mean_only_batch_norm(x, now.fit(mean)?, now.fit(bias)?)?)
                }
                Layer::Norm(Norm::Batch) => {
                    let (moments, of_channels) = match &mut stored {
                        Some(stored) => {
                            let of_channels @ [mean, variance] = stored.take()?;
                            let [mean, variance] = [now.fit(mean)?, now.fit(variance)?];
                            let along = |p| per_channel(p, x);
                            (
                                Moments::given(x, along(mean)?, along(variance)?)?,
                                of_channels,
                            )
                        }
                        None => now.moments()?,
                    };
                    buffers.extend(of_channels);
                    let [gamma, beta] = feed.take()?;
                    now.with(batch_norm(&moments, [now.fit(gamma)?, now.fit(beta)?])?)
                }
                Layer::Leaky => now.with(x.leaky_relu(LEAK)?),
                Layer::MaxPool {
                    window,
                    stride,
                    pad,
                } => now.max_pool(window, stride, pad)?,
                Layer::GlobalMean => now.global_mean()?,
            };
        }
        Ok((now.flat()?.x, buffers))
    }

    /// K, if the parameters have a first axis for several learners: then all must have it, and stored
    /// statistics, too.
    fn several(&self, params: &[Var<'_>], statistics: Statistics<'_, '_>) -> Result<Option<usize>> {
        let learners = match (params.first().map(Var::shape), self.params.first()) {
            (Some(shape), Some(spec)) if shape.len() > spec.shape.len() => shape[0],
            _ => return Ok(None),
        };
        let buffers = match statistics {
            Statistics::Batch => &[],
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
