//! `benches depth-sweep`: `benches depth` over numbers of blocks or over widths, as a table and as curves;
//! beside other engines' programs.

use crate::conditions::flag;
use crate::depth::{DepthArgs, NAMES};
use crate::peers;
use crate::record::{Point, Record, RecordArgs, Sizes, Subject, last_line, this_program};
use gtn::cli::Outcome;
use gtn::error::Result;
use gtn::run::values::count;
use serde_json::json;
use std::process::Command;

/// Settings of `benches depth-sweep`.
#[derive(Clone, Debug, clap::Args)]
pub struct DepthSweepArgs {
    /// Which size is varied
    #[arg(long, value_enum)]
    pub over: Over,
    /// Values to sweep, comma-separated; they override --blocks or --width
    #[arg(long, value_name = "N,…", value_delimiter = ',', required = true, value_parser = count())]
    pub values: Vec<usize>,
    /// Everything else
    #[command(flatten)]
    pub depth: DepthArgs,
    /// Peers to run for every size in turn with ours: jax:MODE for a mode of the program in benches/peers (naive,
    /// remat, mixed, blocks), or another command that takes --blocks, --width, --batch, --steps, --repeats,
    /// --threads and --json FILE, and writes one JSON object
    #[arg(long, value_name = "PEER,…", value_delimiter = ',')]
    pub beside: Vec<String>,
    /// What becomes of it; NAME is deep-blocks or deep-width
    #[command(flatten)]
    pub record: RecordArgs,
}

/// A size of the deep learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Over {
    /// Residual blocks
    Blocks,
    /// Its width
    Width,
}

/// Measures all points, and writes them.
pub(super) fn run(args: &DepthSweepArgs) -> Result<Outcome> {
    let mut record = Record::new(args.subject(), &args.record)?;
    for &value in &args.values {
        let depth = args.with(value);
        let size = format!("{} blocks, width {}", depth.blocks, depth.width);
        for column in depth.columns() {
            let name = format!("gtn column {column}, {size}");
            record.take(&name, ours(&depth, column))?;
        }
        for words in &args.beside {
            record.take(&format!("{words}, {size}"), peer(&depth, words))?;
        }
    }
    record.finish(&args.depth.conditions.machine)
}

impl DepthSweepArgs {
    fn with(&self, value: usize) -> DepthArgs {
        let mut depth = self.depth.clone();
        match self.over {
            Over::Blocks => depth.blocks = value,
            Over::Width => depth.width = value,
        }
        depth
    }

    fn subject(&self) -> Subject {
        let DepthArgs {
            blocks,
            width,
            batch,
            steps,
            ..
        } = self.depth;
        let (name, axis, rest) = match self.over {
            Over::Blocks => ("blocks", "residual blocks", format!("width {width}")),
            Over::Width => ("width", "width", format!("{blocks} blocks")),
        };
        Subject {
            name: format!("deep-{name}"),
            title: format!("Residual perceptron, {rest}, T = {steps}, B = {batch}"),
            axis: (name, axis),
            settings: json!({ "segments": self.depth.segments }),
        }
    }
}

/// Passes the sizes on to a program.
fn pass(depth: &DepthArgs, command: &mut Command) {
    flag(command, "--blocks", &depth.blocks);
    flag(command, "--width", &depth.width);
    flag(command, "--batch", &depth.batch);
    flag(command, "--steps", &depth.steps);
}

fn sizes(depth: &DepthArgs) -> Sizes {
    let [blocks, width] = [("blocks", depth.blocks), ("width", depth.width)];
    [
        blocks,
        width,
        ("batch", depth.batch),
        ("steps", depth.steps),
    ]
    .into()
}

/// One point of this engine, in a process of its own.
fn ours(depth: &DepthArgs, column: u8) -> Result<Point> {
    let mut command = this_program()?;
    command.args(["depth", "--json"]);
    pass(depth, &mut command);
    depth.conditions.pass(&mut command);
    flag(&mut command, "--segments", &depth.segments);
    flag(&mut command, "--columns", &column);
    let found = last_line(&mut command)?;
    let names = [NAMES[usize::from(column) - 1].to_owned(), String::new()];
    let (threads, found) = (&found["threads"], &found["columns"][0]);
    Ok(Point::ours(names, sizes(depth), threads, found))
}

/// One point of a peer.
fn peer(depth: &DepthArgs, words: &str) -> Result<Point> {
    let pass = |command: &mut Command| pass(depth, command);
    peers::run((words, "depth"), &depth.conditions, pass, sizes(depth))
}
