"""The emulated device: the .cu files run on the CPU.

A C++ compiler compiles them with emulator.h in front, and ctypes calls their kernels. The
interface is that of gpu.Gpu, so cuda_ops.py does not know on which of the two it launches.
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
from kernels.workers import available_cores, worker_pool

# Declarations of shared memory, one array each, which emulator_text() rewrites.
SHARED = re.compile(r"(?:static )?__shared__\s+(?:__align__\(\d+\)\s+)?"
                    r"([\w ]+?)\s+(\w+)\s*((?:\[[^\]]*\])*);")
DYNAMIC_SHARED = re.compile(r"extern __shared__\s+(?:__align__\(\d+\)\s+)?([\w ]+?)\s+(\w+)\[\];")
MOST_SHARED = 64  # such declarations in a file; emulator.h has as many places


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
    _fields_ = [("data", ctypes.c_void_p), ("bytes", ctypes.c_uint64), ("number", ctypes.c_int64)]


class Error(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("kind", "argument", "line", "other_line")),
        ("index", ctypes.c_int64),
        *((name, Triple) for name in ("block", "thread", "other_thread")),
    ]


class Launch(ctypes.Structure):
    _fields_ = [
        ("grid", Triple),
        ("block", Triple),
        ("dynamic_shared", ctypes.c_uint64),
        ("shared_limit", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
        ("next_block", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
        ("error", ctypes.POINTER(Error)),
    ]


KINDS = ["", "OUT_OF_BOUNDS", "MISALIGNED", "DIVERGENT", "WARP", "SHARED_FULL", "ARRAY_INDEX",
         "ARRAY_MISALIGNED", "DIVISION", "COPIES"]


# ------------------------------------------------------------------------------------- compiling
@functools.cache
def compiler():
    """(command of a C++ compiler, the version that it prints). Raises DeviceError.

    $CXX is the command if it is set. ziglang is not called as "zig c++", which first builds its C++
    library, for minutes. It compiles for a baseline CPU, since several machines may share a cache.
    """
    chosen = os.environ.get("CXX")
    commands = [["g++"], ["clang++"], ["c++"]]
    if importlib.util.find_spec("ziglang"):
        commands.append([sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline"])
    for command in [shlex.split(chosen)] if chosen else commands:
        if shutil.which(command[0]):
            done = run([*command, "--version"])
            if done.returncode == 0 and done.stdout.strip():
                return command, done.stdout
    if chosen:
        raise DeviceError(f"CXX={chosen} is not a C++ compiler that runs here")
    raise DeviceError("needs a C++ compiler: install g++ or clang++, or run: pip install ziglang")


def run(command):
    return subprocess.run(command, capture_output=True, text=True, errors="replace")


def emulator_text(source):
    """C++ for an ordinary compiler: emulator.h, the .cu text, and functions to call its kernels.

    Two things change in the .cu text: heads of kernels and declarations of shared memory.
    """
    text = KERNEL.sub(lambda match: kernel_head(match, source), source.text)
    text = rewrite_shared(text, source)
    calls = [kernel_call(kernel) for kernel in source.kernels.values()]
    return (FOLDER / "emulator.h").read_text(encoding="utf-8") + text + "".join(calls)


def checked_type(p):
    return f"emulator::Global<{'const ' * p.const}{p.type}>"


def kernel_head(match, source):
    """The head of a kernel as a C++ function with checked pointers."""
    name = match[2]
    parameters = [f"{checked_type(p)} {p.name}" if p.pointer else f"{p.type} {p.name}"
                  for p in source.kernels[name].parameters]
    lines = "\n" * match[0].count("\n")  # line numbers stay the same
    return f"{lines}static void {name}({', '.join(parameters)})"


def rewrite_shared(text, source):
    """Declarations of shared memory -> references to memory of the emulated block."""
    count = 0

    def shared(match):
        nonlocal count
        (kind, name, dims), number = match.groups(), count
        count += 1
        return (f"auto& {name} = "
                f"*({kind} (*){dims})emulator::shared(sizeof({kind}{dims}), {number});")
    text = DYNAMIC_SHARED.sub(r"auto \2 = emulator::dynamic_shared<\1>();", text)
    text = SHARED.sub(shared, text)
    outside = re.search(r"^(auto& \w+ = |auto \w+ = )(\*|emulator::dynamic_shared)", text, re.M)
    if "__shared__" in text or outside or count > MOST_SHARED:
        raise LaunchError(f"{source.file}: declare shared memory inside the kernel, one array a "
                          "line, as `__shared__ TYPE NAME[SIZE];` or `extern __shared__ TYPE "
                          f"NAME[];`, at most {MOST_SHARED} in a file")
    return text


def kernel_call(kernel):
    """A function of the library that runs one kernel with an array of Arguments `a`."""
    values = [f"{checked_type(p)}(a[{i}])" if p.pointer else f"*({p.type}*)a[{i}].data"
              for i, p in enumerate(kernel.parameters)]
    return (f"EXPORT int emulate_{kernel.name}(emulator::Launch* launch) {{\n"
            "    return emulator::emulate(launch, [](emulator::Argument* a) "
            f"{{ {kernel.name}({', '.join(values)}); }});\n}}\n")


def compiler_flags(version, dtype, precision):
    flags = [
        "-std=c++17", "-O3", "-fno-math-errno", "-fno-strict-aliasing", "-fvisibility=hidden",
        "-fno-exceptions", "-fno-rtti", "-Wno-unknown-pragmas", "-Werror=return-type",
        "-Wframe-larger-than=24000", "-fsanitize=bounds,alignment,integer-divide-by-zero",
        "-fno-sanitize-recover=all", *type_options(dtype, precision),
    ]
    if sys.platform != "win32":
        flags += ["-fPIC"]
    elif "clang" in version:
        flags += ["-fno-rtlib-defaultlib"]  # the sanitizer's handlers are in emulator.h
    return flags


@functools.cache
def emulator_library(source, dtype, precision):
    """The .cu file as a library for this machine, where kernel NAME is the function emulate_NAME.

    Raises KernelError if it does not compile.
    """
    command, version = compiler()
    text, flags = emulator_text(source), compiler_flags(version, dtype, precision)

    def build(path):
        code, unit = path.with_suffix(".cpp"), path.with_suffix(".o")
        code.write_text(text, encoding="utf-8")
        compile_step(source, command, [*flags, "-c", str(code), "-o", str(unit)])
        compile_step(source, command, ["-shared", str(unit), "-o", str(path)])
    suffix = ".dll" if sys.platform == "win32" else ".so"
    path = cached((text, *flags, version, platform.machine()), suffix, build)
    library = ctypes.CDLL(str(path))
    library.emulator_scratch_bytes.restype = ctypes.c_uint64
    return library


def compile_step(source, command, arguments):
    done = run([*command, *arguments])
    # Too large a frame is an error here. g++ and clang++ spell the flag for that differently.
    if done.returncode == 0 and "frame-larger-than" not in done.stderr:
        return
    hint = ""
    if "Global<" in done.stderr:
        hint = ("\nIn the emulator a kernel's pointers are checked pointers: write "
                "`auto p = x + i`, and make device functions that take pointers templates.")
    log = done.stderr[:4000]
    raise KernelError(f"{source.file}: {' '.join(command)} failed:\n{log}{hint}")


# -------------------------------------------------------------------------------------- workers
_worker = threading.local()  # .scratch: memory for a block's state, shared memory and stacks


def scratch_memory(size):
    """The address of this thread's scratch memory, a multiple of 64."""
    if not hasattr(_worker, "scratch"):
        _worker.scratch = np.empty(size + 64, np.uint8)
    address = _worker.scratch.ctypes.data
    return address + -address % 64


