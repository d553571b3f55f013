"""The named data sets: Colored Shapes, Cityscapes and CMP Facades. `load` also takes any path.

A label map is uint8 (H, W), one class id per pixel. A data set of N maps is (N, H, W) and
stays uint8 in memory. formats/label_maps.py reads the files. Two commands to run before training:

    python data.py inspect --dataset maps.zip     # a picture of 16 maps and the class frequencies
    python data.py facades --download             # fetches the CMP Facades
"""
if __name__ == "__main__":  # before all other imports
    from app.start import start
    start()

import functools
import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from formats import memory
from formats.files import InputError, cache_folder, command, note
from formats.images import UNKNOWN
from formats.label_maps import LabelMaps, load_maps
from formats.palettes import read_palette

# https://www.cityscapes-dataset.com
# Row number = id in *_labelIds.png: name, trainId (255: not evaluated), colour.
CITYSCAPES = [
    ("unlabeled", 255, (0, 0, 0)), ("ego vehicle", 255, (0, 0, 0)),
    ("rectification border", 255, (0, 0, 0)), ("out of roi", 255, (0, 0, 0)),
    ("static", 255, (0, 0, 0)), ("dynamic", 255, (111, 74, 0)), ("ground", 255, (81, 0, 81)),
    ("road", 0, (128, 64, 128)), ("sidewalk", 1, (244, 35, 232)), ("parking", 255, (250, 170, 160)),
    ("rail track", 255, (230, 150, 140)), ("building", 2, (70, 70, 70)),
    ("wall", 3, (102, 102, 156)), ("fence", 4, (190, 153, 153)),
    ("guard rail", 255, (180, 165, 180)), ("bridge", 255, (150, 100, 100)),
    ("tunnel", 255, (150, 120, 90)), ("pole", 5, (153, 153, 153)),
    ("polegroup", 255, (153, 153, 153)), ("traffic light", 6, (250, 170, 30)),
    ("traffic sign", 7, (220, 220, 0)), ("vegetation", 8, (107, 142, 35)),
    ("terrain", 9, (152, 251, 152)), ("sky", 10, (70, 130, 180)), ("person", 11, (220, 20, 60)),
    ("rider", 12, (255, 0, 0)), ("car", 13, (0, 0, 142)), ("truck", 14, (0, 0, 70)),
    ("bus", 15, (0, 60, 100)), ("caravan", 255, (0, 0, 90)), ("trailer", 255, (0, 0, 110)),
    ("train", 16, (0, 80, 100)), ("motorcycle", 17, (0, 0, 230)), ("bicycle", 18, (119, 11, 32))]

# https://cmp.felk.cvut.cz/~tylecr1/facade
# Row number = id - 1: name, colour of the original, colour of pix2pix's copy.
FACADES = [
    ("background", (0, 0, 170), (0, 0, 223)), ("facade", (0, 0, 255), (0, 48, 255)),
    ("window", (0, 85, 255), (0, 128, 255)), ("door", (0, 170, 255), (0, 207, 255)),
    ("cornice", (0, 255, 255), (32, 255, 223)), ("sill", (85, 255, 170), (112, 255, 143)),
    ("balcony", (170, 255, 85), (191, 255, 64)), ("blind", (255, 255, 0), (255, 239, 0)),
    ("deco", (255, 170, 0), (255, 159, 0)), ("molding", (255, 85, 0), (255, 80, 0)),
    ("pillar", (255, 0, 0), (255, 0, 0)), ("shop", (170, 0, 0), (175, 0, 0))]

SPLITS = ("train", "val", "test")
NAMED = ("shapes", "cityscapes", "facades")
# The options of `load`, each also a flag, with their types.
OPTIONS = dict(data=list, split=str, classes=int, crop=bool, palette=str, labels=str, maps=int,
               void=int, mirror=bool)
PAPER_MAPS = 54 ** 2  # Colored Shapes of the paper, at side 64


