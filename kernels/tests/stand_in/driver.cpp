// A stand-in for libcuda.so.1, for tests: host memory, kernels compiled for the host.
//
// Like the real one it is asynchronous: launches and copies wait in their stream until somebody waits for
// it, so what the caller forgets to wait for shows. Device memory is poison at first and ends at a page that
// must not be touched. A thread that has not made the context its own gets an error. The environment makes it fail on purpose:
//   CUDA_ON_CPU_KERNELS   the library with the kernels
//   CUDA_ON_CPU_INIT      what cuInit returns
//   CUDA_ON_CPU_VERSION   what cuDriverGetVersion says
//   CUDA_ON_CPU_MEMORY    bytes of the device
//   CUDA_ON_CPU_LOSE_AT   number of the launch at which the device is lost
//   CUDA_ON_CPU_COUNT     set: at its end the program says how often it waited, allocated and made a graph
//   CUDA_ON_CPU_MODULES   a folder that the code of all modules is written to
//   CUDA_ON_CPU_LAUNCHED  a file that the names of all kernels that ran are added to
#include <algorithm>
#include "ptx.h"
#include <chrono>
#include <csignal>
#include <unistd.h>
#include <mutex>
#include <set>
#include <string>

typedef int Result;
typedef unsigned long long Address;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_IMAGE = 200, INVALID_CONTEXT = 201, NOT_FOUND = 500, NOT_READY = 600, LAUNCH_FAILED = 719 };

typedef std::vector<std::function<void()>> Work;
struct Stream {
    Work queue;
};
struct Node {
    std::function<void()> work;
    std::set<Node*> before;
};
typedef std::vector<std::shared_ptr<Node>> Graph;
// CUDA_KERNEL_NODE_PARAMS_v2
struct NodeParameters {
    void* function;
    unsigned grid[3], block[3], shared;
    void **parameters, **extra;
    void *kernel, *context;
};
struct Module {
    void* library;
    std::string image;
};
struct Function {
    std::string name;
    std::function<void(void**, unsigned, unsigned, size_t)> call;
    std::vector<size_t> sizes;  // of the parameters
    size_t most_shared = 48 << 10;
};

static std::recursive_mutex guard;
static std::map<Address, size_t> allocations;
static std::vector<Stream*> streams;
static size_t used = 0;
static long launches = 0;
static bool lost = false;
static struct Counts {
    long waits, allocations, graphs;
    std::set<std::string> kernels;
    ~Counts() {
        const char* path = getenv("CUDA_ON_CPU_LAUNCHED");
        if (FILE* file = path ? fopen(path, "a") : nullptr) {
            for (const std::string& kernel : kernels) fprintf(file, "%s\n", kernel.c_str());
            fclose(file);
        }
        if (!getenv("CUDA_ON_CPU_COUNT")) return;
        fprintf(stderr, "cuda_on_cpu: waits %ld, allocations %ld, graphs %ld\n", waits, allocations, graphs);
    }
} counts;
static thread_local void* current = nullptr;
#define ENTER                                              \
    std::lock_guard<std::recursive_mutex> entered(guard);  \
    if (lost) return LAUNCH_FAILED;                        \
    if (!current) return INVALID_CONTEXT

static long setting(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text ? atol(text) : otherwise;
}

static size_t memory() { return size_t(setting("CUDA_ON_CPU_MEMORY", 1L << 30)); }

static Result queue(void* to, std::function<void()> work) {
    Stream* stream = static_cast<Stream*>(to);
    if (!stream) return INVALID_VALUE;  // nobody is to use the default stream
    stream->queue.push_back(std::move(work));
    return SUCCESS;
}

static Result finish(Stream* stream) {
    Work work;
    work.swap(stream->queue);
    for (auto& one : work) {
        one();
        if (lost) return LAUNCH_FAILED;
    }
    return SUCCESS;
}

// Whether a range lies in one allocation.
static bool inside(Address at, size_t bytes) {
    auto after = allocations.upper_bound(at);
    if (after == allocations.begin()) return false;
    auto found = std::prev(after);
    return at + bytes <= found->first + found->second;
}

