//! Programs: kernels in order, over slots of memory.

use crate::cpu::Compiled;
use crate::cuda::{Cuda, replay::Replay};
use crate::{Device, DeviceError, Kernel, StoreKind, View};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tensor::DType;

/// Where an array lies: a slot of memory, and bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operand {
    /// Number of the slot.
    pub slot: usize,
    /// Bytes from the slot's start; a multiple of the element size.
    pub offset: usize,
}

/// A piece of memory that a program works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its size.
    pub bytes: usize,
    /// Whether the program may write to it.
    pub writable: bool,
}

/// One kernel and where its arrays lie.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What to do.
    pub kernel: Kernel,
    /// What it reads.
    pub inputs: Vec<Operand>,
    /// What it writes. Outputs must not overlap each other, the workspace or the inputs, but for one
    /// case: see [`StoreKind::Full`].
    pub outputs: Vec<Operand>,
    /// Where its [`Kernel::workspace`] lies, if it needs any: at a multiple of 8 bytes of its slot.
    pub workspace: Option<Operand>,
}

/// When a step ran, and how long it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lap {
    /// When it began.
    pub begin: Instant,
    /// From there to its end.
    pub time: Duration,
}

/// Why a program was refused, or failed.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// A step does not fit its kernel or its memory.
    #[error("step {step}: {reason}")]
    Step {
        /// Index of the step.
        step: usize,
        /// What is wrong.
        reason: String,
    },
    /// A view does not fit its slot.
    #[error("slot {slot}: {reason}")]
    Binding {
        /// Number of the slot.
        slot: usize,
        /// What is wrong.
        reason: String,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// A checked list of steps, for any device.
///
/// ```
/// use kernels::{Device, Float, Kernel, MatMul, Operand, Program, Slot, Step};
/// let square = MatMul {
///     float: Float::F64,
///     batch: 1,
///     m: 2,
///     n: 2,
///     k: 2,
///     transpose_a: false,
///     transpose_b: true,
///     accumulate: false,
/// };
/// let (input, output) = (Operand { slot: 0, offset: 0 }, Operand { slot: 1, offset: 0 });
/// let step = Step {
///     kernel: Kernel::MatMul(square),
///     inputs: vec![input, input],
///     outputs: vec![output],
///     workspace: None,
/// };
/// let slots = vec![Slot { bytes: 32, writable: false }, Slot { bytes: 32, writable: true }];
/// let program = Program::new(slots, vec![step])?;
///
/// let device = Device::cpu(None)?;
/// let (a, c) = (device.alloc(32)?, device.alloc(32)?);
/// a.write(0, bytemuck::cast_slice(&[1.0f64, 2.0, 3.0, 4.0]))?;
/// program.run(&device, &[a.view(0, 32), c.view(0, 32)])?;
/// let mut product = [0.0f64; 4];
/// c.read(0, bytemuck::cast_slice_mut(&mut product))?;
/// assert_eq!(product, [5.0, 11.0, 11.0, 25.0]); // A·Aᵀ
/// # Ok::<(), kernels::ProgramError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Program {
    slots: Vec<Slot>,
    /// For each slot, what its view's address is a multiple of: the size of the largest element in it.
    alignments: Vec<usize>,
    steps: Vec<Step>,
    bound: Vec<Bound>,
    /// What it became on the CUDA device that it ran on last.
    replay: Arc<Mutex<Option<Replay>>>,
}

impl Program {
    /// Checks everything that running relies on: every array lies inside its slot and is aligned, only
    /// writable slots are written to, and no step writes where it still reads.
    pub fn new(slots: Vec<Slot>, steps: Vec<Step>) -> Result<Self, ProgramError> {
        let bind = |(at, step)| {
            Bound::new(&slots, step).map_err(|reason| ProgramError::Step { step: at, reason })
        };
        let bound = steps
            .iter()
            .enumerate()
            .map(bind)
            .collect::<Result<Vec<_>, _>>()?;
        let mut alignments = vec![1; slots.len()];
        for array in bound.iter().flat_map(Bound::arrays) {
            let alignment = &mut alignments[array.slot];
            *alignment = array.alignment.max(*alignment);
        }
        Ok(Self {
            slots,
            alignments,
            steps,
            bound,
            replay: Arc::default(),
        })
    }

