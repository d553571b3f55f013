"""Seconds of one training step on the CPU, beside PyTorch on the same cores.

    python tests/benchmarks/training_step.py small paper

A step is both networks, all gradients, both Adam updates. The two take turns of a few steps, so
that a noisy machine disturbs both alike; printed are medians and their ratio.
"""
import argparse
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import data  # noqa: E402
import kernels  # noqa: E402
import semgan  # noqa: E402


def measure(preset, rounds):
    """Prints a line about a preset; the same as a dictionary."""
    import torch
    from torch_step import TorchTrainer
    s = semgan.settings(preset=preset)
    trainer = semgan.Trainer(kernels.load("numpy"), s, data.colored_shapes(s.side, s.seed))
    cores = trainer.ops.workers.count
    torch.set_num_threads(cores)
    yardstick = TorchTrainer(trainer)
    turns = {
        "ours": trainer.train_step,
        "PyTorch": lambda: yardstick.train_step(*trainer.inputs(yardstick.step)),
    }
    for _ in range(2):  # the same step indeed; and a warm-up
        turns["ours"]()
        np.testing.assert_allclose(turns["PyTorch"](), trainer.losses, rtol=0.05, atol=1e-4)
    small = s.side <= 32
    times = alternate(turns, rounds if small else max(1, rounds // 2), 10 if small else 2)
    ours, theirs = (float(np.median(t)) for t in times.values())
    print(f"{preset:8s} ours {ours:.4f} s   PyTorch {theirs:.4f} s   ratio {ours / theirs:.2f}   "
          f"({cores} cores, {len(times['ours'])} steps each)", flush=True)
    return dict(preset=preset, ours_s=ours, pytorch_s=theirs, ratio=ours / theirs, cores=cores,
                cpu=platform.processor() or platform.machine(),
                numpy=np.__version__, torch=torch.__version__)


def alternate(turns, rounds, steps):
    """{name: [seconds of a step]}: in every round each takes a turn of so many steps."""
    times = {name: [] for name in turns}
    for _ in range(rounds):
        for name, run in turns.items():
            run()  # finds the other's data in the cache and its threads still spinning
            for _ in range(steps):
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="*", default=["small", "paper"])
    parser.add_argument("--rounds", type=int, default=8, help="turns each of the two takes")
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()
    rows = [measure(preset, args.rounds) for preset in args.presets]
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
