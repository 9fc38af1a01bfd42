//! Where the files of data sets with names are looked for.

use super::{Named, idx};
use crate::error::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A folder, and what named it.
#[derive(Clone, Debug)]
pub struct Place {
    pub(super) folder: PathBuf,
    /// What names it, if anything does.
    pub(super) by: Option<&'static str>,
}

/// How many names a message lists; a folder may hold thousands.
const LISTED: usize = 12;

impl Place {
    /// The folder of the flag `--data-dir`, else the one that a run remembers, else the one that the
    /// environment's `GTN_DATA_DIR` names, else `./data`.
    pub fn new(flag: Option<&Path>, remembered: Option<&Path>) -> Self {
        let env = std::env::var_os("GTN_DATA_DIR").filter(|dir| !dir.is_empty());
        let env = env.map(|folder| (PathBuf::from(folder), "GTN_DATA_DIR"));
        let remembered = remembered.map(|folder| (folder.to_owned(), "the run's data.toml"));
        let flag = flag.map(|folder| (folder.to_owned(), "--data-dir"));
        match flag.or(remembered).or(env) {
            Some((folder, by)) => Self {
                folder,
                by: Some(by),
            },
            None => Self {
                folder: "data".into(),
                by: None,
            },
        }
    }

    /// Why a data set is taken from there.
    pub(super) fn why(&self) -> String {
        match self.by {
            Some(by) => format!("{by} names it"),
            None => "it is there".to_owned(),
        }
    }

    /// The folder, and in it those whose name is that of the data set, as people spell it.
    pub(super) fn folders(&self, set: Named) -> Vec<PathBuf> {
        let squeezed = |name: &str| name.replace('-', "");
        let is = |path: &PathBuf| {
            let name = path.file_name().map(idx::plain);
            name.is_some_and(|name| squeezed(&name) == squeezed(set.name()))
        };
        let mut folders: Vec<PathBuf> = idx::entries(&self.folder);
        folders.retain(is);
        folders.push(self.folder.clone());
        folders
    }

    /// The error for a data set that is not there. It lists what is.
    pub(super) fn nothing(&self, set: Named, file: &str) -> Error {
        let (title, subfolder) = (set.title(), set.name());
        let Some(by) = self.by else {
            let where_ = "GTN_DATA_DIR is not set, none in ./data";
            let error = Error::data(format!("no {title} found ({where_})"));
            return error.hint("name its folder with --data-dir");
        };
        let places = format!("no {title} there or in its folder {subfolder}");
        Error::data(format!("{places}: no {file}"))
            .and(seen(&self.folder))
            .at(format!("{by} {}", self.folder.display()))
    }
}

/// Describes the contents of a folder in a few words.
pub(super) fn seen(folder: &Path) -> String {
    if !folder.is_dir() {
        let file = folder.exists();
        return if file {
            "it is a file"
        } else {
            "there is no such folder"
        }
        .to_owned();
    }
    let Ok(entries) = idx::listed(folder) else {
        return "it cannot be read".to_owned();
    };
    let names = entries.iter().filter_map(|entry| entry.file_name());
    let names: Vec<_> = names.take(LISTED).map(OsStr::to_string_lossy).collect();
    match entries.len() {
        0 => "it is empty".to_owned(),
        count if count > LISTED => {
            format!("seen: {}, and {} more", names.join(", "), count - LISTED)
        }
        _ => format!("seen: {}", names.join(", ")),
    }
}
