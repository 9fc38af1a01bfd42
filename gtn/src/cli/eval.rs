//! `gtn eval`

use super::progress::Progress;
use super::{Files, Machine, Outcome, pictures, say, show, stop};
use crate::data::{Dataset, Problem};
use crate::device::PrecisionChoice;
use crate::error::{Error, ErrorKind, Result};
use crate::eval::evaluate::TestSet;
use crate::eval::examination::Examination;
use crate::eval::report::{self, GLANCE, Report};
use crate::eval::rivals::{Baselines, LearnedRates, Rivals};
use crate::eval::suite::{Entry, SuiteReport};
use crate::eval::training_data::TrainingData;
use crate::nn::widths::Widths;
use crate::nn::{Learner, Learners, Network, Norm, Suite};
use crate::outer::meta::MetaTrainer;
use crate::ranks::{Ranks, fingerprint};
use crate::run::best::Which;
use crate::run::config::Config;
use crate::run::run_folder::{self, RunFolder};
use crate::run::settings::Overrides;
use crate::run::values::{count, name_of};
use crate::run::{card, checkpoint};
use clap::Args;
use kernels::Device;
use serde::Serialize;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Other learners than those that a run was trained with.
#[derive(Debug, Args)]
pub(super) struct Others {
    /// Learners: a family, a text, a population or a file [default: the run's]
    #[arg(long, value_name = "NAME|TEXT|FILE")]
    learner: Option<Learners>,
    /// Normalisation, where a family or text has a place for it [default: the run's]
    #[arg(long, value_name = "NORM")]
    norm: Option<Norm>,
    /// Widths for the places that a family or text has: a number each, or a range to draw from, in steps or not (48-80/8) [default: the run's]
    #[arg(long, value_name = "N-N,…")]
    widths: Option<Widths>,
}

impl Others {
    /// The settings that they change.
    pub(super) fn changes(&self) -> Overrides {
        Overrides::default()
            .with("learner", self.learner.as_ref())
            .with("norm", self.norm)
            .with("widths", self.widths.as_ref())
    }
}

/// What a run is compared with.
#[derive(Debug, Args)]
pub(super) struct BaselineArgs {
    /// Which real images teach in the baselines, by momentum, by Adam and by Muon, tuned
    #[arg(long, value_name = "WHICH", value_enum, default_value_t)]
    baseline: Baselines,
    /// The same as --baseline none
    #[arg(long, conflicts_with = "baseline")]
    no_baseline: bool,
    /// Baselines that train longer as well, by so many steps on real images drawn anew: how many do they need to teach as well?
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = count())]
    real_steps: Vec<usize>,
    /// Tune how much of the run's learned rates its learners take, as the rates of baselines are tuned
    #[arg(long)]
    tune_rates: bool,
}

impl BaselineArgs {
    fn which(&self) -> Baselines {
        if self.no_baseline {
            Baselines::None
        } else {
            self.baseline
        }
    }

    /// Refuses longer baselines whose images do not fit into memory, before anything is trained.
    pub(super) fn check(&self, config: &Config, problem: Problem) -> Result<()> {
        self.real_steps.iter().try_for_each(|&inner_steps| {
            let longer = Config {
                inner_steps,
                ..config.clone()
            };
            // Normalised, and on the device, which may be this memory, too.
            TrainingData::check_memory(&longer, problem, 2)
                .map_err(|e| e.at("--real-steps").hint("fewer steps take less"))
        })
    }

    /// The baselines that the user wants.
    pub(super) fn rivals(&self, config: &Config, data: &Dataset) -> Rivals {
        Rivals {
            tune_rates: self.tune_rates,
            steps: self.real_steps.clone(),
            ..Rivals::new(self.which(), config, data)
        }
    }
}

/// Settings of `gtn eval`.
#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// The folder of a run
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Learners to train in each way [default: the run's]
    #[arg(long, value_name = "N", value_parser = count())]
    learners: Option<usize>,
    #[command(flatten)]
    others: Others,
    /// A suite of networks, each evaluated in the same way: held-out (what the population `mixed` never draws),
    /// initialisations (a network whose weights begin in other ways), or a TOML file
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["learner", "norm", "widths"])]
    suite: Option<String>,
    /// Which checkpoint of the run
    #[arg(long, value_enum, default_value_t)]
    checkpoint: Which,
    #[command(flatten)]
    baselines: BaselineArgs,
    /// One more row: real images with the rates that RUN2 learned for them (--curriculum real-data, equal steps and batch)
    #[arg(long, value_name = "RUN2")]
    against: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    files: Files,
}

/// The object that `train` and `eval` end with.
#[derive(Serialize)]
pub(super) struct Evaluated<'a, R> {
    command: &'static str,
    run: Cow<'a, str>,
    outer_step: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(flatten)]
    report: &'a R,
}

impl<'a, R: Serialize> Evaluated<'a, R> {
    pub(super) fn new(
        command: &'static str,
        run: &'a Path,
        outer_step: u64,
        report: &'a R,
    ) -> Self {
        Self {
            command,
            run: run.to_string_lossy(),
            outer_step,
            seconds: None,
            report,
        }
    }