# --------------------------------------------------------------------- a data set by name or path
def load(dataset, side, seed=0, data=None, split=None, classes=None, crop=False, palette=None,
         labels=None, maps=None, void=None, mirror=False, survey=None, width=None):
    """A data set's LabelMaps. Maps from files are prepared once and cached.

    side     height of the maps, and their width unless that is given
    dataset  "shapes", "cityscapes", "facades", or the path of a folder, .zip or .tar(.gz)
    data     path or paths of cityscapes (gtFine_trainvaltest.zip or its folder) or of facades
             (CMP base and extended, or pix2pix's archive)
    seed     determines the shapes
    split    cityscapes: train (default), val or test; pix2pix's facades: the same (default: all)
    classes  cityscapes: 22 (the paper's number, default), 19 or 34; your own maps: highest id + 1
    crop     take the largest part of the wanted proportions in the middle instead of squeezing
    maps     shapes: at least so many (default: one for each position of the square)
    palette  path of a palette file; labels: a glob that picks the label maps; for your own maps
    void     id of pixels that take the class of the nearest pixel with another id
    mirror   add the mirror image of every map, left for right: twice as many maps
    survey   a list that receives what `inspect` shows of each map. Unknown ids are then accepted.
    Raises InputError.
    """
    size = side, width or side
    _check_options(dataset, size, classes=classes, crop=crop, palette=palette, labels=labels,
                   data=data, split=split, maps=maps, void=void, mirror=mirror)
    if dataset == "shapes":
        return colored_shapes(side, seed, maps or 1, width)
    complete = None
    if dataset in NAMED:
        options = (cityscapes if dataset == "cityscapes" else facades)(split, classes)
        complete = options.pop("complete")
        paths = find_archives(dataset, data)
    else:
        options = dict(classes=classes, labels=labels)
        if palette:
            options["palette"], options["names"] = read_palette(palette)
        paths = [Path(dataset)]
    cache = cache_folder() if survey is None else None
    loaded = load_maps(paths, size, crop=crop, void=void, cache=cache, survey=survey, **options)
    if complete and len(loaded.maps) < complete:
        where = ", ".join(map(str, paths))
        note(f"{len(loaded.maps)} maps in {where}; the complete data set has {complete}")
    return with_mirror_images(loaded) if mirror else loaded


def _check_options(dataset, size, **options):
    """Raises InputError for options that do not go with this data set, TooLarge for too many maps.
    """
    shapes, own = dataset == "shapes", dataset not in NAMED
    fits = dict(classes=(not shapes, "maps in files"),
                maps=(shapes, "the shapes"),
                crop=(not shapes, "maps in files"),
                void=(not shapes, "maps in files"),
                mirror=(not shapes, "maps in files"),
                palette=(own, "your own maps"),
                labels=(own, "your own maps"),
                data=(not own and not shapes, "cityscapes and facades"),
                split=(not own and not shapes, "cityscapes and facades"))
    for flag, (good, meant) in fits.items():
        if options[flag] is not None and options[flag] is not False and not good:
            where = "the shapes" if shapes else dataset
            raise InputError(f"--{flag} is for {meant}, not for {where}")
    for flag, value in dict(options, dataset=dataset).items():
        if "" in (value if isinstance(value, (list, tuple)) else [value]):
            raise InputError(f"--{flag} is empty: expected a name, a path or a pattern")
    for flag, value, most in (("side", size[0], 1 << 31), ("size", size[1], 1 << 31),
                              ("maps", options["maps"], 1 << 20)):
        if value is not None and not 1 <= value < most:
            raise InputError(f"--{flag} {value}: expected 1 or more, below {most}")
    if shapes:  # one map for each position of the square, or more
        pixels = size[0] * size[1]
        needed = max(pixels, options["maps"] or 1) * pixels
        memory.require("drawing the maps", {"--side or --size, and --maps": needed})
    if not shapes and not own and not options["data"]:
        wanted = f"the folder that `{command('data.py', 'facades', '--download')}` fills"
        if dataset == "cityscapes":
            wanted = ("gtFine_trainvaltest.zip from www.cityscapes-dataset.com, "
                      "or its unpacked folder")
        raise InputError(f"--dataset {dataset} needs --data PATH: {wanted}")


def find_archives(dataset, paths):
    """The paths, but instead of a folder the archives in it, if they have their original names."""
    archives = ["CMP_facade_DB_*.zip", "facades.tar.gz"]
    if dataset == "cityscapes":
        archives = ["gtFine*.zip"]
    found = []
    for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
        path = Path(path)
        found += sorted(file for name in archives for file in path.glob(name)) or [path]
    return found


