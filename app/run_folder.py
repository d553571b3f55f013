"""The files of a run folder: checkpoint.npz, settings.json, log.csv, palette.txt; exported ones."""
import argparse
import csv
import json
import os
import threading
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import data
import kernels
import semgan
from formats import npz
from formats.files import InputError, made, remove_left_over, written
from formats.palettes import write_palette
from formats.settings import MOST_STEPS
from kernels import buffers

FORMAT = 1  # of checkpoints and of exported generators
TRAINED = Path(__file__).resolve().parents[1] / "tutorial" / "trained.npz"  # comes with the program

# Settings that the first checkpoints did not have, with the values that reproduce their behaviour.
# If you add a setting to semgan.py or data.py, add a line here, so that earlier runs still load.
ADDED_SETTINGS = {
    "width": 0,          # the same as the height
    "decay_after": 0,
    "half_life": 0,      # constant learning rates
    "decay_both": True,
    "bn_momentum": 0.1,
    "bn_eps": 1e-5,
    "moment_matching": 0.0,
    "generator_loss": "feature_matching",
    "halve_kernels": False,
    "data": None,
    "split": None,
    "classes": None,     # for your own maps: as many as the checkpoint's palette has
    "crop": None,
    "palette": None,
    "labels": None,
    "maps": None,        # Colored Shapes: one for each position of the square
    "void": None,
    "mirror": None,
}


# --------------------------------------------------------------------------------------- checkpoint
def snapshot(trainer):
    """All that training needs to continue: (header, {name: array}), copies of this moment's state.

    Raises FloatingPointError if a parameter is not finite.
    """
    return header_of(trainer), copies(trainer.ops, trainer.networks, trainer.step)


def copies(ops, networks, step):
    """{prefix.name: array} of all arrays of networks, {prefix: Network}, on the host.

    Raises FloatingPointError if a parameter is not finite.
    """
    arrays = {f"{prefix}.{name}": np.array(ops.asnumpy(array))
              for prefix, net in networks.items() for name, array in net.state().items()}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise FloatingPointError(f"step {step}: a parameter is NaN or infinite")
    return arrays


def header_of(trainer):
    """The header of a checkpoint of this moment, and of a generator in a file of its own."""
    dataset = trainer.dataset
    return dict(format=FORMAT, step=trainer.step, settings=vars(trainer.s),
                arithmetic=trainer.ops.arithmetic, palette=dataset.palette.tolist(),
                names=dataset.names, maps=zlib.crc32(dataset.maps))


def write_checkpoint(path, header, arrays):
    """Write what `snapshot` returned. At any moment `path` is a complete checkpoint.

    Raises InputError.
    """
    try:
        with written(path) as file:
            np.savez(file, header=json.dumps(header), **arrays)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); "
                         "an earlier checkpoint is unchanged") from None


class CheckpointWriter:
    """Writes checkpoints in a thread of its own, one at a time, while training goes on."""
    def __init__(self, path):
        self.path = path
        self.thread = None
        self.error = None

    def start(self, trainer):
        """Write the trainer's state of this moment. Raises what `finish` and `snapshot` raise."""
        copies = snapshot(trainer)
        self.finish()
        thread = threading.Thread(target=self._write, args=copies)
        try:
            thread.start()
            self.thread = thread
        except RuntimeError:  # no more threads here
            self._write(*copies)

    def _write(self, header, arrays):
        try:
            write_checkpoint(self.path, header, arrays)
        except Exception as error:
            self.error = error

    def finish(self):
        """Wait until the last checkpoint is written. Raises InputError if it could not be."""
        if self.thread:
            self.thread.join()
        if self.error:
            raise self.error


def load_checkpoint(run):
    """(header, {name: array}) of the checkpoint in a run folder. Raises InputError.

    header: {"step": int, "settings": Namespace, "palette": (K, 3) uint8, "names": K class names,
    "maps": CRC-32 of the training maps or None, "arithmetic": str or None, "added": settings that
    the checkpoint lacks and that ADDED_SETTINGS gave}. Nothing in the file is ever executed.
    """
    path = Path(run) / "checkpoint.npz"
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; expected the folder of a run")
    header, arrays = _read(path, "checkpoint")
    if any(arrays[prefix + ".step"].tolist() != [header["step"]] for prefix in "gd"):
        raise InputError(f"{path}: not a usable checkpoint (its networks belong to another step)")
    return header, arrays