    /// Adds the seconds that the whole command took.
    pub(super) fn after(self, seconds: f64) -> Self {
        Self {
            seconds: Some(seconds),
            ..self
        }
    }
}

pub(super) fn run(args: &EvalArgs, ranks: &Ranks) -> Result<Outcome> {
    stop::listen()?;
    let config = read_config(&args.run)?;
    let suite = args.suite.as_deref().map(Suite::parse).transpose()?;
    let changes = args.others.changes().with("learners", args.learners);
    let changed = config.with(&changes)?;
    same_settings(ranks, &changed, &args.baselines, args.machine.precision)?;
    let device = args.machine.device_of(ranks)?;
    let checkpoint = args.checkpoint.of(&args.run)?;
    let problem = card::problem(&args.run)?;
    let (trainer, _) = checkpoint::load(&checkpoint, &device, &config, problem)?;
    let data = args.files.data(&config, Some(&args.run))?;
    same_data(ranks, &data)?;
    same_state(ranks, &trainer)?;
    args.baselines.check(&changed, data.problem())?;
    let mut rivals = args.baselines.rivals(&changed, &data);
    if let Some(other) = &args.against {
        let learned = learned_rates(other, &device, &changed, &data, ranks);
        let learned = learned.map_err(|e| e.at(format!("--against {}", other.display())))?;
        rivals.learned = Some(learned);
    }
    let run = Run {
        device: &device,
        ranks,
        config: &changed,
        trainer: &trainer,
        data: &data,
        rivals: &rivals,
    };
    let outer_step = trainer.outer_step();
    if let Some(suite) = &suite {
        let Some(report) = run.evaluate_suite(suite)? else {
            return Ok(Outcome::Interrupted);
        };
        show_table(&report.table(), &trainer)?;
        args.machine
            .print(&Evaluated::new("eval", &args.run, outer_step, &report))?;
        return Ok(Outcome::Done);
    }
    let Some(report) = run.evaluate()? else {
        say("Stopped before the evaluation ended");
        return Ok(Outcome::Interrupted);
    };
    show_table(&report.table(), &trainer)?;
    args.machine
        .print(&Evaluated::new("eval", &args.run, outer_step, &report))?;
    Ok(Outcome::Done)
}

/// Refuses ranks that were started with other settings.
pub(super) fn same_settings(
    ranks: &Ranks,
    config: &Config,
    baselines: &BaselineArgs,
    precision: PrecisionChoice,
) -> Result<()> {
    let settings = || {
        Ok((
            config.to_toml(),
            name_of(&baselines.which()),
            (baselines.real_steps.clone(), baselines.tune_rates),
            precision.name().to_owned(),
        ))
    };
    ranks.same("other settings", ErrorKind::Usage, settings)
}

/// Refuses ranks that read other images, or split them differently.
pub(super) fn same_data(ranks: &Ranks, data: &Dataset) -> Result<()> {
    let splits = [&data.train, &data.validation, &data.test];
    let splits = || splits.map(|split| (&split.images, &split.labels));
    ranks.same("other data", ErrorKind::Data, || Ok(fingerprint(&splits())))
}

/// Refuses ranks whose runs are not at the same outer step, or have learned something different up to it.
pub(super) fn same_state(ranks: &Ranks, trainer: &MetaTrainer) -> Result<()> {
    let step = trainer.outer_step();
    let what = format!("learned something else by outer step {step}");
    ranks.same(&what, ErrorKind::Run, || {
        let arrays = trainer.arrays()?;
        let bytes: Vec<_> = arrays
            .iter()
            .map(|(name, array)| (name, array.bytes()))
            .collect();
        Ok((step, fingerprint(&bytes)))
    })
}

/// The settings in a run's folder.
pub(super) fn read_config(run: &Path) -> Result<Config> {
    let path = run.join(run_folder::CONFIG);
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let error = Error::file("read", &path, &error);
        error.at(format!("{} is no run", run.display()))
    })?;
    Config::from_toml(&path.display().to_string(), &text)
}

/// The rates that another run learned for real images of the same data set.
fn learned_rates(
    run: &Path,
    device: &Device,
    ours: &Config,
    data: &Dataset,
    ranks: &Ranks,
) -> Result<LearnedRates> {
    let theirs = read_config(run)?;
    let problem = card::problem(run)?;
    let name = card::read(run)?.map_or_else(|| theirs.dataset.to_string(), |card| card.name);
    if problem != data.problem() || name != data.card.name {
        let own = &data.card.name;
        let message = format!("it was trained on {name}, and the run is evaluated on {own}");
        return Err(Error::usage(message));
    }
    let checkpoint = RunFolder::checkpoint_in(run)?;
    let (trainer, _) = checkpoint::load(&checkpoint, device, &theirs, problem)?;
    same_state(ranks, &trainer)?;
    LearnedRates::of(&theirs, trainer.teacher(), ours)
}

/// What is evaluated.
pub(super) struct Run<'a> {
    pub(super) device: &'a Device,
    pub(super) ranks: &'a Ranks,
    pub(super) config: &'a Config,
    pub(super) trainer: &'a MetaTrainer,
    pub(super) data: &'a Dataset,
    /// What it is compared with.
    pub(super) rivals: &'a Rivals,
}

