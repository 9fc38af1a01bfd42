//! Sharing work between the threads of a device.

/// Work, in element visits, below which handing it to another thread costs more than it saves (about 10 µs).
const GRAIN: usize = 1 << 15;

/// Cuts `out` into rows of `row` elements and calls `fill(index, row)` for each, on several threads if
/// that is worth it. `work` is the cost of a row in element visits.
pub(crate) fn rows<T: Send>(
    out: &mut [T],
    row: usize,
    work: usize,
    fill: impl Fn(usize, &mut [T]) + Sync,
) {
    if row > 0 {
        split(out, 0, row, work.max(1), &fill);
    }
}

fn split<T: Send>(
    out: &mut [T],
    first: usize,
    row: usize,
    work: usize,
    fill: &(impl Fn(usize, &mut [T]) + Sync),
) {
    let count = out.len() / row;
    if count < 2 || count.saturating_mul(work) < 2 * GRAIN {
        out.chunks_exact_mut(row)
            .enumerate()
            .for_each(|(i, out)| fill(first + i, out));
        return;
    }
    let half = count / 2;
    let (left, right) = out.split_at_mut(half * row);
    rayon::join(
        || split(left, first, row, work, fill),
        || split(right, first + half, row, work, fill),
    );
}
