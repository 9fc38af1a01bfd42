//! `gtn train`

use super::eval::{self, Evaluated};
use super::progress::Progress;
use super::{Files, Machine, Outcome, end_after, pictures, say, show, stop};
use crate::data::{Card, Dataset};
use crate::error::{Error, ErrorKind, Result};
use crate::eval::evaluate::{TestSet, Trainee};
use crate::eval::report::{self, GLANCE, Kept};
use crate::eval::training_data::TrainingData;
use crate::outer::curriculum::StartImages;
use crate::outer::inner::Inner;
use crate::outer::known;
use crate::outer::meta::{MetaTrainer, Step};
use crate::outer::order::Ranking;
use crate::ranks::Ranks;
use crate::run::best::Best;
use crate::run::config::Config;
use crate::run::events::Events;
use crate::run::memory;
use crate::run::run_folder::{ACCURACIES, BEST, REPORT, RunFolder, earlier_checkpoint};
use crate::run::settings::Settings;
use crate::run::values::{above_zero, name_of};
use crate::run::{card, checkpoint};
use crate::text::quoted;
use clap::Args;
use kernels::Device;
use serde::Serialize;
use std::mem::discriminant;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tensor::read_safetensors;
use toml::Table;

/// The default folder of runs.
const RUNS: &str = "runs";

/// Settings of `gtn train`.
#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    /// Folder for the run [default: the next free one in runs/]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Resume a run from its last checkpoint
    #[arg(long, value_name = "RUN", conflicts_with_all = ["preset", "config", "out"])]
    resume: Option<PathBuf>,
    /// Begin with what another run has learned, whose arrays have the same shapes
    #[arg(long, value_name = "RUN", conflicts_with = "resume")]
    from: Option<PathBuf>,
    /// End the training after so many minutes, if it has not ended by then
    #[arg(long, value_name = "X", value_parser = above_zero)]
    minutes: Option<f64>,
    /// Write the numbers of metrics.jsonl as event files of `TensorBoard`, too
    #[arg(long)]
    tensorboard: bool,
    /// Save and end, as after a signal, when standard input ends: so a run ends with the program that began it
    #[arg(long, hide = true)]
    until_input_ends: bool,
    #[command(flatten)]
    baselines: eval::BaselineArgs,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    files: Files,
}

/// A line of the metrics.
#[derive(Serialize)]
struct Metrics<'a> {
    #[serde(flatten)]
    step: &'a Step,
    outer_lr: f64,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_accuracy: Option<f64>,
    /// Settings that the run changed before this step: their names, and both values.
    #[serde(skip_serializing_if = "Table::is_empty")]
    changed: Table,
}

/// A running training.
struct Run {
    /// The run's folder, which only the first rank has.
    folder: Option<RunFolder>,
    /// Where the first rank writes metrics for `TensorBoard`.
    events: Option<Events>,
    trainer: MetaTrainer,
    /// Settings that differ from its last checkpoint.
    changed: Table,
    /// The validation that was best so far.
    best: Option<Best>,
}

pub(super) fn run(args: &TrainArgs, ranks: &Ranks) -> Result<Outcome> {
    match train_and_evaluate(args, ranks) {
        Err(error) if args.until_input_ends && error.kind() == ErrorKind::NotFinite => {
            say(&error.lines());
            Ok(Outcome::Broke)
        }
        outcome => outcome,
    }
}

