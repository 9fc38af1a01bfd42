//! The command line. Human text goes to standard error; with `--json` the last line of standard output
//! is one object for machines.

mod doctor;
mod eval;
mod pictures;
mod plan;
mod profile;
mod progress;
mod sample;
mod selftest;
mod stop;
mod subject;
mod train;

use crate::bench;
use crate::config::ConfigError;
use crate::data::{self, Dataset, DatasetChoice};
use crate::device::{DeviceChoice, PrecisionChoice, choose};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use kernels::Device;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use thiserror::Error;

/// Generative Teaching Networks: learn to make training data that teaches fresh networks in a few steps.
///
/// Without a command: train, with the settings that suit this machine.
#[derive(Debug, Parser)]
#[command(
    name = "gtn",
    version,
    args_conflicts_with_subcommands = true,
    args_override_self = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    train: train::TrainArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Meta-train a generator, then show whether it teaches (the default)
    Train(Box<train::TrainArgs>),
    /// Train fresh learners with a run's generator, and beside them with real data
    Eval(eval::EvalArgs),
    /// Draw a run's synthetic images by class and step
    Sample(sample::SampleArgs),
    /// Say what a meta-gradient will take, launch by launch and schedule by schedule
    Plan(Box<plan::PlanArgs>),
    /// Say where the time of a meta-gradient goes
    Profile(Box<profile::ProfileArgs>),
    /// Say what this machine has and what a run would use
    Doctor,
    /// Compare a device with the processor, from single operations to outer steps
    Selftest(selftest::SelftestArgs),
    /// Measure
    #[command(subcommand)]
    Bench(bench::Command),
}

/// Where a command runs and what it says.
#[derive(Clone, Debug, Args)]
struct Machine {
    /// Where to compute
    #[arg(long, value_enum, default_value_t, help_heading = "Machine")]
    device: DeviceChoice,
    /// How an NVIDIA GPU multiplies; the processor is always exact
    #[arg(long, value_enum, default_value_t, help_heading = "Machine")]
    precision: PrecisionChoice,
    /// Threads; results are the same for any number [default: all cores]
    #[arg(long, value_name = "N", value_parser = threads, allow_negative_numbers = true, help_heading = "Machine")]
    threads: Option<usize>,
    /// Folder with the data set's files [default: `GTN_DATA_DIR`, then ./data]
    #[arg(long, value_name = "DIR", help_heading = "Machine")]
    data_dir: Option<PathBuf>,
    /// End with one JSON object on standard output
    #[arg(long, help_heading = "Machine")]
    json: bool,
}

fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=4096).contains(n));
    number.ok_or_else(|| "a number from 1 to 4096 is needed".to_owned())
}

/// The command line cannot be followed.
#[derive(Debug, Error)]
#[error("{0}")]
struct Usage(String);

impl Machine {
    fn device(&self) -> anyhow::Result<Device> {
        let (device, line) =
            choose(self.device, self.precision, self.threads).map_err(|error| {
                match self.device {
                    DeviceChoice::Cuda => Usage(format!("--device cuda: {error}")).into(),
                    _ => anyhow::Error::from(error),
                }
            })?;
        say(&format!("Device: {line}"));
        Ok(device)
    }

    fn data(&self, choice: DatasetChoice, seed: u64) -> anyhow::Result<Dataset> {
        let data = data::load(choice, self.data_dir.as_deref(), seed)?;
        say(&format!("Data: {}", data.origin));
        Ok(data)
    }

    fn print(&self, result: &impl Serialize) -> anyhow::Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(result)?);
        }
        Ok(())
    }
}

/// Human text.
fn say(text: &str) {
    eprintln!("{text}");
}

/// How a command ended, other than by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Interrupted,
}

/// Runs the program: 0 if all went well, 1 if something failed, 2 if the command line or the settings make
/// no sense, 130 if it was interrupted.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match cli.command {
        None => train::run(&cli.train),
        Some(Command::Train(args)) => train::run(&args),
        Some(Command::Eval(args)) => eval::run(&args),
        Some(Command::Sample(args)) => sample::run(&args),
        Some(Command::Plan(args)) => plan::run(&args),
        Some(Command::Profile(args)) => profile::run(&args),
        Some(Command::Doctor) => doctor::run(),
        Some(Command::Selftest(args)) => selftest::run(&args),
        Some(Command::Bench(command)) => bench::run(&command).map(|()| Outcome::Done),
    };
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Interrupted) => ExitCode::from(130),
        Err(error) => {
            say(&format!("error: {}", one_line(&format!("{error:#}"))));
            let usage = error.is::<Usage>() || error.is::<ConfigError>();
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

/// Help and version as clap has them; of an error only what is wrong, in one line.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        // Nothing can be done where standard output is closed.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let end = text
        .find("\n\nUsage:")
        .or_else(|| text.find("\n\nFor more information"));
    let text = one_line(&text[..end.unwrap_or(text.len())]);
    say(&format!("{text} (--help says more)"));
    ExitCode::from(2)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
