//! Launches of the kernels that move or pick elements: `shapes.cu`, `window.cu`, `random.cu`; and of
//! `reversible.cu`.

use super::{Divisor, Launch, Lowering, word};
use crate::spec::product;
use crate::{ArgMax, Concat, Distribution, Pad, Random, Reversible, ReversibleKind, Rows, Take};
use crate::{Window, WindowKind};
use bytemuck::{Pod, Zeroable};

/// Axes of a border, at most: `PAD_RANK`.
const PAD_RANK: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct PadAxis {
    out: Divisor,
    before: u32,
    extent: u32,
    stride: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct PadArgs {
    input: u64,
    output: u64,
    points: u32,
    rank: u32,
    axes: [PadAxis; PAD_RANK],
}
const _: () = assert!(size_of::<PadArgs>() == 216, "as on the device");

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct CopyArgs {
    input: u64,
    output: u64,
    points: u32,
    out_row: u32,
    start: u32,
    row: Divisor,
}
const _: () = assert!(size_of::<CopyArgs>() == 40, "as on the device");

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct TakeArgs {
    input: u64,
    output: u64,
    index: u64,
    points: u32,
    n: u32,
    picked: u32,
    inner: Divisor,
    axis: Divisor,
    pad: u32,
}
const _: () = assert!(size_of::<TakeArgs>() == 64, "as on the device");

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct RowsArgs {
    input: u64,
    output: u64,
    index: u64,
    faults: u64,
    rows: u32,
    count: u32,
    step: u32,
    width: Divisor,
}
const _: () = assert!(size_of::<RowsArgs>() == 56, "as on the device");

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct ArgMaxArgs {
    input: u64,
    output: u64,
    points: u32,
    n: u32,
    inner: Divisor,
    pad: u32,
}
const _: () = assert!(size_of::<ArgMaxArgs>() == 40, "as on the device");

/// `random.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct RandomArgs {
    key: u64,
    output: u64,
    count: u32,
    op: u32,
    normal: u32,
    pad: u32,
}
const _: () = assert!(size_of::<RandomArgs>() == 32, "as on the device");

/// `reversible.cu`. Arrays that a kernel does not use are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct ReversibleArgs {
    output: u64,
    state: u64,
    theta: u64,
    u: u64,
    gradient: u64,
    lr: u64,
    momentum: u64,
    count: u32,
    pad: u32,
}
const _: () = assert!(size_of::<ReversibleArgs>() == 64, "as on the device");

/// `window.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct WindowArgs {
    x: u64,
    y: u64,
    picks: u64,
    faults: u64,
    points: u32,
    step: u32,
    h: u32,
    w: u32,
    c: Divisor,
    out_w: Divisor,
    out_h: Divisor,
    image_w: Divisor,
    image_h: Divisor,
    window_w: Divisor,
    stride_y: u32,
    stride_x: u32,
    pad_y: u32,
    pad_x: u32,
    window_h: u32,
    y_points: u32,
}
const _: () = assert!(size_of::<WindowArgs>() == 144, "as on the device");

/// An axis of a padded array, with its neighbours that have no border.
#[derive(Clone, Copy)]
struct Bordered {
    out: usize,
    before: usize,
    extent: usize,
    stride: usize,
}

