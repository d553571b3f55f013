"""The command `python metrics.py REAL SAMPLES`: two folders or archives, by every metric."""
import csv
import io
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

import image_metrics
import kernels
from app import evaluation
from app.command_line import natural, positive
from app.commands import fid_weights
from app.failures import Parser, reported
from app.run_folder import make_folder
from formats import archives, memory
from formats.files import InputError, printable, written
from formats.images import UNKNOWN, crop_middle, decode
from formats.label_maps import IMAGES, MOST_CLASSES, load_maps
from formats.palettes import color_code, read_palette
from formats.settings import given_size, shown_size
from kernels.workers import available_cores

LOSSY = (".jpg", ".jpeg", ".webp")  # formats of photos
ANY_IMAGE = [f"*{ending}" for ending in (*IMAGES, *LOSSY)]


class Found(NamedTuple):
    """What a folder or an archive holds, seen from its first file and the sizes of all."""
    path: Path
    labels: str  # the glob of the files to take; None: every image
    names: list  # of all files, sorted
    kind: str    # "ids" (grey), "indices" (of a palette), "colours" (RGB), or "images"
    size: tuple  # (height, width)


def compare_folders(args):
    """`metrics.py REAL SAMPLES`: prints a table, and writes it to --out."""
    check_paths(args)
    ops = kernels.load(args.device)
    weights, reason = fid_weights(args.weights)
    size = given_size(args)
    globs = args.labels, args.sample_labels or args.labels
    both = [look(Path(path), labels, size)
            for path, labels in zip((args.real, args.samples), globs)]
    as_images = both_are_images(both, args)
    size = size or common_size(both)
    orders = random_orders(both, args)
    require_memory(both, size, as_images)
    palette, table = (), {}
    if as_images:
        images = [read_images(found, size, args.crop, order)
                  for found, order in zip(both, orders)]
    else:
        palette, maps = read_labels(both, size, args)
        maps = [some[order] for some, order in zip(maps, orders)]
        if args.shapes and len(palette) != 4:
            raise InputError(f"--shapes: {args.real} has {len(palette)} classes; expected the 4 "
                             "of Colored Shapes")
        table = evaluation.label_rows(*maps, args.shapes)
        images = [palette[some] for some in maps]
    table |= evaluation.image_rows(*images, weights, ops)
    counts = [len(order) for order in orders]
    report(args, size, counts, palette, table, reason)
    if args.out is not None:
        write_table(Path(args.out), [*counts, args.seed], table)


