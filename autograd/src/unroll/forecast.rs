//! What a meta-gradient takes, known before any memory is.

use super::budget::{Candidate, Cost, Costs};
use super::horizon::Horizon;
use super::plans::{Bound, Manner, PlannedStep, Prepared, plan_clip, plan_outer};
use super::records::record_bytes;
use super::schedule::Schedule;
use super::script::{Count, Script};
use super::stash::{stash_ports, stash_words};
use super::step::Training;
use crate::error::{Error, Result};
use crate::plan::{Plan, Port};
use std::fmt;

/// What a meta-gradient will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Bytes of all buffers that the driver holds, its arena included; the caller's arrays are not.
    pub bytes: usize,
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// Bytes of the states, activations and bits kept between the sweeps.
    pub snapshot_bytes: usize,
    /// Bytes of snapshots in the host's memory, those on their way to the disk or back among them.
    pub host_bytes: usize,
    /// Bytes of snapshots on disk.
    pub disk_bytes: usize,
    /// Evaluations of an inner step and its gradient: in the forward sweep, again to reach a state that was
    /// not kept, and again within a step's own reversal where no activations are kept. Times 3 F (2 F within a
    /// reversal, where the weights' gradient is not needed), and 6 F for every reversal, this is the work.
    pub evaluations: u64,
    /// Floating-point operations.
    pub flops: u64,
}

impl Forecast {
    /// What [`Unroll`](crate::Unroll) with these settings would take. Takes no memory of a device.
    pub fn new(training: &Training<'_>, horizon: &Horizon) -> Result<Self> {
        Ok(Planned::new(training, horizon)?.forecast)
    }
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{:.1} MiB (arena {:.1}, snapshots {:.1}), {} step evaluations, {:.2} GFLOP",
            mib(self.bytes),
            mib(self.arena_bytes),
            mib(self.snapshot_bytes),
            self.evaluations,
            self.flops as f64 / 1e9
        )?;
        if self.host_bytes + self.disk_bytes > 0 {
            let (host, disk) = (mib(self.host_bytes), mib(self.disk_bytes));
            write!(
                f,
                "; snapshots away: {host:.1} MiB in host memory, {disk:.1} MiB on disk"
            )?;
        }
        Ok(())
    }
}

/// A plan of an unrolled training, and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Phase<'a> {
    /// `prepare`, `inner step`, `inner step, kept`, `backward`, `outer loss` or `unprepare`.
    pub name: &'static str,
    /// The plan.
    pub plan: &'a Plan,
    /// How often a meta-gradient runs it.
    pub runs: u64,
}

/// An unrolled training, planned, without its memory.
///
/// ```
/// # use autograd::{Horizon, Planned, Training};
/// # fn tell(training: &Training<'_>) -> autograd::Result<()> {
/// let planned = Planned::new(training, &Horizon::new(32))?;
/// println!("{}", planned.forecast());
/// for phase in planned.phases() {
///     println!("{} times {}\n{}", phase.runs, phase.name, phase.plan);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Planned {
    /// With what is kept; never a budget, but what was chosen for it.
    pub(super) horizon: Horizon,
    pub(super) script: Script,
    /// Records of state and of activations that the script works with.
    pub(super) count: Count,
    pub(super) shared: Prepared,
    pub(super) step: PlannedStep,
    pub(super) outer: Bound,
    pub(super) clip: Option<Bound>,
    /// The arrays of a loss, of a state, of the shared arrays, of a row and of a step's hyper-parameters.
    pub(super) loss_ports: Vec<Port>,
    pub(super) state_ports: Vec<Port>,
    pub(super) cotangent_ports: Vec<Port>,
    pub(super) stash_ports: Vec<Port>,
    pub(super) shared_ports: Vec<Port>,
    pub(super) row_ports: Vec<Port>,
    pub(super) hyper_ports: Vec<Port>,
    pub(super) forecast: Forecast,
}

