"""Any folder, .zip or .tar of label maps -> classes, with a cache of the prepared maps.

Three kinds of images are read: grey (their values are class ids), palette-indexed (their indices
are) and RGB, whose colours are those of a palette or are learnt if there are at most 64.
Read `load_maps` first. data.py adds the data sets that have a name.
"""
import functools
import hashlib
import json
import os
import warnings
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from formats import archives, memory
from formats.files import InputError, note, printable, remove_left_over, written
from formats.images import PHOTOS, UNKNOWN, prepare_image
from formats.palettes import color_code, distinct_colors, split_code
from formats.settings import shown_size
from kernels.workers import available_cores, thread_map

IMAGES = (".png", ".bmp", ".gif", ".tif", ".tiff")  # lossless formats: JPEG changes class ids
MOST_CLASSES = 64  # more look like a mistake (255 often marks void pixels) unless asked for
FORMAT = 2         # of the cache; a new number makes the files written before it useless


class LabelMaps(NamedTuple):
    """A data set: N label maps of K classes."""
    maps: np.ndarray      # (N, H, W) uint8
    palette: np.ndarray   # (K, 3) uint8: a colour for each class
    names: list           # K class names
    sources: list = ()    # N names of files, inside their folder or archive
    doubtful: float = 0   # share of pixels whose class is in doubt because of JPEG
    learnt: bool = False  # whether the palette was learnt from the maps' own colours
    invented: list = ()   # classes whose colour was made up, since the maps give them none
    mirrored: bool = False  # whether the second half are the mirror images of the first

    @property
    def classes(self):
        return len(self.palette)

    @property
    def unpaired(self):
        """The maps without pairs of mirror images: by chance the one or the other of each pair."""
        if not self.mirrored:
            return self.maps
        half = len(self.maps) // 2
        chosen = np.random.default_rng(half).integers(0, 2, half) * half + np.arange(half)
        return self.maps[chosen]


