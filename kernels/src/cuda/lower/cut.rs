//! How a product is cut into the tiles of blocks, and its inner index into splits. This is a function of the
//! product's sizes alone, and so the order of its sums is one, too.

use crate::{Conv, ConvKind, MatMul};

/// Multiprocessors of the device that cuts are made for.
const PROCESSORS: usize = 132;

/// Inner indices of a split, at least.
const DEPTH: usize = 128;

/// Bytes of all partial sums of a product, at most: see `SCRATCH_BYTES`.
const PARTIAL_BYTES: usize = 12 << 20;

/// The product C \[m, n\] with an inner index of k, `batch` times. The rows of C fall into classes of at most
/// `rows`, each with an inner index of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub(super) batch: usize,
    pub(super) classes: usize,
    pub(super) rows: usize,
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
}

impl Product {
    pub(super) fn new(batch: usize, [m, n, k]: [usize; 3]) -> Self {
        let (classes, rows) = (1, m);
        Self {
            batch,
            classes,
            rows,
            m,
            n,
            k,
        }
    }

    pub(super) fn of_matmul(&MatMul { batch, m, n, k, .. }: &MatMul) -> Self {
        Self::new(batch, [m, n, k])
    }

    pub(super) fn of_conv(conv: &Conv) -> Self {
        let (window, batch) = (conv.window[0] * conv.window[1], conv.batch);
        let y = conv.n * conv.out_h() * conv.out_w();
        match conv.kind {
            ConvKind::Forward => Self::new(batch, [y, conv.out, window * conv.c]),
            ConvKind::Weight => Self::new(batch, [conv.out, window * conv.c, y]),
            ConvKind::Input => Self::of_classes(conv),
        }
    }

    /// A class has the pixels of x that the same window positions reach: with steps of 2, one in four of a
    /// window's positions.
    fn of_classes(conv: &Conv) -> Self {
        let extents = [conv.h, conv.w];
        let along = |of: fn(usize, usize, usize) -> usize| {
            let axis = |i| of(extents[i], conv.window[i], conv.stride[i]);
            axis(0) * axis(1)
        };
        Self {
            batch: conv.batch,
            classes: along(|extent, _, stride| stride.min(extent)),
            rows: conv.n * along(|extent, _, stride| extent.div_ceil(stride)),
            m: conv.n * conv.h * conv.w,
            n: conv.c,
            k: conv.out * along(|_, window, stride| window.div_ceil(stride)),
        }
    }

    /// Bytes of one split's partial sums.
    fn bytes(&self) -> usize {
        4 * self.batch * self.m * self.n
    }
}

/// A tile of C, and the cycles that its kernels take in tf32.
#[derive(Debug)]
pub(super) struct Tile {
    name: &'static str,
    extents: [usize; 2],
    /// Cycles that a block takes before it multiplies and afterwards.
    block: usize,
    /// Cycles for 16 inner indices, if one block is on a multiprocessor, if two are, and so on.
    cycles: &'static [usize],
}

/// Tiles of `mma.sync`, and of exact f32. A block alone waits for memory. Several take as long as a
/// multiprocessor takes to get their A and B, at 19 bytes in a cycle (measured on an H200).
pub(super) const MMA_TILES: &[Tile] = &[
    Tile {
        name: "large",
        extents: [128, 128],
        block: 1500,
        cycles: &[1600, 1650],
    },
    Tile {
        name: "tall",
        extents: [128, 64],
        block: 1500,
        cycles: &[1000, 1230, 1550],
    },
    Tile {
        name: "small",
        extents: [64, 64],
        block: 1500,
        cycles: &[560, 840, 1250, 1650],
    },
];

/// Tiles of warpgroups (`gemm_wgmma.cuh`). Their cycles were fitted to what 11 products of layers took on an
/// H200, 5 to 1,400 µs: the tile that comes out is the fastest of four or within a tenth of it.
pub(super) const WGMMA_TILES: &[Tile] = &[
    Tile {
        name: "large",
        extents: [192, 128],
        block: 5000,
        cycles: &[770],
    },
    Tile {
        name: "wide",
        extents: [128, 128],
        block: 4000,
        cycles: &[670],
    },
    Tile {
        name: "tall",
        extents: [192, 64],
        block: 3500,
        cycles: &[600],
    },
    Tile {
        name: "small",
        extents: [64, 64],
        block: 2000,
        cycles: &[370, 590],
    },
];

/// Cycles that adding up partial sums takes, beside the time for their bytes.
const COMBINE_CYCLES: usize = 4500;
/// Bytes of partial sums that are written and read again in a cycle.
const COMBINE_BYTES: usize = 650;

/// What a launch of a product is: its tiles, and splits of the inner index, of so many each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) name: &'static str,
    /// Rows of a tile.
    pub(super) rows: usize,
    pub(super) tiles: [usize; 2],
    pub(super) splits: usize,
    pub(super) depth: usize,
}

