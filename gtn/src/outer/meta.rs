//! Meta-training: every outer step trains a fresh learner (or several at once) on what the generator makes, and
//! moves the generator, the noise and the inner hyper-parameters along the gradient of the learner's loss (or
//! their mean) on real data.

use crate::data::{Dataset, Problem};
use crate::error;
use crate::outer::curriculum::Curriculum;
use crate::outer::pupils::{self, Class, Mean, Pupil, Pupils};
use crate::outer::teacher::{Teacher, learned};
use crate::outer::training::{Sizes, real_batches, real_loss_batches};
use crate::ranks::Ranks;
use crate::run::config::Config;
use crate::seeds::{Draw, draw_images, rng};
use autograd::prelude::*;
use autograd::{Losses, Trouble};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use tensor::Arrays;

/// What happened in an outer step. Losses are means over its learners.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Step {
    /// The sum of the losses on real data.
    pub meta_loss: f64,
    /// The last of them: that of the trained learner.
    pub real_loss: f64,
    /// The inner loss at the last inner step.
    pub inner_loss: f64,
    /// The norm of the meta-gradient.
    pub gradient_norm: f64,
    /// The widths of this step's learners, in places of their family; of several structures those of all.
    pub widths: Vec<usize>,
    /// Of a population the families of this step's learners, one for each structure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<String>,
}

impl Step {
    /// Adds learners of one structure, with their share of the step's.
    fn add(&mut self, losses: &Losses, class: &Class, share: f64) {
        let last = |losses: &[f64]| *losses.last().expect("there is at least one step");
        self.meta_loss += share * losses.total();
        self.real_loss += share * last(&losses.outer);
        self.inner_loss += share * last(&losses.inner) / class.learners as f64;
        self.widths.extend(&class.drawn.widths);
        self.families.push(class.drawn.family.clone());
    }

    /// Adds the learners of another lot.
    fn add_lot(&mut self, lot: Self) {
        self.meta_loss += lot.meta_loss;
        self.real_loss += lot.real_loss;
        self.inner_loss += lot.inner_loss;
        self.widths.extend(lot.widths);
        self.families.extend(lot.families);
    }
}

/// The outer loop.
#[derive(Debug)]
pub struct MetaTrainer {
    device: Device,
    config: Config,
    teacher: Teacher,
    adam: Descent,
    pupils: Pupils,
    /// The mean of meta-gradients, where there are several in an outer step.
    mean: Option<Mean>,
    /// The learners of the lot that comes next, drawn while a GPU works on another.
    next: Option<(Lot, Vec<Class>)>,
    /// Those who train the lots of an outer step.
    ranks: Ranks,
    outer_step: u64,
    watch: bool,
}

/// A lot of learners: its outer step, and its number there.
type Lot = (u64, usize);

