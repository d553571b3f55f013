"""Course mode on files that a student might hand in."""
import json
import subprocess
import sys

import course_mode
import numpy as np
import pytest
from conftest import ROOT

from kernels import numpy_ops
from kernels.contract import OPERATIONS

RIGHT = '''
import numpy as np


def softmax(x, bias=None):
    return _over_classes(np.exp, x if bias is None else x + bias)


def softmax_grad(dp, p):
    dx = p * (dp - (p * dp).sum(-1, keepdims=True))
    return dx, dx.sum((0, 1, 2))


def _over_classes(f, z):
    e = f(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
'''
SUM, TAKE_MAX = "(p * dp).sum(-1, keepdims=True)", "z - z.max(-1, keepdims=True)"
BOTH = {"softmax", "softmax_grad"}


@pytest.fixture
def graded(tmp_path):
    """A function from the text of a file to {(operation, kind): fault or None}."""
    def grade(text):
        path = tmp_path / "my_ops.py"
        path.write_text(text)
        functions, faults = course_mode.read(path), {}
        for task in course_mode.tasks(functions):
            faults[task] = None
            try:
                course_mode.check(functions, *task, path)
            except course_mode.Fault as fault:
                faults[task] = str(fault)
        return faults
    return grade


def table(faults):
    return list(course_mode.report(faults))


def test_right(graded):
    assert table(graded(RIGHT)) == ["operation     value  gradient  points",
                                    "softmax       right  right     2 of 2",
                                    "softmax_grad  right  right     2 of 2",
                                    "all                            4 of 4"]


def test_wrong_gradient(graded):
    """The sum over all pixels. It costs the points of the gradient, not those of the softmax."""
    faults = graded(RIGHT.replace(SUM, "(p * dp).sum()"))
    lines = table(faults)
    assert lines[1:4] == ["softmax       right  right     2 of 2",
                          "softmax_grad  wrong  wrong     0 of 2",
                          "all                            2 of 4"]
    assert lines[4].startswith("softmax_grad, value: for dp (3, 5, 7, 4), p (3, 5, 7, 4): dx: ")
    assert lines[5].startswith("softmax_grad, gradient: case softmax: finite differences give ")
    assert len(lines) == 6


def test_scaled_gradient_names_the_factor(graded):
    faults = graded(RIGHT.replace("dx.sum((0, 1, 2))", "dx.mean((0, 1, 2))"))
    assert "dbias: it is 105 times too small: that is B H W." in \
        faults["softmax_grad", "value"]


def test_consistent_but_wrong_pair(graded):
    """Each is the other's gradient, so finite differences of the pair find nothing."""
    text = RIGHT.replace(TAKE_MAX, f"2 * ({TAKE_MAX})").replace("dx = p", "dx = 2 * p")
    faults = graded(text)
    assert None not in faults.values()
    assert "it is 2 times too large." in faults["softmax_grad", "value"]
    assert faults["softmax_grad", "gradient"].endswith(
        "(it fits your own softmax: look at the values)")


def test_missing_function(graded):
    """Only what is there is checked; what belongs to it is named."""
    text, _, _ = RIGHT.partition("def softmax_grad")
    faults = graded(text + RIGHT[RIGHT.index("def _over"):])
    assert faults == {("softmax", "value"): None, ("softmax", "gradient"): None}
    assert table(faults)[-1] == "not checked, since the file does not define it: softmax_grad"


def test_one_that_raises_and_one_without_return(graded):
    faults = graded("def softmax(x, bias=None):\n    return x / [][0]\n\n"
                    "def softmax_grad(dp, p):\n    p * dp\n")
    stops = "it stops with IndexError: list index out of range (my_ops.py, line 2)"
    assert faults["softmax", "value"] == faults["softmax", "gradient"] == stops
    assert faults["softmax_grad", "value"].endswith("it returns None. Is there a `return`?")
    assert faults["softmax_grad", "gradient"].startswith("no gradient to check: it returns None.")


@pytest.mark.parametrize("old, new, fault", [
    (TAKE_MAX, "z", "NaN"),  # overflows for large logits
    ("return dx, dx", "dp *= 1.5\n    return dx, dx", "it changes its arguments"),
    ("dx.sum((0, 1, 2))", "dx.sum()", "dbias: the shape is (); expected (4,)"),
    ("return dx, dx.sum((0, 1, 2))", "return dx", "it returns one result; expected 2.")])
def test_faults_of_values(graded, old, new, fault):
    faults = graded(RIGHT.replace(old, new))
    assert any(fault in text for text in faults.values() if text), faults


