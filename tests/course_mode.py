"""Course mode: operations that a student wrote, each checked for its values and its gradient.

    python -m pytest tests/test_gradients.py --ops my_ops.py [-k softmax] [--points FILE]

my_ops.py holds functions named as in kernels/contract.py, with the arguments of
kernels/numpy_ops.py. Only what it defines is checked. Helpers have names that start with `_`.
For CUDA kernels in a .cu file see course_kernels.py.
Beware: grading runs the student's code. Do that in a container, with a time limit.
"""
import copy
import difflib
import functools
import importlib.util
import inspect
import json
import traceback
from pathlib import Path

import numpy as np

from kernels import numpy_ops
from kernels.contract import OPERATIONS, conv_shape
from kernels.gradient_check import CASES, check_operation, on_host, value_cases
from kernels.plain import PlainOps
from tutorial.checks import diagnose, same, sizes_of

SHAPES = [(3, 5, 7, 4), (1, 1, 1, 1), (2, 9, 6, 5)]  # of maps: several sizes, all different
TOLERANCE = 1e-9  # of values, relative to the largest
RESULTS = {  # names of the results, of operations that have several
    "bias_activation_grad": "dx dbias",
    "batch_norm": "y mean var running_mean running_var",
    "batch_norm_grad": "dx dgamma dbeta",
    "softmax_grad": "dx dbias",
    "bce_with_logits": "loss dlogits",
    "softmax_cross_entropy": "loss dx",
    "feature_matching": "loss dfake",
    "moment_matching": "loss dfake",
    "adam": "params m v step",
    "split": "first second",
}


class BadFile(Exception):
    """The student's file cannot be graded; the message is one line."""


class Fault(Exception):
    """What is wrong with a function, in one line."""


