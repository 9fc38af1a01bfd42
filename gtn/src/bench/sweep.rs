//! `gtn bench sweep`: seconds and bytes of the meta-gradient over numbers of inner steps, for some schedules and
//! modes, as a table and as curves; beside other engines, whose programs it runs, or whose results it reads.
//!
//! Every point is measured by a process of its own, `gtn bench meta-grad`: what a process has taken of the
//! system, it does not give back, so that a second measurement in it would not show.

use super::peers::{self, Peer};
use super::{Problem, SetupArgs};
use crate::config::ModeName;
use crate::curves::{self, Chart, Scale, Series};
use crate::device::{DeviceChoice, PrecisionChoice};
use crate::memory;
use crate::run_folder::write_atomically;
use anyhow::{Context, Result, bail, ensure};
use autograd::{Planned, Schedule};
use clap::ValueEnum;
use kernels::Device;
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Settings of `gtn bench sweep`.
#[derive(Clone, Debug, clap::Args)]
pub struct SweepArgs {
    /// What is trained on what
    #[command(flatten)]
    pub setup: SetupArgs,
    /// Numbers of inner steps T
    #[arg(long, value_name = "T,…", value_delimiter = ',', required = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: Vec<u32>,
    /// What is kept between the sweeps, as `gtn bench meta-grad` has it
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        default_value = "per-step,store-all"
    )]
    pub schedules: Vec<Schedule>,
    /// How a step is differentiated
    #[arg(
        long,
        value_enum,
        value_name = "MODE,…",
        value_delimiter = ',',
        default_value = "mixed"
    )]
    pub modes: Vec<ModeName>,
    /// Threads; 0 takes all cores
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Where to compute
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: DeviceChoice,
    /// How an NVIDIA GPU multiplies
    #[arg(long, value_enum, default_value_t)]
    pub precision: PrecisionChoice,
    /// How often each is computed, after once to warm up
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub repeats: u64,
    /// A peer's program with its mode, to be run for every T in turn with ours: a command that is given --setup,
    /// --data, --steps, --batch, --repeats, --threads and --json FILE, and writes one JSON object
    #[arg(long, value_name = "COMMAND")]
    pub beside: Vec<String>,
    /// What peers have written: a file of JSON lines, or a folder of *.jsonl
    #[arg(long, value_name = "PATH")]
    pub peers: Vec<PathBuf>,
    /// Folder for NAME.csv, NAME.json and NAME.svg, NAME being set-up and data
    #[arg(long, value_name = "DIR", default_value = "benches/results")]
    pub out: PathBuf,
    /// Words on the conditions, for the record
    #[arg(long, default_value = "")]
    pub note: String,
}

/// One measurement, by whichever engine.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Point {
    pub(super) engine: String,
    pub(super) mode: String,
    /// Empty for engines whose mode says it.
    pub(super) schedule: String,
    pub(super) steps: usize,
    pub(super) batch: usize,
    pub(super) threads: usize,
    pub(super) median_s: f64,
    pub(super) min_s: f64,
    /// What the process took of the system beyond what it had before.
    pub(super) process_bytes: u64,
    /// What the engine itself counted.
    pub(super) engine_bytes: Option<u64>,
    pub(super) loss: f64,
}

#[derive(Serialize)]
struct Record<'a> {
    setup: &'a str,
    data: &'static str,
    date: String,
    machine: String,
    command: String,
    note: &'a str,
    points: &'a [Point],
    /// Points that were left out, and why.
    left_out: &'a [String],
}

