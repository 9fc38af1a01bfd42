// Runs CUDA kernels on the host, for tests: the same sources, compiled as C++ with -DCUDA_ON_CPU.
//
// A CUDA thread is a fiber with a stack of its own; a block's fibers take turns, one block after another. A
// fiber runs until it meets a barrier, so a missing barrier shows as wrong numbers every time, and a barrier
// that not all threads reach is found when nobody can run. Fibers run in order of their numbers, or in
// reverse (CUDA_ON_CPU_ORDER=reversed), so that nothing may depend on the order; or one warp, another in each block, runs only
// when no other can (CUDA_ON_CPU_ORDER=starved), so that whoever may come before it does. Shared memory is static
// (one block runs at a time); that whose size the launch chooses ends at a page that must not be touched.
// Asynchronous copies leave poison, and land when their thread waits for them and not before; products of warpgroups read
// shared memory and write their sums then.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <sys/mman.h>
#include <utility>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ inline __attribute__((noinline))
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define DYNAMIC_SHARED(name) unsigned char* name = shim::block.dynamic

struct dim3 {
    unsigned x, y, z;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

enum State : uint8_t { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, AT_NUMBERED_BARRIER, DONE };
constexpr unsigned BARRIERS = 16;
constexpr size_t STACK = 64 << 10, MOST_THREADS = 1024, PAGE = 4096;

#if defined(__x86_64__)
typedef void* Context;
extern "C" void shim_switch(void** save, void* load);
asm(R"(
.text
.weak shim_switch
.type shim_switch,@function
shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
inline void exchange(Context& from, Context& to) { shim_switch(&from, to); }
inline void start(Context& context, uint8_t* stack, void (*entry)()) {
    void** top = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(stack + STACK) & ~uintptr_t(63)) - 8);
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    context = top;
}
#else
typedef ucontext_t Context;
inline void exchange(Context& from, Context& to) { swapcontext(&from, &to); }
inline void start(Context& context, uint8_t* stack, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}
#endif

struct Copy {
    void* to;
    const void* from;  // null: zeros
    unsigned bytes, group;
};

// A thread's part of a product by a warpgroup: two rows of A, 32 bytes of each, and where B's rows begin.
struct Product {
    float (*sums)[4];
    unsigned columns, group;
    uint32_t rows[2][8];
    const unsigned char* right;
};

struct Fiber {
    Context context;
    uint8_t* stack;
    State state;
    dim3 index;
    std::deque<Copy> copies;  // on their way, oldest first
    unsigned group;           // that of the next copy
    std::deque<Product> products;
    unsigned product_group;
    unsigned barrier;  // that it waits at, if it has a number
};

struct Block {
    Fiber fibers[MOST_THREADS];
    Context host;
    unsigned threads, running, waiting, warp_waiting[MOST_THREADS / 32], numbered[BARRIERS];
    bool reversed, starved;
    unsigned char* dynamic;
    void (*body)(void*);
    void* argument;
    // What the lanes of a warp show each other.
    unsigned char shown[MOST_THREADS][32];
};
inline Block block;

[[noreturn]] inline void fail(const char* why) {
    fprintf(stderr, "cuda_on_cpu: %s in block %u; threads (r = ready, B = at the block's barrier, W = at the warp's, "
                    "N = at one with a number, d = done):\n", why, blockIdx.x);
    for (unsigned i = 0; i < block.threads; ++i) {
        fputc("rBWNd"[block.fibers[i].state], stderr);
        if (i % 32 == 31) fputc('\n', stderr);
    }
    fputc('\n', stderr);
    abort();
}

inline void resume(unsigned i) {
    block.running = i;
    threadIdx = block.fibers[i].index;
}

// The fiber that runs after this one, or none.
inline int next(unsigned from) {
    const unsigned warps = (block.threads + 31) / 32, last = blockIdx.x % warps;
    int found = -1;
    for (unsigned k = 1; k <= block.threads; ++k) {
        unsigned i = block.reversed ? (from + block.threads - k) % block.threads : (from + k) % block.threads;
        if (block.fibers[i].state != READY) continue;
        if (!block.starved || i / 32 != last) return int(i);
        if (found < 0) found = int(i);
    }
    return found;
}

inline void yield() {
    unsigned me = block.running;
    int to = next(me);
    if (to < 0) {
        for (unsigned i = 0; i < block.threads; ++i) {
            if (block.fibers[i].state != DONE) fail("a barrier that not all threads reach");
        }
        exchange(block.fibers[me].context, block.host);
        return;
    }
    resume(unsigned(to));
    if (unsigned(to) != me) exchange(block.fibers[me].context, block.fibers[to].context);
}

