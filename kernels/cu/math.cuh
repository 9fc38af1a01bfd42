// Elementary functions in f32 without a fused multiply-add: the steps, and so the bits, are those of the
// CPU's `math.rs`. Errors: exp, log 1 ulp; sigmoid, tanh 2.5 ulp.
#pragma once
#include "common.cuh"

// Adding it rounds to a whole number, which the low bits of the sum then hold.
#define SHIFT 12582912.0f

// (e^r - 1, k + SHIFT) with x = k ln 2 + r, |r| <= ln 2 / 2.
__device__ __forceinline__ float reduced_exp(float x, float& shifted) {
    shifted = x * 1.44269504f + SHIFT;
    float k = shifted - SHIFT;
    float r = (x - k * 0.693359375f) - k * -2.1219444e-4f;
    float sum = float(1.0 / 5040.0);
    sum = sum * r + float(1.0 / 720.0);
    sum = sum * r + float(1.0 / 120.0);
    sum = sum * r + float(1.0 / 24.0);
    sum = sum * r + float(1.0 / 6.0);
    sum = sum * r + 0.5f;
    return r + r * r * sum;
}

// 2^k in two factors, for the whole may be out of range.
__device__ __forceinline__ void powers(float shifted, float& p, float& q) {
    u32 k = __float_as_uint(shifted) - __float_as_uint(SHIFT) + 254u, half = k >> 1;
    p = __uint_as_float(half << 23);
    q = __uint_as_float((k - half) << 23);
}

__device__ __forceinline__ float exp_f32(float x) {
    x = x > 89.0f ? 89.0f : x;
    x = x < -104.0f ? -104.0f : x;
    float shifted, p, q, y = reduced_exp(x, shifted);
    powers(shifted, p, q);
    return (y + 1.0f) * p * q;
}

// (e^2x - 1) / (e^2x + 1), the numerator without cancellation.
__device__ __forceinline__ float tanh_f32(float x) {
    float a = fabsf(x);
    a = a > 10.0f ? 10.0f : a;
    float shifted, p, q, y = reduced_exp(a + a, shifted);
    powers(shifted, p, q);
    float power = p * q, numerator = power * y + (power - 1.0f);
    return copysignf(numerator / (numerator + 2.0f), x);
}

// By e^-|x|, so that small results keep their digits.
__device__ __forceinline__ float sigmoid_f32(float x) {
    float e = exp_f32(-fabsf(x)), numerator = x < 0.0f ? e : 1.0f;
    return numerator / (1.0f + e);
}

// ln x = k ln 2 + ln m; with f = m - 1 and s = f / (2 + f), ln m = 2 artanh s.
__device__ __forceinline__ float log_f32(float x) {
    const u32 root = 0x3F3504F3u, one = 0x3F800000u;
    bool raised = x < 1.17549435e-38f;
    u32 bits = __float_as_uint(raised ? x * 18446744073709551616.0f : x) + (one - root);
    float k = __uint_as_float(__float_as_uint(SHIFT) + ((bits >> 23) - 127u)) - SHIFT;
    float f = __uint_as_float((bits & 0x7FFFFFu) + root) - 1.0f;
    k = raised ? k - 64.0f : k;
    float s = f / (2.0f + f), s2 = s * s;
    float sum = float(2.0 / 9.0);
    sum = sum * s2 + float(2.0 / 7.0);
    sum = sum * s2 + float(2.0 / 5.0);
    sum = sum * s2 + float(2.0 / 3.0);
    float rest = s2 * sum, half = 0.5f * f * f;
    float y = k * 0.693359375f - ((half - (s * (half + rest) + k * -2.1219444e-4f)) - f);
    y = x < __uint_as_float(0x7F800000u) ? y : x;
    y = x < 0.0f ? __uint_as_float(0x7FC00000u) : y;
    return x == 0.0f ? __uint_as_float(0xFF800000u) : y;
}

// cos 2πx and sin 2πx for x in [0, 1]: by series on an eighth of a turn, then by quarters.
__device__ __forceinline__ void cos_sin_turns(float x, float& cosine, float& sine) {
    float quarters = (x * 4.0f + SHIFT) - SHIFT;
    float angle = (x - quarters / 4.0f) * 6.28318531f, square = angle * angle;
    float s = float(1.0 / 362880.0), c = float(-1.0 / 3628800.0);
    s = s * square + float(-1.0 / 5040.0);
    s = s * square + float(1.0 / 120.0);
    s = s * square + float(-1.0 / 6.0);
    s = s * square + 1.0f;
    c = c * square + float(1.0 / 40320.0);
    c = c * square + float(-1.0 / 720.0);
    c = c * square + float(1.0 / 24.0);
    c = c * square + -0.5f;
    c = c * square + 1.0f;
    s = angle * s;
    bool odd = quarters == 1.0f || quarters == 3.0f, turned = quarters == 2.0f || quarters == 3.0f;
    cosine = odd ? -s : c;
    sine = odd ? c : s;
    cosine = turned ? -cosine : cosine;
    sine = turned ? -sine : sine;
}

// Whether x is greater than the best so far: NaN is larger than all numbers, the first of equals wins.
__device__ __forceinline__ bool beats(float x, float best) {
    return x > best || (x != x && best == best);
}
