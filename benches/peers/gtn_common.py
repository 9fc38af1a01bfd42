"""Shared by gtn_jax.py and gtn_torch.py: setups, numpy initial values, process and timing helpers.

Both scripts build the same numbers from the same numpy seed, so their meta-gradients can be compared.

The meta-training step (GTN, Generative Teaching Networks), as set here:

  meta parameters  eta = { generator G, curriculum z[T,B,128] (or pixels x[T,B,1,28,28]), lr[T], mom[T] }
  inner step t     x_t = G(z_t, y_t);  g = d/dtheta CE(learner(theta_t, x_t), y_t)
                   u_{t+1} = mom_t * u_t + g;  theta_{t+1} = theta_t - lr_t * u_{t+1}
  outer loss       CE(learner(theta_T, x_real), y_real), 512 real images
  timed            d outer / d eta (value and gradient)

Weight normalisation everywhere: w = s * v / ||v||, one norm and one scale s per output unit.
"""
import argparse, ctypes, gzip, json, os, resource, statistics, struct, subprocess, sys, time
import numpy as np

LEAK = 0.1
BN_EPS = 1e-5
ZDIM, CLASSES = 128, 10

SETUPS = {
    # learner, filters / hidden sizes, inner steps T, inner batch, outer batch, generator sizes
    "A": dict(name="mnist-small", learner="conv", f=(32, 64), hid=128, T=32, batch=128, outer=512, gen=(1024, 128, 64)),
    "B": dict(name="mnist-paper", learner="conv", f=(64, 128), hid=128, T=32, batch=128, outer=512, gen=(1024, 128, 64)),
    "C": dict(name="mlp", learner="mlp", f=(128, 128), hid=0, T=100, batch=64, outer=512, gen=(1024, 128, 64)),
    "tiny": dict(name="tiny-conv", learner="conv", f=(3, 4), hid=6, T=6, batch=5, outer=7, gen=(8, 4, 3)),
    "tinymlp": dict(name="tiny-mlp", learner="mlp", f=(6, 5), hid=0, T=6, batch=5, outer=7, gen=(8, 4, 3)),
}


def layers(cfg):
    """[(name, kind, weight shape)] with conv weights OIHW and dense weights [out, in]."""
    if cfg["learner"] == "conv":
        f1, f2 = cfg["f"]
        return [("c1", "conv", (f1, 1, 3, 3)), ("c2", "conv", (f2, f1, 3, 3)),
                ("d1", "fc", (cfg["hid"], f2 * 49)), ("d2", "fc", (CLASSES, cfg["hid"]))]
    h1, h2 = cfg["f"]
    return [("d1", "fc", (h1, 784)), ("d2", "fc", (h2, h1)), ("d3", "fc", (CLASSES, h2))]


def gen_layers(cfg):
    h, c1, c2 = cfg["gen"]
    return [("g1", "fc", (h, ZDIM + CLASSES)), ("g2", "fc", (c1 * 49, h)),
            ("g3", "conv", (c2, c1, 3, 3)), ("g4", "conv", (1, c2, 3, 3))]


def _init(rng, lst, bn_names):
    p = {}
    for name, _kind, shape in lst:
        fan = int(np.prod(shape[1:]))
        v = rng.standard_normal(shape) * np.sqrt(2.0 / fan)
        p[name] = dict(v=v, s=np.sqrt((v.reshape(shape[0], -1) ** 2).sum(1)), b=np.zeros(shape[0]))
        if name in bn_names:
            n = shape[0] // 49 if (name == "g2") else shape[0]  # g2: per channel after the reshape to c1 x 7 x 7
            p[name]["gamma"] = np.ones(n)
            p[name]["beta"] = np.zeros(n)
    return p


def load_mnist(n):
    d = os.path.join(os.environ.get("GTN_DATA_DIR", "data"), "mnist")
    try:
        with gzip.open(os.path.join(d, "train-images-idx3-ubyte.gz")) as f:
            _, cnt, r, c = struct.unpack(">IIII", f.read(16))
            x = np.frombuffer(f.read(n * r * c), np.uint8).reshape(n, 1, r, c)
        with gzip.open(os.path.join(d, "train-labels-idx1-ubyte.gz")) as f:
            f.read(8)
            y = np.frombuffer(f.read(n), np.uint8)
        return (x / 255.0 - 0.1307) / 0.3081, y.astype(np.int64), "mnist"
    except OSError:
        r = np.random.default_rng(7)
        return r.standard_normal((n, 1, 28, 28)), r.integers(0, CLASSES, n), "random"


