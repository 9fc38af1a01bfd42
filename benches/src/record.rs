//! The record of a sweep: points as a CSV table, as curves, and as JSON with the conditions. Each point is
//! measured in a process of its own.
//!
//! A process does not give all of its memory back to the system, so a second measurement in the same process
//! would not show what it takes.

use gtn::cli::{Machine, Outcome, say};
use gtn::draw::curves::{self, Chart, Scale, Series};
use gtn::error::{Error, Result};
use gtn::run::run_folder::write_atomically;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a record goes.
#[derive(Clone, Debug, clap::Args)]
pub struct RecordArgs {
    /// Folder for NAME.csv, NAME.json and NAME.svg
    #[arg(long, value_name = "DIR", default_value = "benches/results")]
    pub out: PathBuf,
    /// Free-text note saved with the results, such as the state of the machine
    #[arg(long, default_value = "")]
    pub note: String,
}

/// Sizes by name; the same names for all points of a record.
pub(super) type Sizes = BTreeMap<&'static str, usize>;

/// One measurement, by whichever engine.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Point {
    pub(super) engine: String,
    pub(super) mode: String,
    /// Empty for engines whose mode implies it.
    pub(super) schedule: String,
    #[serde(flatten)]
    pub(super) sizes: Sizes,
    pub(super) threads: usize,
    pub(super) median_s: f64,
    pub(super) min_s: f64,
    /// Resident memory of the process, beyond what it had before the measurement.
    pub(super) process_bytes: u64,
    /// What the engine itself counted.
    pub(super) engine_bytes: Option<u64>,
    pub(super) loss: f64,
}

/// What a sweep is about.
pub(super) struct Subject {
    /// Name of the files.
    pub(super) name: String,
    pub(super) title: String,
    /// The size that is varied, and its label on the axis.
    pub(super) axis: (&'static str, &'static str),
    /// What all points have in common, by name.
    pub(super) settings: Value,
}

/// Points as they are measured.
pub(super) struct Record {
    subject: Subject,
    args: RecordArgs,
    points: Vec<Point>,
    /// Points that were left out, and why.
    left_out: Vec<String>,
}

#[derive(Serialize)]
struct Whole<'a> {
    title: &'a str,
    date: String,
    machine: String,
    command: String,
    note: &'a str,
    settings: &'a Value,
    points: &'a [Point],
    left_out: &'a [String],
}

impl Point {
    /// A point of this engine, from the JSON object of a command of this program.
    pub(super) fn ours(
        [mode, schedule]: [String; 2],
        sizes: Sizes,
        threads: &Value,
        found: &Value,
    ) -> Self {
        let number = |key: &str| found[key].as_f64().unwrap_or(f64::NAN);
        Self {
            engine: "gtn".to_owned(),
            mode,
            schedule,
            sizes,
            threads: threads.as_u64().unwrap_or(0) as usize,
            median_s: number("median_s"),
            min_s: number("min_s"),
            process_bytes: number("peak_process_bytes") as u64,
            engine_bytes: Some(number("peak_bytes") as u64),
            loss: number("loss"),
        }
    }

    /// The name of its curve. Ours are in the default mode unless another is named.
    fn series(&self) -> String {
        let words = [&self.engine, &self.schedule, &self.mode].map(String::as_str);
        let words = words.into_iter().filter(|word| !word.is_empty());
        let name = words.collect::<Vec<_>>().join(" ");
        match name.strip_suffix(" mixed") {
            Some(rest) if self.engine == "gtn" => rest.to_owned(),
            _ => name,
        }
    }

    fn mib(&self) -> f64 {
        self.process_bytes as f64 / f64::from(1 << 20)
    }
}

impl Record {
    /// An empty record. Makes its folder first, so that a failure comes before the measurements.
    pub(super) fn new(subject: Subject, args: &RecordArgs) -> Result<Self> {
        std::fs::create_dir_all(&args.out)
            .map_err(|e| Error::file("make the folder", &args.out, &e))?;
        Ok(Self {
            subject,
            args: args.clone(),
            points: Vec::new(),
            left_out: Vec::new(),
        })
    }

    /// Adds a measurement and prints it, or says why there is none. What there is so far is on the disk then.
    pub(super) fn take(&mut self, name: &str, point: Result<Point>) -> Result<()> {
        match point {
            Ok(point) => {
                let (seconds, least, mib) = (point.median_s, point.min_s, point.mib());
                let (axis, _) = self.subject.axis;
                let (series, at) = (point.series(), point.sizes[axis]);
                say(&format!(
                    "{series}, {axis} {at}: {seconds:.4} s (min {least:.4}), {mib:.1} MiB"
                ));
                self.extend(vec![point]);
            }
            Err(error) => {
                say(&format!("{name}: left out: {error}"));
                self.left_out.push(format!("{name}: {error}"));
            }
        }
        if self.points.is_empty() {
            return Ok(());
        }
        self.save()
    }

    /// Adds what was measured, each in its curve.
    pub(super) fn extend(&mut self, points: Vec<Point>) {
        self.points.extend(points);
        let axis = self.subject.axis.0;
        let key = |point: &Point| (point.series(), point.sizes[axis]);
        self.points.sort_by_key(key);
    }

