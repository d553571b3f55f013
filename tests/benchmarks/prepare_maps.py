"""Speed of preparing maps of Cityscapes' size (2048x1024), beside plain Pillow in a loop.

    python tests/benchmarks/prepare_maps.py     # 2975 maps in a temporary folder, about 100 MB

The two take turns on the same maps, so that a noisy machine disturbs both alike; printed are
medians and their ratio. Then time and memory of a first start, and of a second one.
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

DIFFERENT = 100  # maps; each stands under many names
NAME = "town_{:06d}_000019_gtFine_labelIds.png"
START = """
import resource, sys, time
import data
start = time.perf_counter()
maps = data.load("cityscapes", 128, data=sys.argv[1]).maps
seconds = time.perf_counter() - start
print(len(maps), seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def street(seed):
    """A map of ids 0 to 33 with wavy outlines, which packs about as well as a real one."""
    rng = np.random.default_rng(seed)
    m = np.full((1024, 2048), 7, np.uint8)
    m[:350] = 23
    for _ in range(400):
        y, x = rng.integers(0, 1000), rng.integers(0, 2000)
        h, w = rng.integers(3, 200), rng.integers(3, 150)
        m[y:y + h, x:x + w] = rng.integers(0, 34)
    waves = 8 * np.sin(np.arange(2048) / 37)
    rows = np.add.outer(np.arange(1024), waves).astype(int).clip(0, 1023)
    return m[rows, np.arange(2048)]


def write(folder, contents):
    """A folder as Cityscapes is unpacked: a file for each of `contents`."""
    town = folder / "train" / "town"
    town.mkdir(parents=True)
    files = [town / NAME.format(i) for i in range(len(contents))]
    for file, content in zip(files, contents):
        file.write_bytes(content)
    return files


def drawn(seed, aside):
    """The bytes of a map's PNG."""
    Image.fromarray(street(seed)).save(aside)
    return aside.read_bytes()


def compare(folder, files, rounds):
    """Maps a second, ours and Pillow's."""
    options = data.cityscapes()
    options.pop("complete")

    def shrunk(file):
        return np.asarray(Image.open(file).resize((128, 128), Image.NEAREST))
    turns = {
        "ours": lambda: load_maps(folder, (128, 128), **options).maps,
        "Pillow": lambda: np.stack([shrunk(file) for file in files]),
    }
    assert np.array_equal(turns["ours"](), options["table"][turns["Pillow"]()])
    times = {name: [] for name in turns}
    for _ in range(rounds):
        for name, run in turns.items():
            start = time.perf_counter()
            run()
            times[name].append(len(files) / (time.perf_counter() - start))
    ours, pillow = (float(np.median(t)) for t in times.values())
    kilobytes = np.mean([file.stat().st_size for file in files]) / 1000
    print(f"maps/s    ours {ours:.0f}   Pillow in a loop {pillow:.0f}   "
          f"ratio {ours / pillow:.2f}   ({os.cpu_count()} cores, {kilobytes:.0f} KB a map)",
          flush=True)


def starts(folder, cache):
    """Two starts, each in its own process: the second finds the prepared maps in the cache."""
    code = str(Path(data.__file__).parent)
    environment = os.environ | {"SEMGAN_CACHE": str(cache), "PYTHONPATH": code}
    for start in "first", "second":
        command = [sys.executable, "-c", START, str(folder)]
        answer = subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        count, seconds, megabytes = answer.stdout.split()
        print(f"{start:6s} start: {count} maps in {float(seconds):.2f} s, "
              f"at most {float(megabytes):.0f} MB", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=int, default=2975)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        contents = [drawn(i, folder / "aside.png") for i in range(min(args.maps, DIFFERENT))]
        write(folder / "gtFine", [contents[i % DIFFERENT] for i in range(args.maps)])
        files = write(folder / "few", contents)
        compare(folder / "few", files, args.rounds)
        starts(folder / "gtFine", folder / "cache")


if __name__ == "__main__":
    main()
