//! Elementary functions in f32 and f64, as straight lines of code that compilers turn into vector loops.
//!
//! Nothing here uses a fused multiply-add, so the bits are the same on every processor and at every
//! vector width. Errors (`tests/functions.rs`): exp, log 1 ulp, sigmoid, tanh 2.5 ulp.

use super::special;
use std::fmt::Debug;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// 1/n!
const INVERSE_FACTORIALS: [f64; 20] = {
    let (mut inverses, mut factorial, mut n) = ([1.0; 20], 1.0, 1);
    while n < 20 {
        factorial *= n as f64;
        inverses[n] = 1.0 / factorial;
        n += 1;
    }
    inverses
};

/// A type that arithmetic is done in.
pub(crate) trait Real:
    bytemuck::Pod
    + Default
    + PartialOrd
    + Send
    + Sync
    + Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    const ZERO: Self;
    const ONE: Self;
    const TWO: Self;
    const HALF: Self;
    const NAN: Self;
    const INFINITY: Self;
    /// Smallest normal number.
    const NORMAL: Self;
    const LOG2_E: Self;
    const TAU: Self;
    /// ln 2 in two parts; whole multiples of the first, up to the largest exponent, are exact.
    const LN2: [Self; 2];
    /// Above the first, eˣ is infinite; below the second, it is zero.
    const EXP: [Self; 2];
    /// Beyond this tanh x is one.
    const TANH: Self;
    /// 1.5 times the power of two whose last place is 1: adding it rounds to a whole number, which the low
    /// bits of the sum then hold.
    const SHIFT: Self;
    /// A power of two that makes every number normal, and its exponent.
    const RAISE: [Self; 2];
    /// 2ⁿ + 1, n half the digits: see [`halves`](super::special).
    const HALVES: Self;
    /// From here on all numbers are whole.
    const WHOLE: Self;
    /// Terms of the series below that matter, in their ranges.
    const EXP_TERMS: usize;
    const LOG_TERMS: usize;
    const SIN_TERMS: usize;
    /// 32-bit words that a random number is made of.
    const WORDS: usize;

    fn from_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
    /// The nearest, ties to even.
    fn from_i64(x: i64) -> Self;
    /// An f32, rounded to odd, that then rounds to a shorter type as the number itself would.
    fn to_f32_odd(self) -> f32;
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
    fn copysign(self, sign: Self) -> Self;
    /// 2ᵏ in two factors (the whole may be out of range), for `self` = `SHIFT` + k.
    fn powers(self) -> [Self; 2];
    /// (k, m) with self = 2ᵏ·m and m in [√½, √2), for positive normal numbers.
    fn split(self) -> (Self, Self);
    /// (k mod 4, r) with self = k·π/2 + r, k whole and |r| ≤ π/4, for |self| < [`super::special::FAR`].
    fn quarters(self) -> (Self, Self);
    /// The same for finite numbers of that size or more: Payne and Hanek 1983.
    fn far_quarters(self) -> (Self, Self);
    /// Uniform in [0, 1), from the first [`Real::WORDS`].
    fn uniform(words: [u32; 2]) -> Self;
    /// Uniform in (0, 1], likewise.
    fn positive(words: [u32; 2]) -> Self;
}

macro_rules! real {
    ($t:ident, $bits:ident, mantissa: $mantissa:literal, bias: $bias:literal, { $($item:item)* }) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const TWO: Self = 2.0;
            const HALF: Self = 0.5;
            const NAN: Self = $t::NAN;
            const INFINITY: Self = $t::INFINITY;
            const NORMAL: Self = $t::MIN_POSITIVE;
            const LOG2_E: Self = std::$t::consts::LOG2_E;
            const TAU: Self = std::$t::consts::TAU;
            const SHIFT: Self = 1.5 * (1_u64 << $mantissa) as $t;
            const RAISE: [Self; 2] = [18_446_744_073_709_551_616.0, 64.0];
            const HALVES: Self = (1_u64 << (($mantissa + 2) / 2)) as $t + 1.0;
            const WHOLE: Self = (1_u64 << $mantissa) as $t;
            $($item)*

            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as Self
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn from_i64(x: i64) -> Self {
                x as Self
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn copysign(self, sign: Self) -> Self {
                self.copysign(sign)
            }
            #[inline(always)]
            fn powers(self) -> [Self; 2] {
                // Twice the bias is added before k is halved, so that it is never negative.
                let k = self.to_bits().wrapping_sub(Self::SHIFT.to_bits()).wrapping_add(2 * $bias);
                let half = k >> 1;
                [half, k.wrapping_sub(half)].map(|k| $t::from_bits(k << $mantissa))
            }
            #[inline(always)]
            fn split(self) -> (Self, Self) {
                const ROOT: $bits = std::$t::consts::FRAC_1_SQRT_2.to_bits();
                const ONE: $bits = (1.0 as $t).to_bits();
                let bits = self.to_bits().wrapping_add(ONE - ROOT);
                let k = (bits >> $mantissa).wrapping_sub($bias);
                let m = (bits & ((1 << $mantissa) - 1)) + ROOT;
                // The whole number as a float, by the low bits of SHIFT + k.
                let k = $t::from_bits(Self::SHIFT.to_bits().wrapping_add(k)) - Self::SHIFT;
                (k, $t::from_bits(m))
            }
        }
    };
}

