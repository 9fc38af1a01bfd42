//! Settings: a preset, over it a TOML file, over that the flags.

use crate::data::{CLASSES, DatasetChoice, SIDE};
use crate::nn::widths::Widths;
use crate::nn::{Generator, GeneratorConfig, Learner, LearnerKind, Norm};
use crate::outer::curriculum::Curriculum;
use autograd::{Horizon, Mode, Policy};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::path::Path;
use thiserror::Error;
use toml::Table;

/// A complete set of settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// Small learners, about five minutes on two cores
    #[default]
    Quick,
    /// The published setting for MNIST, hours on a CPU
    Mnist,
}

impl Preset {
    /// Its name on the command line and in run folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Mnist => "mnist",
        }
    }

    fn toml(self) -> &'static str {
        match self {
            Self::Quick => include_str!("../../presets/quick.toml"),
            Self::Mnist => include_str!("../../presets/mnist.toml"),
        }
    }
}

/// How derivatives of inner steps are taken; see [`Mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ModeName {
    /// Forward tangent of the gradient: less memory
    Mixed,
    /// Reverse over reverse: the reference
    Reverse,
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Mixed => Self::Mixed,
            ModeName::Reverse => Self::Reverse,
        }
    }
}

/// Everything that decides what a run computes. What each is for stands at its flag, in [`Flags`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the flags of the same names have the words")]
pub struct Config {
    pub seed: u64,
    pub dataset: DatasetChoice,
    pub outer_steps: u64,
    pub inner_steps: usize,
    pub inner_batch: usize,
    pub outer_batch: usize,
    pub outer_every: usize,
    #[serde(default = "one")]
    pub learners_per_step: usize,
    pub curriculum: Curriculum,
    pub learner: LearnerKind,
    pub norm: Norm,
    pub widths: Widths,
    pub noise: usize,
    pub generator_hidden: usize,
    pub generator_channels: [usize; 2],
    pub inner_lr: f64,
    pub inner_momentum: f64,
    pub outer_lr: f64,
    pub outer_lr_end: f64,
    pub outer_beta1: f64,
    pub outer_beta2: f64,
    pub outer_eps: f64,
    pub clip: f64,
    #[serde(with = "as_text")]
    pub schedule: Policy,
    #[serde(default = "one")]
    pub segments: usize,
    pub mode: ModeName,
    pub validate_every: u64,
    pub checkpoint_every: u64,
    pub learners: usize,
}

/// What a setting was before there was one: folders of runs from that time can go on.
fn one() -> usize {
    1
}

