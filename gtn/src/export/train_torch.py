"""Trains networks on the batches of a Generative Teaching Network, in PyTorch.

    python train_torch.py [--learners 8] [--seed 0] [--data data.npz] [--rates 1]

Needs torch and numpy. data.npz, written beside this file, has
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

import numpy as np
import torch
import torch.nn.functional as F

# Written by gtn: the run, and the network, from the first layer to the last.
@SETTINGS@

EPS = 1e-5


def channels_last(x):
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


class Pass:
    """One way through the network. `take` gives parameters: it draws them in the first pass, and hands them out later.
    Statistics over a batch are computed in training, and in a test those of the last training batch are used."""

    def __init__(self, take, stored=None):
        self.take, self.stored, self.statistics, self.nodes = take, stored, [], {}
        self.training = stored is None

    def statistic(self, compute):
        value = compute() if self.stored is None else self.stored[len(self.statistics)]
        self.statistics.append(value)
        return value

    def weight(self, shape):
        v = self.take("weight", shape)
        if not WEIGHT_NORM:
            return v
        norm = v.flatten(1).norm(dim=1)
        gain = self.take("gain", v)
        return v * (gain / norm).reshape(-1, *[1] * (v.ndim - 1))

    def per_channel(self, role, x, fan_in=None):
        values = self.take(role, (x.shape[1],), fan_in)
        return values.reshape(1, -1, *[1] * (x.ndim - 2))

    def bias(self, x, wanted=True, fan_in=None):
        return x + self.per_channel("bias", x, fan_in) if wanted else x

    def affine(self, x):
        return x * self.per_channel("ones", x) + self.per_channel("zeros", x)

    def norm(self, x, kind, groups):
        over_batch = (0, *range(2, x.ndim))
        if kind == "mean_only":
            mean = self.statistic(lambda: x.mean(over_batch, keepdim=True))
            return x - mean + self.per_channel("zeros", x)
        if kind == "batch":
            mean = self.statistic(lambda: x.mean(over_batch, keepdim=True))
            variance = self.statistic(lambda: ((x - mean) ** 2).mean(over_batch, keepdim=True))
            return self.affine((x - mean) / (variance + EPS).sqrt())
        groups = {"instance": x.shape[1], "group": groups, "layer": 1}[kind]
        split = x.reshape(len(x), groups, -1)
        centred = split - split.mean(2, keepdim=True)
        normed = centred / ((centred**2).mean(2, keepdim=True) + EPS).sqrt()
        return self.affine(normed.reshape(x.shape))

    def sequence(self, layers, x):
        for name, *rest in layers:
            x = getattr(self, name)(x, *rest)
        return x

    def conv(self, x, filters, size, stride, pad, dilation, groups, bias):
        inputs = x.shape[1] // groups
        # Weights are drawn as [out, rows, columns, in], as in gtn.
        kernel = self.weight((filters, *size, inputs)).permute(0, 3, 1, 2)
        padded = F.pad(x, (pad[2], pad[3], pad[0], pad[1]))
        y = F.conv2d(padded, kernel, stride=stride, dilation=dilation, groups=groups)
        return self.bias(y, bias, size[0] * size[1] * inputs)

    def depthwise(self, x, size, stride, pad, dilation, bias):
        return self.conv(x, x.shape[1], size, stride, pad, dilation, x.shape[1], bias)

    def dense(self, x, units, bias):
        x = self.flatten(x)
        return self.bias(x @ self.weight((units, x.shape[1])).T, bias, x.shape[1])

    def pool(self, x, kind, size, stride, pad):
        pads = (pad[2], pad[3], pad[0], pad[1])
        if kind == "max":
            return F.max_pool2d(F.pad(x, pads, value=-float("inf")), size, stride)
        total = F.avg_pool2d(F.pad(x, pads), size, stride)
        return total / F.avg_pool2d(F.pad(torch.ones_like(x), pads), size, stride)

    def dropout(self, x, rate):
        return F.dropout(x, rate, self.training)

    def drop_path(self, x, rate):
        whole = torch.ones(len(x), *[1] * (x.ndim - 1))
        return x * F.dropout(whole, rate, self.training)

    def mean(self, x):
        return x.mean((2, 3))

    def flatten(self, x):
        return channels_last(x).flatten(1)

    def activation(self, x, kind, slope):
        return {
            "relu": lambda: x.relu(),
            "leaky": lambda: F.leaky_relu(x, slope),
            "gelu": lambda: F.gelu(x),
            "silu": lambda: F.silu(x),
            "tanh": lambda: x.tanh(),
        }[kind]()

    def add(self, x, branches):
        return sum(self.sequence(branch, x) for branch in branches)

    def concat(self, x, branches):
        return torch.cat([self.sequence(branch, x) for branch in branches], 1)

    def graph(self, x, nodes, result):
        for name, layers in nodes:
            self.nodes[name] = self.sequence(layers, x)
        return self.sequence(result, x)

    def node(self, _, name):
        return self.nodes[name]

    def zero(self, x):
        return torch.zeros_like(x)


def draw_weight(shape):
    units, fan_in = shape[0], int(np.prod(shape[1:]))
    fans = fan_in + units * int(np.prod(shape[1:-1]))
    if INIT == "orthogonal":
        return INIT_SCALE * torch.nn.init.orthogonal_(torch.empty(units, fan_in)).reshape(shape)
    distribution, spread = {
        "kaiming_normal": ("normal", (2 / fan_in) ** 0.5),
        "kaiming_uniform": ("uniform", (6 / fan_in) ** 0.5),
        "xavier_normal": ("normal", (2 / fans) ** 0.5),
        "xavier_uniform": ("uniform", (6 / fans) ** 0.5),
        "pytorch": ("uniform", fan_in**-0.5),
    }[INIT]
    unit = torch.randn(shape) if distribution == "normal" else 2 * torch.rand(shape) - 1
    return INIT_SCALE * spread * unit


def first_weights(images):
    """The parameters of a fresh network, in the order in which a pass takes them."""
    drawn = []

    def take(role, shape, fan_in=None):
        if role == "weight":
            value = draw_weight(shape)
        elif role == "gain":
            value = shape.detach().flatten(1).norm(dim=1)
        elif role == "bias" and INIT == "pytorch" and fan_in:
            value = (2 * torch.rand(shape) - 1) * fan_in**-0.5
        else:
            value = torch.full(shape, 1.0 if role == "ones" else 0.0)
        drawn.append(value.requires_grad_())
        return drawn[-1]

    Pass(take).sequence(NETWORK, images)
    return drawn


def logits(weights, images, stored=None):
    rest = iter(weights)
    one_pass = Pass(lambda *_: next(rest), stored)
    return one_pass.sequence(NETWORK, images), one_pass.statistics


def of_weight(i, hyper):
    """The numbers of a step for a weight."""
    if RATES:
        role, factor = RATES[i]
        hyper = {**hyper, "lr": hyper["lr"][role] * factor}
    return {name: float(number) for name, number in hyper.items()}


@OPTIMIZER@


def step(weights, state, images, classes, hyper):
    found, statistics = logits(weights, images)
    loss = -(classes * F.log_softmax(found, 1)).sum(1).mean()
    gradients = torch.autograd.grad(loss, weights)
    with torch.no_grad():
        moved = [
            update(*one, of_weight(i, hyper))
            for i, one in enumerate(zip(weights, gradients, state))
        ]
    weights = [weight.requires_grad_() for weight, _ in moved]
    return weights, [state for _, state in moved], [s.detach() for s in statistics]


@torch.no_grad()
def accuracy(weights, statistics, images, labels):
    correct = 0
    for i in range(0, len(images), 500):
        part = (images[i : i + 500] / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
        part = torch.from_numpy(part).permute(0, 3, 1, 2)
        found = logits(weights, part, statistics)[0].argmax(1)
        correct += int((found.numpy() == labels[i : i + 500]).sum())
    return correct / len(images)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--learners", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", default="data.npz")
    parser.add_argument("--rates", type=float, default=1.0, help="share of the learning rates")
    args = parser.parse_args()
    data = dict(np.load(args.data))
    data["lr"] = data["lr"] * np.float32(args.rates)
    batches = torch.from_numpy(data["x"]).permute(0, 1, 4, 2, 3)
    classes = torch.from_numpy(data["y"])
    accuracies = []
    for learner in range(args.learners):
        torch.manual_seed(args.seed + learner)
        weights = first_weights(batches[0])
        state = [first_state(weight.detach()) for weight in weights]
        for t in range(len(batches)):
            hyper = {name: data[name][t] for name in HYPER}
            weights, state, statistics = step(weights, state, batches[t], classes[t], hyper)
        accuracies.append(accuracy(weights, statistics, data["x_test"], data["y_test"]))
        print(f"learner {learner + 1}: {100 * accuracies[-1]:.2f} %", flush=True)
    spread = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
    found = {"accuracy_mean": float(np.mean(accuracies)), "accuracy_std": spread}
    print(json.dumps({**found, "learners": len(accuracies), "accuracies": accuracies}))


if __name__ == "__main__":
    main()
