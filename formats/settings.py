"""Settings as they come from outside: from flags, a checkpoint, or a caller."""
import re

import numpy as np

from formats.files import InputError

# All other whole numbers are 1 or more, all other numbers above 0.
MAY_BE_ZERO = ("width", "seed", "decay_after", "half_life", "moment_matching",
               "adversarial_weight")
MOST_PIXELS = 1 << 24  # of a map
MOST_STEPS = 1 << 24   # as many as Adam can count


def check_values(s, defaults, choices):
    """Raises InputError for a setting that no network can work with; the message names its flag.

    s: settings as attributes. defaults: {name: (default, ...)}, whose types say what a setting may
    be. choices: {name: allowed values}.
    """
    for name, allowed in choices.items():
        require(s, name, getattr(s, name) in allowed, " or ".join(allowed))
    for name, (default, *_) in defaults.items():
        value = getattr(s, name)
        if type(default) is list:
            good = value and all(type(n) is int and 1 <= n < 1 << 31 for n in value)
            require(s, name, good, "channels of 1 or more")
        elif type(default) is int:
            least = 0 if name in MAY_BE_ZERO else 1
            good = type(value) is int and least <= value < 1 << 31
            require(s, name, good, f"{least} or more, below 2147483648")
        elif type(default) is float:
            with np.errstate(over="ignore"):
                in_float32 = np.float32(value)
            if name in ("beta1", "beta2"):
                require(s, name, 0 <= in_float32 < 1, "from 0 to below 1 in float32")
            elif name not in MAY_BE_ZERO or value != 0:
                zero = "0, or " if name in MAY_BE_ZERO else ""
                require(s, name, 0 < in_float32 < np.inf,
                        f"{zero}a number above 0 that float32 can hold")
    require(s, "bn_momentum", s.bn_momentum <= 1, "a number above 0, up to 1")
    require(s, "steps", s.steps <= MOST_STEPS,
            f"at most {MOST_STEPS}: Adam counts steps in float32")


def check(s, defaults, choices):
    """check_values, and what only the networks of semgan.py ask for. Raises InputError."""
    check_values(s, defaults, choices)
    require(s, "kernel_size", s.kernel_size % 2 == 1, "an odd number, so that padding is symmetric")
    require(s, "classes", s.classes is None or 2 <= s.classes <= 255, "2 to 255")
    require(s, "maps", s.maps is None or 1 <= s.maps < 1 << 20, "1 or more, below a million")
    require(s, "data", s.data is None or all(type(path) is str for path in s.data), "paths")
    check_size(s)


def check_size(s):
    """Raises InputError for maps that are too large, or that the networks cannot halve."""
    height, width = s.side, s.width or s.side
    multiple, flag = "a multiple", f"--side {height}"
    if width != height:
        multiple, flag = "multiples", f"--size {shown_size((height, width))}"
    if height * width > MOST_PIXELS:
        raise InputError(f"{flag}: expected at most {MOST_PIXELS} pixels")
    for network, layers in (("generator", len(s.generator_filters) - 1),
                            ("discriminator", len(s.discriminator_filters))):
        require(s, f"{network}_filters", layers < 31, "fewer layers: each halves the side")
        if (height | width) % 2 ** layers:
            raise InputError(f"{flag}: expected {multiple} of {2 ** layers}, since the {network} "
                             f"has {layers} layers of stride 2")


def given_size(args):
    """(height, width) of the flag --size or --side, None without both. Raises InputError."""
    if args.size is None:
        return None if args.side is None else (args.side, args.side)
    if args.side is not None:
        raise InputError(f"--side {args.side} and --size {args.size}: expected one of them")
    number = "([1-9][0-9]{0,8})"
    found = re.fullmatch(f"{number}(?:[xX]{number})?", args.size)
    if not found:
        raise InputError(f"--size {args.size}: expected HEIGHTxWIDTH in pixels, such as 64x128")
    return int(found[1]), int(found[2] or found[1])


def shown_size(size):
    """(height, width) as text, such as 64x128."""
    return "x".join(map(str, size))


def require(s, name, good, expected):
    if not good:
        flag = name.replace("_", "-")
        value = getattr(s, name)
        value = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        value = value if len(value) <= 100 else value[:100] + "..."
        raise InputError(f"--{flag} {value}: expected {expected}")
