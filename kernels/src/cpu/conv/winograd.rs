//! Windows of 3×3 with steps of 1 as tiles of 2×2 results, with 16 multiplications instead of 36.
//!
//! The channels of a transformed tile are multiplied point by point, so tiles are the rows of a matrix and
//! there are 16 matrix products (Lavin and Gray 2015, arXiv 1509.09308, algorithm 1). For c and k channels a
//! tile costs 16·c·k multiply-adds, 32·c additions before them and 24·k after, and 16·(c + k) numbers
//! written and read once; hence the transforms pay for themselves from about a dozen channels. They are made
//! for a block of tiles at a time, whose 16·(c + k) numbers each stay in the second-level cache.
//!
//! The weight gradient is the transpose: G̃ᵀ\[Σ (Bᵀ d B) ∘ (A y Aᵀ)\]G over all tiles, and the sum over
//! tiles is the inner index of the 16 products.

use std::ops::Range;
use std::slice;

use super::correlation::Correlation;
use super::tiles::{FEWEST, PRODUCTS, Planes, Tiling, part};
use super::transforms::{Filter, FilterBack, POINTS, RESULTS, Results, ResultsBack, Source, TAPS};
use super::transforms::{Tile, Transform};
use super::{Job, PIECES};
use crate::Float;
use crate::cpu::math::Real;
use crate::cpu::microkernel::{Element, MAX_ROWS, Mode, Walk};
use crate::cpu::panels::{Panels, Shared, for_each, pack, packed_count, scratch, sweep};
use crate::cpu::simd::{prefetch_read, prefetch_write};

impl<T: Element + Real> Job<T> {
    /// # Safety
    /// All arrays must have the sizes of the correlation, here and below.
    pub(super) unsafe fn tiled(&self, tiling: &Tiling, source: &Shared<T>, filter: &Shared<T>) {
        let spec = &tiling.part;
        let [c, out] = [spec.source[2], spec.result[2]];
        // SAFETY: as for this function.
        unsafe { self.transform_filter(spec, filter) };
        let all = 0..tiling.count();
        let blocks = all.len().div_ceil(Tiling::at_once::<T>(c + out));
        let blocks = blocks.max(PIECES.min(all.len() / FEWEST));
        let rows = all.len().div_ceil(blocks);
        let counts = [c, out].map(|channels| Planes::<T>::count(rows, channels));
        for_each(blocks, self.flops, |block| {
            let tiles = part(&all, block, blocks);
            let parts = self.parts(tiles.len());
            let next = part(&all, (block + 1).min(blocks - 1), blocks);
            let mut next = tiling.memory(&next, source.at(), spec.source_count(), parts);
            let mut now = tiling.memory(&tiles, self.out.at(), spec.result_count(), parts);
            let ask = || {
                next.ask(prefetch_read);
                now.ask(prefetch_write);
            };
            scratch([counts[0], counts[1], c, out], |[v, m, zeros, beyond]| {
                let (v, m) = (Planes::new(v, rows, c), Planes::new(m, rows, out));
                let source = |tile| tiling.source(tile, source.at(), zeros);
                let result = |tile| tiling.result(tile, self.out.at(), beyond);
                let a = |point, tile| v.matrix(point).element(tile, 0).cast_const();
                let filter = |point| self.point_filter(spec, point);
                let size = (tiles.len(), Walk::line(c, 1));
                // SAFETY: pixels of the arrays, or the scratch memory; a block's results are ours alone.
                unsafe {
                    slice::from_raw_parts_mut(zeros, c).fill(T::ZERO);
                    open::<Source, T, POINTS>(tiles.clone(), source, &v, c);
                    self.products(size, a, filter, &m, Mode::Set, ask);
                    for (i, tile) in tiles.enumerate() {
                        let tile = Tile {
                            pixels: &result(tile),
                            points: m.tile(i),
                            channels: out,
                        };
                        tile.close::<Results>(self.accumulate);
                    }
                }
            });
        });
    }

