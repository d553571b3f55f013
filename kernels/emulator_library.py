"""The .cu files as libraries of the CPU: emulator.h in front, then an ordinary C++ compiler."""
import ctypes
import functools
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys

from kernels.launch import (
    FOLDER,
    KERNEL,
    DeviceError,
    KernelError,
    LaunchError,
    cached,
    type_options,
)

# Declarations of shared memory, one array each, which emulator_text() rewrites.
SHARED = re.compile(r"(?:static )?__shared__\s+(?:__align__\(\d+\)\s+)?"
                    r"([\w ]+?)\s+(\w+)\s*((?:\[[^\]]*\])*);")
DYNAMIC_SHARED = re.compile(r"extern __shared__\s+(?:__align__\(\d+\)\s+)?([\w ]+?)\s+(\w+)\[\];")
# A vector that is read from an array of numbers, as in *(const float4*)(x + i)
VECTOR_CAST = re.compile(r"\((const )?(float2|float4|double2|Four|Vector)\s*\*\)")
LIBRARY = re.compile(r"#include\s*<([\w./]+)>")
MOST_SHARED = 64  # such declarations in a file; emulator.h has as many places


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
    befores = [text[:match.start()] for match in re.finditer("__shared__", text)]
    outside = any(before.count("{") == before.count("}") for before in befores)
    count = 0

    def shared(match):
        nonlocal count
        (kind, name, dims), number = match.groups(), count
        count += 1
        return (f"auto& {name} = "
                f"*({kind} (*){dims})emulator::shared(sizeof({kind}{dims}), {number});")
    text = DYNAMIC_SHARED.sub(r"auto \2 = emulator::dynamic_shared<\1>();", text)
    text = SHARED.sub(shared, text)
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
