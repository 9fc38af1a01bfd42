// Convolutions whose images have few channels, with respect to the input and to the weight: of a tile of 64 columns
// all but those few would be empty. Sums are in f32 in every precision; memory is what takes the time.
//
// Both multiply channels of y, in quads, with COLUMNS numbers at a time that shared memory has for every one.
#include "product.cuh"

constexpr int THREADS = 256, WARPS = THREADS / 32, COLUMNS = 16;

namespace {

// sums[i][j] += x[i] * row[j], for as many quads of j as there are.
__device__ __forceinline__ void multiply_add(float (&sums)[4][COLUMNS], const float (&x)[4], const float4* row,
                                             u32 quads) {
#pragma unroll
    for (int q = 0; q < COLUMNS / 4; ++q) {
        if (q >= quads) break;
        float4 v = row[q];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            sums[i][4 * q] = fmaf(x[i], v.x, sums[i][4 * q]);
            sums[i][4 * q + 1] = fmaf(x[i], v.y, sums[i][4 * q + 1]);
            sums[i][4 * q + 2] = fmaf(x[i], v.z, sums[i][4 * q + 2]);
            sums[i][4 * q + 3] = fmaf(x[i], v.w, sums[i][4 * q + 3]);
        }
    }
}

__device__ __forceinline__ u32 quads_of(u32 columns) { return columns < COLUMNS ? (columns + 3) / 4 : COLUMNS / 4; }

// Neighbouring channels of pixels of y, from `start`; those that do not exist are zero.
struct Channels {
    const float* start;
    u32 pixels, count;
    bool vectors;

    __device__ __forceinline__ Channels(const float* start, u32 pixels, u32 count)
        : start(start), pixels(pixels), count(count), vectors(vectors_of(start, count)) {}

    __device__ __forceinline__ float4 quad(u32 pixel, u32 channel) const {
        float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (pixel >= pixels || channel >= count) return x;
        const float* from = start + (pixel * count + channel);
        if (vectors) return __ldg(reinterpret_cast<const float4*>(from));
        u32 left = count - channel;
        x.x = __ldg(from);
        if (left > 1) x.y = __ldg(from + 1);
        if (left > 2) x.z = __ldg(from + 2);
        if (left > 3) x.w = __ldg(from + 3);
        return x;
    }
};

}  // namespace

// The transpose with respect to the input.
//
//     for (pixel of y, position, c)
//         part[position][c][pixel] = sum over o of y[pixel][o] * weight[o][position][c]
//     for (pixel of x, c)
//         x[pixel][c] = sum of part[position][c][pixel of y], over the positions in their order
//
// Launch: a block per band of rows of x of an image; it forms the parts of all rows of y that its band needs, in
// shared memory. Four lanes share a pixel of y, and have 16 · i + 4 · lane + 0 … 3 of its channels each; their sums
// are exchanged so that every lane ends with four columns. The second product of a pair is added afterwards.
// FLOPs: 2 · pixels of y · channels · columns. Bytes: y once for each band, x once.
struct FewInputArgs {
    u64 y, weight, second_y, second_weight, x;
    u32 images, bands, rows, columns;  // images of a batch entry, rows of a band, positions times channels of x
    u32 depth, stride;                 // channels of y in sixteens, columns of parts are this far from each other
    u32 rounds, accumulate;
    Geometry geometry;
};
static_assert(sizeof(FewInputArgs) == 232, "as on the host");

namespace {

// Shared memory that a row of the weight takes: the rows of a quad of lanes begin in different banks.
constexpr int ROW = COLUMNS + 4;

// The rows of x of a block, [top, bottom), and those of y that they need, [low, high).
struct Band {
    u32 image, top, bottom, low, high;

    __device__ __forceinline__ Band(const FewInputArgs& args) {
        const Geometry& g = args.geometry;
        image = blockIdx.x / args.bands;
        top = blockIdx.x % args.bands * args.rows;
        bottom = top + args.rows < g.h.divisor ? top + args.rows : g.h.divisor;
        u32 before = g.window_h - 1;
        low = top + g.pad_y > before ? divide(top + g.pad_y - before + g.stride_y.divisor - 1, g.stride_y) : 0;
        high = divide(bottom - 1 + g.pad_y, g.stride_y) + 1;
        high = high < g.out_h.divisor ? high : g.out_h.divisor;
    }

