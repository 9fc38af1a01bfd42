//! The setting `learner`: a family by its name or text, a population or search space by its name or file, or a network of a
//! space.

use super::families::Family;
use super::network::Norm;
use super::population::{Population, Source, no_family};
use super::space::Space;
use super::widths::Widths;
use crate::error::Error;
use crate::text;
use serde::{Serialize, Serializer};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// What the learners of a run are. Its text has all that it takes to make them again, also where they came from a file.
///
/// ```
/// use gtn::nn::Learners;
/// for text in ["resnet", "conv w1 | norm | relu | dense", "mixed"] {
///     let learners: Learners = text.parse()?;
///     assert_eq!(learners.to_string(), text);
/// }
/// assert!("nothing".parse::<Learners>().is_err());
/// # Ok::<(), gtn::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Learners {
    /// A family; its widths and its norm are settings of their own.
    Family(Family),
    /// A population, and its name or the TOML text of it.
    Population(Population, String),
}

/// The built-in populations.
const POPULATIONS: [(&str, &str); 1] = [("mixed", include_str!("mixed.toml"))];

/// A text that occurs in every file of learners, and in no other setting.
const ENTRY: &str = "[[learner]]";

impl Learners {
    /// The widths that it comes with.
    pub fn widths(&self) -> Widths {
        match self {
            Self::Family(family) => family.widths.clone(),
            Self::Population(..) => Widths::fixed(&[]),
        }
    }

    /// The norm that it comes with, unless it has its own.
    pub fn norm(&self) -> Option<Norm> {
        match self {
            Self::Family(family) => family.norms.first().copied(),
            Self::Population(..) => None,
        }
    }

    /// Its name in tables.
    pub fn name(&self) -> String {
        match self {
            Self::Family(family) => family.name.clone(),
            Self::Population(population, text) if text.contains(ENTRY) => {
                format!("population of {} families", population.members().len())
            }
            Self::Population(population, text) => match population.space() {
                Some(space) => space.name(),
                None => text.clone(),
            },
        }
    }

    /// A search space, or a network of one.
    fn of_space(text: &str) -> Result<Self, Error> {
        let (space, code) = Space::with_code(text)?;
        let Some(code) = code else {
            let text = space.text();
            return Ok(Self::Population(Population::of(Source::Space(space)), text));
        };
        let mut family =
            Family::of_text(&space.network(&code)?.to_string()).map_err(Error::usage)?;
        if Space::is_named(text) {
            family.name = space.name_of(&code);
        }
        Ok(Self::Family(family))
    }

    fn from_file(path: &str) -> Result<Self, Error> {
        let text = text::read(Path::new(path))?;
        if Space::is_toml(&text) {
            let space = Space::from_toml(path, &text)?;
            return Ok(Self::Population(Population::of(Source::Space(space)), text));
        }
        let population = Population::from_toml(path, &text)?;
        Ok(Self::Population(population, text))
    }
}

impl Default for Learners {
    fn default() -> Self {
        Self::Family(Family::default())
    }
}

impl FromStr for Learners {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(family) = Family::named(text) {
            return Ok(Self::Family(family));
        }
        let built_in = POPULATIONS.iter().find(|(name, _)| *name == text);
        if built_in.is_some() || text.contains(ENTRY) {
            let (name, toml) = built_in.copied().unwrap_or(("learner", text));
            let population = Population::from_toml(name, toml)?;
            return Ok(Self::Population(population, text.to_owned()));
        }
        if Space::is_named(text) || Space::is_toml(text) || text.contains(".toml:") {
            return Self::of_space(text);
        }
        if text.ends_with(".toml") {
            return Self::from_file(text);
        }
        if text.contains(['|', ' ', '(']) {
            return Family::of_text(text)
                .map(Self::Family)
                .map_err(Error::usage);
        }
        let more = "or `mixed`, a space as `nasbench201`, a text like `conv 16 | relu | dense`, or a file like learners.toml";
        Err(Error::usage(format!("{}; {more}", no_family(text))))
    }
}

impl fmt::Display for Learners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Family(family) => f.write_str(&family.name),
            Self::Population(_, text) => f.write_str(text),
        }
    }
}

impl Serialize for Learners {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}