@pytest.mark.parametrize("text, message", [
    ("x = 1\ny = x / 0\n", "my_ops.py, line 2: ZeroDivisionError: division by zero"),
    ("def softmax(x:\n", "my_ops.py, line 1: SyntaxError: "),
    ("import sys; sys.exit(3)\n", "my_ops.py, line 1: SystemExit: 3"),
    ("def sofmax(x): return x\n", "my_ops.py: there is no operation sofmax; did you mean softmax? "
     "Names of helpers start with _"),
    ("def softmax(z): return z\n", "my_ops.py: softmax(z) has other arguments than "
     "softmax(x, bias=None) in kernels/numpy_ops.py"),
    ("import numpy as np\n", "my_ops.py: defines no operation; expected some of conv, ")])
def test_bad_files_get_one_line(graded, text, message):
    with pytest.raises(course_mode.BadFile) as error:
        graded(text)
    assert message in str(error.value) and "\n" not in str(error.value)


def faults_of(functions):
    found = {}
    for task in course_mode.tasks(functions):
        try:
            course_mode.check(functions, *task, ROOT / "my_ops.py")
        except course_mode.Fault as fault:
            found[task] = str(fault)
    return found


def test_every_operation_can_be_graded():
    """The project's own functions get all points."""
    right = {name: getattr(numpy_ops, name) for name in OPERATIONS}
    assert {name for name, kind in course_mode.tasks(right) if kind == "value"} == set(OPERATIONS)
    assert faults_of(right) == {}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_can_fail(name):
    """Each result, a thousandth too large, costs the point of the value."""
    right = getattr(numpy_ops, name)
    some = next(arguments for other, arguments in
                course_mode.value_cases(np.random.default_rng(0), (3, 5, 7, 4)) if other == name)
    results = right(*some)
    for i in range(len(results) if isinstance(results, tuple) else 1):
        def broken(*args, place=i):
            found = right(*args)
            if not isinstance(found, tuple):
                return found * 1.001
            return tuple(a * 1.001 if j == place else a for j, a in enumerate(found))
        with pytest.raises(course_mode.Fault, match="too large|numbers are wrong"):
            course_mode.check({name: broken}, name, "value", ROOT / "my_ops.py")


# ------------------------------------------------------------------------------ the command itself
def run(*flags):
    command = [sys.executable, "-m", "pytest", "tests/test_gradients.py", "-p", "no:cacheprovider"]
    return subprocess.run([*command, *map(str, flags)], cwd=ROOT, capture_output=True, text=True)


def test_the_command(tmp_path):
    """With -k and --points: the table, a line for each fault, no traceback, the JSON."""
    file, points = tmp_path / "my_ops.py", tmp_path / "points.json"
    file.write_text(RIGHT.replace(SUM, "(p * dp).sum()") + "\n\ndef concat(parts):\n    return 0\n")
    done = run("--ops", file, "-k", "softmax", "--points", points)
    assert done.returncode == 1 and "Traceback" not in done.stdout and done.stderr == ""
    report = done.stdout.partition("operation     value  gradient  points\n")[2]
    assert report.startswith("softmax       right  right     2 of 2\n")
    assert "softmax_grad, gradient: case softmax: finite" in report and "concat" not in done.stdout
    assert len(report.splitlines()) == 6, "a line for each operation, each fault, and pytest's"
    found = json.loads(points.read_text())
    assert (found["points"], found["of"]) == (2, 4) and set(found["operations"]) == BOTH
    assert found["operations"]["softmax_grad"]["value"]["points"] == 0
    assert found["operations"]["softmax"]["gradient"] == {"points": 1, "fault": None}


def test_the_command_with_a_bad_file(tmp_path):
    points = tmp_path / "points.json"
    done = run("--ops", tmp_path / "none.py", "--points", points)
    assert done.returncode == 4
    assert done.stderr.strip() == f"ERROR: {tmp_path / 'none.py'}: no such file"
    found = json.loads(points.read_text())
    assert found["points"] == 0 and found["error"].endswith("no such file")


def test_the_command_on_several_cores(tmp_path):
    """Points are counted in one process."""
    done = run("--ops", tmp_path / "none.py", "-n", 2)
    assert done.stderr.strip() == "ERROR: --ops checks in one process: leave out -n"


def test_without_ops_no_task_is_collected():
    done = run("--collect-only", "-q", "-k", "task or broken_gradient_is_caught")
    assert "test_task" not in done.stdout and "test_broken_gradient_is_caught" in done.stdout
