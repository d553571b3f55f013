"""Course mode on a .cu file that a student might hand in: a mistake in each kernel but one."""
import json
import os
import subprocess
import sys

import course_kernels
import course_mode
import pytest
from conftest import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there the emulator finds no races")

MY_CU = """#include "common.cuh"

extern "C" __global__ __launch_bounds__(256)
void bias_activation(const real* x, const real* bias_or_null, int activation, real* y, int n, int C)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = activate(x[i] + (bias_or_null ? bias_or_null[i % C] : 0), activation);
}

extern "C" __global__ __launch_bounds__(256)
void sum_all(const real* partial, real* out, int n, real scale) {
    __shared__ real s[256];
    int t = threadIdx.x;
    s[t] = 0;
    for (int i = t; i < n; i += 256) s[t] += partial[i];
    for (int half = 128; half > 0; half /= 2) {  // a barrier is missing
        if (t < half) s[t] += s[t + half];
    }
    if (t == 0) out[0] = scale * s[0];
}

extern "C" __global__ __launch_bounds__(256)
void take_row(const real* table, const real* number, real* out, int rows, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n) out[i] = table[int(number[0]) % rows * n + i];  // one too many
}

extern "C" __global__ __launch_bounds__(256)
void bce_with_logits(const real* logits, const real* target, real weight, real* loss,
                     real* dlogits, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        real z = logits[i], e = exp(-fabs(z));
        dlogits[i] = ((z >= 0 ? 1 : e) / (1 + e) - target[i]) / n;
        loss[0] += (log1p(e) + fmax(z, real(0)) - z * target[i]) / n;  // all threads at once
    }
}

extern "C" __global__ __launch_bounds__(256)
void concat(const real* x, real* y, int n, int C, int channels, int first) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i / C * channels + i % C] = x[i];  // every part at the beginning
}

extern "C" __global__ __launch_bounds__(256)
void average_pool(const real* x, real* y, int B, int H, int W, int C, int Ho, int Wo, int size,
                  int stride, int pad) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    while (i < B * Ho * Wo * C) y[i] = 0;  // i stays what it is
}

extern "C" __global__ __launch_bounds__(1)
void adam_advance(real* step, const real* lr, real* scales, double beta1, double beta2) {
    step[0] += 1;
    scales[0] = lr[0] / (1 - pow(beta1, double(step[0])));
    scales[1] = 1 - pow(beta2, double(step[0]));  // by which the next kernel divides
}

extern "C" __global__ __launch_bounds__(256)
void adam(real* params, const real* grads, real* m, real* v, const real* scales, real share1,
          real share2, real eps, int n) {
    int first = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    for (int i = first; i < min(first + 4, n); ++i) {
        m[i] += share1 * (grads[i] - m[i]);
        v[i] += share2 * (grads[i] * grads[i] - v[i]);
        params[i] -= scales[0] * m[i] / (sqrt(v[i] / scales[1]) + eps);
    }
}

extern "C" __global__ __launch_bounds__(256)
void gather(const uint8* labels, const int* index, const real* table, real* y, int n, int pixels,
            int K, int C) {
    int first = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    for (int i = first; i < min(first + 4, n); ++i) {
        int label = labels[index[i / C / pixels] * pixels + i / C % pixels];
        float number = table[min(label, K - 1) * C + i % C];  // not a real
        y[i] = number;
    }
}
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """(path, kernels) of the file: compiled once for all tests."""
    path = tmp_path_factory.mktemp("student") / "my.cu"
    path.write_text(MY_CU)
    return path, course_kernels.read(path)


@pytest.fixture(scope="module")
def faults(mine):
    """{(kernel, kind): fault or None} of the file."""
    (path, kernels), found = mine, {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course_kernels, "SECONDS", 1)
        for task in course_kernels.tasks(kernels):
            try:
                found[task] = course_kernels.check(kernels, *task, path)
            except course_mode.Fault as fault:
                found[task] = str(fault)
    return found


def test_the_table(faults):
    assert list(course_mode.report(faults, course_kernels.launching))[:11] == [
        "kernel           value  gradient  points  launched by",
        "bias_activation  right  right     2 of 2  bias_activation",
        "sum_all          wrong  wrong     0 of 2  softmax_cross_entropy, feature_matching, "
        "moment_matching",
        "take_row         wrong  -         0 of 1  take_row",
        "bce_with_logits  wrong  wrong     0 of 2  bce_with_logits",
        "concat           wrong  wrong     0 of 2  batch_norm, feature_matching, moment_matching, "
        "adam, concat",
        "average_pool     wrong  -         0 of 1  average_pool",
        "adam_advance     wrong  -         0 of 1  adam",
        "adam             wrong  -         0 of 1  adam",
        "gather           wrong  -         0 of 1  gather",
        "all                               2 of 13"]


NO_ORDER = "and nothing orders the two, by thread ({}, 0, 0) of block (0, 0, 0)"
ADAM = ("in adam for params (420,), grads (420,), m (420,), v (420,), step (1,), lr (1,), "
        "beta1 0.9, beta2 0.999, eps 1e-08: params: 420 of 420 numbers are wrong, most of all at "
        "[262]: 13.463, expected 1.22285. (it fits your own {}: each must fit the project's)")
FAULTS = {
    ("sum_all", "value"):
        "in softmax_cross_entropy for x (3, 5, 7, 4), target (3, 5, 7, 4): my.cu: sum_all: a race: "
        "shared array 's' is read at index 32, which thread (16, 0, 0) has written, "
        + NO_ORDER.format(0),
    ("sum_all", "gradient"):
        "case softmax cross-entropy: my.cu: sum_all: a race: shared array 's' is read at index 32, "
        "which thread (16, 0, 0) has written, " + NO_ORDER.format(0),
    ("take_row", "value"):
        "in take_row for table (7, 3, 5, 7, 4), number (1,): my.cu: take_row: argument 'out' (420 "
        "elements) accessed at index 420, by thread (164, 0, 0) of block (1, 0, 0)",
    ("bce_with_logits", "value"):
        "in bce_with_logits for logits (3, 5, 7, 4), target (3, 5, 7, 4): my.cu: bce_with_logits: "
        "a race: argument 'loss' is read at index 0, which thread (145, 0, 0) has written, "
        + NO_ORDER.format(135),
    ("bce_with_logits", "gradient"):
        "case bce: my.cu: bce_with_logits: a race: argument 'loss' is read at index 0, which "
        "thread (3, 0, 0) has written, " + NO_ORDER.format(1),
    ("concat", "value"):
        "in concat for its arguments: 525 of 945 numbers are NaN: numbers that no thread writes "
        "are NaN in the emulator.",
    ("concat", "gradient"):
        "case concat: finite differences give nan, the gradient 0.595683278: they differ by nan",
    ("average_pool", "value"):
        "in average_pool for x (3, 5, 7, 4), size 2, stride 1, pad 1: my.cu: average_pool: "
        "stopped, since no block ended for 1 seconds: a loop without an end, or a wait for another "
        "thread, which runs only while this one is at a barrier, by thread (145, 0, 0) of block "
        "(0, 0, 0)",
    ("adam_advance", "value"): ADAM.format("adam"),
    ("adam", "value"): ADAM.format("adam_advance"),
    ("gather", "value"):
        "in gather for labels (5, 3, 4), index (3,), table (4, 3): right to a few digits only. "
        "`real` is double here: is something a float?",
}


def test_each_mistake_is_one_line(faults):
    """Literally, with the emulator's own words. Kernels are checked alone, so adam fails too."""
    assert {task: fault for task, fault in faults.items() if fault} == FAULTS


