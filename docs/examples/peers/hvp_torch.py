"""The product of a Hessian and a vector: python hvp_torch.py"""

import torch
from torch.autograd.functional import vhp
from torch.nn.functional import cross_entropy


def product(x, y, w, v):
    def loss(w):
        return cross_entropy(x @ w, y)

    return vhp(loss, w, v)[1]  # of a symmetric H, and faster than hvp


# Data, start and output.


def main():
    import data

    x, y, w, v = map(torch.from_numpy, data.classifier())
    print(f"vᵀHv = {(product(x, y, w, v) * v).sum():.3f}")


if __name__ == "__main__":
    main()
