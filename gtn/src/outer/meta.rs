//! Meta-training: every outer step trains a fresh learner (or several at once) on what the generator makes, and
//! moves the generator, the noise and the inner hyper-parameters along the gradient of the learner's loss (or
//! their mean) on real data.

use crate::nn::{Learner, init, stack};
use crate::outer::adam::Adam;
use crate::outer::collect::Collect;
use crate::outer::images::Images;
use crate::outer::teacher::{Teacher, views};
use crate::outer::training::{draw, training};
use crate::run::config::Config;
use crate::seeds::{Draw, rng};
use autograd::{Given, Losses, Records, Trouble, Unroll};
use kernels::{Device, View};
use rand::RngExt;
use serde::Serialize;
use tensor::{Array, Arrays, DType};

type Result<T, E = autograd::Error> = std::result::Result<T, E>;

/// What happened in an outer step. Losses are means over its learners.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// The sum of the losses on real data.
    pub meta_loss: f64,
    /// The last of them: that of the trained learner.
    pub real_loss: f64,
    /// The inner loss at the last inner step.
    pub inner_loss: f64,
    /// The norm of the meta-gradient.
    pub gradient_norm: f64,
    /// The widths of this step's learners.
    pub widths: Vec<usize>,
}

/// Why an outer step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Numbers ran away. The meta-parameters are those before the step.
    #[error(
        "outer step {step}: the {what} is not finite; a smaller outer_lr or inner_lr, or clip, may help"
    )]
    NotFinite {
        /// The outer step, counted from 0.
        step: u64,
        /// Which number.
        what: String,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] autograd::Error),
}

/// Fresh learners for an outer step, of one structure.
#[derive(Debug)]
struct Fresh {
    outer_step: u64,
    widths: Vec<usize>,
    learner: Learner,
    theta: Vec<Array>,
}

/// The training of learners of some widths, planned.
#[derive(Debug)]
struct Pupil {
    widths: Vec<usize>,
    unroll: Unroll,
    start: Records,
}

/// The outer loop.
#[derive(Debug)]
pub struct MetaTrainer {
    device: Device,
    config: Config,
    teacher: Teacher,
    adam: Adam,
    rows: Records,
    rates: Records,
    outer_rows: Records,
    collect: Collect,
    /// The learner of the last outer step, for the next one if that takes the same widths.
    pupil: Option<Pupil>,
    /// The learner of the next outer step, drawn while a GPU worked on the last one.
    next: Option<Fresh>,
    outer_step: u64,
    watch: bool,
}

