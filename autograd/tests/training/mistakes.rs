//! Trainings and values with a mistake: one clear line, and never a panic.

use super::*;

/// What is said of a training that cannot be, by whoever plans it.
fn refusal(training: &Training<'_>) -> String {
    let device = Device::cpu(Some(1)).unwrap();
    let unrolled = Unroll::new(&device, training, &Horizon::new(4)).unwrap_err();
    let trained = Trainer::new(&device, training, 4).unwrap_err();
    assert_eq!(trained.to_string(), unrolled.to_string());
    unrolled.to_string()
}

#[test]
fn names_that_do_not_exist_are_errors() {
    for (training, expected) in [
        (
            drawn().loss(|s| s["q"].sum_all()),
            "inner loss: there is no array `q` here, but centre, w, x",
        ),
        (
            drawn().outer(|s| (s["w"] * s["x"])?.sum_all()),
            "outer loss: there is no array `x` here, but centre, w",
        ),
        (
            drawn().prepare("p", |s| s["w"] * 2.0),
            "preparing `p`: there is no array `w` here, but centre, x",
        ),
        (
            drawn().hyper("lr", |s, _| Ok(s["rate"])),
            "hyper-parameter `lr`: there is no array `rate` here, but centre, x",
        ),
        (
            drawn().loss(|s| {
                s.list("layers")[..0]
                    .iter()
                    .fold(s["w"].sum_all(), |sum, _| sum)
            }),
            "inner loss: there is no array `layers` here, but centre, w, x",
        ),
        (
            drawn()
                .learned_list("layers", [array("a", &[2]), array("b", &[2])])
                .loss(|s| s["layers"].sum_all()),
            "inner loss: `layers` is a list of arrays: read it with `list`",
        ),
        (
            drawn()
                .prepare_list("layers", |_| Ok(vec![]))
                .loss(|s| (s["w"] * s["layers"])?.sum_all()),
            "inner loss: `layers` is a list of arrays: read it with `list`",
        ),
        (
            drawn().per_step(["q"]),
            "training: `q` is to be cut into rows, and there is no such array",
        ),
        (
            drawn().hyper("momentum", |s, _| Ok(s["centre"])),
            "training: sgd has no `momentum`, but lr",
        ),
    ] {
        assert_eq!(refusal(&training), expected);
    }
}

#[test]
fn what_nobody_reads_is_an_error() {
    let prepared = drawn().prepare("p", |s| s["centre"] * 2.0);
    assert_eq!(refusal(&prepared), "training: nobody reads `p`");
    let learned = drawn().learned([array("rate", &[])]);
    assert_eq!(refusal(&learned), "training: nobody reads `rate`");
    // A hyper-parameter of another optimiser.
    let learned = drawn().learned([array("momentum", &[])]);
    assert_eq!(refusal(&learned), "training: nobody reads `momentum`");
    // Its gradient would be zero, without a word.
    for name in ["centre", "w"] {
        let hidden = drawn().learned([array("w", &[2])]);
        let hidden = hidden.prepare(name, |s| Ok(s.tape().constant(1.0, F64, [2])));
        let expected = format!("training: nobody reads `{name}`, which is prepared anew");
        assert_eq!(refusal(&hidden), expected);
    }
    let given = drawn().given([array("rate", &[])]);
    assert_eq!(refusal(&given), "training: nobody reads `rate`");
    let several = drawn().learned([array("lr", &[3])]);
    assert_eq!(
        refusal(&several),
        "training: `lr` has 3 numbers for 4 steps; declare it `per_step` if they are to be taken in turn"
    );
}

