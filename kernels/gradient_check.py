"""Is a gradient right? Checks by finite differences, and cases for every operation.

    ops = on_host(kernels.load("plain", np.float64))
    check_operation("softmax", ops)

Use float64: the error of a central difference falls with delta^2, until rounding takes over, and
float32 would leave only three digits.
"""
import numpy as np

from kernels.contract import ACTIVATIONS, READINGS
from kernels.plain import land

TOLERANCE = 1e-6


class OnHost:
    """ops for NumPy arrays: arguments are copied to the device, and results back."""

    def __init__(self, ops):
        self.ops = ops
        self.dtype = ops.dtype

    def upload(self, a):
        """A copy of an array, or of each in a list or tuple, on the device; else `a` itself."""
        if isinstance(a, (tuple, list)) and any(isinstance(x, np.ndarray) for x in a):
            return type(a)(map(self.upload, a))
        if not isinstance(a, np.ndarray):
            return a
        return self.ops.asarray(a, {"f": self.dtype, "u": np.uint8, "i": np.int32}[a.dtype.kind])

    def __getattr__(self, name):
        operation = getattr(self.ops, name)

        def call(*args, out=None, **kwargs):
            kwargs = {key: self.upload(a) for key, a in kwargs.items()}
            result = operation(*map(self.upload, args), out=self.upload(out), **kwargs)
            if isinstance(result, tuple):
                return land(tuple(map(self.ops.asnumpy, result)), out)
            return land(self.ops.asnumpy(result), out)
        return call


def on_host(ops):
    """The operations of any backend, for NumPy arrays."""
    return OnHost(ops)


def directional_check(loss, arrays, grads, rng, delta=1e-5, tolerance=TOLERANCE):
    """Compares the derivative of loss() along one random direction with sum(grad * direction).

    arrays: what loss() depends on, changed in place and restored; grads: its gradients with respect
    to them. One direction goes through all arrays at once. Raises AssertionError, also if the
    derivative is so small that the check would compare zero with zero.
    """
    assert len(grads) == len(arrays), f"{len(grads)} gradients; expected {len(arrays)}"
    directions = [rng.standard_normal(a.shape) for a in arrays]
    length = np.sqrt(sum((u ** 2).sum() for u in directions))
    originals = [a.copy() for a in arrays]
    losses = []
    for sign in (1, -1):
        for a, original, u in zip(arrays, originals, directions):
            a[...] = original + sign * delta * u / length
        losses.append(loss())
    for a, original in zip(arrays, originals):
        a[...] = original
    numeric = (losses[0] - losses[1]) / (2 * delta)
    analytic = sum((np.asarray(g) * u).sum() for g, u in zip(grads, directions)) / length
    zero = abs(analytic) <= 1e-4  # NaN is not
    assert not zero, f"the gradient is {analytic:.1e} in a random direction: almost 0"
    difference = abs(numeric - analytic) / max(abs(numeric), abs(analytic))
    assert difference < tolerance, (f"finite differences give {numeric:.9g}, the gradient "
                                    f"{analytic:.9g}: they differ by {difference:.1e}")


def off_kinks(rng, *shape):
    """Normal numbers, at least 0.05 from 0, where ReLU, LeakyReLU and |x| have their kink."""
    x = rng.standard_normal(shape)
    return x + 0.05 * np.sign(x)


def check_operation(case, ops, seed=1):
    """directional_check of one of CASES. ops: operations on NumPy arrays. Raises AssertionError."""
    if case not in CASES:
        raise ValueError(f"no case {case!r}; expected one of {', '.join(CASES)}")
    rng = np.random.default_rng(seed)
    try:
        directional_check(*CASES[case](ops, rng), rng)
    except AssertionError as error:
        raise AssertionError(f"{case}: {error}") from None


