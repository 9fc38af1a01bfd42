//! Settings as text. Those of a preset, a TOML file and flags are laid over each other, and the result is
//! parsed once, as flags.

use super::config::{Config, Preset};
use crate::error::{Error, ErrorKind, Result};
use crate::nn::Learners;
use crate::outer::hyper::OptimizerChoice;
use crate::text;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Where settings come from.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Settings to start from; the defaults below are those of quick
    #[arg(long, value_enum, default_value_t)]
    pub preset: Preset,
    /// A TOML file with settings, which go over the preset's; flags go over both
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Those that the user gave by flags.
    #[command(flatten)]
    pub flags: Overrides,
}

impl Settings {
    /// The settings of the preset, changed by the file's and then by the flags.
    ///
    /// # Errors
    /// If the file cannot be read, or the settings make no sense together.
    pub fn resolve(&self) -> Result<Config> {
        let mut values = self.preset.values();
        if let Some(path) = &self.config {
            values.change(Overrides::read(path)?);
        }
        values.change(self.flags.clone());
        values.config()
    }
}

/// Some settings by name, as text. Flattened into a command, it holds the settings that the user gave as
/// flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides(BTreeMap<String, String>);

impl Overrides {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// If it cannot be read, or as [`Overrides::from_toml`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_toml(&path.display().to_string(), &text::read(path)?)
    }

    /// The settings in a TOML text, each of which is checked.
    ///
    /// # Errors
    /// If it is no TOML, or has a setting that does not exist or a value that makes no sense; it names the origin.
    pub fn from_toml(origin: &str, text: &str) -> Result<Self> {
        let table = text::parse_toml(text).map_err(|error| error.at(origin))?;
        Self::from_table(origin, table)
    }

    /// The settings in a table of TOML; see [`Overrides::from_toml`].
    ///
    /// # Errors
    /// If it has a setting that does not exist or a value that makes no sense; it names the origin.
    pub fn from_table(origin: &str, table: Table) -> Result<Self> {
        let word = |(name, value): (String, Value)| match as_word(&value) {
            Some(word) => Ok((name, word)),
            None => Err(Error::usage(format!("{name} is no number, text or list")).at(origin)),
        };
        let table = underscored(table).map_err(|e| e.at(origin))?;
        let values = Self(table.into_iter().map(word).collect::<Result<_>>()?);
        values.parse::<Config>().map_err(|e| e.at(origin))?;
        Ok(values)
    }

    /// These settings and another, if it is given.
    #[must_use]
    pub fn with(mut self, name: &str, value: Option<impl Display>) -> Self {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.to_string());
        }
        self
    }

    /// Puts other values over these. Another learner has other layers, so it brings its own widths; it also
    /// brings its own norm, if its family has a different one. Another inner optimiser takes steps of another
    /// length, so it brings its own learning rate.
    pub fn change(&mut self, upper: Self) {
        if let Some((now, other)) =
            self.replaced(&upper, "learner", |text| text.parse::<Learners>().ok())
        {
            let widths = other.widths().to_string();
            self.0.insert("widths".to_owned(), widths);
            if let Some(norm) = other.norm().filter(|norm| now.norm() != Some(*norm)) {
                self.0.insert("norm".to_owned(), norm.to_string());
            }
        }
        let optimizer = |name: &str| OptimizerChoice::from_str(name, false).ok();
        if let Some((_, other)) = self.replaced(&upper, "inner_optimizer", optimizer) {
            let lr = other.usual_lr().to_string();
            self.0.insert("inner_lr".to_owned(), lr);
        }
        self.0.extend(upper.0);
    }

    /// The choice here and the different one that `upper` replaces it with, if it does.
    fn replaced<T: Default + PartialEq>(
        &self,
        upper: &Self,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<(T, T)> {
        let choice = |settings: &Self| parse(settings.0.get(name)?);
        let now = choice(self).unwrap_or_default();
        let other = choice(upper).filter(|other| *other != now)?;
        Some((now, other))
    }

    /// The names of the settings.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// A complete set of settings; what is not given has its default.
    ///
    /// # Errors
    /// If they make no sense, each or together.
    pub fn config(&self) -> Result<Config> {
        let config: Config = self.parse()?;
        config.check()?;
        Ok(config)
    }

    /// A group of settings, parsed as its flags.
    ///
    /// # Errors
    /// If there is a setting of another group, or a value makes no sense.
    pub fn parse<T: Args>(&self) -> Result<T> {
        let command = Command::new("settings").no_binary_name(true);
        let mut command = T::augment_args(command.disable_help_flag(true));
        let flag = |(name, value): (&String, _)| format!("--{}={value}", name.replace('_', "-"));
        let mut matches = command.try_get_matches_from_mut(self.0.iter().map(flag))?;
        T::from_arg_matches_mut(&mut matches).map_err(|e| e.format(&mut command).into())
    }
}

