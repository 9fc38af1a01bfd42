//! Which element-wise work is done together: from stored entries to launches.

use crate::plan::emit::{Emitter, Refusal, space};
use crate::plan::fuse::CODE_LIMIT;
use crate::plan::graph::{Fused, Graph, Item, Kind, kind};
use crate::plan::sequence::Sequence;
use crate::tape::Id;
use kernels::{Map, StoreKind};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The most programs that a root tries to join. Raising it saves a few more passes over memory, and makes
/// planning slower.
const CANDIDATES: usize = 32;
/// The most programs that a root looks at to find those, and the most launches that may have to be moved
/// before a joined program. It bounds planning time where thousands of programs read one array.
const LOOKS: usize = 1024;
/// In launches. Two roots of one program may be at most this far apart, counted from the first launch and
/// from the last. A program waits for the operands of all its roots, and keeps them until then. For
/// example, a tangent and a cotangent of the first layer read the same array; one program of both would
/// wait for the whole forward pass and half of the backward pass.
const REACH: usize = 8;
/// A factor. A result smaller than its iteration space by this factor or more, such as a sum, may be
/// further apart as counted from the last launch: holding it for long costs little.
const SMALL: usize = 16;

/// All work of a graph as launches, operands first. Gives one or two versions: one with few passes over
/// memory, and one with more passes that may keep less alive at a time. It also stores what no fused
/// program can compute on its way.
pub(super) fn items(graph: &mut Graph) -> Vec<Vec<Item>> {
    let absorbed = absorbed(graph);
    let alone = store_unreachable(graph, &absorbed);
    Groups::new(graph).run(&absorbed, alone)
}

/// For each entry whether another launch computes it on its way.
fn absorbed(graph: &Graph) -> Vec<bool> {
    let mut absorbed = vec![false; graph.nodes.len()];
    let added = graph.accumulates.iter().flatten().map(|a| a.product);
    let paired = graph.pairs.iter().flatten().flatten().copied();
    added.chain(paired).for_each(|id| absorbed[id] = true);
    absorbed
}

/// Whether an entry needs a launch.
fn is_launched(graph: &Graph, absorbed: &[bool], id: Id) -> bool {
    graph.stored[id] && !graph.is_input(id) && graph.shape(id).count() > 0 && !absorbed[id]
}

/// Whether that launch is a fused program.
fn is_fused(graph: &Graph, id: Id) -> bool {
    let own = graph.accumulates[id].is_some() || graph.pairs[id].is_some();
    !own && kind(&graph.nodes[id].op) != Kind::Kernel
}

/// Stores what no fused program can compute on its way, as a view whose elements do not lie on strides. Gives the
/// programs of single roots that it made since it last stored anything.
fn store_unreachable(graph: &mut Graph, absorbed: &[bool]) -> FxHashMap<Id, Fused> {
    let is_root = |graph: &Graph, id| is_launched(graph, absorbed, id) && is_fused(graph, id);
    let roots = (0..graph.nodes.len()).filter(|&id| is_root(graph, id));
    let mut open: BTreeSet<Id> = roots.collect();
    let mut alone = FxHashMap::default();
    while let Some(id) = open.pop_first() {
        let unreachable = match Emitter::fuse(graph, &[id]) {
            Ok(fused) => {
                alone.insert(id, fused);
                continue;
            }
            Err(Refusal::Store(unreachable)) => unreachable,
            Err(Refusal::Conflict) => continue,
        };
        alone.clear();
        for below in unreachable {
            graph.stored[below] = true;
            if is_root(graph, below) {
                open.insert(below);
            }
        }
        open.insert(id);
    }
    alone
}

/// Launches, as far as they are made.
struct Groups<'g> {
    graph: &'g Graph,
    items: Vec<Item>,
    /// An order of them in which operands come first.
    sequence: Sequence,
    /// For each entry: the longest chain of stored entries before it, and the longest after it.
    times: Vec<[usize; 2]>,
    is_out: Vec<bool>,
    /// The launch that computes an entry.
    maker: Vec<Option<usize>>,
    /// The programs that read an array, by the array and the time at which they can run (see `time`).
    readers: FxHashMap<(Id, usize), BTreeSet<usize>>,
}