# ------------------------------------------------------------------------------------------ cases
# A case takes (ops, rng) and returns loss(), the arrays it depends on, and their gradients. The
# loss is the sum of an operation's output times random numbers dy, so that dy is the gradient of
# the output.
def conv_case(stride, pad, kernel, cin=3, cout=2, size=(7, 6)):
    def case(ops, rng):
        x = rng.standard_normal((2, *size, cin))
        w = rng.standard_normal((*kernel, cin, cout))
        dy = rng.standard_normal(ops.conv(x, w, stride, pad).shape)
        grads = [ops.conv_input_grad(dy, w, x.shape, stride, pad),
                 ops.conv_weight_grad(x, dy, w.shape, stride, pad)]
        return lambda: (ops.conv(x, w, stride, pad) * dy).sum(), [x, w], grads
    return case


def transposed_conv_case(stride, kernel, cin=3, cout=2):
    """Forward is conv_input_grad, so the input gradient is conv; x and dy exchange their roles."""
    def case(ops, rng):
        pad, shape = kernel // 2, (2, 4 * stride, 3 * stride, cout)
        x = rng.standard_normal((2, 4, 3, cin))
        w = rng.standard_normal((kernel, kernel, cout, cin))
        dy = rng.standard_normal(shape)
        grads = [ops.conv(dy, w, stride, pad),
                 ops.conv_weight_grad(dy, x, w.shape, stride, pad)]
        return (lambda: (ops.conv_input_grad(x, w, shape, stride, pad) * dy).sum(), [x, w], grads)
    return case


def fused_conv_case(activation):
    """With bias and activation, through which the gradient goes first."""
    def case(ops, rng):
        x, w = rng.standard_normal((2, 5, 6, 3)), rng.standard_normal((3, 3, 3, 2))
        bias = np.array([3.0, -3.0])
        y = ops.conv(x, w, 1, 1, bias, activation)
        dy = rng.standard_normal(y.shape)
        da, dbias = ops.bias_activation_grad(dy, y, activation)
        grads = [ops.conv_input_grad(da, w, x.shape, 1, 1),
                 ops.conv_weight_grad(x, da, w.shape, 1, 1), dbias]
        return (lambda: (ops.conv(x, w, 1, 1, bias, activation) * dy).sum(), [x, w, bias], grads)
    return case


def fused_transposed_conv_case(activation):
    def case(ops, rng):
        x, w = rng.standard_normal((2, 5, 6, 2)), rng.standard_normal((3, 3, 3, 2))
        bias, shape = np.array([3.0, -3.0, 2.0]), (2, 10, 12, 3)
        y = ops.conv_input_grad(x, w, shape, 2, 1, bias, activation)
        dy = rng.standard_normal(shape)
        da, dbias = ops.bias_activation_grad(dy, y, activation)
        grads = [ops.conv(da, w, 2, 1), ops.conv_weight_grad(da, x, w.shape, 2, 1), dbias]
        return (lambda: (ops.conv_input_grad(x, w, shape, 2, 1, bias, activation) * dy).sum(),
                [x, w, bias], grads)
    return case


def bias_activation_case(activation):
    def case(ops, rng):
        x, bias = off_kinks(rng, 3, 5, 2, 4), np.zeros(4)
        dy = rng.standard_normal(x.shape)
        grads = ops.bias_activation_grad(dy, ops.bias_activation(x, bias, activation), activation)
        return lambda: (ops.bias_activation(x, bias, activation) * dy).sum(), [x, bias], grads
    return case


def batch_norm_case(activation):
    def case(ops, rng):
        x = 5 + 3 * rng.standard_normal((3, 4, 5, 6))
        gamma, beta = rng.uniform(0.5, 1, 6), rng.choice([-2.0, 2.0], 6)  # off ReLU's kink
        dy = rng.standard_normal(x.shape)

        def forward():
            return ops.batch_norm(x, gamma, beta, np.zeros(6), np.ones(6), activation=activation)
        y, mean, var, _, _ = forward()
        grads = ops.batch_norm_grad(dy, x, y, gamma, mean, var, activation=activation)
        return lambda: (forward()[0] * dy).sum(), [x, gamma, beta], grads
    return case


def softmax_case(ops, rng):
    x, bias = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal(5)
    dp = rng.standard_normal(x.shape)
    grads = ops.softmax_grad(dp, ops.softmax(x, bias))
    return lambda: (ops.softmax(x, bias) * dp).sum(), [x, bias], grads


