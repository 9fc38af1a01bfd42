//! What a parameter does in a learner, and how many inputs it weighs. Its learning rate should depend on
//! both.

use super::{Init, ParamSpec};

/// What a parameter does. Rates that suit one kind are far too large or small for another: a step in weights that are
/// normalised afterwards cannot run away, and the same step in plain ones can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The last weights, which give the logits.
    Head,
    /// Weights whose results are normalised.
    Normed,
    /// Weights whose results are not normalised, or only have their mean removed.
    Plain,
    /// Biases, gains and other numbers of which each channel has one.
    Vector,
}

impl Role {
    /// All of them, in the order of rates that are learned.
    pub const ALL: [Self; Self::COUNT] = [Self::Head, Self::Normed, Self::Plain, Self::Vector];
    /// How many there are.
    pub const COUNT: usize = 4;
}

/// What the rate of a parameter depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateGroup {
    /// What it does.
    pub role: Role,
    /// For weights, the number of units and of inputs of each. It does not depend on how the weights start,
    /// so a plan serves every initialisation.
    pub size: Option<[usize; 2]>,
}

/// The group of every parameter of a learner.
pub(super) fn rate_groups(params: &[ParamSpec]) -> Vec<RateGroup> {
    let is_weight = |param: &ParamSpec| matches!(param.init, Init::Weights(_));
    let last = params.iter().rposition(is_weight);
    let normed = |param: &ParamSpec| {
        let owner = param.name.split('.').next().unwrap_or_default();
        let gamma = format!("{owner}.gamma");
        params.iter().any(|param| param.name == gamma)
    };
    let group = |(i, param): (usize, &ParamSpec)| RateGroup {
        role: match &param.init {
            Init::Weights(_) if Some(i) == last => Role::Head,
            Init::Weights(_) if normed(param) => Role::Normed,
            Init::Weights(_) => Role::Plain,
            _ => Role::Vector,
        },
        size: is_weight(param).then(|| [param.shape[0], param.shape.count() / param.shape[0]]),
    };
    params.iter().enumerate().map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Network;

    #[test]
    fn every_parameter_has_its_role_and_weights_their_size() {
        let network: Network =
            "conv 4 | batch | relu | conv 8 1x1 | mean_only | add(conv 8 | layer) | dense"
                .parse()
                .unwrap();
        let learner = network.learner([8, 8, 2], 10).unwrap();
        let rate_groups = learner.rate_groups();
        let found: Vec<_> = learner.params().iter().zip(&rate_groups).collect();
        let roles = |role: Role| {
            let of_role = found.iter().filter(|(_, group)| group.role == role);
            of_role
                .map(|(param, _)| param.name.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(roles(Role::Head), ["d1.v"]);
        assert_eq!(roles(Role::Normed), ["c1.v", "c3.v"]);
        assert_eq!(roles(Role::Plain), ["c2.v"]);
        for (param, group) in found {
            assert_eq!(group.size.is_none(), group.role == Role::Vector);
            let count = group
                .size
                .map_or(param.shape[0], |[units, inputs]| units * inputs);
            assert_eq!(count, param.shape.count(), "{}", param.name);
        }
    }
}
