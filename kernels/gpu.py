"""The GPU, through CuPy: CUDA's compiler NVRTC compiles the .cu files, the driver launches kernels.

Its counterpart without a GPU is emulator.py, with the same interface.
"""
import ctypes
import functools
import importlib.util
import os
import re
import sys
import time
from pathlib import Path

import numpy as np

from kernels.launch import (
    SHARED_LIMIT,
    DeviceError,
    KernelError,
    PrecisionError,
    cached,
    check,
    first_line,
    not_recording,
    read,
    three,
    type_options,
)


# ----------------------------------------------------------------------------------------- NVRTC
@functools.cache
def find_nvrtc():
    """(CuPy's binding of NVRTC, its version).

    CuPy 13 does not find the library of NVIDIA's wheels, so it is loaded here first.
    """
    from cupy_backends.cuda.libs import nvrtc
    try:
        return nvrtc, nvrtc.getVersion()
    except Exception:
        wheels = importlib.util.find_spec("nvidia")
        for folder in wheels.submodule_search_locations if wheels else ():
            for path in Path(folder).glob("*/*/*nvrtc*"):
                if re.search(r"nvrtc(\.so|64)", path.name):
                    ctypes.CDLL(str(path))
        return nvrtc, nvrtc.getVersion()


def compile_options(dtype, architecture, precision):
    return (
        f"--gpu-architecture={architecture}",
        "--std=c++17",
        *type_options(dtype, precision),
        "--device-as-default-execution-space",  # lets kernels use lambdas
    )


def compile_cubin(source, options):
    """(machine code, compiler log) from NVRTC, which needs no GPU and no driver.

    Raises KernelError.
    """
    nvrtc, _ = find_nvrtc()
    program = nvrtc.createProgram(source.text, source.file, (), ())
    try:
        nvrtc.compileProgram(program, options)
        cubin = nvrtc.getCUBIN(program) + b"\0"  # CuPy cuts off the last byte, a zero
        return cubin, nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise KernelError(f"{source.file}: {error}\n{log}") from None
    finally:
        nvrtc.destroyProgram(program)


def best_architecture(names, capability):
    """The best of `names` ("sm_75", ...) for a compute capability (major, minor), or None.

    Machine code runs on the same major version with the same or a higher minor one.
    """
    numbers = {divmod(int(name[3:]), 10): name for name in names if name[3:].isdigit()}
    fitting = [n for n in numbers if n[0] == capability[0] and n[1] <= capability[1]]
    return numbers[max(fitting)] if fitting else None


# -------------------------------------------------------------------------------------- the GPU
def find_gpu():
    """(CuPy, properties of the current GPU). Raises DeviceError."""
    try:
        import cupy
        if cupy.is_available():
            return cupy, cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    except Exception as error:  # no CuPy, libraries that do not load, no driver or an old one
        raise DeviceError(f"no GPU that CuPy can use: {first_line(error)}") from None
    raise DeviceError("no GPU that CuPy can use")


def nvrtc_version():
    try:
        return find_nvrtc()[1]
    except Exception as error:
        raise DeviceError(f"a GPU, but no CUDA compiler (NVRTC): {first_line(error)}") from None


