"""Images a second of Inception on the CPU: this project and PyTorch with the same weights.

    python tests/benchmarks/inception_speed.py [--batch 8] [--rounds 8]

PyTorch runs with the usual speed-ups: channels_last, no_grad, batch norm folded into the
convolutions, ReLU in place. Both use the same cores and take turns, so that a noisy machine
disturbs both alike; printed are medians and their ratio. The weights are random: no download.
"""
import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import inception  # noqa: E402
import kernels  # noqa: E402


def random_weights():
    """{name: (w, bias)} as load_weights returns them, random; they keep the variance."""
    rng = np.random.default_rng(0)
    weights = {}
    for name, shape in inception.convolutions():
        w = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:3]))
        bias = 0.1 * rng.standard_normal(shape[3])
        weights[name] = np.float32(w), np.float32(bias)
    return weights


def to_torch(w, bias):
    """(kh, kw, Cin, Cout) -> (Cout, Cin, kh, kw) in the memory format channels_last."""
    import torch
    w = torch.from_numpy(w).permute(3, 2, 0, 1)
    return w.contiguous(memory_format=torch.channels_last), torch.from_numpy(bias)


class TorchOps:
    """The operations that Inception needs, in PyTorch: inception.taps builds its network of them.

    Maps are (B, C, H, W).
    """

    def concat(self, parts):
        import torch
        return torch.cat(parts, 1)

    def conv(self, x, w, stride, pad, bias, activation):
        from torch.nn import functional as F
        return F.relu_(F.conv2d(x, w, bias, stride, pad))

    def max_pool(self, x, size, stride, pad):
        from torch.nn import functional as F
        return F.max_pool2d(x, size, stride, pad)

    def average_pool(self, x, size, stride, pad):
        from torch.nn import functional as F
        return F.avg_pool2d(x, size, stride, pad, count_include_pad=False)


def torch_features(images, weights):
    """uint8 (B, H, W, 3), weights as torch tensors -> (B, 2048)."""
    import torch
    from torch.nn import functional as F
    with torch.no_grad():
        x = torch.from_numpy(images).permute(0, 3, 1, 2)  # channels_last already
        x = F.interpolate(x.float() / 127.5 - 1, (inception.SIDE, inception.SIDE), mode="bilinear")
        return dict(inception.taps(x, weights, TorchOps()))[2048].mean((2, 3)).numpy()


def measure(batch, rounds):
    """{who: median seconds a batch}, and the number of cores."""
    import torch
    ops = kernels.load("numpy")
    weights = random_weights()
    cores = ops.workers.count
    torch.set_num_threads(cores)
    theirs = {name: to_torch(*pair) for name, pair in weights.items()}
    images = np.random.default_rng(0).integers(0, 256, (batch, 64, 64, 3), np.uint8)
    turns = {
        "ours": lambda: inception.features(images, weights, ops, batch=batch),
        "PyTorch": lambda: torch_features(images, theirs),
    }
    # The same network indeed; and a warm-up.
    np.testing.assert_allclose(turns["ours"](), turns["PyTorch"](), atol=1e-4)
    times = {name: [] for name in turns}
    for _ in range(rounds):
        for name, run in turns.items():
            run()  # finds the other's data in the cache and its threads still spinning
            for _ in range(2):
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    return {name: float(np.median(t)) for name, t in times.items()}, cores


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=inception.BATCH)
    parser.add_argument("--rounds", type=int, default=8, help="turns each takes, of two batches")
    args = parser.parse_args()
    import torch
    seconds, cores = measure(args.batch, args.rounds)
    ours, theirs = seconds.values()
    speeds = "   ".join(f"{name} {args.batch / s:.2f} images/s" for name, s in seconds.items())
    print(f"{speeds}   time ratio {ours / theirs:.2f}   ({cores} cores, batches of {args.batch}, "
          f"NumPy {np.__version__}, PyTorch {torch.__version__})")


if __name__ == "__main__":
    main()
