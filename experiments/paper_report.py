"""paper.md: the paper's tables with our figures beside theirs, its claims as figures, pictures."""
import json
from collections import namedtuple
from pathlib import Path

import numpy as np
from PIL import Image

from app.evaluation import DECIDES, read_table
from app.pictures import grid
from app.run_folder import generator_and_header
from app.run_settings import load_dataset, shown
from app.training import latents_of_grids
from experiments.paper import (
    COLUMNS,
    MODELS,
    ROWS,
    RULES,
    SUMMARIES,
    marks,
    printed,
    rows_of,
    sources,
    summary_marks,
)
from formats.files import InputError, printable, save_image, written

AVERAGE, ENTROPY = "SWD x1e3, average", "softmax, entropy"
METRICS = dict(zip(COLUMNS, ["FID", "MS-SSIM, mean", *(f"SWD x1e3, {n}" for n in (16, 32, 64, 128)),
                             AVERAGE]))  # of each column, as in metrics.csv
CAPTIONS = {"shapes": "Colored Shapes (Figures 3 and 4)",
            "cityscapes": "Table 3: Cityscapes (Figures 5, 6 and 10)",
            "facades": "Table 4: Facades (Figures 7 and 9)"}
FIGURES = {"cityscapes": "Figures 6 and 10", "facades": "Figures 7 and 9"}
# Of one model in one row: its settings as a dict, {metric: [(step, value)]}, samples evaluated.
Result = namedtuple("Result", "settings curves samples")


# ----------------------------------------------------------------------------------- what there is
def collect(out):
    """{(row, model): Result} of all that has been evaluated so far. Raises InputError."""
    results = {}
    for name in ROWS:
        for model in MODELS:
            run = out / name / model
            if table := read_table(run / "metrics.csv"):
                results[name, model] = Result(_settings(run), _curves(table), table[-1]["samples"])
    return results


def _settings(run):
    path = run / "settings.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: found[name] for name in (
            "dataset", "preset", "side", "steps", "seed", "learning_rate", "batch_size",
            "generator_filters", "discriminator_filters", "generator_loss")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the settings of a run ({error!r:.100}); remove {run} to "
                         "train it again") from None


def _curves(table):
    """{metric: [(step, value)]}, without values that could not be computed."""
    curves = {}
    for row in table:
        try:
            value = float(row["value"])
        except ValueError:  # a text that says why
            continue
        if np.isfinite(value):
            curves.setdefault(row["metric"], []).append((int(row["step"]), value))
    return curves


def best(result):
    """{column: lowest value in training}, as the paper reports it: "lower is better" for all."""
    if result is None:
        return {}
    return {column: min(value for _, value in result.curves[metric])
            for column, metric in METRICS.items() if metric in result.curves}


def kept(results):
    """(name, metric, value, step) of the best model among {name: Result}, None if there is none.

    By the first metric of DECIDES that any has. Of one result: the step of best.npz.
    """
    for metric in DECIDES:
        found = [(value, step, name) for name, result in results.items()
                 for step, value in result.curves.get(metric, [])]
        if found:
            value, step, name = min(found)
            return name, metric, value, step
    return None


# ------------------------------------------------------------------------------------------ tables
def write(out):
    """Write paper.md and entropy.png. Returns the text without the pictures. Raises InputError."""
    results = collect(out)
    parts = [f"# The paper's tables, and ours\n\n{introduction(results)}"]
    for dataset in CAPTIONS:
        parts.append(f"## {CAPTIONS[dataset]}\n\n" + "\n".join(table(dataset, results)))
        if dataset in SUMMARIES:
            parts.append("\n".join(summary(dataset, results)))
    parts += [RULES.replace("\n", "\n\n"), "## Our runs\n\n" + "\n".join(runs(results)),
              "## What the paper says in words\n\n" + "\n".join(claims(results))]
    text = "\n\n".join(parts)
    with written(out / "paper.md", "w", encoding="utf-8") as file:
        file.write(f"{text}\n\n{pictures(out, results)}\n")
    plot_entropy(out / "entropy.png", results)
    return text


