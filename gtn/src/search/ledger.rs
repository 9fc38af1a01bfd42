//! Results on disk: a line of JSON for each, appended as soon as it exists.

use super::estimator::Source;
use crate::error::{Error, ErrorKind, Result};
use crate::run::ledger::{self, Record};
use crate::run::run_folder::{remove_if_there, write_atomically};
use crate::text::differences;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// The results, in a search's folder.
const RESULTS: &str = "results.jsonl";
const SETTINGS: &str = "settings.json";
/// How real images teach, tuned for these settings.
pub const RECIPES: &str = "recipes.json";

/// What a source gave for a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The network's code.
    pub network: String,
    /// The source's name.
    pub source: String,
    /// The result.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Seconds that it took, planning included.
    pub seconds: f64,
    /// Seconds for building, recording and planning.
    pub planning: f64,
}

impl Record for Entry {
    fn key(&self) -> String {
        key(&self.network, &self.source)
    }
}

fn key(network: &str, source: &str) -> String {
    format!("{network} {source}")
}

/// Numbers, or why there are none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// By column.
    Values(BTreeMap<String, f64>),
    /// Why the network has none, in a sentence.
    Failed(String),
    /// Why there are none at the moment: too little memory, or an error of the device.
    Postponed(String),
}

/// The results of a search.
pub type Ledger = ledger::Ledger<Entry>;

impl Ledger {
    /// Opens a folder, which is made if there is none. Its results must be of these settings.
    ///
    /// # Errors
    /// If the folder has results of other settings, or another process writes to it.
    pub fn open(folder: &Path, settings: &Value) -> Result<Self> {
        let ledger = Self::open_file(folder, RESULTS)?;
        check(folder, settings, ledger.entries().is_empty())?;
        Ok(ledger)
    }

    /// Adds a result. A postponed one is not written, so the next command tries it again.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, entry: Entry) -> Result<()> {
        if matches!(entry.outcome, Outcome::Postponed(_)) {
            self.remember(entry);
            return Ok(());
        }
        self.append(entry)
    }

    /// How many results are postponed.
    pub fn postponed(&self) -> usize {
        let postponed = |entry: &&Entry| matches!(entry.outcome, Outcome::Postponed(_));
        self.entries().iter().filter(postponed).count()
    }

    /// Whether a source's result for a network is there.
    pub fn has(&self, network: &str, source: Source) -> bool {
        self.knows(&key(network, &source.name()))
    }
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
            let difference = differences(&by_name(settings), &by_name(&before)).join(", ");
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
            // Those of other settings, whose search ended before its first result.
            remove_if_there(&folder.join(RECIPES))
                .map_err(|error| Error::file("remove", &folder.join(RECIPES), &error))?;
            let bytes = serde_json::to_vec_pretty(settings).map_err(Error::run)?;
            write_atomically(&path, |file| file.write_all(&bytes))
        }
    }
}

/// Settings by name. Those of the run are one text of TOML, and are taken apart.
fn by_name(settings: &Value) -> Map<String, Value> {
    let mut named = settings.as_object().cloned().unwrap_or_default();
    let run = named.get("run").and_then(Value::as_str);
    let run: Option<Map<String, Value>> = run.and_then(|text| toml::from_str(text).ok());
    if let Some(run) = run {
        named.remove("run");
        named.extend(
            run.into_iter()
                .map(|(name, value)| (format!("run.{name}"), value)),
        );
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::{Estimator, Teaching};

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
    fn a_postponed_result_is_known_until_the_folder_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let source = "gtn".parse::<Estimator>().unwrap().sources()[0];
        let open = || Ledger::open(dir.path(), &Value::Null).unwrap();
        let mut ledger = open();
        let outcome = Outcome::Postponed("too little memory".to_owned());
        let postponed = Entry {
            outcome,
            ..entry("02")
        };
        ledger.add(entry("01")).unwrap();
        ledger.add(postponed).unwrap();
        assert!(ledger.has("02", source) && ledger.postponed() == 1);
        drop(ledger);
        let mut ledger = open();
        assert!(ledger.has("01", source) && !ledger.has("02", source));
        ledger.add(entry("02")).unwrap();
        assert_eq!(ledger.entries(), [entry("01"), entry("02")]);
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

    #[test]
    fn of_other_runs_what_differs_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let settings = |lr: f64| {
            let run = format!("outer_lr = {lr}\nseed = 1\n");
            serde_json::json!({ "run": run, "seeds": 1 })
        };
        let mut ledger = Ledger::open(dir.path(), &settings(0.5)).unwrap();
        ledger.add(entry("01")).unwrap();
        drop(ledger);
        let error = Ledger::open(dir.path(), &settings(0.25)).unwrap_err();
        let words = "of other settings: run.outer_lr is 0.25 here and 0.5 there";
        assert!(error.to_string().ends_with(words), "{error}");
    }

    #[test]
    fn recipes_of_other_settings_go_with_these() {
        let dir = tempfile::tempdir().unwrap();
        let recipes = dir.path().join(RECIPES);
        for (steps, stay) in [(16, false), (16, true), (8, false)] {
            std::fs::write(&recipes, "{}").unwrap();
            Ledger::open(dir.path(), &serde_json::json!({ "steps": steps })).unwrap();
            assert_eq!(recipes.exists(), stay, "{steps}");
        }
    }
}
