"""`python metrics.py REAL SAMPLES`: the numbers of `evaluate`, and one line for what is wrong."""
import csv
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT, WITHOUT_GPU
from PIL import Image
from test_inception import weights as rule_made_weights

import data
import image_metrics
import inception
import kernels
from app import evaluation
from app.metrics_command import main
from formats import memory

SHAPES = data.colored_shapes(16)
REAL = SHAPES.maps[:40]
SAMPLES = data.colored_shapes(16, seed=1).maps[40:80]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Every test has a folder and a cache of its own, and no weights."""
    monkeypatch.setenv("SEMGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def save(folder, maps, kind="indices", palette=SHAPES.palette, ending="png"):
    """Write maps as images, by default palette-indexed."""
    os.makedirs(folder)
    for i, pixels in enumerate(maps):
        image = Image.fromarray(palette[pixels] if kind == "colours" else pixels)
        if kind == "indices":
            image.putpalette(palette.tobytes())
        image.save(f"{folder}/map_{i:03d}.{ending}")
    return folder


def photos(folder, count=8, size=(32, 48), seed=0, ending="jpg"):
    rng = np.random.default_rng(seed)
    return save(folder, rng.integers(0, 256, (count, *size, 3)).astype(np.uint8), "photos",
                ending=ending)


def table_of(*words):
    """{metric: (value, value at half, real at half)} of the command's CSV file."""
    main([*map(str, words), "--out", "table.csv"])
    with open("table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    os.remove("table.csv")
    columns = "value", "value at half", "real at half"
    return {row["metric"]: tuple(number(row[column]) for column in columns) for row in rows}


def number(text):
    try:
        return float(text)
    except ValueError:
        return text


def order(count, stream, seed=0):
    return np.random.default_rng([seed, stream]).permutation(count)


def test_the_numbers_of_evaluate(monkeypatch, capsys):
    """To the digit, for the same maps in the same order, FID included."""
    first_pixels = lambda images, *_: images.reshape(len(images), -1)[:, :12].astype(np.float32)
    monkeypatch.setattr(inception, "load_weights", lambda path: {"some": "weights"})
    monkeypatch.setattr(inception, "features", first_pixels)
    generator = SimpleNamespace(
        s=SimpleNamespace(latent=2, dataset="shapes"), rgb=False, ops=kernels.load("numpy"),
        sample=lambda z: SAMPLES, outputs=lambda z: [np.eye(4)[SAMPLES]])
    expected = evaluation.measure(generator, SHAPES._replace(maps=REAL), 40, 3, {"some": "weights"})
    in_files = np.empty_like(SAMPLES)
    in_files[order(40, 6, seed=3)] = SAMPLES
    found = table_of(save("real", REAL), save("samples", in_files), "--shapes", "--seed", 3)
    assert found == {name: tuple(map(number, values)) for name, values in expected.items()
                     if not name.startswith("softmax")}
    assert {"FID", "shapes, share", "memorization, copies", "SWD x1e3, 16"} <= found.keys()
    out = capsys.readouterr().out
    assert "label maps of 4 classes at 16x16: 40 of real and 40 of samples, seed 3" in out
    assert "half of them" in out and "near real" in out
    assert "compare 20 with 20. SWD and MS-SSIM take 40 of each side, other metrics all." in out


def test_fid_is_that_of_our_functions(monkeypatch):
    monkeypatch.setattr(inception, "load_weights", lambda path: rule_made_weights())
    found = table_of(save("real", REAL[:4]), save("samples", SAMPLES[:5]), "--device", "numpy")
    images = SHAPES.palette[REAL[:4][order(4, 5)]], SHAPES.palette[SAMPLES[:5][order(5, 6)]]
    features = [inception.features(x, rule_made_weights(), kernels.load("numpy")) for x in images]
    assert found["FID"][0] == image_metrics.frechet_distance(*features) > 0


def packed(folder, ending):
    """The same maps in an archive."""
    path = f"{folder}.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in sorted(os.listdir(folder)):
                archive.write(f"{folder}/{name}", name)
    else:
        with tarfile.open(path, "w") as archive:
            archive.add(folder)
    return path


def test_all_kinds_of_maps_give_the_same_numbers():
    """Also where the same colours have other ids, and in archives."""
    save("indices", REAL)
    save("colours", REAL, "colours")
    save("samples", SAMPLES)
    save("sample colours", SAMPLES, "colours")
    other = np.array([2, 3, 1, 0])  # the same pictures, with other ids
    save("other ids", np.argsort(other).astype(np.uint8)[SAMPLES], palette=SHAPES.palette[other])
    expected = table_of("indices", "samples")
    for real in "indices", "colours":
        for samples in "samples", "sample colours", "other ids":
            found = table_of(real, samples)
            assert found.keys() == expected.keys()
            for name in expected:
                np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-12)
    archived = [packed(folder, ending) for folder, ending in (("indices", "zip"),
                                                              ("samples", "tar"))]
    assert table_of(*archived) == expected
    ids = [save("ids", REAL, "ids"), save("sample ids", SAMPLES, "ids")]
    by_ids = {name: values for name, values in table_of(*ids).items()
              if not name.startswith(("SWD", "MS-SSIM"))}  # these depend on the colours
    assert by_ids.items() <= expected.items()
    with open("palette.txt", "w") as file:
        file.writelines(f"{r} {g} {b}\n" for r, g, b in SHAPES.palette.tolist())
    assert table_of("ids", "sample colours", "--palette", "palette.txt") == expected


