"""Writes the tables of speeds on a GPU into docs/speed.md and draws tutorial/speed.png.

    python tests/benchmarks/readme_tables.py

The tables stand between two markers. They are made from results/*.json, which gpu.py fills. A file
with "candidates" holds the speeds of variants of a kernel; its tables have markers of their own.
"""
import json
import re
import textwrap
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MARKERS = re.compile(r"(<!-- benchmarks -->\n).*(<!-- /benchmarks -->)", re.S)
CANDIDATES = re.compile(r"(<!-- candidates -->\n).*(<!-- /candidates -->)", re.S)
NOTHING = """Nothing has been measured on a GPU yet: `python tests/benchmarks/gpu.py` does that, and
`python tests/benchmarks/readme_tables.py` writes its tables here.
"""
PICTURE = "![Steps a second, and the ladder of convolutions](../tutorial/speed.png)\n\n"
PRESETS = {
    "full": "Colored Shapes, 64x64, ks 11, K 4",
    "street": "street scenes, 128x128, ks 7, K 22",
    "facades": "facades, 128x128, ks 7, K 12",
}
OPERATIONS = [  # of a training step, in the tables' order; kernels/contract.py has all there are
    "conv", "conv_input_grad", "conv_weight_grad", "bias_activation", "bias_activation_grad",
    "batch_norm", "batch_norm_grad", "softmax", "softmax_grad", "gather", "bce_with_logits",
    "feature_matching", "moment_matching", "adam",
]
CONVOLUTIONS = OPERATIONS[:3]
UNCERTAIN = 0.5  # a larger spread of the times: Python launched more slowly than the card computed
PRECISIONS = "fp32", "tf32", "bf16"
VARIANTS = {
    "ours": "ours",
    "eager": "PyTorch",
    "graph": "PyTorch, CUDA graph",
    "compiled": "torch.compile",
}


def groups(rows, *start, depth):
    """The rows whose key begins with `start`, by the next `depth` parts of their keys.

    {(part, ...): {rest of the key: row}}, sorted: step 10 after 9, bf16 after tf32
    """
    found = {}
    for key, row in sorted(rows.items(), key=lambda item: in_order(item[0])):
        parts = key.split("/")
        if tuple(parts[:len(start)]) == start:
            end = len(start) + depth
            group = found.setdefault(tuple(parts[len(start):end]), {})
            group["/".join(parts[end:])] = row
    return found


def in_order(key):
    """What keys are sorted by."""
    words = re.split(r"(\d+)(?=_)", key.replace("bf16", "uf16"))
    return [int(word) if word.isdigit() else word for word in words]


def table(head, lines):
    """Markdown; nothing if there are no lines."""
    rows = [head, ["---"] * len(head), *lines] if lines else []
    return "".join("| " + " | ".join(map(str, row)) + " |\n" for row in rows)


def number(x):
    """Three significant digits, or all before the point; a dash for what was not measured."""
    if x is None:
        return "-"
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def ceilings(rows):
    lines = []
    for name, row in groups(rows, "ceilings", depth=0).get((), {}).items():
        if "failed" in row:
            measured = row["failed"]
        elif "flop_per_s" in row:
            measured = f"{row['flop_per_s'] / 1e12:.1f} TFLOP/s"
        else:
            measured = f"{row['bytes_per_s'] / 1e9:,.0f} GB/s, read + written"
        lines.append([name, measured])
    return table(["ceiling", "measured"], lines)


def of_ceiling(rows, precision, flop, size, seconds):
    """Speed, and its share of the highest speed measured.

    That is a loop in registers or a matrix product; for memory it is a copy.
    """
    if flop:
        loop = "fma_loop" if precision == "fp32" else f"mma_{precision}"
        names, unit = [f"matmul_{precision}", loop], "flop_per_s"
        speed = f"{flop / seconds / 1e12:.1f} TFLOP/s"
    else:
        names, unit = ["copy"], "bytes_per_s"
        speed = f"{size / seconds / 1e9:,.0f} GB/s"
    most = max(rows.get(f"ceilings/{name}", {}).get(unit, 0) for name in names)
    return speed, f"{(flop or size) / seconds / most:.0%}" if most else "-"


def kernels(rows, preset, precision, summed=False):
    """A line for each operation and shape.

    summed: for each operation, as often as a training step calls it.
    """
    found = {}
    for key, row in groups(rows, "kernels", preset, depth=1).get((precision,), {}).items():
        found.setdefault(key.split(":")[0] if summed else key, []).append(row)
    order = sorted(found, key=lambda name: OPERATIONS.index(name.split(":")[0]))
    return table(
        ["operation", "calls a step", "ours, ms", "speed", "of the ceiling",
         f"PyTorch {precision}, ms", "bf16, ms", "times as fast"],
        [[f"`{name}`", *of_calls(rows, found[name], precision)] for name in order])


