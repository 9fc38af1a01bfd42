//! Outer steps of small learners: replay, resume, lots, mistakes.

use super::*;
use crate::data::Augment;
use crate::nn::{Learners, Norm};
use crate::outer::curriculum::{Curriculum, ImagesChoice, LabelsChoice, StartImages};
use crate::outer::inner::OptimizerChoice;
use crate::outer::rule::{Rates, is_reached};
use crate::run::config::{Config, Preset};
use clap::ValueEnum;

fn config(curriculum: Curriculum) -> Config {
    Config {
        curriculum,
        outer_steps: 4,
        inner_steps: 3,
        inner_batch: 10,
        outer_batch: 20,
        outer_every: 2,
        widths: "2-3,3-4,4".parse().unwrap(),
        noise: 4,
        generator_hidden: 8,
        generator_channels: [3, 2],
        norm: Norm::MeanOnly,
        inner_lr: 0.02,
        ..Config::preset(Preset::Quick)
    }
}

fn data() -> Dataset {
    Dataset::drawn(1, [100, 50, 50])
}

fn trainer(config: &Config, threads: usize) -> MetaTrainer {
    let device = Device::cpu(Some(threads)).unwrap();
    MetaTrainer::new(&device, config, Problem::MNIST).unwrap()
}

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

/// What belongs to steps that are not reached keeps its start, and everything else moves as in a shorter run.
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

#[test]
fn an_outer_step_of_several_learners_is_the_mean_of_theirs() {
    const LEARNERS: usize = 3;
    let config = |learners_per_step| Config {
        learners_per_step,
        outer_lr: 1e-3,
        clip: 0.0,
        ..config(Curriculum::Full)
    };
    let run = |config: &Config, theta: Option<Vec<Array>>| {
        let mut trainer = trainer(config, 1);
        let (_, mut classes) = trainer.draw((0, 0)).unwrap();
        let class = &mut classes[0];
        class.theta = theta.unwrap_or(std::mem::take(&mut class.theta));
        let theta = class.theta.clone();
        trainer.next = Some(((0, 0), classes));
        let step = trainer.step(&data()).unwrap();
        let gradient = trainer.arrays().unwrap()["adam.m.log_lr"].to_f64_vec();
        let losses = [step.meta_loss, step.real_loss, step.inner_loss];
        (theta, [losses.to_vec(), gradient].concat())
    };
    let (all, found) = run(&config(LEARNERS), None);
    let mut mean = vec![0.0; found.len()];
    for i in 0..LEARNERS {
        let part = |array: &Array| {
            let bytes = array.bytes().len() / LEARNERS;
            let part = &array.bytes()[i * bytes..][..bytes];
            Array::from_bytes(array.dtype(), &array.shape()[1..], part).unwrap()
        };
        let theta: Vec<Array> = all.iter().map(part).collect();
        let (drawn, alone) = run(&config(1), (i > 0).then(|| theta.clone()));
        // The first learner of a step is the one that a step of one learner has.
        assert_eq!(drawn, theta);
        let shares = alone.iter().map(|x| x / LEARNERS as f64);
        mean.iter_mut().zip(shares).for_each(|(m, x)| *m += x);
    }
    let norm = |numbers: &[f64]| numbers.iter().map(|x| x * x).sum::<f64>().sqrt();
    for range in [0..1, 1..2, 2..3, 3..found.len()] {
        let (found, mean) = (&found[range.clone()], &mean[range]);
        let apart: Vec<f64> = found.iter().zip(mean).map(|(a, b)| a - b).collect();
        assert!(norm(&apart) <= 1e-4 * norm(mean), "{found:?} and {mean:?}");
    }
}

