//! Meta-training: every outer step trains a fresh learner (or several at once) on what the generator makes, and
//! moves the generator, the noise and the inner hyper-parameters along the gradient of the learner's loss (or
//! their mean) on real data.

mod state;

use crate::data::{Dataset, Problem};
use crate::error;
use crate::outer::curriculum::Curriculum;
use crate::outer::known::Known;
use crate::outer::mean::Mean;
use crate::outer::order::{Order, Ranked, Ranking};
use crate::outer::pupils::{self, Class, Pupil, Pupils};
use crate::outer::teacher::{Teacher, learned};
use crate::outer::training::{DROPPED, Sizes, real_batches, real_loss_batches};
use crate::ranks::Ranks;
use crate::run::config::Config;
use crate::seeds::{Draw, draw_images, dropout_keys, rng};
use autograd::prelude::*;
use autograd::{Losses, Trouble};
use rand::RngExt;
use serde::{Deserialize, Deserializer, Serialize};

/// What happened in an outer step. Losses are means over its learners; NaN, which JSON has as null, where a training ran away.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Step {
    /// The sum of the losses on real data.
    #[serde(deserialize_with = "number_or_nan")]
    pub meta_loss: f64,
    /// The last of them: that of the trained learner.
    #[serde(deserialize_with = "number_or_nan")]
    pub real_loss: f64,
    /// The inner loss at the last inner step.
    #[serde(deserialize_with = "number_or_nan")]
    pub inner_loss: f64,
    /// The norm of the meta-gradient.
    #[serde(deserialize_with = "number_or_nan")]
    pub gradient_norm: f64,
    /// The widths of this step's learners, in the order of their family's places; with several structures,
    /// those of all of them.
    pub widths: Vec<usize>,
    /// For a population: the families of this step's learners, one for each structure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<String>,
    /// Inner steps, where they [grow](crate::outer::growth::Growth).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner_steps: Option<usize>,
    /// How far the learners stand in the order of their accuracies, where that is [taught](crate::outer::order::RankBy).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
}

fn number_or_nan<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

impl Step {
    /// Adds learners of one structure, which are a `share` of the step's learners. They have no losses if
    /// their training ran away.
    fn add(&mut self, losses: Option<&Losses>, class: &Class, share: f64) {
        let last = |losses: &[f64]| *losses.last().expect("there is at least one step");
        let [meta, real, inner] = losses.map_or([f64::NAN; 3], |losses| {
            let inner = last(&losses.inner) / class.extent.learners as f64;
            [losses.total(), last(&losses.outer), inner]
        });
        self.meta_loss += share * meta;
        self.real_loss += share * real;
        self.inner_loss += share * inner;
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
        if let Some(order) = lot.order {
            self.order.get_or_insert_default().add(order);
        }
    }
}

/// The outer loop.
#[derive(Debug)]
pub struct MetaTrainer {
    device: Device,
    config: Config,
    teacher: Teacher,
    descent: Descent,
    pupils: Pupils,
    /// The mean of meta-gradients, where there are several in an outer step.
    mean: Option<Mean>,
    /// Which training images are labelled, in a semi-supervised run.
    known: Option<Known>,
    /// The networks whose order is taught, if any is.
    ranking: Option<Ranking>,
    /// The learners of the next lot, drawn while a GPU works on this one.
    next: Option<(Lot, Vec<Class>)>,
    /// The ranks that train the lots of an outer step.
    ranks: Ranks,
    outer_step: u64,
    /// How many outer steps in a row have run away by now.
    runaways: usize,
    /// Whether the last outer step was left out.
    left_out: bool,
    watch: bool,
}

/// This many outer steps in a row that run away end a run, even one that leaves them out.
const RUNAWAYS: usize = 10;

/// A lot of learners: its outer step, and its number there.
type Lot = (u64, usize);

