//! What a device can do: memory, and programs of kernels.
//!
//! A [`Program`] is a list of [`Step`]s over numbered slots of memory. It is checked once, when it is
//! made, and can then run any number of times without a check per element or an allocation.
//! It runs on the processor or on a CUDA device; the two agree on what every kernel computes and on how much
//! scratch memory it needs. This crate holds all of the project's `unsafe` code.

// The tests in here share helpers with those in `tests/`, which know the crate by its name.
#[cfg(test)]
extern crate self as kernels;

mod cpu;
mod cuda;
mod device;
mod kernel;
mod memory;
mod program;
mod spec;

pub use device::{Buffer, CudaFacts, Device, DeviceError, Precision, View};
pub use kernel::Kernel;
pub use program::{Lap, Operand, Program, ProgramError, Slot, Step};
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
