//! What both commands need: a run with its data, and what is made once for all networks.

use super::super::eval::{same_data, same_state};
use super::super::progress::Progress;
use super::super::{Files, Machine, say, stop};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::eval::tuning::{BASELINES, TRIALS};
use crate::outer::meta::MetaTrainer;
use crate::ranks::Ranks;
use crate::run::config::Config;
use crate::run::run_folder::{RunFolder, write_atomically};
use crate::run::{card, checkpoint};
use crate::search::{Lab, Source, Teaching, tune};
use kernels::Device;
use serde_json::{Value, json};
use std::path::Path;

/// How real images teach, in the folder of the results.
const RECIPES: &str = "recipes.json";

/// A run, loaded.
pub(super) struct Loaded {
    pub(super) device: Device,
    pub(super) trainer: MetaTrainer,
    pub(super) data: Dataset,
}

impl Loaded {
    pub(super) fn new(
        run: &Path,
        config: &Config,
        machine: &Machine,
        files: &Files,
        ranks: &Ranks,
    ) -> Result<Self> {
        let device = machine.device_of(ranks)?;
        let checkpoint = RunFolder::checkpoint_in(run)?;
        let (trainer, _) = checkpoint::load(&checkpoint, &device, config, card::problem(run)?)?;
        let mut data = files.data(config, Some(run))?;
        card::adopt(run, &mut data)?;
        same_data(ranks, &data)?;
        same_state(ranks, &trainer)?;
        Ok(Self {
            device,
            trainer,
            data,
        })
    }
}

/// Lessons and recipes, which are found once and kept in the folder of the results; false if the user wants to stop.
pub(super) fn prepare(
    lab: &mut Lab<'_>,
    device: &Device,
    trainer: &MetaTrainer,
    (folder, ranks): (&Path, &Ranks),
    sources: &[Source],
) -> Result<bool> {
    let path = folder.join(RECIPES);
    let known: Option<Value> = std::fs::read(&path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let known = ranks.gather(Ok(known))?.swap_remove(0);
    let mut recipes = known.unwrap_or_else(|| json!({}));
    for &source in sources {
        let Source::Training(teaching @ Teaching { real, .. }) = source else {
            continue;
        };
        if !real {
            lab.prepare(device, trainer.teacher(), teaching)?;
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