    __device__ __forceinline__ u32 pixels(const Geometry& g) const {
        return low < high ? (high - low) * g.out_w.divisor : 0;
    }
};

// Some columns of the weight: that of channel 16i + 4l + j is row 16i + 4j + l.
__device__ __forceinline__ void bring_weight(const FewInputArgs& args, const float* weight, u32 first, float* rows) {
    for (u32 i = threadIdx.x; i < args.depth * COLUMNS; i += THREADS) {
        u32 column = i % COLUMNS, channel = i / COLUMNS;
        bool there = channel < args.geometry.out.divisor && first + column < args.columns;
        u32 row = (channel & ~15u) + channel % 4 * 4 + channel / 4 % 4;
        rows[row * ROW + column] = there ? weight[channel * args.columns + first + column] : 0.0f;
    }
}

// What four lanes have of COLUMNS sums, added: a lane gets four of them.
__device__ __forceinline__ float4 add_lanes(const float (&sums)[COLUMNS]) {
    bool upper = threadIdx.x & 2, odd = threadIdx.x & 1;
    float half[COLUMNS / 2], quarter[COLUMNS / 4];
#pragma unroll
    for (int j = 0; j < COLUMNS / 2; ++j) {
        float low = sums[j], high = sums[j + COLUMNS / 2];
        half[j] = (upper ? high : low) + __shfl_xor_sync(0xFFFFFFFFu, upper ? low : high, 2);
    }
#pragma unroll
    for (int j = 0; j < COLUMNS / 4; ++j) {
        float low = half[j], high = half[j + COLUMNS / 4];
        quarter[j] = (odd ? high : low) + __shfl_xor_sync(0xFFFFFFFFu, odd ? low : high, 1);
    }
    return make_float4(quarter[0], quarter[1], quarter[2], quarter[3]);
}

// COLUMNS columns of parts, from `first`.
__device__ __forceinline__ void form_parts(const FewInputArgs& args, const Channels& y, u32 first, const float* weight,
                                           float* parts) {
    const u32 lane = threadIdx.x % 32, quads = quads_of(args.columns - first);
    // 32 pixels of a warp, four of a lane.
    for (u32 begin = threadIdx.x / 32 * 32; begin < y.pixels; begin += THREADS) {
        float sums[4][COLUMNS] = {};
        float4 next[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) next[i] = y.quad(begin + i * 8 + lane / 4, lane % 4 * 4);
        for (u32 channel = 0; channel < args.depth; channel += 16) {
            float4 now[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                now[i] = next[i];
                next[i] = y.quad(begin + i * 8 + lane / 4, channel + 16 + lane % 4 * 4);
            }
            const float4* rows = reinterpret_cast<const float4*>(weight + (channel + lane % 4) * ROW);
            const float x[4][4] = {{now[0].x, now[1].x, now[2].x, now[3].x},
                                   {now[0].y, now[1].y, now[2].y, now[3].y},
                                   {now[0].z, now[1].z, now[2].z, now[3].z},
                                   {now[0].w, now[1].w, now[2].w, now[3].w}};
#pragma unroll
            for (int j = 0; j < 4; ++j) multiply_add(sums, x[j], rows + j * ROW, quads);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float4 sum = add_lanes(sums[i]);
            const float four[4] = {sum.x, sum.y, sum.z, sum.w};
            const u32 pixel = begin + i * 8 + lane / 4, column = first + lane % 4 * 4;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                if (pixel < y.pixels && column + j < args.columns) parts[(column + j) * args.stride + pixel] = four[j];
            }
        }
    }
}

// The parts of an element of x, added.
__device__ __forceinline__ float sum_of_parts(const FewInputArgs& args, const Band& band, u32 y, u32 x, u32 channel,
                                              const float* parts) {
    const Geometry& g = args.geometry;
    float sum = 0.0f;
    for (u32 dy = 0; dy < g.window_h; ++dy) {
        u32 row = y + g.pad_y - dy;
        if (row >> 31 || split(row, g.stride_y) != 0 || row < band.low || row >= band.high) continue;
        for (u32 dx = 0; dx < g.window_w.divisor; ++dx) {
            u32 column = x + g.pad_x - dx;
            if (column >> 31 || split(column, g.stride_x) != 0 || column >= g.out_w.divisor) continue;
            u32 part = (dy * g.window_w.divisor + dx) * g.c.divisor + channel;
            sum += parts[part * args.stride + (row - band.low) * g.out_w.divisor + column];
        }
    }
    return sum;
}

}  // namespace

