//! How a run is judged: what it is compared with, which of its checkpoints is the best, and when it has waited enough.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod place;

use place::{Place, TINY, json};
use serde_json::Value;
use std::fs;
use tensor::read_safetensors;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gtn");

#[test]
fn real_images_teach_in_every_way_that_is_asked_for() {
    let place = Place::new();
    place.run(&format!("train {TINY} --no-baseline --out run"));
    place.run(&format!(
        "train {TINY} --no-baseline --out rates --curriculum real-data --inner-optimizer adam"
    ));
    let eval = "eval run --data-dir data --json";
    let found = json(&place.run(&format!("{eval} --baseline all --against rates")));
    let ways = found["ways"].as_array().unwrap();
    let names: Vec<_> = ways
        .iter()
        .map(|way| way["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "taught by the GTN",
            "real images, momentum",
            "real images, adam",
            "real images, muon",
            "real images, random subset, momentum",
            "real images, random subset, adam",
            "real images, random subset, muon",
            "real images, k-centre, momentum",
            "real images, k-centre, adam",
            "real images, k-centre, muon",
            "real images, learned rates",
        ]
    );
    let mean = |way: &Value| {
        let accuracies = way["accuracies"].as_array().unwrap();
        accuracies.iter().map(|x| x.as_f64().unwrap()).sum::<f64>() / 2.0
    };
    let best = ways[1..].iter().map(mean).fold(0.0, f64::max);
    let baseline = format!("real images, {}", found["baseline"].as_str().unwrap());
    let strongest = ways.iter().find(|way| way["name"] == *baseline).unwrap();
    assert_eq!(found["real_accuracy_mean"].as_f64().unwrap(), best);
    assert_eq!(mean(strongest), best);

    // The rates alone: what that run's own evaluation says.
    let found = json(&place.run(&format!("{eval} --baseline none --against rates")));
    let own = json(&place.run("eval rates --data-dir data --json --no-baseline"));
    assert_eq!(found["ways"][1], own["ways"][0]);
    assert_eq!(
        (&found["baseline"], &found["real_lr"]),
        (&"learned rates".into(), &Value::Null)
    );

    for (args, words) in [
        (
            "eval run --against run",
            "--against run: it was not trained on real images",
        ),
        (
            "eval rates --against rates",
            "--against rates: the run itself has rates learned",
        ),
        ("eval run --no-baseline --baseline all", "--no-baseline"),
    ] {
        place.fails(2, &format!("{args} --data-dir data"), words);
    }
    place.run(&format!(
        "train {TINY} --no-baseline --out longer --curriculum real-data --inner-steps 3 --outer-steps 1"
    ));
    let words =
        "--against longer: its learners take 3 steps of 10 images, and those of the run 2 of 10";
    place.fails(2, "eval run --against longer --data-dir data", words);
}

#[test]
fn real_images_may_teach_for_longer() {
    let place = Place::new();
    let train = format!("train {TINY} --no-baseline --out run --json --real-steps");
    let found = json(&place.run(&format!("{train} 34")));
    let ways = found["ways"].as_array().unwrap();
    let of = |way: &Value| {
        let (name, steps) = (way["name"].as_str().unwrap(), way["steps"].as_u64());
        (name.to_owned(), steps.unwrap())
    };
    let real = |optimizer| (format!("real images, 34 steps, {optimizer}"), 34);
    assert_eq!(
        ways.iter().map(of).collect::<Vec<_>>(),
        [
            ("taught by the GTN".to_owned(), 2),
            real("momentum"),
            real("adam"),
            real("muon")
        ]
    );
    // Looks at the start and after every step; of more than 32 after every second one.
    let looks = |way: &Value| way["curves"][0].as_array().unwrap().len();
    assert_eq!([0, 1].map(|i| looks(&ways[i])), [3, 18]);
    // The strongest baseline would have as many steps as the run.
    assert_eq!(found["baseline"], Value::Null);

    let eval = "eval run --data-dir data --no-baseline --real-steps";
    let again = json(&place.run(&format!("{eval} 34 --json")));
    assert_eq!(again["ways"], found["ways"]);
    place.fails(2, &format!("{eval} 0"), "'0' for '--real-steps");
    place.run("report run");
    let page = fs::read_to_string(place.path("run/report.html")).unwrap();
    assert!(page.contains("<p>Real images "), "how long they need");
}

