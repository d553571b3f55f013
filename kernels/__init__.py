"""The arithmetic: one contract of operations, described in numpy_ops.py, and the backends that implement it."""
import numpy as np


class DeviceError(ValueError):
    """A device, dtype or precision that cannot be had here."""


def load(device="auto", dtype=np.float32, precision="fp32"):
    """The backend for `device` ("auto" or "numpy"); ops.why says in one sentence how it came to be chosen.

    dtype is float32, or float64 for gradient checks. Raises DeviceError with one line if the choice cannot be had.
    """
    if device not in ("auto", "numpy"):
        raise DeviceError(f"device {device!r}: expected auto or numpy; the CUDA kernels are not part of this version")
    if precision != "fp32":
        raise DeviceError(f"precision {precision!r}: NumPy computes in fp32 only")
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise DeviceError(f"dtype {np.dtype(dtype)}: expected float32 or float64")
    from kernels.numpy_ops import NumpyOps
    ops = NumpyOps(dtype)
    reason = "asked for" if device == "numpy" else "the only backend of this version"
    ops.why = f"NumPy on {ops.lanes} CPU core{'s' * (ops.lanes > 1)} ({reason})"
    return ops
