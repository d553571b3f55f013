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
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

import data as data_sets
from experiments.painter import paint
from experiments.pairs_files import find_places, read_photos
from formats import memory
from formats.files import InputError

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
    Each photo needs a map too, except where Cityscapes' or Facades' `split`, or `labels`, picks
    some of the maps. Raises InputError, TooLarge.
    """
    _check_options(dataset, photos, seed, count)
    shapes = dataset == "shapes"
    loaded = data_sets.load(dataset, size[0], seed, data, split, classes, palette=palette,
                            labels=labels, maps=count if shapes else None, void=void, width=size[1])
    n = len(loaded.maps)
    count = min(count or n, n)
    memory.require("reading the photos", {
        "--side or --size, and --count": 4 * count * size[0] * size[1]})
    if shapes:
        chosen = np.random.default_rng(seed).permutation(n)[:count]
        maps, sources = loaded.maps[chosen], [f"shapes {i:07d}" for i in range(count)]
        return Pairs(maps, paint(maps, seed), loaded.palette, loaded.names, sources)
    chosen = [i * n // count for i in range(count)]
    places = find_places(dataset, photos, data, labels)
    found = read_photos(places, loaded.sources, chosen, size)
    sources = [loaded.sources[i] for i in chosen]
    return Pairs(loaded.maps[chosen], found, loaded.palette, loaded.names, sources)


def _check_options(dataset, photos, seed, count):
    """Raises InputError for options that do not go with this data set."""
    for flag, value, least, end in (("seed", seed, 0, 1 << 31), ("count", count, 1, 1 << 20)):
        if value is not None and not least <= value < end:
            raise InputError(f"--{flag} {value}: expected {least} or more, below {end}")
    if photos == "":
        raise InputError("--photos is empty: expected a folder or an archive")
    if photos is not None and dataset in ("shapes", "facades"):
        why = "the shapes are painted" if dataset == "shapes" else "they lie beside the maps"
        raise InputError(f"--photos is for cityscapes and your own maps, not for {dataset}: {why}")
    if photos is None and dataset not in data_sets.NAMED:
        raise InputError(f"--dataset {dataset} needs --photos PATH: a folder, .zip or .tar of "
                         "photos with the same names")


# --------------------------------------------------------------------------- held out, baseline
def split(pairs, held_out=0.2):
    """(training Pairs, held-out Pairs): the share `held_out` of all, at least one.

    Neighbouring frames of a video are almost alike. If every fifth were held out, a network could
    remember instead of generalize. So we hold out long stretches: the pairs are put in the order of
    their file names, whatever their folder, which is the order of a video's frames; it is cut into
    5 parts, and the end of each is held out. All runs hold out the same. Raises InputError.
    """
    n = len(pairs.maps)
    total = max(1, round(n * held_out)) if 0 < held_out < 1 else n
    if total >= n:
        raise InputError(f"--held-out {held_out} of {n} pairs: expected a share above 0 that "
                         "leaves at least one pair to train on")
    parts = min(PARTS, total)
    training, held = [], []
    for part, ends in zip(np.array_split(_by_name(pairs.sources), parts),
                          np.array_split(range(total), parts)):
        cut = len(part) - len(ends)
        training += part[:cut].tolist()
        held += part[cut:].tolist()
    return _chosen(pairs, training), _chosen(pairs, held)


def _by_name(sources):
    """The places of file names in their order; folders count only where names occur twice.

    Numbers are compared as numbers: frame9 comes before frame10.
    """
    names = [PurePosixPath(name).name for name in sources]
    if len(set(names)) < len(names):
        names = sources
    keys = [re.sub(r"\d+", lambda digits: digits[0].zfill(20), name) for name in names]
    return sorted(range(len(keys)), key=keys.__getitem__)


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
