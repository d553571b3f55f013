"""Label maps: the named data sets, folders and archives, palettes, the cache, and bad input."""
import functools
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from shared import Answer, Evil, serving

import data
import metrics
from app import data_command
from formats import archives, images, label_maps, memory, palettes
from formats.files import InputError, written
from formats.label_maps import load_maps
from kernels.workers import available_cores

CAMVID = Path(os.environ.get("CAMVID_LABELS", "camvid_labels.zip"))  # 701 street scenes
PALETTE = np.array([[10, 20, 30], [200, 0, 0], [0, 200, 0]], np.uint8)


def ids(seed=0, size=(20, 30), classes=3):
    m = np.random.default_rng(seed).integers(0, classes, size).astype(np.uint8)
    m.flat[:classes] = range(classes)
    return m


def png(array, mode=None, palette=None):
    image = Image.fromarray(array)
    if palette is not None:
        image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("SEMGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tif(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "TIFF")
    return buffer.getvalue()


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


# ----------------------------------------------------------------------------------- Colored Shapes
@pytest.mark.parametrize("side, digest", [(64, "978b14644a5ed06c"), (32, "816d0f0424bbf67f")])
def test_colored_shapes_are_the_same_everywhere(side, digest):
    maps = data.colored_shapes(side).maps
    assert hashlib.sha256(maps.tobytes()).hexdigest()[:16] == digest
    assert np.array_equal(maps, data.colored_shapes(side, 0).maps)
    assert not np.array_equal(maps, data.colored_shapes(side, 1).maps)


def test_more_colored_shapes_begin_with_the_same():
    few, more = data.colored_shapes(16).maps, data.colored_shapes(16, least=2916).maps
    assert len(more) == 15 * len(few) == 2940
    assert np.array_equal(more[:len(few)], few)
    assert len(np.unique(more, axis=0)) > 0.9 * len(more), "other circles and rectangles"
    assert np.array_equal(data.load("shapes", 16, maps=197).maps, more[:2 * len(few)])


@pytest.mark.parametrize("side, count", [(64, 54 ** 2), (32, 27 ** 2), (16, 14 ** 2)])
def test_colored_shapes_follow_the_paper(side, count):
    dataset = data.colored_shapes(side)
    maps, scale = dataset.maps, side / 64
    assert maps.shape == (count, side, side) and maps.dtype == np.uint8 and dataset.classes == 4
    areas = metrics.class_areas(maps, 4)
    reach = range(-20, 21)
    circle = sum(y ** 2 + x ** 2 <= round(10 * scale) ** 2 for y in reach for x in reach)
    assert (areas[:, 1] == circle).all(), "the circle is painted last, so it is always whole"
    assert areas[:, 3].max() == round(10 * scale) ** 2
    if side == 64:
        assert areas[:, 3].min() == 0, "the circle can cover the square completely"
    assert areas[:, 2].max() == round(12 * scale) * round(20 * scale)
    # One map for each position of the square: where it is whole, its corner gives the map's number.
    positions = round(count ** 0.5)
    for i in np.flatnonzero(areas[:, 3] == areas[:, 3].max())[::7]:
        rows, columns = np.nonzero(maps[i] == 3)
        assert (rows.min(), columns.min()) == divmod(i, positions)
    assert_array_equal(dataset.palette[[1, 2, 3]], [[0, 0, 255], [0, 255, 0], [255, 0, 0]])


def test_too_small_sides():
    with pytest.raises(InputError, match="--side 0: expected 1"):
        data.load("no/such", 0)
    with pytest.raises(InputError, match="a height of at least 8"):
        data.colored_shapes(4)


def test_colored_shapes_that_are_not_square():
    maps = data.load("shapes", 16, width=40).maps
    square, tall, bar = 2, 5, 3
    assert maps.shape == ((16 - square) * (40 - square), 16, 40)
    for m, corner in zip(maps, np.ndindex(16 - square, 40 - square)):  # a map for each position
        visible = np.argwhere(m == 3)
        assert len(visible) < 4 or tuple(visible[0]) == corner
    circles = np.argwhere(maps == 1)
    assert len(circles) == 13 * len(maps) and circles[:, 1:].max(0).tolist() == [15, 39]
    assert (maps == 2).sum((1, 2)).max() == tall * bar
    with pytest.raises(InputError, match="width of at least 21"):
        data.load("shapes", 64, width=20)
    assert_array_equal(data.load("shapes", 16, width=16).maps, data.colored_shapes(16).maps)


# ----------------------------------------------------------------------------- folders and archives
def test_folder_zip_and_tar_give_the_same(tmp_path):
    folder = write(tmp_path / "maps", a__png=png(ids(0)), c__png=png(ids(2)))
    write(folder / "deeper", b__png=png(ids(1)))
    write(folder, notes__txt=b"no image", photo__jpg=b"passed over")
    with zipfile.ZipFile(tmp_path / "maps.zip", "w") as z, \
            tarfile.open(tmp_path / "maps.tar.gz", "w:gz") as t:
        for file in sorted(folder.rglob("*.*"), reverse=True):
            z.write(file, file.relative_to(folder))
            t.add(file, file.relative_to(folder))
    results = [load_maps(tmp_path / name, (16, 16)) for name in ("maps", "maps.zip", "maps.tar.gz")]
    assert results[0].maps.shape == (3, 16, 16) and results[0].classes == 3
    for other in results[1:]:
        assert_array_equal(results[0].maps, other.maps)
    assert_array_equal(results[0].maps[0], images.resize_nearest(ids(0), (16, 16)))


def test_grey_indexed_and_rgb_give_the_same_ids(tmp_path):
    m = ids()
    write(tmp_path / "grey", a__png=png(m))
    write(tmp_path / "indexed", a__png=png(m, palette=PALETTE))
    write(tmp_path / "rgb", a__png=png(PALETTE[m]))
    text = "10 20 30 sky  # a comment\n\n200 0 0 roof\n0 200 0 tree\n"
    (tmp_path / "palette.txt").write_text(text)
    palette = palettes.read_palette(tmp_path / "palette.txt")[0]
    grey, indexed = load_maps(tmp_path / "grey", (8, 8)), load_maps(tmp_path / "indexed", (8, 8))
    rgb = load_maps(tmp_path / "rgb", (8, 8), palette=palette)
    for found in indexed, rgb:
        assert_array_equal(found.maps, grey.maps)
        assert_array_equal(found.palette, PALETTE)
    assert len(np.unique(grey.palette, axis=0)) == 3
    bilevel = write(tmp_path / "bilevel", a__png=png((m % 2 * 255).astype(np.uint8), "1"))
    assert load_maps(bilevel, (8, 8)).classes == 2


def test_palettes_that_were_trimmed_to_the_colours_in_use(tmp_path):
    few, more = np.array([[0, 1]], np.uint8), np.array([[0, 1, 2]], np.uint8)
    write(tmp_path, a__png=png(few, palette=PALETTE[:2]), b__png=png(more, palette=PALETTE))
    assert_array_equal(load_maps(tmp_path, (4, 4)).palette, PALETTE)


def test_classes_can_share_a_colour(tmp_path):
    """Of Cityscapes' 34 classes five are black. Only RGB maps need a colour for each."""
    table, m, file = data.cityscapes(classes=34), ids(classes=34), tmp_path / "palette.txt"
    palettes.write_palette(file, table["palette"], table["names"])
    write(tmp_path / "grey", a__png=png(m))
    write(tmp_path / "indexed", a__png=png(m, palette=table["palette"]))
    for folder in "grey", "indexed":
        found = data.load(str(tmp_path / folder), m.shape[0], width=m.shape[1], palette=str(file))
        assert_array_equal(found.maps[0], m)
        assert_array_equal(found.palette, table["palette"])
        assert found.names == table["names"]


def test_resize_takes_pixel_centres():
    m = np.arange(36, dtype=np.uint8).reshape(6, 6)
    assert_array_equal(images.resize_nearest(m, (2, 2)), [[7, 10], [25, 28]])
    assert_array_equal(images.resize_nearest(m, (6, 6)), m)
    assert images.resize_nearest(m[:1, :2], (4, 4)).tolist() == [[0, 0, 1, 1]] * 4
    large = ids(3, (1024, 2048), 34)
    small = images.resize_nearest(large, (128, 128))
    assert_array_equal(small, np.asarray(Image.fromarray(large).resize((128, 128), Image.NEAREST)))
    assert set(np.unique(small)) <= set(np.unique(large))


def test_maps_that_are_not_square(tmp_path, cache):
    m = ids(0, (60, 90), 5)
    folder = write(tmp_path / "m", a__png=png(m))
    for size, whole in (((20, 40), m[7:52]), ((40, 20), m[:, 30:60]), ((30, 45), m)):
        side, width = size
        squeezed = data.load(str(folder), side, width=width).maps[0]
        assert_array_equal(squeezed, images.resize_nearest(m, size))
        assert_array_equal(squeezed, np.asarray(Image.fromarray(m).resize(size[::-1], 0)))
        cropped = data.load(str(folder), side, width=width, crop=True).maps[0]
        assert_array_equal(cropped, images.resize_nearest(whole, size))
    assert images.crop_middle(m, (1, 1000)).shape == (1, 90)
    assert len(list(cache.iterdir())) == 6


def test_distinct_colors():
    colors = palettes.distinct_colors(256).astype(int)
    gaps = np.hypot.reduce(colors[:, None] - colors[None], axis=-1) + 999 * np.eye(256)
    closest = [gaps[:k, :k].min() for k in range(257) if k > 1]
    assert closest[0] > 280 and closest[34 - 2] >= 90 and closest[64 - 2] > 65 and closest[-1] > 36
    assert_array_equal(palettes.distinct_colors(34), colors[:34])
    assert np.hypot.reduce(colors - palettes.UNKNOWN_COLOR, axis=-1).min() > 36
    own = {1: (0, 255, 0), 3: (1, 2, 3)}  # of palette-indexed maps without the classes 0 and 2
    mixed = palettes.distinct_colors(4, own)
    assert_array_equal(mixed[[1, 3]], [own[1], own[3]])
    assert len(np.unique(mixed, axis=0)) == 4


FORMS = {
    "16 bits": lambda m: png(m.astype(np.uint16)),
    "16 bits, the higher 8 first": lambda m: tif(m.astype(">u2")),
    "32 bits": lambda m: tif(m.astype(np.int32)),
    **{f"{bits} bits": lambda m, bits=bits: packed_png(bits, 0, packed(m, bits), m.shape[1])
       for bits in (2, 4)},
    "grey and alpha": lambda m: png(m, "LA"),
    "colours and alpha": lambda m: png(PALETTE[m], "RGBA")}


@pytest.mark.parametrize("form", FORMS)
def test_opaque_alpha_and_more_bits_change_nothing(tmp_path, form):
    m = ids()
    folder = write(tmp_path / "m", a__png=FORMS[form](m))
    assert Image.open(folder / "a.png").size == m.shape[::-1]
    palette = PALETTE if "colours" in form else None
    assert_array_equal(load_maps(folder, m.shape, palette=palette).maps[0], m)


def test_a_flipped_bit_is_never_another_map(tmp_path):
    """Pillow alone reads some of these files, with other pixels."""
    content, silent = png(ids()), 0
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InputError, match="a.png: (damaged|not an image)"):
            images.decode("a.png", bytes(damaged))
        try:
            with Image.open(io.BytesIO(damaged)) as image:
                silent += not np.array_equal(np.asarray(image), ids())
        except Exception:
            continue
    assert silent > 0


