//! Recomputation inside a computation: less memory for more work.
//!
//! A loss and its gradient take the most memory where the forward pass ends and the backward pass begins:
//! at the *turn*. Of what was made before it, only what is alive at a few *cuts* is kept (activation
//! checkpointing, Chen et al. 2016, arXiv 1604.06174). Everything else is dropped, and recomputed by the
//! same launches when the backward pass reads it. The segment nearest to the turn is never dropped. Of the
//! others, only one is in memory at a time.
//!
//! Nothing is known of layers here. A cut is a place in the order of launches where little is alive.
//! Dynamic programming over the bytes in memory at one time finds the best cuts.

use crate::plan::graph::{Accumulate, Fused, Graph, Item};
use crate::plan::lives::{Life, Lives};
use crate::tape::{Id, Node};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;
use std::rc::Rc;

/// The most places that are considered for cuts. The time of the search grows with its square.
const PLACES: usize = 128;

/// The same launches, with some repeated, so that those before the turn are cut into at most `segments`
/// segments. The graph gets new entries for recomputed results.
pub(super) fn in_segments(graph: &mut Graph, items: Vec<Item>, segments: usize) -> Vec<Item> {
    let lives = Lives::new(graph, &items);
    let turn = turn(&lives, items.len());
    let cuts = Cuts::new(&lives, turn).choose(segments);
    let dropped = dropped(&lives, &cuts, turn);
    if dropped.is_empty() {
        return items;
    }
    Rewrite::new(graph, items, turn, dropped).run()
}

/// Whether an array is made by the launch `cut` or before, and read between it and the turn.
fn crosses((made, life): (usize, &Life), cut: usize, turn: usize) -> bool {
    let next = life.reads.partition_point(|&at| at <= cut);
    made <= cut && life.reads.get(next).is_some_and(|&at| at <= turn)
}

/// The launch at which the most bytes are alive.
fn turn(lives: &Lives, count: usize) -> usize {
    let mut change = vec![0isize; count + 1];
    for (made, life) in lives.in_arena() {
        change[made] += life.bytes as isize;
        change[life.last() + 1] -= life.bytes as isize;
    }
    let (mut alive, mut most, mut turn) = (0, 0, 0);
    for (at, bytes) in change.into_iter().enumerate() {
        alive += bytes;
        if alive > most {
            (most, turn) = (alive, at);
        }
    }
    turn
}

/// The arrays that are made before the last cut and alive at no cut.
fn dropped(lives: &Lives, cuts: &[usize], turn: usize) -> FxHashSet<Id> {
    let end = cuts.last().map_or(0, |&cut| cut + 1);
    let early = lives.in_arena().take_while(|&(made, _)| made < end);
    let lost = early.filter(|&array| !cuts.iter().any(|&cut| crosses(array, cut, turn)));
    lost.map(|(_, life)| life.id).collect()
}

/// Places for cuts, and what segments between them would hold.
struct Cuts {
    /// Launches after which there could be a cut; the turn is the last.
    places: Vec<usize>,
    /// `kept[q][p]`: bytes made after place `p − 1` that a cut at place `q` keeps.
    kept: Vec<Vec<usize>>,
    /// `inner[q][p]`: bytes made after place `p − 1` and before place `q`, read after the turn and not
    /// kept at `q`.
    inner: Vec<Vec<usize>>,
}

impl Cuts {
    fn new(lives: &Lives, turn: usize) -> Self {
        let mut alive = vec![0isize; turn + 2];
        for (made, life) in lives.in_arena().filter(|&(made, _)| made < turn) {
            let early = life.reads.partition_point(|&at| at <= turn);
            if early > 0 {
                alive[made] += life.bytes as isize;
                alive[life.reads[early - 1]] -= life.bytes as isize;
            }
        }
        for at in 1..=turn {
            alive[at] += alive[at - 1];
        }
        // Of every stretch of launches that where the least is alive.
        let stretch = turn.div_ceil(PLACES).max(1);
        let starts = (0..turn).step_by(stretch);
        let mut places: Vec<usize> = starts
            .filter_map(|from| (from..(from + stretch).min(turn)).min_by_key(|&at| alive[at]))
            .collect();
        places.push(turn);
        let (mut kept, mut inner) = (Vec::new(), Vec::new());
        for &place in &places {
            let (mut keeps, mut holds) = (vec![0; places.len() + 1], vec![0; places.len() + 1]);
            for (made, life) in lives.in_arena().take_while(|&(made, _)| made <= place) {
                let first = places.partition_point(|&p| p < made);
                if crosses((made, life), place, turn) {
                    keeps[first] += life.bytes;
                } else if life.last() > turn {
                    holds[first] += life.bytes;
                }
            }
            for sums in [&mut keeps, &mut holds] {
                for p in (0..places.len()).rev() {
                    sums[p] += sums[p + 1];
                }
            }
            kept.push(keeps);
            inner.push(holds);
        }
        Self {
            places,
            kept,
            inner,
        }
    }

    /// The cuts that need the least memory at one time. While a segment is in memory, so is all that is
    /// kept before it.
    fn choose(&self, segments: usize) -> Vec<usize> {
        let end = self.places.len() - 1;
        // For each p: the least from place `p − 1` on, and the next cut (the turn, if there is none). One
        // table for one segment, one for two, and so on.
        let mut least: Vec<(usize, usize)> = (0..=end).map(|p| (self.inner[end][p], end)).collect();
        let mut tables = vec![least.clone()];
        for _ in 1..segments.min(self.places.len()) {
            let best = |p: usize| {
                let through = |q: usize| {
                    let rest = self.kept[q][p] + least[q + 1].0;
                    (rest.max(self.inner[q][p]), q)
                };
                let cut = (p..end).map(through).min();
                cut.map_or(least[p], |cut| cut.min(least[p]))
            };
            least = (0..=end).map(best).collect();
            tables.push(least.clone());
        }
        let (mut cuts, mut from) = (Vec::new(), 0);
        for table in tables.iter().rev() {
            let next = table[from].1;
            if next < end {
                cuts.push(self.places[next]);
                from = next + 1;
            }
        }
        cuts
    }
}

