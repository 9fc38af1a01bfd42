//! How runs end before their time: killed, asked to stop, without a reader, with numbers that ran away.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod place;

use gtn::study::Found;
use place::{Place, TINY, json, refused, signal, text};
use serde_json::Value;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tensor::{Metadata, read_safetensors};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gtn");

/// A run of no end that saves after every step.
fn endless() -> String {
    let often = TINY.replace("--checkpoint-every 2", "--checkpoint-every 1");
    format!("{often} --data-dir data --outer-steps 1000000 --out run")
}

fn wait_for(what: impl Fn() -> bool) {
    let begin = Instant::now();
    while !what() {
        assert!(begin.elapsed() < Duration::from_mins(1), "it never came");
        sleep(Duration::from_millis(5));
    }
}

fn saved(place: &Place) -> (u64, Metadata) {
    let (arrays, about) = read_safetensors(place.path("run/checkpoint.safetensors")).unwrap();
    assert!(arrays.values().all(tensor::Array::all_finite));
    (about["outer_step"].parse().unwrap(), about)
}

/// What a killed run leaves is sound: either it was not begun, or its checkpoint can be gone on from.
#[test]
fn a_run_can_be_killed_at_any_time() {
    let place = Place::new();
    let mut last = 0;
    for kill in 0..50u64 {
        let begun = place.path("run/checkpoint.safetensors").exists();
        let args = if begun {
            "train --resume run --data-dir data --threads 1".to_owned()
        } else {
            endless()
        };
        let mut child = place.start(&args);
        // Some die before their first checkpoint, the others anywhere from reading it on; on a busy machine, too.
        if kill == 10 {
            wait_for(|| place.path("run/checkpoint.safetensors").exists());
        }
        sleep(Duration::from_millis(kill * 37 % 150));
        assert!(
            child.try_wait().unwrap().is_none(),
            "kill {kill}: it ended by itself: {}",
            text(&child.wait_with_output().unwrap().stderr)
        );
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        if place.path("run/checkpoint.safetensors").exists() {
            let (step, _) = saved(&place);
            assert!(step >= last, "kill {kill}: {step} after {last}");
            last = step;
        }
    }
    let goal = last + 2;
    let args = format!("train --resume run --data-dir data --threads 1 --outer-steps {goal}");
    let output = place.output(&args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(place.steps("run"), (1..=goal).collect::<Vec<_>>());
    let names = fs::read_dir(place.path("run")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.starts_with('.')));
}

#[test]
fn a_run_saves_when_it_is_asked_to_stop() {
    let place = Place::new();
    let rare = endless().replace("--checkpoint-every 1", "--checkpoint-every 1000000");
    let mut last = 0;
    for stop in 0..20 {
        let args = if stop == 0 {
            rare.as_str()
        } else {
            "train --resume run --data-dir data --threads 1"
        };
        let child = place.start(args);
        wait_for(|| place.steps("run").last().is_some_and(|&step| step > last));
        // A lost terminal sends several at once.
        let names = [&["TERM"][..], &["HUP"], &["HUP", "TERM"], &["INT"]][stop % 4];
        names.iter().for_each(|name| signal(name, child.id()));
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{names:?}: {said}");
        let (step, _) = saved(&place);
        assert!(
            step > last && place.steps("run").last() == Some(&step),
            "{said}"
        );
        assert!(
            said.contains("gtn train --resume run --data-dir data"),
            "{said}"
        );
        last = step;
    }
}

#[test]
fn a_run_that_is_stopped_in_its_evaluation_says_how_it_goes_on() {
    let place = Place::new();
    let tiny = TINY.replace("--learners 2", "--learners 1000000");
    let child = place.start(&format!("{tiny} --data-dir data --out run"));
    // The pictures come right before the evaluation.
    wait_for(|| place.path("run/samples.png").exists());
    signal("INT", child.id());
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    let words = "Stopped after outer step 4. Go on with: gtn train --resume run --data-dir data";
    assert!(said.contains(words), "{said}");
    let child = place.start("eval run --data-dir data");
    sleep(Duration::from_millis(500));
    signal("INT", child.id());
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(
        said.ends_with("Stopped before the evaluation ended\n"),
        "{said}"
    );
}