#[test]
fn trainings_that_cannot_be_are_refused() {
    let bare = || Training::new(Optimizer::Sgd).weights([array("w", &[2])]);
    for (training, expected) in [
        (
            Training::new(Optimizer::Sgd),
            "training: it has no weights: call `weights`",
        ),
        (bare(), "training: it has no inner loss: call `loss`"),
        (
            bare().loss(|s| s["w"].cast(F32).sum_all()),
            "inner loss: %5 f32 [] is not f64 as the weight `w` is: cast it",
        ),
        (
            bare().buffers([ArraySpec::new("seen", I32, [])]),
            "training: the buffer `seen` is i32, not f32 or f64",
        ),
        (
            drawn()
                .hyper("lr", |s, _| Ok(s["centre"]))
                .hyper("lr", |s, _| Ok(s["centre"])),
            "training: the hyper-parameter `lr` is given twice",
        ),
        (
            drawn().weights([array("w", &[3])]),
            "training: two arrays of the learner are called `w`",
        ),
        (
            Training::new(Optimizer::Momentum).weights([array("w", &[2]), array("w.u", &[2])]),
            "training: two arrays of the learner are called `w.u`",
        ),
        (
            drawn().given([array("centre", &[2])]),
            "training: `centre` is declared twice",
        ),
        (
            drawn()
                .learned([array("rate", &[])])
                .per_step(["rate"])
                .hyper("lr", |s, _| Ok(s["rate"])),
            "per step: `rate` is []: it has no rows",
        ),
        (
            drawn().learned([array("w", &[3])]),
            "training: `w` is f64 [2] and cannot start as f64 [3]",
        ),
        (
            drawn().learned([array("lr", &[2, 3])]),
            "hyper-parameter `lr`: f64 [2, 3] does not stretch to the weight `w`, which is f64 [2]",
        ),
        (
            drawn().learned([ArraySpec::new("lr", F32, [4])]),
            "hyper-parameter `lr`: f32 [] does not stretch to the weight `w`, which is f64 [2]",
        ),
        (
            drawn().learned_list("lr", [array("a", &[]), array("b", &[])]),
            "hyper-parameter `lr`: `lr` is a list of arrays: read it with `list`",
        ),
        (
            drawn()
                .learned([array("rate", &[0])])
                .per_step(["rate"])
                .hyper("lr", |s, _| Ok(s["rate"])),
            "per step: `rate` is [0]: it has no rows",
        ),
        (
            drawn().weights([ArraySpec::new("i", I32, [2])]),
            "training: the weight `i` is i32, not f32 or f64",
        ),
    ] {
        assert_eq!(refusal(&training), expected);
    }
    for (training, expected) in [
        (
            drawn().loss(|s| s["w"] * s["centre"]),
            "f64 [2] is not one number",
        ),
        (drawn().outer(|s| Ok(s["w"])), "f64 [2] is not one number"),
        (
            drawn().buffers([array("mean", &[2])]),
            "it gives () as new values of buffers (f64 [2])",
        ),
    ] {
        let said = refusal(&training);
        assert!(said.ends_with(expected), "{said}");
    }
}

#[test]
fn only_a_meta_gradient_needs_an_outer_loss() {
    let device = Device::cpu(Some(1)).unwrap();
    let training = Training::new(Optimizer::Sgd)
        .weights([array("w", &[2])])
        .loss(|s| s["w"].sum_all());
    let error = Unroll::new(&device, &training, &Horizon::new(4)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "training: it has no outer loss: call `outer`"
    );
    let mut trainer = Trainer::new(&device, &training, 2).unwrap();
    let values = Values::new(&device, [("w", &Array::full(F64, [2], 1.0))]).unwrap();
    // At the customary rate of 0.01.
    let losses = trainer.train(&values, |_, _| Ok(())).unwrap();
    assert!((losses[0] - losses[1] - 0.02).abs() < 1e-15);
}

#[test]
fn values_that_do_not_fit_are_errors() {
    let device = Device::cpu(Some(1)).unwrap();
    let training = drawn();
    let mut unroll = Unroll::new(&device, &training, &Horizon::new(4)).unwrap();
    let mut trainer = Trainer::new(&device, &training, 4).unwrap();
    let mut refused = |arrays: &[(&str, Array)]| {
        let arrays = arrays.iter().map(|(name, array)| (*name, array));
        let values = Values::new(&device, arrays).unwrap();
        let unrolled = unroll.gradient(&values).unwrap_err().to_string();
        let trained = trainer.train(&values, |_, _| Ok(())).unwrap_err();
        assert_eq!(trained.to_string(), unrolled);
        unrolled
    };
    let [w, centre, x] = [&[2][..], &[2], &[4, 2]].map(|shape| Array::zeros(F64, shape));
    assert_eq!(
        refused(&[]),
        "plan: there is no array `centre`; there is none at all"
    );
    assert_eq!(
        refused(&[("w", w.clone()), ("centre", centre.clone())]),
        "plan: there is no array `x`; there are w, centre"
    );
    // The start of the weight.
    assert_eq!(
        refused(&[("centre", centre.clone()), ("x", x.clone())]),
        "plan: there is no array `w`; there are centre, x"
    );
    let short = Array::zeros(F64, [3, 2]);
    assert_eq!(
        refused(&[("w", w.clone()), ("centre", centre.clone()), ("x", short)]),
        "plan: `x` is f64 [3, 2], where f64 [4, 2] is needed"
    );
    assert_eq!(
        refused(&[("w", w), ("centre", centre.cast(F32)), ("x", x)]),
        "plan: `centre` is f32 [2], where f64 [2] is needed"
    );
}

#[test]
fn a_training_that_diverges_or_is_stopped_is_an_error() {
    let device = Device::cpu(Some(1)).unwrap();
    let training = drawn().given([array("lr", &[])]);
    let mut values = values(&device, &training);
    let mut trainer = Trainer::new(&device, &training, 4).unwrap();
    let error = trainer.train(&values, |done, state| {
        let missing = state.get("w.u").unwrap_err().to_string();
        assert_eq!(missing, "plan: the learner has no array `w.u`");
        if done == 2 {
            Err(Error::Setting("enough".into()))
        } else {
            Ok(())
        }
    });
    assert_eq!(error.unwrap_err().to_string(), "enough");
    trainer.train(&values, |_, _| Ok(())).unwrap();
    values.set("lr", &Array::scalar(1e300, F64)).unwrap();
    let error = trainer.train(&values, |_, _| Ok(())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the inner loss is not finite at inner step 1"
    );
}
