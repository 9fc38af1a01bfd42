//! `gtn export`

use super::{Files, Machine, Outcome, eval, say};
use crate::error::{Error, Result};
use crate::eval::report::FRESH;
use crate::eval::training_data::TrainingData;
use crate::export::python::Program;
use crate::export::{Export, Format, fitted, onnx};
use crate::outer::curriculum::{ImagesChoice, LabelsChoice};
use crate::outer::inner::Inner;
use crate::outer::teacher::Teacher;
use crate::run::best::Which;
use crate::run::config::Config;
use crate::run::run_folder::{make_folder, refuse_run};
use crate::run::{card, checkpoint};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Settings of `gtn export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The folder of a run, or of what `gtn fit` made
    #[arg(value_name = "RUN|FIT")]
    run: PathBuf,
    /// Folder for what is written
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Which checkpoint of the run [default: last]
    #[arg(long, value_enum)]
    checkpoint: Option<Which>,
    /// Form of what is written [default: npz of a run, which includes generator.onnx; of a fit torch and onnx]
    #[arg(long, value_enum)]
    format: Option<Format>,
    // The network that the programs train: of ranges the middle counts, of a population the first family
    #[command(flatten)]
    others: eval::Others,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    files: Files,
}

#[derive(Serialize)]
struct Exported<'a> {
    command: &'static str,
    run: Cow<'a, str>,
    outer_step: u64,
    to: Cow<'a, str>,
    format: Format,
    network: String,
}

pub(super) fn run(args: &ExportArgs) -> Result<Outcome> {
    let run = &args.run;
    if run.join(fitted::NETWORK).is_file() {
        return fit(args);
    }
    let format = args.format.unwrap_or_default();
    let config = eval::read_config(run)?;
    let population = config.with(&args.others.changes())?.population();
    let device = args.machine.device()?;
    let problem = card::problem(run)?;
    let checkpoint = args.checkpoint.unwrap_or_default().of(run)?;
    let (trainer, _) = checkpoint::load(&checkpoint, &device, &config, problem)?;
    let data = args.files.data(&config, Some(&args.run))?;
    let source = &population.members()[0].source;
    let middle = source.middle()?;
    let learner = middle.network.learner(problem.image, problem.classes);
    let learner = learner.map_err(|e| Error::usage(e).at(&middle.family))?;
    let lesson = TrainingData::taught(&device, &config, trainer.teacher(), &data, FRESH)?;
    let (outer_step, rule) = (trainer.outer_step(), Inner::of(&config).rule);
    let export = Export {
        lesson: &lesson,
        data: &data,
        program: Program {
            network: learner.network(),
            rule,
            rate_groups: &learner.rate_groups(),
            statistics: [&data.card.mean, &data.card.std],
            origin: format!("{}, after outer step {outer_step}", run.display()),
        },
        batch: config.inner_batch,
        generator: generator(&config, trainer.teacher(), run)?,
    };
    export.check(format)?;
    make_folder(&args.to)?;
    export
        .write(&args.to, format)
        .map_err(|e: Error| e.at(args.to.display()))?;
    say(&format!("Wrote {}", args.to.display()));
    args.machine.print(&Exported {
        command: "export",
        run: run.to_string_lossy(),
        outer_step,
        to: args.to.to_string_lossy(),
        format,
        network: learner.network().to_string(),
    })?;
    Ok(Outcome::Done)
}

/// The generator as ONNX, where one makes the images.
fn generator(config: &Config, teacher: &Teacher, run: &Path) -> Result<Option<Vec<u8>>> {
    if !config.curriculum.generates() || config.images != ImagesChoice::Generator {
        return Ok(None);
    }
    let generator = &teacher.makers.generator;
    let params = generator.params().iter();
    let arrays: autograd::Result<Vec<_>> = params
        .map(|param| teacher.values.get(&format!("generator.{}", param.name)))
        .collect();
    let what = match config.labels {
        LabelsChoice::Generator => "images as learners take them and their classes y, of noise z",
        _ => "images as learners take them, of noise z and one-hot classes y",
    };
    let about = format!(
        "The generator of {}: {what}. Its norms are over the batch, which has {} images.",
        run.display(),
        config.inner_batch
    );
    onnx::generator(generator, &arrays?, about).map(Some)
}

/// Writes what `gtn fit` made in other forms.
fn fit(args: &ExportArgs) -> Result<Outcome> {
    refuse_flags_of_runs(args)?;
    // Beside a run's files, the next export of that run would find the fit's network.
    refuse_run(&args.to, "--to")?;
    fitted::Fitted::check(args.format)?;
    let fitted = fitted::Fitted::read(&args.run)?;
    make_folder(&args.to)?;
    let written = fitted.write(&args.to, args.format);
    written.map_err(|error| error.at(args.to.display()))?;
    say(&format!("Wrote {}", args.to.display()));
    args.machine.print(&json!({
        "command": "export", "fit": args.run.to_string_lossy(), "to": args.to.to_string_lossy(), "format": args.format, "network": fitted.network(),
    }))?;
    Ok(Outcome::Done)
}

/// A fit has one network and no choice of checkpoints, so flags that choose among them are an error instead
/// of being ignored.
fn refuse_flags_of_runs(args: &ExportArgs) -> Result<()> {
    let others = args.others.changes();
    let checkpoint = args.checkpoint.map(|_| "checkpoint");
    let Some(flag) = others.names().chain(checkpoint).next() else {
        return Ok(());
    };
    let problem = format!("--{flag} is for a run, and `gtn fit` made this");
    Err(Error::usage(problem)
        .at(args.run.display())
        .hint(format!("leave out --{flag}: a fit has one network")))
}