#[test]
fn a_run_does_not_need_a_reader() {
    for closed in 0..20 {
        let place = Place::new();
        // Every step has something to say.
        let mut child = place.start(&format!("{} --inner-lr 50", endless()));
        sleep(Duration::from_millis(closed * 3));
        drop(child.stderr.take());
        wait_for(|| place.steps("run").len() > 3);
        signal("TERM", child.id());
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
    let place = Place::new();
    let mut child = place.start(&format!("{TINY} --data-dir data --out run"));
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
    assert!(place.path("run/learning.svg").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_standard_output_is_one_line() {
    let full = || {
        fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    let place = Place::new();
    let args = format!("{TINY} --data-dir data --json --out");
    let run = |args: &str, stdout: Stdio, stderr: Stdio| -> Output {
        let mut command = place.command(PROGRAM, args);
        let child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
        child.wait_with_output().unwrap()
    };
    let output = run(&format!("{args} a"), Stdio::piped(), full().into());
    assert!(output.status.success());
    assert_eq!(json(&text(&output.stdout))["outer_step"], 4);
    let output = run(&format!("{args} b"), full().into(), Stdio::piped());
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let wanted = "error: cannot write to standard output: No space left on device\n";
    assert!(said.ends_with(wanted), "{said}");
    let eval = "eval a --data-dir data --no-baseline";
    for args in [
        eval,
        "learner",
        "learner --json",
        "doctor",
        "--help",
        "data data",
    ] {
        let output = run(args, full().into(), Stdio::piped());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args}: {said}");
        assert!(said.ends_with(wanted), "{args}: {said}");
    }
}

/// File systems of Unix take any bytes, and JSON takes text.
#[test]
fn a_folder_whose_name_is_no_text_does_not_lose_the_result() {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::OsStr::from_bytes(b"r\xff");
    let place = Place::new();
    let found = |args: &str| {
        let output = place.command(PROGRAM, args).arg(name).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        json(&text(&output.stdout))
    };
    let trained = found(&format!(
        "{TINY} --data-dir data --no-baseline --json --out"
    ));
    assert_eq!(trained["run"], "r\u{fffd}");
    let judged = found("eval --data-dir data --no-baseline --json");
    assert_eq!(judged["run"], "r\u{fffd}");
    let drawn = found("sample --json");
    assert_eq!(drawn["samples"], "r\u{fffd}/samples.png");
}

/// What a run found after fewer outer steps is not shown as what it is now.
#[test]
fn an_evaluation_that_the_run_has_left_behind_is_called_so() {
    let place = Place::new();
    place.run(&format!("{TINY} --data-dir data --no-baseline --out run"));
    let compared = place.run("compare run");
    assert!(!compared.contains("evaluated after"), "{compared}");
    assert!(Found::read(&place.path("run"), None).unwrap().is_some());
    let child = place.start("train --resume run --data-dir data --outer-steps 1000000");
    wait_for(|| place.steps("run").last().is_some_and(|&step| step > 4));
    signal("INT", child.id());
    child.wait_with_output().unwrap();
    let (step, _) = saved(&place);
    let words = format!("evaluated after outer step 4 of {step}");
    let compared = place.run("compare run");
    assert!(compared.contains(&format!("  ({words})\n")), "{compared}");
    place.run("report run");
    let page = fs::read_to_string(place.path("run/report.html")).unwrap();
    assert!(page.contains(&format!("This run was {words}.")));
    assert_eq!(Found::read(&place.path("run"), None).unwrap(), None);
    let table = place.run("eval run --data-dir data --no-baseline");
    let words = format!("This is the run after outer step {step} of 1000000.\n");
    assert!(table.ends_with(&words), "{table}");
}

#[test]
fn steps_that_are_left_out_are_counted() {
    let place = Place::new();
    let args = format!("{TINY} --data-dir data --no-baseline --outer-steps 12 --out run");
    let output = place.output(&format!("{args} --leave-out 1e-9"));
    let said = text(&output.stderr);
    let warning = "warning: outer step 10: it and the 9 before it were left out";
    assert_eq!(said.matches(warning).count(), 1, "{said}");
    assert!(
        said.contains("\nLeft out: 12 of 12 outer steps (--leave-out)\n"),
        "{said}"
    );
}

/// The settings of this process may be at fault, or the checkpoint: both stay.
#[test]
fn a_resumed_run_that_breaks_at_once_keeps_its_checkpoint() {
    let place = Place::new();
    let often = TINY.replace("--checkpoint-every 2", "--checkpoint-every 1");
    let wild = "--no-baseline --outer-lr 1e4 --outer-steps 1 --out run";
    place.run(&format!("{often} --data-dir data {wild}"));
    let read = |name: &str| fs::read(place.path("run").join(name)).unwrap();
    let both = || ["checkpoint.safetensors", "previous.safetensors"].map(read);
    let before = both();
    let args = "train --resume run --data-dir data --outer-steps 4";
    let output = place.output(args);
    refused(&output, 1, args, "is not finite");
    assert_eq!(both(), before);
    let said = text(&output.stderr);
    assert!(
        said.contains("goes on from its last checkpoint; previous.safetensors is"),
        "{said}"
    );
    let copied = place.path("run/previous.safetensors");
    fs::copy(copied, place.path("run/checkpoint.safetensors")).unwrap();
    place.run(&format!("{args} --outer-lr 0.02 --no-baseline"));
    assert_eq!(place.steps("run"), [1, 2, 3, 4]);
}

#[test]
fn a_run_that_ended_before_its_first_checkpoint_is_begun_again() {
    let place = Place::new();
    let args = format!("{TINY} --data-dir data --out run");
    fs::create_dir(place.path("run")).unwrap();
    for (name, text) in [
        ("metrics.jsonl", ""),
        ("config.toml", "seed = 1"),
        (".unfinished-x", "half"),
    ] {
        place.write(&format!("run/{name}"), text.as_bytes());
    }
    let resumed = place.output("train --resume run --data-dir data");
    let words = "run: no checkpoint.safetensors there";
    refused(&resumed, 1, "train --resume run", words);
    let hint = "hint: `gtn train --out run` begins that run again\n";
    assert!(text(&resumed.stderr).ends_with(hint));
    place.run(&args);
    assert!(!place.path("run/.unfinished-x").exists());
    // A user's own settings are no run.
    fs::create_dir(place.path("mine")).unwrap();
    place.write("mine/config.toml", b"seed = 1");
    place.fails(
        1,
        &args.replace("--out run", "--out mine"),
        "mine is not empty",
    );
}

#[test]
fn a_run_that_broke_goes_on_as_its_error_says() {
    let place = Place::new();
    let often = TINY.replace("--checkpoint-every 2", "--checkpoint-every 1");
    let broken = place.output(&format!("{often} --data-dir data --outer-lr 1e4 --out run"));
    refused(&broken, 1, "--outer-lr 1e4", "is not finite");
    let said = text(&broken.stderr);
    assert!(
        said.contains("hint: --resume run with a smaller --outer-lr"),
        "{said}"
    );
    let (before, _) = saved(&place);
    let resume = "train --resume run --data-dir data --threads 1";
    place.fails(1, resume, "is not finite");
    let output = place.output(&format!("{resume} --outer-lr 0.02 --clip 1 --json"));
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Changed: outer_lr [10000.0, 0.02]"), "{said}");
    assert_eq!(saved(&place).0, 4);
    let metrics = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    for (line, step) in lines.iter().zip(1u64..) {
        let changed = &line["changed"]["outer_lr"];
        if step == before + 1 {
            assert_eq!(changed, &serde_json::json!([10000.0, 0.02]));
        } else {
            assert!(changed.is_null(), "{line}");
        }
    }
    let settings = fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(settings.contains("outer_lr = 0.02"), "{settings}");
}

#[test]
fn odd_metrics_are_said_and_kept() {
    let place = Place::new();
    place.run(&format!("{TINY} --data-dir data --out run"));
    let path = place.path("run/metrics.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<&str> = whole.lines().collect();
    lines[1] = "rubbish";
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    let resume = "train --resume run --data-dir data --threads 1 --outer-steps";
    let said = text(&place.output(&format!("{resume} 5")).stderr);
    assert!(
        said.contains("warning: run/metrics.jsonl: line 2 is damaged"),
        "{said}"
    );
    assert_eq!(place.steps("run"), [1, 3, 4, 5]);
    fs::remove_file(&path).unwrap();
    let said = text(&place.output(&format!("{resume} 6")).stderr);
    assert!(
        said.contains("warning: run/metrics.jsonl is missing"),
        "{said}"
    );
    assert_eq!(place.steps("run"), [6]);
}

/// Ten in a row end a run that leaves them out, also one that was resumed between them; its validations count them as none right.
#[test]
fn runaways_are_counted_beyond_a_checkpoint() {
    let place = Place::new();
    let ten = "outer step 9: the meta-gradient, as 9 before it, is not finite";
    let away = format!("{TINY} --data-dir data --no-baseline --inner-lr 1e30 --leave-out 100");
    place.fails(1, &format!("{away} --outer-steps 20 --out whole"), ten);
    place.run(&format!("{away} --outer-steps 6 --out run"));
    let resume = "train --resume run --outer-steps 20 --data-dir data --no-baseline --threads 1";
    place.fails(1, resume, ten);
}
