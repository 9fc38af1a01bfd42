// The two matrices of a product, as they lie in memory: four neighbouring elements at a time.
//
// A matrix product's operand is a pair of strides. Those of a convolution are patches of an image that are
// never written down (implicit GEMM): the inner index of the product counts window positions and channels, or
// pixels. `quad(outer, k, v)` reads elements (outer, k…k+3) if `k_fast()`, else (outer…outer+3, k); what lies
// outside is zero.
#pragma once
#include "common.cuh"

__device__ __forceinline__ void four(const float* here, bool aligned, float (&v)[4]) {
    if (aligned && (reinterpret_cast<u64>(here) & 15) == 0) {
        float4 x = *reinterpret_cast<const float4*>(here);
        v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) v[i] = here[i];
    }
}

// Element (outer, k) lies at outer · outer_stride + k · k_stride, one of which is 1.
struct Strided {
    const float* start;
    u32 outers, ks, outer_stride, k_stride;

    __device__ __forceinline__ bool k_fast() const { return k_stride == 1; }

    __device__ __forceinline__ void quad(u32 outer, u32 k, float (&v)[4]) const {
        v[0] = v[1] = v[2] = v[3] = 0.0f;
        if (outer >= outers || k >= ks) return;
        const float* here = start + u64(outer) * outer_stride + u64(k) * k_stride;
        u32 left = k_fast() ? ks - k : outers - outer;
        if (left >= 4) return four(here, true, v);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) v[i] = i < left ? here[i] : 0.0f;
    }
};

// A convolution's numbers: x [n, h, w, c], weight [out, window_h, window_w, c], y [n, out_h, out_w, out].
struct Geometry {
    Divisor w, h, c, out_w, out_h, out, window_w, stride_y, stride_x;
    u32 window_h, pad_y, pad_x;
};

// Patches of x: one pixel of y across, window positions and channels along.
struct Patches {
    const float* x;
    Geometry g;
    u32 pixels, elements;

    __device__ __forceinline__ void quad(u32 pixel, u32 element, float (&v)[4]) const {
        v[0] = v[1] = v[2] = v[3] = 0.0f;
        if (pixel >= pixels) return;
        i32 column = i32(split(pixel, g.out_w) * g.stride_x.divisor) - i32(g.pad_x);
        i32 row = i32(split(pixel, g.out_h) * g.stride_y.divisor) - i32(g.pad_y);
        if (g.c.divisor % 4 == 0) {
            if (element >= elements) return;
            const float* here = find(pixel, row, column, element);
            if (here) four(here, true, v);
        } else {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const float* here = element + i < elements ? find(pixel, row, column, element + i) : nullptr;
                if (here) v[i] = *here;
            }
        }
    }

    __device__ __forceinline__ const float* find(u32 image, i32 row, i32 column, u32 element) const {
        u32 channel = split(element, g.c), x_of = split(element, g.window_w);
        u32 py = u32(row + i32(element)), px = u32(column + i32(x_of));
        if (py >= g.h.divisor || px >= g.w.divisor) return nullptr;
        return x + (u64(image * g.h.divisor + py) * g.w.divisor + px) * g.c.divisor + channel;
    }
};

struct PatchRows : Patches {
    __device__ __forceinline__ bool k_fast() const { return true; }
};

struct PatchColumns : Patches {
    __device__ __forceinline__ bool k_fast() const { return false; }
    __device__ __forceinline__ void quad(u32 element, u32 pixel, float (&v)[4]) const {
        Patches::quad(pixel, element, v);
    }
};

// For every pixel of x, what of y it was multiplied into: window positions and output channels along.
struct Origins {
    const float* y;
    Geometry g;
    u32 pixels, elements;

    __device__ __forceinline__ bool k_fast() const { return true; }

    __device__ __forceinline__ void quad(u32 pixel, u32 element, float (&v)[4]) const {
        v[0] = v[1] = v[2] = v[3] = 0.0f;
        if (pixel >= pixels) return;
        u32 column = split(pixel, g.w) + g.pad_x, row = split(pixel, g.h) + g.pad_y;
        if (g.out.divisor % 4 == 0) {
            if (element >= elements) return;
            const float* here = find(pixel, row, column, element);
            if (here) four(here, true, v);
        } else {
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const float* here = element + i < elements ? find(pixel, row, column, element + i) : nullptr;
                if (here) v[i] = *here;
            }
        }
    }

    __device__ __forceinline__ const float* find(u32 image, u32 row, u32 column, u32 element) const {
        u32 channel = split(element, g.out), x_of = split(element, g.window_w);
        if (element > row || x_of > column) return nullptr;
        u32 py = row - element, px = column - x_of;
        if (split(py, g.stride_y) != 0 || split(px, g.stride_x) != 0) return nullptr;
        if (py >= g.out_h.divisor || px >= g.out_w.divisor) return nullptr;
        return y + (u64(image * g.out_h.divisor + py) * g.out_w.divisor + px) * g.out.divisor + channel;
    }
};

// The weight with its output channels along the inner index: element (channel, k = (position, output)).
struct TurnedWeight {
    const float* weight;
    Geometry g;
    u32 elements;

    __device__ __forceinline__ bool k_fast() const { return false; }

    __device__ __forceinline__ void quad(u32 channel, u32 k, float (&v)[4]) const {
        v[0] = v[1] = v[2] = v[3] = 0.0f;
        u32 channels = g.c.divisor;
        if (channel >= channels || k >= elements) return;
        u32 output = split(k, g.out), positions = g.window_h * g.window_w.divisor;
        const float* here = weight + u64(output * positions + k) * channels + channel;
        if (channels - channel >= 4) return four(here, true, v);
#pragma unroll
        for (u32 i = 0; i < 4; ++i) v[i] = i < channels - channel ? here[i] : 0.0f;
    }
};
