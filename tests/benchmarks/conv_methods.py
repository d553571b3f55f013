"""im2col against the Fourier transform, for the rule that chooses between them.

    python tests/benchmarks/conv_methods.py

Times a convolution with both its gradients both ways, over many shapes, and prints how often the
rule of fourier_conv.py chooses the faster way, and what its choices cost beside the best ones.
--fit searches the rule's constant again.
"""
import argparse
import itertools
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from kernels import fourier_conv  # noqa: E402
from kernels.contract import conv_shape  # noqa: E402
from kernels.numpy_engine import NumpyEngine  # noqa: E402

SIDES = (8, 16, 32, 64)
CHANNELS = ((3, 64), (4, 16), (16, 4), (16, 32), (64, 4), (64, 128))
KERNELS = (2, 3, 4, 5, 7, 9, 11)
STRIDES = (1, 2)
MOST = 3e9  # multiply-adds: larger shapes take too long here


def shapes(batch):
    for side, (cin, cout), k, stride in itertools.product(SIDES, CHANNELS, KERNELS, STRIDES):
        x_shape, w_shape, pad = (batch, side, side, cin), (k, k, cin, cout), k // 2
        y_shape = conv_shape(x_shape, w_shape, stride, pad)
        if np.prod(y_shape) * k * k * cin < MOST:
            yield x_shape, w_shape, stride, pad


def seconds(engines, x_shape, w_shape, stride, pad, repeats=5):
    """The median time of the three functions, for each engine; they take turns."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(x_shape, np.float32)
    w = rng.standard_normal(w_shape, np.float32)
    times = [[] for _ in engines]
    for _ in range(repeats):
        for engine, of_engine in zip(engines, times):
            with engine.arena:
                start = time.perf_counter()
                y = engine.conv(x, w, stride, pad)
                engine.conv_input_grad(y, w, x_shape, stride, pad)
                engine.conv_weight_grad(x, y, w_shape, stride, pad)
                of_engine.append(time.perf_counter() - start)
    return [float(np.median(t)) for t in times]


def judge(rows):
    """(share of right choices, seconds of the chosen ways beside those of the faster ones)."""
    chosen = [times[fourier_conv.is_cheaper(*shape)] for shape, times in rows]
    best = [min(times) for _, times in rows]
    relative = [c / b for c, b in zip(chosen, best)]
    return (np.mean([r == 1 for r in relative]), np.exp(np.mean(np.log(relative))),
            max(relative))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--fit", action="store_true", help="search the rule's constant again")
    args = parser.parse_args()
    engines = [NumpyEngine(conv_method=method) for method in ("im2col", "fourier")]
    rows = []
    for shape in shapes(args.batch):
        rows.append((shape, seconds(engines, *shape)))
        im2col, fourier = rows[-1][1]
        (_, h, w, cin), (kh, kw, _, cout), stride, _ = shape
        print(f"{h:3d}x{w:<3d} {kh:2d}x{kw:<2d} stride {stride} {cin:4d} -> {cout:<4d} "
              f"im2col {im2col * 1e3:8.2f} ms   fourier / im2col {fourier / im2col:6.2f}   "
              f"{'fourier' if fourier_conv.is_cheaper(*shape) else 'im2col'}", flush=True)
    if args.fit:
        for fourier_conv.MOVED in (0, 8, 16, 24, 32, 40, 48, 64):
            fourier_conv.is_cheaper.cache_clear()
            print("MOVED = {}: right {:.0%}, {:.3f} times the best, at worst {:.2f}"
                  .format(fourier_conv.MOVED, *judge(rows)))
        return
    print("{} shapes: right {:.0%}, {:.3f} times the best, at worst {:.2f}"
          .format(len(rows), *judge(rows)))


if __name__ == "__main__":
    main()
