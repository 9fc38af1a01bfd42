//! Launches of convolutions with respect to an input of few channels: `gemm_few.cu`.

use super::gemm::{Geometry, geometry};
use super::{Launch, Lowering, word};
use crate::{Conv, ConvKind};
use bytemuck::{Pod, Zeroable};

/// Channels of x, at most: with more, tiles of 64 columns are faster.
const MOST_CHANNELS: usize = 8;

/// Blocks that a large device has at once.
const BLOCKS: usize = 264;

/// Bytes of shared memory of a block, at most: two fit a multiprocessor of any device.
const MOST_SHARED: usize = 48 << 10;

/// Bytes of a channel's row of 16 numbers of the weight, padded so that rows begin in different banks.
const ROW_BYTES: usize = 4 * 20;

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct FewInputArgs {
    y: u64,
    weight: u64,
    second_y: u64,
    second_weight: u64,
    x: u64,
    images: u32,
    bands: u32,
    rows: u32,
    columns: u32,
    depth: u32,
    stride: u32,
    rounds: u32,
    accumulate: u32,
    geometry: Geometry,
}
const _: () = assert!(size_of::<FewInputArgs>() == 232, "as on the device");

/// Bands of so many rows of x, and what they need of shared memory.
#[derive(Clone, Copy, Debug)]
struct Bands {
    rows: usize,
    depth: usize,
    columns: usize,
    /// Elements from a column of parts to the next: such that quads of lanes write to different banks.
    stride: usize,
}

impl Bands {
    /// None if not even a row fits.
    fn new(conv: &Conv) -> Option<Self> {
        let wanted = (BLOCKS / (conv.batch * conv.n).max(1)).clamp(1, conv.h.max(1));
        let mut rows = conv.h.div_ceil(wanted);
        while rows > 0 {
            let bands = Self::of(conv, rows);
            if bands.shared() <= MOST_SHARED {
                return Some(bands);
            }
            rows /= 2;
        }
        None
    }

    fn of(conv: &Conv, rows: usize) -> Self {
        let of_y = (rows + conv.window[0] - 2) / conv.stride[0] + 1;
        let pixels = of_y.min(conv.out_h()) * conv.out_w();
        Self {
            rows,
            depth: conv.out.next_multiple_of(16),
            columns: conv.window[0] * conv.window[1] * conv.c,
            stride: pixels.next_multiple_of(8) + 2,
        }
    }

    fn shared(&self) -> usize {
        ROW_BYTES * self.depth + 4 * self.columns * self.stride
    }
}

impl Lowering<'_> {
    /// None if tiles shall do it.
    pub(super) fn few_input(&self, conv: &Conv) -> Option<Vec<Launch>> {
        if conv.kind != ConvKind::Input || conv.c > MOST_CHANNELS {
            return None;
        }
        let bands = Bands::new(conv)?;
        let products = self.bound.inputs.len() / 2;
        let second = 2 * (products - 1);
        let count = conv.h.div_ceil(bands.rows);
        let args = FewInputArgs {
            y: self.input(0),
            weight: self.input(1),
            second_y: self.input(second),
            second_weight: self.input(second + 1),
            x: self.output(0),
            images: word(conv.n),
            bands: word(count),
            rows: word(bands.rows),
            columns: word(bands.columns),
            depth: word(bands.depth),
            stride: word(bands.stride),
            rounds: word(products),
            accumulate: conv.accumulate.into(),
            geometry: geometry(conv),
        };
        let blocks = word(conv.batch * conv.n * count);
        let mut launch = Launch::new("conv_input_few", blocks, 256, &args);
        launch.shared = word(bands.shared());
        Some(vec![launch])
    }
}
