//! Matrix products.
//!
//! The micro-kernel reads A where it lies. It reads B so, too, if B's rows are contiguous and do not compete
//! for cache sets; otherwise B is packed first.

use std::ops::Range;

use super::blocks::{Blocks, LONG};
use super::matrix::Matrix;
use super::microkernel::{Element, Engine, MAX_ROWS, Mode, Walk};
use super::panels::{Panels, Shared, pack, scratch, sweep, workers};
use super::parallel::{Pieces, share};
use crate::bound::Raw;
use crate::spec::Spec;
use crate::{Float, MatMul};

/// Bytes: rows of B that are a multiple of this apart compete for the same sets of the first-level cache.
const ALIAS_BYTES: usize = 1 << 12;

/// Rows that those sets hold. A stretch with more of such rows is packed.
const ALIAS_ROWS: usize = 64;

/// Writes to `c` the sum of the products of these A and B, each formed whole.
pub(crate) fn matmul(spec: &MatMul, products: &[[Raw; 2]], c: Raw) {
    typed!(spec.float, T => matmul_of(&T::engine(), spec, products, c));
}

fn matmul_of<T: Element>(engine: &Engine<T>, spec: &MatMul, products: &[[Raw; 2]], c: Raw) {
    let workers = workers(products.len() as u64 * spec.flops());
    let blocks = Blocks::new(engine, spec, products.len(), workers);
    let ([down, across], [packed_count, sums]) = (blocks.count(), blocks.memory(engine));
    let work = |pieces: Pieces<'_>| {
        scratch([products.len() * packed_count, sums], |[packed, sums]| {
            // Pieces that need the same block of B follow each other.
            let mut last = usize::MAX;
            for piece in pieces {
                let [column, part] = [piece / down % across, piece / down / across];
                let [i, j] = [piece % down * blocks.block[0], column * blocks.block[1]];
                let block = Block {
                    engine,
                    blocks: &blocks,
                    size: [
                        blocks.block[0].min(blocks.size[0] - i),
                        blocks.block[1].min(blocks.size[1] - j),
                    ],
                    is_packed: piece / down == last,
                    sums,
                };
                // The block of C is still in the cache when the next product is added to it.
                for (at, &[a, b]) in products.iter().enumerate() {
                    let [a, b, c] = matrices(spec, blocks.swap, part, [a, b, c]);
                    let accumulate = spec.accumulate || at > 0;
                    let packed = packed.wrapping_add(at * packed_count);
                    let (a, b, c) = (a.from(i, 0), b.from(0, j), c.from(i, j));
                    // SAFETY: the program has checked the sizes. No other piece has these elements of c, and
                    // the scratch memory is this thread's.
                    unsafe { block.product(a, b, c, accumulate, packed) };
                }
                last = piece / down;
            }
        });
    };
    share(spec.batch * down * across, workers, &work);
}

/// A, B and C of one of the batch; with `swap`, the transposes of B, A and C.
fn matrices<T: Element>(
    spec: &MatMul,
    swap: bool,
    part: usize,
    [a, b, c]: [Raw; 3],
) -> [Matrix<T>; 3] {
    let matrix = |raw: Raw, [rows, cols]: [usize; 2], transposed: bool| {
        let at = raw.pointer.cast::<T>().wrapping_add(part * rows * cols);
        let [row, col] = if transposed { [1, rows] } else { [cols, 1] };
        Matrix { at, row, col }
    };
    let a = matrix(a, [spec.m, spec.k], spec.transpose_a);
    let b = matrix(b, [spec.k, spec.n], spec.transpose_b);
    let c = matrix(c, [spec.m, spec.n], false);
    if swap {
        [b, a, c].map(Matrix::transposed)
    } else {
        [a, b, c]
    }
}

/// A block of C, and this thread's memory for it.
struct Block<'a, T: 'static> {
    engine: &'a Engine<T>,
    blocks: &'a Blocks,
    size: [usize; 2],
    /// Whether the block of B that it needs was packed before.
    is_packed: bool,
    sums: *mut T,
}

