//! Which training images count as labelled in a semi-supervised run.

use crate::data::Split;
use crate::error::{Error, Result};
use crate::outer::curriculum::Curriculum;
use crate::run::config::Config;
use crate::seeds::{Draw, draw_images, rng};
use rand::seq::SliceRandom;

/// Indices of training images: those whose classes a run may know, and the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Equally many of each class, up to one, as far as classes have so many.
    pub labelled: Vec<usize>,
    /// All others.
    pub others: Vec<usize>,
}

impl Known {
    /// Draws the labelled images of a semi-supervised run: one of each class in turn, as long as the class
    /// has any left. At least one image stays unlabelled.
    pub fn of(config: &Config, train: &Split) -> Self {
        let mut order: Vec<usize> = (0..train.len()).collect();
        order.shuffle(&mut rng(config.seed, Draw::Labelled, 0, 0));
        let mut found = vec![0; 1 + usize::from(train.labels.iter().copied().max().unwrap_or(0))];
        let mut turns: Vec<(usize, usize)> = Vec::with_capacity(order.len());
        for image in order {
            let turn = &mut found[usize::from(train.labels[image])];
            turns.push((*turn, image));
            *turn += 1;
        }
        turns.sort_by_key(|(turn, _)| *turn);
        let mut labelled: Vec<usize> = turns.into_iter().map(|(_, image)| image).collect();
        let most = train.len().saturating_sub(1);
        let others = labelled.split_off(config.labelled.min(most));
        Self { labelled, others }
    }

    /// The images, without classes, for the inner steps of the training number `number`.
    pub fn unlabelled(&self, config: &Config, number: u64) -> Vec<usize> {
        let count = config.inner_steps * config.inner_batch;
        drawn_of(&self.others, config.seed, number, count)
    }
}

/// Images of a list for the inner steps of the training number `number`, drawn uniformly.
pub(crate) fn drawn_of(list: &[usize], seed: u64, number: u64, count: usize) -> Vec<usize> {
    let places = draw_images(seed, number, count, list.len());
    places.into_iter().map(|place| list[place]).collect()
}

/// Refuses a semi-supervised run in which every image would be labelled.
///
/// # Errors
/// If so.
pub fn check(config: &Config, train: &Split) -> Result<()> {
    let (labelled, all) = (config.labelled, train.len());
    if config.curriculum != Curriculum::SemiSupervised || labelled < all {
        return Ok(());
    }
    let message = format!("--labelled {labelled} leaves none of {all} training images unlabelled");
    Err(Error::usage(message).hint("fewer of them"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use crate::run::config::Preset;

    #[test]
    fn classes_are_even_and_every_image_is_once_there() {
        let train = Dataset::drawn(1, [100, 10, 10]).train;
        let of = |labelled, seed| {
            let preset = Config::preset(Preset::Quick);
            let config = Config {
                seed,
                labelled,
                ..preset
            };
            Known::of(&config, &train)
        };
        let known = of(30, 1);
        let mut counts = [0; 10];
        for &image in &known.labelled {
            counts[usize::from(train.labels[image])] += 1;
        }
        assert_eq!(counts, [3; 10]);
        let mut all = [&known.labelled[..], &known.others].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..100));
        assert_eq!(known, of(30, 1));
        assert_ne!(known, of(30, 2));
        assert_eq!(of(1000, 1).others.len(), 1);
    }
}
