// A tile of C on tensor cores, with f32 sums: 2 × 2 warps, each with a quarter of the tile, in steps of
// mma.sync m16n8k8 (tf32) or m16n8k16 (bf16). Operands are rounded on the way from shared memory.
//
// Which row, column or inner index of the tile a lane's part of an instruction stands for is ours to choose,
// as long as A, B and C agree. Of every 16 outer × 16 inner indices of A and of B, a lane takes outer 2g,
// 2g + 1 and inner 4w … 4w + 3 (g = lane / 4, w = lane % 4): vector loads from both layouts of shared memory,
// without bank conflicts (stages.cuh). For A these are rows g and g + 8 of the instruction; for B they are
// column g of two instructions, and so a lane's sums of both are four neighbours in a row of C: vector stores.
#pragma once

constexpr int THREADS = 128;
// Blocks on a multiprocessor at once, for the three sizes of tiles.
constexpr int LARGE = 2, TALL = 3, SMALL = 4, SMALL_WEIGHT = 4;

#ifdef GEMM_BF16
constexpr int PER_WORD = 2;

__device__ __forceinline__ u32 word(const float* x) { return pack_bf16(x[0], x[1]); }

__device__ __forceinline__ void multiply_add(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    mma_bf16(d, a, b);
}
#else
constexpr int PER_WORD = 1;

__device__ __forceinline__ u32 word(const float* x) { return round_tf32(x[0]); }

__device__ __forceinline__ void multiply_add(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    mma_tf32(d, a, b);
}
#endif
constexpr int WORDS = 4 / PER_WORD;

// A lane's part of 16 × 16 elements: the inner indices of its two outer ones.
struct Fragment {
    u32 words[2][WORDS];

    template <int BLOCK, bool ALONG_K>
    __device__ __forceinline__ void load(const float* stage, u32 outer) {
        const u32 lane = threadIdx.x % 32, k = lane % 4 * 4;
        float x[2][4];
        outer += lane / 4 * 2;
        if (ALONG_K) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                float4 v = *reinterpret_cast<const float4*>(stage + place_of<BLOCK, true>(outer + i, k));
                x[i][0] = v.x, x[i][1] = v.y, x[i][2] = v.z, x[i][3] = v.w;
            }
        } else {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                float2 v = *reinterpret_cast<const float2*>(stage + place_of<BLOCK, false>(outer, k + j));
                x[0][j] = v.x, x[1][j] = v.y;
            }
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int j = 0; j < WORDS; ++j) words[i][j] = word(x[i] + j * PER_WORD);
        }
    }
};

template <int BM, int BN, class A, class B>
__device__ __forceinline__ void tile(const u64* slots, const GemmArgs& args, const Place& place, const A& a,
                                     const B& b) {
    constexpr int WM = BM / 2, WN = BN / 2;
    const u32 warp = threadIdx.x / 32, row = warp / 2 * WM, column = warp % 2 * WN;
    float sums[WM / 16][WN / 16][2][4] = {};
    auto multiply = [&](const float* as, const float* bs, u32) {
        Fragment right[WN / 16];
#pragma unroll
        for (int j = 0; j < WN / 16; ++j) right[j].template load<BN, B::K_FAST>(bs, column + j * 16);
#pragma unroll
        for (int i = 0; i < WM / 16; ++i) {
            Fragment left;
            left.template load<BM, A::K_FAST>(as, row + i * 16);
#pragma unroll
            for (int k = 0; k < WORDS; k += 2) {
                const u32 l[4] = {left.words[0][k], left.words[1][k], left.words[0][k + 1], left.words[1][k + 1]};
#pragma unroll
                for (int j = 0; j < WN / 16 * 2; ++j) {
                    const u32 r[2] = {right[j / 2].words[j % 2][k], right[j / 2].words[j % 2][k + 1]};
                    multiply_add(sums[i][j / 2][j % 2], l, r);
                }
            }
        }
    };
    in_stages<THREADS, BM, BN, A::K_FAST, B::K_FAST>(a, b, place.row, place.column, place.begin, place.end, multiply);
    const Result result(slots, args, place);
    const u32 lane = threadIdx.x % 32;
    const u32 first = place.row + row + lane / 4 * 2, left = place.column + column + lane % 4 * 4;
#pragma unroll
    for (int i = 0; i < WM / 16; ++i) {
#pragma unroll
        for (int j = 0; j < WN / 16; ++j) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float(&even)[4] = sums[i][j][0], (&odd)[4] = sums[i][j][1];
                float4 x = make_float4(even[2 * half], odd[2 * half], even[2 * half + 1], odd[2 * half + 1]);
                result.put(first + i * 16 + half, left + j * 16, x);
            }
        }
    }
}