impl<T: Element> Block<'_, T> {
    /// `c = a·b` or `c += a·b`, the block only.
    ///
    /// # Safety
    /// `a` and `b` must be readable. `c`, `packed` and the block's sums must be writable, and used by nobody
    /// else.
    unsafe fn product(
        &self,
        a: Matrix<T>,
        b: Matrix<T>,
        c: Matrix<T>,
        accumulate: bool,
        packed: *mut T,
    ) {
        let &Blocks { depth, stretch, .. } = self.blocks;
        let aside = self.blocks.are_aside(accumulate);
        let target = if aside {
            Matrix {
                at: self.sums,
                row: self.size[1],
                col: 1,
            }
        } else {
            c
        };
        let long = self.blocks.is_long();
        let whole = Matrix {
            at: self.sums.wrapping_add(self.size[0] * self.size[1]),
            ..target
        };
        for first in (0..depth.max(1)).step_by(stretch) {
            let length = stretch.min(depth - first);
            let mode = match first % LONG {
                _ if accumulate && !aside => Mode::Add,
                0 => Mode::Set,
                _ => Mode::Continue,
            };
            let end = first + length;
            // SAFETY: what the caller promises; the sums are ours.
            unsafe {
                let (a, b) = (a.from(0, first), b.from(first, 0));
                self.stretch(length, a, b, target, mode, packed);
                if long && (end == depth || end.is_multiple_of(LONG)) {
                    self.add(target, whole, end > LONG);
                }
            }
        }
        if aside {
            let sums = if long { whole } else { target };
            // SAFETY: c is ours, and so are its sums.
            unsafe { self.finish(sums, c, accumulate) };
        }
    }

    /// A stretch of the inner index.
    ///
    /// # Safety
    /// As for [`Self::product`].
    unsafe fn stretch(
        &self,
        length: usize,
        a: Matrix<T>,
        b: Matrix<T>,
        c: Matrix<T>,
        mode: Mode,
        packed: *mut T,
    ) {
        let ([rows, columns], engine) = (self.size, self.engine);
        let (width, whole) = (engine.columns(), self.readable(length, b));
        let lying = Panels {
            at: Shared(b.at),
            row: b.row,
            next: width,
            columns: whole,
        };
        let packed = Panels {
            at: Shared(packed),
            row: width,
            next: length * width,
            columns: columns - whole,
        };
        // SAFETY: what the caller promises.
        unsafe {
            if packed.columns > 0 && !(self.is_packed && length == self.blocks.depth) {
                let size = [length, packed.columns];
                pack(engine, size, b.from(0, whole), packed.at.at(), packed.next);
            }
            for (first, panels) in [(0, lying), (whole, packed)] {
                let walk = Walk::line(length, a.col);
                let fill = |range: Range<usize>, addresses: &mut [*const T; MAX_ROWS]| {
                    let addresses = addresses.iter_mut().zip(range);
                    addresses.for_each(|(to, i)| *to = a.element(i, 0));
                };
                if panels.columns > 0 {
                    sweep(engine, rows, walk, fill, &panels, c.from(0, first), mode);
                }
            }
        }
    }

    /// How many of the columns of B the micro-kernel can read where they are.
    fn readable(&self, length: usize, b: Matrix<T>) -> usize {
        let aliases = (b.row * size_of::<T>()).is_multiple_of(ALIAS_BYTES) && length > ALIAS_ROWS;
        let (columns, width) = (self.size[1], self.engine.columns());
        if b.col != 1 || aliases {
            0
        } else if columns.is_multiple_of(self.engine.lanes) {
            columns
        } else {
            // Vectors are loaded whole: the last one might reach out of the array.
            columns / width * width
        }
    }

    /// `c = sums` or `c += sums`.
    ///
    /// # Safety
    /// The matrices must be valid memory, c exclusively.
    unsafe fn finish(&self, sums: Matrix<T>, c: Matrix<T>, accumulate: bool) {
        // SAFETY: what the caller promises.
        unsafe {
            if accumulate || c.col == 1 {
                self.add(sums, c, accumulate);
            } else {
                self.engine.transpose(self.size, sums, c.transposed());
            }
        }
    }

    /// `c = sums` or `c += sums`, element by element.
    ///
    /// # Safety
    /// As for [`Self::finish`].
    unsafe fn add(&self, sums: Matrix<T>, c: Matrix<T>, accumulate: bool) {
        let [rows, columns] = self.size;
        for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
            // SAFETY: what the caller promises.
            let (from, to) = unsafe { (*sums.element(i, j), &mut *c.element(i, j)) };
            if accumulate {
                *to += from;
            } else {
                *to = from;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbers in [-1, 1) that look random.
    pub(in super::super) fn noise(count: usize, seed: u64) -> Vec<f64> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            f64::from((state >> 40) as u32) / f64::from(1 << 23) - 1.0
        };
        (0..count).map(|_| draw()).collect()
    }

    /// Values, as elements of either type.
    pub(in super::super) fn encode(values: &[f64], float: Float) -> Vec<u64> {
        let mut words = vec![u64::MAX; (values.len() * float.size()).div_ceil(8)];
        match float {
            Float::F32 => bytemuck::cast_slice_mut::<_, f32>(&mut words)
                .iter_mut()
                .zip(values)
                .for_each(|(word, &value)| *word = value as f32),
            Float::F64 => bytemuck::cast_slice_mut(&mut words).copy_from_slice(values),
        }
        words
    }

    pub(in super::super) fn decode(words: &[u64], count: usize, float: Float) -> Vec<f64> {
        match float {
            Float::F32 => bytemuck::cast_slice::<_, f32>(words)[..count]
                .iter()
                .map(|&v| v.into())
                .collect(),
            Float::F64 => bytemuck::cast_slice(words)[..count].to_vec(),
        }
    }

    pub(in super::super) fn raw(words: &mut [u64]) -> Raw {
        Raw {
            pointer: words.as_mut_ptr().cast(),
            bytes: size_of_val(words),
        }
    }

    /// Runs `body` on a pool of its own.
    pub(in super::super) fn on_threads<R: Send>(
        threads: usize,
        body: impl FnOnce() -> R + Send,
    ) -> R {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(body)
    }

    pub(in super::super) fn assert_close(got: &[f64], want: &[f64], float: Float, terms: usize) {
        let epsilon = if float == Float::F32 {
            f64::from(f32::EPSILON)
        } else {
            f64::EPSILON
        };
        let tolerance = 4.0 * epsilon * (terms as f64 + 4.0);
        assert_eq!(got.len(), want.len());
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            assert!(
                (got - want).abs() <= tolerance,
                "element {i}: {got} instead of {want}"
            );
        }
    }

    /// Runs the product on numbers that [`noise`] makes; c starts as `start`.
    fn run(spec: &MatMul, start: &[f64]) -> Vec<f64> {
        let mut a = encode(&noise(spec.batch * spec.m * spec.k, 1), spec.float);
        let mut b = encode(&noise(spec.batch * spec.k * spec.n, 2), spec.float);
        let mut c = encode(start, spec.float);
        matmul(spec, &[[raw(&mut a), raw(&mut b)]], raw(&mut c));
        decode(&c, start.len(), spec.float)
    }

    fn reference(spec: &MatMul) -> Vec<f64> {
        let &MatMul { batch, m, n, k, .. } = spec;
        let rounded = |count, seed| {
            let values = noise(count, seed);
            decode(&encode(&values, spec.float), count, spec.float)
        };
        let (a, b) = (rounded(batch * m * k, 1), rounded(batch * k * n, 2));
        let at = |i: usize, p: usize| {
            if spec.transpose_a {
                p * m + i
            } else {
                i * k + p
            }
        };
        let bt = |p: usize, j: usize| {
            if spec.transpose_b {
                j * k + p
            } else {
                p * n + j
            }
        };
        let element = |s: usize, i: usize, j: usize| -> f64 {
            (0..k)
                .map(|p| a[s * m * k + at(i, p)] * b[s * k * n + bt(p, j)])
                .sum()
        };
        (0..batch * m * n)
            .map(|e| element(e / (m * n), e / n % m, e % n))
            .collect()
    }

    /// Everything that holds for every product.
    fn check(spec: MatMul) {
        let count = spec.batch * spec.m * spec.n;
        let fresh = MatMul {
            accumulate: false,
            ..spec
        };
        let product = run(&fresh, &vec![f64::NAN; count]);
        assert_close(&product, &reference(&spec), spec.float, spec.k);
        let start = decode(&encode(&noise(count, 3), spec.float), count, spec.float);
        let sum: Vec<f64> = start.iter().zip(&product).map(|(a, b)| a + b).collect();
        let sum = decode(&encode(&sum, spec.float), count, spec.float);
        let added = MatMul {
            accumulate: true,
            ..spec
        };
        for threads in 1..=3 {
            assert_eq!(
                on_threads(threads, || run(&fresh, &vec![1.0; count])),
                product
            );
            assert_eq!(on_threads(threads, || run(&added, &start)), sum);
        }
    }

    fn spec([batch, m, n, k]: [usize; 4], float: Float, flags: u8) -> MatMul {
        let (transpose_a, transpose_b) = (flags & 1 != 0, flags & 2 != 0);
        MatMul {
            float,
            batch,
            m,
            n,
            k,
            transpose_a,
            transpose_b,
            accumulate: false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_product(
            batch in 0_usize..4,
            size in [0_usize..70, 0..100, 0..80],
            float in prop_oneof![Just(Float::F32), Just(Float::F64)],
            flags in 0_u8..4,
        ) {
            check(spec([batch, size[0], size[1], size[2]], float, flags));
        }
    }

    #[test]
    fn products_of_many_blocks() {
        for flags in 0..4 {
            check(spec([1, 300, 523, 139], Float::F32, flags));
            check(spec([1, 67, 40, 1500], Float::F32, flags));
            // Rows that alias, several stretches of them, and few elements of many.
            check(spec([1, 40, 1024, 130], Float::F32, flags));
            check(spec([1, 1024, 72, 700], Float::F32, flags));
            check(spec([1, 9, 5, 40_000], Float::F32, flags));
            check(spec([2, 130, 260, 300], Float::F64, flags));
        }
    }
}