impl Preset {
    /// The settings in which it differs from the defaults.
    pub(crate) fn values(self) -> Overrides {
        let text = match self {
            Self::Quick => "",
            Self::Strong => include_str!("../../presets/strong.toml"),
            Self::Any => include_str!("../../presets/any.toml"),
            Self::Search => include_str!("../../presets/search.toml"),
            Self::Mnist => include_str!("../../presets/mnist.toml"),
            Self::Cifar10 => include_str!("../../presets/cifar10.toml"),
            Self::Cifar10Small => include_str!("../../presets/cifar10-small.toml"),
        };
        let preset = Overrides::from_toml("preset", text);
        let mut values = Overrides::default();
        values.change(preset.expect("presets are sound: a test says so"));
        values
    }
}

impl Config {
    /// The settings of a preset.
    pub fn preset(preset: Preset) -> Self {
        let config = preset.values().config();
        config.expect("presets are sound: a test says so")
    }

    /// Reads what [`Config::to_toml`] wrote.
    ///
    /// # Errors
    /// If it is something else; it names the origin.
    pub fn from_toml(origin: &str, text: &str) -> Result<Self> {
        let values = Overrides::from_toml(origin, text);
        let config = values.and_then(|values| values.config().map_err(|e| e.at(origin)));
        config.map_err(|error| error.of(ErrorKind::Run))
    }

    /// These settings changed by others.
    ///
    /// # Errors
    /// If the result makes no sense.
    pub fn with(&self, changes: &Overrides) -> Result<Self> {
        let mut values = Overrides::from_toml("settings", &self.to_toml())?;
        values.change(changes.clone());
        values.config()
    }
}

/// A table of settings with underscores in their names: a file may write them with dashes, as flags are.
pub(crate) fn underscored(table: Table) -> Result<Table> {
    let mut named = Table::new();
    for (name, value) in table {
        let name = name.replace('-', "_");
        if named.insert(name.clone(), value).is_some() {
            let message = format!("{name} is given twice, with dashes and with underscores");
            return Err(Error::usage(message).hint("leave one of them out"));
        }
    }
    Ok(named)
}

/// A value as a flag has it.
pub(crate) fn as_word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(_) | Value::Float(_) => Some(value.to_string()),
        Value::Array(items) => {
            let words: Option<Vec<_>> = items.iter().map(as_word).collect();
            Some(words?.join(","))
        }
        Value::Boolean(_) | Value::Datetime(_) | Value::Table(_) => None,
    }
}

impl Args for Overrides {
    fn augment_args(command: Command) -> Command {
        Config::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Config::augment_args_for_update(command)
    }
}

