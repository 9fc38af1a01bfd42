//! Contractions: matrix products and convolutions. Each family is closed: the derivative of one member
//! is the two others.

use crate::error::{Result, refuse};
use crate::ops::float_of;
use crate::tape::Var;
use kernels::{Conv, ConvKind, Kernel, MatMul};
use tensor::Shape;

/// The extents of images \[n, h, w, channels\] and of weights \[out, kh, kw, c\].
type Pair = ([usize; 4], [usize; 4]);

/// Stride and padding of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvOptions {
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Zero rows above and below, zero columns left and right.
    pub pad: [usize; 4],
}

impl ConvOptions {
    /// Stride 1 and `n` zeros on every side.
    pub fn padded(n: usize) -> Self {
        Self {
            stride: [1, 1],
            pad: [n; 4],
        }
    }
}

impl<'t> Var<'t> {
    /// The matrix product \[m, k\]·\[k, n\], or of each pair of a batch \[b, m, k\]·\[b, k, n\].
    pub fn matmul(self, other: Var<'t>) -> Result<Var<'t>> {
        self.matmul_with(other, false, false)
    }

    /// The matrix product of self or its transpose with other or its transpose (last two axes).
    pub fn matmul_with(
        self,
        other: Var<'t>,
        transpose_self: bool,
        transpose_other: bool,
    ) -> Result<Var<'t>> {
        self.tape().expect_own("matmul", &[other])?;
        let float = float_of("matmul", &[self, other])?;
        let (a, b) = (self.shape(), other.shape());
        let bad = || {
            refuse(
                "matmul",
                format!(
                    "{a}{} · {b}{} does not fit",
                    mark(transpose_self),
                    mark(transpose_other)
                ),
            )
        };
        let rank = a.len();
        if !(rank == 2 || rank == 3) || b.len() != rank || a[..rank - 2] != b[..rank - 2] {
            return bad();
        }
        let sides = |s: &Shape, t: bool| {
            if t {
                (s[rank - 1], s[rank - 2])
            } else {
                (s[rank - 2], s[rank - 1])
            }
        };
        let ((m, k), (inner, n)) = (sides(&a, transpose_self), sides(&b, transpose_other));
        if k != inner {
            return bad();
        }
        let batch = Shape::from(&a[..rank - 2]).count();
        let shape: Shape = [&a[..rank - 2], &[m, n]].concat().into();
        let spec = MatMul {
            float,
            batch,
            m,
            n,
            k,
            transpose_a: transpose_self,
            transpose_b: transpose_other,
            accumulate: false,
        };
        let kernel = Kernel::MatMul(spec);
        self.tape()
            .kernel(kernel, &[self, other], shape, self.dtype())
    }

