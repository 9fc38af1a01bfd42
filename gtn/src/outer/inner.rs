//! The optimiser of the inner steps, and which of its hyper-parameters the outer loop learns.

use crate::error;
use crate::outer::rule::{Rule, is_adaptive, is_reached};
use crate::run::config::Config;
use crate::run::settings::name_of;
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
    /// A learning rate that suits small learners: about 0.2 where a step is as long as the gradient, and 0.005 where a
    /// step has about the length of the rate in every weight; of Lion, whose steps have it in all, a fifth of that. Muon's is
    /// how far a step moves the outputs of a layer.
    pub fn usual_lr(self) -> f64 {
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
/// use gtn::outer::inner::{Learned, LearnedNames};
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
    /// What is learned in its place. Decays of means must stay between 0 and 1, so their logits are learned; of all others
    /// the logarithms, so that they stay positive and move by factors.
    fn array(self) -> String {
        let scale = if self.is_decay() { "logit" } else { "log" };
        format!("{scale}_{}", self.name)
    }

    fn is_decay(self) -> bool {
        matches!(self.name, "beta1" | "beta2" | "decay")
    }

    fn to_array(self, value: f64) -> f64 {
        if self.is_decay() {
            value.ln() - (-value).ln_1p()
        } else {
            value.ln()
        }
    }

    fn record(self, array: Var<'_>) -> Result<Var<'_>> {
        if self.is_decay() {
            array.sigmoid()
        } else {
            array.exp()
        }
    }

    fn value(self, array: f32) -> f32 {
        if self.is_decay() {
            1.0 / (1.0 + (-array).exp())
        } else {
            array.exp()
        }
    }
}

/// The optimiser of the inner steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Inner {
    /// What moves a learner's weights.
    pub rule: Rule,
    /// The optimiser's hyper-parameters, in its order.
    pub hyper: Vec<Hyper>,
}

impl Inner {
    /// The optimiser that settings ask for.
    pub fn of(config: &Config) -> Self {
        let rule = Rule {
            optimizer: config.inner_optimizer.0,
            rates: config.inner_rates,
        };
        let hyper = rule.optimizer.hyper().iter().map(|&(name, _)| Hyper {
            name,
            start: match name {
                "lr" => config.inner_lr,
                "momentum" => config.inner_momentum,
                "beta1" => config.inner_beta1,
                "beta2" | "decay" => config.inner_beta2,
                "eps" => config.inner_eps,
                _ => config.inner_weight_decay,
            },
            learned: if is_reached(rule.optimizer, name) {
                config.learn.of(name)
            } else {
                Learned::Fixed
            },
        });
        Self {
            rule,
            hyper: hyper.collect(),
        }
    }

    /// Stochastic gradient descent whose learning rate and momentum are learned for every step.
    pub fn momentum(lr: f64, momentum: f64) -> Self {
        let hyper = [("lr", lr), ("momentum", momentum)].map(|(name, start)| Hyper {
            name,
            start,
            learned: Learned::PerStep,
        });
        Self {
            rule: Optimizer::Momentum.into(),
            hyper: hyper.into(),
        }
    }

    fn learned(&self) -> impl Iterator<Item = Hyper> {
        let all = self.hyper.iter().copied();
        all.filter(|hyper| hyper.learned != Learned::Fixed)
    }

    /// The array that is learned of a hyper-parameter.
    fn spec(&self, hyper: Hyper, steps: usize, dtype: DType) -> ArraySpec {
        let shape = self.rule.shape(hyper.name);
        let shape = match hyper.learned {
            Learned::PerStep => [&[steps], shape].concat(),
            Learned::Shared | Learned::Fixed => shape.to_vec(),
        };
        ArraySpec::new(hyper.array(), dtype, shape)
    }

    /// The arrays that are learned for a training of so many steps.
    pub fn specs(&self, steps: usize, dtype: DType) -> impl Iterator<Item = ArraySpec> {
        self.learned()
            .map(move |hyper| self.spec(hyper, steps, dtype))
    }

    /// Writes the start values.
    ///
    /// # Errors
    /// If the device fails.
    pub fn start(&self, values: &mut Values, steps: usize) -> Result<()> {
        for hyper in self.learned() {
            let spec = self.spec(hyper, steps, F32);
            let start = hyper.to_array(hyper.start);
            values.set(&spec.name, &Array::full(F32, spec.shape, start))?;
        }
        Ok(())
    }

    /// Declares the hyper-parameters of a training: what is learned, and what stays as it is.
    pub fn declare<'f>(
        &self,
        mut training: Training<'f>,
        steps: usize,
        dtype: DType,
    ) -> Training<'f> {
        for &hyper in &self.hyper {
            let (array, shape) = (hyper.array(), self.rule.shape(hyper.name));
            // Rates of roles that are the same at every step are one row, which all steps take.
            let row = [&[1], shape].concat();
            training = match hyper.learned {
                Learned::Fixed if shape.is_empty() => training.hyper(hyper.name, move |s, _| {
                    Ok(s.tape().constant(hyper.start, dtype, []))
                }),
                Learned::Fixed => training.prepare(hyper.name, move |s| {
                    Ok(s.tape().constant(hyper.start, dtype, &row[..]))
                }),
                _ => training.learned([self.spec(hyper, steps, dtype)]).prepare(
                    hyper.name,
                    move |s| {
                        let values = hyper.record(s[array.as_str()])?;
                        if hyper.learned == Learned::Shared && row.len() > 1 {
                            return values.reshape(&row[..]);
                        }
                        Ok(values)
                    },
                ),
            };
            if hyper.learned == Learned::PerStep || !shape.is_empty() {
                // For trainings of fewer steps with the same arrays, too.
                training = training.per_step([hyper.name]);
            }
        }
        training
    }

    /// The value of every hyper-parameter at every step, as they were learned: names and \[steps\], or \[steps, roles\].
    ///
    /// # Errors
    /// If the device fails.
    pub fn values(&self, learned: &Values, steps: usize) -> Result<Vec<(&'static str, Array)>> {
        let numbers = |hyper: &Hyper| -> Result<_> {
            let values: Vec<f32> = if hyper.learned == Learned::Fixed {
                vec![hyper.start as f32]
            } else {
                let array = learned.get(&hyper.array())?;
                let numbers = array.as_f32().expect("it was made of f32").iter();
                numbers.map(|&x| hyper.value(x)).collect()
            };
            let shape = Shape::from([&[steps], self.rule.shape(hyper.name)].concat());
            let values: Vec<f32> = values.into_iter().cycle().take(shape.count()).collect();
            Ok((hyper.name, Array::new(shape, values)?))
        };
        self.hyper.iter().map(numbers).collect()
    }

    /// What no setting by itself can be checked for.
    pub(crate) fn check(&self) -> error::Result<()> {
        let undefined = self
            .learned()
            .find(|hyper| !hyper.to_array(hyper.start).is_finite());
        let Some(Hyper { name, start, .. }) = undefined else {
            return Ok(());
        };
        let message = format!("{name} is learned by its logarithm or logit, and starts at {start}");
        Err(error::Error::usage(message).hint("another start, or --learn without it"))
    }
}
