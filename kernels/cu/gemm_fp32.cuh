// A tile of C in exact f32: every thread keeps TM × TN sums in registers, in groups of four so that shared
// memory is read as vectors and without bank conflicts.
//
// A sum of more than CHAIN terms is a sum of chains, which begin at multiples of CHAIN and are complete before they are
// added: the rounding error grows with the number of chains, not of terms. The processor cuts its sums alike
// (microkernel.rs).
#pragma once

// Terms of a chain.
constexpr int CHAIN = 256;

constexpr int THREADS = 256;
// Blocks on a multiprocessor at once, for the three sizes of tiles; with a third of a convolution's weight, registers
// would spill.
constexpr int LARGE = 1, TALL = 2, SMALL = 3, SMALL_WEIGHT = 2;

// Four neighbours across, at inner index k: a quad of the stage.
template <int BLOCK>
__device__ __forceinline__ void quad(const float* stage, u32 outer, u32 k, float* x) {
    float4 v = *reinterpret_cast<const float4*>(stage + place_of<BLOCK>(outer, k));
    x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
}

template <int BM, int BN, class A, class B>
__device__ __forceinline__ void tile(const u64* slots, const GemmArgs& args, const Place& place, const A& a,
                                     const B& b) {
    constexpr int TM = BM / 16, TN = BN / 16;
    const u32 tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    float sums[TM][TN] = {}, chains[TM][TN] = {};
    auto multiply = [&](const float* as, const float* bs, u32 first) {
        if (first % CHAIN == 0) {
#pragma unroll
            for (int i = 0; i < TM; ++i) {
#pragma unroll
                for (int j = 0; j < TN; ++j) chains[i][j] += sums[i][j], sums[i][j] = 0.0f;
            }
        }
#pragma unroll
        for (int k = 0; k < BK; ++k) {
            float left[TM], right[TN];
#pragma unroll
            for (int i = 0; i < TM; i += 4) quad<BM>(as, i * 16 + ty * 4, k, left + i);
#pragma unroll
            for (int j = 0; j < TN; j += 4) quad<BN>(bs, j * 16 + tx * 4, k, right + j);
#pragma unroll
            for (int i = 0; i < TM; ++i) {
#pragma unroll
                for (int j = 0; j < TN; ++j) sums[i][j] = fmaf(left[i], right[j], sums[i][j]);
            }
        }
    };
    in_stages<THREADS, BM, BN>(a, b, place.row, place.column, place.begin, place.end, multiply);
    const Place here(args, BM, BN, place.round);
    const Result result(slots, args, here);
#pragma unroll
    for (int i = 0; i < TM; ++i) {
        const u32 row = a.row_of(here.row + i / 4 * 64 + ty * 4 + i % 4);
#pragma unroll
        for (int j = 0; j < TN; j += 4) {
            // A single chain is the sum itself, for none of them is −0.
            const float *done = chains[i] + j, *last = sums[i] + j;
            float4 x = make_float4(done[0] + last[0], done[1] + last[1], done[2] + last[2], done[3] + last[3]);
            result.put(row, here.column + j * 16 + tx * 4, x);
        }
    }
}
