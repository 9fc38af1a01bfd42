//! How every primitive is differentiated.
//!
//! A primitive has one rule, from which both directions follow (compare JAX's `deflinear`, `defbilinear`).
//! Rules record primitives, so derivatives have derivatives, to any order.

use crate::error::Result;
use crate::op::Op;
use crate::tape::Var;
use kernels::{Binary, Conv, ConvKind, Kernel, MatMul, Unary, Window, WindowKind};
use std::f64::consts::FRAC_2_SQRT_PI;

/// One application of a primitive, as its rule sees it.
pub(crate) struct Applied<'t> {
    pub(crate) op: Op,
    pub(crate) args: Vec<Var<'t>>,
    pub(crate) out: Var<'t>,
}

/// From an application, the cotangent of its result, and the number of an argument: the cotangent of that
/// argument.
type Transpose<'a> = Box<dyn for<'t> Fn(&Applied<'t>, Var<'t>, usize) -> Result<Var<'t>> + 'a>;

/// From an application and the number of an argument: the element-wise partial derivative of the result
/// with respect to that argument; `None` if it is zero everywhere.
type Partial<'a> = Box<dyn for<'t> Fn(&Applied<'t>, usize) -> Result<Option<Var<'t>>> + 'a>;

/// How a primitive is differentiated.
pub(crate) enum Rule<'a> {
    /// The derivative is zero wherever it exists: the result does not depend on the arguments, or it is
    /// piecewise constant.
    Constant,
    /// Jointly linear in all arguments but the `fixed` ones. The tangent of a linear operation is the
    /// operation itself, applied to tangents.
    Linear {
        fixed: &'static [usize],
        transpose: Transpose<'a>,
    },
    /// Linear in each of two arguments: the tangent is op(ẋ, y) + op(x, ẏ).
    Bilinear(Transpose<'a>),
    /// Element-wise: tangents and cotangents are multiplied by the partials. The product is `strong_mul`,
    /// in which 0 times anything is 0: a partial may be infinite where the (co)tangent is zero.
    Pointwise(Partial<'a>),
    /// Element-wise, with partials of 0 or 1: tangents and cotangents pass where the partial is 1, and are
    /// 0 elsewhere.
    Gate(Partial<'a>),
    /// There is no derivative. Says why, and what to do instead.
    Undefined(&'static str),
}

impl<'a> Rule<'a> {
    fn linear(
        fixed: &'static [usize],
        transpose: impl for<'t> Fn(&Applied<'t>, Var<'t>, usize) -> Result<Var<'t>> + 'a,
    ) -> Self {
        let transpose = Box::new(transpose);
        Self::Linear { fixed, transpose }
    }

    fn bilinear(
        transpose: impl for<'t> Fn(&Applied<'t>, Var<'t>, usize) -> Result<Var<'t>> + 'a,
    ) -> Self {
        Self::Bilinear(Box::new(transpose))
    }

    fn gate(partial: impl for<'t> Fn(&Applied<'t>, usize) -> Result<Option<Var<'t>>> + 'a) -> Self {
        Self::Gate(Box::new(partial))
    }

    fn pointwise(
        partial: impl for<'t> Fn(&Applied<'t>, usize) -> Result<Option<Var<'t>>> + 'a,
    ) -> Self {
        Self::Pointwise(Box::new(partial))
    }
}

impl Op {
    /// How this operation is differentiated.
    pub(crate) fn rule(&self) -> Rule<'_> {
        match self {
            Self::Input(..) | Self::Perturbation(_) | Self::Const(_) | Self::Iota(_) => {
                Rule::Constant
            }
            Self::StopGradient => Rule::Constant,
            Self::StraightThrough => {
                Rule::pointwise(|at, i| if i == 1 { at.factor(1.0) } else { Ok(None) })
            }
            Self::Unary(f) => unary(*f),
            Self::Binary(f) => binary(*f),
            Self::Select => Rule::linear(&[0], |at, cotangent, i| {
                let zero = cotangent.constant_like(0.0);
                match i {
                    1 => at.args[0].select(cotangent, zero),
                    _ => at.args[0].select(zero, cotangent),
                }
            }),
            Self::Cast(to) if !to.is_float() => {
                Rule::Undefined("it rounds to an integer; put stop_gradient before it")
            }
            Self::Cast(_) => Rule::linear(&[], |at, cotangent, _| {
                Ok(cotangent.cast(at.args[0].dtype()))
            }),
            Self::Reshape => Rule::linear(&[], |at, cotangent, _| {
                cotangent.reshape(at.args[0].shape())
            }),
            Self::Permute(axes) => Rule::linear(&[], |_, cotangent, _| {
                let mut inverse = vec![0; axes.len()];
                (0..axes.len()).for_each(|to| inverse[axes[to]] = to);
                cotangent.permute(&inverse)
            }),
            Self::Broadcast => Rule::linear(&[], |at, cotangent, _| {
                let (from, to) = (at.args[0].shape(), at.out.shape());
                let stretched: Vec<bool> = from.iter().zip(&*to).map(|(a, b)| a != b).collect();
                cotangent.sum_flagged(&stretched)
            }),
            Self::Sum(_) => {
                Rule::linear(&[], |at, cotangent, _| cotangent.expand(at.args[0].shape()))
            }
            Self::Slice(start) => Rule::linear(&[], |at, cotangent, _| {
                let (whole, part) = (at.args[0].shape(), at.out.shape());
                let after = |i: usize| whole[i] - start[i] - part[i];
                cotangent.pad(start, &(0..whole.len()).map(after).collect::<Vec<_>>())
            }),
            Self::Kernel(kernel) => of_kernel(kernel),
        }
    }
}

fn of_kernel(kernel: &Kernel) -> Rule<'_> {
    match kernel {
        Kernel::Pad(pad) => Rule::linear(&[], |at, cotangent, _| {
            cotangent.slice(&pad.before, &at.args[0].shape())
        }),
        Kernel::Concat(_) => Rule::linear(&[], |at, cotangent, i| {
            let (shape, whole) = (at.args[i].shape(), at.out.shape());
            let mut start = vec![0; shape.len()];
            if let Some(axis) = (0..shape.len()).find(|&axis| shape[axis] != whole[axis]) {
                start[axis] = at.args[..i].iter().map(|arg| arg.shape()[axis]).sum();
            }
            cotangent.slice(&start, &shape)
        }),
        Kernel::Take(take) => Rule::linear(&[], |at, cotangent, _| {
            let mut take = take.clone();
            take.adjoint ^= true;
            at.transposed(Kernel::Take(take), &[cotangent], 0)
        }),
        Kernel::Rows(rows) => Rule::linear(&[1], |at, cotangent, _| {
            let mut rows = *rows;
            rows.adjoint ^= true;
            at.transposed(Kernel::Rows(rows), &[cotangent, at.args[1]], 0)
        }),
        Kernel::Window(Window {
            kind: WindowKind::ArgMax,
            ..
        }) => Rule::Constant,
        Kernel::Window(window) => Rule::linear(&[1], |at, cotangent, _| {
            let kind = match window.kind {
                WindowKind::Gather => WindowKind::Scatter,
                _ => WindowKind::Gather,
            };
            let window = Window { kind, ..*window };
            at.transposed(Kernel::Window(window), &[cotangent, at.args[1]], 0)
        }),
        Kernel::MatMul(spec) => Rule::bilinear(|at, cotangent, i| matmul(spec, at, cotangent, i)),
        Kernel::Conv(spec) => Rule::bilinear(|at, cotangent, i| conv(spec, at, cotangent, i)),
        Kernel::ArgMax(_) | Kernel::Random(_) | Kernel::Reversible(_) => Rule::Constant,
        Kernel::Map(_) | Kernel::MatMulPair(_) | Kernel::ConvPair(_) => {
            Rule::Undefined("plans make it of other primitives; record those")
        }
    }
}

