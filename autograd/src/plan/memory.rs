//! Places in the arena: arrays that are never alive at the same time share bytes.

use std::cmp::Reverse;

/// Alignment of every array, in bytes: a cache line.
pub(super) const ALIGN: usize = 64;
/// How often an array that sticks out at the top is given an earlier choice.
const TRIES: usize = 24;
/// How often a large array is moved in the order of choices, at most, and the pairs of arrays that are compared for
/// that, roughly: a tenth of a second.
const SHUFFLES: usize = 1000;
const SHUFFLING: usize = 1 << 25;

/// Bytes that are needed from one launch to another, both included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interval {
    pub(super) bytes: usize,
    pub(super) first: usize,
    pub(super) last: usize,
}

impl Interval {
    fn size(&self) -> usize {
        self.bytes.next_multiple_of(ALIGN)
    }

    fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// An offset for each interval, and the size of the arena: the best of a few placings, none of which is best
/// for all plans (dynamic storage allocation is NP-hard).
///
/// They differ in who chooses first: the largest, the largest over their life, the longest alive, those alive
/// when the most is, or the earliest. Then, as long as more than the least is taken, the array that sticks out at the top
/// chooses before all others.
pub(super) fn place(intervals: &[Interval]) -> (Vec<usize>, usize) {
    let alive = alive(intervals);
    let least = alive.iter().copied().max().unwrap_or(0);
    let mut best = Placing::default();
    for rule in 0..5 {
        let key = |&i: &usize| {
            let me = &intervals[i];
            let life = me.first..=me.last;
            let fullest = || alive[life.clone()].iter().copied().max();
            let first = match rule {
                0 => me.size(),
                1 => me.size() * life.clone().count(),
                2 => life.clone().count(),
                3 => fullest().unwrap_or(0),
                _ => usize::MAX - me.first,
            };
            (Reverse(first), Reverse(me.size()), me.first)
        };
        let mut order: Vec<usize> = (0..intervals.len()).collect();
        order.sort_by_cached_key(key);
        for _ in 0..TRIES {
            let placing = Placing::new(intervals, order.clone());
            let highest = placing.highest(intervals);
            if placing.total < best.total {
                best = placing;
            }
            match highest {
                Some(at) if at > 0 && best.total > least => order[..=at].rotate_right(1),
                _ => break,
            }
        }
        if best.total <= least {
            break;
        }
    }
    best.shuffle(intervals, least);
    (best.offsets, best.total)
}

/// Where intervals lie if they choose in an order.
struct Placing {
    order: Vec<usize>,
    offsets: Vec<usize>,
    total: usize,
}

impl Default for Placing {
    fn default() -> Self {
        Self {
            order: Vec::new(),
            offsets: Vec::new(),
            total: usize::MAX,
        }
    }
}

impl Placing {
    fn new(intervals: &[Interval], order: Vec<usize>) -> Self {
        let (offsets, total) = place_in(intervals, &order);
        Self {
            order,
            offsets,
            total,
        }
    }

    /// The one in the order that sticks out at the top.
    fn highest(&self, intervals: &[Interval]) -> Option<usize> {
        let top = |&i: &usize| self.offsets[i] + intervals[i].size() == self.total;
        self.order.iter().position(top)
    }

    /// Lets large ones choose earlier or later, at random (and always the same), as long as that does no harm; any
    /// if none is large.
    fn shuffle(&mut self, intervals: &[Interval], least: usize) {
        let large = |&i: &usize| intervals[i].size() >= least / 64;
        let all = 0..intervals.len();
        let mut large: Vec<usize> = all.clone().filter(large).collect();
        if large.is_empty() {
            large.extend(all);
        }
        let tries = SHUFFLES.min(SHUFFLING / (1 + intervals.len().pow(2)));
        // Knuth's multiplier, as numbers of `rand` may change with its versions, and plans with them.
        let mut random = 1u64;
        let mut below = |n: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % n
        };
        for _ in 0..tries {
            if self.total <= least + least / 128 {
                return;
            }
            let mut order = self.order.clone();
            let mover = large[below(large.len())];
            order.retain(|&i| i != mover);
            order.insert(below(order.len() + 1), mover);
            let placing = Self::new(intervals, order);
            if placing.total <= self.total {
                *self = placing;
            }
        }
    }
}

