"""The command `dream` of experiments.pix2pix: photos of maps that generators of semgan.py draw."""
import shutil
from math import prod
from pathlib import Path

import numpy as np
from PIL import Image

import metrics
import semgan
from app.command_line import natural, positive
from app.commands import closed_walk
from app.memory import require_for_sampling
from app.pictures import grid, save_gif
from app.run_folder import TRAINED, load_generator, make_folder
from experiments import runs
from experiments.pairs_command import require_outside_pairs
from experiments.pix2pix import load_translator, translate
from formats.files import InputError, locked, save_image, written
from formats.palettes import write_palette
from formats.settings import shown_size


def load_sources(args, header):
    """{name: generator} of label maps, from run folders and exported files, for a run of pix2pix.

    args: with the flags of add_sources. header: of the run's checkpoint. Raises InputError if two
    have the same name, or if classes, colours or size are not those of the run.
    """
    found, paths = {}, [Path(path) for path in args.maps or ()]
    if args.trained:
        paths.append(TRAINED)
    for path in paths:
        name = path.stem if path.is_file() else path.resolve().name
        if name in found:
            raise InputError(f"--maps: two sources of the name {name}; expected different names, "
                             "by which their dreams are told apart")
        g, palette = load_generator(path, args.device)
        if not np.array_equal(palette, header["palette"]):
            raise InputError(f"{path}: a run of another data set: its classes or colours are not "
                             f"those of {args.run}")
        sizes = [shown_size(semgan.map_size(s)) for s in (g.s, header["settings"])]
        if sizes[0] != sizes[1]:
            raise InputError(f"{path}: its maps are {sizes[0]}, those of {args.run} {sizes[1]}")
        found[name] = g
    return found


def dream(args):
    """`dream RUN --maps RUN2`: photos of generated maps, pair by pair, and a page of them all."""
    if not args.maps and not args.trained:
        raise InputError("no maps: expected --maps with runs of semgan.py, or --trained")
    translator, header = load_translator(args.run, args.device)
    sources = load_sources(args, header)
    photo = 3 * prod(semgan.map_size(header["settings"]))  # bytes
    # Pillow's images in RGB and in the colours of the GIF, of maps and photos with sides doubled
    frame = 5 * 2 * 2 ** 2 * prod(max(64, side) for side in semgan.map_size(header["settings"]))
    for g in sources.values():
        k = len(header["palette"])
        require_for_sampling(g.s, k, args.count, "--count", photo)
        require_for_sampling(g.s, k, args.keys * args.frames, "--keys and --frames", frame)
    out = Path(args.out or Path(args.run) / "dreams")
    require_outside_pairs(out, header["settings"])
    if any(out.glob("*")):
        raise InputError(f"{out} already holds dreams; remove it, or choose another with --out")
    with locked(out):
        try:
            write_dreams(out, sources, translator, header, args)
        except BaseException:  # a full disk, or Ctrl-C: a part would look like all
            for name in sources:
                shutil.rmtree(out / name, ignore_errors=True)
                (out / f"{name}.gif").unlink(missing_ok=True)
            raise
    print(f"In {out}, for each source: {args.count} pairs in maps/ and photos/, and a walk through "
          "the latent space as a GIF; dreams.png shows some of them.")


def write_dreams(out, sources, translator, header, args):
    """The folders and GIFs of all sources, and their page."""
    palette, rows = header["palette"], {}
    for name, g in sources.items():
        z = np.random.default_rng(args.seed).standard_normal((args.count, g.s.latent))
        maps = g.sample(z)
        photos = translate(translator, maps, palette)
        write_pairs(out / name, metrics.nearest_class(maps, palette), photos, header)
        rows[f"{name}: maps, and photos made of them"] = maps, photos
        walk(out / f"{name}.gif", g, translator, palette, args)
    page(out / "dreams.png", rows, palette)


def write_pairs(folder, maps, photos, header):
    """A data set of pairs: maps as indexed PNGs, photos as PNGs of the same names."""
    for part in "maps", "photos":
        make_folder(folder / part)
    for i, (ids, photo) in enumerate(zip(maps, photos)):
        image = Image.fromarray(ids)
        image.putpalette(header["palette"].tobytes())
        save_image(image, folder / "maps" / f"{i:05d}.png", sync=False)
        save_image(Image.fromarray(photo), folder / "photos" / f"{i:05d}.png", sync=False)
    write_palette(folder / "palette.txt", header["palette"], header["names"])


def walk(path, g, translator, palette, args):
    """A closed walk through the latent space as a GIF: photos above their maps."""
    keys = np.random.default_rng(args.seed).standard_normal((args.keys, g.s.latent))
    maps = g.sample(closed_walk(keys, args.frames))
    photos = translate(translator, maps, palette)
    colors = palette[maps] if maps.ndim == 3 else maps
    save_gif([grid(np.stack(pair), None, columns=1) for pair in zip(photos, colors)], path, 2, 80)


def page(path, rows, palette):
    """Figure 8 of the paper: for each source maps and, below them, their photos, as a picture.

    rows: {title: (maps, photos)}.
    """
    from matplotlib.figure import Figure  # here, since its import takes long
    height, width = next(iter(rows.values()))[1].shape[1:3]
    inches = 0.4 + 11 * 2 * height / (8 * width)  # of a title and two rows of eight
    figure = Figure(figsize=(11, inches * len(rows)), layout="constrained")
    for ax, (title, (maps, photos)) in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0],
                                           rows.items()):
        colors = palette[maps] if maps.ndim == 3 else maps
        some = np.concatenate([colors[:8], photos[:8]])
        ax.imshow(grid(some, None, columns=8), interpolation="nearest")
        ax.set_title(title, fontsize=10, loc="left")
        ax.axis("off")
    with written(path) as file:
        figure.savefig(file, dpi=110, format="png")


def add_sources(parser):
    """The flags that name generators of label maps."""
    parser.add_argument("--maps", nargs="+", metavar="RUN2",
                        help="runs of semgan.py, or files that its command export wrote")
    parser.add_argument("--trained", action="store_true",
                        help="also the generator that comes with the program, of Colored Shapes")


def dream_parser(commands):
    """The flags of the command `dream`."""
    parser = commands.add_parser("dream", help=runs.summary(dream),
                                 description=runs.summary(dream))
    parser.add_argument("run", metavar="RUN", help="a run of `train`")
    add_sources(parser)
    for flag, default, meaning in (("--count", 64, "pairs of each source"),
                                   ("--keys", 6, "latent vectors that the walk passes through"),
                                   ("--frames", 12, "frames from one of them to the next")):
        parser.add_argument(flag, type=positive, default=default, metavar="N",
                            help=f"{meaning} (default {default})")
    parser.add_argument("--seed", type=natural, default=0, metavar="N",
                        help="determines the latent vectors (default 0)")
    parser.add_argument("--out", metavar="DIR", help="where to write (default: RUN/dreams)")
    runs.add_device(parser)
    parser.set_defaults(command=dream)