/// Functions of one number. At kinks: |·|'(0) = 0, and √'(0) = 0, which is what makes the meta-gradient of Adam
/// finite at a zero gradient (√(c·g²) = √c·|g|).
fn unary(f: Unary) -> Rule<'static> {
    match f {
        Unary::Neg => Rule::pointwise(|at, _| at.factor(-1.0)),
        Unary::Exp => Rule::pointwise(|at, _| Ok(Some(at.out))),
        Unary::Log => Rule::pointwise(|at, _| at.args[0].reciprocal().map(Some)),
        Unary::Sqrt => Rule::pointwise(|at, _| {
            let [zero, half, one] = [0.0, 0.5, 1.0].map(|x| at.out.constant_like(x));
            let positive = zero.less(at.out)?;
            // The select inside keeps 0 out of the division: without it, the second derivative at 0 would
            // be 0·∞.
            let slope = (half / positive.select(at.out, one)?)?;
            positive.select(slope, zero).map(Some)
        }),
        Unary::Rsqrt => Rule::pointwise(|at, _| (at.out.powi(3)? * -0.5).map(Some)),
        // The slopes are computed from x, not from the result: near its limits, ±1 for tanh and 1 for
        // sigmoid, the result has lost the digits that the slope depends on.
        Unary::Tanh => Rule::pointwise(|at, _| at.args[0].unary(Unary::TanhSlope).map(Some)),
        Unary::TanhSlope => {
            Rule::pointwise(|at, _| ((at.args[0].tanh()? * at.out)? * -2.0).map(Some))
        }
        Unary::Sigmoid => Rule::pointwise(|at, _| at.args[0].unary(Unary::SigmoidSlope).map(Some)),
        Unary::SigmoidSlope => {
            Rule::pointwise(|at, _| (-((at.args[0] * 0.5)?.tanh()? * at.out)?).map(Some))
        }
        Unary::Softplus => Rule::pointwise(|at, _| at.args[0].sigmoid().map(Some)),
        Unary::Log1p => Rule::pointwise(|at, _| (at.args[0] + 1.0)?.reciprocal().map(Some)),
        Unary::Expm1 => Rule::pointwise(|at, _| at.args[0].exp().map(Some)),
        Unary::Sin => Rule::pointwise(|at, _| at.args[0].cos().map(Some)),
        Unary::Cos => Rule::pointwise(|at, _| (-(at.args[0].sin()?)).map(Some)),
        Unary::Erf => Rule::pointwise(|at, _| gauss(at.args[0], FRAC_2_SQRT_PI).map(Some)),
        Unary::Erfc => Rule::pointwise(|at, _| gauss(at.args[0], -FRAC_2_SQRT_PI).map(Some)),
        Unary::Abs => Rule::pointwise(|at, _| at.args[0].sign().map(Some)),
        Unary::Sign => Rule::Constant,
        Unary::PowI(n) => Rule::pointwise(move |at, _| {
            let lower = match n.checked_sub(1) {
                Some(lower) => at.args[0].powi(lower),
                None => at.out / at.args[0],
            };
            (lower? * f64::from(n)).map(Some)
        }),
    }
}

