"""What gpu.py is made of: the file of results, a clock for the GPU, and the calls of operations that a training step makes."""
import collections
import datetime
import inspect
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from readme_tables import OPERATIONS

from kernels.numpy_ops import conv_shape

REPEATS = 30     # timed calls of an operation
FLUSH = 1 << 30  # bytes: overwrites any cache, and takes so long that Python has launched all of an operation's kernels


def said(*command):
    """The first line that a command prints; "unknown" where it cannot be run."""
    try:
        return subprocess.run([*map(str, command)], capture_output=True, text=True).stdout.split("\n")[0] or "unknown"
    except OSError:
        return "unknown"


class Results:
    """results/<card>.json: {key: row}. A row's "run" leads to the commit, date and versions that it was measured with."""

    def __init__(self, folder, ops, torch, commit=None):
        self.gpu = ops.name == "gpu"
        self.card = str(ops.device) if self.gpu else ops.name
        self.path = Path(folder) / (re.sub(r"\W+", "-", self.card).strip("-").lower() + ".json")
        self.run = datetime.datetime.now().isoformat(timespec="milliseconds")
        self.facts = dict(command=" ".join(sys.argv[1:]), python=platform.python_version(), torch=torch and torch.__version__,
                          commit=commit or said("git", "-C", Path(__file__).parent, "describe", "--always", "--dirty"))
        self.path.parent.mkdir(parents=True, exist_ok=True)  # what cannot be written or read shows before anything is measured
        self.read()
        if self.gpu:
            self.facts |= dict(driver=said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
                               cupy=ops.device.cupy.__version__, nvrtc="{}.{}".format(*ops.device.nvrtc),
                               cudnn=torch and torch.backends.cudnn.version())

    def read(self):
        """What the file holds. Raises OSError, or ValueError if it is no file of results."""
        if self.path.exists():
            data = json.loads(self.path.read_text())
            if not isinstance(data, dict) or not {"device", "card", "runs", "rows"} <= data.keys():
                raise ValueError("not a file of results")
            return data
        return {"device": "gpu" if self.gpu else "cpu", "card": self.card, "runs": {}, "rows": {}}

    def rows(self):
        return self.read()["rows"]

    def add(self, key, row):
        """Into what the file holds by now; written aside and renamed, so that it is whole at any moment."""
        data = self.read()
        data["rows"][key] = row | {"run": self.run}
        used = {row["run"] for row in data["rows"].values()}
        data["runs"] = {run: facts for run, facts in (data["runs"] | {self.run: self.facts}).items() if run in used}
        aside = self.path.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
        os.replace(aside, self.path)
        print(key, json.loads(json.dumps(row), parse_float=lambda text: float(f"{float(text):.4g}")), flush=True)


class Clock:
    """CUDA events: CuPy and PyTorch both launch on CUDA's default stream, there they are recorded. On a CPU: wall clock."""

    def __init__(self, ops):
        self.cupy = ops.device.cupy if ops.name == "gpu" else None

    def wait(self):
        if self.cupy:
            self.cupy.cuda.runtime.deviceSynchronize()

    def medians(self, runs):
        """{name: [run, ...]}, a run for each set of inputs -> {name: seconds}, and the spread (10th to 90th percentile).

        All take turns, and before each run the cache is overwritten.
        """
        times, cupy = {name: [] for name in runs}, self.cupy
        flush = cupy and cupy.empty(FLUSH, np.uint8).data
        for sets in runs.values():
            for run in sets:  # warm-up: compiles, and lets cuDNN choose
                run()
        for i in range(REPEATS if cupy else 2):
            for name, sets in runs.items():
                run = sets[i % len(sets)]
                if cupy:
                    flush.memset_async(0, FLUSH)
                    start, stop = cupy.cuda.Event(), cupy.cuda.Event()
                    start.record()
                    run()
                    stop.record()
                    times[name].append((start, stop))
                else:
                    start = time.perf_counter()
                    run()
                    times[name].append(time.perf_counter() - start)
        self.wait()
        if cupy:
            times = {name: [cupy.cuda.get_elapsed_time(*pair) / 1000 for pair in pairs] for name, pairs in times.items()}
        spread = {name: float(np.ptp(np.quantile(t, (0.1, 0.9))) / np.median(t)) for name, t in times.items()}
        return {name: float(np.median(t)) for name, t in times.items()}, spread

    def per_call(self, run, calls):
        """Seconds a call of many in a row, between two waits for the device."""
        self.wait()
        start = time.perf_counter()
        for _ in range(calls):
            run()
        self.wait()
        return (time.perf_counter() - start) / calls


