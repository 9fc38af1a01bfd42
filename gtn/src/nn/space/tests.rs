//! Spaces against the published tables, and what draws promise.

use super::*;
use crate::nn::{Learner, Learners, Population};
use std::path::PathBuf;

/// A file of published networks, where `GTN_DATA_DIR` has it.
fn table(name: &str) -> Option<PathBuf> {
    let path =
        std::env::var_os("GTN_DATA_DIR").map(|dir| PathBuf::from(dir).join("nas").join(name));
    let found = path.filter(|path| path.exists());
    if found.is_none() {
        println!("skipped: GTN_DATA_DIR has no nas/{name}");
    }
    found
}

fn learner(space: &Space, code: &Code, image: [usize; 3]) -> Learner {
    space.network(code).unwrap().learner(image, 10).unwrap()
}

/// Multiply-adds of convolutions, which is what the tables count.
fn convolutions(learner: &Learner) -> usize {
    let layers = learner.layers().iter();
    let convolutions = layers.filter(|layer| layer.shape.len() == 3);
    convolutions.map(|layer| layer.multiply_adds).sum()
}

#[test]
fn every_cell_of_nasbench201_is_as_published() {
    let Some(path) = table("nasbench201.csv") else {
        return;
    };
    let space: Space = "nasbench201".parse().unwrap();
    let mut seen = 0;
    for row in csv::Reader::from_path(path).unwrap().records() {
        let row = row.unwrap();
        let learner = learner(&space, &space.code(&row[1]).unwrap(), [32, 32, 3]);
        let own = [learner.parameter_count(), convolutions(&learner)];
        assert_eq!(
            own,
            [&row[2], &row[3]].map(|word| word.parse::<usize>().unwrap()),
            "{}",
            &row[1]
        );
        seen += 1;
    }
    assert_eq!((seen, space.variety()), (15_625, 15_625));
}

#[test]
fn every_network_of_nasbench_macro_is_as_published() {
    let Some(path) = table("nas-bench-macro_cifar10.json") else {
        return;
    };
    let space: Space = "nasbench-macro".parse().unwrap();
    let networks: serde_json::Value =
        serde_json::from_reader(std::fs::File::open(path).unwrap()).unwrap();
    let mut usual = HashSet::new();
    for (key, network) in networks.as_object().unwrap() {
        let code = space.code(key).unwrap();
        let learner = learner(&space, &code, [32, 32, 3]);
        let own = [learner.parameter_count(), learner.multiply_adds()];
        let published = ["params", "flops"].map(|name| network[name].as_u64().unwrap() as usize);
        assert_eq!(own, published, "{key}");
        usual.insert(code);
    }
    assert_eq!(
        (networks.as_object().unwrap().len(), usual.len()),
        (6561, 3969)
    );
}

#[test]
fn equal_cells_of_nasbench201_are_twins() {
    let space: Space = "nasbench201".parse().unwrap();
    let twin = |code: &str| space.twin(&space.code(code).unwrap());
    // Input to output by skips: over the first node, the second, or both.
    assert_eq!(twin("100010"), twin("000100"));
    assert_eq!(twin("100010"), twin("101001"));
    // Two equal branches, whichever node they go over.
    assert_eq!(twin("320021"), twin("230012"));
    assert_ne!(twin("320021"), twin("220012"));
    assert_eq!(twin("303000"), twin("000000"));
    let all: HashSet<String> = (0..15_625)
        .map(|i: u32| {
            let code: String = (0..6)
                .map(|place| char::from(b'0' + (i / 5u32.pow(place) % 5) as u8))
                .collect();
            twin(&code)
        })
        .collect();
    // Dong and Yang (2020) count 6,466, as they keep the zeros of a sum: x + 0 is another cell than x there.
    assert_eq!(all.len(), 5545);
}

#[test]
fn every_drawn_network_is_a_learner_and_comes_back_from_text() {
    let own = "network = \"conv stem | block | 2 x (block) | down | mean | dense\"\n[choose]\nstem = [4, 8]\n\
               block = [\"add(conv stem | batch | relu)\", \"none\"]\ndown = [\"max 2\", \"lenet_\"]";
    let own = own.replace("lenet_", "avg 2");
    for text in [
        "nasbench201,channels=4,cells=1",
        "nasbench-macro,channels=4",
        "cells,channels=4,cells=1",
        &own,
    ] {
        let space: Space = text.parse().unwrap();
        let rng = &mut rng(1, Draw::Split, 0, 0);
        for _ in 0..30 {
            let code = space.draw(rng);
            let network = space.network(&code).unwrap();
            assert_eq!(network.to_string().parse::<Network>().unwrap(), network);
            assert_eq!(space.code(&code.to_string()).unwrap(), code);
            learner(&space, &code, [16, 16, 3]);
            let mutant = space.mutant(&code, rng);
            let differ = code
                .choices()
                .iter()
                .zip(mutant.choices())
                .filter(|(a, b)| a != b)
                .count();
            assert!(differ >= 1, "{code} {mutant}");
        }
        learner(&space, &space.largest(), [16, 16, 3]);
        assert_eq!(space.text().parse::<Space>().unwrap(), space);
    }
}

