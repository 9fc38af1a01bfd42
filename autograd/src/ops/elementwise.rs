//! Element by element: functions of one, two or three numbers.

use crate::error::{Result, refuse};
use crate::op::{Applied, Op, Rule};
use crate::ops::shape::broadcast_shapes;
use crate::tape::{Tape, Var};
use kernels::{Binary, Unary};
use std::ops::{Add, Div, Mul, Neg, Sub};
use tensor::DType;

pub(crate) fn unary_name(op: Unary) -> &'static str {
    match op {
        Unary::Neg => "neg",
        Unary::Exp => "exp",
        Unary::Log => "log",
        Unary::Sqrt => "sqrt",
        Unary::Rsqrt => "rsqrt",
        Unary::Tanh => "tanh",
        Unary::Sigmoid => "sigmoid",
        Unary::Abs => "abs",
        Unary::Sign => "sign",
        Unary::PowI(_) => "powi",
    }
}

pub(crate) fn binary_name(op: Binary) -> &'static str {
    match op {
        Binary::Add => "add",
        Binary::Sub => "sub",
        Binary::Mul => "mul",
        Binary::Div => "div",
        Binary::Max => "max",
        Binary::Min => "min",
        Binary::Less => "less",
        Binary::LessEq => "less_eq",
        Binary::Equal => "equal",
    }
}

/// Derivatives of functions of one number. At kinks: |·|'(0) = 0, and √'(0) = 0, which is what makes
/// the meta-gradient of Adam finite at a zero gradient (√(c·g²) = √c·|g|).
pub(crate) fn unary_rule(op: Unary) -> Rule {
    match op {
        Unary::Neg => Rule::Pointwise(|at, _| at.factor(-1.0)),
        Unary::Exp => Rule::Pointwise(|at, _| Ok(Some(at.out))),
        Unary::Log => Rule::Pointwise(|at, _| at.args[0].reciprocal().map(Some)),
        Unary::Sqrt => Rule::Pointwise(|at, _| {
            let (zero, one) = (at.out.constant_like(0.0), at.out.constant_like(1.0));
            let positive = zero.less(at.out)?;
            // Chosen before the division too: the slope of the slope at 0 would be 0·∞.
            let slope = (at.out.constant_like(0.5) / positive.select(at.out, one)?)?;
            positive.select(slope, zero).map(Some)
        }),
        Unary::Rsqrt => Rule::Pointwise(|at, _| (at.out.powi(3)? * -0.5).map(Some)),
        Unary::Tanh => {
            Rule::Pointwise(|at, _| (at.out.constant_like(1.0) - (at.out * at.out)?).map(Some))
        }
        Unary::Sigmoid => {
            Rule::Pointwise(|at, _| (at.out * (at.out.constant_like(1.0) - at.out)?).map(Some))
        }
        Unary::Abs => Rule::Pointwise(|at, _| at.args[0].sign().map(Some)),
        Unary::Sign => Rule::Constant,
        Unary::PowI(_) => Rule::Pointwise(|at, _| {
            let Op::Unary(Unary::PowI(n)) = at.op else {
                unreachable!("the entry of powi")
            };
            (at.args[0].powi(n - 1)? * f64::from(n)).map(Some)
        }),
    }
}

/// Derivatives of functions of two numbers. Ties of max and min go to the first argument.
pub(crate) fn binary_rule(op: Binary) -> Rule {
    match op {
        Binary::Add => Rule::Pointwise(|at, _| at.factor(1.0)),
        Binary::Sub => Rule::Pointwise(|at, i| at.factor([1.0, -1.0][i])),
        Binary::Mul => Rule::Pointwise(|at, i| Ok(Some(at.args[1 - i]))),
        Binary::Div => Rule::Pointwise(|at, i| {
            let over = at.args[1].reciprocal()?;
            if i == 0 {
                Ok(Some(over))
            } else {
                (-((at.out * over)?)).map(Some)
            }
        }),
        Binary::Max => Rule::Pointwise(|at, i| {
            let [x, y] = [at.args[0], at.args[1]];
            if i == 0 { y.less_eq(x) } else { x.less(y) }.map(Some)
        }),
        Binary::Min => Rule::Pointwise(|at, i| {
            let [x, y] = [at.args[0], at.args[1]];
            if i == 0 { x.less_eq(y) } else { y.less(x) }.map(Some)
        }),
        Binary::Less | Binary::LessEq | Binary::Equal => Rule::Constant,
    }
}

/// Linear in what is chosen from; the choice itself is fixed.
pub(crate) const SELECT: Rule = Rule::Linear {
    fixed: &[0],
    transpose: |at, cotangent, position| {
        let zero = cotangent.constant_like(0.0);
        match position {
            1 => at.args[0].select(cotangent, zero),
            _ => at.args[0].select(zero, cotangent),
        }
    },
};

/// The derivative is that of the second operand.
pub(crate) const STRAIGHT_THROUGH: Rule =
    Rule::Pointwise(|at, i| if i == 1 { at.factor(1.0) } else { Ok(None) });

