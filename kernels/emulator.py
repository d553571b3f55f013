"""The emulated device: the .cu files run on the CPU.

A C++ compiler compiles them with emulator.h in front, and ctypes calls their kernels. The
interface is that of gpu.Gpu, so cuda_ops.py does not know on which of the two it launches.
"""
import ctypes
import functools
import importlib.util
import math
import mmap
import os
import platform
import queue
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np

from kernels.launch import (
    DYNAMIC_SHARED_LIMIT,
    FOLDER,
    KERNEL,
    SHARED_LIMIT,
    TYPES,
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
CELL_BYTES = 48  # of a Cell in emulator_races.h
TICK = 0.1  # seconds between two looks at a kernel that runs
# A vector that is read from an array of numbers, as in *(const float4*)(x + i)
VECTOR_CAST = re.compile(r"\((const )?(float2|float4|double2|Four|Vector)\s*\*\)")
LIBRARY = re.compile(r"#include\s*<([\w./]+)>")
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
    ]


KINDS = ["", "OUT_OF_BOUNDS", "MISALIGNED", "DIVERGENT", "WARP", "SHARED_FULL", "ARRAY_INDEX",
         "ARRAY_MISALIGNED", "DIVISION", "COPIES", "WILD", "STACK", "TRAP", "ASSERTION", "STOPPED",
         "RACE"]


# ------------------------------------------------------------------------------------- compiling
# Local variables begin with a value that shows: NaN, or about -1e38 (g++ 12, clang 8)
OPTIONAL_FLAGS = ["-ftrivial-auto-var-init=pattern"]


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


def emulator_text(source, races=False):
    """C++ for an ordinary compiler: emulator.h, the .cu text, and functions to call its kernels.

    Three things change in the .cu text: heads of kernels, declarations of shared memory, and casts
    to pointers to vectors, which become checked pointers.
    """
    if library := LIBRARY.search(source.text):
        raise LaunchError(f"{source.file}: #include <{library[1]}>: the compiler of CUDA kernels, "
                          "NVRTC, has no such library; expected a .cuh file of kernels/")
    text = KERNEL.sub(lambda match: kernel_head(match, source), source.text)
    text = VECTOR_CAST.sub(r"(emulator::Global<\1\2>)", rewrite_shared(text, source))
    calls = [kernel_call(kernel) for kernel in source.kernels.values()]
    parts = ["emulator.h", "emulator_races.h"][:1 + races]
    return "".join([*((FOLDER / part).read_text(encoding="utf-8") for part in parts), text, *calls])


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


def compiler_flags(version, dtype, precision, races):
    flags = [
        "-std=c++17", "-O3", "-fno-math-errno", "-fno-strict-aliasing", "-fvisibility=hidden",
        "-fno-exceptions", "-fno-rtti", "-fno-finite-loops", "-Wno-unknown-pragmas",
        "-Werror=return-type", "-Werror=uninitialized", "-Werror=vla", "-Wframe-larger-than=24000",
        "-fsanitize=bounds,alignment,integer-divide-by-zero",
        "-fno-sanitize-recover=all", *type_options(dtype, precision),
    ]
    if races:  # the functions that it calls are in emulator_races.h
        flags += ["-DCHECK_RACES", "-fsanitize=thread"]
    if sys.platform != "win32":
        flags += ["-fPIC"]
    elif "clang" in version:
        flags += ["-fno-rtlib-defaultlib"]  # the sanitizer's handlers are in emulator.h
    return [*flags, *(flag for flag in OPTIONAL_FLAGS if accepts(flag))]


@functools.cache
def accepts(flag):
    """Whether the compiler knows a flag."""
    command, _ = compiler()
    return run([*command, flag, "-fsyntax-only", "-xc++", os.devnull]).returncode == 0


@functools.cache
def emulator_library(source, dtype, precision, races=False):
    """The .cu file as a library for this machine, where kernel NAME is the function emulate_NAME.

    races: whether it looks for races. Raises KernelError if it does not compile.
    """
    command, version = compiler()
    text = emulator_text(source, races)
    flags = compiler_flags(version, dtype, precision, races)

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
    log = done.stderr[:4000]
    first = re.search(r"^(.*?):(\d+):(?:\d+:)? (?:fatal )?error: (.*)", log, re.M)
    hint = ""
    if first and "Global<" in first[3]:
        hint = ("\nIn the emulator a kernel's pointers are checked pointers: write "
                "`auto p = x + i`, and make device functions that take pointers templates.")
    what = "{}, line {}: {}".format(*first.groups()) if first else "see below"
    if not done.returncode:
        what = "local arrays that do not fit the stack"
    raise KernelError(f"{source.file}: does not compile: {what}\n{' '.join(command)}:\n{log}{hint}")


