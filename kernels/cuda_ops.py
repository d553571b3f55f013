"""Every operation as launches of CUDA kernels: the same code for a GPU and for the emulator.

numpy_ops.py says what each operation computes; this file sets grids, outputs and scratch memory,
and cuda_conv.py those of the convolutions. Arrays live on the device: `asarray` copies them there
and `asnumpy` back. No operation waits for the device, and all memory comes from the arena, so that
a training step launches the same kernels on the same addresses every time. That is why a step can
be recorded once and then launched as a whole. (Only resize copies tables from the host; no
training step needs it.)
"""
from pathlib import Path

import numpy as np

from kernels.buffers import ReusingArena
from kernels.contract import activation_number, check_reading, pool_shape, resize_weights
from kernels.cuda_conv import CONV_STEPS, THREADS, WARP, CudaConv, cdiv
from kernels.launch import read
from kernels.replacement import replacements

FOUR = 4     # numbers that a thread loads at once, see vectors.cuh
SLABS = 512  # column sums: at most this many slabs of rows,
SLAB = 64    # each of at least this many rows


class CudaOps(CudaConv):
    def __init__(self, device, conv_step=None, replace=None, softmax_step="3_online"):
        """device: a Gpu or an Emulator. conv_step: a file in conv/ (default: the fastest).

        softmax_step: a file in softmax/.
        replace: a .cu file whose kernels replace those of the same name. Raises LaunchError.
        """
        self.device = device
        self.dtype = device.dtype
        self.name = type(device).__name__.lower()
        self.arithmetic = f"the {self.name} in {device.precision}"
        self.arena = ReusingArena(device)
        self._choose_kernels(device, conv_step)
        self.softmax_file = f"softmax/{softmax_step}.cu"
        self.replaced = {}  # {kernel: path of the file that has it}
        if replace:
            self.replaced = replacements(replace, self.conv_file, self.softmax_file)
            self.arithmetic += f", with kernels of {Path(replace).name}"

    def _launch(self, file, kernel, *arguments, **shared):
        """Launches a kernel of a file in this folder, or the one that replaces it."""
        self.device.launch(self.replaced.get(kernel, file), kernel, *arguments, **shared)

    def unrounded(self):
        return CudaOps(self.device, CONV_STEPS["fp32"])

    # ------------------------------------------------------------------------------------- arrays
    def empty(self, *shape, dtype=None):
        a = self.arena.empty(shape, dtype or self.dtype)
        self.device.spoil(a)
        return a

    def asarray(self, array, dtype=None):
        return self.device.upload(np.ascontiguousarray(array, dtype or self.dtype))

    def asnumpy(self, array):
        return self.device.download(array)

    def write(self, array, values):
        values = np.broadcast_to(values, array.shape)
        self.device.write(array, np.ascontiguousarray(values, array.dtype))

    def record(self, run):
        return self.device.record(run)

    def _copy(self, a, out):
        """a if `out` is a, else a copy in `out` or anywhere: for kernels that update in place."""
        return a if out is a else self.concat([a.reshape(1, 1, 1, -1)], out=out).reshape(a.shape)

    def _each(self, file, kernel, n, *arguments):
        """Launches one thread for each of n numbers."""
        self._launch(file, kernel, cdiv(n, THREADS), THREADS, *arguments)

    def _fours(self, file, kernel, n, *arguments):
        """Launches one thread for every four of n numbers."""
        self._each(file, kernel, cdiv(n, FOUR), *arguments)

    # --------------------------------------------------------------------------------- reductions
    def _sum_slices(self, partial, out, partial_2=None, out_2=None):
        """out = the sum of partial over its first axis; out_2 likewise, in the same launch."""
        width = threads_across(out.size) if len(partial) >= WARP else THREADS
        grid = cdiv(out.size, FOUR * width), 1, 1 if out_2 is None else 2
        self._launch("reductions.cu", "sum_slices", grid, (width, THREADS // width),
                     partial, out, partial_2, out_2, len(partial), out.size)

    def _columns(self, file, kernel, x, *arguments, sums=True, widest=WARP):
        """Launches a kernel over slabs of x's rows: a block computes some columns of one slab.

        A thread takes four columns of every height-th row. With sums, the kernel writes one row of
        them per slab, so slabs are few; without, they are small, eight rows for each thread.
        """
        rows, columns = x.size // x.shape[-1], x.shape[-1]
        width = min(threads_across(columns), widest)
        height = THREADS // width
        slab = slab_rows(rows) if sums else max(8 * height, cdiv(rows, 65535))
        across = 1 if widest == 1 else cdiv(columns, FOUR * width)
        grid = across, cdiv(rows, slab)
        self._launch(file, kernel, grid, (width, height), *arguments, rows, columns, slab)

    def _partials(self, x):
        """Memory for one row of sums per slab."""
        rows = x.size // x.shape[-1]
        return self.empty(cdiv(rows, slab_rows(rows)), x.shape[-1])

    def _places(self, out, *shapes):
        """Where results lie: as `out` says, else in new arrays of these shapes."""
        out = out or (None,) * len(shapes)
        return [self.empty(*shape) if place is None else place
                for place, shape in zip(out, shapes)]

    # ------------------------------------------------------------------------ bias and activation
    def bias_activation(self, x, bias=None, activation=None, *, out=None):
        y = self.empty(*x.shape) if out is None else out
        self._each("activations.cu", "bias_activation", x.size,
                   x, bias, activation_number(activation), y, x.size, x.shape[-1])
        return y

    def bias_activation_grad(self, dy, y, activation=None, *, out=None):
        dx, dbias = self._places(out, y.shape, y.shape[-1:])
        partial = self._partials(y)
        self._columns("activations.cu", "bias_activation_grad", y,
                      dy, y, activation_number(activation), dx, partial)
        self._sum_slices(partial, dbias)
        return dx, dbias

    # ------------------------------------------------------------------------ batch normalization
    def batch_norm(self, x, gamma, beta, running_mean, running_var, momentum=0.1, eps=1e-5,
                   activation=None, *, out=None):
        out = out or (None,) * 5
        channels, rows = x.shape[-1], x.size // x.shape[-1]
        mean, var = self._places(out[1:3], (channels,), (channels,))
        running_mean = self._copy(running_mean, out[3])
        running_var = self._copy(running_var, out[4])
        means, m2s = self._partials(x), self._partials(x)
        self._columns("batch_norm.cu", "batch_norm_statistics", x, x, means, m2s)
        width = threads_across(channels)
        self._launch("batch_norm.cu", "batch_norm_merge",
                     cdiv(channels, FOUR * width), (width, THREADS // width),
                     means, m2s, mean, var, running_mean, running_var, momentum,
                     rows, channels, slab_rows(rows))
        y = self.batch_norm_inference(x, gamma, beta, mean, var, eps, activation, out=out[0])
        return y, mean, var, running_mean, running_var

    def batch_norm_grad(self, dy, x, y, gamma, mean, var, eps=1e-5, activation=None, *, out=None):
        channels, number = x.shape[-1], activation_number(activation)
        dx, dgamma, dbeta = self._places(out, x.shape, (channels,), (channels,))
        dgammas, dbetas = self._partials(x), self._partials(x)
        self._columns("batch_norm_grad.cu", "batch_norm_grad_sums", x,
                      dy, x, y, mean, var, eps, number, dbetas, dgammas)
        self._sum_slices(dbetas, dbeta, dgammas, dgamma)
        self._columns("batch_norm_grad.cu", "batch_norm_grad_apply", x,
                      dy, x, y, gamma, mean, var, eps, number, dgamma, dbeta, dx, sums=False)
        return dx, dgamma, dbeta

    def batch_norm_inference(self, x, gamma, beta, mean, var, eps=1e-5, activation=None, *,
                             out=None):
        y = self.empty(*x.shape) if out is None else out
        self._columns("batch_norm.cu", "batch_norm_apply", x,
                      x, gamma, beta, mean, var, eps, activation_number(activation), y, sums=False)
        return y

    # ------------------------------------------------------------------------------------ softmax
    def softmax(self, x, bias=None, *, out=None):
        p = self.empty(*x.shape) if out is None else out
        classes, rows = x.shape[-1], x.size // x.shape[-1]
        width = min(threads_across(classes), self._widest("softmax"))
        height = THREADS // width
        self._launch(self.softmax_file, "softmax", cdiv(rows, height), (width, height),
                     x, bias, p, rows, classes)
        return p

    def softmax_grad(self, dp, p, *, out=None):
        dx, dbias = self._places(out, p.shape, p.shape[-1:])
        partial = self._partials(p)
        self._columns(self.softmax_file, "softmax_grad", p, dp, p, dx, partial,
                      widest=self._widest("softmax_grad"))
        self._sum_slices(partial, dbias)
        return dx, dbias

    def _widest(self, kernel):
        """How many lanes share a pixel, at most: a kernel that replaces another may say it too."""
        own = read(self.replaced.get(kernel, self.softmax_file)).constants
        return own.get("WIDEST") or read(self.softmax_file).constants["WIDEST"]

    # ------------------------------------------------------------------------------------- losses
    def bce_with_logits(self, logits, target, weight=1.0, *, out=None):
        loss, dlogits = self._places(out, (1,), logits.shape)
        self._launch("losses.cu", "bce_with_logits", 1, THREADS,
                     logits, target, weight, loss, dlogits, logits.size)
        return loss, dlogits

    def softmax_cross_entropy(self, x, target, *, out=None):
        loss, dx = self._places(out, (1,), x.shape)
        pixels = x.size // x.shape[-1]
        partial = self.empty(cdiv(pixels, THREADS))
        self._each("losses.cu", "softmax_cross_entropy", pixels,
                   x, target, partial, dx, pixels, x.shape[-1])
        self._launch("reductions.cu", "sum_all", 1, THREADS,
                     partial, loss, partial.size, 1 / pixels)
        return loss, dx

    def _loss_and_gradient(self, fake, dabove, out):
        """Places for a loss (1,) and for dfake, which holds dabove already if there is any."""
        if dabove is None:
            return self._places(out, (1,), fake.shape)
        place, dfake = out or (None, None)
        loss, = self._places((place,), (1,))
        return loss, self._copy(dabove, dfake)

    def feature_matching(self, real, fake, reading="mean", dabove=None, activation=None, *,
                         out=None):
        check_reading(reading)
        loss, dfake = self._loss_and_gradient(fake, dabove, out)
        batch, positions = len(fake), fake[0].size
        n = fake.size if reading == "paired" else positions
        kernel, count = "feature_matching_paired", (n,)
        if reading != "paired":
            kernel, count = "feature_matching_mean", (reading == "unbiased", batch, positions)
        partial = self.empty(cdiv(n, THREADS))
        self._each("losses.cu", kernel, n, real, fake, partial, dfake, dabove is not None,
                   activation_number(activation), *count)
        self._launch("reductions.cu", "sum_all", 1, THREADS,
                     partial, loss, partial.size, 1 / n)
        return loss, dfake

    def moment_matching(self, real, fake, weight, dabove=None, *, out=None):
        loss, dfake = self._loss_and_gradient(fake, dabove, out)
        batch, channels = len(fake), fake.shape[-1]
        pixels = fake[0].size // channels
        pooled_real, pooled_fake, dpooled = (self.empty(batch, channels) for _ in range(3))
        grid, block = (cdiv(channels, WARP), batch), (WARP, THREADS // WARP)
        for x, pooled in (real, pooled_real), (fake, pooled_fake):
            self._launch("moments.cu", "pool_features", grid, block,
                         x, pooled, pixels, channels)
        partial = self.empty(cdiv(channels, THREADS))
        self._each("moments.cu", "match_moments", channels, pooled_real, pooled_fake, partial,
                   dpooled, weight, pixels, batch, channels)
        self._each("moments.cu", "add_to_pixels", fake.size,
                   dpooled, dfake, dabove is not None, fake.size, pixels, channels)
        self._launch("reductions.cu", "sum_all", 1, THREADS,
                     partial, loss, partial.size, weight)
        return loss, dfake

    # --------------------------------------------------------------------------------------- Adam
    def adam(self, params, grads, m, v, step, lr, beta1, beta2, eps, *, out=None):
        old = params, m, v, step
        params, m, v, step = map(self._copy, old, out or (None,) * 4)
        scales = self.empty(2)
        self._launch("adam.cu", "adam_advance", 1, 1, step, lr, scales, beta1, beta2)
        self._fours("adam.cu", "adam", params.size,
                    params, grads, m, v, scales, 1 - beta1, 1 - beta2, eps, params.size)
        return params, m, v, step

    # ----------------------------------------------------------------------- label maps and inputs
    def gather(self, labels, index, table, *, out=None):
        classes, channels = table.shape
        y = out
        if y is None:
            y = self.empty(len(index), *labels.shape[1:], channels)
        self._fours("labels.cu", "gather", y.size,
                    labels, index, table, y, y.size, labels[0].size, classes, channels)
        return y

    def take_row(self, table, number, *, out=None):
        row = self.empty(*table.shape[1:], dtype=table.dtype) if out is None else out
        kernel = "take_row" if table.dtype == self.dtype else "take_row_int"
        self._each("inputs.cu", kernel, row.size, table, number, row, len(table), row.size)
        return row

    # ------------------------------------------------------------------- branches: add, join, split
    def add(self, a, b, *, out=None):
        y = self.empty(*a.shape) if out is None else out
        self._each("activations.cu", "add", a.size, a, b, y, a.size)
        return y

    def concat(self, parts, *, out=None):
        channels = sum(x.shape[3] for x in parts)
        y = self.empty(*parts[0].shape[:3], channels) if out is None else out
        first = 0
        for x in parts:
            self._each("pooling.cu", "concat", x.size, x, y, x.size, x.shape[3], channels, first)
            first += x.shape[3]
        return y

    def split(self, dy, channels, *, out=None):
        parts = self._places(out, *((*dy.shape[:3], c) for c in channels))
        first = 0
        for dx in parts:
            self._each("pooling.cu", "split", dx.size,
                       dy, dx, dx.size, dx.shape[3], dy.shape[3], first)
            first += dx.shape[3]
        return tuple(parts)

    # ---------------------------------------------------------------------- for Inception: forward
    def max_pool(self, x, size, stride=1, pad=0, *, out=None):
        return self._pool("max_pool", x, size, stride, pad, out)

    def average_pool(self, x, size, stride=1, pad=0, *, out=None):
        return self._pool("average_pool", x, size, stride, pad, out)

    def _pool(self, kernel, x, size, stride, pad, out):
        y = self.empty(*pool_shape(x.shape, size, stride, pad)) if out is None else out
        self._each("pooling.cu", kernel, y.size, x, y, *x.shape, *y.shape[1:3], size, stride, pad)
        return y

    def resize(self, x, height, width, half_pixel=True, *, out=None):
        y = self.empty(len(x), height, width, x.shape[-1]) if out is None else out
        tables = []
        for size, new in zip(x.shape[1:3], (height, width)):
            low, weight = resize_weights(size, new, half_pixel)
            tables += self.asarray(low, np.int32), self.asarray(weight)
        self._each("pooling.cu", "resize", y.size, x, y, *tables, *x.shape, height, width)
        return y


def threads_across(columns):
    """The threads for a row of columns, four columns each: a power of two, up to a warp."""
    return min(WARP, 1 << (cdiv(columns, FOUR) - 1).bit_length())


def slab_rows(rows):
    """The rows of a slab: SLAB, or more if there would be over SLABS slabs."""
    return max(SLAB, cdiv(rows, SLABS))
