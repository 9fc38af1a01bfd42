//! The command line. Progress goes to standard error, tables and reports to standard output; with `--json` the last line
//! there is one object for machines.

mod data;
mod doctor;
mod eval;
mod export;
mod fit;
mod learner;
mod pictures;
mod progress;
mod report;
mod sample;
mod search;
mod selftest;
mod stop;
mod study;
mod train;

use crate::data::{Dataset, DatasetChoice, Place, load};
use crate::device::{DeviceChoice, PrecisionChoice, SimdChoice, choose};
use crate::error::{Error, Result};
use crate::ranks::Ranks;
use crate::run::card;
use crate::run::config::Config;
use crate::run::values::name_of;
use clap::builder::{RangedU64ValueParser, TypedValueParser};
use clap::{Args, Command, CommandFactory, Parser, Subcommand};
use kernels::{Device, DeviceError};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{self, ErrorKind, Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
    task: Option<Task>,
    #[command(flatten)]
    train: train::TrainArgs,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Meta-train a generator, then show whether it teaches (the default)
    ///
    /// Writes a run folder: settings, metrics, checkpoint, pictures. Then trains fresh learners on the generator's images,
    /// others on real images, and compares their test accuracy.
    Train(Box<train::TrainArgs>),
    /// Train fresh learners on a run's images, others on real images, and compare them
    ///
    /// Every learner takes T steps: on batches of the generator's images with the learned rates, or on batches of real
    /// images with an optimiser, a learning rate and a momentum tuned for them. The table gives their accuracy on the test images.
    Eval(Box<eval::EvalArgs>),
    /// Draw a run's synthetic images by class and step
    ///
    /// Writes curriculum.png, every synthetic image with a row for each inner step, and samples.png, with a row for each
    /// class and a column for each inner step.
    Sample(sample::SampleArgs),
    /// Write a run's synthetic batches for other programs, with ones in PyTorch and JAX that train on them
    ///
    /// `python train_torch.py` trains fresh networks on the batches with the learned hyper-parameters and tests them on real
    /// images. Its last line is a JSON object with `accuracy_mean`, `accuracy_std` and `learners`.
    Export(Box<export::ExportArgs>),
    /// Write a run as one page of HTML: tables, curves, pictures, settings
    Report(report::ReportArgs),
    /// Show the evaluations of several runs side by side
    Compare(report::CompareArgs),
    /// Rank the networks of a search space by what a run teaches them in seconds
    Search(Box<search::SearchArgs>),
    /// Train every variant that a file names, and draw them beside each other
    ///
    /// Each run is a process of its own; one that breaks is a row with its reason. Writes study.csv, curves.svg and
    /// spread.svg. The same command goes on where it was stopped.
    Study(study::StudyArgs),
    /// Train a network on all real images, and write it for use
    ///
    /// Cosine or one-cycle rates, shifts, flips and cutout; checkpoints after every epoch, from which the same command goes on. At
    /// the end its test accuracy, network.safetensors, and network.py with network.npz, which is the network in PyTorch.
    Fit(Box<fit::FitArgs>),
    /// Show what is in a data set: sizes, classes, splits, statistics, and what is odd
    Data(data::DataArgs),
    /// Show learners: layers, shapes, parameters, multiply-adds
    Learner(learner::LearnerArgs),
    /// Show the devices of this machine, and which one a run would use
    Doctor(doctor::DoctorArgs),
    /// Check a device's results against the processor's, from single operations to outer steps
    Selftest(selftest::SelftestArgs),
    /// Write the manual pages, one for each command, to a folder
    #[command(hide = true)]
    Man {
        /// Folder, which has to be there
        folder: PathBuf,
    },
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
    #[arg(long, value_name = "N", value_parser = threads(), help_heading = "Machine")]
    pub threads: Option<usize>,
    /// Hold the processor down to these vector instructions [default: the best it has]
    #[arg(long, value_enum, help_heading = "Machine")]
    pub simd: Option<SimdChoice>,
    /// End with one JSON object on standard output
    #[arg(long, help_heading = "Machine")]
    pub json: bool,
}

/// Where the data set lies.
#[derive(Clone, Debug, Args)]
struct Files {
    /// Folder with the data set's files [default: `GTN_DATA_DIR`, else ./data]
    #[arg(long, value_name = "DIR", help_heading = "Machine")]
    data_dir: Option<PathBuf>,
}

