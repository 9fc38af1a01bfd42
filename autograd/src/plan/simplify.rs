//! Dead code and known numbers: the live part of a tape, recorded again.

use crate::error::Result;
use crate::op::Op;
use crate::tape::{Id, Node, Tape, Var};

/// The live part of a tape.
pub(crate) struct Simplified {
    pub(crate) tape: Tape,
    /// The chosen results, on the new tape.
    pub(crate) outs: Vec<Id>,
    /// The inputs of the new tape in their order: the entry there, and the entry of the old tape that it stands for.
    pub(crate) inputs: Vec<(Id, Id)>,
}

/// Records what `outs` need on a fresh tape. Perturbations become zeros, and operations that only matter to
/// derivatives are left out. While it is recorded, known zeros vanish and equal entries merge. The entries
/// `given` become inputs: what they are computed from is not needed.
pub(crate) fn simplify(outs: &[Var<'_>], given: &[Var<'_>]) -> Result<Simplified> {
    let fresh = Tape::new();
    let mut inputs = Vec::new();
    let Some(first) = outs.first() else {
        return Ok(Simplified {
            tape: fresh,
            outs: Vec::new(),
            inputs,
        });
    };
    let tape = first.tape();
    tape.expect_own("plan", outs)?;
    tape.expect_own("plan", given)?;
    let last = outs.iter().map(|out| out.id).max().unwrap_or(0);
    let mut is_given = vec![false; last + 1];
    let known = given.iter().filter(|var| var.id <= last);
    known.for_each(|var| is_given[var.id] = true);
    let mut needed = vec![false; last + 1];
    outs.iter().for_each(|out| needed[out.id] = true);
    for id in (0..=last).rev().filter(|&id| !is_given[id]) {
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
        let node = tape.node(id);
        let (op, shape, dtype) = (&node.op, node.shape.clone(), node.dtype);
        let name = match op {
            Op::Input(name, _) => Some(name.as_str()),
            op => is_given[id].then(|| op.name()),
        };
        if let Some(name) = name {
            ids[id] = fresh.input(name, dtype, shape)?.id;
            inputs.push((ids[id], id));
            continue;
        }
        let args = computed_from(&node).iter();
        let args: Vec<Var<'_>> = args.map(|&arg| fresh.var(ids[arg])).collect();
        ids[id] = match op {
            // −0, because x + (−0) is x for every x, also for −0.
            Op::Perturbation(_) => fresh.constant(-0.0, dtype, shape),
            op if args.is_empty() => fresh.push(op.clone(), &[], shape, dtype)?,
            Op::StopGradient | Op::StraightThrough => args[0],
            _ => tape.applied(id).again(&args)?,
        }
        .id;
    }
    let outs = outs.iter().map(|out| ids[out.id]).collect();
    Ok(Simplified {
        tape: fresh,
        outs,
        inputs,
    })
}

/// The operands that the numbers come from.
fn computed_from(node: &Node) -> &[Id] {
    match node.op {
        Op::StraightThrough => &node.args[..1],
        _ => &node.args,
    }
}
