"""Compile the .cu files of this folder and launch their kernels, on one of two devices with the same interface:

    Gpu       here, through CuPy: compiled by NVRTC for the card at hand, no compiler to install
    Emulator  in emulator.py, on the CPU: compiled by g++, clang++ or the ziglang wheel

`device.launch(file, kernel, grid, block, *arguments)` checks every argument against the kernel's signature, which it reads
from the source: CUDA itself would take a wrong type, a strided view or a missing argument and compute garbage.
Compiled files are cached by content in $SEMGAN_CACHE or ~/.cache/semgan.
"""
import ctypes
import functools
import hashlib
import importlib.util
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

FOLDER = Path(__file__).parent
TYPES = {"float": np.float32, "double": np.float64, "int": np.int32, "unsigned": np.uint32, "uint8": np.uint8,
         "bf16": np.uint16, "long long": np.int64}  # and two that are compile options:
OPTIONAL_TYPES = ("real", "operand")  # float, or double for gradient checks; what convolutions multiply, real or bf16
SHARED_LIMIT = 48 * 1024  # bytes of shared memory that a block gets on every card without asking;
DYNAMIC_SHARED_LIMIT = 99 * 1024  # and when asked for at the launch, on every card from sm_80 on


class DeviceError(ValueError):
    """A device, dtype or precision that cannot be had here."""


class LaunchError(TypeError):
    """A launch that does not fit the kernel's signature, or something that cannot be recorded."""


class KernelError(RuntimeError):
    """A kernel that does not compile, or a fault inside it that the emulator caught."""


# ------------------------------------------------------------------------------------ reading a .cu file
class Parameter(NamedTuple):
    type: str      # of what it points to, or of the scalar
    pointer: bool
    const: bool
    name: str      # ending in _or_null where None may be given


class Kernel(NamedTuple):
    name: str
    parameters: list
    threads: int   # the most a block may have: its launch bound


@dataclass(eq=False)
class Source:
    file: str
    text: str             # with its #include "..." pasted in
    kernels: dict         # name -> Kernel
    constants: dict       # name -> int, of `constexpr int NAME = 3;`
    architectures: list   # ["sm_75", ...]


# The one form of a kernel's head that this launcher reads.
KERNEL = re.compile(r'extern "C" __global__\s+__launch_bounds__\((\w+)(?:, \d+)?\)\s+void (\w+)\s*\(([^)]*)\)')
PARAMETER = re.compile(r"(const )?([\w ]+?)(?: ?(\*) ?(?:__restrict__ )?| )(\w+)")


def read(path):
    """The Source of a .cu file, given by its path from this folder or an absolute one; read anew when the file has changed."""
    path = FOLDER / path
    return _read(path, path.stat().st_mtime_ns)


@functools.cache
def _read(path, _):
    def paste(path):
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise LaunchError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})") from None
        blank = lambda comment: "\n" * comment[0].count("\n") or " "
        lines = re.sub(r"//.*|/\*(?s:.*?)\*/", blank, text).replace("#pragma once", "").split("\n")
        include = lambda number, name: paste(FOLDER / name) + f'#line {number + 1} "{path.name}"\n'
        included = [re.fullmatch(r'#include "(\w+\.cuh)"\s*', line) for line in lines]
        return f'#line 1 "{path.name}"\n' + "".join(
            include(number, match[1]) if match else line + "\n" for number, (line, match) in enumerate(zip(lines, included), 1))
    text = paste(path)
    constants = {name: int(value) for name, value in re.findall(r"constexpr int (\w+) = (\d+);", text)}
    kernels = {}
    for bound, name, parameters in KERNEL.findall(text):
        bound = constants.get(bound, int(bound) if bound.isdigit() else None)
        if bound:
            kernels[name] = Kernel(name, [parse(p.strip(), name, path) for p in parameters.split(",")], min(bound, 1024))
    if text.count("__global__") != len(kernels):
        raise LaunchError(f'{path}: expected each kernel as: extern "C" __global__ __launch_bounds__(THREADS) void name(...), '
                          "THREADS a number or a constexpr int")
    architectures = re.search("^// Architectures: (.*)", path.read_text(encoding="utf-8-sig"), re.M)
    return Source(path.name, text, kernels, constants, architectures[1].split() if architectures else [])


