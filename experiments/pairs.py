"""Pairs of a label map and a photo, to learn the way from the one to the other (pix2pix).

Ghelfi et al. 2019, section 6.1, turn SemGAN's maps into photos with pix2pix (Isola et al. 2016).
The default pairs are made here: Colored Shapes and their painted photos (painter.py). Real pairs
come from any two folders or archives, from Cityscapes and from the CMP Facades.

    python -m experiments.pairs --dataset maps.zip --photos photos.zip   # a picture and the counts
"""
if __name__ == "__main__":  # before all other imports
    from app.start import start
    start()

import re
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

import data as data_sets
from experiments.painter import paint
from formats import archives, memory
from formats.files import InputError
from formats.images import decode
from formats.label_maps import IMAGES, in_order
from formats.settings import shown_size
from kernels.workers import available_cores, thread_map

PHOTOS = (".jpg", ".jpeg", *IMAGES)
# What files of one scene end with, before the extension: of Cityscapes, CamVid, and other tools.
SUFFIX = re.compile("_(gtFine_labelIds|leftImg8bit|labelIds|labels?|mask|seg|L|photo|image|rgb)$")
PARTS = 5  # of the order of names: the end of each is held out


class Pairs(NamedTuple):
    """N label maps of K classes, and the photo of each."""
    maps: np.ndarray     # (N, H, W) uint8
    photos: np.ndarray   # (N, H, W, 3) uint8, RGB
    palette: np.ndarray  # (K, 3) uint8: a colour for each class
    names: list          # K class names
    sources: list        # N names of the maps' files; of painted shapes, numbers


def load(dataset, size, photos=None, seed=0, count=None, data=None, split=None, classes=None,
         palette=None, labels=None, void=None):
    """Pairs of size (height, width), squeezed to it where the proportions differ.

    dataset  "shapes" (painted), "cityscapes", "facades", or a folder, .zip or .tar(.gz) of maps
    photos   folder or archive of the photos. Your own maps need it; Cityscapes' leftImg8bit is
             looked for beside gtFine; the Facades' photos lie beside their maps.
    seed     determines the shapes, their order and their painting
    count    at most so many pairs, from all over the data set (shapes: exactly so many)
    data, split, classes, palette, labels, void: see data.load
    Each map needs a photo of the same name, apart from extensions and suffixes such as _labelIds.
    A photo needs a map too, unless `split` or `labels` picks some of the maps. Raises InputError.
    """
    if count is not None and not 1 <= count < 1 << 20:
        raise InputError(f"--count {count}: expected 1 or more, below {1 << 20}")
    if photos is not None and dataset in ("shapes", "facades"):
        why = "the shapes are painted" if dataset == "shapes" else "they lie beside the maps"
        raise InputError(f"--photos is for cityscapes and your own maps, not for {dataset}: {why}")
    if photos is None and dataset not in data_sets.NAMED:
        raise InputError(f"--dataset {dataset} needs --photos PATH: a folder or archive of photos "
                         "with the same names")
    shapes = dataset == "shapes"
    loaded = data_sets.load(dataset, size[0], seed, data, split, classes, palette=palette,
                            labels=labels, maps=count if shapes else None, void=void, width=size[1])
    n = len(loaded.maps)
    memory.require("the photos", {"--side or --size, and --count": 4 * (count or n) * size[0]
                                  * size[1]})
    if shapes:
        chosen = np.random.default_rng(seed).permutation(n)[:count]
        maps, sources = loaded.maps[chosen], [f"shapes {i:07d}" for i in range(len(chosen))]
        return Pairs(maps, paint(maps, seed), loaded.palette, loaded.names, sources)
    chosen = np.linspace(0, n, min(count or n, n), endpoint=False).astype(int)
    sources = [loaded.sources[i] for i in chosen]
    if dataset == "facades":
        raise InputError("facades: not yet")
    places = [Path(dataset)], [Path(photos)]
    partly = split is not None or labels is not None or dataset != str(dataset)
    found = read_photos(*places, loaded.sources, sources, size, partly)
    return Pairs(loaded.maps[chosen], found, loaded.palette, loaded.names, sources)


# -------------------------------------------------------------------------------- photos from files
def read_photos(map_paths, photo_paths, sources, chosen, size, partly):
    """The photos (N, H, W, 3) uint8 of the N maps named in `chosen`. Raises InputError.

    sources: the names of all maps in map_paths. partly: whether there may be photos without maps.
    """
    with ExitStack() as stack:
        def members(paths, endings):
            patterns = [f"*{end}" for end in endings]
            return [m for p in paths for m in stack.enter_context(archives.opened(p, patterns))]
        maps = {member.name: member for member in members(map_paths, IMAGES)}
        wanted = set(sources)
        photos = [member for member in members(photo_paths, PHOTOS)
                  if photo_paths != map_paths or member.name not in wanted]
        partners = _matched([maps[name] for name in sources], photos, photo_paths, partly)
        places = {partners[name].name: i for i, name in enumerate(chosen)}
        jobs = [(member, places[member.name], maps[chosen[places[member.name]]])
                for member in photos if member.name in places]  # in the archive's own order
        result = np.empty((len(chosen), *size, 3), np.uint8)
        arguments = ((member.full, archives.content(member), of_map.full, archives.content(of_map))
                     for member, _, of_map in jobs)
        with thread_map(available_cores()) as mapped, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            prepared = in_order(mapped, partial(_prepared, size=size), arguments)
            for (_, place, _), photo in zip(jobs, prepared):
                result[place] = photo
    return result