def cityscapes(split=None, classes=None):
    """The arguments of load_maps for Cityscapes (Cordts et al. 2016), as a dict.

    22 classes: the 19 that are evaluated; void (ids 0 to 4 and seven rare classes), which is
    black; dynamic; ground. A polegroup counts as a pole.
    19 classes: void pixels take the class of the nearest labelled pixel.
    34 classes: all ids.
    """
    choose = functools.partial(_members_of_split, split)
    split, classes = split or "train", 22 if classes is None else classes
    if split not in SPLITS:
        raise InputError(f"--split {split}: expected train, val or test")
    # Ordered by id, which is also the order of the trainIds.
    evaluated = [i for i, (_, train_id, _) in enumerate(CITYSCAPES) if train_id != 255]
    kept = {19: evaluated, 22: [*evaluated, 0, 5, 6], 34: range(34)}.get(classes)
    if kept is None:
        raise InputError(f"--classes {classes}: Cityscapes has tables of 22, 19 and 34 classes")
    table = np.full(256, UNKNOWN, np.uint8)
    table[:len(CITYSCAPES)] = 19  # void: the black class; with 19 classes, pixels to fill
    table[list(kept)] = np.arange(len(kept))
    if classes == 22:
        table[18] = table[17]
    names, _, palette = zip(*(CITYSCAPES[i] for i in kept))
    folders = [f"{name}/*/" for name in (split, *SPLITS)]  # the first that matches counts
    globs = [f"{folder}*_gtFine_labelIds.png" for folder in (*folders, "")]
    return dict(labels=globs, choose=choose, table=table, names=list(names),
                palette=np.array(palette, np.uint8), least=5,
                complete={"train": 2975, "val": 500, "test": 1525}[split])


def _members_of_split(split, members):
    """The Members in the folder of a split, by default train; all where there are no such folders.

    Raises InputError.
    """
    in_folders = [member for member in members if "/" in member.pattern]
    if in_folders:
        chosen = [member for member in in_folders if member.pattern.startswith(split or "train")]
        if not chosen:
            there = sorted({member.pattern.split("/")[0] for member in in_folders})
            raise InputError(f"{members[0].full}: no maps of --split {split or 'train'} beside it; "
                             f"expected --split {' or '.join(there)}")
        return chosen
    if split:
        raise InputError(f"{members[0].full}: not in a folder train, val or test, so its split is "
                         "unknown; without --split all maps are taken")
    return members


def facades(split=None, classes=None):
    """The arguments of load_maps for the CMP Facades (Tylecek and Sara 2013), as a dict.

    The original and pix2pix's copy give the same ids.
    """
    if classes not in (None, 12):
        raise InputError(f"--classes {classes}: the facades have 12")
    if split not in (None, *SPLITS):
        raise InputError(f"--split {split}: expected train, val or test")
    table = np.full(256, UNKNOWN, np.uint8)
    table[1:13] = np.arange(12)
    names, palette, copy_palette = zip(*FACADES)
    jpeg = functools.partial(pix2pix_labels, palette=np.array(copy_palette, np.uint8))
    labels = [f"{s}/[0-9]*.jpg" for s in SPLITS if split in (None, s)]
    if not split:
        labels = ["cmp_[bx][0-9][0-9][0-9][0-9].png", *labels]
    return dict(labels=labels, table=table, names=list(names),
                palette=np.array(palette, np.uint8), jpeg=jpeg,
                complete={"train": 400, "val": 100, "test": 106, None: 606}[split])


def with_mirror_images(loaded):
    """LabelMaps with twice as many maps: first all, then their mirror images in the same order."""
    maps = np.concatenate([loaded.maps, loaded.maps[:, :, ::-1]])
    sources = [*loaded.sources, *(f"{name} (mirrored)" for name in loaded.sources)]
    return loaded._replace(maps=maps, sources=sources, mirrored=True)


# --------------------------------------------------------------------- labels that were JPEG images
# Costs are squared errors in grey levels. Both values were tried on facades of known classes.
COLOR_WEIGHT = 0.03  # of an error in colour; an error in brightness has weight 1
NEIGHBOR_BONUS = 50  # subtracted for each neighbour of the same class


