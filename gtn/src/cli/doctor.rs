//! `gtn doctor`: what this machine has, and what a run would use.

use super::{Outcome, show};
use crate::device::{DeviceChoice, PrecisionChoice, SimdChoice, choose};
use crate::error::Result;
use clap::Args;
use kernels::{Cuda, CudaFacts, Device, Precision, Simd};

/// What a run would be told.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Hold the processor down to these vector instructions [default: the best it has]
    #[arg(long, value_enum, help_heading = "Machine")]
    simd: Option<SimdChoice>,
}

/// Prints what is known of the devices.
pub(super) fn run(args: &DoctorArgs) -> Result<Outcome> {
    match Cuda::open(0, Precision::default()) {
        Ok(cuda) => say_cuda(&cuda.facts()?)?,
        Err(reason) => show(&format!("CUDA: {reason}"))?,
    }
    let device = Device::cpu(None)?;
    show(&format!(
        "CPU: {} threads, vector instructions up to {}",
        device.threads(),
        Simd::detected()
    ))?;
    let (auto, precision) = (DeviceChoice::Auto, PrecisionChoice::default());
    let (_, line) = choose(auto, precision, None, args.simd, 0).map_err(super::refuse)?;
    show(&format!("A run would use: {line}"))?;
    Ok(Outcome::Done)
}

fn say_cuda(facts: &CudaFacts) -> Result<()> {
    let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    let ([major, minor], [driver, point]) = (facts.capability, facts.driver);
    show(&format!("CUDA: {}", facts.name))?;
    show(&format!(
        "  compute capability {major}.{minor}, driver for CUDA {driver}.{point}"
    ))?;
    show(&format!(
        "  memory {:.1} GiB, {:.1} free",
        gib(facts.total_bytes),
        gib(facts.free_bytes)
    ))?;
    show("  precision fp32 (exact), tf32 (default), bf16; a test kernel gave the right results")
}
