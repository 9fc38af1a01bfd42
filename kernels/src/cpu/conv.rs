//! Convolutions as matrix products whose matrix of patches is never written down.
//!
//! A padded copy of a band of an image has the patches in it already: each is a few rows of the window,
//! contiguous in memory. So the micro-kernel reads them where they are, and only the band is copied.

use std::ops::Range;
use std::slice;

use super::microkernel::{Element, Engine, MAX_COLUMNS, MAX_ROWS, Mode, Walk};
use super::panels::{Matrix, Panels, aligned, for_each, pack, packed_count, scratch, sweep};
use crate::program::Raw;
use crate::{Conv, ConvKind, Float};

/// Bytes of a band of an image that is worked on at once.
const BAND_BYTES: usize = 3 << 16;

/// Pieces that a convolution should have at least: work for that many threads.
const PIECES: usize = 16;

/// Bytes of all partial sums of the gradient with respect to the weight.
const PARTIAL_BYTES: usize = 1 << 22;

/// A convolution read as a correlation: every pixel of the result looks at a window of the source.
///
/// The forward convolution is one from x to y. If the steps are 1, its transpose with respect to the
/// input is another, from y to x, whose window is turned by half a turn.
#[derive(Clone, Copy, Debug)]
struct Correlation {
    images: usize,
    /// Height, width, channels.
    source: [usize; 3],
    result: [usize; 3],
    window: [usize; 2],
    stride: [usize; 2],
    /// Rows above and columns left of the source that the first window covers; negative if it starts inside.
    pad: [isize; 2],
    filter: Filter,
}

/// Where the weights of a correlation are, in elements.
#[derive(Clone, Copy, Debug)]
struct Filter {
    /// That of the first tap (place in the window), first channels.
    first: usize,
    /// From a tap to the next.
    tap: isize,
    /// From a channel of the source to the next.
    source: usize,
    /// From a channel of the result to the next.
    result: usize,
}

impl Correlation {
    fn forward(spec: &Conv) -> Self {
        let [kh, kw] = spec.window;
        Self {
            images: spec.n,
            source: [spec.h, spec.w, spec.c],
            result: [spec.out_h(), spec.out_w(), spec.out],
            window: spec.window,
            stride: spec.stride,
            pad: [spec.pad[0] as isize, spec.pad[2] as isize],
            filter: Filter {
                first: 0,
                tap: spec.c as isize,
                source: 1,
                result: kh * kw * spec.c,
            },
        }
    }

    /// From y to x, for steps of 1.
    fn backward(spec: &Conv) -> Self {
        let forward = Self::forward(spec);
        let [kh, kw] = spec.window;
        Self {
            source: forward.result,
            result: forward.source,
            pad: [0, 1].map(|i| spec.window[i] as isize - 1 - forward.pad[i]),
            filter: Filter {
                first: (kh * kw - 1) * spec.c,
                tap: -(spec.c as isize),
                source: kh * kw * spec.c,
                result: 1,
            },
            ..forward
        }
    }

    fn taps(&self) -> usize {
        self.window[0] * self.window[1]
    }

    /// Elements under a window.
    fn patch(&self) -> usize {
        self.taps() * self.source[2]
    }

    fn source_count(&self) -> usize {
        self.source.iter().product()
    }

    fn result_count(&self) -> usize {
        self.result.iter().product()
    }

    /// The weight of element `i` of a patch for channel `channel` of the result.
    fn weight(&self, i: usize, channel: usize) -> usize {
        let (tap, source) = (i / self.source[2], i % self.source[2]);
        let Filter {
            first, tap: step, ..
        } = self.filter;
        first.wrapping_add_signed(tap as isize * step)
            + source * self.filter.source
            + channel * self.filter.result
    }

    /// Elements of a row of a band.
    fn band_row(&self) -> usize {
        ((self.result[1] - 1) * self.stride[1] + self.window[1]) * self.source[2]
    }

