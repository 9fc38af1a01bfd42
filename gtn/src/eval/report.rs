//! Does it teach? Fresh learners taught by the generator beside learners taught by real images.

use crate::error;
use crate::eval::evaluate::looks;
use crate::eval::examination::Examination;
use crate::eval::rivals::{LearnedRates, RealImages, Rivals};
use crate::eval::training_data::TrainingData;
use crate::eval::tuning::{BASELINES, Recipe, SHARE_TRIALS, TRIALS, tuned, tuned_share};
use crate::outer::curriculum::Curriculum;
use crate::outer::inner::Inner;
use crate::outer::rule::Rule;
use crate::run::checkpoint;
use crate::run::config::Config;
use crate::run::run_folder::REPORT;
use autograd::prelude::*;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::fs::read_to_string;
use std::path::Path;

/// What an evaluation found. Accuracies are fractions of the test images.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the words")]
pub struct Report {
    pub gtn_accuracy_mean: f64,
    pub gtn_accuracy_std: f64,
    pub gtn_accuracy_min: f64,
    /// Learners that the run taught and whose training ran away.
    pub runaways: usize,
    /// The strongest baseline at equal steps: that with the greatest mean on the test images.
    #[serde(flatten)]
    pub strongest: Option<Strongest>,
    pub inner_steps: usize,
    pub inner_batch: usize,
    pub learners: usize,
    pub learner: String,
    pub widths: String,
    pub dataset: String,
    pub test_images: usize,
    /// The inner steps at which the curves have points, for ways with the run's number of steps. A report
    /// from before this field has points after every step.
    #[serde(default)]
    pub curve_steps: Vec<usize>,
    /// The way of the run, then those of the baselines.
    pub ways: Vec<Way>,
    /// After how many outer steps, where it is read from a run's folder; older ones do not say.
    #[serde(default, skip_serializing)]
    pub outer_step: Option<u64>,
    /// How many outer steps the run has done by now, where that is known.
    #[serde(skip)]
    pub reached: Option<u64>,
}

/// A report as the folder of a run keeps it. It says nothing of the folder or of time: equal runs have equal bytes.
#[derive(Debug, Serialize)]
pub struct Kept<'a> {
    /// After how many outer steps.
    pub outer_step: u64,
    /// The evaluation.
    #[serde(flatten)]
    pub report: &'a Report,
}

/// The strongest baseline.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the words")]
pub struct Strongest {
    pub baseline: String,
    pub real_accuracy_mean: f64,
    pub real_accuracy_std: f64,
    pub real_accuracy_min: f64,
    /// None where rates were learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_lr: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_momentum: Option<f64>,
}

/// One way to teach, and the results of its learners.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Way {
    /// Who teaches: "taught by the GTN", "real images, adam", "real images, k-centre, adam".
    pub name: String,
    /// Inner steps of its learners; 0 in a report from before they could differ from the run's.
    #[serde(default)]
    pub steps: usize,
    /// What was tuned.
    #[serde(skip)]
    recipe: Option<Recipe>,
    /// What was tuned, as a sentence.
    pub tuned: Option<String>,
    /// The accuracy of every learner on the test images; 0 for one that ran away.
    pub accuracies: Vec<f64>,
    /// How many ran away: a number became infinite or NaN.
    pub runaways: usize,
    /// Half of the 95 % confidence interval of the mean (Student's t).
    pub interval: f64,
    /// Accuracies on validation images after the steps of [`Report::looks`], a list for every learner.
    pub curves: Vec<Vec<f64>>,
}

/// Validation images for tuning and for curves.
pub const GLANCE: usize = 1000;
/// Training numbers of evaluations start here, beyond all outer steps.
pub const FRESH: u64 = 1 << 40;

/// The most inner steps that a setting takes.
const MOST_STEPS: usize = 1 << 20;

/// Prefix of the names of ways in which real images teach.
const REAL: &str = "real images, ";
const LEARNED: &str = "learned rates";

impl Way {
    fn new(name: String, config: &Config) -> Self {
        Self {
            name,
            steps: config.inner_steps,
            recipe: None,
            tuned: None,
            accuracies: Vec::new(),
            runaways: 0,
            interval: 0.0,
            curves: Vec::new(),
        }
    }

