"""Memory: many arrays in one flat buffer; an arena whose buffers are used again within a step."""
import math
import weakref

import numpy as np

from kernels.contract import Arena

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


class Lease:
    """What an array in a buffer keeps alive, so that the end of both is noticed at once."""


class ReusingArena(Arena):
    """An Arena in which a buffer serves again as soon as nothing refers to the array in it.

    The first time, each request takes the smallest free buffer that is large enough. Later times
    repeat these choices, whatever still refers to the arrays: a recording, for instance, holds all
    of them. A device computes launches in order, so an array can be overwritten as soon as the last
    launch that reads it has been issued.
    """
    def __init__(self, device):
        """device: has allocate(bytes), and view(buffer, bytes, lease)."""
        super().__init__(device.allocate)
        self.device = device
        self.choices = []  # (buffer, bytes) of each request
        self.known = 0     # how many of them the last time made: this time repeats them
        self.free = []     # buffers that nothing refers to

    def __enter__(self):
        super().__enter__()
        self.known, self.free = len(self.choices), []

    def empty(self, shape, dtype):
        if self.next is None:
            return super().empty(shape, dtype)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        lease = None
        if self.next < self.known and self.choices[self.next][1] != size:
            self._forget()
        if self.next >= self.known:
            buffer = self._choose(size)
            self.choices[self.next:] = [(buffer, size)]
            lease = Lease()
            weakref.finalize(lease, self.free.append, buffer)
        buffer, _ = self.choices[self.next]
        self.next += 1
        return self.device.view(buffer, size, lease).view(dtype).reshape(shape)

    def _forget(self):
        """Other requests than last time: from here on new buffers, since any old one may be in use.

        Old ones are let go; those that a recording needs live on with its arrays.
        """
        del self.choices[self.next:]
        kept = {id(buffer) for buffer, _ in self.choices}
        self.buffers = [buffer for buffer in self.buffers if id(buffer) in kept]
        self.known, self.free = 0, []

    def _choose(self, size):
        fitting = [i for i, buffer in enumerate(self.free) if size <= len(buffer)]
        if not fitting:
            self.buffers.append(self.allocate(size))
            return self.buffers[-1]
        return self.free.pop(min(fitting, key=lambda i: len(self.free[i])))
