//! The description of a study, and its runs.

use super::draws::Draws;
use crate::error::{Error, Result};
use crate::run::config::{Config, Preset};
use crate::run::run_folder::write_atomically;
use crate::run::settings::{Overrides, as_word};
use crate::run::values::name_of;
use crate::text;
use clap::ValueEnum;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use toml::{Spanned, Table, Value};

/// The most runs of a study; more are a mistake.
const MOST: u64 = 10_000;

/// A file that describes a study.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: Option<String>,
    preset: Option<String>,
    seeds: Option<u64>,
    #[serde(default)]
    settings: Table,
    variants: BTreeMap<Spanned<String>, Table>,
    draws: Option<Draws>,
}

/// Runs that are to be compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Study {
    /// Above its pictures.
    pub title: String,
    /// The names of the variants, in the order of the file.
    pub variants: Vec<String>,
    /// Settings that are drawn.
    pub drawn: Vec<String>,
    /// All runs: first of every variant the first, then of every variant the second, and so on.
    pub runs: Vec<Run>,
}

/// One run of a study.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its folder, and its file of settings: the variant's name and a number.
    pub name: String,
    /// The number of its variant.
    pub variant: usize,
    /// Its draw, from 1 on, if settings are drawn.
    pub draw: Option<u64>,
    /// What was drawn, as text, by name.
    pub drawn: BTreeMap<String, String>,
    /// All its settings.
    pub config: Config,
}

impl Study {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or as [`Study::from_toml`].
    pub fn read(path: &Path) -> Result<Self> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::from_toml(&path.display().to_string(), &stem, &text::read(path)?)
    }

    /// The study that a text describes. If the text has no title, `title` is used.
    ///
    /// # Errors
    /// If a name in it is unknown, or the settings of a run make no sense; it names the origin.
    pub fn from_toml(origin: &str, title: &str, text: &str) -> Result<Self> {
        let file: File = text::parse_toml(text).map_err(|error| error.at(origin))?;
        file.study(origin, title)
    }

    /// Writes the settings of every run into a folder. Refuses to if a run has different settings there.
    ///
    /// # Errors
    /// If one has, or a file cannot be written.
    pub fn keep(&self, folder: &Path) -> Result<()> {
        self.runs.iter().try_for_each(|run| run.compare(folder))?;
        for run in &self.runs {
            let (path, text) = (folder.join(run.settings()), run.config.to_toml());
            if !path.exists() {
                write_atomically(&path, |file| file.write_all(text.as_bytes()))?;
            }
        }
        Ok(())
    }
}

impl Run {
    /// The file of its settings, in the folder of the study.
    pub fn settings(&self) -> String {
        format!("{}.toml", self.name)
    }

    /// Refuses settings that differ from those in a folder, if there are any.
    fn compare(&self, folder: &Path) -> Result<()> {
        let path = folder.join(self.settings());
        if !path.exists() {
            return Ok(());
        }
        let there = Config::from_toml(&path.display().to_string(), &text::read(&path)?)?;
        let change = |(name, values): (&String, &Value)| {
            format!("{name} is {} here and {} there", values[1], values[0])
        };
        let changes: Vec<String> = self.config.changes(&there).iter().map(change).collect();
        if changes.is_empty() {
            return Ok(());
        }
        let (folder, changes) = (folder.display(), changes.join(", "));
        let message = format!("{folder} has {} with other settings: {changes}", self.name);
        Err(Error::usage(message).hint("--out names another folder"))
    }

    /// What was drawn, in words.
    pub fn words(&self) -> String {
        let words = self
            .drawn
            .iter()
            .map(|(name, value)| format!("{name} {value}"));
        words.collect::<Vec<_>>().join(", ")
    }
}

