"""Parts of gpu.py: the file of results, a clock for the GPU, the operations of a training step."""
import collections
import datetime
import inspect
import json
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from readme_tables import OPERATIONS

from formats.files import written
from kernels.contract import conv_shape

REPEATS = 30     # timed calls of an operation
FLUSH = 1 << 30  # bytes: overwrites any cache
FLUSHES = 4      # in a row: Python launches an operation's kernels before they end
POSITIVE = "var", "running_var", "v", "step", "lr"  # parameters of operations


def first_line_of(*command):
    """The first line that a command prints; "unknown" where it cannot be run."""
    try:
        answer = subprocess.run([*map(str, command)], capture_output=True, text=True)
    except OSError:
        return "unknown"
    return answer.stdout.split("\n")[0] or "unknown"


class Results:
    """results/<card>.json: {key: row}.

    A row's "run" names the commit, date and versions that it was measured with.
    """

    def __init__(self, folder, ops, torch, commit=None):
        self.gpu = ops.name == "gpu"
        self.card = str(ops.device) if self.gpu else ops.name
        name = re.sub(r"\W+", "-", self.card).strip("-").lower()
        self.path = Path(folder) / f"{name}.json"
        self.run = datetime.datetime.now().isoformat(timespec="milliseconds")
        git = "git", "-C", Path(__file__).parent, "describe", "--always", "--dirty"
        self.facts = dict(command=" ".join(sys.argv[1:]), python=platform.python_version(),
                          torch=torch and torch.__version__,
                          commit=commit or first_line_of(*git))
        # A file that cannot be written or read shows before anything is measured.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.read()
        if self.gpu:
            query = "nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"
            self.facts |= dict(driver=first_line_of(*query), cupy=ops.device.cupy.__version__,
                               nvrtc="{}.{}".format(*ops.device.nvrtc),
                               cudnn=torch and torch.backends.cudnn.version())

    def read(self):
        """What the file holds. Raises OSError, or ValueError if it is no file of results."""
        if self.path.exists():
            data = json.loads(self.path.read_text())
            if not isinstance(data, dict) or not {"device", "card", "runs", "rows"} <= data.keys():
                raise ValueError("not a file of results")
            return data
        device = "gpu" if self.gpu else "cpu"
        return {"device": device, "card": self.card, "runs": {}, "rows": {}}

    def rows(self):
        return self.read()["rows"]

    def add(self, key, row):
        """Add a row to what the file holds now.

        Written beside the file and renamed, so that the file is whole at any moment.
        """
        data = self.read()
        data["rows"][key] = row | {"run": self.run}
        used = {row["run"] for row in data["rows"].values()}
        runs = data["runs"] | {self.run: self.facts}
        data["runs"] = {run: facts for run, facts in runs.items() if run in used}
        with written(self.path, "w") as file:
            file.write(json.dumps(data, indent=1, sort_keys=True) + "\n")
        print(key, json.loads(json.dumps(row), parse_float=four_digits), flush=True)


def four_digits(text):
    return float(f"{float(text):.4g}")


