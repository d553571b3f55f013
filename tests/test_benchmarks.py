"""The benchmark on a GPU as far as a CPU can tell: tiny, in the emulator; results; its tables."""
import functools
import importlib.util
import inspect
import json
import re
import shutil

import first_hour
import gpu
import ladder_table
import measure
import numpy as np
import predicted_times
import pytest
import readme_tables
import step_bytes
from conftest import ROOT
from test_launch import resources

import semgan
from kernels import NumpyEngine, contract, launch
from kernels.gpu import compile_cubin

TINY = "--device", "emulator", "--preset", "tiny", "--precision", "fp32"


def run(folder, *words):
    """gpu.py's exit status, and the rows of its one file."""
    status = gpu.main([*words, *TINY, "--results", str(folder)])
    (path,) = folder.glob("*.json")
    return status, json.loads(path.read_text())


# ------------------------------------------------------------------------------------ measuring
def test_all_operations_of_a_step_are_measured(monkeypatch):
    """What a training step calls is a row, or moves data only."""
    called = set()

    def spied(method):
        @functools.wraps(method)
        def call(*args, **kwargs):
            called.add(method.__name__)
            return method(*args, **kwargs)
        return call
    for name, method in inspect.getmembers(NumpyEngine, inspect.isfunction):
        if not name.startswith("_"):
            monkeypatch.setattr(NumpyEngine, name, spied(method))
    benchmark = gpu.Benchmark.__new__(gpu.Benchmark)
    benchmark.ops = NumpyEngine(np.float32)
    benchmark.args = gpu.argparse.Namespace(preset="tiny")
    _, calls = benchmark.recorded()
    not_by_default = {"bias_activation", "moment_matching"}
    assert {call.name for call in calls} == set(readme_tables.OPERATIONS) - not_by_default
    moves = {"empty", "asarray", "asnumpy", "write", "record", "take_row", "rounded"}
    part_of_batch_norm = {"batch_norm_inference"}
    assert called - moves - part_of_batch_norm <= set(readme_tables.OPERATIONS)
    assert set(readme_tables.OPERATIONS) <= set(contract.OPERATIONS)
    assert len({str(call) for call in calls}) == len(calls), "two rows of one name"


def test_work_of_an_operation():
    """2 FLOP a multiply-add, counted one by one; the same for both gradients, at odd sizes too."""
    x, w, dy = (2, 7, 5, 3), (3, 3, 3, 4), (2, 4, 3, 4)
    outputs, taps = np.ndindex(2, 4, 3, 4), 3 * 3 * 3
    macs = sum(1 for _ in outputs for _ in range(taps))
    places = ("stride", 2), ("pad", 1)
    x, w, dy = map(measure.Array, (x, w, dy))
    for name, arguments in [
        ("conv", (("x", x), ("w", w))),
        ("conv_input_grad", (("dy", dy), ("w", w), ("x_shape", x.shape))),
        ("conv_weight_grad", (("x", x), ("dy", dy), ("w_shape", w.shape))),
    ]:
        call = measure.Call(name, (*arguments, *places))
        assert call.flop() == 2 * macs
    result = np.zeros(w.shape, np.float32)
    assert call.bytes([result]) == 4 * (2 * 7 * 5 * 3 + 2 * 4 * 3 * 4 + 3 * 3 * 3 * 4)
    assert str(call) == "conv_weight_grad: x 2x7x5x3, dy 2x4x3x4, w_shape 3x3x3x4, stride 2"


def test_sub_commands_fill_one_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu.Benchmark, "compiled", lambda self, key: None)
    assert run(tmp_path, "ceilings")[0] == 0
    status, data = run(tmp_path, "kernels")
    assert status == 0 and "| operation |" in capsys.readouterr().out
    rows = [row for key, row in data["rows"].items()
            if key.startswith("kernels/tiny/fp32/conv_weight_grad: ")]
    assert len(rows) == 7 and all(row["flop"] > 0 and row["seconds"] > 0 for row in rows)
    run(tmp_path, "ladder", "--only", "1_naive")
    status, data = run(tmp_path, "step")
    assert status == 0 and data["device"] == "cpu"
    assert {key.split("/")[0] for key in data["rows"]} == {"ceilings", "kernels", "ladder", "step"}
    convolutions = sum(row["flop"] * row["count"] for key, row in data["rows"].items()
                       if key.startswith("kernels/tiny/fp32/conv"))
    assert data["rows"]["step/tiny/fp32/ours"]["flop"] == convolutions > 0
    assert len(data["runs"]) == 4
    assert all(row["run"] in data["runs"] for row in data["rows"].values())
    runs = run(tmp_path, "step")[1]["runs"]
    assert len(runs) == 4, "a run whose rows are all replaced is forgotten"
    assert not list(tmp_path.glob("*.tmp"))


