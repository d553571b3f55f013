"""Palettes: a colour for each class, read from a file, written to one, or chosen."""
from pathlib import Path

import numpy as np

from formats.files import InputError, printable, require_file, written

LARGEST_FILE = 1 << 20           # bytes of a palette
LONGEST_NAME = 100               # characters of the name of a class
UNKNOWN_COLOR = (255, 0, 255)    # drawn where a pixel is no class


def read_palette(path):
    """Read a text file with one class per line, `R G B` and an optional name.

    Returns (K, 3) uint8 and K names. Raises InputError.
    """
    try:
        require_file(path, LARGEST_FILE)
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise InputError(f"{path}: not a readable palette ({reason})") from None
    colors, names = [], []
    for number, line in enumerate(lines, 1):
        fields = line.split("#")[0].split(maxsplit=3)
        if not fields:
            continue
        color = _parse_color(fields[:3])
        where = f"{path}, line {number}"
        if color is None:
            raise InputError(f"{where}: expected `R G B name` with numbers from 0 to 255, "
                             f"found {line.strip()[:LONGEST_NAME]!r}")
        if color in colors:
            raise InputError(f"{where}: the colour {color} is already class {colors.index(color)}")
        name = fields[3].strip() if len(fields) > 3 else f"class {len(colors)}"
        if len(name) > LONGEST_NAME:
            raise InputError(f"{where}: a name of {len(name)} characters; "
                             f"expected {LONGEST_NAME} at most")
        names.append(printable(name))
        colors.append(color)
    if not 2 <= len(colors) <= 255:
        raise InputError(f"{path}: {len(colors)} colours; "
                         "expected 2 to 255, one per line as `R G B name`")
    return np.array(colors, np.uint8), names


def _parse_color(fields):
    """Three numbers from 0 to 255, or None."""
    try:
        color = [int(field) for field in fields]
    except ValueError:
        return None
    return color if len(color) == 3 and all(0 <= value <= 255 for value in color) else None


def write_palette(path, palette, names):
    """Write a palette (K, 3) and K class names to a file that read_palette reads."""
    with written(path) as file:
        for (r, g, b), name in zip(palette.tolist(), names):
            name = printable(name).replace("#", "?")  # where a comment would begin
            file.write(f"{r} {g} {b} {name}\n".encode(errors="replace"))


def distinct_colors(classes, own=()):
    """(K, 3) uint8: a colour for each class, each new one as far as can be from all others.

    own: {class: colour} of those that have one already. Farthest-point sampling (Gonzalez 1985)
    on a grid of colours; distances are those of RGB. More classes begin with the same colours.
    """
    levels = np.arange(0, 256, 15)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    own, palette = dict(own), np.zeros((classes, 3), np.uint8)
    nearest = np.full(len(grid), np.inf)  # squared distance from each to the nearest that is taken
    for color in [UNKNOWN_COLOR, *own.values()]:
        nearest = np.minimum(nearest, ((grid - color) ** 2).sum(1))
    for k in range(classes):
        palette[k] = own[k] if k in own else grid[nearest.argmax()]
        nearest = np.minimum(nearest, ((grid - palette[k]) ** 2).sum(1))
    return palette


def color_code(rgb):
    """(..., 3) uint8 -> (...) uint32: each colour as one number of 24 bits."""
    r, g, b = np.moveaxis(np.asarray(rgb, np.uint32), -1, 0)
    return r << 16 | g << 8 | b


def split_code(code):
    """The colour (R, G, B) of a number that color_code gave."""
    return code >> 16, code >> 8 & 255, code & 255
