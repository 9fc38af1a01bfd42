//! From launches to a program: where every stored result lies.

use crate::op::Op;
use crate::plan::fuse::{Accumulate, Fused, Graph, Item};
use crate::plan::memory::{Interval, lower_bound, place};
use crate::plan::view::View;
use crate::tape::Id;
use kernels::{Float, Instr, Kernel, Load, Map, Operand, Slot, Step, Store, StoreKind};
use std::borrow::Cow;
use std::collections::HashMap;
use tensor::{DType, Shape};

/// The slot that intermediate results lie in.
pub(super) const ARENA: usize = 0;

/// Where a stored entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// An interval of the arena.
    Arena(usize),
    /// Memory that the caller gives.
    Slot(usize),
}

/// A program, and how much memory it takes.
pub(super) struct Layout {
    pub(super) slots: Vec<Slot>,
    pub(super) steps: Vec<Step>,
    pub(super) arena_bytes: usize,
    pub(super) least_bytes: usize,
    /// For each step: the result's shape, and until which step it is needed.
    pub(super) notes: Vec<(Shape, usize)>,
}

impl Layout {
    /// The leanest layout of some that compute the same; of two alike, the first.
    pub(super) fn leanest<'g>(
        orders: impl IntoIterator<Item = (Cow<'g, Graph>, Vec<Item>)>,
        slots: &Slots,
    ) -> Self {
        let mut best: Option<Self> = None;
        for (graph, items) in orders {
            let builder = Builder::new(&graph, items, slots);
            let least = lower_bound(&builder.intervals);
            if best.as_ref().is_none_or(|best| least < best.arena_bytes) {
                let layout = builder.finish(slots);
                if best
                    .as_ref()
                    .is_none_or(|best| layout.arena_bytes < best.arena_bytes)
                {
                    best = Some(layout);
                }
            }
        }
        best.expect("there is an order")
    }
}

/// One launch before memory is assigned.
struct Launch {
    kernel: Kernel,
    inputs: Vec<(Place, usize)>,
    outputs: Vec<Place>,
    workspace: Option<usize>,
    note: (Shape, usize),
}

/// Launches with the intervals of memory that they need.
struct Builder<'g> {
    graph: &'g Graph,
    items: Vec<Item>,
    /// How many items there are: when outputs are copied.
    end: usize,
    places: HashMap<Id, Place>,
    intervals: Vec<Interval>,
    last_read: HashMap<Id, usize>,
    launches: Vec<Launch>,
}

/// Which slots the caller's arrays have: inputs by entry, outputs by position. Equal slots of an input and
/// an output ask for an update in place.
pub(super) struct Slots {
    pub(super) inputs: Vec<(Id, usize)>,
    pub(super) outputs: Vec<usize>,
}

impl<'g> Builder<'g> {
    fn new(graph: &'g Graph, items: Vec<Item>, slots: &Slots) -> Self {
        let mut builder = Self {
            graph,
            end: items.len(),
            items,
            places: slots
                .inputs
                .iter()
                .map(|&(id, slot)| (id, Place::Slot(slot)))
                .collect(),
            intervals: Vec::new(),
            last_read: HashMap::new(),
            launches: Vec::new(),
        };
        builder.find_last_reads();
        let copied = builder.assign_outputs(slots);
        builder.drop_unread();
        for (index, item) in std::mem::take(&mut builder.items).into_iter().enumerate() {
            match item {
                Item::Map(fused) => builder.map(index, fused),
                Item::Kernel(id) => builder.kernel(index, id),
                Item::Accumulate(id) => builder.accumulate(index, id),
                Item::Pair(id) => builder.pair(index, id),
            }
        }
        builder.copy_outs(&copied);
        builder
    }

    fn find_last_reads(&mut self) {
        for (index, item) in self.items.iter().enumerate() {
            for id in self.graph.reads(item) {
                self.last_read.insert(id, index);
            }
        }
    }

