//! Convolutions as matrix products, whose matrix of patches (im2col) is never written down.
//!
//! A padded copy of a band of an image has the patches in it already: each is a few rows of the window,
//! contiguous in memory. So the micro-kernel reads them where they are, and only the band is copied.
//!
//! Windows of 3×3 with steps of 1 take fewer multiplications where there are channels enough: see
//! [`winograd`]. Results of one channel fill vectors with the pixels of a row: see [`planar`].

mod correlation;
mod phases;
mod planar;
#[cfg(test)]
mod tests;
mod tiles;
mod transforms;
mod weight;
mod winograd;

use std::ops::Range;
use std::slice;

use super::math::Real;
use super::matrix::Matrix;
use super::microkernel::{Element, Engine, MAX_COLUMNS, MAX_ROWS, Mode, Walk};
use super::panels::{Panels, Shared, aligned, for_each, pack, packed_count, scratch, sweep};
use crate::bound::Raw;
use crate::spec::Spec;
use crate::{Conv, ConvKind, Float};
use correlation::Correlation;
use phases::Phases;
use tiles::Tiling;

/// Bytes of the bands and products that are worked on at once: what fits into the second-level cache
/// beside the filter.
const BAND_BYTES: usize = 3 << 16;

/// Pieces that a convolution should have at least: work for that many threads.
const PIECES: usize = 16;

/// How a convolution is computed.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// Every pixel of the result is a patch of the source times the filter.
    Gather(Phases),
    /// Every pixel of the result, times the filter, is added to a patch of the source.
    Scatter(Correlation),
    /// For a result of one channel: every row of the source, as planes, times a row of the filter is added to
    /// rows of the result.
    Planar(Correlation),
    /// Tiles of the result are found from transformed tiles of the source.
    Tiled(Tiling),
    /// Every weight is a sum over pixels: of an element of a patch times a pixel of the result.
    Weight(Correlation, Sides),
    /// The same over transformed tiles.
    TiledWeight(Tiling, Sides),
}

/// Which array of a weight gradient the patches are from.
#[derive(Clone, Copy, Debug)]
enum Sides {
    /// The first, x.
    Same,
    /// The second, y.
    Swapped,
}

impl Sides {
    /// The array of the patches first.
    fn order<T>(self, [x, y]: [T; 2]) -> [T; 2] {
        match self {
            Self::Same => [x, y],
            Self::Swapped => [y, x],
        }
    }
}

impl Form {
    /// The form that takes the fewest lanes of vector registers, empty ones counted. It follows from the
    /// shape alone.
    fn of(spec: &Conv) -> Self {
        let (forward, backward) = (Correlation::forward(spec), Correlation::backward(spec));
        let both = spec.stride == [1, 1];
        let phased = (0..2).all(|axis| spec.stride[axis] <= spec.window[axis]);
        let steps = spec.stride[0] * spec.stride[1];
        let places = |columns: usize| columns.next_multiple_of(16);
        let pixels = |c: &Correlation| c.result[0] * c.result[1];
        let gather = |c: &Correlation| pixels(c) * c.patch() * places(c.result[2]);
        // An addition to memory costs about as much as eight lanes.
        let scatter =
            |c: &Correlation| pixels(c) * (c.result[2] * places(c.patch()) + 8 * c.patch());
        let tiled = |c: &Correlation| {
            Tiling::of(c, spec.float).map(|tiling| (tiling.places(), Self::Tiled(tiling)))
        };
        let planar = |c: &Correlation| Some((planar::places(c, spec.float)?, Self::Planar(*c)));
        let weight = |c: &Correlation, sides| {
            let tiled = Tiling::of(c, spec.float);
            let tiled = tiled.map(|tiling| (tiling.places(), Self::TiledWeight(tiling, sides)));
            [Some((gather(c), Self::Weight(*c, sides))), tiled]
        };
        match spec.kind {
            ConvKind::Forward => least([
                Some((gather(&forward), Self::Gather(Phases::forward(spec)))),
                both.then(|| (scatter(&backward), Self::Scatter(backward))),
                planar(&forward),
                tiled(&forward),
            ]),
            ConvKind::Input => least([
                Some((scatter(&forward), Self::Scatter(forward))),
                phased.then(|| {
                    let phases = Phases::backward(spec);
                    (gather(&backward) / steps, Self::Gather(phases))
                }),
                both.then(|| planar(&backward)).flatten(),
                both.then(|| tiled(&backward)).flatten(),
            ]),
            ConvKind::Weight => {
                let [direct, tiled] = weight(&forward, Sides::Same);
                let [direct_back, tiled_back] = weight(&backward, Sides::Swapped);
                let back = |form: Option<_>| form.filter(|_| both);
                least([direct, back(direct_back), tiled, back(tiled_back)])
            }
        }
    }
}

