"""The commands of data.py, and the flags that name a data set."""
import argparse
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

import data
from app.failures import Parser, reported
from app.run_folder import require_outside
from formats.files import InputError, command, download, printable, written
from formats.images import UNKNOWN, Prepared
from formats.palettes import UNKNOWN_COLOR
from formats.settings import given_size, shown_size

# Address, bytes, SHA-256; None: not published.
DOWNLOADS = {
    "cmp": [("https://cmp.felk.cvut.cz/~tylecr1/facade/CMP_facade_DB_base.zip", None, None),
            ("https://cmp.felk.cvut.cz/~tylecr1/facade/CMP_facade_DB_extended.zip", None, None)],
    "pix2pix": [("http://efrosgans.eecs.berkeley.edu/pix2pix/datasets/facades.tar.gz",
                 30168306, None)]}


# ----------------------------------------------------------------------------------------- download
def download_facades(args):
    """`facades --download`: fetches the CMP Facades (base and extended), or pix2pix's copy."""
    for url, size, sha256 in DOWNLOADS[args.download]:
        fetch_archive(url, Path(args.out) / url.rsplit("/", 1)[1], size, sha256)
    words = "--dataset", "facades", "--data", Path(args.out)
    print(f"Look at it: {command('data.py', 'inspect', *words)}\n"
          f"Train:      {command('semgan.py', *words)}")


def fetch_archive(url, path, size=None, sha256=None):
    """Download a .zip or .tar and print what could be verified. Raises InputError."""
    found, checksum = download(url, path, size, sha256, _check_archive)
    known = [name for name, value in (("size", size), ("SHA-256", sha256)) if value]
    verified = "no size or checksum is published to verify it by"
    if known:
        verified = f"{' and '.join(known)} verified"
    print(f"{path}: {found} bytes, {verified}; SHA-256 {checksum}")


def _check_archive(file, name):
    if not zipfile.is_zipfile(file) and not tarfile.is_tarfile(file):
        raise InputError(f"{name}: the file is neither a .zip nor a .tar")


# ------------------------------------------------------------------------------------------ inspect
def inspect(args):
    """`inspect`: what to look at before training: 16 maps, class frequencies, sizes."""
    survey = []
    if args.out == "":
        raise InputError("--out is empty: expected the name of a picture, such as maps.png")
    path = Path(args.out or f"inspect-{Path(args.dataset).stem or 'maps'}.png")
    if path.suffix.lower() != ".png":
        raise InputError(f"--out {path}: expected a name that ends in .png")
    require_outside(path, args)
    side, width = given_size(args) or (64 if args.dataset == "shapes" else 128, None)
    options = {name: getattr(args, name) for name in data.OPTIONS}
    loaded = data.load(args.dataset, side, survey=survey, width=width, **options)
    if not survey:  # generated
        survey = [_survey_of(m) for m in loaded.maps]
    pixels, present, unknown = _count(survey, loaded.classes)
    total = sum(h * w for h, w in (image.size for image in survey))
    resized = sum(np.bincount(m.ravel(), minlength=256) for m in loaded.maps) / loaded.maps.size
    copies = len(loaded.maps) // len(survey)  # 2 with mirror images
    rows = [(printable(loaded.names[k]), pixels[k] / total, resized[k], copies * present[k])
            for k in range(loaded.classes)]
    print(f"{'':4s}{'class':24s} {'pixels':>8s} {'resized':>8s} {'in maps':>8s}   R   G   B")
    for k, (name, share, small, count) in enumerate(rows):
        color = "{:4d}{:4d}{:4d}".format(*loaded.palette[k])
        print(f"{k:3d} {name[:24]:24s} {share:8.2%} {small:8.2%} {count:8d}{color}")
    void = pixels[loaded.classes] / total
    facts = _facts(loaded, survey, args.crop, void) + _describe_unknown(unknown)
    print("\n" + "\n".join(map(printable, facts)))
    try:
        with written(path) as file:
            picture(loaded, rows, facts[0]).savefig(file, dpi=100, format="png")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    print(printable(f"picture: {path}"))


def _survey_of(ids):
    """The survey entry of a generated map, like those that load_maps makes of files."""
    pixels = [(k, k, int((ids == k).sum())) for k in np.unique(ids)]
    return Prepared("", None, ids.shape, pixels, None, 0, 0)


def _count(survey, classes):
    """Pixels and maps of each class, and {unknown value: [pixels, first file]}, before resizing."""
    pixels, present, unknown = Counter(), Counter(), {}
    for image in survey:
        for value, k, count in image.pixels:
            if k == UNKNOWN and k >= classes:
                unknown.setdefault(value, [0, image.name])[0] += count
            else:
                pixels[k] += count
        present.update({k for _, k, _ in image.pixels})
    return pixels, present, unknown


def _facts(loaded, survey, crop, void):
    """Lines on the number of maps, their sizes, and what reading them changed."""
    sizes = Counter(image.size for image in survey).most_common()
    listed = ", ".join(f"{shown_size(size)} ({count})" for size, count in sizes[:4])
    more = f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""
    where = " from the middle" if crop else ""
    mirrored = ", half of them mirror images" if loaded.mirrored else ""
    changed = np.mean([image.changed for image in survey])
    facts = [f"{len(loaded.maps)} maps{mirrored}, {loaded.classes} classes, "
             f"resized to {shown_size(loaded.maps.shape[1:])}{where}",
             f"sizes (height x width): {listed}{more}",
             f"after resizing, {changed:.2%} of the pixels show another class"]
    if void:
        facts.append(f"{void:.2%} of the pixels are void and take the class of the nearest pixel "
                     "that has one")
    if loaded.doubtful:
        facts.append(f"{loaded.doubtful:.2%} of the pixels are doubtful, blurred by JPEG")
    return facts


