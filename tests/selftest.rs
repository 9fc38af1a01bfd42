//! The program on the stand-in CUDA device: see `kernels/tests/stand_in`.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../kernels/tests/stand_in/mod.rs"]
mod stand_in;

use stand_in::{StandIn, text};

fn run(device: &StandIn, args: &str, settings: &[(&str, &str)]) -> (bool, String) {
    let mut command = device.command(env!("CARGO_BIN_EXE_gtn"));
    let output = command
        .args(args.split(' '))
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    (output.status.success(), text(&output))
}

#[test]
fn the_selftest_passes_and_the_doctor_knows_the_device() {
    let Some(device) = StandIn::build() else {
        return;
    };
    let gtn = |args: &str| run(&device, args, &[]);
    let (success, said) = gtn("doctor");
    assert!(
        success && said.contains("A run would use: CUDA, CUDA on CPU, tf32"),
        "{said}"
    );
    let (success, said) = gtn("selftest --device cuda --precision fp32");
    assert!(success && said.contains(" checks passed"), "{said}");
}

#[test]
fn a_run_that_does_not_fit_says_which_schedule_would() {
    let Some(device) = StandIn::build() else {
        return;
    };
    let train = |args: &str, mib: usize| {
        let memory = (mib << 20).to_string();
        let args = format!("train --device cuda --dataset embedded --outer-steps 1 {args}");
        run(&device, &args, &[("CUDA_ON_CPU_MEMORY", &memory)])
    };
    let sizes = "--inner-steps 64 --inner-batch 256 --schedule store-all";
    let (success, said) = train(sizes, 400);
    assert!(!success && said.contains("--schedule budget-"), "{said}");
    let (success, said) = train(sizes, 60);
    assert!(!success && said.contains("no schedule would fit"), "{said}");
}
