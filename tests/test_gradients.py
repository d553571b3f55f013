"""Every gradient against a directional derivative in float64, and every such check against broken gradients."""
import numpy as np
import pytest
from conftest import load, tiny

import data
import kernels
import semgan

TOLERANCE = 1e-6


def directional_check(loss, arrays, grads, rng, h=1e-5):
    """The derivative of loss() along one random direction through all arrays at once, against sum(grad * direction).

    The arrays are changed in place, and put back. Central differences: the error falls with h^2.
    """
    directions = [rng.standard_normal(a.shape) for a in arrays]
    length = np.sqrt(sum((u ** 2).sum() for u in directions))
    originals = [a.copy() for a in arrays]
    values = []
    for sign in (1, -1):
        for a, original, u in zip(arrays, originals, directions):
            a[...] = original + sign * h * u / length
        values.append(loss())
    for a, original in zip(arrays, originals):
        a[...] = original
    numeric = (values[0] - values[1]) / (2 * h)
    analytic = sum((np.asarray(g) * u).sum() for g, u in zip(grads, directions)) / length
    assert abs(analytic) > 1e-4, "the check would compare zero with zero"
    assert abs(numeric - analytic) < TOLERANCE * max(abs(numeric), abs(analytic)), (numeric, analytic)


def off_kinks(rng, *shape):
    """Normal numbers at least 0.05 from zero, where ReLU, LeakyReLU and |x| have their kink."""
    x = rng.standard_normal(shape)
    return x + 0.05 * np.sign(x)


# Each case takes (ops, rng) and returns loss(), the arrays it depends on, and their gradients by the contract's operations.
# The loss is the sum of the output times fixed random numbers dy, so dy is the output's gradient.
def conv_case(stride, pad, kernel, cin=3, cout=2, size=(7, 6)):
    def case(ops, rng):
        x, w = rng.standard_normal((2, *size, cin)), rng.standard_normal((*kernel, cin, cout))
        dy = rng.standard_normal(ops.conv(x, w, stride, pad).shape)
        return (lambda: (ops.conv(x, w, stride, pad) * dy).sum(), [x, w],
                [ops.conv_input_grad(dy, w, x.shape, stride, pad), ops.conv_weight_grad(x, dy, w.shape, stride, pad)])
    return case


def transposed_conv_case(stride, kernel, cin=3, cout=2):
    """Forward is conv_input_grad; its input's gradient is conv, its weights' gradient conv_weight_grad with roles exchanged."""
    def case(ops, rng):
        x, w, pad = rng.standard_normal((2, 4, 3, cin)), rng.standard_normal((kernel, kernel, cout, cin)), kernel // 2
        shape = (2, 4 * stride, 3 * stride, cout)
        dy = rng.standard_normal(shape)
        return (lambda: (ops.conv_input_grad(x, w, shape, stride, pad) * dy).sum(), [x, w],
                [ops.conv(dy, w, stride, pad), ops.conv_weight_grad(dy, x, w.shape, stride, pad)])
    return case


def fused_conv_case(activation, name="conv"):
    """The fused forms, bias and activation behind the convolution; the gradient peels them off first."""
    def case(ops, rng):
        x, w, bias = rng.standard_normal((2, 5, 6, 3)), rng.standard_normal((3, 3, 3, 2)), np.array([3.0, -3.0])
        if name == "conv":
            run = lambda: ops.conv(x, w, 1, 1, bias, activation)
        else:
            x, run = rng.standard_normal((2, 5, 6, 2)), lambda: ops.conv_input_grad(x, w.transpose(0, 1, 3, 2).copy(),
                                                                                     (2, 10, 12, 2), 2, 1, bias, activation)
            w = rng.standard_normal((3, 3, 2, 2))
        y, dbias = run(), np.empty(2)
        dy = rng.standard_normal(y.shape)
        da = ops.bias_activation_grad(dy, y, activation, dbias)
        if name == "conv":
            grads = [ops.conv_input_grad(da, w, x.shape, 1, 1), ops.conv_weight_grad(x, da, w.shape, 1, 1), dbias]
            return lambda: (run() * dy).sum(), [x, w, bias], grads
        return lambda: (run() * dy).sum(), [x, bias], [ops.conv(da, w.transpose(0, 1, 3, 2).copy(), 2, 1), dbias]
    return case


