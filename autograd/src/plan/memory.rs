//! Places in the arena: arrays that are never alive at the same time share bytes.
//!
//! To find the smallest arena is NP-hard (dynamic storage allocation: Garey and Johnson 1979, problem SR2).
//! So arrays are placed one after the other, in a few orders; then a search in bounded time looks for a
//! better order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Alignment of every array, in bytes: a cache line.
pub(super) const ALIGN: usize = 64;
/// An array is large if it takes at least 1/`LARGE` of the bytes alive at the fullest launch. Large arrays
/// are placed before all others, and the search moves only them. With 16, arenas of set-ups A and C stay 1
/// to 3 % larger; 128 is no better.
const LARGE: usize = 64;
/// The most comparisons of two arrays for one arena; a comparison takes 3 ns. The largest plan of set-up B
/// needed 9 million until its arena was the least; all others of A to C needed fewer. Few plans get that
/// far, because the search ends at [`CLOSE`].
const COMPARISONS: usize = 1 << 24;
/// The search ends once the arena is larger than the least by at most 1/`CLOSE`. Looking for the rest took
/// 50 ms, half of all planning, for some networks of a search space, and found nothing.
const CLOSE: usize = 1024;

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

/// An offset for each interval, and the size of the arena.
pub(super) fn place(intervals: &[Interval]) -> (Vec<usize>, usize) {
    let alive = alive(intervals);
    let least = alive.iter().copied().max().unwrap_or(0);
    let (order, best) = earliest_first(intervals);
    let mut search = Search {
        intervals,
        least,
        left: COMPARISONS,
        order,
        best,
    };
    search.try_rules(alive);
    search.move_large();
    let mut offsets = vec![0; intervals.len()];
    for array in &search.best.arrays {
        offsets[array.number] = array.offset;
    }
    (offsets, search.best.total)
}

/// An interval that has its place.
struct Placed {
    number: usize,
    offset: usize,
    end: usize,
    first: usize,
    last: usize,
}

/// Intervals that have their places.
#[derive(Default)]
struct Placing {
    /// By offset, while more are added.
    arrays: Vec<Placed>,
    total: usize,
}

/// The best placing so far, the order that it was made in, and the comparisons that are left.
struct Search<'a> {
    intervals: &'a [Interval],
    least: usize,
    left: usize,
    order: Vec<usize>,
    best: Placing,
}

impl Search<'_> {
    fn is_done(&self) -> bool {
        self.best.total - self.least <= self.least / CLOSE || self.left == 0
    }

    /// Gives each of some intervals the lowest place that is free for its whole life. If one would end above `most`
    /// bytes, or too much has been compared, an error says which of them has no place.
    fn fill(&mut self, placing: &mut Placing, order: &[usize], most: usize) -> Result<(), usize> {
        for (at, &number) in order.iter().enumerate() {
            let Interval { first, last, .. } = self.intervals[number];
            let size = self.intervals[number].size();
            let (mut offset, mut compared) = (0, 1);
            for other in &placing.arrays {
                if offset + size <= other.offset {
                    break;
                }
                compared += 1;
                let meets = first <= other.last && other.first <= last;
                offset = offset.max(if meets { other.end } else { 0 });
            }
            let end = offset + size;
            self.left = self.left.saturating_sub(compared);
            if end > most || self.left == 0 {
                return Err(at);
            }
            placing.total = placing.total.max(end);
            let arrays = &mut placing.arrays;
            let above = arrays.partition_point(|other| other.offset <= offset);
            let placed = Placed {
                number,
                offset,
                end,
                first,
                last,
            };
            arrays.insert(above, placed);
        }
        Ok(())
    }

    /// Tries four orders: first the largest, the largest in bytes times lifetime, the longest alive, or
    /// those alive when the most bytes are. None is best for all plans.
    fn try_rules(&mut self, alive: Vec<usize>) {
        let maxima = Maxima::new(alive);
        for rule in 0..4 {
            if self.is_done() {
                return;
            }
            let key = |&i: &usize| {
                let me = &self.intervals[i];
                let first = match rule {
                    0 => me.size(),
                    1 => me.size() * me.length(),
                    2 => me.length(),
                    _ => maxima.within(me.first, me.last),
                };
                (Reverse(first), Reverse(me.size()), me.first)
            };
            let mut order: Vec<usize> = (0..self.intervals.len()).collect();
            order.sort_by_cached_key(key);
            let (mut placing, most) = (Placing::default(), self.best.total - 1);
            if self.fill(&mut placing, &order, most).is_ok() {
                (self.order, self.best) = (order, placing);
            }
        }
    }

    /// Moves one large array after another to a random position in the order (the same numbers in every
    /// run). A move stays if the large arrays need no more memory with it. If they need less than the best
    /// arena so far, the other arrays are placed as well. One of these that finds no place goes first among
    /// them from then on.
    fn move_large(&mut self) {
        let is_large = |&i: &usize| self.intervals[i].size() >= self.least / LARGE;
        let (mut large, mut rest): (Vec<usize>, Vec<usize>) =
            self.order.iter().partition(|i| is_large(i));
        if large.is_empty() {
            std::mem::swap(&mut large, &mut rest);
        }
        // A generator with Knuth's multiplier. The numbers of `rand` may change with its versions, and
        // plans with them.
        let mut random = 1u64;
        let mut below = |n: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % n
        };
        let mut most = usize::MAX;
        while !self.is_done() {
            let mut order = large.clone();
            let mover = order.remove(below(order.len()));
            order.insert(below(large.len()), mover);
            let mut placing = Placing::default();
            if self.fill(&mut placing, &order, most).is_err() {
                continue;
            }
            (large, most) = (order, placing.total);
            if most >= self.best.total {
                continue;
            }
            match self.fill(&mut placing, &rest, self.best.total - 1) {
                Ok(()) => self.best = placing,
                Err(at) => rest[..=at].rotate_right(1),
            }
        }
    }
}

/// Places the arrays by their first launch, the larger first if that is the same. The time grows with the
/// number of arrays and of holes between them.
fn earliest_first(intervals: &[Interval]) -> (Vec<usize>, Placing) {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&i| (intervals[i].first, Reverse(intervals[i].size())));
    let mut placing = Placing::default();
    // Stretches that are free, from where to where; no two of them touch.
    let mut holes = BTreeMap::from([(0, usize::MAX)]);
    // Arrays with places, by their last launch.
    let mut living = BTreeSet::new();
    for &number in &order {
        let Interval { first, last, .. } = intervals[number];
        while let Some(&(until, mut from, mut to)) = living.first()
            && until < first
        {
            living.pop_first();
            if let Some((&before, &end)) = holes.range(..from).next_back()
                && end == from
            {
                from = before;
            }
            to = holes.remove(&to).unwrap_or(to);
            holes.insert(from, to);
        }
        let size = intervals[number].size();
        let fits = |&(&from, &to): &(&usize, &usize)| to - from >= size;
        let (&offset, &to) = holes.iter().find(fits).expect("the last hole has no end");
        let end = offset + size;
        holes.remove(&offset);
        if end < to {
            holes.insert(end, to);
        }
        living.insert((last, offset, end));
        placing.total = placing.total.max(end);
        placing.arrays.push(Placed {
            number,
            offset,
            end,
            first,
            last,
        });
    }
    (order, placing)
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

/// The maxima of all stretches of numbers whose length is a power of two. Two of these cover any stretch.
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
