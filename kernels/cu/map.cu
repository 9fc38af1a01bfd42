// Fused element-wise programs, interpreted; and the sums at their ends.
//
//     for (point = 0; point < points; ++point)              // P points a thread
//         for (i = 0; i < instructions; ++i) cell[i] = op[i](cell[a[i]], cell[b[i]], cell[c[i]]);
//         for (s = 0; s < stores; ++s) output[s][point] = cell[value[s]];
//         for (s = 0; s < sums; ++s) sum[s][kept(point)] += cell[value[s]];
//
// A program is a list of instructions in device memory; every thread runs it on P points at once, so that
// fetching and decoding an instruction is paid once per P points; the next one is on its way meanwhile. Values
// live in cells of shared memory, a column per thread: no barrier is needed, and neighbouring threads use
// neighbouring banks. The value of the last instruction stays in registers, and is only written to a cell if a
// later instruction than the next one reads it. Arithmetic is that of the CPU, operation for operation, so
// element-wise results have its bits.
//
// map_full: no sums. P consecutive points per thread, a vector load where an input allows it. Bytes: every
// input and output once. map_sum: the points are [kept, summed]; a block has `lanes` × (128 / lanes) threads,
// a thread adds the points lane, lane + lanes, … of its chunk, one after another; then lanes are added in
// halves, and map_combine adds chunks in their order. Lanes and chunks follow from the extents and flags
// alone, so the order of additions does too.
//
// FLOPs: one per instruction and point, as counted by the host.
#include "cells.cuh"
#include "special.cuh"

const u32 THREADS = 128, RANK = 10, NOWHERE = 0xFFFF;

struct Axis {
    Divisor extent;
    u32 stride;
};

// How points become offsets in an array: axes innermost first; the outermost needs no division.
struct Access {
    u64 array;
    u32 dtype, rank;
    u32 quads;  // whether four consecutive points from a multiple of four on lie along the first axis
    u32 cell;   // of a store: the cell that it writes
    Axis axes[RANK];
};
static_assert(sizeof(Access) == 184, "as on the host");

enum Op : u16 {
    LOAD, INDEX, CONST, SELECT,
    NEG, EXP, LOG, SQRT, RSQRT, TANH, SIGMOID, TANH_SLOPE, SIGMOID_SLOPE, SOFTPLUS, LOG1P, EXPM1, SIN, COS, ERF, ERFC,
    ABS, SIGN, POWI,
    ADD, SUB, MUL, STRONG_MUL, DIV, POW, MAX, MIN, LESS, LESS_EQ, EQUAL,
    // Loads of f32 in the order of points, and of one number for all of them: nothing is looked up for these.
    STREAM, SAME
};

// Operands a, b, c are cells. The first may be NOWHERE, which stands for the value of the instruction before; the
// others, if there are any, always have one. What every instruction needs comes first, as one vector.
struct alignas(16) Instruction {
    u16 op, cell, a, b, c, pad;
    i32 n;  // number of the access, the exponent, or the bits of a constant f32
    u64 array;
    double value;
};
static_assert(sizeof(Instruction) == 32, "as on the host");

struct alignas(16) Head {
    u32 op_cell, a_b, c, n;
};

struct Sum {
    u64 output;
    u32 dtype, cell;
};
static_assert(sizeof(Sum) == 16, "as on the host");

struct MapArgs {
    u64 code, accesses, stores, sums, partials;
    u32 instructions, store_count, sum_count, points;
    // Sums only: points are [kept, reduce]; `lanes` = 1 << lane_bits threads share a sum.
    u32 kept, reduce, chunk, chunks, lane_bits, lanes_inner, blocks;
    // Cells per thread; the accumulators lie behind them.
    u32 cells;
};
static_assert(sizeof(MapArgs) == 88, "as on the host");

__device__ __forceinline__ u32 offset(const Access& access, u32 point) {
    u32 at = 0;
    for (u32 axis = 0; axis + 1 < access.rank; ++axis) {
        at += split(point, access.axes[axis].extent) * access.axes[axis].stride;
    }
    return access.rank > 0 ? at + point * access.axes[access.rank - 1].stride : 0;
}