def test_no_bit_of_the_directory_of_a_zip_loses_a_map(tmp_path):
    """zipfile alone reads many of these files with fewer maps."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in "a.png", "b.png", "readme.txt":
            file.writestr(name, png(ids()))
    content, maps = path.read_bytes(), load_maps(path, (8, 8)).maps
    start = content.index(b"PK\1\2")
    refused = 0
    for bit in range(8 * start, 8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert_array_equal(load_maps(path, (8, 8)).maps, maps)
        except InputError as error:
            assert "x.zip" in str(error)
            refused += 1
    assert refused > 500


@pytest.mark.skipif(not CAMVID.exists(), reason="the street scenes are not here")
def test_real_street_scenes(cache):
    dataset = data.load(str(CAMVID), 128)
    assert dataset.maps.shape == (701, 128, 128) and dataset.classes == 12
    share = metrics.class_areas(dataset.maps, 12).mean(0) / 128 ** 2
    # sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist, unlabelled
    assert_allclose(share, [0.1582, 0.2409, 0.0099, 0.2933, 0.0669, 0.1119, 0.0107, 0.0143, 0.0464,
                            0.0064, 0.0054, 0.0359], atol=1e-4)
    start = time.perf_counter()
    assert_array_equal(data.load(str(CAMVID), 128).maps, dataset.maps)
    assert time.perf_counter() - start < 0.8, "from the cache"


@pytest.mark.skipif(not CAMVID.exists(), reason="the street scenes are not here")
def test_real_street_scenes_in_other_forms(tmp_path, cache):
    """RGBA, 16 bits, and 255 for the class that is not labelled, at the maps' own size."""
    with zipfile.ZipFile(CAMVID) as z:
        names = sorted(n for n in z.namelist() if n.endswith(".png"))[::60]
        maps = np.stack([np.asarray(Image.open(io.BytesIO(z.read(name)))) for name in names])
    colors = palettes.distinct_colors(12)
    palettes.write_palette(tmp_path / "p.txt", colors, [*"abcdefghijkl"])
    for kind, encode in (("rgba", lambda m: png(colors[m], "RGBA")),
                         ("deep", lambda m: png(m.astype(np.uint16))),
                         ("void", lambda m: png(np.where(m == 11, 255, m).astype(np.uint8)))):
        folder = write(tmp_path / kind, **{f"{i:03d}__png": encode(m) for i, m in enumerate(maps)})
        palette = tmp_path / "p.txt" if kind == "rgba" else None
        void = 255 if kind == "void" else None
        found = data.load(str(folder), 360, width=480, palette=palette, void=void).maps
        assert_array_equal(found[maps < 11], maps[maps < 11])
        if kind == "void":
            assert found.max() == 10
        else:
            assert_array_equal(found, maps)


# ------------------------------------------------------------------------- Cityscapes, as published
def gray(array):
    return png(np.asarray(array, np.uint8))


@pytest.fixture(scope="module")
def gtfine(tmp_path_factory):
    """gtFine as its archive unpacks, with smaller maps.

    Label ids, instance ids (16 bits), colours and polygons lie side by side.
    """
    root = tmp_path_factory.mktemp("cityscapes")
    (root / "README").write_text("The Cityscapes Dataset")
    (root / "license.txt").write_text("free for academic use")
    cities = {"train": ["aachen", "aachen", "zurich"], "val": ["lindau"], "test": ["berlin"]}
    for split, names in cities.items():
        for frame, city in enumerate(names):
            m = ids(frame, (64, 128), 34) if split != "test" else ids(frame, (64, 128), 4)
            m[:32, :64] = 7 if split != "test" else 0
            folder = root / "gtFine" / split / city
            folder.mkdir(parents=True, exist_ok=True)
            stem = f"{city}_{frame:06d}_000019_gtFine"
            (folder / f"{stem}_labelIds.png").write_bytes(gray(m))
            (folder / f"{stem}_instanceIds.png").write_bytes(png(m.astype(np.uint16) * 1000))
            colors = np.array([color for _, _, color in data.CITYSCAPES], np.uint8)
            (folder / f"{stem}_color.png").write_bytes(png(colors[m], "RGBA"))
            (folder / f"{stem}_polygons.json").write_text("{}")
    with zipfile.ZipFile(root / "gtFine_trainvaltest.zip", "w", zipfile.ZIP_DEFLATED) as z:
        for file in sorted(root.rglob("*")):
            if file.suffix != ".zip":
                z.write(file, file.relative_to(root))
    return root


def test_the_class_tables_of_cityscapes():
    """Against method facts: 34 ids, 19 train ids in order, 22 = 19 + black + dynamic + ground."""
    assert len(data.CITYSCAPES) == 34
    assert sorted(t for _, t, _ in data.CITYSCAPES if t != 255) == list(range(19))
    assert data.CITYSCAPES[26] == ("car", 13, (0, 0, 142))
    assert data.CITYSCAPES[33] == ("bicycle", 18, (119, 11, 32))
    t22, t19, t34 = (data.cityscapes(classes=k) for k in (22, 19, 34))
    assert t22["names"][:3] == ["road", "sidewalk", "building"]
    assert t22["names"][18:] == ["bicycle", "unlabeled", "dynamic", "ground"]
    assert t22["table"][:34].tolist() == [
        19, 19, 19, 19, 19, 20, 21, 0, 1, 19, 19, 2, 3, 4, 19, 19, 19, 5, 5, 6, 7, 8, 9, 10, 11, 12,
        13, 14, 15, 19, 19, 16, 17, 18]
    for i, (_, train_id, _) in enumerate(data.CITYSCAPES):
        assert t19["table"][i] == (train_id if train_id < 19 else 19)
    assert t34["table"][:35].tolist() == [*range(34), 255]
    assert len({tuple(c) for c in t22["palette"]}) == 22, "22 different colours"


@pytest.mark.parametrize("where", ["gtFine_trainvaltest.zip", ".", "gtFine", "gtFine/train",
                                   "zipless"])
def test_cityscapes_as_downloaded_and_unpacked(gtfine, where, tmp_path):
    path = gtfine / where
    if where == "zipless":
        path = shutil.copytree(gtfine, tmp_path / "c", ignore=shutil.ignore_patterns("*.zip"))
    dataset = data.load("cityscapes", 16, data=path)
    assert dataset.maps.shape == (3, 16, 16)
    assert dataset.classes == 22
    assert dataset.names[0] == "road"
    assert [os.path.basename(s) for s in dataset.sources] == [
        f"{city}_{frame:06d}_000019_gtFine_labelIds.png"
        for city, frame in (("aachen", 0), ("aachen", 1), ("zurich", 2))]
    m = ids(2, (64, 128), 34)
    m[:32, :64] = 7
    small = images.resize_nearest(m, (16, 16))
    assert_array_equal(dataset.maps[2], data.cityscapes()["table"][small])


