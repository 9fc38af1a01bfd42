//! What a device can do: memory, and programs of kernels.
//!
//! A [`Program`] is a list of [`Step`]s over numbered slots of memory. It is checked once, when it is made,
//! and made ready once for the device that runs it, the processor or a CUDA device; then it runs any number of
//! times without a check per element or an allocation. This crate holds all of the project's `unsafe` code.
//!
//! CUDA devices are the feature `cuda`, on by default; without it, opening one is an error.
//!
//! Each module uses only those listed before it: `spec` and `kernel` (what kernels are), `memory`, `bound`
//! (steps whose arrays were checked), `cpu` and `cuda`, `device`, `program`.

// The tests in here share helpers with those in `tests/`, which know the crate by its name.
#[cfg(test)]
extern crate self as kernels;

mod bound;
mod cpu;
mod cuda;
mod device;
mod error;
mod host;
mod kernel;
mod memory;
mod program;
mod spec;

pub use bound::{Lap, Operand, Slot, Step};
pub use cpu::{Cpu, Simd};
pub use cuda::{Cuda, CudaFacts, Precision};
pub use device::{Buffer, Device};
pub use error::{DeviceError, ProgramError};
pub use host::host_free_bytes;
pub use kernel::Kernel;
pub use memory::View;
pub use program::Program;
pub use spec::{
    ArgMax, Binary, Concat, Conv, ConvKind, Distribution, Instr, Load, Map, MatMul, Pad, Pair,
    Random, Ratio, Reversible, ReversibleKind, Rows, Store, StoreKind, Take, Unary, Window,
    WindowKind,
};

/// The element types that arithmetic is done in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Float {
    /// 32-bit.
    F32,
    /// 64-bit.
    F64,
}

impl Float {
    /// The type of a dtype; `None` if arithmetic is not done in it.
    pub fn of(dtype: tensor::DType) -> Option<Self> {
        match dtype {
            tensor::DType::F32 => Some(Self::F32),
            tensor::DType::F64 => Some(Self::F64),
            _ => None,
        }
    }

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

impl From<Float> for tensor::DType {
    fn from(float: Float) -> Self {
        match float {
            Float::F32 => Self::F32,
            Float::F64 => Self::F64,
        }
    }
}
