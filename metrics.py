"""How good are the samples? Every metric is a function of NumPy arrays, written from its formula, and needs no network.

Images are uint8 RGB, (N, H, W, 3); label maps are uint8 class ids, (N, H, W). IMAGE_METRICS and LABEL_METRICS list the
metrics in one form, f(real, fake) -> float or {name: float}: `measure` at the end loops over them and adds FID. Most values mean
something only beside the same metric of real against real at the same number of samples.
"""
import csv
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import linalg, ndimage, signal, special
from threadpoolctl import threadpool_limits

import inception
from data import InputError
from kernels.workers import available_cores

CORES = available_cores()
BLOCK = 32  # images at a time, which bounds the memory of intermediate results


def _check_images(*sets):
    """Raises ValueError unless all sets are uint8 (N, H, W, 3) with the same sides."""
    for images in sets:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(f"images are {images.dtype} {images.shape}; expected uint8 (N, H, W, 3), 0 to 255: "
                             "from [-1, 1], convert with np.rint(x * 127.5 + 127.5).clip(0, 255).astype(np.uint8)")
        if not len(images) or images.shape[1:] != sets[0].shape[1:]:
            raise ValueError(f"images of {sets[0].shape} and {images.shape}: expected the same sides, and at least one image")


# ------------------------------------------------------------------------- sliced Wasserstein distance
# Karras et al. 2018, "Progressive growing of GANs", section 5.
PATCH = 7               # height and width of a patch
PATCHES = 128           # of each image, at each level
REPEATS, DIRECTIONS = 4, 128
COARSEST = 16           # the pyramid goes down to this height
TAPS = np.array([1, 4, 6, 4, 1]) / 16


