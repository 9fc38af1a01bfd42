// Pooling windows over images x [n, h, w, c], giving y [n, out_h, out_w, c]: argmax, gather by its offsets,
// and the adjoint of gather. Offsets are u8: row · window width + column.
//
//     window_argmax:   picks[n][wy][wx][c] = the first offset with the largest x in the window
//     window_gather:   y[n][wy][wx][c] = x[n][wy · stride - pad + pick / width][wx · stride - pad + pick % width][c]
//     window_scatter:  the same x += y[n][wy][wx][c]        // x is 0 before
//
// window_argmax, window_gather: a thread per element of y. window_scatter: a thread per element of x, which
// adds the windows that picked it in their order; so no atomics, and the bits are the CPU's. Channels are
// innermost: neighbouring threads read neighbouring addresses. Bytes: x once (argmax), y and picks once;
// the overlap of windows is served by the caches. Offsets that point outside are reported, and give zero.
//
// window_scatter_tiles: the same for windows that lie side by side, without borders: a thread per window and four
// channels writes the window whole; those on the right and below that reach beyond the image are zero.
#include "math.cuh"

struct WindowArgs {
    u64 x, y, picks, faults;
    u32 points, step, h, w;
    Divisor c, out_w, out_h, image_w, image_h, window_w;
    u32 stride_y, stride_x, pad_y, pad_x, window_h, y_points;
};
static_assert(sizeof(WindowArgs) == 144, "as on the host");

// The corner of the window of a thread's element of y, and where its channel lies in the image's first pixel.
struct Corner {
    i32 row, column;
    const float* channel;

    __device__ __forceinline__ Corner(const WindowArgs& args, const float* x, u32 point) {
        u32 channel_of = split(point, args.c);
        column = i32(split(point, args.out_w) * args.stride_x) - i32(args.pad_x);
        row = i32(split(point, args.out_h) * args.stride_y) - i32(args.pad_y);
        channel = x + u64(point) * args.h * args.w * args.c.divisor + channel_of;
    }

    __device__ __forceinline__ bool inside(const WindowArgs& args, u32 y, u32 x) const {
        return u32(row + i32(y)) < args.h && u32(column + i32(x)) < args.w;
    }

    __device__ __forceinline__ float pixel(const WindowArgs& args, u32 y, u32 x) const {
        return channel[u32((row + i32(y)) * i32(args.w) + column + i32(x)) * args.c.divisor];
    }
};

KERNEL(256, 4, window_argmax, WindowArgs) {
    u32 point = blockIdx.x * 256 + threadIdx.x;
    if (point >= args.points) return;
    Corner corner(args, at<const float>(slots, args.x), point);
    u32 width = args.window_w.divisor, pick = 0;
    float best = 0.0f;
    bool found = false;
    for (u32 y = 0; y < args.window_h; ++y) {
        for (u32 x = 0; x < width; ++x) {
            if (!corner.inside(args, y, x)) continue;
            float value = corner.pixel(args, y, x);
            if (!found || beats(value, best)) {
                best = value;
                pick = y * width + x;
                found = true;
            }
        }
    }
    at<u8>(slots, args.picks)[point] = u8(pick);
}
EXPORT(window_argmax)

KERNEL(256, 4, window_gather, WindowArgs) {
    u32 point = blockIdx.x * 256 + threadIdx.x;
    if (point >= args.points) return;
    Corner corner(args, at<const float>(slots, args.x), point);
    u32 pick = at<const u8>(slots, args.picks)[point], y = divide(pick, args.window_w);
    u32 x = pick - y * args.window_w.divisor;
    bool sound = y < args.window_h && corner.inside(args, y, x);
    if (!sound) report(at<FaultWord>(slots, args.faults), PICK_OUTSIDE, args.step, pick, point, 0);
    at<float>(slots, args.y)[point] = sound ? corner.pixel(args, y, x) : 0.0f;
}
EXPORT(window_gather)

