//! Places in the arena: arrays that are never alive at the same time share bytes.
//!
//! To find the smallest arena is NP-hard (dynamic storage allocation, Garey and Johnson 1979, SR2). So a few placings
//! are made by rules, and the best of them is improved by a search whose time is bounded.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Alignment of every array, in bytes: a cache line.
pub(super) const ALIGN: usize = 64;
/// Placings made under each rule. More find leaner arenas and take more time; of the plans of all set-ups none gains
/// from more than 20.
const TRIES: usize = 24;
/// Random moves that the search tries at most. More find leaner arenas and take more time: after 1000 the largest
/// plan that is above its least (set-up B, outer loss) is 3 % above it, after 100 it is 5 %.
const MOVES: usize = 1000;
/// Pairs of arrays compared for one arena, at most: about a tenth of a second. It bounds the time of plans with
/// thousands of arrays, for which a placing by one rule compares up to half the square of their number.
const COMPARISONS: usize = 1 << 26;

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

    /// How many launches it is alive at.
    fn length(&self) -> usize {
        self.last - self.first + 1
    }
}

/// An offset for each interval, and the size of the arena: the best of a few placings, none of which is best
/// for all plans.
///
/// They differ in who chooses first: the largest, the largest over their life, the longest alive, those alive
/// when the most is, or the earliest. Then, as long as more than the least is taken, the array that sticks out at the
/// top chooses before all others.
pub(super) fn place(intervals: &[Interval]) -> (Vec<usize>, usize) {
    let alive = alive(intervals);
    let least = alive.iter().copied().max().unwrap_or(0);
    let earliest = earliest_first(intervals);
    if earliest.total <= least {
        return (earliest.offsets, earliest.total);
    }
    let mut search = Search {
        intervals,
        least,
        left: COMPARISONS,
        best: Placing {
            total: usize::MAX,
            ..Placing::default()
        },
    };
    let maxima = Maxima::new(alive);
    for rule in 0..5 {
        let key = |&i: &usize| {
            let me = &intervals[i];
            let first = match rule {
                0 => me.size(),
                1 => me.size() * me.length(),
                2 => me.length(),
                3 => maxima.within(me.first, me.last),
                _ => usize::MAX - me.first,
            };
            (Reverse(first), Reverse(me.size()), me.first)
        };
        let mut order: Vec<usize> = (0..intervals.len()).collect();
        order.sort_by_cached_key(key);
        search.promote(order);
    }
    search.shuffle();
    let best = if search.best.total < earliest.total {
        search.best
    } else {
        earliest
    };
    (best.offsets, best.total)
}

/// Where intervals lie if they choose in an order.
#[derive(Default)]
struct Placing {
    order: Vec<usize>,
    offsets: Vec<usize>,
    total: usize,
}

/// An interval that has its place.
struct Placed {
    offset: usize,
    end: usize,
    first: usize,
    last: usize,
}

/// The best placing so far, and the comparisons that are left.
struct Search<'a> {
    intervals: &'a [Interval],
    least: usize,
    left: usize,
    best: Placing,
}

