"""Every operation of the contract in NumPy: the reference for the CUDA kernels, and the engine on a CPU.

Arrays are NHWC, C-contiguous, all of one dtype (float32 or float64); label maps are uint8. Convolution weights are
(kh, kw, Cin, Cout). An operation is a method, and the method that computes its gradient stands right below it. What a
gradient needs is an argument: nothing is remembered from the forward call.

Two things make it fast. Work is split over the batch into one *lane* a core, each lane with a single-threaded BLAS, so
copies and element-wise passes use all cores too; lanes write to disjoint places or are summed in lane order, so the
result does not depend on timing. And convolutions with large kernels need fewer multiplications than their definition has
(see "inside a convolution").
"""
import os
from collections import namedtuple
from functools import cache
from queue import SimpleQueue
from threading import Thread

import numpy as np
from numpy.lib.stride_tricks import as_strided
from threadpoolctl import threadpool_limits

LEAKY_SLOPE = 0.2      # of LeakyReLU, DCGAN's value
BLOCK_BYTES = 1 << 21  # working set of one block of maps in a lane: about one core's share of the cache
ONE_LANE_BYTES = 1 << 18  # below this, waking the other lanes (some 0.1 ms) costs more than it gains
ACTIVATIONS = (None, "relu", "leaky_relu", "tanh")
FEW_TAPS = 9           # kernels up to 3x3 or 1x7: to unfold the input (im2col) costs less than to go to points and back


