"""What the experiments on pairs share: settings and flags, and run folders."""
import json
import zlib
from argparse import Namespace
from pathlib import Path

import numpy as np

import data
import kernels
import semgan
from app import run_settings, training
from app.command_line import positive
from app.run_folder import FORMAT, continued_log, require_not_negative, restore, usable
from app.run_settings import require_maps, shown, with_absolute_paths
from experiments import pairs
from experiments.pairs_command import add_arguments, require_outside_pairs
from formats import memory, npz
from formats.files import InputError, locked, save_image
from formats.palettes import write_palette
from formats.settings import check_values, given_size, require, shown_size

# Settings of networks and optimizer, as in semgan.SETTINGS: name -> (default, meaning).
SHARED = {
    "side": (32, "height of a map in pixels, and its width, unless another is given"),
    "filters": ([32, 64, 128, 256], "channels of the U-Net after each halving of the sides"),
    "batch_size": (8, "pairs per step"),
    "learning_rate": (1e-3, "of Adam; it falls to 0 over the second half of the steps"),
    **{name: semgan.SETTINGS[name] for name in
       ("width", "beta1", "beta2", "adam_eps", "bn_momentum", "bn_eps")},
    "init": ("normal", "weights: normal (pix2pix) or glorot (uniform)"),
    "held_out": (0.2, "share of the pairs that is kept for measuring"),
    "seed": (0, "determines data, weights and batches"),
}
# Where pairs come from: the arguments of pairs.load and their types, each a flag too.
DATA = dict(dataset=str, photos=str, count=int) | {
    name: data.OPTIONS[name] for name in ("data", "split", "classes", "palette", "labels", "void")}
MOVABLE = ("photos", *run_settings.MOVABLE)  # say where a run's pairs are


# ------------------------------------------------------------------------------ settings and flags
def settings(table, given, choices):
    """A Namespace of the settings in `table` and in DATA, checked. Raises InputError.

    table: {name: (default, meaning)}. given: {name: value}. choices: {name: allowed values}.
    """
    s = Namespace(**dict.fromkeys(DATA), **{name: default for name, (default, _) in table.items()})
    s.dataset = "shapes"
    vars(s).update(given)
    check_values(s, table, {"init": ["normal", "glorot"], **choices})
    require(s, "held_out", s.held_out < 1, "a share, below 1")
    multiple, sides = 2 ** len(s.filters), semgan.map_size(s)
    for side in sides:
        if side % multiple:
            raise InputError(f"--side {side}: expected a multiple of {multiple}, since the network "
                             f"halves its maps {len(s.filters)} times")
    if "patch_filters" in table:
        require(s, "patch_filters", min(sides) >> len(s.patch_filters),
                f"fewer layers: each halves the sides, {shown_size(sides)}")
    return s


def add_flags(parser, table, choices):
    """One flag for each setting in `table` and in DATA."""
    add_arguments(parser.add_argument_group("the pairs"))
    group = parser.add_argument_group("the method", "In brackets: the default.")
    group.add_argument("--size", metavar="HxW", help="height and width, in place of --side")
    for name, (default, meaning) in table.items():
        if name == "width":
            continue
        options = dict(type=type(default), metavar="N" if isinstance(default, int) else "X")
        if isinstance(default, list):
            options = dict(type=int, nargs="+", metavar="N")
        elif isinstance(default, str):
            options = dict(choices={"init": ["normal", "glorot"], **choices}[name])
        group.add_argument("--" + name.replace("_", "-"), help=f"{meaning} [{shown(default)}]",
                           **options)


def training_parser(commands, table, choices, train):
    """The flags of the command `train`."""
    parser = commands.add_parser("train", help=summary(train), description=summary(train))
    group = parser.add_argument_group("the run")
    group.add_argument("--out", metavar="DIR", help="the run folder (default runs/DATASET-NAME)")
    group.add_argument("--resume", action="store_true", help="continue from its checkpoint")
    group.add_argument("--save-every", type=positive, metavar="N",
                       help="steps between checkpoints, each with a picture (default: a "
                            "checkpoint a minute, a picture every 250 steps)")
    group.add_argument("--log-every", type=positive, default=10, metavar="N",
                       help="steps between rows of log.csv (default 10)")
    add_device(group)
    group.add_argument("--precision", choices=kernels.PRECISIONS, help="see semgan.py --help")
    add_flags(parser, table, choices)
    parser.set_defaults(command=train, evaluate_every=0)