    /// The transformed filter at a point, in the workspace.
    fn point_filter(&self, spec: &Correlation, point: usize) -> Panels<T> {
        let [c, out] = [spec.source[2], spec.result[2]];
        let plane = packed_count(&self.engine, c, out);
        Panels {
            at: Shared(self.workspace.at().wrapping_add(point * plane)),
            row: self.engine.columns(),
            next: c * self.engine.columns(),
            columns: out,
        }
    }

    /// Transforms and packs the filter: the columns of one panel and as many channels of the source at a
    /// time.
    unsafe fn transform_filter(&self, spec: &Correlation, filter: &Shared<T>) {
        let width = self.engine.columns();
        let [(c, rows), (out, panels)] =
            [spec.source[2], spec.result[2]].map(|count| (count, count.div_ceil(width)));
        let along_source = spec.filter.source == 1;
        let work = 2 * (PRODUCTS * TAPS * c * out) as u64;
        for_each(rows * panels, work, |piece| {
            let (first, panel) = (piece / panels * width, piece % panels);
            let (depth, columns) = (width.min(c - first), width.min(out - panel * width));
            let (lines, length) = if along_source {
                (columns, depth)
            } else {
                (depth, columns)
            };
            scratch(
                [Planes::<T>::count(width, width)],
                |[memory]: [*mut T; 1]| {
                    let planes = Planes::new(memory, width, width);
                    for line in 0..lines {
                        let (source, result) = if along_source {
                            (first, panel * width + line)
                        } else {
                            (first + line, panel * width)
                        };
                        let mut taps = [[filter.at(); TAPS]; TAPS];
                        for (tap, at) in taps.iter_mut().flatten().enumerate() {
                            let weight = spec.weight(tap * c + source, result);
                            *at = at.wrapping_add(weight);
                        }
                        let tile = Tile {
                            pixels: &taps,
                            points: planes.tile(line),
                            channels: length,
                        };
                        // SAFETY: weights, and the scratch memory.
                        unsafe { tile.open::<Filter>() };
                    }
                    for point in 0..PRODUCTS {
                        let panels = self.point_filter(spec, point);
                        let to = panels
                            .at
                            .at()
                            .wrapping_add(panel * panels.next + first * width);
                        let made = planes.matrix(point);
                        let made = if along_source {
                            made.transposed()
                        } else {
                            made
                        };
                        // SAFETY: what was made, and its rows of the panel in the workspace.
                        unsafe { pack(&self.engine, [depth, columns], made, to, panels.next) };
                    }
                },
            );
        });
    }

