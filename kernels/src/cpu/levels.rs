//! Tests of all vector instruction sets that this machine has: the tests of this crate run again, by
//! processes that know of fewer.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../tests/common/mod.rs"]
pub(super) mod common;

use super::simd::{Level, level};
use common::{every, run_all};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::Command;

/// Says what the best level is that a process may use.
const LIMIT: &str = "KERNELS_TEST_LIMIT";
const LEVELS: [Level; 3] = [Level::Baseline, Level::Avx2, Level::Avx512];

/// What [`LIMIT`] says, the best if nothing.
pub(super) fn limit() -> Level {
    let limit = std::env::var(LIMIT).map(|limit| LEVELS[limit.parse::<usize>().unwrap()]);
    limit.unwrap_or(Level::Avx512)
}

/// What this program writes when it runs with these arguments at a level, and succeeds.
fn rerun(limit: usize, arguments: &[&str]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(arguments).env(LIMIT, limit.to_string());
    let output = output.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{:?}:\n{text}", LEVELS[limit]);
    text
}

/// Number of levels that this machine has.
fn count() -> usize {
    LEVELS.iter().filter(|&&other| other <= level()).count()
}

#[test]
fn all_tests_pass_at_lower_levels() {
    for limit in 0..count() - 1 {
        rerun(limit, &["--skip", "cpu::levels"]);
    }
}

/// Prints the level, and a hash of the results of every kernel, the same for any number of threads.
#[test]
fn hashes() {
    println!("level: {:?}", level());
    for (name, kernel, inputs) in every::kernels() {
        let mut hasher = DefaultHasher::new();
        run_all(&kernel, &inputs).hash(&mut hasher);
        println!("hash of {name}: {:x}", hasher.finish());
    }
}

#[test]
fn levels_give_the_same_bits() {
    let mut first: BTreeMap<(String, bool), (String, Level)> = BTreeMap::new();
    for (limit, level) in LEVELS[..count()].iter().enumerate() {
        let text = rerun(limit, &["--exact", "cpu::levels::hashes", "--nocapture"]);
        assert!(text.contains(&format!("level: {level:?}")), "{text}");
        let hashes = text.lines().filter_map(|line| line.split_once("hash of "));
        let hashes = hashes.filter_map(|(_, rest)| rest.split_once(": "));
        let mut found = 0;
        for (name, hash) in hashes {
            // Contractions use fused multiply-adds, which the baseline does not have.
            let contraction = name.starts_with("conv") || name.starts_with("matmul");
            let key = (name.to_owned(), contraction && *level == Level::Baseline);
            let (expected, at) = first.entry(key).or_insert((hash.to_owned(), *level));
            assert_eq!(hash, expected, "{name}, {level:?} and {at:?}");
            found += 1;
        }
        assert_eq!(found, every::kernels().len(), "{text}");
    }
}
