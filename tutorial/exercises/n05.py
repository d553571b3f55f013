"""Exercises of notebook 5: what is right, and which mistakes get a hint of their own."""
import numpy as np

from kernels.numpy_ops import conv, conv_input_grad, conv_weight_grad
from tutorial.checks import Exercise

rng = np.random.default_rng(5)


# ----------------------------------------------------------------------------------------- 5.1
def is_adjoint(forward, backward, x_shape, y_shape, rng):
    x, y = rng.standard_normal(x_shape), rng.standard_normal(y_shape)
    return bool(np.isclose((y * forward(x)).sum(), (backward(y) * x).sum()))


def with_ones(forward, backward, x_shape, y_shape, rng):
    x, y = np.ones(x_shape), np.ones(y_shape)
    return bool(np.isclose((y * forward(x)).sum(), (backward(y) * x).sum()))


def exactly_equal(forward, backward, x_shape, y_shape, rng):
    x, y = rng.standard_normal(x_shape), rng.standard_normal(y_shape)
    return bool((y * forward(x)).sum() == (backward(y) * x).sum())


def shapes_only(forward, backward, x_shape, y_shape, rng):
    y = rng.standard_normal(y_shape)
    return backward(y).shape == tuple(x_shape)


def as_an_inverse(forward, backward, x_shape, y_shape, rng):
    x = rng.standard_normal(x_shape)
    return bool(np.allclose(backward(forward(x)), x))


def sums_of_outputs(forward, backward, x_shape, y_shape, rng):
    x, y = rng.standard_normal(x_shape), rng.standard_normal(y_shape)
    return bool(np.isclose(forward(x).sum(), backward(y).sum()))


def positive_only(forward, backward, x_shape, y_shape, rng):
    x, y = rng.standard_normal(x_shape), rng.standard_normal(y_shape)
    return bool(np.isclose(abs((y * forward(x)).sum()), abs((backward(y) * x).sum())))


KERNEL = rng.standard_normal((3, 3, 4, 5))
SMOOTH = np.ones((3, 3, 4, 4))
ROTATION = np.linalg.qr(rng.standard_normal((6, 6)))[0]


def pairs():
    """Functions, and shapes of x and y: some adjoint, some with a typical fault."""
    def down(x):
        return conv(x, KERNEL, 2, 1)

    def up(y):
        return conv_input_grad(y, KERNEL, (2, 32, 32, 4), 2, 1)

    def same(x):
        return conv(x, KERNEL, 1, 1)

    def flipped(y):
        return conv_input_grad(y, KERNEL[::-1, ::-1], (2, 8, 7, 4), 1, 1)
    return [(down, up, (2, 32, 32, 4), (2, 16, 16, 5)),
            (same, flipped, (2, 8, 7, 4), (2, 8, 7, 5)),
            (up, down, (2, 16, 16, 5), (2, 32, 32, 4)),
            (down, lambda y: -up(y), (2, 32, 32, 4), (2, 16, 16, 5)),
            (lambda x: x, lambda y: y, (4, 5), (4, 5)),
            (lambda x: 3 * x, lambda y: y / 3, (4, 5), (4, 5)),
            (lambda x: x @ ROTATION, lambda y: y @ ROTATION.T, (50, 6), (50, 6)),
            (lambda x: x.cumsum(0), lambda y: y[::-1].cumsum(0)[::-1], (1000,), (1000,))]


# ----------------------------------------------------------------------------------------- 5.2
def sizes_that_give(out, kernel, stride, pad):
    smallest = (out - 1) * stride + kernel - 2 * pad
    return list(range(smallest, smallest + stride))


def sizes_by(smallest, count=lambda stride: stride):
    def wrong(out, kernel, stride, pad):
        first = smallest(out, kernel, stride, pad)
        return list(range(first, first + count(stride)))
    return wrong


def first_size(out, kernel, stride, pad):
    return (out - 1) * stride + kernel - 2 * pad


# ----------------------------------------------------------------------------------------- 5.3
def by_spreading_out(x, w, y_shape, stride, pad):
    return spread(x, w, y_shape, stride, pad)


def turned(w):
    return w[::-1, ::-1].transpose(0, 1, 3, 2)


def spread(x, w, y_shape, stride, pad, fill=None, kernel=turned, padding=None, conv_stride=1):
    """by_spreading_out with some of its parts exchanged."""
    n, (b, height, width, _) = len(w), y_shape
    u = np.zeros((b, height + 2 * pad - n + 1, width + 2 * pad - n + 1, x.shape[3]))
    if fill:
        u[...] = fill(x, stride, u.shape)
    else:
        u[:, ::stride, ::stride] = x
    return conv(u, kernel(w), conv_stride, n - 1 - pad if padding is None else padding(n, pad))


