"""Many arrays in one flat buffer, so that one launch processes them all."""
import math

import numpy as np

ALIGNMENT = 256  # bytes; every array starts at a multiple of it, as if allocated by itself


def places(shapes, dtype):
    """{name: its offset} and the buffer's length, both in elements. shapes: {name: shape}."""
    multiple = ALIGNMENT // np.dtype(dtype).itemsize
    starts, end = {}, 0
    for name, shape in shapes.items():
        starts[name] = end
        end += -(-math.prod(shape) // multiple) * multiple
    return starts, end


def views(flat, shapes):
    """{name: its part of the flat buffer, in its shape}."""
    starts, _ = places(shapes, flat.dtype)
    return {name: flat[starts[name]:starts[name] + math.prod(shape)].reshape(shape)
            for name, shape in shapes.items()}
