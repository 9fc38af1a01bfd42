// Matrix products and convolutions in exact f32 (no tensor cores): see gemm.cuh, gemm_fp32.cuh.
#include "gemm.cuh"

GEMMS(fp32)

struct CombineArgs {
    u64 partials, out;
    u32 size, splits, batch, accumulate;
};
static_assert(sizeof(CombineArgs) == 32, "as on the host");

// Adds the partial products of splits in their order, then to C if asked: a thread per element.
KERNEL(256, 4, gemm_combine, CombineArgs) {
    u64 point = u64(blockIdx.x) * 256 + threadIdx.x;
    if (point >= u64(args.size) * args.batch) return;
    u32 batch = u32(point / args.size), i = u32(point - u64(batch) * args.size);
    const float* partials = at<const float>(slots, args.partials) + u64(batch) * args.splits * args.size + i;
    float sum = 0.0f;
    for (u32 split = 0; split < args.splits; ++split) sum += partials[u64(split) * args.size];
    float* out = at<float>(slots, args.out) + point;
    *out = args.accumulate ? *out + sum : sum;
}
EXPORT(gemm_combine)
