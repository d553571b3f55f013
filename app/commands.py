"""The commands that use a trained run (sample, interpolate, evaluate, export), and doctor."""
import platform
from importlib import metadata
from itertools import count
from math import prod
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

import inception
import kernels
from app import evaluation, memory
from app.pictures import grid, save_gif
from app.run_folder import (
    TRAINED,
    export_generator,
    generator_and_header,
    load_checkpoint,
    load_generator,
    make_folder,
    require_writable,
    same_maps,
)
from app.run_settings import MOVABLE, load_dataset, resumed, with_absolute_paths
from formats.files import InputError, command, remove_left_over, save_image
from formats.palettes import write_palette
from semgan import map_size


def source(args):
    """What RUN or --trained names: the path of a generator, and the folder for what it makes.

    Raises InputError for both or neither.
    """
    if args.trained and args.run is not None:
        raise InputError(f"RUN is {args.run}, but --trained has a generator of its own: expected "
                         "only one of them")
    if not args.trained and args.run is None:
        raise InputError("no RUN: expected a run folder, or --trained for the generator that comes "
                         "with the program")
    path = TRAINED if args.trained else Path(args.run)
    return path, Path("runs") / path.stem if path.is_file() else path


def sample(args):
    """`sample RUN`: new maps as indexed PNGs (RGB from the baseline), and a picture of them all."""
    path, folder = source(args)
    out = Path(args.out or folder / "generated")
    out = out if out.name.strip(".") else out.resolve()  # a picture is named after it
    if any(out.glob("map_*.png")):
        free = next(new for number in count(2)
                    if not (new := out.with_name(f"{out.name}-{number}")).exists())
        more = command("semgan.py", *args.words, "--seed", args.seed + 1, "--out", free)
        raise InputError(f"{out} already holds maps; remove them, or draw others: {more}")
    g, header = generator_and_header(path, args.device)
    palette = header["palette"]
    memory.require_for_sampling(g.s, len(palette), args.count, "--count")
    z = np.random.default_rng(args.seed).standard_normal((args.count, g.s.latent))
    maps = g.sample(z)
    make_folder(out)
    remove_left_over(out)
    picture = out.with_name(out.name + ".png")  # beside the folder, which can then be a data set
    try:
        for i, pixels in enumerate(tqdm(maps, unit=" maps", disable=None, delay=1)):
            image = Image.fromarray(pixels)
            if not g.rgb:
                image.putpalette(palette.tobytes())
            save_image(image, out / f"map_{i:05d}.png", sync=False)
        write_palette(out / "palette.txt", palette, header["names"])
        save_image(grid(maps[:256], palette), picture)
    except BaseException:  # a full disk, or Ctrl-C: a part would look like all
        for path in out.glob("map_*.png"):
            path.unlink()
        raise
    print(f"{len(maps)} maps in {out}, a picture of them in {picture}")


# -------------------------------------------------------------------------------------- interpolate
ENLARGED = 4  # times the size of a picture of one map


def interpolate(args):
    """`interpolate RUN`: a closed walk through the latent space, as a GIF and as a picture."""
    path, folder = source(args)
    g, palette = load_generator(path, args.device)
    pixels = ENLARGED ** 2 * prod(max(64, side) for side in map_size(g.s))
    memory.require_for_sampling(g.s, len(palette), args.keys * args.frames, "--keys and --frames",
                                5 * pixels)  # Pillow's images in RGB and in the colours of the GIF
    keys = np.random.default_rng(args.seed).standard_normal((args.keys, g.s.latent))
    maps = g.sample(closed_walk(keys, args.frames))
    out = Path(args.out or folder)
    make_folder(out)
    save_gif([grid(m[None], palette) for m in maps], out / "interpolation.gif", ENLARGED, 60)
    first = maps[:args.frames * 2]  # from the first key to the third
    save_image(grid(first, palette, columns=args.frames), out / "interpolation.png")
    print(f"interpolation.gif ({len(maps)} frames) and interpolation.png in {out}")


