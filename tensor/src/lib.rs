//! What data is: element types, shapes, host arrays, and their files.

mod array;
mod dtype;
mod files;
mod shape;

pub use array::{Array, ArrayError, Data};
pub use dtype::DType;
pub use files::{
    Arrays, Fault, FileError, Metadata, read_npz, read_safetensors, safetensors_bytes,
    safetensors_from_bytes, write_npz, write_safetensors,
};
pub use shape::Shape;
