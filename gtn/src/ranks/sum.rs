//! Sums over ranks, in an order that does not depend on their number.

use super::world::World;

/// A sum of arrays that come by number, 0, 1, 2, …, from rank 0, 1, …, 0, 1, …: each is added to the sum of those before it.
///
/// Each rank sums one part of the array's places. It gets that part of every array, and at the end all ranks
/// get all parts. With one array from each rank, this moves as many bytes as an all-reduce in arbitrary
/// order.
#[derive(Debug)]
pub struct OrderedSum<'w> {
    world: Option<&'w World>,
    count: usize,
    length: usize,
    /// The sum so far at the places of this rank. The last places may be padding beyond the array.
    part: Vec<f32>,
}

impl<'w> OrderedSum<'w> {
    pub(super) fn new(world: Option<&'w World>, count: usize, length: usize) -> Self {
        Self {
            world,
            count,
            length,
            part: vec![0.0; length.div_ceil(count)],
        }
    }

    /// Adds the next arrays, one from each of the first `arrays` ranks; the others have none.
    pub fn add(&mut self, own: Option<Vec<f32>>, arrays: usize) {
        let mut own = own.unwrap_or_default();
        own.resize(self.part.len() * self.count, 0.0);
        let all = match self.world {
            Some(world) => world.exchange(&own),
            None => own,
        };
        for array in all.chunks_exact(self.part.len()).take(arrays) {
            let places = self.part.iter_mut().zip(array);
            places.for_each(|(sum, number)| *sum += number);
        }
    }

    /// The whole sum, which all ranks get.
    pub fn total(self) -> Vec<f32> {
        let mut total = match self.world {
            Some(world) => world.assemble(&self.part),
            None => self.part,
        };
        total.truncate(self.length);
        total
    }
}
