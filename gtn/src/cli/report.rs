//! `gtn report` and `gtn compare`: runs as pages, tables and plots.

use super::{Outcome, say, show};
use crate::draw::curves::{self, Series};
use crate::draw::page::Page;
use crate::error::{Error, Result};
use crate::eval::report::Report;
use crate::run::run_folder::{CONFIG, metrics, write_atomically};
use crate::text::quoted;
use clap::Args;
use std::fmt::Write;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Settings of `gtn report`.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// The folder of a run
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The page [default: report.html in the run's folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Settings of `gtn compare`.
#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// Folders of runs
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Also draw their learners' accuracy after each inner step
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

pub(super) fn report(args: &ReportArgs) -> Result<Outcome> {
    let run = &args.run;
    let settings = read(&run.join(CONFIG))?;
    let metrics = metrics(run)?;
    let report = evaluation(run)?;
    let pictures: Vec<_> = [
        (
            "Synthetic images: a row for each class, a column for each step",
            "samples.png",
        ),
        (
            "Every synthetic image: a row for each step",
            "curriculum.png",
        ),
    ]
    .into_iter()
    .filter_map(|(caption, name)| Some((caption, std::fs::read(run.join(name)).ok()?)))
    .collect();
    let name = name_of(run);
    let html = Page {
        name: &name,
        settings: &settings,
        command: &format!("gtn train --config {}", quoted(&run.join(CONFIG))),
        metrics: &metrics,
        report: report.as_ref(),
        pictures: &pictures,
    }
    .html()?;
    let path = args.out.clone().unwrap_or_else(|| run.join("report.html"));
    write_atomically(&path, |file| file.write_all(html.as_bytes()))?;
    say(&format!("Wrote {}", path.display()));
    Ok(Outcome::Done)
}

pub(super) fn compare(args: &CompareArgs) -> Result<Outcome> {
    let found: Vec<(String, Report)> = args
        .runs
        .iter()
        .map(|run| match evaluation(run)? {
            Some(report) => Ok((name_of(run), report)),
            None => Err(Error::run("it has no evaluation").at(run.display()))
                .map_err(|e| e.hint(format!("gtn train --resume {} finishes it", quoted(run)))),
        })
        .collect::<Result<_>>()?;
    show(table(&found).trim_end())?;
    if let Some(path) = &args.plot {
        let series = found
            .iter()
            .map(|(name, report)| Series::of_way(name, report, &report.ways[0]));
        curves::write(path, &[curves::learning(series.collect())])?;
        say(&format!("Wrote {}", path.display()));
    }
    Ok(Outcome::Done)
}

fn table(found: &[(String, Report)]) -> String {
    let width = found
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0)
        .max(3);
    let mut table = format!(
        "{:<width$}  {:>14} {:>5} {:>5} {:>9} {:>9} {:>9}  learners\n",
        "run", "data set", "steps", "batch", "mean", "min", "margin"
    );
    for (name, report) in found {
        let percent = |x: f64| format!("{:.2} %", 100.0 * x);
        let margin = report
            .margin()
            .map_or("-".to_owned(), |m| format!("{:+.2}", 100.0 * m));
        let outdated = report.outdated();
        let outdated = outdated.map_or_else(String::new, |words| format!("  ({words})"));
        let _ = writeln!(
            table,
            "{name:<width$}  {:>14} {:>5} {:>5} {:>9} {:>9} {margin:>9}  {} {}{outdated}",
            report.dataset,
            report.inner_steps,
            report.inner_batch,
            percent(report.gtn_accuracy_mean),
            percent(report.gtn_accuracy_min),
            report.learner,
            report.widths,
        );
    }
    table
}

fn name_of(run: &Path) -> String {
    let name = run.file_name().unwrap_or(run.as_os_str());
    name.to_string_lossy().into_owned()
}

fn read(path: &Path) -> Result<String> {
    read_to_string(path).map_err(|error| Error::file("read", path, &error))
}

/// A run's evaluation, if it has one.
fn evaluation(run: &Path) -> Result<Option<Report>> {
    if !run.join(CONFIG).exists() {
        return Err(Error::run(format!(
            "{} is no run: it has no {CONFIG}",
            run.display()
        )));
    }
    Report::of_run(run)
}
