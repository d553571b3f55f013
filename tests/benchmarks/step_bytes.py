"""What one training step computes and moves, counted without computing it.

    python tests/benchmarks/step_bytes.py

Counted are the multiply-adds of the convolutions, and the bytes that every other kernel reads and
writes. This shows what a faster kernel, or one kernel less, could save. Times are those of a card
that copies 4 TB/s and multiplies 200 TFLOP/s. An argument counts once, read or written: what a
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

COPY = 4e12    # bytes a second
FLOPS = 2e14
CONVOLUTIONS = "conv", "conv_input_grad", "conv_weight_grad"
READ_AND_WRITTEN = {"adam": ["params", "m", "v"], "feature_matching_mean": ["dfake"]}


class Counter:
    """A device that only counts. Its memory is never touched and so costs nothing."""
    name = "counter"
    dtype = np.dtype(np.float32)
    multiprocessors = 132
    shared_memory = 228 * 1024
    recording = None

    def __init__(self, precision="tf32"):
        self.precision = precision
        self.launches = collections.Counter()
        self.bytes = collections.Counter()
        self.convolutions = 0  # launches of the kernels in conv/
        self.inside = ""  # " of ..." while a convolution runs

    allocate = staticmethod(lambda size: np.empty(size, np.uint8))
    view = staticmethod(lambda buffer, size, lease: buffer[:size])
    upload = staticmethod(np.array)
    download = staticmethod(np.asarray)
    holds = staticmethod(lambda a: isinstance(a, np.ndarray))
    record = staticmethod(lambda run: run)
    spoil = write = staticmethod(lambda *_: None)

    def launch(self, file, kernel, grid, block, *arguments, shared=0):
        source = launch.read(file)
        grid, block = launch.three(grid), launch.three(block)
        arguments = launch.check(source, kernel, grid, block, arguments, self)
        if file.startswith("conv"):
            self.convolutions += 1
            return
        parameters = source.kernels[kernel].parameters
        size = {p.name: a.nbytes for p, a in zip(parameters, arguments)
                if isinstance(a, np.ndarray)}
        if kernel == "gather":  # reads the labels of the batch only, and of a table one row
            size["labels"] = arguments[3].size // arguments[2].shape[1]
        if kernel.startswith("take_row"):
            size["table"] = size["out"]
        again = sum(size[name] for name in READ_AND_WRITTEN.get(kernel, []))
        self.bytes[kernel + self.inside] += sum(size.values()) + again
        self.launches[kernel + self.inside] += 1


def counted(device, work, name, operation):
    """A convolution that adds to work[name] its multiply-adds and the bytes of its arrays."""
    def call(a, b, *rest, **options):
        if device.inside:  # with few channels a convolution calls another one
            return operation(a, b, *rest, **options)
        device.inside = f" of {name}"
        result = operation(a, b, *rest, **options)
        device.inside = ""
        if name == "conv_weight_grad":
            y, w_shape = b, rest[0]
        else:
            y, w_shape = result if name == "conv" else a, b.shape
        moved = sum(4 * np.prod(array.shape) for array in (a, b, result))
        work[name] += np.array([np.prod(y.shape) * np.prod(w_shape[:3]), moved])
        return result
    return call


def count(s, classes, precision="tf32"):
    """Of one step: the counting device, {convolution: (multiply-adds, bytes)}, parameters."""
    maps = np.zeros((100, s.side, s.side), np.uint8)
    dataset = SimpleNamespace(maps=maps, classes=classes, palette=np.zeros((classes, 3), np.uint8))
    device = Counter(precision)
    trainer = semgan.Trainer(CudaOps(device), s, dataset)
    work = collections.Counter()
    for name in CONVOLUTIONS:
        operation = getattr(trainer.ops, name)
        setattr(trainer.ops, name, counted(device, work, name, operation))
    trainer.operations()
    params = sum(net.flat["params"].size for net in trainer.networks.values())
    return device, work, params


def report(title, device, work, params):
    def line(name, amount, ms, moved, last):
        print(f"{name:36s}{amount:>14}{ms:9.3f}{moved / 1e6:9.1f} MB{last}")
    conv_ms = 2e3 * sum(adds for adds, _ in work.values()) / FLOPS
    print(title)
    print(f"{'convolutions':36s}{'multiply-adds':>14s}{'ms':>9s}{'operands':>12s}{'ms':>9s}")
    for name, (adds, moved) in work.items():
        line(name, f"{adds / 1e9:.1f} G", 2e3 * adds / FLOPS, moved, f"{1e3 * moved / COPY:9.3f}")

    total = sum(device.bytes.values())
    total_ms = 1e3 * total / COPY
    print(f"{'the other kernels':36s}{'launches':>14s}{'ms':>9s}{'moved':>12s}{'share':>9s}")
    for name, moved in device.bytes.most_common():
        line(name, device.launches[name], 1e3 * moved / COPY, moved, f"{moved / total:9.1%}")
    line("together", device.launches.total(), total_ms, total, "")

    least = 28 * params  # Adam reads 4 arrays and writes 3
    least_ms = 1e3 * least / COPY
    line("Adam alone, all else fused away", 2, least_ms, least, "")
    print(f"They add {total_ms / conv_ms:.1%} to the {conv_ms:.2f} ms of the convolutions; "
          f"fused, they would add {least_ms / conv_ms:.1%}.\n")


def main():
    for title, name, changes, classes in (
        ("full: 64x64, 4 classes, kernel size 11", "shapes", {}, 4),
        ("street scenes: 128x128, 22 classes, kernel size 7", "maps", semgan.STREET_SCENES, 22),
    ):
        report(title, *count(semgan.settings(dataset=name, **changes), classes))


if __name__ == "__main__":
    main()
