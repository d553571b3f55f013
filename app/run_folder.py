"""The files of a run folder: checkpoint.npz, settings.json, log.csv, palette.txt; exported ones."""
import argparse
import csv
import json
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import data
import kernels
import semgan
from formats.files import InputError, written
from formats.palettes import write_palette

FORMAT = 1  # of checkpoints and of exported generators
TRAINED = Path(__file__).resolve().parents[1] / "tutorial" / "trained.npz"  # comes with the program

# Settings that the first checkpoints did not have, with the values that reproduce their behaviour.
# If you add a setting to semgan.py or data.py, add a line here, so that earlier runs still load.
ADDED_SETTINGS = {
    "width": 0,          # the same as the height
    "decay_after": 0,
    "half_life": 0,      # constant learning rates
    "bn_momentum": 0.1,
    "bn_eps": 1e-5,
    "moment_matching": 0.0,
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
def save_checkpoint(path, trainer):
    """Write all that training needs to continue. At any moment `path` is a complete checkpoint.

    Raises FloatingPointError if a parameter is not finite, and InputError if the file cannot
    be written.
    """
    arrays = {f"{prefix}.{name}": trainer.ops.asnumpy(array)
              for prefix, net in trainer.networks.items() for name, array in net.state().items()}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise FloatingPointError(f"step {trainer.step}: a parameter is NaN or infinite")
    dataset = trainer.dataset
    header = dict(format=FORMAT, step=trainer.step, settings=vars(trainer.s),
                  arithmetic=trainer.ops.arithmetic, palette=dataset.palette.tolist(),
                  names=dataset.names, maps=zlib.crc32(dataset.maps))
    try:
        with written(path) as file:
            np.savez(file, header=json.dumps(header), **arrays)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); "
                         "an earlier checkpoint is unchanged") from None


def load_checkpoint(run):
    """(header, {name: array}) of the checkpoint in a run folder. Raises InputError.

    header: {"step": int, "settings": Namespace, "palette": (K, 3) uint8, "names": K class names,
    "maps": CRC-32 of the training maps or None, "arithmetic": str or None, "added": settings that
    the checkpoint lacks and that ADDED_SETTINGS gave}. Nothing in the file is ever executed.
    """
    path = Path(run) / "checkpoint.npz"
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; expected the folder of a run")
    with _usable(path, "checkpoint"):
        header, arrays = _read(path)
        if any(arrays[prefix + ".step"].tolist() != [header["step"]] for prefix in "gd"):
            raise InputError("its networks belong to another step")
    return header, arrays


@contextmanager
def _usable(path, kind):
    """Any error inside becomes an InputError: a damaged zip, array or header fails in many ways."""
    try:
        yield
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: not a usable {kind} ({reason})") from None


def _read(path):
    """(header, {name: array}) of a checkpoint or of an exported generator, without pickle."""
    if not zipfile.is_zipfile(path):
        raise InputError("damaged, or not an .npz file")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return _checked_header(json.loads(str(arrays.pop("header")))), arrays


def _checked_header(header):
    """The header with its settings as a Namespace and its palette as an array. Raises on damage."""
    if header["format"] != FORMAT:
        raise InputError("written by a newer version of this program")
    saved = header["settings"]
    header["added"] = ADDED_SETTINGS.keys() - saved.keys()
    header["palette"] = palette = np.array(header["palette"], np.uint8)
    if "classes" in header["added"] and saved["dataset"] not in data.NAMED:
        saved["classes"] = len(palette)
    header["settings"] = _checked_settings(ADDED_SETTINGS | saved)
    if palette.shape != (len(header["names"]), 3):
        raise InputError("its palette does not fit its classes")
    if type(header["step"]) is not int or header["step"] < 0:
        raise InputError(f"its step is {header['step']!r}")
    return {"maps": None, "arithmetic": None} | header


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
            raise InputError(f"the setting {name} is {saved[name]!r}")
    s = argparse.Namespace(**{name: saved[name] for name in known})
    semgan.check_settings(s)
    return s


