"""The paper's rows: what is printed and marked, a tiny grid that is killed, bad input."""
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, WITHOUT_GPU
from PIL import Image

import data
from app import evaluation, training
from app.run_folder import generator_and_header
from experiments import paper, paper_report
from experiments.paper_command import main
from formats.files import locked

SMALL = ["--side", "16", "--divide-filters", "64", "--batch-size", "4", "--steps", "4",
         "--evaluate-every", "2", "--evaluate-samples", "32", "--device", "numpy"]
ROWS = ["--rows", "shapes", "cityscapes-1"]
# For a process of its own: without the curves of the losses, which take half of the time.
QUICK = """from app import training
from experiments.paper_command import main
training.plot_curves = lambda run: None
main()"""


@pytest.fixture(scope="module", autouse=True)
def quick():
    """As in QUICK."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "plot_curves", lambda run: None)
        yield


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """A folder of label maps to stand in: 40 of Colored Shapes."""
    folder = tmp_path_factory.mktemp("stand_in")
    for i, pixels in enumerate(data.colored_shapes(16).maps[:40]):
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def whole(maps, tmp_path_factory):
    """The folder of a tiny grid that nothing has interrupted."""
    out = tmp_path_factory.mktemp("grid") / "whole"
    main([*ROWS, *SMALL, "--stand-in", maps, "--out", out])
    return out


def one_line(capsys, *words):
    """What the program says about bad input: one line, exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(list(map(str, words)))
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1, error
    return error


# ------------------------------------------------------------------------------- the paper's tables
def test_the_rows_are_the_paper_s():
    assert [len(paper.rows_of(name)) for name in ("shapes", "cityscapes", "facades")] == [1, 3, 4]
    for name in paper.ROWS:
        for model in paper.MODELS:
            assert len(paper.printed(name, model)) == len(paper.COLUMNS)
    for dataset, models in paper.SUMMARIES.items():
        for cells in models.values():
            assert len(cells.split()) == len(paper.COLUMNS)
        best = [min(map(float, column)) for column in
                zip(*(paper.printed(name, "semgan") for name in paper.rows_of(dataset)))]
        np.testing.assert_allclose(best, np.array(models["semgan"].split(), float), atol=0.005)


def test_copied_and_impossible_figures_are_marked():
    found = {(name, model): " ".join(marks) for name in paper.ROWS for model in paper.MODELS
             if any(marks := paper.marks(name, model))}
    assert found == {
        ("cityscapes-2", "gan"): "  † † † † †", ("cityscapes-3", "gan"): "† †‡ † † † † †‡",
        ("facades-3", "gan"): "  † † † † †", ("facades-4", "gan"): "† † † † † † †‡"}
    found = {(dataset, model): paper.summary_marks(dataset, model)
             for dataset in paper.SUMMARIES for model in paper.MODELS}
    assert not any(found["cityscapes", "semgan"] + found["facades", "semgan"])
    assert found["cityscapes", "gan"] == ["", "", "", "§", "§", "§", "‡§"]
    assert found["facades", "gan"] == ["§", "", "", "", "", "", ""]
    assert paper.sources("cityscapes", "gan")[1] == \
        "GAN, SWD 64: 20.6 is SemGAN's in cityscapes-2."
    assert paper.sources("facades", "gan") == ["GAN, FID: 198.05 is in no row."]


# ---------------------------------------------------------------------------------------- the grid
def test_the_report_of_a_grid(whole):
    text = (whole / "paper.md").read_text()
    rows = {}
    for line in text.splitlines():
        if line.startswith("|"):
            first, *cells = line.strip("| ").split(" | ")
            rows.setdefault(first, []).append(cells)
    semgan, gan = rows["cityscapes-1\\*"][:2]
    assert semgan[:4] == ["0.0002", "128", "7", "SemGAN"] and gan[3] == "GAN"
    table = evaluation.read_table(whole / "cityscapes-1" / "semgan" / "metrics.csv")
    values = {name: min(float(row["value"]) for row in table if row["metric"] == name)
              for name in ("SWD x1e3, 16", "MS-SSIM, mean")}
    assert semgan[4:7] == ["50.891 / -", f"0.1972 / {values['MS-SSIM, mean']:.4g}",
                           f"20.9 / {values['SWD x1e3, 16']:.4g}"]
    assert semgan[7:10] == ["14.4 / -", "18.4 / -", "15.0 / -"], "levels that side 16 has not"
    assert rows["cityscapes-2"][1][6] == "51.3† / -", "a row without a run"
    assert rows["facades-3"][0][0] == "0.002"
    stand_in, *rest = rows["cityscapes-1\\*"][2]
    assert stand_in.startswith("stand_in") and "4, 4 of 4" in rest
    assert "No FID of ours" in text and "Ours is of other label maps" in text
    entropies = rows["shapes"][-1][-1]
    assert re.fullmatch(r"[\d.]+ \(2\), [\d.]+ \(4\)", entropies)
    for picture in re.findall(r"\((.*?\.png)\)", text):
        Image.open(whole / picture).verify()
    assert "![shapes](shapes.png)" in text and "![entropy](entropy.png)" in text


