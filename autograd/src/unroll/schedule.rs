//! What is kept between the forward and the backward sweep, and what is computed again.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// What to keep of the forward sweep over T inner steps. All choices give the same meta-gradient, bit for
/// bit; F is the work of one forward pass of the learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Schedule {
    /// The activations of every step: 9 F a step, and the most memory.
    StoreAll,
    /// The learner's state before every step: 12 F a step.
    #[default]
    PerStep,
    /// The learner's state before every k-th step; the others are computed again: 15 F a step.
    EveryK(usize),
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StoreAll => f.write_str("store-all"),
            Self::PerStep => f.write_str("per-step"),
            Self::EveryK(k) => write!(f, "every-{k}"),
        }
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let every = || {
            text.strip_prefix("every-")?
                .parse()
                .ok()
                .filter(|&k: &usize| k > 0)
                .map(Self::EveryK)
        };
        match text {
            "store-all" => Ok(Self::StoreAll),
            "per-step" => Ok(Self::PerStep),
            _ => every().ok_or_else(|| {
                Error::Setting(format!(
                    "unknown schedule `{text}`: store-all, per-step, or every-K with K ≥ 1"
                ))
            }),
        }
    }
}

/// One action of the driver. States and kept activations are named by the number of their record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Inner step `step` from one state to another; keeps its activations if a record is given.
    Advance {
        step: usize,
        from: usize,
        to: usize,
        keep: Option<usize>,
        first: bool,
    },
    /// The outer loss after `step` steps, on that state, and its gradient.
    Outer { step: usize, state: usize },
    /// Backward through inner step `step`, that started from that state.
    Reverse {
        step: usize,
        from: usize,
        kept: Option<usize>,
    },
}

/// The actions of a schedule, and how many records of state and of activations they need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) actions: Vec<Action>,
    pub(super) states: usize,
    pub(super) kept: usize,
}

impl Schedule {
    /// The script for `steps` inner steps with an outer loss after those for which `outer` says so. State
    /// record 0 holds the start.
    pub(super) fn script(self, steps: usize, outer: impl Fn(usize) -> bool) -> Script {
        let k = match self {
            Self::EveryK(k) => k.min(steps),
            Self::StoreAll | Self::PerStep => 1,
        };
        let keep = |step| (self == Self::StoreAll).then_some(step);
        let snapshots = steps.div_ceil(k);
        // Records: the snapshots, then the states inside one stretch of k steps, the last of them its end.
        let inside = |step: usize| snapshots + (step - 1) % k;
        let record = |step: usize| {
            if step.is_multiple_of(k) && step < steps {
                step / k
            } else {
                inside(step)
            }
        };
        let mut actions = Vec::new();
        for step in 0..steps {
            let (from, to) = (record(step), record(step + 1));
            actions.push(Action::Advance {
                step,
                from,
                to,
                keep: keep(step),
                first: true,
            });
        }
        let mut end = steps;
        while end > 0 {
            let begin = (end - 1) / k * k;
            for step in begin..end - 1 {
                if end != steps {
                    let (from, to) = (record(step), record(step + 1));
                    actions.push(Action::Advance {
                        step,
                        from,
                        to,
                        keep: None,
                        first: false,
                    });
                }
            }
            for step in (begin..end).rev() {
                if outer(step + 1) {
                    actions.push(Action::Outer {
                        step: step + 1,
                        state: record(step + 1),
                    });
                }
                actions.push(Action::Reverse {
                    step,
                    from: record(step),
                    kept: keep(step),
                });
            }
            end = begin;
        }
        Script {
            actions,
            states: snapshots + k,
            kept: if self == Self::StoreAll { steps } else { 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks a script, tracking which state every record holds.
    fn walk(schedule: Schedule, steps: usize) -> usize {
        let script = schedule.script(steps, |_| true);
        let mut held = vec![usize::MAX; script.states];
        held[0] = 0;
        let (mut advances, mut reversed) = (0, steps);
        for action in script.actions {
            match action {
                Action::Advance { step, from, to, .. } => {
                    assert_eq!(held[from], step);
                    held[to] = step + 1;
                    advances += 1;
                }
                Action::Outer { step, state } => {
                    assert_eq!(held[state], step, "{schedule} of {steps}");
                    assert_eq!(reversed, step);
                }
                Action::Reverse { step, from, .. } => {
                    assert_eq!(held[from], step, "{schedule} of {steps}");
                    reversed -= 1;
                    assert_eq!(step, reversed);
                }
            }
        }
        assert_eq!(reversed, 0);
        advances
    }

    #[test]
    fn every_record_holds_the_state_that_is_read() {
        for steps in 1..=40 {
            assert_eq!(walk(Schedule::StoreAll, steps), steps);
            assert_eq!(walk(Schedule::PerStep, steps), steps);
            for k in 1..=steps + 1 {
                let again = walk(Schedule::EveryK(k), steps) - steps;
                assert!(
                    again <= steps - steps.div_ceil(k.min(steps)),
                    "{again} of {steps} with k = {k}"
                );
            }
        }
    }

    #[test]
    fn names_round_trip_and_nonsense_is_refused() {
        for schedule in [Schedule::StoreAll, Schedule::PerStep, Schedule::EveryK(7)] {
            assert_eq!(
                schedule
                    .to_string()
                    .parse::<Schedule>()
                    .expect("its own name"),
                schedule
            );
        }
        for text in ["every-0", "every-", "all", "every--3"] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }
}