    /// Lets results be computed right where the caller wants them; gives back what must be copied there.
    fn assign_outputs(&mut self, slots: &Slots) -> Vec<(Id, usize)> {
        let computed = |(at, item)| Graph::computes(item).iter().map(move |&id| (id, at));
        let makers: HashMap<Id, usize> = self.items.iter().enumerate().flat_map(computed).collect();
        let passed = |&&out: &&Id| self.places.contains_key(&self.graph.resolve(out).0);
        let passed: Vec<Id> = self.graph.outs.iter().filter(passed).copied().collect();
        self.read_at_end(&passed);
        let mut copied = Vec::new();
        for (&out, &slot) in self.graph.outs.iter().zip(&slots.outputs) {
            let (base, offset) = self.graph.resolve(out);
            let whole =
                offset == 0 && self.graph.shape(base).count() == self.graph.shape(out).count();
            let donor = slots.inputs.iter().find(|&&(_, input)| input == slot);
            let free = whole && !self.places.contains_key(&base) && self.graph.stored[base];
            let in_place = |&(donor, _): &(Id, usize)| {
                let maker = makers.get(&base);
                maker.is_some_and(|&at| self.updates_in_place(at, base, donor))
            };
            if free && donor.is_none_or(in_place) {
                self.places.insert(base, Place::Slot(slot));
            } else {
                copied.push((out, slot));
            }
        }
        let late: Vec<Id> = copied.iter().map(|&(out, _)| out).collect();
        self.read_at_end(&late);
        copied
    }

    fn read_at_end(&mut self, outs: &[Id]) {
        for &out in outs {
            let base = self.graph.resolve(out).0;
            self.last_read.insert(base, self.end);
        }
    }

    /// Whether `result` of launch `at` may be written over the input `donor`: nobody reads that any more, or
    /// this launch is the last to do so, element by element.
    fn updates_in_place(&self, at: usize, result: Id, donor: Id) -> bool {
        match self.last_read.get(&donor) {
            Some(&last) if last > at => return false,
            Some(&last) if last == at => {}
            _ => return true,
        }
        match &self.items[at] {
            Item::Map(fused) => writes_over(self.graph, fused, result, donor),
            Item::Kernel(_) | Item::Pair(_) => false,
            Item::Accumulate(id) => {
                let Accumulate { base, product } =
                    self.graph.accumulates[*id].expect("an accumulating entry");
                let args = &self.graph.nodes[product].args;
                self.graph.resolve(base) == (donor, 0)
                    && self.graph.shape(donor).count() == self.graph.shape(result).count()
                    && args.iter().all(|&arg| self.graph.resolve(arg).0 != donor)
            }
        }
    }

    /// Roots that only their own program reads need no memory, nor what only they need.
    fn drop_unread(&mut self) {
        let (places, last_read) = (&self.places, &self.last_read);
        let wanted = |id: Id| last_read.contains_key(&id) || places.contains_key(&id);
        for item in &mut self.items {
            if let Item::Map(fused) = item
                && !fused.roots.iter().all(|&id| wanted(id))
            {
                *fused = fused.only(wanted);
            }
        }
    }

    fn interval(&mut self, bytes: usize, first: usize, last: usize) -> usize {
        self.intervals.push(Interval { bytes, first, last });
        self.intervals.len() - 1
    }

    /// The place of a result of launch `index`: the caller's, that of a dying operand, or a new one.
    fn result(&mut self, index: usize, id: Id, dying: Option<Id>) -> Place {
        let last = self.last_read.get(&id).copied().unwrap_or(index);
        let place = match (
            self.places.get(&id),
            dying.and_then(|d| self.places.get(&d)),
        ) {
            (Some(&place), _) => place,
            (None, Some(&Place::Arena(interval))) => {
                self.intervals[interval].last = last;
                Place::Arena(interval)
            }
            _ => Place::Arena(self.interval(self.graph.bytes(id), index, last)),
        };
        self.places.insert(id, place);
        place
    }

