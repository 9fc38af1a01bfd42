//! The driver around the micro-kernel: B cut into panels as wide as a tile, C walked tile by tile.

use std::ops::Range;

use rayon::prelude::*;

use super::microkernel::{Element, Engine, Kernel, MAX_COLUMNS, MAX_ROWS, Mode, Tile, Walk};
use super::scratch as thread;

/// Panels of B that stay in the second-level cache while the rows of A pass by.
const GROUP_BYTES: usize = 3 << 18;

/// Below this many FLOPs (about 10 µs) a thread hand-off costs more than it saves.
const PARALLEL_FLOPS: u64 = 1 << 21;

/// Calls `body` for all indices, on the threads of the current pool if that pays.
pub(super) fn for_each(count: usize, flops: u64, body: impl Fn(usize) + Send + Sync) {
    if flops < PARALLEL_FLOPS || count < 2 || rayon::current_num_threads() == 1 {
        (0..count).for_each(body);
    } else {
        (0..count).into_par_iter().with_max_len(1).for_each(body);
    }
}

/// Memory that starts on a cache line, inside of memory that may not.
pub(super) mod aligned {
    /// Bytes of a cache line.
    pub(crate) const LINE: usize = 64;

    /// Bytes that hold so many aligned ones.
    pub(crate) fn space(bytes: usize) -> usize {
        if bytes == 0 {
            0
        } else {
            bytes.next_multiple_of(8) + LINE
        }
    }

    pub(crate) fn start(memory: *mut u8) -> *mut u8 {
        memory.wrapping_add(memory.align_offset(LINE))
    }
}

/// Calls `body` with this thread's scratch memory, cut into parts of so many elements. What is in them
/// is anything. Every part starts on a cache line.
pub(super) fn scratch<T: Element, const PARTS: usize>(
    counts: [usize; PARTS],
    body: impl FnOnce([*mut T; PARTS]),
) {
    let bytes = counts.map(|count| (count * size_of::<T>()).next_multiple_of(64));
    let cut = |memory: *mut u8| {
        let mut next = memory;
        body(bytes.map(|bytes| {
            let part = next.cast();
            next = next.wrapping_add(bytes);
            part
        }));
    };
    let needed = bytes.iter().sum();
    if needed <= thread::BYTES {
        thread::with(cut);
    } else {
        // Only a convolution that needs so much for a single row of an image comes here.
        let mut memory = vec![0_u8; aligned::space(needed)];
        cut(aligned::start(memory.as_mut_ptr()));
    }
}

/// An address that threads share. Whoever makes references from it answers for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared<T>(pub(super) *mut T);

impl<T> Shared<T> {
    pub(super) fn at(&self) -> *mut T {
        self.0
    }
}

// SAFETY: only an address.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

/// A matrix in memory: its first element, and elements from a row, or from a column, to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix<T> {
    pub(super) at: *mut T,
    pub(super) row: usize,
    pub(super) col: usize,
}

impl<T: Element> Matrix<T> {
    #[inline(always)]
    pub(super) fn element(&self, row: usize, col: usize) -> *mut T {
        self.at.wrapping_add(row * self.row + col * self.col)
    }

    /// The same from this element on.
    pub(super) fn from(self, row: usize, col: usize) -> Self {
        Self {
            at: self.element(row, col),
            ..self
        }
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            row: self.col,
            col: self.row,
            ..self
        }
    }
}

/// The matrix B, cut into panels of [`Engine::columns`] columns.
#[derive(Clone, Copy)]
pub(super) struct Panels<T> {
    /// The first element.
    pub(super) at: Shared<T>,
    /// Elements from a row to the next, the same in all panels.
    pub(super) row: usize,
    /// Elements from a panel to the next.
    pub(super) next: usize,
    /// Columns of B. The last panel can be read up to the next multiple of [`Engine::lanes`].
    pub(super) columns: usize,
}

/// Elements that [`pack`] writes.
pub(super) fn packed_count<T>(engine: &Engine<T>, depth: usize, columns: usize) -> usize {
    depth * columns.next_multiple_of(engine.columns())
}

/// Copies B into panels that are contiguous, so that the micro-kernel reads memory in order. Missing
/// columns become zero. One of B's steps must be 1.
///
/// # Safety
/// B must be readable, and `to` have room for [`packed_count`] elements.
pub(super) unsafe fn pack<T: Element>(
    engine: &Engine<T>,
    [depth, columns]: [usize; 2],
    b: Matrix<T>,
    to: *mut T,
    next: usize,
) -> Panels<T> {
    let width = engine.columns();
    let panels = Panels {
        at: Shared(to),
        row: width,
        next,
        columns,
    };
    for panel in 0..columns.div_ceil(width) {
        let filled = width.min(columns - panel * width);
        let (b, to) = (
            b.from(0, panel * width),
            to.wrapping_add(panel * panels.next),
        );
        // SAFETY: what the caller promises.
        unsafe {
            if b.col != 1 {
                transpose(
                    [filled, depth],
                    b.transposed(),
                    Matrix {
                        at: to,
                        row: width,
                        col: 1,
                    },
                );
            } else if filled == width {
                engine.copy(depth, b.at, b.row, to);
            } else {
                for p in 0..depth {
                    b.element(p, 0)
                        .copy_to_nonoverlapping(to.add(p * width), filled);
                }
            }
            for p in 0..depth {
                (filled..width).for_each(|j| *to.add(p * width + j) = T::default());
            }
        }
    }
    panels
}

