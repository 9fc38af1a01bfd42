//! Momentum that can be undone.

use super::math::Real;
use super::parallel;
use super::simd::multiversion;
use crate::program::{Arrays, Raw};
use crate::reversible::Ratio;
use crate::{Reversible, ReversibleKind};
use std::ops::Range;

/// Work of a parameter, in element visits.
const WORK: usize = 8;

/// The numbers of a parameter, in units of the last place.
#[derive(Clone, Copy)]
struct Numbers {
    theta: i64,
    u: i64,
    bits: u64,
}

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

    /// The greatest number that the bits can be.
    fn most(self) -> u64 {
        let words = self.plane(0, &(6 * self.count..6 * self.count + 2));
        join(words[0], words[1])
    }

    fn set_most(self, most: u64) {
        let words = self.plane_mut(0, &(6 * self.count..6 * self.count + 2));
        words.copy_from_slice(&[most as u32, (most >> 32) as u32]);
    }
}

#[inline(always)]
fn join(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// `None` where nothing was stored.
#[inline(always)]
fn load(planes: &[&[u32]; 6], i: usize) -> Option<Numbers> {
    let number = |plane: usize| join(planes[plane][i], planes[plane + 1][i]);
    let theta = number(0);
    (theta != 0).then(|| Numbers {
        theta: theta.wrapping_sub(Reversible::SET) as i64,
        u: number(2) as i64,
        bits: number(4),
    })
}

#[inline(always)]
fn store(planes: &mut [&mut [u32]; 6], i: usize, numbers: Option<Numbers>) {
    let words = numbers.map_or([0; 3], |numbers| {
        let theta = (numbers.theta as u64).wrapping_add(Reversible::SET);
        [theta, numbers.u as u64, numbers.bits]
    });
    for (pair, word) in words.into_iter().enumerate() {
        planes[2 * pair][i] = word as u32;
        planes[2 * pair + 1][i] = (word >> 32) as u32;
    }
}

/// The nearest number of fixed point; `None` out of range.
#[inline(always)]
fn fixed<T: Real>(x: T) -> Option<i64> {
    let x = x.to_f64();
    (x.abs() < Reversible::RANGE).then(|| (x * Reversible::ONE as f64).round_ties_even() as i64)
}

#[inline(always)]
fn float<T: Real>(x: i64) -> T {
    T::from_i64(x) * T::from_f64(1.0 / Reversible::ONE as f64)
}

#[inline(always)]
fn in_range(x: i64) -> Option<i64> {
    (x.unsigned_abs() < Reversible::RANGE as u64 * Reversible::ONE).then_some(x)
}

/// The two numbers that all parameters share.
#[derive(Clone, Copy)]
struct Rates<T> {
    lr: T,
    momentum: Ratio,
}

impl<T: Real> Rates<T> {
    fn new(lr: Raw, momentum: Raw) -> (T, Option<Self>) {
        // SAFETY: `Program` checked that both hold a number, and nobody writes to them now.
        let (lr, momentum) = unsafe { (lr.slice::<T>()[0], momentum.slice::<T>()[0]) };
        let momentum = Ratio::new(momentum.to_f64());
        (lr, momentum.map(|momentum| Self { lr, momentum }))
    }

    #[inline(always)]
    fn advance(self, from: Numbers, gradient: T) -> Option<Numbers> {
        let (u, bits) = self.momentum.multiply(from.u, from.bits);
        let u = in_range(u.wrapping_add(fixed(gradient)?))?;
        let change = fixed(self.lr * float::<T>(u))?;
        let theta = in_range(from.theta.wrapping_sub(change))?;
        Some(Numbers { theta, u, bits })
    }

    #[inline(always)]
    fn undo(self, from: Numbers, gradient: T) -> Option<Numbers> {
        let theta = weight_before(from, self.lr)?;
        let u = from.u.wrapping_sub(fixed(gradient)?);
        let (u, bits) = self.momentum.unmultiply(u, from.bits);
        Some(Numbers { theta, u, bits })
    }
}

#[inline(always)]
fn weight_before<T: Real>(from: Numbers, lr: T) -> Option<i64> {
    Some(from.theta.wrapping_add(fixed(lr * float::<T>(from.u))?))
}

pub(crate) fn reversible<T: Real>(spec: &Reversible, arrays: &Arrays<'_>) {
    let count = spec.count;
    let state = |words| State { words, count };
    let (from, out) = (state(arrays.input(0)), arrays.output(0));
    let each = |visit: &(dyn Fn(Range<usize>) + Sync)| {
        parallel::ranges(0..count, WORK, &|range| visit(range));
    };
    match spec.kind {
        ReversibleKind::Advance => {
            let (_, rates) = Rates::<T>::new(arrays.input(4), arrays.input(5));
            let (carry, most) = rates.map_or((false, 0), |r| r.momentum.grow(from.most()));
            let floats = [arrays.input(1), arrays.input(2), arrays.input(3)];
            each(&|range| advance::<T>(rates, carry, [from, state(out)], floats, range));
            state(out).set_most(most);
        }
        ReversibleKind::Undo => {
            let (_, rates) = Rates::<T>::new(arrays.input(2), arrays.input(3));
            let gradient = arrays.input(1);
            each(&|range| undo::<T>(rates, [from, state(out)], gradient, range));
            state(out).set_most(from.most());
        }
        ReversibleKind::Weight => {
            each(&|range| look::<T>(from, out, range, |numbers| Some(numbers.theta)));
        }
        ReversibleKind::Velocity => {
            each(&|range| look::<T>(from, out, range, |numbers| Some(numbers.u)));
        }
        ReversibleKind::WeightBefore => {
            // SAFETY: `Program` checked that it holds a number, and nobody writes to it now.
            let lr = unsafe { arrays.input(1).slice::<T>()[0] };
            each(&|range| look::<T>(from, out, range, |numbers| weight_before(numbers, lr)));
        }
    }
}

/// Part of an array of a number per parameter.
#[inline(always)]
fn part<'a, T: Real>(array: Raw, range: &Range<usize>) -> &'a [T] {
    // SAFETY: `Program` checked that there is a number per parameter, and nobody writes to them now.
    unsafe { std::slice::from_raw_parts(array.element(range.start), range.len()) }
}

multiversion! {
    fn advance<T: Real>(
        rates: Option<Rates<T>>,
        carry: bool,
        states: [State; 2],
        floats: [Raw; 3],
        range: Range<usize>,
    ) {
        let (from, mut to) = (states[0].planes(&range), states[1].planes_mut(&range));
        let [theta, u, gradient] = floats.map(|array| part::<T>(array, &range));
        for i in 0..range.len() {
            let old = load(&from, i).map_or_else(
                || Some(Numbers { theta: fixed(theta[i])?, u: fixed(u[i])?, bits: 0 }),
                |old| Some(Numbers { bits: if carry { old.bits >> 32 } else { old.bits }, ..old }),
            );
            let new = rates.zip(old).and_then(|(rates, old)| rates.advance(old, gradient[i]));
            store(&mut to, i, new);
        }
    }
}

multiversion! {
    fn undo<T: Real>(rates: Option<Rates<T>>, states: [State; 2], gradient: Raw, range: Range<usize>) {
        let (from, mut to) = (states[0].planes(&range), states[1].planes_mut(&range));
        let gradient = part::<T>(gradient, &range);
        for (i, &gradient) in gradient.iter().enumerate() {
            let old = rates.zip(load(&from, i)).and_then(|(rates, new)| rates.undo(new, gradient));
            store(&mut to, i, old);
        }
    }
}

/// A float of every parameter; NaN where there is none.
fn look<T: Real>(
    from: State,
    out: Raw,
    range: Range<usize>,
    number: impl Fn(Numbers) -> Option<i64>,
) {
    let planes = from.planes(&range);
    // SAFETY: `Program` checked that there is a number per parameter; every thread has a range of its own.
    let out = unsafe { std::slice::from_raw_parts_mut(out.element::<T>(range.start), range.len()) };
    for (i, out) in out.iter_mut().enumerate() {
        *out = load(&planes, i).and_then(&number).map_or(T::NAN, float);
    }
}
