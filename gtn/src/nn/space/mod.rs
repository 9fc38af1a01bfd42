//! Search spaces: sets of networks, each with a code.
//!
//! | name | networks | code |
//! | --- | --- | --- |
//! | `nasbench201` | 15,625 cells of NAS-Bench-201 (Dong and Yang 2020) | six digits, the operations of the edges |
//! | `nasbench-macro` | 3,969 networks of NAS-Bench-Macro (Su et al. 2021) | eight digits, the operations of the layers |
//! | `cells` | two cells of five nodes with eleven operations (Such et al. 2020) | forty digits, four for each node |
//! | a TOML file | a user's own: a text with choices | a digit for each choice |
//!
//! After the name may stand sizes and what is held out: `nasbench201,channels=8,cells=1,held_out=200`. A network is written
//! `nasbench201:334131`, with the sizes before the colon.

mod cells;
pub(super) mod code;
mod nasbench201;
mod nasbench_macro;
mod options;
mod own;
mod truth;

use super::Network;
use super::drawn::Drawn;
use crate::error::{Error, Result};
use crate::seeds::{Draw, rng};
pub use code::Code;
use options::Options;
use own::Own;
use rand::{Rng, RngExt};
use std::collections::HashSet;
use std::mem::discriminant;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
pub use truth::Truth;

/// A set of networks from which some may be drawn, and some held out.
///
/// ```
/// use gtn::nn::Space;
/// let space: Space = "nasbench201,channels=8,cells=1".parse()?;
/// let code = space.code("334131")?;
/// assert_eq!(space.name_of(&code), "nasbench201,channels=8,cells=1:334131");
/// let learner = space.network(&code)?.learner([16, 16, 3], 10)?;
/// println!("{} parameters", learner.parameter_count());
/// # Ok::<(), gtn::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    kind: Kind,
    options: Options,
    /// How many choices there are at each place of a code.
    places: Vec<usize>,
    held_out: Arc<HeldOut>,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    NasBench201,
    NasBenchMacro,
    Cells,
    Own(Arc<Own>),
}

/// Networks that are never drawn, and their function texts (see [`Space::twin`]).
#[derive(Debug, Default, PartialEq)]
struct HeldOut {
    codes: Vec<Code>,
    twins: HashSet<String>,
}

impl Space {
    /// The names of the built-in spaces.
    pub const NAMES: [&'static str; 3] = ["nasbench201", "nasbench-macro", "cells"];

    /// Whether a text begins with the name of a built-in space.
    pub fn is_named(text: &str) -> bool {
        let name = text.split([',', ':']).next().unwrap_or_default();
        Self::NAMES.contains(&name)
    }

    /// Reads a user's own space; `origin` names it in errors and in the names of its networks.
    ///
    /// # Errors
    /// If it makes no sense.
    pub fn from_toml(origin: &str, text: &str) -> Result<Self> {
        let (own, options) = Own::from_toml(origin, text).map_err(|error| error.at(origin))?;
        let places = own.places();
        Self::new(Kind::Own(Arc::new(own)), options, places).map_err(|error| error.at(origin))
    }

    /// Whether a TOML text is one of a space, and not of a population.
    pub fn is_toml(text: &str) -> bool {
        text.lines().any(|line| line.trim() == own::SECTION)
    }

    fn new(kind: Kind, options: Options, places: Vec<usize>) -> Result<Self> {
        let mut space = Self {
            kind,
            options,
            places,
            held_out: Arc::default(),
        };
        let largest = space.largest();
        space
            .network(&largest)
            .map_err(|error| error.at("its largest network"))?;
        if let Kind::Own(own) = &space.kind {
            space.check_choices(own, &largest)?;
        }
        let codes = space.sample(options.held_out)?;
        let twins: HashSet<String> = codes.iter().map(|code| space.twin(code)).collect();
        space.held_out = Arc::new(HeldOut { codes, twins });
        // Several codes may compute one function, so the number that is left cannot be had by subtraction.
        // Draws show whether any is.
        let rng = &mut rng(options.split, Draw::Split, 0, 3);
        if (0..100_000).all(|_| space.holds_out(&space.any(rng))) {
            let count = space.held_out().len();
            let message = format!("{count} networks are held out, and hardly one is left to draw");
            return Err(Error::usage(message).hint("a smaller held_out"));
        }
        Ok(space)
    }

    /// Refuses a choice that makes no network of a sound one. A run would fail at the step that draws it.
    fn check_choices(&self, own: &Own, sound: &Code) -> Result<()> {
        for (place, &choices) in self.places.iter().enumerate() {
            for choice in 0..choices {
                let mut code = sound.clone();
                code.0[place] = choice as u8;
                let network = self.network(&code);
                network.map_err(|error| error.at(own.choice(place, choice)))?;
            }
        }
        Ok(())
    }

    /// How many choices there are at each place of a code.
    pub fn places(&self) -> &[usize] {
        &self.places
    }

    /// How many codes there are, at most.
    pub fn variety(&self) -> u64 {
        self.places
            .iter()
            .fold(1, |all, &choices| all.saturating_mul(choices as u64))
    }

    /// Networks that are never drawn.
    pub fn held_out(&self) -> &[Code] {
        &self.held_out.codes
    }

    /// Whether a network, or one that computes the same, is held out.
    pub fn holds_out(&self, code: &Code) -> bool {
        !self.held_out.twins.is_empty() && self.held_out.twins.contains(&self.twin(code))
    }

    /// Reads a code.
    ///
    /// # Errors
    /// If the text is not a code of this space.
    pub fn code(&self, text: &str) -> Result<Code> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .map(|c| c.to_digit(36).map(|digit| digit as u8))
            .collect();
        let fits = |digits: &Vec<u8>| {
            let mut places = digits.iter().zip(&self.places);
            digits.len() == self.places.len()
                && places.all(|(&digit, &choices)| usize::from(digit) < choices)
        };
        let Some(digits) = digits.filter(fits) else {
            let (name, count) = (self.name(), self.places.len());
            let most: Vec<String> = self
                .places
                .iter()
                .map(|choices| (choices - 1).to_string())
                .collect();
            let error = Error::usage(format!(
                "`{text}` is no network of {name}: a code of {count} digits is needed"
            ));
            return Err(error.hint(format!("from 0 to at most {}", most.join(", "))));
        };
        Ok(self.usual(Code(digits)))
    }

