//! Trainings of learners: on what a generator makes, or on real images.

use crate::data::CLASSES;
use crate::nn::{Generator, Learner, ParamSpec, Statistics};
use crate::outer::curriculum::Curriculum;
use crate::outer::inner::Inner;
use crate::run::config::{Config, IMAGE};
use autograd::prelude::*;

/// The sizes of a training.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Inner steps T.
    pub steps: usize,
    /// Images of an inner step.
    pub batch: usize,
    /// Learners that are trained at once on the same batches. Their weights and buffers have a first axis for them, if
    /// there is more than one.
    pub learners: usize,
    /// Element type of everything.
    pub dtype: DType,
}

impl Sizes {
    /// The sizes that settings ask for.
    pub fn of(config: &Config) -> Self {
        Self {
            steps: config.inner_steps,
            batch: config.inner_batch,
            learners: config.learners_per_step,
            dtype: F32,
        }
    }

    /// Images \[n, batch, …\] and their one-hot classes, under these names.
    pub fn batches(self, names: [&str; 2], n: usize, batch: usize) -> [ArraySpec; 2] {
        let [x, y] = names;
        let [h, w, c] = IMAGE;
        [
            ArraySpec::new(x, self.dtype, [n, batch, h, w, c]),
            ArraySpec::new(y, self.dtype, [n, batch, CLASSES]),
        ]
    }

    fn learner<'f>(self, learner: &Learner, optimizer: Optimizer) -> Training<'f> {
        let stacked = |spec: ArraySpec| {
            let shape = [&[self.learners], &spec.shape[..]].concat();
            let shape = if self.learners > 1 {
                shape.into()
            } else {
                spec.shape
            };
            ArraySpec { shape, ..spec }
        };
        Training::new(optimizer)
            .weights(specs("", learner.params(), self.dtype).map(stacked))
            .buffers(specs("", learner.buffers(), self.dtype).map(stacked))
    }

    /// The arrays of a generator that are learned, as values and checkpoints call them.
    pub fn generator(self, generator: &Generator) -> Vec<ArraySpec> {
        specs("generator.", generator.params(), self.dtype).collect()
    }

    /// Noise that is learned: \[T·B, noise\].
    pub fn noise(self, noise: usize) -> ArraySpec {
        ArraySpec::new("z", self.dtype, [self.steps * self.batch, noise])
    }
}

fn specs<'a>(
    prefix: &'a str,
    params: &'a [ParamSpec],
    dtype: DType,
) -> impl Iterator<Item = ArraySpec> + 'a {
    let spec = move |param: &ParamSpec| {
        ArraySpec::new(
            format!("{prefix}{}", param.name),
            dtype,
            param.shape.clone(),
        )
    };
    params.iter().map(spec)
}

/// A learner taught by a generator on classes `y` \[T, B, classes\]. Learned are the generator, hyper-parameters, and where a
/// curriculum learns it the noise `z` \[T·B, noise\], of which the steps take the examples that `order` \[T·B\] names;
/// otherwise noise \[T, B, noise\] is given.
pub fn by_generator<'a>(
    generator: &'a Generator,
    learner: &'a Learner,
    sizes: Sizes,
    inner: &Inner,
    learn_noise: bool,
) -> Training<'a> {
    let Sizes {
        steps,
        batch,
        dtype,
        ..
    } = sizes;
    let noise = generator.config().noise;
    let training = inner
        .declare(sizes.learner(learner, inner.optimizer), steps, dtype)
        .learned_list("generator", sizes.generator(generator))
        .prepare_list("generator", |s| generator.prepare(s.list("generator")))
        .given([ArraySpec::new("y", dtype, [steps, batch, CLASSES])])
        .per_step(["z", "y"])
        .loss_and_buffers(|s| {
            let images = generator.images(s.list("generator"), s["z"], s["y"])?;
            let (logits, buffers) = learner.logits(s.weights(), images, Statistics::Batch)?;
            Ok((sum_of_losses(logits, s["y"])?, buffers))
        });
    if !learn_noise {
        return training.given([ArraySpec::new("z", dtype, [steps, batch, noise])]);
    }
    training
        .learned([sizes.noise(noise)])
        .given([ArraySpec::new("order", I32, [steps * batch])])
        .prepare("z", move |s| {
            s["z"].rows(s["order"])?.reshape([steps, batch, noise])
        })
}

