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
use super::transforms::{
    Filter, FilterBack, POINTS, RESULTS, Results, ResultsBack, Source, TAPS, Tile,
};
use super::weight::PARTIAL_BYTES;
use super::{Job, PIECES};
use crate::Float;
use crate::cpu::math::Real;
use crate::cpu::microkernel::{Element, MAX_COLUMNS, MAX_ROWS, Mode, Walk};
use crate::cpu::panels::{
    Matrix, Panels, Shared, aligned, for_each, pack, packed_count, scratch, sweep,
};

/// Matrix products that the transforms leave.
pub(super) const PRODUCTS: usize = POINTS * POINTS;

/// Bytes of the transformed tiles that are worked on at once: what fits into the second-level cache beside
/// the filter or the sums.
const BLOCK_BYTES: usize = 3 << 17;

/// Bytes of the sums of a weight gradient that stay there while tiles pass by.
const SUM_BYTES: usize = 1 << 18;

/// Tiles of a block, at least: the rows of the micro-kernel, below which it waits for the filter.
const FEWEST: usize = MAX_ROWS;

/// Bytes after which addresses fall into the same set of the first-level cache.
const PAGE: usize = 1 << 12;

/// A correlation whose results are cut into tiles; those at the end may reach out of the image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    pub(super) part: Correlation,
    /// Tiles of an image, down and across.
    grid: [usize; 2],
}

impl Tiling {
    /// If the correlation has the window and steps for it, and few enough channels for the blocks.
    pub(super) fn of(part: &Correlation, float: Float) -> Option<Self> {
        let [c, out] = [part.source[2], part.result[2]];
        let tile = PRODUCTS * (c + out) * float.size();
        let sums = PRODUCTS * out * FEWEST * float.size();
        let fits = FEWEST * tile <= BLOCK_BYTES && sums <= SUM_BYTES;
        (part.window == [TAPS; 2] && part.stride == [1, 1] && fits).then(|| Self {
            part: *part,
            grid: [0, 1].map(|axis| part.result[axis].div_ceil(RESULTS)),
        })
    }

    /// Places of vector registers that an image takes.
    pub(super) fn places(&self) -> usize {
        let [c, out] = [self.part.source[2], self.part.result[2]];
        let whole = |channels: usize| channels.next_multiple_of(16);
        // What is read and written for a point costs about as much as so many products (measured).
        let around = 4 * (whole(c) + whole(out));
        self.grid[0] * self.grid[1] * PRODUCTS * (c * whole(out) + around)
    }

    /// Elements of all transformed filters, on any processor.
    pub(super) fn filter_count(&self) -> usize {
        let [c, out] = [self.part.source[2], self.part.result[2]];
        PRODUCTS * c * out.next_multiple_of(MAX_COLUMNS)
    }

    /// Groups of tiles whose weight gradients are summed separately, and channels of the source that are done
    /// at once.
    pub(super) fn groups(&self, float: Float) -> [usize; 2] {
        let [c, out] = [self.part.source[2], self.part.result[2]];
        let bytes = self.part.patch() * out * float.size();
        let groups = (PARTIAL_BYTES / bytes).min(self.count() / FEWEST);
        let most = SUM_BYTES / (PRODUCTS * out * float.size());
        [groups.clamp(1, PIECES), c.div_ceil(c.div_ceil(most))]
    }

    /// Tiles of all images.
    fn count(&self) -> usize {
        self.part.images * self.grid[0] * self.grid[1]
    }

    /// Number of a tile's image, and its first row and column.
    fn place(&self, tile: usize) -> (usize, [usize; 2]) {
        let [down, across] = self.grid;
        let (row, column) = (tile / across, tile % across);
        (row / down, [row % down, column].map(|i| i * RESULTS))
    }

    /// Where the pixels of the source under a tile are, from this channel on; those outside are at `outside`.
    fn source<T>(
        &self,
        tile: usize,
        source: *mut T,
        outside: *mut T,
    ) -> [[*const T; POINTS]; POINTS] {
        let (image, first) = self.place(tile);
        let corner = [0, 1].map(|axis| first[axis] as isize - self.part.pad[axis]);
        let image = source.wrapping_add(image * self.part.source_count());
        constant(pixels(corner, self.part.source, image, outside))
    }