impl Search<'_> {
    /// One after the other at the lowest place that is free for its whole life; `None` if more than `most` bytes or
    /// more comparisons than are left are needed.
    fn placing(&mut self, order: &[usize], most: usize) -> Option<Placing> {
        let mut offsets = vec![0; order.len()];
        // By offset.
        let mut placed: Vec<Placed> = Vec::with_capacity(order.len());
        let mut total = 0;
        for &i in order {
            let (me, size) = (self.intervals[i], self.intervals[i].size());
            let (mut offset, mut compared) = (0, 0);
            for other in &placed {
                if offset + size <= other.offset {
                    break;
                }
                compared += 1;
                if me.first <= other.last && other.first <= me.last {
                    offset = offset.max(other.end);
                }
            }
            let end = offset + size;
            total = total.max(end);
            self.left = self.left.saturating_sub(compared);
            if total > most || self.left == 0 {
                return None;
            }
            offsets[i] = offset;
            let at = placed.partition_point(|other| other.offset <= offset);
            let (first, last) = (me.first, me.last);
            let mine = Placed {
                offset,
                end,
                first,
                last,
            };
            placed.insert(at, mine);
        }
        Some(Placing {
            order: order.to_vec(),
            offsets,
            total,
        })
    }

    /// Lets intervals choose in an order, then again and again the one that sticks out at the top before all others.
    fn promote(&mut self, mut order: Vec<usize>) {
        for _ in 0..TRIES {
            if self.best.total <= self.least {
                return;
            }
            let Some(placing) = self.placing(&order, usize::MAX) else {
                return;
            };
            let end = |i: usize| placing.offsets[i] + self.intervals[i].size();
            let highest = order.iter().position(|&i| end(i) == placing.total);
            if placing.total < self.best.total {
                self.best = placing;
            }
            match highest {
                Some(at) if at > 0 => order[..=at].rotate_right(1),
                _ => return,
            }
        }
    }

    /// Lets large ones choose earlier or later, at random (and always the same), as long as that does no harm; any
    /// if none is large.
    fn shuffle(&mut self) {
        let large = |&i: &usize| self.intervals[i].size() >= self.least / 64;
        let all = 0..self.intervals.len();
        let mut large: Vec<usize> = all.clone().filter(large).collect();
        if large.is_empty() {
            large.extend(all);
        }
        // Knuth's multiplier, as numbers of `rand` may change with its versions, and plans with them.
        let mut random = 1u64;
        let mut below = |n: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % n
        };
        for _ in 0..MOVES {
            if self.best.total <= self.least + self.least / 128 || self.left == 0 {
                return;
            }
            let mut order = self.best.order.clone();
            let mover = large[below(large.len())];
            order.retain(|&i| i != mover);
            order.insert(below(order.len() + 1), mover);
            if let Some(placing) = self.placing(&order, self.best.total) {
                self.best = placing;
            }
        }
    }
}

/// The earliest choose first: in time linear in the arrays, but for the holes between them.
fn earliest_first(intervals: &[Interval]) -> Placing {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&i| (intervals[i].first, Reverse(intervals[i].size())));
    let mut offsets = vec![0; intervals.len()];
    // Free stretches by their begins, none beside another.
    let mut holes = BTreeMap::from([(0, usize::MAX)]);
    let mut living: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut total = 0;
    for &i in &order {
        while let Some(&(last, dead)) = living.first()
            && last < intervals[i].first
        {
            living.pop_first();
            let (mut begin, mut end) = (offsets[dead], offsets[dead] + intervals[dead].size());
            if let Some((&before, &to)) = holes.range(..begin).next_back()
                && to == begin
            {
                begin = before;
            }
            end = holes.remove(&end).unwrap_or(end);
            holes.insert(begin, end);
        }
        let size = intervals[i].size();
        let fits = |&(&begin, &end): &(&usize, &usize)| end - begin >= size;
        let (&begin, &end) = holes.iter().find(fits).expect("the last hole has no end");
        holes.remove(&begin);
        if begin + size < end {
            holes.insert(begin + size, end);
        }
        offsets[i] = begin;
        total = total.max(begin + size);
        living.insert((intervals[i].last, i));
    }
    Placing {
        order,
        offsets,
        total,
    }
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

/// The maxima of all stretches of numbers whose length is a power of two: two of them overlap to any stretch.
struct Maxima(Vec<Vec<usize>>);

impl Maxima {
    fn new(numbers: Vec<usize>) -> Self {
        let mut tables = vec![numbers];
        for half in (0..).map(|power| 1 << power) {
            let last = &tables[tables.len() - 1];
            if last.len() <= half {
                break;
            }
            let pairs = last.iter().zip(&last[half..]);
            let longer = pairs.map(|(&a, &b)| a.max(b)).collect();
            tables.push(longer);
        }
        Self(tables)
    }

    fn within(&self, first: usize, last: usize) -> usize {
        let power = (last - first + 1).ilog2() as usize;
        let table = &self.0[power];
        table[first].max(table[last + 1 - (1 << power)])
    }
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
                assert!(
                    apart || x.last < y.first || y.last < x.first,
                    "{a} and {b} overlap"
                );
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
