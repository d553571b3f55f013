"""The emulated device: the .cu files compiled for the CPU with emulator.h in front, their kernels called through ctypes.

It has the interface of launch.Gpu, so cuda_ops.py does not know which of the two it launches on.
"""
import ctypes
import functools
import importlib.util
import os
import platform
import random
import re
import shlex
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np

from kernels.launch import (
    DYNAMIC_SHARED_LIMIT,
    FOLDER,
    KERNEL,
    SHARED_LIMIT,
    DeviceError,
    KernelError,
    LaunchError,
    cached,
    check,
    not_recording,
    read,
    three,
    type_options,
)
from kernels.workers import available_cores

# Declarations of shared memory, one array each, which emulator_text() rewrites.
SHARED = re.compile(r"(?:static )?__shared__\s+(?:__align__\(\d+\)\s+)?([\w ]+?)\s+(\w+)\s*((?:\[[^\]]*\])*);")
DYNAMIC_SHARED = re.compile(r"extern __shared__\s+(?:__align__\(\d+\)\s+)?([\w ]+?)\s+(\w+)\[\];")
MOST_SHARED = 64  # such declarations in a file


class DeviceArray(np.ndarray):
    """An array of the emulated device. As on a GPU, only kernels compute with it: use ops, or ops.asnumpy first."""
    def _refuse(self, *args, **kwargs):
        raise TypeError("an array on the emulated device: only ops computes with it; ops.asnumpy(array) copies it to the host")
    __array_ufunc__ = __array_function__ = __setitem__ = _refuse


class Triple(ctypes.Structure):
    _fields_ = [(axis, ctypes.c_uint) for axis in "xyz"]

    def __str__(self):
        return f"({self.x}, {self.y}, {self.z})"


class Argument(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("bytes", ctypes.c_uint64), ("number", ctypes.c_int64)]


class Error(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("kind", "argument", "line", "other_line")] + [("index", ctypes.c_int64)] + \
               [(name, Triple) for name in ("block", "thread", "other_thread")]


class Launch(ctypes.Structure):
    _fields_ = [("grid", Triple), ("block", Triple), ("dynamic_shared", ctypes.c_uint64), ("shared_limit", ctypes.c_uint64),
                ("seed", ctypes.c_uint64), ("next_block", ctypes.c_void_p), ("arguments", ctypes.c_void_p),
                ("scratch", ctypes.c_void_p), ("error", ctypes.POINTER(Error))]


KINDS = ["", "OUT_OF_BOUNDS", "MISALIGNED", "DIVERGENT", "WARP", "SHARED_FULL", "ARRAY_INDEX", "ARRAY_MISALIGNED", "DIVISION",
         "COPIES"]