def test_cityscapes_splits_classes_and_crop(gtfine, capsys):
    load = functools.partial(data.load, "cityscapes", data=[gtfine])
    m = ids(0, (64, 128), 34)
    m[:32, :64] = 7
    assert len(load(16, split="val").maps) == 1
    assert "1 maps in" in capsys.readouterr().err
    with pytest.raises(InputError, match="berlin_000000_000019_gtFine_labelIds.png: a dummy"):
        load(16, split="test")
    assert_array_equal(load(64, split="val", classes=34, crop=True).maps[0], m[:, 32:96])
    filled = load(64, split="val", classes=19, crop=True).maps[0]
    table, square = data.cityscapes(classes=19)["table"], m[:, 32:96]
    labelled = table[square] < 19
    assert_array_equal(filled[labelled], table[square][labelled])
    assert filled.max() < 19 and (filled[:30, :30] == 0).all()
    for y, x in np.argwhere(~labelled)[::37]:  # the class of a nearest labelled pixel
        away = np.hypot(*(np.mgrid[:64, :64] - np.reshape([y, x], (2, 1, 1))))
        distance = np.where(labelled, away, np.inf)
        assert filled[y, x] in table[square][distance == distance.min()]
    void = np.full((4, 8), 5, np.uint8)  # dynamic, which the 19 classes lack
    write(gtfine / "void" / "train" / "ulm", ulm_000000_000019_gtFine_labelIds__png=gray(void))
    assert data.load("cityscapes", 4, data=gtfine / "void").maps.max() == 20
    with pytest.raises(InputError, match="ulm_000000.*every pixel is void"):
        data.load("cityscapes", 4, data=gtfine / "void", classes=19)
    shutil.rmtree(gtfine / "void")
    for options, message in ((dict(classes=20), "22, 19 and 34"),
                             (dict(classes=0), "22, 19 and 34"),
                             (dict(split="all"), "train, val or test"),
                             (dict(palette="x"), "--palette is for your own maps"),
                             (dict(labels="x"), "--labels is for")):
        with pytest.raises(InputError, match=message):
            load(16, **options)
    with pytest.raises(InputError, match="needs --data PATH: gtFine_trainvaltest.zip"):
        data.load("cityscapes", 16)


def test_a_flat_folder_of_cityscapes(gtfine, tmp_path, capsys):
    files = sorted(gtfine.rglob("train/*/*.png"))
    flat = tmp_path / "flat"
    write(flat, **{file.name.replace(".", "__"): file.read_bytes() for file in files})
    expected = data.load("cityscapes", 16, data=gtfine)
    assert_array_equal(data.load("cityscapes", 16, data=flat).maps, expected.maps)
    city = data.load("cityscapes", 16, data=gtfine / "gtFine" / "train" / "aachen")
    assert_array_equal(city.maps, expected.maps[:2])
    with zipfile.ZipFile(tmp_path / "flat.zip", "w") as z:
        for file in files:
            z.write(file, file.name)
    assert_array_equal(data.load("cityscapes", 16, data=tmp_path / "flat.zip").maps, expected.maps)
    with pytest.raises(InputError, match="aachen_.*not in a folder train, val or test.*--split"):
        data.load("cityscapes", 16, data=flat, split="train")
    with pytest.raises(InputError, match="no maps of --split test .*expected --split train"):
        data.load("cityscapes", 16, data=gtfine / "gtFine" / "train", split="test")
    inside = shutil.copytree(gtfine / "gtFine", tmp_path / "train")  # a name that misleads
    assert len(data.load("cityscapes", 16, data=inside, split="val").maps) == 1