#[test]
fn lots_sum_to_the_same_step_and_are_resumed() {
    let config = |learners_at_once| Config {
        learners_per_step: 5,
        learners_at_once,
        outer_lr: 1e-3,
        ..config(Curriculum::Full)
    };
    let [at_once, lots] = [0, 2].map(|most| {
        let mut trainer = trainer(&config(most), 1);
        let step = trainer.step(&data()).unwrap();
        let gradient = trainer.arrays().unwrap()["adam.m.log_lr"].to_f64_vec();
        let losses = [step.meta_loss, step.real_loss, step.inner_loss];
        (
            [&losses[..], &gradient].concat(),
            step.widths.len(),
            trainer,
        )
    });
    assert_eq!([at_once.1, lots.1], [3, 9]);
    for (whole, sum) in at_once.0.iter().zip(&lots.0) {
        assert!(
            (whole - sum).abs() <= 1e-4 * whole.abs().max(1e-3),
            "{whole} and {sum}"
        );
    }
    let (mut resumed, mut lots) = (trainer(&config(2), 2), lots.2);
    resumed.restore(&lots.arrays().unwrap(), 1).unwrap();
    for trainer in [&mut resumed, &mut lots] {
        trainer.step(&data()).unwrap();
    }
    assert_eq!(resumed.arrays().unwrap(), lots.arrays().unwrap());
}

/// Along the gradient of the loss of the learners' order, that loss falls; where no learner is better, their mean counts alone.
#[test]
fn the_order_of_learners_is_taught() {
    let table = tempfile::NamedTempFile::new().unwrap();
    let config = |rank_weight| Config {
        learner: "nasbench201,channels=2,cells=1".parse().unwrap(),
        widths: "none".parse().unwrap(),
        learners_per_step: 4,
        rank_by: table.path().display().to_string().parse().unwrap(),
        rank_weight,
        outer_lr: 1e-3,
        ..config(Curriculum::Full)
    };
    let population = config(0.0).population();
    let space = population.space().unwrap();
    let begin = |weight, accuracy: fn(usize) -> usize| {
        let codes = space.sample(40).unwrap().into_iter().enumerate();
        let rows: Vec<String> = codes
            .map(|(i, code)| format!("{code},{}", accuracy(i)))
            .collect();
        std::fs::write(table.path(), format!("code,accuracy\n{}", rows.join("\n"))).unwrap();
        let config = config(weight);
        trainer(&config, 1).ranking(config.rank_by.read(None, space).unwrap())
    };
    let moved = |mut trainer: MetaTrainer| {
        let step = trainer.step(&data()).unwrap();
        (step.order.unwrap(), trainer.arrays().unwrap())
    };
    let (order, plain) = moved(begin(0.0, |i| i));
    assert_eq!(order.pairs, 6);
    let (order, equal) = moved(begin(1.0, |_| 7));
    assert_eq!(order, Order::default());
    assert_eq!(equal, plain);

    let (before, arrays) = moved(begin(1.0, |i| i));
    assert_ne!(arrays, plain);
    let mut again = begin(1.0, |i| i);
    again.restore(&arrays, 0).unwrap();
    let (after, _) = moved(again);
    assert!(after.loss < before.loss, "{before:?} {after:?}");
}

/// A population of three structures, which come back.
fn population() -> Learners {
    let text = "
        [[learner]]
        family = 'base_fc'
        widths = '2,3,4'
        norm = 'batch'
        [[learner]]
        layers = 'conv 3 | batch | relu | add(depthwise | instance | gelu) | max 2 | mean | dense'
        [[learner]]
        layers = 'weight_norm off | init pytorch | dense 5 | relu | dense'";
    text.parse().unwrap()
}

/// `auto` takes what fits into the free memory: other schedules, the same bits.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "free memory is unknown here")]
fn free_memory_changes_the_schedule_and_no_bit() {
    let mut config = Config {
        inner_steps: 6,
        ..config(Curriculum::Full)
    };
    config.engine.schedule = Policy::Auto;
    let run = |ranks| {
        let mut trainer = trainer(&config, 1);
        trainer.pupils = Pupils::new(&trainer.device, ranks);
        trainer.step(&data()).unwrap();
        trainer.step(&data()).unwrap();
        let schedule = trainer.pupils.last().unwrap().unroll.schedule();
        (schedule, trainer.arrays().unwrap())
    };
    // Shared by more ranks than there are bytes, no memory is free.
    let ((roomy, expected), (tight, found)) = (run(1), run(usize::MAX));
    assert_eq!(roomy, Schedule::store_all());
    assert_ne!(tight, roomy);
    assert_eq!(found, expected);
}

