"""The first hour on a card: does it run, is it right, how fast, and what to do next.

    python tests/benchmarks/gpu.py first       # goes on where it stopped

Parts run one after the other, each as a process of its own, in less than five minutes. What a part
leaves is in results/: rows of speeds in <card>.json, and in first-hour/parts.json each command,
exit code, seconds and last lines. A part that passed is not run again. At the end a table holds
each figure against its prediction and names what to do where it falls short.
On a CPU, `--device emulator --preset tiny` walks through all of it at tiny sizes.
"""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from formats.files import written
from kernels.cuda_conv import CONV_STEPS

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
LIMIT = 290  # seconds of a part
LAST = 30    # lines of its output that are kept
TINY = ["--side", "8", "--batch-size", "4", "--latent", "5", "--kernel-size", "3",
        "--generator-filters", "6", "5", "4", "--discriminator-filters", "5", "6"]


class Part(NamedTuple):
    name: str
    words: list          # after python
    resumes: bool = False  # whether it can be cut off, and goes on with --resume


def parts(args, folder):
    """All parts, in an order in which each protects the next."""
    tiny = args.device == "emulator"
    bench = ["tests/benchmarks/gpu.py"]
    options = ["--device", args.device, "--results", str(folder),
               "--seconds", "30" if tiny else str(LIMIT - 50)]
    run = ["semgan.py", "--dataset", "shapes", "--device", args.device, "--out",
           str(folder / "first-hour" / "run")]
    suite = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    if tiny:
        suite += ["tests/test_launch.py", "-k", "upload_copies"]
        speeds = [("tiny", "fp32")]
        run += [*TINY, "--steps", "20"]
    else:
        suite += ["-m", "gpu", *(["-n", "8"] if has("xdist") else [])]
        speeds = [(preset, precision) for preset in ("full", "street")
                  for precision in ("tf32", "bf16")]
        speeds += [("full", "fp32")]
        run += ["--preset", "full", "--steps", "20000"]
    found = [Part("what is there", ["semgan.py", "doctor"]), Part("the tests", suite),
             Part("ceilings", [*bench, "ceilings", *options])]
    found += [Part(f"steps, {preset} {precision}",
                   [*bench, "step", "--preset", preset, "--precision", precision, *options])
              for preset, precision in speeds]
    found += [Part(f"operations, {preset} {precision}",
                   [*bench, "kernels", "--preset", preset, "--precision", precision, *options])
              for preset, precision in speeds[:2]]
    return [*found, Part("the ladder", [*bench, "ladder", *options]),
            Part("training, " + ("tiny" if tiny else "full"), run, resumes=True)]


def has(package):
    from importlib.util import find_spec
    return find_spec(package) is not None


class FirstHour:
    def __init__(self, args):
        self.args = args
        self.folder = Path(args.results).resolve()
        self.path = self.folder / "first-hour" / "parts.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.done = json.loads(self.path.read_text()) if self.path.exists() else {}

    def run(self):
        """Run what is left. Returns the number of parts that failed."""
        for part in parts(self.args, self.folder):
            if self.done.get(part.name, {}).get("code") == 0:
                print(f"{part.name}: passed before", flush=True)
                continue
            print(f"\n== {part.name}", flush=True)
            self.done[part.name] = self.part(part)
            with written(self.path, "w") as file:
                file.write(json.dumps(self.done, indent=1) + "\n")
        print("\n" + self.summary())
        return sum(record["code"] != 0 for record in self.done.values())

    def part(self, part):
        """Run one part. Returns what first-hour.json says of it."""
        words = list(part.words)
        if part.resumes and (self.path.parent / "run" / "checkpoint.npz").exists():
            words.append("--resume")
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, *words], cwd=ROOT, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        try:
            out, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            out = self.stopped(process)
            out += f"\nstopped after {LIMIT} s; run the command again to go on\n"
        lines = out.splitlines()[-LAST:]
        print("\n".join(lines), flush=True)
        return dict(command=" ".join(words), code=process.returncode, lines=lines,
                    seconds=round(time.monotonic() - began, 1))

    def stopped(self, process):
        """Stop a part that takes too long. Returns its output."""
        for number, seconds in (signal.SIGTERM, 60), (signal.SIGKILL, None):
            os.killpg(process.pid, number)  # after the first, training saves a checkpoint
            try:
                return process.communicate(timeout=seconds)[0]
            except subprocess.TimeoutExpired:
                continue

    # ------------------------------------------------------------------------------ the summary
    def summary(self):
        """A table: what was measured, what was predicted, and what to do if it falls short."""
        rows = {}
        for path in self.folder.glob("*.json"):
            data = json.loads(path.read_text())
            if data.get("device") == self.device():
                rows |= data["rows"]
        rows |= self.done
        lines = [f"{'':34s}{'measured':>12s}{'predicted':>14s}   what to do"]
        for name, record in self.done.items():
            state = "passed" if record["code"] == 0 else f"exit code {record['code']}"
            advice = "" if record["code"] == 0 else "read its lines in first-hour/parts.json"
            lines.append(f"{name:34s}{state:>12s}{record['seconds']:>12.0f} s   {advice}".rstrip())
        for figure in FIGURES:
            value = figure.of(rows)
            if value is None:
                lines.append(f"{figure.name:34s}{'-':>12s}")
                continue
            low, high = figure.predicted
            fits = low <= value <= high
            advice = "" if fits else figure.low if value < low else figure.high
            lines.append(f"{figure.name:34s}{value:>12.3g}{f'{low:g} to {high:g}':>14s}   "
                         f"{advice}".rstrip())
        return "\n".join(lines)

    def device(self):
        return "cpu" if self.args.device == "emulator" else "gpu"


