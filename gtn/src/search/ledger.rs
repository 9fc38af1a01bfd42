//! Results on the disk: a line of JSON for each, appended as soon as it is there.

use super::estimator::Source;
use crate::error::{Error, ErrorKind, Result};
use crate::run::run_folder::{make_folder, write_atomically};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// The results, in a search's folder.
const RESULTS: &str = "results.jsonl";
const SETTINGS: &str = "settings.json";

/// What a source gave for a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The network's code.
    pub network: String,
    /// The source's name.
    pub source: String,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Seconds that it took, those for planning among them.
    pub seconds: f64,
    /// Seconds for building, recording and planning.
    pub planning: f64,
}

impl Entry {
    fn key(&self) -> (String, String) {
        (self.network.clone(), self.source.clone())
    }
}

/// Numbers, or why there are none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// By column.
    Values(BTreeMap<String, f64>),
    /// In a sentence.
    Failed(String),
}

/// Results in a folder, for one process at a time.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    file: File,
    entries: Vec<Entry>,
    /// Networks and sources of the entries.
    known: HashSet<(String, String)>,
}

impl Ledger {
    /// Opens a folder, made where there is none, whose results are those of some settings. A last line that was cut off in
    /// writing is dropped.
    ///
    /// # Errors
    /// If the folder has results of other settings, or another process writes to it.
    pub fn open(folder: &Path, settings: &Value) -> Result<Self> {
        make_folder(folder)?;
        let path = folder.join(RESULTS);
        let failed = |error| Error::file("write", &path, &error);
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .read(true)
            .append(true)
            .open(&path)
            .map_err(failed)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(
                Error::run("another process is writing to this search").at(folder.display())
            );
        }
        let entries = whole_lines(&file).map_err(failed)?;
        let entries = entries.iter().map(|line| serde_json::from_slice(line));
        let entries = entries.collect::<Result<Vec<Entry>, _>>();
        let entries = entries
            .map_err(|error| Error::run(format!("a damaged line: {error}")).at(path.display()))?;
        check(folder, settings, entries.is_empty())?;
        let known = entries.iter().map(Entry::key).collect();
        Ok(Self {
            folder: folder.to_owned(),
            file,
            entries,
            known,
        })
    }

    /// What is there.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether a source's result for a network is there.
    pub fn has(&self, network: &str, source: Source) -> bool {
        self.known.contains(&(network.to_owned(), source.name()))
    }

    /// Appends a result: one call for the whole line, so that a killed process leaves all of it or a part at the end.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, entry: Entry) -> Result<()> {
        let mut line = serde_json::to_vec(&entry).map_err(Error::run)?;
        line.push(b'\n');
        let written = self.file.write_all(&line);
        written.map_err(|error| Error::file("write", &self.folder.join(RESULTS), &error))?;
        self.known.insert(entry.key());
        self.entries.push(entry);
        Ok(())
    }

    /// Writes a file beside the results, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_atomically(&self.folder.join(name), |file| file.write_all(bytes))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The lines of a file, without a last one that has no end, which is cut off.
fn whole_lines(file: &File) -> std::io::Result<Vec<Vec<u8>>> {
    let mut reader = BufReader::new(file);
    let (mut lines, mut line, mut end) = (Vec::new(), Vec::new(), 0);
    while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        end += line.len() as u64;
        lines.push(std::mem::take(&mut line));
    }
    if end < file.metadata()?.len() {
        file.set_len(end)?;
    }
    Ok(lines)
}

/// Compares settings with those that are there, or writes them.
fn check(folder: &Path, settings: &Value, fresh: bool) -> Result<()> {
    let path = folder.join(SETTINGS);
    let before = std::fs::read(&path)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    match before {
        Some(before) if before == *settings => Ok(()),
        Some(before) if !fresh => {
            let ours = settings.as_object().into_iter().flatten();
            let other = ours
                .filter(|(key, value)| before[key.as_str()] != **value)
                .map(|(key, value)| {
                    format!("{key} is {value} here and {} there", before[key.as_str()])
                });
            let difference = other.collect::<Vec<_>>().join(", ");
            let error = Error::run(format!(
                "{} has results of other settings: {difference}",
                folder.display()
            ));
            Err(error
                .of(ErrorKind::Usage)
                .hint("--out names another folder"))
        }
        None if !fresh => Err(Error::run(format!(
            "{} has results without {SETTINGS}",
            folder.display()
        ))),
        _ => {
            let bytes = serde_json::to_vec_pretty(settings).map_err(Error::run)?;
            write_atomically(&path, |file| file.write_all(&bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Teaching;

    fn entry(network: &str) -> Entry {
        let values = BTreeMap::from([("gtn".to_owned(), -2.856_997_773_051_262)]);
        Entry {
            network: network.to_owned(),
            source: "gtn".to_owned(),
            outcome: Outcome::Values(values),
            seconds: 1.5,
            planning: 0.1,
        }
    }

    #[test]
    fn results_come_back_without_a_line_that_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let settings = serde_json::json!({ "steps": 16 });
        let mut ledger = Ledger::open(dir.path(), &settings).unwrap();
        let failed = Entry {
            outcome: Outcome::Failed("it ran away".to_owned()),
            ..entry("02")
        };
        for entry in [entry("01"), failed.clone()] {
            ledger.append(entry).unwrap();
        }
        assert!(
            Ledger::open(dir.path(), &settings)
                .unwrap_err()
                .to_string()
                .contains("another process")
        );
        drop(ledger);
        let path = dir.path().join(RESULTS);
        let whole = std::fs::read(&path).unwrap();
        for cut in [&b"{\"network\":\"03\""[..], b"\x00"] {
            std::fs::write(&path, [&whole[..], cut].concat()).unwrap();
            let ledger = Ledger::open(dir.path(), &settings).unwrap();
            assert_eq!(ledger.entries(), [entry("01"), failed.clone()]);
            assert!(ledger.has(
                "02",
                Source::Training(Teaching {
                    real: false,
                    steps: None
                })
            ));
            assert!(!ledger.has(
                "03",
                Source::Training(Teaching {
                    real: false,
                    steps: None
                })
            ));
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        let other = Ledger::open(dir.path(), &serde_json::json!({ "steps": 8 })).unwrap_err();
        assert!(
            other
                .to_string()
                .ends_with("has results of other settings: steps is 8 here and 16 there"),
            "{other}"
        );
    }
}
