//! Sums at the end of a map, in an order that depends on the extents and the flags only.

use super::access::Access;
use super::ops::Arg;
use super::plan::{Plan, Sum};
use super::tiling::{DEPTH, LANES, Sums, Unit};
use super::{BLOCK, Machine, element};
use crate::bound::{Arrays, Raw};
use crate::cpu::math::Real;
use crate::cpu::simd::multiversion;

/// Sums of at most so many numbers are taken in one vector.
const SHORT: usize = 16;

impl<'a, T: Real> Machine<'a, T> {
    pub(super) fn begin_sums(&mut self, unit: Unit) {
        self.depth = 0;
        for sum in &self.plan.sums {
            match &self.plan.tiling.sums {
                Sums::Rows { fold } => self
                    .accumulators(sum, (unit.columns * fold).next_multiple_of(LANES))
                    .into_iter()
                    .for_each(|rows| rows.fill(T::ZERO)),
                Sums::Nested { width, .. } => self.target(sum, unit, 0, *width).fill(T::ZERO),
                Sums::None | Sums::Small { .. } => {}
            }
        }
    }

    pub(super) fn add_to_sums(&mut self, unit: Unit, start: usize, count: usize) {
        if let Sums::Rows { fold } = self.plan.tiling.sums {
            self.depth += count.div_ceil(unit.columns * fold);
        }
        for sum in &self.plan.sums {
            let values = || self.values(sum, count);
            match &self.plan.tiling.sums {
                Sums::None => {}
                &Sums::Small { reduce } => self.small_sums(sum, values(), start, reduce),
                &Sums::Rows { fold } => {
                    let [recent, all] = self.accumulators(sum, unit.columns * fold);
                    if !sum.chained {
                        add_rows(values(), recent);
                    }
                    if self.depth >= DEPTH {
                        add_rows(recent, all);
                        recent.fill(T::ZERO);
                    }
                }
                Sums::Nested { access, width } => {
                    add_nested(access, start, values(), self.target(sum, unit, 0, *width));
                }
            }
        }
        if self.depth >= DEPTH {
            self.depth = 0;
        }
    }

    pub(super) fn end_sums(&mut self, unit: Unit) {
        let Sums::Rows { fold } = self.plan.tiling.sums else {
            return;
        };
        for sum in &self.plan.sums {
            let [recent, all] = self.accumulators(sum, unit.columns * fold);
            fold_rows(recent, all, unit.columns);
            let (sums, at) = (&all[..unit.columns], unit.first_column);
            if sum.partials.is_some() {
                self.target(sum, unit, at, unit.columns)
                    .copy_from_slice(sums);
            } else {
                self.write(sum, unit.group * self.plan.tiling.inner + at, sums);
            }
        }
    }

    fn small_sums(&self, sum: &Sum, values: &[T], start: usize, reduce: usize) {
        let inner = self.plan.tiling.inner;
        let [out, lanes] = self.accumulators(sum, BLOCK);
        let count = values.len() / reduce;
        small_sums(values, reduce, inner, lanes, &mut out[..count]);
        self.write(sum, start / reduce, &out[..count]);
    }

    /// The values to sum.
    fn values(&self, sum: &Sum, count: usize) -> &[T] {
        match self.arg(sum.output.cell, count) {
            Arg::Block(values) => values,
            Arg::Scalar(x) => {
                // SAFETY: this cell is used for nothing else.
                let values = unsafe { self.register(sum.registers[2], count) };
                values.fill(x);
                values
            }
        }
    }

    /// Registers for the last few rows, and for all before.
    fn accumulators(&self, sum: &Sum, width: usize) -> [&'a mut [T]; 2] {
        let [recent, all, _] = sum.registers;
        // SAFETY: these cells are used for nothing else, and by one function at a time.
        [recent, all].map(|cell| unsafe { self.register(cell, width) })
    }

    /// What a chain adds the rows of a block to.
    pub(super) fn recent(&self, sum: usize) -> *mut T {
        let [recent, _] = self.accumulators(&self.plan.sums[sum], BLOCK);
        recent.as_mut_ptr()
    }

