//! Checkpoints: all that a run needs to go on, bit for bit, in one safetensors file.

use super::best::Best;
use super::config::Config;
use super::run_folder::{self, RunFolder};
use crate::data::Problem;
use crate::error::{Error, ErrorKind, Result};
use crate::outer::meta::MetaTrainer;
use kernels::Device;
use std::path::Path;
use tensor::{Arrays, Metadata, read_safetensors, safetensors_bytes};
use toml::Table;

const CONFIG: &str = "config";
const OUTER_STEP: &str = "outer_step";
/// Written only where it is not 0.
const RUNAWAYS: &str = "runaways";

/// Saves the state of a trainer, its [`MetaTrainer::finite_arrays`], in its run folder, and which validation was best so far.
///
/// # Errors
/// If it cannot be written; the last checkpoint stays.
pub fn save(
    folder: &mut RunFolder,
    trainer: &MetaTrainer,
    arrays: &Arrays,
    best: Option<Best>,
) -> Result<()> {
    let mut about = Metadata::from([
        (CONFIG.to_owned(), trainer.config().to_toml()),
        (OUTER_STEP.to_owned(), trainer.outer_step().to_string()),
    ]);
    let runaways = Some(trainer.runaways()).filter(|&count| count > 0);
    about.extend(runaways.map(|count| (RUNAWAYS.to_owned(), count.to_string())));
    about.extend(best.into_iter().flat_map(Best::entries));
    let bytes = safetensors_bytes(arrays, &about).map_err(Error::run)?;
    folder.save_checkpoint(trainer.outer_step(), |file| file.write_all(&bytes))
}

/// Which validation was best when a checkpoint was saved, if there was one.
///
/// # Errors
/// If the file is damaged.
pub fn best(path: &Path) -> Result<Option<Best>> {
    Ok(Best::in_checkpoint(&read(path)?.1))
}

/// After how many outer steps the last checkpoint of a run was saved; `None` if there is no sound one.
pub fn last_step(run: &Path) -> Option<u64> {
    let (_, about) = read(&run.join(run_folder::CHECKPOINT)).ok()?;
    about.get(OUTER_STEP)?.parse().ok()
}

/// Reads a checkpoint. If it is damaged, the error says which others there are.
fn read(path: &Path) -> Result<(Arrays, Metadata)> {
    read_safetensors(path).map_err(|error| {
        let run = path.parent().unwrap_or(Path::new("."));
        Error::run(format!("checkpoint {error}")).hint_if(run_folder::earlier_checkpoint(run))
    })
}

/// Restores a run's trainer from a checkpoint, with the settings `config`. Also gives the settings that
/// differ from the checkpoint's own (see [`Config::changes`]).
///
/// # Errors
/// If the file is damaged or holds numbers that are not finite, or if a run may not change the checkpoint's
/// settings to these.
pub fn load(
    path: &Path,
    device: &Device,
    config: &Config,
    problem: Problem,
) -> Result<(MetaTrainer, Table)> {
    let (arrays, about) = read(path)?;
    let place = format!("checkpoint {}", path.display());
    let refuse = |reason: String| Error::run(reason).at(&place);
    let entry = |key: &str| {
        let entry = about.get(key);
        entry.ok_or_else(|| refuse(format!("no `{key}` in it")))
    };
    let saved = Config::from_toml(&format!("{place}: its settings"), entry(CONFIG)?)?;
    if let Some(difference) = config.difference(&saved) {
        let reason = format!("made with other settings: {difference}");
        return Err(refuse(reason).of(ErrorKind::Usage));
    }
    let step = entry(OUTER_STEP)?.parse();
    let step = step.map_err(|_| refuse("no outer step in it".into()))?;
    let mut trainer = MetaTrainer::new(device, config, problem)?;
    let restored = trainer.restore(&arrays, step);
    restored.map_err(|error| error.at(&place))?;
    let runaways = about.get(RUNAWAYS).map_or(Ok(0), |count| count.parse());
    let runaways = runaways.map_err(|_| refuse("no number of runaways in it".into()))?;
    Ok((trainer.after_runaways(runaways), config.changes(&saved)))
}
