// The two matrices of a product, as they lie in memory: where an element of them is.
//
// A matrix product's operand is an array with a stride. Those of a convolution are patches of an image that
// are never written down (implicit GEMM): the inner index of the product counts window positions and channels,
// or pixels. An operand says for an outer and for an inner index what there is to know about it, once for all
// elements that share it, and finds an element from both: its offset from `start`, or OUTSIDE, which stands
// for a zero. Neighbours along the inner index, if K_FAST, else along the outer one, lie next to each other;
// if `vectors()`, those of every aligned four do, at an address for vectors, and all or none of them exist.
#pragma once
#include "common.cuh"

// More than any offset: arrays have fewer than 2^31 elements.
constexpr u32 OUTSIDE = 1u << 31;

__device__ __forceinline__ bool vectors_of(const float* start, u32 fast) {
    return fast % 4 == 0 && (reinterpret_cast<u64>(start) & 15) == 0;
}

// Elements next to each other along one index, `stride` apart along the other.
template <bool ALONG_K>
struct Strided {
    static constexpr bool K_FAST = ALONG_K;
    typedef u32 Outer, Inner;
    const float* start;
    u32 outers, ks, stride;

    __device__ __forceinline__ bool vectors() const { return vectors_of(start, stride); }

    __device__ __forceinline__ u32 outer(u32 i) const { return i >= outers ? OUTSIDE : K_FAST ? i * stride : i; }

    __device__ __forceinline__ u32 inner(u32 k) const { return k >= ks ? OUTSIDE : K_FAST ? k : k * stride; }

    __device__ __forceinline__ u32 find(u32 outer, u32 inner) const {
        return (outer | inner) & OUTSIDE ? OUTSIDE : outer + inner;
    }
};

// A convolution's numbers: x [n, h, w, c], weight [out, window_h, window_w, c], y [n, out_h, out_w, out].
//
//     for all n, i, j, o, di, dj, c:
//         forward:  y[n][i][j][o] += x[n][y][x][c] * weight[o][di][dj][c]
//         input:    x[n][y][x][c] += y[n][i][j][o] * weight[o][di][dj][c]
//         weight:   weight[o][di][dj][c] += x[n][y][x][c] * y[n][i][j][o]
//     with y = i * stride_y - pad_y + di and x = j * stride_x - pad_x + dj, where these are inside the image
struct Geometry {
    Divisor w, h, c, out_w, out_h, out, window_w, stride_y, stride_x;
    u32 window_h, pad_y, pad_x;
};
static_assert(sizeof(Geometry) == 120, "as on the host");

// For every pixel of y, the patch of x that it is made of: window positions and channels of x. Or, BACK, for
// every pixel of x, what of y it went into: window positions and channels of y.
template <bool BACK>
struct Taps {
    struct Pixel {
        u32 image, y, x;
    };
    struct Tap {
        u32 y, x, channel;
    };
    const float* start;
    Geometry g;
    u32 pixels, taps;

    __device__ __forceinline__ Divisor channels() const { return BACK ? g.out : g.c; }
    __device__ __forceinline__ u32 height() const { return BACK ? g.out_h.divisor : g.h.divisor; }
    __device__ __forceinline__ u32 width() const { return BACK ? g.out_w.divisor : g.w.divisor; }
    __device__ __forceinline__ bool vectors() const { return vectors_of(start, channels().divisor); }

    __device__ __forceinline__ Pixel pixel(u32 i) const {
        if (i >= pixels) return {OUTSIDE, 0, 0};
        u32 x = split(i, BACK ? g.w : g.out_w), y = split(i, BACK ? g.h : g.out_h);
        u32 image = i * height() * width() * channels().divisor;
        if (BACK) return {image, y + g.pad_y, x + g.pad_x};
        return {image, y * g.stride_y.divisor - g.pad_y, x * g.stride_x.divisor - g.pad_x};
    }

    __device__ __forceinline__ Tap tap(u32 i) const {
        if (i >= taps) return {0, 0, OUTSIDE};
        u32 channel = split(i, channels()), x = split(i, g.window_w);
        return {BACK ? 0 - i : i, BACK ? 0 - x : x, channel};
    }

    __device__ __forceinline__ u32 find(const Pixel& pixel, const Tap& tap) const {
        // What is left of or above the image is a large number.
        u32 y = pixel.y + tap.y, x = pixel.x + tap.x;
        if ((pixel.image | tap.channel) & OUTSIDE) return OUTSIDE;
        if (BACK) {
            if ((y | x) >> 31 || (split(y, g.stride_y) | split(x, g.stride_x)) != 0) return OUTSIDE;
        }
        if (y >= height() || x >= width()) return OUTSIDE;
        return pixel.image + (y * width() + x) * channels().divisor + tap.channel;
    }
};

// Pixels across, taps along the inner index.
template <bool BACK>
struct PixelRows : Taps<BACK> {
    static constexpr bool K_FAST = true;
    typedef typename Taps<BACK>::Pixel Outer;
    typedef typename Taps<BACK>::Tap Inner;

    __device__ __forceinline__ Outer outer(u32 i) const { return this->pixel(i); }
    __device__ __forceinline__ Inner inner(u32 k) const { return this->tap(k); }
};

// Taps across, pixels along the inner index.
struct PixelColumns : Taps<false> {
    static constexpr bool K_FAST = false;
    typedef Tap Outer;
    typedef Pixel Inner;

    __device__ __forceinline__ Tap outer(u32 i) const { return tap(i); }
    __device__ __forceinline__ Pixel inner(u32 k) const { return pixel(k); }
    __device__ __forceinline__ u32 find(const Tap& tap, const Pixel& pixel) const {
        return Taps<false>::find(pixel, tap);
    }
};

// The weight with its output channels along the inner index: element (channel, k = (position, output)).
struct TurnedWeight {
    static constexpr bool K_FAST = false;
    typedef u32 Outer, Inner;
    const float* start;
    Geometry g;
    u32 elements;

    __device__ __forceinline__ bool vectors() const { return vectors_of(start, g.c.divisor); }

    __device__ __forceinline__ u32 outer(u32 i) const { return i >= g.c.divisor ? OUTSIDE : i; }

    __device__ __forceinline__ u32 inner(u32 k) const {
        if (k >= elements) return OUTSIDE;
        u32 output = split(k, g.out);
        return (output * g.window_h * g.window_w.divisor + k) * g.c.divisor;
    }

    __device__ __forceinline__ u32 find(u32 outer, u32 inner) const {
        return (outer | inner) & OUTSIDE ? OUTSIDE : outer + inner;
    }
};
