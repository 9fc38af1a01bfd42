//! What is kept between the forward and the backward sweep, and what is computed again.

use super::script::{Script, Snapshots};
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// What to keep of the forward sweep over T inner steps. All choices but [`Schedule::Window`] give the same
/// meta-gradient, bit for bit; F is the work of one forward pass of the learner.
///
/// ```
/// use autograd::Schedule;
/// let schedule: Schedule = "budget-64MiB".parse()?;
/// assert_eq!(schedule, Schedule::Budget(64 << 20));
/// assert_eq!(Schedule::Binomial(8).to_string(), "binomial-8");
/// # Ok::<(), autograd::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Schedule {
    /// `store-all`: the activations of every step: 9 F a step, and the most memory.
    StoreAll,
    /// `per-step`: the learner's state before every step: 11 F a step.
    #[default]
    PerStep,
    /// `every-K`: the learner's state before every k-th step; the others are computed again: 14 F a step.
    EveryK(usize),
    /// `binomial-C`: at most so many snapshots of the learner's state at a time, placed so that the fewest
    /// steps are computed again (Griewank and Walther 2000). The snapshots' memory does not depend on T.
    Binomial(usize),
    /// `binomial-C-kept-Q`: the same over stretches of Q steps. Of the stretch that is being reversed all
    /// activations are kept, so that 3 F a step are saved.
    BinomialKept(usize, usize),
    /// `every-K-prelude`, `binomial-C-prelude`, `binomial-C-kept-Q-prelude`: as without `-prelude`, but a step that
    /// is advanced again is given what it computes without the learner's state, its *prelude*: in a GTN the
    /// images, and the generator is not run again. Only what contractions go into is kept, in the fewest bytes,
    /// for every step that is advanced more than once before its stretch is reversed: memory grows with T by that
    /// much. Of a step without such a prelude nothing is kept, and its schedule has its name without `-prelude`.
    EveryKPrelude(usize),
    /// See [`Schedule::EveryKPrelude`].
    BinomialPrelude(usize),
    /// See [`Schedule::EveryKPrelude`].
    BinomialKeptPrelude(usize, usize),
    /// `budget-BYTES`, or as in `budget-64MiB`: the one of the others with the least work (FLOPs) that
    /// stays below that many bytes, with steps in [segments](crate::Horizon::segments) where nothing else fits or
    /// that saves work, all buffers of [`Unroll`](crate::Unroll) counted.
    /// [`Unroll::schedule`](crate::Unroll::schedule) tells which it is.
    Budget(usize),
    /// `auto`: the exact one that balances work and memory: half the memory is worth 1.4 times the work. Of those for
    /// which work² times memory is within 3 % of the least, it is that with the least work.
    Auto,
    /// `window-W`: the gradient through the last W steps only, as if the state before them were given: not
    /// the exact meta-gradient. Their states are kept: 11 F for each of them, 3 F for one before.
    ///
    /// A window that starts at a random step s (Feng et al. 2023) is the same, with s + W steps in all.
    Window(usize),
    /// `reversible-B`, or `reversible` for 1: no states; every step is undone (Maclaurin et al. 2015), from the
    /// last to the first: 12 F a step. For [`Optimizer::ReversibleMomentum`](crate::optim::Optimizer) only,
    /// which loses log₂(1/momentum) bits of a parameter at every step. They are kept: there is room for B bits
    /// a parameter and step, given in hundredths of a bit (`reversible-0.16` is `Reversible(16)`). Momenta that
    /// lose more are an error before the training. Buffers are kept at every step.
    Reversible(usize),
}

const NAMES: &str = "store-all, per-step, every-K, binomial-C, binomial-C-kept-Q (or one of these three with -prelude), \
                     auto, budget-BYTES (or KiB, MiB, GiB: budget-64MiB), window-W, or reversible-B, with numbers \
                     ≥ 1 (B may be less)";

/// The end of the names of schedules that keep what preludes make.
const PRELUDE: &str = "-prelude";

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StoreAll => f.write_str("store-all"),
            Self::PerStep => f.write_str("per-step"),
            Self::EveryK(k) => write!(f, "every-{k}"),
            Self::Binomial(c) => write!(f, "binomial-{c}"),
            Self::BinomialKept(c, q) => write!(f, "binomial-{c}-kept-{q}"),
            Self::EveryKPrelude(_) | Self::BinomialPrelude(_) | Self::BinomialKeptPrelude(..) => {
                write!(f, "{}{PRELUDE}", self.without_prelude())
            }
            Self::Budget(bytes) => {
                let unit = UNITS
                    .iter()
                    .find(|(_, unit)| *bytes > 0 && bytes % unit == 0);
                let (name, unit) = unit.unwrap_or(&("", 1));
                write!(f, "budget-{}{name}", bytes / unit)
            }
            Self::Auto => f.write_str("auto"),
            Self::Window(steps) => write!(f, "window-{steps}"),
            Self::Reversible(hundredths) => write!(f, "reversible-{}", *hundredths as f64 / 100.0),
        }
    }
}

