// Products C [m, n] = A · B of operands as `operands.cuh` reads them: matrix products and convolutions.
//
//     for (i = 0; i < m; ++i)
//         for (j = 0; j < n; ++j)
//             sum = 0;
//             for (p = 0; p < k; ++p) sum += A[i][p] * B[p][j];
//             C[i][j] = accumulate ? C[i][j] + sum : sum;
//
// Launch: a block per tile of C, per batch entry, per split of the inner index; flattened to one grid
// dimension, tiles of one column of tiles next to each other so that they share B in the L2 cache. 128 threads
// on tensor cores (mma.sync), 256 to 512 where warpgroups multiply (wgmma), 256 without. A tile's part of A and B goes through shared memory (fragments.cuh, in exact f32
// stages.cuh): vectors of memory where neighbours lie so, single elements at odd sizes and for patches whose
// channels do not come in fours. C is written in vectors of 16 bytes where n and its address allow. With splits,
// every split writes its partial C to the workspace and gemm_combine adds them in their order: deterministic,
// no atomics. How the inner index is split follows from m, n, k, batch alone.
//
// The sum of a pair of products of equal shapes is one launch, too: a block forms its tile of the first, writes
// it, and adds that of the second; with splits, each product has blocks of its own, and gemm_combine adds
// the two sums. Either way the bits are those of a product followed by one that accumulates.
//
// A convolution with respect to the input is a product for each class of pixels (operands.cuh): with a step of 2, four
// of a quarter of the work each.
//
// FLOPs: 2·m·n·k for each product. Bytes of memory: A n/BN times, B m/BM times (through L2), C once, partial
// products twice. Bytes of shared memory, per 16 inner indices of a tile: in exact f32 (BM + BN)·64 written; on tensor
// cores, where A's part stays in registers, BN·64 written and four times that read (in bf16 half of both).
#pragma once
#include "product.cuh"
#if defined(GEMM_TF32) || defined(GEMM_BF16)
#include "mma.cuh"
#else
#include "stages.cuh"
#endif

// What follows differs between precisions, and so belongs to the file that includes it.
namespace {

#if defined(GEMM_WGMMA)
#include "gemm_wgmma.cuh"
#elif defined(GEMM_TF32) || defined(GEMM_BF16)
#include "gemm_tensor.cuh"
#else
#include "gemm_fp32.cuh"
#endif

template <int BM, int BN, bool TRANSPOSE_A, bool TRANSPOSE_B>
__device__ __forceinline__ void matmul(const u64* slots, const GemmArgs& args, const Place& place) {
    u64 a_size = u64(args.m) * args.k, b_size = u64(args.k) * args.n;
    Strided<!TRANSPOSE_A> a = {place.a(slots, args) + place.batch * a_size, args.m, place.end,
                               TRANSPOSE_A ? args.m : args.k};
    Strided<TRANSPOSE_B> b = {place.b(slots, args) + place.batch * b_size, args.n, place.end,
                              TRANSPOSE_B ? args.k : args.n};
    tile<BM, BN>(slots, args, place, a, b);
}

template <int BM, int BN>
__device__ __forceinline__ void matmul_nn(const u64* slots, const GemmArgs& args, const Place& place) {
    matmul<BM, BN, false, false>(slots, args, place);
}

template <int BM, int BN>
__device__ __forceinline__ void matmul_nt(const u64* slots, const GemmArgs& args, const Place& place) {
    matmul<BM, BN, false, true>(slots, args, place);
}

template <int BM, int BN>
__device__ __forceinline__ void matmul_tn(const u64* slots, const GemmArgs& args, const Place& place) {
    matmul<BM, BN, true, false>(slots, args, place);
}

template <int BM, int BN>
__device__ __forceinline__ void matmul_tt(const u64* slots, const GemmArgs& args, const Place& place) {
    matmul<BM, BN, true, true>(slots, args, place);
}

template <int BM, int BN>
__device__ __forceinline__ void conv_forward(const u64* slots, const GemmArgs& args, const Place& place) {
    PixelRows a = {{images(slots, args, place), args.geometry, args.m, place.end}};
    Strided<true> b = {weight(slots, args, place), args.n, place.end, args.k};
    tile<BM, BN>(slots, args, place, a, b);
}

template <int BM, int BN>
__device__ __forceinline__ void conv_input(const u64* slots, const GemmArgs& args, const Place& place) {
    const Geometry& g = args.geometry;
    const ClassAxis y(place.of_class / g.classes_x, g.stride_y, g.pad_y);
    const ClassAxis x(place.of_class % g.classes_x, g.stride_x, g.pad_x);
    ClassRows a = {images(slots, args, place), g, args.rows, place.end, y, x};
    TurnedWeight b = {weight(slots, args, place), g, place.end, y.position, x.position};
    tile<BM, BN>(slots, args, place, a, b);
}

template <int BM, int BN>
__device__ __forceinline__ void conv_weight(const u64* slots, const GemmArgs& args, const Place& place) {
    Strided<false> a = {place.b(slots, args) + place.batch * (args.k * args.m), args.m, place.end, args.m};
    PixelColumns b = {{images(slots, args, place), args.geometry, place.end, args.n}};
    tile<BM, BN>(slots, args, place, a, b);
}

}  // namespace

#define GEMM(name, body, BM, BN, threads, blocks) \
    KERNEL(threads, blocks, name, GemmArgs) { \
        for (u32 round = 0; round < args.rounds; ++round) { \
            if (round > 0) __syncthreads(); /* the stages are free again */ \
            body<BM, BN>(slots, args, Place(args, BM, BN, round)); \
        } \
    } \
    EXPORT(name)

#ifdef GEMM_WGMMA
// Two threads for a row, 128 for B.
#define SMALLER_TILES(name, precision) \
    GEMM(name##_wide_##precision, name, 128, 128, 384, 1) \
    GEMM(name##_tall_##precision, name, 192, 64, 512, 1) \
    GEMM(name##_small_##precision, name, 64, 64, 256, 2)
// Registers for the largest would spill in conv_weight.
#define TILES(name, precision, small) \
    GEMM(name##_large_##precision, name, 192, 128, 512, 1) \
    SMALLER_TILES(name, precision)
#define WEIGHT_TILES SMALLER_TILES
#else
#define TILES(name, precision, small) \
    GEMM(name##_large_##precision, name, 128, 128, THREADS, LARGE) \
    GEMM(name##_tall_##precision, name, 128, 64, THREADS, TALL) \
    GEMM(name##_small_##precision, name, 64, 64, THREADS, small)
#define WEIGHT_TILES(name, precision) TILES(name, precision, SMALL_WEIGHT)
#endif

#define GEMMS(precision) \
    TILES(matmul_nn, precision, SMALL) \
    TILES(matmul_nt, precision, SMALL) \
    TILES(matmul_tn, precision, SMALL) \
    TILES(matmul_tt, precision, SMALL) \
    TILES(conv_forward, precision, SMALL) \
    TILES(conv_input, precision, SMALL) \
    WEIGHT_TILES(conv_weight, precision)
