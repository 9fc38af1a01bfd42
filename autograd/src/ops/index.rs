//! Indices: rows by index, pooling windows, argmax, random numbers.

use crate::error::{Result, refuse};
use crate::ops::float_of;
use crate::tape::{Tape, Var};
use kernels::{ArgMax, Distribution, Float, Kernel, Random, Rows, Window, WindowKind};
use tensor::{DType, Shape};

impl<'t> Var<'t> {
    /// Rows of self \[rows, …\] picked by an i32 index array \[count\]: \[count, …\].
    pub fn rows(self, index: Var<'t>) -> Result<Var<'t>> {
        self.tape().expect_own("rows", &[index])?;
        let float = float_of("rows", &[self])?;
        let (x, picked) = (self.shape(), index.shape());
        if x.is_empty() || picked.len() != 1 || index.dtype() != DType::I32 {
            return refuse(
                "rows",
                format!("{self:?} by {index:?}: the index must be i32 with one axis"),
            );
        }
        if x[0] == 0 && picked[0] > 0 {
            return refuse("rows", format!("{index:?} into {self:?}, which has no row"));
        }
        let spec = Rows {
            float,
            rows: x[0],
            width: Shape::from(&x[1..]).count(),
            count: picked[0],
            adjoint: false,
        };
        let (kernel, shape) = (Kernel::Rows(spec), [&picked[..], &x[1..]].concat());
        self.tape()
            .kernel(kernel, &[self, index], shape, self.dtype())
    }

    /// The index (i32) of the greatest element along an axis, the first of equals. The axis is removed.
    pub fn argmax(self, axis: usize) -> Result<Var<'t>> {
        let float = float_of("argmax", &[self])?;
        let shape = self.shape();
        if axis >= shape.len() || shape[axis] == 0 {
            return refuse("argmax", format!("axis {axis} of {shape}"));
        }
        let spec = ArgMax {
            float,
            outer: Shape::from(&shape[..axis]).count(),
            n: shape[axis],
            inner: Shape::from(&shape[axis + 1..]).count(),
        };
        let (kernel, kept) = (
            Kernel::ArgMax(spec),
            [&shape[..axis], &shape[axis + 1..]].concat(),
        );
        self.tape().kernel(kernel, &[self], kept, DType::I32)
    }

    /// 1 at each index and 0 elsewhere: indices of any shape, with a last axis of `classes` added.
    pub fn one_hot(self, classes: usize, dtype: DType) -> Result<Var<'t>> {
        // Indices are compared as floats: beyond this they are not all exact.
        let exact = if dtype == DType::F64 {
            1 << 53
        } else {
            1 << 24
        };
        if classes > exact {
            return refuse(
                "one_hot",
                format!("{classes} classes: {dtype} counts to {exact} exactly"),
            );
        }
        let mut shape = self.shape().to_vec();
        let index = self
            .cast(dtype)
            .reshape([shape.clone(), vec![1]].concat())?;
        shape.push(classes);
        let counter = self.tape().iota(shape.len() - 1, dtype, shape.clone())?;
        index.expand(shape)?.equal(counter)
    }

    /// The greatest pixel of every window over images \[n, h, w, c\]. Padding never wins, ties go to the
    /// first. `pad`: rows above and below, columns left and right.
    pub fn max_pool(
        self,
        window: [usize; 2],
        stride: [usize; 2],
        pad: [usize; 4],
    ) -> Result<Var<'t>> {
        let float = float_of("max_pool", &[self])?;
        let shape = self.shape();
        let &[n, h, w, c] = &*shape else {
            return refuse("max_pool", format!("images are [n, h, w, c], not {shape}"));
        };
        let inside = |extent: usize, size: usize, before: usize, after: usize| {
            size > 0
                && before < size
                && after < size
                && extent.saturating_add(before).saturating_add(after) >= size
        };
        let fits = inside(h, window[0], pad[0], pad[1]) && inside(w, window[1], pad[2], pad[3]);
        if !fits || stride.contains(&0) || window[0].saturating_mul(window[1]) > 255 {
            return refuse(
                "max_pool",
                format!("windows {window:?} step {stride:?} border {pad:?} over {shape}"),
            );
        }
        let spec = Window {
            float,
            kind: WindowKind::ArgMax,
            n,
            h,
            w,
            c,
            window,
            stride,
            pad,
        };
        let pooled: Shape = [n, spec.out_h(), spec.out_w(), c].into();
        let record = |kind, args: &[Var<'t>], dtype| {
            let kernel = Kernel::Window(Window { kind, ..spec });
            self.tape().kernel(kernel, args, pooled.clone(), dtype)
        };
        let offsets = record(WindowKind::ArgMax, &[self], DType::U8)?;
        record(WindowKind::Gather, &[self, offsets], self.dtype())
    }
}

impl Tape {
    /// Random numbers that depend only on the key (u32 \[4\]: seed low, seed high, outer step, inner step)
    /// and on `op`, which tells apart several draws with one key. So a step that is recomputed draws the
    /// same numbers.
    pub fn random<'t>(
        &'t self,
        key: Var<'t>,
        op: u32,
        distribution: Distribution,
        dtype: DType,
        shape: impl Into<Shape>,
    ) -> Result<Var<'t>> {
        let shape = shape.into();
        self.expect_own("random", &[key])?;
        let Some(float) = Float::of(dtype) else {
            return refuse("random", format!("f32 or f64, not {dtype}"));
        };
        if key.dtype() != DType::U32 || *key.shape() != [4] {
            return refuse("random", format!("the key must be u32 [4], not {key:?}"));
        }
        let spec = Random {
            float,
            distribution,
            count: shape.count(),
            op,
        };
        self.kernel(Kernel::Random(spec), &[key], shape, dtype)
    }
}