/// Threads beyond a few for each core spend their time waiting for each other.
fn threads() -> impl TypedValueParser<Value = usize> {
    let range = RangedU64ValueParser::<u64>::new().range(1..=4 * cores() as u64);
    range.map(|threads| threads as usize)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The error of a device that cannot be used.
fn refuse(error: DeviceError) -> Error {
    match error {
        DeviceError::Simd { wanted, detected } => Error::usage(error)
            .at(format!("--simd {wanted}"))
            .hint(format!("leave it out, or use --simd {detected}")),
        _ => Error::from(error),
    }
}

impl Machine {
    /// The device; says which it is.
    ///
    /// # Errors
    /// Of usage, if it was asked for by name and cannot be had.
    pub fn device(&self) -> Result<Device> {
        self.device_of(&Ranks::alone())
    }

    /// The device of this rank: its own GPU if there are several, or its share of the processor's cores.
    ///
    /// # Errors
    /// As [`Machine::device`].
    pub fn device_of(&self, ranks: &Ranks) -> Result<Device> {
        let part = || cores().div_ceil(ranks.on_cores());
        let threads = self.threads.or((ranks.on_cores() > 1).then(part));
        let chosen = choose(
            self.device,
            self.precision,
            threads,
            self.simd,
            ranks.local(),
        );
        let (device, line) = chosen.map_err(|error| match self.device {
            DeviceChoice::Cuda => Error::usage(error).at("--device cuda"),
            _ => refuse(error),
        })?;
        say(&format!("Device: {line}"));
        Ok(device)
    }

    /// With `--json`, prints the last line of standard output.
    ///
    /// # Errors
    /// If the result is no JSON, or standard output does not take it.
    pub fn print(&self, result: &impl Serialize) -> Result<()> {
        if self.json && !is_silent() {
            print(result)
        } else {
            Ok(())
        }
    }
}

/// Prints one object of JSON, the last line of standard output.
fn print(result: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(result).map_err(Error::run)?;
    write_line(&text).map_err(|error| output_failed(&error))
}

/// The flags with which another `gtn` computes as this one does, from the same data sets.
fn handed_on(machine: &Machine, files: &Files) -> Vec<OsString> {
    let Machine {
        device,
        precision,
        threads,
        simd,
        json: _,
    } = machine;
    let words = [
        Some(("device", name_of(device))),
        Some(("precision", name_of(precision))),
        threads.map(|threads| ("threads", threads.to_string())),
        simd.map(|simd| ("simd", name_of(&simd))),
    ];
    let flag = |(name, value)| OsString::from(format!("--{name}={value}"));
    let mut flags: Vec<OsString> = words.into_iter().flatten().map(flag).collect();
    if let Some(dir) = &files.data_dir {
        flags.extend(["--data-dir".into(), dir.clone().into()]);
    }
    flags
}

impl Files {
    /// Loads a run's data set. A run remembers where that was, and how it was normalised.
    fn data(&self, config: &Config, run: Option<&Path>) -> Result<Dataset> {
        let card = run.map(card::read).transpose()?.flatten();
        let remembered = card
            .and_then(|card| card.place)
            .filter(|place| place.exists());
        let place = Place::new(self.data_dir.as_deref(), remembered.as_deref());
        // If a run's data set was given by its path, --data-dir says where it is now.
        let moved = run.and(self.data_dir.clone().or(remembered));
        let choice = match (&config.dataset, moved) {
            (DatasetChoice::At(_), Some(place)) => &DatasetChoice::At(place),
            (choice, _) => choice,
        };
        let mut data = load(choice, config.want, &place, config.seed)?;
        say(&format!("Data: {}", data.origin));
        let warning = run.map(|run| card::adopt(run, &mut data)).transpose()?;
        if let Some(warning) = warning.flatten() {
            say(&format!("warning: {warning}"));
        }
        Ok(data)
    }
}

/// Whether another rank writes the output for all.
static SILENT: AtomicBool = AtomicBool::new(false);

/// The end of the user's time limit in minutes; `None` if there is no limit, or one beyond what a clock can
/// count.
pub(super) fn end_after(begin: Instant, minutes: Option<f64>) -> Option<Instant> {
    let span = Duration::try_from_secs_f64(60.0 * minutes?).ok()?;
    begin.checked_add(span)
}

fn is_silent() -> bool {
    SILENT.load(Ordering::Relaxed)
}

/// Writes human text to standard error. Failures are ignored: a closed pipe or a full disk must not end a
/// training.
pub fn say(text: &str) {
    if !is_silent() {
        let _ = writeln!(stderr(), "{text}");
    }
}

/// Writes a command's result, such as a table, to standard output.
///
/// # Errors
/// If standard output does not take it, unless its reader has gone, as `head` does when it has enough.
pub fn show(text: &str) -> Result<()> {
    if is_silent() {
        return Ok(());
    }
    match write_line(text) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| output_failed(&error)),
    }
}