    /// The mean of its accuracies.
    pub fn mean(&self) -> f64 {
        Spread::of(&self.accuracies).mean
    }

    /// The least of them.
    pub fn min(&self) -> f64 {
        Spread::of(&self.accuracies).min
    }

    /// Adds the result of a learner; `None` if it ran away, which is a result, too.
    fn add(&mut self, found: Option<(f64, Vec<f64>)>) {
        self.runaways += usize::from(found.is_none());
        let (accuracy, curve) = found.unwrap_or_default();
        self.accuracies.push(accuracy);
        self.curves.push(curve);
        self.interval = Spread::of(&self.accuracies).interval;
    }

    /// Trains all its learners by `rule`, each on its `lesson`. False if the user stopped it.
    fn train(
        &mut self,
        examination: &Examination<'_>,
        rule: Rule,
        lesson: impl Fn(u64) -> Result<TrainingData>,
        watch: &mut impl FnMut() -> bool,
    ) -> error::Result<bool> {
        let found = examination.ranks.deal(examination.config.learners, |i| {
            let number = FRESH + i as u64;
            let mut trainee = examination.trainee(rule, number)?;
            let mut data = lesson(number)?;
            let found = trainee.train(&mut data, examination.test, Some(examination.glance));
            let found = match found {
                Err(Error::NotFinite { .. }) => None,
                found => Some(found?),
            };
            Ok(watch().then_some(found))
        })?;
        let trained = found.is_some();
        found
            .into_iter()
            .flatten()
            .for_each(|found| self.add(found));
        Ok(trained)
    }
}

/// Trains `config.learners` fresh learners in every way; the ranks share them. `watch` is called after each
/// training of this rank, and stops the evaluation by returning `false`: then there is no report.
///
/// # Errors
/// If there is not enough memory.
pub fn evaluate(
    examination: &Examination<'_>,
    rivals: &Rivals,
    mut watch: impl FnMut() -> bool,
) -> error::Result<Option<Report>> {
    let config = examination.config;
    let name = match config.curriculum {
        Curriculum::RealData => format!("{REAL}{LEARNED}"),
        Curriculum::SemiSupervised => format!("{REAL}learned labels"),
        _ => "taught by the GTN".to_owned(),
    };
    let Some(way) = taught_way(examination, name, rivals.tune_rates, &mut watch)? else {
        return Ok(None);
    };
    let mut ways = vec![way];
    for images in &rivals.images {
        let Some(tuned) = tuned_ways(examination, images, "", &mut watch)? else {
            return Ok(None);
        };
        ways.extend(tuned);
    }
    for &inner_steps in &rivals.steps {
        let config = &Config {
            inner_steps,
            ..config.clone()
        };
        let (longer, called) = (
            Examination {
                config,
                ..*examination
            },
            format!("{inner_steps} steps, "),
        );
        let images = RealImages::drawn(config, examination.data);
        let Some(tuned) = tuned_ways(&longer, &images, &called, &mut watch)? else {
            return Ok(None);
        };
        ways.extend(tuned);
    }
    if let Some(LearnedRates { rule, hyper }) = &rivals.learned {
        let mut way = Way::new(format!("{REAL}{LEARNED}"), config);
        let real = |number| examination.real(&RealImages::Fresh, hyper, number);
        if !way.train(examination, *rule, real, &mut watch)? {
            return Ok(None);
        }
        ways.push(way);
    }
    Ok(Some(Report::new(examination, ways)))
}

/// Learners taught by the run, perhaps with a share of its learned rates that is tuned first.
fn taught_way(
    examination: &Examination<'_>,
    name: String,
    tune: bool,
    watch: &mut impl FnMut() -> bool,
) -> error::Result<Option<Way>> {
    let mut way = Way::new(name, examination.config);
    let share = if tune {
        let Some(share) = tuned_share(examination, FRESH / 2, watch)? else {
            return Ok(None);
        };
        way.tuned = Some(format!("{share} of the learned rates"));
        share
    } else {
        1.0
    };
    let taught = |number| examination.taught(number)?.with_share_of_rates(share);
    let rule = Inner::of(examination.config).rule;
    let trained = way.train(examination, rule, taught, watch)?;
    Ok(trained.then_some(way))
}

