//! What can go wrong.

use crate::Simd;

/// What can go wrong with a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The device has not enough memory.
    #[error(
        "out of memory: {wanted} bytes wanted on {device}, {held} already held by this program"
    )]
    OutOfMemory {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes held.
        held: usize,
        /// The device's name.
        device: String,
    },
    /// The processor does not have these vector instructions.
    #[error("this processor has no {wanted}: {detected} is its best level of vector instructions")]
    Simd {
        /// The level asked for.
        wanted: Simd,
        /// The best level that the processor has.
        detected: Simd,
    },
    /// There is no usable CUDA device.
    #[error("no usable CUDA device: {0}")]
    NoCuda(String),
    /// The CUDA driver refused or failed.
    #[error("CUDA device: {what}: {reason}")]
    Cuda {
        /// What was asked of it.
        what: &'static str,
        /// The driver's code, and what to do.
        reason: String,
    },
    /// A kernel met an index outside its array. A CUDA device reports it when a result is read.
    #[error("{0}")]
    Fault(String),
    /// The threads could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system said.
        reason: String,
    },
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
