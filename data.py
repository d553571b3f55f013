"""Label maps in: Colored Shapes, Cityscapes, CMP Facades, and any folder, .zip or .tar of label maps.

A label map is uint8 (H, W), one class id a pixel; a data set of N maps is (N, side, side) and stays uint8 in memory.
`load` returns any data set by its name or path; label_maps.py reads the files. Two commands, for before the training:

    python data.py inspect --dataset maps.zip     # a picture of 16 maps and of how frequent each class is
    python data.py facades --download             # fetches the CMP Facades
"""
import argparse
import functools
import http.client
import io
import os
import sys
import tarfile
import urllib.request
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

import label_maps
from label_maps import UNKNOWN, InputError, LabelMaps, Prepared, digest, load_maps, note, printable, read_palette, written

# https://www.cityscapes-dataset.com: row = id in *_labelIds.png: name, trainId (255: not evaluated), colour.
CITYSCAPES = [
    ("unlabeled", 255, (0, 0, 0)), ("ego vehicle", 255, (0, 0, 0)), ("rectification border", 255, (0, 0, 0)),
    ("out of roi", 255, (0, 0, 0)), ("static", 255, (0, 0, 0)), ("dynamic", 255, (111, 74, 0)), ("ground", 255, (81, 0, 81)),
    ("road", 0, (128, 64, 128)), ("sidewalk", 1, (244, 35, 232)), ("parking", 255, (250, 170, 160)),
    ("rail track", 255, (230, 150, 140)), ("building", 2, (70, 70, 70)), ("wall", 3, (102, 102, 156)),
    ("fence", 4, (190, 153, 153)), ("guard rail", 255, (180, 165, 180)), ("bridge", 255, (150, 100, 100)),
    ("tunnel", 255, (150, 120, 90)), ("pole", 5, (153, 153, 153)), ("polegroup", 255, (153, 153, 153)),
    ("traffic light", 6, (250, 170, 30)), ("traffic sign", 7, (220, 220, 0)), ("vegetation", 8, (107, 142, 35)),
    ("terrain", 9, (152, 251, 152)), ("sky", 10, (70, 130, 180)), ("person", 11, (220, 20, 60)), ("rider", 12, (255, 0, 0)),
    ("car", 13, (0, 0, 142)), ("truck", 14, (0, 0, 70)), ("bus", 15, (0, 60, 100)), ("caravan", 255, (0, 0, 90)),
    ("trailer", 255, (0, 0, 110)), ("train", 16, (0, 80, 100)), ("motorcycle", 17, (0, 0, 230)), ("bicycle", 18, (119, 11, 32))]

# https://cmp.felk.cvut.cz/~tylecr1/facade: row = id - 1: name, colour of the original, colour of pix2pix's copy.
FACADES = [
    ("background", (0, 0, 170), (0, 0, 223)), ("facade", (0, 0, 255), (0, 48, 255)), ("window", (0, 85, 255), (0, 128, 255)),
    ("door", (0, 170, 255), (0, 207, 255)), ("cornice", (0, 255, 255), (32, 255, 223)), ("sill", (85, 255, 170), (112, 255, 143)),
    ("balcony", (170, 255, 85), (191, 255, 64)), ("blind", (255, 255, 0), (255, 239, 0)), ("deco", (255, 170, 0), (255, 159, 0)),
    ("molding", (255, 85, 0), (255, 80, 0)), ("pillar", (255, 0, 0), (255, 0, 0)), ("shop", (170, 0, 0), (175, 0, 0))]
# Address, bytes, SHA-256; None: not published.
DOWNLOADS = {
    "cmp": [("https://cmp.felk.cvut.cz/~tylecr1/facade/CMP_facade_DB_base.zip", None, None),
            ("https://cmp.felk.cvut.cz/~tylecr1/facade/CMP_facade_DB_extended.zip", None, None)],
    "pix2pix": [("http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/facades.tar.gz", 30168306, None)]}


NAMED = ("shapes", "cityscapes", "facades")
OPTIONS = dict(data=list, split=str, classes=int, crop=bool, palette=str, labels=str)  # of `load`, each a flag