# ---------------------------------------------------------------------------- Facades, as published
def painted_facade(seed, side=256):
    """A facade as CMP labels them, ids 0 to 11.

    With cornices, windows with frames, sills, blinds and balconies, and thin pillars.
    """
    rng, m = np.random.default_rng(seed), np.zeros((side, side), np.uint8)
    left, top, right = *rng.integers(5, 30, 2), side - rng.integers(5, 30)
    floors, columns = rng.integers(3, 6), rng.integers(3, 7)
    height, width = (side - top) // floors, (right - left) // columns
    m[top:, left:right] = 1
    corners = [(top + f * height, left + c * width) for f in range(floors) for c in range(columns)]
    for y, x in corners:
        cornice, sill, pillar = rng.integers(2, 6), rng.integers(1, 4), rng.integers(1, 5)
        w, h = rng.integers(width // 3, width * 3 // 4), rng.integers(height // 3, height * 2 // 3)
        a, b = y + cornice + 3, x + (width - w) // 2
        m[y:y + cornice, left:right] = 4
        m[a - 2:a + h + 2, b - 2:b + w + 2] = rng.choice([1, 9])
        m[a:a + h, b:b + w] = 2
        m[a:a + h // 3, b:b + w] = rng.choice([2, 7])
        m[a + h:a + h + sill, b - 3:b + w + 3] = 5
        m[a + h * 2 // 3:a + h, b - 3:b + w + 3] = rng.choice([2, 6])
        m[a - 2:a, b:b + w] = rng.choice([1, 8])
        m[y + cornice:y + height, x:x + pillar] = 10
    m[side - height * 2 // 3:, left + 4:left + width * 2] = 11
    m[side - height // 2:, left + width * 2 + 5:left + width * 2 + 20] = 3
    return m


def jpeg(m, quality, subsampling=-1, seed=0):
    """pix2pix's format: photo left, labels in its colours right."""
    photo = np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    photo = Image.fromarray(photo).resize(m.shape[::-1])
    labels = np.array([color for *_, color in data.FACADES], np.uint8)[m]
    pair = np.concatenate([np.asarray(photo), labels], 1)
    buffer = io.BytesIO()
    Image.fromarray(pair).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()


def cmp_files(prefix, count):
    """CMP's files: maps of ids 1 to 12 in all sizes, palette-indexed, beside photos and XML."""
    palette = np.array([(0, 0, 0), *(c for _, c, _ in data.FACADES)], np.uint8)
    for i in range(1, count + 1):
        size = 40 + i % 5 * 6, 30 + i % 3 * 10
        yield f"cmp_{prefix}{i:04d}.png", png(ids(i, size, 12) + 1, palette=palette)
        yield f"cmp_{prefix}{i:04d}.jpg", b"\xff\xd8 a photo"
        yield f"cmp_{prefix}{i:04d}.xml", b"<object/>"


@pytest.fixture(scope="module")
def cmp(tmp_path_factory):
    """CMP_facade_DB_base.zip and _extended.zip as they come, and unpacked/."""
    root = tmp_path_factory.mktemp("cmp")
    for part, prefix, count in (("base", "b", 378), ("extended", "x", 228)):
        with zipfile.ZipFile(root / f"CMP_facade_DB_{part}.zip", "w") as z:
            z.writestr("readme.txt", "CMP Facade Database")
            z.writestr("label_names.txt", "1 background")
            for name, content in cmp_files(prefix, count):
                z.writestr(f"{part}/{name}", content)
            z.extractall(root / "unpacked")
    return root


def test_cmp_facades_base_and_extended(cmp, capsys):
    both = data.load("facades", 32, data=cmp)
    assert both.maps.shape == (606, 32, 32)
    assert both.classes == 12
    assert both.names[0] == "background"
    assert both.names[11] == "shop"
    assert both.palette[4].tolist() == [0, 255, 255]
    assert not both.doubtful
    assert capsys.readouterr().err == ""
    assert both.sources[0] == "base/cmp_b0001.png" and both.sources[-1] == "extended/cmp_x0228.png"
    small = images.resize_nearest(ids(8, (40 + 18, 30 + 20), 12), (32, 32))
    assert_array_equal(both.maps[7], small)
    for paths in ([cmp / "CMP_facade_DB_extended.zip", cmp / "CMP_facade_DB_base.zip"],
                  cmp / "unpacked",
                  [cmp / "unpacked" / "base", cmp / "unpacked" / "extended"]):
        assert_array_equal(data.load("facades", 32, data=paths).maps, both.maps)
    assert len(data.load("facades", 32, data=cmp / "CMP_facade_DB_base.zip").maps) == 378
    assert "378 maps in" in capsys.readouterr().err and "complete would be 606" not in both.names


def test_the_damaged_one_of_two_archives_is_named(cmp, tmp_path):
    for part in "base", "extended":
        shutil.copy(cmp / f"CMP_facade_DB_{part}.zip", tmp_path)
    with zipfile.ZipFile(tmp_path / "CMP_facade_DB_base.zip") as z:
        start = z.getinfo("base/cmp_b0100.png").header_offset
    content = bytearray((tmp_path / "CMP_facade_DB_base.zip").read_bytes())
    content[start + 120] ^= 0xFF
    (tmp_path / "CMP_facade_DB_base.zip").write_bytes(content)
    message = "CMP_facade_DB_base.zip:base/cmp_b0100.png: cannot be read.*CRC"
    with pytest.raises(InputError, match=message):
        data.load("facades", 32, data=tmp_path)


def test_archives_are_read_in_their_own_order(tmp_path, monkeypatch):
    """Going back in a .tar.gz means to unpack it from its start again."""
    order = np.random.default_rng(0).permutation(30).tolist()
    read, content_of = [], archives.content
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as t:
        for i in order:
            info = tarfile.TarInfo(f"{i:04d}.png")
            info.size = len(png(ids(i)))
            t.addfile(info, io.BytesIO(png(ids(i))))
    monkeypatch.setattr(archives, "content",
                        lambda member: (read.append(int(member.name[:4])), content_of(member))[1])
    dataset = load_maps(tmp_path / "x.tar.gz", (8, 8))
    assert read == order and dataset.sources == sorted(dataset.sources)
    assert_array_equal(dataset.maps, [images.resize_nearest(ids(i), (8, 8)) for i in range(30)])


@pytest.fixture(scope="module")
def pix2pix(tmp_path_factory):
    """facades.tar.gz as it comes, with three maps."""
    root = tmp_path_factory.mktemp("pix2pix")
    for i, split in enumerate(("test", "train", "val")):
        write(root / "facades" / split, **{f"{i + 1}__jpg": jpeg(painted_facade(i), 95)})
    with tarfile.open(root / "facades.tar.gz", "w:gz") as t:
        t.add(root / "facades", "facades")
    return root


def test_pix2pix_facades_have_the_same_ids(pix2pix, capsys):
    dataset = data.load("facades", 256, data=pix2pix / "facades.tar.gz")
    assert dataset.maps.shape == (3, 256, 256)
    assert dataset.names == [name for name, *_ in data.FACADES]
    assert_array_equal(dataset.palette, [c for _, c, _ in data.FACADES])  # drawn in CMP's colours
    for i, m in enumerate(dataset.maps):
        assert (m == painted_facade(i)).mean() > 0.995
    assert 0 < dataset.doubtful < 0.06
    assert_array_equal(data.load("facades", 256, data=pix2pix).maps, dataset.maps)
    train = data.load("facades", 256, data=pix2pix / "facades", split="train")
    assert_array_equal(train.maps, dataset.maps[1:2])
    with pytest.raises(InputError, match="no label maps"):
        data.load("facades", 32, data=pix2pix / "facades" / "train", split="val")
    with pytest.raises(InputError, match="the facades have 12"):
        data.load("facades", 32, data=pix2pix, classes=22)


def test_original_and_copy_together_are_refused(cmp, pix2pix):
    with pytest.raises(InputError, match="both the original and pix2pix's copy"):
        data.load("facades", 32, data=[cmp / "CMP_facade_DB_base.zip", pix2pix / "facades.tar.gz"])


@pytest.mark.parametrize("quality, subsampling", [(75, -1), (95, -1), (75, 0)])
def test_jpeg_labels_come_back(quality, subsampling):
    palette = np.array([c for *_, c in data.FACADES], np.uint8)
    right, nearest, caught = [], [], []
    for seed in range(100, 106):
        m, content = painted_facade(seed), jpeg(painted_facade(seed), quality, subsampling)
        image, doubtful = data.pix2pix_labels("x.jpg", content, palette)
        rgb = np.asarray(Image.open(io.BytesIO(content)), np.int32)[:, 256:, None]
        nearest.append((((rgb - palette) ** 2).sum(-1).argmin(-1) == m).mean())
        wrong = np.asarray(image) != m + 1
        right.append(1 - wrong.mean())
        caught.append(doubtful - wrong.mean())
    assert min(right) >= 0.985, right
    assert subsampling == 0 or np.mean(nearest) < 0.96, "the nearest colour would not do"
    assert min(caught) > 0, "more pixels are counted as doubtful than are wrong"


@pytest.mark.parametrize("content, message", [
    (lambda: jpeg(np.zeros((15, 30), np.uint8), 95), "RGB of 60x15"),
    (lambda: jpeg(painted_facade(0), 95)[:2000], "1.jpg: damaged"),
    (lambda: png(PALETTE[ids()]), "no label maps|RGB|1.jpg")])
def test_bad_pix2pix_pairs(tmp_path, content, message):
    write(tmp_path / "f" / "train", **{"1__jpg": content()})
    with pytest.raises(InputError, match=message):
        data.load("facades", 32, data=tmp_path / "f")


# -------------------------------------------------------------------------------- maps of one's own
def test_rgb_maps_teach_their_palette(tmp_path):
    write(tmp_path / "m", a__png=png(PALETTE[ids(0, classes=2)]), b__png=png(PALETTE[ids(1)]))
    learnt = data.load(str(tmp_path / "m"), 8)
    # In the order of their values as numbers.
    assert_array_equal(learnt.palette, [[0, 200, 0], [10, 20, 30], [200, 0, 0]])
    assert learnt.learnt and learnt.classes == 3
    small = images.resize_nearest(PALETTE[ids(1)], (8, 8))
    assert_array_equal(learnt.palette[learnt.maps[1]], small)
    palettes.write_palette(tmp_path / "palette.txt", learnt.palette, learnt.names)
    again = data.load(str(tmp_path / "m"), 8, palette=tmp_path / "palette.txt")
    assert_array_equal(again.maps, learnt.maps)
    assert not again.learnt and again.names == learnt.names


@pytest.mark.parametrize("count", [64, 65])
def test_a_learnt_palette_has_64_colours_at_most(tmp_path, count):
    colors = np.zeros((1, count, 3), np.uint8)
    colors[0, :, 1] = np.arange(count)
    half = count // 2
    write(tmp_path / "m", a__png=png(colors[:, :half]), b__png=png(colors[:, half:]))
    if count == 64:
        assert load_maps(tmp_path / "m", (32, 32)).classes == 64
    else:
        with pytest.raises(InputError, match="RGB images of 65 colours.*--palette"):
            load_maps(tmp_path / "m", (32, 32))


def test_a_palette_names_the_classes(tmp_path):
    write(tmp_path / "m", a__png=png(ids()))
    text = "\ufeff10 20 30 night sky # a comment\n200 0 0\n0 200 0 \x1b[31mtree\u202e\n"
    (tmp_path / "p.txt").write_text(text, encoding="utf-8")  # as Windows' Notepad begins a file
    dataset = data.load(str(tmp_path / "m"), 8, palette=tmp_path / "p.txt")
    assert dataset.names == ["night sky", "class 1", "?[31mtree?"]
    assert_array_equal(dataset.palette, PALETTE)
    palettes.write_palette(tmp_path / "q.txt", PALETTE, ["a # b\n", "\x1b[1m", "tree"])
    again, names = palettes.read_palette(tmp_path / "q.txt")
    assert names == ["a ? b?", "?[1m", "tree"] and np.array_equal(again, PALETTE)


@pytest.mark.parametrize("pattern", ["*_label.png", "labels/*.png", "LABELS/*"])
def test_pairs_of_images_and_labels(tmp_path, pattern):
    photo = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    write(tmp_path / "m" / "images", a__png=png(photo), b__png=png(photo))
    write(tmp_path / "m" / "labels", a_label__png=png(ids(0)), b_label__png=png(ids(1)))
    dataset = data.load(str(tmp_path / "m"), 8, labels=pattern)
    assert [os.path.basename(s) for s in dataset.sources] == ["a_label.png", "b_label.png"]
    with pytest.raises(InputError, match="an RGB image of more than 256"):
        data.load(str(tmp_path / "m"), 8)


@pytest.mark.parametrize("kind", ["grey", "indexed", "rgb", "first"])
def test_void_pixels_take_the_nearest_class(tmp_path, kind, capsys):
    m = np.zeros((6, 6), np.uint8)
    m[:, 3:], m[2:4, 2:4] = 1, 255 if kind in ("grey", "indexed") else 2
    if kind == "first":  # void is 0, and the classes are 1 and 2; ids stay
        m = (m + 1) % 3
    colors = np.zeros((256, 3), np.uint8)  # a void colour that a class has too is no mistake
    colors[1] = 9
    content = {"grey": png(m), "indexed": png(m, palette=colors), "first": png(m),
               "rgb": png(PALETTE[m.clip(max=2)])}[kind]
    folder = write(tmp_path / "m", a__png=content)
    (tmp_path / "p.txt").write_text("10 20 30 a\n200 0 0 b\n0 200 0 c\n")
    options = dict(palette=tmp_path / "p.txt") if kind == "rgb" else {}
    void = {"grey": 255, "indexed": 255, "rgb": 2, "first": 0}[kind]
    for survey in None, [], None:
        loaded = data.load(str(folder), 6, void=void, survey=survey, **options)
        low, high = (1, 2) if kind == "first" else (0, 1)
        assert_array_equal(loaded.maps[0], np.repeat([[low] * 3 + [high] * 3], 6, 0))
        assert loaded.classes == (2 if kind in ("grey", "indexed") else 3)
    flags = ["--palette", str(options["palette"])] if options else []
    data_command.main(["inspect", "--dataset", str(folder), "--void", str(void), *flags,
                       "--out", str(tmp_path / "x.png")])
    assert "11.11% of the pixels are void" in capsys.readouterr().out


def test_mirror_images(tmp_path, capsys, cache):
    folder = write(tmp_path / "m", a__png=png(ids()), b__png=png(ids(1)))
    plain = data.load(str(folder), 8)
    both = data.load(str(folder), 8, mirror=True)
    assert_array_equal(both.maps, np.concatenate([plain.maps, np.flip(plain.maps, 2)]))
    assert both.sources == ["a.png", "b.png", "a.png (mirrored)", "b.png (mirrored)"]
    assert len(list(cache.iterdir())) == 1, "one cache for both"
    data_command.main(["inspect", "--dataset", str(folder), "--mirror",
                       "--out", str(tmp_path / "x.png")])
    out = capsys.readouterr().out
    assert "4 maps, half of them mirror images, 3 classes" in out
    in_maps = [line.split()[5] for line in out.splitlines() if " class " in line and "%" in line]
    assert in_maps == ["4"] * 3
    many = np.arange(64, dtype=np.uint8).reshape(16, 2, 2)
    chosen = data.with_mirror_images(label_maps.LabelMaps(many, PALETTE, [*"abc"])).unpaired
    same = (chosen == many).all((1, 2))
    assert ((chosen == np.flip(many, 2)).all((1, 2)) == ~same).all() and 0 < same.sum() < 16
    assert plain.unpaired is plain.maps
    with pytest.raises(InputError, match="--mirror is for maps in files, not for the shapes"):
        data.load("shapes", 16, mirror=True)


def test_resizing_never_invents_a_class_and_is_the_same_everywhere():
    rng = np.random.default_rng(0)
    m = rng.integers(0, 34, (64, 128)).astype(np.uint8).repeat(16, 0).repeat(16, 1)  # (1024, 2048)
    m[rng.integers(0, 1024, 5000), rng.integers(0, 2048, 5000)] = 33
    small = images.resize_nearest(m, (128, 128))
    assert small.shape == (128, 128) and set(np.unique(small)) <= set(np.unique(m))
    assert hashlib.sha256(small.tobytes()).hexdigest()[:16] == "bea4e9cb3dbc2a89"
    other = images.resize_nearest(m, (97, 97))
    assert hashlib.sha256(other.tobytes()).hexdigest()[:16] == "9f4f8e57dfa48179"


def test_decoding_runs_on_all_cores_a_few_maps_ahead():
    """Memory stays bounded: the reader is never more than some maps ahead of the consumer."""
    from concurrent.futures import ThreadPoolExecutor
    read, threads = [], set()

    def arguments():
        for i in range(200):
            read.append(i)
            yield (i,)

    def work(i):
        threads.add(threading.get_ident())
        time.sleep(0.001)
        return i

    with ThreadPoolExecutor(4) as pool:
        for done, i in enumerate(label_maps.in_order(pool.map, work, arguments())):
            assert i == done and len(read) - done <= 4 * available_cores()
    assert len(threads) == 4
    assert list(label_maps.in_order(map, work, arguments())) == list(range(200))


@pytest.mark.skipif(available_cores() < 2, reason="one core")
def test_load_maps_decodes_on_all_cores(tmp_path, monkeypatch):
    decode, threads = images.decode, set()

    def slow(*arguments):
        threads.add(threading.get_ident())
        time.sleep(0.01)
        return decode(*arguments)

    monkeypatch.setattr(images, "decode", slow)
    count = available_cores()
    load_maps(write(tmp_path, **{f"m{i}__png": png(ids(i)) for i in range(4 * count)}), (8, 8))
    assert len(threads) == count


def test_load_maps_without_threads(tmp_path, monkeypatch, cache):
    folder = write(tmp_path / "m", **{f"m{i}__png": png(ids(i)) for i in range(20)})
    expected = load_maps(folder, (8, 8)).maps

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert_array_equal(load_maps(folder, (8, 8)).maps, expected)
    assert_array_equal(data.load(str(folder), 8).maps, expected)  # hashes, too
    assert len(list(cache.iterdir())) == 1


# -------------------------------------------------------------------------------------------- cache
@pytest.fixture
def maps(tmp_path):
    contents = {f"m{i}__png": png(ids(i), palette=PALETTE) for i in range(5)}
    return write(tmp_path / "maps", **contents)


def test_a_tar_is_hashed_once(tmp_path, monkeypatch):
    """Its fingerprint is that of all its members, for which several threads ask at once."""
    count, digest = [], archives.digest
    write(tmp_path / "maps", **{f"m{i}__png": png(ids(i)) for i in range(20)})
    with tarfile.open(tmp_path / "maps.tar", "w") as archive:
        archive.add(tmp_path / "maps", "")
    monkeypatch.setattr(archives, "digest", lambda path: count.append(path) or digest(path))
    monkeypatch.setattr(label_maps, "available_cores", lambda: 16)
    assert len(data.load(str(tmp_path / "maps.tar"), 8).maps) == 20 and len(count) == 1


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    write(tmp_path / "a", m__png=png(ids()))
    write(tmp_path / "b", m__png=png(ids()))
    write(tmp_path / ".b", m__png=png(ids()))
    scandir = os.scandir

    def refused(path):
        if str(path).endswith(refuse):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)
    monkeypatch.setattr(os, "scandir", refused)
    refuse = "/.b"  # hidden folders do not count
    assert len(data.load(str(tmp_path), 8).maps) == 2
    refuse = "/b"
    with pytest.raises(InputError, match="b: cannot be read .Permission denied"):
        data.load(str(tmp_path), 8)


def test_a_long_name_can_be_cached(tmp_path, cache):
    folder = write(tmp_path / ("maps" * 60), m__png=png(ids()))
    assert data.load(str(folder), 8).classes == 3
    assert len(list(cache.rglob("*.npz"))) == 1


def test_the_second_start_decodes_nothing(maps, cache, monkeypatch, tmp_path):
    first = data.load(str(maps), 8)
    assert [f.suffix for f in cache.iterdir()] == [".npz"]
    shutil.copytree(maps, tmp_path / "elsewhere" / "maps")
    decode = images.decode
    monkeypatch.setattr(images, "decode", None)
    for path in (maps, tmp_path / "elsewhere" / "maps"):  # the content counts, not the place
        second = data.load(str(path), 8)
        for a, b in zip(first, second):
            assert_array_equal(a, b)
    assert second.maps.dtype == np.uint8
    monkeypatch.setattr(images, "decode", decode)
    stamp = os.stat(maps / "m1.png")
    (maps / "m1.png").write_bytes((maps / "m2.png").read_bytes())
    os.utime(maps / "m1.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    changed = data.load(str(maps), 8)  # another content under the same name, size and time
    assert_array_equal(changed.maps[1], first.maps[2])


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_archives_are_cached_by_content(maps, tmp_path, suffix, cache):
    def pack():
        if suffix == "zip":
            with zipfile.ZipFile(tmp_path / "x.zip", "w") as z:
                for file in sorted(maps.iterdir()):
                    z.write(file, file.name)
        else:
            with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as t:
                t.add(maps, "maps")
    pack()
    first = data.load(str(tmp_path / f"x.{suffix}"), 8)
    (maps / "m0.png").write_bytes((maps / "m3.png").read_bytes())
    pack()
    second = data.load(str(tmp_path / f"x.{suffix}"), 8)
    assert_array_equal(second.maps[0], first.maps[3])
    assert len(list(cache.iterdir())) == 2


def test_every_option_has_its_own_cache(maps, cache, tmp_path):
    (tmp_path / "p.txt").write_text("1 2 3 a\n4 5 6 b\n7 8 9 c\n")
    (tmp_path / "q.txt").write_text("1 2 3 a\n4 5 6 b\n7 8 9 other\n")
    options = [dict(), dict(classes=3), dict(classes=4), dict(crop=True), dict(labels="*.png"),
               dict(void=2), dict(width=16),
               dict(palette=tmp_path / "p.txt"), dict(palette=tmp_path / "q.txt")]
    for count, option in enumerate(options, 1):
        fresh = data.load(str(maps), 8, survey=[], **option)
        found = list(cache.iterdir()) if cache.exists() else []
        assert len(found) == count - 1, "a survey leaves nothing"
        for _ in range(2):
            for a, b in zip(fresh, data.load(str(maps), 8, **option)):
                assert_array_equal(a, b)
        assert len(list(cache.iterdir())) == count
    data.load(str(maps), 16)
    assert len(list(cache.iterdir())) == count + 1


def rewritten(file, **changes):
    with np.load(file) as arrays:
        np.savez(file, **dict(arrays) | changes)


BAD_CACHES = {
    "cut short": lambda f: f.write_bytes(f.read_bytes()[:-50]),
    "empty": lambda f: f.write_bytes(b""),
    "text": lambda f: f.write_text("not a cache"),
    "a flipped bit": lambda f: f.write_bytes(f.read_bytes()[:90] + b"!" + f.read_bytes()[91:]),
    "a pickle": lambda f: f.write_bytes(pickle.dumps(Evil())),
    "a pickled array": lambda f: rewritten(f, maps=np.array([Evil()], object)),
    "other options": lambda f: rewritten(f, header=json.dumps(
        dict(key="0", fields=dict(names=[*"abc"], sources=[*"12345"])))),
    "no header": lambda f: rewritten(f, header="{}"),
    "an id beyond the palette": lambda f: rewritten(f, maps=np.full((5, 8, 8), 3, np.uint8)),
    "another shape": lambda f: rewritten(f, maps=np.zeros((4, 8, 8), np.uint8)),
    "another type": lambda f: rewritten(f, maps=np.zeros((5, 8, 8), np.float32)),
}


@pytest.mark.parametrize("kind", BAD_CACHES)
def test_a_bad_cache_is_named_and_made_anew(maps, cache, kind, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    first = data.load(str(maps), 8)
    file, = cache.iterdir()
    BAD_CACHES[kind](file)
    second = data.load(str(maps), 8)
    assert_array_equal(first.maps, second.maps)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and str(file) in err and "the cache cannot be used" in err
    data.load(str(maps), 8)
    assert capsys.readouterr().err == ""
    assert list(cache.iterdir()) == [file]
    assert not (tmp_path / "evil_was_here").exists()


def test_a_cache_that_cannot_be_written_costs_only_time(maps, cache, capsys):
    cache.write_text("a file in the way")
    assert len(data.load(str(maps), 8).maps) == 5
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "the cache cannot be written" in err and str(cache) in err


def test_the_cache_is_cleaned_of_what_killed_processes_left(maps, cache):
    write(cache, old__npz__7__tmp=b"cut", new__npz__8__tmp=b"being written", mine__tmp=b"else's")
    for name in "old.npz.7.tmp", "mine.tmp":
        os.utime(cache / name, (0, 0))
    data.load(str(maps), 8)
    assert sorted(file.name for file in cache.glob("*.tmp")) == ["mine.tmp", "new.npz.8.tmp"]


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes")
@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", None)])
def test_what_is_no_file_is_never_replaced(tmp_path, make):
    path = tmp_path / "x.png"
    make(path)
    before = os.stat(path)
    with pytest.raises(OSError, match="a folder or a device; expected a file"):
        with written(path) as file:
            file.write(b"x")
    assert os.path.samestat(os.stat(path), before) and os.listdir(tmp_path) == ["x.png"]


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 16 KB."""
    folder = tmp_path / "full"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount a small tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_no_space_left(full_disk, maps, capsys, monkeypatch, server):
    monkeypatch.setenv("SEMGAN_CACHE", str(full_disk))
    write(maps, big__png=png(np.random.default_rng(0).integers(0, 3, (300, 300)).astype(np.uint8)))
    assert len(data.load(str(maps), 256).maps) == 6
    assert "No space left on device" in capsys.readouterr().err and not list(full_disk.iterdir())
    with pytest.raises(SystemExit):
        data_command.main(["inspect", "--dataset", str(maps), "--out", str(full_disk / "x.png")])
    assert "x.png: cannot be written (No space left" in capsys.readouterr().err
    assert not list(full_disk.iterdir())
    with pytest.raises(InputError, match="good.zip.*No space left"):
        data_command.fetch_archive(f"{server}/good.zip", full_disk / "good.zip")
    assert not list(full_disk.iterdir())


# -------------------------------------------------------------------------------- download, inspect
def archive(name="base/cmp_b0001.png"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as z:
        z.writestr(name, png(ids(), palette=PALETTE))
        z.writestr("noise", np.random.default_rng(0).bytes(200_000))
    return buffer.getvalue()


@pytest.fixture
def server():
    """A web server that also breaks off, sends something else and refuses."""
    content = archive()
    answers = {"good.zip": Answer(content),
               "partial.zip": Answer(content[:100_000], announced=len(content)),
               "unsized.zip": Answer(content[:100_000], announced=0),
               "missing.zip": Answer(b"<html>nothing here</html>", status=404),
               "page.zip": Answer(b"<html>please log in</html>"),
               "CMP_facade_DB_base.zip": Answer(content),
               "CMP_facade_DB_extended.zip": Answer(content)}
    with serving(answers) as address:
        yield address


def test_download(server, tmp_path, capsys):
    path, content = tmp_path / "new" / "good.zip", archive()
    sha256 = hashlib.sha256(content).hexdigest()
    # The second time the file is there already, and is verified.
    for size, sha in ((None, None), (len(content), sha256)):
        data_command.fetch_archive(f"{server}/good.zip", path, size, sha)
        assert path.read_bytes() == content
        assert [f.name for f in path.parent.iterdir()] == ["good.zip"]
    first, second = capsys.readouterr().out.splitlines()
    assert "no size or checksum is published" in first
    assert sha256 in first
    assert "size and SHA-256 verified" in second


@pytest.mark.parametrize("name, size, sha256, message", [
    ("partial.zip", None, None, "partial.zip: broke off after 100,000 of 20"),
    ("unsized.zip", None, None, "neither a .zip nor a .tar"),
    ("unsized.zip", 200_500, None, "broke off after 100,000 of 200,500"),
    ("good.zip", 7, None, "good.zip: more than the 7 bytes"),
    ("good.zip", None, "0" * 64, "good.zip: the SHA-256 is .*; expected 0000"),
    ("missing.zip", None, None, "HTTP Error 404"),
    ("page.zip", None, None, "neither a .zip nor a .tar"),
    ("refused", None, None, "cannot be fetched .*refused"),
])
def test_a_download_that_fails_leaves_nothing(server, tmp_path, name, size, sha256, message):
    url = f"{server}/{name}" if name != "refused" else "http://127.0.0.1:9/good.zip"
    with pytest.raises(InputError, match=message) as error:
        data_command.fetch_archive(url, tmp_path / "d" / "x.zip", size, sha256)
    assert "\n" not in str(error.value) and not (tmp_path / "d").exists()


def test_a_file_in_the_way_is_verified_and_kept(server, tmp_path):
    (tmp_path / "x.zip").write_bytes(archive()[:-10])
    with pytest.raises(InputError, match="x.zip"):
        data_command.fetch_archive(f"{server}/good.zip", tmp_path / "x.zip", len(archive()))
    assert (tmp_path / "x.zip").read_bytes() == archive()[:-10]


def test_the_facades_command(server, tmp_path, capsys, monkeypatch):
    there = [(f"{server}/CMP_facade_DB_{part}.zip", None, None) for part in ("base", "extended")]
    monkeypatch.setitem(data_command.DOWNLOADS, "cmp", there)
    data_command.main(["facades", "--download", "--out", str(tmp_path / "f")])
    there = ["CMP_facade_DB_base.zip", "CMP_facade_DB_extended.zip"]
    assert sorted(file.name for file in (tmp_path / "f").iterdir()) == there
    assert "inspect --dataset facades" in capsys.readouterr().out
    for url, *_ in [entry for entries in data_command.DOWNLOADS.values() for entry in entries]:
        assert url.rsplit("/", 1)[1] in (*there, "facades.tar.gz")


def test_inspect_shows_frequencies_sizes_and_unknown_ids(tmp_path, capsys):
    m = np.zeros((40, 40), np.uint8)
    m[:10], m[10:12, :20], m[39, 39] = 1, 2, 200
    write(tmp_path / "maps", a__png=png(m), b__png=png(np.ones((20, 60), np.uint8)))
    data_command.main(["inspect", "--dataset", str(tmp_path / "maps"), "--classes", "3",
                       "--side", "20", "--out", str(tmp_path / "x.png")])
    out = capsys.readouterr().out
    rows = {line.split()[2]: line.split()[3:] for line in out.splitlines()
            if " class " in line and "%" in line}
    assert rows == {"0": ["41.39%", "36.12%", "1", "0", "255", "0"],  # and R, G, B
                    "1": ["57.14%", "62.50%", "2", "0", "0", "120"],
                    "2": ["1.43%", "1.25%", "1", "120", "255", "255"]}
    assert "2 maps, 3 classes, resized to 20x20" in out
    assert "sizes (height x width): 40x40 (1), 20x60 (1)" in out
    assert "unknown id 200: 1 pixels, first in" in out
    assert "a.png" in out
    assert "unknown ids: 1" in out
    assert "after resizing, 0.09% of the pixels show another class" in out
    picture = np.asarray(Image.open(tmp_path / "x.png").convert("RGB"))
    assert picture.shape[0] > 400 and picture.shape[1] > 800
    for color in palettes.distinct_colors(3):
        assert (picture == color).all(-1).sum() > 100


def test_inspect_of_every_data_set(gtfine, cmp, pix2pix, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = cmp / "CMP_facade_DB_base.zip"
    for words, expected in ((["--dataset", "cityscapes", "--data", gtfine, "--classes", 19],
                             "are void"),
                            (["--dataset", "facades", "--data", base], "378 maps, 12 classes"),
                            (["--dataset", "facades", "--data", pix2pix], "doubtful"),
                            ([], "2916 maps, 4 classes, resized to 64x64")):
        data_command.main(["inspect", *map(str, words)])
        out = capsys.readouterr().out
        assert expected in out and "unknown ids: none" in out
    assert sorted(file.name for file in tmp_path.glob("*.png")) == [
        "inspect-cityscapes.png", "inspect-facades.png", "inspect-shapes.png"]


def test_inspect_of_maps_that_are_not_square(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "m", a__png=png(ids(0, (60, 90))))
    data_command.main(["inspect", "--dataset", "m", "--size", "16x32"])
    out = capsys.readouterr().out
    assert "resized to 16x32" in out and "sizes (height x width): 60x90 (1)" in out
    grid = data_command._grid(data.colored_shapes(16, width=48))
    assert grid.shape == (4 * 16 + 3, 4 * 48 + 3, 3)
    assert (grid[16] == 255).all() and (grid[:, 48] == 255).all()
    for flags, message in ((["--size", "64x"], "64x: expected HEIGHTxWIDTH"),
                           (["--size", "0x64"], "0x64: expected HEIGHTxWIDTH"),
                           (["--size", "8x16", "--side", "8"], "--side 8 and --size 8x16: exp")):
        with pytest.raises(SystemExit):
            data_command.main(["inspect", "--dataset", "m", *flags])
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_inspect_names_unknown_colours(tmp_path, capsys):
    m = PALETTE[ids()]
    m[:2], m[5, 5] = (0, 0, 3), (1, 2, 3)
    folder = write(tmp_path / "m", a__png=png(m))
    (tmp_path / "p.txt").write_text("10 20 30 a\x1b[31m\n200 0 0 $\\foo$\n0 200 0 c\n")
    data_command.main(["inspect", "--dataset", str(folder), "--palette", str(tmp_path / "p.txt"),
                       "--out", str(tmp_path / "x.png")])
    out = capsys.readouterr().out
    assert "\x1b" not in out and "  0 a?[31m " in out
    lines = out.splitlines()
    assert lines[-4].startswith("unknown colour (0, 0, 3): 60 pixels, first in")
    assert lines[-3].startswith("unknown colour (1, 2, 3): 1 pixels") and "colours: 2" in lines[-2]


def test_the_picture_of_large_maps_is_small():
    maps = np.zeros((1, 3000, 6000), np.uint8)
    loaded = label_maps.LabelMaps(maps, PALETTE, [*"abc"])
    assert data_command._grid(loaded).shape[:2] == (4 * 250 + 3 * 7, 4 * 500 + 3 * 7)


@pytest.mark.parametrize("flags, message", [
    (["--side", "0"], "--side 0: expected 1 or more"),
    (["--side", 400 * "9"], "--side 999"),
    (["--maps", "-5"], "--maps -5: expected 1 or more, below 1048576"),
    (["--maps", "0"], "--maps 0: expected 1 or more"),
    (["--side", "2147483647"], "not enough memory: by estimate drawing the maps takes"),
    (["--side", "200000"], "not enough memory: by estimate drawing the maps takes over a"),
    (["--dataset", "m", "--side", "200000"],
     "not enough memory: by estimate reading the maps takes 80.0 GB, but 24.0 GB are available"),
    (["--dataset", "m", "--palette", ""], "--palette is empty: expected"),
    (["--dataset", "m", "--labels", ""], "--labels is empty: expected"),
    (["--dataset", ""], "--dataset is empty: expected"),
    (["--dataset", "facades", "--data", ""], "--data is empty: expected"),
    (["--void", "0"], "--void is for maps in files, not for the shapes"),
    (["--out", "m/a.zip"], "--out m/a.zip: expected a name that ends in .png"),
])
def test_inspect_refuses_in_one_line(tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "available", lambda: 24e9)
    write(tmp_path / "m", a__png=GOOD)
    with pytest.raises(SystemExit) as stop:
        data_command.main(["inspect", *flags])
    err = capsys.readouterr().err
    assert stop.value.code == 1 + ("memory" not in message)
    assert err.startswith(f"data: {message}") and err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_commands_of_data_py(tmp_path):
    run = functools.partial(subprocess.run, capture_output=True, text=True, cwd=tmp_path,
                            env=os.environ | {"COLUMNS": "80"})
    for words in ([], ["inspect"], ["facades"]):
        done = run([sys.executable, str(ROOT / "data.py"), *words, "--help"])
        assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= 80
    done = run([sys.executable, str(ROOT / "data.py"), "inspect", "--dataset", "no/such"])
    assert done.returncode == 2
    assert done.stderr == "data: no/such: no such folder or archive\n"
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------- bad input
def truncated(folder):
    write(folder, good__png=png(ids()), half__png=png(ids(1))[:-60])


def rgb_off_palette(folder):
    picture = PALETTE[ids()]
    picture[0, 0] = 1, 2, 3
    picture[4, 9:11] = 0, 0, 3
    write(folder, a__png=png(picture))


def archive_member(name, link=False):
    def make(folder):
        folder.mkdir()
        if link:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE if link is True else link, "/etc/passwd"
            with tarfile.open(folder / "x.tar", "w") as t:
                t.addfile(info)
        else:
            with zipfile.ZipFile(folder / "x.zip", "w") as z:
                z.writestr(name, png(ids()))
        return folder / ("x.tar" if link else "x.zip")
    return make


def half_archive(suffix):
    def make(folder):
        write(folder / "in", **{f"m{i}__png": png(ids(i)) for i in range(20)})
        path = folder / f"x.{suffix}"
        if suffix == "zip":
            with zipfile.ZipFile(path, "w") as z:
                for file in (folder / "in").iterdir():
                    z.write(file, file.name)
        else:
            with tarfile.open(path, "w:" + suffix.split(".")[1]) as t:
                t.add(folder / "in", "in")
        path.write_bytes(path.read_bytes()[:-900])
        return path
    return make


def damaged_member(folder):
    """A zip whose index is fine and whose content is not, as the checksum shows."""
    path = archive_member("m.png")(folder)
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)
    return path


def long_name(folder):
    """The header before a file says that its name has 3,000 bytes more."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "x.zip", "w") as archive:
        archive.writestr("a.png", png(ids(size=(99, 99))))
    content = bytearray((folder / "x.zip").read_bytes())
    content[26:28] = struct.pack("<H", 3005)  # the length of the name
    (folder / "x.zip").write_bytes(content)
    return folder / "x.zip"


def zeros(folder):
    """3 GB, of which the disk holds none. To read them takes half a minute."""
    folder.mkdir()
    with open(folder / "x.tar.xz", "wb") as file:
        file.truncate(3 << 30)
    return folder / "x.tar.xz"


def many_bytes(folder):
    """A member of 300 MB of zeros, which packs to 300 KB."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as z, \
            z.open("a.png", "w", force_zip64=True) as file:
        for _ in range(300):
            file.write(bytes(1 << 20))
    return folder / "x.zip"


def zip_link(folder):
    folder.mkdir()
    info = zipfile.ZipInfo("a.png")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(folder / "x.zip", "w") as z:
        z.writestr(info, "/etc/passwd")
    return folder / "x.zip"


def twice(folder):
    folder.mkdir()
    with tarfile.open(folder / "x.tar", "w") as t:
        for _ in range(2):
            info = tarfile.TarInfo("a.png")
            info.size = len(png(ids()))
            t.addfile(info, io.BytesIO(png(ids())))
    return folder / "x.tar"


def dangling(folder):
    write(folder, a__png=png(ids()))
    (folder / "b.png").symlink_to("nowhere.png")


def control_codes(folder):
    write(folder, **{"a\n\x1b[31m__png": b"no image"})


def translucent(m):
    """The map with another channel: alpha, which is 254 in one place."""
    alpha = np.full((*m.shape[:2], 1), 255, np.uint8)
    alpha[4, 9] = 254
    return np.concatenate([m, alpha], -1)


def packed(m, bits):
    """The rows of a map (H, W), with so many bits a pixel."""
    rows = np.unpackbits(m[..., None], axis=-1)[..., -bits:].reshape(len(m), -1)
    return [row.tobytes() for row in np.packbits(rows, axis=-1)]


def packed_png(depth, kind, rows=2 * [bytes(12)], width=2):
    """A PNG with so many bits a channel, of which Pillow writes none."""
    def chunk(name, content):
        return (struct.pack(">I", len(content)) + name + content
                + struct.pack(">I", zlib.crc32(name + content)))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (images.PNG + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b""))


def pages(kind, count=2):
    """A file of several images."""
    first, *others = [Image.fromarray(ids(i)) for i in range(count)]
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=others)
    return buffer.getvalue()


def cut_tar(size, end=b""):
    """Makes a tar of two members of 512 bytes at most, cut to a size, and then `end`."""
    def make(folder):
        write(folder)
        with tarfile.open(folder / "x.tar", "w") as t:
            for name in "a.png", "b.png":
                info = tarfile.TarInfo(name)
                info.size = len(GOOD)
                t.addfile(info, io.BytesIO(GOOD))
        (folder / "x.tar").write_bytes((folder / "x.tar").read_bytes()[:size] + end)
        return folder / "x.tar"
    return make


def sparse(folder):
    with open(write(folder) / "a.png", "wb") as file:
        file.truncate(3 << 30)


def photo_pair(folder):
    buffer = io.BytesIO()
    Image.fromarray(ids()).save(buffer, "JPEG")
    write(folder, a__png=buffer.getvalue())


def holding(**contents):
    """Makes a folder with these files."""
    return lambda folder: write(folder, **contents)


GOOD, MAP = png(ids()), png(ids(), palette=PALETTE)
PHOTO = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
NO_IMAGE = "a.png: not an image"
LINK = "'a.png' is a link"
BAD = {  # name: how to make it, the message, options of load_maps
    "zip bomb": (many_bytes, "x.zip: the member 'a.png' has 300 MB; expected 256 at most"),
    "zip link": (zip_link, "x.zip: the member 'a.png' is a link"),
    "tar link": (archive_member("a.png", link=True), LINK),
    "tar hard link": (archive_member("a.png", link=tarfile.LNKTYPE), LINK),
    "tar device": (archive_member("a.png", link=tarfile.CHRTYPE), LINK),
    "tar outside": (archive_member("../a.png", link=tarfile.REGTYPE),
                    r"'\.\./a.png' points outside"),
    "tar absolute": (archive_member("/a.png", link=tarfile.REGTYPE), "'/a.png' points outside"),
    "zip member outside": (archive_member("../evil.png"), r"'\.\./evil.png' points outside"),
    "zip member absolute": (archive_member("/tmp/evil.png"), "points outside"),
    "zip member on a drive": (archive_member("C:\\evil.png"), "points outside"),
    "zip member without a name": (archive_member("."), "no label maps"),
    "zip breaks off": (half_archive("zip"), "x.zip"),
    "tar breaks off": (half_archive("tar.gz"), "x.tar.gz"),
    "damaged tar.xz": (half_archive("tar.xz"), "x.tar.xz"),
    "damaged member": (damaged_member, "x.zip"),
    "a member whose name runs on": (long_name, "x.zip: cannot be read .File name in dir.{,190}$"),
    "zeros": (zeros, "x.tar.xz: neither a folder nor a readable"),
    "a member twice": (twice, "x.tar: the member 'a.png' occurs twice"),
    "a link to nowhere": (dangling, "^[^:]*b.png: a link that leads to no file$"),
    "missing": (lambda folder: None, "no such folder or archive"),
    "empty folder": (holding(), "no label maps"),
    "no images": (holding(a__txt=b"x", b__jpg=b"x"), "no label maps.*JPEG"),
    "a file that is no archive": (lambda folder: write(folder, x__bin=b"hello") / "x.bin",
                                  "neither a folder nor"),
    "control codes in a name": (control_codes, r"a\?\?\[31m.png: not an image"),
    "truncated png": (truncated, "half.png: damaged.*cut off"),
    "zero bytes": (holding(a__png=b""), NO_IMAGE),
    "text named png": (holding(a__png=b"just text"), NO_IMAGE),
    "a jpeg named png": (photo_pair, "a.png: a JPEG, which changes.*--labels"),
    "grey and alpha": (holding(a__png=png(translucent(ids()[..., None]))),
                       "a.png: alpha 254 at row 4, column 9; expected 255 everywhere"),
    "alpha": (holding(a__png=png(translucent(PALETTE[ids()]))), "a.png: alpha 254 at row 4, col",
              dict(palette=PALETTE)),
    "floats": (holding(a__tif=tif(ids().astype(np.float32))), "a.tif: image mode F"),
    "32 bits": (holding(a__tif=tif(ids().astype(np.int32) - 1)),
                "a.tif: value -1 at row 0, column 0; expected class ids up to 255"),
    "16 bits": (holding(a__png=png(ids().astype(np.uint16) * 300)),
                "a.png: value 300 at row 0, column 1; expected class ids up to 255"),
    "16 bits a colour": (holding(a__png=packed_png(16, 2)), "a.png: .*16 bits a channel"),
    "16 bits grey and alpha": (holding(a__png=packed_png(16, 4)), "a.png: .*16 bits a channel"),
    "duplicate colours": (holding(a__png=png(ids(), palette=PALETTE[[0, 1, 1]])),
                          "a.png: its palette gives classes 1 and 2 the same colour "
                          r"\(200, 0, 0\)"),
    "duplicate colours across maps": (
        holding(a__png=png(ids(classes=2), palette=PALETTE),
                b__png=png(np.full((4, 4), 2, np.uint8), palette=PALETTE[[2, 2, 1]])),
        "b.png: its palette gives classes 1 and 2 the same colour"),
    "two palettes": (holding(a__png=MAP, b__png=png(ids(), palette=PALETTE[::-1].copy())),
                     "png: its palette gives class 0 another colour"),
    "rgb and ids": (holding(a__png=GOOD, b__png=png(PALETTE[ids()])), "some maps are RGB.*b.png"),
    "rgb and ids with a palette": (holding(a__png=GOOD, b__png=png(PALETTE[ids()])),
                                   "some maps are RGB.*b.png", dict(palette=PALETTE)),
    "rgb of other classes": (holding(a__png=png(PALETTE[ids()])), "3 colours; expected the 5",
                             dict(classes=5)),
    "rgb and classes of one colour": (
        holding(a__png=png(PALETTE[ids()])), r"d: RGB maps, but the palette gives classes 1 and 3 "
        r"the same colour \(200, 0, 0\)", dict(palette=PALETTE[[0, 1, 2, 1]])),
    "colour off the palette": (
        rgb_off_palette, r"a.png: colour \(0, 0, 3\) at row 4, column 9 \(2 pixels\) is not in the "
        "palette; nor are 1 rarer colours", dict(palette=PALETTE)),
    "a photo": (holding(a__png=png(PHOTO)), "a.png: an RGB image of more than 256.*--labels"),
    "a photo and a palette": (holding(a__png=png(PHOTO[:, :10])), "not in the palette.*--labels",
                              dict(palette=PALETTE)),
    "id beyond K": (holding(a__png=png(ids(classes=5))), "a.png: class id 4 at row 0, column 4.*"
                    "--void", dict(classes=4)),
    "void marked 255": (holding(a__png=png(np.uint8([[0, 255]]))), "ids up to 255.*--void 255"),
    "only void": (holding(a__png=png(np.uint8([[0, 1]])), b__png=png(np.uint8([[7, 7]]))),
                  "b.png: every pixel is void", dict(void=7)),
    "void is no id": (holding(a__png=GOOD), "--void 256: expected an id from 0", dict(void=256)),
    "void and 255 classes": (holding(a__png=GOOD), "at most 254 classes beside it, not 255",
                             dict(void=255, classes=255)),
    "void is no colour": (holding(a__png=png(PALETTE[ids()])), "--void 3: expected 0 to 2",
                          dict(void=3)),
    "a tar cut between members": (cut_tar(512 + 512), "x.tar: cannot be read.*cut off"),
    "a tar with a damaged header": (cut_tar(512 + 512, bytes(range(256)) * 4),
                                    "x.tar: cannot be read.*damaged header"),
    "a pipe in a folder": (lambda folder: os.mkfifo(write(folder) / "a.png"),
                           "a.png: cannot be read .a pipe"),
    "a link to a device": (lambda folder: (write(folder) / "a.png").symlink_to("/dev/zero"),
                           "a.png: cannot be read .a pipe, a socket or a device"),
    "a device": (lambda folder: "/dev/zero", "/dev/zero: cannot be read .a pipe"),
    "a pipe": (lambda folder: os.mkfifo(folder) or folder, "d: cannot be read .a pipe"),
    "a link to itself": (lambda folder: folder.symlink_to(folder) or folder,
                         "^[^:]*/d: a link that leads to no file$"),
    "two pages": (holding(a__tif=pages("TIFF")), "a.tif: .*2 pages or frames; expected one"),
    "an animation": (holding(a__gif=pages("GIF", 3)), "a.gif: .*3 pages or frames"),
    "an animated png": (holding(a__png=pages("PNG")), "a.png: .*2 pages or frames"),
    "3 GB": (sparse, "a.png: 3,221,225,472 bytes; expected 268,435,456 at most"),
    "more than the memory": (holding(a__png=GOOD), "reading the maps takes 34.4 GB",
                             dict(size=(2**31 - 1, 8))),
    "one class": (holding(a__png=png(np.zeros((4, 4), np.uint8))), "at least 2 classes"),
    "palette and classes": (holding(a__png=GOOD), "--classes 5.*3 colours",
                            dict(palette=PALETTE, classes=5)),
    "classes": (holding(a__png=GOOD), "--classes 300: expected 2 to 255", dict(classes=300)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(tmp_path, name, monkeypatch):
    make, message, *options = BAD[name]
    path = make(tmp_path / "d")
    path = path if path is not None and not os.path.isdir(path) else tmp_path / "d"
    monkeypatch.setattr(memory, "available", lambda: 24e9)
    with pytest.raises((InputError, memory.TooLarge), match=message) as error:
        load_maps(path, **dict(dict(size=(8, 8)), **dict(*options)))
    assert "\n" not in str(error.value)
    named = str(tmp_path) in str(error.value) or path == "/dev/zero"
    assert named or re.match("--(classes|void)|not enough memory", str(error.value))


def test_mixed_sizes_are_named(tmp_path, capsys):
    write(tmp_path / "m", a__png=png(ids()), b__png=png(ids(1)), c__png=png(ids(2, (40, 40))))
    assert load_maps(tmp_path / "m", (8, 8)).maps.shape == (3, 8, 8)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "a.png is 20x30" in err
    assert "c.png is 40x40; each is resized to 8x8" in err


def test_bad_input_leaves_no_cache(tmp_path, cache):
    write(tmp_path / "m", a__png=png(ids()), b__png=b"not an image")
    with pytest.raises(InputError):
        data.load(str(tmp_path / "m"), 8)
    assert not cache.exists()


@pytest.mark.parametrize("limit", [100, 400])  # of Pillow, which only warns of up to twice as much
def test_decompression_bomb(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(InputError, match="a.png: damaged or unreadable"):
        load_maps(write(tmp_path, a__png=png(ids())), (8, 8))


@pytest.mark.parametrize("text, message", [
    ("1 2\n3 4 5\n", "line 1: expected"),
    ("1 2 3\n1 2 300\n", "line 2: expected"),
    ("", "0 colours"),
    ("red green blue\n", "line 1"),
    ("1 2 3 " + 101 * "x" + "\n4 5 6", "line 1: a name of 101 characters; expected 100"),
    ("1 2 3\n" * (1 << 18), "1,572,864 bytes; expected 1,048,576 at most"),
    (None, "not a readable palette")])
def test_bad_palettes(tmp_path, text, message):
    path = tmp_path / "palette.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        palettes.read_palette(path)
