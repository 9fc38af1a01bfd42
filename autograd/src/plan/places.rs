//! Which arrays share memory: a result lies where the caller wants it, or over an operand that is read for the last
//! time, or in an interval of the arena of its own.

use crate::plan::graph::{Accumulate, Fused, Graph, Item};
use crate::plan::lives::Lives;
use crate::plan::memory::Interval;
use crate::plan::view::View;
use crate::tape::Id;
use kernels::StoreKind;
use std::borrow::Cow;
use std::rc::Rc;

/// Where an array lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In an interval of the arena.
    Arena(usize),
    /// In memory that the caller gives.
    Slot(usize),
}

/// Which slots the caller's arrays have: inputs by entry, outputs by position. Equal slots of an input and
/// an output ask for an update in place.
pub(super) struct Slots {
    pub(super) inputs: Vec<(Id, usize)>,
    pub(super) outputs: Vec<usize>,
}

/// An array that is copied when all launches have run.
pub(super) struct Copy {
    pub(super) id: Id,
    pub(super) from: (Place, usize),
    pub(super) to: Place,
}

/// Launches in an order, and the place of every array.
pub(super) struct Places<'g> {
    pub(super) graph: Cow<'g, Graph>,
    pub(super) items: Vec<Item>,
    pub(super) lives: Lives,
    /// Times are launches; the last is that of the copies.
    pub(super) intervals: Vec<Interval>,
    /// For each launch the interval of its scratch memory.
    pub(super) scratch: Vec<Option<usize>>,
    pub(super) copies: Vec<Copy>,
    /// By entry of the graph.
    of: Vec<Option<Place>>,
}

impl<'g> Places<'g> {
    pub(super) fn new(graph: Cow<'g, Graph>, items: Vec<Item>, slots: &Slots) -> Self {
        let mut places = Self {
            lives: Lives::new(&graph, &items),
            intervals: Vec::new(),
            scratch: vec![None; items.len()],
            copies: Vec::new(),
            of: vec![None; graph.nodes.len()],
            graph,
            items,
        };
        for &(id, slot) in &slots.inputs {
            places.of[id] = Some(Place::Slot(slot));
        }
        let copied = places.assign_outputs(slots);
        for at in 0..places.items.len() {
            places.place_results(at);
        }
        places.plan_copies(&copied);
        places
    }

    /// The place of an entry that is in memory.
    pub(super) fn of(&self, id: Id) -> Place {
        self.of[id].expect("operands are placed before their readers")
    }

    /// Where the numbers of an entry begin: an array, and bytes from its start.
    pub(super) fn source(&self, id: Id) -> (Place, usize) {
        let (base, offset) = self.graph.resolve(id);
        let size = self.graph.nodes[base].dtype.size();
        (self.of(base), offset * size)
    }

    /// When results are copied: after all launches.
    fn end(&self) -> usize {
        self.items.len()
    }

    /// Lets results be computed right where the caller wants them; gives back what must be copied there.
    fn assign_outputs(&mut self, slots: &Slots) -> Vec<(Id, usize)> {
        let end = self.end();
        let outs: Vec<(Id, usize)> = self
            .graph
            .outs
            .iter()
            .map(|&out| self.graph.resolve(out))
            .collect();
        for &(base, _) in &outs {
            if self.of[base].is_some() {
                self.lives.read_at_end(base, end);
            }
        }
        let mut copied = Vec::new();
        for (i, &slot) in slots.outputs.iter().enumerate() {
            let (out, (base, offset)) = (self.graph.outs[i], outs[i]);
            let whole =
                offset == 0 && self.graph.shape(base).count() == self.graph.shape(out).count();
            let donor = slots.inputs.iter().find(|&&(_, input)| input == slot);
            let free = whole && self.of[base].is_none() && self.graph.stored[base];
            let in_place = |&(donor, _): &(Id, usize)| {
                let maker = self.lives.maker(base);
                maker.is_some_and(|at| self.updates_in_place(at, base, donor))
            };
            if free && donor.is_none_or(in_place) {
                self.of[base] = Some(Place::Slot(slot));
            } else {
                copied.push((out, slot));
            }
        }
        for &(out, _) in &copied {
            self.lives.read_at_end(self.graph.resolve(out).0, end);
        }
        copied
    }

    /// Whether `result` of launch `at` may be written over the input `donor`: no later launch reads
    /// `donor`, and if this one does, it reads it element by element.
    fn updates_in_place(&self, at: usize, result: Id, donor: Id) -> bool {
        match self.lives.last_read(donor) {
            Some(last) if last > at => return false,
            Some(last) if last == at => {}
            _ => return true,
        }
        match &self.items[at] {
            Item::Map(fused) => writes_over(&self.graph, fused, result, donor),
            Item::Kernel(_) | Item::Pair(_) => false,
            Item::Accumulate(id) => {
                let Accumulate { base, product } = self.graph.accumulate(*id);
                let args = &self.graph.nodes[product].args;
                self.graph.resolve(base) == (donor, 0)
                    && self.graph.shape(donor).count() == self.graph.shape(result).count()
                    && args.iter().all(|&arg| self.graph.resolve(arg).0 != donor)
            }
        }
    }

