"""Two programs at once in one folder or one cache, and caches that are damaged."""
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

from fault_groups.bench import CLEAN, TINY, Program, differences, save_maps, torn


def run(bench):
    other = Program(bench.source, bench.environment)
    maps = save_maps(bench.fresh() / "maps")
    reference = bench.fresh()
    train = ["semgan.py", *TINY, "--dataset", maps, "--steps", "6", "--save-every", "1",
             "--out", "run"]
    bench.judge(bench.call(*train, folder=reference), codes=CLEAN)
    try:
        for _ in bench.some(range(30), 0.05):
            one_folder(bench, other, train, reference)
        for _ in bench.some(range(30), 0.05):
            one_cache(bench, other, train, reference)
    finally:
        other.close()
    cache = next((bench.root / "cache").rglob("*.npz"))
    for _ in bench.some(range(60), 0.05):
        damaged_cache(bench, cache, train, reference)


def at_once(bench, other, train, folders):
    """The same command in two processes, the second one a moment later. Both results."""
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(bench.call, *train, folder=folders[0], program=other)
        time.sleep(bench.rng.uniform(0, 0.3))
        second = bench.call(*train, folder=folders[1])
        return first.result(), second


def one_folder(bench, other, train, reference):
    """Of two runs in one folder one is refused, or comes late; the other is as if it were alone."""
    here = bench.fresh()
    results = at_once(bench, other, train, [here, here])
    refused = [result for result in results if result.code != 0]
    wrong = [] if len(refused) == 1 else [f"{len(refused)} of 2 were refused"]
    for result in results:
        bench.judge(result, *wrong, codes=(0, 2))
    again = ["semgan.py", "--resume", "--steps", "6", "--out", "run"]
    resumed = bench.call(*again, folder=here)
    bench.judge(resumed, *torn(here, temporary=True), *differences(here, reference), codes=CLEAN)


def one_cache(bench, other, train, reference):
    """Two runs that prepare the same maps at once, each in its own folder."""
    shutil.rmtree(bench.root / "cache", ignore_errors=True)
    folders = [bench.fresh(), bench.fresh()]
    for folder, result in zip(folders, at_once(bench, other, train, folders)):
        left = torn(bench.root / "cache", temporary=True)
        bench.judge(result, *left, *differences(folder, reference), codes=CLEAN)


def damaged_cache(bench, cache, train, reference):
    """A cache with a flipped bit, cut off, or empty: the maps are prepared again, the same ones."""
    content = bytearray(cache.read_bytes())
    at = bench.rng.randrange(len(content))
    content[at] ^= 1 << bench.rng.randrange(8)
    cache.write_bytes(content[:bench.rng.choice([0, at, len(content), len(content)])])
    here = bench.fresh()
    bench.judge(bench.call(*train, folder=here), *differences(here, reference), codes=CLEAN)
