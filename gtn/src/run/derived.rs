//! What follows from the settings of a run: its networks, its lots of learners, how their trainings unroll, and its outer rates.

use super::config::Config;
use crate::data::Problem;
use crate::nn::{
    Drawn, Family, Generator, GeneratorConfig, Learner, Learners, Member, Population, Source,
};
use crate::outer::curriculum::{ImagesChoice, LabelsChoice};
use crate::outer::training::Lesson;
use crate::seeds::{Draw, rng};
use autograd::Horizon;
use autograd::optim::Optimizer;
use std::ops::Range;

/// How many networks are drawn, at most, until one fits the images.
const DRAWS: usize = 1000;

/// Draws networks until one has a learner that fits the images. Some networks of a user's own space may be
/// too deep for small images, and some of its choices may not go together.
///
/// # Errors
/// If none of a thousand fits: the error of the last, with its name.
pub(crate) fn fitting(
    problem: Problem,
    mut draw: impl FnMut() -> autograd::Result<Drawn>,
) -> autograd::Result<(Drawn, Learner)> {
    for _ in 1..DRAWS {
        if let Ok(drawn) = draw()
            && let Ok(learner) = drawn.network.learner(problem.image, problem.classes)
        {
            return Ok((drawn, learner));
        }
    }
    let drawn = draw()?;
    let learner = drawn.network.learner(problem.image, problem.classes);
    let named = |error| autograd::Error::Setting(format!("{}: {error}", drawn.family));
    let learner = learner.map_err(named)?;
    Ok((drawn, learner))
}

impl Config {
    /// The generator of these settings.
    ///
    /// # Errors
    /// As [`Generator::new`].
    pub fn generator(&self, problem: Problem) -> autograd::Result<Generator> {
        Generator::new(GeneratorConfig {
            noise: self.noise,
            classes: problem.classes,
            labels: self.labels == LabelsChoice::Generator,
            hidden: self.generator_hidden,
            channels: self.generator_channels,
            image: problem.image,
            ..GeneratorConfig::default()
        })
    }

    /// The population from which learners are drawn.
    pub fn population(&self) -> Population {
        match &self.learner {
            Learners::Family(family) => Population::of(Source::Family(Family {
                widths: self.widths.clone(),
                norms: vec![self.norm],
                ..family.clone()
            })),
            Learners::Population(population, _) => population.clone(),
        }
    }

    /// Draws a network and builds its learner. `step` is the number of the outer step or evaluation; `number`
    /// tells the draws of one step apart.
    ///
    /// # Errors
    /// If none of a thousand draws fits the images.
    pub fn drawn(
        &self,
        problem: Problem,
        step: u64,
        number: u64,
    ) -> autograd::Result<(Drawn, Learner)> {
        let rng = &mut rng(self.seed, Draw::Widths, step, number);
        let population = self.population();
        fitting(problem, || population.draw(rng))
    }

    /// The widest learner of each family: the one that takes the most memory.
    ///
    /// # Errors
    /// If one does not fit the images.
    pub fn widest(&self, problem: Problem) -> autograd::Result<Vec<Learner>> {
        let Problem { image, classes } = problem;
        let population = self.population();
        let widest = |member: &Member| member.source.widest()?.network.learner(image, classes);
        population.members().iter().map(widest).collect()
    }

