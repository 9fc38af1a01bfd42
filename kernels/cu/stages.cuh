// How a block's parts of A and B get through shared memory in exact f32, in stages of BK inner indices: while one
// stage is multiplied, the next STAGES - 1 are on their way (async.cuh), and one barrier per stage says both
// that it has come and that the oldest may be overwritten.
//
// A stage is [BK][outer], without padding; a row of 32 is all banks. Quads (16 bytes) are what copies write and what is
// moved about, so that a quarter of a warp that reads or writes vectors meets each of the 32 banks once: quad q lies at
// q ^ 2·(k / 4 % 4), and lanes that write the same outer indices at k, k + 4, k + 8, k + 12 meet different banks.
#pragma once
#include "async.cuh"
#include "operands.cuh"

constexpr int BK = 16;

// The place of an element in a stage of BLOCK outer indices.
template <int BLOCK>
__device__ __forceinline__ u32 place_of(u32 outer, u32 k) {
    return k * BLOCK + (outer & ~31u) + ((outer & 31) ^ (k & 12) * 2);
}

// Copies of an operand's part of a stage: every thread brings quads of neighbours in memory, those along k of
// some outer indices, or those across of some inner indices.
template <int THREADS, int BLOCK, class Operand>
struct Copier {
    static constexpr bool K_FAST = Operand::K_FAST;
    static constexpr int QUADS = BLOCK * BK / 4 / THREADS;
    const Operand& operand;
    const u32 first;
    const bool vectors;
    // What is known of the quads' first outer indices: others are looked at when they are needed.
    typename Operand::Outer outers[K_FAST ? QUADS : 1];

    __device__ __forceinline__ Copier(const Operand& operand, u32 first)
        : operand(operand), first(first), vectors(!K_FAST && operand.vectors()) {
#pragma unroll
        for (int i = 0; i < (K_FAST ? QUADS : 1); ++i) outers[i] = operand.outer(first + outer(i));
    }

    // Where quad i of this thread begins.
    __device__ __forceinline__ u32 outer(int i) const {
        u32 at = threadIdx.x + i * THREADS;
        return K_FAST ? at / (BK / 4) : at % (BLOCK / 4) * 4;
    }

    __device__ __forceinline__ u32 inner(int i) const {
        u32 at = threadIdx.x + i * THREADS;
        return K_FAST ? at % (BK / 4) * 4 : at / (BLOCK / 4);
    }

    // Element j of quad i; if the quad is one piece, all of it.
    template <int PIECES>
    __device__ __forceinline__ void copy(float* stage, int i, int j, const typename Operand::Outer& outer_index,
                                         const typename Operand::Inner& inner_index) const {
        u32 from = operand.find(outer_index, inner_index);
        u32 to = place_of<BLOCK>(outer(i) + (K_FAST ? 0 : j), inner(i) + (K_FAST ? j : 0));
        bool there = from != OUTSIDE;
        copy_async<16 / PIECES>(stage + to, operand.start + (there ? from : 0), there);
    }

    // Brings quads in as many pieces each.
    template <int PIECES>
    __device__ __forceinline__ void bring(float* stage, u32 k) const {
#pragma unroll (K_FAST ? 1 : PIECES)
        for (int j = 0; j < PIECES; ++j) {
            if constexpr (K_FAST) {
                const auto index = operand.inner(k + inner(0) + j);
#pragma unroll
                for (int i = 0; i < QUADS; ++i) copy<PIECES>(stage, i, j, outers[i], index);
            } else {
                const auto index = j == 0 ? outers[0] : operand.outer(first + outer(0) + j);
#pragma unroll
                for (int i = 0; i < QUADS; ++i) copy<PIECES>(stage, i, j, index, operand.inner(k + inner(i)));
            }
        }
    }

    __device__ __forceinline__ void bring(float* stage, u32 k) const {
        if (vectors) {
            bring<1>(stage, k);
        } else {
            bring<4>(stage, k);
        }
    }
};

// Calls multiply(stage of A, stage of B, its first inner index) for the inner indices from `begin` to `end`, in their order.
template <int THREADS, int BM, int BN, class A, class B, class Multiply>
__device__ __forceinline__ void in_stages(const A& a, const B& b, u32 row, u32 column, u32 begin, u32 end,
                                          Multiply multiply) {
    // As many as fit the 48 KiB that a block has without asking for more.
    constexpr int STAGES = BM + BN > 192 ? 3 : 4;
    __shared__ __align__(16) float as[STAGES][BM * BK];
    __shared__ __align__(16) float bs[STAGES][BN * BK];
    const Copier<THREADS, BM, A> of_a(a, row);
    const Copier<THREADS, BN, B> of_b(b, column);
    // Stages are brought STAGES - 1 rounds before they are multiplied.
    u32 stage = 0;
    for (u32 k = begin; k < end + (STAGES - 1) * BK; k += BK) {
        bool filled = k >= begin + (STAGES - 1) * BK;
        if (filled) {
            wait_for_copies<STAGES - 2>();
            __syncthreads();
        }
        if (k < end) {
            of_a.bring(as[stage], k);
            of_b.bring(bs[stage], k);
        }
        // Without copies, too: the number of groups to wait for stays the same.
        commit_copies();
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        if (filled) multiply(as[stage], bs[stage], k - (STAGES - 1) * BK);
    }
}