inline void entry() {
    block.body(block.argument);
    block.fibers[block.running].state = DONE;
    for (;;) yield();
}

// Threads that have returned do not count at barriers, as on devices since Volta they must not be waited for;
// here that is an error unless all others have returned, too.
inline void block_barrier() {
    block.fibers[block.running].state = AT_BLOCK_BARRIER;
    if (++block.waiting == block.threads) {
        block.waiting = 0;
        for (unsigned i = 0; i < block.threads; ++i) block.fibers[i].state = READY;
        return;
    }
    yield();
}

inline void warp_barrier() {
    unsigned first = block.running & ~31u, lanes = block.threads - first < 32 ? block.threads - first : 32;
    block.fibers[block.running].state = AT_WARP_BARRIER;
    if (++block.warp_waiting[first / 32] == lanes) {
        block.warp_waiting[first / 32] = 0;
        for (unsigned i = first; i < first + lanes; ++i) block.fibers[i].state = READY;
        return;
    }
    yield();
}

// A thread comes to a barrier with a number, and waits there for the others or goes on.
inline void numbered_barrier(unsigned barrier, unsigned threads, bool waits) {
    if (barrier == 0 || barrier >= BARRIERS) fail("a barrier's number");
    Fiber& me = block.fibers[block.running];
    if (++block.numbered[barrier] == threads) {
        block.numbered[barrier] = 0;
        for (unsigned i = 0; i < block.threads; ++i) {
            Fiber& fiber = block.fibers[i];
            if (fiber.state == AT_NUMBERED_BARRIER && fiber.barrier == barrier) fiber.state = READY;
        }
    } else if (waits) {
        me.state = AT_NUMBERED_BARRIER;
        me.barrier = barrier;
    }
    // Others may run between, also if it does not wait.
    yield();
}

