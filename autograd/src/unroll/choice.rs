//! Which schedule a training has, and its plans.

use super::budget::{self, Candidate, Cost, Family};
use super::horizon::Horizon;
use super::inner::{Keep, Manner, PlannedStep};
use super::plans::{plan_clip, plan_outer};
use super::prepared::Prepared;
use super::records::record_bytes;
use super::schedule::{Policy, Schedule};
use super::script::{Count, Snapshots};
use super::source::Source;
use super::training::Training;
use crate::error::{Error, Result};
use crate::plan::Bound;

/// What plans are made for.
pub(super) struct Planner<'a, 'f> {
    pub(super) training: &'a Training<'f>,
    pub(super) prepared: &'a Prepared,
    pub(super) horizon: &'a Horizon,
    /// Bytes of a state.
    pub(super) state: usize,
    /// Bytes of what is there under any schedule: all but an arena and what is kept between the sweeps.
    pub(super) fixed: usize,
}

/// The plans that depend on the number of segments.
pub(super) struct StepPlans {
    pub(super) segments: usize,
    pub(super) step: PlannedStep,
    pub(super) outer: Bound<Source>,
    pub(super) clip: Option<Bound<Source>>,
}

/// `auto` takes at most 1/`AUTO_SHARE` of the free memory. The rest is left for values, other programs, and
/// what is allocated later.
const AUTO_SHARE: usize = 2;

/// The most segments that are tried for a budget.
const MOST_SEGMENTS: usize = 64;

impl Planner<'_, '_> {
    /// The schedule that was asked for, or what is chosen for it, and its plans.
    pub(super) fn choose(&self) -> Result<(Schedule, StepPlans)> {
        let Horizon {
            steps,
            policy,
            segments,
            ..
        } = *self.horizon;
        let schedule = match (policy, self.horizon.free_bytes) {
            (Policy::Budget(bytes), _) => return self.budgeted(bytes),
            (Policy::Auto, Some(free)) => return self.fastest(free / AUTO_SHARE),
            (Policy::Auto, None) | (Policy::Lean, _) => {
                let both = self.both(segments)?;
                let (_, _, schedule) = budget::balance(&self.families(&both), steps);
                return Ok((schedule, settled(schedule, both)));
            }
            (Policy::Window(_), _) => Schedule::per_step(),
            (Policy::Fixed(schedule), _) => schedule,
        };
        let keep = match schedule.snapshots {
            Snapshots::Never { .. } => Keep::Buffers,
            _ if schedule.kept >= steps => Keep::Activations { always: true },
            _ if schedule.kept > 0 => Keep::Activations { always: false },
            _ => Keep::Nothing,
        };
        Ok((schedule, self.plan(keep, schedule.prelude, segments)?))
    }

    fn plan(&self, keep: Keep, prelude: bool, segments: usize) -> Result<StepPlans> {
        let manner = Manner {
            steps: self.horizon.steps,
            segments,
            mode: self.horizon.mode,
            keep,
            prelude,
        };
        let step = PlannedStep::new(self.training, self.prepared, manner)?;
        let within = (segments, step.reverse.plan().arena_bytes());
        let clip = self.horizon.clip.map(|norm| plan_clip(self.training, norm));
        Ok(StepPlans {
            segments,
            step,
            outer: plan_outer(self.training, self.prepared, within)?,
            clip: clip.transpose()?,
        })
    }

    /// Plans without activations kept, and with them; for schedules with preludes kept and for those without.
    fn both(&self, segments: usize) -> Result<[StepPlans; 2]> {
        let [plain, keeping] = [Keep::Nothing, Keep::Activations { always: false }];
        Ok([
            self.plan(plain, true, segments)?,
            self.plan(keeping, true, segments)?,
        ])
    }

    /// What schedules with these plans are made of.
    fn families(&self, both: &[StepPlans; 2]) -> Vec<Family> {
        let mut families = Vec::new();
        for (plans, keep) in both.iter().zip([false, true]) {
            for prelude in [false, true] {
                if plans.step.prelude.is_some() || !prelude {
                    families.push(Family {
                        keep,
                        prelude,
                        cost: self.cost(plans, prelude),
                    });
                }
            }
        }
        families
    }

    /// What a schedule with these plans is made of.
    pub(super) fn cost(&self, plans: &StepPlans, prelude: bool) -> Cost {
        let step = &plans.step;
        let kept = step.prelude.as_ref().filter(|_| prelude);
        let advance = flops(step.advance.as_ref());
        Cost {
            bytes: self
                .fixed
                .saturating_add(plans.arena_bytes(self.prepared, prelude)),
            state: self.state,
            kept: record_bytes(&step.kept_specs),
            prelude: kept.map_or(0, |kept| record_bytes(&kept.specs)),
            advance,
            keeping: kept.map_or(advance, |kept| kept.keeping.plan().flops()),
            given: kept.map_or(advance, |kept| kept.given.plan().flops()),
            reverse: step
                .reverse
                .plan()
                .flops()
                .saturating_add(flops(step.kept.as_ref()))
                .saturating_add(flops(plans.clip.as_ref())),
            outer: (self.horizon.outer_steps.len() as u64)
                .saturating_mul(plans.outer.plan().flops()),
        }
    }