    /// Says what was written; with `--json` prints the record as well.
    pub(super) fn finish(&self, on: &Machine) -> Result<Outcome> {
        if self.points.is_empty() {
            return Err(Error::run("nothing could be measured"));
        }
        let saved = ["csv", "json", "svg"].map(|kind| self.path(kind).display().to_string());
        say(&format!("Written: {}", saved.join(", ")));
        on.print(&self.whole())?;
        Ok(Outcome::Done)
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.args.out.join(format!("{}.{kind}", self.subject.name))
    }

    fn whole(&self) -> Whole<'_> {
        Whole {
            title: &self.subject.title,
            date: today(),
            machine: machine(),
            command: command_line(),
            note: &self.args.note,
            settings: &self.subject.settings,
            points: &self.points,
            left_out: &self.left_out,
        }
    }

    /// Writes the three files.
    fn save(&self) -> Result<()> {
        let whole = self.whole();
        let save = |kind: &str, text: String| {
            write_atomically(&self.path(kind), |file| file.write_all(text.as_bytes()))
        };
        save("csv", csv(&self.points))?;
        save(
            "json",
            serde_json::to_string_pretty(&whole).map_err(Error::run)? + "\n",
        )?;
        let (axis, label) = self.subject.axis;
        let label = format!("{label} ({}, {})", whole.machine, whole.date);
        let charts = charts(whole.title, (axis, &label), &self.points);
        curves::write_named(&self.path("svg"), &charts)
    }
}

fn csv(points: &[Point]) -> String {
    let sizes = points[0]
        .sizes
        .keys()
        .copied()
        .collect::<Vec<_>>()
        .join(",");
    let head = format!(
        "engine,mode,schedule,{sizes},threads,median_s,min_s,process_bytes,engine_bytes,loss"
    );
    let line = |point: &Point| {
        let own = point.engine_bytes.map(|bytes| bytes.to_string());
        let words = [&point.engine, &point.mode, &point.schedule].map(String::as_str);
        let sizes: Vec<String> = point.sizes.values().map(usize::to_string).collect();
        let [words, sizes] = [words.join(","), sizes.join(",")];
        let (threads, median, least) = (point.threads, point.median_s, point.min_s);
        let (bytes, own, loss) = (point.process_bytes, own.unwrap_or_default(), point.loss);
        format!("{words},{sizes},{threads},{median},{least},{bytes},{own},{loss}\n")
    };
    let lines: String = points.iter().map(line).collect();
    format!("{head}\n{lines}")
}

/// Seconds, and bytes, over the size that is varied.
fn charts(title: &str, (axis, label): (&str, &str), points: &[Point]) -> [Chart; 2] {
    let chart = |what: &str, value: fn(&Point) -> f64| {
        let curve = |points: &[Point]| {
            let xs: Vec<f64> = points.iter().map(|p| p.sizes[axis] as f64).collect();
            let ys: Vec<f64> = points.iter().map(value).collect();
            Series::of_run(&points[0].series(), &xs, &ys)
        };
        let same = points.chunk_by(|a, b| a.series() == b.series());
        Chart {
            title: title.to_owned(),
            x: label.to_owned(),
            y: what.to_owned(),
            scale: Scale::Logarithmic,
            series: same.map(curve).collect(),
        }
    };
    [
        chart("seconds of a meta-gradient", |point| point.median_s),
        chart("MiB of process memory", Point::mib),
    ]
}

/// A command of this program, for a point of its own.
pub(super) fn this_program() -> Result<Command> {
    let program = std::env::current_exe();
    let program = program.map_err(|e| Error::run(format!("cannot find this program: {e}")))?;
    Ok(Command::new(program))
}

/// What a command prints, or the last line that it complains with.
pub(super) fn said_by(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|e| Error::run(format!("cannot run {command:?}: {e}")))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if !output.status.success() {
        let said = text(&output.stderr);
        let why = said.lines().rfind(|line| !line.starts_with("hint: "));
        return Err(Error::run(why.unwrap_or("it said nothing")));
    }
    Ok(text(&output.stdout))
}

/// The object in the last line that a command prints.
pub(super) fn last_line(command: &mut Command) -> Result<Value> {
    let said = said_by(command)?;
    serde_json::from_str(said.lines().last().unwrap_or_default())
        .map_err(|e| Error::run(format!("no JSON object at its end: {e}")))
}

fn command_line() -> String {
    let quoted = |word: String| {
        if word.contains(char::is_whitespace) {
            format!("'{word}'")
        } else {
            word
        }
    };
    let words: Vec<String> = std::env::args().skip(1).map(quoted).collect();
    format!("benches {}", words.join(" "))
}

/// The date, by the system's clock, in UTC.
fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let days = since.map_or(0, |since| since.as_secs() / 86_400);
    civil(days)
}

/// The date of a day since 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> String {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let leaps = day_of_era / 1460 + day_of_era / 146_096;
    let year_of_era = (day_of_era + day_of_era / 36_524 - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + 400 * era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

/// The processor's name and how many of its cores there are, where Linux says so.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = std::fs::read_to_string(Path::new("/proc/cpuinfo")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = line
        .and_then(|line| line.split_once(": "))
        .map_or("unknown processor", |(_, name)| name);
    format!("{model}, {cores} cores")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        for (days, date) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_782, "2026-11-25"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(civil(days), date);
        }
    }
}