/// A cast between floats is linear; a cast to an integer is an error to differentiate.
pub(crate) fn cast_rule(to: DType) -> Rule {
    if !to.is_float() {
        return Rule::Undefined("it rounds to an integer; put stop_gradient before it");
    }
    Rule::Linear {
        fixed: &[],
        transpose: |at, cotangent, _| Ok(cotangent.cast(at.args[0].dtype())),
    }
}

impl<'t> Applied<'t> {
    fn factor(&self, value: f64) -> Result<Option<Var<'t>>> {
        Ok(Some(self.out.constant_like(value)))
    }
}

impl<'t> Var<'t> {
    pub(crate) fn unary(self, op: Unary) -> Result<Var<'t>> {
        let dtype = self.dtype();
        check_float(unary_name(op), dtype)?;
        if let Some(x) = self.as_constant() {
            return Ok(self.constant_like(eval_unary(op, x)));
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
        Ok(self
            .tape()
            .push(Op::Unary(op), &[self], self.shape(), dtype))
    }

    pub(crate) fn binary(self, op: Binary, other: Var<'t>) -> Result<Var<'t>> {
        let name = binary_name(op);
        self.tape().expect_own(name, &[other])?;
        if self.dtype() != other.dtype() {
            return refuse(
                name,
                format!("types differ: {self:?} and {other:?}; cast one"),
            );
        }
        check_float(name, self.dtype())?;
        let shape = broadcast_shapes(name, &[self.shape(), other.shape()])?;
        let (x, y) = (self.expand(shape.clone())?, other.expand(shape.clone())?);
        if let Some(simpler) = simplify(op, x, y) {
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
        check_float("select", self.dtype())?;
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

    /// eˣ
    pub fn exp(self) -> Result<Var<'t>> {
        self.unary(Unary::Exp)
    }

    /// ln x
    pub fn log(self) -> Result<Var<'t>> {
        self.unary(Unary::Log)
    }

    /// √x; its derivative at 0 is taken as 0.
    pub fn sqrt(self) -> Result<Var<'t>> {
        self.unary(Unary::Sqrt)
    }

    /// 1/√x
    pub fn rsqrt(self) -> Result<Var<'t>> {
        self.unary(Unary::Rsqrt)
    }

    /// tanh x
    pub fn tanh(self) -> Result<Var<'t>> {
        self.unary(Unary::Tanh)
    }

    /// 1/(1 + e⁻ˣ)
    pub fn sigmoid(self) -> Result<Var<'t>> {
        self.unary(Unary::Sigmoid)
    }

    /// |x|; its derivative at 0 is 0.
    pub fn abs(self) -> Result<Var<'t>> {
        self.unary(Unary::Abs)
    }

    /// −1, 0 or 1; its derivative is 0.
    pub fn sign(self) -> Result<Var<'t>> {
        self.unary(Unary::Sign)
    }

    /// xⁿ for a whole number n.
    pub fn powi(self, n: i32) -> Result<Var<'t>> {
        self.unary(Unary::PowI(n))
    }

    /// 1/x
    pub fn reciprocal(self) -> Result<Var<'t>> {
        self.constant_like(1.0) / self
    }

    /// The greater of two; ties go to self.
    pub fn max(self, other: Var<'t>) -> Result<Var<'t>> {
        self.binary(Binary::Max, other)
    }

    /// The smaller of two; ties go to self.
    pub fn min(self, other: Var<'t>) -> Result<Var<'t>> {
        self.binary(Binary::Min, other)
    }

    /// 1 where self < other, else 0.
    pub fn less(self, other: Var<'t>) -> Result<Var<'t>> {
        self.binary(Binary::Less, other)
    }

    /// 1 where self ≤ other, else 0.
    pub fn less_eq(self, other: Var<'t>) -> Result<Var<'t>> {
        self.binary(Binary::LessEq, other)
    }

    /// 1 where self = other, else 0.
    pub fn equal(self, other: Var<'t>) -> Result<Var<'t>> {
        self.binary(Binary::Equal, other)
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

fn check_float(name: &'static str, dtype: DType) -> Result<()> {
    if matches!(dtype, DType::F32 | DType::F64) {
        return Ok(());
    }
    refuse(
        name,
        format!("arithmetic is done in f32 or f64, not {dtype}: cast first"),
    )
}

/// What x ∘ y is when one side is a known number; both have the result's shape.
fn simplify<'t>(op: Binary, x: Var<'t>, y: Var<'t>) -> Option<Result<Var<'t>>> {
    let (a, b) = (x.as_constant(), y.as_constant());
    if let (Some(a), Some(b)) = (a, b) {
        return Some(Ok(x.constant_like(eval_binary(op, a, b))));
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

fn eval_unary(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Neg => -x,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Abs => x.abs(),
        Unary::Sign => f64::from(i8::from(x > 0.0) - i8::from(x < 0.0)),
        Unary::PowI(n) => x.powi(n),
    }
}

fn eval_binary(op: Binary, x: f64, y: f64) -> f64 {
    match op {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::Div => x / y,
        Binary::Max => x.max(y),
        Binary::Min => x.min(y),
        Binary::Less => f64::from(u8::from(x < y)),
        Binary::LessEq => f64::from(u8::from(x <= y)),
        Binary::Equal => f64::from(u8::from(x == y)),
    }
}
