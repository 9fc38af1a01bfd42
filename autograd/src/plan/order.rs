//! Orders of launches. Bits do not depend on the order, memory does.
//!
//! The least memory of all orders is hard to find (register allocation, Sethi 1975). So a few are made, by
//! rules that each suit some graphs, and the planner lays all of them out and takes the leanest.

use crate::plan::fuse::{Graph, Item};
use crate::plan::layout::Slots;
use crate::tape::Id;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

/// Launches, what each waits for, and what the values between them weigh.
struct Launches {
    /// The launches whose results it reads, and those that read its results.
    before: Vec<Vec<usize>>,
    after: Vec<Vec<usize>>,
    /// The values in the arena that it reads, and those that it makes.
    reads: Vec<Vec<usize>>,
    makes: Vec<Vec<usize>>,
    /// For each value: its bytes, and how many launches read it.
    bytes: Vec<usize>,
    readers: Vec<usize>,
    /// The last entry of the tape that it computes.
    entry: Vec<Id>,
}

/// Orders worth trying, each with operands first.
pub(super) fn orders(graph: &Graph, items: &[Item], slots: &Slots) -> Vec<Vec<Item>> {
    let mut launches = Launches::new(graph, items);
    launches.write_over_late(graph, items, slots);
    let mut orders = vec![launches.list(&launches.entry)];
    let demand = launches.list(&launches.demand());
    if demand != orders[0] {
        orders.push(demand);
    }
    let placed = |order: Vec<usize>| order.iter().map(|&index| items[index].clone()).collect();
    orders.into_iter().map(placed).collect()
}

impl Launches {
    fn new(graph: &Graph, items: &[Item]) -> Self {
        let mut maker: Vec<Option<(usize, usize)>> = vec![None; graph.nodes.len()];
        let (mut bytes, mut makes) = (Vec::new(), Vec::new());
        for (index, item) in items.iter().enumerate() {
            let mut made = Vec::new();
            for &id in Graph::computes(item) {
                maker[id] = Some((index, bytes.len()));
                made.push(bytes.len());
                bytes.push(graph.bytes(id));
            }
            makes.push(made);
        }
        for &out in &graph.outs {
            // Results for the caller lie in his memory.
            if let Some((_, value)) = maker[graph.resolve(out).0] {
                bytes[value] = 0;
            }
        }
        let mut readers = vec![0; bytes.len()];
        let mut after = vec![Vec::new(); items.len()];
        let (mut before, mut reads) = (Vec::new(), Vec::new());
        for (index, item) in items.iter().enumerate() {
            let found = graph.reads(item).into_iter().filter_map(|id| maker[id]);
            let found: BTreeSet<(usize, usize)> = found.collect();
            let mut makers: Vec<usize> = found.iter().map(|&(launch, _)| launch).collect();
            makers.dedup();
            makers.iter().for_each(|&launch| after[launch].push(index));
            found.iter().for_each(|&(_, value)| readers[value] += 1);
            before.push(makers);
            reads.push(found.into_iter().map(|(_, value)| value).collect());
        }
        let last = |item| Graph::computes(item).iter().copied().max().unwrap_or(0);
        let entry = items.iter().map(last).collect();
        Self {
            before,
            after,
            reads,
            makes,
            bytes,
            readers,
            entry,
        }
    }

    /// A result that may go over an input waits for all that read the input: else it would need memory of its
    /// own, and a copy at the end. Only launches that nothing waits for are told to, so there is no cycle.
    fn write_over_late(&mut self, graph: &Graph, items: &[Item], slots: &Slots) {
        let inputs: HashMap<usize, Id> =
            slots.inputs.iter().map(|&(id, slot)| (slot, id)).collect();
        let outs = graph.outs.iter().zip(&slots.outputs);
        let over: HashMap<Id, Id> = outs
            .filter_map(|(&out, slot)| Some((graph.resolve(out).0, *inputs.get(slot)?)))
            .collect();
        let mut readers: HashMap<Id, Vec<usize>> = HashMap::new();
        let mut writers: Vec<(usize, Id)> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let donors = Graph::computes(item).iter().filter_map(|id| over.get(id));
            if self.after[index].is_empty() && donors.clone().next().is_some() {
                writers.extend(donors.map(|&donor| (index, donor)));
                continue;
            }
            for id in graph.reads(item) {
                readers.entry(id).or_default().push(index);
            }
        }
        for (writer, donor) in writers {
            for &reader in readers.get(&donor).into_iter().flatten() {
                if !self.before[writer].contains(&reader) {
                    self.before[writer].push(reader);
                    self.after[reader].push(writer);
                }
            }
        }
    }

    /// List scheduling: again and again one of the launches whose operands are there. Those that free as much
    /// as they take go first; the others, and those among themselves, by rank.
    fn list(&self, rank: &[usize]) -> Vec<usize> {
        let count = self.before.len();
        let mut waits: Vec<usize> = self.before.iter().map(Vec::len).collect();
        let mut left = self.readers.clone();
        let mut ready: Vec<usize> = (0..count).filter(|&i| waits[i] == 0).collect();
        let mut order = Vec::with_capacity(count);
        let takes = |launch: usize, left: &[usize]| {
            let made = self.makes[launch].iter().map(|&v| self.bytes[v]);
            let dying = self.reads[launch].iter().filter(|&&v| left[v] == 1);
            made.sum::<usize>() > dying.map(|&v| self.bytes[v]).sum()
        };
        while !ready.is_empty() {
            let key = |&launch: &usize| (takes(launch, &left), rank[launch], launch);
            let at = (0..ready.len()).min_by_key(|&at| key(&ready[at]));
            let launch = ready.swap_remove(at.unwrap_or(0));
            order.push(launch);
            self.reads[launch].iter().for_each(|&v| left[v] -= 1);
            for &next in &self.after[launch] {
                waits[next] -= 1;
                if waits[next] == 0 {
                    ready.push(next);
                }
            }
        }
        debug_assert_eq!(order.len(), count, "launches form a cycle");
        order
    }

    /// The place of each launch when every result is computed as it is demanded, depth first: the longest way
    /// before the shorter ones, so that what runs beside it (a tangent beside its primal) keeps pace.
    fn demand(&self) -> Vec<usize> {
        let count = self.before.len();
        let mut height = vec![0usize; count];
        for launch in self.list(&self.entry) {
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
        // A stack of launches, each a second time below its operands: it is done when it comes up again.
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
