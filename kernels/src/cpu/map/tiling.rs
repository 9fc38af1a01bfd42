//! How the points of a map are cut into blocks, and in which order its sums are taken.
//!
//! With sums, all of this is a function of the extents and the flags only. So neither threads nor the rest of
//! the map change the order of additions.

use super::access::Access;
use super::{BLOCK, STEP};
use crate::{Instr, Load, Map, StoreKind};

/// Lanes that one long sum is dealt to.
pub(super) const LANES: usize = 64;

/// Rows that are added one after another before their sum is added to that of all rows before. Rounding
/// errors then grow like those of two much shorter sums.
pub(super) const DEPTH: usize = 32;

/// Points of a block of a plan that needs no registers.
const LONG: usize = 1 << 12;

/// Points of a chunk of rows that is summed separately, at least.
const CHUNK: usize = 1 << 15;

/// Units that sums are cut into at most.
const PARTS: usize = 64;

/// The points as rows of `inner`; equally many rows form a group; groups are cut into chunks of rows and
/// into strips of columns. A strip of a chunk is a [`Unit`]: what threads share, and what is evaluated
/// block by block, in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tiling {
    pub(super) inner: usize,
    pub(super) groups: usize,
    pub(super) group_rows: usize,
    pub(super) chunk_rows: usize,
    /// Chunks of a group.
    pub(super) chunks: usize,
    pub(super) strips: usize,
    /// Points of a block, at most.
    pub(super) block: usize,
    /// Rows of a block; 1 if a row is longer than a block.
    block_rows: usize,
    pub(super) sums: Sums,
}

/// How the sums of a map are taken.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sums {
    None,
    /// A block holds many sums: of `reduce` × `inner` points over the first.
    Small {
        reduce: usize,
    },
    /// Rows are added up, `fold` of them side by side in the lanes; every group has a sum of `inner`.
    Rows {
        fold: usize,
    },
    /// Kept and summed axes in turns: every row is added where it belongs in its group's sum.
    /// `access` says where, and the sum has `width` elements.
    Nested {
        access: Access,
        width: usize,
    },
}

/// A strip of a chunk of a group of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unit {
    pub(super) group: usize,
    pub(super) chunk: usize,
    pub(super) first_row: usize,
    pub(super) rows: usize,
    pub(super) first_column: usize,
    pub(super) columns: usize,
}

impl Tiling {
    /// For a map that has points.
    pub(super) fn new(map: &Map) -> Self {
        let flags = map.stores.iter().find_map(|store| match &store.kind {
            StoreKind::Sum(flags) => Some(flags),
            StoreKind::Full => None,
        });
        if let Some(flags) = flags {
            return Self::of_sums(&turns(&map.extents, flags));
        }
        let [rows, inner] = even_rows(map);
        let groups = map.points() / (rows * inner);
        if rows * inner < BLOCK {
            return Self::even(1, groups * rows, inner, BLOCK);
        }
        Self::even(groups, rows, inner, BLOCK)
    }

    /// Blocks that do not reach over groups of rows.
    fn even(groups: usize, group_rows: usize, inner: usize, block: usize) -> Self {
        let block_rows = block_rows(inner, 1, block).min(group_rows);
        Self {
            inner,
            groups,
            group_rows,
            chunk_rows: block_rows,
            chunks: group_rows.div_ceil(block_rows),
            strips: inner.div_ceil(block),
            block,
            block_rows,
            sums: Sums::None,
        }
    }

    fn of_sums(turns: &[(usize, bool)]) -> Self {
        let (outer, rest) = match turns {
            [(extent, false), rest @ ..] => (*extent, rest),
            all => (1, all),
        };
        match *rest {
            [] => Self::rows(1, 1, outer),
            [(reduce, _)] => Self::rows(outer, reduce, 1),
            [(reduce, _), (inner, _)] => Self::rows(outer, reduce, inner),
            [(reduce, _), ref rest @ ..] => Self::nested(outer, reduce, rest),
        }
    }

    /// Blocks of several small groups of `reduce` × `inner`.
    fn small(groups: usize, reduce: usize, inner: usize) -> Self {
        let block_rows = block_rows(reduce * inner, 1, BLOCK) * reduce;
        Self {
            inner,
            groups: 1,
            group_rows: groups * reduce,
            chunk_rows: block_rows,
            chunks: (groups * reduce).div_ceil(block_rows),
            strips: 1,
            block: BLOCK,
            block_rows,
            sums: Sums::Small { reduce },
        }
    }

