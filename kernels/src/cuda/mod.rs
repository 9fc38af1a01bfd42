//! NVIDIA GPUs, through the CUDA driver library, which is opened when a device is asked for.
//!
//! `lower` turns a checked program into launches, `order` says which wait for which, `merge` which become
//! one, `graph` makes a CUDA graph of them, and `ready` replays it; `device` has the device itself. All types
//! of the driver's bindings stay in this module. Without the feature `cuda` only `absent` is compiled.

#[cfg(not(feature = "cuda"))]
mod absent;
#[cfg(feature = "cuda")]
mod args;
#[cfg(feature = "cuda")]
mod device;
#[cfg(feature = "cuda")]
mod graph;
#[cfg(feature = "cuda")]
mod lower;
#[cfg(feature = "cuda")]
mod merge;
#[cfg(feature = "cuda")]
mod modules;
#[cfg(feature = "cuda")]
mod order;
#[cfg(feature = "cuda")]
mod probe;
#[cfg(feature = "cuda")]
mod ready;
#[cfg(feature = "cuda")]
mod refused;
#[cfg(feature = "cuda")]
mod spare;
#[cfg(feature = "cuda")]
mod times;

#[cfg(not(feature = "cuda"))]
pub use absent::Cuda;
#[cfg(not(feature = "cuda"))]
pub(crate) use absent::{CudaMemory, Ready};
#[cfg(feature = "cuda")]
pub use device::Cuda;
#[cfg(feature = "cuda")]
pub(crate) use device::CudaMemory;
#[cfg(feature = "cuda")]
pub(crate) use ready::Ready;

/// How a CUDA device multiplies matrices, convolutions included; sums are in f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Exact f32, without tensor cores.
    Fp32,
    /// Tensor cores; operands rounded to 10 bits of mantissa.
    #[default]
    Tf32,
    /// Tensor cores; operands rounded to 7 bits of mantissa.
    Bf16,
}

/// What there is to say about a CUDA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaFacts {
    /// As its maker calls it.
    pub name: String,
    /// The CUDA version that the driver serves: major and minor.
    pub driver: [u32; 2],
    /// Compute capability: major and minor.
    pub capability: [u32; 2],
    /// Bytes of its memory that are free.
    pub free_bytes: usize,
    /// Bytes of its memory.
    pub total_bytes: usize,
}
