"""Shared by all tests: the project on the path, the devices to test, small settings."""
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))

import semgan  # noqa: E402

DEVICES = ["numpy"]  # every gradient and parity test runs on each

TINY = dict(side=8, steps=20, batch_size=4, latent=5, kernel_size=3, generator_filters=[6, 5, 4],
            discriminator_filters=[5, 6], learning_rate=1e-3, discriminator_learning_rate=1e-3)
TINY_FLAGS = [word for name, value in TINY.items()
              for word in ("--" + name.replace("_", "-"), *map(str, value if isinstance(value, list) else [value]))]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def tiny(model="semgan", **changes):
    return semgan.resolve("shapes", "full", model, **TINY | changes)[0]
