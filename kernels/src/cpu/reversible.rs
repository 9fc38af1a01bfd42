//! Momentum that can be undone.
#![expect(
    clippy::needless_range_loop,
    reason = "one lane of several arrays is the unit of thought"
)]

use super::math::Real;
use super::parallel;
use super::simd::multiversion;
use crate::bound::{Arrays, Raw};
use crate::{Ratio, Reversible, ReversibleKind};
use std::ops::Range;

/// Work of a parameter, in element visits.
const WORK: usize = 8;

/// The state in memory: planes of words, each of `count`.
#[derive(Clone, Copy)]
struct State {
    words: Raw,
    count: usize,
}

impl State {
    #[inline(always)]
    fn plane<'a>(self, plane: usize, range: &Range<usize>) -> &'a [u32] {
        let first = self.words.element::<u32>(plane * self.count + range.start);
        // SAFETY: `Program` checked that there are 6·count + 2 words, and nobody writes to them now.
        unsafe { std::slice::from_raw_parts(first, range.len()) }
    }

    #[inline(always)]
    fn plane_mut<'a>(self, plane: usize, range: &Range<usize>) -> &'a mut [u32] {
        let first = self.words.element::<u32>(plane * self.count + range.start);
        // SAFETY: as above, and every thread has a range of its own.
        unsafe { std::slice::from_raw_parts_mut(first, range.len()) }
    }

    #[inline(always)]
    fn planes<'a>(self, range: &Range<usize>) -> [&'a [u32]; 6] {
        std::array::from_fn(|plane| self.plane(plane, range))
    }

    #[inline(always)]
    fn planes_mut<'a>(self, range: &Range<usize>) -> [&'a mut [u32]; 6] {
        std::array::from_fn(|plane| self.plane_mut(plane, range))
    }

    /// The greatest value that lost bits can have.
    fn most(self) -> u64 {
        let words = self.plane(0, &(6 * self.count..6 * self.count + 2));
        join(words[0], words[1])
    }

    fn set_most(self, most: u64) {
        let words = self.plane_mut(0, &(6 * self.count..6 * self.count + 2));
        words.copy_from_slice(&[most as u32, (most >> 32) as u32]);
    }
}

/// How many parameters are computed side by side. Nothing branches there, so that they share vectors.
const LANES: usize = 32;

/// The numbers of a few parameters, in fixed point.
#[derive(Clone, Copy)]
struct Block {
    theta: [i64; LANES],
    u: [i64; LANES],
    bits: [u64; LANES],
    /// All ones where a parameter has numbers, else zero.
    sound: [u64; LANES],
}

#[inline(always)]
fn mask(condition: bool) -> u64 {
    0_u64.wrapping_sub(u64::from(condition))
}

