//! Sharing work between the threads of a device.

use std::ops::Range;

/// Work, in element visits, below which handing it to another thread costs more than it saves (about 10 µs).
const GRAIN: usize = 1 << 15;

/// Cuts `out` into pieces of `length`, the last perhaps shorter, and calls `fill(index, piece)` for each, on
/// several threads if that is worth it. `work` is the cost of a piece in element visits.
pub(crate) fn chunks<T: Send>(
    out: &mut [T],
    length: usize,
    work: usize,
    fill: impl Fn(usize, &mut [T]) + Sync,
) {
    if length > 0 {
        split(out, 0, length, work.max(1), &fill);
    }
}

fn split<T: Send>(
    out: &mut [T],
    first: usize,
    length: usize,
    work: usize,
    fill: &(impl Fn(usize, &mut [T]) + Sync),
) {
    let count = out.len().div_ceil(length);
    if count < 2 || count.saturating_mul(work) < 2 * GRAIN {
        out.chunks_mut(length)
            .enumerate()
            .for_each(|(i, out)| fill(first + i, out));
        return;
    }
    let half = count / 2;
    let (left, right) = out.split_at_mut(half * length);
    rayon::join(
        || split(left, first, length, work, fill),
        || split(right, first + half, length, work, fill),
    );
}

/// Calls `visit` with parts of `range` that make up the whole, on several threads if that is worth it. `work`
/// is the cost of one index in element visits.
pub(crate) fn ranges(range: Range<usize>, work: usize, visit: &(impl Fn(Range<usize>) + Sync)) {
    if range.len() < 2 || range.len().saturating_mul(work) < 2 * GRAIN {
        return visit(range);
    }
    let half = range.start + range.len() / 2;
    rayon::join(
        || ranges(range.start..half, work, visit),
        || ranges(half..range.end, work, visit),
    );
}
