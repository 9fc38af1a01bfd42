//! What other engines measured of the same set-ups: JSON objects with `framework`, `setup`, `data`, `bn`, `mode`,
//! `T`, `batch`, `dtype`, `threads`, `median_s`, `min_s`, `peak_mb` and `loss`.

use crate::Setup;
use crate::conditions::{flag, or};
use crate::meta_grad::{FloatKind, SetupArgs};
use crate::record::{Point, said_by};
use crate::sweep::SweepArgs;
use gtn::cli::say;
use gtn::error::{Error, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;

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
        let dtype = float_name(args.dtype);
        (self.setup.as_str(), self.data.as_str()) == (args.setup.as_str(), args.data.name())
            && (self.bn, self.batch, self.dtype.as_str()) == (args.bn, batch, dtype)
    }

    fn point(self) -> Point {
        Point {
            engine: self.framework,
            mode: self.mode,
            schedule: String::new(),
            sizes: [("steps", self.steps), ("batch", self.batch)].into(),
            threads: self.threads,
            median_s: self.median_s,
            min_s: self.min_s,
            process_bytes: (self.peak_mb * f64::from(1 << 20)) as u64,
            engine_bytes: None,
            loss: self.loss,
        }
    }
}

fn float_name(kind: FloatKind) -> &'static str {
    match kind {
        FloatKind::F32 => "float32",
        FloatKind::F64 => "float64",
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
        say(&format!(
            "{name}: {} of {of} lines are of set-up {setup}, {}",
            points.len(),
            args.data.name()
        ));
    }
    Ok(points)
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(|entries| {
        let files = entries.map(|entry| Ok(entry?.path()));
        files.collect::<std::io::Result<Vec<_>>>()
    });
    let mut files = entries.map_err(|e| Error::file("read", path, &e))?;
    files.retain(|file| file.extension().is_some_and(|kind| kind == "jsonl"));
    if files.is_empty() {
        return Err(Error::run("there is no *.jsonl").at(path.display()));
    }
    files.sort();
    Ok(files)
}

fn parse(path: &Path) -> Result<Vec<Line>> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| Error::file("read", path, &e))?;
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    let line = |(at, line): (usize, &str)| {
        let place = format!("{name}, line {}", at + 1);
        serde_json::from_str(line).map_err(|e| Error::run(format!("not of a peer: {e}")).at(place))
    };
    lines.map(line).collect()
}

/// The command of a peer: `jax:MODE` and `torch:MODE` name a mode of a program in this package's folder `peers`, which
/// begins with what it computes; all else is a command in words.
pub(super) fn command_of(words: &str, what: &str) -> Result<Command> {
    if let Some((engine @ ("jax" | "torch"), mode)) = words.split_once(':') {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let mut command = Command::new("python3");
        command.arg(folder.join(format!("{what}_{engine}.py")));
        flag(&mut command, "--mode", &mode);
        return Ok(command);
    }
    let mut words = words.split_whitespace();
    let program = words
        .next()
        .ok_or_else(|| Error::usage("--beside needs a command"))?;
    let mut command = Command::new(program);
    command.args(words);
    Ok(command)
}

/// Runs a peer's program, with its mode, for so many inner steps.
pub(super) fn run(words: &str, args: &SweepArgs, steps: usize) -> Result<Point> {
    let setup = &args.setup;
    if setup.batches > 0 {
        let why = "peers take every batch once, so --batches cannot be given";
        return Err(Error::usage(why).at("--beside"));
    }
    let folder = tempfile::tempdir();
    let folder = folder.map_err(|e| Error::run(format!("no folder for what a peer says: {e}")))?;
    let file = folder.path().join("peer.jsonl");
    let mut command = command_of(words, "gtn")?;
    flag(&mut command, "--setup", &setup.setup);
    flag(&mut command, "--data", &setup.data.name());
    flag(&mut command, "--steps", &steps);
    flag(&mut command, "--batch", &batch(setup)?);
    flag(&mut command, "--dtype", &float_name(setup.dtype));
    args.conditions.pass_to_peer(&mut command);
    if setup.bn {
        command.arg("--bn");
    }
    flag(&mut command, "--json", &file.display());
    said_by(&mut command)?;
    let line = parse(&file)?
        .pop()
        .ok_or_else(|| Error::run("it measured nothing"))?;
    Ok(line.point())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_named_by_engine_and_mode() {
        for (words, what) in [
            ("jax:naive", "gtn"),
            ("torch:hand", "gtn"),
            ("jax:blocks", "depth"),
        ] {
            let command = command_of(words, what).unwrap();
            let args: Vec<&Path> = command.get_args().map(Path::new).collect();
            assert!(args[0].is_file(), "{}", args[0].display());
            assert_eq!(Some(args[2]), words.split(':').next_back().map(Path::new));
        }
        let command = command_of("sh peer.sh --mode naive", "gtn").unwrap();
        assert_eq!(command.get_program(), "sh");
        assert!(command_of(" ", "gtn").is_err());
    }
}