def closed_walk(keys, frames):
    """Latent vectors on the way through n keys and back to the first: (n * frames, latent)."""
    pairs = zip(keys, np.roll(keys, -1, 0))  # from the last back to the first
    return np.concatenate([slerp(a, b, frames) for a, b in pairs])


def slerp(a, b, frames):
    """Spherical interpolation from a towards b: (frames, latent), without b itself.

    Normal vectors lie near a sphere. A straight line from a to b would leave it. (Shoemake 1985)
    """
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    angle = np.arccos(np.clip(cosine, -1, 1))
    t = np.arange(frames)[:, None] / frames
    if np.sin(angle) < 1e-6:  # almost the same or the opposite direction
        return (1 - t) * a + t * b
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


# ----------------------------------------------------------------------------------------- evaluate
def evaluate(args):
    """`evaluate RUN`: every metric of new samples, next to the same metric of real maps."""
    header, _ = load_checkpoint(args.run)
    moved = with_absolute_paths({name: getattr(args, name) for name in MOVABLE})
    s, _ = resumed(header, moved, args.run)
    g, _ = load_generator(args.run, args.device)
    dataset = load_dataset(s, header)
    if not same_maps(header, dataset):
        raise InputError(f"{s.dataset}: its maps or colours have changed since {args.run} was "
                         "started")
    most = len(dataset.unpaired)
    count = min(args.count or most, most)
    if count < 4:
        raise InputError(f"{count} maps: expected 4 or more, since one half is compared "
                         "with the other")
    out = Path(args.out or args.run)
    file = out / "evaluation.csv"  # metrics.csv belongs to training, which may be going on
    require_writable(out)
    evaluation.read_table(file)  # a damaged one fails here
    weights, reason = fid_weights(args.weights)
    table = evaluation.measure(g, dataset, count, args.seed, weights)
    print(f"{args.run}: step {header['step']}, {count} samples, seed {args.seed}\n"
          f"{evaluation.describe(table, dataset.palette)}")
    if reason:
        print(f"\nNo FID: {reason}")
    make_folder(out)
    evaluation.write_table(file, header["step"], count, args.seed, table)
    print(f"\nIn {file}. The columns `half of them` and `real (half)` compare "
          f"{count // 2} maps with {count // 2}.")


def fid_weights(path):
    """(weights of FID's network or None, why there are none). A given path must work."""
    if path == "":
        raise InputError("--weights is empty: expected the path of a weight file")
    try:
        return inception.load_weights(path), ""
    except InputError as error:
        if path is not None:
            raise
        return None, str(error)


# ------------------------------------------------------------------------------------------- export
def export(args):
    """`export RUN FILE`: the generator alone, in one file for sample and interpolate."""
    export_generator(args.run, args.file)
    size = Path(args.file).stat().st_size
    print(f"The generator of {args.run} is in {args.file} ({size / 1000:,.0f} kB).\n"
          f"New maps from it: {command('semgan.py', 'sample', Path(args.file))}")


# ------------------------------------------------------------------------------------------- doctor
def doctor(args):
    """`doctor`: what this machine has, what will be used, and why."""
    names = [package.metadata["Name"] for package in metadata.distributions()]
    installed = {name.lower() for name in names if name}
    version = lambda name: metadata.version(name) if name in installed else "missing"
    cupy = sorted(name for name in installed
                  if name == "cupy" or name.startswith(("cupy-cuda", "cupy-rocm")))
    system = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    libraries = "numpy", "scipy", "pillow", "tqdm", "matplotlib", "threadpoolctl"
    rows = [("Python", system),
            *((name, version(name)) for name in libraries),
            ("CuPy", ", ".join(f"{name} {version(name)}" for name in cupy) or "missing"),
            *kernels.found(),
            ("will use", kernels.load().why)]
    print("\n".join(f"{name:14s} {value}" for name, value in rows))
    if len(cupy) > 1:
        raise InputError(f"{' and '.join(cupy)} conflict: uninstall all of them with pip, then "
                         "install one")
