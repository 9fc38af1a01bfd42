//! Fused element-wise programs: what a [`Map`] is.

use crate::Float;
use tensor::DType;

/// A fused element-wise program over an iteration space, with optional sums at its end.
///
/// For every point of `extents` the instructions are evaluated in order (value `i` is the result of
/// `code[i]`), then the stores write values. It runs block by block in cache: intermediate values never
/// reach memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// The type that all values have; loads and stores convert.
    pub float: Float,
    /// The iteration space, row-major.
    pub extents: Vec<usize>,
    /// How inputs are read; `loads[i]` reads input operand `i`.
    pub loads: Vec<Load>,
    /// Instructions in evaluation order.
    pub code: Vec<Instr>,
    /// What is written; `stores[i]` writes output operand `i`.
    pub stores: Vec<Store>,
}

/// Reads one input as a strided view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Load {
    /// Element type in memory.
    pub dtype: DType,
    /// Elements to move per step along each axis of the iteration space; 0 broadcasts.
    pub strides: Vec<usize>,
}

/// Writes one value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// Index of the value in [`Map::code`].
    pub value: usize,
    /// Element type in memory.
    pub dtype: DType,
    /// Every element, or sums.
    pub kind: StoreKind,
}

/// What a [`Store`] writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StoreKind {
    /// Every element, contiguous in the order of the iteration space. It may write over an input that
    /// has the same type and is read contiguously: each block reads all it needs before it writes.
    Full,
    /// Sums over the axes where the flag is true; the kept axes in their order. The order of additions
    /// depends on the extents and the flags only: not on threads, nor on what else the map does.
    Sum(Vec<bool>),
}

/// One instruction of a [`Map`]; operands are indices of earlier instructions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Instr {
    /// The element of the given load.
    Load(usize),
    /// A number.
    Const(f64),
    /// The index along the given axis of the iteration space.
    Iota(usize),
    /// A function of one value.
    Unary(Unary, usize),
    /// A function of two values.
    Binary(Binary, usize, usize),
    /// The second where the first is not zero, else the third.
    Select(usize, usize, usize),
}

impl Instr {
    /// The values that it works on.
    pub fn operands(&self) -> impl Iterator<Item = usize> {
        let (operands, count) = match *self {
            Self::Load(_) | Self::Const(_) | Self::Iota(_) => ([0; 3], 0),
            Self::Unary(_, x) => ([x, 0, 0], 1),
            Self::Binary(_, x, y) => ([x, y, 0], 2),
            Self::Select(x, y, z) => ([x, y, z], 3),
        };
        operands.into_iter().take(count)
    }

    /// The same on other values.
    #[must_use]
    pub fn with_operands(self, to: impl Fn(usize) -> usize) -> Self {
        match self {
            Self::Load(_) | Self::Const(_) | Self::Iota(_) => self,
            Self::Unary(op, x) => Self::Unary(op, to(x)),
            Self::Binary(op, x, y) => Self::Binary(op, to(x), to(y)),
            Self::Select(x, y, z) => Self::Select(to(x), to(y), to(z)),
        }
    }
}

/// Element-wise functions of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// −x
    Neg,
    /// eˣ
    Exp,
    /// ln x
    Log,
    /// √x
    Sqrt,
    /// 1/√x
    Rsqrt,
    /// tanh x
    Tanh,
    /// 1/(1 + e⁻ˣ)
    Sigmoid,
    /// |x|
    Abs,
    /// −1, 0 or 1
    Sign,
    /// xⁿ by repeated multiplication (square-and-multiply); the reciprocal of it for negative n.
    PowI(i32),
}

/// Element-wise functions of two arguments. Comparisons give 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// x + y
    Add,
    /// x − y
    Sub,
    /// x · y
    Mul,
    /// x / y
    Div,
    /// The greater; NaN if either is.
    Max,
    /// The smaller; NaN if either is.
    Min,
    /// x < y
    Less,
    /// x ≤ y
    LessEq,
    /// x = y
    Equal,
}
