//! Trainings that run away, and meta-gradients that are too long.

use super::*;

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
            [trainer.outer_step(), trainer.left_out().into()],
        )
    };
    let (norm, same, _) = step(0.0);
    assert!(!same);
    assert_eq!(step(1.1 * norm), (norm, false, [1, 0]));
    assert_eq!(step(0.9 * norm), (norm, true, [1, 1]));
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
