//! Recording: the shape rule of each primitive, and simplifications where operands are known.

pub(crate) mod contraction;
mod elementwise;
mod functions;
mod index;
mod loss;
pub(crate) mod reversible;
pub(crate) mod shape;
pub(crate) mod statistics;

use crate::error::{Result, refuse};
use crate::op::Op;
use crate::rules::{Applied, Rule};
use crate::tape::{Tape, Var, check_size};
use kernels::{Float, Kernel};
use tensor::{DType, Shape};

impl<'t> Applied<'t> {
    /// The same operation on other operands of the same shapes, recorded on their tape. It is simplified
    /// where operands are known to be constants.
    pub(crate) fn again(&self, args: &[Var<'t>]) -> Result<Var<'t>> {
        match &self.op {
            Op::Input(..) | Op::Perturbation(_) | Op::Const(_) | Op::Iota(_) => Ok(self.out),
            Op::Unary(f) => args[0].unary(*f),
            Op::Binary(f) => args[0].binary(*f, args[1]),
            Op::Select => args[0].select(args[1], args[2]),
            Op::Cast(to) => Ok(args[0].cast(*to)),
            Op::StopGradient => Ok(args[0].stop_gradient()),
            Op::StraightThrough => args[0].with_derivative_of(args[1]),
            Op::Reshape => args[0].reshape(self.out.shape()),
            Op::Permute(axes) => args[0].permute(axes),
            Op::Broadcast => args[0].expand(self.out.shape()),
            Op::Slice(start) => args[0].slice(start, &self.out.shape()),
            Op::Sum(axes) => args[0].sum_flagged(axes),
            Op::Kernel(kernel) => {
                let (tape, out) = (args[0].tape(), self.out);
                tape.kernel(kernel.clone(), args, out.shape(), out.dtype())
            }
        }
    }
}

impl Tape {
    /// Records a kernel. Records zeros instead if it is linear and its operands are zero or empty, or if it
    /// is bilinear and an operand is empty. A product with an operand of zeros is computed: the other
    /// factor may be infinite.
    pub(crate) fn kernel<'t>(
        &'t self,
        kernel: Kernel,
        args: &[Var<'t>],
        shape: impl Into<Shape>,
        dtype: DType,
    ) -> Result<Var<'t>> {
        let (name, sound) = ((&kernel).into(), kernel.check());
        let (op, shape) = (Op::Kernel(kernel), shape.into());
        let empty = |i: usize| args[i].shape().count() == 0;
        let zero = |i: usize| args[i].as_constant() == Some(0.0) || empty(i);
        let vanishes = match op.rule() {
            Rule::Linear { fixed, .. } => (0..args.len()).all(|i| fixed.contains(&i) || zero(i)),
            Rule::Bilinear(_) => (0..args.len()).any(empty),
            _ => false,
        };
        if vanishes {
            check_size(op.name(), &shape)?;
            return Ok(self.constant(0.0, dtype, shape));
        }
        sound.or_else(|reason| refuse(name, reason))?;
        self.push(op, args, shape, dtype)
    }
}

/// The type that some operands are computed in.
fn float_of(name: &'static str, vars: &[Var<'_>]) -> Result<Float> {
    let dtype = vars[0].dtype();
    if vars.iter().any(|var| var.dtype() != dtype) {
        return refuse(name, format!("types differ: {vars:?}"));
    }
    let reason = || format!("arithmetic is done in f32 or f64, not {dtype}: cast first");
    Float::of(dtype).map_or_else(|| refuse(name, reason()), Ok)
}
