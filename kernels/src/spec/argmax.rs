//! The index of the greatest element.

use super::{Spec, product};
use crate::Float;
use tensor::DType;

/// Index (i32) of the greatest of `[outer, n, inner]` along the middle axis; the first of equals; NaN is
/// greater than all numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArgMax {
    /// Element type of the input.
    pub float: Float,
    /// Leading extent.
    pub outer: usize,
    /// Extent that is searched.
    pub n: usize,
    /// Trailing extent.
    pub inner: usize,
}

impl Spec for ArgMax {
    fn name(&self) -> &'static str {
        "argmax"
    }

    fn check(&self) -> Result<(), String> {
        if self.n == 0 && product(&[self.outer, self.inner]) > 0 {
            return Err("the greatest of no numbers".into());
        }
        if self.n > i32::MAX as usize {
            return Err(format!("{} does not fit an i32", self.n));
        }
        Ok(())
    }

    fn extents(&self) -> Vec<Vec<usize>> {
        vec![vec![self.outer, self.n, self.inner]]
    }

    fn inputs(&self) -> Vec<(DType, usize)> {
        let count = product(&[self.outer, self.n, self.inner]);
        vec![(self.float.into(), count)]
    }

    fn outputs(&self) -> Vec<(DType, usize)> {
        vec![(DType::I32, product(&[self.outer, self.inner]))]
    }
}
