//! `gtn search`

mod args;
mod correlate;
mod crew;
mod find;
mod hunt;
mod teacher;
mod work;

use super::Outcome;
use crate::error::Result;
use crate::ranks::Ranks;
use clap::{Args, Subcommand};

/// Settings of `gtn search`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct SearchArgs {
    #[command(subcommand)]
    task: Option<Task>,
    #[command(flatten)]
    find: args::FindArgs,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Compare estimates with the accuracies of fully trained networks
    ///
    /// Ranks the networks that a run of a space never drew (or others), by every estimator, and shows how well that agrees
    /// with a table of accuracies: Spearman's and Kendall's rank correlation, that within the best half and tenth by the
    /// estimate and the best tenth by the truth, and nDCG. Writes results.jsonl as it goes on, results.csv, report.json and
    /// scatter.svg; the same command goes on where it was stopped.
    Correlate(Box<correlate::CorrelateArgs>),
}

pub(super) fn run(args: &SearchArgs, ranks: &Ranks) -> Result<Outcome> {
    match &args.task {
        Some(Task::Correlate(args)) => correlate::run(args, ranks),
        None => find::run(&args.find, ranks),
    }
}