def but(**parts):
    return lambda x, w, y_shape, stride, pad: spread(x, w, y_shape, stride, pad, **parts)


def repeated(x, stride, shape):
    return x.repeat(stride, 1).repeat(stride, 2)[:, :shape[1], :shape[2]]


def not_spread(x, stride, shape):
    u = np.zeros(shape)
    u[:, :x.shape[1], :x.shape[2]] = x
    return u


# ----------------------------------------------------------------------------------------- 5.4
def overlaps(size, out, kernel, stride, pad):
    return counted(lambda o, k, stride, pad: o * stride + k - pad)(size, out, kernel, stride, pad)


def counted(index, inside=lambda i, size: 0 <= i < size):
    def function(size, out, kernel, stride, pad):
        counts = np.zeros(size, int)
        for o in range(out):
            for k in range(kernel):
                i = index(o, k, stride, pad)
                if inside(i, size):
                    counts[i] += 1
        return counts
    return function


def condition(o, k, stride, pad):
    return o * stride + k - pad


def pixels_of_each_stamp(size, out, kernel, stride, pad):
    return np.array([sum(0 <= condition(o, k, stride, pad) < size for k in range(kernel))
                     for o in range(out)])


def by_slices(size, out, kernel, stride, pad):
    counts = np.zeros(size, int)
    for o in range(out):
        counts[o * stride - pad:o * stride - pad + kernel] += 1
    return counts


def set_to_one(size, out, kernel, stride, pad):
    return np.minimum(overlaps(size, out, kernel, stride, pad), 1)


def numbers_of_taps(size, out, kernel, stride, pad):
    counts = np.zeros(size, int)
    for o in range(out):
        for k in range(kernel):
            i = condition(o, k, stride, pad)
            if 0 <= i < size:
                counts[i] += k
    return counts


# ----------------------------------------------------------------------------------------- 5.5
def transposed_grads(dy, x, w, stride, pad):
    return conv(dy, w, stride, pad), conv_weight_grad(dy, x, w.shape, stride, pad)


def roles_not_exchanged(dy, x, w, stride, pad):
    return conv(dy, w, stride, pad), conv_weight_grad(x, dy, w.shape, stride, pad)


def gradient_of_a_convolution(dy, x, w, stride, pad):
    return conv_input_grad(dy, w, x.shape, stride, pad), None


def flipped_once_more(dy, x, w, stride, pad):
    return (conv(dy, w[::-1, ::-1], stride, pad),
            conv_weight_grad(dy, x, w.shape, stride, pad))


def weights_transposed(dy, x, w, stride, pad):
    return (conv(dy, w.transpose(0, 1, 3, 2), stride, pad),
            conv_weight_grad(dy, x, w.shape, stride, pad))


def without_stride(dy, x, w, stride, pad):
    return conv(dy, w, 1, pad), conv_weight_grad(dy, x, w.shape, stride, pad)


def wrong_order(dy, x, w, stride, pad):
    return transposed_grads(dy, x, w, stride, pad)[::-1]