class Figure(NamedTuple):
    """A number among the rows of speeds. low, high: what to do if it is below or above."""
    name: str
    keys: tuple       # of rows
    field: str        # of a row; with a second key, the ratio of both rows' fields
    scale: float
    predicted: tuple  # lowest and highest on an H200; see docs/speed.md
    low: str
    high: str

    def of(self, rows):
        found = [rows.get(key, {}).get(self.field) for key in self.keys]
        if None in found:
            return None
        return self.scale * (found[0] if len(found) == 1 else found[0] / found[1])


SLOW = "compare the rows of operations with the ceilings; ncu on the slowest"
WRONG = "a wrong fragment or copy: compare the steps of the ladder; compute-sanitizer"
FP32, LAST_STEP = CONV_STEPS["fp32"], CONV_STEPS["tf32"]
BUSY = "another program on the card? repeat"
FIGURES = [
    Figure("copy, TB/s", ("ceilings/copy",), "bytes_per_s", 1e-12, (4.1, 4.4), BUSY, ""),
    Figure("mma.sync TF32, TFLOP/s", ("ceilings/mma_tf32",), "flop_per_s", 1e-12, (280, 330),
           BUSY, ""),
    Figure("mma.sync bf16, TFLOP/s", ("ceilings/mma_bf16",), "flop_per_s", 1e-12, (560, 660),
           BUSY, ""),
    Figure("step full TF32, ms", ("step/full/tf32/ours",), "seconds", 1e3, (5.2, 6.0),
           "faster than the last run: write down why", SLOW),
    Figure("step full bf16, ms", ("step/full/bf16/ours",), "seconds", 1e3, (3.2, 3.8),
           "faster than the last run: write down why", SLOW),
    Figure("step street TF32, ms", ("step/street/tf32/ours",), "seconds", 1e3, (14, 16.5),
           "faster than the last run: write down why", SLOW),
    Figure("step street bf16, ms", ("step/street/bf16/ours",), "seconds", 1e3, (8.3, 9.8),
           "faster than the last run: write down why", SLOW),
    Figure("step full float32, ms", ("step/full/fp32/ours",), "seconds", 1e3, (35, 38),
           "faster than the last run: write down why", SLOW),
    Figure("20,000 steps of full, s", ("training, full",), "seconds", 1, (110, 170),
           "", "checkpoints or grids that wait? see the times in log.csv"),
    Figure("error of conv, float32", (f"ladder/{FP32}/fp32/conv",), "error", 1, (0, 4e-6),
           "", WRONG),
    Figure("error of conv, TF32", (f"ladder/{LAST_STEP}/tf32/conv",), "error", 1, (0, 4e-4),
           "", WRONG),
    Figure("error of conv, bf16", (f"ladder/{LAST_STEP}/bf16/conv",), "error", 1, (0, 3e-3),
           "", WRONG),
    Figure("ladder's layer, conv float32, ms", (f"ladder/{FP32}/fp32/conv",), "seconds", 1e3,
           (2.1, 2.5), "", SLOW),
    Figure("ladder's layer, conv TF32, ms", (f"ladder/{LAST_STEP}/tf32/conv",), "seconds", 1e3,
           (0.37, 0.43), "", SLOW),
    Figure("ladder's layer, conv bf16, ms", (f"ladder/{LAST_STEP}/bf16/conv",), "seconds", 1e3,
           (0.21, 0.24), "", SLOW),
    Figure("full TF32, ours / PyTorch eager", ("step/full/tf32/ours", "step/full/tf32/eager"),
           "seconds", 1, (0, 1), "", SLOW),
    Figure("full bf16, ours / PyTorch eager", ("step/full/bf16/ours", "step/full/bf16/eager"),
           "seconds", 1, (0, 1), "", SLOW),
    Figure("memory, full TF32, GB", ("step/full/tf32/ours",), "memory", 1e-9, (0.3, 1.2),
           "", "is the arena of buffers.py in use?"),
]