fn write_line(text: &str) -> io::Result<()> {
    let mut output = stdout().lock();
    writeln!(output, "{text}").and_then(|()| output.flush())
}

fn output_failed(error: &io::Error) -> Error {
    Error::file("write to", Path::new("standard output"), error)
}

/// Runs a command that several ranks can share. Only the first rank writes output.
fn together(run: impl FnOnce(&Ranks) -> Result<Outcome>) -> Result<Outcome> {
    let ranks = Ranks::join()?;
    SILENT.store(!ranks.is_first(), Ordering::Relaxed);
    let outcome = ranks.same_program().and_then(|()| run(&ranks));
    let outcome = ranks.part(outcome);
    if let Err(error) = &outcome {
        // Said before the ranks part, because a launcher ends all of them as soon as one exits with an error.
        say(&error.lines());
        SILENT.store(true, Ordering::Relaxed);
    }
    outcome
}

/// The exit code of [`Outcome::Broke`].
const BROKE: u8 = 3;

/// How a command ended, other than by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It did all that it was asked to do.
    Done,
    /// The user stopped it.
    Interrupted,
    /// Numbers of a run ran away. Only a run that a study started ends so: exit code 3 tells the study.
    /// Otherwise the run ends with the error.
    Broke,
}

/// Runs `gtn`, as [`program`] does.
pub fn main() -> ExitCode {
    program(|cli: Cli| match cli.task {
        None => together(|ranks| train::run(&cli.train, ranks)),
        Some(Task::Train(args)) => together(|ranks| train::run(&args, ranks)),
        Some(Task::Eval(args)) => together(|ranks| eval::run(&args, ranks)),
        Some(Task::Sample(args)) => sample::run(&args),
        Some(Task::Export(args)) => export::run(&args),
        Some(Task::Report(args)) => report::report(&args),
        Some(Task::Compare(args)) => report::compare(&args),
        Some(Task::Data(args)) => data::run(&args),
        Some(Task::Learner(args)) => learner::run(&args),
        Some(Task::Search(args)) => together(|ranks| search::run(&args, ranks)),
        Some(Task::Study(args)) => study::run(&args),
        Some(Task::Fit(args)) => fit::run(&args),
        Some(Task::Doctor(args)) => doctor::run(&args),
        Some(Task::Selftest(args)) => selftest::run(&args),
        Some(Task::Man { folder }) => man(&folder),
    })
}

/// Runs a program with its command line: 0 if all went well, 1 if something failed, 2 if the command line or the
/// settings make no sense, 130 if it was interrupted.
pub fn program<C: Parser>(run: impl FnOnce(C) -> Result<Outcome>) -> ExitCode {
    let mut command = numbers_may_be_negative(C::command());
    let parsed = command
        .try_get_matches_from_mut(std::env::args_os())
        .and_then(|mut matches| C::from_arg_matches_mut(&mut matches));
    let command = match parsed {
        Ok(command) => command,
        Err(error) => return usage(error.format(&mut command)),
    };
    match run(command) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Interrupted) => ExitCode::from(130),
        Ok(Outcome::Broke) => ExitCode::from(BROKE),
        Err(error) => fail(&error),
    }
}

fn man(folder: &Path) -> Result<Outcome> {
    clap_mangen::generate_to(Cli::command(), folder)
        .map_err(|e| Error::file("write", folder, &e))?;
    Ok(Outcome::Done)
}

/// Makes clap parse -3 as a value, which is then refused as out of range, and not as an unknown flag.
fn numbers_may_be_negative(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let takes_values = arg.get_action().takes_values();
        arg.allow_negative_numbers(takes_values)
    });
    command.mut_subcommands(numbers_may_be_negative)
}

fn fail(error: &Error) -> ExitCode {
    say(&error.lines());
    ExitCode::from(error.exit_code())
}

/// Prints help and version as clap does. Of an error, prints only what is wrong and a hint.
fn usage(error: clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion
    ) {
        return match error.print() {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => fail(&output_failed(&error)),
            _ => ExitCode::SUCCESS,
        };
    }
    fail(&error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_minutes_than_a_clock_counts_have_no_end() {
        let begin = Instant::now();
        assert_eq!(end_after(begin, None), None);
        let half = Duration::from_secs(30);
        assert_eq!(end_after(begin, Some(0.5)), Some(begin + half));
        for minutes in [3e17, 1e18, 1e300, f64::MAX] {
            assert_eq!(end_after(begin, Some(minutes)), None, "{minutes}");
        }
    }
}