    fn interval(&mut self, bytes: usize, first: usize, last: usize) -> usize {
        self.intervals.push(Interval { bytes, first, last });
        self.intervals.len() - 1
    }

    /// Finds places for what a launch makes, and for its scratch memory.
    fn place_results(&mut self, at: usize) {
        match &self.items[at] {
            Item::Map(fused) => self.place_roots(at, &Rc::clone(fused)),
            &Item::Kernel(id) | &Item::Pair(id) => self.place_result(at, id, None),
            &Item::Accumulate(id) => {
                let holder = self.accumulates_over(at, id);
                self.place_result(at, id, holder);
            }
        }
        let bytes = self.graph.workspace(&self.items[at]);
        self.scratch[at] = (bytes > 0).then(|| self.interval(bytes, at, at));
    }

    /// The place of a result of launch `at`: the caller's, that of a dying operand, or a new one.
    fn place_result(&mut self, at: usize, id: Id, dying: Option<Id>) {
        if self.of[id].is_some() {
            return;
        }
        let last = self.lives.last_read(id).unwrap_or(at);
        let interval = match dying.and_then(|id| self.of[id]) {
            Some(Place::Arena(interval)) => {
                self.intervals[interval].last = last;
                interval
            }
            _ => self.interval(self.graph.bytes(id), at, last),
        };
        self.of[id] = Some(Place::Arena(interval));
    }

    fn place_roots(&mut self, at: usize, fused: &Fused) {
        let mut given: Vec<Id> = Vec::new();
        for &root in &fused.roots {
            let dying = fused.reads.iter().map(|&(id, _)| id).find(|&id| {
                !given.contains(&id)
                    && self.dies_at(id, at)
                    && self.sole_holder(id, fused)
                    && writes_over(&self.graph, fused, root, id)
            });
            given.extend(dying);
            self.place_result(at, root, dying);
        }
    }

    /// The array that a product is added to, if the sum may lie there.
    fn accumulates_over(&self, at: usize, id: Id) -> Option<Id> {
        let Accumulate { base, product } = self.graph.accumulate(id);
        let (holder, offset) = self.graph.resolve(base);
        let same = offset == 0 && self.graph.shape(holder).count() == self.graph.shape(id).count();
        let place = |id: Id| self.of(self.graph.resolve(id).0);
        let mut args = self.graph.nodes[product].args.iter();
        let operand = args.any(|&arg| place(arg) == self.of(holder));
        (same && !operand && self.dies_at(holder, at)).then_some(holder)
    }

    /// Whether the memory of an operand is free once launch `at` has run.
    fn dies_at(&self, id: Id, at: usize) -> bool {
        matches!(self.of[id], Some(Place::Arena(interval)) if self.intervals[interval].last == at)
    }

    /// Whether no other operand of the program lies in the same memory.
    fn sole_holder(&self, id: Id, fused: &Fused) -> bool {
        let mut reads = fused.reads.iter();
        reads.all(|&(other, _)| other == id || self.of[other] != self.of[id])
    }

    /// Copies what could not be computed where the caller wants it. Inputs are copied first, because
    /// results may be written over them. If inputs are to be written over each other, one is set aside in
    /// the arena before.
    fn plan_copies(&mut self, copied: &[(Id, usize)]) {
        let base = |id: Id| self.graph.resolve(id).0;
        let (passed, made): (Vec<_>, Vec<_>) = copied
            .iter()
            .partition(|(id, _)| self.graph.is_input(base(*id)));
        let overwritten = |id: &Id| {
            let over = |&(other, slot): &(Id, usize)| {
                base(other) != *id && self.of(*id) == Place::Slot(slot)
            };
            passed.iter().any(over)
        };
        let mut aside: Vec<Id> = passed.iter().map(|&(id, _)| base(id)).collect();
        aside.retain(overwritten);
        aside.sort_unstable();
        aside.dedup();
        for id in aside {
            let (bytes, end) = (self.graph.bytes(id), self.end());
            let place = Place::Arena(self.interval(bytes, end, end));
            self.copy(id, place);
            self.of[id] = Some(place);
        }
        for (id, slot) in passed.into_iter().chain(made) {
            self.copy(id, Place::Slot(slot));
        }
    }

    fn copy(&mut self, id: Id, to: Place) {
        let from = self.source(id);
        if self.graph.shape(id).count() > 0 && from != (to, 0) {
            self.copies.push(Copy { id, from, to });
        }
    }
}

/// Whether a full store of `root` may go over `operand`: same type, read contiguously and in no other way.
fn writes_over(graph: &Graph, fused: &Fused, root: Id, operand: Id) -> bool {
    let Some(position) = fused.roots.iter().position(|&r| r == root) else {
        return false;
    };
    let store = &fused.map.stores[position];
    let identity = View::identity(&fused.map.extents);
    let reads = |&(i, &(id, offset)): &(usize, &(Id, usize))| {
        id == operand && (offset != 0 || fused.map.loads[i].strides != identity.strides)
    };
    store.kind == StoreKind::Full
        && store.dtype == graph.nodes[operand].dtype
        && graph.shape(operand).count() == graph.shape(root).count()
        && fused.reads.iter().any(|&(id, _)| id == operand)
        && !fused.reads.iter().enumerate().any(|pair| reads(&pair))
}
