//! What a training is given: labelled batches, synthetic or real, with hyper-parameters.

use crate::data::{Dataset, Problem};
use crate::device::{lack_of_memory, size};
use crate::error;
use crate::eval::rivals::RealImages;
use crate::nn::Learner;
use crate::outer::curriculum::{ImagesChoice, LabelsChoice};
use crate::outer::known::Known;
use crate::outer::makers::named;
use crate::outer::teacher::Teacher;
use crate::outer::training::{Sizes, real_batches};
use crate::run::config::Config;
use crate::seeds::Draw;
use autograd::Task;
use autograd::prelude::*;
use tensor::Arrays;

/// A name and \[T\] numbers for every hyper-parameter of an optimiser; \[T, roles\] of a rate by role.
pub type Hyper = [(&'static str, Array)];

/// T labelled batches with the hyper-parameters to train on them.
#[derive(Debug)]
pub struct TrainingData {
    /// Images `x` and one-hot classes `y` \[T, B, …\], and hyper-parameters \[T\].
    pub(super) values: Values,
    /// The classes, \[T, B\]; of labels that a network makes, the most probable class.
    pub labels: Vec<u16>,
}

impl TrainingData {
    /// What the teacher gives the training number `number`.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn taught(
        device: &Device,
        config: &Config,
        teacher: &Teacher,
        data: &Dataset,
        number: u64,
    ) -> Result<Self> {
        if config.curriculum.generates() {
            return Self::synthetic(device, config, teacher, number);
        }
        if let Some(labeller) = &teacher.makers.labeller {
            return Self::named(device, config, teacher, (data, labeller), number);
        }
        Self::real(device, config, data, number, &teacher.hyper(config)?)
    }

    /// Unlabelled real images with the classes that a labeller gives them.
    fn named(
        device: &Device,
        config: &Config,
        teacher: &Teacher,
        (data, labeller): (&Dataset, &Learner),
        number: u64,
    ) -> Result<Self> {
        let chosen = Known::of(config, &data.train).unlabelled(config, number);
        let hyper = teacher.hyper(config)?;
        let mut made = Self::of_images(device, config, data, (&chosen, number), &hyper)?;
        let sizes = Sizes::of(config, teacher.problem);
        let (tape, [images, _]) = (Tape::new(), sizes.taught());
        let specs = sizes.labeller(labeller);
        let mut given = inputs(&tape, &specs)?;
        let weights: Vec<_> = given.iter().map(|(weight, _)| *weight).collect();
        let x = tape.input("x", F32, &images.shape[1..])?;
        given.push((x, "x"));
        let task = Task::new(device, &given, &[(named(labeller, &weights, x)?, "y")])?;
        made.run(&task, teacher, config.inner_steps)?;
        made.labels = made.likeliest(teacher.problem.classes)?;
        Ok(made)
    }

    /// The synthetic images of the training number `number`.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn synthetic(
        device: &Device,
        config: &Config,
        teacher: &Teacher,
        number: u64,
    ) -> Result<Self> {
        let (problem, generator) = (teacher.problem, &teacher.makers.generator);
        let sizes = Sizes::of(config, problem);
        let [x, y] = sizes.taught();
        let makes_labels = config.labels == LabelsChoice::Generator;
        let labels = teacher.labels(config, number);
        let classes = if makes_labels {
            Array::zeros(F32, y.shape.clone())
        } else {
            teacher.classes(config, number)?
        };
        let mut made = Self::new(device, labels, &classes, &teacher.hyper(config)?)?;
        if config.images == ImagesChoice::Pixels {
            made.values.set("x", &teacher.pixels(config, number)?)?;
            return Ok(made);
        }
        made.values.set("z", &teacher.noise(config, number)?)?;

        let tape = Tape::new();
        let specs = sizes.generator(generator);
        let mut given = inputs(&tape, &specs)?;
        let weights: Vec<_> = given.iter().map(|(weight, _)| *weight).collect();
        let z = tape.input("z", F32, [config.inner_batch, config.noise])?;
        given.push((z, "z"));
        let weights = generator.prepare(&weights)?;
        let wanted = if makes_labels {
            let [images, classes] = generator.images_and_labels(&weights, z)?;
            vec![(images, "x"), (classes, "y")]
        } else {
            let y = tape.input("y", F32, &y.shape[1..])?;
            given.push((y, "y"));
            vec![(generator.images(&weights, z, y)?, "x")]
        };
        made.values.reserve(x)?;
        let task = Task::new(device, &given, &wanted)?;
        made.run(&task, teacher, config.inner_steps)?;
        if makes_labels {
            made.labels = made.likeliest(problem.classes)?;
        }
        Ok(made)
    }

    /// Runs a network of the teacher at every step.
    fn run(&self, task: &Task<&str>, teacher: &Teacher, steps: usize) -> Result<()> {
        (0..steps).try_for_each(|step| {
            task.run(|name| match name {
                "x" | "y" | "z" => self.values.row(name, step),
                weight => teacher.values.view(weight),
            })
        })
    }

    /// The likeliest class of every image.
    fn likeliest(&self, classes: usize) -> Result<Vec<u16>> {
        let shares = self.values.get("y")?.to_f64_vec();
        let first_of_most = |row: &[f64]| {
            let better = |best: usize, i: usize| if row[i] > row[best] { i } else { best };
            (1..classes).fold(0, better) as u16
        };
        Ok(shares.chunks_exact(classes).map(first_of_most).collect())
    }

    /// Refuses `count` trainings whose images do not fit into the host's memory.
    ///
    /// # Errors
    /// If they do.
    pub fn check_memory(config: &Config, problem: Problem, count: usize) -> error::Result<()> {
        let numbers = problem.image_len() + problem.classes;
        let batches = config.inner_steps as f64 * config.inner_batch as f64;
        let wanted = count as f64 * batches * numbers as f64 * size_of::<f32>() as f64;
        let Some(why) = lack_of_memory(wanted) else {
            return Ok(());
        };
        Err(error::Error::engine(format!(
            "the images of {} steps of {} take {} of memory, and {why}",
            config.inner_steps,
            config.inner_batch,
            size(wanted)
        )))
    }

    /// Real images drawn uniformly.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn real(
        device: &Device,
        config: &Config,
        data: &Dataset,
        number: u64,
        hyper: &Hyper,
    ) -> Result<Self> {
        let chosen = RealImages::Fresh.numbers(config, data, number);
        Self::of_images(device, config, data, (&chosen, number), hyper)
    }

    /// Chosen training images, augmented as in the training number `number`.
    ///
    /// # Errors
    /// If there are other than T·B, or not enough memory.
    pub fn of_images(
        device: &Device,
        config: &Config,
        data: &Dataset,
        (chosen, number): (&[usize], u64),
        hyper: &Hyper,
    ) -> Result<Self> {
        let labels = chosen.iter().map(|&i| data.train.labels[i]).collect();
        let specs = Sizes::of(config, data.problem()).taught();
        let [images, classes] =
            real_batches(config, data, chosen, &specs, (Draw::Augment, number))?;
        let mut real = Self::new(device, labels, &classes, hyper)?;
        real.values.set("x", &images)?;
        Ok(real)
    }

    /// Classes and hyper-parameters, without images.
    fn new(device: &Device, labels: Vec<u16>, classes: &Array, hyper: &Hyper) -> Result<Self> {
        let hyper = hyper.iter().map(|(name, numbers)| (*name, numbers));
        let values = Values::new(device, [("y", classes)].into_iter().chain(hyper))?;
        Ok(Self { values, labels })
    }

    /// The same data with the learning rates multiplied by a share.
    ///
    /// # Errors
    /// If the device fails.
    pub(super) fn with_share_of_rates(mut self, share: f64) -> Result<Self> {
        let rates = self.values.get("lr")?;
        let scaled = rates.to_f64_vec().into_iter().map(|lr| (lr * share) as f32);
        let scaled = Array::new(rates.shape().clone(), scaled.collect::<Vec<_>>())?;
        self.values.set("lr", &scaled)?;
        Ok(self)
    }

    /// All of it by name: `x`, `y`, and the hyper-parameters.
    ///
    /// # Errors
    /// If the device fails.
    pub fn arrays(&self, optimizer: Optimizer) -> Result<Arrays> {
        let hyper = optimizer.hyper().iter().map(|(name, _)| *name);
        let array = |name: &str| Ok((name.to_owned(), self.values.get(name)?));
        ["x", "y"].into_iter().chain(hyper).map(array).collect()
    }

    /// The noise from which a generator made the images, if one did: \[T, B, noise\].
    ///
    /// # Errors
    /// If the device fails.
    pub fn noise(&self) -> Result<Option<Array>> {
        let has = self.values.has("z");
        has.then(|| self.values.get("z")).transpose()
    }

    /// Restores on a device what [`TrainingData::arrays`] gave.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn from_arrays(device: &Device, arrays: &Arrays, labels: Vec<u16>) -> Result<Self> {
        let named = arrays.iter().map(|(name, array)| (name.as_str(), array));
        let values = Values::new(device, named)?;
        Ok(Self { values, labels })
    }

    /// The images, \[T, B, rows, columns, channels\].
    ///
    /// # Errors
    /// If the device fails.
    pub fn images(&self) -> Result<Vec<f32>> {
        let images = self.values.get("x")?;
        Ok(images.as_f32().expect("they are f32").to_vec())
    }
}

