"""Convolutions as launches of CUDA kernels: how the work is cut into tiles, slices and phases.

The kernels in conv/ compute; this file sets their grids and scratch memory. The sizes of tiles are
constants in the kernels' files, read from their text.
"""
from dataclasses import dataclass
from typing import NamedTuple

from kernels import launch
from kernels.contract import LEAKY_SLOPE, activation_number, check_dy, conv_shape, pair

WARP = 32              # threads of a warp
THREADS = 256          # threads of a block, in all kernels but those of conv/
OTHER_SHARED = 3584    # bytes of shared memory that a block takes besides the dynamic ones
SHORTEST_SLICE = 256   # pixels, at least, in a slice of conv_weight_grad's sum
LONGEST_SUM = 16384    # terms that one float32 accumulator adds up one by one
# The fastest file of conv/ for each precision.
CONV_STEPS = {"fp32": "5_loads_ahead", "tf32": "11_running_indices", "bf16": "11_running_indices"}
# The factor by which an activation multiplies negative numbers.
SLOPES = {None: 1, "relu": 0, "leaky_relu": LEAKY_SLOPE}


@dataclass(frozen=True)
class Rounded:
    """An array (..., C), rounded for tensor cores; convolutions take it instead of the array."""
    values: object  # of operand_type, the channels padded with zeros
    shape: tuple    # without the padding


