//! `gtn search correlate`

use super::super::eval::read_config;
use super::super::progress::Progress;
use super::super::{Outcome, say, show, stop};
use super::crew::Crew;
use super::work::{Work, WorkArgs, say_postponed, say_stopped};
use crate::draw::scatter;
use crate::error::{Error, Result};
use crate::nn::{Code, Population, Source as Drawn, Space, Truth};
use crate::ranks::Ranks;
use crate::run::config::Config;
use crate::run::run_folder::{make_folder, refuse_run, write_atomically};
use crate::search::agreement::best_first;
use crate::search::correlate::{Correlation, panels};
use crate::search::{Entry, Estimator, Ledger, Source, Structure, Table, Task};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Images of CIFAR-10, where no run says what images are.
const IMAGE: [usize; 3] = [32, 32, 3];

/// Settings of `gtn search correlate`.
#[derive(Debug, Args)]
pub(super) struct CorrelateArgs {
    /// The folder of a run, which teaches; without one only counts are compared
    #[arg(value_name = "RUN")]
    run: Option<PathBuf>,
    /// Accuracies: a CSV file with columns `cell` or `network` and an accuracy, or a JSON object as NAS-Bench-Macro's
    #[arg(long, value_name = "FILE")]
    truth: PathBuf,
    /// The column of the accuracies [default: `c10_test200`, `c10_val200`, `mean_acc` or accuracy]
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// Networks to rank: the first N of the space's split, or `all` of the truth
    #[arg(long, value_name = "N|all", default_value = "200", value_parser = sample)]
    sample: Sample,
    /// The space [default: the run's]
    #[arg(long, value_name = "SPACE")]
    space: Option<Space>,
    /// What to rank by: gtn and real, each also with -area, -loss or -speed and then @STEPS; fit@EPOCHS (trained on all images);
    /// synflow, naswot, params, macs, depth, convs, path, structure; and sums of ranks as gtn+structure or 2*gtn+params
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        allow_hyphen_values = true,
        default_value = "gtn,gtn-loss,gtn-speed,real,params,macs,depth,structure,synflow,naswot,gtn+structure,real+structure"
    )]
    estimators: Vec<Estimator>,
    /// Also show what searches would have found, each among a different half of the sample; ± is over these halves only
    #[arg(long, value_enum, value_name = "WITH")]
    compare: Option<Compare>,
    /// Folder for the results [default: correlate in the run's folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    work: WorkArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Compare {
    /// Searches that choose at random
    Random,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sample {
    First(usize),
    All,
}

fn sample(text: &str) -> Result<Sample, String> {
    match (text, text.parse()) {
        ("all", _) => Ok(Sample::All),
        (_, Ok(count @ 10..=1_000_000)) => Ok(Sample::First(count)),
        _ => Err("a number from 10 to 1000000 is needed, or all".to_owned()),
    }
}

/// The object that the command ends with.
#[derive(Serialize)]
struct Report<'a> {
    command: &'static str,
    run: Option<Cow<'a, str>>,
    space: String,
    truth: Cow<'a, str>,
    column: &'a str,
    /// Networks of the sample that are not held out, so the run may have drawn them in meta-training.
    not_held_out: usize,
    /// Whether the run was taught the order of networks by known accuracies. Its estimates are supervised
    /// then.
    supervised: bool,
    #[serde(flatten)]
    correlation: &'a Correlation,
}

pub(super) fn run(args: &CorrelateArgs, ranks: &Ranks) -> Result<Outcome> {
    if let Some(folder) = &args.out {
        refuse_run(folder, "--out")?;
    }
    let config = args.run.as_deref().map(read_config).transpose()?;
    let population = config.as_ref().map(Config::population);
    let space = space(args, population.as_ref())?;
    let truth = Truth::read(&args.truth, args.column.as_deref(), &space)?;
    let codes = sampled(args, &space, &truth)?;
    let not_held_out = population.map_or(0, |population| may_be_drawn(&population, &space, &codes));
    if not_held_out > 0 {
        say(&format!(
            "warning: {not_held_out} of {} networks may have been drawn in the run's meta-training",
            codes.len()
        ));
    }
    let table_of_run = config.as_ref().and_then(|config| config.rank_by.path());
    let supervised = table_of_run.is_some();
    if let Some(path) = table_of_run {
        say(&format!(
            "note: estimates by this run are supervised, by {}",
            path.display()
        ));
    }
    let (table, folder) = match (&args.run, config) {
        (Some(run), Some(config)) => match computed(args, run, &config, &space, &codes, ranks)? {
            Some(found) => found,
            None if stop::asked() => return Ok(Outcome::Interrupted),
            None => return Ok(Outcome::Done),
        },
        _ if !ranks.is_first() => return Ok(Outcome::Done),
        _ => (counted(args, &space, &codes)?, args.out.clone()),
    };
    let accuracies: Vec<f64> = codes.iter().filter_map(|code| truth.of(code)).collect();
    let compare = args.compare == Some(Compare::Random);
    let correlation = Correlation::new(&table, &accuracies, &args.estimators, 0, compare);
    let report = Report {
        command: "search correlate",
        run: args.run.as_deref().map(Path::to_string_lossy),
        space: space.name(),
        truth: args.truth.to_string_lossy(),
        column: &truth.column,
        not_held_out,
        supervised,
        correlation: &correlation,
    };
    if let Some(folder) = folder {
        make_folder(&folder)?;
        let write = |name: &str, bytes: &[u8]| {
            write_atomically(&folder.join(name), |file| file.write_all(bytes))
        };
        let estimates = table.estimates(&args.estimators[0]);
        let csv = table.to_csv(&best_first(&estimates), &estimates, str::to_owned)?;
        write("results.csv", &csv)?;
        write(
            "report.json",
            &serde_json::to_vec_pretty(&report).map_err(Error::run)?,
        )?;
        scatter::write(
            &folder.join("scatter.svg"),
            &panels(&table, &accuracies, &args.estimators),
        )?;
        say(&format!("The results are in {}", folder.display()));
    }
    show(correlation.table().trim_end())?;
    args.work.machine.print(&report)?;
    Ok(Outcome::Done)
}

