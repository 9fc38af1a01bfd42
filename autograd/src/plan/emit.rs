//! Writing the code of a fused element-wise program.

use crate::op::Op;
use crate::plan::graph::{Fused, Graph, Kind, kind};
use crate::plan::view::{View, common_extents};
use crate::tape::Id;
use kernels::{Binary, Float, Instr, Load, Map, Store, StoreKind};
use rustc_hash::{FxHashMap, FxHashSet};
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
    /// The views under which entries are read; the first is the identity.
    views: Vec<View>,
    loads: Vec<Load>,
    reads: Vec<(Id, usize)>,
    code: Vec<Instr>,
    /// The values of entries under views.
    known: FxHashMap<(Id, usize), usize>,
}

/// The index of the identity in `views`.
const IDENTITY: usize = 0;

/// How the value of an entry under a view is found.
enum Found {
    /// A value of the code.
    Value(usize),
    /// Another entry under another view.
    Below(Id, usize),
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
            views: vec![View::identity(&extents)],
            extents,
            loads: Vec::new(),
            reads: Vec::new(),
            code: Vec::new(),
            known: FxHashMap::default(),
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
        let Op::Sum(axes) = &node.op else {
            let value = match self.compute(root, IDENTITY)? {
                Found::Value(value) => value,
                Found::Below(id, view) => self.value(id, view)?,
            };
            return Ok(Store {
                value,
                dtype: node.dtype,
                kind: StoreKind::Full,
            });
        };
        let value = self.value(node.args[0], IDENTITY)?;
        // Which of the finer axes belong to a summed one.
        let shape = self.graph.shape(node.args[0]);
        let on = self.views[IDENTITY]
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

    /// The value of an entry: read if it is stored, else computed. The recursion is no deeper than a
    /// program has instructions, and their number is limited.
    fn value(&mut self, id: Id, view: usize) -> Result<usize, Refusal> {
        let (mut id, mut view) = (id, view);
        loop {
            let op = &self.graph.nodes[id].op;
            let own = self.roots.contains(&id);
            if own && (rounds(op) || view != IDENTITY || matches!(op, Op::Sum(_))) {
                return Err(Refusal::Conflict);
            }
            if self.graph.stored[id] && !own {
                return Ok(self.load(id, view));
            }
            match self.compute(id, view)? {
                Found::Value(value) => return Ok(value),
                Found::Below(below, under) => (id, view) = (below, under),
            }
        }
    }

    fn load(&mut self, id: Id, view: usize) -> usize {
        if let Some(&value) = self.known.get(&(id, view)) {
            return value;
        }
        self.loads.push(Load {
            dtype: self.graph.nodes[id].dtype,
            strides: self.views[view].strides.clone(),
        });
        self.reads.push((id, self.views[view].offset));
        self.emit(id, view, Instr::Load(self.loads.len() - 1))
    }

    fn emit(&mut self, id: Id, view: usize, instruction: Instr) -> usize {
        self.code.push(instruction);
        self.known.insert((id, view), self.code.len() - 1);
        self.code.len() - 1
    }

    fn compute(&mut self, id: Id, view: usize) -> Result<Found, Refusal> {
        if let Some(&value) = self.known.get(&(id, view)) {
            return Ok(Found::Value(value));
        }
        let graph = self.graph;
        let node = &graph.nodes[id];
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
                return Ok(Found::Below(node.args[0], view));
            }
            _ => return self.look_through(id, view),
        };
        Ok(Found::Value(self.emit(id, view, instruction)))
    }

    /// The operand of a view, and how it is looked at.
    fn look_through(&mut self, id: Id, view: usize) -> Result<Found, Refusal> {
        let node = &self.graph.nodes[id];
        debug_assert_eq!(kind(&node.op), Kind::View);
        let (arg, above) = (node.args[0], &self.views[view]);
        let below = above.through(&node.op, &node.shape, self.graph.shape(arg), &self.extents);
        let Some(below) = below else {
            let unreachable = if self.roots.contains(&id) { arg } else { id };
            return Err(Refusal::Store(vec![unreachable]));
        };
        let known = self.views.iter().position(|view| *view == below);
        let number = known.unwrap_or_else(|| {
            self.views.push(below);
            self.views.len() - 1
        });
        Ok(Found::Below(arg, number))
    }

    /// The index along an axis of the entry, from the counters of the iteration space.
    fn iota(&mut self, id: Id, axis: usize, view: usize) -> Result<Found, Refusal> {
        let on = self.views[view]
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
        self.known.insert((id, view), sum);
        Ok(Found::Value(sum))
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
    let mut seen: FxHashSet<Id> = FxHashSet::default();
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