def parse(parameter, kernel, path):
    match = PARAMETER.fullmatch(" ".join(parameter.replace("*", " * ").split()))
    if not match or match[2] not in (*TYPES, *OPTIONAL_TYPES):
        raise LaunchError(f"{path}: {kernel}: cannot read the parameter {parameter!r}; expected one of "
                          f"{', '.join((*TYPES, *OPTIONAL_TYPES))}, or `const TYPE* __restrict__ name`")
    return Parameter(match[2], bool(match[3]), bool(match[1]), match[4])


# ------------------------------------------------------------------------------------ checking a launch
def check(source, name, grid, block, arguments, device):
    """The arguments as the kernel takes them: arrays of the device, NumPy scalars, None. Raises LaunchError."""
    if name not in source.kernels:
        raise LaunchError(f"{source.file} has no kernel {name!r}, but {', '.join(source.kernels) or 'none at all'}")
    kernel, parameters = source.kernels[name], source.kernels[name].parameters
    if len(arguments) != len(parameters):
        raise LaunchError(f"{kernel.name}: expected {len(parameters)} arguments ({', '.join(p.name for p in parameters)}), "
                          f"got {len(arguments)}")
    if min(grid) < 1 or max(grid[1:]) > 65535 or grid[0] >= 1 << 31:
        raise LaunchError(f"{kernel.name}: a grid of {grid}")
    if min(block) < 1 or block[2] > 64 or np.prod(block) > kernel.threads:
        raise LaunchError(f"{kernel.name}: a block of {block}; its launch bound is {kernel.threads} threads")
    types = TYPES | {"real": device.dtype, "operand": operand_type(device)}
    return [check_argument(f"{kernel.name}: argument {p.name!r}", p, np.dtype(types[p.type]), a, device)
            for p, a in zip(parameters, arguments)]


def check_argument(what, parameter, dtype, a, device):
    if not parameter.pointer:
        if not isinstance(a, (int, np.integer, *((float, np.floating) if dtype.kind == "f" else ()))):
            raise LaunchError(f"{what}: expected a number of type {parameter.type}, got {a!r}")
        if dtype.kind != "f" and not np.iinfo(dtype).min <= a <= np.iinfo(dtype).max:
            raise LaunchError(f"{what}: {a} does not fit into {parameter.type}")
        return dtype.type(a)
    if a is None and parameter.name.endswith("_or_null"):
        return None
    if not device.holds(a):
        raise LaunchError(f"{what}: expected an array on the {device.name}, got {type(a).__module__}.{type(a).__name__}")
    if a.dtype != dtype:
        raise LaunchError(f"{what}: expected {dtype}, got {a.dtype}")
    if not a.flags.c_contiguous:
        raise LaunchError(f"{what}: not contiguous: shape {a.shape}, strides {a.strides}")
    if a.size >= 1 << 31:
        raise LaunchError(f"{what}: {a.size} elements; kernels count in int, up to {(1 << 31) - 1}")
    return a


def operand_type(device):
    """What stands for one number that convolutions multiply; NumPy knows no bf16, so its bits are kept as an integer."""
    return np.dtype(np.uint16) if device.precision == "bf16" else device.dtype


def type_options(dtype, precision):
    """The compile options for the types that are left open: the same words for NVRTC and for the emulator's compiler."""
    real = "double" if dtype == np.float64 else "float"
    return f"-Dreal={real}", f"-Doperand={'bf16' if precision == 'bf16' else real}"


