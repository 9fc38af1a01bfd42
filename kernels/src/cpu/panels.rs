//! The driver around the micro-kernel: B cut into panels as wide as a tile, C walked tile by tile.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::matrix::Matrix;
use super::microkernel::{Element, Engine, MAX_COLUMNS, MAX_ROWS, Mode, Tile, Walk};
use super::parallel::{Pieces, share};
use super::scratch as thread;
use super::simd::{prefetch_read, prefetch_write};

/// Bytes of the panels of B that stay in the second-level cache while all rows of A pass by. A larger group
/// reads A less often, as long as it fits.
const GROUP_BYTES: usize = 3 << 18;

/// How many rows ahead packing prefetches B.
const AHEAD: usize = 8;

/// Below this many FLOPs (about 10 µs) a thread hand-off costs more than it saves.
const PARALLEL_FLOPS: u64 = 1 << 21;

/// How many threads share a job of so many FLOPs.
pub(super) fn workers(flops: u64) -> usize {
    if flops < PARALLEL_FLOPS {
        1
    } else {
        rayon::current_num_threads()
    }
}

/// Calls `body` for all indices, on the threads of the current pool if that pays.
pub(super) fn for_each(count: usize, flops: u64, body: impl Fn(usize) + Send + Sync) {
    let workers = workers(flops).min(count);
    if workers < 2 {
        (0..count).for_each(body);
    } else {
        share(count, workers, &|pieces: Pieces<'_>| pieces.for_each(&body));
    }
}

/// Memory that starts on a cache line, inside of memory that may not.
pub(super) mod aligned {
    /// Bytes of a cache line.
    pub(crate) const LINE: usize = 64;

    /// Bytes of memory in which so many aligned ones find room.
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

/// Calls `body` with this thread's scratch memory, cut into parts of so many elements. Their contents are
/// arbitrary. Every part starts on a cache line.
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
        // Only a convolution comes here, one that needs so much for a single row of its result. It allocates
        // at every run.
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

// SAFETY: only an address. Whoever makes references from it answers for them.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

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

/// Whether so many rows, so many bytes apart, evict each other from a first-level cache of 64 sets of 8
/// lines.
pub(super) fn compete(rows: usize, bytes: usize) -> bool {
    const SETS: usize = 64;
    let lines = bytes / aligned::LINE;
    // Rows 2ⁿ lines apart come back to a set after 64/2ⁿ rows. Rows that share lines, or lie an odd number of
    // lines apart, use all sets.
    let step = if bytes.is_multiple_of(aligned::LINE) {
        1 << lines.trailing_zeros()
    } else {
        1
    };
    rows > 8 * (SETS / step.min(SETS))
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
    let whole = if b.col == 1 { columns / width } else { 0 };
    for p in (0..depth).take_while(|_| whole > 0) {
        // Row by row, in the order of memory.
        let ahead = b.element((p + AHEAD).min(depth - 1), 0);
        prefetch_read(ahead.cast(), whole * width * size_of::<T>());
        let ends = [b.element(p, 0), to.wrapping_add(p * width)];
        // SAFETY: what the caller promises.
        unsafe { engine.copy(whole, ends, [width, next]) };
    }
    for panel in whole..columns.div_ceil(width) {
        let filled = width.min(columns - panel * width);
        let (b, to) = (b.from(0, panel * width), to.wrapping_add(panel * next));
        // SAFETY: what the caller promises; zero bits are the number zero.
        unsafe {
            if filled < width {
                to.write_bytes(0, depth * width);
            }
            if b.col == 1 {
                for p in 0..depth {
                    b.element(p, 0)
                        .copy_to_nonoverlapping(to.add(p * width), filled);
                }
            } else {
                let to = Matrix {
                    at: to,
                    row: width,
                    col: 1,
                };
                engine.transpose([filled, depth], b.transposed(), to);
            }
        }
    }
    panels
}

/// The product of `rows` rows with B, tile by tile, into C. `fill(range, addresses)` writes the addresses of
/// a range of rows of A. It is called in ascending order, and again for each group of panels.
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
    let panel_bytes = walk.depth * width * size_of::<T>();
    let group = (GROUP_BYTES / panel_bytes.max(1)).max(1);
    let (panels, tiles) = (b.columns.div_ceil(width), rows.div_ceil(engine.rows()));
    for group in (0..panels)
        .step_by(group)
        .map(|first| first..panels.min(first + group))
    {
        let mut next = 0;
        for index in 1..=tiles {
            // Rows are dealt out evenly: ten are better done as 5 + 5 than as 8 + 2.
            let range = next..index * rows / tiles;
            next = range.end;
            let mut tile = Tile {
                a: [std::ptr::null(); MAX_ROWS],
                walk,
                b: std::ptr::null(),
                b_row: b.row,
                c: std::ptr::null_mut(),
                c_row: c.row,
                columns: 0,
                mode,
            };
            fill(range.clone(), &mut tile.a);
            for panel in group.clone() {
                let c = c.from(range.start, panel * width);
                tile.columns = width.min(b.columns - panel * width);
                tile.b = b.at.at().wrapping_add(panel * b.next);
                // SAFETY: what the caller promises.
                unsafe {
                    if c.col == 1 {
                        // Other work may have evicted C: it comes back while the tile is computed.
                        (0..range.len()).for_each(|i| prefetch_row(c.element(i, 0), tile.columns));
                        tile.c = c.at;
                        engine.kernel(range.len(), tile.columns)(&tile);
                    } else {
                        beside(engine, &tile, c, [range.len(), tile.columns]);
                    }
                }
            }
        }
    }
}

/// Asks for a row of a tile, which touches three cache lines at most.
fn prefetch_row<T>(row: *mut T, columns: usize) {
    for column in [0, columns / 2, columns - 1] {
        prefetch_write(row.wrapping_add(column).cast(), 1);
    }
}

/// A tile whose rows are not contiguous in C: computed aside, then copied into C.
///
/// # Safety
/// As for [`sweep`].
unsafe fn beside<T: Element>(engine: &Engine<T>, tile: &Tile<T>, c: Matrix<T>, size: [usize; 2]) {
    // Not filled with zeros: that would take as long as a short tile's products.
    let mut tiles = [const { MaybeUninit::<[T; MAX_ROWS * MAX_COLUMNS]>::uninit() }; 2];
    let [own, turned] = tiles.each_mut().map(|tile| tile.as_mut_ptr().cast::<T>());
    let [own, turned] =
        [(own, MAX_COLUMNS), (turned, MAX_ROWS)].map(|(at, row)| Matrix { at, row, col: 1 });
    let pairs = || {
        let places = (0..size[1]).flat_map(move |j| (0..size[0]).map(move |i| (i, j)));
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
        let own_tile = Tile {
            c: own.at,
            c_row: own.row,
            mode,
            ..*tile
        };
        engine.kernel(size[0], size[1])(&own_tile);
        match tile.mode {
            Mode::Add if c.row == 1 => {
                engine.transpose(size, own, turned);
                for j in 0..size[1] {
                    for i in 0..size[0] {
                        *c.element(i, j) += *turned.element(j, i);
                    }
                }
            }
            Mode::Add => pairs().for_each(|(c, own)| *c += *own),
            Mode::Set | Mode::Continue if c.row == 1 => {
                engine.transpose(size, own, c.transposed());
            }
            Mode::Set | Mode::Continue => pairs().for_each(|(c, own)| *c = *own),
        }
    }
}
