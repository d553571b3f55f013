"""Speed of each step of the ladder: multiply-adds a second of conv and its two gradients.

    python tests/benchmarks/convolutions.py [--device emulator|cuda]

The layer is a middle one of the preset small (emulator) or full (cuda). Printed are medians of
several launches; the first is left out.
"""
import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import kernels  # noqa: E402
from kernels import launch  # noqa: E402
from kernels.cuda_ops import CudaOps  # noqa: E402

LAYERS = {  # shapes of x and w; stride 2
    "emulator": ((4, 16, 16, 32), (11, 11, 32, 64)),
    "cuda": ((32, 32, 32, 128), (11, 11, 128, 256)),
}


def speeds(ops, x_shape, w_shape, launches):
    """Million multiply-adds a second of conv, conv_input_grad, conv_weight_grad."""
    rng = np.random.default_rng(0)
    pad = w_shape[0] // 2
    x = ops.asarray(rng.standard_normal(x_shape))
    w = ops.asarray(rng.standard_normal(w_shape))
    dy = ops.conv(x, w, 2, pad)
    for run in (
        lambda: ops.conv(x, w, 2, pad),
        lambda: ops.conv_input_grad(dy, w, x_shape, 2, pad),
        lambda: ops.conv_weight_grad(x, dy, w_shape, 2, pad),
    ):
        times = []
        for _ in range(launches):
            ops.asnumpy(dy[:1, 0, 0])  # waits for earlier launches
            start = time.perf_counter()
            ops.asnumpy(run()[:1, 0, 0])
            times.append(time.perf_counter() - start)
        yield dy.size * np.prod(w_shape[:3]) / np.median(times[1:]) / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=LAYERS, default="emulator")
    parser.add_argument("--launches", type=int, default=6)
    args = parser.parse_args()
    exact, tensor_cores = (
        kernels.load(args.device, precision=precision).device for precision in ("fp32", "tf32"))
    x_shape, w_shape = LAYERS[args.device]
    print(f"{exact}: x {x_shape}, w {w_shape}, stride 2; million multiply-adds a second")
    print(f"{'step':20s}{'conv':>14s}{'input gradient':>18s}{'weight gradient':>18s}")
    for path in launch.ladder("conv"):
        device = tensor_cores if launch.takes_operands(path) else exact
        found = speeds(CudaOps(device, path.stem), x_shape, w_shape, args.launches)
        conv, input_grad, weight_grad = found
        print(f"{path.stem:20s}{conv:14,.0f}{input_grad:18,.0f}{weight_grad:18,.0f}", flush=True)


if __name__ == "__main__":
    main()
