// Copies from device memory to shared memory that no thread waits for (cp.async, from sm_80): behind
// functions, which the host shim has its own versions of.
//
// A thread's copies since its last commit_copies() are a group; wait_for_copies<N>() waits until at most the
// N newest groups of this thread are on their way. What other threads copied is there after a barrier.
#pragma once
#include "common.cuh"

#ifndef CUDA_ON_CPU
// BYTES are 16, of aligned addresses, past the L1 cache; or 4. If nothing is `there`, zeros are written.
template <int BYTES>
__device__ __forceinline__ void copy_async(float* to, const float* from, bool there) {
    u32 shared = u32(__cvta_generic_to_shared(to));
    if (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(there ? 16 : 0)
                     : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared), "l"(from), "r"(there ? 4 : 0)
                     : "memory");
    }
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;"); }

template <int N>
__device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
#endif
