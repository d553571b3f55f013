"""Preparing maps of Cityscapes' size (2048x1024): maps per second beside plain Pillow in a loop, memory, the second start.

    python tests/benchmarks/prepare_maps.py            # 2975 generated maps in a temporary folder, some 100 MB

The two take turns on the same maps, so that a noisy machine disturbs both alike; printed are medians and their ratio.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import data  # noqa: E402
from formats.label_maps import load_maps  # noqa: E402

MEASURE = """
import resource, sys, time
import data
start = time.perf_counter()
maps = data.load("cityscapes", 128, data=sys.argv[1]).maps
print(len(maps), time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def street(seed):
    """A map of ids 0 to 33 with wavy outlines, which packs about as well as a real one."""
    rng = np.random.default_rng(seed)
    m = np.full((1024, 2048), 7, np.uint8)
    m[:350] = 23
    for _ in range(400):
        y, x, h, w = rng.integers(0, 1000), rng.integers(0, 2000), rng.integers(3, 200), rng.integers(3, 150)
        m[y:y + h, x:x + w] = rng.integers(0, 34)
    rows = np.add.outer(np.arange(1024), 8 * np.sin(np.arange(2048) / 37)).astype(int).clip(0, 1023)
    return m[rows, np.arange(2048)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=int, default=2975)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "gtFine"
        city = whole / "train" / "town"
        city.mkdir(parents=True)
        for i in range(args.maps):  # 100 different ones, each under many names
            file = city / f"town_{i:06d}_000019_gtFine_labelIds.png"
            if i < 100:
                Image.fromarray(street(i)).save(file)
            else:
                file.write_bytes((city / f"town_{i % 100:06d}_000019_gtFine_labelIds.png").read_bytes())
        files = sorted(city.iterdir())[:100]
        few = Path(folder) / "few" / "train" / "town"
        few.mkdir(parents=True)
        for file in files:
            (few / file.name).write_bytes(file.read_bytes())
        options = data.cityscapes()
        options.pop("complete")
        turns = {"ours": lambda: load_maps(Path(folder) / "few", 128, **options).maps,
                 "Pillow": lambda: np.stack([np.asarray(Image.open(f).resize((128, 128), Image.NEAREST)) for f in files])}
        assert np.array_equal(turns["ours"](), options["table"][turns["Pillow"]()])
        times = {name: [] for name in turns}
        for _ in range(args.rounds):
            for name, run in turns.items():
                start = time.perf_counter()
                run()
                times[name].append(len(files) / (time.perf_counter() - start))
        ours, pillow = (float(np.median(t)) for t in times.values())
        print(f"maps/s    ours {ours:.0f}   Pillow in a loop {pillow:.0f}   ratio {ours / pillow:.2f}   ({os.cpu_count()} cores, "
              f"{np.mean([f.stat().st_size for f in files]) / 1000:.0f} KB a map)", flush=True)
        for start in "first", "second":  # each in a process of its own
            environment = os.environ | {"SEMGAN_CACHE": str(Path(folder) / "cache"), "PYTHONPATH": str(Path(data.__file__).parent)}
            count, seconds, megabytes = subprocess.run([sys.executable, "-c", MEASURE, str(whole)], env=environment, check=True,
                                                       stdout=subprocess.PIPE, text=True).stdout.split()
            print(f"{start:6s} start: {count} maps in {float(seconds):.2f} s, at most {float(megabytes):.0f} MB", flush=True)


if __name__ == "__main__":
    main()
