"""Pictures of a run: grids of maps, and the curves of the losses."""
import csv

import numpy as np
from PIL import Image

from formats.files import save_image, written

WIDEST = 2100  # pixels of a grid, unless that leaves fewer than 4 maps in a row


def grid(maps, palette, columns=None):
    """An image of maps side by side, 1 pixel apart. Maps with sides below 64 are enlarged.

    columns: maps in a row; by default 16, fewer if they are wider than 128 pixels.
    maps: class ids (N, H, W) uint8, drawn in the colours of palette (K, 3), or RGB (N, H, W, 3).
    """
    tiles = palette[maps] if maps.ndim == 3 else maps
    tiles = np.pad(tiles, [(0, 0), (0, 1), (0, 1), (0, 0)], constant_values=128)  # grey lines
    n, h, w, _ = tiles.shape
    columns = min(columns or max(4, min(16, WIDEST // w)), n)
    blank = np.full((-n % columns, h, w, 3), 255, np.uint8)  # fills the last row
    tiles = np.concatenate([tiles, blank]).reshape(-1, columns, h, w, 3)
    picture = tiles.transpose(0, 2, 1, 3, 4).reshape(-1, columns * w, 3)[:-1, :-1]
    zoom = max(1, 64 // (max(h, w) - 1))
    return Image.fromarray(picture.repeat(zoom, 0).repeat(zoom, 1))


def save_gif(images, path, zoom, duration):
    """An animation of images, enlarged by whole pixels. duration: of each, in milliseconds."""
    frames = [image.resize([zoom * side for side in image.size], Image.Resampling.NEAREST)
              for image in images]
    save_image(frames[0], path, save_all=True, append_images=frames[1:], duration=duration, loop=0)


def plot_curves(run):
    """Draw log.csv as curves.png, whole at any moment. Without rows yet, nothing is drawn."""
    from matplotlib.figure import Figure  # here, since its import takes long
    with open(run / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    step = columns["step"]
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(step, columns["loss_d"], linewidth=0.8)
    left.axhline(np.log(2), color="grey", linestyle=":", label="log 2: D cannot decide")
    left.set(title="Discriminator: binary cross-entropy", xlabel="step")
    losses = {name: values for name, values in columns.items()
              if name.startswith(("features", "moments", "loss_g"))}
    for name, values in losses.items():
        style = ":" if name.startswith("moments") else "-"
        label = name.replace("_", " of layer ") if name != "loss_g" else "-log D(G(z))"
        right.plot(step, values, style, linewidth=0.8, label=label)
    set_log_scale(right, np.concatenate(list(losses.values())))
    title = "Generator: what it matches" if "loss_g" not in losses else "Generator: its loss"
    right.set(title=title, xlabel="step")
    for axes in left, right:
        axes.legend(loc="upper right", fontsize=8)
    with written(run / "curves.png") as file:
        figure.savefig(file, dpi=110, format="png")


def set_log_scale(axes, values):
    """A logarithmic y axis. If there are negative values, it is linear around 0.

    The linear part reaches as far as nine in ten of the negative values (matplotlib's symlog).
    """
    negative = values[values < 0]
    if len(negative) == 0:
        axes.set_yscale("log")
    else:
        axes.set_yscale("symlog", linthresh=np.percentile(-negative, 90))
        axes.axhline(0, color="grey", linestyle=":", linewidth=0.8)