def test_a_wrong_result_is_recorded_and_not_timed(tmp_path, monkeypatch):
    torch_ops = pytest.importorskip("torch_ops")
    right = torch_ops.softmax
    wrong = lambda **arguments: (right(**arguments)[0] * 1.0001,)
    monkeypatch.setattr(torch_ops, "softmax", wrong)
    status, data = run(tmp_path, "kernels", "--only", "softmax")
    wrong = data["rows"].pop("kernels/tiny/fp32/softmax: x 4x8x8x4, bias")
    assert status == "1 rows failed" and "seconds" not in wrong
    assert "relative error 0.0001, allowed 1e-05" in wrong["failed"]
    (gradient,) = data["rows"].values()
    assert gradient["error"] < 1e-6 and gradient["torch"]["fp32"] > 0


def test_a_step_with_other_losses_is_not_timed(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    step = gpu.TorchTrainer.device_step
    monkeypatch.setattr(
        gpu.TorchTrainer, "device_step", lambda self, z, index: step(self, z, 255 - index))
    status, data = run(tmp_path, "step", "--variant", "eager")
    assert status and "AssertionError" in data["rows"]["step/tiny/fp32/eager"]["failed"]


def test_no_time_left(tmp_path, capsys):
    run(tmp_path, "kernels", "--only", "adam: params 768")
    status, data = run(tmp_path, "kernels", "--seconds", "0")
    assert "no row was measured" in status and len(data["rows"]) == 1
    assert "left out after 0 s" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "{", "[]", '{"rows": {}}'])
def test_a_damaged_file_of_results_is_one_line(tmp_path, text):
    """Before anything is measured, and the file stays as it is."""
    (tmp_path / "emulator.json").write_text(text)
    assert "no place for results" in gpu.main(["kernels", *TINY, "--results", str(tmp_path)])
    (path,) = tmp_path.iterdir()
    assert path.name == "emulator.json" and path.read_text() == text


def test_without_pytorch(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "torch", None)
    _, data = run(tmp_path, "kernels", "--only", "softmax")
    for row in data["rows"].values():
        assert "error" not in row and row["torch"] == {} and row["seconds"] > 0
    assert run(tmp_path, "step")[1]["rows"].keys() >= {"step/tiny/fp32/ours"}


@pytest.mark.skipif(not importlib.util.find_spec("cupy_backends"),
                    reason="needs CuPy, which does not exist for macOS")
def test_the_loops_compile_for_every_architecture():
    source = launch.read(gpu.FOLDER / "mma_loop.cu")
    assert source.architectures == "sm_80 sm_86 sm_89 sm_90 sm_100 sm_120".split()
    for architecture in source.architectures:
        options = f"--gpu-architecture={architecture}", "--std=c++17", "--ptxas-options=-v"
        used = resources(compile_cubin(source, options)[1])
        assert used.keys() == {"fma_loop", "mma_tf32", "mma_bf16"}
        assert all(spilled == 0 for _, spilled in used.values())


# ------------------------------------------------------------------------------- the first hour
def test_the_first_hour_in_the_emulator(tmp_path, capsys):
    """All parts pass; the second time none runs, but for the one that is said to have failed."""
    words = ["first", *TINY, "--results", str(tmp_path)]
    assert gpu.main(words) == 0
    out = capsys.readouterr().out
    done = json.loads((tmp_path / "first-hour" / "parts.json").read_text())
    assert list(done) == ["what is there", "the tests", "ceilings", "steps, tiny fp32",
                          "operations, tiny fp32", "the ladder", "training, tiny"]
    assert all(record["code"] == 0 and record["lines"] for record in done.values())
    assert (tmp_path / "first-hour" / "run" / "checkpoint.npz").exists()
    assert "copy, TB/s" in out and "step full TF32, ms                           -" in out
    done["what is there"]["code"] = 1
    (tmp_path / "first-hour" / "parts.json").write_text(json.dumps(done))
    assert gpu.main(words) == 0
    out = capsys.readouterr().out
    assert out.count("passed before") == 6 and out.count("== what is there") == 1