// Memory that ends at a page nobody may touch, at a multiple of 16; all of it is poison at first.
inline unsigned char* guarded(size_t bytes) {
    size_t room = (bytes + 15) / 16 * 16, pages = (room + PAGE - 1) / PAGE * PAGE;
    void* base = mmap(nullptr, pages + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return nullptr;
    unsigned char* first = static_cast<unsigned char*>(base) + PAGE;
    if (pages > 0 && mprotect(first, pages, PROT_READ | PROT_WRITE) != 0) return nullptr;
    memset(first, 0xAA, pages);
    return first + pages - room;
}

inline void release(void* memory, size_t bytes) {
    size_t room = (bytes + 15) / 16 * 16, pages = (room + PAGE - 1) / PAGE * PAGE;
    unsigned char* first = static_cast<unsigned char*>(memory) + room - pages;
    munmap(first - PAGE, pages + 2 * PAGE);
}

template <class Body>
inline void launch(unsigned blocks, unsigned threads, size_t dynamic, Body body) {
    const char* order = getenv("CUDA_ON_CPU_ORDER");
    block.reversed = order && strcmp(order, "reversed") == 0;
    block.starved = order && strcmp(order, "starved") == 0;
    block.threads = threads;
    block.dynamic = dynamic ? guarded(dynamic) : nullptr;
    block.body = [](void* argument) { (*static_cast<Body*>(argument))(); };
    block.argument = &body;
    gridDim = {blocks, 1, 1};
    blockDim = {threads, 1, 1};
    for (unsigned b = 0; b < blocks; ++b) {
        blockIdx = {block.reversed ? blocks - 1 - b : b, 0, 0};
        block.waiting = 0;
        for (unsigned& there : block.numbered) there = 0;
        if (dynamic && b < 4) memset(block.dynamic, 0xAA, dynamic);
        for (unsigned i = 0; i < threads; ++i) {
            Fiber& fiber = block.fibers[i];
            if (!fiber.stack) {
                fiber.stack = static_cast<uint8_t*>(mmap(nullptr, STACK, PROT_READ | PROT_WRITE,
                                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
            }
            fiber.state = READY;
            fiber.index = {i, 0, 0};
            fiber.copies.clear();
            fiber.group = 0;
            fiber.products.clear();
            fiber.product_group = 0;
            block.warp_waiting[i / 32] = 0;
            start(fiber.context, fiber.stack, entry);
        }
        resume(block.reversed ? threads - 1 : 0);
        exchange(block.host, block.fibers[block.running].context);
        for (unsigned there : block.numbered) {
            if (there != 0) fail("a barrier that threads came to and left");
        }
    }
    if (dynamic) release(block.dynamic, dynamic);
}

// From the driver's list of parameters to a call of the kernel.
template <auto KERNEL> struct Call;
template <class... A, void (*KERNEL)(A...)>
struct Call<KERNEL> {
    template <size_t... I>
    static void with(void** parameters, std::index_sequence<I...>) {
        KERNEL(*static_cast<std::remove_const_t<A>*>(parameters[I])...);
    }
    static void run(void** parameters, unsigned blocks, unsigned threads, size_t dynamic) {
        launch(blocks, threads, dynamic, [=] { with(parameters, std::index_sequence_for<A...>{}); });
    }
    static constexpr size_t sizes[] = {sizeof(A)..., 0};
};

}  // namespace shim

// What the stand-in driver looks for: the kernel, and the sizes of its parameters, ended by 0.
#define EXPORT(kernel)                                                                              \
    extern "C" const size_t* const sizes_of_##kernel = shim::Call<kernel>::sizes;                   \
    extern "C" void call_##kernel(void** parameters, unsigned blocks, unsigned threads, size_t shared) { \
        shim::Call<kernel>::run(parameters, blocks, threads, shared);                               \
    }

inline void __syncthreads() { shim::block_barrier(); }
inline void __syncwarp() { shim::warp_barrier(); }
inline uint64_t __umul64hi(uint64_t a, uint64_t b) { return uint64_t((unsigned __int128)a * b >> 64); }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint32_t(uint64_t(a) * b >> 32); }
inline uint32_t __float_as_uint(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float __uint_as_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
template <class T>
inline T __ldg(const T* from) {
    return *from;
}
inline uint32_t atomicCAS(uint32_t* word, uint32_t expected, uint32_t wanted) {
    uint32_t found = *word;
    if (found == expected) *word = wanted;
    return found;
}

// ---- what lanes of a warp show each other ---------------------------------------------------------------------

// All lanes of a warp take part.
inline float __shfl_xor_sync(uint32_t, float x, unsigned lanes) {
    unsigned me = shim::block.running;
    memcpy(shim::block.shown[me], &x, 4);
    shim::warp_barrier();
    float other;
    memcpy(&other, shim::block.shown[me ^ lanes], 4);
    shim::warp_barrier();
    return other;
}

// ---- asynchronous copies ------------------------------------------------------------------------------------

template <int BYTES>
inline void copy_async(float* to, const float* from, bool there) {
    if (reinterpret_cast<uintptr_t>(to) % BYTES || reinterpret_cast<uintptr_t>(from) % BYTES) {
        shim::fail("an asynchronous copy of an address that is not aligned");
    }
    shim::Fiber& me = shim::block.fibers[shim::block.running];
    memset(to, 0xAA, BYTES);
    me.copies.push_back({to, there ? from : nullptr, BYTES, me.group});
}
inline void commit_copies() { ++shim::block.fibers[shim::block.running].group; }
template <unsigned N>
inline void wait_for_copies() {
    shim::Fiber& me = shim::block.fibers[shim::block.running];
    while (!me.copies.empty() && me.copies.front().group + N < me.group) {
        const shim::Copy& copy = me.copies.front();
        if (copy.from) {
            memcpy(copy.to, copy.from, copy.bytes);
        } else {
            memset(copy.to, 0, copy.bytes);
        }
        me.copies.pop_front();
    }
}

// ---- tensor cores -------------------------------------------------------------------------------------------

inline uint32_t round_tf32(float x) {
    uint32_t bits = __float_as_uint(x);
    return x != x ? bits : (bits + 0x1000u) & ~0x1FFFu;
}
inline uint32_t round_bf16(float x) {
    uint32_t bits = __float_as_uint(x);
    return x != x ? 0x7FFFu : (bits + 0x7FFFu + (bits >> 16 & 1)) >> 16;
}
inline uint32_t pack_bf16(float low, float high) { return round_bf16(high) << 16 | round_bf16(low); }

namespace shim {
// m16n8 of `count` inner indices; element(word, i) is inner index i of a word of `per_word` elements.
template <int PER_WORD, class Element>
inline void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Element element) {
    unsigned me = block.running, first = me & ~31u, group = (me & 31) / 4, within = me & 3;
    memcpy(block.shown[me], a, 16);
    memcpy(block.shown[me] + 16, b, 8);
    warp_barrier();
    for (int i = 0; i < 4; ++i) {
        unsigned row = group + i / 2 * 8, column = within * 2 + i % 2;
        float sum = d[i];
        for (unsigned word = 0; word < 8; ++word) {
            uint32_t left, right;
            memcpy(&left, block.shown[first + (row & 7) * 4 + (word & 3)] + 4 * (row / 8 + word / 4 * 2), 4);
            memcpy(&right, block.shown[first + column * 4 + (word & 3)] + 16 + 4 * (word / 4), 4);
            for (int k = 0; k < PER_WORD; ++k) sum += element(left, k) * element(right, k);
        }
        d[i] = sum;
    }
    warp_barrier();
}
}  // namespace shim

