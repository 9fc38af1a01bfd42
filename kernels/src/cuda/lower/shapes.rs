//! Launches of the kernels that move or pick elements: `shapes.cu`, `window.cu`, `random.cu`; and of
//! `reversible.cu`.

use super::{Fields, Launch, Lowering};
use crate::spec::product;
use crate::{ArgMax, Concat, Distribution, Pad, Random, Reversible, ReversibleKind, Rows, Take};
use crate::{Window, WindowKind};

/// Axes of a border, at most: `PAD_RANK`.
const PAD_RANK: usize = 8;

/// An axis of a padded array, with those merged into it that have no border.
#[derive(Clone, Copy)]
struct PadAxis {
    out: usize,
    before: usize,
    extent: usize,
    stride: usize,
}

/// Axes innermost first; an axis inside without a border is one with its neighbour.
fn pad_axes(pad: &Pad) -> Vec<PadAxis> {
    let mut axes: Vec<PadAxis> = Vec::new();
    let mut stride = 1;
    for (axis, out) in pad.out_extents().into_iter().enumerate().rev() {
        let (extent, before) = (pad.extents[axis], pad.before[axis]);
        match axes.last_mut() {
            Some(inner) if inner.out == inner.extent => {
                inner.out *= out;
                inner.before = before * inner.extent;
                inner.extent *= extent;
            }
            _ => axes.push(PadAxis {
                out,
                before,
                extent,
                stride,
            }),
        }
        stride *= extent;
    }
    axes
}

