//! What a meta-gradient takes, known before any memory is allocated.

use super::choice::{Planner, StepPlans};
use super::horizon::Horizon;
use super::inner::PlannedStep;
use super::memory::loss_spec;
use super::prepared::Prepared;
use super::records::record_bytes;
use super::schedule::{Policy, Schedule};
use super::script::{Count, Script, Snapshots};
use super::source::Source;
use super::stash::{stash_specs, stash_words};
use super::training::Training;
use crate::error::{Error, Result};
use crate::plan::{Bound, Plan};
use crate::spec::ArraySpec;
use kernels::Device;
use std::fmt;
use std::sync::Arc;

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
    /// not kept, and again within a step's own reversal where no activations are kept. The work is 3 F for
    /// each (2 F within a reversal, where the weights' gradient is not needed), 6 F for every reversal, and
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
        write!(
            f,
            "{} (arena {}, snapshots {}), {} step evaluations, {}",
            Size(self.bytes),
            Size(self.arena_bytes),
            Size(self.snapshot_bytes),
            self.evaluations,
            Work(self.flops)
        )?;
        if self.host_bytes + self.disk_bytes > 0 {
            let (host, disk) = (Size(self.host_bytes), Size(self.disk_bytes));
            write!(f, "; snapshots away: {host} in host memory, {disk} on disk")?;
        }
        Ok(())
    }
}

/// Bytes as people read them.
struct Size(usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        match self.0 {
            0..0x400 => write!(f, "{} B", self.0),
            0x400..0x10_0000 => write!(f, "{:.1} KiB", bytes / 1024.0),
            _ => write!(f, "{:.1} MiB", bytes / f64::from(1 << 20)),
        }
    }
}

/// Floating-point operations as people read them.
struct Work(u64);

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flops = self.0 as f64;
        match self.0 {
            0..1_000 => write!(f, "{} FLOP", self.0),
            1_000..1_000_000 => write!(f, "{:.2} kFLOP", flops / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.2} MFLOP", flops / 1e6),
            _ => write!(f, "{:.2} GFLOP", flops / 1e9),
        }
    }
}

/// A plan of an unrolled training, and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Phase<'a> {
    /// `prepare`, `inner step`, `inner step, prelude kept`, `inner step, prelude given`,
    /// `inner step, kept`, `backward`, `backward, undoing`, `clip`, `outer loss` or `unprepare`.
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
/// # fn print(training: &Training<'_>) -> autograd::Result<()> {
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
    pub(super) horizon: Horizon,
    pub(super) schedule: Schedule,
    pub(super) script: Script,
    /// Records of state and of activations that the script works with.
    pub(super) count: Count,
    pub(super) prepared: Arc<Prepared>,
    pub(super) step: PlannedStep,
    pub(super) outer: Bound<Source>,
    pub(super) clip: Option<Bound<Source>>,
    pub(super) state_specs: Vec<ArraySpec>,
    pub(super) cotangent_specs: Vec<ArraySpec>,
    pub(super) stash_specs: Vec<ArraySpec>,
    /// The array of momenta, for steps that are undone.
    pub(super) momentum: Option<usize>,
    pub(super) forecast: Forecast,
}

