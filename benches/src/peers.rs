//! What other engines measured of the same set-ups: JSON objects with `framework`, `setup`, `data`, `bn`, `mode`,
//! `T`, `batch`, `dtype`, `threads`, `median_s`, `min_s`, `peak_mb` and `loss`.

use crate::conditions::{Conditions, flag};
use crate::meta_grad::{FloatKind, SetupArgs};
use crate::record::{Point, Sizes, said_by};
use gtn::cli::say;
use gtn::error::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A line of a peer.
#[derive(Debug, Deserialize)]
struct Line {
    framework: String,
    mode: String,
    #[serde(default)]
    threads: usize,
    median_s: f64,
    min_s: f64,
    peak_mb: f64,
    loss: f64,
    /// What was measured, and other fields.
    #[serde(flatten)]
    of: Map<String, Value>,
}

impl Line {
    /// Whether it is of this set-up in these sizes.
    fn is_of(&self, wanted: &Map<String, Value>) -> bool {
        let same = |(key, value)| self.of.get(key) == Some(value);
        self.of.get("T").is_some_and(Value::is_u64) && wanted.iter().all(same)
    }

    /// As a point. If the line has a number of inner steps, that is used.
    fn point(self, mut sizes: Sizes) -> Point {
        if let Some(steps) = self.of.get("T").and_then(Value::as_u64) {
            sizes.insert("steps", steps as usize);
        }
        Point {
            engine: self.framework,
            mode: self.mode,
            schedule: String::new(),
            sizes,
            threads: self.threads,
            median_s: self.median_s,
            min_s: self.min_s,
            process_bytes: (self.peak_mb * f64::from(1 << 20)) as u64,
            engine_bytes: None,
            loss: self.loss,
        }
    }
}

pub(super) fn float_name(kind: FloatKind) -> &'static str {
    match kind {
        FloatKind::F32 => "float32",
        FloatKind::F64 => "float64",
    }
}

/// The measurements of one set-up in files, or in folders of `*.jsonl`. Those of other set-ups are left out.
pub(super) fn read(paths: &[PathBuf], args: &SetupArgs) -> Result<Vec<Point>> {
    let (batch, data) = (args.problem(0)?.batch, args.data.name());
    let mut wanted = Map::new();
    wanted.insert("setup".into(), args.setup.as_str().into());
    wanted.insert("data".into(), data.into());
    wanted.insert("bn".into(), args.bn.into());
    wanted.insert("batch".into(), batch.into());
    wanted.insert("dtype".into(), float_name(args.dtype).into());
    let mut points = Vec::new();
    for path in paths {
        let mut lines = Vec::new();
        for file in files(path)? {
            lines.extend(parse(&file)?);
        }
        let all = lines.len();
        lines.retain(|line| line.is_of(&wanted));
        let (name, setup) = (path.display(), &args.setup);
        say(&format!(
            "{name}: {} of {all} lines are of set-up {setup}, {data}",
            lines.len()
        ));
        let sizes: Sizes = [("batch", batch)].into();
        points.extend(lines.into_iter().map(|line| line.point(sizes.clone())));
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
fn command_of(words: &str, what: &str) -> Result<Command> {
    if let Some((engine @ ("jax" | "torch"), mode)) = words.split_once(':') {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let mut command = Command::new("python3");
        command.arg(folder.join(format!("{what}_{engine}.py")));
        flag(&mut command, "--mode", &mode);
        return Ok(command);
    }
    let mut words = words.split_whitespace();
    let missing = || Error::usage("--beside needs a command");
    let mut command = Command::new(words.next().ok_or_else(missing)?);
    command.args(words);
    Ok(command)
}

/// Runs a peer's program on what `pass` tells it, and reads the line that it writes to the file behind `--json`.
pub(super) fn run(
    (words, what): (&str, &str),
    conditions: &Conditions,
    pass: impl FnOnce(&mut Command),
    sizes: Sizes,
) -> Result<Point> {
    let mut command = command_of(words, what)?;
    pass(&mut command);
    conditions.pass_to_peer(&mut command);
    let folder = tempfile::tempdir();
    let folder = folder.map_err(|e| Error::run(format!("no folder for what a peer says: {e}")))?;
    let file = folder.path().join("peer.jsonl");
    flag(&mut command, "--json", &file.display());
    said_by(&mut command)?;
    let line = parse(&file)?.pop();
    let line = line.ok_or_else(|| Error::run("it measured nothing"))?;
    Ok(line.point(sizes))
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
