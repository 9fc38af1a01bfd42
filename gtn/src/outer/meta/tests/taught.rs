//! What is learned: by every teacher, through every inner optimiser, by every outer one.

use super::*;

#[test]
fn gradients_of_logarithms_are_slopes() {
    let mut trainer = trainer(&config(Curriculum::ShuffledBatch), 1);
    let (_, classes) = trainer.draw((0, 0)).unwrap();
    trainer.give_data(&data()).unwrap();
    let pupil = trainer.queue_gradient(&classes[0]).unwrap();
    let gradients = pupil.unroll.gradients().to_arrays().unwrap();
    // Noise is left out: the meta-loss jumps where the maximum of a pooling window changes places, and in f32
    // the two points cannot be close enough to avoid that. tests/whole_gtn.rs checks it in f64.
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
        // A shuffled curriculum has the copies in another order.
        let order = config.curriculum.order([3, 10], 30, config.seed, 0);
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

/// For each kind of teacher: all that is learned moves, a resumed run continues bit for bit, and evaluation
/// teaches with it.
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
            // A learned label need not have stayed with its first class.
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
            // The gain of a weight norm before a batch norm has no effect.
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

/// A rate that is not learned is the same for all roles, if the optimiser does not scale it by a weight's
/// inputs.
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

/// The labeller is learned along with the rates. It sees images without classes; the meta-loss sees images
/// with them.
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
