//! Places in the arena: arrays that are never alive at the same time share bytes.

/// Alignment of every array, in bytes: a cache line.
pub(super) const ALIGN: usize = 64;

/// Bytes that are needed from one launch to another, both included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval {
    pub(super) bytes: usize,
    pub(super) first: usize,
    pub(super) last: usize,
}

/// An offset for each interval, and the size of the arena. Largest first, each at the lowest place that is
/// free for its whole life.
pub(super) fn place(intervals: &[Interval]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(intervals[i].bytes), intervals[i].first));
    let mut offsets = vec![0; intervals.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut total = 0;
    for i in order {
        let me = intervals[i];
        let size = me.bytes.next_multiple_of(ALIGN);
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|&&j| intervals[j].first <= me.last && me.first <= intervals[j].last)
            .map(|&j| {
                (
                    offsets[j],
                    offsets[j] + intervals[j].bytes.next_multiple_of(ALIGN),
                )
            })
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (begin, end) in taken {
            if offset + size <= begin {
                break;
            }
            offset = offset.max(end);
        }
        offsets[i] = offset;
        total = total.max(offset + size);
        placed.push(i);
    }
    (offsets, total)
}

/// The least any placement needs: the most bytes alive at one launch.
pub(super) fn lower_bound(intervals: &[Interval]) -> usize {
    let last = intervals.iter().map(|i| i.last).max().unwrap_or(0);
    let alive = |at: usize| {
        let bytes = |i: &Interval| i.bytes.next_multiple_of(ALIGN);
        intervals
            .iter()
            .filter(|i| i.first <= at && at <= i.last)
            .map(bytes)
            .sum()
    };
    (0..=last).map(alive).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disjoint_lives_share_bytes_and_overlapping_ones_do_not() {
        let i = |bytes, first, last| Interval { bytes, first, last };
        let intervals = [i(100, 0, 1), i(64, 1, 2), i(128, 2, 3), i(64, 0, 3)];
        let (offsets, total) = place(&intervals);
        for a in 0..4 {
            for b in 0..a {
                let (x, y) = (intervals[a], intervals[b]);
                if x.first <= y.last && y.first <= x.last {
                    let apart =
                        offsets[a] + x.bytes <= offsets[b] || offsets[b] + y.bytes <= offsets[a];
                    assert!(apart, "{a} and {b} overlap");
                }
            }
        }
        assert_eq!(total, 256);
        assert_eq!(lower_bound(&intervals), 256);
    }
}