real!(f32, u32, mantissa: 23, bias: 127, {
    const LN2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    const EXP: [f32; 2] = [89.0, -104.0];
    const TANH: f32 = 10.0;
    const EXP_TERMS: usize = 6;
    const LOG_TERMS: usize = 4;
    const SIN_TERMS: usize = 5;
    const WORDS: usize = 1;

    #[inline(always)]
    fn to_f32_odd(self) -> f32 {
        self
    }
    #[inline(always)]
    fn quarters(self) -> (f32, f32) {
        let [first, second, ..] = special::HALF_PI;
        let x = f64::from(self);
        let k = special::nearest(x * std::f64::consts::FRAC_2_PI);
        (special::modulo_4(k) as f32, ((x - k * first) - k * second) as f32)
    }
    fn far_quarters(self) -> (f32, f32) {
        let bits = self.to_bits();
        let m = u64::from(bits & 0x7F_FFFF | 0x80_0000);
        let at = (bits >> 23 & 0xFF) as usize + 62 - 150;
        let [high, low, _] = special::two_over_pi(at).map(|word| [word >> 32, word & 0xFFFF_FFFF]);
        let fraction = ((m * high[0]) << 32).wrapping_add(m * high[1]).wrapping_add((m * low[0]) >> 32);
        let k = fraction.wrapping_add(1 << 61) >> 62;
        let rest = fraction.wrapping_sub(k << 62).cast_signed() as f64 * f64::from_bits((1023 - 62) << 52);
        let turn = [k as f32, (rest * std::f64::consts::FRAC_PI_2) as f32];
        special::mirrored(turn, self)
    }
    #[inline(always)]
    fn uniform([word, _]: [u32; 2]) -> f32 {
        (word >> 8) as f32 * f32::from_bits((127 - 24) << 23)
    }
    #[inline(always)]
    fn positive([word, _]: [u32; 2]) -> f32 {
        // All bits, for a longer tail of the normal distribution than 24 would give.
        word as f32 * f32::from_bits((127 - 32) << 23) + f32::from_bits((127 - 33) << 23)
    }
});
real!(f64, u64, mantissa: 52, bias: 1023, {
    const LN2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
    const EXP: [f64; 2] = [710.0, -746.0];
    const TANH: f64 = 20.0;
    const EXP_TERMS: usize = 12;
    const LOG_TERMS: usize = 10;
    const SIN_TERMS: usize = 9;
    const WORDS: usize = 2;

    #[inline(always)]
    fn to_f32_odd(self) -> f32 {
        // Rounded to odd: what is not exact goes to the neighbour whose last bit is set, so that no tie can
        // arise.
        let near = self as f32;
        let bits = near.to_bits();
        let up = f64::from(near).abs() < self.abs();
        let odd = if up { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
        let exact = f64::from(near) == self || self.is_nan();
        f32::from_bits(if exact || bits % 2 == 1 { bits } else { odd })
    }
    #[inline(always)]
    fn quarters(self) -> (f64, f64) {
        let k = special::nearest(self * std::f64::consts::FRAC_2_PI);
        (special::modulo_4(k), special::HALF_PI.iter().fold(self, |r, part| r - k * part))
    }
    fn far_quarters(self) -> (f64, f64) {
        let bits = self.to_bits();
        let m = u128::from(bits & 0xF_FFFF_FFFF_FFFF | 0x10_0000_0000_0000);
        let at = (bits >> 52 & 0x7FF) as usize + 62 - 1075;
        let words = special::two_over_pi(at).map(u128::from);
        let fraction = ((m * words[0]) << 64).wrapping_add(m * words[1]).wrapping_add((m * words[2]) >> 64);
        let k = fraction.wrapping_add(1 << 125) >> 126;
        let rest = fraction.wrapping_sub(k << 126).cast_signed() as f64 * f64::from_bits((1023 - 126) << 52);
        special::mirrored([k as f64, rest * std::f64::consts::FRAC_PI_2], self)
    }
    #[inline(always)]
    fn uniform([high, low]: [u32; 2]) -> f64 {
        ((u64::from(high) << 32 | u64::from(low)) >> 11) as f64 * f64::from_bits((1023 - 53) << 52)
    }
    #[inline(always)]
    fn positive(words: [u32; 2]) -> f64 {
        Self::uniform(words) + f64::from_bits((1023 - 53) << 52)
    }
});

/// c₀ + c₁x + c₂x² + …
#[inline(always)]
pub(super) fn polynomial<T: Real>(x: T, coefficients: impl DoubleEndedIterator<Item = f64>) -> T {
    let mut coefficients = coefficients.rev().map(T::from_f64);
    let highest = coefficients.next().unwrap_or(T::ZERO);
    coefficients.fold(highest, |sum, c| sum * x + c)
}

/// (eʳ − 1, k + `SHIFT`) with x = k·ln 2 + r, k whole and |r| ≤ ln 2 / 2.
#[inline(always)]
pub(super) fn reduced_exp<T: Real>(x: T) -> (T, T) {
    let shifted = x * T::LOG2_E + T::SHIFT;
    let k = shifted - T::SHIFT;
    let r = (x - k * T::LN2[0]) - k * T::LN2[1];
    (
        r + r * r * polynomial(r, INVERSE_FACTORIALS[2..2 + T::EXP_TERMS].iter().copied()),
        shifted,
    )
}

/// eˣ
#[inline(always)]
pub(crate) fn exp<T: Real>(x: T) -> T {
    let x = if x > T::EXP[0] { T::EXP[0] } else { x };
    let x = if x < T::EXP[1] { T::EXP[1] } else { x };
    let (y, shifted) = reduced_exp(x);
    let [a, b] = shifted.powers();
    (y + T::ONE) * a * b
}

/// tanh |x| = (e²ˣ − 1) / (e²ˣ + 1), the numerator without cancellation.
#[inline(always)]
pub(crate) fn tanh<T: Real>(x: T) -> T {
    let a = x.abs();
    let a = if a > T::TANH { T::TANH } else { a };
    let (y, shifted) = reduced_exp(a + a);
    let [p, q] = shifted.powers();
    let power = p * q;
    let numerator = power * y + (power - T::ONE);
    (numerator / (numerator + T::TWO)).copysign(x)
}

/// 1 / (1 + e⁻ˣ), by e^−|x| so that small results keep their digits.
#[inline(always)]
pub(crate) fn sigmoid<T: Real>(x: T) -> T {
    let e = exp(-x.abs());
    let numerator = if x < T::ZERO { e } else { T::ONE };
    numerator / (T::ONE + e)
}

/// ln x = k·ln 2 + ln m; with f = m − 1 and s = f / (2 + f), ln m = 2 artanh s = f − (f²/2 − s·(f²/2 + R)),
/// R = 2s²/3 + 2s⁴/5 + …
#[inline(always)]
pub(crate) fn log<T: Real>(x: T) -> T {
    let raised = x < T::NORMAL;
    let (k, m) = (if raised { x * T::RAISE[0] } else { x }).split();
    let k = if raised { k - T::RAISE[1] } else { k };
    let f = m - T::ONE;
    let s = f / (T::TWO + f);
    let s2 = s * s;
    let rest = s2 * polynomial(s2, (0..T::LOG_TERMS).map(|i| 2.0 / (2 * i + 3) as f64));
    let half = T::HALF * f * f;
    let y = k * T::LN2[0] - ((half - (s * (half + rest) + k * T::LN2[1])) - f);
    let y = if x < T::INFINITY { y } else { x };
    let y = if x < T::ZERO { T::NAN } else { y };
    if x == T::ZERO { -T::INFINITY } else { y }
}

/// 1/n! with alternating signs, for every second n from `from` on.
#[inline(always)]
pub(super) fn alternating(from: usize, count: usize) -> impl DoubleEndedIterator<Item = f64> {
    let sign = |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 };
    (0..count).map(move |i| INVERSE_FACTORIALS[2 * i + from] * sign(i))
}