    /// Whether the memory of an operand is free once launch `index` has run.
    fn dies_at(&self, id: Id, index: usize) -> bool {
        matches!(self.places.get(&id), Some(Place::Arena(interval)) if self.intervals[*interval].last == index)
    }

    fn input(&self, id: Id) -> (Place, usize) {
        let (base, offset) = self.graph.resolve(id);
        (
            self.places[&base],
            offset * self.graph.nodes[base].dtype.size(),
        )
    }

    fn launch(
        &mut self,
        index: usize,
        kernel: Kernel,
        inputs: Vec<(Place, usize)>,
        outputs: Vec<Place>,
        id: Id,
    ) {
        let needed = kernel.workspace();
        let workspace = (needed > 0).then(|| self.interval(needed, index, index));
        let last = self.last_read.get(&id).copied().unwrap_or(index);
        let note = (self.graph.shape(id).clone(), last);
        self.launches.push(Launch {
            kernel,
            inputs,
            outputs,
            workspace,
            note,
        });
    }

    fn map(&mut self, index: usize, fused: Fused) {
        let Some(&first) = fused.roots.first() else {
            return;
        };
        let inputs = fused
            .reads
            .iter()
            .map(|&(id, offset)| (self.places[&id], offset * self.graph.nodes[id].dtype.size()))
            .collect();
        let mut given: Vec<Id> = Vec::new();
        let mut outputs = Vec::new();
        for &root in &fused.roots {
            let dying = fused.reads.iter().map(|&(id, _)| id).find(|&id| {
                !given.contains(&id)
                    && self.dies_at(id, index)
                    && self.sole_holder(id, &fused)
                    && writes_over(self.graph, &fused, root, id)
            });
            given.extend(dying);
            outputs.push(self.result(index, root, dying));
        }
        self.launch(index, Kernel::Map(fused.map), inputs, outputs, first);
    }

    /// Whether no other operand of the program lies in the same memory.
    fn sole_holder(&self, id: Id, fused: &Fused) -> bool {
        let place = self.places[&id];
        fused
            .reads
            .iter()
            .all(|&(other, _)| other == id || self.places[&other] != place)
    }

    fn kernel(&mut self, index: usize, id: Id) {
        let inputs = self.graph.nodes[id]
            .args
            .iter()
            .map(|&arg| self.input(arg))
            .collect();
        let output = self.result(index, id, None);
        let kernel = self.kernel_of(id).clone();
        self.launch(index, kernel, inputs, vec![output], id);
    }

    fn kernel_of(&self, id: Id) -> &Kernel {
        match &self.graph.nodes[id].op {
            Op::Kernel(kernel) => kernel,
            op => unreachable!("{} has no kernel of its own", op.name()),
        }
    }

    fn accumulate(&mut self, index: usize, id: Id) {
        let Accumulate { base, product } =
            self.graph.accumulates[id].expect("an accumulating entry");
        let args = self.graph.nodes[product].args.clone();
        let (holder, offset) = self.graph.resolve(base);
        let same = offset == 0 && self.graph.shape(holder).count() == self.graph.shape(id).count();
        let operand = args.iter().any(|&arg| {
            let place = self.places[&self.graph.resolve(arg).0];
            place == self.places[&holder]
        });
        let dying = (same && !operand && self.dies_at(holder, index)).then_some(holder);
        let source = self.input(base);
        let output = self.result(index, id, dying);
        if (output, 0) != source {
            let copy = copy_map(self.graph.nodes[id].dtype, self.graph.shape(id).count());
            self.launch(index, copy, vec![source], vec![output], id);
        }
        let inputs = args.iter().map(|&arg| self.input(arg)).collect();
        let kernel = self.kernel_of(product).added().expect("a contraction");
        self.launch(index, kernel, inputs, vec![output], id);
    }

    fn pair(&mut self, index: usize, id: Id) {
        let [product, _] = self.graph.pairs[id].expect("an entry of a pair");
        let kernel = self.kernel_of(product).paired().expect("a contraction");
        let factors = self.graph.factors(id);
        let inputs = factors.into_iter().map(|arg| self.input(arg)).collect();
        let output = self.result(index, id, None);
        self.launch(index, kernel, inputs, vec![output], id);
    }

