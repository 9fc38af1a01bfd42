//! What forward and transposed convolutions have in common.

use std::ops::Range;
use std::slice;

use crate::Conv;
use crate::cpu::matrix::Matrix;
use crate::cpu::microkernel::Element;
use crate::cpu::panels::aligned;

/// A convolution read as a correlation: every pixel of the result looks at a window of the source.
///
/// The forward convolution is one from x to y. If the steps are 1, its transpose with respect to the
/// input is another, from y to x, whose window is turned by half a turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Correlation {
    pub(super) images: usize,
    /// Height, width, channels.
    pub(super) source: [usize; 3],
    pub(super) result: [usize; 3],
    pub(super) window: [usize; 2],
    pub(super) stride: [usize; 2],
    /// Rows above and columns left of the source that the first window covers; negative if it starts inside.
    pub(super) pad: [isize; 2],
    pub(super) filter: Filter,
}

/// Where the weights of a correlation are, in elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filter {
    /// That of the first tap (place in the window) and the first channels.
    first: usize,
    /// From a tap to the next below, and to the next on the right.
    taps: [isize; 2],
    /// From a channel of the source to the next.
    pub(super) source: usize,
    /// From a channel of the result to the next.
    pub(super) result: usize,
}

impl Filter {
    /// From x to y.
    fn forward(spec: &Conv) -> Self {
        let [kh, kw] = spec.window;
        Self {
            first: 0,
            taps: [(kw * spec.c) as isize, spec.c as isize],
            source: 1,
            result: kh * kw * spec.c,
        }
    }

    /// From y to x. Along each axis it starts at tap `last`, and goes back by `step`.
    pub(super) fn backward(spec: &Conv, last: [usize; 2], step: [usize; 2]) -> Self {
        let forward = Self::forward(spec);
        let taps = forward.taps.map(isize::unsigned_abs);
        Self {
            first: last[0] * taps[0] + last[1] * taps[1],
            taps: [0, 1].map(|axis| -((step[axis] * taps[axis]) as isize)),
            source: forward.result,
            result: forward.source,
        }
    }
}

impl Correlation {
    /// From x to y.
    pub(super) fn forward(spec: &Conv) -> Self {
        Self {
            images: spec.n,
            source: [spec.h, spec.w, spec.c],
            result: [spec.out_h(), spec.out_w(), spec.out],
            window: spec.window,
            stride: spec.stride,
            pad: [spec.pad[0] as isize, spec.pad[2] as isize],
            filter: Filter::forward(spec),
        }
    }

    /// From y to x, for steps of 1.
    pub(super) fn backward(spec: &Conv) -> Self {
        let forward = Self::forward(spec);
        let last = spec.window.map(|extent| extent - 1);
        let pad = [0, 1].map(|axis| last[axis] as isize - forward.pad[axis]);
        Self {
            source: forward.result,
            result: forward.source,
            stride: [1, 1],
            pad,
            filter: Filter::backward(spec, last, [1, 1]),
            ..forward
        }
    }

    /// Elements under a window.
    pub(super) fn patch(&self) -> usize {
        self.window[0] * self.window[1] * self.source[2]
    }

    /// Elements of an image of the source.
    pub(super) fn source_count(&self) -> usize {
        self.source.iter().product()
    }

    /// Elements of an image of the result.
    pub(super) fn result_count(&self) -> usize {
        self.result.iter().product()
    }

    /// The weight of element `i` of a patch for channel `channel` of the result.
    pub(super) fn weight(&self, i: usize, channel: usize) -> usize {
        let (tap, source) = (i / self.source[2], i % self.source[2]);
        let (row, column) = (tap / self.window[1], tap % self.window[1]);
        let [down, right] = self.filter.taps;
        let tap = row as isize * down + column as isize * right;
        self.filter.first.wrapping_add_signed(tap)
            + source * self.filter.source
            + channel * self.filter.result
    }

    /// Elements of a row of a band: those that some window reads.
    pub(super) fn covered(&self) -> usize {
        ((self.result[1] - 1) * self.stride[1] + self.window[1]) * self.source[2]
    }

    /// Elements from a row of a band to the next. Rows a multiple of 512 bytes apart would compete for a few
    /// sets of the first-level cache; a cache line between them prevents that.
    pub(super) fn band_row<T>(&self) -> usize {
        let covered = self.covered();
        let competes = (covered * size_of::<T>()).is_multiple_of(512);
        covered + usize::from(competes) * aligned::LINE / size_of::<T>()
    }

