//! Constant indices.

use super::{Spec, product};
use crate::Float;
use std::sync::Arc;
use tensor::DType;

/// `[outer, n, inner]` → `[outer, index.len(), inner]` by constant indices along the middle axis; its adjoint
/// sums back. Borders that reflect or repeat an image are made so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Take {
    /// Element type.
    pub float: Float,
    /// Leading extent.
    pub outer: usize,
    /// Extent that is indexed.
    pub n: usize,
    /// Trailing extent.
    pub inner: usize,
    /// Indices below `n`.
    pub index: Arc<[u32]>,
    /// The adjoint: `[outer, index.len(), inner]` → `[outer, n, inner]`, summed in order of the index.
    pub adjoint: bool,
}

impl Take {
    /// Elements of the indexed array, and of the picked one.
    fn counts(&self) -> [usize; 2] {
        [self.n, self.index.len()].map(|along| product(&[self.outer, along, self.inner]))
    }
}

impl Spec for Take {
    fn name(&self) -> &'static str {
        if self.adjoint { "take-adjoint" } else { "take" }
    }

    fn check(&self) -> Result<(), String> {
        match self.index.iter().find(|&&index| index as usize >= self.n) {
            Some(index) => Err(format!("index {index} into an axis of {}", self.n)),
            None => Ok(()),
        }
    }

    fn extents(&self) -> Vec<Vec<usize>> {
        let (outer, inner) = (self.outer, self.inner);
        vec![
            vec![outer, self.n, inner],
            vec![outer, self.index.len(), inner],
        ]
    }

    fn inputs(&self) -> Vec<(DType, usize)> {
        vec![(self.float.into(), self.counts()[usize::from(self.adjoint)])]
    }

    fn outputs(&self) -> Vec<(DType, usize)> {
        vec![(self.float.into(), self.counts()[usize::from(!self.adjoint)])]
    }

    fn flops(&self) -> u64 {
        if self.adjoint {
            self.counts()[1] as u64
        } else {
            0
        }
    }
}