static void trap(int) {
    const char text[] = "cuda_on_cpu: a kernel touched memory outside of its arrays, or that is not aligned\n";
    (void)!write(2, text, sizeof text - 1);
    _exit(86);
}

static void set_trap() {
    static char stack[1 << 16];
    stack_t alternate = {};
    alternate.ss_sp = stack;
    alternate.ss_size = sizeof stack;
    sigaltstack(&alternate, nullptr);
    struct sigaction action = {};
    action.sa_handler = trap;
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
    sigaction(SIGILL, &action, nullptr);  // -fsanitize=alignment
}

extern "C" {

Result cuInit(unsigned) { return Result(setting("CUDA_ON_CPU_INIT", SUCCESS)); }
Result cuDriverGetVersion(int* version) { *version = int(setting("CUDA_ON_CPU_VERSION", 12040)); return SUCCESS; }
Result cuGetErrorString(Result, const char** text) { *text = "an error of the stand-in driver"; return SUCCESS; }
Result cuGetErrorName(Result, const char** text) { *text = "STAND_IN"; return SUCCESS; }
Result cuDeviceGetCount(int* count) { *count = 1; return SUCCESS; }
Result cuDeviceGet(int* device, int) { *device = 0; return SUCCESS; }
Result cuDeviceGetName(char* text, int room, int) { snprintf(text, size_t(room), "CUDA on CPU"); return SUCCESS; }
Result cuDeviceGetAttribute(int* value, int attribute, int) {
    *value = attribute == 75 ? int(setting("CUDA_ON_CPU_CAPABILITY", 9)) : 0;  // the major number; the minor is 0
    return SUCCESS;
}
Result cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = memory(); return SUCCESS; }
Result cuDevicePrimaryCtxRetain(void** context, int) { static int one; *context = &one; return SUCCESS; }
Result cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
Result cuCtxSetCurrent(void* context) { current = context; return SUCCESS; }
Result cuCtxGetCurrent(void** context) { *context = current; return SUCCESS; }

Result cuStreamCreate(void** stream, unsigned) {
    ENTER;
    streams.push_back(new Stream);
    *stream = streams.back();
    return SUCCESS;
}
Result cuStreamDestroy_v2(void*) { return SUCCESS; }
Result cuStreamSynchronize(void* stream) {
    ENTER;
    ++counts.waits;
    return stream ? finish(static_cast<Stream*>(stream)) : INVALID_VALUE;
}
Result cuStreamWaitEvent(void*, void*, unsigned) { return INVALID_VALUE; }

// An event is the time at which its stream came to it; -1 before.
Result cuEventCreate(void** event, unsigned flags) {
    if (flags & 2) return INVALID_VALUE;  // without a time nobody here has a use for it
    *event = new double(-1);
    return SUCCESS;
}
Result cuEventRecord(void* event, void* stream) {
    ENTER;
    return queue(stream, [event] {
        auto now = std::chrono::steady_clock::now().time_since_epoch();
        *static_cast<double*>(event) = std::chrono::duration<double, std::milli>(now).count();
    });
}
Result cuEventSynchronize(void* event) { return *static_cast<double*>(event) < 0 ? NOT_READY : SUCCESS; }
Result cuEventElapsedTime(float* milliseconds, void* from, void* to) {
    double begin = *static_cast<double*>(from), end = *static_cast<double*>(to);
    if (begin < 0 || end < 0) return NOT_READY;
    *milliseconds = float(end - begin);
    return SUCCESS;
}
Result cuEventDestroy_v2(void* event) { delete static_cast<double*>(event); return SUCCESS; }

