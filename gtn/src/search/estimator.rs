//! What networks are ranked by.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A sum of ranks: `gtn`, `gtn+structure`, `2*gtn-loss+params`.
///
/// ```
/// use gtn::search::Estimator;
/// let estimator: Estimator = "gtn@64+2*structure".parse()?;
/// assert_eq!(estimator.to_string(), "gtn@64+2*structure");
/// assert_eq!(estimator.sources().len(), 1);
/// assert_eq!("gtn+gtn-loss".parse::<Estimator>()?.sources().len(), 1);
/// assert!("fit@3".parse::<Estimator>().is_ok());
/// assert!("gnt".parse::<Estimator>().is_err() && "fit@0".parse::<Estimator>().is_err());
/// # Ok::<(), gtn::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Estimator {
    text: String,
    /// Columns, and the weights of their ranks.
    pub terms: Vec<(String, f64)>,
}

/// What has to be computed for a column that is not counted from the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// A training.
    Training(Teaching),
    /// [`synflow`](super::probe::synflow).
    Synflow,
    /// [`naswot`](super::probe::naswot).
    Naswot,
    /// [`latency`](super::probe::latency).
    Latency,
    /// The validation accuracy after a [`Fit`](crate::fit::Fit) of so many epochs, as `gtn fit` has it unless it is told otherwise.
    Fit(u64),
}

/// How learners are trained for an estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Teaching {
    /// Whether real images teach, and not the run.
    pub real: bool,
    /// Inner steps, where they are not those that the search was asked for.
    pub steps: Option<usize>,
}

/// A measure of a training; more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The validation accuracy after the last step.
    Accuracy,
    /// The mean of the validation accuracies after every quarter of the steps.
    Area,
    /// The negative validation loss after the last step.
    Loss,
    /// The negative sum of the training losses, which Ru et al. (2021) call training speed.
    Speed,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Accuracy, Self::Area, Self::Loss, Self::Speed];

    /// The suffix of a column, after the name of a training.
    fn suffix(self) -> &'static str {
        match self {
            Self::Accuracy => "",
            Self::Area => "-area",
            Self::Loss => "-loss",
            Self::Speed => "-speed",
        }
    }
}

impl Teaching {
    /// The column of a measure, as `gtn-loss@64`.
    pub fn column(self, measure: Measure) -> String {
        let name = if self.real { "real" } else { "gtn" };
        let steps = self
            .steps
            .map_or_else(String::new, |steps| format!("@{steps}"));
        format!("{name}{}{steps}", measure.suffix())
    }

    /// The training and measure of a column.
    fn of_column(column: &str) -> Option<(Self, Measure)> {
        let (name, steps) = match column.split_once('@') {
            Some((name, steps)) => (
                name,
                Some(
                    steps
                        .parse()
                        .ok()
                        .filter(|&steps| (1..=1 << 16).contains(&steps))?,
                ),
            ),
            None => (column, None),
        };
        Measure::ALL.into_iter().find_map(|measure| {
            let real = match name.strip_suffix(measure.suffix())? {
                "gtn" => false,
                "real" => true,
                _ => return None,
            };
            Some((Self { real, steps }, measure))
        })
    }
}

/// Prefix of the column of a fit, before its epochs.
const FIT: &str = "fit@";

/// The column of measured times, which cannot be ranked by.
pub(super) const LATENCY: &str = "latency_ms";

/// Columns that are counted from the network.
pub(super) const COUNTED: [&str; 6] = ["params", "macs", "depth", "convs", "path", "structure"];

impl Source {
    /// What the ledger calls it.
    pub fn name(self) -> String {
        match self {
            Self::Training(teaching) => teaching.column(Measure::Accuracy),
            Self::Synflow => "synflow".to_owned(),
            Self::Naswot => "naswot".to_owned(),
            Self::Latency => "latency".to_owned(),
            Self::Fit(epochs) => format!("{FIT}{epochs}"),
        }
    }

    /// The source of a column; `None` if it is counted from the network.
    pub(super) fn of_column(column: &str) -> Option<Self> {
        match column {
            "synflow" => Some(Self::Synflow),
            "naswot" => Some(Self::Naswot),
            column => match column.strip_prefix(FIT) {
                Some(epochs) => {
                    let epochs = epochs.parse().ok();
                    epochs.filter(|&epochs| epochs > 0).map(Self::Fit)
                }
                None => Teaching::of_column(column).map(|(teaching, _)| Self::Training(teaching)),
            },
        }
    }
}

impl Estimator {
    /// What it needs to have computed, each once.
    pub fn sources(&self) -> Vec<Source> {
        let of_term = |(column, _): &(String, f64)| Source::of_column(column);
        let sources: BTreeSet<Source> = self.terms.iter().filter_map(of_term).collect();
        sources.into_iter().collect()
    }

    /// The same estimator after `steps` steps, in all terms that do not name a number of steps themselves.
    #[must_use]
    pub fn after(&self, steps: usize) -> Self {
        let term = |(column, weight): &(String, f64)| match Teaching::of_column(column) {
            Some((teaching @ Teaching { steps: None, .. }, measure)) => {
                let shorter = Teaching {
                    steps: Some(steps),
                    ..teaching
                };
                (shorter.column(measure), *weight)
            }
            _ => (column.clone(), *weight),
        };
        Self {
            text: format!("{} after {steps} steps", self.text),
            terms: self.terms.iter().map(term).collect(),
        }
    }

    /// Whether it needs accuracies between the first and the last step.
    pub fn needs_area(&self) -> bool {
        let area = |column: &str| {
            Teaching::of_column(column).is_some_and(|(_, measure)| measure == Measure::Area)
        };
        self.terms.iter().any(|(column, _)| area(column))
    }
}

impl fmt::Display for Estimator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Estimator {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let term = |part: &str| {
            let (weight, column) = part.split_once('*').unwrap_or(("1", part));
            let weight = weight
                .parse()
                .ok()
                .filter(|weight: &f64| weight.is_finite() && *weight != 0.0);
            let weight = weight.ok_or_else(|| {
                Error::usage(format!(
                    "`{part}`: a weight before `*` is needed, as in 2*gtn"
                ))
            })?;
            if Source::of_column(column).is_none() && !COUNTED.contains(&column) {
                let error = Error::usage(format!("there is no estimator `{column}`"));
                return Err(error.hint(format!(
                    "gtn and real, each also with -area, -loss or -speed and then @STEPS; fit@EPOCHS, synflow, naswot, {}; and sums as gtn+structure",
                    COUNTED.join(", ")
                )));
            }
            Ok((column.to_owned(), weight))
        };
        let terms = text.split('+').map(term).collect::<Result<_>>()?;
        Ok(Self {
            text: text.to_owned(),
            terms,
        })
    }
}