fn train_and_evaluate(args: &TrainArgs, ranks: &Ranks) -> Result<Outcome> {
    let begin = Instant::now();
    stop::listen()?;
    if args.until_input_ends {
        stop::when_input_ends();
    }
    let mut config = settings(args)?;
    eval::same_settings(ranks, &config, &args.baselines, args.machine.precision)?;
    let device = args.machine.device_of(ranks)?;
    let data = args.files.data(&config, args.resume.as_deref())?;
    if args.resume.is_none() {
        // Stores what `auto` turned out to be, so that a resumed run uses the same data.
        config.dataset = data.choice.clone();
    }
    eval::same_data(ranks, &data)?;
    known::check(&config, &data.train)?;
    args.baselines.check(&config, data.problem())?;
    let fits = config.widest(data.problem());
    fits.map_err(|e| Error::usage(e).at(format!("--learner {}", config.learner.name())))?;
    let ranking = ranking(&config, args.resume.as_deref())?;
    if let Some(ranking) = ranking.as_ref().filter(|_| ranks.is_first()) {
        let (count, column) = (ranking.codes().len(), &ranking.truth().column);
        say(&format!("Order: taught by {column} of {count} networks"));
    }
    ranks.same("other accuracies", ErrorKind::Data, || {
        Ok(ranking.as_ref().map(|ranking| ranking.truth().to_csv()))
    })?;
    let fit = memory::check(&device, &config, data.problem(), ranks.on_machine())?;
    if let Some(fit) = fit.filter(|_| ranks.is_first()) {
        say(&format!("Memory: {fit}"));
    }
    let mut run = open(args, &device, &config, &data, ranks)?;
    if let (Some(folder), Some(ranking)) = (&run.folder, &ranking) {
        let csv = ranking.truth().to_csv();
        folder.write(ACCURACIES, |file| file.write_all(csv.as_bytes()))?;
    }
    run.trainer = run.trainer.ranking(ranking);
    if let Some(folder) = run.folder.as_ref().filter(|_| args.tensorboard) {
        run.events = Some(Events::begin(folder.path(), run.trainer.outer_step())?);
    }
    let ends = end_after(begin, args.minutes);
    if !train(&mut run, &device, &data, ends, ranks)? {
        say_stopped(args, &run);
        return Ok(Outcome::Interrupted);
    }
    let Run {
        folder, trainer, ..
    } = &run;
    if let Some(folder) = folder.as_ref().filter(|_| config.curriculum.generates()) {
        eval::draw(folder.path(), &device, trainer)?;
    }
    let evaluated = eval::Run {
        device: &device,
        ranks,
        config: &config,
        trainer,
        data: &data,
        rivals: &args.baselines.rivals(&config, &data),
    };
    let Some(report) = evaluated.evaluate()? else {
        say_stopped(args, &run);
        return Ok(Outcome::Interrupted);
    };
    let Some(folder) = folder else {
        return Ok(Outcome::Done);
    };
    pictures::draw_curves(folder.path(), &report)?;
    let (outer_step, report) = (trainer.outer_step(), &report);
    let kept = Kept { outer_step, report };
    folder.write(REPORT, |file| {
        Ok(serde_json::to_writer_pretty(file, &kept)?)
    })?;
    say(&format!("The run is in {}", folder.path().display()));
    show(report.table().trim_end())?;
    let seconds = begin.elapsed().as_secs_f64();
    let evaluated = Evaluated::new("train", folder.path(), outer_step, report);
    args.machine.print(&evaluated.after(seconds))?;
    Ok(Outcome::Done)
}

/// Says how a stopped run goes on.
fn say_stopped(args: &TrainArgs, run: &Run) {
    let Some(folder) = &run.folder else { return };
    let data_dir = args.files.data_dir.as_ref();
    let data_dir = data_dir.map(|dir| format!(" --data-dir {}", quoted(dir)));
    say(&format!(
        "Stopped after outer step {}. Go on with: gtn train --resume {}{}",
        run.trainer.outer_step(),
        quoted(folder.path()),
        data_dir.unwrap_or_default()
    ));
}

fn settings(args: &TrainArgs) -> Result<Config> {
    if let Some(run) = &args.resume {
        RunFolder::checkpoint_in(run)?;
        eval::read_config(run)?.with(&args.settings.flags)
    } else {
        args.settings.resolve()
    }
}

