//! Curricula: which noise and classes a learner sees, and in what order.

use crate::seeds::{Draw, rng};
use clap::ValueEnum;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_distr::{Distribution, StandardNormal};
use serde::Serialize;

/// The curricula of Such et al. (2020), from the one that learns least to the one that learns most: the first is
/// their baseline. And the last, with noise around learned means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Curriculum {
    /// Real images, drawn anew at every inner step; only learning rates and momenta are learned
    RealData,
    /// As real-data, but with images whose classes are not known (see --labelled): a network that is learned names them
    SemiSupervised,
    /// Fresh noise and fresh labels at every inner step; only the generator learns
    NoCurriculum,
    /// Learned noise; every inner step takes any of it
    AllShuffled,
    /// Learned noise in fixed batches, which come in any order
    ShuffledBatch,
    /// Learned noise in fixed batches in a fixed order
    #[default]
    Full,
    /// As full, but with noise that is drawn anew around learned means with learned spreads
    Gaussian,
}

/// Where synthetic images come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ImagesChoice {
    /// A generator makes them of noise and classes
    #[default]
    Generator,
    /// Every pixel is learned
    Pixels,
}

/// What synthetic images are before the first outer step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum StartImages {
    /// Noise, or what a generator with random weights makes of it
    #[default]
    Noise,
    /// Real training images of their classes; a generator first learns to make them
    Real,
}

/// What the classes of synthetic images are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LabelsChoice {
    /// One class each, in turn
    #[default]
    Fixed,
    /// A distribution over the classes, learned for every image
    Soft,
    /// A distribution over the classes, which the generator makes of noise, as the image
    Generator,
}

/// Where a generator's noise comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// It is drawn anew for every training.
    Fresh,
    /// Every vector is learned.
    Learned,
    /// A mean and a spread are learned for every number, and it is drawn anew around them.
    Gaussian,
}

impl Curriculum {
    /// Whether images are synthetic.
    pub fn generates(self) -> bool {
        !matches!(self, Self::RealData | Self::SemiSupervised)
    }

    /// Whether every example has parameters of its own that are learned, such as its noise.
    pub fn learns_examples(self) -> bool {
        self.generates() && self != Self::NoCurriculum
    }

    /// Where the noise comes from.
    pub fn noise(self) -> Noise {
        match self {
            Self::RealData | Self::SemiSupervised | Self::NoCurriculum => Noise::Fresh,
            Self::AllShuffled | Self::ShuffledBatch | Self::Full => Noise::Learned,
            Self::Gaussian => Noise::Gaussian,
        }
    }

    /// For each of the T·B places in the training of outer step `outer_step`, the number of the example
    /// there. If there are fewer `examples`, they come again, epoch after epoch. Shuffled batches stay whole.
    pub fn order(
        self,
        [steps, batch]: [usize; 2],
        examples: usize,
        seed: u64,
        outer_step: u64,
    ) -> Vec<usize> {
        let mut rng = rng(seed, Draw::Order, outer_step, 0);
        let mut pass = || -> Vec<usize> {
            let mut order: Vec<usize> = (0..examples).collect();
            match self {
                Self::AllShuffled => order.shuffle(&mut rng),
                Self::ShuffledBatch => {
                    let mut batches: Vec<&[usize]> = order.chunks(batch).collect();
                    batches.shuffle(&mut rng);
                    order = batches.concat();
                }
                Self::RealData
                | Self::SemiSupervised
                | Self::NoCurriculum
                | Self::Full
                | Self::Gaussian => {}
            }
            order
        };
        let passes = (steps * batch).div_ceil(examples);
        let mut order: Vec<usize> = (0..passes).flat_map(|_| pass()).collect();
        order.truncate(steps * batch);
        order
    }

    /// The class of each of `count` examples: the classes in turn, or drawn for this outer step.
    pub fn labels(self, count: usize, classes: usize, seed: u64, outer_step: u64) -> Vec<u16> {
        if self.learns_examples() {
            return (0..count).map(|i| (i % classes) as u16).collect();
        }
        let mut rng = rng(seed, Draw::Labels, outer_step, 0);
        (0..count)
            .map(|_| rng.random_range(0..classes as u16))
            .collect()
    }
}

