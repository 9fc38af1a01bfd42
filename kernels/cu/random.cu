// Counter-based random numbers: Philox 4x32-10 of J. Salmon, M. Moraes, R. Dror, D. Shaw, «Parallel random
// numbers: as easy as 1, 2, 3», SC 2011. Uniform in [0, 1) with 24 bits, or normal by Box-Muller.
//
//     for (i = 0; i < count; i += 4)                        // a thread per i
//         words = philox({i / 4, op, key[2], key[3]}, key[0], key[1]);
//         output[i + j] = words[j] / 2^32, j < 4            // or, of pairs, their Box-Muller transform
//
// Input u32 [4] (the key), output f32 [count]; element i is word i mod 4 of call i / 4, so the numbers are
// those of the CPU. 4 bytes written and about 10 (uniform) or 40 (normal) operations per element.
#include "math.cuh"

struct RandomArgs {
    u64 key, output;
    u32 count, op, normal, pad;
};
static_assert(sizeof(RandomArgs) == 32, "as on the host");

__device__ __forceinline__ void philox(u32 (&counter)[4], u32 key0, u32 key1) {
    for (int round = 0; round < 10; ++round) {
        u32 a = counter[0] * 0xD2511F53u, b = counter[2] * 0xCD9E8D57u;
        u32 high_a = __umulhi(counter[0], 0xD2511F53u), high_b = __umulhi(counter[2], 0xCD9E8D57u);
        counter[0] = high_b ^ counter[1] ^ key0;
        counter[2] = high_a ^ counter[3] ^ key1;
        counter[1] = b;
        counter[3] = a;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

__device__ __forceinline__ float uniform(u32 word) { return float(word >> 8) * 5.9604644775390625e-8f; }

// In (0, 1], of all bits, for a longer tail of the normal distribution than 24 would give.
__device__ __forceinline__ float positive(u32 word) {
    return float(word) * 2.3283064365386963e-10f + 1.1641532182693481e-10f;
}

KERNEL(256, 4, random_numbers, RandomArgs) {
    u32 call = blockIdx.x * 256 + threadIdx.x;
    if (call * 4ull >= args.count) return;
    const u32* key = at<const u32>(slots, args.key);
    u32 words[4] = {call, args.op, key[2], key[3]};
    philox(words, key[0], key[1]);
    float numbers[4];
    if (args.normal) {
        for (int i = 0; i < 4; i += 2) {
            float radius = sqrtf(-(2.0f * log_f32(positive(words[i])))), cosine, sine;
            cos_sin_turns(uniform(words[i + 1]), cosine, sine);
            numbers[i] = radius * cosine;
            numbers[i + 1] = radius * sine;
        }
    } else {
        for (int i = 0; i < 4; ++i) numbers[i] = uniform(words[i]);
    }
    float* out = at<float>(slots, args.output);
    for (u32 i = 0; i < 4 && call * 4 + i < args.count; ++i) out[call * 4 + i] = numbers[i];
}
EXPORT(random_numbers)
