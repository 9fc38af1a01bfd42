//! The measuring instruments: time and memory of meta-gradients and of single kernels, plans, profiles, and sweeps
//! beside other engines. The program is `cargo run -p benches --release`; what criterion runs stands beside this folder.

mod conditions;
mod depth;
mod depth_sweep;
pub mod kernels;
mod meta_grad;
mod peers;
mod plan;
mod problem;
mod profile;
mod record;
pub mod resident;
mod setups;
mod subject;
mod sweep;

pub use kernels::Single;
pub use problem::{DataKind, Problem};
pub use setups::Setup;

use gtn::cli::Outcome;
use gtn::error::Result;

/// Measures meta-gradients and kernels. Human text goes to standard error; with --json the last line of standard
/// output is one object for machines.
#[derive(Debug, clap::Parser)]
#[command(name = "benches", version, args_override_self = true)]
pub enum Cli {
    /// Time the meta-gradient of a fixed set-up, and measure its memory
    MetaGrad(Box<meta_grad::MetaGradArgs>),
    /// Time the meta-gradient of a deep learner in four ways, and measure their memory
    Depth(depth::DepthArgs),
    /// Time and measure it over numbers of inner steps and schedules, and draw the curves
    Sweep(Box<sweep::SweepArgs>),
    /// Time and measure that of deep learners over numbers of blocks or widths, and draw the curves
    DepthSweep(depth_sweep::DepthSweepArgs),
    /// Time kernels by themselves, and compare with what the device was measured to do
    Kernels(kernels::KernelsArgs),
    /// Say what a meta-gradient will take, launch by launch and schedule by schedule
    Plan(Box<plan::PlanArgs>),
    /// Say where the time of a meta-gradient goes
    Profile(Box<profile::ProfileArgs>),
}

/// Runs a command.
///
/// # Errors
/// If its settings make no sense, or a measurement fails.
pub fn run(command: &Cli) -> Result<Outcome> {
    match command {
        Cli::MetaGrad(args) => meta_grad::run(args),
        Cli::Depth(args) => depth::run(args),
        Cli::Sweep(args) => sweep::run(args),
        Cli::DepthSweep(args) => depth_sweep::run(args),
        Cli::Kernels(args) => kernels::run(args),
        Cli::Plan(args) => plan::run(args),
        Cli::Profile(args) => profile::run(args),
    }
}
