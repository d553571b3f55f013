"""Every operation of the contract as launches of CUDA kernels: the same code for a GPU and for the emulator.

numpy_ops.py says what each operation computes; here stand grids, outputs and scratch memory. Arrays live on the device
(`asarray` brings them there, `asnumpy` back). Nothing here waits for the device, and every output and scratch buffer comes
from the arena, so a training step always launches the same kernels on the same addresses. (Only resize, which no training
step needs, brings tables from the host.) So a step can be recorded, and launched again as a whole.
"""
import numpy as np

from kernels import launch, numpy_ops
from kernels.numpy_ops import activation_number, check_dy, conv_shape, pair, resize_taps

WARP, THREADS = 32, 256  # threads of a warp; of a block, in all kernels but the convolutions
FOUR = 4               # numbers that a thread loads at once: vectors.cuh
SLABS, SLAB = 512, 64  # column sums: up to so many slabs of rows, each of at least so many rows
BLOCKS = 1024          # enough to fill a large card: conv_weight_grad slices its sum until it has as many
LONGEST_SUM = 16384    # terms that one float32 accumulator adds up one by one


class CudaOps:
    def __init__(self, device, conv_step="3_register_tiles"):
        """device: a launch.Gpu or emulator.Emulator; conv_step: the file in conv/ whose kernels convolve."""
        self.device, self.dtype, self.name = device, device.dtype, type(device).__name__.lower()
        self.conv_file = f"conv/{conv_step}.cu"
        self.conv_tile = launch.read(self.conv_file).constants
        self.arena = numpy_ops.Arena(device.allocate)

    # ---------------------------------------------------------------------------------------- arrays
    def empty(self, *shape):
        a = self.arena.empty(shape, self.dtype)
        self.device.spoil(a)
        return a

    def asarray(self, array, dtype=None):
        """Host -> device."""
        return self.device.upload(np.ascontiguousarray(array, dtype or self.dtype))

    def asnumpy(self, array):
        """Device -> host."""
        return self.device.download(array)

    def write(self, array, values):
        """Host -> device, into an array that is there."""
        self.device.write(array, np.ascontiguousarray(np.broadcast_to(values, array.shape), array.dtype))

    def record(self, run):
        return self.device.record(run)

    def take_row(self, table, number, out):
        kernel = "take_row" if table.dtype == self.dtype else "take_row_int"
        self._each("inputs.cu", kernel, out.size, table, number, out, len(table), out.size)

    def _each(self, file, kernel, n, *arguments):
        """One thread for each of n numbers."""
        self.device.launch(file, kernel, cdiv(n, THREADS), THREADS, *arguments)

    def _fours(self, file, kernel, n, *arguments):
        """One thread for four of n numbers."""
        self._each(file, kernel, cdiv(n, FOUR), *arguments)

    # ----------------------------------------------------------------------------------- convolution
    def _convolve(self, kernel, rows, columns, slices, *arguments):
        tile = self.conv_tile
        grid = cdiv(rows, tile["TILE_M"]), cdiv(columns, tile["TILE_N"]), slices
        self.device.launch(self.conv_file, kernel, grid, tile["THREADS"], *arguments)

    def conv(self, x, w, stride=1, pad=0, bias=None, activation=None, out=None):
        shape = conv_shape(x.shape, w.shape, stride, pad)
        y = self.empty(*shape) if out is None else out
        b, ho, wo, cout = shape
        self._convolve("conv", b * ho * wo, cout, 1, x, w, bias, activation_number(activation), y,
                       *sizes(x.shape, shape, w.shape, stride, pad))
        return y

    def conv_input_grad(self, dy, w, x_shape, stride=1, pad=0, bias=None, activation=None):
        check_dy("conv_input_grad", dy, x_shape, w.shape, stride, pad)
        dx, (b, h, width, cin), (sy, sx) = self.empty(*x_shape), x_shape, pair(stride)
        pixels, phases = b * h * width, 1
        if self.conv_tile["BY_PHASE"]:
            pixels, phases = b * cdiv(h, sy) * cdiv(width, sx), sy * sx
        self._convolve("conv_input_grad", pixels, cin, phases, dy, w, bias, activation_number(activation), dx,
                       *sizes(x_shape, dy.shape, w.shape, stride, pad))
        return dx

    def conv_weight_grad(self, x, dy, w_shape, stride=1, pad=0, out=None):
        check_dy("conv_weight_grad", dy, x.shape, w_shape, stride, pad)
        dw = self.empty(*w_shape) if out is None else out
        (kh, kw, cin, cout), (b, ho, wo, _), tile = w_shape, dy.shape, self.conv_tile
        rows, pixels = kh * kw * cin, b * ho * wo
        tiles = cdiv(rows, tile["TILE_M"]) * cdiv(cout, tile["TILE_N"])
        slice_ = cdiv(pixels, max(1, min(BLOCKS // tiles, pixels // THREADS), cdiv(pixels, LONGEST_SUM)))
        slices = cdiv(pixels, slice_)
        partial = self.empty(slices, *w_shape) if slices > 1 else dw
        self._convolve("conv_weight_grad", rows, cout, slices, x, dy, partial, slice_,
                       *sizes(x.shape, dy.shape, w_shape, stride, pad))
        if slices > 1:
            self._sum_slices(partial, dw)
        return dw

    # ------------------------------------------------------------------------------------ reductions
    def _sum_slices(self, partial, out, partial_2=None, out_2=None):
        """out = the sum of partial over its first axis; out_2 likewise, in the same launch."""
        width = lanes(out.size) if len(partial) >= WARP else THREADS
        self.device.launch("reductions.cu", "sum_slices", (cdiv(out.size, FOUR * width), 1, 1 if out_2 is None else 2),
                           (width, THREADS // width), partial, out, partial_2, out_2, len(partial), out.size)

    def _columns(self, file, kernel, x, *arguments, sums=True):
        """A kernel over slabs of x's rows: a block for some columns of a slab, a thread for four in every so many rows.

        With sums it leaves a row of them a slab, so slabs are few; without, so many that a thread has eight rows.
        """
        rows, columns = x.size // x.shape[-1], x.shape[-1]
        width, height = lanes(columns), THREADS // lanes(columns)
        slab = slab_rows(rows) if sums else max(8 * height, cdiv(rows, 65535))
        self.device.launch(file, kernel, (cdiv(columns, FOUR * width), cdiv(rows, slab)), (width, height),
                           *arguments, rows, columns, slab)

    def _partials(self, x):
        """Room for one row of sums a slab."""
        rows = x.size // x.shape[-1]
        return self.empty(cdiv(rows, slab_rows(rows)), x.shape[-1])

    # ---------------------------------------------------------------------------- bias and activation
    def bias_activation(self, x, bias=None, activation=None):
        y = self.empty(*x.shape)
        self._each("activations.cu", "bias_activation", x.size, x, bias, activation_number(activation), y, x.size, x.shape[-1])
        return y

    def bias_activation_grad(self, dy, y, activation=None, dbias=None):
        dx, partial = self.empty(*y.shape), None if dbias is None else self._partials(y)
        self._columns("activations.cu", "bias_activation_grad", y, dy, y, activation_number(activation), dx, partial)
        if dbias is not None:
            self._sum_slices(partial, dbias)
        return dx

    # ------------------------------------------------------------------------- batch normalization
    def batch_norm(self, x, gamma, beta, running_mean, running_var, momentum=0.1, eps=1e-5, activation=None):
        means, m2s, channels = self._partials(x), self._partials(x), x.shape[-1]
        mean, var, rows = self.empty(channels), self.empty(channels), x.size // channels
        self._columns("batch_norm.cu", "batch_norm_statistics", x, x, means, m2s)
        width = lanes(channels)
        self.device.launch("batch_norm.cu", "batch_norm_merge", cdiv(channels, FOUR * width), (width, THREADS // width), means,
                           m2s, mean, var, running_mean, running_var, momentum, rows, channels, slab_rows(rows))
        return self.batch_norm_inference(x, gamma, beta, mean, var, eps, activation), mean, var

    def batch_norm_inference(self, x, gamma, beta, mean, var, eps=1e-5, activation=None, out=None):
        y = self.empty(*x.shape) if out is None else out
        self._columns("batch_norm.cu", "batch_norm_apply", x, x, gamma, beta, mean, var, eps, activation_number(activation), y,
                      sums=False)
        return y

    def batch_norm_grad(self, dy, x, y, gamma, mean, var, eps=1e-5, activation=None, dgamma=None, dbeta=None):
        dx, channels, act = self.empty(*x.shape), x.shape[-1], activation_number(activation)
        dgamma = self.empty(channels) if dgamma is None else dgamma
        dbeta = self.empty(channels) if dbeta is None else dbeta
        dn_sums, dn_n_sums = self._partials(x), self._partials(x)
        self._columns("batch_norm_grad.cu", "batch_norm_grad_sums", x, dy, x, y, mean, var, eps, act, dn_sums, dn_n_sums)
        self._sum_slices(dn_sums, dbeta, dn_n_sums, dgamma)
        self._columns("batch_norm_grad.cu", "batch_norm_grad_apply", x, dy, x, y, gamma, mean, var, eps, act, dgamma, dbeta,
                      dx, sums=False)
        return dx

    # --------------------------------------------------------------------------------------- softmax
    def softmax(self, x, bias=None, out=None):
        p, classes, rows = self.empty(*x.shape) if out is None else out, x.shape[-1], x.size // x.shape[-1]
        height = THREADS // lanes(classes)
        self.device.launch("softmax.cu", "softmax", cdiv(rows, height), (lanes(classes), height), x, bias, p, rows, classes)
        return p

    def softmax_grad(self, dp, p, dbias=None):
        dx, partial = self.empty(*p.shape), None if dbias is None else self._partials(p)
        self._columns("softmax.cu", "softmax_grad", p, dp, p, dx, partial)
        if dbias is not None:
            self._sum_slices(partial, dbias)
        return dx

    # --------------------------------------------------------------------------- label maps and losses
    def gather(self, labels, index, table, out=None):
        classes, channels = table.shape
        y = self.empty(len(index), *labels.shape[1:], channels) if out is None else out
        self._fours("labels.cu", "gather", y.size, labels, index, table, y, y.size, labels[0].size, classes, channels)
        return y

    def bce_with_logits(self, logits, target, loss=None):
        loss, dlogits = self.empty(1) if loss is None else loss, self.empty(*logits.shape)
        self.device.launch("losses.cu", "bce_with_logits", 1, THREADS, logits, target, loss, dlogits, logits.size)
        return loss, dlogits

    def feature_matching(self, real, fake, reading="mean", loss=None, dfake=None, activation=None):
        loss, add = self.empty(1) if loss is None else loss, dfake is not None
        dfake = dfake if add else self.empty(*fake.shape)
        batch, positions = len(fake), fake[0].size
        of_means = numpy_ops.feature_matching_reading(reading) == "mean"
        n = positions if of_means else fake.size
        partial = self.empty(cdiv(n, THREADS))
        self._each("losses.cu", f"feature_matching_{reading}", n, real, fake, partial, dfake, add,
                   activation_number(activation), *((batch, positions) if of_means else (n,)))
        self.device.launch("reductions.cu", "sum_all", 1, THREADS, partial, loss, partial.size, 1 / n)
        return loss, dfake

    # ------------------------------------------------------------------------------------------ Adam
    def adam(self, params, grads, m, v, step, lr, beta1, beta2, eps):
        scales = self.empty(2)
        self.device.launch("adam.cu", "adam_advance", 1, 1, step, lr, scales, beta1, beta2)
        self._fours("adam.cu", "adam", params.size, params, grads, m, v, scales, 1 - beta1, 1 - beta2, eps, params.size)

    # ------------------------------------------------------------------------------- for Inception
    def concat(self, *parts):
        first, channels = 0, sum(x.shape[3] for x in parts)
        y = self.empty(*parts[0].shape[:3], channels)
        for x in parts:
            self._each("pooling.cu", "concat", x.size, x, y, x.size, x.shape[3], channels, first)
            first += x.shape[3]
        return y

    def max_pool(self, x, size, stride=1, pad=0):
        return self._pool("max_pool", x, size, stride, pad)

    def average_pool(self, x, size, stride=1, pad=0):
        return self._pool("average_pool", x, size, stride, pad)

    def _pool(self, kernel, x, size, stride, pad):
        y = self.empty(*numpy_ops.pool_shape(x.shape, size, stride, pad))
        self._each("pooling.cu", kernel, y.size, x, y, *x.shape, *y.shape[1:3], size, stride, pad)
        return y

    def resize(self, x, height, width, half_pixel=True):
        y, taps = self.empty(len(x), height, width, x.shape[-1]), []
        for size, out in zip(x.shape[1:3], (height, width)):
            low, weight = resize_taps(size, out, half_pixel)
            taps += self.asarray(low, np.int32), self.asarray(weight)
        self._each("pooling.cu", "resize", y.size, x, y, *taps, *x.shape, height, width)
        return y


def cdiv(a, b):
    return -(-a // b)


def lanes(columns):
    """Threads side by side for so many columns, four each: a power of two, up to a warp."""
    return min(WARP, 1 << (cdiv(columns, FOUR) - 1).bit_length())


def slab_rows(rows):
    return max(SLAB, cdiv(rows, SLABS))


def sizes(x_shape, y_shape, w_shape, stride, pad):
    """B, H, W, Cin, Ho, Wo, Cout, kh, kw, sy, sx, py, px: what every kernel in conv/ takes."""
    return *x_shape, *y_shape[1:], *w_shape[:2], *pair(stride), *pair(pad)
