//! Which results reach memory.
//!
//! Results of kernels are *stored*. Everything element-wise (and every view) is computed where it is read,
//! unless that would do too much work twice. Stored element-wise results and sums are *roots*: one or more
//! roots over one iteration space become one [`Map`] (`group.rs`).

use crate::op::Op;
use crate::tape::{Id, Node};
use kernels::{Binary, Instr, Map, Store};
use std::rc::Rc;
use tensor::{DType, Shape};

/// The entries of a simplified tape and what is decided about them.
#[derive(Clone)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Rc<Node>>,
    pub(super) outs: Vec<Id>,
    /// Whether the result of an entry is in memory of its own.
    pub(super) stored: Vec<bool>,
    /// A sum whose second term is a product used nowhere else: the product is added in place.
    pub(super) accumulates: Vec<Option<Accumulate>>,
    /// A sum of two products of equal shapes that nothing else needs, as a tangent is: one kernel does it all.
    pub(super) pairs: Vec<Option<[Id; 2]>>,
}

/// `sum = base + product`, done by the product's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accumulate {
    pub(super) base: Id,
    pub(super) product: Id,
}

/// One launch.
#[derive(Clone, Debug)]
pub(super) enum Item {
    /// A fused element-wise program computing these roots.
    Map(Rc<Fused>),
    /// A kernel of its own: the entry.
    Kernel(Id),
    /// A contraction added in place: the entry of the sum.
    Accumulate(Id),
    /// Two contractions and their sum: the entry of the sum.
    Pair(Id),
}

/// A [`Map`] and the entries that it reads and computes.
#[derive(Clone, Debug)]
pub(super) struct Fused {
    pub(super) roots: Vec<Id>,
    pub(super) map: Map,
    /// For each load: the stored entry and the element that it begins at.
    pub(super) reads: Vec<(Id, usize)>,
}

impl Fused {
    /// The part of the program that computes some of the roots.
    pub(super) fn only(&self, wanted: impl Fn(Id) -> bool) -> Self {
        let pairs = self.roots.iter().zip(&self.map.stores);
        let (roots, stores): (Vec<Id>, Vec<Store>) = pairs
            .filter(|(id, _)| wanted(**id))
            .map(|(id, store)| (*id, store.clone()))
            .unzip();
        let mut map = Map {
            stores,
            ..self.map.clone()
        };
        let used = map.needed();
        let (mut loads, mut reads, mut code) = (Vec::new(), Vec::new(), Vec::new());
        let mut moved = vec![usize::MAX; map.code.len()];
        for (at, instruction) in map.code.iter().enumerate().filter(|(at, _)| used[*at]) {
            moved[at] = code.len();
            code.push(match *instruction {
                Instr::Load(load) => {
                    loads.push(map.loads[load].clone());
                    reads.push(self.reads[load]);
                    Instr::Load(loads.len() - 1)
                }
                other => other.with_operands(|operand| moved[operand]),
            });
        }
        for store in &mut map.stores {
            store.value = moved[store.value];
        }
        (map.loads, map.code) = (loads, code);
        Self { roots, map, reads }
    }
}

/// Work per element from which a value that is read several times is stored (in additions).
const RECOMPUTE_LIMIT: usize = 6;
/// Arrays from which a value that is read several times is stored.
const REREAD_LIMIT: usize = 3;
/// Launches that an array may wait for others that it is added to.
const WAIT: usize = 8;

impl Graph {
    pub(super) fn new(nodes: Vec<Node>, outs: Vec<Id>) -> Self {
        let count = nodes.len();
        let mut graph = Self {
            nodes: nodes.into_iter().map(Rc::new).collect(),
            outs,
            stored: vec![false; count],
            accumulates: vec![None; count],
            pairs: vec![None; count],
        };
        graph.store_what_must_be();
        graph.find_accumulations();
        graph.store_what_pays();
        graph
    }

    pub(super) fn shape(&self, id: Id) -> &Shape {
        &self.nodes[id].shape
    }

    pub(super) fn bytes(&self, id: Id) -> usize {
        self.shape(id).count() * self.nodes[id].dtype.size()
    }

    pub(super) fn is_input(&self, id: Id) -> bool {
        matches!(self.nodes[id].op, Op::Input(..))
    }

    /// The stored entry that holds the numbers of `id` contiguously, and the element they begin at.
    pub(super) fn resolve(&self, id: Id) -> (Id, usize) {
        let (mut id, mut offset) = (id, 0);
        while !self.stored[id] {
            let node = &self.nodes[id];
            match self.contiguous(id) {
                Some(start) => {
                    offset += start;
                    id = node.args[0];
                }
                None => break,
            }
        }
        (id, offset)
    }

    /// Where a view begins in its operand, if it is a stretch of it.
    fn contiguous(&self, id: Id) -> Option<usize> {
        let node = &self.nodes[id];
        match &node.op {
            Op::Reshape => Some(0),
            Op::Slice(start) => {
                let whole = self.shape(node.args[0]);
                let first = (0..whole.len()).find(|&a| node.shape[a] != whole[a])?;
                let single = node.shape[..first].iter().all(|&n| n == 1);
                let full = (first + 1..whole.len()).all(|a| node.shape[a] == whole[a]);
                let begin = start
                    .iter()
                    .zip(whole.strides())
                    .map(|(s, stride)| s * stride)
                    .sum();
                (single && full).then_some(begin)
            }
            _ => None,
        }
    }

