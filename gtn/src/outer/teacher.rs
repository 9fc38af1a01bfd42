//! The teacher: everything that the outer loop learns, and what it gives a learner at every inner step.

use crate::data::Problem;
use crate::nn::init;
use crate::outer::curriculum::{LabelsChoice, Noise, noise, one_hot};
use crate::outer::inner::Inner;
use crate::outer::makers::Makers;
use crate::outer::training::{PIXEL_RANGE, PIXEL_SPEED, Sizes};
use crate::run::config::Config;
use crate::seeds::{Draw, rng};
use autograd::prelude::*;

/// The meta-parameters: all that is learned in the outer loop.
#[derive(Debug)]
pub struct Teacher {
    /// What the learners learn.
    pub problem: Problem,
    /// The networks that make images, or label them.
    pub makers: Makers,
    /// All that is learned: parameters of the networks in use, hyper-parameters, and tables with a row for
    /// each example ([`tables`](crate::outer::training::Lesson::tables)). Also what a training is given
    /// beside these.
    pub values: Values,
}

/// The arrays that are learned, in the order of the outer optimiser.
pub fn learned(config: &Config, problem: Problem, makers: &Makers) -> Vec<ArraySpec> {
    let sizes = Sizes::of(config, problem);
    let inner = Inner::of(config);
    let hyper = inner.specs(sizes.steps, sizes.dtype);
    if !config.curriculum.generates() {
        let labeller = makers.labeller.iter();
        let labeller = labeller.flat_map(|labeller| sizes.labeller(labeller));
        return labeller.chain(hyper).collect();
    }
    let lesson = config.lesson(&makers.generator);
    let mut specs = lesson
        .generator
        .map_or_else(Vec::new, |generator| sizes.generator(generator));
    specs.extend(hyper);
    specs.extend(lesson.tables(sizes));
    specs
}

impl Teacher {
    /// Meta-parameters before the first outer step.
    ///
    /// # Errors
    /// As [`Makers::of`], or if there is not enough memory.
    pub fn new(device: &Device, config: &Config, problem: Problem) -> Result<Self> {
        let makers = Makers::of(config, problem)?;
        let sizes = Sizes::of(config, problem);
        let mut values = Values::zeros(device, &learned(config, problem, &makers))?;
        Inner::of(config).start(&mut values, config.inner_steps)?;
        if config.curriculum.generates() {
            let lesson = config.lesson(&makers.generator);
            if let Some(generator) = lesson.generator {
                let rng = &mut rng(config.seed, Draw::Generator, 0, 0);
                let arrays = init(generator.params(), F32, rng)?;
                set(&mut values, &sizes.generator(generator), &arrays)?;
            }
            for spec in lesson.tables(sizes) {
                let numbers = start(&spec, config, problem);
                values.set(&spec.name, &Array::new(spec.shape, numbers)?)?;
            }
        }
        if let Some(labeller) = &makers.labeller {
            let rng = &mut rng(config.seed, Draw::Labeller, 0, 0);
            let arrays = init(labeller.params(), F32, rng)?;
            set(&mut values, &sizes.labeller(labeller), &arrays)?;
        }
        Ok(Self {
            problem,
            makers,
            values,
        })
    }

    /// The hyper-parameters of every inner step: their names, and \[T\] numbers each.
    ///
    /// # Errors
    /// If the device fails.
    pub fn hyper(&self, config: &Config) -> Result<Vec<(&'static str, Array)>> {
        Inner::of(config).values(&self.values, config.inner_steps)
    }

    /// The classes of the training number `number` in the order of the training, T·B of them. Where soft
    /// labels are learned, these are the classes that they began with.
    pub fn labels(&self, config: &Config, number: u64) -> Vec<u16> {
        let labels = labels(config, self.problem, number);
        order(config, number).iter().map(|&i| labels[i]).collect()
    }

    /// The labels as distributions over classes: \[T, B, classes\].
    ///
    /// # Errors
    /// If the device fails.
    pub fn classes(&self, config: &Config, number: u64) -> Result<Array> {
        let classes = self.problem.classes;
        let rows = if config.labels == LabelsChoice::Soft {
            let logits = self.rows("label_logits", config, number)?;
            logits.chunks_exact(classes).flat_map(softmax).collect()
        } else {
            one_hot(&self.labels(config, number), classes)
        };
        let shape = [config.inner_steps, config.inner_batch, classes];
        Ok(Array::new(shape, rows)?)
    }

    /// The images of the training number `number`, if pixels are learned: \[T, B, rows, columns, channels\].
    ///
    /// # Errors
    /// If the device fails.
    pub fn pixels(&self, config: &Config, number: u64) -> Result<Array> {
        let pixels = self.rows("pixels", config, number)?.into_iter();
        let pixels: Vec<f32> = pixels.map(pixel).collect();
        let [h, w, c] = self.problem.image;
        let shape = [config.inner_steps, config.inner_batch, h, w, c];
        Ok(Array::new(shape, pixels)?)
    }

