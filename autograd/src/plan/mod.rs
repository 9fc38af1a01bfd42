//! Plans: chosen results of a tape as a program with known memory and work.
//!
//! simplify (dead code, common entries, zeros) → fuse (what reaches memory) → group (element-wise chains with
//! their reductions as launches) → order (which launch when) → remat (what is made again) → layout (liveness, places in one arena, updates in place).

mod emit;
mod fuse;
mod group;
mod layout;
mod memory;
mod order;
mod peak;
mod remat;
mod simplify;
mod view;

use crate::error::{Error, Result};
use crate::op::Op;
use crate::tape::{Id, Tape, Var};
use fuse::{Graph, Item};
pub(crate) use fuse::{Kind, kind};
use kernels::{Buffer, Device, Kernel, Lap, Program, View};
use layout::{ARENA, Layout, Slots};
pub use peak::{Held, Peak};
pub(crate) use simplify::simplify;
use std::borrow::Cow;
use std::fmt;
use tensor::{Array, DType, Shape};

/// The name, type and shape of an array that a plan takes or gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// For inputs the name on the tape; for outputs a number.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Shape,
}

impl Port {
    /// Bytes of the array.
    pub fn bytes(&self) -> usize {
        self.shape.count() * self.dtype.size()
    }
}

/// Chosen results of a tape, ready to be computed any number of times.
///
/// ```
/// use autograd::{Plan, Tape};
/// use kernels::Device;
/// use tensor::{Array, DType};
/// let tape = Tape::new();
/// let x = tape.input("x", DType::F64, [3])?;
/// let loss = x.powi(3)?.sum_all()?;
/// let gradient = tape.grad(loss, &[x])?[0];
/// let plan = Plan::new(&[loss, gradient])?;
/// let x = Array::new([3], vec![1.0, 2.0, 3.0])?;
/// let results = plan.run(&Device::cpu(None)?, &[("x", &x)])?;
/// assert_eq!(results[0].to_f64_vec(), [36.0]);
/// assert_eq!(results[1].to_f64_vec(), [3.0, 12.0, 27.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Plan {
    program: Program,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// For each output: the input that it is written over.
    donors: Vec<Option<usize>>,
    arena_bytes: usize,
    least_bytes: usize,
    flops: u64,
    moved: u64,
    notes: Vec<(Shape, usize)>,
}

impl Plan {
    /// Plans the computation of some results of one tape.
    pub fn new(outs: &[Var<'_>]) -> Result<Self> {
        Self::in_place(outs, &[])
    }

    /// As [`Plan::new`], with some outputs (by position) written over inputs (by name): the caller gives
    /// one array for both.
    pub fn in_place(outs: &[Var<'_>], over: &[(usize, &str)]) -> Result<Self> {
        Self::build(outs, over, &[], 1)
    }

    /// As [`Plan::new`], with less memory for more work: up to that many segments of the way to where the most
    /// is alive are told apart, of which only what enters the next is kept. What else is read later is
    /// computed again then, segment by segment, and at most once. The results are the same, bit for bit.
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
        Self::build(outs, &[], &[], segments)
    }

    /// The names of the inputs that a plan will have.
    pub(crate) fn inputs_of(outs: &[Var<'_>], given: &[(Var<'_>, String)]) -> Result<Vec<String>> {
        let (tape, _) = simplify(outs, given)?;
        let name = |node: crate::tape::Node| match node.op {
            Op::Input(name) => Some(name),
            _ => None,
        };
        Ok(nodes(&tape).into_iter().filter_map(name).collect())
    }

