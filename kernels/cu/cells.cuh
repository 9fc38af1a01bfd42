// Where values of a fused program live: cells of shared memory, a column per thread, each with P points.
//
// The device's version addresses shared memory by itself: as plain pointers, the compiler would work out the
// window of shared memory anew at every access (three instructions and a slow register on sm_90).
#pragma once
#include "common.cuh"

template <class T, int P>
struct alignas(sizeof(T) * P) Pack {
    T v[P];
};

#ifdef CUDA_ON_CPU
template <class T, int P, int THREADS>
struct Cells {
    Pack<T, P>* column;

    Cells(unsigned char* shared) : column(reinterpret_cast<Pack<T, P>*>(shared) + threadIdx.x) {}
    Pack<T, P> load(u32 cell) const { return column[cell * THREADS]; }
    void store(u32 cell, const Pack<T, P>& x) const { column[cell * THREADS] = x; }
};
#else
template <class T, int P, int THREADS>
struct Cells {
    u32 column;

    __device__ __forceinline__ Cells(unsigned char* shared) {
        u32 first = u32(__cvta_generic_to_shared(shared)) + threadIdx.x * u32(sizeof(Pack<T, P>));
        asm volatile("mov.u32 %0, %1;" : "=r"(column) : "r"(first));
    }

    __device__ __forceinline__ u32 address(u32 cell) const {
        return column + cell * u32(THREADS * sizeof(Pack<T, P>));
    }

    __device__ __forceinline__ Pack<T, P> load(u32 cell) const {
        Pack<T, P> x;
        if constexpr (P == 4) {
            asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                         : "=f"(x.v[0]), "=f"(x.v[1]), "=f"(x.v[2]), "=f"(x.v[3])
                         : "r"(address(cell)));
        } else if constexpr (sizeof(T) == 4) {
            asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x.v[0]) : "r"(address(cell)));
        } else {
            asm volatile("ld.shared.f64 %0, [%1];" : "=d"(x.v[0]) : "r"(address(cell)));
        }
        return x;
    }

    __device__ __forceinline__ void store(u32 cell, const Pack<T, P>& x) const {
        if constexpr (P == 4) {
            asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(address(cell)), "f"(x.v[0]), "f"(x.v[1]),
                         "f"(x.v[2]), "f"(x.v[3]));
        } else if constexpr (sizeof(T) == 4) {
            asm volatile("st.shared.f32 [%0], %1;" ::"r"(address(cell)), "f"(x.v[0]));
        } else {
            asm volatile("st.shared.f64 [%0], %1;" ::"r"(address(cell)), "d"(x.v[0]));
        }
    }
};
#endif