class Gpu:
    """The GPU that CuPy has chosen. Its arrays are CuPy's."""
    name = "GPU"

    def __init__(self, dtype=np.float32, precision=None):
        """precision: "fp32", "tf32" or "bf16"; None is tf32 if the GPU has it, else fp32.

        Raises DeviceError.
        """
        self.cupy, properties = find_gpu()
        self.nvrtc = nvrtc_version()
        self.dtype = np.dtype(dtype)
        self.functions = {}    # (Source, name of a CUDA kernel) -> CuPy's function
        self.recording = None  # while recording: the arguments of all launches
        self.card = properties["name"].decode()
        self.capability = properties["major"], properties["minor"]
        self.multiprocessors = properties["multiProcessorCount"]
        self.shared_memory = properties["sharedMemPerMultiprocessor"]
        has_tensor_cores = self.capability >= (8, 0)  # for TF32 and bf16
        if precision in ("tf32", "bf16") and not has_tensor_cores:
            raise PrecisionError(f"{self.card} cannot multiply in {precision}: that needs compute "
                                 "capability 8.0 or more")
        use_tf32 = has_tensor_cores and self.dtype == np.float32
        self.precision = precision or ("tf32" if use_tf32 else "fp32")
        self.architecture(read("reductions.cu"))

    def __str__(self):
        return self.card

    def architecture(self, source):
        """The architecture for which to compile a source on this GPU. Raises DeviceError."""
        major, minor = self.capability
        names = source.architectures or [f"sm_{major}{minor}"]  # by default this GPU's own
        best = best_architecture(names, self.capability)
        if not best:
            raise DeviceError(f"{self.card} has compute capability {major}.{minor}; the kernels "
                              f"of {source.file} are for {', '.join(names)}")
        return best

    def allocate(self, size):
        """An array of `size` bytes."""
        not_recording(self, "an allocation")
        return self.cupy.empty(size, np.uint8)

    def view(self, buffer, size, lease):
        """The first bytes of a buffer, as an array that keeps `lease` alive."""
        if lease is None:
            return buffer[:size]
        lease.buffer = buffer
        memory = self.cupy.cuda.UnownedMemory(buffer.data.ptr, max(1, size), lease)
        return self.cupy.ndarray(size, np.uint8, self.cupy.cuda.MemoryPointer(memory, 0))

    def spoil(self, a):
        """Does nothing. The emulator fills the array with NaN."""

    def holds(self, a):
        return isinstance(a, self.cupy.ndarray) and a.device == self.cupy.cuda.Device()

    def upload(self, array):
        """A copy of a host array on the device."""
        not_recording(self, "an upload")
        return self.cupy.array(array, order="C")

    def write(self, a, array):
        """Copies a host array into an array on the device.

        Waits until that is done: `array` may be a temporary whose memory is freed after the call.
        """
        not_recording(self, "an upload")
        a.set(array)
        self.cupy.cuda.get_current_stream().synchronize()

    def download(self, a):
        """A copy of a device array on the host."""
        not_recording(self, "a download")
        return a.get()

    def load(self, source, kernel):
        """CuPy's function for a kernel, compiled or from the cache.

        CUDA gets the file's bytes: on Windows it does not open every path.
        """
        options = compile_options(self.dtype, self.architecture(source), self.precision)

        def build(path):
            path.write_bytes(compile_cubin(source, options)[0])
        path = cached((source.text, *options, str(self.nvrtc)), ".cubin", build)
        module = self.cupy.cuda.function.Module()
        module.load(path.read_bytes())
        return module.get_function(kernel)

    def launch(self, file, kernel, grid, block, *arguments, shared=0):
        """Runs a kernel of a .cu file. shared: bytes of dynamic shared memory per block."""
        grid, block, source = three(grid), three(block), read(file)
        arguments = check(source, kernel, grid, block, arguments, self)
        if self.recording is not None:
            self.recording.append(arguments)
        function = self.functions.get((source, kernel))
        if function is None:
            not_recording(self, f"{kernel} is compiled")
            function = self.functions[source, kernel] = self.load(source, kernel)
            driver = self.cupy.cuda.driver
            if shared:  # of what L1 cache and shared memory divide, 100 % may be shared
                driver.funcSetAttribute(
                    function.ptr, driver.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100)
            if shared > SHARED_LIMIT:
                driver.funcSetAttribute(
                    function.ptr, driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
        null = np.uint64(0)
        function(grid, block, tuple(null if a is None else a for a in arguments), shared_mem=shared)

    def record(self, run):
        """A function that repeats all launches of run(), as one CUDA graph.

        Nothing runs while run() is recorded. Transfers, single launches and graphs all go to CUDA's
        default stream, one after the other; only the recording needs a stream of its own. If the
        GPU or its driver cannot record, the result is `run` itself: slower, but training goes on.
        """
        not_recording(self, "a recording")
        self.recording = []
        try:
            graph = self.capture(run)
        except RuntimeError as error:
            print(f"No CUDA graph ({first_line(error.__context__ or error)}): "
                  "kernels are launched one by one, which is slower.", file=sys.stderr)
            return run
        finally:
            arguments, self.recording = self.recording, None

        def launch_graph():
            graph.launch()
        launch_graph.arguments = arguments  # CUDA does not keep the arrays of a graph alive
        return self.if_short(launch_graph, run) if os.name == "nt" else launch_graph

    def if_short(self, launch_graph, run):
        """launch_graph, or `run` if that takes more than a second. Decided at the first call.

        Windows resets a GPU that needs more than two seconds for a piece of work, such as a graph.
        """
        chosen = []

        def replay():
            if chosen:
                return chosen[0]()
            began = time.perf_counter()
            run()
            self.cupy.cuda.get_current_stream().synchronize()
            chosen.append(run if time.perf_counter() - began > 1 else launch_graph)
        return replay

    def capture(self, run):
        stream = self.cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            try:
                run()
            finally:  # after an error too, or the capture would never end
                graph = stream.end_capture()
        return graph
