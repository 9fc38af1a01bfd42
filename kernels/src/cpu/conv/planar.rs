//! Correlations whose result has a single channel.
//!
//! Vectors along the channels of the result would have one lane filled of sixteen. Here they run along the pixels
//! of a row. A row of the source is transposed into planes, one for each channel, with zeros at both ends. Each
//! column of the window gets a copy of the planes, moved by as many pixels. So one product gives what the row is to
//! all rows of the result that see it: weights \[window rows, window columns · channels\] times copies
//! \[window columns · channels, pixels\].

use std::ops::Range;

use super::correlation::Correlation;
use super::{BAND_BYTES, Job, rows_at_once};
use crate::Float;
use crate::cpu::matrix::Matrix;
use crate::cpu::microkernel::{Element, MAX_COLUMNS, MAX_ROWS, Mode, Walk};
use crate::cpu::panels::{Panels, Shared, for_each, sweep};

/// Elements of a plane, with the zeros at its ends.
fn plane(c: &Correlation) -> usize {
    c.window[1] - 1 + moved(c)
}

/// Elements of a plane that was moved: the pixels that a column of the window sees.
fn moved(c: &Correlation) -> usize {
    c.result[1].next_multiple_of(MAX_COLUMNS)
}

/// Elements of all planes of a row, and of their copies.
fn room(c: &Correlation) -> [usize; 2] {
    let channels = c.source[2];
    [channels * plane(c), c.window[1] * channels * moved(c)]
}

/// Lanes that such a form takes, if it does for the correlation: those of products, and to transpose a row.
pub(super) fn places(c: &Correlation, float: Float) -> Option<usize> {
    let ([_, width, channels], [height, _, one]) = (c.source, c.result);
    let fits = room(c).iter().sum::<usize>() * float.size() <= BAND_BYTES;
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
        self.line_up_filter(spec, filter);
        let (sizes, next) = (room(spec), plane(spec));
        let at_once = rows_at_once(spec.images, height, width * size_of::<T>());
        let bands = height.div_ceil(at_once);
        for_each(spec.images * bands, self.flops, |piece| {
            let (image, top) = (piece / bands, piece % bands * at_once);
            let band = top..height.min(top + at_once);
            let target = self.out.at().wrapping_add((image * height + top) * width);
            let image = source.at().wrapping_add(image * spec.source_count());
            let sum = |memory: *mut T, to: *mut T| {
                // SAFETY: the scratch memory; zero bits are the number zero.
                unsafe { memory.write_bytes(0, sizes[0]) };
                let planes = Matrix {
                    at: memory,
                    row: next,
                    col: 1,
                };
                let copies = memory.wrapping_add(sizes[0]);
                for row in spec.seen(&band) {
                    // SAFETY: a row of the source, the scratch memory, and rows of the result that are ours.
                    unsafe {
                        self.transpose_row(spec, image.wrapping_add(row * w * c), planes);
                        self.copy_planes(spec, planes, copies);
                        self.add_row(spec, row, copies, &band, to);
                    }
                }
            };
            // SAFETY: those rows of the result are ours alone.
            unsafe { self.sum_up(target, band.len() * width, sizes[0] + sizes[1], sum) };
        });
    }

    /// Writes the weights into the workspace in the order of a patch: tap by tap, channel by channel.
    fn line_up_filter(&self, spec: &Correlation, filter: &Shared<T>) {
        for i in 0..spec.patch() {
            // SAFETY: a weight, and its place in the workspace, which has room for a patch.
            unsafe { *self.workspace.at().add(i) = *filter.at().add(spec.weight(i, 0)) };
        }
    }

    /// Writes a row of the source, as far as windows see it, into planes whose ends are zero.
    ///
    /// # Safety
    /// The row must be readable, and the planes have room.
    unsafe fn transpose_row(&self, spec: &Correlation, row: *mut T, planes: Matrix<T>) {
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

    /// Copies the planes for each column of the window, from the pixel on that the column sees first.
    ///
    /// # Safety
    /// The planes must be readable, and the copies have room.
    unsafe fn copy_planes(&self, spec: &Correlation, planes: Matrix<T>, copies: *mut T) {
        let (channels, length) = (spec.source[2], moved(spec));
        for column in 0..spec.window[1] {
            let copy = copies.wrapping_add(column * channels * length);
            for first in (0..length).step_by(self.engine.columns()) {
                let ends = [planes.element(0, column + first), copy.wrapping_add(first)];
                // SAFETY: what the caller promises.
                unsafe { self.engine.copy(channels, ends, [planes.row, length]) };
            }
        }
    }

    /// Adds what a row of the source, in copied planes, is to all rows of a band of the result that see it.
    ///
    /// # Safety
    /// The copies and the workspace must be readable, and `to` be that band.
    unsafe fn add_row(
        &self,
        spec: &Correlation,
        row: usize,
        copies: *mut T,
        band: &Range<usize>,
        to: *mut T,
    ) {
        let (width, lowest) = (spec.result[1], row as isize + spec.pad[0]);
        let seeing = spec.seeing(row);
        let rows = seeing.start.max(band.start)..seeing.end.min(band.end);
        let target = Matrix {
            at: to.wrapping_add((rows.start - band.start) * width),
            row: width,
            col: 1,
        };
        let depth = spec.window[1] * spec.source[2];
        let fill = |range: Range<usize>, addresses: &mut [*const T; MAX_ROWS]| {
            for (address, i) in addresses.iter_mut().zip(range) {
                let down = (lowest - (rows.start + i) as isize) as usize;
                *address = self.workspace.at().wrapping_add(down * depth);
            }
        };
        let panels = Panels {
            at: Shared(copies),
            row: moved(spec),
            next: self.engine.columns(),
            columns: width,
        };
        let (walk, mode) = (Walk::line(depth, 1), Mode::Add);
        // SAFETY: what the caller promises.
        unsafe { sweep(&self.engine, rows.len(), walk, fill, &panels, target, mode) };
    }
}
