//! Weight gradients: sums over all pixels, by groups of images that threads share.

use std::ops::Range;
use std::slice;

use super::correlation::Correlation;
use super::{BAND_BYTES, Job, PIECES, rows_at_once};
use crate::Float;
use crate::cpu::matrix::Matrix;
use crate::cpu::microkernel::{Element, MAX_ROWS, Mode, Walk};
use crate::cpu::panels::{Panels, Shared, compete, for_each, pack, packed_count, scratch, sweep};

/// Bytes of all partial sums of a weight gradient, roughly: more allow more groups, but are added up at the
/// end.
pub(super) const PARTIAL_BYTES: usize = 1 << 22;

/// Pixels that a weight gradient sums over at once, roughly.
const PIXELS: usize = 1024;

/// Elements of a patch from which it pays to pack pixels that compete for the cache.
const WORTH_PACKING: usize = 64;

/// Groups of images whose weight gradients are summed separately, and elements of the patches that are
/// done at once.
pub(super) fn groups(correlation: &Correlation, float: Float) -> [usize; 2] {
    let patch = correlation.patch();
    let bytes = patch * correlation.result[2] * float.size();
    let groups = correlation
        .images
        .min((PARTIAL_BYTES / bytes).clamp(1, PIECES));
    let blocks = PIECES.div_ceil(groups).min(patch.div_ceil(64));
    [groups, patch.div_ceil(blocks)]
}

impl<T: Element> Job<T> {
    /// # Safety
    /// All arrays must have the sizes of the correlation.
    pub(super) unsafe fn weight(
        &self,
        spec: &Correlation,
        float: Float,
        source: &Shared<T>,
        result: &Shared<T>,
    ) {
        let ([_, _, c], [rows, width, out]) = (spec.source, spec.result);
        let [groups, block] = groups(spec, float);
        let blocks = spec.patch().div_ceil(block);
        let row = spec.band_row::<T>();
        let covered = spec.covered() * size_of::<T>();
        let at_once = rows_at_once(PIECES, rows, spec.stride[0] * covered);
        let band_count = spec.band::<T>(at_once);
        // Several whole images, if they are small: to load and store sums of few pixels would cost more than
        // to compute them.
        let together = BAND_BYTES / (spec.band_rows(at_once) * covered);
        let together = together.min(PIXELS / (rows * width));
        let together = if at_once < rows { 1 } else { together.max(1) };
        let pixels = together * at_once * width;
        let competes = block >= WORTH_PACKING && compete(pixels, out * size_of::<T>());
        let whole = out.is_multiple_of(self.engine.lanes) && !competes;
        let packed = packed_count(&self.engine, pixels, out);
        let counts = [together * band_count, if whole { 0 } else { packed }];
        for_each(groups * blocks, self.flops, |piece| {
            let (group, start) = (piece / blocks, piece % blocks * block);
            let elements = start..spec.patch().min(start + block);
            let sums = self
                .workspace
                .at()
                .wrapping_add((group * spec.patch() + start) * out);
            let sums = Matrix {
                at: sums,
                row: out,
                col: 1,
            };
            let end = (group + 1) * spec.images / groups;
            let bands = (group * spec.images / groups..end)
                .step_by(together)
                .flat_map(|image| {
                    let images = image..end.min(image + together);
                    (0..rows)
                        .step_by(at_once)
                        .map(move |first| (images.clone(), first))
                });
            let mut mode = Mode::Set;
            scratch(counts, |[band, packed]: [*mut T; 2]| {
                for (images, first) in bands {
                    let count = at_once.min(rows - first);
                    // The last vector of a row may reach into the next rows, but not out of the array.
                    let end = ((images.end - 1) * rows + first + count) * width * out;
                    let direct = whole
                        || !competes
                            && end + self.engine.lanes <= spec.images * spec.result_count();
                    let b = (images.start * rows + first) * width * out;
                    let b = Matrix {
                        at: result.at().wrapping_add(b),
                        row: out,
                        col: 1,
                    };
                    let walk = Walk::new(
                        [images.len(), count, width],
                        [band_count, spec.stride[0] * row, spec.stride[1] * c],
                    );
                    let fill = |range: Range<usize>, addresses: &mut [*const T; MAX_ROWS]| {
                        let line = spec.window[1] * c;
                        for (address, i) in addresses.iter_mut().zip(range) {
                            let (y, x) = ((start + i) / line, (start + i) % line);
                            *address = band.wrapping_add(y * row + x);
                        }
                    };
                    // SAFETY: images of both arrays, this thread's scratch memory, and this piece's part of
                    // the workspace.
                    unsafe {
                        for (i, image) in images.enumerate() {
                            let image = source.at().add(image * spec.source_count());
                            spec.cut(image, first..first + count, band.add(i * band_count));
                        }
                        let panels = if direct {
                            let (at, next) = (Shared(b.at), self.engine.columns());
                            Panels {
                                at,
                                row: out,
                                next,
                                columns: out,
                            }
                        } else {
                            let next = walk.depth * self.engine.columns();
                            pack(&self.engine, [walk.depth, out], b, packed, next)
                        };
                        sweep(
                            &self.engine,
                            elements.len(),
                            walk,
                            fill,
                            &panels,
                            sums,
                            mode,
                        );
                    }
                    mode = Mode::Continue;
                }
            });
        });
        // SAFETY: as for this function.
        unsafe { self.add_up(spec, groups) };
    }

    /// Adds up the partial sums of the groups, and writes the totals to where the weights are. The partial
    /// sums lie in the workspace: group by group, the elements of a patch, each with the channels of the
    /// result.
    ///
    /// # Safety
    /// As for [`Self::weight`], and nobody else may use the result and the workspace.
    pub(super) unsafe fn add_up(&self, spec: &Correlation, groups: usize) {
        let out = spec.result[2];
        let additions = groups * spec.patch() * out;
        for_each(spec.patch(), 8 * additions as u64, |i| {
            let part = |group: usize| {
                self.workspace
                    .at()
                    .wrapping_add((group * spec.patch() + i) * out)
            };
            // SAFETY: row i of the partial sums, and the weights that it is about.
            unsafe {
                let total = slice::from_raw_parts_mut(part(0), out);
                for group in 1..groups {
                    let part = slice::from_raw_parts(part(group), out);
                    total
                        .iter_mut()
                        .zip(part)
                        .for_each(|(total, &value)| *total += value);
                }
                for (channel, &value) in total.iter().enumerate() {
                    let weight = self.out.at().add(spec.weight(i, channel));
                    if self.accumulate {
                        *weight += value;
                    } else {
                        *weight = value;
                    }
                }
            }
        });
    }
}
