//! The prelude of an inner step: the part that is computed without the learner's state.
//!
//! In a GTN that is the generator: the images x = G(z, y) depend only on the step's rows and on what is shared. G may
//! be most of a step's work, and x is small. So a step that is advanced again can be given x.

use crate::tape::{Node, Tape, Var};
use std::collections::VecDeque;

/// What to keep of a step so that no contraction of its prelude has to be computed again: the fewest bytes
/// that do, and of equal ones the latest. What is cheap to compute from these and from inputs is not kept.
///
/// This is a minimum cut (Ford and Fulkerson 1956), such as `PyTorch` computes between a forward and a
/// backward pass (`functorch`'s partitioner). The network has the entries that contractions of the prelude
/// lead to, with the bytes of their results as capacities. Its sources are these contractions. Its sinks
/// are what depends on the state, and the results of the step.
pub(super) fn results<'t>(tape: &'t Tape, outs: &[Var<'t>], state: &[Var<'t>]) -> Vec<Var<'t>> {
    let count = tape.len();
    // Two nodes for every entry: the ends of an edge with the bytes of its result as capacity. Then the
    // source and the sink.
    let (before, behind) = (|id| 2 * id, |id| 2 * id + 1);
    let (source, sink) = (2 * count, 2 * count + 1);
    let mut network = Network::new(2 * count + 2);
    let (mut late, mut costly) = (vec![false; count], vec![false; count]);
    for id in 0..count {
        let node = tape.node(id);
        let Node {
            op,
            args,
            shape,
            dtype,
        } = &*node;
        late[id] = state.iter().any(|var| var.id == id) || args.iter().any(|&arg| late[arg]);
        let contraction = op.is_contraction();
        costly[id] = !late[id] && (contraction || args.iter().any(|&arg| costly[arg]));
        let to = if late[id] { sink } else { before(id) };
        for &arg in args.iter().filter(|&&arg| costly[arg]) {
            network.edge(behind(arg), to, usize::MAX);
        }
        if costly[id] {
            network.edge(before(id), behind(id), shape.count() * dtype.size());
            if contraction {
                network.edge(source, before(id), usize::MAX);
            }
        }
    }
    for out in outs.iter().filter(|out| costly[out.id]) {
        network.edge(behind(out.id), sink, usize::MAX);
    }
    network.fill(source, sink);
    let reaches = network.reaching(sink);
    (0..count)
        .filter(|&id| costly[id] && reaches[behind(id)] && !reaches[before(id)])
        .map(|id| tape.var(id))
        .collect()
}

/// A flow network: edges with what they can still carry, each followed by its reverse.
struct Network {
    edges: Vec<(usize, usize)>,
    /// The edges that leave a node.
    leaving: Vec<Vec<usize>>,
}

impl Network {
    fn new(nodes: usize) -> Self {
        Self {
            edges: Vec::new(),
            leaving: vec![Vec::new(); nodes],
        }
    }

    fn edge(&mut self, from: usize, to: usize, capacity: usize) {
        for (from, to, capacity) in [(from, to, capacity), (to, from, 0)] {
            self.leaving[from].push(self.edges.len());
            self.edges.push((to, capacity));
        }
    }

    /// Sends what fits along one shortest path after another (Edmonds and Karp 1972).
    fn fill(&mut self, source: usize, sink: usize) {
        while let Some(path) = self.path(source, sink) {
            let spare = path.iter().map(|&edge| self.edges[edge].1).min();
            let flow = spare.unwrap_or(0);
            for edge in path {
                self.edges[edge].1 -= flow;
                let back = &mut self.edges[edge ^ 1].1;
                *back = back.saturating_add(flow);
            }
        }
    }

    /// Edges with room that lead from the source to the sink.
    fn path(&self, source: usize, sink: usize) -> Option<Vec<usize>> {
        let mut came = vec![None; self.leaving.len()];
        let mut open = VecDeque::from([source]);
        while let Some(node) = open.pop_front() {
            for &edge in &self.leaving[node] {
                let (to, room) = self.edges[edge];
                if room > 0 && to != source && came[to].is_none() {
                    came[to] = Some(edge);
                    open.push_back(to);
                }
            }
        }
        let mut path = Vec::new();
        let mut node = sink;
        while node != source {
            let edge = came[node]?;
            path.push(edge);
            node = self.edges[edge ^ 1].0;
        }
        Some(path)
    }

    /// The nodes from which more could still flow into the sink.
    fn reaching(&self, sink: usize) -> Vec<bool> {
        let mut reaching = vec![false; self.leaving.len()];
        reaching[sink] = true;
        let mut open = vec![sink];
        while let Some(node) = open.pop() {
            for &edge in &self.leaving[node] {
                let from = self.edges[edge].0;
                if self.edges[edge ^ 1].1 > 0 && !std::mem::replace(&mut reaching[from], true) {
                    open.push(from);
                }
            }
        }
        reaching
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;
    use tensor::DType::F32;

    /// The shapes of what is kept of a step from the state `w` to what `record` makes of it and of rows.
    fn kept<const N: usize>(
        record: impl for<'t> Fn(&'t Tape, Var<'t>, [Var<'t>; 2]) -> Result<[Var<'t>; N]>,
    ) -> Result<Vec<Vec<usize>>> {
        let tape = Tape::new();
        let state = tape.input("state", F32, [8, 6])?;
        let rows = [tape.input("z", F32, [6, 5])?, tape.input("y", F32, [5, 8])?];
        let outs = record(&tape, state, rows)?;
        let kept = results(&tape, &outs, &[state]);
        Ok(kept.iter().map(|var| var.shape().to_vec()).collect())
    }

    #[test]
    fn what_is_kept_is_the_fewest_bytes_behind_all_contractions() -> Result<()> {
        // Beside a wide layer and what is element-wise the images [6, 3] are small; the labels are no contraction's.
        let images = kept(|_, state, [x, y]| {
            let images = x.matmul(y)?.tanh()?.slice(&[0, 0], &[6, 3])?;
            let both = (state.matmul(images)? + y.reshape([8, 5])?.slice(&[0, 0], &[8, 3])?)?;
            Ok([both, state.matmul((images * images)?)?])
        })?;
        assert_eq!(images, [[6, 3]]);
        // It is kept before it is blown up, and read in two ways.
        let small = kept(|tape, state, [x, y]| {
            let small = x.matmul(y)?.sum_keep(&[1])?;
            let wide = (small * tape.iota(1, F32, [6, 100])?)?.exp()?;
            Ok([state.matmul(wide)?, state.matmul((wide * 2.0)?)?])
        })?;
        assert_eq!(small, [[6, 1]]);
        Ok(())
    }

    #[test]
    fn nothing_is_kept_without_a_contraction_before_the_state() -> Result<()> {
        let none = kept(|_, state, [x, _]| Ok([state.matmul(x.tanh()?)?.exp()?]))?;
        assert_eq!(none, [[0usize; 0]; 0]);
        Ok(())
    }

    #[test]
    fn a_result_that_does_not_depend_on_the_state_is_kept() -> Result<()> {
        let own = kept(|_, state, [x, y]| Ok([x.matmul(y)?.exp()?, state.exp()?]))?;
        assert_eq!(own, [[6, 8]]);
        Ok(())
    }
}
