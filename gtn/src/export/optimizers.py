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
