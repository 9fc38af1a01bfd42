//! A run's folder: its configuration, its metrics, its last checkpoint.
//!
//! Every file but the growing `metrics.jsonl` is written beside its final name and then renamed, so whatever
//! happens meanwhile (a full disk, a killed process, a power cut), the folder holds the old file or the new
//! one and never half of one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::text::quoted;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::Builder;

/// The configuration that the run follows, as TOML.
pub const CONFIG: &str = "config.toml";
/// What the run keeps of its data set, as TOML.
pub const DATA: &str = "data.toml";
/// One JSON object per line, each with its `outer_step`.
pub const METRICS: &str = "metrics.jsonl";
/// The accuracies whose order the run teaches, as CSV, if it does.
pub const ACCURACIES: &str = "accuracies.csv";
/// Everything that is needed to go on.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// The checkpoint whose learners were best on validation images.
pub const BEST: &str = "best.safetensors";
/// The checkpoint before the last, to go back to if numbers run away right after the last.
pub const PREVIOUS: &str = "previous.safetensors";
/// A checkpoint right after which numbers ran away, so that the previous one took its place.
pub const BROKEN: &str = "broken.safetensors";

/// The evaluation, as JSON.
pub const REPORT: &str = "report.json";

/// How the names of unfinished files begin.
const UNFINISHED: &str = ".unfinished-";

/// Writes a whole file, or leaves everything as it was.
///
/// `write` fills a new file in the same folder, which is brought to the disk and only then takes
/// the name `path`. Symbolic links are followed and stay.
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
/// If the file cannot be written, or `path` is something else than a file; what was there before is still there.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    replace(path, write).map_err(|error| Error::file("write", path, &error))
}

/// The file behind symbolic links, as a rename would replace the link. It would replace a device, too.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => fs::canonicalize(path),
        Ok(_) => Err(io::Error::other(
            "something that is no regular file is there",
        )),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Err(_) if path.is_symlink() => Err(io::Error::other("it is a link to what is not there")),
        Err(_) => Ok(path.to_owned()),
    }
}

fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let path = &behind_links(path)?;
    // An empty parent is the current folder.
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut builder = Builder::new();
    builder.prefix(UNFINISHED);
    // By default only the owner may read a temporary file, and the renamed file would keep that.
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
    last_checkpoint: Option<Saved>,
    /// Damage that a resumed run found in its metrics.
    odd: Vec<String>,
}

/// A checkpoint that is on the disk.
#[derive(Clone, Copy, Debug)]
struct Saved {
    outer_step: u64,
    bytes: u64,
}

/// A line of `metrics.jsonl`.
#[derive(Serialize)]
struct Line<'a, M> {
    outer_step: u64,
    #[serde(flatten)]
    metrics: &'a M,
}

/// The part of a line that decides whether it is kept.
#[derive(Deserialize)]
struct Step {
    outer_step: u64,
}

impl RunFolder {
    /// Makes the folder `path` for a new run. It may exist if it is empty, or if the run in it ended before
    /// its first checkpoint.
    pub fn create(path: &Path) -> Result<Self> {
        make_folder(path)?;
        let bare = is_bare(path).map_err(|e| Error::file("read", path, &e))?;
        if !bare {
            let error = Error::run(format!("{} is not empty", path.display()));
            return Err(error.hint(if path.join(CHECKPOINT).is_file() {
                let run = quoted(path);
                format!("--resume {run} goes on with the run there; or name another folder")
            } else {
                "--out names another folder".to_owned()
            }));
        }
        let folder = Self::open(path)?;
        folder.remove_unfinished()?;
        Ok(folder)
    }

