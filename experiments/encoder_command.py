"""The commands of `python -m experiments.encoder`: train, encode, interpolate, evaluate."""
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np

import kernels
from app.command_line import add_moved, natural, positive, require_paths
from app.commands import ENLARGED, slerp, source
from app.failures import Parser, reported
from app.memory import require_for_sampling
from app.pictures import grid, save_gif
from app.run_folder import make_folder, require_outside, require_writable
from app.run_settings import shown
from experiments.encoder import SETTINGS, STAGES
from experiments.encoder_files import load_encoder, load_frozen, read_maps
from experiments.encoder_training import train
from experiments.latents import evaluate, rows, scores
from formats.files import InputError, save_image, written
from semgan import map_size


def main(argv=None):
    """Run one command. Bad input and failures end the program with one line on stderr."""
    with reported("encoder"):
        words = sys.argv[1:] if argv is None else [str(word) for word in argv]
        args = parser().parse_args(words)
        args.words = words
        require_paths(args)
        args.command(args)


# ------------------------------------------------------------------------------ encode, interpolate
def encode(args):
    """`encode RUN MAPS`: codes.npz with z of each map, and a picture of the reconstructions."""
    if not args.trained and args.run is None:
        raise InputError("one path: expected RUN and MAPS, or --trained and MAPS")
    path, folder = source(args)
    g, header, e = trained(path, folder, args)
    maps, names = read_maps(args.maps, map_size(g.s), header["palette"], args.resize)
    require_for_sampling(g.s, len(header["palette"]), len(maps), "the number of maps")
    out = Path(args.out or folder / "encoder" / "codes")
    require_outside(out, Namespace(dataset=args.maps, labels=None))
    if (out / "codes.npz").exists():
        raise InputError(f"{out} already holds codes; remove them, or choose another with --out")
    require_writable(out)
    z = e.codes(maps)
    found = g.sample(z)
    make_folder(out)
    with written(out / "codes.npz") as file:
        np.savez(file, z=z, names=np.array(names))
    save_image(rows([maps[:256], found[:256]], header["palette"]), out / "reconstructions.png")
    print(f"{len(maps)} maps: {scores(found, maps, g)}\n"
          f"In {out}: codes.npz (z {z.shape}, names) and reconstructions.png (each map above its "
          "reconstruction).")


def interpolate(args):
    """`interpolate RUN --between A B`: from one map to another, through their codes."""
    path, folder = source(args)
    g, header, e = trained(path, folder, args)
    palette = header["palette"]
    require_for_sampling(g.s, len(palette), args.frames, "--frames",
                         5 * ENLARGED ** 2 * np.prod([max(64, side) for side in map_size(g.s)]))
    ends = []
    for end in args.between:
        maps, names = read_maps(end, map_size(g.s), palette, args.resize)
        if len(maps) != 1:
            raise InputError(f"{end}: {len(maps)} maps; expected one")
        ends.append(maps)
    a, b = e.codes(np.concatenate(ends))
    maps = g.sample(np.concatenate([slerp(a, b, args.frames), b[None]]))
    out = Path(args.out or folder / "encoder")
    make_folder(out)
    frames = [grid(m[None], palette) for m in [*maps, *maps[-2:0:-1]]]  # there and back
    save_gif(frames, out / "between.gif", ENLARGED, 60)
    row = np.concatenate([ends[0], maps, ends[1]])
    save_image(grid(row, palette, columns=len(row)), out / "between.png")
    print(f"between.gif and between.png (A, {len(maps)} frames from G(E(A)) to G(E(B)), B) in "
          f"{out}")


def trained(path, folder, args):
    """The FrozenGenerator of a run, its header, and its Encoder. Raises InputError."""
    g, header = load_frozen(path, args.device)
    e, _ = load_encoder(folder / "encoder" / f"{args.stages}.npz", g)
    return g, header, e


# ----------------------------------------------------------------------------------------- parsers
def parser():
    """The flags of all commands."""
    top = Parser(prog="python -m experiments.encoder",
                 description="A semantic encoder for a trained generator: from label maps to "
                 "latent vectors. See docs/encoder.md.")
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    texts = {train: "Train an encoder; its checkpoint is RUN/encoder/STAGES.npz.",
             encode: "z of label maps, and a picture of each map above its reconstruction.",
             interpolate: "From map A to map B through their codes, as a GIF and a picture.",
             evaluate: "Pixel accuracy and mIoU of reconstructions of held-out maps."}
    flags = {train: train_flags, encode: encode_flags, interpolate: interpolate_flags,
             evaluate: evaluate_flags}
    for function, text in texts.items():
        p = commands.add_parser(function.__name__, help=text, description=text)
        p.set_defaults(command=function)
        p.add_argument("run", metavar="RUN", nargs="?",
                       help="a run folder of semgan.py, or a file that its export wrote")
        p.add_argument("--trained", action="store_true",
                       help="instead of RUN: the generator that comes with the program, of Colored "
                            "Shapes at side 32")
        p.add_argument("--device", default="auto", choices=kernels.DEVICES,
                       help="where to compute (default auto)")
        flags[function](p)
    return top


def train_flags(p):
    p.add_argument("--resume", action="store_true", help="continue from the checkpoint")
    add_stages(p)
    for name, (value, meaning) in SETTINGS.items():
        many = dict(nargs="+") if isinstance(value, list) else {}
        kind = float if isinstance(value, float) else int
        p.add_argument("--" + name.replace("_", "-"), metavar="X" if kind is float else "N",
                       type=kind, help=f"{meaning} [{shown(value)}]", **many)
    add_moved(p)


def encode_flags(p):
    p.add_argument("maps", metavar="MAPS", help="a folder, a .zip or .tar(.gz), or one image: "
                   "class ids (grey, or indexed in the run's colours), or RGB in its colours")
    add_common(p)


def interpolate_flags(p):
    p.add_argument("--between", nargs=2, required=True, metavar=("A", "B"), help="two images")
    p.add_argument("--frames", type=positive, default=16, metavar="N",
                   help="frames from A to B (default 16)")
    add_common(p)


def evaluate_flags(p):
    for name, kind, value, meaning in (
            ("count", positive, 128, "held-out maps, at most"),
            ("samples", positive, 1000, "samples of which the best is taken"),
            ("z-steps", natural, 200, "Adam's steps for z itself; 0: leave these rows out"),
            ("seed", natural, 0, "determines the samples")):
        p.add_argument(f"--{name}", type=kind, default=value, metavar="N",
                       help=f"{meaning} (default {value})")
    p.add_argument("--out", metavar="DIR", help="where to write (default RUN/encoder)")
    add_moved(p)


def add_stages(p):
    p.add_argument("--stages", choices=STAGES, default="both",
                   help="both stages, or one alone for as many steps (default both)")


def add_common(p):
    """The flags of encode and interpolate."""
    add_stages(p)
    p.add_argument("--resize", action="store_true", help="take maps of other sizes: squeeze them")
    p.add_argument("--out", metavar="DIR", help="where to write (default in RUN/encoder)")