def test_the_summary_of_the_first_hour(tmp_path):
    """Each figure beside its prediction; advice where it falls short."""
    hour = first_hour.FirstHour(gpu.parser().parse_args(["first", "--results", str(tmp_path)]))
    hour.done = {"the tests": dict(code=1, seconds=3.0), "ceilings": dict(code=0, seconds=4.0)}
    (tmp_path / "card.json").write_text(json.dumps(results()))
    lines = {line[:34].strip(): line[34:].split() for line in hour.summary().splitlines()}
    assert lines["the tests"][:3] == ["exit", "code", "1"] and "read" in lines["the tests"]
    assert lines["ceilings"] == ["passed", "4", "s"]
    assert lines["copy, TB/s"] == ["4", "4.1", "to", "4.4", *first_hour.BUSY.split()]
    assert lines["step full TF32, ms"] == ["10", "5.2", "to", "6", *first_hour.SLOW.split()]
    assert lines["full TF32, ours / PyTorch eager"] == ["0.5", "0", "to", "1"]
    assert lines["step street TF32, ms"] == ["-"]
    hour.done["training, full"] = dict(code=0, seconds=120.0)
    assert "20,000 steps of full, s                    120    110 to 170" in hour.summary()


def test_the_figures_of_the_ladder_name_its_steps():
    steps = {path.stem for path in launch.ladder("conv")}
    named = {key.split("/")[1] for figure in first_hour.FIGURES for key in figure.keys
             if key.startswith("ladder/")}
    assert named and named <= steps


def test_a_part_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(first_hour, "LIMIT", 1)
    hour = first_hour.FirstHour(gpu.parser().parse_args(["first", "--results", str(tmp_path)]))
    record = hour.part(first_hour.Part("sleeps", ["-c", "import time; time.sleep(60)"]))
    assert record["code"] != 0 and record["seconds"] < 30 and "stopped after" in record["lines"][-1]


def test_counted_bytes_and_predicted_times(capsys):
    """docs/speed.md has these figures. The prediction must be near what an H200 has measured."""
    step_bytes.main()
    assert re.findall(r"They add ([\d.]+)% to", capsys.readouterr().out) == ["15.3", "22.1"]
    text = (ROOT / "docs" / "speed.md").read_text()
    assert all(row in text for row in predicted_times.rows())
    s = semgan.settings(dataset="shapes", preset="full")
    predicted = predicted_times.seconds("H200", s, classes=4)
    assert predicted["before"] == pytest.approx(8.05e-3, rel=0.1)
    assert predicted["after"] == pytest.approx(5.68e-3, rel=0.1)


def test_rows_of_the_ladder():
    """Comments are no new lines. The first step reads two numbers for a multiply-add."""
    assert ladder_table.new_lines("int a;  // x\n", "// y\nint a;\nint b;\n") == 1
    naive, tiles, *others = ladder_table.ladder("conv")
    assert "| tiles in shared memory |" in ladder_table.row(naive, tiles)
    reads = [float(ladder_table.counts(path).split(" | ")[0]) for path in (naive, tiles)]
    assert 1 < reads[0] <= 2 and reads[1] < reads[0] / 8
    assert ladder_table.new_lines(tiles.read_text(), others[0].read_text()) < 10


# --------------------------------------------------------------------------------------- tables
PAGE = "before\n<!-- benchmarks -->\nold\n<!-- /benchmarks -->\nafter <!-- x -->\n"


def written(folder, page, *results):
    """What readme_tables.py makes of docs/speed.md and results."""
    for name in "results", "tutorial", "docs":
        (folder / name).mkdir(exist_ok=True)
    for number, data in enumerate(results):
        (folder / "results" / f"{number}.json").write_text(json.dumps(data))
    path = folder / "docs" / "speed.md"
    path.write_text(page, encoding="utf-8")
    readme_tables.main(folder / "results", folder)
    return path.read_text(encoding="utf-8")