@contextmanager
def usable(path, kind):
    """Any error inside becomes an InputError: a damaged zip, array or header fails in many ways."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: not a usable {kind} ({reason})") from None


def _read(path, kind):
    """(header, {name: array}) of a checkpoint, or the part of it that a generator needs.

    kind: "checkpoint" or "generator". The file's own settings say which arrays it must have.
    Nothing large is loaded before all of them are known to fit, and nothing by pickle.
    """
    with usable(path, kind), npz.opened(path) as file:
        header = _checked_header(json.loads(npz.text(file, "header")))
        shapes = _state_shapes(header["settings"], len(header["palette"]))
        needed = shapes
        if kind == "generator":
            needed = {name: shape for name, shape in shapes.items()
                      if name.startswith("g.") and name not in ("g.m", "g.v", "g.step")}
        arrays = npz.arrays(file, needed, others=["header", *shapes])
        require_not_negative(arrays)
    return header, arrays


def require_not_negative(arrays):
    """Raises InputError for a negative variance, or number of steps."""
    for name, a in arrays.items():
        if name.endswith((".v", ".running_var", ".step")) and a.min() < 0:
            raise InputError(f"{name} holds a negative number")


def _state_shapes(s, classes):
    """{name: shape} of all arrays in a checkpoint, for networks of any size, without their memory.
    """
    shapes = {}
    for prefix, network in dict(g=semgan.Generator, d=semgan.Discriminator).items():
        drawing = network(None, s, classes, None)
        _, n = buffers.places(drawing.shapes, np.float32)
        for name, shape in dict(params=(n,), m=(n,), v=(n,), step=(1,)).items():
            shapes[f"{prefix}.{name}"] = shape
        for name, shape in drawing.shapes.items():
            if name.endswith(".gamma"):
                for statistic in "mean", "var":
                    shapes[f"{prefix}.{name}.running_{statistic}"] = shape
    return shapes


def _checked_header(header):
    """The header with its settings as a Namespace and its palette as an array. Raises on damage."""
    if header["format"] != FORMAT:
        raise InputError("written by a newer version of this program")
    saved = header["settings"]
    if "experiment" in saved:
        raise InputError(f"a run of experiments.{saved['experiment']}; expected one of semgan.py")
    header["added"] = ADDED_SETTINGS.keys() - saved.keys()
    header["palette"] = palette = np.array(header["palette"], np.uint8)
    if "classes" in header["added"] and saved["dataset"] not in data.NAMED:
        saved["classes"] = len(palette)
    header["settings"] = _checked_settings(ADDED_SETTINGS | saved)
    names = header["names"]
    if palette.shape != (len(names), 3) or not 2 <= len(names) <= 256:
        raise InputError("its palette does not fit its classes")
    if not all(type(name) is str for name in names):
        raise InputError("the name of a class is not a text")
    if type(header["step"]) is not int or not 0 <= header["step"] <= MOST_STEPS:
        raise InputError(f"its step is {header['step']!r:.40}")
    header = {"maps": None, "arithmetic": None} | header
    if type(header["maps"]) not in (int, type(None)):
        raise InputError(f"its maps are {header['maps']!r:.40}")
    if type(header["arithmetic"]) not in (str, type(None)):
        raise InputError(f"its arithmetic is {header['arithmetic']!r:.40}")
    return header


def _checked_settings(saved):
    """A Namespace of the saved settings, in the order of semgan.settings."""
    known = vars(semgan.settings())
    if unknown := saved.keys() - known.keys():
        raise InputError("written by a newer version of this program, with the setting "
                         f"{min(unknown)}")
    if missing := known.keys() - saved.keys():
        raise InputError(f"the setting {min(missing)} is missing")
    for name, default in known.items():
        kinds = (type(None), data.OPTIONS[name]) if name in data.OPTIONS else (type(default),)
        if type(saved[name]) not in kinds:
            raise InputError(f"the setting {name} is {saved[name]!r:.100}")
    s = argparse.Namespace(**{name: saved[name] for name in known})
    semgan.check_settings(s)
    return s


def restore(ops, state, prefix, arrays):
    """Copy arrays of a file into those of `state`: {name: array}, prefix.name in the file."""
    for name, array in state.items():
        ops.write(array, arrays[f"{prefix}.{name}"])


def restore_trainer(trainer, header, arrays, run):
    """Take over the state of a checkpoint. Raises InputError if its data set has changed."""
    dataset = trainer.dataset
    if not same_maps(header, dataset):
        raise InputError(f"{trainer.s.dataset}: its maps or colours have changed since {run} "
                         "was started")
    for prefix, net in trainer.networks.items():
        restore(net.ops, net.state(), prefix, arrays)
    trainer.step = header["step"]


def same_maps(header, dataset):
    """Whether these are the maps and colours of a checkpoint. The first ones hold only the colours.
    """
    return (np.array_equal(header["palette"], dataset.palette)
            and header["maps"] in (None, zlib.crc32(dataset.maps)))


# ------------------------------------------------------------------------------ trained generators
def load_generator(path=TRAINED, device="auto"):
    """A trained generator, and its palette (K, 3) uint8.

    path: a run folder, or a file that export_generator wrote, by default the one that comes with
    the program. device: as in kernels.load. Raises InputError or DeviceError.
    """
    g, header = generator_and_header(path, device)
    return g, header["palette"]


def generator_and_header(path, device):
    """The generator of a run folder or of an exported file, and the file's header: see
    load_checkpoint. Raises as load_generator does.
    """
    path = Path(path)
    if path.is_dir():
        header, arrays = load_checkpoint(path)
    elif path.is_file():
        header, arrays = _read(path, "generator")
    else:
        raise InputError(f"{path}: not found; expected a run folder or an exported generator")
    rng = np.random.default_rng(0)  # initial weights, which the file's replace
    classes = len(header["palette"])
    g = semgan.Generator(kernels.load(device), header["settings"], classes, rng)
    restore(g.ops, needed_to_sample(g), "g", arrays)
    return g, header


def needed_to_sample(g):
    """{name: array} of a generator's parameters and running statistics, without Adam's state."""
    return {name: a for name, a in g.state().items() if name not in ("m", "v", "step")}


def export_generator(run, path):
    """Write the generator of a run to a new file, which load_generator reads.

    The file has its float32 parameters and running statistics, the settings and the palette.
    Raises InputError.
    """
    g, header = generator_and_header(run, "numpy")
    path = Path(path)
    if os.path.lexists(path):
        raise InputError(f"{path} exists already; remove it, or choose another name")
    del header["added"]
    header |= dict(settings=vars(g.s), palette=header["palette"].tolist())
    make_folder(path.parent)
    write_generator(path, g, header)


def write_generator(path, g, header):
    """Write a generator to a file, which load_generator reads. header: as of a checkpoint.

    At any moment `path` is a complete file, or as it was. Raises InputError.
    """
    arrays = {f"g.{name}": g.ops.asnumpy(a) for name, a in needed_to_sample(g).items()}
    try:
        with written(path) as file:
            np.savez_compressed(file, header=json.dumps(header), **arrays)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None


# ---------------------------------------------------------------------------------- the other files
def start_folder(run, trainer):
    """Create the run folder's first files. Returns log.csv, open for appending."""
    try:
        (run / "samples").mkdir(parents=True, exist_ok=True)
        with written(run / "settings.json", "w") as file:
            file.write(json.dumps(vars(trainer.s), indent=1) + "\n")
        write_palette(run / "palette.txt", trainer.dataset.palette, trainer.dataset.names)
        remove_left_over(run / "samples")
        if not trainer.step:  # a run that begins anew: what an earlier one measured is not its own
            for name in "metrics.csv", "evaluation.csv", "best.npz":
                (run / name).unlink(missing_ok=True)
        return open_log(run / "log.csv", trainer)
    except OSError as error:
        raise InputError(f"{error.filename or run}: cannot write there "
                         f"({error.strerror or error})") from None


