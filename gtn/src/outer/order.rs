//! Compares the order of an outer step's learners by meta-loss with their order by known accuracies. A
//! teacher that is meant for ranking learns to bring the two together.
//!
//! That is a supervised teacher: it has been shown how good networks are when they are fully trained.

use crate::error::{Error, Result};
use crate::nn::{Code, Drawn, Space, Truth};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize, Serializer};
use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The scale of the pairwise loss, in nats: two learners whose mean losses differ by more are clearly
/// ordered.
const CLEAR: f64 = 0.1;

/// The file with the accuracies of a space's networks, and perhaps the name of its column after a comma; or
/// none.
///
/// ```
/// use gtn::outer::order::RankBy;
/// let table: RankBy = "nasbench201.csv,c100_val200".parse()?;
/// assert_eq!(table.path().unwrap().to_str(), Some("nasbench201.csv"));
/// assert_eq!(RankBy::default().to_string(), "none");
/// # Ok::<(), std::convert::Infallible>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RankBy(Option<(PathBuf, Option<String>)>);

impl RankBy {
    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.0.as_ref().map(|(path, _)| path.as_path())
    }

    /// Reads the accuracies of that space's networks, if there is a file: from it, or from a run's `copy`.
    ///
    /// # Errors
    /// As [`Truth::read`], or if its networks that are not held out all have the same accuracy.
    pub fn read(&self, copy: Option<&Path>, space: &Space) -> Result<Option<Ranking>> {
        let Some((path, column)) = &self.0 else {
            return Ok(None);
        };
        let path = copy.unwrap_or(path);
        let truth = Truth::read(path, column.as_deref(), space)?;
        let ranking = Ranking::new(space, truth);
        ranking.map_err(|error| error.at(path.display())).map(Some)
    }
}

/// Networks of a space whose accuracies are known, from which learners are drawn.
#[derive(Clone, Debug)]
pub struct Ranking {
    space: Space,
    truth: Truth,
    /// Those that are not held out.
    codes: Vec<Code>,
}

impl Ranking {
    fn new(space: &Space, truth: Truth) -> Result<Self> {
        let codes = truth.codes().iter().filter(|code| !space.holds_out(code));
        let codes: Vec<Code> = codes.cloned().collect();
        let accuracies: Vec<_> = codes.iter().filter_map(|code| truth.of(code)).collect();
        if accuracies.iter().all(|accuracy| *accuracy == accuracies[0]) {
            let count = codes.len();
            let message = format!(
                "{count} of its networks are not held out, and an order needs two of different accuracies"
            );
            return Err(Error::usage(message).hint("the accuracies of a hundred networks, or more"));
        }
        Ok(Self {
            space: space.clone(),
            truth,
            codes,
        })
    }

    /// The accuracies.
    pub fn truth(&self) -> &Truth {
        &self.truth
    }

    /// The networks from which learners are drawn.
    pub fn codes(&self) -> &[Code] {
        &self.codes
    }

    /// Draws a network, uniformly.
    pub(super) fn draw<R: Rng + ?Sized>(&self, rng: &mut R) -> autograd::Result<Drawn> {
        self.space
            .drawn(&self.codes[rng.random_range(0..self.codes.len())])
    }

    /// The accuracy of a network that was drawn here.
    pub(super) fn accuracy(&self, drawn: &Drawn) -> Option<f64> {
        self.truth.of(drawn.code.as_ref()?)
    }
}

impl FromStr for RankBy {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Infallible> {
        if text == "none" {
            return Ok(Self(None));
        }
        // A comma may be part of the file's name.
        let column = text.rsplit_once(',').filter(|_| !Path::new(text).is_file());
        Ok(Self(Some(match column {
            Some((path, column)) => (path.into(), Some(column.to_owned())),
            None => (text.into(), None),
        })))
    }
}

impl fmt::Display for RankBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some((path, Some(column))) => write!(f, "{},{column}", path.display()),
            Some((path, None)) => path.display().fmt(f),
            None => f.write_str("none"),
        }
    }
}

impl Serialize for RankBy {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A network of an outer step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranked {
    /// The mean loss of its learners, over the terms of the meta-loss; NaN of one that ran away.
    pub(super) loss: f64,
    /// Its accuracy, if it is known.
    pub(super) accuracy: Option<f64>,
    /// How many of the step's learners have this network.
    pub(super) learners: usize,
}

impl Ranked {
    /// Whether both losses are numbers, and this one's network is known to be more accurate.
    fn goes_before(&self, other: &Self) -> bool {
        let are_numbers = self.loss.is_finite() && other.loss.is_finite();
        are_numbers
            && matches!((self.accuracy, other.accuracy), (Some(own), Some(other)) if own > other)
    }
}

/// How well learners are in the order of their accuracies. Only pairs with known and different accuracies
/// count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// How many there are.
    pub pairs: usize,
    /// Those of them in which the more accurate learner has the lower loss.
    pub right: usize,
    /// The sum of the pairs' losses: 0.1 · ln(1 + exp(d / 0.1)), where d is the mean loss of the more
    /// accurate learner minus that of the other (Burges et al. 2005, `RankNet`).
    pub loss: f64,
}

