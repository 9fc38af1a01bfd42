"""The data of the programs here, in NumPy; sizes and distributions as in autograd/examples."""

import numpy as np


def draws(seed):
    return np.random.default_rng(seed)


def normal(rng, shape, scale=1.0):
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def classifier():
    """A batch, soft labels, weights and a direction: for the Hessian-vector product."""
    rng = draws(1)
    x, y = normal(rng, (64, 784)), np.full((64, 10), 0.1, np.float32)
    return x, y, normal(rng, (784, 10), 0.1), normal(rng, (784, 10))


def regression():
    """Examples of eight features and their sums, to train on and to validate on."""
    x, xv = normal(draws(1), (64, 8)), normal(draws(2), (64, 8))
    return x, x.sum(1, keepdims=True), xv, xv.sum(1, keepdims=True)


def sine_network():
    """Weights and biases of a network 1-40-40-1."""
    rng = draws(0)
    shapes = [(1, 40), (40, 40), (40, 1)]
    weights = [normal(rng, shape, shape[0] ** -0.5) for shape in shapes]
    return [(w, np.zeros((1, w.shape[1]), np.float32)) for w in weights]


def waves(count):
    """Waves of random height and phase: ten points of each to learn from, and ten others."""
    rng = draws(1)
    for _ in range(count):
        height, phase = rng.uniform(0.1, 5.0), rng.uniform(0.0, np.pi)
        x = rng.uniform(-5.0, 5.0, (2, 10, 1))
        y = height * np.sin(x - phase)
        x, y = x.astype(np.float32), y.astype(np.float32)
        yield x[0], y[0], x[1], y[1]


def strokes(rng, count=128):
    """Images [count, 64] of four kinds of strokes under noise, and their one-hot classes."""
    kind, at = rng.integers(0, 4, count), rng.integers(2, 4, count)[:, None, None]
    row, column = np.mgrid[:8, :8]
    down, right = row - at, column - at
    side = (down % 3 == 0) | (right % 3 == 0)
    square = (np.minimum(down, right) >= 0) & (np.maximum(down, right) < 4) & side
    ink = np.stack([down == 0, right == 0, row + at == column + 3, square])
    ink = ink[kind, np.arange(count)].reshape(count, 64)
    return normal(rng, (count, 64), 0.5) + ink.astype(np.float32), np.eye(4, dtype=np.float32)[kind]


def distillation(steps):
    """For every outer step a fresh network 64-32-4 and fresh images with classes."""
    rng = draws(1)

    def layer(i, o):
        return normal(rng, (i, o), (2 / i) ** 0.5), np.zeros((1, o), np.float32)

    return [([layer(64, 32), layer(32, 4)], *strokes(rng)) for _ in range(steps)]


def first_images():
    return normal(draws(2), (4, 64), 0.5)


def mean(losses):
    return sum(losses) / len(losses)


def picture(images):
    """The four images side by side, as characters."""
    shades = np.array(list(" .:o#"))[np.clip((images + 1) * 2, 0, 4).astype(int)]
    lines = shades.reshape(4, 8, 8).transpose(1, 0, 2)
    return "\n".join("  " + "   ".join("".join(image) for image in line) for line in lines)