template <class T, int P, bool CONSECUTIVE>
__device__ __forceinline__ Pack<T, P> load(const u64* slots, const Access& access, const u32 (&point)[P]) {
    Pack<T, P> x;
    const void* array = at<const void>(slots, access.array);
    if (CONSECUTIVE && P == 4 && access.quads && point[P - 1] == point[0] + P - 1) {
        u32 first = offset(access, point[0]), stride = access.rank > 0 ? access.axes[0].stride : 0;
        const float* here = static_cast<const float*>(array) + first;
        if (stride == 1 && access.dtype == F32 && (reinterpret_cast<u64>(here) & 15) == 0) {
            float4 four = *reinterpret_cast<const float4*>(here);
            x.v[0] = T(four.x), x.v[1 % P] = T(four.y), x.v[2 % P] = T(four.z), x.v[3 % P] = T(four.w);
        } else {
            for (u32 i = 0; i < P; ++i) x.v[i] = load_as<T>(array, access.dtype, first + i * stride);
        }
        return x;
    }
#pragma unroll
    for (int i = 0; i < P; ++i) x.v[i] = load_as<T>(array, access.dtype, offset(access, point[i]));
    return x;
}

// Points from `point` on are neighbours from a multiple of four on, if they are four.
template <class T, int P, bool CONSECUTIVE>
__device__ __forceinline__ Pack<T, P> stream(const float* array, const u32 (&point)[P]) {
    Pack<T, P> x;
    if (CONSECUTIVE && P == 4 && point[P - 1] == point[0] + P - 1 && (reinterpret_cast<u64>(array) & 15) == 0) {
        float4 four = *reinterpret_cast<const float4*>(array + point[0]);
        x.v[0] = T(four.x), x.v[1 % P] = T(four.y), x.v[2 % P] = T(four.z), x.v[3 % P] = T(four.w);
    } else {
#pragma unroll
        for (int i = 0; i < P; ++i) x.v[i] = T(array[point[i]]);
    }
    return x;
}

template <class T>
__device__ __forceinline__ T constant(i32 bits, double value) {
    return sizeof(T) == 4 ? T(__uint_as_float(u32(bits))) : T(value);
}

template <class T>
__device__ __forceinline__ T raise(T x, i32 n) {
    T power = T(1);
    for (u32 left = n < 0 ? 0u - u32(n) : u32(n); left > 0; left >>= 1) {
        if (left & 1) power = power * x;
        x = x * x;
    }
    return n < 0 ? T(1) / power : power;
}

// Called, so that what is rare takes no registers from the rest.
__device__ __noinline__ float rare(u32 op, float x) {
    switch (op) {
        case SOFTPLUS: return softplus_f32(x);
        case LOG1P: return log1p_f32(x);
        case EXPM1: return expm1_f32(x);
        case SIN: return sin_f32(x);
        case COS: return cos_f32(x);
        case ERF: return erf_f32(x);
        default: return erfc_f32(x);
    }
}
__device__ __noinline__ float rare_power(float x, float y) { return pow_f32(x, y); }

// Functions that only f32 needs: in f64 the CUDA device copies integers.
template <class T> __device__ __forceinline__ T function(u32, T x) { return x; }
template <> __device__ __forceinline__ float function<float>(u32 op, float x) {
    switch (op) {
        case EXP: return exp_f32(x);
        case LOG: return log_f32(x);
        case SQRT: return sqrtf(x);
        case RSQRT: return 1.0f / sqrtf(x);
        case TANH: return tanh_f32(x);
        case SIGMOID: return sigmoid_f32(x);
        case TANH_SLOPE: return tanh_slope_f32(x);
        case SIGMOID_SLOPE: return sigmoid_slope_f32(x);
        case ABS: return fabsf(x);
        default: return rare(op, x);
    }
}
template <class T> __device__ __forceinline__ T power(T x, T) { return x; }
template <> __device__ __forceinline__ float power<float>(float x, float y) { return rare_power(x, y); }

// Functions of one value and of two: x is the last value, y that of cell b.
#define EACH(expression)                                                        \
    {                                                                           \
        _Pragma("unroll") for (int i = 0; i < P; ++i) {                         \
            T x = last.v[i];                                                    \
            last.v[i] = (expression);                                           \
            (void)x;                                                            \
        }                                                                       \
    }
#define EACH2(expression)                                                       \
    {                                                                           \
        const Pack<T, P> other = cells.load(b);                                 \
        _Pragma("unroll") for (int i = 0; i < P; ++i) {                         \
            T x = last.v[i], y = other.v[i];                                    \
            last.v[i] = (expression);                                           \
        }                                                                       \
    }

