//! Dead code and known numbers: the live part of a tape, recorded again.

use crate::error::Result;
use crate::op::Op;
use crate::tape::{Id, Node, Tape, Var};

/// Records what `outs` need on a fresh tape, where perturbations are zeros, and what only derivatives see is gone.
/// Zeros vanish and equal entries merge while it is recorded. What is `given` becomes an input of that name.
pub(crate) fn simplify(outs: &[Var<'_>], given: &[(Var<'_>, String)]) -> Result<(Tape, Vec<Id>)> {
    let fresh = Tape::new();
    let Some(first) = outs.first() else {
        return Ok((fresh, Vec::new()));
    };
    let tape = first.tape();
    tape.expect_own("plan", outs)?;
    let last = outs.iter().map(|out| out.id).max().unwrap_or(0);
    let name = |id: Id| {
        given
            .iter()
            .find(|(var, _)| var.id == id)
            .map(|(_, name)| name)
    };
    let mut needed = vec![false; last + 1];
    outs.iter().for_each(|out| needed[out.id] = true);
    for id in (0..=last).rev().filter(|&id| name(id).is_none()) {
        if needed[id] {
            tape.with_node(id, |node| {
                computed_from(node)
                    .iter()
                    .for_each(|&arg| needed[arg] = true);
            });
        }
    }
    let mut ids: Vec<Id> = vec![Id::MAX; last + 1];
    for id in (0..=last).filter(|&id| needed[id]) {
        let applied = tape.applied(id);
        let (shape, dtype) = (applied.out.shape(), applied.out.dtype());
        if let Some(name) = name(id) {
            ids[id] = fresh.push(Op::Input(name.clone()), &[], shape, dtype).id;
            continue;
        }
        let args = tape.with_node(id, |node| computed_from(node).to_vec());
        let args: Vec<Var<'_>> = args.iter().map(|&arg| fresh.var(ids[arg])).collect();
        ids[id] = match &applied.op {
            Op::Perturbation(_) => fresh.constant(0.0, dtype, shape),
            op if args.is_empty() => fresh.push(op.clone(), &[], shape, dtype),
            Op::StopGradient | Op::StraightThrough => args[0],
            _ => applied.again(&args)?,
        }
        .id;
    }
    let outs = outs.iter().map(|out| ids[out.id]).collect();
    Ok((fresh, outs))
}

/// The operands that the numbers come from.
fn computed_from(node: &Node) -> &[Id] {
    match node.op {
        Op::StraightThrough => &node.args[..1],
        _ => &node.args,
    }
}
