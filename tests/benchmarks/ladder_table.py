"""Tables of the ladders: what is new in each step, and what it costs and buys.

    python tests/benchmarks/ladder_table.py [FOLDER]    # FOLDER: another checkout

New lines are those of code that `difflib` finds over the step before, of the file, and with what it
includes. Counts are of one small convolution in the emulator, per multiply-add. Registers are those
of NVRTC's machine code, in the order of the kernels in the file; the larger of TF32 and bf16.
"""
import difflib
import inspect
import re
import sys
from pathlib import Path

import numpy as np

folder = sys.argv[1:2] if __name__ == "__main__" else []
ROOT = Path(*folder or [Path(__file__).parents[2]]).resolve()
sys.path.insert(0, str(ROOT))
from kernels import gpu, launch  # noqa: E402
from kernels.cuda_ops import CudaOps  # noqa: E402
from kernels.emulator import Emulator  # noqa: E402

sys.path.append(str(Path(__file__).parent))
from convolutions import LAYERS, speeds  # noqa: E402

CARDS = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
USED = r"Used (\d+) registers", r"(\d+) bytes spill stores", r"(\d+) bytes smem"
SMALL = (2, 8, 8, 32), (3, 3, 32, 64)  # x and w of the convolution whose accesses are counted
LAUNCHES = 3  # of each convolution; the first is not timed


def code_lines(text):
    text = launch.COMMENT.sub("", text)
    return [line.strip() for line in text.splitlines()
            if line.strip() and not line.startswith("#line")]


def new_lines(before, text):
    differences = difflib.ndiff(code_lines(before), code_lines(text))
    return sum(line.startswith("+ ") for line in differences)


def idea(path):
    """The first sentence of a file's comment."""
    comment = " ".join(re.findall(r"^// ?(.*)", path.read_text(), re.M))
    return re.match(r"(?:Step \d+: )?(.*?)\.(?: |$)", comment)[1]


def precisions(path):
    text = path.read_text()  # also of a checkout that has no launch.takes_operands
    return ("tf32", "bf16") if "tensor_cores.cuh" in text else ("fp32",)


def resources(path, card):
    """{kernel: (registers, bytes of spills, of shared memory)}: the most of all precisions."""
    found, source = {}, launch.read(path)
    for precision in precisions(path):
        options = (*gpu.compile_options(np.dtype(np.float32), card, precision),
                   "--ptxas-options=-v")
        _, log = gpu.compile_cubin(source, options)
        for entry in log.split("Compiling entry function")[1:]:
            name = entry.split("'")[1]
            matches = [re.search(pattern, entry) for pattern in USED]
            numbers = [int(match[1]) if match else 0 for match in matches]
            found[name] = tuple(map(max, numbers, found.get(name, numbers)))
    dynamic = source.constants.get("SHARED_BYTES", 0)
    return {name: (*found[name][:2], found[name][2] + dynamic) for name in source.kernels}


def engine(path, **options):
    return CudaOps(Emulator(precision=precisions(path)[0], **options), path.stem)


def speed(path):
    """Million multiply-adds a second of the three convolutions, as text."""
    return " / ".join(f"{n:,.0f}" for n in speeds(engine(path), *LAYERS["emulator"], LAUNCHES))


def counts(path):
    """Per multiply-add of conv: numbers read from global and from shared memory, as text."""
    if "count" not in inspect.signature(Emulator).parameters:
        return "-"
    ops, rng = engine(path, count=True), np.random.default_rng(0)
    ops.few_channels = 0
    x, w = (ops.asarray(rng.standard_normal(shape)) for shape in SMALL)
    y = ops.conv(x, w, 2, 1)
    found = ops.device.counts["conv"]
    work = y.size * np.prod(SMALL[1][:3])
    conflicts = "?" if found.bank_conflicts is None else f"{found.bank_conflicts:,}"
    return (f"{found.global_read_bytes / 4 / work:.3f} | {found.shared_reads / work:.3f} | "
            f"{conflicts} | {found.barriers}")


def row(before, path):
    text, old_text = (p.read_text() if p else "" for p in (path, before))
    whole, old_whole = (launch.read(p).text if p else "" for p in (path, before))
    new = f"{new_lines(old_text, text)} ({new_lines(old_whole, whole)})"
    return f"| `{path.stem}` | {len(text.splitlines())} | {new} | {idea(path)} |"


def ladder(folder):
    return sorted((launch.FOLDER / folder).glob("*.cu"),
                  key=lambda path: int(path.stem.split("_")[0]))


def main():
    for folder in ("conv", "softmax"):
        print("| step | lines | new lines (with includes) | idea |\n|---|---|---|---|")
        for before, path in zip([None, *ladder(folder)], ladder(folder)):
            print(row(before, path), flush=True)
        print()
    print("| step | " + " | ".join(CARDS) + " | spills | shared bytes |\n" + "|---" * 10 + "|")
    for path in [*ladder("conv"), *ladder("softmax")]:
        found = {card: resources(path, card) for card in launch.read(path).architectures}
        registers = ["/".join(str(kernel[0]) for kernel in found[card].values())
                     if card in found else "-" for card in CARDS]
        every = [kernel for used in found.values() for kernel in used.values()]
        spills, shared = (max(kernel[i] for kernel in every) for i in (1, 2))
        print(f"| `{path.stem}` | {' | '.join(registers)} | {spills} | {shared:,} |", flush=True)
    print("\n| step | million multiply-adds a second | global reads | shared reads | "
          "bank conflicts | barriers |\n" + "|---" * 6 + "|")
    for path in ladder("conv"):
        print(f"| `{path.stem}` | {speed(path)} | {counts(path)} |", flush=True)


if __name__ == "__main__":
    main()
