//! The search itself.

use super::super::eval::read_config;
use super::super::{Cli, Files, Machine, Outcome, Task as Command, handed_on, say, stop, train};
use super::crew::{Crew, same_settings};
use super::hunt::Search;
use super::work::{Loaded, prepare};
use crate::error::{Error, Result};
use crate::eval::report::GLANCE;
use crate::nn::Space;
use crate::outer::order::RankBy;
use crate::ranks::Ranks;
use crate::run::run_folder::{CHECKPOINT, REPORT, make_folder};
use crate::run::settings::{Overrides, above_zero, count, natural};
use crate::search::{Estimator, Lab, Ledger, Proposals, Source, Strategy};
use clap::{Args, Parser};
use serde_json::json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The space of a search without a run.
const SPACE: &str = "nasbench201,channels=8,cells=1";
/// Outer steps of its teacher.
const TEACHER_STEPS: &str = "150";

/// Settings of the search.
#[derive(Debug, Args)]
pub(super) struct FindArgs {
    /// The folder of a run, which teaches [default: one is trained first, on networks of the space]
    #[arg(value_name = "RUN")]
    run: Option<PathBuf>,
    /// Without a run: the data set, as for `gtn train`
    #[arg(long, value_name = "NAME|PATH", conflicts_with = "run")]
    dataset: Option<String>,
    /// Without a run: make all images N×N pixels
    #[arg(long, value_name = "N", conflicts_with = "run")]
    resize: Option<usize>,
    /// Without a run: a TOML file with other settings of the training that makes the teacher
    #[arg(long, value_name = "FILE", conflicts_with = "run")]
    config: Option<PathBuf>,
    /// Without a run: accuracies of networks of the space, whose order the teacher learns, too, by the preset `search`: see
    /// `gtn train --rank-by`. They need not be on these images
    #[arg(long, value_name = "FILE[,COLUMN]", conflicts_with = "run")]
    rank_by: Option<RankBy>,
    /// Without a run: outer steps of that training [default: those of the file; of the preset with --rank-by; else 150]
    #[arg(long, value_name = "N", value_parser = natural(1), conflicts_with = "run")]
    teacher_steps: Option<u64>,
    /// The space [default: the run's, or nasbench201,channels=8,cells=1]
    #[arg(long, value_name = "SPACE")]
    space: Option<Space>,
    /// How networks are proposed
    #[arg(long, value_enum, default_value_t)]
    pub(super) strategy: Strategy,
    /// Networks to try
    #[arg(long, value_name = "N", default_value = "100", value_parser = count())]
    pub(super) networks: usize,
    /// End after so many minutes, if that is earlier
    #[arg(long, value_name = "X", value_parser = above_zero)]
    minutes: Option<f64>,
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
    seed: u64,
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
    files: Files,
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
    let settings = json!({
        "run": config.to_toml(), "outer_step": trainer.outer_step(), "space": space.name(), "seeds": args.seeds,
        "images": args.images, "area": area,
    });
    same_settings(ranks, &settings)?;
    let ledger = ranks.is_first().then(|| Ledger::open(&out, &settings));
    let ledger = ledger.transpose()?;
    let mut lab = Lab::new(&config, &space, &data, [args.seeds, args.images], area);
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
    let ends = args
        .minutes
        .map(|minutes| begin + Duration::from_secs_f64(60.0 * minutes));
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

/// Trains a teacher on networks of the space, or goes on with that; none if the user wants to stop.
///
/// # Errors
/// If there is one of other settings than those that were given now.
fn teacher(args: &FindArgs, out: &Path, ranks: &Ranks) -> Result<Option<PathBuf>> {
    let run = out.join("teacher");
    // As the first rank sees it: it writes there from now on.
    let there = [REPORT, CHECKPOINT].map(|file| run.join(file).exists());
    let [is_whole, is_begun] = ranks.gather(Ok(there))?[0];
    let file = args.config.as_deref().map(Overrides::read).transpose()?;
    let file = file.unwrap_or_default();
    if is_whole || is_begun {
        let given = file
            .clone()
            .with("learner", args.space.as_ref().map(Space::text))
            .with("dataset", args.dataset.as_ref())
            .with("resize", args.resize)
            .with("rank_by", args.rank_by.as_ref())
            .with("outer_steps", args.teacher_steps);
        same_teacher(&run, &given)?;
    }
    if is_whole {
        return Ok(Some(run));
    }
    make_folder(out)?;
    let in_file = |name: &str| file.names().any(|other| other == name);
    let mut words = vec!["gtn".to_owned(), "train".to_owned()];
    let mut word = |name: &str, value: String| words.push(format!("--{name}={value}"));
    if is_begun {
        word("resume", run.display().to_string());
    } else {
        word("out", run.display().to_string());
        if let Some(space) = &args.space {
            word("learner", space.text());
        } else if !in_file("learner") {
            word("learner", SPACE.to_owned());
        }
        if let Some(table) = &args.rank_by {
            word("preset", "search".to_owned());
            word("rank-by", table.to_string());
        }
        if let Some(steps) = args.teacher_steps {
            word("outer-steps", steps.to_string());
        } else if args.rank_by.is_none() && !in_file("outer_steps") {
            word("outer-steps", TEACHER_STEPS.to_owned());
        }
        for (name, usual) in [
            ("seed", args.seed.to_string()),
            ("learners", "1".to_owned()),
        ] {
            if !in_file(name) {
                word(name, usual);
            }
        }
        args.dataset
            .iter()
            .for_each(|dataset| word("dataset", dataset.clone()));
        args.resize
            .iter()
            .for_each(|side| word("resize", side.to_string()));
        args.config
            .iter()
            .for_each(|file| word("config", file.display().to_string()));
    }
    words.push("--no-baseline".to_owned());
    let words = words.into_iter().map(OsString::from);
    let words = words.chain(handed_on(&args.machine, &args.files));
    say("Teacher: a run on networks of the space");
    let Some(Command::Train(args)) = Cli::try_parse_from(words)?.task else {
        return Err(Error::usage("no training"));
    };
    let outcome = train::run(&args, ranks)?;
    ranks.at_step(0);
    Ok((outcome == Outcome::Done).then_some(run))
}

/// Refuses a teacher that was made by other settings than these.
fn same_teacher(run: &Path, given: &Overrides) -> Result<()> {
    let there = read_config(run)?;
    let changes = there.with(given)?.changes(&there);
    let Some((name, values)) = changes.iter().next() else {
        return Ok(());
    };
    let (before, now) = (&values[0], &values[1]);
    let message =
        format!("the teacher there has other settings: {name} is {before}, and here {now}");
    Err(Error::usage(message)
        .at(run.display())
        .hint("--out names another folder"))
}
