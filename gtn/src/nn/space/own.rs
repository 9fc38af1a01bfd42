//! A user's own space: the text of a network with words that stand for choices.
//!
//! ```toml
//! network = "conv stem | batch | relu | block | down | block | mean | dense"
//! held_out = 20
//!
//! [choose]
//! stem = [8, 16, 32]
//! block = ["conv 32 | batch | relu", "conv stem 5x5 | batch | relu", "none"]
//! down = ["max 2", "avg 2"]
//! ```
//!
//! A word of the text that names a choice is replaced by what is chosen, everywhere the same. What is chosen
//! may contain names of choices that come later in the alphabet. The name of a family stands for its layers
//! with their usual widths.

use super::options::Options;
use crate::error::{Error, Result};
use crate::nn::{Family, Network};
use crate::text::parse_toml;
use serde::Deserialize;
use toml::{Table, Value};

/// The line that only a space has.
pub(super) const SECTION: &str = "[choose]";
/// As many choices as base 36 has digits.
const MOST_CHOICES: usize = 36;
/// Digits of a code. With more, the check of every choice would take minutes.
const MOST_PLACES: usize = 100;
/// Bytes of a text with choices filled in.
const LONGEST: usize = 1 << 20;

/// A space in a file.
#[derive(Debug, PartialEq)]
pub(super) struct Own {
    /// The file, or another name.
    pub(super) origin: String,
    /// Its whole text.
    pub(super) toml: String,
    network: String,
    choices: Vec<(String, Vec<String>)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    network: String,
    #[serde(default)]
    held_out: usize,
    #[serde(default)]
    split: u64,
    choose: Table,
}

impl Own {
    pub(super) fn from_toml(origin: &str, text: &str) -> Result<(Self, Options)> {
        let file: File = parse_toml(text)?;
        let choices = file
            .choose
            .iter()
            .map(|(name, value)| Ok((name.clone(), choice(name, value)?)));
        let own = Self {
            origin: origin.to_owned(),
            toml: text.to_owned(),
            network: file.network,
            choices: choices.collect::<Result<_>>()?,
        };
        if own.choices.len() > MOST_PLACES {
            return Err(Error::usage(format!(
                "[choose] has {} lists, and {MOST_PLACES} are the most",
                own.choices.len()
            )));
        }
        if own.choices.iter().all(|(_, choices)| choices.len() < 2) {
            return Err(
                Error::usage("nothing to choose").hint("[choose] has a list for each choice")
            );
        }
        let options = Options {
            held_out: file.held_out,
            split: file.split,
            ..Options::published(1, None, true)
        };
        Ok((own, options))
    }

    pub(super) fn places(&self) -> Vec<usize> {
        self.choices
            .iter()
            .map(|(_, choices)| choices.len())
            .collect()
    }

    /// Names a choice, for errors.
    pub(super) fn choice(&self, place: usize, choice: usize) -> String {
        let (name, choices) = &self.choices[place];
        format!("choice {name}, `{}`", choices[choice])
    }

    /// The text with every choice replaced. Each is replaced in one pass, in alphabetical order, so a choice
    /// that contains its own name does not recurse.
    pub(super) fn text(&self, code: &[u8]) -> String {
        let mut text = self.network.clone();
        for ((name, choices), &chosen) in self.choices.iter().zip(code) {
            let chosen = &choices[usize::from(chosen)];
            if text.len() > LONGEST {
                break;
            }
            text = replaced(&text, name, chosen);
        }
        text
    }
}

/// A text with a word replaced.
fn replaced(text: &str, name: &str, by: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut made = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c| !is_word(c)).unwrap_or(from.len());
        made.push_str(before);
        made.push_str(if &from[..end] == name {
            by
        } else {
            &from[..end]
        });
        rest = &from[end..];
    }
    made + rest
}

fn choice(name: &str, value: &Value) -> Result<Vec<String>> {
    let wrong = |what: &str| Error::usage(what).at(format!("choice {name}"));
    let Value::Array(items) = value else {
        return Err(wrong("a list is needed"));
    };
    if !(1..=MOST_CHOICES).contains(&items.len()) {
        return Err(wrong("from 1 to 36 are needed"));
    }
    let text = |item: &Value| match item {
        Value::String(text) => {
            Ok(Family::named(text).map_or_else(|| Ok(text.clone()), |family| layers(&family))?)
        }
        Value::Integer(number) => Ok(number.to_string()),
        _ => Err(wrong("texts and whole numbers are possible")),
    };
    items.iter().map(text).collect()
}

/// A family's layers as text.
fn layers(family: &Family) -> Result<String> {
    let network = family.network(&family.usual, family.norms[0])?;
    let plain = Network {
        weight_norm: true,
        init: super::super::network::Start::default(),
        ..network
    };
    Ok(plain.to_string())
}
