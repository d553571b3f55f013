"""Label maps: Colored Shapes, and any folder, .zip or .tar of images.

A label map is uint8 (H, W), one class id a pixel; a data set of N maps is (N, side, side) and stays uint8 in memory.
"""
import colorsys
import io
import lzma
import tarfile
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

IMAGES = {".png", ".bmp", ".gif", ".tif", ".tiff"}  # lossless formats: JPEG does not keep class ids
MOST_CLASSES = 64  # more are taken for a mistake (255 often marks void pixels) unless asked for


class InputError(ValueError):
    """Bad input, told in one line: what, where, and what was expected."""


class LabelMaps(NamedTuple):
    maps: np.ndarray     # (N, side, side) uint8
    palette: np.ndarray  # (K, 3) uint8: a colour for each class
    names: list          # K class names

    @property
    def classes(self):
        return len(self.palette)


# ------------------------------------------------------------------------------------ Colored Shapes
def colored_shapes(side=64, seed=0):
    """The paper's toy data set (section 5.0.1): a square, a circle and a rectangle on white, sizes for side 64.

    One map for each position of the 10x10 red square, so 54^2 = 2916 maps. A blue circle of radius 10 and a green
    rectangle 12 wide and 20 high stand anywhere they fit; the rectangle is painted first and the circle last, so that
    it can cover the square. (The rectangle's size and the order are our reading; the paper gives neither.)
    `side` scales everything: side 32 has 27^2 = 729 maps. The same seed gives the same maps on every machine.
    """
    if side < 8:
        raise InputError(f"side {side}: colored shapes need at least 8 pixels")
    square, radius, width, height = (round(size * side / 64) for size in (10, 10, 12, 20))
    rng, y, x = np.random.default_rng(seed), *np.mgrid[:side, :side]
    corners = [(top, left) for top in range(side - square) for left in range(side - square)]
    maps = np.zeros((len(corners), side, side), np.uint8)
    for m, (top, left) in zip(maps, corners):
        cy, cx = rng.integers(radius, side - radius, size=2)
        ry, rx = rng.integers(side - height + 1), rng.integers(side - width + 1)
        m[ry:ry + height, rx:rx + width] = 2
        m[top:top + square, left:left + square] = 3
        m[(y - cy) ** 2 + (x - cx) ** 2 <= radius ** 2] = 1
    palette = np.array([[255, 255, 255], [0, 0, 255], [0, 255, 0], [255, 0, 0]], np.uint8)
    return LabelMaps(maps, palette, ["background", "circle", "rectangle", "square"])


# -------------------------------------------------------------------- any folder or archive of label maps
def load_maps(path, side, classes=None, palette=None):
    """All label maps in a folder (searched recursively), .zip or .tar(.gz), in order of their names, resized to side x side.

    An image is grey (its values are class ids), palette-indexed (its indices are) or RGB, which needs `palette`, (K, 3).
    Without `classes`, K is the palette's length or the highest id + 1. Raises InputError.
    """
    path, maps, own_palette, top = Path(path), {}, {}, 0
    if palette is not None and classes not in (None, len(palette)):
        raise InputError(f"--classes {classes} does not fit the palette's {len(palette)} colours")
    if classes is not None and not 2 <= classes <= 256:
        raise InputError(f"--classes {classes}: expected 2 to 256")
    known, lookup = classes, None
    if palette is not None:  # 24-bit colour -> class id; 255: not in the palette
        known, lookup = len(palette), np.full(1 << 24, 255, np.uint8)
        lookup[_color_code(palette)] = np.arange(len(palette))
    with _opened(path) as (names, read):
        if not names:
            raise InputError(f"{path}: no label maps in it (expected {', '.join(sorted(IMAGES))} files; JPEG blurs class ids)")
        for member in tqdm(names, desc=f"reading {path.name}", unit=" maps", delay=1, leave=False):
            name = f"{path}{'/' if path.is_dir() else ':'}{member}"
            ids, colors = _decode(name, read(member), lookup)
            highest = int(ids.max())
            if known and highest >= known:
                row, column = np.argwhere(ids >= known)[0]
                raise InputError(f"{name}: class id {ids[row, column]} at row {row}, column {column}; "
                                 f"expected ids 0 to {known - 1} ({known} classes)")
            top = max(top, highest)
            if colors is not None:
                for k in np.unique(ids):
                    if own_palette.setdefault(int(k), tuple(colors[k])) != tuple(colors[k]):
                        raise InputError(f"{name}: its palette gives class {k} another colour than the maps before it")
            maps[member] = resize_nearest(ids, side)
    if not known and top >= MOST_CLASSES:
        raise InputError(f"{path}: class ids up to {top}; for more than {MOST_CLASSES} classes give --classes "
                         "(is the highest id a mark for void pixels?)")
    known = known or top + 1
    if known < 2:
        raise InputError(f"{path}: every pixel has class 0; expected at least 2 classes")
    if palette is None:
        palette = distinct_colors(known)
        for k, color in own_palette.items():
            palette[k] = color
    in_order = np.stack([maps[member] for member in sorted(maps)])
    return LabelMaps(in_order, np.asarray(palette, np.uint8), [f"class {k}" for k in range(known)])