    /// Sums of [outer, reduce, inner] over the middle.
    fn rows(outer: usize, reduce: usize, inner: usize) -> Self {
        if reduce * inner <= BLOCK {
            return Self::small(outer, reduce, inner);
        }
        let fold = if inner < LANES {
            1 << (LANES / inner).ilog2()
        } else {
            1
        };
        let block_rows = block_rows(inner, fold, BLOCK);
        let strips = inner.div_ceil(BLOCK);
        let chunk_rows =
            chunk_rows(outer * strips, reduce, inner.min(BLOCK)).next_multiple_of(block_rows);
        Self {
            inner,
            groups: outer,
            group_rows: reduce,
            chunk_rows,
            chunks: reduce.div_ceil(chunk_rows),
            strips,
            block: BLOCK,
            block_rows,
            sums: Sums::Rows { fold },
        }
    }

    /// Sums of [outer, reduce, kept, summed, …].
    fn nested(outer: usize, reduce: usize, rest: &[(usize, bool)]) -> Self {
        let extents: Vec<usize> = rest.iter().map(|&(extent, _)| extent).collect();
        let (mut strides, mut width) = (vec![0; rest.len()], 1);
        for (stride, &(extent, summed)) in strides.iter_mut().zip(rest).rev() {
            *stride = if summed { 0 } else { width };
            width *= if summed { 1 } else { extent };
        }
        let inner = extents[extents.len() - 1];
        let rows: usize = extents.iter().product::<usize>() / inner;
        let chunk_rows = chunk_rows(outer, reduce, rows * inner);
        Self {
            inner,
            groups: outer,
            group_rows: reduce * rows,
            chunk_rows: chunk_rows * rows,
            chunks: reduce.div_ceil(chunk_rows),
            strips: 1,
            block: BLOCK,
            block_rows: block_rows(inner, 1, BLOCK),
            sums: Sums::Nested {
                access: Access::new(&extents, &strides),
                width,
            },
        }
    }

    /// The same points and sums in longer blocks, if that can be: for what needs no registers.
    pub(super) fn longer(&self) -> Option<Self> {
        match self.sums {
            Sums::None => Some(Self::even(self.groups, self.group_rows, self.inner, LONG)),
            Sums::Rows { fold } if self.inner <= self.block => {
                // As many blocks as are added up before their sum is added to that of all before.
                let block = self.block_rows * self.inner;
                let blocks = DEPTH.div_ceil(block.div_ceil(self.inner * fold));
                Some(Self {
                    block: block * blocks,
                    block_rows: self.block_rows * blocks,
                    ..self.clone()
                })
            }
            _ => None,
        }
    }

    pub(super) fn units(&self) -> usize {
        self.groups * self.strips * self.chunks
    }

    pub(super) fn unit(&self, index: usize) -> Unit {
        let (index, chunk) = (index / self.chunks, index % self.chunks);
        let (group, strip) = (index / self.strips, index % self.strips);
        let skip = chunk * self.chunk_rows;
        let width = if self.strips == 1 {
            self.inner
        } else {
            self.block
        };
        Unit {
            group,
            chunk,
            first_row: group * self.group_rows + skip,
            rows: self.chunk_rows.min(self.group_rows - skip),
            first_column: strip * width,
            columns: width.min(self.inner - strip * width),
        }
    }

    /// Points of a unit, at most.
    pub(super) fn unit_points(&self) -> usize {
        self.chunk_rows.min(self.group_rows)
            * if self.strips == 1 {
                self.inner
            } else {
                self.block
            }
    }

    /// Calls `visit(first point, points)` for the blocks of a unit, in order.
    #[inline(always)]
    pub(super) fn each_block(&self, unit: Unit, mut visit: impl FnMut(usize, usize)) {
        if self.inner <= self.block {
            for row in (0..unit.rows).step_by(self.block_rows) {
                let rows = self.block_rows.min(unit.rows - row);
                visit((unit.first_row + row) * self.inner, rows * self.inner);
            }
        } else {
            for row in unit.first_row..unit.first_row + unit.rows {
                for column in (0..unit.columns).step_by(self.block) {
                    let start = row * self.inner + unit.first_column + column;
                    visit(start, self.block.min(unit.columns - column));
                }
            }
        }
    }