def bias_activation_case(activation):
    def case(ops, rng):
        bias = np.zeros(4)  # added to x kept off the kinks
        x, dy, dbias = off_kinks(rng, 3, 5, 2, 4), rng.standard_normal((3, 5, 2, 4)), np.empty(4)
        dx = ops.bias_activation_grad(dy, ops.bias_activation(x, bias, activation), activation, dbias)
        return lambda: (ops.bias_activation(x, bias, activation) * dy).sum(), [x, bias], [dx, dbias]
    return case


def batch_norm_case(activation):
    def case(ops, rng):
        x, gamma, beta = 5 + 3 * rng.standard_normal((3, 4, 5, 6)), rng.uniform(0.5, 1, 6), rng.choice([-2.0, 2.0], 6)
        dy, dgamma, dbeta = rng.standard_normal(x.shape), np.empty(6), np.empty(6)
        forward = lambda: ops.batch_norm(x, gamma, beta, np.zeros(6), np.ones(6), activation=activation)
        y, mean, var = forward()
        dx = ops.batch_norm_grad(dy, x, y, gamma, mean, var, activation=activation, dgamma=dgamma, dbeta=dbeta)
        return lambda: (forward()[0] * dy).sum(), [x, gamma, beta], [dx, dgamma, dbeta]
    return case


def softmax_case(ops, rng):
    x, bias, dbias = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal(5), np.empty(5)
    dp = rng.standard_normal(x.shape)
    dx = ops.softmax_grad(dp, ops.softmax(x, bias), dbias)
    return lambda: (ops.softmax(x, bias) * dp).sum(), [x, bias], [dx, dbias]


def bce_case(ops, rng):
    z, target = 3 * rng.standard_normal((6, 1, 1, 1)), rng.uniform(0, 1, (6, 1, 1, 1))
    return lambda: ops.bce_with_logits(z, target)[0][0], [z], [ops.bce_with_logits(z, target)[1]]


def feature_matching_case(reading, add=False):
    def case(ops, rng):
        real, gap = rng.standard_normal((3, 4, 5, 2)), off_kinks(rng, 3, 4, 5, 2)
        fake, dfrom_above = real + gap, rng.standard_normal(gap.shape)
        dfake = ops.feature_matching(real, fake, reading, dfake=dfrom_above.copy() if add else None)[1]
        return (lambda: ops.feature_matching(real, fake, reading)[0][0] + add * (fake * dfrom_above).sum(), [fake], [dfake])
    return case


CASES = {
    "conv 3x3": conv_case(1, 1, (3, 3)),
    "conv 1x7 stride (3, 2)": conv_case((3, 2), (0, 3), (1, 7)),
    "conv 5x2 stride 2": conv_case(2, (2, 1), (5, 2)),
    "conv wide": conv_case(2, 1, (3, 3), cin=2, cout=20),
    "transposed conv stride 2": transposed_conv_case(2, 5),
    "transposed conv stride 1": transposed_conv_case(1, 3),
    "transposed conv wide": transposed_conv_case(2, 3, cout=20),
    **{f"conv + bias + {a}": fused_conv_case(a) for a in ("relu", "leaky_relu", "tanh")},
    "transposed conv + bias + tanh": fused_conv_case("tanh", "conv_input_grad"),
    **{f"bias + {a}": bias_activation_case(a) for a in (None, "relu", "leaky_relu", "tanh")},
    **{f"batch norm + {a}": batch_norm_case(a) for a in (None, "relu")},
    "softmax": softmax_case,
    "bce": bce_case,
    **{f"feature matching {r}": feature_matching_case(r) for r in ("mean", "paired")},
    "feature matching, added": feature_matching_case("mean", add=True),
}


