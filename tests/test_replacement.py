"""A student's .cu file: its kernels stand in for the project's of the same name."""
import numpy as np
import pytest
from conftest import CUDA_DEVICES, TINY_FLAGS

import kernels
from app.command_line import main
from kernels.cuda_ops import CudaOps
from kernels.emulator import Emulator
from kernels.launch import FOLDER, LaunchError

ADAM = (FOLDER / "adam.cu").read_text()
NAIVE = (FOLDER / "conv" / "1_naive.cu").read_text()
HEAD = 'extern "C" __global__ __launch_bounds__(256)\nvoid '
SOFTMAX = """#include "common.cuh"
extern "C" __global__ __launch_bounds__(256)
void softmax(const real* x, const real* b_or_null, real* p, int rows, int C) {
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows || threadIdx.x > 0) return;
    real sum = 0;
    for (int c = 0; c < C; ++c) {
        p[row * C + c] = exp(x[row * C + c] + (b_or_null ? b_or_null[c] : 0));
        sum += p[row * C + c];
    }
    for (int c = 0; c < C; ++c) p[row * C + c] *= SCALE / sum;
}
"""


def write(folder, text):
    (folder / "my.cu").write_text(text)
    return str(folder / "my.cu")


@pytest.mark.parametrize("device", CUDA_DEVICES)
def test_a_kernel_replaces_that_of_its_name(tmp_path, device):
    x = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    right = kernels.load("numpy").softmax(x)
    for scale, path in (1, "right"), (2, "twice"):
        (tmp_path / path).mkdir()
        mine = write(tmp_path / path, SOFTMAX.replace("SCALE", str(scale)))
        ops = kernels.load(device, precision="fp32", replace=mine)
        found = ops.asnumpy(ops.softmax(ops.asarray(x)))
        np.testing.assert_allclose(found, scale * right, rtol=1e-6)
        assert "with kernels of my.cu" in ops.arithmetic and ops.why.endswith("my.cu: softmax")
    ops = CudaOps(ops.device)  # the project's again, on the same device
    np.testing.assert_allclose(ops.asnumpy(ops.softmax(ops.asarray(x))), right, rtol=1e-6)


@pytest.mark.parametrize("device", CUDA_DEVICES)
def test_a_convolution_is_launched_by_its_own_constants(tmp_path, device):
    """Only conv is replaced, whose tiles differ from those of the other two."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32)
            for shape in ((2, 9, 7, 3), (3, 3, 3, 30)))
    start, end = NAIVE.index('extern "C"'), NAIVE.index('extern "C"', NAIVE.index('extern "C"') + 9)
    mine = write(tmp_path, NAIVE[:start] + NAIVE[start:end])
    ops = kernels.load(device, precision="fp32", replace=mine)
    assert list(ops.replaced) == ["conv"] and ops._constants("conv") != ops.constants
    host = kernels.load("numpy")
    y, dx, dw = (ops.asnumpy(a) for a in results(ops, ops.asarray(x), ops.asarray(w)))
    for found, expected in zip((y, dx, dw), results(host, x, w)):
        np.testing.assert_allclose(found, expected, atol=1e-5 * abs(expected).max())


def results(ops, x, w):
    y = ops.conv(x, w, 2, 1)
    return y, ops.conv_input_grad(y, w, x.shape, 2, 1), ops.conv_weight_grad(x, y, w.shape, 2, 1)


def test_training_with_a_kernel_of_ones_own(tmp_path, capsys):
    """A copy of Adam trains to the same bits; one whose step is 1 % too long does not."""
    changed = ADAM.replace("-= scales[0]", "-= real(1.01) * scales[0]")
    flags = [*TINY_FLAGS, "--device", "emulator", "--steps", "2", "--log-every", "1"]
    losses = []
    for name, text in ("none", None), ("same", ADAM), ("changed", changed):
        more = ["--replace", write(tmp_path, text)] if text else []
        main([*flags, *more, "--out", str(tmp_path / name)])
        rows = (tmp_path / name / "log.csv").read_text().split()
        losses.append([row.rsplit(",", 1)[0] for row in rows])
        assert ("my.cu" in capsys.readouterr().out) == bool(text)
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("text, message", [
    (None, "my.cu: no such file"),
    ("// nothing", "my.cu: there is no kernel in it"),
    ("void softmax() {}", "there is no kernel in it"),
    ("__global__ void softmax() {}", "expected each kernel as"),
    (HEAD + "softmx(real* x) { }", "the project has no kernel softmx; did you mean softmax?"),
    (HEAD + "zzz(real* x) { }", "the project has no kernel zzz$"),
    (HEAD + "softmax(const real* x, real* p, int rows, int C) { }",
     r"softmax has the parameters \(const real\* x, real\* p, int rows, int C\); expected, as in "
     r"kernels/softmax/3_online.cu, \(const real\* x, const real\* bias_or_null, real\* p, "),
    (SOFTMAX.replace("b_or_null", "b"), "softmax has the parameters"),
    (SOFTMAX.replace("int C)", "real C)"), "softmax has the parameters"),
    (NAIVE.replace("constexpr int BLOCKS", "const int BLOCKS"),
     "expected `constexpr int BLOCKS = NUMBER;`, by which convolutions are launched"),
])
def test_a_file_that_cannot_stand_in_is_one_line(tmp_path, text, message):
    path = write(tmp_path, text) if text else str(tmp_path / "my.cu")
    with pytest.raises(LaunchError, match=message) as error:
        CudaOps(Emulator(), replace=path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("flags, code, message", [
    (["--device", "emulator", "--replace", "no.cu"], 2, "no.cu: no such file"),
    (["--device", "numpy", "--replace", "no.cu"], 2, "--replace: for device cuda or emulator only"),
])
def test_replace_on_the_command_line(tmp_path, capsys, monkeypatch, flags, code, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([*TINY_FLAGS, *flags, "--out", "run"])
    err = capsys.readouterr().err
    assert stop.value.code == code and message in err and err.count("\n") == 1
