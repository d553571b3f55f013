"""Convolutions with large kernels in fewer multiplications: a Fourier transform in real numbers.

Along one axis and with stride 1, conv and its two gradients are the derivatives of

    sum over o, m, d with m = o + d  of  y[o] x[m] w[d]          (taps d counted from -pad)

with respect to y, x and w. The condition m = o + d can be written as a mean of cosines:

    1/n sum over f < n of cos(2 pi f (o + d - m) / n)  is 1 if m = o + d, else 0,

provided n is so large that nothing wraps around. The cosine of a sum of three angles is a sum of
three products:

    cos(a + b + c) = 4/3 sum over j < 3 of cos(a + t) cos(b + t) cos(c + t),     t = 2 pi j / 3

So there are tables Y, X and W with about 1.5 n rows r = (f, j), called *bins* here, such that

    sum over r of  Y[r, o] X[r, m] W[r, d]  =  1 if m = o + d, else 0

and the first sum becomes the sum over bins r of (Y y)[r] (X x)[r] (W w)[r]. Only numbers in the
same bin are multiplied. In two dimensions one table transforms along y, which gives a *half
spectrum*, and another along x, which gives the *spectrum*. In each bin all channels then form one
matrix product:

    conv              Y y = (X x) @ (W w)
    conv_input_grad   X x = (Y y) @ (W w)^T
    conv_weight_grad  W w = (X x)^T @ (Y y)

The transposed tables turn the left sides back into y, x and w. With stride s, pixels s m + q meet
taps s d + q + pad: s *phases* q, which count as channels. An 11x11 kernel from 32x32 to 16x16
pixels then needs 28^2 x 4 products for each pair of channels, an eighth of the 161^2 that its
definition has (without those with padding).

This is the discrete Fourier transform in real numbers, with three products instead of one complex
one, a "bilinear algorithm" (Winograd 1980). Maps are so small that plain matrix products transform
them faster than an FFT would.
"""
from collections import namedtuple
from functools import cache

import numpy as np

from kernels.contract import Arena, conv_shape, pair

MOVED = 32  # this many multiply-adds take as long as moving one number, see is_cheaper


@cache
def is_cheaper(x_shape, w_shape, stride, pad):
    """Whether the transform should take less time than im2col for this convolution.

    The rule: each multiply-add costs 1, and each intermediate number, in im2col's windows or in the
    spectra, costs MOVED. tests/benchmarks/conv_methods.py --fit measured that one constant: the
    rule chose the faster way for 92 % of 319 shapes, and took 1.6 % longer than the best choice.
    """
    b, ho, wo, cout = conv_shape(x_shape, w_shape, stride, pad)
    (_, h, w, cin), (kh, kw, _, _) = x_shape, w_shape
    (sy, sx), (py, px) = pair(stride), pair(pad)
    bins_y = len(tables(h, kh, sy, py, ho, "f")[0])
    bins_x = len(tables(w, kw, sx, px, wo, "f")[0])

    def transforms(maps, height, width, channels):
        """Multiply-adds along y and then along x."""
        return maps * channels * bins_y * width * (height + bins_x)
    numbers = b * sy * sx * cin + b * cout + sy * sx * cin * cout  # in one bin of the spectra
    fourier = (bins_y * bins_x * (b * sy * sx * cin * cout + MOVED * numbers)
               + transforms(b, h, w, cin) + transforms(b, ho, wo, cout)
               + transforms(cin, kh, kw, cout))
    in_a_window = cout if is_exchanged(w_shape, stride, pad) else cin
    im2col = b * ho * wo * kh * kw * (cin * cout + MOVED * in_a_window)
    return fourier < im2col


def is_exchanged(w_shape, stride, pad):
    """Whether im2col should exchange input and output, because windows of y take less memory.

    At stride 1, y = conv(x, w) is also the input gradient of a convolution whose input is y and
    whose kernel is turned around. Its windows have Cout channels instead of Cin.
    """
    kh, kw, cin, cout = w_shape
    if pair(stride) != (1, 1) or any(p >= k for p, k in zip(pair(pad), (kh, kw))):
        return False
    return kh * kw > 1 and 2 * cout <= cin