def resize_nearest(ids, side):
    """(H, W) -> (side, side): each pixel takes the class at its centre, so that no class is invented."""
    rows, columns = ((2 * np.arange(side) + 1) * size // (2 * side) for size in ids.shape)
    return ids[rows[:, None], columns]


def read_palette(path):
    """A text file with one class a line, `R G B` and an optional name -> (K, 3) uint8. Raises InputError."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable palette ({getattr(error, 'strerror', None) or 'not text'})") from None
    colors = []
    for number, line in enumerate(lines, 1):
        fields = line.split("#")[0].split()
        if fields:
            try:
                color = [int(field) for field in fields[:3]]
            except ValueError:
                color = []
            if len(color) != 3 or not all(0 <= value <= 255 for value in color):
                raise InputError(f"{path}, line {number}: expected `R G B name` with numbers 0 to 255, found {line.strip()!r}")
            if color in colors:
                raise InputError(f"{path}, line {number}: the colour {color} is already class {colors.index(color)}")
            colors.append(color)
    if not 2 <= len(colors) <= 255:
        raise InputError(f"{path}: {len(colors)} colours; expected 2 to 255, one a line as `R G B name`")
    return np.array(colors, np.uint8)


def distinct_colors(classes):
    """(K, 3) uint8: hues in steps of the golden ratio, so that neighbours differ; brightness in three levels."""
    return np.array([[round(255 * v) for v in colorsys.hsv_to_rgb(k * 0.618 % 1, 0.7, (0.95, 0.75, 0.5)[k % 3])]
                     for k in range(classes)], np.uint8)


def _color_code(rgb):
    """(..., 3) uint8 -> (...) 24-bit integers."""
    r, g, b = np.moveaxis(np.asarray(rgb, np.uint32), -1, 0)
    return r << 16 | g << 8 | b


@contextmanager
def _opened(path):
    """(names of the images, in the archive's own order; function name -> bytes). Nothing is ever unpacked to disk."""
    def wanted(name):
        pure = PurePosixPath(name)
        return pure.suffix.lower() in IMAGES and not any(part.startswith((".", "__MACOSX")) for part in pure.parts)

    def checked(name, link=False):
        pure = PurePosixPath(name.replace("\\", "/"))
        if link or pure.is_absolute() or ".." in pure.parts or ":" in name[:2]:
            problem = "is a link" if link else "points outside the archive"
            raise InputError(f"{path}: the member {name!r} {problem}; refused")
        return wanted(name)

    try:
        if path.is_dir():
            files = (file for file in path.rglob("*") if wanted(file.relative_to(path).as_posix()) and file.is_file())
            yield [file.relative_to(path).as_posix() for file in files], lambda name: (path / name).read_bytes()
        elif not path.exists():
            raise InputError(f"{path}: no such folder or archive")
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield [m.filename for m in archive.infolist() if not m.is_dir() and checked(m.filename)], archive.read
        elif tarfile.is_tarfile(path):
            with tarfile.open(path) as archive:
                names = [m.name for m in archive if not m.isdir() and checked(m.name, link=not m.isreg())]
                yield names, lambda name: archive.extractfile(name).read()
        else:
            raise InputError(f"{path}: neither a folder nor a readable .zip or .tar")
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _decode(name, content, lookup):
    """Class ids (H, W) uint8 of one image, and its own palette (256, 3) if it is palette-indexed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
            image.load()
    except UnidentifiedImageError:
        raise InputError(f"{name}: not an image") from None
    except Exception as error:  # a damaged file, or one too large to be true, fails in many ways
        raise InputError(f"{name}: damaged or unreadable image ({error})") from None
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8), None
    if image.mode == "L":
        return np.asarray(image), None
    if image.mode == "P":
        colors = np.zeros((256, 3), np.uint8)
        own = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        colors[:len(own)] = own
        return np.asarray(image), colors
    if image.mode != "RGB":
        raise InputError(f"{name}: image mode {image.mode}; expected 8-bit grey, palette-indexed or RGB without alpha")
    if lookup is None:
        raise InputError(f"{name}: an RGB image; give --palette FILE with one `R G B name` line a class")
    ids = lookup[_color_code(image)]
    if (ids == 255).any():
        row, column = np.argwhere(ids == 255)[0]
        color = tuple(int(v) for v in np.asarray(image)[row, column])
        raise InputError(f"{name}: colour {color} at row {row}, column {column} is not in the palette")
    return ids, None
