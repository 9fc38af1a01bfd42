//! The results of networks as columns of numbers.

use super::agreement::ranks;
use super::estimator::{COUNTED, Estimator, LATENCY};
use super::ledger::{Entry, Outcome};
use super::structure::Structure;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Networks with their counts and with what was computed of them.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Their codes.
    pub networks: Vec<String>,
    /// Their counts, if they could be built.
    pub structures: Vec<Option<Structure>>,
    /// Why a network has no estimate.
    pub reasons: Vec<Option<String>>,
    values: Vec<BTreeMap<String, f64>>,
    /// By source.
    costs: BTreeMap<String, Cost>,
}

/// What it takes to compute something: seconds are means for a network.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// All seconds.
    pub seconds: f64,
    /// Seconds for building, recording and planning.
    pub planning: f64,
    /// Networks.
    pub networks: usize,
}

impl Table {
    /// A table of these networks, in this order, with the results among `entries` that are theirs.
    pub fn new(networks: Vec<(String, Option<Structure>)>, entries: &[Entry]) -> Self {
        let (networks, structures): (Vec<_>, Vec<_>) = networks.into_iter().unzip();
        let at: HashMap<&str, usize> = networks
            .iter()
            .enumerate()
            .map(|(at, name)| (name.as_str(), at))
            .collect();
        let (mut values, mut reasons) = (
            vec![BTreeMap::new(); networks.len()],
            vec![None; networks.len()],
        );
        let mut costs: BTreeMap<String, Cost> = BTreeMap::new();
        for entry in entries {
            let Some(&at) = at.get(entry.network.as_str()) else {
                continue;
            };
            let cost = costs.entry(entry.source.clone()).or_default();
            cost.networks += 1;
            let share = 1.0 / cost.networks as f64;
            cost.seconds += (entry.seconds - cost.seconds) * share;
            cost.planning += (entry.planning - cost.planning) * share;
            match &entry.outcome {
                Outcome::Values(own) => {
                    let own = own.iter().map(|(name, value)| (name.clone(), *value));
                    values[at].extend(own);
                }
                Outcome::Failed(reason) | Outcome::Postponed(reason) => {
                    reasons[at].get_or_insert_with(|| format!("{}: {reason}", entry.source));
                }
            }
        }
        Self {
            networks,
            structures,
            reasons,
            values,
            costs,
        }
    }

    /// A column: a number for each network, more being better; −∞ for a network without one.
    pub fn column(&self, name: &str) -> Vec<f64> {
        let count = |count: fn(&Structure) -> usize| -> Vec<f64> {
            let one = |structure: &Option<Structure>| {
                structure.map_or(f64::NEG_INFINITY, |own| count(&own) as f64)
            };
            self.structures.iter().map(one).collect()
        };
        match name {
            "params" => count(|own| own.params),
            "macs" => count(|own| own.macs),
            "depth" => count(|own| own.depth),
            "convs" => count(|own| own.convs),
            "path" => count(|own| own.path),
            "structure" => self.sum(&["params", "convs", "path"].map(|name| (name, 1.0))),
            name => {
                let own = |values: &BTreeMap<String, f64>| {
                    values.get(name).copied().unwrap_or(f64::NEG_INFINITY)
                };
                self.values.iter().map(own).collect()
            }
        }
    }

    /// The sum of weighted ranks; −∞ for a network that lacks one of the columns.
    fn sum(&self, terms: &[(&str, f64)]) -> Vec<f64> {
        let mut sums = vec![0.0; self.networks.len()];
        for (column, weight) in terms {
            let column = self.column(column);
            let ranks = ranks(&column);
            for (sum, (value, rank)) in sums.iter_mut().zip(column.iter().zip(ranks)) {
                let has = *value > f64::NEG_INFINITY;
                *sum += if has {
                    weight * rank
                } else {
                    f64::NEG_INFINITY
                };
            }
        }
        sums
    }

    /// The estimates of all networks: a column as it is, or a sum of ranks.
    pub fn estimates(&self, estimator: &Estimator) -> Vec<f64> {
        match &estimator.terms[..] {
            [(column, 1.0)] => self.column(column),
            terms => {
                let terms: Vec<(&str, f64)> = terms
                    .iter()
                    .map(|(column, weight)| (column.as_str(), *weight))
                    .collect();
                self.sum(&terms)
            }
        }
    }

    /// Milliseconds that each network takes for an image, where that was measured.
    pub fn latencies(&self) -> Vec<Option<f64>> {
        self.values
            .iter()
            .map(|values| values.get(LATENCY).copied())
            .collect()
    }

    /// The cost of an estimator for a network.
    pub fn cost(&self, estimator: &Estimator) -> Cost {
        estimator
            .sources()
            .into_iter()
            .fold(Cost::default(), |sum, source| {
                let own = self.costs.get(&source.name()).copied().unwrap_or_default();
                Cost {
                    seconds: sum.seconds + own.seconds,
                    planning: sum.planning + own.planning,
                    networks: sum.networks.max(own.networks),
                }
            })
    }

    /// All but measured times as CSV, with estimates: a line for each network in an order, named by `name`.
    ///
    /// # Errors
    /// None, as it is written to memory.
    pub fn to_csv(
        &self,
        order: &[usize],
        estimates: &[f64],
        name: impl Fn(&str) -> String,
    ) -> Result<Vec<u8>> {
        let computed: BTreeSet<&String> = self
            .values
            .iter()
            .flat_map(BTreeMap::keys)
            .filter(|name| *name != LATENCY)
            .collect();
        let columns: Vec<&str> = COUNTED
            .into_iter()
            .chain(computed.into_iter().map(String::as_str))
            .collect();
        let numbers: Vec<Vec<f64>> = columns.iter().map(|name| self.column(name)).collect();
        let mut writer = csv::Writer::from_writer(Vec::new());
        let header = ["network", "estimate"]
            .into_iter()
            .chain(columns)
            .chain(["reason"]);
        writer.write_record(header).map_err(Error::run)?;
        let word = |number: f64| {
            if number.is_finite() {
                number.to_string()
            } else {
                String::new()
            }
        };
        for &at in order {
            let numbers = numbers.iter().map(|column| word(column[at]));
            let first = [name(&self.networks[at]), word(estimates[at])];
            let reason = self.reasons[at].clone().unwrap_or_default();
            writer
                .write_record(first.into_iter().chain(numbers).chain([reason]))
                .map_err(Error::run)?;
        }
        writer.into_inner().map_err(Error::run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Even one with the most parameters.
    #[test]
    fn a_network_that_fails_has_no_sum_of_ranks() {
        let structure = |params| Structure {
            params,
            macs: 0,
            depth: 0,
            convs: 0,
            path: 0,
        };
        let networks = [("small", 1), ("middle", 2), ("huge", 3)];
        let networks = networks.map(|(name, params)| (name.to_owned(), Some(structure(params))));
        let entry = |network: &str, outcome| Entry {
            network: network.to_owned(),
            source: "gtn".to_owned(),
            outcome,
            seconds: 1.0,
            planning: 0.0,
        };
        let accuracy = |x| Outcome::Values(BTreeMap::from([("gtn".to_owned(), x)]));
        let entries = [
            entry("small", accuracy(0.5)),
            entry("middle", accuracy(0.9)),
            entry("huge", Outcome::Failed("too little memory".to_owned())),
        ];
        let table = Table::new(networks.to_vec(), &entries);
        let estimates = table.estimates(&"gtn+3*params".parse().unwrap());
        assert_eq!(estimates, [1.0, 5.0, f64::NEG_INFINITY]);
    }
}
