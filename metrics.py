"""How good are the samples? Every metric is a function of NumPy arrays, written from its formula.

Label maps are uint8 class ids, (N, H, W); image_metrics.py has the metrics of coloured images.
IMAGE_METRICS and LABEL_METRICS list the metrics in one form, f(real, fake) -> float or
{name: float}. Most values mean little without the same metric of real maps against real maps, at
the same number of samples. What each metric cannot see: docs/metrics.md. A command compares two
folders or archives, of label maps or of images, by every metric that applies:

    python metrics.py REAL SAMPLES
"""
if __name__ == "__main__":  # before all other imports
    from app.start import start
    start()

import numpy as np
from scipy import ndimage, special

from image_metrics import diversity, frechet_distance, sliced_wasserstein

CHUNK = 256  # maps at a time, which bounds the memory of intermediate results


# --------------------------------------------------------------------------- metrics of label maps
# For two sets with equal sides, (N, H, W) and (M, H, W). Renaming classes in both changes nothing.
def _classes(*sets):
    """K, the highest id + 1. Raises ValueError for anything but sets of label maps."""
    for maps in sets:
        if (maps.dtype, maps.ndim) != (np.uint8, 3) or not len(maps) \
                or maps.shape[1:] != sets[0].shape[1:]:
            raise ValueError(f"label maps are {maps.dtype} {maps.shape}; expected uint8 (N, H, W) "
                             "class ids, N > 0, and the same sides in both sets")
    return 1 + max(int(maps.max()) for maps in sets)


def class_areas(maps, classes):
    """Pixels of each class in each map, (N, K)."""
    return np.stack([(maps == k).sum((1, 2)) for k in range(classes)], 1)


def class_frequencies(maps, classes):
    """Each class's share of all pixels, (K,)."""
    return class_areas(maps, classes).sum(0) / maps.size


def class_frequency_distance(real, fake):
    """Total variation between the classes' shares of all pixels: 0 to 1."""
    classes = _classes(real, fake)
    p, q = (class_frequencies(maps, classes) for maps in (real, fake))
    return float(np.abs(p - q).sum() / 2)


def segmentation_distance(real, fake):
    """Frechet segmentation distance (Le Moing et al. 2021, "Semantic palette"): of class shares."""
    classes = _classes(real, fake)
    return frechet_distance(*(class_areas(maps, classes) / maps[0].size for maps in (real, fake)))


def _adjacency(maps, classes):
    """Pairs of 4-neighbours with classes c and d, counted at [c, d] or [d, c] of (K, K)."""
    counts = 0
    for start in range(0, len(maps), CHUNK):
        chunk = maps[start:start + CHUNK].astype(np.intp)
        for a, b in ((chunk[:, 1:], chunk[:, :-1]), (chunk[:, :, 1:], chunk[:, :, :-1])):
            counts = counts + np.bincount((a * classes + b).ravel(), minlength=classes ** 2)
    return counts.reshape(classes, classes)


def adjacency_distance(real, fake):
    """Total variation between the shares of class pairs {c, d} in all boundaries: 0 to 1."""
    classes = _classes(real, fake)
    shares = []
    for maps in (real, fake):
        counts = _adjacency(maps, classes)
        counts = np.triu(counts + counts.T, 1)
        counts[0, 0] = not counts.any()  # no boundary at all is a case of its own
        shares.append(counts / counts.sum())
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def boundary_density(maps):
    """Share of neighbouring pixels that differ in class; 0 for maps of one pixel."""
    counts = _adjacency(maps, _classes(maps))
    return float(1 - counts.trace() / counts.sum()) if counts.any() else 0.0


def spatial_distance(real, fake):
    """Total variation between the classes' shares at one pixel, averaged over all pixels: 0 to 1.

    A class that only one set has adds its own share, so it never lowers the distance.
    """
    total = np.zeros(real.shape[1:])  # (H, W)
    for k in range(_classes(real, fake)):
        total += np.abs((real == k).mean(0) - (fake == k).mean(0))
    return float(total.mean() / 2)


def components(maps):
    """4-connected one-class regions per map, and speckle: the share of regions under 4 pixels."""
    cross = np.zeros((3, 3, 3), bool)  # neighbours within a map, but not across maps
    cross[1] = ndimage.generate_binary_structure(2, 1)
    regions = (ndimage.label(maps == k, cross)[0].ravel() for k in range(_classes(maps)))
    areas = np.concatenate([np.bincount(numbers)[1:] for numbers in regions])
    return {"per map": len(areas) / len(maps), "speckle": float((areas < 4).mean())}


