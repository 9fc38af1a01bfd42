//! Fused element-wise programs: what a [`Map`] is.

use super::{Spec, bytes, product};
use crate::Float;
use strum::{IntoStaticStr, VariantNames};
use tensor::DType;

/// A fused element-wise program over an iteration space, with optional sums at its end.
///
/// For every point of `extents` the instructions are evaluated in order (value `i` is the result of
/// `code[i]`), then the stores write values. It runs block by block in cache: intermediate values never
/// reach memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instr {
    /// The element of the given load.
    Load(usize),
    /// A number, by the bits of an f64, so that NaN is equal to itself.
    Const(u64),
    /// The index along the given axis of the iteration space.
    Iota(usize),
    /// A function of one value.
    Unary(Unary, usize),
    /// A function of two values.
    Binary(Binary, usize, usize),
    /// The second where the first is not zero, else the third.
    Select(usize, usize, usize),
}

impl Map {
    /// Points of the iteration space.
    pub fn points(&self) -> usize {
        product(&self.extents)
    }

    /// Which values the stores need, directly or through other values.
    pub fn needed(&self) -> Vec<bool> {
        let mut needed = vec![false; self.code.len()];
        let stored = self.stores.iter().map(|store| store.value);
        stored.for_each(|value| needed[value] = true);
        for (at, instr) in self.code.iter().enumerate().rev() {
            if needed[at] {
                instr.operands().for_each(|x| needed[x] = true);
            }
        }
        needed
    }

    fn check_instr(&self, at: usize) -> Result<(), String> {
        match self.code[at] {
            Instr::Load(load) if load >= self.loads.len() => {
                return Err(format!("load {load} of {}", self.loads.len()));
            }
            Instr::Iota(axis) if axis >= self.extents.len() => {
                return Err(format!("axis {axis} of {}", self.extents.len()));
            }
            _ => {}
        }
        match self.code[at].operands().find(|&operand| operand >= at) {
            Some(operand) => Err(format!("value {operand} is not computed yet")),
            None => Ok(()),
        }
    }
}

impl Spec for Map {
    fn name(&self) -> &'static str {
        let sums = self.stores.iter().any(Store::is_sum);
        if sums { "map-sum" } else { "map" }
    }

    fn check(&self) -> Result<(), String> {
        let axes = self.extents.len();
        for (i, load) in self.loads.iter().enumerate() {
            let strides = load.strides.len();
            if strides != axes {
                return Err(format!("load {i} has {strides} strides for {axes} axes"));
            }
        }
        for at in 0..self.code.len() {
            let checked = self.check_instr(at);
            checked.map_err(|reason| format!("instruction {at}: {reason}"))?;
        }
        let mut sums = None;
        for (i, store) in self.stores.iter().enumerate() {
            let (value, values) = (store.value, self.code.len());
            if value >= values {
                return Err(format!("store {i} of value {value}, of {values}"));
            }
            let StoreKind::Sum(flags) = &store.kind else {
                continue;
            };
            if flags.len() != axes {
                let flags = flags.len();
                return Err(format!("store {i} has {flags} flags for {axes} axes"));
            }
            if sums.is_some_and(|sums| sums != flags) {
                return Err(format!(
                    "store {i} sums over other axes than the store before it"
                ));
            }
            sums = Some(flags);
        }
        Ok(())
    }

    fn extents(&self) -> Vec<Vec<usize>> {
        let spans = self
            .loads
            .iter()
            .map(|load| vec![load.reach(&self.extents)]);
        spans.chain([self.extents.clone()]).collect()
    }

    fn inputs(&self) -> Vec<(DType, usize)> {
        let input = |load: &Load| (load.dtype, load.span(&self.extents));
        self.loads.iter().map(input).collect()
    }

    fn outputs(&self) -> Vec<(DType, usize)> {
        let output = |store: &Store| (store.dtype, store.count(&self.extents));
        self.stores.iter().map(output).collect()
    }

    fn flops(&self) -> u64 {
        let instructions = self.code.iter().map(Instr::flops).sum::<u64>();
        let sums = self.stores.iter().filter(|store| store.is_sum()).count() as u64;
        (self.points() as u64).saturating_mul(instructions + sums)
    }

    fn bytes_read(&self) -> u64 {
        let distinct = |load: &Load| {
            let extents = &self.extents;
            (load.dtype, load.distinct(extents).min(load.span(extents)))
        };
        bytes(&self.loads.iter().map(distinct).collect::<Vec<_>>())
    }
}

impl Load {
    /// Elements from the first to the last that is read, both counted.
    fn span(&self, extents: &[usize]) -> usize {
        if extents.contains(&0) {
            return 0;
        }
        let steps = extents
            .iter()
            .zip(&self.strides)
            .map(|(&n, &stride)| (n - 1).saturating_mul(stride));
        steps.fold(1, usize::saturating_add)
    }

    /// The larger of the greatest stride and the span with every extent at least 1. No index that is computed
    /// from these strides is greater, also where an extent is 0.
    fn reach(&self, extents: &[usize]) -> usize {
        let extents: Vec<usize> = extents.iter().map(|&n| n.max(1)).collect();
        let strides = self.strides.iter().copied();
        strides.fold(self.span(&extents), usize::max)
    }

