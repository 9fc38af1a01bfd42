//! What moves a learner's weights: an optimiser, and how its learning rate is shared among them.

use crate::nn::role::{RateGroup, Role};
use autograd::prelude::*;
use clap::ValueEnum;
use serde::Serialize;

/// How the inner learning rate is shared among a learner's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Rates {
    /// One rate for all
    #[default]
    One,
    /// One for each of four roles: the last weights, those that are normalised afterwards, plain ones, and vectors (biases,
    /// gains); Adam and its like, and Lion, multiply it by √(200 / inputs) of weights, so that it suits all widths
    Role,
}

/// An optimiser, and how its learning rate is shared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// What moves the weights.
    pub optimizer: Optimizer,
    /// Whose rate is which.
    pub rates: Rates,
}

impl From<Optimizer> for Rule {
    fn from(optimizer: Optimizer) -> Self {
        let rates = Rates::One;
        Self { optimizer, rates }
    }
}

/// Whether a step has about the length of the rate in every number, however long the gradient is.
pub fn is_adaptive(optimizer: Optimizer) -> bool {
    matches!(
        optimizer,
        Optimizer::RmsProp | Optimizer::Adam | Optimizer::AdamW | Optimizer::Lion
    )
}

/// Whether a meta-gradient reaches a hyper-parameter: Lion's decays stand before a sign.
pub fn is_reached(optimizer: Optimizer, name: &str) -> bool {
    optimizer != Optimizer::Lion || !name.starts_with("beta")
}

impl Rule {
    /// The shape of a hyper-parameter at one step: a number, or one for each role.
    pub fn shape(self, name: &str) -> &'static [usize] {
        if self.rates == Rates::Role && name == "lr" {
            &[Role::COUNT]
        } else {
            &[]
        }
    }

    /// The place of each weight's rate among those of the roles, and its factor; none where all have one.
    pub fn shares(self, rate_groups: &[RateGroup]) -> Option<Vec<(usize, f64)>> {
        let share = |group: &RateGroup| {
            let factor = if is_adaptive(self.optimizer) {
                group.scale
            } else {
                1.0
            };
            (group.role as usize, factor)
        };
        (self.rates == Rates::Role).then(|| rate_groups.iter().map(share).collect())
    }

    /// A training by this rule of a learner with these groups; `lr` has this rule's shape at every step.
    pub fn training<'f>(self, rate_groups: &[RateGroup]) -> Training<'f> {
        let training = Training::new(self.optimizer);
        let Some(shares) = self.shares(rate_groups) else {
            return training;
        };
        training.hyper("lr", move |s, weight| {
            let (role, factor) = shares[weight];
            s["lr"].slice(&[role], &[1])?.reshape([])? * factor
        })
    }
}