def not_recording(device, what):
    """Raises LaunchError while the device records."""
    if device.recording is not None:
        raise LaunchError(f"{what} while operations are recorded: a recording holds launches on arrays that are there")


def three(size):
    """4 -> (4, 1, 1); (4, 2) -> (4, 2, 1)."""
    size = (size,) if isinstance(size, (int, np.integer)) else tuple(size)
    return tuple(map(int, size)) + (1,) * (3 - len(size))


# ---------------------------------------------------------------------------------------------- cache
def cache_folder():
    return Path(os.environ.get("SEMGAN_CACHE") or Path.home() / ".cache" / "semgan")


def cached(key, suffix, build):
    """The path of a file in the cache, made by build(path) if it is not there yet; whole at any moment."""
    folder = cache_folder()
    path = folder / (hashlib.sha256("\0".join(key).encode()).hexdigest()[:32] + suffix)
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as aside:
                build(Path(aside) / path.name)
                with open(Path(aside) / path.name, "rb+") as file:
                    os.fsync(file.fileno())
                os.replace(Path(aside) / path.name, path)
        except OSError as error:
            raise DeviceError(f"{folder}: no place for compiled kernels ({error.strerror}); set SEMGAN_CACHE to a folder that "
                              "can be written") from None
    return path


# ------------------------------------------------------------------------------------------------ GPU
@functools.cache
def find_nvrtc():
    """CuPy's binding of NVRTC and its version. CuPy 13 does not look for the library in its wheel: then it is loaded here."""
    from cupy_backends.cuda.libs import nvrtc
    try:
        return nvrtc, nvrtc.getVersion()
    except Exception:
        folders = importlib.util.find_spec("nvidia").submodule_search_locations if importlib.util.find_spec("nvidia") else ()
        for path in [p for folder in folders for p in Path(folder).glob("*/*/*nvrtc*") if re.search(r"nvrtc(\.so|64)", p.name)]:
            ctypes.CDLL(str(path))
        return nvrtc, nvrtc.getVersion()


def compile_options(dtype, architecture, precision):
    return (f"--gpu-architecture={architecture}", "--std=c++17", *type_options(dtype, precision),
            "--device-as-default-execution-space")  # lets kernels use lambdas


def compile_cubin(source, options):
    """(machine code, the compiler's words) by NVRTC, without GPU or driver. Raises KernelError."""
    nvrtc, _ = find_nvrtc()
    program = nvrtc.createProgram(source.text, source.file, (), ())
    try:
        nvrtc.compileProgram(program, options)
        return nvrtc.getCUBIN(program) + b"\0", nvrtc.getProgramLog(program)  # CuPy cuts off the last byte, a zero
    except nvrtc.NVRTCError as error:
        raise KernelError(f"{source.file}: {error}\n{nvrtc.getProgramLog(program)}") from None
    finally:
        nvrtc.destroyProgram(program)


def best_architecture(names, capability):
    """Of "sm_75", ..., the one whose machine code runs on a card of compute capability (major, minor); None if none does."""
    numbers = {divmod(int(name[3:]), 10): name for name in names if name[3:].isdigit()}
    fitting = [n for n in numbers if n[0] == capability[0] and n[1] <= capability[1]]
    return numbers[max(fitting)] if fitting else None


