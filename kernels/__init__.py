"""The arithmetic: one contract of operations (contract.py), and the backends that fulfil it."""
from pathlib import Path

import numpy as np

from kernels.cuda_ops import CudaOps
from kernels.emulator import Emulator
from kernels.emulator_library import compiler
from kernels.gpu import Gpu, find_nvrtc
from kernels.launch import DeviceError, KernelError, LaunchError, first_line  # noqa: F401
from kernels.numpy_engine import NumpyEngine
from kernels.plain import PlainOps

DEVICES = ("auto", "numpy", "cuda", "emulator", "plain")
PRECISIONS = ("fp32", "tf32", "bf16")
ON_HOST = {"numpy": NumpyEngine, "plain": PlainOps}


def load(device="auto", dtype=np.float32, precision=None, replace=None):
    """The operations on a device. ops.why says in one sentence why it was chosen.

    device     "cuda": the CUDA kernels on a GPU. "numpy": NumPy on all cores. "emulator": the CUDA
               kernels on the CPU, for study and tests. "plain": the pure functions of
               numpy_ops.py, slow. "auto": a GPU if there is one, else NumPy.
    dtype      float32, or float64 for gradient checks.
    precision  what convolutions round their factors to: "fp32" not at all, "tf32" or "bf16" for
               tensor cores. Sums and everything else stay in dtype. None means tf32 on a GPU whose
               tensor cores can do it (compute capability 8.0), else fp32.
    replace    a .cu file whose kernels replace those of the same name, on a GPU or emulated.

    Raises DeviceError, with one line, if that is not possible here.
    """
    check(device, dtype, precision)
    reason, hardware = "asked for", None
    if device not in ON_HOST:
        try:
            hardware, reason = find(device, dtype, precision)
        except DeviceError as error:
            if device != "auto":
                raise DeviceError(f"device {device!r}: {error}") from None
            reason = str(error)
    if hardware:
        try:
            ops = CudaOps(hardware, replace=replace)
        except LaunchError as error:
            raise DeviceError(f"--replace: {error}") from None
        ops.why = f"CUDA kernels in {hardware.precision} on {hardware} ({reason})"
        if replace:
            ops.why += f"; of {Path(replace).name}: {', '.join(ops.replaced)}"
        return ops
    if replace:
        raise DeviceError("--replace: for device cuda or emulator only")
    if precision in PRECISIONS[1:]:
        why = f" ({reason})" if device == "auto" else ""
        raise DeviceError(f"precision {precision}: for device cuda or emulator only{why}")
    ops = ON_HOST["numpy" if device == "auto" else device](dtype)
    ops.why = f"{ops.arithmetic} on {ops} ({reason})"
    return ops


def check(device, dtype, precision):
    """Raises DeviceError unless the arguments of `load` are known and fit together."""
    if device not in DEVICES:
        raise DeviceError(f"device {device!r}: expected {', '.join(DEVICES)}")
    if precision not in (None, *PRECISIONS):
        raise DeviceError(f"precision {precision!r}: expected {', '.join(PRECISIONS)}")
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise DeviceError(f"dtype {np.dtype(dtype)}: expected float32 or float64")
    if precision in PRECISIONS[1:] and np.dtype(dtype) == np.float64:
        raise DeviceError(f"precision {precision}: for dtype float32 only")


def find(device, dtype, precision):
    """The emulated device or the GPU, and why that one. Raises DeviceError."""
    if device == "emulator":
        return Emulator(dtype, precision or "fp32"), "asked for"
    return Gpu(dtype, precision), "found" if device == "auto" else "asked for"


def found():
    """[(component, what this machine has)], for the command `doctor`."""
    def ask(question):
        try:
            return question()
        except Exception as error:  # missing libraries fail in many ways
            return f"none ({first_line(error)})"

    def driver():
        import cupy
        number = cupy.cuda.runtime.driverGetVersion()
        return f"for CUDA {number // 1000}.{number % 1000 // 10}" if number else "none"

    def card():
        gpu = Gpu()
        return f"{gpu}, compute capability {gpu.capability[0]}.{gpu.capability[1]}"
    return [("NVRTC", ask(lambda: "{}.{}".format(*find_nvrtc()[1]))),
            ("driver", ask(driver)),
            ("GPU", ask(card)),
            ("C++ compiler", ask(lambda: compiler()[1].splitlines()[0]))]
