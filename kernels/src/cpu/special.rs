//! Functions beside exponentials and logarithms: what is near 1 or 0 without cancellation, slopes that
//! saturate, sine and cosine, the error function, powers.
//!
//! Code without branches, as in `math.rs`, except for sines of great numbers. Errors (`tests/functions.rs`):
//! log1p, expm1, sin, cos 2 ulp, softplus and slopes 4 ulp, erf 2 ulp, erfc 8 ulp, powers 3 ulp.

#![expect(
    clippy::needless_bitwise_bool,
    clippy::neg_cmp_op_on_partial_ord,
    reason = "loops over code without branches become vector instructions; a NaN is not below infinity"
)]

use super::math::{Real, alternating, exp, is_nan, log, polynomial, reduced_exp};

/// The nearest whole number, for |x| < 2⁵¹.
#[inline(always)]
pub(super) fn nearest<T: Real>(x: T) -> T {
    (x + T::SHIFT) - T::SHIFT
}

/// x without its lower half of digits, and these (Veltkamp 1968): products of halves are exact.
#[inline(always)]
fn halves<T: Real>(x: T) -> [T; 2] {
    let c = x * T::HALVES;
    let high = c - (c - x);
    [high, x - high]
}

/// The rounding error of the product `p` of x and y (Dekker 1971).
#[inline(always)]
fn product_error<T: Real>(x: T, y: T, p: T) -> T {
    let ([a, b], [c, d]) = (halves(x), halves(y));
    b * d - (((p - a * c) - b * c) - a * d)
}

/// x · y, where zero wins: 0·∞ and 0·NaN are 0.
#[inline(always)]
pub(crate) fn strong_mul<T: Real>(x: T, y: T) -> T {
    let product = x * y;
    let zero = (x == T::ZERO) | (y == T::ZERO);
    if is_nan(product) & zero {
        T::ZERO
    } else {
        product
    }
}

/// ln(1 + x), by the logarithm of u = 1 + x and what u lost (Higham 2002, section 1.14.1).
#[inline(always)]
pub(crate) fn log1p<T: Real>(x: T) -> T {
    let u = T::ONE + x;
    let y = log(u) + (x - (u - T::ONE)) / u;
    // No correction where u is 0 or infinite: it would be NaN. And −0 stays −0.
    let plain = if u == T::ZERO { -T::INFINITY } else { x };
    let plainly = (u == T::ZERO) | (u == T::INFINITY) | (x == T::ZERO);
    if plainly { plain } else { y }
}

/// eˣ − 1 = 2ᵏ·(eʳ − 1) + (2ᵏ − 1)
#[inline(always)]
pub(crate) fn expm1<T: Real>(x: T) -> T {
    // Above `limit` the 1 is lost in rounding; below −2 · `limit` only the −1 is left.
    let limit = T::TANH + T::TANH;
    let near = if x > limit { limit } else { x };
    let near = if near < -limit - limit {
        -limit - limit
    } else {
        near
    };
    let (y, shifted) = reduced_exp(near);
    let [p, q] = shifted.powers();
    let power = p * q;
    let y = power * y + (power - T::ONE);
    let y = if x > limit { exp(x) } else { y };
    if x == T::ZERO { x } else { y }
}

/// ln(1 + eˣ) = max(x, 0) + ln(1 + e^−|x|)
#[inline(always)]
pub(crate) fn softplus<T: Real>(x: T) -> T {
    let above = if x > T::ZERO { x } else { T::ZERO };
    above + log1p(exp(-x.abs()))
}

/// σ'(x) = σ(x)·σ(−x) = e/(1 + e)², e = e^−|x|
#[inline(always)]
pub(crate) fn sigmoid_slope<T: Real>(x: T) -> T {
    let e = exp(-x.abs());
    let one = T::ONE + e;
    e / (one * one)
}

/// tanh'(x) = 1/cosh² x = 4e/(1 + e)², e = e^−2|x|
#[inline(always)]
pub(crate) fn tanh_slope<T: Real>(x: T) -> T {
    let e = exp(-(x.abs() + x.abs()));
    let one = T::ONE + e;
    let two = e + e;
    (two + two) / (one * one)
}

