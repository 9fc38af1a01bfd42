//! The networks that the outer loop teaches to teach.

use crate::data::Problem;
use crate::nn::{Generator, Learner, Statistics};
use crate::outer::curriculum::Curriculum;
use crate::run::config::Config;
use autograd::prelude::*;

/// The generator of images, and the labeller of real ones.
#[derive(Clone, Debug)]
pub struct Makers {
    /// The network that makes the images; not used if real images teach.
    pub generator: Generator,
    /// The network that labels images in a semi-supervised run: the learners' first family, in the middle of
    /// its widths.
    pub labeller: Option<Learner>,
}

impl Makers {
    /// The networks of these settings.
    ///
    /// # Errors
    /// If there is no such generator, or the labeller does not fit the images.
    pub fn of(config: &Config, problem: Problem) -> Result<Self> {
        let labels = config.curriculum == Curriculum::SemiSupervised;
        let labeller = || {
            let population = config.population();
            let drawn = population.members()[0].source.middle()?;
            drawn.network.learner(problem.image, problem.classes)
        };
        Ok(Self {
            generator: config.generator(problem)?,
            labeller: labels.then(labeller).transpose()?,
        })
    }
}

/// The soft labels \[n, classes\] that a labeller gives images. Its batch norms are over these images.
pub fn named<'t>(labeller: &Learner, weights: &[Var<'t>], images: Var<'t>) -> Result<Var<'t>> {
    let (logits, _) = labeller.logits(weights, images, Statistics::Batch)?;
    logits.softmax()
}
