//! Rows by an index array.

use super::{Spec, product};
use crate::Float;
use tensor::DType;

/// Rows picked by an i32 index array: (x `[rows, width]`, index `[count]`) → `[count, width]`; or its
/// adjoint (y `[count, width]`, index) → `[rows, width]`, summed in order. An index outside is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rows {
    /// Element type.
    pub float: Float,
    /// Rows to pick from.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// Rows picked.
    pub count: usize,
    /// The adjoint: scatter-add.
    pub adjoint: bool,
}

impl Rows {
    /// Elements of the indexed array, and of the picked one.
    fn counts(&self) -> [usize; 2] {
        [self.rows, self.count].map(|rows| product(&[rows, self.width]))
    }
}

impl Spec for Rows {
    fn name(&self) -> &'static str {
        if self.adjoint { "rows-adjoint" } else { "rows" }
    }

    fn check(&self) -> Result<(), String> {
        if self.rows == 0 && self.count > 0 {
            return Err(format!("{} indices into a table without rows", self.count));
        }
        Ok(())
    }

    fn extents(&self) -> Vec<Vec<usize>> {
        let Self {
            rows, width, count, ..
        } = *self;
        vec![vec![rows, width], vec![count, width]]
    }

    fn inputs(&self) -> Vec<(DType, usize)> {
        let from = self.counts()[usize::from(self.adjoint)];
        vec![(self.float.into(), from), (DType::I32, self.count)]
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
