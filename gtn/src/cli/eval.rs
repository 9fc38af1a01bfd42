//! `gtn eval`

use super::progress::Progress;
use super::{Files, Machine, Outcome, pictures, show, stop};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::eval::evaluate::{TestSet, TrainingData};
use crate::eval::examination::Examination;
use crate::eval::report::{self, GLANCE, Report};
use crate::nn::widths::Widths;
use crate::nn::{Learners, Norm};
use crate::outer::meta::MetaTrainer;
use crate::run::config::Config;
use crate::run::run_folder::{self, RunFolder};
use crate::run::settings::{Overrides, count};
use crate::run::{card, checkpoint};
use clap::Args;
use kernels::Device;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Settings of `gtn eval`.
#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// The folder of a run
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Learners to train in each way [default: the run's]
    #[arg(long, value_name = "N", value_parser = count())]
    learners: Option<usize>,
    /// Learners: a family, a text, a population or a file [default: the run's]
    #[arg(long, value_name = "NAME|TEXT|FILE")]
    learner: Option<Learners>,
    /// Normalisation, where a family or text has a place for it [default: the run's]
    #[arg(long, value_name = "NORM")]
    norm: Option<Norm>,
    /// Widths for the places that a family or text has: a number each, or a range to draw from [default: the run's]
    #[arg(long, value_name = "N-N,…")]
    widths: Option<Widths>,
    /// Leave out the baselines, which train on real images
    #[arg(long)]
    no_baseline: bool,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    files: Files,
}

/// The object that `train` and `eval` end with.
#[derive(Serialize)]
pub(super) struct Evaluated<'a> {
    pub(super) command: &'static str,
    pub(super) run: &'a Path,
    pub(super) outer_step: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<f64>,
    #[serde(flatten)]
    pub(super) report: &'a Report,
}

pub(super) fn run(args: &EvalArgs) -> Result<Outcome> {
    let config = read_config(&args.run)?;
    let changes = Overrides::default()
        .with("learner", args.learner.as_ref())
        .with("norm", args.norm)
        .with("widths", args.widths.as_ref())
        .with("learners", args.learners);
    let changed = config.with(&changes)?;
    let device = args.machine.device()?;
    let checkpoint = RunFolder::checkpoint_in(&args.run)?;
    let problem = card::problem(&args.run)?;
    let (trainer, _) = checkpoint::load(&checkpoint, &device, &config, problem)?;
    let mut data = args.files.data(config.dataset, config.seed)?;
    card::adopt(&args.run, &mut data)?;
    stop::listen()?;
    let Some(report) = evaluate(&device, &changed, &trainer, &data, !args.no_baseline)? else {
        return Ok(Outcome::Interrupted);
    };
    show(report.table().trim_end());
    args.machine.print(&Evaluated {
        command: "eval",
        run: &args.run,
        outer_step: trainer.outer_step(),
        seconds: None,
        report: &report,
    })?;
    Ok(Outcome::Done)
}

/// The settings in a run's folder.
pub(super) fn read_config(run: &Path) -> Result<Config> {
    let path = run.join(run_folder::CONFIG);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let error = Error::file("read", &path, &error);
        error.at(format!("{} is no run", run.display()))
    })?;
    Config::from_toml(&path.display().to_string(), &text)
}

/// Evaluates with a progress bar; `None` if the user wants to stop.
pub(super) fn evaluate(
    device: &Device,
    config: &Config,
    trainer: &MetaTrainer,
    data: &Dataset,
    baselines: bool,
) -> Result<Option<Report>> {
    let mut progress = Progress::new("Evaluation", report::trainings(config, baselines), 0);
    let mut done = 0;
    let watch = || {
        done += 1;
        progress.at(done, "");
        !stop::asked()
    };
    let draw = |number| Ok(config.drawn(data.problem(), number, 0)?.1);
    let examination = Examination {
        device,
        config,
        teacher: trainer.teacher(),
        data,
        glance: &TestSet::new(device, data, &data.validation, GLANCE)?,
        test: &TestSet::new(device, data, &data.test, usize::MAX)?,
        draw: &draw,
    };
    Ok(report::evaluate(&examination, baselines, watch)?)
}

/// Draws what a run teaches, in its folder or another.
pub(super) fn draw(folder: &Path, device: &Device, trainer: &MetaTrainer) -> Result<()> {
    let config = trainer.config();
    let lesson = TrainingData::synthetic(device, config, trainer.teacher(), report::FRESH)?;
    pictures::draw_lesson(folder, trainer, &lesson)
}
