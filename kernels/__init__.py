"""The arithmetic: one contract of operations, described in numpy_ops.py, and the backends that implement it."""
import numpy as np

from kernels.cuda_ops import CudaOps
from kernels.emulator import Emulator, compiler
from kernels.launch import DeviceError, Gpu, find_nvrtc, first_line
from kernels.numpy_ops import NumpyOps

DEVICES = ("auto", "numpy", "cuda", "emulator")


def load(device="auto", dtype=np.float32, precision="fp32"):
    """The operations on `device`; ops.why says in one sentence how it came to be chosen.

    "cuda": the CUDA kernels on a GPU. "numpy": NumPy. "emulator": the CUDA kernels on the CPU, for study and for tests.
    "auto": a GPU if there is one, else NumPy. dtype is float32, or float64 for gradient checks. Raises DeviceError with one
    line if the choice cannot be had.
    """
    if device not in DEVICES:
        raise DeviceError(f"device {device!r}: expected {', '.join(DEVICES)}")
    if precision != "fp32":
        raise DeviceError(f"precision {precision!r}: expected fp32")
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise DeviceError(f"dtype {np.dtype(dtype)}: expected float32 or float64")
    reason, hardware = "asked for", None
    try:
        if device != "numpy":
            hardware = Emulator(dtype) if device == "emulator" else Gpu(dtype)
            reason = "found" if device == "auto" else reason
    except DeviceError as error:
        if device != "auto":
            raise DeviceError(f"device {device!r}: {error}") from None
        reason = str(error)
    ops = CudaOps(hardware) if hardware else NumpyOps(dtype)
    ops.why = f"{'CUDA kernels' if hardware else 'NumPy'} on {hardware or ops} ({reason})"
    return ops


def found():
    """[(what, what this machine has of it)], for `doctor`."""
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
    return [("NVRTC", ask(lambda: "{}.{}".format(*find_nvrtc()[1]))), ("driver", ask(driver)), ("GPU", ask(card)),
            ("C++ compiler", ask(lambda: compiler()[1].splitlines()[0]))]