impl FromArgMatches for Overrides {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Self::default();
        given.update_from_arg_matches(matches)?;
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let settings = Config::augment_args(Command::new("settings"));
        for name in settings.get_arguments().map(|arg| arg.get_id().as_str()) {
            if matches.value_source(name) == Some(ValueSource::CommandLine) {
                let words = matches.get_raw(name).into_iter().flatten();
                let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
                self.0.insert(name.to_owned(), words.join(","));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Norm;

    fn flags(given: &[(&str, &str)]) -> Overrides {
        let one = |flags: Overrides, (name, value): &(&str, &str)| flags.with(name, Some(value));
        given.iter().fold(Overrides::default(), one)
    }

    fn resolve(file: &str, given: &[(&str, &str)]) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings.toml");
        std::fs::write(&path, file).unwrap();
        let (preset, config, flags) = (Preset::Quick, Some(path), flags(given));
        let settings = Settings {
            preset,
            config,
            flags,
        };
        settings.resolve()
    }

    #[test]
    fn flags_go_over_the_file_and_the_file_over_the_preset() {
        let config = resolve("inner_steps = 2\ninner_batch = 5", &[("inner_steps", "3")]).unwrap();
        assert_eq!((config.inner_steps, config.inner_batch), (3, 5));
        let quick = Config::preset(Preset::Quick);
        assert_eq!(config.outer_batch, quick.outer_batch);
        let mnist = Config::preset(Preset::Mnist);
        assert_eq!((quick.inner_batch, mnist.inner_batch), (32, 128));
        let longer = mnist.with(&flags(&[("inner_steps", "33")])).unwrap();
        assert_eq!((longer.inner_steps, longer.noise), (33, mnist.noise));
    }

    #[test]
    fn names_with_dashes_are_those_with_underscores() {
        let [dashes, underscores] = ["-", "_"].map(|sign| {
            let text = "inner-optimizer = 'adam'\nouter-lr = 0.5".replace('-', sign);
            resolve(&text, &[("outer_batch", "7")]).unwrap()
        });
        assert_eq!(dashes, underscores);
        assert_eq!(dashes.inner_lr, dashes.inner_optimizer.usual_lr());
        let preset = Config::preset(Preset::Mnist);
        let file = Overrides::from_toml("file", "outer-lr = 0.5").unwrap();
        assert_eq!(preset.with(&file).unwrap().outer_lr, 0.5);
        let error = resolve("outer-lr = 1\nouter_lr = 2", &[]).unwrap_err();
        let line = error.to_string();
        assert!(
            line.contains("settings.toml: outer_lr is given twice"),
            "{line}"
        );
    }

    #[test]
    fn every_kind_of_value_is_read_from_a_file() {
        let text = "generator_channels = [3, 4]\nouter_eps = 2e-7\nclip = 1\nmode = 'reverse'\n\
                    schedule = 'budget-64MiB'\nseed = 9223372036854775807\nwidths = '7-9,8,1'";
        let config = resolve(text, &[]).unwrap();
        assert_eq!(config.generator_channels, [3, 4]);
        assert_eq!((config.outer_eps, config.clip), (2e-7, 1.0));
        assert_eq!(config.engine.schedule, "budget-64MiB".parse().unwrap());
        assert_eq!(config.seed, i64::MAX as u64);
        assert_eq!(config.widths.to_string(), "7-9,8,1");
        assert_eq!(
            config,
            Config::from_toml("again", &config.to_toml()).unwrap()
        );
    }

    #[test]
    fn another_learner_comes_with_its_own_widths() {
        let published = Learners::widths(&"linear".parse().unwrap());
        let linear = [("learner", "linear")];
        assert_eq!(resolve("", &linear).unwrap().widths, published);
        let same = resolve("", &[("learner", "base_fc")]).unwrap();
        assert_eq!(same, Config::preset(Preset::Quick));
        // Widths in the file are those of the file's learner, which the flag replaces.
        let replaced = resolve("widths = '9,9,9'", &linear).unwrap();
        assert_eq!(replaced.widths, published);
        let config = resolve("learner = 'linear'\nwidths = '9,7'", &[]).unwrap();
        assert_eq!(config.widths.middle(), [9, 7]);
        // A norm that was chosen stays, unless the learner is known with another.
        let config = resolve("norm = 'batch'", &linear).unwrap();
        assert_eq!(config.norm, Norm::Batch);
        let config = resolve("norm = 'batch'", &[("learner", "lenet")]).unwrap();
        assert_eq!(config.norm, Norm::None);
        let text = "conv w1 5x5 | norm | relu | conv w2 | relu | dense";
        let config = resolve("widths = '3,4-5'", &[]).unwrap_err();
        assert!(
            config.to_string().contains("base_fc has 3 layers"),
            "{config}"
        );
        let own = [("learner", text), ("widths", "3,4-5"), ("norm", "group 4")];
        let config = resolve("", &own).unwrap();
        assert_eq!(config.widths.widest(), [3, 5]);
        assert_eq!(
            config,
            Config::from_toml("again", &config.to_toml()).unwrap()
        );
    }

    #[test]
    fn a_file_of_learners_goes_into_the_settings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("learners.toml");
        let text = "[[learner]]\nfamily = \"mlp\"\n[[learner]]\nlayers = 'conv 3 | relu | dense'\n";
        std::fs::write(&path, text).unwrap();
        let config = resolve("", &[("learner", &path.display().to_string())]).unwrap();
        drop(dir);
        assert_eq!(config.widths.layers(), 0);
        assert_eq!(config.learner.to_string(), text);
        assert_eq!(config.learner.name(), "population of 2 families");
        assert_eq!(
            config,
            Config::from_toml("again", &config.to_toml()).unwrap()
        );
        let error = resolve("", &[("learner", "none.toml")])
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot read none.toml"), "{error}");
    }

