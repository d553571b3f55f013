"""One image of a label map, decoded, checked and resized. Its values stay as in the file."""
import io
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from formats.files import InputError
from formats.palettes import color_code, split_code

UNKNOWN = 255  # in a table: this id is no class
PNG = b"\x89PNG\r\n\x1a\n"  # how every PNG begins
PHOTOS = "if photos lie beside the label maps, --labels GLOB picks the maps"


class Prepared(NamedTuple):
    """One image, resized, with raw values: class ids, or colours as 24-bit numbers."""
    name: str
    small: np.ndarray   # (height, width): uint8 ids or uint32 colours
    size: tuple         # (height, width) of the image
    pixels: dict        # raw value -> number of pixels; for grey maps perhaps min and max only
    colors: np.ndarray  # (256, 3) uint8 if the image is palette-indexed, else None
    doubtful: float     # share of pixels whose class is in doubt because of JPEG
    changed: float      # share of pixels that show another class after resizing


def prepare_image(name, content, size, crop, allowed, void, jpeg, survey):
    """The content of one image file -> Prepared. Raises InputError.

    allowed: the table of ids and the set of colours that are classes; None allows any.
    survey: whether unknown values are let through and all pixels counted.
    The other arguments are those of label_maps.load_maps.
    """
    image, doubtful = _decode(name, content), 0
    if image.format == "JPEG":
        if jpeg is None:
            raise InputError(f"{name}: a JPEG, which changes class ids; "
                             f"expected a lossless image such as PNG; {PHOTOS}")
        image, doubtful = jpeg(name, content)
    image = _in_8_bits(name, image)
    raw = np.asarray(image)  # (H, W) or (H, W, 3)
    pixels = _count_pixels(name, image, raw, survey or void is not None)
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
        if content.startswith(PNG):
            _check_png(content)
        image = Image.open(io.BytesIO(content))
        # Of 16 bits a colour Pillow would drop the lower 8.
        if image.mode[0] != "I" and any(f";16{order}" in str(image.tile) for order in "BLN"):
            raise ValueError("16 bits a channel; expected 8")
        image.load()
        return image
    except UnidentifiedImageError:
        raise InputError(f"{name}: not an image") from None
    except Exception as error:  # damaged files, and bombs, fail in many ways
        raise InputError(f"{name}: damaged or unreadable image ({error})") from None


def _check_png(content):
    """Raises ValueError if a chunk of a PNG is damaged. Pillow trusts the pixels' own chunks."""
    view, at, kind = memoryview(content), len(PNG), b""
    while kind != b"IEND":
        # Its length, kind, data, and the checksum of kind and data
        end = at + 12 + int.from_bytes(view[at:at + 4], "big")
        if end > len(content):
            raise ValueError("cut off")
        kind = content[at + 4:at + 8]
        if zlib.crc32(view[at + 4:end - 4]) != int.from_bytes(view[end - 4:end], "big"):
            raise ValueError(f"the checksum of the chunk at byte {at} is wrong")
        at = end


def _in_8_bits(name, image):
    """The image in mode L, P or RGB, with the same values. Raises InputError if that cannot be."""
    if image.mode == "1":
        return Image.fromarray(np.asarray(image).astype(np.uint8))
    if image.mode in ("LA", "RGBA"):
        alpha = np.asarray(image.getchannel("A"))
        _refuse_first(name, "alpha", alpha, alpha < 255, "255 everywhere: no pixel that is "
                      "partly transparent")
        return image.convert(image.mode[:-1])
    if image.mode[0] == "I":  # 16 or 32 bits
        values = np.asarray(image)
        _refuse_first(name, "value", values, (values < 0) | (values > 255), "class ids up to 255")
        return Image.fromarray(values.astype(np.uint8))
    if image.mode not in ("L", "P", "RGB"):
        raise InputError(f"{name}: image mode {image.mode}; "
                         "expected grey, palette-indexed or RGB")
    return image


def _refuse_first(name, kind, values, bad, expected):
    """Raises InputError for the first pixel that is bad."""
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        raise InputError(f"{name}: {kind} {values[row, column]} at row {row}, column {column}; "
                         f"expected {expected}")


def _count_pixels(name, image, raw, all_values):
    """{raw value: its number of pixels}. For grey maps min and max only, unless all are wanted."""
    if image.mode == "RGB":
        found = image.getcolors(256)
        if found is None:
            raise InputError(f"{name}: an RGB image of more than 256 colours (a photo, "
                             f"anti-aliased, or compressed?); expected one per class; {PHOTOS}")
        return {int(color_code(color)): count for count, color in found}
    if image.mode == "P" or all_values:
        return {value: count for value, count in enumerate(image.histogram()) if count}
    # Ids have no gaps, so the lowest and the highest are enough; finding them is ten times faster.
    return dict.fromkeys((int(raw.min()), int(raw.max())))


def _refuse_unknown(name, raw, pixels, allowed):
    """Raises InputError if a raw value is no class: for the first id, or the commonest colour."""
    table, codes = allowed
    if raw.ndim == 2 and table is not None:
        bad = [value for value in pixels if table[value] == UNKNOWN]
        if bad:
            good = np.flatnonzero(table != UNKNOWN)
            _refuse_first(name, "class id", raw, np.isin(raw, bad),
                          f"ids {good[0]} to {good[-1]} ({len(good)} classes); if it marks pixels "
                          "without a class, give it to --void")
    elif raw.ndim == 3 and codes is not None:
        bad = sorted((value for value in pixels if value not in codes), key=pixels.get)
        if bad:
            row, column = np.argwhere(color_code(raw) == bad[-1])[0].tolist()
            others = f"; nor are {len(bad) - 1} rarer colours" if len(bad) > 1 else ""
            raise InputError(f"{name}: colour {split_code(bad[-1])} at row {row}, column {column} "
                             f"({pixels[bad[-1]]} pixels) is not in the palette{others}; {PHOTOS}")


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
