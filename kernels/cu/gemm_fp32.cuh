// A tile of C in exact f32: every thread keeps TM × TN sums in registers, in groups of four so that shared
// memory is read as vectors and without bank conflicts.
#pragma once

template <int BM, int BN, class A, class B>
__device__ __forceinline__ void tile(const u64* slots, const GemmArgs& args, const Place& place, const A& a,
                                     const B& b) {
    constexpr int BK = 1024 / (BM > BN ? BM : BN), TM = BM / 16, TN = BN / 16;
    __shared__ __align__(16) float as[2][BK][BM + 4];
    __shared__ __align__(16) float bs[2][BK][BN + 4];
    const u32 t = threadIdx.x, tx = t % 16, ty = t / 16;
    // The quads of A and of B that this thread brings.
    const bool a_has = t < BM * BK / 4, b_has = t < BN * BK / 4;
    const u32 a_outer = a.k_fast() ? t / (BK / 4) : t % (BM / 4) * 4, a_k = a.k_fast() ? t % (BK / 4) * 4 : t / (BM / 4);
    const u32 b_outer = b.k_fast() ? t / (BK / 4) : t % (BN / 4) * 4, b_k = b.k_fast() ? t % (BK / 4) * 4 : t / (BN / 4);
    float a_next[4], b_next[4], sums[TM][TN] = {};

    auto fetch = [&](u32 k) {
        if (a_has) a.quad(place.row + a_outer, k + a_k, a_next);
        if (b_has) b.quad(place.column + b_outer, k + b_k, b_next);
    };
    auto stage = [&](u32 buffer) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (a_has && a.k_fast()) as[buffer][a_k + i][a_outer] = a_next[i];
            if (a_has && !a.k_fast()) as[buffer][a_k][a_outer + i] = a_next[i];
            if (b_has && b.k_fast()) bs[buffer][b_k + i][b_outer] = b_next[i];
            if (b_has && !b.k_fast()) bs[buffer][b_k][b_outer + i] = b_next[i];
        }
    };
    fetch(place.begin);
    stage(0);
    __syncthreads();
    u32 buffer = 0;
    for (u32 k = place.begin; k < place.end; k += BK, buffer ^= 1) {
        if (k + BK < place.end) fetch(k + BK);
#pragma unroll
        for (int step = 0; step < BK; ++step) {
            float left[TM], right[TN];
#pragma unroll
            for (int i = 0; i < TM; i += 4) {
                float4 x = *reinterpret_cast<const float4*>(&as[buffer][step][i * 16 + ty * 4]);
                left[i] = x.x, left[i + 1] = x.y, left[i + 2] = x.z, left[i + 3] = x.w;
            }
#pragma unroll
            for (int j = 0; j < TN; j += 4) {
                float4 x = *reinterpret_cast<const float4*>(&bs[buffer][step][j * 16 + tx * 4]);
                right[j] = x.x, right[j + 1] = x.y, right[j + 2] = x.z, right[j + 3] = x.w;
            }
#pragma unroll
            for (int i = 0; i < TM; ++i) {
#pragma unroll
                for (int j = 0; j < TN; ++j) sums[i][j] = fmaf(left[i], right[j], sums[i][j]);
            }
        }
        if (k + BK < place.end) stage(buffer ^ 1);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < TM; ++i) {
#pragma unroll
        for (int j = 0; j < TN; j += 4) {
            float x[4] = {sums[i][j], sums[i][j + 1], sums[i][j + 2], sums[i][j + 3]};
            u32 row = place.row + i / 4 * 64 + ty * 4 + i % 4, column = place.column + j * 16 + tx * 4;
            put(slots, args, place, row, column, x);
        }
    }
}
