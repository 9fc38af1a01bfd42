//! Orders of launches. Bits do not depend on the order, memory does.
//!
//! The least memory of all orders is hard to find (register allocation, Sethi 1975). So a few are made, by
//! rules that each suit some graphs, and the planner lays all of them out and takes the leanest.

use crate::plan::graph::{Graph, Item};
use crate::plan::lives::Lives;
use crate::plan::places::Slots;
use crate::tape::Id;
use rustc_hash::{FxHashMap, FxHashSet};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Launches, and what each waits for.
struct Launches {
    lives: Lives,
    /// The launches whose results it reads, and those that read its results.
    before: Vec<Vec<usize>>,
    after: Vec<Vec<usize>>,
    /// The last entry of the tape that it computes.
    entry: Vec<Id>,
}

/// Orders worth trying, each with operands first.
pub(super) fn orders(graph: &Graph, items: &[Item], slots: &Slots) -> Vec<Vec<Item>> {
    let mut launches = Launches::new(graph, items);
    launches.write_over_late(graph, slots);
    let tape = launches.list(&launches.entry);
    let demand = launches.list(&launches.demand(&tape));
    let orders = if demand == tape {
        vec![tape]
    } else {
        vec![tape, demand]
    };
    let placed = |order: Vec<usize>| order.iter().map(|&index| items[index].clone()).collect();
    orders.into_iter().map(placed).collect()
}

impl Launches {
    fn new(graph: &Graph, items: &[Item]) -> Self {
        let lives = Lives::new(graph, items);
        let mut after = vec![Vec::new(); items.len()];
        let mut before = Vec::with_capacity(items.len());
        for launch in 0..items.len() {
            let reads = lives.reads(launch).iter();
            let mut makers: Vec<usize> = reads.filter_map(|&v| lives.all()[v].made).collect();
            makers.sort_unstable();
            makers.dedup();
            makers.iter().for_each(|&maker| after[maker].push(launch));
            before.push(makers);
        }
        let last = |item| Graph::computes(item).iter().copied().max().unwrap_or(0);
        Self {
            lives,
            before,
            after,
            entry: items.iter().map(last).collect(),
        }
    }

    /// A result that may be written over an input waits for all readers of that input. Otherwise it would
    /// need memory of its own, and a copy at the end. Only launches that nothing waits for are held back,
    /// so there is no cycle.
    fn write_over_late(&mut self, graph: &Graph, slots: &Slots) {
        let inputs: FxHashMap<usize, Id> =
            slots.inputs.iter().map(|&(id, slot)| (slot, id)).collect();
        let mut waits: Vec<(usize, Id)> = Vec::new();
        for (&out, slot) in graph.outs.iter().zip(&slots.outputs) {
            let writer = self.lives.maker(graph.resolve(out).0);
            let writer = writer.filter(|&writer| self.after[writer].is_empty());
            waits.extend(writer.zip(inputs.get(slot).copied()));
        }
        let writers: FxHashSet<usize> = waits.iter().map(|&(writer, _)| writer).collect();
        for (writer, donor) in waits {
            let known: FxHashSet<usize> = self.before[writer].iter().copied().collect();
            let reads = self.lives.of(donor).map_or(&[][..], |life| &life.reads);
            for &reader in reads {
                if !writers.contains(&reader) && !known.contains(&reader) {
                    self.before[writer].push(reader);
                    self.after[reader].push(writer);
                }
            }
        }
    }

    /// List scheduling: takes one ready launch after another, that is one whose operands are computed.
    /// Launches that free at least as many bytes as they take go first. Among equals, the rank decides.
    fn list(&self, rank: &[usize]) -> Vec<usize> {
        let arrays = self.lives.all();
        let mut waits: Vec<usize> = self.before.iter().map(Vec::len).collect();
        let mut left: Vec<usize> = arrays.iter().map(|life| life.reads.len()).collect();
        let key = |launch: usize, left: &[usize]| {
            let made = self.lives.makes(launch).iter().map(|life| life.bytes);
            let reads = self.lives.reads(launch).iter();
            let dying = reads.filter(|&&v| left[v] == 1).map(|&v| arrays[v].bytes);
            (made.sum::<usize>() > dying.sum(), rank[launch], launch)
        };
        let ready = (0..waits.len()).filter(|&launch| waits[launch] == 0);
        let mut ready: BTreeSet<_> = ready.map(|launch| key(launch, &left)).collect();
        let mut order = Vec::with_capacity(waits.len());
        while let Some((_, _, launch)) = ready.pop_first() {
            order.push(launch);
            for &v in self.lives.reads(launch) {
                left[v] -= 1;
                if left[v] != 1 || arrays[v].bytes == 0 {
                    continue;
                }
                // The last that reads it will free it.
                for &reader in &arrays[v].reads {
                    if ready.remove(&(true, rank[reader], reader)) {
                        ready.insert(key(reader, &left));
                    }
                }
            }
            for &next in &self.after[launch] {
                waits[next] -= 1;
                if waits[next] == 0 {
                    ready.insert(key(next, &left));
                }
            }
        }
        debug_assert_eq!(order.len(), waits.len(), "launches form a cycle");
        order
    }

    /// The rank of each launch if every result is computed on demand, depth first. The operand with the
    /// longest chain of launches comes first, so that what runs beside it (a tangent beside its primal)
    /// keeps pace. `order` is any order in which operands come first.
    fn demand(&self, order: &[usize]) -> Vec<usize> {
        let count = self.before.len();
        let mut height = vec![0usize; count];
        for &launch in order {
            let below = self.before[launch].iter().map(|&b| height[b] + 1).max();
            height[launch] = below.unwrap_or(0);
        }
        let mut last: Vec<usize> = (0..count).filter(|&i| self.after[i].is_empty()).collect();
        let shallow_first = |list: &mut Vec<usize>| {
            list.sort_unstable_by_key(|&launch| (height[launch], Reverse(self.entry[launch])));
        };
        shallow_first(&mut last);
        let mut rank = vec![usize::MAX; count];
        let mut done = 0;
        // A stack. Each launch is pushed once more below its operands, and is done when it comes up again.
        let mut open: Vec<(usize, bool)> = last.into_iter().map(|launch| (launch, false)).collect();
        while let Some((launch, complete)) = open.pop() {
            if rank[launch] < usize::MAX {
                continue;
            }
            if complete {
                rank[launch] = done;
                done += 1;
                continue;
            }
            open.push((launch, true));
            let mut operands = self.before[launch].clone();
            shallow_first(&mut operands);
            open.extend(operands.into_iter().map(|operand| (operand, false)));
        }
        rank
    }
}