Result cuMemAlloc_v2(Address* address, size_t bytes) {
    ENTER;
    if (bytes == 0) return INVALID_VALUE;
    ++counts.allocations;
    if (used + bytes > memory()) return OUT_OF_MEMORY;
    void* room = shim::guarded(bytes);
    if (!room) return OUT_OF_MEMORY;
    *address = reinterpret_cast<Address>(room);
    allocations[*address] = bytes;
    used += bytes;
    return SUCCESS;
}
Result cuMemFree_v2(Address address) {
    ENTER;
    for (Stream* stream : streams) finish(stream);
    auto found = allocations.find(address);
    if (found == allocations.end()) return INVALID_VALUE;
    shim::release(reinterpret_cast<void*>(address), found->second);
    used -= found->second;
    allocations.erase(found);
    return SUCCESS;
}
Result cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
    ENTER;
    *free_bytes = memory() - used;
    *total = memory();
    return SUCCESS;
}
Result cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void* stream) {
    ENTER;
    if (!inside(to, bytes)) return INVALID_VALUE;
    return queue(stream, [=] { memset(reinterpret_cast<void*>(to), value, bytes); });
}
Result cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void* stream) {
    ENTER;
    if (!inside(to, bytes)) return INVALID_VALUE;
    std::string taken(static_cast<const char*>(from), bytes);  // pageable memory is taken at once
    return queue(stream, [=] { memcpy(reinterpret_cast<void*>(to), taken.data(), bytes); });
}
Result cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void* stream) {
    ENTER;
    if (!inside(from, bytes)) return INVALID_VALUE;
    return queue(stream, [=] { memcpy(to, reinterpret_cast<void*>(from), bytes); });
}
Result cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void* stream) {
    ENTER;
    if (!inside(to, bytes) || !inside(from, bytes)) return INVALID_VALUE;
    if (to < from + bytes && from < to + bytes) return INVALID_VALUE;  // a device's copy would be anything
    return queue(stream, [=] { memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes); });
}

Result cuModuleLoadData(void** module, const void* image) {
    ENTER;
    set_trap();
    const char* path = getenv("CUDA_ON_CPU_KERNELS");
    void* library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (!library) {
        fprintf(stderr, "cuda_on_cpu: %s\n", path ? dlerror() : "CUDA_ON_CPU_KERNELS is not set");
        return INVALID_IMAGE;
    }
    *module = new Module{library, static_cast<const char*>(image)};
    if (const char* folder = getenv("CUDA_ON_CPU_MODULES")) {
        static int count = 0;
        std::string path = std::string(folder) + "/" + std::to_string(getpid()) + "-" + std::to_string(++count) + ".ptx";
        FILE* file = fopen(path.c_str(), "w");
        if (!file) return INVALID_IMAGE;
        fputs(static_cast<const char*>(image), file);
        fclose(file);
    }
    return SUCCESS;
}
// With a log of what is wrong; options 5 and 6 are where to and how much of it.
Result cuModuleLoadDataEx(void** module, const void* image, unsigned count, const int* options, void** values) {
    Result result = cuModuleLoadData(module, image);
    char* log = nullptr;
    size_t room = 0;
    for (unsigned i = 0; i < count; ++i) {
        if (options[i] == 5) log = static_cast<char*>(values[i]);
        if (options[i] == 6) room = reinterpret_cast<size_t>(values[i]);
    }
    if (result != SUCCESS && log) snprintf(log, room, "ptxas fatal : no kernels of the host\n");
    return result;
}
Result cuModuleUnload(void*) { return SUCCESS; }
Result cuModuleGetFunction(void** function, void* of, const char* name) {
    ENTER;
    Module* module = static_cast<Module*>(of);
    // The function must be in the device code, too, under this name.
    if (module->image.find(std::string(".entry ") + name + "(") == std::string::npos) return NOT_FOUND;
    if (strncmp(name, "map_", 4) == 0) {
        auto program = std::make_shared<ptx::Program>(ptx::parse(module->image, name, module->library));
        auto run = [program](void** parameters, unsigned blocks, unsigned threads, size_t) {
            ptx::launch(*program, parameters, blocks, threads);
        };
        *function = new Function{name, run, {8, program->numbers}};
        return SUCCESS;
    }
    auto call = reinterpret_cast<void (*)(void**, unsigned, unsigned, size_t)>(
        dlsym(module->library, (std::string("call_") + name).c_str()));
    auto sizes = static_cast<const size_t* const*>(dlsym(module->library, (std::string("sizes_of_") + name).c_str()));
    if (!call || !sizes) return NOT_FOUND;
    std::vector<size_t> listed;
    for (const size_t* size = *sizes; *size; ++size) listed.push_back(*size);
    *function = new Function{name, call, listed};
    return SUCCESS;
}
Result cuFuncSetAttribute(void* function, int attribute, int value) {
    ENTER;
    if (attribute != 8 || value > 99 << 10) return INVALID_VALUE;  // what capability 8.6 has, the least
    static_cast<Function*>(function)->most_shared = size_t(value);
    return SUCCESS;
}
Result cuLaunchKernel(void* of, unsigned blocks, unsigned gy, unsigned gz, unsigned threads, unsigned by, unsigned bz,
                      unsigned shared, void* stream, void** parameters, void**) {
    ENTER;
    Function* function = static_cast<Function*>(of);
    bool sound = blocks > 0 && blocks < 1u << 31 && gy == 1 && gz == 1 && threads > 0 &&
                 threads <= shim::MOST_THREADS && by == 1 && bz == 1 && shared <= function->most_shared;
    size_t bytes = 0;
    for (size_t size : function->sizes) bytes += size;
    if (!sound || bytes > 4096) return INVALID_VALUE;
    std::vector<std::vector<uint64_t>> values;  // parameters are taken at once
    for (size_t size : function->sizes) {
        values.emplace_back((size + 7) / 8);
        memcpy(values.back().data(), parameters[values.size() - 1], size);
    }
    return queue(stream, [=]() mutable {
        if (++launches == setting("CUDA_ON_CPU_LOSE_AT", 0)) lost = true;
        if (lost) return;
        std::vector<void*> list;
        for (auto& value : values) list.push_back(value.data());
        counts.kernels.insert(function->name);
        function->call(list.data(), blocks, threads, shared);
    });
}

