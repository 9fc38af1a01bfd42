//! Which results reach memory.
//!
//! Results of kernels are *stored*. Everything element-wise (and every view) is computed where it is read,
//! unless that would do too much work twice. Stored element-wise results and sums are *roots*: one or more
//! roots over one iteration space become one [`Map`](kernels::Map) (`group.rs`).

use crate::op::Op;
use crate::plan::graph::{Accumulate, Graph, Kind, kind};
use crate::tape::{Id, Node};
use kernels::Binary;
use std::cmp::Reverse;
use std::rc::Rc;
use tensor::DType;

/// The most instructions of a fused program. Raising it saves launches and passes over memory. But a longer
/// program holds more values at a time: the CPU has room for 256, and a CUDA thread for some 190. The
/// longest program of set-ups A, B and C has 71.
pub(super) const CODE_LIMIT: usize = 160;
/// In additions per element. A value that several entries read is stored if computing it again takes more
/// work than this: a store and a load cost about as much. For a scalar that one reader repeats for each of
/// its own elements, the limit is twice this.
const RECOMPUTE_LIMIT: usize = 6;
/// In arrays. A value that several entries read is stored if it is computed from at least this many arrays
/// of its size: reading two again costs no more than writing one and reading it.
const REREAD_LIMIT: usize = 3;
/// In launches. A partial sum is stored if its next term is computed more than this many launches after the
/// first of its arrays: otherwise all of these arrays would stay in memory until then.
const WAIT: usize = 8;

/// What it takes to compute an entry where it is read.
#[derive(Clone)]
struct Cost {
    /// Additions per element.
    work: usize,
    /// Instructions, as if nothing were shared.
    code: usize,
    /// The arrays that it reads, of its own size or larger: the largest [`REREAD_LIMIT`] of them.
    arrays: Vec<Id>,
    /// The longest chain of launches that it waits for.
    begin: usize,
    /// The same for the earliest computed array that it reads; `usize::MAX` if there is none.
    first: usize,
}

/// The instructions that it takes to read an entry from memory.
const LOAD: usize = 1;

impl Graph {
    pub(super) fn new(nodes: Vec<Rc<Node>>, outs: Vec<Id>) -> Self {
        let count = nodes.len();
        let mut graph = Self {
            nodes,
            outs,
            stored: vec![false; count],
            accumulates: vec![None; count],
            pairs: vec![None; count],
        };
        graph.store_what_must_be();
        graph.find_accumulations();
        graph.store_what_pays();
        graph
    }

    /// Stores what has to be in memory: inputs, kernels and their operands, sums, casts between types, and
    /// outputs.
    fn store_what_must_be(&mut self) {
        for id in 0..self.nodes.len() {
            if matches!(
                kind(&self.nodes[id].op),
                Kind::Input | Kind::Kernel | Kind::Sum
            ) {
                self.stored[id] = true;
            }
        }
        for id in 0..self.nodes.len() {
            let node = &self.nodes[id];
            match kind(&node.op) {
                Kind::Kernel => {
                    for arg in node.args.clone() {
                        self.store_base(arg);
                    }
                }
                Kind::Pointwise => {
                    let Op::Cast(to) = node.op else { continue };
                    let arg = node.args[0];
                    let works = matches!(to, DType::F32 | DType::F64);
                    if works && self.nodes[arg].dtype != to {
                        // A map computes in one type: operands of another type are read from memory.
                        self.store_origin(arg);
                    }
                    self.stored[id] |= !works;
                }
                _ => {}
            }
        }
        for out in self.outs.clone() {
            let mut base = out;
            while self.nodes[base].op == Op::Reshape {
                base = self.nodes[base].args[0];
            }
            self.stored[base] = true;
        }
    }

    fn store_base(&mut self, id: Id) {
        let (base, _) = self.resolve(id);
        self.stored[base] = true;
    }

    /// Stores what a chain of views looks at.
    fn store_origin(&mut self, id: Id) {
        let mut base = id;
        while kind(&self.nodes[base].op) == Kind::View {
            base = self.nodes[base].args[0];
        }
        self.stored[base] = true;
    }

    /// Sums of which one term is a contraction that nothing else needs.
    fn find_accumulations(&mut self) {
        let uses = self.uses();
        let mut is_out = vec![false; self.nodes.len()];
        self.outs.iter().for_each(|&out| is_out[out] = true);
        for id in 0..self.nodes.len() {
            if self.nodes[id].op != Op::Binary(Binary::Add) {
                continue;
            }
            let [a, b] = [self.nodes[id].args[0], self.nodes[id].args[1]];
            let product = |arg: Id| {
                let mut product = arg;
                let mut alone = uses[product] == 1;
                while self.nodes[product].op == Op::Reshape && !self.stored[product] {
                    product = self.nodes[product].args[0];
                    alone &= uses[product] == 1;
                }
                let contraction = self.nodes[product].op.is_contraction();
                (alone && contraction && !is_out[product]).then_some(product)
            };
            let found = match (product(a), product(b)) {
                (Some(p), Some(q)) if self.nodes[p].op == self.nodes[q].op => {
                    self.pairs[id] = Some([p.min(q), p.max(q)]);
                    self.stored[id] = true;
                    None
                }
                (Some(p), Some(q)) if q < p => Some((b, p)),
                (_, Some(q)) => Some((a, q)),
                (Some(p), None) => Some((b, p)),
                (None, None) => None,
            };
            let Some((base, product)) = found else {
                continue;
            };
            let (origin, _) = self.resolve(base);
            if self.stored[origin] {
                self.accumulates[id] = Some(Accumulate { base, product });
                self.stored[id] = true;
            }
        }
    }

