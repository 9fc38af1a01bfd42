"""A network that gtn fit trained, in PyTorch.

    network = load("network.npz")
    logits = network(images)          # [n, channels, rows, columns], from 0 to 1

Needs torch and numpy. Pixels are normalised inside. The weights are parameters, so training can go on after network.train(),
where dropout is at work; norms over batches use the statistics of gtn's training, which are buffers.
"""

import numpy as np
import torch
import torch.nn.functional as F

# Written by gtn: the training, and the network, from the first layer to the last.
@SETTINGS@

@PASS@
class Trained(Pass):
    """A pass with statistics that are known."""

    def norm(self, x, kind, groups):
        self.shape = (1, -1, *[1] * (x.ndim - 2))
        return super().norm(x, kind, groups)

    def statistic(self, compute):
        return super().statistic(compute).reshape(self.shape)


class Network(torch.nn.Module):
    def __init__(self, weights, statistics):
        super().__init__()
        self.weights = torch.nn.ParameterList(torch.nn.Parameter(weight) for weight in weights)
        self.count = len(statistics)
        for i, statistic in enumerate(statistics):
            self.register_buffer(f"statistic{i}", statistic)
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).reshape(1, -1, 1, 1))

    def forward(self, images):
        rest = iter(self.weights)
        stored = [getattr(self, f"statistic{i}") for i in range(self.count)]
        one_pass = Trained(lambda *_: next(rest), stored)
        one_pass.training = self.training
        return one_pass.sequence(NETWORK, (images - self.mean) / self.std)


def load(path="network.npz"):
    """The network with the weights in a file."""
    arrays = np.load(path)

    def numbered(kind):
        names = sorted((name for name in arrays if name.startswith(kind)), key=lambda n: int(n[len(kind) :]))
        return [torch.from_numpy(arrays[name]) for name in names]

    return Network(numbered("weight"), numbered("statistic")).eval()


if __name__ == "__main__":
    network = load()
    print(sum(weight.numel() for weight in network.weights), "parameters")
