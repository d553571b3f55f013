"""The functions of numpy_ops.py on all cores: the fast backend for a CPU.

Most operations treat each map by itself. `over_maps` makes them from the pure functions: it cuts a
batch into chunks of maps that fit the cache, and workers compute the chunks. Only convolutions,
batch norm and Adam are written a second time here, since they need more than that to be fast. A
test compares both versions.
"""
import inspect
from threading import Lock

import numpy as np

from kernels import numpy_ops
from kernels.contract import LEAKY_SLOPE, Arena, activation_number, check_dy, conv_shape, pair
from kernels.fourier_conv import FourierConv, is_cheaper, is_exchanged
from kernels.numpy_ops import bias_activation_grad, channel_sums
from kernels.plain import PlainOps, land, method
from kernels.workers import CHUNK_BYTES, Workers


def over_maps(name, *cut):
    """The pure function `name` as a method that computes it on chunks of maps, on all cores.

    cut: the names of the arguments that have one entry per map; the others go to every chunk
    unchanged. The first result has one entry per map too; further ones, such as dbias, are sums
    over the maps.
    """
    function = getattr(numpy_ops, name)
    signature = inspect.signature(function)

    def operation(self, *args, out=None, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        n, map_bytes = size_of(given[cut[0]])
        results = Results(self, n, out)

        def compute(worker, chunk):
            pieces = {argument: cut_out(given[argument], chunk) for argument in cut}
            results.add(worker, chunk, function(**given | pieces))
        self.workers.share(compute, n, map_bytes)
        return results.collected()
    return method(name, operation)


class Results:
    """What an operation over n maps returns, put together from what it returns for chunks."""

    def __init__(self, ops, n, out):
        self.ops, self.n, self.out = ops, n, out
        self.first = None  # result, of all maps
        self.sums = [[] for _ in range(ops.workers.count)]  # for each worker, those of its chunks
        self.lock = Lock()

    def add(self, worker, chunk, found):
        first, *sums = found if isinstance(found, tuple) else (found,)
        with self.lock:
            if self.first is None:
                place = self.out[0] if sums and self.out else self.out
                self.first = self.ops.empty(self.n, *first.shape[1:]) if place is None else place
        self.first[chunk] = first
        self.sums[worker].append(sums)

    def collected(self):
        """All results. Sums go chunk by chunk, then worker by worker: always in one order."""
        by_worker = [map(sum, zip(*of_chunks)) for of_chunks in self.sums if of_chunks]
        sums = tuple(map(sum, zip(*by_worker)))
        return (self.first, *land(sums, self.out and self.out[1:])) if sums else self.first


def cut_out(argument, chunk):
    """The maps of a chunk, from one array or from each in a list."""
    return [a[chunk] for a in argument] if isinstance(argument, list) else argument[chunk]


def size_of(argument):
    """The number of maps, and the bytes of one map in one array or in a whole list."""
    arrays = argument if isinstance(argument, list) else [argument]
    return len(arrays[0]), sum(a[0].nbytes for a in arrays)


class NumpyEngine(PlainOps):
    """dtype: float32 or float64. workers: their number (default: one per core, up to 8).

    conv_method: "im2col" or "fourier" for all convolutions (default: the cheaper one for each).
    """
    name = "numpy"
    arithmetic = "NumPy"

    def __init__(self, dtype=np.float32, workers=None, conv_method=None):
        super().__init__(dtype)
        self.workers = Workers(workers)
        self.arena = EngineArena(self.workers)
        self.fourier = FourierConv(self.workers)
        self.conv_method = conv_method

    def __str__(self):
        return str(self.workers)

    bias_activation = over_maps("bias_activation", "x")
    bias_activation_grad = over_maps("bias_activation_grad", "dy", "y")
    softmax = over_maps("softmax", "x")
    softmax_grad = over_maps("softmax_grad", "dp", "p")
    add = over_maps("add", "a", "b")
    concat = over_maps("concat", "parts")
    max_pool = over_maps("max_pool", "x")
    average_pool = over_maps("average_pool", "x")
    resize = over_maps("resize", "x")

    # -------------------------------------------------------------------------------- convolution
    # Either by im2col, which unfolds the windows of the input into rows, so that a convolution is
    # one matrix product; or by the transform of fourier_conv.py, for large kernels.
    def conv(self, x, w, stride=1, pad=0, bias=None, activation=None, *, out=None):
        shape = conv_shape(x.shape, w.shape, stride, pad)
        activation_number(activation)
        y = self.empty(*shape) if out is None else out
        kh, kw, _, cout = w.shape
        finish = finisher(bias, activation)
        if self._by_fourier(x.shape, w.shape, stride, pad):
            self.fourier.conv(x, w, y, pair(stride), pair(pad), finish)
            return y
        if is_exchanged(w.shape, stride, pad):
            return self.conv_input_grad(x, turned(w), shape, 1, turned_pad(w.shape, pad), bias,
                                        activation, out=y)

        def compute(_, chunk):
            for rows, windows in unfold(x[chunk], (kh, kw), stride, pad, shape[1:3]):
                part = y[chunk, rows].reshape(-1, cout)  # a view: whole maps, or rows of one map
                np.matmul(windows, w.reshape(-1, cout), out=part)
                finish(part)
        self.workers.share(compute, len(x), windows_bytes(y, w))
        return y

    def conv_input_grad(self, dy, w, x_shape, stride=1, pad=0, bias=None, activation=None, *,
                        out=None):
        check_dy("conv_input_grad", dy, x_shape, w.shape, stride, pad)
        activation_number(activation)
        dx = self.empty(*x_shape) if out is None else out
        kh, kw, cin, cout = w.shape
        (_, height, width, _), (py, px) = x_shape, pair(pad)
        finish = finisher(bias, activation)
        if self._by_fourier(x_shape, w.shape, stride, pad):
            self.fourier.conv_input_grad(dy, w, dx, pair(stride), pair(pad), finish)
            return dx
        if is_exchanged(w.shape, stride, pad):
            return self.conv(dy, turned(w), 1, turned_pad(w.shape, pad), bias, activation, out=dx)

        def compute(_, chunk):
            windows = dy[chunk].reshape(-1, cout) @ w.reshape(-1, cout).T
            windows = windows.reshape(-1, *dy.shape[1:3], kh, kw * cin)
            dpadded = np.zeros((len(windows), height + 2 * py, width + 2 * px, cin), dy.dtype)
            fold(windows, dpadded, cin, stride)
            dx[chunk] = numpy_ops.crop_maps(dpadded, pad)
            finish(dx[chunk])
        self.workers.share(compute, len(dy), windows_bytes(dy, w))
        return dx

    def conv_weight_grad(self, x, dy, w_shape, stride=1, pad=0, *, out=None):
        check_dy("conv_weight_grad", dy, x.shape, w_shape, stride, pad)
        dw = self.empty(*w_shape) if out is None else out
        kh, kw, cin, cout = w_shape
        if self._by_fourier(x.shape, w_shape, stride, pad):
            self.fourier.conv_weight_grad(x, dy, dw, pair(stride), pair(pad))
            return dw
        if is_exchanged(w_shape, stride, pad):
            dw[:] = turned(self.conv_weight_grad(dy, x, (kh, kw, cout, cin), 1,
                                                 turned_pad(w_shape, pad)))
            return dw
        sums = {}  # of each worker, (kh kw Cin, Cout)

        def compute(worker, chunk):
            for rows, windows in unfold(x[chunk], (kh, kw), stride, pad, dy.shape[1:3]):
                part = windows.T @ dy[chunk, rows].reshape(-1, cout)
                sums[worker] = np.add(sums[worker], part, part) if worker in sums else part
        self.workers.share(compute, len(x), windows_bytes(dy, dw))
        first, *others = (sums[worker].reshape(w_shape) for worker in sorted(sums))
        dw[:] = first
        for part in others:
            dw += part
        return dw

    def _by_fourier(self, x_shape, w_shape, stride, pad):
        if self.conv_method:
            return self.conv_method == "fourier"
        return is_cheaper(tuple(x_shape), tuple(w_shape), pair(stride), pair(pad))

    # ------------------------------------------------------------------------ batch normalization
    def batch_norm(self, x, gamma, beta, running_mean, running_var, momentum=0.1, eps=1e-5,
                   activation=None, *, out=None):
        """Chunks are merged as (count, mean, M2), M2 the sum of squared deviations.

        Chan et al. 1983. E[x^2] - E[x]^2 would lose all digits where |mean| is far above std.
        """
        chunks = {}

        def statistics(_, chunk):
            count = x[chunk].size // x.shape[-1]
            mean = channel_sums(x[chunk]) / count
            chunks[chunk.start] = count, mean, channel_sums((x[chunk] - mean) ** 2)
        self.workers.share(statistics, len(x), x[0].nbytes)
        counts, means, m2s = map(np.array, zip(*(chunks[start] for start in sorted(chunks))))
        count = counts.sum()
        mean = (counts @ means / count).astype(self.dtype)
        var = ((m2s.sum(0) + counts @ (means - mean) ** 2) / count).astype(self.dtype)
        out = out or (None,) * 5
        y = self.batch_norm_inference(x, gamma, beta, mean, var, eps, activation, out=out[0])
        running = numpy_ops.running_statistics(running_mean, running_var, mean, var, count,
                                               momentum)
        running = [a.astype(self.dtype) for a in running]
        return y, *land((mean, var, *running), out[1:])

    def batch_norm_inference(self, x, gamma, beta, mean, var, eps=1e-5, activation=None, *,
                             out=None):
        y = self.empty(*x.shape) if out is None else out
        scale = gamma / np.sqrt(var + eps)
        finish = finisher(beta, activation)

        def compute(_, chunk):
            np.subtract(x[chunk], mean, out=y[chunk])
            y[chunk] *= scale
            finish(y[chunk])
        self.workers.share(compute, len(x), x[0].nbytes)
        return y

    def batch_norm_grad(self, dy, x, y, gamma, mean, var, eps=1e-5, activation=None, *, out=None):
        """Two passes: first the sums over the batch, then dx from them."""
        out = out or (None,) * 3
        dx = self.empty(*x.shape) if out[0] is None else out[0]
        channels, count = x.shape[-1], x.size // x.shape[-1]
        std = np.sqrt(var + self.dtype.type(eps))
        sums = np.zeros((2, self.workers.count, channels), self.dtype)

        def add_up(worker, chunk):
            dx[chunk], dbeta = bias_activation_grad(dy[chunk], y[chunk], activation)
            sums[0, worker] += channel_sums(dx[chunk] * (x[chunk] - mean)) / std
            sums[1, worker] += dbeta
        self.workers.share(add_up, len(x), x[0].nbytes)
        dgamma, dbeta = sums.sum(1)

        def subtract(_, chunk):
            dx[chunk] -= dbeta / count + (x[chunk] - mean) * (dgamma / (count * std))
            dx[chunk] *= gamma / std
        self.workers.share(subtract, len(x), x[0].nbytes)
        return dx, *land((dgamma, dbeta), out[1:])

    # --------------------------------------------------------------------------------------- Adam
    def adam(self, params, grads, m, v, step, lr, beta1, beta2, eps, *, out=None):
        """Updates the arrays of the results in place; they may be the arguments themselves."""
        old = params, m, v, step
        params, m, v, step = land(old, out or tuple(map(np.empty_like, old)))
        step += 1
        t = float(step[0])
        correct_m, correct_v = 1 - beta1 ** t, 1 - beta2 ** t

        def update(_, part):
            """The formulas of numpy_ops.adam in place: few arrays stay in the cache."""
            g = grads[part]
            change = g - m[part]  # m += (1 - beta1) (g - m)
            change *= 1 - beta1
            m[part] += change
            np.multiply(g, g, out=change)  # v += (1 - beta2) (g^2 - v)
            change -= v[part]
            change *= 1 - beta2
            v[part] += change
            root = np.multiply(v[part], 1 / correct_v, out=change)
            np.sqrt(root, out=root)
            root += eps
            change = (lr[0] / correct_m) * m[part]  # params -= lr m / (correct_m root)
            change /= root
            params[part] -= change
        self.workers.share(update, len(params), 8 * self.dtype.itemsize)
        return params, m, v, step


class EngineArena(Arena):
    """The arena of a training step. Inside it BLAS uses one thread per worker."""

    def __init__(self, workers):
        super().__init__(lambda size: np.empty(size, np.uint8))
        self.workers = workers

    def __enter__(self):
        super().__enter__()
        self.workers.__enter__()

    def __exit__(self, *exception):
        self.workers.__exit__(*exception)
        super().__exit__(*exception)


def finisher(bias, activation):
    """bias_activation in place: a function that adds a bias to maps and activates them."""
    def finish(maps):
        if bias is not None:
            maps += bias
        if activation == "relu":
            np.maximum(maps, 0, out=maps)
        elif activation == "leaky_relu":
            np.maximum(maps, LEAKY_SLOPE * maps, out=maps)
        elif activation == "tanh":
            np.tanh(maps, out=maps)
    return finish


def turned(w):
    """The kernel (kh, kw, Cout, Cin) of the same convolution with input and output exchanged.

    At stride 1, output o and input i meet in tap i - o + pad. In the exchanged convolution that is
    the tap o - i + turned pad = kh - 1 - (i - o + pad), so the taps stand in reverse order.
    """
    return np.ascontiguousarray(w[::-1, ::-1].swapaxes(2, 3))


def turned_pad(w_shape, pad):
    """The padding that belongs to a turned kernel."""
    return tuple(k - 1 - p for k, p in zip(w_shape, pair(pad)))


def unfold(x, kernel, stride, pad, out):
    """im2col of x (b, H, W, Cin), in strips of output rows that fit the cache.

    Yields the rows of the output and their windows, (b rows Wo, kh kw Cin).
    """
    (kh, kw), (sy, sx), (ho, wo) = kernel, pair(stride), out
    x = np.ascontiguousarray(numpy_ops.pad_maps(x, pad))
    b, _, _, c = x.shape
    image, row, pixel, item = x.strides
    windows = view(x, 0, (b, ho, wo, kh, kw * c), (image, sy * row, sx * pixel, row, item))
    strip = max(1, CHUNK_BYTES // (wo * kh * kw * c * x.itemsize))
    for top in range(0, ho, strip):
        rows = slice(top, min(top + strip, ho))
        yield rows, windows[:, rows].reshape(-1, kh * kw * c)


def fold(windows, x, channels, stride):
    """The inverse of unfold: adds windows (b, Ho, Wo, kh, kw Cin) to the pixels of x they are of.

    Up to sx taps of a row are taken at once: they lie side by side in a window, and so do their
    pixels, while those of the next window begin sx pixels later.
    """
    (sy, sx), (b, ho, wo, kh, row) = pair(stride), windows.shape
    image, line, pixel, item = x.strides
    for ky in range(kh):
        for start in range(0, row, sx * channels):
            part = windows[:, :, :, ky, start:start + sx * channels]
            pixels = view(x, ky * line + start * item, (b, ho, wo, part.shape[-1]),
                          (image, sy * line, sx * pixel, item))
            pixels += part


def view(x, offset, shape, strides):
    """Numbers of x, from `offset` bytes on. (NumPy's as_strided takes ten times as long.)"""
    return np.ndarray(shape, x.dtype, x, offset, strides)


def windows_bytes(y, w):
    """The bytes of the windows of one map, for outputs y (B, Ho, Wo, Cout)."""
    return y[0].size // y.shape[-1] * w[..., 0].nbytes
