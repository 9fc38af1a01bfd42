//! Does it teach? Fresh learners taught by the generator beside learners taught by real images.

use crate::data::Dataset;
use crate::eval::evaluate::{TestSet, Trainee, TrainingData};
use crate::eval::tuning::{CHOICES, tuned};
use crate::outer::teacher::Teacher;
use crate::run::config::Config;
use crate::run::settings::name_of;
use crate::seeds::{Draw, rng};
use autograd::Result;
use kernels::Device;
use serde::Serialize;

/// What an evaluation found. Accuracies are fractions of the test images.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the words")]
pub struct Report {
    pub gtn_accuracy_mean: f64,
    pub gtn_accuracy_std: f64,
    pub gtn_accuracy_min: f64,
    pub real_accuracy_mean: f64,
    pub real_accuracy_std: f64,
    pub real_accuracy_min: f64,
    /// The tuned learning rate and momentum of training on real images.
    pub real_lr: f64,
    pub real_momentum: f64,
    pub inner_steps: usize,
    pub inner_batch: usize,
    pub learners: usize,
    pub learner: String,
    pub widths: String,
    pub dataset: String,
    pub test_images: usize,
    /// Accuracies on validation images before the first inner step and after each, a list per learner.
    #[serde(skip)]
    pub curves: [Vec<Vec<f64>>; 2],
}

/// Validation images for tuning and for curves.
pub const GLANCE: usize = 1000;
/// Training numbers of evaluations start here, beyond all outer steps.
pub const FRESH: u64 = 1 << 40;

/// Trains `config.learners` fresh learners in both ways; `watch` hears how it goes on, and may stop
/// all by `false`: then there is no report.
///
/// # Errors
/// If there is not enough memory, or a training as the teacher says runs away.
pub fn evaluate(
    device: &Device,
    config: &Config,
    teacher: &Teacher,
    data: &Dataset,
    mut watch: impl FnMut() -> bool,
) -> Result<Option<Report>> {
    let glance = TestSet::new(device, data, &data.validation, GLANCE)?;
    let Some(rates) = tuned(device, config, data, &glance, FRESH / 2, &mut watch)? else {
        return Ok(None);
    };
    let test = TestSet::new(device, data, &data.test, usize::MAX)?;
    let (mut accuracies, mut curves) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for number in (FRESH..).take(config.learners) {
        let mut trainee = trainee(device, config, number)?;
        let taught = TrainingData::taught(device, config, teacher, data, number)?;
        let real = TrainingData::real(device, config, data, number, rates)?;
        for (i, mut data) in [taught, real].into_iter().enumerate() {
            let (accuracy, curve) = trainee.train(&mut data, &test, Some(&glance))?;
            accuracies[i].push(accuracy);
            curves[i].push(curve);
            if !watch() {
                return Ok(None);
            }
        }
    }
    let [gtn, real] = accuracies.map(|a| Spread::of(&a));
    Ok(Some(Report {
        gtn_accuracy_mean: gtn.mean,
        gtn_accuracy_std: gtn.std,
        gtn_accuracy_min: gtn.min,
        real_accuracy_mean: real.mean,
        real_accuracy_std: real.std,
        real_accuracy_min: real.min,
        real_lr: rates[0],
        real_momentum: rates[1],
        inner_steps: config.inner_steps,
        inner_batch: config.inner_batch,
        learners: config.learners,
        learner: name_of(&config.learner),
        widths: config.widths.to_string(),
        dataset: name_of(&data.choice),
        test_images: data.test.len(),
        curves,
    }))
}

/// How often [`evaluate`] calls its `watch`.
pub fn trainings(config: &Config) -> u64 {
    CHOICES + 2 * config.learners as u64
}

/// A learner with a new initialisation and widths drawn for it.
///
/// # Errors
/// If there is not enough memory.
pub fn trainee(device: &Device, config: &Config, number: u64) -> Result<Trainee> {
    let widths = config
        .widths
        .sample(&mut rng(config.seed, Draw::Widths, number, 0));
    Trainee::new(device, config, &config.learner(&widths)?, number)
}

struct Spread {
    mean: f64,
    std: f64,
    min: f64,
}

impl Spread {
    /// Of at least one number; the standard deviation is that of a sample (0 of one number).
    fn of(numbers: &[f64]) -> Self {
        let n = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / n;
        let squares: f64 = numbers.iter().map(|x| (x - mean).powi(2)).sum();
        let std = (squares / (n - 1.0).max(1.0)).sqrt();
        let min = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        Self { mean, std, min }
    }
}

impl Report {
    /// The small table that says whether it teaches.
    pub fn table(&self) -> String {
        let percent = |x: f64| format!("{:>8.2} %", 100.0 * x);
        let row = |name: &str, mean, std, min| {
            format!(
                "  {name:<22}{}{}{}\n",
                percent(mean),
                percent(std),
                percent(min)
            )
        };
        format!(
            "Accuracy on {} test images of {} after {} steps of {} images, {} fresh learners ({} {}):\n\n\
             {:>34}{:>10}{:>10}\n{}{}\n\
             Real images: learning rate {} and momentum {}, tuned on validation images.\n",
            self.test_images,
            self.dataset,
            self.inner_steps,
            self.inner_batch,
            self.learners,
            self.learner,
            self.widths,
            "mean",
            "std",
            "min",
            row(
                "taught by the GTN",
                self.gtn_accuracy_mean,
                self.gtn_accuracy_std,
                self.gtn_accuracy_min
            ),
            row(
                "taught by real images",
                self.real_accuracy_mean,
                self.real_accuracy_std,
                self.real_accuracy_min
            ),
            self.real_lr,
            self.real_momentum,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_those_of_samples() {
        let spread = Spread::of(&[0.5, 0.7]);
        assert!((spread.mean - 0.6).abs() < 1e-12 && spread.min == 0.5);
        assert!((spread.std - 0.02f64.sqrt()).abs() < 1e-12);
        assert_eq!(Spread::of(&[0.3]).std, 0.0);
    }
}