    #[test]
    fn mistakes_are_said_in_one_line_with_the_file() {
        for (file, wanted) in [
            (
                "inner_steps = 0",
                "'0' for '--inner-steps <T>': 0 is not in 1..=1048576",
            ),
            ("inner_steps = -1", "'-1' for '--inner-steps <T>'"),
            ("inner_batch = 99999999", "99999999 is not in 1..=1048576"),
            ("seed = 9223372036854775808", "line 1: "),
            ("outer_lr = nan", "a number above 0 is needed"),
            ("outer_lr = true", "outer_lr is no number, text or list"),
            (
                "outer_eps = 1e-46",
                "'--outer-eps <X>': a number above 0 is needed, in 32 bits",
            ),
            ("inner_lr = 1e-45", "a number above 0 is needed"),
            ("inner_momentum = 1e-40", "above 0 and below 1 is needed"),
            (
                "clip = 1e39",
                "0 or a number above it is needed, in 32 bits",
            ),
            ("outer_beta2 = 1.0", "from 0 to below 1 is needed"),
            ("outer_beta2 = 0.99999999", "from 0 to below 1 is needed"),
            ("inner_momentum = 1.0", "above 0 and below 1 is needed"),
            ("inner_step = 4", "'--inner-step' found"),
            ("json = 'x'", "'--json' found"),
            ("help = 'x'", "'--help' found"),
            ("schedule = 'all'", "unknown schedule `all`"),
            (
                "learner = 'resnt'",
                "'resnt' for '--learner <NAME|TEXT|FILE>'",
            ),
            ("learner = 'conv | relu'", "at `conv`: a number is needed"),
            ("norm = 'bath'", "there is no norm `bath`, but none,"),
            ("generator_channels = [3]", "two numbers from 1 to 1048576"),
            ("\n\nseed = ", "line 3: "),
        ] {
            let error = resolve(file, &[]).unwrap_err().to_string();
            assert!(error.contains("settings.toml"), "{file}: {error}");
            assert!(error.contains(wanted), "{file}: {error}");
            assert_eq!(error.lines().count(), 1, "{file}: {error}");
        }
        let few = resolve("widths = '5'", &[]).unwrap_err();
        let wanted = "error: base_fc has 3 layers with widths, and 1 are given: 5\nhint: --widths ";
        assert!(few.lines().starts_with(wanted), "{few:?}");
        for (examples, curriculum, why, hint) in [
            (
                1025,
                "full",
                "32 steps of 32 see 1024 of them",
                "--examples 1024, ",
            ),
            (
                33,
                "shuffled-batch",
                "--curriculum shuffled-batch has whole batches of 32",
                "--examples 64",
            ),
            (
                32,
                "no-curriculum",
                "--curriculum no-curriculum has new ones",
                "--examples 0, ",
            ),
        ] {
            let text = format!("examples = {examples}\ncurriculum = '{curriculum}'");
            let lines = resolve(&text, &[]).unwrap_err().lines();
            let wanted = format!("error: --examples {examples} makes no sense: {why}");
            assert!(lines.starts_with(&wanted), "{lines}");
            assert!(lines.contains(&format!("\nhint: {hint}")), "{lines}");
        }
        let typo = resolve("inner_step = 4", &[]).unwrap_err();
        assert!(
            typo.lines()
                .ends_with("\nhint: a similar argument exists: '--inner-steps'")
        );
    }

    #[cfg(unix)]
    #[test]
    fn files_without_an_end_are_refused() {
        let endless = "/dev/zero";
        let wanted = "cannot read /dev/zero: it has more than 64 MiB";
        let error = Overrides::read(Path::new(endless)).unwrap_err();
        assert_eq!(error.to_string(), wanted);
        let error = crate::nn::Suite::parse(endless).unwrap_err();
        assert_eq!(error.to_string(), wanted);
    }
}