#[test]
fn a_population_is_drawn_resumed_and_averaged() {
    let config = |learners_per_step| Config {
        learner: population(),
        learners_per_step,
        widths: "none".parse().unwrap(),
        outer_lr: 1e-3,
        ..config(Curriculum::Full)
    };
    let mut whole = trainer(&config(4), 1);
    let mut first = trainer(&config(4), 2);
    first.step(&data()).unwrap();
    let mut second = trainer(&config(4), 2);
    second.restore(&first.arrays().unwrap(), 1).unwrap();
    // Plans that come back from elsewhere than the last step are the plans.
    second.pupils = Pupils::new(&second.device, 1);
    let mut families = std::collections::BTreeSet::new();
    for step in 0..5 {
        let found = whole.step(&data()).unwrap();
        families.extend(found.families);
        if step > 0 {
            assert_eq!(second.step(&data()).unwrap().meta_loss, found.meta_loss);
        }
    }
    assert_eq!(families.len(), 3);
    assert_eq!(second.arrays().unwrap(), whole.arrays().unwrap());

    let run = |config: &Config, classes: Option<Vec<Class>>| {
        let mut trainer = trainer(config, 1);
        trainer.next = classes.map(|classes| ((0, 0), classes));
        let step = trainer.step(&data()).unwrap();
        let gradient = trainer.arrays().unwrap()["adam.m.log_lr"].to_f64_vec();
        let losses = [step.meta_loss, step.real_loss, step.inner_loss];
        [losses.to_vec(), gradient].concat()
    };
    let found = run(&config(4), None);
    let mut mean = vec![0.0; found.len()];
    let classes = pupils::draw(&config(4), Problem::MNIST, None, 0, 0..4).unwrap();
    assert!(classes.len() > 1);
    for class in classes {
        let share = class.extent.learners as f64 / 4.0;
        let alone = run(&config(class.extent.learners), Some(vec![class]));
        mean.iter_mut()
            .zip(alone)
            .for_each(|(m, x)| *m += share * x);
    }
    for (found, mean) in found.iter().zip(&mean) {
        assert!(
            (found - mean).abs() <= 1e-5 * mean.abs().max(1e-3),
            "{found} and {mean}"
        );
    }
}

#[test]
fn gradients_of_logarithms_are_slopes() {
    let mut trainer = trainer(&config(Curriculum::ShuffledBatch), 1);
    let (_, classes) = trainer.draw((0, 0)).unwrap();
    trainer.give_data(&data()).unwrap();
    let pupil = trainer.queue_gradient(&classes[0]).unwrap();
    let gradients = pupil.unroll.gradients().to_arrays().unwrap();
    // Noise is left out: the meta-loss jumps where a pooling window changes its winner, and in f32 the
    // points cannot be near enough to miss that. tests/whole_gtn.rs checks it in f64.
    let h = 2e-3;
    for name in ["log_lr", "log_momentum"] {
        let gradient = gradients[name].as_f32().unwrap();
        let length = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
        let at = trainer.teacher.values.get(name).unwrap();
        let mut moved = |h: f32| {
            // Along the gradient itself the slope is its length.
            let along = at.as_f32().unwrap().iter().zip(gradient);
            let along: Vec<f32> = along.map(|(x, g)| x + h * g / length).collect();
            let along = Array::new([along.len()], along).unwrap();
            trainer.teacher.values.write(name, &along).unwrap();
            let pupil = trainer.queue_gradient(&classes[0]).unwrap();
            trainer.losses(&pupil).unwrap().unwrap().total()
        };
        let slope = (moved(h) - moved(-h)) / (2.0 * f64::from(h));
        trainer.teacher.values.write(name, &at).unwrap();
        let error = (slope / f64::from(length) - 1.0).abs();
        assert!(error < 0.02, "{name}: {slope} and {length}");
    }
}