def nearest_agreement(maps, train, same=False):
    """For each map, the share of pixels that agree with the nearest map of `train`: (N,).

    Nearest of all maps of `train` and their mirror images, left for right.
    same: both sets are the same, and no map is compared with itself or its own mirror image.
    """
    nearest = 0
    for oriented in maps, maps[:, :, ::-1]:
        agreement = _agreement(oriented, train)
        if same:
            np.fill_diagonal(agreement, 0)
        nearest = np.maximum(nearest, agreement.max(1))
    return nearest / maps[0].size


def _agreement(maps, train):
    """How many pixels of each of `maps` agree with each of `train`: (N, M)."""
    agreement = np.zeros((len(maps), len(train)), np.float32)  # float32 counts pixels exactly
    maps, train = (x.reshape(len(x), -1) for x in (maps, train))
    pixels = max(1, (1 << 25) // len(train))  # at a time: 128 MB
    for first in range(0, maps.shape[1], pixels):
        here = slice(first, first + pixels)
        for k in np.intersect1d(maps[:, here], train[:, here]):
            theirs = (train[:, here] == k).T.astype(np.float32)
            for start in range(0, len(maps), CHUNK):
                part = slice(start, start + CHUNK)
                agreement[part] += (maps[part, here] == k).astype(np.float32) @ theirs
    return agreement


def memorization(train, fake, heldout=None):
    """How close samples come to the training maps, compared with held-out maps.

    "agreement", "held out": the medians of their nearest_agreement; "memorized": the share of
    samples above the 99th percentile of the held-out maps (chance: 0.01). Maps simpler than the
    real ones also come near. "copies" is stricter: the share that differs from a training map in at
    most half as many pixels as the held-out map at this percentile. Without held-out maps, each
    training map is compared with the others; do not trust that for frames of a video.
    """
    _classes(train, fake)
    samples = nearest_agreement(fake, train)
    same = heldout is None
    held_out = nearest_agreement(train if same else heldout, train, same)
    near = np.quantile(held_out, 0.99)
    return {"agreement": float(np.median(samples)), "held out": float(np.median(held_out)),
            "memorized": float((samples > near).mean()),
            "copies": float((1 - samples <= (1 - near) / 2).mean())}


# ----------------------------------------------------------------- reconstructions: map against map
def confusion(maps, real, classes):
    """(K, K): how many pixels of class i, the row, were reconstructed as class j.

    Here and below, maps and real are (N, H, W) uint8 of equal numbers, a reconstruction of each.
    """
    pairs = real.astype(np.int64) * classes + maps
    return np.bincount(pairs.ravel(), minlength=classes ** 2).reshape(classes, classes)


def pixel_accuracy(maps, real):
    """The share of pixels with the right class, 0 to 1.

    High for all maps that are mostly background: see mean_iou.
    """
    return float((maps == real).mean())


def mean_iou(maps, real, classes):
    """Intersection over union of each class, over all pixels of all maps; then their mean: 0 to 1.

    A class that is in neither set does not count.
    """
    table = confusion(maps, real, classes)
    both = table.diagonal()
    either = table.sum(0) + table.sum(1) - both
    return float((both[either > 0] / either[either > 0]).mean())


# ---------------------------------------------------------------------------------- Colored Shapes
def shape_overlaps(maps, counterparts=False):
    """How well circle, rectangle and square fit their ideals: (N, side, side) -> (N, 3), 0 to 1.

    The overlap is the intersection over union of the class and the visible part of its ideal (see
    data.colored_shapes), at the best place. The circle covers the square, and both cover the
    rectangle. Places where less than half of the ideal is visible do not count.

    counterparts: instead of the ideal take a shape of the same area with other corners: for the
    circle a square, for rectangle and square an ellipse and a disc.
    """
    _classes(maps)
    ideals = [(1, ()), (2, (1, 3)), (3, (1,))]  # a class, and the classes that cover it
    shapes = [other if counterparts else ideal for ideal, other in ideal_shapes(maps.shape[1])]
    overlaps = np.empty((len(maps), len(ideals)))
    for start in range(0, len(maps), CHUNK):
        chunk = maps[start:start + CHUNK]
        for column, ((k, above), shape) in enumerate(zip(ideals, shapes)):
            hidden = np.isin(chunk, above)
            overlaps[start:start + CHUNK, column] = _best_overlap(chunk == k, hidden, shape)
    return overlaps


def ideal_shapes(side):
    """[(ideal, counterpart)] of circle, rectangle and square: masks (h, w)."""
    square, radius, width, height = (round(size * side / 64) for size in (10, 10, 12, 20))
    y, x = np.mgrid[-radius:radius + 1, -radius:radius + 1]
    circle = y ** 2 + x ** 2 <= radius ** 2
    equal = round(circle.sum() ** 0.5)
    return [(circle, np.ones((equal, equal), bool)),
            (np.ones((height, width), bool), _ellipse(height, width)),
            (np.ones((square, square), bool), _ellipse(square, square))]


def _ellipse(height, width):
    """The mask of an ellipse with the area and the proportions of a rectangle."""
    y, x = (np.arange(2 * size) - size + 0.5 * (size % 2 == 0) for size in (height, width))
    inside = (y[:, None] / height) ** 2 + (x / width) ** 2 <= 1 / np.pi
    return inside[inside.any(1)][:, inside.any(0)]


def _best_overlap(own, hidden, ideal):
    """The overlap of the pixels `own` with the ideal where it is not `hidden`: (N,)."""
    inside = _pixels_under(ideal, own)
    visible = ideal.sum() - _pixels_under(ideal, hidden)
    union = visible + own.sum((1, 2))[:, None, None] - inside
    overlap = inside / np.maximum(union, 1)
    return np.where(visible >= ideal.sum() / 2, overlap, 0).max((1, 2))


def _pixels_under(shape, pixels):
    """How many of `pixels` (N, H, W) a shape (h, w) covers at each place, (N, H-h+1, W-w+1).

    Each row of the shape is one run of pixels: the difference of two cumulative sums.
    """
    n, height, width = pixels.shape
    rows, columns = height - shape.shape[0] + 1, width - shape.shape[1] + 1
    sums = np.zeros((n, height, width + 1), np.int32)
    np.cumsum(pixels, 2, out=sums[..., 1:])
    covered = np.zeros((n, rows, columns), np.int32)
    for top, run in enumerate(shape):
        first, length = run.argmax(), run.sum()
        here = sums[:, top:top + rows]
        covered += here[..., first + length:first + length + columns]
        covered -= here[..., first:first + columns]
    return covered


def shape_share(overlaps, counterparts, least=0.75):
    """Share of maps with three good shapes, from two results of shape_overlaps (N, 3).

    A shape is good if its overlap with its ideal is `least` or more, and larger than that with the
    counterpart. The overlap alone cannot tell: a 9x9 square overlaps a circle of radius 5 by 0.91.
    """
    good = (overlaps >= least) & ((overlaps > counterparts) | (overlaps == 1))
    return float(good.all(1).mean())


def shape_metrics(maps):
    """The shares of Colored Shapes maps with three good shapes, and the median overlaps.

    "share": overlaps of 0.75 or more; "strict share": of 0.9, which forgives a square of 5x5
    pixels two wrong ones.
    """
    overlaps, counterparts = shape_overlaps(maps), shape_overlaps(maps, counterparts=True)
    circle, rectangle, square = (float(median) for median in np.median(overlaps, 0))
    return {"share": shape_share(overlaps, counterparts),
            "strict share": shape_share(overlaps, counterparts, 0.9),
            "circle overlap": circle, "rectangle overlap": rectangle, "square overlap": square}


# -------------------------------------------------------------------------- softmax and the palette
def discreteness(probabilities):
    """Of softmax outputs (..., K): mean largest probability, mean entropy in nats (0 to log K)."""
    return {"largest probability": float(probabilities.max(-1).mean(dtype=np.float64)),
            "entropy": float(special.entr(probabilities).sum(-1).mean(dtype=np.float64))}


def nearest_class(maps, palette):
    """RGB (N, H, W, 3) -> ids (N, H, W): the class of the nearest colour. Ids stay as they are."""
    if maps.ndim == 3:
        return maps
    distances = (((m[..., None, :] - palette.astype(np.int32)) ** 2).sum(-1) for m in maps)
    return np.stack([d.argmin(-1).astype(np.uint8) for d in distances])


# -------------------------------------------------------------------------------------- the tables
# f(real, fake) -> float or {name: float}. Some look at the fake set alone.
IMAGE_METRICS = {"SWD x1e3": sliced_wasserstein,
                 "MS-SSIM": lambda real, fake: diversity(fake)}
LABEL_METRICS = {"class frequencies": class_frequency_distance,
                 "FSD": segmentation_distance,
                 "adjacency": adjacency_distance,
                 "boundary density": lambda real, fake: boundary_density(fake),
                 "spatial prior": spatial_distance,
                 "components": lambda real, fake: components(fake),
                 "memorization": memorization}


if __name__ == "__main__":
    from app.metrics_command import main
    main()
