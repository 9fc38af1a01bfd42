//! `gtn selftest`: compares a device with the processor.

use super::{Outcome, say};
use crate::device::{DeviceChoice, PrecisionChoice, choose};
use crate::selftest;
use anyhow::bail;

/// Settings of `gtn selftest`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SelftestArgs {
    /// What is compared with the processor
    #[arg(long, value_enum, default_value_t)]
    device: DeviceChoice,
    /// How an NVIDIA GPU multiplies
    #[arg(long, value_enum, default_value_t)]
    precision: PrecisionChoice,
    /// End with one JSON object on standard output
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &SelftestArgs) -> anyhow::Result<Outcome> {
    let (device, line) = choose(args.device, args.precision, None)?;
    say(&format!("Device: {line}"));
    let checks = selftest::run(&device, args.precision, |check| {
        let mark = if check.passed { "ok  " } else { "FAIL" };
        say(&format!("{mark} {:<52} {}", check.name, check.found));
    })?;
    if args.json {
        println!("{}", serde_json::to_string(&checks)?);
    }
    let failed = checks.iter().filter(|check| !check.passed).count();
    if failed > 0 {
        bail!("{failed} of {} checks failed", checks.len());
    }
    say(&format!("All {} checks passed", checks.len()));
    Ok(Outcome::Done)
}
