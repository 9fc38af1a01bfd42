//! Runs the tests of this crate's own modules again at every lower level of vector instructions that this machine has, each
//! by a process that knows of no more.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../tests/common/mod.rs"]
pub(super) mod common;

use super::simd::Simd;
use std::process::Command;

/// Says what the best level is that a process may find, by its index.
const LIMIT: &str = "KERNELS_TEST_LIMIT";

/// What [`LIMIT`] says, the best if nothing.
pub(super) fn limit() -> Simd {
    let limit = std::env::var(LIMIT).map(|limit| Simd::ALL[limit.parse::<usize>().unwrap()]);
    limit.unwrap_or(Simd::Avx512)
}

#[test]
fn all_tests_pass_at_lower_levels() {
    for (index, level) in Simd::ALL.into_iter().enumerate() {
        if level >= Simd::detected() {
            continue;
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        let run = command.args(["--skip", "cpu::levels"]);
        let output = run.env(LIMIT, index.to_string()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{level}:\n{text}");
    }
}
