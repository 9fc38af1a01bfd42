"""A learning rate for each of 32 steps of gradient descent, learned: python rates_jax.py"""

import jax
import jax.numpy as jnp
import optax

adam = optax.adam(0.1)


def error(w, x, y):
    return jnp.mean((x @ w - y) ** 2)


def outer(log_lr, w, x, y, xv, yv):
    @jax.checkpoint
    def step(w, lr):
        return w - lr * jax.grad(error)(w, x, y), None

    w, _ = jax.lax.scan(step, w, jnp.exp(log_lr))
    return error(w, xv, yv)


@jax.jit
def outer_step(log_lr, state, w, data):
    loss, gradient = jax.value_and_grad(outer)(log_lr, w, *data)
    updates, state = adam.update(gradient, state)
    return optax.apply_updates(log_lr, updates), state, loss


def learn(data):
    w, log_lr = jnp.zeros((8, 1)), jnp.full(32, -4.0)
    state = adam.init(log_lr)
    for _ in range(50):
        log_lr, state, loss = outer_step(log_lr, state, w, data)
        print(loss)


# Data, start and output.


def main():
    from data import regression

    learn(regression())


if __name__ == "__main__":
    main()