# --------------------------------------------------------------------------------- the file
def read(path):
    """{name: function} of all operations that a file defines. Raises BadFile."""
    path = Path(path)
    if not path.is_file():
        raise BadFile(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location("student_operations", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise BadFile(f"{path}, line {error.lineno}: SyntaxError: {error.msg}") from None
    except (Exception, SystemExit) as error:
        raise BadFile(f"{path}{place(error, path)}: {type(error).__name__}: {error}") from None
    functions = {name: value for name, value in vars(module).items() if inspect.isfunction(value)
                 and value.__module__ == module.__name__ and not name.startswith("_")}
    if not functions:
        raise BadFile(f"{path}: defines no operation; expected some of {', '.join(OPERATIONS)}")
    for name, function in functions.items():
        check_name(path, name)
        check_arguments(path, name, function)
    return functions


def place(error, path):
    """", line 7" for the innermost line of the file that an error went through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
             if Path(frame.filename).resolve() == Path(path).resolve()]
    return f", line {lines[-1]}" if lines else ""


def check_name(path, name):
    if name not in OPERATIONS:
        close = difflib.get_close_matches(name, OPERATIONS, 1)
        advice = f"did you mean {close[0]}? " if close else ""
        raise BadFile(f"{path}: there is no operation {name}; {advice}"
                      "Names of helpers start with _")


def check_arguments(path, name, function):
    def arguments(f):
        return [(p.name, p.default) for p in inspect.signature(f).parameters.values()]
    right = getattr(numpy_ops, name)
    if arguments(function) != arguments(right):
        raise BadFile(f"{path}: {name}{inspect.signature(function)} has other arguments than "
                      f"{name}{inspect.signature(right)} in kernels/numpy_ops.py")


# ---------------------------------------------------------------------------------- tasks
def tasks(functions):
    """[(operation, "value" or "gradient")] of what can be checked."""
    kinds = {name: ["value"] + ["gradient"] * bool(cases_with(name)) for name in functions}
    return [(name, kind) for name in OPERATIONS if name in kinds for kind in kinds[name]]


def cases_with(name):
    """The cases of gradient_check.py in which an operation is called."""
    return [case for case in CASES if name in called_in(case)]


@functools.cache
def called_in(case):
    called = set()

    class Recorder:
        def __getattr__(self, name):
            called.add(name)
            return getattr(numpy_ops, name)
    loss, _, _ = CASES[case](Recorder(), np.random.default_rng(1))
    loss()
    return called


def check(functions, name, kind, path):
    """Raises Fault if the function `name` has wrong values, or a gradient that does not fit."""
    try:
        with np.errstate(all="ignore"):
            if kind == "value":
                check_values(name, functions[name])
            else:
                check_gradients(name, functions)
    except AssertionError as error:
        raise Fault(one_line(error)) from None
    except Fault:
        raise
    except Exception as error:  # the student's
        raise Fault(f"it stops with {type(error).__name__}: {one_line(error)} "
                    f"({path.name}{place(error, path)})") from None


def one_line(error):
    return " ".join(str(error).split())


def check_values(name, function):
    rng = np.random.default_rng(0)
    cases = [case for shape in SHAPES for case in value_cases(rng, shape)] + list(more_cases(rng))
    for operation, arguments in cases:
        if operation == name:
            right = getattr(numpy_ops, name)(*copy.deepcopy(arguments))
            given = copy.deepcopy(arguments)
            found = function(*given)
            if not same(found, right, TOLERANCE):
                fault = difference(name, found, right, named(name, arguments))
                raise Fault(f"for {described(name, arguments)}: {fault}")
            if not same(arrays(given), arrays(arguments), 0):
                raise Fault("it changes its arguments")


def difference(name, found, right, arguments):
    """A sentence about how a result differs from the right one; which of several, by name."""
    parts = [(found, right, "")]
    if isinstance(right, tuple) and isinstance(found, tuple) and len(found) == len(right):
        names = [f"{n}: " for n in RESULTS[name].split()]
        parts = [part for part in zip(found, right, names) if not same(*part[:2], TOLERANCE)]
    found, right, result = parts[0]
    return result + diagnose(found, right, sizes_of(arguments))


def named(name, arguments):
    return dict(zip(inspect.signature(getattr(numpy_ops, name)).parameters, arguments))


def more_cases(rng):
    """Strides and paddings of convolutions, fused forms, and extreme numbers."""
    x, w, bias = rng.standard_normal((2, 9, 6, 3)), rng.standard_normal((3, 5, 3, 4)), np.ones(4)
    for stride, pad in ((2, 2), ((2, 3), (1, 2)), (1, 0)):
        dy = rng.standard_normal(conv_shape(x.shape, w.shape, stride, pad))
        yield "conv", (x, w, stride, pad)
        yield "conv", (x, w, stride, pad, bias, "relu")
        yield "conv_input_grad", (dy, w, x.shape, stride, pad)
        yield "conv_input_grad", (dy, w, x.shape, stride, pad, bias[:3], "tanh")
        yield "conv_weight_grad", (x, dy, w.shape, stride, pad)
    yield "softmax", (1000 * x,)
    yield "bce_with_logits", (1000 * x, rng.uniform(0, 1, x.shape))
    yield "batch_norm", (1e4 + x, *rng.standard_normal((4, 3)))
    yield "adam", (*rng.standard_normal((3, 7)), rng.uniform(0, 1, 7), np.ones(1),
                   np.full(1, 0.5), 0.9, 0.999, 0.1)  # an eps that shows


def described(name, arguments):
    """The arguments as a student would write them: "x (3, 5, 7, 4), bias None"."""
    words = [f"{n} {np.shape(a)}" if isinstance(a, np.ndarray) else f"{n} {a!r}"
             for n, a in named(name, arguments).items() if not isinstance(a, list)]
    return ", ".join(words) or "its arguments"


def arrays(arguments):
    return [a for a in arguments if isinstance(a, np.ndarray)]


def check_gradients(name, functions):
    """The function alone among the project's, so that it answers for itself only."""
    for case in cases_with(name):
        try:
            check_operation(case, with_ops({name: functions[name]}))
        except AssertionError as error:
            raise Fault(f"case {one_line(error)}{note(name, case, functions)}") from None


def with_ops(functions):
    replace = {name: guarded(name, function) for name, function in functions.items()}
    return on_host(PlainOps(np.float64, replace))


def guarded(name, function):
    """The function; raises Fault where its result has another form than the right one."""
    def call(*args, **kwargs):
        right = getattr(numpy_ops, name)(*args, **kwargs)
        found = function(*args, **kwargs)
        if forms(found) != forms(right):
            raise Fault(f"no gradient to check: {diagnose(found, right)}")
        return found
    return call


def forms(result):
    return [np.shape(a) if isinstance(a, np.ndarray) else type(a)
            for a in (result if isinstance(result, tuple) else (result,))]


def note(name, case, functions):
    """What to add if functions that disagree with the project's agree with each other."""
    others = [other for other in functions if other != name and other in called_in(case)]
    if not others:
        return ""
    try:
        check_operation(case, with_ops(functions))
    except Exception:
        return ""
    return f" (it fits your own {' and '.join(others)}: look at the values)"


# --------------------------------------------------------------------------------- report
def report(faults, launching=None):
    """Lines of the table of points, and below it a line for each fault.

    faults: {(name of an operation, kind): text, or None if all is well}; of a kernel, if launching
    is a function from its name to the operations that launch it
    """
    names = list(dict.fromkeys(name for name, _ in faults))
    head = "kernel" if launching else "operation"
    width = max(map(len, [*names, head]))
    yield f"{head:{width}}  value  gradient  points" + "  launched by" * bool(launching)
    for name in names:
        words = [{True: "right", False: "wrong"}[faults[name, kind] is None]
                 if (name, kind) in faults else "-" for kind in ("value", "gradient")]
        by = f"  {', '.join(launching(name))}" if launching else ""
        yield f"{name:{width}}  {words[0]:5}  {words[1]:8}  {points_of(faults, name)}{by}"
    yield f"{'all':{width}}  {'':5}  {'':8}  {points_of(faults)}"
    for (name, kind), fault in faults.items():
        if fault is not None:
            yield f"{name}, {kind}: {fault}"
    missing = [] if launching else partners(names)
    if missing:
        yield f"not checked, since the file does not define it: {', '.join(missing)}"


def partners(names):
    """The gradients of operations, and operations of gradients, that are not among the names."""
    together = [{name, *gradients} for name, gradients in OPERATIONS.items()
                if name != "conv_input_grad"]  # as an operation of its own
    return [name for name in OPERATIONS if name not in names
            and any(name in group and group & set(names) for group in together)]


def points_of(faults, name=None):
    """"1 of 2": a point for each value and each gradient that is right."""
    chosen = [fault for (operation, _), fault in faults.items() if name in (None, operation)]
    return f"{chosen.count(None)} of {len(chosen)}"


def write_points(path, file, faults, error=None, launching=None):
    """A JSON file: points, and for each operation whether value and gradient are right."""
    parts = {}
    for (name, kind), fault in faults.items():
        parts.setdefault(name, {})[kind] = {"points": int(fault is None), "fault": fault}
    result = {"file": str(file), "points": list(faults.values()).count(None), "of": len(faults)}
    if launching:
        launched_by = {name: {"launched_by": launching(name)} for name in parts}
        result["kernels"] = {name: launched_by[name] | part for name, part in parts.items()}
    else:
        result |= {"operations": parts, "not_defined": partners(parts)}
    if error:
        result["error"] = error
    Path(path).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
