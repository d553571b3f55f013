"""One training step (both networks, all gradients, both Adam updates): this project against PyTorch on the same cores.

    python tests/benchmarks/training_step.py small paper

The two take turns of a few steps, so that a noisy machine disturbs both alike; printed are medians and their ratio.
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
    import torch
    from torch_step import TorchTrainer
    s = semgan.resolve("shapes", preset)[0]
    trainer = semgan.Trainer(kernels.load("numpy"), s, data.colored_shapes(s.side, s.seed))
    torch.set_num_threads(trainer.ops.lanes)
    yardstick = TorchTrainer(trainer)
    turns = {"ours": trainer.train_step, "PyTorch": lambda: yardstick.train_step(*trainer.inputs(yardstick.step))}
    for _ in range(2):  # the same step indeed; and warm-up
        turns["ours"]()
        np.testing.assert_allclose(turns["PyTorch"](), trainer.losses, rtol=0.05, atol=1e-4)
    rounds, per_round = (rounds, 10) if s.side <= 32 else (max(1, rounds // 2), 2)
    times = {name: [] for name in turns}
    for _ in range(rounds):
        for name, run in turns.items():
            for i in range(1 + per_round):
                start = time.perf_counter()
                run()
                if i:  # the first step of a turn finds the other's data in the cache and its threads still spinning
                    times[name].append(time.perf_counter() - start)
    ours, theirs = (float(np.median(t)) for t in times.values())
    print(f"{preset:8s} ours {ours:.4f} s   PyTorch {theirs:.4f} s   ratio {ours / theirs:.2f}   "
          f"({trainer.ops.lanes} cores, {len(times['ours'])} steps each)", flush=True)
    return dict(preset=preset, ours_s=ours, pytorch_s=theirs, ratio=ours / theirs, cores=trainer.ops.lanes,
                cpu=platform.processor() or platform.machine(), numpy=np.__version__, torch=torch.__version__)


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
