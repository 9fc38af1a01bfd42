//! Convolutions.

use super::matmul::Contraction;
use super::window::{check_image, check_window, windows};
use super::{Spec, product};
use crate::Float;
use tensor::DType;

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
    /// Add to the result instead of replacing it; rounding as for [`crate::MatMul::accumulate`].
    pub accumulate: bool,
}

impl Conv {
    /// Height of y.
    pub fn out_h(&self) -> usize {
        windows(self.h, &self.pad[..2], self.window[0], self.stride[0])
    }

    /// Width of y.
    pub fn out_w(&self) -> usize {
        windows(self.w, &self.pad[2..], self.window[1], self.stride[1])
    }

    /// Elements of x, of the weight, and of y, of all of the batch.
    pub fn counts(&self) -> [usize; 3] {
        let ([kh, kw], batch) = (self.window, self.batch);
        [
            product(&[batch, self.n, self.h, self.w, self.c]),
            product(&[batch, self.out, kh, kw, self.c]),
            product(&[batch, self.n, self.out_h(), self.out_w(), self.out]),
        ]
    }
}

impl Spec for Conv {
    fn name(&self) -> &'static str {
        match self.kind {
            ConvKind::Forward => "conv",
            ConvKind::Input => "conv-input",
            ConvKind::Weight => "conv-weight",
        }
    }

    fn check(&self) -> Result<(), String> {
        let image = [self.h, self.w];
        check_window(image, self.window, self.stride, self.pad)?;
        check_image(image, &[self.batch, self.n, self.c, self.out])
    }

    fn extents(&self) -> Vec<Vec<usize>> {
        let Self {
            batch, n, c, out, ..
        } = *self;
        let ([kh, kw], pad) = (self.window, self.pad);
        let padded = [self.h + pad[0] + pad[1], self.w + pad[2] + pad[3]];
        vec![
            // The multiplications. 16 more channels leave room for lanes of vector registers that stay empty,
            // which the costs in `cpu/conv` count, too.
            vec![
                batch,
                n,
                padded[0],
                padded[1],
                kh,
                kw,
                c.saturating_add(16),
                out.saturating_add(16),
            ],
            vec![batch, n, padded[0], padded[1], c],
            vec![batch, out, kh, kw, c],
            vec![batch, n, self.out_h(), self.out_w(), out],
        ]
    }

    fn inputs(&self) -> Vec<(DType, usize)> {
        let [x, w, y] = self.counts();
        let counts = match self.kind {
            ConvKind::Forward => [x, w],
            ConvKind::Input => [y, w],
            ConvKind::Weight => [x, y],
        };
        counts.map(|count| (self.float.into(), count)).to_vec()
    }

    fn outputs(&self) -> Vec<(DType, usize)> {
        let [x, w, y] = self.counts();
        let count = match self.kind {
            ConvKind::Forward => y,
            ConvKind::Input => x,
            ConvKind::Weight => w,
        };
        vec![(self.float.into(), count)]
    }

    /// Twice the multiply-adds of the definition, those with zeros of the padding included. The CPU
    /// transforms 3×3 windows where that pays, and then does fewer. So a rate in these FLOPs may exceed the
    /// CPU's peak.
    fn flops(&self) -> u64 {
        let [kh, kw] = self.window;
        product(&[2, self.counts()[2], kh, kw, self.c]) as u64
    }
}

impl Contraction for Conv {
    fn pair_name(&self) -> &'static str {
        match self.kind {
            ConvKind::Forward => "conv-pair",
            ConvKind::Input => "conv-input-pair",
            ConvKind::Weight => "conv-weight-pair",
        }
    }

    fn accumulates(&self) -> bool {
        self.accumulate
    }
}
