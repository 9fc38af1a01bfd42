//! `gtn selftest`: compares a device with the processor.

use super::{Machine, Outcome, say};
use crate::selftest;
use anyhow::bail;

/// Settings of `gtn selftest`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SelftestArgs {
    /// What is compared with the processor
    #[command(flatten)]
    machine: Machine,
}

pub(super) fn run(args: &SelftestArgs) -> anyhow::Result<Outcome> {
    let device = args.machine.device()?;
    let checks = selftest::run(&device, args.machine.precision, |check| {
        let mark = if check.passed { "ok  " } else { "FAIL" };
        say(&format!("{mark} {:<52} {}", check.name, check.found));
    })?;
    args.machine.print(&checks)?;
    let failed = checks.iter().filter(|check| !check.passed).count();
    if failed > 0 {
        bail!("{failed} of {} checks failed", checks.len());
    }
    say(&format!("All {} checks passed", checks.len()));
    Ok(Outcome::Done)
}