/// The settings as flags; those not given stay as preset and file have them.
#[derive(Clone, Debug, Default, Args, Serialize)]
pub struct Flags {
    /// Seed of all random numbers
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        help_heading = "Run"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Data set; files are looked for in --data-dir, `GTN_DATA_DIR` and ./data
    #[arg(long, value_enum, help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetChoice>,
    /// Outer steps: updates of the generator
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        help_heading = "Sizes"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer_steps: Option<u64>,
    /// Inner steps T: updates of a learner, on one synthetic batch each
    #[arg(
        long,
        value_name = "T",
        allow_negative_numbers = true,
        help_heading = "Sizes"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner_steps: Option<usize>,
    /// Images in a synthetic batch
    #[arg(
        long,
        value_name = "B",
        allow_negative_numbers = true,
        help_heading = "Sizes"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner_batch: Option<usize>,
    /// Real images in each term of the meta-loss
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        help_heading = "Sizes"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer_batch: Option<usize>,
    /// The meta-loss sums the real-data loss after every K-th inner step and after the last
    #[arg(
        long,
        value_name = "K",
        allow_negative_numbers = true,
        help_heading = "Sizes"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer_every: Option<usize>,
    /// Learners that an outer step trains at once on the same synthetic batches; the meta-loss is their mean
    #[arg(
        long,
        value_name = "K",
        allow_negative_numbers = true,
        help_heading = "Sizes"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learners_per_step: Option<usize>,
    /// In which order a learner sees what
    #[arg(long, value_enum, help_heading = "Networks")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub curriculum: Option<Curriculum>,
    /// Structure of the learners
    #[arg(long, value_enum, help_heading = "Networks")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learner: Option<LearnerKind>,
    /// Normalisation in the learners
    #[arg(long, value_enum, help_heading = "Networks")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm: Option<Norm>,
    /// Widths of the learners' layers: a number, or a range to draw from, for each but the last
    #[arg(long, value_name = "N-N,…", help_heading = "Networks")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub widths: Option<Widths>,
    /// Length of a noise vector
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        help_heading = "Networks"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<usize>,
    /// Width of the generator's first layer
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        help_heading = "Networks"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator_hidden: Option<usize>,
    /// Channels of the generator's small images (7×7, then 14×14)
    #[arg(long, value_name = "N,N", value_parser = channels, help_heading = "Networks")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator_channels: Option<[usize; 2]>,
    /// Inner learning rate to start from; each step's own is learned
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        help_heading = "Optimisers"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner_lr: Option<f64>,
    /// Inner momentum to start from; each step's own is learned
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        help_heading = "Optimisers"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner_momentum: Option<f64>,
    /// Adam's learning rate in the outer loop
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        help_heading = "Optimisers"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer_lr: Option<f64>,
    /// The fraction of it that the cosine decay ends at
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        help_heading = "Optimisers"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer_lr_end: Option<f64>,
    /// Adam's decay of the mean gradient
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        help_heading = "Optimisers"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer_beta1: Option<f64>,
    /// Adam's decay of the mean square
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        help_heading = "Optimisers"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer_beta2: Option<f64>,
    /// What Adam adds to the root of the mean square
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        help_heading = "Optimisers"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer_eps: Option<f64>,
    /// Longest meta-gradient, by its norm over all arrays; a longer one is shortened. 0: any length
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        help_heading = "Optimisers"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<f64>,
    /// What to keep between the sweeps: store-all, per-step, every-K, binomial-C (or binomial-C-prelude, with images),
    /// auto, budget-SIZE (as 64MiB) or, truncated, window-W
    #[arg(long, value_name = "NAME", value_parser = schedule, help_heading = "Engine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Segments that a step's gradient is cut into: less memory for a deep learner, and more work
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        help_heading = "Engine"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments: Option<usize>,
    /// How derivatives of inner steps are taken
    #[arg(long, value_enum, help_heading = "Engine")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ModeName>,
    /// Outer steps between two looks at validation images
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        help_heading = "Run"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validate_every: Option<u64>,
    /// Outer steps between two checkpoints
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        help_heading = "Run"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<u64>,
    /// Fresh learners that the evaluation trains
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        help_heading = "Run"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learners: Option<usize>,
}

fn channels(text: &str) -> Result<[usize; 2], String> {
    let numbers: Result<Vec<usize>, _> = text.split(',').map(|n| n.trim().parse()).collect();
    numbers
        .ok()
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| "two numbers with a comma between them are needed, as in 64,32".to_owned())
}

fn schedule(text: &str) -> Result<String, String> {
    let parsed: Result<Policy, _> = text.parse();
    parsed.map(|s| s.to_string()).map_err(|e| e.to_string())
}

/// A setting is wrong.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file of settings cannot be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// The file of settings is no TOML, or has a setting that does not exist or of another type.
    #[error("{origin}: {reason}")]
    Parse {
        /// The file, or `settings`.
        origin: String,
        /// What is wrong, in one line.
        reason: String,
    },
    /// A value that makes no sense.
    #[error("{key} is {value}: {wanted}")]
    Value {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        wanted: String,
    },
}

impl Config {
    /// The settings of a preset.
    pub fn preset(preset: Preset) -> Self {
        Self::resolve(preset, None, &Flags::default())
            .expect("presets are complete: a test says so")
    }

