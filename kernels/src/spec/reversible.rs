//! Momentum whose steps can be undone exactly: D. Maclaurin, D. Duvenaud, R. Adams, «Gradient-based
//! hyperparameter optimization through reversible learning», ICML 2015 (arXiv 1502.03492).
//!
//! Weights and velocities are whole multiples of 2⁻⁴⁶, so what is added can be subtracted. Multiplying a
//! velocity by γ < 1 loses log₂(1/γ) bits; they are kept. The paper's algorithm 3 divides first and fills the
//! gap from the kept bits, which moves the velocity by up to the denominator. Here the product comes first,
//! so that it is exact to the last place, and the kept bits only say how it is rounded.

use super::Spec;
use crate::Float;
use tensor::DType;

/// A step of momentum, its inverse, or a look at its numbers. Each of `count` parameters has three numbers:
/// weight, velocity, and the bits that multiplications lost. The state is u32 \[[`Reversible::words`]\]: low
/// and high words of all weights, of all velocities and of all lost bits, then two words with the greatest
/// value that lost bits can have. A parameter whose words are zeros has not started: its numbers are taken
/// from floats.
///
/// Weights and velocities must be below [`Reversible::RANGE`] in magnitude, and the momentum in \[0, 1\].
/// Otherwise the parameter's words become zeros, and its floats NaN. It stays NaN if the next
/// [`ReversibleKind::Advance`] is given these floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reversible {
    /// Element type of floats: of parameters, and of the rate and the momentum, which are one number each.
    pub float: Float,
    /// How many parameters.
    pub count: usize,
    /// What is done.
    pub kind: ReversibleKind,
}

/// What a [`Reversible`] kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReversibleKind {
    /// (state, θ, u, g, rate, momentum) → state: u′ = momentum·u + g, θ′ = θ − rate·u′. θ and u are only used
    /// for parameters that have not started.
    Advance,
    /// (state after, g, rate, momentum) → state before: the exact inverse, but without the words of lost bits
    /// that were taken out, which the caller keeps (see [`Ratio::grow`]).
    Undo,
    /// (state) → θ.
    Weight,
    /// (state after, rate) → θ before, which is known before the gradient there is computed.
    WeightBefore,
    /// (state) → u.
    Velocity,
}

impl Reversible {
    /// Weights and velocities must be less than this in magnitude.
    pub const RANGE: f64 = 32768.0;
    /// The number 1 in fixed point.
    pub(crate) const ONE: u64 = 1 << 46;
    /// Added to a weight in memory, so that the words of a parameter that has started are never zeros.
    pub(crate) const SET: u64 = 1 << 62;

    /// Words of the state of that many parameters.
    pub const fn words(count: usize) -> usize {
        count.saturating_mul(6).saturating_add(2)
    }
}

impl Spec for Reversible {
    fn name(&self) -> &'static str {
        "reversible"
    }

    fn extents(&self) -> Vec<Vec<usize>> {
        // The state has 6·count + 2 words, which is at most 8·count.
        vec![vec![self.count, 8]]
    }

    fn inputs(&self) -> Vec<(DType, usize)> {
        let state = (DType::U32, Self::words(self.count));
        let [one, each] = [1, self.count].map(|count| (self.float.into(), count));
        match self.kind {
            ReversibleKind::Advance => vec![state, each, each, each, one, one],
            ReversibleKind::Undo => vec![state, each, one, one],
            ReversibleKind::WeightBefore => vec![state, one],
            ReversibleKind::Weight | ReversibleKind::Velocity => vec![state],
        }
    }

    fn outputs(&self) -> Vec<(DType, usize)> {
        vec![match self.kind {
            ReversibleKind::Advance | ReversibleKind::Undo => (DType::U32, Self::words(self.count)),
            _ => (self.float.into(), self.count),
        }]
    }
}

/// A momentum as the fraction n/2²⁴, 1 ≤ n ≤ 2²⁴.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    n: u64,
    /// (2⁶⁴ − 1)/n, for division by multiplication.
    reciprocal: u64,
}

/// Binary places of a [`Ratio`]: as many as an f32 in [½, 1) has.
const BITS: u32 = 24;
/// The greatest remainder of a division by 2²⁴: a mask of the low bits.
const REST: u64 = (1 << BITS) - 1;

impl Ratio {
    /// A momentum of 1, which loses nothing.
    pub(crate) const ONE: Self = Self {
        n: 1 << BITS,
        reciprocal: u64::MAX >> BITS,
    };

    /// The nearest to a momentum; `None` for one outside of [0, 1].
    pub fn new(momentum: f64) -> Option<Self> {
        if !(0.0..=1.0).contains(&momentum) {
            return None;
        }
        let n = ((momentum * f64::from(1 << BITS)).round_ties_even() as u64).max(1);
        Some(Self {
            n,
            reciprocal: u64::MAX / n,
        })
    }

