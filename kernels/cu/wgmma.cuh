// Tensor-core instructions of a warpgroup (wgmma, capability 9.0 alone: PTX for sm_90a), behind functions, which the host
// shim has its own versions of. Four warps multiply 64 rows of A, in registers, by a matrix B of shared memory, and go on
// while it happens: neither those registers nor that memory may change before wait_for_products says so.
//
// B lies in rows of 32 inner indices, 128 bytes in tf32 and 64 in bf16, the first at a multiple of 1024. 16-byte pieces of a
// row change places so that eight rows of one piece are in different banks: see piece_of.
#pragma once
#include "mma.cuh"

#ifdef GEMM_BF16
constexpr int ROW_BYTES = 64;
#else
constexpr int ROW_BYTES = 128;
#endif

// Where piece `piece` of a row lies.
__device__ __forceinline__ u32 piece_of(u32 row, u32 piece) {
    return piece ^ (ROW_BYTES == 128 ? row % 8 : row / 2 % 4);
}

#ifndef CUDA_ON_CPU
// How instructions find a matrix: address, bytes from eight rows to the next eight, order of pieces (PTX ISA, «matrix
// descriptor»); the distance of pieces has no meaning in this order.
__device__ __forceinline__ u64 matrix_at(const void* shared) {
    const u64 address = u32(__cvta_generic_to_shared(shared)) >> 4, eight_rows = 8 * ROW_BYTES >> 4;
    const u64 order = ROW_BYTES == 128 ? 1 : 2;
    return address | u64(1) << 16 | eight_rows << 32 | order << 62;
}

// The matrix that begins so many bytes later in each row.
__device__ __forceinline__ u64 along(u64 matrix, int bytes) { return matrix + bytes / 16; }

// What was written to shared memory is there for products that begin after the next barrier.
__device__ __forceinline__ void show_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Barriers by number, for so many threads: those that wait, and those that only tell the others.
template <int THREADS>
__device__ __forceinline__ void meet(u32 barrier) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(THREADS) : "memory");
}

template <int THREADS>
__device__ __forceinline__ void pass(u32 barrier) {
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "n"(THREADS) : "memory");
}

// Waits until at most the N newest groups of products are on their way.
template <int N>
__device__ __forceinline__ void wait_for_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

#define FOUR(d, j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define THIRTY_TWO(d, j) \
    FOUR(d, j), FOUR(d, j + 1), FOUR(d, j + 2), FOUR(d, j + 3), FOUR(d, j + 4), FOUR(d, j + 5), FOUR(d, j + 6), \
        FOUR(d, j + 7)
#define LEFT(a, step) "r"(a[step][0]), "r"(a[step][1]), "r"(a[step][2]), "r"(a[step][3])
#define SUMS_64 "{" \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26," \
    "%27,%28,%29,%30,%31" "}"
#define SUMS_128 "{" \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26," \
    "%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51," \
    "%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63" "}"
#define BEGIN "{ .reg .pred p; setp.ne.b32 p, 1, 0; wgmma.fence.sync.aligned; "
#define END "wgmma.commit_group.sync.aligned; }"
#ifdef GEMM_BF16
#define STEP(n, left, right) "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 " SUMS_##n ", " left ", " right ", p, 1, 1, 0; "
#else
#define STEP(n, left, right) "wgmma.mma_async.sync.aligned.m64n" #n "k8.f32.tf32.tf32 " SUMS_##n ", " left ", " right ", p, 1, 1; "
#endif

// Adds A · B to the sums, for a row of B: a group of products. One piece of assembly, so that nothing comes between them.
// Registers are as those of mma.sync (fragments.cuh).
#ifdef GEMM_BF16
__device__ __forceinline__ void multiply_row(float (&d)[8][4], const u32 (&a)[2][4], u64 b) {
    asm volatile(BEGIN
                 STEP(64, "{%32,%33,%34,%35}", "%40")
                 STEP(64, "{%36,%37,%38,%39}", "%41")
                 END
                 : THIRTY_TWO(d, 0)
                 : LEFT(a, 0), LEFT(a, 1), "l"(b), "l"(along(b, 32)));
}

__device__ __forceinline__ void multiply_row(float (&d)[16][4], const u32 (&a)[2][4], u64 b) {
    asm volatile(BEGIN
                 STEP(128, "{%64,%65,%66,%67}", "%72")
                 STEP(128, "{%68,%69,%70,%71}", "%73")
                 END
                 : THIRTY_TWO(d, 0), THIRTY_TWO(d, 8)
                 : LEFT(a, 0), LEFT(a, 1), "l"(b), "l"(along(b, 32)));
}
#else
__device__ __forceinline__ void multiply_row(float (&d)[8][4], const u32 (&a)[4][4], u64 b) {
    asm volatile(BEGIN
                 STEP(64, "{%32,%33,%34,%35}", "%48")
                 STEP(64, "{%36,%37,%38,%39}", "%49")
                 STEP(64, "{%40,%41,%42,%43}", "%50")
                 STEP(64, "{%44,%45,%46,%47}", "%51")
                 END
                 : THIRTY_TWO(d, 0)
                 : LEFT(a, 0), LEFT(a, 1), LEFT(a, 2), LEFT(a, 3), "l"(b), "l"(along(b, 32)), "l"(along(b, 64)), "l"(along(b, 96)));
}

__device__ __forceinline__ void multiply_row(float (&d)[16][4], const u32 (&a)[4][4], u64 b) {
    asm volatile(BEGIN
                 STEP(128, "{%64,%65,%66,%67}", "%80")
                 STEP(128, "{%68,%69,%70,%71}", "%81")
                 STEP(128, "{%72,%73,%74,%75}", "%82")
                 STEP(128, "{%76,%77,%78,%79}", "%83")
                 END
                 : THIRTY_TWO(d, 0), THIRTY_TWO(d, 8)
                 : LEFT(a, 0), LEFT(a, 1), LEFT(a, 2), LEFT(a, 3), "l"(b), "l"(along(b, 32)), "l"(along(b, 64)), "l"(along(b, 96)));
}
#endif
#undef FOUR
#undef THIRTY_TWO
#undef LEFT
#undef SUMS_64
#undef SUMS_128
#undef BEGIN
#undef END
#undef STEP
#endif
