//! Records on disk: a line of JSON for each, appended as soon as it exists.

use super::run_folder::{hold, make_folder, write_atomically};
use crate::error::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// The contents of a line.
pub trait Record: Serialize + DeserializeOwned {
    /// What it is a record of.
    fn key(&self) -> String;
}

/// Records in a folder, for one process at a time.
#[derive(Debug)]
pub struct Ledger<R> {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    entries: Vec<R>,
    /// Their keys.
    known: HashSet<String>,
}

impl<R: Record> Ledger<R> {
    /// Opens a file in a folder, both made where there are none. A last line that was cut off in writing is dropped.
    ///
    /// # Errors
    /// If another process writes to it, or a line is damaged.
    pub fn open_file(folder: &Path, name: &str) -> Result<Self> {
        make_folder(folder)?;
        let path = folder.join(name);
        let failed = |error| Error::file("write", &path, &error);
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .read(true)
            .append(true)
            .open(&path)
            .map_err(failed)?;
        hold(&file, folder, "folder")?;
        let entries = whole_lines(&file).map_err(failed)?;
        let read = |(number, line): (usize, &Vec<u8>)| {
            serde_json::from_slice(line).map_err(|error| {
                let error = Error::run(format!("line {number} is damaged: {error}"));
                error
                    .at(path.display())
                    .hint("without that line the rest is used, and what it had is computed again")
            })
        };
        let entries = (1..).zip(&entries).map(read).collect::<Result<Vec<R>>>()?;
        let known = entries.iter().map(R::key).collect();
        Ok(Self {
            folder: folder.to_owned(),
            path,
            file,
            entries,
            known,
        })
    }

    /// All records, in the order of the file.
    pub fn entries(&self) -> &[R] {
        &self.entries
    }

    /// Whether there is a record of a key.
    pub fn knows(&self, key: &str) -> bool {
        self.known.contains(key)
    }

    /// Appends a record: one call for the whole line, so that a killed process leaves all of it or a part at the end.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, entry: R) -> Result<()> {
        let mut line = serde_json::to_vec(&entry).map_err(Error::run)?;
        line.push(b'\n');
        let written = self.file.write_all(&line);
        written.map_err(|error| Error::file("write", &self.path, &error))?;
        self.remember(entry);
        Ok(())
    }

    /// Adds a record that is not written: it is known until this process ends.
    pub fn remember(&mut self, entry: R) {
        self.known.insert(entry.key());
        self.entries.push(entry);
    }

    /// Writes a file beside the records, whole or not at all.
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

/// The complete lines of a file. A last line without a line end is removed from the file.
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