/// π/2 in parts: whole multiples of the first three, up to 2²⁰, are exact.
pub(super) const HALF_PI: [f64; 4] = [
    1.570_796_326_734_125_6,
    6.077_100_506_303_966e-11,
    2.022_266_248_711_166_5e-21,
    8.478_427_660_368_9e-32,
];

/// From here on the parts of π/2 do not suffice.
pub(super) const FAR: f64 = 1e6;

/// The binary digits of 2/π, after a word of zeros.
const TWO_OVER_PI: [u64; 20] = [
    0,
    0xA2F9_836E_4E44_1529,
    0xFC27_57D1_F534_DDC0,
    0xDB62_9599_3C43_9041,
    0xFE51_63AB_DEBB_C561,
    0xB724_6E3A_424D_D2E0,
    0x0649_2EEA_09D1_921C,
    0xFE1D_EB1C_B129_A73E,
    0xE882_35F5_2EBB_4484,
    0xE99C_7026_B45F_7E41,
    0x3991_D639_8353_39F4,
    0x9C84_5F8B_BDF9_283B,
    0x1FF8_97FF_DE05_980F,
    0xEF2F_118B_5A0A_6D1F,
    0x6D36_7ECF_27CB_09B7,
    0x4F46_3F66_9E5F_EA2D,
    0x7527_BAC7_EBE5_F17B,
    0x3D07_39F7_8A52_92EA,
    0x6BFB_5FB1_1F8D_5D08,
    0x5603_3046_FC7B_6BAB,
];

/// 192 of these digits, from digit `at` on. Let x = m·2ᵉ with a whole m, and `at` = e + 62. Earlier digits
/// add only multiples of 4 to x·2/π. So the product of m and the result, modulo 2¹⁹², is x·2/π modulo 4 in
/// units of 2⁻¹⁹⁰.
pub(super) fn two_over_pi(at: usize) -> [u64; 3] {
    let (word, bit) = (at / 64, at % 64);
    [0, 1, 2].map(|i| {
        let next = TWO_OVER_PI.get(word + i + 1).copied().unwrap_or(0);
        let both = u128::from(TWO_OVER_PI[word + i]) << 64 | u128::from(next);
        (both >> (64 - bit)) as u64
    })
}

/// k modulo 4, in [−2, 2], for whole k.
#[inline(always)]
pub(super) fn modulo_4(k: f64) -> f64 {
    k - nearest(k * 0.25) * 4.0
}

/// Turns the result for |x| into that for x.
pub(super) fn mirrored<T: Real>([k, r]: [T; 2], x: T) -> (T, T) {
    if x < T::ZERO { (-k, -r) } else { (k, r) }
}

/// The sine of r + k·π/2; the cosine has one quarter more.
#[inline(always)]
fn sine<T: Real>((k, r): (T, T), more: T) -> T {
    let square = r * r;
    let sin = r + r * square * polynomial(square, alternating(3, T::SIN_TERMS).map(|c| -c));
    let cos = T::ONE + square * polynomial(square, alternating(2, T::SIN_TERMS).map(|c| -c));
    let k = k + more;
    let four = T::TWO + T::TWO;
    let k = if k < T::ZERO { k + four } else { k };
    let k = if k > T::ONE + T::TWO { k - four } else { k };
    let odd = (k == T::ONE) | (k == T::ONE + T::TWO);
    let y = if odd { cos } else { sin };
    if k > T::ONE { -y } else { y }
}

/// sin x, for |x| < [`FAR`].
#[inline(always)]
pub(crate) fn sin<T: Real>(x: T) -> T {
    let y = sine(x.quarters(), T::ZERO);
    if x == T::ZERO { x } else { y }
}

/// cos x, likewise.
#[inline(always)]
pub(crate) fn cos<T: Real>(x: T) -> T {
    sine(x.quarters(), T::ONE)
}

/// Whether [`sin`] and [`cos`] leave it to [`far_sin`] and [`far_cos`].
#[inline(always)]
pub(crate) fn is_far<T: Real>(x: T) -> bool {
    x.abs() >= T::from_f64(FAR)
}

pub(crate) fn far_sin<T: Real>(x: T) -> T {
    if x.abs() < T::INFINITY {
        sine(x.far_quarters(), T::ZERO)
    } else {
        T::NAN
    }
}

