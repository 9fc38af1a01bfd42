// Kernels that move or pick elements: zero borders, concatenation, constant indices, rows by an index array,
// the index of the max; and the three that the launching code itself needs (bind, fill, probe).
//
// A thread per element of the result, in its order, so that writes are coalesced, and reads where the
// operation allows. Bytes: result and operands, once. The sums of adjoints run in the order of the indices, on
// one thread each: no atomics, the bits are the CPU's.
//
//     pad:           y[i + before] = x[i], else 0           // along every axis
//     copy_rows:     y[row][start + i] = x[row][i]
//     take:          y[o][j][i] = x[o][index[j]][i]
//     take_adjoint:  x[o][index[j]][i] += y[o][j][i]        // x is 0 before
//     rows:          y[j][i] = x[index[j]][i]
//     rows_adjoint:  x[index[j]][i] += y[j][i]              // x is 0 before
//     argmax:        y[o][i] = the first j with the largest x[o][j][i]
#include "math.cuh"

// ---- the launching code's own -----------------------------------------------------------------------------

const u32 BIND = 60;

struct BindArgs {
    u64 first, count, bases[BIND];
};
static_assert(sizeof(BindArgs) == 496, "as on the host");

// Writes the addresses of slots into the table that all kernels of a program read.
extern "C" __global__ void __launch_bounds__(64) bind_slots(u64* slots, const BindArgs args) {
    if (threadIdx.x < args.count) slots[args.first + threadIdx.x] = args.bases[threadIdx.x];
}
EXPORT(bind_slots)

struct FillArgs {
    u64 output, bytes;
};
static_assert(sizeof(FillArgs) == 16, "as on the host");

KERNEL(256, 4, fill_zero, FillArgs) {
    u64 i = u64(blockIdx.x) * 256 + threadIdx.x;
    if (i < args.bytes) at<u8>(slots, args.output)[i] = 0;
}
EXPORT(fill_zero)

// What a device must get right before it is called usable.
KERNEL(32, 4, probe, FillArgs) {
    if (threadIdx.x * 4 < args.bytes) at<u32>(slots, args.output)[threadIdx.x] = threadIdx.x * 2654435761u + 7u;
}
EXPORT(probe)

// ---- zero borders -----------------------------------------------------------------------------------------

const u32 PAD_RANK = 8;

struct PadAxis {
    Divisor out;
    u32 before, extent, stride;
};

// Axes innermost first.
struct PadArgs {
    u64 input, output;
    u32 points, rank;
    PadAxis axes[PAD_RANK];
};
static_assert(sizeof(PadArgs) == 216, "as on the host");

template <class T>
__device__ __forceinline__ void pad(const u64* slots, const PadArgs& args) {
    u32 point = blockIdx.x * 256 + threadIdx.x, rest = point, from = 0;
    if (point >= args.points) return;
    bool inside = true;
    for (u32 axis = 0; axis < args.rank; ++axis) {
        const PadAxis& along = args.axes[axis];
        u32 i = split(rest, along.out) - along.before;
        inside = inside && i < along.extent;
        from += i * along.stride;
    }
    at<T>(slots, args.output)[point] = inside ? at<const T>(slots, args.input)[from] : T(0);
}

KERNEL(256, 4, pad_1, PadArgs) { pad<u8>(slots, args); }
KERNEL(256, 4, pad_2, PadArgs) { pad<u16>(slots, args); }
KERNEL(256, 4, pad_4, PadArgs) { pad<u32>(slots, args); }
EXPORT(pad_1)
EXPORT(pad_2)
EXPORT(pad_4)

// ---- concatenation: one launch per input ------------------------------------------------------------------

struct CopyArgs {
    u64 input, output;
    u32 points, out_row, start;
    Divisor row;
};
static_assert(sizeof(CopyArgs) == 40, "as on the host");

template <class T>
__device__ __forceinline__ void copy_rows(const u64* slots, const CopyArgs& args) {
    u32 point = blockIdx.x * 256 + threadIdx.x, row = point;
    if (point >= args.points) return;
    u32 i = split(row, args.row);
    at<T>(slots, args.output)[u64(row) * args.out_row + args.start + i] = at<const T>(slots, args.input)[point];
}

KERNEL(256, 4, copy_rows_1, CopyArgs) { copy_rows<u8>(slots, args); }
KERNEL(256, 4, copy_rows_2, CopyArgs) { copy_rows<u16>(slots, args); }
KERNEL(256, 4, copy_rows_4, CopyArgs) { copy_rows<u32>(slots, args); }
EXPORT(copy_rows_1)
EXPORT(copy_rows_2)
EXPORT(copy_rows_4)

