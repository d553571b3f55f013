"""Any folder, .zip or .tar of label maps -> classes: archives, images, palettes, and a cache of what was prepared.

Read `load_maps` first; data.py adds the data sets that have a name.
"""
import colorsys
import fnmatch
import functools
import hashlib
import io
import json
import lzma
import os
import sys
import tarfile
import warnings
import zipfile
import zlib
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from formats.files import cache_folder, written  # noqa: F401

IMAGES = (".png", ".bmp", ".gif", ".tif", ".tiff")  # lossless formats: JPEG does not keep class ids
MOST_CLASSES = 64  # more are taken for a mistake (255 often marks void pixels) unless asked for
LARGEST_FILE = 256 << 20  # bytes of one image in an archive; more is a bomb
UNREADABLE = OSError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError
FORMAT = 1  # of the cache: another number makes the files written before it useless
UNKNOWN = 255  # in a table: this id is no class



class InputError(ValueError):
    """Bad input, told in one line: what, where, and what was expected."""

    def __init__(self, text):  # names of files may hold anything, line breaks and terminal codes too
        super().__init__(printable(text))


def printable(text):
    return "".join(c if c.isprintable() else "?" for c in text)


def note(text):
    """What a person should know, and what does not stop the program."""
    print(printable(f"note: {text}"), file=sys.stderr)


class LabelMaps(NamedTuple):
    maps: np.ndarray     # (N, side, side) uint8
    palette: np.ndarray  # (K, 3) uint8: a colour for each class
    names: list          # K class names
    sources: list = ()   # N names of files, inside their folder or archive
    doubtful: float = 0  # share of pixels whose class JPEG left in doubt
    learnt: bool = False  # the palette was learnt from the maps' own colours

    @property
    def classes(self):
        return len(self.palette)


# -------------------------------------------------------------------- any folder or archive of label maps
class Prepared(NamedTuple):
    """One image, resized; what is not yet a class is raw: an id, or a colour as a 24-bit number."""
    name: str
    small: np.ndarray   # (side, side) raw: uint8 ids or uint32 colours
    size: tuple         # (width, height) of the image
    pixels: dict        # raw value -> pixels of the image that have it; of grey maps outside a survey only min and max
    colors: np.ndarray  # (256, 3) uint8 if it is palette-indexed, else None
    doubtful: float     # share of pixels whose class JPEG left in doubt
    changed: float      # share of pixels that the resized map shows as another class


