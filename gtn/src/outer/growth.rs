//! Trainings that grow: few inner steps in the first outer steps, all of them later.

use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// How the inner steps of a training grow over the outer steps: evenly, from a first number to all of them.
///
/// ```
/// use gtn::outer::growth::Growth;
/// let growth: Growth = "8:100".parse()?;
/// let lengths = [0, 50, 99, 100, 1000].map(|outer_step| growth.steps(32, outer_step));
/// assert_eq!(lengths, [8, 20, 31, 32, 32]);
/// assert_eq!(Growth::default().steps(32, 0), 32);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth(Option<Way>);

/// The number of inner steps at the start, and after how many outer steps all of them are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    from: usize,
    outer_steps: u64,
}

impl Growth {
    /// The inner steps, of `all`, in an outer step, counted from 0.
    pub fn steps(self, all: usize, outer_step: u64) -> usize {
        match self.0 {
            Some(Way { from, outer_steps }) if outer_step < outer_steps => {
                let more = (all - from) as u128 * u128::from(outer_step) / u128::from(outer_steps);
                from + more as usize
            }
            _ => all,
        }
    }

    /// The number of inner steps at the start, if they grow.
    pub fn first(self) -> Option<usize> {
        self.0.map(|way| way.from)
    }
}

impl FromStr for Growth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let way = text.split_once(':').and_then(|(from, outer_steps)| {
            let from = from.trim().parse().ok().filter(|&from| from > 0)?;
            let outer_steps = outer_steps.trim().parse().ok().filter(|&n| n > 0)?;
            Some(Way { from, outer_steps })
        });
        let wanted = "two numbers above 0 are needed, as in 8:500 (from 8 inner steps to all in 500 outer steps), or none";
        way.map(|way| Self(Some(way))).ok_or_else(|| wanted.into())
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Way { from, outer_steps }) => write!(f, "{from}:{outer_steps}"),
            None => f.write_str("none"),
        }
    }
}

impl Serialize for Growth {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_steps_never_fall_and_all_numbers_come_up() {
        let growth: Growth = "3:40".parse().unwrap();
        let lengths: Vec<usize> = (0..=40).map(|step| growth.steps(16, step)).collect();
        assert!(lengths.is_sorted() && (3..=16).all(|n| lengths.contains(&n)));
        assert_eq!((lengths[0], lengths[39], lengths[40]), (3, 15, 16));
        let late: Growth = format!("1:{}", u64::MAX).parse().unwrap();
        assert_eq!(late.steps(1 << 20, u64::MAX - 1), (1 << 20) - 1);
    }

    #[test]
    fn texts_come_back_and_others_are_refused() {
        for text in ["none", "8:500", "1:1"] {
            assert_eq!(text.parse::<Growth>().unwrap().to_string(), text);
        }
        for text in ["", "8", "0:5", "8:0", "8:-1", "8:5:1", "a:b"] {
            let error = text.parse::<Growth>().unwrap_err();
            assert!(
                error.starts_with("two numbers above 0 are needed"),
                "{text}"
            );
        }
    }
}