# --------------------------------------------------------------------------------------- device
class Emulator:
    name = "emulated device"
    multiprocessors, shared_memory = 132, 228 * 1024  # an H100's or H200's: work is cut as there

    def __init__(self, dtype=np.float32, precision="fp32", seed=0, workers=None):
        """seed: for the order in which CUDA threads run. workers: the number of CPU threads.

        Raises DeviceError.
        """
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
        launch = functools.partial(self._run, source, kernel, grid, block, arguments, shared)
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

    def _run(self, source, kernel, grid, block, arguments, shared):
        library = emulator_library(source, self.dtype, self.precision)
        emulate = getattr(library, "emulate_" + kernel)
        scratch_bytes = library.emulator_scratch_bytes()
        # The table holds addresses only: `scalars` keeps the numbers alive.
        table, scalars = argument_table(arguments)
        next_block, seed = ctypes.c_int64(0), self.random.getrandbits(63)

        def work(_):
            error = Error()
            launch = Launch(Triple(*grid), Triple(*block), shared, limit(shared), seed,
                            ctypes.addressof(next_block), ctypes.addressof(table),
                            scratch_memory(scratch_bytes), ctypes.pointer(error))
            emulate(ctypes.byref(launch))
            return error

        blocks = int(np.prod(grid))
        for error in worker_pool(self.workers - 1).run(work, min(self.workers, blocks)):
            if error.kind:
                what = message(error, source.kernels[kernel], arguments, shared)
                raise KernelError(f"{source.file}: {kernel}: {what}, "
                                  f"by thread {error.thread} of block {error.block}")


def argument_table(arguments):
    """(the arguments as an array of Argument, the arrays that hold its scalars)."""
    table, scalars = (Argument * len(arguments))(), []
    for i, a in enumerate(arguments):
        if isinstance(a, np.generic):
            a = np.array(a)
            scalars.append(a)
        table[i] = (0, 0, i) if a is None else (a.ctypes.data, a.nbytes, i)
    return table, scalars


def limit(shared):
    """Bytes of shared memory that a block may use if the launch requests `shared` of them."""
    return SHARED_LIMIT if shared <= SHARED_LIMIT else DYNAMIC_SHARED_LIMIT


def message(e, kernel, arguments, shared):
    """An Error of emulator.h in words."""
    state = f"waits at line {e.other_line}" if e.other_line else "has returned"
    other = f"thread {e.other_thread} {state}"
    of = f"dynamic shared memory ({shared} bytes)"
    if e.argument >= 0:
        size = getattr(arguments[e.argument], "size", 0)
        of = f"argument {kernel.parameters[e.argument].name!r} ({size} elements)"
    return {
        "OUT_OF_BOUNDS": f"{of} accessed at index {e.index}",
        "MISALIGNED": f"a misaligned load from {of} at index {e.index}",
        "DIVERGENT": f"__syncthreads at line {e.line} is not reached by all threads: {other}",
        "WARP": f"a warp operation at line {e.line} is not reached by all lanes of its mask: "
                f"{other}",
        "SHARED_FULL": f"{e.index} bytes of shared memory, but a block gets {limit(shared)}",
        "ARRAY_INDEX": f"an array accessed at index {e.index} in line {e.line}",
        "ARRAY_MISALIGNED": f"a misaligned access in line {e.line}",
        "DIVISION": f"an integer divided by zero in line {e.line}",
        "COPIES": f"more than {e.index} unfinished asynchronous copies in line {e.line}: "
                  "a wait is missing",
    }[KINDS[e.kind]]