def _matched(maps, photos, photo_paths, partly):
    """{name of a map: Member of its photo}, for Members `maps` and `photos`. Raises InputError."""
    where = ", ".join(map(str, photo_paths))
    if not photos:
        raise InputError(f"{where}: no photos in it (expected {', '.join(PHOTOS)} files)")
    of_map, of_photo = _by_key(maps, "maps"), _by_key(photos, "photos")
    alone = [member for key, member in of_map.items() if key not in of_photo]
    if alone:
        stem = _key(alone[0])
        raise InputError(f"{where}: no photo for {len(alone)} of {len(maps)} maps, the first "
                         f"{alone[0].full}; expected {stem}.jpg or {stem}.png")
    alone = [member for key, member in of_photo.items() if key not in of_map]
    if alone and not partly:
        raise InputError(f"{where}: no map for {len(alone)} of {len(photos)} photos, the first "
                         f"{alone[0].full}; expected as many maps as photos")
    return {member.name: of_photo[key] for key, member in of_map.items()}


def _key(member):
    """What the file of a map and that of its photo have in common: the name without suffixes."""
    return SUFFIX.sub("", PurePosixPath(member.name).stem)


def _by_key(members, kind):
    """{_key: Member}. Raises InputError if two have the same."""
    found = {}
    for member in members:
        other = found.setdefault(_key(member), member)
        if other is not member:
            raise InputError(f"{member.full}: the same name as {other.full}; expected names that "
                             f"tell the {kind} apart, whatever their folder")
    return found


def _prepared(name, content, map_name, map_content, size):
    """The photo (*size, 3) uint8 in an image file, in the proportions of its map, then resized.

    Each pixel is a mean of what it covers, weighted by a Lanczos filter, with the corners where
    formats.images.resize_nearest has them. So edges in photo and map stay together.
    """
    photo = ImageOps.exif_transpose(decode(name, content))
    if photo.mode not in ("RGB", "L", "P"):
        raise InputError(f"{name}: image mode {photo.mode}; expected an RGB or grey photo")
    (w, h), (width, height) = decode(map_name, map_content).size, photo.size
    if abs(w * height - h * width) > max(w + h, width + height) / 2:  # more than rounding does
        raise InputError(f"{name}: {shown_size((height, width))} (height x width), but its map is "
                         f"{shown_size((h, w))}; expected the same proportions")
    return np.asarray(photo.convert("RGB").resize(size[::-1], Image.Resampling.LANCZOS))


# ---------------------------------------------------------------------------- held out
def split(pairs, held_out=0.2):
    """(training Pairs, held-out Pairs): the share `held_out` of all, at least one.

    Neighbouring frames of a video are almost alike; if every fifth were held out, a model could
    remember instead of generalize. So the pairs are ordered by file name, whatever their folder,
    which puts the frames of a video in order; the order is cut into 5 parts, and the end of each
    is held out: long stretches from all over, the same in every run. Raises InputError.
    """
    n = len(pairs.maps)
    total = max(1, round(n * held_out))
    if not (0 < held_out < 1 and total < n):
        raise InputError(f"--held-out {held_out} of {n} pairs: expected a share above 0 that "
                         "leaves at least one pair to train on")
    order = sorted(range(n), key=lambda i: (PurePosixPath(pairs.sources[i]).name, i))
    parts = min(PARTS, total)
    training, held = [], []
    for part, ends in zip(np.array_split(order, parts), np.array_split(range(total), parts)):
        cut = len(part) - len(ends)
        training += part[:cut].tolist()
        held += part[cut:].tolist()
    return _chosen(pairs, training), _chosen(pairs, held)


def _chosen(pairs, places):
    return pairs._replace(maps=pairs.maps[places], photos=pairs.photos[places],
                          sources=[pairs.sources[i] for i in places])


def mean_color_error(training, held_out):
    """The baseline: mean |photo - mean colour of the pixel's class in the training photos|.

    Over all pixels and channels of the held-out photos, colours in [-1, 1] (x / 127.5 - 1). A class
    that no training map has gets the mean colour of all.
    """
    k = len(training.palette)
    sums, pixels = np.zeros((k, 3)), np.zeros(k)
    for m, photo in zip(training.maps, training.photos):
        pixels += np.bincount(m.ravel(), minlength=k)
        sums += np.stack([np.bincount(m.ravel(), photo[..., c].ravel(), k) for c in range(3)], 1)
    overall = sums.sum(0) / pixels.sum()
    colors = np.where(pixels[:, None] > 0, sums / np.maximum(pixels, 1)[:, None], overall)
    errors = [np.abs(photo - colors[m]).mean()
              for m, photo in zip(held_out.maps, held_out.photos)]
    return float(np.mean(errors)) / 127.5


if __name__ == "__main__":
    from experiments.pairs_command import main
    main()
