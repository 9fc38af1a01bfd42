//! `gtn study`

use super::{BROKE, Files, Machine, Outcome, handed_on, say, show, stop};
use crate::draw::{columns, curves};
use crate::error::{Error, Result};
use crate::run::ledger::Ledger;
use crate::run::run_folder::{CHECKPOINT, METRICS, write_atomically};
use crate::study::{Broke, Found, Outcome as End, Run, Study, Summary, Table};
use clap::Args;
use serde::Serialize;
use std::borrow::Cow;
use std::fs::{File, OpenOptions, read_to_string};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// The default folder of studies.
const STUDIES: &str = "studies";
/// Runs that broke, in a study's folder.
const BROKEN: &str = "broken.jsonl";
/// Between two checks of a run.
const PAUSE: Duration = Duration::from_millis(30);

/// Settings of `gtn study`.
#[derive(Debug, Args)]
pub(super) struct StudyArgs {
    /// The TOML file that describes the study
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder for its runs and results [default: studies/ and the file's name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    files: Files,
}

/// The object that the command ends with.
#[derive(Serialize)]
struct Report<'a> {
    command: &'static str,
    study: &'a str,
    out: Cow<'a, str>,
    runs: usize,
    variants: Vec<Summary>,
}

/// A running study.
struct Work<'a> {
    args: &'a StudyArgs,
    study: &'a Study,
    folder: &'a Path,
    broken: Ledger<Broke>,
}

pub(super) fn run(args: &StudyArgs) -> Result<Outcome> {
    stop::listen()?;
    let study = Study::read(&args.file)?;
    let name = args.file.file_stem().unwrap_or_default();
    let usual = || Path::new(STUDIES).join(name);
    let folder = &args.out.clone().unwrap_or_else(usual);
    let mut work = Work {
        args,
        study: &study,
        folder,
        broken: Ledger::open_file(folder, BROKEN)?,
    };
    study.keep(folder)?;
    work.train()?;
    let table = Table::new(
        &study,
        study
            .runs
            .iter()
            .map(|run| work.found(run))
            .collect::<Result<_>>()?,
    );
    work.write(&table)?;
    show(table.text().trim_end())?;
    let go_on = format!(
        "The same command goes on with what is in {}",
        folder.display()
    );
    match table.open() {
        0 => {}
        _ if stop::asked() => {
            say(&format!("Stopped. {go_on}"));
            return Ok(Outcome::Interrupted);
        }
        open => {
            return Err(Error::run(format!("{open} runs were ended from elsewhere")).hint(go_on));
        }
    }
    say(&format!("The results are in {}", folder.display()));
    args.machine.print(&Report {
        command: "study",
        study: &study.title,
        out: folder.to_string_lossy(),
        runs: study.runs.len(),
        variants: table.summaries(),
    })?;
    Ok(Outcome::Done)
}

