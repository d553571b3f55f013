"""Palettes: a colour for each class, read from a file, written to one, or chosen."""
import colorsys
from pathlib import Path

import numpy as np

from formats.files import InputError, printable, written


def read_palette(path):
    """Read a text file with one class per line, `R G B` and an optional name.

    Returns (K, 3) uint8 and K names. Raises InputError.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
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
                             f"found {line.strip()!r}")
        if color in colors:
            raise InputError(f"{where}: the colour {color} is already class {colors.index(color)}")
        names.append(fields[3].strip() if len(fields) > 3 else f"class {len(colors)}")
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


def write_palette(path, dataset):
    """Write the palette and class names of a data set to a file that read_palette reads."""
    with written(path) as file:
        for (r, g, b), name in zip(dataset.palette.tolist(), dataset.names):
            name = printable(name).replace("#", "?")  # where a comment would begin
            file.write(f"{r} {g} {b} {name}\n".encode(errors="replace"))


def distinct_colors(classes):
    """(K, 3) uint8: hues in steps of the golden ratio, so that neighbours differ clearly."""
    colors = []
    for k in range(classes):
        brightness = (0.95, 0.75, 0.5)[k % 3]
        color = colorsys.hsv_to_rgb(k * 0.618 % 1, 0.7, brightness)
        colors.append([round(255 * value) for value in color])
    return np.array(colors, np.uint8)


def color_code(rgb):
    """(..., 3) uint8 -> (...) uint32: each colour as one number of 24 bits."""
    r, g, b = np.moveaxis(np.asarray(rgb, np.uint32), -1, 0)
    return r << 16 | g << 8 | b