def introduction(results):
    """How to read a cell, and whether there is FID."""
    text = ("Each cell: the paper's figure / ours, both the lowest during training. SWD is times "
            "1000; - : not printed, or not measured.")
    if results and not any("FID" in result.curves for result in results.values()):
        text += (" No FID of ours: its weights were not there (`inception.py --download`); the "
                 "mean SWD decides which model is best.")
    if stand_ins(results):
        text += (" \\* Ours is of other label maps, since the data set was not given: its figures "
                 "are no replication of the paper's, and rows of the same lr, ld and ks the same "
                 "runs.")
    return text


def stand_ins(results):
    """The names of the rows that ran on other label maps than the paper's."""
    return {name for (name, _), result in results.items()
            if result.settings["dataset"] != ROWS[name].dataset}


def row_title(name, results):
    return name + "\\*" * (name in stand_ins(results))


def line(*cells):
    return f"| {' | '.join(map(str, cells))} |"


def head(*columns):
    return [line(*columns), "|---" * len(columns) + "|"]


def cell(theirs, mark, ours):
    """One cell: "50.891† / 60.21"."""
    return f"{theirs or '-'}{mark} / {'-' if ours is None else format(ours, '.4g')}"


def table(dataset, results):
    """The lines of Table 3 or 4, or of the shapes."""
    lines = head("row", "lr", "ld", "ks", "model", *COLUMNS)
    for name in rows_of(dataset):
        row = ROWS[name]
        for model, title in MODELS.items():
            ours = best(results.get((name, model)))
            cells = [cell(theirs, mark, ours.get(column)) for theirs, mark, column in
                     zip(printed(name, model), marks(name, model), COLUMNS)]
            lines.append(line(row_title(name, results), f"{row.learning_rate:g}", row.latent,
                              row.kernel_size, title, *cells))
    return lines


def summary(dataset, results):
    """Table 1 or 2: the best of each column; what is wrong there; which models are the best."""
    number = 1 + list(SUMMARIES).index(dataset)
    starred = "\\*" * bool(stand_ins(results) & set(rows_of(dataset)))
    lines = [f"Table {number}: the best of each column{starred}", ""]
    lines += head("model", *COLUMNS)
    for model, title in MODELS.items():
        of_rows = [best(results.get((name, model))) for name in rows_of(dataset)]
        cells = []
        for theirs, mark, column in zip(SUMMARIES[dataset][model].split(),
                                        summary_marks(dataset, model), COLUMNS):
            ours = [found[column] for found in of_rows if column in found]
            cells.append(cell(theirs, mark, min(ours, default=None)))
        lines.append(line(title, *cells))
    wrong = [text for model in MODELS for text in sources(dataset, model)]
    lines += ["", " ".join([f"In the paper's Table {number}:", *wrong])] if wrong else []
    return lines + best_models(dataset, results)


def best_models(dataset, results):
    """A line that names the models which the paper's figures would show."""
    found = []
    for model, title in MODELS.items():
        ours = {name: results[name, model] for name in rows_of(dataset)
                if (name, model) in results}
        if best_of_all := kept(ours):
            name, metric, value, step = best_of_all
            found.append(f"{title} of {name} at step {step} ({metric}: {value:.4g})")
    where = f"{FIGURES[dataset]} show the models with the best FID. "
    return ["", f"{where}Here these are {' and '.join(found)}."] if found else []


def runs(results):
    """With what each row ran here."""
    lines = head("row", "data", "side", "filters of G", "filters of D", "batch", "G's loss",
                 "preset", "seed", "steps evaluated (SemGAN, GAN)", "samples")
    for name in ROWS:
        there = [results[name, model] for model in MODELS if (name, model) in results]
        if there:
            s = there[0].settings
            last = [str(max(step for step, _ in sum(result.curves.values(), [])))
                    for result in there]
            data = printable(Path(str(s["dataset"])).name).replace("|", "/")
            lines.append(line(
                row_title(name, results), data, s["side"], shown(s["generator_filters"]),
                shown(s["discriminator_filters"]), s["batch_size"], s["generator_loss"],
                s["preset"], s["seed"], f"{', '.join(last)} of {s['steps']}", there[0].samples))
    return lines


