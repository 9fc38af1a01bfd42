// A launch of a product, as all of its kernels get it: its parameters, where a block works, how C is written.
#pragma once
#include "operands.cuh"

struct GemmArgs {
    u64 a, b, second_a, second_b, c, partials;
    u32 m, n, k, accumulate;
    u32 tiles_m, tiles_n, splits, depth;  // of a class, if there are any; depth: inner indices of a split
    // Blocks per tile of C, and products that a block has one after the other. A pair has two rounds; but where
    // the inner index is split, each of its products has blocks of its own.
    u32 parts, rounds;
    u32 images, weights;  // elements that a convolution gets in a batch entry
    u32 classes, rows;    // of pixels of x, and pixels of each (operands.cuh); otherwise 1 and m
    Geometry geometry;
};
static_assert(sizeof(GemmArgs) == 264, "as on the host");

namespace {

// The block's number, read again at every call: what follows from it need not be kept in registers.
__device__ __forceinline__ u32 block_number() {
#ifdef CUDA_ON_CPU
    return blockIdx.x;
#else
    u32 number;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(number));
    return number;
#endif
}

// Where a block works, and on which of the products: made anew where it is needed.
struct Place {
    u32 row, column, of_class, batch, partial, begin, end;  // partial: number of the partial C, if there are any
    u32 round;
    bool second;

    __device__ __forceinline__ Place(const GemmArgs& args, u32 rows, u32 columns, u32 round) : round(round) {
        u32 at = block_number();
        row = at % args.tiles_m * rows;
        at /= args.tiles_m;
        column = at % args.tiles_n * columns;
        at /= args.tiles_n;
        of_class = at % args.classes;
        at /= args.classes;
        partial = at;
        u32 split = at % args.parts;
        batch = at / args.parts;
        second = round > 0 || split >= args.splits;
        begin = (split >= args.splits ? split - args.splits : split) * args.depth;
        end = begin + args.depth < args.k ? begin + args.depth : args.k;
    }

    __device__ __forceinline__ const float* a(const u64* slots, const GemmArgs& args) const {
        return at<const float>(slots, second ? args.second_a : args.a);
    }

    __device__ __forceinline__ const float* b(const u64* slots, const GemmArgs& args) const {
        return at<const float>(slots, second ? args.second_b : args.b);
    }
};

// C, or a split's partial C, as it is written: in quads of a row.
struct Result {
    float* start;
    u32 m, n;
    bool add, vectors;

    __device__ __forceinline__ Result(const u64* slots, const GemmArgs& args, const Place& place)
        : m(args.m), n(args.n), add(args.parts == 1 && (args.accumulate || place.second)) {
        u64 size = u64(m) * n;
        start = args.splits > 1 ? at<float>(slots, args.partials) + place.partial * size
                                : at<float>(slots, args.c) + place.batch * size;
        vectors = vectors_of(start, n);
    }

    __device__ __forceinline__ void put(u32 row, u32 column, float4 x) const {
        if (row >= m || column >= n) return;
        float* to = start + (row * n + column);
        if (vectors) {
            float4* here = reinterpret_cast<float4*>(to);
            if (add) x.x = here->x + x.x, x.y = here->y + x.y, x.z = here->z + x.z, x.w = here->w + x.w;
            *here = x;
        } else {
            u32 left = n - column;
            to[0] = add ? to[0] + x.x : x.x;
            if (left > 1) to[1] = add ? to[1] + x.y : x.y;
            if (left > 2) to[2] = add ? to[2] + x.z : x.z;
            if (left > 3) to[3] = add ? to[3] + x.w : x.w;
        }
    }
};

// The images that a convolution gets in a batch entry, and its weight.
__device__ __forceinline__ const float* images(const u64* slots, const GemmArgs& args, const Place& place) {
    return place.a(slots, args) + place.batch * args.images;
}

__device__ __forceinline__ const float* weight(const u64* slots, const GemmArgs& args, const Place& place) {
    return place.b(slots, args) + place.batch * args.weights;
}

}  // namespace