impl File {
    fn study(self, origin: &str, title: &str) -> Result<Study> {
        let seeds = self.seeds.unwrap_or(1);
        let count = self.draws.as_ref().map_or(1, |draws| draws.count);
        let all = seeds.saturating_mul(count);
        let all = all.saturating_mul(self.variants.len() as u64);
        if !(1..=MOST).contains(&all) {
            let message = format!("a study has 1 to {MOST} runs, and this {all}");
            return Err(Error::usage(message).at(origin));
        }
        let variants = self.settings(origin)?;
        let place = format!("{origin}, draws.settings");
        let draws = self.draws.as_ref().map(Draws::all).transpose();
        let draws = draws.map_err(|error| error.at(&place))?;
        let mut runs = Vec::new();
        let numbered = (1..=seeds).flat_map(|seed| (1..=count).map(move |draw| (seed, draw)));
        for (number, (seed, draw)) in (1..).zip(numbered) {
            let drawn = draws.as_ref().map(|draws| draws[draw as usize - 1].clone());
            let drawn = drawn.unwrap_or_default();
            let change = section(&place, drawn.clone())?.with("seed", Some(seed));
            let word = |(name, value): (&String, &Value)| Some((name.clone(), as_word(value)?));
            for (variant, (name, values)) in variants.iter().enumerate() {
                let (name, mut values) = (format!("{name}-{number}"), values.clone());
                values.change(change.clone());
                let config = values.config();
                runs.push(Run {
                    config: config.map_err(|error| error.at(format!("{origin}, run {name}")))?,
                    name,
                    variant,
                    draw: draws.is_some().then_some(draw),
                    drawn: drawn.iter().filter_map(word).collect(),
                });
            }
        }
        Ok(Study {
            title: self.title.unwrap_or_else(|| title.to_owned()),
            variants: variants.into_iter().map(|(name, _)| name).collect(),
            drawn: runs[0].drawn.keys().cloned().collect(),
            runs,
        })
    }

    /// The names of the variants, in the order of the file, and their settings, without what is drawn.
    fn settings(&self, origin: &str) -> Result<Vec<(String, Overrides)>> {
        let mut values = self.preset(origin)?.values();
        values.change(section(
            &format!("{origin}, settings"),
            self.settings.clone(),
        )?);
        let mut variants: Vec<_> = self.variants.iter().collect();
        variants.sort_by_key(|(name, _)| name.span().start);
        let own = |(name, own): (&Spanned<String>, &Table)| {
            let name = name.get_ref();
            let place = format!("{origin}, variants.{name}");
            if !is_name(name) {
                let message = "a variant's name has letters, digits, spaces and -_+. and begins with a letter or digit";
                return Err(Error::usage(message).at(place));
            }
            let mut values = values.clone();
            values.change(section(&place, own.clone())?);
            Ok((name.clone(), values))
        };
        variants.into_iter().map(own).collect()
    }

    fn preset(&self, origin: &str) -> Result<Preset> {
        let Some(name) = &self.preset else {
            return Ok(Preset::default());
        };
        Preset::from_str(name, false).map_err(|_| {
            let names: Vec<_> = Preset::value_variants().iter().map(name_of).collect();
            let names = names.join(", ");
            Error::usage(format!("there is no preset `{name}`, but {names}")).at(origin)
        })
    }
}

/// Settings of a file's section.
fn section(place: &str, table: Table) -> Result<Overrides> {
    if table.contains_key("seed") {
        let error = Error::usage("seed is no setting of a study").at(place);
        return Err(error.hint("seeds = 3 runs every variant with the seeds 1 to 3"));
    }
    Overrides::from_table(place, table)
}