KERNEL(THREADS, 2, conv_input_few, FewInputArgs) {
    DYNAMIC_SHARED(shared);
    float* rows = reinterpret_cast<float*>(shared);
    float* parts = rows + args.depth * ROW;
    const Geometry& g = args.geometry;
    const Band band(args);
    const u32 out = g.out.divisor, row = g.w.divisor * g.c.divisor;
    for (u32 round = 0; round < args.rounds; ++round) {
        const float* y = at<const float>(slots, round > 0 ? args.second_y : args.y);
        const float* weight = at<const float>(slots, round > 0 ? args.second_weight : args.weight);
        y += (band.image * g.out_h.divisor + band.low) * g.out_w.divisor * out;
        weight += band.image / args.images * (out * args.columns);
        const Channels channels(y, band.pixels(g), out);
        for (u32 first = 0; first < args.columns; first += COLUMNS) {
            __syncthreads(); /* rows and parts are free again */
            bring_weight(args, weight, first, rows);
            __syncthreads();
            form_parts(args, channels, first, rows, parts);
        }
        __syncthreads();
        bool add = args.accumulate || round > 0;
        float* x = at<float>(slots, args.x) + (band.image * g.h.divisor + band.top) * row;
        for (u32 i = threadIdx.x; i < (band.bottom - band.top) * row; i += THREADS) {
            u32 rest = i, channel = split(rest, g.c), column = split(rest, g.w);
            float sum = sum_of_parts(args, band, band.top + rest, column, channel, parts);
            x[i] = add ? x[i] + sum : sum;
        }
    }
}
EXPORT(conv_input_few)

// The transpose with respect to the weight, as a product of gemm.cuh whose tile is 64 channels of y by COLUMNS; its
// splits are of pixels, and gemm_combine adds them always.
//
//     partial[o][position][c] = sum of y[pixel][o] * patch[pixel][position][c], over the split's pixels
//
// A thread has a quad of channels and every sixteenth pixel. Patches come to shared memory 64 pixels at a time, while
// those before them are multiplied. FLOPs: 2·m·n·k. Bytes: y n / 16 times, patches through the L1 cache.
namespace {

constexpr int PIXELS = 64;

// Adds what the threads have of a tile in their order, and writes it.
__device__ __forceinline__ void write_tile(const GemmArgs& args, const Place& place, float (&sums)[4][COLUMNS],
                                           float* shared, float* partial) {
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        __syncthreads();
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) {
            float sum = sums[i][j] + __shfl_xor_sync(0xFFFFFFFFu, sums[i][j], 16);
            if (lane < 16) shared[(warp * 16 + lane) * COLUMNS + j] = sum;
        }
        __syncthreads();
        float sum = 0.0f;
#pragma unroll
        for (int other = 0; other < WARPS; ++other) sum += shared[other * 16 * COLUMNS + threadIdx.x];
        const u32 row = place.row + threadIdx.x / COLUMNS * 4 + i, column = place.column + threadIdx.x % COLUMNS;
        if (row < args.m && column < args.n) partial[row * args.n + column] = sum;
    }
}

}  // namespace

KERNEL(THREADS, 2, conv_weight_few, GemmArgs) {
    __shared__ __align__(16) float patches[2][PIXELS * COLUMNS];
    static_assert(sizeof(patches) == WARPS * 16 * COLUMNS * sizeof(float), "for the sums of the warps, too");
    const Place place(args, 64, COLUMNS, 0);
    const PixelColumns patch = {{images(slots, args, place), args.geometry, place.end, args.n}};
    const Channels y(place.b(slots, args) + place.batch * (args.k * args.m), place.end, args.m);
    const u32 group = threadIdx.x / 16, channel = place.row + threadIdx.x % 16 * 4;
    const auto tap = patch.outer(place.column + threadIdx.x % COLUMNS);
    const u32 quads = quads_of(args.n - place.column);
    float4 next[4];
    float sums[4][COLUMNS] = {}, next_patch[4];
    auto load = [&](u32 pixel) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            next[i] = y.quad(pixel + group + i * 16, channel);
            u32 from = patch.find(tap, patch.inner(pixel + group + i * 16));
            next_patch[i] = from != OUTSIDE ? __ldg(patch.start + from) : 0.0f;
        }
    };
    load(place.begin);
    u32 stage = 0;
    for (u32 pixel = place.begin; pixel < place.end; pixel += PIXELS, stage ^= 1) {
        float4 now[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            now[i] = next[i];
            patches[stage][threadIdx.x + i * THREADS] = next_patch[i];
        }
        __syncthreads();
        load(pixel + PIXELS);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float x[4] = {now[i].x, now[i].y, now[i].z, now[i].w};
            const float* row = patches[stage] + (group + i * 16) * COLUMNS;
            multiply_add(sums, x, reinterpret_cast<const float4*>(row), quads);
        }
    }
    float* partial = at<float>(slots, args.partials) + u64(place.partial) * args.m * args.n;
    write_tile(args, place, sums, patches[0], partial);
}
EXPORT(conv_weight_few)
