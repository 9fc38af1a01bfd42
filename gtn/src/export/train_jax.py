"""Trains networks on the batches of a Generative Teaching Network, in JAX.

    python train_jax.py [--learners 8] [--seed 0] [--data data.npz] [--rates 1]

Needs jax and numpy. data.npz, written beside this file, has
    x        synthetic images, already normalised, [steps, batch, rows, columns, channels]
    y        their soft or one-hot classes, [steps, batch, classes]
    lr, ...  a number for every step and hyper-parameter of the optimizer; of some runs a rate for each role of weights
    z        the noise of which generator.onnx makes x, if there is one, [steps, batch, noise]
    x_test   real test images, bytes [images, rows, columns, channels]; y_test their classes
Each network starts anew, takes one step on each batch in order, and is tested. With --rates 0.5 it takes half of the learning
rates: `gtn eval RUN --tune-rates` finds the share that suits a network. The last line is a JSON object.
"""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Written by gtn: the run, and the network, from the first layer to the last.
@SETTINGS@

EPS = 1e-5


def window(size, stride, pad, dilation=(1, 1)):
    pads = [(pad[0], pad[1]), (pad[2], pad[3])]
    return {"window_strides": stride, "padding": pads, "rhs_dilation": dilation}


def pool(x, kind, size, stride, pad):
    pads = [(0, 0), (pad[0], pad[1]), (pad[2], pad[3]), (0, 0)]
    size, stride = (1, *size, 1), (1, *stride, 1)
    if kind == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, size, stride, pads)
    total = lax.reduce_window(x, 0.0, lax.add, size, stride, pads)
    return total / lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, size, stride, pads)


class Pass:
    """One way through the network. `take` gives parameters: it draws them in the first pass, and hands them out later.
    Statistics over a batch are computed in training, and in a test those of the last training batch are used. With a key
    numbers are dropped at random."""

    def __init__(self, take, stored=None, key=None):
        self.take, self.stored, self.statistics, self.nodes = take, stored, [], {}
        self.key = key

    def statistic(self, compute):
        value = compute() if self.stored is None else self.stored[len(self.statistics)]
        self.statistics.append(value)
        return value

    def weight(self, shape):
        v = self.take("weight", shape)
        if not WEIGHT_NORM:
            return v
        axes = tuple(range(1, v.ndim))
        norm = jnp.sqrt(jnp.sum(v * v, axes, keepdims=True))
        gain = self.take("gain", v)
        return v * (gain.reshape(norm.shape) / norm)

    def bias(self, x, wanted=True, fan_in=None):
        return x + self.take("bias", (x.shape[-1],), fan_in) if wanted else x

    def affine(self, x):
        return x * self.take("ones", (x.shape[-1],)) + self.take("zeros", (x.shape[-1],))

    def norm(self, x, kind, groups):
        over_batch = tuple(range(x.ndim - 1))
        if kind == "mean_only":
            mean = self.statistic(lambda: x.mean(over_batch))
            return x - mean + self.take("zeros", (x.shape[-1],))
        if kind == "batch":
            mean = self.statistic(lambda: x.mean(over_batch))
            variance = self.statistic(lambda: ((x - mean) ** 2).mean(over_batch))
            return self.affine((x - mean) / jnp.sqrt(variance + EPS))
        groups = {"instance": x.shape[-1], "group": groups, "layer": 1}[kind]
        split = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
        axes = tuple(i for i in range(1, split.ndim) if i != split.ndim - 2)
        centred = split - split.mean(axes, keepdims=True)
        normed = centred / jnp.sqrt((centred**2).mean(axes, keepdims=True) + EPS)
        return self.affine(normed.reshape(x.shape))

    def sequence(self, layers, x):
        for name, *rest in layers:
            x = getattr(self, name)(x, *rest)
        return x

    def conv(self, x, filters, size, stride, pad, dilation, groups, bias):
        inputs = x.shape[-1] // groups
        kernel = jnp.transpose(self.weight((filters, *size, inputs)), (1, 2, 3, 0))
        fan_in = size[0] * size[1] * inputs
        names = ("NHWC", "HWIO", "NHWC")
        options = window(size, stride, pad, dilation)
        y = lax.conv_general_dilated(
            x, kernel, dimension_numbers=names, feature_group_count=groups, **options
        )
        return self.bias(y, bias, fan_in)

    def depthwise(self, x, size, stride, pad, dilation, bias):
        return self.conv(x, x.shape[-1], size, stride, pad, dilation, x.shape[-1], bias)

    def dense(self, x, units, bias):
        x = x.reshape(len(x), -1)
        return self.bias(x @ self.weight((units, x.shape[1])).T, bias, x.shape[1])

    def pool(self, x, *options):
        return pool(x, *options)

    def dropout(self, x, rate, shape=None):
        if self.key is None:
            return x
        self.key, own = jax.random.split(self.key)
        return x * jax.random.bernoulli(own, 1 - rate, shape or x.shape) / (1 - rate)

    def drop_path(self, x, rate):
        return self.dropout(x, rate, (len(x), *[1] * (x.ndim - 1)))

    def mean(self, x):
        return x.mean((1, 2))

    def flatten(self, x):
        return x.reshape(len(x), -1)

    def activation(self, x, kind, slope):
        return {
            "relu": lambda: jnp.maximum(x, 0),
            "leaky": lambda: jnp.where(x > 0, x, slope * x),
            "gelu": lambda: jax.nn.gelu(x, approximate=False),
            "silu": lambda: jax.nn.silu(x),
            "tanh": lambda: jnp.tanh(x),
        }[kind]()

    def add(self, x, branches):
        return sum(self.sequence(branch, x) for branch in branches)

    def concat(self, x, branches):
        return jnp.concatenate([self.sequence(branch, x) for branch in branches], -1)

    def graph(self, x, nodes, result):
        for name, layers in nodes:
            self.nodes[name] = self.sequence(layers, x)
        return self.sequence(result, x)

    def node(self, _, name):
        return self.nodes[name]

    def zero(self, x):
        return jnp.zeros_like(x)


