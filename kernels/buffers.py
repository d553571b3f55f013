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
        self.choices = []  # (index of a buffer, bytes) of each request
        self.known = 0     # how many of them the last time made: this time repeats them
        self.free = []     # indices of buffers

    def __enter__(self):
        super().__enter__()
        self.known = len(self.choices)
        self.free = [] if self.known else list(range(len(self.buffers)))

    def empty(self, shape, dtype):
        if self.next is None:
            return super().empty(shape, dtype)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        lease = None
        if self.next < self.known and self.choices[self.next][1] != size:
            self._forget()
        if self.next >= self.known:
            index = self._choose(size)
            self.choices[self.next:] = [(index, size)]
            lease = Lease()
            weakref.finalize(lease, self.free.append, index)
        index, _ = self.choices[self.next]
        self.next += 1
        return self.device.view(self.buffers[index], size, lease).view(dtype).reshape(shape)

    def _forget(self):
        """Other requests than last time: from here on new buffers, since any old one may be in use.
        """
        del self.choices[self.next:]
        self.known, self.free = 0, []

    def _choose(self, size):
        fitting = [i for i in self.free if size <= len(self.buffers[i])]
        if not fitting:
            self.buffers.append(self.allocate(size))
            return len(self.buffers) - 1
        index = min(fitting, key=lambda i: len(self.buffers[i]))
        self.free.remove(index)
        return index
