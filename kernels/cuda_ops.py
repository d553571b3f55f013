"""Every operation of the contract as launches of CUDA kernels: the same code for a GPU and for the emulator.

numpy_ops.py says what each operation computes; here stand grids, outputs and scratch memory. Arrays live on the device
(`asarray` brings them there, `asnumpy` back). Nothing here waits for the device, and every output and scratch buffer comes
from the arena, so a training step always launches the same kernels on the same addresses. (Only resize, which no training
step needs, brings tables from the host.) So a step can be recorded, and launched again as a whole.
"""
from dataclasses import dataclass

import numpy as np

from kernels import launch, numpy_ops
from kernels.numpy_ops import activation_number, check_dy, conv_shape, pair, resize_taps

WARP, THREADS = 32, 256  # threads of a warp; of a block, in all kernels but the convolutions
FOUR = 4               # numbers that a thread loads at once: vectors.cuh
SLABS, SLAB = 512, 64  # column sums: up to so many slabs of rows, each of at least so many rows
OTHER_SHARED = 2560    # bytes of shared memory that a block takes beside what it asks for at the launch: CUDA's, static ones
SHORTEST_SLICE = 256   # pixels of a slice of conv_weight_grad's sum
CONV_STEPS = {"fp32": "3_register_tiles", "tf32": "5_pipelined", "bf16": "5_pipelined"}  # the fastest of conv/ for a precision
SLOPES = {None: 1, "relu": 0, "leaky_relu": numpy_ops.LEAKY_SLOPE}  # what an activation multiplies negative numbers by
LONGEST_SUM = 16384    # terms that one float32 accumulator adds up one by one


@dataclass(frozen=True)
class Operand:
    """An array (..., C), rounded for tensor cores, in place of the array itself in any convolution."""
    values: object  # of operand_type, the channels filled up with zeros
    shape: tuple    # without them


