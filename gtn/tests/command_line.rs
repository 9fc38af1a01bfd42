//! The program as a user runs it: what it makes, what it says, how it ends.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod place;

use place::{Place, TINY, images, json, labels, refused, text};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tensor::{Array, read_safetensors, write_safetensors};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gtn");

#[test]
fn a_run_from_training_to_samples() {
    let place = Place::new();
    let trained = json(&place.run(&format!("train {TINY} --out run --json")));
    for key in [
        "gtn_accuracy_mean",
        "gtn_accuracy_std",
        "gtn_accuracy_min",
        "real_accuracy_mean",
    ] {
        let accuracy = trained[key].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&accuracy), "{key} {accuracy}");
    }
    assert_eq!(trained["run"], "run");
    for file in [
        "config.toml",
        "data.toml",
        "metrics.jsonl",
        "checkpoint.safetensors",
        "curriculum.png",
        "samples.png",
        "learning.svg",
    ] {
        assert!(
            fs::metadata(place.path("run").join(file)).unwrap().len() > 100,
            "{file}"
        );
    }
    let metrics = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    assert!(
        lines[3]["validation_accuracy"].is_number() && lines[2]["validation_accuracy"].is_null()
    );

    let args = "eval run --data-dir data --learners 3 --json --threads 2";
    let found = json(&place.run(args));
    assert_eq!(
        (&found["inner_steps"], &found["learners"]),
        (&2.into(), &3.into())
    );
    assert_eq!(
        (&found["learner"], &found["dataset"]),
        (&"base_fc".into(), &"mnist".into())
    );
    assert_eq!(json(&place.run(args)), found, "the same again");
    let card = fs::read_to_string(place.path("run/data.toml")).unwrap();
    assert!(card.contains("image = [28, 28, 1]"), "{card}");
    fs::remove_file(place.path("run/data.toml")).unwrap();
    assert_eq!(json(&place.run(args)), found, "as version 0.1.0 left it");
    let wider = json(&place.run("eval run --data-dir data --learner linear --widths 9,8 --json"));
    assert_eq!(
        (&wider["learner"], &wider["widths"]),
        (&"linear".into(), &"9,8".into())
    );

    let drawn = json(&place.run("sample run --out pictures --json"));
    assert_eq!(drawn["curriculum"], "pictures/curriculum.png");
    assert_eq!(
        fs::read(place.path("pictures/curriculum.png")).unwrap(),
        fs::read(place.path("run/curriculum.png")).unwrap()
    );

    let args = "eval run --data-dir data --suite suite.toml --learners 2 --json";
    let suite = "[[learner]]\nname = 'small'\nlayers = 'mean | dense'\n\
                 [[learner]]\nname = 'plain'\nfamily = 'plain_mlp'\nwidths = '5,4'\n";
    fs::write(place.path("suite.toml"), suite).unwrap();
    let found = json(&place.run(args));
    let entries = found["suite"].as_array().unwrap();
    let names: Vec<_> = entries
        .iter()
        .map(|entry| entry["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["small", "plain"]);
    let number = |entry: &Value, key: &str| entry[key].as_f64().unwrap();
    let means = entries
        .iter()
        .map(|entry| number(entry, "gtn_accuracy_mean"));
    let real = entries
        .iter()
        .map(|entry| number(entry, "real_accuracy_mean"));
    let margins = means.clone().zip(real).map(|(mean, real)| mean - real);
    assert_eq!(number(&found, "worst_gtn"), means.fold(2.0, f64::min));
    assert_eq!(number(&found, "worst_margin"), margins.fold(2.0, f64::min));
    for entry in entries {
        assert!(["momentum", "adam", "muon"].contains(&entry["baseline"].as_str().unwrap()));
        assert_eq!(entry["runaways"], 0);
        assert!(number(entry, "gtn_accuracy_min") <= number(entry, "gtn_accuracy_mean"));
    }
    let without = json(&place.run(&format!("{args} --no-baseline")));
    assert_eq!(
        (&without["worst_margin"], &without["worst_gtn"]),
        (&Value::Null, &found["worst_gtn"])
    );
    place.fails(
        2,
        "eval run --suite nothing.toml",
        "cannot read nothing.toml",
    );
    let large = "[[learner]]\nname = 'large'\nlayers = 'conv 4 40x40 pad 0 | mean | dense'\n";
    fs::write(place.path("large.toml"), format!("{suite}{large}")).unwrap();
    place.fails(
        2,
        "eval run --data-dir data --suite large.toml",
        "suite large.toml, large: learner, layer 1: `conv 4 40x40 pad 0` does not fit",
    );

    // This one takes terabytes: its images have a million channels.
    let huge = "[[learner]]\nname = 'huge'\nlayers = 'conv 16384 1x1 | 3 x (concat(input; input; input; input)) | \
                300 x (max 3x3 stride 1 pad 1) | mean | dense'\n";
    fs::write(place.path("huge.toml"), format!("{suite}{huge}")).unwrap();
    let args = "eval run --data-dir data --suite huge.toml --no-baseline";
    let output = place.output(args);
    refused(&output, 1, args, "suite huge.toml, huge: ");
    let table = text(&output.stdout);
    assert!(
        table.contains("small") && table.contains("plain"),
        "{table}"
    );
    assert!(text(&output.stderr).contains("Ended after 2 of 3 networks"));

    place.run("report run");
    let page = fs::read_to_string(place.path("run/report.html")).unwrap();
    for part in [
        "taught by the GTN",
        "real images, adam",
        "<svg",
        "data:image/png;base64,iVBOR",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let compared = place.run("compare run run --plot both.svg");
    let rows = compared
        .lines()
        .filter(|line| line.starts_with("run  ") && line.contains('%'));
    assert_eq!(rows.count(), 2, "{compared}");
    assert!(place.path("both.svg").exists());
    place.fails(1, "report pictures", "cannot read");
    place.fails(
        1,
        "compare pictures",
        "pictures is no run: it has no config.toml",
    );
}

/// A Python that has JAX: `GTN_PYTHON`, or the usual one.
fn python_with_jax() -> Option<String> {
    let python = std::env::var("GTN_PYTHON").unwrap_or("python3".into());
    let found = Command::new(&python)
        .args(["-c", "import jax, numpy"])
        .output();
    found
        .is_ok_and(|out| out.status.success())
        .then_some(python)
}

/// The accuracy of learners in JAX is that of `gtn eval`, for a network with branches and every kind of layer.
#[test]
fn what_is_exported_teaches_in_jax() {
    let place = Place::new();
    let begin = "train --dataset embedded --no-baseline --outer-steps 40 --inner-steps 6 --outer-every 4 --inner-batch 20 \
                 --outer-batch 40 --inner-optimizer adam --inner-lr 0.01 --inner-rates role --outer-lr 0.01 --clip 2 --generator-hidden 32 \
                 --threads 2 --out run";
    let network = "conv 8 stride 2 | batch | relu | add(conv 8 | instance | gelu) | concat(max 2; avg 2) | mean_only | tanh | \
                   depthwise 3x3 | group 4 | silu | dense 24 | layer | leaky | dense";
    let words = |args: &str| {
        args.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let run = |args: &str| {
        let mut command = place.command(PROGRAM, "");
        command
            .args(words(args))
            .args(["--learner", network, "--json"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        json(&text(&output.stdout))
    };
    run(begin);
    let eval = run("eval run --no-baseline --learners 8 --threads 2");
    run("export run --to out");
    run("export run --to images --format images");
    run("export run --to tensors --format safetensors");
    let image = place.path("images/7/step-000-007.png");
    assert_eq!(image::image_dimensions(image).unwrap(), (28, 28));
    assert!(place.path("tensors/data.safetensors").exists());
    assert!(place.path("out/train_torch.py").exists());
    assert!(place.path("out/generator.onnx").exists());
    let Some(python) = python_with_jax() else {
        eprintln!("skipped: no Python with JAX; GTN_PYTHON may name one");
        return;
    };
    let mut program = place.command(&python, "out/train_jax.py --data out/data.npz --learners 8");
    let output = program.env("JAX_PLATFORMS", "cpu").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let jax = json(&text(&output.stdout));
    let number = |found: &Value, key: &str| found[key].as_f64().unwrap();
    let apart = number(&jax, "accuracy_mean") - number(&eval, "gtn_accuracy_mean");
    // Four standard errors of the difference of two means of eight.
    let spread = number(&jax, "accuracy_std").hypot(number(&eval, "gtn_accuracy_std"));
    assert!(apart.abs() < 4.0 * spread / 8f64.sqrt(), "{jax} and {eval}");
    assert!(number(&jax, "accuracy_mean") > 0.15, "it teaches: {jax}");
}

/// A fit has a network, and a run has images: neither gets what is for the other.
#[test]
fn what_does_not_fit_a_fit_or_a_run_is_refused_and_leaves_nothing() {
    let place = Place::new();
    place.run(&format!(
        "train {TINY} --outer-steps 1 --no-baseline --out run"
    ));
    let fit = "fit nasbench201,channels=2,cells=1:334131 --dataset mnist --data-dir data --batch 20 --epochs 1 --threads 1 --out";
    place.fails(2, &format!("{fit} run"), "run: the folder is not empty");
    assert!(!place.path("run/network.safetensors").exists());
    for _ in 0..2 {
        place.run(&format!("{fit} fitted"));
    }
    for flag in [
        "--learner linear",
        "--norm batch",
        "--widths 3,4",
        "--checkpoint best",
        "--checkpoint last",
    ] {
        let name = flag.split(' ').next().unwrap();
        let words = format!("fitted: {name} is for a run");
        place.fails(2, &format!("export fitted --to other {flag}"), &words);
    }
    let words = "run: a run is there, whose files would be replaced";
    place.fails(2, "export fitted --to run", words);
    place.fails(2, "search run --space nasbench201 --out run", words);
    place.fails(2, "search correlate run --truth none.csv --out run", words);
    let layers = b"[[learner]]\nlayers = 'conv 4 40x40 pad 0 | mean | dense'\n";
    place.write("large.toml", layers);
    let args = "export run --data-dir data --learner large.toml --to other";
    place.fails(2, args, "layer 1: `conv 4 40x40 pad 0` does not fit");
    for (args, words) in [
        ("fitted --format images", "a trained network has no images"),
        (
            "run --format torch",
            "this is for networks that `gtn fit` made",
        ),
    ] {
        place.fails(2, &format!("export {args} --to other"), words);
    }
    place.run(&format!(
        "train {TINY} --outer-steps 1 --no-baseline --images pixels --out pixels"
    ));
    let args = "export pixels --format onnx --to other";
    place.fails(1, args, "the run has no generator");
    assert!(!place.path("other").exists());
}

#[test]
fn more_minutes_than_a_clock_counts_are_no_end() {
    let place = Place::new();
    let args = format!("train {TINY} --no-baseline --minutes 1e18 --out run");
    place.run(&args);
    assert_eq!(place.steps("run"), [1, 2, 3, 4]);
}

#[cfg(unix)]
#[test]
fn a_run_that_is_stopped_goes_on_and_a_full_disk_leaves_its_checkpoint() {
    let place = Place::new();
    let args = format!("{TINY} --outer-steps 1000000 --out run");
    let mut child = place
        .command(PROGRAM, &args)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let metrics = place.path("run/metrics.jsonl");
    while fs::read_to_string(&metrics)
        .unwrap_or_default()
        .lines()
        .count()
        < 3
    {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it goes on until it is stopped"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let interrupt = format!("-INT {}", child.id());
    assert!(
        place
            .command("kill", &interrupt)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(130));

    let checkpoint = place.path("run/checkpoint.safetensors");
    let before = fs::read(&checkpoint).unwrap();
    // Files beyond some blocks are refused, as on a full disk.
    let script =
        format!("trap '' XFSZ; ulimit -f 8; exec {PROGRAM} train --resume run --data-dir data");
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(&place.0)
        .output()
        .unwrap();
    let words = "is intact";
    refused(&output, 1, &script, words);
    assert_eq!(fs::read(&checkpoint).unwrap(), before);
}

#[test]
fn checkpoints_that_cannot_be_gone_on_from_are_refused() {
    let place = Place::new();
    place.run(&format!("{TINY} --data-dir data --out run"));
    let resume = "train --resume run --data-dir data";
    place.fails(
        2,
        &format!("{resume} --inner-steps 3"),
        "other settings: inner_steps is 3 here and 2 there",
    );
    let settings = fs::read_to_string(place.path("run/config.toml")).unwrap();
    place.fails(
        2,
        &format!("{resume} --outer-steps 3"),
        "--outer-steps is 3, and the run has done 4",
    );
    let now = fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert_eq!(now, settings);
    place.fails(
        2,
        &format!("{resume} --inner-steps 0"),
        "'0' for '--inner-steps <T>'",
    );
    place.fails(
        1,
        "train --resume none",
        "none: no checkpoint.safetensors there",
    );
    place.fails(1, "eval none", "none is no run");
    place.fails(
        1,
        &format!("{TINY} --data-dir data --out run"),
        "run is not empty",
    );

    let checkpoint = place.path("run/checkpoint.safetensors");
    let whole = fs::read(&checkpoint).unwrap();
    fs::write(&checkpoint, &whole[..whole.len() - 5]).unwrap();
    place.fails(1, resume, "cut short");
    place.fails(1, "sample run", "cut short");
    let said = text(&place.output(resume).stderr);
    let hint = "hint: previous.safetensors is an earlier checkpoint: after `cp run/previous.safetensors \
                run/checkpoint.safetensors` the run goes on from it\n";
    assert!(said.ends_with(hint), "{said}");
    fs::copy(place.path("run/previous.safetensors"), &checkpoint).unwrap();
    place.run(resume);
    let args = format!("{resume} --inner-optimizer adam");
    place.fails(
        2,
        &args,
        "inner_optimizer is \"adam\" here and \"momentum\" there",
    );

    fs::write(&checkpoint, &whole).unwrap();
    let (mut arrays, about) = read_safetensors(&checkpoint).unwrap();
    let steps = Array::new([2], vec![f32::NAN, 0.0]).unwrap();
    arrays.insert("learned.log_lr".to_owned(), steps);
    write_safetensors(&checkpoint, &arrays, &about).unwrap();
    place.fails(1, resume, "learned.log_lr has numbers that are not finite");
    arrays.remove("learned.log_lr");
    write_safetensors(&checkpoint, &arrays, &about).unwrap();
    place.fails(1, resume, "array learned.log_lr is missing");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let place = Place::new();
    place.write("settings.toml", b"inner_step = 3");
    let layers = b"[[learner]]\nlayers = 'conv 4 40x40 pad 0 | mean | dense'\n";
    place.write("large.toml", layers);
    for (args, words) in [
        (
            "--learner large.toml --dataset mnist --data-dir data",
            "learner, layer 1: `conv 4 40x40 pad 0` does not fit an input of shape [28, 28, 1]",
        ),
        ("--inner-steps 0", "0 is not in 1..=1048576"),
        ("--learners-per-step 0", "0 is not in 1..=1048576"),
        (
            "--seed 9223372036854775808",
            "not in 0..=9223372036854775807",
        ),
        ("--outer-steps 18446744073709551615", "not in 1..="),
        (
            "--outer-eps 1e-46",
            "a number above 0 is needed, in 32 bits",
        ),
        ("--inner-steps -3", "'-3' for '--inner-steps <T>'"),
        ("--inner-steps 99999999999999999999", "--inner-steps"),
        (
            "--outer-batch 1000000000",
            "1000000000 is not in 1..=1048576",
        ),
        ("--preset huge", "'huge' for '--preset <PRESET>'"),
        ("--curriculum none", "'none' for '--curriculum"),
        ("--schedule all", "unknown schedule `all`"),
        (
            "--widths 1,2",
            "base_fc has 3 layers with widths, and 2 are given: 1,2",
        ),
        ("--device cuda", "no usable CUDA device"),
        ("--threads 0", "--threads"),
        ("--threads 4096", "4096 is not in 1..="),
        (
            "--config settings.toml",
            "settings.toml: unexpected argument '--inner-step' found",
        ),
        ("--config /dev/zero", "/dev/zero: "),
        ("--config none.toml", "cannot read none.toml"),
        ("--frobnicate", "'--frobnicate'"),
        (
            "--dataset embedded --schedule budget-1",
            "a budget of 1 bytes is too small",
        ),
        (
            "--dataset embedded --schedule reversible-4",
            "momentum cannot be undone",
        ),
        ("eval", "<RUN>"),
    ] {
        place.fails(2, args, words);
    }
    let large = "--inner-steps 1000000 --inner-batch 100000";
    place.fails(1, large, "free; no schedule would fit");
    let long = TINY.replace(
        "--inner-batch 10",
        "--inner-batch 5000 --data-dir data --real-steps 4,1048576",
    );
    let words = "--real-steps: the images of 1048576 steps of 5000 take ";
    place.fails(1, &long, words);
    assert!(!place.path("runs").exists(), "nothing was begun");
}

#[test]
fn data_that_cannot_be_used_is_refused() {
    let damage: [(&str, &str, Vec<u8>); 6] = [
        (
            "train-images-idx3-ubyte",
            "truncated",
            images(60, 28)[..5000].to_vec(),
        ),
        ("train-images-idx3-ubyte", "magic", labels(60, 10)),
        ("t10k-images-idx3-ubyte", "32 x 32", images(30, 32)),
        ("t10k-labels-idx1-ubyte", "label", labels(30, 11)),
        ("train-labels-idx1-ubyte", "59", labels(59, 10)),
        (
            "train-labels-idx1-ubyte",
            "gzip",
            vec![0x1f, 0x8b, 8, 0, 1, 2, 3],
        ),
    ];
    for (file, words, bytes) in damage {
        let place = Place::new();
        place.write(&format!("data/{file}"), &bytes);
        place.fails(1, &format!("{TINY} --data-dir data"), words);
    }
    let place = Place::new();
    fs::remove_file(place.path("data/train-labels-idx1-ubyte")).unwrap();
    place.fails(
        1,
        &format!("{TINY} --data-dir data"),
        "train-labels-idx1-ubyte",
    );
    place.fails(
        1,
        &format!("{TINY} --data-dir nowhere"),
        "--data-dir nowhere: no MNIST there",
    );
}

#[test]
fn runs_that_cannot_go_well_end_with_one_line() {
    let place = Place::new();
    place.write("file", b"");
    place.fails(
        1,
        &format!("{TINY} --out file/run"),
        "file is a file, and a folder is needed",
    );
    let words = "outer step 0: the inner loss at inner step";
    place.fails(1, &format!("{TINY} --inner-lr 1e30"), words);
}

#[test]
fn the_last_line_is_an_object_that_names_its_command() {
    let place = Place::new();
    for args in ["data data --json", "learner linear --json"] {
        let command = args.split(' ').next().unwrap();
        assert_eq!(json(&place.run(args))["command"], command);
    }
    let found = json(&place.run("selftest --device cpu --threads 2 --json"));
    assert_eq!(found["command"], "selftest");
    assert!(
        found["checks"]
            .as_array()
            .is_some_and(|checks| checks.len() > 10)
    );
}

/// The classes of a table follow from their names: another name is another order.
#[test]
fn a_run_refuses_classes_that_were_renamed() {
    let place = Place::new();
    let table = |names: [&str; 2]| {
        let row = |i: usize| format!("{},{},{},{},{}\n", names[i % 2], i, 255 - i, i % 3, i % 7);
        let rows: String = (0..80).map(row).collect();
        place.write("t.csv", format!("label,a,b,c,d\n{rows}").as_bytes());
    };
    table(["cat", "dog"]);
    let tiny = TINY.replace("--dataset mnist", "--dataset t.csv");
    let tiny = tiny.replace("--widths 2,3,4", "--learner linear");
    place.run(&format!("{tiny} --no-baseline --out run"));
    place.run("eval run --no-baseline");
    table(["zebra", "dog"]);
    for args in ["eval run", "train --resume run", "export run --to other"] {
        let words = "class 0 is `dog` in the data set, and was `cat` in this run's";
        place.fails(1, args, words);
    }
    assert!(!place.path("other").exists());
}

#[test]
fn help_is_for_newcomers() {
    let place = Place::new();
    for command in ["", "train", "eval", "data", "sample", "selftest"] {
        let help = place.run(&format!("{command} --help"));
        assert!(
            help.contains("Usage: gtn") && help.lines().count() > 8,
            "{help}"
        );
    }
    assert!(place.run("--version").starts_with("gtn "));
    place.run("man .");
    let page = fs::read_to_string(place.path("gtn-train.1")).unwrap();
    assert!(page.contains(".SH OPTIMISERS") && page.contains("outer\\-beta2"));
}

#[test]
fn the_embedded_digits_need_no_files() {
    let place = Place::new();
    let tiny = TINY.replace("--dataset mnist", "--dataset embedded");
    let output = place.output(&format!("{tiny} --outer-steps 1 --learners 1 --out run"));
    let said = text(&output.stderr);
    assert!(
        output.status.success() && said.contains("digits drawn by the program itself"),
        "{said}"
    );
    if cfg!(target_os = "linux") {
        assert!(
            said.contains("Memory: about ") && said.contains(", schedule store-all\n"),
            "{said}"
        );
    }
    assert!(Path::new(&place.path("run/learning.svg")).exists());
}

#[test]
fn trouble_on_the_way_back_is_warned_of() {
    let place = Place::new();
    let warnings = |args: &str| {
        let output = place.output(&format!("{TINY} --data-dir data --outer-steps 1 {args}"));
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        said.lines()
            .filter(|line| line.starts_with("warning: "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(warnings("--out calm"), [""; 0]);
    let told = warnings("--inner-lr 50 --out wild");
    let words = "warning: outer step 1: the cotangent of the weights explodes on its way back, from inner step";
    assert!(told.len() == 1 && told[0].starts_with(words), "{told:?}");
}