    /// How many entries read each entry, looking through views.
    fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.nodes.len()];
        for &out in &self.outs {
            uses[out] += 1;
        }
        for id in (0..self.nodes.len()).rev() {
            let node = &self.nodes[id];
            let through = kind(&node.op) == Kind::View && !self.stored[id];
            let count = if through { uses[id] } else { 1 };
            for &arg in &node.args {
                uses[arg] += count;
            }
        }
        uses
    }

    /// Stores element-wise values that would cost too much to compute again at every reader.
    fn store_what_pays(&mut self) {
        let (uses, grows) = (self.uses(), self.grows());
        let mut costs: Vec<Cost> = Vec::with_capacity(self.nodes.len());
        for id in 0..self.nodes.len() {
            let pointwise = kind(&self.nodes[id].op) == Kind::Pointwise;
            if self.nodes[id].op == Op::Binary(Binary::Add) {
                self.store_partial_sum(id, &costs);
            }
            if pointwise {
                self.store_long_code(id, &mut costs);
            }
            let cost = self.cost(id, &costs);
            let node = &self.nodes[id];
            // A load converts at no cost.
            let converts = matches!(node.op, Op::Cast(_)) && self.stored[node.args[0]];
            let costly = cost.work > RECOMPUTE_LIMIT || cost.arrays.len() >= REREAD_LIMIT;
            let repeated = if node.shape.count() == 1 {
                cost.work > 2 * RECOMPUTE_LIMIT
            } else {
                grows[id] && !converts
            };
            if pointwise && (repeated || (uses[id] > 1 && costly)) {
                self.stored[id] = true;
            }
            costs.push(cost);
        }
    }

    fn cost(&self, id: Id, costs: &[Cost]) -> Cost {
        let node = &self.nodes[id];
        let mut cost = Cost {
            work: weight(&node.op),
            code: match node.op {
                // Counters along the axes, times their strides, are added up.
                Op::Iota(_) => 1 + 4 * node.shape.len(),
                _ => usize::from(kind(&node.op) != Kind::View),
            },
            arrays: Vec::new(),
            begin: 0,
            first: usize::MAX,
        };
        for &arg in &node.args {
            let below = &costs[arg];
            if self.stored[arg] {
                cost.code += LOAD;
                cost.arrays.push(arg);
                cost.begin = cost.begin.max(below.begin + 1);
                if !self.is_input(arg) {
                    cost.first = cost.first.min(below.begin);
                }
            } else {
                cost.code += below.code;
                cost.work += below.work;
                cost.arrays.extend(&below.arrays);
                cost.begin = cost.begin.max(below.begin);
                cost.first = cost.first.min(below.first);
            }
        }
        let count = |id: Id| self.shape(id).count();
        cost.arrays.retain(|&array| count(array) >= count(id));
        cost.arrays
            .sort_unstable_by_key(|&array| (Reverse(count(array)), array));
        cost.arrays.dedup();
        cost.arrays.truncate(REREAD_LIMIT);
        cost
    }

    /// Adds the terms of a long sum as they are computed. Otherwise all of them would wait in memory for
    /// the last.
    fn store_partial_sum(&mut self, id: Id, costs: &[Cost]) {
        let args = [self.nodes[id].args[0], self.nodes[id].args[1]];
        for (partial, term) in [(args[0], args[1]), (args[1], args[0])] {
            let waits = costs[term].begin > costs[partial].first.saturating_add(WAIT);
            let sum = self.nodes[partial].op == Op::Binary(Binary::Add);
            if sum && waits && costs[partial].arrays.len() >= REREAD_LIMIT {
                self.stored[partial] = true;
            }
        }
    }

    /// Stores operands, the longest first, until the code of an entry is short enough for one program.
    fn store_long_code(&mut self, id: Id, costs: &mut [Cost]) {
        let args = self.nodes[id].args.clone();
        loop {
            let code = |&arg: &Id| {
                if self.stored[arg] {
                    LOAD
                } else {
                    costs[arg].code
                }
            };
            let Some(&longest) = args.iter().max_by_key(|arg| code(arg)) else {
                return;
            };
            let all: usize = args.iter().map(code).sum();
            if all < CODE_LIMIT || code(&longest) <= LOAD {
                return;
            }
            self.store_origin(longest);
            costs[longest].code = LOAD;
        }
    }

    /// For each entry: whether a reader broadcasts it, and so would compute it again for many of its own
    /// elements.
    fn grows(&self) -> Vec<bool> {
        let mut grows = vec![false; self.nodes.len()];
        for (reader, node) in self.nodes.iter().enumerate().rev() {
            for &arg in &node.args {
                grows[arg] |= match node.op {
                    Op::Broadcast => node.shape.count() > self.shape(arg).count(),
                    Op::Reshape => !self.stored[reader] && grows[reader],
                    _ => false,
                };
            }
        }
        grows
    }
}

/// Work of one element, in additions.
fn weight(op: &Op) -> usize {
    match op {
        Op::Unary(f) => f.cost(),
        Op::Binary(f) => f.cost(),
        Op::Select | Op::Cast(_) => 1,
        Op::Permute(_) => 4,
        _ => 0,
    }
}
