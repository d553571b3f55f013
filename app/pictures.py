"""Pictures of a run: grids of maps, and the curves of the losses."""
import csv

import numpy as np
from PIL import Image


def grid(maps, palette, columns=16):
    """An image of maps side by side, 1 pixel apart. Maps below 64 pixels are enlarged.

    maps: class ids (N, H, W) uint8, drawn in the colours of palette (K, 3), or RGB (N, H, W, 3).
    """
    tiles = palette[maps] if maps.ndim == 3 else maps
    tiles = np.pad(tiles, [(0, 0), (0, 1), (0, 1), (0, 0)], constant_values=128)  # grey lines
    n, h, w, _ = tiles.shape
    columns = min(columns, n)
    blank = np.full((-n % columns, h, w, 3), 255, np.uint8)  # fills the last row
    tiles = np.concatenate([tiles, blank]).reshape(-1, columns, h, w, 3)
    picture = tiles.transpose(0, 2, 1, 3, 4).reshape(-1, columns * w, 3)[:-1, :-1]
    zoom = max(1, 64 // (w - 1))
    return Image.fromarray(picture.repeat(zoom, 0).repeat(zoom, 1))


def plot_curves(run):
    """Draw log.csv as curves.png. Nothing is drawn if there are no rows yet."""
    from matplotlib.figure import Figure  # here, since its import takes long
    with open(run / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return
    column = lambda name: [float(row[name]) for row in rows]
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(column("step"), column("loss_d"), linewidth=0.8)
    left.axhline(np.log(2), color="grey", linestyle=":", label="log 2: D cannot decide")
    left.set(title="Discriminator: binary cross-entropy", xlabel="step")
    for name in rows[0]:
        if name.startswith("features"):
            label = name.replace("_", " of layer ")
            right.semilogy(column("step"), column(name), linewidth=0.8, label=label)
    right.set(title="Generator: feature matching", xlabel="step")
    left.legend()
    right.legend()
    figure.savefig(run / "curves.png", dpi=110)
