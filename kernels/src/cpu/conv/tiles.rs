//! A correlation's results cut into tiles, and where their numbers are before and after a transform.

use std::ops::Range;

use super::PIECES;
use super::correlation::Correlation;
use super::transforms::{POINTS, RESULTS, TAPS};
use super::weight::PARTIAL_BYTES;
use crate::Float;
use crate::cpu::matrix::Matrix;
use crate::cpu::microkernel::{Element, MAX_COLUMNS, MAX_ROWS};
use crate::cpu::panels::aligned;

/// Matrix products that the transforms leave: one for each point of a tile.
pub(super) const PRODUCTS: usize = POINTS * POINTS;

/// Bytes of the transformed tiles that are worked on at once: what fits into the second-level cache beside
/// the filter or the sums.
const BLOCK_BYTES: usize = 3 << 17;

/// Bytes of the sums of a weight gradient that stay in the second-level cache while tiles pass by.
const SUM_BYTES: usize = 1 << 18;

/// Tiles of a block, at least: the rows of the micro-kernel, below which it waits for the filter.
pub(super) const FEWEST: usize = MAX_ROWS;

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

    /// Lanes of vector registers that an image takes: the unit in which forms are compared.
    pub(super) fn places(&self) -> usize {
        let [c, out] = [self.part.source[2], self.part.result[2]];
        let whole = |channels: usize| channels.next_multiple_of(16);
        // Measured: reading and writing a channel of a tile costs about as much as 7 products, and the
        // transform of the filter as much as the products of 6 tiles.
        let around = 7 * (whole(c) + whole(out));
        let (tiles, images) = (self.grid[0] * self.grid[1], self.part.images.max(1));
        let products = (tiles * images + 6) * c * whole(out) / images;
        PRODUCTS * (products + tiles * around)
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
        // Transforming a group's sums back costs as much as some tiles, so a group has many.
        let groups = (PARTIAL_BYTES / bytes).min(self.count() / (4 * FEWEST));
        let most = SUM_BYTES / (PRODUCTS * out * float.size());
        [groups.clamp(1, PIECES), c.div_ceil(c.div_ceil(most))]
    }

    /// Tiles that are worked on at once, when a point of each has so many channels.
    pub(super) fn at_once<T>(channels: usize) -> usize {
        BLOCK_BYTES / (PRODUCTS * channels * size_of::<T>())
    }

    /// About the memory that these tiles cover in an array of `image` elements per image, to be prefetched in
    /// `parts` parts.
    pub(super) fn memory<T>(
        &self,
        tiles: &Range<usize>,
        array: *mut T,
        image: usize,
        parts: usize,
    ) -> Memory {
        let start = |tile: usize| tile * image * size_of::<T>() / (self.grid[0] * self.grid[1]);
        let bytes = start(tiles.end) - start(tiles.start);
        Memory {
            at: array
                .cast_const()
                .cast::<u8>()
                .wrapping_add(start(tiles.start)),
            bytes,
            part: bytes.div_ceil(parts).next_multiple_of(aligned::LINE),
        }
    }

    /// Tiles of all images.
    pub(super) fn count(&self) -> usize {
        self.part.images * self.grid[0] * self.grid[1]
    }

    /// Number of a tile's image, and its first row and column.
    fn place(&self, tile: usize) -> (usize, [usize; 2]) {
        let [down, across] = self.grid;
        let (row, column) = (tile / across, tile % across);
        (row / down, [row % down, column].map(|i| i * RESULTS))
    }

    /// The addresses of the pixels of the source under a tile, in an array that begins at `source`. Those
    /// outside of the image are at `outside`.
    pub(super) fn source<T>(
        &self,
        tile: usize,
        source: *mut T,
        outside: *mut T,
    ) -> [[*mut T; POINTS]; POINTS] {
        let (image, first) = self.place(tile);
        let corner = [0, 1].map(|axis| first[axis] as isize - self.part.pad[axis]);
        let image = source.wrapping_add(image * self.part.source_count());
        pixels(corner, self.part.source, image, outside)
    }

    /// The addresses of the pixels of the result in a tile, likewise.
    pub(super) fn result<T>(
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

/// A matrix for each point, with contiguous rows.
#[derive(Clone, Copy)]
pub(super) struct Planes<T> {
    at: *mut T,
    /// Elements from a row to the next.
    row: usize,
    /// From a point to the next.
    plane: usize,
}

impl<T: Element> Planes<T> {
    /// Planes of so many rows, at this address.
    pub(super) fn new(at: *mut T, rows: usize, row: usize) -> Self {
        let plane = Self::count(rows, row) / PRODUCTS;
        Self { at, row, plane }
    }

    /// Elements of all planes. A row is written at all points in turn, so their addresses must not fall into
    /// one set of the cache.
    pub(super) fn count(rows: usize, row: usize) -> usize {
        let bytes = (rows * row * size_of::<T>()).next_multiple_of(PAGE) + aligned::LINE;
        PRODUCTS * (bytes / size_of::<T>())
    }

    pub(super) fn matrix(&self, point: usize) -> Matrix<T> {
        Matrix {
            at: self.at.wrapping_add(point * self.plane),
            row: self.row,
            col: 1,
        }
    }

    /// A row at the first point, and elements from there to the next point.
    pub(super) fn tile(&self, row: usize) -> (*mut T, usize) {
        (self.at.wrapping_add(row * self.row), self.plane)
    }
}

/// Memory to prefetch part by part while products are computed, which leave the memory bus idle.
pub(super) struct Memory {
    at: *const u8,
    bytes: usize,
    part: usize,
}

impl Memory {
    pub(super) fn ask(&mut self, how: impl Fn(*const u8, usize)) {
        let part = self.part.min(self.bytes);
        how(self.at, part);
        self.at = self.at.wrapping_add(part);
        self.bytes -= part;
    }
}

/// Part `index` of a range that is cut into `parts` parts.
pub(super) fn part(range: &Range<usize>, index: usize, parts: usize) -> Range<usize> {
    let cut = |index| range.start + index * range.len() / parts;
    cut(index)..cut(index + 1)
}
