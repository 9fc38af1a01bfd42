//! In which order networks are tried.

use super::agreement::best_first;
use super::estimator::Estimator;
use super::table::Table;
use crate::error::Result;
use crate::nn::{Code, Space};
use crate::seeds::{Draw, rng};
use clap::ValueEnum;
use rand::seq::index::sample;
use serde::Serialize;
use std::collections::HashSet;

/// How a search proposes networks. What it proposes depends on the seed and on results only, so a search that is begun again
/// proposes the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Networks drawn uniformly, as in the paper
    #[default]
    Random,
    /// Regularised evolution (Real et al. 2019): mutants of the best of a few, and the oldest die
    Evolution,
    /// Networks drawn uniformly and trained for an eighth of the steps, the best half for a quarter, and so on to all steps
    Halving,
}

/// Size of the population, mutants per round, and size of the tournament whose best becomes a parent.
const POPULATION: usize = 20;
const CHILDREN: usize = 4;
const TOURNAMENT: usize = 5;
/// Mutants to try for a new network before one is drawn at random.
const TRIES: usize = 20;
/// Each round of halving trains for the inner steps divided by one of these.
const PARTS: [usize; 4] = [8, 4, 2, 1];

/// What is computed next: networks, and the number that their inner steps are divided by.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// The networks, each once.
    pub codes: Vec<Code>,
    /// 8 for an eighth of the steps.
    pub part: usize,
}

/// What a strategy proposes for a space.
#[derive(Clone, Debug)]
pub struct Proposals<'a> {
    /// The strategy.
    pub strategy: Strategy,
    /// The space.
    pub space: &'a Space,
    /// Networks in all.
    pub networks: usize,
    /// The seed of all draws.
    pub seed: u64,
    /// What networks are ranked by, after all steps.
    pub estimator: &'a Estimator,
    /// All steps of a training.
    pub steps: usize,
}

impl Proposals<'_> {
    /// The next round after `rounds`; `None` when all are done. `table` gives the results of networks of
    /// earlier rounds.
    ///
    /// # Errors
    /// Those of `table`.
    pub fn next(
        &self,
        rounds: &[Round],
        table: impl Fn(&[Code]) -> Result<Table>,
    ) -> Result<Option<Round>> {
        let tried: usize = rounds.iter().map(|round| round.codes.len()).sum();
        match (self.strategy, rounds) {
            (Strategy::Random, []) => Ok(Some(Round {
                codes: self.drawn(self.networks),
                part: 1,
            })),
            (Strategy::Random, _) => Ok(None),
            (Strategy::Halving, []) => Ok(Some(Round {
                codes: self.drawn(self.networks),
                part: PARTS[0],
            })),
            (Strategy::Halving, rounds) => {
                let Some(&part) = PARTS.get(rounds.len()) else {
                    return Ok(None);
                };
                let last = &rounds[rounds.len() - 1];
                let estimates = table(&last.codes)?.estimates(&self.estimator_of(last.part));
                let best = best_first(&estimates)
                    .into_iter()
                    .take(last.codes.len().div_ceil(2));
                let codes = best.map(|at| last.codes[at].clone()).collect();
                Ok(Some(Round { codes, part }))
            }
            (Strategy::Evolution, []) => Ok(Some(Round {
                codes: self.drawn(POPULATION.min(self.networks)),
                part: 1,
            })),
            (Strategy::Evolution, _) if tried >= self.networks => Ok(None),
            (Strategy::Evolution, rounds) => {
                let all: Vec<Code> = rounds
                    .iter()
                    .flat_map(|round| round.codes.clone())
                    .collect();
                let alive = &all[all.len().saturating_sub(POPULATION)..];
                let estimates = table(alive)?.estimates(self.estimator);
                let codes =
                    self.children(&all, alive, &estimates, CHILDREN.min(self.networks - tried));
                Ok((!codes.is_empty()).then_some(Round { codes, part: 1 }))
            }
        }
    }

    /// The divisors of the inner steps, round by round.
    pub fn parts(&self) -> &'static [usize] {
        match self.strategy {
            Strategy::Halving => &PARTS,
            _ => &PARTS[PARTS.len() - 1..],
        }
    }

    /// How many trainings of networks there are in all.
    pub fn trainings(&self) -> usize {
        let rounds = self.parts().len() as u32;
        (0..rounds)
            .map(|round| self.networks.div_ceil(2usize.pow(round)))
            .sum()
    }

    /// The estimator after the inner steps divided by `part`.
    pub fn estimator_of(&self, part: usize) -> Estimator {
        match part {
            1 => self.estimator.clone(),
            part => self.estimator.after(self.steps.div_ceil(part)),
        }
    }

    /// The first networks of the search's draws, all different.
    fn drawn(&self, count: usize) -> Vec<Code> {
        let rng = &mut rng(self.seed, Draw::Search, 0, 2);
        let (mut seen, mut codes) = (HashSet::new(), Vec::new());
        let mut in_vain = 0;
        while codes.len() < count && in_vain < 10_000 {
            let code = self.space.any(rng);
            if seen.insert(self.space.twin(&code)) {
                codes.push(code);
                in_vain = 0;
            } else {
                in_vain += 1;
            }
        }
        codes
    }

    /// Mutants that have not been tried yet, and compute the same as none that has.
    fn children(&self, all: &[Code], alive: &[Code], estimates: &[f64], count: usize) -> Vec<Code> {
        let mut seen: HashSet<String> = all.iter().map(|code| self.space.twin(code)).collect();
        let mut children = Vec::new();
        for child in 0..count {
            let rng = &mut rng(self.seed, Draw::Search, (all.len() + child) as u64, 3);
            let few = sample(rng, alive.len(), TOURNAMENT.min(alive.len()));
            let parent = few
                .iter()
                .max_by(|&a, &b| estimates[a].total_cmp(&estimates[b]).then(b.cmp(&a)));
            let parent = &alive[parent.expect("some are alive")];
            let mutants = (0..TRIES)
                .map(|_| self.space.mutant(parent, rng))
                .collect::<Vec<_>>();
            let others = (0..1000).map(|_| self.space.any(rng));
            let fresh = mutants
                .into_iter()
                .chain(others)
                .find(|code| seen.insert(self.space.twin(code)));
            children.extend(fresh);
        }
        children
    }
}