class Arena:
    """Buffers that come back at the same addresses each time the `with` block is entered again.

    The i-th request inside the block gets the i-th buffer, so a training step allocates only the first time. An array
    taken inside is valid until the block is entered again; outside the block `empty` is an ordinary allocation.
    """
    def __init__(self, allocate):
        self.allocate, self.buffers, self.next = allocate, [], None

    def __enter__(self):
        self.next = 0

    def __exit__(self, *exception):
        self.next = None

    def empty(self, shape, dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if self.next is None:
            return self.allocate(size).view(dtype).reshape(shape)
        if self.next == len(self.buffers):
            self.buffers.append(self.allocate(size))
        if len(self.buffers[self.next]) < size:  # another sequence of requests than last time
            self.buffers[self.next] = self.allocate(size)
        buffer = self.buffers[self.next]
        self.next += 1
        return buffer[:size].view(dtype).reshape(shape)


_tasks, _threads = SimpleQueue(), []  # of all lanes; a ThreadPoolExecutor takes twice as long to hand over


def _work():
    np.seterr(all="ignore")  # infinities and NaN are the caller's to find; NumPy's settings are per thread
    while True:
        run, lane, done = _tasks.get()
        try:
            done.put(run(lane))  # None
        except Exception as error:
            done.put(error)


def available_cores():
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def pair(value):
    """2 -> (2, 2); (2, 1) -> (2, 1): strides and paddings are given as an int or as (y, x)."""
    return (value, value) if np.isscalar(value) else tuple(value)


def conv_shape(x_shape, w_shape, stride, pad):
    """The shape of conv's output: (B, H, W, Cin), (kh, kw, Cin, Cout) -> (B, (H + 2 pad - kh) // stride + 1, ..., Cout)."""
    (b, h, w, cin), (kh, kw, w_cin, cout), (sy, sx), (py, px) = x_shape, w_shape, pair(stride), pair(pad)
    if cin != w_cin:
        raise ValueError(f"conv: the input has {cin} channels, the weights expect {w_cin}")
    if h + 2 * py < kh or w + 2 * px < kw:
        raise ValueError(f"conv: a {kh}x{kw} kernel does not fit into {h}x{w} padded by {(py, px)}")
    return b, (h + 2 * py - kh) // sy + 1, (w + 2 * px - kw) // sx + 1, cout


def check_dy(name, dy, x_shape, w_shape, stride, pad):
    """Raises ValueError unless dy has the shape of conv's output."""
    expected = conv_shape(x_shape, w_shape, stride, pad)
    if tuple(dy.shape) != expected:
        raise ValueError(f"{name}: dy is {tuple(dy.shape)}, but an input of {tuple(x_shape)} gives {expected}")


def pool_shape(x_shape, size, stride, pad):
    """The shape of a pooled map: (B, H, W, C) -> (B, (H + 2 pad - size) // stride + 1, ..., C)."""
    b, h, w, c = x_shape
    if min(h, w) + 2 * pad < size or 2 * pad > size:
        raise ValueError(f"pooling {h}x{w}: a window of {size} does not fit, or sees nothing but padding of {pad}")
    return b, (h + 2 * pad - size) // stride + 1, (w + 2 * pad - size) // stride + 1, c


def resize_taps(size, out, half_pixel):
    """Along one axis, for bilinear resizing: pixel i of `out` lies at weight[i] of the way from low[i] to low[i] + 1.

    half_pixel: pixels are squares and their centres are mapped (PyTorch); else corners are (TensorFlow 1).
    """
    at = np.maximum((np.arange(out) + 0.5) * size / out - 0.5, 0) if half_pixel else np.arange(out) * size / out
    low = np.minimum(at.astype(np.int32), size - 1)
    return low, at - low


def activation_number(activation):
    """The place of an activation in ACTIVATIONS, as common.cuh counts them. Raises ValueError."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r}: expected None, 'relu', 'leaky_relu' or 'tanh'")
    return ACTIVATIONS.index(activation)


def feature_matching_reading(reading):
    """The reading as it is, if there is one of that name. Raises ValueError."""
    if reading not in ("mean", "paired"):
        raise ValueError(f"feature matching {reading!r}: expected 'mean' or 'paired'")
    return reading


# ------------------------------------------------------------------------------- inside a convolution
def _unfold(x, kernel, stride, pad, out):
    """im2col in strips of rows that fit the cache: yields rows of the output and their windows (b * rows * Wo, kh kw Cin)."""
    (b, h, w, c), (kh, kw), (sy, sx), (py, px), (ho, wo) = x.shape, kernel, stride, pad, out
    if py or px:
        padded = np.zeros((b, h + 2 * py, w + 2 * px, c), x.dtype)
        padded[:, py:py + h, px:px + w] = x
        x = padded
    image, row, pixel, item = x.strides
    windows = as_strided(x, (b, ho, wo, kh, kw * c), (image, sy * row, sx * pixel, row, item))
    strip = max(1, BLOCK_BYTES // (wo * kh * kw * c * x.itemsize))
    for rows in (slice(top, min(top + strip, ho)) for top in range(0, ho, strip)):
        yield rows, windows[:, rows].reshape(-1, kh * kw * c)


# Large kernels: fewer multiplications than the definition has. Along one axis and with stride 1, conv and its two gradients
# are the derivatives, by y, x and w, of
#     sum over o, m, d with m = o + d  of  y[o] x[m] w[d]                        (d counts the taps from -pad)
# The condition m = o + d is a mean of cosines: 1/n sum over f < n of cos(2 pi f (o + d - m) / n) is 1 where it holds, else 0,
# if n is so large that nothing wraps around. And a cosine of three angles is a sum of three products:
#     cos(a + b + c) = 4/3 sum over j < 3  of  cos(a + t) cos(b + t) cos(c + t),   t = 2 pi j / 3
# So there are tables D, A, B of about 1.5 n rows r = (f, j), called points here, with
#     sum over r  of  D[r, o] A[r, m] B[r, d]  =  1 if m = o + d else 0
# and the first sum is the sum over r of (D y)[r] (A x)[r] (B w)[r]: multiplications only of numbers at the same point. In two
# dimensions one table acts along y ("lines"), another along x, and at each point all channels make one matrix product:
#     conv: D y = (A x) @ (B w)      conv_input_grad: A x = (D y) @ (B w)^T      conv_weight_grad: B w = (A x)^T @ (D y)
# where the tables' transposes lead from the left sides back to y, x and w. With stride s, pixels s m + q meet taps
# s d + q + pad: s phases q, which count as channels. An 11x11 kernel from 32x32 pixels to 16x16 with stride 2 then costs
# 28^2 x 4 products per pair of channels in place of 161^2, an eighth. (It is the discrete Fourier transform in real numbers,
# with three products for a complex one, a "bilinear algorithm"; Winograd 1980. BLAS makes transforms this short fast.)
_Factor = namedtuple("_Factor", "array tables stride lead")  # (B, H, W, C), both axes' tables, zeros before row and column 0


@cache
def _tables(size, kernel, stride, pad, out, dtype):
    """Along one axis: A (R, pixels of a phase), B (R, taps of a phase), D (R, out)."""
    m, o = np.arange(-(-size // stride)), np.arange(out)
    d = np.arange(-pad // stride, (kernel - 1 - pad) // stride + 1)
    reached = (-out < d) & (d < len(m))  # by some o; the other taps get zeros, and so a gradient of exactly 0
    n = max([len(m), out, *(len(m) - d[reached]), *(out + d[reached])])
    f, j = np.array([(f, j) for f in range(n // 2 + 1) for j in range(1 if 2 * f % n == 0 else 3)]).T[:, :, None]
    wave = lambda t: np.cos(2 * np.pi * (f * t % n / n + j / 3))
    weight = np.where(2 * f % n == 0, 1, 8 / 3) / n  # a frequency that is not its own mirror image stands for two
    return [np.ascontiguousarray(table, dtype) for table in (wave(-m), wave(d) * reached, wave(o) * weight)]


def _factors(x, w, y, stride, pad):
    """x (B, H, W, Cin), w (kh, kw, ...) and y (B, Ho, Wo, Cout) of one convolution."""
    a, b, d = zip(*(_tables(x.shape[1 + i], w.shape[i], stride[i], pad[i], y.shape[1 + i], x.dtype) for i in (0, 1)))
    w_lead = tuple(-p % s for p, s in zip(pad, stride))
    return (_Factor(x, a, stride, (0, 0)), _Factor(w.reshape(1, *w.shape[:2], -1), b, stride, w_lead),
            _Factor(y, d, (1, 1), (0, 0)))


def _phases(size, stride, lead):
    """Along one axis with `lead` zeros before it, for each phase: the slice of its pixels, and of the table's columns."""
    for q in range(stride):
        start = (q - lead) % stride
        first = (start + lead) // stride
        yield slice(start, None, stride), slice(first, first + len(range(start, size, stride)))


def _to_points(factor, lines, points):
    """The second table on some lines: (B, sy, P, W C) -> points (B, P, Rx, sy, sx C)."""
    np.matmul(factor.tables[1], lines.reshape(*lines.shape[:3], -1, points.shape[-1]), out=points.transpose(0, 3, 1, 2, 4))


def _from_points(factor, lines, points):
    """Its transpose: some lines (B, sy, P, W C) from points (B, P, Rx, sy, sx C)."""
    np.matmul(factor.tables[1].T, points.transpose(0, 3, 1, 2, 4), out=lines.reshape(*lines.shape[:3], -1, points.shape[-1]))


class NumpyOps:
    name = "numpy"

    def __init__(self, dtype=np.float32, lanes=None):
        self.dtype = np.dtype(dtype)
        self.lanes = lanes or min(8, available_cores())
        while len(_threads) < self.lanes - 1:  # lane 0 is the calling thread
            _threads.append(Thread(target=_work, daemon=True))
            _threads[-1].start()
        self.arena, self.scratch = (Arena(lambda size: np.empty(size, np.uint8)) for _ in range(2))
        threadpool_limits(1)  # one BLAS thread a lane; stays in force for the process

    def unrounded(self):
        """The same operations, but convolutions never round what they multiply: for metrics. On NumPy they do not."""
        return self

    def __str__(self):
        return f"{self.lanes} CPU core{'s' * (self.lanes > 1)}"

    # ---------------------------------------------------------------------------------------- arrays
    def empty(self, *shape, dtype=None):
        return self.arena.empty(shape, dtype or self.dtype)

    def asarray(self, array, dtype=None):
        """Host -> device, in the backend's dtype or the given one."""
        return np.ascontiguousarray(array, dtype or self.dtype)

    def asnumpy(self, array):
        """Device -> host."""
        return array

    def write(self, array, values):
        """Host -> device, into an array that is there."""
        array[...] = values

    def record(self, run):
        """A function that does again what the operations in run() do, on the same arrays. On a GPU: one CUDA graph.

        Nothing is computed while it is recorded. Here that is run itself.
        """
        return run

    def take_row(self, table, number, out):
        """out = table[number modulo its rows]: what changes from step to step, by a counter (1,) on the device."""
        out[...] = table[int(number[0]) % len(table)]

    def _blocks(self, body, n, item_bytes):
        """body(lane, block) for slices `block` of range(n), each about BLOCK_BYTES, in one thread a lane."""
        size = max(1, BLOCK_BYTES // max(1, item_bytes))
        lanes = min(self.lanes, n) if n * item_bytes > ONE_LANE_BYTES else 1
        def run(lane):
            stop = n * (lane + 1) // lanes
            for start in range(n * lane // lanes, stop, size):
                body(lane, slice(start, min(start + size, stop)))
        done = SimpleQueue()
        for lane in range(1, lanes):
            _tasks.put((run, lane, done))
        try:
            run(0)  # in this thread
        finally:
            errors = [error for error in (done.get() for _ in range(1, lanes)) if error]
        if errors:
            raise errors[0]

    # ----------------------------------------------------------------------------------- convolution
    def operand(self, x):
        """x for use in several convolutions. On tensor cores it is rounded, and so it is rounded once; here it stays x."""
        return x

    def conv(self, x, w, stride=1, pad=0, bias=None, activation=None, out=None):
        """y[b, oy, ox] = act(sum over ky, kx of x[b, oy sy + ky - py, ox sx + kx - px] @ w[ky, kx] + bias)."""
        shape, stride, pad, (kh, kw, _, cout) = conv_shape(x.shape, w.shape, stride, pad), pair(stride), pair(pad), w.shape
        y = self.empty(*shape) if out is None else out  # (B, Ho, Wo, Cout)
        if kh * kw <= FEW_TAPS:
            def block(_, maps):
                for rows, windows in _unfold(x[maps], (kh, kw), stride, pad, shape[1:3]):
                    part = y[maps, rows].reshape(-1, cout)  # a view: a block is several whole maps or strips of one
                    self._activate(np.matmul(windows, w.reshape(-1, cout), out=part), bias, activation)
            self._blocks(block, len(x), y[0].size // cout * w[..., 0].nbytes)
        else:
            def product(x, w, y):
                np.matmul(x.transpose(1, 2, 0, 3), w.reshape(*w.shape[1:3], -1, cout), out=y.transpose(1, 2, 0, 3))
            self._by_points(product, *_factors(x, w, y, stride, pad), bias, activation)
        return y

    def conv_input_grad(self, dy, w, x_shape, stride=1, pad=0, bias=None, activation=None):
        """dx: what conv's input receives. As a forward operation this is the transposed convolution."""
        check_dy("conv_input_grad", dy, x_shape, w.shape, stride, pad)
        dx, stride, pad, (kh, kw, cin, cout) = self.empty(*x_shape), pair(stride), pair(pad), w.shape  # dx (B, H, W, Cin)
        if kh * kw <= FEW_TAPS:
            (_, ho, wo, _), (_, h, width, _), (sy, sx), (py, px) = dy.shape, x_shape, stride, pad
            def block(_, maps):
                windows = (dy[maps].reshape(-1, cout) @ w.reshape(-1, cout).T).reshape(-1, ho, wo, kh, kw, cin)
                padded = np.zeros((len(windows), h + 2 * py, width + 2 * px, cin), self.dtype)
                for ky, kx in np.ndindex(kh, kw):
                    padded[:, ky:ky + sy * ho:sy, kx:kx + sx * wo:sx] += windows[..., ky, kx, :]
                dx[maps] = padded[:, py:py + h, px:px + width]
                self._activate(dx[maps], bias, activation)
            self._blocks(block, len(dy), dy[0].size // cout * w[..., 0].nbytes)
        else:
            w_t = np.empty((kh, kw, cout, cin), self.dtype)  # BLAS multiplies by a small transposed matrix at half the speed
            self._blocks(lambda _, ky: np.copyto(w_t[ky], w[ky].transpose(0, 1, 3, 2)), kh, w[0].nbytes)
            def product(w_t, dy, dx):
                points = dy.shape[1:3]
                np.matmul(dy.transpose(1, 2, 0, 3)[:, :, None], w_t.reshape(*points, -1, cout, cin),  # phase by phase
                          out=dx.reshape(len(dx), *points, -1, cin).transpose(1, 2, 3, 0, 4))
            of_dx, of_w, of_dy = _factors(dx, w_t, dy, stride, pad)
            self._by_points(product, of_w, of_dy, of_dx, bias, activation)
        return dx

    def conv_weight_grad(self, x, dy, w_shape, stride=1, pad=0, out=None):
        """dw[ky, kx] = sum over b, oy, ox of x[b, oy sy + ky - py, ox sx + kx - px]^T @ dy[b, oy, ox]."""
        check_dy("conv_weight_grad", dy, x.shape, w_shape, stride, pad)
        dw, stride, pad, (kh, kw, cin, cout) = self.empty(*w_shape) if out is None else out, pair(stride), pair(pad), w_shape
        if kh * kw <= FEW_TAPS:
            parts = np.zeros((min(self.lanes, len(x)), kh * kw * cin, cout), self.dtype)  # one sum a lane
            def block(lane, maps):
                for rows, windows in _unfold(x[maps], (kh, kw), stride, pad, dy.shape[1:3]):
                    parts[lane] += windows.T @ dy[maps, rows].reshape(-1, cout)
            self._blocks(block, len(x), dy[0].size // cout * parts[0, :, 0].nbytes)
            np.sum(parts, axis=0, out=dw.reshape(-1, cout))
        else:
            def product(x, dy, dw):
                np.matmul(x.transpose(1, 2, 3, 0), dy.transpose(1, 2, 0, 3), out=dw.reshape(*x.shape[1:], -1))
            of_x, of_dw, of_dy = _factors(x, dw, dy, stride, pad)
            self._by_points(product, of_x, of_dy, of_dw)
        return dw

    def _by_points(self, product, first, second, result, bias=None, activation=None):
        """first and second to points, product(points, points, points of the result) there, and back: see above.

        Points are (B, P, Rx, sy sx C), for P rows of points at a time: so many that they fit the cache.
        """
        factors, (ry, rx) = (first, second, result), map(len, result.tables)
        with self.scratch:
            lines = [self._to_lines(first), self._to_lines(second), self._empty_lines(result)]

            def block(_, rows):
                some = [of_all[:, :, rows] for of_all in lines]
                points = [np.empty((len(o.array), rows.stop - rows.start, rx, o.stride[0], o.stride[1] * o.array.shape[3]),
                                   self.dtype) for o in factors]
                _to_points(first, some[0], points[0])
                _to_points(second, some[1], points[1])
                product(*(p.reshape(*p.shape[:3], -1) for p in points))
                _from_points(result, some[2], points[2])
            numbers = sum(len(o.array) * o.stride[0] * o.stride[1] * o.array.shape[3] for o in factors)  # at one point
            self._blocks(block, ry, rx * numbers * self.dtype.itemsize)
            self._from_lines(result, lines[2], bias, activation)

    def _empty_lines(self, factor):
        x, (table_y, table_x), (sy, sx), _ = factor
        return self.scratch.empty((len(x), sy, len(table_y), table_x.shape[1] * sx * x.shape[3]), self.dtype)

    def _to_lines(self, factor):
        """The first table: (B, H, W, C) -> lines (B, sy, Ry, W C), in whose W zeros stand before and after."""
        (x, (table_y, _), (sy, _), (top, left)), lines = factor, self._empty_lines(factor)
        b, h, w, c = x.shape
        flat, inside = x.reshape(b, h, w * c), lines[..., left * c:(left + w) * c]
        lines[..., :left * c] = lines[..., (left + w) * c:] = 0
        def block(_, columns):
            numbers = slice(columns.start * c, columns.stop * c)
            for q, (pixels, of_table) in enumerate(_phases(h, sy, top)):
                np.matmul(table_y[:, of_table], flat[:, pixels, numbers], out=inside[:, q, :, numbers])
        self._blocks(block, w, x.nbytes // w)
        return lines

    def _from_lines(self, factor, lines, bias, activation):
        """Its transpose: (B, H, W, C) from lines (B, sy, Ry, W C)."""
        x, (table_y, _), (sy, _), (top, left) = factor
        b, h, w, c = x.shape
        flat, inside = x.reshape(b, h, w * c), lines[..., left * c:(left + w) * c]
        def block(_, columns):
            numbers = slice(columns.start * c, columns.stop * c)
            for q, (pixels, of_table) in enumerate(_phases(h, sy, top)):
                np.matmul(table_y[:, of_table].T, inside[:, q, :, numbers], out=flat[:, pixels, numbers])
            self._activate(x[:, :, columns], bias, activation)
        self._blocks(block, w, x.nbytes // w)

    # ---------------------------------------------------------------------------- bias and activation
    @staticmethod
    def _activate(x, bias, activation):
        """In place: x + bias, then None, "relu", "leaky_relu" or "tanh"."""
        if bias is not None:
            x += bias
        if activation == "relu":
            np.maximum(x, 0, out=x)
        elif activation == "leaky_relu":
            np.maximum(x, LEAKY_SLOPE * x, out=x)
        elif activation == "tanh":
            np.tanh(x, out=x)
        else:
            activation_number(activation)
        return x

    @staticmethod
    def _activate_grad(dy, y, activation):
        """dy * act'(x), with act' told from the output y: all three activations allow that."""
        if activation == "relu":
            return dy * (y > 0)
        if activation == "leaky_relu":
            return np.where(y > 0, dy, LEAKY_SLOPE * dy)
        if activation == "tanh":
            return dy * (1 - y * y)
        activation_number(activation)
        return dy

    def bias_activation(self, x, bias=None, activation=None):
        """act(x + bias), bias (C,)."""
        y = self.empty(*x.shape)
        def block(_, maps):
            y[maps] = x[maps]
            self._activate(y[maps], bias, activation)
        self._blocks(block, len(x), x[0].nbytes)
        return y

    def bias_activation_grad(self, dy, y, activation=None, dbias=None):
        """dx from the output y and its gradient dy; dbias (C,), the sum of dx over maps and pixels, is filled if given."""
        dx = self.empty(*y.shape)
        sums = np.zeros((self.lanes, y.shape[-1]), self.dtype)
        def block(lane, maps):
            dx[maps] = self._activate_grad(dy[maps], y[maps], activation)
            if dbias is not None:
                sums[lane] += _column_sums(dx[maps])
        self._blocks(block, len(y), y[0].nbytes)
        if dbias is not None:
            np.sum(sums, axis=0, out=dbias)
        return dx

    # ------------------------------------------------------------------------- batch normalization
    # Ioffe and Szegedy 2015. Statistics are over maps and pixels, one pair a channel.
    def batch_norm(self, x, gamma, beta, running_mean, running_var, momentum=0.1, eps=1e-5, activation=None):
        """act(gamma (x - mean) / sqrt(var + eps) + beta) with the batch's own statistics, and the running ones updated.

        Returns y, mean (C,), var (C,): the biased variance; running_var receives the unbiased one. Blocks of
        maps are merged as (count, mean, M2), M2 the sum of squared deviations (Chan et al. 1983): E[x^2] - E[x]^2 would
        lose all digits when |mean| >> std.
        """
        y, channels, statistics = self.empty(*x.shape), x.shape[-1], {}
        def statistics_block(_, maps):
            pixels = x[maps].size // channels
            mean = _column_sums(x[maps]) / pixels
            np.subtract(x[maps], mean, out=y[maps])
            statistics[maps.start] = pixels, mean, _column_sums(y[maps] * y[maps])
        self._blocks(statistics_block, len(x), x[0].nbytes)
        counts, means, m2s = (np.array(s) for s in zip(*(statistics[start] for start in sorted(statistics))))
        mean, var, count = self.empty(channels), self.empty(channels), counts.sum()
        mean[:] = counts @ means / count
        var[:] = (m2s.sum(0) + counts @ (means - mean) ** 2) / count
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (var * (count / max(1, count - 1)) - running_var)
        return self.batch_norm_inference(x, gamma, beta, mean, var, eps, activation, out=y), mean, var

    def batch_norm_inference(self, x, gamma, beta, mean, var, eps=1e-5, activation=None, out=None):
        """act(gamma (x - mean) / sqrt(var + eps) + beta) with given statistics."""
        y = self.empty(*x.shape) if out is None else out
        scale = gamma / np.sqrt(var + self.dtype.type(eps))
        def block(_, maps):
            np.subtract(x[maps], mean, out=y[maps])
            y[maps] *= scale
            self._activate(y[maps], beta, activation)
        self._blocks(block, len(x), x[0].nbytes)
        return y

    def batch_norm_grad(self, dy, x, y, gamma, mean, var, eps=1e-5, activation=None, dgamma=None, dbeta=None):
        """dx of the training form, and dgamma (C,), dbeta (C,) filled.

        With n = x_hat, the normalized input, and dn = dy act'(y):
        dbeta = sum dn, dgamma = sum dn n, dx = gamma / std (dn - mean(dn) - n mean(dn n)).
        """
        dx, channels = self.empty(*x.shape), x.shape[-1]
        std = np.sqrt(var + self.dtype.type(eps))
        sums = np.zeros((2, self.lanes, channels), self.dtype)
        def sum_block(lane, maps):
            dx[maps] = self._activate_grad(dy[maps], y[maps], activation)
            sums[0, lane] += _column_sums(dx[maps])
            sums[1, lane] += _column_sums(dx[maps] * (x[maps] - mean)) / std
        self._blocks(sum_block, len(x), x[0].nbytes)
        dbeta = self.empty(channels) if dbeta is None else dbeta
        dgamma = self.empty(channels) if dgamma is None else dgamma
        np.sum(sums, axis=1, out=sums[:, 0])
        dbeta[:], dgamma[:] = sums[:, 0]
        count = x.size // channels
        def apply_block(_, maps):
            dx[maps] -= dbeta / count + (x[maps] - mean) * (dgamma / (count * std))
            dx[maps] *= gamma / std
        self._blocks(apply_block, len(x), x[0].nbytes)
        return dx

    # --------------------------------------------------------------------------------------- softmax
    def softmax(self, x, bias=None, out=None):
        """p[..., k] = exp(x_k + bias_k) / sum over j of exp(x_j + bias_j), over the class channel (paper, eq. 2)."""
        p = self.empty(*x.shape) if out is None else out
        def block(_, maps):
            rows = x[maps].reshape(-1, x.shape[-1]).T + (0 if bias is None else bias[:, None])  # (K, pixels)
            rows -= rows.max(0)  # the largest exponent becomes 0: no overflow
            np.exp(rows, out=rows)
            rows /= rows.sum(0)
            p[maps].reshape(-1, x.shape[-1])[...] = rows.T
        self._blocks(block, len(x), x[0].nbytes)
        return p

    def softmax_grad(self, dp, p, dbias=None):
        """dx_k = p_k (dp_k - sum over j of p_j dp_j)."""
        dx = self.empty(*p.shape)
        sums = np.zeros((self.lanes, p.shape[-1]), self.dtype)
        def block(lane, maps):
            weighted = (p[maps] * dp[maps]).reshape(-1, p.shape[-1])
            dot = np.add.reduce(weighted.T, 0)[:, None]
            dx[maps] = (weighted - p[maps].reshape(-1, p.shape[-1]) * dot).reshape(dx[maps].shape)
            sums[lane] += _column_sums(dx[maps])
        self._blocks(block, len(p), p[0].nbytes)
        if dbias is not None:
            np.sum(sums, axis=0, out=dbias)
        return dx

    # --------------------------------------------------------------------------- label maps and losses
    def gather(self, labels, index, table, out=None):
        """table[labels[index]]: uint8 maps (N, H, W), indices (B,), table (K, C) -> (B, H, W, C).

        The identity as the table gives one-hot maps, palette / 127.5 - 1 gives RGB. Labels must be below K: that is the
        loader's to check, here they are not looked at.
        """
        y = self.empty(len(index), *labels.shape[1:], table.shape[1]) if out is None else out
        self._blocks(lambda _, b: np.take(table, labels[index[b]], axis=0, out=y[b], mode="clip"), len(index), y[0].nbytes)
        return y

    def bce_with_logits(self, logits, target, loss=None):
        """Binary cross-entropy from logits, meaned: log(1 + exp(-|z|)) + max(z, 0) - z t. Returns loss (1,), dlogits."""
        loss, dlogits = self.empty(1) if loss is None else loss, self.empty(*logits.shape)
        z, e = logits, np.exp(-np.abs(logits))
        loss[0] = np.mean(np.log1p(e) + np.maximum(z, 0) - z * target)
        dlogits[...] = (np.where(z >= 0, 1, e) / (1 + e) - target) / z.size  # (sigmoid(z) - t) / B, any z
        return loss, dlogits

    def feature_matching(self, real, fake, reading="mean", loss=None, dfake=None, activation=None):
        """Distance of one layer's features, (B, H, W, C) each. Returns loss (1,) and dfake; a given dfake is added to.

        With the layer's activation, dfake is the gradient of what went into it, so that no pass of its own is needed.

        "mean" (Salimans et al. 2016): mean over h, w, c of (mean over b of real - mean over b of fake)^2.
        "paired" (after pix2pixHD): mean of |real - fake|, the i-th maps against each other.
        """
        loss = self.empty(1) if loss is None else loss
        add = dfake is not None
        dfake = dfake if add else self.empty(*fake.shape)
        if feature_matching_reading(reading) == "mean":
            gap = fake.mean(0) - real.mean(0)
            loss[0] = np.mean(gap * gap)
            gradient = np.broadcast_to(gap * (2 / fake.size), fake.shape)  # 2 gap / (H W C) and 1 / B, for every map
        else:
            gap = fake - real
            loss[0] = np.mean(np.abs(gap))
            gradient = np.sign(gap) / fake.size
        np.add(dfake, gradient, out=dfake) if add else np.copyto(dfake, gradient)
        if activation:
            self._blocks(lambda _, maps: np.copyto(dfake[maps], self._activate_grad(dfake[maps], fake[maps], activation)),
                         len(fake), fake[0].nbytes)
        return loss, dfake

    # ------------------------------------------------------------------------------------------ Adam
    def adam(self, params, grads, m, v, step, lr, beta1, beta2, eps):
        """One update of a whole network in place, all (n,) flat (Kingma and Ba 2015, algorithm 1).

        step (1,) counts the updates and lr (1,) is the learning rate: both live on the device.
        """
        step += 1
        correct_m, correct_v = (1 - beta ** float(step[0]) for beta in (beta1, beta2))  # in double: 1 - 0.999 loses digits
        def block(_, part):
            g = grads[part]
            m[part] += (1 - beta1) * (g - m[part])
            v[part] += (1 - beta2) * (g * g - v[part])
            root = np.sqrt(v[part] * (1 / correct_v)) + eps
            params[part] -= (lr[0] / correct_m) * m[part] / root
        self._blocks(block, len(params), 8 * self.dtype.itemsize)

    # ------------------------------------------------------------------------------- for Inception
    # Forward only.
    def concat(self, *parts):
        """Maps side by side along the channels: (B, H, W, C1), (B, H, W, C2), ... -> (B, H, W, C1 + C2 + ...)."""
        y = self.empty(*parts[0].shape[:3], sum(x.shape[3] for x in parts))
        self._blocks(lambda _, maps: np.concatenate([x[maps] for x in parts], 3, out=y[maps]), len(y), y[0].nbytes)
        return y

    def max_pool(self, x, size, stride=1, pad=0):
        """The largest number in each size x size window; padding never wins."""
        y, border = self.empty(*pool_shape(x.shape, size, stride, pad)), [(0, 0), (pad, pad), (pad, pad), (0, 0)]
        def block(_, maps):
            padded = np.pad(x[maps], border, constant_values=-np.inf) if pad else x[maps]
            y[maps] = -np.inf
            for window in _windows(padded, size, stride, y.shape):
                np.maximum(y[maps], window, out=y[maps])
        self._blocks(block, len(y), x[0].nbytes)
        return y

    def average_pool(self, x, size, stride=1, pad=0):
        """The mean of each size x size window, of the pixels inside the map: padding does not count."""
        y, border = self.empty(*pool_shape(x.shape, size, stride, pad)), [(0, 0), (pad, pad), (pad, pad), (0, 0)]
        count = sum(_windows(np.pad(np.ones_like(x[:1, :, :, :1]), border), size, stride, y.shape))  # (1, Ho, Wo, 1)
        def block(_, maps):
            y[maps] = 0
            for window in _windows(np.pad(x[maps], border), size, stride, y.shape):
                y[maps] += window
            y[maps] /= count
        self._blocks(block, len(y), x[0].nbytes)
        return y

    def resize(self, x, height, width, half_pixel=True):
        """Bilinear, without antialiasing: (B, H, W, C) -> (B, height, width, C). half_pixel: see resize_taps."""
        y = self.empty(len(x), height, width, x.shape[-1])
        (top, v), (left, h) = resize_taps(x.shape[1], height, half_pixel), resize_taps(x.shape[2], width, half_pixel)
        bottom, right = np.minimum(top + 1, x.shape[1] - 1), np.minimum(left + 1, x.shape[2] - 1)
        v, h = v.astype(self.dtype)[:, None, None], h.astype(self.dtype)[:, None]
        def block(_, maps):
            rows = x[maps][:, :, left] * (1 - h) + x[maps][:, :, right] * h  # (b, H, width, C)
            y[maps] = rows[:, top] * (1 - v) + rows[:, bottom] * v
        self._blocks(block, len(x), y[0].nbytes)
        return y


def _windows(padded, size, stride, y_shape):
    """For each place in a size x size window, what stands there in all windows: views of y's height and width."""
    _, h, w, _ = y_shape
    for ky in range(size):
        for kx in range(size):
            yield padded[:, ky:ky + stride * h:stride, kx:kx + stride * w:stride]


def _column_sums(x):
    """Sum over all axes but the last, by BLAS: ones @ x."""
    x = x.reshape(-1, x.shape[-1])
    return np.ones(len(x), x.dtype) @ x