/// Launches being rewritten.
struct Rewrite<'g> {
    graph: &'g mut Graph,
    items: Vec<Item>,
    turn: usize,
    dropped: FxHashSet<Id>,
    /// For each launch before the turn: the part of it that is needed again.
    again: Vec<Option<Item>>,
    /// The early launch that makes a dropped result.
    maker: FxHashMap<Id, usize>,
    /// The copy of a dropped result, and views of such.
    copies: FxHashMap<Id, Id>,
}

impl<'g> Rewrite<'g> {
    fn new(graph: &'g mut Graph, items: Vec<Item>, turn: usize, dropped: FxHashSet<Id>) -> Self {
        let mut rewrite = Self {
            again: vec![None; turn + 1],
            maker: FxHashMap::default(),
            copies: FxHashMap::default(),
            graph,
            items,
            turn,
            dropped,
        };
        rewrite.find_needed();
        rewrite
    }

    /// From the last launch to the first: what reads a dropped result needs it again.
    fn find_needed(&mut self) {
        let mut needed: FxHashSet<Id> = FxHashSet::default();
        for at in (0..self.items.len()).rev() {
            let mut item = &self.items[at];
            if at <= self.turn {
                let computes = Graph::computes(item);
                self.maker.extend(computes.iter().map(|&id| (id, at)));
                if !computes.iter().any(|id| needed.contains(id)) {
                    continue;
                }
                item = self.again[at].insert(match item {
                    Item::Map(fused) => Item::Map(Rc::new(fused.only(|id| needed.contains(&id)))),
                    other => other.clone(),
                });
            }
            let reads = self.graph.reads(item).into_iter();
            needed.extend(reads.filter(|id| self.dropped.contains(id)));
        }
    }

    fn run(mut self) -> Vec<Item> {
        let late = self.items.split_off(self.turn + 1);
        let mut all = self.items.clone();
        for item in late {
            for at in self.missing(&item) {
                let item = self.again[at].take().expect("made again once");
                for &id in Graph::computes(&item) {
                    let copy = self.push(Node::clone(&self.graph.nodes[id]), true);
                    self.copies.insert(id, copy);
                }
                all.push(self.renamed(&item));
            }
            all.push(self.renamed(&item));
        }
        self.graph.without_unread(all)
    }

    /// The launches to repeat before this one, in their order.
    fn missing(&self, item: &Item) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open = self.graph.reads(item);
        while let Some(id) = open.pop() {
            if !self.dropped.contains(&id) || self.copies.contains_key(&id) {
                continue;
            }
            let at = self.maker[&id];
            let again = self.again[at].as_ref().expect("it was found to be needed");
            if found.insert(at) {
                open.extend(self.graph.reads(again));
            }
        }
        found
    }

    fn push(&mut self, node: Node, stored: bool) -> Id {
        self.graph.nodes.push(Rc::new(node));
        self.graph.stored.push(stored);
        self.graph.accumulates.push(None);
        self.graph.pairs.push(None);
        self.graph.nodes.len() - 1
    }

    /// The copy of a result if there is one; views of copies are made as they are met.
    fn name(&mut self, id: Id) -> Id {
        let (mut base, mut views) = (id, Vec::new());
        while !self.graph.stored[base] && !self.copies.contains_key(&base) {
            let Some(&arg) = self.graph.nodes[base].args.first() else {
                return id;
            };
            views.push(base);
            base = arg;
        }
        let Some(&copy) = self.copies.get(&base) else {
            return id;
        };
        let mut name = copy;
        for view in views.into_iter().rev() {
            let mut node = Node::clone(&self.graph.nodes[view]);
            node.args[0] = name;
            name = self.push(node, false);
            self.copies.insert(view, name);
        }
        name
    }

    fn operands(&mut self, id: Id) -> Vec<Id> {
        let args = self.graph.nodes[id].args.clone();
        args.into_iter().map(|arg| self.name(arg)).collect()
    }

    /// A product that a launch forms on its way, on copies.
    fn product(&mut self, id: Id) -> Id {
        let node = Node {
            args: self.operands(id),
            ..Node::clone(&self.graph.nodes[id])
        };
        self.push(node, false)
    }

    /// The launch on copies: its results, where they have some, and its operands.
    fn renamed(&mut self, item: &Item) -> Item {
        match item {
            Item::Map(fused) => {
                let reads = fused.reads.iter();
                Item::Map(Rc::new(Fused {
                    roots: fused.roots.iter().map(|&id| self.name(id)).collect(),
                    map: fused.map.clone(),
                    reads: reads.map(|&(id, offset)| (self.name(id), offset)).collect(),
                }))
            }
            Item::Kernel(id) => {
                let (result, args) = (self.name(*id), self.operands(*id));
                Rc::make_mut(&mut self.graph.nodes[result]).args = args;
                Item::Kernel(result)
            }
            Item::Accumulate(id) => {
                let Accumulate { base, product } = self.graph.accumulate(*id);
                let (result, product) = (self.name(*id), self.product(product));
                let base = self.name(base);
                self.graph.accumulates[result] = Some(Accumulate { base, product });
                Item::Accumulate(result)
            }
            Item::Pair(id) => {
                let products = self.graph.pair(*id);
                let (result, products) = (self.name(*id), products.map(|id| self.product(id)));
                self.graph.pairs[result] = Some(products);
                Item::Pair(result)
            }
        }
    }
}
