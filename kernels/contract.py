"""What every backend agrees on: the operations, their shapes, and the words for them.

Arrays are NHWC and C-contiguous, all of one dtype, float32 or float64; label maps are uint8.
Convolution weights are (kh, kw, Cin, Cout). An operation is a function of arrays. Its gradient is
another function, and whatever that needs is an argument: nothing is remembered. Both return arrays,
several as a tuple: new ones, or an argument that needs no change. `out` has the form of the result,
an array or a tuple, and says where results must be written; None in it means anywhere. A result may
be written over an input of its own kind: this is how Adam updates the parameters in place. Shapes
that do not fit raise ValueError.

The backends, each a class with all operations as methods (`kernels.load` chooses one):

    plain     numpy_ops.py    pure functions, written as their formulas: read these first
    numpy     numpy_engine.py the same, fast, on all cores of a CPU
    cuda      cuda_ops.py     the same as launches of CUDA kernels, on a GPU
    emulator  cuda_ops.py     the same launches on a CPU, checked more strictly than a GPU checks

The words, each with one meaning:

    B, H, W, C      maps in a batch, height, width, channels; K is the number of classes
    map             one (H, W, C) array of a batch: a label map, or a map of features
    kernel          of a convolution: its (kh, kw) weights. A *CUDA kernel* is a GPU function
    tap             one position (ky, kx) of a convolution kernel
    worker, chunk   a CPU thread; the maps of a batch that one worker computes at once
    grid, block, warp, lane    CUDA's: all blocks of a launch; one of them; 32 of its threads; one
    operand         the number type that a CUDA convolution multiplies: float32, TF32, or bf16
    rounded array   an array converted to operands, once for several convolutions
    arena           the memory of a training step, handed out in the same order in every step
"""
import numpy as np

# Every operation, and the operations that compute its gradients: () if nothing needs them.
OPERATIONS = {
    "conv": ("conv_input_grad", "conv_weight_grad"),
    "conv_input_grad": ("conv", "conv_weight_grad"),  # as an operation: the transposed convolution
    "conv_weight_grad": (),
    "bias_activation": ("bias_activation_grad",),
    "bias_activation_grad": (),
    "batch_norm": ("batch_norm_grad",),
    "batch_norm_inference": (),
    "batch_norm_grad": (),
    "softmax": ("softmax_grad",),
    "softmax_grad": (),
    "bce_with_logits": ("bce_with_logits",),  # a loss and its gradient in one call
    "softmax_cross_entropy": ("softmax_cross_entropy",),
    "feature_matching": ("feature_matching",),
    "moment_matching": ("moment_matching",),
    "adam": (),
    "gather": (),
    "take_row": (),
    "add": (),
    "concat": ("split",),
    "split": (),
    "max_pool": (),
    "average_pool": (),
    "resize": (),
}
ACTIVATIONS = (None, "relu", "leaky_relu", "tanh")  # in the order of common.cuh
LEAKY_SLOPE = 0.2  # of LeakyReLU, DCGAN's value
READINGS = ("mean", "unbiased", "paired")  # three ways to read the paper's feature matching
SMALL_VARIANCE = 1e-10  # keeps moment matching from dividing by 0: added to each variance,
SMALL_DIVISOR = 1e-6    # and to the real maps' variance that its gaps are divided by


class Arena:
    """Memory that comes back at the same addresses each time its context is entered.

    The i-th request inside gets the i-th buffer, so a training step allocates memory only the first
    time. An array from inside is valid until the context is entered again. Outside, `empty`
    allocates new memory.
    """

    def __init__(self, allocate):
        """allocate: a function from a number of bytes to a uint8 array."""
        self.allocate = allocate
        self.buffers = []
        self.next = None  # index of the next buffer; None outside the context

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
        if len(self.buffers[self.next]) < size:  # other requests than last time
            self.buffers[self.next] = self.allocate(size)
        buffer = self.buffers[self.next]
        self.next += 1
        return buffer[:size].view(dtype).reshape(shape)


def pair(value):
    """2 -> (2, 2); (2, 1) -> (2, 1): a stride or padding is an int, or (y, x)."""
    return (value, value) if np.isscalar(value) else tuple(value)


def conv_shape(x_shape, w_shape, stride, pad):
    """The shape (B, Ho, Wo, Cout) of conv's output, Ho = (H + 2 py - kh) // sy + 1.

    x_shape is (B, H, W, Cin) and w_shape (kh, kw, Cin, Cout). Raises ValueError.
    """
    b, h, w, cin = x_shape
    kh, kw, w_cin, cout = w_shape
    (sy, sx), (py, px) = pair(stride), pair(pad)
    if cin != w_cin:
        raise ValueError(f"conv: the input has {cin} channels, the weights expect {w_cin}")
    if h + 2 * py < kh or w + 2 * px < kw:
        raise ValueError(f"conv: a {kh}x{kw} kernel does not fit into {h}x{w} "
                         f"padded by {(py, px)}")
    return b, (h + 2 * py - kh) // sy + 1, (w + 2 * px - kw) // sx + 1, cout


def check_dy(name, dy, x_shape, w_shape, stride, pad):
    """Raises ValueError unless dy has the shape of conv's output."""
    expected = conv_shape(x_shape, w_shape, stride, pad)
    if tuple(dy.shape) != expected:
        raise ValueError(f"{name}: dy is {tuple(dy.shape)}, but an input of {tuple(x_shape)} "
                         f"gives {expected}")


def pool_shape(x_shape, size, stride, pad):
    """The shape (B, Ho, Wo, C) of a pooled map, Ho = (H + 2 pad - size) // stride + 1.

    Raises ValueError.
    """
    b, h, w, c = x_shape
    if min(h, w) + 2 * pad < size or 2 * pad > size:
        raise ValueError(f"pooling {h}x{w}: a window of {size} does not fit, "
                         f"or covers nothing but padding of {pad}")
    return b, (h + 2 * pad - size) // stride + 1, (w + 2 * pad - size) // stride + 1, c


def resize_weights(size, out, half_pixel):
    """Bilinear resizing along one axis: output pixel i lies between pixels low[i] and low[i] + 1.

    Returns low and the weight of pixel low[i] + 1, each (out,). With half_pixel, a pixel is a
    square and its centre is mapped (PyTorch); without, its corner is (TensorFlow 1).
    """
    at = np.arange(out) * size / out
    if half_pixel:
        at = np.maximum((np.arange(out) + 0.5) * size / out - 0.5, 0)
    low = np.minimum(at.astype(np.int32), size - 1)
    return low, at - low


def activation_number(activation):
    """The index of an activation in ACTIVATIONS. Raises ValueError."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r}: "
                         "expected None, 'relu', 'leaky_relu' or 'tanh'")
    return ACTIVATIONS.index(activation)


def check_reading(reading):
    """Raises ValueError unless `reading` is one of READINGS."""
    if reading not in READINGS:
        raise ValueError(f"feature matching {reading!r}: expected 'mean', 'unbiased' or 'paired'")
