//! Entries of a tape and the launches that compute them.

use crate::op::Op;
use crate::tape::{Id, Node};
use kernels::{Instr, Kernel, Map, Store};
use std::rc::Rc;
use tensor::Shape;

/// The entries of a simplified tape and what is decided about them.
#[derive(Clone)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Rc<Node>>,
    pub(super) outs: Vec<Id>,
    /// Whether the result of an entry is in memory of its own.
    pub(super) stored: Vec<bool>,
    /// For each entry: if it is a sum with a product used nowhere else, the product's kernel adds to the
    /// other term in place.
    pub(super) accumulates: Vec<Option<Accumulate>>,
    /// For each entry: if it is a sum of two such products of equal shapes, as the tangent of a product is,
    /// one kernel computes both and adds them.
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

impl Graph {
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

    /// The same launches, in the same order, without results that are never read and without what only
    /// these need.
    pub(super) fn without_unread(&self, items: Vec<Item>) -> Vec<Item> {
        let mut is_read = vec![false; self.nodes.len()];
        self.outs
            .iter()
            .for_each(|&out| is_read[self.resolve(out).0] = true);
        let mut kept = Vec::with_capacity(items.len());
        for mut item in items.into_iter().rev() {
            let made = Self::computes(&item).iter();
            let unread = made.filter(|&&id| !is_read[id]).count();
            if unread == Self::computes(&item).len() {
                continue;
            }
            if let Item::Map(fused) = &mut item
                && unread > 0
            {
                *fused = Rc::new(fused.only(|id| is_read[id]));
            }
            self.reads(&item)
                .into_iter()
                .for_each(|id| is_read[id] = true);
            kept.push(item);
        }
        kept.reverse();
        kept
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

    /// The kernel of a launch.
    pub(super) fn kernel(&self, item: &Item) -> Kernel {
        let of = |id: Id| match &self.nodes[id].op {
            Op::Kernel(kernel) => kernel,
            op => unreachable!("{} has no kernel of its own", op.name()),
        };
        match item {
            Item::Map(fused) => Kernel::Map(fused.map.clone()),
            Item::Kernel(id) => of(*id).clone(),
            Item::Accumulate(id) => {
                let product = of(self.accumulate(*id).product);
                product.added().expect("a contraction")
            }
            Item::Pair(id) => of(self.pair(*id)[0]).paired().expect("a contraction"),
        }
    }

    /// Bytes that a launch needs beside its operands and results.
    pub(super) fn workspace(&self, item: &Item) -> usize {
        match item {
            Item::Map(fused) => fused.map.workspace(),
            _ => self.kernel(item).workspace(),
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
