//! Several learners in an outer step: means, lots, their order, populations.

use super::*;

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

/// A step along the gradient of the order's loss lowers that loss. Where no learner is better than another,
/// the mean loss counts alone.
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
    // The only network that is better is not among the four.
    let (order, equal) = moved(begin(1.0, |i| usize::from(i == 0)));
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
