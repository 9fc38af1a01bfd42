//! Dead code and known numbers: the live part of a tape, recorded again.

use crate::error::Result;
use crate::op::Op;
use crate::tape::{Id, Tape, Var};

/// Records what `outs` need on a fresh tape, where perturbations are zeros and gradients need no stops.
/// Zeros vanish and equal entries merge while it is recorded.
pub(super) fn simplify(outs: &[Var<'_>]) -> Result<(Tape, Vec<Id>)> {
    let fresh = Tape::new();
    let Some(first) = outs.first() else {
        return Ok((fresh, Vec::new()));
    };
    let tape = first.tape();
    tape.expect_own("plan", outs)?;
    let last = outs.iter().map(|out| out.id).max().unwrap_or(0);
    let needed = tape.needed_by(outs, last);
    let mut ids: Vec<Id> = vec![Id::MAX; last + 1];
    for id in (0..=last).filter(|&id| needed[id]) {
        let applied = tape.applied(id);
        let args: Vec<Var<'_>> = applied
            .args
            .iter()
            .map(|arg| fresh.var(ids[arg.id]))
            .collect();
        let (shape, dtype) = (applied.out.shape(), applied.out.dtype());
        ids[id] = match &applied.op {
            Op::Perturbation(_) => fresh.constant(0.0, dtype, shape),
            op if args.is_empty() => fresh.push(op.clone(), &[], shape, dtype),
            Op::StopGradient => args[0],
            _ => applied.again(&args)?,
        }
        .id;
    }
    let outs = outs.iter().map(|out| ids[out.id]).collect();
    Ok((fresh, outs))
}
