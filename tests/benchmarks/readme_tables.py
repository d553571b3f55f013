"""Writes the README's GPU tables, between its markers, and draws tutorial/speed.png: from results/*.json, which gpu.py fills.

    python tests/benchmarks/readme_tables.py
"""
import json
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MARKERS = re.compile(r"(<!-- benchmarks -->\n).*(<!-- /benchmarks -->)", re.S)
NOTHING = ("Nothing has been measured on a GPU yet: `python tests/benchmarks/gpu.py` does that, and\n"
           "`python tests/benchmarks/readme_tables.py` writes its tables here.\n")
PRESETS = {"full": "Colored Shapes, 64x64, ks 11, K 4", "street": "street scenes, 128x128, ks 7, K 22",
           "facades": "facades, 128x128, ks 7, K 12"}
OPERATIONS = ["conv", "conv_input_grad", "conv_weight_grad", "bias_activation", "bias_activation_grad", "batch_norm",
              "batch_norm_grad", "softmax", "softmax_grad", "gather", "bce_with_logits", "feature_matching", "adam"]
CONVOLUTIONS = OPERATIONS[:3]
VARIANTS = {"ours": "ours", "eager": "PyTorch", "graph": "PyTorch, CUDA graph", "compiled": "torch.compile"}


def groups(rows, *start, depth):
    """Rows whose key begins so, by the next `depth` parts of their keys: {(part, ...): {rest of the key: row}}."""
    found = {}
    for key, row in sorted(rows.items(), key=lambda item: item[0].replace("bf16", "uf16")):  # bf16 after tf32
        parts = key.split("/")
        if tuple(parts[:len(start)]) == start:
            end = len(start) + depth
            found.setdefault(tuple(parts[len(start):end]), {})["/".join(parts[end:])] = row
    return found


def table(head, lines):
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in [head, ["---"] * len(head), *lines])


def number(x):
    """To three significant digits, or all before the point; a dash for what was not measured."""
    return "-" if x is None else f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def ceilings(rows):
    return table(["ceiling", "measured"], [
        [name, row.get("failed") or (f"{row['flop_per_s'] / 1e12:.1f} TFLOP/s" if "flop_per_s" in row else
                                     f"{row['bytes_per_s'] / 1e9:,.0f} GB/s, read + written")]
        for name, row in groups(rows, "ceilings", depth=0).get((), {}).items()])


def of_ceiling(rows, precision, flop, size, seconds):
    """Speed, and its share of the most that was seen: a loop in registers or a matrix product; for memory a copy."""
    names = [f"matmul_{precision}", "fma_loop" if precision == "fp32" else f"mma_{precision}"] if flop else ["copy"]
    most = max(rows.get(f"ceilings/{name}", {}).get("flop_per_s" if flop else "bytes_per_s", 0) for name in names)
    speed = f"{flop / seconds / 1e12:.1f} TFLOP/s" if flop else f"{size / seconds / 1e9:,.0f} GB/s"
    return speed, f"{(flop or size) / seconds / most:.0%}" if most else "-"


def kernels(rows, preset, precision, summed=False):
    """A line for each operation and shape; summed: for each operation, as often as a training step calls it."""
    found = {}
    for key, row in groups(rows, "kernels", preset, depth=1).get((precision,), {}).items():
        found.setdefault(key.split(":")[0] if summed else key, []).append(row)
    order = sorted(found, key=lambda name: OPERATIONS.index(name.split(":")[0]))
    return table(["operation", "calls a step", "ours, ms", "speed", "of the ceiling", f"PyTorch {precision}, ms", "bf16, ms",
                  "times as fast"], [[f"`{name}`", *of_calls(rows, found[name], precision)] for name in order])


def of_calls(rows, group, precision):
    """What a line of `kernels` tells of these rows: sums over their calls."""
    failed = [row["failed"] for row in group if "failed" in row]
    if failed:
        return ["", failed[0], *[""] * 5]
    total = lambda *names: sum(row["count"] * (row[names[0]] if len(names) == 1 else row[names[0]][names[1]]) for row in group)
    same = precision if total("flop") else "fp32"  # the precision is that of convolutions
    theirs = [total("torch", p) if all(p in row["torch"] for row in group) else None for p in (same, "bf16")]
    calls, ours, flop = sum(row["count"] for row in group), total("seconds"), total("flop")
    return [calls, number(ours * 1e3), *of_ceiling(rows, precision, flop, total("bytes"), ours),
            *(number(seconds and seconds * 1e3) for seconds in theirs), number(theirs[0] and theirs[0] / ours)]


def tflops(row, theirs=None):
    """Of ours, or of PyTorch at a precision; None if not measured."""
    seconds = row.get("torch", {}).get(theirs) if theirs else row.get("seconds")
    return row["flop"] / seconds / 1e12 if seconds else None