    /// Elements of the band under so many rows of the result.
    fn band(&self, rows: usize) -> usize {
        ((rows - 1) * self.stride[0] + self.window[0]) * self.band_row()
    }

    /// Copies what lies under these rows of the result, with zeros where that is outside of the image.
    ///
    /// # Safety
    /// The image must be readable, and the band have room.
    unsafe fn cut<T: Element>(&self, image: *const T, rows: Range<usize>, band: *mut T) {
        let [h, w, c] = self.source;
        let row = self.band_row();
        let left = (self.pad[1].max(0) as usize * c).min(row);
        let skipped = (self.pad[1].min(0).unsigned_abs() * c).min(w * c);
        let inside = (w * c - skipped).min(row - left);
        let first = (rows.start * self.stride[0]) as isize - self.pad[0];
        for i in 0..self.band(rows.len()) / row {
            let to = band.wrapping_add(i * row);
            let y = first + i as isize;
            // SAFETY: what the caller promises.
            unsafe {
                if (0..h as isize).contains(&y) {
                    let from = image.wrapping_add(y as usize * w * c + skipped);
                    slice::from_raw_parts_mut(to, left).fill(T::default());
                    to.add(left).copy_from_nonoverlapping(from, inside);
                    slice::from_raw_parts_mut(to.add(left + inside), row - left - inside)
                        .fill(T::default());
                } else {
                    slice::from_raw_parts_mut(to, row).fill(T::default());
                }
            }
        }
    }
}

/// How many of the rows of each image are worked on at once, when a row takes so many bytes.
fn rows_at_once(images: usize, rows: usize, bytes: usize) -> usize {
    let mut at_once = rows;
    let pieces = |at_once| images * rows.div_ceil(at_once);
    while at_once > 1 && (at_once * bytes > BAND_BYTES || at_once > 4 && pieces(at_once) < PIECES) {
        at_once = at_once.div_ceil(2);
    }
    at_once
}

/// How a convolution is computed.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// Every pixel of the result is a patch of the source times the filter.
    Gather(Correlation),
    /// Every pixel of the result, times the filter, is added to a patch of the source.
    Scatter(Correlation),
    /// Every weight is a sum over pixels: of a patch of x times y, or of a patch of y times x.
    WeightFromX(Correlation),
    WeightFromY(Correlation),
}

impl Form {
    /// The form that wastes the fewest places in vector registers.
    fn of(spec: &Conv) -> Self {
        let (forward, backward) = (Correlation::forward(spec), Correlation::backward(spec));
        let both = spec.stride == [1, 1];
        let vector = |columns: usize| columns.next_multiple_of(16);
        let pixels = |size: [usize; 3]| size[0] * size[1];
        let gather = |c: &Correlation| pixels(c.result) * c.patch() * vector(c.result[2]);
        // An addition to memory costs about as much as eight places.
        let scatter =
            |c: &Correlation| pixels(c.result) * (c.result[2] * vector(c.patch()) + 8 * c.patch());
        match spec.kind {
            ConvKind::Forward if both && scatter(&backward) < gather(&forward) => {
                Self::Scatter(backward)
            }
            ConvKind::Forward => Self::Gather(forward),
            ConvKind::Input if both && gather(&backward) < scatter(&forward) => {
                Self::Gather(backward)
            }
            ConvKind::Input => Self::Scatter(forward),
            ConvKind::Weight if both && gather(&backward) < gather(&forward) => {
                Self::WeightFromY(backward)
            }
            ConvKind::Weight => Self::WeightFromX(forward),
        }
    }
}

/// Groups of images whose gradients with respect to the weight are summed separately, and the rows of
/// each such sum that are computed at once.
fn groups(correlation: &Correlation, float: Float) -> [usize; 2] {
    let patch = correlation.patch();
    let bytes = patch * correlation.result[2] * float.size();
    let at_most = (PARTIAL_BYTES / bytes).clamp(1, PIECES);
    let groups = correlation.images.min(at_most);
    let blocks = PIECES.div_ceil(groups).min(patch.div_ceil(64));
    [groups, patch.div_ceil(blocks)]
}