    /// The settings of a preset, changed by a file's and then by flags.
    ///
    /// # Errors
    /// If the file cannot be read, or the settings make no sense together.
    pub fn resolve(
        preset: Preset,
        file: Option<&Path>,
        flags: &Flags,
    ) -> Result<Self, ConfigError> {
        let mut table = parse(preset.name(), preset.toml())?;
        if let Some(path) = file {
            let origin = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Read {
                path: origin.clone(),
                reason: e.to_string(),
            })?;
            lay_over(&mut table, parse(&origin, &text)?);
        }
        let flags = Table::try_from(flags).expect("flags are plain values");
        lay_over(&mut table, flags);
        let config = from_table("settings", table)?;
        config.check()?;
        Ok(config)
    }

    /// Reads what [`Config::to_toml`] wrote.
    ///
    /// # Errors
    /// If it is something else.
    pub fn from_toml(origin: &str, text: &str) -> Result<Self, ConfigError> {
        let config = from_table(origin, parse(origin, text)?)?;
        config.check()?;
        Ok(config)
    }

    /// These settings changed by flags.
    ///
    /// # Errors
    /// If the result makes no sense.
    pub fn with(&self, flags: &Flags) -> Result<Self, ConfigError> {
        let mut table = self.table();
        lay_over(
            &mut table,
            Table::try_from(flags).expect("flags are plain values"),
        );
        let config = from_table("settings", table)?;
        config.check()?;
        Ok(config)
    }

    /// All settings as TOML.
    pub fn to_toml(&self) -> String {
        self.table().to_string()
    }

    fn table(&self) -> Table {
        Table::try_from(self).expect("settings are plain values")
    }

    /// The first setting in which two differ: its name and both values.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let (ours, theirs) = (self.table(), other.table());
        let (key, value) = ours
            .iter()
            .find(|(key, value)| theirs.get(*key) != Some(value))?;
        Some(format!("{key} is {value} here and {} there", theirs[key]))
    }

    /// The generator of these settings.
    ///
    /// # Errors
    /// As [`Generator::new`].
    pub fn generator(&self) -> autograd::Result<Generator> {
        Generator::new(GeneratorConfig {
            noise: self.noise,
            classes: CLASSES,
            hidden: self.generator_hidden,
            channels: self.generator_channels,
            image: IMAGE,
            ..GeneratorConfig::default()
        })
    }

    /// A learner of these settings with the given widths.
    ///
    /// # Errors
    /// As [`LearnerKind::learner`].
    pub fn learner(&self, widths: &[usize]) -> autograd::Result<Learner> {
        self.learner.learner(IMAGE, CLASSES, widths, self.norm)
    }

    /// The learner's name on the command line.
    pub fn learner_name(&self) -> String {
        let value = self.learner.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// How an outer step unrolls the training of its learner.
    pub fn horizon(&self) -> Horizon {
        Horizon::new(self.inner_steps)
            .outer_at(|step| self.outer_at(step))
            .schedule(self.schedule)
            .segments(self.segments)
            .mode(self.mode.into())
    }

    /// Whether the meta-loss has a term after that inner step, counted from 1.
    pub fn outer_at(&self, step: usize) -> bool {
        step.is_multiple_of(self.outer_every) || step == self.inner_steps
    }

    /// How many terms the meta-loss has.
    pub fn outer_count(&self) -> usize {
        self.inner_steps.div_ceil(self.outer_every)
    }

    /// The outer learning rate at an outer step, counted from 0: half a cosine from `outer_lr` to
    /// `outer_lr_end` times that (Loshchilov and Hutter 2017).
    pub fn outer_lr_at(&self, step: u64) -> f64 {
        let done = step as f64 / self.outer_steps.max(1) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        self.outer_lr * (self.outer_lr_end + (1.0 - self.outer_lr_end) * cosine)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let [quarter, half] = self.generator_channels;
        let sizes = [
            ("inner_steps", self.inner_steps),
            ("inner_batch", self.inner_batch),
            ("outer_batch", self.outer_batch),
            ("outer_every", self.outer_every),
            ("learners_per_step", self.learners_per_step),
            ("noise", self.noise),
            ("generator_hidden", self.generator_hidden),
            ("generator_channels", quarter),
            ("generator_channels", half),
            ("learners", self.learners),
            ("segments", self.segments),
        ];
        for (key, value) in sizes {
            require(
                key,
                value,
                (1..=MOST).contains(&value),
                &format!("from 1 to {MOST}"),
            )?;
        }
        for (key, value) in [
            ("outer_steps", self.outer_steps),
            ("validate_every", self.validate_every),
            ("checkpoint_every", self.checkpoint_every),
        ] {
            require(key, value, value >= 1, "at least 1")?;
        }
        for (key, value) in [
            ("inner_lr", self.inner_lr),
            ("inner_momentum", self.inner_momentum),
            ("outer_lr", self.outer_lr),
            ("outer_eps", self.outer_eps),
        ] {
            let fits = value > 0.0 && value.is_finite();
            require(key, value, fits, "a number above 0")?;
        }
        for (key, value) in [
            ("outer_beta1", self.outer_beta1),
            ("outer_beta2", self.outer_beta2),
        ] {
            require(key, value, (0.0..1.0).contains(&value), "from 0 to below 1")?;
        }
        let end = self.outer_lr_end;
        require(
            "outer_lr_end",
            end,
            (0.0..=1.0).contains(&end),
            "from 0 to 1",
        )?;
        let clip = self.clip;
        require(
            "clip",
            clip,
            clip >= 0.0 && clip.is_finite(),
            "0 or a number above it",
        )?;
        let layers = self.learner.default_widths().len();
        let fits = self.widths.layers() == layers;
        let wanted = format!("{layers} widths or ranges for this learner");
        require("widths", &self.widths, fits, &wanted)
    }
}