Result cuGraphCreate(void** graph, unsigned) {
    *graph = new Graph;
    return SUCCESS;
}
Result cuGraphAddKernelNode_v2(void** node, void* of, void* const* before, size_t count, const NodeParameters* launch) {
    ENTER;
    Stream stream;
    Result result = cuLaunchKernel(launch->function, launch->grid[0], launch->grid[1], launch->grid[2], launch->block[0],
                                   launch->block[1], launch->block[2], launch->shared, &stream, launch->parameters, nullptr);
    if (result != SUCCESS) return result;
    Node* added = new Node{stream.queue.front(), {}};
    for (size_t i = 0; i < count; ++i) added->before.insert(static_cast<Node*>(before[i]));
    static_cast<Graph*>(of)->emplace_back(added);
    *node = added;
    return SUCCESS;
}
// In the order that its edges leave open: nodes that were added last run as early as they may, so that an edge that
// is missing shows.
Result cuGraphInstantiateWithFlags(void** ready, void* of, unsigned long long) {
    ++counts.graphs;
    Work* order = new Work;
    std::vector<std::shared_ptr<Node>> left = *static_cast<Graph*>(of);
    std::set<Node*> done;
    while (!left.empty()) {
        auto free = [&](const std::shared_ptr<Node>& node) {
            for (Node* before : node->before) {
                if (!done.count(before)) return false;
            }
            return true;
        };
        auto last = std::find_if(left.rbegin(), left.rend(), free);
        order->push_back((*last)->work);
        done.insert(last->get());
        left.erase(std::next(last).base());
    }
    *ready = order;
    return SUCCESS;
}
Result cuGraphUpload(void*, void*) { return SUCCESS; }
Result cuGraphLaunch(void* ready, void* stream) {
    ENTER;
    for (auto& one : *static_cast<Work*>(ready)) queue(stream, one);
    return SUCCESS;
}
Result cuGraphExecDestroy(void* ready) { delete static_cast<Work*>(ready); return SUCCESS; }
Result cuGraphDestroy(void* graph) { delete static_cast<Graph*>(graph); return SUCCESS; }

}  // extern "C"
