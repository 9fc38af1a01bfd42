//! The element types of arrays.

use std::fmt;

/// The type of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// 32-bit float: the working type.
    F32,
    /// 64-bit float: what gradient checks use.
    F64,
    /// bfloat16: storage only, computed in `F32`.
    BF16,
    /// IEEE half precision: storage only, computed in `F32`.
    F16,
    /// Bytes: pixels, window offsets.
    U8,
    /// Indices and labels.
    I32,
    /// Random bits and keys.
    U32,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::U8 => 1,
            DType::BF16 | DType::F16 => 2,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F64 => 8,
        }
    }

    /// Whether it is a floating-point type. Only floats have derivatives.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::BF16 | DType::F16)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::BF16 => "bf16",
            DType::F16 => "f16",
            DType::U8 => "u8",
            DType::I32 => "i32",
            DType::U32 => "u32",
        })
    }
}
