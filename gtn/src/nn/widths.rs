//! Widths of learners: fixed, or drawn anew for every learner.

use rand::{Rng, RngExt};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// A range of widths for each place that a learner's family has for one, both ends included; or none. A range
/// may have a step: then there are fewer structures, so their plans can be kept. Multiples of 8 also let CUDA
/// kernels copy 16 bytes at a time.
///
/// ```
/// use gtn::nn::widths::Widths;
/// let widths: Widths = "12-20,32,64-128/16".parse()?;
/// assert_eq!(widths.middle(), [16, 32, 96]);
/// assert_eq!(widths.to_string(), "12-20,32,64-128/16");
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Widths(Vec<Range>);

/// `steps` steps of `step` from `low` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    low: usize,
    step: usize,
    steps: usize,
}

impl Range {
    /// The greatest width that there may be.
    const MOST: usize = 1 << 14;

    fn at(self, step: usize) -> usize {
        self.low + step * self.step
    }

    fn high(self) -> usize {
        self.at(self.steps)
    }
}

impl Widths {
    /// These widths and no others.
    pub fn fixed(widths: &[usize]) -> Self {
        let range = |&low| Range {
            low,
            step: 1,
            steps: 0,
        };
        Self(widths.iter().map(range).collect())
    }

    /// How many layers they are for.
    pub fn layers(&self) -> usize {
        self.0.len()
    }

    /// A learner's widths, each drawn uniformly from its range.
    pub fn sample<R: Rng + ?Sized>(&self, rng: &mut R) -> Vec<usize> {
        let draw = |range: &Range| range.at(rng.random_range(0..=range.steps));
        self.0.iter().map(draw).collect()
    }

    /// The middle of every range.
    pub fn middle(&self) -> Vec<usize> {
        self.0
            .iter()
            .map(|range| range.at(range.steps / 2))
            .collect()
    }

    /// The upper ends: what takes the most memory.
    pub fn widest(&self) -> Vec<usize> {
        self.0.iter().map(|range| range.high()).collect()
    }
}

impl fmt::Display for Widths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{}", range.low)?;
            if range.steps > 0 {
                write!(f, "-{}", range.high())?;
            }
            if range.step > 1 {
                write!(f, "/{}", range.step)?;
            }
        }
        Ok(())
    }
}

impl FromStr for Range {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| ());
        let (ends, step) = match text.split_once('/') {
            Some((ends, step)) => (ends, number(step)?),
            None => (text, 1),
        };
        let (low, high) = ends.split_once('-').unwrap_or((ends, ends));
        let (low, high) = (number(low)?, number(high)?);
        let sound = 1 <= low && low <= high && high <= Self::MOST && step >= 1;
        if !sound || !(high - low).is_multiple_of(step) || (low == high && step > 1) {
            return Err(());
        }
        Ok(Self {
            low,
            step,
            steps: (high - low) / step,
        })
    }
}

impl FromStr for Widths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        let ranges: Result<Vec<Range>, ()> = text.split(',').map(str::parse).collect();
        ranges.map(Self).map_err(|()| {
            format!(
                "widths `{text}`: a number, a range like 64-128 or one in steps like 64-128/16 per layer, from 1 to {}",
                Range::MOST
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
    fn a_step_is_drawn_whole_and_a_step_of_one_changes_no_draw() {
        let sample = |text: &str, i| {
            let widths: Widths = text.parse().unwrap();
            widths.sample(&mut rng(1, Draw::Widths, i, 0))
        };
        let mut seen = std::collections::BTreeSet::new();
        for i in 0..200 {
            let drawn = sample("32-128/16,64-256/32,5", i);
            assert!(drawn[0] % 16 == 0 && drawn[1] % 32 == 0 && drawn[2] == 5);
            seen.insert(drawn);
            assert_eq!(sample("3-17/1", i), sample("3-17", i));
            let mut plain = rng(1, Draw::Widths, i, 0);
            assert_eq!(sample("3-17", i), [plain.random_range(3..=17_usize)]);
        }
        assert!((40..=49).contains(&seen.len()), "{seen:?}");
        let widths: Widths = "32-128/16,8-24/16".parse().unwrap();
        assert_eq!(widths.middle(), [80, 8]);
        assert_eq!(widths.widest(), [128, 24]);
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
            "8-16/0",
            "8-16/3",
            "8/8",
            "8-16/",
            "/4",
        ] {
            assert!(text.parse::<Widths>().is_err(), "{text}");
        }
    }
}