def of_calls(rows, group, precision):
    """What a line of `kernels` says about these rows: sums over their calls."""
    failed = [row["failed"] for row in group if "failed" in row]
    if failed:
        return ["", failed[0], *[""] * 5]

    def total(name):
        return sum(row["count"] * row[name] for row in group)

    def torch_total(precision):
        if all(precision in row["torch"] for row in group):
            return sum(row["count"] * row["torch"][precision] for row in group)
    calls = sum(row["count"] for row in group)
    ours, flop = total("seconds"), total("flop")
    same = torch_total(precision if flop else "fp32")  # only convolutions have a precision
    bf16 = torch_total("bf16")
    mark = " ?" if any(row.get("spread", 0) > UNCERTAIN for row in group) else ""
    speed = of_ceiling(rows, precision, flop, total("bytes"), ours)
    return [calls, number(ours * 1e3) + mark, *speed, number(same and same * 1e3),
            number(bf16 and bf16 * 1e3), number(same and same / ours)]


def tflops(row, theirs=None):
    """Of ours, or of PyTorch at the precision `theirs`; None if not measured."""
    seconds = row.get("torch", {}).get(theirs) if theirs else row.get("seconds")
    return row["flop"] / seconds / 1e12 if seconds else None


def ladder(rows):
    """TFLOP/s: a line for each step and precision, and one of cuDNN for each precision."""
    lines, theirs = [], {}
    for (step, precision), group in groups(rows, "ladder", depth=2).items():
        found = [group.get(name, {}) for name in CONVOLUTIONS]
        speeds = ["failed" if "failed" in row else number(tflops(row)) for row in found]
        lines.append([f"`{step}`", precision, *speeds])
        torch_speeds = [tflops(row, precision) or 0 for row in found]
        theirs.setdefault(precision, []).append(torch_speeds)
    for precision, found in theirs.items():  # measured beside every step: the fastest counts
        best = [number(max(column) or None) for column in zip(*found)]
        lines.append(["cuDNN, through PyTorch", precision, *best])
    return table(["TFLOP/s", "precision", *(f"`{name}`" for name in CONVOLUTIONS)], lines)


def steps(rows):
    """Whole training steps: a line for each preset and precision."""
    def speed(row):
        return "failed" if "failed" in row else number(1 / row["seconds"] if row else None)

    def memory(row):
        return number(row["memory"] / 2 ** 30 if "memory" in row else None)
    lines = []
    for (preset, precision), group in groups(rows, "step", depth=2).items():
        found = [group.get(name, {}) for name in VARIANTS]
        ours, eager = found[:2]
        factors = [row["seconds"] / row["ours_beside"] for row in group.values()
                   if "ours_beside" in row]
        lines.append([PRESETS.get(preset, preset), precision, *map(speed, found),
                      number(min(factors, default=None)), number(tflops(ours)),
                      memory(ours), memory(eager)])
    head = ["training steps a second", "precision", *VARIANTS.values(), "ours / best other",
            "ours, TFLOP/s", "ours, GiB", "PyTorch, GiB"]
    measured = [i for i in range(len(head)) if any(line[i] != "-" for line in lines)]
    return table([head[i] for i in measured], [[line[i] for i in measured] for line in lines])


def section(data):
    """All tables of one card; operations are summed up."""
    runs = data["runs"]
    rows = {key: row for key, row in data["rows"].items() if "/tiny/" not in key}

    def fact(name):
        return ", ".join(sorted({str(run[name]) for run in runs.values() if run.get(name)}))
    days = sorted({run[:10] for run in runs})
    head = (f"**{data['card']}**, driver {fact('driver')}, CuPy {fact('cupy')}, "
            f"NVRTC {fact('nvrtc')}, PyTorch {fact('torch')}, cuDNN {fact('cudnn')}; "
            f"{' to '.join(days[::len(days) - 1 or 1])}, commit {fact('commit')}.\n")
    parts = [textwrap.fill(head, 100) + "\n", steps(rows), ladder(rows), ceilings(rows)]
    for preset, precision in groups(rows, "kernels", depth=2):
        parts += [f"{PRESETS[preset]}, {precision}: a training step, operation by operation:\n",
                  kernels(rows, preset, precision, summed=True)]
        if " ? |" in parts[-1]:
            parts.append("?: the times scatter by more than half of their median, because Python\n"
                         "launched more slowly than the card computed. They are upper bounds.\n")
    return "\n".join(filter(None, parts))


