//! Variants of the method through the whole program: trained, evaluated, and gone on with from a checkpoint.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod place;

use place::{Place, TINY, json};
use serde_json::Value;
use std::fs;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gtn");

/// Trains a run, and goes on from the last checkpoint but one in a copy of it: with other threads it comes to the same
/// bits. Gives what the whole run says of itself, and the lines of its metrics.
fn trained(place: &Place, args: &str) -> (Value, Vec<Value>) {
    let report = json(&place.run(&format!(
        "train {TINY} --data-dir data --no-baseline --out run --json {args}"
    )));
    fs::create_dir(place.path("again")).unwrap();
    for (from, to) in [
        ("config.toml", "config.toml"),
        ("data.toml", "data.toml"),
        ("metrics.jsonl", "metrics.jsonl"),
        ("previous.safetensors", "checkpoint.safetensors"),
    ] {
        let from = place.path("run").join(from);
        fs::copy(from, place.path("again").join(to)).unwrap();
    }
    let resume = "train --resume again --data-dir data --no-baseline --threads 2 --json";
    let again = json(&place.run(resume));
    assert_eq!(again["outer_step"], report["outer_step"]);
    for key in ["gtn_accuracy_mean", "gtn_accuracy_min"] {
        assert_eq!(again[key], report[key], "{key}");
    }
    let [checkpoint, same] = ["run", "again"].map(|run| {
        let path = place.path(run).join("checkpoint.safetensors");
        tensor::read_safetensors(path).unwrap().0
    });
    assert_eq!(checkpoint, same);
    let metrics = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let line = |line: &str| serde_json::from_str(line).unwrap();
    (report, metrics.lines().map(line).collect())
}

/// The names of a run's event files, in the order of time.
fn event_files(place: &Place, run: &str) -> Vec<String> {
    let files = fs::read_dir(place.path(run)).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.contains("tfevents")).collect();
    names.sort();
    names
}

#[test]
fn metrics_go_to_tensorboard_on_wish() {
    let place = Place::new();
    let train = format!("train {TINY} --data-dir data --no-baseline --out");
    place.run(&format!("{train} run --tensorboard"));
    let [file] = &event_files(&place, "run")[..] else {
        panic!("one file for one session")
    };
    let bytes = fs::read(place.path("run").join(file)).unwrap();
    let count = |words: &str| {
        let windows = bytes.windows(words.len());
        windows.filter(|part| *part == words.as_bytes()).count()
    };
    assert_eq!(count("brain.Event:2"), 1);
    assert_eq!([count("meta_loss"), count("validation_accuracy")], [4, 2]);
    place.run("train --resume run --data-dir data --no-baseline --outer-steps 6 --tensorboard");
    let files = event_files(&place, "run");
    assert_eq!((files.len(), &files[0]), (2, file));
    assert_eq!(fs::read(place.path("run").join(file)).unwrap(), bytes);

    place.run(&format!("{train} plain"));
    assert!(event_files(&place, "plain").is_empty());
    let [with, without] = ["run/previous", "plain/checkpoint"]
        .map(|path| tensor::read_safetensors(place.path(&format!("{path}.safetensors"))).unwrap());
    assert_eq!(with.0, without.0);
}

#[test]
fn inner_steps_grow_over_the_outer_ones() {
    let place = Place::new();
    let (report, metrics) = trained(&place, "--inner-steps 3 --grow-steps 1:3");
    let lengths: Vec<&Value> = metrics.iter().map(|line| &line["inner_steps"]).collect();
    assert_eq!(lengths, [1, 1, 2, 3]);
    assert_eq!(report["inner_steps"], 3);
    let config = fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(config.contains("grow_steps = \"1:3\""), "{config}");
    place.run("train --resume run --data-dir data --no-baseline --outer-steps 5 --grow-steps none");

    for (args, words) in [
        (
            "--grow-steps 4",
            "two numbers above 0 are needed, as in 8:500",
        ),
        (
            "--grow-steps 4:2",
            "--grow-steps begins with 4 inner steps, and there are 2",
        ),
    ] {
        place.fails(2, &format!("train {TINY} {args}"), words);
    }
}

#[test]
fn muon_teaches_inside_and_lion_moves_outside() {
    let place = Place::new();
    let args =
        "--inner-optimizer muon --outer-optimizer lion --outer-lr 0.003 --learners-per-step 2";
    trained(&place, args);
    let checkpoint = place.path("run/checkpoint.safetensors");
    let (arrays, _) = tensor::read_safetensors(checkpoint).unwrap();
    assert!(arrays.contains_key("lion.m.log_lr") && arrays.contains_key("learned.log_momentum"));
    place.fails(
        2,
        "train --resume run --data-dir data --outer-optimizer adam",
        "outer_optimizer is \"adam\" here and \"lion\" there",
    );
    place.run("export run --to exported --data-dir data");
    for (args, words) in [
        (
            "--inner-optimizer lion",
            "has the slope 0 in images and labels",
        ),
        (
            "--outer-optimizer reversible-momentum",
            "outer steps are not undone",
        ),
    ] {
        place.fails(2, &format!("train {TINY} {args}"), words);
    }
}