    /// The noise of the training number `number` in the order of the training: \[T, B, noise\].
    ///
    /// # Errors
    /// If the device fails.
    pub fn noise(&self, config: &Config, number: u64) -> Result<Array> {
        let [steps, batch, size] = [config.inner_steps, config.inner_batch, config.noise];
        // Number 0 is the start of learned noise; evaluation may come with any number.
        let drawn = || noise(steps * batch * size, config.seed, number);
        let numbers = match config.curriculum.noise() {
            Noise::Fresh => drawn(),
            Noise::Learned => self.rows("z", config, number)?,
            Noise::Gaussian => {
                let spread = self.rows("log_spread", config, number)?.into_iter();
                let around = self.rows("z", config, number)?.into_iter().zip(spread);
                let noise = around.zip(drawn());
                noise
                    .map(|((mean, spread), unit)| mean + spread.exp() * unit)
                    .collect()
            }
        };
        Ok(Array::new([steps, batch, size], numbers)?)
    }

    /// The rows of a table of examples, in the order of a training.
    fn rows(&self, table: &str, config: &Config, number: u64) -> Result<Vec<f32>> {
        let table = self.values.get(table)?;
        let width = table.shape()[1];
        let table = table.as_f32().expect("it was made of f32");
        let row = |&i: &usize| &table[i * width..][..width];
        Ok(order(config, number)
            .iter()
            .flat_map(row)
            .copied()
            .collect())
    }

    /// Draws what the training number `number` needs: labels, order and noise.
    pub(crate) fn fill(&mut self, config: &Config, number: u64) -> Result<()> {
        if config.labels == LabelsChoice::Fixed {
            self.values.set("y", &self.classes(config, number)?)?;
        }
        if config.curriculum.learns_examples() {
            self.values.set("order", &index(&order(config, number))?)?;
        }
        let sizes = Sizes::of(config, self.problem);
        if let Some(spec) = config.lesson(&self.makers.generator).draws(sizes) {
            let numbers = noise(spec.shape.count(), config.seed, number);
            self.values
                .set(&spec.name, &Array::new(spec.shape, numbers)?)?;
        }
        Ok(())
    }
}

/// The pixel that a learned number stands for.
fn pixel(learned: f32) -> f32 {
    (learned * PIXEL_SPEED as f32).tanh() * PIXEL_RANGE as f32
}

/// The learned number that stands for a pixel: the inverse of [`pixel`].
pub(super) fn learned_of(pixel: f32) -> f32 {
    (pixel / PIXEL_RANGE as f32).atanh() / PIXEL_SPEED as f32
}

/// Puts arrays in their places.
fn set(values: &mut Values, specs: &[ArraySpec], arrays: &[Array]) -> Result<()> {
    values.set_all(specs.iter().map(|spec| spec.name.as_str()).zip(arrays))
}

/// At the start: the probability of an image's own class in a soft label, and the standard deviation of noise
/// and pixels.
const FIRST_SHARE: f32 = 0.9;
const FIRST_SPREAD: f32 = 0.3;

/// A table before the first outer step.
fn start(table: &ArraySpec, config: &Config, problem: Problem) -> Vec<f32> {
    let count = table.shape.count();
    match table.name.as_str() {
        "log_spread" => vec![FIRST_SPREAD.ln(); count],
        "label_logits" => {
            let others = (1.0 - FIRST_SHARE) / (problem.classes - 1) as f32;
            let own = (FIRST_SHARE / others).ln();
            let hot = one_hot(&labels(config, problem, 0), problem.classes);
            hot.into_iter().map(|share| own * share).collect()
        }
        "pixels" => {
            let drawn = noise(count, config.seed, 0).into_iter();
            drawn
                .map(|x| FIRST_SPREAD / PIXEL_SPEED as f32 * x)
                .collect()
        }
        _ => noise(count, config.seed, 0),
    }
}

/// The class of every example of the training number `number`.
fn labels(config: &Config, problem: Problem, number: u64) -> Vec<u16> {
    let count = config.example_count();
    let curriculum = config.curriculum;
    curriculum.labels(count, problem.classes, config.seed, number)
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|x| (x - max).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// For each of the T·B places in a training, the number of the example there.
fn order(config: &Config, number: u64) -> Vec<usize> {
    let sizes = [config.inner_steps, config.inner_batch];
    let examples = config.example_count();
    let curriculum = config.curriculum;
    curriculum.order(sizes, examples, config.seed, number)
}

/// Numbers of rows, for the engine.
pub(super) fn index(rows: &[usize]) -> Result<Array> {
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    Ok(Array::new([rows.len()], rows)?)
}