impl MetaTrainer {
    /// Before the first outer step.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(device: &Device, config: &Config) -> Result<Self> {
        let teacher = Teacher::new(device, config)?;
        let parameters = [teacher.weights.ports(), teacher.learned.ports()].concat();
        let learner = config.learner(&config.widths.middle())?;
        let training = training(config, &teacher.generator, &learner);
        let rows = Records::new(device, training.row_ports(), config.inner_steps)?;
        let rates = Records::new(device, training.hyper_ports(), config.inner_steps)?;
        let outer_rows = Records::new(device, training.outer_rows.clone(), config.outer_count())?;
        drop(training);
        Ok(Self {
            adam: Adam::new(device, &parameters)?,
            collect: Collect::new(device, config, &rows, &rates, &teacher)?,
            pupil: None,
            next: None,
            rows,
            rates,
            outer_rows,
            teacher,
            device: device.clone(),
            config: config.clone(),
            outer_step: 0,
            watch: false,
        })
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
        let norms = self.pupil.as_ref()?.unroll.cotangent_norms()?;
        norms.trouble(Trouble::FACTOR)
    }

    /// Everything that the next outer step depends on, by name.
    ///
    /// # Errors
    /// If the device fails.
    pub fn arrays(&self) -> Result<Arrays> {
        let named = |(prefix, records): (&'static str, &Records)| {
            let array = |field: usize| {
                let name = format!("{prefix}.{}", records.ports()[field].name);
                Ok((name, records.get(0, field)?))
            };
            (0..records.ports().len()).map(array).collect::<Vec<_>>()
        };
        self.parts().into_iter().flat_map(named).collect()
    }

    /// Takes up where [`MetaTrainer::arrays`] were taken, after `outer_step` outer steps.
    ///
    /// # Errors
    /// With the name of an array that is missing, of another shape, or not finite; the trainer is of no
    /// use then.
    pub fn restore(&mut self, arrays: &Arrays, outer_step: u64) -> Result<(), String> {
        for (prefix, records) in self.parts() {
            for (field, port) in records.ports().iter().enumerate() {
                let name = format!("{prefix}.{}", port.name);
                let array: &Array = arrays
                    .get(&name)
                    .ok_or(format!("array {name} is missing"))?;
                if !array.all_finite() {
                    return Err(format!("array {name} has numbers that are not finite"));
                }
                records
                    .set(0, field, array)
                    .map_err(|e| format!("array {name}: {e}"))?;
            }
        }
        self.outer_step = outer_step;
        Ok(())
    }

    fn parts(&self) -> [(&'static str, &Records); 3] {
        [
            ("generator", &self.teacher.weights),
            ("learned", &self.teacher.learned),
            ("adam", self.adam.state()),
        ]
    }

    /// One outer step. The host waits for a GPU once: for losses and norm, before anything is changed.
    ///
    /// # Errors
    /// If a number is not finite: then nothing was changed. Or if the engine fails.
    pub fn step(&mut self, images: &Images) -> Result<Step, StepError> {
        let pupil = self.queue_gradient(images)?;
        let gradients: Vec<View<'_>> = [pupil.unroll.shared_gradient(), &self.collect.gradient]
            .into_iter()
            .flat_map(views)
            .collect();
        self.adam.measure(&self.device, &gradients)?;
        self.next = Some(self.fresh(self.outer_step + 1)?);
        let losses = self.losses(&pupil)?;
        let gradient_norm = self.update(&gradients)?;
        self.outer_step += 1;
        let last = |losses: &[f64]| *losses.last().expect("there is at least one step");
        let step = Step {
            meta_loss: losses.total(),
            real_loss: last(&losses.outer),
            inner_loss: last(&losses.inner) / self.config.learners_per_step as f64,
            gradient_norm,
            widths: pupil.widths.clone(),
        };
        self.pupil = Some(pupil);
        Ok(step)
    }

    /// Computes the meta-gradient: with respect to the generator it is with the pupil, the rest is
    /// collected. Nobody waits.
    fn queue_gradient(&mut self, images: &Images) -> Result<Pupil> {
        let mut pupil = self.pupil()?;
        let (teacher, config, rows) = (&self.teacher, &self.config, &self.rows);
        if config.curriculum.generates() {
            teacher.fill_noise(config, rows, self.outer_step)?;
        } else {
            let count = config.inner_steps * config.inner_batch;
            let chosen = draw(config.seed, self.outer_step, count, images.count());
            for (step, chosen) in chosen.chunks(config.inner_batch).enumerate() {
                images.put(rows, step, chosen)?;
            }
        }
        teacher.fill_rates(&self.rates)?;
        self.fill_outer_rows(images)?;
        pupil.unroll.watch_cotangents(self.watch);
        pupil.unroll.queue_gradient(Given {
            start: &pupil.start,
            shared: &teacher.weights,
            rows,
            hyper: &self.rates,
            outer_rows: &self.outer_rows,
        })?;
        self.collect
            .run(config, teacher, &pupil.unroll, self.outer_step)?;
        Ok(pupil)
    }

    /// Draws the learners of an outer step.
    fn fresh(&self, outer_step: u64) -> Result<Fresh> {
        let rng = |draw, number| rng(self.config.seed, draw, outer_step, number);
        let widths = self.config.widths.sample(&mut rng(Draw::Widths, 0));
        let learner = self.config.learner(&widths)?;
        let draw = |number| {
            init(
                learner.params(),
                DType::F32,
                &mut rng(Draw::Learner, number),
            )
        };
        let drawn: Result<Vec<_>> = (0..self.config.learners_per_step as u64)
            .map(draw)
            .collect();
        Ok(Fresh {
            outer_step,
            widths,
            theta: stack(&drawn?)?,
            learner,
        })
    }

    /// The learner of the coming outer step, its training planned.
    fn pupil(&mut self) -> Result<Pupil> {
        let drawn = self.next.take();
        let drawn = drawn.filter(|next| next.outer_step == self.outer_step);
        let fresh = drawn.map_or_else(|| self.fresh(self.outer_step), Ok)?;
        // One of other widths goes before memory is taken for the new one.
        let last = self.pupil.take();
        let last = last.filter(|last| last.widths == fresh.widths);
        let pupil = last.map_or_else(|| self.plan(&fresh), Ok)?;
        for (field, array) in fresh.theta.iter().enumerate() {
            pupil.start.set(0, field, array)?;
        }
        Ok(pupil)
    }

    /// Plans the training of a learner.
    fn plan(&self, fresh: &Fresh) -> Result<Pupil> {
        let training = training(&self.config, &self.teacher.generator, &fresh.learner);
        Ok(Pupil {
            widths: fresh.widths.clone(),
            unroll: Unroll::new(&self.device, &training, &self.config.horizon())?,
            start: Records::new(&self.device, training.start_ports(), 1)?,
        })
    }

    fn fill_outer_rows(&self, images: &Images) -> Result<()> {
        for record in 0..self.outer_rows.count() {
            let rng = &mut rng(
                self.config.seed,
                Draw::OuterBatch,
                self.outer_step,
                record as u64,
            );
            let any = |_| rng.random_range(0..images.count());
            let chosen: Vec<usize> = (0..self.config.outer_batch).map(any).collect();
            images.put(&self.outer_rows, record, &chosen)?;
        }
        Ok(())
    }

    /// The losses of a meta-gradient, when it is done.
    fn losses(&self, pupil: &Pupil) -> Result<Losses, StepError> {
        pupil.unroll.losses().map_err(|error| match error {
            autograd::Error::NotFinite { .. } => StepError::NotFinite {
                step: self.outer_step,
                what: error
                    .to_string()
                    .replace(" is not finite", "")
                    .replace("the ", ""),
            },
            error => error.into(),
        })
    }

    /// Moves the meta-parameters; gives the norm of the meta-gradient.
    fn update(&self, gradients: &[View<'_>]) -> Result<f64, StepError> {
        let norm = self.adam.norm()?;
        if !norm.is_finite() {
            let (step, what) = (self.outer_step, "meta-gradient".to_owned());
            return Err(StepError::NotFinite { step, what });
        }
        let config = &self.config;
        let factor = if config.clip > 0.0 {
            (config.clip / norm).min(1.0)
        } else {
            1.0
        };
        let lr = config.outer_lr_at(self.outer_step);
        let hyper = [lr, config.outer_beta1, config.outer_beta2, config.outer_eps];
        let parameters = self.teacher.views();
        self.adam
            .step(&self.device, &parameters, gradients, hyper, factor)?;
        Ok(norm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, strokes};
    use crate::nn::Norm;
    use crate::outer::curriculum::Curriculum;
    use crate::outer::teacher::{LOG_LR, LOG_MOMENTUM};
    use crate::outer::training::{put, take};
    use crate::run::config::{Config, Preset};

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

    fn images(trainer: &MetaTrainer) -> Images {
        let data = Dataset {
            name: "embedded",
            train: strokes::draw(1, 0, 100),
            validation: strokes::draw(1, 1, 50),
            test: strokes::draw(1, 2, 50),
            mean: 0.13,
            std: 0.31,
            origin: String::new(),
        };
        Images::new(&trainer.device, &trainer.config, &data).unwrap()
    }

    fn trainer(config: &Config, threads: usize) -> MetaTrainer {
        MetaTrainer::new(&Device::cpu(Some(threads)).unwrap(), config).unwrap()
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
            let data = images(&whole);
            let steps: Vec<Step> = (0..3).map(|_| whole.step(&data).unwrap()).collect();
            let mut first = trainer(&config, 2);
            let data = images(&first);
            first.step(&data).unwrap();
            let mut second = trainer(&config, 2);
            let data = images(&second);
            second.restore(&first.arrays().unwrap(), 1).unwrap();
            for expected in &steps[1..] {
                assert_eq!(second.step(&data).unwrap().meta_loss, expected.meta_loss);
            }
            assert_eq!(
                second.arrays().unwrap(),
                whole.arrays().unwrap(),
                "{curriculum:?}"
            );
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
            let mut fresh = trainer.fresh(0).unwrap();
            fresh.theta = theta.unwrap_or(fresh.theta);
            let theta = fresh.theta.clone();
            trainer.next = Some(fresh);
            let step = trainer.step(&images(&trainer)).unwrap();
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
    fn gradients_of_logarithms_are_slopes() {
        let mut trainer = trainer(&config(Curriculum::ShuffledBatch), 1);
        let data = images(&trainer);
        trainer.queue_gradient(&data).unwrap();
        // Noise is left out: the meta-loss jumps where a pooling window changes its winner, and in f32 the
        // points cannot be near enough to miss that. tests/whole_gtn.rs checks it in f64.
        let h = 2e-3;
        for field in [LOG_LR, LOG_MOMENTUM] {
            let gradient = take(&trainer.collect.gradient, 0, field).unwrap();
            let length = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
            let at = take(&trainer.teacher.learned, 0, field).unwrap();
            let mut moved = |h: f32| {
                // Along the gradient itself the slope is its length.
                let along = at.iter().zip(&gradient).map(|(x, g)| x + h * g / length);
                put(&trainer.teacher.learned, 0, field, along.collect()).unwrap();
                let pupil = trainer.queue_gradient(&data).unwrap();
                trainer.losses(&pupil).unwrap().total()
            };
            let slope = (moved(h) - moved(-h)) / (2.0 * f64::from(h));
            put(&trainer.teacher.learned, 0, field, at.clone()).unwrap();
            let error = (slope / f64::from(length) - 1.0).abs();
            assert!(error < 0.02, "field {field}: {slope} and {length}");
        }
    }

    #[test]
    fn of_real_data_only_the_rates_are_learned() {
        let config = config(Curriculum::RealData);
        let mut trainer = trainer(&config, 1);
        let before = trainer.teacher().rates().unwrap();
        trainer.step(&images(&trainer)).unwrap();
        let learned = trainer.arrays().unwrap().into_keys();
        let learned: Vec<String> = learned.filter(|name| !name.starts_with("adam")).collect();
        assert_eq!(learned, ["learned.log_lr", "learned.log_momentum"]);
        let [lr, momentum] = trainer.teacher().rates().unwrap();
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
        let error = trainer.step(&images(&trainer)).unwrap_err().to_string();
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
            let norm = trainer.step(&images(&trainer)).unwrap().gradient_norm;
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
