"""Metrics of images: SWD, MS-SSIM, the Frechet distance and invalid colours, from their formulas.

Images are uint8 RGB, (N, H, W, 3). metrics.py has the metrics of label maps, and lists them all.
"""
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import linalg, ndimage

from kernels.workers import available_cores, blas_threads, thread_map

CHUNK = 32  # images at a time, which bounds the memory of intermediate results


def _check_images(*sets):
    """Raises ValueError unless all sets are uint8 (N, H, W, 3) with the same sides."""
    for images in sets:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(f"images are {images.dtype} {images.shape}; expected uint8 "
                             "(N, H, W, 3), 0 to 255: from [-1, 1], convert with "
                             "np.rint(x * 127.5 + 127.5).clip(0, 255).astype(np.uint8)")
        if not len(images) or images.shape[1:] != sets[0].shape[1:]:
            raise ValueError(f"images of {sets[0].shape} and {images.shape}: "
                             "expected the same sides, and at least one image")


# ---------------------------------------------------------------- sliced Wasserstein distance (SWD)
# Karras et al. 2018, "Progressive growing of GANs", section 5.
PATCH = 7         # height and width of a patch
PATCHES = 128     # of each image, at each level
REPEATS, DIRECTIONS = 4, 128  # sets of directions, and how many in each
COARSEST = 16     # the pyramid has no level of a smaller height, nor of a width below PATCH
TAPS = np.array([1, 4, 6, 4, 1]) / 16


def sliced_wasserstein(real, fake, seed=0, batch=32):
    """{height of a level: distance, ..., "average": their mean}, times 1000, finest level first.

    real, fake: two sets of N images. This draws the same random numbers, in the same order, as the
    authors' program after np.random.seed(seed) with minibatches of `batch`, and so gives the same
    results. The distance falls as 1 / sqrt(N): compare it at equal N only. Raises ValueError, also
    if a channel is constant.
    """
    sizes = _pyramid_sizes(real, fake)
    rng, n = np.random.RandomState(seed), len(real)
    real_corners = _draw_corners(rng, n, sizes, batch)
    _draw_directions(rng, len(sizes))  # the authors measure real against real here
    fake_corners = _draw_corners(rng, n, sizes, batch)
    directions = _draw_directions(rng, len(sizes))
    distances = {}
    with thread_map(available_cores()) as parallel_map:
        for level, (height, _) in enumerate(sizes):
            last = level == len(sizes) - 1
            corners = real_corners[level], fake_corners[level]
            a, b = parallel_map(_descriptors, (real, fake), corners, (level,) * 2, (last,) * 2)
            distances[height] = 1e3 * _projected_distance(parallel_map, a, b, directions[level])
    return distances | {"average": float(np.mean(list(distances.values())))}


