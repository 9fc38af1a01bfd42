//! Which activations to keep so that a step need not be computed again.

use crate::op::Op;
use crate::plan::{Kind, kind};
use crate::tape::{Id, Tape, Var};

/// The activations to keep for the backward sweep: results of kernels and sums that it reads, but that do
/// not depend on `late`, its own inputs. What is `at_hand` then is left out, and so is what only that
/// needs. Element-wise work on what is kept is done again: that is cheaper than keeping its results.
pub(super) fn activations<'t>(
    tape: &'t Tape,
    outs: &[Var<'t>],
    late: &[Var<'t>],
    at_hand: &[Var<'t>],
) -> Vec<Var<'t>> {
    let last = outs.iter().map(|out| out.id).max().unwrap_or(0);
    let needed = tape.needed_by(outs, last);
    let mut is_late = vec![false; last + 1];
    let mut kept = vec![false; last + 1];
    let mut open: Vec<Id> = outs.iter().map(|out| out.id).collect();
    for id in (0..=last).filter(|&id| needed[id]) {
        let args = tape.with_node(id, |node| node.args.clone());
        is_late[id] = late.iter().any(|var| var.id == id) || args.iter().any(|&arg| is_late[arg]);
        if is_late[id] {
            open.extend(args);
        }
    }
    let mut seen = vec![false; last + 1];
    let known = at_hand.iter().filter(|var| var.id <= last);
    known.for_each(|var| seen[var.id] = true);
    while let Some(id) = open.pop() {
        if is_late[id] || std::mem::replace(&mut seen[id], true) {
            continue;
        }
        tape.with_node(id, |node| match kind(&node.op) {
            Kind::Kernel | Kind::Sum => kept[id] = true,
            Kind::Pointwise | Kind::View if !matches!(node.op, Op::Input(..)) => {
                open.extend(&node.args);
            }
            _ => {}
        });
    }
    (0..=last)
        .filter(|&id| kept[id])
        .map(|id| tape.var(id))
        .collect()
}
