//! The commands that plan, measure and draw, as a user runs them.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

#[path = "../../gtn/tests/place/mod.rs"]
mod place;

use autograd::optim::Optimizer;
use autograd::{Horizon, Planned, Policy};
use benches::{DataKind, Problem, Setup};
use kernels::host_free_bytes;
use place::{Place, json, text};
use serde_json::Value;
use std::fs;
use std::path::Path;
use tensor::DType;

const PROGRAM: &str = env!("CARGO_BIN_EXE_benches");

const TINY_MLP: &str = "--setup tinymlp --data direct --steps 6";

/// Every phase and every schedule of `benches plan` is what the library plans.
#[test]
fn a_plan_says_what_the_forecast_says() {
    let place = Place::new();
    let found = json(&place.run(&format!(
        "plan {TINY_MLP} --batches 2 --schedule every-2 --json"
    )));
    let problem = Problem {
        setup: Setup::parse("tinymlp", false).unwrap(),
        steps: 6,
        rows: 2,
        batch: 5,
        learners: 1,
        optimizer: Optimizer::Momentum,
        data: DataKind::Direct,
        dtype: DType::F32,
    };
    let training = problem.training();
    let planned = |schedule: &str| {
        let horizon = Horizon::new(problem.steps)
            .schedule(schedule.parse::<Policy>().unwrap())
            .free_bytes(host_free_bytes());
        Planned::new(&training, &horizon).unwrap()
    };
    let asked = planned("every-2");
    assert_eq!(found["schedule"], "every-2");
    assert_eq!(found["bytes"], asked.forecast().bytes);
    let phases = found["phases"].as_array().unwrap();
    assert_eq!(phases.len(), asked.phases().len());
    for (found, phase) in phases.iter().zip(asked.phases()) {
        let (plan, peak) = (phase.plan, phase.plan.peak());
        assert_eq!(found["phase"], phase.name);
        assert_eq!(found["runs"], phase.runs);
        assert_eq!(found["launches"], plan.launches());
        assert_eq!(found["flops"], plan.flops());
        assert_eq!(found["bytes_moved"], plan.bytes_moved());
        assert_eq!(found["arena_bytes"], plan.arena_bytes());
        assert_eq!(found["least_bytes"], plan.least_bytes());
        assert_eq!(found["peak_launch"], peak.launch);
        assert_eq!(found["held"][0]["bytes"], peak.held[0].bytes);
    }
    let rows = found["schedules"].as_array().unwrap();
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row["schedule"].as_str().unwrap())
        .collect();
    for name in [
        "store-all",
        "per-step",
        "every-2",
        "binomial-4",
        "auto",
        "lean",
    ] {
        assert!(names.contains(&name), "{name} among {names:?}");
    }
    assert!(names.iter().any(|name| name.starts_with("budget-")));
    for (row, name) in rows.iter().zip(names) {
        let planned = planned(name);
        let forecast = planned.forecast();
        assert_eq!(row["chosen"], planned.schedule().to_string());
        assert_eq!(row["bytes"], forecast.bytes);
        assert_eq!(row["evaluations"], forecast.evaluations);
        assert_eq!(row["flops"], forecast.flops);
        assert!(row["seconds"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_training_can_be_planned_and_profiled_too() {
    let place = Place::new();
    place.write(
        "settings.toml",
        b"inner_steps = 3\nschedule = \"store-all\"",
    );
    let small = "--inner-batch 10 --outer-batch 20 --widths 2,3,4 --noise 4 --generator-hidden 8 \
        --generator-channels 3,2 --threads 1";
    let planned = json(&place.run(&format!("plan --config settings.toml {small} --json")));
    let profiled = json(&place.run(&format!(
        "profile --config settings.toml {small} --repeats 1 --json"
    )));
    for found in [&planned, &profiled] {
        assert_eq!(found["schedule"], "store-all");
        assert!(
            found["subject"].as_str().unwrap().contains("T = 3, B = 10"),
            "{found}"
        );
        let kept = found["phases"].as_array().unwrap().iter();
        let kept = kept.filter(|phase| phase["phase"] == "inner step, kept");
        assert_eq!(kept.map(|phase| &phase["runs"]).collect::<Vec<_>>(), [3]);
    }
    assert!(!place.path("runs").exists(), "nothing was begun");
    let of = |data: &str| {
        let args = format!("plan --config settings.toml {small} --dataset {data} --json");
        json(&place.run(&args))
    };
    let colour = of("cifar-10");
    let subject = colour["subject"].as_str().unwrap();
    assert!(
        subject.contains("10 classes of 32×32 colour images"),
        "{subject}"
    );
    assert_ne!(colour["bytes"], planned["bytes"]);
    let grey = of("cifar-10 --resize 28 --channels grey");
    assert_eq!(grey["bytes"], planned["bytes"]);
}

fn shares(parts: &Value) -> f64 {
    let parts = parts.as_array().unwrap().iter();
    parts.map(|part| part["share"].as_f64().unwrap()).sum()
}

#[test]
fn a_profile_accounts_for_all_time_and_its_trace_is_nested() {
    let place = Place::new();
    let args = "profile --setup tiny --steps 2 --repeats 1";
    let found = json(&place.run(&format!("{args} --trace trace.json --json")));
    assert!((shares(&found["kinds"]) - 1.0).abs() < 1e-6, "{found}");
    for phase in found["phases"].as_array().unwrap() {
        let share = phase["share"].as_f64().unwrap();
        assert!((shares(&phase["kinds"]) - share).abs() < 1e-6, "{phase}");
    }
    let of_alone = found["of_alone"].as_f64().unwrap();
    let outside = found["outside_contractions"].as_f64().unwrap();
    let inside = shares(&found["contractions"]);
    assert!(
        of_alone > 0.0 && (inside + outside - 1.0).abs() < 1e-6,
        "{found}"
    );
    let launches = |of: &dyn Fn(&str) -> bool, name: &str, parts: &Value| -> u64 {
        let parts = parts.as_array().unwrap().iter();
        let parts = parts.filter(|part| of(part[name].as_str().unwrap()));
        parts.map(|part| part["launches"].as_u64().unwrap()).sum()
    };
    // Pairs, which tangents are made of, are contractions as well.
    for family in ["matmul", "matmul-pair", "conv", "conv-pair"] {
        let of = |name: &str| {
            name.starts_with(family) && name.ends_with("pair") == family.ends_with("pair")
        };
        let all = launches(&of, "kind", &found["kinds"]);
        assert!(
            all > 0 && all == launches(&of, "kernel", &found["contractions"]),
            "{family}: {found}"
        );
    }
    let all = launches(&|_| true, "kind", &found["kinds"]);
    check_trace(&place.path("trace.json"), all as usize, 2);
}

/// Launches lie in phases one after another, and phases in the meta-gradient.
fn check_trace(path: &Path, launches: usize, steps: usize) {
    let trace: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |kind: &str| -> Vec<&Value> {
        events.iter().filter(|event| event["cat"] == kind).collect()
    };
    let span = |event: &Value| {
        let (begin, time) = (
            event["ts"].as_f64().unwrap(),
            event["dur"].as_f64().unwrap(),
        );
        (begin, begin + time)
    };
    let whole = span(of("meta-gradient")[0]);
    // Nanoseconds in microseconds: the third digit behind the point is the last.
    let inside =
        |(begin, end): (f64, f64), (from, to): (f64, f64)| begin > from - 1e-4 && end < to + 1e-4;
    let phases = of("phase");
    for name in ["inner step", "backward"] {
        let named = phases.iter().filter(|event| event["name"] == name);
        let mut at: Vec<u64> = named
            .map(|event| event["args"]["step"].as_u64().unwrap())
            .collect();
        at.sort_unstable();
        assert_eq!(at, (0..steps as u64).collect::<Vec<_>>(), "{name}");
    }
    let all = of("launch");
    let mut from = whole.0;
    for phase in &phases {
        assert!(inside(span(phase), (from, whole.1)), "{phase}");
        from = span(phase).1;
    }
    let mut rest = all.iter();
    for phase in &phases {
        let mut from = span(phase).0;
        for _ in 0..phase["args"]["launches"].as_u64().unwrap() {
            let launch = rest.next().unwrap();
            assert!(
                inside(span(launch), (from, span(phase).1)),
                "{launch} in {phase}"
            );
            assert!(launch["args"]["flops"].is_u64() && launch["args"]["bytes"].is_u64());
            assert!(launch["args"]["shape"].is_array());
            from = span(launch).1;
        }
    }
    assert_eq!((rest.count(), all.len()), (0, launches));
}

/// Ours and a peer's, that is read and that is run, in one table and one picture.
#[test]
fn a_sweep_writes_a_table_and_curves() {
    let place = Place::new();
    let line = |mode: &str, steps: usize| {
        format!(
            "{{\"framework\": \"jax\", \"setup\": \"tinymlp\", \"data\": \"direct\", \"bn\": false, \
             \"mode\": \"{mode}\", \"T\": {steps}, \"batch\": 5, \"dtype\": \"float32\", \"threads\": 1, \
             \"median_s\": 0.5, \"min_s\": 0.25, \"peak_mb\": 2.0, \"loss\": 1.5}}\n"
        )
    };
    let other = line("naive", 2).replace("tinymlp", "C");
    fs::create_dir(place.path("peers")).unwrap();
    place.write(
        "peers/jax.jsonl",
        format!("{}{}{other}", line("naive", 2), line("naive", 4)).as_bytes(),
    );
    place.write("peers/notes.txt", b"no JSON");
    place.write("said", line("remat", 2).as_bytes());
    // A peer's program finds its file behind --json, at the end.
    // By then the points before it are on the disk.
    place.write(
        "peer.sh",
        b"for last; do :; done; test -s results/tinymlp-direct.csv && cat said > $last",
    );
    let mut command = place.command(
        PROGRAM,
        "sweep --setup tinymlp --data direct --steps 2,4 --schedules per-step,store-all --threads 1 --repeats 1 \
         --peers peers --out results --note quiet",
    );
    let output = command.args(["--beside", "sh peer.sh"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));

    let table = fs::read_to_string(place.path("results/tinymlp-direct.csv")).unwrap();
    let mut lines = table.lines();
    let head: Vec<&str> = lines.next().unwrap().split(',').collect();
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    // Behind the schedule stand batch and steps.
    let at = |row: &Vec<&str>| [0, 1, 2, 4].map(|column| row[column]).join(" ");
    let names: Vec<String> = rows.iter().map(at).collect();
    let expected = [
        "gtn mixed per-step 2",
        "gtn mixed per-step 4",
        "gtn mixed store-all 2",
        "gtn mixed store-all 4",
        "jax naive  2",
        "jax naive  4",
        "jax remat  2",
        "jax remat  2",
    ];
    assert_eq!(names, expected);
    assert!(rows.iter().all(|row| row.len() == head.len()));
    let record: Value =
        serde_json::from_slice(&fs::read(place.path("results/tinymlp-direct.json")).unwrap())
            .unwrap();
    let points = record["points"].as_array().unwrap();
    assert_eq!(points.len(), rows.len());
    assert_eq!(record["note"], "quiet");
    assert_eq!(record["settings"]["at_once"], 1);
    let alone = json(&place.run(&format!(
        "meta-grad {TINY_MLP} --steps 2 --schedule store-all --threads 1 --repeats 1 --json"
    )));
    assert_eq!(points[2]["engine_bytes"], alone["peak_bytes"]);
    assert_eq!(points[2]["loss"], alone["loss"]);
    assert_eq!(points[4]["process_bytes"], 2 << 20);
    let drawn = fs::read_to_string(place.path("results/tinymlp-direct.svg")).unwrap();
    for name in [
        "gtn per-step",
        "gtn store-all",
        "jax naive",
        "jax remat",
        "inner steps T",
    ] {
        assert!(drawn.contains(name), "{name}");
    }
}

#[test]
fn a_sweep_of_other_settings_has_another_name() {
    let place = Place::new();
    place.run(
        "sweep --setup tinymlp --data direct --steps 2 --schedules per-step --threads 1 --repeats 1 --out results \
         --batch 7 --at-once 2 --dtype f64 --optimizer reversible-momentum",
    );
    let name = "results/tinymlp-direct-batch-7-at-once-2-f64-reversible-momentum";
    let record = fs::read(place.path(&format!("{name}.json"))).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    let settings = &record["settings"];
    assert_eq!(
        (&settings["at_once"], &settings["dtype"]),
        (&2.into(), &"f64".into())
    );
    let title = "Set-up tinymlp, direct, batch-7, at-once-2, f64, reversible-momentum";
    assert_eq!(record["title"], title);
    assert!(!place.path("results/tinymlp-direct.json").exists());
}

/// Depth and width each in a record of their own, beside a peer that is run.
#[test]
fn a_sweep_over_depth_or_width_does_too() {
    let place = Place::new();
    place.write(
        "peer.sh",
        b"for last; do :; done; all=\"$*\"; echo ${all%% --json*} >> asked; echo '{\"framework\": \"jax\", \"mode\": \"remat\", \
        \"threads\": 1, \"median_s\": 0.5, \"min_s\": 0.25, \"peak_mb\": 2.0, \"loss\": 1.5}' > $last",
    );
    for (over, other) in [("blocks", "width 6"), ("width", "3 blocks")] {
        let mut command = place.command(
            PROGRAM,
            &format!(
                "depth-sweep --over {over} --values 2,4 --blocks 3 --width 6 --batch 5 --segments 2 \
                 --columns 1,4 --threads 1 --repeats 1 --out results"
            ),
        );
        let output = command.args(["--beside", "sh peer.sh"]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let name = format!("results/deep-{over}");
        let table = fs::read_to_string(place.path(&format!("{name}.csv"))).unwrap();
        let mut lines = table.lines();
        let head: Vec<&str> = lines.next().unwrap().split(',').collect();
        let at = head.iter().position(|column| *column == over).unwrap();
        let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
        let named = rows.iter().map(|row| (row[0], row[1], row[at]));
        let (blocks, stored) = ("+ block remat", "stored reverse over reverse");
        let expected = [
            ("gtn", blocks, "2"),
            ("gtn", blocks, "4"),
            ("gtn", stored, "2"),
            ("gtn", stored, "4"),
            ("jax", "remat", "2"),
            ("jax", "remat", "4"),
        ];
        assert_eq!(named.collect::<Vec<_>>(), expected);
        assert!(rows.iter().all(|row| row.len() == head.len()));
        let loss = head.iter().position(|column| *column == "loss").unwrap();
        assert_eq!(rows[0][loss], rows[2][loss], "one gradient in two ways");
        assert_ne!(rows[0][loss], rows[1][loss], "another learner");
        let drawn = fs::read_to_string(place.path(&format!("{name}.svg"))).unwrap();
        assert!(drawn.contains("gtn + block remat") && drawn.contains("jax remat"));
        assert!(drawn.contains(other), "{drawn}");
    }
    let asked = fs::read_to_string(place.path("asked")).unwrap();
    let sizes = "--batch 5 --steps 2 --threads 1 --repeats 1";
    let line = |blocks, width| format!("--blocks {blocks} --width {width} {sizes}");
    let expected = [line(2, 6), line(4, 6), line(3, 2), line(3, 4)];
    assert_eq!(asked.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn cotangents_are_told() {
    let place = Place::new();
    let args = format!("meta-grad {TINY_MLP} --repeats 1 --json");
    let found = json(&place.run(&format!("{args} --cotangents")));
    let norms = found["cotangent_norms"].as_array().unwrap();
    assert_eq!(norms.len(), 7);
    assert!(norms.iter().all(|norm| norm.as_f64().unwrap() > 0.0));
    assert!(json(&place.run(&args))["cotangent_norms"].is_null());
}

#[test]
fn measurements_that_make_no_sense_are_refused() {
    let place = Place::new();
    place.write("odd.jsonl", b"{}");
    for (args, words) in [
        ("plan --setup D", "'D' for '--setup"),
        (
            "plan --setup C --inner-steps 3",
            "of a set-up: unexpected argument '--inner-steps'",
        ),
        (
            "plan --setup C --config x.toml",
            "--config and --preset are for a training",
        ),
        ("plan --steps 3", "--steps is for a set-up"),
        ("plan --setup C --schedule all", "unknown schedule `all`"),
        ("plan --inner-batch 0", "0 is not in 1..=1048576"),
        ("profile --setup tiny --repeats 0", "--repeats"),
        (
            "meta-grad --steps 18446744073709551615",
            "not in 0..=1048576",
        ),
        ("meta-grad --batch 1000000000", "not in 0..=1048576"),
        ("meta-grad --batches 1048577", "not in 0..=1048576"),
        ("meta-grad --repeats 1048577", "not in 1..=1048576"),
        ("plan --setup tiny --steps 1000000000", "not in 1..=1048576"),
        (
            "plan --setup tiny --batch 9223372036854775808",
            "not in 0..=",
        ),
        (
            "profile --repeats 18446744073709551615",
            "not in 1..=1048576",
        ),
        ("sweep --steps 2,1048577", "not in 1..=1048576"),
        ("meta-grad --setup D", "'D' for '--setup"),
        ("sweep --setup tiny", "--steps"),
        ("sweep --steps 2,x", "'x' for '--steps"),
        (
            "sweep --setup tinymlp --steps 2 --at-once 2 --beside jax:naive",
            "so --at-once cannot be given",
        ),
        (
            "sweep --setup tinymlp --steps 2 --batches 1 --beside jax:naive",
            "so --batches cannot be given",
        ),
        (
            "sweep --setup tinymlp --steps 2 --optimizer reversible-momentum --peers odd.jsonl",
            "so --optimizer cannot be given",
        ),
        (
            "plan --dataset odd.jsonl",
            "the images of odd.jsonl are not looked at here",
        ),
        ("depth-sweep --over depth --values 2", "'depth' for '--over"),
        (
            "depth-sweep --over blocks --values 2,0",
            "'0' for '--values",
        ),
        ("sweep --steps 2 --schedules all", "unknown schedule `all`"),
    ] {
        place.fails(2, args, words);
    }
    for (args, words) in [
        (
            "profile --setup tiny --steps 1 --repeats 1 --trace none/x.json",
            "none/x.json",
        ),
        ("plan --setup C --schedule budget-1KiB", "the least is"),
        (
            "meta-grad --setup tiny --steps 1048576 --batch 1048576",
            "the values of this training take",
        ),
        (
            "depth --blocks 8 --width 1048576",
            "the values of this training take",
        ),
        (
            "sweep --setup tiny --steps 2 --peers odd.jsonl",
            "odd.jsonl, line 1: not of a peer",
        ),
        (
            "sweep --setup tiny --steps 2 --peers none",
            "cannot read none",
        ),
    ] {
        place.fails(1, args, words);
    }
}