/// Two programs in one.
struct Joined {
    /// The earlier launch that the later one joins.
    into: usize,
    /// Which of the two is first in the sequence. The joined program takes its place.
    first: usize,
    /// The launches that have to be moved before it.
    before: Vec<usize>,
    fused: Fused,
}

impl<'g> Groups<'g> {
    fn new(graph: &'g Graph) -> Self {
        let mut is_out = vec![false; graph.nodes.len()];
        graph.outs.iter().for_each(|&out| is_out[out] = true);
        Self {
            graph,
            items: Vec::new(),
            sequence: Sequence::default(),
            times: times(graph),
            is_out,
            maker: vec![None; graph.nodes.len()],
            readers: FxHashMap::default(),
        }
    }

    fn run(mut self, absorbed: &[bool], mut alone: FxHashMap<Id, Fused>) -> Vec<Vec<Item>> {
        let graph = self.graph;
        for id in (0..graph.nodes.len()).filter(|&id| is_launched(graph, absorbed, id)) {
            if !is_fused(graph, id) {
                self.push(if graph.accumulates[id].is_some() {
                    Item::Accumulate(id)
                } else if graph.pairs[id].is_some() {
                    Item::Pair(id)
                } else {
                    Item::Kernel(id)
                });
                continue;
            }
            let known = alone
                .remove(&id)
                .map_or_else(|| Emitter::fuse(graph, &[id]), Ok);
            let alone = known.unwrap_or_else(|_| unreachable!("what it needs was stored"));
            if let Some(joined) = self.join(&alone, None) {
                self.sequence.move_before(joined.first, &joined.before);
                self.put(joined.into, Item::Map(Rc::new(joined.fused)));
            } else {
                self.push(Item::Map(Rc::new(alone)));
            }
        }
        let apart = self.ordered();
        self.merge();
        let merged = self.ordered();
        if merged.len() < apart.len() {
            vec![merged, apart]
        } else {
            vec![merged]
        }
    }

    /// Joins programs that share an array only since a later root joined one of them.
    fn merge(&mut self) {
        for later in (0..self.items.len()).rev() {
            let Item::Map(fused) = &self.items[later] else {
                continue;
            };
            let fused = Rc::clone(fused);
            if let Some(joined) = self.join(&fused, Some(later)) {
                self.sequence.move_before(joined.first, &joined.before);
                if joined.first == later {
                    self.sequence.swap(joined.into, later);
                }
                self.sequence.remove(later);
                self.put(joined.into, Item::Map(Rc::new(joined.fused)));
            }
        }
    }

    /// All launches in a sequence in which they can run, without results that are never read.
    fn ordered(&self) -> Vec<Item> {
        let order = self.sequence.order();
        let items = order.map(|index| self.items[index].clone()).collect();
        self.graph.without_unread(items)
    }

    fn push(&mut self, item: Item) {
        self.sequence.push();
        self.items.push(item.clone());
        self.put(self.items.len() - 1, item);
    }

    /// Sets a launch, and notes what it makes and reads.
    fn put(&mut self, index: usize, item: Item) {
        for &id in Graph::computes(&item) {
            self.maker[id] = Some(index);
        }
        if let Item::Map(fused) = &item {
            let time = self.time(fused);
            for id in self.large_reads(fused) {
                self.readers.entry((id, time)).or_default().insert(index);
            }
        }
        self.items[index] = item;
    }

    /// When a program can run, in units of [`REACH`] + 1 launches: programs within reach of each other have
    /// the same time or adjacent ones.
    fn time(&self, fused: &Fused) -> usize {
        let begins = fused.roots.iter().map(|&root| self.times[root][0]);
        begins.min().unwrap_or(0) / (REACH + 1)
    }

    /// The arrays that a program reads element by element.
    fn large_reads(&self, fused: &Fused) -> FxHashSet<Id> {
        let count = space(self.graph, fused.roots[0]).count();
        let reads = fused.reads.iter().map(|&(id, _)| id);
        reads
            .filter(|&id| self.graph.shape(id).count() == count)
            .collect()
    }

