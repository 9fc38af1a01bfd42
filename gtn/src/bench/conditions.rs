//! Where, on how many threads and how often a benchmark computes.

use super::or;
use crate::device::{DeviceChoice, PrecisionChoice, choose};
use ::kernels::Device;
use anyhow::Result;
use clap::ValueEnum;
use std::process::Command;

/// What all benchmarks of meta-gradients are told.
#[derive(Clone, Debug, clap::Args)]
pub struct Conditions {
    /// Threads; 0 takes all cores
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Where to compute
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: DeviceChoice,
    /// How an NVIDIA GPU multiplies
    #[arg(long, value_enum, default_value_t)]
    pub precision: PrecisionChoice,
    /// How often it is computed; the first time is not counted if there are more
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub repeats: u64,
}

impl Conditions {
    /// The device; says which it is.
    pub(super) fn device(&self) -> Result<Device> {
        let threads = (self.threads > 0).then_some(self.threads);
        let (device, line) = choose(self.device, self.precision, threads)?;
        eprintln!("Device: {line}");
        Ok(device)
    }

    /// Tells another process of this program the same.
    pub(super) fn pass(&self, command: &mut Command) {
        flag(command, "--threads", &self.threads);
        flag(command, "--device", &name_of(&self.device));
        flag(command, "--precision", &name_of(&self.precision));
        flag(command, "--repeats", &self.repeats);
    }

    /// Tells a peer's program, which knows no GPU and takes a number of threads.
    pub(super) fn pass_to_peer(&self, command: &mut Command) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        flag(command, "--threads", &or(self.threads, cores));
        flag(command, "--repeats", &self.repeats);
    }
}

/// Adds a flag with its value.
pub(super) fn flag(command: &mut Command, name: &str, value: &impl ToString) {
    command.args([name, &value.to_string()]);
}

/// How a value is written on the command line.
pub(super) fn name_of(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}
