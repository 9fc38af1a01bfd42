//! Runs the unit tests of this crate again at every lower level of vector instructions that this machine has.
//! Each level has a process of its own, which detects no better one.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../tests/common/mod.rs"]
pub(super) mod common;

use super::simd::{LIMIT, Simd};
use std::process::Command;

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