#[test]
fn sums_have_no_order() {
    let space: Space = "cells,channels=4,cells=1".parse().unwrap();
    let rest = "0414".repeat(9);
    let twin = |node: &str| space.twin(&space.code(&format!("{node}{rest}")).unwrap());
    assert_eq!(twin("0412"), twin("1204"));
    assert_ne!(twin("0412"), twin("0214"));
}

#[test]
fn what_is_held_out_is_never_drawn() {
    let space: Space = "nasbench201,channels=4,cells=1,held_out=2000,split=3"
        .parse()
        .unwrap();
    let held_out = space.held_out();
    assert_eq!(held_out.len(), 2000);
    assert_eq!(space.sample(2000).unwrap(), held_out);
    assert_eq!(space.sample(50).unwrap(), held_out[..50]);
    let other: Space = "nasbench201,split=4".parse().unwrap();
    assert_ne!(other.sample(50).unwrap(), held_out[..50]);
    let twins: HashSet<String> = held_out.iter().map(|code| space.twin(code)).collect();
    let rng = &mut rng(1, Draw::Split, 0, 0);
    for _ in 0..2000 {
        assert!(!twins.contains(&space.twin(&space.draw(rng))));
    }
    // A population of the space draws by the same rule, and the text of settings says so.
    let learners: Learners = "nasbench201,channels=4,cells=1,held_out=2000,split=3"
        .parse()
        .unwrap();
    assert_eq!(learners.to_string(), space.text());
    let Learners::Population(population, _) = learners else {
        panic!("a space is a population")
    };
    assert_eq!(population.space(), Some(&space));
    assert!(population.is_mixed());
}

#[test]
fn spaces_stand_in_files_of_learners_and_networks_in_settings() {
    let text = "[[learner]]\nfamily = \"base\"\n[[learner]]\nspace = \"nasbench201,channels=4,cells=1\"\nweight = 3\n";
    let population = Population::from_toml("learners.toml", text).unwrap();
    assert!(population.is_mixed() && population.space().is_none());
    let rng = &mut rng(1, Draw::Split, 0, 0);
    let names: HashSet<String> = (0..40)
        .map(|_| population.draw(rng).unwrap().family)
        .collect();
    assert!(names.contains("base") && names.len() > 10, "{names:?}");
    let network: Learners = "nasbench201,channels=4:334131".parse().unwrap();
    assert_eq!(network.to_string(), "nasbench201,channels=4:334131");
    assert!(matches!(network, Learners::Family(_)), "a family of one");
}

#[test]
fn mistakes_are_named() {
    for (text, wanted) in [
        (
            "nasbench202",
            "there is no space `nasbench202`, but nasbench201, nasbench-macro, cells",
        ),
        (
            "nasbench201,chanels=8",
            "nasbench201,chanels=8: there is no option `chanels`",
        ),
        (
            "nasbench201,channels=0",
            "channels: a number from 1 to 512 is needed, not `0`",
        ),
        ("nasbench-macro,cells=3", "there is no option `cells`"),
        (
            "nasbench201,weight_norm=maybe",
            "weight_norm: on or off is needed, not `maybe`",
        ),
        (
            "nasbench201,held_out=99999",
            "99999 networks wanted, and nasbench201 has 15625",
        ),
        (
            "nasbench-macro,held_out=3969",
            "3969 networks are held out, and hardly one is left to draw",
        ),
        ("network = \"relu\"\n[choose]\n", "own: nothing to choose"),
        (
            "network = \"conv a\"\n[choose]\na = [1, \"x\"]",
            "own: its largest network: network, at `conv x`: `x` is no number",
        ),
        (
            "network = \"conv a | relu | mean | dense\"\n[choose]\na = [4, 0, 8]",
            "own: choice a, `0`: network, at `conv 0`: `0` is no number from 1 to 16384",
        ),
        (
            "network = \"conv a\"\n[choose]\na = 3",
            "own: choice a: a list is needed",
        ),
        (
            "net = \"conv a\"\n[choose]\na = [3, 4]",
            "own: line 1: unknown field `net`",
        ),
    ] {
        let error = text.parse::<Space>().unwrap_err().to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
    let space: Space = "nasbench201".parse().unwrap();
    let error = space.code("33413").unwrap_err();
    assert!(
        error
            .lines()
            .contains("`33413` is no network of nasbench201: a code of 6 digits"),
        "{error:?}"
    );
    assert!(space.code("334135").is_err() && space.code("33413é").is_err());
}
