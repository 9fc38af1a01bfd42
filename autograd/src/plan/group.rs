//! Which element-wise work is done together: from stored entries to launches.

use crate::plan::emit::{Emitter, Refusal, space};
use crate::plan::fuse::{Fused, Graph, Item, Kind, kind};
use crate::tape::Id;
use std::rc::Rc;

/// A fused program grows to at most this many instructions.
const CODE_LIMIT: usize = 160;
/// How many earlier programs a root may try to join.
const CANDIDATES: usize = 32;
/// How far apart in time roots of one program may be, in launches from the begin and to the end. A program waits for
/// the operands of all its roots: a layer's tangent that is computed with the cotangent of that layer, as both
/// read the same array, would wait for the whole way back, and what was made before is kept meanwhile.
const REACH: usize = 8;
/// How often a result goes into the space it is computed over, to be held for long without harm: a sum.
const SMALL: usize = 16;

/// All work of a graph as launches, in the order of the tape, in one or two ways: in few passes, and in some more
/// that may keep less alive at a time. What proves unreachable by fused programs is stored as well.
pub(super) fn items(graph: &mut Graph) -> Vec<Vec<Item>> {
    loop {
        match Groups::new(graph).run() {
            Ok(items) => return items,
            Err(ids) => ids.into_iter().for_each(|id| graph.stored[id] = true),
        }
    }
}

/// Launches, as far as they are made.
struct Groups<'g> {
    graph: &'g Graph,
    items: Vec<Item>,
    /// For each entry: how many stored ones it waits for, one after the other, and how many wait for it.
    times: Vec<[usize; 2]>,
    /// The launch that computes an entry.
    maker: Vec<Option<usize>>,
}

impl<'g> Groups<'g> {
    fn new(graph: &'g Graph) -> Self {
        Self {
            graph,
            items: Vec::new(),
            times: times(graph),
            maker: vec![None; graph.nodes.len()],
        }
    }

    fn run(mut self) -> Result<Vec<Vec<Item>>, Vec<Id>> {
        let graph = self.graph;
        let added = graph.accumulates.iter().flatten().map(|a| a.product);
        let paired = graph.pairs.iter().flatten().flatten().copied();
        let absorbed: Vec<Id> = added.chain(paired).collect();
        for id in 0..graph.nodes.len() {
            if !graph.stored[id]
                || graph.is_input(id)
                || graph.shape(id).count() == 0
                || absorbed.contains(&id)
            {
                continue;
            }
            if graph.accumulates[id].is_some() {
                self.push(id, Item::Accumulate(id));
            } else if graph.pairs[id].is_some() {
                self.push(id, Item::Pair(id));
            } else if kind(&graph.nodes[id].op) == Kind::Kernel {
                self.push(id, Item::Kernel(id));
            } else {
                let alone = Emitter::fuse(graph, &[id]).map_err(|refusal| match refusal {
                    Refusal::Store(ids) => ids,
                    Refusal::Conflict => unreachable!("a single root cannot read itself"),
                })?;
                if let Some((index, joined)) = self.join(&alone, self.items.len()) {
                    self.items[index] = Item::Map(Rc::new(joined));
                    self.maker[id] = Some(index);
                } else {
                    self.push(id, Item::Map(Rc::new(alone)));
                }
            }
        }
        let apart = self.items.clone();
        self.merge();
        let merged = self.items.len() < apart.len();
        let ways = [self.items, apart].into_iter();
        Ok(ways.take(1 + usize::from(merged)).collect())
    }

    /// Makes one program of two that a later root has related.
    fn merge(&mut self) {
        let mut gone = vec![false; self.items.len()];
        for later in (0..self.items.len()).rev() {
            let Item::Map(group) = &self.items[later] else {
                continue;
            };
            let Some((index, joined)) = self.join(group, later) else {
                continue;
            };
            for &root in &joined.roots {
                self.maker[root] = Some(index);
            }
            self.items[index] = Item::Map(Rc::new(joined));
            gone[later] = true;
        }
        let mut gone = gone.into_iter();
        self.items.retain(|_| gone.next() == Some(false));
    }

    fn push(&mut self, id: Id, item: Item) {
        self.maker[id] = Some(self.items.len());
        self.items.push(item);
    }

    /// The nearest map before the `end`-th launch that `new` can become a part of, and both together.
    fn join(&self, new: &Fused, end: usize) -> Option<(usize, Fused)> {
        let count = space(self.graph, new.roots[0]).count();
        let near = |&other: &Id| new.roots.iter().all(|&root| self.near(root, other, count));
        let mut tried = 0;
        for index in (0..end).rev() {
            let Item::Map(group) = &self.items[index] else {
                continue;
            };
            if space(self.graph, group.roots[0]).count() != count
                || !group.roots.iter().all(near)
                || !related(self.graph, group, new, count)
            {
                continue;
            }
            tried += 1;
            if tried > CANDIDATES {
                break;
            }
            if self.comes_after(new, index)
                || end < self.items.len() && self.comes_after(group, end)
            {
                continue;
            }
            let roots = [&group.roots[..], &new.roots].concat();
            if let Ok(joined) = Emitter::fuse(self.graph, &roots)
                && joined.map.code.len() <= CODE_LIMIT
            {
                return Some((index, joined));
            }
        }
        None
    }

    /// Whether two roots can be computed at one time: neither waits long for the operands of the other, and what is
    /// made early for it is not large.
    fn near(&self, a: Id, b: Id, count: usize) -> bool {
        let [begin, end] = [0, 1].map(|side| [a, b].map(|id| self.times[id][side]));
        let far = |[a, b]: [usize; 2]| a.abs_diff(b) > REACH;
        let patient = if end[0] < end[1] { a } else { b };
        let small = SMALL * self.graph.shape(patient).count() <= count;
        !far(begin) && (!far(end) || small || self.graph.outs.contains(&patient))
    }

    /// Whether something between them needs launch `index` first and is needed by the new map.
    fn comes_after(&self, new: &Fused, index: usize) -> bool {
        let mut seen = vec![false; self.items.len()];
        let made = new.reads.iter().filter_map(|&(id, _)| self.maker[id]);
        let mut open: Vec<usize> = made.filter(|&i| i != index).collect();
        while let Some(item) = open.pop() {
            if std::mem::replace(&mut seen[item], true) {
                continue;
            }
            let reads = self.graph.reads(&self.items[item]).into_iter();
            for dependency in reads.filter_map(|id| self.maker[id]) {
                if dependency == index {
                    return true;
                }
                open.push(dependency);
            }
        }
        false
    }
}

fn times(graph: &Graph) -> Vec<[usize; 2]> {
    let mut times = vec![[0; 2]; graph.nodes.len()];
    for (id, node) in graph.nodes.iter().enumerate() {
        for &arg in &node.args {
            times[id][0] = times[id][0].max(times[arg][0] + usize::from(graph.stored[arg]));
        }
    }
    for (id, node) in graph.nodes.iter().enumerate().rev() {
        let after = times[id][1] + usize::from(graph.stored[id]);
        for &arg in &node.args {
            times[arg][1] = times[arg][1].max(after);
        }
    }
    times
}

/// Joining pays when an array is read once instead of twice, or not at all.
fn related(graph: &Graph, group: &Fused, new: &Fused, count: usize) -> bool {
    let large = |id: Id| graph.shape(id).count() == count;
    new.reads.iter().any(|&(id, _)| {
        group.roots.contains(&id)
            || (large(id) && group.reads.iter().any(|&(other, _)| other == id))
    })
}