    /// The code that stands for all that mean the same network.
    fn usual(&self, code: Code) -> Code {
        match self.kind {
            Kind::NasBenchMacro => Code(nasbench_macro::usual(&code.0)),
            _ => code,
        }
    }

    /// The network of a code.
    ///
    /// # Errors
    /// If a user's own text does not make a network of it.
    pub fn network(&self, code: &Code) -> Result<Network> {
        let (code, options) = (code.choices(), &self.options);
        let text = match &self.kind {
            Kind::NasBench201 => nasbench201::text(code, options),
            Kind::NasBenchMacro => nasbench_macro::text(code, options),
            Kind::Cells => cells::text(code, options),
            Kind::Own(own) => own.text(code),
        };
        text.parse().map_err(Error::usage)
    }

    /// Equal texts for networks that compute the same functions.
    pub fn twin(&self, code: &Code) -> String {
        match self.kind {
            Kind::NasBench201 => nasbench201::function(code.choices()),
            Kind::Cells => cells::function(code.choices()),
            _ => code.to_string(),
        }
    }

    /// Draws a network uniformly from those that are not held out.
    pub fn draw<R: Rng + ?Sized>(&self, rng: &mut R) -> Code {
        loop {
            let code = self.any(rng);
            if !self.holds_out(&code) {
                return code;
            }
        }
    }

    /// Draws a network uniformly from all, held out or not.
    pub(crate) fn any<R: Rng + ?Sized>(&self, rng: &mut R) -> Code {
        loop {
            let draw = |&choices: &usize| rng.random_range(0..choices) as u8;
            let code = Code(self.places.iter().map(draw).collect());
            if self.usual(code.clone()) == code {
                return code;
            }
        }
    }

    /// A network that differs in one choice; it may be held out.
    pub fn mutant<R: Rng + ?Sized>(&self, code: &Code, rng: &mut R) -> Code {
        loop {
            let mut choices = code.0.clone();
            let at = rng.random_range(0..choices.len());
            if self.places[at] < 2 {
                continue;
            }
            let other = rng.random_range(1..self.places[at]) as u8;
            choices[at] = (choices[at] + other) % self.places[at] as u8;
            let mutant = self.usual(Code(choices));
            if mutant != *code {
                return mutant;
            }
        }
    }