    /// Convolution of images \[n, h, w, c\] with weights \[out, kh, kw, c\]; or of each pair of a batch
    /// \[b, n, h, w, c\] and \[b, out, kh, kw, c\].
    pub fn conv2d(self, weight: Var<'t>, options: ConvOptions) -> Result<Var<'t>> {
        let ConvOptions { stride, pad } = options;
        let fits = |([n, h, width, c], [_, kh, kw, channels]): Pair| {
            let padded = |n: usize, axis: usize| {
                n.saturating_add(pad[2 * axis])
                    .saturating_add(pad[2 * axis + 1])
            };
            let inside = padded(h, 0) >= kh && padded(width, 1) >= kw;
            let fits = inside && c == channels && kh.min(kw) > 0 && !stride.contains(&0);
            fits.then_some([n, h, width])
        };
        let Some(size) = self.images_and_weights(weight).and_then(fits) else {
            let (x, w) = (self.shape(), weight.shape());
            return refuse(
                "conv2d",
                format!("images {x}, weights {w}, {options:?} do not fit"),
            );
        };
        self.conv(ConvKind::Forward, size, weight, options)
    }

    /// The transpose of [`conv2d`](Self::conv2d) with respect to its images, for weights
    /// \[out, kh, kw, c\]: from \[n, h, w, out\] to the smallest images \[n, …, …, c\] whose convolution
    /// has this size. Every pixel of self is spread over a window; `pad` crops. Or of each pair of a batch.
    ///
    /// ```
    /// # use autograd::{ConvOptions, Tape}; use tensor::DType::F32;
    /// let tape = Tape::new();
    /// let x = tape.input("x", F32, [1, 4, 6, 3])?;
    /// let w = tape.input("w", F32, [5, 4, 4, 3])?;
    /// let y = tape.input("y", F32, [1, 2, 3, 5])?;
    /// let options = ConvOptions { stride: [2, 2], pad: [1; 4] };
    /// let spread = y.conv2d_transposed(w, options)?;
    /// assert_eq!(spread.shape(), x.shape());
    /// assert_eq!(tape.vjp(&[(x.conv2d(w, options)?, y)], &[x])?, [spread]);
    /// assert!(y.conv2d_transposed(w, ConvOptions { pad: [3; 4], ..options }).is_err());
    /// # Ok::<(), autograd::Error>(())
    /// ```
    pub fn conv2d_transposed(self, weight: Var<'t>, options: ConvOptions) -> Result<Var<'t>> {
        let ConvOptions { stride, pad } = options;
        let fits = |(y, w): Pair| {
            let spread = |axis: usize| {
                let steps = y[axis].checked_sub(1)?.checked_mul(stride[axis - 1])?;
                let covered = steps.checked_add(w[axis])?;
                let kept = covered.checked_sub(pad[2 * axis - 2])?;
                let kept = kept.checked_sub(pad[2 * axis - 1])?;
                (kept > 0).then_some(kept)
            };
            let fits = y[3] == w[0] && w[1].min(w[2]) > 0 && !stride.contains(&0);
            fits.then(|| Some([y[0], spread(1)?, spread(2)?]))?
        };
        let Some(size) = self.images_and_weights(weight).and_then(fits) else {
            let (y, w) = (self.shape(), weight.shape());
            return refuse(
                "conv2d_transposed",
                format!("{y}, weights {w}, {options:?} do not fit"),
            );
        };
        self.conv(ConvKind::Input, size, weight, options)
    }

    /// The last four extents of both; `None` if there are fewer, more than five, or different batches.
    fn images_and_weights(self, weight: Var<'t>) -> Option<Pair> {
        let (images, weight) = (self.shape(), weight.shape());
        let (batch, images) = images.split_last_chunk::<4>()?;
        let (same, weight) = weight.split_last_chunk::<4>()?;
        (batch == same && batch.len() <= 1).then_some((*images, *weight))
    }

    /// A convolution or its transpose, whose images have the given number, height and width.
    fn conv(
        self,
        kind: ConvKind,
        [n, h, width]: [usize; 3],
        weight: Var<'t>,
        ConvOptions { stride, pad }: ConvOptions,
    ) -> Result<Var<'t>> {
        self.tape().expect_own("conv2d", &[weight])?;
        let shape = weight.shape();
        let (batch, w) = shape.split_at(shape.len() - 4);
        let spec = Conv {
            float: float_of("conv2d", &[self, weight])?,
            kind,
            batch: Shape::from(batch).count(),
            n,
            h,
            w: width,
            c: w[3],
            out: w[0],
            window: [w[1], w[2]],
            stride,
            pad,
            accumulate: false,
        };
        let images = match kind {
            ConvKind::Forward => [n, spec.out_h(), spec.out_w(), w[0]],
            _ => [n, h, width, w[3]],
        };
        let (kernel, shape) = (Kernel::Conv(spec), [batch, &images].concat());
        self.tape()
            .kernel(kernel, &[self, weight], shape, self.dtype())
    }
}

fn mark(transposed: bool) -> &'static str {
    if transposed { "ᵀ" } else { "" }
}
