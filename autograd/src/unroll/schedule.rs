//! What the forward sweep stores and what is computed again; and who decides that.

use super::script::{Script, Snapshots};
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// What to store of the forward sweep over T inner steps. Every schedule gives the same meta-gradient, bit for
/// bit. F is the work of one forward pass of the learner.
///
/// ```
/// use autograd::Schedule;
/// let schedule = Schedule::binomial(8).with_activations(4);
/// assert_eq!(schedule.to_string(), "binomial-8-kept-4");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Schedule {
    pub(super) snapshots: Snapshots,
    /// The number of steps of a stretch whose activations are stored while it is reversed; 0 if none are
    /// stored.
    pub(super) kept: usize,
    /// Whether reruns of a step are given the stored results of its prelude.
    pub(super) prelude: bool,
}

impl Schedule {
    /// `store-all`: the activations of every step: 9 F a step, and the most memory.
    pub fn store_all() -> Self {
        Self::binomial(1).with_activations(usize::MAX)
    }

    /// `per-step`: the learner's state before every step: 11 F a step.
    pub fn per_step() -> Self {
        Self::every(1)
    }

    /// `every-K`: the learner's state before every k-th step; the others are computed again: 14 F a step.
    pub fn every(k: usize) -> Self {
        Self::of(Snapshots::Every(k.max(1)))
    }

    /// `binomial-C`: at most `snapshots` states of the learner at a time, placed so that the fewest steps are
    /// computed again (Griewank and Walther 2000). Their memory does not depend on T.
    pub fn binomial(snapshots: usize) -> Self {
        Self::of(Snapshots::Binomial(snapshots.max(1)))
    }

    /// `reversible-B`: no states; every step is undone (Maclaurin et al. 2015), from the last to the first: 12 F a
    /// step. For [`Optimizer::ReversibleMomentum`](crate::optim::Optimizer) only, which loses log₂(1/momentum) bits of a
    /// parameter at every step. They are stored: there is room for `bits` a parameter and step, rounded up to hundredths.
    /// Momenta that lose more are an error before the training. Buffers are stored at every step.
    pub fn reversible(bits: f64) -> Self {
        let hundredths = (100.0 * bits - 1e-6).ceil().max(1.0) as usize;
        Self::of(Snapshots::Never { hundredths })
    }

    /// `…-kept-Q`: the same over stretches of `stretch` steps. The activations of the stretch that is being
    /// reversed are stored, which saves 2 F a step.
    #[must_use]
    pub fn with_activations(self, stretch: usize) -> Self {
        Self {
            kept: stretch.max(1),
            ..self
        }
    }

    /// `…-prelude`: the *prelude* of a step is everything that does not depend on the learner; in a GTN,
    /// making the images. If a step will have to run again, its first run stores what the contractions of
    /// its prelude lead to, where that takes the fewest bytes. Then the generator need not run again.
    /// Memory grows with T by that much.
    #[must_use]
    pub fn with_prelude(self) -> Self {
        let again = self.snapshots != Snapshots::Every(1) && self.kept != usize::MAX;
        Self {
            prelude: again,
            ..self
        }
    }

    /// The same without stored preludes.
    pub(super) fn without_prelude(self) -> Self {
        Self {
            prelude: false,
            ..self
        }
    }

    fn of(snapshots: Snapshots) -> Self {
        Self {
            snapshots,
            kept: 0,
            prelude: false,
        }
    }

