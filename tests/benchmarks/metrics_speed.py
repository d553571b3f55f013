"""Speed of SWD and of the Frechet distance, beside the plain way to compute them.

    python tests/benchmarks/metrics_speed.py [--images 2048] [--rows 5000] [--dims 2048]
                                             [--repeats 3] [--only swd|frechet]

Ours and the plain way take turns; times are medians.
Plain SWD: one thread, four times A @ V and a sort of its columns; pyramid and patches are ours.
Plain Frechet distance: covariances and SciPy's sqrtm of their product, on all threads.
"""
import argparse
import sys
import time
from pathlib import Path

import numpy as np
from scipy import linalg
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import data  # noqa: E402
import image_metrics  # noqa: E402


def plain_wasserstein(real, fake, seed=0):
    """sliced_wasserstein, level by level, with the distance in its plain form."""
    n, side = real.shape[:2]
    count = (side // 16).bit_length()
    sizes = [(side >> level, side >> level) for level in range(count)]
    rng = np.random.RandomState(seed)
    distances = []
    with threadpool_limits(1):
        real_corners = image_metrics._draw_corners(rng, n, sizes, 32)
        image_metrics._draw_directions(rng, count)
        fake_corners = image_metrics._draw_corners(rng, n, sizes, 32)
        directions = image_metrics._draw_directions(rng, count)
        for level in range(count):
            last = level == count - 1
            a = image_metrics._descriptors(real, real_corners[level], level, last)
            b = image_metrics._descriptors(fake, fake_corners[level], level, last)
            parts = [np.abs(np.sort(a @ v.T, 0) - np.sort(b @ v.T, 0)).mean()
                     for v in np.split(directions[level], 4)]
            distances.append(1e3 * np.mean(parts))
    return np.mean(distances)


def plain_frechet(a, b):
    """The formula with a matrix square root, as pytorch-fid has it."""
    gap = a.mean(0) - b.mean(0)
    s = np.cov(a, rowvar=False)
    t = np.cov(b, rowvar=False)
    return gap @ gap + np.trace(s) + np.trace(t) - 2 * np.trace(linalg.sqrtm(s @ t)).real


def compare(name, ours, plain, repeats):
    times = [], []
    for _ in range(repeats):
        values = []
        for run, taken in zip((ours, plain), times):
            start = time.perf_counter()
            values.append(float(run()))
            taken.append(time.perf_counter() - start)
    fast, slow = map(np.median, times)
    print(f"{name}: {fast:.2f} s, plain {slow:.2f} s: {slow / fast:.1f}x    "
          f"values {values[0]:.9g} and {values[1]:.9g}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("images", 2048), ("rows", 5000), ("dims", 2048), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", choices=["swd", "frechet"])
    args = parser.parse_args()
    if args.only != "frechet":
        sets = [data.colored_shapes(64, seed) for seed in (0, 1)]
        real, fake = (dataset.palette[dataset.maps[:args.images]] for dataset in sets)
        compare(f"SWD, {args.images} against {args.images} at 64 px",
                lambda: image_metrics.sliced_wasserstein(real, fake)["average"],
                lambda: plain_wasserstein(real, fake), args.repeats)
    if args.only != "swd":
        rng = np.random.default_rng(0)
        shape = args.rows, args.dims
        a, b = (rng.standard_normal(shape) * rng.uniform(0.1, 1, args.dims) for _ in range(2))
        compare(f"Frechet distance, {args.rows} rows of {args.dims}",
                lambda: image_metrics.frechet_distance(a, b), lambda: plain_frechet(a, b),
                args.repeats)


if __name__ == "__main__":
    main()
