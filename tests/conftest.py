"""Shared by all tests: the project on the path, the devices to test, small settings."""
import os
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))

import kernels  # noqa: E402
import semgan  # noqa: E402

DEVICES = ["numpy", "emulator"]  # every gradient and parity test runs on each, and on a GPU where there is one
try:
    kernels.Gpu()
    DEVICES.append(pytest.param("cuda", marks=pytest.mark.gpu))
except kernels.DeviceError:
    pass
try:
    kernels.compiler()
except kernels.DeviceError as error:
    if len(DEVICES) == 2:
        pytest.exit(f"the emulator {error}", returncode=1)
    DEVICES.remove("emulator")

TINY = dict(side=8, steps=20, batch_size=4, latent=5, kernel_size=3, generator_filters=[6, 5, 4],
            discriminator_filters=[5, 6], learning_rate=1e-3, discriminator_learning_rate=1e-3)
TINY_FLAGS = [word for name, value in TINY.items()
              for word in ("--" + name.replace("_", "-"), *map(str, value if isinstance(value, list) else [value]))]
WITHOUT_GPU = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}  # for processes whose output is compared


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def tiny(model="semgan", **changes):
    return semgan.settings(model=model, **TINY | changes)


class OnHost:
    """ops for NumPy arrays: arguments are brought to the device; results, and arguments that were written to, come back."""

    def __init__(self, ops):
        self.ops, self.dtype = ops, ops.dtype

    def __getattr__(self, name):
        def call(*args, **kwargs):
            ops = self.ops
            dtypes = {"f": ops.dtype, "u": np.uint8, "i": np.int32}
            pairs = [(a, ops.asarray(a, dtypes[a.dtype.kind])) for a in (*args, *kwargs.values()) if isinstance(a, np.ndarray)]
            there = lambda a: next((device for host, device in pairs if host is a), a)
            here = lambda a: next((host for host, device in pairs if device is a), None)
            results = getattr(ops, name)(*map(there, args), **{key: there(a) for key, a in kwargs.items()})
            for host, device in pairs:
                if host.flags.writeable:
                    host[...] = ops.asnumpy(device)
            back = lambda a: a if a is None else ops.asnumpy(a) if here(a) is None else here(a)
            return tuple(map(back, results)) if isinstance(results, tuple) else back(results)
        return call


def load(device, dtype=np.float32, precision="fp32"):
    """kernels.load for tests that compute with NumPy arrays on any device."""
    return OnHost(kernels.load(device, dtype, precision))