class Clock:
    """CUDA events on the default stream, where CuPy and PyTorch launch. On a CPU: wall clock."""

    def __init__(self, ops):
        self.cupy = ops.device.cupy if ops.name == "gpu" else None

    def wait(self):
        if self.cupy:
            self.cupy.cuda.runtime.deviceSynchronize()

    def medians(self, runs):
        """{name: [run, ...]}, a run for each set of inputs -> {name: seconds}, {name: spread}.

        The spread is from the 10th to the 90th percentile, as a share of the median. All take
        turns, and before each run the cache is overwritten.
        """
        for sets in runs.values():
            for run in sets:  # warm-up: compiles, and lets cuDNN choose
                run()
        flush = self.cupy and self.cupy.empty(FLUSH, np.uint8).data
        times = {name: [] for name in runs}
        for i in range(REPEATS if self.cupy else 2):
            for name, sets in runs.items():
                times[name].append(self._timed(sets[i % len(sets)], flush))
        self.wait()
        if self.cupy:
            elapsed = self.cupy.cuda.get_elapsed_time
            times = {name: [elapsed(*pair) / 1000 for pair in pairs]
                     for name, pairs in times.items()}
        medians = {name: float(np.median(t)) for name, t in times.items()}
        spread = {name: float(np.ptp(np.quantile(t, (0.1, 0.9))) / medians[name])
                  for name, t in times.items()}
        return medians, spread

    def _timed(self, run, flush):
        """A pair of events around a run, or on a CPU its seconds."""
        if not self.cupy:
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        for _ in range(FLUSHES):
            flush.memset_async(0, FLUSH)
        start, stop = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        start.record()
        run()
        stop.record()
        return start, stop

    def per_call(self, run, calls):
        """Seconds a call of many in a row, between two waits for the device."""
        self.wait()
        start = time.perf_counter()
        for _ in range(calls):
            run()
        self.wait()
        return (time.perf_counter() - start) / calls


# ------------------------------------------------------------------------- calls of operations
class Array(NamedTuple):
    shape: tuple
    kind: str = "f"  # of its dtype: float, int or unsigned


class Call(NamedTuple):
    """An operation and what it is called with: ((parameter, Array or value), ...)."""
    name: str
    arguments: tuple

    def __str__(self):
        words = []
        for name, a in self.arguments:
            size = getattr(a, "shape", a)
            if isinstance(size, tuple):
                shown = len(size) > 1 or not words
                words.append(f"{name} {'x'.join(map(str, size))}" if shown else name)
            elif isinstance(a, str) or name == "stride":
                words.append(a if isinstance(a, str) else f"stride {a}")
        return f"{self.name}: {', '.join(words)}"

    def flop(self):
        """Of a convolution: 2 for each multiply-add.

        Zeros that a transposed convolution seems to insert do not count.
        """
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
        read = sum(int(np.prod(x.shape)) * (1 if x.kind == "u" else 4) for x in a.values())
        return read + sum(result.nbytes for result in results)

    def inputs(self, rng, noise):
        """{parameter: value}, with arrays of fresh random numbers.

        They are pieces of `noise`, a long array of normal numbers.
        """
        values = dict(self.arguments)
        for name, a in self.arguments:
            if not isinstance(a, Array):
                continue
            if a.kind == "f":
                size = int(np.prod(a.shape))
                start = int(rng.integers(len(noise) - size + 1))
                values[name] = noise[start:start + size].reshape(a.shape).copy()
                if name in POSITIVE:
                    values[name] = np.abs(values[name]) + np.float32(0.1)
            else:  # classes below the table's rows, indices below the number of maps
                below = dict(self.arguments)["table" if name == "labels" else "labels"].shape[0]
                dtype = np.uint8 if a.kind == "u" else np.int32
                values[name] = rng.integers(below, size=a.shape, dtype=dtype)
        return values


class Recorder:
    """Operations that count their calls and the shapes they are called with.

    They do not count again when a training step is recorded as a graph.
    """

    def __init__(self, ops):
        self.ops = ops
        self.calls = collections.Counter()
        self.counting = True

    def record(self, run):
        self.counting = False
        return self.ops.record(run)

    def __getattr__(self, name):
        operation = getattr(self.ops, name)
        if name not in OPERATIONS:
            return operation

        def count(*args, **kwargs):
            if self.counting:
                given = inspect.signature(operation).bind(*args, **kwargs).arguments
                arguments = tuple((parameter, described(a)) for parameter, a in given.items()
                                  if parameter != "out" and a is not None)
                self.calls[Call(name, arguments)] += 1
            return operation(*args, **kwargs)
        return count


def described(a):
    """An Array in place of an array; what is rounded for tensor cores counts as floats."""
    if not getattr(a, "shape", ()):
        return a
    return Array(tuple(a.shape), getattr(a, "dtype", np.dtype(np.float32)).kind)
