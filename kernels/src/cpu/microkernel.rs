//! The innermost loop of every contraction: a small tile of C stays in vector registers while the
//! inner index runs.
//!
//! Each step loads a row of B once, and multiplies it by one element of each row of A (an outer product,
//! as in Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008). An element of C
//! is a sum of chains of fused multiply-adds in the order of the inner index, each of about [`CHAIN`] terms.
//! Where chains end follows from the walk alone. So the bits of an element depend neither on its tile nor on
//! the width of the registers.

use std::mem::MaybeUninit;
use std::ops::AddAssign;

use super::matrix::{self, Matrix, Transpose, Turn};
#[cfg(target_arch = "x86_64")]
use super::simd::Simd;

/// Most rows that a tile has on any machine.
pub(super) const MAX_ROWS: usize = 8;

/// Most columns that a tile has on any machine.
pub(super) const MAX_COLUMNS: usize = 32;

/// Terms from which a chain ends, at the end of a round of the innermost loop: its sum is added to that of
/// the chains before. The rounding error of a sum grows with the length of its longest chain. Ending one
/// takes about as long as three terms, so half of this would cost another 0.4 % of the instructions.
pub(super) const CHAIN: usize = 256;

/// How the inner index walks along a row of A: three nested loops, the innermost last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    pub(super) counts: [usize; 3],
    /// Elements between the starts of two rounds.
    pub(super) steps: [usize; 3],
    /// Length of the whole walk: the last round may be shorter than the others.
    pub(super) depth: usize,
}

impl Walk {
    pub(super) fn new(counts: [usize; 3], steps: [usize; 3]) -> Self {
        let depth = counts.iter().product();
        Self {
            counts,
            steps,
            depth,
        }
    }

    /// Walks through `depth` elements that are `step` apart.
    pub(super) fn line(depth: usize, step: usize) -> Self {
        Self {
            counts: [1, depth.div_ceil(CHAIN), CHAIN],
            steps: [0, CHAIN * step, step],
            depth,
        }
    }
}

/// What happens to the tile in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It is replaced by the product.
    Set,
    /// The chains of the product are added to it, one after the other.
    Continue,
    /// The finished product is added to it.
    Add,
}

/// A tile of C and what it is the product of.
#[derive(Debug)]
pub(super) struct Tile<T> {
    /// First element of each row of A.
    pub(super) a: [*const T; MAX_ROWS],
    pub(super) walk: Walk,
    /// First row of B, and elements from row to row.
    pub(super) b: *const T,
    pub(super) b_row: usize,
    /// First row of C, and elements from row to row.
    pub(super) c: *mut T,
    pub(super) c_row: usize,
    /// Columns of C that exist. B can be read up to the next whole vector.
    pub(super) columns: usize,
    pub(super) mode: Mode,
}

/// Computes a tile. All memory that the tile describes must be valid, C exclusively.
pub(super) type Kernel<T> = unsafe fn(&Tile<T>);

/// Copies rows as wide as a full tile. Arguments: how many; the first row, and elements from row to row; the
/// same of the copy.
type CopyRows<T> = unsafe fn(usize, *const T, usize, *mut T, usize);

/// The kernels of one instruction set, for one element type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Engine<T: 'static> {
    /// Elements of a vector register.
    pub(super) lanes: usize,
    /// Indexed by rows − 1, then by the width of the tile: one vector, or two.
    kernels: &'static [[Kernel<T>; 2]],
    copy: CopyRows<T>,
    transpose: Transpose<T>,
}

impl<T> Engine<T> {
    /// Most rows of a tile.
    pub(super) fn rows(&self) -> usize {
        self.kernels.len()
    }

    /// Columns of a full tile.
    pub(super) fn columns(&self) -> usize {
        2 * self.lanes
    }

    /// The kernel for tiles of `rows` rows and at least `columns` columns.
    pub(super) fn kernel(&self, rows: usize, columns: usize) -> Kernel<T> {
        self.kernels[rows - 1][usize::from(columns > self.lanes)]
    }