def add_device(parser):
    parser.add_argument("--device", default="auto", choices=kernels.DEVICES,
                        help="where to compute (default auto)")


def summary(function):
    """The first paragraph of a docstring without the name of the command."""
    return function.__doc__.split(": ", 1)[1].split("\n\n")[0]


def given_settings(args, table):
    """{name: value} of the flags that were given; paths become absolute. Raises InputError."""
    given = {name: vars(args).get(name) for name in (*table, *DATA)}
    if size := given_size(args):
        height, width = size
        given |= dict(side=height, width=0 if width == height else width)
    return with_absolute_paths(given)


def load_pairs(s, header=None, run=None):
    """(training Pairs, held-out Pairs) that the settings name. Raises InputError.

    header: of a run's checkpoint, whose pairs they must be.
    """
    if header:
        require_maps(s)
    options = {name: getattr(s, name) for name in DATA if name != "dataset"}
    found = pairs.split(pairs.load(s.dataset, semgan.map_size(s), seed=s.seed, **options),
                        s.held_out)
    if header and (fingerprint(found[0]) != s.fingerprint
                   or not np.array_equal(found[0].palette, header["palette"])):
        raise InputError(f"{s.dataset}: its maps, photos or colours have changed since {run} was "
                         "started")
    return found


def fingerprint(dataset):
    """CRC-32 of Pairs: differs if maps or photos do."""
    return zlib.crc32(dataset.photos, zlib.crc32(dataset.maps))


def moved(s, given, run):
    """The settings s of a run, with what flags say about where its pairs are now.

    given: {name: value} of the flags. Raises InputError if one contradicts the settings.
    """
    for name, value in given.items():
        if value != getattr(s, name) and name not in MOVABLE:
            raise InputError(f"--{name.replace('_', '-')} {shown(value)}: {run} was started with "
                             f"{shown(getattr(s, name))}; only where the pairs are can change")
    vars(s).update(given)
    return s


# -------------------------------------------------------------------------------------- run folders
def load_header(run, experiment, table, choices):
    """The header of a run's checkpoint: step, settings, palette, names. Raises InputError."""
    path = Path(run) / "checkpoint.npz"
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; expected the folder of a run of "
                         f"experiments.{experiment}")
    with usable(path, f"checkpoint of experiments.{experiment}"), npz.opened(path) as file:
        header = json.loads(npz.text(file, "header"))
        saved = header["settings"]
        other = saved.get("experiment")
        if header["format"] != FORMAT:
            raise InputError("written by a newer version of this program")
        if other != experiment:
            program = f"experiments.{other}" if other else "semgan.py"
            raise InputError(f"a run of {program}; expected one of experiments.{experiment}")
        known = {"experiment", "fingerprint", *table, *DATA}
        if unknown := saved.keys() ^ known:
            raise InputError(f"the setting {min(unknown)} is missing or unknown")
        for name, kind in DATA.items():
            kinds = (kind,) if name == "dataset" else (kind, type(None))
            if type(saved[name]) not in kinds:
                raise InputError(f"the setting {name} is {saved[name]!r:.100}")
        header["settings"] = s = settings(table, saved, choices)
        header["palette"], names = np.array(header["palette"], np.uint8), header["names"]
        header["arithmetic"] = str(header["arithmetic"])
        if header["palette"].shape != (len(names), 3) or not all(type(n) is str for n in names):
            raise InputError("its palette does not fit its classes")
        if type(header["step"]) is not int or not 0 <= header["step"] <= s.steps:
            raise InputError(f"its step is {header['step']!r:.40}")
    return header


