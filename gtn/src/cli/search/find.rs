//! The search itself.

use super::super::eval::read_config;
use super::super::{Files, Machine, Outcome, end_after, say, stop};
use super::crew::{Crew, ledger};
use super::hunt::Search;
use super::teacher::teacher;
use super::work::{Loaded, prepare};
use crate::error::{Error, Result};
use crate::eval::report::GLANCE;
use crate::nn::Space;
use crate::outer::order::RankBy;
use crate::ranks::Ranks;
use crate::run::settings::{above_zero, count, natural};
use crate::search::{Estimator, Lab, Proposals, Source, Strategy};
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;

/// Settings of the search.
#[derive(Debug, Args)]
pub(super) struct FindArgs {
    /// The folder of a run, which teaches [default: one is trained first, on networks of the space]
    #[arg(value_name = "RUN")]
    run: Option<PathBuf>,
    /// Without a run: the data set, as for `gtn train`
    #[arg(long, value_name = "NAME|PATH", conflicts_with = "run")]
    pub(super) dataset: Option<String>,
    /// Without a run: make all images N×N pixels
    #[arg(long, value_name = "N", conflicts_with = "run")]
    pub(super) resize: Option<usize>,
    /// Without a run: a TOML file with other settings of the training that makes the teacher
    #[arg(long, value_name = "FILE", conflicts_with = "run")]
    pub(super) config: Option<PathBuf>,
    /// Without a run: accuracies of networks of the space, whose order the teacher learns, too, by the preset `search`: see
    /// `gtn train --rank-by`. They need not be on these images
    #[arg(long, value_name = "FILE[,COLUMN]", conflicts_with = "run")]
    pub(super) rank_by: Option<RankBy>,
    /// Without a run: outer steps of that training [default: those of the file; with --rank-by of the preset; else 150]
    #[arg(long, value_name = "N", value_parser = natural(1), conflicts_with = "run")]
    pub(super) teacher_steps: Option<u64>,
    /// The space [default: the run's, or nasbench201,channels=8,cells=1]
    #[arg(long, value_name = "SPACE")]
    pub(super) space: Option<Space>,
    /// How networks are proposed
    #[arg(long, value_enum, default_value_t)]
    pub(super) strategy: Strategy,
    /// Networks to try
    #[arg(long, value_name = "N", default_value = "100", value_parser = count())]
    pub(super) networks: usize,
    /// End after so many minutes, if that is earlier; without a run at most half of them are its teacher's
    #[arg(long, value_name = "X", value_parser = above_zero)]
    pub(super) minutes: Option<f64>,
    /// End after so many inner steps of learners in all, if that is earlier
    #[arg(long, value_name = "N", value_parser = natural(1))]
    pub(super) inner_steps: Option<u64>,
    /// What to rank by, as for `gtn search correlate`
    #[arg(long, value_name = "NAME", default_value = "gtn+structure")]
    pub(super) estimator: Estimator,
    /// Learners of every network, whose estimates are averaged
    #[arg(long, value_name = "N", default_value = "1", value_parser = count())]
    seeds: usize,
    /// Validation images that judge a learner
    #[arg(long, value_name = "N", default_value_t = GLANCE, value_parser = count())]
    images: usize,
    /// Seed of what is proposed
    #[arg(long, value_name = "N", default_value = "1", value_parser = natural(0))]
    pub(super) seed: u64,
    /// Networks to show
    #[arg(long, value_name = "N", default_value = "10", value_parser = count())]
    pub(super) top: usize,
    /// Networks that are computed at once, on every rank [default: on a processor one for each thread]
    #[arg(long, value_name = "N", value_parser = count())]
    workers: Option<usize>,
    /// Folder for the results, and to go on with those that are there [default: search in the run's folder, or ./search]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    pub(super) machine: Machine,
    #[command(flatten)]
    pub(super) files: Files,
}

pub(super) fn run(args: &FindArgs, ranks: &Ranks) -> Result<Outcome> {
    let begin = Instant::now();
    stop::listen()?;
    let out = args.out.clone().unwrap_or_else(|| match &args.run {
        Some(run) => run.join("search"),
        None => PathBuf::from("search"),
    });
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
    let Loaded {
        device,
        trainer,
        data,
    } = Loaded::new(&run, &config, &args.machine, &args.files, ranks)?;
    let area = args.estimator.needs_area();
    let mut lab = Lab::new(&config, &space, &data, [args.seeds, args.images], area);
    let ledger = ledger(&out, &lab, trainer.outer_step(), ranks)?;
    let proposals = Proposals {
        strategy: args.strategy,
        space: &space,
        networks: args.networks,
        seed: args.seed,
        estimator: &args.estimator,
        steps: config.inner_steps,
    };
    let mut sources: Vec<Source> = proposals
        .parts()
        .iter()
        .flat_map(|&part| proposals.estimator_of(part).sources())
        .collect();
    sources.sort_unstable();
    sources.dedup();
    if !prepare(&mut lab, &device, &trainer, (&out, ranks), &sources)? {
        return Ok(Outcome::Interrupted);
    }
    let crew = Crew {
        lab: &lab,
        device: &device,
        workers: args.workers.unwrap_or(device.threads()),
        ranks,
    };
    let Some(ledger) = ledger else {
        crew.help()?;
        return Ok(Outcome::Done);
    };
    let ends = end_after(begin, args.minutes);
    let mut search = Search::new(args, &lab, &proposals, ledger, ends);
    let finished = search.all(|tasks, done| crew.compute(tasks, done))?;
    crew.let_go()?;
    if !finished {
        say(&format!(
            "Stopped. The same command goes on with what is in {}",
            out.display()
        ));
        return Ok(Outcome::Interrupted);
    }
    // One after another: what else runs would be measured, too.
    if !search.latencies(|tasks, done| lab.run(&device, 1, tasks, done))? {
        return Ok(Outcome::Interrupted);
    }
    search.report(&out)?;
    Ok(Outcome::Done)
}