def candidates(data):
    """What each variant of a kernel is, and their TFLOP/s: a table for each precision."""
    parts = ["".join(textwrap.fill(f"- `{name}`: {text}", 100, subsequent_indent="  ") + "\n"
                     for name, text in data["candidates"].items())]
    for (precision,), group in groups(data["rows"], depth=1).items():
        names = list(dict.fromkeys(name for row in group.values() for name in row))
        lines = [[f"`{layer}`", *(number(row.get(name)) for name in names)]
                 for layer, row in group.items()]
        parts.append(table([f"TFLOP/s, {precision}", *(f"`{name}`" for name in names)], lines))
    return "\n".join(parts)


def draw(cards, path):
    """Steps a second of ours and PyTorch on every card, and the longest ladder beside cuDNN."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    found = [groups(data["rows"], "step", depth=2) for data in cards]
    cases = sorted({case for steps in found for case in steps if case[0] != "tiny"},
                   key=lambda case: (list(PRESETS).index(case[0]), PRECISIONS.index(case[1])))
    bars = [(f"{label}, {data['card']}",
             [steps.get(case, {}).get(variant, {}).get("seconds") for case in cases])
            for data, steps in zip(cards, found) for variant, label in VARIANTS.items()]
    draw_bars(left, cases, [(label, [1 / t if t else None for t in seconds])
                            for label, seconds in bars])
    left.set_title("Training steps a second")

    data = max(cards, key=lambda data: len(groups(data["rows"], "ladder", depth=2)))
    rungs = groups(data["rows"], "ladder", depth=2)
    speeds = {(name, theirs): [tflops(group.get(name, {}), theirs and precision)
                               for (_, precision), group in rungs.items()]
              for name in CONVOLUTIONS for theirs in (False, True)}
    steps = [(step.split("_")[0], precision) for step, precision in rungs]
    draw_bars(right, steps, [(name, speeds[name, False]) for name in CONVOLUTIONS],
              behind=[("cuDNN beside it", speeds[name, True]) for name in CONVOLUTIONS])
    right.set_yscale("log")
    right.yaxis.set_major_formatter("{x:g}")
    right.grid(axis="y", alpha=0.3)
    right.set_axisbelow(True)
    right.set_title(f"The steps of the ladder, TFLOP/s, {data['card']}")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def draw_bars(axes, cases, series, behind=None):
    """A group of bars for each case, of what was measured.

    series: (label, a number or None for each case); behind: the same, grey and wider.
    """
    behind = behind or [(None, [None] * len(cases))] * len(series)
    measured = [[k for k, (_, values) in enumerate(series) if values[i]]
                for i in range(len(cases))]
    width = 0.85 / max(map(len, measured), default=1)
    shown = {}
    for i, bars in enumerate(measured):
        for place, k in enumerate(bars):
            x = i + width * (place - (len(bars) - 1) / 2)
            for (label, values), part, color in (behind[k], 1, "lightgrey"), \
                    (series[k], 0.6 if behind[k][0] else 0.9, f"C{k}"):
                if values[i]:
                    shown[label] = axes.bar(x, values[i], width * part, color=color)
    names = ["\n".join(case) for case in cases]
    axes.set_xticks(range(len(cases)), names, fontsize=8)
    labels = [label for label in dict(series + behind) if label in shown]
    axes.legend([shown[label] for label in labels], labels, fontsize=8, ncols=2, loc="upper left",
                bbox_to_anchor=(0, -0.16))


def main(folder=FOLDER / "results", root=FOLDER.parents[1]):
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    cards = [data for data in found if data.get("device") == "gpu"]
    tried = [data for data in found if "candidates" in data]
    cards.sort(key=lambda data: -len(data["rows"]))
    text = NOTHING
    if cards:
        draw(cards, root / "tutorial" / "speed.png")
        text = PICTURE + "\n".join(map(section, cards))
    page = root / "docs" / "speed.md"
    before = page.read_text(encoding="utf-8")
    if not MARKERS.search(before):
        raise SystemExit(f"{page}: no lines <!-- benchmarks --> and <!-- /benchmarks -->")
    after = MARKERS.sub(lambda match: match[1] + text + match[2], before)
    text_of_tried = "\n".join(map(candidates, tried))
    after = CANDIDATES.sub(lambda match: match[1] + text_of_tried + match[2], after)
    page.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
