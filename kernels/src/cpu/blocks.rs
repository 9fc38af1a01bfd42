//! How a matrix product is cut: into blocks of C for the threads, and stretches of the inner index for the caches.
//!
//! An element of C is the same sum however it is cut, for stretches have whole chains (`microkernel.rs`): so all of
//! this may depend on the number of threads.

use super::microkernel::{CHAIN, Element, Engine};
use super::panels::packed_count;
use super::parallel::PIECES;
use crate::MatMul;
use crate::spec::Spec;

/// Bytes of a block of B, and of one of C if it is visited several times. The micro-kernel is as fast with B in
/// the second-level cache as with B in the first (measured), so this is a fourth of a second-level cache.
const BLOCK_BYTES: usize = 1 << 18;

/// Terms whose chains are summed up in one go: of more, such sums are added up in turn, whole stretches each.
pub(super) const LONG: usize = 256 * CHAIN;

/// Columns of a block of B that suffice, for A is read again only after so many; and those that it has at least.
const BLOCK_COLUMNS: [usize; 2] = [64, 256];

/// What it costs to transpose an element, in multiplications in one place of a vector register.
const TRANSPOSING: usize = 6;

/// FLOPs (about 2 µs) below which a piece of work is not cut further.
const PIECE_FLOPS: u64 = 1 << 18;

/// How a product is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    /// Whether Cᵀ = Bᵀ·Aᵀ is computed: then A, B and C stand for these below.
    pub(super) swap: bool,
    /// Rows and columns of C.
    pub(super) size: [usize; 2],
    pub(super) depth: usize,
    /// How much of the inner index is done at once.
    pub(super) stretch: usize,
    /// Rows and columns of a block of C.
    pub(super) block: [usize; 2],
    /// Whether the sums of a block may need memory of their own, see [`Self::are_aside`].
    aside: bool,
}

impl Blocks {
    /// For the sum of so many `products`, and so many threads.
    pub(super) fn new<T: Element>(
        engine: &Engine<T>,
        spec: &MatMul,
        products: usize,
        workers: usize,
    ) -> Self {
        let &MatMul { m, n, k, .. } = spec;
        let turned_b = if spec.transpose_b { n * k } else { 0 };
        let turned_a = if spec.transpose_a { 0 } else { m * k };
        let visits = products + usize::from(spec.accumulate);
        let swap = visits * m * n + turned_a < turned_b;
        let size = if swap { [n, m] } else { [m, n] };
        let [least, most] = BLOCK_COLUMNS;
        let columns = size[1].clamp(least, most).next_multiple_of(least);
        let longest = (BLOCK_BYTES / size_of::<T>() / columns / CHAIN).max(1);
        let chains = k.div_ceil(CHAIN).max(1);
        let stretch = (chains.div_ceil(chains.div_ceil(longest)) * CHAIN).min(k.max(1));
        let mut blocks = Self {
            swap,
            size,
            depth: k,
            stretch,
            block: [1, 1],
            aside: false,
        };
        blocks.aside = blocks.are_aside(visits > 1);
        let turns = if swap { turned_a } else { turned_b } > 0;
        blocks.block = blocks.cut(engine, spec, turns, workers);
        blocks
    }

    /// Rows and columns of the blocks, if B is transposed or not.
    fn cut<T: Element>(
        &self,
        engine: &Engine<T>,
        spec: &MatMul,
        turns: bool,
        workers: usize,
    ) -> [usize; 2] {
        let [height, width] = [engine.rows(), engine.columns()];
        let tiles = self.size[0].div_ceil(height).max(1);
        let panels = self.size[1].div_ceil(width).max(1);
        let workers = workers.div_ceil(spec.batch.max(1));
        let down = |across: usize| workers.div_ceil(across).min(tiles);
        // A block for every thread. Per step of the inner index, that which has the most to do does:
        let cost = |across: usize| {
            let rounds = (across * down(across)).div_ceil(workers);
            let rows = tiles.div_ceil(down(across)) * height;
            let columns = panels.div_ceil(across) * width;
            let reading = rows + if turns { TRANSPOSING } else { 1 } * columns;
            rounds * (rows * columns + reading)
        };
        let panel_bytes = self.stretch * width * size_of::<T>();
        let fewest = panels.div_ceil(BLOCK_BYTES / panel_bytes);
        let choices = fewest..=workers.min(panels).max(fewest);
        let mut across = choices.min_by_key(|&across| cost(across)).unwrap_or(1);
        let mut down = down(across);
        // Then more of them than threads, for one may come late or be interrupted.
        if self.depth > self.stretch {
            // More columns, for rows would pack B again; but what is added to again and again must stay in the cache.
            if workers > 1 {
                across = across.max((PIECES / 2 * workers / down).min(panels));
            }
            let bytes = tiles.div_ceil(down) * height * panels.div_ceil(across) * panel_bytes;
            // Of long sums there are two.
            let room = BLOCK_BYTES >> u32::from(self.is_long());
            down *= (bytes / self.stretch).div_ceil(room);
        } else {
            let flops = spec.flops() / (spec.batch * across * down).max(1) as u64;
            down *= (flops / PIECE_FLOPS).clamp(1, PIECES as u64) as usize;
        }
        [
            tiles.div_ceil(down) * height,
            panels.div_ceil(across) * width,
        ]
    }

    /// Whether sums are formed away from C: those over several stretches must be complete before they are added or
    /// transposed.
    pub(super) fn are_aside(&self, accumulate: bool) -> bool {
        self.is_long() || self.depth > self.stretch && (accumulate || self.swap)
    }

    /// Whether there are several sums of [`LONG`] terms.
    pub(super) fn is_long(&self) -> bool {
        self.depth > LONG
    }

    /// How many blocks there are along each axis.
    pub(super) fn count(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.size[axis].div_ceil(self.block[axis]))
    }

    /// Elements of a packed block of B, and of sums aside.
    pub(super) fn memory<T: Element>(&self, engine: &Engine<T>) -> [usize; 2] {
        let sums = self.block[0] * self.block[1] * if self.is_long() { 2 } else { 1 };
        [
            packed_count(engine, self.stretch, self.block[1]),
            if self.aside { sums } else { 0 },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Float;
    use crate::cpu::scratch;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_thread_has_a_block_and_room_for_it(
            batch in 1_usize..4,
            size in [1_usize..3000, 1..3000],
            k in prop_oneof![1_usize..9000, 60_000_usize..200_000],
            flags in 0_u8..8,
            products in 1_usize..=2,
            workers in 1_usize..40,
        ) {
            let [m, n] = size;
            let spec = MatMul {
                float: Float::F32,
                batch,
                m,
                n,
                k,
                transpose_a: flags & 1 != 0,
                transpose_b: flags & 2 != 0,
                accumulate: flags & 4 != 0,
            };
            let engine = f32::engine();
            let blocks = Blocks::new(&engine, &spec, products, workers);
            let [packed, sums] = blocks.memory(&engine);
            prop_assert!((products * packed + sums) * size_of::<f32>() + 64 <= scratch::BYTES);
            let most = m.div_ceil(engine.rows()) * n.div_ceil(engine.columns());
            let [down, across] = blocks.count();
            prop_assert!(2 * batch * down * across >= workers.min(most), "{blocks:?}");
        }
    }
}