/// `factor`·e^−x²
fn gauss(x: Var<'_>, factor: f64) -> Result<Var<'_>> {
    (-(x * x)?)?.exp()? * factor
}

/// Functions of two numbers. Ties of max and min go to the first argument.
fn binary(f: Binary) -> Rule<'static> {
    match f {
        Binary::Add => Rule::pointwise(|at, _| at.factor(1.0)),
        Binary::Sub => Rule::pointwise(|at, i| at.factor([1.0, -1.0][i])),
        Binary::Mul | Binary::StrongMul => Rule::pointwise(|at, i| Ok(Some(at.args[1 - i]))),
        Binary::Div => Rule::pointwise(|at, i| match i {
            0 => at.args[1].reciprocal().map(Some),
            _ => (-(at.out / at.args[1])?).map(Some),
        }),
        Binary::Pow => Rule::pointwise(|at, i| match i {
            0 => {
                let lower = at.args[0].pow((at.args[1] - 1.0)?)?;
                at.args[1].strong_mul(lower).map(Some)
            }
            _ => at.out.strong_mul(at.args[0].log()?).map(Some),
        }),
        Binary::Max => Rule::gate(|at, i| {
            let [x, y] = [at.args[0], at.args[1]];
            if i == 0 { y.less_eq(x) } else { x.less(y) }.map(Some)
        }),
        Binary::Min => Rule::gate(|at, i| {
            let [x, y] = [at.args[0], at.args[1]];
            if i == 0 { x.less_eq(y) } else { y.less(x) }.map(Some)
        }),
        Binary::Less | Binary::LessEq | Binary::Equal => Rule::Constant,
    }
}

/// C = op(A)·op(B): Ā = C̄·op(B)ᵀ and B̄ = op(A)ᵀ·C̄, read through the transposes.
fn matmul<'t>(spec: &MatMul, at: &Applied<'t>, cotangent: Var<'t>, i: usize) -> Result<Var<'t>> {
    let (a, b) = (at.args[0], at.args[1]);
    let (ta, tb) = (spec.transpose_a, spec.transpose_b);
    match (i, ta, tb) {
        (0, false, _) => cotangent.matmul_with(b, false, !tb),
        (0, true, _) => b.matmul_with(cotangent, tb, true),
        (_, _, false) => a.matmul_with(cotangent, !ta, false),
        (_, _, true) => cotangent.matmul_with(a, true, ta),
    }
}

/// x, w and y of a convolution: each kind computes one of them, linear in the two others.
fn conv<'t>(spec: &Conv, at: &Applied<'t>, cotangent: Var<'t>, i: usize) -> Result<Var<'t>> {
    let other = at.args[1 - i];
    let (kind, args) = match (spec.kind, i) {
        (ConvKind::Forward, 0) => (ConvKind::Input, [cotangent, other]),
        (ConvKind::Forward, _) => (ConvKind::Weight, [other, cotangent]),
        (ConvKind::Input, 0) => (ConvKind::Forward, [cotangent, other]),
        (ConvKind::Input, _) => (ConvKind::Weight, [cotangent, other]),
        (ConvKind::Weight, 0) => (ConvKind::Input, [other, cotangent]),
        (ConvKind::Weight, _) => (ConvKind::Forward, [other, cotangent]),
    };
    at.transposed(Kernel::Conv(Conv { kind, ..*spec }), &args, i)
}

impl<'t> Applied<'t> {
    fn factor(&self, value: f64) -> Result<Option<Var<'t>>> {
        Ok(Some(self.out.constant_like(value)))
    }

    /// Records a kernel whose result has the shape and type of argument number `like`.
    fn transposed(&self, kernel: Kernel, args: &[Var<'t>], like: usize) -> Result<Var<'t>> {
        let like = self.args[like];
        like.tape().kernel(kernel, args, like.shape(), like.dtype())
    }
}