@functools.cache
def compiler():
    """The command of a C++ compiler, $CXX if that is set, and what it says of its version. Raises DeviceError."""
    chosen = os.environ.get("CXX")
    # Not "zig c++", which builds its C++ library first, for minutes; not for this very CPU, since a cache may be shared.
    zig = [[sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline"]] if importlib.util.find_spec("ziglang") else []
    for command in [shlex.split(chosen)] if chosen else [["g++"], ["clang++"], ["c++"], *zig]:
        if shutil.which(command[0]):
            done = run([*command, "--version"])
            if done.returncode == 0 and done.stdout.strip():
                return command, done.stdout
    if chosen:
        raise DeviceError(f"CXX={chosen} is no C++ compiler that runs")
    raise DeviceError("needs a C++ compiler: install g++ or clang++, or run: pip install ziglang")


def run(command):
    return subprocess.run(command, capture_output=True, text=True, errors="replace")


def emulator_text(source):
    """C++ for an ordinary compiler. What changes in the .cu text: heads of kernels, and declarations of shared memory."""
    def head(match):
        parameters = source.kernels[match[2]].parameters
        rewritten = [f"emulator::Global<{'const ' * p.const}{p.type}> {p.name}" if p.pointer else f"{p.type} {p.name}"
                     for p in parameters]
        return "\n" * match[0].count("\n") + f"static void {match[2]}({', '.join(rewritten)})"

    def shared(match):
        (kind, name, dims), number = match.groups(), shared.count
        shared.count += 1
        return f"auto& {name} = *({kind} (*){dims})emulator::shared(sizeof({kind}{dims}), {number});"
    shared.count = 0
    text = KERNEL.sub(head, source.text)
    text = DYNAMIC_SHARED.sub(r"auto \2 = emulator::dynamic_shared<\1>();", text)
    text = SHARED.sub(shared, text)
    outside = re.search(r"^(auto& \w+ = |auto \w+ = )(\*|emulator::dynamic_shared)", text, re.M)
    if "__shared__" in text or outside or shared.count > MOST_SHARED:
        raise LaunchError(f"{source.file}: declare shared memory inside the kernel, one array a line, as `__shared__ TYPE "
                          f"NAME[SIZE];` or `extern __shared__ TYPE NAME[];`, at most {MOST_SHARED} in a file")
    for kernel in source.kernels.values():
        values = [f"emulator::Global<{'const ' * p.const}{p.type}>(a[{i}])" if p.pointer else f"*({p.type}*)a[{i}].data"
                  for i, p in enumerate(kernel.parameters)]
        text += (f"EXPORT int emulate_{kernel.name}(emulator::Launch* launch) {{\n    return emulator::emulate(launch, "
                 f"[](emulator::Argument* a) {{ {kernel.name}({', '.join(values)}); }});\n}}\n")
    return (FOLDER / "emulator.h").read_text(encoding="utf-8") + text


@functools.cache
def emulator_library(source, dtype, precision):
    """The .cu file as a library of this machine; kernel NAME is its function emulate_NAME."""
    (command, version), text = compiler(), emulator_text(source)
    flags = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-strict-aliasing", *type_options(dtype, precision),
             "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-Wno-unknown-pragmas", "-fno-sanitize-recover=all",
             "-fsanitize=bounds,alignment,integer-divide-by-zero", "-Wframe-larger-than=24000", "-Werror=return-type"]
    if sys.platform != "win32":
        flags += ["-fPIC"]
    elif "clang" in version:
        flags += ["-fno-rtlib-defaultlib"]  # the sanitizer's handlers are in emulator.h, not in a library

    def build(path):
        code, unit = path.with_suffix(".cpp"), path.with_suffix(".o")
        code.write_text(text, encoding="utf-8")
        for step in [*flags, "-c", str(code), "-o", str(unit)], ["-shared", str(unit), "-o", str(path)]:
            done = run([*command, *step])
            if done.returncode or "frame-larger-than" in done.stderr:  # g++ and clang++ make errors of it differently
                hint = "\nIn the emulator a kernel's pointers are checked ones: write `auto p = x + i`, and make device " \
                       "functions that take them templates." if "Global<" in done.stderr else ""
                raise KernelError(f"{source.file}: {' '.join(command)} failed:\n{done.stderr[:4000]}{hint}")
    suffix = ".dll" if sys.platform == "win32" else ".so"
    library = ctypes.CDLL(str(cached((text, *flags, version, platform.machine()), suffix, build)))
    library.emulator_scratch_bytes.restype = ctypes.c_uint64
    return library


@functools.cache
def worker_pool(workers):
    return ThreadPoolExecutor(workers)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=worker_pool.cache_clear)  # a child has none of its parent's threads


_worker = threading.local()  # .scratch: memory for a block's state, shared memory and stacks