/// Measures all points, and writes them.
pub(super) fn run(args: &SweepArgs) -> Result<()> {
    let mut left_out = Vec::new();
    let mut points = peers::read(&args.peers, &args.setup)?;
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    let peers = args.beside.iter().map(|command| Peer::new(command));
    let peers = peers.collect::<Result<Vec<_>>>()?;
    let mut take = |name: String, point: Result<Point>| match point {
        Ok(point) => {
            point.tell();
            points.push(point);
        }
        Err(error) => {
            eprintln!("{name}: left out: {error:#}");
            left_out.push(format!("{name}: {error:#}"));
        }
    };
    for steps in args.steps.iter().map(|&steps| steps as usize) {
        for &mode in &args.modes {
            for &schedule in &args.schedules {
                let name = format!("gtn {schedule} {}, T = {steps}", name_of(&mode));
                take(name, ours(args, steps, mode, schedule));
            }
        }
        for peer in &peers {
            take(format!("{peer}, T = {steps}"), peer.run(args, steps));
        }
    }
    ensure!(!points.is_empty(), "nothing could be measured");
    points.sort_by(|a, b| a.series().cmp(&b.series()).then(a.steps.cmp(&b.steps)));
    write(args, &points, &left_out)
}

impl Point {
    /// The name of its curve.
    fn series(&self) -> String {
        let words = [&self.engine, &self.schedule, &self.mode].map(String::as_str);
        let words = words.into_iter().filter(|word| !word.is_empty());
        // Ours are in the default mode unless another is named.
        let name = words.collect::<Vec<_>>().join(" ");
        name.trim_end_matches(" mixed").to_owned()
    }

    fn mib(&self) -> f64 {
        self.process_bytes as f64 / f64::from(1 << 20)
    }

    fn tell(&self) {
        let (name, steps, mib) = (self.series(), self.steps, self.mib());
        let (median, least) = (self.median_s, self.min_s);
        eprintln!("{name}, T = {steps}: {median:.4} s (min {least:.4}), {mib:.1} MiB");
    }
}

fn name_of(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// One point of this engine, in a process of its own.
fn ours(args: &SweepArgs, steps: usize, mode: ModeName, schedule: Schedule) -> Result<Point> {
    let SetupArgs {
        setup,
        batches,
        batch,
        data,
        optimizer,
        learners,
        bn,
        dtype,
    } = &args.setup;
    let problem = args.setup.problem(steps)?;
    fits(args, &problem, mode, schedule)?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.args(["bench", "meta-grad", "--json", "--setup", setup]);
    for (flag, value) in [
        ("--steps", steps.to_string()),
        ("--batches", batches.to_string()),
        ("--batch", batch.to_string()),
        ("--data", name_of(data)),
        ("--optimizer", name_of(optimizer)),
        ("--at-once", learners.to_string()),
        ("--dtype", name_of(dtype)),
        ("--schedule", schedule.to_string()),
        ("--mode", name_of(&mode)),
        ("--threads", args.threads.to_string()),
        ("--device", name_of(&args.device)),
        ("--precision", name_of(&args.precision)),
        ("--repeats", args.repeats.to_string()),
    ] {
        command.args([flag, &value]);
    }
    if *bn {
        command.arg("--bn");
    }
    let found = last_line(&mut command)?;
    let number = |key: &str| found[key].as_f64().unwrap_or(f64::NAN);
    Ok(Point {
        engine: "gtn".to_owned(),
        mode: name_of(&mode),
        schedule: schedule.to_string(),
        steps,
        batch: problem.batch,
        threads: number("threads") as usize,
        median_s: number("median_s"),
        min_s: number("min_s"),
        process_bytes: number("peak_process_bytes") as u64,
        engine_bytes: Some(number("peak_bytes") as u64),
        loss: number("loss"),
    })
}

/// Refuses what would take more memory than the system has free: it would be ended, or swap.
fn fits(args: &SweepArgs, problem: &Problem, mode: ModeName, schedule: Schedule) -> Result<()> {
    if args.device == DeviceChoice::Cuda {
        return Ok(());
    }
    let horizon = problem.horizon().schedule(schedule).mode(mode.into());
    let training = problem.training();
    let taken = Planned::new(&training, &horizon)?.forecast().bytes as f64;
    let bytes =
        |ports: Vec<autograd::Port>| ports.iter().map(|port| port.bytes() as f64).sum::<f64>();
    // The rows on the device, and the host's numbers that they are made from.
    let rows = 3.0 * bytes(training.row_ports()) * problem.rows as f64;
    let free = memory::available(&Device::cpu(Some(1))?).unwrap_or(f64::INFINITY);
    let gib = |bytes: f64| bytes / f64::from(1 << 30);
    ensure!(
        taken + rows <= free,
        "it takes {:.1} GiB, and {:.1} are free",
        gib(taken + rows),
        gib(free)
    );
    Ok(())
}

/// What a command says in its last line, or the last that it complains of.
fn last_line(command: &mut Command) -> Result<Value> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if !output.status.success() {
        let said = text(&output.stderr);
        bail!("{}", said.lines().last().unwrap_or("it said nothing"));
    }
    let said = text(&output.stdout);
    serde_json::from_str(said.lines().last().unwrap_or_default())
        .context("no JSON object at its end")
}

