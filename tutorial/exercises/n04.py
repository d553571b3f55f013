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


def row_by_out(x, w, out, stride, pad):
    return row_by(condition, lambda i, x: 0 <= i < min(out, len(x)))(x, w, out, stride, pad)


def row_by_border(x, w, out, stride, pad):
    """With copies of the first and the last pixel as padding."""
    return row_by(lambda o, k, stride, pad: o * stride + k)(np.pad(x, pad, "edge"), w, out, stride,
                                                            pad)


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


def as_in_the_loop(pixels, dy):
    return pixels.T @ dy


def one_product_for_each_row(pixels, dy):
    return pixels.swapaxes(2, 3) @ dy


def summed_over_maps_only(pixels, dy):
    return (pixels.swapaxes(2, 3) @ dy).sum(0)


def axes_not_named(pixels, dy):
    return np.tensordot(pixels, dy, 3)


def reshaped_to_transpose(pixels, dy):
    return pixels.reshape(pixels.shape[3], -1) @ dy.reshape(-1, dy.shape[3])


def flat_not_transposed(pixels, dy):
    return pixels.reshape(-1, pixels.shape[3]) @ dy.reshape(-1, dy.shape[3])


def without_padding(of_tap):
    """x[pixels] instead of padded[pixels]."""
    def function(x, dy, w_shape, stride, pad):
        return by_taps(of_tap)(x, dy, w_shape, stride, 0)
    return function


def by_einsum(pixels, dy):
    return np.einsum("bhwi,bhwo->io", pixels, dy)


def by_tensordot(pixels, dy):
    return np.tensordot(pixels, dy, ((0, 1, 2), (0, 1, 2)))


def by_flat_product(pixels, dy):
    return pixels.reshape(-1, pixels.shape[3]).T @ dy.reshape(-1, dy.shape[3])


# ----------------------------------------------------------------------------------------- 4.4
def input_grad_by_conv(dy, w, pad):
    return conv(dy, w[::-1, ::-1].transpose(0, 1, 3, 2), pad=len(w) - 1 - pad)


def turned(w):
    return w[::-1, ::-1].swapaxes(2, 3)


def gathered(weights=turned, padding=lambda n, pad: n - 1 - pad):
    """input_grad_by_conv with other weights or another padding."""
    return lambda dy, w, pad: conv(dy, weights(w), pad=padding(len(w), pad))


def only_exchanged(w):
    return w.swapaxes(2, 3)


def channels_by_reshape(w):
    return w[::-1, ::-1].reshape(*w.shape[:2], w.shape[3], w.shape[2])


def of_the_condition(n, pad):
    """The padding of `conv` itself."""
    return pad


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


def kx_before_ky(x, w_shape, y_shape, stride, pad):
    rows = im2col(x, w_shape, y_shape, stride, pad)
    return rows.reshape(-1, *w_shape[:3]).swapaxes(1, 2).reshape(rows.shape)


def ox_before_oy(x, w_shape, y_shape, stride, pad):
    rows = im2col(x, w_shape, y_shape, stride, pad)
    return rows.reshape(*y_shape[:3], -1).swapaxes(1, 2).reshape(rows.shape)


def without_stride(x, w_shape, y_shape, stride, pad):
    return im2col(x, w_shape, y_shape, 1, pad)


def flipped_kernel(x, w_shape, y_shape, stride, pad):
    rows = im2col(x, w_shape, y_shape, stride, pad)
    return rows.reshape(len(rows), -1, w_shape[2])[:, ::-1].reshape(rows.shape)


def one_column_for_each_tap(x, w_shape, y_shape, stride, pad):
    """Tap n is written from column n on, and the next one over it."""
    padded, cin = pad_maps(x, pad), w_shape[2]
    rows = np.zeros(im2col(x, w_shape, y_shape, stride, pad).shape)
    for n, (_, pixels) in enumerate(taps(w_shape, y_shape, stride)):
        width = rows[:, n:n + cin].shape[1]
        rows[:, n:n + cin] = padded[pixels].reshape(len(rows), cin)[:, :width]
    return rows


def stacked_without_padding(x, w_shape, y_shape, stride, pad):
    return stacked(3)(x, w_shape, y_shape, stride, 0)


def flat_without_padding(x, w_shape, y_shape, stride, pad):
    parts = [x[pixels] for _, pixels in taps(w_shape, y_shape, stride)]
    return np.concatenate([part.reshape(-1, w_shape[2]) for part in parts], 1)


def joined_without_padding(x, w_shape, y_shape, stride, pad):
    parts = [x[pixels] for _, pixels in taps(w_shape, y_shape, stride)]
    return np.concatenate(parts, 3).reshape(int(np.prod(y_shape[:3])), -1)


