"""The arithmetic: one contract of operations, described in numpy_ops.py, and the backends that implement it."""
import numpy as np

from kernels.cuda_ops import CudaOps
from kernels.emulator import Emulator, compiler
from kernels.gpu import Gpu, find_nvrtc
from kernels.launch import DeviceError, KernelError, first_line  # noqa: F401
from kernels.numpy_ops import NumpyOps

DEVICES = ("auto", "numpy", "cuda", "emulator")
PRECISIONS = ("fp32", "tf32", "bf16")


def load(device="auto", dtype=np.float32, precision=None):
    """The operations on `device`; ops.why says in one sentence how it came to be chosen.

    "cuda": the CUDA kernels on a GPU. "numpy": NumPy. "emulator": the CUDA kernels on the CPU, for study and for tests.
    "auto": a GPU if there is one, else NumPy. dtype is float32, or float64 for gradient checks. precision is what convolutions
    round their operands to: "fp32" not at all, "tf32" or "bf16" for tensor cores; sums and all else stay in dtype. None is
    tf32 on a GPU that has tensor cores for it (sm_80, Ampere), else fp32. Raises DeviceError with one line if the choice
    cannot be had.
    """
    if device not in DEVICES:
        raise DeviceError(f"device {device!r}: expected {', '.join(DEVICES)}")
    if precision not in (None, *PRECISIONS):
        raise DeviceError(f"precision {precision!r}: expected {', '.join(PRECISIONS)}")
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise DeviceError(f"dtype {np.dtype(dtype)}: expected float32 or float64")
    if precision in PRECISIONS[1:] and np.dtype(dtype) == np.float64:
        raise DeviceError(f"precision {precision}: of float32 numbers only")
    reason, hardware = "asked for", None
    try:
        if device != "numpy":
            hardware = Emulator(dtype, precision or "fp32") if device == "emulator" else Gpu(dtype, precision)
            reason = "found" if device == "auto" else reason
    except DeviceError as error:
        if device != "auto":
            raise DeviceError(f"device {device!r}: {error}") from None
        reason = str(error)
    if not hardware and precision in PRECISIONS[1:]:
        raise DeviceError(f"precision {precision}: on device cuda or emulator only" + f" ({reason})" * (device == "auto"))
    ops = CudaOps(hardware) if hardware else NumpyOps(dtype)
    ops.arithmetic = f"the {ops.name} in {hardware.precision}" if hardware else "NumPy"
    ops.why = f"{f'CUDA kernels in {hardware.precision}' if hardware else 'NumPy'} on {hardware or ops} ({reason})"
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