impl Work<'_> {
    /// Trains what has not ended yet, until the user wants to stop.
    fn train(&mut self) -> Result<()> {
        let mut looked = false;
        for (number, run) in (1..).zip(&self.study.runs) {
            if self.found(run)?.is_some() {
                continue;
            }
            if !looked {
                // If the data set is missing, every run would fail, so it is loaded once up front.
                self.args.files.data(&run.config, None)?;
                looked = true;
            }
            if stop::asked() {
                break;
            }
            let place = format!("Run {number} of {}, {}", self.study.runs.len(), run.name);
            match run.words() {
                words if words.is_empty() => say(&place),
                words => say(&format!("{place}: {words}")),
            }
            let Some((status, from)) = self.train_one(run)? else {
                break;
            };
            match status.code() {
                Some(code) if code == i32::from(BROKE) => {
                    let reason = self.reason(run, (status, from));
                    let run = run.name.clone();
                    self.broken.append(Broke { run, reason })?;
                }
                // Done, stopped on request, or ended by a signal.
                Some(0 | 130) | None => {}
                Some(_) => {
                    let reason = self.reason(run, (status, from));
                    let error = Error::run(format!("run {}: {reason}", run.name));
                    let log = self.log(run);
                    return Err(error.hint(format!(
                        "{} has all that it said; the same command goes on",
                        log.display()
                    )));
                }
            }
            if let Some(found) = self.found(run)? {
                say(&format!("{place}: {}", outcome(&found)));
            }
        }
        Ok(())
    }

    /// The result of a run that has ended.
    fn found(&self, run: &Run) -> Result<Option<Found>> {
        let broke = self
            .broken
            .entries()
            .iter()
            .find(|broke| broke.run == run.name);
        Found::read(&self.folder.join(&run.name), broke)
    }

    /// Trains a run in a process of its own. If this process ends, the run's standard input ends, and the run
    /// ends, too. Also gives the bytes that its log had before. `None` if the user wants to stop before it
    /// begins.
    fn train_one(&self, run: &Run) -> Result<Option<(ExitStatus, usize)>> {
        let folder = self.folder.join(&run.name);
        wait_until_free(&folder)?;
        if stop::asked() {
            return Ok(None);
        }
        let failed = |error| Error::file("run", Path::new("gtn train"), &error);
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(["train", "--until-input-ends", "--baseline", "none"]);
        if folder.join(CHECKPOINT).exists() {
            command.arg("--resume").arg(&folder);
        } else {
            command
                .arg("--config")
                .arg(self.folder.join(run.settings()));
            command.arg("--out").arg(&folder);
        }
        command.args(handed_on(&self.args.machine, &self.args.files));
        let log = self.log(run);
        let opened = OpenOptions::new().create(true).append(true).open(&log);
        let said = opened.map_err(|error| Error::file("write", &log, &error))?;
        let from = said.metadata().map_or(0, |file| file.len()) as usize;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(said);
        let mut child = command.spawn().map_err(failed)?;
        let mut input = child.stdin.take();
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok(Some((status, from)));
            }
            if stop::asked() && input.take().is_some() {
                say("Stopping: the run saves after its current step");
            }
            sleep(PAUSE);
        }
    }

    /// The file with a run's output.
    fn log(&self, run: &Run) -> PathBuf {
        self.folder.join(format!("{}.log", run.name))
    }

    /// The last error that a run said behind so many bytes of its log, without the word `error`.
    fn reason(&self, run: &Run, (status, from): (ExitStatus, usize)) -> String {
        let said = read_to_string(self.log(run)).unwrap_or_default();
        let mut lines = said.get(from..).unwrap_or_default().lines().rev();
        let error = lines.find_map(|line| line.strip_prefix("error: "));
        error.map_or_else(|| status.to_string(), str::to_owned)
    }

    fn write(&self, table: &Table<'_>) -> Result<()> {
        let csv = table.to_csv()?;
        write_atomically(&self.folder.join("study.csv"), |file| file.write_all(&csv))?;
        curves::write_named(&self.folder.join("curves.svg"), &[table.curves()])?;
        columns::write(&self.folder.join("spread.svg"), &table.columns())
    }
}

/// Waits until no process writes to a run: one may still be saving, after the study that began it was killed.
fn wait_until_free(run: &Path) -> Result<()> {
    let path = run.join(METRICS);
    let mut said = false;
    while !stop::asked() && path.exists() {
        let file = File::open(&path).map_err(|error| Error::file("read", &path, &error))?;
        match file.try_lock() {
            Err(std::fs::TryLockError::WouldBlock) if !said => {
                say(&format!(
                    "Waiting for the process that writes to {}",
                    run.display()
                ));
                said = true;
            }
            Err(std::fs::TryLockError::WouldBlock) => sleep(PAUSE),
            _ => break,
        }
    }
    Ok(())
}

fn outcome(found: &Found) -> String {
    match &found.outcome {
        End::Done { mean, min, .. } => {
            let [mean, min] = [mean, min].map(|accuracy| 100.0 * accuracy);
            let minutes = found.seconds / 60.0;
            format!("accuracy {mean:.2} %, worst learner {min:.2} %, {minutes:.1} minutes")
        }
        End::Broke(reason) => format!("broke: {reason}"),
    }
}