/// What a run with each kind of teacher learns moves, goes on bit for bit, and is what evaluation teaches with.
#[test]
fn a_teacher_may_begin_with_copies_of_real_images() {
    use crate::data::coreset::Choice;
    use crate::eval::training_data::TrainingData;
    use ImagesChoice::{Generator, Pixels};
    use StartImages::{Noise, Real};
    let (data, device) = (data(), Device::cpu(Some(1)).unwrap());
    let real = data.normalised(&data.train, &Choice::Random.of(&data.train, 10, 30, 1));
    let distance = |curriculum, (images, labels), start_images| {
        let config = Config {
            images,
            labels,
            start_images,
            generator_hidden: 32,
            generator_channels: [8, 4],
            noise: 16,
            ..config(curriculum)
        };
        let mut trainer = trainer(&config, 1);
        trainer.begin_with_copies(&data).unwrap();
        let lesson = TrainingData::synthetic(&device, &config, trainer.teacher(), 0).unwrap();
        let made = lesson.images().unwrap();
        // The copies of a shuffled curriculum come in another order.
        let order = config.curriculum.order([3, 10], config.seed, 0);
        let of = |i: usize| &real[i * 784..][..784];
        let differences = order.iter().flat_map(|&i| of(i)).zip(&made);
        let squares = differences.map(|(x, y)| f64::from((x.clamp(-1.86, 1.86) - y).powi(2)));
        squares.sum::<f64>() / made.len() as f64
    };
    for curriculum in [Curriculum::Full, Curriculum::AllShuffled] {
        let pixels = distance(curriculum, (Pixels, LabelsChoice::Soft), Real);
        assert!(pixels < 1e-9, "{curriculum:?}: {pixels}");
    }
    for labels in [LabelsChoice::Fixed, LabelsChoice::Generator] {
        let [copied, random] =
            [Real, Noise].map(|start| distance(Curriculum::Full, (Generator, labels), start));
        assert!(
            copied < random / 2.0,
            "{labels:?}: {copied}, and {random} before"
        );
    }
}

#[test]
fn copies_take_an_image_of_every_class() {
    let mut data = data();
    let most = data
        .train
        .labels
        .iter()
        .map(|&label| label.min(8))
        .collect();
    data.train.labels = most;
    let config = Config {
        images: ImagesChoice::Pixels,
        start_images: StartImages::Real,
        ..config(Curriculum::Full)
    };
    let error = trainer(&config, 1).begin_with_copies(&data).unwrap_err();
    assert!(error.to_string().contains("no training image"), "{error}");
}