    /// The schedule with the least work within `room` bytes, or, where none fits, nearly the leanest.
    fn fastest(&self, room: usize) -> Result<(Schedule, StepPlans)> {
        // Nothing takes less work than storing everything: where that fits, no more is planned.
        let (keep, prelude) = (true, false);
        let plans = self.plan(
            Keep::Activations { always: true },
            prelude,
            self.horizon.segments,
        )?;
        let cost = self.cost(&plans, prelude);
        let family = Family {
            keep,
            prelude,
            cost,
        };
        let (_, bytes, schedule) = family.store_all(self.horizon.steps);
        if bytes <= room {
            return Ok((schedule, plans));
        }
        let (best, least) = self.within(room)?;
        let best = match best {
            None => self.within(budget::nearly(least))?.0,
            some => some,
        };
        Ok(best.expect("the leanest fits into its own bytes"))
    }

    /// The schedule with the least work within a budget, and its plans.
    fn budgeted(&self, budget: usize) -> Result<(Schedule, StepPlans)> {
        let (best, least) = self.within(budget)?;
        let steps = self.horizon.steps;
        best.ok_or_else(|| {
            Error::Setting(format!(
                "a budget of {budget} bytes is too small for {steps} inner steps: the least is {least} bytes"
            ))
        })
    }

    /// The schedule with the least work within a budget, if any fits, with its plans; and the least budget
    /// that would do. The number of segments is doubled as long as that saves memory, and either nothing
    /// fits or what fits advances steps more than once.
    fn within(&self, budget: usize) -> Result<(Option<(Schedule, StepPlans)>, usize)> {
        let steps = self.horizon.steps;
        let mut best: Option<(Candidate, StepPlans)> = None;
        let (mut segments, mut least) = (self.horizon.segments.max(1), usize::MAX);
        loop {
            let both = self.both(segments)?;
            let families = self.families(&both);
            let leanest = budget::least(&families, steps);
            let leaner = leanest < least;
            least = least.min(leanest);
            if let Some(found) = budget::choose(&families, steps, budget)
                && best.as_ref().is_none_or(|(best, _)| found.0 < best.0)
            {
                best = Some((found, settled(found.2, both)));
            }
            let repeats = |(found, _): &(Candidate, StepPlans)| {
                found.2.script(steps, steps).count().evaluations > 2 * steps as u64
            };
            let enough = best.as_ref().is_some_and(|best| !repeats(best));
            if enough || !leaner || segments >= MOST_SEGMENTS {
                let best = best.map(|((_, _, schedule), plans)| (schedule, plans));
                return Ok((best, least));
            }
            segments *= 2;
        }
    }
}

/// The plans of a schedule, out of those without and those with activations kept.
fn settled(schedule: Schedule, [plain, keeping]: [StepPlans; 2]) -> StepPlans {
    let mut plans = if schedule.kept > 0 { keeping } else { plain };
    if !schedule.prelude {
        plans.step.prelude = None;
    }
    plans
}

impl StepPlans {
    /// The arena that is large enough for every plan; with those for preludes that are kept, or without.
    pub(super) fn arena_bytes(&self, prepared: &Prepared, prelude: bool) -> usize {
        let step = &self.step;
        let optional = [
            &prepared.prepare,
            &prepared.unprepare,
            &step.advance,
            &step.kept,
            &step.undo,
        ];
        let prelude = step.prelude.as_ref().filter(|_| prelude);
        optional
            .into_iter()
            .chain([&self.clip])
            .flatten()
            .chain(
                prelude
                    .iter()
                    .flat_map(|prelude| [&prelude.keeping, &prelude.given]),
            )
            .chain([&step.reverse, &self.outer])
            .map(|bound| bound.plan().arena_bytes())
            .max()
            .unwrap_or(0)
    }

    /// The work of everything but what is prepared.
    pub(super) fn work(&self, count: &Count, cost: &Cost) -> u64 {
        let Some(undo) = &self.step.undo else {
            return cost.work(count);
        };
        // All steps but the first are undone, which is reversed from the start as it is given.
        let kept = flops(self.step.kept.as_ref());
        let undone = [undo.plan().flops(), kept, flops(self.clip.as_ref())];
        let undone = undone.into_iter().fold(0, u64::saturating_add);
        let advance = if self.step.kept.is_some() {
            0
        } else {
            cost.advance
        };
        let [advances, undone] = [(count.advances, advance), (count.reversals - 1, undone)]
            .map(|(runs, work)| runs.saturating_mul(work));
        [advances, undone, cost.reverse, cost.outer]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}

/// The work of a plan, if there is one.
fn flops(bound: Option<&Bound<Source>>) -> u64 {
    bound.map_or(0, |bound| bound.plan().flops())
}