/// Writes the columns of a matrix as rows; both have contiguous rows.
///
/// # Safety
/// The matrix must be readable and the result writable.
pub(super) unsafe fn transpose<T: Element>(size: [usize; 2], from: Matrix<T>, to: Matrix<T>) {
    let [rows, columns] = size;
    let [whole_rows, whole_columns] = size.map(|side| side / 4 * 4);
    // SAFETY: what the caller promises.
    unsafe {
        // So much at a time that what is written stays in the first-level cache until its lines are full.
        for stretch in (0..whole_columns).step_by(64) {
            for i in (0..whole_rows).step_by(4) {
                for j in (stretch..whole_columns.min(stretch + 64)).step_by(4) {
                    let row = |l| from.element(i + l, j).cast::<[T; 4]>().read_unaligned();
                    let columns = T::transpose([row(0), row(1), row(2), row(3)]);
                    for (l, column) in columns.into_iter().enumerate() {
                        to.element(j + l, i)
                            .cast::<[T; 4]>()
                            .write_unaligned(column);
                    }
                }
            }
        }
        for i in 0..rows {
            let first = if i < whole_rows { whole_columns } else { 0 };
            (first..columns).for_each(|j| *to.element(j, i) = *from.element(i, j));
        }
    }
}

/// The product of `rows` rows with B, tile by tile, into C. `fill(range, addresses)` writes the addresses of
/// a range of rows of A; they are asked for in ascending order, over again for each group of panels.
///
/// # Safety
/// All that is described must be valid memory, C exclusively.
pub(super) unsafe fn sweep<T: Element>(
    engine: &Engine<T>,
    rows: usize,
    walk: Walk,
    mut fill: impl FnMut(Range<usize>, &mut [*const T; MAX_ROWS]),
    b: &Panels<T>,
    c: Matrix<T>,
    mode: Mode,
) {
    let width = engine.columns();
    let panel_bytes = walk.depth() * width * size_of::<T>();
    let group = (GROUP_BYTES / panel_bytes.max(1)).max(1);
    let (panels, tiles) = (b.columns.div_ceil(width), rows.div_ceil(engine.rows()));
    let mut edge = [T::default(); MAX_ROWS * MAX_COLUMNS];
    for group in (0..panels)
        .step_by(group)
        .map(|first| first..panels.min(first + group))
    {
        for tile in 0..tiles {
            // Rows are dealt out evenly: ten are better done as 5 + 5 than as 8 + 2.
            let range = tile * rows / tiles..(tile + 1) * rows / tiles;
            let mut a = [std::ptr::null(); MAX_ROWS];
            fill(range.clone(), &mut a);
            for panel in group.clone() {
                let columns = width.min(b.columns - panel * width);
                let kernel = engine.kernel(range.len(), columns);
                let c = c.from(range.start, panel * width);
                let b_at = b.at.at().wrapping_add(panel * b.next);
                let mut tile = Tile {
                    a,
                    walk,
                    b: b_at,
                    b_row: b.row,
                    c: c.at,
                    c_row: c.row,
                    columns,
                    mode,
                };
                // SAFETY: what the caller promises.
                unsafe {
                    if c.col == 1 {
                        kernel(&tile);
                    } else {
                        tile.c = edge.as_mut_ptr();
                        tile.c_row = width;
                        beside(&tile, kernel, c, [range.len(), columns]);
                    }
                }
            }
        }
    }
}

/// A tile that is stored transposed: computed in the tile's own memory, then copied.
///
/// # Safety
/// As for [`sweep`].
unsafe fn beside<T: Element>(tile: &Tile<T>, kernel: Kernel<T>, c: Matrix<T>, size: [usize; 2]) {
    let own = Matrix {
        at: tile.c,
        row: tile.c_row,
        col: 1,
    };
    let pairs = || {
        let places = (0..size[0]).flat_map(move |i| (0..size[1]).map(move |j| (i, j)));
        places.map(move |(i, j)| (c.element(i, j), own.element(i, j)))
    };
    // SAFETY: what the caller promises.
    unsafe {
        if tile.mode == Mode::Continue {
            pairs().for_each(|(c, own)| *own = *c);
        }
        let mode = if tile.mode == Mode::Add {
            Mode::Set
        } else {
            tile.mode
        };
        kernel(&Tile { mode, ..*tile });
        match tile.mode {
            Mode::Add => pairs().for_each(|(c, own)| *c += *own),
            Mode::Set | Mode::Continue if c.row == 1 => {
                transpose(size, own, c.transposed());
            }
            Mode::Set | Mode::Continue => pairs().for_each(|(c, own)| *c = *own),
        }
    }
}
