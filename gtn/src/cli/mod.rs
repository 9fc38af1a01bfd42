//! The command line. Human text goes to standard error; with `--json` the last line of standard output
//! is one object for machines.

mod doctor;
mod eval;
mod pictures;
mod progress;
mod sample;
mod selftest;
mod stop;
mod train;

use crate::data::{self, Dataset, DatasetChoice};
use crate::device::{DeviceChoice, PrecisionChoice, choose};
use crate::run::config::ConfigError;
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
    /// Say what this machine has and what a run would use
    Doctor,
    /// Compare a device with the processor, from single operations to outer steps
    Selftest(selftest::SelftestArgs),
}

/// Where a command runs and what it says.
#[derive(Clone, Debug, Args)]
pub struct Machine {
    /// Where to compute
    #[arg(long, value_enum, default_value_t, help_heading = "Machine")]
    pub device: DeviceChoice,
    /// How an NVIDIA GPU multiplies; the processor is always exact
    #[arg(long, value_enum, default_value_t, help_heading = "Machine")]
    pub precision: PrecisionChoice,
    /// Threads; results are the same for any number [default: all cores]
    #[arg(long, value_name = "N", value_parser = threads, allow_negative_numbers = true, help_heading = "Machine")]
    pub threads: Option<usize>,
    /// End with one JSON object on standard output
    #[arg(long, help_heading = "Machine")]
    pub json: bool,
}

/// Where the data set lies.
#[derive(Clone, Debug, Args)]
struct Files {
    /// Folder with the data set's files [default: `GTN_DATA_DIR`, then ./data]
    #[arg(long, value_name = "DIR", help_heading = "Machine")]
    data_dir: Option<PathBuf>,
}

fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| (1..=4096).contains(n));
    number.ok_or_else(|| "a number from 1 to 4096 is needed".to_owned())
}

/// The command line cannot be followed.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Usage(pub String);

impl Machine {
    /// The device; says which it is.
    ///
    /// # Errors
    /// [`Usage`] if it was asked for by name and cannot be had.
    pub fn device(&self) -> anyhow::Result<Device> {
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

    /// With `--json`, prints the last line of standard output.
    ///
    /// # Errors
    /// If the result is no JSON.
    pub fn print(&self, result: &impl Serialize) -> anyhow::Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(result)?);
        }
        Ok(())
    }
}

impl Files {
    fn data(&self, choice: DatasetChoice, seed: u64) -> anyhow::Result<Dataset> {
        let data = data::load(choice, self.data_dir.as_deref(), seed)?;
        say(&format!("Data: {}", data.origin));
        Ok(data)
    }
}

/// Human text.
pub fn say(text: &str) {
    eprintln!("{text}");
}

/// How a command ended, other than by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did all that it was asked to do.
    Done,
    /// The user stopped it.
    Interrupted,
}

/// Runs `gtn`, as [`program`] does.
pub fn main() -> ExitCode {
    program(|cli: Cli| match cli.command {
        None => train::run(&cli.train),
        Some(Command::Train(args)) => train::run(&args),
        Some(Command::Eval(args)) => eval::run(&args),
        Some(Command::Sample(args)) => sample::run(&args),
        Some(Command::Doctor) => doctor::run(),
        Some(Command::Selftest(args)) => selftest::run(&args),
    })
}

/// Runs a program with its command line: 0 if all went well, 1 if something failed, 2 if the command line or the
/// settings make no sense, 130 if it was interrupted.
pub fn program<C: Parser>(run: impl FnOnce(C) -> anyhow::Result<Outcome>) -> ExitCode {
    let command = match C::try_parse() {
        Ok(command) => command,
        Err(error) => return usage(&error),
    };
    match run(command) {
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