# ------------------------------------------------------------------------------------------ claims
def claims(results):
    """Two claims of the paper's section 3.2, as figures."""
    lines = ["\"Better results with fewer training steps\": the first evaluation at which SemGAN's "
             "mean SWD is below the GAN's at its last. \"Very low variance\": the mean entropy of "
             "SemGAN's softmax over all pixels of its samples, in nats, at the first evaluation, "
             "one in the middle and at the last; 0: it is sure of every pixel. See entropy.png. "
             "\"Never in 75\": not up to step 75, the last at which SemGAN had an SWD.", ""]
    lines += head("row", "the GAN's last mean SWD (step)", "SemGAN is below at step",
                  "entropy (step)")
    for name in ROWS:
        ours, theirs = (results[name, model].curves if (name, model) in results else {}
                        for model in MODELS)
        if not ours:
            continue
        entropy = ours.get(ENTROPY, [])
        some = dict.fromkeys(entropy[i] for i in (0, len(entropy) // 2, -1)) if entropy else []
        lines.append(line(row_title(name, results), *passed(ours, theirs),
                          ", ".join(f"{value:.3g} ({step})" for step, value in some) or "-"))
    return lines


def passed(ours, theirs):
    """(the GAN's last mean SWD and its step, the step at which SemGAN is below) as texts."""
    if AVERAGE not in ours or AVERAGE not in theirs:
        return "-", "-"
    last, value = theirs[AVERAGE][-1]
    below = [step for step, swd in ours[AVERAGE] if swd < value]
    return f"{value:.4g} ({last})", below[0] if below else f"never in {ours[AVERAGE][-1][0]}"


def plot_entropy(path, results):
    """The entropy of SemGAN's softmax during training, a curve for each row."""
    from matplotlib.figure import Figure  # here, since its import takes long
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for (name, _), result in results.items():
        if curve := result.curves.get(ENTROPY):
            axes.plot(*zip(*curve), marker=".", label=name)
    axes.set(title="How sure SemGAN is: mean entropy of its softmax", xlabel="step",
             ylabel="nats per pixel", xlim=(0, None), ylim=(0, None))
    if axes.lines:
        axes.legend(fontsize=8)
    with written(path) as file:
        figure.savefig(file, dpi=110, format="png")


# ---------------------------------------------------------------------------------------- pictures
def draw_row(out, name, device="auto"):
    """ROW.png: 16 real maps, 16 samples of the best SemGAN, 16 of the best GAN; if there are both.
    """
    files = [out / name / model / "best.npz" for model in MODELS]
    if not all(file.is_file() for file in files):
        return
    images = []
    for file in files:
        g, header = generator_and_header(file, device)
        if not images:
            maps = load_dataset(g.s, header).maps
            some = np.linspace(0, len(maps) - 1, 16).astype(int)
            images.append(grid(maps[some], header["palette"]))
        images.append(grid(g.sample(latents_of_grids(g.s)), header["palette"]))
    gap, (width, height) = 8, images[0].size
    picture = Image.new("RGB", (width, 3 * (height + gap) - gap), "white")
    for i, image in enumerate(images):
        picture.paste(image, (0, i * (height + gap)))
    save_image(picture, out / f"{name}.png")


def pictures(out, results):
    """The pictures of the report, as Markdown."""
    parts = ["## Pictures\n\n![entropy](entropy.png)\n\nOf each row: 16 real maps, 16 samples of "
             "the best SemGAN, 16 of the best GAN (best.npz), and the SWD during training."]
    for name in ROWS:
        if (out / f"{name}.png").is_file():
            of_row = {title: results[name, model] for model, title in MODELS.items()}
            steps = [f"{title} of step {kept({title: result})[-1]}"
                     for title, result in of_row.items()]
            parts.append(f"{row_title(name, results)}: {', '.join(steps)}\n\n"
                         f"![{name}]({name}.png)\n\n![SWD of {name}]({name}/compare.png)")
    return "\n\n".join(parts)