def sliced_wasserstein(real, fake, seed=0, batch=32):
    """{height of a level: distance, ..., "average": their mean}, all times 1000; two sets of N images, finest level first.

    Draws what the authors' program draws after np.random.seed(seed) with minibatches of `batch`, in the same order, so their
    numbers come out. Falls as 1 / sqrt(N): compare at equal N only. Raises ValueError, also where a channel is constant.
    """
    _check_images(real, fake)
    (n, h, w, _), count = real.shape, (real.shape[1] // COARSEST).bit_length()  # levels
    if len(fake) != n:
        raise ValueError(f"{n} real and {len(fake)} fake images: SWD compares sets of equal size")
    if not count or (h | w) % 2 ** (count - 1) or w >> count - 1 < PATCH:
        raise ValueError(f"images of {h}x{w}: SWD halves them while the height is {2 * COARSEST} or more; expected sides "
                         f"that can be halved so often, a height of at least {COARSEST}, and {PATCH} pixels of width at the end")
    sizes, rng = [(h >> level, w >> level) for level in range(count)], np.random.RandomState(seed)
    real_corners = _draw_corners(rng, n, sizes, batch)
    _draw_directions(rng, count)  # the authors measure real against real here
    fake_corners, directions = _draw_corners(rng, n, sizes, batch), _draw_directions(rng, count)
    distances = {}
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(CORES) as pool:  # NumPy frees the interpreter while it works
        for level, (height, _) in enumerate(sizes):
            last = level == count - 1
            a, b = pool.map(_descriptors, (real, fake), (real_corners[level], fake_corners[level]), (level,) * 2, (last,) * 2)
            distances[height] = 1e3 * _projected_distance(pool, a, b, directions[level])
    return distances | {"average": float(np.mean(list(distances.values())))}


def _draw_corners(rng, n, sizes, batch):
    """The corners of N * 128 patches, one (2, N * 128) array a level: x, then y."""
    corners = [[] for _ in sizes]
    for start in range(0, n, batch):
        for drawn, (h, w) in zip(corners, sizes):
            count = PATCHES * min(batch, n - start)
            drawn.append([rng.randint(w - PATCH + 1, size=count), rng.randint(h - PATCH + 1, size=count)])
    return [np.concatenate(drawn, 1) for drawn in corners]


def _draw_directions(rng, levels):
    """Unit vectors in the space of patches, one (512, 147) float32 array a level."""
    draws = rng.randn(levels, REPEATS, 3 * PATCH * PATCH, DIRECTIONS)
    draws /= np.linalg.norm(draws, axis=2, keepdims=True)
    return draws.transpose(0, 1, 3, 2).reshape(levels, REPEATS * DIRECTIONS, -1).astype(np.float32)


def _blur(x):
    """1-4-6-4-1 along height and width in float64, mirrored at the border; the sums of dyadic numbers are exact."""
    for axis in (1, 2):
        x = ndimage.correlate1d(x, TAPS, axis, np.float64, mode="mirror")
    return x


def laplacian_level(images, level, last):
    """One level of the Laplacian pyramid (Burt and Adelson 1983), float32: (N, H, W, 3) -> (N, H >> level, W >> level, 3).

    The last level is the small image itself, the others what is lost when it is halved and doubled again.
    """
    x = images.astype(np.float32)
    halve = lambda x: _blur(x)[:, ::2, ::2].astype(np.float32)
    for _ in range(level):
        x = halve(x)
    if last:
        return x
    doubled = np.zeros(x.shape)
    doubled[:, ::2, ::2] = halve(x)
    return x - (4 * _blur(doubled)).astype(np.float32)  # 4: three of four pixels are zero


def _descriptors(images, corners, level, last):
    """Patches at the given corners, float32 (N * 128, 147); over the set, each channel has mean 0 and variance 1."""
    patches = np.empty((len(images) * PATCHES, 3, PATCH, PATCH), np.float32)
    for start in range(0, len(images), BLOCK):
        x = laplacian_level(images[start:start + BLOCK], level, last)
        windows = sliding_window_view(x, (PATCH, PATCH), (2, 1))  # (b, H - 6, W - 6, 3, 7, 7): x before y
        rows = slice(start * PATCHES, (start + len(x)) * PATCHES)
        left, top = corners[:, rows]
        patches[rows] = windows[np.arange(len(left)) // PATCHES, top, left]
    constant = (patches == patches[:1, :, :1, :1]).all((0, 2, 3))
    if constant.any():  # a standard deviation of 0, or of rounding errors
        raise ValueError(f"channel {'RGB'[constant.argmax()]} is constant at level {images.shape[1] >> level}: SWD is not "
                         "defined (all images one colour, or a palette without that channel)")
    patches -= patches.mean((0, 2, 3), keepdims=True)
    patches /= patches.std((0, 2, 3), keepdims=True)
    return patches.reshape(len(patches), -1)


def _projected_distance(pool, a, b, directions):
    """Mean over directions of the 1-Wasserstein distance between projections: a and b (M, 147), directions (D, 147)."""
    def wasserstein(some):
        p, q = some @ a.T, some @ b.T  # a row a direction: sorting wants it contiguous
        p.sort()
        q.sort()
        p -= q
        return np.abs(p, out=p).mean(dtype=np.float64)
    block = 1 << int(np.clip(np.log2(2 ** 25 / len(a)), 4, 7))  # directions at once: many for BLAS, few for the memory
    return float(np.mean(list(pool.map(wasserstein, np.split(directions, len(directions) // block)))))


# --------------------------------------------------------------------------------- MS-SSIM: diversity
SCALE_WEIGHTS = 0.0448, 0.2856, 0.3001, 0.2363, 0.1333  # Wang et al. 2003


def ms_ssim(a, b):
    """MS-SSIM of a[i] and b[i], (N,) in [0, 1], 1 for equal images; sides divide by 16 (five scales). Raises ValueError.

    As in Karras et al. 2018: the Gaussian window of 11 pixels shrinks where the scale is smaller, channels are meaned
    together, and a negative mean counts as 0.
    """
    _check_images(a, b)
    if len(a) != len(b) or a.shape[1] % 16 or a.shape[2] % 16:
        raise ValueError(f"MS-SSIM of {a.shape} and {b.shape}: expected pairs of images whose sides divide by 16")
    blocks = [slice(start, start + BLOCK) for start in range(0, len(a), BLOCK)]
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(CORES) as pool:
        return np.concatenate(list(pool.map(lambda block: _ms_ssim_block(a[block], b[block]), blocks)))


def _ms_ssim_block(a, b):
    a, b = (x.transpose(0, 3, 1, 2).astype(np.float64) for x in (a, b))  # (b, 3, H, W)
    result, c1, c2 = np.ones(len(a)), (0.01 * 255) ** 2, (0.03 * 255) ** 2
    for scale, weight in enumerate(SCALE_WEIGHTS):
        down, right = _gaussian_windows(*a.shape[2:])
        mean_a, mean_b, aa, bb, ab = (down @ x @ right.T for x in (a, b, a * a, b * b, a * b))
        similarity = (2 * (ab - mean_a * mean_b) + c2) / (aa - mean_a ** 2 + bb - mean_b ** 2 + c2)
        if scale == len(SCALE_WEIGHTS) - 1:  # luminance counts at the coarsest scale only
            similarity *= (2 * mean_a * mean_b + c1) / (mean_a ** 2 + mean_b ** 2 + c1)
        result *= similarity.mean((1, 2, 3)).clip(0) ** weight
        a, b = (x.reshape(*x.shape[:2], x.shape[2] // 2, 2, -1, 2).mean((3, 5)) if min(x.shape[2:]) > 1 else x for x in (a, b))
    return result


def _gaussian_windows(*sides):
    """For each side, the matrix (side - n + 1, side) that takes Gaussian means over n pixels: 'valid' correlation."""
    n = min(11, *sides)
    window = np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (1.5 * n / 11)) ** 2)
    return [linalg.convolution_matrix(window / window.sum(), side - n + 1).T for side in sides]


def diversity(images):
    """Over the pairs (0, 1), (2, 3), ...: the mean MS-SSIM, low for diverse images, and the share of pairs at exactly 0."""
    pairs = len(images) // 2
    if not pairs:
        raise ValueError("diversity needs at least two images")
    similarity = ms_ssim(images[:2 * pairs:2], images[1:2 * pairs:2])
    return {"mean": float(similarity.mean()), "zero pairs": float((similarity == 0).mean())}


# ---------------------------------------------------------------------------------- Frechet distances
def frechet_distance(features_a, features_b):
    """|mean difference|^2 + tr(A + B - 2 (A B)^(1/2)) of two sets of features, (N, D) and (M, D), with covariances A and B.

    Heusel et al. 2017. With centred rows X / sqrt(N - 1) = Q R, tr (A B)^(1/2) is the sum of the singular values of R_a R_b^T:
    never complex, and right for singular covariances (N < D) too, where a matrix square root is not. Raises ValueError.
    """
    a, b = (np.asarray(x, np.float64) for x in (features_a, features_b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"features of {a.shape} and {b.shape}: expected (N, D) and (M, D), two rows or more")
    gap = a.mean(0) - b.mean(0)
    a, b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b))
    trace = (a * a).sum() + (b * b).sum()
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(2) as pool:  # two at once are faster than LAPACK's own threads
        a, b = pool.map(lambda x: np.linalg.qr(x, mode="r") if len(x) > x.shape[1] else x, (a, b))
    with threadpool_limits(CORES, "blas"):
        root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return max(0.0, float(gap @ gap + trace - 2 * root))  # -1e-14 is rounding


# ------------------------------------------------------------------------------- metrics of label maps
# Two sets of maps of the same sides, (N, H, W) and (M, H, W). All stay the same when classes are renamed in both.
def _classes(*sets):
    """K, so that all ids are below it. Raises ValueError unless all sets are uint8 (N, H, W) with the same sides."""
    for maps in sets:
        if maps.dtype != np.uint8 or maps.ndim != 3 or not len(maps) or maps.shape[1:] != sets[0].shape[1:]:
            raise ValueError(f"label maps are {maps.dtype} {maps.shape}; expected uint8 (N, H, W) class ids, N > 0, and the "
                             f"same sides in both sets")
    return 1 + max(int(maps.max()) for maps in sets)


def class_areas(maps, classes):
    """Pixels of each class in each map, (N, K)."""
    return np.stack([(maps == k).sum((1, 2)) for k in range(classes)], 1)


def class_frequency_distance(real, fake):
    """Total variation between the classes' shares of all pixels: 0 to 1."""
    classes = _classes(real, fake)
    p, q = (class_areas(maps, classes).sum(0) / maps.size for maps in (real, fake))
    return float(np.abs(p - q).sum() / 2)


def segmentation_distance(real, fake):
    """FSD (Le Moing et al. 2021, "Semantic palette"): the Frechet distance between the maps' class shares, (N, K)."""
    classes = _classes(real, fake)
    return frechet_distance(*(class_areas(maps, classes) / maps[0].size for maps in (real, fake)))


def _adjacency(maps, classes):
    """Pairs of 4-neighbours with classes {c, d}, (K, K): each pair once, at [c, d] or [d, c]."""
    counts = 0
    for start in range(0, len(maps), BLOCK):
        block = maps[start:start + BLOCK].astype(np.intp)
        for a, b in ((block[:, 1:], block[:, :-1]), (block[:, :, 1:], block[:, :, :-1])):
            counts = counts + np.bincount((a * classes + b).ravel(), minlength=classes ** 2)
    return counts.reshape(classes, classes)


def adjacency_distance(real, fake):
    """Total variation between the shares that each pair of classes {c, d} has in the boundary: 0 to 1."""
    classes, shares = _classes(real, fake), []
    for maps in (real, fake):
        counts = np.triu(_adjacency(maps, classes) + _adjacency(maps, classes).T, 1)
        counts[0, 0] = not counts.any()  # no boundary at all is a kind of its own
        shares.append(counts / counts.sum())
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def boundary_density(maps):
    """Share of neighbouring pixels that differ in class."""
    counts = _adjacency(maps, _classes(maps))
    return float(1 - counts.trace() / counts.sum())


def spatial_distance(real, fake):
    """|share of real maps with class c at (y, x) - share of fake maps|, meaned over y, x and the classes that occur."""
    differences = [np.abs((real == k).mean(0) - (fake == k).mean(0)).mean() for k in range(_classes(real, fake))
                   if (real == k).any() or (fake == k).any()]
    return float(np.mean(differences))


def component_areas(maps, classes):
    """Pixels of each 4-connected region of one class, in all maps."""
    cross = np.zeros((3, 3, 3), bool)  # neighbours within a map, none across maps
    cross[1] = ndimage.generate_binary_structure(2, 1)
    return np.concatenate([np.bincount(ndimage.label(maps == k, cross)[0].ravel())[1:] for k in range(classes)])


def mean_components(maps, classes):
    """Mean number of 4-connected regions of one class per map; stray pixels drive it up."""
    return len(component_areas(maps, classes)) / len(maps)


def components(maps):
    """Regions per map, and speckle: the share of regions of fewer than 4 pixels."""
    areas = component_areas(maps, _classes(maps))
    return {"per map": len(areas) / len(maps), "speckle": float((areas < 4).mean())}


def nearest_agreement(maps, train, same=False):
    """For each map, the largest share of pixels in which a map of `train` agrees; `same`: maps are train, itself not counted."""
    agreement = np.zeros((len(maps), len(train)), np.float32)  # counts of pixels are exact in float32
    for k in range(_classes(maps, train)):
        theirs = (train == k).reshape(len(train), -1).T.astype(np.float32)
        for start in range(0, len(maps), 256):
            agreement[start:start + 256] += (maps[start:start + 256] == k).reshape(-1, len(theirs)).astype(np.float32) @ theirs
    if same:
        np.fill_diagonal(agreement, -1)
    return agreement.max(1) / maps[0].size


def memorization(train, fake, heldout=None):
    """How near samples come to the training maps, beside how near held-out maps do.

    "agreement": the median of the samples' nearest_agreement, "held out": that of held-out maps, "memorized": the share of
    samples above the 99th percentile of the held-out maps (0.01 is chance). Without held-out maps, each training map is held
    out from the others; do not trust that where training maps come in near-duplicates, as frames of a video do.
    """
    samples = nearest_agreement(fake, train)
    held_out = nearest_agreement(train, train, same=True) if heldout is None else nearest_agreement(heldout, train)
    return {"agreement": float(np.median(samples)), "held out": float(np.median(held_out)),
            "memorized": float((samples > np.quantile(held_out, 0.99)).mean())}


# ----------------------------------------------------------------- softmax, palette, and Colored Shapes
def discreteness(probabilities):
    """Of softmax outputs (..., K): mean largest probability, and mean entropy in nats (0 is one-hot, log K uniform)."""
    return {"largest probability": float(probabilities.max(-1).mean(dtype=np.float64)),
            "entropy": float(special.entr(probabilities).sum(-1).mean(dtype=np.float64))}


def invalid_color_rate(images, palette, tolerance=8):
    """Share of pixels that are further than `tolerance` grey levels, in some channel, from every colour (K, 3) of the palette.

    Raises ValueError where the tolerance is so large that a pixel can be near two colours.
    """
    _check_images(images)
    palette = np.unique(palette, axis=0).astype(int)
    gap = min((np.abs(a - b).max() for i, a in enumerate(palette) for b in palette[:i]), default=256)
    if 2 * tolerance >= gap:
        raise ValueError(f"tolerance {tolerance}: two colours of the palette are {gap} grey levels apart; expected less than half")
    valid = np.zeros((256, 256, 256), bool)
    for low, high in zip((palette - tolerance).clip(0), palette + tolerance + 1):
        valid[tuple(map(slice, low, high))] = True
    invalid = sum(np.count_nonzero(~valid[tuple(np.moveaxis(images[i:i + BLOCK], -1, 0))]) for i in range(0, len(images), BLOCK))
    return invalid / (images.size // 3)


def whole_share(maps, real, classes):
    """Share of maps in which every class covers at least half its median area in the real maps.

    A class that is absent from half of the real maps or more has a median of 0 and is not asked for.
    """
    median = np.median(class_areas(real, classes), 0)
    return float((class_areas(maps, classes) >= median / 2).all(1).mean())


def _pixels_under(shape, pixels):
    """How many of the pixels (N, H, W) lie under a shape (h, w), at each place where it fits: (N, H - h + 1, W - w + 1)."""
    return np.rint(signal.fftconvolve(pixels.astype(np.float32), shape[None, ::-1, ::-1].astype(np.float32), "valid", (1, 2)))


def whole_shapes(maps):
    """Share of Colored Shapes maps, (N, side, side), whose circle, rectangle and square are all whole.

    A shape is whole if, at some place, its ideal of data.colored_shapes is at least half visible and agrees with the map:
    intersection over union of 0.9, of the class's pixels and the ideal's visible ones. Visible are those that no shape painted
    later covers: the circle covers the square, both cover the rectangle.
    """
    _classes(maps)
    side, whole = maps.shape[1], np.ones(len(maps), bool)
    square, radius, width, height = (round(size * side / 64) for size in (10, 10, 12, 20))
    y, x = np.mgrid[-radius:radius + 1, -radius:radius + 1]
    circle = y ** 2 + x ** 2 <= radius ** 2
    for k, above, shape in ((1, (), circle), (2, (1, 3), np.ones((height, width))), (3, (1,), np.ones((square, square)))):
        for start in range(0, len(maps), 256):
            block = maps[start:start + 256]
            own = block == k
            inside, visible = _pixels_under(shape, own), _pixels_under(shape, ~np.isin(block, above))
            union = visible + own.sum((1, 2))[:, None, None] - inside
            whole[start:start + 256] &= ((visible >= shape.sum() / 2) & (inside >= 0.9 * union)).any((1, 2))
    return float(whole.mean())


# -------------------------------------------------------------------------------------------- the tables
# f(real, fake) -> float or {name: float}. Those of the fake set alone tell as much of real maps put in its place.
IMAGE_METRICS = {"SWD x1e3": sliced_wasserstein,
                 "MS-SSIM": lambda real, fake: diversity(fake)}
LABEL_METRICS = {"class frequencies": class_frequency_distance,
                 "FSD": segmentation_distance,
                 "adjacency": adjacency_distance,
                 "boundary density": lambda real, fake: boundary_density(fake),
                 "spatial prior": spatial_distance,
                 "components": lambda real, fake: components(fake),
                 "memorization": memorization}


# ---------------------------------------------------------------------- all of a generator, and the page of two
def nearest_class(maps, palette):
    """RGB (N, H, W, 3) -> ids (N, H, W): the class of the nearest colour. Ids stay as they are."""
    if maps.ndim == 3:
        return maps
    return np.stack([((m[..., None, :] - palette.astype(np.int32)) ** 2).sum(-1).argmin(-1).astype(np.uint8) for m in maps])


def measure(g, dataset, count, seed, weights=None):
    """{metric: (of the samples, of half of them, of real maps in the samples' place)}; a metric that cannot be had: a text.

    The first figure compares `count` samples with as many training maps, the paper's way (its Appendix B: all of them). The
    others compare a half of these maps with as many samples, and with the other half of the maps: no generator can do
    better than the last. weights: of inception.load_weights.
    """
    order = np.random.default_rng([seed, 5]).permutation(len(dataset.maps))[:count]
    real, z = dataset.maps[order], np.random.default_rng([seed, 4]).standard_normal((count, g.s.latent))
    fake, half = g.sample(z), count // 2
    pairs = (real, fake), (real[:half], fake[:half]), (real[:half], real[half:2 * half])
    ids = lambda maps: nearest_class(maps, dataset.palette)
    images = lambda maps: dataset.palette[maps] if maps.ndim == 3 else maps
    table = {}

    def add(name, metric, view):
        try:
            found = [metric(*map(view, pair)) for pair in pairs]
        except ValueError as error:
            found = [str(error)] * 3
        for key in found[0] if isinstance(found[0], dict) else [None]:
            table[f"{name}, {key}" if key else name] = tuple(f[key] if key else f for f in found)

    for name, metric in LABEL_METRICS.items():
        add(name, metric, ids)
    if g.s.dataset == "shapes":
        add("whole shapes", lambda _, maps: whole_shapes(maps), ids)
    for name, metric in IMAGE_METRICS.items():
        add(name, metric, images)
    if weights:
        r, f = (inception.features(images(maps), weights, g.ops.unrounded()) for maps in (real, fake))
        table["FID"] = tuple(frechet_distance(*two) for two in ((r, f), (r[:half], f[:half]), (r[:half], r[half:2 * half])))
    if g.rgb:
        add("invalid colours", lambda _, maps: invalid_color_rate(maps, dataset.palette), images)
    else:
        found = [discreteness(out) | {"n": len(out)} for out in g.outputs(z)]
        for key in "largest probability", "entropy":  # of real maps: 1 and 0
            mean = float(np.average([f[key] for f in found], weights=[f["n"] for f in found]))
            table[f"softmax, {key}"] = mean, mean, float(key != "entropy")
    return table


TABLE_HEADER = ["step", "samples", "seed", "metric", "value", "value at half", "real at half"]


def read_table(path):
    """The rows of metrics.csv as dicts; none if there is no such file. Raises InputError."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if reader.fieldnames != TABLE_HEADER or not all(row["step"].isdigit() for row in rows):
        raise InputError(f"{path}: not a readable table of metrics; remove it to go on without")
    return rows


def write_table(path, step, count, seed, table):
    """Put the figures of one step into metrics.csv, in place of those of this step and of later ones: a run went on from here."""
    rows = [row for row in read_table(path) if int(row["step"]) < step]
    rows += [dict(zip(TABLE_HEADER, [step, count, seed, name, *figures])) for name, figures in table.items()]
    aside = path.with_name(path.name + ".tmp")
    with open(aside, "w", newline="") as file:
        writer = csv.DictWriter(file, TABLE_HEADER)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(aside, path)


LOWER_IS_BETTER = ("class frequencies", "FSD", "adjacency", "spatial prior", "components, speckle", "invalid colours", "SWD",
                   "MS-SSIM, mean", "FID")


def best_values(path):
    """{metric: (lowest value, its step)} of metrics.csv, for the metrics of which lower is better."""
    found = {}
    for row in read_table(path):
        name = row["metric"]
        try:
            value = float(row["value"])
        except ValueError:  # it could not be had; the text says why
            continue
        if name.startswith(LOWER_IS_BETTER):
            found[name] = min(found.get(name, (np.inf, 0)), (value, int(row["step"])))
    return found


def comparison_page(folder, title, grids, facts):
    """compare.png and compare.md in `folder`, from metrics.csv of semgan/ and gan/ in it: the paper's figures 3 and 4, a table.

    grids: {title: PIL image}, one above the other. facts: a sentence on the runs.
    """
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    titles = {"semgan": "SemGAN", "gan": "GAN"}
    rows = {model: read_table(folder / model / "metrics.csv") for model in titles}
    curves = {}  # {metric: {model: [(step, value)]}}
    for model in titles:
        for row in rows[model]:
            if row["metric"].startswith("SWD") and row["value"][:1].isdigit():
                curves.setdefault(row["metric"], {}).setdefault(model, []).append((int(row["step"]), float(row["value"])))
    figure = plt.figure(figsize=(11, 7.5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.3])
    for ax, (name, models) in zip(above.subplots(1, max(1, len(curves)), squeeze=False)[0], curves.items()):
        for model, points in models.items():
            ax.plot(*zip(*points), marker=".", label=titles[model])
        ax.axhline(next(float(row["real at half"]) for model in models for row in rows[model] if row["metric"] == name),
                   color="grey", linestyle=":", label="real, half as many")
        ax.set(title=name, xlabel="step", ylim=(0, None))
        ax.legend(fontsize=8)
    for ax, (name, image) in zip(below.subplots(len(grids), 1), grids.items()):
        ax.imshow(image, interpolation="nearest")
        ax.set_title(name, fontsize=10, loc="left")
        ax.axis("off")
    figure.savefig(folder / "compare.png", dpi=110)
    plt.close(figure)

    lowest = {model: best_values(folder / model / "metrics.csv") for model in titles}
    last = {model: {row["metric"]: row for row in rows[model] if row["step"] == rows[model][-1]["step"]} for model in titles}
    number = lambda text: f"{float(text):.4g}" if text[:1].isdigit() else "-"
    lines = [f"# {title}", "", "![curves and samples](compare.png)", "",
             f"{facts} {rows['semgan'][-1]['samples']} samples against as many training maps. Best: the lowest value during "
             "training, as the paper reports. Real: one half of the maps against the other.", "",
             "| metric | SemGAN | GAN | best SemGAN (step) | best GAN (step) | real |", "|---|---|---|---|---|---|"]
    for name in last["semgan"] | last["gan"]:
        there = [last[model].get(name) for model in titles]
        figures = [number(row["value"]) if row else "-" for row in there]
        figures += [f"{lowest[m][name][0]:.4g} ({lowest[m][name][1]})" if name in lowest[m] else "-" for m in titles]
        figures.append(number(next(row["real at half"] for row in there if row)))
        lines.append(f"| {name} | {' | '.join(figures)} |")
    (folder / "compare.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n" + "\n".join(lines[6:]) + f"\n\nIn {folder}: compare.md, compare.png.")
