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
from kernels.gradient_check import on_host  # noqa: E402

# Gradient and parity tests run on each of these, and on a GPU where there is one.
DEVICES = ["plain", "numpy", "emulator"]
try:
    kernels.Gpu()
    DEVICES.append(pytest.param("cuda", marks=pytest.mark.gpu))
except kernels.DeviceError:
    pass
try:
    kernels.compiler()
except kernels.DeviceError as error:
    if "cuda" not in str(DEVICES):
        pytest.exit(f"the emulator {error}", returncode=1)
    DEVICES.remove("emulator")
CUDA_DEVICES = [device for device in DEVICES if device not in ("plain", "numpy")]

TINY = dict(side=8, steps=20, batch_size=4, latent=5, kernel_size=3, generator_filters=[6, 5, 4],
            discriminator_filters=[5, 6], learning_rate=1e-3, discriminator_learning_rate=1e-3)
TINY_FLAGS = []
for name, value in TINY.items():
    values = value if isinstance(value, list) else [value]
    TINY_FLAGS += ["--" + name.replace("_", "-"), *map(str, values)]
WITHOUT_GPU = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}  # for processes whose output is compared


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also compile for every architecture")


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def tiny(model="semgan", preset="full", **changes):
    return semgan.settings(preset=preset, model=model, **TINY | changes)


def load(device, dtype=np.float32, precision="fp32"):
    """kernels.load for tests that compute with NumPy arrays on any device."""
    return on_host(kernels.load(device, dtype, precision))
