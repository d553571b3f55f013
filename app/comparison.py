"""The page that shows SemGAN beside the RGB baseline: the paper's figures 3 and 4, and a table."""
from app.evaluation import best_values, read_table

TITLES = {"semgan": "SemGAN", "gan": "GAN"}


def comparison_page(folder, title, grids, facts):
    """Write compare.png and compare.md to `folder`, from metrics.csv of semgan/ and gan/ in it.

    grids: {title: PIL image}, one above the other. facts: a sentence on the runs.
    """
    rows = {model: read_table(folder / model / "metrics.csv") for model in TITLES}
    _plot(rows, grids).savefig(folder / "compare.png", dpi=110)
    lowest = {model: best_values(folder / model / "metrics.csv") for model in TITLES}
    table = _table(rows, lowest)
    text = (f"{facts} {rows['semgan'][-1]['samples']} samples against as many training maps. "
            "Best: the lowest value during training, as the paper reports. "
            "Real: one half of the maps against the other.")
    lines = [f"# {title}", "", "![curves and samples](compare.png)", "", text, "", *table]
    (folder / "compare.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n" + "\n".join(table) + f"\n\nIn {folder}: compare.md, compare.png.")


def _is_number(text):
    return text[:1].isdigit()


def _plot(rows, grids):
    """SWD during training at each level, above the grids. rows: {model: rows of metrics.csv}."""
    from matplotlib.figure import Figure
    curves = {}  # {metric: {model: [(step, value)]}}
    for model in TITLES:
        for row in rows[model]:
            if row["metric"].startswith("SWD") and _is_number(row["value"]):
                models = curves.setdefault(row["metric"], {})
                models.setdefault(model, []).append((int(row["step"]), float(row["value"])))
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.3])
    axes = above.subplots(1, max(1, len(curves)), squeeze=False)[0]
    for ax, (name, models) in zip(axes, curves.items()):
        for model, points in models.items():
            ax.plot(*zip(*points), marker=".", label=TITLES[model])
        real = next(float(row["real at half"]) for model in models for row in rows[model]
                    if row["metric"] == name)
        ax.axhline(real, color="grey", linestyle=":", label="real, half as many")
        ax.set(title=name, xlabel="step", ylim=(0, None))
        ax.legend(fontsize=8)
    for ax, (name, image) in zip(below.subplots(len(grids), 1), grids.items()):
        ax.imshow(image, interpolation="nearest")
        ax.set_title(name, fontsize=10, loc="left")
        ax.axis("off")
    return figure


def _table(rows, lowest):
    """The lines of a Markdown table: the last values, the best ones, those of real maps."""
    number = lambda text: f"{float(text):.4g}" if _is_number(text) else "-"
    last = {}
    for model in TITLES:
        step = rows[model][-1]["step"]
        last[model] = {row["metric"]: row for row in rows[model] if row["step"] == step}
    lines = ["| metric | SemGAN | GAN | best SemGAN (step) | best GAN (step) | real |",
             "|---|---|---|---|---|---|"]
    for name in last["semgan"] | last["gan"]:
        there = [last[model].get(name) for model in TITLES]
        cells = [number(row["value"]) if row else "-" for row in there]
        for model in TITLES:
            value, step = lowest[model].get(name, (None, None))
            cells.append("-" if value is None else f"{value:.4g} ({step})")
        cells.append(number(next(row["real at half"] for row in there if row)))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines
