//! Text files of a user, such as settings, learners and tables.

use crate::error::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Far above any real file: settings take a kilobyte, and the largest tables two megabytes. Without a limit,
/// reading a device such as `/dev/zero` would never end.
const LARGEST_FILE: u64 = 1 << 26;

/// Reads a text file.
///
/// # Errors
/// If it cannot be read, or has more than 64 MiB.
pub(crate) fn read(path: &Path) -> Result<String> {
    let read = || {
        let mut text = String::new();
        let mut file = File::open(path)?.take(LARGEST_FILE + 1);
        if file.read_to_string(&mut text)? as u64 > LARGEST_FILE {
            return Err(io::Error::other("it has more than 64 MiB"));
        }
        Ok(text)
    };
    read().map_err(|error| Error::file("read", path, &error).of(ErrorKind::Usage))
}

/// A path as a word of a command line.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:=@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The settings here that are others there, in words.
pub(crate) fn differences(here: &Map<String, Value>, there: &Map<String, Value>) -> Vec<String> {
    let other = |name: &String| there.get(name).unwrap_or(&Value::Null);
    let differing = here.iter().filter(|(name, value)| other(name) != *value);
    let words = |(name, value)| format!("{name} is {value} here and {} there", other(name));
    differing.map(words).collect()
}

/// Parses TOML.
///
/// # Errors
/// If it makes no sense; the error names the line.
pub(crate) fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let before = text.get(..error.span().map_or(0, |span| span.start));
        let line = before.unwrap_or_default().matches('\n').count() + 1;
        Error::usage(error.message()).at(format!("line {line}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_single_words() {
        for (path, word) in [
            ("runs/a-1", "runs/a-1"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$x", "'$x'"),
        ] {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }
}
