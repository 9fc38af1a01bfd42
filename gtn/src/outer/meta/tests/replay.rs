//! Resumed runs are the run, bit for bit: curricula, trainings that grow, dropout, augmentation.

use super::*;

#[test]
fn a_resumed_run_is_the_run_bit_for_bit() {
    for (curriculum, learners_per_step) in [
        (Curriculum::Full, 1),
        (Curriculum::Full, 2),
        (Curriculum::AllShuffled, 1),
        (Curriculum::NoCurriculum, 2),
        (Curriculum::RealData, 1),
        (Curriculum::SemiSupervised, 2),
    ] {
        let config = Config {
            learners_per_step,
            labelled: 40,
            ..config(curriculum)
        };
        let mut whole = trainer(&config, 1);
        let steps: Vec<Step> = (0..3).map(|_| whole.step(&data()).unwrap()).collect();
        let mut first = trainer(&config, 2);
        first.step(&data()).unwrap();
        let mut second = trainer(&config, 2);
        second.restore(&first.arrays().unwrap(), 1).unwrap();
        for expected in &steps[1..] {
            assert_eq!(second.step(&data()).unwrap().meta_loss, expected.meta_loss);
        }
        assert_eq!(
            second.arrays().unwrap(),
            whole.arrays().unwrap(),
            "{curriculum:?}"
        );
    }
}

fn growing(curriculum: Curriculum, growth: &str) -> Config {
    Config {
        grow_steps: growth.parse().unwrap(),
        ..config(curriculum)
    }
}

#[test]
fn growing_runs_are_resumed_bit_for_bit() {
    for (curriculum, learners_per_step) in [
        (Curriculum::Full, 1),
        (Curriculum::ShuffledBatch, 2),
        (Curriculum::RealData, 1),
    ] {
        let config = Config {
            learners_per_step,
            ..growing(curriculum, "1:2")
        };
        let mut whole = trainer(&config, 1);
        let steps: Vec<Step> = (0..4).map(|_| whole.step(&data()).unwrap()).collect();
        let lengths: Vec<_> = steps.iter().filter_map(|step| step.inner_steps).collect();
        assert_eq!(lengths, [1, 2, 3, 3]);
        let mut resumed = trainer(&config, 2);
        for done in 1..4 {
            let mut before = trainer(&config, 1);
            (0..done).for_each(|_| drop(before.step(&data()).unwrap()));
            resumed.restore(&before.arrays().unwrap(), done).unwrap();
            let step = resumed.step(&data()).unwrap();
            assert_eq!(step.meta_loss, steps[done as usize].meta_loss);
        }
        assert_eq!(resumed.arrays().unwrap(), whole.arrays().unwrap());
    }
}

/// Parameters of steps that are not reached keep their start values, and all others move as in a shorter run.
#[test]
fn an_outer_step_of_a_growing_run_is_that_of_a_shorter_one() {
    let grown = growing(Curriculum::Full, "2:10");
    let short = Config {
        inner_steps: 2,
        ..config(Curriculum::Full)
    };
    let [mut long, mut short] = [grown, short].map(|config| trainer(&config, 1));
    let start = long.arrays().unwrap();
    let [a, b] = [&mut long, &mut short].map(|trainer| trainer.step(&data()).unwrap());
    assert_eq!(
        [a.meta_loss, a.real_loss, a.inner_loss],
        [b.meta_loss, b.real_loss, b.inner_loss]
    );
    let (long, short) = (long.arrays().unwrap(), short.arrays().unwrap());
    for (name, array) in &short {
        let (reached, beyond) = long[name].bytes().split_at(array.bytes().len());
        assert_eq!(array.bytes(), reached, "{name}");
        assert_eq!(beyond, &start[name].bytes()[reached.len()..], "{name}");
    }
    assert!(long["learned.z"].bytes().len() > short["learned.z"].bytes().len());
    assert_ne!(long["learned.z"], start["learned.z"]);
}

#[test]
fn what_is_dropped_comes_back_in_a_resumed_run() {
    let learner = "conv 3 stride 4 | relu | dropout 0.3 | add(conv 3 | drop_path 0.4) | dense";
    let config = |learners_per_step| Config {
        learners_per_step,
        learner: learner.parse().unwrap(),
        widths: "none".parse().unwrap(),
        ..config(Curriculum::Full)
    };
    for learners in [1, 2] {
        let mut whole = trainer(&config(learners), 1);
        whole.step(&data()).unwrap();
        let mut resumed = trainer(&config(learners), 2);
        resumed.restore(&whole.arrays().unwrap(), 1).unwrap();
        let [first, second] = [&mut whole, &mut resumed].map(|t| t.step(&data()).unwrap());
        assert_eq!(first.meta_loss, second.meta_loss);
        assert_eq!(whole.arrays().unwrap(), resumed.arrays().unwrap());
    }
}

#[test]
fn augmented_runs_are_resumed_bit_for_bit() {
    for curriculum in [Curriculum::Full, Curriculum::RealData] {
        let plain = config(curriculum);
        let augment = Augment {
            crop: 2,
            flip: 0.5,
            cutout: 5,
        };
        let augmented = Config {
            augment,
            ..plain.clone()
        };
        let mut whole = trainer(&augmented, 1);
        whole.step(&data()).unwrap();
        let mut resumed = trainer(&augmented, 2);
        resumed.restore(&whole.arrays().unwrap(), 1).unwrap();
        let [first, second] = [&mut whole, &mut resumed].map(|t| t.step(&data()).unwrap());
        assert_eq!(first.meta_loss, second.meta_loss);
        assert_eq!(whole.arrays().unwrap(), resumed.arrays().unwrap());
        let mut without = trainer(&plain, 1);
        without.step(&data()).unwrap();
        assert_ne!(without.step(&data()).unwrap().meta_loss, first.meta_loss);
    }
}