/// One after the other at the lowest place that is free for its whole life.
fn place_in(intervals: &[Interval], order: &[usize]) -> (Vec<usize>, usize) {
    let mut offsets = vec![0; intervals.len()];
    // By offset.
    let mut placed: Vec<usize> = Vec::with_capacity(order.len());
    let mut total = 0;
    for &i in order {
        let (me, size) = (intervals[i], intervals[i].size());
        let mut offset = 0;
        for &j in &placed {
            if offset + size <= offsets[j] {
                break;
            }
            if me.meets(&intervals[j]) {
                offset = offset.max(offsets[j] + intervals[j].size());
            }
        }
        offsets[i] = offset;
        total = total.max(offset + size);
        let at = placed.partition_point(|&j| offsets[j] <= offset);
        placed.insert(at, i);
    }
    (offsets, total)
}

/// The bytes alive at each launch.
fn alive(intervals: &[Interval]) -> Vec<usize> {
    let end = intervals.iter().map(|i| i.last + 1).max().unwrap_or(0);
    let mut change = vec![0isize; end + 1];
    for interval in intervals {
        change[interval.first] += interval.size() as isize;
        change[interval.last + 1] -= interval.size() as isize;
    }
    let mut now = 0;
    let at = |bytes: isize| {
        now += bytes;
        now as usize
    };
    change.into_iter().take(end).map(at).collect()
}

/// The least any placement needs: the most bytes alive at one launch.
pub(super) fn lower_bound(intervals: &[Interval]) -> usize {
    alive(intervals).into_iter().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn i(bytes: usize, first: usize, last: usize) -> Interval {
        Interval { bytes, first, last }
    }

    /// The arena of intervals, none of which may overlap another one that lives at the same time.
    fn checked(intervals: &[Interval]) -> usize {
        let (offsets, total) = place(intervals);
        for (a, x) in intervals.iter().enumerate() {
            assert!(offsets[a] % ALIGN == 0 && offsets[a] + x.bytes <= total);
            for (b, y) in intervals.iter().enumerate().take(a) {
                let apart =
                    offsets[a] + x.bytes <= offsets[b] || offsets[b] + y.bytes <= offsets[a];
                assert!(apart || !x.meets(y), "{a} and {b} overlap");
            }
        }
        total
    }

    /// A hundred and more arrays at a time, none of which is large beside all of them.
    #[test]
    fn many_small_arrays_are_placed() {
        let mut state = 1u64;
        let mut below = |n: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % n
        };
        let mut interval = || {
            let first = below(300) as usize;
            i(
                64 * (1 + below(7)) as usize,
                first,
                first + 60 + below(60) as usize,
            )
        };
        let intervals: Vec<Interval> = (0..600).map(|_| interval()).collect();
        let (total, least) = (checked(&intervals), lower_bound(&intervals));
        assert!(intervals.iter().all(|i| i.bytes < least / 64));
        assert!(
            total > least + least / 128,
            "this is about the search: {total} {least}"
        );
        assert!(20 * total <= 21 * least, "{total} {least}");
    }

    #[test]
    fn disjoint_lives_share_bytes_and_overlapping_ones_do_not() {
        let intervals = [i(100, 0, 1), i(64, 1, 2), i(128, 2, 3), i(64, 0, 3)];
        assert_eq!(checked(&intervals), 256);
        assert_eq!(lower_bound(&intervals), 256);
        assert_eq!(lower_bound(&[]), 0);
        assert_eq!(checked(&[]), 0);
    }

    /// By size the two of 128 go to the bottom, and the one that outlives both lies above them; as first it
    /// lies below.
    #[test]
    fn what_sticks_out_chooses_first() {
        let intervals = [i(128, 0, 1), i(192, 3, 4), i(64, 1, 3), i(128, 2, 2)];
        assert_eq!(checked(&intervals), lower_bound(&intervals));
    }

    #[test]
    fn random_lives_never_overlap_and_stay_near_the_least() {
        let mut state = 1u64;
        let mut below = |n: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % n
        };
        for _ in 0..50 {
            let draw = |_| {
                let first = below(60) as usize;
                i(1 + below(5000) as usize, first, first + below(9) as usize)
            };
            let intervals: Vec<Interval> = (0..120).map(draw).collect();
            let (total, least) = (checked(&intervals), lower_bound(&intervals));
            assert!(total * 10 <= least * 12, "{total} of {least}");
        }
    }
}
