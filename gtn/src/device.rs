//! Where to compute: the choice, and why.

use clap::ValueEnum;
use kernels::{Cuda, Device, DeviceError, Precision};

/// Where to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DeviceChoice {
    /// The best there is
    #[default]
    Auto,
    /// The processor
    Cpu,
    /// An NVIDIA GPU
    Cuda,
}

/// How an NVIDIA GPU multiplies matrices; the processor is always exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PrecisionChoice {
    /// Exact 32-bit, without tensor cores
    Fp32,
    /// Tensor cores, operands with 10 bits of mantissa
    #[default]
    Tf32,
    /// Tensor cores, operands with 7 bits of mantissa
    Bf16,
}

impl PrecisionChoice {
    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

impl From<PrecisionChoice> for Precision {
    fn from(choice: PrecisionChoice) -> Self {
        match choice {
            PrecisionChoice::Fp32 => Self::Fp32,
            PrecisionChoice::Tf32 => Self::Tf32,
            PrecisionChoice::Bf16 => Self::Bf16,
        }
    }
}

/// The device, and a line that says which it is and why. Of several GPUs it is that of the `ordinal`, which goes round: a
/// launcher may show every process no GPU but its own.
///
/// # Errors
/// If it was asked for by name and cannot be had.
pub fn choose(
    choice: DeviceChoice,
    precision: PrecisionChoice,
    threads: Option<usize>,
    ordinal: usize,
) -> Result<(Device, String), DeviceError> {
    let mut why = String::new();
    if choice != DeviceChoice::Cpu {
        let ordinal = ordinal % Cuda::count().max(1);
        match Cuda::open(ordinal, precision.into()) {
            Ok(cuda) => {
                let line = format!("CUDA, {}, {}", cuda.facts()?.name, precision.name());
                return Ok((cuda.into(), line));
            }
            Err(error) if choice == DeviceChoice::Cuda => return Err(error),
            Err(error) => why = format!(" ({error})"),
        }
    }
    let device = Device::cpu(threads)?;
    let threads = device.threads();
    let s = if threads == 1 { "" } else { "s" };
    Ok((device, format!("CPU, {threads} thread{s}{why}")))
}

/// Bytes that are free for each of so many `ranks` on this machine, where that is known: each has a GPU of its own, and they
/// share the host's memory.
pub fn free_bytes(device: &Device, ranks: usize) -> Option<usize> {
    let ranks = device.as_cpu().map_or(1, |_| ranks);
    Some(device.free_bytes()? / ranks)
}