# -------------------------------------------------------------------------------------- workers
_worker = threading.local()  # .scratch: memory for a block's state, shared memory and stacks


def scratch_memory(size):
    """The address of this thread's scratch memory, zeros at first, a multiple of a page."""
    if not hasattr(_worker, "scratch"):
        _worker.scratch = np.frombuffer(mmap.mmap(-1, size), np.uint8)
    return _worker.scratch.ctypes.data


def wait(results, threads, next_block, stop, seconds):
    """Waits for all workers. A kernel of which no block ends for so many seconds is stopped.

    results: a queue that gets one item from each worker; threads: their identifiers, None where a
    worker has not begun. Ctrl-C stops the kernel too, and is raised when its workers have ended.
    """
    seen, since, interrupt = None, time.monotonic(), None
    for _ in threads:
        while True:
            try:
                found, error = results.get(timeout=TICK)
                if error:
                    raise error
                yield found
                break
            except queue.Empty:
                pass
            except KeyboardInterrupt as error:
                interrupt = error
            now = time.monotonic()
            if next_block.value != seen:
                seen, since = next_block.value, now
            if interrupt or now - since > seconds:
                stop.value = 1
            if stop.value and hasattr(signal, "pthread_kill"):
                for thread in filter(None, threads):
                    signal.pthread_kill(thread, signal.SIGURG)
    if interrupt:
        raise interrupt


# --------------------------------------------------------------------------------------- device
class Emulator:
    name = "emulated device"
    multiprocessors, shared_memory = 132, 228 * 1024  # an H100's or H200's: work is cut as there

    def __init__(self, dtype=np.float32, precision="fp32", seed=0, workers=None, seconds=30,
                 check_races=None):
        """seed: for the order in which CUDA threads run. workers: the number of CPU threads.

        seconds: a launch is stopped if none of its blocks ends for so long. check_races: whether
        to look for races between threads, which takes several times as long; None: in kernels of
        your own, not in those of this folder (nor on Windows). Raises DeviceError.
        """
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
        library = emulator_library(source, self.dtype, self.precision, races)
        emulate = getattr(library, "emulate_" + kernel)
        scratch_bytes = library.emulator_scratch_bytes()
        # The table holds addresses only: `scalars` keeps the numbers alive.
        table, scalars = argument_table(arguments, races)
        next_block, stop = ctypes.c_int64(0), ctypes.c_int32(0)
        seed = self.random.getrandbits(63)
        pool = worker_pool(self.workers)
        threads = [None] * min(1 if races else self.workers, math.prod(grid), max(1, pool.count))

        def work(number):
            threads[number] = threading.get_ident()
            error = Error()
            launch = Launch(Triple(*grid), Triple(*block), shared, limit(shared), seed,
                            ctypes.addressof(next_block), ctypes.addressof(stop),
                            ctypes.addressof(table), len(table), scratch_memory(scratch_bytes),
                            ctypes.pointer(error))
            emulate(ctypes.byref(launch))
            threads[number] = None
            return error

        results = pool.start(work, len(threads))
        errors = list(wait(results, threads, next_block, stop, self.seconds))
        # A kernel that is stopped in one thread may have waited for one that failed in another.
        for error in sorted(errors, key=lambda error: KINDS[error.kind] == "STOPPED"):
            if error.kind:
                what = message(error, source, kernel, grid, arguments, shared, self.seconds)
                raise KernelError(f"{source.file}: {kernel}: {what}, "
                                  f"by thread {error.thread} of block {error.block}")


def argument_table(arguments, races):
    """(the arguments as an array of Argument, the arrays that it needs)."""
    table, scalars, cells = (Argument * len(arguments))(), [], {}
    for i, a in enumerate(arguments):
        if isinstance(a, np.generic):
            a = np.array(a)
            scalars.append(a)
        table[i] = (0, 0, i) if a is None else (a.ctypes.data, a.nbytes, i)
        if races and isinstance(a, DeviceArray):  # an array that is passed twice has one of them
            size = CELL_BYTES * (a.nbytes // 4 + 1)
            cells.setdefault(a.ctypes.data, np.zeros(size, np.uint8))
            table[i].cells = cells[a.ctypes.data].ctypes.data
            scalars.append(cells[a.ctypes.data])
    return table, scalars


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
