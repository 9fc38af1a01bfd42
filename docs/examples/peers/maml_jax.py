"""MAML of sine waves, with a learned rate for each of five steps: python maml_jax.py"""

import jax
import jax.numpy as jnp
import optax

adam = optax.adam(0.002)


def error(network, x, y):
    *hidden, (w, b) = network
    for v, c in hidden:
        x = jnp.tanh(x @ v + c)
    return jnp.mean((x @ w + b - y) ** 2)


def outer(learned, x, y, x_new, y_new):
    @jax.checkpoint
    def step(network, lr):
        gradients = jax.grad(error)(network, x, y)
        return jax.tree.map(lambda p, g: p - lr * g, network, gradients), None

    network, log_lr = learned
    network, _ = jax.lax.scan(step, network, jnp.exp(log_lr))
    return error(network, x_new, y_new)


@jax.jit
def outer_step(learned, state, wave):
    loss, gradients = jax.value_and_grad(outer)(learned, *wave)
    updates, state = adam.update(gradients, state)
    return optax.apply_updates(learned, updates), state, loss


def learn(network, waves):
    learned, losses = (network, jnp.full(5, -4.6)), []
    state = adam.init(learned)
    for wave in waves:
        learned, state, loss = outer_step(learned, state, wave)
        losses.append(loss)
    return jax.device_get(losses)


# Data, start and output.


def main():
    import data

    errors = learn(data.sine_network(), data.waves(10_000))
    for i in range(0, 10_000, 1000):
        print(f"waves {i:5} to {i + 1000:5}: mean error {data.mean(errors[i : i + 1000]):.3f}")


if __name__ == "__main__":
    main()
