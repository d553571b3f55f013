"""Images per second of Inception on the CPU: this project against PyTorch with the same weights on the same cores.

    python tests/benchmarks/inception_speed.py [--batch 8] [--rounds 8]

PyTorch runs as fast as it is commonly told to: channels_last, no_grad, batch norm folded into the convolutions, ReLU in place.
The two take turns, so that a noisy machine disturbs both alike; printed are medians and their ratio. The weights are random:
no download.
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
    """{name: (w, bias)} as load_weights returns them, with variance-preserving random numbers."""
    rng = np.random.default_rng(0)
    return {name: (np.float32(rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:3]))),
                   np.float32(0.1 * rng.standard_normal(shape[3]))) for name, shape in inception.convolutions()}


class TorchOps:
    """As much of the contract as Inception needs: inception.run builds the same network of PyTorch's operations. Maps are NCHW."""

    def concat(self, *parts):
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
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1  # channels_last as it comes
        x = F.interpolate(x, (inception.SIDE, inception.SIDE), mode="bilinear")
        return dict(inception.taps(x, weights, TorchOps()))[2048].mean((2, 3)).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=inception.BATCH)
    parser.add_argument("--rounds", type=int, default=8, help="turns each of the two takes, of two measured batches")
    args = parser.parse_args()
    import torch
    ops, weights = kernels.load("numpy"), random_weights()
    torch.set_num_threads(ops.lanes)
    theirs = {name: (torch.from_numpy(w).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last), torch.from_numpy(bias))
              for name, (w, bias) in weights.items()}
    images = np.random.default_rng(0).integers(0, 256, (args.batch, 64, 64, 3), np.uint8)
    turns = {"ours": lambda: inception.features(images, weights, ops, batch=args.batch),
             "PyTorch": lambda: torch_features(images, theirs)}
    np.testing.assert_allclose(turns["ours"](), turns["PyTorch"](), atol=1e-4)  # the same network indeed; and warm-up
    times = {name: [] for name in turns}
    for _ in range(args.rounds):
        for name, run in turns.items():
            for i in range(3):
                start = time.perf_counter()
                run()
                if i:  # the first of a turn finds the other's data in the cache and its threads still spinning
                    times[name].append(time.perf_counter() - start)
    ours, theirs = (float(np.median(t)) for t in times.values())
    print(f"ours {args.batch / ours:.2f} images/s   PyTorch {args.batch / theirs:.2f} images/s   time ratio {ours / theirs:.2f}   "
          f"({ops.lanes} cores, batches of {args.batch}, NumPy {np.__version__}, PyTorch {torch.__version__})")


if __name__ == "__main__":
    main()
