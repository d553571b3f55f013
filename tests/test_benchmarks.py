"""The benchmark on a GPU, as far as a CPU can tell: tiny, in the emulator; its results; what the README is made of."""
import functools
import importlib.util
import inspect
import json
import shutil

import gpu
import measure
import numpy as np
import pytest
import readme_tables
from conftest import ROOT
from test_launch import resources

from kernels import launch
from kernels.gpu import compile_cubin
from kernels.numpy_ops import NumpyOps

TINY = "--device", "emulator", "--preset", "tiny", "--precision", "fp32"


def run(folder, *words):
    """gpu.py's exit status, and the rows of its one file."""
    status = gpu.main([*words, *TINY, "--results", str(folder)])
    (path,) = folder.glob("*.json")
    return status, json.loads(path.read_text())


# ------------------------------------------------------------------------------------------- measuring
def test_all_operations_of_a_step_are_measured(monkeypatch):
    """What a training step calls is a row, or moves data only."""
    called = set()

    def spied(method):
        @functools.wraps(method)
        def call(*args, **kwargs):
            called.add(method.__name__)
            return method(*args, **kwargs)
        return call
    for name, method in list(vars(NumpyOps).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            monkeypatch.setattr(NumpyOps, name, spied(method))
    benchmark = gpu.Benchmark.__new__(gpu.Benchmark)
    benchmark.ops, benchmark.args = NumpyOps(np.float32), gpu.argparse.Namespace(preset="tiny")
    _, calls = benchmark.recorded()
    assert {call.name for call in calls} == set(readme_tables.OPERATIONS) - {"bias_activation"}
    moves = {"empty", "asarray", "asnumpy", "write", "record", "take_row", "operand"}
    assert called - moves - {"batch_norm_inference"} <= set(readme_tables.OPERATIONS)  # that one is a part of batch_norm
    assert len({str(call) for call in calls}) == len(calls), "two rows of one name"


def test_work_of_an_operation():
    """2 FLOP a multiply-add, counted one by one; the same for both gradients, at an odd size too."""
    x, w, dy = (2, 7, 5, 3), (3, 3, 3, 4), (2, 4, 3, 4)
    macs = sum(1 for b in range(2) for oy in range(4) for ox in range(3) for co in range(4) for k in range(3 * 3 * 3))
    places = ("stride", 2), ("pad", 1)
    x, w, dy = map(measure.Array, (x, w, dy))
    for name, arguments in [("conv", (("x", x), ("w", w))), ("conv_input_grad", (("dy", dy), ("w", w), ("x_shape", x.shape))),
                            ("conv_weight_grad", (("x", x), ("dy", dy), ("w_shape", w.shape)))]:
        call = measure.Call(name, (*arguments, *places))
        assert call.flop() == 2 * macs
    result = np.zeros(w.shape, np.float32)
    assert call.bytes([result]) == 4 * (2 * 7 * 5 * 3 + 2 * 4 * 3 * 4 + 3 * 3 * 3 * 4)
    assert str(call) == "conv_weight_grad: x 2x7x5x3, dy 2x4x3x4, w_shape 3x3x3x4, stride 2"


def test_sub_commands_fill_one_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu.Benchmark, "compiled", lambda self, key: None)
    assert run(tmp_path, "ceilings")[0] == 0
    status, data = run(tmp_path, "kernels", "--only", "grad")
    assert status == 0 and "| operation |" in capsys.readouterr().out
    rows = [row for key, row in data["rows"].items() if key.startswith("kernels/tiny/fp32/conv_weight_grad: ")]
    assert len(rows) == 7 and all(row["flop"] > 0 and row["seconds"] > 0 for row in rows)
    run(tmp_path, "ladder", "--only", "1_naive")
    status, data = run(tmp_path, "step")
    assert status == 0 and data["device"] == "cpu"
    assert {key.split("/")[0] for key in data["rows"]} == {"ceilings", "kernels", "ladder", "step"}
    assert data["rows"]["step/tiny/fp32/ours"]["flop"] == sum(
        row["flop"] * row["count"] for key, row in data["rows"].items() if key.startswith("kernels") and "conv" in key
    ) + sum(call.flop() * n for call, n in forward_calls(tmp_path).items())
    assert len(data["runs"]) == 4 and all(row["run"] in data["runs"] for row in data["rows"].values())
    assert len(run(tmp_path, "step")[1]["runs"]) == 4, "a run whose rows are all replaced is forgotten"
    assert not list(tmp_path.glob("*.tmp"))


