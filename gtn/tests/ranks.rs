//! Several processes for one run: its bits, and how it ends when one of them is lost. Skipped where there is no MPI.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod place;

use place::{Place, TINY, signal, text, truth};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tensor::{Array, Metadata, read_safetensors};

/// The program, which has no MPI unless these tests were built for it.
const PROGRAM: &str = env!("CARGO_BIN_EXE_gtn");
/// Five learners in lots of two: three lots, the last of one.
const LOTS: &str = "--learners-per-step 5 --learners-at-once 2";

/// The program with MPI, built beside the other one if need be; none where there is no MPI.
fn program() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        for tool in ["mpicc", "mpirun"] {
            let found = Command::new(tool).arg("--version").output();
            if !found.is_ok_and(|output| output.status.success()) {
                // A test's own output is shown only when it fails.
                let _ = writeln!(
                    std::io::stderr(),
                    "skipped: there is no MPI here, no {tool}"
                );
                return None;
            }
        }
        if cfg!(feature = "mpi") {
            return Some(PROGRAM.into());
        }
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        // All packages and the same profile, so that what others are built for is used.
        build.args(["build", "--quiet", "--workspace", "--features", "gtn/mpi"]);
        build.args(["--example", "mpi", "--target-dir"]).arg(target);
        let folder = if cfg!(debug_assertions) {
            "debug"
        } else {
            build.arg("--release");
            "release"
        };
        let built = build.output().unwrap();
        assert!(built.status.success(), "{}", text(&built.stderr));
        Some(target.join(folder).join("examples/mpi"))
    });
    built.as_deref()
}

/// A command on so many ranks; `:` separates ranks that are started in another way.
fn ranks(place: &Place, parts: &[(usize, &Path, &str)]) -> Command {
    let part = |(count, program, args): &(usize, &Path, &str)| {
        format!("-n {count} {} {args}", program.display())
    };
    let parts: Vec<String> = parts.iter().map(part).collect();
    let args = format!("--oversubscribe --bind-to none {}", parts.join(" : "));
    let mut command = place.command("mpirun", &args);
    for (name, value) in [
        ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
        ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
        // All ranks are here: nothing else needs to be installed.
        ("OMPI_MCA_plm_rsh_agent", "sh"),
        ("OMPI_MCA_btl_vader_single_copy_mechanism", "none"),
    ] {
        command.env(name, value);
    }
    command
}

/// Standard output of so many ranks that must end well; one is the plain program.
fn run(place: &Place, count: usize, args: &str) -> String {
    let output = match count {
        1 => place.output(args),
        _ => ranks(place, &[(count, program().unwrap(), args)])
            .output()
            .unwrap(),
    };
    assert!(
        output.status.success(),
        "{count} ranks, {args}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn checkpoint(place: &Place, run: &str) -> Vec<u8> {
    fs::read(place.path(&format!("{run}/checkpoint.safetensors"))).unwrap()
}

/// The metrics of a run, without its seconds.
fn metrics(place: &Place, run: &str) -> Vec<Value> {
    let text = fs::read_to_string(place.path(&format!("{run}/metrics.jsonl"))).unwrap_or_default();
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).ok()?;
        line.as_object_mut()?.remove("seconds");
        Some(line)
    };
    text.lines().filter_map(line).collect()
}

fn saved(place: &Place) -> (u64, Metadata) {
    let (arrays, about) = read_safetensors(place.path("run/checkpoint.safetensors")).unwrap();
    assert!(arrays.values().all(Array::all_finite));
    (about["outer_step"].parse().unwrap(), about)
}

/// The only line of an error.
fn error(output: &Output) -> String {
    let said = text(&output.stderr);
    let mut errors = said.lines().filter(|line| line.starts_with("error: "));
    let first = errors
        .next()
        .unwrap_or_else(|| panic!("no error in: {said}"));
    assert_eq!(errors.next(), None, "{said}");
    first.to_owned()
}

fn wait_for(what: &str, child: &mut Child, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended before {what}");
        assert!(
            begin.elapsed() < Duration::from_mins(2),
            "{what} never came"
        );
        sleep(Duration::from_millis(5));
    }
}

/// The processes of a launcher's ranks, by rank.
fn processes(launcher: &Child) -> BTreeMap<usize, u32> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(process) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let read = |name| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let parent = format!("PPid:\t{}", launcher.id());
        if read("status").lines().any(|line| line == parent) {
            let environment = read("environ");
            let rank = environment
                .split('\0')
                .find_map(|variable| variable.strip_prefix("OMPI_COMM_WORLD_RANK="));
            found.extend(rank.and_then(|rank| Some((rank.parse().ok()?, process))));
        }
    }
    found
}

