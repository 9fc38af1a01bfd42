//! Trainings of learners: on what a generator makes, or on real images.

use crate::data::{Dataset, Problem};
use crate::nn::{Generator, Learner, ParamSpec, Statistics};
use crate::outer::curriculum::{Curriculum, Noise, one_hot};
use crate::outer::inner::Inner;
use crate::outer::makers::{Makers, named};
use crate::outer::rule::Rule;
use crate::run::config::Config;
use crate::seeds::{Draw, rng};
use autograd::prelude::*;

/// The name of the dropout keys, u32 \[T, 4\].
pub const DROPPED: &str = "dropped";

/// The sizes of a training.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Images and classes.
    pub problem: Problem,
    /// Inner steps T.
    pub steps: usize,
    /// Images of an inner step.
    pub batch: usize,
    /// Examples with learned parameters of their own; the T·B places of a training take them in turn.
    pub examples: usize,
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
            examples: config.example_count(),
            learners: config.most_stacked(),
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

    /// The dropout keys of all steps, if the learner has dropout.
    pub fn dropped(self, learner: &Learner) -> Option<ArraySpec> {
        let spec = ArraySpec::new(DROPPED, U32, [self.steps, 4]);
        learner.drops().then_some(spec)
    }

    fn learner<'f>(self, learner: &Learner, rule: Rule) -> Training<'f> {
        let stacked = |spec: ArraySpec| {
            let shape = [&[self.learners], &spec.shape[..]].concat();
            let shape = if self.learners > 1 {
                shape.into()
            } else {
                spec.shape
            };
            ArraySpec { shape, ..spec }
        };
        rule.training(&learner.rate_groups())
            .weights(specs("", learner.params(), self.dtype).map(stacked))
            .buffers(specs("", learner.buffers(), self.dtype).map(stacked))
            .given(self.dropped(learner))
            .per_step(learner.drops().then_some(DROPPED))
    }

    /// The arrays of a generator that are learned, as values and checkpoints call them.
    pub fn generator(self, generator: &Generator) -> Vec<ArraySpec> {
        specs("generator.", generator.params(), self.dtype).collect()
    }

    /// The same of a labeller.
    pub fn labeller(self, labeller: &Learner) -> Vec<ArraySpec> {
        specs("labeller.", labeller.params(), self.dtype).collect()
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

/// What a learner is taught with, beside hyper-parameters.
#[derive(Clone, Copy, Debug)]
pub struct Lesson<'a> {
    /// What makes the images of noise and classes; without it the pixels are learned themselves.
    pub generator: Option<&'a Generator>,
    /// Where the noise comes from.
    pub noise: Noise,
    /// Whether the classes of every image are learned, as a distribution.
    pub soft_labels: bool,
}

/// The greatest size of a synthetic pixel: it is this times a tanh, as a generator's.
pub const PIXEL_RANGE: f64 = 2.0;

/// How many times faster pixels move than other learned numbers. An outer step of Adam with the rate 0.01
/// moves the logarithm of a learning rate by 0.01, and the argument of a pixel's tanh by 0.05.
pub const PIXEL_SPEED: f64 = 5.0;

impl Lesson<'_> {
    /// Whether the generator makes the classes, too.
    pub fn makes_labels(&self) -> bool {
        self.generator
            .is_some_and(|generator| generator.config().labels)
    }

    /// The learned arrays with a row for each of the N examples (T·B, or fewer that come again). Which there
    /// are depends on the lesson: noise `z` and the logarithm of its spread `log_spread`, both \[N, noise\];
    /// `pixels` \[N, rows·columns·channels\], which [`PIXEL_SPEED`] scales to the arguments of their tanh;
    /// `label_logits` \[N, classes\].
    pub fn tables(&self, sizes: Sizes) -> Vec<ArraySpec> {
        let table = |name, width: usize| ArraySpec::new(name, sizes.dtype, [sizes.examples, width]);
        let mut tables = Vec::new();
        match self.generator.map(|generator| generator.config().noise) {
            Some(noise) if self.noise != Noise::Fresh => {
                tables.push(table("z", noise));
                if self.noise == Noise::Gaussian {
                    tables.push(table("log_spread", noise));
                }
            }
            Some(_) => {}
            None => tables.push(table("pixels", sizes.problem.image_len())),
        }
        if self.soft_labels {
            tables.push(table("label_logits", sizes.problem.classes));
        }
        tables
    }

    /// The array that is drawn for every training: `noise` \[T·B, noise\], if there is a generator whose
    /// noise is not simply learned.
    pub fn draws(&self, sizes: Sizes) -> Option<ArraySpec> {
        let generator = self.generator.filter(|_| self.noise != Noise::Learned)?;
        let shape = [sizes.steps * sizes.batch, generator.config().noise];
        Some(ArraySpec::new("noise", sizes.dtype, shape))
    }
}

