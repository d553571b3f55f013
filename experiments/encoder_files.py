"""Files around an encoder: its generator, its checkpoints in RUN/encoder/, label maps to encode."""
import json
import warnings
import zlib
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import data
from app.run_folder import (
    copies,
    generator_and_header,
    needed_to_sample,
    require_not_negative,
    restore,
    same_maps,
    usable,
)
from app.run_settings import MOVABLE, load_dataset, resumed, with_absolute_paths
from experiments import encoder
from formats import archives, memory, npz
from formats.files import InputError, command, digest, require_file
from formats.images import UNKNOWN, prepare_image
from formats.label_maps import IMAGES, classifier
from formats.palettes import color_code
from formats.settings import shown_size
from kernels import buffers

FORMAT = 1  # of an encoder's checkpoint
NEW_SHAPES = 5000  # Colored Shapes to train on, at least
HELD_OUT = 10  # one in so many maps of other data sets


# ------------------------------------------------------------------------- the generator, its maps
def load_frozen(path, device="auto"):
    """The FrozenGenerator of a run folder or an exported file, and the file's header.

    Raises InputError, also for the baseline, and DeviceError.
    """
    g, header = generator_and_header(path, device)
    try:
        return encoder.FrozenGenerator(g), header
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def fingerprint(g):
    """CRC-32 of a generator's parameters and running statistics: tells one from another."""
    crc = 0
    for a in needed_to_sample(g).values():
        crc = zlib.crc32(np.ascontiguousarray(g.ops.asnumpy(a), np.float32), crc)
    return crc


def of_run(header, args, path):
    """The settings of the generator's run; flags say where its maps are now. Raises InputError."""
    moved = with_absolute_paths({name: getattr(args, name) for name in MOVABLE})
    s, _ = resumed(header, moved, path)
    return s


