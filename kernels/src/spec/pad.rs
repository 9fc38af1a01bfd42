//! Borders of zeros.

use super::{Spec, product};
use tensor::DType;

/// A zero border: input of `extents`, output of `before + extents + after` along every axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pad {
    /// Element type.
    pub dtype: DType,
    /// Shape of the input.
    pub extents: Vec<usize>,
    /// Zeros before, per axis.
    pub before: Vec<usize>,
    /// Zeros after, per axis.
    pub after: Vec<usize>,
}

impl Pad {
    /// Shape of the output.
    pub(crate) fn out_extents(&self) -> Vec<usize> {
        let sides = self.before.iter().zip(&self.after);
        self.extents
            .iter()
            .zip(sides)
            .map(|(&n, (&b, &a))| n.saturating_add(b).saturating_add(a))
            .collect()
    }
}

impl Spec for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn check(&self) -> Result<(), String> {
        let (axes, before, after) = (self.extents.len(), self.before.len(), self.after.len());
        if before == axes && after == axes {
            return Ok(());
        }
        Err(format!("{before} and {after} borders for {axes} axes"))
    }

    fn extents(&self) -> Vec<Vec<usize>> {
        vec![self.out_extents()]
    }

    fn inputs(&self) -> Vec<(DType, usize)> {
        vec![(self.dtype, product(&self.extents))]
    }

    fn outputs(&self) -> Vec<(DType, usize)> {
        vec![(self.dtype, product(&self.out_extents()))]
    }
}
