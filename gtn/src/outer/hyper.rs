//! Hyper-parameters of the inner steps: which optimiser has which, and which of them the outer loop learns.

use crate::outer::rule::is_adaptive;
use crate::run::values::name_of;
use autograd::prelude::*;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// An optimiser by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptimizerChoice(pub Optimizer);

impl OptimizerChoice {
    /// A learning rate that suits small learners. It is 0.2 where a step is in proportion to the gradient,
    /// and 0.005 where each weight moves by about the rate. Lion takes a fifth of that, because its weights
    /// move by exactly the rate. Muon's rate is how far a step moves the outputs of a layer.
    pub const fn usual_lr(self) -> f64 {
        match self.0 {
            Optimizer::Lion => 0.001,
            Optimizer::Muon => 0.05,
            other if is_adaptive(other) => 0.005,
            _ => 0.2,
        }
    }
}

impl Default for OptimizerChoice {
    fn default() -> Self {
        Self(Optimizer::Momentum)
    }
}

impl ValueEnum for OptimizerChoice {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [OptimizerChoice; Optimizer::ALL.len()] = {
            let mut all = [OptimizerChoice(Optimizer::Sgd); Optimizer::ALL.len()];
            let mut i = 0;
            while i < all.len() {
                all[i] = OptimizerChoice(Optimizer::ALL[i]);
                i += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()))
    }
}

impl Serialize for OptimizerChoice {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(&name_of(self))
    }
}

/// Whether the outer loop learns a hyper-parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It keeps its start value.
    Fixed,
    /// One number for all steps.
    Shared,
    /// A number for every step.
    PerStep,
}

/// The names of hyper-parameters to learn, of any optimiser: `lr,momentum:shared`.
///
/// ```
/// use gtn::outer::hyper::{Learned, LearnedNames};
/// let names: LearnedNames = "lr,beta1:shared".parse()?;
/// assert_eq!(names.of("lr"), Learned::PerStep);
/// assert_eq!(names.of("beta1"), Learned::Shared);
/// assert_eq!(names.of("beta2"), Learned::Fixed);
/// assert_eq!(names.to_string(), "lr,beta1:shared");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnedNames(Vec<(String, Learned)>);

impl LearnedNames {
    /// How a hyper-parameter is learned.
    pub fn of(&self, name: &str) -> Learned {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or(Learned::Fixed, |(_, learned)| *learned)
    }
}

impl FromStr for LearnedNames {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let entry = |part: &str| {
            let (name, how) = part.trim().split_once(':').unwrap_or((part.trim(), "step"));
            let learned = match how {
                "step" => Learned::PerStep,
                "shared" => Learned::Shared,
                _ => return Err(format!("`{how}` of `{part}`: step or shared is possible")),
            };
            let known = |optimizer: Optimizer| optimizer.hyper().iter().any(|(n, _)| *n == name);
            if !Optimizer::ALL.into_iter().any(known) {
                return Err(format!("no optimiser has a hyper-parameter `{name}`"));
            }
            Ok((name.to_owned(), learned))
        };
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        let entries: Vec<_> = text
            .split(',')
            .map(entry)
            .collect::<std::result::Result<_, _>>()?;
        let twice = (1..entries.len()).find(|&i| entries[..i].iter().any(|e| e.0 == entries[i].0));
        match twice {
            Some(i) => Err(format!("`{}` comes twice", entries[i].0)),
            None => Ok(Self(entries)),
        }
    }
}

impl fmt::Display for LearnedNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, (name, learned)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let how = if *learned == Learned::Shared {
                ":shared"
            } else {
                ""
            };
            write!(f, "{comma}{name}{how}")?;
        }
        Ok(())
    }
}

impl Serialize for LearnedNames {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A hyper-parameter of the inner optimiser.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyper {
    /// Its name, as the optimiser has it.
    pub name: &'static str,
    /// Its value before the first outer step.
    pub start: f64,
    /// Whether the outer loop learns it.
    pub learned: Learned,
}

impl Hyper {
    /// The name of the array that is learned in its place. Decays of running means must stay between 0 and 1,
    /// so their logits are learned. Of all others the logarithms are learned, so they stay positive and
    /// change by factors.
    pub(super) fn array(self) -> String {
        let scale = if self.is_decay() { "logit" } else { "log" };
        format!("{scale}_{}", self.name)
    }

    fn is_decay(self) -> bool {
        matches!(self.name, "beta1" | "beta2" | "decay")
    }

    pub(super) fn to_array(self, value: f64) -> f64 {
        if self.is_decay() {
            value.ln() - (-value).ln_1p()
        } else {
            value.ln()
        }
    }

    pub(super) fn record(self, array: Var<'_>) -> Result<Var<'_>> {
        if self.is_decay() {
            array.sigmoid()
        } else {
            array.exp()
        }
    }

    pub(super) fn value(self, array: f32) -> f32 {
        if self.is_decay() {
            1.0 / (1.0 + (-array).exp())
        } else {
            array.exp()
        }
    }
}