// The windows along one axis that hold a position (border counted): first and last.
__device__ __forceinline__ void covering(u32 position, u32 window, u32 stride, u32 count, u32& first, u32& last) {
    first = position < window ? 0 : (position - window) / stride + 1;
    last = position / stride;
    last = last < count ? last : count - 1;
}

KERNEL(256, 4, window_scatter, WindowArgs) {
    u32 point = blockIdx.x * 256 + threadIdx.x;
    const u8* picks = at<const u8>(slots, args.picks);
    if (point < args.y_points) {
        Corner corner(args, nullptr, point);
        u32 pick = picks[point], y = divide(pick, args.window_w), x = pick - y * args.window_w.divisor;
        if (y >= args.window_h || !corner.inside(args, y, x)) {
            report(at<FaultWord>(slots, args.faults), PICK_OUTSIDE, args.step, pick, point, 0);
        }
    }
    if (point >= args.points) return;
    u32 image = point, channel = split(image, args.c);
    u32 column = split(image, args.image_w) + args.pad_x, row = split(image, args.image_h) + args.pad_y;
    u32 out_w = args.out_w.divisor, out_h = args.out_h.divisor, width = args.window_w.divisor;
    u32 first_y, last_y, first_x, last_x;
    covering(row, args.window_h, args.stride_y, out_h, first_y, last_y);
    covering(column, width, args.stride_x, out_w, first_x, last_x);
    const float* y = at<const float>(slots, args.y);
    float sum = 0.0f;
    for (u32 wy = first_y; wy <= last_y; ++wy) {
        for (u32 wx = first_x; wx <= last_x; ++wx) {
            u32 i = ((image * out_h + wy) * out_w + wx) * args.c.divisor + channel;
            u32 offset = (row - wy * args.stride_y) * width + (column - wx * args.stride_x);
            if (picks[i] == offset) sum += y[i];
        }
    }
    at<float>(slots, args.x)[point] = sum;
}
EXPORT(window_scatter)

struct TileArgs {
    u64 x, y, picks, faults;
    u32 points, step, h, w, out_w, out_h, window_h, window_w;
    Divisor quads, across, down;  // of channels, and tiles of an image, the incomplete ones too
    u32 pad;
};
static_assert(sizeof(TileArgs) == 104, "as on the host");

KERNEL(256, 4, window_scatter_tiles, TileArgs) {
    u32 point = blockIdx.x * 256 + threadIdx.x;
    if (point >= args.points) return;
    u32 image = point, channel = 4 * split(image, args.quads), channels = 4 * args.quads.divisor;
    u32 column = split(image, args.across), row = split(image, args.down);
    float* x = at<float>(slots, args.x) + channel;
    float y[4] = {};
    u32 picks[4], places = args.window_h * args.window_w;
    for (u32 i = 0; i < 4; ++i) picks[i] = places;
    if (row < args.out_h && column < args.out_w) {
        u32 first = ((image * args.out_h + row) * args.out_w + column) * channels + channel;
        const float* from = at<const float>(slots, args.y) + first;
        const u8* of = at<const u8>(slots, args.picks) + first;
        for (u32 i = 0; i < 4; ++i) {
            y[i] = from[i];
            picks[i] = of[i];
            if (picks[i] >= places) report(at<FaultWord>(slots, args.faults), PICK_OUTSIDE, args.step, picks[i], first + i, 0);
        }
    }
    bool vectors = (reinterpret_cast<u64>(x) & 15) == 0;
    u32 top = row * args.window_h, left = column * args.window_w;
    for (u32 wy = 0; wy < args.window_h && top + wy < args.h; ++wy) {
        for (u32 wx = 0; wx < args.window_w && left + wx < args.w; ++wx) {
            float v[4];
            for (u32 i = 0; i < 4; ++i) v[i] = picks[i] == wy * args.window_w + wx ? 0.0f + y[i] : 0.0f;
            float* to = x + ((image * args.h + top + wy) * args.w + left + wx) * channels;
            if (vectors) {
                *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
            } else {
                for (u32 i = 0; i < 4; ++i) to[i] = v[i];
            }
        }
    }
}
EXPORT(window_scatter_tiles)
