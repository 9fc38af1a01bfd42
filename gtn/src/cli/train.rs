//! `gtn train`

use super::progress::Progress;
use super::{Files, Machine, Outcome, eval, pictures, say, stop};
use crate::data::{Dataset, DatasetChoice};
use crate::error::Result;
use crate::eval::evaluate::{TestSet, TrainingData};
use crate::eval::report::{self, GLANCE, Report};
use crate::outer::meta::{MetaTrainer, Step};
use crate::run::checkpoint;
use crate::run::config::Config;
use crate::run::memory;
use crate::run::run_folder::RunFolder;
use crate::run::settings::Settings;
use clap::Args;
use kernels::Device;
use serde::Serialize;
use std::mem::discriminant;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Where runs go if nobody says otherwise.
const RUNS: &str = "runs";

/// Settings of `gtn train`.
#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    /// Folder for the run [default: the next free one in runs/]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Resume a run from its last checkpoint
    #[arg(long, value_name = "RUN", conflicts_with_all = ["preset", "config", "out"])]
    resume: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    files: Files,
}

/// A line of the metrics.
#[derive(Serialize)]
struct Metrics<'a> {
    #[serde(flatten)]
    step: &'a Step,
    outer_lr: f64,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_accuracy: Option<f64>,
}

#[derive(Serialize)]
struct Trained<'a> {
    command: &'static str,
    run: &'a Path,
    outer_step: u64,
    seconds: f64,
    #[serde(flatten)]
    report: &'a Report,
}

pub(super) fn run(args: &TrainArgs) -> Result<Outcome> {
    let begin = Instant::now();
    let mut config = settings(args)?;
    let device = args.machine.device()?;
    let data = args.files.data(config.dataset, config.seed)?;
    memory::check(&device, &config, &data)?;
    config.dataset = chosen(&data);
    let (mut folder, mut trainer) = open(args, &device, &config, data.name)?;
    stop::listen()?;
    let run = folder.path().to_owned();
    if !train(&mut folder, &mut trainer, &device, &data)? {
        say(&format!(
            "Stopped after outer step {}. Go on with: gtn train --resume {}",
            trainer.outer_step(),
            run.display()
        ));
        return Ok(Outcome::Interrupted);
    }
    if config.curriculum.generates() {
        eval::draw(&run, &device, &trainer)?;
    }
    let Some(report) = eval::evaluate(&device, &config, &trainer, &data)? else {
        return Ok(Outcome::Interrupted);
    };
    pictures::draw_curves(&run, &report)?;
    say(&format!(
        "\n{}\nThe run is in {}",
        report.table(),
        run.display()
    ));
    args.machine.print(&Trained {
        command: "train",
        run: &run,
        outer_step: trainer.outer_step(),
        seconds: begin.elapsed().as_secs_f64(),
        report: &report,
    })?;
    Ok(Outcome::Done)
}

fn settings(args: &TrainArgs) -> Result<Config> {
    if let Some(run) = &args.resume {
        RunFolder::checkpoint_in(run)?;
        Ok(eval::read_config(run)?.with(&args.settings.flags)?)
    } else {
        Ok(args.settings.resolve()?)
    }
}

/// The data set that `auto` turned out to be: a resumed run goes on with that.
fn chosen(data: &Dataset) -> DatasetChoice {
    match data.name {
        "mnist" => DatasetChoice::Mnist,
        "fashion-mnist" => DatasetChoice::FashionMnist,
        _ => DatasetChoice::Embedded,
    }
}

/// The run's folder and its trainer, new or as the last checkpoint has it.
fn open(
    args: &TrainArgs,
    device: &Device,
    config: &Config,
    dataset: &str,
) -> Result<(RunFolder, MetaTrainer)> {
    if let Some(run) = &args.resume {
        let trainer = checkpoint::load(&RunFolder::checkpoint_in(run)?, device, config)?;
        let folder = RunFolder::resume(run, trainer.outer_step())?;
        say(&format!(
            "Going on after outer step {} of {}",
            trainer.outer_step(),
            run.display()
        ));
        return Ok((folder, trainer));
    }
    let preset = args.settings.preset.name();
    let folder = match &args.out {
        Some(path) => RunFolder::create(path)?,
        None => RunFolder::create_numbered(Path::new(RUNS), dataset, preset, config.seed)?,
    };
    folder.write_config(&config.to_toml())?;
    say(&format!("Run: {}", folder.path().display()));
    Ok((folder, MetaTrainer::new(device, config)?))
}

/// The outer loop, with checkpoints; `false` if the user stopped it.
fn train(
    folder: &mut RunFolder,
    trainer: &mut MetaTrainer,
    device: &Device,
    data: &Dataset,
) -> Result<bool> {
    let config = trainer.config().clone();
    trainer.use_images(data)?;
    let glance = TestSet::new(device, data, &data.validation, GLANCE)?;
    let mut progress = Progress::new("Outer step", config.outer_steps, trainer.outer_step());
    let mut accuracy = String::new();
    let mut warned = None;
    while trainer.outer_step() < config.outer_steps {
        let begin = Instant::now();
        let outer_lr = config.outer_lr_at(trainer.outer_step());
        let done = trainer.outer_step() + 1;
        let due = |every| done.is_multiple_of(every) || done == config.outer_steps;
        trainer.watch_cotangents(due(config.validate_every));
        let step = trainer.step()?;
        let seconds = begin.elapsed().as_secs_f64();
        // Said once, and again when it turns into another.
        let trouble = trainer
            .trouble()
            .filter(|trouble| warned != Some(discriminant(trouble)));
        if let Some(trouble) = trouble {
            warned = Some(discriminant(&trouble));
            progress.say(&format!("warning: outer step {done}: {trouble}"));
        }
        let mut validation_accuracy = None;
        if due(config.validate_every) {
            let found = validate(device, &config, trainer, data, &glance)?;
            accuracy = format!(", accuracy {:.1} %", 100.0 * found);
            validation_accuracy = Some(found);
        }
        let metrics = Metrics {
            step: &step,
            outer_lr,
            seconds,
            validation_accuracy,
        };
        folder.append_metrics(done, &metrics)?;
        progress.at(done, &format!("meta-loss {:.3}{accuracy}", step.meta_loss));
        let stopped = stop::asked() && done < config.outer_steps;
        if due(config.checkpoint_every) || stopped {
            checkpoint::save(folder, trainer)?;
        }
        if stopped {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The accuracy of a fresh learner on some validation images.
fn validate(
    device: &Device,
    config: &Config,
    trainer: &MetaTrainer,
    data: &Dataset,
    glance: &TestSet,
) -> Result<f64> {
    let number = report::FRESH - trainer.outer_step();
    let mut taught = TrainingData::taught(device, config, trainer.teacher(), data, number)?;
    let mut trainee = report::trainee(device, config, number)?;
    Ok(trainee.train(&mut taught, glance, None)?.0)
}
