#: sgd
def first_state(theta):
    return ()


def update(theta, g, state, h):
    return theta - h["lr"] * g, ()
#: momentum
def first_state(theta):
    return 0 * theta


def update(theta, g, u, h):
    u = h["momentum"] * u + g
    return theta - h["lr"] * u, u
#: nesterov
def first_state(theta):
    return 0 * theta


def update(theta, g, u, h):
    u = h["momentum"] * u + g
    return theta - h["lr"] * (g + h["momentum"] * u), u
#: rmsprop
def first_state(theta):
    return 0 * theta


def update(theta, g, v, h):
    v = h["decay"] * v + (1 - h["decay"]) * g * g
    return theta - h["lr"] * g / (v**0.5 + h["eps"]), v
#: adam
def first_state(theta):
    return 0 * theta, 0 * theta, 0.0, 0.0


def update(theta, g, state, h):
    # The last two numbers are the sums of the weights in the means: 1 - beta ** t, where beta does not change.
    m, v, m_weight, v_weight = state
    beta1, beta2 = h["beta1"], h["beta2"]
    m, m_weight = beta1 * m + (1 - beta1) * g, beta1 * m_weight + (1 - beta1)
    v, v_weight = beta2 * v + (1 - beta2) * g * g, beta2 * v_weight + (1 - beta2)
    direction = m / m_weight / ((v / v_weight) ** 0.5 + h["eps"])@DECAY@
    return theta - h["lr"] * direction, (m, v, m_weight, v_weight)
#: lion
def first_state(theta):
    return 0 * theta


def update(theta, g, m, h):
    mean = h["beta1"] * m + (1 - h["beta1"]) * g
    sign = (mean > 0) * 1.0 - (mean < 0) * 1.0
    m = h["beta2"] * m + (1 - h["beta2"]) * g
    return theta - h["lr"] * (sign + h["weight_decay"] * theta), m
#: muon
def first_state(theta):
    return 0 * theta


def orthogonal(x):
    # Newton and Schulz's iteration: singular values come to about 1.
    a, b, c = 3.4445, -4.7750, 2.0315
    norm = (x * x).sum() ** 0.5
    x = x / (norm + (norm == 0) * 1.0)
    for _ in range(5):
        tall = x.shape[0] > x.shape[1]
        square = x.T @ x if tall else x @ x.T
        square = b * square + c * square @ square
        x = a * x + (x @ square if tall else square @ x)
    return x


def update(theta, g, u, h):
    u = h["momentum"] * u + g
    direction = g + h["momentum"] * u
    if len(theta.shape) > 1:
        units = theta.shape[0]
        matrix = orthogonal(direction.reshape(units, -1))
        factor = max(1.0, units / matrix.shape[1]) ** 0.5
        direction = (factor * matrix).reshape(theta.shape)
    return theta - h["lr"] * direction, u
