//! How real images teach the networks of a space best: found once, on networks of the space that are not held
//! out.

use super::lab::Lab;
use crate::error::{Error, ErrorKind, Result};
use crate::eval::evaluate::TestSet;
use crate::eval::examination::Examination;
use crate::eval::report::FRESH;
use crate::eval::rivals::RealImages;
use crate::eval::tuning::{BASELINES, Cycle, Recipe, tuned};
use crate::nn::Learner;
use crate::outer::teacher::Teacher;
use crate::ranks::Ranks;
use crate::seeds::{Draw, rng};
use autograd::prelude::Optimizer;
use kernels::Device;
use serde_json::{Value, json};
use std::path::Path;

/// The number of the first learner on which recipes are compared.
const FIRST: u64 = FRESH / 4;
/// Learners that decide between the best recipes of two optimisers.
const FINALISTS: usize = 8;

/// The recipe with which networks of the space do best on validation images, after `steps` steps on real
/// images. The ranks share the trials. `watch` may stop them by returning `false`: then the result is `None`.
///
/// # Errors
/// If there is not enough memory.
pub fn recipe(
    lab: &Lab<'_>,
    (device, ranks): (&Device, &Ranks),
    teacher: &Teacher,
    steps: usize,
    watch: &mut impl FnMut() -> bool,
) -> Result<Option<Recipe>> {
    let config = lab.config_of(steps);
    let problem = lab.data.problem();
    let draw = |number: u64| -> autograd::Result<Learner> {
        let rng = &mut rng(config.seed, Draw::Search, number, 0);
        let drawn = lab.space.drawn(&lab.space.draw(rng))?;
        drawn.network.learner(problem.image, problem.classes)
    };
    let glance = TestSet::new(device, lab.data, &lab.data.validation, lab.images)?;
    let examination = Examination {
        device,
        ranks,
        config: &config,
        teacher,
        data: lab.data,
        glance: &glance,
        test: &glance,
        learner: ["", ""],
        draw: &draw,
    };
    let mut best: Option<(Recipe, f64)> = None;
    for baseline in BASELINES {
        let Some(recipe) = tuned(&examination, &RealImages::Fresh, baseline, FIRST, watch)? else {
            return Ok(None);
        };
        let found = ranks.deal(FINALISTS, |i| {
            let number = FIRST + (FINALISTS + i) as u64;
            let mut trainee = examination.trainee(recipe.optimizer.into(), number)?;
            let mut real = examination.real(&RealImages::Fresh, &recipe.hyper(steps), number)?;
            match trainee.train(&mut real, &glance, None) {
                Ok((accuracy, _)) => Ok(Some(accuracy)),
                Err(autograd::Error::NotFinite { .. }) => Ok(Some(0.0)),
                Err(error) => Err(error.into()),
            }
        })?;
        let sum = found.into_iter().flatten().sum();
        if best.is_none_or(|(_, other)| sum > other) {
            best = Some((recipe, sum));
        }
    }
    Ok(best.map(|(recipe, _)| recipe))
}

/// A recipe for a file.
pub fn to_json(recipe: &Recipe) -> Value {
    let Recipe {
        optimizer,
        lr,
        momentum,
        cycle,
    } = recipe;
    json!({ "optimizer": optimizer.name(), "lr": lr, "momentum": momentum, "cycle": cycle })
}

/// The recipes of a file, an object by numbers of steps; none if there is no such file.
///
/// # Errors
/// If it cannot be read, or holds something else.
pub fn known(path: &Path) -> Result<Option<Value>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = crate::text::read(path).map_err(|error| error.of(ErrorKind::Run))?;
    if let Ok(recipes @ Value::Object(_)) = serde_json::from_str(&text) {
        return Ok(Some(recipes));
    }
    let error = Error::run("no object of recipes").at(path.display());
    Err(error.hint("without this file they are tuned anew"))
}

/// Reads it back.
///
/// # Errors
/// If it is none.
pub fn from_json(value: &Value) -> Result<Recipe> {
    let wrong = || Error::run(format!("`{value}` is no recipe"));
    let optimizer = Optimizer::ALL
        .into_iter()
        .find(|optimizer| value["optimizer"] == optimizer.name());
    let cycle = [Cycle::Constant, Cycle::OneCycle, Cycle::Cosine]
        .into_iter()
        .find(|cycle| json!(cycle) == value["cycle"]);
    Ok(Recipe {
        optimizer: optimizer.ok_or_else(wrong)?,
        lr: value["lr"].as_f64().ok_or_else(wrong)?,
        momentum: value["momentum"].as_f64().ok_or_else(wrong)?,
        cycle: cycle.ok_or_else(wrong)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_anything_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recipes.json");
        assert_eq!(known(&path), Ok(None));
        for text in ["[]", "3", "{"] {
            std::fs::write(&path, text).unwrap();
            let error = known(&path).unwrap_err().to_string();
            assert!(
                error.ends_with("recipes.json: no object of recipes"),
                "{error}"
            );
        }
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(known(&path), Ok(Some(json!({}))));
    }

    #[test]
    fn recipes_come_back() {
        for cycle in [Cycle::Constant, Cycle::OneCycle] {
            let recipe = Recipe {
                optimizer: Optimizer::Adam,
                lr: 0.1 + 0.2,
                momentum: 0.9,
                cycle,
            };
            assert_eq!(from_json(&to_json(&recipe)).unwrap(), recipe);
        }
        assert!(from_json(&json!({ "optimizer": "adam" })).is_err());
    }
}