impl Planned {
    /// Plans the training as far as the horizon. Takes no memory of a device.
    pub fn new(training: &Training<'_>, horizon: &Horizon) -> Result<Self> {
        let horizon = horizon.checked()?;
        let (steps, rows) = (horizon.steps, horizon.rows);
        let shared = Prepared::record(training)?;
        let loss_ports = vec![Port {
            name: "loss".into(),
            dtype: training.theta[0].dtype,
            shape: [0usize; 0].into(),
        }];
        let (state_ports, row_ports) = (training.start_ports(), training.row_ports());
        let hyper_ports = training.hyper_ports();
        let cotangent_ports = training.state_ports().cotangents();
        let stash_ports = stash_ports(&training.theta);
        let state = record_bytes(&state_ports);
        // The cotangent; gradients and losses; what is prepared, and its gradient.
        let gradients = record_bytes(&cotangent_ports)
            + 2 * record_bytes(&shared.own)
            + record_bytes(&training.shared)
            + rows.saturating_mul(record_bytes(&row_ports))
            + steps.saturating_mul(record_bytes(&hyper_ports))
            + (steps + horizon.outer_steps.len()) * record_bytes(&loss_ports);
        let fixed = |plans: &StepPlans| gradients + plans.arena_bytes(&shared);
        let plan = |keep, segments| StepPlans::new(training, &shared, &horizon, keep, segments);

        let (schedule, plans) = match horizon.schedule {
            Schedule::Budget(bytes) => budgeted(&horizon, bytes, state, fixed, plan)?,
            Schedule::Auto => balanced(&horizon, state, fixed, plan)?,
            schedule => {
                let script = schedule.script(steps).expect("it says what is kept");
                (schedule, plan(script.kept > 0, horizon.segments)?)
            }
        };

        let script = Script {
            away: horizon.away.count(),
            ..schedule.script(steps).expect("it says what is kept")
        };
        let count = script.count();
        let [host_bytes, disk_bytes] = horizon.away.bytes(count.away, state);
        let kept_bytes = record_bytes(&plans.step.kept_ports);
        let stash = stash_words(schedule, steps).saturating_mul(record_bytes(&stash_ports));
        let snapshot_bytes = count
            .kept
            .saturating_mul(kept_bytes)
            .saturating_add(count.states.saturating_mul(state))
            .saturating_add(stash);
        let cost = plans.cost(&horizon, fixed(&plans));
        let once = [&shared.prepare, &shared.unprepare].into_iter().flatten();
        let once: u64 = once.map(|bound| bound.plan.flops()).sum();
        let forecast = Forecast {
            bytes: cost.bytes.saturating_add(snapshot_bytes),
            arena_bytes: plans.arena_bytes(&shared),
            snapshot_bytes,
            host_bytes,
            disk_bytes,
            evaluations: count.evaluations,
            flops: once + plans.work(&count, &cost),
        };
        let StepPlans {
            segments,
            step,
            outer,
            clip,
        } = plans;
        Ok(Self {
            horizon: horizon.schedule(schedule).segments(segments),
            script,
            count,
            shared,
            step,
            outer,
            clip,
            loss_ports,
            state_ports,
            cotangent_ports,
            stash_ports,
            shared_ports: training.shared.clone(),
            row_ports,
            hyper_ports,
            forecast,
        })
    }
}

impl Planned {
    /// What a meta-gradient takes.
    pub fn forecast(&self) -> Forecast {
        self.forecast
    }

    /// What is kept between the sweeps; for a budget, what was chosen for it.
    pub fn schedule(&self) -> Schedule {
        self.horizon.schedule
    }

    /// The plans, with what each is for and how often it runs.
    pub fn phases(&self) -> Vec<Phase<'_>> {
        let Count {
            advances,
            reversals,
            ..
        } = self.count;
        // Where activations are kept, every step that is reversed was advanced once with those.
        let keeping = self.step.kept.as_ref().map_or(0, |_| reversals);
        // Steps that are undone are not reversed from their starts, but for the first.
        let undone = self.step.undo.as_ref().map_or(0, |_| reversals - 1);
        let outer = self.horizon.outer_steps.len() as u64;
        let (shared, step) = (&self.shared, &self.step);
        let all = [
            ("prepare", shared.prepare.as_ref(), 1),
            ("inner step", Some(&step.advance), advances - keeping),
            ("inner step, kept", step.kept.as_ref(), keeping),
            ("backward", Some(&step.reverse), reversals - undone),
            ("backward, undoing", step.undo.as_ref(), undone),
            ("clip", self.clip.as_ref(), reversals),
            ("outer loss", Some(&self.outer), outer),
            ("unprepare", shared.unprepare.as_ref(), 1),
        ];
        let used = all.into_iter().filter(|&(_, _, runs)| runs > 0);
        used.filter_map(|(name, bound, runs)| {
            let plan = &bound?.plan;
            Some(Phase { name, plan, runs })
        })
        .collect()
    }
}

/// The plans that depend on the number of segments.
struct StepPlans {
    segments: usize,
    step: PlannedStep,
    outer: Bound,
    clip: Option<Bound>,
}

impl StepPlans {
    fn new(
        training: &Training<'_>,
        shared: &Prepared,
        horizon: &Horizon,
        keep: bool,
        segments: usize,
    ) -> Result<Self> {
        let manner = Manner {
            turns: horizon.rows < horizon.steps,
            segments,
            mode: horizon.mode,
        };
        let step = if matches!(horizon.schedule, Schedule::Reversible(_)) {
            PlannedStep::undoing(training, shared, manner)?
        } else {
            PlannedStep::new(training, shared, keep, manner)?
        };
        let within = (segments, step.reverse.plan.arena_bytes());
        let clip = horizon.clip.map(|norm| plan_clip(training, norm));
        Ok(Self {
            segments,
            step,
            outer: plan_outer(training, within)?,
            clip: clip.transpose()?,
        })
    }