def ladder(rows):
    """A line for each step and precision, and one of cuDNN for each precision. TFLOP/s."""
    lines, theirs = [], {}
    for (step, precision), group in groups(rows, "ladder", depth=2).items():
        found = [group.get(name, {}) for name in CONVOLUTIONS]
        lines.append([f"`{step}`", precision, *("failed" if "failed" in row else number(tflops(row)) for row in found)])
        theirs.setdefault(precision, []).append([tflops(row, precision) or 0 for row in found])
    for precision, found in theirs.items():  # measured beside every step: the fastest counts
        lines.append(["cuDNN, through PyTorch", precision, *(number(max(column) or None) for column in zip(*found))])
    return table(["TFLOP/s", "precision", *(f"`{name}`" for name in CONVOLUTIONS)], lines)


def steps(rows):
    """Whole training steps: a line for each preset and precision."""
    lines = []
    for (preset, precision), group in groups(rows, "step", depth=2).items():
        found = [group.get(name, {}) for name in VARIANTS]
        speed = ["failed" if "failed" in row else number(1 / row["seconds"] if row else None) for row in found]
        factors = [row["seconds"] / row["ours_beside"] for row in group.values() if "ours_beside" in row]
        memory = [number(row["memory"] / 2 ** 30 if "memory" in row else None) for row in found[:2]]
        lines.append([PRESETS.get(preset, preset), precision, *speed, number(min(factors, default=None)),
                      number(tflops(found[0])), *memory])
    return table(["training steps a second", "precision", *VARIANTS.values(), "ours / best other", "ours, TFLOP/s",
                  "ours, GiB", "PyTorch, GiB"], lines)


def section(data):
    """All tables of one card; operations summed up."""
    rows, runs = data["rows"], data["runs"]
    fact = lambda name: ", ".join(sorted({str(run[name]) for run in runs.values() if run.get(name)}))
    rows = {key: row for key, row in rows.items() if "/tiny/" not in key}
    parts = [f"**{data['card']}**, driver {fact('driver')}, CuPy {fact('cupy')}, NVRTC {fact('nvrtc')}, "
             f"PyTorch {fact('torch')}, cuDNN {fact('cudnn')}; {min(runs)[:10]} to {max(runs)[:10]}, commit {fact('commit')}.\n",
             steps(rows), ladder(rows), ceilings(rows)]
    for preset, precision in groups(rows, "kernels", depth=2):
        parts += [f"{PRESETS[preset]}, {precision}: a training step, operation by operation:\n",
                  kernels(rows, preset, precision, summed=True)]
    return "\n".join(parts)


def draw(data, path):
    """Steps a second of ours and PyTorch, and the ladder beside cuDNN."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    cases, ladder_steps = groups(data["rows"], "step", depth=2), groups(data["rows"], "ladder", depth=2)
    for i, (variant, label) in enumerate(VARIANTS.items()):
        seconds = [group.get(variant, {}).get("seconds") for group in cases.values()]
        axes[0].bar([x + 0.2 * i for x in range(len(cases))], [1 / t if t else 0 for t in seconds], 0.2, label=label)
    for i, name in enumerate(CONVOLUTIONS):
        found = [(group.get(name, {}), precision) for (_, precision), group in ladder_steps.items()]
        x = [x + 0.27 * i for x in range(len(found))]
        axes[1].bar(x, [tflops(row, precision) or 0 for row, precision in found], 0.27, color="lightgrey",
                    label="cuDNN" if i == 2 else None)
        axes[1].bar(x, [tflops(row) or 0 for row, _ in found], 0.17, color=f"C{i}", label=name)
    for ax, found, title in (axes[0], cases, f"Training steps a second, {data['card']}"), (axes[1], ladder_steps, "TFLOP/s"):
        ax.set_xticks([x + 0.27 for x in range(len(found))], ["\n".join(case).replace("_", "\n") for case in found], fontsize=8)
        ax.set_title(title)
        ax.legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def main(folder=FOLDER / "results", root=FOLDER.parents[1]):
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    cards = sorted((data for data in found if data["device"] == "gpu"), key=lambda data: -len(data["rows"]))
    text = "\n".join(map(section, cards)) if cards else NOTHING
    if cards:
        draw(cards[0], root / "tutorial" / "speed.png")
        text = f"![Steps a second, and the ladder of convolutions](tutorial/speed.png)\n\n{text}"
    readme = root / "README.md"
    before = readme.read_text(encoding="utf-8")
    if not MARKERS.search(before):
        raise SystemExit(f"{readme}: no lines <!-- benchmarks --> and <!-- /benchmarks -->")
    readme.write_text(MARKERS.sub(lambda match: match[1] + text + match[2], before), encoding="utf-8")


if __name__ == "__main__":
    main()
