"""The emulated device: the .cu files run on the CPU.

emulator_library.py compiles them, and ctypes calls their kernels. The interface is that of gpu.Gpu,
so cuda_ops.py does not know on which of the two it launches.
"""
import ctypes
import functools
import math
import mmap
import os
import random
import signal
import threading
import time

import numpy as np

from kernels.emulator_counts import Counts, counts_of, new_log
from kernels.emulator_library import DYNAMIC_SHARED, SHARED, emulator_library
from kernels.launch import (
    DYNAMIC_SHARED_LIMIT,
    FOLDER,
    SHARED_LIMIT,
    TYPES,
    KernelError,
    LaunchError,
    check,
    not_recording,
    read,
    three,
)
from kernels.workers import available_cores, worker_pool

CELL_BYTES = 48  # of a Cell in emulator_races.h
TICK = 0.1  # seconds between two looks at a kernel that runs


class DeviceArray(np.ndarray):
    """An array of the emulated device. As on a GPU, only kernels compute with it."""

    def _refuse(self, *args, **kwargs):
        raise TypeError("an array on the emulated device: only ops computes with it; "
                        "ops.asnumpy(array) copies it to the host")
    __array_ufunc__ = __array_function__ = __setitem__ = _refuse


# ------------------------------------------------------------- structures shared with emulator.h
class Triple(ctypes.Structure):
    _fields_ = [(axis, ctypes.c_uint) for axis in "xyz"]

    def __str__(self):
        return f"({self.x}, {self.y}, {self.z})"


class Argument(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("bytes", ctypes.c_uint64), ("number", ctypes.c_int64),
                ("cells", ctypes.c_void_p)]


class Error(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("kind", "argument", "line", "other_line")),
        ("index", ctypes.c_int64),
        *((name, Triple) for name in ("block", "thread", "other_thread")),
        ("other_block", ctypes.c_int64),
        ("accesses", ctypes.c_int32),
    ]


