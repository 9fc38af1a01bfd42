//! The tape: a list of operations, each on results of earlier ones (Wengert 1964).
//!
//! Recording computes nothing. Equal operations on equal operands are one entry, so what two derivatives
//! have in common is shared as they are written.

use crate::error::{Error, Result, refuse};
use crate::op::Op;
use crate::spec::ArraySpec;
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use tensor::{ArrayError, DType, Shape};

/// The number of an entry of a tape; greater than those of its operands.
pub(crate) type Id = usize;

/// One entry: an operation on earlier entries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) op: Op,
    pub(crate) args: Vec<Id>,
    pub(crate) shape: Shape,
    pub(crate) dtype: DType,
}

#[derive(Default)]
struct Entries {
    nodes: Vec<Rc<Node>>,
    ids: FxHashMap<Rc<Node>, Id>,
}

/// A recording of operations. Create inputs on it, combine them, take derivatives, then make a
/// [`Plan`](crate::Plan) of it.
///
/// ```
/// use autograd::Tape;
/// use tensor::DType;
/// let tape = Tape::new();
/// let x = tape.input("x", DType::F32, [2, 3])?;
/// let loss = (x * x)?.sum_all()?;
/// let gradient = tape.grad(loss, &[x])?[0];
/// assert_eq!(gradient.shape(), x.shape());
/// # Ok::<(), autograd::Error>(())
/// ```
pub struct Tape {
    number: u64,
    entries: RefCell<Entries>,
}

impl Default for Tape {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            entries: RefCell::default(),
        }
    }
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// No other tape of the process has this number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.entries.borrow().nodes.len()
    }

    /// Whether nothing is recorded yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An array that is given when the plan runs. The name is only for messages: two inputs with the same
    /// name are different inputs.
    pub fn input(&self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Result<Var<'_>> {
        self.push(Op::Input(name.into(), self.len()), &[], shape.into(), dtype)
    }

    /// Inputs as described, in that order.
    pub(crate) fn inputs(&self, specs: &[ArraySpec]) -> Result<Vec<Var<'_>>> {
        let input = |spec: &ArraySpec| self.input(&spec.name, spec.dtype, spec.shape.clone());
        specs.iter().map(input).collect()
    }

    /// An array with `value` at every element. A shape too large for any memory is refused only when the
    /// array is used.
    pub fn constant(&self, value: f64, dtype: DType, shape: impl Into<Shape>) -> Var<'_> {
        self.enter(Op::constant(value, dtype), &[], shape.into(), dtype)
    }

    /// An array of zeros that derivatives treat as a variable: `y + perturbation` has the value of `y`, and
    /// its tangent is the sum of both tangents. Plans leave the addition out.
    pub fn perturbation(&self, dtype: DType, shape: impl Into<Shape>) -> Var<'_> {
        self.enter(Op::Perturbation(self.len()), &[], shape.into(), dtype)
    }

    /// The index along `axis` at every element.
    pub fn iota(&self, axis: usize, dtype: DType, shape: impl Into<Shape>) -> Result<Var<'_>> {
        let shape = shape.into();
        if axis >= shape.len() || !dtype.is_float() {
            return refuse("iota", format!("axis {axis} of {shape} {dtype}"));
        }
        self.push(Op::Iota(axis), &[], shape, dtype)
    }

    /// Records an operation; refuses a result that is too large for any memory.
    pub(crate) fn push(
        &self,
        op: Op,
        args: &[Var<'_>],
        shape: Shape,
        dtype: DType,
    ) -> Result<Var<'_>> {
        check_size(op.name(), &shape)?;
        Ok(self.enter(op, args, shape, dtype))
    }

    /// Records an operation without checking the size of its result: for results that are no larger than an
    /// operand, and for leaves, whose size is checked where they are used.
    pub(crate) fn enter(&self, op: Op, args: &[Var<'_>], shape: Shape, dtype: DType) -> Var<'_> {
        let node = Node {
            op,
            args: args.iter().map(|v| v.id).collect(),
            shape,
            dtype,
        };
        let mut entries = self.entries.borrow_mut();
        if let Some(&id) = entries.ids.get(&node) {
            return self.var(id);
        }
        let (node, id) = (Rc::new(node), entries.nodes.len());
        entries.ids.insert(Rc::clone(&node), id);
        entries.nodes.push(node);
        self.var(id)
    }

    pub(crate) fn node(&self, id: Id) -> Rc<Node> {
        Rc::clone(&self.entries.borrow().nodes[id])
    }

    pub(crate) fn with_node<R>(&self, id: Id, f: impl FnOnce(&Node) -> R) -> R {
        f(&self.entries.borrow().nodes[id])
    }

    pub(crate) fn var(&self, id: Id) -> Var<'_> {
        Var { tape: self, id }
    }

    /// Whether the variable was recorded here.
    pub(crate) fn owns(&self, var: Var<'_>) -> bool {
        std::ptr::eq(self, var.tape)
    }

    /// All variables must be of this tape.
    pub(crate) fn expect_own(&self, op: &'static str, vars: &[Var<'_>]) -> Result<()> {
        if vars.iter().all(|v| self.owns(*v)) {
            return Ok(());
        }
        Err(Error::Record {
            op,
            reason: "a variable of another tape".into(),
        })
    }
}

/// Refuses a shape that is too large for any memory.
pub(crate) fn check_size(op: &'static str, shape: &Shape) -> Result<()> {
    let refused = |error: ArrayError| Error::Record {
        op,
        reason: error.to_string(),
    };
    shape.check().map_err(refused)
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, node) in self.entries.borrow().nodes.iter().enumerate() {
            writeln!(
                f,
                "{id:5} {:?} {:?} {} {}",
                node.op, node.args, node.dtype, node.shape
            )?;
        }
        Ok(())
    }
}

/// An entry of a tape: a handle that is copied freely.
#[derive(Clone, Copy)]
pub struct Var<'t> {
    pub(crate) tape: &'t Tape,
    pub(crate) id: Id,
}

impl<'t> Var<'t> {
    /// Its shape.
    pub fn shape(&self) -> Shape {
        self.tape.with_node(self.id, |node| node.shape.clone())
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.tape.with_node(self.id, |node| node.dtype)
    }

    /// The tape it is recorded on.
    pub fn tape(&self) -> &'t Tape {
        self.tape
    }

    /// The value, if every element is the same known number.
    pub(crate) fn as_constant(&self) -> Option<f64> {
        self.tape.with_node(self.id, |node| match node.op {
            Op::Const(bits) => Some(f64::from_bits(bits)),
            _ => None,
        })
    }

    /// A constant of the same shape and type.
    pub(crate) fn constant_like(&self, value: f64) -> Var<'t> {
        self.tape.constant(value, self.dtype(), self.shape())
    }
}

impl PartialEq for Var<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.tape, other.tape) && self.id == other.id
    }
}

impl fmt::Debug for Var<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.tape.node(self.id);
        write!(f, "%{} {} {}", self.id, node.dtype, node.shape)
    }
}
