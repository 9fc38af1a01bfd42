//! The runs of a study, summed up by variant.

use super::{Found, Outcome, Run, Study};
use crate::draw::columns::{Column, Columns};
use crate::draw::curves::{Chart, Scale, Series};
use crate::error::{Error, Result};
use crate::eval::report::Spread;
use serde::Serialize;
use std::fmt::Write;

/// A study, and the results of its runs that have ended.
#[derive(Debug)]
pub struct Table<'a> {
    study: &'a Study,
    found: Vec<Option<Found>>,
}

/// A variant's runs. The accuracy of a run is the mean of its learners on the test images; runs that broke
/// have none.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the words")]
pub struct Summary {
    pub variant: String,
    pub runs: usize,
    pub broke: usize,
    pub accuracy_mean: Option<f64>,
    pub accuracy_std: Option<f64>,
    pub accuracy_worst: Option<f64>,
    pub accuracy_best: Option<f64>,
    pub minutes: f64,
}

impl<'a> Table<'a> {
    /// A table of a study, with the result of each of its runs, if it has ended.
    pub fn new(study: &'a Study, found: Vec<Option<Found>>) -> Self {
        Self { study, found }
    }

    /// How many runs have not ended.
    pub fn open(&self) -> usize {
        self.found.iter().filter(|found| found.is_none()).count()
    }

    fn ended(&self) -> impl Iterator<Item = (&'a Run, &Found)> {
        let all = self.study.runs.iter().zip(&self.found);
        all.filter_map(|(run, found)| Some((run, found.as_ref()?)))
    }

    fn of(&self, variant: usize) -> Vec<&Found> {
        let own = self.ended().filter(|(run, _)| run.variant == variant);
        own.map(|(_, found)| found).collect()
    }

    /// A row for each variant.
    pub fn summaries(&self) -> Vec<Summary> {
        let row = |(number, name): (usize, &String)| {
            let own = self.of(number);
            let accuracies: Vec<f64> = own.iter().filter_map(|found| found.accuracy()).collect();
            let spread = (!accuracies.is_empty()).then(|| Spread::of(&accuracies));
            Summary {
                variant: name.clone(),
                runs: own.len(),
                broke: own.len() - accuracies.len(),
                accuracy_mean: spread.as_ref().map(|spread| spread.mean),
                accuracy_std: spread
                    .as_ref()
                    .filter(|_| accuracies.len() > 1)
                    .map(|spread| spread.std),
                accuracy_worst: spread.as_ref().map(|spread| spread.min),
                accuracy_best: accuracies.iter().copied().reduce(f64::max),
                // Not `sum`, which gives −0 for an empty list.
                minutes: own.iter().fold(0.0, |sum, found| sum + found.seconds) / 60.0,
            }
        };
        self.study.variants.iter().enumerate().map(row).collect()
    }

    /// The rows as text.
    pub fn text(&self) -> String {
        let names = self.study.variants.iter().map(|name| name.chars().count());
        let width = names.max().unwrap_or(0).max(7);
        let mut text = format!(
            "{:<width$} {:>5} {:>6} {:>9} {:>9} {:>9} {:>9} {:>8}\n",
            "variant", "runs", "broke", "mean", "std", "worst", "best", "minutes"
        );
        for row in self.summaries() {
            let percent =
                |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{:.2} %", 100.0 * x));
            let _ = writeln!(
                text,
                "{:<width$} {:>5} {:>6} {:>9} {:>9} {:>9} {:>9} {:>8.1}",
                row.variant,
                row.runs,
                row.broke,
                percent(row.accuracy_mean),
                percent(row.accuracy_std),
                percent(row.accuracy_worst),
                percent(row.accuracy_best),
                row.minutes
            );
        }
        text
    }

