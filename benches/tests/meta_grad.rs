//! `benches meta-grad` as a user runs it.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "../../gtn/tests/place/mod.rs"]
mod place;

use place::{Place, json};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_benches");

/// Six steps that take two batches in turn: the same bits under every schedule, in the memory asked for.
#[test]
fn a_benchmark_measures_any_schedule() {
    let place = Place::new();
    let args = "meta-grad --setup tinymlp --data direct --steps 6 --batches 2 --repeats 1 --json";
    let with = |schedule: &str| json(&place.run(&format!("{args} --schedule {schedule}")));
    let per_step = with("per-step");
    assert_eq!(
        (&per_step["steps"], &per_step["batches"]),
        (&6.into(), &2.into())
    );
    for schedule in [
        "store-all",
        "every-2",
        "binomial-2",
        "binomial-2-prelude",
        "budget-1MiB",
        "auto",
        "lean",
    ] {
        let found = with(schedule);
        for key in ["meta_grad_sha256", "loss"] {
            assert_eq!(found[key], per_step[key], "{schedule}");
        }
        assert_eq!(found["forecast_bytes"], found["peak_bytes"]);
    }
    assert_eq!(
        with("budget-1MiB")["schedule"],
        "store-all",
        "what was chosen"
    );
    assert_ne!(
        with("window-2")["meta_grad_sha256"],
        per_step["meta_grad_sha256"]
    );
    place.fails(1, &format!("{args} --schedule budget-1KiB"), "the least is");

    let reversible = |schedule: &str| with(&format!("{schedule} --optimizer reversible-momentum"));
    let (undone, kept) = (reversible("reversible"), reversible("every-2"));
    assert_eq!(undone["meta_grad_sha256"], kept["meta_grad_sha256"]);
    assert_eq!(undone["forecast_bytes"], undone["peak_bytes"]);
    assert_eq!(undone["schedule"], "reversible-1");
    place.fails(
        1,
        &format!("{args} --schedule reversible"),
        "cannot be undone",
    );
}

/// Three learners on one generator's images: the same bits with any threads and schedule, and less memory for each.
#[test]
fn a_benchmark_of_learners_at_once_says_what_each_takes() {
    let place = Place::new();
    let args = "meta-grad --setup tiny --bn --steps 4 --repeats 1 --json";
    let with = |more: &str| json(&place.run(&format!("{args} {more}")));
    let alone = with("");
    assert_eq!(
        (&alone["learners"], &alone["learner_peak_bytes"]),
        (&1.into(), &alone["peak_bytes"])
    );
    let three = with("--at-once 3 --threads 1");
    let bytes = |found: &Value, key: &str| found[key].as_u64().unwrap();
    assert_eq!(three["forecast_bytes"], three["peak_bytes"]);
    assert_eq!(
        bytes(&three, "learner_peak_bytes"),
        bytes(&three, "peak_bytes") / 3
    );
    assert!(bytes(&three, "learner_peak_bytes") < bytes(&alone, "peak_bytes"));
    assert!(bytes(&three, "flops") < 3 * bytes(&alone, "flops"));
    assert_ne!(three["meta_grad_sha256"], alone["meta_grad_sha256"]);
    for more in [
        "--threads 2",
        "--threads 2 --schedule store-all",
        "--threads 2 --schedule binomial-1-prelude",
    ] {
        let again = with(&format!("--at-once 3 {more}"));
        assert_eq!(again["forecast_bytes"], again["peak_bytes"], "{more}");
        for key in ["meta_grad_sha256", "loss"] {
            assert_eq!(again[key], three[key], "{more}");
        }
    }
    place.fails(2, &format!("{args} --at-once 0"), "from 1 to 1024");
}
