//! Every pixel of the result, times the filter, added to the patch of the source that it came from.

use std::ops::Range;
use std::slice;

use super::correlation::Correlation;
use super::{BAND_BYTES, Job, rows_at_once};
use crate::cpu::microkernel::{Element, MAX_ROWS, Mode, Walk};
use crate::cpu::panels::{Matrix, Panels, Shared, for_each, pack, packed_count, scratch, sweep};

impl<T: Element> Job<T> {
    /// # Safety
    /// As for [`Job::gather`].
    pub(super) unsafe fn scatter(
        &self,
        spec: &Correlation,
        result: &Shared<T>,
        filter: &Shared<T>,
    ) {
        let ([height, width, c], [rows, columns, out]) = (spec.source, spec.result);
        // SAFETY: as for this function.
        let patches = unsafe { Patches::new(self, spec, filter) };
        let at_once = rows_at_once(spec.images, height, width * c * size_of::<T>());
        let bands = height.div_ceil(at_once);
        let chunk = (BAND_BYTES / (columns * patches.width() * size_of::<T>())).clamp(1, rows);
        for_each(spec.images * bands, self.flops, |piece| {
            let (image, top) = (piece / bands, piece % bands * at_once);
            let band = top..height.min(top + at_once);
            let count = band.len() * width * c;
            let target = self
                .out
                .at()
                .wrapping_add((image * height + top) * width * c);
            let result = result.at().wrapping_add(image * spec.result_count());
            let sums = if self.accumulate { count } else { 0 };
            let [products, packed] = patches.room(chunk * columns);
            scratch(
                [products, packed, sums],
                |[products, packed, sums]: [*mut T; 3]| {
                    let to = if self.accumulate { sums } else { target };
                    // SAFETY: the scratch memory, or the rows of the source that are ours alone.
                    unsafe { slice::from_raw_parts_mut(to, count) }.fill(T::default());
                    let touching = spec.touching(&band);
                    for first in touching.clone().step_by(chunk) {
                        let rows = first..touching.end.min(first + chunk);
                        let pixels = result.wrapping_add(first * columns * out);
                        let count = rows.len() * columns;
                        // SAFETY: pixels of the result, and memory as above.
                        unsafe {
                            let patches = patches.of(pixels, count, products, packed);
                            for (i, row) in rows.enumerate() {
                                spec.paste(row, patches.from(i * columns, 0), &band, to);
                            }
                        }
                    }
                    if self.accumulate {
                        // SAFETY: as above.
                        (0..count).for_each(|i| unsafe { *target.add(i) += *sums.add(i) });
                    }
                },
            );
        });
    }
}

/// The patches of pixels: their channels times the filter.
struct Patches<'a, T: 'static> {
    job: &'a Job<T>,
    /// Elements of a patch, and channels of a pixel.
    size: [usize; 2],
    /// A patch of one channel is pasted pixels at a time. So pixels are to be neighbours, and the product is that of
    /// the filter, an element of the patch a row, with pixels as columns.
    turned: bool,
}

impl<'a, T: Element> Patches<'a, T> {
    /// With the filter in the workspace.
    ///
    /// # Safety
    /// The filter must be readable, and nobody else use the workspace.
    unsafe fn new(job: &'a Job<T>, spec: &Correlation, filter: &Shared<T>) -> Self {
        let patches = Self {
            job,
            size: [spec.patch(), spec.result[2]],
            turned: spec.source[2] == 1,
        };
        let ([patch, out], panel) = (patches.size, job.engine.columns());
        for i in 0..patches.places() {
            for channel in 0..out {
                let to = if patches.turned {
                    i * out + channel
                } else {
                    (i / panel * out + channel) * panel + i % panel
                };
                // SAFETY: a weight, and a place in the workspace.
                unsafe {
                    *job.workspace.at().add(to) = if i < patch {
                        *filter.at().add(spec.weight(i, channel))
                    } else {
                        T::default()
                    };
                }
            }
        }
        patches
    }

    /// Elements of a patch in memory: whole vectors, unless they are rows.
    fn places(&self) -> usize {
        let patch = self.size[0];
        if self.turned {
            patch
        } else {
            patch.next_multiple_of(self.job.engine.lanes)
        }
    }

    /// Elements that a pixel takes.
    fn width(&self) -> usize {
        self.places() + if self.turned { self.size[1] } else { 0 }
    }

    /// Elements for the patches of so many pixels, and for the pixels as columns.
    fn room(&self, pixels: usize) -> [usize; 2] {
        let out = self.size[1];
        let packed = || packed_count(&self.job.engine, out, pixels);
        let packed = if self.turned { packed() } else { 0 };
        [pixels * self.places(), packed]
    }

    /// A row for the patch of each of `count` pixels.
    ///
    /// # Safety
    /// There must be so many pixels, and memory as [`Patches::room`] says.
    unsafe fn of(
        &self,
        pixels: *mut T,
        count: usize,
        products: *mut T,
        packed: *mut T,
    ) -> Matrix<T> {
        let ([patch, out], engine) = (self.size, &self.job.engine);
        let (filter, next) = (self.job.workspace.at(), out * engine.columns());
        let first = if self.turned { filter } else { pixels };
        let fill = |range: Range<usize>, addresses: &mut [*const T; MAX_ROWS]| {
            for (address, row) in addresses.iter_mut().zip(range) {
                *address = first.wrapping_add(row * out);
            }
        };
        let walk = Walk::line(out, 1);
        let matrix = |row, col| Matrix {
            at: products,
            row,
            col,
        };
        if self.turned {
            let pixels = Matrix {
                at: pixels,
                row: 1,
                col: out,
            };
            // SAFETY: what the caller promises.
            unsafe {
                let panels = pack(engine, [out, count], pixels, packed, next);
                sweep(
                    engine,
                    patch,
                    walk,
                    fill,
                    &panels,
                    matrix(count, 1),
                    Mode::Set,
                );
            }
            matrix(1, count)
        } else {
            let panels = Panels {
                at: Shared(filter),
                row: engine.columns(),
                next,
                columns: self.places(),
            };
            let patches = matrix(self.places(), 1);
            // SAFETY: as above.
            unsafe { sweep(engine, count, walk, fill, &panels, patches, Mode::Set) };
            patches
        }
    }
}