    /// The arena that is large enough for every plan.
    fn arena_bytes(&self, shared: &Prepared) -> usize {
        let step = &self.step;
        let optional = [&shared.prepare, &shared.unprepare, &step.kept, &step.undo];
        optional
            .into_iter()
            .chain([&self.clip])
            .flatten()
            .chain([&step.advance, &step.reverse, &self.outer])
            .map(|bound| bound.plan.arena_bytes())
            .max()
            .unwrap_or(0)
    }

    fn cost(&self, horizon: &Horizon, bytes: usize) -> Cost {
        let step = &self.step;
        Cost {
            bytes,
            advance: step.advance.plan.flops(),
            reverse: step.reverse.plan.flops()
                + flops(step.kept.as_ref())
                + flops(self.clip.as_ref()),
            outer: horizon.outer_steps.len() as u64 * self.outer.plan.flops(),
        }
    }

    /// The work of everything but what is prepared.
    fn work(&self, count: &Count, cost: &Cost) -> u64 {
        if self.step.undo.is_some() {
            // All steps but the first are undone, which is reversed from the start as it is given.
            let undone = flops(self.step.undo.as_ref())
                + flops(self.step.kept.as_ref())
                + flops(self.clip.as_ref());
            let advance = if self.step.kept.is_some() {
                0
            } else {
                cost.advance
            };
            return count.advances * advance
                + (count.reversals - 1) * undone
                + cost.reverse
                + cost.outer;
        }
        let alone = count.advances - if count.kept > 0 { count.reversals } else { 0 };
        alone * cost.advance + count.reversals * cost.reverse + cost.outer
    }
}

/// The work of a plan, if there is one.
fn flops(bound: Option<&Bound>) -> u64 {
    bound.map_or(0, |bound| bound.plan.flops())
}

/// What schedules with these plans, without activations kept and with them, are made of.
fn costs(
    horizon: &Horizon,
    state: usize,
    fixed: impl Fn(&StepPlans) -> usize,
    [plain, keeping]: [&StepPlans; 2],
) -> Costs {
    Costs {
        plain: plain.cost(horizon, fixed(plain)),
        keeping: keeping.cost(horizon, fixed(keeping)),
        state,
        kept: record_bytes(&keeping.step.kept_ports),
    }
}

/// The schedule that balances work and memory, and its plans.
fn balanced(
    horizon: &Horizon,
    state: usize,
    fixed: impl Fn(&StepPlans) -> usize,
    plan: impl Fn(bool, usize) -> Result<StepPlans>,
) -> Result<(Schedule, StepPlans)> {
    let both = [
        plan(false, horizon.segments)?,
        plan(true, horizon.segments)?,
    ];
    let [plain, keeping] = &both;
    let (_, _, schedule) = costs(horizon, state, fixed, [plain, keeping]).balance(horizon.steps);
    let script = schedule.script(horizon.steps);
    let keep = script.is_some_and(|script| script.kept > 0);
    let [plain, keeping] = both;
    Ok((schedule, if keep { keeping } else { plain }))
}

/// The most segments that are tried for a budget.
const MOST_SEGMENTS: usize = 64;

/// The schedule with the least work within a budget, and its plans. More and more segments are tried as long as
/// they save memory, and nothing fits or what fits advances steps more than once to save it.
fn budgeted(
    horizon: &Horizon,
    budget: usize,
    state: usize,
    fixed: impl Fn(&StepPlans) -> usize,
    plan: impl Fn(bool, usize) -> Result<StepPlans>,
) -> Result<(Schedule, StepPlans)> {
    let steps = horizon.steps;
    let mut best: Option<(Candidate, StepPlans)> = None;
    let (mut segments, mut least) = (horizon.segments.max(1), usize::MAX);
    loop {
        let (plain, keeping) = (plan(false, segments)?, plan(true, segments)?);
        let costs = costs(horizon, state, &fixed, [&plain, &keeping]);
        let leaner = costs.least(steps) < least;
        least = least.min(costs.least(steps));
        if let Some(found) = costs.choose(steps, budget)
            && best.as_ref().is_none_or(|(best, _)| found.0 < best.0)
        {
            let kept = found.2.script(steps).is_some_and(|script| script.kept > 0);
            best = Some((found, if kept { keeping } else { plain }));
        }
        let repeats = |(found, _): &(Candidate, StepPlans)| {
            let script = found.2.script(steps);
            script.is_some_and(|script| script.count().evaluations > 2 * steps as u64)
        };
        let enough = best.as_ref().is_some_and(|best| !repeats(best));
        if enough || !leaner || segments >= MOST_SEGMENTS {
            break;
        }
        segments *= 2;
    }
    let (found, plans) = best.ok_or_else(|| {
        Error::Setting(format!(
            "a budget of {budget} bytes is too small for {steps} inner steps: the least is {least} bytes"
        ))
    })?;
    Ok((found.2, plans))
}
