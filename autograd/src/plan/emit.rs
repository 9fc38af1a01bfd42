//! Writing the code of a fused element-wise program.

use crate::op::Op;
use crate::plan::fuse::{Fused, Graph, Kind, kind};
use crate::plan::view::{View, common_extents};
use crate::tape::Id;
use kernels::{Binary, Float, Instr, Load, Map, Store, StoreKind};
use std::collections::{HashMap, HashSet};
use tensor::{DType, Shape};

/// Why roots cannot be one program.
pub(super) enum Refusal {
    /// These entries must be stored first.
    Store(Vec<Id>),
    /// One root would read another one before it is complete.
    Conflict,
}

/// The shape of the space that a root is computed over.
pub(super) fn space(graph: &Graph, root: Id) -> &Shape {
    match graph.nodes[root].op {
        Op::Sum(_) => graph.shape(graph.nodes[root].args[0]),
        _ => graph.shape(root),
    }
}

pub(super) struct Emitter<'g> {
    graph: &'g Graph,
    roots: &'g [Id],
    extents: Vec<usize>,
    identity: View,
    loads: Vec<Load>,
    reads: Vec<(Id, usize)>,
    code: Vec<Instr>,
    known: HashMap<(Id, View), usize>,
}

impl<'g> Emitter<'g> {
    /// One program that computes all of the roots.
    pub(super) fn fuse(graph: &'g Graph, roots: &'g [Id]) -> Result<Fused, Refusal> {
        let float = float_of(graph, roots[0]);
        if roots.iter().any(|&root| float_of(graph, root) != float) {
            return Err(Refusal::Conflict);
        }
        let extents = extents(graph, roots)?;
        let mut emitter = Self {
            graph,
            roots,
            identity: View::identity(&extents),
            extents,
            loads: Vec::new(),
            reads: Vec::new(),
            code: Vec::new(),
            known: HashMap::new(),
        };
        let mut stores: Vec<Store> = Vec::new();
        for &root in roots {
            let store = emitter.root(root)?;
            let other_sum = |other: &Store| match (&other.kind, &store.kind) {
                (StoreKind::Sum(a), StoreKind::Sum(b)) => a != b,
                _ => false,
            };
            if stores.iter().any(other_sum) {
                return Err(Refusal::Conflict);
            }
            stores.push(store);
        }
        let map = Map {
            float,
            extents: emitter.extents,
            loads: emitter.loads,
            code: emitter.code,
            stores,
        };
        Ok(Fused {
            roots: roots.to_vec(),
            map,
            reads: emitter.reads,
        })
    }

    fn root(&mut self, root: Id) -> Result<Store, Refusal> {
        let node = &self.graph.nodes[root];
        let identity = self.identity.clone();
        let Op::Sum(axes) = &node.op else {
            let value = self.compute(root, &identity)?;
            return Ok(Store {
                value,
                dtype: node.dtype,
                kind: StoreKind::Full,
            });
        };
        let value = self.value(node.args[0], &identity)?;
        // Which of the finer axes belong to a summed one.
        let shape = self.graph.shape(node.args[0]);
        let on = self
            .identity
            .coordinates(shape, &self.extents)
            .ok_or(Refusal::Conflict)?;
        let flags = on
            .steps
            .iter()
            .map(|&(axis, factor)| factor > 0 && axes[axis])
            .collect();
        Ok(Store {
            value,
            dtype: node.dtype,
            kind: StoreKind::Sum(flags),
        })
    }

    /// The value of an entry: read if it is stored, else computed.
    fn value(&mut self, id: Id, view: &View) -> Result<usize, Refusal> {
        let own = self.roots.contains(&id);
        if own && rounds(&self.graph.nodes[id].op) {
            return Err(Refusal::Conflict);
        }
        if own && (*view != self.identity || matches!(self.graph.nodes[id].op, Op::Sum(_))) {
            return Err(Refusal::Conflict);
        }
        if self.graph.stored[id] && !own {
            return Ok(self.load(id, view));
        }
        self.compute(id, view)
    }

    fn load(&mut self, id: Id, view: &View) -> usize {
        if let Some(&value) = self.known.get(&(id, view.clone())) {
            return value;
        }
        self.loads.push(Load {
            dtype: self.graph.nodes[id].dtype,
            strides: view.strides.clone(),
        });
        self.reads.push((id, view.offset));
        self.emit(id, view, Instr::Load(self.loads.len() - 1))
    }

    fn emit(&mut self, id: Id, view: &View, instruction: Instr) -> usize {
        self.code.push(instruction);
        self.known.insert((id, view.clone()), self.code.len() - 1);
        self.code.len() - 1
    }