/// Bytes of scratch memory.
pub(crate) fn workspace(spec: &Conv) -> usize {
    let panels = |depth: usize, columns: usize| depth * columns.next_multiple_of(MAX_COLUMNS);
    let count = match Form::of(spec) {
        _ if spec.counts().contains(&0) => 0,
        Form::Gather(c) => panels(c.patch(), c.result[2]),
        Form::Scatter(c) => panels(c.result[2], c.patch()),
        Form::WeightFromX(c) | Form::WeightFromY(c) => {
            groups(&c, spec.float)[0] * c.patch() * c.result[2]
        }
    };
    aligned::space(count * spec.float.size())
}

pub(crate) fn conv(spec: &Conv, first: Raw, second: Raw, out: Raw, workspace: Raw) {
    match spec.float {
        Float::F32 => conv_of::<f32>(&f32::engine(), spec, first, second, out, workspace),
        Float::F64 => conv_of::<f64>(&f64::engine(), spec, first, second, out, workspace),
    }
}

fn conv_of<T: Element>(
    engine: &Engine<T>,
    spec: &Conv,
    first: Raw,
    second: Raw,
    out: Raw,
    workspace: Raw,
) {
    if spec.counts().contains(&0) {
        if !spec.accumulate {
            // SAFETY: all of the result, which is ours; zero bits are the number zero.
            unsafe { out.pointer.write_bytes(0, out.bytes) };
        }
        return;
    }
    let job = Job {
        engine: *engine,
        flops: spec.flops(),
        accumulate: spec.accumulate,
        out: Address(out.pointer.cast()),
        workspace: Address(aligned::start(workspace.pointer).cast()),
    };
    let (first, second) = (
        first.pointer.cast_const().cast(),
        second.pointer.cast_const().cast(),
    );
    // SAFETY: the program has checked all sizes.
    unsafe {
        match Form::of(spec) {
            Form::Gather(correlation) => job.gather(&correlation, first, second),
            Form::Scatter(correlation) => job.scatter(&correlation, first, second),
            Form::WeightFromX(correlation) => job.weight(&correlation, spec.float, first, second),
            Form::WeightFromY(correlation) => job.weight(&correlation, spec.float, second, first),
        }
    }
}

/// What all forms need.
struct Job<T: 'static> {
    engine: Engine<T>,
    flops: u64,
    accumulate: bool,
    out: Address<T>,
    workspace: Address<T>,
}

impl<T: Element> Job<T> {
    /// # Safety
    /// All arrays must have the sizes of the correlation.
    unsafe fn gather(&self, correlation: &Correlation, source: *const T, filter: *const T) {
        let engine = &self.engine;
        let &Correlation {
            images,
            source: [_, _, c],
            result: [rows, width, out],
            ..
        } = correlation;
        let Correlation {
            window: [kh, kw],
            stride,
            ..
        } = *correlation;
        let next = correlation.patch() * engine.columns();
        for tap in 0..correlation.taps() {
            let at = filter
                .wrapping_add(correlation.weight(tap * c, 0))
                .cast_mut();
            let taps = Matrix {
                at,
                row: correlation.filter.source,
                col: correlation.filter.result,
            };
            let to = self.workspace().wrapping_add(tap * c * engine.columns());
            // SAFETY: the filter is readable, the workspace has room.
            unsafe { pack(engine, [c, out], taps, to, next) };
        }
        let panels = Panels {
            at: self.workspace(),
            row: engine.columns(),
            next,
            columns: out,
        };
        let row = correlation.band_row();
        let at_once = rows_at_once(images, rows, stride[0] * row * size_of::<T>());
        let bands = rows.div_ceil(at_once);
        let mode = if self.accumulate {
            Mode::Add
        } else {
            Mode::Set
        };
        let walk = Walk {
            segments: kh,
            jump: row,
            length: kw * c,
            step: 1,
        };
        let source = Address(source.cast_mut());
        for_each(images * bands, self.flops, |piece| {
            let (image, first) = (piece / bands, piece % bands * at_once);
            let count = at_once.min(rows - first);
            let result = (image * rows + first) * width * out;
            let result = Matrix {
                at: self.out().wrapping_add(result),
                row: out,
                col: 1,
            };
            let image = source.at().wrapping_add(image * correlation.source_count());
            scratch([correlation.band(at_once)], |[band]: [*mut T; 1]| {
                // SAFETY: this piece's part of the arrays.
                unsafe {
                    correlation.cut(image, first..first + count, band);
                    let fill = |range: Range<usize>, addresses: &mut [*const T; MAX_ROWS]| {
                        let (mut i, mut j) = (range.start / width, range.start % width);
                        for address in &mut addresses[..range.len()] {
                            *address = band.add(i * stride[0] * row + j * stride[1] * c);
                            j += 1;
                            if j == width {
                                (i, j) = (i + 1, 0);
                            }
                        }
                    };
                    sweep(engine, count * width, walk, fill, panels, result, mode);
                }
            });
        });
    }

