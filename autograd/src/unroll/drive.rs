//! The driver at work: actions of a script become runs of plans.

use super::away::Away;
use super::memory::{At, Given};
use super::script::{Action, Advance};
use super::source::Source;
use super::{Planned, Unroll};
use crate::error::Result;
use crate::plan::Bound;

impl Unroll {
    /// One action of the script. Gives where the driver stands after it.
    pub(super) fn act(
        &self,
        action: Action,
        given: &Given<'_>,
        now: At,
        away: &mut Away,
    ) -> Result<At> {
        let Planned { step: plans, .. } = &self.planned;
        let states = &self.memory.states;
        let at_step = |step, from, to, kept| At {
            step,
            from,
            to,
            kept,
            ..now
        };
        match action {
            Action::Advance {
                step,
                from,
                to,
                how,
            } => {
                if let Some(stash) = &self.stash {
                    stash.take(step, states, from)?;
                }
                let prelude = plans.prelude.as_ref();
                let (plan, kept) = match how {
                    Advance::Plain => (None, 0),
                    Advance::Keep(record) => (plans.kept.as_ref(), record),
                    Advance::KeepPrelude(record) => (prelude.map(|plans| &plans.keeping), record),
                    Advance::GivenPrelude(record) => (prelude.map(|plans| &plans.given), record),
                };
                let at = at_step(step, from, to, kept);
                // Where there is nothing to store, every advance is plain.
                let plan = plan.or(plans.advance.as_ref());
                self.run(plan.expect("planned for its schedule"), given, at)?;
                Ok(at)
            }
            Action::Outer { step, state } => {
                let outer_steps = &self.planned.horizon.outer_steps;
                let at = At {
                    from: state,
                    outer: outer_steps.partition_point(|&s| s < step),
                    ..now
                };
                self.run(&self.planned.outer, given, at)?;
                if step <= self.planned.script.begin {
                    // An outer loss before the window is evaluated, but nothing flows back from it.
                    self.memory.cotangents.zero(0)?;
                }
                Ok(at)
            }
            Action::Reverse {
                step,
                from,
                to,
                kept,
            } => {
                let at = at_step(step, from, to, kept.unwrap_or(0));
                self.reversed(&plans.reverse, given, at)
            }
            Action::PutAway { place, state } => {
                away.put(place, states, state)?;
                Ok(now)
            }
            Action::Announce { place } => {
                away.announce(place)?;
                Ok(now)
            }
            Action::Fetch { place, state } => {
                away.fetch(place, states, state)?;
                Ok(now)
            }
            Action::Undo {
                step,
                from,
                to,
                kept,
            } => {
                let undo = plans.undo.as_ref().expect("planned for its schedule");
                let at = self.reversed(undo, given, at_step(step, from, to, kept))?;
                if let Some(stash) = &self.stash {
                    stash.put_back(step, states, to)?;
                }
                Ok(at)
            }
            Action::Restart { state } => {
                self.memory.start(given, state)?;
                Ok(now)
            }
        }
    }

    /// Backward through a step: the cotangent is then that before it.
    fn reversed(&self, bound: &Bound<Source>, given: &Given<'_>, at: At) -> Result<At> {
        self.run(bound, given, at)?;
        if let Some(clip) = &self.planned.clip {
            self.run(clip, given, at)?;
        }
        Ok(at)
    }

    /// Runs a plan, and times its launches if that was asked for.
    pub(super) fn run(&self, bound: &Bound<Source>, given: &Given<'_>, at: At) -> Result<()> {
        if let Some(runs) = self.timed.borrow_mut().as_mut() {
            runs.push(self.time(bound, given, at)?);
            return Ok(());
        }
        self.memory.run(bound, given, at)
    }
}
