//! Host arrays: a shape and the numbers.

use crate::{DType, Shape};
use half::{bf16, f16};

/// The numbers of an [`Array`], by element type.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// [`DType::F32`]
    F32(Vec<f32>),
    /// [`DType::F64`]
    F64(Vec<f64>),
    /// [`DType::BF16`]
    BF16(Vec<bf16>),
    /// [`DType::F16`]
    F16(Vec<f16>),
    /// [`DType::U8`]
    U8(Vec<u8>),
    /// [`DType::I32`]
    I32(Vec<i32>),
    /// [`DType::U32`]
    U32(Vec<u32>),
}

/// An array in host memory: row-major numbers and their shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    shape: Shape,
    data: Data,
}
