//! Winograd's transforms of tiles, many channels at a time.
//!
//! A product of polynomials is found from its values at a few points. Read backwards, that is how two
//! neighbouring results of a window of three are found with four multiplications instead of six:
//! Y = Aᵀ\[(G g) ∘ (Bᵀ d)\] for the points 0, 1, −1 and infinity; and in two dimensions, along one axis and
//! then the other, Y = Aᵀ\[(G g Gᵀ) ∘ (Bᵀ d B)\] A with 16 instead of 36 (Winograd 1980, "Arithmetic
//! complexity of computations"; Lavin and Gray 2015, arXiv 1509.09308, section 4.1). These matrices hold
//! no numbers but 0, ±1 and ½, so they round little: errors are no greater than those of the sum of all
//! products.

use std::ops::{Add, Mul, Neg, Sub};

use crate::cpu::math::Real;
use crate::cpu::simd::{multiversion, register_bits, strips};

/// Points along an axis: elements of a transformed tile.
pub(super) const POINTS: usize = 4;

/// Results along an axis of a tile.
pub(super) const RESULTS: usize = 2;

/// Taps of the window along an axis.
pub(super) const TAPS: usize = 3;

/// A few neighbouring channels: a vector register.
#[derive(Clone, Copy)]
pub(super) struct Lanes<T, const W: usize>([T; W]);

macro_rules! lane_by_lane {
    ($Trait:ident $method:ident) => {
        impl<T: Real, const W: usize> $Trait for Lanes<T, W> {
            type Output = Self;
            #[inline(always)]
            fn $method(mut self, other: Self) -> Self {
                for lane in 0..W {
                    self.0[lane] = self.0[lane].$method(other.0[lane]);
                }
                self
            }
        }
    };
}
lane_by_lane!(Add add);
lane_by_lane!(Sub sub);

impl<T: Real, const W: usize> Neg for Lanes<T, W> {
    type Output = Self;
    #[inline(always)]
    fn neg(mut self) -> Self {
        for lane in 0..W {
            self.0[lane] = -self.0[lane];
        }
        self
    }
}

impl<T: Real, const W: usize> Mul<T> for Lanes<T, W> {
    type Output = Self;
    #[inline(always)]
    fn mul(mut self, factor: T) -> Self {
        for lane in 0..W {
            self.0[lane] = self.0[lane] * factor;
        }
        self
    }
}

/// A transform along one axis: the product with a matrix of `TO` rows and `FROM` columns.
pub(super) trait Transform<const FROM: usize, const TO: usize> {
    fn apply<T: Real, const W: usize>(x: [Lanes<T, W>; FROM]) -> [Lanes<T, W>; TO];
}

/// Bᵀ: what is under the windows of a tile.
pub(super) enum Source {}

/// G: a filter.
pub(super) enum Filter {}

/// Aᵀ: from products to results.
pub(super) enum Results {}

/// A, the transpose of [`Results`].
pub(super) enum ResultsBack {}

/// Gᵀ, the transpose of [`Filter`].
pub(super) enum FilterBack {}

impl Transform<POINTS, POINTS> for Source {
    #[inline(always)]
    fn apply<T: Real, const W: usize>([a, b, c, d]: [Lanes<T, W>; 4]) -> [Lanes<T, W>; 4] {
        [a - c, b + c, c - b, b - d]
    }
}

impl Transform<TAPS, POINTS> for Filter {
    #[inline(always)]
    fn apply<T: Real, const W: usize>([a, b, c]: [Lanes<T, W>; 3]) -> [Lanes<T, W>; 4] {
        let (even, odd) = ((a + c) * T::HALF, b * T::HALF);
        [a, even + odd, even - odd, c]
    }
}

impl Transform<POINTS, RESULTS> for Results {
    #[inline(always)]
    fn apply<T: Real, const W: usize>([a, b, c, d]: [Lanes<T, W>; 4]) -> [Lanes<T, W>; 2] {
        [a + b + c, b - c - d]
    }
}

impl Transform<RESULTS, POINTS> for ResultsBack {
    #[inline(always)]
    fn apply<T: Real, const W: usize>([a, b]: [Lanes<T, W>; 2]) -> [Lanes<T, W>; 4] {
        [a, a + b, a - b, -b]
    }
}

impl Transform<POINTS, TAPS> for FilterBack {
    #[inline(always)]
    fn apply<T: Real, const W: usize>([a, b, c, d]: [Lanes<T, W>; 4]) -> [Lanes<T, W>; 3] {
        let (even, odd) = ((b + c) * T::HALF, (b - c) * T::HALF);
        [a + even, odd, even + d]
    }
}

/// A tile before and after a transform: some channels of its pixels, each at an address of its own, and of
/// its points.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a, T, const N: usize> {
    pub(super) pixels: &'a [[*mut T; N]; N],
    /// The first point, and elements from one to the next.
    pub(super) points: (*mut T, usize),
    pub(super) channels: usize,
}

