"""What one training step computes and moves, counted without computing it: multiply-adds of the convolutions, and the bytes
that each other kernel reads and writes. So one sees what a faster kernel, or one kernel less, could save.

    python tests/benchmarks/step_bytes.py

Times are those of a card that copies 4 TB/s and multiplies 200 TFLOP/s. An argument counts once, read or written: what a
kernel reads twice comes from the cache the second time.
"""
import collections
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import semgan  # noqa: E402
from kernels import launch  # noqa: E402
from kernels.cuda_ops import CudaOps  # noqa: E402

COPY, FLOPS = 4e12, 200e12
CONVOLUTIONS = "conv", "conv_input_grad", "conv_weight_grad"
READ_AND_WRITTEN = {"adam": ["params", "m", "v"], "feature_matching_mean": ["dfake"]}


class Counter:
    """A device that only counts. Its memory is never touched, so that it costs nothing."""
    name, dtype, precision, multiprocessors, recording = "counter", np.dtype(np.float32), "tf32", 132, None
    shared_memory = 228 * 1024
    allocate, upload, download = (staticmethod(f) for f in (lambda size: np.empty(size, np.uint8), np.array, np.asarray))
    holds, record = (staticmethod(f) for f in (lambda a: isinstance(a, np.ndarray), lambda run: run))
    spoil = write = staticmethod(lambda *_: None)

    def __init__(self):
        self.launches, self.bytes, self.inside = collections.Counter(), collections.Counter(), ""

    def launch(self, file, kernel, grid, block, *arguments, shared=0):
        source, label = launch.read(file), kernel + self.inside
        arguments = launch.check(source, kernel, launch.three(grid), launch.three(block), arguments, self)
        if file.startswith("conv"):
            return
        size = {p.name: a.nbytes for p, a in zip(source.kernels[kernel].parameters, arguments) if isinstance(a, np.ndarray)}
        if kernel == "gather":  # reads the labels of the batch only, and of a table one row
            size["labels"] = arguments[3].size // arguments[2].shape[1]
        if kernel.startswith("take_row"):
            size["table"] = size["out"]
        self.bytes[label] += sum(size.values()) + sum(size[name] for name in READ_AND_WRITTEN.get(kernel, []))
        self.launches[label] += 1


def count(s, dataset):
    """Of one step: the counting device, {convolution: (multiply-adds, bytes of operands and results)}, parameters."""
    device = Counter()
    trainer, work = semgan.Trainer(CudaOps(device), s, dataset), collections.Counter()

    def counted(name, operation):
        def call(a, b, *rest, **options):
            if device.inside:  # with few channels a convolution calls another one
                return operation(a, b, *rest, **options)
            device.inside = f" of {name}"
            result = operation(a, b, *rest, **options)
            device.inside = ""
            y, w_shape = {"conv": (result, b.shape), "conv_input_grad": (a, b.shape)}.get(name) or (b, rest[0])
            moved = sum(4 * np.prod(array.shape) for array in (a, b, result))
            work[name] += np.array([np.prod(y.shape) * np.prod(w_shape[:3]), moved])
            return result
        return call
    for name in CONVOLUTIONS:
        setattr(trainer.ops, name, counted(name, getattr(trainer.ops, name)))
    trainer.operations()
    return device, work, sum(net.flat["params"].size for net in (trainer.generator, trainer.discriminator))


def main():
    for title, name, changes, classes in (("full: 64x64, 4 classes, kernel size 11", "shapes", {}, 4),
                                          ("street scenes: 128x128, 22 classes, kernel size 7", "maps", semgan.STREET_SCENES, 22)):
        s = semgan.resolve(name, "full", **changes)[0]
        maps = np.zeros((100, s.side, s.side), np.uint8)
        device, work, params = count(s, SimpleNamespace(maps=maps, classes=classes, palette=np.zeros((classes, 3), np.uint8)))
        total, conv_ms = sum(device.bytes.values()), 2e3 * sum(w[0] for w in work.values()) / FLOPS
        print(f"{title}\n{'convolutions':36s}{'multiply-adds':>14s}{'ms':>9s}{'operands':>12s}{'ms':>9s}")
        for name, (adds, moved) in work.items():
            print(f"{name:36s}{adds / 1e9:12.1f} G{2e3 * adds / FLOPS:9.3f}{moved / 1e6:9.1f} MB{1e3 * moved / COPY:9.3f}")
        print(f"{'the other kernels':36s}{'launches':>14s}{'ms':>9s}{'moved':>12s}{'share':>9s}")
        for name, moved in device.bytes.most_common():
            print(f"{name:36s}{device.launches[name]:14d}{1e3 * moved / COPY:9.3f}{moved / 1e6:9.1f} MB{moved / total:9.1%}")
        least = 28 * params
        print(f"{'together':36s}{device.launches.total():14d}{1e3 * total / COPY:9.3f}{total / 1e6:9.1f} MB\n"
              f"{'Adam alone, all else fused away':36s}{2:14d}{1e3 * least / COPY:9.3f}{least / 1e6:9.1f} MB\n"
              f"They add {1e3 * total / COPY / conv_ms:.1%} to the {conv_ms:.2f} ms of the convolutions; fused, they would add "
              f"{1e3 * least / COPY / conv_ms:.1%}.\n")


if __name__ == "__main__":
    main()