def forward_calls(folder):
    """The convolutions of a step that are no gradients."""
    benchmark = gpu.Benchmark(gpu.argparse.Namespace(device="emulator", precision="fp32", what="step", seconds=1, preset="tiny",
                                                     results=folder, commit=None))
    return {call: n for call, n in benchmark.recorded()[1].items() if call.name == "conv"}


def test_a_wrong_result_is_recorded_and_not_timed(tmp_path, monkeypatch):
    torch_ops = pytest.importorskip("torch_ops")
    softmax = torch_ops.softmax
    monkeypatch.setattr(torch_ops, "softmax", lambda **arguments: (softmax(**arguments)[0] * 1.0001,))
    status, data = run(tmp_path, "kernels", "--only", "softmax")
    wrong = data["rows"].pop("kernels/tiny/fp32/softmax: x 4x8x8x4, bias")
    assert status == "1 rows failed" and "relative error 0.0001, allowed 1e-05" in wrong["failed"] and "seconds" not in wrong
    (gradient,) = data["rows"].values()
    assert gradient["error"] < 1e-6 and gradient["torch"]["fp32"] > 0


def test_a_step_with_other_losses_is_not_timed(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    step = gpu.TorchTrainer.device_step
    monkeypatch.setattr(gpu.TorchTrainer, "device_step", lambda self, z, index: step(self, z, 255 - index))
    status, data = run(tmp_path, "step", "--variant", "eager")
    assert status and "AssertionError" in data["rows"]["step/tiny/fp32/eager"]["failed"]


def test_no_time_left(tmp_path, capsys):
    run(tmp_path, "kernels", "--only", "adam: params 768")
    status, data = run(tmp_path, "kernels", "--seconds", "0")
    assert "no row was measured" in status and len(data["rows"]) == 1 and "left out after 0 s" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{", "[]", '{"rows": {}}'])
def test_a_damaged_file_of_results_is_one_line(tmp_path, text):
    """Before anything is measured, and the file stays as it is."""
    (tmp_path / "emulator.json").write_text(text)
    assert "no place for results" in gpu.main(["kernels", *TINY, "--results", str(tmp_path)])
    assert (tmp_path / "emulator.json").read_text() == text and len(list(tmp_path.iterdir())) == 1


def test_without_pytorch(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "torch", None)
    _, data = run(tmp_path, "kernels", "--only", "softmax")
    assert all("error" not in row and row["torch"] == {} and row["seconds"] > 0 for row in data["rows"].values())
    assert run(tmp_path, "step")[1]["rows"].keys() >= {"step/tiny/fp32/ours"}


@pytest.mark.skipif(not importlib.util.find_spec("cupy_backends"), reason="needs CuPy, which does not exist for macOS")
def test_the_loops_compile_for_every_architecture():
    source = launch.read(gpu.FOLDER / "mma_loop.cu")
    assert source.architectures == ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
    for architecture in source.architectures:
        options = f"--gpu-architecture={architecture}", "--std=c++17", "--ptxas-options=-v"
        used = resources(compile_cubin(source, options)[1])
        assert used.keys() == {"fma_loop", "mma_tf32", "mma_bf16"} and all(spilled == 0 for _, spilled in used.values())


# --------------------------------------------------------------------------------------------- README
def written(folder, readme, *results):
    """What readme_tables.py makes of a README and results."""
    (folder / "results").mkdir(exist_ok=True)
    (folder / "tutorial").mkdir(exist_ok=True)
    for number, data in enumerate(results):
        (folder / "results" / f"{number}.json").write_text(json.dumps(data))
    (folder / "README.md").write_text(readme)
    readme_tables.main(folder / "results", folder)
    return (folder / "README.md").read_text()


def results(device="gpu"):
    """Figures that nobody measured."""
    conv = dict(count=2, flop=10 ** 12, bytes=10 ** 8, seconds=0.01, torch=dict(tf32=0.02, bf16=0.005))
    rows = {"ceilings/copy": dict(bytes_per_s=4e12), "ceilings/mma_tf32": dict(flop_per_s=2e14),
            "ceilings/matmul_tf32": dict(flop_per_s=4e14), "kernels/full/tf32/conv: x 1x2": conv,
            "kernels/full/tf32/conv: x 3x4": conv, "kernels/full/tf32/adam: params 9": dict(conv, flop=0, torch=dict(fp32=0.02)),
            "kernels/street/bf16/softmax: x 1x2": dict(count=1, failed="relative error 1"),
            "ladder/1_naive/fp32/conv": dict(conv, torch=dict(fp32=0.01)), "ladder/4_tensor_cores/tf32/conv": conv,
            "step/full/tf32/ours": dict(flop=10 ** 12, seconds=0.01, memory=2 ** 30),
            "step/full/tf32/eager": dict(seconds=0.02, ours_beside=0.01, memory=2 ** 31),
            "step/full/tf32/graph": dict(failed="no"), "step/tiny/tf32/ours": dict(flop=1, seconds=7)}
    facts = dict(driver="580.1", cupy="14", nvrtc="13.0", torch="2.11", cudnn=91000, commit="abc", command="kernels")
    return dict(device=device, card="Imagined Card", runs={"2026-01-02T03": facts},
                rows={key: row | {"run": "2026-01-02T03"} for key, row in rows.items()})


README = "before\n<!-- benchmarks -->\nold\n<!-- /benchmarks -->\nafter <!-- x -->\n"


def test_tables_stand_between_the_markers(tmp_path):
    text = written(tmp_path, README, results(), results("cpu") | dict(card="Emulated"))
    assert text.startswith("before\n<!-- benchmarks -->\n![") and text.endswith("<!-- /benchmarks -->\nafter <!-- x -->\n")
    assert "old" not in text and "Emulated" not in text and "tiny" not in text
    assert "| `conv` | 4 | 40 | 100.0 TFLOP/s | 25% | 80 | 20 | 2 |" in text
    assert "| `adam` | 2 | 20 | 10 GB/s | 0% | 40 | - | 2 |" in text
    assert "| Colored Shapes, 64x64, ks 11, K 4 | tf32 | 100 | 50 | failed | - | 2 | 100 | 1 | 2 |" in text
    assert "| `softmax` |  | relative error 1 |" in text and "| cuDNN, through PyTorch | tf32 | 50 | - | - |" in text
    assert (tmp_path / "tutorial" / "speed.png").stat().st_size > 10_000
    assert written(tmp_path, text, results(), results("cpu")) == text, "a second time changes nothing"


def test_nothing_measured(tmp_path):
    text = written(tmp_path, README, results("cpu"))
    assert text == README.replace("old\n", readme_tables.NOTHING) and not (tmp_path / "tutorial" / "speed.png").exists()
    with pytest.raises(SystemExit, match="no lines"):
        written(tmp_path, "no markers\n")


def test_the_readme_is_made_of_the_results(tmp_path):
    if (gpu.FOLDER / "results").exists():
        shutil.copytree(gpu.FOLDER / "results", tmp_path / "results")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert written(tmp_path, readme) == readme, "run python tests/benchmarks/readme_tables.py"