    /// The script of `steps` inner steps, of which the last `window` are reversed.
    pub(super) fn script(self, steps: usize, window: usize) -> Script {
        let snapshots = match self.snapshots {
            Snapshots::Binomial(c) => Snapshots::Binomial(c.clamp(1, steps)),
            other => other,
        };
        Script {
            steps,
            begin: steps - window.clamp(1, steps),
            snapshots,
            kept: self.kept.min(steps),
            prelude: self.prelude,
            away: 0,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.snapshots {
            Snapshots::Every(1) if !self.prelude => f.write_str("per-step")?,
            Snapshots::Every(k) => write!(f, "every-{k}")?,
            Snapshots::Binomial(1) if self.kept == usize::MAX => f.write_str("store-all")?,
            Snapshots::Binomial(c) => write!(f, "binomial-{c}")?,
            Snapshots::Never { hundredths } => {
                write!(f, "reversible-{}", hundredths as f64 / 100.0)?;
            }
        }
        if (1..usize::MAX).contains(&self.kept) {
            write!(f, "-kept-{}", self.kept)?;
        }
        f.write_str(if self.prelude { PRELUDE } else { "" })
    }
}

/// Who picks the schedule.
///
/// ```
/// use autograd::{Policy, Schedule};
/// let policy: Policy = "budget-64MiB".parse()?;
/// assert_eq!(policy, Policy::Budget(64 << 20));
/// assert_eq!("binomial-8".parse::<Policy>()?, Schedule::binomial(8).into());
/// # Ok::<(), autograd::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The caller: this one.
    Fixed(Schedule),
    /// `auto`: the schedule with the least work (FLOPs) whose buffers take at most half of the
    /// [free memory](crate::Horizon::free_bytes), chosen as for a budget: `store-all` where there is room for it. Where not
    /// even the leanest fits, the one with the least work among those that take at most 3 % more than the leanest. Where
    /// free memory is unknown, as `lean`.
    Auto,
    /// `lean`: the schedule that minimises work² × memory, so that half the memory is worth 1.4 times the work. Of the
    /// schedules within 3 % of the minimum it is that with the least work.
    Lean,
    /// `budget-BYTES`, or as in `budget-64MiB`: the schedule with the least work (FLOPs) whose buffers stay
    /// below that many bytes. Steps are cut into [segments](crate::Horizon::segments) where nothing else
    /// fits, or where that saves work. [`Unroll::schedule`](crate::Unroll::schedule) says which schedule it
    /// is.
    Budget(usize),
    /// `window-W`: the gradient through the last W steps only, as if the state before them were given: not the exact
    /// meta-gradient. Their states are stored: 11 F for each of them, 3 F for one before.
    ///
    /// A window that starts at a random step s (Feng et al. 2023) is the same, with s + W steps in all.
    Window(usize),
}

impl Default for Policy {
    fn default() -> Self {
        Schedule::per_step().into()
    }
}

impl From<Schedule> for Policy {
    fn from(schedule: Schedule) -> Self {
        Self::Fixed(schedule)
    }
}

const NAMES: &str = "store-all, per-step, every-K, binomial-C, binomial-C-kept-Q (or one of these three with -prelude), \
                     auto, lean, budget-BYTES (or KiB, MiB, GiB: budget-64MiB), window-W, or reversible-B, with numbers \
                     ≥ 1 (B may be less)";

/// How the names of schedules end that store the results of preludes.
const PRELUDE: &str = "-prelude";

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(schedule) => schedule.fmt(f),
            Self::Auto => f.write_str("auto"),
            Self::Lean => f.write_str("lean"),
            Self::Budget(bytes) => {
                let unit = UNITS
                    .iter()
                    .find(|(_, unit)| *bytes > 0 && bytes % unit == 0);
                let (name, unit) = unit.unwrap_or(&("", 1));
                write!(f, "budget-{}{name}", bytes / unit)
            }
            Self::Window(steps) => write!(f, "window-{steps}"),
        }
    }
}

const UNITS: [(&str, usize); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl FromStr for Policy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parsed(text).ok_or_else(|| Error::Setting(format!("unknown schedule `{text}`: {NAMES}")))
    }
}

