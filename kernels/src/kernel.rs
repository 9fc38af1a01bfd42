//! The kernels a device has, what each reads and writes, and what it costs.

use crate::{
    ArgMax, Concat, Conv, ConvKind, Float, Map, MatMul, Pad, Rows, StoreKind, Take, Window,
    WindowKind,
};
use tensor::DType;

/// Counter-based random numbers (Philox 4x32-10, Salmon et al. 2011). Input: u32 \[4\] = seed low, seed
/// high, outer step, inner step. Output: `count` numbers; element `i` depends on the key, `op` and `i` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Random {
    /// Element type of the output.
    pub float: Float,
    /// What is drawn.
    pub distribution: Distribution,
    /// How many.
    pub count: usize,
    /// Tells apart several draws under one key.
    pub op: u32,
}

/// What a [`Random`] kernel draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// Uniform in [0, 1).
    Uniform,
    /// Standard normal (Box–Muller).
    Normal,
}

/// One kernel with its shapes.
#[derive(Clone, Debug, PartialEq)]
pub enum Kernel {
    /// Fused element-wise program.
    Map(Map),
    /// Matrix product.
    MatMul(MatMul),
    /// Convolution or one of its transposes.
    Conv(Conv),
    /// Pooling windows.
    Window(Float, Window),
    /// Zero border.
    Pad(DType, Pad),
    /// Concatenation.
    Concat(DType, Concat),
    /// Constant indices along an axis.
    Take(Float, Take),
    /// Rows by an index array.
    Rows(Float, Rows),
    /// Index of the greatest.
    ArgMax(Float, ArgMax),
    /// Random numbers.
    Random(Random),
}
