//! The driver at work: actions of a script become runs of plans.

use super::away::Away;
use super::plans::{Bound, Source};
use super::script::{Action, Advance};
use super::{Given, Planned, Unroll};
use crate::error::Result;
use kernels::View;

/// Where the driver stands: the step, and the records in use; `kept` is that of its activations, or of what its
/// prelude made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct At {
    pub(super) step: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) kept: usize,
    pub(super) outer: usize,
}

impl Unroll {
    /// One action of the script. Gives where the driver stands after it.
    pub(super) fn act(
        &self,
        action: Action,
        given: Given<'_>,
        now: At,
        away: &mut Away,
    ) -> Result<At> {
        let Planned { step: plans, .. } = &self.planned;
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
                    stash.take(step, &self.states, from)?;
                }
                let prelude = plans.prelude.as_ref();
                let (plan, kept) = match how {
                    Advance::Plain => (None, 0),
                    Advance::Keep(record) => (plans.kept.as_ref(), record),
                    Advance::KeepPrelude(record) => (prelude.map(|plans| &plans.keeping), record),
                    Advance::GivenPrelude(record) => (prelude.map(|plans| &plans.given), record),
                };
                let at = at_step(step, from, to, kept);
                self.run(plan.unwrap_or(&plans.advance), given, at)?;
                Ok(at)
            }
            Action::Outer { step, state } => {
                let outer = self
                    .planned
                    .horizon
                    .outer_steps
                    .partition_point(|&s| s < step);
                let at = At {
                    from: state,
                    outer,
                    ..now
                };
                self.run(&self.planned.outer, given, at)?;
                if step <= self.planned.script.begin {
                    // Before the window a loss is looked at, but nothing flows back from it.
                    self.cotangents.zero(0)?;
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
                away.put(place, &self.states, state)?;
                Ok(now)
            }
            Action::Announce { place } => {
                away.announce(place)?;
                Ok(now)
            }
            Action::Fetch { place, state } => {
                away.fetch(place, &self.states, state)?;
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
                    stash.put_back(step, &self.states, to)?;
                }
                Ok(at)
            }
            Action::Restart { state } => {
                self.states.copy(state, given.start, 0)?;
                Ok(now)
            }
        }
    }

    /// Backward through a step: the cotangent is then that before it.
    fn reversed(&self, bound: &Bound, given: Given<'_>, at: At) -> Result<At> {
        self.run(bound, given, at)?;
        if let Some(clip) = &self.planned.clip {
            self.run(clip, given, at)?;
        }
        Ok(at)
    }

    pub(super) fn run(&self, bound: &Bound, given: Given<'_>, at: At) -> Result<()> {
        let view = |source: &Source| self.view(*source, given, at);
        let inputs: Vec<View<'_>> = bound.inputs.iter().map(view).collect();
        let outputs: Vec<View<'_>> = bound.outputs.iter().map(view).collect();
        let arena = self.arena.view(0, bound.plan.arena_bytes());
        if let Some(runs) = self.timed.borrow_mut().as_mut() {
            runs.push(self.time(&bound.plan, at, arena, [&inputs, &outputs])?);
            return Ok(());
        }
        bound.plan.execute(&self.device, arena, &inputs, &outputs)
    }

    fn view<'a>(&'a self, source: Source, given: Given<'a>, at: At) -> View<'a> {
        match source {
            Source::State(i) => self.states.view(at.from, i),
            Source::NewState(i) => self.states.view(at.to, i),
            Source::Cotangent(i) => self.cotangents.view(0, i),
            Source::Shared(i) => given.shared.view(0, i),
            Source::Prepared(i) => self.prepared.view(0, i),
            Source::SharedGradient(i) => self.shared_gradient.view(0, i),
            Source::PreparedGradient(i) => self.prepared_gradient.view(0, i),
            Source::Row(i) => given.rows.view(at.step % self.planned.horizon.rows, i),
            Source::RowGradient(i) => self
                .row_gradient
                .view(at.step % self.planned.horizon.rows, i),
            Source::Hyper(i) => given.hyper.view(at.step, i),
            Source::HyperGradient(i) => self.hyper_gradient.view(at.step, i),
            Source::OuterRow(i) => given.outer_rows.view(at.outer, i),
            Source::Loss => self.losses.view(at.step, 0),
            Source::OuterLoss => self.losses.view(self.steps() + at.outer, 0),
            Source::Kept(i) => self.kept.view(at.kept, i),
            Source::Prelude(i) => self.preludes.view(at.kept, i),
        }
    }
}
