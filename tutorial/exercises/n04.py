"""Exercises of notebook 4: what is right, and which mistakes get a hint of their own."""
import numpy as np

from kernels.numpy_ops import conv, pad_maps, taps
from tutorial.checks import Exercise

rng = np.random.default_rng(4)


# ----------------------------------------------------------------------------------------- 4.1
def output_size(size, kernel, stride, pad):
    return (size + 2 * pad - kernel) // stride + 1


# ----------------------------------------------------------------------------------------- 4.2
def conv_row(x, w, out, stride, pad):
    y = np.zeros(out)
    for o in range(out):
        for k in range(len(w)):
            i = o * stride + k - pad
            if 0 <= i < len(x):
                y[o] += x[i] * w[k]
    return y


def row_by(index, inside=lambda i, x: 0 <= i < len(x), flip=False, overwrite=False):
    """conv_row with some of its parts exchanged."""
    def wrong(x, w, out, stride, pad):
        y = np.zeros(out)
        for o in range(out):
            for k in range(len(w)):
                i = index(o, k, stride, pad)
                if inside(i, x):
                    product = x[i] * w[-1 - k if flip else k]
                    y[o] = product if overwrite else y[o] + product
        return y
    return wrong


def stops_outside(x, w, out, stride, pad):
    y = np.zeros(out)
    for o in range(out):
        for k in range(len(w)):
            i = condition(o, k, stride, pad)
            if not 0 <= i < len(x):
                break
            y[o] += x[i] * w[k]
    return y


def condition(o, k, stride, pad):
    return o * stride + k - pad


# ----------------------------------------------------------------------------------------- 4.3
def weight_grad(x, dy, w_shape, stride, pad):
    return by_taps(lambda p, dy: np.einsum("bhwi,bhwo->io", p, dy))(x, dy, w_shape, stride, pad)


def by_taps(of_tap):
    """weight_grad with another product of the pixels and dy."""
    def function(x, dy, w_shape, stride, pad):
        dw = np.zeros(w_shape)
        padded = pad_maps(x, pad)
        for tap, pixels in taps(w_shape, dy.shape, stride):
            dw[tap] = of_tap(padded[pixels], dy)
        return dw
    return function


def product_of_sums(pixels, dy):
    return np.outer(pixels.sum((0, 1, 2)), dy.sum((0, 1, 2)))


def of_one_map(b):
    return lambda pixels, dy: np.einsum("hwi,hwo->io", pixels[b], dy[b])


def exchanged(pixels, dy):
    return np.einsum("bhwi,bhwo->oi", pixels, dy)


def mean_over_the_batch(pixels, dy):
    return np.einsum("bhwi,bhwo->io", pixels, dy) / len(dy)


def mean_over_all(pixels, dy):
    return np.einsum("bhwi,bhwo->io", pixels, dy) / dy[..., 0].size


# ----------------------------------------------------------------------------------------- 4.4
def input_grad_by_conv(dy, w, pad):
    return conv(dy, w[::-1, ::-1].transpose(0, 1, 3, 2), pad=len(w) - 1 - pad)


def not_flipped(dy, w, pad):
    return conv(dy, w.transpose(0, 1, 3, 2), pad=len(w) - 1 - pad)


def flipped_in_y_only(dy, w, pad):
    return conv(dy, w[::-1].transpose(0, 1, 3, 2), pad=len(w) - 1 - pad)


def taps_transposed_too(dy, w, pad):
    return conv(dy, w[::-1, ::-1].transpose(1, 0, 3, 2), pad=len(w) - 1 - pad)


def channels_not_exchanged(dy, w, pad):
    return conv(dy, w[::-1, ::-1], pad=len(w) - 1 - pad)


def same_padding(dy, w, pad):
    return conv(dy, w[::-1, ::-1].transpose(0, 1, 3, 2), pad=pad)


def one_padding_too_many(dy, w, pad):
    return conv(dy, w[::-1, ::-1].transpose(0, 1, 3, 2), pad=len(w) - pad)


