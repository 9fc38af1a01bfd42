//! When the nodes of a graph run, if as many run side by side as may.

use std::collections::BTreeSet;

/// All vectors are by node. A node that was joined to another keeps its place, where numbers mean nothing.
#[derive(Default)]
pub(super) struct Times {
    /// Each after those that it waits for.
    pub(super) order: Vec<usize>,
    /// Bit j of row i: node j is done before node i begins.
    before: Vec<Vec<u64>>,
    /// Those that wait for it.
    pub(super) followers: Vec<Vec<usize>>,
    /// How long it takes, in the unit of the lengths that were given.
    pub(super) lengths: Vec<u32>,
    /// Its earliest begin.
    pub(super) begins: Vec<u32>,
    /// Its latest end, if the graph is not to take longer.
    pub(super) ends: Vec<u32>,
}

impl Times {
    /// The times of nodes that wait for others and take so long. `None` is a node that was joined to another.
    ///
    /// O(nodes · edges / 64).
    pub(super) fn new(waits: Vec<Option<&BTreeSet<usize>>>, lengths: Vec<u32>) -> Self {
        let count = waits.len();
        let mut times = Self {
            order: Vec::with_capacity(count),
            before: vec![vec![0; count.div_ceil(64)]; count],
            followers: vec![Vec::new(); count],
            lengths,
            begins: vec![0; count],
            ends: Vec::new(),
        };
        let (mut left, mut free) = (vec![0; count], BTreeSet::new());
        for (at, waits) in waits.into_iter().enumerate() {
            let Some(waits) = waits else { continue };
            left[at] = waits.len();
            waits
                .iter()
                .for_each(|&wait| times.followers[wait].push(at));
            if waits.is_empty() {
                free.insert(at);
            }
        }
        while let Some(at) = free.pop_first() {
            times.order.push(at);
            let (own, done) = (times.before[at].clone(), times.done(at));
            for &next in &times.followers[at] {
                let before = &mut times.before[next];
                before
                    .iter_mut()
                    .zip(&own)
                    .for_each(|(to, from)| *to |= from);
                before[at / 64] |= 1 << (at % 64);
                times.begins[next] = times.begins[next].max(done);
                left[next] -= 1;
                if left[next] == 0 {
                    free.insert(next);
                }
            }
        }
        let whole = times.order.iter().map(|&at| times.done(at)).max();
        times.ends = vec![whole.unwrap_or(0); count];
        for &at in times.order.iter().rev() {
            let due = times.followers[at].iter().map(|&next| times.due(next));
            times.ends[at] = due.min().unwrap_or(times.ends[at]);
        }
        times
    }

    /// Whether one node is done before another begins.
    pub(super) fn is_before(&self, one: usize, other: usize) -> bool {
        self.before[other][one / 64] >> (one % 64) & 1 == 1
    }

    /// The earliest end.
    pub(super) fn done(&self, node: usize) -> u32 {
        self.begins[node] + self.lengths[node]
    }

    /// The latest begin.
    pub(super) fn due(&self, node: usize) -> u32 {
        self.ends[node] - self.lengths[node]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_may_wait_while_others_run() {
        let waits = [vec![], vec![0], vec![0], vec![1, 2], vec![]].map(BTreeSet::from_iter);
        let mut all: Vec<_> = waits.iter().map(Some).collect();
        let times = Times::new(all.clone(), vec![1, 5, 2, 1, 3]);
        assert_eq!(times.order, [0, 1, 2, 3, 4]);
        assert_eq!(times.begins, [0, 1, 1, 6, 0]);
        assert_eq!(times.ends, [1, 6, 6, 7, 7]);
        assert!(times.is_before(0, 3) && !times.is_before(3, 0) && !times.is_before(1, 2));
        all[4] = None;
        assert_eq!(Times::new(all, vec![1; 5]).order, [0, 1, 2, 3]);
    }
}
