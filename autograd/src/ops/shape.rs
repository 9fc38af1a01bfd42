//! Shapes: views, borders, joining, and sums.

use crate::error::{Result, refuse};
use crate::op::Op;
use crate::tape::{Tape, Var, check_size};
use kernels::{Concat, Float, Kernel, Pad, Take};
use std::ops::Range;
use std::sync::Arc;
use tensor::{DType, Shape};

/// The most elements of an axis with its border, 2²⁶. `reflect_pad` and `edge_pad` record an index of 4
/// bytes for each, 256 MiB in all.
const LONGEST: usize = 1 << 26;

/// The common shape under numpy's rules: aligned at the last axis, extents of 1 stretch.
pub(crate) fn broadcast_shapes(name: &'static str, shapes: &[Shape]) -> Result<Shape> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut common = vec![1; rank];
    for shape in shapes {
        for (extent, wanted) in shape.iter().rev().zip(common.iter_mut().rev()) {
            if *wanted == 1 {
                *wanted = *extent;
            } else if *extent != 1 && extent != wanted {
                let list: Vec<_> = shapes.iter().map(ToString::to_string).collect();
                return refuse(name, format!("shapes do not fit: {}", list.join(" and ")));
            }
        }
    }
    Ok(common.into())
}

impl<'t> Var<'t> {
    /// The same numbers in another shape.
    pub fn reshape(self, shape: impl Into<Shape>) -> Result<Var<'t>> {
        let shape = shape.into();
        if shape == self.shape() {
            return Ok(self);
        }
        if shape.count() != self.shape().count() {
            return refuse(
                "reshape",
                format!("{} has not as many elements as {shape}", self.shape()),
            );
        }
        let node = self.tape().node(self.id);
        match node.op {
            Op::Reshape => self.tape().var(node.args[0]).reshape(shape),
            Op::Const(_) => self.tape().push(node.op.clone(), &[], shape, node.dtype),
            _ => self.tape().push(Op::Reshape, &[self], shape, node.dtype),
        }
    }

    /// Axes in another order: axis `i` of the result is axis `axes[i]` of self.
    pub fn permute(self, axes: &[usize]) -> Result<Var<'t>> {
        let shape = self.shape();
        let mut sorted = axes.to_vec();
        sorted.sort_unstable();
        if sorted.len() != shape.len() || sorted.iter().enumerate().any(|(i, a)| i != *a) {
            return refuse(
                "permute",
                format!("{axes:?} does not order the axes of {shape}"),
            );
        }
        if axes.is_sorted() {
            return Ok(self);
        }
        let node = self.tape().node(self.id);
        let permuted: Shape = axes.iter().map(|&a| shape[a]).collect::<Vec<_>>().into();
        match &node.op {
            Op::Permute(first) => {
                let both: Vec<_> = axes.iter().map(|&a| first[a]).collect();
                self.tape().var(node.args[0]).permute(&both)
            }
            Op::Const(_) => self.tape().push(node.op.clone(), &[], permuted, node.dtype),
            _ => {
                let op = Op::Permute(axes.to_vec());
                self.tape().push(op, &[self], permuted, node.dtype)
            }
        }
    }

    /// Repeated to a shape under numpy's rules: aligned at the last axis, extents of 1 stretch.
    pub fn expand(self, shape: impl Into<Shape>) -> Result<Var<'t>> {
        let (from, to) = (self.shape(), shape.into());
        if from == to {
            return Ok(self);
        }
        let lead = to.len().checked_sub(from.len());
        let fits = |lead: usize| (0..from.len()).all(|i| from[i] == 1 || from[i] == to[lead + i]);
        let Some(lead) = lead.filter(|&lead| fits(lead)) else {
            return refuse("broadcast", format!("{from} does not stretch to {to}"));
        };
        let aligned = self.reshape([vec![1; lead], from.to_vec()].concat())?;
        if aligned.shape() == to {
            return Ok(aligned);
        }
        let node = aligned.tape().node(aligned.id);
        match node.op {
            Op::Const(_) => self.tape().push(node.op.clone(), &[], to, node.dtype),
            Op::Broadcast => self.tape().var(node.args[0]).expand(to),
            _ => self.tape().push(Op::Broadcast, &[aligned], to, node.dtype),
        }
    }

    /// The box of the given extents that begins at `start`.
    pub fn slice(self, start: &[usize], extents: &[usize]) -> Result<Var<'t>> {
        let shape = self.shape();
        let inside = start.len() == shape.len()
            && extents.len() == shape.len()
            && (0..shape.len()).all(|i| start[i].saturating_add(extents[i]) <= shape[i]);
        if !inside {
            return refuse(
                "slice",
                format!("{extents:?} from {start:?} is not inside {shape}"),
            );
        }
        if *extents == *shape {
            return Ok(self);
        }
        if let Some(value) = self.as_constant() {
            return Ok(self.tape().constant(value, self.dtype(), extents));
        }
        let op = Op::Slice(start.to_vec());
        self.tape().push(op, &[self], extents.into(), self.dtype())
    }

    /// Adds a border of zeros, with `before` and `after` elements along every axis.
    pub fn pad(self, before: &[usize], after: &[usize]) -> Result<Var<'t>> {
        let shape = self.shape();
        if before.len() != shape.len() || after.len() != shape.len() {
            return refuse("pad", format!("{before:?} and {after:?} for {shape}"));
        }
        let padded: Vec<_> = (0..shape.len())
            .map(|i| shape[i].saturating_add(before[i]).saturating_add(after[i]))
            .collect();
        if before.iter().chain(after).all(|&n| n == 0) {
            return Ok(self);
        }
        let kernel = Kernel::Pad(Pad {
            dtype: self.dtype(),
            extents: shape.to_vec(),
            before: before.to_vec(),
            after: after.to_vec(),
        });
        self.tape().kernel(kernel, &[self], padded, self.dtype())
    }

    /// Picks elements along an axis by constant indices; an index may occur several times.
    pub fn take(self, axis: usize, index: &[u32]) -> Result<Var<'t>> {
        let shape = self.shape();
        if axis >= shape.len() || index.iter().any(|&i| i as usize >= shape[axis]) {
            return refuse(
                "take",
                format!("indices {index:?} along axis {axis} of {shape}"),
            );
        }
        // Picking only moves bits, so 32-bit integers are moved as if they were f32.
        let float = match self.dtype() {
            DType::F64 => Float::F64,
            DType::F32 | DType::I32 | DType::U32 => Float::F32,
            other => return refuse("take", format!("elements of {other}: cast first")),
        };
        let take = Take {
            float,
            outer: Shape::from(&shape[..axis]).count(),
            n: shape[axis],
            inner: Shape::from(&shape[axis + 1..]).count(),
            index: Arc::from(index),
            adjoint: false,
        };
        let mut taken = shape.to_vec();
        taken[axis] = index.len();
        let kernel = Kernel::Take(take);
        self.tape().kernel(kernel, &[self], taken, self.dtype())
    }

    /// A border of `n` on both sides of an axis that mirrors the array without repeating its edge.
    pub fn reflect_pad(self, axis: usize, n: usize) -> Result<Var<'t>> {
        let extent = self.bordered("reflect_pad", axis, n)?;
        if n >= extent {
            return refuse(
                "reflect_pad",
                format!("a border of {n} on axis {axis} of {}", self.shape()),
            );
        }
        let mirrored = |i: usize| i.abs_diff(n).min(2 * (extent - 1) - i.abs_diff(n));
        let index: Vec<u32> = (0..extent + 2 * n).map(|i| mirrored(i) as u32).collect();
        self.take(axis, &index)
    }

    /// A border of `n` on both sides of an axis that repeats the edge.
    pub fn edge_pad(self, axis: usize, n: usize) -> Result<Var<'t>> {
        let extent = self.bordered("edge_pad", axis, n)?;
        let index: Vec<u32> = (0..extent + 2 * n)
            .map(|i| i.saturating_sub(n).min(extent - 1) as u32)
            .collect();
        self.take(axis, &index)
    }

    /// The extent of an axis that is to get borders of `n` elements; refuses one that would become too
    /// long.
    fn bordered(self, name: &'static str, axis: usize, n: usize) -> Result<usize> {
        let extent = self.shape().get(axis).copied().unwrap_or(0);
        let bordered = n.saturating_mul(2).saturating_add(extent);
        if extent == 0 || bordered > LONGEST {
            let shape = self.shape();
            return refuse(name, format!("a border of {n} on axis {axis} of {shape}"));
        }
        Ok(extent)
    }

    /// Sums over the flagged axes, which stay with extent 1.
    pub(crate) fn sum_flagged(self, axes: &[bool]) -> Result<Var<'t>> {
        let shape = self.shape();
        let flags: Vec<bool> = axes
            .iter()
            .zip(&*shape)
            .map(|(&flag, &n)| flag && n != 1)
            .collect();
        if !flags.contains(&true) {
            return Ok(self);
        }
        let summed: Shape = shape
            .iter()
            .zip(&flags)
            .map(|(&n, &flag)| if flag { 1 } else { n })
            .collect::<Vec<_>>()
            .into();
        if shape.count() == 0 {
            return Ok(self.tape().constant(0.0, self.dtype(), summed));
        }
        if let Some(value) = self.as_constant() {
            check_size("sum", &shape)?;
            let terms = shape.count() / summed.count();
            return Ok(self
                .tape()
                .constant(value * terms as f64, self.dtype(), summed));
        }
        let long = |axis: &usize| shape[*axis] > 1;
        if let Some(first) = (0..shape.len()).find(long)
            && summed.count() == 1
            && (first + 1..shape.len()).any(|axis| long(&axis))
        {
            // A sum of everything is that of its rows' sums: those can share a pass with other sums over rows.
            let rows: Vec<usize> = (first + 1..shape.len()).collect();
            return self.sum_keep(&rows)?.sum_keep(&[first]);
        }
        if let Some(first) = outer_of_two(&shape, &flags) {
            return self.sum_flagged(&first)?.sum_flagged(&flags);
        }
        let op = Op::Sum(flags);
        self.tape().push(op, &[self], summed, self.dtype())
    }

    /// Sums over some axes, which stay with extent 1.
    pub fn sum_keep(self, axes: &[usize]) -> Result<Var<'t>> {
        let shape = self.shape();
        if let Some(axis) = axes.iter().find(|&&axis| axis >= shape.len()) {
            return refuse("sum", format!("axis {axis} of {shape}"));
        }
        self.sum_flagged(
            &(0..shape.len())
                .map(|i| axes.contains(&i))
                .collect::<Vec<_>>(),
        )
    }

    /// Sums over some axes, which are removed.
    pub fn sum(self, axes: &[usize]) -> Result<Var<'t>> {
        let kept: Vec<_> = (0..self.shape().len())
            .filter(|i| !axes.contains(i))
            .collect();
        let shape = self.shape();
        self.sum_keep(axes)?
            .reshape(kept.into_iter().map(|i| shape[i]).collect::<Vec<_>>())
    }

    /// The sum of everything, a scalar.
    pub fn sum_all(self) -> Result<Var<'t>> {
        self.sum(&(0..self.shape().len()).collect::<Vec<_>>())
    }

    /// The mean of everything, a scalar.
    pub fn mean_all(self) -> Result<Var<'t>> {
        self.sum_all()? / self.shape().count() as f64
    }

    /// The mean over some axes, which stay with extent 1.
    pub fn mean_keep(self, axes: &[usize]) -> Result<Var<'t>> {
        let shape = self.shape();
        let summed = (0..shape.len()).filter(|axis| axes.contains(axis));
        let count = Shape::from(summed.map(|axis| shape[axis]).collect::<Vec<_>>()).count();
        self.sum_keep(axes)? / count as f64
    }

    /// Images \[n, h, w, c\] with every pixel repeated to a block of `factor`².
    pub fn upsample(self, factor: usize) -> Result<Var<'t>> {
        let shape = self.shape();
        let &[n, h, w, c] = &*shape else {
            return refuse("upsample", format!("images are [n, h, w, c], not {shape}"));
        };
        self.reshape([n, h, 1, w, 1, c])?
            .expand([n, h, factor, w, factor, c])?
            .reshape([n, h.saturating_mul(factor), w.saturating_mul(factor), c])
    }
}