class CudaConv:
    """The three convolutions. Needs the launches and memory of CudaOps."""
    few_channels = 24  # up to this many output channels, few_channels.cu fills tiles better

    def _choose_kernels(self, device, conv_step):
        self.conv_file = f"conv/{conv_step or CONV_STEPS[device.precision]}.cu"
        self.constants = launch.read(self.conv_file).constants
        self.takes_operands = launch.takes_operands(self.conv_file)
        self.operand_type = launch.operand_type(device)

    # ------------------------------------------------------------------------ the three functions
    def conv(self, x, w, stride=1, pad=0, bias=None, activation=None, *, out=None):
        shape = conv_shape(x.shape, w.shape, stride, pad)
        kh, kw, cin, cout = w.shape
        y = self.empty(*shape) if out is None else out
        if self._few(cout, kw):
            (sy, sx), (py, px) = pair(stride), pair(pad)
            side_by_side = self._swap_axes(w).reshape(kh, 1, cin, kw * cout)
            products = self.conv(x, side_by_side, (sy, 1), (py, 0))  # (B, Ho, W, kw Cout)
            self._each("few_channels.cu", "sum_shifted", y.size,
                       products, bias, activation_number(activation), y, y.size,
                       x.shape[2], *shape[2:], kw, sx, px)
            return y
        return self._correlate("conv", x, w, bias, activation, y, 1, y.size // cout, kh * kw,
                               sizes(x.shape, shape, w.shape, stride, pad))

    def conv_input_grad(self, dy, w, x_shape, stride=1, pad=0, bias=None, activation=None, *,
                        out=None):
        check_dy("conv_input_grad", dy, x_shape, w.shape, stride, pad)
        dx = self.empty(*x_shape) if out is None else out
        b, h, width, cin = x_shape
        kh, kw, _, cout = w.shape
        sy, sx = pair(stride)
        if self._few(cin, kw):
            py, px = pair(pad)
            wo = dy.shape[2]
            products = self.conv_input_grad(dy, w.reshape(kh, 1, kw * cin, cout),
                                            (b, h, wo, kw * cin), (sy, 1), (py, 0))
            self._each("few_channels.cu", "sum_strided", dx.size,
                       products, bias, activation_number(activation), dx, dx.size,
                       width, wo, cin, kw, sx, px)
            return dx
        pixels, phases, taps = b * h * width, 1, kh * kw
        # Phase by phase: pixels that the same taps reach
        if self._constants("conv_input_grad")["BY_PHASE"]:
            pixels = b * cdiv(h, sy) * cdiv(width, sx)
            phases = sy * sx
            taps = cdiv(kh, sy) * cdiv(kw, sx)
        return self._correlate("conv_input_grad", dy, w, bias, activation, dx, phases, pixels,
                               taps, sizes(x_shape, dy.shape, w.shape, stride, pad))

    def conv_weight_grad(self, x, dy, w_shape, stride=1, pad=0, *, out=None):
        check_dy("conv_weight_grad", dy, x.shape, w_shape, stride, pad)
        dw = self.empty(*w_shape) if out is None else out
        kh, kw, cin, cout = w_shape
        if self._few(cout, kw):
            return self._few_weight_grad(x, dy, dw, stride, pad)
        size = sizes(x.shape, dy.shape, w_shape, stride, pad)
        x, dy = self._values(x), self._values(dy)
        kernel = "conv_weight_grad"
        narrow, tile_m, tile_n = self._tile(kernel, cout)
        tiles = cdiv(kh * kw * x.shape[-1], tile_m), cdiv(cout, tile_n)
        pixels = dy.size // dy.shape[-1]
        slice_ = cdiv(pixels, self._slices(kernel, tiles[0] * tiles[1], pixels // SHORTEST_SLICE,
                                           cdiv(pixels, LONGEST_SUM)))
        slices = cdiv(pixels, slice_)
        partial = self.empty(slices, *w_shape) if slices > 1 else dw
        extra = self._wanted(kernel, columns=cout, channels=cin, slice=slice_, narrow=narrow)
        self._launch_conv(kernel, (*tiles, slices), x, dy, partial, *extra,
                          size._replace(Cin=x.shape[-1], Cout=dy.shape[-1]))
        if slices > 1:
            self._sum_slices(partial, dw)
        return dw

    def _few_weight_grad(self, x, dy, dw, stride, pad):
        """With the taps of a row side by side, see few_channels.cu."""
        kh, kw, cin, cout = dw.shape
        (sy, sx), (py, px) = pair(stride), pair(pad)
        (b, ho, wo, _), width = dy.shape, x.shape[2]
        dy = self._values(dy)
        channels = kw * cout
        dproducts = self.empty(b, ho, width, self._whole_vectors(channels),
                               dtype=self.operand_type)
        pixels = b * ho * width
        block = WARP, THREADS // WARP
        self._launch("few_channels.cu", "sum_shifted_grad", cdiv(pixels, block[1]), block,
                     dy, dproducts, pixels, width, wo, cout, dy.shape[-1], dproducts.shape[-1],
                     kw, sx, px)
        if self.takes_operands:
            dproducts = Rounded(dproducts, (b, ho, width, channels))
        wide = self.conv_weight_grad(x, dproducts, (kh, 1, cin, channels), (sy, 1), (py, 0))
        return self._swap_axes(wide.reshape(kh, cin, kw, cout), dw)

    def _correlate(self, kernel, x, w, bias, activation, y, phases, rows, taps, size):
        """conv or conv_input_grad into y: `rows` pixels and at most `taps` taps in each phase."""
        columns, number = y.shape[-1], activation_number(activation)
        narrow, tile_m, tile_n = self._tile(kernel, columns)
        tiles = cdiv(rows, tile_m), cdiv(columns, tile_n)
        if not self.takes_operands:
            self._launch_conv(kernel, (*tiles, phases), x, w, bias, number, y, size)
            return y
        x, w = self._values(x), self._prepare(w, fill_rows=True)
        stages = cdiv(taps * x.shape[-1], 64 // self.operand_type.itemsize)
        most = stages // 16 if "slice" in self._parameters(kernel) else 1
        slice_ = cdiv(stages, self._slices(kernel, tiles[0] * tiles[1] * phases, most))
        slices = cdiv(stages, slice_)
        extra = self._wanted(kernel, columns=columns, slice=slice_, narrow=narrow)
        fused = slices == 1 and activation in SLOPES
        partial = y if fused else self.empty(slices, *y.shape)
        epilogue = (bias, SLOPES[activation]) if fused else (None, 1)
        self._launch_conv(kernel, (*tiles, slices * phases), x, w, *epilogue, partial,
                          *extra, size._replace(Cin=w.shape[1], Cout=w.shape[2]))
        if not fused:
            self._each("operands.cu", "sum_slices_activate", y.size,
                       partial, bias, number, y, slices, y.size, columns)
        return y

    # ------------------------------------------------------------------------------ tiles, slices
    def _constants(self, kernel):
        """{name: value} of the constants in the file that has a kernel."""
        if kernel in self.replaced:
            return launch.read(self.replaced[kernel]).constants
        return self.constants

    def _wanted(self, kernel, **values):
        """Those of the values that the step's kernel has a parameter for."""
        names = self._parameters(kernel)
        return [value for name, value in values.items() if name in names]

    def _parameters(self, kernel):
        """The names of the parameters of the step's kernel."""
        return [p.name for p in launch.read(self.conv_file).kernels[kernel].parameters]

    def _slices(self, kernel, tiles, most, least=1):
        """How many blocks should share the sum of a tile, so that the GPU is busy until the end.

        Each slice costs about 3 % for adding up.
        """
        constants, device = self._constants(kernel), self.device
        fitting = device.shared_memory // (constants.get("SHARED_BYTES", 0) + OTHER_SHARED)
        at_once = min(constants["BLOCKS"], fitting) * device.multiprocessors

        def time(n):
            return cdiv(tiles * n, at_once) / n * (1 + 0.03 * n)
        return min(range(least, max(least, most) + 1), key=time)

    def _launch_conv(self, kernel, grid, *arguments):
        constants = self._constants(kernel)
        self._launch(self.conv_file, kernel, grid, constants["THREADS"], *arguments,
                     shared=constants.get("SHARED_BYTES", 0))

    def _tile(self, kernel, columns):
        """The better tile for these columns: 1 if it is the narrow one, else 0; rows; columns."""
        constants = self._constants(kernel)

        def padded(width):
            return cdiv(columns, width) * width
        narrow = "NARROW_TILE_N" in constants \
            and padded(constants["NARROW_TILE_N"]) < padded(constants["TILE_N"])
        prefix = "NARROW_" if narrow else ""
        return int(narrow), constants[prefix + "TILE_M"], constants[prefix + "TILE_N"]

    def _few(self, columns, kw):
        """Whether the taps of a row should stand side by side, see few_channels.cu."""
        fitting = self.takes_operands or self.operand_type == self.dtype  # for sum_shifted_grad
        wide = self.constants["TILE_N"] >= 64
        return kw > 1 and columns <= self.few_channels and wide and fitting

    def _swap_axes(self, x, out=None):
        """(n, a, b, c) -> (n, b, a, c)"""
        n, a, b, c = x.shape
        y = self.empty(n, b, a, c) if out is None else out
        self._each("few_channels.cu", "swap_axes", x.size, x, y, x.size, a, b, c)
        return y

    # ---------------------------------------------------------------------------- rounded arrays
    # From step 6 on convolutions take operands: rounded numbers, padded to whole 16-byte vectors.
    def rounded(self, x):
        if not self.takes_operands or isinstance(x, Rounded):
            return x
        return Rounded(self._prepare(x), x.shape)

    def _values(self, x):
        return self.rounded(x).values if self.takes_operands else x

    def _vector(self):
        """The number of operands in 16 bytes."""
        return 16 // self.operand_type.itemsize if self.takes_operands else 1

    def _whole_vectors(self, channels):
        return cdiv(channels, self._vector()) * self._vector()

    def _prepare(self, x, fill_rows=False):
        """x (..., rows, C) as operands; fill_rows: rows are padded too, as the weights' Cin."""
        rows, channels = x.size // x.shape[-1], x.shape[-1]
        filled_rows = rows
        if fill_rows:
            rows = x.shape[-2]
            filled_rows = self._whole_vectors(rows)
        y = self.empty(x.size // (rows * channels), filled_rows, self._whole_vectors(channels),
                       dtype=self.operand_type)
        vectors = y.size // self._vector()
        self._each("operands.cu", "prepare", vectors,
                   x, y, vectors, rows, channels, *y.shape[1:])
        return y


def cdiv(a, b):
    """a / b, rounded up."""
    return -(-a // b)


class Conv(NamedTuple):
    """The sizes of a convolution, as in common.cuh: what every kernel in conv/ takes."""
    B: int
    H: int
    W: int
    Cin: int
    Ho: int
    Wo: int
    Cout: int
    kh: int
    kw: int
    sy: int
    sx: int
    py: int
    px: int


def sizes(x_shape, y_shape, w_shape, stride, pad):
    return Conv(*x_shape, *y_shape[1:], *w_shape[:2], *pair(stride), *pair(pad))