fn parsed(text: &str) -> Option<Policy> {
    match text.split_once('-') {
        None if text == "auto" => return Some(Policy::Auto),
        None if text == "lean" => return Some(Policy::Lean),
        Some(("budget", size)) => return bytes(size).map(Policy::Budget),
        Some(("window", steps)) => return number(steps).map(Policy::Window),
        _ => {}
    }
    let Some(rest) = text.strip_suffix(PRELUDE) else {
        return schedule(text).map(Policy::Fixed);
    };
    let schedule = schedule(rest).filter(|_| !matches!(rest, "store-all" | "per-step"))?;
    let prelude = !matches!(schedule.snapshots, Snapshots::Never { .. });
    prelude.then_some(Policy::Fixed(Schedule {
        prelude,
        ..schedule
    }))
}

fn schedule(text: &str) -> Option<Schedule> {
    if text == "reversible" {
        return Some(Schedule::reversible(1.0));
    }
    match text.split_once('-')? {
        ("store", "all") => Some(Schedule::store_all()),
        ("per", "step") => Some(Schedule::per_step()),
        ("every", k) => number(k).map(Schedule::every),
        ("reversible", bits) => self::bits(bits).map(Schedule::reversible),
        ("binomial", rest) => match rest.split_once("-kept-") {
            Some((c, q)) => Some(Schedule::binomial(number(c)?).with_activations(number(q)?)),
            None => number(rest).map(Schedule::binomial),
        },
        _ => None,
    }
}

fn number(text: &str) -> Option<usize> {
    text.parse().ok().filter(|&number| number > 0)
}

fn bits(text: &str) -> Option<f64> {
    let bits = text.parse().ok();
    bits.filter(|bits| (1e-8..1e7).contains(bits))
}

fn bytes(text: &str) -> Option<usize> {
    let in_unit = |(name, unit): &(&str, usize)| Some((text.strip_suffix(name)?, *unit));
    let (text, unit) = UNITS.iter().find_map(in_unit).unwrap_or((text, 1));
    number(text)?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_nonsense_is_refused() {
        for policy in [
            Schedule::store_all().into(),
            Schedule::per_step().into(),
            Schedule::every(7).into(),
            Schedule::binomial(3).into(),
            Schedule::binomial(3).with_activations(12).into(),
            Schedule::every(7).with_prelude().into(),
            Schedule::binomial(3).with_prelude().into(),
            Schedule::binomial(3)
                .with_activations(12)
                .with_prelude()
                .into(),
            Policy::Budget(1000),
            Policy::Budget(3 << 10),
            Policy::Budget(64 << 20),
            Policy::Budget(2 << 30),
            Policy::Auto,
            Policy::Lean,
            Policy::Window(9),
            Schedule::reversible(2.0).into(),
            Schedule::reversible(0.16).into(),
            Schedule::reversible(0.29).into(),
        ] {
            let name = policy.to_string();
            assert_eq!(name.parse::<Policy>().expect("its own name"), policy);
        }
        let with_prelude = Schedule::binomial(3).with_activations(12).with_prelude();
        assert_eq!(Policy::Budget(64 << 20).to_string(), "budget-64MiB");
        assert_eq!(with_prelude.to_string(), "binomial-3-kept-12-prelude");
        assert_eq!(
            "reversible".parse().ok(),
            Some(Policy::Fixed(Schedule::reversible(1.0)))
        );
        assert_eq!(Schedule::reversible(1.0).to_string(), "reversible-1");
        for text in [
            "every-0",
            "every-",
            "all",
            "every--3",
            "binomial-0",
            "binomial-2-kept-0",
            "binomial-prelude",
            "binomial-2-prelude-prelude",
            "binomial-2-prelude-kept-3",
            "per-step-prelude",
            "budget-64MiB-prelude",
            "reversible-1-prelude",
            "budget-0",
            "budget-MiB",
            "budget-99999999999999GiB",
            "window",
            "reversible-0",
            "reversible-NaN",
            "reversible--1",
        ] {
            assert!(text.parse::<Policy>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_advances_no_step_twice_stores_no_prelude() {
        for schedule in [Schedule::store_all(), Schedule::per_step()] {
            assert_eq!(schedule.with_prelude(), schedule);
        }
    }
}