    /// The same of the results.
    fn result<T>(
        &self,
        tile: usize,
        result: *mut T,
        outside: *mut T,
    ) -> [[*mut T; RESULTS]; RESULTS] {
        let (image, first) = self.place(tile);
        let image = result.wrapping_add(image * self.part.result_count());
        let corner = first.map(|i| i as isize);
        pixels(corner, self.part.result, image, outside)
    }
}

/// The addresses of a square of pixels of an image.
fn pixels<T, const N: usize>(
    corner: [isize; 2],
    [h, w, c]: [usize; 3],
    image: *mut T,
    outside: *mut T,
) -> [[*mut T; N]; N] {
    let mut pixels = [[outside; N]; N];
    for (y, row) in (corner[0]..).zip(&mut pixels) {
        for (x, pixel) in (corner[1]..).zip(row) {
            if (0..h as isize).contains(&y) && (0..w as isize).contains(&x) {
                *pixel = image.wrapping_add((y as usize * w + x as usize) * c);
            }
        }
    }
    pixels
}

fn constant<T, const N: usize>(pixels: [[*mut T; N]; N]) -> [[*const T; N]; N] {
    pixels.map(|row| row.map(<*mut T>::cast_const))
}

/// A matrix for each point, with contiguous rows.
#[derive(Clone, Copy)]
struct Planes<T> {
    at: *mut T,
    /// Elements from a row to the next.
    row: usize,
    /// From a point to the next.
    plane: usize,
}

impl<T> Planes<T> {
    /// Of so many rows, at this address.
    fn new(at: *mut T, rows: usize, row: usize) -> Self {
        let plane = Self::count(rows, row) / PRODUCTS;
        Self { at, row, plane }
    }

    /// Elements of all. A row is written at all points in turn, which must not fall into one set of the cache.
    fn count(rows: usize, row: usize) -> usize {
        let bytes = (rows * row * size_of::<T>()).next_multiple_of(PAGE) + aligned::LINE;
        PRODUCTS * (bytes / size_of::<T>())
    }

    fn matrix(&self, point: usize) -> Matrix<T> {
        Matrix {
            at: self.at.wrapping_add(point * self.plane),
            row: self.row,
            col: 1,
        }
    }

    /// A row at all points.
    fn tile(&self, row: usize) -> [[*mut T; POINTS]; POINTS] {
        let mut tile = [[self.at; POINTS]; POINTS];
        for (point, at) in tile.iter_mut().flatten().enumerate() {
            *at = self.at.wrapping_add(point * self.plane + row * self.row);
        }
        tile
    }
}

/// A range cut into so many parts: one of them.
fn part(range: &Range<usize>, index: usize, parts: usize) -> Range<usize> {
    let cut = |index| range.start + index * range.len() / parts;
    cut(index)..cut(index + 1)
}

