//! Element by element: functions of one, two or three numbers.

use crate::error::{Result, refuse};
use crate::op::Op;
use crate::ops::float_of;
use crate::ops::shape::broadcast_shapes;
use crate::tape::{Tape, Var};
use kernels::{Binary, Float, Unary};
use std::ops::{Add, Div, Mul, Neg, Sub};
use tensor::DType;

/// How many operations back a simplification looks. Each has up to two operands to look at, so a
/// simplification visits at most 2⁶ operations; one more doubles that.
const BACK: usize = 6;

impl<'t> Var<'t> {
    pub(crate) fn unary(self, op: Unary) -> Result<Var<'t>> {
        let float = float_of(op.into(), &[self])?;
        if let Some(x) = self.as_constant() {
            return Ok(self.constant_like(op.eval(float, x)));
        }
        match op {
            Unary::PowI(0) => return Ok(self.constant_like(1.0)),
            Unary::PowI(1) => return Ok(self),
            Unary::PowI(n) if n % 2 == 0 => {
                if let Some(square) = self.square_of_root(BACK)? {
                    return square.powi(n / 2);
                }
            }
            Unary::Neg => {
                let node = self.tape().node(self.id);
                if node.op == Op::Unary(Unary::Neg) {
                    return Ok(self.tape().var(node.args[0]));
                }
            }
            _ => {}
        }
        let (shape, dtype) = (self.shape(), self.dtype());
        self.tape().push(Op::Unary(op), &[self], shape, dtype)
    }

    pub(crate) fn binary(self, op: Binary, other: Var<'t>) -> Result<Var<'t>> {
        let name = op.into();
        self.tape().expect_own(name, &[other])?;
        if self.dtype() != other.dtype() {
            return refuse(
                name,
                format!("types differ: {self:?} and {other:?}; cast one"),
            );
        }
        let float = float_of(name, &[self])?;
        let shape = broadcast_shapes(name, &[self.shape(), other.shape()])?;
        let (x, y) = (self.expand(shape.clone())?, other.expand(shape.clone())?);
        if let Some(simpler) = simplify(op, float, x, y) {
            return simpler;
        }
        // Operands that may be swapped are put in the order of their numbers, so that x ∘ y and y ∘ x are
        // one entry.
        let commutes = matches!(
            op,
            Binary::Add | Binary::Mul | Binary::StrongMul | Binary::Equal
        );
        let (x, y) = if commutes && y.id < x.id {
            (y, x)
        } else {
            (x, y)
        };
        self.tape().push(Op::Binary(op), &[x, y], shape, x.dtype())
    }

    /// Whether all elements are known to be finite and nonzero. Then a plain product with them may replace
    /// a strong one: it is never 0·∞. Looks `back` operations back.
    fn is_tame(self, back: usize) -> bool {
        let arg = |id| self.tape().var(id).is_tame(back - 1);
        self.tape().with_node(self.id, |node| match node.op {
            Op::Const(bits) => f64::from_bits(bits).is_finite() && f64::from_bits(bits) != 0.0,
            _ if back == 0 => false,
            Op::Select => node.args[1..].iter().all(|&id| arg(id)),
            Op::Reshape | Op::Broadcast | Op::Permute(_) | Op::Slice(_) => arg(node.args[0]),
            _ => false,
        })
    }

    /// The square of √s or |x|, recorded as s or x·x; also of a product with such a factor, and of one that
    /// is reshaped or broadcast. `None` for all else. The second derivatives of s and x·x at 0 are right;
    /// those through √ and |·| would not be. (a·√s)² is a·(a·s): the square of a norm's unit could be out of range. Looks `back`
    /// operations back.
    fn square_of_root(self, back: usize) -> Result<Option<Var<'t>>> {
        let Some(back) = back.checked_sub(1) else {
            return Ok(None);
        };
        let node = self.tape().node(self.id);
        let arg = |i: usize| self.tape().var(node.args[i]);
        Ok(match node.op {
            Op::Unary(Unary::Abs) => Some((arg(0) * arg(0))?),
            Op::Unary(Unary::Sqrt) => {
                let (zero, nan) = (self.constant_like(0.0), self.constant_like(f64::NAN));
                Some(zero.less_eq(arg(0))?.select(arg(0), nan)?)
            }
            Op::Binary(Binary::Mul) => {
                if let Some(square) = arg(0).square_of_root(back)? {
                    Some((arg(1) * (arg(1) * square)?)?)
                } else if let Some(square) = arg(1).square_of_root(back)? {
                    Some((arg(0) * (arg(0) * square)?)?)
                } else {
                    None
                }
            }
            Op::Reshape => arg(0)
                .square_of_root(back)?
                .map(|square| square.reshape(self.shape()))
                .transpose()?,
            Op::Broadcast => arg(0)
                .square_of_root(back)?
                .map(|square| square.expand(self.shape()))
                .transpose()?,
            _ => None,
        })
    }

    /// `chosen` where self is not zero, `other` elsewhere.
    pub fn select(self, chosen: Var<'t>, other: Var<'t>) -> Result<Var<'t>> {
        self.tape().expect_own("select", &[chosen, other])?;
        if self.dtype() != chosen.dtype() || chosen.dtype() != other.dtype() {
            return refuse(
                "select",
                format!("types differ: {self:?}, {chosen:?}, {other:?}"),
            );
        }
        float_of("select", &[self])?;
        let shape = broadcast_shapes("select", &[self.shape(), chosen.shape(), other.shape()])?;
        let args = [
            self.expand(shape.clone())?,
            chosen.expand(shape.clone())?,
            other.expand(shape.clone())?,
        ];
        match args[0].as_constant() {
            Some(0.0) => return Ok(args[2]),
            Some(_) => return Ok(args[1]),
            None if args[1] == args[2] => return Ok(args[1]),
            None => {}
        }
        self.tape().push(Op::Select, &args, shape, self.dtype())
    }

    /// The same numbers as another element type.
    pub fn cast(self, to: DType) -> Var<'t> {
        if self.dtype() == to {
            return self;
        }
        let shape = self.shape();
        if let (Some(value), true) = (self.as_constant(), matches!(to, DType::F32 | DType::F64)) {
            return self.tape().constant(value, to, shape);
        }
        self.tape().enter(Op::Cast(to), &[self], shape, to)
    }

    /// The same numbers, which derivatives treat as constants.
    pub fn stop_gradient(self) -> Var<'t> {
        self.tape()
            .enter(Op::StopGradient, &[self], self.shape(), self.dtype())
    }

    /// The same numbers with the derivative of `smooth` (a straight-through estimator): for a function that
    /// rounds or jumps, and a smooth stand-in for it. The values of `smooth` are not computed.
    pub fn with_derivative_of(self, smooth: Var<'t>) -> Result<Var<'t>> {
        self.tape().expect_own("straight_through", &[smooth])?;
        if self.shape() != smooth.shape() || self.dtype() != smooth.dtype() {
            return refuse(
                "straight_through",
                format!("{self:?} is not like {smooth:?}"),
            );
        }
        let (shape, dtype) = (self.shape(), self.dtype());
        self.tape()
            .push(Op::StraightThrough, &[self, smooth], shape, dtype)
    }

    /// xⁿ for a whole number n.
    pub fn powi(self, n: i32) -> Result<Var<'t>> {
        self.unary(Unary::PowI(n))
    }

    /// x · y, where zero wins: 0·∞ and 0·NaN are 0.
    pub(crate) fn strong_mul(self, other: Var<'t>) -> Result<Var<'t>> {
        self.binary(Binary::StrongMul, other)
    }

    /// 1/x
    pub fn reciprocal(self) -> Result<Var<'t>> {
        self.constant_like(1.0) / self
    }
}

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident = $f:expr;)*) => {
        impl<'t> Var<'t> {
            $($(#[$doc])* pub fn $name(self) -> Result<Var<'t>> { self.unary($f) })*
        }
    };
}
functions! {
    /// eˣ
    exp = Unary::Exp;
    /// ln x
    log = Unary::Log;
    /// √x. Its derivatives at 0 are taken as 0. (√s)² is recorded as s, which has the right derivatives.
    /// For √Σx² see [`norm`](Var::norm).
    sqrt = Unary::Sqrt;
    /// 1/√x
    rsqrt = Unary::Rsqrt;
    /// tanh x
    tanh = Unary::Tanh;
    /// 1/(1 + e⁻ˣ)
    sigmoid = Unary::Sigmoid;
    /// |x|; its derivative at 0 is 0.
    abs = Unary::Abs;
    /// −1, 0 or 1; NaN of NaN. Its derivative is 0.
    sign = Unary::Sign;
    /// ln(1 + x), with all digits near 0.
    log1p = Unary::Log1p;
    /// eˣ − 1, with all digits near 0.
    expm1 = Unary::Expm1;
    /// ln(1 + eˣ), which overflows nowhere.
    softplus = Unary::Softplus;
    /// sin x
    sin = Unary::Sin;
    /// cos x
    cos = Unary::Cos;
    /// The error function 2/√π · ∫₀ˣ e^−t² dt.
    erf = Unary::Erf;
    /// 1 − erf x, with all digits where that is small.
    erfc = Unary::Erfc;
}

macro_rules! functions_of_two {
    ($($(#[$doc:meta])* $name:ident = $f:expr;)*) => {
        impl<'t> Var<'t> {
            $($(#[$doc])* pub fn $name(self, other: Var<'t>) -> Result<Var<'t>> { self.binary($f, other) })*
        }
    };
}
functions_of_two! {
    /// xʸ for x ≥ 0 or a whole y, else NaN; x⁰ = 1.
    pow = Binary::Pow;
    /// The greater of two; ties go to self.
    max = Binary::Max;
    /// The smaller of two; ties go to self.
    min = Binary::Min;
    /// 1 where self < other, else 0.
    less = Binary::Less;
    /// 1 where self ≤ other, else 0.
    less_eq = Binary::LessEq;
    /// 1 where self = other, else 0.
    equal = Binary::Equal;
}

macro_rules! operator {
    ($trait:ident, $method:ident, $op:expr) => {
        impl<'t> $trait for Var<'t> {
            type Output = Result<Var<'t>>;
            fn $method(self, other: Var<'t>) -> Result<Var<'t>> {
                self.binary($op, other)
            }
        }
        impl<'t> $trait<f64> for Var<'t> {
            type Output = Result<Var<'t>>;
            fn $method(self, other: f64) -> Result<Var<'t>> {
                self.binary($op, self.constant_like(other))
            }
        }
        impl<'t> $trait<Var<'t>> for f64 {
            type Output = Result<Var<'t>>;
            fn $method(self, other: Var<'t>) -> Result<Var<'t>> {
                other.constant_like(self).binary($op, other)
            }
        }
        // So that `x * x + x` needs no `?`: an error in an operand is the error of the whole.
        impl<'t> $trait<Var<'t>> for Result<Var<'t>> {
            type Output = Self;
            fn $method(self, other: Var<'t>) -> Self {
                self?.binary($op, other)
            }
        }
        impl<'t> $trait<Result<Var<'t>>> for Var<'t> {
            type Output = Result<Var<'t>>;
            fn $method(self, other: Result<Var<'t>>) -> Result<Var<'t>> {
                self.binary($op, other?)
            }
        }
    };
}
operator!(Add, add, Binary::Add);
operator!(Sub, sub, Binary::Sub);
operator!(Mul, mul, Binary::Mul);
operator!(Div, div, Binary::Div);

impl<'t> Neg for Var<'t> {
    type Output = Result<Var<'t>>;
    fn neg(self) -> Result<Var<'t>> {
        self.unary(Unary::Neg)
    }
}

impl Tape {
    /// The sum of some arrays of one shape.
    pub fn sum_of<'t>(&'t self, terms: &[Var<'t>]) -> Result<Var<'t>> {
        let Some((first, rest)) = terms.split_first() else {
            return refuse("sum_of", "nothing to add");
        };
        rest.iter().try_fold(*first, |sum, term| sum + *term)
    }
}

/// A simpler form of x ∘ y, if there is one: where an operand is a known number, or both operands are the
/// same root or magnitude. Both have the result's shape.
fn simplify<'t>(op: Binary, float: Float, x: Var<'t>, y: Var<'t>) -> Option<Result<Var<'t>>> {
    let (a, b) = (x.as_constant(), y.as_constant());
    if let (Some(a), Some(b)) = (a, b) {
        return Some(Ok(x.constant_like(op.eval(float, a, b))));
    }
    let is = |side: Option<f64>, number: f64| side.is_some_and(|x| x.to_bits() == number.to_bits());
    // x + 0 is not x where x is −0, and 0·x is not 0 where x is infinite.
    match op {
        Binary::Add if is(a, -0.0) => Some(Ok(y)),
        Binary::Add if is(b, -0.0) => Some(Ok(x)),
        Binary::Sub if is(b, 0.0) => Some(Ok(x)),
        Binary::Sub if is(a, -0.0) => Some(-y),
        Binary::Mul if is(a, 1.0) => Some(Ok(y)),
        Binary::Mul | Binary::Div if is(b, 1.0) => Some(Ok(x)),
        Binary::Mul if is(a, -1.0) => Some(-y),
        Binary::Mul if is(b, -1.0) => Some(-x),
        Binary::Mul if x == y => x.square_of_root(BACK).transpose(),
        Binary::StrongMul if a == Some(0.0) || b == Some(0.0) => Some(Ok(x.constant_like(0.0))),
        Binary::StrongMul if x.is_tame(BACK) || y.is_tame(BACK) => Some(x * y),
        _ => None,
    }
}
