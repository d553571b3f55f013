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


def compared_by(verdict, draw_y=lambda rng, shape: rng.standard_normal(shape)):
    """is_adjoint with another comparison of forward(x) and backward(y)."""
    def wrong(forward, backward, x_shape, y_shape, rng):
        x, y = rng.standard_normal(x_shape), draw_y(rng, y_shape)
        return verdict(forward(x), y, backward(y), x)
    return wrong


def inner(a, b):
    return (a * b).sum()


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
            (lambda x: x.cumsum(0), lambda y: y[::-1].cumsum(0)[::-1], (1000,), (1000,)),
            (lambda x: np.roll(x, 1, 0), lambda y: np.roll(y, 1, 0), (50, 6), (50, 6))]


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


def flipped_as(weights):
    """by_spreading_out with other weights."""
    return but(kernel=weights)


def placed(index):
    """by_spreading_out with the pixels at u[index(stride)]."""
    def fill(x, stride, shape):
        u = np.zeros(shape)
        u[index(stride)] = x
        return u
    return but(fill=fill)


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


def dx_by(function):
    """transposed_grads with another dx."""
    return lambda *arguments: (function(*arguments), transposed_grads(*arguments)[1])


def dw_by(function):
    """transposed_grads with another dw."""
    return lambda *arguments: (transposed_grads(*arguments)[0], function(*arguments))


def wrong_order(dy, x, w, stride, pad):
    return transposed_grads(dy, x, w, stride, pad)[::-1]


