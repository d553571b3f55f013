"""The command line: the commands, the files they write, one clear line for every mistake."""
import ast
import csv
import errno
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from conftest import DEVICES, ROOT, TINY_FLAGS, WITHOUT_GPU
from PIL import Image
from shared import Evil

import data
import inception
import kernels
import semgan
from app import commands, comparison, data_command, evaluation, forecast, memory, pictures, training
from app.command_line import main, parse
from app.run_folder import load_checkpoint, load_generator
from app.run_settings import given_settings, load_dataset, resolve
from formats import files, label_maps
from formats import memory as machine
from formats.files import InputError, locked
from formats.label_maps import load_maps


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("SEMGAN_CACHE", str(tmp_path / "cache"))


def call(*words, cwd=None):
    """(exit code, stdout, stderr) of `python semgan.py ...` in a process of its own."""
    command = [sys.executable, str(ROOT / "semgan.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120,
                          env=WITHOUT_GPU | {"COLUMNS": "80"})
    return done.returncode, done.stdout, done.stderr


def fails(capsys, *words, code=2):
    """The one line that main() prints for bad input, in this process."""
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    out, err = capsys.readouterr()
    assert stop.value.code == code, (stop.value, err)
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished tiny run."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    main([*TINY_FLAGS, "--preset", "small", "--steps", "10", "--save-every", "5",
          "--out", str(folder)])
    return folder


def test_train_in_a_new_process(tmp_path):
    code, out, err = call("--dataset", "shapes", *TINY_FLAGS, "--save-every", "10", cwd=tmp_path)
    assert code == 0, err
    folder = tmp_path / "runs" / "shapes-semgan"
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["checkpoint.npz", "curves.png", "log.csv", "palette.txt", "samples",
                     "settings.json"]
    grids = sorted(path.name for path in (folder / "samples").iterdir())
    assert grids == ["step_000001.png", "step_000010.png", "step_000020.png"]
    assert json.loads((folder / "settings.json").read_text())["kernel_size"] == 3
    rows = (folder / "log.csv").read_text().splitlines()
    assert rows[0] == "step,loss_d,features_1,features_2,moments_1,moments_2,seconds"
    assert len(rows) == 3
    assert "kernel size                  3                        flag" in out
    assert "beta1                        0.5                      default" in out
    assert "preset                       small                    not on a GPU" in out
    assert "NumPy on" in out and "preset small: 20 steps.\nThey will take about" in out
    assert max(map(len, out.splitlines())) <= 80 + len(str(folder))
    shown = {line[:46].strip(): line[46:].split() for line in out.splitlines()}
    assert shown["maps with three good shapes"][0] == "0%"
    for shape in "circle", "rectangle", "square":
        overlap, real = map(float, shown[f"median {shape} overlap"])
        assert 0 <= overlap <= real == 1
    assert len(shown["regions per map"]) == 2


def test_the_report_of_other_maps_has_a_class_a_row(tmp_path, capsys):
    maps = np.zeros((8, 16, 16), np.uint8)
    maps[:, :8] = 5
    maps[:, 8, :12] = np.arange(6, 18)
    (tmp_path / "maps").mkdir()
    for i, m in enumerate(maps):
        Image.fromarray(m).save(tmp_path / "maps" / f"{i}.png")
    flags = [*TINY_FLAGS, "--side", "16", "--steps", "2", "--classes", "25"]
    main(["--dataset", str(tmp_path / "maps"), *flags, "--out", str(tmp_path / "run")])
    out = capsys.readouterr().out
    report = out[out.index("256 samples   real maps"):].splitlines()
    shares = {line[:46].strip(): line[46:].split() for line in report
              if line.startswith("pixels")}
    assert len(shares) == 21 and "pixels of 5 other classes" in shares
    assert shares["pixels of class 5"][1] == "50.00%"
    assert shares["pixels of class 6"][1] == "0.39%"
    for column in 0, 1:
        total = sum(float(pair[column].rstrip("%")) for pair in shares.values())
        assert total == pytest.approx(100, abs=0.2)
    assert "random pixels can have these frequencies" in out
    assert max(map(len, report)) <= 80 + len(str(tmp_path / "run"))