@pytest.mark.parametrize("kind", ["indices", "colours", "ids"])
def test_one_class_everywhere(kind):
    """A generator that has collapsed: a table, not a refusal."""
    found = table_of(save("real", REAL, kind), save("constant", np.zeros_like(REAL), kind))
    assert found["adjacency"][:2] == (1, 1) and found["boundary density"][0] == 0
    assert "is constant" in found["SWD x1e3"][0]


def test_copies_are_found_among_all_real_maps(capsys):
    """The samples are copies of real maps, few beside many."""
    found = table_of(save("real", REAL), save("copies", REAL[30:]))
    assert found["memorization, copies"][0] == 1
    assert "100% of the samples look like copies" in capsys.readouterr().out
    assert "40 of real and 8 of" not in capsys.readouterr().out


def test_count_and_seed(capsys):
    save("real", REAL)
    save("samples", SAMPLES)
    some = [table_of("real", "samples", "--count", 8, "--seed", seed) for seed in (0, 0, 1)]
    assert some[0] == some[1] != some[2]
    assert "8 of real and 8 of samples" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_photos(capsys, ending):
    """SWD and MS-SSIM, in the files' own size or in another."""
    real, samples = photos("real", ending=ending), photos("samples", 6, seed=1, ending=ending)
    found = table_of(real, samples)
    assert {name.split(",")[0].split(" ")[0] for name in found} == {"SWD", "MS-SSIM"}
    out = capsys.readouterr().out
    assert "images at 32x48: 8 of real and 6 of samples" in out and "palette" not in out
    with Image.open(f"real/map_000.{ending}") as image:
        expected = image.size
    small = table_of(real, photos("large", 6, size=(64, 64), ending=ending), "--size", "16x32")
    assert expected == (48, 32) and "SWD x1e3, 16" in small
    assert "images at 16x32" in capsys.readouterr().out


def test_maps_as_images():
    real, samples = save("real", REAL), save("samples", SAMPLES)
    as_maps, as_images = table_of(real, samples), table_of(real, samples, "--images")
    assert as_images == {name: values for name, values in as_maps.items()
                         if name.startswith(("SWD", "MS-SSIM"))}


def test_maps_of_one_pixel(recwarn):
    found = table_of(save("real", REAL), save("samples", SAMPLES), "--side", 1)
    assert found["boundary density"] == (0, 0, 0) and not len(recwarn)


def test_void(capsys):
    """Void pixels are filled on both sides; without --void the id is named."""
    void = np.where(np.arange(16) < 2, 9, REAL).astype(np.uint8)
    save("real", void, "ids")
    found = table_of("real", "real", "--void", 9)
    assert found["class frequencies"][0] == 0 and found["memorization, copies"][0] == 1
    assert "label maps of 4 classes" in capsys.readouterr().out


def test_too_much_memory(monkeypatch, capsys):
    monkeypatch.setattr(memory, "available", lambda: 1_000_000)
    monkeypatch.setattr(memory, "LEAST", 0)
    save("real", REAL)
    line = "not enough memory: by estimate comparing them takes .* depend on --count"
    refused(capsys, line, "real", "real", code=1)


def test_a_size_that_suits_all_metrics_is_proposed(capsys):
    real = photos("real", size=(20, 40))
    main([real, real])
    assert "halved often: try --size 16x32." in capsys.readouterr().out
    main([real, real, "--size", "16x32"])
    out = capsys.readouterr().out
    assert "try --size" not in out and "MS-SSIM, mean" in out


def damaged(name):
    save(name, REAL[:4])
    with open(f"{name}/map_002.png", "wb") as file:
        file.write(b"\x89PNG nothing more")
    return name


def a_bomb(name):
    """144 million pixels, in a few bytes."""
    save(name, REAL[:4])
    Image.new("1", (12_000, 12_000)).save(f"{name}/map_004.png")
    return name


def with_a_photo(name):
    save(name, REAL[:4])
    photos("some", 1)
    os.rename("some/map_000.jpg", f"{name}/map_002.jpg")
    return name


def of_two_sizes(name):
    save(name, REAL[:4])
    Image.new("P", (8, 8)).save(f"{name}/map_004.png")
    return name


def a_run(name):
    os.makedirs(name)
    open(f"{name}/checkpoint.npz", "w").close()
    return name


def empty(name):
    os.makedirs(name)
    return name