/// The form of the least cost, the first of equals.
fn least<const FORMS: usize>(forms: [Option<(usize, Form)>; FORMS]) -> Form {
    let least = forms.into_iter().flatten().min_by_key(|&(cost, _)| cost);
    least.expect("a form that does for all").1
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

/// Bytes of workspace: what one convolution works in, for each of the batch.
pub(crate) fn workspace(spec: &Conv) -> usize {
    let one = bytes_of_one(spec, &Form::of(spec));
    let before = spec.batch.saturating_sub(1) * one.next_multiple_of(aligned::LINE);
    aligned::space(before + one)
}

/// Bytes that one convolution of the batch works in.
fn bytes_of_one(spec: &Conv, form: &Form) -> usize {
    let panels = |depth: usize, columns: usize| depth * columns.next_multiple_of(MAX_COLUMNS);
    let count = match form {
        _ if spec.counts().contains(&0) => 0,
        Form::Gather(phases) => phases.count() * panels(phases.patch(), phases.result[2]),
        Form::Scatter(c) => panels(c.result[2], c.patch()),
        Form::Planar(c) => c.patch(),
        Form::Tiled(tiling) => tiling.filter_count(),
        Form::Weight(c, _) => weight::groups(c, spec.float)[0] * c.patch() * c.result[2],
        Form::TiledWeight(tiling, _) => {
            let c = &tiling.part;
            tiling.groups(spec.float)[0] * c.patch() * c.result[2]
        }
    };
    count * spec.float.size()
}

pub(crate) fn conv(spec: &Conv, first: Raw, second: Raw, out: Raw, workspace: Raw) {
    // How one is cut follows from its own sizes, so the bits are those of separate convolutions.
    let form = Form::of(&Conv { batch: 1, ..*spec });
    typed!(spec.float, T => run::<T>(spec, &form, [first, second], out, workspace));
}

fn run<T: Element + Real>(spec: &Conv, form: &Form, inputs: [Raw; 2], out: Raw, workspace: Raw) {
    if spec.counts().contains(&0) {
        if !spec.accumulate {
            // SAFETY: all of the result, which is ours; zero bits are the number zero.
            unsafe { out.pointer.write_bytes(0, out.bytes) };
        }
        return;
    }
    let one = Conv { batch: 1, ..*spec };
    let [x, w, y] = one.counts();
    let [first, second, result] = match spec.kind {
        ConvKind::Forward => [x, w, y],
        ConvKind::Input => [y, w, x],
        ConvKind::Weight => [x, y, w],
    };
    let workspace = Shared(aligned::start(workspace.pointer));
    let room = bytes_of_one(&one, form).next_multiple_of(aligned::LINE);
    let arrays = [(inputs[0], first), (inputs[1], second), (out, result)];
    let arrays = arrays.map(|(raw, count)| (Shared(raw.pointer.cast::<T>()), count));
    for_each(spec.batch, spec.flops(), |index| {
        let part = |(all, count): &(Shared<T>, usize)| Shared(all.at().wrapping_add(index * count));
        let [first, second, out] = arrays.each_ref().map(part);
        let job = Job {
            engine: T::engine(),
            flops: one.flops(),
            accumulate: spec.accumulate,
            out,
            workspace: Shared(workspace.at().wrapping_add(index * room).cast()),
        };
        // SAFETY: the program has checked all sizes. Each of the batch has its own part of the result and of
        // the workspace.
        unsafe {
            match form {
                Form::Gather(phases) => job.gather(phases, &first, &second),
                Form::Scatter(part) => job.scatter(part, &first, &second),
                Form::Planar(part) => job.planar(part, &first, &second),
                Form::Tiled(tiling) => job.tiled(tiling, &first, &second),
                Form::Weight(part, sides) => {
                    let [source, result] = sides.order([&first, &second]);
                    job.weight(part, spec.float, source, result);
                }
                Form::TiledWeight(tiling, sides) => {
                    let [source, result] = sides.order([&first, &second]);
                    job.tiled_weight(tiling, spec.float, source, result);
                }
            }
        }
    });
}

/// What all forms need.
struct Job<T: 'static> {
    engine: Engine<T>,
    flops: u64,
    accumulate: bool,
    out: Shared<T>,
    workspace: Shared<T>,
}