    /// # Safety
    /// As for [`Job::gather`].
    unsafe fn scatter(&self, correlation: &Correlation, result: *const T, filter: *const T) {
        let engine = &self.engine;
        let &Correlation {
            images,
            source: [height, width, c],
            ..
        } = correlation;
        let Correlation {
            result: [rows, columns, out],
            stride,
            window: [kh, kw],
            pad,
            ..
        } = *correlation;
        let patch = correlation.patch();
        let place = patch.next_multiple_of(engine.lanes);
        let next = out * engine.columns();
        for i in 0..place {
            let to = i / engine.columns() * next + i % engine.columns();
            for channel in 0..out {
                // SAFETY: a weight, and a place in the workspace.
                unsafe {
                    *self.workspace().add(to + channel * engine.columns()) = if i < patch {
                        *filter.add(correlation.weight(i, channel))
                    } else {
                        T::default()
                    };
                }
            }
        }
        let panels = Panels {
            at: self.workspace(),
            row: engine.columns(),
            next,
            columns: place,
        };
        let walk = Walk {
            segments: 1,
            jump: 0,
            length: out,
            step: 1,
        };
        let at_once = rows_at_once(images, height, width * c * size_of::<T>());
        let bands = height.div_ceil(at_once);
        let chunk = (BAND_BYTES / (columns * place * size_of::<T>())).clamp(1, rows);
        let result = Address(result.cast_mut());
        for_each(images * bands, self.flops, |piece| {
            let (image, top) = (piece / bands, piece % bands * at_once);
            let band = top..height.min(top + at_once);
            let count = band.len() * width * c;
            let target = (image * height + top) * width * c;
            let target = self.out().wrapping_add(target);
            let from = result.at().wrapping_add(image * correlation.result_count());
            let sums = if self.accumulate { count } else { 0 };
            scratch(
                [chunk * columns * place, sums],
                |[products, sums]: [*mut T; 2]| {
                    let sums = if self.accumulate { sums } else { target };
                    // SAFETY: this piece's part of the arrays.
                    let sums = unsafe { slice::from_raw_parts_mut(sums, count) };
                    sums.fill(T::default());
                    // Rows of the result whose window touches the band.
                    let reach = |y: usize| y as isize + pad[0];
                    let begin = (reach(band.start) - kh as isize + 1).max(0) as usize;
                    let begin = begin.div_ceil(stride[0]);
                    let end = (reach(band.end) - 1).max(-1) + 1;
                    let end = (end as usize).div_ceil(stride[0]).min(rows);
                    for first in (begin..end).step_by(chunk) {
                        let last = end.min(first + chunk);
                        let from = from.wrapping_add(first * columns * out);
                        let c_rows = Matrix {
                            at: products,
                            row: place,
                            col: 1,
                        };
                        let fill = |range: Range<usize>, addresses: &mut [*const T; MAX_ROWS]| {
                            let pixels = range.map(|pixel| from.wrapping_add(pixel * out));
                            addresses
                                .iter_mut()
                                .zip(pixels)
                                .for_each(|(to, pixel)| *to = pixel);
                        };
                        let pixels = (last - first) * columns;
                        // SAFETY: as above.
                        unsafe { sweep(engine, pixels, walk, fill, panels, c_rows, Mode::Set) };
                        for i in first..last {
                            for tap in 0..kh * kw {
                                let y = (i * stride[0] + tap / kw) as isize - pad[0];
                                if !(band.start as isize..band.end as isize).contains(&y) {
                                    continue;
                                }
                                let y = y as usize - band.start;
                                for j in 0..columns {
                                    let x = (j * stride[1] + tap % kw) as isize - pad[1];
                                    if !(0..width as isize).contains(&x) {
                                        continue;
                                    }
                                    let from = ((i - first) * columns + j) * place + tap * c;
                                    // SAFETY: products that have been computed.
                                    let from =
                                        unsafe { slice::from_raw_parts(products.add(from), c) };
                                    let to = &mut sums[(y * width + x as usize) * c..][..c];
                                    to.iter_mut()
                                        .zip(from)
                                        .for_each(|(to, &value)| *to += value);
                                }
                            }
                        }
                    }
                    if self.accumulate {
                        // SAFETY: as above.
                        let target = unsafe { slice::from_raw_parts_mut(target, count) };
                        target
                            .iter_mut()
                            .zip(sums)
                            .for_each(|(to, value)| *to += *value);
                    }
                },
            );
        });
    }