pub(crate) fn far_cos<T: Real>(x: T) -> T {
    if x.abs() < T::INFINITY {
        sine(x.far_quarters(), T::ONE)
    } else {
        T::NAN
    }
}

/// Two polynomials, numerator and denominator, that approximate a part of the error function. They are those
/// of the freely distributable `s_erf.c` of Sun Microsystems (1993).
type Fraction = [&'static [f64]; 2];
/// (erf x − x)/x as a function of x², for x in [0, 0.84375].
const NEAR_0: Fraction = [
    &[
        0.128_379_167_095_512_56,
        -0.325_042_107_247_001_5,
        -0.028_481_749_575_598_51,
        -0.005_770_270_296_489_442,
        -2.376_301_665_665_016_3e-5,
    ],
    &[
        1.0,
        0.397_917_223_959_155_35,
        0.065_022_249_988_767_3,
        0.005_081_306_281_875_766,
        0.000_132_494_738_004_321_64,
        -3.960_228_278_775_368e-6,
    ],
];
/// erf x − [`ERF_1`] as a function of |x| − 1, for |x| in [0.84375, 1.25].
const NEAR_1: Fraction = [
    &[
        -0.002_362_118_560_752_659_4,
        0.414_856_118_683_748_33,
        -0.372_207_876_035_701_3,
        0.318_346_619_901_161_75,
        -0.110_894_694_282_396_68,
        0.035_478_304_325_618_236,
        -0.002_166_375_594_868_791,
    ],
    &[
        1.0,
        0.106_420_880_400_844_23,
        0.540_397_917_702_171,
        0.071_828_654_414_196_27,
        0.126_171_219_808_761_64,
        0.013_637_083_912_029_05,
        0.011_984_499_846_799_107,
    ],
];
/// ln(x·eˣ²⁺⁰·⁵⁶²⁵·erfc x) as a function of 1/x², for x from 1.25 to 1/0.35.
const TAIL: Fraction = [
    &[
        -0.009_864_944_034_847_148,
        -0.693_858_572_707_181_8,
        -10.558_626_225_323_291,
        -62.375_332_450_326_006,
        -162.396_669_462_573_47,
        -184.605_092_906_711_04,
        -81.287_435_506_306_6,
        -9.814_329_344_169_145,
    ],
    &[
        1.0,
        19.651_271_667_439_257,
        137.657_754_143_519_04,
        434.565_877_475_229_23,
        645.387_271_733_267_9,
        429.008_140_027_567_83,
        108.635_005_541_779_44,
        6.570_249_770_319_282,
        -0.060_424_415_214_858_1,
    ],
];
/// As [`TAIL`], for x from 1/0.35 to 28.
const FAR_TAIL: Fraction = [
    &[
        -0.009_864_942_924_700_1,
        -0.799_283_237_680_523,
        -17.757_954_917_754_752,
        -160.636_384_855_821_92,
        -637.566_443_368_389_6,
        -1_025.095_131_611_077_2,
        -483.519_191_608_651_4,
    ],
    &[
        1.0,
        30.338_060_743_482_46,
        325.792_512_996_573_9,
        1_536.729_586_084_437,
        3_199.858_219_508_595_5,
        2_553.050_406_433_164_4,
        474.528_541_206_955_37,
        -22.440_952_446_585_82,
    ],
];
/// erf 1, in the digits of an f32.
const ERF_1: f64 = 0.845_062_911_510_467_5;

#[inline(always)]
fn fraction<T: Real>(x: T, [above, below]: Fraction) -> T {
    let of = |coefficients: &[f64]| polynomial(x, coefficients.iter().copied());
    of(above) / of(below)
}

/// erfc of x ≥ 1.25.
#[inline(always)]
fn erfc_tail<T: Real>(x: T) -> T {
    let end = T::from_f64(30.0);
    let x = if x > end { end } else { x };
    let s = T::ONE / (x * x);
    let near = x < T::from_f64(1.0 / 0.35);
    let exponent = if near {
        fraction(s, TAIL)
    } else {
        fraction(s, FAR_TAIL)
    };
    let [high, _] = halves(x);
    let rest = (high - x) * (high + x) + (exponent - T::from_f64(0.5625));
    exp(-(high * high)) * exp(rest) / x
}

/// erf x and erfc x = 1 − erf x, each without cancellation.
#[inline(always)]
fn erf_erfc<T: Real>(x: T) -> [T; 2] {
    let a = x.abs();
    let [first, second] = [0.84375, 1.25].map(T::from_f64);
    let small = x * fraction(x * x, NEAR_0);
    let quarter = x < T::HALF * T::HALF;
    let of_small = if quarter {
        T::ONE - (x + small)
    } else {
        T::HALF - (small + (x - T::HALF))
    };
    let middle = fraction(a - T::ONE, NEAR_1);
    let one = T::from_f64(ERF_1);
    let tail = erfc_tail(if a > second { a } else { second });
    let is_middle = a < second;
    let (erf, erfc) = if is_middle {
        (one + middle, (T::ONE - one) - middle)
    } else {
        (T::ONE - tail, tail)
    };
    let erfc = if x < T::ZERO { T::ONE + erf } else { erfc };
    let erf = erf.copysign(x);
    let is_small = a < first;
    let both = if is_small {
        [x + small, of_small]
    } else {
        [erf, erfc]
    };
    if is_nan(x) { [x; 2] } else { both }
}

/// 2/√π · ∫₀ˣ e^−t² dt
#[inline(always)]
pub(crate) fn erf<T: Real>(x: T) -> T {
    erf_erfc(x)[0]
}

/// 1 − erf x
#[inline(always)]
pub(crate) fn erfc<T: Real>(x: T) -> T {
    erf_erfc(x)[1]
}

/// ln x of a positive number in two parts, as `math.rs` has it: with s = f/(2 + f), ln m = s·(2 + R).
#[inline(always)]
fn long_log<T: Real>(x: T) -> [T; 2] {
    let raised = x < T::NORMAL;
    let (k, m) = (if raised { x * T::RAISE[0] } else { x }).split();
    let k = if raised { k - T::RAISE[1] } else { k };
    let f = m - T::ONE;
    let t = T::TWO + f;
    let s = f / t;
    let p = s * t;
    let lost = ((f - p) - product_error(s, t, p)) - s * (f - (t - T::TWO));
    let s2 = s * s;
    let rest = s2 * polynomial(s2, (0..T::LOG_TERMS).map(|i| 2.0 / (2 * i + 3) as f64));
    let (whole, double) = (k * T::LN2[0], s + s);
    let high = whole + double;
    let error = double - (high - whole);
    let low = error + (k * T::LN2[1] + (s * rest + (lost + lost) / t));
    let sum = high + low;
    [sum, low - (sum - high)]
}

/// xʸ; NaN for a finite x < 0 if y is not a whole number; x⁰ = 1ʸ = 1, also of NaN. Computed as e^(y·ln |x|),
/// the exponent in two parts.
#[inline(always)]
pub(crate) fn pow<T: Real>(x: T, y: T) -> T {
    let a = x.abs();
    let [high, low] = long_log(a);
    let plain = (a == T::ZERO) | !(a < T::INFINITY);
    let high = if plain { log(a) } else { high };
    let exponent = strong_mul(y, high);
    // Where the result is finite and not 0, so are the parts of the exponent.
    let inside = (exponent < T::EXP[0]) & (exponent > T::EXP[1]) & (high != T::ZERO) & !plain;
    let low = if inside {
        product_error(y, high, exponent) + y * low
    } else {
        T::ZERO
    };
    let power = exp(exponent);
    let power = if power < T::INFINITY {
        power + power * low
    } else {
        power
    };
    // How |y| rounds to a whole number, and half of it.
    let size = y.abs();
    let whole = |x: T| {
        if x < T::WHOLE {
            (x + T::WHOLE) - T::WHOLE
        } else {
            x
        }
    };
    let half = T::HALF * size;
    let odd = (whole(size) == size) & (whole(half) != half);
    let power = if odd { power.copysign(x) } else { power };
    let broken = (x < T::ZERO) & (whole(size) != size) & (a < T::INFINITY);
    if broken { T::NAN } else { power }
}