// ---- constant indices along the middle of [outer, n, inner] -----------------------------------------------

// `index` lists, for the adjoint, the places that hold each index: starts [n + 1], then places.
struct TakeArgs {
    u64 input, output, index;
    u32 points, n, picked;
    Divisor inner, axis;
    u32 pad;
};
static_assert(sizeof(TakeArgs) == 64, "as on the host");

KERNEL(256, 4, take, TakeArgs) {
    u32 point = blockIdx.x * 256 + threadIdx.x, rest = point;
    if (point >= args.points) return;
    u32 i = split(rest, args.inner), j = split(rest, args.axis);
    u32 from = (rest * args.n + at<const u32>(slots, args.index)[j]) * args.inner.divisor + i;
    at<float>(slots, args.output)[point] = at<const float>(slots, args.input)[from];
}
EXPORT(take)

KERNEL(256, 4, take_adjoint, TakeArgs) {
    u32 point = blockIdx.x * 256 + threadIdx.x, rest = point;
    if (point >= args.points) return;
    u32 i = split(rest, args.inner), j = split(rest, args.axis);
    const u32* starts = at<const u32>(slots, args.index);
    const u32* places = starts + args.n + 1;
    const float* in = at<const float>(slots, args.input);
    float sum = 0.0f;
    for (u32 place = starts[j]; place < starts[j + 1]; ++place) {
        sum += in[(rest * args.picked + places[place]) * args.inner.divisor + i];
    }
    at<float>(slots, args.output)[point] = sum;
}
EXPORT(take_adjoint)

// ---- rows by an i32 index array ---------------------------------------------------------------------------

struct RowsArgs {
    u64 input, output, index, faults;
    u32 rows, count, step;
    Divisor width;
};
static_assert(sizeof(RowsArgs) == 56, "as on the host");

KERNEL(256, 4, rows, RowsArgs) {
    u32 point = blockIdx.x * 256 + threadIdx.x, row = point;
    if (point >= args.count * args.width.divisor) return;
    u32 i = split(row, args.width), from = at<const u32>(slots, args.index)[row];
    bool sound = from < args.rows;
    if (!sound && i == 0) {
        report(at<FaultWord>(slots, args.faults), ROW_OUTSIDE, args.step, from, row, args.rows);
    }
    const float* in = at<const float>(slots, args.input);
    at<float>(slots, args.output)[point] = sound ? in[from * args.width.divisor + i] : 0.0f;
}
EXPORT(rows)

// Every thread has one element of the result and looks through all indices, which a block shares.
KERNEL(256, 4, rows_adjoint, RowsArgs) {
    __shared__ u32 shared[256];
    u32 point = blockIdx.x * 256 + threadIdx.x, row = point, width = args.width.divisor;
    bool mine = point < args.rows * width;
    u32 i = split(row, args.width);
    const u32* index = at<const u32>(slots, args.index);
    const float* in = at<const float>(slots, args.input);
    float sum = 0.0f;
    for (u32 first = 0; first < args.count; first += 256) {
        u32 here = first + threadIdx.x, many = args.count - first < 256 ? args.count - first : 256;
        if (here < args.count) {
            shared[threadIdx.x] = index[here];
            if (blockIdx.x == 0 && index[here] >= args.rows) {
                report(at<FaultWord>(slots, args.faults), ROW_OUTSIDE, args.step, index[here], here, args.rows);
            }
        }
        __syncthreads();
        for (u32 k = 0; mine && k < many; ++k) {
            if (shared[k] == row) sum += in[(first + k) * width + i];
        }
        __syncthreads();
    }
    if (mine) at<float>(slots, args.output)[point] = sum;
}
EXPORT(rows_adjoint)

// ---- the index of the max along the middle of [outer, n, inner] --------------------------------------

struct ArgMaxArgs {
    u64 input, output;
    u32 points, n;
    Divisor inner;
    u32 pad;
};
static_assert(sizeof(ArgMaxArgs) == 40, "as on the host");

KERNEL(256, 4, argmax, ArgMaxArgs) {
    u32 point = blockIdx.x * 256 + threadIdx.x, outer = point, inner = args.inner.divisor;
    if (point >= args.points) return;
    u32 i = split(outer, args.inner), best = 0;
    const float* in = at<const float>(slots, args.input) + u64(outer) * args.n * inner + i;
    float max = in[0];
    for (u32 j = 1; j < args.n; ++j) {
        if (beats(in[j * inner], max)) {
            max = in[j * inner];
            best = j;
        }
    }
    at<i32>(slots, args.output)[point] = i32(best);
}
EXPORT(argmax)