    /// # Safety
    /// As for [`Job::gather`].
    unsafe fn weight(
        &self,
        correlation: &Correlation,
        float: Float,
        source: *const T,
        result: *const T,
    ) {
        let engine = &self.engine;
        let &Correlation {
            images,
            source: [_, _, c],
            result: [rows, width, out],
            ..
        } = correlation;
        let Correlation {
            stride,
            window: [_, kw],
            ..
        } = *correlation;
        let (patch, row) = (correlation.patch(), correlation.band_row());
        let [groups, block] = groups(correlation, float);
        let blocks = patch.div_ceil(block);
        let bytes = (stride[0] * row + width * out) * size_of::<T>();
        let at_once = rows_at_once(PIECES, rows, bytes);
        let direct = out.is_multiple_of(engine.lanes);
        let packed = if direct {
            0
        } else {
            packed_count(engine, at_once * width, out)
        };
        let (source, result) = (Address(source.cast_mut()), Address(result.cast_mut()));
        for_each(groups * blocks, self.flops, |piece| {
            let (group, start) = (piece / blocks, piece % blocks * block);
            let elements = start..patch.min(start + block);
            let sums = self.workspace().wrapping_add((group * patch + start) * out);
            let sums = Matrix {
                at: sums,
                row: out,
                col: 1,
            };
            let mut mode = Mode::Set;
            let bands = (group * images / groups..(group + 1) * images / groups)
                .flat_map(|image| (0..rows).step_by(at_once).map(move |first| (image, first)));
            scratch(
                [correlation.band(at_once), packed],
                |[band, packed]: [*mut T; 2]| {
                    for (image, first) in bands {
                        let count = at_once.min(rows - first);
                        let b = (image * rows + first) * width * out;
                        let b = Matrix {
                            at: result.at().wrapping_add(b),
                            row: out,
                            col: 1,
                        };
                        let image = source.at().wrapping_add(image * correlation.source_count());
                        let walk = Walk {
                            segments: count,
                            jump: stride[0] * row,
                            length: width,
                            step: stride[1] * c,
                        };
                        let fill = |range: Range<usize>, addresses: &mut [*const T; MAX_ROWS]| {
                            for (address, i) in addresses.iter_mut().zip(range) {
                                let (y, rest) = ((start + i) / (kw * c), (start + i) % (kw * c));
                                *address = band.wrapping_add(y * row + rest);
                            }
                        };
                        // SAFETY: this piece's part of the arrays.
                        unsafe {
                            correlation.cut(image, first..first + count, band);
                            let panels = if direct {
                                Panels {
                                    at: b.at,
                                    row: out,
                                    next: engine.columns(),
                                    columns: out,
                                }
                            } else {
                                let next = count * width * engine.columns();
                                pack(engine, [count * width, out], b, packed, next)
                            };
                            sweep(engine, elements.len(), walk, fill, panels, sums, mode);
                        }
                        mode = Mode::Continue;
                    }
                },
            );
        });
        for_each(patch, (groups * patch * out) as u64 * 8, |i| {
            let row = |group: usize| self.workspace().wrapping_add((group * patch + i) * out);
            // SAFETY: row i of the partial sums, and the weights that it is about.
            unsafe {
                let total = slice::from_raw_parts_mut(row(0), out);
                for group in 1..groups {
                    let part = slice::from_raw_parts(row(group), out);
                    total
                        .iter_mut()
                        .zip(part)
                        .for_each(|(total, &value)| *total += value);
                }
                for (channel, &value) in total.iter().enumerate() {
                    let weight = self.out().add(correlation.weight(i, channel));
                    if self.accumulate {
                        *weight += value
                    } else {
                        *weight = value
                    }
                }
            }
        });
    }

