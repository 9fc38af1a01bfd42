//! The primitives by family: for each its recording with the shape rule, its simplifications, and its
//! derivative.

pub(crate) mod contraction;
pub(crate) mod elementwise;
pub(crate) mod index;
mod loss;
pub(crate) mod reversible;
pub(crate) mod shape;

use crate::error::Result;
use crate::op::{Applied, Op};
use crate::tape::Var;

impl<'t> Applied<'t> {
    /// The same operation on other operands of the same shapes, recorded on their tape. What is known of
    /// the operands (constants, zeros) makes it simpler.
    pub(crate) fn again(&self, args: &[Var<'t>]) -> Result<Var<'t>> {
        let tape = args[0].tape();
        match &self.op {
            Op::Unary(op) => args[0].unary(*op),
            Op::Binary(op) => args[0].binary(*op, args[1]),
            Op::Select => args[0].select(args[1], args[2]),
            Op::Cast(to) => Ok(args[0].cast(*to)),
            Op::StopGradient => Ok(args[0].stop_gradient()),
            Op::StraightThrough => args[0].with_derivative_of(args[1]),
            Op::Reshape => args[0].reshape(self.out.shape()),
            Op::Permute(axes) => args[0].permute(axes),
            Op::Broadcast => args[0].expand(self.out.shape()),
            Op::Slice(start) => args[0].slice(start, &self.out.shape()),
            Op::Pad { before, after } => args[0].pad(before, after),
            Op::Concat(axis) => tape.concat(args, *axis),
            Op::Sum(axes) => args[0].sum_flagged(axes),
            op => {
                if contraction::vanishes(op, args) {
                    return Ok(tape.constant(0.0, self.out.dtype(), self.out.shape()));
                }
                Ok(tape.push(op.clone(), args, self.out.shape(), self.out.dtype()))
            }
        }
    }
}
