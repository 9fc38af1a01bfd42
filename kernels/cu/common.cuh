// What all kernels share: how they find their arrays, division by constants, conversion of elements.
//
// Every kernel has two parameters: `slots`, a table in device memory with the address of every slot of
// the program, and a struct by value. An array is a slot and an offset, so that a captured graph can be
// replayed on other memory: only the table changes.
#pragma once
#ifdef CUDA_ON_CPU
#include "cuda_on_cpu.h"
#else
#define EXPORT(kernel)
// The shared memory whose size the launch chooses.
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;

// `blocks` of them shall fit a multiprocessor at once: without that, the compiler sometimes saves registers
// for still more blocks and spills.
#define KERNEL(threads, blocks, name, Args)                        \
    extern "C" __global__ void __launch_bounds__(threads, blocks)   \
        name(const u64* __restrict__ slots, const Args args)

// An array: the slot's number in the upper 16 bits, bytes from its start in the others.
template <class T>
__device__ __forceinline__ T* at(const u64* slots, u64 array) {
    return reinterpret_cast<T*>(slots[array >> 48] + (array & 0xFFFFFFFFFFFFull));
}

// Division by a constant, for dividends below 2^31: T. Granlund, P. Montgomery, «Division by invariant
// integers using multiplication», PLDI 1994.
struct Divisor {
    u32 divisor, magic, shift;
};
static_assert(sizeof(Divisor) == 12, "as on the host");

__device__ __forceinline__ u32 divide(u32 n, Divisor d) {
    return (__umulhi(n, d.magic) + n) >> d.shift;
}

// n becomes n / d; the remainder is returned.
__device__ __forceinline__ u32 split(u32& n, Divisor d) {
    u32 quotient = divide(n, d), rest = n - quotient * d.divisor;
    n = quotient;
    return rest;
}

// Element types, numbered as on the host.
enum DType : u32 { F32, F64, BF16, F16, U8, I32, U32 };

__device__ __forceinline__ float from_half(u16 half) {
    u32 bits = (half & 0x7FFFu) << 13, exponent = bits & 0x0F800000u;
    bits += 112u << 23;
    float x;
    if (exponent == 0x0F800000u) {
        x = __uint_as_float(bits + (112u << 23));
    } else if (exponent == 0) {
        x = __uint_as_float(bits + (1u << 23)) - __uint_as_float(113u << 23);
    } else {
        x = __uint_as_float(bits);
    }
    return __uint_as_float(__float_as_uint(x) | (half & 0x8000u) << 16);
}

// To the nearest, ties to even.
__device__ __forceinline__ u16 to_half(float x) {
    u32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u;
    bits &= 0x7FFFFFFFu;
    if (bits > 0x7F800000u) return u16(sign | 0x7E00u | (bits >> 13 & 0x3FFu));
    if (bits >= 0x477FF000u) return u16(sign | 0x7C00u);
    if (bits < 0x38800000u) {
        // The last place of 0.5 is that of subnormal halves: the addition rounds.
        return u16(sign | (__float_as_uint(__uint_as_float(bits) + 0.5f) - 0x3F000000u));
    }
    return u16(sign | (bits + 0xC8000FFFu + (bits >> 13 & 1)) >> 13);
}

__device__ __forceinline__ u16 to_bfloat(float x) {
    u32 bits = __float_as_uint(x);
    if (x != x) return u16(bits >> 16 | 0x40u);
    return u16((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}

// Reads element i of an array of the given type.
template <class T>
__device__ __forceinline__ T load_as(const void* array, u32 dtype, u32 i) {
    switch (dtype) {
        case F32: return T(static_cast<const float*>(array)[i]);
        case U8: return T(static_cast<const u8*>(array)[i]);
        case I32: return T(static_cast<const i32*>(array)[i]);
        case U32: return T(static_cast<const u32*>(array)[i]);
        case BF16: return T(__uint_as_float(u32(static_cast<const u16*>(array)[i]) << 16));
        default: return T(from_half(static_cast<const u16*>(array)[i]));
    }
}

// Writes element i. In integers, numbers out of range saturate and NaN becomes 0.
template <class T>
__device__ __forceinline__ void store_as(void* array, u32 dtype, u32 i, T x) {
    switch (dtype) {
        case F32: static_cast<float*>(array)[i] = float(x); break;
        case U8: static_cast<u8*>(array)[i] = x >= T(255) ? u8(255) : x > T(0) ? u8(x) : u8(0); break;
        case I32:
            static_cast<i32*>(array)[i] = x >= T(2147483648.0)    ? 2147483647
                                          : x <= T(-2147483648.0) ? i32(-2147483647 - 1)
                                          : x == x                ? i32(x)
                                                                  : 0;
            break;
        case U32:
            static_cast<u32*>(array)[i] = x >= T(4294967296.0) ? 0xFFFFFFFFu : x > T(0) ? u32(x) : 0u;
            break;
        case BF16: static_cast<u16*>(array)[i] = to_bfloat(float(x)); break;
        default: static_cast<u16*>(array)[i] = to_half(float(x)); break;
    }
}

// What went wrong on the device, for the host to find with the next result it reads. The first wins.
enum Fault : u32 { NO_FAULT, ROW_OUTSIDE, PICK_OUTSIDE };

struct FaultWord {
    u32 fault, step, value, at, limit;
};

__device__ __forceinline__ void report(FaultWord* word, u32 fault, u32 step, u32 value, u32 at, u32 limit) {
    if (atomicCAS(&word->fault, 0u, fault) == 0) {
        word->step = step;
        word->value = value;
        word->at = at;
        word->limit = limit;
    }
}