class Emulator:
    name = "emulated device"
    multiprocessors, shared_memory = 132, 228 * 1024  # of an H100 or H200: work is divided as there

    def __init__(self, dtype=np.float32, precision="fp32", seed=0, workers=None):
        self.dtype, self.precision, self.random, self.recording = np.dtype(dtype), precision, random.Random(seed), None
        self.workers = workers or min(8, available_cores())
        emulator_library(read("reductions.cu"), self.dtype, precision)  # a compiler or cache that does not work shows here

    def __str__(self):
        return f"{self.workers} CPU core{'s' * (self.workers > 1)}, emulated"

    def allocate(self, size):
        """An array of `size` bytes at a multiple of 256, as CUDA gives it, full of NaN."""
        not_recording(self, "an allocation")
        buffer = np.full(size + 256, 255, np.uint8)
        start = -buffer.ctypes.data % 256
        return buffer[start:start + size].view(DeviceArray)

    def spoil(self, a):
        """Fill an array that is about to be written with NaN, so that what a kernel leaves out shows."""
        if self.recording is not None:
            return self.recording.append(functools.partial(self.spoil, a))
        a.reshape(-1).view(np.uint8).fill(255)

    def holds(self, a):
        return isinstance(a, DeviceArray)

    def upload(self, array):
        a = self.allocate(array.nbytes).view(array.dtype).reshape(array.shape)
        self.write(a, array)
        return a

    def write(self, a, array):
        not_recording(self, "an upload")
        a.view(np.ndarray)[...] = array

    def download(self, a):
        not_recording(self, "a download")
        return np.array(a.view(np.ndarray))

    def launch(self, file, kernel, grid, block, *arguments, shared=0):
        grid, block, source = three(grid), three(block), read(file)
        arguments = check(source, kernel, grid, block, arguments, self)
        if not 0 <= shared <= DYNAMIC_SHARED_LIMIT:
            raise LaunchError(f"{kernel}: {shared} bytes of dynamic shared memory; a block gets {DYNAMIC_SHARED_LIMIT}")
        if self.recording is not None:
            return self.recording.append(functools.partial(self._run, source, kernel, grid, block, arguments, shared))
        self._run(source, kernel, grid, block, arguments, shared)

    def record(self, run):
        """A function that launches again all that run() launches. Nothing runs while it is recorded."""
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

    def _run(self, source, kernel, grid, block, arguments, shared):
        library, blocks = emulator_library(source, self.dtype, self.precision), int(np.prod(grid))
        table, scalars = (Argument * len(arguments))(), []  # the table holds addresses: scalars must stay where they are
        for i, a in enumerate(arguments):
            if isinstance(a, np.generic):
                a = np.array(a)
                scalars.append(a)
            table[i] = (0, 0, i) if a is None else (a.ctypes.data, a.nbytes, i)
        next_block, seed = ctypes.c_int64(0), self.random.getrandbits(63)

        def work():
            if not hasattr(_worker, "scratch"):
                _worker.scratch = np.empty(library.emulator_scratch_bytes() + 64, np.uint8)
            error, scratch = Error(), _worker.scratch.ctypes.data
            launch = Launch(Triple(*grid), Triple(*block), shared, limit(shared), seed, ctypes.addressof(next_block),
                            ctypes.addressof(table), scratch + -scratch % 64, ctypes.pointer(error))
            getattr(library, "emulate_" + kernel)(ctypes.byref(launch))
            return error
        others = [worker_pool(self.workers).submit(work) for _ in range(min(self.workers, blocks) - 1)]
        try:
            errors = [work()]
        finally:
            wait(others)  # also after Ctrl-C: they write into the arguments
        for error in [*errors, *(other.result() for other in others)]:
            if error.kind:
                raise KernelError(f"{source.file}: {kernel}: {message(error, source.kernels[kernel], arguments, shared)}, "
                                  f"by thread {error.thread} of block {error.block}")


def limit(shared):
    """Bytes of shared memory that a block gets if it asks for so many at the launch."""
    return SHARED_LIMIT if shared <= SHARED_LIMIT else DYNAMIC_SHARED_LIMIT


def message(e, kernel, arguments, shared):
    """What an Error of emulator.h says."""
    other = f"thread {e.other_thread} " + (f"waits at line {e.other_line}" if e.other_line else "has returned")
    of = f"dynamic shared memory ({shared} bytes)"
    if e.argument >= 0:
        of = f"argument {kernel.parameters[e.argument].name!r} ({getattr(arguments[e.argument], 'size', 0)} elements)"
    return {"OUT_OF_BOUNDS": f"{of} accessed at index {e.index}",
            "MISALIGNED": f"a misaligned load from {of} at index {e.index}",
            "DIVERGENT": f"__syncthreads at line {e.line} is not reached by all threads: {other}",
            "WARP": f"a warp operation at line {e.line} is not reached by all lanes of its mask: {other}",
            "SHARED_FULL": f"{e.index} bytes of shared memory, but a block gets {limit(shared)}",
            "ARRAY_INDEX": f"an array accessed at index {e.index} in line {e.line}",
            "ARRAY_MISALIGNED": f"a misaligned access in line {e.line}",
            "DIVISION": f"an integer divided by zero in line {e.line}",
            "COPIES": f"more than {e.index} asynchronous copies on their way in line {e.line}: a wait is missing"}[KINDS[e.kind]]
