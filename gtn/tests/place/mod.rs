//! A folder in which a program runs as a user runs it, and what it said there. The tests that include it name their
//! program in the constant `PROGRAM`.
#![allow(dead_code, reason = "every test program uses a part of it")]

use crate::PROGRAM;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// Settings with which a run takes a moment.
pub(crate) const TINY: &str = "--dataset mnist --outer-steps 4 --inner-steps 2 --inner-batch 10 --outer-batch 20 \
    --widths 2,3,4 --noise 4 --generator-hidden 8 --generator-channels 3,2 --learners 2 \
    --validate-every 2 --checkpoint-every 2 --threads 1";

/// A folder of its own with a small data set in it.
pub(crate) struct Place(pub(crate) tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.path("data")).unwrap();
        for (name, count) in [("train", 60), ("t10k", 30)] {
            place.write(
                &format!("data/{name}-images-idx3-ubyte"),
                &images(count, 28),
            );
            place.write(
                &format!("data/{name}-labels-idx1-ubyte"),
                &labels(count, 10),
            );
        }
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn command(&self, program: &str, args: &str) -> Command {
        let mut command = Command::new(program);
        command.args(args.split_whitespace()).current_dir(&self.0);
        command.env_remove("GTN_DATA_DIR");
        // What these tests expect is the processor's, also on a machine with a GPU.
        command.env("CUDA_VISIBLE_DEVICES", "");
        command
    }

    pub(crate) fn output(&self, args: &str) -> Output {
        self.command(PROGRAM, args).output().unwrap()
    }

    /// Begins a command, and lets it run.
    pub(crate) fn start(&self, args: &str) -> Child {
        let mut command = self.command(PROGRAM, args);
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        piped.spawn().unwrap()
    }

    /// The outer steps in the metrics of a run, in their order.
    pub(crate) fn steps(&self, run: &str) -> Vec<u64> {
        let path = self.path(&format!("{run}/metrics.jsonl"));
        let lines = fs::read_to_string(path).unwrap_or_default();
        let step = |line: &str| serde_json::from_str::<Value>(line).ok()?["outer_step"].as_u64();
        lines.lines().filter_map(step).collect()
    }

    /// Standard output of a command that must end well.
    pub(crate) fn run(&self, args: &str) -> String {
        let output = self.output(args);
        assert!(
            output.status.success(),
            "{PROGRAM} {args}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Runs a command that must end with that code, and an error in one line that has these words.
    pub(crate) fn fails(&self, code: i32, args: &str, words: &str) {
        refused(&self.output(args), code, args, words);
    }
}

/// A table of accuracies of all cells of NAS-Bench-201, better with more convolutions.
pub(crate) fn truth() -> String {
    let mut table = "cell,c10_test200,other\n".to_owned();
    for i in 0..5u32.pow(6) {
        let code: String = (0..6)
            .map(|at| char::from(b'0' + (i / 5u32.pow(at) % 5) as u8))
            .collect();
        let convs = code.matches(['2', '3']).count();
        writeln!(table, "{code},{}.{},1", 80 + convs, i % 97).unwrap();
    }
    table
}

/// It ends with an error in one line, and at most a hint in another.
pub(crate) fn refused(output: &Output, code: i32, args: &str, words: &str) {
    let said = text(&output.stderr);
    let why = format!("{PROGRAM} {args}: {said}");
    assert_eq!(output.status.code(), Some(code), "{why}");
    let mut lines: Vec<&str> = said.trim_end().lines().collect();
    lines.pop_if(|line| line.starts_with("hint: "));
    let errors = lines.iter().filter(|line| line.starts_with("error: "));
    assert_eq!(errors.count(), 1, "{why}");
    let error = lines.last().expect("one");
    assert!(
        error.starts_with("error: ") && error.contains(words),
        "{why}"
    );
}

/// Sends a signal by its name: TERM, INT, KILL.
pub(crate) fn signal(name: &str, process: u32) {
    let args = [format!("-{name}"), process.to_string()];
    assert!(Command::new("kill").args(args).status().unwrap().success());
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn json(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

pub(crate) fn idx(magic: u32, sizes: &[u32], bytes: impl Iterator<Item = u8>) -> Vec<u8> {
    let header = [magic].into_iter().chain(sizes.iter().copied());
    header.flat_map(u32::to_be_bytes).chain(bytes).collect()
}

/// Class i % 10 has its i-th stripe of pixels lit.
pub(crate) fn images(count: u32, side: u32) -> Vec<u8> {
    let pixel = move |i: u32| {
        let (image, place) = (i / (side * side), i % (side * side));
        if place * 10 / (side * side) == image % 10 {
            255
        } else {
            0
        }
    };
    idx(
        2051,
        &[count, side, side],
        (0..count * side * side).map(pixel),
    )
}

pub(crate) fn labels(count: u32, classes: u32) -> Vec<u8> {
    idx(2049, &[count], (0..count).map(move |i| (i % classes) as u8))
}
