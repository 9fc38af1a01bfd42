//! Does the meta-gradient explode or vanish on its way back through the training, and where?

use super::records::Records;
use crate::error::Result;
use std::fmt;

/// Lengths of the cotangents of θ on their way back through T inner steps.
///
/// ```
/// use autograd::{CotangentNorms, Trouble};
/// let norms = CotangentNorms::new(vec![4e5, 2e3, 30.0, 1.0]);
/// assert_eq!(norms.trouble(1e3), Some(Trouble::Explodes { step: 1 }));
/// assert_eq!(norms.trouble(1e6), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CotangentNorms(Vec<f64>);

/// What goes wrong on the way back. The step is the first, counted from the end of the training, that was
/// reversed wrongly: a window that begins after it avoids the trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The cotangent has grown beyond the factor, or is not finite.
    Explodes {
        /// The inner step, counted from 0.
        step: usize,
    },
    /// The cotangent has shrunk below one over the factor.
    Vanishes {
        /// The inner step, counted from 0.
        step: usize,
    },
}

impl Trouble {
    /// A useful factor for [`CotangentNorms::trouble`]: how many times longer or shorter a cotangent may
    /// become.
    pub const FACTOR: f64 = 1e3;
}

/// One line: what, where, and what may help.
impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, step, help) = match self {
            Self::Explodes { step } => ("explodes", step, "a smaller learning rate"),
            Self::Vanishes { step } => ("vanishes", step, "more outer losses on the way"),
        };
        write!(
            f,
            "the cotangent of the weights {what} on its way back, from inner step {step} on; {help}, or a window \
             that begins after it, may help"
        )
    }
}

impl CotangentNorms {
    /// From the norm before every step and, last, that after the last step.
    pub fn new(norms: Vec<f64>) -> Self {
        Self(norms)
    }

    /// `[t]` is the norm of the meta-loss's derivative with respect to θ before inner step t, along all that
    /// follows; the last is that after the last step. Zero before the window of a truncated gradient.
    pub fn norms(&self) -> &[f64] {
        &self.0
    }

    /// Where on its way back the cotangent first is `factor` times longer than where it set out (behind the
    /// last step at which it is not zero), or that many times shorter: [`Trouble::FACTOR`], say.
    pub fn trouble(&self, factor: f64) -> Option<Trouble> {
        let begin = self.0.iter().position(|&norm| norm != 0.0)?;
        let end = self.0.iter().rposition(|&norm| norm != 0.0)?;
        let start = self.0[end];
        (begin..=end).rev().find_map(|step| {
            let growth = self.0[step] / start;
            if growth > factor || !growth.is_finite() {
                Some(Trouble::Explodes { step })
            } else if growth * factor < 1.0 {
                Some(Trouble::Vanishes { step })
            } else {
                None
            }
        })
    }
}

/// The length of the first `count` arrays of a record together.
pub(super) fn norm(records: &Records, record: usize, count: usize) -> Result<f64> {
    let mut squares = 0.0;
    for field in 0..count {
        let array = records.get(record, field)?;
        squares += match array.as_f32() {
            // Millions of weights, at every inner step: no copy of them in f64.
            Some(values) => values.iter().map(|&x| f64::from(x) * f64::from(x)).sum(),
            None => array.to_f64_vec().iter().map(|x| x * x).sum::<f64>(),
        };
    }
    Ok(squares.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_found_where_it_begins() {
        let trouble = |norms: &[f64]| CotangentNorms::new(norms.to_vec()).trouble(100.0);
        assert_eq!(trouble(&[5.0, 2.0, 1.0]), None);
        assert_eq!(
            trouble(&[0.0, 0.0, 3.0, 1.0]),
            None,
            "a window is no trouble"
        );
        assert_eq!(
            trouble(&[9.0, 1e-3, 0.5, 1.0]),
            Some(Trouble::Vanishes { step: 1 })
        );
        assert_eq!(
            trouble(&[1.0, 0.0, 0.5, 1.0]),
            Some(Trouble::Vanishes { step: 1 })
        );
        let runaway = [f64::NAN, f64::INFINITY, 500.0, 2.0, 1.0, 0.0];
        assert_eq!(trouble(&runaway), Some(Trouble::Explodes { step: 2 }));
        assert_eq!(
            trouble(&[f64::NAN, 1.0]),
            Some(Trouble::Explodes { step: 0 })
        );
        assert_eq!(trouble(&[0.0, 0.0]), None);
    }
}
