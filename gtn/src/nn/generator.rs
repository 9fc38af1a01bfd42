//! The generator, which turns noise and a class into an image that teaches.

use super::layers::{
    Border, LEAK, batch_norm, dense, kernel, moments, upsample_conv, upsampling_kernel,
    weight_scale,
};
use super::network::Start;
use super::{Feed, ParamSpec};
use autograd::{Error, Result, Var};

/// Which generator: the published one, or one of the usual building blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// As published (Such et al. 2020): mirrored borders, images in ±2, the second batch norm over features,
    /// no biases before a batch norm, which would take them out again.
    #[default]
    Paper,
    /// As the benchmark set-ups have it: zero borders, images in ±1, the second batch norm over channels,
    /// biases everywhere.
    Benchmark,
}

/// Sizes of a generator. The default is the published one for MNIST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratorConfig {
    /// Published or benchmark.
    pub variant: Variant,
    /// Length of the noise vector z.
    pub noise: usize,
    /// Number of classes.
    pub classes: usize,
    /// Whether it makes the classes of its images, too; otherwise it is given them.
    pub labels: bool,
    /// Width of the first layer.
    pub hidden: usize,
    /// Channels of the small images: of all but the last, then of the last, which has half the image's size.
    pub channels: [usize; 2],
    /// Height, width and channels of the image.
    pub image: [usize; 3],
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self {
            variant: Variant::Paper,
            noise: 128,
            classes: 10,
            labels: false,
            hidden: 1024,
            channels: [128, 64],
            image: [28, 28, 1],
        }
    }
}

/// The generator of a Generative Teaching Network, x = G(z, y):
///
/// ```text
/// [z, y] ─ dense g1 ─ norm ─ dense g2 ─ norm ─ image /4 ─ ×2 conv g3 ─ norm ─ image /2 ─ ×2 conv g4 ─ tanh
/// ```
///
/// with weight norm in every layer, and a leaky rectifier after every batch norm, which always takes the
/// batch's own statistics. `×2 conv` is nearest-neighbour upsampling and a 3×3 convolution.
///
/// One that makes labels, too, takes z alone, and has a second head on the first layer: a dense layer `labels` with a softmax.
///
/// Its forward pass comes in two halves: [`prepare`](Self::prepare) does what depends on the weights only,
/// once for all inner steps; [`images`](Self::images) does the rest at each.
///
/// Images with sides of up to 44 pixels have these two stages. Larger images have more, so that the smallest
/// image has sides of 11 pixels at most: 64 pixels take three stages from 8, and 224 take five from 7. If
/// height or width is not a multiple of 2 to the number of stages, a larger image is made and the middle is
/// cut out.
///
/// ```
/// use autograd::Tape;
/// use gtn::nn::{Generator, GeneratorConfig};
/// use tensor::DType::F32;
/// let generator = Generator::new(GeneratorConfig::default())?;
/// let numbers = generator.params().iter().map(|p| p.shape.count());
/// assert_eq!(numbers.sum::<usize>(), 6_660_226);
/// let tape = Tape::new();
/// let params: Vec<_> = generator
///     .params()
///     .iter()
///     .map(|p| tape.input(&p.name, F32, p.shape.clone()))
///     .collect::<Result<_, _>>()?;
/// let (z, y) = (tape.input("z", F32, [64, 128])?, tape.input("y", F32, [64, 10])?);
/// let x = generator.images(&generator.prepare(&params)?, z, y)?;
/// assert_eq!(x.shape()[..], [64, 28, 28, 1]);
/// # Ok::<(), autograd::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Generator {
    config: GeneratorConfig,
    /// How often the image doubles.
    stages: usize,
    params: Vec<ParamSpec>,
}

