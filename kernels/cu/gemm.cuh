// Products C [m, n] = A · B of operands as `operands.cuh` reads them: matrix products and convolutions.
//
// Launch: a block of 256 threads per tile of C, per batch entry, per split of the inner index; flattened to
// one grid dimension, tiles of one column of tiles next to each other so that they share B in the L2 cache.
// A tile's part of A and B goes through shared memory, double buffered: the next part is on its way from
// memory in registers while this one is multiplied. With splits, every split writes its partial C to the
// workspace and gemm_combine adds them in their order: deterministic, no atomics. How the inner index is
// split follows from m, n, k, batch alone.
//
// FLOPs 2·m·n·k. Bytes: A n/BN times, B m/BM times (through L2), C once.
#pragma once
#include "mma.cuh"
#include "operands.cuh"

struct GemmArgs {
    u64 a, b, c, partials;
    u32 m, n, k, batch;
    u32 tiles_m, tiles_n, splits, depth;  // depth: inner indices of a split
    u32 accumulate, transpose_a, transpose_b, pad;
    Geometry geometry;
};
static_assert(sizeof(GemmArgs) == 200, "as on the host");

// What follows differs between precisions, and so belongs to the file that includes it.
namespace {

// Where a block works.
struct Place {
    u32 row, column, batch, split, begin, end;

    __device__ __forceinline__ Place(const GemmArgs& args, u32 rows, u32 columns) {
        u32 at = blockIdx.x;
        row = at % args.tiles_m * rows;
        at /= args.tiles_m;
        column = at % args.tiles_n * columns;
        at /= args.tiles_n;
        split = at % args.splits;
        batch = at / args.splits;
        begin = split * args.depth;
        end = begin + args.depth < args.k ? begin + args.depth : args.k;
    }
};

// Writes neighbouring elements of a row of C, or of a split's partial C.
template <int COUNT>
__device__ __forceinline__ void put(const u64* slots, const GemmArgs& args, const Place& place, u32 row,
                                    u32 column, const float (&x)[COUNT]) {
    if (row >= args.m) return;
    u64 size = u64(args.m) * args.n, first = u64(row) * args.n + column;
    float* to = args.splits > 1
                    ? at<float>(slots, args.partials) + (u64(place.batch) * args.splits + place.split) * size + first
                    : at<float>(slots, args.c) + place.batch * size + first;
    bool add = args.accumulate && args.splits == 1;
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        if (column + i < args.n) to[i] = add ? to[i] + x[i] : x[i];
    }
}

#if defined(GEMM_TF32) || defined(GEMM_BF16)
#include "gemm_tensor.cuh"
#else
#include "gemm_fp32.cuh"
#endif

template <int BM, int BN>
__device__ __forceinline__ void matmul(const u64* slots, const GemmArgs& args) {
    Place place(args, BM, BN);
    u64 a_size = u64(args.m) * args.k, b_size = u64(args.k) * args.n;
    Strided a = {at<const float>(slots, args.a) + place.batch * a_size, args.m, place.end,
                 args.transpose_a ? 1 : args.k, args.transpose_a ? args.m : 1};
    Strided b = {at<const float>(slots, args.b) + place.batch * b_size, args.n, place.end,
                 args.transpose_b ? args.k : 1, args.transpose_b ? 1 : args.n};
    tile<BM, BN>(slots, args, place, a, b);
}

template <int BM, int BN>
__device__ __forceinline__ void conv_forward(const u64* slots, const GemmArgs& args) {
    Place place(args, BM, BN);
    PatchRows a = {{at<const float>(slots, args.a), args.geometry, args.m, place.end}};
    Strided b = {at<const float>(slots, args.b), args.n, place.end, args.k, 1};
    tile<BM, BN>(slots, args, place, a, b);
}

template <int BM, int BN>
__device__ __forceinline__ void conv_input(const u64* slots, const GemmArgs& args) {
    Place place(args, BM, BN);
    Origins a = {at<const float>(slots, args.a), args.geometry, args.m, place.end};
    TurnedWeight b = {at<const float>(slots, args.b), args.geometry, place.end};
    tile<BM, BN>(slots, args, place, a, b);
}

template <int BM, int BN>
__device__ __forceinline__ void conv_weight(const u64* slots, const GemmArgs& args) {
    Place place(args, BM, BN);
    Strided a = {at<const float>(slots, args.b), args.m, place.end, 1, args.m};
    PatchColumns b = {{at<const float>(slots, args.a), args.geometry, place.end, args.n}};
    tile<BM, BN>(slots, args, place, a, b);
}

}  // namespace

#define GEMM(name, body, BM, BN, blocks) \
    KERNEL(256, blocks, name, GemmArgs) { body<BM, BN>(slots, args); } \
    EXPORT(name)

#define TILES(name, body, precision) \
    GEMM(name##_large_##precision, body, 128, 128, 1) \
    GEMM(name##_tall_##precision, body, 128, 64, 2) \
    GEMM(name##_small_##precision, body, 64, 64, 3)

#define GEMMS(precision) \
    TILES(matmul, matmul, precision) \
    TILES(conv_forward, conv_forward, precision) \
    TILES(conv_input, conv_input, precision) \
    TILES(conv_weight, conv_weight, precision)
