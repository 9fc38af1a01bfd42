// Tensor-core instructions behind functions, which the host shim has its own versions of.
#pragma once
#include "common.cuh"

#ifndef CUDA_ON_CPU
// To 10 bits of mantissa. Infinity and NaN stay.
__device__ __forceinline__ u32 round_tf32(float x) {
#if __CUDA_ARCH__ >= 900
    // One instruction.
    u32 word;
    asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(word) : "f"(x));
    return word;
#else
    // Ties away from zero: half of the last bit is added, and tensor cores take no notice of what is left behind.
    // (cvt.rna is as long, and cannot write elsewhere.)
    float power = __uint_as_float(__float_as_uint(x) & 0xFF800000u);
    return __float_as_uint(fmaf(power, 1.0f / 2048.0f, x));
#endif
}

__device__ __forceinline__ u32 pack_bf16(float low, float high) {
    u32 word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

__device__ __forceinline__ void mma_tf32(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void mma_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif
