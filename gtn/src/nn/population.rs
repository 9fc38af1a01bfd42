//! Files of learners: the built-in families, and populations, which are families and search spaces with weights, from which
//! outer steps draw.

use super::drawn::Drawn;
use super::families::Family;
use super::network::{Activation, Norm, Start};
use super::space::Space;
use super::widths::Widths;
use crate::error::{Error, Result};
use crate::text::parse_toml;
use rand::{Rng, RngExt};
use serde::Deserialize;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::LazyLock;
use toml::Value;

/// A family or space of a population.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Where it draws from.
    pub source: Source,
    /// How often, in proportion to the weights of the others.
    pub weight: f64,
}

/// From where learners are drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Networks of one text, with other widths, norms, …
    Family(Family),
    /// Networks of a search space.
    Space(Space),
}

impl Source {
    /// Draws a network.
    ///
    /// # Errors
    /// If a text does not describe a network.
    pub fn draw<R: Rng + ?Sized>(&self, rng: &mut R) -> autograd::Result<Drawn> {
        match self {
            Self::Family(family) => family.draw(rng),
            Self::Space(space) => space.drawn(&space.draw(rng)),
        }
    }

    /// The network in the middle of all ranges, with the first choices; of a space the largest.
    ///
    /// # Errors
    /// If a text does not describe a network.
    pub fn middle(&self) -> autograd::Result<Drawn> {
        match self {
            Self::Family(family) => family.middle(),
            Self::Space(space) => space.drawn(&space.largest()),
        }
    }

    /// The network that takes the most memory.
    ///
    /// # Errors
    /// If a text does not describe a network.
    pub fn widest(&self) -> autograd::Result<Drawn> {
        match self {
            Self::Family(family) => family.widest(),
            Self::Space(space) => space.drawn(&space.largest()),
        }
    }
}

/// Families and spaces with weights.
///
/// ```
/// use gtn::nn::Population;
/// let text = r#"
///     [[learner]]
///     family = "resnet"
///     weight = 2
///     widths = "8-16,16-32,32-64"
///     norm = ["batch", "group 4"]
///     [[learner]]
///     name = "mine"
///     layers = "conv w1 5x5 | norm | act | mean | dense"
///     widths = "16-64"
///     activation = ["gelu", "tanh"]
/// "#;
/// let population = Population::from_toml("mine.toml", text)?;
/// let drawn = population.draw(&mut rand::rng())?;
/// assert!(["resnet", "mine"].contains(&&*drawn.family));
/// # Ok::<(), gtn::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Population(Vec<Member>);

/// A file of learners.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    held_out: Vec<String>,
    #[serde(default)]
    learner: Vec<Entry>,
}

/// A learner or family in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Option<String>,
    family: Option<String>,
    layers: Option<Words>,
    space: Option<String>,
    weight: Option<f64>,
    usual: Option<Words>,
    widths: Option<Words>,
    depth: Option<Words>,
    norm: Option<Words>,
    activation: Option<Words>,
    init: Option<Words>,
    weight_norm: Option<Words>,
}

/// A value, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    List(Vec<Value>),
    One(Value),
}

impl Words {
    /// As text, each.
    fn texts(self) -> Vec<String> {
        let text = |value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        match self {
            Self::One(value) => vec![text(value)],
            Self::List(values) => values.into_iter().map(text).collect(),
        }
    }
}

impl Population {
    /// Reads a file of learners: a `[[learner]]` for each, and `held_out`, families that must not be among them. `origin`
    /// names the file in errors.
    ///
    /// # Errors
    /// If a learner makes no sense, or there is none, or one is held out.
    pub fn from_toml(origin: &str, text: &str) -> Result<Self> {
        members(text).map(Self).map_err(|error| error.at(origin))
    }

    /// A population of a single family or space.
    pub fn of(source: Source) -> Self {
        let weight = 1.0;
        Self(vec![Member { source, weight }])
    }

    /// Whether learners that it draws differ in more than the choices of a single family.
    pub fn is_mixed(&self) -> bool {
        !matches!(
            &self.0[..],
            [Member {
                source: Source::Family(_),
                ..
            }]
        )
    }

    /// Its space, if that is its only member.
    pub fn space(&self) -> Option<&Space> {
        match &self.0[..] {
            [
                Member {
                    source: Source::Space(space),
                    ..
                },
            ] => Some(space),
            _ => None,
        }
    }

    /// Its families and spaces.
    pub fn members(&self) -> &[Member] {
        &self.0
    }

    /// Draws a learner. Where there is a single family, random numbers are drawn for its own choices only.
    ///
    /// # Errors
    /// If a text does not describe a network.
    pub fn draw<R: Rng + ?Sized>(&self, rng: &mut R) -> autograd::Result<Drawn> {
        let Some((last, others)) = self.0.split_last() else {
            return Err(autograd::Error::Setting(
                "a population without learners".to_owned(),
            ));
        };
        if others.is_empty() {
            return last.source.draw(rng);
        }
        let total: f64 = self.0.iter().map(|member| member.weight).sum();
        let mut left = rng.random::<f64>() * total;
        let chosen = others.iter().find(|member| {
            left -= member.weight;
            left < 0.0
        });
        chosen.unwrap_or(last).source.draw(rng)
    }
}

static FAMILIES: LazyLock<Vec<Family>> = LazyLock::new(|| {
    let families = members(include_str!("families.toml"));
    let families = families.expect("the built-in families are sound: a test says so");
    let family = |member: Member| match member.source {
        Source::Family(family) => Some(family),
        Source::Space(_) => None,
    };
    families.into_iter().filter_map(family).collect()
});

impl Default for Family {
    /// The learner of Such et al. (2020) for MNIST.
    fn default() -> Self {
        FAMILIES[0].clone()
    }
}

impl Family {
    /// The built-in family of that name.
    pub fn named(name: &str) -> Option<Self> {
        FAMILIES.iter().find(|family| family.name == name).cloned()
    }

    /// All built-in families.
    pub fn all() -> &'static [Self] {
        &FAMILIES
    }
}

/// The learners of a file.
pub(super) fn members(text: &str) -> Result<Vec<Member>> {
    let file: File = parse_toml(text)?;
    if file.learner.is_empty() {
        let error = Error::usage("no learner: each begins with a line [[learner]]");
        return Err(error.hint("family = \"base_fc\", or layers = \"conv 16 | relu | dense\""));
    }
    let member = |(i, entry): (usize, Entry)| {
        let name = entry
            .name
            .as_ref()
            .or(entry.family.as_ref())
            .or(entry.space.as_ref());
        let name = name.cloned();
        let place = name.unwrap_or_else(|| format!("number {}", i + 1));
        if let Some(held_out) = file.held_out.iter().find(|held_out| entry.is(held_out)) {
            return Err(Error::usage(format!(
                "learner {place}: {held_out} is held out"
            )));
        }
        entry.member().map_err(|what| {
            Error::usage(
                what.strip_prefix(&format!("learner {place}: "))
                    .unwrap_or(&what),
            )
            .at(format!("learner {place}"))
        })
    };
    file.learner.into_iter().enumerate().map(member).collect()
}

impl Entry {
    fn is(&self, name: &str) -> bool {
        [&self.name, &self.family]
            .into_iter()
            .flatten()
            .any(|own| own == name)
    }

    fn member(self) -> Result<Member, String> {
        let weight = self.weight.unwrap_or(1.0);
        if !(weight > 0.0 && weight.is_finite()) {
            return Err(format!("weight {weight} is not above 0"));
        }
        if let Some(space) = &self.space {
            let others = [&self.name, &self.family].into_iter().any(Option::is_some);
            let choices = [
                &self.layers,
                &self.widths,
                &self.usual,
                &self.depth,
                &self.norm,
                &self.activation,
                &self.init,
            ];
            if others || self.weight_norm.is_some() || choices.into_iter().any(Option::is_some) {
                return Err("a `space` has nothing beside it but `weight`".to_owned());
            }
            let source = Source::Space(space.parse().map_err(plain)?);
            return Ok(Member { source, weight });
        }
        let mut family = match (self.family, self.layers) {
            (Some(name), None) => Family::named(&name).ok_or_else(|| no_family(&name))?,
            (None, Some(layers)) => {
                let text = layers.texts().join(" | ");
                Family::of_text(&text).map_err(plain)?
            }
            _ => return Err("either `family` or `layers` is needed, or a `space`".to_owned()),
        };
        family.name = self.name.unwrap_or(family.name);
        if let Some(widths) = self.widths {
            family.widths = widths.texts().join(",").parse()?;
            family.usual = family.widths.middle();
        }
        if let Some(usual) = self.usual {
            family.usual = usual.texts().join(",").parse::<Widths>()?.middle();
        }
        if let Some(depth) = self.depth {
            family.depth = depth_range(&depth.texts().join(","))?;
        }
        change::<Norm>("norm", &mut family.norms, self.norm)?;
        change::<Activation>("activation", &mut family.activations, self.activation)?;
        change::<Start>("init", &mut family.inits, self.init)?;
        change::<bool>("weight_norm", &mut family.weight_norms, self.weight_norm)?;
        for drawn in [family.middle(), family.widest()] {
            drawn.map_err(plain)?;
        }
        let source = Source::Family(family);
        Ok(Member { source, weight })
    }
}

/// Replaces choices by those of a file, if it has any.
fn change<T: FromStr<Err: Display>>(
    key: &str,
    choices: &mut Vec<T>,
    words: Option<Words>,
) -> Result<(), String> {
    let Some(words) = words else {
        return Ok(());
    };
    let parse = |text: String| text.parse().map_err(|error| format!("{key}: {error}"));
    *choices = words
        .texts()
        .into_iter()
        .map(parse)
        .collect::<Result<_, _>>()?;
    if choices.is_empty() {
        return Err(format!("{key}: a value is needed"));
    }
    Ok(())
}

/// The most repetitions of a repeated part.
const DEEPEST: usize = 100;

fn depth_range(text: &str) -> Result<[usize; 2], String> {
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    match [least, most].map(|word| word.trim().parse()) {
        [Ok(least), Ok(most)] if least <= most && most <= DEEPEST => Ok([least, most]),
        _ => Err(format!(
            "depth `{text}`: a number or a range like 1-3, up to {DEEPEST}"
        )),
    }
}

pub(super) fn no_family(name: &str) -> String {
    let names: Vec<&str> = Family::all()
        .iter()
        .map(|family| family.name.as_str())
        .collect();
    format!("there is no family `{name}`, but {}", names.join(", "))
}

fn plain(error: impl Display) -> String {
    error.to_string()
}