inline void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    shim::multiply_add<1>(d, a, b, [](uint32_t word, int) { return __uint_as_float(word); });
}
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    shim::multiply_add<2>(d, a, b, [](uint32_t word, int i) { return __uint_as_float(i ? word & 0xFFFF0000u : word << 16); });
}

// ---- tensor cores of a warpgroup ------------------------------------------------------------------------------

inline uint64_t matrix_at(const void* shared) {
    if (reinterpret_cast<uintptr_t>(shared) % 1024) shim::fail("a matrix that is not at a multiple of 1024");
    return reinterpret_cast<uintptr_t>(shared);
}
inline uint64_t along(uint64_t matrix, int bytes) { return matrix + bytes; }
inline void show_products() {}
template <int THREADS>
inline void meet(uint32_t barrier) {
    shim::numbered_barrier(barrier, THREADS, true);
}
template <int THREADS>
inline void pass(uint32_t barrier) {
    shim::numbered_barrier(barrier, THREADS, false);
}

namespace shim {
// Queues the product of 32 bytes of each row.
inline void multiply_later(float (*sums)[4], unsigned columns, const uint32_t (&a)[4], uint64_t right) {
    unsigned me = block.running, first = me & ~3u;
    memcpy(block.shown[me], a, 16);
    warp_barrier();
    Fiber& fiber = block.fibers[me];
    Product product = {sums, columns, fiber.product_group, {}, reinterpret_cast<const unsigned char*>(right)};
    for (int row = 0; row < 2; ++row) {
        for (int word = 0; word < 8; ++word) {
            memcpy(&product.rows[row][word], block.shown[first + word % 4] + 4 * (row + word / 4 * 2), 4);
        }
    }
    fiber.products.push_back(product);
    warp_barrier();
}

template <int ROW, int PER_WORD, class Element>
inline void multiply_now(const Product& product, Element element) {
    unsigned within = block.running & 3;
    for (unsigned at = 0; at < product.columns; at += 8) {
        for (unsigned i = 0; i < 4; ++i) {
            unsigned column = at + within * 2 + i % 2;
            float& sum = product.sums[at / 8][i];
            for (unsigned word = 0; word < 8; ++word) {
                uintptr_t from = reinterpret_cast<uintptr_t>(product.right + column * ROW + 4 * word);
                // As the hardware finds it: bits of the address, whatever array it is in.
                from ^= (ROW == 128 ? from >> 7 & 7 : from >> 7 & 3) << 4;
                uint32_t right;
                memcpy(&right, reinterpret_cast<const void*>(from), 4);
                for (int k = 0; k < PER_WORD; ++k) sum += element(product.rows[i / 2][word], k) * element(right, k);
            }
        }
    }
}
}  // namespace shim

template <int COLUMNS, int STEPS>
inline void multiply_row(float (&d)[COLUMNS][4], const uint32_t (&a)[STEPS][4], uint64_t b) {
    for (int step = 0; step < STEPS; ++step) shim::multiply_later(d, 8 * COLUMNS, a[step], along(b, 32 * step));
    ++shim::block.fibers[shim::block.running].product_group;
}

// Differs between precisions, and so belongs to the file that includes it.
namespace {
#ifdef GEMM_BF16
inline void shim_multiply(const shim::Product& product) {
    shim::multiply_now<64, 2>(product, [](uint32_t word, int i) {
        return __uint_as_float(i ? word & 0xFFFF0000u : word << 16);
    });
}
#else
inline void shim_multiply(const shim::Product& product) {
    shim::multiply_now<128, 1>(product, [](uint32_t word, int) { return __uint_as_float(word); });
}
#endif

template <unsigned N>
inline void wait_for_products() {
    shim::Fiber& me = shim::block.fibers[shim::block.running];
    while (!me.products.empty() && me.products.front().group + N < me.product_group) {
        shim_multiply(me.products.front());
        me.products.pop_front();
    }
}
}  // namespace
