//! Matrix products.

use std::cell::RefCell;
use std::ops::AddAssign;

use rayon::prelude::*;

use crate::program::Raw;
use crate::{Float, MatMul};

/// Rows and columns of the tiles that are computed independently.
const TILE: [usize; 2] = [128, 256];

/// Below this many FLOPs a thread hand-off costs more than it saves.
pub(super) const PARALLEL_FLOPS: u64 = 1 << 21;

/// What elements of both types can do.
pub(super) trait Element: Copy + Default + AddAssign + Send + Sync + 'static {
    const ONE: Self;
}

impl Element for f32 {
    const ONE: Self = 1.0;
}

impl Element for f64 {
    const ONE: Self = 1.0;
}

/// A matrix in memory: address of its first element, and the steps between rows and columns.
#[derive(Clone, Copy)]
pub(super) struct Matrix<T> {
    pub(super) at: *mut T,
    pub(super) row: usize,
    pub(super) col: usize,
}

// SAFETY: a plain address; whoever makes references from it answers for them.
unsafe impl<T> Send for Matrix<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Matrix<T> {}

impl<T: Element> Matrix<T> {
    pub(super) fn offset(self, rows: usize, cols: usize) -> Self {
        self.skip(rows * self.row + cols * self.col)
    }

    pub(super) fn skip(self, elements: usize) -> Self {
        Self {
            at: self.at.wrapping_add(elements),
            ..self
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Calls `body` with room for `count` elements, with any content.
pub(super) fn scratch<T: Element>(count: usize, body: impl FnOnce(*mut T)) {
    SCRATCH.with_borrow_mut(|words| {
        let needed = (count * size_of::<T>()).div_ceil(8);
        if words.len() < needed {
            words.resize(needed, 0);
        }
        body(words.as_mut_ptr().cast());
    });
}

/// `c = a·b`, on this thread.
///
/// # Safety
/// The matrices must lie in live memory, c exclusively.
pub(super) unsafe fn product<T: Element>(
    [m, n, k]: [usize; 3],
    a: Matrix<T>,
    b: Matrix<T>,
    c: Matrix<T>,
) {
    // SAFETY: what the caller promises.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.at,
            c.col as isize,
            c.row as isize,
            false,
            a.at,
            a.col as isize,
            a.row as isize,
            b.at,
            b.col as isize,
            b.row as isize,
            T::default(),
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Runs `body` for all indices, on the current pool if that pays.
pub(super) fn for_each(count: usize, flops: u64, body: impl Fn(usize) + Send + Sync) {
    if flops < PARALLEL_FLOPS || count < 2 || rayon::current_num_threads() == 1 {
        (0..count).for_each(body);
    } else {
        (0..count).into_par_iter().with_max_len(1).for_each(body);
    }
}

pub(crate) fn matmul(spec: &MatMul, a: Raw, b: Raw, c: Raw, _workspace: Raw) {
    match spec.float {
        Float::F32 => matmul_of::<f32>(spec, a, b, c),
        Float::F64 => matmul_of::<f64>(spec, a, b, c),
    }
}

fn matmul_of<T: Element>(spec: &MatMul, a: Raw, b: Raw, c: Raw) {
    let &MatMul {
        batch,
        m,
        n,
        k,
        transpose_a,
        transpose_b,
        accumulate,
        ..
    } = spec;
    let strides = |rows, cols, transposed| if transposed { [1, rows] } else { [cols, 1] };
    let matrix = |raw: Raw, [row, col]: [usize; 2]| Matrix {
        at: raw.pointer.cast::<T>(),
        row,
        col,
    };
    let a = matrix(a, strides(m, k, transpose_a));
    let b = matrix(b, strides(k, n, transpose_b));
    let c = matrix(c, [n, 1]);
    let [rows, cols] = [m.div_ceil(TILE[0]), n.div_ceil(TILE[1])];
    for_each(batch * rows * cols, spec.flops(), |tile| {
        let image = tile / (rows * cols);
        let (i, j) = (tile / cols % rows * TILE[0], tile % cols * TILE[1]);
        let size = [TILE[0].min(m - i), TILE[1].min(n - j), k];
        let a = a.skip(image * m * k).offset(i, 0);
        let b = b.skip(image * k * n).offset(0, j);
        let c = c.skip(image * m * n).offset(i, j);
        // SAFETY: the program has checked the sizes, and no other tile has these elements of c.
        unsafe { tile_product(size, a, b, c, accumulate) }
    });
}

/// `c = a·b` or `c += a·b`, the latter with one rounding per element.
///
/// # Safety
/// As for [`product`].
pub(super) unsafe fn tile_product<T: Element>(
    [m, n, k]: [usize; 3],
    a: Matrix<T>,
    b: Matrix<T>,
    c: Matrix<T>,
    accumulate: bool,
) {
    if !accumulate {
        // SAFETY: what the caller promises.
        return unsafe { product([m, n, k], a, b, c) };
    }
    let mut sums = vec![T::default(); m * n];
    let target = Matrix {
        at: sums.as_mut_ptr(),
        row: n,
        col: 1,
    };
    // SAFETY: what the caller promises; `sums` is our own.
    unsafe { product([m, n, k], a, b, target) };
    for (i, row) in sums.chunks_exact(n.max(1)).enumerate() {
        for (j, &value) in row.iter().enumerate() {
            // SAFETY: an element of c, which is ours.
            unsafe { *c.offset(i, j).at += value };
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
    fn run(spec: &MatMul, start: &[f64], garbage: u64) -> Vec<f64> {
        let mut a = encode(&noise(spec.batch * spec.m * spec.k, 1), spec.float);
        let mut b = encode(&noise(spec.batch * spec.k * spec.n, 2), spec.float);
        let mut c = encode(start, spec.float);
        let mut workspace = vec![garbage; spec.workspace().div_ceil(8)];
        matmul(
            spec,
            raw(&mut a),
            raw(&mut b),
            raw(&mut c),
            raw(&mut workspace),
        );
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
        let product = run(&fresh, &vec![f64::NAN; count], u64::MAX);
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
                on_threads(threads, || run(&fresh, &vec![1.0; count], 0)),
                product
            );
            assert_eq!(on_threads(threads, || run(&added, &start, 7)), sum);
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