fn space(args: &CorrelateArgs, population: Option<&Population>) -> Result<Space> {
    if let Some(space) = &args.space {
        return Ok(space.clone());
    }
    let own = population.and_then(Population::space).cloned();
    own.ok_or_else(|| {
        Error::usage("a space is needed, as the run is of none")
            .hint("--space nasbench201,channels=8,cells=1")
    })
}

fn sampled(args: &CorrelateArgs, space: &Space, truth: &Truth) -> Result<Vec<Code>> {
    let codes = match args.sample {
        Sample::All => truth.codes().to_vec(),
        Sample::First(count) => space.sample(count)?,
    };
    if codes.len() < 2 {
        let (place, count) = (args.truth.display(), codes.len());
        return Err(Error::usage(format!("{count} networks, and to rank takes two")).at(place));
    }
    if let Some(code) = codes.iter().find(|code| truth.of(code).is_none()) {
        let error = Error::usage(format!(
            "no accuracy of {} in {}",
            space.name_of(code),
            args.truth.display()
        ));
        return Err(error.hint("--sample all ranks those that are there"));
    }
    Ok(codes)
}

/// How many of these networks a population may draw.
fn may_be_drawn(population: &Population, space: &Space, codes: &[Code]) -> usize {
    let draws = |code: &&Code| {
        population
            .members()
            .iter()
            .any(|member| match &member.source {
                Drawn::Space(other) => other.has_networks_of(space) && !other.holds_out(code),
                Drawn::Family(_) => false,
            })
    };
    codes.iter().filter(draws).count()
}

/// A table of counts alone, which needs no run.
fn counted(args: &CorrelateArgs, space: &Space, codes: &[Code]) -> Result<Table> {
    let mut sources = args.estimators.iter().flat_map(Estimator::sources);
    if let Some(source) = sources.next() {
        let error = Error::usage(format!("the estimator {} needs a run", source.name()));
        return Err(
            error.hint("gtn search correlate RUN …, or --estimators params,macs,depth,structure")
        );
    }
    let structure = |code: &Code| -> Result<_> {
        let learner = space.network(code)?.learner(IMAGE, 10)?;
        Ok((code.to_string(), Some(Structure::of(&learner))))
    };
    Ok(Table::new(
        codes.iter().map(structure).collect::<Result<_>>()?,
        &[],
    ))
}

/// Computes the results that are missing. `None` if the user wants to stop, and on every rank except the
/// first, which keeps all results.
fn computed(
    args: &CorrelateArgs,
    run: &Path,
    config: &Config,
    space: &Space,
    codes: &[Code],
    ranks: &Ranks,
) -> Result<Option<(Table, Option<PathBuf>)>> {
    stop::listen()?;
    let folder = args.out.clone().unwrap_or_else(|| run.join("correlate"));
    let work = Work {
        run,
        config,
        space,
        estimators: args.estimators.iter().collect(),
        folder: &folder,
    };
    let table = work.led(&args.work, ranks, |crew, ledger| {
        let table = complete(crew, ledger, codes, &work.sources())?;
        if table.is_none() {
            say_stopped(&folder);
        }
        Ok(table)
    })?;
    Ok(table.flatten().map(|table| (table, Some(folder))))
}

/// All results of these networks, old and new; `None` if the user wants to stop.
fn complete(
    crew: &Crew<'_>,
    mut ledger: Ledger,
    codes: &[Code],
    sources: &[Source],
) -> Result<Option<Table>> {
    let all = codes.iter().flat_map(|code| {
        sources.iter().map(|&source| Task {
            code: code.clone(),
            source,
        })
    });
    let all: Vec<Task> = all.collect();
    let tasks: Vec<Task> = all
        .iter()
        .filter(|task| !ledger.has(&task.code.to_string(), task.source))
        .cloned()
        .collect();
    let mut done = (all.len() - tasks.len()) as u64;
    let mut progress = Progress::new("Result", all.len() as u64, done);
    let keep = |entry: Entry| {
        done += 1;
        progress.at(done, &format!("{} of {}", entry.source, entry.network));
        ledger.add(entry)?;
        Ok(!stop::asked())
    };
    crew.compute(&tasks, keep)?;
    crew.let_go()?;
    if stop::asked() {
        return Ok(None);
    }
    say_postponed(&ledger);
    let network = |code: &Code| {
        let learner = crew.lab.learner(code).ok();
        (code.to_string(), learner.map(|(_, structure)| structure))
    };
    let networks = codes.iter().map(network).collect();
    Ok(Some(Table::new(networks, ledger.entries())))
}
