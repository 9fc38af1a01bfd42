//! Kernels that move or pick numbers: padding, concatenation, windows, indices.

use std::sync::Arc;

/// A zero border: input of `extents`, output of `before + extents + after` along every axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pad {
    /// Shape of the input.
    pub extents: Vec<usize>,
    /// Zeros before, per axis.
    pub before: Vec<usize>,
    /// Zeros after, per axis.
    pub after: Vec<usize>,
}

/// Inputs [outer, inner\[i\]] side by side, giving [outer, Σ inner].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Concat {
    /// Rows of every input.
    pub outer: usize,
    /// Row length of each input.
    pub inner: Vec<usize>,
}

/// Which direction a [`Take`] works in.
/// `[outer, n, inner]` → `[outer, index.len(), inner]` by constant indices along the middle axis; its
/// adjoint sums back. Reflected and repeated borders are of this kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Take {
    /// Leading extent.
    pub outer: usize,
    /// Extent that is indexed.
    pub n: usize,
    /// Trailing extent.
    pub inner: usize,
    /// Indices below `n`.
    pub index: Arc<[u32]>,
    /// The adjoint: `[outer, index.len(), inner]` → `[outer, n, inner]`, summed in order of the index.
    pub adjoint: bool,
}

/// Rows picked by an i32 index array: (x `[rows, width]`, index `[count]`) → `[count, width]`; or its
/// adjoint (y `[count, width]`, index) → `[rows, width]`, summed in order. An index outside is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rows {
    /// Rows to pick from.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// Rows picked.
    pub count: usize,
    /// The adjoint: scatter-add.
    pub adjoint: bool,
}

/// Index (i32) of the greatest of `[outer, n, inner]` along the middle axis; the first of equals; NaN is
/// greater than all numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArgMax {
    /// Leading extent.
    pub outer: usize,
    /// Extent that is searched.
    pub n: usize,
    /// Trailing extent.
    pub inner: usize,
}

/// What a [`Window`] kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowKind {
    /// x → u8 offset (row · window width + column) of each window's greatest; the first of equals; NaN is
    /// greater than all numbers. Pixels outside the image never win.
    ArgMax,
    /// (x, offsets) → y: the picked pixel of every window.
    Gather,
    /// (y, offsets) → x: the adjoint, summed in the order of windows.
    Scatter,
}

/// Pooling windows over images x \[n, h, w, c\] giving \[n, `out_h()`, `out_w()`, c\]. At most 255 pixels a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// What is done.
    pub kind: WindowKind,
    /// Images.
    pub n: usize,
    /// Height of x.
    pub h: usize,
    /// Width of x.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Height and width of the window.
    pub window: [usize; 2],
    /// Vertical and horizontal step.
    pub stride: [usize; 2],
    /// Rows above and below, columns left and right, that lie outside the image; less than the window.
    pub pad: [usize; 4],
}

impl Window {
    /// Height of y.
    pub fn out_h(&self) -> usize {
        (self.h + self.pad[0] + self.pad[1] - self.window[0]) / self.stride[0] + 1
    }

    /// Width of y.
    pub fn out_w(&self) -> usize {
        (self.w + self.pad[2] + self.pad[3] - self.window[1]) / self.stride[1] + 1
    }
}
