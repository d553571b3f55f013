"""Trained generators in one file: export, the file that comes with the program, and damage."""
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_FLAGS
from PIL import Image
from shared import Evil

import semgan
from app import commands
from app.command_line import main
from app.run_folder import TRAINED, export_generator, load_generator
from formats.files import InputError
from formats.label_maps import load_maps


@pytest.fixture(scope="module", params=["semgan", "gan"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / request.param
    main([*TINY_FLAGS, "--model", request.param, "--steps", "5", "--out", str(folder)])
    return folder


@pytest.fixture
def exported(run, tmp_path):
    path = tmp_path / "new folder" / "tiny.npz"
    main(["export", str(run), str(path)])
    return path


def message(capsys, *words):
    """The only line that main() prints on stderr for bad input."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code == 2
    line, = capsys.readouterr().err.splitlines()
    return line


def test_an_exported_generator_draws_the_same_maps(run, exported, device):
    """Bit for bit: the outputs of the generator, on every device, and the palette."""
    (a, palette), (b, same) = (load_generator(path, device) for path in (run, exported))
    z = np.random.default_rng(0).standard_normal((70, a.s.latent))
    for x, y in zip(a.outputs(z), b.outputs(z), strict=True):
        assert x.tobytes() == y.tobytes()
    assert vars(a.s) == vars(b.s) and palette.tobytes() == same.tobytes()


def test_an_exported_file_is_small(run, exported):
    """Float32 parameters and running statistics, and nothing that only training needs."""
    with np.load(exported) as file:
        arrays = dict(file)
    header = json.loads(str(arrays.pop("header")))
    g, palette = load_generator(run)
    statistics = {f"g.{name}.running_{kind}" for name in g.running for kind in ("mean", "var")}
    assert arrays.keys() == {"g.params"} | statistics
    assert all(a.dtype == np.float32 for a in arrays.values())
    assert header["settings"] == vars(g.s) and header["palette"] == palette.tolist()
    assert header["step"] == 5
    with zipfile.ZipFile(exported) as file:
        assert all(member.compress_type == zipfile.ZIP_DEFLATED for member in file.infolist())
    again = exported.with_name("again.npz")
    export_generator(exported, again)
    assert again.read_bytes() == exported.read_bytes()


def test_commands_take_an_exported_file(run, exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["sample", str(exported), "--count", "3"])
    main(["sample", str(run), "--count", "3", "--out", "of the run"])
    for i in range(3):
        a, b = (tmp_path / folder / f"map_{i:05d}.png"
                for folder in ("runs/tiny/generated", "of the run"))
        assert a.read_bytes() == b.read_bytes()
    main(["interpolate", str(exported), "--keys", "2", "--frames", "2"])
    assert (tmp_path / "runs" / "tiny" / "interpolation.gif").exists()


def test_export_refuses(run, exported, tmp_path, capsys):
    """Nothing is overwritten, and no folder or file appears after a mistake."""
    before = exported.read_bytes()
    assert "exists already" in message(capsys, "export", run, exported)
    assert "exists already" in message(capsys, "export", run, run)
    assert exported.read_bytes() == before
    new = tmp_path / "new.npz"
    assert "not found; expected a run" in message(capsys, "export", tmp_path / "no run", new)
    assert "no such checkpoint" in message(capsys, "export", tmp_path, new)
    assert "cannot write there" in message(capsys, "export", run, exported / "below.npz")
    assert not new.exists()


# -------------------------------------------------------------------- the one of the program itself
def test_the_trained_generator_is_there():
    """A generator of the preset small as it is today, small enough for the repository."""
    g, palette = load_generator()
    small = semgan.settings(preset="small")
    for name in "dataset", "preset", "model", "side", "latent", "kernel_size", "generator_filters":
        assert getattr(g.s, name) == getattr(small, name), name
    maps = g.sample(np.random.default_rng(0).standard_normal((8, g.s.latent)))
    assert maps.shape == (8, 32, 32) and palette.shape == (4, 3) and maps.max() < 4
    assert len(np.unique(maps, axis=0)) == 8
    assert TRAINED.stat().st_size < 6e6
    with np.load(TRAINED) as file:
        assert not [name for name in file.files if name.startswith("d.") or name == "g.m"]


def test_sampling_before_any_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["sample", "--trained", "--count", "2", "--seed", "4"])
    assert "2 maps in runs/trained/generated" in capsys.readouterr().out.replace("\\", "/")
    maps = load_maps(tmp_path / "runs" / "trained" / "generated", (32, 32), classes=4).maps
    g, _ = load_generator()
    z = np.random.default_rng(4).standard_normal((2, g.s.latent))
    np.testing.assert_array_equal(maps, g.sample(z))
    main(["sample", "--trained", "--count", "1", "--out", "elsewhere"])
    assert Image.open("elsewhere/map_00000.png").size == (32, 32)
    main(["interpolate", "--trained", "--keys", "2", "--frames", "2"])
    assert (tmp_path / "runs" / "trained" / "interpolation.gif").exists()


def test_sampling_into_the_present_folder(tmp_path, monkeypatch):
    """The picture is named after it, and stands beside it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    main(["sample", "--trained", "--count", "1", "--out", "."])
    assert Path("map_00000.png").exists() and Path("../here.png").exists()


@pytest.mark.parametrize("command", ["sample", "interpolate"])
def test_run_or_trained(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert "no RUN: expected a run folder, or --trained" in message(capsys, command)
    both = message(capsys, command, "runs/mine", "--trained")
    assert "RUN is runs/mine" in both and "only one" in both
    assert "missing: not found; expected a run" in message(capsys, command, "missing")
    monkeypatch.setattr(commands, "TRAINED", tmp_path / "trained.npz")
    assert "trained.npz: not found" in message(capsys, command, "--trained")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------ damaged files
def changed(kind, content, arrays, header):
    """The content of a damaged file; or None, after a change of arrays or header."""
    if kind == "truncated":
        return content[:len(content) // 2]
    if kind == "a flipped bit":
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1:]
    if kind == "text":
        return b"not a generator"
    if kind == "a pickle":
        return pickle.dumps(Evil())
    if kind == "a pickled array":
        arrays["g.params"] = np.array([Evil()], object)
    elif kind == "a missing array":
        del arrays["g.deconv1.gamma.running_mean"]
    elif kind == "not a number":
        arrays["g.params"][3] = np.nan
    elif kind == "integers":
        arrays["g.params"] = arrays["g.params"].astype(int)
    elif kind == "other filters":
        header["settings"]["generator_filters"] = [7, 7, 7]
    elif kind == "a newer format":
        header["format"] = 99
    elif kind == "a short palette":
        header["palette"] = header["palette"][:2]
    elif kind == "a foreign file":
        arrays.clear()
        header.clear()


@pytest.mark.parametrize("kind, expected", [
    ("truncated", "damaged, or not an .npz file"), ("a flipped bit", "not a usable generator"),
    ("text", "not an .npz file"), ("a pickle", "not an .npz file"),
    ("a pickled array", "found object"), ("a missing array", "running_mean: expected"),
    ("not a number", "NaN or infinity"), ("integers", "found int64"),
    ("other filters", "g.params: expected"), ("a newer format", "newer version"),
    ("a short palette", "does not fit its classes"), ("a foreign file", "not a usable generator"),
])
def test_damaged_generators(exported, tmp_path, monkeypatch, capsys, kind, expected):
    """One line that names the file. Nothing in it is executed."""
    monkeypatch.chdir(tmp_path)
    content = exported.read_bytes()
    with np.load(exported) as file:
        arrays = dict(file)
    header = json.loads(str(arrays.pop("header")))
    damaged = changed(kind, content, arrays, header)
    if damaged is not None:
        exported.write_bytes(damaged)
    elif header:
        np.savez(exported, header=json.dumps(header), **arrays)
    else:
        np.savez(exported, images=np.zeros(3))
    line = message(capsys, "sample", exported)
    assert line.startswith(f"semgan: {exported}: ") and expected in line
    assert not (tmp_path / "evil_was_here").exists()
    with pytest.raises(InputError):
        load_generator(exported)
    assert not (tmp_path / "runs").exists(), "nothing half-written"