def pix2pix_labels(name, content, palette):
    """The ids in the right half of a JPEG `photo | labels`, drawn in the colours `palette` (K, 3).

    Returns an image of ids 1 to K, and the share of pixels in doubt. Raises InputError.

    JPEG keeps the brightness of each pixel, but only the mean colour of 2x2 pixels. So the labels
    of four such pixels must explain four brightnesses and one colour together. We start
    from the nearest class. Then each pixel in turn takes the class that fits best given the other
    three, with a bonus for the classes of its neighbours (iterated conditional modes, Besag 1986).
    A pixel is in doubt if its class changed in this way, or if the runner-up is close.
    """
    y, chroma = _label_planes(name, content)  # (H, W, 1), (H/2, W/2, 2)
    classes = np.asarray(Image.fromarray(palette[None]).convert("YCbCr"), np.float32)[0]  # (K, 3)
    colors = classes[:, 1:]

    def distance(wanted):  # (..., 2) -> (..., K)
        # |wanted - colour|^2, without |wanted|^2, which is the same for all classes
        return COLOR_WEIGHT * ((colors ** 2).sum(1) - 2 * wanted @ colors.T)

    brightness = (y - classes[:, 0]) ** 2  # (H, W, K)
    first = (brightness + distance(chroma).repeat(2, 0).repeat(2, 1)).argmin(-1)  # (H, W)
    ids = first.copy()
    margin = np.empty(first.shape, np.float32)
    bonus = NEIGHBOR_BONUS * np.eye(len(classes), dtype=np.float32)
    for _ in range(2):
        for phase in np.ndindex(2, 2):  # one of every 2x2 pixels at a time
            here = tuple(slice(p, None, 2) for p in phase)
            others = sum(colors[ids[a::2, b::2]] for a, b in np.ndindex(2, 2) if (a, b) != phase)
            edge = np.pad(ids, 1, mode="edge")
            around = edge[:-2, 1:-1], edge[2:, 1:-1], edge[1:-1, :-2], edge[1:-1, 2:]
            votes = sum(bonus[near[here]] for near in around)
            cost = brightness[here] + distance(4 * chroma - others) / 4 - votes
            ids[here] = cost.argmin(-1)
            best = np.partition(cost, 1, -1)
            margin[here] = best[..., 1] - best[..., 0]
    doubtful = (ids != first) | (margin < 2 * NEIGHBOR_BONUS)
    return Image.fromarray((ids + 1).astype(np.uint8)), float(doubtful.mean())


def _label_planes(name, content):
    """Brightness (H, W, 1) and colour (H/2, W/2, 2) of the right half, as the JPEG stores them."""
    def plane(scale):
        image = Image.open(io.BytesIO(content))
        width, height = image.size
        if image.mode != "RGB" or width % 4 or height % 2:
            raise InputError(f"{name}: {image.mode} of {width}x{height}; "
                             "expected a colour JPEG, photo left and labels right")
        image.draft("YCbCr", (width // scale, height // scale))
        return np.asarray(image, np.float32)[:, width // scale // 2:]

    return plane(1)[..., :1], plane(2)[..., 1:]  # at half size libjpeg returns colours as stored


# ----------------------------------------------------------------------------------- Colored Shapes
def colored_shapes(side=64, seed=0, least=1, width=None):
    """The paper's toy data set (section 5.0.1): a square, a circle and a rectangle on white.

    Sizes are for side 64; `side`, the height, scales everything. There is one map for each of
    54^2 = 2916 positions of the 10x10 red square, or 27^2 = 729 for side 32; or two, three, ... for
    each, if there are to be at least so many. A blue circle of radius 10 and a green rectangle, 12
    wide and 20 high, stand anywhere they fit. The rectangle is painted first and the circle last,
    so that it can cover the square. (The rectangle's size and the order are our choice; the paper
    gives neither.) The same seed gives the same maps on every machine. width: None is the side.
    Returns LabelMaps. Raises InputError.
    """
    width = width or side
    square, radius, bar, tall = (round(size * side / 64) for size in (10, 10, 12, 20))
    if side < 8 or width <= 2 * radius:
        raise InputError(f"maps of {side}x{width}: colored shapes need a height of at least 8, and "
                         f"a width of at least {2 * round(10 * max(side, 8) / 64) + 1}")
    corners = list(np.ndindex(side - square, width - square))
    corners *= -(-least // len(corners))  # rounded up
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :width]
    maps = np.zeros((len(corners), side, width), np.uint8)
    for m, (top, left) in zip(maps, corners):
        cy, cx = rng.integers(radius, side - radius), rng.integers(radius, width - radius)
        ry, rx = rng.integers(side - tall + 1), rng.integers(width - bar + 1)
        m[ry:ry + tall, rx:rx + bar] = 2
        m[top:top + square, left:left + square] = 3
        m[(y - cy) ** 2 + (x - cx) ** 2 <= radius ** 2] = 1
    palette = np.array([[255, 255, 255], [0, 0, 255], [0, 255, 0], [255, 0, 0]], np.uint8)
    return LabelMaps(maps, palette, ["background", "circle", "rectangle", "square"])


if __name__ == "__main__":
    from app.data_command import main
    main()
