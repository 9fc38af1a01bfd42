//! Architecture search from the command line.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod place;

use place::{Place, TINY, json, text, truth};
use serde_json::Value;
use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gtn");

/// A run of a space with four networks held out, and a table of accuracies of all its networks.
fn with_run() -> Place {
    let place = Place::new();
    let space = "nasbench201,channels=2,cells=1,held_out=12";
    let tiny = TINY.replace("--widths 2,3,4", &format!("--learner {space}"));
    place.run(&format!(
        "{tiny} --data-dir data --out run --no-baseline --learners 1"
    ));
    place.write("truth.csv", truth().as_bytes());
    place
}

#[test]
fn estimates_are_compared_with_the_truth_and_the_command_goes_on() {
    let place = with_run();
    let config = fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(
        config.contains("learner = \"nasbench201,channels=2,cells=1,held_out=12\""),
        "{config}"
    );
    let metrics = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    assert!(
        metrics.contains("\"families\":[\"nasbench201,channels=2,cells=1:"),
        "{metrics}"
    );

    let estimators = "gtn,gtn-loss,gtn@1,gtn-area,gtn-speed,params,macs,depth,convs,path,structure,synflow,naswot,2*gtn+structure";
    let args = format!(
        "search correlate run --truth truth.csv --sample 12 --images 20 --data-dir data --compare random --json \
         --estimators {estimators}"
    );
    let output = place.output(&args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        !text(&output.stderr).contains("warning"),
        "{}",
        text(&output.stderr)
    );
    let report = json(&text(&output.stdout));
    assert_eq!(
        (&report["sample"], &report["not_held_out"]),
        (&12.into(), &0.into())
    );
    for name in estimators.split(',') {
        let own = &report["estimators"][name];
        for key in [
            "spearman",
            "kendall",
            "top_half",
            "top_tenth",
            "ndcg",
            "seconds_per_network",
        ] {
            assert!(own[key].is_number(), "{name}: {key} of {own}");
        }
        assert_eq!(own["failed"], 0, "{name}");
        assert!(report["found"][name]["first"].is_number());
    }
    assert!(report["estimators"]["convs"]["spearman"].as_f64().unwrap() > 0.9);
    assert!(report["found"]["random"]["best_of_five"].is_number());
    for file in ["results.jsonl", "results.csv", "report.json", "scatter.svg"] {
        assert!(
            place.path(&format!("run/correlate/{file}")).exists(),
            "{file}"
        );
    }

    // What is there is not computed again, on any number of threads, and results are the same when it is.
    let before = fs::read(place.path("run/correlate/results.jsonl")).unwrap();
    let csv = fs::read(place.path("run/correlate/results.csv")).unwrap();
    place.run(&format!("{args} --workers 2"));
    assert_eq!(
        fs::read(place.path("run/correlate/results.jsonl")).unwrap(),
        before
    );
    place.run(&format!("{args} --workers 2 --out again"));
    assert_eq!(fs::read(place.path("again/results.csv")).unwrap(), csv);
    // More networks go on where it was; other settings do not.
    let more = place.output(&args.replace("--sample 12", "--sample 14"));
    assert!(
        text(&more.stderr).contains("warning: 2 of 14 networks may have been drawn"),
        "{}",
        text(&more.stderr)
    );
    place.fails(
        2,
        &args.replace("--images 20", "--images 10"),
        "has results of other settings: images is 10 here and 20 there",
    );
}