#[test]
fn every_teacher_learns_and_teaches() {
    use crate::eval::training_data::TrainingData;
    let pixels = (ImagesChoice::Pixels, LabelsChoice::Soft);
    for (curriculum, (images, labels)) in [
        (Curriculum::Gaussian, Default::default()),
        (
            Curriculum::Gaussian,
            (ImagesChoice::Generator, LabelsChoice::Soft),
        ),
        (Curriculum::Full, pixels),
        (Curriculum::AllShuffled, pixels),
        (
            Curriculum::ShuffledBatch,
            (ImagesChoice::Pixels, LabelsChoice::Fixed),
        ),
        (
            Curriculum::Full,
            (ImagesChoice::Generator, LabelsChoice::Generator),
        ),
        (
            Curriculum::NoCurriculum,
            (ImagesChoice::Generator, LabelsChoice::Generator),
        ),
    ] {
        let config = Config {
            images,
            labels,
            ..config(curriculum)
        };
        let mut whole = trainer(&config, 1);
        let start = whole.arrays().unwrap();
        whole.step(&data()).unwrap();
        let first = whole.arrays().unwrap();
        for (name, array) in first.iter().filter(|(name, _)| !name.starts_with("adam.")) {
            assert_ne!(
                *array, start[name],
                "{curriculum:?} {images:?} {labels:?}: {name}"
            );
        }
        let pixels = images == ImagesChoice::Pixels;
        assert_eq!(first.contains_key("learned.pixels"), pixels);
        assert_eq!(
            first.contains_key("learned.label_logits"),
            labels == LabelsChoice::Soft
        );
        assert_eq!(
            first.keys().any(|name| name.starts_with("generator.")),
            !pixels
        );
        whole.step(&data()).unwrap();
        let mut resumed = trainer(&config, 2);
        resumed.restore(&first, 1).unwrap();
        resumed.step(&data()).unwrap();
        assert_eq!(resumed.arrays().unwrap(), whole.arrays().unwrap());

        let device = Device::cpu(Some(1)).unwrap();
        let lesson = TrainingData::synthetic(&device, &config, resumed.teacher(), 7).unwrap();
        let images = lesson.images().unwrap();
        assert_eq!(images.len(), 3 * 10 * 28 * 28);
        assert!(images.iter().all(|x| x.abs() <= 2.0));
        let arrays = lesson.arrays(config.inner_optimizer.0).unwrap();
        let shares = arrays["y"].to_f64_vec();
        for (row, &label) in shares.chunks_exact(10).zip(&lesson.labels) {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{row:?}");
            let most = row.iter().copied().fold(0.0, f64::max);
            // What is learned of an image need not have stayed where it began.
            let may_move = labels == LabelsChoice::Soft;
            assert!(
                may_move || row[usize::from(label)] == most,
                "{label} of {row:?}"
            );
        }
    }
}

/// A run with another inner optimiser moves all that it learns, and goes on bit for bit.
#[test]
fn every_inner_optimizer_is_learned_through() {
    let rates = [Rates::Role, Rates::One].into_iter().cycle();
    for (&inner_optimizer, inner_rates) in OptimizerChoice::value_variants().iter().zip(rates) {
        let lr = inner_optimizer.usual_lr() / 10.0;
        let config = Config {
            inner_optimizer,
            inner_rates,
            inner_lr: lr,
            learn: "lr,momentum:shared,beta1,beta2:shared,decay,weight_decay"
                .parse()
                .unwrap(),
            ..config(if inner_optimizer.0 == Optimizer::Lion {
                Curriculum::RealData
            } else {
                Curriculum::Full
            })
        };
        let mut whole = trainer(&config, 1);
        let start = whole.arrays().unwrap();
        whole.step(&data()).unwrap();
        let first = whole.arrays().unwrap();
        whole.step(&data()).unwrap();
        let learned = first
            .iter()
            .filter(|(name, _)| name.starts_with("learned."));
        for (name, array) in learned {
            if name == "learned.log_lr" && inner_rates == Rates::Role {
                assert_eq!(array.shape()[..], [config.inner_steps, 4]);
            }
            assert_ne!(*array, start[name], "{inner_optimizer:?}: {name}");
        }
        let names = first.keys().filter(|name| name.starts_with("learned.log"));
        let wanted = inner_optimizer.0.hyper().len();
        let fixed = inner_optimizer
            .0
            .hyper()
            .iter()
            .filter(|(n, _)| *n == "eps" || !is_reached(inner_optimizer.0, n));
        assert_eq!(names.count(), wanted - fixed.count(), "{inner_optimizer:?}");
        let mut resumed = trainer(&config, 2);
        resumed.restore(&first, 1).unwrap();
        resumed.step(&data()).unwrap();
        assert_eq!(resumed.arrays().unwrap(), whole.arrays().unwrap());
    }
}

