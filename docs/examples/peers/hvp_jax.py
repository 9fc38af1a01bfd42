"""The product of a Hessian and a vector: python hvp_jax.py"""

import jax
import optax


def loss(w, x, y):
    return optax.softmax_cross_entropy(x @ w, y).mean()


@jax.jit
def product(x, y, w, v):
    return jax.jvp(lambda w: jax.grad(loss)(w, x, y), (w,), (v,))[1]


# Data, start and output.


def main():
    import data

    x, y, w, v = data.classifier()
    print(f"vᵀHv = {(product(x, y, w, v) * v).sum():.3f}")


if __name__ == "__main__":
    main()