impl Tape {
    /// Arrays side by side along an axis.
    pub fn concat<'t>(&'t self, parts: &[Var<'t>], axis: usize) -> Result<Var<'t>> {
        let Some(first) = parts.first() else {
            return refuse("concat", "nothing to join");
        };
        self.expect_own("concat", parts)?;
        let mut shape = first.shape().to_vec();
        if axis >= shape.len() {
            return refuse("concat", format!("axis {axis} of {}", first.shape()));
        }
        shape[axis] = 0;
        for part in parts {
            let other = part.shape();
            let fits = other.len() == shape.len()
                && (0..shape.len()).all(|i| i == axis || other[i] == shape[i]);
            if !fits || part.dtype() != first.dtype() {
                return refuse(
                    "concat",
                    format!("{part:?} does not fit {first:?} along axis {axis}"),
                );
            }
            shape[axis] = shape[axis].saturating_add(other[axis]);
        }
        let full = |part: &&Var<'t>| part.shape()[axis] > 0;
        let parts: Vec<Var<'t>> = parts.iter().filter(full).copied().collect();
        match parts[..] {
            [] => Ok(*first),
            [only] => Ok(only),
            _ => {
                let inner = |part: &Var<'t>| Shape::from(&part.shape()[axis..]).count();
                let kernel = Kernel::Concat(Concat {
                    dtype: first.dtype(),
                    outer: Shape::from(&shape[..axis]).count(),
                    inner: parts.iter().map(inner).collect(),
                });
                self.kernel(kernel, &parts, shape, first.dtype())
            }
        }
    }
}

/// In elements. If fewer contiguous terms than this are summed, and outer axes as well, the contiguous ones
/// are summed in a second pass, over the small result of the first.
const SHORT_SUM: usize = 64;

/// Whether to split a sum over contiguous terms and outer axes in two: gives the flags of the first sum,
/// over the outer axes only, which adds row to row. For example, the channels of a group are summed after
/// the pixels.
fn outer_of_two(shape: &Shape, flags: &[bool]) -> Option<Vec<bool>> {
    let long = |&axis: &usize| shape[axis] > 1;
    let last = (0..shape.len())
        .rev()
        .find(|axis| long(axis) && !flags[*axis])?;
    let count = |axes: Range<usize>| axes.filter(|&axis| flags[axis]).map(|axis| shape[axis]);
    let inner: usize = count(last..shape.len()).product();
    let outer: usize = count(0..last).product();
    let split = (2..SHORT_SUM).contains(&inner) && outer >= inner;
    split.then(|| {
        (0..shape.len())
            .map(|axis| flags[axis] && axis < last)
            .collect()
    })
}