    /// Copies what could not be computed where it is wanted: inputs first, for results may go over them; and of
    /// those that go over each other one is set aside before.
    fn copy_outs(&mut self, copied: &[(Id, usize)]) {
        let base = |id: Id| self.graph.resolve(id).0;
        let (passed, made): (Vec<_>, Vec<_>) = copied
            .iter()
            .partition(|(id, _)| self.graph.is_input(base(*id)));
        let overwritten = |id: &Id| {
            let over = |&(other, slot): &(Id, usize)| {
                base(other) != *id && self.places[id] == Place::Slot(slot)
            };
            passed.iter().any(over)
        };
        let mut aside: Vec<Id> = passed.iter().map(|&(id, _)| base(id)).collect();
        aside.retain(overwritten);
        aside.sort_unstable();
        aside.dedup();
        for id in aside {
            let place = Place::Arena(self.interval(self.graph.bytes(id), self.end, self.end));
            self.copy(id, place);
            self.places.insert(id, place);
        }
        for (id, slot) in passed.into_iter().chain(made) {
            self.copy(id, Place::Slot(slot));
        }
    }

    fn copy(&mut self, id: Id, place: Place) {
        let count = self.graph.shape(id).count();
        let (source, index) = (self.input(id), self.end);
        if count > 0 && source != (place, 0) {
            let copy = copy_map(self.graph.nodes[id].dtype, count);
            self.launch(index, copy, vec![source], vec![place], id);
        }
    }

    fn finish(self, slots: &Slots) -> Layout {
        let (offsets, arena_bytes) = place(&self.intervals);
        let count = 1 + slots
            .inputs
            .iter()
            .map(|i| i.1)
            .chain(slots.outputs.iter().copied())
            .max()
            .unwrap_or(0);
        let mut memory = vec![
            Slot {
                bytes: 0,
                writable: false
            };
            count
        ];
        memory[ARENA] = Slot {
            bytes: arena_bytes,
            writable: true,
        };
        for &(id, slot) in &slots.inputs {
            memory[slot].bytes = self.graph.bytes(id);
        }
        for (&id, &slot) in self.graph.outs.iter().zip(&slots.outputs) {
            memory[slot] = Slot {
                bytes: self.graph.bytes(id),
                writable: true,
            };
        }
        let operand = |place: Place, offset: usize| match place {
            Place::Arena(interval) => Operand {
                slot: ARENA,
                offset: offsets[interval] + offset,
            },
            Place::Slot(slot) => Operand { slot, offset },
        };
        let notes = self
            .launches
            .iter()
            .map(|launch| launch.note.clone())
            .collect();
        let steps = self
            .launches
            .into_iter()
            .map(|launch| Step {
                kernel: launch.kernel,
                inputs: launch
                    .inputs
                    .into_iter()
                    .map(|(place, offset)| operand(place, offset))
                    .collect(),
                outputs: launch
                    .outputs
                    .into_iter()
                    .map(|place| operand(place, 0))
                    .collect(),
                workspace: launch
                    .workspace
                    .map(|interval| operand(Place::Arena(interval), 0)),
            })
            .collect();
        Layout {
            slots: memory,
            steps,
            arena_bytes,
            least_bytes: lower_bound(&self.intervals),
            notes,
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

fn copy_map(dtype: DType, count: usize) -> Kernel {
    let float = if dtype.size() == 4 && dtype != DType::F32 || dtype == DType::F64 {
        Float::F64
    } else {
        Float::F32
    };
    Kernel::Map(Map {
        float,
        extents: vec![count],
        loads: vec![Load {
            dtype,
            strides: vec![usize::from(count > 1)],
        }],
        code: vec![Instr::Load(0)],
        stores: vec![Store {
            value: 0,
            dtype,
            kind: StoreKind::Full,
        }],
    })
}