    /// What teaches the learners, if the images are synthetic
    /// ([`Curriculum::generates`](crate::outer::curriculum::Curriculum::generates)). `generator` is that of
    /// these settings.
    pub fn lesson<'a>(&self, generator: &'a Generator) -> Lesson<'a> {
        Lesson {
            generator: (self.images == ImagesChoice::Generator).then_some(generator),
            noise: self.curriculum.noise(),
            soft_labels: self.labels == LabelsChoice::Soft,
        }
    }

    /// Splits the learners of an outer step into lots, by number. Learners of a lot that have one structure
    /// train at once.
    pub fn lots(&self) -> Vec<Range<usize>> {
        let (all, most) = (self.learners_per_step, self.most_at_once());
        let lot = |first| first..all.min(first + most);
        (0..all).step_by(most).map(lot).collect()
    }

    /// The most learners in a lot.
    pub fn most_at_once(&self) -> usize {
        match self.learners_at_once {
            0 => self.learners_per_step,
            most => most.min(self.learners_per_step),
        }
    }

    /// Examples of which something is learned: one for every place in a training, if the settings say no other number.
    pub fn example_count(&self) -> usize {
        match self.examples {
            0 => self.inner_steps * self.inner_batch,
            count => count,
        }
    }

    /// The most learners of one structure that share their kernels. Muon orthogonalises the matrices of one
    /// learner at a time.
    pub fn most_stacked(&self) -> usize {
        match self.inner_optimizer.0 {
            Optimizer::Muon => 1,
            _ => self.most_at_once(),
        }
    }

    /// How many meta-gradients are kept until the order of a lot's learners is known: their weights depend on
    /// it.
    pub fn waiting(&self) -> usize {
        self.rank_by.path().map_or(0, |_| self.most_at_once())
    }

    /// How an outer step unrolls the training of its learner, when all inner steps are reached.
    pub fn horizon(&self) -> Horizon {
        self.horizon_of(self.inner_steps)
    }

    /// The same for a training of `steps` inner steps.
    pub fn horizon_of(&self, steps: usize) -> Horizon {
        Horizon::new(steps)
            .outer_at(|step| self.outer_at(step, steps))
            .schedule(self.engine.schedule)
            .segments(self.engine.segments)
            .mode(self.engine.mode.into())
    }

    /// Inner steps in an outer step, counted from 0.
    pub fn steps_at(&self, outer_step: u64) -> usize {
        self.grow_steps.steps(self.inner_steps, outer_step)
    }

    /// Whether the meta-loss has a term after inner step `step`, counted from 1, of a training of `steps`.
    pub fn outer_at(&self, step: usize, steps: usize) -> bool {
        step.is_multiple_of(self.outer_every) || step == steps
    }

    /// How many terms the meta-loss has, when all inner steps are reached.
    pub fn outer_count(&self) -> usize {
        self.inner_steps.div_ceil(self.outer_every)
    }

    /// The hyper-parameters of the outer optimiser, without its learning rate.
    pub fn outer_hyper(&self) -> Vec<(&'static str, f64)> {
        let names = self.outer_optimizer.0.hyper().iter().map(|(name, _)| *name);
        let value = |name| match name {
            "beta1" | "momentum" => (name, self.outer_beta1),
            "beta2" | "decay" => (name, self.outer_beta2),
            "eps" => (name, self.outer_eps),
            _ => (name, self.outer_weight_decay),
        };
        names.filter(|name| *name != "lr").map(value).collect()
    }

    /// The outer learning rate at an outer step, counted from 0: half a cosine from `outer_lr` to
    /// `outer_lr_end` times that (Loshchilov and Hutter 2017).
    pub fn outer_lr_at(&self, step: u64) -> f64 {
        let done = step as f64 / self.outer_steps.max(1) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        self.outer_lr * (self.outer_lr_end + (1.0 - self.outer_lr_end) * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::config::Preset;

    #[test]
    fn what_makes_no_network_is_not_drawn() {
        let problem = Problem::MNIST;
        let mut draws = 0;
        let found = fitting(problem, || {
            draws += 1;
            match draws {
                1 => Err(autograd::Error::Setting("no network".to_owned())),
                _ => Family::default().middle(),
            }
        });
        assert_eq!((found.is_ok(), draws), (true, 2));
        let none = || Err(autograd::Error::Setting("no network".to_owned()));
        assert_eq!(
            fitting(problem, none).unwrap_err().to_string(),
            "no network"
        );
    }

    #[test]
    fn the_outer_rate_falls_along_a_cosine() {
        let config = Config {
            outer_steps: 100,
            outer_lr: 2.0,
            ..Config::preset(Preset::Quick)
        };
        let at = |step| config.outer_lr_at(step);
        assert!((at(0) - 2.0).abs() < 1e-12 && (at(100) - 0.2).abs() < 1e-12);
        assert!((at(50) - 1.1).abs() < 1e-12);
    }

    #[test]
    fn the_meta_loss_always_looks_at_the_last_step() {
        let config = Config {
            inner_steps: 10,
            outer_every: 4,
            ..Config::preset(Preset::Quick)
        };
        let steps: Vec<usize> = (1..=10).filter(|&s| config.outer_at(s, 10)).collect();
        assert_eq!((steps.len(), steps), (config.outer_count(), vec![4, 8, 10]));
    }
}