/// A learner taught by what is learned. `order` \[T·B\] says which examples of the learned
/// [tables](Lesson::tables) each step takes. Classes are given as `y` \[T, B, classes\], unless they are
/// learned or made.
pub fn by_lesson<'a>(
    lesson: Lesson<'a>,
    learner: &'a Learner,
    sizes: Sizes,
    inner: &Inner,
) -> Training<'a> {
    let Sizes {
        problem,
        steps,
        batch,
        dtype,
        ..
    } = sizes;
    let [h, w, c] = problem.image;
    let mut training = inner.declare(sizes.learner(learner, inner.rule), steps, dtype);
    if let Some(generator) = lesson.generator {
        training = training
            .learned_list("generator", sizes.generator(generator))
            .prepare_list("generator", |s| generator.prepare(s.list("generator")));
    }
    let tables = lesson.tables(sizes);
    if !tables.is_empty() {
        training = training.given([ArraySpec::new("order", I32, [steps * batch])]);
    }
    training = training.learned(tables).given(lesson.draws(sizes));
    if let Some(generator) = lesson.generator {
        let noise = generator.config().noise;
        training = training.per_step(["z"]).prepare("z", move |s| {
            let z = match lesson.noise {
                Noise::Fresh => s["noise"],
                Noise::Learned => s["z"].rows(s["order"])?,
                Noise::Gaussian => {
                    let spread = s["log_spread"].rows(s["order"])?.exp()?;
                    (s["z"].rows(s["order"])? + (spread * s["noise"])?)?
                }
            };
            z.reshape([steps, batch, noise])
        });
    } else {
        training = training.per_step(["x"]).prepare("x", move |s| {
            let before_tanh = (s["pixels"].rows(s["order"])? * PIXEL_SPEED)?;
            let pixels = (before_tanh.tanh()? * PIXEL_RANGE)?;
            pixels.reshape([steps, batch, h, w, c])
        });
    }
    let shape = [steps, batch, problem.classes];
    if lesson.soft_labels {
        training = training.prepare("y", move |s| {
            let rows = s["label_logits"].rows(s["order"])?;
            rows.softmax()?.reshape(shape)
        });
    } else if !lesson.makes_labels() {
        training = training.given([ArraySpec::new("y", dtype, shape)]);
    }
    if !lesson.makes_labels() {
        training = training.per_step(["y"]);
    }
    training.loss_and_buffers(move |s| {
        let examples = match lesson.generator {
            Some(generator) if lesson.makes_labels() => {
                generator.images_and_labels(s.list("generator"), s["z"])?
            }
            Some(generator) => {
                let images = generator.images(s.list("generator"), s["z"], s["y"])?;
                [images, s["y"]]
            }
            None => [s["x"], s["y"]],
        };
        inner_loss(learner, s, examples)
    })
}

/// A learner taught by images `x` \[T, B, …\] with classes `y`. The caller declares these and the
/// hyper-parameters.
pub fn by_images(learner: &Learner, sizes: Sizes, rule: Rule) -> Training<'_> {
    sizes
        .learner(learner, rule)
        .per_step(["x", "y"])
        .loss_and_buffers(|s| inner_loss(learner, s, [s["x"], s["y"]]))
}

