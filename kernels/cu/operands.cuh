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

    __device__ __forceinline__ u32 row_of(u32 i) const { return i; }
};

// A convolution's numbers: x [n, h, w, c], weight [out, window_h, window_w, c], y [n, out_h, out_w, out].
//
//     for all n, i, j, o, di, dj, c:
//         forward:  y[n][i][j][o] += x[n][y][x][c] * weight[o][di][dj][c]
//         input:    x[n][y][x][c] += y[n][i][j][o] * weight[o][di][dj][c]
//         weight:   weight[o][di][dj][c] += x[n][y][x][c] * y[n][i][j][o]
//     with y = i * stride_y - pad_y + di and x = j * stride_x - pad_x + dj, where these are inside the image
//
// With respect to the input, pixels of x fall into classes by y % stride_y and x % stride_x: those of a class are
// reached by the same positions. There are classes_x of them along a row; a class has at most class_h × class_w pixels
// of an image, and taps_w positions in a row of the window.
struct Geometry {
    Divisor w, h, c, out_w, out_h, out, window_w, stride_y, stride_x, class_w, class_h, taps_w;
    u32 window_h, pad_y, pad_x, classes_x;
};
static_assert(sizeof(Geometry) == 160, "as on the host");

// A row or column that is in no image, whatever is added to it.
constexpr u32 FAR = 1u << 30;

// A pixel of the outer index, or a tap: window position and channel. An element's place is the sum of both; what
// is left of or above the image is a large number.
struct Spot {
    u32 offset, y, x;
};

// For every pixel of y, the patch of x that it is made of.
struct Patches {
    const float* start;
    Geometry g;
    u32 pixels, taps;

    __device__ __forceinline__ bool vectors() const { return vectors_of(start, g.c.divisor); }

    __device__ __forceinline__ Spot pixel(u32 i) const {
        const bool there = i < pixels;
        u32 x = split(i, g.out_w) * g.stride_x.divisor - g.pad_x;
        u32 y = split(i, g.out_h) * g.stride_y.divisor - g.pad_y;
        return {((i * g.h.divisor + y) * g.w.divisor + x) * g.c.divisor, there ? y : FAR, x};
    }

    __device__ __forceinline__ Spot tap(u32 i) const {
        const bool there = i < taps;
        u32 channel = split(i, g.c), x = split(i, g.window_w);
        return {(i * g.w.divisor + x) * g.c.divisor + channel, there ? i : FAR, x};
    }

    __device__ __forceinline__ u32 find(const Spot& pixel, const Spot& tap) const {
        bool inside = pixel.y + tap.y < g.h.divisor && pixel.x + tap.x < g.w.divisor;
        return inside ? pixel.offset + tap.offset : OUTSIDE;
    }
};

// Pixels across, taps along the inner index.
struct PixelRows : Patches {
    static constexpr bool K_FAST = true;
    typedef Spot Outer, Inner;

    __device__ __forceinline__ Spot outer(u32 i) const { return pixel(i); }
    __device__ __forceinline__ Spot inner(u32 k) const { return tap(k); }
    __device__ __forceinline__ u32 row_of(u32 i) const { return i; }
};

// Taps across, pixels along the inner index.
struct PixelColumns : Patches {
    static constexpr bool K_FAST = false;
    typedef Spot Outer, Inner;

    __device__ __forceinline__ Spot outer(u32 i) const { return tap(i); }
    __device__ __forceinline__ Spot inner(u32 k) const { return pixel(k); }
    __device__ __forceinline__ u32 find(const Spot& tap, const Spot& pixel) const { return Patches::find(pixel, tap); }
};

// Along one axis, the pixels of x in the class of pixel `first`: pixel i of them is brought by the window's position
// position + p · stride to row or column from + i - p of y.
struct ClassAxis {
    u32 from, position;

    __device__ __forceinline__ ClassAxis(u32 first, Divisor stride, u32 pad) : from(first + pad) {
        position = split(from, stride);
    }