/// Every optimiser moves all that is learned, keeps its state in the checkpoint under its name, and goes on bit for bit.
#[test]
fn every_outer_optimizer_moves_what_is_learned() {
    for &outer_optimizer in OptimizerChoice::value_variants() {
        if outer_optimizer.0 == Optimizer::ReversibleMomentum {
            continue;
        }
        let config = Config {
            outer_optimizer,
            outer_lr: 0.01,
            outer_weight_decay: 0.1,
            ..config(Curriculum::Full)
        };
        let mut whole = trainer(&config, 1);
        let start = whole.arrays().unwrap();
        whole.step(&data()).unwrap();
        let first = whole.arrays().unwrap();
        whole.step(&data()).unwrap();
        let prefix = format!("{}.", outer_optimizer.0.name());
        for (name, array) in &first {
            // The weight norm before a batch norm is of no matter.
            let moves = name.starts_with("learned.") || name.ends_with(".v");
            assert!(!moves || *array != start[name], "{prefix} {name}");
        }
        let kept = first
            .keys()
            .filter(|name| name.starts_with(&prefix))
            .count();
        let keeps = outer_optimizer.0.state(&Shape::scalar(), F32).len();
        assert_eq!(kept, keeps * (first.len() - kept), "{prefix}");
        let mut resumed = trainer(&config, 2);
        resumed.restore(&first, 1).unwrap();
        resumed.step(&data()).unwrap();
        assert_eq!(resumed.arrays().unwrap(), whole.arrays().unwrap());
        let mut begun = trainer(&config, 1);
        begun.begin_with(&first).unwrap();
        let begun = begun.arrays().unwrap();
        for (name, array) in &begun {
            let from = if name.starts_with(&prefix) {
                &start
            } else {
                &first
            };
            assert_eq!(*array, from[name], "{prefix} {name}");
        }
    }
}

/// One rate that is not learned is the same for all roles, where the optimiser has no use for the inputs of a weight.
#[test]
fn a_fixed_rate_is_that_of_every_role() {
    let step = |inner_rates, learn: &str| {
        let config = Config {
            inner_rates,
            learn: learn.parse().unwrap(),
            ..config(Curriculum::Full)
        };
        let mut trainer = trainer(&config, 1);
        trainer.step(&data()).unwrap();
        trainer.arrays().unwrap()
    };
    let shared = step(Rates::Role, "lr:shared");
    assert_eq!(shared["learned.log_lr"].shape()[..], [4]);
    assert_eq!(step(Rates::Role, "momentum"), step(Rates::One, "momentum"));
}

#[test]
fn of_real_data_only_the_rates_are_learned() {
    let config = config(Curriculum::RealData);
    let mut trainer = trainer(&config, 1);
    let before = trainer.teacher().hyper(&config).unwrap();
    trainer.step(&data()).unwrap();
    let learned = trainer.arrays().unwrap().into_keys();
    let learned: Vec<String> = learned.filter(|name| !name.starts_with("adam")).collect();
    assert_eq!(learned, ["learned.log_lr", "learned.log_momentum"]);
    let after = trainer.teacher().hyper(&config).unwrap();
    let numbers = |hyper: &[(&str, Array)], i: usize| hyper[i].1.to_f64_vec();
    let [lr, momentum] = [0, 1].map(|i| numbers(&after, i));
    let before = [0, 1].map(|i| numbers(&before, i));
    assert!(lr.iter().zip(&before[0]).all(|(a, b)| a != b));
    // The first momentum meets a velocity of zero: it has no gradient.
    assert!(
        momentum[1..]
            .iter()
            .zip(&before[1][1..])
            .all(|(a, b)| a != b)
    );
}

/// The labeller is learned with the rates; what it is shown has no class, and what the meta-loss is shown has one.
#[test]
fn of_unlabelled_images_a_labeller_is_learned() {
    use crate::eval::training_data::TrainingData;
    let config = Config {
        labelled: 40,
        ..config(Curriculum::SemiSupervised)
    };
    let mut data = data();
    let mut trainer = trainer(&config, 1);
    let before = trainer.arrays().unwrap();
    let step = trainer.step(&data).unwrap();
    let after = trainer.arrays().unwrap();
    for (name, array) in after
        .iter()
        .filter(|(name, _)| name.starts_with("learned."))
    {
        assert_ne!(*array, before[name], "{name}");
    }
    assert!(after.contains_key("learned.labeller.d1.v"));
    assert!(!trainer.teacher().values.has("y"));

    let device = Device::cpu(Some(1)).unwrap();
    let taught = TrainingData::taught(&device, &config, trainer.teacher(), &data, 7).unwrap();
    let shares = taught.arrays(config.inner_optimizer.0).unwrap()["y"].to_f64_vec();
    for row in shares.chunks_exact(10) {
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{row:?}");
    }

    // Other classes of what is unlabelled change nothing, as long as the same images are.
    let known = trainer.known.clone().unwrap();
    for &image in &known.others {
        data.train.labels[image] = 0;
    }
    let mut again = self::trainer(&config, 1);
    again.known = Some(known);
    assert_eq!(again.step(&data).unwrap().meta_loss, step.meta_loss);
    assert_eq!(again.arrays().unwrap(), after);
}