    /// Where part of the sum of a unit's chunk is formed: in the workspace, or in the output itself.
    fn target(&self, sum: &Sum, unit: Unit, first: usize, count: usize) -> &'a mut [T] {
        let width = self.plan.tiling.sum_width();
        let chunk = unit.group * self.plan.tiling.chunks + unit.chunk;
        let (memory, at) = match sum.partials {
            Some(partials) => (self.arrays.workspace(), partials + chunk * width),
            None => (self.arrays.output(sum.output.operand), unit.group * width),
        };
        // SAFETY: `Program` checked both arrays; other units have other parts of them.
        unsafe { part(memory, at + first, count) }
    }

    fn write(&self, sum: &Sum, at: usize, values: &[T]) {
        let output = self.arrays.output(sum.output.operand);
        // SAFETY: `Program` checked the output; no other unit has these sums.
        unsafe {
            element::write(
                sum.output.dtype,
                output,
                at,
                values.len(),
                Arg::Block(values),
            );
        };
    }
}

impl Plan {
    /// Adds up the sums of chunks, in their order.
    pub(super) fn combine<T: Real>(&self, arrays: &Arrays<'_>) {
        let (width, chunks) = (self.tiling.sum_width(), self.tiling.chunks);
        for sum in &self.sums {
            let Some(first) = sum.partials else { continue };
            // SAFETY: all units are done, so that this thread alone uses the workspace and the output.
            let partials: &[T] = unsafe {
                part(
                    arrays.workspace(),
                    first,
                    self.tiling.groups * chunks * width,
                )
            };
            let output = arrays.output(sum.output.operand);
            for (group, partials) in partials.chunks_exact(chunks * width).enumerate() {
                for column in (0..width).step_by(BLOCK) {
                    let count = BLOCK.min(width - column);
                    let mut total = [T::ZERO; BLOCK];
                    for chunk in partials.chunks_exact(width) {
                        add_rows(&chunk[column..column + count], &mut total[..count]);
                    }
                    let (at, total) = (group * width + column, Arg::Block(&total[..count]));
                    // SAFETY: as above.
                    unsafe { element::write(sum.output.dtype, output, at, count, total) };
                }
            }
        }
    }
}

/// # Safety
/// The elements lie in the array, and nobody else uses them while the result lives.
unsafe fn part<'a, T: Real>(memory: Raw, at: usize, count: usize) -> &'a mut [T] {
    debug_assert!(
        (at + count) * size_of::<T>() <= memory.bytes,
        "outside of the array"
    );
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(memory.element(at), count) }
}

multiversion! {
    /// Adds rows as long as `sum` to it, the last perhaps shorter.
    fn add_rows<T: Real>(values: &[T], sum: &mut [T]) {
        if let Ok(sum) = <&mut [T; LANES]>::try_from(&mut *sum) {
            // The common case stays in vector registers.
            let (rows, rest) = values.as_chunks::<LANES>();
            let mut lanes = *sum;
            for row in rows {
                add(&mut lanes, row);
            }
            add(&mut lanes, rest);
            *sum = lanes;
        } else {
            values.chunks(sum.len()).for_each(|row| add(sum, row));
        }
    }
}

multiversion! {
    /// Adds the recent rows to all before. Then folds the rows that lie side by side in `all` onto its first
    /// `width` elements.
    fn fold_rows<T: Real>(recent: &[T], all: &mut [T], width: usize) {
        add(all, recent);
        match all.first_chunk::<LANES>() {
            Some(lanes) if width == 1 => all[0] = total(lanes),
            _ => halve(all, width),
        }
    }
}

