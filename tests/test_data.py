"""Label maps: Colored Shapes, folders and archives, palettes, and every kind of bad input."""
import hashlib
import io
import os
import tarfile
import zipfile

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import data
import label_maps
import metrics

CAMVID = ROOT.parent / "shared" / "data" / "camvid_labels.zip"
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


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return folder


# -------------------------------------------------------------------------------------- Colored Shapes
@pytest.mark.parametrize("side, digest", [(64, "978b14644a5ed06c"), (32, "816d0f0424bbf67f")])
def test_colored_shapes_are_the_same_everywhere(side, digest):
    maps = data.colored_shapes(side).maps
    assert hashlib.sha256(maps.tobytes()).hexdigest()[:16] == digest
    assert np.array_equal(maps, data.colored_shapes(side, 0).maps) and not np.array_equal(maps, data.colored_shapes(side, 1).maps)


@pytest.mark.parametrize("side, count", [(64, 54 ** 2), (32, 27 ** 2), (16, 14 ** 2)])
def test_colored_shapes_follow_the_paper(side, count):
    dataset = data.colored_shapes(side)
    maps, scale = dataset.maps, side / 64
    assert maps.shape == (count, side, side) and maps.dtype == np.uint8 and dataset.classes == 4
    areas = metrics.class_areas(maps, 4)
    circle = sum((y ** 2 + x ** 2 <= round(10 * scale) ** 2) for y in range(-20, 21) for x in range(-20, 21))
    assert (areas[:, 1] == circle).all(), "the circle is painted last, so it is always whole"
    assert areas[:, 3].max() == round(10 * scale) ** 2
    if side == 64:
        assert areas[:, 3].min() == 0, "the circle can cover the square completely"
    assert areas[:, 2].max() == round(12 * scale) * round(20 * scale)
    # One map for each position of the square: where it is whole, its corner is the map's place in the grid.
    positions = round(count ** 0.5)
    for i in np.flatnonzero(areas[:, 3] == areas[:, 3].max())[::7]:
        rows, columns = np.nonzero(maps[i] == 3)
        assert (rows.min(), columns.min()) == divmod(i, positions)
    np.testing.assert_array_equal(dataset.palette[[1, 2, 3]], [[0, 0, 255], [0, 255, 0], [255, 0, 0]])


def test_too_small_shapes():
    with pytest.raises(data.InputError, match="at least 8"):
        data.colored_shapes(4)


# ------------------------------------------------------------------------------- folders and archives
def test_folder_zip_and_tar_give_the_same(tmp_path):
    folder = write(tmp_path / "maps", a__png=png(ids(0)), c__png=png(ids(2)))
    write(folder / "deeper", b__png=png(ids(1)))
    write(folder, notes__txt=b"no image", photo__jpg=b"passed over")
    with zipfile.ZipFile(tmp_path / "maps.zip", "w") as z, tarfile.open(tmp_path / "maps.tar.gz", "w:gz") as t:
        for file in sorted(folder.rglob("*.*"), reverse=True):
            z.write(file, file.relative_to(folder))
            t.add(file, file.relative_to(folder))
    results = [data.load_maps(tmp_path / name, 16) for name in ("maps", "maps.zip", "maps.tar.gz")]
    assert results[0].maps.shape == (3, 16, 16) and results[0].classes == 3
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].maps, other.maps)
    np.testing.assert_array_equal(results[0].maps[0], label_maps.resize_nearest(ids(0), 16))


def test_grey_indexed_and_rgb_give_the_same_ids(tmp_path):
    m = ids()
    write(tmp_path / "grey", a__png=png(m))
    write(tmp_path / "indexed", a__png=png(m, palette=PALETTE))
    write(tmp_path / "rgb", a__png=png(PALETTE[m]))
    (tmp_path / "palette.txt").write_text("10 20 30 sky  # a comment\n\n200 0 0 roof\n0 200 0 tree\n")
    palette = data.read_palette(tmp_path / "palette.txt")[0]
    grey, indexed = data.load_maps(tmp_path / "grey", 8), data.load_maps(tmp_path / "indexed", 8)
    rgb = data.load_maps(tmp_path / "rgb", 8, palette=palette)
    for found in indexed, rgb:
        np.testing.assert_array_equal(found.maps, grey.maps)
        np.testing.assert_array_equal(found.palette, PALETTE)
    assert len(np.unique(grey.palette, axis=0)) == 3
    bilevel = write(tmp_path / "bilevel", a__png=png((m % 2 * 255).astype(np.uint8), "1"))
    assert data.load_maps(bilevel, 8).classes == 2


def test_palettes_that_were_trimmed_to_the_colours_in_use(tmp_path):
    few, more = np.array([[0, 1]], np.uint8), np.array([[0, 1, 2]], np.uint8)
    write(tmp_path, a__png=png(few, palette=PALETTE[:2]), b__png=png(more, palette=PALETTE))
    np.testing.assert_array_equal(data.load_maps(tmp_path, 4).palette, PALETTE)


def test_resize_takes_pixel_centres():
    m = np.arange(36, dtype=np.uint8).reshape(6, 6)
    np.testing.assert_array_equal(label_maps.resize_nearest(m, 2), [[7, 10], [25, 28]])
    np.testing.assert_array_equal(label_maps.resize_nearest(m, 6), m)
    assert label_maps.resize_nearest(m[:1, :2], 4).tolist() == [[0, 0, 1, 1]] * 4
    large = ids(3, (1024, 2048), 34)
    small = label_maps.resize_nearest(large, 128)
    np.testing.assert_array_equal(small, np.asarray(Image.fromarray(large).resize((128, 128), Image.NEAREST)))
    assert set(np.unique(small)) <= set(np.unique(large))


