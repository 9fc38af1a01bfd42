//! What a training declares, and the meta-gradients of all of it.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;
#[path = "training/mistakes.rs"]
mod mistakes;

use autograd::prelude::*;
use common::{gradients, values};
use tensor::Arrays;

fn array(name: &str, shape: &[usize]) -> ArraySpec {
    ArraySpec::new(name, F64, shape)
}

/// A weight that is drawn to a learned centre along the axes of the data.
fn drawn() -> Training<'static> {
    Training::new(Optimizer::Sgd)
        .weights([array("w", &[2])])
        .learned([array("centre", &[2])])
        .given([array("x", &[4, 2])])
        .per_step(["x"])
        .loss(|s| ((s["w"] - s["centre"])? * s["x"])?.powi(2)?.sum_all())
        .outer(|s| s["w"].powi(2)?.sum_all())
}

/// The meta-gradient, which has the same bits in every schedule, is nearly the same in both modes, and of which every
/// number is the slope of the meta-loss: by central differences of fourth order.
fn checked_gradients(training: &Training<'_>, horizon: &Horizon) -> Arrays {
    const H: f64 = 3e-5;
    let device = Device::cpu(Some(1)).unwrap();
    let values = values(&device, training);
    let unrolled = |horizon: Horizon| {
        let held = device.held_bytes();
        let mut unroll = Unroll::new(&device, training, &horizon).unwrap();
        assert_eq!(device.held_bytes() - held, unroll.forecast().bytes);
        let losses = unroll.gradient(&values).unwrap();
        (unroll, losses)
    };
    let (mut unroll, losses) = unrolled(horizon.clone());
    let found = gradients(&unroll);
    for schedule in [
        Schedule::store_all(),
        Schedule::every(2).with_prelude(),
        Schedule::binomial(1),
    ] {
        let (other, its_losses) = unrolled(horizon.clone().schedule(schedule));
        assert_eq!(
            (its_losses, gradients(&other)),
            (losses.clone(), found.clone())
        );
    }
    let (reverse, _) = unrolled(horizon.clone().mode(Mode::Reverse));
    let reverse = gradients(&reverse);
    for (name, gradient) in &found {
        let size = gradient
            .to_f64_vec()
            .into_iter()
            .fold(0.0, |most: f64, g| most.max(g.abs()));
        assert!(size > 1e-4, "{name} has a gradient");
        let start = values.get(name).unwrap();
        let pairs = gradient
            .to_f64_vec()
            .into_iter()
            .zip(reverse[name].to_f64_vec());
        for (i, (mixed, reverse)) in pairs.enumerate() {
            assert!((mixed - reverse).abs() <= 1e-13 * size, "{name} {i}");
            let mut at = |steps: f64| {
                let mut moved = start.to_f64_vec();
                moved[i] += H * steps;
                let moved = Array::new(start.shape().clone(), moved).unwrap();
                values.write(name, &moved).unwrap();
                unroll.gradient(&values).unwrap().total()
            };
            let slope = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * H);
            // Differences of rounded losses are no better.
            let rounding = 4.0 * f64::EPSILON * losses.total().abs() / H;
            assert!(
                (slope - mixed).abs() <= 1e-9 * size + rounding,
                "{name} {i}: {slope} {mixed}"
            );
        }
        values.write(name, &start).unwrap();
    }
    found
}

fn outer_at_2_and_5() -> Horizon {
    Horizon::new(5).outer_at(|step| step == 2 || step == 5)
}

/// A learned array in all the ways in which it can be read: a row for every step and for every outer loss, whole in
/// both losses, and in what is prepared.
#[test]
fn one_array_is_read_in_every_way_at_once() {
    let training = Training::new(Optimizer::Momentum)
        .weights([array("w", &[3])])
        .learned([array("z", &[2, 3])])
        .prepare("whole", |s| Ok(s["z"]))
        .prepare("of an outer loss", |s| Ok(s["z"]))
        .prepare("twice", |s| s["z"] * 2.0)
        .per_step(["z"])
        .per_outer(["of an outer loss"])
        .loss(|s| {
            let near = ((s["w"] - s["z"])?.powi(2)? * 0.3)?.sum_all()?;
            near + (s["whole"] * s["w"])?.tanh()?.sum_all()?
        })
        .outer(|s| {
            let near = ((s["w"] - s["of an outer loss"])?.powi(2)?).sum_all()?;
            let whole = (s["whole"] + s["twice"].tanh()?)?;
            near + (whole * s["w"])?.powi(2)?.sum_all()?
        });
    checked_gradients(&training, &outer_at_2_and_5());
}