    /// How lost bits grow by a multiplication, if they are at most `most` before it. Returns whether 32 of
    /// them must be taken out first, so that the rest fits 64 bits afterwards, and the greatest value that
    /// they then have.
    pub fn grow(self, most: u64) -> (bool, u64) {
        let full = self.divide(most).0 >> (64 - BITS) > 0;
        let left = if full { most >> 32 } else { most };
        (full, self.divide(left).0 << BITS | REST)
    }

    /// x/n and the remainder: the quotient by the reciprocal is right or one too small.
    #[inline(always)]
    fn divide(self, x: u64) -> (u64, u64) {
        let quotient = high_product(x, self.reciprocal);
        let rest = x.wrapping_sub(quotient.wrapping_mul(self.n));
        let more = u64::from(rest >= self.n);
        (
            quotient.wrapping_add(more),
            rest.wrapping_sub(self.n & 0_u64.wrapping_sub(more)),
        )
    }

    /// (x, bits) → (⌊(x·n + bits mod n)/2²⁴⌋, bits): x·n/2²⁴ exact to the last place, one to one.
    #[inline(always)]
    pub(crate) fn multiply(self, x: i64, bits: u64) -> (i64, u64) {
        let (bits, dither) = self.divide(bits);
        let low = (x as u64 & REST).wrapping_mul(self.n).wrapping_add(dither);
        let product = (x >> BITS)
            .wrapping_mul(self.n as i64)
            .wrapping_add((low >> BITS) as i64);
        (product, bits << BITS | (low & REST))
    }

    /// The inverse of [`Ratio::multiply`].
    #[inline(always)]
    pub(crate) fn unmultiply(self, product: i64, bits: u64) -> (i64, u64) {
        // Rounded down also below zero: ⌊p/n⌋ = −1 − ⌊(−1 − p)/n⌋.
        let sign = product >> 63;
        let high = self.divide((product ^ sign) as u64).0 as i64 ^ sign;
        let low = product.wrapping_sub(high.wrapping_mul(self.n as i64)) as u64;
        let (low, dither) = self.divide(low << BITS | (bits & REST));
        let x = high.wrapping_shl(BITS).wrapping_add(low as i64);
        (x, (bits >> BITS).wrapping_mul(self.n).wrapping_add(dither))
    }
}

/// The upper half of a product, from products of 32 bits: those have vector instructions.
#[inline(always)]
fn high_product(x: u64, y: u64) -> u64 {
    let halves = |x: u64| (x >> 32, x & u64::from(u32::MAX));
    let ((a, b), (c, d)) = (halves(x), halves(y));
    let (middle, low) = halves(a * d + ((b * d) >> 32));
    a * c + middle + ((b * c + low) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn momentum() -> impl Strategy<Value = f64> {
        prop_oneof![
            0.0..=1.0,
            Just(0.0),
            Just(1.0),
            Just(0.5),
            Just(1.0 - 2f64.powi(-24)),
            0.0..1e-6
        ]
    }

    proptest! {
        #[test]
        fn a_product_is_exact_and_undone(momentum in momentum(), x in -(1i64 << 61)..1 << 61, bits: u64) {
            let ratio = Ratio::new(momentum).unwrap();
            let (carry, most) = ratio.grow(bits);
            let left = if carry { bits >> 32 } else { bits };
            let (y, kept) = ratio.multiply(x, left);
            prop_assert_eq!(ratio.unmultiply(y, kept), (x, left));
            prop_assert!(kept <= most);
            let exact = i128::from(x) * i128::from(ratio.n);
            let error = (i128::from(y) << BITS) - exact;
            prop_assert!(error.abs() < 1 << BITS, "less than a last place");
        }

        #[test]
        fn division_by_a_reciprocal(x: u64, n in 1u64..=1 << 24) {
            let ratio = Ratio::new(n as f64 / f64::from(1 << BITS)).unwrap();
            prop_assert_eq!(ratio.n, n);
            prop_assert_eq!(ratio.divide(x), (x / n, x % n));
            prop_assert_eq!(ratio.divide(x / n * n), (x / n, 0));
        }
    }

    /// log₂(1/0.9) = 0.152 bits a step, and the few that fill the first word once.
    #[test]
    fn bits_grow_by_what_the_momentum_loses() {
        for (momentum, bits) in [(0.9f64, 0.153), (0.5, 1.01), (0.99, 0.0146), (1.0, 0.0)] {
            let ratio = Ratio::new(momentum).unwrap();
            let (mut most, mut words) = (0, 0);
            let steps = 100_000;
            for _ in 0..steps {
                let (carry, next) = ratio.grow(most);
                words += u32::from(carry);
                most = next;
            }
            let grown = f64::from(32 * words) + (most as f64).log2() - 64.0;
            assert!(
                grown / f64::from(steps) <= bits,
                "{momentum}: {words} words"
            );
            assert!(grown / f64::from(steps) >= (-momentum.log2() - 1e-3).max(-1.0));
        }
    }

    #[test]
    fn what_is_no_momentum() {
        for momentum in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Ratio::new(momentum), None);
        }
    }
}