    /// As [`Plan::in_place`], with some results given as inputs of a name instead of computed.
    pub(crate) fn build(
        outs: &[Var<'_>],
        over: &[(usize, &str)],
        given: &[(Var<'_>, String)],
        segments: usize,
    ) -> Result<Self> {
        let (tape, ids) = simplify(outs, given)?;
        let mut graph = Graph::new(nodes(&tape), ids);
        let input_ids: Vec<Id> = (0..graph.nodes.len())
            .filter(|&id| graph.is_input(id))
            .collect();
        let port = |id: Id, name: String| Port {
            name,
            dtype: graph.nodes[id].dtype,
            shape: graph.shape(id).clone(),
        };
        let inputs: Vec<Port> = input_ids
            .iter()
            .map(|&id| match &graph.nodes[id].op {
                Op::Input(name) => port(id, name.clone()),
                _ => unreachable!("only inputs were selected"),
            })
            .collect();
        let outputs: Vec<Port> = graph
            .outs
            .iter()
            .enumerate()
            .map(|(i, &id)| port(id, i.to_string()))
            .collect();
        let donors = donors(&inputs, &outputs, over)?;
        let slots = slots(&input_ids, &donors);
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
        } = Layout::leanest(candidates, &slots);
        let flops = steps.iter().map(|step| step.kernel.flops()).sum();
        let moved = steps.iter().map(|step| step.kernel.bytes()).sum();
        let program = Program::new(slots, steps)?;
        Ok(Self {
            program,
            inputs,
            outputs,
            donors,
            arena_bytes,
            least_bytes,
            flops,
            moved,
            notes,
        })
    }

    /// What it reads, in the order of the tape: inputs that no chosen result needs are not among them.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// What it computes, in the order they were chosen.
    pub fn outputs(&self) -> &[Port] {
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
        let shapes: Vec<&Shape> = self.notes.iter().map(|(shape, _)| shape).collect();
        peak::find(self.program.steps(), &shapes)
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

    /// Runs on arrays by name and gives back all outputs. For tests and small work: it allocates and
    /// copies.
    pub fn run(&self, device: &Device, arrays: &[(&str, &Array)]) -> Result<Vec<Array>> {
        let arena = device.alloc(self.arena_bytes)?;
        let mut inputs: Vec<Buffer> = Vec::new();
        for port in &self.inputs {
            let found = arrays.iter().find(|(name, _)| *name == port.name);
            let Some((_, array)) = found else {
                return Err(Error::Plan(format!(
                    "no array was given for input `{}`",
                    port.name
                )));
            };
            if array.dtype() != port.dtype || *array.shape() != port.shape {
                let (dtype, shape) = (array.dtype(), array.shape());
                let reason = format!(
                    "input `{}` is {} {}, not {dtype} {shape}",
                    port.name, port.dtype, port.shape
                );
                return Err(Error::Plan(reason));
            }
            inputs.push(device.alloc(port.bytes())?);
            inputs[inputs.len() - 1].write(0, array.bytes())?;
        }
        let mut outputs: Vec<Buffer> = Vec::new();
        for (port, donor) in self.outputs.iter().zip(&self.donors) {
            if donor.is_none() {
                outputs.push(device.alloc(port.bytes())?);
            }
        }
        self.execute(
            device,
            arena.view(0, arena.bytes()),
            &whole(&inputs),
            &whole(&outputs),
        )?;
        let mut own = outputs.iter();
        let read = |(port, donor): (&Port, &Option<usize>)| {
            let buffer = match donor {
                Some(input) => &inputs[*input],
                None => own.next().expect("a buffer per output"),
            };
            let mut bytes = vec![0; port.bytes()];
            buffer.read(0, &mut bytes)?;
            Ok(Array::from_bytes(port.dtype, port.shape.clone(), &bytes)
                .expect("as many bytes as the port says"))
        };
        self.outputs.iter().zip(&self.donors).map(read).collect()
    }
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

fn nodes(tape: &Tape) -> Vec<crate::tape::Node> {
    (0..tape.len()).map(|id| tape.node(id)).collect()
}

/// For each output the input that it goes over.
fn donors(inputs: &[Port], outputs: &[Port], over: &[(usize, &str)]) -> Result<Vec<Option<usize>>> {
    let mut donors = vec![None; outputs.len()];
    for &(output, name) in over {
        let input = inputs.iter().position(|port| port.name == name);
        let fits = |input: usize| {
            outputs.get(output).is_some_and(|out| {
                out.shape == inputs[input].shape && out.dtype == inputs[input].dtype
            })
        };
        let Some(input) = input.filter(|&input| fits(input) && !donors.contains(&Some(input)))
        else {
            return Err(Error::Plan(format!(
                "output {output} cannot be written over input `{name}`"
            )));
        };
        donors[output] = Some(input);
    }
    Ok(donors)
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