impl MetaTrainer {
    /// Before the first outer step.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(device: &Device, config: &Config, problem: Problem) -> Result<Self> {
        let teacher = Teacher::new(device, config, problem)?;
        let learned = learned(config, problem, &teacher.generator);
        let gradients = Values::zeros(device, &learned)?;
        let adam = Descent::new(
            &gradients,
            Optimizer::Adam,
            &[
                ("beta1", config.outer_beta1),
                ("beta2", config.outer_beta2),
                ("eps", config.outer_eps),
            ],
        )?;
        Ok(Self {
            adam,
            pupils: Pupils::new(device),
            mean: None,
            next: None,
            ranks: Ranks::alone(),
            teacher,
            device: device.clone(),
            config: config.clone(),
            outer_step: 0,
            watch: false,
        })
    }

    /// Shares the learners of an outer step with other ranks, who have trainers in the same state.
    ///
    /// # Errors
    /// If there are more ranks than [lots](Config::lots) of learners.
    pub fn among(mut self, ranks: &Ranks) -> error::Result<Self> {
        let (count, lots) = (ranks.count(), self.config.lots().len());
        if count > lots {
            let learners = self.config.learners_per_step;
            let message = format!(
                "there are {count} ranks, and the learners of an outer step, {learners}, are trained in {lots} lots"
            );
            let (needed, most) = (learners.max(count), learners.max(count) / count);
            return Err(error::Error::usage(message).hint(format!(
                "--learners-per-step {needed} --learners-at-once {most} gives every rank some"
            )));
        }
        self.ranks = ranks.clone();
        Ok(self)
    }

    /// How many outer steps are done.
    pub fn outer_step(&self) -> u64 {
        self.outer_step
    }

    /// What has been learned.
    pub fn teacher(&self) -> &Teacher {
        &self.teacher
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// From now on outer steps also measure the cotangents of the learner's weights, or no longer: see
    /// [`Unroll::watch_cotangents`].
    pub fn watch_cotangents(&mut self, watch: bool) {
        self.watch = watch;
    }

    /// What goes wrong with the last outer step's cotangents, if they were watched.
    pub fn trouble(&self) -> Option<Trouble> {
        let norms = self.pupils.last()?.unroll.cotangent_norms()?;
        norms.trouble(Trouble::FACTOR)
    }

    /// Everything that the next outer step depends on, by name.
    ///
    /// # Errors
    /// If the device fails.
    pub fn arrays(&self) -> Result<Arrays> {
        let named = |(values, name, key): (&Values, String, String)| Ok((key, values.get(&name)?));
        self.parts().into_iter().map(named).collect()
    }

    /// As [`MetaTrainer::arrays`], for a checkpoint.
    ///
    /// # Errors
    /// If a number is not finite: what the last outer step moved is of no use. Or if the device fails.
    pub fn finite_arrays(&self) -> error::Result<Arrays> {
        let arrays = self.arrays()?;
        let Some((name, _)) = arrays.iter().find(|(_, array)| !array.all_finite()) else {
            return Ok(arrays);
        };
        let step = self.outer_step.saturating_sub(1);
        let (lr, eps) = (self.config.outer_lr_at(step), self.config.outer_eps);
        let what = format!("array {name}, moved with the rate {lr:.3e} and outer_eps {eps:e},");
        Err(not_finite(step, &what))
    }

    /// Begins with what another run has learned; the outer optimiser begins anew.
    ///
    /// # Errors
    /// With the name of an array that is missing, or of another shape.
    pub fn begin_with(&mut self, arrays: &Arrays) -> error::Result<()> {
        let mut begun = self.arrays()?;
        for (key, array) in begun
            .iter_mut()
            .filter(|(key, _)| !key.starts_with("adam."))
        {
            let missing = || error::Error::run(format!("array {key} is missing"));
            *array = arrays.get(key).ok_or_else(missing)?.clone();
        }
        self.restore(&begun, 0)
    }

    /// Takes up where [`MetaTrainer::arrays`] were taken, after `outer_step` outer steps.
    ///
    /// # Errors
    /// With the name of an array that is missing, of another shape, or not finite; the trainer is of no
    /// use then.
    pub fn restore(&mut self, arrays: &Arrays, outer_step: u64) -> error::Result<()> {
        for (values, name, key) in self.parts() {
            let wrong = |problem| error::Error::run(format!("array {key} {problem}"));
            let array = arrays.get(&key).ok_or_else(|| wrong("is missing"))?;
            if !array.all_finite() {
                return Err(wrong("has numbers that are not finite"));
            }
            let written = values.write(&name, array);
            written.map_err(|e| error::Error::run(e).at(format!("array {key}")))?;
        }
        self.outer_step = outer_step;
        Ok(())
    }

    /// The arrays of a checkpoint: where each is, its name there, and its name in the checkpoint.
    fn parts(&self) -> Vec<(&Values, String, String)> {
        let learned = self.learned().into_iter().map(|spec| {
            let generator = spec.name.starts_with("generator.");
            let key = if generator {
                spec.name.clone()
            } else {
                format!("learned.{}", spec.name)
            };
            (&self.teacher.values, spec.name, key)
        });
        let adam = self.adam.state().specs().map(|spec| {
            let key = format!("adam.{}", spec.name.replace("generator.", ""));
            (self.adam.state(), spec.name.clone(), key)
        });
        learned.chain(adam).collect()
    }

    /// One outer step, whose real images are drawn from the training part of a data set. The host waits for a GPU once: for losses and norm,
    /// before anything is changed.
    ///
    /// # Errors
    /// If a number is not finite: then nothing was changed. Or if the engine fails.
    pub fn step(&mut self, data: &Dataset) -> error::Result<Step> {
        self.give_data(data)?;
        let mut step = match self.config.lots().len() {
            1 => self.train_lot(0)?,
            lots => self.train_lots(lots)?,
        };
        if !self.is_whole() {
            self.adam.measure(self.gradients())?;
        }
        step.gradient_norm = self.update(self.gradients())?;
        if !self.config.population().is_mixed() {
            step.families.clear();
        }
        self.outer_step += 1;
        Ok(step)
    }

    /// Trains the learners of a lot, for their part of the meta-gradient.
    fn train_lot(&mut self, lot: usize) -> error::Result<Step> {
        let mut step = Step::default();
        for (i, class) in self.fresh((self.outer_step, lot))?.iter().enumerate() {
            let pupil = self.queue_gradient(class)?;
            let share = class.learners as f64 / self.config.learners_per_step as f64;
            if share == 1.0 {
                self.adam.measure(pupil.unroll.gradients())?;
            }
            if i == 0 {
                self.next = Some(self.draw(self.following(lot))?);
            }
            step.add(&self.losses(&pupil)?, class, share);
            if share < 1.0 {
                let gradients = pupil.unroll.gradients();
                self.mean()?.add(gradients, share, i == 0)?;
            }
            self.pupils.keep(pupil);
        }
        Ok(step)
    }

    /// Trains all lots, those of this rank here. The meta-gradient is the sum of their parts, first to last.
    fn train_lots(&mut self, lots: usize) -> error::Result<Step> {
        let ranks = self.ranks.clone();
        let length = self.learned().iter().map(|spec| spec.shape.count()).sum();
        let (mut sum, mut step) = (ranks.sum(length), Step::default());
        for first in (0..lots).step_by(ranks.count()) {
            let own = first + ranks.number();
            let mut part = None;
            let found = (own < lots).then(|| {
                let step = self.train_lot(own)?;
                part = Some(self.mean()?.numbers()?);
                Ok(step)
            });
            let found = ranks.gather(found.transpose())?;
            found
                .into_iter()
                .flatten()
                .for_each(|lot| step.add_lot(lot));
            sum.add(part, ranks.count().min(lots - first));
        }
        self.mean()?.set_numbers(&sum.total())?;
        Ok(step)
    }

    /// Whether all learners of the last outer step had one structure and one lot.
    fn is_whole(&self) -> bool {
        let last = self.pupils.last();
        last.is_some_and(|pupil| pupil.learners() == self.config.learners_per_step)
    }

    /// The meta-gradient of the last outer step.
    fn gradients(&self) -> &Values {
        match (&self.mean, self.pupils.last()) {
            (Some(mean), _) if !self.is_whole() => mean.gradients(),
            (_, last) => last.expect("it was kept").unroll.gradients(),
        }
    }

    /// The mean of several meta-gradients; its memory is taken when the first comes.
    fn mean(&mut self) -> Result<&mut Mean> {
        if self.mean.is_none() {
            self.mean = Some(Mean::new(&self.device, &self.learned())?);
        }
        Ok(self.mean.as_mut().expect("it was just made"))
    }

    fn learned(&self) -> Vec<ArraySpec> {
        learned(&self.config, self.teacher.problem, &self.teacher.generator)
    }

    /// Computes the meta-gradient of learners, which is with the pupil then. Nobody waits.
    fn queue_gradient(&mut self, class: &Class) -> Result<Pupil> {
        let Teacher {
            generator, problem, ..
        } = &self.teacher;
        let mut pupil = self.pupils.take(class, &self.config, *problem, generator)?;
        class.start(&mut self.teacher.values)?;
        pupil.unroll.watch_cotangents(self.watch);
        pupil.unroll.queue_gradient(&self.teacher.values)?;
        Ok(pupil)
    }

    /// Gives noise, labels and real images for an outer step.
    fn give_data(&mut self, data: &Dataset) -> Result<()> {
        let (config, problem) = (&self.config, self.teacher.problem);
        if config.curriculum == Curriculum::RealData {
            let count = config.inner_steps * config.inner_batch;
            let taught = draw_images(config.seed, self.outer_step, count, data.train.len());
            let batches = Sizes::of(config, problem).taught();
            self.give(data, &taught, &batches, Draw::Augment)?;
        } else {
            self.teacher.fill(config, self.outer_step)?;
        }
        let chosen = self.choose_real(data.train.len());
        let batches = real_loss_batches(&self.config, problem);
        self.give(data, &chosen, &batches, Draw::OuterAugment)
    }

    /// Puts real images and their classes on the device.
    fn give(
        &mut self,
        data: &Dataset,
        chosen: &[usize],
        batches: &[ArraySpec; 2],
        augment: Draw,
    ) -> Result<()> {
        let draw = (augment, self.outer_step);
        let arrays = real_batches(&self.config, data, chosen, batches, draw)?;
        for (spec, array) in batches.iter().zip(&arrays) {
            self.teacher.values.set(&spec.name, array)?;
        }
        Ok(())
    }

    /// The learners of a lot.
    fn fresh(&mut self, lot: Lot) -> Result<Vec<Class>> {
        let drawn = self.next.take().filter(|(next, _)| *next == lot);
        let (_, classes) = drawn.map_or_else(|| self.draw(lot), Ok)?;
        Ok(classes)
    }

    /// The lot that this rank trains after another.
    fn following(&self, lot: usize) -> Lot {
        let next = lot + self.ranks.count();
        if next < self.config.lots().len() {
            (self.outer_step, next)
        } else {
            (self.outer_step + 1, self.ranks.number())
        }
    }

    fn draw(&self, lot: Lot) -> Result<(Lot, Vec<Class>)> {
        let (outer_step, number) = lot;
        let numbers = self.config.lots()[number].clone();
        let classes = pupils::draw(&self.config, self.teacher.problem, outer_step, numbers)?;
        Ok((lot, classes))
    }

    /// Draws the real images of the outer losses, out of `count`.
    fn choose_real(&self, count: usize) -> Vec<usize> {
        let of_loss = |number: usize| {
            let (seed, outer_step) = (self.config.seed, self.outer_step);
            let mut rng = rng(seed, Draw::OuterBatch, outer_step, number as u64);
            let any = move |_| rng.random_range(0..count);
            (0..self.config.outer_batch).map(any)
        };
        (0..self.config.outer_count()).flat_map(of_loss).collect()
    }

    /// The losses of a meta-gradient, when it is done.
    fn losses(&self, pupil: &Pupil) -> error::Result<Losses> {
        let step = self.outer_step;
        pupil.unroll.losses().map_err(|error| match error {
            Error::NotFinite { what, step: inner } => {
                not_finite(step, &format!("{what} at inner step {inner}"))
            }
            error => error.into(),
        })
    }

    /// Moves the meta-parameters; gives the norm of the meta-gradient.
    fn update(&self, gradients: &Values) -> error::Result<f64> {
        let norm = self.adam.measured()?;
        if !norm.is_finite() {
            return Err(not_finite(self.outer_step, "meta-gradient"));
        }
        let config = &self.config;
        let scale = if config.clip > 0.0 {
            (config.clip / norm).min(1.0)
        } else {
            1.0
        };
        self.adam.set("scale", scale)?;
        self.adam.set("lr", config.outer_lr_at(self.outer_step))?;
        self.adam.step(&self.teacher.values, gradients)?;
        Ok(norm)
    }
}