# -------------------------------------------------------------------------------------- calls of operations
class Array(NamedTuple):
    shape: tuple
    kind: str = "f"  # of its dtype: float, int or unsigned


class Call(NamedTuple):
    """An operation of the contract and what it is called with: ((parameter, Array or value), ...)."""
    name: str
    arguments: tuple

    def __str__(self):
        words = []
        for name, a in self.arguments:
            size = getattr(a, "shape", a)
            if isinstance(size, tuple):
                words.append(f"{name} {'x'.join(map(str, size))}" if len(size) > 1 or not words else name)
            elif isinstance(a, str) or name == "stride":
                words.append(a if isinstance(a, str) else f"stride {a}")
        return f"{self.name}: {', '.join(words)}"

    def flop(self):
        """Of a convolution: 2 for each multiply-add, none for the zeros that a transposed one seems to insert."""
        if not self.name.startswith("conv"):
            return 0
        a = {name: getattr(a, "shape", a) for name, a in self.arguments}
        y = a.get("dy") or conv_shape(a["x"], a["w"], a.get("stride", 1), a.get("pad", 0))
        return 2 * int(np.prod(y) * np.prod((a.get("w") or a["w_shape"])[:3]))

    def bytes(self, results):
        """The fewest that it must move: each input read once, each result written once."""
        a = {name: a for name, a in self.arguments if isinstance(a, Array)}
        if "labels" in a:  # of all maps only some are read
            a["labels"] = Array((*a["index"].shape, *a["labels"].shape[1:]), "u")
        return sum(int(np.prod(x.shape)) * (1 if x.kind == "u" else 4) for x in a.values()) + sum(r.nbytes for r in results)

    def inputs(self, rng, noise):
        """{parameter: value}, with arrays of fresh random numbers: pieces of `noise`, a long array of normal ones."""
        values = dict(self.arguments)
        for name, a in self.arguments:
            if isinstance(a, Array) and a.kind == "f":
                size = int(np.prod(a.shape))
                start = int(rng.integers(len(noise) - size + 1))
                values[name] = noise[start:start + size].reshape(a.shape).copy()
                if name in ("var", "running_var", "v", "step", "lr"):
                    values[name] = np.abs(values[name]) + np.float32(0.1)
            elif isinstance(a, Array):
                below = dict(self.arguments)["table" if name == "labels" else "labels"].shape[0]
                values[name] = rng.integers(below, size=a.shape, dtype=np.uint8 if a.kind == "u" else np.int32)
        return values


class Recorder:
    """ops that count which operations a training step calls, with which shapes; not again when it is recorded as a graph."""

    def __init__(self, ops):
        self.ops, self.calls, self.counting = ops, collections.Counter(), True

    def record(self, run):
        self.counting = False
        return self.ops.record(run)

    def __getattr__(self, name):
        operation = getattr(self.ops, name)

        def count(*args, **kwargs):
            if self.counting:
                given = inspect.signature(operation).bind(*args, **kwargs).arguments
                kind = lambda a: getattr(a, "dtype", np.dtype(np.float32)).kind  # an Operand stands for an array of floats
                shape = lambda a: Array(tuple(a.shape), kind(a)) if getattr(a, "shape", ()) else a
                self.calls[Call(name, tuple((p, shape(a)) for p, a in given.items() if p != "out" and a is not None))] += 1
            return operation(*args, **kwargs)
        return count if name in OPERATIONS else operation