/// A learner taught by given images `x` \[T, B, …\], with labels from a labeller that is learned.
pub fn by_labeller<'a>(
    labeller: &'a Learner,
    learner: &'a Learner,
    sizes: Sizes,
    inner: &Inner,
) -> Training<'a> {
    let [images, _] = sizes.taught();
    let training = sizes.learner(learner, inner.rule);
    inner
        .declare(training, sizes.steps, sizes.dtype)
        .learned_list("labeller", sizes.labeller(labeller))
        .given([images])
        .per_step(["x"])
        .loss_and_buffers(|s| {
            let classes = named(labeller, s.list("labeller"), s["x"])?;
            inner_loss(learner, s, [s["x"], classes])
        })
}

/// The loss of learners on images with their classes, and the statistics that they leave.
fn inner_loss<'t>(
    learner: &Learner,
    s: &Scope<'t>,
    [images, classes]: [Var<'t>; 2],
) -> Result<(Var<'t>, Vec<Var<'t>>)> {
    let statistics = if learner.drops() {
        Statistics::Training(s[DROPPED])
    } else {
        Statistics::Batch
    };
    let (logits, buffers) = learner.logits(s.weights(), images, statistics)?;
    Ok((sum_of_losses(logits, classes)?, buffers))
}

/// Adds the outer loss: cross-entropy on real images `x_real` \[N, B, …\] with classes `y_real`, averaged
/// over learners. Batch norms use the statistics of the last synthetic batch.
pub fn with_real_loss<'a>(training: Training<'a>, learner: &'a Learner) -> Training<'a> {
    training.per_outer(["x_real", "y_real"]).outer(|s| {
        let statistics = Statistics::Stored(s.buffers());
        let (logits, _) = learner.logits(s.weights(), s["x_real"], statistics)?;
        mean_of_losses(logits, s["y_real"])
    })
}

/// Training images and their one-hot classes, as many as the batches hold, augmented by the random numbers of `draw` and
/// `number`.
///
/// # Errors
/// If more or fewer images are chosen than the batches hold.
pub fn real_batches(
    config: &Config,
    data: &Dataset,
    chosen: &[usize],
    [images, classes]: &[ArraySpec; 2],
    (draw, number): (Draw, u64),
) -> Result<[Array; 2]> {
    let (split, shape) = (&data.train, data.problem().image);
    let mut pixels = data.normalised(split, chosen);
    let random = &mut rng(config.seed, draw, number, 0);
    config
        .augment
        .apply(&mut pixels, shape, &data.black(), random);
    let labels: Vec<u16> = chosen.iter().map(|&i| split.labels[i]).collect();
    let labels = one_hot(&labels, data.problem().classes);
    Ok([
        Array::new(images.shape.clone(), pixels)?,
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
    makers: &'a Makers,
    learner: &'a Learner,
) -> Training<'a> {
    let (sizes, inner) = (Sizes::of(config, problem), Inner::of(config));
    let training = match (&makers.labeller, config.curriculum) {
        (Some(labeller), _) => by_labeller(labeller, learner, sizes, &inner),
        (None, Curriculum::RealData) => {
            let by_images = by_images(learner, sizes, inner.rule).given(sizes.taught());
            inner.declare(by_images, sizes.steps, sizes.dtype)
        }
        _ => by_lesson(config.lesson(&makers.generator), learner, sizes, &inner),
    };
    with_real_loss(training.given(real_loss_batches(config, problem)), learner)
}

/// The sum of the learners' losses. The gradient for one learner's weights is then that of its own loss
/// alone.
pub fn sum_of_losses<'t>(logits: Var<'t>, classes: Var<'t>) -> Result<Var<'t>> {
    logits.cross_entropy(classes)?.sum_all()
}

/// The mean of the learners' losses.
pub fn mean_of_losses<'t>(logits: Var<'t>, classes: Var<'t>) -> Result<Var<'t>> {
    logits.cross_entropy(classes)?.mean_all()
}