/// Gaussian noise: the start of learned noise (at outer step 0), or fresh noise.
pub fn noise(count: usize, seed: u64, outer_step: u64) -> Vec<f32> {
    let mut rng = rng(seed, Draw::Noise, outer_step, 0);
    let draw = |_| Distribution::<f32>::sample(&StandardNormal, &mut rng);
    (0..count).map(draw).collect()
}

/// One row of `classes` numbers for each label: 1 at the class, 0 elsewhere.
pub fn one_hot(labels: &[u16], classes: usize) -> Vec<f32> {
    let mut rows = vec![0.0; labels.len() * classes];
    for (row, &label) in rows.chunks_exact_mut(classes).zip(labels) {
        row[usize::from(label)] = 1.0;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [usize; 2] = [4, 15];

    #[test]
    fn every_order_has_every_example_once() {
        for &curriculum in Curriculum::value_variants() {
            let mut order = curriculum.order(SIZES, 60, 3, 5);
            order.sort_unstable();
            assert!(order.into_iter().eq(0..60), "{curriculum:?}");
        }
    }

    #[test]
    fn fewer_examples_come_again_when_all_have_come() {
        let order = |curriculum: Curriculum, examples| curriculum.order([5, 4], examples, 3, 5);
        let full: Vec<usize> = (0..20).map(|place| place % 6).collect();
        assert_eq!(order(Curriculum::Full, 6), full);
        assert_eq!(order(Curriculum::Gaussian, 6), full);
        for (curriculum, examples) in [(Curriculum::AllShuffled, 6), (Curriculum::ShuffledBatch, 8)]
        {
            let order = order(curriculum, examples);
            assert_eq!(order.len(), 20);
            let passes: Vec<&[usize]> = order.chunks_exact(examples).collect();
            for pass in &passes {
                let mut pass = pass.to_vec();
                pass.sort_unstable();
                assert!(pass.into_iter().eq(0..examples), "{curriculum:?}");
            }
            assert_ne!(passes[0], passes[1], "{curriculum:?}");
        }
        // Here one batch has all examples.
        assert_eq!(order(Curriculum::ShuffledBatch, 4), [0, 1, 2, 3].repeat(5));
    }

    #[test]
    fn shuffled_batches_stay_whole_and_full_stays_as_it_is() {
        let order = Curriculum::ShuffledBatch.order(SIZES, 60, 3, 5);
        for batch in order.chunks(15) {
            assert!(
                batch[0].is_multiple_of(15) && batch.iter().copied().eq(batch[0]..batch[0] + 15)
            );
        }
        let full = Curriculum::Full.order(SIZES, 60, 3, 5);
        assert!(full.into_iter().eq(0..60));
        let all = Curriculum::AllShuffled.order(SIZES, 60, 3, 5);
        assert!(
            all.chunks(15)
                .any(|batch| batch.iter().any(|i| i / 15 != batch[0] / 15))
        );
    }

    #[test]
    fn orders_change_with_the_outer_step_and_come_back() {
        for curriculum in [Curriculum::AllShuffled, Curriculum::ShuffledBatch] {
            let order = |step| curriculum.order([16, 4], 64, 3, step);
            assert_ne!(order(1), order(2));
            assert_eq!(order(1), order(1));
        }
    }

    #[test]
    fn fixed_labels_are_even_in_all_and_in_every_batch() {
        let labels = Curriculum::Full.labels(60, 10, 1, 2);
        let counts = |labels: &[u16]| {
            let mut counts = [0; 10];
            for &label in labels {
                counts[usize::from(label)] += 1;
            }
            counts
        };
        assert_eq!(counts(&labels), [6; 10]);
        for batch in labels.chunks(15) {
            assert!(counts(batch).iter().all(|n| (1..=2).contains(n)));
        }
        let fresh = |step| Curriculum::NoCurriculum.labels(60, 10, 1, step);
        assert_ne!(fresh(1), fresh(2));
    }

    #[test]
    fn noise_is_gaussian_and_new_at_every_outer_step() {
        let numbers = noise(4000, 1, 0);
        let mean = numbers.iter().sum::<f32>() / 4000.0;
        let squares = numbers.iter().map(|x| x * x).sum::<f32>() / 4000.0;
        assert!(mean.abs() < 0.06 && (squares - 1.0).abs() < 0.1);
        assert_ne!(noise(4, 1, 1), numbers[..4]);
    }
}