@pytest.mark.parametrize("text, message", [
    (None, "my.cu: no such file"),
    ("// nothing", "my.cu: there is no kernel in it"),
    (MY_CU.replace("sum_all", "sum_al"), "the project has no kernel sum_al; did you mean sum_all?"),
    (MY_CU.replace("void sum_all(const real* partial, ", "void sum_all("), "expected, as in "
     "kernels/reductions.cu, (const real* partial, real* out, int n, real scale)"),
    (MY_CU.replace("int t = threadIdx.x;", "int t = threadIdx.x"), "does not compile: my.cu, "),
    ((ROOT / "kernels" / "operands.cu").read_text(),
     "my.cu: no operation in float64 launches prepare or sum_slices_activate")], ids=range(6))
def test_a_file_that_cannot_be_graded_is_one_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "my.cu").write_text(text)
    with pytest.raises(course_mode.BadFile) as error:
        course_kernels.read(tmp_path / "my.cu")
    assert message in str(error.value) and "\n" not in str(error.value)


def run(*flags):
    command = [sys.executable, "-m", "pytest", "tests/test_gradients.py", "-p", "no:cacheprovider"]
    return subprocess.run([*command, *map(str, flags)], cwd=ROOT, capture_output=True, text=True)


def test_the_command(mine, tmp_path):
    """With -k and --points: the table, a line for each fault, no traceback, the JSON."""
    done = run("--ops", mine[0], "-k", "bce or activation", "--points", tmp_path / "points.json")
    assert done.returncode == 1 and "Traceback" not in done.stdout and done.stderr == ""
    _, _, report = done.stdout.partition("kernel           value  gradient  points  launched by\n")
    assert report.splitlines()[:5] == [
        "bias_activation  right  right     2 of 2  bias_activation",
        "bce_with_logits  wrong  wrong     0 of 2  bce_with_logits",
        "all                               2 of 4",
        *(f"bce_with_logits, {kind}: {FAULTS['bce_with_logits', kind]}"
          for kind in ("value", "gradient"))]
    found = json.loads((tmp_path / "points.json").read_text())
    assert (found["points"], found["of"], set(found)) == (2, 4, {"file", "points", "of", "kernels"})
    assert found["kernels"]["bce_with_logits"]["launched_by"] == ["bce_with_logits"]
    assert found["kernels"]["bias_activation"]["gradient"] == {"points": 1, "fault": None}


def test_the_command_with_a_bad_file(tmp_path):
    done = run("--ops", tmp_path / "my.cu", "--points", tmp_path / "points.json")
    assert done.returncode == 4 and done.stderr.strip().startswith("ERROR: ")
    assert json.loads((tmp_path / "points.json").read_text())["error"].startswith(
        f"{tmp_path / 'my.cu'}: no such file")


def test_a_check_that_takes_too_long_is_stopped(mine, monkeypatch):
    """Also if each block ends in time."""
    monkeypatch.setattr(course_kernels, "ALL_SECONDS", -1)
    with pytest.raises(course_mode.Fault, match="too slow: stopped after -1 seconds"):
        course_kernels.check(mine[1], "bias_activation", "value", mine[0])
