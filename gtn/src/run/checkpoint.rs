//! Checkpoints: all that a run needs to go on, bit for bit, in one safetensors file.

use crate::outer::meta::MetaTrainer;
use crate::run::config::Config;
use crate::run::run_folder::{RunFolder, RunFolderError};
use kernels::Device;
use std::io;
use std::path::Path;
use tensor::{FileError, Metadata, read_safetensors, safetensors_bytes};
use thiserror::Error;

const CONFIG: &str = "config";
const OUTER_STEP: &str = "outer_step";

/// A checkpoint cannot be used.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file is missing, cut short or damaged.
    #[error("checkpoint {0}")]
    File(#[from] FileError),
    /// It is a sound file, and not a checkpoint that can be gone on from.
    #[error("checkpoint {path}: {reason}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The arrays do not fit into memory.
    #[error(transparent)]
    Engine(#[from] autograd::Error),
}

/// Saves the state of a trainer in its run folder.
///
/// # Errors
/// If it cannot be written; the last checkpoint stays.
pub fn save(folder: &mut RunFolder, trainer: &MetaTrainer) -> Result<(), RunFolderError> {
    let about = Metadata::from([
        (CONFIG.to_owned(), trainer.config().to_toml()),
        (OUTER_STEP.to_owned(), trainer.outer_step().to_string()),
    ]);
    let arrays = trainer
        .arrays()
        .map_err(|e| io::Error::other(e.to_string()));
    let bytes = arrays.and_then(|arrays| {
        safetensors_bytes(&arrays, &about).map_err(|e| io::Error::other(e.to_string()))
    });
    folder.save_checkpoint(trainer.outer_step(), |file| file.write_all(&bytes?))
}

/// The trainer of a run with these settings, as a checkpoint has it.
///
/// # Errors
/// If the file is damaged, of other settings, or holds numbers that are not finite.
pub fn load(path: &Path, device: &Device, config: &Config) -> Result<MetaTrainer, CheckpointError> {
    let (arrays, about) = read_safetensors(path)?;
    let refuse = |reason: String| CheckpointError::Content {
        path: path.display().to_string(),
        reason,
    };
    let entry = |key: &str| {
        about
            .get(key)
            .ok_or_else(|| refuse(format!("no `{key}` in it")))
    };
    let saved =
        Config::from_toml("its settings", entry(CONFIG)?).map_err(|e| refuse(e.to_string()))?;
    if let Some(difference) = config.difference(&saved) {
        return Err(refuse(format!("made with other settings: {difference}")));
    }
    let step = entry(OUTER_STEP)?
        .parse()
        .map_err(|_| refuse("no outer step in it".into()))?;
    let mut trainer = MetaTrainer::new(device, config)?;
    trainer.restore(&arrays, step).map_err(refuse)?;
    Ok(trainer)
}
