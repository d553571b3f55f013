"""What the two devices that launch this folder's .cu files share.

    Gpu       in gpu.py, through CuPy: NVRTC compiles for the GPU in this machine
    Emulator  in emulator.py, on the CPU: g++, clang++ or the ziglang wheel compiles

Both have the same interface. `device.launch(file, kernel, grid, block, *arguments)` reads the
kernel's signature from the source and checks every argument against it: CUDA itself would accept a
wrong type, a strided view or a missing argument and compute garbage. Compiled files are kept in the
cache folder ($SEMGAN_CACHE or the user's), named after a hash of all that they depend on.
"""
import functools
import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from formats.files import cache_folder, digest, written

FOLDER = Path(__file__).parent

# The types of parameters. Two more are set by compile options: real is float, or double for
# gradient checks; operand is what convolutions multiply, real or bf16.
TYPES = {
    "float": np.float32,
    "double": np.float64,
    "int": np.int32,
    "unsigned": np.uint32,
    "uint8": np.uint8,
    "bf16": np.uint16,
    "long long": np.int64,
}
OPTIONAL_TYPES = ("real", "operand")

# Bytes of shared memory that a block may have: without a request on every GPU; and at most, if the
# launch requests them, on every GPU from sm_80 on.
SHARED_LIMIT = 48 * 1024
DYNAMIC_SHARED_LIMIT = 99 * 1024


class DeviceError(ValueError):
    """A device, dtype or precision that is not available here."""


class PrecisionError(DeviceError):
    """A precision that this GPU does not have: it has no tensor cores for it."""


class LaunchError(TypeError):
    """A launch that does not fit the kernel's signature, or a call that cannot be recorded."""


class KernelError(RuntimeError):
    """A kernel that does not compile, or a fault inside it that the emulator caught."""


