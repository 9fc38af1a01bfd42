// The CPU's `special.rs` in f32, step for step: what is near 1 or 0 without cancellation, slopes that saturate, sine
// and cosine, the error function, powers. Errors: log1p, expm1, sin, cos 2 ulp; softplus and slopes 4 ulp; erf 2 ulp,
// erfc 8 ulp; powers 3 ulp.
#pragma once
#include "math.cuh"

#define INFINITE __uint_as_float(0x7F800000u)

// x without its lower half of digits.
__device__ __forceinline__ float upper_half(float x) {
    float c = x * 4097.0f;
    return c - (c - x);
}

// The rounding error of the product p of x and y.
__device__ __forceinline__ float product_error(float x, float y, float p) {
    float a = upper_half(x), b = x - a, c = upper_half(y), d = y - c;
    return b * d - (((p - a * c) - b * c) - a * d);
}

// x y, where zero wins: 0 times infinity or NaN is 0.
template <class T>
__device__ __forceinline__ T strong_mul(T x, T y) {
    T product = x * y;
    return product != product && (x == T(0) || y == T(0)) ? T(0) : product;
}

// ln(1 + x), by the logarithm of u = 1 + x and what u lost.
__device__ __forceinline__ float log1p_f32(float x) {
    float u = 1.0f + x;
    float y = log_f32(u) + (x - (u - 1.0f)) / u;
    y = u == INFINITE || x == 0.0f ? x : y;
    return u == 0.0f ? -INFINITE : y;
}

// e^x - 1 = 2^k (e^r - 1) + (2^k - 1)
__device__ __forceinline__ float expm1_f32(float x) {
    float near = x > 20.0f ? 20.0f : x;
    near = near < -40.0f ? -40.0f : near;
    float shifted, p, q, y = reduced_exp(near, shifted);
    powers(shifted, p, q);
    float power = p * q;
    y = power * y + (power - 1.0f);
    y = x > 20.0f ? exp_f32(x) : y;
    return x == 0.0f ? x : y;
}

// ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)
__device__ __forceinline__ float softplus_f32(float x) {
    float above = x > 0.0f ? x : 0.0f;
    return above + log1p_f32(exp_f32(-fabsf(x)));
}

__device__ __forceinline__ float sigmoid_slope_f32(float x) {
    float e = exp_f32(-fabsf(x)), one = 1.0f + e;
    return e / (one * one);
}

// 1 / cosh(x)^2
__device__ __forceinline__ float tanh_slope_f32(float x) {
    float e = exp_f32(-(fabsf(x) + fabsf(x))), one = 1.0f + e, two = e + e;
    return (two + two) / (one * one);
}

// (k mod 4, r) with x = k pi/2 + r, for |x| < 10^6.
__device__ __forceinline__ void quarters(float number, float& k, float& r) {
    const double shift = 6755399441055744.0;
    double x = double(number), whole = (x * 0.6366197723675814 + shift) - shift;
    k = float(whole - ((whole * 0.25 + shift) - shift) * 4.0);
    r = float((x - whole * 1.5707963267341256) - whole * 6.077100506303966e-11);
}

// The binary digits of 2/pi, after 64 zeros.
__device__ const u32 TWO_OVER_PI[10] = {0u,          0u,          0xA2F9836Eu, 0x4E441529u, 0xFC2757D1u,
                                        0xF534DDC0u, 0xDB629599u, 0x3C439041u, 0xFE5163ABu, 0xDEBBC561u};

// The same for finite numbers from there on: Payne and Hanek 1983.
__device__ __forceinline__ void far_quarters(float number, float& k, float& r) {
    u32 bits = __float_as_uint(number), at = (bits >> 23 & 0xFFu) - 88u, word = at >> 5, bit = at & 31u;
    u64 m = bits & 0x7FFFFFu | 0x800000u, w[3];
#pragma unroll
    for (u32 i = 0; i < 3; ++i) {
        u64 both = u64(TWO_OVER_PI[word + i]) << 32 | TWO_OVER_PI[word + i + 1];
        w[i] = both >> (32u - bit) & 0xFFFFFFFFu;
    }
    u64 fraction = (m * w[0] << 32) + m * w[1] + (m * w[2] >> 32);
    u64 whole = (fraction + (1ull << 61)) >> 62;
    double rest = double((long long)(fraction - (whole << 62))) * 2.168404344971009e-19;
    k = float(whole), r = float(rest * 1.5707963267948966);
    if (number < 0.0f) k = -k, r = -r;
}

