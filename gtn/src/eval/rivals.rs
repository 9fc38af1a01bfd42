//! Baselines of a run: which real images teach, and how.

use crate::data::Dataset;
use crate::data::coreset::Choice;
use crate::error::{Error, Result};
use crate::outer::curriculum::Curriculum;
use crate::outer::inner::Inner;
use crate::outer::known::{Known, drawn_of};
use crate::outer::rule::Rule;
use crate::outer::teacher::Teacher;
use crate::run::config::Config;
use crate::seeds::draw_images;
use autograd::prelude::*;
use clap::ValueEnum;

/// Baselines: which real images teach learners beside the run, under momentum, Adam and Muon, each tuned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Baselines {
    /// None, which saves most of an evaluation's time
    None,
    /// Images drawn anew for every learner
    #[default]
    Fresh,
    /// Those; as many images as the run makes, drawn once; and as many chosen as a k-centre coreset: three times the work
    All,
}

/// Which real images teach.
#[derive(Clone, Debug, PartialEq)]
pub enum RealImages {
    /// Drawn anew for every learner.
    Fresh,
    /// As `Fresh`, but only out of the labelled images of a semi-supervised run, whose indices are given.
    Labelled(Vec<usize>),
    /// The same images for all learners, in one order, epoch after epoch: a name, and the indices of as many
    /// images as the run makes.
    Chosen(&'static str, Vec<usize>),
}

impl RealImages {
    /// Images that are drawn anew for every learner, out of all whose classes the run knows.
    pub fn drawn(config: &Config, data: &Dataset) -> Self {
        match config.curriculum {
            Curriculum::SemiSupervised => Self::Labelled(Known::of(config, &data.train).labelled),
            _ => Self::Fresh,
        }
    }

    /// The part of a way's name that stands before the optimiser, such as "k-centre, ".
    pub(super) fn prefix(&self) -> String {
        match self {
            Self::Fresh => String::new(),
            Self::Labelled(known) => format!("{} labelled, ", known.len()),
            Self::Chosen(name, _) => format!("{name}, "),
        }
    }

    /// The indices of the images for a training, in order.
    pub(super) fn numbers(&self, config: &Config, data: &Dataset, training: u64) -> Vec<usize> {
        match self {
            Self::Fresh => {
                let count = config.inner_steps * config.inner_batch;
                draw_images(config.seed, training, count, data.train.len())
            }
            Self::Labelled(known) => {
                let count = config.inner_steps * config.inner_batch;
                drawn_of(known, config.seed, training, count)
            }
            Self::Chosen(_, numbers) => {
                let count = config.inner_steps * config.inner_batch;
                numbers.iter().copied().cycle().take(count).collect()
            }
        }
    }
}

/// Hyper-parameters that a run on real images learned for an optimiser.
#[derive(Debug)]
pub struct LearnedRates {
    /// What moves the weights.
    pub rule: Rule,
    /// A name and \[T\] numbers for each of its hyper-parameters.
    pub hyper: Vec<(&'static str, Array)>,
}

impl LearnedRates {
    /// Those of a run with the settings `theirs`, for learners that are trained as `ours` say.
    ///
    /// # Errors
    /// If they were not learned for real images, or for other steps and batches; or if the device fails.
    pub fn of(theirs: &Config, teacher: &Teacher, ours: &Config) -> Result<Self> {
        if theirs.curriculum != Curriculum::RealData {
            let message = "it was not trained on real images";
            return Err(Error::usage(message).hint(format!(
                "gtn train --curriculum real-data --inner-steps {} --inner-batch {} makes such a run",
                ours.inner_steps, ours.inner_batch
            )));
        }
        if ours.curriculum == Curriculum::RealData {
            let message =
                "the run itself has rates learned for real images, so there is nothing to compare";
            return Err(Error::usage(message).hint("gtn compare shows runs side by side"));
        }
        let sizes = [theirs, ours].map(|config| [config.inner_steps, config.inner_batch]);
        if sizes[0] != sizes[1] {
            let [[steps, batch], [own_steps, own_batch]] = sizes;
            return Err(Error::usage(format!(
                "its learners take {steps} steps of {batch} images, and those of the run {own_steps} of {own_batch}"
            )));
        }
        Ok(Self {
            rule: Inner::of(theirs).rule,
            hyper: teacher.hyper(theirs)?,
        })
    }
}

/// All that a run is compared with, and how.
#[derive(Debug, Default)]
pub struct Rivals {
    /// Whether the run's own rates are tuned for each network as well: multiplied by the best share.
    pub tune_rates: bool,
    /// Which real images teach, under optimisers that are tuned.
    pub images: Vec<RealImages>,
    /// Further baselines with these numbers of inner steps, on real images that are drawn anew. They show how
    /// long real images need to teach as well.
    pub steps: Vec<usize>,
    /// Rates that were learned for fresh real images.
    pub learned: Option<LearnedRates>,
}

impl Rivals {
    /// Chooses the images of baselines. For a semi-supervised run they are its labelled images;
    /// [`Baselines::All`] adds all images with their classes.
    pub fn new(baselines: Baselines, config: &Config, data: &Dataset) -> Self {
        let count = config.example_count();
        let chosen = |name, choice: Choice| {
            let classes = data.problem().classes;
            let numbers = choice.of(&data.train, classes, count, config.seed);
            RealImages::Chosen(name, numbers)
        };
        let some = config.curriculum == Curriculum::SemiSupervised;
        let images = match baselines {
            Baselines::None => vec![],
            Baselines::Fresh => vec![RealImages::drawn(config, data)],
            Baselines::All if some => vec![RealImages::drawn(config, data), RealImages::Fresh],
            Baselines::All => vec![
                RealImages::Fresh,
                chosen("random subset", Choice::Random),
                chosen("k-centre", Choice::KCentre),
            ],
        };
        Self {
            images,
            ..Self::default()
        }
    }
}
