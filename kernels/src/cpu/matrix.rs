//! Matrices in memory, and their transposition, a square block in registers at a time.

/// A matrix in memory: its first element, and elements from a row, or from a column, to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix<T> {
    pub(super) at: *mut T,
    pub(super) row: usize,
    pub(super) col: usize,
}

impl<T: Copy> Matrix<T> {
    #[inline(always)]
    pub(super) fn element(&self, row: usize, col: usize) -> *mut T {
        self.at.wrapping_add(row * self.row + col * self.col)
    }

    /// The part of the matrix from this element on.
    pub(super) fn from(self, row: usize, col: usize) -> Self {
        Self {
            at: self.element(row, col),
            ..self
        }
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            row: self.col,
            col: self.row,
            ..self
        }
    }
}

/// An element type whose blocks can be transposed in registers.
pub(super) trait Turn: Copy {
    /// A block with rows and columns exchanged.
    #[inline(always)]
    fn four(rows: [[Self; 4]; 4]) -> [[Self; 4]; 4] {
        std::array::from_fn(|j| std::array::from_fn(|i| rows[i][j]))
    }
}

/// Writes the columns of a matrix of `[rows, columns]` as rows. Both matrices have contiguous rows. All of
/// the first must be readable, and all of the second writable.
pub(super) type Transpose<T> = unsafe fn([usize; 2], Matrix<T>, Matrix<T>);

/// In blocks of 4×4, on any processor.
///
/// # Safety
/// As for [`Transpose`].
pub(super) unsafe fn by_fours<T: Turn>(size: [usize; 2], from: Matrix<T>, to: Matrix<T>) {
    let [rows, columns] = size;
    let [whole_rows, whole_columns] = size.map(|side| side / 4 * 4);
    // SAFETY: what the caller promises.
    unsafe {
        // 64 columns at a time: the lines that are written then stay in the first-level cache until they are
        // full.
        for stretch in (0..whole_columns).step_by(64) {
            for i in (0..whole_rows).step_by(4) {
                for j in (stretch..whole_columns.min(stretch + 64)).step_by(4) {
                    let row = |l| from.element(i + l, j).cast::<[T; 4]>().read_unaligned();
                    let columns = T::four([row(0), row(1), row(2), row(3)]);
                    for (l, column) in columns.into_iter().enumerate() {
                        to.element(j + l, i)
                            .cast::<[T; 4]>()
                            .write_unaligned(column);
                    }
                }
            }
        }
        for i in 0..rows {
            let first = if i < whole_rows { whole_columns } else { 0 };
            (first..columns).for_each(|j| *to.element(j, i) = *from.element(i, j));
        }
    }
}

impl Turn for f64 {}

