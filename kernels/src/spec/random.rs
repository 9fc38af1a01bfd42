//! Random numbers.

use super::Spec;
use crate::Float;
use tensor::DType;

/// Counter-based random numbers (Philox 4x32-10, Salmon et al. 2011). Input: u32 \[4\] = seed low, seed
/// high, outer step, inner step. Output: `count` numbers; element `i` depends on the key, `op` and `i` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Random {
    /// Element type of the output.
    pub float: Float,
    /// What is drawn.
    pub distribution: Distribution,
    /// How many.
    pub count: usize,
    /// Tells apart several draws under one key.
    pub op: u32,
}

/// What a [`Random`] kernel draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// Uniform in [0, 1).
    Uniform,
    /// Standard normal (Box–Muller).
    Normal,
}

impl Spec for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn check(&self) -> Result<(), String> {
        if (self.count as u64).div_ceil(2) > 1 << 32 {
            let count = self.count;
            return Err(format!("{count} random numbers under one key; at most 2³³"));
        }
        Ok(())
    }

    fn extents(&self) -> Vec<Vec<usize>> {
        vec![vec![self.count]]
    }

    fn inputs(&self) -> Vec<(DType, usize)> {
        vec![(DType::U32, 4)]
    }

    fn outputs(&self) -> Vec<(DType, usize)> {
        vec![(self.float.into(), self.count)]
    }
}