def results(device="gpu"):
    """Figures that nobody measured."""
    conv = dict(count=2, flop=10 ** 12, bytes=10 ** 8, seconds=0.01,
                torch=dict(tf32=0.02, bf16=0.005))
    rows = {
        "ceilings/copy": dict(bytes_per_s=4e12),
        "ceilings/mma_tf32": dict(flop_per_s=2e14),
        "ceilings/matmul_tf32": dict(flop_per_s=4e14),
        "kernels/full/tf32/conv: x 1x2": conv,
        "kernels/full/tf32/conv: x 3x4": conv,
        "kernels/full/tf32/adam: params 9": dict(conv, flop=0, torch=dict(fp32=0.02), spread=0.6),
        "kernels/street/bf16/softmax: x 1x2": dict(count=1, failed="relative error 1"),
        "ladder/1_naive/fp32/conv": dict(conv, torch=dict(fp32=0.01)),
        "ladder/7_tensor_cores/tf32/conv": conv,
        "ladder/10_split_sums/tf32/conv": conv,
        "step/full/tf32/ours": dict(flop=10 ** 12, seconds=0.01, memory=2 ** 30),
        "step/full/tf32/eager": dict(seconds=0.02, ours_beside=0.01, memory=2 ** 31),
        "step/full/tf32/graph": dict(failed="no"),
        "step/tiny/tf32/ours": dict(flop=1, seconds=7),
    }
    run = "2026-01-02T03"
    facts = dict(driver="580.1", cupy="14", nvrtc="13.0", torch="2.11", cudnn=91000, commit="abc",
                 command="kernels")
    return dict(device=device, card="Imagined Card", runs={run: facts},
                rows={key: row | {"run": run} for key, row in rows.items()})


def test_tables_stand_between_the_markers(tmp_path):
    text = written(tmp_path, PAGE, results(), results("cpu") | dict(card="Emulated"))
    assert text.startswith("before\n<!-- benchmarks -->\n![")
    assert text.endswith("<!-- /benchmarks -->\nafter <!-- x -->\n")
    assert "old" not in text and "Emulated" not in text and "tiny" not in text
    assert "| `conv` | 4 | 40 | 100.0 TFLOP/s | 25% | 80 | 20 | 2 |" in text
    assert "upper bounds" in text and "| `adam` | 2 | 20 ? | 10 GB/s | 0% | 40 | - | 2 |" in text
    case = "Colored Shapes, 64x64, ks 11, K 4"
    assert f"| {case} | tf32 | 100 | 50 | failed | 2 | 100 | 1 | 2 |" in text
    assert "| `softmax` |  | relative error 1 |" in text
    assert text.index("`7_tensor_cores`") < text.index("`10_split_sums`"), "sorted by number"
    assert "| cuDNN, through PyTorch | tf32 | 50 | - | - |" in text
    assert (tmp_path / "tutorial" / "speed.png").stat().st_size > 10_000
    assert written(tmp_path, text, results(), results("cpu")) == text, "once more changes nothing"


def test_two_runs_and_candidates(tmp_path):
    """Each run has its own tables, without columns of dashes; variants of a kernel theirs."""
    second = results() | dict(card="Second Run")
    second["rows"] = {"step/street/bf16/ours": dict(flop=10 ** 12, seconds=0.01)}
    tried = dict(candidates=dict(a="as before", b="changed"),
                 rows={"tf32/conv: x 1x2": dict(a=1.23, b=45.6), "fp32/conv: x 1x2": dict(a=7)})
    page = PAGE + "<!-- candidates -->\nold\n<!-- /candidates -->\nend\n"
    text = written(tmp_path, page, tried, second, results())
    assert text.index("**Imagined Card**") < text.index("**Second Run**")
    assert "| street scenes, 128x128, ks 7, K 22 | bf16 | 100 | 100 |\n" in text
    assert "<!-- candidates -->\n- `a`: as before\n- `b`: changed\n" in text
    assert "| TFLOP/s, tf32 | `a` | `b` |\n| --- |" in text
    assert "| `conv: x 1x2` | 1.23 | 45.6 |\n" in text
    assert "| TFLOP/s, fp32 | `a` |\n" in text and text.endswith("<!-- /candidates -->\nend\n")


def test_nothing_measured(tmp_path):
    text = written(tmp_path, PAGE, results("cpu"))
    assert text == PAGE.replace("old\n", readme_tables.NOTHING)
    assert not (tmp_path / "tutorial" / "speed.png").exists()
    with pytest.raises(SystemExit, match="no lines"):
        written(tmp_path, "no markers\n")


def test_the_page_is_made_of_the_results(tmp_path):
    if (gpu.FOLDER / "results").exists():
        shutil.copytree(gpu.FOLDER / "results", tmp_path / "results")
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert written(tmp_path, page) == page, "run python tests/benchmarks/readme_tables.py"