def test_distinct_colors():
    for k in (2, 12, 34, 64):
        colors = label_maps.distinct_colors(k).astype(int)
        gaps = abs(colors[:, None] - colors[None]).max(-1) + 255 * np.eye(k, dtype=int)
        assert colors.shape == (k, 3) and gaps.min() >= 8


@pytest.mark.skipif(not CAMVID.exists(), reason="the street scenes are not here")
def test_real_street_scenes():
    dataset = data.load_maps(CAMVID, 32)
    assert dataset.maps.shape == (701, 32, 32) and dataset.classes == 12
    share = metrics.class_areas(dataset.maps, 12).mean(0) / 32 ** 2
    assert share[3] > 0.2 and share[1] > 0.15 and share[10] < 0.01  # road, building, bicyclist


# -------------------------------------------------------------------------------------------- bad input
def truncated(folder):
    write(folder, good__png=png(ids()), half__png=png(ids(1))[:-60])


def rgb_off_palette(folder):
    picture = PALETTE[ids()]
    picture[4, 9] = 1, 2, 3
    write(folder, a__png=png(picture))


def archive_member(name, link=False):
    def make(folder):
        folder.mkdir()
        if link:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
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
    """A zip whose index is fine and whose content is not: the checksum tells."""
    path = archive_member("m.png")(folder)
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)
    return path


BAD = {
    "missing": (lambda f: None, {}, "no such folder or archive"),
    "empty folder": (lambda f: f.mkdir(), {}, "no label maps"),
    "no images": (lambda f: write(f, a__txt=b"x", b__jpg=b"x"), {}, "no label maps.*JPEG"),
    "a file that is no archive": (lambda f: write(f, x__bin=b"hello") / "x.bin", {}, "neither a folder nor"),
    "truncated png": (truncated, {}, "half.png: damaged"),
    "zero bytes": (lambda f: write(f, a__png=b""), {}, "a.png: not an image"),
    "text named png": (lambda f: write(f, a__png=b"just text"), {}, "a.png: not an image"),
    "id beyond K": (lambda f: write(f, a__png=png(ids(classes=5))), dict(classes=4), "a.png: class id 4 at row 0, column 4"),
    "void marked 255": (lambda f: write(f, a__png=png(np.array([[0, 255]], np.uint8))), {}, "ids up to 255.*--classes"),
    "one class": (lambda f: write(f, a__png=png(np.zeros((4, 4), np.uint8))), {}, "at least 2 classes"),
    "colour off the palette": (rgb_off_palette, dict(palette=PALETTE), r"a.png: colour \(1, 2, 3\) at row 4, column 9"),
    "a photo": (lambda f: write(f, a__png=png(np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8))), {},
                "a.png: an RGB image of more than 256.*--palette"),
    "palette and classes": (lambda f: write(f, a__png=png(ids())), dict(palette=PALETTE, classes=5), "--classes 5.*3 colours"),
    "alpha": (lambda f: write(f, a__png=png(PALETTE[ids()], "RGBA")), dict(palette=PALETTE), "a.png: image mode RGBA"),
    "16 bits": (lambda f: write(f, a__png=png(ids().astype(np.uint16) * 300)), {}, "a.png: image mode I;16"),
    "two palettes": (lambda f: write(f, a__png=png(ids(), palette=PALETTE), b__png=png(ids(), palette=PALETTE[::-1].copy())), {},
                     "png: its palette gives class 0 another colour"),
    "zip member outside": (archive_member("../evil.png"), {}, r"'\.\./evil.png' points outside"),
    "zip member absolute": (archive_member("/tmp/evil.png"), {}, "points outside"),
    "zip member on a drive": (archive_member("C:\\evil.png"), {}, "points outside"),
    "zip member without a name": (archive_member("."), {}, "no label maps"),
    "tar link": (archive_member("a.png", link=True), {}, "'a.png' is a link"),
    "zip breaks off": (half_archive("zip"), {}, "x.zip"),
    "tar breaks off": (half_archive("tar.gz"), {}, "x.tar.gz"),
    "damaged member": (damaged_member, {}, "x.zip"),
    "damaged tar.xz": (half_archive("tar.xz"), {}, "x.tar.xz"),
    "classes": (lambda f: write(f, a__png=png(ids())), dict(classes=300), "--classes 300: expected 2 to 256"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(tmp_path, name):
    make, options, message = BAD[name]
    path = make(tmp_path / "d")
    path = path if path is not None and not os.path.isdir(path) else tmp_path / "d"
    with pytest.raises(data.InputError, match=message) as error:
        data.load_maps(path, 8, **options)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value) or "--classes" in str(error.value)


def test_decompression_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(data.InputError, match="a.png: damaged or unreadable"):
        data.load_maps(write(tmp_path, a__png=png(ids())), 8)


@pytest.mark.parametrize("text, message", [("1 2\n3 4 5\n", "line 1: expected"), ("1 2 3\n1 2 300\n", "line 2: expected"),
                                           ("1 2 3 a\n4 5 6\n1 2 3 b\n", "line 3: the colour .* already class 0"),
                                           ("", "0 colours"),
                                           ("red green blue\n", "line 1"), (None, "not a readable palette")])
def test_bad_palettes(tmp_path, text, message):
    path = tmp_path / "palette.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(data.InputError, match=message):
        data.read_palette(path)
