// A tile of C on the tensor cores of a warpgroup, with f32 sums: each of BM / 64 warpgroups has 64 of its rows, and all of
// its columns. A's part goes from memory to registers, and is rounded there; B's goes through shared memory, brought by one
// warpgroup or two, in rows that wgmma reads by itself (wgmma.cuh). fragments.cuh says which lane brings what; column
// 16 b + 2 g + i of a tile is row 16 b + 8 i + g of B, so that a lane's sums are neighbours in a row of C.
//
// Stages of 32 inner indices. While one is multiplied, A's next is on its way to registers, B's next to shared memory and
// that after it to registers: a stage's row of tiles is free again when the products two stages later begin.
#pragma once
#include "fragments.cuh"
#include "wgmma.cuh"

// Blocks on a multiprocessor at once.
constexpr int LARGE = 1, WIDE = 1, TALL = 2, SMALL = 3;

// Sixteens of inner indices in a stage, and stages of B in shared memory.
constexpr int DEPTH = 2, STAGES = 3;

// Writes what was brought of B, sixteens from the `first` on, to rows of ROW_BYTES.
template <int BN, int SHARE, class B>
__device__ __forceinline__ void store_rows(const Loader<BN, SHARE, B>& of_b, u32* stage, u32 first) {
#pragma unroll
    for (int d = 0; d < SHARE; ++d) {
#pragma unroll
        for (int slot = 0; slot < of_b.SLOTS; ++slot) {
            const u32 at = of_b.outer(slot), row = at / 16 * 16 + at / 2 % 8;
#pragma unroll
            for (int step = 0; step < STEPS; ++step) {
                u32 words[4];
                of_b.words(d, slot, step, words);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const u32 piece = (first + d) * (2 * STEPS) + 2 * step + j % 2;
                    stage[(row + j / 2 * 8) * (ROW_BYTES / 4) + piece_of(row, piece) * 4 + threadIdx.x % 4] = words[j];
                }
            }
        }
    }
}

template <int BM, int BN, class A, class B>
__device__ __forceinline__ void tile(const u64* slots, const GemmArgs& args, const Place& place, const A& a,
                                     const B& b) {
    // Warpgroups that bring B, the sixteens that each brings of a stage.
    constexpr int BRINGERS = BM > 64 ? 2 : 1, SHARE = DEPTH / BRINGERS, WORDS = BN * ROW_BYTES / 4;
    __shared__ __align__(1024) u32 stages[STAGES][WORDS];
    const u32 group = threadIdx.x / 128, first = group * SHARE;
    const bool brings = group < BRINGERS;
    // Stages come in twos; operands say that there is nothing at the end of the last.
    const u32 end = place.begin + (place.end - place.begin + 2 * DEPTH * 16 - 1) / (2 * DEPTH * 16) * (2 * DEPTH * 16);
    Loader<64, DEPTH, A> of_a(a, place.row + group * 64);
    Loader<BN, SHARE, B> of_b(b, place.column);
    float sums[BN / 8][4] = {};
    const auto load_b = [&](u32 k) {
        if (brings && k < end) of_b.load(k + first * 16);
    };
    const auto store_b = [&](u32 k, u32 stage) {
        if (brings && k < end) store_rows(of_b, stages[stage], first);
        show_products();
        __syncthreads();
    };
    of_a.load(place.begin);
    load_b(place.begin);
    store_b(place.begin, 0);
    load_b(place.begin + DEPTH * 16);
    u32 stage = 0;
    // Two stages' parts of A have registers of their own.
    const auto multiply = [&](u32 k, u32(&left)[DEPTH * STEPS][4]) {
#pragma unroll
        for (int step = 0; step < DEPTH * STEPS; ++step) {
            u32 w[4];
            of_a.words(step / STEPS, 0, step % STEPS, w);
            left[step][0] = w[0], left[step][1] = w[2], left[step][2] = w[1], left[step][3] = w[3];
        }
        multiply_row(sums, left, matrix_at(stages[stage]));
        wait_for_products<1>();
        if (k + DEPTH * 16 < end) of_a.load(k + DEPTH * 16);
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        store_b(k + DEPTH * 16, stage);
        load_b(k + 2 * DEPTH * 16);
    };
    for (u32 k = place.begin; k < end; k += 2 * DEPTH * 16) {
        u32 even[DEPTH * STEPS][4], odd[DEPTH * STEPS][4];
        multiply(k, even);
        multiply(k + DEPTH * 16, odd);
    }
    wait_for_products<0>();
    const Place here(args, BM, BN, place.round);
    const Result result(slots, args, here);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const u32 row = a.row_of(here.row + group * 64 + of_a.outer(0) + half);
#pragma unroll
        for (int j = 0; j < BN / 16; ++j) {
            const float(&even)[4] = sums[2 * j], (&odd)[4] = sums[2 * j + 1];
            float4 x = make_float4(even[2 * half], odd[2 * half], even[2 * half + 1], odd[2 * half + 1]);
            result.put(row, here.column + j * 16 + threadIdx.x % 4 * 4, x);
        }
    }
}