# -------------------------------------------------------------- any folder or archive of label maps
def load_maps(paths, size, classes=None, palette=None, names=None, labels=None, crop=False,
              void=None, table=None, choose=None, jpeg=None, least=0, cache=None, survey=None):
    """All label maps in one or several folders, .zip or .tar(.gz) files, by name -> LabelMaps.

    size     (height, width) to resize to; crop: the largest part in the middle of this shape
    classes  K; without it, the palette's length, or the highest id + 1
    palette  (K, 3) uint8, the colours of RGB maps, and the K class `names`
    labels   glob or globs of the files to take; choose: function that picks some of these Members
    void     id of pixels that take the class of the nearest pixel with another id
    table    (256,) uint8, which turns ids into classes
    jpeg     function that decodes a JPEG: (name, bytes) -> (image of ids, share in doubt)
    least    a map without any id of `least` or more is refused as a dummy
    cache    folder for prepared maps
    survey   a list to fill with what `inspect` shows of each map; see data.load
    Raises InputError, and then leaves nothing behind.
    """
    paths = [Path(p) for p in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    known = _known_classes(classes, palette, void)
    if table is not None or known:
        table = _class_table(table, known, void)
    with _members(paths, labels, choose, jpeg) as members, thread_map(available_cores()) as mapped:
        copies = 2 * len(members)  # each map, then all in one array
        memory.require("reading the maps", {"--side or --size": copies * size[0] * size[1]})
        if cache:
            arrays = (a if a is None else a.tolist() for a in (palette, table))
            options = [size, known, labels, bool(crop), void, least, names, *arrays]
            file = _cache_file(Path(cache), paths[0], size, members, options, mapped)
            if found := read_cache(file, (len(members), *size)):
                return found
        # The ids and the colours that are classes; None: any.
        allowed = table, None if palette is None else set(color_code(palette).tolist())
        prepare = functools.partial(prepare_image, size=size, crop=crop, allowed=allowed, void=void,
                                    jpeg=jpeg, survey=survey is not None)
        images = _prepare_all(members, prepare, mapped, paths[0].name, least)
    if jpeg is None:  # facades differ in size by nature
        _note_mixed_sizes(images, size)
    loaded = _to_classes(images, members, paths[0], known, palette, names, table, void, survey)
    if cache:
        write_cache(file, loaded)
    return loaded


def _known_classes(classes, palette, void):
    """The number of classes, if `classes` or the palette gives it. Raises InputError."""
    if palette is not None and classes not in (None, len(palette)):
        raise InputError(f"--classes {classes} does not fit the palette's {len(palette)} colours")
    if classes is not None and not 2 <= classes <= 255:
        raise InputError(f"--classes {classes}: expected 2 to 255")
    known = classes if palette is None else len(palette)
    if void is not None and not 0 <= void <= 255:
        raise InputError(f"--void {void}: expected an id from 0 to 255")
    if void is not None and known and known > 254:
        raise InputError(f"--void {void}: expected at most 254 classes beside it, not {known}")
    return known


@contextmanager
def _members(paths, labels, choose, jpeg):
    """A context with the members of all paths that `labels` match and `choose` picks."""
    patterns = [labels] if isinstance(labels, str) else labels or [f"*{end}" for end in IMAGES]
    with ExitStack() as stack:
        members = []
        for path in paths:
            members += stack.enter_context(archives.opened(path, patterns))
        if not members:
            hint = "; JPEG changes class ids" if jpeg is None else ""
            raise InputError(f"{', '.join(map(str, paths))}: no label maps in it "
                             f"(expected {', '.join(patterns)} files{hint})")
        members = choose(members) if choose else members
        endings = {PurePosixPath(member.name).suffix.lower() for member in members}
        if jpeg is not None and len(endings) > 1:
            raise InputError(f"{paths[0]}: holds both the original and pix2pix's copy; "
                             "expected one of them")
        yield members


def _prepare_all(members, prepare, parallel_map, title, least):
    """All members as Prepared images, in the order of their names."""
    arguments = ((member.full, archives.content(member)) for member in members)
    images = []
    # Warning filters belong to the whole process, so they are set here and not in each thread.
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        prepared = in_order(parallel_map, prepare, arguments)
        for image in _progress(prepared, len(members), f"reading {title}"):
            if max(image.pixels) < least:
                raise InputError(f"{image.name}: a dummy without labels, as Cityscapes publishes "
                                 "for its test split; expected --split train or val")
            images.append(image)
    order = sorted(range(len(members)), key=lambda i: members[i].name)
    return [images[i] for i in order]


def _progress(items, total, title):
    title = printable(title)
    return tqdm(items, title, total, unit=" maps", delay=1, leave=False, disable=None)


def in_order(parallel_map, function, arguments):
    """Yields function(*a) for each a of `arguments`, in order.

    Works on a few at a time, so that memory stays bounded. While they are computed, the next
    ones are read.
    """
    arguments, running = iter(arguments), ()
    while chunk := list(islice(arguments, 2 * available_cores())):
        started = parallel_map(function, *zip(*chunk))
        yield from running
        running = started
    yield from running


def _note_mixed_sizes(images, size):
    first = images[0]
    other = next((image for image in images if image.size != first.size), None)
    if other:
        note(f"mixed sizes (height x width): {first.name} is {shown_size(first.size)}, "
             f"{other.name} is {shown_size(other.size)}; each is resized to {shown_size(size)}")


# ---------------------------------------------------------------------------- raw values -> classes
def _to_classes(images, members, path, known, palette, names, table, void, survey):
    """Prepared images -> LabelMaps: ids or colours become classes."""
    raw = sorted(set().union(*(image.pixels for image in images)))
    rgb = _are_rgb(images, path)
    learnt = rgb and palette is None
    if rgb and not learnt:
        _require_distinct(palette, path)
    if learnt:
        palette = _learn_palette(raw, path, known)
        known = len(palette)
    known = known or _count_classes([value for value in raw if value != void], path, survey)
    if rgb and void is not None and void >= known:
        raise InputError(f"--void {void}: expected 0 to {known - 1}, the place of a colour")
    if known < 2:
        raise InputError(f"{path}: every pixel has class 0; expected at least 2 classes")
    invented = []
    if palette is None:
        own = _own_palette(images, void)
        own = {k: own[k] for k in sorted(own) if k < known}
        palette = distinct_colors(known, own)
        invented = [k for k in range(known) if k not in own]
    palette = np.asarray(palette, np.uint8)
    if table is None:
        table = _class_table(None, known, void)
    classes_of = classifier(palette, table)
    maps = np.empty((len(images), *images[0].small.shape), np.uint8)
    for m, image in zip(maps, images):
        m[:] = _fill_void(image.name, classes_of(image.small), known)
    if survey is not None:
        survey += [_surveyed(image, classes_of) for image in images]
    names = names or [f"class {k}" for k in range(known)]
    return LabelMaps(maps, palette, names, sorted(member.name for member in members),
                     doubtful=float(np.mean([image.doubtful for image in images])), learnt=learnt,
                     invented=invented)


def _class_table(table, classes, void):
    """(256,) uint8: the class of each id, itself unless a table is given. Void is past the last."""
    if table is None:
        table = np.where(np.arange(256) < classes, np.arange(256), UNKNOWN)
    table = table.astype(np.uint8)
    if void is not None:
        table[void] = classes
    return table


def _are_rgb(images, path):
    """Whether the images are RGB. Raises InputError unless all or none are."""
    other = [image.name for image in images if image.small.dtype != images[0].small.dtype]
    if other:
        raise InputError(f"{path}: some maps are RGB and some hold class ids, such as {other[0]}; "
                         f"expected one kind; {PHOTOS}")
    return images[0].small.dtype == np.uint32


def _require_distinct(palette, path):
    """Raises InputError if two classes have the same colour, so that it tells no class."""
    colors = palette.tolist()
    for k, color in enumerate(colors):
        if (first := colors.index(color)) < k:
            raise InputError(f"{path}: RGB maps, but the palette gives classes {first} and {k} the "
                             f"same colour {tuple(color)}; expected one colour per class")


def _learn_palette(raw, path, known):
    """The palette (K, 3) uint8 of the colours that occur. raw: these as 24-bit numbers."""
    if len(raw) > MOST_CLASSES:
        raise InputError(f"{path}: RGB images of {len(raw)} colours, more than {MOST_CLASSES}: "
                         "anti-aliased or compressed? "
                         "Give --palette FILE with one `R G B name` line per class")
    if known and known != len(raw):
        raise InputError(f"{path}: {len(raw)} colours; expected the {known} of --classes")
    return np.array([split_code(code) for code in raw], np.uint8)


def _count_classes(raw, path, survey):
    """K from the ids that occur, in ascending order."""
    highest = max(raw, default=0)
    if highest < MOST_CLASSES:
        return highest + 1
    if survey is None:
        raise InputError(f"{path}: class ids up to {highest}; if {highest} marks pixels without a "
                         f"class, add --void {highest}; for more than {MOST_CLASSES} classes give "
                         "--classes")
    return max((value for value in raw if value < MOST_CLASSES), default=0) + 1


def _own_palette(images, void):
    """id -> colour of palette-indexed images. They must agree, and use no colour twice."""
    own, owner = {}, {}
    for image in images:
        for k in image.pixels if image.colors is not None else ():
            if k == void:
                continue
            color = tuple(image.colors[k].tolist())
            if own.setdefault(k, color) != color:
                raise InputError(f"{image.name}: its palette gives class {k} another colour than "
                                 "the maps before it")
            if owner.setdefault(color, k) != k:
                raise InputError(f"{image.name}: its palette gives classes {owner[color]} and {k} "
                                 f"the same colour {color}; expected one colour per class "
                                 "(--palette FILE can give others)")
    return own


def classifier(palette, table):
    """A function from raw values (...) to class ids, UNKNOWN where a value is no class."""
    codes = color_code(palette)
    order = np.argsort(codes)

    def classes_of(raw):
        if raw.dtype == np.uint8:
            return table[raw]
        place = np.searchsorted(codes, raw, sorter=order).clip(max=len(codes) - 1)
        ids = order[place]
        return np.where(codes[ids] == raw, table[ids], UNKNOWN).astype(np.uint8)

    return classes_of


def _fill_void(name, ids, void):
    """(H, W): void pixels take the class of the nearest pixel that has one.

    void: the id of void pixels, one past the last class.
    """
    is_void = ids == void
    if not is_void.any() or void == UNKNOWN:
        return ids
    if is_void.all():
        raise InputError(f"{name}: every pixel is void; expected some class")
    from scipy import ndimage
    nearest = ndimage.distance_transform_edt(is_void, return_distances=False, return_indices=True)
    return ids[tuple(nearest)]


def _surveyed(image, classes_of):
    """What `inspect` shows of an image: its pixels become [(id or colour, class, number)]."""
    dtype = image.small.dtype
    shown = split_code if dtype == np.uint32 else int
    pixels = [(shown(value), int(classes_of(np.array([value], dtype))[0]), count)
              for value, count in image.pixels.items()]
    return image._replace(small=None, pixels=pixels)


# ----------------------------------------------------------------------- the cache of prepared maps
def _cache_file(folder, path, size, members, options, parallel_map):
    """The path of the prepared maps. Its last part is a hash of all that they depend on."""
    prints = parallel_map(lambda member: (member.name, member.fingerprint()), members)
    prints = sorted(_progress(prints, len(members), f"hashing {path.name}"))
    text = json.dumps([FORMAT, options, prints])
    key = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return folder / f"{path.stem[:40]}-{shown_size(size)}-{key}.npz"


def _key(file):
    return file.stem.rsplit("-", 1)[1]


def read_cache(file, shape):
    """The LabelMaps that write_cache wrote, or None. Nothing in the file is ever executed."""
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            header = json.loads(str(arrays["header"]))
            loaded = LabelMaps(arrays["maps"], arrays["palette"], **header["fields"])
        if header["key"] != _key(file):
            raise ValueError("made from other maps or with other options")
        k = loaded.classes
        fits = (loaded.maps.shape == shape and loaded.palette.shape == (k, 3)
                and loaded.maps.dtype == loaded.palette.dtype == np.uint8
                and loaded.maps.max() < k
                and len(loaded.names) == k and len(loaded.sources) == shape[0])
        if not fits:
            raise ValueError("its arrays do not fit together")
        return loaded
    except Exception as error:  # a damaged zip, array or header fails in many ways
        note(f"{file}: the cache cannot be used ({error or type(error).__name__}); "
             "the maps are prepared again")


def write_cache(file, loaded):
    """Keep LabelMaps for the next start. If that fails, a note says so: it only costs time."""
    fields = loaded._asdict()
    arrays = {name: fields.pop(name) for name in ("maps", "palette")}
    header = json.dumps(dict(key=_key(file), fields=fields))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        remove_left_over(file.parent, age=3600)
        with written(file) as aside:
            np.savez_compressed(aside, **arrays, header=header)
    except OSError as error:
        note(f"{file}: the cache cannot be written ({error.strerror or error}); "
             "the maps will be prepared again next time")