// The sine of r + k pi/2.
__device__ __forceinline__ float sine(float k, float r) {
    float square = r * r;
    float s = float(-1.0 / 39916800.0), c = float(-1.0 / 3628800.0);
    s = s * square + float(1.0 / 362880.0);
    s = s * square + float(-1.0 / 5040.0);
    s = s * square + float(1.0 / 120.0);
    s = s * square + float(-1.0 / 6.0);
    c = c * square + float(1.0 / 40320.0);
    c = c * square + float(-1.0 / 720.0);
    c = c * square + float(1.0 / 24.0);
    c = c * square + -0.5f;
    s = r + r * square * s;
    c = 1.0f + square * c;
    k = k < 0.0f ? k + 4.0f : k;
    k = k > 3.0f ? k - 4.0f : k;
    float y = k == 1.0f || k == 3.0f ? c : s;
    return k > 1.0f ? -y : y;
}

__device__ __forceinline__ float turned(float x, float more) {
    if (!(fabsf(x) < INFINITE)) return __uint_as_float(0x7FC00000u);
    float k, r;
    if (fabsf(x) >= 1e6f) {
        far_quarters(x, k, r);
    } else {
        quarters(x, k, r);
    }
    return sine(k + more, r);
}

__device__ __forceinline__ float sin_f32(float x) { return x == 0.0f ? x : turned(x, 0.0f); }
__device__ __forceinline__ float cos_f32(float x) { return turned(x, 1.0f); }

// (erf x - x) / x of x^2, up to 0.84375.
__device__ __forceinline__ float erf_near_0(float x) {
    float p = float(-2.3763016656650163e-5);
    p = p * x + float(-0.005770270296489442);
    p = p * x + float(-0.02848174957559851);
    p = p * x + float(-0.3250421072470015);
    p = p * x + float(0.12837916709551256);
    float q = float(-3.960228278775368e-6);
    q = q * x + float(0.00013249473800432164);
    q = q * x + float(0.005081306281875766);
    q = q * x + float(0.0650222499887673);
    q = q * x + float(0.39791722395915535);
    q = q * x + float(1.0);
    return p / q;
}

// erf x - 0.845... of |x| - 1, up to 1.25.
__device__ __forceinline__ float erf_near_1(float x) {
    float p = float(-0.002166375594868791);
    p = p * x + float(0.035478304325618236);
    p = p * x + float(-0.11089469428239668);
    p = p * x + float(0.31834661990116175);
    p = p * x + float(-0.3722078760357013);
    p = p * x + float(0.41485611868374833);
    p = p * x + float(-0.0023621185607526594);
    float q = float(0.011984499846799107);
    q = q * x + float(0.01363708391202905);
    q = q * x + float(0.12617121980876164);
    q = q * x + float(0.07182865441419627);
    q = q * x + float(0.540397917702171);
    q = q * x + float(0.10642088040084423);
    q = q * x + float(1.0);
    return p / q;
}

// ln(x e^(x^2 + 0.5625) erfc x) of 1/x^2, up to 1/0.35.
__device__ __forceinline__ float erf_tail(float x) {
    float p = float(-9.814329344169145);
    p = p * x + float(-81.2874355063066);
    p = p * x + float(-184.60509290671104);
    p = p * x + float(-162.39666946257347);
    p = p * x + float(-62.375332450326006);
    p = p * x + float(-10.558626225323291);
    p = p * x + float(-0.6938585727071818);
    p = p * x + float(-0.009864944034847148);
    float q = float(-0.0604244152148581);
    q = q * x + float(6.570249770319282);
    q = q * x + float(108.63500554177944);
    q = q * x + float(429.00814002756783);
    q = q * x + float(645.3872717332679);
    q = q * x + float(434.56587747522923);
    q = q * x + float(137.65775414351904);
    q = q * x + float(19.651271667439257);
    q = q * x + float(1.0);
    return p / q;
}

// The same from there on.
__device__ __forceinline__ float erf_far_tail(float x) {
    float p = float(-483.5191916086514);
    p = p * x + float(-1025.0951316110772);
    p = p * x + float(-637.5664433683896);
    p = p * x + float(-160.63638485582192);
    p = p * x + float(-17.757954917754752);
    p = p * x + float(-0.799283237680523);
    p = p * x + float(-0.0098649429247001);
    float q = float(-22.44095244658582);
    q = q * x + float(474.52854120695537);
    q = q * x + float(2553.0504064331644);
    q = q * x + float(3199.8582195085955);
    q = q * x + float(1536.729586084437);
    q = q * x + float(325.7925129965739);
    q = q * x + float(30.33806074348246);
    q = q * x + float(1.0);
    return p / q;
}