impl<T: Element + Real> Job<T> {
    /// # Safety
    /// All arrays must have the sizes of the correlation, here and below.
    pub(super) unsafe fn tiled(&self, tiling: &Tiling, source: &Shared<T>, filter: &Shared<T>) {
        let spec = &tiling.part;
        let [c, out] = [spec.source[2], spec.result[2]];
        // SAFETY: as for this function.
        unsafe { self.transform_filter(spec, filter) };
        let (all, most) = (0..tiling.count(), most::<T>(c + out));
        let blocks = all.len().div_ceil(most).max(PIECES.min(all.len() / FEWEST));
        let rows = all.len().div_ceil(blocks);
        let counts = [Planes::<T>::count(rows, c), Planes::<T>::count(rows, out)];
        for_each(blocks, self.flops, |block| {
            let tiles = part(&all, block, blocks);
            scratch([counts[0], counts[1], c, out], |[v, m, zeros, beyond]| {
                let (v, m) = (Planes::new(v, rows, c), Planes::new(m, rows, out));
                // SAFETY: pixels of the arrays, or the scratch memory; a block's results are ours alone.
                unsafe {
                    slice::from_raw_parts_mut(zeros, c).fill(T::ZERO);
                    for (i, tile) in tiles.clone().enumerate() {
                        let tile = Tile {
                            from: tiling.source(tile, source.at(), zeros),
                            to: v.tile(i),
                            channels: c,
                            add: false,
                        };
                        tile.transform::<Source>();
                    }
                    for point in 0..PRODUCTS {
                        let (a, c_point) = (v.matrix(point), m.matrix(point));
                        let fill = |range: Range<usize>, addresses: &mut [*const T; MAX_ROWS]| {
                            for (address, row) in addresses.iter_mut().zip(range) {
                                *address = a.element(row, 0);
                            }
                        };
                        let (walk, filter) = (Walk::line(c), self.point_filter(spec, point));
                        sweep(
                            &self.engine,
                            tiles.len(),
                            walk,
                            fill,
                            &filter,
                            c_point,
                            Mode::Set,
                        );
                    }
                    for (i, tile) in tiles.enumerate() {
                        let tile = Tile {
                            from: constant(m.tile(i)),
                            to: tiling.result(tile, self.out.at(), beyond),
                            channels: out,
                            add: self.accumulate,
                        };
                        tile.transform::<Results>();
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

    /// A panel's columns, and as many channels of the source, at a time.
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
                        let mut from = [[std::ptr::null(); TAPS]; TAPS];
                        for (tap, from) in from.iter_mut().flatten().enumerate() {
                            let weight = spec.weight(tap * c + source, result);
                            *from = filter.at().wrapping_add(weight).cast_const();
                        }
                        let tile = Tile {
                            from,
                            to: planes.tile(line),
                            channels: length,
                            add: false,
                        };
                        // SAFETY: weights, and the scratch memory.
                        unsafe { tile.transform::<Filter>() };
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
        let rows = most::<T>(width + out).min(all.len().div_ceil(groups));
        // The micro-kernel reads whole vectors.
        let row = out.next_multiple_of(self.engine.lanes);
        let counts = [(rows, width), (rows, row), (width, out)];
        let counts = counts.map(|(rows, row)| Planes::<T>::count(rows, row));
        for_each(groups * pieces, self.flops, |piece| {
            let (group, start) = (piece / pieces, piece % pieces * width);
            let (group_tiles, channels) = (part(&all, group, groups), width.min(c - start));
            let [v, d, sums] = counts;
            scratch([v, d, sums, width.max(out)], |[v, d, sums, zeros]| {
                let v = Planes::new(v, rows, width);
                let d = Planes::new(d, rows, row);
                let sums = Planes::new(sums, width, out);
                // SAFETY: pixels of the arrays, the scratch memory, and this piece's part of the workspace.
                unsafe {
                    slice::from_raw_parts_mut(zeros, width.max(out)).fill(T::ZERO);
                    let blocks = group_tiles.len().div_ceil(rows);
                    for block in 0..blocks {
                        let tiles = part(&group_tiles, block, blocks);
                        for (i, tile) in tiles.clone().enumerate() {
                            let source = source.at().wrapping_add(start);
                            Tile {
                                from: tiling.source(tile, source, zeros),
                                to: v.tile(i),
                                channels,
                                add: false,
                            }
                            .transform::<Source>();
                            Tile {
                                from: constant(tiling.result(tile, result.at(), zeros)),
                                to: d.tile(i),
                                channels: out,
                                add: false,
                            }
                            .transform::<ResultsBack>();
                        }
                        let mode = if block == 0 {
                            Mode::Set
                        } else {
                            Mode::Continue
                        };
                        for point in 0..PRODUCTS {
                            let (a, b) = (v.matrix(point), d.matrix(point));
                            let fill =
                                |range: Range<usize>, addresses: &mut [*const T; MAX_ROWS]| {
                                    for (address, channel) in addresses.iter_mut().zip(range) {
                                        *address = a.element(0, channel);
                                    }
                                };
                            let walk = Walk {
                                counts: [1, 1, tiles.len()],
                                steps: [0, 0, width],
                            };
                            let b = Panels {
                                at: Shared(b.at),
                                row,
                                next: self.engine.columns(),
                                columns: out,
                            };
                            sweep(
                                &self.engine,
                                channels,
                                walk,
                                fill,
                                &b,
                                sums.matrix(point),
                                mode,
                            );
                        }
                    }
                    for channel in 0..channels {
                        let mut to = [[self.workspace.at(); TAPS]; TAPS];
                        for (tap, to) in to.iter_mut().flatten().enumerate() {
                            let element = group * spec.patch() + tap * c + start + channel;
                            *to = to.wrapping_add(element * out);
                        }
                        Tile {
                            from: constant(sums.tile(channel)),
                            to,
                            channels: out,
                            add: false,
                        }
                        .transform::<FilterBack>();
                    }
                }
            });
        });
        // SAFETY: as for this function.
        unsafe { self.add_up(spec, groups) };
    }
}

/// Tiles of a block, when each has so many channels at a point.
fn most<T>(channels: usize) -> usize {
    BLOCK_BYTES / (PRODUCTS * channels * size_of::<T>())
}