def first_line(error):
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class Gpu:
    name = "GPU"

    def __init__(self, dtype=np.float32, precision=None):
        try:
            import cupy
            properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id) if cupy.is_available() else None
        except Exception as error:  # CuPy is not installed, its libraries do not load, the driver is missing or too old
            raise DeviceError(f"no GPU that CuPy can use: {first_line(error)}") from None
        if not properties:
            raise DeviceError("no GPU that CuPy can use")
        try:
            _, self.nvrtc = find_nvrtc()
        except Exception as error:
            raise DeviceError(f"a GPU, but not CUDA's compiler NVRTC: {first_line(error)}") from None
        self.cupy, self.dtype, self.functions, self.recording = cupy, np.dtype(dtype), {}, None
        self.card, self.capability = properties["name"].decode(), (properties["major"], properties["minor"])
        self.multiprocessors, self.shared_memory = properties["multiProcessorCount"], properties["sharedMemPerMultiprocessor"]
        has_tensor_cores = self.capability >= (8, 0)  # for TF32 and bf16
        if precision in ("tf32", "bf16") and not has_tensor_cores:
            raise DeviceError(f"{self.card} cannot multiply in {precision}: that needs compute capability 8.0 or more")
        self.precision = precision or ("tf32" if has_tensor_cores and self.dtype == np.float32 else "fp32")
        if not best_architecture(read("reductions.cu").architectures, self.capability):
            raise DeviceError(f"{self.card} has compute capability {self.capability[0]}.{self.capability[1]}; the kernels are "
                              f"for {', '.join(read('reductions.cu').architectures)}")

    def __str__(self):
        return self.card

    def allocate(self, size):
        """An array of `size` bytes."""
        not_recording(self, "an allocation")
        return self.cupy.empty(size, np.uint8)

    def spoil(self, a):
        """Only the emulator does that."""

    def holds(self, a):
        return isinstance(a, self.cupy.ndarray) and a.device == self.cupy.cuda.Device()

    def upload(self, array):
        not_recording(self, "an upload")
        return self.cupy.asarray(array)

    def write(self, a, array):
        """Host -> device, into an array that is there."""
        not_recording(self, "an upload")
        a.set(array)

    def download(self, a):
        not_recording(self, "a download")
        return a.get()

    def load(self, source, kernel):
        names = source.architectures or [f"sm_{self.capability[0]}{self.capability[1]}"]  # a file that names none: the card's
        architecture = best_architecture(names, self.capability)
        if not architecture:
            raise DeviceError(f"{source.file} is for {', '.join(names)}; {self.card} has compute capability "
                              f"{self.capability[0]}.{self.capability[1]}")
        options = compile_options(self.dtype, architecture, self.precision)
        path = cached((source.text, *options, str(self.nvrtc)), ".cubin",
                      lambda path: path.write_bytes(compile_cubin(source, options)[0]))
        return self.cupy.RawModule(path=str(path)).get_function(kernel)

    def launch(self, file, kernel, grid, block, *arguments, shared=0):
        grid, block, source = three(grid), three(block), read(file)
        arguments = check(source, kernel, grid, block, arguments, self)
        if self.recording is not None:
            self.recording.append(arguments)
        if (source, kernel) not in self.functions:
            not_recording(self, f"{kernel} is compiled")
            self.functions[source, kernel] = self.load(source, kernel)
            if shared > SHARED_LIMIT:
                self.functions[source, kernel].max_dynamic_shared_size_bytes = shared
        null = np.uint64(0)
        self.functions[source, kernel](grid, block, tuple(null if a is None else a for a in arguments), shared_mem=shared)

    def record(self, run):
        """A function that launches again all that run() launches, as one CUDA graph. Nothing runs while it is recorded.

        Transfers, single launches and graphs all go to CUDA's default stream, one after the other; only the capture needs
        a stream of its own. A card or driver that cannot do it costs time but not the training: then it is run itself.
        """
        not_recording(self, "a recording")
        self.recording = []
        try:
            stream = self.cupy.cuda.Stream(non_blocking=True)
            with stream:
                stream.begin_capture()
                try:
                    run()
                finally:  # also after an error: else the capture would never end
                    graph = stream.end_capture()
        except RuntimeError as error:
            print(f"No CUDA graph ({first_line(error.__context__ or error)}): every kernel is launched by itself, which is "
                  "slower.", file=sys.stderr)
            return run
        finally:
            arguments, self.recording = self.recording, None

        def launch_graph():
            graph.launch()
        launch_graph.arguments = arguments  # CUDA does not keep the arrays of a graph alive
        return launch_graph