def bce_case(ops, rng):
    z, target = 3 * rng.standard_normal((6, 1, 1, 1)), rng.uniform(0, 1, (6, 1, 1, 1))
    _, dz = ops.bce_with_logits(z, target)
    return lambda: ops.bce_with_logits(z, target)[0][0], [z], [dz]


def weighted_bce_case(ops, rng):
    z, target = 3 * rng.standard_normal((2, 3, 3, 1)), rng.uniform(0, 1, (2, 3, 3, 1))
    _, dz = ops.bce_with_logits(z, target, 0.5)
    return lambda: ops.bce_with_logits(z, target, 0.5)[0][0], [z], [dz]


def cross_entropy_case(ops, rng):
    """Of one-hot targets, one pixel of which has none."""
    x, target = rng.standard_normal((2, 3, 4, 5)), np.eye(5)[rng.integers(5, size=(2, 3, 4))]
    target[1, 2, 3] = 0
    _, dx = ops.softmax_cross_entropy(x, target)
    return lambda: ops.softmax_cross_entropy(x, target)[0][0], [x], [dx]


def concat_case(ops, rng):
    parts, channels = [rng.standard_normal((2, 3, 4, c)) for c in (3, 1, 6)], [3, 1, 6]
    dy = rng.standard_normal((2, 3, 4, 10))
    return lambda: (ops.concat(parts) * dy).sum(), parts, ops.split(dy, channels)


def feature_matching_case(reading):
    def case(ops, rng):
        real, gap = rng.standard_normal((3, 4, 5, 2)), off_kinks(rng, 3, 4, 5, 2)
        fake = real + gap
        _, dfake = ops.feature_matching(real, fake, reading)
        return lambda: ops.feature_matching(real, fake, reading)[0][0], [fake], [dfake]
    return case


def feature_matching_in_a_layer_case(reading):
    """As in the discriminator: with a gradient from above, and through the layer's activation."""
    def case(ops, rng):
        x, real = off_kinks(rng, 3, 4, 5, 2), 5 + rng.standard_normal((3, 4, 5, 2))
        dabove = rng.standard_normal(x.shape)

        def loss():
            fake = ops.bias_activation(x, None, "leaky_relu")
            return ops.feature_matching(real, fake, reading)[0][0] + (fake * dabove).sum()
        fake = ops.bias_activation(x, None, "leaky_relu")
        _, dx = ops.feature_matching(real, fake, reading, dabove, "leaky_relu")
        return loss, [x], [dx]
    return case


def moment_matching_case(batch):
    """A few pixels a map, so that each of them counts; with a gradient from above."""
    def case(ops, rng):
        real, fake, dabove = rng.standard_normal((3, batch, 2, 3, 4))

        def loss():
            return ops.moment_matching(real, fake, 0.5)[0][0] + (fake * dabove).sum()
        _, dfake = ops.moment_matching(real, fake, 0.5, dabove)
        return loss, [fake], [dfake]
    return case


CASES = {
    "conv 3x3": conv_case(1, 1, (3, 3)),
    "conv 1x7 stride (3, 2)": conv_case((3, 2), (0, 3), (1, 7)),
    "conv 5x2 stride 2": conv_case(2, (2, 1), (5, 2)),
    "conv 11x11 stride 2": conv_case(2, 5, (11, 11)),
    "conv wide": conv_case(2, 1, (3, 3), cin=2, cout=20),
    "transposed conv stride 2": transposed_conv_case(2, 5),
    "transposed conv stride 1": transposed_conv_case(1, 3),
    "transposed conv wide": transposed_conv_case(2, 3, cout=20),
    **{f"conv + bias + {a}": fused_conv_case(a) for a in ACTIVATIONS[1:]},
    "transposed conv + bias + tanh": fused_transposed_conv_case("tanh"),
    **{f"bias + {a}": bias_activation_case(a) for a in ACTIVATIONS},
    **{f"batch norm + {a}": batch_norm_case(a) for a in (None, "relu")},
    "softmax": softmax_case,
    "bce": bce_case,
    "bce, weighted": weighted_bce_case,
    "softmax cross-entropy": cross_entropy_case,
    "concat": concat_case,
    **{f"feature matching {r}": feature_matching_case(r) for r in READINGS},
    **{f"feature matching {r} in a layer": feature_matching_in_a_layer_case(r) for r in READINGS},
    **{f"moment matching, batch {b}": moment_matching_case(b) for b in (1, 2, 5)},
}