impl<T: Real, const N: usize> Tile<'_, T, N> {
    /// From pixels to points.
    ///
    /// # Safety
    /// There must be so many channels at all addresses, here and below.
    pub(super) unsafe fn open<F: Transform<N, POINTS>>(&self) {
        open::<T, F, N>(self);
    }

    /// From points to pixels. With `add`, adds to what is there instead of replacing it.
    ///
    /// # Safety
    /// As for [`Tile::open`].
    pub(super) unsafe fn close<F: Transform<POINTS, N>>(&self, add: bool) {
        close::<T, F, N>(self, add);
    }

    #[inline(always)]
    unsafe fn open_strip<F: Transform<N, POINTS>, const W: usize>(&self, first: usize) {
        let pixel = |i: usize, j: usize| self.pixels[i][j].wrapping_add(first);
        // SAFETY: what the caller promises.
        unsafe { along_both::<F, T, W, N, POINTS>(pixel, |i, j| self.point(i, j, first), false) }
    }

    #[inline(always)]
    unsafe fn close_strip<F: Transform<POINTS, N>, const W: usize>(&self, first: usize, add: bool) {
        let pixel = |i: usize, j: usize| self.pixels[i][j].wrapping_add(first);
        // SAFETY: what the caller promises.
        unsafe { along_both::<F, T, W, POINTS, N>(|i, j| self.point(i, j, first), pixel, add) }
    }

    #[inline(always)]
    fn point(&self, i: usize, j: usize, channel: usize) -> *mut T {
        let (first, next) = self.points;
        first.wrapping_add((i * POINTS + j) * next + channel)
    }
}

/// Transforms `W` channels of a square along both axes.
///
/// # Safety
/// All addresses must be valid for `W` elements.
#[inline(always)]
unsafe fn along_both<
    F: Transform<FROM, TO>,
    T: Real,
    const W: usize,
    const FROM: usize,
    const TO: usize,
>(
    from: impl Fn(usize, usize) -> *mut T,
    to: impl Fn(usize, usize) -> *mut T,
    add: bool,
) {
    let zero = Lanes([T::ZERO; W]);
    let mut rows = [[zero; TO]; FROM];
    for (i, row) in rows.iter_mut().enumerate() {
        let mut pixels = [zero; FROM];
        for (j, pixel) in pixels.iter_mut().enumerate() {
            // SAFETY: what the caller promises.
            *pixel = unsafe { from(i, j).cast::<Lanes<T, W>>().read_unaligned() };
        }
        *row = F::apply(pixels);
    }
    for j in 0..TO {
        let mut column = [zero; FROM];
        for (pixel, row) in column.iter_mut().zip(&rows) {
            *pixel = row[j];
        }
        for (i, mut value) in F::apply(column).into_iter().enumerate() {
            let to = to(i, j).cast::<Lanes<T, W>>();
            // SAFETY: as above.
            unsafe {
                if add {
                    value = to.read_unaligned() + value;
                }
                to.write_unaligned(value);
            }
        }
    }
}

multiversion! {
    /// Only [`Tile::open`] calls it, whose caller vouches for the memory.
    fn open<T: Real, F: Transform<N, POINTS>; N>(tile: &Tile<'_, T, N>) {
        // Strips as wide as a register: a strip's sixteen points then stay in registers. Of wider ones, most
        // would lie on the stack.
        strips!(T, register_bits(), tile.channels, first, W => {
            // SAFETY: these are channels of the tile, for all of which the caller of `Tile::open` vouches.
            unsafe { tile.open_strip::<F, W>(first) }
        });
    }
}

multiversion! {
    /// Only [`Tile::close`] calls it, whose caller vouches for the memory.
    fn close<T: Real, F: Transform<POINTS, N>; N>(tile: &Tile<'_, T, N>, add: bool) {
        strips!(T, register_bits(), tile.channels, first, W => {
            // SAFETY: as above, with `Tile::close`.
            unsafe { tile.close_strip::<F, W>(first, add) }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::array::from_fn;

    fn apply<F: Transform<FROM, TO>, const FROM: usize, const TO: usize>(
        x: [f64; FROM],
    ) -> [f64; TO] {
        F::apply(x.map(|x| Lanes([x]))).map(|Lanes([y])| y)
    }

    /// The matrix of a transform: what it makes of unit vectors.
    fn columns<F: Transform<FROM, TO>, const FROM: usize, const TO: usize>() -> [[f64; TO]; FROM] {
        from_fn(|i| apply::<F, FROM, TO>(from_fn(|j| f64::from(u8::from(i == j)))))
    }

    #[test]
    fn two_results_of_three_taps() {
        let (d, g) = ([3.0, -1.0, 4.0, 1.5], [5.0, -9.0, 2.0]);
        let products: [f64; POINTS] = {
            let (d, g) = (apply::<Source, 4, 4>(d), apply::<Filter, 3, 4>(g));
            from_fn(|i| d[i] * g[i])
        };
        let want: [f64; 2] = from_fn(|i| (0..3).map(|tap| d[i + tap] * g[tap]).sum());
        assert_eq!(apply::<Results, 4, 2>(products), want);
    }

    #[test]
    fn backwards_is_the_transpose() {
        let (results, back) = (columns::<Results, 4, 2>(), columns::<ResultsBack, 2, 4>());
        assert_eq!(results, from_fn(|i| from_fn(|j| back[j][i])));
        let (filter, back) = (columns::<Filter, 3, 4>(), columns::<FilterBack, 4, 3>());
        assert_eq!(filter, from_fn(|i| from_fn(|j| back[j][i])));
    }
}