impl Order {
    /// The order of some networks; and the gradient of the mean pair loss with respect to each network's
    /// loss, all zero if there is no pair.
    pub(super) fn of(networks: &[Ranked]) -> (Self, Vec<f64>) {
        let (mut order, mut slopes) = (Self::default(), vec![0.0; networks.len()]);
        for (i, better) in networks.iter().enumerate() {
            for (j, worse) in networks.iter().enumerate() {
                if !better.goes_before(worse) {
                    continue;
                }
                let pairs = better.learners * worse.learners;
                let excess = (better.loss - worse.loss) / CLEAR;
                order.pairs += pairs;
                order.right += if excess < 0.0 { pairs } else { 0 };
                // ln(1 + exp x), in a form that does not overflow.
                let loss = CLEAR * (excess.max(0.0) + (-excess.abs()).exp().ln_1p());
                order.loss += pairs as f64 * loss;
                let slope = pairs as f64 / (1.0 + (-excess).exp());
                slopes[i] += slope;
                slopes[j] -= slope;
            }
        }
        let pairs = order.pairs.max(1) as f64;
        slopes.iter_mut().for_each(|slope| *slope /= pairs);
        (order, slopes)
    }

    /// Adds the pairs of another lot.
    pub(super) fn add(&mut self, other: Self) {
        self.pairs += other.pairs;
        self.right += other.right;
        self.loss += other.loss;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn slopes_are_differences_of_the_mean_loss(
            drawn in prop::collection::vec((0.0..3.0, prop::option::of(80.0..90.0), 1_usize..4), 0..6),
        ) {
            let networks = drawn.into_iter().map(|(loss, accuracy, learners)| Ranked { loss, accuracy, learners });
            let networks: Vec<Ranked> = networks.collect();
            let mean = |networks: &[Ranked]| {
                let (order, _) = Order::of(networks);
                order.loss / order.pairs.max(1) as f64
            };
            let (order, slopes) = Order::of(&networks);
            prop_assert!(order.right <= order.pairs);
            for (i, slope) in slopes.into_iter().enumerate() {
                let moved = |by: f64| {
                    let mut networks = networks.clone();
                    networks[i].loss += by;
                    mean(&networks)
                };
                let difference = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                prop_assert!((slope - difference).abs() < 1e-7, "{slope} {difference}");
            }
        }
    }

    #[test]
    fn who_has_no_number_or_an_equal_one_is_in_no_pair() {
        let known = [Some(90.0), Some(80.0), None, Some(80.0), Some(70.0)];
        let of = |losses: &[f64]| {
            let networks = losses.iter().zip(known);
            let networks = networks.map(|(&loss, accuracy)| ranked(loss, accuracy, 1));
            Order::of(&networks.collect::<Vec<_>>())
        };
        let (order, slopes) = of(&[0.1, 50.0, 0.0, 0.3, f64::NAN]);
        assert_eq!((order.pairs, order.right), (2, 2));
        assert_eq!((slopes[2], slopes[4]), (0.0, 0.0));
        let (order, _) = of(&[1000.0, 0.0]);
        assert_eq!((order.pairs, order.right, order.loss), (1, 0, 1000.0));
    }

    #[test]
    fn a_comma_may_be_part_of_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a,b.csv");
        let parts = |text: String| {
            let RankBy(found) = text.parse().unwrap();
            found.unwrap()
        };
        let column = || Some("b.csv".to_owned());
        assert_eq!(
            parts(path.display().to_string()),
            (dir.path().join("a"), column())
        );
        std::fs::write(&path, "").unwrap();
        assert_eq!(parts(path.display().to_string()), (path.clone(), None));
        assert_eq!(parts(format!("{},b.csv", path.display())), (path, column()));
    }

    fn ranked(loss: f64, accuracy: Option<f64>, learners: usize) -> Ranked {
        Ranked {
            loss,
            accuracy,
            learners,
        }
    }

    #[test]
    fn learners_of_one_network_count_each() {
        let (good, bad) = (Some(90.0), Some(80.0));
        let together = Order::of(&[ranked(0.5, good, 3), ranked(0.4, bad, 2)]);
        let apart = [(0.5, good); 3].into_iter().chain([(0.4, bad); 2]);
        let apart: Vec<_> = apart
            .map(|(loss, accuracy)| ranked(loss, accuracy, 1))
            .collect();
        let apart = Order::of(&apart);
        assert_eq!((together.0.pairs, together.0.right), (6, 0));
        assert_eq!((apart.0.pairs, apart.0.right), (6, 0));
        assert!((together.0.loss - apart.0.loss).abs() < 1e-12);
        assert!((together.1[0] - apart.1[..3].iter().sum::<f64>()).abs() < 1e-12);
    }
}
