"""The pure functions of numpy_ops.py as a backend: slow, and the easiest to follow and to change.

    ops = kernels.load("plain")
    ops = PlainOps(np.float64, {"softmax": my_softmax})   # with a function of your own
"""
import functools
import inspect

import numpy as np

from kernels import numpy_ops
from kernels.contract import OPERATIONS, Arena


def land(result, out):
    """The result, copied to where `out` says; None in `out`: it may stay where it is."""
    if isinstance(result, tuple):
        return tuple(map(land, result, out or (None,) * len(result)))
    if out is None:
        return result
    if out is not result:
        out[...] = result
    return out


def method(name, operation):
    """`operation` as a method whose arguments are those of the pure function `name`, and `out`."""
    function = getattr(numpy_ops, name)
    self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    out = inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None)
    functools.update_wrapper(operation, function)
    operation.__signature__ = inspect.Signature(
        [self, *inspect.signature(function).parameters.values(), out])
    return operation


class PlainOps:
    """dtype: float32 or float64. replace: {name: function} to use instead of numpy_ops's own."""
    name = "plain"
    arithmetic = "NumPy's pure functions"  # a checkpoint holds this

    def __init__(self, dtype=np.float32, replace=()):
        unknown = set(replace) - set(OPERATIONS)
        if unknown:
            raise ValueError(f"no operation {', '.join(sorted(unknown))}; "
                             f"expected some of {', '.join(OPERATIONS)}")
        self.dtype = np.dtype(dtype)
        self.replace = dict(replace)
        self.arena = Arena(lambda size: np.empty(size, np.uint8))

    def __str__(self):
        return "one CPU core"

    def empty(self, *shape, dtype=None):
        """An array from the arena, not initialized."""
        return self.arena.empty(shape, dtype or self.dtype)

    def asarray(self, array, dtype=None):
        """A copy on the device, in the backend's dtype or the given one. Here: a NumPy array."""
        return np.array(array, dtype or self.dtype, order="C")

    def asnumpy(self, array):
        """A copy on the host."""
        return array.copy()

    def write(self, array, values):
        """Copies values from the host into an array on the device."""
        array[...] = values

    def record(self, run):
        """A function that repeats the operations of run() on the same arrays; here run itself.

        On a GPU it is a CUDA graph, and nothing is computed while it is recorded.
        """
        return run

    def rounded(self, x):
        """x rounded for tensor cores, once for several convolutions; here x itself."""
        return x

    def unrounded(self):
        """The same operations without rounding for tensor cores: for metrics."""
        return self


def pure(name):
    def operation(self, *args, out=None, **kwargs):
        function = self.replace.get(name) or getattr(numpy_ops, name)
        return land(function(*args, **kwargs), out)
    return method(name, operation)


for name in OPERATIONS:
    setattr(PlainOps, name, pure(name))
