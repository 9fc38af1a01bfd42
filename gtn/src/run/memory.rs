//! Will it fit? A forecast before anything large is taken.

use crate::data::Problem;
use crate::device::{free_bytes, size};
use crate::error::{Error, Result};
use crate::outer::makers::Makers;
use crate::outer::teacher::learned;
use crate::outer::training::training;
use crate::run::config::Config;
use autograd::{ArraySpec, Horizon, Planned, Policy, Schedule, Training};
use kernels::Device;
use std::fmt;

/// What an outer step takes, with the learner that takes the most.
#[derive(Clone, Copy, Debug)]
pub struct Fit {
    /// The schedule; for `auto`, `lean` or a budget, the one that was chosen.
    schedule: Schedule,
    /// Total bytes.
    bytes: f64,
    /// The part of them that is the same under every schedule.
    beside: f64,
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "about {}, schedule {}", size(self.bytes), self.schedule)
    }
}

/// Refuses settings that take more memory than the device has free, where that is known, and says which
/// schedule would fit. `ranks` processes share the machine's memory.
///
/// # Errors
/// If they do, or if the networks cannot be planned.
pub fn check(
    device: &Device,
    config: &Config,
    problem: Problem,
    ranks: usize,
) -> Result<Option<Fit>> {
    let Some(free) = free_bytes(device, ranks) else {
        return Ok(None);
    };
    let horizon = config.horizon().free_bytes(free);
    let fit = estimate(config, &horizon, problem).map_err(refused)?;
    let (wanted, free) = (fit.bytes, free as f64);
    if wanted <= free {
        return Ok(Some(fit));
    }
    // Rounded down, so that a user can type it.
    let spare = (free - fit.beside).max(0.0) as usize;
    let unit = if spare >> 20 > 0 { 20 } else { 10 };
    let budget = Policy::Budget(spare >> unit << unit);
    let (wanted, free) = (size(wanted), size(free));
    let error = Error::engine(format!(
        "this run takes about {wanted} of memory, and {free} are free"
    ));
    Err(
        if estimate(config, &horizon.schedule(budget), problem).is_ok() {
            error.hint(format!("--schedule {budget} would fit"))
        } else {
            error.and("no schedule would fit").hint(
            "a smaller --inner-batch or --outer-batch, fewer --inner-steps or smaller networks take less",
        )
        },
    )
}

/// A schedule that the training cannot have is a mistake in the settings.
fn refused(error: autograd::Error) -> Error {
    match error {
        autograd::Error::Setting(why) => {
            Error::usage(why).hint("--schedule auto chooses one that works")
        }
        other => other.into(),
    }
}

/// Refuses a training whose values take more memory than the device has free, where that is known.
///
/// # Errors
/// If they do.
pub fn check_values(device: &Device, training: &Training<'_>) -> Result<()> {
    let declared = training.learned_specs().chain(training.given_specs());
    let bytes = |spec: &ArraySpec| spec.bytes() as f64;
    let own: f64 = training.weight_specs().iter().map(bytes).sum();
    let wanted = own + declared.map(bytes).sum::<f64>();
    match free_bytes(device, 1).map(|free| free as f64) {
        Some(free) if wanted > free => Err(Error::engine(format!(
            "the values of this training take {} of memory, and {} are free",
            size(wanted),
            size(free)
        ))),
        _ => Ok(()),
    }
}

/// What an outer step takes with the widest learner of the family that takes the most.
fn estimate(config: &Config, horizon: &Horizon, problem: Problem) -> autograd::Result<Fit> {
    let makers = Makers::of(config, problem)?;
    let mut most: Option<Fit> = None;
    for learner in config.widest(problem)? {
        let training = training(config, problem, &makers, &learner);
        let planned = Planned::new(&training, horizon)?;
        // The forecast covers the unrolled training. Values that it is given and the outer optimiser's state
        // come on top.
        let bytes = |spec: &ArraySpec| spec.bytes() as f64;
        let given: f64 = training.given_specs().map(bytes).sum();
        let start: f64 = training.weight_specs().iter().map(bytes).sum();
        let learned: f64 = learned(config, problem, &makers).iter().map(bytes).sum();
        let beside = given + start + (3 + config.waiting()) as f64 * learned;
        let fit = Fit {
            schedule: planned.schedule(),
            bytes: planned.forecast().bytes as f64 + beside,
            beside,
        };
        if most.is_none_or(|most| fit.bytes > most.bytes) {
            most = Some(fit);
        }
    }
    Ok(most.expect("a population has a member"))
}
