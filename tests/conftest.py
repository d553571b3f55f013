"""Shared by all tests: the project on the path, the devices to test, small settings."""
import os
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))

import course_kernels  # noqa: E402
import course_mode  # noqa: E402

import kernels  # noqa: E402
import semgan  # noqa: E402
from kernels.gradient_check import on_host  # noqa: E402
from kernels.launch import PrecisionError  # noqa: E402

# Gradient and parity tests run on each of these, and on a GPU where there is one.
DEVICES = ["plain", "numpy", "emulator"]
try:
    kernels.Gpu()
    DEVICES.append(pytest.param("cuda", marks=pytest.mark.gpu))
except kernels.DeviceError:
    pass
NO_EMULATOR = None  # or why there is none
try:
    kernels.compiler()
except kernels.DeviceError as error:
    NO_EMULATOR = str(error)
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
    parser.addoption("--slow", action="store_true", help="also compile for every "
                     "architecture, all traps of CUDA exercises, all channels in convolutions")
    parser.addoption("--ops", metavar="FILE", help="check the operations (.py) or kernels (.cu) "
                     "that this file defines, and nothing else: tests/course_mode.py")
    parser.addoption("--points", metavar="FILE", help="with --ops: write the points as JSON")


def pytest_configure(config):
    config.student = {}  # {name: function, or path of the file with the kernel} of --ops
    config.faults = {}   # {(operation or kernel, kind): text or None} of what has been checked
    config.course = course_kernels if str(config.option.ops).endswith(".cu") else course_mode
    if config.option.ops:
        configure_course(config)
    elif NO_EMULATOR and "cuda" not in str(DEVICES):
        pytest.exit(f"the emulator {NO_EMULATOR}", returncode=1)


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """A GPU older than sm_80 has neither TF32 nor bf16: tests that ask for them are skipped."""
    outcome = yield
    if outcome.excinfo and isinstance(outcome.excinfo[1], PrecisionError):
        outcome.force_exception(pytest.skip.Exception(str(outcome.excinfo[1])))


# ------------------------------------------------------------------------------------ course mode
def configure_course(config):
    """Reads the student's file. Reports are short: no tracebacks, no warnings."""
    option = config.option
    if getattr(option, "numprocesses", None):
        raise pytest.UsageError("--ops checks in one process: leave out -n")
    try:
        config.student = config.course.read(option.ops)
    except course_mode.BadFile as error:
        if option.points:
            course_mode.write_points(option.points, option.ops, {}, str(error))
        raise pytest.UsageError(str(error)) from None
    option.tbstyle, option.reportchars, option.disable_warnings = "no", "", True


def pytest_generate_tests(metafunc):
    if "task" in metafunc.fixturenames:
        tasks = metafunc.config.course.tasks(metafunc.config.student)
        metafunc.parametrize("task", tasks, ids=map(" ".join, tasks))


def pytest_collection_modifyitems(config, items):
    """With --ops the student's tasks alone; without, everything else."""
    course = bool(config.option.ops)
    if course:
        config.hook.pytest_deselected(items=[item for item in items if not is_task(item)])
    items[:] = [item for item in items if is_task(item) == course]


def is_task(item):
    return "task" in getattr(item, "fixturenames", ())


def pytest_terminal_summary(terminalreporter, config):
    if config.faults:
        terminalreporter.section(str(config.option.ops))
        launching = getattr(config.course, "launching", None)  # of kernels
        for line in course_mode.report(config.faults, launching):
            terminalreporter.write_line(line)
        if config.option.points:
            course_mode.write_points(config.option.points, config.option.ops, config.faults,
                                     launching=launching)


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def tiny(model="semgan", preset="full", **changes):
    return semgan.settings(preset=preset, model=model, **TINY | changes)


def load(device, dtype=np.float32, precision="fp32"):
    """kernels.load for tests that compute with NumPy arrays on any device."""
    return on_host(kernels.load(device, dtype, precision))
