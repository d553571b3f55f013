"""Course mode for CUDA kernels: those that a student wrote, each checked in the emulator.

    python -m pytest tests/test_gradients.py --ops my.cu [-k softmax] [--points FILE]

my.cu holds kernels with the names and parameters of the project's, see kernels/replacement.py. Each
stands in for the project's alone, so that it answers for itself only. All operations that launch it
are checked, in float64. What the emulator finds, such as a race, is reported in its own words.
Beware: grading runs the student's code. Do that in a container, with a time limit.
"""
import copy
import functools
import re
import time
from pathlib import Path

import numpy as np
from course_mode import (
    SHAPES,
    TOLERANCE,
    BadFile,
    Fault,
    described,
    difference,
    more_cases,
    named,
    one_line,
)

from kernels import launch, numpy_ops
from kernels.contract import OPERATIONS
from kernels.cuda_ops import CudaOps
from kernels.emulator import Emulator
from kernels.emulator_library import emulator_library
from kernels.gradient_check import CASES, check_operation, on_host, value_cases
from kernels.launch import DeviceError, KernelError, LaunchError, first_line
from tutorial.checks import same

MORE_SHAPES = [(2, 17, 13, 9), (1, 3, 2, 150)]  # several blocks along each axis
SECONDS = 5      # a launch is stopped if none of its blocks ends for so long
ALL_SECONDS = 60  # that all launches of a check may take together
LOW = 1e-5       # the error of a kernel that is right, but computes in float


class Stopped(Fault):
    """The emulator has stopped a kernel, or refused to launch it."""


class Grader(Emulator):
    """Notes the names of the kernels that are launched. With run=False it runs none of them."""

    def __init__(self, run=True):
        super().__init__(np.float64, seconds=SECONDS)
        self.run, self.launched, self.began = run, set(), time.monotonic()

    def launch(self, file, kernel, *arguments, **shared):
        self.launched.add(kernel)
        if time.monotonic() - self.began > ALL_SECONDS:
            raise Stopped(f"too slow: stopped after {ALL_SECONDS} seconds")
        if self.run:
            try:
                super().launch(file, kernel, *arguments, **shared)
            except (KernelError, LaunchError) as error:
                raise Stopped(first_line(error)) from None


def graded(replaced, name, run=True):
    """Operations on NumPy arrays in which kernels are replaced. name: of the one to be checked."""
    ops = CudaOps(Grader(run))
    ops.replaced = replaced
    if name not in launch.read("few_channels.cu").kernels:
        ops.few_channels = 0  # convolutions of every shape launch the kernels of conv/
    return on_host(ops)


# --------------------------------------------------------------------------------- the file
def read(path):
    """{name: path} of all kernels in a file. Raises BadFile."""
    try:
        replaced = CudaOps(Grader(), replace=path).replaced
        if not any(map(launching, replaced)):
            raise LaunchError(f"{path}: no operation in float64 launches {' or '.join(replaced)}")
        emulator_library(launch.read(Path(path).resolve()), np.dtype(np.float64), "fp32", True)
    except (LaunchError, DeviceError) as error:
        raise BadFile(str(error)) from None
    except KernelError as error:
        first, *rest = str(error).splitlines()
        advice = [f" {line}" for line in rest if line.startswith("In the emulator")]
        raise BadFile(first + "".join(advice)) from None
    return replaced


def launching(name):
    """The operations that launch a kernel, in the order of the contract."""
    found = {operation for operation, _, launched in cases(name) if name in launched}
    return [operation for operation in OPERATIONS if operation in found]


def cases(name):
    """[(operation, arguments, names of the kernels that it launches)], of all cases."""
    return cases_by(name in launch.read("few_channels.cu").kernels)