class CudaOps:
    few_channels = 24  # up to so many output channels, few_channels.cu fills the columns of a tile better

    def __init__(self, device, conv_step=None):
        """device: a launch.Gpu or emulator.Emulator; conv_step: the file in conv/ whose kernels convolve, if not the best one."""
        self.device, self.dtype, self.name = device, device.dtype, type(device).__name__.lower()
        self.conv_file = f"conv/{conv_step or CONV_STEPS[device.precision]}.cu"
        self.tile = launch.read(self.conv_file).constants
        fitting = device.shared_memory // (self.tile.get("SHARED_BYTES", 0) + OTHER_SHARED)
        self.at_a_time = min(self.tile["BLOCKS"], fitting) * device.multiprocessors
        self.takes_operands, self.operand_type = "NARROW_TILE_M" in self.tile, launch.operand_type(device)
        self.arena = numpy_ops.Arena(device.allocate)

    def unrounded(self):
        return CudaOps(self.device, CONV_STEPS["fp32"])

    # ---------------------------------------------------------------------------------------- arrays
    def empty(self, *shape, dtype=None):
        a = self.arena.empty(shape, dtype or self.dtype)
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
    def conv(self, x, w, stride=1, pad=0, bias=None, activation=None, out=None):
        shape, (kh, kw, cin, cout) = conv_shape(x.shape, w.shape, stride, pad), w.shape
        y = self.empty(*shape) if out is None else out
        if self._few(cout, kw):
            (sy, sx), (py, px) = pair(stride), pair(pad)
            products = self.conv(x, self._swap_axes(w).reshape(kh, 1, cin, kw * cout), (sy, 1), (py, 0))  # (B, Ho, W, kw Cout)
            self._each("few_channels.cu", "sum_shifted", y.size, products, bias, activation_number(activation), y,
                       y.size, x.shape[2], *shape[2:], kw, sx, px)
            return y
        return self._correlate("conv", x, w, bias, activation, y, 1, y.size // cout, kh * kw,
                               sizes(x.shape, shape, w.shape, stride, pad))

    def conv_input_grad(self, dy, w, x_shape, stride=1, pad=0, bias=None, activation=None):
        check_dy("conv_input_grad", dy, x_shape, w.shape, stride, pad)
        dx, (b, h, width, cin), (kh, kw, _, cout), (sy, sx) = self.empty(*x_shape), x_shape, w.shape, pair(stride)
        if self._few(cin, kw):
            (py, px), wo = pair(pad), dy.shape[2]
            products = self.conv_input_grad(dy, w.reshape(kh, 1, kw * cin, cout), (b, h, wo, kw * cin), (sy, 1), (py, 0))
            self._each("few_channels.cu", "sum_strided", dx.size, products, bias, activation_number(activation), dx,
                       dx.size, width, wo, cin, kw, sx, px)
            return dx
        pixels, phases, taps = b * h * width, 1, kh * kw
        if self.tile["BY_PHASE"]:
            pixels, phases, taps = b * cdiv(h, sy) * cdiv(width, sx), sy * sx, cdiv(kh, sy) * cdiv(kw, sx)
        return self._correlate("conv_input_grad", dy, w, bias, activation, dx, phases, pixels, taps,
                               sizes(x_shape, dy.shape, w.shape, stride, pad))

    def conv_weight_grad(self, x, dy, w_shape, stride=1, pad=0, out=None):
        check_dy("conv_weight_grad", dy, x.shape, w_shape, stride, pad)
        dw, (kh, kw, cin, cout) = self.empty(*w_shape) if out is None else out, w_shape
        if self._few(cout, kw):
            (sy, sx), (py, px), (b, ho, wo, _), width = pair(stride), pair(pad), dy.shape, x.shape[2]
            dy = self._values(dy)
            dproducts = self.empty(b, ho, width, self._whole_vectors(kw * cout), dtype=self.operand_type)
            pixels, block = b * ho * width, (WARP, THREADS // WARP)
            self.device.launch("few_channels.cu", "sum_shifted_grad", cdiv(pixels, block[1]), block, dy, dproducts, pixels,
                               width, wo, cout, dy.shape[-1], dproducts.shape[-1], kw, sx, px)
            dproducts = Operand(dproducts, (b, ho, width, kw * cout)) if self.takes_operands else dproducts
            wide = self.conv_weight_grad(x, dproducts, (kh, 1, cin, kw * cout), (sy, 1), (py, 0))
            return self._swap_axes(wide.reshape(kh, cin, kw, cout), dw)
        size, x, dy = sizes(x.shape, dy.shape, w_shape, stride, pad), self._values(x), self._values(dy)
        narrow, tile_m, tile_n = self._tile(cout)
        tiles, pixels = (cdiv(kh * kw * x.shape[-1], tile_m), cdiv(cout, tile_n)), dy.size // dy.shape[-1]
        slice_ = cdiv(pixels, self._slices(tiles[0] * tiles[1], pixels // SHORTEST_SLICE, cdiv(pixels, LONGEST_SUM)))
        slices = cdiv(pixels, slice_)
        partial = self.empty(slices, *w_shape) if slices > 1 else dw
        extra = (cout, cin, slice_, narrow) if self.takes_operands else (slice_,)
        self._launch_conv("conv_weight_grad", (*tiles, slices), x, dy, partial, *extra, *filled(size, x.shape[-1], dy.shape[-1]))
        if slices > 1:
            self._sum_slices(partial, dw)
        return dw

    def _correlate(self, kernel, x, w, bias, activation, y, phases, rows, taps, size):
        """conv or conv_input_grad into y: `rows` pixels and at most `taps` taps in each of the phases."""
        columns, number = y.shape[-1], activation_number(activation)
        narrow, tile_m, tile_n = self._tile(columns)
        tiles = cdiv(rows, tile_m), cdiv(columns, tile_n)
        if not self.takes_operands:
            self._launch_conv(kernel, (*tiles, phases), x, w, bias, number, y, *size)
            return y
        x, w = self._values(x), self._prepare(w, fill_rows=True)
        # Few tiles with a long sum: several blocks share the sum of a tile.
        stages = cdiv(taps * x.shape[-1], 64 // self.operand_type.itemsize)
        slice_ = cdiv(stages, self._slices(tiles[0] * tiles[1] * phases, stages // 16))
        slices = cdiv(stages, slice_)
        fused = slices == 1 and activation in SLOPES
        out = y if fused else self.empty(slices, *y.shape)
        epilogue = (bias, SLOPES[activation]) if fused else (None, 1)
        self._launch_conv(kernel, (*tiles, slices * phases), x, w, *epilogue, out, columns, slice_, narrow,
                          *filled(size, *w.shape[1:]))
        if not fused:
            self._each("operands.cu", "sum_slices_activate", y.size, out, bias, number, y, slices, y.size, columns)
        return y

    def _slices(self, tiles, most, least=1):
        """How many blocks should share the sum of a tile: so many that the card is full until the end, or nearly.

        Adding up is taken to cost 3 % a slice.
        """
        return min(range(least, max(least, most) + 1), key=lambda n: cdiv(tiles * n, self.at_a_time) / n * (1 + 0.03 * n))

    def _launch_conv(self, kernel, grid, *arguments):
        self.device.launch(self.conv_file, kernel, grid, self.tile["THREADS"], *arguments, shared=self.tile.get("SHARED_BYTES", 0))

    def _tile(self, columns):
        """(whether it is the narrow one, rows, columns) of the tile for so many columns."""
        padded = lambda tile: cdiv(columns, tile) * tile
        narrow = "NARROW_TILE_N" in self.tile and padded(self.tile["NARROW_TILE_N"]) < padded(self.tile["TILE_N"])
        return int(narrow), *(self.tile[("NARROW_" if narrow else "") + name] for name in ("TILE_M", "TILE_N"))

    def _few(self, columns, kw):
        """Whether the taps of a row should stand side by side, see few_channels.cu."""
        fitting = self.takes_operands or self.operand_type == self.dtype  # sum_shifted_grad moves operands
        return kw > 1 and columns <= self.few_channels and self.tile["TILE_N"] >= 64 and fitting

    def _swap_axes(self, x, out=None):
        """(n, a, b, c) -> (n, b, a, c)"""
        n, a, b, c = x.shape
        y = self.empty(n, b, a, c) if out is None else out
        self._each("few_channels.cu", "swap_axes", x.size, x, y, x.size, a, b, c)
        return y

    # Step 5 takes operands: numbers rounded for tensor cores, their channels filled up to whole vectors of 16 bytes.
    def operand(self, x):
        if not self.takes_operands or isinstance(x, Operand):
            return x
        return Operand(self._prepare(x), x.shape)

    def _values(self, x):
        return self.operand(x).values if self.takes_operands else x

    def _whole_vectors(self, channels):
        vector = 16 // self.operand_type.itemsize if self.takes_operands else 1
        return cdiv(channels, vector) * vector

    def _prepare(self, x, fill_rows=False):
        """x (..., rows, C) as an operand; the rows, too, filled up to a multiple of vectors if asked for: Cin of weights."""
        vector, channels, rows = 16 // self.operand_type.itemsize, x.shape[-1], x.shape[-2] if fill_rows else x.size // x.shape[-1]
        y = self.empty(x.size // (rows * channels), self._whole_vectors(rows) if fill_rows else rows, self._whole_vectors(channels),
                       dtype=self.operand_type)
        self._each("operands.cu", "prepare", y.size // vector, x, y, y.size // vector, rows, channels, *y.shape[1:])
        return y

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


def filled(size, cin, cout):
    """The same with other numbers of channels: those of operands, filled up."""
    return *size[:3], cin, *size[4:6], cout, *size[7:]