# --------------------------------------------------------------------------------- a data set by its name or path
def load(dataset, side, seed=0, data=None, split=None, classes=None, crop=False, palette=None, labels=None, survey=None):
    """A data set's LabelMaps, resized to side x side; prepared once and then taken from the cache. Raises InputError.

    dataset  "shapes", "cityscapes", "facades", or the path of a folder, .zip or .tar(.gz) of label maps
    data     path or paths of cityscapes (gtFine_trainvaltest.zip or its folder) or facades (CMP base and extended, or pix2pix)
    split    cityscapes: train (the default), val or test; facades in pix2pix's archive: the same (default: all three)
    classes  cityscapes: 22 (the paper's number, the default), 19 or 34; maps of your own: default highest id + 1
    crop     take the largest square in the middle instead of squeezing the map into one
    palette  path of a palette file, labels: glob of the files that are label maps, both for maps of your own
    survey   a list, filled with what `inspect` tells of each map; then unknown ids do not stop, and nothing is cached
    """
    own, where = dataset not in NAMED, "the shapes" if dataset == "shapes" else dataset
    for flag, value, fits, meant in (("classes", classes, dataset != "shapes", "maps in files"),
                                     ("crop", crop, dataset != "shapes", "maps in files"),
                                     ("palette", palette, own, "maps of your own"), ("labels", labels, own, "maps of your own"),
                                     ("data", data, not own and dataset != "shapes", "cityscapes and facades"),
                                     ("split", split, not own and dataset != "shapes", "cityscapes and facades")):
        if value not in (None, False) and not fits:
            raise InputError(f"--{flag} is for {meant}, not for {where}")
    if side < 1:
        raise InputError(f"--side {side}: expected 1 or more")
    if dataset == "shapes":
        return colored_shapes(side, seed)
    if own:
        options = dict(classes=classes, labels=labels)
        if palette:
            options["palette"], options["names"] = read_palette(palette)
    elif not data:
        wanted = ("gtFine_trainvaltest.zip from www.cityscapes-dataset.com, or its unpacked folder" if dataset == "cityscapes"
                  else "the folder that `python data.py facades --download` fills")
        raise InputError(f"--dataset {dataset} needs --data PATH: {wanted}")
    else:
        options = (cityscapes if dataset == "cityscapes" else facades)(split, classes)
    paths = [Path(path) for path in ([dataset] if own else [data] if isinstance(data, (str, os.PathLike)) else data)]
    if not own:  # a folder may hold the archives as they were downloaded
        archives = ("gtFine*.zip",) if dataset == "cityscapes" else ("CMP_facade_DB_*.zip", "facades.tar.gz")
        paths = [p for path in paths for p in sorted(file for a in archives for file in path.glob(a)) or [path]]
    complete = options.pop("complete", None)
    cache = label_maps.cache_folder() if survey is None else None
    loaded = load_maps(paths, side, crop=crop, cache=cache, survey=survey, **options)
    if complete not in (None, len(loaded.maps)):
        note(f"{len(loaded.maps)} maps in {', '.join(map(str, paths))}; complete would be {complete}")
    return loaded


def cityscapes(split=None, classes=None):
    """What load_maps needs to know of Cityscapes (Cordts et al. 2016), as a dict of its arguments.

    22 classes: the 19 that are evaluated, black void (ids 0-4 and seven rare classes), dynamic and ground; polegroup is a pole.
    19: void pixels take the class of the nearest labelled pixel. 34: all ids.
    """
    split, classes = split or "train", 22 if classes is None else classes
    if split not in ("train", "val", "test"):
        raise InputError(f"--split {split}: expected train, val or test")
    evaluated = [i for i, (_, train_id, _) in enumerate(CITYSCAPES) if train_id != 255]  # in the order of their trainIds
    kept = {19: evaluated, 22: [*evaluated, 0, 5, 6], 34: range(34)}.get(classes)
    if kept is None:
        raise InputError(f"--classes {classes}: Cityscapes has tables of 22, 19 and 34 classes")
    table = np.full(256, UNKNOWN, np.uint8)
    table[:len(CITYSCAPES)] = 19  # black; of 19 classes the number of none, which load_maps fills
    table[list(kept)] = np.arange(len(kept))
    if classes == 22:
        table[18] = table[17]
    names, _, palette = zip(*(CITYSCAPES[i] for i in kept))
    return dict(labels=f"{split}/*/*_gtFine_labelIds.png", table=table, palette=np.array(palette, np.uint8), names=list(names),
                least=5, complete={"train": 2975, "val": 500, "test": 1525}[split])