    /// Elements that are read, if points that differ along an axis with a stride never read the same one.
    fn distinct(&self, extents: &[usize]) -> usize {
        let along = extents
            .iter()
            .zip(&self.strides)
            .filter(|&(_, &stride)| stride > 0);
        along.fold(1, |product, (&n, _)| product.saturating_mul(n))
    }

    /// Whether it reads one element after another, in the order of the iteration space.
    pub(crate) fn is_contiguous(&self, extents: &[usize]) -> bool {
        let mut expected = 1;
        for (&n, &stride) in extents.iter().zip(&self.strides).rev() {
            if n != 1 && stride != expected {
                return false;
            }
            expected = expected.saturating_mul(n);
        }
        true
    }
}

impl Store {
    /// Elements written.
    fn count(&self, extents: &[usize]) -> usize {
        match &self.kind {
            StoreKind::Full => product(extents),
            StoreKind::Sum(flags) => {
                let kept = extents.iter().zip(flags).filter(|&(_, &summed)| !summed);
                kept.fold(1, |product, (&n, _)| product.saturating_mul(n))
            }
        }
    }

    pub(crate) fn is_sum(&self) -> bool {
        matches!(self.kind, StoreKind::Sum(_))
    }
}

impl Instr {
    /// A number.
    pub fn constant(value: f64) -> Self {
        Self::Const(value.to_bits())
    }

    /// The values that it works on.
    pub fn operands(&self) -> impl Iterator<Item = usize> + use<> {
        let (operands, count) = match *self {
            Self::Load(_) | Self::Const(_) | Self::Iota(_) => ([0; 3], 0),
            Self::Unary(_, x) => ([x, 0, 0], 1),
            Self::Binary(_, x, y) => ([x, y, 0], 2),
            Self::Select(x, y, z) => ([x, y, z], 3),
        };
        operands.into_iter().take(count)
    }

    /// Time per point, in units of an addition. Moving an element to or from memory takes five.
    pub(crate) fn cost(&self) -> usize {
        match *self {
            Self::Load(_) => 5,
            Self::Const(_) | Self::Iota(_) => 0,
            Self::Unary(f, _) => f.cost(),
            Self::Binary(f, ..) => f.cost(),
            Self::Select(..) => 1,
        }
    }

    fn flops(&self) -> u64 {
        match *self {
            Self::Load(_) | Self::Const(_) | Self::Iota(_) => 0,
            Self::Unary(f, _) => f.flops(),
            Self::Binary(..) | Self::Select(..) => 1,
        }
    }

    /// The same instruction, with its operands renumbered.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
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
    /// 1/cosh² x, the slope of tanh
    TanhSlope,
    /// σ(x)·σ(−x), the slope of sigmoid
    SigmoidSlope,
    /// ln(1 + eˣ)
    Softplus,
    /// ln(1 + x)
    #[strum(serialize = "log1p")]
    Log1p,
    /// eˣ − 1
    #[strum(serialize = "expm1")]
    Expm1,
    /// sin x
    Sin,
    /// cos x
    Cos,
    /// The error function, 2/√π · ∫₀ˣ e^−t² dt
    Erf,
    /// 1 − erf x
    Erfc,
    /// |x|
    Abs,
    /// −1, 0 or 1; NaN of NaN
    Sign,
    /// xⁿ by repeated multiplication (square-and-multiply); the reciprocal of it for negative n.
    #[strum(serialize = "powi")]
    PowI(i32),
}

impl Unary {
    /// Time per element, in units of an addition: a rough count of the instructions of the CPU's vector
    /// loops.
    pub fn cost(self) -> usize {
        match self {
            Self::Exp | Self::Log | Self::Tanh | Self::Sigmoid => 10,
            Self::TanhSlope | Self::SigmoidSlope | Self::Log1p | Self::Expm1 => 10,
            Self::Softplus | Self::Sin | Self::Cos => 20,
            Self::Erf | Self::Erfc => 60,
            Self::Sqrt | Self::Rsqrt => 4,
            Self::Neg | Self::Abs | Self::Sign | Self::PowI(_) => 1,
        }
    }

    /// Floating-point operations: the multiplications of a power, else one.
    fn flops(self) -> u64 {
        let Self::PowI(n) = self else { return 1 };
        let n = n.unsigned_abs();
        u64::from((n.max(1).ilog2() + n.count_ones()).saturating_sub(1).max(1))
    }
}

/// Element-wise functions of two arguments. Comparisons give 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Binary {
    /// x + y
    Add,
    /// x − y
    Sub,
    /// x · y
    Mul,
    /// x · y, where zero wins: 0·∞ and 0·NaN are 0
    StrongMul,
    /// x / y
    Div,
    /// xʸ; NaN for a finite x < 0 if y is not a whole number
    Pow,
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

impl Binary {
    /// As [`Unary::cost`].
    pub fn cost(self) -> usize {
        match self {
            Self::Pow => 40,
            Self::Div => 4,
            _ => 1,
        }
    }
}
