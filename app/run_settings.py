"""The settings of a run: taken from the flags or from a checkpoint, each with its origin."""
from argparse import Namespace
from pathlib import Path

import data
import semgan
from formats.files import InputError
from formats.settings import given_size, shown_size

PATHS = {"dataset": "folder or archive", "data": "folder or archive", "palette": "palette"}


def given_settings(args):
    """{setting: value} for the flags that were given. --size and --side give side and width.

    Paths become absolute, so that --resume works from any folder. Raises InputError for an
    empty path, or a size that cannot be read.
    """
    names = "dataset", "preset", "model", *data.OPTIONS, *semgan.SETTINGS
    given = {name: value for name in names if (value := vars(args).get(name)) is not None}
    if size := given_size(args):
        height, width = size
        given |= dict(side=height, width=0 if width == height else width)
    for name in given.keys() & PATHS.keys():
        paths = given[name] if name == "data" else [given[name]]
        if "" in paths:
            raise InputError(f"--{name} is empty: expected the path of a {PATHS[name]}")
        absolute = [str(Path(path).resolve()) for path in paths]
        if name == "data":
            given[name] = absolute
        elif name == "palette" or given[name] not in data.NAMED:
            given[name] = absolute[0]
    return given


def resolve(given, gpu=False):
    """The settings of a new run, and {setting: where it came from}. given: {setting: value}."""
    preset = given.get("preset") or ("full" if gpu else "small")
    s = semgan.settings(**given | {"preset": preset})
    origin = dict.fromkeys(vars(s), "default")
    origin["preset"] = "on a GPU" if gpu else "not on a GPU"
    for source, values in semgan.setting_layers(s.dataset, preset):
        origin |= dict.fromkeys(values, source)
    origin |= dict.fromkeys(given, "flag")
    return s, origin


def resumed(header, given, run):
    """The settings of a run that continues from a checkpoint, and {setting: where it came from}.

    Raises InputError if a flag contradicts the checkpoint: only --steps can change. The first
    versions did not store the options of a data set, so these can be given again.
    """
    s = header["settings"]
    origin = dict.fromkeys(vars(s), "checkpoint")
    for name, value in given.items():
        if name == "steps" or name in header["added"] and name in data.OPTIONS:
            origin[name] = "flag"
        elif value != getattr(s, name):
            flag, here, there = name.replace("_", "-"), shown(value), shown(getattr(s, name))
            if name in ("side", "width"):
                flag = "size"
                here, there = (shown_size(semgan.map_size(x)) for x in (Namespace(**given), s))
            raise InputError(f"--{flag} {here}: {run} was started with {there}; with --resume only "
                             "--steps can change")
    if given.get("steps", header["step"]) < header["step"]:
        raise InputError(f"--steps {given['steps']}: {run} is already at step {header['step']}")
    vars(s).update(given)
    semgan.check_settings(s)
    return s, origin


def shown(value):
    """The value of a setting as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def load_dataset(s, header=None):
    """The LabelMaps that the settings name, resized to their size.

    header: of a checkpoint. Colours that its version of this program made up stay.
    """
    options = {name: getattr(s, name) for name in data.OPTIONS}
    dataset = data.load(s.dataset, s.side, s.seed, width=s.width or None, **options)
    if header and dataset.invented and len(header["palette"]) == dataset.classes:
        dataset.palette[dataset.invented] = header["palette"][dataset.invented]
    return dataset


def print_settings(s, origin, run, dataset):
    """A table of all settings, each with its origin, then the data set and the run folder."""
    values = {name: shown(value) for name, value in vars(s).items() if name != "width"}
    values["side"] = shown_size(semgan.map_size(s))
    rows = [("size, height x width" if name == "side" else name, value, origin[name])
            for name, value in values.items()]
    blurred = f"{dataset.doubtful:.1%} of the pixels blurred by JPEG" if dataset.doubtful else ""
    rows += [("maps", f"{len(dataset.maps)} of {dataset.classes} classes", blurred),
             ("run folder", run, "")]
    for name, value, source in rows:
        print(f"{name.replace('_', ' '):28s} {value!s:24s} {source}".rstrip())