impl Generator {
    /// A generator of these sizes.
    ///
    /// # Errors
    /// If a size is zero.
    pub fn new(config: GeneratorConfig) -> Result<Self> {
        let GeneratorConfig {
            variant,
            noise,
            classes,
            labels,
            hidden,
            channels: [quarter, half],
            image: [h, w, c],
        } = config;
        if [noise, classes, hidden, quarter, half, h, w, c].contains(&0) {
            return Err(Error::Setting(format!(
                "generator: sizes must be at least 1: {config:?}"
            )));
        }
        let stages = stages(h.max(w));
        let features = quarter * (h.div_ceil(1 << stages)) * (w.div_ceil(1 << stages));
        let (biases, normed) = match variant {
            Variant::Paper => (false, features),
            Variant::Benchmark => (true, quarter),
        };
        let mut params = Vec::new();
        let mut layer = |name: &str, weight: &[usize], normed: Option<usize>| {
            params.extend(ParamSpec::weight(name, weight, Start::default()));
            if biases || normed.is_none() {
                params.push(ParamSpec::bias(name, weight[0]));
            }
            if let Some(units) = normed {
                params.extend(ParamSpec::affine(name, units));
            }
        };
        let given = if labels { 0 } else { classes };
        layer("g1", &[hidden, noise + given], Some(hidden));
        layer("g2", &[features, hidden], Some(normed));
        for stage in 1..stages {
            let to = if stage + 1 < stages { quarter } else { half };
            layer(&format!("g{}", 2 + stage), &[to, 3, 3, quarter], Some(to));
        }
        layer(&format!("g{}", 2 + stages), &[c, 3, 3, half], None);
        if labels {
            layer("labels", &[classes, hidden], None);
        }
        Ok(Self {
            config,
            stages,
            params,
        })
    }

    /// Its sizes.
    pub fn config(&self) -> &GeneratorConfig {
        &self.config
    }

    /// How often the image doubles.
    pub(crate) fn stages(&self) -> usize {
        self.stages
    }

    /// Its parameters φ, in the order that [`prepare`](Self::prepare) takes them.
    pub fn params(&self) -> &[ParamSpec] {
        &self.params
    }

