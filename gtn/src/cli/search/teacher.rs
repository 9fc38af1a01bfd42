//! The teacher of a search that was given no run.

use super::super::eval::read_config;
use super::super::{Cli, Outcome, Task as Command, handed_on, say, train};
use super::args::FindArgs;
use crate::data::DatasetChoice;
use crate::error::{Error, Result};
use crate::nn::Space;
use crate::ranks::Ranks;
use crate::run::config::Config;
use crate::run::run_folder::{CHECKPOINT, REPORT, make_folder};
use crate::run::settings::Overrides;
use clap::Parser;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The space of a search without a run.
const SPACE: &str = "nasbench201,channels=8,cells=1";
/// Outer steps of its teacher.
const OUTER_STEPS: u64 = 150;

/// Trains a teacher on networks of the space, or resumes its training; `None` if the user wants to stop.
///
/// # Errors
/// If there is a teacher with other settings than those given now.
pub(super) fn teacher(args: &FindArgs, out: &Path, ranks: &Ranks) -> Result<Option<PathBuf>> {
    let run = out.join("teacher");
    // As the first rank sees it, since that rank will write there.
    let there = [REPORT, CHECKPOINT].map(|file| run.join(file).exists());
    let [is_whole, is_begun] = ranks.gather(Ok(there))?[0];
    let file = args.config.as_deref().map(Overrides::read).transpose()?;
    let file = file.unwrap_or_default();
    if is_whole || is_begun {
        refuse_another(&run, args, &file)?;
    }
    if is_whole {
        return Ok(Some(run));
    }
    make_folder(out)?;
    let mut flags = vec![format!(
        "--{}={}",
        if is_begun { "resume" } else { "out" },
        run.display()
    )];
    if !is_begun {
        flags.extend(settings(args, &file));
    }
    // The other half of the time is left for the networks.
    flags.extend(
        args.minutes
            .map(|minutes| format!("--minutes={}", minutes / 2.0)),
    );
    flags.push("--no-baseline".to_owned());
    say("Teacher: a run on networks of the space");
    let words = ["gtn".to_owned(), "train".to_owned()].into_iter();
    let words = words.chain(flags).map(OsString::from);
    let words = words.chain(handed_on(&args.work.machine, &args.work.files));
    let Some(Command::Train(training)) = Cli::try_parse_from(words)?.task else {
        return Err(Error::usage("no training"));
    };
    let outcome = train::run(&training, ranks)?;
    ranks.at_step(0);
    Ok((outcome == Outcome::Done).then_some(run))
}

/// Settings that the user gave, by name.
fn given(args: &FindArgs) -> Vec<(&'static str, String)> {
    let settings = [
        ("learner", args.space.as_ref().map(Space::text)),
        ("dataset", args.dataset.clone()),
        ("resize", args.resize.map(|side| side.to_string())),
        ("rank_by", args.rank_by.as_ref().map(ToString::to_string)),
        (
            "outer_steps",
            args.teacher_steps.map(|steps| steps.to_string()),
        ),
    ];
    let given = |(name, value): (_, Option<String>)| Some((name, value?));
    settings.into_iter().filter_map(given).collect()
}

/// The flags of a new training: defaults of this command, below settings of the file, below those that the
/// user gave.
fn settings(args: &FindArgs, file: &Overrides) -> Vec<String> {
    let given = given(args);
    // With `--rank-by` the preset `search` is used, which has its own number of steps.
    let steps = args.rank_by.is_none().then(|| OUTER_STEPS.to_string());
    let usual = [
        ("learner", Some(SPACE.to_owned())),
        ("outer_steps", steps),
        ("seed", Some(args.seed.to_string())),
        ("learners", Some("1".to_owned())),
    ];
    let is_open = |wanted: &str| {
        !given.iter().any(|(name, _)| *name == wanted) && !file.names().any(|name| name == wanted)
    };
    let usual = usual.into_iter().filter(|(name, _)| is_open(name));
    let usual = usual.filter_map(|(name, value)| Some((name, value?)));
    let preset = args
        .rank_by
        .as_ref()
        .map(|_| ("preset", "search".to_owned()));
    let config = args
        .config
        .as_ref()
        .map(|file| ("config", file.display().to_string()));
    let all = preset
        .into_iter()
        .chain(config)
        .chain(usual)
        .chain(given.iter().cloned());
    all.map(|(name, value)| format!("--{}={value}", name.replace('_', "-")))
        .collect()
}

/// Refuses a teacher that was made by other settings than those that are given now.
fn refuse_another(run: &Path, args: &FindArgs, file: &Overrides) -> Result<()> {
    let there = read_config(run)?;
    let over = |settings: Overrides, (name, value)| settings.with(name, Some(value));
    let mut settings = Overrides::from_toml("its settings", &there.to_toml())?;
    settings.change(given(args).into_iter().fold(file.clone(), over));
    // Parsed without checks across settings: the mixture of old and new need not make sense.
    let mut wanted: Config = settings.parse()?;
    // In the form that a run stores: an absolute path, and the data set that `auto` turned out to be.
    match &mut wanted.dataset {
        DatasetChoice::At(path) => *path = std::path::absolute(&path).unwrap_or(path.clone()),
        DatasetChoice::Auto => wanted.dataset = there.dataset.clone(),
        DatasetChoice::Named(_) | DatasetChoice::Embedded => {}
    }
    let changes = wanted.changes(&there);
    let Some((name, values)) = changes.iter().next() else {
        return Ok(());
    };
    let (before, now) = (&values[0], &values[1]);
    let message =
        format!("the teacher there has other settings: {name} is {before}, and here {now}");
    let error = Error::usage(message).at(run.display());
    Err(error.hint("--out names another folder"))
}