    /// Kernels, their operands, and outputs.
    fn store_what_must_be(&mut self) {
        for id in 0..self.nodes.len() {
            if matches!(
                kind(&self.nodes[id].op),
                Kind::Input | Kind::Kernel | Kind::Sum
            ) {
                self.stored[id] = true;
            }
        }
        for id in 0..self.nodes.len() {
            let node = &self.nodes[id];
            match kind(&node.op) {
                Kind::Kernel => {
                    for arg in node.args.clone() {
                        self.store_base(arg);
                    }
                }
                Kind::Pointwise => {
                    let Op::Cast(to) = node.op else { continue };
                    let arg = node.args[0];
                    let works = matches!(to, DType::F32 | DType::F64);
                    if works && self.nodes[arg].dtype != to {
                        // A map computes in one type: whatever comes from another is read from memory.
                        self.store_origin(arg);
                    }
                    self.stored[id] |= !works;
                }
                _ => {}
            }
        }
        for out in self.outs.clone() {
            let mut base = out;
            while self.nodes[base].op == Op::Reshape {
                base = self.nodes[base].args[0];
            }
            self.stored[base] = true;
        }
    }

    fn store_base(&mut self, id: Id) {
        let (base, _) = self.resolve(id);
        self.stored[base] = true;
    }

    /// Stores what a chain of views looks at.
    fn store_origin(&mut self, id: Id) {
        let mut base = id;
        while kind(&self.nodes[base].op) == Kind::View {
            base = self.nodes[base].args[0];
        }
        self.stored[base] = true;
    }

    /// Sums of which one term is a contraction that nothing else needs.
    fn find_accumulations(&mut self) {
        let uses = self.uses();
        for id in 0..self.nodes.len() {
            if self.nodes[id].op != Op::Binary(Binary::Add) {
                continue;
            }
            let [a, b] = [self.nodes[id].args[0], self.nodes[id].args[1]];
            let product = |arg: Id| {
                let mut product = arg;
                let mut alone = uses[product] == 1;
                while self.nodes[product].op == Op::Reshape && !self.stored[product] {
                    product = self.nodes[product].args[0];
                    alone &= uses[product] == 1;
                }
                let contraction = self.nodes[product].op.is_contraction();
                (alone && contraction && !self.outs.contains(&product)).then_some(product)
            };
            let found = match (product(a), product(b)) {
                (Some(p), Some(q)) if self.nodes[p].op == self.nodes[q].op => {
                    self.pairs[id] = Some([p.min(q), p.max(q)]);
                    self.stored[id] = true;
                    None
                }
                (Some(p), Some(q)) if q < p => Some((b, p)),
                (_, Some(q)) => Some((a, q)),
                (Some(p), None) => Some((b, p)),
                (None, None) => None,
            };
            let Some((base, product)) = found else {
                continue;
            };
            let (origin, _) = self.resolve(base);
            if self.stored[origin] {
                self.accumulates[id] = Some(Accumulate { base, product });
                self.stored[id] = true;
            }
        }
    }

