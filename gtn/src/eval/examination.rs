//! The inputs of an evaluation.

use crate::data::Dataset;
use crate::eval::evaluate::{TestSet, Trainee};
use crate::eval::rivals::RealImages;
use crate::eval::training_data::{Hyper, TrainingData};
use crate::nn::Learner;
use crate::outer::rule::Rule;
use crate::outer::teacher::Teacher;
use crate::ranks::Ranks;
use crate::run::config::Config;
use autograd::prelude::*;

/// Everything that training and judging a learner needs; learners go by number.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
#[derive(Clone, Copy)]
pub struct Examination<'a> {
    /// Where it computes.
    pub device: &'a Device,
    /// The ranks that share the work.
    pub ranks: &'a Ranks,
    /// Settings of the run; with the number of learners.
    pub config: &'a Config,
    /// What the run has learned.
    pub teacher: &'a Teacher,
    /// Real images.
    pub data: &'a Dataset,
    /// Validation images, on which choices such as learning rates are made.
    pub glance: &'a TestSet,
    /// Test images, which are for the report only.
    pub test: &'a TestSet,
    /// Name and widths of the learners, for the report.
    pub learner: [&'a str; 2],
    /// The structure of the learner of that number.
    pub draw: &'a dyn Fn(u64) -> Result<Learner>,
}

impl Examination<'_> {
    /// The learner of that number, before its training.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn trainee(&self, rule: Rule, number: u64) -> Result<Trainee> {
        let learner = (self.draw)(number)?;
        let problem = self.data.problem();
        Trainee::new(self.device, self.config, problem, &learner, rule, number)
    }

    /// What the teacher gives it.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn taught(&self, number: u64) -> Result<TrainingData> {
        TrainingData::taught(self.device, self.config, self.teacher, self.data, number)
    }

    /// Real images for it, with these hyper-parameters.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn real(&self, images: &RealImages, hyper: &Hyper, number: u64) -> Result<TrainingData> {
        let chosen = images.numbers(self.config, self.data, number);
        let taught = (&*chosen, number);
        TrainingData::of_images(self.device, self.config, self.data, taught, hyper)
    }
}
