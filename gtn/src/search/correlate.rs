//! Is a ranking right? Estimates beside the accuracies of fully trained networks.

use super::agreement::{Agreement, best_first, ranks};
use super::estimator::Estimator;
use super::table::Table;
use crate::draw::scatter::Scatter;
use crate::eval::report::Spread;
use crate::seeds::{Draw, rng};
use rand::seq::SliceRandom;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// How estimators order a sample of networks.
#[derive(Clone, Debug, Serialize)]
pub struct Correlation {
    /// How many networks.
    pub sample: usize,
    /// By the estimators' names.
    pub estimators: BTreeMap<String, Row>,
    /// What searches would have found, by the estimators' names and `random`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub found: BTreeMap<String, Found>,
    /// The names in the order in which they were asked for.
    #[serde(skip)]
    order: Vec<String>,
}

/// How well an estimator orders them, and what it costs.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Correlations.
    #[serde(flatten)]
    pub agreement: Agreement,
    /// Mean seconds, planning included.
    pub seconds_per_network: f64,
    /// Mean seconds for building, recording and planning.
    pub planning_seconds_per_network: f64,
    /// Networks without an estimate, which count as the worst.
    pub failed: usize,
}

/// What searches by an estimator would have found: the true accuracy, in percent, of the network that is first by the
/// estimate, and the greatest true accuracy of the first five; means over searches, with halves of their 95 % intervals.
/// All searches see halves of the same networks, so an interval is that of resampling this table: it does not say how
/// other networks would do.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the words")]
pub struct Found {
    pub first: f64,
    pub first_interval: f64,
    pub best_of_five: f64,
    pub best_of_five_interval: f64,
    pub searches: usize,
}

/// Searches that are compared.
const SEARCHES: u64 = 20;

impl Correlation {
    /// For networks with known accuracies, in percent. With `compare`, also what searches would have found;
    /// each sees a different half of the networks.
    pub fn new(
        table: &Table,
        truth: &[f64],
        estimators: &[Estimator],
        seed: u64,
        compare: bool,
    ) -> Self {
        let row = |estimator: &Estimator| {
            let (cost, estimates) = (table.cost(estimator), table.estimates(estimator));
            let row = Row {
                agreement: Agreement::of(&estimates, truth, seed),
                seconds_per_network: cost.seconds,
                planning_seconds_per_network: cost.planning,
                failed: estimates.iter().filter(|own| !own.is_finite()).count(),
            };
            (estimator.to_string(), row)
        };
        let mut found = BTreeMap::new();
        if compare {
            // A random search has equal estimates, so the order of the draw decides.
            found.insert(
                "random".to_owned(),
                search(&vec![0.0; truth.len()], truth, seed),
            );
            let search = |estimator: &Estimator| {
                (
                    estimator.to_string(),
                    search(&table.estimates(estimator), truth, seed),
                )
            };
            found.extend(estimators.iter().map(search));
        }
        Self {
            sample: truth.len(),
            estimators: estimators.iter().map(row).collect(),
            found,
            order: estimators.iter().map(Estimator::to_string).collect(),
        }
    }

    /// A line for every estimator.
    pub fn table(&self) -> String {
        let width = self
            .order
            .iter()
            .map(|name| name.len() + 2)
            .fold(22, usize::max);
        let mut table = format!(
            "{} networks; bootstrap intervals of 95 %:\n\n  {:<width$}{:>22}{:>9}{:>10}{:>11}{:>8}{:>7}{:>11}\n",
            self.sample,
            "",
            "Spearman",
            "Kendall",
            "top half",
            "top tenth",
            "of true",
            "nDCG",
            "s/network"
        );
        for name in &self.order {
            let Row {
                agreement,
                seconds_per_network,
                failed,
                ..
            } = &self.estimators[name];
            let [low, high] = agreement.spearman_interval;
            let spearman = format!("{:.3} ({low:.3}–{high:.3})", agreement.spearman);
            let _ = write!(
                table,
                "  {name:<width$}{spearman:>22}{:>9.3}{:>10.3}{:>11.3}{:>8.3}{:>7.3}{seconds_per_network:>11.3}",
                agreement.kendall,
                agreement.top_half,
                agreement.top_tenth,
                agreement.top_tenth_of_truth,
                agreement.ndcg
            );
            if *failed > 0 {
                let _ = write!(table, "   {failed} failed");
            }
            table.push('\n');
        }
        if !self.found.is_empty() {
            let _ = write!(
                table,
                "\nFound in {SEARCHES} searches, each among {} of these networks (accuracy in percent; ± over resamplings \
                 of this table only):\n\n",
                self.sample.div_ceil(2)
            );
            for name in std::iter::once("random").chain(self.order.iter().map(String::as_str)) {
                let Found {
                    first,
                    first_interval,
                    best_of_five,
                    best_of_five_interval,
                    ..
                } = &self.found[name];
                let _ = writeln!(
                    table,
                    "  {name:<width$}first {first:.2} ± {first_interval:.2}, best of five {best_of_five:.2} ± {best_of_five_interval:.2}"
                );
            }
        }
        table
    }
}