/// (cos 2πx, sin 2πx) for x in [0, 1]: by series on an eighth of a turn, then by quarters.
#[inline(always)]
pub(crate) fn cos_sin_turns<T: Real>(x: T) -> (T, T) {
    let four = T::TWO * T::TWO;
    let quarters = (x * four + T::SHIFT) - T::SHIFT;
    let angle = (x - quarters / four) * T::TAU;
    let square = angle * angle;
    let sin = angle * polynomial(square, alternating(1, T::SIN_TERMS));
    let cos = polynomial(square, alternating(0, T::SIN_TERMS + 1));
    let odd = quarters == T::ONE || quarters == T::ONE + T::TWO;
    let (cos, sin) = if odd { (-sin, cos) } else { (cos, sin) };
    let turned = quarters == T::TWO || quarters == T::ONE + T::TWO;
    if turned { (-cos, -sin) } else { (cos, sin) }
}

/// Whether x is greater than the best so far; NaN is greater than all numbers, the first of equals wins.
#[inline(always)]
#[expect(
    clippy::neg_cmp_op_on_partial_ord,
    reason = "NaN is not less than or equal to any number"
)]
pub(crate) fn beats<T: Real>(x: T, best: T) -> bool {
    // Without branches, so that loops over it become vectors.
    !(x <= best) & !is_nan(best)
}

#[inline(always)]
#[expect(clippy::eq_op, reason = "only NaN differs from itself")]
pub(crate) fn is_nan<T: Real>(x: T) -> bool {
    x != x
}