def test_pictures_are_of_the_best_generators(whole):
    """Those of the steps that the report names."""
    text = (whole / "paper.md").read_text()
    for name in "shapes", "cityscapes-1":
        row = next(line for line in text.splitlines() if re.match(f"{name}.*SemGAN of step", line))
        named = list(map(int, re.findall(r"of step (\d+)", row)))
        assert named == [generator_and_header(whole / name / model / "best.npz", "numpy")[1]["step"]
                         for model in paper.MODELS]


def test_a_killed_grid_gives_the_same_report(whole, maps, tmp_path, monkeypatch, capsys):
    """SIGKILL in the second row; then as if nothing had been. A third call trains nothing."""
    out = tmp_path / "killed"
    words = list(map(str, [*ROWS, *SMALL, "--stand-in", maps, "--out", out, "--steps", "4"]))
    process = subprocess.Popen([sys.executable, "-c", QUICK, *words], cwd=ROOT, env=WITHOUT_GPU,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (out / "cityscapes-1" / "semgan" / "log.csv").exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    main(words)
    for name in ("paper.md", "shapes.png", "cityscapes-1.png", "shapes/gan/best.npz",
                 "cityscapes-1/semgan/best.npz", "cityscapes-1/gan/metrics.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    monkeypatch.setattr(training.semgan.Trainer, "train_step", None)
    capsys.readouterr()
    main(words)
    assert capsys.readouterr().out.count("It is complete.") == 2
    assert (out / "paper.md").read_bytes() == (whole / "paper.md").read_bytes()


def test_a_row_that_diverges_does_not_stop_the_others(maps, tmp_path, monkeypatch, capsys):
    """It is named at the end, with exit code 1, and the report shows what there is of it."""
    monkeypatch.setattr("experiments.paper_command.compare",
                        lambda args: sys.exit("semgan: a loss is NaN"))
    with pytest.raises(SystemExit, match="paper: shapes, cityscapes-1 ended early"):
        main([*ROWS, *SMALL, "--stand-in", str(maps), "--out", str(tmp_path / "out")])
    assert "a loss is NaN" in capsys.readouterr().err
    text = (tmp_path / "out" / "paper.md").read_text()
    assert "| shapes | 0.0001 | 100 | 11 | SemGAN | - / -" in text


def test_steps_until_semgan_is_better():
    curve = lambda *values: {paper_report.AVERAGE: [(10 * i, x) for i, x in enumerate(values, 1)]}
    assert paper_report.passed(curve(9, 5, 2, 3), curve(9, 8, 7, 4)) == ("4 (40)", 30)
    assert paper_report.passed(curve(9, 5), curve(3, 3)) == ("3 (20)", "never in 20")
    assert paper_report.passed({}, curve(3)) == ("-", "-")


# --------------------------------------------------------------------------------------- bad input
def test_missing_data_is_one_line_before_anything_is_trained(tmp_path, maps, capsys):
    out = tmp_path / "out"
    error = one_line(capsys, *SMALL, "--out", out)
    assert "cityscapes-1, cityscapes-2, cityscapes-3: --data-cityscapes PATH (gtFine" in error
    assert "facades-4: --data-facades PATH (" in error and "--stand-in PATH" in error
    error = one_line(capsys, *SMALL, "--out", out, "--stand-in", tmp_path / "nothing")
    assert "nothing" in error
    error = one_line(capsys, *SMALL, "--out", out, "--data-facades", tmp_path / "nothing",
                     "--stand-in", maps)
    assert "nothing" in error
    error = one_line(capsys, *SMALL, "--out", maps / "out", "--stand-in", maps)
    assert "would be read as more maps" in error
    assert "no such row; expected some of shapes, city" in one_line(
        capsys, "--rows", "shapes", "city", "--out", out)
    assert "--side 12: expected a multiple of" in one_line(
        capsys, "--rows", "shapes", "--side", "12", "--out", out)
    assert "--stand-in is empty" in one_line(capsys, "--stand-in", "", "--out", out)
    assert not out.exists() and len(list(maps.iterdir())) == 40


def test_folders_of_other_runs_are_left_alone(whole, maps, tmp_path, capsys):
    """Another side, other maps, fewer steps, a folder in use, damage: one line, nothing written."""
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    common = [*ROWS, *SMALL, "--stand-in", maps, "--out", whole]
    assert "was started with 16x16" in one_line(capsys, *common, "--side", "32")
    assert "already at step 4" in one_line(capsys, *common, "--steps", "2")
    assert "--seed 3: " in one_line(capsys, *common, "--seed", "3")
    with locked(whole / "cityscapes-1"):
        assert "is in use by" in one_line(capsys, *common)
    with locked(whole):
        assert "is in use by" in one_line(capsys, *common)
    settings = whole / "shapes" / "gan" / "settings.json"
    settings.write_text("{}")
    assert "settings.json: not the settings of a run" in one_line(capsys, *common)
    settings.write_bytes(before[settings])
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cityscapes-1").touch()
    assert "cityscapes-1" in one_line(capsys, *common[:-1], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cityscapes-1"]


def test_help_fits_into_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80 and "facades-4" in text
