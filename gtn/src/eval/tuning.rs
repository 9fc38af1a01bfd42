//! Tunes hyper-parameters by accuracy on validation images: those of baselines, and the share of a run's
//! learned rates that suits a network.

use crate::error;
use crate::eval::evaluate::Trainee;
use crate::eval::examination::Examination;
use crate::eval::rivals::RealImages;
use crate::eval::training_data::TrainingData;
use crate::outer::inner::Inner;
use crate::outer::rule::Rule;
use autograd::prelude::*;
use clap::ValueEnum;
use serde::Serialize;
use std::f64::consts::PI;
use std::fmt;

/// A way to train on real images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// What moves the weights.
    pub optimizer: Optimizer,
    /// The (highest) learning rate.
    pub lr: f64,
    /// The momentum, or Adam's β₁.
    pub momentum: f64,
    /// The learning rate schedule.
    pub cycle: Cycle,
}

/// The learning rate schedule over the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Cycle {
    /// Always the same.
    Constant,
    /// Up along a line in the first 30 % of the steps, then down along half a cosine (Smith and Topin 2018,
    /// arXiv 1708.07120).
    OneCycle,
    /// Down along half a cosine from the first step on (Loshchilov and Hutter 2017).
    Cosine,
}

impl Cycle {
    /// The share of the highest rate at a step, counted from 0.
    pub(crate) fn share(self, step: usize, steps: usize) -> f64 {
        let (done, peak) = ((step as f64 + 1.0) / steps as f64, 0.3);
        match self {
            Self::Constant => 1.0,
            Self::Cosine => 0.5 * (1.0 + (PI * step as f64 / steps as f64).cos()),
            Self::OneCycle if done <= peak => done / peak,
            // 1 at the peak, and above 0 at the last step.
            Self::OneCycle => {
                let after = (done - peak) / (1.0 - peak + 1.0 / steps as f64);
                0.5 * (1.0 + (PI * after).cos())
            }
        }
    }
}

impl Recipe {
    /// The hyper-parameters at every step: names and \[steps\].
    pub fn hyper(&self, steps: usize) -> Vec<(&'static str, Array)> {
        let at = |name: &str, usual: f64, step| match name {
            "lr" => self.lr * self.cycle.share(step, steps),
            "momentum" | "beta1" => self.momentum,
            _ => usual,
        };
        let array = |&(name, usual): &(&'static str, f64)| {
            let numbers: Vec<f32> = (0..steps)
                .map(|step| at(name, usual, step) as f32)
                .collect();
            let array = Array::new([steps], numbers);
            (name, array.expect("there is a number for every step"))
        };
        self.optimizer.hyper().iter().map(array).collect()
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (decay, cycle) = match (self.optimizer, self.cycle) {
            (Optimizer::Adam, Cycle::OneCycle) => ("beta1", "one-cycle "),
            (Optimizer::Adam, Cycle::Constant) => ("beta1", ""),
            (Optimizer::Adam, Cycle::Cosine) => ("beta1", "cosine "),
            (_, Cycle::OneCycle) => ("momentum", "one-cycle "),
            (_, Cycle::Cosine) => ("momentum", "cosine "),
            (_, Cycle::Constant) => ("momentum", ""),
        };
        write!(f, "{cycle}rate {}, {decay} {}", self.lr, self.momentum)
    }
}

/// The optimisers of the baselines, each with the highest learning rate to try; the other rates are a half, a
/// fifth, … of it. Muon holds the records for training in few steps (Jordan 2024), and is the strongest here
/// for deep networks.
pub const BASELINES: [(Optimizer, f64); 3] = [
    (Optimizer::Momentum, 1.0),
    (Optimizer::Adam, 0.05),
    (Optimizer::Muon, 1.0),
];

/// The rates to try are the highest divided by these: 1, 0.5, 0.2, …; a quotient prints as people write it.
const RATES: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];
const MOMENTA: [f64; 3] = [0.0, 0.5, 0.9];
const CYCLES: [Cycle; 2] = [Cycle::Constant, Cycle::OneCycle];

/// Successive halving. Every choice is tried on the first learner, the best 12 on the next two, and the best
/// 4 of these on five more; each round is judged by its own learners only. A large rate may teach a few
/// learners by luck and ruin the next, so a few learners must not decide.
const ROUNDS: [(usize, std::ops::Range<u64>); 3] = [(12, 0..1), (4, 1..3), (1, 3..8)];
const LEARNERS: u64 = 8;

/// How often [`tuned`] calls its `watch` in all: once for every recipe of a round.
pub const TRIALS: u64 = (RATES.len() * MOMENTA.len() * CYCLES.len() + 12 + 4) as u64;

