//! Matrix products: blocks of C for the threads, blocks of the inner index for the caches.

use std::ops::Range;

use super::microkernel::{Element, Engine, MAX_ROWS, Mode, Walk};
use super::panels::{Matrix, for_each, pack, packed_count, scratch, sweep, transpose};
use crate::program::Raw;
use crate::{Float, MatMul};

/// Bytes of a block of C, and of the part of A that it needs at once.
const BLOCK_BYTES: usize = 1 << 18;

/// Longest stretch of the inner index that is done at once: a panel of B so high is 32 KiB, and stays in
/// the first-level cache.
const MAX_DEPTH: usize = 256;

/// Blocks of C that a product should have at least: work for that many threads.
const BLOCKS: usize = 16;

/// The sum of products of such A and B, each formed whole.
pub(crate) fn matmul(spec: &MatMul, products: &[[Raw; 2]], c: Raw) {
    match spec.float {
        Float::F32 => matmul_of::<f32>(&f32::engine(), spec, products, c),
        Float::F64 => matmul_of::<f64>(&f64::engine(), spec, products, c),
    }
}

fn matmul_of<T: Element>(engine: &Engine<T>, spec: &MatMul, products: &[[Raw; 2]], c: Raw) {
    let &MatMul { batch, m, n, k, .. } = spec;
    // As many elements would be transposed for A·B, and for its transpose, Bᵀ·Aᵀ.
    let plain = if spec.transpose_b { n * k } else { 0 };
    let swapped = m * n + if spec.transpose_a { 0 } else { m * k };
    let swap = swapped < plain;
    let [rows, columns] = if swap { [n, m] } else { [m, n] };
    let block = block(spec, [rows, columns]);
    let blocks = [rows.div_ceil(block[0]), columns.div_ceil(block[1])];
    let flops = products.len() as u64 * spec.flops();
    for_each(batch * blocks[0] * blocks[1], flops, |index| {
        let part = index / blocks[1] / blocks[0];
        let matrix = |raw: Raw, rows: usize, cols: usize, transposed: bool| {
            let at = raw.pointer.cast::<T>().wrapping_add(part * rows * cols);
            let [row, col] = if transposed { [1, rows] } else { [cols, 1] };
            Matrix { at, row, col }
        };
        let (i, j) = (
            index / blocks[1] % blocks[0] * block[0],
            index % blocks[1] * block[1],
        );
        let size = [block[0].min(rows - i), block[1].min(columns - j), k];
        // The block of C is still in the cache when the next product is added to it.
        for (at, &[a, b]) in products.iter().enumerate() {
            let mut a = matrix(a, m, k, spec.transpose_a);
            let mut b = matrix(b, k, n, spec.transpose_b);
            let mut c = matrix(c, m, n, false);
            if swap {
                (a, b, c) = (b.transposed(), a.transposed(), c.transposed());
            }
            let accumulate = spec.accumulate || at > 0;
            let (a, b, c) = (a.from(i, 0), b.from(0, j), c.from(i, j));
            // SAFETY: the program has checked the sizes, and no other block has these elements of c.
            unsafe { product(engine, size, a, b, c, accumulate) };
        }
    });
}

/// Rows and columns of the blocks of C that are computed independently.
fn block(spec: &MatMul, [rows, columns]: [usize; 2]) -> [usize; 2] {
    let at_most = columns.clamp(1, 256).next_multiple_of(32);
    let area = BLOCK_BYTES / spec.float.size();
    let mut block = [
        (area / at_most).min(rows.max(1).next_multiple_of(8)),
        at_most,
    ];
    let count = |[m, n]: [usize; 2]| spec.batch * rows.div_ceil(m) * columns.div_ceil(n);
    while count(block) < BLOCKS {
        // Fewer columns cost little; fewer rows mean that every part of B is packed twice.
        let [side, unit] = if block[1] > 64 { [1, 32] } else { [0, 8] };
        if block[side] <= 4 * unit {
            break;
        }
        block[side] = (block[side] / 2).next_multiple_of(unit);
    }
    block
}

/// `c = a·b` or `c += a·b` on this thread, `[rows, columns, depth]` of them.
///
/// # Safety
/// The matrices must be valid memory, c exclusively.
unsafe fn product<T: Element>(
    engine: &Engine<T>,
    [rows, columns, depth]: [usize; 3],
    a: Matrix<T>,
    b: Matrix<T>,
    c: Matrix<T>,
    accumulate: bool,
) {
    let stretch = depth.div_ceil(depth.div_ceil(MAX_DEPTH).max(1)).max(1);
    // The sum over several stretches must be complete before it is added or transposed.
    let aside = depth > stretch && (accumulate || c.col != 1);
    let counts = [
        packed_count(engine, stretch, engine.columns()),
        if a.col == 1 { 0 } else { stretch * rows },
        if aside { rows * columns } else { 0 },
    ];
    scratch(counts, |[packed_b, packed_a, sums]: [*mut T; 3]| {
        let target = if aside {
            Matrix {
                at: sums,
                row: columns,
                col: 1,
            }
        } else {
            c
        };
        for first in (0..depth.max(1)).step_by(stretch) {
            let length = stretch.min(depth - first);
            let mode = match first {
                _ if accumulate && !aside => Mode::Add,
                0 => Mode::Set,
                _ => Mode::Continue,
            };
            let mut a = a.from(0, first);
            if a.col != 1 {
                // Rows in the order of memory, not as neighbours in many far places.
                let packed = Matrix {
                    at: packed_a,
                    row: length,
                    col: 1,
                };
                // SAFETY: what the caller promises, and scratch memory of the size asked for.
                unsafe { transpose([length, rows], a.transposed(), packed) };
                a = packed;
            }
            let walk = Walk::line(length);
            let fill = |range: Range<usize>, addresses: &mut [*const T; MAX_ROWS]| {
                addresses
                    .iter_mut()
                    .zip(range)
                    .for_each(|(to, i)| *to = a.element(i, 0));
            };
            for j in (0..columns).step_by(engine.columns()) {
                let count = engine.columns().min(columns - j);
                // SAFETY: as above.
                unsafe {
                    let panel = pack(engine, [length, count], b.from(first, j), packed_b, 0);
                    sweep(engine, rows, walk, fill, &panel, target.from(0, j), mode);
                }
            }
        }
        if aside {
            // SAFETY: c is ours, and so are its sums.
            unsafe { finish([rows, columns], target, c, accumulate) };
        }
    });
}

/// `c = sums` or `c += sums`.
///
/// # Safety
/// The matrices must be valid memory, c exclusively.
unsafe fn finish<T: Element>(size: [usize; 2], sums: Matrix<T>, c: Matrix<T>, accumulate: bool) {
    // SAFETY: what the caller promises.
    unsafe {
        if accumulate {
            for (i, j) in (0..size[0]).flat_map(|i| (0..size[1]).map(move |j| (i, j))) {
                *c.element(i, j) += *sums.element(i, j);
            }
        } else {
            transpose(size, sums, c.transposed());
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
            check(spec([2, 130, 260, 300], Float::F64, flags));
        }
    }
}