template <class T, int P, bool CONSECUTIVE>
__device__ __forceinline__ void evaluate(const u64* slots, const MapArgs& args, const u32 (&point)[P],
                                         const Cells<T, P, THREADS>& cells) {
    const Instruction* code = at<const Instruction>(slots, args.code);
    const Access* accesses = at<const Access>(slots, args.accesses);
    Pack<T, P> last = {};
    Head next = *reinterpret_cast<const Head*>(code);
    for (u32 step = 0; step < args.instructions; ++step) {
        const Head head = next;
        const Instruction& instruction = code[step];
        // The last one is followed by another, which does nothing.
        next = *reinterpret_cast<const Head*>(code + step + 1);
        const u32 op = head.op_cell & 0xFFFF, cell = head.op_cell >> 16, a = head.a_b & 0xFFFF, b = head.a_b >> 16;
        if (a != NOWHERE) last = cells.load(a);
        // The most frequent ones first: the rest is found by bisection.
        if (op == MUL) {
            EACH2(x * y)
        } else if (op == ADD) {
            EACH2(x + y)
        } else if (op == STREAM) {
            last = stream<T, P, CONSECUTIVE>(at<const float>(slots, instruction.array), point);
        } else {
            switch (op) {
                case SUB: EACH2(x - y) break;
                case LOAD: last = load<T, P, CONSECUTIVE>(slots, accesses[head.n], point); break;
                case SAME: {
                    T one = T(*at<const float>(slots, instruction.array));
                    EACH(one) break;
                }
                case INDEX:
#pragma unroll
                    for (int i = 0; i < P; ++i) last.v[i] = T(offset(accesses[head.n], point[i]));
                    break;
                case CONST: EACH(constant<T>(i32(head.n), instruction.value)) break;
                case SELECT: {
                    const Pack<T, P> third = cells.load(head.c & 0xFFFF);
                    EACH2(x == T(0) ? third.v[i] : y) break;
                }
                case NEG: EACH(-x) break;
                case SIGN: EACH(x != x ? x : T(x > T(0)) - T(x < T(0))) break;
                case POWI: EACH(raise(x, i32(head.n))) break;
                case STRONG_MUL: EACH2(strong_mul(x, y)) break;
                case DIV: EACH2(x / y) break;
                case MAX: EACH2(x > y || x != x ? x : y) break;
                case MIN: EACH2(x < y || x != x ? x : y) break;
                case LESS: EACH2(T(x < y)) break;
                case LESS_EQ: EACH2(T(x <= y)) break;
                case EQUAL: EACH2(T(x == y)) break;
                case POW: EACH2(power(x, y)) break;
                default: EACH(function(op, x)) break;
            }
        }
        if (cell != NOWHERE) cells.store(cell, last);
    }
}

template <class T, int P>
__device__ __forceinline__ void store(const u64* slots, const Access& access, u32 point, T x) {
    store_as(at<void>(slots, access.array), access.dtype, offset(access, point), x);
}

template <class T, int P>
__device__ __forceinline__ void full(const u64* slots, const MapArgs& args) {
    DYNAMIC_SHARED(shared_cells);
    const Cells<T, P, THREADS> cells(shared_cells);
    const Access* stores = at<const Access>(slots, args.stores);
    u32 first = (blockIdx.x * THREADS + threadIdx.x) * P, point[P];
    if (first >= args.points) return;
    for (u32 i = 0; i < P; ++i) point[i] = first + i < args.points ? first + i : args.points - 1;
    evaluate<T, P, true>(slots, args, point, cells);
    for (u32 s = 0; s < args.store_count; ++s) {
        const Access& access = stores[s];
        Pack<T, P> x = cells.load(access.cell);
        float* here = at<float>(slots, access.array) + first;
        bool whole = P == 4 && access.dtype == F32 && first + P <= args.points;
        if (whole && (reinterpret_cast<u64>(here) & 15) == 0) {
            *reinterpret_cast<float4*>(here) =
                make_float4(float(x.v[0]), float(x.v[1 % P]), float(x.v[2 % P]), float(x.v[3 % P]));
            continue;
        }
        void* array = at<void>(slots, access.array);
        for (u32 i = 0; i < P && first + i < args.points; ++i) store_as(array, access.dtype, first + i, x.v[i]);
    }
}

