//! Widths of learners: fixed, or drawn anew for every learner.

use rand::{Rng, RngExt};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// A range of widths for each of the places that a learner's family has for them, both ends included; or none.
///
/// ```
/// use gtn::nn::widths::Widths;
/// let widths: Widths = "12-20,32,64-128".parse()?;
/// assert_eq!(widths.middle(), [16, 32, 96]);
/// assert_eq!(widths.to_string(), "12-20,32,64-128");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Widths(Vec<[usize; 2]>);

impl Widths {
    /// These widths and no others.
    pub fn fixed(widths: &[usize]) -> Self {
        Self(widths.iter().map(|&width| [width; 2]).collect())
    }

    /// How many layers they are for.
    pub fn layers(&self) -> usize {
        self.0.len()
    }

    /// A learner's widths, each drawn uniformly from its range.
    pub fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> Vec<usize> {
        let draw = |&[low, high]: &[usize; 2]| rng.random_range(low..=high);
        self.0.iter().map(draw).collect()
    }

    /// The middle of every range.
    pub fn middle(&self) -> Vec<usize> {
        self.0
            .iter()
            .map(|[low, high]| low.midpoint(*high))
            .collect()
    }

    /// The upper ends: what takes the most memory.
    pub fn widest(&self) -> Vec<usize> {
        self.0.iter().map(|[_, high]| *high).collect()
    }
}

impl fmt::Display for Widths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, [low, high]) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            if low == high {
                write!(f, "{comma}{low}")?;
            } else {
                write!(f, "{comma}{low}-{high}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Widths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        let range = |part: &str| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let range = [low.trim().parse().ok()?, high.trim().parse().ok()?];
            (range[0] >= 1 && range[0] <= range[1] && range[1] <= 1 << 14).then_some(range)
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        ranges.map(Self).ok_or_else(|| {
            format!(
                "widths `{text}`: a number or a range like 64-128 per layer, from 1 to {}",
                1 << 14
            )
        })
    }
}

impl From<Widths> for String {
    fn from(widths: Widths) -> Self {
        widths.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds::{Draw, rng};

    #[test]
    fn draws_reach_both_ends_and_no_further() {
        let widths: Widths = "3-5,7".parse().unwrap();
        let mut seen = [false; 6];
        for i in 0..100 {
            let drawn = widths.sample(&mut rng(1, Draw::Widths, i, 0));
            seen[drawn[0]] = true;
            assert_eq!(drawn[1], 7);
        }
        assert_eq!(seen, [false, false, false, true, true, true]);
        assert_eq!((widths.middle(), widths.widest()), (vec![4, 7], vec![5, 7]));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "0",
            "5-3",
            "1-",
            "-4",
            "a",
            "4,,5",
            "99999999999999999999",
        ] {
            assert!(text.parse::<Widths>().is_err(), "{text}");
        }
    }
}
