"""The compare command: SemGAN and the RGB baseline trained alike, and the page that shows both."""
import argparse
from pathlib import Path

import numpy as np

import kernels
import semgan
from app.evaluation import best_values, better, read_table
from app.pictures import grid
from app.run_folder import load_checkpoint, load_generator
from app.run_settings import given_settings, load_dataset, resolve
from app.training import dataset_name, latents_of_grids, train
from formats.files import InputError, locked, printable, written
from formats.settings import shown_size

TITLES = {"semgan": "SemGAN", "gan": "GAN"}
COLORS = {"semgan": "C0", "gan": "C1"}  # of the curves


def compare(args):
    """`compare`: SemGAN and the RGB baseline with the same data, seed, steps and networks.

    Only their last layers differ. A run that was interrupted continues from its checkpoint.
    """
    if args.model:
        raise InputError("compare trains both models; leave out --model")
    folder = Path(args.out or f"runs/{dataset_name(args.dataset or 'shapes')}-compare")
    every = args.evaluate_every or max(1, total_steps(args) // 10)
    with locked(folder):
        train_both(args, folder, every)


def train_both(args, folder, every):
    """Both runs with an evaluation every so many steps, then the page."""
    headers = {}  # of the checkpoints
    for number, model in enumerate(TITLES, 1):
        run = folder / model
        started = (run / "checkpoint.npz").exists()
        print(f"\n--- {model}, run {number} of {len(TITLES)}"
              + ": continues from its checkpoint" * started, flush=True)
        changes = dict(model=model, out=str(run), resume=started, evaluate_every=every,
                       like=headers.get("semgan"))  # both models learn the same colours
        train(argparse.Namespace(**vars(args) | changes))
        headers[model], _ = load_checkpoint(run)
    steps = " and ".join(str(header["step"]) for header in headers.values())
    s = headers["semgan"]["settings"]
    facts = (f"{steps} steps, seed {s.seed}, size {shown_size(semgan.map_size(s))}, "
             f"kernel size {s.kernel_size}.")
    title = printable(f"SemGAN and GAN on {Path(s.dataset).name}")
    comparison_page(folder, title, pictures(folder, headers["semgan"], args.device), facts)


def total_steps(args):
    """--steps, or the steps of the preset, by default this machine's."""
    if args.steps:
        return args.steps
    gpu = kernels.load(args.device).name == "gpu"
    return resolve(given_settings(args), gpu)[0].steps


def pictures(folder, header, device):
    """{title: image} of 16 real maps and of 16 samples of both models, as in their last grids."""
    dataset = load_dataset(header["settings"], header)
    some = np.linspace(0, len(dataset.maps) - 1, 16).astype(int)
    images = {"real maps": grid(dataset.maps[some], dataset.palette)}
    for model, title in TITLES.items():
        g, palette = load_generator(folder / model, device)
        images[title] = grid(g.sample(latents_of_grids(g.s)), palette)
    return images


# -------------------------------------------------------------------------- the page of both models
def comparison_page(folder, title, grids, facts):
    """Write compare.png and compare.md to `folder`, from metrics.csv of semgan/ and gan/ in it.

    grids: {title: PIL image}, one above the other. facts: a sentence on the runs.
    """
    rows = {model: read_table(folder / model / "metrics.csv") for model in TITLES}
    with written(folder / "compare.png") as file:
        _plot(rows, grids).savefig(file, dpi=110, format="png")
    best = {model: best_values(folder / model / "metrics.csv") for model in TITLES}
    table = _table(rows, best)
    text = (f"{facts} {rows['semgan'][-1]['samples']} samples against as many training maps. "
            "Best: the value during training that the column `better` asks for, as the paper "
            "reports. Real (half): one half of the maps against the other.")
    lines = [f"# {title}", "", "![curves and samples](compare.png)", "", text, "", *table]
    with written(folder / "compare.md", "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    print("\n" + "\n".join(table) + f"\n\nIn {folder}: compare.md, compare.png.")


def _is_number(text):
    """Whether the cell of a table is a finite number, not the reason why there is none."""
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _plot(rows, grids):
    """SWD during training at each level, above the grids. rows: {model: rows of metrics.csv}."""
    from matplotlib.figure import Figure
    curves = {}  # {metric: {model: [(step, value)]}}
    for model in TITLES:
        for row in rows[model]:
            if row["metric"].startswith("SWD") and _is_number(row["value"]):
                models = curves.setdefault(row["metric"], {})
                models.setdefault(model, []).append((int(row["step"]), float(row["value"])))
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 0.95])
    axes = above.subplots(1, max(1, len(curves)), squeeze=False)[0]
    for ax, (name, models) in zip(axes, curves.items()):
        for model, points in models.items():
            ax.plot(*zip(*points), marker=".", color=COLORS[model], label=TITLES[model])
        real = next(float(row["real at half"]) for model in models for row in rows[model]
                    if row["metric"] == name)
        ax.axhline(real, color="grey", linestyle=":", label="real, half as many")
        ax.set(title=name, xlabel="step", xlim=(0, None), ylim=(0, None))
        ax.legend(fontsize=8)
    for ax, (name, image) in zip(below.subplots(len(grids), 1), grids.items()):
        ax.imshow(image, interpolation="nearest")
        ax.set_title(name, fontsize=10, loc="left")
        ax.axis("off")
    return figure


def _table(rows, best):
    """The lines of a Markdown table: last values, best values, and those of real maps."""
    number = lambda text: f"{float(text):.4g}" if _is_number(text) else "-"
    last = {}
    for model in TITLES:
        step = rows[model][-1]["step"]
        last[model] = {row["metric"]: row for row in rows[model] if row["step"] == step}
    columns = ["metric", "better", "SemGAN", "GAN", "best SemGAN (step)", "best GAN (step)",
               "real (half)"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name in last["semgan"] | last["gan"]:
        there = [last[model].get(name) for model in TITLES]
        cells = [number(row["value"]) if row else "-" for row in there]
        for model in TITLES:
            value, step = best[model].get(name, (None, None))
            cells.append("-" if value is None else f"{value:.4g} ({step})")
        cells.append(number(next(row["real at half"] for row in there if row)))
        lines.append(f"| {name} | {better(name)} | {' | '.join(cells)} |")
    return lines