def make(cfg, T, batch, data, bn, seed=0):
    rng = np.random.default_rng(seed)
    conv = [n for n, k, _ in layers(cfg) if k == "conv"] if bn else []
    theta0 = _init(rng, layers(cfg), conv)
    meta = dict(lr=np.full(T, 0.02), mom=np.full(T, 0.5))
    if data == "gen":
        meta["gen"] = _init(rng, gen_layers(cfg), ("g1", "g2", "g3"))
        meta["z"] = rng.standard_normal((T, batch, ZDIM))
    else:
        meta["x"] = 0.5 * rng.standard_normal((T, batch, 1, 28, 28))
    y = np.tile(np.arange(batch) % CLASSES, (T, 1)).astype(np.int64)
    xo, yo, src = load_mnist(cfg["outer"])
    return theta0, meta, y, xo, yo, src


# ---- process helpers -------------------------------------------------------------------------------------------

def parser(desc, modes):
    p = argparse.ArgumentParser(description=desc)
    p.add_argument("--setup", default="A", choices=list(SETUPS))
    p.add_argument("--mode", default=modes[0], choices=modes)
    p.add_argument("--steps", type=int, default=0, help="inner steps T (0: the setup's)")
    p.add_argument("--batch", type=int, default=0, help="inner batch (0: the setup's)")
    p.add_argument("--data", default="gen", choices=["gen", "direct"], help="generator, or learned pixels")
    p.add_argument("--bn", action="store_true", help="batch norm after the learner's convolutions")
    p.add_argument("--adam", action="store_true", help="add the outer Adam update to what is timed")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    p.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    p.add_argument("--tf32", action="store_true")
    p.add_argument("--json", default="", help="append one JSON line to this file")
    p.add_argument("--check", action="store_true", help="float64, tiny sizes: do all modes agree?")
    p.add_argument("--dump", default="", help="save the meta-gradient as .npz (NCHW order)")
    p.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return p


def respawn(script, args_list):
    """Run the measurement in a fresh child process; give back its last line as JSON."""
    t0 = time.time()
    r = subprocess.run([sys.executable, script, *args_list, "--child"], stdout=subprocess.PIPE, text=True)
    if r.returncode:
        raise SystemExit(f"child ended with {r.returncode}")
    *head, last = r.stdout.strip().splitlines()
    for h in head:
        print(h)
    rec = json.loads(last)
    rec["child_maxrss_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    rec["child_wall_s"] = time.time() - t0
    return rec


def rss_mb(field="VmRSS"):
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    return 0.0


def reset_peak():
    """Give freed heap back, reset the kernel's peak-RSS mark; returns the RSS now, in MiB."""
    import gc
    gc.collect()
    try:
        ctypes.CDLL(None).mallctl(b"arena.4096.purge", None, None, None, 0)   # where jemalloc is preloaded
    except AttributeError:
        pass
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except OSError:
        pass
    try:
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
    except OSError:
        pass
    return rss_mb()


def peak_mb():
    return max(rss_mb("VmHWM"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 if rss_mb("VmHWM") == 0 else 0)


def stats(times):
    return dict(times_s=[round(t, 4) for t in times], median_s=statistics.median(times), min_s=min(times))


def flatten(tree, pre=""):
    out = {}
    for k in sorted(tree):
        v = tree[k]
        if isinstance(v, dict):
            out.update(flatten(v, pre + k + "."))
        else:
            out[pre + k] = np.asarray(v)
    return out


def checksums(flat):
    """Norms of the meta-gradient per group: gen, z (or x), lr, mom; and the whole."""
    g = {}
    for k, v in flat.items():
        top = k.split(".")[0]
        g[top] = g.get(top, 0.0) + float((v.astype(np.float64) ** 2).sum())
    tot = sum(g.values()) ** 0.5
    return dict(norm=tot, **{"norm_" + k: v ** 0.5 for k, v in sorted(g.items())},
                sum_lr=float(flat["lr"].astype(np.float64).sum()), sum_mom=float(flat["mom"].astype(np.float64).sum()))


def report(rec, path):
    if path:
        with open(path, "a") as f:
            f.write(json.dumps(rec) + "\n")
    keys = ("framework", "setup", "data", "mode", "T", "batch", "dtype", "device", "median_s", "min_s", "peak_mb", "loss")
    print(" ".join(f"{k}={rec[k]:.4g}" if isinstance(rec[k], float) else f"{k}={rec[k]}" for k in keys if k in rec))
    print("  checksum " + " ".join(f"{k}={v:.8g}" for k, v in rec["checksum"].items()))
