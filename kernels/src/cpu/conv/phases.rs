//! A transposed convolution with steps as several correlations without.
//!
//! With a step of 2 the taps that reach a pixel of x are every other one, and which ones depends on whether
//! its row and column are even or odd. So the pixels fall into 2×2 phases, each the result of a correlation
//! of y with a part of the window (Shi et al. 2016, "Is the deconvolution layer the same as a
//! convolutional layer?"). No zeros are inserted, no pixel is computed that the border crops, and every
//! pixel is written once.
//!
//! Phases of 2×2 taps are not computed by Winograd's tiles. Counted for 7×7 pixels of y: F(2×2, 2×2) and
//! F(3×3, 2×2) leave 144 of 196 products, but the transforms cost so much that the gain is a quarter at most.
//! F(4×4, 2×2) leaves 100, with three times the rounding errors.

use super::correlation::{Correlation, Filter};
use crate::Conv;

/// Correlations of one source, which write to pixels of one result in turns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phases {
    /// A correlation whose bands hold what all phases look at.
    pub(super) all: Correlation,
    /// Pixels of the result from one of a phase to its next.
    pub(super) steps: [usize; 2],
    /// Height, width, channels.
    pub(super) result: [usize; 3],
    /// What [`Axis`] is computed from.
    spec: Conv,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    pub(super) part: Correlation,
    /// Row and column of its first window in the first band.
    pub(super) window: [usize; 2],
    /// Row and column of its first pixel in the result.
    pub(super) pixel: [usize; 2],
}

/// A phase along one axis.
struct Axis {
    taps: usize,
    /// The first pixel of x, and how many there are.
    first: usize,
    count: usize,
    /// As [`Correlation::pad`].
    pad: isize,
}

impl Axis {
    /// The pixels of x that taps number `phase`, `phase` + step, … reach.
    ///
    /// Tap p takes y\[i\] to x\[step · i + p − border\].
    fn new(spec: &Conv, axis: usize, phase: usize) -> Self {
        let (step, border) = (spec.stride[axis], spec.pad[2 * axis]);
        let taps = (spec.window[axis] - phase).div_ceil(step);
        // What the phase's first tap takes to a pixel that exists:
        let row = border.saturating_sub(phase).div_ceil(step);
        let first = step * row + phase - border;
        Self {
            taps,
            first,
            count: [spec.h, spec.w][axis].saturating_sub(first).div_ceil(step),
            pad: taps as isize - 1 - row as isize,
        }
    }
}

impl Phases {
    /// A forward convolution: a single phase.
    pub(super) fn forward(spec: &Conv) -> Self {
        let all = Correlation::forward(spec);
        Self {
            all,
            steps: [1, 1],
            result: all.result,
            spec: *spec,
        }
    }

    /// From y to x; the steps must not be longer than the window.
    pub(super) fn backward(spec: &Conv) -> Self {
        let mut all = Correlation::backward(spec);
        for axis in [0, 1] {
            let phases = || (0..spec.stride[axis]).map(|phase| Axis::new(spec, axis, phase));
            let most = |of: fn(&Axis) -> isize| phases().map(|phase| of(&phase)).max();
            let pad = most(|phase| phase.pad).expect("steps are not 0");
            let reach = most(|phase| phase.taps as isize - phase.pad).expect("as above");
            all.pad[axis] = pad;
            all.window[axis] = (reach + pad) as usize;
            all.result[axis] = most(|phase| phase.count as isize).expect("as above") as usize;
        }
        Self {
            all,
            steps: spec.stride,
            result: [spec.h, spec.w, spec.c],
            spec: *spec,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.steps.iter().product()
    }

    pub(super) fn phase(&self, index: usize) -> Phase {
        let mut phase = Phase {
            part: self.all,
            window: [0, 0],
            pixel: [0, 0],
        };
        if self.is_whole() {
            return phase;
        }
        let numbers = [index / self.steps[1], index % self.steps[1]];
        let mut last = numbers;
        for axis in [0, 1] {
            let along = Axis::new(&self.spec, axis, numbers[axis]);
            phase.part.window[axis] = along.taps;
            phase.part.result[axis] = along.count;
            phase.part.pad[axis] = along.pad;
            phase.window[axis] = (self.all.pad[axis] - along.pad) as usize;
            phase.pixel[axis] = along.first;
            last[axis] += (along.taps - 1) * self.steps[axis];
        }
        phase.part.filter = Filter::backward(&self.spec, last, self.steps);
        phase
    }

    /// Most elements under a window of a phase.
    pub(super) fn patch(&self) -> usize {
        let patches = (0..self.count()).map(|index| self.phase(index).part.patch());
        patches.max().unwrap_or(0)
    }

    /// Whether the pixels of a phase lie one after another.
    pub(super) fn is_whole(&self) -> bool {
        self.count() == 1
    }
}
