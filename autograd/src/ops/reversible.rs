//! Momentum in fixed point, whose steps can be undone (`kernels::Reversible`). None of these operations has
//! a derivative. An optimiser gives their float results the derivatives of the usual formulas
//! ([`Var::with_derivative_of`]).

use crate::error::{Result, refuse};
use crate::ops::float_of;
use crate::tape::Var;
use kernels::{Float, Kernel, Reversible, ReversibleKind};
use tensor::{DType, Shape};

/// The shape of the state of a parameter.
pub(crate) fn state_shape(theta: &Shape) -> Shape {
    [Reversible::words(theta.count())].into()
}

/// The state after a step. If the state before it is all zeros, the step starts from `theta` and `u`
/// instead. `rates` are the learning rate and the momentum.
pub(crate) fn advance<'t>(
    state: Var<'t>,
    [theta, u, gradient]: [Var<'t>; 3],
    rates: &[Var<'t>],
) -> Result<Var<'t>> {
    let args = [&[state, theta, u, gradient], rates].concat();
    let (shape, dtype) = (theta.shape(), gradient.dtype());
    record(ReversibleKind::Advance, &args, &shape, dtype)
}

/// The state before a step from the one after it.
pub(crate) fn undo<'t>(state: Var<'t>, gradient: Var<'t>, rates: &[Var<'t>]) -> Result<Var<'t>> {
    let args = [&[state, gradient], rates].concat();
    let (shape, dtype) = (gradient.shape(), gradient.dtype());
    record(ReversibleKind::Undo, &args, &shape, dtype)
}

/// θ of a state.
pub(crate) fn weight<'t>(state: Var<'t>, like: Var<'t>) -> Result<Var<'t>> {
    record(
        ReversibleKind::Weight,
        &[state],
        &like.shape(),
        like.dtype(),
    )
}

/// θ before the step that led to a state.
pub(crate) fn weight_before<'t>(state: Var<'t>, lr: Var<'t>, theta: &Shape) -> Result<Var<'t>> {
    let dtype = lr.dtype();
    record(ReversibleKind::WeightBefore, &[state, lr], theta, dtype)
}

/// u of a state.
pub(crate) fn velocity<'t>(state: Var<'t>, like: Var<'t>) -> Result<Var<'t>> {
    record(
        ReversibleKind::Velocity,
        &[state],
        &like.shape(),
        like.dtype(),
    )
}

fn record<'t>(
    kind: ReversibleKind,
    args: &[Var<'t>],
    theta: &Shape,
    dtype: DType,
) -> Result<Var<'t>> {
    const NAME: &str = "reversible";
    let state = args[0];
    state.tape().expect_own(NAME, args)?;
    if state.dtype() != DType::U32 || state.shape() != state_shape(theta) {
        let wanted = state_shape(theta);
        return refuse(
            NAME,
            format!("{state:?}: the state of {theta} is u32 {wanted}"),
        );
    }
    let count = theta.count();
    if args.len() > 1 {
        float_of(NAME, &args[1..])?;
    }
    let Some(float) = Float::of(dtype) else {
        return refuse(NAME, format!("f32 or f64, not {dtype}"));
    };
    let spec = Reversible { float, count, kind };
    let (shape, dtype) = match kind {
        ReversibleKind::Advance | ReversibleKind::Undo => (state.shape(), DType::U32),
        _ => (theta.clone(), dtype),
    };
    let kernel = Kernel::Reversible(spec);
    let needed = kernel.inputs();
    let fits = args
        .iter()
        .zip(&needed)
        .all(|(arg, (_, n))| arg.shape().count() == *n);
    if !fits {
        return refuse(
            NAME,
            format!("{args:?}: rates are one number for all of {theta}"),
        );
    }
    state.tape().kernel(kernel, args, shape, dtype)
}