/// The networks whose order is taught, if it is. A resumed run reads its own copy of their accuracies.
fn ranking(config: &Config, resumed: Option<&Path>) -> Result<Option<Ranking>> {
    let population = config.population();
    // A run that was killed before it wrote its copy reads the table again.
    let copy = resumed
        .map(|run| run.join(ACCURACIES))
        .filter(|copy| copy.exists());
    match population.space() {
        Some(space) => config.rank_by.read(copy.as_deref(), space),
        None => Ok(None),
    }
}

/// A new run, or one that resumes from its last checkpoint.
fn open(
    args: &TrainArgs,
    device: &Device,
    config: &Config,
    data: &Dataset,
    ranks: &Ranks,
) -> Result<Run> {
    let card = &data.card;
    if let Some(run) = &args.resume {
        return resume(run, device, config, card, ranks);
    }
    let mut trainer = MetaTrainer::new(device, config, card.problem)?.among(ranks)?;
    if let Some(other) = &args.from {
        let place = RunFolder::checkpoint_in(other)?;
        let (arrays, _) = read_safetensors(&place).map_err(Error::run)?;
        let begun = trainer.begin_with(&arrays);
        begun.map_err(|e| e.at(format!("--from {}", other.display())))?;
    } else {
        if config.start_images == StartImages::Real && ranks.is_first() {
            say("Begins with copies of real images");
        }
        trainer.begin_with_copies(data)?;
    }
    eval::same_state(ranks, &trainer)?;
    let mut run = Run {
        folder: None,
        events: None,
        trainer,
        changed: Table::new(),
        best: None,
    };
    if ranks.is_first() {
        let (dataset, preset) = (&card.name, name_of(&args.settings.preset));
        let mut folder = match &args.out {
            Some(path) => RunFolder::create(path)?,
            None => RunFolder::create_numbered(Path::new(RUNS), dataset, &preset, config.seed)?,
        };
        folder.write_config(&config.to_toml())?;
        card::write(&folder, card, Some(card::fingerprint(data)))?;
        say(&format!("Run: {}", folder.path().display()));
        // Saved at once, so that a run which ends before its first step can be resumed.
        checkpoint::save(
            &mut folder,
            &run.trainer,
            &run.trainer.finite_arrays()?,
            None,
        )?;
        run.folder = Some(folder);
    }
    Ok(run)
}

fn resume(
    path: &Path,
    device: &Device,
    config: &Config,
    card: &Card,
    ranks: &Ranks,
) -> Result<Run> {
    let checkpoint = RunFolder::checkpoint_in(path)?;
    let (trainer, changed) = checkpoint::load(&checkpoint, device, config, card.problem)?;
    check_outer_steps(config, trainer.outer_step())?;
    let mut run = Run {
        folder: None,
        events: None,
        trainer: trainer.among(ranks)?,
        changed,
        best: checkpoint::best(&checkpoint)?,
    };
    // After this all ranks have read the files that the first is about to change.
    eval::same_state(ranks, &run.trainer)?;
    if ranks.is_first() {
        let outer_step = run.trainer.outer_step();
        let folder = RunFolder::resume(path, outer_step)?;
        let run_folder = path.display();
        say(&format!(
            "Going on after outer step {outer_step} of {run_folder}"
        ));
        if run.best.is_some_and(|best| best.outer_step == outer_step) {
            // The run may have been killed after it saved this checkpoint and before it kept it as the best.
            folder.keep_best()?;
        }
        for odd in folder.odd() {
            say(&format!("warning: {odd}"));
        }
        for (name, values) in &run.changed {
            say(&format!("Changed: {name} {values}"));
        }
        folder.write_config(&config.to_toml())?;
        card::write(&folder, card, card::contents(path)?)?;
        run.folder = Some(folder);
    }
    Ok(run)
}

/// Refuses an end before the step that the run has reached: its settings would contradict its checkpoint.
fn check_outer_steps(config: &Config, done: u64) -> Result<()> {
    let wanted = config.outer_steps;
    if wanted >= done {
        return Ok(());
    }
    let problem = format!("--outer-steps is {wanted}, and the run has done {done}");
    Err(Error::usage(problem).hint(format!("{done} ends it where it is, and more go on")))
}

