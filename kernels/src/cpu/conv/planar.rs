//! Correlations whose result has a single channel.
//!
//! Vectors over the channels of the result would have one place filled of sixteen. Here they run along the pixels of a row. A
//! row of the source is turned over into planes, one for each channel, with zeros at both ends. Every row of the
//! window takes it to another row of the result: weights \[window rows, channels\] times planes \[channels, pixels\], for each
//! column of the window a product, which reads the planes a pixel further on.

use std::ops::Range;

use super::correlation::Correlation;
use super::{BAND_BYTES, Job, rows_at_once};
use crate::Float;
use crate::cpu::matrix::Matrix;
use crate::cpu::microkernel::{Element, MAX_COLUMNS, MAX_ROWS, Mode, Walk};
use crate::cpu::panels::{Panels, Shared, for_each, sweep};

/// Elements from a plane to the next.
fn plane(c: &Correlation) -> usize {
    c.window[1] - 1 + c.result[1].next_multiple_of(MAX_COLUMNS)
}

/// Places of vector registers that such a form takes, if it does for the correlation: products, and to turn a row over.
pub(super) fn places(c: &Correlation, float: Float) -> Option<usize> {
    let ([_, width, channels], [height, _, one]) = (c.source, c.result);
    let fits = plane(c) * channels * float.size() <= BAND_BYTES;
    let products = c.result[1].next_multiple_of(16) * c.patch();
    (one == 1 && c.stride == [1, 1] && fits).then(|| height * (products + 4 * width * channels))
}

impl Correlation {
    /// Rows of the source, of which these rows of the result see a part.
    fn seen(&self, rows: &Range<usize>) -> Range<usize> {
        let row = |y: usize| y.saturating_add_signed(-self.pad[0]).min(self.source[0]);
        row(rows.start)..row(rows.end + self.window[0] - 1)
    }

    /// Rows of the result that see that row of the source.
    fn seeing(&self, row: usize) -> Range<usize> {
        let last = row as isize + self.pad[0];
        let first = last + 1 - self.window[0] as isize;
        let row = |y: isize| (y.max(0) as usize).min(self.result[0]);
        row(first)..row(last + 1)
    }
}

impl<T: Element> Job<T> {
    /// # Safety
    /// As for the other forms.
    pub(super) unsafe fn planar(&self, spec: &Correlation, source: &Shared<T>, filter: &Shared<T>) {
        let ([_, w, c], [height, width, _]) = (spec.source, spec.result);
        let next = plane(spec);
        let at_once = rows_at_once(spec.images, height, width * size_of::<T>());
        let bands = height.div_ceil(at_once);
        for_each(spec.images * bands, self.flops, |piece| {
            let (image, top) = (piece / bands, piece % bands * at_once);
            let band = top..height.min(top + at_once);
            let target = self.out.at().wrapping_add((image * height + top) * width);
            let image = source.at().wrapping_add(image * spec.source_count());
            let sum = |planes: *mut T, to: *mut T| {
                // SAFETY: the scratch memory; zero bits are the number zero.
                unsafe { planes.write_bytes(0, c * next) };
                let planes = Matrix {
                    at: planes,
                    row: next,
                    col: 1,
                };
                for row in spec.seen(&band) {
                    // SAFETY: a row of the source, the planes, the filter, and rows of the result that are ours alone.
                    unsafe {
                        self.turn_over(spec, image.wrapping_add(row * w * c), planes);
                        self.add_row(spec, row, planes, filter, &band, to);
                    }
                }
            };
            // SAFETY: those rows of the result are ours alone.
            unsafe { self.sum_up(target, band.len() * width, c * next, sum) };
        });
    }

    /// Writes a row of the source, as far as windows see it, into planes whose ends are zero.
    ///
    /// # Safety
    /// The row must be readable, and the planes have room.
    unsafe fn turn_over(&self, spec: &Correlation, row: *mut T, planes: Matrix<T>) {
        let [_, w, c] = spec.source;
        let left = spec.pad[1].max(0) as usize;
        let skipped = spec.pad[1].min(0).unsigned_abs().min(w);
        let seen = spec.result[1] + spec.window[1] - 1;
        let inside = (w - skipped).min(seen.saturating_sub(left));
        let pixels = Matrix {
            at: row.wrapping_add(skipped * c),
            row: c,
            col: 1,
        };
        // SAFETY: what the caller promises.
        unsafe { (self.engine).transpose([inside, c], pixels, planes.from(0, left)) };
    }

    /// Adds what a row of the source, in planes, is to all rows of a band of the result that see it.
    ///
    /// # Safety
    /// The planes and the filter must be readable, and `to` be that band.
    unsafe fn add_row(
        &self,
        spec: &Correlation,
        row: usize,
        planes: Matrix<T>,
        filter: &Shared<T>,
        band: &Range<usize>,
        to: *mut T,
    ) {
        let ([_, width, _], [_, columns]) = (spec.result, spec.window);
        let (channels, lowest) = (spec.source[2], row as isize + spec.pad[0]);
        let seeing = spec.seeing(row);
        let rows = seeing.start.max(band.start)..seeing.end.min(band.end);
        let target = Matrix {
            at: to.wrapping_add((rows.start - band.start) * width),
            row: width,
            col: 1,
        };
        let walk = Walk::line(channels, spec.filter.source);
        for column in 0..columns {
            let fill = |range: Range<usize>, addresses: &mut [*const T; MAX_ROWS]| {
                for (address, i) in addresses.iter_mut().zip(range) {
                    let down = (lowest - (rows.start + i) as isize) as usize;
                    let weight = spec.weight((down * columns + column) * channels, 0);
                    *address = filter.at().wrapping_add(weight);
                }
            };
            let panels = Panels {
                at: Shared(planes.element(0, column)),
                row: planes.row,
                next: self.engine.columns(),
                columns: width,
            };
            // SAFETY: what the caller promises.
            unsafe {
                sweep(
                    &self.engine,
                    rows.len(),
                    walk,
                    fill,
                    &panels,
                    target,
                    Mode::Add,
                );
            }
        }
    }
}