def restore(ops, state, prefix, arrays, path):
    """Copy the arrays of a file into those of `state`. Raises InputError if one does not fit.

    state: {name: array}, such as the state of a network, which the file has as prefix.name.
    """
    for name, array in state.items():
        key = f"{prefix}.{name}"
        saved = arrays.get(key)
        if saved is None:
            found = "nothing"
        elif saved.shape != array.shape or saved.dtype.kind != "f":
            found = f"{saved.dtype} {saved.shape}"
        elif not np.isfinite(saved).all():
            found = "NaN or infinity"
        else:
            ops.write(array, saved)
            continue
        raise InputError(f"{path}: damaged, or of another model "
                         f"({key}: expected {array.shape}, found {found})")


def restore_trainer(trainer, header, arrays, run):
    """Take over the state of a checkpoint. Raises InputError if its data set has changed."""
    dataset = trainer.dataset
    if not same_maps(header, dataset) or not np.array_equal(header["palette"], dataset.palette):
        raise InputError(f"{trainer.s.dataset}: its maps or colours have changed since {run} "
                         "was started")
    for prefix, net in trainer.networks.items():
        restore(net.ops, net.state(), prefix, arrays, run / "checkpoint.npz")
    trainer.step = header["step"]


def same_maps(header, dataset):
    """Whether these are the maps of a checkpoint. The first checkpoints hold only the palette."""
    if header["maps"] is None:
        return np.array_equal(header["palette"], dataset.palette)
    return header["maps"] == zlib.crc32(dataset.maps)


# ------------------------------------------------------------------------------ trained generators
def load_generator(path=TRAINED, device="auto"):
    """A trained generator, and its palette (K, 3) uint8.

    path: a run folder, or a file that export_generator wrote, by default the one that comes with
    the program. device: as in kernels.load. Raises InputError or DeviceError.
    """
    g, header = _generator(path, device)
    return g, header["palette"]


def _generator(path, device):
    """The generator of a run folder or of an exported file, and its header."""
    path = Path(path)
    if path.is_dir():
        header, arrays = load_checkpoint(path)
        path = path / "checkpoint.npz"
    elif path.is_file():
        with _usable(path, "generator"):
            header, arrays = _read(path)
    else:
        raise InputError(f"{path}: not found; expected a run folder or an exported generator")
    rng = np.random.default_rng(0)  # initial weights, which the file's replace
    classes = len(header["palette"])
    g = semgan.Generator(kernels.load(device), header["settings"], classes, rng)
    restore(g.ops, _needed_to_sample(g), "g", arrays, path)
    return g, header


def _needed_to_sample(g):
    """{name: array} of a generator's parameters and running statistics, without Adam's state."""
    return {name: a for name, a in g.state().items() if name not in ("m", "v", "step")}


def export_generator(run, path):
    """Write the generator of a run to a new file, which load_generator reads.

    The file has its float32 parameters and running statistics, the settings and the palette.
    Raises InputError.
    """
    g, header = _generator(run, "numpy")
    path = Path(path)
    if path.exists():
        raise InputError(f"{path} exists already; remove it, or choose another name")
    del header["added"]
    header |= dict(settings=vars(g.s), palette=header["palette"].tolist())
    arrays = {f"g.{name}": g.ops.asnumpy(a) for name, a in _needed_to_sample(g).items()}
    make_folder(path.parent)
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
        if trainer.dataset.learnt:  # colours of RGB maps in the order of their ids, for --palette
            dataset = trainer.dataset
            write_palette(run / "palette.txt", dataset.palette, dataset.names)
        return open_log(run / "log.csv", trainer)
    except OSError as error:
        raise InputError(f"{run}: cannot write there ({error.strerror or error})") from None


def open_log(path, trainer):
    """log.csv, open for appending. Rows past the trainer's step are dropped."""
    kinds = ["features", "moments"] if trainer.s.moment_matching else ["features"]
    layers = range(1, trainer.discriminator.layers + 1)
    header = ["step", "loss_d", *(f"{kind}_{i}" for kind in kinds for i in layers), "seconds"]
    rows = []
    if trainer.step and path.exists():
        try:
            with open(path, newline="") as file:
                rows = [row for row in list(csv.reader(file))[1:]
                        if len(row) == len(header) and [float(x) for x in row]
                        and int(row[0]) <= trainer.step]
        except (ValueError, csv.Error):
            raise InputError(f"{path}: not a readable log; remove it to continue "
                             "without it") from None
    with written(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return open(path, "a", newline="")


def make_folder(out):
    """Create a folder for results. Raises InputError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot write there ({error.strerror or error})") from None