/// Inputs for a network's weights, with their names.
fn inputs<'t, 's>(tape: &'t Tape, specs: &'s [ArraySpec]) -> Result<Vec<(Var<'t>, &'s str)>> {
    let input = |spec: &'s ArraySpec| {
        let weight = tape.input(&spec.name, spec.dtype, spec.shape.clone())?;
        Ok((weight, spec.name.as_str()))
    };
    specs.iter().map(input).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_images_than_any_memory_holds_are_refused() {
        use crate::run::config::Preset;
        let config = Config {
            inner_steps: 1 << 20,
            inner_batch: 1 << 20,
            ..Config::preset(Preset::Quick)
        };
        let error = TrainingData::check_memory(&config, Problem::MNIST, 1).unwrap_err();
        let wanted = "the images of 1048576 steps of 1048576 take 3252224.0 GiB of memory, and ";
        assert!(error.to_string().starts_with(wanted), "{error}");
        let one = Config::preset(Preset::Quick);
        assert_eq!(TrainingData::check_memory(&one, Problem::MNIST, 1), Ok(()));
        assert!(TrainingData::check_memory(&one, Problem::MNIST, 1 << 40).is_err());
    }

    #[test]
    fn a_share_of_the_rates_changes_nothing_else() {
        let array = |shape: &[usize], numbers: &[f32]| Array::new(shape, numbers.to_vec()).unwrap();
        let given: Arrays = [
            ("x", array(&[2, 1], &[1.0, 2.0])),
            ("y", array(&[2, 1], &[0.0, 1.0])),
            ("lr", array(&[2, 2], &[0.5, 0.25, 4.0, 3.0])),
            ("momentum", array(&[2], &[0.9, 0.5])),
        ]
        .map(|(name, array)| (name.to_owned(), array))
        .into();
        let device = Device::cpu(Some(1)).unwrap();
        let data = TrainingData::from_arrays(&device, &given, vec![0, 1]).unwrap();
        let shared = data.with_share_of_rates(0.5).unwrap();
        let mut expected = given.clone();
        expected.insert("lr".into(), array(&[2, 2], &[0.25, 0.125, 2.0, 1.5]));
        assert_eq!(shared.arrays(Optimizer::Momentum).unwrap(), expected);
    }
}
