"""Photos in folders and archives: where they lie, which belongs to which map, and reading them.

The maps come from data.load. Here we find the photo of each by its name, and resize it so that its
edges stay where the map has them.
"""
import io
import os
import re
import unicodedata
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from data import NAMED, find_archives
from formats import archives
from formats.files import InputError, printable
from formats.images import decode
from formats.label_maps import IMAGES, in_order
from formats.settings import shown_size
from kernels.workers import available_cores, thread_map

PHOTOS = (".jpg", ".jpeg", *IMAGES)
LEFT = "leftImg8bit"  # Cityscapes' name for photos: of the left camera, with 8 bits
# What files of one scene end with, before the extension: of Cityscapes, CamVid, and other tools.
SUFFIX = re.compile(f"_(gtFine_labelIds|{LEFT}|labelIds|labels?|mask|seg|L|photo|image|rgb)$")


class Places(NamedTuple):
    """Where maps and photos lie."""
    maps: list          # paths of folders and archives
    photos: list        # the same; some may be both
    ending: str = ""    # of the photos' names, before the extension
    every: bool = True  # whether each photo must have a map
    both: bool = False  # whether a file can be both: pix2pix's JPEG `photo | labels`


# ---------------------------------------------------------------------------------- where they lie
def find_places(dataset, photos=None, data=None, labels=None):
    """The Places of a data set in files; the arguments are those of pairs.load.

    Raises InputError if Cityscapes' photos are not beside its maps.
    """
    if dataset not in NAMED:
        return Places([Path(dataset)], [Path(photos)], every=labels is None)
    maps = find_archives(dataset, data)
    if dataset == "facades":
        return Places(maps, maps, every=False, both=True)
    found = _street_photos(photos, data) or [path for path in maps if path.is_dir()]
    if not found:
        raise InputError(f"{maps[0]}: no photos beside it; expected {LEFT}_trainvaltest.zip or its "
                         f"unpacked folder {LEFT} there, or --photos PATH")
    return Places(maps, found, f"_{LEFT}", every=False)


def _street_photos(photos, data):
    """Paths of Cityscapes' photos: `photos`, or what lies in or beside the paths `data`."""
    given = [data] if isinstance(data, (str, os.PathLike)) else data
    near = [folder for path in given for folder in (Path(path), Path(path).absolute().parent)]
    for name in f"{LEFT}_trainvaltest.zip", LEFT:
        found = [folder / name for folder in ([Path(photos)] if photos else near)]
        if found := [path.absolute() for path in found if path.exists()]:
            return list(dict.fromkeys(found))
    return [Path(photos)] if photos else []


# --------------------------------------------------------------------------- which belongs to which
def read_photos(places, sources, chosen, size):
    """The photos (len(chosen), *size, 3) uint8 of the maps sources[i] for each i of `chosen`.

    sources: the names of all maps, inside their folder or archive. size: (height, width).
    Raises InputError.
    """
    with ExitStack() as stack:
        def members(paths, patterns):
            return [member for path in paths
                    for member in stack.enter_context(archives.opened(path, patterns))]

        maps = members(places.maps, [f"*{end}" for end in (PHOTOS if places.both else IMAGES)])
        at = {member.name: i for i, member in enumerate(maps)}
        of_maps = [maps[at[name]] for name in sources]
        patterns = [f"*{places.ending}{end}" for end in (PHOTOS[:1] if places.both else PHOTOS)]
        own = () if places.both else {member.full for member in of_maps}
        photos = [m for m in members(places.photos, patterns) if m.full not in own]
        where = ", ".join(map(str, places.photos))
        if not photos:
            raise InputError(f"{where}: no photos in it (expected {', '.join(patterns)} files)")
        partners = match(of_maps, photos, where, places.every)
        # Each archive is read in its own order: to go back in a .tar.gz takes long.
        sizes = {i: _size(of_maps[i]) for i in sorted(chosen, key=lambda i: at[sources[i]])}
        order = sorted(range(len(chosen)), key=lambda j: partners[chosen[j]])
        jobs = [(photos[partners[i]], of_maps[i], sizes[i]) for i in (chosen[j] for j in order)]
        result = np.empty((len(chosen), *size, 3), np.uint8)
        for j, photo in zip(order, _prepare_all(jobs, size, where)):
            result[j] = photo
    return result


