//! How a matrix product is cut: into blocks of C for the threads, and into stretches of the inner index for
//! the caches.
//!
//! However it is cut, an element of C is the same sum, because a stretch holds whole chains
//! (`microkernel.rs`). So the cut may depend on the number of threads.

use super::microkernel::{CHAIN, Element, Engine};
use super::panels::packed_count;
use super::parallel::PIECES;
use crate::MatMul;
use crate::spec::Spec;

/// Bytes of a block of B, and of a block of C that several stretches add to. It is a quarter of a
/// second-level cache: with B there, the micro-kernel is as fast as with B in the first-level cache
/// (measured).
const BLOCK_BYTES: usize = 1 << 18;

/// Terms whose chains are added up in one sum. A longer inner index has several such sums, each of whole
/// stretches, which are added up in turn.
pub(super) const LONG: usize = 256 * CHAIN;

/// The fewest and the most columns of a block of B that the length of a stretch is chosen for. More are not
/// needed: A is read again only once for all of them.
const BLOCK_COLUMNS: [usize; 2] = [64, 256];

/// Cost of transposing an element of B, in multiplications of one lane of a vector register.
const TRANSPOSING: usize = 6;

/// FLOPs (about 2 µs) below which a piece of work is not cut further.
const PIECE_FLOPS: u64 = 1 << 18;

/// How a product is cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    /// Whether Cᵀ = Bᵀ·Aᵀ is computed. Then A, B and C stand for Bᵀ, Aᵀ and Cᵀ below.
    pub(super) swap: bool,
    /// Rows and columns of C.
    pub(super) size: [usize; 2],
    pub(super) depth: usize,
    /// Length of a stretch: inner indices that are done at once.
    pub(super) stretch: usize,
    /// Rows and columns of a block of C.
    pub(super) block: [usize; 2],
    /// Whether the sums of a block may need memory of their own, see [`Self::are_aside`].
    aside: bool,
}

impl Blocks {
    /// Cuts the sum of `products` products of this shape for `workers` threads.
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

    /// Rows and columns of a block. `turns` says whether B is transposed when it is packed.
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
        // First a block for every thread, so that the busiest thread has the least work. Its work per inner
        // index:
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
        // Then more blocks than threads, because a thread may come late or be interrupted.
        if self.depth > self.stretch {
            // More blocks across, because those below each other pack B again. But a block of C that every
            // stretch adds to must stay in the cache.
            if workers > 1 {
                across = across.max((PIECES / 2 * workers / down).min(panels));
            }
            let bytes = tiles.div_ceil(down) * height * panels.div_ceil(across) * panel_bytes;
            // For a long sum there are two such blocks: see `memory`.
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

    /// Whether sums are formed in scratch memory, not in C. Sums over several stretches must be complete
    /// before they are added to C or transposed.
    pub(super) fn are_aside(&self, accumulate: bool) -> bool {
        self.is_long() || self.depth > self.stretch && (accumulate || self.swap)
    }

    /// Whether the inner index takes several sums of [`LONG`] terms.
    pub(super) fn is_long(&self) -> bool {
        self.depth > LONG
    }

    /// How many blocks there are along each axis.
    pub(super) fn count(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.size[axis].div_ceil(self.block[axis]))
    }

    /// Elements of scratch memory: for a packed block of B, and for sums that are not formed in C.
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
