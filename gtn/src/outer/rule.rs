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
    /// gains); of weights Adam and its like, and Lion, multiply it by √(200 / inputs), Muon by √(units / inputs) where these are
    /// more, so that it suits all sizes
    Role,
}

/// An optimiser, and how its learning rate is shared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// What moves the weights.
    pub optimizer: Optimizer,
    /// How the rate is shared.
    pub rates: Rates,
}

impl From<Optimizer> for Rule {
    fn from(optimizer: Optimizer) -> Self {
        let rates = Rates::One;
        Self { optimizer, rates }
    }
}

/// Whether a step moves every weight by about the rate, whatever the size of the gradient.
pub const fn is_adaptive(optimizer: Optimizer) -> bool {
    matches!(
        optimizer,
        Optimizer::RmsProp | Optimizer::Adam | Optimizer::AdamW | Optimizer::Lion
    )
}

/// Whether a meta-gradient reaches a hyper-parameter. It does not reach Lion's decays, which act inside a
/// sign.
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

    /// For each weight the place of its rate among those of the roles, and its factor; `None` if all weights
    /// share one rate.
    pub fn shares(self, rate_groups: &[RateGroup]) -> Option<Vec<(usize, f64)>> {
        let share = |group: &RateGroup| (group.role as usize, self.factor(group));
        (self.rates == Rates::Role).then(|| rate_groups.iter().map(share).collect())
    }

    /// The factor on the learning rate of a weight.
    ///
    /// Adaptive optimisers move every number by about the rate. With √(200 / inputs) layers of all widths
    /// then move by the same part of themselves: the factor is ten times the root mean square of Kaiming's
    /// initial weights (as the relative steps of Adafactor: Shazeer and Stern 2018, arXiv 1804.04235, section
    /// 8). Without it, a head of 2,000 inputs would move its logits six times as far as one of 48 inputs
    /// after a global mean.
    ///
    /// A step of Muon has singular values of 1, or √(units / inputs) where there are more units than inputs.
    /// With √(units / inputs) for every shape, it moves outputs by the rate if inputs are of size 1 (the norm
    /// of Yang, Simon and Bernstein 2023, arXiv 2310.17813).
    fn factor(self, group: &RateGroup) -> f64 {
        let Some([units, inputs]) = group.size.map(|size| size.map(|n| n as f64)) else {
            return 1.0;
        };
        match self.optimizer {
            Optimizer::Muon => (units / inputs).sqrt().min(1.0),
            other if is_adaptive(other) => (200.0 / inputs).sqrt(),
            _ => 1.0,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_roles_fit_the_size_of_weights() {
        let factor = |optimizer, size| {
            let (rates, role) = (Rates::Role, Role::Head);
            Rule { optimizer, rates }.factor(&RateGroup { role, size })
        };
        // A head after a global mean, one of 2,250 inputs, and more units than inputs.
        for (size, muon, adam) in [
            (Some([10, 40]), 0.5, 5.0_f64.sqrt()),
            (Some([10, 2250]), 1.0 / 15.0, (200.0_f64 / 2250.0).sqrt()),
            (Some([16, 9]), 1.0, (200.0_f64 / 9.0).sqrt()),
            (None, 1.0, 1.0),
        ] {
            assert!((factor(Optimizer::Muon, size) - muon).abs() < 1e-12);
            assert!((factor(Optimizer::Adam, size) - adam).abs() < 1e-12);
            assert_eq!(factor(Optimizer::Momentum, size), 1.0);
        }
    }
}