    pub(super) unsafe fn tiled_weight(
        &self,
        tiling: &Tiling,
        float: Float,
        source: &Shared<T>,
        result: &Shared<T>,
    ) {
        let spec = &tiling.part;
        let [c, out] = [spec.source[2], spec.result[2]];
        let [groups, width] = tiling.groups(float);
        let pieces = c.div_ceil(width);
        let all = 0..tiling.count();
        let rows = Tiling::at_once::<T>(width + out).min(all.len().div_ceil(groups));
        // The micro-kernel reads whole vectors.
        let row = out.next_multiple_of(self.engine.lanes);
        let sizes = [(rows, width), (rows, row), (width, out)];
        let [v, d, sums] = sizes.map(|(rows, row)| Planes::<T>::count(rows, row));
        let edge = width.max(out);
        for_each(groups * pieces, self.flops, |piece| {
            let (group, start) = (part(&all, piece / pieces, groups), piece % pieces * width);
            let channels = width.min(c - start);
            scratch([v, d, sums, edge], |[v, d, sums, zeros]| {
                let (v, d) = (Planes::new(v, rows, width), Planes::new(d, rows, row));
                let sums = Planes::new(sums, width, out);
                let pixels = |tile| tiling.source(tile, source.at().wrapping_add(start), zeros);
                let results = |tile| tiling.result(tile, result.at(), zeros);
                let a = |point, channel| v.matrix(point).element(0, channel).cast_const();
                let b = |point| Panels {
                    at: Shared(d.matrix(point).at),
                    row,
                    next: self.engine.columns(),
                    columns: out,
                };
                // SAFETY: the scratch memory has `edge` elements here. They stand for the pixels outside of
                // the arrays.
                unsafe { slice::from_raw_parts_mut(zeros, edge).fill(T::ZERO) };
                let blocks = group.len().div_ceil(rows);
                for block in 0..blocks {
                    let tiles = part(&group, block, blocks);
                    let parts = self.parts(channels);
                    let next = part(&group, (block + 1).min(blocks - 1), blocks);
                    let mut x = tiling.memory(&next, source.at(), spec.source_count(), parts);
                    let mut y = tiling.memory(&next, result.at(), spec.result_count(), parts);
                    let ask = || {
                        x.ask(prefetch_read);
                        y.ask(prefetch_read);
                    };
                    let mode = if block == 0 {
                        Mode::Set
                    } else {
                        Mode::Continue
                    };
                    let walk = Walk::line(tiles.len(), width);
                    // SAFETY: pixels of the arrays, and this thread's scratch memory.
                    unsafe {
                        open::<Source, T, POINTS>(tiles.clone(), pixels, &v, channels);
                        open::<ResultsBack, T, RESULTS>(tiles, results, &d, out);
                        self.products((channels, walk), a, b, &sums, mode, ask);
                    }
                }
                for channel in 0..channels {
                    let first = piece / pieces * spec.patch() + start + channel;
                    let mut taps = [[self.workspace.at(); TAPS]; TAPS];
                    for (tap, at) in taps.iter_mut().flatten().enumerate() {
                        *at = at.wrapping_add((first + tap * c) * out);
                    }
                    let tile = Tile {
                        pixels: &taps,
                        points: sums.tile(channel),
                        channels: out,
                    };
                    // SAFETY: the sums in the scratch memory, and this piece's part of the workspace.
                    unsafe { tile.close::<FilterBack>(false) };
                }
            });
        });
        // SAFETY: as for this function.
        unsafe { self.add_up(spec, groups) };
    }

    /// How often, at least, [`Job::products`] of so many rows calls `ask`: once for each tile.
    fn parts(&self, rows: usize) -> usize {
        PRODUCTS * rows.div_ceil(self.engine.rows())
    }

    /// The products at all points: of `rows` rows of A, along each of which the walk leads. Calls `ask`
    /// before each tile, to prefetch memory meanwhile.
    ///
    /// # Safety
    /// What the walk reaches from the rows of A, and the panels of B, must be readable. `c` must have `rows` rows,
    /// which nobody else may use.
    unsafe fn products(
        &self,
        (rows, walk): (usize, Walk),
        a: impl Fn(usize, usize) -> *const T,
        b: impl Fn(usize) -> Panels<T>,
        c: &Planes<T>,
        mode: Mode,
        mut ask: impl FnMut(),
    ) {
        for point in 0..PRODUCTS {
            let fill = |range: Range<usize>, addresses: &mut [*const T; MAX_ROWS]| {
                ask();
                for (address, row) in addresses.iter_mut().zip(range) {
                    *address = a(point, row);
                }
            };
            let (b, c) = (b(point), c.matrix(point));
            // SAFETY: what the caller promises.
            unsafe { sweep(&self.engine, rows, walk, fill, &b, c, mode) };
        }
    }
}

/// Transforms tiles into the rows of planes.
///
/// # Safety
/// There must be so many channels at all pixels, and in a row of the planes for each tile.
unsafe fn open<F: Transform<N, POINTS>, T: Element + Real, const N: usize>(
    tiles: Range<usize>,
    pixels: impl Fn(usize) -> [[*mut T; N]; N],
    planes: &Planes<T>,
    channels: usize,
) {
    for (i, tile) in tiles.enumerate() {
        let tile = Tile {
            pixels: &pixels(tile),
            points: planes.tile(i),
            channels,
        };
        // SAFETY: what the caller promises.
        unsafe { tile.open::<F>() };
    }
}
