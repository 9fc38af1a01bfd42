//! Settings that are drawn at random.

use crate::error::{Error, Result};
use crate::run::settings::{as_word, underscored};
use crate::seeds::{Draw, rng};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::{Table, Value};

/// The table of draws in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Draws {
    pub(super) count: u64,
    #[serde(default = "one")]
    seed: u64,
    settings: Table,
}

fn one() -> u64 {
    1
}

/// What a setting is drawn from.
#[derive(Clone, Debug, PartialEq)]
enum Range {
    /// Between two numbers, log-uniformly; whole numbers if both ends are whole.
    Between { from: f64, to: f64, whole: bool },
    /// One of these.
    Among(Vec<Value>),
}

impl Draws {
    /// The settings of every draw. A draw does not depend on how many there are.
    ///
    /// # Errors
    /// If a range makes no sense.
    pub(super) fn all(&self) -> Result<Vec<Table>> {
        let range = |(name, value): (&String, &Value)| match Range::of(value) {
            Some(range) => Ok((name.clone(), range)),
            None => Err(Error::usage(format!(
                "{name} is no list, and not as {{ from = 0.001, to = 0.1 }}"
            ))),
        };
        let settings = underscored(self.settings.clone())?;
        let ranges: BTreeMap<String, Range> = settings.iter().map(range).collect::<Result<_>>()?;
        let draw = |number| {
            let one = |(place, (name, range)): (usize, (&String, &Range))| {
                let rng = &mut rng(self.seed, Draw::Study, number, place as u64);
                (name.clone(), range.draw(rng))
            };
            ranges.iter().enumerate().map(one).collect()
        };
        Ok((0..self.count).map(draw).collect())
    }
}

impl Range {
    fn of(value: &Value) -> Option<Self> {
        let number = |value: &Value| match value {
            Value::Integer(whole) => Some(*whole as f64),
            value => value.as_float(),
        };
        match value {
            Value::Array(values) if !values.is_empty() => {
                let sound = values.iter().all(|value| as_word(value).is_some());
                sound.then(|| Self::Among(values.clone()))
            }
            Value::Table(ends) if ends.len() == 2 => {
                let ends = [ends.get("from")?, ends.get("to")?];
                let [from, to] = ends.map(number);
                let (from, to) = (from?, to?);
                let whole = ends.iter().all(|end| end.is_integer());
                (from > 0.0 && from < to && to.is_finite()).then_some(Self::Between {
                    from,
                    to,
                    whole,
                })
            }
            _ => None,
        }
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> Value {
        match self {
            Self::Among(values) => values[rng.random_range(0..values.len())].clone(),
            &Self::Between { from, to, whole } => {
                let number = rng.random_range(from.ln()..to.ln()).exp();
                if whole {
                    return Value::Integer(number.round().clamp(from, to) as i64);
                }
                // Four digits, so that tables can be read.
                let number: f64 = format!("{number:.3e}").parse().unwrap_or(number);
                Value::Float(number.clamp(from, to))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(text: &str) -> Result<Vec<Table>> {
        toml::from_str::<Draws>(text).unwrap().all()
    }

    #[test]
    fn numbers_are_drawn_evenly_by_their_logarithms() {
        let ranges = "[settings]\nlr = { from = 0.001, to = 0.1 }\nsize = { from = 2, to = 8 }\n\
                      pick = [1, 'two', [3, 4]]\n";
        let all = draws(&format!("count = 400\nseed = 3\n{ranges}")).unwrap();
        let lrs: Vec<f64> = all
            .iter()
            .map(|draw| draw["lr"].as_float().unwrap())
            .collect();
        assert!(lrs.iter().all(|lr| (0.001..=0.1).contains(lr)));
        // Half of them are below the geometric mean, give or take four standard deviations.
        let below = lrs.iter().filter(|&&lr| lr < 0.01).count();
        assert!((160..=240).contains(&below), "{below}");
        let sizes: Vec<i64> = all
            .iter()
            .map(|draw| draw["size"].as_integer().unwrap())
            .collect();
        assert!(
            (2..=8).all(|size| sizes.contains(&size)) && sizes.iter().all(|n| (2..=8).contains(n))
        );
        let picked = |value: &Value| all.iter().filter(|draw| draw["pick"] == *value).count();
        let of: Vec<usize> = [1.into(), "two".into(), vec![3, 4].into()]
            .iter()
            .map(picked)
            .collect();
        assert!(
            of.iter().sum::<usize>() == 400 && of.iter().all(|&n| n > 90),
            "{of:?}"
        );
        let fewer = draws(&format!("count = 7\nseed = 3\n{ranges}")).unwrap();
        assert_eq!(fewer, all[..7]);
        assert_ne!(
            draws(&format!("count = 7\nseed = 4\n{ranges}")).unwrap(),
            fewer
        );
    }

    #[test]
    fn ranges_that_make_no_sense_are_refused() {
        for range in [
            "3",
            "[]",
            "{ from = 0, to = 1 }",
            "{ from = 2, to = 1 }",
            "{ from = 1 }",
            "{ from = 1, to = inf }",
            "{ from = 1, to = 2, step = 1 }",
            "[{}]",
        ] {
            let error = draws(&format!("count = 1\n[settings]\nlr = {range}")).unwrap_err();
            assert!(
                error.to_string().starts_with("lr is no list, and not as {"),
                "{range}"
            );
        }
    }
}