def facades(split=None, classes=None):
    """What load_maps needs to know of the CMP Facades (Tylecek and Sara 2013), original or pix2pix's copy, to the same ids."""
    if classes not in (None, 12):
        raise InputError(f"--classes {classes}: the facades have 12")
    if split not in (None, "train", "val", "test"):
        raise InputError(f"--split {split}: expected train, val or test")
    table = np.full(256, UNKNOWN, np.uint8)
    table[1:13] = np.arange(12)
    names, palette, smeared = zip(*FACADES)
    labels = [f"{s}/[0-9]*.jpg" for s in ("train", "val", "test") if split in (None, s)]
    return dict(labels=labels if split else ["cmp_[bx][0-9][0-9][0-9][0-9].png", *labels], table=table, names=list(names),
                palette=np.array(palette, np.uint8), jpeg=functools.partial(pix2pix_labels, palette=np.array(smeared, np.uint8)),
                complete={"train": 400, "val": 100, "test": 106, None: 606}[split])


COLOR_WEIGHT, NEIGHBOR_BONUS = 0.03, 50  # squared levels of brightness count 1; tried on facades of known classes


def pix2pix_labels(name, content, palette):
    """The right half of a JPEG `photo | labels` in `palette`'s (K, 3) colours -> (image of ids 1 to K, share of doubtful pixels).

    JPEG keeps brightness pixel by pixel and colour as the mean of 2x2 pixels, so the labels of such a block must explain four
    brightnesses and one colour together. From the nearest class on, each pixel in turn takes the class that does so best,
    given the other three and with a bonus for the classes of its neighbours (iterated conditional modes, Besag 1986).
    A pixel is doubtful if its neighbours changed its class, or the runner-up is close.
    """
    def plane(scale):  # float32 (H, W, 3): Y, Cb, Cr as stored; at half size libjpeg leaves the colours as they are
        image = Image.open(io.BytesIO(content))
        width, height = image.size
        if image.mode != "RGB" or width % 4 or height % 2:
            raise InputError(f"{name}: {image.mode} of {width}x{height}; expected a colour JPEG, photo left and labels right")
        image.draft("YCbCr", (width // scale, height // scale))
        return np.asarray(image, np.float32)[:, width // scale // 2:]

    y, chroma = plane(1)[..., :1], plane(2)[..., 1:]  # (H, W, 1), (H/2, W/2, 2)
    classes = np.asarray(Image.fromarray(palette[None]).convert("YCbCr"), np.float32)[0]  # (K, 3)
    colors, k = classes[:, 1:], len(classes)
    # |wanted - colour|^2 of every class, less |wanted|^2, which they share: (..., 2) -> (..., K)
    distance = lambda wanted: COLOR_WEIGHT * ((colors ** 2).sum(1) - 2 * wanted @ colors.T)
    brightness = (y - classes[:, 0]) ** 2  # (H, W, K)
    first = (brightness + distance(chroma).repeat(2, 0).repeat(2, 1)).argmin(-1)
    ids, margin, bonus = first.copy(), np.empty(first.shape, np.float32), NEIGHBOR_BONUS * np.eye(k, dtype=np.float32)
    for _ in range(2):
        for phase in np.ndindex(2, 2):  # one pixel of every block at a time
            here = tuple(slice(p, None, 2) for p in phase)
            others = sum(colors[ids[a::2, b::2]] for a, b in np.ndindex(2, 2) if (a, b) != phase)
            edge = np.pad(ids, 1, mode="edge")
            votes = sum(bonus[near[here]] for near in (edge[:-2, 1:-1], edge[2:, 1:-1], edge[1:-1, :-2], edge[1:-1, 2:]))
            cost = brightness[here] + distance(4 * chroma - others) / 4 - votes
            ids[here] = cost.argmin(-1)
            best = np.partition(cost, 1, -1)
            margin[here] = best[..., 1] - best[..., 0]
    return Image.fromarray((ids + 1).astype(np.uint8)), float(((ids != first) | (margin < 2 * NEIGHBOR_BONUS)).mean())


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


# ------------------------------------------------------------------------------------- commands: download, inspect
def download(url, path, size=None, sha256=None):
    """Fetch url to path, with a progress bar; size in bytes and SHA-256 are verified where known. Raises InputError."""
    def verify(file):
        found = file.stat().st_size, digest(file, "sha256")
        for what, is_, expected in zip(("bytes", "SHA-256"), found, (size, sha256)):
            if expected not in (None, is_):
                raise InputError(f"{url}: {path} has {what} {is_}; expected {expected}")
        if not zipfile.is_zipfile(file) and not tarfile.is_tarfile(file):
            raise InputError(f"{url}: what came is neither a .zip nor a .tar")
        return found

    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(url, timeout=60) as response, written(path) as file:
                total = int(response.headers.get("Content-Length") or size or 0)
                with tqdm(total=total, unit="B", unit_scale=True, desc=path.name, leave=False) as bar:
                    while block := response.read(1 << 16):
                        file.write(block)
                        bar.update(len(block))
                if total and file.tell() != total:
                    raise InputError(f"{url}: broke off after {file.tell()} of {total} bytes")
                file.flush()
                verify(Path(file.name))
        except (OSError, http.client.HTTPException) as error:
            raise InputError(f"{url}: cannot be fetched to {path} ({error})") from None
    (found, sha), known = verify(path), [name for name, k in (("size", size), ("SHA-256", sha256)) if k]
    verified = f"{' and '.join(known)} verified" if known else "no size or checksum is published to verify it by"
    print(f"{path}: {found} bytes, {verified}; SHA-256 {sha}")


def download_facades(args):
    """`facades --download`: fetches the CMP Facades (base and extended, 606 maps), or pix2pix's copy of them."""
    for url, size, sha256 in DOWNLOADS[args.download]:
        download(url, Path(args.out) / url.rsplit("/", 1)[1], size, sha256)
    print(f"Look at it: python data.py inspect --dataset facades --data {args.out}\n"
          f"Train:      python semgan.py --dataset facades --data {args.out}")


def inspect(args):
    """`inspect`: what to look at before training: 16 maps, how frequent each class is, sizes, unknown ids."""
    survey, side = [], args.side or (64 if args.dataset == "shapes" else 128)
    loaded = load(args.dataset, side, survey=survey, **{name: getattr(args, name) for name in OPTIONS})
    k, n = loaded.classes, len(loaded.maps)
    if not survey:  # generated
        survey = [Prepared("", None, (side,) * 2, [(c, c, int((m == c).sum())) for c in np.unique(m)], None, 0, 0)
                  for m in loaded.maps]
    pixels, present, unknown = Counter(), Counter(), {}  # of the images as they are
    for one in survey:
        for raw, c, count in one.pixels:
            if c == UNKNOWN and c >= k:
                total, first = unknown.get(raw, (0, one.name))
                unknown[raw] = total + count, first
            else:
                pixels[c] += count
        present.update({c for _, c, _ in one.pixels})
    void, total = pixels.pop(k, 0), sum(w * h for w, h in (one.size for one in survey))
    resized = np.bincount(loaded.maps.ravel(), minlength=256) / loaded.maps.size
    rows = [(c, loaded.names[c], pixels[c] / total, resized[c], present[c]) for c in range(k)]
    print(f"{'':4s}{'class':24s} {'pixels':>8s} {'resized':>8s} {'in maps':>8s}")
    print("\n".join(f"{c:3d} {name[:24]:24s} {share:8.2%} {small:8.2%} {m:8d}" for c, name, share, small, m in rows))
    sizes = Counter(one.size for one in survey).most_common()
    facts = [f"{n} maps, {k} classes, resized to {side}x{side}" + " from the square in the middle" * bool(args.crop),
             "sizes: " + ", ".join(f"{w}x{h} ({count})" for (w, h), count in sizes[:4])
             + (f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""),
             f"resizing shows {np.mean([one.changed for one in survey]):.2%} of the pixels as another class"]
    if void:
        facts.append(f"{void / total:.2%} of the pixels are void and take the class of the nearest pixel that has one")
    if loaded.doubtful:
        facts.append(f"{loaded.doubtful:.2%} of the pixels are doubtful, blurred by JPEG")
    for raw, (count, first) in list(unknown.items())[:5]:
        what = f"{raw >> 16} {raw >> 8 & 255} {raw & 255}" if raw > 255 else raw
        facts.append(f"unknown id {what}: {count} pixels, first in {first}")
    facts.append(f"unknown ids: {len(unknown) or 'none'}")
    print("\n" + "\n".join(printable(fact) for fact in facts))
    path = Path(args.out or f"inspect-{Path(args.dataset).stem or 'maps'}.png")
    try:
        with written(path) as file:
            picture(loaded, rows, facts[0], file)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    print(f"picture: {path}")


def picture(loaded, rows, title, file):
    """16 maps spread over the data set, and a bar for each class in its colour."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    n, side = loaded.maps.shape[:2]
    colors = np.full((257, 3), (255, 0, 255), np.uint8)  # magenta: unknown
    colors[:loaded.classes], colors[256] = loaded.palette, 255
    gap = max(1, side // 32)
    canvas = np.full((4 * (side + gap) - gap,) * 2, 256)
    for i, m in enumerate(loaded.maps[np.linspace(0, n - 1, min(n, 16)).astype(int)]):
        top, left = ((side + gap) * p for p in divmod(i, 4))
        canvas[top:top + side, left:left + side] = m
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 6.8), layout="constrained", width_ratios=[1.15, 1])
    left.imshow(colors[canvas], interpolation="nearest")
    left.axis("off")
    shares = [100 * small for *_, small, _ in rows]
    right.barh(range(len(rows)), shares, color=loaded.palette / 255, edgecolor="#444", linewidth=0.6)
    size = min(10, 320 / len(rows))
    right.set_yticks(range(len(rows)), [name for _, name, *_ in rows], fontsize=size)
    for y, (share, row) in enumerate(zip(shares, rows)):
        right.text(share, y, f"  {share:.2g} %, in {row[-1] / n:.0%} of the maps", va="center", fontsize=min(9, size))
    right.set(xlim=(0, max(shares) * 1.5), xlabel="% of the pixels, after resizing", ylim=(len(rows) - 0.4, -0.6))
    right.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    figure.savefig(file, dpi=100, format="png")
    plt.close(figure)


def add_arguments(parser):
    """The flags that name a data set, for this file's commands and for semgan.py."""
    parser.add_argument("--dataset", metavar="NAME", help="shapes, cityscapes, facades, or the path of a folder, .zip or .tar of "
                        "label maps (default shapes)")
    parser.add_argument("--data", metavar="PATH", nargs="+", help="where cityscapes (gtFine_trainvaltest.zip or its folder) or "
                        "facades (CMP base and extended, or pix2pix's archive) are")
    parser.add_argument("--split", choices=["train", "val", "test"], help="of cityscapes (default train) or pix2pix's facades "
                        "(default all)")
    parser.add_argument("--classes", type=int, metavar="K", help="cityscapes: 22, 19 (void filled in) or 34 (default 22); your "
                        "own maps: default highest id + 1")
    parser.add_argument("--crop", action=argparse.BooleanOptionalAction, default=None,
                        help="take the square in the middle instead of squeezing the map")
    parser.add_argument("--palette", metavar="FILE", help="for your own maps: one class a line, R G B and a name")
    parser.add_argument("--labels", metavar="GLOB", help="which of your files are label maps, such as '*_label.png' or "
                        "'labels/*.png' (default every lossless image)")


def main(argv=None):
    """The commands of this file."""
    parser = argparse.ArgumentParser(prog="data.py", description="Look at label maps before training, or fetch the CMP Facades.")
    commands = parser.add_subparsers(required=True, metavar="{inspect,facades}")
    one = commands.add_parser("inspect", help="a picture of 16 maps and of how frequent each class is, sizes, unknown ids")
    add_arguments(one)
    one.add_argument("--side", type=int, help="height and width to resize to (default 128; shapes 64)")
    one.add_argument("--out", metavar="FILE", help="the picture (default inspect-DATASET.png)")
    one.set_defaults(command=inspect, dataset="shapes")
    one = commands.add_parser("facades", help="fetch the CMP Facades")
    one.add_argument("--download", nargs="?", const="cmp", choices=DOWNLOADS, required=True,
                     help="cmp: the original, base and extended (the default); pix2pix: its copy of them")
    one.add_argument("--out", metavar="DIR", default="facades", help="where to (default facades)")
    one.set_defaults(command=download_facades)
    args = parser.parse_args(argv)
    try:
        args.command(args)
    except InputError as error:
        print(f"data: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
