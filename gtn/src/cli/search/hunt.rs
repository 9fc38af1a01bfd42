//! A running search: its rounds of networks, its messages, and the files that it writes at the end.

use super::super::progress::Progress;
use super::super::{say, show, stop};
use super::args::FindArgs;
use super::work::say_postponed;
use crate::draw::scatter::{self, Scatter};
use crate::error::{Error, Result};
use crate::nn::Code;
use crate::search::{
    Entry, Lab, Ledger, Proposals, Round, Source, Strategy, Structure, Table, Task,
};
use serde::Serialize;
use serde_json::json;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two updates of the best network on the progress bar.
const GLIMPSE: Duration = Duration::from_secs(1);
/// How many of the best networks have their latency measured. They come one after another, and each takes
/// some 30 ms.
const TIMED: usize = 200;
/// Between two tables of the best networks.
const PAUSE: Duration = Duration::from_secs(20);

/// A network in the JSON output.
#[derive(Debug, Serialize)]
struct Best {
    network: String,
    estimate: Option<f64>,
    parameters: Option<usize>,
    multiply_adds: Option<usize>,
    latency_ms: Option<f64>,
    /// The validation accuracy after a fit.
    fitted: Option<f64>,
    reason: Option<String>,
}

/// All networks of a search.
struct Ranking {
    table: Table,
    estimates: Vec<f64>,
    /// Validation accuracies of those that this search asked to train on all training images.
    fitted: Vec<Option<f64>>,
    latencies: Vec<Option<f64>>,
    /// Best first.
    order: Vec<usize>,
}

/// A running search.
pub(super) struct Search<'a> {
    args: &'a FindArgs,
    lab: &'a Lab<'a>,
    proposals: &'a Proposals<'a>,
    ledger: RefCell<Ledger>,
    /// Counts of networks. They are kept, because a network has to be built to be counted.
    structures: RefCell<HashMap<Code, Option<Structure>>>,
    rounds: Vec<Round>,
    ends: Option<Instant>,
}

/// A function that takes each result as it comes. It may stop the work by returning `false`.
pub(super) type Done<'d> = &'d mut dyn FnMut(Entry) -> Result<bool>;

impl<'a> Search<'a> {
    pub(super) fn new(
        args: &'a FindArgs,
        lab: &'a Lab<'a>,
        proposals: &'a Proposals<'a>,
        ledger: Ledger,
        ends: Option<Instant>,
    ) -> Self {
        let (structures, rounds) = (RefCell::default(), Vec::new());
        let ledger = RefCell::new(ledger);
        Self {
            args,
            lab,
            proposals,
            ledger,
            structures,
            rounds,
            ends,
        }
    }