/// Whether a folder can have such a name.
fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || " -_+.".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study(text: &str) -> Result<Study> {
        Study::from_toml("s.toml", "s", text)
    }

    #[test]
    fn every_variant_has_the_same_draws() {
        let text = "seeds = 2\npreset = 'mnist'\nsettings.inner_steps = 3\n[variants.z]\n[variants.a]\nnorm = 'none'\n\
                    [draws]\ncount = 3\n[draws.settings]\nouter_lr = { from = 0.01, to = 0.1 }\nnoise = [4, 8]\n";
        let study = study(text).unwrap();
        assert_eq!(
            (&*study.title, &study.variants[..]),
            ("s", &["z".to_owned(), "a".to_owned()][..])
        );
        assert_eq!(study.drawn, ["noise", "outer_lr"]);
        let names: Vec<&str> = study.runs.iter().map(|run| &*run.name).collect();
        assert_eq!(names[..4], ["z-1", "a-1", "z-2", "a-2"]);
        assert_eq!(names.len(), 12);
        for pair in study.runs.chunks(2) {
            assert_eq!(
                (&pair[0].drawn, pair[0].draw),
                (&pair[1].drawn, pair[1].draw)
            );
            let changes = pair[1].config.changes(&pair[0].config);
            assert_eq!(changes.keys().collect::<Vec<_>>(), ["norm"]);
            let config = &pair[0].config;
            assert_eq!(pair[0].drawn["outer_lr"], config.outer_lr.to_string());
            assert_eq!((config.inner_steps, config.inner_batch), (3, 128));
        }
        let seeds: Vec<u64> = study.runs.iter().map(|run| run.config.seed).collect();
        assert_eq!(seeds, [[1; 6], [2; 6]].concat());
        assert_eq!(study.runs[0].drawn, study.runs[6].drawn);
    }

    #[test]
    fn the_studies_of_the_documents_are_sound() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/studies"));
        let mut runs = Vec::new();
        for name in ["ablations", "curricula", "weight-norm"] {
            let path = folder.join(name).with_extension("toml");
            runs.push(Study::read(&path).unwrap().runs.len());
        }
        assert_eq!(runs, [45, 4, 40]);
    }

    #[test]
    fn names_may_have_dashes() {
        let text = "preset = 'mnist'\nsettings.inner-steps = 3\n[variants.a]\ninner-optimizer = 'adam'\n\
                    [draws]\ncount = 2\n[draws.settings]\nouter-lr = [0.1, 0.2]\n";
        let dashes = study(text).unwrap();
        assert_eq!(dashes.drawn, ["outer_lr"]);
        assert_eq!(dashes, study(&text.replace('-', "_")).unwrap());
    }

    #[test]
    fn what_is_wrong_is_named_in_one_line() {
        for (text, wanted) in [
            ("", "s.toml: line 1: missing field `variants`"),
            ("variants.a = 3", "line 1: invalid type: integer `3`"),
            (
                "[variants.a]\n[variant.b]",
                "line 2: unknown field `variant`, expected one of `title`,",
            ),
            (
                "[variants.a]\ninner_step = 3",
                "s.toml, variants.a: unexpected argument '--inner-step' found",
            ),
            (
                "settings.inner_steps = 0\n[variants.a]",
                "s.toml, settings: invalid value '0' for",
            ),
            (
                "[variants.a]\nseed = 3",
                "s.toml, variants.a: seed is no setting of a study",
            ),
            (
                "[variants.'a/b']",
                "s.toml, variants.a/b: a variant's name has letters,",
            ),
            (
                "preset = 'mnits'\n[variants.a]",
                "s.toml: there is no preset `mnits`, but quick, strong, any, search,",
            ),
            (
                "seeds = 0\n[variants.a]",
                "s.toml: a study has 1 to 10000 runs, and this 0",
            ),
            (
                "[variants]",
                "s.toml: a study has 1 to 10000 runs, and this 0",
            ),
            (
                "[variants.a]\n[draws]\ncount = 2\nsettings.outer_lr = 3",
                "s.toml, draws.settings: outer_lr is no list",
            ),
            (
                "[variants.a]\n[draws]\ncount = 2\nsettings.outer_l = [3]",
                "s.toml, draws.settings: unexpected argument",
            ),
            (
                "[variants.a]\ngrow_steps = '64:3'",
                "s.toml, run a-1: --grow-steps begins with 64",
            ),
        ] {
            let error = study(text).unwrap_err().to_string();
            assert!(
                error.contains(wanted) && error.lines().count() == 1,
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn runs_of_other_settings_are_refused_and_new_ones_added() {
        let dir = tempfile::tempdir().unwrap();
        let keep = |text: &str| study(text).unwrap().keep(dir.path());
        keep("variants.a.noise = 3").unwrap();
        keep("seeds = 2\nvariants.a.noise = 3\nvariants.b = {}").unwrap();
        let error = keep("variants.c = {}\nvariants.a.noise = 4")
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("has a-1 with other settings: noise is 4 here and 3 there"),
            "{error}"
        );
        assert!(dir.path().join("b-2.toml").exists() && !dir.path().join("c-1.toml").exists());
    }
}