def report(args, size, counts, palette, table, reason):
    """Print the table and what it compares. reason: why there is no FID, if there is none."""
    kind = f"label maps of {len(palette)} classes" if len(palette) else "images"
    sides = " and ".join(f"{n} of {path}" for n, path in zip(counts, (args.real, args.samples)))
    print(printable(f"{kind} at {shown_size(size)}: {sides}, seed {args.seed}"))
    print(evaluation.describe(table, palette))
    if reason:
        print(f"\nNo FID: {reason}")
    half = min(counts) // 2
    print(f"\nThe columns `half of them` and `real (half)` compare {half} with {half}. SWD and "
          f"MS-SSIM take {min(counts)} of each side, other metrics all.")
    step = 1 << max(4, (size[0] // image_metrics.COARSEST).bit_length() - 1)
    if any(side % step for side in size):
        nearest = shown_size([max(1, round(side / step)) * step for side in size])
        print(f"SWD and MS-SSIM take sides that can be halved often: try --size {nearest}.")


def check_paths(args):
    """Raises InputError for an empty path or pattern, and for an --out that exists."""
    for name in "real", "samples", "labels", "sample_labels", "palette", "out":
        if getattr(args, name) == "":
            raise InputError(f"{name} is empty: expected a path, or for labels a pattern")
    if args.out is not None and Path(args.out).exists():
        raise InputError(f"{args.out} exists already; remove it, or choose another name")


def random_orders(both, args):
    """For each side the places of the files to compare, in random order.

    Neighbours in a folder, such as frames of a video, are often alike, but halves must not be.
    """
    orders = [np.random.default_rng([args.seed, number]).permutation(len(found.names))[:args.count]
              for number, found in zip((5, 6), both)]  # 5: as evaluate draws the real maps
    for found, order in zip(both, orders):
        if len(order) < 4:
            raise InputError(f"{len(order)} of {found.path}: expected 4 or more, since one half is "
                             "compared with the other")
    return orders


def require_memory(both, size, as_images):
    """Raises TooLarge if comparing both sides takes more memory than there is."""
    pixels, counts = size[0] * size[1], [len(found.names) for found in both]
    at_once = min(image_metrics.pairs_at_once(pixels) * available_cores(), *counts)
    at_once *= 12 * 3 * 8  # bytes of MS-SSIM: 12 images in float64
    each = 3 if as_images else 3 + 1 + 4  # colours; ids, and their regions
    patches = 6 * image_metrics.PATCHES * 3 * image_metrics.PATCH ** 2 * min(counts)
    memory.require("comparing them", {"--size": at_once * pixels,
                                      "--size and --count": each * pixels * sum(counts),
                                      "--count": patches})


def write_table(path, facts, table):
    """The table as a CSV file. facts: how many real ones, how many samples, the seed."""
    make_folder(path.parent)
    try:
        with written(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["real", *evaluation.TABLE_HEADER[1:]])
            writer.writerows([*facts, name, *values] for name, values in table.items())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    print(f"\nIn {printable(str(path))}.")


# ------------------------------------------------------------------------------ what the files hold
def look(path, labels, size):
    """Found. Without a wanted size, all files must have the same. Raises InputError."""
    if (path / "checkpoint.npz").exists():
        raise InputError(f"{path}: a run folder; expected maps or images, such as "
                         f"{path / 'generated'}, which `semgan.py sample` makes")
    patterns = [labels] if labels else ANY_IMAGE
    with archives.opened(path, patterns) as members:
        members = sorted(members, key=lambda member: member.name)
        if not members:
            raise InputError(f"{path}: no images in it (expected {', '.join(patterns)})")
        first = decode(members[0].full, archives.content(members[0]))
        if not labels:
            _refuse_mixture(path, members)
        height_width = first.size[::-1]
        if not size:
            for member in members[1:]:
                other = _size(member)
                if other != height_width:
                    raise InputError(f"{member.full} is {shown_size(other)} and {members[0].full} "
                                     f"is {shown_size(height_width)} (height x width): expected "
                                     "one size; --size HxW resizes all, --crop takes their middle")
        return Found(path, labels, [member.name for member in members], _kind(first), height_width)


def _refuse_mixture(path, members):
    """Raises InputError for photos beside label maps, as many data sets have them."""
    lossy = [member.name.lower().endswith(LOSSY) for member in members]
    if any(lossy) and not all(lossy):
        raise InputError(f"{path}: {members[lossy.index(True)].name} is a photo, "
                         f"{members[lossy.index(False)].name} perhaps a label map: expected one "
                         "kind; --labels GLOB picks the files to compare")


def _size(member):
    """(height, width) of an image, of which only the header is decoded."""
    try:
        return Image.open(io.BytesIO(archives.content(member))).size[::-1]
    except Exception:  # damaged files, and bombs, fail in many ways
        return decode(member.full, archives.content(member)).size[::-1]  # says why


def _kind(image):
    """"images" for a photo's format or too many colours, else the kind of label map."""
    few_colors = image.convert("RGB").getcolors(MOST_CLASSES)
    if image.format in ("JPEG", "MPO", "WEBP") or not few_colors:
        return "images"
    return {"P": "indices", "RGB": "colours", "RGBA": "colours"}.get(image.mode, "ids")


def both_are_images(both, args):
    """Whether to compare images, not label maps. Raises InputError unless both sides are alike."""
    for_labels = [flag for flag in ("palette", "classes", "shapes", "void")
                  if getattr(args, flag) not in (None, False)]
    if for_labels and args.images:
        raise InputError(f"--images and --{for_labels[0]}, which is for label maps: expected one "
                         "of them")
    if for_labels or args.images:
        return args.images
    real, samples = both
    if (real.kind == "images") != (samples.kind == "images"):
        maps, images = sorted(both, key=lambda found: found.kind == "images")
        raise InputError(f"{images.path} holds images of more than {MOST_CLASSES} colours or JPEGs "
                         f"(first {images.names[0]}), {maps.path} label maps: expected the same "
                         "kind; --images compares both as images")
    return real.kind == "images"


def common_size(both):
    """The (height, width) of both sides. Raises InputError unless it is the same."""
    real, samples = both
    if real.size != samples.size:
        raise InputError(f"the images in {real.path} are {shown_size(real.size)}, those in "
                         f"{samples.path} {shown_size(samples.size)} (height x width): expected "
                         "the same; --size HxW resizes both")
    return real.size


# ----------------------------------------------------------------------------------- reading a side
def read_images(found, size, crop, order):
    """uint8 RGB (N, *size): the images at the places `order` of the sorted names."""
    images = np.empty((len(order), *size, 3), np.uint8)
    place = {found.names[i]: n for n, i in enumerate(order)}
    patterns = [found.labels] if found.labels else ANY_IMAGE
    with archives.opened(found.path, patterns) as members:
        wanted = [member for member in members if member.name in place]
        title = f"reading {found.path.name}"
        for member in tqdm(wanted, title, unit=" images", delay=1, leave=False, disable=None):
            image = _rgb(member.full, decode(member.full, archives.content(member)))
            if crop:
                image = Image.fromarray(crop_middle(np.asarray(image), size))
            if image.size[::-1] != size:  # averages where it shrinks
                image = image.resize(size[::-1], Image.Resampling.BICUBIC)
            images[place[member.name]] = image
    return images


def _rgb(name, image):
    """The image in RGB. Raises InputError for a mode that has no plain colours."""
    transparent = "A" in image.mode and image.getchannel("A").getextrema()[0] < 255
    if transparent or image.mode[0] in "IF":
        raise InputError(f"{name}: image mode {image.mode}; expected 8-bit RGB or grey without "
                         "transparency")
    return image.convert("RGB")


def read_labels(both, size, args):
    """The palette (K, 3), and both sides as class ids (N, *size) of the first side's classes.

    Raises InputError if the second side has a class that the first does not have.
    """
    real, samples = both
    options = dict(void=args.void, crop=args.crop)
    labels, sample_labels = (found.labels for found in both)
    if args.palette is not None:
        palette, names = read_palette(args.palette)
    elif "colours" in (real.kind, samples.kind) and "ids" in (real.kind, samples.kind):
        raise InputError(f"{real.path} holds {real.kind}, {samples.path} {samples.kind}: expected "
                         "the same, or --palette FILE with the colour of each class")
    else:
        palette, names = None, None
    first = load_maps(real.path, size, args.classes, palette, names, labels, **options)
    if samples.kind == "colours":
        second = load_maps(samples.path, size, None, first.palette, first.names, sample_labels,
                           **options)
        return first.palette, (first.maps, second.maps)
    most = 255 if args.void is None else 254  # any id, to say below which one is no class
    second = load_maps(samples.path, size, most, labels=sample_labels, **options)
    table = np.where(np.arange(256) < first.classes, np.arange(256), UNKNOWN).astype(np.uint8)
    if samples.kind == "indices" and real.kind != "ids" and palette is None:
        codes = color_code(first.palette).tolist()
        table = np.array([codes.index(c) if c in codes else UNKNOWN
                          for c in color_code(second.palette).tolist()], np.uint8)
    for k in np.unique(second.maps):
        if table[k] == UNKNOWN:
            color = "" if samples.kind == "ids" else f" (colour {second.palette[k].tolist()})"
            raise InputError(f"{samples.path}: class {k}{color} is none of the {first.classes} "
                             f"classes of {real.path}; --classes or --palette gives more")
    return first.palette, (first.maps, table[second.maps])


# ------------------------------------------------------------------------------------- command line
def metrics_parser():
    parser = Parser(
        prog="metrics.py", description="Compare two folders, .zip or .tar files of label maps or "
        "of images by every metric that applies. Label maps are lossless files of at most "
        f"{MOST_CLASSES} colours or grey levels; everything else is compared as images.")
    add = parser.add_argument
    add("real", metavar="REAL", help="the real ones, such as maps.zip")
    add("samples", metavar="SAMPLES", help="what to compare, such as runs/shapes-semgan/generated")
    add("--side", type=positive, metavar="N", help="height and width to resize to (default: as the "
        "files are, if all have one size)")
    add("--size", metavar="HxW",
        help="height and width, such as 64x128. Label maps are resized by nearest neighbour, "
             "images by Pillow's bicubic filter")
    add("--count", type=positive, metavar="N", help="at most so many of each, drawn at random")
    add("--seed", type=natural, default=0, metavar="N", help="determines their order (default 0)")
    add("--images", action="store_true", help="compare label maps as images too")
    add("--shapes", action="store_true", help="they are Colored Shapes: how well the shapes fit")
    add("--classes", type=int, metavar="K", help="classes of maps of ids (default: highest + 1)")
    add("--palette", metavar="FILE", help="one class per line, R G B and a name")
    add("--void", type=int, metavar="ID", help="id of pixels that take the class of the nearest "
        "pixel with another id")
    add("--labels", metavar="GLOB", help="which files to compare, such as '*_label.png' (default: "
        "every image)")
    add("--sample-labels", metavar="GLOB", help="the same for SAMPLES (default: as for REAL)")
    add("--crop", action="store_true", help="take the largest part of the wanted proportions in "
        "the middle, as in training, before resizing")
    add("--weights", metavar="FILE", help="weights of Inception, which FID needs (default: in the "
        "cache, where `python inception.py --download` puts them)")
    add("--device", default="auto", choices=kernels.DEVICES,
        help="where to compute FID (default auto)")
    add("--out", metavar="FILE", help="also write the table to a new CSV file")
    return parser


def main(argv=None):
    with reported("metrics"), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        compare_folders(metrics_parser().parse_args(argv))
