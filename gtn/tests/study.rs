//! Studies from the command line: with a variant that breaks, stopped, killed, and gone on with.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod place;

use place::{Place, json, signal, text};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gtn");
const STEPS: usize = 40;

/// Two variants and one that breaks, each with two draws.
fn with_study() -> Place {
    let place = Place::new();
    let study = format!(
        "title = 'Tiny'\n[settings]\ndataset = 'mnist'\nouter_steps = {STEPS}\ninner_steps = 2\ninner_batch = 10\nouter_batch = 20\n\
         widths = '2,3,4'\nnoise = 4\ngenerator_hidden = 8\ngenerator_channels = [3, 2]\nlearners = 2\nvalidate_every = 10\n\
         checkpoint_every = 1\n[variants.full]\n[variants.broken]\nouter_lr = 1e4\n[variants.fresh]\ncurriculum = 'no-curriculum'\n\
         [draws]\ncount = 2\n[draws.settings]\ninner_lr = {{ from = 0.05, to = 0.5 }}\n"
    );
    place.write("tiny.toml", study.as_bytes());
    place
}

fn args(out: &str) -> String {
    format!("study tiny.toml --data-dir data --threads 1 --json --out {out}")
}

/// All of the results but the times.
fn rows(place: &Place, out: &str) -> Vec<String> {
    let csv = fs::read_to_string(place.path(&format!("{out}/study.csv"))).unwrap();
    let row = |line: &str| line.rsplit_once(',').unwrap().0.to_owned();
    csv.lines().map(row).collect()
}

#[test]
fn a_study_from_its_file_to_its_pictures() {
    let place = with_study();
    let output = place.output(&args("out"));
    let (said, shown) = (text(&output.stderr), text(&output.stdout));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Run 1 of 6, full-1: inner_lr 0."), "{said}");
    assert!(said.contains("Run 2 of 6, broken-1: broke: "), "{said}");
    assert!(!said.contains("Outer step"), "{said}");
    let report = json(&shown);
    assert_eq!(
        (&report["study"], &report["runs"]),
        (&"Tiny".into(), &6.into())
    );
    let broke: Vec<_> = [0, 1, 2]
        .map(|i| report["variants"][i]["broke"].as_u64().unwrap())
        .into();
    assert_eq!(broke, [0, 2, 0], "{shown}");
    assert!(shown.starts_with("variant "), "{shown}");
    let rows = rows(&place, "out");
    assert_eq!(
        rows[0],
        "run,variant,seed,draw,inner_lr,accuracy_mean,accuracy_min,runaways,broke"
    );
    assert!(
        rows[2].starts_with("broken-1,broken,1,1,0.") && rows[2].contains("is not finite"),
        "{rows:?}"
    );
    // All variants have the same draws.
    let drawn = |row: &String| row.split(',').nth(4).unwrap().to_owned();
    assert!(drawn(&rows[1]) == drawn(&rows[3]) && drawn(&rows[1]) != drawn(&rows[4]));
    for name in ["curves.svg", "spread.svg"] {
        let picture = fs::read_to_string(place.path(&format!("out/{name}"))).unwrap();
        assert!(
            picture.contains("Tiny") && picture.contains("\nfresh\n"),
            "{name}"
        );
    }
    let again = place.output(&args("out"));
    assert_eq!(json(&text(&again.stdout)), report);
    assert!(!text(&again.stderr).contains("Run "), "nothing runs again");
    // A setting that changed is refused before anything runs; nobody else writes there.
    let study = fs::read_to_string(place.path("tiny.toml")).unwrap();
    place.write(
        "tiny.toml",
        study.replace("noise = 4", "noise = 5").as_bytes(),
    );
    place.fails(
        2,
        &args("out"),
        "out has full-1 with other settings: noise is 5 here and 4 there",
    );
    place.fails(
        1,
        &args("new").replace("data-dir data", "data-dir none"),
        "none",
    );
    place.fails(2, "study none.toml", "cannot read none.toml");
}

/// What is wrong outside of a run is no result of it.
#[test]
fn a_run_that_cannot_be_written_stops_a_study() {
    let place = with_study();
    fs::create_dir(place.path("out")).unwrap();
    place.write("out/fresh-1", b"in the way");
    place.fails(1, &args("out"), "run fresh-1: ");
    let broken = fs::read_to_string(place.path("out/broken.jsonl")).unwrap();
    assert!(
        broken.lines().count() == 1 && broken.contains("broken-1"),
        "{broken}"
    );
    fs::remove_file(place.path("out/fresh-1")).unwrap();
    place.run(&args("out"));
    assert_eq!(rows(&place, "out").len(), 7);
    // What the first try said is still there.
    let log = fs::read_to_string(place.path("out/fresh-1.log")).unwrap();
    let error = "error: out/fresh-1 is a file, and a folder is needed there";
    assert!(log.contains(error), "{log}");
    assert!(log.contains("The run is in out/fresh-1"), "{log}");
}

#[test]
fn a_study_that_was_stopped_or_killed_goes_on() {
    let place = with_study();
    place.run(&args("whole"));
    let names = || {
        rows(&place, "whole")[1..]
            .iter()
            .map(|row| row.split(',').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let done = || -> usize {
        names()
            .iter()
            .map(|name| place.steps(&format!("killed/{name}")).len())
            .sum()
    };
    let reports = || -> BTreeMap<PathBuf, SystemTime> {
        let paths = names()
            .into_iter()
            .map(|name| place.path(&format!("killed/{name}/report.json")));
        let at = |path: PathBuf| Some((path.clone(), fs::metadata(path).ok()?.modified().ok()?));
        paths.filter_map(at).collect()
    };
    let mut killed = 0;
    for (kill, name) in ["TERM", "KILL", "INT", "KILL", "TERM", "KILL"]
        .into_iter()
        .enumerate()
    {
        let (before, ended) = (done(), reports());
        let mut child = place.start(&args("killed"));
        let begin = Instant::now();
        while done() < before + 15 && child.try_wait().unwrap().is_none() {
            assert!(
                begin.elapsed() < Duration::from_mins(2),
                "kill {kill}: it never went on"
            );
            sleep(Duration::from_millis(3));
        }
        // On a busy machine it may be done by now.
        if child.try_wait().unwrap().is_some() {
            break;
        }
        killed += 1;
        signal(name, child.id());
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stderr);
        if name != "KILL" {
            assert_eq!(output.status.code(), Some(130), "{said}");
            assert!(
                said.ends_with("Stopped. The same command goes on with what is in killed\n"),
                "{said}"
            );
            assert!(text(&output.stdout).starts_with("variant "));
        }
        let now = reports();
        assert!(
            ended.iter().all(|(path, at)| now.get(path) == Some(at)),
            "a run ran twice"
        );
    }
    assert!(killed >= 2);
    place.run(&args("killed"));
    assert_eq!(rows(&place, "killed"), rows(&place, "whole"));
    for name in names().iter().filter(|name| !name.starts_with("broken")) {
        let all: Vec<u64> = (1..=STEPS as u64).collect();
        assert_eq!(place.steps(&format!("killed/{name}")), all, "{name}");
    }
    let broken = fs::read_to_string(place.path("killed/broken.jsonl")).unwrap();
    assert_eq!(broken.lines().count(), 2, "{broken}");
}