/// Learners that are evaluated: name and widths, and a function that gives the learner of a number.
type Structures<'a> = ([&'a str; 2], &'a dyn Fn(u64) -> autograd::Result<Learner>);

impl Run<'_> {
    /// Evaluates the learners of the settings; `None` if the user wants to stop.
    pub(super) fn evaluate(&self) -> Result<Option<Report>> {
        let config = self.config;
        let name = config.learner.name();
        let widths = match config.widths.layers() {
            0 => String::new(),
            _ => config.widths.to_string(),
        };
        let draw = |number| Ok(config.drawn(self.data.problem(), number, 0)?.1);
        let mut progress = self.progress(1);
        self.one(([&name, &widths], &draw), &mut progress)
    }

    /// Evaluates every network of a suite; `None` if the user wants to stop. What was evaluated before that or
    /// before an error is shown.
    fn evaluate_suite(&self, suite: &Suite) -> Result<Option<SuiteReport>> {
        let learners = learners(suite, self.data.problem())?;
        let mut progress = self.progress(suite.networks.len() as u64);
        let mut entries = Vec::new();
        for ((name, network), learner) in suite.networks.iter().zip(learners) {
            let draw = |_| Ok(learner.clone());
            let text = network.to_string();
            let name = name.clone();
            match self.one(([&text, ""], &draw), &mut progress) {
                Ok(Some(report)) => entries.push(Entry { name, report }),
                ended => {
                    drop(progress);
                    show_unfinished(suite, entries);
                    let place = format!("suite {}, {name}", suite.name);
                    return ended.map(|_| None).map_err(|error| error.at(place));
                }
            }
        }
        Ok(Some(SuiteReport::new(entries)))
    }

    fn progress(&self, structures: u64) -> (Progress, u64) {
        let trainings = structures * report::trainings(self.config, self.rivals);
        (Progress::new("Evaluation", trainings, 0), 0)
    }

    fn one(
        &self,
        (learner, draw): Structures<'_>,
        progress: &mut (Progress, u64),
    ) -> Result<Option<Report>> {
        let Self {
            device,
            data,
            ranks,
            ..
        } = *self;
        let examination = Examination {
            device,
            ranks,
            config: self.config,
            teacher: self.trainer.teacher(),
            data,
            glance: &TestSet::new(device, data, &data.validation, GLANCE)?,
            test: &TestSet::new(device, data, &data.test, usize::MAX)?,
            learner,
            draw,
        };
        let watch = || {
            // Other ranks have done about as many trainings as this one.
            progress.1 += ranks.count() as u64;
            progress.0.at(progress.1, "");
            !stop::asked()
        };
        report::evaluate(&examination, self.rivals, watch)
    }
}

/// Shows the table of an evaluation; of a run that has not done all its outer steps also how many it has.
fn show_table(table: &str, trainer: &MetaTrainer) -> Result<()> {
    show(table.trim_end())?;
    let (done, all) = (trainer.outer_step(), trainer.config().outer_steps);
    if done == all {
        return Ok(());
    }
    show(&format!(
        "\nThis is the run after outer step {done} of {all}."
    ))
}

/// Shows a suite that was not evaluated to its end.
fn show_unfinished(suite: &Suite, entries: Vec<Entry>) {
    let (done, all) = (entries.len(), suite.networks.len());
    if done > 0 {
        // What ended the evaluation is said in any case.
        let _ = show(SuiteReport::new(entries).table().trim_end());
    }
    say(&format!("Ended after {done} of {all} networks"));
}

/// Builds all learners of a suite before the first is trained. Otherwise one that does not fit the images
/// would end the evaluation and lose the results before it.
fn learners(suite: &Suite, Problem { image, classes }: Problem) -> Result<Vec<Learner>> {
    let learner = |(name, network): &(String, Network)| {
        let place = format!("suite {}, {name}", suite.name);
        let learner = network.learner(image, classes);
        learner.map_err(|error| Error::usage(error).at(place))
    };
    suite.networks.iter().map(learner).collect()
}

/// Draws what a run teaches, in its folder or another.
pub(super) fn draw(folder: &Path, device: &Device, trainer: &MetaTrainer) -> Result<()> {
    let config = trainer.config();
    let lesson = TrainingData::synthetic(device, config, trainer.teacher(), report::FRESH)?;
    pictures::draw_lesson(folder, trainer, &lesson)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_built_whole_before_it_is_trained() {
        let text = "[[learner]]\nname = 'small'\nlayers = 'mean | dense'\n\
                    [[learner]]\nname = 'large'\nlayers = 'conv 4 40x40 pad 0 | mean | dense'\n";
        let suite = Suite::from_toml("mine.toml", text).unwrap();
        let error = learners(&suite, Problem::MNIST).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let line = error.to_string();
        assert!(line.starts_with("suite mine.toml, large: "), "{line}");
        let wide = Problem {
            image: [48, 48, 1],
            ..Problem::MNIST
        };
        assert_eq!(learners(&suite, wide).unwrap().len(), 2);
    }
}
