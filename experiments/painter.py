"""Painted shapes: photos of Colored Shapes, exact and seeded, to learn pix2pix's task on.

Toys lie on tiles: a striped board (the rectangle), a brick (the square), a ball (the circle).
Light comes from the upper left. It fades over the picture, brightens the edges that face it, and
casts soft shadows on all that lies lower. So a pixel's colour depends on its class, its place, and
the shapes around it. Only a little mottling is random: the map tells all the rest.
"""
import numpy as np
from scipy import ndimage

GROUND, BALL, BOARD, BRICK = range(4)  # the classes of data.colored_shapes
HEIGHTS = np.array([0, 3, 1, 2])       # of the classes: what is painted later lies higher
COLORS = np.array([[214, 200, 176], [62, 104, 190], [110, 158, 92], [186, 84, 62]], np.float32)
# Of each class: the width of its edge's slope and the grains of its mottling, in pixels at side 64;
# how far the mottling changes the brightness (standard deviation, 1 is white on black).
SLOPES, GRAINS, MOTTLING = (0, 4, 1, 1.5), (2, 3, 0.7, 1), (0.03, 0.015, 0.03, 0.04)
CHUNK = 1 << 20  # pixels to paint at a time


def paint(maps, seed=0, mottled=True):
    """Photos (N, H, W, 3) uint8 of label maps (N, H, W) with ids 0 to 3.

    The first maps give the same photos, whatever follows. mottled: False leaves out all that is
    random, which gives the mean photo of each map.
    """
    rng = np.random.default_rng(seed)
    photos = np.empty((*maps.shape, 3), np.uint8)
    step = max(1, CHUNK // max(1, maps[0].size if len(maps) else 1))
    for at in range(0, len(maps), step):
        chunk = maps[at:at + step]
        noise = rng.standard_normal(chunk.shape, np.float32) if mottled else None
        photos[at:at + step] = _painted(chunk, noise)
    return photos


def _painted(maps, noise):
    """paint() for a chunk. noise: (N, H, W) standard normal, or None."""
    scale = maps.shape[1] / 64
    rows, columns = np.indices(maps.shape[1:], sparse=True)
    light = _textures(rows, columns, max(8, maps.shape[1] // 8))[maps, rows, columns]
    height, glint = HEIGHTS[maps], 0
    for k in (GROUND, BOARD, BRICK, BALL):
        here = maps == k
        if k != GROUND:
            slope = _blurred(height >= HEIGHTS[k], SLOPES[k] * scale)
            facing = _moved(slope, -1) - _moved(slope, 1)  # > 0 where it rises away from the light
            light += here * (0.4 * max(0.5, SLOPES[k] * scale)) * facing
        if k == BALL:
            glint = here * np.clip(8 * _moved(slope, -3 * scale) - 6.6, 0, 1)
        else:
            above = _moved((height > HEIGHTS[k]).astype(np.float32), 4 * scale)
            light *= 1 - 0.55 * here * _blurred(above, 2 * scale)
        if noise is not None:
            light += here * MOTTLING[k] * _mottling(noise, GRAINS[k] * scale)
    light *= 1.12 - 0.18 * rows / len(maps[0]) - 0.13 * columns / len(maps[0, 0])
    colors = COLORS[maps] * light[..., None]
    if np.ndim(glint):
        colors += (255 - colors) * (0.8 * glint)[..., None]
    return np.clip(np.rint(colors), 0, 255).astype(np.uint8)


def _textures(rows, columns, period):
    """(4, H, W) float32: the brightness of each class's texture, 1 on average or almost.

    They repeat after 2 `period` pixels at most.
    """
    half, flat = period // 2, np.ones((rows.size, columns.size), np.float32)
    tiles = 1 + 0.05 * (-1.0) ** (rows // period + columns // period)
    tiles -= 0.18 * ((rows % period == 0) | (columns % period == 0))
    stripes = 1 + 0.1 * (-1.0) ** (columns // max(1, half // 2))
    joints = (rows % half == 0) | ((columns + half * (rows // half % 2)) % period == 0)
    bricks = 0.9 + 0.3 * joints
    return np.stack([tiles, flat, stripes * flat, bricks]).astype(np.float32)


def _blurred(a, sigma):
    """(N, H, W), each photo blurred alone. sigma: in pixels."""
    return ndimage.gaussian_filter(a.astype(np.float32, copy=False), (0, sigma, sigma),
                                   mode="nearest", truncate=3)


def _moved(a, pixels):
    """(N, H, W) moved down and to the right, or up and left if `pixels` < 0. Edges are repeated."""
    n = round(abs(pixels)) or 1
    a = np.pad(a, [(0, 0), (n, n), (n, n)], mode="edge")
    return a[:, :-2 * n, :-2 * n] if pixels > 0 else a[:, 2 * n:, 2 * n:]


def _mottling(noise, sigma):
    """Smoothed noise whose standard deviation is 1 again, or almost."""
    return _blurred(noise, sigma) * max(1, 2 * np.sqrt(np.pi) * sigma)