    fn out(&self) -> *mut T {
        self.out.at()
    }

    fn workspace(&self) -> *mut T {
        self.workspace.at()
    }
}

/// An address that threads may share; whoever makes references from it answers for them.
struct Address<T>(*mut T);

impl<T> Address<T> {
    fn at(&self) -> *mut T {
        self.0
    }
}

// SAFETY: only an address.
unsafe impl<T> Send for Address<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Address<T> {}

#[cfg(test)]
mod tests {
    use super::super::gemm::tests::{assert_close, decode, encode, noise, on_threads, raw};
    use super::*;
    use proptest::prelude::*;

    /// The two arguments, in the order of [`ConvKind`], as the numbers that the kernel gets.
    fn arguments(spec: &Conv) -> [Vec<f64>; 2] {
        let [x, w, y] = spec.counts();
        let counts = match spec.kind {
            ConvKind::Forward => [x, w],
            ConvKind::Input => [y, w],
            ConvKind::Weight => [x, y],
        };
        [0, 1].map(|i| {
            let values = noise(counts[i], i as u64);
            decode(&encode(&values, spec.float), counts[i], spec.float)
        })
    }

    fn result_count(spec: &Conv) -> usize {
        let [x, w, y] = spec.counts();
        match spec.kind {
            ConvKind::Forward => y,
            ConvKind::Input => x,
            ConvKind::Weight => w,
        }
    }

    fn run(spec: &Conv, start: &[f64], garbage: u64) -> Vec<f64> {
        let [first, second] = arguments(spec);
        let (mut first, mut second) = (encode(&first, spec.float), encode(&second, spec.float));
        let mut out = encode(start, spec.float);
        let mut workspace = vec![garbage; spec.workspace().div_ceil(8)];
        conv(
            spec,
            raw(&mut first),
            raw(&mut second),
            raw(&mut out),
            raw(&mut workspace),
        );
        decode(&out, start.len(), spec.float)
    }