EXERCISES = {
    "5.1": Exercise(
        is_adjoint,
        ("Draw x and y with rng.standard_normal. Compute both inner products, and compare them.",
         "An inner product is (a * b).sum(). np.isclose compares two floats up to rounding."),
        inputs=[(*pair, np.random.default_rng(i)) for i, pair in enumerate(pairs())],
        traps={
            "with ones, a flipped kernel passes too: its sums are the same. Draw x and y at "
            "random.": with_ones,
            "== fails for right functions: the two sums are rounded differently. Use np.isclose.":
                exactly_equal,
            "the right shape is not enough. Compare the inner products.": shapes_only,
            "you test for the inverse: backward(forward(x)) = x. An adjoint need not be one.":
                as_an_inverse,
            "multiply before you add up: forward(x) by y, and backward(y) by x.": sums_of_outputs,
            "you compare without the signs, and so a gradient with the wrong sign passes.":
                positive_only}),
    "5.2": Exercise(
        sizes_that_give,
        ("Which H gives `out` without any rounding? And how far can H grow until there is one "
         "output more?",
         "The smallest is (out - 1) s + n - 2 p. Each new output needs s more pixels."),
        inputs=[(8, 3, 2, 1), (4, 11, 3, 5), (7, 3, 1, 0), (5, 5, 4, 1)],
        traps={
            "this is the smallest size only. A division by s leaves remainders from 0 to s - 1.":
                sizes_by(first_size, lambda stride: 1),
            "the last size gives one output more: there are s sizes, not s + 1.":
                sizes_by(first_size, lambda stride: stride + 1),
            "the windows cover the padding too, which is no part of the map: subtract 2 p.":
                sizes_by(lambda out, kernel, stride, pad: (out - 1) * stride + kernel + 2 * pad),
            "there is padding on both sides: subtract 2 p.":
                sizes_by(lambda out, kernel, stride, pad: (out - 1) * stride + kernel - pad),
            "`out` windows have out - 1 steps between them: (out - 1) s.":
                sizes_by(lambda out, kernel, stride, pad: out * stride + kernel - 2 * pad),
            "the sizes do not start at out times s. Which is the smallest H with `out` windows?":
                sizes_by(lambda out, kernel, stride, pad: out * stride)}),
    "5.3": Exercise(
        by_spreading_out,
        ("Pixel o goes to place o s: a slice with a step puts them all there at once.",
         "u[:, ::stride, ::stride] = x. Then conv as in exercise 4.4: the kernel flipped in both "
         "directions, its last two axes exchanged, and n - 1 - p as padding."),
        inputs=[(rng.standard_normal((3, 4, 6, 5)), rng.standard_normal((4, 4, 7, 5)),
                 (3, 8, 12, 7), 2, 1),
                (rng.standard_normal((3, 3, 2, 5)), rng.standard_normal((3, 3, 7, 5)),
                 (3, 9, 6, 7), 3, 1)],
        traps={
            "the pixels are repeated. Only place o s gets a pixel, and zeros stay in between.":
                but(fill=repeated),
            "the pixels still stand side by side. Pixel o belongs to place o s.":
                but(fill=not_spread),
            "the kernel is not flipped: k = n - 1 - k'.":
                but(kernel=lambda w: w.transpose(0, 1, 3, 2)),
            "the weights lead from Cout to Cin channels. Exchange their last two axes.":
                but(kernel=lambda w: w[::-1, ::-1]),
            "the padding of this convolution is n - 1 - p, not p.":
                but(padding=lambda n, pad: pad),
            "the stride is already in the distance of the pixels. This convolution has stride 1.":
                lambda x, w, y_shape, stride, pad: spread(x, w, y_shape, stride, pad,
                                                          conv_stride=stride)}),
    "5.4": Exercise(
        overlaps,
        ("Go through all o and all k. Each pair gives one pixel i. Does it lie in the row?",
         "If 0 <= i < size, add 1 to counts[i]."),
        inputs=[(12, 6, 3, 2, 1), (9, 5, 5, 2, 2), (9, 3, 4, 3, 1)],
        traps={
            "counts[-1] is the last pixel: leave out negative i.":
                counted(condition, lambda i, size: i < size),
            "a slice with a negative start begins near the end: use max(0, o s - p).": by_slices,
            "the padding is missing: i = o s + k - p.":
                counted(lambda o, k, stride, pad: o * stride + k),
            "the stride is missing: i = o s + k - p.":
                counted(lambda o, k, stride, pad: o + k - pad),
            "you count the pixels under each stamp. Count the stamps on each large pixel.":
                pixels_of_each_stamp,
            "where stamps overlap, count each of them: += 1, not = 1.": set_to_one,
            "you add up the numbers of the taps. Add 1 for each.": numbers_of_taps}),
    "5.5": Exercise(
        transposed_grads,
        ("Forward goes from the small map to the large one, so dx comes from a function that goes "
         "from the large map to the small one.",
         "dx = conv(dy, ...). In conv_weight_grad the first map is the large one."),
        # Cin = Cout: so shapes only give away which map is large and which is small.
        inputs=[(rng.standard_normal((3, 8, 12, 5)), rng.standard_normal((3, 4, 6, 5)),
                 rng.standard_normal((3, 3, 5, 5)), 2, 1),
                (rng.standard_normal((2, 9, 6, 4)), rng.standard_normal((2, 3, 2, 4)),
                 rng.standard_normal((5, 5, 4, 4)), 3, 2)],
        traps={
            "in conv_weight_grad the large map comes first. Here that is dy: exchange dy and x.":
                roles_not_exchanged,
            "you differentiate a convolution, but forward was conv_input_grad. dx goes back "
            "from the large map to the small one.": gradient_of_a_convolution,
            "do not flip the kernel. With w as it is, conv is the adjoint of forward.":
                flipped_once_more,
            "the weights are already those of the convolution: do not exchange their axes.":
                weights_transposed,
            "dx must be as small as x: the stride belongs into conv too.": without_stride,
            "first dx, then dw.": wrong_order},
        results=("dx", "dw")),
}