def first_line(error):
    """The first line of an exception's message; its type if there is no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


# --------------------------------------------------------------------------- reading a .cu file
class Parameter(NamedTuple):
    type: str      # of a scalar, or of the elements of an array
    pointer: bool
    const: bool
    name: str      # ends in _or_null if None is allowed


class Kernel(NamedTuple):
    name: str
    parameters: list
    threads: int   # the largest allowed block: the launch bound


@dataclass(eq=False)
class Source:
    file: str
    text: str             # with every #include "..." replaced by that file's text
    kernels: dict         # name -> Kernel
    constants: dict       # name -> int, for every `constexpr int NAME = 3;`
    structs: dict         # name -> dtype, for every `struct NAME { int a, b; };`
    architectures: list   # ["sm_75", ...]


# The only form in which the head of a kernel may be written.
KERNEL = re.compile(r'extern "C" __global__\s+__launch_bounds__\((\w+)(?:, \d+)?\)\s+'
                    r'void (\w+)\s*\(([^)]*)\)')
PARAMETER = re.compile(r"(const )?([\w ]+?)(?: ?(\*) ?(?:__restrict__ )?| )(\w+)")
COMMENT = re.compile(r"//.*|/\*(?s:.*?)\*/")
CONSTANT = re.compile(r"constexpr int (\w+) = (\d+);")
STRUCT = re.compile(r"struct (\w+) \{\s*int ([\w,\s]+);\s*\};")


def read(path):
    """The Source of a .cu file; `path` is absolute or relative to this folder.

    The file is read again when it has changed. Raises LaunchError.
    """
    path = FOLDER / path
    return _read(path, path.stat().st_mtime_ns)


@functools.cache
def _read(path, _):
    text = paste_includes(path)
    constants = {name: int(value) for name, value in CONSTANT.findall(text)}
    structs = {name: np.dtype([(member, np.int32) for member in re.findall(r"\w+", members)])
               for name, members in STRUCT.findall(text)}
    kernels = {}
    for bound, name, parameters in KERNEL.findall(text):
        threads = int(bound) if bound.isdigit() else constants.get(bound)
        if threads:
            parsed = [parse(p.strip(), name, path, structs) for p in parameters.split(",")]
            kernels[name] = Kernel(name, parsed, min(threads, 1024))
    if text.count("__global__") != len(kernels):
        raise LaunchError(f'{path}: expected each kernel as: extern "C" __global__ '
                          "__launch_bounds__(THREADS) void name(...), "
                          "THREADS a number or a constexpr int")
    names = re.search("^// Architectures: (.*)", read_text(path), re.M)
    architectures = names[1].split() if names else []
    return Source(path.name, text, kernels, constants, structs, architectures)


def ladder(folder):
    """The files of the steps in conv/ or softmax/, from the first to the last."""
    return sorted((FOLDER / folder).glob("*.cu"), key=lambda path: int(path.stem.split("_")[0]))


def takes_operands(path):
    """Whether the kernels of a step in conv/ take factors that are rounded for tensor cores."""
    return read(path).kernels["conv"].parameters[0].type == "operand"


def read_text(path):
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise LaunchError(f"{path}: cannot be read ({reason})") from None


def paste_includes(path):
    """The text of a file without comments, with #include "..." replaced by that file's text.

    #line directives keep the line numbers in error messages right.
    """
    def blank(comment):
        return "\n" * comment[0].count("\n") or " "

    text = COMMENT.sub(blank, read_text(path)).replace("#pragma once", "")
    lines = [f'#line 1 "{path.name}"']
    for number, line in enumerate(text.split("\n"), 1):
        include = re.fullmatch(r'#include "(\w+\.cuh)"\s*', line)
        if include:
            line = paste_includes(FOLDER / include[1]) + f'#line {number + 1} "{path.name}"'
        lines.append(line)
    return "\n".join(lines) + "\n"


def parse(parameter, kernel, path, structs):
    """The Parameter that a declaration such as "const real* __restrict__ x" declares."""
    match = PARAMETER.fullmatch(" ".join(parameter.replace("*", " * ").split()))
    known = (*TYPES, *OPTIONAL_TYPES, *structs)
    if not match or match[2] not in known or match[3] and match[2] in structs:
        raise LaunchError(f"{path}: {kernel}: cannot read the parameter {parameter!r}; expected "
                          f"one of {', '.join(known)}, or `const TYPE* __restrict__ name`")
    const, type_, pointer, name = match.groups()
    return Parameter(type_, bool(pointer), bool(const), name)


# ---------------------------------------------------------------------------- checking a launch
def check(source, name, grid, block, arguments, device):
    """The arguments as the kernel takes them: the device's arrays, NumPy scalars, or None.

    grid, block: three sizes each, from three(). Raises LaunchError.
    """
    if name not in source.kernels:
        there = ", ".join(source.kernels) or "none at all"
        raise LaunchError(f"{source.file} has no kernel {name!r}, but {there}")
    parameters, threads = source.kernels[name].parameters, source.kernels[name].threads
    if len(arguments) != len(parameters):
        names = ", ".join(p.name for p in parameters)
        raise LaunchError(f"{name}: expected {len(parameters)} arguments ({names}), "
                          f"got {len(arguments)}")
    if min(grid) < 1 or max(grid[1:]) > 65535 or grid[0] >= 1 << 31:
        raise LaunchError(f"{name}: expected a grid of 1 to (2147483647, 65535, 65535) blocks, "
                          f"got {grid}")
    if min(block) < 1 or block[2] > 64 or np.prod(block) > threads:
        raise LaunchError(f"{name}: expected a block within the launch bound, {threads} threads, "
                          f"and at most 64 of them along z, got {block}")
    types = TYPES | {"real": device.dtype, "operand": operand_type(device)} | source.structs
    return [check_argument(f"{name}: argument {p.name!r}", p, np.dtype(types[p.type]), a, device)
            for p, a in zip(parameters, arguments)]


def check_argument(what, parameter, dtype, argument, device):
    if dtype.names:
        return check_struct(what, dtype, argument)
    if not parameter.pointer:
        return check_scalar(what, parameter.type, dtype, argument)
    if argument is None and parameter.name.endswith("_or_null"):
        return None
    if not device.holds(argument):
        found = type(argument)
        raise LaunchError(f"{what}: expected an array on the {device.name}, "
                          f"got {found.__module__}.{found.__name__}")
    if argument.dtype != dtype:
        raise LaunchError(f"{what}: expected {dtype}, got {argument.dtype}")
    if not argument.flags.c_contiguous:
        raise LaunchError(f"{what}: not contiguous: shape {argument.shape}, "
                          f"strides {argument.strides}")
    if argument.size >= 1 << 31:
        raise LaunchError(f"{what}: {argument.size} elements; kernels count in int, "
                          f"up to {(1 << 31) - 1}")
    return argument


def check_scalar(what, type_name, dtype, number):
    accepted = (int, np.integer, float, np.floating) if dtype.kind == "f" else (int, np.integer)
    if not isinstance(number, accepted):
        raise LaunchError(f"{what}: expected a number of type {type_name}, got {number!r}")
    if dtype.kind != "f" and not np.iinfo(dtype).min <= number <= np.iinfo(dtype).max:
        raise LaunchError(f"{what}: {number} does not fit into {type_name}")
    return dtype.type(number)


def check_struct(what, dtype, members):
    """The numbers of a struct of ints as an array without axes, which CuPy passes by value."""
    if not isinstance(members, tuple) or len(members) != len(dtype.names):
        raise LaunchError(f"{what}: expected {len(dtype.names)} ints ({', '.join(dtype.names)}), "
                          f"got {members!r}")
    return np.array(tuple(check_scalar(f"{what}: {name}", "int", dtype[name], number)
                          for name, number in zip(dtype.names, members)), dtype)


def operand_type(device):
    """The dtype of arrays of operands. NumPy has no bf16: its bits are stored as integers."""
    return np.dtype(np.uint16) if device.precision == "bf16" else device.dtype


def type_options(dtype, precision):
    """The compile options for `real` and `operand`, the same for NVRTC and for a C++ compiler."""
    real = "double" if dtype == np.float64 else "float"
    operand = "bf16" if precision == "bf16" else real
    return f"-Dreal={real}", f"-Doperand={operand}"


def not_recording(device, what):
    """Raises LaunchError while the device records."""
    if device.recording is not None:
        raise LaunchError(f"{what} while operations are recorded: a recording can only hold "
                          "launches on arrays that exist already")


def three(size):
    """4 -> (4, 1, 1); (4, 2) -> (4, 2, 1). Raises LaunchError."""
    sizes = (size,) if np.ndim(size) == 0 else tuple(size)
    whole = all(isinstance(n, (int, np.integer)) for n in sizes)
    if not whole or not 1 <= len(sizes) <= 3:
        raise LaunchError(f"a grid or block of {size}: expected one to three whole numbers "
                          "(n // 4 is whole, n / 4 is not)")
    return tuple(map(int, sizes)) + (1,) * (3 - len(sizes))


# ------------------------------------------------------------------------------- compiled files
def cached(key, suffix, build):
    """The path of a file in the cache, which build(path) makes if it is not there yet.

    key: strings, all that the file depends on. At any moment the file is complete or absent; if a
    disk has damaged it since, its checksum says so, and it is made again.
    Raises DeviceError if the folder cannot be written.
    """
    folder = cache_folder()
    path = folder / (hashlib.sha256("\0".join(key).encode()).hexdigest()[:32] + suffix)
    checksum = path.with_suffix(".sha256")
    if path.exists() and checksum.exists() and checksum.read_text() == digest(path):
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            built = Path(temporary) / path.name
            build(built)
            with written(checksum, "w") as file:
                file.write(digest(built))
            with written(path) as file:
                file.write(built.read_bytes())
    except OSError as error:
        raise DeviceError(f"{folder}: cannot store compiled kernels there ({error.strerror}); "
                          "set SEMGAN_CACHE to a folder that can be written") from None
    return path