def draw_weight(rng, shape):
    units, fan_in = shape[0], int(np.prod(shape[1:]))
    fans = fan_in + units * int(np.prod(shape[1:-1]))
    if INIT == "orthogonal":
        flat = rng.standard_normal((max(units, fan_in), min(units, fan_in)))
        q = np.linalg.qr(flat)[0]
        return INIT_SCALE * (q if units >= fan_in else q.T).reshape(shape)
    distribution, spread = {
        "kaiming_normal": ("normal", (2 / fan_in) ** 0.5),
        "kaiming_uniform": ("uniform", (6 / fan_in) ** 0.5),
        "xavier_normal": ("normal", (2 / fans) ** 0.5),
        "xavier_uniform": ("uniform", (6 / fans) ** 0.5),
        "pytorch": ("uniform", fan_in**-0.5),
    }[INIT]
    unit = rng.standard_normal(shape) if distribution == "normal" else rng.uniform(-1, 1, shape)
    return INIT_SCALE * spread * unit


def first_weights(seed, images):
    """The parameters of a fresh network, in the order in which a pass takes them."""
    rng, drawn = np.random.default_rng(seed), []

    def take(role, shape, fan_in=None):
        if role == "weight":
            value = draw_weight(rng, shape)
        elif role == "gain":
            v = np.asarray(shape)
            value = np.sqrt((v**2).reshape(len(v), -1).sum(1))
        elif role == "bias" and INIT == "pytorch" and fan_in:
            value = rng.uniform(-1, 1, shape) * fan_in**-0.5
        else:
            value = np.full(shape, 1.0 if role == "ones" else 0.0)
        drawn.append(jnp.asarray(value, jnp.float32))
        return drawn[-1]

    Pass(take).sequence(NETWORK, images)
    return drawn


def logits(weights, images, stored=None, key=None):
    rest = iter(weights)
    one_pass = Pass(lambda *_: next(rest), stored, key)
    return one_pass.sequence(NETWORK, images), one_pass.statistics


def loss(weights, images, classes, key):
    found, statistics = logits(weights, images, key=key)
    return -(classes * jax.nn.log_softmax(found)).sum(1).mean(), statistics


def of_weight(i, hyper):
    """The numbers of a step for a weight."""
    if not RATES:
        return hyper
    role, factor = RATES[i]
    return {**hyper, "lr": hyper["lr"][role] * factor}


@OPTIMIZER@

@jax.jit
def step(weights, state, images, classes, hyper, key):
    gradients, statistics = jax.grad(loss, has_aux=True)(weights, images, classes, key)
    moved = [
        update(*one, of_weight(i, hyper))
        for i, one in enumerate(zip(weights, gradients, state))
    ]
    return [weight for weight, _ in moved], [state for _, state in moved], statistics


@jax.jit
def correct(weights, statistics, images, labels):
    return (logits(weights, images, statistics)[0].argmax(1) == labels).sum()


def accuracy(weights, statistics, images, labels):
    images = (images / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    parts = range(0, len(images), 500)
    found = [correct(weights, statistics, images[i : i + 500], labels[i : i + 500]) for i in parts]
    return float(sum(int(n) for n in found) / len(images))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--learners", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", default="data.npz")
    parser.add_argument("--rates", type=float, default=1.0, help="share of the learning rates")
    args = parser.parse_args()
    data = dict(np.load(args.data))
    data["lr"] = data["lr"] * np.float32(args.rates)
    accuracies = []
    for learner in range(args.learners):
        weights = first_weights(args.seed + learner, data["x"][0])
        state = [first_state(weight) for weight in weights]
        keys = jax.random.split(jax.random.key(args.seed + learner), len(data["x"]))
        for t, key in enumerate(keys):
            hyper = {name: data[name][t] for name in HYPER}
            batch = data["x"][t], data["y"][t]
            weights, state, statistics = step(weights, state, *batch, hyper, key)
        accuracies.append(accuracy(weights, statistics, data["x_test"], data["y_test"]))
        print(f"learner {learner + 1}: {100 * accuracies[-1]:.2f} %", flush=True)
    spread = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
    found = {"accuracy_mean": float(np.mean(accuracies)), "accuracy_std": spread}
    print(json.dumps({**found, "learners": len(accuracies), "accuracies": accuracies}))


if __name__ == "__main__":
    main()
