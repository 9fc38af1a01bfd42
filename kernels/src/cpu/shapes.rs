//! Padding, concatenation, and indexing.

use super::math::{Real, beats};
use super::parallel;
use super::simd::multiversion;
use crate::bound::Arrays;
use crate::{ArgMax, Concat, Pad, Rows, Take};

/// A [`Pad`] in bytes, its axes without borders merged with their neighbours.
#[derive(Clone, Debug)]
pub(crate) struct PadPlan(Vec<Axis>);

#[derive(Clone, Copy, Debug)]
struct Axis {
    before: usize,
    extent: usize,
    /// Bytes of one step in the input.
    input: usize,
    /// Bytes of one step in the output.
    output: usize,
}

impl PadPlan {
    pub(crate) fn new(pad: &Pad) -> Self {
        let [mut input, mut output] = [pad.dtype.size(); 2];
        let mut axes: Vec<Axis> = Vec::new();
        for (axis, out) in pad.out_extents().into_iter().enumerate().rev() {
            let (extent, before) = (pad.extents[axis], pad.before[axis]);
            match axes.last_mut() {
                // The next axis inwards has no border: a step of this one is several steps of that one, so
                // they are merged.
                Some(inner) if inner.before == 0 && inner.extent * inner.output == output => {
                    inner.before = before * inner.extent;
                    inner.extent *= extent;
                }
                _ => axes.push(Axis {
                    before,
                    extent,
                    input,
                    output,
                }),
            }
            (input, output) = (input * extent, output * out);
        }
        axes.push(Axis {
            before: 0,
            extent: 1,
            input,
            output,
        });
        axes.reverse();
        Self(axes)
    }

    pub(crate) fn run(&self, arrays: &Arrays<'_>) {
        // SAFETY: `Program` checked the arrays: they lie apart, and nobody else uses them now.
        let (input, output) = unsafe {
            (
                arrays.input(0).slice::<u8>(),
                arrays.output(0).slice_mut::<u8>(),
            )
        };
        let axes = match &self.0[..] {
            [whole, axes @ ..] if whole.extent == 1 && axes.len() > 1 => axes,
            axes => axes,
        };
        let Axis {
            before,
            extent,
            input: step,
            output: row,
        } = axes[0];
        parallel::chunks(output, row, row / 4, |i, out| match i.checked_sub(before) {
            Some(i) if i < extent => pad(&axes[1..], &input[i * step..][..step], out),
            _ => out.fill(0),
        });
    }
}

fn pad(axes: &[Axis], input: &[u8], output: &mut [u8]) {
    let [axis, inner @ ..] = axes else {
        return output.copy_from_slice(input);
    };
    let (before, rest) = output.split_at_mut(axis.before * axis.output);
    let (middle, after) = rest.split_at_mut(axis.extent * axis.output);
    before.fill(0);
    after.fill(0);
    if inner.is_empty() {
        middle.copy_from_slice(input);
    } else if axis.input > 0 {
        let rows = input
            .chunks_exact(axis.input)
            .zip(middle.chunks_exact_mut(axis.output));
        rows.for_each(|(input, output)| pad(inner, input, output));
    } else {
        middle.fill(0);
    }
}

pub(crate) fn concat(concat: &Concat, arrays: &Arrays<'_>) {
    let size = concat.dtype.size();
    // SAFETY: `Program` checked the arrays: they lie apart, and nobody else uses them now.
    let output = unsafe { arrays.output(0).slice_mut::<u8>() };
    let row = concat.inner.iter().sum::<usize>() * size;
    parallel::chunks(output, row, row / 4, |i, mut out| {
        for (input, inner) in concat.inner.iter().enumerate() {
            let (here, rest) = out.split_at_mut(inner * size);
            // SAFETY: as above.
            let input = unsafe { arrays.input(input).slice::<u8>() };
            here.copy_from_slice(&input[i * here.len()..][..here.len()]);
            out = rest;
        }
    });
}

pub(crate) fn take<T: Real>(take: &Take, arrays: &Arrays<'_>) {
    // SAFETY: `Program` checked the arrays: they lie apart, and nobody else uses them now.
    let (input, output) = unsafe {
        (
            arrays.input(0).slice::<T>(),
            arrays.output(0).slice_mut::<T>(),
        )
    };
    let Take {
        n, inner, index, ..
    } = take;
    let (long, picked) = (n * inner, index.len() * inner);
    // Indices that follow each other pick one run of elements. Where an image is reflected at its border,
    // that is all of a row but the border.
    let runs = || {
        let runs = index.chunk_by(|&at, &next| at.checked_add(1) == Some(next));
        runs.map(|run| (run[0] as usize * inner, run.len() * inner))
    };
    if *inner == 0 {
    } else if take.adjoint {
        parallel::chunks(output, long, long + picked, |i, out| {
            out.fill(T::ZERO);
            let mut rest = &input[i * picked..][..picked];
            for (first, count) in runs() {
                let (rows, after) = rest.split_at(count);
                add(&mut out[first..][..count], rows);
                rest = after;
            }
        });
    } else {
        parallel::chunks(output, picked, picked, |i, mut out| {
            let input = &input[i * long..][..long];
            for (first, count) in runs() {
                let (rows, after) = out.split_at_mut(count);
                rows.copy_from_slice(&input[first..][..count]);
                out = after;
            }
        });
    }
}

pub(crate) fn rows<T: Real>(rows: &Rows, arrays: &Arrays<'_>) -> Result<(), String> {
    // SAFETY: `Program` checked the arrays: they lie apart, and nobody else uses them now.
    let (input, output) = unsafe {
        (
            arrays.input(0).slice::<T>(),
            arrays.output(0).slice_mut::<T>(),
        )
    };
    // SAFETY: as above.
    let index = unsafe { arrays.input(1).slice::<i32>() };
    let outside = |&at: &i32| usize::try_from(at).map_or(true, |at| at >= rows.rows);
    if let Some(at) = index.iter().position(outside) {
        return Err(format!(
            "rows: index {} at {at}, of {} rows",
            index[at], rows.rows
        ));
    }
    let width = rows.width;
    if width == 0 {
    } else if rows.adjoint {
        output.fill(T::ZERO);
        for (&at, row) in index.iter().zip(input.chunks_exact(width)) {
            add(&mut output[at as usize * width..][..width], row);
        }
    } else {
        parallel::chunks(output, width, width, |i, out| {
            out.copy_from_slice(&input[index[i] as usize * width..][..width]);
        });
    }
    Ok(())
}

multiversion! {
    fn add<T: Real>(sum: &mut [T], row: &[T]) {
        sum.iter_mut()
            .zip(row)
            .for_each(|(sum, &x)| *sum = *sum + x);
    }
}

pub(crate) fn argmax<T: Real>(arg: &ArgMax, arrays: &Arrays<'_>) {
    // SAFETY: `Program` checked the arrays: they lie apart, and nobody else uses them now.
    let (input, output) = unsafe {
        (
            arrays.input(0).slice::<T>(),
            arrays.output(0).slice_mut::<i32>(),
        )
    };
    let ArgMax { n, inner, .. } = *arg;
    parallel::chunks(output, inner, n * inner, |i, out| {
        let input = &input[i * n * inner..][..n * inner];
        for (j, out) in out.iter_mut().enumerate() {
            let mut best = 0;
            for at in 1..n {
                if beats(input[at * inner + j], input[best * inner + j]) {
                    best = at;
                }
            }
            *out = best as i32;
        }
    });
}
