"""The depth micro-task in JAX: the meta-gradient of a deep residual perceptron, beside `benches depth`.

x <- x + relu(x V) W for every block; mean squared error; T steps of SGD with a learned rate for every parameter; the
gradient of the outer loss with respect to the rates. Starting values are those of `benches depth`, so losses and
norms can be compared.

  naive    jax.grad through the steps, everything stored (reverse over reverse)
  remat    + jax.checkpoint on the step
  mixed    the inner gradient is a custom_vjp whose VJP is a JVP of the gradient (forward over reverse, as MixFlow-MG,
           arXiv 2505.00793), + jax.checkpoint on the step
  blocks   + jax.checkpoint on every block, or on groups of --group blocks

Blocks are a scan over stacked weights (--loop: a Python loop, unrolled). Memory is the process's peak resident size above
that before the first meta-gradient, each mode in a process of its own; the inputs are there before it.

    python depth_jax.py --blocks 64 --repeats 3 --threads 2
"""
import argparse, ctypes, gc, json, os, subprocess, sys, time

MODES = ["naive", "remat", "mixed", "blocks"]


def status(field):
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    return 0.0


def reset_peak():
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")
    return status("VmRSS")


def noise(np, shape, seed, scale):
    z = (np.uint64(seed << 32) | np.arange(np.prod(shape), dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    unit = ((z ^ (z >> np.uint64(31))) >> np.uint64(40)).astype(np.float64) / (1 << 24)
    return (np.sqrt(12.0) * scale * (unit - 0.5)).astype(np.float32).reshape(shape)


def inputs(np, a):
    d, n = a.width, a.blocks
    v = np.stack([noise(np, (d, d), 2 * i, (2 / d) ** 0.5) for i in range(n)])
    w = np.stack([noise(np, (d, d), 2 * i + 1, (1 / (d * n)) ** 0.5) for i in range(n)])
    theta = dict(v=v, w=w)
    rates = {k: np.full_like(p, a.rate) for k, p in theta.items()}
    data = np.stack([[noise(np, (a.batch, d), 1000 + 2 * t + i, 1.0) for i in range(2)] for t in range(a.steps)])
    outer = np.stack([noise(np, (a.batch, d), 2000 + i, 1.0) for i in range(2)])
    return rates, theta, data, outer


def build(jax, a):
    import jax.numpy as jnp

    def block(x, p):
        return x + jax.nn.relu(x @ p["v"]) @ p["w"], None

    def net(theta, x):
        step, groups, group = block, theta, a.group if a.mode == "blocks" else 1
        if group > 1:
            groups = jax.tree.map(lambda p: p.reshape(-1, group, *p.shape[1:]), theta)

            def step(x, ps):
                for i in range(group):
                    x, _ = block(x, jax.tree.map(lambda p: p[i], ps))
                return x, None

        if a.mode == "blocks":
            step = jax.checkpoint(step, prevent_cse=a.loop)
        if a.loop:
            for i in range(a.blocks // group):
                x, _ = step(x, jax.tree.map(lambda p: p[i], groups))
            return x
        return jax.lax.scan(step, x, groups)[0]

    def loss(theta, data):
        return jnp.mean((net(theta, data[0]) - data[1]) ** 2)

    plain = jax.grad(loss)
    if a.mode in ("mixed", "blocks"):
        @jax.custom_vjp
        def gradient(theta, data):
            return plain(theta, data)

        def bwd(kept, cotangent):
            theta, data = kept
            _, tangent = jax.jvp(lambda q: plain(q, data), (theta,), (cotangent,))
            return tangent, None

        gradient.defvjp(lambda theta, data: (plain(theta, data), (theta, data)), bwd)
    else:
        gradient = plain

    def meta_loss(rates, theta, data, outer):
        def step(theta, batch):
            g = gradient(theta, batch)
            return jax.tree.map(lambda p, r, q: p - r * q, theta, rates, g), None

        if a.mode != "naive":
            step = jax.checkpoint(step, prevent_cse=False)
        theta, _ = jax.lax.scan(step, theta, data)
        return loss(theta, outer)

    return jax.value_and_grad(meta_loss)


def measure(a):
    cpus = sorted(os.sched_getaffinity(0))[: a.threads]
    os.sched_setaffinity(0, cpus)  # XLA sizes its pool by this
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import numpy as np
    args = jax.tree.map(jax.device_put, inputs(np, a))
    exe = jax.jit(build(jax, a)).lower(*args).compile()
    before, times = reset_peak(), []
    for _ in range(a.repeats + 1):
        begin = time.perf_counter()
        out = jax.block_until_ready(exe(*args))
        times.append(time.perf_counter() - begin)
    peak, times = status("VmHWM") - before, sorted(times[1:])
    norm = sum(float((np.asarray(g, np.float64) ** 2).sum()) for g in jax.tree.leaves(out[1])) ** 0.5
    said = json.dumps(dict(
        framework="jax", jax=jax.__version__, mode=a.mode, blocks=a.blocks, width=a.width, batch=a.batch, steps=a.steps,
        group=a.group, loop=a.loop, threads=a.threads, median_s=times[len(times) // 2], min_s=times[0], peak_mb=peak,
        xla_temp_mib=exe.memory_analysis().temp_size_in_bytes / 2**20, loss=float(out[0]), rate_grad_norm=norm))
    print(said)
    if a.json:
        with open(a.json, "a") as f:
            f.write(said + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--blocks", type=int, default=64)
    p.add_argument("--width", type=int, default=128)
    p.add_argument("--batch", type=int, default=1024)
    p.add_argument("--steps", type=int, default=2)
    p.add_argument("--rate", type=float, default=0.01)
    p.add_argument("--group", type=int, default=1, help="blocks per checkpoint of mode blocks")
    p.add_argument("--loop", action="store_true", help="blocks as a Python loop")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--json", default="", help="append one JSON line to this file")
    p.add_argument("--mode", choices=MODES, help="only this mode, in this process")
    a = p.parse_args()
    if a.mode:
        return measure(a)
    for mode in MODES:
        subprocess.run([sys.executable, os.path.abspath(__file__), *sys.argv[1:], "--mode", mode], check=True)


if __name__ == "__main__":
    main()