/// A learner taught by images `x` \[T, B, …\] with classes `y`; which they are, and with what hyper-parameters, is for the
/// caller to say.
pub fn by_images(learner: &Learner, sizes: Sizes, optimizer: Optimizer) -> Training<'_> {
    sizes
        .learner(learner, optimizer)
        .per_step(["x", "y"])
        .loss_and_buffers(|s| {
            let (logits, buffers) = learner.logits(s.weights(), s["x"], Statistics::Batch)?;
            Ok((sum_of_losses(logits, s["y"])?, buffers))
        })
}

/// Adds the outer loss: cross-entropy on real images `x_real` \[N, B, …\] with classes `y_real`, with the means that the
/// last synthetic batch left; of several learners it is the mean.
pub fn with_real_loss<'a>(training: Training<'a>, learner: &'a Learner) -> Training<'a> {
    training.per_outer(["x_real", "y_real"]).outer(|s| {
        let statistics = Statistics::Stored(s.buffers());
        let (logits, _) = learner.logits(s.weights(), s["x_real"], statistics)?;
        mean_of_losses(logits, s["y_real"])
    })
}

/// Picks batches from tables of `count` images and their one-hot classes: `n` batches of the images that `index` names.
fn picked<'a>(
    training: Training<'a>,
    index: &'static str,
    names: [&'static str; 2],
    [n, batch]: [usize; 2],
) -> Training<'a> {
    let [x, y] = names;
    let [h, w, c] = IMAGE;
    training
        .given([ArraySpec::new(index, I32, [n * batch])])
        .prepare(x, move |s| {
            s["images"].rows(s[index])?.reshape([n, batch, h, w, c])
        })
        .prepare(y, move |s| {
            s["classes"].rows(s[index])?.reshape([n, batch, CLASSES])
        })
}

/// Tables of real images and their one-hot classes.
pub fn tables(count: usize) -> [ArraySpec; 2] {
    let [h, w, c] = IMAGE;
    [
        ArraySpec::new("images", F32, [count, h, w, c]),
        ArraySpec::new("classes", F32, [count, CLASSES]),
    ]
}

/// Learners taught as the settings say, with an outer loss on some of `count` real images.
pub fn training<'a>(
    config: &Config,
    generator: &'a Generator,
    learner: &'a Learner,
    count: usize,
) -> Training<'a> {
    let (sizes, inner) = (Sizes::of(config), Inner::of(config));
    let training = match config.curriculum {
        Curriculum::RealData => picked(
            inner.declare(
                by_images(learner, sizes, inner.optimizer),
                sizes.steps,
                sizes.dtype,
            ),
            "taught",
            ["x", "y"],
            [config.inner_steps, config.inner_batch],
        ),
        other => by_generator(generator, learner, sizes, &inner, other.learns_noise()),
    };
    let outer = [config.outer_count(), config.outer_batch];
    let training = picked(
        training.given(tables(count)),
        "chosen",
        ["x_real", "y_real"],
        outer,
    );
    with_real_loss(training, learner)
}

/// The sum of the learners' losses, on whatever one of them has: so each follows its own gradient.
pub fn sum_of_losses<'t>(logits: Var<'t>, classes: Var<'t>) -> Result<Var<'t>> {
    logits.cross_entropy(classes)?.sum_all()
}

/// The mean of the learners' losses.
pub fn mean_of_losses<'t>(logits: Var<'t>, classes: Var<'t>) -> Result<Var<'t>> {
    logits.cross_entropy(classes)?.mean_all()
}
