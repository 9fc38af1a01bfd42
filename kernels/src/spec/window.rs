//! Pooling windows.

use super::{Spec, product};
use crate::Float;
use tensor::DType;

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

/// Pooling windows over images x \[n, h, w, c\] giving \[n, `out_h()`, `out_w()`, c\]. At most 255 pixels a
/// window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Element type of x and y.
    pub float: Float,
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
        windows(self.h, &self.pad[..2], self.window[0], self.stride[0])
    }

    /// Width of y.
    pub fn out_w(&self) -> usize {
        windows(self.w, &self.pad[2..], self.window[1], self.stride[1])
    }

    /// Elements of x and of y.
    fn counts(&self) -> [usize; 2] {
        [
            product(&[self.n, self.h, self.w, self.c]),
            product(&[self.n, self.out_h(), self.out_w(), self.c]),
        ]
    }
}

impl Spec for Window {
    fn name(&self) -> &'static str {
        match self.kind {
            WindowKind::ArgMax => "window-argmax",
            WindowKind::Gather => "window-gather",
            WindowKind::Scatter => "window-scatter",
        }
    }

    fn check(&self) -> Result<(), String> {
        let ([kh, kw], pad, image) = (self.window, self.pad, [self.h, self.w]);
        check_window(image, self.window, self.stride, pad)?;
        if product(&[kh, kw]) > 255 {
            return Err(format!("a window of {kh}×{kw} pixels; at most 255"));
        }
        if pad[0].max(pad[1]) >= kh || pad[2].max(pad[3]) >= kw {
            return Err(format!(
                "a border of {pad:?} is not less than the window {kh}×{kw}"
            ));
        }
        check_image(image, &[self.n, self.c])
    }

    fn extents(&self) -> Vec<Vec<usize>> {
        let Self { n, h, w, c, .. } = *self;
        vec![vec![n, h, w, c], vec![n, self.out_h(), self.out_w(), c]]
    }

    fn inputs(&self) -> Vec<(DType, usize)> {
        let ([x, y], float) = (self.counts(), self.float.into());
        match self.kind {
            WindowKind::ArgMax => vec![(float, x)],
            WindowKind::Gather => vec![(float, x), (DType::U8, y)],
            WindowKind::Scatter => vec![(float, y), (DType::U8, y)],
        }
    }

    fn outputs(&self) -> Vec<(DType, usize)> {
        let [x, y] = self.counts();
        vec![match self.kind {
            WindowKind::ArgMax => (DType::U8, y),
            WindowKind::Gather => (self.float.into(), y),
            WindowKind::Scatter => (self.float.into(), x),
        }]
    }

    fn flops(&self) -> u64 {
        match self.kind {
            WindowKind::Scatter => self.counts()[1] as u64,
            _ => 0,
        }
    }
}

/// How many windows fit along an axis with these borders.
pub(super) fn windows(extent: usize, borders: &[usize], window: usize, step: usize) -> usize {
    let padded = borders.iter().fold(extent, |n, &m| n.saturating_add(m));
    padded.saturating_sub(window) / step.max(1) + 1
}

/// Refuses an image without pixels, unless one of `counts` is zero.
pub(super) fn check_image([h, w]: [usize; 2], counts: &[usize]) -> Result<(), String> {
    if counts.contains(&0) || (h > 0 && w > 0) {
        return Ok(());
    }
    Err(format!("an image of {h}×{w} pixels"))
}

/// The padded image holds at least one window, and no sum of extents overflows.
pub(super) fn check_window(
    image: [usize; 2],
    window: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 4],
) -> Result<(), String> {
    const LARGEST: usize = i32::MAX as usize;
    if window.contains(&0) || stride.contains(&0) {
        return Err(format!(
            "window {window:?} and stride {stride:?} must be at least 1"
        ));
    }
    if image
        .iter()
        .chain(&window)
        .chain(&stride)
        .chain(&pad)
        .any(|&n| n > LARGEST)
    {
        return Err(format!(
            "image {image:?}, window {window:?}, stride {stride:?}, border {pad:?}: too large"
        ));
    }
    let padded = [image[0] + pad[0] + pad[1], image[1] + pad[2] + pad[3]];
    if padded[0] < window[0] || padded[1] < window[1] {
        return Err(format!(
            "a window of {window:?} does not fit the padded image {padded:?}"
        ));
    }
    Ok(())
}
