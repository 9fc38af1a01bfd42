//! `gtn sample`

use super::{Machine, Outcome, eval};
use crate::error::{Error, Result};
use crate::run::best::Which;
use crate::run::run_folder::make_folder;
use crate::run::{card, checkpoint};
use clap::Args;
use serde::Serialize;
use std::borrow::Cow;
use std::path::PathBuf;

/// Settings of `gtn sample`.
#[derive(Debug, Args)]
pub(super) struct SampleArgs {
    /// The folder of a run
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Folder for the pictures [default: the run's]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Which checkpoint of the run
    #[arg(long, value_enum, default_value_t)]
    checkpoint: Which,
    #[command(flatten)]
    machine: Machine,
}

#[derive(Serialize)]
struct Drawn<'a> {
    command: &'static str,
    run: Cow<'a, str>,
    outer_step: u64,
    curriculum: String,
    samples: String,
}

pub(super) fn run(args: &SampleArgs) -> Result<Outcome> {
    let config = eval::read_config(&args.run)?;
    if !config.curriculum.generates() {
        let why = "it has no generator: its learners train on real images";
        return Err(Error::run(why).at(args.run.display()));
    }
    let device = args.machine.device()?;
    let checkpoint = args.checkpoint.of(&args.run)?;
    let problem = card::problem(&args.run)?;
    let (trainer, _) = checkpoint::load(&checkpoint, &device, &config, problem)?;
    let folder = args.out.as_deref().unwrap_or(&args.run);
    make_folder(folder)?;
    eval::draw(folder, &device, &trainer)?;
    args.machine.print(&Drawn {
        command: "sample",
        run: args.run.to_string_lossy(),
        outer_step: trainer.outer_step(),
        curriculum: folder.join("curriculum.png").display().to_string(),
        samples: folder.join("samples.png").display().to_string(),
    })?;
    Ok(Outcome::Done)
}