# ----------------------------------------------------------------------------------------- 4.5
def im2col(x, w_shape, y_shape, stride, pad):
    return stacked(3)(x, w_shape, y_shape, stride, pad)


def stacked(axis):
    """im2col with the taps at another axis."""
    def function(x, w_shape, y_shape, stride, pad):
        padded = pad_maps(x, pad)
        parts = [padded[pixels] for _, pixels in taps(w_shape, y_shape, stride)]
        return np.stack(parts, axis).reshape(int(np.prod(y_shape[:3])), -1)
    return function


def maps_last(x, w_shape, y_shape, stride, pad):
    """Rows go through lines and columns first, and through maps last."""
    rows = im2col(x, w_shape, y_shape, stride, pad)
    b, ho, wo, _ = y_shape
    return rows.reshape(b, ho * wo, -1).transpose(1, 0, 2).reshape(b * ho * wo, -1)


def windows_as_columns(x, w_shape, y_shape, stride, pad):
    return im2col(x, w_shape, y_shape, stride, pad).T


EXERCISES = {
    "4.1": Exercise(
        output_size,
        ("The window of output o ends on pixel o s + (n - 1) - p, which is at most H + p - 1. "
         "Solve for o.",
         "The largest o is (H + 2 p - n) / s, rounded down. Outputs count from 0."),
        inputs=[(7, 3, 1, 1), (7, 3, 2, 1), (8, 3, 2, 1), (32, 11, 2, 5), (9, 4, 3, 0)],
        traps={
            "a window that fits only in part does not count. Round the quotient down, with //.":
                lambda size, kernel, stride, pad: (size + 2 * pad - kernel) / stride + 1,
            "you round up, but the last window must fit in whole. Round down, with //.":
                lambda size, kernel, stride, pad: -(-(size + 2 * pad - kernel) // stride) + 1,
            "that is the number of the last output. They count from 0, so there is one more.":
                lambda size, kernel, stride, pad: (size + 2 * pad - kernel) // stride,
            "the 1 is not divided. There are (H + 2 p - n) // s steps, and one more window.":
                lambda size, kernel, stride, pad: (size + 2 * pad - kernel + 1) // stride,
            "there is padding on both sides: 2 p in all.":
                lambda size, kernel, stride, pad: (size + pad - kernel) // stride + 1,
            "2 p belongs to the size: a larger padding gives more outputs.":
                lambda size, kernel, stride, pad: (size - 2 * pad - kernel) // stride + 1,
            "that is right only if the padding is (n - 1) / 2, as in the project's networks.":
                lambda size, kernel, stride, pad: -(-size // stride)}),
    "4.2": Exercise(
        conv_row,
        ("Compute i from the condition first. Then ask whether it lies inside the map.",
         "If 0 <= i < len(x), add x[i] * w[k] to y[o]. Otherwise add nothing."),
        inputs=[(rng.standard_normal(7), rng.standard_normal(3), 4, 2, 1),
                (rng.standard_normal(6), rng.standard_normal(5), 6, 1, 2)],
        traps={
            "the padding is missing: the first window starts at -p.":
                row_by(lambda o, k, stride, pad: o * stride + k),
            "the window starts at o s - p. You add the padding instead of subtracting it.":
                row_by(lambda o, k, stride, pad: o * stride + k + pad),
            "x[-1] is the last pixel in Python: a negative i must be left out too.":
                row_by(condition, lambda i, x: i < len(x)),
            "i leaves the map on both sides. It must be at least 0 and less than len(x).":
                row_by(condition, lambda i, x: True),
            "pixel 0 lies inside the map: the condition is 0 <= i.":
                row_by(condition, lambda i, x: 0 < i < len(x)),
            "the stride moves the window, not the taps: i = o s + k - p, without s at k.":
                row_by(lambda o, k, stride, pad: (o + k) * stride - pad),
            "the stride is missing: the window of output o starts at o s - p.":
                row_by(lambda o, k, stride, pad: o + k - pad),
            "the kernel is flipped. That is the convolution of mathematics. In networks tap k "
            "lies on pixel o s + k - p.": row_by(condition, flip=True),
            "a tap outside the map does not end the window: continue, instead of break.":
                stops_outside,
            "only the last tap is left in y[o]. Add up, with +=.":
                row_by(condition, overwrite=True)}),
    "4.3": Exercise(
        weight_grad,
        ("dw[tap] is (Cin, Cout): the sum of x^T dy over all maps and all output pixels.",
         "Either use np.einsum with 'bhwi,bhwo->io', or flatten both to (B Ho Wo, channels) and "
         "multiply the first, transposed, by the second."),
        inputs=[(rng.standard_normal((3, 7, 6, 4)), rng.standard_normal((3, 4, 3, 5)),
                 (3, 3, 4, 5), 2, 1),
                (rng.standard_normal((3, 8, 7, 4)), rng.standard_normal((3, 4, 5, 5)),
                 (5, 3, 4, 5), 1, 0)],
        traps={
            "only the last map of the batch counts. Sum over the batch.": by_taps(of_one_map(-1)),
            "only the first map of the batch counts. Sum over the batch.": by_taps(of_one_map(0)),
            "you average over the batch. The weights serve all maps, so their gradients add up.":
                by_taps(mean_over_the_batch),
            "you average over maps and pixels. The gradients of all outputs add up.":
                by_taps(mean_over_all),
            "you multiply the sums. Multiply pixel by pixel first, and then sum.":
                by_taps(product_of_sums),
            "the matrix stands the wrong way round: (Cout, Cin). It is x^T dy, not dy^T x.":
                by_taps(exchanged)}),
    "4.4": Exercise(
        input_grad_by_conv,
        ("At stride 1 the condition gives o = i - k + p. Put k = n - 1 - k' into it.",
         "o = i + k' - (n - 1 - p). So flip both directions of the kernel, w[::-1, ::-1], pad by "
         "n - 1 - p, and exchange the last two axes."),
        inputs=[(rng.standard_normal((2, 6, 7, 5)), rng.standard_normal((3, 3, 4, 5)), 1),
                (rng.standard_normal((2, 4, 3, 5)), rng.standard_normal((4, 4, 3, 5)), 0)],
        traps={
            "the kernel is not flipped: k' = n - 1 - k grows while k falls.":
                not_flipped,
            "the kernel is flipped from top to bottom only. Flip it from left to right too.":
                flipped_in_y_only,
            "you have exchanged ky and kx too. Only the last two axes change places.":
                taps_transposed_too,
            "conv now goes from Cout to Cin channels: exchange the last two axes of the weights.":
                channels_not_exchanged,
            "p' is not p, unless n = 2 p + 1. Put k = n - 1 - k' into o = i - k + p: what do "
            "you subtract from i + k'?": same_padding,
            "the padding is one too large: k' counts from 0 to n - 1, so k = n - 1 - k'.":
                one_padding_too_many}),
    "4.5": Exercise(
        im2col,
        ("For each tap, padded[pixels] (B, Ho, Wo, Cin) holds the numbers of all windows at that "
         "tap.",
         "np.stack puts the taps at a new axis. Between which two axes must it stand, so that "
         "a reshape to (B Ho Wo, kh kw Cin) moves nothing?"),
        inputs=[(rng.standard_normal((3, 6, 7, 2)), (3, 3, 2, 5), (3, 3, 4, 5), 2, 1),
                (rng.standard_normal((2, 5, 6, 3)), (2, 3, 3, 4), (2, 4, 4, 4), 1, 0)],
        traps={
            "each row holds the right numbers in the wrong order: the channels must change "
            "fastest, then kx, then ky.": stacked(4),
            "reshape moves no numbers. Before it, the taps must stand after B, Ho and Wo.":
                stacked(0),
            "your windows are columns. Here each window is a row.": windows_as_columns,
            "the rows are ordered by pixel first, then by map. Order them by map first: B, Ho, Wo.":
                maps_last}),
}