    /// Runs the steps in order, on one view per slot: of the slot's size or larger, starting at a multiple
    /// of its largest element (4 bytes if all of its arrays are f32, so a view may be any row of a larger
    /// array; 8 for workspace). The view of a writable slot must not overlap any other.
    ///
    /// On a CUDA device the run is queued, and this returns before it is done; what goes wrong in it is
    /// reported by the next call that reads a buffer. The first run makes the program ready for the device.
    pub fn run(&self, device: &Device, views: &[View<'_>]) -> Result<(), ProgramError> {
        self.check_views(device, views)?;
        if let Some(cuda) = device.as_cuda() {
            return self.replayed(cuda, views, Replay::run);
        }
        let memory = Memory(views);
        device.install(|| (0..self.bound.len()).try_for_each(|at| self.step(at, &memory)))
    }

    /// As [`Program::run`], with a lap for every step, in their order; returns when all are done. For finding
    /// out where time goes.
    ///
    /// A CUDA device launches kernel by kernel between events, for a graph cannot be looked into. A step then
    /// also takes what the host needs for a launch, where that is longer than the kernel.
    pub fn time(&self, device: &Device, views: &[View<'_>]) -> Result<Vec<Lap>, ProgramError> {
        self.check_views(device, views)?;
        if let Some(cuda) = device.as_cuda() {
            return self.replayed(cuda, views, Replay::time);
        }
        let memory = Memory(views);
        let lap = |at| {
            let begin = Instant::now();
            self.step(at, &memory)?;
            let time = begin.elapsed();
            Ok(Lap { begin, time })
        };
        device.install(|| (0..self.bound.len()).map(lap).collect())
    }

    /// Runs one step on the calling thread and its pool.
    fn step(&self, at: usize, memory: &Memory<'_>) -> Result<(), ProgramError> {
        let bound = &self.bound[at];
        let run = bound.compiled.run(&Arrays { bound, memory });
        run.map_err(|reason| ProgramError::Step { step: at, reason })
    }

    /// What `work` gives with the program made ready for the device, on memory at these addresses.
    fn replayed<R>(
        &self,
        cuda: &Arc<Cuda>,
        views: &[View<'_>],
        work: impl FnOnce(&Replay, &[u64]) -> Result<R, DeviceError>,
    ) -> Result<R, ProgramError> {
        let mut replay = self.replay.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = match replay.take() {
            Some(ready) if ready.is_for(cuda) => ready,
            _ => Replay::new(cuda, self.slots.len(), &self.steps, &self.bound)?,
        };
        let addresses: Vec<u64> = views.iter().map(|view| view.address() as u64).collect();
        Ok(work(replay.insert(ready), &addresses)?)
    }

    /// Its steps.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The memory it works on.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn check_views(&self, device: &Device, views: &[View<'_>]) -> Result<(), ProgramError> {
        let refuse = |slot, reason| Err(ProgramError::Binding { slot, reason });
        if views.len() != self.slots.len() {
            let reason = format!("{} views for {} slots", views.len(), self.slots.len());
            return refuse(views.len().min(self.slots.len()), reason);
        }
        for (at, (view, slot)) in views.iter().zip(&self.slots).enumerate() {
            if !view.is_for(device) {
                return refuse(at, format!("{view:?} cannot be reached by {device:?}"));
            }
            if view.bytes() < slot.bytes {
                return refuse(
                    at,
                    format!("a view of {} bytes; {} needed", view.bytes(), slot.bytes),
                );
            }
            let alignment = self.alignments[at];
            if !view.address().is_multiple_of(alignment) {
                let reason = format!("the view does not start at a multiple of {alignment} bytes");
                return refuse(at, reason);
            }
        }
        for (at, _) in self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.writable)
        {
            let mut others = views.iter().enumerate().filter(|&(other, _)| other != at);
            if let Some((other, _)) =
                others.find(|(_, other)| overlap(&other.range(), &views[at].range()))
            {
                return refuse(
                    at,
                    format!("writable, and its view overlaps that of slot {other}"),
                );
            }
        }
        Ok(())
    }
}

/// A range of a slot that was found to lie inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Array {
    pub(crate) slot: usize,
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    /// What its address is a multiple of.
    alignment: usize,
}

