//! The program on the stand-in CUDA device: see `kernels/tests/stand_in`.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../kernels/tests/stand_in/mod.rs"]
mod stand_in;

use stand_in::{StandIn, text};

#[test]
fn the_selftest_passes_and_the_doctor_knows_the_device() {
    let Some(device) = StandIn::build() else {
        return;
    };
    let gtn = |args: &str| {
        let output = device
            .command(env!("CARGO_BIN_EXE_gtn"))
            .args(args.split(' '))
            .output();
        let output = output.unwrap();
        (output.status.success(), text(&output))
    };
    let (success, said) = gtn("doctor");
    assert!(
        success && said.contains("A run would use: CUDA, CUDA on CPU, tf32"),
        "{said}"
    );
    let (success, said) = gtn("selftest --device cuda --precision fp32");
    assert!(success && said.contains(" checks passed"), "{said}");
}
