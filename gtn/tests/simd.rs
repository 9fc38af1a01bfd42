//! Vector instructions held down on the command line.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod place;

use kernels::Simd;
use place::{Place, TINY};
use std::fs;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gtn");

#[test]
fn the_doctor_says_what_is_there_and_what_is_used() {
    let place = Place::new();
    let best = Simd::detected();
    for level in Simd::ALL {
        let args = format!("doctor --simd {level}");
        if level > best {
            place.fails(
                2,
                &args,
                &format!("--simd {level}: this processor has no {level}"),
            );
            let args = format!("{TINY} --data-dir data --simd {level}");
            place.fails(
                2,
                &args,
                &format!("--simd {level}: this processor has no {level}"),
            );
            continue;
        }
        let said = place.run(&args);
        let used = said.lines().last().unwrap();
        assert!(
            said.contains(&format!("vector instructions up to {best}\n")),
            "{said}"
        );
        assert!(
            used.contains("A run would use: CPU, ") && used.contains(&format!(", {level}")),
            "{said}"
        );
    }
    place.fails(2, "doctor --simd sse", "'sse' for '--simd");
}

/// A run has the same bits at all levels with fused multiply-adds; they are not the baseline's.
#[test]
fn runs_have_the_same_bits_at_every_level_that_fuses() {
    let place = Place::new();
    let train = |level: Simd| {
        place.run(&format!(
            "{TINY} --data-dir data --no-baseline --simd {level} --out {level}"
        ));
        fs::read(place.path(&format!("{level}/checkpoint.safetensors"))).unwrap()
    };
    let levels = Simd::ALL
        .into_iter()
        .filter(|&level| level <= Simd::detected());
    let runs: Vec<_> = levels.map(train).collect();
    for pair in runs.windows(2).skip(1) {
        assert!(pair[0] == pair[1], "avx2 and avx512 differ");
    }
    if cfg!(target_arch = "x86_64") && runs.len() > 1 {
        assert!(runs[0] != runs[1], "the baseline was not held");
    }
}