    /// Every block starts at a multiple of this.
    pub(super) fn grid(&self) -> usize {
        let rows = match self.inner <= self.block {
            false => return 1,
            true if self.groups > 1 => gcd(self.group_rows, self.block_rows),
            true => self.block_rows,
        };
        gcd(rows, self.chunk_rows) * self.inner
    }

    /// No block reaches over a multiple of `length`.
    pub(super) fn blocks_lie_in(&self, length: usize) -> bool {
        if self.inner > self.block {
            return length.is_multiple_of(self.inner);
        }
        let block = self.block_rows * self.inner;
        self.groups > 1 && length.is_multiple_of(self.group_rows * self.inner)
            || self.grid() == block && length.is_multiple_of(block)
    }

    /// In every unit, what is read repeats from row to row of `columns` points.
    pub(super) fn repeats_in_units(&self, access: &Access, columns: usize) -> bool {
        let whole = self.block_rows * self.inner;
        let blocks_begin_rows = self.chunk_rows == self.block_rows || whole.is_multiple_of(columns);
        let group = self.group_rows * self.inner;
        self.strips == 1
            && blocks_begin_rows
            && access.repeats().is_some_and(|repeats| {
                columns.is_multiple_of(repeats.period)
                    && self.inner.is_multiple_of(repeats.period)
                    && repeats.points.is_none_or(|points| {
                        let chunk = self.chunk_rows * self.inner;
                        points.is_multiple_of(if self.groups > 1 { group } else { chunk })
                    })
            })
    }

    /// What is read is the same for all blocks: the pattern repeats, and blocks begin where it does.
    pub(super) fn repeats(&self, access: &Access) -> bool {
        let period = access.period();
        period.is_some_and(|period| period <= BLOCK && self.grid().is_multiple_of(period))
    }

    /// Elements of each sum.
    pub(super) fn sum_width(&self) -> usize {
        match &self.sums {
            Sums::Nested { width, .. } => *width,
            _ => self.inner,
        }
    }
}

/// Merged axes with a flag each, flags in turns.
fn turns(extents: &[usize], flags: &[bool]) -> Vec<(usize, bool)> {
    let mut turns: Vec<(usize, bool)> = Vec::new();
    for (&extent, &flag) in extents
        .iter()
        .zip(flags)
        .filter(|&(&extent, _)| extent != 1)
    {
        match turns.last_mut() {
            Some((outer, same)) if *same == flag => *outer *= extent,
            _ => turns.push((extent, flag)),
        }
    }
    turns
}

/// `[rows, inner]`. Along a row of `inner` points all loads and axis indices move evenly, or the row holds
/// whole periods of what repeats. So many such `rows` follow each other at equal distances.
fn even_rows(map: &Map) -> [usize; 2] {
    let extents = &map.extents;
    let period = map.loads.iter().filter_map(|load| {
        let repeats = Access::new(extents, &load.strides).repeats()?;
        (repeats.period <= BLOCK).then_some(repeats.period)
    });
    let period = period.max().unwrap_or(1);
    let mut axes = (0..extents.len())
        .rev()
        .filter(|&axis| extents[axis] != 1)
        .peekable();
    let counted = |axis: usize| map.code.contains(&Instr::Iota(axis));
    let mut run = |least: usize| {
        let Some(last) = axes.next() else { return 1 };
        let (mut extent, mut all_even) = (extents[last], true);
        while let Some(axis) = axes.next_if(|&axis| {
            let even =
                |load: &Load| load.strides[axis] == load.strides[last].saturating_mul(extent);
            all_even &= map.loads.iter().all(even) && !counted(axis) && !counted(last);
            all_even || extent < least
        }) {
            extent *= extents[axis];
        }
        extent
    };
    let inner = run(period);
    [run(1), inner]
}

/// Rows of a block: full steps if possible, else multiples of `fold`.
fn block_rows(row: usize, fold: usize, block: usize) -> usize {
    let most = (block / row).max(1);
    let even = STEP / gcd(row, STEP);
    most - most % if most >= even { even } else { fold }
}

/// Rows of a chunk of `all` rows, so that all units together are about [`PARTS`].
fn chunk_rows(groups: usize, all: usize, row_points: usize) -> usize {
    let chunks = (PARTS / groups).max(1);
    all.div_ceil(chunks)
        .max(CHUNK.div_ceil(row_points))
        .min(all)
}

pub(super) fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
