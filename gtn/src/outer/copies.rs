//! Copies of real images, with which a teacher may begin instead of noise.
//!
//! Images of noise teach nothing at first: it takes a thousand outer steps until they teach deep learners as
//! well as real images do. A teacher that begins with real images teaches as well from the start. Most of
//! dataset distillation begins so (Zhao, Mopuri and Bilen 2021, arXiv 2006.05929).

use crate::data::Dataset;
use crate::data::coreset::Choice;
use crate::error::{self, Error};
use crate::nn::Generator;
use crate::outer::curriculum::one_hot;
use crate::outer::teacher::{Teacher, index, learned_of};
use crate::outer::training::{PIXEL_RANGE, Sizes};
use crate::run::config::Config;
use autograd::Task;
use autograd::prelude::*;
use std::f64::consts::FRAC_PI_2;

/// Epochs in which a generator learns to make the copies, and Adam's initial learning rate, which falls to 0
/// along a cosine.
const PASSES: usize = 30;
const RATE: f64 = 0.01;
/// Copies are darker than white: where a tanh is nearly 1, a pixel would hardly move.
const BRIGHTEST: f64 = 0.93 * PIXEL_RANGE;

impl Teacher {
    /// Makes the synthetic images copies of real training images of their classes. Learned pixels are set to
    /// the copies; a generator is trained to make them from its noise.
    ///
    /// # Errors
    /// If a class has no training image, or the device fails.
    pub fn copy_real(
        &mut self,
        device: &Device,
        config: &Config,
        data: &Dataset,
    ) -> error::Result<()> {
        let count = config.example_count();
        let classes = self.problem.classes;
        let wanted = config.curriculum.labels(count, classes, config.seed, 0);
        let chosen = Choice::Random.of(&data.train, classes, count, config.seed);
        let fits = |(&image, &class): (&usize, &u16)| data.train.labels[image] == class;
        if !chosen.iter().zip(&wanted).all(fits) {
            let message = "a class has no training image, of which there are to be copies";
            return Err(Error::run(message).hint("--start-images noise"));
        }
        let bound = BRIGHTEST as f32;
        let mut pixels = data.normalised(&data.train, &chosen);
        pixels.iter_mut().for_each(|x| *x = x.clamp(-bound, bound));
        let generator = self.makers.generator.clone();
        if config.lesson(&generator).generator.is_some() {
            let classes = one_hot(&wanted, classes);
            return Ok(self.learn_to_make(device, config, &generator, [&pixels, &classes])?);
        }
        let shape = [count, self.problem.image_len()];
        let table = Array::new(
            shape,
            pixels.into_iter().map(learned_of).collect::<Vec<_>>(),
        )?;
        Ok(self.values.set("pixels", &table)?)
    }

    /// Trains a generator and its noise to make these pixels and one-hot classes. The loss is the mean
    /// squared error, in the batches that learners get; the first images fill up the last batch.
    fn learn_to_make(
        &self,
        device: &Device,
        config: &Config,
        generator: &Generator,
        [pixels, classes]: [&[f32]; 2],
    ) -> Result<()> {
        let sizes = Sizes::of(config, self.problem);
        let (examples, batch) = (sizes.examples, sizes.batch);
        let steps = PASSES * examples.div_ceil(batch);
        let z = config.lesson(generator).tables(sizes).swap_remove(0);
        let mut learned = sizes.generator(generator);
        learned.push(z);
        let [x, y] = sizes.batches(["x", "y"], 1, batch);
        let given = [ArraySpec::new("rows", I32, [1, batch]), x, y];

        let copying = copying(device, generator, &learned, &given)?;
        let (gradients, example) = (
            Values::zeros(device, &learned)?,
            Values::zeros(device, &given)?,
        );
        let descent = Descent::new(&gradients, Optimizer::Adam, &[])?;
        for step in 0..steps {
            let first = step % examples.div_ceil(batch) * batch;
            let rows: Vec<usize> = (first..first + batch).map(|row| row % examples).collect();
            example.write("rows", &index(&rows)?.reshape([1, batch])?)?;
            for (spec, all) in given[1..].iter().zip([pixels, classes]) {
                let size = spec.shape.count() / batch;
                let own = |&row: &usize| &all[row * size..][..size];
                let own: Vec<f32> = rows.iter().flat_map(own).copied().collect();
                example.write(&spec.name, &Array::new(spec.shape.clone(), own)?)?;
            }
            copying.run(|key| match key {
                Key::Given(i) => example.row(&given[i].name, 0),
                Key::Learned(i) => self.values.view(&learned[i].name),
                Key::Gradient(i) => gradients.view(&learned[i].name),
            })?;
            let done = step as f64 / steps as f64;
            let share = (FRAC_PI_2 * done).cos().powi(2);
            descent.set("lr", RATE * share)?;
            descent.step(&self.values, &gradients)?;
        }
        Ok(())
    }
}

/// The arrays that one training step reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Given(usize),
    Learned(usize),
    Gradient(usize),
}

/// The gradient, with respect to all that is learned, of the difference between given images and those that a
/// generator makes. It makes them of the given classes and of the noise in the given rows.
fn copying(
    device: &Device,
    generator: &Generator,
    learned: &[ArraySpec],
    given: &[ArraySpec],
) -> Result<Task<Key>> {
    let tape = Tape::new();
    let whole = |spec: &ArraySpec| tape.input(&spec.name, spec.dtype, spec.shape.clone());
    let one = |spec: &ArraySpec| tape.input(&spec.name, spec.dtype, &spec.shape[1..]);
    let theta: Vec<_> = learned.iter().map(whole).collect::<Result<_>>()?;
    let batch: Vec<_> = given.iter().map(one).collect::<Result<_>>()?;
    let (&z, params) = theta.split_last().expect("noise is the last");
    let [rows, x, y] = batch[..] else {
        unreachable!("rows, images and classes are given");
    };
    let (prepared, z) = (generator.prepare(params)?, z.rows(rows)?);
    let loss = if generator.config().labels {
        let [images, classes] = generator.images_and_labels(&prepared, z)?;
        (images.mean_squared_error(x)? + classes.mean_squared_error(y)?)?
    } else {
        generator.images(&prepared, z, y)?.mean_squared_error(x)?
    };
    let gradients = tape.grad(loss, &theta)?;
    let inputs = batch
        .iter()
        .enumerate()
        .map(|(i, &var)| (var, Key::Given(i)));
    let inputs = inputs.chain(
        theta
            .iter()
            .enumerate()
            .map(|(i, &var)| (var, Key::Learned(i))),
    );
    let outputs = gradients
        .iter()
        .enumerate()
        .map(|(i, &var)| (var, Key::Gradient(i)));
    Task::new(
        device,
        &inputs.collect::<Vec<_>>(),
        &outputs.collect::<Vec<_>>(),
    )
}