#[test]
fn ranks_change_no_bit() {
    if program().is_none() {
        return;
    }
    let population = "--learner mixed --widths none --learners-per-step 3 --learners-at-once 1 \
        --no-baseline";
    let order = "--learner nasbench201,channels=2,cells=1 --widths none --learners-per-step 4 \
        --learners-at-once 2 --rank-by truth.csv --no-baseline";
    for (settings, counts) in [(LOTS, &[2, 3][..]), (population, &[2]), (order, &[2])] {
        let place = Place::new();
        place.write("truth.csv", truth().as_bytes());
        let args = format!("{TINY} --data-dir data --learners 3 {settings} --out");
        let table = run(&place, 1, &format!("{args} 1"));
        for &count in counts {
            let found = run(&place, count, &format!("{args} {count}"));
            assert_eq!(found, table, "{count} ranks");
            let name = count.to_string();
            assert!(
                checkpoint(&place, &name) == checkpoint(&place, "1"),
                "{count} ranks"
            );
            assert_eq!(metrics(&place, &name), metrics(&place, "1"));
            let report = |run: &str| fs::read(place.path(&format!("{run}/report.json"))).unwrap();
            assert!(report(&name) == report("1"), "{count} ranks");
            if settings == LOTS && count == 2 {
                let evaluated = run(&place, count, "eval 2 --data-dir data --threads 1");
                assert_eq!(evaluated, table);
            }
        }
    }
}