impl Cut {
    /// The cut that takes the fewest cycles; of equals the one of larger tiles and fewer splits.
    pub(super) fn new(product: &Product, tiles: &[Tile]) -> Self {
        let most = (product.k / DEPTH).min(PARTIAL_BYTES / product.bytes().max(1));
        let cuts = tiles.iter().flat_map(|tile| {
            (1..=most.max(1)).map(move |splits| {
                let cut = Self::of(tile.name, tile.extents, splits, product);
                (cut.cycles(product, tile), cut)
            })
        });
        let least = cuts.min_by_key(|&(cycles, _)| cycles);
        least.expect("one split at least").1
    }

    /// Of splits whose depth is a multiple of 32.
    fn of(
        name: &'static str,
        [rows, columns]: [usize; 2],
        splits: usize,
        product: &Product,
    ) -> Self {
        let k = product.k;
        let depth = k.div_ceil(splits).next_multiple_of(32);
        let splits = k.div_ceil(depth.max(1)).max(1);
        Self {
            name,
            rows,
            tiles: [product.rows.div_ceil(rows), product.n.div_ceil(columns)],
            splits,
            depth,
        }
    }

    /// The cycles of the busiest multiprocessor, which takes its blocks together as far as they fit.
    fn cycles(&self, product: &Product, tile: &Tile) -> usize {
        let step = tile.cycles;
        let blocks = product.batch * product.classes * self.tiles[0] * self.tiles[1] * self.splits;
        let busiest = blocks.div_ceil(PROCESSORS);
        let together = |count: usize| match count {
            0 => 0,
            _ => tile.block + self.depth.min(product.k).div_ceil(16) * step[count - 1],
        };
        let full = busiest / step.len() * together(step.len());
        let combine = match self.splits {
            1 => 0,
            splits => COMBINE_CYCLES + splits * product.bytes() / COMBINE_BYTES,
        };
        full + together(busiest % step.len()) + combine
    }

    /// The cut for a convolution's transpose with respect to the weight, if its images have few channels:
    /// tiles of 64 by 16 (`gemm_few.cu`). `None` if tiles of 64 columns would do as well, or if there is
    /// little to add up.
    pub(super) fn few(product: &Product) -> Option<Self> {
        const MOST_COLUMNS: usize = 32;
        // A thread adds up every sixteenth: 256 terms.
        const MOST_DEPTH: usize = 4096;
        let &Product { batch, m, n, k, .. } = product;
        let tiles = [m.div_ceil(64), n.div_ceil(16)];
        let blocks = (batch * tiles[0] * tiles[1]).max(1);
        let most = PARTIAL_BYTES / product.bytes().max(1);
        let splits = (2 * PROCESSORS / blocks)
            .min(k / DEPTH)
            .clamp(1, most.max(1));
        let cut = Self::of("few", [64, 16], splits, product);
        (n <= MOST_COLUMNS && cut.splits > 1 && cut.depth <= MOST_DEPTH).then_some(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut([batch, m, n, k]: [usize; 4], tiles: &[Tile]) -> Cut {
        Cut::new(&Product::new(batch, [m, n, k]), tiles)
    }

    const BOTH: [&[Tile]; 2] = [MMA_TILES, WGMMA_TILES];

    #[test]
    fn splits_hold_all_of_the_inner_index_and_fit_the_scratch_memory() {
        let mut splits = 0;
        for k in [0, 1, 31, 128, 255, 1024, 6272, 100_352] {
            for [batch, m, n] in [[1, 1, 1], [1, 64, 576], [3, 128, 1000], [1, 6272, 1024]] {
                for tiles in BOTH {
                    let cut = cut([batch, m, n, k], tiles);
                    assert!(cut.splits * cut.depth >= k, "{cut:?}");
                    assert!((cut.splits - 1) * cut.depth < k.max(1), "{cut:?}");
                    let bytes = 4 * batch * m * n * cut.splits;
                    assert!(cut.splits == 1 || bytes <= PARTIAL_BYTES, "{cut:?}");
                    splits = splits.max(cut.splits);
                }
            }
        }
        assert!(splits > 16, "{splits}");
    }

    /// Small tiles or splits, where a product has so few large tiles (49, for one of these) that most of the
    /// device would be idle.
    #[test]
    fn products_of_layers_fill_the_device() {
        for sizes in [
            [1, 128, 6272, 1024],
            [1, 128, 1024, 6272],
            [1, 6272, 1024, 128],
            [1, 128, 576, 25_088],
        ] {
            for tiles in BOTH {
                let cut = cut(sizes, tiles);
                let blocks = cut.tiles[0] * cut.tiles[1] * cut.splits;
                assert!(blocks > PROCESSORS * 2 / 3, "{sizes:?}: {cut:?}");
            }
        }
        for tiles in BOTH {
            assert_eq!(cut([1, 4096, 4096, 4096], tiles).name, "large");
        }
    }
}