multiversion! {
    /// Sums of [reduce, inner] over the first axis, one after another.
    fn small_sums<T: Real>(values: &[T], reduce: usize, inner: usize, lanes: &mut [T], out: &mut [T]) {
        if inner == 1 {
            if reduce <= SHORT {
                short_sums(values, reduce, out);
            } else {
                plain_sums(values, reduce, out);
            }
            return;
        }
        // As many rows side by side as fit the lanes. Lanes without a row are left out: they would only add
        // zeros.
        let fold = if inner < LANES { 1 << (LANES / inner).ilog2() } else { 1 };
        let lanes = &mut lanes[..inner * reduce.next_power_of_two().min(fold)];
        for (values, out) in values.chunks_exact(reduce * inner).zip(out.chunks_exact_mut(inner)) {
            lanes.fill(T::ZERO);
            values.chunks(lanes.len()).for_each(|row| add(lanes, row));
            halve(lanes, inner);
            out.copy_from_slice(&lanes[..inner]);
        }
    }
}

/// [`small_sums`] of a few numbers each, as over classes: one vector per sum, in which the lanes behind the
/// numbers are set to zero.
#[inline(always)]
fn short_sums<T: Real>(values: &[T], reduce: usize, out: &mut [T]) {
    for (i, out) in out.iter_mut().enumerate() {
        let mut lanes = [T::ZERO; SHORT];
        if let Some(row) = values[i * reduce..].first_chunk::<SHORT>() {
            for lane in 0..SHORT {
                let x = row[lane];
                lanes[lane] = if lane < reduce { x } else { T::ZERO };
            }
        } else {
            lanes[..reduce].copy_from_slice(&values[i * reduce..][..reduce]);
        }
        // Sums begin with +0, so that none is −0.
        for lane in &mut lanes {
            *lane = T::ZERO + *lane;
        }
        halve(&mut lanes, 1);
        *out = lanes[0];
    }
}

/// [`small_sums`] of numbers that follow each other. Lanes without numbers add +0, which changes no sum: none
/// is −0.
#[inline(always)]
fn plain_sums<T: Real>(values: &[T], reduce: usize, out: &mut [T]) {
    for (values, out) in values.chunks_exact(reduce).zip(out) {
        let (rows, rest) = values.as_chunks::<LANES>();
        let mut lanes = [T::ZERO; LANES];
        for row in rows {
            add(&mut lanes, row);
        }
        if !rest.is_empty() {
            add(&mut lanes, rest);
        }
        *out = total(&lanes);
    }
}

multiversion! {
    /// Adds each row to the part of the sum that `access` says.
    fn add_nested<T: Real>(access: &Access, start: usize, values: &[T], sum: &mut [T]) {
        let mut rest = values;
        for run in access.runs(start, values.len()) {
            let (row, after) = rest.split_at(run.length);
            rest = after;
            if run.stride == 1 {
                add(&mut sum[run.offset..], row);
            } else {
                let mut lanes = [T::ZERO; LANES];
                row.chunks(LANES).for_each(|row| add(&mut lanes, row));
                sum[run.offset] = sum[run.offset] + total(&lanes);
            }
        }
    }
}

#[inline(always)]
fn add<T: Real>(sum: &mut [T], row: &[T]) {
    for (sum, &x) in sum.iter_mut().zip(row) {
        *sum = *sum + x;
    }
}

multiversion! {
    /// [`halve`] down to one number.
    fn total<T: Real>(lanes: &[T; LANES]) -> T {
        #[inline(always)]
        fn half<T: Real, const N: usize>(lanes: &[T]) -> [T; N] {
            let (mut sums, right) = ([T::ZERO; N], &lanes[N..2 * N]);
            sums.copy_from_slice(&lanes[..N]);
            add(&mut sums, right);
            sums
        }
        let lanes: [T; 32] = half(lanes);
        let lanes: [T; 16] = half(&lanes);
        let lanes: [T; 8] = half(&lanes);
        let lanes: [T; 4] = half(&lanes);
        let [left, right]: [T; 2] = half(&lanes);
        left + right
    }
}

/// Folds `lanes` onto its first `width` elements. Its length is `width` times a power of two.
#[inline(always)]
fn halve<T: Real>(lanes: &mut [T], width: usize) {
    let mut length = lanes.len();
    while length > width {
        length /= 2;
        let (left, right) = lanes.split_at_mut(length);
        add(left, &right[..length]);
    }
}