/// Learners taught by real images under each optimiser, with tuned hyper-parameters.
fn tuned_ways(
    examination: &Examination<'_>,
    images: &RealImages,
    called: &str,
    watch: &mut impl FnMut() -> bool,
) -> error::Result<Option<Vec<Way>>> {
    let mut ways = Vec::new();
    for baseline in BASELINES {
        let Some(way) = tuned_way(examination, (images, called), baseline, watch)? else {
            return Ok(None);
        };
        ways.push(way);
    }
    Ok(Some(ways))
}

/// The same under one optimiser.
fn tuned_way(
    examination: &Examination<'_>,
    (images, called): (&RealImages, &str),
    baseline: (Optimizer, f64),
    watch: &mut impl FnMut() -> bool,
) -> error::Result<Option<Way>> {
    let Some(recipe) = tuned(examination, images, baseline, FRESH / 2, watch)? else {
        return Ok(None);
    };
    let (prefix, optimizer) = (images.prefix(), recipe.optimizer.name());
    let name = format!("{REAL}{called}{prefix}{optimizer}");
    let mut way = Way::new(name, examination.config);
    way.recipe = Some(recipe);
    way.tuned = Some(recipe.to_string());
    let hyper = recipe.hyper(examination.config.inner_steps);
    let real = |number| examination.real(images, &hyper, number);
    let trained = way.train(examination, recipe.optimizer.into(), real, watch)?;
    Ok(trained.then_some(way))
}

/// How often [`evaluate`] calls its `watch` in all.
pub fn trainings(config: &Config, rivals: &Rivals) -> u64 {
    let learners = config.learners as u64;
    let tuned = ((rivals.images.len() + rivals.steps.len()) * BASELINES.len()) as u64;
    let untuned = 1 + u64::from(rivals.learned.is_some());
    let shares = u64::from(rivals.tune_rates) * SHARE_TRIALS;
    untuned * learners + shares + tuned * (TRIALS + learners)
}

pub(crate) struct Spread {
    pub(crate) mean: f64,
    pub(crate) std: f64,
    pub(crate) min: f64,
    /// Half of the 95 % confidence interval of the mean.
    pub(crate) interval: f64,
}

/// The 97.5 % quantiles of Student's t with 1, 2, … degrees of freedom.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

impl Spread {
    /// For at least one number. The standard deviation is that of a sample, and 0 for a single number.
    pub(crate) fn of(numbers: &[f64]) -> Self {
        let n = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / n;
        let squares: f64 = numbers.iter().map(|x| (x - mean).powi(2)).sum();
        let std = (squares / (n - 1.0).max(1.0)).sqrt();
        let min = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        let freedom = numbers.len().saturating_sub(2);
        let interval = STUDENT.get(freedom).unwrap_or(&1.96) * std / n.sqrt();
        Self {
            mean,
            std,
            min,
            interval,
        }
    }
}