def below_each_other(x, w_shape, y_shape, stride, pad):
    padded = pad_maps(x, pad)
    return np.concatenate([padded[pixels].reshape(-1, w_shape[2])
                           for _, pixels in taps(w_shape, y_shape, stride)])


def windows_as_columns(x, w_shape, y_shape, stride, pad):
    return im2col(x, w_shape, y_shape, stride, pad).T


EXERCISES = {
    "4.1": Exercise(
        output_size,
        ("The window of output o ends on pixel o s + (n - 1) - p, which is at most H + p - 1. "
         "Solve for o.",
         "The largest o is (H + 2 p - n) / s, rounded down. Outputs count from 0."),
        inputs=[(7, 3, 1, 1), (7, 3, 2, 1), (8, 3, 2, 1), (32, 11, 2, 5), (9, 4, 3, 0),
                (8, 4, 3, 0)],
        traps={
            "a window that fits only in part does not count. Round the quotient down, with //.":
                lambda size, kernel, stride, pad: (size + 2 * pad - kernel) / stride + 1,
            "you round up, but the last window must fit in whole. Round down, with //.":
                lambda size, kernel, stride, pad: -(-(size + 2 * pad - kernel) // stride) + 1,
            "you round to the nearest whole number, but the last window must fit in whole. Round "
            "down, with //.":
                lambda size, kernel, stride, pad: round((size + 2 * pad - kernel) / stride) + 1,
            "that is the number of the last output. They count from 0, so there is one more.":
                lambda size, kernel, stride, pad: (size + 2 * pad - kernel) // stride,
            "the 1 is not divided. There are (H + 2 p - n) // s steps, and one more window.":
                lambda size, kernel, stride, pad: (size + 2 * pad - kernel + 1) // stride,
            "the kernel is taken off before the division: (H + 2 p - n) // s steps lead from the "
            "first window to the last.":
                lambda size, kernel, stride, pad: (size + 2 * pad) // stride - kernel + 1,
            "the kernel's size is missing: a window is n pixels wide, and must fit in whole.":
                lambda size, kernel, stride, pad: (size + 2 * pad) // stride,
            "the stride is missing: windows start s pixels apart, so divide by s.":
                lambda size, kernel, stride, pad: size + 2 * pad - kernel + 1,
            "the padding is missing: windows may reach p pixels over the border, on both sides.":
                lambda size, kernel, stride, pad: (size - kernel) // stride + 1,
            "there is padding on both sides: 2 p in all.":
                lambda size, kernel, stride, pad: (size + pad - kernel) // stride + 1,
            "2 p belongs to the size: a larger padding gives more outputs.":
                lambda size, kernel, stride, pad: (size - 2 * pad - kernel) // stride + 1,
            "a window of n pixels reaches from its first pixel n - 1 further, not n.":
                lambda size, kernel, stride, pad: (size + 2 * pad - kernel - 1) // stride + 1,
            "H + p - 1 is the last pixel that a window may reach, not the last place where one may "
            "start: take the kernel into account.":
                lambda size, kernel, stride, pad: (size + pad - 1) // stride + 1,
            "windows start at -p, s - p, and so on, at most at H + p - n. How many steps of s lie "
            "between the first and the last?":
                lambda size, kernel, stride, pad: (size + pad - 1 - kernel) // stride + 1,
            "that is right only if the padding is (n - 1) / 2, as in the project's networks.":
                lambda size, kernel, stride, pad: -(-size // stride)}),
    "4.2": Exercise(
        conv_row,
        ("For each o and k, compute i from the condition. If pixel i lies inside the map, output o "
         "gets one more product.",
         "Let i = o * stride + k - pad. If 0 <= i < len(x), add x[i] * w[k] to y[o]. Otherwise add "
         "nothing, and go on with the next k."),
        inputs=[(rng.standard_normal(7), rng.standard_normal(3), 4, 2, 1),
                (rng.standard_normal(6), rng.standard_normal(4), 7, 1, 2)],
        traps={
            "the padding is missing: the first window starts at -p.":
                row_by(lambda o, k, stride, pad: o * stride + k),
            "the window starts at o s - p. You add the padding instead of subtracting it.":
                row_by(lambda o, k, stride, pad: o * stride + k + pad),
            "the tap has the wrong sign: its pixel is i = o s + k - p.":
                row_by(lambda o, k, stride, pad: o * stride - k + pad),
            "tap k lies to the right of the window's start, not to the left: i = o s + k - p.":
                row_by(lambda o, k, stride, pad: o * stride - k - pad),
            "x[-1] is the last pixel in Python: a negative i must be left out too.":
                row_by(condition, lambda i, x: i < len(x)),
            "i goes too far: the last pixel of the map is len(x) - 1. The condition is "
            "0 <= i < len(x).":
                row_by(condition, lambda i, x: True),
            "pixel 0 lies inside the map: the condition is 0 <= i.":
                row_by(condition, lambda i, x: 0 < i < len(x)),
            "the last pixel, len(x) - 1, lies inside the map: the condition is i < len(x).":
                row_by(condition, lambda i, x: 0 <= i < len(x) - 1),
            "i is a pixel of x: compare it with len(x), not with the number of outputs.":
                row_by_out,
            "outside the map there are zeros, not copies of the pixel at the border.":
                row_by_border,
            "pixel 0 and the last pixel lie inside the map too: the condition is 0 <= i < len(x).":
                row_by(condition, lambda i, x: 0 < i < len(x) - 1),
            "the stride moves the window, not the taps: i = o s + k - p, without s at k.":
                row_by(lambda o, k, stride, pad: (o + k) * stride - pad),
            "the stride belongs to the output, not to the tap: i = o s + k - p.":
                row_by(lambda o, k, stride, pad: o + k * stride - pad),
            "the padding is a number of pixels, and the stride does not multiply it: o s + k - p, "
            "not (o - p) s + k.":
                row_by(lambda o, k, stride, pad: (o - pad) * stride + k),
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
        ("dw[tap] is (Cin, Cout): the sum of x^T dy over all maps and all output pixels. Here x is "
         "padded[pixels], whose first three axes are those of dy.",
         "Either reshape padded[pixels] to (B Ho Wo, Cin) and dy to (B Ho Wo, Cout), and multiply "
         "the first, transposed, by the second. Or use np.einsum with 'bhwi,bhwo->io': letters "
         "that are missing on the right of the arrow are summed over."),
        inputs=[(rng.standard_normal((3, 7, 6, 4)), rng.standard_normal((3, 4, 3, 5)),
                 (3, 3, 4, 5), 2, 1),
                (rng.standard_normal((3, 8, 7, 4)), rng.standard_normal((3, 4, 5, 5)),
                 (5, 3, 4, 5), 1, 0)],
        traps={
            "the `.T @` of my_convolutions is for one output pixel. On four axes .T reverses them "
            "all. Make both arrays tables with a row for each of the B Ho Wo outputs first.":
                by_taps(as_in_the_loop),
            "on four axes @ gives a product for each map and each row of outputs. They must be "
            "summed too, over B and Ho.": by_taps(one_product_for_each_row),
            "you sum over the columns (by @) and over the maps. The sum over the rows of outputs, "
            "Ho, is missing.": by_taps(summed_over_maps_only),
            "@ sums over the last axis of the first array, here Cin. Bring both arrays to two "
            "axes, (B Ho Wo, channels), and transpose the first.":
                by_taps(lambda pixels, dy: pixels @ dy),
            "* needs equal shapes or one channel. Each input channel meets each output channel: "
            "use a matrix product.": by_taps(lambda pixels, dy: pixels * dy),
            "the sum over the batch is missing: it covers B, Ho and Wo.":
                by_taps(lambda pixels, dy: np.einsum("bhwi,bhwo->bio", pixels, dy)),
            "np.tensordot(..., 3) takes the last three axes of the first array. Name the axes: "
            "((0, 1, 2), (0, 1, 2)).": by_taps(axes_not_named),
            "reshape(Cin, -1) does not transpose: it cuts the numbers into new rows. First "
            "reshape to (-1, Cin), and then take .T.": by_taps(reshaped_to_transpose),
            "the first table must be transposed, so that (Cin, B Ho Wo) meets (B Ho Wo, Cout).":
                by_taps(flat_not_transposed),
            "`pixels` counts in the padded map: take padded[pixels], not x[pixels].":
                without_padding(by_einsum),
            "`pixels` is an index into `padded`, not into x.": without_padding(by_tensordot),
            "`pixels` is an index into the padded map. In x it leaves out pixels, or misses them.":
                without_padding(by_flat_product),
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
        ("Three things change: the order of the taps, the padding, and the matrix of each tap. At "
         "stride 1 the condition gives o = i - k + p. Put k = n - 1 - k' into it. For the matrix, "
         "compare the channels of dy and dx.",
         "o = i + k' - (n - 1 - p). So flip both directions of the kernel, w[::-1, ::-1], pad by "
         "n - 1 - p, and exchange the last two axes, with .swapaxes(2, 3)."),
        inputs=[(rng.standard_normal((2, 6, 7, 5)), rng.standard_normal((3, 3, 4, 5)), 1),
                (rng.standard_normal((2, 4, 3, 5)), rng.standard_normal((4, 4, 3, 5)), 0)],
        traps={
            "the kernel is not flipped: k' = n - 1 - k grows while k falls.":
                gathered(only_exchanged),
            "the kernel is flipped from top to bottom only. Flip it from left to right too.":
                gathered(lambda w: w[::-1].swapaxes(2, 3)),
            "the kernel is flipped from left to right only. Flip it from top to bottom too.":
                gathered(lambda w: w[:, ::-1].swapaxes(2, 3)),
            "you have flipped the channels too. Only ky and kx count from the other end.":
                gathered(lambda w: w[::-1, ::-1, ::-1, ::-1].swapaxes(2, 3)),
            "you have exchanged ky and kx too. Only the last two axes change places.":
                gathered(lambda w: turned(w).swapaxes(0, 1)),
            ".T reverses all four axes. Exchange the last two only: .swapaxes(2, 3).":
                gathered(lambda w: w[::-1, ::-1].T),
            "conv now goes from Cout to Cin channels: exchange the last two axes of the weights.":
                gathered(lambda w: w[::-1, ::-1]),
            "reshape gives the right shape, but does not exchange axes. Use .swapaxes(2, 3).":
                gathered(channels_by_reshape),
            "p' is not p, unless n = 2 p + 1. Put k = n - 1 - k' into o = i - k + p: what do "
            "you subtract from i + k'?": gathered(padding=of_the_condition),
            "neither the kernel is flipped, nor is the padding right. Put k = n - 1 - k' into "
            "o = i - k + p, and compare with o = i + k' - p'.":
                gathered(only_exchanged, of_the_condition),
            "the kernel is not flipped, and the padding is missing. Put k = n - 1 - k' into "
            "o = i - k + p, and compare with o = i + k' - p'.":
                gathered(only_exchanged, lambda n, pad: 0),
            "the kernel is not flipped, and p plays no part. Put k = n - 1 - k' into "
            "o = i - k + p, and compare with o = i + k' - p'.":
                gathered(only_exchanged, lambda n, pad: n - 1),
            "p' is n - 1 only without padding. Which part does p play in o = i - k + p?":
                gathered(padding=lambda n, pad: n - 1),
            "without padding, dx becomes smaller than dy. Put k = n - 1 - k' into o = i - k + p: "
            "what do you subtract from i + k'?": gathered(padding=lambda n, pad: 0),
            "(n - 1) / 2 is right only if p is (n - 1) / 2 too. Which p' follows from "
            "o = i - k + p for other p?": gathered(padding=lambda n, pad: (n - 1) // 2),
            "p has the wrong sign: o = i - k + p, and p' is what you subtract.":
                gathered(padding=lambda n, pad: n - 1 + pad),
            "the padding is one too large: k' counts from 0 to n - 1, so k = n - 1 - k'.":
                gathered(padding=lambda n, pad: n - pad)}),
    "4.5": Exercise(
        im2col,
        ("For each tap, padded[pixels] (B, Ho, Wo, Cin) holds the numbers of all windows at that "
         "tap. Collect them, tap after tap, so that B, Ho and Wo come first and Cin last.",
         "parts = [padded[pixels] for tap, pixels in taps(w_shape, y_shape, stride)]. np.stack "
         "puts the taps at a new axis. Between which two axes must it stand, so that a reshape to "
         "(B Ho Wo, kh kw Cin) moves nothing?"),
        inputs=[(rng.standard_normal((3, 6, 7, 2)), (3, 3, 2, 5), (3, 3, 4, 5), 2, 1),
                (rng.standard_normal((2, 5, 6, 3)), (2, 3, 3, 4), (2, 4, 4, 4), 1, 0)],
        traps={
            "each row holds the right numbers in the wrong order: the channels must change "
            "fastest, then kx, then ky.": stacked(4),
            "reshape moves no numbers. Before it, the taps must stand after B, Ho and Wo.":
                stacked(0),
            "the taps stand between B and Ho. They must stand after Wo, before the channels.":
                stacked(1),
            "the taps stand between Ho and Wo. They must stand after Wo, before the channels.":
                stacked(2),
            "the columns are in the wrong order: kx must change faster than ky, so go through ky "
            "first.": kx_before_ky,
            "the columns go through the taps backwards. Do not flip the kernel.": flipped_kernel,
            "your windows are columns. Here each window is a row.": windows_as_columns,
            "the rows are ordered by ox first, then by oy. Order them by map, oy, ox.":
                ox_before_oy,
            "the rows are ordered by pixel first, then by map. Order them by map first: B, Ho, Wo.":
                maps_last,
            "the stride is missing: windows start s pixels apart. Pass the stride to `taps`.":
                without_stride,
            "tap number n fills Cin columns, from n Cin to (n + 1) Cin. Yours start at n, and the "
            "next tap overwrites them.": one_column_for_each_tap,
            "the parts stand below each other. They belong side by side, for each window a row.":
                below_each_other,
            "the parts have different shapes, because x has no padding. Take padded[pixels].":
                stacked_without_padding,
            "`pixels` counts in the padded map: take padded[pixels], not x[pixels].":
                flat_without_padding,
            "`pixels` is an index into `padded`, not into x.": joined_without_padding}),
}