def _describe_unknown(unknown):
    """Lines on ids or colours that are no class, the commonest first."""
    kind = "colour" if any(type(value) is tuple for value in unknown) else "id"
    found = sorted(unknown.items(), key=lambda item: -item[1][0])
    facts = [f"unknown {kind} {value}: {count} pixels, first in {first}"
             for value, (count, first) in found[:5]]
    if kind == "id" and unknown:
        facts.append("if an id marks pixels without a class, give it to --void")
    return [*facts, f"unknown {kind}s: {len(unknown) or 'none'}"]


def picture(loaded, rows, title):
    """A figure of 16 maps from all over the data set, and a bar for each class in its colour.

    rows: for each class its name, its shares of the pixels before and after resizing, and the
    number of maps that have it.
    """
    from matplotlib.figure import Figure
    figure = Figure(figsize=(13, 6.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    left.imshow(_grid(loaded), interpolation="nearest")
    left.axis("off")
    shares = [100 * small for _, _, small, _ in rows]
    right.barh(range(len(rows)), shares, color=loaded.palette / 255, edgecolor="#444",
               linewidth=0.6)
    size = min(10, 320 / len(rows))
    right.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=size,
                     parse_math=False)
    for y, (share, row) in enumerate(zip(shares, rows)):
        maps = row[-1] / len(loaded.maps)
        right.text(share, y, f"  {share:.2g} %, in {maps:.0%} of the maps", va="center",
                   fontsize=min(9, size))
    right.set(xlim=(0, max(shares) * 1.5), xlabel="% of the pixels, after resizing",
              ylim=(len(rows) - 0.4, -0.6))
    right.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    return figure


def _grid(loaded):
    """Four by four maps as one RGB image. Pixels of unknown classes are magenta."""
    n = len(loaded.maps)
    step = -(-max(loaded.maps.shape[1:]) // 512)  # of large maps every few pixels are enough
    chosen = loaded.maps[np.linspace(0, n - 1, min(n, 16)).astype(int), ::step, ::step]
    size = chosen.shape[1:]
    white = 256
    colors = np.full((257, 3), UNKNOWN_COLOR, np.uint8)
    colors[:loaded.classes] = loaded.palette
    colors[white] = 255
    gap = max(1, min(size) // 32)
    h, w = (length + gap for length in size)
    canvas = np.full((4 * h - gap, 4 * w - gap), white)
    for i, m in enumerate(chosen):
        top, left = i // 4 * h, i % 4 * w
        canvas[top:top + size[0], left:left + size[1]] = m
    return colors[canvas]


# ------------------------------------------------------------------------------------- command line
def add_arguments(parser):
    """Add the flags that name a data set, for the commands of data.py and for training."""
    parser.add_argument("--dataset", metavar="NAME",
                        help="shapes, cityscapes, facades, or the path of a folder, .zip or .tar "
                             "of label maps (default shapes)")
    parser.add_argument("--data", metavar="PATH", nargs="+",
                        help="the files of cityscapes (gtFine_trainvaltest.zip or its folder) or "
                             "facades (CMP base and extended, or pix2pix's archive)")
    parser.add_argument("--split", choices=data.SPLITS,
                        help="the part of cityscapes (default train) or of pix2pix's facades "
                             "(default all)")
    parser.add_argument("--classes", type=int, metavar="K",
                        help="cityscapes: 22, 19 (void filled in) or 34 (default 22); "
                             "your own maps: default highest id + 1")
    parser.add_argument("--maps", type=int, metavar="N",
                        help=f"shapes: at least so many maps (training: default "
                             f"{data.PAPER_MAPS}, the paper's number; else one for each position "
                             "of the square)")
    parser.add_argument("--crop", action=argparse.BooleanOptionalAction, default=None,
                        help="take the largest part of the wanted proportions in the middle "
                             "instead of squeezing the map")
    parser.add_argument("--mirror", action=argparse.BooleanOptionalAction, default=None,
                        help="add the mirror image of every map, left for right")
    parser.add_argument("--void", type=int, metavar="ID",
                        help="pixels of this id, such as 255, have no class: they take that of "
                             "the nearest pixel that has one")
    parser.add_argument("--palette", metavar="FILE",
                        help="for your own maps: one class per line, R G B and a name")
    parser.add_argument("--labels", metavar="GLOB",
                        help="which of your files are label maps, such as '*_label.png' or "
                             "'labels/*.png' (default every lossless image)")


def main(argv=None):
    parser = Parser(prog="data.py", description="Look at label maps before "
                                     "training, or fetch the CMP Facades.")
    commands = parser.add_subparsers(required=True, metavar="{inspect,facades}")
    one = commands.add_parser("inspect", help="a picture of 16 maps and of the class frequencies; "
                              "sizes; unknown ids")
    add_arguments(one)
    one.add_argument("--side", type=int,
                     help="height and width to resize to (default 128; shapes 64)")
    one.add_argument("--size", metavar="HxW",
                     help="height and width, such as 64x128, of maps that are not square")
    one.add_argument("--out", metavar="FILE", help="the picture (default inspect-DATASET.png)")
    one.set_defaults(command=inspect, dataset="shapes")
    one = commands.add_parser("facades", help="fetch the CMP Facades")
    one.add_argument("--download", nargs="?", const="cmp", choices=DOWNLOADS, required=True,
                     help="cmp: the original, base and extended (the default); "
                          "pix2pix: its copy of them")
    one.add_argument("--out", metavar="DIR", default="facades",
                     help="the folder to write to (default facades)")
    one.set_defaults(command=download_facades)
    with reported("data"):
        args = parser.parse_args(argv)
        args.command(args)
