//! Memory of meta-gradients: what was forecast, near the least possible, and less for leaner ways.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use autograd::optim::Optimizer;
use autograd::{Horizon, Planned, Schedule, Unroll};
use benches::{DataKind, Problem, Setup};
use kernels::Device;
use serde_json::Value;
use std::process::Command;
use tensor::DType;

const MIB: u64 = 1 << 20;

/// What the program takes from the system for a meta-gradient is what the plans said, and a little for the plans
/// themselves; with any number of inner steps.
#[test]
fn the_process_takes_what_was_forecast() {
    let peaks = [["4", "1"], ["64", "1"], ["4", "3"]].map(|[steps, learners]| {
        let output = Command::new(env!("CARGO_BIN_EXE_benches"))
            .args("meta-grad --setup C --data direct --repeats 2 --threads 1 --json".split(' '))
            .args(["--steps", steps, "--at-once", learners])
            .output()
            .unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let number = |key: &str| told[key].as_u64().unwrap();
        assert_eq!(number("peak_bytes"), number("forecast_bytes"));
        [number("forecast_bytes"), number("peak_process_bytes")]
    });
    for [forecast, process] in peaks {
        assert!(process <= forecast + 4 * MIB, "{process} of {forecast}");
    }
}

/// The arena of every plan is what is alive at its fullest launch, and at most a twentieth more.
#[test]
fn arenas_are_close_to_the_least() {
    let device = Device::cpu(Some(1)).unwrap();
    for name in Setup::NAMES {
        for (data, label) in [(DataKind::Gen, "gen"), (DataKind::Direct, "direct")] {
            let setup = Setup::parse(name, false).unwrap();
            let problem = Problem {
                steps: 1,
                rows: 1,
                batch: setup.batch,
                learners: 1,
                data,
                optimizer: Optimizer::Momentum,
                dtype: DType::F32,
                setup,
            };
            let horizon = Horizon::new(1);
            let stored = horizon.clone().schedule(Schedule::store_all());
            for horizon in [horizon, stored] {
                let unroll = Unroll::new(&device, &problem.training(), &horizon).unwrap();
                for phase in unroll.phases() {
                    let (plan, p) = (phase.name, phase.plan);
                    let (arena, least) = (p.arena_bytes(), p.least_bytes());
                    println!("{name} {label} {plan}: {arena} of {least}");
                    assert!(
                        20 * arena <= 21 * least,
                        "{name} {label} {plan}: {arena} of {least}"
                    );
                }
            }
        }
    }
}

/// Of a step that is advanced again no more is kept than its images, and no more is left than the learner's work.
#[test]
fn the_prelude_of_a_gtn_is_its_images() {
    for name in Setup::NAMES {
        for learners in [1, 2] {
            let phase = |data, schedule, phase: &str| {
                let setup = Setup::parse(name, false).unwrap();
                let problem = Problem {
                    steps: 3,
                    rows: 3,
                    batch: setup.batch,
                    learners,
                    data,
                    optimizer: Optimizer::Momentum,
                    dtype: DType::F32,
                    setup,
                };
                let planned =
                    Planned::new(&problem.training(), &Horizon::new(3).schedule(schedule));
                let planned = planned.unwrap();
                let phases = planned.phases();
                let plan = phases.iter().find(|p| p.name == phase).unwrap().plan;
                let contractions = plan.kernels().filter(|(kernel, _)| {
                    let name = kernel.name();
                    name.starts_with("conv") || name.starts_with("matmul")
                });
                let contractions: Vec<&str> = contractions.map(|(k, _)| k.name()).collect();
                (
                    contractions,
                    planned.forecast().snapshot_bytes,
                    problem.batch,
                )
            };
            let plain = Schedule::binomial(1);
            let (all, without, batch) = phase(DataKind::Gen, plain, "inner step");
            let with = Schedule::binomial(1).with_prelude();
            let (left, bytes, _) = phase(DataKind::Gen, with, "inner step, prelude given");
            let (learner, ..) = phase(DataKind::Direct, plain, "inner step");
            assert_eq!(left, learner, "{name} {learners}");
            assert!(left.len() < all.len());
            // One step of three is advanced again.
            let images = (batch * 28 * 28 * 4usize).next_multiple_of(64);
            assert_eq!(bytes - without, images, "{name} {learners}");
        }
    }
}

/// Four ways to the same gradient of a deep learner; each takes less memory than the one before.
#[test]
fn a_deep_learner_takes_less_and_less() {
    let output = Command::new(env!("CARGO_BIN_EXE_benches"))
        .args("depth --blocks 12 --width 16 --batch 256 --segments 4 --repeats 1".split(' '))
        .args("--threads 1 --columns 1,2,3,4 --json".split(' '))
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let columns = told["columns"].as_array().unwrap();
    assert_eq!(columns.len(), 4);
    for pair in columns.windows(2) {
        let [before, after] = [&pair[0], &pair[1]];
        let bytes = |column: &Value| column["forecast_bytes"].as_u64().unwrap();
        assert!(bytes(after) < bytes(before), "{before} {after}");
        assert_eq!(before["loss"], after["loss"]);
        let norm = |column: &Value| column["rate_grad_norm"].as_f64().unwrap();
        assert!((norm(before) / norm(after) - 1.0).abs() < 1e-5);
    }
    assert_eq!(columns[2]["rate_grad_norm"], columns[3]["rate_grad_norm"]);
}