class Launch(ctypes.Structure):
    _fields_ = [
        ("grid", Triple),
        ("block", Triple),
        ("dynamic_shared", ctypes.c_uint64),
        ("shared_limit", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
        ("next_block", ctypes.c_void_p),
        ("stop", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("scratch", ctypes.c_void_p),
        ("error", ctypes.POINTER(Error)),
        ("log", ctypes.c_void_p),
        ("check", ctypes.c_int64),
    ]


KINDS = ["", "OUT_OF_BOUNDS", "MISALIGNED", "DIVERGENT", "WARP", "SHARED_FULL", "ARRAY_INDEX",
         "ARRAY_MISALIGNED", "DIVISION", "COPIES", "WILD", "STACK", "TRAP", "ASSERTION", "STOPPED",
         "RACE"]


# -------------------------------------------------------------------------------------- workers
_worker = threading.local()  # .scratch: memory for a block's state, shared memory and stacks


def scratch_memory(size):
    """The address of this thread's scratch memory, zeros at first, a multiple of a page."""
    if not hasattr(_worker, "scratch"):
        _worker.scratch = np.frombuffer(mmap.mmap(-1, size), np.uint8)
    return _worker.scratch.ctypes.data


class Watch:
    """A launch that runs: its workers, and how far it is."""
    def __init__(self, workers, seconds):
        self.threads = [None] * workers       # their identifiers, None where none runs
        self.next_block = ctypes.c_int64(0)   # the workers share these two
        self.stop = ctypes.c_int32(0)
        self.seconds = seconds
        self.seen, self.since = None, 0

    def look(self, now):
        """Stop the launch if no block has begun for too long. Ctrl-C stops it at once."""
        if self.next_block.value != self.seen:
            self.seen, self.since = self.next_block.value, now
        if now - self.since > self.seconds:
            self.stop.value = 1
        if self.stop.value:  # a worker looks at that between blocks; the signal interrupts it
            for thread in filter(None, self.threads):
                signal.pthread_kill(thread, signal.SIGURG)


_watches = {}  # of all launches that run


def watch_forever():
    while True:
        time.sleep(TICK)
        for watch in list(_watches.values()):
            watch.look(time.monotonic())


@functools.cache
def start_watching():
    if hasattr(signal, "pthread_kill"):
        threading.Thread(target=watch_forever, daemon=True).start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=start_watching.cache_clear)


# --------------------------------------------------------------------------------------- device
class Emulator:
    name = "emulated device"
    multiprocessors, shared_memory = 132, 228 * 1024  # an H100's or H200's: work is cut as there

    def __init__(self, dtype=np.float32, precision="fp32", seed=0, workers=None, seconds=30,
                 check_races=None, count=False):
        """seed: for the order in which CUDA threads run. workers: the number of CPU threads.

        seconds: a launch is stopped if none of its blocks ends for so long. check_races: whether
        to look for races between threads, which takes several times as long; None: in kernels of
        your own, not in those of this folder (nor on Windows). count: whether to count what
        kernels read and write, into `counts`; see emulator_counts.py. Raises DeviceError.
        """
        self.count, self.counts, self.accesses = count, {}, {}
        self.seconds, self.check_races = seconds, check_races
        self.dtype, self.precision = np.dtype(dtype), precision
        self.random = random.Random(seed)
        self.recording = None  # while recording: functions to call
        self.workers = workers or min(8, available_cores())
        # If the compiler or the cache does not work, this raises the error.
        emulator_library(read("reductions.cu"), self.dtype, precision)

    def __str__(self):
        return f"{self.workers} CPU core{'s' * (self.workers > 1)}, emulated"

    def allocate(self, size):
        """An array of `size` bytes at a multiple of 256, as in CUDA, filled with NaN."""
        not_recording(self, "an allocation")
        buffer = np.full(size + 256, 255, np.uint8)
        start = -buffer.ctypes.data % 256
        return buffer[start:start + size].view(DeviceArray)

    def view(self, buffer, size, lease):
        """The first bytes of a buffer, as an array that keeps `lease` alive."""
        a = buffer[:size].view(np.ndarray)
        if lease is None:
            return a.view(DeviceArray)
        lease.__array_interface__ = a.__array_interface__
        lease.buffer = buffer
        return np.asarray(lease).view(DeviceArray)

    def spoil(self, a):
        """Fills an array with NaN before it is written, to reveal what a kernel does not write."""
        if self.recording is not None:
            return self.recording.append(functools.partial(self.spoil, a))
        a.reshape(-1).view(np.uint8).fill(255)

    def holds(self, a):
        return isinstance(a, DeviceArray)

    def upload(self, array):
        """A copy of a host array on the device."""
        a = self.allocate(array.nbytes).view(array.dtype).reshape(array.shape)
        self.write(a, array)
        return a

    def write(self, a, array):
        """Copies a host array into an array on the device."""
        not_recording(self, "an upload")
        a.view(np.ndarray)[...] = array

    def download(self, a):
        """A copy of a device array on the host."""
        not_recording(self, "a download")
        return np.array(a.view(np.ndarray))

    def launch(self, file, kernel, grid, block, *arguments, shared=0):
        """Runs a kernel of a .cu file. shared: bytes of dynamic shared memory per block.

        Raises LaunchError or KernelError.
        """
        grid, block, source = three(grid), three(block), read(file)
        arguments = check(source, kernel, grid, block, arguments, self)
        if not 0 <= shared <= DYNAMIC_SHARED_LIMIT:
            raise LaunchError(f"{kernel}: {shared} bytes of dynamic shared memory; "
                              f"a block gets {DYNAMIC_SHARED_LIMIT}")
        races = self.check_races
        if races is None:
            races = FOLDER not in (FOLDER / file).parents and os.name != "nt"
        launch = functools.partial(self._run, source, kernel, grid, block, arguments, shared, races)
        if self.recording is not None:
            self.recording.append(launch)
        else:
            launch()

    def record(self, run):
        """A function that repeats all launches of run(). Nothing runs while run() is recorded."""
        not_recording(self, "a recording")
        self.recording = recording = []
        try:
            run()
        finally:
            self.recording = None

        def replay():
            for action in recording:
                action()
        return replay

    def _run(self, source, kernel, grid, block, arguments, shared, races):
        watched = races or self.count
        library = emulator_library(source, self.dtype, self.precision, watched)
        emulate = getattr(library, "emulate_" + kernel)
        scratch_bytes = library.emulator_scratch_bytes()
        # The table holds addresses only: `alive` keeps what they point to.
        table, alive = argument_table(arguments, watched)
        log, records = new_log() if self.count else (None, None)
        seed = self.random.getrandbits(63)
        watch = Watch(min(1 if watched else self.workers, math.prod(grid)), self.seconds)

        def work(number):
            error = Error()
            launch = Launch(Triple(*grid), Triple(*block), shared, limit(shared), seed,
                            ctypes.addressof(watch.next_block), ctypes.addressof(watch.stop),
                            ctypes.addressof(table), len(table), scratch_memory(scratch_bytes),
                            ctypes.pointer(error), log and ctypes.addressof(log), races)
            watch.threads[number] = threading.get_ident()
            emulate(ctypes.byref(launch))
            watch.threads[number] = None
            return error

        start_watching()
        _watches[id(watch)] = watch
        try:
            errors = worker_pool(self.workers - 1).run(work, len(watch.threads))
        finally:
            del _watches[id(watch)]
        # A kernel that is stopped in one thread may have waited for one that failed in another.
        for error in sorted(errors, key=lambda error: KINDS[error.kind] == "STOPPED"):
            if error.kind:
                what = message(error, source, kernel, grid, arguments, shared, self.seconds)
                raise KernelError(f"{source.file}: {kernel}: {what}, "
                                  f"by thread {error.thread} of block {error.block}")
        if self.count:
            self.accesses[kernel] = records[:log.used].copy()
            self.counts.setdefault(kernel, Counts()).add(counts_of(log, self.accesses[kernel]))


def argument_table(arguments, watched):
    """(the arguments as an array of Argument, the arrays that it needs)."""
    table, alive, cells = (Argument * len(arguments))(), [], {}
    for i, a in enumerate(arguments):
        if isinstance(a, np.generic):
            a = np.array(a)
            alive.append(a)
        table[i] = (0, 0, i) if a is None else (a.ctypes.data, a.nbytes, i)
        if watched and isinstance(a, DeviceArray):  # an array that is passed twice has one of them
            size = CELL_BYTES * (a.nbytes // 4 + 1)
            cells.setdefault(a.ctypes.data, np.zeros(size, np.uint8))
            table[i].cells = cells[a.ctypes.data].ctypes.data
            alive.append(cells[a.ctypes.data])
    return table, alive


def limit(shared):
    """Bytes of shared memory that a block may use if the launch requests `shared` of them."""
    return SHARED_LIMIT if shared <= SHARED_LIMIT else DYNAMIC_SHARED_LIMIT


def message(e, source, name, grid, arguments, shared, seconds):
    """An Error of emulator.h in words. seconds: after which a launch is stopped."""
    kernel = source.kernels[name]
    state = f"waits at line {e.other_line}" if e.other_line else "has returned"
    other = f"thread {e.other_thread} {state}"
    of = f"dynamic shared memory ({shared} bytes)"
    if e.argument >= 0:
        size = getattr(arguments[e.argument], "size", 0)
        if KINDS[e.kind] in ("OUT_OF_BOUNDS", "MISALIGNED"):  # then the index is in bytes
            e.index //= getattr(arguments[e.argument], "itemsize", 1)
        of = f"argument {kernel.parameters[e.argument].name!r} ({size} elements)"
    in_line = f", in line {e.line}" if e.line else ""
    if KINDS[e.kind] == "RACE":
        return race(e, source, kernel, grid, arguments)
    return {
        "OUT_OF_BOUNDS": f"{of} accessed at index {e.index}",
        "MISALIGNED": f"a misaligned load from {of} at index {e.index}",
        "DIVERGENT": f"__syncthreads at line {e.line} is not reached by all threads: {other}",
        "WARP": f"a warp operation at line {e.line} is not reached by all lanes of its mask: "
                f"{other}",
        "SHARED_FULL": f"{e.index} bytes of shared memory, but a block gets {limit(shared)}",
        "ARRAY_INDEX": f"an array accessed at index {e.index} in line {e.line}",
        "ARRAY_MISALIGNED": f"a misaligned access in line {e.line}",
        "DIVISION": "an integer divided by zero, or the lowest one by -1" + in_line,
        "COPIES": f"more than {e.index} unfinished asynchronous copies in line {e.line}: "
                  "a wait is missing",
        "WILD": f"memory at address {e.index:#x} accessed, which belongs to no array",
        "STACK": "the stack is full: functions that call themselves too often, or large arrays",
        "TRAP": "__trap(), or code without an end that returns",
        "ASSERTION": f"an assertion fails in line {e.line}",
        "STOPPED": f"stopped, since no block ended for {seconds} seconds: a loop without an end, "
                   "or a wait for another thread, which runs only while this one is at a barrier",
    }[KINDS[e.kind]]


def race(e, source, kernel, grid, arguments):
    """The Error of a race in words."""
    block, rest = [], e.other_block
    for size in grid:
        block.append(rest % size)
        rest //= size
    other = f"thread {e.other_thread}"
    if block != [e.block.x, e.block.y, e.block.z]:
        other += f" of block {Triple(*block)}"
    what, size = "dynamic shared memory", 4
    if e.argument >= 0:
        what, size = f"argument {kernel.parameters[e.argument].name!r}", \
            arguments[e.argument].itemsize
    elif e.line >= 0:
        kind, name, _ = SHARED.findall(DYNAMIC_SHARED.sub("", source.text))[e.line]
        what, size = f"shared array {name!r}", np.dtype(TYPES.get(kind, "V4")).itemsize
    now, before = ("written" if e.accesses & bit else "read" for bit in (1, 2))
    return (f"a race: {what} is {now} at index {e.index // size}, which "
            f"{other} has {before}, and nothing orders the two")
