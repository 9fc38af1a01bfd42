//! The result of a run of a study.

use crate::error::Result;
use crate::eval::report::Report;
use crate::run::ledger::Record;
use crate::run::run_folder::{METRICS, metrics};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// A run that broke stays broken: with its settings it would break again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Broke {
    /// Its name.
    pub run: String,
    /// Why, in a sentence.
    pub reason: String,
}

impl Record for Broke {
    fn key(&self) -> String {
        self.run.clone()
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With an evaluation of its learners on the test images.
    Done {
        /// Their mean accuracy, from 0 to 1.
        mean: f64,
        /// That of the worst learner.
        min: f64,
        /// How many learners ran away.
        runaways: usize,
    },
    /// With an error.
    Broke(String),
}

/// What a run's folder tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// How it ended.
    pub outcome: Outcome,
    /// Seconds of its outer steps.
    pub seconds: f64,
    /// Outer steps and accuracies on validation images.
    pub curve: Vec<(f64, f64)>,
}

impl Found {
    /// Reads a run's folder; `broke` has the reason if the run broke. `None` if it has not ended.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn read(folder: &Path, broke: Option<&Broke>) -> Result<Option<Self>> {
        // A run that has gone on since its evaluation has not ended.
        let report = Report::of_run(folder)?.filter(|report| report.outdated().is_none());
        let outcome = match (report, broke) {
            (Some(report), _) => Outcome::Done {
                mean: report.gtn_accuracy_mean,
                min: report.gtn_accuracy_min,
                runaways: report.runaways,
            },
            (None, Some(broke)) => Outcome::Broke(broke.reason.clone()),
            (None, None) => return Ok(None),
        };
        // A run that never began has none.
        let began = folder.join(METRICS).exists();
        let lines = began
            .then(|| metrics(folder))
            .transpose()?
            .unwrap_or_default();
        let of = |line: &Value, name: &str| line[name].as_f64();
        let curve = |line| Some((of(line, "outer_step")?, of(line, "validation_accuracy")?));
        Ok(Some(Self {
            outcome,
            seconds: lines
                .iter()
                .filter_map(|line| of(line, "seconds"))
                .fold(0.0, |sum, seconds| sum + seconds),
            curve: lines.iter().filter_map(curve).collect(),
        }))
    }

    /// Its accuracy on the test images, unless it broke.
    pub fn accuracy(&self) -> Option<f64> {
        match self.outcome {
            Outcome::Done { mean, .. } => Some(mean),
            Outcome::Broke(_) => None,
        }
    }
}
