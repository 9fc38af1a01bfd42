//! The measuring instruments: time and memory of meta-gradients and of single kernels, plans, profiles, and
//! sweeps beside other engines. The program is `cargo run -p benches --release`. The criterion benchmarks are
//! in the folder above.

mod conditions;
mod depth;
mod depth_sweep;
pub mod kernels;
mod learners;
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
    /// Measure time and memory of the meta-gradient for several T and schedules; write a table and plots
    Sweep(Box<sweep::SweepArgs>),
    /// Measure time and memory of a deep learner's meta-gradient for several depths or widths; write a table and plots
    DepthSweep(depth_sweep::DepthSweepArgs),
    /// Time the planning and the meta-gradient of many learners: those of the settings' families, and the suite held-out
    Learners(Box<learners::LearnersArgs>),
    /// Time single kernels, and compare them with the peak rates measured on the device
    Kernels(kernels::KernelsArgs),
    /// Predict launches, work, memory and seconds of a meta-gradient under every schedule
    ///
    /// Pass --setup to analyse a benchmark set-up, or the flags of `gtn train` to analyse that run (using the widest
    /// learner it may draw). Bytes and work are exact. Seconds are estimates: each phase is timed briefly on this
    /// device and multiplied by its count.
    Plan(Box<plan::PlanArgs>),
    /// Show where the time of a meta-gradient goes, by kernel and by phase
    ///
    /// Pass --setup to analyse a benchmark set-up, or the flags of `gtn train` to analyse that run (using the widest
    /// learner it may draw). Contractions are timed beside the same shapes by themselves. On a GPU launches are timed
    /// one by one, and not as the graph that they are otherwise. FLOPs are those of the definitions: the processor
    /// computes 3×3 convolutions with fewer, and may exceed its peak.
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
        Cli::Learners(args) => learners::run(args),
        Cli::Kernels(args) => kernels::run(args),
        Cli::Plan(args) => plan::run(args),
        Cli::Profile(args) => profile::run(args),
    }
}
