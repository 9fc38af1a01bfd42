//! Random numbers by name: every draw is a function of the seed, what it is for, and two counters.
//! So a resumed run draws what the uninterrupted one would have drawn.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tensor::Array;

/// What random numbers are for. The discriminants go into the generator's key, so changing one changes
/// results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Starting weights of the generator.
    Generator = 1,
    /// Noise vectors.
    Noise = 2,
    /// Labels of a curriculum that draws new ones for every training.
    Labels = 3,
    /// The order of a shuffled curriculum.
    Order = 4,
    /// Widths of learners.
    Widths = 5,
    /// Starting weights of learners.
    Learner = 6,
    /// Real images of outer losses.
    OuterBatch = 7,
    /// Real images that learners train on.
    RealBatch = 8,
    /// Which images become the test set of a data set that has none.
    TestSplit = 9,
    /// Which training images are held out for validation.
    ValidationSplit = 10,
    /// Augmentation of the real images that learners train on.
    Augment = 11,
    /// Augmentation of the real images of outer losses.
    OuterAugment = 12,
    /// Which networks of a search space are held out or ranked.
    Split = 13,
    /// What a search proposes.
    Search = 14,
    /// Which real images a baseline is given, once for all learners.
    Choice = 15,
    /// Dropout in learners.
    Dropout = 16,
    /// Which training images have known classes in a semi-supervised run.
    Labelled = 17,
    /// Starting weights of the network that labels images in a semi-supervised run.
    Labeller = 18,
    /// Settings that a study draws.
    Study = 19,
    /// Starting weights of an auxiliary head.
    Auxiliary = 20,
}

/// A stream of random numbers of its own for each (seed, `what`, `step`, `index`).
///
/// ```
/// use gtn::seeds::{Draw, rng};
/// use rand::RngExt;
/// let again: u64 = rng(7, Draw::Noise, 3, 0).random();
/// assert_eq!(again, rng(7, Draw::Noise, 3, 0).random::<u64>());
/// ```
pub fn rng(seed: u64, what: Draw, step: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, word) in key
        .chunks_exact_mut(8)
        .zip([seed, what as u64, step, index])
    {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// The numbers of `images` real images out of `count`, drawn uniformly for the inner steps of the training
/// number `number`.
pub(crate) fn draw_images(seed: u64, number: u64, images: usize, count: usize) -> Vec<usize> {
    let rng = &mut rng(seed, Draw::RealBatch, number, 0);
    (0..images).map(|_| rng.random_range(0..count)).collect()
}

/// Dropout keys for each of `steps` steps of the training number `number`: u32 \[steps, 4\].
pub(crate) fn dropout_keys(seed: u64, number: u64, steps: usize) -> Array {
    let rng = &mut rng(seed, Draw::Dropout, number, 0);
    let words: Vec<u32> = (0..4 * steps).map(|_| rng.random()).collect();
    Array::new([steps, 4], words).expect("there are four for each step")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_in_each_of_their_four_names() {
        let first = |seed, what, step, index| rng(seed, what, step, index).random::<u64>();
        let mut draws = vec![
            first(1, Draw::Noise, 0, 0),
            first(2, Draw::Noise, 0, 0),
            first(1, Draw::Order, 0, 0),
            first(1, Draw::Noise, 1, 0),
            first(1, Draw::Noise, 0, 1),
        ];
        draws.sort_unstable();
        draws.dedup();
        assert_eq!(draws.len(), 5);
    }
}
