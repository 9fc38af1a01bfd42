//! The search itself.

use super::super::eval::read_config;
use super::super::{Outcome, end_after, stop};
use super::args::FindArgs;
use super::hunt::{Done, Search};
use super::teacher::teacher;
use super::work::{Work, say_stopped};
use crate::error::{Error, Result};
use crate::ranks::Ranks;
use crate::run::run_folder::refuse_run;
use crate::search::{Estimator, Proposals, Task};
use std::path::PathBuf;
use std::time::Instant;

pub(super) fn run(args: &FindArgs, ranks: &Ranks) -> Result<Outcome> {
    let begin = Instant::now();
    stop::listen()?;
    let out = args.out.clone().unwrap_or_else(|| match &args.run {
        Some(run) => run.join("search"),
        None => PathBuf::from("search"),
    });
    refuse_run(&out, "--out")?;
    let run = match &args.run {
        Some(run) => run.clone(),
        None => match teacher(args, &out, ranks)? {
            Some(run) => run,
            None => return Ok(Outcome::Interrupted),
        },
    };
    let config = read_config(&run)?;
    let own = config.population().space().cloned();
    let space = args.space.clone().or(own);
    let space = space.ok_or_else(|| {
        Error::usage("a space is needed, as the run is of none").hint("--space nasbench201")
    })?;
    let proposals = Proposals {
        strategy: args.strategy,
        space: &space,
        networks: args.networks,
        seed: args.seed,
        estimator: &args.estimator,
        steps: config.inner_steps,
    };
    let parts = proposals.parts();
    let estimators: Vec<Estimator> = parts
        .iter()
        .map(|&part| proposals.estimator_of(part))
        .collect();
    let work = Work {
        run: &run,
        config: &config,
        space: &space,
        estimators: estimators.iter().collect(),
        folder: &out,
    };
    let finished = work.led(&args.work, ranks, |crew, ledger| {
        let ends = end_after(begin, args.minutes);
        let mut search = Search::new(args, crew.lab, &proposals, ledger, ends);
        let compute = |tasks: &[Task], done: Done<'_>| crew.compute(tasks, done);
        let finished = search.all(compute)? && search.fits(compute)?;
        crew.let_go()?;
        if !finished {
            say_stopped(&out);
            return Ok(false);
        }
        // One after another, because work beside it would slow down what is measured.
        if !search.latencies(|tasks, done| crew.lab.run(crew.device, 1, tasks, done))? {
            return Ok(false);
        }
        search.report(&out)?;
        Ok(true)
    })?;
    Ok(match finished {
        Some(false) => Outcome::Interrupted,
        None if stop::asked() => Outcome::Interrupted,
        _ => Outcome::Done,
    })
}
