// A tile of C on the tensor cores of warpgroups, with f32 sums: BM / 64 of them multiply, 64 rows each and all columns; two
// pairs of warps bring B for all of them. A's part goes from memory to registers of the warp that needs it, and is rounded
// there; B's goes through shared memory, in rows that wgmma reads by itself (wgmma.cuh). fragments.cuh says which lane brings
// what; column 16 b + 2 g + i of a tile is row 16 b + 8 i + g of B, so that a lane's sums are neighbours in a row of C.
//
// Stages of 32 inner indices. A's next is on its way while one is multiplied; B's next STAGES - 1 are there or on their way: the
// pairs of warps take turns, so that each has the time of two stages for what memory takes. Who shows memory to tensor
// cores (a fence) waits for all of its own loads: those that multiply never do.
#pragma once
#include "fragments.cuh"
#include "wgmma.cuh"

// Threads that bring B, in two pairs of warps.
constexpr int BRINGERS = 128, PAIR = BRINGERS / 2;

// Sixteens of inner indices in a stage, and stages of B in shared memory.
constexpr int DEPTH = 2, STAGES = 3;

// Barriers of a slot for stages: a stage has come; it is free again for a pair of warps, one for each: the pairs take turns in a
// slot, and one may come to its barrier before the other has gone through its own.
constexpr int COME = 1, FREE = COME + STAGES;
static_assert(STAGES % 2 == 1, "a slot's next stage is the other pair's");

// Writes what was brought of B to the rows of a stage.
template <int BN, class B>
__device__ __forceinline__ void store_rows(const Loader<PAIR, BN, DEPTH, B>& of_b, u32* stage) {
    const u32 at = of_b.outer(0), row = at / 16 * 16 + at / 2 % 8;
    const u32 first = row * (ROW_BYTES / 4) + piece_of(row, 0) * 4 + threadIdx.x % 4;
    u32* to[DEPTH * 2 * STEPS];
#pragma unroll
    for (int piece = 0; piece < DEPTH * 2 * STEPS; ++piece) to[piece] = stage + (first ^ piece * 4);
#pragma unroll
    for (int d = 0; d < DEPTH; ++d) {
#pragma unroll
        for (int slot = 0; slot < of_b.SLOTS; ++slot) {
            // A slot's rows are far from the first's; or the next ones, whose pieces change places in twos.
            const int rows = B::K_FAST ? slot * (PAIR / 2) : slot / 2 * PAIR + slot % 2;
            const int twos = B::K_FAST || ROW_BYTES == 64 ? 0 : slot % 2;
#pragma unroll
            for (int step = 0; step < STEPS; ++step) {
                u32 words[4];
                of_b.words(d, slot, step, words);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const int piece = (d * 2 * STEPS + 2 * step + j % 2) ^ twos;
                    to[piece][(rows + j / 2 * 8) * (ROW_BYTES / 4)] = words[j];
                }
            }
        }
    }
}

// Brings B, stage after stage: the other pair of warps has those between.
template <int BM, int BN, bool SURE, class B>
__device__ __forceinline__ void bring(Loader<PAIR, BN, DEPTH, B>& of_b, u32 (*rows)[BN * ROW_BYTES / 4], u32 begin,
                                      u32 count) {
    const u32 pair = threadIdx.x % BRINGERS / PAIR;
    u32 slot = pair;
    for (u32 stage = pair; stage < count; stage += 2) {
        of_b.template load<SURE>(begin + stage * (DEPTH * 16));
        if (stage >= STAGES) meet<BM * 2 + PAIR>(FREE + pair * STAGES + slot);
        store_rows(of_b, rows[slot]);
        show_products();
        pass<BM * 2 + PAIR>(COME + slot);
        slot = slot + 2 >= STAGES ? slot + 2 - STAGES : slot + 2;
    }
}

// Adds a warpgroup's part of A, times B, to its sums.
template <int BM, int BN, bool SURE, class A>
__device__ __forceinline__ void multiply(Loader<128, 64, DEPTH, A>& of_a, float (&sums)[BN / 8][4],
                                         u32 (*rows)[BN * ROW_BYTES / 4], u32 begin, u32 count) {
    if (count > 0) of_a.template load<SURE>(begin);
    u32 slot = 0;
    for (u32 stage = 0; stage < count; ++stage) {
        u32 left[DEPTH * STEPS][4];
#pragma unroll
        for (int step = 0; step < DEPTH * STEPS; ++step) {
            u32 w[4];
            of_a.words(step / STEPS, 0, step % STEPS, w);
            left[step][0] = w[0], left[step][1] = w[2], left[step][2] = w[1], left[step][3] = w[3];
        }
        if (stage + 1 < count) of_a.template load<SURE>(begin + (stage + 1) * (DEPTH * 16));
        meet<BM * 2 + PAIR>(COME + slot);
        multiply_row(sums, left, matrix_at(rows[slot]));
        wait_for_products<0>();
        if (stage + STAGES < count) pass<BM * 2 + PAIR>(FREE + (stage + 1) % 2 * STAGES + slot);
        slot = slot + 1 == STAGES ? 0 : slot + 1;
    }
}

template <int BM, int BN, class A, class B>
__device__ __forceinline__ void tile(const u64* slots, const GemmArgs& args, const Place& place, const A& a,
                                     const B& b) {
    // Whether registers allow a loop of its own for operands that come in vectors.
    constexpr bool ROOM = BM * BN <= 128 * 128;
    __shared__ __align__(1024) u32 rows[STAGES][BN * ROW_BYTES / 4];
    const u32 group = threadIdx.x / 128, count = (place.end - place.begin + DEPTH * 16 - 1) / (DEPTH * 16);
    if (group == BM / 64) {
        Loader<PAIR, BN, DEPTH, B> of_b(b, place.column);
        if (ROOM && of_b.vectors) {
            bring<BM, BN, true>(of_b, rows, place.begin, count);
        } else {
            bring<BM, BN, false>(of_b, rows, place.begin, count);
        }
        return;
    }
    Loader<128, 64, DEPTH, A> of_a(a, place.row + group * 64);
    float sums[BN / 8][4] = {};
    if (ROOM && of_a.vectors) {
        multiply<BM, BN, true>(of_a, sums, rows, place.begin, count);
    } else {
        multiply<BM, BN, false>(of_a, sums, rows, place.begin, count);
    }
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
