//! A run's folder: its configuration, its metrics, its last checkpoint.
//!
//! Every file but the growing `metrics.jsonl` is written beside its final name and then renamed,
//! so whatever happens meanwhile (a full disk, a killed process, no current), the folder holds the
//! old file or the new one and never half of one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use tempfile::Builder;

/// The configuration that the run follows, as TOML.
pub const CONFIG: &str = "config.toml";
/// One JSON object per line, each with its `outer_step`.
pub const METRICS: &str = "metrics.jsonl";
/// Everything that is needed to go on: the last one only.
pub const CHECKPOINT: &str = "checkpoint.safetensors";

/// How the names of unfinished files begin.
const UNFINISHED: &str = ".unfinished-";

/// Writes a whole file, or leaves everything as it was.
///
/// `write` fills a new file in the same folder, which is brought to the disk and only then takes
/// the name `path`.
///
/// ```
/// use gtn::run::run_folder::write_atomically;
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("note");
/// write_atomically(&path, |file| file.write_all(b"done"))?;
/// assert_eq!(std::fs::read(&path)?, b"done");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the file cannot be written; what was there before is still there.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    replace(path, write).map_err(|error| Error::file("write", path, &error))
}

fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    // An empty parent is the current folder.
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut builder = Builder::new();
    builder.prefix(UNFINISHED);
    // Otherwise temporary files are for their owner's eyes only, and so would the result be.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.tempfile_in(folder)?;
    let mut buffered = BufWriter::new(file.as_file());
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // The rename itself is safe only once the folder is on the disk, too.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// The folder that a run writes to, for one process at a time.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    metrics: File,
    last_checkpoint: Option<u64>,
}

/// A line of `metrics.jsonl`.
#[derive(Serialize)]
struct Line<'a, M> {
    outer_step: u64,
    #[serde(flatten)]
    metrics: &'a M,
}

/// What has to be known of a line in order to keep or drop it.
#[derive(Deserialize)]
struct Step {
    outer_step: u64,
}

impl RunFolder {
    /// Makes the folder `path`, which may exist if it is empty, for a new run.
    pub fn create(path: &Path) -> Result<Self> {
        make_folder(path)?;
        let mut entries = fs::read_dir(path).map_err(|e| Error::file("read", path, &e))?;
        if entries.next().is_some() {
            let error = Error::run(format!("{} is not empty", path.display()));
            return Err(error.hint(format!(
                "--resume {} goes on with a run there; or name another folder",
                path.display()
            )));
        }
        Self::open(path, None)
    }

    /// Makes `root/<dataset>-<preset>-<seed>-<number>` with the first free number for a new run.
    pub fn create_numbered(root: &Path, dataset: &str, preset: &str, seed: u64) -> Result<Self> {
        make_folder(root)?;
        let mut number = 1;
        loop {
            let path = root.join(format!("{dataset}-{preset}-{seed}-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => return Self::open(&path, None),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(Error::file("write", &path, &error)),
            }
        }
    }

    /// The checkpoint of the run in the folder `path`, from which it can go on.
    pub fn checkpoint_in(path: &Path) -> Result<PathBuf> {
        let (file, folder) = (path.join(CHECKPOINT), path.display());
        let nothing = || format!("{folder} holds no run to resume: no {CHECKPOINT} there");
        Some(file)
            .filter(|file| file.is_file())
            .ok_or_else(|| Error::run(nothing()))
    }

    /// Opens the folder of a run that goes on from its checkpoint, of outer step `outer_step`.
    ///
    /// Metrics of later outer steps, which the run will come to again, are dropped, and so is a
    /// last line that was cut off in writing.
    pub fn resume(path: &Path, outer_step: u64) -> Result<Self> {
        Self::checkpoint_in(path)?;
        let folder = Self::open(path, Some(outer_step))?;
        folder
            .drop_metrics_after(outer_step)
            .map_err(|e| Error::file("write", &path.join(METRICS), &e))?;
        folder
            .remove_unfinished()
            .map_err(|e| Error::file("read", path, &e))?;
        Ok(folder)
    }

    fn open(path: &Path, last_checkpoint: Option<u64>) -> Result<Self> {
        let file = path.join(METRICS);
        let metrics = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(&file)
            .map_err(|error| Error::file("write", &file, &error))?;
        // Held until the process ends. Some network file systems have no locks: go without.
        if let Err(TryLockError::WouldBlock) = metrics.try_lock() {
            return Err(Error::run("another process is writing to this run").at(path.display()));
        }
        Ok(RunFolder {
            path: path.to_owned(),
            metrics,
            last_checkpoint,
        })
    }

    /// Lines are in the order of their outer steps, so what to drop is the file's end.
    fn drop_metrics_after(&self, outer_step: u64) -> io::Result<()> {
        let mut lines = BufReader::new(&self.metrics);
        let (mut line, mut keep) = (Vec::new(), 0);
        while lines.read_until(b'\n', &mut line)? > 0 {
            let whole = line.ends_with(b"\n");
            let step = serde_json::from_slice::<Step>(&line).ok();
            if !whole || step.is_none_or(|step| step.outer_step > outer_step) {
                break;
            }
            keep += line.len() as u64;
            line.clear();
        }
        self.metrics.set_len(keep)
    }

    /// Removes what a killed process left behind.
    fn remove_unfinished(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The outer step of the checkpoint that the folder holds, if any.
    pub fn last_checkpoint(&self) -> Option<u64> {
        self.last_checkpoint
    }

    /// Writes the configuration, as TOML.
    pub fn write_config(&self, toml: &str) -> Result<()> {
        self.write(CONFIG, |file| file.write_all(toml.as_bytes()))
    }

    /// Writes a file of the folder, whole or not at all.
    pub fn write(
        &self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        write_atomically(&self.path.join(name), write).map_err(|error| self.failed(error))
    }

    /// Replaces the checkpoint by that of `outer_step`; should that fail, the last one stays.
    pub fn save_checkpoint(
        &mut self,
        outer_step: u64,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        self.write(CHECKPOINT, write)?;
        self.last_checkpoint = Some(outer_step);
        Ok(())
    }

    /// Appends a line with the outer step and the fields of `metrics`, a struct or a map.
    ///
    /// What is not finite becomes `null`: JSON has no word for it.
    pub fn append_metrics(&mut self, outer_step: u64, metrics: &impl Serialize) -> Result<()> {
        let line = Line {
            outer_step,
            metrics,
        };
        let mut line = serde_json::to_vec(&line)
            .map_err(|e| Error::run(format!("metrics are not an object of JSON: {e}")))?;
        line.push(b'\n');
        // One call for the whole line, nothing kept back: readers see lines as they come.
        let written = self.metrics.write_all(&line);
        written.map_err(|e| self.failed(Error::file("write", &self.path.join(METRICS), &e)))
    }

    fn failed(&self, error: Error) -> Error {
        match self.last_checkpoint {
            Some(step) => error.and(format!(
                "the last checkpoint, of outer step {step}, is intact"
            )),
            None => error,
        }
    }
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| match path.ancestors().find(|p| p.is_file()) {
        Some(file) => Error::run(format!(
            "{} is a file, and a folder is needed there",
            file.display()
        )),
        None => Error::file("write", path, &error),
    })
}

#[cfg(test)]
mod tests;
