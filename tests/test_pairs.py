"""Pairs of map and photo: painted shapes, files matched by name, held-out pairs, bad input."""
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import data
from experiments import painter, pairs, pairs_command, pairs_files
from formats import archives
from formats.files import InputError
from formats.images import resize_nearest

CAMVID = [Path(os.environ.get(name, "no such file")) for name in ("CAMVID_LABELS", "CAMVID_PHOTOS")]
COLORS = np.array([[200, 40, 40], [30, 160, 60], [20, 60, 220]], np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("SEMGAN_CACHE", str(tmp_path / "cache"))


def scene(seed=0, size=(24, 32), classes=3):
    """A map of rectangles (H, W) uint8 that has all classes."""
    rng, m = np.random.default_rng(seed), np.zeros(size, np.uint8)
    for _ in range(4):
        (a, b), (c, d) = (np.sort(rng.choice(n + 1, 2, replace=False)) for n in size)
        m[a:b, c:d] = rng.integers(classes)
    m.flat[:classes] = range(classes)
    return m


def encoded(array, kind="PNG", mode=None, **options):
    image, buffer = Image.fromarray(array), io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def photo(m, kind="PNG", **options):
    """An image file of the map in COLORS: a photo whose edges are those of the map."""
    return encoded(COLORS[m], kind, **options)


def write(folder, files):
    """A folder of {name: content}."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def packed(path, files):
    """A .zip or .tar.gz of {name: content}."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as z:
            for name, content in files.items():
                z.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as t:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
    return path


def made_of(maps):
    """Pairs whose photos are exactly the maps in COLORS."""
    maps = np.asarray(maps, np.uint8)
    return pairs.Pairs(maps, COLORS[maps], COLORS, list("abc"), [f"{i}.png" for i in
                                                                 range(len(maps))])


# ----------------------------------------------------------------------------------- painted shapes
@pytest.mark.parametrize("size", [(32, 32), (16, 40)])
def test_painted_shapes(size):
    found = pairs.load("shapes", size, count=40)
    assert found.maps.shape == (40, *size) and found.maps.dtype == np.uint8
    assert found.photos.shape == (40, *size, 3) and found.photos.dtype == np.uint8
    assert_array_equal(found.palette, data.colored_shapes(32).palette)
    assert len(found.names) == 4 and len(set(found.sources)) == 40
    assert_array_equal(pairs.load("shapes", size, count=40).photos, found.photos)
    other = pairs.load("shapes", size, count=40, seed=1)
    assert not np.array_equal(other.maps, found.maps)
    assert not np.array_equal(painter.paint(found.maps, 1), found.photos)
    assert len(pairs.load("shapes", (16, 16)).maps) == 14 ** 2
    assert len(np.unique(pairs.load("shapes", (16, 16), count=300).maps, axis=0)) > 250


def test_the_first_photos_stay_the_same_whatever_follows(monkeypatch):
    maps = data.colored_shapes(16).maps[:30]
    photos = painter.paint(maps, 3)
    assert_array_equal(painter.paint(maps[:7], 3), photos[:7])
    monkeypatch.setattr(painter, "CHUNK", 5 * 16 * 16)
    assert_array_equal(painter.paint(maps, 3), photos)
    assert painter.paint(maps[:0]).shape == (0, 16, 16, 3)


def test_the_map_tells_most_of_a_photo_but_not_by_the_class_alone():
    training, held_out = pairs.split(pairs.load("shapes", (32, 32), count=500))
    baseline = pairs.mean_color_error(training, held_out)
    mean = painter.paint(held_out.maps, mottled=False).astype(float)
    unpredictable = np.abs(held_out.photos - mean).mean() / 127.5
    assert_allclose(baseline, 0.18, atol=0.02)
    assert unpredictable < 0.25 * baseline


def test_light_comes_from_the_upper_left():
    """Of one ball alone: bright above, dark below, and its shadow lies below it to the right."""
    y, x = np.mgrid[:64, :64]
    ball = ((y - 31.5) ** 2 + (x - 31.5) ** 2 <= 100).astype(np.uint8)[None]
    with_ball, without = (painter.paint(m, mottled=False)[0].mean(-1) for m in (ball, 0 * ball))
    assert with_ball[26, 26] > 1.5 * with_ball[38, 38]
    assert with_ball[41, 41] < 0.8 * without[41, 41], "in the shadow"
    assert_allclose(with_ball[:16, :16], without[:16, :16], atol=1)
    assert without[:8, :8].mean() > 1.2 * without[-8:, -8:].mean()


# ----------------------------------------------------------------------------- folders and archives
@pytest.mark.parametrize("kind", ["folder", "zip", "tar.gz"])
def test_maps_and_photos_by_name(tmp_path, kind):
    """In other orders, folders and formats, and with other suffixes: the names tell."""
    maps = {f"trainannot/{i}_L.png": encoded(scene(i)) for i in range(5)}
    photos = {f"train/{i}.png": photo(scene(i)) for i in (3, 0, 4, 2, 1)}
    if kind == "folder":
        places = write(tmp_path / "maps", maps), write(tmp_path / "photos", photos)
    else:
        places = packed(tmp_path / f"m.{kind}", maps), packed(tmp_path / f"p.{kind}", photos)
    found = pairs.load(places[0], (24, 32), places[1])
    assert_array_equal(found.maps, [scene(i) for i in range(5)])
    assert_array_equal(found.photos, COLORS[found.maps])
    assert found.sources == sorted(maps) and found.names == ["class 0", "class 1", "class 2"]
    few = pairs.load(places[0], (24, 32), places[1], count=2)
    assert_array_equal(few.maps, found.maps[[0, 2]])
    assert_array_equal(few.photos, found.photos[[0, 2]])


@pytest.mark.parametrize("of_map, of_photo", [
    ("a_gtFine_labelIds.png", "a_leftImg8bit.png"), ("a_L.png", "a.png"), ("a.png", "a.JPG"),
    ("a_label.png", "a_photo.jpeg"), ("x/a.b.png", "y/a.b.jpg"), ("a_mask.png", "a.bmp")])
def test_suffixes(tmp_path, of_map, of_photo):
    kind = {"png": "PNG", "bmp": "BMP"}.get(of_photo[-3:], "JPEG")
    write(tmp_path / "maps", {of_map: encoded(scene())})
    write(tmp_path / "photos", {of_photo: photo(scene(), kind)})
    found = pairs.load(str(tmp_path / "maps"), (24, 32), str(tmp_path / "photos"))
    assert np.abs(found.photos.astype(int) - COLORS[found.maps]).mean() < 15


def test_accents_match_however_they_are_written(tmp_path):
    """macOS writes a letter and its accent as two characters."""
    maps = write(tmp_path / "maps", {"Stra\u00dfe \u00e4.png": encoded(scene())})
    photos = write(tmp_path / "photos", {"Stra\u00dfe a\u0308.png": photo(scene())})
    assert len(pairs.load(str(maps), (24, 32), str(photos)).maps) == 1


def test_folders_tell_apart_what_has_the_same_name(tmp_path):
    """Videos in a folder each, whose frames have the same numbers."""
    names = [f"{video}/{i:04d}" for video in "ab" for i in range(3)]
    write(tmp_path / "maps", {f"{name}.png": encoded(scene(i)) for i, name in enumerate(names)})
    write(tmp_path / "photos", {f"{n}.png": photo(scene(i)) for i, n in enumerate(names)})
    found = pairs.load(tmp_path / "maps", (24, 32), tmp_path / "photos")
    assert_array_equal(found.photos, COLORS[[scene(i) for i in range(6)]])


def test_photos_in_the_folder_of_the_maps(tmp_path):
    write(tmp_path, {"a.png": encoded(scene()), "a.jpg": photo(scene(), "JPEG")})
    assert len(pairs.load(tmp_path, (24, 32), tmp_path).photos) == 1
    write(tmp_path, {"b_label.png": encoded(scene()), "b.png": photo(scene()),
                     "c.png": photo(scene())})
    found = pairs.load(tmp_path, (24, 32), tmp_path, labels="*_label.png")
    assert found.sources == ["b_label.png"], "with --labels photos need no map"
    assert_array_equal(found.photos, COLORS[found.maps])


@pytest.mark.parametrize("size", [(24, 32), (12, 16), (10, 14), (7, 23), (60, 50)])
@pytest.mark.parametrize("scale", [1, 2, 5])
def test_edges_in_photo_and_map_stay_together(tmp_path, size, scale):
    """Where map and resized photo differ, an edge is at most a pixel away."""
    large = np.zeros((96, 128), np.uint8)
    large[31:67, 50:101] = 1
    m = resize_nearest(large, (96 // scale, 128 // scale)) if scale == 2 else large
    enlarged = large.repeat(5, 0).repeat(5, 1) if scale == 5 else large
    write(tmp_path / "maps", {"a.png": encoded(m)})
    write(tmp_path / "photos", {"a.png": encoded(enlarged * np.uint8(255))})
    found = pairs.load(tmp_path / "maps", size, tmp_path / "photos")
    ids, values = found.maps[0], found.photos[0, ..., 0]
    edge = np.pad(ids, 1, mode="edge")
    around = np.stack([edge[a:a + size[0], b:b + size[1]] for a, b in np.ndindex(3, 3)])
    inside = (around == ids).all(0)
    assert inside.any()
    assert_array_equal((values > 127)[inside], ids[inside] == 1)


def test_photos_are_averaged_not_sampled(tmp_path):
    """A fine checkerboard becomes grey; a ramp stays the same ramp."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    ramp = np.broadcast_to(np.arange(64) * 4, (64, 64))
    write(tmp_path / "maps", {f"{name}.png": encoded(scene(0, (64, 64))) for name in "ab"})
    write(tmp_path / "photos", {"a.png": encoded(board.astype(np.uint8)),
                                "b.png": encoded(ramp.astype(np.uint8))})
    found = pairs.load(tmp_path / "maps", (16, 16), tmp_path / "photos").photos.astype(int)
    assert np.abs(found[0] - 127.5).max() < 8
    assert np.abs(found[1, :, 1:-1] - (16 * np.arange(1, 15) + 6)[:, None]).max() <= 1


def test_rotated_and_grey_photos(tmp_path):
    """A camera's note that it was turned counts: the map is upright."""
    image, buffer = Image.fromarray(np.rot90(COLORS[scene()])), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to show
    image.save(buffer, "PNG", exif=exif)
    write(tmp_path / "maps", {f"{name}.png": encoded(scene()) for name in "ab"})
    write(tmp_path / "photos", {"a.png": buffer.getvalue(), "b.png": encoded(scene() * 50)})
    found = pairs.load(tmp_path / "maps", (24, 32), tmp_path / "photos")
    assert_array_equal(found.photos[0], COLORS[scene()])
    assert_array_equal(found.photos[1], np.repeat(scene()[..., None] * 50, 3, -1))


@pytest.mark.skipif(not all(path.exists() for path in CAMVID),
                    reason="CAMVID_LABELS and CAMVID_PHOTOS name no files")
def test_real_street_scenes():
    found = pairs.load(CAMVID[0], (36, 48), CAMVID[1])
    training, held_out = pairs.split(found)
    assert (len(training.maps), len(held_out.maps)) == (561, 140)
    assert 0.2 < pairs.mean_color_error(training, held_out) < 0.4


# ------------------------------------------------------------------ Cityscapes and Facades, by name
def gtfine():
    """(files of gtFine, files of leftImg8bit), as their archives hold them, with smaller images."""
    maps, photos = {}, {}
    for split, city in (("train", "aachen"), ("train", "zurich"), ("val", "lindau")):
        for frame in range(2):
            m = scene(frame, (32, 64), 3) + np.uint8(7)
            stem = f"{split}/{city}/{city}_{frame:06d}_000019"
            maps[f"gtFine/{stem}_gtFine_labelIds.png"] = encoded(m)
            maps[f"gtFine/{stem}_gtFine_color.png"] = encoded(COLORS[m - 7])
            photos[f"leftImg8bit/{stem}_leftImg8bit.png"] = photo(m - 7)
    return {**maps, "README": b""}, {**photos, "license.txt": b""}


@pytest.mark.parametrize("kind", ["zips", "folders", "a folder of zips", "given", "side by side"])
def test_cityscapes(tmp_path, kind):
    """Photos are found beside gtFine, in a .zip or a folder, or where --photos says."""
    maps, photos = gtfine()
    given, root = None, tmp_path / "cityscapes"
    if kind in ("folders", "side by side"):
        write(root, maps | photos)
        where = root / "gtFine" if kind == "folders" else root
        if kind == "side by side":  # in the same folders
            (root / "leftImg8bit").rename(root / "gtFine" / "photos")
    else:
        root.mkdir()
        where = packed(root / "gtFine_trainvaltest.zip", maps)
        (tmp_path / "other").mkdir()
        folder = tmp_path / "other" if kind == "given" else root
        given = packed(folder / "leftImg8bit_trainvaltest.zip", photos)
        given = given if kind == "given" else None
        where = root if kind == "a folder of zips" else [where]
    found = pairs.load("cityscapes", (32, 64), given, data=where)
    assert found.maps.shape == (4, 32, 64) and len(found.names) == 22
    assert_array_equal(found.photos, COLORS[[scene(i % 2, (32, 64), 3) for i in range(4)]])
    val = pairs.load("cityscapes", (16, 32), given, data=where, split="val", classes=19)
    assert val.photos.shape == (2, 16, 32, 3) and len(val.names) == 19
    assert "lindau" in val.sources[0]


@pytest.mark.parametrize("unpacked", [False, True])
def test_cmp_facades(tmp_path, unpacked):
    """cmp_b0001.jpg is the photo of cmp_b0001.png; they differ in size from pair to pair."""
    for part, prefix in ("base", "b"), ("extended", "x"):
        files = {f"{part}/readme.txt": b"CMP"}
        for i in range(1, 4):
            m = scene(i, (40 + 4 * i, 50), 3)
            files[f"{part}/cmp_{prefix}{i:04d}.png"] = encoded(m + np.uint8(1))
            files[f"{part}/cmp_{prefix}{i:04d}.jpg"] = photo(m, "JPEG", quality=95, subsampling=0)
            files[f"{part}/cmp_{prefix}{i:04d}.xml"] = b"<object/>"
        if unpacked:
            write(tmp_path, files)
        else:
            packed(tmp_path / f"CMP_facade_DB_{part}.zip", files)
    found = pairs.load("facades", (40, 50), data=tmp_path)
    assert found.maps.shape == (6, 40, 50) and len(found.names) == 12
    assert np.abs(found.photos.astype(int) - COLORS[found.maps]).mean() < 12
    assert np.abs(found.photos[::-1].astype(int) - COLORS[found.maps]).mean() > 30


@pytest.mark.parametrize("kind", ["tar.gz", "folder"])
def test_pix2pix_facades(tmp_path, kind):
    """The photo is the left half of the JPEG; 1.jpg of train and of val are two."""
    files = {}
    labels = np.array([color for *_, color in data.FACADES], np.uint8)
    for split, seed in ("test", 0), ("train", 1), ("val", 2):
        m = scene(seed, (64, 64), 3)
        pair = np.concatenate([COLORS[m], labels[m]], 1)
        files[f"facades/{split}/1.jpg"] = encoded(pair, "JPEG", quality=95, subsampling=0)
    if kind == "folder":
        place = write(tmp_path / "d", files) / "facades"
    else:
        place = packed(tmp_path / "facades.tar.gz", files)
    found = pairs.load("facades", (64, 64), data=place)
    assert [name.split("/")[-2] for name in found.sources] == ["test", "train", "val"]
    for m, picture, seed in zip(found.maps, found.photos, range(3)):
        assert (m == scene(seed, (64, 64), 3)).mean() > 0.97
        assert np.abs(picture.astype(int) - COLORS[scene(seed, (64, 64), 3)]).mean() < 4
    train = pairs.load("facades", (64, 64), data=place, split="train")
    assert_array_equal(train.photos, found.photos[1:2])


# --------------------------------------------------------------------------- held out, and baseline
def test_stretches_are_held_out():
    """Frames of two videos, whose files lie in three folders: neighbours are seldom parted."""
    names = [f"{video}_{i}.png" for video in "ab" for i in range(100)]
    shuffled = np.random.default_rng(0).permutation(200)
    found = made_of(np.arange(200)[shuffled, None, None] % 3)
    found = found._replace(sources=[f"{i % 3}/{names[i]}" for i in shuffled])
    training, held_out = pairs.split(found)
    assert (len(training.maps), len(held_out.maps)) == (160, 40)
    assert set(training.sources) | set(held_out.sources) == set(found.sources)
    place = sorted(names.index(name.split("/")[1]) for name in held_out.sources)
    assert (np.diff(place) > 1).sum() == 4, "five stretches of neighbours"
    for part in training, held_out:
        places = [names.index(name.split("/")[1]) for name in part.sources]
        assert_array_equal(part.maps.ravel(), np.array(places) % 3)
        assert_array_equal(part.photos, COLORS[part.maps])


@pytest.mark.parametrize("count, share, held", [(2, 0.2, 1), (7, 0.5, 4), (11, 0.9, 10)])
def test_few_pairs_are_split_too(count, share, held):
    training, held_out = pairs.split(made_of(np.zeros((count, 2, 2))), share)
    assert (len(training.maps), len(held_out.maps)) == (count - held, held)


@pytest.mark.parametrize("count, share", [(1, 0.2), (5, 0), (5, 1), (5, float("nan")), (5, 0.95)])
def test_shares_that_leave_nothing(count, share):
    with pytest.raises(InputError, match="--held-out .*expected a share above 0"):
        pairs.split(made_of(np.zeros((count, 2, 2))), share)


def test_the_baseline_by_hand():
    training = made_of([[[0, 0], [1, 1]]])
    training.photos[0, 0] = [[10, 20, 30], [30, 40, 50]]  # mean of class 0: 20 30 40
    held_out = made_of([[[0, 1], [0, 2]]])
    held_out.photos[0, :, 0] = 20, 30, 70  # class 0: errors 0 0 30, twice
    held_out.photos[0, 1, 1] = np.concatenate([training.photos[0]]).mean((0, 1)) + 6
    assert_allclose(pairs.mean_color_error(training, held_out) * 127.5, (2 * 30 + 3 * 6) / 12,
                    atol=0.2)
    exact = made_of([scene(), scene(1)])
    assert pairs.mean_color_error(exact, exact) == 0


# ---------------------------------------------------------------------------------------- bad input
def folders(tmp_path, maps, photos):
    """The arguments of two folders of {name: content}."""
    (tmp_path / "maps").mkdir()
    (tmp_path / "photos").mkdir()
    return dict(dataset=write(tmp_path / "maps", maps), photos=write(tmp_path / "photos", photos))


M, P = encoded(scene()), photo(scene())
BAD = {
    "no photo": (dict(zip(("a.png", "b.png", "c.png"), [M] * 3)), {"a.png": P},
                 r"photos: no photo for 2 of 3 maps, the first .*maps/b.png; expected b.jpg or"),
    "no map": ({"a.png": M}, {"a.png": P, "b.png": P, "c.jpg": P},
               "photos: no map for 2 of 3 photos, the first .*photos/b.png; expected a map"),
    "no photos": ({"a.png": M}, {"a.txt": P}, r"photos: no photos in it \(expected \*.jpg"),
    "twins": ({"a.png": M}, {"a.png": P, "a.jpg": P},
              "photos/a.png: the same name as .*a.jpg|a.jpg: the same name as .*a.png"),
    "proportions": ({"a.png": M}, {"a.png": photo(scene(0, (32, 32)))},
                    r"photos/a.png: 32x32 \(height x width\), but its map is 24x32; expected"),
    "mode": ({"a.png": M}, {"a.jpg": encoded(COLORS[scene()], "JPEG", "CMYK")},
             "photos/a.jpg: image mode CMYK; expected an RGB or grey photo"),
    "alpha": ({"a.png": M}, {"a.png": encoded(np.zeros((24, 32, 4), np.uint8))},
              "photos/a.png: .*transparent; expected"),
    "transparent colour": ({"a.png": M}, {"a.png": encoded(scene(), mode="P", transparency=1)},
                           "photos/a.png: .*transparent; expected"),
    "cut": ({"a.png": M}, {"a.png": P[:-30]}, "photos/a.png: damaged or unreadable image"),
    "text": ({"a.png": M}, {"a.png": b"hello"}, "photos/a.png: not an image"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path, name):
    maps, photos, message = BAD[name]
    options = folders(tmp_path, maps, photos)
    with pytest.raises(InputError, match=message) as caught:
        pairs.load(size=(8, 8), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options, message", [
    (dict(dataset="shapes", photos="x"), "--photos .*not for shapes: the shapes are painted"),
    (dict(dataset="facades", photos="x", data="y"), "not for facades: they lie beside"),
    (dict(dataset="x.zip"), "--dataset x.zip needs --photos PATH"),
    (dict(dataset="x.zip", photos=""), "--photos is empty"),
    (dict(dataset="shapes", count=0), "--count 0: expected 1 or more"),
    (dict(dataset="shapes", seed=-1), "--seed -1: expected 0 or more"),
    (dict(dataset="shapes", void=3), "--void is for maps in files"),
    (dict(dataset="shapes", size=(0, 8)), "--side 0: expected 1"),
    (dict(dataset="cityscapes"), "--dataset cityscapes needs --data"),
    (dict(dataset="no such", photos="x"), "no such: no such folder or archive")])
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        pairs.load(**dict(size=(16, 16)) | options)


def test_bad_archives_of_photos(tmp_path, monkeypatch):
    maps = packed(tmp_path / "m.zip", {"a.png": M})
    with pytest.raises(InputError, match="x.zip: no such folder or archive"):
        pairs.load(maps, (8, 8), tmp_path / "x.zip")
    photos = packed(tmp_path / "p.zip", {"a.png": P})
    content = bytearray(photos.read_bytes())
    content[60] ^= 255
    (tmp_path / "damaged.zip").write_bytes(content)
    with pytest.raises(InputError, match="damaged.zip:a.png: (cannot be read|damaged)"):
        pairs.load(maps, (8, 8), tmp_path / "damaged.zip")
    with pytest.raises(InputError, match="points outside the archive"):
        pairs.load(maps, (8, 8), packed(tmp_path / "q.zip", {"../a.png": P}))
    with pytest.raises(InputError, match="gtFine.zip: no photos beside it; expected leftImg8bit_"):
        pairs.load("cityscapes", (8, 8), data=packed(tmp_path / "gtFine.zip", gtfine()[0]))
    monkeypatch.setattr(archives, "LARGEST_FILE", len(M))
    with pytest.raises(InputError, match="p.zip: the member 'a.png' has .*at most"):
        pairs.load(maps, (8, 8), photos)


def test_decompression_bomb(tmp_path, monkeypatch):
    options = folders(tmp_path, {"a.png": M}, {"a.png": encoded(np.zeros((240, 320), np.uint8))})
    pairs.load(size=(8, 8), **options)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 240 * 320 - 1)
    with pytest.raises(InputError, match="photos/a.png: damaged or unreadable.*bomb"):
        pairs.load(size=(8, 8), **options)


def test_numbers_of_folders_in_names():
    """As many folders as tell all files apart, and no more."""
    def members(*names):
        return [SimpleNamespace(name=name, full=name) for name in names]

    found = pairs_files.match(members("m/x/1_L.png", "m/y/1_L.png"),
                              members("p/y/1.jpg", "p/z/1.jpg", "p/x/1.jpg"), "p", every=False)
    assert found == [2, 0]
    with pytest.raises(InputError, match="no photo for 1 of 1 maps, the first m/1.png; expected 1"):
        pairs_files.match(members("m/1.png"), members("p/2.png"), "p")


# ------------------------------------------------------------------------------------------ command
def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folders(tmp_path, {f"{i}.png": encoded(scene(i)) for i in range(10)},
            {f"{i}.png": photo(scene(i)) for i in range(10)})
    pairs_command.main(["--dataset", "maps", "--photos", "photos", "--size", "24x32"])
    printed = capsys.readouterr().out
    assert "10 pairs of 24x32 (height x width), 3 classes; 8 to train on, 2 held out" in printed
    assert "error 0.0000 on held-out photos" in printed
    assert Image.open("pairs.png").size == (2 * (8 * 33 - 1), 2 * (2 * 25 - 1))
    for flags, message in ((["--out", "x.jpg"], "--out x.jpg: expected a name that ends in .png"),
                           (["--out", "maps/x.png"], "maps/x.png: lies in maps"),
                           (["--out", "photos/x.png"], "photos/x.png: lies in photos"),
                           (["--held-out", "2"], "--held-out 2.0 of 10 pairs: expected"),
                           (["--out", "no/such/x.png"], "no/such/x.png")):
        with pytest.raises(SystemExit):
            pairs_command.main(["--dataset", "maps", "--photos", "photos", *flags])
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_the_module_is_a_program(tmp_path):
    done = subprocess.run([sys.executable, "-m", "experiments.pairs", "--side", "16", "--count",
                           "20", "--out", tmp_path / "x.png"], cwd=ROOT, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "20 pairs of 16x16 (height x width), 4 classes" in done.stdout
    assert Image.open(tmp_path / "x.png").width > 8 * 16
