//! `benches plan`

use crate::subject::{Subject, SubjectArgs, any_values};
use autograd::{Peak, Phase, Planned, Policy, Schedule, TimedRun, Unroll};
use clap::Args;
use gtn::cli::{Outcome, say};
use gtn::error::{Error, Result};
use kernels::Device;
use serde::Serialize;
use std::collections::BTreeMap;
use tensor::Shape;

/// Settings of `benches plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    subject: SubjectArgs,
}

/// How many of the arrays alive at the peak are named.
const NAMED: usize = 3;

/// Inner steps of the short trainings that measure the phases.
const STEPS: usize = 3;

#[derive(Serialize)]
struct Report {
    command: &'static str,
    subject: String,
    device: String,
    threads: usize,
    schedule: String,
    bytes: usize,
    phases: Vec<PhasePlan>,
    schedules: Vec<Row>,
}

#[derive(Serialize)]
struct PhasePlan {
    phase: &'static str,
    runs: u64,
    launches: usize,
    flops: u64,
    bytes_moved: u64,
    arena_bytes: usize,
    least_bytes: usize,
    peak_launch: usize,
    held: Vec<Held>,
}

/// An array that is alive at the peak.
#[derive(Serialize)]
struct Held {
    launch: usize,
    kernel: &'static str,
    shape: Option<Vec<usize>>,
    bytes: usize,
}

/// What one schedule takes.
#[derive(Serialize)]
struct Row {
    schedule: String,
    /// The schedule that was chosen, if it was a budget, `auto` or `lean`.
    chosen: String,
    bytes: usize,
    evaluations: u64,
    flops: u64,
    seconds: f64,
}

pub(super) fn run(args: &PlanArgs) -> Result<Outcome> {
    let mut subject = args.subject.subject()?;
    let device = args.subject.machine.device()?;
    subject.horizon = subject.horizon.free_bytes(device.free_bytes());
    let (training, horizon) = (subject.training(), &subject.horizon);
    let asked = Planned::new(&training, horizon)?;
    let phases: Vec<PhasePlan> = asked.phases().iter().map(phase).collect();
    say(&format!(
        "{}, {}: {}",
        subject.name(),
        asked.schedule(),
        asked.forecast()
    ));
    show_phases(&phases);
    let schedules = table(&device, &subject, &asked)?;
    show_table(&schedules, &asked.schedule().to_string());
    args.subject.machine.print(&Report {
        command: "plan",
        subject: subject.name(),
        device: device.name().to_owned(),
        threads: device.threads(),
        schedule: asked.schedule().to_string(),
        bytes: asked.forecast().bytes,
        phases,
        schedules,
    })?;
    Ok(Outcome::Done)
}