/// What searches find, each among a different half of the networks.
fn search(estimates: &[f64], truth: &[f64], seed: u64) -> Found {
    let (mut first, mut five) = (Vec::new(), Vec::new());
    for number in 0..SEARCHES {
        let mut seen: Vec<usize> = (0..truth.len()).collect();
        seen.shuffle(&mut rng(seed, Draw::Search, number, 1));
        seen.truncate(truth.len().div_ceil(2));
        let own: Vec<f64> = seen.iter().map(|&at| estimates[at]).collect();
        let order = best_first(&own);
        first.push(truth[seen[order[0]]]);
        let best = order.iter().take(5).map(|&at| truth[seen[at]]);
        five.push(best.fold(f64::NEG_INFINITY, f64::max));
    }
    let [first, five] = [first, five].map(|numbers| Spread::of(&numbers));
    Found {
        first: first.mean,
        first_interval: first.interval,
        best_of_five: five.mean,
        best_of_five_interval: five.interval,
        searches: SEARCHES as usize,
    }
}

/// A panel for each estimator: the true accuracies over its ranks.
pub fn panels(table: &Table, truth: &[f64], estimators: &[Estimator]) -> Vec<Scatter> {
    let panel = |estimator: &Estimator| {
        let estimates = table.estimates(estimator);
        let rho = super::agreement::spearman(&estimates, truth);
        Scatter {
            title: format!("{estimator}, Spearman {rho:.3}"),
            x: "rank by the estimate".to_owned(),
            y: "true accuracy, %".to_owned(),
            points: ranks(&estimates)
                .into_iter()
                .zip(truth.iter().copied())
                .collect(),
            line: Vec::new(),
        }
    };
    estimators.iter().map(panel).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Space, Truth};
    use crate::search::Structure;
    use std::path::PathBuf;

    /// The correlations of counts on a whole published table.
    fn counted(space: &str, file: &str, estimators: &str) -> Option<BTreeMap<String, Row>> {
        let path =
            std::env::var_os("GTN_DATA_DIR").map(|dir| PathBuf::from(dir).join("nas").join(file));
        let Some(path) = path.filter(|path| path.exists()) else {
            println!("skipped: GTN_DATA_DIR has no nas/{file}");
            return None;
        };
        let space: Space = space.parse().unwrap();
        let truth = Truth::read(&path, None, &space).unwrap();
        let structure = |code| {
            let network = space.network(code).unwrap();
            Structure::of(&network.learner([32, 32, 3], 10).unwrap())
        };
        let networks = truth
            .codes()
            .iter()
            .map(|code| (code.to_string(), Some(structure(code))));
        let table = Table::new(networks.collect(), &[]);
        let accuracies: Vec<f64> = truth
            .codes()
            .iter()
            .filter_map(|code| truth.of(code))
            .collect();
        let estimators: Vec<Estimator> = estimators
            .split(',')
            .map(|name| name.parse().unwrap())
            .collect();
        Some(Correlation::new(&table, &accuracies, &estimators, 0, false).estimators)
    }

    #[test]
    fn counts_rank_nasbench201_as_is_known() {
        let Some(rows) = counted(
            "nasbench201",
            "nasbench201_test200.csv",
            "params,convs,structure",
        ) else {
            return;
        };
        let near = |name: &str, of: fn(&Agreement) -> f64, wanted: f64| {
            let found = of(&rows[name].agreement);
            assert!(
                (found - wanted).abs() < 6e-4,
                "{name}: {found}, not {wanted}"
            );
        };
        near("params", |a| a.spearman, 0.753);
        near("params", |a| a.kendall, 0.578);
        near("params", |a| a.top_half, 0.489);
        near("params", |a| a.top_tenth, 0.444);
        near("params", |a| a.top_tenth_of_truth, 0.108);
        near("convs", |a| a.kendall, 0.580);
        near("structure", |a| a.spearman, 0.806);
        near("structure", |a| a.kendall, 0.623);
        near("structure", |a| a.top_half, 0.631);
    }

    #[test]
    fn counts_rank_nasbench_macro_as_is_known() {
        let Some(rows) = counted(
            "nasbench-macro",
            "nas-bench-macro_cifar10.json",
            "params,macs,depth",
        ) else {
            return;
        };
        for (name, wanted) in [("params", 0.315), ("macs", 0.738), ("depth", 0.821)] {
            let found = rows[name].agreement.spearman;
            assert!((found - wanted).abs() < 6e-4, "{name}: {found}");
        }
    }
}
