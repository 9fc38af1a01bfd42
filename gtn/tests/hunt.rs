//! Searches from the command line: killed at any time, resumed, on any number of threads, with networks that fail.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod place;

use place::{Place, TINY, json, text};
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gtn");

/// A run of tiny networks.
fn with_run(space: &str) -> Place {
    let place = Place::new();
    let tiny = TINY.replace("--widths 2,3,4", &format!("--learner {space}"));
    place.run(&format!(
        "{tiny} --data-dir data --out run --no-baseline --learners 1 --outer-steps 1"
    ));
    place
}

/// The results on the disk; the last line may have been cut off by a kill.
fn entries(place: &Place, folder: &str) -> Vec<(String, String)> {
    let text =
        fs::read_to_string(place.path(&format!("{folder}/results.jsonl"))).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let entry = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        (
            line["network"].as_str().unwrap().to_owned(),
            line["source"].as_str().unwrap().to_owned(),
        )
    };
    whole.lines().map(entry).collect()
}

fn wait_for(what: impl Fn() -> bool) {
    let begin = Instant::now();
    while !what() {
        assert!(begin.elapsed() < Duration::from_mins(2), "it never came");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_search_can_be_killed_at_any_time() {
    let place = with_run("nasbench201,channels=2,cells=1");
    let args = "search run --strategy evolution --images 20 --data-dir data --out killed";
    let mut before: Vec<(String, String)> = Vec::new();
    for kill in 0..50u64 {
        let endless = format!("{args} --networks 10000 --workers {}", kill % 3 + 1);
        let mut child = place.start(&endless);
        // Some die while they read what is there, others in the middle of their work, also on a busy machine.
        if kill % 2 == 1 {
            wait_for(|| entries(&place, "killed").len() > before.len());
        }
        sleep(Duration::from_millis(kill * 37 % 100));
        let ended = child.try_wait().unwrap();
        assert!(
            ended.is_none(),
            "kill {kill}: it ended by itself: {}",
            text(&child.wait_with_output().unwrap().stderr)
        );
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        let now = entries(&place, "killed");
        assert_eq!(now[..before.len()], before, "kill {kill}: a result is lost");
        assert_eq!(
            now.iter().collect::<HashSet<_>>().len(),
            now.len(),
            "kill {kill}: a result is there twice"
        );
        before = now;
    }
    assert!(before.len() >= 25);
    let goal = before.len() + 6;
    place.run(&format!("{args} --networks {goal} --workers 2"));
    let all = entries(&place, "killed");
    assert_eq!(all[..before.len()], before);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    assert_eq!(
        all.iter().filter(|(_, source)| source == "gtn").count(),
        goal
    );
    // What was never killed, on one thread, finds the same.
    place.run(
        &format!("{args} --networks {goal} --workers 1 --out whole").replace("--out killed ", ""),
    );
    let csv =
        |folder: &str| fs::read_to_string(place.path(&format!("{folder}/results.csv"))).unwrap();
    assert_eq!(csv("killed"), csv("whole"));
    assert_eq!(csv("whole").lines().count(), goal + 1);
}

#[test]
fn the_best_networks_are_trained_on_all_images_at_the_end() {
    let place = with_run("nasbench201,channels=2,cells=1");
    let args =
        "search run --images 20 --data-dir data --networks 5 --fit-epochs 2 --json --out found";
    let column = |found: &Value, name: &str| -> Vec<Value> {
        let top = found["top"].as_array().unwrap().iter();
        top.map(|best| best[name].clone()).collect()
    };
    let ranked = json(&place.run(args));
    assert_eq!(column(&ranked, "fitted"), vec![Value::Null; 5]);
    let found = json(&place.run(&format!("{args} --fit 3")));
    let (names, before) = (column(&found, "network"), column(&ranked, "network"));
    let fitted = column(&found, "fitted");
    let accuracies: Vec<f64> = fitted[..3].iter().map(|x| x.as_f64().unwrap()).collect();
    assert!(accuracies.is_sorted_by(|a, b| a >= b), "{accuracies:?}");
    assert_eq!(fitted[3..], [Value::Null, Value::Null]);
    assert_eq!(names[3..], before[3..]);
    let set = |names: &[Value]| names.iter().map(Value::to_string).collect::<HashSet<_>>();
    assert_eq!(set(&names[..3]), set(&before[..3]));

    // So does the command for one network.
    let best = names[0].as_str().unwrap();
    let fit = json(&place.run(&format!(
        "fit {best} --dataset mnist --data-dir data --epochs 2 --batch 50 --json --out fitted"
    )));
    assert_eq!(fit["validation_accuracy"], fitted[0]);

    let results = entries(&place, "found");
    let again = json(&place.run(&format!("{args} --fit 3")));
    assert_eq!(again["top"], found["top"]);
    assert_eq!(entries(&place, "found"), results, "nothing twice");

    // What else was trained in the folder does not count.
    let one = json(&place.run(&format!("{args} --fit 1")));
    assert_eq!(column(&one, "network"), before);
    let trained = column(&one, "fitted");
    assert_eq!(trained.iter().filter(|x| !x.is_null()).count(), 1);
    assert!(!trained[0].is_null());
    assert_eq!(entries(&place, "found"), results);
}

#[test]
fn every_strategy_ranks_and_spends_what_it_may() {
    let place = with_run("nasbench201,channels=2,cells=1");
    let search = |more: &str| {
        let args = format!("search run --images 20 --data-dir data --json --out found {more}");
        json(&place.run(&args))
    };
    let random = search("--networks 6 --estimator gtn+structure");
    assert_eq!(
        (&random["networks"], &random["failed"]),
        (&6.into(), &0.into())
    );
    let estimates: Vec<f64> = random["top"]
        .as_array()
        .unwrap()
        .iter()
        .map(|best| best["estimate"].as_f64().unwrap())
        .collect();
    assert!(
        estimates.len() == 6 && estimates.is_sorted_by(|a, b| a >= b),
        "{estimates:?}"
    );
    assert!(random["top"][0]["latency_ms"].as_f64().unwrap() > 0.0);
    let name = random["top"][0]["network"].as_str().unwrap().to_owned();
    assert!(name.starts_with("nasbench201,channels=2,cells=1:"));
    place.run(&format!("learner {name}"));
    // Another seed finds others, in the same folder; a budget of steps is kept to.
    let other = search("--networks 6 --seed 2");
    assert_ne!(random["top"], other["top"]);
    assert_eq!(search("--networks 50 --inner-steps 10")["networks"], 5);
    // Two inner steps: an eighth and a quarter of them are one, as is a half.
    let halving = search("--networks 8 --strategy halving --seed 3");
    assert_eq!(halving["networks"], 8);
    let sources: Vec<String> = entries(&place, "found")
        .into_iter()
        .map(|(_, source)| source)
        .collect();
    assert!(sources.contains(&"gtn@1".to_owned()));
    for file in ["results.csv", "latency.csv", "pareto.svg", "report.json"] {
        assert!(place.path(&format!("found/{file}")).exists(), "{file}");
    }
    // Mutants of the best climb where chance does not.
    let most = |strategy: &str| {
        search(&format!(
            "--networks 60 --estimator params --strategy {strategy}"
        ))["top"][0]["parameters"]
            .clone()
    };
    assert!(most("evolution").as_u64() > most("random").as_u64());
    let minutes = place.output("search run --images 20 --data-dir data --out short --networks 10000 --strategy evolution --minutes 0.02");
    assert!(minutes.status.success(), "{}", text(&minutes.stderr));
}

#[test]
fn a_network_that_fails_is_a_line_with_its_reason() {
    let place = with_run("base --widths 2,3");
    let space = "network = \"stem | relu | mean | dense\"\n[choose]\n\
        stem = [\"conv 4\", \"conv 4 40x40 pad 0\", \"conv 8000 | conv 16000 | conv 16000\", \"conv 3 | 140 x (add(input; input))\"]\n";
    place.write("mine.toml", space.as_bytes());
    let output = place.output(
        "search run --space mine.toml --images 20 --networks 4 --data-dir data --out found --json",
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&text(&output.stdout));
    assert_eq!(
        (&report["networks"], &report["failed"]),
        (&4.into(), &3.into())
    );
    let csv = fs::read_to_string(place.path("found/results.csv")).unwrap();
    let line = |code: &str| {
        csv.lines()
            .find(|line| line.starts_with(&format!("mine.toml:{code},")))
            .unwrap()
            .to_owned()
    };
    assert!(
        line("1").contains("`conv 4 40x40 pad 0` does not fit an input of shape [28, 28, 1]"),
        "{csv}"
    );
    assert!(line("2").contains("GiB of memory, and"), "{csv}");
    assert!(line("3").contains("finite"), "{csv}");
    assert!(
        csv.lines().nth(1).unwrap().starts_with("mine.toml:0,"),
        "{csv}"
    );
    place.run("learner mine.toml:0");
    // What takes too much memory now is tried again; what fails by itself is not.
    assert!(text(&output.stderr).contains("by an error of the device: 1; the same"));
    let kept = fs::read_to_string(place.path("found/results.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), 4, "{kept}");
    assert!(!kept.contains("of memory"), "{kept}");
}

#[test]
fn a_search_without_a_run_trains_its_teacher_once() {
    let place = Place::new();
    let args = "search --dataset mnist --data-dir data --space nasbench201,channels=2,cells=1 --teacher-steps 2 --config small.toml \
                --networks 3 --images 20 --out found --threads 1 --json";
    let small = "inner_steps = 2\ninner_batch = 10\nouter_batch = 20\nnoise = 4\ngenerator_hidden = 8\ngenerator_channels = '3,2'\n";
    place.write("small.toml", small.as_bytes());
    let first = json(&place.run(args));
    assert_eq!(first["networks"], 3);
    let checkpoint = fs::read(place.path("found/teacher/checkpoint.safetensors")).unwrap();
    let csv = fs::read(place.path("found/results.csv")).unwrap();
    let output = place.output(args);
    assert!(
        !text(&output.stderr).contains("Outer step"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(
        fs::read(place.path("found/teacher/checkpoint.safetensors")).unwrap(),
        checkpoint
    );
    assert_eq!(fs::read(place.path("found/results.csv")).unwrap(), csv);
    place.fails(2, "search run --dataset mnist", "cannot be used with");
    // What was given for a teacher holds for the one that is there.
    for (other, words) in [
        ("--teacher-steps 3", "outer_steps is 2, and here 3"),
        (
            "--dataset fashion-mnist",
            "dataset is \"mnist\", and here \"fashion-mnist\"",
        ),
        (
            "--rank-by truth.csv",
            "rank_by is \"none\", and here \"truth.csv\"",
        ),
    ] {
        let words = format!("the teacher there has other settings: {words}");
        place.fails(2, &format!("{args} {other}"), &words);
    }
    // A file has the last word where no flag is given.
    place.write(
        "own.toml",
        format!("{small}outer_steps = 1\nseed = 7\n").as_bytes(),
    );
    let own = args.replace("--teacher-steps 2 --config small.toml", "--config own.toml");
    place.run(&own.replace("--out found", "--out own"));
    let config = fs::read_to_string(place.path("own/teacher/config.toml")).unwrap();
    assert!(
        config.contains("outer_steps = 1\n") && config.contains("seed = 7\n"),
        "{config}"
    );
    // A teacher that is shown an order, by the preset for it.
    place.write("truth.csv", b"cell,accuracy\n000000,10\n333333,90\n");
    let ordered = args.replace("--out found", "--rank-by truth.csv --out ordered");
    place.run(&ordered);
    let of_teacher =
        |file: &str| fs::read_to_string(place.path(&format!("ordered/teacher/{file}"))).unwrap();
    assert!(of_teacher("metrics.jsonl").contains("\"order\":{\"pairs\""));
    assert!(of_teacher("config.toml").contains("rank_weight = 0.95"));
    place.fails(2, "search run --rank-by truth.csv", "cannot be used with");
}
