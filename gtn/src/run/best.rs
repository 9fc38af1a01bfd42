//! The best checkpoint of a run, by the accuracy of fresh learners on validation images.

use super::run_folder::{BEST, CHECKPOINT, RunFolder};
use crate::error::{Error, Result};
use clap::ValueEnum;
use std::path::{Path, PathBuf};
use tensor::Metadata;

const STEP: &str = "best_outer_step";
const ACCURACY: &str = "best_accuracy";
const WAITED: &str = "validations_since_best";

/// The validation that was best so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// After how many outer steps.
    pub outer_step: u64,
    /// The mean of the learners' accuracies.
    pub accuracy: f64,
    /// How many validations came after it.
    pub waited: u64,
}

impl Best {
    /// Takes in another validation, and says whether it is the new best. On a tie the earlier one stays.
    pub fn see(best: &mut Option<Self>, outer_step: u64, accuracy: f64) -> bool {
        match best {
            Some(known) if accuracy <= known.accuracy => {
                known.waited += 1;
                false
            }
            _ => {
                *best = Some(Self {
                    outer_step,
                    accuracy,
                    waited: 0,
                });
                true
            }
        }
    }

    /// The entries that a checkpoint stores for it.
    pub(super) fn entries(self) -> [(String, String); 3] {
        [
            (STEP, self.outer_step.to_string()),
            // The shortest decimal text that parses back to the same bits.
            (ACCURACY, self.accuracy.to_string()),
            (WAITED, self.waited.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }

    /// Reads it back; a checkpoint before the first validation has none.
    pub(super) fn in_checkpoint(about: &Metadata) -> Option<Self> {
        Some(Self {
            outer_step: about.get(STEP)?.parse().ok()?,
            accuracy: about.get(ACCURACY)?.parse().ok()?,
            waited: about.get(WAITED)?.parse().ok()?,
        })
    }
}

/// A checkpoint of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// The last
    #[default]
    Last,
    /// That whose learners were best on validation images
    Best,
}

impl Which {
    /// Where it is.
    ///
    /// # Errors
    /// If the folder has none.
    pub fn of(self, run: &Path) -> Result<PathBuf> {
        let last = RunFolder::checkpoint_in(run)?;
        if self == Self::Last {
            return Ok(last);
        }
        let best = run.join(BEST);
        if best.is_file() {
            return Ok(best);
        }
        let error = Error::run(format!("no {BEST} there")).at(run.display());
        Err(error.hint(format!(
            "it is written at the first validation; --checkpoint last takes {CHECKPOINT}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_best_counts_and_others_are_waited_for() {
        let mut best = None;
        let seen = [0.1, 0.3, 0.3, 0.2, 0.1 + 0.3].map(|accuracy| {
            let step = 10 * best.map_or(1, |b: Best| b.outer_step / 10 + b.waited + 1);
            (Best::see(&mut best, step, accuracy), best.unwrap().waited)
        });
        assert_eq!(
            seen,
            [(true, 0), (true, 0), (false, 1), (false, 2), (true, 0)]
        );
        let best = best.unwrap();
        assert_eq!((best.outer_step, best.accuracy), (50, 0.4));
    }

    #[test]
    fn it_comes_back_bit_for_bit() {
        for accuracy in [0.1 + 0.2, 1.0 / 3.0, 0.0] {
            let best = Best {
                outer_step: 7,
                accuracy,
                waited: 3,
            };
            let about = Metadata::from(best.entries());
            assert_eq!(Best::in_checkpoint(&about), Some(best));
        }
        assert_eq!(Best::in_checkpoint(&Metadata::new()), None);
    }
}
