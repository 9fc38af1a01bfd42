//! Strided views: where an iteration space falls in an array.

use crate::op::Op;
use tensor::Shape;

/// How the points of an iteration space fall on the flat (row-major) index of an array:
/// `offset + Σ index[i]·strides[i]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct View {
    pub(super) offset: usize,
    pub(super) strides: Vec<usize>,
}

impl View {
    /// Every point on its own flat index.
    pub(super) fn identity(extents: &[usize]) -> Self {
        let mut strides = Shape::from(extents).strides();
        for (stride, &extent) in strides.iter_mut().zip(extents) {
            if extent == 1 {
                *stride = 0;
            }
        }
        Self { offset: 0, strides }
    }

    /// The same points on the operand of a view operation; `None` if they do not lie on strides there.
    pub(super) fn through(
        &self,
        op: &Op,
        out: &Shape,
        arg: &Shape,
        extents: &[usize],
    ) -> Option<Self> {
        if *op == Op::Reshape {
            return Some(self.clone());
        }
        let on = self.coordinates(out, extents)?;
        let arg_strides = arg.strides();
        // Stride in the operand of one step along axis `a` of the result, and where the result begins.
        let (step, begin): (Vec<usize>, usize) = match op {
            Op::Broadcast => (
                (0..out.len())
                    .map(|a| if arg[a] == 1 { 0 } else { arg_strides[a] })
                    .collect(),
                0,
            ),
            Op::Permute(axes) => (axes.iter().map(|&a| arg_strides[a]).collect(), 0),
            Op::Slice(start) => {
                let begin = start
                    .iter()
                    .zip(&arg_strides)
                    .map(|(s, stride)| s * stride)
                    .sum();
                (arg_strides, begin)
            }
            _ => return None,
        };
        let offset = begin
            + on.offset
                .iter()
                .zip(&step)
                .map(|(c, s)| c * s)
                .sum::<usize>();
        let strides = on
            .steps
            .iter()
            .map(|&(axis, factor)| if factor == 0 { 0 } else { factor * step[axis] })
            .collect();
        Some(Self { offset, strides })
    }

    /// Splits flat strides into steps along single axes of `shape`; `None` where a step would carry over.
    pub(super) fn coordinates(&self, shape: &Shape, extents: &[usize]) -> Option<Coordinates> {
        let strides = shape.strides();
        let mut rest = self.offset;
        let mut offset = vec![0; shape.len()];
        for a in 0..shape.len() {
            offset[a] = rest / strides[a].max(1);
            rest %= strides[a].max(1);
        }
        let mut reach = offset.clone();
        let mut steps = Vec::with_capacity(extents.len());
        for (&stride, &extent) in self.strides.iter().zip(extents) {
            if stride == 0 || extent == 1 {
                steps.push((0, 0));
                continue;
            }
            let axis = (0..shape.len()).find(|&a| shape[a] > 1 && strides[a] <= stride)?;
            if stride % strides[axis] != 0 {
                return None;
            }
            let factor = stride / strides[axis];
            reach[axis] += factor * (extent - 1);
            steps.push((axis, factor));
        }
        let inside = reach.iter().zip(&**shape).all(|(r, n)| r < n);
        inside.then_some(Coordinates { offset, steps })
    }
}

/// A view by axes: where it begins, and for each axis of the iteration space the axis it moves along and
/// by how many elements (0: it stays).
pub(super) struct Coordinates {
    pub(super) offset: Vec<usize>,
    pub(super) steps: Vec<(usize, usize)>,
}

/// The coarsest extents from which every one of the shapes (of equal count) is made by merging neighbours;
/// `None` if there are none.
pub(super) fn common_extents<'a>(shapes: impl Iterator<Item = &'a Shape>) -> Option<Vec<usize>> {
    let mut cuts = vec![1usize];
    for shape in shapes {
        let mut suffix = 1;
        for &extent in shape.iter().rev() {
            suffix *= extent;
            cuts.push(suffix);
        }
    }
    cuts.sort_unstable();
    cuts.dedup();
    let mut extents = Vec::with_capacity(cuts.len());
    for pair in cuts.windows(2) {
        if pair[0] == 0 || pair[1] % pair[0] != 0 {
            return None;
        }
        extents.push(pair[1] / pair[0]);
    }
    extents.reverse();
    Some(extents)
}
