//! `gtn doctor`: what this machine has, and what a run would use.

use super::{Outcome, say};
use crate::device::{DeviceChoice, PrecisionChoice, choose};
use crate::error::Result;
use kernels::{Cuda, CudaFacts, Device, Precision};

/// Prints what is known of the devices.
pub(super) fn run() -> Result<Outcome> {
    match Cuda::open(0, Precision::default()) {
        Ok(cuda) => say_cuda(&cuda.facts()?),
        Err(reason) => say(&format!("CUDA: {reason}")),
    }
    let device = Device::cpu(None)?;
    say(&format!("CPU: {} threads", device.threads()));
    let (_, line) = choose(DeviceChoice::Auto, PrecisionChoice::default(), None)?;
    say(&format!("A run would use: {line}"));
    Ok(Outcome::Done)
}

fn say_cuda(facts: &CudaFacts) {
    let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    let ([major, minor], [driver, point]) = (facts.capability, facts.driver);
    say(&format!("CUDA: {}", facts.name));
    say(&format!(
        "  compute capability {major}.{minor}, driver for CUDA {driver}.{point}"
    ));
    say(&format!(
        "  memory {:.1} GiB, {:.1} free",
        gib(facts.total_bytes),
        gib(facts.free_bytes)
    ));
    say("  precision fp32 (exact), tf32 (default), bf16; a test kernel gave the right results");
}