template <class T, int P>
__device__ __forceinline__ void sum(const u64* slots, const MapArgs& args) {
    DYNAMIC_SHARED(shared_cells);
    const Cells<T, P, THREADS> cells(shared_cells);
    T* sums = reinterpret_cast<T*>(reinterpret_cast<Pack<T, P>*>(shared_cells) + args.cells * THREADS);
    const Access* stores = at<const Access>(slots, args.stores);
    const Sum* outs = at<const Sum>(slots, args.sums);
    u32 lanes = 1u << args.lane_bits, columns = THREADS >> args.lane_bits;
    u32 block = blockIdx.x % args.blocks, chunk = blockIdx.x / args.blocks;
    // Neighbouring threads go along the axis that is contiguous in memory.
    u32 lane = args.lanes_inner ? threadIdx.x & (lanes - 1) : threadIdx.x / columns;
    u32 column = args.lanes_inner ? threadIdx.x >> args.lane_bits : threadIdx.x & (columns - 1);
    u32 kept = block * columns + column, row = (kept < args.kept ? kept : args.kept - 1) * args.reduce;
    u32 begin = chunk * args.chunk, end = begin + args.chunk < args.reduce ? begin + args.chunk : args.reduce;

    for (u32 s = 0; s < args.sum_count; ++s) sums[s * THREADS + threadIdx.x] = T(0);
    for (u32 first = begin + lane; first < end; first += lanes * P) {
        u32 point[P];
        for (u32 i = 0; i < P; ++i) point[i] = row + (first + i * lanes < end ? first + i * lanes : first);
        evaluate<T, P, false>(slots, args, point, cells);
        if (kept >= args.kept) break;
        for (u32 s = 0; s < args.store_count; ++s) {
            Pack<T, P> x = cells.load(stores[s].cell);
            for (u32 i = 0; i < P && first + i * lanes < end; ++i) store<T, P>(slots, stores[s], point[i], x.v[i]);
        }
        for (u32 s = 0; s < args.sum_count; ++s) {
            Pack<T, P> x = cells.load(outs[s].cell);
            T total = sums[s * THREADS + threadIdx.x];
            for (u32 i = 0; i < P && first + i * lanes < end; ++i) total = total + x.v[i];
            sums[s * THREADS + threadIdx.x] = total;
        }
    }
    u32 apart = args.lanes_inner ? 1 : columns;
    for (u32 half = lanes / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane >= half) continue;
        for (u32 s = 0; s < args.sum_count; ++s) {
            T* mine = sums + s * THREADS + threadIdx.x;
            *mine = *mine + mine[half * apart];
        }
    }
    if (lane > 0 || kept >= args.kept) return;
    for (u32 s = 0; s < args.sum_count; ++s) {
        T total = sums[s * THREADS + threadIdx.x];
        if (args.chunks > 1) {
            at<T>(slots, args.partials)[(s * args.chunks + chunk) * args.kept + kept] = total;
        } else {
            store_as(at<void>(slots, outs[s].output), outs[s].dtype, kept, total);
        }
    }
}

KERNEL(THREADS, 8, map_full_4, MapArgs) { full<float, 4>(slots, args); }
KERNEL(THREADS, 8, map_full_1, MapArgs) { full<float, 1>(slots, args); }
KERNEL(THREADS, 8, map_full_f64, MapArgs) { full<double, 1>(slots, args); }
KERNEL(THREADS, 8, map_sum_4, MapArgs) { sum<float, 4>(slots, args); }
KERNEL(THREADS, 8, map_sum_1, MapArgs) { sum<float, 1>(slots, args); }
EXPORT(map_full_4)
EXPORT(map_full_1)
EXPORT(map_full_f64)
EXPORT(map_sum_4)
EXPORT(map_sum_1)

struct MapCombineArgs {
    u64 partials, output;
    u32 first, kept, chunks, dtype;
};
static_assert(sizeof(MapCombineArgs) == 32, "as on the host");

// The sums of chunks, added in their order: a thread per sum.
KERNEL(256, 4, map_combine, MapCombineArgs) {
    u32 kept = blockIdx.x * 256 + threadIdx.x;
    if (kept >= args.kept) return;
    const float* partials = at<const float>(slots, args.partials) + args.first + kept;
    float total = 0.0f;
    for (u32 chunk = 0; chunk < args.chunks; ++chunk) total = total + partials[chunk * args.kept];
    store_as(at<void>(slots, args.output), args.dtype, kept, total);
}
EXPORT(map_combine)