#[test]
fn few_examples_teach_again_and_again() {
    for (args, table) in [
        ("--images pixels --labels soft", "learned.pixels"),
        // The second batch of copies that the generator learns to make is filled up with the first of them.
        ("--curriculum all-shuffled", "learned.z"),
    ] {
        let place = Place::new();
        let few = format!("--start-images real --examples 15 {args}");
        trained(&place, &few);
        let (arrays, _) =
            tensor::read_safetensors(place.path("run/checkpoint.safetensors")).unwrap();
        assert_eq!(arrays[table].shape()[0], 15, "{args}");

        // Two steps of ten images have the first five twice; a generator's batch norm makes them anew in each batch.
        place.run("export run --to exported --data-dir data");
        let taught = tensor::read_npz(place.path("exported/data.npz")).unwrap();
        let images = taught["x"].to_f64_vec();
        let mut rows: Vec<&[f64]> = images.chunks_exact(784).collect();
        assert_eq!(rows.len(), 20);
        rows.sort_by(|a, b| a.partial_cmp(b).unwrap());
        rows.dedup();
        assert!(rows.len() == 15 || table == "learned.z", "{args}");
    }
}

#[test]
fn a_generator_makes_images_and_labels() {
    let place = Place::new();
    trained(&place, "--labels generator --curriculum no-curriculum");
    let checkpoint = place.path("run/checkpoint.safetensors");
    let (arrays, _) = tensor::read_safetensors(checkpoint).unwrap();
    assert_eq!(arrays["generator.labels.v"].shape()[..], [10, 8]);
    assert_eq!(arrays["generator.g1.v"].shape()[..], [8, 4]);
    place.run("sample run --out pictures");
    place.run("export run --to exported --data-dir data");
    let npz = tensor::read_npz(place.path("exported/data.npz")).unwrap();
    let shares = npz["y"].to_f64_vec();
    let rows = shares.chunks_exact(10);
    assert!(
        rows.clone()
            .all(|row| (row.iter().sum::<f64>() - 1.0).abs() < 1e-6)
    );
    assert!(
        rows.clone()
            .any(|row| row.iter().all(|&share| share < 0.99))
    );
    assert!(place.path("exported/generator.onnx").exists());
    for args in ["--images pixels", "--curriculum real-data"] {
        place.fails(
            2,
            &format!("train {TINY} --labels generator {args}"),
            "--labels generator is for images that a generator makes",
        );
    }
}

#[test]
fn a_labeller_names_unlabelled_images() {
    let place = Place::new();
    let args = "--curriculum semi-supervised --labelled 20";
    let (report, _) = trained(&place, args);
    assert_eq!(report["ways"][0]["name"], "real images, learned labels");
    let checkpoint = place.path("run/checkpoint.safetensors");
    let (arrays, _) = tensor::read_safetensors(checkpoint).unwrap();
    assert_eq!(arrays["learned.labeller.d1.v"].shape()[..], [4, 147]);
    assert!(arrays.keys().all(|name| !name.starts_with("generator.")));
    let judged = json(&place.run("eval run --data-dir data --baseline all --json"));
    let names = judged["ways"].as_array().unwrap().iter();
    let names: Vec<&str> = names.map(|way| way["name"].as_str().unwrap()).collect();
    let rivals = [
        "real images, 20 labelled, momentum",
        "real images, 20 labelled, adam",
        "real images, 20 labelled, muon",
        "real images, momentum",
        "real images, adam",
        "real images, muon",
    ];
    assert_eq!(names[1..], rivals);
    place.run("export run --to exported --data-dir data");
    assert!(!place.path("exported/generator.onnx").exists());
    for (args, words) in [
        ("--labelled 60", "--labelled 60 leaves none of"),
        (
            "--labels soft",
            "--labels soft is for images that are learned one by one",
        ),
        (
            "--images pixels --start-images real",
            "--images pixels --start-images real is for images that are learned",
        ),
        (
            "--inner-optimizer lion",
            "has the slope 0 in images and labels",
        ),
    ] {
        let args = format!("train {TINY} --data-dir data --curriculum semi-supervised {args}");
        place.fails(2, &args, words);
    }
}

#[test]
fn the_rates_of_lion_are_learned_on_real_images() {
    let place = Place::new();
    let args = "--inner-optimizer lion --curriculum real-data --learn lr,beta1,weight_decay:shared";
    trained(&place, args);
    let checkpoint = place.path("run/checkpoint.safetensors");
    let (arrays, _) = tensor::read_safetensors(checkpoint).unwrap();
    let learned = arrays.keys().filter(|name| name.starts_with("learned."));
    assert!(learned.eq(["learned.log_lr", "learned.log_weight_decay"]));
}