    /// Copies rows of [`Engine::columns`] elements. `steps` are the elements from row to row, in the source
    /// and in the copy.
    ///
    /// # Safety
    /// The rows must be readable, and the copies writable.
    pub(super) unsafe fn copy(&self, rows: usize, [from, to]: [*mut T; 2], steps: [usize; 2]) {
        // SAFETY: what the caller promises; an engine is chosen where its instructions exist.
        unsafe { (self.copy)(rows, from, steps[0], to, steps[1]) }
    }

    /// Writes the columns of a matrix of `size` as rows; both have contiguous rows.
    ///
    /// # Safety
    /// The matrix must be readable and the result writable.
    pub(super) unsafe fn transpose(&self, size: [usize; 2], from: Matrix<T>, to: Matrix<T>) {
        // SAFETY: what the caller promises; an engine is chosen where its instructions exist.
        unsafe { (self.transpose)(size, from, to) }
    }
}

/// An element type that has kernels.
pub(super) trait Element: Turn + Default + AddAssign + Send + Sync + 'static {
    /// The best kernels that this machine runs.
    fn engine() -> Engine<Self>;
}

/// Uninitialised memory for another value of the same type.
#[inline(always)]
fn room_for<V>(_: &V) -> MaybeUninit<V> {
    MaybeUninit::uninit()
}

