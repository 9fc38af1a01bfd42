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
use crate::cpu::microkernel::{Element, MAX_COLUMNS, MAX_ROWS, Mode, Walk};
use crate::cpu::panels::{Matrix, Panels, Shared, for_each, sweep};

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
        let (plane, [_, columns_of_window]) = (plane(spec), spec.window);
        let left = spec.pad[1].max(0) as usize;
        let skipped = spec.pad[1].min(0).unsigned_abs().min(w);
        let inside = (w - skipped).min((width + columns_of_window - 1).saturating_sub(left));
        let at_once = rows_at_once(spec.images, height, width * size_of::<T>());
        let bands = height.div_ceil(at_once);
        for_each(spec.images * bands, self.flops, |piece| {
            let (image, top) = (piece / bands, piece % bands * at_once);
            let band = top..height.min(top + at_once);
            let target = self.out.at().wrapping_add((image * height + top) * width);
            let image = source.at().wrapping_add(image * spec.source_count());
            let sum = |planes: *mut T, to: *mut T| {
                // SAFETY: the scratch memory; zero bits are the number zero.
                unsafe { planes.write_bytes(0, c * plane) };
                for row in spec.seen(&band) {
                    let pixels = Matrix {
                        at: image.wrapping_add((row * w + skipped) * c),
                        row: c,
                        col: 1,
                    };
                    let turned = Matrix {
                        at: planes.wrapping_add(left),
                        row: plane,
                        col: 1,
                    };
                    // SAFETY: a row of the source, and the planes between their ends.
                    unsafe { self.engine.transpose([inside, c], pixels, turned) };
                    let (lowest, seeing) = (row as isize + spec.pad[0], spec.seeing(row));
                    let seeing = seeing.start.max(band.start)..seeing.end.min(band.end);
                    let target = Matrix {
                        at: to.wrapping_add((seeing.start - band.start) * width),
                        row: width,
                        col: 1,
                    };
                    for column in 0..columns_of_window {
                        let fill = |range: Range<usize>, addresses: &mut [*const T; MAX_ROWS]| {
                            for (address, i) in addresses.iter_mut().zip(range) {
                                let down = lowest - (seeing.start + i) as isize;
                                let tap = (down as usize * columns_of_window + column) * c;
                                *address = filter.at().wrapping_add(spec.weight(tap, 0));
                            }
                        };
                        let walk = Walk::line(c, spec.filter.source);
                        let panels = Panels {
                            at: Shared(planes.wrapping_add(column)),
                            row: plane,
                            next: self.engine.columns(),
                            columns: width,
                        };
                        // SAFETY: weights, planes, and rows of the result, which are ours alone.
                        unsafe {
                            let rows = seeing.len();
                            sweep(&self.engine, rows, walk, fill, &panels, target, Mode::Add);
                        }
                    }
                }
            };
            // SAFETY: those rows of the result are ours alone.
            unsafe { self.sum_up(target, band.len() * width, c * plane, sum) };
        });
    }
}