    /// What the images need of the parameters: of a dense layer its directions and their scale, of a
    /// convolution the [`upsampling_kernel`]; biases and affine maps as they are.
    pub fn prepare<'t>(&self, params: &[Var<'t>]) -> Result<Vec<Var<'t>>> {
        let feed = &mut Feed::new("generator", params, self.params.len())?;
        let mut prepared = Vec::with_capacity(self.prepared_count());
        let last = 2 + self.stages;
        for layer in 1..=last {
            let [v, s] = feed.take()?;
            match layer {
                1 | 2 => prepared.extend([v, weight_scale(v, s)?]),
                _ => prepared.push(upsampling_kernel(kernel(v, s)?)?),
            }
            if self.hidden_biases() || layer == last {
                prepared.extend(feed.take::<1>()?);
            }
            if layer < last {
                prepared.extend(feed.take::<2>()?);
            }
        }
        if self.config.labels {
            let [v, s, bias] = feed.take()?;
            prepared.extend([v, weight_scale(v, s)?, bias]);
        }
        Ok(prepared)
    }

    /// Images \[n, h, w, c\] from noise \[n, `noise`\] and one-hot or soft classes \[n, `classes`\].
    pub fn images<'t>(
        &self,
        prepared: &[Var<'t>],
        z: Var<'t>,
        classes: Var<'t>,
    ) -> Result<Var<'t>> {
        let feed = &mut Feed::new("generator", prepared, self.prepared_count())?;
        let features = self.features(feed, z.tape().concat(&[z, classes], 1)?)?;
        self.images_of(feed, features)
    }

    /// Images and their soft classes \[n, `classes`\] from noise alone, of a generator that makes both.
    pub fn images_and_labels<'t>(&self, prepared: &[Var<'t>], z: Var<'t>) -> Result<[Var<'t>; 2]> {
        let feed = &mut Feed::new("generator", prepared, self.prepared_count())?;
        let features = self.features(feed, z)?;
        let images = self.images_of(feed, features)?;
        let [v, scale, bias] = feed.take()?;
        let logits = (dense(features, v, scale)? + bias)?;
        Ok([images, logits.softmax()?])
    }

    /// The output of the first layer, normalised.
    fn features<'t>(&self, feed: &mut Feed<'_, 't>, input: Var<'t>) -> Result<Var<'t>> {
        let x = self.dense(feed, input)?;
        norm(feed, x)
    }

    /// The images that the other layers make of these features.
    fn images_of<'t>(&self, feed: &mut Feed<'_, 't>, features: Var<'t>) -> Result<Var<'t>> {
        let x = self.dense(feed, features)?;
        let mut x = match self.config.variant {
            Variant::Paper => self.small_image(norm(feed, x)?)?,
            Variant::Benchmark => norm(feed, self.small_image(x)?)?,
        };
        for _ in 1..self.stages {
            x = self.conv(feed, x)?;
            x = self.hidden_bias(feed, x)?;
            x = norm(feed, x)?;
        }
        let x = self.cut(self.conv(feed, x)?)?;
        let [bias] = feed.take()?;
        let x = (x + bias)?.tanh()?;
        match self.config.variant {
            Variant::Paper => x * 2.0,
            Variant::Benchmark => Ok(x),
        }
    }

    fn dense<'t>(&self, feed: &mut Feed<'_, 't>, x: Var<'t>) -> Result<Var<'t>> {
        let [v, scale] = feed.take()?;
        self.hidden_bias(feed, dense(x, v, scale)?)
    }

    fn small_image<'t>(&self, x: Var<'t>) -> Result<Var<'t>> {
        let ([h, w, _], [quarter, _]) = (self.config.image, self.config.channels);
        let [h, w] = [h, w].map(|extent| extent.div_ceil(1 << self.stages));
        x.reshape([x.shape()[0], h, w, quarter])
    }

    /// Cuts the image out of the middle of one that may be larger.
    fn cut<'t>(&self, x: Var<'t>) -> Result<Var<'t>> {
        let (shape, [h, w, c]) = (x.shape(), self.config.image);
        if shape[1..3] == [h, w] {
            return Ok(x);
        }
        let [top, left] = [(shape[1] - h) / 2, (shape[2] - w) / 2];
        x.slice(&[0, top, left, 0], &[shape[0], h, w, c])
    }

    fn conv<'t>(&self, feed: &mut Feed<'_, 't>, x: Var<'t>) -> Result<Var<'t>> {
        let border = match self.config.variant {
            Variant::Paper => Border::Reflect,
            Variant::Benchmark => Border::Zero,
        };
        let [kernel] = feed.take()?;
        upsample_conv(x, kernel, border)
    }

    fn hidden_biases(&self) -> bool {
        self.config.variant == Variant::Benchmark
    }

    fn hidden_bias<'t>(&self, feed: &mut Feed<'_, 't>, x: Var<'t>) -> Result<Var<'t>> {
        if !self.hidden_biases() {
            return Ok(x);
        }
        let [bias] = feed.take()?;
        x + bias
    }

    /// Each convolution has one kernel in place of two parameters, direction and gain.
    fn prepared_count(&self) -> usize {
        self.params.len() - self.stages
    }
}

/// How often an image doubles until it has `side` pixels.
fn stages(side: usize) -> usize {
    let fits = |stages: &usize| side.div_ceil(1 << stages) <= 11;
    (2..usize::BITS as usize).find(fits).unwrap_or(2)
}

/// Batch norm by the batch's own statistics, and the rectifier.
fn norm<'t>(feed: &mut Feed<'_, 't>, x: Var<'t>) -> Result<Var<'t>> {
    batch_norm(&moments(x, 0)?, feed.take()?)?.leaky_relu(LEAK)
}
