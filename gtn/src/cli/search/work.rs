//! The preparation that both search commands share: load a run with its data, make the lessons and recipes
//! for all networks, and gather the workers.

use super::super::eval::{same_data, same_state};
use super::super::progress::Progress;
use super::super::{Files, Machine, say, stop};
use super::crew::{Crew, ledger};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::eval::report::GLANCE;
use crate::eval::tuning::{BASELINES, TRIALS};
use crate::nn::Space;
use crate::outer::meta::MetaTrainer;
use crate::ranks::Ranks;
use crate::run::config::Config;
use crate::run::run_folder::{RunFolder, write_atomically};
use crate::run::values::count;
use crate::run::{card, checkpoint};
use crate::search::{Estimator, Lab, Ledger, RECIPES, Source, Teaching, tune};
use clap::Args;
use kernels::Device;
use serde_json::{Value, json};
use std::path::Path;

/// How networks are judged, and by whom.
#[derive(Debug, Args)]
pub(super) struct WorkArgs {
    /// Learners of every network, whose estimates are averaged
    #[arg(long, value_name = "N", default_value = "1", value_parser = count())]
    seeds: usize,
    /// Validation images that judge a learner
    #[arg(long, value_name = "N", default_value_t = GLANCE, value_parser = count())]
    images: usize,
    /// Networks that are computed at once, on every rank [default: on a processor one for each thread]
    #[arg(long, value_name = "N", value_parser = count())]
    workers: Option<usize>,
    #[command(flatten)]
    pub(super) machine: Machine,
    #[command(flatten)]
    pub(super) files: Files,
}

/// What is to be ranked, by what, and where the results go.
pub(super) struct Work<'a> {
    /// The folder of the run that teaches, and its settings.
    pub(super) run: &'a Path,
    pub(super) config: &'a Config,
    pub(super) space: &'a Space,
    pub(super) estimators: Vec<&'a Estimator>,
    pub(super) folder: &'a Path,
}

impl Work<'_> {
    /// What the estimators need, each once.
    pub(super) fn sources(&self) -> Vec<Source> {
        let sources = self.estimators.iter();
        let mut sources: Vec<Source> = sources.flat_map(|estimator| estimator.sources()).collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    /// Lets the first rank `lead` the others. `None` on the others, and if the user wants to stop before all
    /// is ready.
    ///
    /// # Errors
    /// If the run, its data or the results in the folder cannot be used, or those of `lead` or of any rank.
    pub(super) fn led<R>(
        &self,
        args: &WorkArgs,
        ranks: &Ranks,
        lead: impl FnOnce(&Crew<'_>, Ledger) -> Result<R>,
    ) -> Result<Option<R>> {
        let Self { config, folder, .. } = *self;
        let device = args.machine.device_of(ranks)?;
        let (trainer, data) = self.load(args, &device, ranks)?;
        let area = self.estimators.iter().any(|one| one.needs_area());
        let sizes = [args.seeds, args.images];
        let mut lab = Lab::new(config, self.space, &data, sizes, area, stop::asked);
        let ledger = ledger(folder, &lab, trainer.outer_step(), ranks)?;
        let sources = self.sources();
        if !prepare(&mut lab, &device, &trainer, (folder, ranks), &sources)? {
            if ranks.is_first() {
                say_stopped(folder);
            }
            return Ok(None);
        }
        let crew = Crew {
            lab: &lab,
            device: &device,
            workers: args.workers.unwrap_or(device.threads()),
            ranks,
        };
        match ledger {
            Some(ledger) => lead(&crew, ledger).map(Some),
            None => crew.help().map(|()| None),
        }
    }

    fn load(
        &self,
        args: &WorkArgs,
        device: &Device,
        ranks: &Ranks,
    ) -> Result<(MetaTrainer, Dataset)> {
        let Self { run, config, .. } = *self;
        let checkpoint = RunFolder::checkpoint_in(run)?;
        let (trainer, _) = checkpoint::load(&checkpoint, device, config, card::problem(run)?)?;
        let data = args.files.data(config, Some(run))?;
        same_data(ranks, &data)?;
        same_state(ranks, &trainer)?;
        Ok((trainer, data))
    }
}

/// Tells the user that the work was stopped, and how to resume it.
pub(super) fn say_stopped(folder: &Path) {
    let place = folder.display();
    say(&format!(
        "Stopped. The same command goes on with what is in {place}"
    ));
}

/// Says that results are missing which the next command may get.
pub(super) fn say_postponed(ledger: &Ledger) {
    match ledger.postponed() {
        0 => {}
        count => say(&format!(
            "warning: results that are missing for want of memory, or by an error of the device: {count}; the same \
             command tries them again"
        )),
    }
}

/// Prepares lessons and recipes. Recipes are tuned once and kept in the folder of the results. False if the
/// user wants to stop.
fn prepare(
    lab: &mut Lab<'_>,
    device: &Device,
    trainer: &MetaTrainer,
    (folder, ranks): (&Path, &Ranks),
    sources: &[Source],
) -> Result<bool> {
    let path = folder.join(RECIPES);
    let known = if ranks.is_first() {
        tune::known(&path)
    } else {
        Ok(None)
    };
    let known = ranks.gather(known)?.swap_remove(0);
    let mut recipes: Value = known.unwrap_or_else(|| json!({}));
    for &source in sources {
        let Source::Training(teaching @ Teaching { real, .. }) = source else {
            continue;
        };
        if !real {
            if !lab.prepare(device, trainer.teacher(), teaching)? {
                return Ok(false);
            }
            continue;
        }
        let steps = lab.steps(teaching);
        let known = recipes
            .get(steps.to_string())
            .map(tune::from_json)
            .transpose()?;
        let recipe = if let Some(recipe) = known {
            recipe
        } else {
            let trials = BASELINES.len() as u64 * TRIALS;
            let mut progress = (Progress::new("Tuning", trials, 0), 0);
            let mut watch = || {
                progress.1 += ranks.count() as u64;
                progress.0.at(progress.1, "real images");
                !stop::asked()
            };
            let found = tune::recipe(lab, (device, ranks), trainer.teacher(), steps, &mut watch)?;
            let Some(recipe) = found else {
                return Ok(false);
            };
            recipes[steps.to_string()] = tune::to_json(&recipe);
            let text = serde_json::to_vec_pretty(&recipes).map_err(Error::run)?;
            if ranks.is_first() {
                write_atomically(&path, |file| file.write_all(&text))?;
            }
            recipe
        };
        say(&format!(
            "Real images, {steps} steps: {}, {recipe}",
            recipe.optimizer.name()
        ));
        lab.recipes.insert(steps, recipe);
    }
    Ok(true)
}