def match(maps, photos, where, every=True):
    """For each of the Members `maps` the place of its photo in the Members `photos`.

    A file's key is its name without extension and suffix, and as many folders before it as it takes
    to tell all maps and their photos apart. every: whether each photo must have a map.
    Raises InputError.
    """
    for folders in range(16):
        of_maps = _by_key(maps, folders)
        of_photos = _by_key(photos, folders)
        shared = [found for key, found in of_photos.items() if key in of_maps]
        twins = next((found for found in (*of_maps.values(), *shared) if len(found) > 1), None)
        if not twins:
            break
    else:
        one, two, *_ = twins
        raise InputError(f"{two.full}: the same name as {one.full}; expected names that tell the "
                         "maps apart, and the photos")
    alone = [(key, found[0]) for key, found in of_maps.items() if key not in of_photos]
    if alone:
        key, first = alone[0]
        raise InputError(f"{where}: no photo for {len(alone)} of {len(maps)} maps, the first "
                         f"{first.full}; expected {key}.jpg or {key}.png")
    alone = [member for key, found in of_photos.items() if key not in of_maps for member in found]
    if alone and every:
        raise InputError(f"{where}: no map for {len(alone)} of {len(photos)} photos, the first "
                         f"{alone[0].full}; expected a map for each, or --labels GLOB to pick "
                         "some of the maps")
    place = {member.full: i for i, member in enumerate(photos)}
    return [place[of_photos[key][0].full] for key in of_maps]


def _by_key(members, folders):
    """{key: Members that have it}, in their order. folders: how many of them are in the key."""
    found = {}
    for member in members:
        path = PurePosixPath(member.name)
        key = "/".join([*path.parts[-1 - folders:-1], SUFFIX.sub("", path.stem)])
        key = unicodedata.normalize("NFC", key)  # macOS writes accents as characters of their own
        found.setdefault(key, []).append(member)
    return found


# ---------------------------------------------------------------------------------- reading photos
def _size(member):
    """(height, width) of the map in a file, which data.load has read already. Raises InputError."""
    width, height = Image.open(io.BytesIO(archives.content(member))).size
    return height, width


def _prepare_all(jobs, size, title):
    """Yields _prepared for each (Member of a photo, Member of its map, size of that) of `jobs`.

    Works on all cores. Raises InputError.
    """
    arguments = ((photo.full, archives.content(photo), of_map.full, map_size)
                 for photo, of_map, map_size in jobs)
    with thread_map(available_cores()) as mapped, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        prepared = in_order(mapped, partial(_prepared, size=size), arguments)
        yield from tqdm(prepared, printable(f"reading {Path(title).name}"), len(jobs), delay=1,
                        unit=" photos", leave=False, disable=None)


def _prepared(name, content, map_name, map_size, size):
    """The photo (*size, 3) uint8 in an image file. Raises InputError.

    Each pixel is a mean of what it covers, weighted by a Lanczos filter. The corners stay where
    formats.images.resize_nearest leaves those of the map, and so do edges, within a pixel.
    map_size: (height, width) in the map's file, whose proportions the photo must have.
    """
    photo = ImageOps.exif_transpose(decode(name, content))
    if photo.mode == "P" and "transparency" in photo.info:
        photo = photo.convert("RGBA")
    if photo.mode not in ("RGB", "RGBA", "L", "LA", "P"):
        raise InputError(f"{name}: image mode {photo.mode}; expected an RGB or grey photo")
    if photo.mode[-1] == "A" and photo.getchannel("A").getextrema()[0] < 255:
        raise InputError(f"{name}: it is partly transparent; expected an opaque photo")
    if name == map_name:  # pix2pix's JPEG `photo | labels`
        photo = photo.crop((0, 0, photo.width // 2, photo.height))
        map_size = photo.height, photo.width
    height, width = map_size
    difference = abs(width * photo.height - height * photo.width)
    if difference > max(height + width, photo.height + photo.width) / 2:  # more than by rounding
        raise InputError(f"{name}: {shown_size((photo.height, photo.width))} (height x width), but "
                         f"its map is {shown_size(map_size)}; expected the same proportions")
    return np.asarray(photo.convert("RGB").resize(size[::-1], Image.Resampling.LANCZOS))
