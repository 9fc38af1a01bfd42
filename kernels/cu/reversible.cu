// Momentum whose steps can be undone: D. Maclaurin, D. Duvenaud, R. Adams, «Gradient-based hyperparameter
// optimization through reversible learning», ICML 2015. Numbers are whole multiples of 2^-46, bits that a
// multiplication by the momentum loses are kept: `reversible.rs` says how. Integers, and floats that are scaled
// and rounded, so the bits are the CPU's.
//
//     advance:  u = momentum · u + gradient;  theta -= lr · u    // a thread per parameter
//     undo:     theta += lr · u;  u = (u - gradient) / momentum
//
// State u32 [6 count + 2]. An advance reads 24 + 12 bytes per parameter and writes 24, with some 40 integer
// operations.
#include "common.cuh"

typedef long long i64;

// Arrays that a kernel does not use are 0.
struct ReversibleArgs {
    u64 output, state, theta, u, gradient, lr, momentum;
    u32 count, pad;
};
static_assert(sizeof(ReversibleArgs) == 64, "as on the host");

const u64 SET = 1ull << 62, REST = (1ull << 24) - 1;
const i64 MOST = 1ll << 61;

// A momentum n / 2^24; n is 0 if it is none.
struct Ratio {
    u64 n, reciprocal;
};

__device__ __forceinline__ Ratio ratio(float momentum) {
    if (!(momentum >= 0.0f && momentum <= 1.0f)) return {0, 0};
    u64 n = u64(rintf(momentum * 16777216.0f));
    n = n == 0 ? 1 : n;
    return {n, ~0ull / n};
}

// x becomes x / n; the remainder is returned. The quotient by the reciprocal is right or one too small.
__device__ __forceinline__ u64 split(u64& x, Ratio ratio) {
    u64 quotient = __umul64hi(x, ratio.reciprocal), rest = x - quotient * ratio.n;
    bool more = rest >= ratio.n;
    x = quotient + (more ? 1 : 0);
    return more ? rest - ratio.n : rest;
}

// Whether 32 bits must be taken out before a multiplication; the most that the bits can be after it.
__device__ __forceinline__ bool grow(u64& most, Ratio ratio) {
    u64 quotient = most;
    split(quotient, ratio);
    bool full = quotient >> 40 > 0;
    if (full) most >>= 32;
    split(most, ratio);
    most = most << 24 | REST;
    return full;
}

__device__ __forceinline__ void multiply(i64& x, u64& bits, Ratio ratio) {
    u64 dither = split(bits, ratio);
    u64 low = (u64(x) & REST) * ratio.n + dither;
    x = i64(u64(x >> 24) * ratio.n + (low >> 24));
    bits = bits << 24 | (low & REST);
}

__device__ __forceinline__ void unmultiply(i64& x, u64& bits, Ratio ratio) {
    i64 sign = x >> 63;
    u64 high = u64(x ^ sign);
    split(high, ratio);
    high ^= u64(sign);
    u64 low = (u64(x) - high * ratio.n) << 24 | (bits & REST);
    u64 dither = split(low, ratio);
    x = i64((high << 24) + low);
    bits = (bits >> 24) * ratio.n + dither;
}

struct Numbers {
    i64 theta, u;
    u64 bits;
};

__device__ __forceinline__ u64 join(const u32* words, u32 count, u32 i) {
    return u64(words[u64(count) + i]) << 32 | words[i];
}

// False where nothing was stored.
__device__ __forceinline__ bool load(const u32* words, u32 count, u32 i, Numbers& numbers) {
    u64 pair = u64(count) * 2, theta = join(words, count, i);
    numbers.theta = i64(theta - SET);
    numbers.u = i64(join(words + pair, count, i));
    numbers.bits = join(words + 2 * pair, count, i);
    return theta != 0;
}

__device__ __forceinline__ void store(u32* words, u32 count, u32 i, const Numbers& numbers, bool sound) {
    u64 all[3] = {u64(numbers.theta) + SET, u64(numbers.u), numbers.bits};
    for (u32 k = 0; k < 3; ++k) {
        u64 word = sound ? all[k] : 0;
        words[u64(count) * (2 * k) + i] = u32(word);
        words[u64(count) * (2 * k + 1) + i] = u32(word >> 32);
    }
}

// The nearest number of fixed point; false out of range.
__device__ __forceinline__ bool fixed(float x, i64& result) {
    bool sound = fabsf(x) < 32768.0f;
    result = sound ? i64(rintf(x * 70368744177664.0f)) : 0;
    return sound;
}

__device__ __forceinline__ float floating(i64 x) { return float(x) * 1.4210854715202004e-14f; }

