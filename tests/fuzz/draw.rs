//! What inputs are drawn from.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tensor::{Array, DType};

/// The random numbers of one input.
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    /// Those of an input of a target.
    pub(crate) fn new(seed: u64, target: &str, number: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&number.to_le_bytes());
        let name = target.as_bytes();
        bytes[16..16 + name.len()].copy_from_slice(name);
        Self(ChaCha8Rng::from_seed(bytes))
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    /// A number from `least` to `most`.
    pub(crate) fn between(&mut self, least: usize, most: usize) -> usize {
        self.0.random_range(least..=most)
    }

    /// Once in so many times.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Any of some.
    pub(crate) fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    /// All 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.random()
    }

    /// Numbers between −1 and 1.
    pub(crate) fn array(&mut self, dtype: DType, shape: &[usize]) -> Array {
        Array::uniform(dtype, shape, [-1.0, 1.0], self.bits())
    }
}
