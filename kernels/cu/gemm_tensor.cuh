// A tile of C on tensor cores, with f32 sums: four warps have a quarter of its rows each, in steps of mma.sync m16n8k8
// (tf32) or m16n8k16 (bf16). fragments.cuh says which lane has what.
#pragma once
#include "fragments.cuh"

// Blocks on a multiprocessor at once, for the three sizes of tiles.
constexpr int LARGE = 2, TALL = 3, SMALL = 4, SMALL_WEIGHT = 4;

constexpr int THREADS = 128;

__device__ __forceinline__ void multiply_add(float (&d)[4], const u32 (&a)[4], float b0, float b1) {
    const u32 b[2] = {__float_as_uint(b0), __float_as_uint(b1)};
#ifdef GEMM_BF16
    mma_bf16(d, a, b);
#else
    mma_tf32(d, a, b);
#endif
}

template <int BM, int BN, class A, class B>
__device__ __forceinline__ void tile(const u64* slots, const GemmArgs& args, const Place& place, const A& a,
                                     const B& b) {
    // Sixteens of inner indices in a stage: two where registers allow.
    constexpr int DEPTH = BM + BN > 128 ? 1 : 2;
    typedef Loader<THREADS, BM, DEPTH, A> Left;
    typedef Loader<THREADS, BN, DEPTH, B> Right;
    constexpr int ROWS = Left::SLOTS, COLUMNS = BN / 16;  // of a warp, in sixteens
    __shared__ float4 stages[2][DEPTH * COLUMNS * STEPS * 32];
    const u32 lane = threadIdx.x % 32;
    Left of_a(a, place.row);
    Right of_b(b, place.column);
    float sums[ROWS][COLUMNS][2][4] = {};
    of_a.load(place.begin);
    of_b.load(place.begin);
    of_b.store(stages[0]);
    __syncthreads();
    u32 stage = 0;
    for (u32 k = place.begin; k < place.end; stage ^= 1) {
        u32 left[DEPTH * STEPS][ROWS][4];
#pragma unroll
        for (int step = 0; step < DEPTH * STEPS; ++step) {
#pragma unroll
            for (int i = 0; i < ROWS; ++i) {
                u32 w[4];
                of_a.words(step / STEPS, i, step % STEPS, w);
                left[step][i][0] = w[0], left[step][i][1] = w[2], left[step][i][2] = w[1], left[step][i][3] = w[3];
            }
        }
        k += DEPTH * 16;
        const bool more = k < place.end;
        if (more) {
            of_a.load(k);
            of_b.load(k);
        }
#pragma unroll
        for (int step = 0; step < DEPTH * STEPS; ++step) {
            const u32 first = (step / STEPS * COLUMNS * STEPS + step % STEPS) * 32 + quad_of(lane / 4, lane % 4);
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) {
                const float4 right = stages[stage][first + j * STEPS * 32];
#pragma unroll
                for (int i = 0; i < ROWS; ++i) {
                    multiply_add(sums[i][j][0], left[step][i], right.x, right.y);
                    multiply_add(sums[i][j][1], left[step][i], right.z, right.w);
                }
            }
        }
        if (more) of_b.store(stages[stage ^ 1]);
        __syncthreads();
    }
    const Place here(args, BM, BN, place.round);
    const Result result(slots, args, here);
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const u32 row = a.row_of(here.row + of_a.outer(i) + half);
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) {
                const float(&even)[4] = sums[i][j][0], (&odd)[4] = sums[i][j][1];
                float4 x = make_float4(even[2 * half], odd[2 * half], even[2 * half + 1], odd[2 * half + 1]);
                result.put(row, here.column + j * 16 + lane % 4 * 4, x);
            }
        }
    }
}
