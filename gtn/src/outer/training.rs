//! Trainings of learners: on what a generator makes, or on real images.

use crate::data::{Dataset, Problem};
use crate::nn::{Generator, Learner, ParamSpec, Statistics};
use crate::outer::curriculum::{Curriculum, one_hot};
use crate::outer::inner::Inner;
use crate::run::config::Config;
use autograd::prelude::*;

/// The sizes of a training.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Images and classes.
    pub problem: Problem,
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
    pub fn of(config: &Config, problem: Problem) -> Self {
        Self {
            problem,
            steps: config.inner_steps,
            batch: config.inner_batch,
            learners: config.learners_per_step,
            dtype: F32,
        }
    }

    /// Images \[n, batch, …\] and their one-hot classes, under these names.
    pub fn batches(self, names: [&str; 2], n: usize, batch: usize) -> [ArraySpec; 2] {
        let [x, y] = names;
        let [h, w, c] = self.problem.image;
        [
            ArraySpec::new(x, self.dtype, [n, batch, h, w, c]),
            ArraySpec::new(y, self.dtype, [n, batch, self.problem.classes]),
        ]
    }

    /// The images `x` that teach, and their one-hot classes `y`.
    pub fn taught(self) -> [ArraySpec; 2] {
        self.batches(["x", "y"], self.steps, self.batch)
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
        problem: Problem { classes, .. },
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
        .given([ArraySpec::new("y", dtype, [steps, batch, classes])])
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

/// Real images and their one-hot classes, as many as `batch` holds.
///
/// # Errors
/// If other than as many images are chosen.
pub fn real_batches(
    data: &Dataset,
    chosen: &[usize],
    [images, classes]: &[ArraySpec; 2],
) -> Result<[Array; 2]> {
    let split = &data.train;
    let labels: Vec<u16> = chosen.iter().map(|&i| split.labels[i]).collect();
    let labels = one_hot(&labels, data.problem().classes);
    Ok([
        Array::new(images.shape.clone(), data.normalised(split, chosen))?,
        Array::new(classes.shape.clone(), labels)?,
    ])
}

/// The real images of a meta-loss, and their classes.
pub fn real_loss_batches(config: &Config, problem: Problem) -> [ArraySpec; 2] {
    let sizes = Sizes::of(config, problem);
    sizes.batches(
        ["x_real", "y_real"],
        config.outer_count(),
        config.outer_batch,
    )
}

/// Learners taught as the settings say, with an outer loss on real images.
pub fn training<'a>(
    config: &Config,
    problem: Problem,
    generator: &'a Generator,
    learner: &'a Learner,
) -> Training<'a> {
    let (sizes, inner) = (Sizes::of(config, problem), Inner::of(config));
    let training = match config.curriculum {
        Curriculum::RealData => {
            let by_images = by_images(learner, sizes, inner.optimizer).given(sizes.taught());
            inner.declare(by_images, sizes.steps, sizes.dtype)
        }
        other => by_generator(generator, learner, sizes, &inner, other.learns_noise()),
    };
    with_real_loss(training.given(real_loss_batches(config, problem)), learner)
}

/// The sum of the learners' losses, on whatever one of them has: so each follows its own gradient.
pub fn sum_of_losses<'t>(logits: Var<'t>, classes: Var<'t>) -> Result<Var<'t>> {
    logits.cross_entropy(classes)?.sum_all()
}

/// The mean of the learners' losses.
pub fn mean_of_losses<'t>(logits: Var<'t>, classes: Var<'t>) -> Result<Var<'t>> {
    logits.cross_entropy(classes)?.mean_all()
}