@pytest.mark.parametrize("name", CASES)
def test_operation(device, name):
    rng = np.random.default_rng(1)
    directional_check(*CASES[name](load(device, np.float64), rng), rng)


# --------------------------------------------------------------------------------- broken on purpose
def breakages():
    """(gradient operation, what is done to its result, a case that uses it)."""
    def part_missing(g):
        g.reshape(-1)[: max(1, g.size // 3)] = 0
    def sign(g):
        g *= -1
    def scale(g):
        g *= 1.001
    users = {"conv_input_grad": "conv 3x3", "conv_weight_grad": "conv 5x2 stride 2", "conv": "transposed conv stride 2",
             "bias_activation_grad": "bias + leaky_relu", "batch_norm_grad": "batch norm + relu", "softmax_grad": "softmax",
             "bce_with_logits": "bce", "feature_matching": "feature matching paired"}
    return [(op, damage, case) for op, case in users.items() for damage in (sign, scale, part_missing)]


@pytest.mark.parametrize("operation, damage, case", breakages(), ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_broken_gradient_is_caught(device, operation, damage, case):
    ops, rng = load(device, np.float64), np.random.default_rng(1)
    right, calls = getattr(ops, operation), []

    def broken(*args, **kwargs):
        result = right(*args, **kwargs)
        damage(result[1] if isinstance(result, tuple) else result)
        calls.append(1)
        return result
    # `conv` is the forward of most cases, and a gradient in the transposed ones: there the result is a gradient.
    setattr(ops, operation, broken)
    loss, arrays, grads = CASES[case](ops, rng)
    assert calls
    with pytest.raises(AssertionError):
        directional_check(loss, arrays, grads, rng)


@pytest.mark.parametrize("operation, which", [("bias_activation_grad", "bias + relu"), ("softmax_grad", "softmax"),
                                              ("batch_norm_grad", "batch norm + relu")])
def test_broken_parameter_gradient_is_caught(device, operation, which):
    """The gradients that are filled in: dbias, dgamma, dbeta."""
    ops, rng = load(device, np.float64), np.random.default_rng(1)
    loss, arrays, grads = CASES[which](ops, rng)
    for i in range(1, len(grads)):
        broken = [g * (1.001 if j == i else 1) for j, g in enumerate(grads)]
        with pytest.raises(AssertionError):
            directional_check(loss, arrays, broken, np.random.default_rng(2))


def test_batch_norm_without_its_mean_terms_is_caught(device):
    """The classic mistake: taking the batch's mean and variance for constants."""
    ops, rng = load(device, np.float64), np.random.default_rng(1)
    loss, (x, gamma, beta), (dx, dgamma, dbeta) = CASES["batch norm + None"](ops, rng)
    count = x[..., 0].size
    mean, std = x.mean((0, 1, 2)), np.sqrt(x.var((0, 1, 2)) + 1e-5)
    for missing in (dbeta / count, (x - mean) / std * dgamma / count):
        with pytest.raises(AssertionError):
            directional_check(loss, [x], [dx + gamma / std * missing], rng)


# ------------------------------------------------------------------------------------- whole networks
VARIANTS = [("semgan", False, "mean", "all"), ("semgan", True, "paired", "all"), ("gan", False, "paired", "last"),
            ("gan", True, "mean", "all"), ("semgan", False, "mean", "last")]


def networks(device, model, bottleneck, reading, layers):
    s = tiny(model, bottleneck=bottleneck, feature_matching=reading, feature_layers=layers)
    trainer = semgan.Trainer(kernels.load(device, np.float64), s, data.colored_shapes(s.side))
    ops = trainer.ops
    for net in trainer.generator, trainer.discriminator:  # batch norm's gamma, beta and the biases off their special values 1 and 0
        rng = np.random.default_rng(5)
        for name, p in net.params.items():
            if not name.endswith(".w"):
                ops.write(p, ops.asnumpy(p) + rng.uniform(0.1, 0.4, p.shape) * (-1 if name.endswith("gamma") else 1))
    return trainer


def step_losses(t, grads=False):
    """L_D and the sum of L_G's layers as the training step computes them, without any update; and the kinks' sides."""
    z, index = t.inputs(0)
    maps = t.ops.empty(2 * len(z), t.s.side, t.s.side, t.table.shape[1])
    t.ops.gather(t.labels, index, t.table, out=maps[:len(z)])
    _, saved = t.generator.forward(z, out=maps[len(z):])
    logits, features = t.discriminator.forward(maps)
    loss_d, dlogits = t.ops.bce_with_logits(logits, t.targets)
    losses_g = t.ops.asarray(np.zeros(t.discriminator.layers))
    if grads:
        t.discriminator.backward(dlogits, features)
    dmaps = t.discriminator.feature_matching(features, t.s.feature_matching, t.s.feature_layers, losses_g)
    if grads:
        t.generator.backward(dmaps, saved)
    features, activations = ([t.ops.asnumpy(a) for a in layers] for layers in
                             (features[1:], [saved[0][1], *(y for _, _, y, _, _ in saved[1:-1])]))
    sides = [a > 0 for a in features + activations]
    if t.s.feature_matching == "paired":
        sides += [f[:len(z)] > f[len(z):] for f in features]
    return t.ops.asnumpy(loss_d)[0], t.ops.asnumpy(losses_g).sum(), sides


def network_check(t, net, loss, rng):
    """directional_check of all parameters of a network at once; loss() is called with the changed ones on the device."""
    names, params = list(net.params), [t.ops.asnumpy(p).copy() for p in net.params.values()]
    grads = [t.ops.asnumpy(net.grads[name]).copy() for name in names]

    def loss_on_device():
        for name, p in zip(names, params):
            t.ops.write(net.params[name], p)
        return loss()
    assert all(np.abs(g).max() > 0 for g in grads), "some parameter gets no gradient"
    directional_check(loss_on_device, params, grads, rng, h=1e-6)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v)))
