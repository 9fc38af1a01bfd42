// A tile of C on tensor cores, with f32 sums: 2 × 2 warps, each with a quarter of the tile, in steps of mma.sync
// m16n8k8 (tf32) or m16n8k16 (bf16). fragments.cuh says which lane has what.
#pragma once
#include "fragments.cuh"

// Blocks on a multiprocessor at once, for the three sizes of tiles.
constexpr int LARGE = 2, TALL = 3, SMALL = 4, SMALL_WEIGHT = 4;

__device__ __forceinline__ void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    const u32 b[2] = {b0, b1};
#ifdef GEMM_BF16
    mma_bf16(d, a, b);
#else
    mma_tf32(d, a, b);
#endif
}

template <int BM, int BN, class A, class B>
__device__ __forceinline__ void tile(const u64* slots, const GemmArgs& args, const Place& place, const A& a,
                                     const B& b) {
    constexpr int WM = BM / 32, WN = BN / 32;  // of a warp's part, in sixteens
    // Sixteens of inner indices in a stage: two where registers allow.
    constexpr int DEPTH = BM + BN > 128 ? 1 : 2;
    __shared__ float4 as[2][DEPTH * BM / 16 * STEPS * 32];
    __shared__ float4 bs[2][DEPTH * BN / 16 * STEPS * 32];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = warp / 2 * WM, column = warp % 2 * WN;
    const u32 own = quad_of(lane / 4, lane % 4);
    Loader<BM, DEPTH, true, A> of_a(a, place.row);
    Loader<BN, DEPTH, false, B> of_b(b, place.column);
    float sums[WM][WN][2][4] = {};
    of_a.load(place.begin);
    of_b.load(place.begin);
    of_a.store(as[0]);
    of_b.store(bs[0]);
    __syncthreads();
    u32 stage = 0;
    for (u32 k = place.begin; k < place.end; stage ^= 1) {
        k += DEPTH * 16;
        const bool more = k < place.end;
        if (more) {
            of_a.load(k);
            of_b.load(k);
        }
#pragma unroll
        for (int step = 0; step < DEPTH * STEPS; ++step) {
            const float4* left = as[stage] + (step / STEPS * (BM / 16) * STEPS + step % STEPS) * 32 + own;
            const float4* right = bs[stage] + (step / STEPS * (BN / 16) * STEPS + step % STEPS) * 32 + own;
            float4 r[WN];
#pragma unroll
            for (int j = 0; j < WN; ++j) r[j] = right[(column + j) * STEPS * 32];
#pragma unroll
            for (int i = 0; i < WM; ++i) {
                const float4 v = left[(row + i) * STEPS * 32];
                const u32 l[4] = {__float_as_uint(v.x), __float_as_uint(v.y), __float_as_uint(v.z),
                                  __float_as_uint(v.w)};
#pragma unroll
                for (int j = 0; j < WN; ++j) {
                    multiply_add(sums[i][j][0], l, __float_as_uint(r[j].x), __float_as_uint(r[j].y));
                    multiply_add(sums[i][j][1], l, __float_as_uint(r[j].z), __float_as_uint(r[j].w));
                }
            }
        }
        if (more) {
            of_a.store(as[stage ^ 1]);
            of_b.store(bs[stage ^ 1]);
        }
        __syncthreads();
    }
    const Result result(slots, args, place);
    const u32 first = place.row + row * 16 + lane / 4 * 2, left = place.column + column * 16 + lane % 4 * 4;
#pragma unroll
    for (int i = 0; i < WM; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const u32 at = a.row_of(first + i * 16 + half);
#pragma unroll
            for (int j = 0; j < WN; ++j) {
                const float(&even)[4] = sums[i][j][0], (&odd)[4] = sums[i][j][1];
                float4 x = make_float4(even[2 * half], odd[2 * half], even[2 * half + 1], odd[2 * half + 1]);
                result.put(at, left + j * 16, x);
            }
        }
    }
}