#[inline(always)]
fn join(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

impl Block {
    #[inline(always)]
    fn load(planes: &[&[u32]; 6], at: usize) -> Self {
        let words: [[u32; LANES]; 6] = [
            lanes(planes[0], at),
            lanes(planes[1], at),
            lanes(planes[2], at),
            lanes(planes[3], at),
            lanes(planes[4], at),
            lanes(planes[5], at),
        ];
        let mut block = Self {
            theta: [0; LANES],
            u: [0; LANES],
            bits: [0; LANES],
            sound: [0; LANES],
        };
        for i in 0..LANES {
            let theta = join(words[0][i], words[1][i]);
            block.theta[i] = theta.wrapping_sub(Reversible::SET) as i64;
            block.u[i] = join(words[2][i], words[3][i]) as i64;
            block.bits[i] = join(words[4][i], words[5][i]);
            block.sound[i] = mask(theta != 0);
        }
        block
    }

    #[inline(always)]
    fn store(&self, planes: &mut [&mut [u32]; 6], at: usize) {
        let mut words = [[0; LANES]; 6];
        for i in 0..LANES {
            let theta = (self.theta[i] as u64).wrapping_add(Reversible::SET) & self.sound[i];
            let (u, bits) = (
                self.u[i] as u64 & self.sound[i],
                self.bits[i] & self.sound[i],
            );
            words[0][i] = theta as u32;
            words[1][i] = (theta >> 32) as u32;
            words[2][i] = u as u32;
            words[3][i] = (u >> 32) as u32;
            words[4][i] = bits as u32;
            words[5][i] = (bits >> 32) as u32;
        }
        for (plane, words) in planes.iter_mut().zip(&words) {
            put(plane, at, words);
        }
    }

    /// Prepares a step: shifts out the lost bits that are taken out, and takes the numbers of parameters that
    /// have not started from floats.
    #[inline(always)]
    fn start<T: Real>(&mut self, theta: &[T], u: &[T], shift: u32) {
        let mut set = u64::MAX;
        for i in 0..LANES {
            self.bits[i] >>= shift;
            set &= self.sound[i];
        }
        if set == u64::MAX {
            return;
        }
        for (i, (&theta, &u)) in theta.iter().zip(u).enumerate().take(LANES) {
            if self.sound[i] == 0 {
                let ((theta, whole), (u, too)) = (fixed(theta), fixed(u));
                (self.theta[i], self.u[i], self.bits[i]) = (theta, u, 0);
                self.sound[i] = whole & too;
            }
        }
    }

    /// θ before the step, given u after it.
    #[inline(always)]
    fn weigh_before<T: Real>(&mut self, lr: T) {
        for i in 0..LANES {
            let (change, whole) = fixed(lr * float::<T>(self.u[i]));
            self.theta[i] = self.theta[i].wrapping_add(change);
            self.sound[i] &= whole;
        }
    }
}

/// The nearest fixed-point number, and a mask of ones; zeros for both if `x` is out of range.
#[inline(always)]
fn fixed<T: Real>(x: T) -> (i64, u64) {
    let x = x.to_f64();
    let whole = x.abs() < Reversible::RANGE;
    let x = if whole {
        x * Reversible::ONE as f64
    } else {
        0.0
    };
    // SAFETY: it is a number of at most 2⁶¹, so it fits. (A checked conversion is not done in vectors.)
    let x = unsafe { x.round_ties_even().to_int_unchecked() };
    (x, mask(whole))
}

#[inline(always)]
fn float<T: Real>(x: i64) -> T {
    T::from_i64(x) * T::from_f64(1.0 / Reversible::ONE as f64)
}

#[inline(always)]
fn in_range(x: i64) -> u64 {
    const MOST: i64 = (Reversible::RANGE as u64 * Reversible::ONE) as i64;
    mask(x < MOST) & mask(x > -MOST)
}

/// A number of a type that all parameters share.
fn shared<T: Real>(array: Raw) -> T {
    // SAFETY: `Program` checked that it holds a number, and nobody writes to it now.
    unsafe { array.slice::<T>()[0] }
}

pub(crate) fn reversible<T: Real>(spec: &Reversible, arrays: &Arrays<'_>) {
    let count = spec.count;
    let state = |words| State { words, count };
    let (from, out) = (state(arrays.input(0)), arrays.output(0));
    let each = |visit: &(dyn Fn(Range<usize>) + Sync)| {
        parallel::ranges(0..count, WORK, &|range| visit(range));
    };
    let momentum = |array| Ratio::new(shared::<T>(array).to_f64());
    match spec.kind {
        ReversibleKind::Advance => {
            let (lr, momentum) = (shared(arrays.input(4)), momentum(arrays.input(5)));
            let (carry, most) = momentum.map_or((false, 0), |ratio| ratio.grow(from.most()));
            let floats = [arrays.input(1), arrays.input(2), arrays.input(3)];
            let states = [from, state(out)];
            each(&|range| advance::<T>(lr, momentum, carry, states, floats, range));
            state(out).set_most(most);
        }
        ReversibleKind::Undo => {
            let (lr, momentum) = (shared(arrays.input(2)), momentum(arrays.input(3)));
            let (gradient, states) = (arrays.input(1), [from, state(out)]);
            each(&|range| undo::<T>(lr, momentum, states, gradient, range));
            state(out).set_most(from.most());
        }
        ReversibleKind::Weight => each(&|range| look::<T>(from, None, false, out, range)),
        ReversibleKind::Velocity => each(&|range| look::<T>(from, None, true, out, range)),
        ReversibleKind::WeightBefore => {
            let lr = Some(shared(arrays.input(1)));
            each(&|range| look::<T>(from, lr, false, out, range));
        }
    }
}

/// Part of an array of a number per parameter.
#[inline(always)]
fn part<'a, T: Real>(array: Raw, range: &Range<usize>) -> &'a [T] {
    // SAFETY: `Program` checked that there is a number per parameter, and nobody writes to them now.
    unsafe { std::slice::from_raw_parts(array.element(range.start), range.len()) }
}

/// The next lanes of an array; zeros behind its end.
#[inline(always)]
fn lanes<T: Copy + Default>(array: &[T], at: usize) -> [T; LANES] {
    let rest = &array[at..];
    if let Some(lanes) = rest.first_chunk() {
        return *lanes;
    }
    let mut lanes = [T::default(); LANES];
    lanes[..rest.len()].copy_from_slice(rest);
    lanes
}

/// Puts lanes into an array, as far as it goes.
#[inline(always)]
fn put<T: Copy>(array: &mut [T], at: usize, lanes: &[T; LANES]) {
    let rest = &mut array[at..];
    if let Some(whole) = rest.first_chunk_mut() {
        *whole = *lanes;
    } else {
        rest.copy_from_slice(&lanes[..rest.len()]);
    }
}

multiversion! {
    fn advance<T: Real>(
        lr: T,
        momentum: Option<Ratio>,
        carry: bool,
        states: [State; 2],
        floats: [Raw; 3],
        range: Range<usize>,
    ) {
        let (from, mut to) = (states[0].planes(&range), states[1].planes_mut(&range));
        let [theta, u, gradient] = floats.map(|array| part::<T>(array, &range));
        let (ratio, shift) = (momentum.unwrap_or(Ratio::ONE), if carry { 32 } else { 0 });
        for at in (0..range.len()).step_by(LANES) {
            let mut block = Block::load(&from, at);
            block.start(&theta[at..], &u[at..], shift);
            let gradient = lanes(gradient, at);
            for i in 0..LANES {
                let (u, bits) = ratio.multiply(block.u[i], block.bits[i]);
                let (change, whole) = fixed(gradient[i]);
                let u = u.wrapping_add(change);
                let (change, too) = fixed(lr * float::<T>(u));
                let theta = block.theta[i].wrapping_sub(change);
                (block.theta[i], block.u[i], block.bits[i]) = (theta, u, bits);
                block.sound[i] &= whole & too & in_range(u) & in_range(theta) & mask(momentum.is_some());
            }
            block.store(&mut to, at);
        }
    }
}

multiversion! {
    fn undo<T: Real>(
        lr: T,
        momentum: Option<Ratio>,
        states: [State; 2],
        gradient: Raw,
        range: Range<usize>,
    ) {
        let (from, mut to) = (states[0].planes(&range), states[1].planes_mut(&range));
        let (gradient, ratio) = (part::<T>(gradient, &range), momentum.unwrap_or(Ratio::ONE));
        for at in (0..range.len()).step_by(LANES) {
            let mut block = Block::load(&from, at);
            block.weigh_before(lr);
            let gradient = lanes(gradient, at);
            for i in 0..LANES {
                let (change, whole) = fixed(gradient[i]);
                let u = block.u[i].wrapping_sub(change);
                (block.u[i], block.bits[i]) = ratio.unmultiply(u, block.bits[i]);
                block.sound[i] &= whole & mask(momentum.is_some());
            }
            block.store(&mut to, at);
        }
    }
}

multiversion! {
    /// A float of every parameter, NaN where there is none: the velocity, or the weight, or with a rate the
    /// weight before.
    fn look<T: Real>(from: State, lr: Option<T>, velocity: bool, out: Raw, range: Range<usize>) {
        let planes = from.planes(&range);
        // SAFETY: `Program` checked that there is a number per parameter. Every thread has a range of its
        // own.
        let out = unsafe { std::slice::from_raw_parts_mut(out.element::<T>(range.start), range.len()) };
        for at in (0..range.len()).step_by(LANES) {
            let mut block = Block::load(&planes, at);
            if let Some(lr) = lr {
                block.weigh_before(lr);
            }
            let numbers = if velocity { block.u } else { block.theta };
            let mut floats = [T::NAN; LANES];
            for i in 0..LANES {
                floats[i] = if block.sound[i] == 0 { T::NAN } else { float(numbers[i]) };
            }
            put(out, at, &floats);
        }
    }
}
