//! Where to compute: the choice, and why.

use clap::ValueEnum;
use kernels::{Cpu, Cuda, Device, DeviceError, Precision, Simd, host_free_bytes};

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

/// Vector instructions that the processor may use. Trained weights have the same bits with avx2 and avx512.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SimdChoice {
    /// AVX-512: 512 bits
    Avx512,
    /// AVX2 and FMA: 256 bits
    Avx2,
    /// Those of every processor of the architecture: 128 bits, on x86-64 without fused multiply-adds
    Baseline,
}

impl From<SimdChoice> for Simd {
    fn from(choice: SimdChoice) -> Self {
        match choice {
            SimdChoice::Avx512 => Self::Avx512,
            SimdChoice::Avx2 => Self::Avx2,
            SimdChoice::Baseline => Self::Baseline,
        }
    }
}

/// The device, and a line that says which it is and why. Of several GPUs it is number `ordinal`, modulo their
/// count: a launcher may show each process only its own GPU.
///
/// # Errors
/// If it was asked for by name and cannot be had.
pub fn choose(
    choice: DeviceChoice,
    precision: PrecisionChoice,
    threads: Option<usize>,
    simd: Option<SimdChoice>,
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
    let cpu = Cpu::new(threads, simd.map(Simd::from))?;
    let (threads, level) = (cpu.threads(), cpu.simd());
    let s = if threads == 1 { "" } else { "s" };
    Ok((
        cpu.into(),
        format!("CPU, {threads} thread{s}, {level}{why}"),
    ))
}

/// Why so many bytes of the host's memory cannot be had, if they cannot: more than are free, where that is known, or than
/// a limit of the process (`ulimit -v`) leaves. An allocation that fails would abort the program.
pub(crate) fn lack_of_memory(bytes: f64) -> Option<String> {
    match host_free_bytes().map(|free| free as f64) {
        Some(free) if bytes > free => Some(format!("{} of memory are free", size(free))),
        _ if Vec::<u8>::new().try_reserve_exact(bytes as usize).is_err() => {
            Some("the system gives no such memory".to_owned())
        }
        _ => None,
    }
}

/// Bytes of memory as people read them.
pub(crate) fn size(bytes: f64) -> String {
    let mib = bytes / f64::from(1 << 20);
    if mib < 1024.0 {
        format!("{mib:.0} MiB")
    } else {
        format!("{:.1} GiB", mib / 1024.0)
    }
}

/// Free bytes for each of `ranks` processes on this machine, or `None` if unknown. Each process has a GPU of
/// its own; the host's memory is shared evenly.
pub fn free_bytes(device: &Device, ranks: usize) -> Option<usize> {
    let ranks = device.as_cpu().map_or(1, |_| ranks);
    Some(device.free_bytes()? / ranks)
}
