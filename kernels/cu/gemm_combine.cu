// Adds the partial sums of a product whose inner index was split, in any precision: see gemm.cuh. A file of its
// own, because the others take the driver a second or two to compile.
//
//     for (i = 0; i < size; ++i)                            // a thread per element of C, for each of the batch
//         total = accumulate ? C[i] : 0;
//         for (product = 0; product < products; ++product)  // two of a pair
//             sum = 0;
//             for (split = 0; split < splits; ++split) sum += partials[product][split][i];
//             total += sum;
//         C[i] = total;
//
// Bytes: the partial sums and C, once.
#include "common.cuh"

struct CombineArgs {
    u64 partials, output;
    u32 size, splits, batch, accumulate, products, pad;
};
static_assert(sizeof(CombineArgs) == 40, "as on the host");

// Adds the partial sums of a product in their order, then the products, the first to C if asked.
KERNEL(256, 4, gemm_combine, CombineArgs) {
    u64 point = u64(blockIdx.x) * 256 + threadIdx.x;
    if (point >= u64(args.size) * args.batch) return;
    u32 batch = u32(point / args.size), i = u32(point - u64(batch) * args.size);
    u64 parts = args.splits * args.products;
    const float* partials = at<const float>(slots, args.partials) + batch * parts * args.size + i;
    float* out = at<float>(slots, args.output) + point;
    bool add = args.accumulate;
    float total = add ? *out : 0.0f;
    for (u32 product = 0; product < args.products; ++product) {
        float sum = 0.0f;
        for (u32 split = 0; split < args.splits; ++split, partials += args.size) sum += *partials;
        total = add ? total + sum : sum;
        add = true;
    }
    *out = total;
}
EXPORT(gemm_combine)
