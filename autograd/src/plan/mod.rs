//! Plans: chosen results of a tape as a program with known memory and work.
//!
//! The passes, in this order:
//!
//! * `simplify` removes dead code, merges equal entries and drops known zeros.
//! * `fuse` decides which results reach memory.
//! * `group` makes launches of element-wise chains and their reductions.
//! * `order` decides which launch runs when.
//! * `remat` decides what is recomputed to save memory.
//! * `layout` finds lifetimes, places arrays in one arena, and updates in place where it can.

mod bound;
mod emit;
mod fuse;
mod graph;
mod group;
mod layout;
mod lives;
mod memory;
mod order;
mod peak;
mod places;
mod remat;
mod sequence;
mod simplify;
mod view;

use crate::error::{Error, Result};
use crate::spec::ArraySpec;
use crate::tape::{Id, Node, Tape, Var};
pub use bound::{Bound, Task};
use graph::{Graph, Item};
pub(crate) use graph::{Kind, kind};
use kernels::{Buffer, Device, Kernel, Lap, Program, View};
use layout::{ARENA, Layout};
use peak::Stay;
pub use peak::{Held, Peak};
use places::Slots;
pub(crate) use simplify::{Simplified, simplify};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use tensor::{Array, Shape};

/// Chosen results of a tape, ready to be computed any number of times.
///
/// ```
/// use autograd::prelude::*;
/// let tape = Tape::new();
/// let x = tape.input("x", F64, [3])?;
/// let loss = x.powi(3)?.sum_all()?;
/// let gradient = tape.grad(loss, &[x])?[0];
/// let plan = Plan::new(&[loss, gradient])?;
/// let results = plan.run(&Device::cpu(None)?, &[(x, &Array::new([3], vec![1.0, 2.0, 3.0])?)])?;
/// assert_eq!(results[0].to_f64_vec(), [36.0]);
/// assert_eq!(results[1].to_f64_vec(), [3.0, 12.0, 27.0]);
/// # Ok::<(), autograd::Error>(())
/// ```
#[derive(Debug)]
pub struct Plan {
    program: Program,
    /// The number of the tape, if there are results.
    tape: Option<u64>,
    inputs: Vec<ArraySpec>,
    /// For each input: its entry on the tape.
    sources: Vec<Id>,
    outputs: Vec<ArraySpec>,
    /// For each output the input that it is written over, if any.
    donors: Vec<Option<usize>>,
    arena_bytes: usize,
    least_bytes: usize,
    flops: u64,
    moved: u64,
    notes: Vec<(Shape, usize)>,
    stays: Vec<Stay>,
}

