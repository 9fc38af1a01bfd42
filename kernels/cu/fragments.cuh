// How a block's parts of A and B get to its tensor cores: rounded once, in the order in which instructions take them. A's
// rows belong to a warp each, and stay in registers; B goes through shared memory, for all warps. While a stage is
// multiplied, the next is on its way to registers.
//
// A stage is blocks of 16 outer × 16 inner indices. Lane (g, w) = (lane / 4, lane % 4) has two neighbouring outer indices
// of a block and inner ones 4w … 4w + 3: which row, column or inner index of an instruction a lane's part stands for is
// ours to choose, as long as A, B and C agree. For A the outer indices are rows g and g + 8 of m16n8k8 (tf32, two steps)
// or m16n8k16 (bf16, one); for B they are 2g and 2g + 1, column g of two instructions, and so a lane's sums of both are
// four neighbours in a row of C. A lane's words of a step are a quad; in shared memory those of a block lie in the lanes'
// order, but for g and g ^ 1 that change places where g & 2: threads that write every second g meet different banks, too.
#pragma once
#include "mma.cuh"
#include "operands.cuh"

#ifdef GEMM_BF16
constexpr int STEPS = 1;
#else
constexpr int STEPS = 2;
#endif

// Place of lane (g, w) among the quads of a step.
__device__ __forceinline__ u32 quad_of(u32 g, u32 w) { return (g ^ (g >> 1 & 1)) * 4 + w; }

// An operand's part of stages of BLOCK outer and DEPTH · 16 inner indices, brought by THREADS threads: SLOTS lanes' parts each.
template <int THREADS, int BLOCK, int DEPTH, class Operand>
struct Loader {
    static constexpr bool K_FAST = Operand::K_FAST;
    static constexpr int SLOTS = 2 * BLOCK / THREADS;
    const Operand& operand;
    const u32 first;
    const bool vectors;
    // What is known of the outer indices at which vectors begin.
    static constexpr int VECTORS = K_FAST ? SLOTS * 2 : SLOTS == 1 ? 1 : SLOTS / 2;
    typename Operand::Outer outers[VECTORS];
    float x[DEPTH][SLOTS][2][4];

    __device__ __forceinline__ Loader(const Operand& operand, u32 first)
        : operand(operand), first(first), vectors(operand.vectors()) {
#pragma unroll
        for (int i = 0; i < VECTORS; ++i) outers[i] = operand.outer(first + (K_FAST ? outer(i / 2) + i % 2 : outer(2 * i)));
    }

    // The first of a slot's two outer indices. Those of two slots are neighbours where neighbours lie so.
    __device__ __forceinline__ u32 outer(int slot) const {
#ifdef GEMM_WGMMA
        const u32 thread = threadIdx.x % THREADS;
#else
        const u32 thread = threadIdx.x;  // all of the block's
#endif
        if (K_FAST) return thread / 32 * 16 + thread / 4 % 8 * 2 + slot * (THREADS / 2);
        return SLOTS == 1 ? thread / 4 * 2 : thread / 4 * 4 + slot / 2 * THREADS + slot % 2 * 2;
    }

    // Brings the stage that begins at inner index k. SURE: that it comes in vectors is known, so that nobody asks again.
    template <bool SURE = false>
    __device__ __forceinline__ void load(u32 k) {
        if (SURE || vectors) {
            load_vectors(k + threadIdx.x % 4 * 4);
        } else {
            load_elements(k + threadIdx.x % 4 * 4);
        }
    }

    __device__ __forceinline__ void load_vectors(u32 k) {
#pragma unroll
        for (int d = 0; d < DEPTH; ++d) {
            if constexpr (K_FAST) {
                const auto index = operand.inner(k + d * 16);
#pragma unroll
                for (int i = 0; i < SLOTS * 2; ++i) {
                    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                    u32 from = operand.find(outers[i], index);
                    if (from != OUTSIDE) v = __ldg(reinterpret_cast<const float4*>(operand.start + from));
                    float(&to)[4] = x[d][i / 2][i % 2];
                    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
                }
            } else {
                typename Operand::Inner index[4];
                inner_four(operand, k + d * 16, index);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    if constexpr (SLOTS == 1) {
                        u32 from = operand.find(outers[0], index[j]);
                        float2 v = make_float2(0.0f, 0.0f);
                        if (from != OUTSIDE) v = __ldg(reinterpret_cast<const float2*>(operand.start + from));
                        x[d][0][0][j] = v.x, x[d][0][1][j] = v.y;
                    }
#pragma unroll
                    for (int i = 0; i + 1 < SLOTS; i += 2) {
                        u32 from = operand.find(outers[i / 2], index[j]);
                        float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                        if (from != OUTSIDE) v = __ldg(reinterpret_cast<const float4*>(operand.start + from));
                        x[d][i][0][j] = v.x, x[d][i][1][j] = v.y, x[d][i + 1][0][j] = v.z, x[d][i + 1][1][j] = v.w;
                    }
                }
            }
        }
    }

    __device__ __forceinline__ void load_elements(u32 k) {
#pragma unroll
        for (int d = 0; d < DEPTH; ++d) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const auto index = operand.inner(k + d * 16 + j);
#pragma unroll
                for (int i = 0; i < SLOTS * 2; ++i) {
                    u32 from;
                    if constexpr (K_FAST) {
                        from = operand.find(outers[i], index);
                    } else {
                        from = operand.find(operand.outer(first + outer(i / 2) + i % 2), index);
                    }
                    x[d][i / 2][i % 2][j] = from != OUTSIDE ? __ldg(operand.start + from) : 0.0f;
                }
            }
        }
    }

    // What was brought of a slot for a step of instructions, rounded: words of the first outer index, then of the second.
    __device__ __forceinline__ void words(int d, int slot, int step, u32 (&to)[4]) const {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#ifdef GEMM_BF16
            to[2 * i] = pack_bf16(x[d][slot][i][0], x[d][slot][i][1]);
            to[2 * i + 1] = pack_bf16(x[d][slot][i][2], x[d][slot][i][3]);
#else
            to[2 * i] = round_tf32(x[d][slot][i][2 * step]);
            to[2 * i + 1] = round_tf32(x[d][slot][i][2 * step + 1]);
#endif
        }
    }

    // Writes it to shared memory.
    __device__ __forceinline__ void store(float4* stage) const {
#pragma unroll
        for (int d = 0; d < DEPTH; ++d) {
#pragma unroll
            for (int slot = 0; slot < SLOTS; ++slot) {
                const u32 at = outer(slot), block = d * (BLOCK / 16) + at / 16;
#pragma unroll
                for (int step = 0; step < STEPS; ++step) {
                    u32 w[4];
                    words(d, slot, step, w);
                    stage[(block * STEPS + step) * 32 + quad_of(at / 2 % 8, threadIdx.x % 4)] =
                        make_float4(__uint_as_float(w[0]), __uint_as_float(w[1]), __uint_as_float(w[2]),
                                    __uint_as_float(w[3]));
                }
            }
        }
    }
};