BAD = {  # what stands in for the samples -> the line
    "missing": (lambda name: name, "missing: no such folder or archive"),
    "empty": (empty, r"empty: no images in it \(expected \*.png, \*.bmp"),
    "a file": (lambda name: save("some", REAL[:1]) + "/map_000.png",
               "map_000.png: neither a folder nor a readable .zip or .tar"),
    "three": (lambda name: save(name, SAMPLES[:3]), "3 of three: expected 4 or more"),
    "damaged": (damaged, "damaged/map_002.png: "),
    "bomb": (a_bomb, "bomb/map_004.png: damaged or unreadable .*decompression bomb"),
    "a photo": (with_a_photo, "a photo: map_002.jpg is a photo, map_000.png perhaps a label map"),
    "photos": (photos, r"photos holds images of more than 64 colours or JPEGs \(first map_000.jpg"
               r"\), real label maps: expected the same kind; --images"),
    "sizes": (of_two_sizes, r"map_004.png is 8x8 and sizes/map_000.png is 16x16 \(height x"),
    "small": (lambda name: save(name, SAMPLES[:, :8]), "real are 16x16, those in small 8x16"),
    "a run": (a_run, "a run: a run folder; expected maps or images, such as a run/generated"),
    "grey": (lambda name: save(name, SAMPLES, "ids"), ""),  # no fault: ids of palette and grey
    "a fifth class": (lambda name: save(name, SAMPLES + 1, "ids"),
                      "a fifth class: class 4 is none of the 4 classes of real; --classes"),
    "another colour": (lambda name: save(name, SAMPLES, palette=SHAPES.palette // 2 + 60),
                       r"class 0 \(colour \[187, 187, 187\]\) is none of the 4 classes of real"),
    "RGB": (lambda name: save(name, SAMPLES, "colours", SHAPES.palette // 2 + 60),
            "RGB/map_000.png: colour .* is not in the palette"),
}


@pytest.mark.parametrize("name", BAD)
def test_one_line_for_bad_samples(name, capsys):
    make, message = BAD[name]
    save("real", REAL)
    path = make(name)
    if not message:
        return main(["real", path])
    refused(capsys, message, "real", path)


def refused(capsys, message, *words, code=2):
    """Asserts that the command ends with one line on stderr that matches."""
    with pytest.raises(SystemExit) as stop:
        main([*words])
    out, err = capsys.readouterr()
    assert stop.value.code == code and not out
    assert len(err.splitlines()) == 1 and err.startswith("metrics: ")
    assert re.search(message, err), err


@pytest.mark.parametrize("flags, message", [
    (["--out", "real"], "real exists already; remove it, or choose another name"),
    (["--images", "--palette", "p.txt"], "--images and --palette, which is for label maps"),
    (["--shapes", "--classes", "5"], "--shapes: real has 5 classes; expected the 4"),
    (["--weights", ""], "--weights is empty: expected the path of a weight file"),
    (["--labels", ""], "labels is empty"),
    (["--palette", ""], "palette is empty"),
    (["--weights", "none.pth"], "none.pth: cannot be read"),
    (["--palette", "none.txt"], "none.txt: "),
    (["--labels", "*.tif"], r"real: no images in it \(expected \*.tif\)"),
    (["--count", "3"], "3 of real: expected 4 or more"),
    (["--side", "8", "--size", "8x8"], "--side 8 and --size 8x8: expected one of them"),
    (["--classes", "3"], "class id 3 at row .*; expected ids 0 to 2")])
def test_one_line_for_bad_flags(flags, message, capsys):
    save("real", REAL)
    save("samples", SAMPLES)
    refused(capsys, message, "real", "samples", *flags)


def test_as_a_process():
    """The file metrics.py is the command. A pipe in place of a map is refused, not waited for."""
    save("real", REAL[:4])
    os.mkfifo("pipe")
    for words, code, text in ((["real", "real"], 0, "class frequencies"),
                              (["real", "pipe"], 2, "pipe"), (["--help"], 0, "REAL SAMPLES")):
        done = subprocess.run([sys.executable, str(ROOT / "metrics.py"), *words], env=WITHOUT_GPU,
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == code and text in done.stdout + done.stderr
        assert len(done.stderr.splitlines()) == (code == 2)


def test_crop_and_other_names_on_the_other_side():
    """Wide files whose middle are the maps; in SAMPLES they lie beside photos."""
    wide = [np.pad(maps, [(0, 0), (0, 0), (8, 8)]) for maps in (REAL, SAMPLES)]
    save("real", REAL)
    save("samples", SAMPLES)
    save("wide", wide[0])
    save("labels", wide[1])
    photos("labels/photos", len(SAMPLES))
    words = "--sample-labels", "map_*.png"
    for images in [], ["--images"]:
        squeezed = table_of("wide", "labels", *words, "--size", "16x16", *images)
        cropped = table_of("wide", "labels", *words, "--size", "16x16", "--crop", *images)
        assert cropped == table_of("real", "samples", *images) != squeezed