#[test]
fn a_step_that_runs_away_changes_nothing() {
    let config = Config {
        inner_lr: 1e30,
        ..config(Curriculum::Full)
    };
    let mut trainer = trainer(&config, 1);
    let before = trainer.arrays().unwrap();
    let error = trainer.step(&data()).unwrap_err().to_string();
    assert!(
        error.starts_with("outer step 0: the ") && error.contains("is not finite"),
        "{error}"
    );
    assert_eq!(
        (trainer.arrays().unwrap(), trainer.outer_step()),
        (before, 0)
    );
}

#[test]
fn clipping_bounds_what_adam_sees() {
    let mean = |clip| {
        let mut trainer = trainer(
            &Config {
                clip,
                ..config(Curriculum::Full)
            },
            1,
        );
        let norm = trainer.step(&data()).unwrap().gradient_norm;
        let arrays = trainer.arrays().unwrap();
        let means = arrays
            .iter()
            .filter(|(name, _)| name.starts_with("adam.m."));
        let squares = means
            .flat_map(|(_, array)| array.to_f64_vec())
            .map(|m| m * m);
        // After the first step the mean is a tenth of the gradient.
        (norm, 10.0 * squares.sum::<f64>().sqrt())
    };
    let (norm, seen) = mean(0.0);
    assert!((seen / norm - 1.0).abs() < 1e-4, "{seen} of {norm}");
    let (same, clipped) = mean(norm / 4.0);
    assert_eq!(same, norm);
    assert!((clipped / norm - 0.25).abs() < 1e-4, "{clipped} of {norm}");
}

#[test]
fn a_wild_meta_gradient_is_left_out() {
    let step = |leave_out| {
        let mut trainer = trainer(
            &Config {
                leave_out,
                ..config(Curriculum::Full)
            },
            1,
        );
        let before = trainer.arrays().unwrap();
        let norm = trainer.step(&data()).unwrap().gradient_norm;
        (
            norm,
            trainer.arrays().unwrap() == before,
            trainer.outer_step(),
        )
    };
    let (norm, same, _) = step(0.0);
    assert!(!same);
    assert_eq!(step(1.1 * norm), (norm, false, 1));
    assert_eq!(step(0.9 * norm), (norm, true, 1));
}

#[test]
fn trainings_that_run_away_are_left_out_until_ten_in_a_row() {
    let config = Config {
        inner_lr: 1e30,
        outer_steps: 20,
        leave_out: 100.0,
        ..config(Curriculum::Full)
    };
    let mut trainer = trainer(&config, 1);
    let before = trainer.arrays().unwrap();
    for _ in 1..RUNAWAYS {
        let step = trainer.step(&data()).unwrap();
        assert!(step.meta_loss.is_nan() && step.widths.len() == 3);
        // As metrics and other ranks get it.
        let text = serde_json::to_string(&step).unwrap();
        assert!(text.contains("\"meta_loss\":null"), "{text}");
        let read: Step = serde_json::from_str(&text).unwrap();
        assert!(read.meta_loss.is_nan() && read.widths == step.widths);
    }
    assert_eq!(trainer.arrays().unwrap(), before);
    let error = trainer.step(&data()).unwrap_err().to_string();
    assert!(
        error.starts_with("outer step 9: the meta-gradient, as 9 before it, is not finite"),
        "{error}"
    );
    assert_eq!(trainer.outer_step(), 9);
}
