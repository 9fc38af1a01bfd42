//! The primitives, and how each is differentiated.
//!
//! A primitive has one derivative entry, from which both directions follow (compare JAX's `deflinear`,
//! `defbilinear`). Entries record primitives, so derivatives have derivatives, to any order.

use crate::error::Result;
use crate::ops::{contraction, elementwise, index, shape};
use crate::tape::Var;
use kernels::{ArgMax, Binary, Conv, MatMul, Random, Reversible, Rows, Take, Unary, Window};
use tensor::DType;

/// A primitive operation with its attributes. Shapes of results stand in the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    // Leaves.
    /// A name for messages, and a number that no other input of the tape has.
    Input(String, usize),
    Perturbation(usize),
    /// The bits of an f64, so that equal constants are one entry.
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
    /// A box of the node's shape that starts here.
    Slice(Vec<usize>),
    // Movers.
    Pad {
        before: Vec<usize>,
        after: Vec<usize>,
    },
    Concat(usize),
    Take(Take),
    // Reduction: sums over the flagged axes, which keep extent 1.
    Sum(Vec<bool>),
    // Contractions.
    MatMul(MatMul),
    Conv(Conv),
    // Indices.
    ArgMax(ArgMax),
    Rows(Rows),
    Window(Window),
    Random(Random),
    // Fixed point.
    Reversible(Reversible),
}

impl Op {
    pub(crate) fn constant(value: f64) -> Self {
        Self::Const(value.to_bits())
    }

    /// A word for messages and print-outs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Input(..) => "input",
            Self::Perturbation(_) => "perturbation",
            Self::Const(_) => "constant",
            Self::Iota(_) => "iota",
            Self::Unary(op) => elementwise::unary_name(*op),
            Self::Binary(op) => elementwise::binary_name(*op),
            Self::Select => "select",
            Self::Cast(_) => "cast",
            Self::StopGradient => "stop_gradient",
            Self::StraightThrough => "straight_through",
            Self::Reshape => "reshape",
            Self::Permute(_) => "permute",
            Self::Broadcast => "broadcast",
            Self::Slice(_) => "slice",
            Self::Pad { .. } => "pad",
            Self::Concat(_) => "concat",
            Self::Take(_) => "take",
            Self::Sum(_) => "sum",
            Self::MatMul(_) => "matmul",
            Self::Conv(_) => "conv",
            Self::ArgMax(_) => "argmax",
            Self::Rows(_) => "rows",
            Self::Window(_) => "window",
            Self::Random(_) => "random",
            Self::Reversible(_) => "reversible",
        }
    }

    /// As people call it: an input by its own name.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Input(name, _) => name.clone(),
            op => op.name().to_owned(),
        }
    }

    /// The derivative entry.
    pub(crate) fn rule(&self) -> Rule {
        match self {
            Self::Input(..) | Self::Perturbation(_) | Self::Const(_) | Self::Iota(_) => {
                Rule::Constant
            }
            Self::StopGradient | Self::ArgMax(_) | Self::Random(_) | Self::Reversible(_) => {
                Rule::Constant
            }
            Self::StraightThrough => elementwise::STRAIGHT_THROUGH,
            Self::Unary(op) => elementwise::unary_rule(*op),
            Self::Binary(op) => elementwise::binary_rule(*op),
            Self::Select => elementwise::SELECT,
            Self::Cast(to) => elementwise::cast_rule(*to),
            Self::Reshape => shape::RESHAPE,
            Self::Permute(_) => shape::PERMUTE,
            Self::Broadcast => shape::BROADCAST,
            Self::Slice(_) => shape::SLICE,
            Self::Pad { .. } => shape::PAD,
            Self::Concat(_) => shape::CONCAT,
            Self::Take(_) => shape::TAKE,
            Self::Sum(_) => shape::SUM,
            Self::MatMul(_) => contraction::MATMUL,
            Self::Conv(_) => contraction::CONV,
            Self::Rows(_) => index::ROWS,
            Self::Window(window) => index::window_rule(window),
        }
    }
}

/// One application of a primitive, as derivative entries see it.
pub(crate) struct Applied<'t> {
    pub(crate) op: Op,
    pub(crate) args: Vec<Var<'t>>,
    pub(crate) out: Var<'t>,
}

/// The cotangent of argument number `.2`, given that of the result, `.1`.
pub(crate) type Transpose = for<'t> fn(&Applied<'t>, Var<'t>, usize) -> Result<Var<'t>>;

/// The factor from argument to result, element by element; `None` where it is zero everywhere.
pub(crate) type Partial = for<'t> fn(&Applied<'t>, usize) -> Result<Option<Var<'t>>>;

/// How a primitive is differentiated.
pub(crate) enum Rule {
    /// The result does not change with the arguments (or jumps: the derivative is zero where it exists).
    Constant,
    /// Jointly linear in all arguments but the `fixed` ones. The tangent of a linear operation is the
    /// operation itself.
    Linear {
        fixed: &'static [usize],
        transpose: Transpose,
    },
    /// Linear in each of two arguments: the tangent is op(ẋ, y) + op(x, ẏ).
    Bilinear(Transpose),
    /// Element-wise: tangents and cotangents are multiplied by the partials.
    Pointwise(Partial),
    /// There is none; the reason, and what to do.
    Undefined(&'static str),
}