fn write(args: &SweepArgs, points: &[Point], left_out: &[String]) -> Result<()> {
    let (setup, data) = (args.setup.setup.as_str(), args.setup.data.name());
    let name = format!("{}-{data}", setup.to_lowercase());
    let path = |kind: &str| args.out.join(format!("{name}.{kind}"));
    let save = |kind: &str, text: String| {
        write_atomically(&path(kind), |file| file.write_all(text.as_bytes()))
    };
    save("csv", csv(points))?;
    let quoted = |word: String| {
        if word.contains(char::is_whitespace) {
            format!("'{word}'")
        } else {
            word
        }
    };
    let command: Vec<String> = std::env::args().skip(1).map(quoted).collect();
    let record = Record {
        setup,
        data,
        date: today(),
        machine: machine(),
        command: format!("gtn {}", command.join(" ")),
        note: &args.note,
        points,
        left_out,
    };
    save("json", serde_json::to_string_pretty(&record)? + "\n")?;
    let title = format!(
        "Set-up {setup}, {data}, {}, {}",
        record.machine, record.date
    );
    curves::write(&path("svg"), &charts(&title, points))?;
    let saved = ["csv", "json", "svg"].map(|kind| path(kind).display().to_string());
    eprintln!("Written: {}", saved.join(", "));
    Ok(())
}

fn csv(points: &[Point]) -> String {
    let head =
        "engine,mode,schedule,steps,batch,threads,median_s,min_s,process_bytes,engine_bytes,loss";
    let line = |point: &Point| {
        let own = point.engine_bytes.map(|bytes| bytes.to_string());
        let words = [&point.engine, &point.mode, &point.schedule].map(String::as_str);
        let counts = [point.steps, point.batch, point.threads].map(|count| count.to_string());
        let numbers = [point.median_s, point.min_s].map(|seconds| seconds.to_string());
        let [words, counts, numbers] = [words.join(","), counts.join(","), numbers.join(",")];
        let (bytes, own, loss) = (point.process_bytes, own.unwrap_or_default(), point.loss);
        format!("{words},{counts},{numbers},{bytes},{own},{loss}\n")
    };
    let lines: String = points.iter().map(line).collect();
    format!("{head}\n{lines}")
}

/// Seconds, and bytes, over the number of inner steps.
fn charts(title: &str, points: &[Point]) -> [Chart; 2] {
    let chart = |what: &str, value: fn(&Point) -> f64| {
        let curve = |points: &[Point]| {
            let xs: Vec<f64> = points.iter().map(|point| point.steps as f64).collect();
            let ys: Vec<f64> = points.iter().map(value).collect();
            Series::of_run(&points[0].series(), &xs, &ys)
        };
        Chart {
            title: title.to_owned(),
            x: "inner steps T".to_owned(),
            y: what.to_owned(),
            scale: Scale::Logarithmic,
            series: points
                .chunk_by(|a, b| a.series() == b.series())
                .map(curve)
                .collect(),
        }
    };
    [
        chart("seconds of a meta-gradient", |point| point.median_s),
        chart("MiB of process memory", Point::mib),
    ]
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
