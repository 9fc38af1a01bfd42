//! Will it fit? An estimate before anything large is taken.

use crate::config::{Config, ConfigError};
use crate::training::training;
use autograd::{Forecast, Port};
use kernels::Device;

/// Refuses settings that take more memory than the machine has free, where the system tells.
///
/// # Errors
/// If they do, or if the networks cannot be planned.
pub fn check(device: &Device, config: &Config) -> anyhow::Result<()> {
    let wanted = estimate(config)?;
    match available(device) {
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

/// Bytes of an outer step with the widest learner.
fn estimate(config: &Config) -> autograd::Result<f64> {
    let generator = config.generator()?;
    let learner = config.learner(&config.widths.widest())?;
    let training = training(config, &generator, &learner);
    let forecast = Forecast::new(&training, &config.horizon())?;
    // Beside the driver's memory there are the rows, the real images, and the outer optimiser.
    let bytes = |ports: &[Port]| ports.iter().map(|port| port.bytes() as f64).sum::<f64>();
    let rows = bytes(&training.row_ports()) * config.inner_steps as f64;
    let real = bytes(&training.outer_rows) * config.outer_count() as f64;
    let outer = 4.0 * bytes(&training.shared);
    Ok(forecast.bytes as f64 + rows + real + outer)
}

/// Bytes that are free on a GPU; or that a program can take without swapping, by Linux; elsewhere unknown.
fn available(device: &Device) -> Option<f64> {
    if let Some(facts) = device.cuda_facts() {
        return Some(facts.ok()?.free_bytes as f64);
    }
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}
