"""MAML of sine waves, with a learned rate for each of five steps: python maml_torch.py"""

import torch


def error(network, x, y):
    *hidden, w, b = network
    for v, c in zip(hidden[::2], hidden[1::2]):
        x = torch.tanh(x @ v + c)
    return ((x @ w + b - y) ** 2).mean()


def outer(network, log_lr, x, y, x_new, y_new):
    for lr in log_lr.exp():
        gradients = torch.autograd.grad(error(network, x, y), network, create_graph=True)
        network = [p - lr * g for p, g in zip(network, gradients)]
    return error(network, x_new, y_new)


def learn(network, waves):
    log_lr, losses = torch.full((5,), -4.6, requires_grad=True), []
    adam = torch.optim.Adam([*network, log_lr], 0.002)
    for wave in waves:
        adam.zero_grad()
        loss = outer(network, log_lr, *wave)
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return losses


# Data, start and output.


def main():
    import data

    network = [torch.from_numpy(p).requires_grad_() for layer in data.sine_network() for p in layer]
    waves = (map(torch.from_numpy, wave) for wave in data.waves(10_000))
    errors = learn(network, waves)
    for i in range(0, 10_000, 1000):
        print(f"waves {i:5} to {i + 1000:5}: mean error {data.mean(errors[i : i + 1000]):.3f}")


if __name__ == "__main__":
    main()