#[test]
fn a_run_may_take_a_share_of_its_rates() {
    let place = Place::new();
    let train = format!("train {TINY} --no-baseline --out run --json --inner-lr 4");
    let whole = json(&place.run(&train));
    let eval = "eval run --data-dir data --no-baseline --json";
    let tuned = json(&place.run(&format!("{eval} --tune-rates")));
    let said = |report: &Value| report["ways"][0]["tuned"].as_str().map(str::to_owned);
    let share = said(&tuned).unwrap();
    let share = share.strip_suffix(" of the learned rates").unwrap();
    assert!((0.125..=2.8).contains(&share.parse().unwrap()), "{share}");
    // All else is as it was, and so are the accuracies if nothing is tuned.
    assert_eq!(tuned["ways"].as_array().unwrap().len(), 1);
    assert_eq!(said(&whole), None);
    assert_eq!(json(&place.run(eval))["ways"], whole["ways"]);
}

/// The validations of a run, and the outer step of the first that no other is better than.
fn validations(place: &Place) -> (Vec<f64>, usize) {
    let metrics = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let accuracy = |line: &str| -> f64 {
        let line: Value = serde_json::from_str(line).unwrap();
        line["validation_accuracy"].as_f64().unwrap()
    };
    let all: Vec<f64> = metrics.lines().map(accuracy).collect();
    let most = all.iter().copied().fold(0.0, f64::max);
    let best = 1 + all.iter().position(|&accuracy| accuracy == most).unwrap();
    (all, best)
}

#[test]
fn the_best_checkpoint_is_kept_and_patience_ends_a_run() {
    let place = Place::new();
    let args = "--validate-every 1 --validate-learners 2 --patience 4 --checkpoint-every 3";
    place.run(&format!(
        "train {TINY} --no-baseline --out run --outer-steps 60 {args}"
    ));
    let (all, best) = validations(&place);
    assert_eq!(all.len(), best + 4, "{all:?}");
    // The mean of two learners on six images.
    assert!(
        all.iter().any(|accuracy| (accuracy * 6.0).fract() != 0.0),
        "{all:?}"
    );
    let file = |name: &str| fs::read(place.path("run").join(name)).unwrap();
    let about = |name: &str| read_safetensors(place.path("run").join(name)).unwrap().1;
    assert_eq!(about("best.safetensors")["outer_step"], best.to_string());
    assert_eq!(
        about("checkpoint.safetensors")["outer_step"],
        all.len().to_string()
    );

    for (command, name) in [
        ("eval run --no-baseline --data-dir data", "eval"),
        ("sample run", "sample"),
        ("export run --to out --data-dir data", "export"),
    ] {
        let found = json(&place.run(&format!("{command} --checkpoint best --json")));
        assert_eq!(
            (&found["command"], &found["outer_step"]),
            (&name.into(), &best.into())
        );
    }

    // As if it had been killed after the checkpoint of its best step, before that was kept as the best.
    let whole = ["checkpoint.safetensors", "best.safetensors"].map(file);
    fs::write(place.path("run/checkpoint.safetensors"), &whole[1]).unwrap();
    fs::remove_file(place.path("run/best.safetensors")).unwrap();
    place.fails(
        1,
        "eval run --checkpoint best --data-dir data",
        "no best.safetensors there",
    );
    let resume = "train --resume run --no-baseline --data-dir data --threads 1";
    place.run(resume);
    assert_eq!(
        ["checkpoint.safetensors", "best.safetensors"].map(file),
        whole
    );
    assert_eq!(validations(&place), (all, best));
    // It has waited enough; with more patience it goes on.
    place.run(resume);
    assert_eq!(file("checkpoint.safetensors"), whole[0]);
    place.run(&format!("{resume} --patience 6"));
    let (more, best) = validations(&place);
    assert_eq!(more.len(), best + 6, "{more:?}");
}