#[test]
fn a_run_is_taught_the_order_of_networks() {
    let place = Place::new();
    place.write("truth.csv", truth().as_bytes());
    let space = "nasbench201,channels=2,cells=1,held_out=12";
    let tiny = TINY.replace("--widths 2,3,4", "--data-dir data --no-baseline");
    let args = format!("train {tiny} --learner {space} --rank-by truth.csv");
    let said = place.output(&format!("{args} --out run --learners-per-step 3"));
    let said = text(&said.stderr);
    assert!(
        said.contains("Order: taught by c10_test200 of 15"),
        "{said}"
    );
    let metrics = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    for line in metrics.lines() {
        let step: Value = serde_json::from_str(line).unwrap();
        let [pairs, right] = ["pairs", "right"].map(|key| step["order"][key].as_u64().unwrap());
        assert!(right <= pairs && pairs <= 3, "{line}");
    }
    // The run has its own copy.
    fs::rename(place.path("truth.csv"), place.path("other.csv")).unwrap();
    place.run("train --resume run --outer-steps 5 --rank-weight 1 --data-dir data --no-baseline");
    let output = place.output(
        "search correlate run --truth other.csv --sample 12 --images 20 --data-dir data --json --estimators gtn",
    );
    let said = text(&output.stderr);
    assert!(said.contains("are supervised, by truth.csv"), "{said}");
    assert_eq!(json(&text(&output.stdout))["supervised"], true);

    place.write("few.csv", b"code,accuracy\n333333,90\n");
    place.write("equal.csv", b"code,accuracy\n333333,90\n222222,90\n");
    let by_other = args.replace("truth.csv", "other.csv");
    for (args, words) in [
        (by_other.clone(), "and there is one in each"),
        (
            by_other.replace(space, "mlp") + " --learners-per-step 2",
            "--rank-by is for networks of a search space, and mlp is none",
        ),
        (
            args.clone() + " --learners-per-step 2",
            "cannot read truth.csv",
        ),
        (
            args.replace("truth.csv", "few.csv") + " --learners-per-step 2",
            "few.csv: 1 of its networks are not held out, and an order needs two",
        ),
        (
            args.replace("truth.csv", "equal.csv") + " --learners-per-step 2",
            "equal.csv: 2 of its networks are not held out, and an order needs two of different accuracies",
        ),
        (
            args.replace("truth.csv", "other.csv,speed") + " --learners-per-step 2",
            "other.csv: no column with the accuracy: speed",
        ),
    ] {
        place.fails(2, &args, words);
    }
}

