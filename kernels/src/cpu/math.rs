//! Arithmetic in f32 and f64.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// A type that maps compute in.
pub(crate) trait Real:
    bytemuck::Pod
    + PartialOrd
    + Send
    + Sync
    + std::fmt::Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    const ZERO: Self;
    const ONE: Self;
    type Draw: AsRef<[Self]>;
    fn from_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
    fn uniform(bits: [u32; 4]) -> Self::Draw;
    fn normal(bits: [u32; 4]) -> Self::Draw;
    fn exp(self) -> Self;
    fn log(self) -> Self;
    fn sqrt(self) -> Self;
    fn tanh(self) -> Self;
    fn abs(self) -> Self;

    /// Whether it is greater than the best so far; NaN is greater than all numbers, the first wins.
    #[inline(always)]
    fn beats(self, best: Self) -> bool {
        #[allow(clippy::eq_op, reason = "the test for NaN")]
        let nan = |x: Self| x != x;
        self > best || (nan(self) && !nan(best))
    }
}

macro_rules! real {
    ($t:ty, $n:literal, $uniform:expr, $normal:expr) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            type Draw = [$t; $n];
            fn from_f64(x: f64) -> Self {
                x as Self
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn uniform(bits: [u32; 4]) -> Self::Draw {
                $uniform(bits)
            }
            fn normal(bits: [u32; 4]) -> Self::Draw {
                $normal(bits)
            }
            fn exp(self) -> Self {
                self.exp()
            }
            fn log(self) -> Self {
                self.ln()
            }
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            fn tanh(self) -> Self {
                self.tanh()
            }
            fn abs(self) -> Self {
                self.abs()
            }
        }
    };
}

fn box_muller(u: f64, v: f64) -> (f64, f64) {
    let (r, angle) = ((-2.0 * u.ln()).sqrt(), std::f64::consts::TAU * v);
    (r * angle.cos(), r * angle.sin())
}

fn uniform64([a, b, c, d]: [u32; 4]) -> [f64; 2] {
    [[a, b], [c, d]].map(|[a, b]| {
        let bits = u64::from(a) << 32 | u64::from(b);
        (bits >> 11) as f64 / 9_007_199_254_740_992.0
    })
}

real!(
    f32,
    4,
    |bits: [u32; 4]| bits.map(|b| (b >> 8) as f32 / 16_777_216.0),
    |bits: [u32; 4]| {
        let u = bits.map(|b| f64::from(b) / 4_294_967_296.0);
        let (a, b) = box_muller(1.0 - u[0], u[1]);
        let (c, d) = box_muller(1.0 - u[2], u[3]);
        [a as f32, b as f32, c as f32, d as f32]
    }
);
real!(f64, 2, uniform64, |bits: [u32; 4]| {
    let [u, v] = uniform64(bits);
    let (a, b) = box_muller(1.0 - u, v);
    [a, b]
});