def open_log(path, trainer):
    """log.csv of a run, open for appending."""
    kinds = ["features", "moments"] if trainer.s.moment_matching else ["features"]
    layers = range(1, trainer.discriminator.layers + 1)
    of_g = [f"{kind}_{i}" for kind in kinds for i in layers] if trainer.matches else ["loss_g"]
    return continued_log(path, ["step", "loss_d", *of_g, "seconds"], trainer.step)


def continued_log(path, header, step):
    """A table of losses, open for appending. Rows past `step` are dropped. Raises InputError."""
    rows = []
    if step and path.exists():
        try:
            with open(path, newline="") as file:
                rows = [row for row in list(csv.reader(file))[1:]
                        if len(row) == len(header) and [float(x) for x in row]
                        and int(row[0]) <= step]
        except (ValueError, csv.Error):
            raise InputError(f"{path}: not a readable log; remove it to continue "
                             "without it") from None
    with written(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return open(path, "a", newline="")


def require_outside(out, s):
    """Raises InputError if `out` lies in the folder of label maps that a run reads.

    What is written there would be read as more maps. s: the settings, or flags of the same names.
    """
    folder = Path(s.dataset).absolute()
    if s.dataset in ("", *data.NAMED) or s.labels or not folder.is_dir():
        return
    if folder.resolve() in (Path(out).resolve(), *Path(out).resolve().parents):
        raise InputError(f"{out}: lies in {s.dataset}, and would be read as more maps; choose "
                         "another place with --out, or the files to read with --labels")


def require_writable(out):
    """Raises InputError if a folder cannot be written to, before anything long is computed."""
    with made(out):
        make_folder(out)
        probe = out / f"writable.{os.getpid()}.tmp"
        try:
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(f"{out}: cannot write there ({error.strerror or error})") from None


def make_folder(out):
    """Create a folder for results. Raises InputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot write there ({error.strerror or error})") from None