@pytest.mark.parametrize("which", ["d", "g"])
def test_whole_network(device, which, variant):
    """D under binary cross-entropy and G under feature matching through D, all parameters at once."""
    t, seen = networks(device, *variant), []
    step_losses(t, grads=True)

    def loss():
        loss_d, loss_g, sides = step_losses(t)
        seen.append(sides)
        return loss_d if which == "d" else loss_g
    network_check(t, t.networks[which], loss, np.random.default_rng(3))
    assert all((a == b).all() for a, b in zip(*seen)), "a kink lies between the two points: choose another seed"


@pytest.mark.parametrize("operation", ["conv_input_grad", "conv_weight_grad", "batch_norm_grad", "softmax_grad", "conv",
                                       "bias_activation_grad"])
def test_broken_gradient_in_a_network_is_caught(device, operation):
    t = networks(device, *VARIANTS[0])
    right = getattr(t.ops, operation)
    forward_too = operation in ("conv", "conv_input_grad")  # break it in the backward pass only
    armed = []

    def broken(*args, **kwargs):
        result = right(*args, **kwargs)
        if armed or not forward_too:
            t.ops.write(result, t.ops.asnumpy(result) * 1.001)
        return result
    setattr(t.ops, operation, broken)
    backward = t.generator.backward
    t.generator.backward = lambda *args: (armed.append(1), backward(*args), armed.clear())
    step_losses(t, grads=True)
    with pytest.raises(AssertionError):
        network_check(t, t.generator, lambda: step_losses(t)[1], np.random.default_rng(3))