// erfc of x >= 1.25.
__device__ __forceinline__ float erfc_tail(float x) {
    x = x > 30.0f ? 30.0f : x;
    float s = 1.0f / (x * x);
    float exponent = x < float(1.0 / 0.35) ? erf_tail(s) : erf_far_tail(s);
    float high = upper_half(x), rest = (high - x) * (high + x) + (exponent - 0.5625f);
    return exp_f32(-(high * high)) * exp_f32(rest) / x;
}

// erf x and erfc x = 1 - erf x, each without cancellation.
__device__ __forceinline__ void erf_erfc(float x, float& erf, float& erfc) {
    const float one = float(0.8450629115104675);
    float a = fabsf(x), small = x * erf_near_0(x * x);
    if (a < 0.84375f) {
        erf = x + small;
        erfc = x < 0.25f ? 1.0f - (x + small) : 0.5f - (small + (x - 0.5f));
        return;
    }
    if (a < 1.25f) {
        float middle = erf_near_1(a - 1.0f);
        erf = one + middle, erfc = (1.0f - one) - middle;
    } else {
        erfc = x != x ? x : erfc_tail(a);
        erf = 1.0f - erfc;
    }
    erfc = x < 0.0f ? 1.0f + erf : erfc;
    erf = copysignf(erf, x);
}

__device__ __forceinline__ float erf_f32(float x) {
    float erf, erfc;
    erf_erfc(x, erf, erfc);
    return erf;
}

__device__ __forceinline__ float erfc_f32(float x) {
    float erf, erfc;
    erf_erfc(x, erf, erfc);
    return erfc;
}

// ln x of a positive number in two parts: with s = f / (2 + f), ln m = s (2 + R).
__device__ __forceinline__ void long_log(float x, float& high, float& low) {
    const u32 root = 0x3F3504F3u, one = 0x3F800000u;
    bool raised = x < 1.17549435e-38f;
    u32 bits = __float_as_uint(raised ? x * 18446744073709551616.0f : x) + (one - root);
    float k = __uint_as_float(__float_as_uint(SHIFT) + ((bits >> 23) - 127u)) - SHIFT;
    float f = __uint_as_float((bits & 0x7FFFFFu) + root) - 1.0f;
    k = raised ? k - 64.0f : k;
    float t = 2.0f + f, s = f / t, p = s * t;
    float lost = ((f - p) - product_error(s, t, p)) - s * (f - (t - 2.0f));
    float s2 = s * s, sum = float(2.0 / 9.0);
    sum = sum * s2 + float(2.0 / 7.0);
    sum = sum * s2 + float(2.0 / 5.0);
    sum = sum * s2 + float(2.0 / 3.0);
    float rest = s2 * sum, whole = k * 0.693359375f, twice = s + s;
    float both = whole + twice, error = twice - (both - whole);
    float small = error + (k * -2.1219444e-4f + (s * rest + (lost + lost) / t));
    high = both + small;
    low = small - (high - both);
}

// How x >= 0 rounds to a whole number.
__device__ __forceinline__ float whole(float x) { return x < 8388608.0f ? (x + 8388608.0f) - 8388608.0f : x; }

// x^y for x >= 0 or a whole y, else NaN; x^0 = 1^y = 1. By e^(y ln |x|), the exponent in two parts.
__device__ __forceinline__ float pow_f32(float x, float y) {
    float a = fabsf(x), high, low;
    long_log(a, high, low);
    bool plain = a == 0.0f || !(a < INFINITE);
    high = plain ? log_f32(a) : high;
    float exponent = strong_mul(y, high);
    bool inside = exponent < 89.0f && exponent > -104.0f && high != 0.0f && !plain;
    low = inside ? product_error(y, high, exponent) + y * low : 0.0f;
    float power = exp_f32(exponent);
    power = power < INFINITE ? power + power * low : power;
    float size = fabsf(y), half = 0.5f * size;
    power = whole(size) == size && whole(half) != half ? copysignf(power, x) : power;
    return x < 0.0f && whole(size) != size && a < INFINITE ? __uint_as_float(0x7FC00000u) : power;
}
