// A tile of C on tensor cores, with f32 sums: 8 warps, each with its own part of the tile, in steps of
// mma.sync m16n8k8 (tf32) or m16n8k16 (bf16).
//
// Shared memory holds rows of 16 words of 32 bits: 16 inner indices in tf32, 32 as pairs in bf16. In words
// both instructions read the same places, so one body serves both. Rows are 20 words apart: the 8 × 4 words
// that a warp reads at once then lie in 32 different banks.
#pragma once

#ifdef GEMM_BF16
constexpr int PER_WORD = 2;

__device__ __forceinline__ u32 word(float low, float high) { return pack_bf16(low, high); }

__device__ __forceinline__ void put_element(u32* row, u32 k, float x) {
    reinterpret_cast<u16*>(row)[k] = u16(pack_bf16(x, 0.0f));
}

__device__ __forceinline__ void multiply_add(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    mma_bf16(d, a, b);
}
#else
constexpr int PER_WORD = 1;

__device__ __forceinline__ u32 word(float x, float) { return round_tf32(x); }

__device__ __forceinline__ void put_element(u32* row, u32 k, float x) { row[k] = round_tf32(x); }

__device__ __forceinline__ void multiply_add(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    mma_tf32(d, a, b);
}
#endif
constexpr int WORDS = 16, ROW = WORDS + 4, BK = WORDS * PER_WORD;

// Brings a BLOCK × BK part of an operand from memory to registers, and on to shared memory as words.
template <int BLOCK, class Operand>
struct Carrier {
    static constexpr int COUNT = BLOCK * BK / 4 / 256;
    const Operand& operand;
    u32 first;
    float next[COUNT][4];

    __device__ __forceinline__ Carrier(const Operand& operand, u32 first) : operand(operand), first(first) {}

    __device__ __forceinline__ u32 outer(int i) const {
        u32 at = threadIdx.x + i * 256;
        return operand.k_fast() ? at / (BK / 4) : at % (BLOCK / 4) * 4;
    }

    __device__ __forceinline__ u32 inner(int i) const {
        u32 at = threadIdx.x + i * 256;
        return operand.k_fast() ? at % (BK / 4) * 4 : at / (BLOCK / 4);
    }

    __device__ __forceinline__ void fetch(u32 k) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) operand.quad(first + outer(i), k + inner(i), next[i]);
    }

    __device__ __forceinline__ void stage(u32 (*to)[ROW]) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            u32 row = outer(i), k = inner(i);
            if (operand.k_fast()) {
#pragma unroll
                for (int j = 0; j < 4; j += PER_WORD) {
                    to[row][(k + j) / PER_WORD] = word(next[i][j], next[i][j + PER_WORD - 1]);
                }
            } else {
#pragma unroll
                for (int j = 0; j < 4; ++j) put_element(&to[row + j][0], k, next[i][j]);
            }
        }
    }
};

template <int BM, int BN, class A, class B>
__device__ __forceinline__ void tile(const u64* slots, const GemmArgs& args, const Place& place, const A& a,
                                     const B& b) {
    // Warps across and down the tile, and the part of each.
    constexpr int ACROSS = BN == 64 && BM == 128 ? 2 : 4, WM = BM / (8 / ACROSS), WN = BN / ACROSS;
    __shared__ __align__(16) u32 as[2][BM][ROW];
    __shared__ __align__(16) u32 bs[2][BN][ROW];
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, within = lane % 4;
    const u32 row = warp / ACROSS * WM, column = warp % ACROSS * WN;
    Carrier<BM, A> a_part(a, place.row);
    Carrier<BN, B> b_part(b, place.column);
    float sums[WM / 16][WN / 8][4] = {};

    a_part.fetch(place.begin);
    b_part.fetch(place.begin);
    a_part.stage(as[0]);
    b_part.stage(bs[0]);
    __syncthreads();
    u32 buffer = 0;
    for (u32 k = place.begin; k < place.end; k += BK, buffer ^= 1) {
        bool more = k + BK < place.end;
        if (more) a_part.fetch(k + BK);
        if (more) b_part.fetch(k + BK);
#pragma unroll
        for (int step = 0; step < WORDS; step += 8) {
            u32 right[WN / 8][2];
#pragma unroll
            for (int j = 0; j < WN / 8; ++j) {
                const u32* words = bs[buffer][column + j * 8 + group] + step + within;
                right[j][0] = words[0], right[j][1] = words[4];
            }
#pragma unroll
            for (int i = 0; i < WM / 16; ++i) {
                const u32* words = as[buffer][row + i * 16 + group] + step + within;
                u32 left[4] = {words[0], words[8 * ROW], words[4], words[8 * ROW + 4]};
#pragma unroll
                for (int j = 0; j < WN / 8; ++j) multiply_add(sums[i][j], left, right[j]);
            }
        }
        if (more) a_part.stage(as[buffer ^ 1]);
        if (more) b_part.stage(bs[buffer ^ 1]);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < WM / 16; ++i) {
#pragma unroll
        for (int j = 0; j < WN / 8; ++j) {
            u32 at_row = place.row + row + i * 16 + group, at_column = place.column + column + j * 8 + within * 2;
            float upper[2] = {sums[i][j][0], sums[i][j][1]}, lower[2] = {sums[i][j][2], sums[i][j][3]};
            put(slots, args, place, at_row, at_column, upper);
            put(slots, args, place, at_row + 8, at_column, lower);
        }
    }
}
