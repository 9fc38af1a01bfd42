//! What data is: element types, shapes, host arrays, and their files.

mod array;
mod dtype;
mod shape;

pub use array::{Array, ArrayError, Data};
pub use dtype::DType;
pub use shape::Shape;