    /// The first `count` networks of this space's split, all different: the same for every user of a split, and the larger
    /// sample begins with the smaller.
    ///
    /// # Errors
    /// If there are not so many.
    pub fn sample(&self, count: usize) -> Result<Vec<Code>> {
        let rng = &mut rng(self.options.split, Draw::Split, 0, 0);
        let (mut codes, mut seen) = (Vec::with_capacity(count), HashSet::new());
        let mut in_vain = 0;
        while codes.len() < count {
            let code = self.any(rng);
            if seen.insert(code.clone()) {
                codes.push(code);
                in_vain = 0;
            } else {
                in_vain += 1;
            }
            if in_vain > 1_000_000 {
                let error = Error::usage(format!(
                    "{count} networks wanted, and {} has {}",
                    self.name(),
                    codes.len()
                ));
                return Err(error.hint("a smaller sample"));
            }
        }
        Ok(codes)
    }

    /// The network that takes the most memory; of a user's own space the one with the most multiply-adds of 64.
    pub fn largest(&self) -> Code {
        match &self.kind {
            Kind::NasBench201 => Code(vec![3; 6]),
            Kind::NasBenchMacro => Code(vec![2; 8]),
            Kind::Cells => Code(cells::largest()),
            Kind::Own(_) => {
                let rng = &mut rng(0, Draw::Split, 0, 1);
                let adds = |code: &Code| {
                    let learner = self
                        .network(code)
                        .ok()
                        .map(|network| network.learner([32, 32, 3], 10));
                    learner
                        .and_then(Result::ok)
                        .map_or(0, |learner| learner.multiply_adds())
                };
                let some = (0..64).map(|_| self.any(rng));
                some.max_by_key(adds).expect("there are 64")
            }
        }
    }

    /// What it is called, with its sizes.
    pub fn name(&self) -> String {
        match &self.kind {
            Kind::NasBench201 => self.options.after("nasbench201"),
            Kind::NasBenchMacro => self.options.after("nasbench-macro"),
            Kind::Cells => self.options.after("cells"),
            Kind::Own(own) => own.origin.clone(),
        }
    }

    /// Its text in settings, which includes what is held out. For a user's own space it is the whole TOML.
    pub fn text(&self) -> String {
        match &self.kind {
            Kind::Own(own) => own.toml.clone(),
            _ => self.options.with_split(self.name()),
        }
    }

    /// Whether both have the same networks, apart from sizes. Two spaces of users must have equal texts.
    pub fn has_networks_of(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Own(own), Kind::Own(other)) => own.toml == other.toml,
            (own, other) => discriminant(own) == discriminant(other),
        }
    }

    /// What a network is called.
    pub fn name_of(&self, code: &Code) -> String {
        format!("{}:{code}", self.name())
    }

    /// A network as populations draw it.
    pub(crate) fn drawn(&self, code: &Code) -> autograd::Result<Drawn> {
        let network = self
            .network(code)
            .map_err(|error| autograd::Error::Setting(error.to_string()))?;
        Ok(Drawn {
            family: self.name_of(code),
            code: Some(code.clone()),
            widths: Vec::new(),
            network,
        })
    }

    /// Reads `SPACE` or `SPACE:CODE`, where a space is a name with its options, or a file.
    ///
    /// # Errors
    /// If there is no such space, or no such network in it.
    pub fn with_code(text: &str) -> Result<(Self, Option<Code>)> {
        let (space, code) = match text.rsplit_once(':') {
            Some((space, code)) if space.ends_with(".toml") || Self::is_named(space) => {
                (space, Some(code))
            }
            _ => (text, None),
        };
        let space: Self = space.parse()?;
        let code = code.map(|code| space.code(code)).transpose()?;
        Ok((space, code))
    }
}

impl FromStr for Space {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if Self::is_toml(text) {
            return Self::from_toml("own", text);
        }
        if text.ends_with(".toml") {
            let toml = crate::text::read(Path::new(text))?;
            return Self::from_toml(text, &toml);
        }
        let (name, options) = text.split_once(',').unwrap_or((text, ""));
        let (kind, usual, places) = match name {
            "nasbench201" => (
                Kind::NasBench201,
                nasbench201::OPTIONS,
                nasbench201::places(),
            ),
            "nasbench-macro" => (
                Kind::NasBenchMacro,
                nasbench_macro::OPTIONS,
                nasbench_macro::places(),
            ),
            "cells" => (Kind::Cells, cells::OPTIONS, cells::places()),
            _ => {
                let names = Self::NAMES.join(", ");
                return Err(Error::usage(format!(
                    "there is no space `{name}`, but {names}, and TOML files"
                )));
            }
        };
        let options = usual.parse(options).map_err(|error| error.at(text))?;
        Self::new(kind, options, places).map_err(|error| error.at(text))
    }
}

#[cfg(test)]
mod tests;
