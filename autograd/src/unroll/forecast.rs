//! What a meta-gradient takes, known before any memory is.

use super::budget::{self, Costs};
use super::horizon::Horizon;
use super::plans::{Bound, PlannedStep, Prepared, plan_outer};
use super::records::record_bytes;
use super::schedule::Schedule;
use super::script::{Count, Script};
use super::step::Training;
use crate::error::Result;
use crate::plan::{Plan, Port};
use std::fmt;

/// What a meta-gradient will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Bytes of all buffers that the driver holds, its arena included; the caller's arrays are not.
    pub bytes: usize,
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// Bytes of the states and activations kept between the sweeps.
    pub snapshot_bytes: usize,
    /// Evaluations of an inner step and its gradient: in the forward sweep, again to reach a state that was
    /// not kept, and again within a step's own reversal where no activations are kept. Times 3 F, and 6 F
    /// for every step that is reversed, this is the work.
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
        )
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
    /// The arrays of a loss, of a state, of the shared arrays, of a row and of a step's hyper-parameters.
    pub(super) loss_ports: Vec<Port>,
    pub(super) state_ports: Vec<Port>,
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
        let outer_losses = horizon.outer_steps.len();
        let shared = Prepared::record(training)?;
        let outer = plan_outer(training)?;
        let loss_ports = vec![Port {
            name: "loss".into(),
            dtype: training.theta[0].dtype,
            shape: [0usize; 0].into(),
        }];
        let (state_ports, row_ports) = (training.start_ports(), training.row_ports());
        let hyper_ports = training.hyper_ports();
        let state = record_bytes(&state_ports);
        let arena = |step: &PlannedStep| arena_bytes(&shared, step, &outer);
        // Two cotangents; gradients and losses; what is prepared, and its gradient.
        let fixed = |step: &PlannedStep| {
            arena(step)
                + 2 * state
                + 2 * record_bytes(&shared.own)
                + record_bytes(&training.shared)
                + rows.saturating_mul(record_bytes(&row_ports))
                + steps.saturating_mul(record_bytes(&hyper_ports))
                + (steps + outer_losses) * record_bytes(&loss_ports)
        };
        let plan = |keep| PlannedStep::new(training, &shared, keep, rows < steps, horizon.mode);

        let (schedule, script, step) = if let Schedule::Budget(bytes) = horizon.schedule {
            let (plain, keeping) = (plan(false)?, plan(true)?);
            let costs = Costs {
                plain: fixed(&plain),
                keeping: fixed(&keeping),
                state,
                kept: record_bytes(&keeping.kept_ports),
            };
            let chosen = budget::choose(costs, steps, bytes)?;
            let script = chosen.script(steps).expect("not a budget again");
            (
                chosen,
                script,
                if script.kept > 0 { keeping } else { plain },
            )
        } else {
            let script = horizon.schedule.script(steps).expect("not a budget");
            (horizon.schedule, script, plan(script.kept > 0)?)
        };

        let count = script.count();
        let kept_bytes = count.kept.saturating_mul(record_bytes(&step.kept_ports));
        let snapshot_bytes = kept_bytes.saturating_add(count.states.saturating_mul(state));
        let forecast = Forecast {
            bytes: fixed(&step).saturating_add(snapshot_bytes),
            arena_bytes: arena(&step),
            snapshot_bytes,
            evaluations: count.evaluations,
            flops: flops(&shared, &step, &count) + outer_losses as u64 * outer.plan.flops(),
        };
        Ok(Self {
            horizon: horizon.schedule(schedule),
            script,
            count,
            shared,
            step,
            outer,
            loss_ports,
            state_ports,
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
        let outer = self.horizon.outer_steps.len() as u64;
        let (shared, step) = (&self.shared, &self.step);
        let all = [
            ("prepare", shared.prepare.as_ref(), 1),
            ("inner step", Some(&step.advance), advances - keeping),
            ("inner step, kept", step.kept.as_ref(), keeping),
            ("backward", Some(&step.reverse), reversals),
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

/// The arena that is large enough for every plan.
fn arena_bytes(shared: &Prepared, step: &PlannedStep, outer: &Bound) -> usize {
    [&shared.prepare, &shared.unprepare, &step.kept]
        .into_iter()
        .flatten()
        .chain([&step.advance, &step.reverse, outer])
        .map(|bound| bound.plan.arena_bytes())
        .max()
        .unwrap_or(0)
}

/// The work of everything but outer losses.
fn flops(shared: &Prepared, step: &PlannedStep, count: &Count) -> u64 {
    let once: u64 = [&shared.prepare, &shared.unprepare]
        .into_iter()
        .flatten()
        .map(|bound| bound.plan.flops())
        .sum();
    once + count.advances * step.advance.plan.flops() + count.reversals * step.reverse.plan.flops()
}