def _pyramid_sizes(real, fake):
    """(height, width) of each level. Raises ValueError for sets that have no such pyramid."""
    _check_images(real, fake)
    n, h, w, _ = real.shape
    if len(fake) != n:
        raise ValueError(f"{n} real and {len(fake)} fake images: SWD compares sets of equal size")
    levels = min(h // COARSEST, w // PATCH).bit_length()
    if not levels or (h | w) % 2 ** (levels - 1):
        raise ValueError(f"images of {h}x{w}: SWD halves them as long as they keep a height of "
                         f"{COARSEST} and a width of {PATCH}; expected sides that can be halved "
                         "that often")
    return [(h >> level, w >> level) for level in range(levels)]


def _draw_corners(rng, n, sizes, batch):
    """The corners of N * 128 patches, one array (2, N * 128) per level: x, then y."""
    corners = [[] for _ in sizes]
    for start in range(0, n, batch):
        for drawn, (h, w) in zip(corners, sizes):
            count = PATCHES * min(batch, n - start)
            drawn.append([rng.randint(side - PATCH + 1, size=count) for side in (w, h)])
    return [np.concatenate(drawn, 1) for drawn in corners]


def _draw_directions(rng, levels):
    """Unit vectors in the space of patches, one float32 array (512, 147) per level."""
    draws = rng.randn(levels, REPEATS, 3 * PATCH * PATCH, DIRECTIONS)
    draws /= np.linalg.norm(draws, axis=2, keepdims=True)
    draws = draws.transpose(0, 1, 3, 2).reshape(levels, REPEATS * DIRECTIONS, -1)
    return draws.astype(np.float32)


def _blur(x):
    """1-4-6-4-1 along height and width, mirrored at the border; exact in float64."""
    for axis in (1, 2):
        x = ndimage.correlate1d(x, TAPS, axis, np.float64, mode="mirror")
    return x


def laplacian_level(images, level, last):
    """One level of the Laplacian pyramid (Burt and Adelson 1983), float32.

    (N, H, W, 3) -> (N, H >> level, W >> level, 3). The last level is the small image itself. The
    others hold what an image loses when it is halved and doubled again.
    """
    halve = lambda x: _blur(x)[:, ::2, ::2].astype(np.float32)
    x = images.astype(np.float32)
    for _ in range(level):
        x = halve(x)
    if last:
        return x
    doubled = np.zeros(x.shape)
    doubled[:, ::2, ::2] = halve(x)
    return x - (4 * _blur(doubled)).astype(np.float32)  # 4: three of four pixels are zero


def _descriptors(images, corners, level, last):
    """Patches at the given corners, (N * 128, 147), normalized: mean 0, variance 1 per channel."""
    patches = np.empty((len(images) * PATCHES, 3, PATCH, PATCH), np.float32)
    for start in range(0, len(images), CHUNK):
        x = laplacian_level(images[start:start + CHUNK], level, last)
        windows = sliding_window_view(x, (PATCH, PATCH), (2, 1))  # (n, H - 6, W - 6, 3, x, y)
        rows = slice(start * PATCHES, (start + len(x)) * PATCHES)
        left, top = corners[:, rows]
        patches[rows] = windows[np.arange(len(left)) // PATCHES, top, left]
    constant = (patches == patches[:1, :, :1, :1]).all((0, 2, 3))
    if constant.any():  # a standard deviation of 0, or of rounding errors
        raise ValueError(f"channel {'RGB'[constant.argmax()]} is constant at level "
                         f"{images.shape[1] >> level}: SWD is not defined "
                         "(all images have one colour, or the palette lacks that channel)")
    patches -= patches.mean((0, 2, 3), keepdims=True)
    patches /= patches.std((0, 2, 3), keepdims=True)
    return patches.reshape(len(patches), -1)


def _projected_distance(parallel_map, a, b, directions):
    """Mean 1-Wasserstein distance of a and b (M, 147), projected onto each direction (D, 147)."""
    def wasserstein(some):
        p, q = some @ a.T, some @ b.T  # a row for each direction, since rows are fast to sort
        p.sort()
        q.sort()
        p -= q
        return np.abs(p, out=p).mean(dtype=np.float64)

    # Directions at once: many make BLAS fast, few save memory.
    count = 1 << int(np.clip(np.log2(2 ** 25 / len(a)), 4, 7))
    distances = parallel_map(wasserstein, np.split(directions, len(directions) // count))
    return float(np.mean(list(distances)))


# ------------------------------------------------------------------------------- MS-SSIM: diversity
SCALE_WEIGHTS = 0.0448, 0.2856, 0.3001, 0.2363, 0.1333  # Wang et al. 2003
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # keep its denominators above 0


def ms_ssim(a, b):
    """Multi-scale structural similarity of a[i] and b[i], (N,): 0 to 1, for equal images 1.

    Raises ValueError unless the sides are multiples of 16 (five scales). As in Karras et al. 2018
    the Gaussian window of 11 pixels shrinks at smaller scales, the mean is taken over all channels
    together, and a negative mean counts as 0.
    """
    _check_images(a, b)
    if len(a) != len(b) or a.shape[1] % 16 or a.shape[2] % 16:
        raise ValueError(f"MS-SSIM of {a.shape} and {b.shape}: "
                         "expected pairs of images whose sides are multiples of 16")
    pairs = pairs_at_once(a.shape[1] * a.shape[2])
    starts = range(0, len(a), pairs)
    with thread_map(available_cores()) as parallel_map:
        values = parallel_map(_ms_ssim, *([x[i:i + pairs] for i in starts] for x in (a, b)))
        return np.concatenate(list(values))


def pairs_at_once(pixels):
    """How many pairs of images with so many pixels ms_ssim takes at a time: 150 MB a thread."""
    return max(1, min(CHUNK, (1 << 19) // pixels))


def _ms_ssim(a, b):
    """ms_ssim for one chunk of images."""
    a, b = (x.transpose(0, 3, 1, 2).astype(np.float64) for x in (a, b))  # (N, 3, H, W)
    result = np.ones(len(a))
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:  # half as large: means of 2x2 pixels
            n, c, h, w = a.shape
            a, b = (x.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5)) for x in (a, b))
        down, right = _gaussian_windows(*a.shape[2:])
        mean_a, mean_b, aa, bb, ab = (down @ x @ right.T for x in (a, b, a * a, b * b, a * b))
        covariance = ab - mean_a * mean_b
        similarity = (2 * covariance + C2) / (aa - mean_a ** 2 + bb - mean_b ** 2 + C2)
        if scale == len(SCALE_WEIGHTS) - 1:  # luminance counts at the coarsest scale only
            similarity *= (2 * mean_a * mean_b + C1) / (mean_a ** 2 + mean_b ** 2 + C1)
        result *= similarity.mean((1, 2, 3)).clip(0) ** weight
    return result


def _gaussian_windows(*sides):
    """For each side, the matrix (side - n + 1, side) that takes Gaussian means over n pixels."""
    n = min(11, *sides)
    window = np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (1.5 * n / 11)) ** 2)
    return [linalg.convolution_matrix(window / window.sum(), side - n + 1).T for side in sides]


def diversity(images):
    """MS-SSIM of pairs (0, 1), (2, 3), ...: mean (low for diverse images) and share of zeros."""
    pairs = len(images) // 2
    if not pairs:
        raise ValueError("diversity needs at least two images")
    similarity = ms_ssim(images[:2 * pairs:2], images[1:2 * pairs:2])
    return {"mean": float(similarity.mean()), "zero pairs": float((similarity == 0).mean())}


# ------------------------------------------------------------------------------- Frechet distances
def frechet_distance(features_a, features_b):
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) of two sets of features, (N, D) and (M, D).

    A and B are their covariances (Heusel et al. 2017). With centred rows X / sqrt(N - 1) = Q R,
    tr (A B)^(1/2) is the sum of the singular values of R_a R_b^T. Unlike a matrix square root,
    these are never complex, and they hold for singular covariances (N < D) too. Raises ValueError,
    also if a feature is NaN or infinite.
    """
    a, b = (np.asarray(x, np.float64) for x in (features_a, features_b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"features of {a.shape} and {b.shape}: "
                         "expected (N, D) and (M, D), two rows or more")
    for which, rows in ("first", a), ("second", b):
        bad = ~np.isfinite(rows).all(1)
        if bad.any():
            raise ValueError(f"NaN or infinite features in {bad.sum()} of {len(rows)} rows of the "
                             f"{which} set, first in row {bad.argmax()}")
    gap = a.mean(0) - b.mean(0)
    a, b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b))
    trace = (a * a).sum() + (b * b).sum()
    with thread_map(2) as parallel_map:  # both at once is faster than LAPACK's own threads
        factor = lambda x: np.linalg.qr(x, mode="r") if len(x) > x.shape[1] else x
        a, b = parallel_map(factor, (a, b))
    with blas_threads(available_cores()):
        root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return max(0.0, float(gap @ gap + trace - 2 * root))  # -1e-14 is a rounding error


# ---------------------------------------------------------------------------------- invalid colours
def invalid_color_rate(images, palette, tolerance=8):
    """Share of pixels that differ from every colour (K, 3) by over `tolerance` in some channel.

    Raises ValueError if the tolerance is so large that a pixel can be near two colours.
    """
    _check_images(images)
    palette = np.unique(palette, axis=0).astype(int)
    gaps = (np.abs(a - b).max() for i, a in enumerate(palette) for b in palette[:i])
    gap = min(gaps, default=256)
    if 2 * tolerance >= gap:
        raise ValueError(f"tolerance {tolerance}: two colours of the palette are {gap} grey levels "
                         "apart; expected less than half of that")
    valid = np.zeros((256, 256, 256), bool)
    for low, high in zip((palette - tolerance).clip(0), palette + tolerance + 1):
        valid[tuple(map(slice, low, high))] = True
    chunks = (np.moveaxis(images[i:i + CHUNK], -1, 0) for i in range(0, len(images), CHUNK))
    invalid = sum(np.count_nonzero(~valid[r, g, b]) for r, g, b in chunks)
    return invalid / (images.size // 3)
