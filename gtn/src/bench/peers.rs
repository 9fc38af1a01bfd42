//! What other engines measured of the same set-ups: JSON objects with `framework`, `setup`, `data`, `bn`, `mode`,
//! `T`, `batch`, `dtype`, `threads`, `median_s`, `min_s`, `peak_mb` and `loss`.

use super::sweep::{Point, SweepArgs};
use super::{FloatKind, SetupArgs, or};
use crate::nn::Setup;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A line of a peer.
#[derive(Debug, Deserialize)]
struct Line {
    framework: String,
    setup: String,
    data: String,
    bn: bool,
    mode: String,
    #[serde(rename = "T")]
    steps: usize,
    batch: usize,
    dtype: String,
    #[serde(default)]
    threads: usize,
    median_s: f64,
    min_s: f64,
    peak_mb: f64,
    loss: f64,
}

impl Line {
    /// Whether it is of the same set-up in the same sizes.
    fn is_of(&self, args: &SetupArgs, batch: usize) -> bool {
        let dtype = match args.dtype {
            FloatKind::F32 => "float32",
            FloatKind::F64 => "float64",
        };
        (self.setup.as_str(), self.data.as_str()) == (args.setup.as_str(), args.data.name())
            && (self.bn, self.batch, self.dtype.as_str()) == (args.bn, batch, dtype)
    }

    fn point(self) -> Point {
        Point {
            engine: self.framework,
            mode: self.mode,
            schedule: String::new(),
            steps: self.steps,
            batch: self.batch,
            threads: self.threads,
            median_s: self.median_s,
            min_s: self.min_s,
            process_bytes: (self.peak_mb * f64::from(1 << 20)) as u64,
            engine_bytes: None,
            loss: self.loss,
        }
    }
}

fn batch(args: &SetupArgs) -> Result<usize> {
    Ok(or(args.batch, Setup::parse(&args.setup, args.bn)?.batch))
}

/// The measurements of one set-up in files, or in folders of `*.jsonl`. Those of other set-ups are left out.
pub(super) fn read(paths: &[PathBuf], args: &SetupArgs) -> Result<Vec<Point>> {
    let batch = batch(args)?;
    let mut points = Vec::new();
    for path in paths {
        let mut lines = Vec::new();
        for file in files(path)? {
            lines.extend(parse(&file)?);
        }
        let of = lines.len();
        let fitting = lines.into_iter().filter(|line| line.is_of(args, batch));
        points.extend(fitting.map(Line::point));
        let (name, setup) = (path.display(), &args.setup);
        eprintln!(
            "{name}: {} of {of} lines are of set-up {setup}, {}",
            points.len(),
            args.data.name()
        );
    }
    Ok(points)
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let name = path.display();
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {name}"))?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|kind| kind == "jsonl"));
    ensure!(!files.is_empty(), "{name} has no *.jsonl");
    files.sort();
    Ok(files)
}

fn parse(path: &Path) -> Result<Vec<Line>> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let line = |(at, line): (usize, &str)| {
        serde_json::from_str(line)
            .with_context(|| format!("{name}, line {}: not of a peer", at + 1))
    };
    lines.map(line).collect()
}

/// A peer's program with its mode.
pub(super) struct Peer<'a> {
    words: Vec<&'a str>,
}

impl<'a> Peer<'a> {
    pub(super) fn new(command: &'a str) -> Result<Self> {
        let words: Vec<&str> = command.split_whitespace().collect();
        ensure!(!words.is_empty(), "--beside needs a command");
        Ok(Self { words })
    }

    /// Runs it for so many inner steps.
    pub(super) fn run(&self, args: &SweepArgs, steps: usize) -> Result<Point> {
        let SetupArgs {
            setup,
            data,
            bn,
            batches,
            dtype,
            ..
        } = &args.setup;
        ensure!(
            *batches == 0,
            "--beside: peers take every batch once, so --batches cannot be given"
        );
        let folder = tempfile::tempdir().context("no folder for what a peer says")?;
        let file = folder.path().join("peer.jsonl");
        let threads = match args.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let mut command = Command::new(self.words[0]);
        command.args(&self.words[1..]).stdin(Stdio::null());
        for (flag, value) in [
            ("--setup", setup.clone()),
            ("--data", data.name().to_owned()),
            ("--steps", steps.to_string()),
            ("--batch", batch(&args.setup)?.to_string()),
            ("--repeats", args.repeats.to_string()),
            ("--threads", threads.to_string()),
            (
                "--dtype",
                if *dtype == FloatKind::F64 {
                    "float64"
                } else {
                    "float32"
                }
                .to_owned(),
            ),
        ] {
            command.args([flag, &value]);
        }
        if *bn {
            command.arg("--bn");
        }
        command.arg("--json").arg(&file);
        let words = self.words.join(" ");
        let output = command
            .output()
            .with_context(|| format!("cannot run {words}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{words}: {}",
                said.trim_end().lines().last().unwrap_or("it failed")
            );
        }
        let line = parse(&file)?
            .pop()
            .with_context(|| format!("{words}: it measured nothing"))?;
        Ok(line.point())
    }
}

impl fmt::Display for Peer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))
    }
}