/// The outer loop with validation and checkpoints, until all steps are done, time is over or patience runs
/// out. `false` if the user stopped it.
fn train(
    run: &mut Run,
    device: &Device,
    data: &Dataset,
    ends: Option<Instant>,
    ranks: &Ranks,
) -> Result<bool> {
    let Run {
        folder,
        events,
        trainer,
        changed,
        best,
    } = run;
    let config = trainer.config().clone();
    let glance = TestSet::new(device, data, &data.validation, GLANCE)?;
    let mut progress = Progress::new("Outer step", config.outer_steps, trainer.outer_step());
    let mut accuracy = String::new();
    let mut left_out = LeftOut::default();
    let (begun, mut warned) = (trainer.outer_step(), None);
    let late = || ends.is_some_and(|ends| Instant::now() >= ends);
    let tired = |best: &Option<Best>| {
        let waited = best.as_ref().map_or(0, |best| best.waited);
        config.patience > 0 && waited >= config.patience
    };
    while trainer.outer_step() < config.outer_steps
        && ranks.all(!late() && !tired(best) && !stop::asked())?
    {
        let begin = Instant::now();
        let outer_lr = config.outer_lr_at(trainer.outer_step());
        let done = trainer.outer_step() + 1;
        ranks.at_step(done);
        let due = |every| done.is_multiple_of(every) || done == config.outer_steps;
        let save = due(config.checkpoint_every);
        trainer.watch_cotangents(due(config.validate_every));
        let step = trainer.step(data).map_err(|error| match folder {
            Some(folder) => broken(folder, (begun, done - 1), error),
            None => error,
        })?;
        let seconds = begin.elapsed().as_secs_f64();
        if let Some(warning) = left_out.see(trainer.left_out(), config.leave_out) {
            progress.say(&format!("warning: outer step {done}: {warning}"));
        }
        if save {
            eval::same_state(ranks, trainer)?;
        }
        let Some(folder) = folder else { continue };
        let mut arrays = None;
        if save || due(config.validate_every) {
            let found = trainer.finite_arrays();
            arrays = Some(found.map_err(|error| broken(folder, (begun, done), error))?);
        }
        // Each kind of trouble is said once, and again only after another kind.
        let trouble = trainer
            .trouble()
            .filter(|trouble| warned != Some(discriminant(trouble)));
        if let Some(trouble) = trouble {
            warned = Some(discriminant(&trouble));
            progress.say(&format!("warning: outer step {done}: {trouble}"));
        }
        let (mut validation_accuracy, mut is_best) = (None, false);
        if due(config.validate_every) {
            let found = validate(device, &config, trainer, data, &glance)?;
            accuracy = format!(", accuracy {:.1} %", 100.0 * found);
            validation_accuracy = Some(found);
            is_best = Best::see(best, done, found);
        }
        let metrics = Metrics {
            step: &step,
            outer_lr,
            seconds,
            validation_accuracy,
            changed: std::mem::take(changed),
        };
        folder.append_metrics(done, &metrics)?;
        if let Some(events) = events {
            events.append(done, &metrics)?;
        }
        progress.at(done, &format!("meta-loss {:.3}{accuracy}", step.meta_loss));
        if let Some(arrays) = arrays.filter(|_| save || is_best) {
            checkpoint::save(folder, trainer, &arrays, *best)?;
        }
        if is_best {
            folder.keep_best()?;
        }
    }
    let done = trainer.outer_step();
    if let Some(folder) = folder
        .as_mut()
        .filter(|folder| folder.last_checkpoint() != Some(done))
    {
        let arrays = trainer.finite_arrays();
        let arrays = arrays.map_err(|error| broken(folder, (begun, done), error))?;
        checkpoint::save(folder, trainer, &arrays, *best)?;
    }
    drop(progress);
    left_out.say(done - begun);
    if let Some(best) = best {
        say_best(best, tired(&Some(*best)));
    }
    ranks.all(done >= config.outer_steps || !stop::asked())
}