/// The same array, read only whole, only by row, and only by a prepared one.
#[test]
fn gradients_reach_what_is_learned_on_every_way() {
    let bare = || {
        Training::new(Optimizer::Sgd)
            .weights([array("w", &[3])])
            .learned([array("z", &[2, 3])])
            .outer(|s| s["w"].tanh()?.sum_all())
    };
    let whole = bare().loss(|s| (s["w"] * s["z"])?.tanh()?.sum_all());
    let by_row = bare()
        .per_step(["z"])
        .loss(|s| (s["w"] * s["z"])?.tanh()?.sum_all());
    let prepared = bare()
        .prepare("p", |s| s["z"].tanh()?.sum(&[0]))
        .loss(|s| (s["w"] * s["p"])?.tanh()?.sum_all());
    let hidden = bare()
        .prepare("z", |s| s["z"].tanh())
        .per_step(["z"])
        .loss(|s| (s["w"] * s["z"])?.tanh()?.sum_all());
    for training in [whole, by_row, prepared, hidden] {
        checked_gradients(&training, &outer_at_2_and_5());
    }
}

/// Arrays of the outer loss alone, such as targets: rows for the outer losses, taken in turn.
#[test]
fn rows_of_outer_losses_are_learned() {
    for rows in [1, 2, 3] {
        let training = drawn()
            .learned([array("target", &[rows, 2]), array("scale", &[])])
            .per_outer(["target"])
            .outer(|s| ((s["w"] * s["scale"])? - s["target"])?.powi(2)?.sum_all());
        let horizon = Horizon::new(6).outer_at(|step| step % 2 == 0);
        let found = checked_gradients(&training, &horizon);
        // What does not flow through steps is the same in a window, for outer losses before it, too.
        let device = Device::cpu(Some(1)).unwrap();
        let horizon = horizon.schedule(Policy::Window(1));
        let mut unroll = Unroll::new(&device, &training, &horizon).unwrap();
        unroll.gradient(&values(&device, &training)).unwrap();
        let truncated = gradients(&unroll);
        assert_ne!(truncated["centre"], found["centre"]);
        for name in ["target", "scale"] {
            let pairs = truncated[name]
                .to_f64_vec()
                .into_iter()
                .zip(found[name].to_f64_vec());
            pairs.for_each(|(a, b)| assert!((a - b).abs() <= 1e-14 * b.abs(), "{name}: {a} {b}"));
        }
    }
}

/// A start that is a product of learned matrices, one that is learned as it is, one array that two weights start from,
/// and a buffer's. The losses read most of them besides.
#[test]
fn starts_are_prepared_or_learned() {
    let training = Training::new(Optimizer::Adam)
        .weights([
            array("w", &[2, 3]),
            array("v", &[3]),
            array("p", &[3]),
            array("q", &[3]),
        ])
        .buffers([array("mean", &[3])])
        .learned([
            array("a", &[2, 2]),
            array("b", &[2, 3]),
            array("shared", &[3]),
        ])
        .learned([array("v", &[3]), array("mean", &[3])])
        .prepare("w", |s| s["a"].matmul(s["b"]))
        .prepare("w at the start", |s| Ok(s["w"]))
        .prepare("v at the start", |s| Ok(s["v"]))
        .prepare("p", |s| Ok(s["shared"]))
        .prepare("q", |s| Ok(s["shared"]))
        .loss_and_buffers(|s| {
            let far = (s["v"] - s["v at the start"])?.powi(2)?.sum_all()?;
            let far = (far + (s["w"] - s["w at the start"])?.powi(2)?.sum_all()?)?;
            let h = (s["w"].tanh()? * ((s["v"] + s["p"])? + s["q"].exp()?)?)?;
            let h = (h + s["b"])?.sum(&[0])?;
            let mean = ((s["mean"] * 0.7)? + (h * 0.3)?)?;
            Ok((((h - s["mean"])?.powi(2)?.sum_all()? + far)?, vec![mean]))
        })
        .outer(|s| {
            let h = (s["w"] * (s["v"] - (s["p"] * s["q"])?)?)?.sum(&[0])?;
            ((h - s["mean"])?.powi(2)? + s["b"].sum(&[0])?.tanh()?)?.sum_all()
        });
    checked_gradients(&training, &outer_at_2_and_5());
}

