//! Programs: kernels in order, over slots of memory.

use crate::{Device, Kernel, View, cpu};

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
    /// What it writes.
    pub outputs: Vec<Operand>,
    /// Where its [`Kernel::workspace`] lies, if it needs any.
    pub workspace: Option<Operand>,
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
}

/// A checked list of steps.
#[derive(Clone, Debug)]
pub struct Program {
    slots: Vec<Slot>,
    steps: Vec<Step>,
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