impl Lowering<'_> {
    pub(super) fn pad(&self, pad: &Pad) -> Result<Vec<Launch>, String> {
        let points = product(&pad.out_extents());
        let axes = pad_axes(pad);
        if axes.len() > PAD_RANK {
            return Err(format!(
                "pad: {} axes; at most {PAD_RANK} on CUDA",
                axes.len()
            ));
        }
        let mut args = Fields::default()
            .u64(self.input(0))
            .u64(self.output(0))
            .u32(points)
            .u32(axes.len());
        for axis in &axes {
            args = args.divisor(axis.out).u32(axis.before).u32(axis.extent);
            args = args.u32(axis.stride);
        }
        let args = args.zeros(24 * (PAD_RANK - axes.len())).words(216);
        Ok(Launch::per_point(
            format!("pad_{}", pad.dtype.size()),
            points,
            args,
        ))
    }

    pub(super) fn concat(&self, concat: &Concat) -> Vec<Launch> {
        let out_row: usize = concat.inner.iter().sum();
        let mut start = 0;
        let mut launches = Vec::new();
        for (input, &row) in concat.inner.iter().enumerate() {
            let points = concat.outer * row;
            let args = Fields::default()
                .u64(self.input(input))
                .u64(self.output(0))
                .u32(points)
                .u32(out_row)
                .u32(start)
                .divisor(row);
            let function = format!("copy_rows_{}", concat.dtype.size());
            launches.extend(Launch::per_point(function, points, args.words(40)));
            start += row;
        }
        launches
    }

    pub(super) fn take(&mut self, take: &Take) -> Vec<Launch> {
        let picked = take.index.len();
        let (function, axis, table) = if take.adjoint {
            ("take_adjoint", take.n, places(take))
        } else {
            ("take", picked, take.index.to_vec())
        };
        let points = take.outer * axis * take.inner;
        let table: Vec<u8> = table.iter().flat_map(|x| x.to_le_bytes()).collect();
        let index = self.tables.add(&table);
        let args = Fields::default()
            .u64(self.input(0))
            .u64(self.output(0))
            .u64(index)
            .u32(points)
            .u32(take.n)
            .u32(picked)
            .divisor(take.inner)
            .divisor(axis)
            .u32(0);
        Launch::per_point(function, points, args.words(64))
    }

    pub(super) fn rows(&self, rows: &Rows) -> Vec<Launch> {
        let (function, many) = if rows.adjoint {
            ("rows_adjoint", rows.rows)
        } else {
            ("rows", rows.count)
        };
        let args = Fields::default()
            .u64(self.input(0))
            .u64(self.output(0))
            .u64(self.input(1))
            .u64(self.faults)
            .u32(rows.rows)
            .u32(rows.count)
            .u32(self.step)
            .divisor(rows.width);
        Launch::per_point(function, many * rows.width, args.words(56))
    }

    pub(super) fn argmax(&self, arg: &ArgMax) -> Vec<Launch> {
        let points = arg.outer * arg.inner;
        let args = Fields::default()
            .u64(self.input(0))
            .u64(self.output(0))
            .u32(points)
            .u32(arg.n)
            .divisor(arg.inner)
            .u32(0);
        Launch::per_point("argmax", points, args.words(40))
    }

    pub(super) fn random(&self, random: &Random) -> Vec<Launch> {
        let normal = random.distribution == Distribution::Normal;
        let args = Fields::default()
            .u64(self.input(0))
            .u64(self.output(0))
            .u32(random.count)
            .u32(random.op as usize)
            .u32(usize::from(normal))
            .u32(0);
        Launch::per_point("random_numbers", random.count.div_ceil(4), args.words(32))
    }

    pub(super) fn reversible(&self, spec: &Reversible) -> Vec<Launch> {
        let (function, inputs): (_, &[usize]) = match spec.kind {
            ReversibleKind::Advance => ("reversible_advance", &[0, 1, 2, 3, 4, 5]),
            ReversibleKind::Undo => ("reversible_undo", &[0, 0, 0, 1, 2, 3]),
            ReversibleKind::Weight => ("reversible_weight", &[0]),
            ReversibleKind::WeightBefore => ("reversible_weight_before", &[0, 0, 0, 0, 1]),
            ReversibleKind::Velocity => ("reversible_velocity", &[0]),
        };
        let mut args = Fields::default().u64(self.output(0));
        for &input in inputs {
            args = args.u64(self.input(input));
        }
        let args = args.zeros(8 * (6 - inputs.len())).u32(spec.count).u32(0);
        // One thread at least: it writes the last two words.
        Launch::per_point(function, spec.count.max(1), args.words(64))
    }

    pub(super) fn window(&self, window: &Window) -> Vec<Launch> {
        let (x, y) = (
            product(&[window.n, window.h, window.w, window.c]),
            product(&[window.n, window.out_h(), window.out_w(), window.c]),
        );
        let [input, output] = [self.input(0), self.output(0)];
        let (function, arrays, points, threads) = match window.kind {
            WindowKind::ArgMax => ("window_argmax", [input, 0, output], y, y),
            WindowKind::Gather => ("window_gather", [input, output, self.input(1)], y, y),
            WindowKind::Scatter => (
                "window_scatter",
                [output, input, self.input(1)],
                x,
                x.max(y),
            ),
        };
        let args = Fields::default()
            .u64(arrays[0])
            .u64(arrays[1])
            .u64(arrays[2])
            .u64(self.faults)
            .u32(points)
            .u32(self.step)
            .u32(window.h)
            .u32(window.w)
            .divisor(window.c)
            .divisor(window.out_w())
            .divisor(window.out_h())
            .divisor(window.w)
            .divisor(window.h)
            .divisor(window.window[1])
            .u32(window.stride[0])
            .u32(window.stride[1])
            .u32(window.pad[0])
            .u32(window.pad[2])
            .u32(window.window[0])
            .u32(y);
        let threads = if points == 0 { 0 } else { threads };
        Launch::per_point(function, threads, args.words(144))
    }
}

/// For every index the places that hold it: starts of n + 1 stretches, then the places.
fn places(take: &Take) -> Vec<u32> {
    let mut of_index = vec![Vec::new(); take.n];
    for (place, &index) in take.index.iter().enumerate() {
        of_index[index as usize].push(place as u32);
    }
    let mut table = vec![0];
    for places in &of_index {
        table.push(table[table.len() - 1] + places.len() as u32);
    }
    table.extend(of_index.into_iter().flatten());
    table
}