    /// Makes `root/<dataset>-<preset>-<seed>-<number>` with the first free number for a new run.
    pub fn create_numbered(root: &Path, dataset: &str, preset: &str, seed: u64) -> Result<Self> {
        make_folder(root)?;
        let mut number = 1;
        loop {
            let path = root.join(format!("{dataset}-{preset}-{seed}-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => return Self::open(&path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(Error::file("write", &path, &error)),
            }
        }
    }

    /// The checkpoint of the run in the folder `path`, from which it can go on.
    pub fn checkpoint_in(path: &Path) -> Result<PathBuf> {
        let file = path.join(CHECKPOINT);
        match fs::metadata(&file) {
            Ok(found) if found.is_file() => Ok(file),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::file("read", &file, &error))
            }
            _ => {
                let error = Error::run(format!("no {CHECKPOINT} there")).at(path.display());
                let begun = path.join(CONFIG).is_file() && is_bare(path).unwrap_or(false);
                Err(if begun {
                    let run = quoted(path);
                    error.hint(format!("`gtn train --out {run}` begins that run again"))
                } else {
                    error.hint_if(earlier_checkpoint(path))
                })
            }
        }
    }

    /// Opens the folder of a run that goes on from its checkpoint, of outer step `outer_step`.
    ///
    /// Metrics of later outer steps are dropped, since the run will write them again, and so is a last line
    /// that was cut off in writing. [`RunFolder::odd`] lists other damage.
    pub fn resume(path: &Path, outer_step: u64) -> Result<Self> {
        Self::checkpoint_in(path)?;
        let metrics = path.join(METRICS);
        let missing = outer_step > 0 && !metrics.exists();
        let mut folder = Self::open(path)?;
        folder.saw_checkpoint(outer_step);
        folder.odd = folder
            .drop_metrics_after(outer_step)
            .map_err(|e| Error::file("write", &metrics, &e))?;
        if missing {
            let odd = format!("{} is missing: it begins again", metrics.display());
            folder.odd.push(odd);
        }
        folder.remove_unfinished()?;
        Ok(folder)
    }

    /// Damage in the metrics of a resumed run, a sentence for each.
    pub fn odd(&self) -> &[String] {
        &self.odd
    }

    fn open(path: &Path) -> Result<Self> {
        let file = path.join(METRICS);
        let metrics = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(&file)
            .map_err(|error| Error::file("write", &file, &error))?;
        hold(&metrics, path, "run")?;
        Ok(RunFolder {
            path: path.to_owned(),
            metrics,
            last_checkpoint: None,
            odd: Vec::new(),
        })
    }

    /// Drops the lines of later outer steps. Lines are in the order of their outer steps, so these are the
    /// end of the file, which can be cut off in one move. A damaged line further up therefore stays. Returns
    /// a sentence for each of those.
    fn drop_metrics_after(&self, outer_step: u64) -> io::Result<Vec<String>> {
        let mut lines = BufReader::new(&self.metrics);
        let (mut line, mut keep, mut end, mut number) = (Vec::new(), 0, 0, 0);
        // Numbers of damaged lines that stay; and of lines that go unless a line to keep follows them.
        let (mut odd, mut later) = (Vec::new(), Vec::new());
        while lines.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            number += 1;
            end += line.len() as u64;
            match serde_json::from_slice::<Step>(&line) {
                Ok(step) if step.outer_step <= outer_step => {
                    odd.append(&mut later);
                    keep = end;
                }
                Err(_) if later.is_empty() => {
                    odd.push(number);
                    keep = end;
                }
                _ => later.push(number),
            }
            line.clear();
        }
        if keep < self.metrics.metadata()?.len() {
            self.metrics.set_len(keep)?;
        }
        let path = self.path.join(METRICS);
        let damaged = |number| format!("{}: line {number} is damaged", path.display());
        Ok(odd.into_iter().map(damaged).collect())
    }

    /// Removes what a killed process left behind.
    fn remove_unfinished(&self) -> Result<()> {
        let read = |e: io::Error| Error::file("read", &self.path, &e);
        for entry in fs::read_dir(&self.path).map_err(read)? {
            let entry = entry.map_err(read)?;
            if is_unfinished(&entry) {
                let path = entry.path();
                fs::remove_file(&path).map_err(|e| Error::file("remove", &path, &e))?;
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
        self.last_checkpoint.map(|saved| saved.outer_step)
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

    /// Replaces the checkpoint by that of `outer_step`, and keeps the one before as the previous. If that
    /// fails, the last checkpoint stays as it was.
    pub fn save_checkpoint(
        &mut self,
        outer_step: u64,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        self.write(CHECKPOINT, |file| {
            write(file)?;
            file.flush()?;
            self.keep_last_as(PREVIOUS)
        })?;
        self.saw_checkpoint(outer_step);
        Ok(())
    }

    fn saw_checkpoint(&mut self, outer_step: u64) {
        let bytes = fs::metadata(self.path.join(CHECKPOINT)).map_or(0, |file| file.len());
        self.last_checkpoint = Some(Saved { outer_step, bytes });
    }

    /// Keeps the last checkpoint as the best one, so that later ones do not replace it.
    pub fn keep_best(&self) -> Result<()> {
        let kept = self.keep_last_as(BEST);
        kept.map_err(|e| self.failed(Error::file("write", &self.path.join(BEST), &e)))
    }

    /// Gives the last checkpoint a second name by a hard link, or by a copy where the file system has no
    /// links. The next checkpoint takes over the first name, and the old file lives on under the second.
    fn keep_last_as(&self, name: &str) -> io::Result<()> {
        let last = self.path.join(CHECKPOINT);
        if !last.exists() {
            return Ok(());
        }
        let [unfinished, kept] =
            [format!("{UNFINISHED}{name}"), name.to_owned()].map(|name| self.path.join(name));
        remove_if_there(&unfinished)?;
        if fs::hard_link(&last, &unfinished).is_err() {
            fs::copy(&last, &unfinished)?;
        }
        fs::rename(&unfinished, kept)?;
        // By POSIX, renaming does nothing if both are already names of one file, as after a kill right here.
        remove_if_there(&unfinished)
    }

    /// Makes the previous checkpoint the last one again; false if there is none. For a run that broke right
    /// after its last checkpoint, which is kept as the broken one.
    pub fn step_back(&mut self) -> Result<bool> {
        let [last, previous, broken] =
            [CHECKPOINT, PREVIOUS, BROKEN].map(|name| self.path.join(name));
        if !previous.exists() {
            return Ok(false);
        }
        self.keep_last_as(BROKEN)
            .map_err(|e| Error::file("write", &broken, &e))?;
        fs::rename(&previous, &last).map_err(|e| Error::file("write", &last, &e))?;
        self.last_checkpoint = None;
        Ok(true)
    }

    /// Appends a line with the outer step and the fields of `metrics`, a struct or a map.
    ///
    /// Numbers that are not finite become `null`: JSON cannot write them.
    pub fn append_metrics(&mut self, outer_step: u64, metrics: &impl Serialize) -> Result<()> {
        let line = Line {
            outer_step,
            metrics,
        };
        let mut line = serde_json::to_vec(&line)
            .map_err(|e| Error::run(format!("metrics are not an object of JSON: {e}")))?;
        line.push(b'\n');
        // One unbuffered call for the whole line, so that readers see each line at once.
        let written = self.metrics.write_all(&line);
        written.map_err(|e| self.failed(Error::file("write", &self.path.join(METRICS), &e)))
    }

    fn failed(&self, error: Error) -> Error {
        let Some(Saved { outer_step, bytes }) = self.last_checkpoint else {
            return error;
        };
        let state = match fs::metadata(self.path.join(CHECKPOINT)) {
            Ok(file) if file.len() == bytes => "intact",
            Ok(_) => "damaged",
            Err(_) => "gone",
        };
        error.and(format!(
            "the last checkpoint, of outer step {outer_step}, is {state}"
        ))
    }
}

/// How a run goes on from another checkpoint, where its last one is damaged, gone, or broken; `None` if it has no other.
pub fn earlier_checkpoint(run: &Path) -> Option<String> {
    let mut others = [PREVIOUS, BEST].into_iter();
    let name = others.find(|name| run.join(name).is_file())?;
    let [from, to] = [name, CHECKPOINT].map(|name| quoted(&run.join(name)));
    Some(format!(
        "{name} is an earlier checkpoint: after `cp {from} {to}` the run goes on from it"
    ))
}

/// Refuses a folder with a run for the results of another command, which would replace files of the run.
///
/// # Errors
/// Of usage, if there is one; `flag` names another folder.
pub fn refuse_run(folder: &Path, flag: &str) -> Result<()> {
    if !folder.join(CONFIG).is_file() {
        return Ok(());
    }
    let error = Error::usage("a run is there, whose files would be replaced").at(folder.display());
    Err(error.hint(format!("{flag} names another folder")))
}

/// Keeps other processes from writing to a folder as long as this file of it is open. Some network file systems have
/// no locks: there, nobody is kept.
pub(crate) fn hold(file: &File, folder: &Path, what: &str) -> Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let problem = format!("another process is writing to this {what}");
            Err(Error::run(problem).at(folder.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a file, if there is one.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_unfinished(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with(UNFINISHED)
}

/// Whether the folder holds no more than a run writes before its first checkpoint. An empty metrics file is
/// the first of these, so without one the files belong to something else.
fn is_bare(path: &Path) -> io::Result<bool> {
    let begun = fs::metadata(path.join(METRICS)).is_ok_and(|file| file.len() == 0);
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = [CONFIG, DATA, ACCURACIES, METRICS];
        if !begun || !(is_unfinished(&entry) || ours.iter().any(|own| name == *own)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The lines of a run's metrics that are JSON; a run that still goes on may be writing the last.
///
/// # Errors
/// If they cannot be read.
pub fn metrics(run: &Path) -> Result<Vec<Value>> {
    let path = run.join(METRICS);
    let text = fs::read_to_string(&path).map_err(|error| Error::file("read", &path, &error))?;
    let lines = text.lines().map(serde_json::from_str);
    Ok(lines.filter_map(std::result::Result::ok).collect())
}

/// Whether a folder has nothing in it but what a killed process left behind.
///
/// # Errors
/// If it cannot be read.
pub fn is_empty(path: &Path) -> Result<bool> {
    let read = |e: io::Error| Error::file("read", path, &e);
    for entry in fs::read_dir(path).map_err(read)? {
        if !is_unfinished(&entry.map_err(read)?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a folder, and those above it.
pub fn make_folder(path: &Path) -> Result<()> {
    let is_other = |p: &&Path| p.exists() && !p.is_dir();
    fs::create_dir_all(path).map_err(|error| match path.ancestors().find(is_other) {
        Some(file) => Error::run(format!(
            "{} is a file, and a folder is needed there",
            file.display()
        )),
        None => Error::file("write", path, &error),
    })
}

#[cfg(test)]
mod tests;
