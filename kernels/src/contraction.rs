//! Contractions: matrix products and the three convolutions.

use crate::Float;

/// `C = op(A) · op(B)`, for each of `batch` independent triples that lie one after another.
///
/// `op(A)` is m×k, `op(B)` k×n, C m×n, all row-major; with `transpose_a`, A is stored k×m, with
/// `transpose_b`, B is stored n×k. 2·batch·m·n·k FLOPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatMul {
    /// Element type of all three.
    pub float: Float,
    /// Number of independent products.
    pub batch: usize,
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Inner length.
    pub k: usize,
    /// A is stored k×m.
    pub transpose_a: bool,
    /// B is stored n×k.
    pub transpose_b: bool,
    /// `C += product` instead of `C = product`: the whole product is formed first and then added, with
    /// one rounding per element, so the bits are those of a product followed by an addition.
    pub accumulate: bool,
}

/// Which argument of the convolution is the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvKind {
    /// (x, w) → y
    Forward,
    /// (y, w) → x: the transpose with respect to the input.
    Input,
    /// (x, y) → w: the transpose with respect to the weight.
    Weight,
}

/// A 2-D convolution (cross-correlation) of images x \[n, h, w, c\] with weights \[out, kh, kw, c\],
/// giving y \[n, `out_h()`, `out_w()`, out\]; with its two transposes. Pixels outside the image are zero. For
/// each of `batch` independent triples that lie one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv {
    /// Element type of all three.
    pub float: Float,
    /// Which of the three arguments is computed.
    pub kind: ConvKind,
    /// Number of independent convolutions: each has images and weights of its own.
    pub batch: usize,
    /// Images of each.
    pub n: usize,
    /// Height of x.
    pub h: usize,
    /// Width of x.
    pub w: usize,
    /// Channels of x.
    pub c: usize,
    /// Channels of y.
    pub out: usize,
    /// Height and width of the window.
    pub window: [usize; 2],
    /// Vertical and horizontal step.
    pub stride: [usize; 2],
    /// Zero rows above and below, zero columns left and right.
    pub pad: [usize; 4],
    /// Add to the result instead of replacing it; rounding as for [`MatMul::accumulate`].
    pub accumulate: bool,
}

impl MatMul {
    /// Multiply-adds times two.
    pub fn flops(&self) -> u64 {
        2 * (self.batch * self.m * self.n) as u64 * self.k as u64
    }

    /// Bytes of scratch memory that the CPU needs.
    pub fn workspace(&self) -> usize {
        0
    }
}

impl Conv {
    /// Height of y.
    pub fn out_h(&self) -> usize {
        (self.h + self.pad[0] + self.pad[1] - self.window[0]) / self.stride[0] + 1
    }

    /// Width of y.
    pub fn out_w(&self) -> usize {
        (self.w + self.pad[2] + self.pad[3] - self.window[1]) / self.stride[1] + 1
    }

    /// Elements of x, of the weight, and of y, of all of the batch.
    pub fn counts(&self) -> [usize; 3] {
        [
            self.n * self.h * self.w * self.c,
            self.out * self.window[0] * self.window[1] * self.c,
            self.n * self.out_h() * self.out_w() * self.out,
        ]
        .map(|count| self.batch * count)
    }

    /// Bytes of scratch memory that the CPU needs.
    pub fn workspace(&self) -> usize {
        crate::cpu::conv::workspace(self)
    }

    /// Multiply-adds times two, as the definition has them, zeros of the padding counted. The processor transforms
    /// windows of 3×3 where that pays, and then does fewer: FLOP/s of these may be more than it can do.
    pub fn flops(&self) -> u64 {
        2 * self.counts()[2] as u64 * (self.window[0] * self.window[1] * self.c) as u64
    }
}
