//! `gtn export`

use super::{Files, Machine, Outcome, eval, say};
use crate::error::{Error, Result};
use crate::eval::evaluate::TrainingData;
use crate::eval::report::FRESH;
use crate::export::python::Program;
use crate::export::{Export, Format};
use crate::outer::inner::Inner;
use crate::run::best::Which;
use crate::run::run_folder::make_folder;
use crate::run::{card, checkpoint};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Settings of `gtn export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The folder of a run
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Folder for what is written
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Which checkpoint of the run
    #[arg(long, value_enum, default_value_t)]
    checkpoint: Which,
    /// Form of the synthetic batches
    #[arg(long, value_enum, default_value_t)]
    format: Format,
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
    run: &'a Path,
    outer_step: u64,
    to: &'a Path,
    format: Format,
    network: String,
}

pub(super) fn run(args: &ExportArgs) -> Result<Outcome> {
    let run = &args.run;
    let config = eval::read_config(run)?;
    let population = config.with(&args.others.changes())?.population();
    let device = args.machine.device()?;
    let problem = card::problem(run)?;
    let (trainer, _) = checkpoint::load(&args.checkpoint.of(run)?, &device, &config, problem)?;
    let mut data = args.files.data(&config, Some(&args.run))?;
    card::adopt(run, &mut data)?;
    let source = &population.members()[0].source;
    let learner = source
        .middle()?
        .network
        .learner(problem.image, problem.classes)?;
    let lesson = TrainingData::taught(&device, &config, trainer.teacher(), &data, FRESH)?;
    make_folder(&args.to)?;
    let outer_step = trainer.outer_step();
    let export = Export {
        lesson: &lesson,
        data: &data,
        program: Program {
            network: learner.network(),
            optimizer: Inner::of(&config).optimizer,
            statistics: [&data.card.mean, &data.card.std],
            origin: format!("{}, after outer step {outer_step}", run.display()),
        },
        batch: config.inner_batch,
    };
    export
        .write(&args.to, args.format)
        .map_err(|e: Error| e.at(args.to.display()))?;
    say(&format!("Wrote {}", args.to.display()));
    args.machine.print(&Exported {
        command: "export",
        run,
        outer_step,
        to: &args.to,
        format: args.format,
        network: learner.network().to_string(),
    })?;
    Ok(Outcome::Done)
}
