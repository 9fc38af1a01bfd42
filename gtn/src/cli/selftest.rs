//! `gtn selftest`: compares a device with the processor.

use super::{Machine, Outcome, say};
use crate::error::{Error, Result};
use crate::selftest;
use serde_json::json;

/// Settings of `gtn selftest`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SelftestArgs {
    /// What is compared with the processor
    #[command(flatten)]
    machine: Machine,
}

pub(super) fn run(args: &SelftestArgs) -> Result<Outcome> {
    let device = args.machine.device()?;
    let checks = selftest::run(&device, args.machine.precision, |check| {
        let mark = if check.passed { "ok  " } else { "FAIL" };
        say(&format!("{mark} {:<52} {}", check.name, check.found));
    })?;
    args.machine
        .print(&json!({ "command": "selftest", "checks": checks }))?;
    let failed = checks.iter().filter(|check| !check.passed).count();
    if failed > 0 {
        let all = checks.len();
        return Err(Error::engine(format!("{failed} of {all} checks failed")));
    }
    say(&format!("All {} checks passed", checks.len()));
    Ok(Outcome::Done)
}