/// Constants and integers have no gradient, and are in nobody's way.
#[test]
fn constants_and_integers_are_prepared() {
    let training = drawn()
        .learned([ArraySpec::new("order", I32, [4])])
        .given([array("data", &[4, 2])])
        .prepare("x", |s| s["data"].rows(s["order"]))
        .prepare("lr", |s| Ok(s.tape().constant(0.2, F64, [])))
        .prepare("w", |s| Ok(s.tape().constant(0.7, F64, [2])));
    let device = Device::cpu(Some(1)).unwrap();
    let mut values = values(&device, &training);
    let order = Array::new([4], vec![3, 1, 1, 0]).unwrap();
    values.set("order", &order).unwrap();
    let mut unroll = Unroll::new(&device, &training, &Horizon::new(4)).unwrap();
    let losses = unroll.gradient(&values).unwrap();
    let found = gradients(&unroll);
    assert_eq!(found["order"].to_f64_vec(), [0.0; 4]);

    let plain = drawn().given([array("lr", &[])]);
    let data = values.get("data").unwrap().to_f64_vec();
    let picked = [3, 1, 1, 0]
        .into_iter()
        .flat_map(|row| data[2 * row..][..2].to_vec());
    for (name, array) in [
        (
            "x",
            Array::new([4, 2], picked.collect::<Vec<f64>>()).unwrap(),
        ),
        ("lr", Array::scalar(0.2, F64)),
        ("w", Array::full(F64, [2], 0.7)),
    ] {
        values.set(name, &array).unwrap();
    }
    let mut unroll = Unroll::new(&device, &plain, &Horizon::new(4)).unwrap();
    assert_eq!(unroll.gradient(&values).unwrap(), losses);
    assert_eq!(gradients(&unroll)["centre"], found["centre"]);
}

/// ½Σθ² in T = 2 steps with rates r: θ₂ = (1 − r)²θ₀, so that the loss has the slope −2 θ₀² (1 − r)³ along r.
#[test]
fn a_rate_for_every_parameter_is_learned() {
    let device = Device::cpu(Some(1)).unwrap();
    let training = Training::new(Optimizer::Sgd)
        .weights([array("theta", &[3])])
        .learned_list("rates", [array("rate", &[3])])
        .hyper("lr", |s, weight| Ok(s.list("rates")[weight]))
        .loss(|s| s["theta"].powi(2)?.sum_all()? * 0.5)
        .outer(|s| s["theta"].powi(2)?.sum_all()? * 0.5);
    let (theta, rate) = ([1.0, -2.0, 3.0], [0.1, 0.2, 0.3]);
    let of = |numbers: [f64; 3]| Array::new([3], numbers.to_vec()).unwrap();
    let values = Values::new(&device, [("theta", &of(theta)), ("rate", &of(rate))]).unwrap();
    for mode in [Mode::Mixed, Mode::Reverse] {
        let mut unroll = Unroll::new(&device, &training, &Horizon::new(2).mode(mode)).unwrap();
        unroll.gradient(&values).unwrap();
        let found = unroll.gradients().get("rate").unwrap().to_f64_vec();
        for ((found, theta), rate) in found.iter().zip(theta).zip(rate) {
            let slope = -2.0 * theta * theta * (1.0f64 - rate).powi(3);
            assert!(
                (found - slope).abs() < 1e-14 * slope.abs(),
                "{found} {slope}"
            );
        }
    }
}

/// A rate of every step times one of every parameter, and a momentum for each weight.
#[test]
fn hyper_parameters_may_differ_by_weight_and_step() {
    let training = Training::new(Optimizer::Momentum)
        .weights([array("w", &[2, 3]), array("v", &[3])])
        .learned([
            array("lr", &[5]),
            array("of w", &[2, 3]),
            array("of v", &[]),
        ])
        .learned([array("momenta", &[2, 5])])
        .prepare("momenta", |s| s["momenta"].permute(&[1, 0]))
        .per_step(["momenta"])
        .hyper("lr", |s, weight| s["lr"] * s[["of w", "of v"][weight]])
        .hyper("momentum", |s, weight| s["momenta"].slice(&[weight], &[1]))
        .loss(|s| ((s["w"] * s["v"])?.tanh()? - 0.3)?.powi(2)?.sum_all())
        .outer(|s| ((s["w"] * s["v"])? - 0.5)?.powi(2)?.sum_all());
    checked_gradients(&training, &outer_at_2_and_5());
}

