//! Element by element: functions of one, two or three numbers.

use crate::error::{Result, refuse};
use crate::op::Op;
use crate::ops::float_of;
use crate::ops::shape::broadcast_shapes;
use crate::tape::{Tape, Var};
use kernels::{Binary, Float, Unary};
use std::ops::{Add, Div, Mul, Neg, Sub};
use tensor::DType;

impl<'t> Var<'t> {
    pub(crate) fn unary(self, op: Unary) -> Result<Var<'t>> {
        let float = float_of(op.into(), &[self])?;
        if let Some(x) = self.as_constant() {
            return Ok(self.constant_like(op.eval(float, x)));
        }
        match op {
            Unary::PowI(0) => return Ok(self.constant_like(1.0)),
            Unary::PowI(1) => return Ok(self),
            Unary::Neg => {
                let node = self.tape().node(self.id);
                if node.op == Op::Unary(Unary::Neg) {
                    return Ok(self.tape().var(node.args[0]));
                }
            }
            _ => {}
        }
        let (shape, dtype) = (self.shape(), self.dtype());
        Ok(self.tape().push(Op::Unary(op), &[self], shape, dtype))
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
        // Sums and products do not depend on the order: one order, so that both are one entry.
        let commutes = matches!(op, Binary::Add | Binary::Mul | Binary::Equal);
        let (x, y) = if commutes && y.id < x.id {
            (y, x)
        } else {
            (x, y)
        };
        Ok(self.tape().push(Op::Binary(op), &[x, y], shape, x.dtype()))
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
        Ok(self.tape().push(Op::Select, &args, shape, self.dtype()))
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
        self.tape().push(Op::Cast(to), &[self], shape, to)
    }

    /// The same numbers, which derivatives take as given.
    pub fn stop_gradient(self) -> Var<'t> {
        self.tape()
            .push(Op::StopGradient, &[self], self.shape(), self.dtype())
    }

    /// The same numbers, whose derivative is that of `smooth`: for what is rounded, or a jump, with a smooth
    /// stand-in (a straight-through estimator). The stand-in is not computed.
    pub fn with_derivative_of(self, smooth: Var<'t>) -> Result<Var<'t>> {
        self.tape().expect_own("straight_through", &[smooth])?;
        if self.shape() != smooth.shape() || self.dtype() != smooth.dtype() {
            return refuse(
                "straight_through",
                format!("{self:?} is not like {smooth:?}"),
            );
        }
        let (shape, dtype) = (self.shape(), self.dtype());
        Ok(self
            .tape()
            .push(Op::StraightThrough, &[self, smooth], shape, dtype))
    }

    /// xⁿ for a whole number n.
    pub fn powi(self, n: i32) -> Result<Var<'t>> {
        self.unary(Unary::PowI(n))
    }

    /// 1/x
    pub fn reciprocal(self) -> Result<Var<'t>> {
        self.constant_like(1.0) / self
    }

    /// x where x > 0, else 0; its derivative at 0 is 0.
    pub fn relu(self) -> Result<Var<'t>> {
        self.leaky_relu(0.0)
    }

    /// x where x > 0, else `slope`·x.
    pub fn leaky_relu(self, slope: f64) -> Result<Var<'t>> {
        // The question is put so that NaN stays NaN.
        self.less_eq(self.constant_like(0.0))?
            .select((self * slope)?, self)
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
    /// √x; its derivative at 0 is taken as 0.
    sqrt = Unary::Sqrt;
    /// 1/√x
    rsqrt = Unary::Rsqrt;
    /// tanh x
    tanh = Unary::Tanh;
    /// 1/(1 + e⁻ˣ)
    sigmoid = Unary::Sigmoid;
    /// |x|; its derivative at 0 is 0.
    abs = Unary::Abs;
    /// −1, 0 or 1; its derivative is 0.
    sign = Unary::Sign;
}

macro_rules! functions_of_two {
    ($($(#[$doc:meta])* $name:ident = $f:expr;)*) => {
        impl<'t> Var<'t> {
            $($(#[$doc])* pub fn $name(self, other: Var<'t>) -> Result<Var<'t>> { self.binary($f, other) })*
        }
    };
}
functions_of_two! {
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
        // So that `x * x + x` needs no `?`: an error on the way is the error of the whole.
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

/// What x ∘ y is when one side is a known number; both have the result's shape.
fn simplify<'t>(op: Binary, float: Float, x: Var<'t>, y: Var<'t>) -> Option<Result<Var<'t>>> {
    let (a, b) = (x.as_constant(), y.as_constant());
    if let (Some(a), Some(b)) = (a, b) {
        return Some(Ok(x.constant_like(op.eval(float, a, b))));
    }
    match (op, a, b) {
        (Binary::Add, Some(0.0), _) | (Binary::Mul, Some(1.0), _) => Some(Ok(y)),
        (Binary::Add | Binary::Sub, _, Some(0.0)) | (Binary::Mul | Binary::Div, _, Some(1.0)) => {
            Some(Ok(x))
        }
        (Binary::Sub, Some(0.0), _) | (Binary::Mul, Some(-1.0), _) => Some(-y),
        (Binary::Mul, _, Some(-1.0)) => Some(-x),
        // Symbolic zeros: a zero tangent stays zero whatever it is multiplied by.
        (Binary::Mul | Binary::Div, Some(0.0), _) => Some(Ok(x)),
        (Binary::Mul, _, Some(0.0)) => Some(Ok(y)),
        _ => None,
    }
}