def real_maps(s, header, path):
    """(maps to train E on, held-out maps), (N, H, W) uint8 each. Raises InputError.

    s: the settings of the generator's run. Of Colored Shapes both are new ones, which G has not
    seen either, in random order. Of other data sets both are the run's own: E does not see the last
    tenth, but G did.
    """
    if s.dataset == "shapes":
        new = partial(data.load, "shapes", s.side, width=s.width or None)
        train, held = (new([s.seed, 10, i], maps=least).maps
                       for i, least in enumerate((NEW_SHAPES, None)))
        return train, np.random.default_rng(s.seed).permutation(held)
    dataset = load_dataset(s, header)
    if not same_maps(header, dataset):
        raise InputError(f"{s.dataset}: its maps or colours have changed since {path} was trained")
    maps = dataset.unpaired
    if len(maps) < 2:
        raise InputError(f"{s.dataset}: one map; expected two or more, one to be held out")
    train, held = np.split(maps, [-max(1, len(maps) // HELD_OUT)])
    if dataset.mirrored:
        train = np.concatenate([train, train[:, :, ::-1]])
    return train, held


# ------------------------------------------------------------------------------------- checkpoints
def checksum(maps):
    """CRC-32 of label maps (N, H, W)."""
    return zlib.crc32(np.ascontiguousarray(maps))


def snapshot(trainer):
    """(header, {name: array}) of all that training needs to continue, copies of this moment.

    Raises FloatingPointError if a parameter is not finite.
    """
    t, s = trainer, trainer.s
    header = dict(format=FORMAT, step=t.step, stages=s.stages, generator=fingerprint(t.g),
                  settings={name: getattr(s, name) for name in encoder.SETTINGS},
                  maps=checksum(t.maps), arithmetic=t.ops.arithmetic)
    return header, copies(t.ops, {"e": t.encoder}, t.step)


def read_checkpoint(path, g):
    """(header, settings, {name: array}) of an encoder of the generator g. Raises InputError.

    Nothing in the file is ever executed, and nothing large is read before all of it fits.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such encoder; `train` makes it")
    with usable(path, "encoder"), npz.opened(path) as file:
        header = json.loads(npz.text(file, "header"))
        s = _checked_settings(header, g)
        shapes = encoder.Encoder(None, s, g.shapes["conv.b"][0], None).shapes
        _, n = buffers.places(shapes, np.float32)
        shapes = {"e.params": (n,), "e.m": (n,), "e.v": (n,), "e.step": (1,)}
        arrays = npz.arrays(file, shapes, others=["header"])
        require_not_negative(arrays)
    return header, s, arrays


def _checked_settings(header, g):
    """The settings of a checkpoint's encoder. Raises InputError, and others on damage."""
    if header["format"] != FORMAT:
        raise InputError("written by a newer version of this program")
    if header["generator"] != fingerprint(g):
        raise InputError("it belongs to another generator, or to this one before further training")
    saved = header["settings"]
    if saved.keys() != encoder.SETTINGS.keys():
        raise InputError(f"it has the settings {', '.join(saved):.200}")
    for name, (default, _) in encoder.SETTINGS.items():
        if type(saved[name]) is not type(default):
            raise InputError(f"the setting {name} is {saved[name]!r:.100}")
    s = encoder.settings(g.s, header["stages"], **saved)
    steps = sum(encoder.steps_of_stages(s))
    if type(header["step"]) is not int or not 0 <= header["step"] <= steps:
        raise InputError(f"its step is {header['step']!r:.40}")
    return s


def load_encoder(path, g):
    """A trained Encoder of the generator g, and the number of its steps. Raises InputError."""
    header, s, arrays = read_checkpoint(path, g)
    e = encoder.Encoder(g.ops, s, g.shapes["conv.b"][0], np.random.default_rng(0))
    restore(g.ops, e.state(), "e", arrays)
    return e, header["step"]


# --------------------------------------------------------------------------------- maps to encode
def read_maps(path, size, palette, resize=False):
    """Label maps in a run's classes: ((N, H, W) uint8, N names). Raises InputError.

    path: a folder, a .zip or .tar(.gz), or one image. Grey and indexed images hold class ids, and
    the colours of indexed ones must be the run's; RGB images hold its colours. Without `resize`
    all maps must have the size (height, width).
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such image, folder or archive of label maps")
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise InputError(f"{path}: a JPEG, which changes class ids; expected {', '.join(IMAGES)}")
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if path.is_file() and path.suffix.lower() in IMAGES:
            require_file(path, archives.LARGEST_FILE)
            members = [archives.Member(path.name, str(path), "*", path.read_bytes,
                                       partial(digest, path))]
        else:
            patterns = [f"*{end}" for end in IMAGES]
            members = stack.enter_context(archives.opened(path, patterns))
            members = sorted(members, key=lambda member: member.name)
        if not members:
            raise InputError(f"{path}: no label maps in it (expected {', '.join(IMAGES)} files)")
        memory.require("reading the maps", {"the number of maps": len(members) * np.prod(size)})
        maps = [_class_ids(member, size, palette, resize) for member in members]
    return np.stack(maps), [member.name for member in members]


def _class_ids(member, size, palette, resize):
    """One map, (H, W) uint8. Raises InputError."""
    codes = color_code(palette)
    table = np.where(np.arange(256) < len(palette), np.arange(256), UNKNOWN).astype(np.uint8)
    image = prepare_image(member.full, archives.content(member), size, False,
                          (table, set(codes.tolist())), None, None, False)
    if image.size != tuple(size) and not resize:
        raise InputError(f"{image.name}: {shown_size(image.size)} (height x width); expected the "
                         f"{shown_size(size)} of the run, or --resize")
    if image.colors is not None:
        other = [k for k in image.pixels if (image.colors[k] != palette[k]).any()]
        if other:
            k = other[0]
            raise InputError(f"{image.name}: its palette gives class {k} the colour "
                             f"{tuple(image.colors[k].tolist())}; expected the run's "
                             f"{tuple(palette[k].tolist())}")
    if image.small.dtype == np.uint32 and len(set(codes.tolist())) < len(codes):
        raise InputError(f"{image.name}: an RGB map, but two classes of the run share a colour")
    return classifier(palette, table)(image.small)


# -------------------------------------------------------------------------------- for the messages
def here(*words):
    """A command line of this module, to paste."""
    return command("-m experiments.encoder", *words)


def run_words(args):
    """What named the generator on the command line."""
    return ["--trained"] if args.trained else [Path(args.run)]