impl Planned {
    /// Plans the training as far as the horizon. Takes no memory of a device.
    pub fn new(training: &Training<'_>, horizon: &Horizon) -> Result<Self> {
        horizon.check()?;
        training.check()?;
        let (steps, outer) = (horizon.steps, horizon.outer_steps.len());
        let prepared = Prepared::record(training, steps)?;
        let layout = training.state_specs();
        let cotangent_specs = layout.cotangents();
        let state_specs = layout.specs;
        let stash_specs = stash_specs(&training.weights);
        let state = record_bytes(&state_specs);
        let losses = record_bytes(&[loss_spec(&state_specs)]).saturating_mul(steps + outer);
        let learned = prepared.learned.iter().map(ArraySpec::bytes);
        let learned = learned.fold(0, usize::saturating_add);
        let fixed = record_bytes(&cotangent_specs)
            .saturating_add(record_bytes(&prepared.own))
            .saturating_add(record_bytes(&prepared.own_gradients))
            .saturating_add(learned)
            .saturating_add(losses);
        let planner = Planner {
            training,
            prepared: &prepared,
            horizon,
            state,
            fixed,
        };
        let (mut schedule, plans) = planner.choose()?;
        if plans.step.prelude.is_none() {
            schedule = schedule.without_prelude();
        }
        let window = match horizon.policy {
            Policy::Window(steps) => steps,
            _ => steps,
        };
        let script = Script {
            away: horizon.away.count(),
            ..schedule.script(steps, window)
        };
        let count = script.count();
        let cost = planner.cost(&plans, script.prelude);
        let [host_bytes, disk_bytes] = horizon.away.bytes(count.away, state);
        let stash = stash_words(schedule, steps).saturating_mul(record_bytes(&stash_specs));
        let snapshot_bytes = cost.between_sweeps(&count).saturating_add(stash);
        let once = [&prepared.prepare, &prepared.unprepare]
            .into_iter()
            .flatten();
        let once = once.map(|bound| bound.plan().flops());
        let once = once.fold(0, u64::saturating_add);
        let forecast = Forecast {
            bytes: cost.bytes.saturating_add(snapshot_bytes),
            arena_bytes: plans.arena_bytes(&prepared, script.prelude),
            snapshot_bytes,
            host_bytes,
            disk_bytes,
            evaluations: count.evaluations,
            flops: once.saturating_add(plans.work(&count, &cost)),
        };
        let StepPlans {
            segments,
            step,
            outer,
            clip,
        } = plans;
        Ok(Self {
            horizon: horizon.clone().segments(segments),
            momentum: momentum(training, &prepared, schedule)?,
            schedule,
            script,
            count,
            prepared: Arc::new(prepared),
            step,
            outer,
            clip,
            state_specs,
            cotangent_specs,
            stash_specs,
            forecast,
        })
    }
}

/// The array that says the momentum of every step, where steps are to be undone.
fn momentum(
    training: &Training<'_>,
    prepared: &Prepared,
    schedule: Schedule,
) -> Result<Option<usize>> {
    const NAME: &str = "momentum";
    if !matches!(schedule.snapshots, Snapshots::Never { .. }) {
        return Ok(None);
    }
    let by_weight = training.hyper.iter().any(|(name, _)| name == NAME);
    let found = prepared.find(NAME).filter(|_| !by_weight);
    let missing = || {
        let reason = "the schedule `reversible` needs an array `momentum`, with one number for every step or for all, \
                      and no `hyper` for it";
        Error::Setting(reason.into())
    };
    found.ok_or_else(missing).map(Some)
}

impl Planned {
    /// What a meta-gradient takes.
    pub fn forecast(&self) -> Forecast {
        self.forecast
    }

    /// The schedule; for a budget, `auto` or `lean`, the one that was chosen.
    pub fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// Makes the plans ready for a device. [`Unroll::of`](crate::Unroll::of) does so otherwise. Another
    /// thread may do it while the device works.
    ///
    /// # Errors
    /// If a plan does not suit the device.
    pub fn prepare(&self, device: &Device) -> Result<()> {
        let mut phases = self.phases().into_iter();
        phases.try_for_each(|phase| phase.plan.prepare(device))
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
        // All steps but the first are undone instead of being reversed from their starts.
        let undone = self.step.undo.as_ref().map_or(0, |_| reversals - 1);
        let outer = self.horizon.outer_steps.len() as u64;
        let (prepared, step) = (&self.prepared, &self.step);
        let prelude = step.prelude.as_ref();
        let preludes = preludes as u64;
        let plain = advances - keeping - preludes - given;
        let all = [
            ("prepare", prepared.prepare.as_ref(), 1),
            ("inner step", step.advance.as_ref(), plain),
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
            ("unprepare", prepared.unprepare.as_ref(), 1),
        ];
        let used = all.into_iter().filter(|&(_, _, runs)| runs > 0);
        used.filter_map(|(name, bound, runs)| {
            let plan = bound?.plan();
            Some(Phase { name, plan, runs })
        })
        .collect()
    }
}