def test_long_runs_propose_a_shorter_one(tmp_path, capsys, monkeypatch):
    """On a slow card `full` takes hours. The preset small is in proportion to its products."""
    monkeypatch.setattr(forecast, "rehearse", lambda trainer: 0.2)
    stop = [*TINY_FLAGS, "--kernel-size", "11", "--steps", "30000", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(training, "loop", lambda *_: sys.exit(0))
    for preset, said in ("full", True), ("small", False):
        with pytest.raises(SystemExit):
            main([*stop, "--preset", preset])
        out = capsys.readouterr().out
        assert "They will take about 2 hours.\n" in out
        assert ("For a first look, --preset small takes about" in out) == said
    full = semgan.settings(preset="full")
    t = SimpleNamespace(s=full, dataset=SimpleNamespace(classes=4))
    ratio = forecast.seconds_of_small(t, 0.1) / (full.steps * 0.1)
    assert 0.002 < ratio < 0.004  # a tenth of the steps, of 3 % of the multiplications each


def test_a_first_step_that_compiles_for_long_says_so(capsys, monkeypatch):
    monkeypatch.setattr(forecast, "COMPILING", 0.01)
    for name, said in ("gpu", True), ("emulator", True), ("numpy", False):
        with forecast.patience(SimpleNamespace(name=name)):
            time.sleep(0.1)
        assert ("Compiling the kernels" in capsys.readouterr().err) == said
    monkeypatch.setattr(forecast, "COMPILING", 60)
    with forecast.patience(SimpleNamespace(name="gpu")):
        pass
    assert not capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif("cuda" not in str(DEVICES), reason="no GPU")
def test_a_gpu_is_taken_by_itself(tmp_path, capsys):
    main(["--dataset", "shapes", *TINY_FLAGS, "--steps", "25", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert "CUDA kernels in tf32 on" in out and "on a GPU" in out
    assert "preset full: 25 steps.\nThey will take about" in out


def test_training_in_the_emulator(tmp_path, capsys):
    main(["--dataset", "shapes", "--device", "emulator", *TINY_FLAGS, "--steps", "3",
          "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert "CUDA kernels in fp32 on" in out and "will take" not in out
    assert "emulated (asked for), preset small: 3 steps." in out
    assert (tmp_path / "samples" / "step_000003.png").exists()


def test_grids_are_drawn_early_and_then_at_each_checkpoint(tmp_path, monkeypatch):
    """The early ones write no checkpoint. Their names sort by step."""
    saved = []
    start = training.CheckpointWriter.start
    monkeypatch.setattr(training.CheckpointWriter, "start",
                        lambda self, trainer: saved.append(trainer.step) or start(self, trainer))
    main([*TINY_FLAGS, "--steps", "130", "--save-every", "60", "--out", str(tmp_path)])
    grids = sorted(path.name for path in (tmp_path / "samples").iterdir())
    steps = [int(grid.removeprefix("step_").removesuffix(".png")) for grid in grids]
    assert steps == [1, 10, 50, 60, 100, 120, 130]
    assert saved == [60, 120, 130]


@pytest.mark.parametrize("seconds, expected", [(0, [5, 10, 15, 20]), (0.05, [5, 20])])
def test_curves_are_drawn_while_it_trains(tmp_path, monkeypatch, seconds, expected):
    """At each checkpoint, but only if that takes 1 % of the time at most; and in the end."""
    drawn = []

    def plot(run):
        rows = (run / "log.csv").read_text().split()
        drawn.append(int(rows[-1].split(",")[0]))
        if seconds:
            time.sleep(seconds)
    monkeypatch.setattr(training, "plot_curves", plot)
    if not seconds:  # a clock of whole seconds: drawing takes none of them
        monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    main([*TINY_FLAGS, "--steps", "20", "--save-every", "5", "--log-every", "1",
          "--out", str(tmp_path)])
    assert drawn == expected


def test_sample_grid_shows_sixteen_maps(run):
    grid = Image.open(run / "samples" / "step_000010.png")
    zoom = 8
    assert grid.size == ((16 * 9 - 1) * zoom, 8 * zoom)


def test_sample(run, tmp_path, capsys):
    folder = tmp_path / "new"
    main(["sample", str(run), "--count", "5", "--seed", "3", "--out", str(folder)])
    maps = [Image.open(folder / f"map_{i:05d}.png") for i in range(5)]
    palette = data.colored_shapes(8).palette
    for image in maps:
        assert image.mode == "P" and image.size == (8, 8) and np.asarray(image).max() < 4
        np.testing.assert_array_equal(np.reshape(image.getpalette()[:12], (4, 3)), palette)
    assert (folder / "palette.txt").read_text().splitlines()[3] == "255 0 0 square"
    again = load_maps(folder, (8, 8), classes=4)
    np.testing.assert_array_equal(again.maps, np.stack([np.asarray(m) for m in maps]),
                                  "samples can be read back as a data set")
    assert (tmp_path / "new.png").exists()
    assert f"5 maps in {folder}" in capsys.readouterr().out
    main(["sample", str(run), "--count", "5", "--seed", "3"])
    same = load_maps(run / "generated", (8, 8), classes=4)
    np.testing.assert_array_equal(same.maps, again.maps)
    assert "already holds maps" in fails(capsys, "sample", run)


def test_samples_that_are_stopped_leave_no_part(tmp_path, monkeypatch):
    def stop_here(*_):
        raise KeyboardInterrupt
    words = ["sample", "--trained", "--count", "3", "--out", str(tmp_path / "new")]
    with monkeypatch.context() as stopped, pytest.raises(SystemExit) as stop:
        stopped.setattr(commands, "write_palette", stop_here)
        main(words)
    assert stop.value.code == 130 and not list((tmp_path / "new").iterdir())
    main(words)
    assert len(list((tmp_path / "new").glob("map_*.png"))) == 3


def test_sample_of_the_baseline_is_rgb(tmp_path):
    main(["--model", "gan", *TINY_FLAGS, "--steps", "3", "--out", str(tmp_path / "run")])
    main(["sample", str(tmp_path / "run"), "--count", "2"])
    assert Image.open(tmp_path / "run" / "generated" / "map_00001.png").mode == "RGB"


def test_evaluate(run, tmp_path, capsys, monkeypatch):
    """All metrics are printed and in evaluation.csv; if one cannot be computed, the reason is."""
    monkeypatch.setenv("SEMGAN_CACHE", str(tmp_path / "no weights here"))
    main(["evaluate", str(run), "--count", "24", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert "step 10, 24 samples, seed 0" in out
    assert "No FID:" in out and "inception.py --download" in out
    assert "images of 8x8: SWD halves them" in out  # a row without numbers
    rows = metrics_of(tmp_path)
    assert {"class frequencies", "FSD", "adjacency", "spatial prior", "components, speckle",
            "memorization, memorized", "shapes, share", "softmax, entropy"} <= rows.keys()
    assert "FID" not in rows
    frequencies = rows["class frequencies"]
    assert float(frequencies["value"]) > float(frequencies["real at half"]) > 0
    assert 0 < float(rows["softmax, entropy"]["value"]) < np.log(4)
    first_pixels = lambda images, *_: images.reshape(len(images), -1)[:, :12].astype(np.float32)
    monkeypatch.setattr(inception, "load_weights", lambda path: {"some": "weights"})
    monkeypatch.setattr(inception, "features", first_pixels)
    main(["evaluate", str(run), "--count", "24", "--out", str(tmp_path)])
    assert float(metrics_of(tmp_path)["FID"]["value"]) > 0
    assert "No FID" not in capsys.readouterr().out


def test_evaluate_leaves_the_tables_of_training(run, tmp_path):
    """Training may be going on, further than its last checkpoint."""
    copy = shutil.copytree(run, tmp_path / "copy")
    table = {"FSD": (1.0, 1.0, 1.0)}
    for step in 10, 20:
        evaluation.write_table(copy / "metrics.csv", step, 4, 0, table)
    before = (copy / "metrics.csv").read_bytes()
    main(["evaluate", str(copy), "--count", "4"])
    assert (copy / "metrics.csv").read_bytes() == before and (copy / "evaluation.csv").exists()


def test_softmax_metrics_weigh_every_sample_alike(run):
    """Samples come in chunks of 64: 65 of them are one large and one small chunk."""
    generator, _ = load_generator(run)
    count = 65
    table = evaluation.measure(generator, data.colored_shapes(8), count, 0)
    z = np.random.default_rng([0, 4]).standard_normal((count, generator.s.latent))
    p = np.concatenate(list(generator.outputs(z)))
    assert len({len(chunk) for chunk in generator.outputs(z)}) == 2
    expected = p.max(-1).mean(), -(p * np.log(p)).sum(-1).mean()
    found = [table[f"softmax, {key}"][0] for key in ("largest probability", "entropy")]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def metrics_of(folder):
    """{metric: row} of evaluation.csv."""
    with open(folder / "evaluation.csv", newline="") as file:
        return {row["metric"]: row for row in csv.DictReader(file)}


def test_evaluate_the_rgb_baseline(tmp_path, capsys):
    main(["--model", "gan", *TINY_FLAGS, "--maps", "1", "--steps", "3", "--out", str(tmp_path)])
    main(["evaluate", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    line = next(line for line in lines if line.startswith("invalid colours"))
    assert 0.5 < float(line.split()[2]) <= 1 and float(line.split()[4]) == 0


@pytest.mark.parametrize("model", ["semgan", "gan"])
def test_every_command_takes_maps_that_are_not_square(tmp_path, capsys, model):
    """At 16x32, so that SWD and MS-SSIM are defined. The report counts shapes at this size."""
    run, flags = tmp_path / "run", [*TINY_FLAGS[2:], "--model", model, "--steps", "2"]
    main([*flags, "--size", "16x32", "--out", str(run)])
    out = capsys.readouterr().out
    assert "\nsize, height x width         16x32                    flag\n" in out
    assert re.search(r"median circle overlap +0\.\d\d +1\.00\n", out)
    main(["export", str(run), str(tmp_path / "g.npz")])
    for source in run, tmp_path / "g.npz":
        out = str(tmp_path / f"maps of {source.stem}")
        main(["sample", str(source), "--count", "20", "--out", out])
        main(["interpolate", str(source), "--keys", "2", "--frames", "3", "--out", out])
        sizes = [Image.open(path).size for path in sorted(Path(out).glob("*.[pg][ni][gf]"))]
        grid = Image.open(out + ".png").size
        assert sizes == [(8 * 32, 8 * 16), (2 * (3 * 33 - 1), 2 * (2 * 17 - 1)), *[(32, 16)] * 20]
        assert grid == (2 * (16 * 33 - 1), 2 * (2 * 17 - 1))
    main(["evaluate", str(run), "--count", "8"])
    values = {name: row["value"] for name, row in metrics_of(run).items()}
    assert float(values["SWD x1e3, 16"]) > 0 and 0 <= float(values["MS-SSIM, mean"]) <= 1
    main(["--resume", "--size", "16x32", "--steps", "3", "--out", str(run)])
    message = f"--size 16x16: {run} was started with 16x32; only --steps can change"
    assert message in fails(capsys, "--resume", "--side", "16", "--out", run)


@pytest.mark.parametrize("size, zoom", [((8, 8), 8), ((8, 32), 2), ((32, 8), 2), ((64, 99), 1)])
def test_grids_are_enlarged_by_the_larger_side(size, zoom):
    height, width = size
    picture = pictures.grid(np.zeros((5, *size), np.uint8), np.zeros((1, 3), np.uint8), columns=3)
    assert picture.size == (zoom * (3 * width + 2), zoom * (2 * height + 1))


def test_grids_of_wide_maps_have_fewer_columns():
    for width, columns in (32, 16), (128, 16), (256, 8), (2000, 4):
        maps, palette = np.zeros((16, 8, width), np.uint8), np.zeros((1, 3), np.uint8)
        assert pictures.grid(maps, palette).width // width == columns * max(1, 64 // width)


def test_size_of_a_square_is_its_side():
    for flags in ["--side", "16"], ["--size", "16"], ["--size", "16x16"]:
        _, args = parse(flags)
        assert given_settings(args) == {"side": 16, "width": 0}
    assert given_settings(parse(["--size", "16X32"])[1]) == {"side": 16, "width": 32}


COMPARE = ["compare", "--side", "16", "--maps", "1", "--batch-size", "4", "--latent", "5",
           "--kernel-size", "3", "--save-every", "2", "--generator-filters", "8", "6", "4",
           "--discriminator-filters", "5", "6"]


def test_compare(tmp_path, capsys):
    """Both models, few steps, one page. A second call continues both runs."""
    main([*COMPARE, "--steps", "2", "--out", str(tmp_path)])
    before = (tmp_path / "semgan" / "metrics.csv").read_text()
    main([*COMPARE, "--steps", "4", "--evaluate-every", "2", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert "--- semgan, run 1 of 2: continues from its checkpoint" in out
    assert "--- gan, run 2 of 2: continues from its checkpoint" in out
    assert (tmp_path / "semgan" / "metrics.csv").read_text().startswith(before)
    for model in "semgan", "gan":
        rows = evaluation.read_table(tmp_path / model / "metrics.csv")
        assert [row["step"] for row in rows if row["metric"] == "FSD"] == ["1", "2", "4"]
        assert load_checkpoint(tmp_path / model)[0]["step"] == 4
    a, b = (json.loads((tmp_path / model / "settings.json").read_text())
            for model in ("semgan", "gan"))
    assert [name for name in a if a[name] != b[name]] == ["model"]
    page = (tmp_path / "compare.md").read_text()
    assert "compare.png" in page and "4 and 4 steps, seed 0" in page and "196 samples" in page
    swd = next(line for line in page.splitlines() if line.startswith("| SWD x1e3, average"))
    _, _, direction, ours, theirs, best, _, real, _ = swd.split("|")
    assert direction.strip() == "lower"
    assert float(ours) > 0 and float(theirs) > 0 and float(real) > 0 and "(" in best
    assert min(Image.open(tmp_path / "compare.png").size) > 500


@pytest.mark.parametrize("every, steps, count", [(8, 24, 3), (10, 24, 3), (100, 24, 1)])
def test_the_estimate_counts_the_evaluations(tmp_path, monkeypatch, capsys, every, steps, count):
    """An evaluation of all 196 maps takes as much longer than one of 64 as there are more maps."""
    measured, clock = [], [0.0]

    def measure(g, dataset, count, seed, weights):
        measured.append(count)
        clock[0] += count / 400
        return {"FSD": (0.5, 0.5, 0.1)}
    monkeypatch.setattr(evaluation, "measure", measure)
    now = SimpleNamespace(perf_counter=lambda: clock[0])
    for module in training, forecast:
        monkeypatch.setattr(module, "time", now)
    monkeypatch.setattr(forecast, "rehearse", lambda trainer: 100.0)
    monkeypatch.setattr(forecast, "duration", lambda seconds: f"{seconds - steps * 100:.2f} more")
    main([*COMPARE[1:], "--steps", str(steps), "--evaluate-every", str(every),
          "--out", str(tmp_path)])
    out = capsys.readouterr().out
    said = re.search(r"They and (\d+) evaluations? will take about (.+) more", out)
    assert int(said[1]) == count == len(measured) - 2 and measured[:3] == [4, 64, 196]
    assert float(said[2]) == pytest.approx(count * 196 / 400, abs=0.01)


def test_each_model_keeps_its_color():
    """Also where the other one has no values."""
    def row(name, step, value):
        return dict(metric=name, step=step, value=value, **{"real at half": "0.5"})
    rows = {"semgan": [row("SWD 16", 1, "2.0"), row("SWD 8", 1, "too small")],
            "gan": [row("SWD 16", 1, "3.0"), row("SWD 8", 1, "0.1")]}
    figure = comparison._plot(rows, dict.fromkeys(["real", "GAN"], np.zeros((4, 4, 3), np.uint8)))
    lines = {(ax.get_title(), line.get_label()): line.get_color()
             for part in figure.subfigs for ax in part.axes for line in ax.lines}
    assert lines["SWD 16", "SemGAN"] == "C0"
    assert lines["SWD 16", "GAN"] == lines["SWD 8", "GAN"] == "C1"


@pytest.mark.parametrize("text, expected", [
    ("0.5", True), ("-0.0002", True), ("1e-05", True), ("too small", False), ("nan", False),
    ("", False), ("16 maps: too few", False)])
def test_numbers_in_metrics_are_told_from_reasons(text, expected):
    assert comparison._is_number(text) == expected


def test_evaluations_past_the_checkpoint_are_replaced(tmp_path):
    path = tmp_path / "metrics.csv"
    # After step 6 the run continued from a checkpoint before step 4.
    for step, value in ((2, 3.0), (4, 1.0), (6, 2.0), (4, 5.0)):
        table = {"FSD": (value, value, value), "SWD x1e3": ("too small",) * 3}
        evaluation.write_table(path, step, 10, 0, table)
    rows = [row for row in evaluation.read_table(path) if row["metric"] == "FSD"]
    assert [(row["step"], row["value"]) for row in rows] == [("2", "3.0"), ("4", "5.0")]
    assert evaluation.best_values(path) == {"FSD": (3.0, 2)}  # SWD could not be computed
    cut = path.read_bytes()[:-12]
    more = path.read_bytes().replace(b"\r\n", b",7\r\n").replace(b",7", b"", 1)  # cells in a row
    for damaged in b"something else\n1\n", cut, more, b"\xff\xfe\n":
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="metrics.csv: not a readable table"):
            evaluation.write_table(path, 2, 10, 0, {})


def test_best_values_are_not_those_of_noise_or_of_one_repeated_map(tmp_path):
    rows = {  # the values of one repeated map, of noise, of samples, and of real maps
        "components, speckle": (0.0, 0.99, 0.5, 0.43),
        "components, per map": (1.0, 900.0, 30.0, 26.0),
        "boundary density": (0.0, 0.8, 0.2, 0.15),
        "MS-SSIM, mean": (1.0, 0.107, 0.16, 0.151),
        "MS-SSIM, zero pairs": (0.0, 0.5, 0.3, 0.2),
        "memorization, memorized": (0.0, 0.0, 0.02, 0.015),
        "shapes, share": (0.0, 0.0, 0.46, 0.84),
        "shapes, circle overlap": (0.0, 0.08, 0.9, 1.0),
        "FSD": (0.3, 0.1, 0.01, 0.001)}
    for step in range(3):
        table = {name: (values[step], values[step], values[3]) for name, values in rows.items()}
        evaluation.write_table(tmp_path / "metrics.csv", step, 10, 0, table)
    best = evaluation.best_values(tmp_path / "metrics.csv")
    assert best == {name: (values[2], 2) for name, values in rows.items()}


class Copier:
    """A generator whose samples are given maps."""
    rgb = False

    def __init__(self, run, maps):
        self.s, self.maps = load_generator(run)[0].s, maps

    def sample(self, z):
        return self.maps[:len(z)]

    def outputs(self, z):
        yield np.eye(4)[self.sample(z)]


def test_evaluate_marks_what_is_better_and_flags_copies(run):
    dataset = data.colored_shapes(16)
    maps = np.random.default_rng(3).permutation(dataset.maps)
    others = np.random.default_rng(3).permutation(data.colored_shapes(16, seed=1).maps)
    near = maps.copy()
    near[np.arange(len(near)), 3, 4] ^= 1  # one pixel differs
    some = np.where(np.arange(len(maps)) % 5, others.T, maps.T).T  # every fifth is a copy
    texts = {}
    for name, samples in dict(honest=others, copies=maps, mirrored=maps[:, :, ::-1], near=near,
                              some=some).items():
        table = evaluation.measure(Copier(run, samples), dataset, len(maps), 0)
        texts[name] = evaluation.describe(table, dataset.palette).splitlines()
        warnings = [line for line in texts[name] if "look like copies of training maps" in line]
        assert len(warnings) == (name != "honest"), name
        if warnings:
            share = 100 if name != "some" else 20
            assert warnings[0].startswith(f"{share}% of the samples")
    header = next(line for line in texts["honest"] if "half of them" in line)
    assert "real (half)" in header and header.endswith("better")
    ends = {"FSD": "lower", "shapes, circle overlap": "higher", "MS-SSIM, mean": "near real",
            "components, speckle": "near real", "memorization, memorized": "near real"}
    for line in texts["honest"]:
        name = next((name for name in ends if line.startswith(name + " ")), None)
        assert not name or line.endswith("   " + ends.pop(name))
    assert not ends
    without = {name for name in table if not evaluation.better(name)}
    assert without == {"memorization, agreement", "memorization, held out"}


def test_evaluate_refuses(run, capsys, tmp_path):
    assert "expected 4 or more" in fails(capsys, "evaluate", run, "--count", 3)
    assert "no such checkpoint" in fails(capsys, "evaluate", tmp_path)
    assert "cannot be read" in fails(capsys, "evaluate", run, "--weights", tmp_path / "none.pth")
    assert "leave out --model" in fails(capsys, "compare", "--model", "gan")


def test_interpolate(run, tmp_path):
    main(["interpolate", str(run), "--keys", "3", "--frames", "4", "--out", str(tmp_path)])
    assert Image.open(tmp_path / "interpolation.gif").n_frames > 1
    assert Image.open(tmp_path / "interpolation.png").width > 100


def test_slerp_stays_on_the_sphere():
    a, b = np.random.default_rng(0).standard_normal((2, 50))
    b *= np.linalg.norm(a) / np.linalg.norm(b)
    walk = commands.slerp(a, b, 8)
    np.testing.assert_allclose(np.linalg.norm(walk, axis=1), np.linalg.norm(a))
    np.testing.assert_allclose(walk[0], a)
    assert np.isfinite(commands.slerp(a, a, 4)).all()
    assert np.isfinite(commands.slerp(a[:1], -a[:1], 4)).all()


def test_doctor():
    code, out, _ = call("doctor")
    assert code == 0 and "numpy" in out and "will use" in out and "GPU" in out


def test_doctor_names_two_cupy_packages(monkeypatch, capsys):
    from importlib import metadata
    class Two:
        def __init__(self, name):
            self.metadata = {"Name": name}
    two = [Two("cupy-cuda12x"), Two("cupy-cuda13x")]
    monkeypatch.setattr(metadata, "distributions", lambda: two)
    monkeypatch.setattr(metadata, "version", lambda name: "13.0")
    assert "cupy-cuda12x and cupy-cuda13x conflict" in fails(capsys, "doctor")


def test_help_reads_well(monkeypatch, capsys):
    for command in "", "sample", "evaluate", "interpolate", "export", "doctor", "compare":
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as stop:
            main([*command.split(), "--help"])
        out = capsys.readouterr().out
        assert stop.value.code == 0 and max(map(len, out.splitlines())) <= 80
    assert all("--" + name.replace("_", "-") in out for name in ["size", *semgan.SETTINGS]
               if name != "width")


def test_presets_are_what_they_promise():
    of = lambda dataset, preset: resolve({"dataset": dataset, "preset": preset})[0]
    differences = lambda a, b: {name for name in vars(a) if getattr(a, name) != getattr(b, name)}
    full, paper, small = (of("shapes", preset) for preset in ("full", "paper", "small"))
    assert (full.side, full.kernel_size, full.latent, full.batch_size) == (64, 11, 100, 32)
    assert full.learning_rate == full.discriminator_learning_rate == 1e-4 and full.steps == 50_000
    assert paper.bottleneck and not full.bottleneck and small.side == 32
    assert differences(paper, full) == {"preset", "bottleneck"}
    scenes, facades = of("somewhere.zip", "paper"), of("facades", "paper")
    assert (scenes.side, scenes.latent, scenes.kernel_size) == (128, 128, 7)
    assert (facades.side, facades.latent, facades.kernel_size) == (128, 300, 7)
    assert scenes.learning_rate == facades.learning_rate == 2e-4
    assert differences(of("somewhere.zip", "small"), small) == {"dataset", "maps"}
    assert full.maps == 2916 and (full.feature_matching, full.moment_matching) == ("mean", 0)


def test_every_setting_has_the_origin_of_its_value():
    given = {"dataset": "facades", "seed": 7, "latent": 300}
    s, origin = resolve(given, gpu=True)
    assert s.preset == "full" and list(origin) == list(vars(s))
    for name, value in vars(s).items():
        layers = {"default": vars(semgan.settings()) | {"maps": None},
                  "on a GPU": {"preset": "full"},
                  "the paper's facades": semgan.FACADES, "flag": given}
        assert layers[origin[name]][name] == value, name
    assert origin["side"] == "the paper's facades" and origin["latent"] == "flag"
    assert resolve({})[1]["half_life"] == "preset small"


def test_paper_networks_have_the_papers_shapes():
    """Figure 1 at 128x128: dense 32768, then 256, 128, 64 at sides 32, 64, 128, K, K."""
    s = semgan.settings(dataset="somewhere.zip", preset="paper", kernel_size=3)
    g = semgan.Generator(kernels.load("numpy"), s, 22, np.random.default_rng(0))
    assert g.params["dense.b"].shape == (32768,) and g.base == (16, 16)
    assert g.strides == [2, 2, 2, 1]
    channels = [g.params[f"deconv{i}.gamma"].shape for i in range(1, 5)]
    assert channels == [(256,), (128,), (64,), (22,)]
    assert g.params["conv.w"].shape == (3, 3, 22, 22)
    maps, kept = g.forward(np.zeros((1, 128), np.float32))
    assert maps.shape == (1, 128, 128, 22)
    assert [layer.y.shape[1] for layer in kept.layers] == [32, 64, 128, 128]
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)


# ----------------------------------------------------------------------------------------- mistakes
@pytest.mark.parametrize("flags, message", [
    (["--kernel-size", "4"], "--kernel-size 4: expected an odd number"),
    (["--moment-matching", "-1"], "--moment-matching -1.0: expected 0, or a number above 0"),
    (["--maps", "0"], "--maps 0: expected 1 or more"),
    (["--side", "30"], "--side 30: expected a multiple of 8"),
    (["--side", "-8"], "--side -8"),
    *((["--size", size], f"--size {size}: expected HEIGHTxWIDTH in pixels")
      for size in ("64x", "0x5", "64x128x3", "1" * 30, f"8x{'1' * 400}", "")),
    (["--size", "64x100"], "--size 64x100: expected multiples of 8, since the generator has 3"),
    (["--size", "100x64"], "--size 100x64: expected multiples of 8"),
    (["--size", "65536x131072"], "--size 65536x131072: expected at most 16777216 pixels"),
    (["--size", "64", "--side", "64"], "--side 64 and --size 64: expected one of them"),
    (["--steps", "0"], "--steps 0"),
    (["--batch-size", "0"], "--batch-size 0"),
    (["--learning-rate", "0"], "--learning-rate 0.0"),
    (["--learning-rate", "nan"], "--learning-rate nan"),
    (["--beta1", "1"], "--beta1 1.0"),
    (["--seed", "-1"], "--seed -1"),
    (["--generator-filters", "8", "0"], "--generator-filters"),
    (["--dataset", "no/such/folder"], "no such folder"),
    (["--dataset", "shapes", "--precision", "fp8"], "invalid choice"),
    (["--dataset", "shapes", "--device", "numpy", "--precision", "bf16"],
     "precision bf16: for device cuda or emulator only"),
    (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
    (["--kernel-size", "big"], "invalid int value"),
    (["--model", "vae"], "invalid choice"),
    (["--save-every", "0"], "expected 1 or more"),
    (["--learning-rate", "1e-60"], "float32 can hold"),
    (["--adam-eps", "1e-60"], "float32 can hold"),
    (["--beta2", "0.99999999999"], "below 1 in float32"),
    (["--classes", "300", "--dataset", "."], "--classes 300: expected 2 to 255"),
    (["--classes", "9"], "not for the shapes"),
    (["--palette", "no/such"], "not for the shapes"),
    (["--crop"], "not for the shapes"),
    (["--dataset", ""], "--dataset is empty"),
    (["--dataset", "cityscapes", "--data", ""], "--data is empty"),
    (["--dataset", "cityscapes"], "needs --data PATH: gtFine_trainvaltest.zip"),
    (["--dataset", "cityscapes", "--data", "no/such"], "no/such: no such folder"),
    (["--dataset", "facades"],
     "data.py facades --download` fills"),
    (["--dataset", "facades", "--data", ".", "--classes", "13"], "the facades have 12"),
    (["--dataset", "cityscapes", "--data", ".", "--classes", "20"], "22, 19 and 34"),
    (["--dataset", ".", "--data", "."], "--data is for cityscapes and facades"),
    (["--dataset", ".", "--split", "val"], "--split is for cityscapes and facades"),
    (["--split", "most"], "invalid choice"),
    (["--half-life", "-1"], "--half-life -1"),
    (["--side", "7" * 400], f"--side {'7' * 100}...: expected 1 or more, below 2147483648"),
    (["--seed", "1" * 30], "expected 0 or more, below 2147483648"),
    (["--learning-rate", "7" * 400], "--learning-rate inf"),
    (["--learning-rate", "1e39"], "float32 can hold"),
    (["--generator-filters", *["1"] * 20_000], "expected fewer layers"),
    (["--out", ""], "--out is empty"),
])
@pytest.mark.filterwarnings("error")
def test_wrong_flags(flags, message, tmp_path, capsys):
    out = tmp_path / "run"
    assert message in fails(capsys, "--preset", "small", "--out", out, *flags)
    assert not out.exists(), "nothing half-written"


def test_bad_maps_leave_nothing(tmp_path, capsys):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n half")
    line = fails(capsys, "--dataset", tmp_path / "maps", "--out", tmp_path / "run")
    assert "broken.png" in line and not (tmp_path / "run").exists()


def test_unwritable_output(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert "cannot write there" in fails(capsys, *TINY_FLAGS, "--out", tmp_path / "file" / "run")
    assert "cannot write there" in fails(capsys, *TINY_FLAGS, "--out", tmp_path / "file")
    (tmp_path / "log.csv").mkdir()
    assert "log.csv: cannot write there (a folder" in fails(capsys, *TINY_FLAGS, "--out", tmp_path)


def test_a_run_is_never_overwritten(run, capsys):
    before = (run / "checkpoint.npz").read_bytes()
    assert "already holds a run" in fails(capsys, *TINY_FLAGS, "--out", run)
    assert (run / "checkpoint.npz").read_bytes() == before


@pytest.mark.parametrize("flags, message", [
    (["--kernel-size", "5"], "--kernel-size 5: .* was started with 3"),
    (["--size", "8x16"], "--size 8x16: .* was started with 8x8"),
    (["--side", "16"], "--size 16x16: .* was started with 8x8"),
    (["--model", "gan"], "--model gan: .* was started with semgan"),
    (["--preset", "paper"], "--preset paper: .* was started with small"),
    (["--dataset", "other"], "--dataset .*other: .* was started with shapes"),
    (["--steps", "3"], "--steps 3: .* is already at step 10"),
    (["--steps", "0"], "--steps 0"),
])
def test_resume_with_other_settings(run, flags, message, capsys):
    assert re.search(message, fails(capsys, "--resume", "--out", run, *flags))


@pytest.mark.parametrize("words, flags", [
    (["--latent", 2 ** 30], "--batch-size and --latent"),
    (["--kernel-size", 2 ** 31 - 1], "--kernel-size"),
    (["--generator-filters", 2 ** 31 - 1, 2 ** 31 - 1], "--generator-filters"),
    (["--batch-size", 2 ** 31 - 1], "--batch-size"),
    (["--side", 4096, "--dataset", "shapes"], "--side"),
    (["--batch-size", 2 ** 18, "--latent", 1], "--batch-size and --side"),
    (["sample", "--trained", "--count", "7" * 400], "--count"),
    (["interpolate", "--trained", "--frames", 10 ** 9], "--keys and --frames"),
    (["interpolate", "--trained", "--keys", 10 ** 30], "--keys and --frames")], ids=str)
def test_memory_that_is_not_there(tmp_path, monkeypatch, capsys, words, flags):
    """One line before anything is allocated: how much, what for, what to lower."""
    monkeypatch.setattr(machine, "available", lambda: 4e9)
    monkeypatch.setattr(semgan, "Trainer", None)
    monkeypatch.setattr(semgan.Generator, "sample", None)
    words = words if words[0] in ("sample", "interpolate") else [*TINY_FLAGS, *words]
    line = fails(capsys, *words, "--out", tmp_path / "new" / "run", code=1)
    assert line.startswith("semgan: not enough memory: ") and "but 4.0 GB are available" in line
    assert flags in line and not list(tmp_path.iterdir())


@pytest.mark.parametrize("side, code, message", [
    ("0", 2, "--side 0: expected 1 or more"), ("200000", 1, "not enough memory"),
    ("7" * 400, 2, "--side 777")])
def test_sides_that_inspect_refuses(tmp_path, capsys, side, code, message):
    with pytest.raises(SystemExit) as stop:
        data_command.main(["inspect", "--side", side, "--out", str(tmp_path / "picture.png")])
    assert stop.value.code == code and message in capsys.readouterr().err


@pytest.mark.parametrize("changes", [
    dict(), dict(model="gan"), dict(bottleneck=True, moment_matching=0.0),
    dict(kernel_size=3, generator_filters=[64, 16], discriminator_filters=[8, 16, 16, 32]),
    dict(kernel_size=31, batch_size=2), dict(side=64, generator_filters=[8])], ids=str)
def test_memory_is_estimated_from_what_a_step_takes(changes):
    """The arena to the percent; what convolutions take beside it not below, and not far above."""
    s = semgan.settings(preset="small", **dict(maps=1, batch_size=8) | changes)
    t = semgan.Trainer(kernels.load("numpy"), s, data.colored_shapes(s.side))
    t.train_step()
    arena, scratch = (sum(buffer.nbytes for buffer in arena.buffers)
                      for arena in (t.ops.arena, t.ops.fourier.scratch))
    estimated = [memory.NUMBER * count(s, 4) for count in
                 (memory._numbers_of_a_step, memory._scratch)]
    assert estimated[0] == pytest.approx(arena, rel=0.01)
    assert scratch * 0.99 <= estimated[1] <= 3 * scratch + 100e6


def test_what_fits_is_never_refused(monkeypatch):
    s, parts = semgan.settings(preset="small"), []
    require = machine.require
    monkeypatch.setattr(machine, "require", lambda what, of: parts.append(sum(of.values())))
    memory.require_for_training(s, 4, 2916)
    monkeypatch.setattr(machine, "require", require)
    assert 100e6 < parts[-1] < 150e6
    for free, refused in (parts[-1], False), (None, False), (parts[-1] - 1, True):
        monkeypatch.setattr(machine, "available", lambda free=free: free)
        with pytest.raises(machine.TooLarge) if refused else nullcontext():
            memory.require_for_training(s, 4, 2916)
    monkeypatch.undo()
    assert sys.platform != "linux" or 1e8 < machine.available() < 1e14


def test_a_run_whose_maps_have_moved(tmp_path, capsys):
    """The same maps elsewhere: training, and evaluation, go on there. Others are refused."""
    old, new, other, run = (tmp_path / name for name in ("old", "new", "other", "run"))
    ids = np.array([0, 1], np.uint8)
    save_maps(old, ids, count=5)
    save_maps(other, ids, count=4)
    main([*TINY_FLAGS, "--dataset", str(old), "--out", str(run), "--steps", "3"])
    old.rename(new)
    again = "--resume", "--steps", "4", "--out", run, "--dataset"
    for words in again[:-1], ["evaluate", run]:
        message = fails(capsys, *words)
        assert "old: no such folder" in message and "moved, --dataset NEW says" in message
    assert "other: its maps or colours have changed" in fails(capsys, *again, other)
    assert "--dataset shapes: " in fails(capsys, *again, "shapes")
    assert "other: its maps or colours" in fails(capsys, "evaluate", run, "--dataset", other)
    main(["evaluate", str(run), "--dataset", str(new)])
    capsys.readouterr()
    main([*map(str, again), str(new)])
    assert f"{run} continues with the same maps and colours, from {new}." in capsys.readouterr().out
    assert load_checkpoint(run)[0]["settings"].dataset == str(new)
    main(["--resume", "--steps", "5", "--out", str(run)])  # the new place is kept
    palette = tmp_path / "other colours"
    palette.write_text("0 0 0\n255 0 9\n")
    for words in ["evaluate", run], ["--resume", "--out", run]:
        assert "colours have changed" in fails(capsys, *words, "--palette", palette)
    main(["evaluate", str(run), "--palette", str(run / "palette.txt")])


def test_nothing_is_written_among_the_maps(tmp_path, capsys, monkeypatch):
    """Grids and pictures would be read as more maps. Other files than --labels names are not."""
    maps = tmp_path / "maps"
    save_maps(maps, np.array([0, 1], np.uint8), count=5)
    monkeypatch.chdir(maps)
    for path in ".", maps:
        assert "lies in" in fails(capsys, "--dataset", path)
        with pytest.raises(SystemExit):
            data_command.main(["inspect", "--dataset", str(path), "--out", "x.png"])
        assert "x.png: lies in" in capsys.readouterr().err
    assert len(list(maps.iterdir())) == 5
    main([*TINY_FLAGS, "--dataset", ".", "--out", str(tmp_path / "run"), "--steps", "1"])
    main([*TINY_FLAGS, "--dataset", ".", "--labels", "?.png", "--out", "run", "--steps", "1"])


def test_resume_with_other_maps(tmp_path, capsys):
    """The data set changed under the run: a map is gone, or the palette has another order."""
    maps, palette, run = tmp_path / "maps", tmp_path / "palette.txt", tmp_path / "run"
    save_maps(maps, np.array([[0, 0, 0], [255, 0, 0]], np.uint8), count=5)
    palette.write_text("0 0 0\n255 0 0\n")
    main([*TINY_FLAGS, "--dataset", str(maps), "--palette", str(palette), "--out", str(run),
          "--steps", "3"])
    main(["--resume", "--steps", "4", "--out", str(run)])  # finds its data and palette by itself
    message = "its maps or colours have changed since"
    palette.write_text("255 0 0\n0 0 0\n")
    assert message in fails(capsys, "--resume", "--steps", 5, "--out", run)
    palette.write_text("0 0 0\n255 0 0\n")
    (maps / "4.png").unlink()
    assert message in fails(capsys, "--resume", "--steps", 5, "--out", run)
    assert message in fails(capsys, "evaluate", run)


def test_a_run_keeps_the_colours_that_an_earlier_version_made_up(tmp_path, monkeypatch):
    """Also where its maps have moved, and in a comparison that the earlier version began."""
    maps, new, folder = (tmp_path / name for name in ("maps", "new", "compare"))
    run = folder / "gan"
    save_maps(maps, np.arange(3, dtype=np.uint8), count=8)
    before = np.array([[242, 73, 73], [57, 87, 191], [88, 128, 38]], np.uint8)
    flags = [*TINY_FLAGS, "--dataset", str(maps), "--mirror", "--void", "9", "--steps", "2"]
    with monkeypatch.context() as earlier:
        earlier.setattr(label_maps, "distinct_colors", lambda *_: before.copy())
        earlier.setenv("SEMGAN_CACHE", str(tmp_path / "earlier"))
        main([*flags, "--out", str(folder / "semgan")])
    drawn = []
    with monkeypatch.context() as watched:
        watched.setattr(comparison, "comparison_page", lambda *words: drawn.append(words[2]))
        main(["compare", *flags, "--out", str(folder)])
    real = np.asarray(drawn[0]["real maps"])
    assert {(128, 128, 128), *map(tuple, before)} >= {*map(tuple, real.reshape(-1, 3).tolist())}
    maps.rename(new)
    main(["--resume", "--steps", "4", "--dataset", str(new), "--out", str(run)])
    header, _ = load_checkpoint(run)
    assert np.array_equal(header["palette"], before) and header["settings"].mirror
    assert np.array_equal(load_dataset(header["settings"], header).palette, before)
    new.rename(maps)
    main(["evaluate", str(run), "--dataset", str(maps)])
    real = [float(row["real at half"]) for row in csv.DictReader(open(run / "evaluation.csv"))
            if row["metric"] == "memorization, copies"]
    assert set(real) == {0}, "the real maps have no mirror images among them"


def save_maps(folder, colors, count):
    """Random maps of 8x8 pixels in these colours."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(colors[rng.integers(0, len(colors), (8, 8))]).save(folder / f"{i}.png")


def test_training_on_cityscapes_and_resuming(tmp_path, capsys):
    """The options of a data set are settings: stored, shown, taken by --resume, never changed."""
    rng, city = np.random.default_rng(0), tmp_path / "gtFine" / "train" / "ulm"
    city.mkdir(parents=True)
    for i in range(5):
        maps = rng.integers(0, 34, (8, 16)).astype(np.uint8)
        Image.fromarray(maps).save(city / f"ulm_{i:06d}_000019_gtFine_labelIds.png")
    run = tmp_path / "run"
    main([*TINY_FLAGS, "--dataset", "cityscapes", "--data", str(tmp_path), "--classes", "19",
          "--crop", "--steps", "3", "--out", str(run)])
    out = capsys.readouterr().out
    assert "5 of 19 classes" in out and "crop                         yes" in out
    assert json.loads((run / "settings.json").read_text())["data"] == [str(tmp_path)]
    main(["--resume", "--steps", "4", "--out", str(run)])
    for flags, message in ((["--classes", "22"], "was started with 19"),
                           (["--no-crop"], "was started with yes"),
                           (["--split", "val"], "was started with -"),
                           (["--data", "elsewhere"], "elsewhere: no such folder")):
        assert message in fails(capsys, "--resume", "--out", run, *flags)
    main(["sample", str(run), "--count", "1"])
    for palette in run / "palette.txt", run / "generated" / "palette.txt":
        assert palette.read_text().splitlines()[0] == "128 64 128 road"


def test_a_learnt_palette_is_written_beside_the_run(tmp_path):
    maps, run = tmp_path / "maps", tmp_path / "run"
    save_maps(maps, np.array([[9, 0, 0], [0, 0, 255], [0, 77, 0]], np.uint8), count=4)
    main([*TINY_FLAGS, "--dataset", str(maps), "--steps", "2", "--out", str(run)])
    palette = run / "palette.txt"
    assert palette.read_text() == "0 0 255 class 0\n0 77 0 class 1\n9 0 0 class 2\n"
    main(["--resume", "--steps", "3", "--out", str(run)])
    main([*TINY_FLAGS, "--dataset", str(maps), "--palette", str(palette), "--steps", "2",
          "--out", str(tmp_path / "run2")])


@pytest.mark.parametrize("content", [
    b"step,loss_d,features_1,features_2,moments_1,moments_2,seconds\nabc,1,1,1,1,1,1\n",
    b"\xff\xfe\x00\n"])
def test_damaged_log(run, tmp_path, content, capsys):
    (tmp_path / "checkpoint.npz").write_bytes((run / "checkpoint.npz").read_bytes())
    (tmp_path / "log.csv").write_bytes(content)
    line = fails(capsys, "--resume", "--steps", 12, "--out", tmp_path)
    assert "log.csv: not a readable log" in line
    (tmp_path / "log.csv").unlink()
    main(["--resume", "--out", str(tmp_path)])  # a finished run without a log: nothing to plot


def test_resume_without_a_run(tmp_path, capsys):
    assert "no such checkpoint" in fails(capsys, "--resume", "--out", tmp_path)


DAMAGED_FILES = {
    "truncated": lambda content: content[:len(content) // 2],
    "empty": lambda _: b"",
    "a flipped bit": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
    "text": lambda _: b"not a checkpoint",
    "a pickle": lambda _: pickle.dumps(Evil()),
}


def damage(kind, path):
    if kind in DAMAGED_FILES:
        path.write_bytes(DAMAGED_FILES[kind](path.read_bytes()))
        return
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays.pop("header")))
    settings = header["settings"]
    if kind == "another model":
        arrays["g.params"] = np.zeros(7, np.float32)
    elif kind == "a missing array":
        del arrays["d.m"]
    elif kind == "a pickled array":
        arrays["g.params"] = np.array([Evil()], object)
    elif kind == "not a number":
        arrays["g.params"][3] = np.nan
    elif kind == "another version":
        header["format"] = 99
    elif kind == "other settings":
        settings["generator_filters"] = [7, 7, 7]
    elif kind == "a setting missing":
        del settings["latent"]
    elif kind == "a negative step":
        header["step"] = -1
    elif kind == "another step":
        header["step"] += 1
    elif kind == "a bomb":
        arrays["g.params"] = np.zeros(50_000_000, np.float32)
    elif kind == "float64":
        arrays["g.params"] = np.full(arrays["g.params"].shape, 1e300)
    elif kind == "a negative variance":
        arrays["g.deconv1.gamma.running_var"][0] = -1
    elif kind == "a negative moment":
        arrays["g.v"][0] = -1
    elif kind == "an unknown array":
        arrays["g.more"] = np.zeros(3)
    elif kind == "a long header":
        header["names"][0] = "x" * 5_000_000
    elif kind == "numbers for names":
        header["names"] = [1, 2, 3, 4]
    elif kind.startswith("setting"):
        _, name, value = kind.split()
        settings[name] = json.loads(value)
    if kind != "no header":
        arrays["header"] = json.dumps(header)
    (np.savez_compressed if kind == "a bomb" else np.savez)(path, **arrays)


@pytest.mark.parametrize("kind, message", [
    ("truncated", ""), ("empty", ""), ("a flipped bit", ""), ("text", ""), ("a pickle", ""),
    ("a pickled array", ""), ("no header", "header"), ("a missing array", "d.m: expected"),
    ("another model", "g.params: expected"), ("not a number", "NaN or infinity"),
    ("another version", "a newer version"), ("setting from_the_future 1", "a newer version"),
    ("a setting missing", "latent is missing"), ("other settings", "g.params: expected"),
    ("a negative step", "step is -1"), ("another step", "another step"),
    ('setting side "8"', "side is '8'"), ("setting latent -1", "--latent -1"),
    ("setting generator_filters []", "--generator-filters"), ('setting data "x"', "data is 'x'"),
    ("setting data [5]", "--data 5: expected paths"), ("setting crop 2", "crop is 2"),
    ("setting learning_rate null", "learning_rate is None"), ('setting model "vae"', "--model vae"),
    ("a bomb", "declares 200,0"), ("float64", "beyond float32"), ("a negative moment", "g.v holds"),
    ("a negative variance", "a negative number"), ("an unknown array", "an array g.more"),
    ("a long header", "header: expected a text"), ("numbers for names", "name of a class"),
    ("setting side 4096", "g.params: expected"), (f"setting side {'7' * 400}", "--side 777"),
    ("setting generator_filters [2147483647,2147483647,2147483647]", "g.params: expected"),
])
def test_damaged_checkpoints(run, tmp_path, kind, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.npz"
    path.write_bytes((run / "checkpoint.npz").read_bytes())
    damage(kind, path)
    damaged = path.read_bytes()
    line = fails(capsys, "--resume", "--steps", "12", "--out", tmp_path)
    assert "checkpoint" in line and str(tmp_path) in line and message in line and len(line) < 600
    if kind != "a missing array":
        assert "checkpoint" in fails(capsys, "sample", tmp_path)
    assert not (tmp_path / "evil_was_here").exists() and path.read_bytes() == damaged
    assert not (tmp_path / "settings.json").exists(), "nothing half-written"


# ---------------------------------------------------------------------------- the process around it
@pytest.mark.parametrize("rate", [1e-3, 1e30], ids=["done", "NaN"])
def test_signals_and_numpy_warnings_are_as_before(tmp_path, rate):
    """Also after a run that ends with infinite losses."""
    state = lambda: (np.geterr(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM),
                     sys.unraisablehook)
    before = state()
    with np.errstate(over="raise"):  # as a notebook may have set it
        inside = state()
        with suppress(SystemExit):
            main([*TINY_FLAGS, "--steps", "5", "--learning-rate", str(rate),
                  "--out", str(tmp_path)])
        assert state() == inside
    assert state() == before


def test_curves_leave_pyplot_alone(run, tmp_path, monkeypatch):
    """A notebook that shows its own plots keeps its backend."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import would fail
    monkeypatch.setattr(matplotlib, "use", None)
    (tmp_path / "log.csv").write_bytes((run / "log.csv").read_bytes())
    pictures.plot_curves(tmp_path)
    assert Image.open(tmp_path / "curves.png").width > 500


@pytest.mark.parametrize("losses, scale", [
    ([0.3, 0.003, 0.0002], "log"), ([0.3, 0.003, -0.0002], "symlog"), ([-0.1] * 3, "symlog")])
def test_curves_take_negative_losses(run, tmp_path, monkeypatch, losses, scale):
    """An unbiased estimate of a distance can be negative. No value leaves the picture."""
    rows = [f"{step},0.7,{loss},{loss / 2},1.0" for step, loss in enumerate(losses, 1)]
    header = "step,loss_d,features_1,features_2,seconds"
    (tmp_path / "log.csv").write_text("\n".join([header, *rows]) + "\n")
    drawn = []
    monkeypatch.setattr(pictures, "set_log_scale",
                        lambda axes, values, right=pictures.set_log_scale:
                        drawn.append(axes) or right(axes, values))
    pictures.plot_curves(tmp_path)
    axes, = drawn
    low, high = axes.get_ylim()
    assert axes.get_yscale() == scale and low <= min(losses) and high >= max(losses)
    assert [path.name for path in tmp_path.glob("curves*")] == ["curves.png"]


def test_dying_while_drawing_keeps_the_old_curves(run, tmp_path, monkeypatch):
    for name in "log.csv", "curves.png":
        (tmp_path / name).write_bytes((run / name).read_bytes())
    before = (tmp_path / "curves.png").read_bytes()

    def die(figure, file, **options):
        file.write(b"half a picture")
        raise KeyboardInterrupt
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", die)
    with pytest.raises(KeyboardInterrupt):
        pictures.plot_curves(tmp_path)
    assert (tmp_path / "curves.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_log_with_negative_losses_is_continued(tmp_path, monkeypatch):
    """In log.csv, in the bar, in the curves, and after --resume."""
    step = semgan.Trainer.train_step

    def negative(self):
        step(self)
        self.ops.write(self.losses[1:], [-0.0002, 0.003, 0.1, 0.2])
    monkeypatch.setattr(semgan.Trainer, "train_step", negative)
    flags = ["--log-every", "1", "--out", str(tmp_path)]
    main([*TINY_FLAGS, "--steps", "3", *flags])
    main(["--resume", "--steps", "5", *flags])
    rows = (tmp_path / "log.csv").read_text().split()[1:]
    assert [row.split(",")[2:4] for row in rows] == [["-0.0002", "0.003"]] * 5


POSIX = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and shells")


# ------------------------------------------------------------------------------- commands to paste
def shell(line, cwd):
    """(exit code, stdout, stderr) of a command line as a user pastes it."""
    done = subprocess.run(line, shell=True, capture_output=True, text=True, cwd=cwd, timeout=120,
                          env=WITHOUT_GPU | {"PYTHONUNBUFFERED": ""})
    return done.returncode, done.stdout, done.stderr


@POSIX
def test_printed_commands_work_when_pasted(tmp_path):
    """From another folder than the program's, with names that a shell or argparse would misread."""
    odd = "-it's$HOME&more"
    code, out, err = call(*TINY_FLAGS, "--steps", "2", f"--out={odd}", cwd=tmp_path)
    assert code == 0, err
    line = next(line for line in out.splitlines() if line.startswith("More maps:"))
    assert shell(line.split(":", 1)[1] + " --count 2", tmp_path)[0] == 0
    code, out, err = shell(line.split(":", 1)[1] + " --count 2", tmp_path)
    assert code == 2 and "already holds maps" in err
    code, out, _ = shell(err.split("draw others: ")[1], tmp_path)
    assert code == 0 and "2 maps in" in out
    assert len(list((tmp_path / odd / "generated-2").glob("map_*.png"))) == 2
    code, out, err = call("export", f"./{odd}", "g 1.npz", cwd=tmp_path)
    assert shell(out.split("New maps from it: ")[1], tmp_path)[0] == 0


@POSIX
@pytest.mark.parametrize("name", ["train", "resume", "compare"])
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_in_training(tmp_path, monkeypatch, capfd, name, times):
    """It says at once that it stops, and how to go on. The second time it stops in the step."""
    words = [*COMPARE[name != "compare":], "--steps", "9", "--out", str(tmp_path)]
    if name == "resume":
        main([*words[:-4], "--steps", "3", *words[-2:]])
        words.append("--resume")
    step = semgan.Trainer.train_step

    def interrupted(self):
        if self.step == 5:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
        step(self)
    monkeypatch.setattr(semgan.Trainer, "train_step", interrupted)
    with pytest.raises(SystemExit) as stop:
        main(words)
    out, err = capfd.readouterr()
    assert stop.value.code == 130 and err.count("Stopping:") == 1
    run = tmp_path / "semgan" if name == "compare" else tmp_path
    saved = load_checkpoint(run)[0]["step"]
    assert saved == (6 if times == 1 else 4)  # --save-every 2
    expected = words if name != "train" else [*words, "--resume"]
    last = out.strip().splitlines()[-1]
    assert last == f"Stopped at step {saved}. To continue: {files.command('semgan.py', *expected)}"


INTO_ANOTHER_ERROR = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
signal.signal(signal.SIGINT, signal.SIG_DFL)
from app import failures, training

def draw():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    except KeyboardInterrupt:
        raise ValueError("Invalid affine transformation matrix") from None

with failures.reported("semgan"):
    with training.stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        draw()
    print("received", len(stop))
    draw()
"""


@POSIX
def test_ctrl_c_that_a_library_turns_into_another_error():
    """As matplotlib does in the middle of a drawing."""
    done = subprocess.run([sys.executable, "-c", INTO_ANOTHER_ERROR, str(ROOT)],
                          capture_output=True, text=True, env=WITHOUT_GPU)
    assert (done.returncode, done.stdout) == (130, "received 2\n")
    assert done.stderr.splitlines()[2:] == ["semgan: interrupted"]


@POSIX
@pytest.mark.filterwarnings("error")  # pytest turns what Python would print into a warning
def test_ctrl_c_while_an_object_is_deleted(capfd):
    """Python cannot raise there, and would print a traceback. The first signal still ends it."""
    class Deleted:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
    with training.stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        Deleted()
    assert len(stop) == 2
    assert capfd.readouterr().err.count("\n") == 2  # "Stopping", after an empty line


@POSIX
@pytest.mark.parametrize("program", ["semgan.py", "data.py", "inception.py"])
def test_ctrl_c_while_importing(tmp_path, program):
    (tmp_path / "tqdm.py").write_text("import os\nos.kill(os.getpid(), 2)\n")
    done = subprocess.run([sys.executable, str(ROOT / program)], capture_output=True, text=True,
                          env=WITHOUT_GPU | {"PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
    assert done.returncode == -signal.SIGINT and done.stderr == ""


@POSIX
@pytest.mark.parametrize("words", [["--help"], ["doctor"], ["sample", "--trained"],
                                   [*TINY_FLAGS, "--steps", "2"]], ids=lambda words: words[0])
@pytest.mark.parametrize("end", ["| true", ">&-", ">&- 2>&- <&-", "2>&-"])
def test_output_that_nobody_reads(tmp_path, monkeypatch, words, end):
    monkeypatch.chdir(tmp_path)
    line = files.command("semgan.py", *words)
    code, out, err = shell(f"({line}; echo $? > code) {end}", tmp_path)
    code = int((tmp_path / "code").read_text())
    assert code in (0, 141 if "|" in end else 0) and err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["doctor"], ["sample", "--trained"],
                                   [*TINY_FLAGS, "--steps", "2"]], ids=lambda words: words[0])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_to_a_full_disk(tmp_path, words, unbuffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, str(ROOT / "semgan.py"), *words], stdout=full,
                              stderr=subprocess.PIPE, text=True, cwd=tmp_path,
                              env=WITHOUT_GPU | {"PYTHONUNBUFFERED": unbuffered})
    assert done.returncode == 1
    assert done.stderr == "semgan: standard output: No space left on device\n"


def test_no_terminal_codes(tmp_path, monkeypatch, capsys):
    """Names of files and flags can hold them, and letters that the output cannot write."""
    run = tmp_path / "r\x1b[31m"
    for words in [*TINY_FLAGS, "--steps", "2", "--out"], ["sample", "--count", "2"], ["evaluate"]:
        main([*words, str(run)])
        assert f"{tmp_path / 'r?[31m'}" in capsys.readouterr().out
    line = fails(capsys, "--bad\x1b[31m")
    assert line == "semgan.py: error: unrecognized arguments: --bad?[31m"
    monkeypatch.setitem(WITHOUT_GPU, "PYTHONIOENCODING", "ascii")
    code, out, err = call("sample", "--trained", "--count", "2", "--out", "é", cwd=tmp_path)
    assert code == 0 and out == "2 maps in ?, a picture of them in ?.png\n", err


@pytest.mark.parametrize("package", ["numpy", "scipy", "PIL", "tqdm", "matplotlib"])
def test_a_missing_package(tmp_path, package):
    error = f"raise ModuleNotFoundError('', name={package!r})"
    (tmp_path / f"{package}.py").write_text(error)
    script, words = ("data.py", ["inspect"]) if package == "matplotlib" else ("semgan.py", [])
    done = subprocess.run([sys.executable, str(ROOT / script), *words], capture_output=True,
                          text=True, env=WITHOUT_GPU | {"PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
    named = package.replace("PIL", "pillow")
    assert done.returncode == 1
    assert done.stderr == (f"the package {named} is missing: pip install -r "
                           "requirements-cpu.txt\n")


def test_progress_bars_are_quiet_in_files():
    """tqdm(disable=None) draws only on a terminal."""
    for path in [*ROOT.glob("*.py"), *(ROOT / "app").glob("*.py"), *(ROOT / "formats").glob("*")]:
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tqdm":
                    assert "disable" in [word.arg for word in node.keywords], path


@pytest.mark.parametrize("words, message", [
    (["sample", ""], "RUN is empty"), (["export", "x", ""], "FILE is empty"),
    (["evaluate", "x", "--weights", ""], "--weights is empty"),
    (["sample", "x", "--out", ""], "--out is empty"), (["sample", "loop"], "loop: not found"),
    (["--out", "loop"], "loop: cannot write"),
    (["--dataset", "loop"], "loop: a link that leads to no file"),
    (["--resume", "--out", "file"], "file: cannot write there")])
def test_paths_that_lead_nowhere(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "loop").symlink_to("loop")
    assert message in fails(capsys, *words)
    assert sorted(os.listdir()) == ["file", "loop"]


# --------------------------------------------------------------------- a run folder is one run's
def test_two_runs_at_once(run, tmp_path, capsys):
    """The second is told who holds the folder. Folders that were made for nothing go away."""
    new = tmp_path / "runs" / "new"
    for folder in run, new:
        with locked(folder):
            line = fails(capsys, "--resume", "--out", folder)
            assert f"{folder} is in use by process {os.getpid()} on " in line and " since " in line
            assert (folder / ".lock").exists()
        assert not (folder / ".lock").exists()
    assert not (tmp_path / "runs").exists()


@POSIX
def test_a_killed_run_holds_no_lock(tmp_path):
    """What it had begun to write is removed by the next run."""
    code = ("import os\nfrom pathlib import Path\nfrom formats.files import locked, written\n"
            f"with locked(Path({str(tmp_path)!r})), written({str(tmp_path / 'a')!r}):\n"
            "    os.kill(os.getpid(), 9)")
    subprocess.run([sys.executable, "-c", code], cwd=ROOT)
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / "mine.tmp").write_text("not of this program")
    with locked(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "mine.tmp"]


def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys):
    def fail(file):
        raise OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(files, "_lock", fail)
    with locked(tmp_path):
        assert "this file system has no locks" in capsys.readouterr().err


def test_what_a_kill_after_the_checkpoint_prevented_is_redone(run, tmp_path):
    """The last grid, with the same pixels, and the last metrics."""
    copy = shutil.copytree(run, tmp_path / "copy")
    grid = copy / "samples" / "step_000010.png"
    before = grid.read_bytes()
    grid.unlink()
    main(["--resume", "--evaluate-every", "5", "--out", str(copy)])
    assert grid.read_bytes() == before
    assert {row["step"] for row in evaluation.read_table(copy / "metrics.csv")} == {"10"}


def test_compare_needs_no_grids(tmp_path):
    """It draws from the checkpoints, and evaluates again what is missing."""
    words = [*COMPARE, "--steps", "2", "--evaluate-every", "2", "--out", str(tmp_path)]
    main(words)
    page = (tmp_path / "compare.png").read_bytes()
    for model in "semgan", "gan":
        for grid in (tmp_path / model / "samples").iterdir():
            grid.write_bytes(b"torn")
        (tmp_path / model / "metrics.csv").unlink()
    main(words)
    assert (tmp_path / "compare.png").read_bytes() == page


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are no text")
def test_compare_of_a_folder_whose_name_is_no_text(tmp_path):
    maps = tmp_path / "m\udce9\x1b"
    save_maps(maps, np.arange(3, dtype=np.uint8), count=4)
    main(["compare", *TINY_FLAGS, "--dataset", str(maps), "--steps", "1", "--out", str(tmp_path)])
    assert (tmp_path / "compare.md").read_text().startswith("# SemGAN and GAN on m??\n")


@POSIX
@pytest.mark.parametrize("words, size, named", [
    (["sample", "--trained", "--out", "new"], 0, "new/map_00000.png"),
    (["interpolate", "--trained", "--out", "new"], 4000, "new/interpolation.gif"),
    (["evaluate", "run", "--out", "new"], 100, "new/evaluation.csv"),
    (["sample", "--trained", "--out", "new"], 3000, "new.png"),
    ([*TINY_FLAGS, "--steps", "50", "--log-every", "1", "--out", "new"], 1500, "new"),
    (["export", "run", "new/g.npz"], 1000, "new/g.npz")], ids=lambda words: str(words)[:20])
def test_a_full_disk_leaves_no_half_written_file(run, tmp_path, words, size, named):
    shutil.copytree(run, tmp_path / "run")
    code = ("import resource, sys\nfrom app.command_line import main\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\nmain(sys.argv[1:])")
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True,
                          cwd=tmp_path, env=WITHOUT_GPU | {"PYTHONPATH": str(ROOT)})
    line, = done.stderr.splitlines()
    assert done.returncode in (1, 2) and line.startswith(f"semgan: {named}"), line
    assert "File too large" in line
    left = [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert {path.name for path in left} <= {"log.csv", "settings.json", "palette.txt",
                                            "step_000001.png", "step_000010.png"}