impl Array {
    /// No memory, for a kernel without workspace.
    const NONE: Self = Self {
        slot: 0,
        offset: 0,
        bytes: 0,
        alignment: 1,
    };

    fn new(
        slots: &[Slot],
        operand: Operand,
        alignment: usize,
        bytes: usize,
    ) -> Result<Self, String> {
        let Operand { slot, offset } = operand;
        let size = slots
            .get(slot)
            .ok_or_else(|| format!("slot {slot} of {}", slots.len()))?
            .bytes;
        if !offset.is_multiple_of(alignment) {
            return Err(format!(
                "offset {offset} is not a multiple of {alignment} bytes"
            ));
        }
        if offset.checked_add(bytes).is_none_or(|end| end > size) {
            return Err(format!(
                "{bytes} bytes at offset {offset} of slot {slot}, which has {size}"
            ));
        }
        Ok(Self {
            slot,
            offset,
            bytes,
            alignment,
        })
    }

    fn overlaps(&self, other: &Self) -> bool {
        let range = |array: &Self| array.offset..array.offset + array.bytes;
        self.slot == other.slot && overlap(&range(self), &range(other))
    }
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    !a.is_empty() && !b.is_empty() && a.start < b.end && b.start < a.end
}

/// A step that was found sound, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    compiled: Compiled,
    pub(crate) inputs: Vec<Array>,
    pub(crate) outputs: Vec<Array>,
    pub(crate) workspace: Array,
}

impl Bound {
    fn new(slots: &[Slot], step: &Step) -> Result<Self, String> {
        let Step { kernel, .. } = step;
        kernel
            .check()
            .map_err(|reason| format!("{}: {reason}", kernel.name()))?;
        let inputs = arrays(slots, "input", &step.inputs, &kernel.inputs())?;
        let outputs = arrays(slots, "output", &step.outputs, &kernel.outputs())?;
        let workspace = match (kernel.workspace(), step.workspace) {
            (0, _) => Array::NONE,
            (bytes, None) => return Err(format!("a workspace of {bytes} bytes is needed")),
            (bytes, Some(operand)) => Array::new(slots, operand, 8, bytes)
                .map_err(|reason| format!("workspace: {reason}"))?,
        };
        let written = || {
            outputs
                .iter()
                .chain([&workspace])
                .filter(|array| array.bytes > 0)
        };
        if let Some(array) = written().find(|array| !slots[array.slot].writable) {
            return Err(format!(
                "writes to slot {}, which is not writable",
                array.slot
            ));
        }
        check_overlaps(kernel, &inputs, &outputs, &workspace)?;
        Ok(Self {
            compiled: Compiled::new(kernel)?,
            inputs,
            outputs,
            workspace,
        })
    }

    fn arrays(&self) -> impl Iterator<Item = &Array> {
        let both = self.inputs.iter().chain(&self.outputs);
        both.chain(Some(&self.workspace).filter(|workspace| workspace.bytes > 0))
    }
}

fn arrays(
    slots: &[Slot],
    what: &str,
    operands: &[Operand],
    needed: &[(DType, usize)],
) -> Result<Vec<Array>, String> {
    if operands.len() != needed.len() {
        return Err(format!(
            "{} {what}s given, {} needed",
            operands.len(),
            needed.len()
        ));
    }
    let array = |(i, (&operand, &(dtype, count))): (usize, (&Operand, &(DType, usize)))| {
        let bytes = count.saturating_mul(dtype.size());
        Array::new(slots, operand, dtype.size(), bytes)
            .map_err(|reason| format!("{what} {i}: {reason}"))
    };
    operands.iter().zip(needed).enumerate().map(array).collect()
}