impl MetaTrainer {
    /// A trainer before its first outer step.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(device: &Device, config: &Config, problem: Problem) -> Result<Self> {
        let teacher = Teacher::new(device, config, problem)?;
        let learned = learned(config, problem, &teacher.makers);
        let gradients = Values::zeros(device, &learned)?;
        let descent = Descent::new(&gradients, config.outer_optimizer.0, &config.outer_hyper())?;
        Ok(Self {
            descent,
            pupils: Pupils::new(device, 1),
            mean: None,
            known: None,
            ranking: None,
            next: None,
            ranks: Ranks::alone(),
            teacher,
            device: device.clone(),
            config: config.clone(),
            outer_step: 0,
            runaways: 0,
            left_out: false,
            watch: false,
        })
    }

    /// Shares the learners of an outer step with other ranks, whose trainers are in the same state.
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
        self.pupils = Pupils::new(&self.device, ranks.on_machine());
        self.ranks = ranks.clone();
        Ok(self)
    }

    /// With a ranking, learners are drawn from its networks, and the order of a lot's learners is taught as
    /// well; see [`rank_weight`](Config::rank_weight).
    #[must_use]
    pub fn ranking(self, ranking: Option<Ranking>) -> Self {
        Self { ranking, ..self }
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

    /// Whether the meta-gradient of the last outer step was [left out](Config::leave_out).
    pub fn left_out(&self) -> bool {
        self.left_out
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

    /// One outer step, whose real images are drawn from the training part of a data set. The host waits for a GPU once: for losses and norm,
    /// before anything is changed.
    ///
    /// # Errors
    /// If a number is not finite, unless such trainings are left out and this is not the tenth in a row; then
    /// nothing was changed. Or if the engine fails.
    pub fn step(&mut self, data: &Dataset) -> error::Result<Step> {
        self.give_data(data)?;
        let mut step = match self.config.lots().len() {
            1 => self.train_lot(0)?,
            lots => self.train_lots(lots)?,
        };
        if !self.is_whole() {
            self.descent.measure(self.gradients())?;
        }
        step.gradient_norm = self.descent.measured()?;
        self.left_out = !self.follows(&step)?;
        if !self.left_out {
            self.update(step.gradient_norm)?;
        }
        if !self.config.population().is_mixed() {
            step.families.clear();
        }
        if self.config.grow_steps.first().is_some() {
            step.inner_steps = Some(self.config.steps_at(self.outer_step));
        }
        self.outer_step += 1;
        Ok(step)
    }

    /// Trains the learners of a lot, for their part of the meta-gradient.
    fn train_lot(&mut self, lot: usize) -> error::Result<Step> {
        let classes = self.fresh((self.outer_step, lot))?;
        let ranked = self.ranking.is_some() && classes.len() > 1;
        let (mut step, mut found) = (Step::default(), Vec::new());
        for (i, class) in classes.iter().enumerate() {
            let pupil = self.queue_gradient(class)?;
            let share = class.extent.learners as f64 / self.config.learners_per_step as f64;
            if share == 1.0 {
                self.descent.measure(pupil.unroll.gradients())?;
            }
            if i == 0 {
                self.look_ahead(lot, &pupil)?;
            }
            let losses = self.losses(&pupil)?;
            step.add(losses.as_ref(), class, share);
            let gradients = pupil.unroll.gradients();
            if ranked {
                self.mean()?.keep(i, gradients)?;
            } else if share < 1.0 {
                self.mean()?.add(gradients, share, i == 0)?;
            }
            found.push((losses, share));
            self.pupils.keep(pupil);
        }
        if ranked {
            step.order = Some(self.rank(&classes, &found)?);
        }
        Ok(step)
    }

    /// Combines the gradients of a lot. The weight of each is the slope of the whole loss, mean and order,
    /// with respect to that learner's loss.
    fn rank(&mut self, classes: &[Class], found: &[(Option<Losses>, f64)]) -> Result<Order> {
        let ranking = self.ranking.as_ref();
        let mean = |losses: &Losses| losses.total() / losses.outer.len() as f64;
        let networks = classes
            .iter()
            .zip(found)
            .map(|(class, (losses, _))| Ranked {
                loss: losses.as_ref().map_or(f64::NAN, mean),
                accuracy: ranking.and_then(|ranking| ranking.accuracy(&class.drawn)),
                learners: class.extent.learners,
            });
        let (order, slopes) = Order::of(&networks.collect::<Vec<_>>());
        let weight = match order.pairs {
            0 => 0.0,
            _ => self.config.rank_weight,
        };
        let lot: f64 = found.iter().map(|(_, share)| share).sum();
        let shares = found.iter().zip(slopes);
        let shares =
            shares.map(|((_, share), slope)| (1.0 - weight) * share + weight * lot * slope);
        self.mean()?.add_kept(&shares.collect::<Vec<_>>())?;
        Ok(order)
    }

    /// Trains all lots, each on its rank. The meta-gradient is the sum of their parts, from the first lot to
    /// the last.
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

    /// The mean of several meta-gradients. Its memory is allocated on first use.
    fn mean(&mut self) -> Result<&mut Mean> {
        if self.mean.is_none() {
            self.mean = Some(Mean::new(&self.device, &self.learned())?);
        }
        Ok(self.mean.as_mut().expect("it was just made"))
    }

    fn learned(&self) -> Vec<ArraySpec> {
        learned(&self.config, self.teacher.problem, &self.teacher.makers)
    }

    /// Queues the meta-gradient of learners, without waiting for it. It ends up in the pupil that is
    /// returned.
    fn queue_gradient(&mut self, class: &Class) -> Result<Pupil> {
        let Teacher {
            makers, problem, ..
        } = &self.teacher;
        let mut pupil = self.pupils.take(class, &self.config, *problem, makers)?;
        class.start(&mut self.teacher.values)?;
        if class.drops() {
            let (seed, steps) = (self.config.seed, self.config.inner_steps);
            let keys = dropout_keys(seed, self.outer_step, steps);
            self.teacher.values.set(DROPPED, &keys)?;
        }
        pupil.unroll.watch_cotangents(self.watch);
        pupil.unroll.queue_gradient(&self.teacher.values)?;
        Ok(pupil)
    }

    /// Gives noise, labels and real images for an outer step.
    fn give_data(&mut self, data: &Dataset) -> Result<()> {
        let (config, problem) = (&self.config, self.teacher.problem);
        let (number, batches) = (self.outer_step, Sizes::of(config, problem).taught());
        match config.curriculum {
            Curriculum::RealData => {
                let count = config.inner_steps * config.inner_batch;
                let taught = draw_images(config.seed, number, count, data.train.len());
                self.give(data, &taught, &batches, Draw::Augment)?;
            }
            Curriculum::SemiSupervised => {
                let known = self
                    .known
                    .get_or_insert_with(|| Known::of(config, &data.train));
                let taught = known.unlabelled(config, number);
                self.give(data, &taught, &batches, Draw::Augment)?;
            }
            _ => self.teacher.fill(config, number)?,
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
        // Images for a labeller come without their classes.
        let named = augment != Draw::Augment || self.teacher.makers.labeller.is_none();
        for (spec, array) in batches.iter().zip(&arrays).take(1 + usize::from(named)) {
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

    /// Draws the learners of the lot after this one, and begins to plan their trainings.
    fn look_ahead(&mut self, lot: usize, busy: &Pupil) -> Result<()> {
        let next = self.draw(self.following(lot))?;
        let Teacher {
            makers, problem, ..
        } = &self.teacher;
        let pupils = &mut self.pupils;
        pupils.plan_ahead(&next.1, busy, &self.config, *problem, makers);
        self.next = Some(next);
        Ok(())
    }

    /// The lot that this rank trains after lot `lot`.
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
        let (problem, ranking) = (self.teacher.problem, self.ranking.as_ref());
        let classes = pupils::draw(&self.config, problem, ranking, outer_step, numbers)?;
        Ok((lot, classes))
    }

    /// Draws the real images of the outer losses, out of `count` or of the labelled ones.
    fn choose_real(&self, count: usize) -> Vec<usize> {
        let labelled = self.known.as_ref().map(|known| &known.labelled);
        let count = labelled.map_or(count, Vec::len);
        let of_loss = |number: usize| {
            let (seed, outer_step) = (self.config.seed, self.outer_step);
            let mut rng = rng(seed, Draw::OuterBatch, outer_step, number as u64);
            let any = move |_| rng.random_range(0..count);
            (0..self.config.outer_batch).map(any)
        };
        let chosen = (0..self.config.outer_count()).flat_map(of_loss);
        match labelled {
            Some(labelled) => chosen.map(|place| labelled[place]).collect(),
            None => chosen.collect(),
        }
    }

    /// Waits for the losses of a meta-gradient. `None` for a training that ran away and is left out.
    fn losses(&self, pupil: &Pupil) -> error::Result<Option<Losses>> {
        match pupil.unroll.losses() {
            Ok(losses) => Ok(Some(losses)),
            Err(Error::NotFinite { .. }) if self.config.leave_out > 0.0 => Ok(None),
            Err(Error::NotFinite { what, step }) => {
                let what = format!("{what} at inner step {step}");
                Err(not_finite(self.outer_step, &what))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the meta-gradient of a step is to be followed, or left out.
    fn follows(&mut self, step: &Step) -> error::Result<bool> {
        let most = self.config.leave_out;
        if step.meta_loss.is_finite() && step.gradient_norm.is_finite() {
            self.runaways = 0;
            return Ok(most == 0.0 || step.gradient_norm <= most);
        }
        if most == 0.0 {
            return Err(not_finite(self.outer_step, "meta-gradient"));
        }
        self.runaways += 1;
        if self.runaways == RUNAWAYS {
            let what = format!("meta-gradient, as {} before it,", RUNAWAYS - 1);
            return Err(not_finite(self.outer_step, &what));
        }
        Ok(false)
    }

    /// Moves the meta-parameters along the meta-gradient, which has that norm.
    fn update(&self, norm: f64) -> error::Result<()> {
        let config = &self.config;
        let scale = if config.clip > 0.0 {
            (config.clip / norm).min(1.0)
        } else {
            1.0
        };
        self.descent.set("scale", scale)?;
        self.descent
            .set("lr", config.outer_lr_at(self.outer_step))?;
        self.descent.step(&self.teacher.values, self.gradients())?;
        Ok(())
    }
}

/// Numbers ran away. The meta-parameters are those before the step.
fn not_finite(outer_step: u64, what: &str) -> error::Error {
    let message = format!("outer step {outer_step}: the {what} is not finite");
    error::Error::new(error::ErrorKind::NotFinite, message)
        .hint("a smaller --outer-lr or --inner-lr, or --clip, may help")
}

#[cfg(test)]
mod tests;
