"""Make the goldens: starting values and JAX's meta-gradient of the tiny benchmark set-ups, in f64.

    python make.py PEERS

PEERS is the folder of the JAX and PyTorch programs that this project is compared with (gtn_jax.py, make_init.py), with
the MNIST files where they look for them (../data/mnist). Needs Python 3.11 or later, numpy and jax (made with 0.10.2).
Writes beside itself, for the set-ups tiny (conv) and tinymlp, `<setup>-<gen|direct>[-bn].safetensors` with

    init.<name>   the arrays of make_init.py: theta0.*, meta.*, y, xo, yo
    grad.<name>   the meta-gradient under make_init.py's names less "meta.": gen.g1.v, z (or x), lr, mom
    loss          the outer loss

and in the metadata the commands and versions. The gradient is that of mode naive (reverse over reverse, everything
kept); mode mixflow (forward over reverse) must agree to 1e-9 of each array's largest entry. Batch norm follows only
convolutions, so tinymlp has none.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import jax
import numpy as np

peers, here = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(peers))
import make_init

KINDS = {"float64": "F64", "int64": "I64"}
CASES = [(s, d, bn) for s in ("tiny", "tinymlp") for d in ("gen", "direct") for bn in ((False, True) if s == "tiny" else (False,))]


def run(program, *args):
    """Run one of the peers' programs; gives its command line back."""
    command = [program, *args]
    subprocess.run([sys.executable, "-B", *command], cwd=peers, check=True, stdout=subprocess.DEVNULL)
    return "python " + " ".join(a if "/" not in a else pathlib.Path(a).name for a in command)


def gradient(folder, mode, args):
    """The meta-gradient and loss in one of gtn_jax.py's modes, and the command."""
    dump, record = folder / f"{mode}.npz", folder / f"{mode}.json"
    command = run("gtn_jax.py", *args, "--mode", mode, "--repeats", "1", "--dump", str(dump), "--json", str(record))
    assert json.loads(record.read_text())["real"] == "mnist", "the MNIST files were not found"
    return dict(np.load(dump)), command


def difference(a, b):
    """Greatest difference, each array against its own largest entry, or a millionth of the largest of all."""
    floor = 1e-6 * max(abs(v).max() for v in a.values())
    return max(abs(a[k] - b[k]).max() / max(abs(a[k]).max(), floor) for k in a)


def save(path, arrays, metadata):
    head, at = {"__metadata__": metadata}, 0
    for name, v in arrays.items():
        head[name] = {"dtype": KINDS[v.dtype.name], "shape": v.shape, "data_offsets": [at, at + v.nbytes]}
        at += v.nbytes
    head = json.dumps(head).encode()
    head += b" " * (-len(head) % 8)
    raw = b"".join(np.ascontiguousarray(v).tobytes() for v in arrays.values())
    path.write_bytes(len(head).to_bytes(8, "little") + head + raw)


def make(setup, data, bn, folder):
    args = ["--setup", setup, "--data", data, "--dtype", "float64"] + ["--bn"] * bn
    first = run("make_init.py", *args, "--out", str(folder / "init.safetensors"))
    naive, second = gradient(folder, "naive", args)
    mixflow, third = gradient(folder, "mixflow", args)
    worst = difference(naive, mixflow)
    assert worst < 1e-9, f"modes disagree by {worst}"
    arrays = {f"init.{k}": v for k, v in make_init.load(folder / "init.safetensors").items()}
    arrays |= {"loss" if k == "loss" else f"grad.{k}": v for k, v in naive.items()}
    name = f"{setup}-{data}{'-bn' * bn}.safetensors"
    about = {"made by": "make.py", "init": first, "grad": second, "check": third, "check differs by": f"{worst:.1e}",
             "versions": f"jax {jax.__version__}, numpy {np.__version__}, python {sys.version.split()[0]}"}
    save(here / name, arrays, about)
    print(f"{name}: {len(arrays)} arrays, loss {float(naive['loss']):.12f}, mixflow differs by {worst:.1e}")


for case in CASES:
    with tempfile.TemporaryDirectory() as folder:
        make(*case, pathlib.Path(folder))
