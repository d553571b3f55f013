"""One image of a label map, decoded, checked and resized. Its values stay as in the file."""
import io
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from formats.files import InputError
from formats.palettes import color_code

UNKNOWN = 255  # in a table: this id is no class


class Prepared(NamedTuple):
    """One image, resized, with raw values: class ids, or colours as 24-bit numbers."""
    name: str
    small: np.ndarray   # (height, width): uint8 ids or uint32 colours
    size: tuple         # (height, width) of the image
    pixels: dict        # raw value -> number of pixels; for grey maps perhaps min and max only
    colors: np.ndarray  # (256, 3) uint8 if the image is palette-indexed, else None
    doubtful: float     # share of pixels whose class is in doubt because of JPEG
    changed: float      # share of pixels that show another class after resizing


def prepare_image(name, content, size, crop, allowed, jpeg, survey):
    """The content of one image file -> Prepared. Raises InputError.

    allowed: the table of ids and the set of colours that are classes; None allows any.
    survey: whether unknown values are let through and all pixels counted.
    The other arguments are those of label_maps.load_maps.
    """
    image, doubtful = _decode(name, content), 0
    if image.format == "JPEG":
        if jpeg is None:
            raise InputError(f"{name}: a JPEG, which changes class ids; "
                             "expected a lossless image such as PNG")
        image, doubtful = jpeg(name, content)
    if image.mode == "1":
        image = Image.fromarray(np.asarray(image).astype(np.uint8))
    if image.mode not in ("L", "P", "RGB"):
        raise InputError(f"{name}: image mode {image.mode}; "
                         "expected 8-bit grey, palette-indexed or RGB without alpha")
    raw = np.asarray(image)  # (H, W) or (H, W, 3)
    pixels = _count_pixels(name, image, raw, survey)
    if not survey:
        _refuse_unknown(name, raw, pixels, allowed)
    shape = raw.shape[:2]
    if crop:
        raw = crop_middle(raw, size)
    small = resize_nearest(raw, size)
    changed = _changed_share(raw, small) if survey else 0
    if raw.ndim == 3:
        small = color_code(small)
    return Prepared(name, small, shape, pixels, _own_colors(image), doubtful, changed)


def _decode(name, content):
    """A Pillow image, decoded."""
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        return image
    except UnidentifiedImageError:
        raise InputError(f"{name}: not an image") from None
    except Exception as error:  # damaged files, and bombs, fail in many ways
        raise InputError(f"{name}: damaged or unreadable image ({error})") from None


def _count_pixels(name, image, raw, survey):
    """{raw value: its number of pixels}. For grey maps outside a survey, min and max only."""
    if image.mode == "RGB":
        found = image.getcolors(256)
        if found is None:
            raise InputError(f"{name}: an RGB image of more than 256 colours (anti-aliased or "
                             "compressed?); expected one colour per class, or give "
                             "--palette FILE with one `R G B name` line per class")
        return {int(color_code(color)): count for count, color in found}
    if image.mode == "P" or survey:
        return {value: count for value, count in enumerate(image.histogram()) if count}
    # Ids have no gaps, so the lowest and the highest are enough; finding them is ten times faster.
    return dict.fromkeys((int(raw.min()), int(raw.max())))


def _refuse_unknown(name, raw, pixels, allowed):
    """Raises InputError for the first pixel whose raw value is no class."""
    table, codes = allowed
    if raw.ndim == 3:
        bad = [] if codes is None else [value for value in pixels if value not in codes]
    else:
        bad = [] if table is None else [value for value in pixels if table[value] == UNKNOWN]
    if not bad:
        return
    row, column = np.argwhere(np.isin(color_code(raw) if raw.ndim == 3 else raw, bad))[0].tolist()
    where = f"at row {row}, column {column}"
    if raw.ndim == 3:
        color = tuple(raw[row, column].tolist())
        raise InputError(f"{name}: colour {color} {where} is not in the palette")
    good = np.flatnonzero(table != UNKNOWN)
    raise InputError(f"{name}: class id {raw[row, column]} {where}; "
                     f"expected ids {good[0]} to {good[-1]} ({len(good)} classes)")


def _own_colors(image):
    """The palette of a palette-indexed image, (256, 3) uint8, else None."""
    if image.mode != "P":
        return None
    colors = np.zeros((256, 3), np.uint8)
    own = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    colors[:len(own)] = own
    return colors


def crop_middle(ids, size):
    """The largest part in the middle of (H, W, ...) with the proportions of `size`."""
    (old_h, old_w), (h, w) = ids.shape[:2], size
    h, w = max(1, min(old_h, old_w * h // w)), max(1, min(old_w, old_h * w // h))
    top, left = (old_h - h) // 2, (old_w - w) // 2
    return ids[top:top + h, left:left + w]


def resize_nearest(ids, size):
    """(H, W, ...) -> (*size, ...): each pixel takes the value at its centre.

    size: (height, width). Nothing is interpolated, so no class can appear that was not there.
    """
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new)
                     for old, new in zip(ids.shape, size))
    return ids[rows[:, None], columns]


def _changed_share(raw, small):
    """Share of pixels that differ between a map and its resized copy, enlarged again."""
    rows, columns = (np.arange(old) * new // old for old, new in zip(raw.shape[:2], small.shape))
    differs = small[rows[:, None], columns] != raw
    return float((differs.any(-1) if raw.ndim == 3 else differs).mean())