#[test]
fn real_images_are_tuned_once_and_their_recipe_is_kept() {
    let place = with_run();
    let args = "search correlate run --truth truth.csv --sample 10 --images 10 --data-dir data --estimators real,real-loss --json";
    let first = place.output(args);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let recipes = fs::read_to_string(place.path("run/correlate/recipes.json")).unwrap();
    assert!(recipes.contains("\"2\""), "{recipes}");
    let again = place.output(args);
    assert!(
        !text(&again.stderr).contains("Tuning"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(json(&text(&first.stdout)), json(&text(&again.stdout)));
}

#[test]
fn counts_need_no_run_and_mistakes_are_named() {
    let place = with_run();
    let counts = "search correlate --space nasbench201 --truth truth.csv --estimators params,structure --sample 100 --json";
    let report = json(&place.run(counts));
    assert!(
        report["estimators"]["structure"]["spearman"]
            .as_f64()
            .unwrap()
            > 0.5
    );
    for (from, to, words) in [
        ("params", "gtn", "the estimator gtn needs a run"),
        ("params", "parms", "there is no estimator `parms`"),
        ("--space nasbench201", "", "a space is needed"),
        (
            "nasbench201",
            "nasbench-macro",
            "is no network of nasbench-macro",
        ),
        (
            "--json",
            "--column none",
            "no column with the accuracy: none",
        ),
        ("truth.csv", "none.csv", "cannot read none.csv"),
        ("--sample 100", "--sample 5", "a number from 10"),
    ] {
        place.fails(2, &counts.replace(from, to), words);
    }
    let all = "search correlate --space nasbench201 --estimators params --sample all --truth";
    for (rows, words) in [
        ("", "0 networks, and to rank takes two"),
        ("334131,90\n", "1 networks, and to rank takes two"),
        (
            "334131,90\n334131,10\n",
            "network 334131 has two accuracies, 90 and 10",
        ),
    ] {
        place.write("rows.csv", format!("code,accuracy\n{rows}").as_bytes());
        place.fails(2, &format!("{all} rows.csv"), words);
    }
    let run =
        "search correlate run --truth truth.csv --sample 10 --data-dir data --estimators gtn@3";
    place.fails(2, run, "3 inner steps wanted, and the run teaches 2");
    fs::create_dir_all(place.path("run/correlate")).unwrap();
    place.write("run/correlate/recipes.json", b"[]");
    let words = "run/correlate/recipes.json: no object of recipes";
    place.fails(1, &run.replace("gtn@3", "real"), words);
    place.run(&counts.replace("params,structure", "-1*params,structure+-2*params"));
    let own = "network = 'conv a | relu | mean | dense'\n[choose]\na = [3, 0, 5]\n";
    place.write("own.toml", own.as_bytes());
    place.fails(
        2,
        "learner own.toml",
        "own.toml: choice a, `0`: network, at `conv 0`: ",
    );
    place.fails(
        2,
        "learner nasbench201:33413",
        "`33413` is no network of nasbench201",
    );
    for (args, words) in [
        (
            "held-out --widths 3 --norm layer",
            "--widths is for a family or text, and this is a suite",
        ),
        (
            "mixed --norm layer",
            "--norm is for a family or text, and this is a population",
        ),
    ] {
        place.fails(2, &format!("learner {args}"), words);
    }
    let shown = place.run("learner nasbench201:334131 --image 32x32x3");
    // 802,426 parameters, as published.
    assert!(shown.contains("802426 parameters"), "{shown}");
}

#[test]
fn an_auxiliary_head_trains_a_network_and_is_no_part_of_it() {
    let place = Place::new();
    let args = "fit nasbench201,channels=2,cells=1:334131 --dataset mnist --data-dir data --batch 20 --epochs 2 --threads 1 --json";
    place.run(&format!("{args} --out plain"));
    let args = format!("{args} --out aided --auxiliary 0.4");
    place.fails(2, &args, "--auxiliary-head on images of 7×7×8");
    let aided = || {
        let mut command = place.command(PROGRAM, &args);
        let output = command
            .args(["--auxiliary-head", "relu | mean | dense"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        json(&text(&output.stdout))
    };
    // The checkpoint has what it takes to go on: there is nothing left to do, and the same network.
    assert_eq!(aided(), aided());
    let arrays = |file: &str| tensor::read_safetensors(place.path(file)).unwrap().0;
    let checkpoint = arrays("aided/fit.safetensors");
    for prefix in ["auxiliary.", "optimizer.m.auxiliary."] {
        let mut names = checkpoint.keys();
        assert!(names.any(|name| name.starts_with(prefix)), "{prefix}");
    }
    let [plain, aided] =
        ["plain", "aided"].map(|run| arrays(&format!("{run}/network.safetensors")));
    assert!(plain.keys().eq(aided.keys()));
    assert_ne!(plain["c1.w"], aided["c1.w"]);
}

#[test]
fn a_network_is_fitted_stopped_and_goes_on() {
    let place = Place::new();
    let args = "fit nasbench201,channels=2,cells=1:334131 --dataset mnist --data-dir data --batch 20 --flip 0.5 --crop 2 --threads 1 --json";
    let whole = json(&place.run(&format!("{args} --epochs 3 --out whole")));
    let learner = json(&place.run("learner nasbench201,channels=2,cells=1:334131 --json"));
    assert_eq!(whole["parameters"], learner["learners"][0]["parameters"]);
    assert_eq!(whole["epochs"].as_array().unwrap().len(), 3);
    assert!(whole["test_accuracy"].as_f64().unwrap() >= 0.0);
    // Nothing is left to do where all is done.
    let again = json(&place.run(&format!("{args} --epochs 3 --out whole")));
    assert_eq!(again, whole);
    // Killed after an epoch, it goes on to the same network.
    let long = |out: &str| format!("{args} --epochs 12 --out {out}");
    let mut child = place
        .command(PROGRAM, &long("killed"))
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while !place.path("killed/fit.safetensors").exists() {
        assert!(begin.elapsed() < Duration::from_mins(2), "it never came");
        sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        !place.path("killed/network.safetensors").exists(),
        "it ended before it was killed"
    );
    let said = text(&place.output(&long("killed")).stderr);
    assert!(said.contains("Going on after epoch"), "{said}");
    place.run(&long("other"));
    let network = |out: &str| fs::read(place.path(&format!("{out}/network.safetensors"))).unwrap();
    assert_eq!(network("killed"), network("other"));
    place.fails(
        2,
        &format!("{args} --epochs 4 --out whole"),
        "a training with other settings: epochs is 4 here and 3 there",
    );
    // The same images in another place.
    fs::rename(place.path("data"), place.path("moved")).unwrap();
    let moved = args.replace("--data-dir data", "--data-dir moved");
    let again = json(&place.run(&format!("{moved} --epochs 3 --out whole")));
    assert_eq!(again, whole);
    // What is trained on does not judge.
    let output = place.output(&format!("{moved} --epochs 1 --with-validation --out all"));
    let said = text(&output.stdout);
    assert!(!said.contains("validation images"), "{said}");
    let found = json(&said);
    assert_eq!(found["validation_accuracy"], Value::Null);
    assert_eq!(found["epochs"][0]["validation_accuracy"], Value::Null);
    place.fails(2, &args.replace(":334131", ""), "is more than one network");
    let (arrays, about) =
        tensor::read_safetensors(place.path("whole/network.safetensors")).unwrap();
    assert!(about["settings"].contains("graph("));
    let numbers: usize = arrays
        .iter()
        .filter(|(name, _)| !name.ends_with("mean") && !name.ends_with("variance"))
        .map(|(_, array)| array.shape().count())
        .sum();
    assert_eq!(whole["parameters"], numbers);
    for format in ["onnx", "torch", "safetensors"] {
        place.run(&format!("export whole --to {format} --format {format}"));
    }
    for file in [
        "onnx/network.onnx",
        "torch/network.npz",
        "torch/network.py",
        "safetensors/network.safetensors",
    ] {
        let name = file.split('/').next_back().unwrap();
        let [exported, own] =
            [file, &format!("whole/{name}")].map(|file| fs::read(place.path(file)).unwrap());
        assert_eq!(exported, own, "{file}");
    }
    place.fails(
        2,
        "export whole --to images --format images",
        "a trained network has no images",
    );
    // The module is Python, where there is one.
    let compiled = place
        .command("python3", "-m py_compile whole/network.py")
        .output();
    if let Ok(compiled) = compiled {
        assert!(compiled.status.success(), "{}", text(&compiled.stderr));
    }
}

/// The estimates of `results.csv`, best first.
fn estimates(place: &Place, folder: &str) -> Vec<f64> {
    let rows = csv::Reader::from_path(place.path(&format!("{folder}/results.csv"))).unwrap();
    let estimate = |row: csv::Result<csv::StringRecord>| row.unwrap()[1].parse().ok();
    rows.into_records().filter_map(estimate).collect()
}

#[test]
fn the_last_round_of_halving_is_ranked_by_itself() {
    let place = with_run();
    place.run(
        "search run --strategy halving --networks 24 --images 20 --data-dir data --estimator gtn+gtn-loss+structure --out halved",
    );
    // Three are left: each of three columns has the ranks 0, 1 and 2.
    let best = estimates(&place, "halved");
    assert_eq!(best[..3].iter().sum::<f64>(), 9.0, "{best:?}");
    // One training for two columns.
    let results = fs::read_to_string(place.path("halved/results.jsonl")).unwrap();
    let whole = results
        .lines()
        .filter(|line| line.contains("\"source\":\"gtn\""));
    assert_eq!(whole.count(), 3, "{results}");
}

#[test]
fn a_training_of_one_step_has_an_area() {
    let place = with_run();
    place.run(
        "search run --networks 3 --images 20 --data-dir data --estimator gtn-area@1 --out area",
    );
    assert_eq!(estimates(&place, "area").len(), 3);
}

#[test]
fn networks_that_do_not_fit_are_not_drawn_and_own_spaces_are_known_by_their_text() {
    let place = Place::new();
    let deep = "max 2 | max 2 | max 2 | max 2 | max 2";
    let space =
        format!("network = \"conv 2 | a | mean | dense\"\n[choose]\na = [\"{deep}\", \"relu\"]");
    place.write("mine.toml", space.as_bytes());
    let tiny = TINY.replace(
        "--widths 2,3,4",
        "--data-dir data --no-baseline --learner mine.toml",
    );
    place.run(&format!(
        "{tiny} --outer-steps 12 --validate-every 100 --out run"
    ));
    place.write("truth.csv", b"code,accuracy\n0,80\n1,90\n");
    let args = "search correlate run --truth truth.csv --sample all --data-dir data --estimators params --json";
    for space in ["", " --space mine.toml"] {
        let report = json(&place.run(&format!("{args}{space}")));
        assert_eq!(report["not_held_out"], 2, "{space}");
    }
}