# ---------------------------------------------------------------------- cases that compare backends
def value_cases(rng, shape):
    """Yields names and arguments of every operation that takes maps of this shape."""
    yield from cases_of_layers(rng, shape)
    yield from cases_of_losses(rng, shape)
    yield from cases_of_convolutions(rng, shape)
    yield from cases_of_branches_and_pooling(rng, shape)
    c, n = shape[-1], int(np.prod(shape))
    labels = rng.integers(0, c, (5, 3, 4)).astype(np.uint8)
    yield "gather", (labels, np.array([4, 0, 4]), rng.standard_normal((min(c, 256), 3)))
    yield "take_row", (rng.standard_normal((7, *shape)), np.full(1, 23.0))
    yield "adam", (*rng.standard_normal((3, n)), rng.uniform(0, 1, n), np.full(1, 3.0),
                   np.full(1, 0.01), 0.9, 0.999, 1e-8)


def cases_of_layers(rng, shape):
    x, dy, y = rng.standard_normal((3, *shape))
    bias, gamma, beta, mean = rng.standard_normal((4, shape[-1]))
    var, p = rng.uniform(0.5, 2, shape[-1]), np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    for a in ACTIVATIONS:
        yield "bias_activation", (x, bias, a)
        yield "bias_activation_grad", (dy, y, a)
        yield "batch_norm", (x + 9, gamma, beta, mean, var, 0.1, 1e-5, a)
        yield "batch_norm_grad", (dy, x, y, gamma, mean, var, 1e-5, a)
    yield "bias_activation", (x, None, "relu")
    yield "batch_norm_inference", (x, gamma, beta, mean, var)
    yield "softmax", (5 * x, bias)
    yield "softmax", (x,)
    yield "softmax_grad", (dy, p)


def cases_of_losses(rng, shape):
    x, dy, y = rng.standard_normal((3, *shape))
    target = rng.uniform(0, 1, shape)
    yield "bce_with_logits", (9 * x, target)
    yield "bce_with_logits", (9 * x, target, 0.3)
    yield "softmax_cross_entropy", (9 * x, target)
    for reading in READINGS:
        yield "feature_matching", (x, y, reading)
        yield "feature_matching", (x, y, reading, dy)
        yield "feature_matching", (x, y, reading, dy, "leaky_relu")
    apart = np.arange(shape[0]).reshape(-1, 1, 1, 1)  # maps that differ: variances well above 0
    yield "moment_matching", (x + apart, y - apart, 0.3)
    yield "moment_matching", (x + apart, y - apart, 0.3, dy)


def cases_of_convolutions(rng, shape):
    x, w = rng.standard_normal(shape), rng.standard_normal((3, 3, shape[-1], 2))
    above = rng.standard_normal((*shape[:3], 2))
    yield "conv", (x, w, 1, 1)
    yield "conv_input_grad", (above, w, shape, 1, 1)
    yield "conv_weight_grad", (x, above, w.shape, 1, 1)


def cases_of_branches_and_pooling(rng, shape):
    x, y = rng.standard_normal((2, *shape))
    yield "concat", ([x, y[..., :1], 2 * x],)
    yield "concat", ([x],)
    yield "add", (x, y)
    yield "split", (np.concatenate([x, y], -1), [1, 2 * shape[-1] - 1])
    yield "resize", (x, 17, 23)
    yield "resize", (x, 2, 3, False)
    if min(shape[1:3]) >= 2:
        yield "max_pool", (x, 2, 2)
        yield "max_pool", (x, 2, 1, 1)
        yield "average_pool", (x, 2, 1, 1)
    if min(shape[1:3]) >= 3:
        yield "max_pool", (x, 3, 2)
        yield "average_pool", (x, 3, 1, 1)
        yield "average_pool", (x, min(shape[1:3]))