impl<T: Element> Job<T> {
    /// # Safety
    /// All arrays must have the sizes of the correlation, here and below.
    unsafe fn gather(&self, phases: &Phases, source: &Shared<T>, filter: &Shared<T>) {
        let (spec, [height, width, out]) = (&phases.all, phases.result);
        for index in 0..phases.count() {
            // SAFETY: as for this function.
            unsafe { self.pack_filter(phases, index, filter) };
        }
        let [step_y, step_x] = [
            spec.stride[0] * spec.band_row::<T>(),
            spec.stride[1] * spec.source[2],
        ];
        let rows = spec.result[0];
        let at_once = rows_at_once(spec.images, rows, step_y * size_of::<T>());
        let bands = rows.div_ceil(at_once);
        let mode = if self.accumulate {
            Mode::Add
        } else {
            Mode::Set
        };
        for_each(spec.images * bands, self.flops, |piece| {
            let (image, first) = (piece / bands, piece % bands * at_once);
            let result = self.out.at().wrapping_add(image * height * width * out);
            let image = source.at().wrapping_add(image * spec.source_count());
            scratch([spec.band::<T>(at_once)], |[band]: [*mut T; 1]| {
                // SAFETY: an image of the source; the scratch memory has room for its band.
                unsafe { spec.cut(image, first..rows.min(first + at_once), band) };
                for index in 0..phases.count() {
                    let phase = phases.phase(index);
                    let [rows, columns, _] = phase.part.result;
                    let count = rows.min(first + at_once).saturating_sub(first);
                    // Pixels of the result at equal distances are computed together: all of a single phase,
                    // else a row of one.
                    let (lines, length) = if phases.is_whole() {
                        (1, count * columns)
                    } else {
                        (count, columns)
                    };
                    let [lines_of_window, columns_of_window] = phase.part.window;
                    let walk = Walk::new(
                        [1, lines_of_window, columns_of_window * spec.source[2]],
                        [0, spec.band_row::<T>(), 1],
                    );
                    let panels = self.packed_filter(phases, index);
                    let band = band.wrapping_add(
                        phase.window[0] * spec.band_row::<T>() + phase.window[1] * spec.source[2],
                    );
                    for line in 0..lines {
                        let fill = |range: Range<usize>, addresses: &mut [*const T; MAX_ROWS]| {
                            let (mut i, mut j) = (range.start / columns, range.start % columns);
                            for address in &mut addresses[..range.len()] {
                                *address = band.wrapping_add((line + i) * step_y + j * step_x);
                                j += 1;
                                if j == columns {
                                    (i, j) = (i + 1, 0);
                                }
                            }
                        };
                        let row = phase.pixel[0] + (first + line) * phases.steps[0];
                        let target = Matrix {
                            at: result.wrapping_add((row * width + phase.pixel[1]) * out),
                            row: phases.steps[1] * out,
                            col: 1,
                        };
                        // SAFETY: the band, and these pixels of the result, which are ours alone.
                        unsafe { sweep(&self.engine, length, walk, fill, &panels, target, mode) };
                    }
                }
            });
        });
    }

    /// Where the filter of a phase lies in the workspace.
    fn packed_filter(&self, phases: &Phases, index: usize) -> Panels<T> {
        let (part, out) = (phases.phase(index).part, phases.result[2]);
        let phase = packed_count(&self.engine, phases.patch(), out);
        Panels {
            at: Shared(self.workspace.at().wrapping_add(index * phase)),
            row: self.engine.columns(),
            next: part.patch() * self.engine.columns(),
            columns: out,
        }
    }

