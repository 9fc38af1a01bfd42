//! From launches to a program: which order is the leanest, and where in memory its arrays lie.

use crate::plan::graph::{Graph, Item};
use crate::plan::memory::{lower_bound, place};
use crate::plan::peak::{Held, Stay};
use crate::plan::places::{Place, Places, Slots};
use crate::tape::Id;
use kernels::{Float, Instr, Kernel, Load, Map, Operand, Slot, Step, Store, StoreKind};
use std::borrow::Cow;
use tensor::{DType, Shape};

/// The slot that intermediate results lie in.
pub(super) const ARENA: usize = 0;

/// A program, and how much memory it takes.
pub(super) struct Layout {
    pub(super) slots: Vec<Slot>,
    pub(super) steps: Vec<Step>,
    pub(super) arena_bytes: usize,
    pub(super) least_bytes: usize,
    /// For each step: the result's shape, and until which step it is needed.
    pub(super) notes: Vec<(Shape, usize)>,
    /// What lies in the arena, and until when.
    pub(super) stays: Vec<Stay>,
}

impl Layout {
    /// The leanest layout of some that compute the same; of two alike, the first.
    pub(super) fn leanest<'g>(
        orders: impl IntoIterator<Item = (Cow<'g, Graph>, Vec<Item>)>,
        slots: &Slots,
    ) -> Self {
        let places = |(graph, items)| Places::new(graph, items, slots);
        let candidates: Vec<Places<'g>> = orders.into_iter().map(places).collect();
        let least = candidates.iter().map(|all| lower_bound(&all.intervals));
        let mut trials: Vec<(usize, usize)> = least.zip(0..).collect();
        trials.sort_unstable();
        let mut best: Option<((usize, usize), Vec<usize>)> = None;
        for (least, at) in trials {
            if best.as_ref().is_some_and(|(best, _)| (least, at) > *best) {
                continue;
            }
            let (offsets, bytes) = place(&candidates[at].intervals);
            if best.as_ref().is_none_or(|(best, _)| (bytes, at) < *best) {
                best = Some(((bytes, at), offsets));
            }
        }
        let ((bytes, at), offsets) = best.expect("there is an order");
        Writer::new(&candidates[at], &offsets).write(slots, bytes)
    }
}

/// Steps as they are written.
struct Writer<'a> {
    places: &'a Places<'a>,
    /// Of the intervals of the arena.
    offsets: &'a [usize],
    steps: Vec<Step>,
    /// For each launch: how many steps there are after it.
    ends: Vec<usize>,
    /// For each step: its first result.
    results: Vec<Id>,
    /// What steps write to the arena: an interval, the step, the shape of an array.
    arrays: Vec<(usize, usize, Option<Shape>)>,
}

impl<'a> Writer<'a> {
    fn new(places: &'a Places<'a>, offsets: &'a [usize]) -> Self {
        Self {
            places,
            offsets,
            steps: Vec::new(),
            ends: Vec::new(),
            results: Vec::new(),
            arrays: Vec::new(),
        }
    }

    fn write(mut self, slots: &Slots, arena_bytes: usize) -> Layout {
        let places = self.places;
        for (at, item) in places.items.iter().enumerate() {
            self.launch(item, places.scratch[at]);
            self.ends.push(self.steps.len());
        }
        for copy in &places.copies {
            let map = self.copy_map(copy.id);
            self.step(map, &[copy.from], &[(copy.id, copy.to)], None);
        }
        self.ends.push(self.steps.len());
        let (notes, stays) = (self.notes(), self.stays());
        Layout {
            slots: self.slots(slots, arena_bytes),
            steps: self.steps,
            arena_bytes,
            least_bytes: lower_bound(&places.intervals),
            notes,
            stays,
        }
    }