__device__ __forceinline__ bool in_range(i64 x) { return x > -MOST && x < MOST; }

__device__ __forceinline__ void put_most(u32* words, u32 count, u64 most) {
    words[u64(count) * 6] = u32(most);
    words[u64(count) * 6 + 1] = u32(most >> 32);
}

__device__ __forceinline__ u64 most_of(const u32* words, u32 count) { return join(words + u64(count) * 6, 1, 0); }

KERNEL(256, 4, reversible_advance, ReversibleArgs) {
    u32 i = blockIdx.x * 256 + threadIdx.x;
    const u32* from = at<const u32>(slots, args.state);
    u32* to = at<u32>(slots, args.output);
    Ratio momentum = ratio(*at<const float>(slots, args.momentum));
    u64 most = most_of(from, args.count);
    bool valid = momentum.n > 0, carry = false;
    if (valid) {
        carry = grow(most, momentum);
    } else {
        most = 0;
    }
    if (i == 0) put_most(to, args.count, most);
    if (i >= args.count) return;
    Numbers numbers;
    bool sound = valid;
    if (load(from, args.count, i, numbers)) {
        if (carry) numbers.bits >>= 32;
    } else {
        sound = fixed(at<const float>(slots, args.theta)[i], numbers.theta) && sound;
        sound = fixed(at<const float>(slots, args.u)[i], numbers.u) && sound;
        numbers.bits = 0;
    }
    i64 change;
    sound = fixed(at<const float>(slots, args.gradient)[i], change) && sound;
    if (sound) {
        multiply(numbers.u, numbers.bits, momentum);
        numbers.u += change;
        sound = in_range(numbers.u) && fixed(*at<const float>(slots, args.lr) * floating(numbers.u), change);
        numbers.theta -= change;
        sound = sound && in_range(numbers.theta);
    }
    store(to, args.count, i, numbers, sound);
}
EXPORT(reversible_advance)

// False where the weight before is not known.
__device__ __forceinline__ bool weight_before(Numbers& numbers, float lr) {
    i64 change;
    bool sound = fixed(lr * floating(numbers.u), change);
    numbers.theta = i64(u64(numbers.theta) + u64(change));
    return sound;
}

KERNEL(256, 4, reversible_undo, ReversibleArgs) {
    u32 i = blockIdx.x * 256 + threadIdx.x;
    const u32* from = at<const u32>(slots, args.state);
    u32* to = at<u32>(slots, args.output);
    Ratio momentum = ratio(*at<const float>(slots, args.momentum));
    if (i == 0) put_most(to, args.count, most_of(from, args.count));
    if (i >= args.count) return;
    Numbers numbers;
    i64 change;
    bool sound = load(from, args.count, i, numbers) && momentum.n > 0;
    sound = fixed(at<const float>(slots, args.gradient)[i], change) && sound;
    sound = weight_before(numbers, *at<const float>(slots, args.lr)) && sound;
    if (sound) {
        numbers.u = i64(u64(numbers.u) - u64(change));
        unmultiply(numbers.u, numbers.bits, momentum);
    }
    store(to, args.count, i, numbers, sound);
}
EXPORT(reversible_undo)

__device__ __forceinline__ void put(const u64* slots, const ReversibleArgs& args, u32 i, i64 number, bool sound) {
    at<float>(slots, args.output)[i] = sound ? floating(number) : __uint_as_float(0x7FC00000u);
}

KERNEL(256, 4, reversible_weight, ReversibleArgs) {
    u32 i = blockIdx.x * 256 + threadIdx.x;
    if (i >= args.count) return;
    Numbers numbers;
    bool sound = load(at<const u32>(slots, args.state), args.count, i, numbers);
    put(slots, args, i, numbers.theta, sound);
}
EXPORT(reversible_weight)

KERNEL(256, 4, reversible_weight_before, ReversibleArgs) {
    u32 i = blockIdx.x * 256 + threadIdx.x;
    if (i >= args.count) return;
    Numbers numbers;
    bool sound = load(at<const u32>(slots, args.state), args.count, i, numbers);
    sound = weight_before(numbers, *at<const float>(slots, args.lr)) && sound;
    put(slots, args, i, numbers.theta, sound);
}
EXPORT(reversible_weight_before)

KERNEL(256, 4, reversible_velocity, ReversibleArgs) {
    u32 i = blockIdx.x * 256 + threadIdx.x;
    if (i >= args.count) return;
    Numbers numbers;
    bool sound = load(at<const u32>(slots, args.state), args.count, i, numbers);
    put(slots, args, i, numbers.u, sound);
}
EXPORT(reversible_velocity)