EXERCISES = {
    "5.1": Exercise(
        is_adjoint,
        ("Draw x with x_shape and y with y_shape, by rng.standard_normal. Compute both inner "
         "products, each a single number, and compare the two.",
         "The inner products are (y * forward(x)).sum() and (backward(y) * x).sum(). np.isclose "
         "compares two floats up to rounding; bool(...) makes its result True or False."),
        inputs=[(*pair, np.random.default_rng(i)) for i, pair in enumerate(pairs())],
        traps={
            "with ones, a flipped kernel passes too: its sums are the same. Draw x and y at "
            "random.": with_ones,
            "one of x and y is all ones. Then a shift in the wrong direction passes, because the "
            "sum is the same. Draw both at random.":
                compared_by(lambda fx, y, by, x: bool(np.isclose(inner(y, fx), inner(by, x))),
                            lambda rng, shape: np.ones(shape)),
            "the products have different shapes. Compare the two sums, not the single products.":
                compared_by(lambda fx, y, by, x: bool(np.allclose(y * fx, by * x))),
            "x has the shape of backward(y), and y that of forward(x). Multiply those.":
                compared_by(lambda fx, y, by, x: bool(np.isclose(inner(x, fx), inner(by, y)))),
            "@ and np.matmul multiply matrices. An inner product is (a * b).sum().":
                compared_by(lambda fx, y, by, x: bool(np.isclose((y @ fx).sum(), (by @ x).sum()))),
            "np.dot multiplies matrices here. An inner product is (a * b).sum().":
                compared_by(lambda fx, y, by, x: bool(np.isclose(np.dot(y, fx), np.dot(by, x)))),
            "an inner product is a sum, not a mean: x and y differ in their numbers of elements.":
                compared_by(lambda fx, y, by, x: bool(np.isclose((y * fx).mean(),
                                                                 (by * x).mean()))),
            "rounding errors grow with the numbers: a bound like 1e-12 is too strict for long "
            "sums. Use np.isclose.":
                compared_by(lambda fx, y, by, x: bool(abs(inner(y, fx) - inner(by, x)) < 1e-12)),
            "return True or False, not the difference.":
                compared_by(lambda fx, y, by, x: inner(y, fx) - inner(by, x)),
            "you return True where the two differ. Return True where they agree.":
                compared_by(lambda fx, y, by, x: not np.isclose(inner(y, fx), inner(by, x))),
            "== fails for right functions: the two sums are rounded differently. Use np.isclose.":
                exactly_equal,
            "every pair passes here, because all shapes fit. Compare the inner products.":
                shapes_only,
            "you test for the inverse: backward(forward(x)) = x. An adjoint need not be one.":
                as_an_inverse,
            "multiply before you add up: forward(x) by y, and backward(y) by x.": sums_of_outputs,
            "you compare without the signs, and so a gradient with the wrong sign passes.":
                positive_only}),
    "5.2": Exercise(
        sizes_that_give,
        ("Which H gives `out` without any rounding? And how far can H grow until there is one "
         "output more?",
         "The smallest is (out - 1) s + n - 2 p. Each new output needs s more pixels, so there are "
         "s sizes: list(range(smallest, smallest + s))."),
        inputs=[(8, 3, 2, 1), (4, 11, 3, 5), (7, 3, 1, 0), (5, 5, 4, 1)],
        traps={
            "this is the smallest size only. A division by s leaves remainders from 0 to s - 1.":
                sizes_by(first_size, lambda stride: 1),
            "the smallest size is right, but return a list of all sizes, not one number.":
                first_size,
            "these are s - 1 sizes, but there are s: the end of a range does not belong to it.":
                sizes_by(first_size, lambda stride: stride - 1),
            "the numbers are right, but the smallest comes first.":
                lambda *a: sizes_that_give(*a)[::-1],
            "your largest size is the smallest that fits: the sizes grow from there.":
                sizes_by(lambda *a: first_size(*a) - a[2] + 1),
            "all sizes are 1 too large: the smallest is where H + 2 p - n is exactly (out - 1) s.":
                sizes_by(lambda *a: first_size(*a) + 1),
            "n and p have the wrong signs. Solve H + 2 p - n = (out - 1) s for H.":
                sizes_by(lambda out, kernel, stride, pad: (out - 1) * stride - kernel + 2 * pad),
            "the padding is missing. Solve H + 2 p - n = (out - 1) s for H.":
                sizes_by(lambda out, kernel, stride, pad: (out - 1) * stride + kernel),
            "the kernel is missing: a window is n pixels wide.":
                sizes_by(lambda out, kernel, stride, pad: (out - 1) * stride - 2 * pad),
            "the stride is missing: the last window starts (out - 1) s after the first.":
                sizes_by(lambda out, kernel, stride, pad: out - 1 + kernel - 2 * pad),
            "two sizes fit only at stride 2. At stride s there are s of them.":
                sizes_by(first_size, lambda stride: 2),
            "out s - 1 and out s are right for the project's layers, with stride 2. Which H fits "
            "for any n, p and s?":
                lambda out, kernel, stride, pad: [out * stride - 1, out * stride],
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
        ("Pixel o goes to place o s, in both directions: slices with a step put them all there at "
         "once. Then convolve u with stride 1, as in exercise 4.4, where the kernel changed too.",
         "u[:, ::stride, ::stride] = x. Then conv as in exercise 4.4: the kernel flipped in both "
         "directions, its last two axes exchanged, and n - 1 - p as padding."),
        inputs=[(rng.standard_normal((3, 4, 6, 5)), rng.standard_normal((4, 4, 7, 5)),
                 (3, 8, 12, 7), 2, 1),
                (rng.standard_normal((3, 3, 2, 5)), rng.standard_normal((6, 6, 7, 5)),
                 (3, 9, 6, 7), 3, 2)],
        traps={
            "the pixels are repeated. Only place o s gets a pixel, and zeros stay in between.":
                but(fill=repeated),
            "the pixels still stand side by side. Pixel o belongs to place o s.":
                but(fill=not_spread),
            "the kernel is not flipped: k = n - 1 - k'.":
                but(kernel=lambda w: w.transpose(0, 1, 3, 2)),
            "the kernel is flipped from top to bottom only. Flip it from left to right too.":
                flipped_as(lambda w: w[::-1].swapaxes(2, 3)),
            "the kernel is flipped from left to right only. Flip it from top to bottom too.":
                flipped_as(lambda w: w[:, ::-1].swapaxes(2, 3)),
            "you have flipped the channels too. Only ky and kx count from the other end.":
                flipped_as(lambda w: w[::-1, ::-1, ::-1, ::-1].swapaxes(2, 3)),
            "you have exchanged ky and kx too. Only the last two axes change places.":
                flipped_as(lambda w: turned(w).swapaxes(0, 1)),
            ".T reverses all four axes. Exchange the last two only: .swapaxes(2, 3).":
                flipped_as(lambda w: w[::-1, ::-1].T),
            "reshape gives the right shape, but does not exchange axes. Use .swapaxes(2, 3).":
                flipped_as(lambda w: w[::-1, ::-1].reshape(*w.shape[:2], w.shape[3], w.shape[2])),
            "the first axis of u is the batch. Spread out the two axes after it: u[:, ::s, ::s].":
                placed(lambda s: np.s_[::s, ::s]),
            "the pixels are spread out in one direction only. Use u[:, ::s, ::s].":
                placed(lambda s: np.s_[:, ::s]),
            "pixel 0 goes to place 0. Your slices start later.":
                placed(lambda s: np.s_[:, 1::s, 1::s]),
            "pixel 0 goes to place 0. Your slices start at place s.":
                placed(lambda s: np.s_[:, s::s, s::s]),
            "u is still empty: put x into it first.": but(fill=lambda x, stride, shape: 0),
            "the convolution needs the padding n - 1 - p. Without it, the map is too small.":
                but(padding=lambda n, pad: 0),
            "the padding is p too large: it is n - 1 - p.": but(padding=lambda n, pad: n - 1),
            "the padding is one too large: it is n - 1 - p.": but(padding=lambda n, pad: n - pad),
            "this convolves x itself. Put x into u first, and convolve u.":
                lambda x, w, y_shape, stride, pad: conv(x, turned(w), pad=len(w) - 1 - pad),
            "the weights lead from Cout to Cin channels. Exchange their last two axes.":
                but(kernel=lambda w: w[::-1, ::-1]),
            "the padding of this convolution is n - 1 - p, not p.":
                but(padding=lambda n, pad: pad),
            "the stride is already in the distance of the pixels. This convolution has stride 1.":
                lambda x, w, y_shape, stride, pad: spread(x, w, y_shape, stride, pad,
                                                          conv_stride=stride)}),
    "5.4": Exercise(
        overlaps,
        ("Go through all o < out and all k < kernel. Each pair gives one pixel i. Does it lie in "
         "the row?",
         "Let i = o * stride + k - pad. If 0 <= i < size, add 1 to counts[i]."),
        inputs=[(12, 6, 3, 2, 1), (9, 5, 5, 2, 2), (9, 3, 4, 3, 1)],
        traps={
            "counts[-1] is the last pixel: leave out negative i.":
                counted(condition, lambda i, size: i < size),
            "a slice with a negative start begins near the end: use max(0, o s - p).": by_slices,
            "the padding is missing: i = o s + k - p.":
                counted(lambda o, k, stride, pad: o * stride + k),
            "the stride is missing: i = o s + k - p.":
                counted(lambda o, k, stride, pad: o + k - pad),
            "the padding has the wrong sign: i = o s + k - p.":
                counted(lambda o, k, stride, pad: o * stride + k + pad),
            "the tap has the wrong sign: i = o s + k - p.":
                counted(lambda o, k, stride, pad: o * stride - k + pad),
            "tap and padding have the wrong signs: i = o s + k - p.":
                counted(lambda o, k, stride, pad: o * stride - k - pad),
            "the stride belongs to o, not to k: i = o s + k - p.":
                counted(lambda o, k, stride, pad: o + k * stride - pad),
            "the stride belongs to o only, not to k: i = o s + k - p.":
                counted(lambda o, k, stride, pad: (o + k) * stride - pad),
            "pixel 0 lies in the row: the condition is 0 <= i.":
                counted(condition, lambda i, size: 0 < i < size),
            "the last pixel, size - 1, lies in the row: the condition is i < size.":
                counted(condition, lambda i, size: 0 <= i < size - 1),
            "i goes too far: the last pixel is size - 1.":
                counted(condition, lambda i, size: 0 <= i <= size),
            "there are only `out` small pixels, so o ends at out - 1.":
                lambda size, out, kernel, stride, pad: overlaps(size, size, kernel, stride, pad),
            "so many lie on a pixel on average, without a border. Count for each pixel.":
                lambda size, out, kernel, stride, pad: np.full(size, kernel // stride),
            "a stamp is n pixels wide: its last tap is n - 1, not n.":
                lambda size, out, kernel, stride, pad: overlaps(size, out, kernel + 1, stride, pad),
            "you count the pixels under each stamp. Count the stamps on each large pixel.":
                pixels_of_each_stamp,
            "where stamps overlap, count each of them: += 1, not = 1.": set_to_one,
            "you add up the numbers of the taps. Add 1 for each.": numbers_of_taps}),
    "5.5": Exercise(
        transposed_grads,
        ("dx: forward goes from the small map to the large one, so its gradient goes from the "
         "large map to the small one. dw: which argument of conv_weight_grad is the large map?",
         "dx = conv(dy, w, stride, pad). For dw, conv_weight_grad takes the large map first, then "
         "the small one, w.shape, stride and pad."),
        # Cin = Cout: so shapes only give away which map is large and which is small.
        inputs=[(rng.standard_normal((3, 8, 12, 5)), rng.standard_normal((3, 4, 6, 5)),
                 rng.standard_normal((3, 3, 5, 5)), 2, 1),
                (rng.standard_normal((2, 9, 6, 4)), rng.standard_normal((2, 3, 2, 4)),
                 rng.standard_normal((5, 5, 4, 4)), 3, 1)],
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
            "for dx you have put x into the forward function again. dx depends on dy.":
                dx_by(lambda dy, x, w, stride, pad: conv_input_grad(x, w, dy.shape, stride, pad)),
            "for dx you have convolved x. dx is a sum of dy times w.":
                dx_by(lambda dy, x, w, stride, pad: conv(x, w, stride, pad)),
            "the padding is missing in dx: pass it to conv, after the stride.":
                dx_by(lambda dy, x, w, stride, pad: conv(dy, w, stride)),
            "stride and padding are missing in dx: pass both to conv.":
                dx_by(lambda dy, x, w, stride, pad: conv(dy, w)),
            "this padding, n - 1 - p, is that of exercise 5.3. Here conv goes from the large map "
            "to the small one, with its own padding p.":
                dx_by(lambda dy, x, w, stride, pad: conv(dy, w, stride, len(w) - 1 - pad)),
            "the kernel is not flipped here, nor its axes exchanged: that was for conv_input_grad "
            "written as a convolution.":
                dx_by(lambda dy, x, w, stride, pad: conv(dy, w[::-1, ::-1].swapaxes(2, 3), stride,
                                                         pad)),
            "stride and padding are missing in dw: pass both to conv_weight_grad.":
                dw_by(lambda dy, x, w, stride, pad: conv_weight_grad(dy, x, w.shape)),
            "the padding is missing in dw: pass it to conv_weight_grad, after the stride.":
                dw_by(lambda dy, x, w, stride, pad: conv_weight_grad(dy, x, w.shape, stride)),
            "conv_weight_grad takes the shape of the weights: w.shape, not w.":
                dw_by(lambda dy, x, w, stride, pad: conv_weight_grad(dy, x, w, stride, pad)),
            "the axes of dw are those of w already: do not exchange them.":
                dw_by(lambda dy, x, w, stride, pad: conv_weight_grad(
                    dy, x, w.shape, stride, pad).swapaxes(2, 3)),
            "first dx, then dw.": wrong_order},
        results=("dx", "dw")),
}
