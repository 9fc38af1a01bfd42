//! The program on the stand-in CUDA device: see `kernels/tests/stand_in`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod place;
#[path = "../../kernels/tests/stand_in/mod.rs"]
mod stand_in;

use gtn::data::Dataset;
use gtn::outer::meta::MetaTrainer;
use gtn::run::config::{Config, Preset};
use kernels::{Device, Precision};
use place::{Place, TINY};
use stand_in::{StandIn, text};
use std::path::Path;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gtn");

fn run(device: &StandIn, args: &str, settings: &[(&str, &str)]) -> (bool, String) {
    let mut command = device.command(PROGRAM);
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
    let (success, said) = train(&sizes.replace("store-all", "auto"), 110);
    assert!(!success && said.contains("no schedule would fit"), "{said}");
    let (success, said) = train(sizes, 110);
    assert!(!success && said.contains("no schedule would fit"), "{said}");
}

/// Without a library, with one that is none, with one that has no functions, and with drivers that do not serve.
#[test]
fn where_no_device_can_be_used_the_processor_computes() {
    let folder = |name: &str| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    };
    let computes = |library_path: &Path, settings: &[(&str, &str)], why: &str| {
        let place = Place::new();
        let args = format!("{TINY} --data-dir data --outer-steps 1 --learners 1 --device auto");
        let output = place
            .command(PROGRAM, &args)
            .env("LD_LIBRARY_PATH", library_path)
            .envs(settings.iter().copied())
            .output()
            .unwrap();
        let said = text(&output);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("Device: CPU") && said.contains(why), "{said}");
        assert!(said.contains("meta-loss"), "{said}");
    };
    let no_library = folder("gtn-garbage-driver");
    std::fs::write(no_library.join("libcuda.so.1"), "this is no library").unwrap();
    computes(&no_library, &[], "no usable CUDA device: ");
    let Some(device) = StandIn::build() else {
        return;
    };
    let no_functions = folder("gtn-broken-driver");
    std::fs::copy(
        device.folder().join("libkernels.so"),
        no_functions.join("libcuda.so.1"),
    )
    .unwrap();
    computes(&no_functions, &[], "the CUDA driver library is broken");
    for (setting, value, why) in [
        ("CUDA_ON_CPU_INIT", "100", "there is no device"),
        ("CUDA_ON_CPU_INIT", "34", "it is the toolkit's stub"),
        ("CUDA_ON_CPU_VERSION", "11080", "12.0 is needed"),
    ] {
        computes(device.folder(), &[(setting, value)], why);
    }
}

/// Say how many outer steps the child process takes, and with learners of which widths.
const OUTER_STEPS: &str = "TEST_OUTER_STEPS";
const WIDTHS: &str = "TEST_WIDTHS";

fn tiny(widths: &str) -> Config {
    Config {
        inner_steps: 3,
        inner_batch: 4,
        outer_batch: 4,
        noise: 3,
        generator_hidden: 4,
        generator_channels: [2, 1],
        widths: widths.parse().unwrap(),
        ..Config::preset(Preset::Quick)
    }
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn outer_steps() {
    let config = tiny(&std::env::var(WIDTHS).unwrap());
    let device = Device::cuda(0, Precision::Fp32).unwrap();
    let data = Dataset::drawn(1, [200, 50, 50]);
    let mut trainer = MetaTrainer::new(&device, &config, data.problem()).unwrap();
    let steps = std::env::var(OUTER_STEPS).map_or(1, |steps| steps.parse().unwrap());
    for _ in 0..steps {
        trainer.step(&data).unwrap();
    }
}

/// Losses and norm are read: the host waits for the first, and then the other is there, too. Structures that come back find their plans,
/// and all of them room in the memory of the widest.
#[test]
fn an_outer_step_reads_twice_and_allocates_nothing() {
    let Some(device) = StandIn::build() else {
        return;
    };
    let counts = |widths: &str, steps: &str| {
        let settings = [
            (WIDTHS, widths),
            (OUTER_STEPS, steps),
            ("CUDA_ON_CPU_COUNT", "1"),
        ];
        let said = text(&device.run(&["outer_steps"], &settings));
        let line = said.lines().find_map(|l| l.strip_prefix("cuda_on_cpu: "));
        let line = line.unwrap_or_else(|| panic!("{said}"));
        let counts: Vec<u32> = line
            .split(", ")
            .map(|part| part.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        <[u32; 3]>::try_from(counts).unwrap()
    };
    for (widths, steps) in [("2,2,4", ["2", "5"]), ("2-4/2,2,4", ["9", "12"])] {
        let [[waits, allocations, graphs], most] = steps.map(|steps| counts(widths, steps));
        assert_eq!(most, [waits + 3 * 2, allocations, graphs], "{widths}");
    }
}

#[test]
#[ignore = "an ordinary test runs it in a child process on a CUDA device: see `stand_in`"]
fn learners_of_many_structures() {
    let (config, data) = (tiny("2-5,2-3,4"), Dataset::drawn(1, [200, 50, 50]));
    let cuda = Device::cuda(0, Precision::Fp32).unwrap();
    let [found, expected] = [cuda, Device::cpu(Some(1)).unwrap()].map(|device| {
        let mut trainer = MetaTrainer::new(&device, &config, data.problem()).unwrap();
        let steps = (0..6).map(|_| trainer.step(&data).unwrap());
        steps.collect::<Vec<_>>()
    });
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.widths, expected.widths);
        let off = (found.meta_loss - expected.meta_loss).abs();
        assert!(off < 1e-3 * expected.meta_loss, "{found:?} {expected:?}");
    }
}

/// Their plans are made by another thread, while the device works.
#[test]
fn plans_made_ahead_are_those_of_the_next_learners() {
    if let Some(device) = StandIn::build() {
        device.pass(&["learners_of_many_structures"], &[]);
    }
}