/// Axes innermost first. An axis without a border is merged with the next axis outwards.
fn bordered(pad: &Pad) -> Vec<Bordered> {
    let mut axes: Vec<Bordered> = Vec::new();
    let mut stride = 1;
    for (axis, out) in pad.out_extents().into_iter().enumerate().rev() {
        let (extent, before) = (pad.extents[axis], pad.before[axis]);
        match axes.last_mut() {
            Some(inner) if inner.out == inner.extent => {
                inner.out *= out;
                inner.before = before * inner.extent;
                inner.extent *= extent;
            }
            _ => axes.push(Bordered {
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

/// `window.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct TileArgs {
    x: u64,
    y: u64,
    picks: u64,
    faults: u64,
    points: u32,
    step: u32,
    h: u32,
    w: u32,
    out_w: u32,
    out_h: u32,
    window_h: u32,
    window_w: u32,
    quads: Divisor,
    across: Divisor,
    down: Divisor,
    pad: u32,
}
const _: () = assert!(size_of::<TileArgs>() == 104, "as on the device");

impl Lowering<'_> {
    pub(super) fn pad(&self, pad: &Pad) -> Result<Vec<Launch>, String> {
        let points = product(&pad.out_extents());
        let bordered = bordered(pad);
        let rank = bordered.len();
        if rank > PAD_RANK {
            return Err(format!("pad: {rank} axes; at most {PAD_RANK} on CUDA"));
        }
        let mut axes = [PadAxis::zeroed(); PAD_RANK];
        for (axis, from) in axes.iter_mut().zip(&bordered) {
            *axis = PadAxis {
                out: Divisor::new(from.out),
                before: word(from.before),
                extent: word(from.extent),
                stride: word(from.stride),
            };
        }
        let args = PadArgs {
            input: self.input(0),
            output: self.output(0),
            points: word(points),
            rank: word(rank),
            axes,
        };
        let function = format!("pad_{}", pad.dtype.size());
        Ok(Launch::per_point(function, points, &args))
    }

    pub(super) fn concat(&self, concat: &Concat) -> Vec<Launch> {
        let out_row: usize = concat.inner.iter().sum();
        let mut start = 0;
        let mut launches = Vec::new();
        for (input, &row) in concat.inner.iter().enumerate() {
            let points = concat.outer * row;
            let args = CopyArgs {
                input: self.input(input),
                output: self.output(0),
                points: word(points),
                out_row: word(out_row),
                start: word(start),
                row: Divisor::new(row),
            };
            let function = format!("copy_rows_{}", concat.dtype.size());
            launches.extend(Launch::per_point(function, points, &args));
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
        let args = TakeArgs {
            input: self.input(0),
            output: self.output(0),
            index: self.tables.add(&table),
            points: word(points),
            n: word(take.n),
            picked: word(picked),
            inner: Divisor::new(take.inner),
            axis: Divisor::new(axis),
            pad: 0,
        };
        Launch::per_point(function, points, &args)
    }

    pub(super) fn rows(&self, rows: &Rows) -> Vec<Launch> {
        let (function, many) = if rows.adjoint {
            ("rows_adjoint", rows.rows)
        } else {
            ("rows", rows.count)
        };
        let args = RowsArgs {
            input: self.input(0),
            output: self.output(0),
            index: self.input(1),
            faults: self.faults,
            rows: word(rows.rows),
            count: word(rows.count),
            step: word(self.step),
            width: Divisor::new(rows.width),
        };
        Launch::per_point(function, many * rows.width, &args)
    }

    pub(super) fn argmax(&self, arg: &ArgMax) -> Vec<Launch> {
        let points = arg.outer * arg.inner;
        let args = ArgMaxArgs {
            input: self.input(0),
            output: self.output(0),
            points: word(points),
            n: word(arg.n),
            inner: Divisor::new(arg.inner),
            pad: 0,
        };
        Launch::per_point("argmax", points, &args)
    }

    pub(super) fn random(&self, random: &Random) -> Vec<Launch> {
        let args = RandomArgs {
            key: self.input(0),
            output: self.output(0),
            count: word(random.count),
            op: random.op,
            normal: (random.distribution == Distribution::Normal).into(),
            pad: 0,
        };
        Launch::per_point("random_numbers", random.count.div_ceil(4), &args)
    }

    pub(super) fn reversible(&self, spec: &Reversible) -> Vec<Launch> {
        let mut args = ReversibleArgs {
            output: self.output(0),
            state: self.input(0),
            count: word(spec.count),
            ..Zeroable::zeroed()
        };
        let input = |i| self.input(i);
        let function = match spec.kind {
            ReversibleKind::Advance => {
                [args.theta, args.u, args.gradient] = [1, 2, 3].map(input);
                [args.lr, args.momentum] = [4, 5].map(input);
                "reversible_advance"
            }
            ReversibleKind::Undo => {
                [args.gradient, args.lr, args.momentum] = [1, 2, 3].map(input);
                "reversible_undo"
            }
            ReversibleKind::WeightBefore => {
                args.lr = input(1);
                "reversible_weight_before"
            }
            ReversibleKind::Weight => "reversible_weight",
            ReversibleKind::Velocity => "reversible_velocity",
        };
        // One thread at least: it writes the last two words.
        Launch::per_point(function, spec.count.max(1), &args)
    }

    /// Scatters windows that lie side by side.
    fn scatter_tiles(&self, window: &Window) -> Vec<Launch> {
        let [rows, columns] = window.window;
        let (down, across) = (window.h.div_ceil(rows), window.w.div_ceil(columns));
        let quads = window.c / 4;
        let points = product(&[window.n, down, across, quads]);
        let args = TileArgs {
            x: self.output(0),
            y: self.input(0),
            picks: self.input(1),
            faults: self.faults,
            points: word(points),
            step: word(self.step),
            h: word(window.h),
            w: word(window.w),
            out_w: word(window.out_w()),
            out_h: word(window.out_h()),
            window_h: word(rows),
            window_w: word(columns),
            quads: Divisor::new(quads),
            across: Divisor::new(across),
            down: Divisor::new(down),
            pad: 0,
        };
        Launch::per_point("window_scatter_tiles", points, &args)
    }

    pub(super) fn window(&self, window: &Window) -> Vec<Launch> {
        let tiles = window.stride == window.window && window.pad == [0; 4];
        if window.kind == WindowKind::Scatter && tiles && window.c.is_multiple_of(4) {
            return self.scatter_tiles(window);
        }
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
        let args = WindowArgs {
            x: arrays[0],
            y: arrays[1],
            picks: arrays[2],
            faults: self.faults,
            points: word(points),
            step: word(self.step),
            h: word(window.h),
            w: word(window.w),
            c: Divisor::new(window.c),
            out_w: Divisor::new(window.out_w()),
            out_h: Divisor::new(window.out_h()),
            image_w: Divisor::new(window.w),
            image_h: Divisor::new(window.h),
            window_w: Divisor::new(window.window[1]),
            stride_y: word(window.stride[0]),
            stride_x: word(window.stride[1]),
            pad_y: word(window.pad[0]),
            pad_x: word(window.pad[2]),
            window_h: word(window.window[0]),
            y_points: word(y),
        };
        let threads = if points == 0 { 0 } else { threads };
        Launch::per_point(function, threads, &args)
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