const UNITS: [(&str, usize); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

fn number(text: &str) -> Option<usize> {
    text.parse().ok().filter(|&number| number > 0)
}

/// A positive number in hundredths, rounded up.
fn hundredths(text: &str) -> Option<usize> {
    let number: f64 = text.parse().ok()?;
    let hundredths = (100.0 * number - 1e-6).ceil();
    (1.0..1e9)
        .contains(&hundredths)
        .then_some(hundredths as usize)
}

fn bytes(text: &str) -> Option<usize> {
    let in_unit = |(name, unit): &(&str, usize)| Some((text.strip_suffix(name)?, *unit));
    let (text, unit) = UNITS.iter().find_map(in_unit).unwrap_or((text, 1));
    number(text)?.checked_mul(unit)
}

fn parsed(text: &str) -> Option<Schedule> {
    if let Some(rest) = text.strip_suffix(PRELUDE) {
        let schedule = parsed(rest)?;
        return Some(schedule.with_prelude()).filter(|with| *with != schedule);
    }
    if let Some(rest) = text.strip_prefix("binomial-") {
        return match rest.split_once("-kept-") {
            Some((c, q)) => Some(Schedule::BinomialKept(number(c)?, number(q)?)),
            None => number(rest).map(Schedule::Binomial),
        };
    }
    if text == "reversible" {
        return Some(Schedule::Reversible(100));
    }
    if text == "auto" {
        return Some(Schedule::Auto);
    }
    match text.split_once('-')? {
        ("store", "all") => Some(Schedule::StoreAll),
        ("per", "step") => Some(Schedule::PerStep),
        ("every", k) => number(k).map(Schedule::EveryK),
        ("budget", size) => bytes(size).map(Schedule::Budget),
        ("window", steps) => number(steps).map(Schedule::Window),
        ("reversible", bits) => hundredths(bits).map(Schedule::Reversible),
        _ => None,
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parsed(text).ok_or_else(|| Error::Setting(format!("unknown schedule `{text}`: {NAMES}")))
    }
}

impl Schedule {
    /// The same with what preludes make kept, if it has a name.
    pub(super) fn with_prelude(self) -> Self {
        match self {
            Self::EveryK(k) => Self::EveryKPrelude(k),
            Self::Binomial(c) => Self::BinomialPrelude(c),
            Self::BinomialKept(c, q) => Self::BinomialKeptPrelude(c, q),
            other => other,
        }
    }

    /// The same without.
    pub(super) fn without_prelude(self) -> Self {
        match self {
            Self::EveryKPrelude(k) => Self::EveryK(k),
            Self::BinomialPrelude(c) => Self::Binomial(c),
            Self::BinomialKeptPrelude(c, q) => Self::BinomialKept(c, q),
            other => other,
        }
    }

    /// Whether it keeps what preludes make.
    pub(super) fn keeps_prelude(self) -> bool {
        self != self.without_prelude()
    }

    /// The script for that many steps; `None` for what needs to know what things take: a budget, and `auto`.
    pub(super) fn script(self, steps: usize) -> Option<Script> {
        let (begin, snapshots, kept) = match self.without_prelude() {
            Self::StoreAll => (0, Snapshots::Binomial(1), steps),
            Self::PerStep => (0, Snapshots::Every(1), 0),
            Self::EveryK(k) => (0, Snapshots::Every(k.max(1)), 0),
            Self::Binomial(c) => (0, Snapshots::Binomial(c.clamp(1, steps)), 0),
            Self::BinomialKept(c, q) => {
                let stretch = q.clamp(1, steps);
                (0, Snapshots::Binomial(c.clamp(1, steps)), stretch)
            }
            Self::Window(last) => {
                let begin = steps - last.clamp(1, steps);
                (begin, Snapshots::Every(1), 0)
            }
            Self::Reversible(_) => (0, Snapshots::Never, 0),
            _ => return None,
        };
        Some(Script {
            steps,
            begin,
            snapshots,
            kept,
            prelude: self.keeps_prelude(),
            away: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_nonsense_is_refused() {
        for schedule in [
            Schedule::StoreAll,
            Schedule::PerStep,
            Schedule::EveryK(7),
            Schedule::Binomial(3),
            Schedule::BinomialKept(3, 12),
            Schedule::EveryKPrelude(7),
            Schedule::BinomialPrelude(3),
            Schedule::BinomialKeptPrelude(3, 12),
            Schedule::Budget(1000),
            Schedule::Budget(3 << 10),
            Schedule::Budget(64 << 20),
            Schedule::Budget(2 << 30),
            Schedule::Auto,
            Schedule::Window(9),
            Schedule::Reversible(200),
            Schedule::Reversible(16),
            Schedule::Reversible(29),
        ] {
            assert_eq!(
                schedule
                    .to_string()
                    .parse::<Schedule>()
                    .expect("its own name"),
                schedule
            );
        }
        assert_eq!(Schedule::Budget(64 << 20).to_string(), "budget-64MiB");
        assert_eq!(
            Schedule::BinomialKeptPrelude(3, 12).to_string(),
            "binomial-3-kept-12-prelude"
        );
        assert_eq!("reversible".parse().ok(), Some(Schedule::Reversible(100)));
        assert_eq!(Schedule::Reversible(100).to_string(), "reversible-1");
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
            "budget-0",
            "budget-MiB",
            "budget-99999999999999GiB",
            "window",
            "reversible-0",
            "reversible-NaN",
            "reversible--1",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }
}