    // Its row or column in x.
    __device__ __forceinline__ u32 pixel(u32 i, Divisor stride, u32 pad) const {
        return (from + i) * stride.divisor + position - pad;
    }
};

// Pixels of x of a class, across; what of y they went into, along the inner index: positions of the class and
// channels of y.
struct ClassRows {
    static constexpr bool K_FAST = true;
    typedef Spot Outer, Inner;
    const float* start;
    Geometry g;
    u32 pixels, taps;
    ClassAxis y, x;

    __device__ __forceinline__ bool vectors() const { return vectors_of(start, g.out.divisor); }

    __device__ __forceinline__ Spot outer(u32 i) const {
        const bool there = i < pixels;
        u32 column = split(i, g.class_w) + x.from, row = split(i, g.class_h) + y.from;
        return {((i * g.out_h.divisor + row) * g.out_w.divisor + column) * g.out.divisor, there ? row : FAR, column};
    }

    __device__ __forceinline__ Spot inner(u32 k) const {
        const bool before_end = k < taps;
        u32 channel = split(k, g.out), column = split(k, g.taps_w);
        bool there = before_end && y.position + k * g.stride_y.divisor < g.window_h &&
                     x.position + column * g.stride_x.divisor < g.window_w.divisor;
        return {channel - (k * g.out_w.divisor + column) * g.out.divisor, there ? 0 - k : FAR, 0 - column};
    }

    __device__ __forceinline__ u32 find(const Spot& pixel, const Spot& tap) const {
        bool inside = pixel.y + tap.y < g.out_h.divisor && pixel.x + tap.x < g.out_w.divisor;
        return inside ? pixel.offset + tap.offset : OUTSIDE;
    }

    // The pixel's number in x; OUTSIDE if the class has fewer.
    __device__ __forceinline__ u32 row_of(u32 i) const {
        u32 column = x.pixel(split(i, g.class_w), g.stride_x, g.pad_x);
        u32 row = y.pixel(split(i, g.class_h), g.stride_y, g.pad_y);
        return row < g.h.divisor && column < g.w.divisor ? (i * g.h.divisor + row) * g.w.divisor + column : OUTSIDE;
    }
};

// The weight with its output channels along the inner index: element (channel, k = (position of the class, output)).
struct TurnedWeight {
    static constexpr bool K_FAST = false;
    typedef u32 Outer, Inner;
    const float* start;
    Geometry g;
    u32 elements, y, x;  // y, x: the class's first position

    __device__ __forceinline__ bool vectors() const { return vectors_of(start, g.c.divisor); }

    __device__ __forceinline__ u32 outer(u32 i) const { return i >= g.c.divisor ? OUTSIDE : i; }

    __device__ __forceinline__ u32 inner(u32 k) const {
        const bool before_end = k < elements;
        u32 output = split(k, g.out), column = split(k, g.taps_w) * g.stride_x.divisor + x;
        u32 row = k * g.stride_y.divisor + y;
        bool there = before_end && row < g.window_h && column < g.window_w.divisor;
        return there ? ((output * g.window_h + row) * g.window_w.divisor + column) * g.c.divisor : OUTSIDE;
    }

    __device__ __forceinline__ u32 find(u32 outer, u32 inner) const {
        return (outer | inner) & OUTSIDE ? OUTSIDE : outer + inner;
    }
};

// What is known of the inner indices k … k + 3, where k is a multiple of 4.
template <class Operand>
__device__ __forceinline__ void inner_four(const Operand& operand, u32 k, typename Operand::Inner (&to)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = operand.inner(k + i);
}

// If outputs come in fours, four are at one position, and all or none of them exist.
__device__ __forceinline__ void inner_four(const TurnedWeight& operand, u32 k, u32 (&to)[4]) {
    if (operand.g.out.divisor % 4 != 0) return inner_four<TurnedWeight>(operand, k, to);
    const u32 output = operand.g.window_h * operand.g.window_w.divisor * operand.g.c.divisor;
    to[0] = operand.inner(k);
#pragma unroll
    for (int i = 1; i < 4; ++i) to[i] = to[i - 1] + output;
}
