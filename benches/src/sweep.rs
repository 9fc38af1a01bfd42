//! `benches sweep`: seconds and bytes of the meta-gradient over numbers of inner steps, for some schedules and
//! modes, as a table and as curves; beside other engines, whose programs it runs, or whose results it reads.

use crate::conditions::{Conditions, flag};
use crate::meta_grad::SetupArgs;
use crate::record::{Point, Record, RecordArgs, Subject, last_line, this_program};
use crate::{Problem, peers};
use autograd::{ArraySpec, Horizon, Planned, Policy};
use gtn::cli::Outcome;
use gtn::error::{Error, Result};
use gtn::run::config::ModeName;
use gtn::run::values::name_of;
use kernels::host_free_bytes;
use std::path::PathBuf;
use std::process::Command;

/// Settings of `benches sweep`.
#[derive(Clone, Debug, clap::Args)]
pub struct SweepArgs {
    /// What is trained on what
    #[command(flatten)]
    pub setup: SetupArgs,
    /// Numbers of inner steps T
    #[arg(long, value_name = "T,…", value_delimiter = ',', required = true, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub steps: Vec<u32>,
    /// Schedules to measure, as `benches meta-grad --schedule` takes them
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        default_value = "per-step,store-all"
    )]
    pub schedules: Vec<Policy>,
    /// How a step is differentiated
    #[arg(
        long,
        value_enum,
        value_name = "MODE,…",
        value_delimiter = ',',
        default_value = "mixed"
    )]
    pub modes: Vec<ModeName>,
    /// Where and how often
    #[command(flatten)]
    pub conditions: Conditions,
    /// Peers to run for every T in turn with ours: jax:MODE (naive, remat, sqrt, mixflow) or torch:MODE (naive,
    /// checkpoint, manual-hvp, manual-jvp, hand, hand-store) for a mode of a program in benches/peers, or another command
    /// that takes --setup, --data, --steps, --batch, --repeats, --threads and --json FILE, and writes one JSON object
    #[arg(long, value_name = "PEER,…", value_delimiter = ',')]
    pub beside: Vec<String>,
    /// What peers have written: a file of JSON lines, or a folder of *.jsonl
    #[arg(long, value_name = "PATH")]
    pub peers: Vec<PathBuf>,
    /// What becomes of it; NAME is set-up and data, and what else differs from the defaults (a-gen-at-once-4)
    #[command(flatten)]
    pub record: RecordArgs,
}

/// Measures all points, and writes them.
pub(super) fn run(args: &SweepArgs) -> Result<Outcome> {
    if !args.beside.is_empty() || !args.peers.is_empty() {
        args.setup.suit_peers()?;
    }
    // What `auto` takes decides whose memory is looked at.
    let on_host = args.conditions.machine.device()?.as_cpu().is_some();
    let earlier = peers::read(&args.peers, &args.setup)?;
    let mut record = Record::new(subject(&args.setup)?, &args.record)?;
    record.extend(earlier);
    for steps in args.steps.iter().map(|&steps| steps as usize) {
        for &mode in &args.modes {
            for &schedule in &args.schedules {
                let name = format!("gtn {schedule} {}, T = {steps}", name_of(&mode));
                record.take(&name, ours(args, steps, (mode, schedule), on_host))?;
            }
        }
        for words in &args.beside {
            let name = format!("{words}, T = {steps}");
            record.take(&name, peer(args, words, steps))?;
        }
    }
    record.finish(&args.conditions.machine)
}

fn subject(args: &SetupArgs) -> Result<Subject> {
    let (setup, data) = (args.setup.as_str(), args.data.name());
    let variant = args.variant()?;
    let first = |first: String| std::iter::once(first).chain(variant.iter().cloned());
    let name = first(format!("{}-{data}", setup.to_lowercase()));
    let title = first(format!("Set-up {setup}, {data}"));
    Ok(Subject {
        name: name.collect::<Vec<_>>().join("-"),
        title: title.collect::<Vec<_>>().join(", "),
        axis: ("steps", "inner steps T"),
        settings: args.to_json(),
    })
}

/// One point of this engine, in a process of its own.
fn ours(
    args: &SweepArgs,
    steps: usize,
    (mode, schedule): (ModeName, Policy),
    on_host: bool,
) -> Result<Point> {
    let problem = args.setup.problem(steps)?;
    if on_host {
        fits(&problem, mode, schedule)?;
    }
    let mut command = this_program()?;
    command.args(["meta-grad", "--json"]);
    args.setup.pass(&mut command);
    args.conditions.pass(&mut command);
    flag(&mut command, "--steps", &steps);
    flag(&mut command, "--schedule", &schedule);
    flag(&mut command, "--mode", &name_of(&mode));
    let found = last_line(&mut command)?;
    let names = [name_of(&mode), schedule.to_string()];
    let sizes = [("steps", steps), ("batch", problem.batch)].into();
    Ok(Point::ours(names, sizes, &found["threads"], &found))
}

/// One point of a peer.
fn peer(args: &SweepArgs, words: &str, steps: usize) -> Result<Point> {
    let setup = &args.setup;
    let batch = setup.problem(steps)?.batch;
    let pass = |command: &mut Command| {
        flag(command, "--setup", &setup.setup);
        flag(command, "--data", &setup.data.name());
        flag(command, "--steps", &steps);
        flag(command, "--batch", &batch);
        flag(command, "--dtype", &peers::float_name(setup.dtype));
        if setup.bn {
            command.arg("--bn");
        }
    };
    let sizes = [("steps", steps), ("batch", batch)].into();
    peers::run((words, "gtn"), &args.conditions, pass, sizes)
}

/// Refuses a measurement that needs more memory than the system has free: it would be killed, or swap.
fn fits(problem: &Problem, mode: ModeName, schedule: Policy) -> Result<()> {
    let free = host_free_bytes();
    let horizon = Horizon::new(problem.steps)
        .schedule(schedule)
        .free_bytes(free)
        .mode(mode.into());
    let training = problem.training();
    let taken = Planned::new(&training, &horizon)?.forecast().bytes as f64;
    let declared = training.learned_specs().chain(training.given_specs());
    // The values on the device, and the host's numbers that they are made from.
    let values = 3.0 * declared.map(ArraySpec::bytes).sum::<usize>() as f64;
    let free = free.map_or(f64::INFINITY, |free| free as f64);
    let gib = |bytes: f64| bytes / f64::from(1 << 30);
    let (wanted, free) = (gib(taken + values), gib(free));
    if wanted > free {
        let message = format!("it takes {wanted:.1} GiB, and {free:.1} are free");
        return Err(Error::engine(message));
    }
    Ok(())
}