def load_arrays(run, experiment, networks):
    """Copies the arrays of a run's checkpoint into networks, {prefix: Network}. Raises InputError.

    The checkpoint may hold other networks too.
    """
    path = Path(run) / "checkpoint.npz"
    with usable(path, f"checkpoint of experiments.{experiment}"), npz.opened(path) as file:
        there = {member.filename.removesuffix(".npy") for member in file.infolist()}
        shapes = {f"{prefix}.{name}": array.shape for prefix, net in networks.items()
                  for name, array in net.state().items()}
        arrays = npz.arrays(file, shapes, others=there - shapes.keys())
        require_not_negative(arrays)
    for prefix, net in networks.items():
        restore(net.ops, net.state(), prefix, arrays)


class Recorder(training.Recorder):
    """Losses, checkpoints, and a picture of held-out pairs: maps, generated photos, photos."""
    advice = "a lower --learning-rate"

    def __init__(self, trainer, held_out, run, log, args):
        super().__init__(trainer, run, log, args, None)
        self.program = f"experiments.{trainer.s.experiment}"
        some = np.linspace(0, len(held_out.maps) - 1, 8).astype(int)
        self.some = held_out._replace(maps=held_out.maps[some], photos=held_out.photos[some])

    def draw(self):
        save_image(self.trainer.picture(self.some), self.grid_file())

    def plot(self):
        """There are no curves: log.csv has the losses."""


def train(args, name, table, choices, make):
    """Trains until --steps or Ctrl-C. Returns the trainer, and held-out Pairs.

    name: of the experiment. table, choices: its settings. make(ops, s, training Pairs): its
    trainer.
    """
    given = given_settings(args, table)
    run = Path(args.out or f"runs/{training.dataset_name(given.get('dataset', 'shapes'))}-{name}")
    with locked(run):
        trainer, held_out = prepare(args, run, given, make, name, table, choices)
        with open_log(run, trainer) as log, np.errstate(all="ignore"):  # we look for NaN
            recorder = Recorder(trainer, held_out, run, log, args)
            with training.stop_signals() as stop:
                training.loop(trainer, recorder, stop)
            if stop:
                print(training.stopped(recorder))
                raise SystemExit(128 + stop[0])
    return trainer, held_out


def prepare(args, run, given, make, name, table, choices):
    """(trainer, held-out Pairs). Bad input fails here, before anything is written."""
    if (run / "checkpoint.npz").exists() and not args.resume:
        raise InputError(f"{run} already holds a run; continue it with --resume, or choose "
                         "another folder with --out")
    ops = kernels.load(args.device, precision=args.precision)
    header = load_header(run, name, table, choices) if args.resume else None
    if header:
        s = moved(header["settings"], given, run)
    else:
        s = settings(table, given, choices)
        require_outside_pairs(run, s, s.labels)
    dataset, held_out = load_pairs(s, header, run)
    if ops.name != "gpu":
        memory.require("training", {"--batch-size, --side and --filters": least_bytes(s)})
    if not header:
        s.experiment, s.fingerprint = name, fingerprint(dataset)
    trainer = make(ops, s, dataset)
    if header:
        load_arrays(run, name, trainer.networks)
        trainer.step = header["step"]
        training.tell_other_arithmetic(header, ops, run)
    print(f"{ops.why}: {s.steps - trainer.step} steps on {len(dataset.maps)} pairs of "
          f"{len(dataset.palette)} classes; {len(held_out.maps)} more are held out. In {run}.",
          flush=True)
    return trainer, held_out


def least_bytes(s):
    """Bytes that a step takes at least: for the U-Net's feature maps and their gradients."""
    height, width = semgan.map_size(s)
    numbers = sum(channels / 4 ** i for i, channels in enumerate(s.filters, 1))  # of a pixel
    numbers *= 4  # on the way down and up, with gradients
    return int(np.dtype(np.float32).itemsize * s.batch_size * height * width * numbers)


def open_log(run, trainer):
    """The first files of a run folder. Returns log.csv, open for appending."""
    (run / "samples").mkdir(parents=True, exist_ok=True)
    write_palette(run / "palette.txt", trainer.dataset.palette, trainer.dataset.names)
    return continued_log(run / "log.csv", ["step", *trainer.losses_of, "seconds"], trainer.step)
