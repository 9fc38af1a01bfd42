"""The four programs beside the same in JAX and PyTorch: lines, seconds and MiB, as a table.

    cargo build -p gtn-autograd --release --examples
    python docs/examples/peers/measure.py

Needs Linux with GNU time; jax, optax and numpy for the JAX rows, torch and numpy for those of
PyTorch (--jax and --torch name other interpreters that have them). Rows of a missing library have
no figures. Every run is a process of its own, and medians are printed.

* Seconds: ours are those of the whole process, less those of an empty one. A peer's are those of
  main() after the imports, with compilation; in brackets those of main() once more, with nothing
  left to compile. The data are drawn within that time in all of them.
* MiB: the peak resident size of the process; in brackets a peer's after the imports.

With --write, the table and the programs go into docs/coming-from-jax-and-pytorch.md.
"""

import argparse
import contextlib
import functools
import importlib
import io
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PAGE = ROOT / "docs/coming-from-jax-and-pytorch.md"
# The peers' name, our example, and the function at whose end our program ends.
PROGRAMS = [
    ("hvp", "hessian_vector_product", "fn product("),
    ("rates", "learn_learning_rate", "fn learn("),
    ("maml", "maml_sine", "fn learn("),
    ("distill", "distill_pixels", "fn distil("),
]
LIBRARIES = {"jax": ("JAX", "numpy, jax, optax"), "torch": ("PyTorch", "numpy, torch")}


def our_program(example, function):
    """The lines that autograd/tests/front.rs counts: from the first `use` to the function's end."""
    lines = (ROOT / "autograd/examples" / f"{example}.rs").read_text().splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("use "))
    last = next(i for i, line in enumerate(lines) if line.startswith(function))
    return lines[begin : lines.index("}", last) + 1]


def peers_program(name):
    """The lines from the first import to the data; they are laid out by black -l 100."""
    lines = (HERE / f"{name}.py").read_text().splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith(("import ", "from ")))
    program = "\n".join(lines[begin : lines.index("# Data, start and output.")])
    # On the page one blank line is enough.
    return re.sub("\n\n\n+", "\n\n", program).strip().splitlines()


def count(program):
    """Lines without blank ones."""
    return sum(bool(line.strip()) for line in program)


def peak():
    """The most MiB that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(name):
    """Runs a peer's program twice in this process, and prints seconds and MiB."""
    sys.path.insert(0, str(HERE))
    if name.endswith("jax"):
        importlib.import_module("jax").devices()
    importlib.import_module("data")
    program = importlib.import_module(name)

    def seconds():
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            program.main()
        return time.perf_counter() - start

    imported, first, most = peak(), seconds(), peak()
    print(json.dumps([first, seconds(), most, imported]))


def run_peer(python, name):
    command = [python, "-B", __file__, "--child", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_ours(command):
    """Seconds and MiB. Linux counts a parent's size as its child's, so the small GNU time is it."""
    with tempfile.NamedTemporaryFile("r") as report:
        command = ["/usr/bin/time", "-f", "%M", "-o", report.name, *command]
        start = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seconds = time.perf_counter() - start
        return [seconds, float(report.read()) / 1024]


def medians(run, runs):
    return [statistics.median(numbers) for numbers in zip(*(run() for _ in range(runs)))]


def digits(seconds):
    """Two significant ones, without an exponent."""
    return f"{seconds:.0f}" if seconds >= 10 else f"{max(seconds, 0.001):.2g}"


def our_figures(args, example, empty):
    if args.runs == 0:
        return ["–", "–"]
    binary = args.ours / example
    if not binary.exists():
        sys.exit(f"{binary} is missing: cargo build -p gtn-autograd --release --examples")
    seconds, mib = medians(functools.partial(run_ours, [binary]), args.runs)
    return [digits(seconds - empty), f"{mib:.0f}"]


def has(python, modules):
    command = [python, "-c", f"import {modules}"]
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


def peers_figures(args, name, library):
    python, modules = getattr(args, library), LIBRARIES[library][1]
    if args.runs == 0 or not has(python, modules):
        return ["–", "–"]
    first, again, mib, imported = medians(functools.partial(run_peer, python, name), args.runs)
    return [f"{digits(first)} ({digits(again)})", f"{mib:.0f} ({imported:.0f})"]


def table(args):
    """Its rows, as they are measured."""
    yield "| program | | lines | seconds | MiB |"
    yield "| --- | --- | --- | --- | --- |"
    empty = medians(functools.partial(run_ours, ["true"]), 5)[0]
    for name, example, function in PROGRAMS:
        seconds, mib = our_figures(args, example, empty)
        yield f"| {name} | ours | {count(our_program(example, function))} | {seconds} | {mib} |"
        for library, (title, _) in LIBRARIES.items():
            seconds, mib = peers_figures(args, f"{name}_{library}", library)
            lines = count(peers_program(f"{name}_{library}"))
            yield f"| | {title} | {lines} | {seconds} | {mib} |"


def blocks(name, example, function):
    """The three programs, for the page."""
    ours = our_program(example, function)
    yield from [f"[Ours](../autograd/examples/{example}.rs):", "", "```rust", *ours, "```"]
    for library, (title, _) in LIBRARIES.items():
        program = peers_program(f"{name}_{library}")
        link = f"[{title}](examples/peers/{name}_{library}.py):"
        yield from ["", link, "", "```python", *program, "```"]


def fill(page, mark, lines):
    """Replaces what stands between two marks."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
    before, rest = page.split(begin)
    return before + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1]


def main():
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--runs", type=int, default=3, help="of each; 0 for the lines only")
    parser.add_argument("--ours", type=Path, default=ROOT / "target/release/examples")
    for library in LIBRARIES:
        parser.add_argument(f"--{library}", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--write", action="store_true", help="put the results into the page")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.child)
    rows = []
    for row in table(args):
        print(row, flush=True)
        rows.append(row)
    if args.write:
        page = fill(PAGE.read_text(), "figures", rows)
        for name, example, function in PROGRAMS:
            page = fill(page, name, blocks(name, example, function))
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
