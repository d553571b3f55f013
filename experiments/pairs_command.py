"""The command `python -m experiments.pairs`: look at pairs before training on them."""
from argparse import Namespace
from pathlib import Path

import numpy as np

from app.failures import Parser, reported
from app.pictures import grid
from app.run_folder import require_outside
from experiments import pairs as data_of_pairs
from formats.files import InputError, save_image
from formats.settings import given_size, shown_size

SHOWN = 8  # pairs in the picture
OPTIONS = ("photos", "seed", "count", "data", "split", "classes", "palette", "labels", "void")


def main(argv=None):
    """Writes a picture of 8 pairs; prints the counts and the error to beat."""
    with reported("pairs"):
        inspect(parser().parse_args(argv))


def inspect(args):
    out = Path(args.out)
    if out.suffix.lower() != ".png":
        raise InputError(f"--out {args.out}: expected a name that ends in .png")
    require_outside_pairs(out, args)
    size = given_size(args) or (64, 64)
    options = {name: getattr(args, name) for name in OPTIONS}
    pairs = data_of_pairs.load(args.dataset, size, **options)
    training, held_out = data_of_pairs.split(pairs, args.held_out)
    save_image(picture(pairs), out)
    error = data_of_pairs.mean_color_error(training, held_out)
    print(f"{len(pairs.maps)} pairs of {shown_size(size)} (height x width), {len(pairs.names)} "
          f"classes; {len(training.maps)} to train on, {len(held_out.maps)} held out, the first "
          f"{held_out.sources[0]}\n"
          f"mean colour of each class: error {error:.4f} on held-out photos (mean absolute "
          "difference, colours in [-1, 1])\n"
          f"picture: {out}")


def require_outside_pairs(out, s, labels=None):
    """Raises InputError if `out` lies among maps or photos. s: settings, or flags.

    labels: that pick maps and leave out what is written.
    """
    for folder in (s.dataset or "", s.photos or ""):
        require_outside(out, Namespace(dataset=folder, labels=labels))


def picture(pairs):
    """An image of 8 pairs from all over the data set, each map above its photo."""
    n = min(SHOWN, len(pairs.maps))
    places = np.linspace(0, len(pairs.maps), n, endpoint=False).astype(int)
    maps = pairs.palette[pairs.maps[places]]
    return grid(np.concatenate([maps, pairs.photos[places]]), pairs.palette, n)


def parser():
    """The flags: those of data.load that pairs know, and --photos, --count, --held-out."""
    parser = Parser(prog="python -m experiments.pairs",
                    description="A picture of 8 pairs of label map and photo, the number of "
                    "pairs, and the error of a baseline.")
    add_arguments(parser)
    parser.set_defaults(dataset="shapes")
    parser.add_argument("--side", type=int, help="height and width to resize to (default 64)")
    parser.add_argument("--size", metavar="HxW",
                        help="height and width, such as 64x128, of pairs that are not square")
    parser.add_argument("--seed", type=int, default=0, help="determines the painted shapes")
    parser.add_argument("--held-out", type=float, default=0.2, metavar="SHARE",
                        help="the share of the pairs to hold out (default 0.2)")
    parser.add_argument("--out", metavar="FILE", default="pairs.png",
                        help="the picture (default pairs.png)")
    return parser


def add_arguments(parser):
    """The flags that name pairs."""
    parser.add_argument("--dataset", metavar="NAME_OR_PATH",
                        help="shapes (the default: painted photos), cityscapes, facades, or a "
                        "folder, .zip or .tar of label maps")
    parser.add_argument("--photos", metavar="PATH",
                        help="a folder, .zip or .tar of their photos, with the same names")
    parser.add_argument("--count", type=int, help="at most so many pairs (shapes: so many)")
    parser.add_argument("--data", nargs="+", metavar="PATH",
                        help="where cityscapes or facades are")
    parser.add_argument("--split", help="cityscapes, and pix2pix's facades: train, val or test")
    parser.add_argument("--classes", type=int,
                        help="cityscapes: 22, 19 or 34; your own maps: the highest id + 1")
    parser.add_argument("--palette", metavar="FILE",
                        help="for your own maps: one class per line, R G B and a name")
    parser.add_argument("--labels", metavar="GLOB", help="which of your files are label maps")
    parser.add_argument("--void", type=int, metavar="ID",
                        help="pixels of this id take the class of the nearest other pixel")