fn recipes(optimizer: Optimizer, highest: f64) -> impl Iterator<Item = Recipe> {
    let recipe = move |divisor, momentum, cycle| Recipe {
        optimizer,
        lr: highest / divisor,
        momentum,
        cycle,
    };
    let with_momenta = move |divisor| {
        MOMENTA.map(move |momentum| CYCLES.map(|cycle| recipe(divisor, momentum, cycle)))
    };
    RATES.into_iter().flat_map(with_momenta).flatten()
}

/// The shares of a run's learned rates to try.
const SHARES: [f64; 9] = [0.125, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8];

/// How often [`tuned_share`] calls its `watch` in all.
pub const SHARE_TRIALS: u64 = (2 * SHARES.len() + 4) as u64;

/// The recipe with which learners are best on validation images after training on these real ones.
///
/// # Errors
/// If there is not enough memory.
pub fn tuned(
    examination: &Examination<'_>,
    images: &RealImages,
    (optimizer, highest): (Optimizer, f64),
    first: u64,
    watch: &mut impl FnMut() -> bool,
) -> error::Result<Option<Recipe>> {
    let lesson = |recipe: Recipe, number| {
        let hyper = recipe.hyper(examination.config.inner_steps);
        examination.real(images, &hyper, number)
    };
    let choices = recipes(optimizer, highest).collect();
    best(
        examination,
        (optimizer.into(), choices),
        lesson,
        first,
        watch,
    )
}

/// The share of a run's learned rates with which learners do best on validation images. A network that
/// meta-training never drew may need other rates, as every network does on real images.
///
/// # Errors
/// If there is not enough memory.
pub fn tuned_share(
    examination: &Examination<'_>,
    first: u64,
    watch: &mut impl FnMut() -> bool,
) -> error::Result<Option<f64>> {
    let lesson = |share, number| examination.taught(number)?.with_share_of_rates(share);
    let rule = Inner::of(examination.config).rule;
    best(examination, (rule, SHARES.to_vec()), lesson, first, watch)
}

/// The choice with which learners do best on validation images after their lesson. Learners and lessons are
/// numbered from `first`; the ranks share the choices of a round. `watch` may stop the search by returning
/// `false`: then the result is `None`.
///
/// # Errors
/// If there is not enough memory.
fn best<C: Copy>(
    examination: &Examination<'_>,
    (rule, choices): (Rule, Vec<C>),
    lesson: impl Fn(C, u64) -> Result<TrainingData>,
    first: u64,
    watch: &mut impl FnMut() -> bool,
) -> error::Result<Option<C>> {
    let mut learners = (first..first + LEARNERS)
        .map(|number| Ok((examination.trainee(rule, number)?, number)))
        .collect::<Result<Vec<_>>>()?;
    let mut choices: Vec<(C, f64)> = choices.into_iter().map(|choice| (choice, 0.0)).collect();
    for (keep, numbers) in ROUNDS {
        let learners = &mut learners[numbers.start as usize..numbers.end as usize];
        let sums = examination.ranks.deal(choices.len(), |i| {
            let (choice, mut sum) = choices[i];
            for (trainee, number) in learners.iter_mut() {
                sum += accuracy(examination, trainee, &mut lesson(choice, *number)?)?;
            }
            Ok(watch().then_some(sum))
        })?;
        let Some(sums) = sums else { return Ok(None) };
        choices
            .iter_mut()
            .zip(sums)
            .for_each(|(choice, sum)| choice.1 = sum);
        choices.sort_by(|a, b| b.1.total_cmp(&a.1));
        choices.truncate(keep);
    }
    Ok(Some(choices[0].0))
}

/// Accuracy on validation images after a training; 0 if it runs away.
fn accuracy(
    examination: &Examination<'_>,
    trainee: &mut Trainee,
    lesson: &mut TrainingData,
) -> Result<f64> {
    match trainee.train(lesson, examination.glance, None) {
        Ok((accuracy, _)) => Ok(accuracy),
        Err(Error::NotFinite { .. }) => Ok(0.0),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cycle_rises_to_its_peak_and_falls() {
        let shares: Vec<f64> = (0..10)
            .map(|step| Cycle::OneCycle.share(step, 10))
            .collect();
        assert!(shares[..3].is_sorted() && (shares[2] - 1.0).abs() < 1e-12);
        assert!(shares[2..].is_sorted_by(|a, b| a > b) && shares[9] > 0.0 && shares[9] < 0.1);
        assert_eq!(Cycle::Constant.share(3, 10), 1.0);
        // A training of one step has the peak.
        assert!(Cycle::OneCycle.share(0, 1) > 0.3);
    }

    #[test]
    fn every_recipe_is_another_one() {
        let all: Vec<Recipe> = recipes(Optimizer::Adam, 0.05).collect();
        assert_eq!(all.len(), 48);
        assert!((1..48).all(|i| !all[..i].contains(&all[i])));
        assert!(
            all.iter().all(|recipe| recipe.lr.to_string().len() <= 7),
            "{all:?}"
        );
        let names: Vec<_> = all[0].hyper(4).iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["lr", "beta1", "beta2", "eps"]);
    }
}
