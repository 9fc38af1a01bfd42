//! The teacher: everything that the outer loop learns, and what it gives a learner at every inner step.

use crate::data::Problem;
use crate::nn::{Generator, init};
use crate::outer::curriculum::{noise, one_hot};
use crate::outer::inner::Inner;
use crate::outer::training::Sizes;
use crate::run::config::Config;
use crate::seeds::{Draw, rng};
use autograd::prelude::*;

/// The meta-parameters: all that is learned in the outer loop.
#[derive(Debug)]
pub struct Teacher {
    /// What the learners learn.
    pub problem: Problem,
    /// The network that makes the images, of no use where real images teach.
    pub generator: Generator,
    /// The generator's parameters where it is of use, the hyper-parameters that are learned, and `z` \[T·B, noise\] where
    /// noise is learned; and what a training is given beside them.
    pub values: Values,
}

/// The arrays that are learned, in the order of the outer optimiser.
pub fn learned(config: &Config, problem: Problem, generator: &Generator) -> Vec<ArraySpec> {
    let sizes = Sizes::of(config, problem);
    let mut specs = Vec::new();
    if config.curriculum.generates() {
        specs.extend(sizes.generator(generator));
    }
    specs.extend(Inner::of(config).specs(sizes.steps, sizes.dtype));
    if config.curriculum.learns_noise() {
        specs.push(sizes.noise(config.noise));
    }
    specs
}

impl Teacher {
    /// Meta-parameters before the first outer step.
    ///
    /// # Errors
    /// If there is no such generator, or not enough memory.
    pub fn new(device: &Device, config: &Config, problem: Problem) -> Result<Self> {
        let generator = config.generator(problem)?;
        let sizes = Sizes::of(config, problem);
        let mut values = Values::zeros(device, &learned(config, problem, &generator))?;
        if config.curriculum.generates() {
            let rng = &mut rng(config.seed, Draw::Generator, 0, 0);
            let specs = sizes.generator(&generator);
            for (spec, array) in specs.iter().zip(init(generator.params(), F32, rng)?) {
                values.set(&spec.name, &array)?;
            }
        }
        Inner::of(config).start(&mut values, config.inner_steps)?;
        if config.curriculum.learns_noise() {
            let spec = sizes.noise(config.noise);
            let start = noise(spec.shape.count(), config.seed, 0);
            values.set("z", &Array::new(spec.shape, start)?)?;
        }
        Ok(Self {
            problem,
            generator,
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

    /// The classes of the training number `number` in the order in which they come: T·B.
    pub fn labels(&self, config: &Config, number: u64) -> Vec<u16> {
        let count = config.inner_steps * config.inner_batch;
        let classes = self.problem.classes;
        let labels = config
            .curriculum
            .labels(count, classes, config.seed, number);
        order(config, number).iter().map(|&i| labels[i]).collect()
    }

    /// The noise of the training number `number` in that order: \[T, B, noise\].
    ///
    /// # Errors
    /// If the device fails.
    pub fn noise(&self, config: &Config, number: u64) -> Result<Array> {
        let [steps, batch, size] = [config.inner_steps, config.inner_batch, config.noise];
        let numbers = if config.curriculum.learns_noise() {
            let learned = self.values.get("z")?;
            let learned = learned.as_f32().expect("it was made of f32");
            let example = |&i: &usize| &learned[i * size..][..size];
            order(config, number)
                .iter()
                .flat_map(example)
                .copied()
                .collect()
        } else {
            // Number 0 is the start of learned noise; evaluation may come with any number.
            noise(steps * batch * size, config.seed, number)
        };
        Ok(Array::new([steps, batch, size], numbers)?)
    }

    /// Makes ready for the training number `number`: classes, and noise or the order of what is learned of it.
    pub(crate) fn fill(&mut self, config: &Config, number: u64) -> Result<()> {
        let [steps, batch] = [config.inner_steps, config.inner_batch];
        let classes = self.problem.classes;
        let labels = one_hot(&self.labels(config, number), classes);
        let labels = Array::new([steps, batch, classes], labels)?;
        self.values.set("y", &labels)?;
        if config.curriculum.learns_noise() {
            self.values.set("order", &index(&order(config, number))?)
        } else {
            let noise = self.noise(config, number)?;
            self.values.set("z", &noise)
        }
    }
}

/// For every place in a training, T·B in all, the number of the example that stands there.
fn order(config: &Config, number: u64) -> Vec<usize> {
    let sizes = [config.inner_steps, config.inner_batch];
    config.curriculum.order(sizes, config.seed, number)
}

/// Numbers of rows, for the engine.
fn index(rows: &[usize]) -> Result<Array> {
    let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
    Ok(Array::new([rows.len()], rows)?)
}
