//! Concatenation.

use super::{Spec, product};
use tensor::DType;

/// Inputs [outer, inner\[i\]] side by side, giving [outer, Σ inner].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Concat {
    /// Element type of all.
    pub dtype: DType,
    /// Rows of every input.
    pub outer: usize,
    /// Row length of each input.
    pub inner: Vec<usize>,
}

impl Spec for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn extents(&self) -> Vec<Vec<usize>> {
        let inner = self.inner.iter().copied().fold(0, usize::saturating_add);
        vec![vec![self.outer, inner]]
    }

    fn inputs(&self) -> Vec<(DType, usize)> {
        let input = |&inner| (self.dtype, product(&[self.outer, inner]));
        self.inner.iter().map(input).collect()
    }

    fn outputs(&self) -> Vec<(DType, usize)> {
        let inner = self.inner.iter().copied().fold(0, usize::saturating_add);
        vec![(self.dtype, product(&[self.outer, inner]))]
    }
}