@cache
def tables(size, kernel, stride, pad, out, dtype):
    """Along one axis: X (bins, pixels of a phase), W (bins, taps of a phase), Y (bins, out)."""
    m, o = np.arange(-(-size // stride)), np.arange(out)
    d = np.arange(-pad // stride, (kernel - 1 - pad) // stride + 1)
    # Taps that no output reaches get zeros, and so a gradient of exactly 0.
    reached = (-out < d) & (d < len(m))
    n = max([len(m), out, *(len(m) - d[reached]), *(out + d[reached])])
    # Frequency f and n - f have the same cosines, so half of them are enough. Where 2 f is a
    # multiple of n the sine is 0 everywhere, and one of the three products is enough.
    bins = [(f, j) for f in range(n // 2 + 1) for j in range(1 if 2 * f % n == 0 else 3)]
    f, j = np.array(bins).T[:, :, None]

    def wave(position):
        return np.cos(2 * np.pi * (f * position % n / n + j / 3))
    weight = np.where(2 * f % n == 0, 1, 8 / 3) / n  # 2 frequencies, and 4/3 from the identity
    return [np.ascontiguousarray(table, dtype)
            for table in (wave(-m), wave(d) * reached, wave(o) * weight)]


# One of the three arrays of a convolution: (B, H, W, C), its tables along y and x, its stride
# (sy, sx), and how many zeros stand before its first row and column.
Factor = namedtuple("Factor", "array tables stride before")


def factors(x, w, y, stride, pad):
    """Of x (B, H, W, Cin), w (kh, kw, ...) and y (B, Ho, Wo, Cout)."""
    along = [tables(x.shape[1 + i], w.shape[i], stride[i], pad[i], y.shape[1 + i], x.dtype)
             for i in (0, 1)]
    of_x, of_w, of_y = zip(*along)
    w_before = tuple(-p % s for p, s in zip(pad, stride))
    w = w.reshape(1, *w.shape[:2], -1)  # as if it were one map
    return (Factor(x, of_x, stride, (0, 0)), Factor(w, of_w, stride, w_before),
            Factor(y, of_y, (1, 1), (0, 0)))


def phases(size, stride, before):
    """Along one axis: for each phase, the slice of its pixels and that of the table's columns."""
    for q in range(stride):
        start = (q - before) % stride
        first = (start + before) // stride
        count = len(range(start, size, stride))
        yield slice(start, None, stride), slice(first, first + count)


class FourierConv:
    """The three convolutions by the transform, on all workers, into existing arrays.

    `finish(maps)` is called on each completed part of a result, for bias and activation.
    """
    def __init__(self, workers):
        self.workers = workers
        self.scratch = Arena(lambda size: np.empty(size, np.uint8))

    def conv(self, x, w, y, stride, pad, finish):
        cout = w.shape[3]

        def product(x, w, y):  # in each bin (B, Cin) @ (Cin, Cout)
            np.matmul(x.transpose(1, 2, 0, 3), w.reshape(*w.shape[1:3], -1, cout),
                      out=y.transpose(1, 2, 0, 3))
        self._multiply(product, *factors(x, w, y, stride, pad), finish)

    def conv_input_grad(self, dy, w, dx, stride, pad, finish):
        kh, kw, cin, cout = w.shape
        # BLAS multiplies by a small transposed matrix at half the speed, so w is transposed first.
        w_t = np.empty((kh, kw, cout, cin), w.dtype)
        self.workers.share(lambda _, ky: np.copyto(w_t[ky], w[ky].transpose(0, 1, 3, 2)),
                           kh, w[0].nbytes)

        def product(w_t, dy, dx):  # phase by phase (B, Cout) @ (Cout, Cin)
            bins = dy.shape[1:3]
            np.matmul(dy.transpose(1, 2, 0, 3)[:, :, None], w_t.reshape(*bins, -1, cout, cin),
                      out=dx.reshape(len(dx), *bins, -1, cin).transpose(1, 2, 3, 0, 4))
        of_dx, of_w, of_dy = factors(dx, w_t, dy, stride, pad)
        self._multiply(product, of_w, of_dy, of_dx, finish)

    def conv_weight_grad(self, x, dy, dw, stride, pad):
        def product(x, dy, dw):  # (Cin, B) @ (B, Cout)
            np.matmul(x.transpose(1, 2, 3, 0), dy.transpose(1, 2, 0, 3),
                      out=dw.reshape(*x.shape[1:], -1))
        of_x, of_dw, of_dy = factors(x, dw, dy, stride, pad)
        self._multiply(product, of_x, of_dy, of_dw, lambda dw: None)

    def _multiply(self, product, first, second, result, finish):
        """Transforms both factors, calls product(spectrum, spectrum, result's), transforms back.

        A spectrum is (B, bins_y, bins_x, sy sx C). Only as many bins_y as fit the cache are
        computed at once.
        """
        three = first, second, result
        bins_y, bins_x = map(len, result.tables)
        channels = [f.stride[0] * f.stride[1] * f.array.shape[3] for f in three]
        with self.scratch:
            halves = [self._along_y(first), self._along_y(second), self._empty_half(result)]

            def multiply(_, rows):
                parts = [half[:, :, rows] for half in halves]
                spectra = [np.empty((len(f.array), rows.stop - rows.start, bins_x, f.stride[0],
                                     c // f.stride[0]), f.array.dtype)
                           for f, c in zip(three, channels)]
                along_x(first, parts[0], spectra[0])
                along_x(second, parts[1], spectra[1])
                product(*(s.reshape(*s.shape[:3], -1) for s in spectra))
                back_along_x(result, parts[2], spectra[2])
            numbers = sum(len(f.array) * c for f, c in zip(three, channels))  # in one bin
            self.workers.share(multiply, bins_y, bins_x * numbers * result.array.itemsize)
            self._back_along_y(result, halves[2], finish)

    def _empty_half(self, factor):
        """Memory for a half spectrum (B, sy, bins_y, W C), with W padded to whole phases."""
        table_y, table_x = factor.tables
        width = table_x.shape[1] * factor.stride[1]
        b, _, _, c = factor.array.shape
        shape = b, factor.stride[0], len(table_y), width * c
        return self.scratch.empty(shape, factor.array.dtype)

    def _along_y(self, factor):
        """The half spectrum of (B, H, W, C)."""
        x, half = factor.array, self._empty_half(factor)
        b, h, w, c = x.shape
        left = factor.before[1] * c
        half[..., :left] = 0
        half[..., left + w * c:] = 0
        flat, inside = x.reshape(b, h, w * c), half[..., left:left + w * c]

        def transform(_, columns):
            numbers = slice(columns.start * c, columns.stop * c)
            for q, (pixels, of_table) in enumerate(phases(h, factor.stride[0], factor.before[0])):
                np.matmul(factor.tables[0][:, of_table], flat[:, pixels, numbers],
                          out=inside[:, q, :, numbers])
        self.workers.share(transform, w, x.nbytes // w)
        return half

    def _back_along_y(self, factor, half, finish):
        """The inverse of _along_y, by the transposed table."""
        x = factor.array
        b, h, w, c = x.shape
        left = factor.before[1] * c
        flat, inside = x.reshape(b, h, w * c), half[..., left:left + w * c]

        def transform(_, columns):
            numbers = slice(columns.start * c, columns.stop * c)
            for q, (pixels, of_table) in enumerate(phases(h, factor.stride[0], factor.before[0])):
                np.matmul(factor.tables[0][:, of_table].T, inside[:, q, :, numbers],
                          out=flat[:, pixels, numbers])
            finish(x[:, :, columns])
        self.workers.share(transform, w, x.nbytes // w)


def along_x(factor, half, spectrum):
    """Some rows of a half spectrum (B, sy, rows, W C) -> spectrum (B, rows, bins_x, sy, sx C)."""
    half = half.reshape(*half.shape[:3], -1, spectrum.shape[-1])
    np.matmul(factor.tables[1], half, out=spectrum.transpose(0, 3, 1, 2, 4))


def back_along_x(factor, half, spectrum):
    """The way back, by the transposed table."""
    half = half.reshape(*half.shape[:3], -1, spectrum.shape[-1])
    np.matmul(factor.tables[1].T, spectrum.transpose(0, 3, 1, 2, 4), out=half)