#[test]
fn a_run_goes_on_with_any_number_of_ranks() {
    let Some(program) = program() else { return };
    let place = Place::new();
    let often = TINY.replace("--checkpoint-every 2", "--checkpoint-every 1");
    let args = format!("{often} --data-dir data {LOTS} --no-baseline --outer-steps 60 --out");
    run(&place, 1, &format!("{args} whole"));
    let resume = "train --resume run --data-dir data --threads 1 --no-baseline";
    let mut last = 0;
    for count in [3, 2] {
        let args = match last {
            0 => format!("{args} run"),
            _ => resume.to_owned(),
        };
        let mut command = ranks(&place, &[(count, program, &args)]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        wait_for("a step", &mut child, || {
            place.steps("run").last() > Some(&last)
        });
        // Any rank may be asked to stop.
        signal("TERM", processes(&child)[&(count - 1)]);
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert!(said.contains("gtn train --resume run"), "{said}");
        let (step, _) = saved(&place);
        assert!(
            step > last && step < 60 && place.steps("run").last() == Some(&step),
            "{said}"
        );
        last = step;
    }
    run(&place, 1, &format!("{resume} --outer-steps 60"));
    assert!(checkpoint(&place, "run") == checkpoint(&place, "whole"));
    assert_eq!(metrics(&place, "run"), metrics(&place, "whole"));
}

#[test]
fn a_lost_rank_ends_the_run_and_it_goes_on() {
    let Some(program) = program() else { return };
    let place = Place::new();
    let often = TINY.replace("--checkpoint-every 2", "--checkpoint-every 1");
    let endless = format!("{often} --data-dir data {LOTS} --outer-steps 1000000 --out run");
    let resume = "train --resume run --data-dir data --threads 1";
    let mut last = 0;
    for kill in 0..20usize {
        let (count, args) = match kill {
            0 => (2, endless.as_str()),
            _ => (2 + kill % 2, resume),
        };
        let mut command = ranks(&place, &[(count, program, args)]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let checkpoint = place.path("run/checkpoint.safetensors");
        wait_for("a step", &mut child, || {
            checkpoint.exists() && saved(&place).0 > last
        });
        sleep(Duration::from_millis(kill as u64 * 37 % 150));
        let (lost, begin) = (kill % count, Instant::now());
        signal("KILL", processes(&child)[&lost]);
        let output = child.wait_with_output().unwrap();
        assert!(!output.status.success());
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "kill {kill}: {:?}",
            begin.elapsed()
        );
        let line = error(&output);
        assert!(
            line.contains(&format!("rank {lost} (process")),
            "kill {kill}: {line}"
        );
        let step = line
            .split("outer step ")
            .nth(1)
            .and_then(|rest| rest.split(':').next());
        let step: u64 = step.unwrap().parse().unwrap();
        let (now, _) = saved(&place);
        assert!(
            now > last && step >= now && step <= now + 2,
            "kill {kill}: {now}, {line}"
        );
        last = now;
    }
    let goal = last + 2;
    run(
        &place,
        1,
        &format!("{resume} --outer-steps {goal} --no-baseline"),
    );
    assert_eq!(place.steps("run"), (1..=goal).collect::<Vec<_>>());
}

#[test]
fn ranks_that_differ_are_refused() {
    let Some(program) = program() else { return };
    let place = Place::new();
    let args = format!("{TINY} --data-dir data {LOTS} --out run");
    let refused = |parts: &[(usize, &Path, &str)], code: i32, words: &str| {
        let output = ranks(&place, parts).output().unwrap();
        let line = error(&output);
        assert!(line.contains(words), "{line}");
        assert_eq!(output.status.code(), Some(code), "{line}");
        assert!(!place.path("run").exists(), "{line}");
    };
    let seed = format!("{args} --seed 2");
    refused(
        &[(1, program, &args), (1, program, &seed)],
        2,
        "rank 1 has other settings",
    );
    fs::create_dir(place.path("other")).unwrap();
    for entry in fs::read_dir(place.path("data")).unwrap().flatten() {
        let mut bytes = fs::read(entry.path()).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        place.write(
            &format!("other/{}", entry.file_name().to_string_lossy()),
            &bytes,
        );
    }
    let other = args.replace("--data-dir data", "--data-dir other");
    refused(
        &[(2, program, &args), (1, program, &other)],
        1,
        "rank 2 has other data",
    );
    let mut bytes = fs::read(program).unwrap();
    bytes.push(0);
    place.write("copy", &bytes);
    let copy = place.path("copy");
    fs::set_permissions(&copy, fs::metadata(program).unwrap().permissions()).unwrap();
    refused(
        &[(1, program, &args), (1, &copy, &args)],
        1,
        "rank 1 has another program",
    );
    refused(
        &[(4, program, &args)],
        2,
        "there are 4 ranks, and the learners of an outer step, 5, are trained in",
    );
    let away = format!("{TINY} --data-dir nowhere {LOTS} --out run");
    refused(&[(1, program, &args), (1, program, &away)], 1, "rank 1: ");
    if cfg!(feature = "mpi") {
        return;
    }
    let plain = ranks(&place, &[(2, Path::new(PROGRAM), &args)])
        .output()
        .unwrap();
    assert_eq!(plain.status.code(), Some(2));
    let said = text(&plain.stderr);
    assert!(
        said.contains("error: 2 ranks were started, and this program has no MPI"),
        "{said}"
    );
}

#[test]
fn numbers_that_run_away_name_rank_and_step() {
    let Some(program) = program() else { return };
    let place = Place::new();
    let args = format!("{TINY} --data-dir data {LOTS} --inner-lr 1e30 --out run");
    let output = ranks(&place, &[(2, program, &args)]).output().unwrap();
    let line = error(&output);
    assert!(
        line.starts_with("error: rank 0: outer step 0: the "),
        "{line}"
    );
    assert!(line.ends_with("is not finite"), "{line}");
    assert_eq!((output.status.code(), saved(&place).0), (Some(1), 0));
}

/// A search from nothing, small, and what ranks its networks.
const SEARCH: &str = "search --dataset mnist --data-dir data --space nasbench201,channels=2,cells=1 --config tiny.toml \
    --teacher-steps 2 --images 20 --threads 1 --estimator gtn+structure";

/// A place with the settings of its teacher.
fn with_settings() -> Place {
    let place = Place::new();
    let settings = "inner_steps = 2\ninner_batch = 10\nouter_batch = 20\nnoise = 4\ngenerator_hidden = 8\n\
        generator_channels = [3, 2]\nlearners_per_step = 3\nlearners_at_once = 1\n";
    place.write("tiny.toml", settings.as_bytes());
    place
}

#[test]
fn a_search_is_shared() {
    if program().is_none() {
        return;
    }
    let place = with_settings();
    place.write("truth.csv", truth().as_bytes());
    let correlate = "--truth truth.csv --sample 14 --images 20 --data-dir data --threads 1 --estimators gtn,real";
    for count in [1, 2, 3] {
        let searched = format!("{SEARCH} --strategy evolution --networks 25 --out {count}");
        run(&place, count, &searched);
        let teacher = format!("{count}/teacher");
        run(
            &place,
            count,
            &format!("search correlate {teacher} {correlate}"),
        );
    }
    let read = |path: String| fs::read(place.path(&path)).unwrap();
    for count in [2, 3] {
        assert!(checkpoint(&place, &format!("{count}/teacher")) == checkpoint(&place, "1/teacher"));
        for file in [
            "results.csv",
            "teacher/correlate/results.csv",
            "teacher/correlate/recipes.json",
        ] {
            let (one, several) = (read(format!("1/{file}")), read(format!("{count}/{file}")));
            assert_eq!(text(&several), text(&one), "{count} ranks, {file}");
        }
    }
}

#[test]
fn a_search_that_lost_a_rank_goes_on() {
    let Some(program) = program() else { return };
    let place = with_settings();
    let args = format!("{SEARCH} --networks 120 --out");
    run(&place, 1, &format!("{args} whole"));
    let args = format!("{args} search");
    let lines = || {
        let path = place.path("search/results.jsonl");
        fs::read_to_string(path).unwrap_or_default().lines().count()
    };
    for (signalled, rank) in [("TERM", 1), ("KILL", 1), ("KILL", 0)] {
        let before = lines();
        let mut command = ranks(&place, &[(2, program, &args)]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        wait_for("a result", &mut child, || lines() > before);
        signal(signalled, processes(&child)[&rank]);
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stderr);
        if signalled == "TERM" {
            assert_eq!(output.status.code(), Some(130), "{said}");
            assert!(said.contains("The same command goes on"), "{said}");
        } else {
            assert!(!output.status.success());
            let lost = format!("rank {rank} (process");
            let line = error(&output);
            assert!(
                line.contains(&lost) && line.ends_with("was lost: the run ends"),
                "{line}"
            );
        }
        assert!(lines() < 120, "{said}");
    }
    run(&place, 1, &args);
    assert_eq!(lines(), 240);
    let csv = |run: &str| fs::read_to_string(place.path(&format!("{run}/results.csv"))).unwrap();
    assert_eq!(csv("search"), csv("whole"));
}