def load_maps(paths, side, classes=None, palette=None, names=None, labels=None, crop=False, table=None, jpeg=None, least=0,
              cache=None, survey=None):
    """All label maps in a folder (searched recursively), .zip or .tar(.gz), or several, in order of their names -> LabelMaps.

    An image is grey (its values are class ids), palette-indexed (its indices are) or RGB: then its colours are those of
    `palette`, (K, 3) uint8, or learnt where there are at most 64. Without `classes`, K is the palette's length or the highest
    id + 1. `labels` are globs of the files to take, `table` (256,) uint8 turns ids into classes, `jpeg` decodes a JPEG (name,
    bytes) to (image of ids, share of doubtful pixels), and a map with no id of `least` or more is refused as a dummy.
    Prepared maps are kept in the folder `cache`. Raises InputError, and then nothing is left behind. `survey`: see data.load.
    """
    paths = [Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    if palette is not None and classes not in (None, len(palette)):
        raise InputError(f"--classes {classes} does not fit the palette's {len(palette)} colours")
    if classes is not None and not 2 <= classes <= 256:
        raise InputError(f"--classes {classes}: expected 2 to 256")
    known = classes if palette is None else len(palette)
    if table is None and known and known < 256:
        table = identity(known)
    patterns = [labels] if isinstance(labels, str) else labels or [f"*{suffix}" for suffix in IMAGES]
    with ExitStack() as stack:
        members = [m for path in paths for m in stack.enter_context(_opened(path, patterns))]  # in an archive's own order
        if not members:
            raise InputError(f"{', '.join(map(str, paths))}: no label maps in it (expected {', '.join(patterns)} files"
                             f"{'; JPEG blurs class ids' if jpeg is None else ''})")
        if jpeg is not None and len({PurePosixPath(name).suffix.lower() for name, *_ in members}) > 1:
            raise InputError(f"{paths[0]}: holds both the original and pix2pix's copy; expected one of them")
        pool = stack.enter_context(ThreadPoolExecutor(os.cpu_count()))  # Pillow decodes without the interpreter's lock
        bar = functools.partial(tqdm, total=len(members), unit=" maps", delay=1, leave=False)
        if cache:
            prints = sorted(bar(pool.map(lambda m: (m[0], m[3]()), members), f"hashing {paths[0].name}"))
            options = [side, known, labels, bool(crop), least, names, *(a if a is None else a.tolist() for a in (palette, table))]
            key = hashlib.blake2b(json.dumps([FORMAT, options, prints]).encode(), digest_size=16).hexdigest()
            file = Path(cache) / f"{paths[0].stem}-{side}-{key}.npz"
            if found := read_cache(file, key, (len(members), side, side)):
                return found
        # Warnings are filtered in this thread, since the filters belong to the whole process.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        allowed = table, None if palette is None else set(color_code(palette).tolist())
        prepare = functools.partial(_prepare, side=side, crop=crop, allowed=allowed, jpeg=jpeg, survey=survey is not None)
        contents = ((full, _content(full, read)) for _, full, read, _ in members)
        images = []
        for one in bar(_in_order(pool, prepare, contents), f"reading {paths[0].name}"):
            if max(one.pixels) < least:
                raise InputError(f"{one.name}: a dummy without labels, as Cityscapes publishes of its test split; "
                                 "expected --split train or val")
            images.append(one)
    names_images = sorted(zip((name for name, *_ in members), images), key=lambda pair: pair[0])
    images = [image for _, image in names_images]
    sizes = {one.size: one.name for one in reversed(images)}
    if len(sizes) > 1 and jpeg is None:  # facades differ in size by nature
        (a, first), (b, second) = list(sizes.items())[-1:-3:-1]
        note(f"mixed sizes: {first} is {a[0]}x{a[1]}, {second} is {b[0]}x{b[1]}; each is resized to {side}x{side}")
    loaded = _to_classes(images, paths[0], known, palette, names, table, survey)
    loaded = loaded._replace(sources=[name for name, _ in names_images])
    if cache:
        write_cache(file, key, loaded)
    return loaded


def _to_classes(images, path, known, palette, names, table, survey):
    """LabelMaps of prepared images: raw ids or colours become classes."""
    raw = sorted(set().union(*(one.pixels for one in images)))
    colored = {one.small.dtype == np.uint32 for one in images}
    if len(colored) > 1:
        raise InputError(f"{path}: some maps are RGB and some hold class ids, such as "
                         f"{next(one.name for one in images if one.small.dtype != images[0].small.dtype)}; expected one kind")
    learnt = palette is None and colored == {True}
    if learnt:
        if len(raw) > MOST_CLASSES:
            raise InputError(f"{path}: RGB images of {len(raw)} colours, more than {MOST_CLASSES}: anti-aliased or compressed? "
                             "Give --palette FILE with one `R G B name` line a class")
        if known and known != len(raw):
            raise InputError(f"{path}: {len(raw)} colours; expected the {known} of --classes")
        palette, known = np.array([[c >> 16, c >> 8 & 255, c & 255] for c in raw], np.uint8), len(raw)
    own = _own_palette(images) if palette is None else {}
    if not known and raw[-1] >= MOST_CLASSES:
        if survey is None:
            raise InputError(f"{path}: class ids up to {raw[-1]}; for more than {MOST_CLASSES} classes give --classes "
                             "(is the highest id a mark for void pixels?)")
        raw = [r for r in raw if r < MOST_CLASSES] or [0]
    known = known or raw[-1] + 1
    if known < 2:
        raise InputError(f"{path}: every pixel has class 0; expected at least 2 classes")
    if palette is None:
        palette = distinct_colors(known)
        for k in own.keys() & set(range(known)):
            palette[k] = own[k]
    table = identity(known) if table is None else table
    codes = color_code(palette)
    order = np.argsort(codes)

    def classes_of(small):  # raw (...) -> class ids, UNKNOWN where a survey met what is none
        if small.dtype == np.uint8:
            return table[small]
        ids = order[np.searchsorted(codes, small, sorter=order).clip(max=known - 1)]
        return np.where(codes[ids] == small, ids, UNKNOWN).astype(np.uint8)

    maps = np.stack([_filled(one.name, classes_of(one.small), known) for one in images])
    if survey is not None:
        raw_dtype = images[0].small.dtype
        survey += [one._replace(small=None, pixels=[(v, int(classes_of(np.array([v], raw_dtype))[0]), n)
                                                    for v, n in one.pixels.items()]) for one in images]
    return LabelMaps(maps, np.asarray(palette, np.uint8), names or [f"class {k}" for k in range(known)],
                     doubtful=float(np.mean([one.doubtful for one in images])), learnt=learnt)


def identity(classes):
    """The table of ids that are classes already."""
    return np.where(np.arange(256) < classes, np.arange(256), UNKNOWN).astype(np.uint8)


def _own_palette(images):
    """id -> colour of palette-indexed images, which must agree and give no colour twice."""
    own, owner = {}, {}
    for one in images:
        for k in one.pixels if one.colors is not None else ():
            color = tuple(one.colors[k].tolist())
            if own.setdefault(k, color) != color:
                raise InputError(f"{one.name}: its palette gives class {k} another colour than the maps before it")
            if owner.setdefault(color, k) != k:
                raise InputError(f"{one.name}: its palette gives classes {owner[color]} and {k} the same colour {color}; "
                                 "expected one colour a class (--palette FILE can give others)")
    return own


def _filled(name, ids, none):
    """(H, W): pixels of the class `none`, one past the last, take the class of the nearest pixel that has one."""
    if not (ids == none).any() or none == UNKNOWN:
        return ids
    if (ids == none).all():
        raise InputError(f"{name}: every pixel is void; expected some class")
    from scipy import ndimage
    return ids[tuple(ndimage.distance_transform_edt(ids == none, return_distances=False, return_indices=True))]


def resize_nearest(ids, side):
    """(H, W, ...) -> (side, side, ...): each pixel takes the class at its centre, so that no class is invented."""
    rows, columns = ((2 * np.arange(side) + 1) * size // (2 * side) for size in ids.shape[:2])
    return ids[rows[:, None], columns]


def _prepare(name, content, side, crop, allowed, jpeg, survey):
    """One image file -> Prepared. `allowed`: the table of ids and the set of colours that are classes, or None: any."""
    image, colors, doubtful = _decode(name, content), None, 0
    if image.format == "JPEG":
        if jpeg is None:
            raise InputError(f"{name}: a JPEG, which blurs class ids; expected a lossless image such as PNG")
        image, doubtful = jpeg(name, content)
    if image.mode == "1":
        image = Image.fromarray(np.asarray(image).astype(np.uint8))
    if image.mode not in ("L", "P", "RGB"):
        raise InputError(f"{name}: image mode {image.mode}; expected 8-bit grey, palette-indexed or RGB without alpha")
    raw = np.asarray(image)  # (H, W) or (H, W, 3)
    if image.mode == "RGB":
        found = image.getcolors(256)
        if found is None:
            raise InputError(f"{name}: an RGB image of more than 256 colours (anti-aliased or compressed?); expected one colour "
                             "a class, or give --palette FILE with one `R G B name` line a class")
        pixels = {int(color_code(color)): count for count, color in found}
    elif image.mode == "P" or survey:
        pixels = {value: count for value, count in enumerate(image.histogram()) if count}
    else:  # ids are numbered without gaps, so their ends tell enough, in a tenth of the time
        pixels = dict.fromkeys((int(raw.min()), int(raw.max())))
    if image.mode == "P":
        colors = np.zeros((256, 3), np.uint8)
        own = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        colors[:len(own)] = own
    table, codes = allowed
    if image.mode == "RGB":
        bad = [] if codes is None else [value for value in pixels if value not in codes]
    else:
        bad = [] if table is None else [value for value in pixels if table[value] == UNKNOWN]
    if bad and not survey:
        _refuse(name, raw, bad, table)
    if crop:
        square = min(raw.shape[:2])
        top, left = ((size - square) // 2 for size in raw.shape[:2])
        raw = raw[top:top + square, left:left + square]
    small, changed = resize_nearest(raw, side), 0
    if survey:  # beside the resized map, blown up again
        rows, columns = (np.arange(size) * side // size for size in raw.shape[:2])
        differs = small[rows[:, None], columns] != raw
        changed = (differs.any(-1) if raw.ndim == 3 else differs).mean()
    return Prepared(name, color_code(small) if raw.ndim == 3 else small, image.size, pixels, colors, doubtful, float(changed))


def _refuse(name, raw, bad, table):
    """The first pixel whose raw value is no class, as an InputError."""
    row, column = np.argwhere(np.isin(color_code(raw) if raw.ndim == 3 else raw, bad))[0].tolist()
    if raw.ndim == 3:
        color = tuple(raw[row, column].tolist())
        raise InputError(f"{name}: colour {color} at row {row}, column {column} is not in the palette")
    good = np.flatnonzero(table != UNKNOWN)
    raise InputError(f"{name}: class id {raw[row, column]} at row {row}, column {column}; "
                     f"expected ids {good[0]} to {good[-1]} ({len(good)} classes)")


def _decode(name, content):
    """A Pillow image, decoded."""
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        return image
    except UnidentifiedImageError:
        raise InputError(f"{name}: not an image") from None
    except Exception as error:  # a damaged file, or one too large to be true, fails in many ways
        raise InputError(f"{name}: damaged or unreadable image ({error})") from None


def _in_order(pool, function, arguments):
    """function(*a) for each a of arguments on all cores, in order and only a few ahead: memory stays bounded."""
    waiting = deque()
    for a in arguments:
        waiting.append(pool.submit(function, *a))
        if len(waiting) > 2 * os.cpu_count():
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def _opened(path, patterns):
    """The files that fit a pattern: [(name, name for messages, function -> bytes, function -> fingerprint of the content)].

    Nothing is ever unpacked to disk.
    """
    def wanted(name):
        hidden = any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
        full = f"/{path.name}/{name}".lower()  # so that a pattern's train/ is also found in a folder train itself
        return not hidden and any(fnmatch.fnmatchcase(full, f"*/{pattern}".lower()) for pattern in patterns)

    def checked(name, size=0, link=False):
        pure = PurePosixPath(name.replace("\\", "/"))
        if link or pure.is_absolute() or ".." in pure.parts or ":" in name[:2]:
            problem = "is a link" if link else "points outside the archive"
            raise InputError(f"{path}: the member {name!r} {problem}; refused")
        if wanted(name) and size > LARGEST_FILE:
            raise InputError(f"{path}: the member {name!r} has {size >> 20} MB; expected {LARGEST_FILE >> 20} at most")
        return wanted(name)

    def once(members):
        double = [name for name, count in Counter(name for name, *_ in members).items() if count > 1]
        if double:
            raise InputError(f"{path}: the member {double[0]!r} is there twice")
        return members

    try:
        if path.is_dir():
            files = ((file.relative_to(path).as_posix(), file) for file in path.rglob("*"))
            yield [(name, f"{path}/{name}", file.read_bytes, lambda file=file: digest(file)) for name, file in sorted(files)
                   if wanted(name) and (file.is_file() or file.is_symlink())]
        elif not path.exists():
            raise InputError(f"{path}: no such folder or archive")
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield once([(m.filename, f"{path}:{m.filename}", functools.partial(archive.read, m),
                             lambda m=m: [m.CRC, m.file_size]) for m in archive.infolist()
                            if not m.is_dir() and checked(m.filename, m.file_size, link=m.external_attr >> 28 == 0o12)])
        elif tarfile.is_tarfile(path):
            whole = functools.cache(lambda: digest(path))
            with tarfile.open(path) as archive:
                yield once([(m.name, f"{path}:{m.name}", lambda m=m: archive.extractfile(m).read(), whole) for m in archive
                            if not m.isdir() and checked(m.name, m.size, link=not m.isreg())])
        else:
            raise InputError(f"{path}: neither a folder nor a readable .zip or .tar")
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _content(name, read):
    try:
        return read()
    except UNREADABLE as error:
        raise InputError(f"{name}: cannot be read ({error})") from None


def digest(path, algorithm="blake2b"):
    """Hash of a file's content."""
    h = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            h.update(block)
    return h.hexdigest()


# ------------------------------------------------------------------------------------------------ palettes
def read_palette(path):
    """A text file with one class a line, `R G B` and an optional name -> (K, 3) uint8 and K names. Raises InputError."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable palette ({getattr(error, 'strerror', None) or 'not text'})") from None
    colors, names = [], []
    for number, line in enumerate(lines, 1):
        fields = line.split("#")[0].split(maxsplit=3)
        if fields:
            try:
                color = [int(field) for field in fields[:3]]
            except ValueError:
                color = []
            if len(color) != 3 or not all(0 <= value <= 255 for value in color):
                raise InputError(f"{path}, line {number}: expected `R G B name` with numbers 0 to 255, found {line.strip()!r}")
            if color in colors:
                raise InputError(f"{path}, line {number}: the colour {color} is already class {colors.index(color)}")
            names.append(fields[3].strip() if len(fields) > 3 else f"class {len(colors)}")
            colors.append(color)
    if not 2 <= len(colors) <= 255:
        raise InputError(f"{path}: {len(colors)} colours; expected 2 to 255, one a line as `R G B name`")
    return np.array(colors, np.uint8), names


def write_palette(path, loaded):
    """The palette as a file that read_palette reads."""
    with written(path) as file:
        for (r, g, b), name in zip(loaded.palette.tolist(), loaded.names):
            file.write(f"{r} {g} {b} {name}\n".encode())


def distinct_colors(classes):
    """(K, 3) uint8: hues in steps of the golden ratio, so that neighbours differ; brightness in three levels."""
    return np.array([[round(255 * v) for v in colorsys.hsv_to_rgb(k * 0.618 % 1, 0.7, (0.95, 0.75, 0.5)[k % 3])]
                     for k in range(classes)], np.uint8)


def color_code(rgb):
    """(..., 3) uint8 -> (...) uint32, 24-bit numbers."""
    r, g, b = np.moveaxis(np.asarray(rgb, np.uint32), -1, 0)
    return r << 16 | g << 8 | b


# --------------------------------------------------------------------------------------------------- cache
def read_cache(file, key, shape):
    """LabelMaps that write_cache wrote for this key, or None. Nothing in the file is ever executed."""
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            loaded = LabelMaps(arrays["maps"], arrays["palette"], **(header := json.loads(str(arrays["header"])))["fields"])
        k = loaded.classes
        if header["key"] != key:
            raise ValueError("made from other maps or with other options")
        if not (loaded.maps.shape == shape and loaded.maps.dtype == loaded.palette.dtype == np.uint8 and loaded.maps.max() < k
                and loaded.palette.shape == (k, 3) and len(loaded.names) == k and len(loaded.sources) == shape[0]):
            raise ValueError("its arrays do not fit together")
        return loaded
    except Exception as error:  # a damaged zip, array or header fails in many ways
        note(f"{file}: not a cache that can be used ({error or type(error).__name__}); it is made anew")


def write_cache(file, key, loaded):
    """Written aside, then renamed: at any moment `file` is whole or absent. A full disk costs only the next start's time."""
    fields = {name: value for name, value in loaded._asdict().items() if name not in ("maps", "palette")}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with written(file) as aside:
            np.savez_compressed(aside, maps=loaded.maps, palette=loaded.palette, header=json.dumps(dict(key=key, fields=fields)))
    except OSError as error:
        note(f"{file}: the cache cannot be written ({error.strerror or error}); the maps will be prepared again next time")