    /// All rounds; false if the user wants to stop.
    pub(super) fn all(
        &mut self,
        compute: impl Fn(&[Task], Done<'_>) -> Result<()>,
    ) -> Result<bool> {
        let mut left = self.args.inner_steps;
        let mut progress = Progress::new("Network", self.proposals.trainings() as u64, 0);
        let (mut count, mut shown, mut looked) = (0, Instant::now(), Instant::now());
        let mut best = String::new();
        loop {
            let Some(mut round) = self
                .proposals
                .next(&self.rounds, |codes| Ok(self.table(codes)))?
            else {
                return Ok(true);
            };
            let whole = self.within(&mut left, &mut round);
            let sources = self.proposals.estimator_of(round.part).sources();
            self.rounds.push(round.clone());
            let all = round.codes.iter().flat_map(|code| {
                sources.iter().map(|&source| Task {
                    code: code.clone(),
                    source,
                })
            });
            let known = |task: &Task| {
                self.ledger
                    .borrow()
                    .has(&task.code.to_string(), task.source)
            };
            let tasks: Vec<Task> = all.filter(|task| !known(task)).collect();
            count += round.codes.len() - tasks.len().div_ceil(sources.len().max(1));
            let late = || self.ends.is_some_and(|ends| Instant::now() >= ends);
            let mut parts = 0;
            let mut done = |entry| {
                self.ledger.borrow_mut().add(entry)?;
                parts += 1;
                if parts % sources.len().max(1) == 0 {
                    count += 1;
                }
                if looked.elapsed() >= GLIMPSE {
                    best = self.best_line();
                    looked = Instant::now();
                }
                progress.at(count as u64, &best);
                if shown.elapsed() >= PAUSE {
                    progress.say(&self.top(&self.ranking()));
                    shown = Instant::now();
                }
                Ok(!stop::asked() && !late())
            };
            compute(&tasks, &mut done)?;
            if stop::asked() {
                return Ok(false);
            }
            if late() || !whole {
                return Ok(true);
            }
        }
    }

    /// Cuts a round to the inner steps that are left; false if that was needed.
    fn within(&self, left: &mut Option<u64>, round: &mut Round) -> bool {
        let Some(left) = left else { return true };
        let teachings = self
            .proposals
            .estimator_of(round.part)
            .sources()
            .into_iter();
        let steps = teachings.map(|source| match source {
            Source::Training(teaching) => self.lab.steps(teaching) * self.lab.seeds,
            _ => 0,
        });
        let each = steps.sum::<usize>() as u64;
        let fit = left
            .checked_div(each)
            .map_or(usize::MAX, |fit| fit as usize);
        let whole = fit >= round.codes.len();
        round.codes.truncate(fit);
        *left -= each * round.codes.len() as u64;
        whole
    }

    /// Trains the best networks on all images; false if the user wants to stop.
    pub(super) fn fits(&self, compute: impl Fn(&[Task], Done<'_>) -> Result<()>) -> Result<bool> {
        self.of_best(self.args.fit, (self.fit(), "Fit"), compute)
    }

    /// The source of these trainings.
    fn fit(&self) -> Source {
        Source::Fit(self.args.fit_epochs)
    }

    /// Times of the best networks; false if the user wants to stop.
    pub(super) fn latencies(
        &self,
        compute: impl Fn(&[Task], Done<'_>) -> Result<()>,
    ) -> Result<bool> {
        self.of_best(TIMED, (Source::Latency, "Latency"), compute)
    }

    /// Computes a source for the best `count` networks; false if the user wants to stop.
    fn of_best(
        &self,
        count: usize,
        (source, title): (Source, &'static str),
        compute: impl Fn(&[Task], Done<'_>) -> Result<()>,
    ) -> Result<bool> {
        let tried = self.tried();
        let found = self.ranking();
        let wanted = |at: &&usize| {
            let network = &found.table.networks[**at];
            found.estimates[**at].is_finite() && !self.ledger.borrow().has(network, source)
        };
        let first = found.order.iter().take(count).filter(wanted);
        let tasks: Vec<Task> = first
            .map(|&at| Task {
                code: tried[at].0.clone(),
                source,
            })
            .collect();
        let mut progress = (Progress::new(title, tasks.len() as u64, 0), 0);
        let mut done = |entry| {
            self.ledger.borrow_mut().add(entry)?;
            progress.1 += 1;
            progress.0.at(progress.1, "");
            Ok(!stop::asked())
        };
        compute(&tasks, &mut done)?;
        Ok(!stop::asked())
    }

    fn table(&self, codes: &[Code]) -> Table {
        let network = |code: &Code| {
            let mut known = self.structures.borrow_mut();
            let count = || self.lab.learner(code).ok().map(|(_, structure)| structure);
            (
                code.to_string(),
                *known.entry(code.clone()).or_insert_with(count),
            )
        };
        Table::new(
            codes.iter().map(network).collect(),
            self.ledger.borrow().entries(),
        )
    }

    /// All networks that were tried and have a result, with the number of the last round that they were in.
    fn tried(&self) -> Vec<(Code, usize)> {
        let (mut tried, mut places) = (Vec::new(), HashMap::new());
        let ledger = self.ledger.borrow();
        for (number, round) in self.rounds.iter().enumerate() {
            let sources = self.proposals.estimator_of(round.part).sources();
            for code in &round.codes {
                let name = code.to_string();
                if !sources.iter().all(|&source| ledger.has(&name, source)) {
                    continue;
                }
                let at = *places.entry(name).or_insert(tried.len());
                if at == tried.len() {
                    tried.push((code.clone(), number));
                }
                tried[at].1 = number;
            }
        }
        tried
    }

    /// Ranks all networks. Under successive halving, later rounds come first. Within a round the estimate
    /// decides. The first `--fit` networks are then ordered by their accuracies after training on all images.
    /// Fits that earlier commands left in the folder do not count beyond these.
    fn ranking(&self) -> Ranking {
        let tried = self.tried();
        let codes: Vec<Code> = tried.iter().map(|(code, _)| code.clone()).collect();
        let table = self.table(&codes);
        let halves = self.args.strategy == Strategy::Halving;
        let whole = table.estimates(self.proposals.estimator);
        // The estimate among the networks of the same round, since that is how rounds were cut.
        let of_round = |round: &Round| -> HashMap<String, f64> {
            let table = self.table(&round.codes);
            let estimates = table.estimates(&self.proposals.estimator_of(round.part));
            table.networks.into_iter().zip(estimates).collect()
        };
        let ranked = self.rounds.iter().filter(|_| halves);
        let by_round: Vec<_> = ranked.map(of_round).collect();
        let place = |at: usize| match by_round.get(tried[at].1) {
            Some(round) => (tried[at].1, round[&table.networks[at]]),
            None => (0, whole[at]),
        };
        let mut order: Vec<usize> = (0..codes.len()).collect();
        order.sort_by(|&a, &b| {
            let ((round_a, a_is), (round_b, b_is)) = (place(a), place(b));
            let by_estimate = round_b.cmp(&round_a).then(b_is.total_cmp(&a_is));
            by_estimate.then_with(|| codes[a].cmp(&codes[b]))
        });
        let estimates = (0..codes.len()).map(|at| place(at).1).collect();
        let first = self.args.fit.min(order.len());
        let accuracies = table.column(&self.fit().name());
        let mut fitted = vec![None; codes.len()];
        for &at in &order[..first] {
            fitted[at] = Some(accuracies[at]).filter(|accuracy| accuracy.is_finite());
        }
        order[..first].sort_by(|&a, &b| {
            let accuracy = |at: usize| fitted[at].unwrap_or(f64::NEG_INFINITY);
            accuracy(b).total_cmp(&accuracy(a))
        });
        Ranking {
            latencies: table.latencies(),
            table,
            estimates,
            fitted,
            order,
        }
    }

    fn best_line(&self) -> String {
        let found = self.ranking();
        match found.order.first().map(|&at| (at, found.estimates[at])) {
            Some((at, estimate)) if estimate.is_finite() => {
                format!("best {} with {estimate:.4}", found.table.networks[at])
            }
            _ => String::new(),
        }
    }

    /// The best so far, a line each.
    fn top(&self, found: &Ranking) -> String {
        let table = &found.table;
        let line = |(place, &at): (usize, &usize)| {
            let (params, macs) = table.structures[at].map_or((0, 0), |own| (own.params, own.macs));
            let latency = found.latencies[at].map_or_else(String::new, |ms| format!("{ms:.3}"));
            let fitted =
                found.fitted[at].map_or_else(String::new, |x| format!("{:.2} %", 100.0 * x));
            let measured = format!("{latency:>11}{fitted:>11}");
            let measured = measured.trim_end();
            let name = self.name(&table.networks[at]);
            match &table.reasons[at] {
                Some(reason) => format!("  {:>3}  {name:<44}  {reason}", place + 1),
                None => format!(
                    "  {:>3}  {name:<44}{:>10.4}{params:>12}{macs:>14}{measured}",
                    place + 1,
                    found.estimates[at]
                ),
            }
        };
        let lines: Vec<String> = found
            .order
            .iter()
            .take(self.args.top)
            .enumerate()
            .map(line)
            .collect();
        let head = format!(
            "       {:<44}{:>10}{:>12}{:>14}{:>11}{}",
            "network",
            "estimate",
            "parameters",
            "multiply-adds",
            "ms/image",
            if self.args.fit > 0 { "     fitted" } else { "" }
        );
        format!("{head}\n{}", lines.join("\n"))
    }

    fn name(&self, code: &str) -> String {
        format!("{}:{code}", self.lab.space.name())
    }

    /// Writes the tables and pictures of a search that has ended.
    pub(super) fn report(&self, out: &Path) -> Result<()> {
        let found = self.ranking();
        let Ranking { table, order, .. } = &found;
        if order.is_empty() {
            return Err(
                Error::usage("no network was tried").hint("more --minutes or --inner-steps")
            );
        }
        let ledger = self.ledger.borrow();
        ledger.write(
            "results.csv",
            &table.to_csv(order, &found.estimates, |code| self.name(code))?,
        )?;
        let measured = order.iter().filter_map(|&at| {
            Some(format!(
                "{},{}\n",
                self.name(&table.networks[at]),
                found.latencies[at]?
            ))
        });
        ledger.write(
            "latency.csv",
            ("network,latency_ms\n".to_owned() + &measured.collect::<String>()).as_bytes(),
        )?;
        scatter::write(&out.join("pareto.svg"), &self.panels(&found))?;
        let best = |&at: &usize| Best {
            network: self.name(&table.networks[at]),
            estimate: Some(found.estimates[at]).filter(|estimate| estimate.is_finite()),
            parameters: table.structures[at].map(|own| own.params),
            multiply_adds: table.structures[at].map(|own| own.macs),
            latency_ms: found.latencies[at],
            fitted: found.fitted[at],
            reason: table.reasons[at].clone(),
        };
        let top: Vec<Best> = order.iter().take(self.args.top).map(best).collect();
        let failed = table.reasons.iter().flatten().count();
        say(&format!(
            "{} networks, {failed} of them failed. All results are in {}",
            order.len(),
            out.display()
        ));
        say_postponed(&ledger);
        let report = json!({
            "command": "search", "out": out.to_string_lossy(), "space": self.lab.space.name(), "strategy": self.args.strategy,
            "estimator": self.args.estimator.to_string(), "networks": order.len(), "failed": failed, "top": top,
        });
        ledger.write(
            "report.json",
            &serde_json::to_vec_pretty(&report).map_err(Error::run)?,
        )?;
        show(&self.top(&found))?;
        self.args.work.machine.print(&report)
    }

    /// Estimates over costs of networks, with the Pareto front as a line.
    fn panels(&self, found: &Ranking) -> Vec<Scatter> {
        let of = |count: fn(&Structure) -> usize| -> Vec<Option<f64>> {
            found
                .table
                .structures
                .iter()
                .map(|own| own.as_ref().map(|own| count(own) as f64))
                .collect()
        };
        let costs = [
            ("parameters", of(|own| own.params)),
            ("multiply-adds", of(|own| own.macs)),
            ("latency, ms", found.latencies.clone()),
        ];
        let panel = |(name, costs): (&str, Vec<Option<f64>>)| {
            let points = costs
                .iter()
                .zip(&found.estimates)
                .filter_map(|(cost, &estimate)| Some(((*cost)?, estimate)));
            let points: Vec<(f64, f64)> = points.filter(|point| point.1.is_finite()).collect();
            Scatter {
                title: format!("{} over {name}", self.args.estimator),
                x: name.to_owned(),
                y: self.args.estimator.to_string(),
                line: scatter::front(&points),
                points,
            }
        };
        costs.into_iter().map(panel).collect()
    }
}