impl Report {
    /// The report of a run, if it has one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of_run(run: &Path) -> error::Result<Option<Self>> {
        let path = run.join(REPORT);
        if !path.exists() {
            return Ok(None);
        }
        let text = read_to_string(&path).map_err(|e| error::Error::file("read", &path, &e))?;
        let report = serde_json::from_str(&text);
        let mut report: Self = report.map_err(|e| error::Error::run(e).at(path.display()))?;
        report.check().map_err(|error| error.at(path.display()))?;
        if report.curve_steps.is_empty() {
            report.curve_steps = (0..=report.inner_steps).collect();
        }
        for way in report.ways.iter_mut().filter(|way| way.steps == 0) {
            way.steps = report.inner_steps;
        }
        report.reached = checkpoint::last_step(run);
        Ok(Some(report))
    }

    /// Of a run that has gone on since then, a remark that says so.
    pub fn outdated(&self) -> Option<String> {
        let (done, reached) = (self.outer_step?, self.reached?);
        (done != reached).then(|| format!("evaluated after outer step {done} of {reached}"))
    }

    /// Refuses what no evaluation writes.
    fn check(&self) -> error::Result<()> {
        if self.ways.is_empty() {
            return Err(error::Error::run("no evaluation: it has no `ways`"));
        }
        let steps = self.ways.iter().map(|way| way.steps);
        match steps
            .chain([self.inner_steps])
            .find(|&steps| steps > MOST_STEPS)
        {
            Some(steps) => Err(error::Error::run(format!(
                "no evaluation: {steps} inner steps, and {MOST_STEPS} are the most"
            ))),
            None => Ok(()),
        }
    }

    /// The inner steps at which the curves of a way have points.
    pub fn looks(&self, way: &Way) -> Vec<usize> {
        if way.steps == self.inner_steps {
            self.curve_steps.clone()
        } else {
            looks(way.steps)
        }
    }

    /// A sentence on how many steps real images need to teach as well as the run. `None` if no baseline had
    /// another number of steps.
    pub fn equal_steps(&self) -> Option<String> {
        let real = &self.ways[1..];
        real.iter().find(|way| way.steps != self.inner_steps)?;
        let reaches = |way: &&Way| way.mean() >= self.gtn_accuracy_mean;
        let Some(enough) = real.iter().filter(reaches).map(|way| way.steps).min() else {
            let most = real.iter().map(|way| way.steps).max()?;
            return Some(format!("Real images do not teach as well in {most} steps."));
        };
        let fewer = real
            .iter()
            .map(|way| way.steps)
            .filter(|&steps| steps < enough);
        let not = fewer
            .max()
            .map_or_else(String::new, |steps| format!(", not in {steps}"));
        Some(format!("Real images teach as well in {enough} steps{not}."))
    }

    fn new(examination: &Examination<'_>, ways: Vec<Way>) -> Self {
        let Examination {
            config,
            data,
            learner: [learner, widths],
            ..
        } = examination;
        let gtn = Spread::of(&ways[0].accuracies);
        let equal = ways[1..]
            .iter()
            .filter(|way| way.steps == config.inner_steps);
        let spreads = equal.map(|way| (Spread::of(&way.accuracies), way));
        let strongest = spreads.max_by(|(a, _), (b, _)| a.mean.total_cmp(&b.mean));
        Self {
            gtn_accuracy_mean: gtn.mean,
            gtn_accuracy_std: gtn.std,
            gtn_accuracy_min: gtn.min,
            runaways: ways[0].runaways,
            strongest: strongest.map(|(real, way)| Strongest {
                baseline: way.name.trim_start_matches(REAL).to_owned(),
                real_accuracy_mean: real.mean,
                real_accuracy_std: real.std,
                real_accuracy_min: real.min,
                real_lr: way.recipe.map(|recipe| recipe.lr),
                real_momentum: way.recipe.map(|recipe| recipe.momentum),
            }),
            inner_steps: config.inner_steps,
            inner_batch: config.inner_batch,
            learners: config.learners,
            learner: (*learner).to_owned(),
            widths: (*widths).to_owned(),
            dataset: data.card.name.clone(),
            test_images: data.test.len(),
            curve_steps: looks(config.inner_steps),
            ways,
            outer_step: None,
            reached: None,
        }
    }

    /// The mean of the learners that the run taught minus that of the strongest baseline, where there is one.
    pub fn margin(&self) -> Option<f64> {
        let strongest = self.strongest.as_ref()?;
        Some(self.gtn_accuracy_mean - strongest.real_accuracy_mean)
    }

    /// The table for the terminal: whether the run teaches.
    pub fn table(&self) -> String {
        let Self {
            test_images,
            dataset,
            inner_steps,
            inner_batch,
            learners,
            learner,
            widths,
            ..
        } = self;
        let names = self.ways.iter().map(|way| way.name.chars().count());
        let width = names.max().unwrap_or(0).clamp(27, 100);
        let column = width + 12;
        let mut table = format!(
            "Accuracy on {test_images} test images of {dataset} after {inner_steps} steps of {inner_batch} images, \
             {learners} fresh learners ({learner} {widths}):\n\n{:>column$}{:>10}{:>10}\n",
            "mean", "std", "min"
        );
        for way in &self.ways {
            let spread = Spread::of(&way.accuracies);
            let percent = |x: f64| format!("{:>8.2} %", 100.0 * x);
            let std = match way.accuracies.len() {
                0 | 1 => format!("{:>10}", "-"),
                _ => percent(spread.std),
            };
            let numbers = [percent(spread.mean), std, percent(spread.min)];
            let _ = write!(table, "  {:<width$}{}", way.name, numbers.concat());
            if way.runaways > 0 {
                let _ = write!(table, "   {} of {learners} ran away", way.runaways);
            }
            if let Some(tuned) = &way.tuned {
                let _ = write!(table, "   {tuned}");
            }
            table.push('\n');
        }
        if let Some(steps) = self.equal_steps() {
            let _ = write!(table, "\n{steps}\n");
        }
        if let Some(margin) = self.margin().filter(|&margin| margin <= 0.0) {
            let points = -100.0 * margin;
            let _ = write!(
                table,
                "\nThis run does not teach yet: real images teach better, by {points:.2} points.\n"
            );
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::config::Preset;

    /// The report of a run of two steps, and of real images in 2, 4, 8 of them.
    fn report(taught: f64, real: [f64; 3]) -> Report {
        let way = |(steps, accuracy): (usize, f64)| {
            let config = Config {
                inner_steps: steps,
                ..Config::preset(Preset::Quick)
            };
            let mut way = Way::new(format!("{REAL}adam"), &config);
            way.add(Some((accuracy, vec![0.0; looks(steps).len()])));
            way
        };
        let ways = [(2, taught)]
            .into_iter()
            .chain([2, 4, 8].into_iter().zip(real));
        Report {
            gtn_accuracy_mean: taught,
            gtn_accuracy_std: 0.0,
            gtn_accuracy_min: taught,
            runaways: 0,
            strongest: None,
            inner_steps: 2,
            inner_batch: 1,
            learners: 1,
            learner: String::new(),
            widths: String::new(),
            dataset: String::new(),
            test_images: 1,
            curve_steps: looks(2),
            ways: ways.map(way).collect(),
            outer_step: None,
            reached: None,
        }
    }

    #[test]
    fn it_says_how_many_steps_real_images_need() {
        let said = |taught| report(taught, [0.5, 0.7, 0.8]).equal_steps().unwrap();
        assert_eq!(said(0.5), "Real images teach as well in 2 steps.");
        assert_eq!(said(0.6), "Real images teach as well in 4 steps, not in 2.");
        assert_eq!(said(0.9), "Real images do not teach as well in 8 steps.");
        let one = report(0.9, [0.5; 3]);
        assert!(one.table().contains(" in 8 steps.\n"));
        assert!(one.table().contains("   90.00 %         -   90.00 %"));
        let mut equal = report(0.9, [0.5; 3]);
        assert_eq!(equal.looks(&equal.ways[3]).len(), 9);
        equal.ways.truncate(2);
        assert_eq!(equal.equal_steps(), None);
    }

    #[test]
    fn a_file_that_is_no_report_is_refused() {
        let run = tempfile::tempdir().unwrap();
        let said = |report: &Report| {
            let text = serde_json::to_string(report).unwrap();
            std::fs::write(run.path().join(REPORT), text).unwrap();
            Report::of_run(run.path()).map_err(|error| error.to_string())
        };
        let sound = report(0.5, [0.5; 3]);
        assert!(said(&sound).is_ok());
        let none = said(&Report {
            ways: Vec::new(),
            ..sound.clone()
        });
        assert!(
            none.unwrap_err()
                .ends_with("report.json: no evaluation: it has no `ways`")
        );
        let endless = said(&Report {
            inner_steps: 1_000_000_000_000_000_000,
            curve_steps: Vec::new(),
            ..sound
        });
        let wanted = "1000000000000000000 inner steps, and 1048576 are the most";
        assert!(endless.unwrap_err().ends_with(wanted));
    }

    #[test]
    fn spreads_are_those_of_samples() {
        let spread = Spread::of(&[0.5, 0.7]);
        assert!((spread.mean - 0.6).abs() < 1e-12 && spread.min == 0.5);
        assert!((spread.std - 0.02f64.sqrt()).abs() < 1e-12);
        assert!((spread.interval - 12.706 * 0.1).abs() < 1e-9);
        assert_eq!(Spread::of(&[0.3]).std, 0.0);
    }
}
