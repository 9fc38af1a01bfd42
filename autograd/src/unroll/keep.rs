//! Which activations to keep so that a step need not be computed again.

use crate::op::Op;
use crate::plan::{Kind, kind};
use crate::tape::{Id, Tape, Var};

/// Results of kernels and sums that `outs` need and that do not depend on `late` (what is only known in the
/// backward sweep), as far as something late reads them, nor are `at_hand` or only needed for what is.
/// Element-wise work on them is done again: it is cheaper than keeping it.
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