impl Turn for f32 {
    /// By eight shuffles, which the compiler does not find by itself.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn four(rows: [[Self; 4]; 4]) -> [[Self; 4]; 4] {
        use std::arch::x86_64::{__m128, _MM_TRANSPOSE4_PS};
        // SAFETY: SSE is part of every x86-64, and both types are sixteen plain numbers.
        unsafe {
            let [mut a, mut b, mut c, mut d]: [__m128; 4] = std::mem::transmute(rows);
            _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
            std::mem::transmute([a, b, c, d])
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::Matrix;
    use std::arch::x86_64::{
        __m512, _mm512_castpd_ps, _mm512_castps_pd, _mm512_loadu_ps, _mm512_mask_storeu_ps,
        _mm512_maskz_loadu_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_storeu_ps,
        _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
    };

    const SIDE: usize = 16;

    /// In blocks of 16×16: whole cache lines are read and written.
    ///
    /// # Safety
    /// As for [`super::Transpose`], where the instructions exist.
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn by_sixteens(
        [rows, columns]: [usize; 2],
        from: Matrix<f32>,
        to: Matrix<f32>,
    ) {
        let mask = |left: usize| u16::MAX >> (SIDE - left.min(SIDE));
        for i in (0..rows).step_by(SIDE) {
            let across = mask(rows - i);
            for j in (0..columns).step_by(SIDE) {
                let along = mask(columns - j);
                let mut block = [_mm512_setzero_ps(); SIDE];
                // Loops of a fixed length let the compiler keep the block in registers.
                // SAFETY: what the caller promises; elements that a mask leaves out are not touched.
                unsafe {
                    if across == u16::MAX && along == u16::MAX {
                        for (l, row) in block.iter_mut().enumerate() {
                            *row = _mm512_loadu_ps(from.element(i + l, j));
                        }
                        for (l, column) in turned(block).into_iter().enumerate() {
                            _mm512_storeu_ps(to.element(j + l, i), column);
                        }
                    } else {
                        for (l, row) in block.iter_mut().enumerate() {
                            let inside = if across >> l & 1 == 1 { along } else { 0 };
                            *row = _mm512_maskz_loadu_ps(inside, from.element(i + l, j));
                        }
                        for (l, column) in turned(block).into_iter().enumerate() {
                            let inside = if along >> l & 1 == 1 { across } else { 0 };
                            _mm512_mask_storeu_ps(to.element(j + l, i), inside, column);
                        }
                    }
                }
            }
        }
    }

    /// Element `j` of row `i` becomes element `i` of row `j`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn turned(mut rows: [__m512; SIDE]) -> [__m512; SIDE] {
        // Neighbours are interleaved: then every quarter of a register holds four rows of a column.
        let double = |x| _mm512_castps_pd(x);
        for four in rows.as_chunks_mut::<4>().0 {
            let [a, b, c, d] = *four;
            let [low, high] = [_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)].map(double);
            let [lower, higher] = [_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)].map(double);
            *four = [
                _mm512_unpacklo_pd(low, lower),
                _mm512_unpackhi_pd(low, lower),
                _mm512_unpacklo_pd(high, higher),
                _mm512_unpackhi_pd(high, higher),
            ]
            .map(|x| _mm512_castpd_ps(x));
        }
        // Then quarters are gathered: those of equal number belong to the same four columns.
        let mut columns = rows;
        for i in 0..4 {
            let [a, b, c, d] = [rows[i], rows[4 + i], rows[8 + i], rows[12 + i]];
            let (even, evens) = (
                _mm512_shuffle_f32x4::<0x88>(a, b),
                _mm512_shuffle_f32x4::<0x88>(c, d),
            );
            let (odd, odds) = (
                _mm512_shuffle_f32x4::<0xdd>(a, b),
                _mm512_shuffle_f32x4::<0xdd>(c, d),
            );
            columns[i] = _mm512_shuffle_f32x4::<0x88>(even, evens);
            columns[4 + i] = _mm512_shuffle_f32x4::<0x88>(odd, odds);
            columns[8 + i] = _mm512_shuffle_f32x4::<0xdd>(even, evens);
            columns[12 + i] = _mm512_shuffle_f32x4::<0xdd>(odd, odds);
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::microkernel::Element;
    use proptest::prelude::*;

    fn check<T: Element + PartialEq + std::fmt::Debug>(
        size: [usize; 2],
        gaps: [usize; 2],
        element: impl Fn(usize) -> T,
    ) {
        let [rows, columns] = size;
        let [from_row, to_row] = [columns + gaps[0], rows + gaps[1]];
        let mut from: Vec<T> = (0..rows * from_row).map(&element).collect();
        let untouched = element(from.len());
        let mut to = vec![untouched; columns * to_row];
        let matrix = |at: &mut Vec<T>, row| Matrix {
            at: at.as_mut_ptr(),
            row,
            col: 1,
        };
        let ends = [matrix(&mut from, from_row), matrix(&mut to, to_row)];
        // SAFETY: both have their rows.
        unsafe { T::engine().transpose(size, ends[0], ends[1]) };
        for (at, &value) in to.iter().enumerate() {
            let [j, i] = [at / to_row, at % to_row];
            let expected = if i < rows {
                from[i * from_row + j]
            } else {
                untouched
            };
            assert_eq!(value, expected, "row {j}, column {i}");
        }
    }

    proptest! {
        #[test]
        fn rows_become_columns(size in [0_usize..70, 0..70], gaps in [0_usize..5, 0..5]) {
            check(size, gaps, |i| i as f32);
            check(size, gaps, |i| i as f64);
        }
    }
}