    /// Elements of a band: the rows of the source under so many rows of the result.
    pub(super) fn band<T>(&self, rows: usize) -> usize {
        self.band_rows(rows) * self.band_row::<T>()
    }

    /// Rows of such a band.
    pub(super) fn band_rows(&self, rows: usize) -> usize {
        (rows - 1) * self.stride[0] + self.window[0]
    }

    /// Copies what lies under these rows of the result, with zeros where that is outside of the image.
    ///
    /// # Safety
    /// The image must be readable, and the band have room.
    pub(super) unsafe fn cut<T: Element>(&self, image: *const T, rows: Range<usize>, band: *mut T) {
        let [h, w, c] = self.source;
        let (row, next) = (self.covered(), self.band_row::<T>());
        let left = (self.pad[1].max(0) as usize * c).min(row);
        let skipped = (self.pad[1].min(0).unsigned_abs() * c).min(w * c);
        let inside = (w * c - skipped).min(row - left);
        let first = (rows.start * self.stride[0]) as isize - self.pad[0];
        for i in 0..self.band_rows(rows.len()) {
            let y = first + i as isize;
            // SAFETY: what the caller promises.
            unsafe {
                let to = slice::from_raw_parts_mut(band.add(i * next), row);
                if (0..h as isize).contains(&y) {
                    let from = image.add(y as usize * w * c + skipped);
                    to[..left].fill(T::default());
                    to[left..][..inside].copy_from_slice(slice::from_raw_parts(from, inside));
                    to[left + inside..].fill(T::default());
                } else {
                    to.fill(T::default());
                }
            }
        }
    }

    /// The rows of the result whose windows touch these rows of the source.
    pub(super) fn touching(&self, band: &Range<usize>) -> Range<usize> {
        let row = |y: isize| {
            (y.max(0) as usize)
                .div_ceil(self.stride[0])
                .min(self.result[0])
        };
        let (start, end) = (
            band.start as isize + self.pad[0],
            band.end as isize + self.pad[0],
        );
        row(start + 1 - self.window[0] as isize)..row(end)
    }

    /// Adds the patches of row `row` of the result to the places that they have in the source (col2im).
    /// `patches` has a patch in each of its rows. `to` are the rows `band` of the source.
    ///
    /// # Safety
    /// The patches must be readable, a pixel's channels side by side. `to` must be those rows, which nobody
    /// else may use.
    pub(super) unsafe fn paste<T: Element>(
        &self,
        row: usize,
        patches: Matrix<T>,
        band: &Range<usize>,
        to: *mut T,
    ) {
        let ([_, w, c], [kh, kw]) = (self.source, self.window);
        for (tap_y, tap_x) in (0..kh).flat_map(|tap_y| (0..kw).map(move |tap_x| (tap_y, tap_x))) {
            let y = (row * self.stride[0] + tap_y).wrapping_add_signed(-self.pad[0]);
            if !band.contains(&y) {
                continue;
            }
            // Pixel j goes to x = j · stride + shift; the first and the last for which that is inside:
            let shift = tap_x as isize - self.pad[1];
            let pixel = |x: isize| {
                (x.max(0) as usize)
                    .div_ceil(self.stride[1])
                    .min(self.result[1])
            };
            let [begin, end] = [pixel(-shift), pixel(w as isize - shift)];
            if begin >= end {
                continue;
            }
            let x = (begin * self.stride[1]).wrapping_add_signed(shift);
            let to = to.wrapping_add(((y - band.start) * w + x) * c);
            let from = patches.from(begin, (tap_y * kw + tap_x) * c);
            let (count, step) = (end - begin, self.stride[1]);
            // SAFETY: the pixels `begin..end` lie within the patches and, at these places, within the band.
            unsafe {
                if c == 1 && step == 1 && from.row == 1 {
                    add(slice::from_raw_parts(from.at, count), to);
                } else if c == 1 {
                    (0..count).for_each(|j| *to.add(j * step) += *from.element(j, 0));
                } else {
                    let pixel = |j| slice::from_raw_parts(from.element(j, 0), c);
                    (0..count).for_each(|j| add(pixel(j), to.add(j * step * c)));
                }
            }
        }
    }
}

/// # Safety
/// `to` must have as many elements as `values`, which nobody else may use.
unsafe fn add<T: Element>(values: &[T], to: *mut T) {
    // SAFETY: what the caller promises.
    let to = unsafe { slice::from_raw_parts_mut(to, values.len()) };
    to.iter_mut().zip(values).for_each(|(to, &x)| *to += x);
}
