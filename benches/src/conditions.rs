//! Where, on how many threads and how often a benchmark computes; flags as other processes take them.

use gtn::cli::Machine;
use gtn::run::settings::name_of;
use std::process::Command;

/// Settings of all benchmarks of meta-gradients. Peers run on the processor, so that is the default.
#[derive(Clone, Debug, clap::Args)]
#[command(mut_arg("device", |device| device.default_value("cpu")))]
pub struct Conditions {
    /// Device and threads
    #[command(flatten)]
    pub machine: Machine,
    /// How often it is computed; the first time is not counted if there are more
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub repeats: u64,
}

impl Conditions {
    /// Passes them on to another process of this program.
    pub(super) fn pass(&self, command: &mut Command) {
        if let Some(threads) = self.machine.threads {
            flag(command, "--threads", &threads);
        }
        flag(command, "--device", &name_of(&self.machine.device));
        flag(command, "--precision", &name_of(&self.machine.precision));
        flag(command, "--repeats", &self.repeats);
    }

    /// Passes them on to a peer's program, which knows no GPU and takes a number of threads.
    pub(super) fn pass_to_peer(&self, command: &mut Command) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        flag(command, "--threads", &self.machine.threads.unwrap_or(cores));
        flag(command, "--repeats", &self.repeats);
    }
}

/// The given number, or the default in place of 0.
pub(super) fn or(given: usize, default: usize) -> usize {
    if given == 0 { default } else { given }
}

/// Adds a flag with its value.
pub(super) fn flag(command: &mut Command, name: &str, value: &impl ToString) {
    command.args([name, &value.to_string()]);
}