    unsafe fn pack_filter(&self, phases: &Phases, index: usize, filter: &Shared<T>) {
        let (part, panels) = (phases.phase(index).part, self.packed_filter(phases, index));
        for element in (0..part.patch()).step_by(part.source[2]) {
            let tap = Matrix {
                at: filter.at().wrapping_add(part.weight(element, 0)),
                row: part.filter.source,
                col: part.filter.result,
            };
            let to = panels.at.at().wrapping_add(element * panels.row);
            let size = [part.source[2], panels.columns];
            // SAFETY: one tap of the filter, and its rows of the panels in the workspace.
            unsafe { pack(&self.engine, size, tap, to, panels.next) };
        }
    }

    unsafe fn scatter(&self, spec: &Correlation, result: &Shared<T>, filter: &Shared<T>) {
        let ([height, width, c], [rows, columns, out]) = (spec.source, spec.result);
        let distance = spec.patch().next_multiple_of(self.engine.lanes);
        let next = out * self.engine.columns();
        for i in 0..distance {
            let to = i / self.engine.columns() * next + i % self.engine.columns();
            let to = self.workspace.at().wrapping_add(to);
            for channel in 0..out {
                // SAFETY: a weight, and a place of the panels in the workspace.
                unsafe {
                    *to.add(channel * self.engine.columns()) = if i < spec.patch() {
                        *filter.at().add(spec.weight(i, channel))
                    } else {
                        T::default()
                    };
                }
            }
        }
        let panels = Panels {
            at: Shared(self.workspace.at()),
            row: self.engine.columns(),
            next,
            columns: distance,
        };
        let at_once = rows_at_once(spec.images, height, width * c * size_of::<T>());
        let bands = height.div_ceil(at_once);
        let chunk = (BAND_BYTES / (columns * distance * size_of::<T>())).clamp(1, rows);
        // Of a single channel, `paste` adds several pixels at a time, which must be neighbours for that.
        let steps = if c == 1 {
            [1, chunk * columns]
        } else {
            [distance, 1]
        };
        for_each(spec.images * bands, self.flops, |piece| {
            let (image, top) = (piece / bands, piece % bands * at_once);
            let band = top..height.min(top + at_once);
            let count = band.len() * width * c;
            let target = self
                .out
                .at()
                .wrapping_add((image * height + top) * width * c);
            let result = result.at().wrapping_add(image * spec.result_count());
            let sum = |products: *mut T, to: *mut T| {
                let touching = spec.touching(&band);
                for first in touching.clone().step_by(chunk) {
                    let rows = first..touching.end.min(first + chunk);
                    let fill = |range: Range<usize>, addresses: &mut [*const T; MAX_ROWS]| {
                        for (address, pixel) in addresses.iter_mut().zip(range) {
                            *address = result.wrapping_add((first * columns + pixel) * out);
                        }
                    };
                    let patches = Matrix {
                        at: products,
                        row: steps[0],
                        col: steps[1],
                    };
                    let (pixels, walk) = (rows.len() * columns, Walk::line(out, 1));
                    // SAFETY: pixels of the result, the scratch memory, and rows of the source that are ours
                    // (see below).
                    unsafe {
                        sweep(
                            &self.engine,
                            pixels,
                            walk,
                            fill,
                            &panels,
                            patches,
                            Mode::Set,
                        );
                        for (i, row) in rows.enumerate() {
                            spec.paste(row, patches.from(i * columns, 0), &band, to);
                        }
                    }
                }
            };
            // SAFETY: those rows of the source are ours alone.
            unsafe { self.sum_up(target, count, chunk * columns * distance, sum) };
        });
    }

    /// Lets `sum` add up a stretch of the result from zero, with scratch memory for `room` elements. Then
    /// adds the stretch to what is there, if the convolution accumulates.
    ///
    /// # Safety
    /// `target` must have `count` elements, which nobody else may use.
    unsafe fn sum_up(
        &self,
        target: *mut T,
        count: usize,
        room: usize,
        sum: impl FnOnce(*mut T, *mut T),
    ) {
        let sums = if self.accumulate { count } else { 0 };
        scratch([room, sums], |[room, sums]: [*mut T; 2]| {
            let to = if self.accumulate { sums } else { target };
            // SAFETY: the scratch memory, or the caller's stretch.
            unsafe { slice::from_raw_parts_mut(to, count) }.fill(T::default());
            sum(room, to);
            if self.accumulate {
                // SAFETY: as above.
                (0..count).for_each(|i| unsafe { *target.add(i) += *sums.add(i) });
            }
        });
    }
}