    fn compute(&mut self, id: Id, view: &View) -> Result<usize, Refusal> {
        if let Some(&value) = self.known.get(&(id, view.clone())) {
            return Ok(value);
        }
        let node = &self.graph.nodes[id];
        let instruction = match &node.op {
            Op::Const(bits) => Instr::Const(*bits),
            Op::Iota(axis) => return self.iota(id, *axis, view),
            Op::Unary(op) => Instr::Unary(*op, self.value(node.args[0], view)?),
            Op::Binary(op) => {
                let x = self.value(node.args[0], view)?;
                Instr::Binary(*op, x, self.value(node.args[1], view)?)
            }
            Op::Select => {
                let mask = self.value(node.args[0], view)?;
                let chosen = self.value(node.args[1], view)?;
                Instr::Select(mask, chosen, self.value(node.args[2], view)?)
            }
            Op::Cast(_) | Op::StopGradient | Op::StraightThrough => {
                return self.value(node.args[0], view);
            }
            op => {
                debug_assert_eq!(kind(op), Kind::View);
                let arg = node.args[0];
                let below = view.through(op, &node.shape, self.graph.shape(arg), &self.extents);
                return match below {
                    Some(below) => self.value(arg, &below),
                    None if self.roots.contains(&id) => Err(Refusal::Store(vec![arg])),
                    None => Err(Refusal::Store(vec![id])),
                };
            }
        };
        Ok(self.emit(id, view, instruction))
    }

    /// The index along an axis of the entry, from the counters of the iteration space.
    fn iota(&mut self, id: Id, axis: usize, view: &View) -> Result<usize, Refusal> {
        let on = view
            .coordinates(self.graph.shape(id), &self.extents)
            .ok_or_else(|| Refusal::Store(vec![id]))?;
        self.code.push(Instr::constant(on.offset[axis] as f64));
        let mut sum = self.code.len() - 1;
        for (counter, &(along, factor)) in on.steps.iter().enumerate() {
            if along != axis || factor == 0 {
                continue;
            }
            let at = self.code.len();
            self.code.push(Instr::Iota(counter));
            self.code.push(Instr::constant(factor as f64));
            self.code.push(Instr::Binary(Binary::Mul, at, at + 1));
            self.code.push(Instr::Binary(Binary::Add, sum, at + 2));
            sum = at + 3;
        }
        self.known.insert((id, view.clone()), sum);
        Ok(sum)
    }
}

/// Whether what is read back from memory is less exact than what the map computed.
fn rounds(op: &Op) -> bool {
    matches!(op, Op::Cast(to) if !matches!(to, DType::F32 | DType::F64))
}

/// The type a root is computed in. Integers are only copied, which f64 does exactly.
fn float_of(graph: &Graph, root: Id) -> Float {
    let node = &graph.nodes[root];
    let dtype = match node.op {
        Op::Cast(_) if !matches!(node.dtype, DType::F32 | DType::F64) => {
            graph.nodes[node.args[0]].dtype
        }
        _ => node.dtype,
    };
    match dtype {
        DType::F32 | DType::BF16 | DType::F16 | DType::U8 => Float::F32,
        DType::F64 | DType::I32 | DType::U32 => Float::F64,
    }
}

/// Extents fine enough for every shape in which the roots' elements are looked at one by one.
fn extents(graph: &Graph, roots: &[Id]) -> Result<Vec<usize>, Refusal> {
    let mut shapes: Vec<&Shape> = Vec::new();
    let mut reshaped: Vec<Id> = Vec::new();
    let mut seen: HashSet<Id> = HashSet::new();
    let mut open: Vec<Id> = Vec::new();
    for &root in roots {
        shapes.push(space(graph, root));
        match graph.nodes[root].op {
            Op::Sum(_) => open.push(graph.nodes[root].args[0]),
            _ => open.push(root),
        }
    }
    while let Some(id) = open.pop() {
        if !seen.insert(id) || (graph.stored[id] && !roots.contains(&id)) {
            continue;
        }
        let node = &graph.nodes[id];
        shapes.push(&node.shape);
        match kind(&node.op) {
            Kind::Pointwise => open.extend(&node.args),
            Kind::View if node.op == Op::Reshape => {
                reshaped.push(node.args[0]);
                open.push(node.args[0]);
            }
            _ => {}
        }
    }
    if let Some(extents) = common_extents(shapes.into_iter()) {
        return Ok(extents);
    }
    if roots.len() > 1 {
        return Err(Refusal::Conflict);
    }
    reshaped.retain(|&id| !graph.stored[id]);
    Err(Refusal::Store(reshaped))
}