/// A number for all steps, one for every step, and two that they take in turn.
#[test]
fn a_hyper_parameter_is_shared_by_steps() {
    let of = |shape: &[usize]| {
        let training = drawn().learned([array("lr", shape)]);
        // Fewer numbers than steps are taken in turn, where that is said.
        let in_turn = (shape == [2]).then_some("lr");
        let training = training.per_step(in_turn);
        (checked_gradients(&training, &Horizon::new(4)), training)
    };
    let device = Device::cpu(Some(1)).unwrap();
    let (_, each) = of(&[4]);
    let mut all = values(&device, &each);
    let mut at = |shape: &[usize], rates: &[f64]| {
        let (_, training) = of(shape);
        all.set("lr", &Array::new(shape, rates.to_vec()).unwrap())
            .unwrap();
        let mut unroll = Unroll::new(&device, &training, &Horizon::new(4)).unwrap();
        let losses = unroll.gradient(&all).unwrap();
        let gradient = unroll.gradients().get("lr").unwrap();
        assert_eq!(gradient.shape(), &shape.into());
        (losses, gradient.to_f64_vec())
    };
    let same = |found: f64, expected: f64| (found - expected).abs() < 1e-14 * expected.abs();
    let (losses, by_step) = at(&[4], &[0.1; 4]);
    let (shared_losses, shared) = at(&[], &[0.1]);
    assert_eq!(shared_losses, losses);
    assert!(same(shared[0], by_step.iter().sum()));
    let (losses, by_step) = at(&[4], &[0.1, 0.05, 0.1, 0.05]);
    let (turn_losses, in_turn) = at(&[2], &[0.1, 0.05]);
    assert_eq!(turn_losses, losses);
    assert!(same(in_turn[0], by_step[0] + by_step[2]));
    assert!(same(in_turn[1], by_step[1] + by_step[3]));
}

/// What is neither learned nor prepared starts as the values say; weights must, the rest is zero if they say nothing.
#[test]
fn values_may_have_starts_of_everything() {
    let device = Device::cpu(Some(1)).unwrap();
    let training = Training::new(Optimizer::Momentum)
        .weights([array("w", &[])])
        .buffers([array("count", &[])])
        .loss_and_buffers(|s| Ok((s["w"], vec![(s["count"] + 1.0)?])))
        .outer(|s| s["w"] + s["count"])
        .given([array("lr", &[]), array("momentum", &[])]);
    let number = |number| Array::scalar(number, F64);
    let given = [
        ("w", &number(8.0)),
        ("lr", &number(0.25)),
        ("momentum", &number(0.5)),
    ];
    let mut values = Values::new(&device, given).unwrap();
    let mut unroll = Unroll::new(&device, &training, &Horizon::new(2)).unwrap();
    let mut trainer = Trainer::new(&device, &training, 2).unwrap();
    let mut run = |values: &Values| {
        let losses = unroll.gradient(values).unwrap();
        let mut path = Vec::new();
        let inner = trainer.train(values, |done, state| {
            let one = |name| Ok::<_, Error>(state.get(name)?.to_f64_vec()[0]);
            path.push([done as f64, one("w")?, one("w.u")?, one("count")?]);
            Ok(())
        });
        assert_eq!(inner.unwrap(), losses.inner);
        (losses.total(), path)
    };
    // u′ = ½u + 1, w′ = w − ¼u′
    assert_eq!(
        run(&values),
        (
            7.375 + 2.0,
            vec![
                [0.0, 8.0, 0.0, 0.0],
                [1.0, 7.75, 1.0, 1.0],
                [2.0, 7.375, 1.5, 2.0]
            ]
        )
    );
    values
        .set_all([("w.u", &number(2.0)), ("count", &number(5.0))])
        .unwrap();
    assert_eq!(
        run(&values),
        (
            7.0 + 7.0,
            vec![
                [0.0, 8.0, 2.0, 5.0],
                [1.0, 7.5, 2.0, 6.0],
                [2.0, 7.0, 2.0, 7.0]
            ]
        )
    );
    // Arrays that no training declares do not matter, but those of a name that it knows must fit.
    values.set("more", &number(1.0)).unwrap();
    assert_eq!(run(&values).0, 14.0);
    values.set("w.u", &Array::zeros(F64, [1])).unwrap();
    let error = trainer
        .train(&values, |_, _| Ok(()))
        .unwrap_err()
        .to_string();
    assert_eq!(error, "plan: `w.u` is f64 [1], where f64 [] is needed");
    assert!(unroll.gradient(&values).is_err());
}