@functools.cache
def cases_by(few_channels):
    rng, found = np.random.default_rng(0), []
    every = [case for shape in SHAPES + MORE_SHAPES for case in value_cases(rng, shape)]
    for operation, arguments in [*every, *more_cases(rng), *large_cases(rng)]:
        ops = graded({}, "sum_shifted" if few_channels else "conv", run=False)
        getattr(ops, operation)(*copy.deepcopy(arguments))
        found.append((operation, arguments, ops.ops.device.launched))
    return found


def large_cases(rng):
    """Several tiles of convolutions in each direction; over 256 blocks; a table of int."""
    x, w, dy = (rng.standard_normal(shape)
                for shape in ((2, 13, 11, 70), (3, 3, 70, 67), (2, 7, 6, 67)))
    yield "conv", (x, w, 2, 1)
    yield "conv_input_grad", (dy, w, x.shape, 2, 1)
    yield "conv_weight_grad", (x, dy, w.shape, 2, 1)
    yield "feature_matching", (*rng.standard_normal((2, 1, 131, 127, 4)), "mean")
    yield "take_row", (rng.integers(0, 9, (7, 3, 50)).astype(np.int32), np.full(1, 23.0))


@functools.cache
def launched_in(case, name):
    """The kernels that are launched in a case of gradient_check.py, to check the kernel `name`."""
    ops = graded({}, name, run=False)
    with np.errstate(all="ignore"):
        loss, _, _ = CASES[case](ops, np.random.default_rng(1))
        loss()
    return ops.ops.device.launched


def tasks(kernels):
    """[(kernel, "value" or "gradient")] of what can be checked."""
    kinds = {name: ["value"] + ["gradient"] * bool(gradient_cases(name))
             for name in kernels if launching(name)}
    return [(name, kind) for name, found in kinds.items() for kind in found]


def gradient_cases(name):
    return [case for case in CASES if name in launched_in(case, name)]


# ---------------------------------------------------------------------------------- checks
def check(kernels, name, kind, path):
    """Raises Fault if an operation that launches the kernel `name` has wrong values or gradients.

    Beside it the project's kernels run; those of the file only to see whether all of them agree.
    """
    of_kind = check_values if kind == "value" else check_gradients
    try:
        of_kind({name: kernels[name]}, name)
    except Stopped:
        raise
    except Fault as fault:
        raise Fault(f"{fault}{note(of_kind, kernels, name)}") from None


def note(of_kind, kernels, name):
    """What to add if a kernel that disagrees with the project's agrees with another of the file."""
    together = {other for _, _, launched in cases(name) if name in launched for other in launched}
    for other in kernels:
        if other != name and other in together:
            try:
                of_kind({name: kernels[name], other: kernels[other]}, name)
            except Fault:
                continue
            return f" (it fits your own {other}: each must fit the project's)"
    return ""


def check_values(replaced, name):
    ops = graded(replaced, name)
    for operation, arguments, launched in cases(name):
        if name not in launched:
            continue
        where = f"in {operation} for {described(operation, arguments)}: "
        try:
            with np.errstate(all="ignore"):
                right = getattr(numpy_ops, operation)(*copy.deepcopy(arguments))
                found = getattr(ops, operation)(*arguments)
        except Stopped as stopped:
            raise Stopped(f"{where}{stopped}") from None
        if same(found, right, TOLERANCE):
            continue
        if same(found, right, LOW):
            raise Fault(f"{where}right to a few digits only. `real` is double here: is something "
                        "a float?")
        fault = difference(operation, found, right, named(operation, arguments))
        fault = re.sub(r"NaN\. Often.*", "NaN: numbers that no thread writes are NaN in the "
                       "emulator.", fault)
        raise Fault(where + fault)


def check_gradients(replaced, name):
    for case in gradient_cases(name):
        try:
            with np.errstate(all="ignore"):
                check_operation(case, graded(replaced, name))
        except AssertionError as error:
            raise Fault(f"case {one_line(error)}") from None
        except Stopped as stopped:
            raise Stopped(f"case {case}: {stopped}") from None
