//! What a meta-gradient takes, known before any memory is.

use super::budget::{self, Costs};
use super::horizon::Horizon;
use super::plans::{Bound, PlannedStep, Prepared, plan_clip, plan_outer};
use super::records::record_bytes;
use super::schedule::Schedule;
use super::script::{Count, Script, Snapshots};
use super::stash::{stash_ports, stash_words};
use super::step::Training;
use crate::error::Result;
use crate::plan::Port;
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

/// An unrolled training, planned, without its memory.
#[derive(Debug)]
pub(super) struct Planned {
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
    pub(super) fn new(training: &Training<'_>, horizon: &Horizon) -> Result<Self> {
        let horizon = horizon.checked()?;
        let (steps, rows) = (horizon.steps, horizon.rows);
        let outer_losses = horizon.outer_steps.len();
        let shared = Prepared::record(training)?;
        let outer = plan_outer(training)?;
        let clip = horizon.clip.map(|norm| plan_clip(training, norm));
        let clip = clip.transpose()?;
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
        let clip_arena = clip.as_ref().map_or(0, |bound| bound.plan.arena_bytes());
        let arena = |step: &PlannedStep| arena_bytes(&shared, step, &outer).max(clip_arena);
        // Two cotangents; gradients and losses; what is prepared, and its gradient.
        let fixed = |step: &PlannedStep| {
            arena(step)
                + 2 * record_bytes(&cotangent_ports)
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
            let step = if script.snapshots == Snapshots::Never {
                PlannedStep::undoing(training, &shared, rows < steps, horizon.mode)?
            } else {
                plan(script.kept > 0)?
            };
            (horizon.schedule, script, step)
        };

        let script = Script {
            away: horizon.away.count(),
            ..script
        };
        let count = script.count();
        let [host_bytes, disk_bytes] = horizon.away.bytes(count.away, state);
        let kept_bytes = count.kept.saturating_mul(record_bytes(&step.kept_ports));
        let stash = stash_words(schedule, steps).saturating_mul(record_bytes(&stash_ports));
        let snapshot_bytes = kept_bytes
            .saturating_add(count.states.saturating_mul(state))
            .saturating_add(stash);
        let forecast = Forecast {
            bytes: fixed(&step).saturating_add(snapshot_bytes),
            arena_bytes: arena(&step),
            snapshot_bytes,
            host_bytes,
            disk_bytes,
            evaluations: count.evaluations,
            flops: flops(&shared, &step, &count)
                + outer_losses as u64 * outer.plan.flops()
                + count.reversals * clip.as_ref().map_or(0, |bound| bound.plan.flops()),
        };
        Ok(Self {
            horizon: horizon.schedule(schedule),
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

/// The arena that is large enough for every plan.
fn arena_bytes(shared: &Prepared, step: &PlannedStep, outer: &Bound) -> usize {
    [&shared.prepare, &shared.unprepare, &step.kept, &step.undo]
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
    // A step that is undone is none that is reversed from its start: of those there is one.
    let undone = step
        .undo
        .as_ref()
        .map_or(0, |undo| (count.reversals - 1) * undo.plan.flops());
    let reversals = if step.undo.is_some() {
        1
    } else {
        count.reversals
    };
    once + count.advances * step.advance.plan.flops()
        + reversals * step.reverse.plan.flops()
        + undone
}
