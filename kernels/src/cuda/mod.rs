//! NVIDIA GPUs, through the CUDA driver library, which is opened when a device is asked for.
//!
//! [`lower`] turns a checked program into launches, [`ready`] captures them once as a CUDA graph and replays it;
//! [`device`] has the device itself. All types of the driver's bindings stay in this module.

mod args;
mod device;
mod lower;
mod modules;
mod probe;
mod ready;

pub use device::Cuda;
pub(crate) use device::CudaMemory;
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