impl Plan {
    /// Plans the computation of some results of one tape.
    pub fn new(outs: &[Var<'_>]) -> Result<Self> {
        Self::in_segments(outs, 1)
    }

    /// As [`Plan::new`], with less memory for more work (activation checkpointing). The launches up to the
    /// memory peak are cut into at most `segments` segments, and only arrays that cross from one segment
    /// into the next are kept. What else is read after the peak is recomputed then, segment by segment and
    /// at most once. The results are the same, bit for bit.
    ///
    /// ```
    /// use autograd::{Plan, Tape};
    /// use tensor::DType;
    /// let tape = Tape::new();
    /// let (x, w) = (tape.input("x", DType::F32, [256, 32])?, tape.input("w", DType::F32, [32, 32])?);
    /// let deep = (0..16).try_fold(x, |h, _| h.matmul(w)?.tanh())?;
    /// let gradient = tape.grad(deep.sum_all()?, &[w])?;
    /// let (whole, cut) = (Plan::new(&gradient)?, Plan::in_segments(&gradient, 4)?);
    /// assert!(2 * cut.arena_bytes() < whole.arena_bytes());
    /// assert!(3 * cut.flops() < 4 * whole.flops());
    /// # Ok::<(), autograd::Error>(())
    /// ```
    pub fn in_segments(outs: &[Var<'_>], segments: usize) -> Result<Self> {
        Self::build(outs, &[], segments, |_, _| Ok(vec![None; outs.len()]))
    }

    /// As [`Plan::in_segments`], with some results given instead of computed. `donors` is told the inputs,
    /// by their descriptions and entries on the tape; it says for each output which input it is written
    /// over, if any.
    fn build(
        outs: &[Var<'_>],
        given: &[Var<'_>],
        segments: usize,
        donors: impl FnOnce(&[ArraySpec], &[Id]) -> Result<Vec<Option<usize>>>,
    ) -> Result<Self> {
        let live = simplify(outs, given)?;
        let spec = |id: Id| spec_of(live.tape.var(id));
        let inputs: Vec<ArraySpec> = live.inputs.iter().map(|&(id, _)| spec(id)).collect();
        let outputs: Vec<ArraySpec> = live.outs.iter().map(|&id| spec(id)).collect();
        let sources: Vec<Id> = live.inputs.iter().map(|&(_, source)| source).collect();
        let donors = donors(&inputs, &sources)?;
        let input_ids: Vec<Id> = live.inputs.iter().map(|&(id, _)| id).collect();
        let slots = slots(&input_ids, &donors);
        let nodes = nodes(&live.tape);
        check_total(&nodes)?;
        let mut graph = Graph::new(nodes, live.outs);
        let groupings = group::items(&mut graph).into_iter();
        let whole: Vec<Vec<Item>> = groupings
            .flat_map(|items| order::orders(&graph, &items, &slots))
            .collect();
        let cut = whole.iter().filter(|_| segments > 1).map(|items| {
            let mut graph = graph.clone();
            let items = remat::in_segments(&mut graph, items.clone(), segments);
            (Cow::Owned(graph), items)
        });
        let uncut = whole
            .iter()
            .map(|items| (Cow::Borrowed(&graph), items.clone()));
        let candidates = uncut.chain(cut);
        let Layout {
            slots,
            steps,
            arena_bytes,
            least_bytes,
            notes,
            stays,
        } = Layout::leanest(candidates, &slots);
        let total = |of: fn(&Kernel) -> u64| {
            let all = steps.iter().map(|step| of(&step.kernel));
            all.fold(0, u64::saturating_add)
        };
        let (flops, moved) = (total(Kernel::flops), total(Kernel::bytes));
        let program = Program::new(slots, steps)?;
        Ok(Self {
            program,
            tape: outs.first().map(|out| out.tape().number()),
            inputs,
            sources,
            outputs,
            donors,
            arena_bytes,
            least_bytes,
            flops,
            moved,
            notes,
            stays,
        })
    }

    /// What it reads, in the order of the tape: inputs that no chosen result needs are not among them.
    pub fn inputs(&self) -> &[ArraySpec] {
        &self.inputs
    }

    /// What it computes, in the order they were chosen.
    pub fn outputs(&self) -> &[ArraySpec] {
        &self.outputs
    }

    /// Bytes of the arena that it works in: all its memory but inputs and outputs.
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// The most bytes of the arena in use at one time: what no placement could go below.
    pub fn least_bytes(&self) -> usize {
        self.least_bytes
    }

    /// Floating-point operations of one run.
    pub fn flops(&self) -> u64 {
        self.flops
    }

    /// Bytes read and written by its launches.
    pub fn bytes_moved(&self) -> u64 {
        self.moved
    }

    /// How many kernels it launches.
    pub fn launches(&self) -> usize {
        self.program.steps().len()
    }

    /// Its launches in their order: the kernel, and the shape of its (first) result.
    pub fn kernels(&self) -> impl ExactSizeIterator<Item = (&Kernel, &Shape)> {
        let steps = self.program.steps().iter().zip(&self.notes);
        steps.map(|(step, (shape, _))| (&step.kernel, shape))
    }

    /// The launch at which the most bytes of the arena are in use, and by what.
    pub fn peak(&self) -> Peak {
        Peak::of(&self.stays, self.launches())
    }

    /// Makes it ready for a device, so that the first run takes no longer than later ones: see
    /// [`Program::prepare`].
    pub fn prepare(&self, device: &Device) -> Result<()> {
        Ok(self.program.prepare(device)?)
    }

    /// Runs on memory of the caller: an arena, an array for every input, and one for every output that is
    /// not written over an input. Allocates nothing.
    pub fn execute(
        &self,
        device: &Device,
        arena: View<'_>,
        inputs: &[View<'_>],
        outputs: &[View<'_>],
    ) -> Result<()> {
        Ok(self.program.run(device, &views(arena, inputs, outputs))?)
    }

    /// As [`Plan::execute`], with a lap for every launch: see [`Program::time`].
    pub fn time(
        &self,
        device: &Device,
        arena: View<'_>,
        inputs: &[View<'_>],
        outputs: &[View<'_>],
    ) -> Result<Vec<Lap>> {
        Ok(self.program.time(device, &views(arena, inputs, outputs))?)
    }

    /// Runs on arrays given for inputs of the tape, and gives back all outputs. Inputs that no chosen result needs
    /// may be given, too. For tests and small work: it allocates and copies.
    pub fn run(&self, device: &Device, arrays: &[(Var<'_>, &Array)]) -> Result<Vec<Array>> {
        if let Some((other, _)) = arrays
            .iter()
            .find(|(var, _)| Some(var.tape().number()) != self.tape)
        {
            return Err(Error::Plan(format!(
                "an array was given for {other:?}, which is of another tape"
            )));
        }
        let arena = device.alloc(self.arena_bytes)?;
        let mut inputs: Vec<Buffer> = Vec::new();
        let given: HashMap<Id, &Array> =
            arrays.iter().map(|(var, array)| (var.id, *array)).collect();
        for (spec, source) in self.inputs.iter().zip(&self.sources) {
            let Some(array) = given.get(source) else {
                let reason = format!("no array was given for input `{}`", spec.name);
                return Err(Error::Plan(reason));
            };
            spec.expect(array)?;
            inputs.push(device.alloc(spec.bytes())?);
            inputs[inputs.len() - 1].write(0, array.bytes())?;
        }
        let own = self.outputs.iter().zip(&self.donors);
        let own = own.filter(|(_, donor)| donor.is_none());
        let outputs: Vec<Buffer> = own
            .map(|(spec, _)| device.alloc(spec.bytes()))
            .collect::<std::result::Result<_, _>>()?;
        self.execute(
            device,
            arena.view(0, arena.bytes()),
            &whole(&inputs),
            &whole(&outputs),
        )?;
        let mut own = outputs.iter();
        let read = |(spec, donor): (&ArraySpec, &Option<usize>)| {
            let buffer = match donor {
                Some(input) => &inputs[*input],
                None => own.next().expect("a buffer per output"),
            };
            read(buffer.view(0, spec.bytes()), spec)
        };
        self.outputs.iter().zip(&self.donors).map(read).collect()
    }
}

/// Copies an array out of a device's memory, when all work queued before is done.
pub(crate) fn read(view: View<'_>, spec: &ArraySpec) -> Result<Array> {
    let mut bytes = vec![0; spec.bytes()];
    view.read(&mut bytes)?;
    Ok(Array::from_bytes(spec.dtype, spec.shape.clone(), &bytes)?)
}

/// The description of an entry, with its operation as the name, for messages.
pub(crate) fn spec_of(var: Var<'_>) -> ArraySpec {
    let name = var.tape().with_node(var.id, |node| node.op.label());
    ArraySpec::new(name, var.dtype(), var.shape())
}

/// A view per slot.
fn views<'a>(arena: View<'a>, inputs: &[View<'a>], outputs: &[View<'a>]) -> Vec<View<'a>> {
    let mut views = Vec::with_capacity(1 + inputs.len() + outputs.len());
    debug_assert_eq!(ARENA, 0);
    views.push(arena);
    views.extend_from_slice(inputs);
    views.extend_from_slice(outputs);
    views
}

fn whole(buffers: &[Buffer]) -> Vec<View<'_>> {
    buffers
        .iter()
        .map(|buffer| buffer.view(0, buffer.bytes()))
        .collect()
}

fn nodes(tape: &Tape) -> Vec<Rc<Node>> {
    (0..tape.len()).map(|id| tape.node(id)).collect()
}

/// Refuses a plan whose arrays together are too large for any memory, so that no sum of their sizes
/// overflows.
fn check_total(nodes: &[Rc<Node>]) -> Result<()> {
    let bytes = |node: &Rc<Node>| node.shape.count().saturating_mul(node.dtype.size());
    let total = nodes.iter().map(bytes).fold(0, usize::saturating_add);
    if total <= isize::MAX as usize / 2 {
        return Ok(());
    }
    let reason = "its arrays take more bytes than any memory holds";
    Err(Error::Plan(reason.into()))
}

/// The arena, then inputs, then outputs with memory of their own.
fn slots(input_ids: &[Id], donors: &[Option<usize>]) -> Slots {
    let inputs: Vec<(Id, usize)> = input_ids
        .iter()
        .enumerate()
        .map(|(i, &id)| (id, 1 + i))
        .collect();
    let mut next = 1 + inputs.len();
    let outputs = donors
        .iter()
        .map(|donor| {
            donor.map_or_else(
                || {
                    next += 1;
                    next - 1
                },
                |input| 1 + input,
            )
        })
        .collect();
    Slots { inputs, outputs }
}

/// The launches with sizes, places and lives, then the totals.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>4} {:<16} {:<22} {:>9} {:>10} {:>5}",
            "", "kernel", "result", "MFLOP", "at", "until"
        )?;
        for (index, (step, (shape, last))) in
            self.program.steps().iter().zip(&self.notes).enumerate()
        {
            let at = match step.outputs.first() {
                Some(o) if o.slot == ARENA => format!("{}", o.offset),
                Some(o) => format!("slot {}", o.slot),
                None => String::new(),
            };
            let mflop = step.kernel.flops() as f64 / 1e6;
            writeln!(
                f,
                "{index:>4} {:<16} {shape:<22} {mflop:>9.3} {at:>10} {last:>5}",
                step.kernel.name()
            )?;
        }
        let kib = self.arena_bytes as f64 / 1024.0;
        let gflop = self.flops as f64 / 1e9;
        write!(
            f,
            "{} launches, {gflop:.3} GFLOP, {kib:.1} KiB peak",
            self.launches()
        )
    }
}
