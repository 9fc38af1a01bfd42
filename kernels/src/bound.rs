//! Checked steps, and the memory that they run on: all that backends know of a program.

use crate::memory::{View, overlap};
use crate::{Kernel, StoreKind};
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
    /// What it writes. Outputs must not overlap each other, the workspace or the inputs. There is one
    /// exception: see [`StoreKind::Full`].
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

/// A range of a slot that was found to lie inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Array {
    pub(crate) slot: usize,
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    /// Bytes that its address must be a multiple of.
    pub(crate) alignment: usize,
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

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let range = |array: &Self| array.offset..array.offset + array.bytes;
        self.slot == other.slot && overlap(&range(self), &range(other))
    }
}

/// Where the arrays of a step lie, which was found sound.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub(crate) inputs: Vec<Array>,
    pub(crate) outputs: Vec<Array>,
    pub(crate) workspace: Array,
}

impl Bound {
    /// For a kernel that was checked, and needs `workspace` bytes of workspace.
    pub(crate) fn new(slots: &[Slot], step: &Step, workspace: usize) -> Result<Self, String> {
        let Step { kernel, .. } = step;
        let inputs = arrays(slots, "input", &step.inputs, &kernel.inputs())?;
        let outputs = arrays(slots, "output", &step.outputs, &kernel.outputs())?;
        let workspace = match (workspace, step.workspace) {
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
            inputs,
            outputs,
            workspace,
        })
    }

    pub(crate) fn arrays(&self) -> impl Iterator<Item = &Array> {
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
pub(crate) struct Memory<'a>(pub(crate) &'a [View<'a>]);

// SAFETY: views are addresses; the thread that borrows their buffers waits in `Program::run` until all others
// are done.
unsafe impl Sync for Memory<'_> {}

/// The memory of one step.
pub(crate) struct Arrays<'a> {
    pub(crate) bound: &'a Bound,
    pub(crate) memory: &'a Memory<'a>,
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
        // SAFETY: the array lies inside its slot (`Bound::new`), the slot inside its view (`Program::run`).
        let pointer = unsafe { self.memory.0[array.slot].start().add(array.offset) };
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

// SAFETY: a plain address. Who makes references from it (`slice`, `slice_mut`) promises that they are sound.
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
