//! Windows over images, built from the engine's own operations: grouped, depthwise and dilated convolutions,
//! and the mean of a window.
//!
//! Images may have axes before \[n, h, w, c\], as of learners; weights have the same axes before their own.

use super::network::Window;
use autograd::{ConvOptions, Result, Var};

/// A kernel \[…, kh, kw, in\] with zeros between its taps: a convolution with it is a dilated one.
pub(super) fn dilated(kernel: Var<'_>, [down, right]: [usize; 2]) -> Result<Var<'_>> {
    let shape = kernel.shape();
    let (outer, inner) = shape.split_at(shape.len() - 3);
    let [kh, kw, inputs] = [inner[0], inner[1], inner[2]];
    if [down, right] == [1, 1] {
        return Ok(kernel);
    }
    let mut after = vec![0; shape.len() + 2];
    (after[outer.len() + 1], after[outer.len() + 3]) = (down - 1, right - 1);
    let apart = kernel.reshape([outer, &[kh, 1, kw, 1, inputs]].concat())?;
    let apart = apart.pad(&vec![0; shape.len() + 2], &after)?;
    let whole = apart.reshape([outer, &[kh * down, kw * right, inputs]].concat())?;
    let reach = [(kh - 1) * down + 1, (kw - 1) * right + 1, inputs];
    whole.slice(&vec![0; shape.len()], &[outer, &reach].concat())
}

/// Convolution of images \[…, n, h, w, groups·c\] with weights \[…, out, kh, kw, c\], of which the first part sees the first
/// c channels and so on: one convolution for each group, all at once.
pub(super) fn grouped_conv<'t>(
    x: Var<'t>,
    weight: Var<'t>,
    groups: usize,
    options: ConvOptions,
) -> Result<Var<'t>> {
    if groups == 1 {
        return x.conv2d(weight, options);
    }
    let (images, kernel) = (x.shape(), weight.shape());
    let lead = images.len() - 4;
    let learners: usize = images[..lead].iter().product();
    let channels = images[lead + 3] / groups;
    let split = [&images[..lead + 3], &[groups, channels]].concat();
    // Moves the axis of groups in front of the axis of examples.
    let mut axes: Vec<usize> = (0..split.len()).collect();
    axes[lead..lead + 4].rotate_right(1);
    let apart = x.reshape(split)?.permute(&axes)?;
    let apart =
        apart.reshape([&[learners * groups], &images[lead..lead + 3], &[channels]].concat())?;
    let [out, rest] = [kernel[lead] / groups, lead + 1];
    let kernels = weight.reshape([&[learners * groups, out], &kernel[rest..]].concat())?;
    let y = apart.conv2d(kernels, options)?;
    let pixels = y.shape()[1..4].to_vec();
    let mut back: Vec<usize> = (0..axes.len()).collect();
    back[lead..lead + 4].rotate_left(1);
    let y = y.reshape([&images[..lead], &[groups], &pixels, &[out]].concat())?;
    y.permute(&back)?
        .reshape([&images[..lead], &pixels, &[groups * out]].concat())
}

/// Channels that a depthwise convolution takes together, as one dense block. Larger blocks make fewer and
/// larger products, but all except one in `BLOCK` of their terms are zero. 32 is fastest on two Zen 5 cores
/// for 16 to 48 channels, and takes a quarter of the memory of a sum over shifted images.
const BLOCK: usize = 32;

/// Convolution of every channel of images \[…, n, h, w, c\] with a window of its own, of weights \[…, c, kh, kw, 1\]: a grouped
/// convolution whose kernels are zero between different channels.
pub(super) fn depthwise_conv<'t>(x: Var<'t>, weight: Var<'t>, window: &Window) -> Result<Var<'t>> {
    let channels = x.shape().last().copied().unwrap_or(1);
    let divides = |block: &usize| channels.is_multiple_of(*block);
    let block = (1..=BLOCK).rev().find(divides).unwrap_or(1);
    let (tape, dtype, groups) = (x.tape(), x.dtype(), channels / block);
    let [row, column] = [1, 2].map(|axis| tape.iota(axis, dtype, [groups, block, block]));
    let own = row?.equal(column?)?.reshape([channels, 1, 1, block])?;
    let (stride, pad) = (window.stride, window.pad);
    let kernel = (dilated(weight, window.dilation)? * own)?;
    grouped_conv(x, kernel, groups, ConvOptions { stride, pad })
}

