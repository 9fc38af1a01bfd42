//! Will it fit? An estimate before anything large is taken.

use crate::config::{Config, ConfigError};
use crate::training::training;
use autograd::{Error, Mode, Schedule, Unroll};
use kernels::{Device, DeviceError};

/// Refuses settings that take more memory than the machine has free, where the system tells.
///
/// # Errors
/// If they do, or if the networks cannot be planned.
pub fn check(device: &Device, config: &Config) -> anyhow::Result<()> {
    let wanted = match estimate(device, config) {
        // One step alone is too much.
        Err(Error::Device(DeviceError::OutOfMemory { wanted, .. })) => wanted as f64,
        other => other?,
    };
    match available() {
        Some(free) if wanted > free => {
            let (wanted, free) = (gib(wanted), gib(free));
            Err(ConfigError::Memory { wanted, free }.into())
        }
        _ => Ok(()),
    }
}

fn gib(bytes: f64) -> String {
    format!("{:.1} GiB", bytes / f64::from(1 << 30))
}

/// Bytes of an outer step with the widest learner. Plans of one and of two inner steps tell what a step
/// adds; they touch none of the memory that they reserve.
fn estimate(device: &Device, config: &Config) -> autograd::Result<f64> {
    let generator = config.generator()?;
    let learner = config.learner(&config.widths.widest())?;
    let training = training(config, &generator, &learner);
    let forecast = |steps| -> autograd::Result<_> {
        let store_all = config.schedule == Schedule::StoreAll;
        let schedule = if store_all {
            Schedule::StoreAll
        } else {
            Schedule::PerStep
        };
        let mode: Mode = config.mode.into();
        Ok(Unroll::new(device, &training, steps, |_| true, schedule, mode)?.forecast())
    };
    let (one, two) = (forecast(1)?, forecast(2)?);
    let snapshot = (two.snapshot_bytes - one.snapshot_bytes) as f64;
    let other = (two.bytes - one.bytes) as f64 - snapshot;
    let steps = config.inner_steps as f64;
    let snapshots = match config.schedule {
        Schedule::EveryK(k) => (steps / k as f64).ceil() + k as f64,
        _ => steps,
    };
    // The rows and their gradients are of one size; the real images and the outer optimiser come on top.
    let floats =
        |ports: &[autograd::Port]| ports.iter().map(|port| port.bytes() as f64).sum::<f64>();
    let real = floats(&training.outer_rows) * config.outer_count() as f64;
    let outer = 4.0 * floats(&training.shared);
    Ok(one.bytes as f64 + snapshots * snapshot + 2.0 * steps * other + real + outer)
}

/// Bytes that a program can take without swapping, by Linux; elsewhere unknown.
fn available() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}
