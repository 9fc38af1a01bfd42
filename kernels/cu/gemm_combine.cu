// Adds the partial sums of a product whose inner index was split, in any precision: see gemm.cuh. A file of its
// own, because the others take the driver a second or two to compile.
//
//     for (i = 0; i < size; ++i)                            // for each of the batch
//         total = accumulate ? C[i] : 0;
//         for (product = 0; product < products; ++product)  // two of a pair
//             sum = 0;
//             for (split = 0; split < splits; ++split) sum += partials[product][split][i];
//             total += sum;
//         C[i] = total;
//
// Launch: `groups` threads per element of C, each with a range of the splits: their sums are added in order, too.
// Bytes: the partial sums and C, once.
#include "common.cuh"

struct CombineArgs {
    u64 partials, output;
    u32 size, splits, batch, accumulate, products, groups;
};
static_assert(sizeof(CombineArgs) == 40, "as on the host");

constexpr int THREADS = 256;

KERNEL(THREADS, 4, gemm_combine, CombineArgs) {
    __shared__ float sums[THREADS];
    const u32 width = THREADS / args.groups, group = threadIdx.x / width;
    const u32 point = blockIdx.x * width + threadIdx.x % width, batch = point / args.size;
    const u32 range = (args.splits + args.groups - 1) / args.groups, begin = group * range;
    const u32 end = begin + range < args.splits ? begin + range : args.splits;
    const bool there = point < args.size * args.batch;
    const float* partials = at<const float>(slots, args.partials) + (point - batch * args.size) +
                            u64(batch) * args.splits * args.products * args.size;
    float* out = at<float>(slots, args.output) + point;
    const bool writes = there && group == 0;
    bool add = args.accumulate;
    float total = add && writes ? *out : 0.0f;
    for (u32 product = 0; product < args.products; ++product) {
        float sum = 0.0f;
        if (there) {
#pragma unroll 8
            for (u32 split = begin; split < end; ++split) sum += partials[u64(split) * args.size];
        }
        if (args.groups > 1) {
            __syncthreads();
            sums[threadIdx.x] = sum;
            __syncthreads();
            sum = 0.0f;
            if (group == 0) {
                for (u32 other = 0; other < args.groups; ++other) sum += sums[other * width + threadIdx.x];
            }
        }
        total = add ? total + sum : sum;
        add = true;
        partials += u64(args.splits) * args.size;
    }
    if (writes) *out = total;
}
EXPORT(gemm_combine)