    fn launch(&mut self, item: &Item, scratch: Option<usize>) {
        let (graph, places) = (&*self.places.graph, self.places);
        let args = match item {
            Item::Map(fused) => {
                let size = |id: Id| graph.nodes[id].dtype.size();
                let reads = fused.reads.iter();
                let reads = reads.map(|&(id, offset)| (places.of(id), offset * size(id)));
                let reads: Vec<(Place, usize)> = reads.collect();
                let results = fused.roots.iter().map(|&id| (id, places.of(id)));
                let results: Vec<(Id, Place)> = results.collect();
                self.step(graph.kernel(item), &reads, &results, scratch);
                return;
            }
            Item::Kernel(id) => graph.nodes[*id].args.clone(),
            Item::Pair(id) => graph.factors(*id),
            Item::Accumulate(id) => {
                let accumulate = graph.accumulate(*id);
                let (source, place) = (places.source(accumulate.base), places.of(*id));
                if source != (place, 0) {
                    self.step(self.copy_map(*id), &[source], &[(*id, place)], None);
                }
                graph.nodes[accumulate.product].args.clone()
            }
        };
        let reads: Vec<(Place, usize)> = args.iter().map(|&arg| places.source(arg)).collect();
        let results = Graph::computes(item).iter();
        let results: Vec<(Id, Place)> = results.map(|&id| (id, places.of(id))).collect();
        self.step(graph.kernel(item), &reads, &results, scratch);
    }

    fn step(
        &mut self,
        kernel: Kernel,
        reads: &[(Place, usize)],
        results: &[(Id, Place)],
        scratch: Option<usize>,
    ) {
        let operand = |(place, offset): (Place, usize)| match place {
            Place::Arena(interval) => Operand {
                slot: ARENA,
                offset: self.offsets[interval] + offset,
            },
            Place::Slot(slot) => Operand { slot, offset },
        };
        let step = self.steps.len();
        let workspace = scratch.map(|interval| operand((Place::Arena(interval), 0)));
        let outputs = results.iter().map(|&(_, place)| operand((place, 0)));
        self.steps.push(Step {
            kernel,
            inputs: reads.iter().map(|&read| operand(read)).collect(),
            outputs: outputs.collect(),
            workspace,
        });
        self.results.push(results[0].0);
        for &(id, place) in results {
            if let Place::Arena(interval) = place {
                let shape = self.places.graph.shape(id).clone();
                self.arrays.push((interval, step, Some(shape)));
            }
        }
        self.arrays
            .extend(scratch.map(|interval| (interval, step, None)));
    }

    /// The last step of a launch.
    fn last_step(&self, launch: usize) -> usize {
        self.ends[launch].saturating_sub(1)
    }

    fn notes(&self) -> Vec<(Shape, usize)> {
        let note = |(step, &id): (usize, &Id)| {
            let last = self.places.lives.last_read(id);
            let last = last.map_or(step, |launch| self.last_step(launch));
            (self.places.graph.shape(id).clone(), last)
        };
        self.results.iter().enumerate().map(note).collect()
    }

    /// What is in the arena, from which step to which. Of several arrays in one interval, each stays until
    /// the next is written over it.
    fn stays(&self) -> Vec<Stay> {
        let intervals = self.places.intervals.iter();
        let mut until: Vec<usize> = intervals.map(|i| self.last_step(i.last)).collect();
        let stay = |(interval, step, shape): &(usize, usize, Option<Shape>)| {
            let last = std::mem::replace(&mut until[*interval], step.saturating_sub(1));
            let held = Held {
                launch: *step,
                kernel: self.steps[*step].kernel.name(),
                shape: shape.clone(),
                bytes: self.places.intervals[*interval].bytes,
            };
            Stay { held, last }
        };
        let mut stays: Vec<Stay> = self.arrays.iter().rev().map(stay).collect();
        stays.reverse();
        stays
    }

    fn slots(&self, slots: &Slots, arena_bytes: usize) -> Vec<Slot> {
        let graph = &self.places.graph;
        let inputs = slots.inputs.iter().map(|&(_, slot)| slot);
        let all = inputs.chain(slots.outputs.iter().copied());
        let count = 1 + all.max().unwrap_or(0);
        let unused = Slot {
            bytes: 0,
            writable: false,
        };
        let mut memory = vec![unused; count];
        memory[ARENA] = Slot {
            bytes: arena_bytes,
            writable: true,
        };
        for &(id, slot) in &slots.inputs {
            memory[slot].bytes = graph.bytes(id);
        }
        for (&id, &slot) in graph.outs.iter().zip(&slots.outputs) {
            memory[slot] = Slot {
                bytes: graph.bytes(id),
                writable: true,
            };
        }
        memory
    }

    fn copy_map(&self, id: Id) -> Kernel {
        let graph = &self.places.graph;
        copy_map(graph.nodes[id].dtype, graph.shape(id).count())
    }
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