    /// The definition: seven loops, each product added where it belongs.
    fn reference(spec: &Conv) -> Vec<f64> {
        let [first, second] = arguments(spec);
        let mut result = vec![0.0; result_count(spec)];
        let [kh, kw] = spec.window;
        let mut product = |x: usize, w: usize, y: usize| match spec.kind {
            ConvKind::Forward => result[y] += first[x] * second[w],
            ConvKind::Input => result[x] += first[y] * second[w],
            ConvKind::Weight => result[w] += first[x] * second[y],
        };
        for image in 0..spec.n {
            for (i, j) in (0..spec.out_h()).flat_map(|i| (0..spec.out_w()).map(move |j| (i, j))) {
                for (p, q) in (0..kh).flat_map(|p| (0..kw).map(move |q| (p, q))) {
                    let row = (i * spec.stride[0] + p).wrapping_sub(spec.pad[0]);
                    let col = (j * spec.stride[1] + q).wrapping_sub(spec.pad[2]);
                    if row >= spec.h || col >= spec.w {
                        continue;
                    }
                    for (o, c) in (0..spec.out).flat_map(|o| (0..spec.c).map(move |c| (o, c))) {
                        let x = ((image * spec.h + row) * spec.w + col) * spec.c + c;
                        let w = ((o * kh + p) * kw + q) * spec.c + c;
                        let y = (image * spec.out_h() + i) * spec.out_w() + j;
                        product(x, w, y * spec.out + o);
                    }
                }
            }
        }
        result
    }

    /// Everything that holds for every convolution.
    fn check(spec: Conv) {
        for kind in [ConvKind::Forward, ConvKind::Input, ConvKind::Weight] {
            let spec = Conv { kind, ..spec };
            let count = result_count(&spec);
            let terms = spec.flops() as usize / 2 / count.max(1);
            let fresh = run(&spec, &vec![f64::NAN; count], u64::MAX);
            assert_close(&fresh, &reference(&spec), spec.float, terms);
            let start = decode(&encode(&noise(count, 3), spec.float), count, spec.float);
            let sum: Vec<f64> = start.iter().zip(&fresh).map(|(a, b)| a + b).collect();
            let sum = decode(&encode(&sum, spec.float), count, spec.float);
            let added = Conv {
                accumulate: true,
                ..spec
            };
            for threads in 1..=3 {
                assert_eq!(
                    on_threads(threads, || run(&spec, &vec![1.0; count], 0)),
                    fresh
                );
                assert_eq!(on_threads(threads, || run(&added, &start, 7)), sum);
            }
        }
    }

    fn spec(n: usize, [h, w]: [usize; 2], [c, out]: [usize; 2], window: [usize; 2]) -> Conv {
        Conv {
            float: Float::F32,
            kind: ConvKind::Forward,
            n,
            h,
            w,
            c,
            out,
            window,
            stride: [1, 1],
            pad: [1, 1, 1, 1],
            accumulate: false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_convolution(
            n in 0_usize..5,
            image in [1_usize..12, 1..12],
            channels in [0_usize..20, 0..20],
            window in [1_usize..5, 1..5],
            stride in [1_usize..4, 1..4],
            pad in [0_usize..3, 0..3, 0..3, 0..3],
            float in prop_oneof![Just(Float::F32), Just(Float::F64)],
        ) {
            prop_assume!(window[0] <= image[0] + pad[0] + pad[1]);
            prop_assume!(window[1] <= image[1] + pad[2] + pad[3]);
            check(Conv { float, stride, pad, ..spec(n, image, channels, window) });
        }
    }

    #[test]
    fn convolutions_of_many_blocks() {
        check(spec(5, [28, 28], [1, 32], [3, 3]));
        check(spec(3, [14, 14], [32, 64], [3, 3]));
        check(spec(2, [7, 7], [128, 64], [3, 3]));
        check(Conv {
            pad: [0, 1, 1, 0],
            ..spec(3, [14, 14], [64, 1], [2, 2])
        });
        check(Conv {
            stride: [2, 2],
            ..spec(3, [28, 28], [16, 33], [3, 3])
        });
        check(Conv {
            float: Float::F64,
            ..spec(17, [9, 9], [20, 20], [3, 3])
        });
    }
}
