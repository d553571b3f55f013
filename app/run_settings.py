"""The settings of a run: taken from the flags or from a checkpoint, each with its origin."""
import os
from argparse import Namespace

import data
import semgan
from formats.files import InputError, printable
from formats.settings import given_size, shown_size

PATHS = {"dataset": "folder or archive", "data": "folder or archive", "palette": "palette",
         "photos": "folder or archive"}
OF_MATCHING = ("feature_matching", "moment_matching", "feature_layers")
MOVABLE = ("dataset", "data", "palette", "labels")  # say where a run's maps are


def given_settings(args):
    """{setting: value} for the flags that were given. --size and --side give side and width.

    Paths become absolute, so that --resume works from any folder. Raises InputError.
    """
    names = "dataset", "preset", "model", *data.OPTIONS, *semgan.SETTINGS
    given = {name: vars(args).get(name) for name in names}
    if size := given_size(args):
        height, width = size
        given |= dict(side=height, width=0 if width == height else width)
    return with_absolute_paths(given)


def with_absolute_paths(given):
    """{setting: value} without the values None. Raises InputError for an empty path."""
    given = {name: value for name, value in given.items() if value is not None}
    for name in given.keys() & PATHS.keys():
        paths = given[name] if name == "data" else [given[name]]
        if "" in paths:
            raise InputError(f"--{name} is empty: expected the path of a {PATHS[name]}")
        absolute = [os.path.realpath(path) for path in paths]
        if name == "data":
            given[name] = absolute
        elif name == "palette" or given[name] not in data.NAMED:
            given[name] = absolute[0]
    return given


def resolve(given, gpu=False):
    """The settings of a new run, and {setting: where it came from}. given: {setting: value}.

    Raises InputError.
    """
    preset = given.get("preset") or ("full" if gpu else "small")
    s = semgan.settings(**given | {"preset": preset})
    origin = dict.fromkeys(vars(s), "default")
    origin["preset"] = "on a GPU" if gpu else "not on a GPU"
    for source, values in semgan.setting_layers(s.dataset, preset):
        origin |= dict.fromkeys(values, source)
    origin |= dict.fromkeys(given, "flag")
    if s.generator_loss == "non_saturating":
        if unused := [name for name in OF_MATCHING if name in given]:
            raise InputError(f"--{unused[0].replace('_', '-')} {shown(given[unused[0]])} has no "
                             "effect with --generator-loss non_saturating; leave one of them out")
        origin |= dict.fromkeys(OF_MATCHING, "no effect without feature matching")
    return s, origin


def resumed(header, given, run):
    """The settings of a run that continues from a checkpoint, and {setting: where it came from}.

    Raises InputError if a flag contradicts the checkpoint: only --steps can change, and where the
    maps are; whether those are the same maps, the caller must find out. The first versions did not
    store the options of a data set, so these can be given again.
    """
    s = header["settings"]
    origin = dict.fromkeys(vars(s), "checkpoint")
    for name, value in given.items():
        new = value != getattr(s, name)
        if (name == "steps" or name in header["added"] and name in data.OPTIONS
                or new and can_move(header, name, value)):
            origin[name] = "flag"
        elif new:
            flag, here, there = name.replace("_", "-"), shown(value), shown(getattr(s, name))
            if name in ("side", "width"):
                flag = "size"
                here, there = (shown_size(semgan.map_size(x)) for x in (Namespace(**given), s))
            raise InputError(f"--{flag} {here}: {run} was started with {there}; only --steps can "
                             "change, and where the maps are")
    if given.get("steps", header["step"]) < header["step"]:
        raise InputError(f"--steps {given['steps']}: {run} is already at step {header['step']}")
    vars(s).update(given)
    semgan.check_settings(s)
    return s, origin


def can_move(header, name, value):
    """Whether a setting says where the run's maps are, so that it may change if they do not."""
    named = name == "dataset" and {value, header["settings"].dataset} & set(data.NAMED)
    return name in MOVABLE and header["maps"] is not None and not named


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
    if header:
        require_maps(s)
    options = {name: getattr(s, name) for name in data.OPTIONS}
    dataset = data.load(s.dataset, s.side, s.seed, width=s.width or None, **options)
    if header and dataset.invented and len(header["palette"]) == dataset.classes:
        dataset.palette[dataset.invented] = header["palette"][dataset.invented]
    return dataset


def require_maps(s):
    """Raises InputError if the maps of a run are no longer where its settings say."""
    flag, paths = ("data", s.data) if s.dataset in data.NAMED else ("dataset", [s.dataset])
    for path in paths or ():
        if not os.path.lexists(path):
            raise InputError(f"{path}: no such folder or archive; if the maps of this run have "
                             f"moved, --{flag} NEW says where they are")


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
        print(printable(f"{name.replace('_', ' '):28s} {value!s:24s} {source}".rstrip()))
