// Kernels with a fault each, to see the host shim find it; and the sound one that they were made from.
//
// Each shifts an array by one place through shared memory: a thread per element, one block.
#include "async.cuh"

const u32 COUNT = 256;

struct ShiftArgs {
    float *in, *out;
};

__device__ __forceinline__ void shift(const ShiftArgs& args, bool barrier, u32 beyond) {
    __shared__ float shared[COUNT];
    u32 i = threadIdx.x;
    shared[i] = args.in[i + beyond];
    if (barrier) __syncthreads();
    args.out[i] = shared[(i + 1) % COUNT];
}

KERNEL(256, 1, sound, ShiftArgs) { shift(args, true, 0); }
KERNEL(256, 1, missing_barrier, ShiftArgs) { shift(args, false, 0); }
KERNEL(256, 1, divergent_barrier, ShiftArgs) { shift(args, threadIdx.x < 100, 0); }
KERNEL(256, 1, outside, ShiftArgs) { shift(args, true, 4); }
KERNEL(256, 1, outside_shared, ShiftArgs) {
    DYNAMIC_SHARED(bytes);
    bytes[threadIdx.x * 4 + 16] = 1;
    shift(args, true, 0);
}

KERNEL(256, 1, misaligned, ShiftArgs) {
    if (threadIdx.x == 0) *reinterpret_cast<float4*>(args.out) = *reinterpret_cast<const float4*>(args.in + 1);
    shift(args, true, 0);
}

// The same shift, through copies that nobody waits for; a second, empty group comes after them.
template <bool WAIT, int NEWEST>
__device__ __forceinline__ void shift_async(const ShiftArgs& args) {
    __shared__ float shared[COUNT];
    u32 i = threadIdx.x;
    copy_async<4>(&shared[i], &args.in[i], true);
    commit_copies();
    commit_copies();
    if (WAIT) wait_for_copies<NEWEST>();
    __syncthreads();
    args.out[i] = shared[(i + 1) % COUNT];
}

KERNEL(256, 1, sound_copies, ShiftArgs) { shift_async<true, 1>(args); }
KERNEL(256, 1, missing_wait, ShiftArgs) { shift_async<false, 0>(args); }
KERNEL(256, 1, wrong_count, ShiftArgs) { shift_async<true, 2>(args); }
EXPORT(sound)
EXPORT(missing_barrier)
EXPORT(divergent_barrier)
EXPORT(outside)
EXPORT(outside_shared)
EXPORT(misaligned)
EXPORT(sound_copies)
EXPORT(missing_wait)
EXPORT(wrong_count)

int main(int, char** arguments) {
    std::string name = arguments[1];
    auto run = name == "sound"               ? call_sound
               : name == "missing_barrier"   ? call_missing_barrier
               : name == "divergent_barrier" ? call_divergent_barrier
               : name == "outside"           ? call_outside
               : name == "outside_shared"    ? call_outside_shared
               : name == "misaligned"        ? call_misaligned
               : name == "sound_copies"      ? call_sound_copies
               : name == "missing_wait"      ? call_missing_wait
                                             : call_wrong_count;
    ShiftArgs args = {reinterpret_cast<float*>(shim::guarded(4 * COUNT)),
                      reinterpret_cast<float*>(shim::guarded(4 * COUNT))};
    for (u32 i = 0; i < COUNT; ++i) args.in[i] = float(i + 1);
    const u64* slots = nullptr;
    void* parameters[] = {&slots, &args};
    run(parameters, 1, COUNT, 4 * COUNT);
    u32 wrong = 0;
    for (u32 i = 0; i < COUNT; ++i) wrong += args.out[i] != float((i + 1) % COUNT + 1);
    printf("%u wrong\n", wrong);
}