/// Numbers ran away. The meta-parameters are those before the step.
fn not_finite(outer_step: u64, what: &str) -> error::Error {
    let message = format!("outer step {outer_step}: the {what} is not finite");
    error::Error::new(error::ErrorKind::NotFinite, message)
        .hint("a smaller --outer-lr or --inner-lr, or --clip, may help")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Augment;
    use crate::nn::{Learners, Norm};
    use crate::outer::curriculum::{Curriculum, ImagesChoice, LabelsChoice};
    use crate::outer::inner::OptimizerChoice;
    use crate::run::config::{Config, Preset};
    use clap::ValueEnum;

    fn config(curriculum: Curriculum) -> Config {
        Config {
            curriculum,
            outer_steps: 4,
            inner_steps: 3,
            inner_batch: 10,
            outer_batch: 20,
            outer_every: 2,
            widths: "2-3,3-4,4".parse().unwrap(),
            noise: 4,
            generator_hidden: 8,
            generator_channels: [3, 2],
            norm: Norm::MeanOnly,
            inner_lr: 0.02,
            ..Config::preset(Preset::Quick)
        }
    }

    fn data() -> Dataset {
        Dataset::drawn(1, [100, 50, 50])
    }

    fn trainer(config: &Config, threads: usize) -> MetaTrainer {
        let device = Device::cpu(Some(threads)).unwrap();
        MetaTrainer::new(&device, config, Problem::MNIST).unwrap()
    }

    #[test]
    fn a_resumed_run_is_the_run_bit_for_bit() {
        for (curriculum, learners_per_step) in [
            (Curriculum::Full, 1),
            (Curriculum::Full, 2),
            (Curriculum::AllShuffled, 1),
            (Curriculum::NoCurriculum, 2),
            (Curriculum::RealData, 1),
        ] {
            let config = Config {
                learners_per_step,
                ..config(curriculum)
            };
            let mut whole = trainer(&config, 1);
            let steps: Vec<Step> = (0..3).map(|_| whole.step(&data()).unwrap()).collect();
            let mut first = trainer(&config, 2);
            first.step(&data()).unwrap();
            let mut second = trainer(&config, 2);
            second.restore(&first.arrays().unwrap(), 1).unwrap();
            for expected in &steps[1..] {
                assert_eq!(second.step(&data()).unwrap().meta_loss, expected.meta_loss);
            }
            assert_eq!(
                second.arrays().unwrap(),
                whole.arrays().unwrap(),
                "{curriculum:?}"
            );
        }
    }

    #[test]
    fn augmented_runs_are_resumed_bit_for_bit() {
        for curriculum in [Curriculum::Full, Curriculum::RealData] {
            let plain = config(curriculum);
            let augment = Augment {
                crop: 2,
                flip: 0.5,
                cutout: 5,
            };
            let augmented = Config {
                augment,
                ..plain.clone()
            };
            let mut whole = trainer(&augmented, 1);
            whole.step(&data()).unwrap();
            let mut resumed = trainer(&augmented, 2);
            resumed.restore(&whole.arrays().unwrap(), 1).unwrap();
            let [first, second] = [&mut whole, &mut resumed].map(|t| t.step(&data()).unwrap());
            assert_eq!(first.meta_loss, second.meta_loss);
            assert_eq!(whole.arrays().unwrap(), resumed.arrays().unwrap());
            let mut without = trainer(&plain, 1);
            without.step(&data()).unwrap();
            assert_ne!(without.step(&data()).unwrap().meta_loss, first.meta_loss);
        }
    }

    #[test]
    fn an_outer_step_of_several_learners_is_the_mean_of_theirs() {
        const LEARNERS: usize = 3;
        let config = |learners_per_step| Config {
            learners_per_step,
            outer_lr: 1e-3,
            clip: 0.0,
            ..config(Curriculum::Full)
        };
        let run = |config: &Config, theta: Option<Vec<Array>>| {
            let mut trainer = trainer(config, 1);
            let (_, mut classes) = trainer.draw((0, 0)).unwrap();
            let class = &mut classes[0];
            class.theta = theta.unwrap_or(std::mem::take(&mut class.theta));
            let theta = class.theta.clone();
            trainer.next = Some(((0, 0), classes));
            let step = trainer.step(&data()).unwrap();
            let gradient = trainer.arrays().unwrap()["adam.m.log_lr"].to_f64_vec();
            let losses = [step.meta_loss, step.real_loss, step.inner_loss];
            (theta, [losses.to_vec(), gradient].concat())
        };
        let (all, found) = run(&config(LEARNERS), None);
        let mut mean = vec![0.0; found.len()];
        for i in 0..LEARNERS {
            let part = |array: &Array| {
                let bytes = array.bytes().len() / LEARNERS;
                let part = &array.bytes()[i * bytes..][..bytes];
                Array::from_bytes(array.dtype(), &array.shape()[1..], part).unwrap()
            };
            let theta: Vec<Array> = all.iter().map(part).collect();
            let (drawn, alone) = run(&config(1), (i > 0).then(|| theta.clone()));
            // The first learner of a step is the one that a step of one learner has.
            assert_eq!(drawn, theta);
            let shares = alone.iter().map(|x| x / LEARNERS as f64);
            mean.iter_mut().zip(shares).for_each(|(m, x)| *m += x);
        }
        let norm = |numbers: &[f64]| numbers.iter().map(|x| x * x).sum::<f64>().sqrt();
        for range in [0..1, 1..2, 2..3, 3..found.len()] {
            let (found, mean) = (&found[range.clone()], &mean[range]);
            let apart: Vec<f64> = found.iter().zip(mean).map(|(a, b)| a - b).collect();
            assert!(norm(&apart) <= 1e-4 * norm(mean), "{found:?} and {mean:?}");
        }
    }

    #[test]
    fn lots_sum_to_the_same_step_and_are_resumed() {
        let config = |learners_at_once| Config {
            learners_per_step: 5,
            learners_at_once,
            outer_lr: 1e-3,
            ..config(Curriculum::Full)
        };
        let [at_once, lots] = [0, 2].map(|most| {
            let mut trainer = trainer(&config(most), 1);
            let step = trainer.step(&data()).unwrap();
            let gradient = trainer.arrays().unwrap()["adam.m.log_lr"].to_f64_vec();
            let losses = [step.meta_loss, step.real_loss, step.inner_loss];
            (
                [&losses[..], &gradient].concat(),
                step.widths.len(),
                trainer,
            )
        });
        assert_eq!([at_once.1, lots.1], [3, 9]);
        for (whole, sum) in at_once.0.iter().zip(&lots.0) {
            assert!(
                (whole - sum).abs() <= 1e-4 * whole.abs().max(1e-3),
                "{whole} and {sum}"
            );
        }
        let (mut resumed, mut lots) = (trainer(&config(2), 2), lots.2);
        resumed.restore(&lots.arrays().unwrap(), 1).unwrap();
        for trainer in [&mut resumed, &mut lots] {
            trainer.step(&data()).unwrap();
        }
        assert_eq!(resumed.arrays().unwrap(), lots.arrays().unwrap());
    }

    /// A population of three structures, which come back.
    fn population() -> Learners {
        let text = "
            [[learner]]
            family = 'base_fc'
            widths = '2,3,4'
            norm = 'batch'
            [[learner]]
            layers = 'conv 3 | batch | relu | add(depthwise | instance | gelu) | max 2 | mean | dense'
            [[learner]]
            layers = 'weight_norm off | init pytorch | dense 5 | relu | dense'";
        text.parse().unwrap()
    }

    #[test]
    fn a_population_is_drawn_resumed_and_averaged() {
        let config = |learners_per_step| Config {
            learner: population(),
            learners_per_step,
            widths: "none".parse().unwrap(),
            outer_lr: 1e-3,
            ..config(Curriculum::Full)
        };
        let mut whole = trainer(&config(4), 1);
        let mut first = trainer(&config(4), 2);
        first.step(&data()).unwrap();
        let mut second = trainer(&config(4), 2);
        second.restore(&first.arrays().unwrap(), 1).unwrap();
        // Plans that come back from elsewhere than the last step are the plans.
        second.pupils = Pupils::new(&second.device);
        let mut families = std::collections::BTreeSet::new();
        for step in 0..5 {
            let found = whole.step(&data()).unwrap();
            families.extend(found.families);
            if step > 0 {
                assert_eq!(second.step(&data()).unwrap().meta_loss, found.meta_loss);
            }
        }
        assert_eq!(families.len(), 3);
        assert_eq!(second.arrays().unwrap(), whole.arrays().unwrap());

        let run = |config: &Config, classes: Option<Vec<Class>>| {
            let mut trainer = trainer(config, 1);
            trainer.next = classes.map(|classes| ((0, 0), classes));
            let step = trainer.step(&data()).unwrap();
            let gradient = trainer.arrays().unwrap()["adam.m.log_lr"].to_f64_vec();
            let losses = [step.meta_loss, step.real_loss, step.inner_loss];
            [losses.to_vec(), gradient].concat()
        };
        let found = run(&config(4), None);
        let mut mean = vec![0.0; found.len()];
        let classes = pupils::draw(&config(4), Problem::MNIST, 0, 0..4).unwrap();
        assert!(classes.len() > 1);
        for class in classes {
            let share = class.learners as f64 / 4.0;
            let alone = run(&config(class.learners), Some(vec![class]));
            mean.iter_mut()
                .zip(alone)
                .for_each(|(m, x)| *m += share * x);
        }
        for (found, mean) in found.iter().zip(&mean) {
            assert!(
                (found - mean).abs() <= 1e-5 * mean.abs().max(1e-3),
                "{found} and {mean}"
            );
        }
    }

    #[test]
    fn gradients_of_logarithms_are_slopes() {
        let mut trainer = trainer(&config(Curriculum::ShuffledBatch), 1);
        let (_, classes) = trainer.draw((0, 0)).unwrap();
        trainer.give_data(&data()).unwrap();
        let pupil = trainer.queue_gradient(&classes[0]).unwrap();
        let gradients = pupil.unroll.gradients().to_arrays().unwrap();
        // Noise is left out: the meta-loss jumps where a pooling window changes its winner, and in f32 the
        // points cannot be near enough to miss that. tests/whole_gtn.rs checks it in f64.
        let h = 2e-3;
        for name in ["log_lr", "log_momentum"] {
            let gradient = gradients[name].as_f32().unwrap();
            let length = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
            let at = trainer.teacher.values.get(name).unwrap();
            let mut moved = |h: f32| {
                // Along the gradient itself the slope is its length.
                let along = at.as_f32().unwrap().iter().zip(gradient);
                let along: Vec<f32> = along.map(|(x, g)| x + h * g / length).collect();
                let along = Array::new([along.len()], along).unwrap();
                trainer.teacher.values.write(name, &along).unwrap();
                let pupil = trainer.queue_gradient(&classes[0]).unwrap();
                trainer.losses(&pupil).unwrap().total()
            };
            let slope = (moved(h) - moved(-h)) / (2.0 * f64::from(h));
            trainer.teacher.values.write(name, &at).unwrap();
            let error = (slope / f64::from(length) - 1.0).abs();
            assert!(error < 0.02, "{name}: {slope} and {length}");
        }
    }

    /// What a run with each kind of teacher learns moves, goes on bit for bit, and is what evaluation teaches with.
    #[test]
    fn every_teacher_learns_and_teaches() {
        use crate::eval::evaluate::TrainingData;
        let pixels = (ImagesChoice::Pixels, LabelsChoice::Soft);
        for (curriculum, (images, labels)) in [
            (Curriculum::Gaussian, Default::default()),
            (
                Curriculum::Gaussian,
                (ImagesChoice::Generator, LabelsChoice::Soft),
            ),
            (Curriculum::Full, pixels),
            (Curriculum::AllShuffled, pixels),
            (
                Curriculum::ShuffledBatch,
                (ImagesChoice::Pixels, LabelsChoice::Fixed),
            ),
        ] {
            let config = Config {
                images,
                labels,
                ..config(curriculum)
            };
            let mut whole = trainer(&config, 1);
            let start = whole.arrays().unwrap();
            whole.step(&data()).unwrap();
            let first = whole.arrays().unwrap();
            for (name, array) in first.iter().filter(|(name, _)| !name.starts_with("adam.")) {
                assert_ne!(
                    *array, start[name],
                    "{curriculum:?} {images:?} {labels:?}: {name}"
                );
            }
            let pixels = images == ImagesChoice::Pixels;
            assert_eq!(first.contains_key("learned.pixels"), pixels);
            assert_eq!(
                first.contains_key("learned.label_logits"),
                labels == LabelsChoice::Soft
            );
            assert_eq!(
                first.keys().any(|name| name.starts_with("generator.")),
                !pixels
            );
            whole.step(&data()).unwrap();
            let mut resumed = trainer(&config, 2);
            resumed.restore(&first, 1).unwrap();
            resumed.step(&data()).unwrap();
            assert_eq!(resumed.arrays().unwrap(), whole.arrays().unwrap());

            let device = Device::cpu(Some(1)).unwrap();
            let lesson = TrainingData::synthetic(&device, &config, resumed.teacher(), 7).unwrap();
            let images = lesson.images().unwrap();
            assert_eq!(images.len(), 3 * 10 * 28 * 28);
            assert!(images.iter().all(|x| x.abs() <= 2.0));
        }
    }

    /// A run with another inner optimiser moves all that it learns, and goes on bit for bit.
    #[test]
    fn every_inner_optimizer_is_learned_through() {
        for &inner_optimizer in OptimizerChoice::value_variants() {
            let lr = inner_optimizer.usual_lr() / 10.0;
            let config = Config {
                inner_optimizer,
                inner_lr: lr,
                learn: "lr,momentum:shared,beta1,beta2:shared,decay,weight_decay"
                    .parse()
                    .unwrap(),
                ..config(Curriculum::Full)
            };
            let mut whole = trainer(&config, 1);
            let start = whole.arrays().unwrap();
            whole.step(&data()).unwrap();
            let first = whole.arrays().unwrap();
            whole.step(&data()).unwrap();
            let learned = first
                .iter()
                .filter(|(name, _)| name.starts_with("learned."));
            for (name, array) in learned {
                assert_ne!(*array, start[name], "{inner_optimizer:?}: {name}");
            }
            let names = first.keys().filter(|name| name.starts_with("learned.log"));
            let wanted = inner_optimizer.0.hyper().len();
            let fixed = inner_optimizer
                .0
                .hyper()
                .iter()
                .filter(|(n, _)| *n == "eps");
            assert_eq!(names.count(), wanted - fixed.count(), "{inner_optimizer:?}");
            let mut resumed = trainer(&config, 2);
            resumed.restore(&first, 1).unwrap();
            resumed.step(&data()).unwrap();
            assert_eq!(resumed.arrays().unwrap(), whole.arrays().unwrap());
        }
    }

    #[test]
    fn of_real_data_only_the_rates_are_learned() {
        let config = config(Curriculum::RealData);
        let mut trainer = trainer(&config, 1);
        let before = trainer.teacher().hyper(&config).unwrap();
        trainer.step(&data()).unwrap();
        let learned = trainer.arrays().unwrap().into_keys();
        let learned: Vec<String> = learned.filter(|name| !name.starts_with("adam")).collect();
        assert_eq!(learned, ["learned.log_lr", "learned.log_momentum"]);
        let after = trainer.teacher().hyper(&config).unwrap();
        let numbers = |hyper: &[(&str, Array)], i: usize| hyper[i].1.to_f64_vec();
        let [lr, momentum] = [0, 1].map(|i| numbers(&after, i));
        let before = [0, 1].map(|i| numbers(&before, i));
        assert!(lr.iter().zip(&before[0]).all(|(a, b)| a != b));
        // The first momentum meets a velocity of zero: it has no gradient.
        assert!(
            momentum[1..]
                .iter()
                .zip(&before[1][1..])
                .all(|(a, b)| a != b)
        );
    }

    #[test]
    fn a_step_that_runs_away_changes_nothing() {
        let config = Config {
            inner_lr: 1e30,
            ..config(Curriculum::Full)
        };
        let mut trainer = trainer(&config, 1);
        let before = trainer.arrays().unwrap();
        let error = trainer.step(&data()).unwrap_err().to_string();
        assert!(
            error.starts_with("outer step 0: the ") && error.contains("is not finite"),
            "{error}"
        );
        assert_eq!(
            (trainer.arrays().unwrap(), trainer.outer_step()),
            (before, 0)
        );
    }

    #[test]
    fn clipping_bounds_what_adam_sees() {
        let mean = |clip| {
            let mut trainer = trainer(
                &Config {
                    clip,
                    ..config(Curriculum::Full)
                },
                1,
            );
            let norm = trainer.step(&data()).unwrap().gradient_norm;
            let arrays = trainer.arrays().unwrap();
            let means = arrays
                .iter()
                .filter(|(name, _)| name.starts_with("adam.m."));
            let squares = means
                .flat_map(|(_, array)| array.to_f64_vec())
                .map(|m| m * m);
            // After the first step the mean is a tenth of the gradient.
            (norm, 10.0 * squares.sum::<f64>().sqrt())
        };
        let (norm, seen) = mean(0.0);
        assert!((seen / norm - 1.0).abs() < 1e-4, "{seen} of {norm}");
        let (same, clipped) = mean(norm / 4.0);
        assert_eq!(same, norm);
        assert!((clipped / norm - 0.25).abs() < 1e-4, "{clipped} of {norm}");
    }
}
