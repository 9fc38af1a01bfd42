//! The baseline's learning rate and momentum: those with which real images teach best.

use crate::data::Dataset;
use crate::eval::evaluate::{TestSet, Trainee, TrainingData};
use crate::run::config::Config;
use autograd::{Error, Result};
use kernels::Device;

/// Learning rates and momenta to choose from.
const RATES: [f64; 8] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];
const MOMENTA: [f64; 4] = [0.0, 0.5, 0.8, 0.9];

/// All are tried on the first learners; the best go on to the others. A large rate may teach two learners by
/// luck and ruin the third, so the few must not decide.
const FIRST: u64 = 2;
const FINALISTS: usize = 5;
const LEARNERS: u64 = 8;

/// How often [`tuned`] calls its `watch`.
pub const CHOICES: u64 = (RATES.len() * MOMENTA.len() + FINALISTS) as u64;

/// A learning rate and momentum, and the sum of accuracies that they led to.
type Choice = ([f64; 2], f64);

/// The learning rate and momentum, the same at all inner steps, with which learners of middle widths are best on
/// the test set. Learners and their batches are numbered from `first`. `watch` may stop it by `false`: then there are
/// none.
///
/// # Errors
/// If there is not enough memory.
pub fn tuned(
    device: &Device,
    config: &Config,
    data: &Dataset,
    test: &TestSet,
    first: u64,
    watch: &mut impl FnMut() -> bool,
) -> Result<Option<[f64; 2]>> {
    let middle = config.widths.middle();
    let mut learners = (first..first + LEARNERS)
        .map(|number| {
            let trainee = Trainee::new(device, config, &config.learner(&middle)?, number)?;
            Ok((trainee, number))
        })
        .collect::<Result<Vec<_>>>()?;
    let (few, others) = learners.split_at_mut(FIRST as usize);
    let with_momenta = |lr| MOMENTA.map(|momentum| ([lr, momentum], 0.0));
    let mut choices: Vec<Choice> = RATES.into_iter().flat_map(with_momenta).collect();
    for (keep, learners) in [(FINALISTS, few), (1, others)] {
        for (rates, sum) in &mut choices {
            for (trainee, number) in learners.iter_mut() {
                let real = TrainingData::real(device, config, data, *number, *rates)?;
                *sum += accuracy(trainee, real, test)?;
            }
            if !watch() {
                return Ok(None);
            }
        }
        choices.sort_by(|a, b| b.1.total_cmp(&a.1));
        choices.truncate(keep);
    }
    Ok(Some(choices[0].0))
}

/// 0 if the training runs away.
fn accuracy(trainee: &mut Trainee, mut data: TrainingData, test: &TestSet) -> Result<f64> {
    match trainee.train(&mut data, test, None) {
        Ok((accuracy, _)) => Ok(accuracy),
        Err(Error::NotFinite { .. }) => Ok(0.0),
        Err(error) => Err(error),
    }
}