/// Rows, columns and channels of an image.
pub const IMAGE: [usize; 3] = [SIDE, SIDE, 1];

/// Larger sizes are mistakes, and their products overflow.
const MOST: usize = 1 << 20;

#[expect(
    clippy::needless_pass_by_value,
    reason = "numbers, at the end of their use"
)]
fn require(
    key: &'static str,
    value: impl ToString,
    fits: bool,
    wanted: &str,
) -> Result<(), ConfigError> {
    if fits {
        return Ok(());
    }
    let (value, wanted) = (value.to_string(), wanted.to_owned());
    Err(ConfigError::Value { key, value, wanted })
}

fn parse(origin: &str, text: &str) -> Result<Table, ConfigError> {
    text.parse()
        .map_err(|e: toml::de::Error| ConfigError::Parse {
            origin: origin.to_owned(),
            reason: one_line(e.message()),
        })
}

fn from_table(origin: &str, table: Table) -> Result<Config, ConfigError> {
    table
        .try_into()
        .map_err(|e: toml::de::Error| ConfigError::Parse {
            origin: origin.to_owned(),
            reason: one_line(&e.to_string()),
        })
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Puts the upper values over the lower ones. Another learner has other layers, so it comes with its own
/// widths.
fn lay_over(lower: &mut Table, upper: Table) {
    let kind = upper
        .get("learner")
        .filter(|kind| lower.get("learner") != Some(kind));
    if let Some(kind) = kind.and_then(|kind| LearnerKind::deserialize(kind.clone()).ok()) {
        lower.insert(
            "widths".to_owned(),
            Widths::published(kind).to_string().into(),
        );
    }
    lower.extend(upper);
}

/// A value by its `Display` and `FromStr`.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Display;
    use std::str::FromStr;

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(change: impl FnOnce(&mut Flags)) -> Flags {
        let mut flags = Flags::default();
        change(&mut flags);
        flags
    }

    fn resolve(file: &str, flags: &Flags) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings.toml");
        std::fs::write(&path, file).unwrap();
        Config::resolve(Preset::Quick, Some(&path), flags).map_err(|e| e.to_string())
    }

    #[test]
    fn presets_are_complete_and_come_back_from_toml() {
        for &preset in Preset::value_variants() {
            let config = Config::preset(preset);
            assert_eq!(
                Config::from_toml("again", &config.to_toml()).unwrap(),
                config
            );
            config.generator().unwrap();
            config.learner(&config.widths.widest()).unwrap();
        }
    }

    #[test]
    fn settings_of_a_run_from_before_some_of_them_are_understood() {
        let mut old = Config::preset(Preset::Quick).to_toml();
        for name in ["segments", "learners_per_step"] {
            let lines = old.lines().filter(|line| !line.starts_with(name));
            old = lines.collect::<Vec<_>>().join("\n");
        }
        let config = Config::from_toml("old", &old).unwrap();
        assert_eq!((config.segments, config.learners_per_step), (1, 1));
        let fewer = old.replace("seed = ", "seeds = ");
        assert!(Config::from_toml("old", &fewer).is_err());
    }

    #[test]
    fn flags_go_over_the_file_and_the_file_over_the_preset() {
        let flags = flags(|f| f.inner_steps = Some(3));
        let config = resolve("inner_steps = 2\ninner_batch = 5", &flags).unwrap();
        assert_eq!((config.inner_steps, config.inner_batch), (3, 5));
        assert_eq!(
            config.outer_batch,
            Config::preset(Preset::Quick).outer_batch
        );
    }

    #[test]
    fn another_learner_comes_with_its_own_widths() {
        let linear = flags(|f| f.learner = Some(LearnerKind::Linear));
        assert_eq!(
            resolve("", &linear).unwrap().widths,
            Widths::published(LearnerKind::Linear)
        );
        let same = flags(|f| f.learner = Some(LearnerKind::BaseFc));
        assert_eq!(resolve("", &same).unwrap(), Config::preset(Preset::Quick));
        // Widths in the file are those of the file's learner, which the flag replaces.
        assert_eq!(
            resolve("widths = '9,9,9'", &linear).unwrap().widths,
            Widths::published(LearnerKind::Linear)
        );
        let config = resolve("learner = 'linear'\nwidths = '9,7'", &Flags::default()).unwrap();
        assert_eq!(config.widths.middle(), [9, 7]);
    }

    #[test]
    fn mistakes_are_told_in_one_line() {
        for (file, wanted) in [
            ("inner_steps = 0", "inner_steps is 0: from 1 to"),
            ("inner_steps = -1", "inner_steps"),
            (
                "inner_batch = 99999999",
                "inner_batch is 99999999: from 1 to",
            ),
            ("outer_lr = nan", "outer_lr is NaN"),
            ("outer_beta2 = 1.0", "outer_beta2 is 1: from 0 to below 1"),
            ("inner_step = 4", "unknown field `inner_step`"),
            ("schedule = 'all'", "unknown schedule `all`"),
            ("learner = 'resnet'", "unknown variant `resnet`"),
            (
                "widths = '5'",
                "widths is 5: 3 widths or ranges for this learner",
            ),
            ("seed = ", "settings.toml"),
        ] {
            let error = resolve(file, &Flags::default()).unwrap_err();
            assert!(
                error.contains(wanted) && error.lines().count() == 1,
                "{file}: {error}"
            );
        }
        let missing = Config::resolve(
            Preset::Quick,
            Some(Path::new("/no/file")),
            &Flags::default(),
        );
        assert!(
            missing
                .unwrap_err()
                .to_string()
                .starts_with("cannot read /no/file")
        );
    }

    #[test]
    fn the_outer_rate_falls_along_a_cosine() {
        let config = Config {
            outer_steps: 100,
            outer_lr: 2.0,
            ..Config::preset(Preset::Quick)
        };
        let at = |step| config.outer_lr_at(step);
        assert!((at(0) - 2.0).abs() < 1e-12 && (at(100) - 0.2).abs() < 1e-12);
        assert!((at(50) - 1.1).abs() < 1e-12);
    }

    #[test]
    fn a_difference_is_named() {
        let config = Config::preset(Preset::Quick);
        assert_eq!(config.difference(&config), None);
        let other = Config {
            inner_steps: 17,
            ..config.clone()
        };
        assert_eq!(
            config.difference(&other).unwrap(),
            "inner_steps is 16 here and 17 there"
        );
    }

    #[test]
    fn the_meta_loss_always_looks_at_the_last_step() {
        let config = Config {
            inner_steps: 10,
            outer_every: 4,
            ..Config::preset(Preset::Quick)
        };
        let steps: Vec<usize> = (1..=10).filter(|&s| config.outer_at(s)).collect();
        assert_eq!((steps.len(), steps), (config.outer_count(), vec![4, 8, 10]));
    }
}
