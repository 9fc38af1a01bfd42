//! The primitives.

use kernels::{Binary, Kernel, Unary};
use strum::{IntoStaticStr, VariantNames};
use tensor::{Array, DType};

/// A primitive operation with its attributes. Shapes of results stand in the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub(crate) enum Op {
    // Leaves.
    /// A name for messages, and a number that no other input of the tape has.
    Input(String, usize),
    Perturbation(usize),
    /// The bits of an f64, so that equal constants are one entry.
    #[strum(serialize = "constant")]
    Const(u64),
    Iota(usize),
    // Element by element; all float operands have the result's shape.
    Unary(Unary),
    Binary(Binary),
    Select,
    Cast(DType),
    StopGradient,
    /// The first operand, with the derivative of the second.
    StraightThrough,
    // Views.
    Reshape,
    Permute(Vec<usize>),
    /// Axes of extent 1 repeated to the node's shape.
    Broadcast,
    /// The part of the operand that has the node's shape and starts at this index along each axis.
    Slice(Vec<usize>),
    // Reduction: sums over the flagged axes, which keep extent 1.
    Sum(Vec<bool>),
    /// An operation that devices have a kernel for.
    Kernel(Kernel),
}

impl Op {
    /// A constant of this type, as an array of it would hold the value.
    pub(crate) fn constant(value: f64, dtype: DType) -> Self {
        let nearest = match dtype {
            DType::F64 => value,
            DType::F32 => f64::from(value as f32),
            _ => Array::scalar(value, dtype).to_f64_vec()[0],
        };
        Self::Const(nearest.to_bits())
    }

    /// A word for messages and print-outs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Unary(f) => f.into(),
            Self::Binary(f) => f.into(),
            Self::Kernel(kernel) => kernel.into(),
            op => op.into(),
        }
    }

    /// Its name in messages: for an input the name that it was given.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Input(name, _) => name.clone(),
            op => op.name().to_owned(),
        }
    }

    /// A matrix product or a convolution.
    pub(crate) fn is_contraction(&self) -> bool {
        matches!(self, Self::Kernel(Kernel::MatMul(_) | Kernel::Conv(_)))
    }
}