    /// How many entries read each entry, looking through views.
    fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.nodes.len()];
        for &out in &self.outs {
            uses[out] += 1;
        }
        for id in (0..self.nodes.len()).rev() {
            let node = &self.nodes[id];
            let through = kind(&node.op) == Kind::View && !self.stored[id];
            let count = if through { uses[id] } else { 1 };
            for &arg in &node.args {
                uses[arg] += count;
            }
        }
        uses
    }

    /// Element-wise values that would cost too much to compute again at every reader.
    fn store_what_pays(&mut self) {
        let (uses, readers) = (self.uses(), self.readers());
        let mut work = vec![0usize; self.nodes.len()];
        let mut arrays: Vec<Vec<Id>> = vec![Vec::new(); self.nodes.len()];
        // For each entry: how many launches it waits for, and the same of the first array it is computed from.
        let mut times = vec![[0, usize::MAX]; self.nodes.len()];
        for id in 0..self.nodes.len() {
            if self.nodes[id].op == Op::Binary(Binary::Add) {
                self.store_partial_sum(id, &times, &arrays);
            }
            times[id] = self.times(id, &times);
            let node = &self.nodes[id];
            let mut total = weight(&node.op);
            let mut read: Vec<Id> = Vec::new();
            for &arg in &node.args {
                if self.stored[arg] {
                    read.push(arg);
                } else {
                    total += work[arg];
                    read.extend(&arrays[arg]);
                }
            }
            read.retain(|&r| self.shape(r).count() >= node.shape.count());
            read.sort_unstable();
            read.dedup();
            let pointwise = kind(&node.op) == Kind::Pointwise;
            // A read converts at no cost.
            let converts = matches!(node.op, Op::Cast(_)) && self.stored[node.args[0]];
            let grows = pointwise && !converts && self.grows_at(&readers, id);
            let costly = total > RECOMPUTE_LIMIT || read.len() >= REREAD_LIMIT;
            let repeated = if node.shape.count() == 1 {
                total > 2 * RECOMPUTE_LIMIT
            } else {
                grows
            };
            if pointwise && (repeated || (uses[id] > 1 && costly)) {
                self.stored[id] = true;
            }
            work[id] = total;
            arrays[id] = read;
        }
    }

    fn times(&self, id: Id, times: &[[usize; 2]]) -> [usize; 2] {
        let args = self.nodes[id].args.iter();
        args.fold([0, usize::MAX], |[last, first], &arg| {
            if self.stored[arg] {
                let made = !self.is_input(arg);
                let since = if made { times[arg][0] } else { usize::MAX };
                [last.max(times[arg][0] + 1), first.min(since)]
            } else {
                [last.max(times[arg][0]), first.min(times[arg][1])]
            }
        })
    }

    /// The terms of a long sum that come one after the other are added as they come: otherwise all of them would
    /// wait for the last.
    fn store_partial_sum(&mut self, id: Id, times: &[[usize; 2]], arrays: &[Vec<Id>]) {
        let args = [self.nodes[id].args[0], self.nodes[id].args[1]];
        for (partial, term) in [(args[0], args[1]), (args[1], args[0])] {
            let waits = times[term][0] > times[partial][1].saturating_add(WAIT);
            let sum = self.nodes[partial].op == Op::Binary(Binary::Add);
            if sum && waits && arrays[partial].len() >= REREAD_LIMIT {
                self.stored[partial] = true;
            }
        }
    }

    /// The entries that read each entry.
    fn readers(&self) -> Vec<Vec<Id>> {
        let mut readers = vec![Vec::new(); self.nodes.len()];
        for (id, node) in self.nodes.iter().enumerate() {
            node.args.iter().for_each(|&arg| readers[arg].push(id));
        }
        readers
    }

    /// Whether a reader repeats the value for many elements of its own.
    fn grows_at(&self, readers: &[Vec<Id>], id: Id) -> bool {
        readers[id]
            .iter()
            .any(|&reader| match self.nodes[reader].op {
                Op::Broadcast => self.shape(reader).count() > self.shape(id).count(),
                Op::Reshape => !self.stored[reader] && self.grows_at(readers, reader),
                _ => false,
            })
    }

    /// The stored entries that a launch reads.
    pub(super) fn reads(&self, item: &Item) -> Vec<Id> {
        let bases = |args: &[Id]| {
            args.iter()
                .map(|&arg| self.resolve(arg).0)
                .collect::<Vec<_>>()
        };
        match item {
            Item::Map(fused) => fused.reads.iter().map(|&(id, _)| id).collect(),
            Item::Kernel(id) => bases(&self.nodes[*id].args),
            Item::Pair(id) => bases(&self.factors(*id)),
            Item::Accumulate(id) => {
                let Accumulate { base, product } = self.accumulate(*id);
                let mut reads = bases(&self.nodes[product].args);
                reads.push(self.resolve(base).0);
                reads
            }
        }
    }

    /// What an accumulating launch adds up.
    pub(super) fn accumulate(&self, id: Id) -> Accumulate {
        self.accumulates[id].expect("an accumulating entry")
    }

    /// The two products of a pair.
    pub(super) fn pair(&self, id: Id) -> [Id; 2] {
        self.pairs[id].expect("an entry of a pair")
    }

    /// What the products of a pair are made of.
    pub(super) fn factors(&self, id: Id) -> Vec<Id> {
        let args = self.pair(id).map(|product| &self.nodes[product].args[..]);
        args.concat()
    }

    /// The stored entries that a launch computes.
    pub(super) fn computes(item: &Item) -> &[Id] {
        match item {
            Item::Map(fused) => &fused.roots,
            Item::Kernel(id) | Item::Accumulate(id) | Item::Pair(id) => std::slice::from_ref(id),
        }
    }
}

/// What the planner does with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Input,
    /// Constants and counters: never in memory unless something asks.
    Free,
    Pointwise,
    View,
    Sum,
    Kernel,
}

pub(crate) fn kind(op: &Op) -> Kind {
    match op {
        Op::Input(..) => Kind::Input,
        Op::Const(_) | Op::Iota(_) | Op::Perturbation(_) => Kind::Free,
        Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast(_) => Kind::Pointwise,
        Op::StopGradient | Op::StraightThrough => Kind::Pointwise,
        Op::Reshape | Op::Permute(_) | Op::Broadcast | Op::Slice(_) => Kind::View,
        Op::Sum(_) => Kind::Sum,
        Op::Kernel(_) => Kind::Kernel,
    }
}

/// Work of one element, in additions.
fn weight(op: &Op) -> usize {
    match op {
        Op::Unary(f) => f.cost(),
        Op::Binary(f) => f.cost(),
        Op::Select | Op::Cast(_) => 1,
        Op::Permute(_) => 4,
        _ => 0,
    }
}