    /// The programs before launch `end`, the latest first, that share an array with a program: together they read it once
    /// instead of twice, or not at all.
    fn related(&self, fused: &Fused, end: usize) -> impl Iterator<Item = usize> {
        let makers = fused.reads.iter().filter_map(|&(id, _)| self.maker[id]);
        let makers: BTreeSet<usize> = makers.collect();
        let time = self.time(fused);
        let times = time.saturating_sub(1)..=time + 1;
        let reads = self.large_reads(fused).into_iter();
        let keys = reads.flat_map(|id| times.clone().map(move |time| (id, time)));
        let readers: Vec<&BTreeSet<usize>> =
            keys.filter_map(|key| self.readers.get(&key)).collect();
        let mut end = end;
        std::iter::from_fn(move || {
            let all = readers.iter().copied().chain([&makers]);
            end = all
                .filter_map(|all| all.range(..end).next_back())
                .copied()
                .max()?;
            Some(end)
        })
    }

    /// The latest program that `fused` can join, and the joined program. `own` is the launch of `fused`, if
    /// it has one yet.
    fn join(&self, fused: &Fused, own: Option<usize>) -> Option<Joined> {
        let count = space(self.graph, fused.roots[0]).count();
        let near = |&other: &Id| {
            fused
                .roots
                .iter()
                .all(|&root| self.near(root, other, count))
        };
        let mut tried = 0;
        for into in self
            .related(fused, own.unwrap_or(self.items.len()))
            .take(LOOKS)
        {
            let Item::Map(group) = &self.items[into] else {
                continue;
            };
            if space(self.graph, group.roots[0]).count() != count || !group.roots.iter().all(near) {
                continue;
            }
            tried += 1;
            if tried > CANDIDATES {
                break;
            }
            let place = |launch| self.sequence.place(launch);
            let (first, second) = match own {
                Some(own) if place(own) < place(into) => (own, &**group),
                _ => (into, fused),
            };
            let Some(before) = self.before(second, first) else {
                continue;
            };
            let roots = [&group.roots[..], &fused.roots].concat();
            if let Ok(fused) = Emitter::fuse(self.graph, &roots)
                && fits(&fused.map)
            {
                return Some(Joined {
                    into,
                    first,
                    before,
                    fused,
                });
            }
        }
        None
    }

    /// Whether two roots can share a program: neither waits long for the operands of the other, and a
    /// result that is held for long is small.
    fn near(&self, a: Id, b: Id, count: usize) -> bool {
        let [begin, end] = [0, 1].map(|side| [a, b].map(|id| self.times[id][side]));
        let far = |[a, b]: [usize; 2]| a.abs_diff(b) > REACH;
        let patient = if end[0] < end[1] { a } else { b };
        let small = SMALL * self.graph.shape(patient).count() <= count;
        !far(begin) && (!far(end) || small || self.is_out[patient])
    }

    /// The launches after `first` in the sequence that a program waits for, in their order; `None` if one of them waits for
    /// `first`, so that the two cannot be one, or if there are too many.
    fn before(&self, fused: &Fused, first: usize) -> Option<Vec<usize>> {
        let after = self.sequence.place(first);
        let makers = fused.reads.iter().filter_map(|&(id, _)| self.maker[id]);
        let mut open: Vec<usize> = makers.filter(|&maker| maker != first).collect();
        let mut found = BTreeMap::new();
        while let Some(launch) = open.pop() {
            let place = self.sequence.place(launch);
            if place < after || found.insert(place, launch).is_some() {
                continue;
            }
            if found.len() > LOOKS {
                return None;
            }
            for id in self.graph.reads(&self.items[launch]) {
                match self.maker[id] {
                    Some(maker) if maker == first => return None,
                    maker => open.extend(maker),
                }
            }
        }
        Some(found.into_values().collect())
    }
}

/// Whether a program is short enough; a sum takes three values more on its way.
fn fits(map: &Map) -> bool {
    let sums = map
        .stores
        .iter()
        .filter(|store| store.kind != StoreKind::Full);
    map.code.len() + 3 * sums.count() <= CODE_LIMIT
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
