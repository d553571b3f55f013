"""Pictures of label maps and images in a notebook."""
import io

import numpy as np
from PIL import Image

SHAPES = np.array([[255, 255, 255], [0, 0, 255], [0, 255, 0], [255, 0, 0]], np.uint8)
WIDTH = 640  # the largest of a picture, in pixels


def show(maps, palette=SHAPES, columns=8):
    """Draws maps side by side.

    Integers (N, H, W) or (H, W): label maps, in the colours of palette (K, 3). RGB: (..., 3), uint8
    or floats from 0 to 1. Floats (N, H, W) or (H, W): grey, the smallest black, the largest white.
    """
    from IPython.display import Image as Picture
    from IPython.display import display
    file = io.BytesIO()
    Image.fromarray(drawn(np.asarray(maps), palette, columns)).save(file, "PNG")
    display(Picture(data=file.getvalue()))


def drawn(maps, palette, columns):
    """(height, width, 3) uint8: the maps with grey lines between them, enlarged."""
    tiles = colored(maps, palette)
    tiles = np.pad(tiles, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=128)
    n, h, w, _ = tiles.shape
    columns = min(columns, n)
    blank = np.full((-n % columns, h, w, 3), 255, np.uint8)  # fills the last row
    tiles = np.concatenate([tiles, blank]).reshape(-1, columns, h, w, 3)
    picture = tiles.transpose(0, 2, 1, 3, 4).reshape(-1, columns * w, 3)
    if picture.shape[1] > WIDTH:
        raise ValueError(f"{columns} maps of {w - 2} pixels are wider than {WIDTH}: "
                         "choose fewer columns")
    zoom = min(WIDTH // picture.shape[1], max(1, 128 // w))
    return picture.repeat(zoom, 0).repeat(zoom, 1)


def colored(maps, palette):
    """(N, H, W, 3) uint8 of what `show` takes."""
    rgb = maps.ndim >= 3 and maps.shape[-1] == 3
    if maps.ndim == (3 if rgb else 2):
        maps = maps[None]
    if rgb:
        return maps if maps.dtype == np.uint8 else np.rint(255 * np.clip(maps, 0, 1)).astype("u1")
    if maps.dtype.kind in "iub":
        return np.asarray(palette, np.uint8)[maps.astype(int)]
    low, high = maps.min(), maps.max()
    grey = np.rint(255 * (maps - low) / (high - low or 1)).astype(np.uint8)
    return grey[..., None].repeat(3, -1)
