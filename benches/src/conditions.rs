//! The conditions of a benchmark: device, threads and repeats; and how they are passed on to other processes.

use gtn::cli::Machine;
use gtn::device::SimdChoice;
use gtn::run::values::name_of;
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
        if let Some(simd) = self.machine.simd {
            flag(command, "--simd", &name_of(&simd));
        }
        flag(command, "--device", &name_of(&self.machine.device));
        flag(command, "--precision", &name_of(&self.machine.precision));
        flag(command, "--repeats", &self.repeats);
    }

    /// Passes them on to a peer's program. It computes on the processor only, so it gets no device; it takes
    /// a number of threads, and is held to the same vector instructions.
    pub(super) fn pass_to_peer(&self, command: &mut Command) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        flag(command, "--threads", &self.machine.threads.unwrap_or(cores));
        flag(command, "--repeats", &self.repeats);
        if let Some(simd) = self.machine.simd {
            command.envs(held_to(simd));
        }
    }
}

/// Environment variables that limit `PyTorch`, oneDNN and XLA to the vector instructions of a level.
fn held_to(simd: SimdChoice) -> Vec<(&'static str, &'static str)> {
    let [aten, onednn, xla] = match simd {
        SimdChoice::Avx512 => return Vec::new(),
        SimdChoice::Avx2 => ["avx2", "AVX2", "--xla_cpu_max_isa=AVX2"],
        SimdChoice::Baseline => ["default", "SSE41", "--xla_cpu_max_isa=SSE4_2"],
    };
    vec![
        ("ATEN_CPU_CAPABILITY", aten),
        ("ONEDNN_MAX_CPU_ISA", onednn),
        ("XLA_FLAGS", xla),
    ]
}

/// The given number, or the default in place of 0.
pub(super) fn or(given: usize, default: usize) -> usize {
    if given == 0 { default } else { given }
}

/// Adds a flag with its value.
pub(super) fn flag(command: &mut Command, name: &str, value: &impl ToString) {
    command.args([name, &value.to_string()]);
}