/// Outer steps in a row that are left out before the user is warned.
const MANY: u64 = 10;

/// The outer steps of this process that were left out.
#[derive(Default)]
struct LeftOut {
    in_all: u64,
    in_a_row: u64,
    warned: bool,
}

impl LeftOut {
    /// Counts an outer step. Gives a warning once, when many in a row were left out.
    fn see(&mut self, left_out: bool, most: f64) -> Option<String> {
        self.in_all += u64::from(left_out);
        self.in_a_row = if left_out { self.in_a_row + 1 } else { 0 };
        if self.warned || self.in_a_row < MANY {
            return None;
        }
        self.warned = true;
        Some(format!(
            "it and the {} before it were left out, so nothing was learned: a greater --leave-out than {most} may be \
             needed (gradient_norm in the metrics says how great)",
            MANY - 1
        ))
    }

    /// Says how many of `steps` there were, if any.
    fn say(&self, steps: u64) {
        if self.in_all > 0 {
            let count = self.in_all;
            say(&format!(
                "Left out: {count} of {steps} outer steps (--leave-out)"
            ));
        }
    }
}

fn say_best(best: &Best, tired: bool) {
    let Best {
        outer_step,
        accuracy,
        waited,
    } = best;
    let accuracy = 100.0 * accuracy;
    say(&format!(
        "Best on validation images: {accuracy:.1} % after outer step {outer_step}, kept as {BEST}"
    ));
    if tired {
        say(&format!(
            "Ended: {waited} validations in a row were no better (--patience)"
        ));
    }
}

/// Adds a hint to the error of a run that broke after `outer_step` outer steps: from where it can go on, and
/// how. If its last checkpoint is of that very step, the run would break again at once. Then the checkpoint
/// before takes its place; unless this process began there, as the settings that it was given may be at fault.
fn broken(folder: &mut RunFolder, (begun, outer_step): (u64, u64), error: Error) -> Error {
    if error.kind() != ErrorKind::NotFinite {
        return error;
    }
    let run = quoted(folder.path());
    let smaller = "with a smaller --outer-lr, or with --clip 1, goes on";
    if folder.last_checkpoint() == Some(outer_step) {
        if outer_step == begun && begun > 0 {
            let mut ways = vec![format!("--resume {run} {smaller} from its last checkpoint")];
            ways.extend(earlier_checkpoint(folder.path()));
            return error.hint(ways.join("; "));
        }
        match folder.step_back() {
            Ok(true) => {}
            Ok(false) => {
                return error.hint("a new run with a smaller --inner-lr or --outer-lr may go well");
            }
            Err(other) => return error.and(other),
        }
    }
    error.hint(format!(
        "--resume {run} {smaller} from the checkpoint before it broke"
    ))
}

/// The mean accuracy of fresh learners on some validation images. A learner that runs away counts as 0, as in
/// an evaluation.
fn validate(
    device: &Device,
    config: &Config,
    trainer: &MetaTrainer,
    data: &Dataset,
    glance: &TestSet,
) -> Result<f64> {
    let (problem, rule) = (data.problem(), Inner::of(config).rule);
    let mut sum = 0.0;
    for i in 0..config.validate_learners as u64 {
        // A training number that differs from those of 2³² outer steps, of other validations, and of
        // evaluations.
        let number = report::FRESH - trainer.outer_step() - (i << 32);
        let mut taught = TrainingData::taught(device, config, trainer.teacher(), data, number)?;
        let (_, learner) = config.drawn(problem, number, 0)?;
        let mut trainee = Trainee::new(device, config, problem, &learner, rule, number)?;
        match trainee.train(&mut taught, glance, None) {
            Ok((accuracy, _)) => sum += accuracy,
            Err(autograd::Error::NotFinite { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sum / config.validate_learners as f64)
}