fn check_overlaps(
    kernel: &Kernel,
    inputs: &[Array],
    outputs: &[Array],
    workspace: &Array,
) -> Result<(), String> {
    for (o, output) in outputs.iter().enumerate() {
        if outputs[..o].iter().any(|other| other.overlaps(output)) {
            return Err(format!("output {o} overlaps another output"));
        }
        let mut clash = inputs
            .iter()
            .enumerate()
            .filter(|(_, input)| input.overlaps(output));
        if let Some((i, _)) =
            clash.find(|&(i, input)| input != output || !may_replace(kernel, i, o))
        {
            return Err(format!("output {o} overlaps input {i}"));
        }
    }
    if outputs
        .iter()
        .chain(inputs)
        .any(|array| array.overlaps(workspace))
    {
        return Err("the workspace overlaps an input or an output".into());
    }
    Ok(())
}

/// Whether output `o` may lie exactly where input `i` does: see [`StoreKind::Full`].
fn may_replace(kernel: &Kernel, i: usize, o: usize) -> bool {
    let Kernel::Map(map) = kernel else {
        return false;
    };
    let (load, store) = (&map.loads[i], &map.stores[o]);
    store.kind == StoreKind::Full && store.dtype == load.dtype && load.is_contiguous(&map.extents)
}

/// The views of all slots, shared by the threads that run the steps.
struct Memory<'a>(&'a [View<'a>]);

// SAFETY: only the addresses of the views are used, never their `&Buffer`; the thread that owns the
// buffers waits in `Program::run` until all others are done.
unsafe impl Sync for Memory<'_> {}

/// The memory of one step.
pub(crate) struct Arrays<'a> {
    bound: &'a Bound,
    memory: &'a Memory<'a>,
}

impl Arrays<'_> {
    pub(crate) fn input(&self, i: usize) -> Raw {
        self.raw(self.bound.inputs[i])
    }

    pub(crate) fn output(&self, i: usize) -> Raw {
        self.raw(self.bound.outputs[i])
    }

    pub(crate) fn workspace(&self) -> Raw {
        match self.bound.workspace {
            Array { bytes: 0, .. } => Raw {
                pointer: std::ptr::without_provenance_mut(64),
                bytes: 0,
            },
            array => self.raw(array),
        }
    }

    fn raw(&self, array: Array) -> Raw {
        // SAFETY: the array lies inside its slot (`Bound::new`), the slot inside its view (`check_views`).
        let pointer = unsafe { self.memory.0[array.slot].pointer().add(array.offset) };
        Raw {
            pointer,
            bytes: array.bytes,
        }
    }
}

/// A checked piece of memory, as kernels get it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw {
    pub(crate) pointer: *mut u8,
    pub(crate) bytes: usize,
}

// SAFETY: a plain address; whoever makes references from it answers for them.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl Raw {
    /// Where element `index` lies, in memory that holds values of type `T`.
    pub(crate) fn element<T>(self, index: usize) -> *mut T {
        let first = self.pointer.cast::<T>();
        debug_assert!(first.is_aligned(), "checked by `Program`");
        first.wrapping_add(index)
    }

    /// The elements.
    ///
    /// # Safety
    /// The memory holds values of type `T` at its alignment, and nobody writes to it during `'a`.
    pub(crate) unsafe fn slice<'a, T: bytemuck::Pod>(self) -> &'a [T] {
        // SAFETY: promised by the caller; all memory of a device is initialised.
        unsafe { std::slice::from_raw_parts(self.element(0), self.bytes / size_of::<T>()) }
    }

    /// The elements, to write to.
    ///
    /// # Safety
    /// As for [`Raw::slice`], and nobody else reads or writes during `'a`.
    pub(crate) unsafe fn slice_mut<'a, T: bytemuck::Pod>(self) -> &'a mut [T] {
        // SAFETY: promised by the caller; all memory of a device is initialised.
        unsafe { std::slice::from_raw_parts_mut(self.element(0), self.bytes / size_of::<T>()) }
    }
}
