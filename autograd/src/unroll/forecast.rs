//! What a meta-gradient takes, known before any memory is.

use super::choice::{Planner, StepPlans};
use super::horizon::Horizon;
use super::inner::PlannedStep;
use super::plans::{Bound, Prepared};
use super::records::record_bytes;
use super::schedule::Schedule;
use super::script::{Count, Script};
use super::stash::{stash_ports, stash_words};
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
    /// Bytes of the states, activations, results of preludes and bits kept between the sweeps.
    pub snapshot_bytes: usize,
    /// Bytes of snapshots in the host's memory, those on their way to the disk or back among them.
    pub host_bytes: usize,
    /// Bytes of snapshots on disk.
    pub disk_bytes: usize,
    /// Evaluations of an inner step and its gradient: in the forward sweep, again to reach a state that was
    /// not kept, and again within a step's own reversal where no activations are kept. Times 3 F (2 F within a
    /// reversal, where the weights' gradient is not needed), and 6 F for every reversal, this is the work; with
    /// that of preludes.
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
    /// `prepare`, `inner step`, `inner step, prelude kept`, `inner step, prelude given`, `inner step, kept`,
    /// `backward`, `outer loss` or `unprepare`.
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
        let fixed = record_bytes(&cotangent_ports)
            + 2 * record_bytes(&shared.own)
            + record_bytes(&training.shared)
            + rows.saturating_mul(record_bytes(&row_ports))
            + steps.saturating_mul(record_bytes(&hyper_ports))
            + (steps + horizon.outer_steps.len()) * record_bytes(&loss_ports);
        let planner = Planner {
            training,
            shared: &shared,
            horizon: &horizon,
            state,
            fixed,
        };
        let (mut schedule, plans) = planner.choose()?;
        if plans.step.prelude.is_none() {
            schedule = schedule.without_prelude();
        }
        let script = schedule.script(steps).expect("it says what is kept");
        let script = Script {
            away: horizon.away.count(),
            ..script
        };
        let count = script.count();
        let cost = planner.cost(&plans, script.prelude);
        let [host_bytes, disk_bytes] = horizon.away.bytes(count.away, state);
        let stash = stash_words(schedule, steps).saturating_mul(record_bytes(&stash_ports));
        let snapshot_bytes = cost.between_sweeps(&count).saturating_add(stash);
        let once = [&shared.prepare, &shared.unprepare].into_iter().flatten();
        let once: u64 = once.map(|bound| bound.plan.flops()).sum();
        let forecast = Forecast {
            bytes: cost.bytes.saturating_add(snapshot_bytes),
            arena_bytes: plans.arena_bytes(&shared, script.prelude),
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
            given,
            preludes,
            ..
        } = self.count;
        // Where activations are kept, every step that is reversed was advanced once with those.
        let keeping = self.step.kept.as_ref().map_or(0, |_| reversals);
        // Steps that are undone are not reversed from their starts, but for the first.
        let undone = self.step.undo.as_ref().map_or(0, |_| reversals - 1);
        let outer = self.horizon.outer_steps.len() as u64;
        let (shared, step) = (&self.shared, &self.step);
        let prelude = step.prelude.as_ref();
        let preludes = preludes as u64;
        let plain = advances - keeping - preludes - given;
        let all = [
            ("prepare", shared.prepare.as_ref(), 1),
            ("inner step", Some(&step.advance), plain),
            (
                "inner step, prelude kept",
                prelude.map(|p| &p.keeping),
                preludes,
            ),
            (
                "inner step, prelude given",
                prelude.map(|p| &p.given),
                given,
            ),
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