    /// A line for each run that has ended, as CSV.
    ///
    /// # Errors
    /// None, as it is written to memory.
    pub fn to_csv(&self) -> Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let drawn = self.study.drawn.iter().map(String::as_str);
        let header = ["run", "variant", "seed", "draw"].into_iter().chain(drawn);
        let header = header.chain([
            "accuracy_mean",
            "accuracy_min",
            "runaways",
            "broke",
            "seconds",
        ]);
        writer.write_record(header).map_err(Error::run)?;
        for (run, found) in self.ended() {
            let draw = run.draw.map(|draw| draw.to_string()).unwrap_or_default();
            let own = [
                run.name.clone(),
                self.study.variants[run.variant].clone(),
                run.config.seed.to_string(),
                draw,
            ];
            let outcome = match &found.outcome {
                Outcome::Done {
                    mean,
                    min,
                    runaways,
                } => [
                    mean.to_string(),
                    min.to_string(),
                    runaways.to_string(),
                    String::new(),
                ],
                Outcome::Broke(reason) => {
                    [String::new(), String::new(), String::new(), reason.clone()]
                }
            };
            let drawn = run.drawn.values().cloned();
            let seconds = format!("{:.1}", found.seconds);
            let record = own.into_iter().chain(drawn).chain(outcome).chain([seconds]);
            writer.write_record(record).map_err(Error::run)?;
        }
        writer.into_inner().map_err(Error::run)
    }

    /// Accuracy on validation images over outer steps, of the runs that did not break.
    pub fn curves(&self) -> Chart {
        let series = |(number, name): (usize, &String)| {
            let own = self.of(number);
            let whole = own.iter().filter(|found| found.accuracy().is_some());
            let whole: Vec<_> = whole.map(|found| &found.curve).collect();
            let mut steps: Vec<f64> = whole
                .iter()
                .flat_map(|curve| curve.iter().map(|at| at.0))
                .collect();
            steps.sort_by(f64::total_cmp);
            steps.dedup();
            let at = |curve: &[(f64, f64)], step: f64| {
                let at = curve.iter().find(|at| at.0 == step);
                at.map_or(f64::NAN, |at| at.1)
            };
            let values = whole
                .iter()
                .map(|curve| steps.iter().map(|&step| at(curve, step)).collect());
            let values: Vec<Vec<f64>> = values.collect();
            let name = match own.len() - whole.len() {
                0 => name.clone(),
                _ => format!("{name} ({} of {} runs)", whole.len(), own.len()),
            };
            Series::of_runs(&name, &steps, &values)
        };
        let most = (0..self.study.variants.len())
            .map(|variant| self.of(variant).len())
            .max();
        let title = &self.study.title;
        Chart {
            title: if most > Some(1) {
                format!("{title}: mean, least and greatest of the runs")
            } else {
                title.clone()
            },
            x: "outer step".to_owned(),
            y: "accuracy on validation images".to_owned(),
            scale: Scale::Linear,
            series: self.study.variants.iter().enumerate().map(series).collect(),
        }
    }

    /// The accuracies of all runs on the test images.
    pub fn columns(&self) -> Columns {
        let column = |(number, name): (usize, &String)| {
            let own = self.of(number);
            let values: Vec<f64> = own.iter().filter_map(|found| found.accuracy()).collect();
            Column {
                name: name.clone(),
                broken: own.len() - values.len(),
                values,
            }
        };
        Columns {
            title: self.study.title.clone(),
            y: "accuracy on test images".to_owned(),
            columns: self.study.variants.iter().enumerate().map(column).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(mean: f64) -> Option<Found> {
        let outcome = Outcome::Done {
            mean,
            min: mean - 0.1,
            runaways: 0,
        };
        Some(Found {
            outcome,
            seconds: 60.0,
            curve: vec![(2.0, mean), (4.0, 1.0)],
        })
    }

    #[test]
    fn broken_runs_are_counted_and_have_no_accuracy() {
        let text = "seeds = 3\nvariants.a = {}\nvariants.b = {}";
        let study = Study::from_toml("s.toml", "s", text).unwrap();
        let broke = Found {
            outcome: Outcome::Broke("a loss is not finite, at step 3".to_owned()),
            seconds: 30.0,
            curve: vec![(2.0, 0.1)],
        };
        let found = vec![
            done(0.5),
            Some(broke.clone()),
            done(0.7),
            Some(broke),
            None,
            None,
        ];
        let table = Table::new(&study, found);
        assert_eq!(table.open(), 2);
        let nothing = Table::new(&study, vec![None; study.runs.len()]);
        assert!(!nothing.text().contains("-0"));
        let [a, b] = &table.summaries()[..] else {
            panic!("two variants")
        };
        assert_eq!(
            (a.runs, a.broke, a.accuracy_worst, a.accuracy_best),
            (2, 0, Some(0.5), Some(0.7))
        );
        assert_eq!(
            (b.runs, b.broke, b.accuracy_mean, b.minutes),
            (2, 2, None, 1.0)
        );
        let csv = String::from_utf8(table.to_csv().unwrap()).unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(
            lines[0],
            "run,variant,seed,draw,accuracy_mean,accuracy_min,runaways,broke,seconds"
        );
        assert_eq!(lines[1], "a-1,a,1,,0.5,0.4,0,,60.0");
        assert_eq!(
            lines[2],
            "b-1,b,1,,,,,\"a loss is not finite, at step 3\",30.0"
        );
        let chart = table.curves();
        assert_eq!(
            chart.series[0],
            Series::of_runs("a", &[2.0, 4.0], &[[0.5, 1.0], [0.7, 1.0]])
        );
        assert_eq!(table.columns().columns[1].broken, 2);
        assert!(
            table
                .text()
                .lines()
                .nth(2)
                .unwrap()
                .contains("     2      2         - ")
        );
    }
}
