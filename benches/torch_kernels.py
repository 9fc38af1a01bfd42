"""The kernels of `benches kernels` in PyTorch (cuBLAS, cuDNN), timed: prints JSON.

    python benches/torch_kernels.py --device cuda --precision tf32 > torch.json
    benches kernels --device cuda --precision tf32 --beside torch.json

Arrays are f32 (bf16 with --precision bf16, where gtn keeps f32 and rounds on the way); images are channels-last,
as gtn's are. Names are gtn's; `gtn` refuses those that it does not know.
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F


def kernels(n, device, dtype):
    """Functions of no arguments, by name."""

    def numbers(*shape):
        # A GPU is faster with zeros, which take less power.
        x = torch.rand(shape, device=device, dtype=dtype) * 2 - 1
        return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x

    def linear(out, inner):
        x, w = numbers(n, inner), numbers(out, inner)
        return lambda: F.linear(x, w)

    def pair(make, *extents):
        first, second = make(*extents), make(*extents)
        return lambda: first() + second()

    def product(rows, columns, inner, transpose_a):
        a = numbers(inner, rows).t() if transpose_a else numbers(rows, inner)
        b = numbers(inner, columns)
        return lambda: a @ b

    def conv(side, c, out, window=3, step=1):
        x, w = numbers(n, c, side, side), numbers(out, c, window, window)
        return lambda: F.conv2d(x, w, stride=step, padding=1)

    def conv_backward(side, c, out, mask, window=3, step=1):
        x, w = numbers(n, c, side, side), numbers(out, c, window, window)
        y = numbers(n, out, side // step, side // step)
        backward = torch.ops.aten.convolution_backward
        strides, ones = [step, step], [1, 1]
        return lambda: backward(y, x, w, None, strides, ones, ones, False, [0, 0], 1, mask)[mask.index(True)]

    def conv_input(*sizes):
        return conv_backward(*sizes[:3], [True, False, False], *sizes[3:])

    def conv_weight(*sizes):
        return conv_backward(*sizes[:3], [False, True, False], *sizes[3:])

    pixels = n * 28 * 28
    x, scale, shift = numbers(pixels, 64), numbers(64), numbers(64)
    classes = numbers(64 * n, 10)
    images = numbers(n, 64, 28, 28)
    pooled, picks = F.max_pool2d(images, 2, return_indices=True)
    flat, flat_picks = images.flatten(2), picks.flatten(2)
    return {
        "matmul 128 x 1024 x 6272": linear(6272, 1024),
        "matmul 128 x 74 x 1024": linear(1024, 74),
        "matmul 128 x 128 x 10": linear(10, 128),
        "pair 128 x 784 x 128": pair(linear, 128, 784),
        "pair 128 x 3136 x 128": pair(linear, 128, 3136),
        "conv 28 x 28, 1 to 64": conv(28, 1, 64),
        "conv 28 x 28, 128 to 64": conv(28, 128, 64),
        "conv 14 x 14, 64 to 128": conv(14, 64, 128),
        "matmul 128 x 6272 x 1024 nn": product(n, 1024, 6272, False),
        "matmul 6272 x 128 x 1024 tn": product(6272, 1024, n, True),
        "conv-input 14 x 14": conv_input(14, 64, 128),
        "conv-weight 14 x 14": conv_weight(14, 64, 128),
        "pair conv 14 x 14": pair(conv, 14, 64, 128),
        "conv-input 28 x 28, 64 to 1": conv_input(28, 1, 64),
        "pair conv-input 64 to 1": pair(conv_input, 28, 1, 64),
        "conv-input 28 x 28, 64 to 3": conv_input(28, 3, 64),
        "conv-weight 28 x 28, 1 to 64": conv_weight(28, 1, 64),
        "conv step 2, 64 to 128": conv(14, 64, 128, 4, 2),
        "conv-input step 2, 128 to 64": conv_input(14, 64, 128, 4, 2),
        "conv-weight step 2, 64, 128": conv_weight(14, 64, 128, 4, 2),
        "conv-input step 2, 64 to 1": conv_input(28, 1, 64, 4, 2),
        "conv-weight step 2, 1, 64": conv_weight(28, 1, 64, 4, 2),
        "scale, shift, leaky ReLU": lambda: F.leaky_relu(torch.addcmul(shift, x, scale), 0.1),
        "sum of columns": lambda: (x * x).sum(0),
        "sum of rows": lambda: (x * x).sum(1),
        "sum of classes": lambda: (classes * classes).sum(1),
        "pool argmax": lambda: F.max_pool2d(images, 2, return_indices=True),
        "pool gather": lambda: flat.gather(2, flat_picks),
        "pool scatter": lambda: F.max_unpool2d(pooled, picks, 2),
    }


def timed(run, wait):
    """Seconds of one run: the least of a few series, as gtn does it."""

    def series(count):
        wait()
        start = time.perf_counter()
        for _ in range(count):
            run()
        wait()
        return (time.perf_counter() - start) / count

    series(1)
    count = int(min(max(0.05 / series(2), 1), 1000))
    return min(series(count) for _ in range(5))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="tf32")
    parser.add_argument("--batch", type=int, default=128)
    args = parser.parse_args()
    tf32 = args.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    gpu = args.device == "cuda"
    wait = torch.cuda.synchronize if gpu else lambda: None
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    with torch.no_grad():
        todo = kernels(args.batch, args.device, dtype)
        seconds = {name: timed(run, wait) for name, run in todo.items()}
    where = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    device = f"PyTorch {torch.__version__}, {where}, {args.precision}, batch {args.batch}"
    print(json.dumps({"device": device, "seconds": seconds}, indent=1))


if __name__ == "__main__":
    main()