/// Writes a kernel in terms of one instruction set's load, store, broadcast, sum and multiply-add.
macro_rules! kernel {
    ($(#[$feature:meta])* $name:ident, $copy:ident, $T:ty, $lanes:expr,
     $load:path, $store:path, $load_part:path, $store_part:path,
     $splat:path, $sum:path, $fma:path, $settle:path) => {
        $(#[$feature])*
        unsafe fn $name<const ROWS: usize, const VECTORS: usize>(tile: &Tile<$T>) {
            // SAFETY: the caller vouches for the tile's memory and for the instruction set.
            unsafe {
                let mut acc = [[$splat(0.0); VECTORS]; ROWS];
                // The sum of the chains that are complete, if there are any. It must lie in memory. The
                // compiler would choose registers, which `acc` needs: products would take up to three times
                // as long.
                let mut memory = room_for(&acc);
                let sum = std::hint::black_box(memory.as_mut_ptr());
                let mut is_sum = tile.mode == Mode::Continue;
                let c = |i: usize, v: usize| tile.c.add(i * tile.c_row + v * $lanes);
                let last = tile.columns - (VECTORS - 1) * $lanes;
                let is_part = |v: usize| v == VECTORS - 1 && last < $lanes;
                if is_sum {
                    for i in 0..ROWS {
                        for v in 0..VECTORS {
                            (*sum)[i][v] = if is_part(v) { $load_part(c(i, v), last) } else { $load(c(i, v)) };
                        }
                    }
                }
                let mut a = [std::ptr::null(); ROWS];
                a.copy_from_slice(&tile.a[..ROWS]);
                let mut b = tile.b;
                let [outer, middle, inner] = tile.walk.counts;
                let (steps, mut left, mut chain) = (tile.walk.steps, tile.walk.depth, 0);
                for i in 0..outer {
                    for j in 0..middle {
                    let mut at = i * steps[0] + j * steps[1];
                    let count = inner.min(left);
                    for _ in 0..count {
                        let mut row = [$splat(0.0); VECTORS];
                        for v in 0..VECTORS {
                            row[v] = $load(b.add(v * $lanes));
                        }
                        for i in 0..ROWS {
                            let x = $splat(*a[i].add(at));
                            for v in 0..VECTORS {
                                acc[i][v] = $fma(x, row[v], acc[i][v]);
                            }
                        }
                        at += steps[2];
                        b = b.wrapping_add(tile.b_row);
                    }
                    for i in 0..ROWS {
                        for v in 0..VECTORS {
                            acc[i][v] = $settle(acc[i][v]);
                        }
                    }
                    (left, chain) = (left - count, chain + count);
                    if chain >= CHAIN && left > 0 {
                        for i in 0..ROWS {
                            for v in 0..VECTORS {
                                (*sum)[i][v] = if is_sum { $sum((*sum)[i][v], acc[i][v]) } else { acc[i][v] };
                                acc[i][v] = $splat(0.0);
                            }
                        }
                        (is_sum, chain) = (true, 0);
                    }
                }
                }
                for i in 0..ROWS {
                    for v in 0..VECTORS {
                        if is_sum {
                            acc[i][v] = $sum((*sum)[i][v], acc[i][v]);
                        }
                        if tile.mode == Mode::Add {
                            let old = if is_part(v) { $load_part(c(i, v), last) } else { $load(c(i, v)) };
                            acc[i][v] = $sum(old, acc[i][v]);
                        }
                        if is_part(v) {
                            $store_part(c(i, v), acc[i][v], last);
                        } else {
                            $store(c(i, v), acc[i][v]);
                        }
                    }
                }
            }
        }

        $(#[$feature])*
        unsafe fn $copy(rows: usize, from: *const $T, from_row: usize, to: *mut $T, to_row: usize) {
            for i in 0..rows {
                for v in 0..2 {
                    let (from, to) = (from.wrapping_add(i * from_row + v * $lanes), to.wrapping_add(i * to_row + v * $lanes));
                    // SAFETY: the caller vouches for the memory and for the instruction set.
                    unsafe { $store(to, $load(from)) }
                }
            }
        }
    };
}

macro_rules! kernels {
    ($name:ident: $($rows:literal)*) => { &[$([$name::<$rows, 1>, $name::<$rows, 2>]),*] };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{CHAIN, Engine, Mode, Tile, matrix, room_for};
    use std::arch::asm;
    use std::arch::x86_64::{
        __m256, __m256d, __m256i, __m512, __m512d, _mm256_add_pd, _mm256_add_ps,
        _mm256_cmpgt_epi32, _mm256_cmpgt_epi64, _mm256_fmadd_pd, _mm256_fmadd_ps, _mm256_loadu_pd,
        _mm256_loadu_ps, _mm256_maskload_pd, _mm256_maskload_ps, _mm256_maskstore_pd,
        _mm256_maskstore_ps, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_set1_pd, _mm256_set1_ps,
        _mm256_setr_epi32, _mm256_setr_epi64x, _mm256_storeu_pd, _mm256_storeu_ps, _mm512_add_pd,
        _mm512_add_ps, _mm512_fmadd_pd, _mm512_fmadd_ps, _mm512_loadu_pd, _mm512_loadu_ps,
        _mm512_mask_storeu_pd, _mm512_mask_storeu_ps, _mm512_maskz_loadu_pd, _mm512_maskz_loadu_ps,
        _mm512_set1_pd, _mm512_set1_ps, _mm512_storeu_pd, _mm512_storeu_ps,
    };

    macro_rules! settle {
        ($feature:literal, $name:ident, $Vector:ty, $register:ident) => {
            #[inline]
            #[target_feature(enable = $feature)]
            fn $name(mut vector: $Vector) -> $Vector {
                // SAFETY: the assembly has no instruction.
                unsafe { asm!("/* {0} */", inout($register) vector, options(nomem, nostack, preserves_flags)) }
                vector
            }
        };
    }

    kernel!(
        #[target_feature(enable = "avx512f")]
        avx512_f32,
        copy_avx512_f32,
        f32,
        16,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        load_part_avx512_f32,
        store_part_avx512_f32,
        _mm512_set1_ps,
        _mm512_add_ps,
        _mm512_fmadd_ps,
        settle_avx512_f32
    );
    kernel!(
        #[target_feature(enable = "avx512f")]
        avx512_f64,
        copy_avx512_f64,
        f64,
        8,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        load_part_avx512_f64,
        store_part_avx512_f64,
        _mm512_set1_pd,
        _mm512_add_pd,
        _mm512_fmadd_pd,
        settle_avx512_f64
    );
    kernel!(
        #[target_feature(enable = "avx2,fma")]
        avx2_f32,
        copy_avx2_f32,
        f32,
        8,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        load_part_avx2_f32,
        store_part_avx2_f32,
        _mm256_set1_ps,
        _mm256_add_ps,
        _mm256_fmadd_ps,
        settle_avx2_f32
    );
    kernel!(
        #[target_feature(enable = "avx2,fma")]
        avx2_f64,
        copy_avx2_f64,
        f64,
        4,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        load_part_avx2_f64,
        store_part_avx2_f64,
        _mm256_set1_pd,
        _mm256_add_pd,
        _mm256_fmadd_pd,
        settle_avx2_f64
    );

    // A vector as it is, passed through empty assembly. What follows the loop then uses the result of that.
    // Otherwise the compiler would store every sum in every round of the loop for the sake of what follows:
    // five rows took twice the time of six.
    settle!("avx512f", settle_avx512_f32, __m512, zmm_reg);
    settle!("avx512f", settle_avx512_f64, __m512d, zmm_reg);
    settle!("avx2", settle_avx2_f32, __m256, ymm_reg);
    settle!("avx2", settle_avx2_f64, __m256d, ymm_reg);

    // Loads and stores of the first `count` elements of a vector, fewer than it has. Other lanes load as
    // zero, and their memory is not touched. Callers promise that the memory of these elements is valid.

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load_part_avx512_f32(from: *const f32, count: usize) -> __m512 {
        // SAFETY: what the caller promises.
        unsafe { _mm512_maskz_loadu_ps((1 << count) - 1, from) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store_part_avx512_f32(to: *mut f32, vector: __m512, count: usize) {
        // SAFETY: what the caller promises.
        unsafe { _mm512_mask_storeu_ps(to, (1 << count) - 1, vector) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load_part_avx512_f64(from: *const f64, count: usize) -> __m512d {
        // SAFETY: what the caller promises.
        unsafe { _mm512_maskz_loadu_pd((1 << count) - 1, from) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store_part_avx512_f64(to: *mut f64, vector: __m512d, count: usize) {
        // SAFETY: what the caller promises.
        unsafe { _mm512_mask_storeu_pd(to, (1 << count) - 1, vector) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn mask_f32(count: usize) -> __m256i {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lanes)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn mask_f64(count: usize) -> __m256i {
        let lanes = _mm256_setr_epi64x(0, 1, 2, 3);
        _mm256_cmpgt_epi64(_mm256_set1_epi64x(count as i64), lanes)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load_part_avx2_f32(from: *const f32, count: usize) -> __m256 {
        // SAFETY: what the caller promises.
        unsafe { _mm256_maskload_ps(from, mask_f32(count)) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store_part_avx2_f32(to: *mut f32, vector: __m256, count: usize) {
        // SAFETY: what the caller promises.
        unsafe { _mm256_maskstore_ps(to, mask_f32(count), vector) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load_part_avx2_f64(from: *const f64, count: usize) -> __m256d {
        // SAFETY: what the caller promises.
        unsafe { _mm256_maskload_pd(from, mask_f64(count)) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store_part_avx2_f64(to: *mut f64, vector: __m256d, count: usize) {
        // SAFETY: what the caller promises.
        unsafe { _mm256_maskstore_pd(to, mask_f64(count), vector) }
    }

    // 32 registers hold 8×2 accumulators with room to spare (measured: more rows gain nothing), 16 hold 6×2.
    pub(super) const AVX512_F32: Engine<f32> = Engine {
        lanes: 16,
        kernels: kernels!(avx512_f32: 1 2 3 4 5 6 7 8),
        copy: copy_avx512_f32,
        transpose: matrix::x86::by_sixteens,
    };
    pub(super) const AVX512_F64: Engine<f64> = Engine {
        lanes: 8,
        kernels: kernels!(avx512_f64: 1 2 3 4 5 6 7 8),
        copy: copy_avx512_f64,
        transpose: matrix::by_fours,
    };
    pub(super) const AVX2_F32: Engine<f32> = Engine {
        lanes: 8,
        kernels: kernels!(avx2_f32: 1 2 3 4 5 6),
        copy: copy_avx2_f32,
        transpose: matrix::by_fours,
    };
    pub(super) const AVX2_F64: Engine<f64> = Engine {
        lanes: 4,
        kernels: kernels!(avx2_f64: 1 2 3 4 5 6),
        copy: copy_avx2_f64,
        transpose: matrix::by_fours,
    };
}

/// Plain loops that the compiler turns into whatever 128-bit vectors the target always has.
mod portable {
    use super::{CHAIN, Engine, Mode, Tile, matrix, room_for};
    use std::convert::identity;

    macro_rules! vector {
        ($module:ident, $T:ty, $lanes:literal) => {
            mod $module {
                pub(super) type Vector = [$T; $lanes];

                // Callers promise that the memory of a vector, or of `count` elements, is valid.

                #[inline(always)]
                pub(super) unsafe fn load(from: *const $T) -> Vector {
                    // SAFETY: what the caller promises.
                    unsafe { from.cast::<Vector>().read_unaligned() }
                }

                #[inline(always)]
                pub(super) unsafe fn store(to: *mut $T, vector: Vector) {
                    // SAFETY: what the caller promises.
                    unsafe { to.cast::<Vector>().write_unaligned(vector) }
                }

                #[inline(always)]
                pub(super) unsafe fn load_part(from: *const $T, count: usize) -> Vector {
                    let mut vector = [0.0; $lanes];
                    for (i, value) in vector.iter_mut().enumerate().take(count) {
                        // SAFETY: what the caller promises of the first `count`; others are not read.
                        *value = unsafe { *from.add(i) };
                    }
                    vector
                }

                #[inline(always)]
                pub(super) unsafe fn store_part(to: *mut $T, vector: Vector, count: usize) {
                    for (i, value) in vector.into_iter().enumerate().take(count) {
                        // SAFETY: as above.
                        unsafe { *to.add(i) = value }
                    }
                }

                #[inline(always)]
                pub(super) fn splat(value: $T) -> Vector {
                    [value; $lanes]
                }

                #[inline(always)]
                pub(super) fn sum(a: Vector, b: Vector) -> Vector {
                    std::array::from_fn(|i| a[i] + b[i])
                }

                /// Fused only where that is an instruction: elsewhere it would be a slow library call.
                #[inline(always)]
                pub(super) fn multiply_add(a: Vector, b: Vector, c: Vector) -> Vector {
                    std::array::from_fn(|i| {
                        if cfg!(target_arch = "aarch64") {
                            a[i].mul_add(b[i], c[i])
                        } else {
                            a[i] * b[i] + c[i]
                        }
                    })
                }
            }
        };
    }
    vector!(f32x4, f32, 4);
    vector!(f64x2, f64, 2);
    kernel!(
        portable_f32,
        copy_portable_f32,
        f32,
        4,
        f32x4::load,
        f32x4::store,
        f32x4::load_part,
        f32x4::store_part,
        f32x4::splat,
        f32x4::sum,
        f32x4::multiply_add,
        identity
    );
    kernel!(
        portable_f64,
        copy_portable_f64,
        f64,
        2,
        f64x2::load,
        f64x2::store,
        f64x2::load_part,
        f64x2::store_part,
        f64x2::splat,
        f64x2::sum,
        f64x2::multiply_add,
        identity
    );

    pub(super) const F32: Engine<f32> = Engine {
        lanes: 4,
        kernels: kernels!(portable_f32: 1 2 3 4 5 6),
        copy: copy_portable_f32,
        transpose: matrix::by_fours,
    };
    pub(super) const F64: Engine<f64> = Engine {
        lanes: 2,
        kernels: kernels!(portable_f64: 1 2 3 4 5 6),
        copy: copy_portable_f64,
        transpose: matrix::by_fours,
    };
}

macro_rules! element {
    ($T:ty, $avx512:ident, $avx2:ident, $portable:ident) => {
        impl Element for $T {
            fn engine() -> Engine<Self> {
                #[cfg(target_arch = "x86_64")]
                match super::simd::level() {
                    Simd::Avx512 => return x86::$avx512,
                    Simd::Avx2 => return x86::$avx2,
                    Simd::Baseline => {}
                }
                portable::$portable
            }
        }
    };
}
element!(f32, AVX512_F32, AVX2_F32, F32);
element!(f64, AVX512_F64, AVX2_F64, F64);