/// The mean of every window over images \[n, h, w, c\]. A border does not count.
pub(super) fn average_pool<'t>(x: Var<'t>, window: &Window) -> Result<Var<'t>> {
    if (window.stride, window.pad) == (window.size, [0; 4]) {
        return mean_of_tiles(x, window);
    }
    let sum = |x| window_sum(window_sum(x, &window.along(0))?, &window.along(1));
    let total = sum(x)?;
    if window.pad == [0; 4] {
        let [rows, columns] = window.size;
        return total * (1.0 / (rows * columns) as f64);
    }
    let [_, h, w, _] = x.shape()[..] else {
        return Ok(total);
    };
    total / sum(x.tape().constant(1.0, x.dtype(), [1, h, w, 1]))?
}

/// The mean of windows side by side.
fn mean_of_tiles<'t>(x: Var<'t>, window: &Window) -> Result<Var<'t>> {
    let shape = x.shape();
    let ([n, c], [rows, columns]) = ([shape[0], shape[3]], window.size);
    let [down, right] = [shape[1] / rows, shape[2] / columns];
    let whole = x.slice(&[0; 4], &[n, down * rows, right * columns, c])?;
    let tiles = whole.reshape([n, down, rows, right, columns, c])?;
    tiles.mean_keep(&[2, 4])?.reshape([n, down, right, c])
}

fn window_sum<'t>(x: Var<'t>, window: &Window) -> Result<Var<'t>> {
    let views = Views::new(x, window)?;
    let all = taps(window.size).map(|tap| views.at(tap));
    x.tape().sum_of(&all.collect::<Result<Vec<_>>>()?)
}

fn taps([rows, columns]: [usize; 2]) -> impl Iterator<Item = [usize; 2]> {
    (0..rows).flat_map(move |row| (0..columns).map(move |column| [row, column]))
}

impl Window {
    /// The same along rows (0) or columns (1) only.
    fn along(&self, axis: usize) -> Self {
        let mut one = Self {
            size: [1; 2],
            stride: [1; 2],
            pad: [0; 4],
            dilation: [1; 2],
        };
        one.size[axis] = self.size[axis];
        one.stride[axis] = self.stride[axis];
        one.dilation[axis] = self.dilation[axis];
        one.pad[2 * axis..][..2].copy_from_slice(&self.pad[2 * axis..][..2]);
        one
    }
}

/// Images with a border, reshaped so that rows and columns are cut into steps of the window: \[…, rows, step,
/// columns, step, c\]. One tap of all windows is then a plain slice.
struct Views<'t, 'w> {
    steps: Var<'t>,
    window: &'w Window,
    /// Windows along rows and columns.
    count: [usize; 2],
}

impl<'t, 'w> Views<'t, 'w> {
    fn new(x: Var<'t>, window: &'w Window) -> Result<Self> {
        let shape = x.shape();
        let lead = shape.len() - 3;
        let [h, w] = [shape[lead], shape[lead + 1]];
        // Where there is no room for a window, the slice below is refused.
        let count = window.count([h, w]).unwrap_or_default();
        let reach = window.reach();
        let (mut before, mut after) = (vec![0; shape.len()], vec![0; shape.len()]);
        let (mut whole, mut steps) = (shape.to_vec(), shape[..lead].to_vec());
        for axis in [0, 1] {
            let stride = window.stride[axis];
            let rows = (reach[axis] - 1) / stride + count[axis];
            let extent = shape[lead + axis] + window.pad[2 * axis];
            before[lead + axis] = window.pad[2 * axis];
            after[lead + axis] = (rows * stride).saturating_sub(extent);
            whole[lead + axis] = rows * stride;
            steps.extend([rows, stride]);
        }
        steps.push(shape[lead + 2]);
        let padded = x.pad(&before, &after)?;
        let padded = padded.slice(&vec![0; shape.len()], &whole)?;
        Ok(Self {
            steps: padded.reshape(steps)?,
            window,
            count,
        })
    }

    /// What the pixel \[row, column\] of every window sees: \[…, windows, windows, c\].
    fn at(&self, tap: [usize; 2]) -> Result<Var<'t>> {
        let shape = self.steps.shape();
        let lead = shape.len() - 5;
        let (mut start, mut extent) = (vec![0; shape.len()], shape.to_vec());
        for axis in [0, 1] {
            let stride = self.window.stride[axis];
            let offset = tap[axis] * self.window.dilation[axis];
            let at = lead + 2 * axis;
            (start[at], start[at + 1]) = (offset / stride, offset % stride);
            (extent[at], extent[at + 1]) = (self.count[axis], 1);
        }
        let [rows, columns] = self.count;
        let seen = [&shape[..lead], &[rows, columns, shape[lead + 4]]].concat();
        self.steps.slice(&start, &extent)?.reshape(seen)
    }
}