fn phase(phase: &Phase<'_>) -> PhasePlan {
    let plan = phase.plan;
    let Peak { launch, held, .. } = plan.peak();
    let held = held.into_iter().map(|held| Held {
        launch: held.launch,
        kernel: held.kernel,
        shape: held.shape.as_deref().map(<[usize]>::to_vec),
        bytes: held.bytes,
    });
    PhasePlan {
        phase: phase.name,
        runs: phase.runs,
        launches: plan.launches(),
        flops: plan.flops(),
        bytes_moved: plan.bytes_moved(),
        arena_bytes: plan.arena_bytes(),
        least_bytes: plan.least_bytes(),
        peak_launch: launch,
        held: held.collect(),
    }
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn show_phases(phases: &[PhasePlan]) {
    say(
        "\nphase                        runs launches     GFLOP  GB moved  arena, least possible, MiB",
    );
    for phase in phases {
        say(&format!(
            "{:<26} {:>6} {:>8} {:>9.3} {:>9.3} {:>8.2} {:>8.2}",
            phase.phase,
            phase.runs,
            phase.launches,
            phase.flops as f64 / 1e9,
            phase.bytes_moved as f64 / 1e9,
            mib(phase.arena_bytes),
            mib(phase.least_bytes)
        ));
        let held = phase.held.iter().take(NAMED);
        let held: Vec<String> = held.map(Held::to_string).collect();
        if !held.is_empty() {
            say(&format!(
                "  at launch {}: {}",
                phase.peak_launch,
                held.join(", ")
            ));
        }
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kernel = self.kernel;
        let size = match mib(self.bytes) {
            size if size < 1.0 => format!("{:.1} KiB", 1024.0 * size),
            size => format!("{size:.1} MiB"),
        };
        match &self.shape {
            Some(shape) => write!(f, "{size} of {kernel} {}", Shape::from(&shape[..])),
            None => write!(f, "{size} of scratch for {kernel}"),
        }
    }
}

/// The schedules to choose from, and the one that was asked for.
fn candidates(steps: usize, asked: Policy) -> Vec<Policy> {
    let root = (steps as f64).sqrt().round() as usize;
    let mut all = vec![Schedule::store_all(), Schedule::per_step()];
    all.extend(
        [2, root]
            .into_iter()
            .filter(|k| (2..steps).contains(k))
            .map(Schedule::every),
    );
    all.extend(
        [16, 8, 4]
            .into_iter()
            .filter(|&c| c < steps)
            .map(Schedule::binomial)
            .flat_map(|schedule| [schedule, schedule.with_prelude()]),
    );
    let mut all: Vec<Policy> = all.into_iter().map(Policy::Fixed).collect();
    all.push(asked);
    let mut seen = Vec::new();
    all.retain(|schedule| {
        !seen.contains(schedule) && {
            seen.push(*schedule);
            true
        }
    });
    all
}

/// Three budgets between the least and the most memory, evenly spaced by logarithm and rounded.
fn budgets(least: usize, most: usize) -> Vec<Policy> {
    let ratio = most as f64 / least as f64;
    let budget = |quarter: i32| {
        let bytes = (least as f64 * ratio.powf(f64::from(quarter) / 4.0)) as usize;
        let unit = if bytes >> 24 > 0 { 20 } else { 10 };
        Policy::Budget((bytes >> unit << unit).max(least.next_multiple_of(1 << 10)))
    };
    (1..4).map(budget).collect()
}

fn table(device: &Device, subject: &Subject, asked: &Planned) -> Result<Vec<Row>> {
    let (training, horizon) = (subject.training(), &subject.horizon);
    let times = [
        measured(device, subject, false)?,
        measured(device, subject, true)?,
    ];
    let row = |policy: Policy| -> Result<Row> {
        let planned = Planned::new(&training, &horizon.clone().schedule(policy))?;
        let phases = planned.phases();
        let keeping = phases.iter().any(|phase| phase.name == KEPT);
        let time = |phase: &Phase<'_>| {
            let once = times[usize::from(keeping)].get(phase.name);
            let untimed = || Error::engine(format!("{} was not timed", phase.name));
            let once = once.ok_or_else(untimed)?;
            Ok(phase.runs as f64 * once)
        };
        let forecast = planned.forecast();
        Ok(Row {
            schedule: policy.to_string(),
            chosen: match policy {
                Policy::Window(_) => policy.to_string(),
                _ => planned.schedule().to_string(),
            },
            bytes: forecast.bytes,
            evaluations: forecast.evaluations,
            flops: forecast.flops,
            seconds: phases.iter().map(time).sum::<Result<f64>>()?,
        })
    };
    let asked = match horizon.policy() {
        window @ Policy::Window(_) => window,
        _ => asked.schedule().into(),
    };
    let fixed = candidates(horizon.steps(), asked).into_iter();
    let mut rows = fixed.map(row).collect::<Result<Vec<_>>>()?;
    // Drops schedules that planning changed: a training without a prelude cannot keep one.
    rows.retain(|row| row.chosen == row.schedule);
    let bytes = || rows.iter().map(|row| row.bytes);
    let (least, most) = (bytes().min().unwrap_or(0), bytes().max().unwrap_or(0));
    let choices = [Policy::Auto, Policy::Lean];
    for policy in choices.into_iter().chain(budgets(least, most)) {
        rows.push(row(policy)?);
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    Ok(rows)
}

fn show_table(rows: &[Row], asked: &str) {
    say("\nschedule                               MiB  evaluations      GFLOP    seconds");
    for row in rows {
        let mut name = row.schedule.clone();
        if row.chosen != row.schedule {
            name = format!("{name}: {}", row.chosen);
        }
        say(&format!(
            "{name:<32} {:>9.2} {:>12} {:>10.2} {:>10.4}{}",
            mib(row.bytes),
            row.evaluations,
            row.flops as f64 / 1e9,
            row.seconds,
            if row.schedule == asked {
                " <- asked for"
            } else {
                ""
            }
        ));
    }
    say("Bytes and work are exact; seconds are forecast from those of single phases, timed here.");
}

const KEPT: &str = "inner step, kept";

/// Seconds of one run of each phase: the least over a few short trainings, with activations kept or not.
fn measured(device: &Device, subject: &Subject, keep: bool) -> Result<BTreeMap<&'static str, f64>> {
    let training = subject.training();
    let schedule = if keep {
        // With this schedule every phase runs: the first step is advanced without activations, then from its
        // prelude, and then with activations.
        Schedule::binomial(1).with_activations(1).with_prelude()
    } else {
        Schedule::binomial(1).with_prelude()
    };
    let short = subject.short(STEPS).schedule(schedule);
    let values = any_values(device, &training)?;
    let mut unroll = Unroll::new(device, &training, &short)?;
    unroll.gradient(&values)?;
    let mut least: BTreeMap<&'static str, f64> = BTreeMap::new();
    for _ in 0..3 {
        let (_, runs) = unroll.timed_gradient(&values)?;
        for TimedRun { phase, time, .. } in runs {
            let known = least.entry(phase).or_insert(f64::INFINITY);
            *known = known.min(time.as_secs_f64());
        }
    }
    Ok(least)
}
