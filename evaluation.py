"""All metrics of a generator in one table, kept in metrics.csv while it trains; and the page that compares two generators."""
import csv
import os

import numpy as np

import inception
import metrics
from data import InputError


def nearest_class(maps, palette):
    """RGB (N, H, W, 3) -> ids (N, H, W): the class of the nearest colour. Ids stay as they are."""
    if maps.ndim == 3:
        return maps
    return np.stack([((m[..., None, :] - palette.astype(np.int32)) ** 2).sum(-1).argmin(-1).astype(np.uint8) for m in maps])


def measure(g, dataset, count, seed, weights=None):
    """{metric: (of the samples, of half of them, of real maps in the samples' place)}; a metric that cannot be had: a text.

    The first figure compares `count` samples with as many training maps, the paper's way (its Appendix B: all of them). The
    others compare a half of these maps with as many samples, and with the other half of the maps: no generator can do
    better than the last. weights: of inception.load_weights.
    """
    order = np.random.default_rng([seed, 5]).permutation(len(dataset.maps))[:count]
    real, z = dataset.maps[order], np.random.default_rng([seed, 4]).standard_normal((count, g.s.latent))
    fake, half = g.sample(z), count // 2
    pairs = (real, fake), (real[:half], fake[:half]), (real[:half], real[half:2 * half])
    ids = lambda maps: nearest_class(maps, dataset.palette)
    images = lambda maps: dataset.palette[maps] if maps.ndim == 3 else maps
    table = {}

    def add(name, metric, view):
        try:
            found = [metric(*map(view, pair)) for pair in pairs]
        except ValueError as error:
            found = [str(error)] * 3
        for key in found[0] if isinstance(found[0], dict) else [None]:
            table[f"{name}, {key}" if key else name] = tuple(f[key] if key else f for f in found)

    for name, metric in metrics.LABEL_METRICS.items():
        add(name, metric, ids)
    if g.s.dataset == "shapes":
        add("whole shapes", lambda _, maps: metrics.whole_shapes(maps), ids)
    for name, metric in metrics.IMAGE_METRICS.items():
        add(name, metric, images)
    if weights:
        r, f = (inception.features(images(maps), weights, g.ops) for maps in (real, fake))
        table["FID"] = tuple(metrics.frechet_distance(*two) for two in ((r, f), (r[:half], f[:half]), (r[:half], r[half:2 * half])))
    if g.rgb:
        add("invalid colours", lambda _, maps: metrics.invalid_color_rate(maps, dataset.palette), images)
    else:
        found = [metrics.discreteness(out) | {"n": len(out)} for out in g.outputs(z)]
        for key in "largest probability", "entropy":  # of real maps: 1 and 0
            mean = float(np.average([f[key] for f in found], weights=[f["n"] for f in found]))
            table[f"softmax, {key}"] = mean, mean, float(key != "entropy")
    return table


HEADER = ["step", "samples", "seed", "metric", "value", "value at half", "real at half"]


def read(path):
    """The rows of metrics.csv as dicts; none if there is no such file. Raises InputError."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if reader.fieldnames != HEADER or not all(row["step"].isdigit() for row in rows):
        raise InputError(f"{path}: not a readable table of metrics; remove it to go on without")
    return rows


def write(path, step, count, seed, table):
    """Put the figures of one step into metrics.csv, in place of those of this step and of later ones: a run went on from here."""
    rows = [row for row in read(path) if int(row["step"]) < step]
    rows += [dict(zip(HEADER, [step, count, seed, name, *figures])) for name, figures in table.items()]
    aside = path.with_name(path.name + ".tmp")
    with open(aside, "w", newline="") as file:
        writer = csv.DictWriter(file, HEADER)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(aside, path)


LOWER_IS_BETTER = ("class frequencies", "FSD", "adjacency", "spatial prior", "components, speckle", "invalid colours", "SWD",
                   "MS-SSIM, mean", "FID")


def best(path):
    """{metric: (lowest value, its step)} of metrics.csv, for the metrics of which lower is better."""
    found = {}
    for row in read(path):
        name = row["metric"]
        try:
            value = float(row["value"])
        except ValueError:  # it could not be had; the text says why
            continue
        if name.startswith(LOWER_IS_BETTER):
            found[name] = min(found.get(name, (np.inf, 0)), (value, int(row["step"])))
    return found


def page(folder, title, grids, facts):
    """compare.png and compare.md in `folder`, from metrics.csv of semgan/ and gan/ in it: the paper's figures 3 and 4, a table.

    grids: {title: PIL image}, one above the other. facts: a sentence on the runs.
    """
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    titles = {"semgan": "SemGAN", "gan": "GAN"}
    rows = {model: read(folder / model / "metrics.csv") for model in titles}
    curves = {}  # {metric: {model: [(step, value)]}}
    for model in titles:
        for row in rows[model]:
            if row["metric"].startswith("SWD") and row["value"][:1].isdigit():
                curves.setdefault(row["metric"], {}).setdefault(model, []).append((int(row["step"]), float(row["value"])))
    figure = plt.figure(figsize=(11, 7.5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1, 1.3])
    for ax, (name, models) in zip(above.subplots(1, max(1, len(curves)), squeeze=False)[0], curves.items()):
        for model, points in models.items():
            ax.plot(*zip(*points), marker=".", label=titles[model])
        ax.axhline(next(float(row["real at half"]) for model in models for row in rows[model] if row["metric"] == name),
                   color="grey", linestyle=":", label="real, half as many")
        ax.set(title=name, xlabel="step", ylim=(0, None))
        ax.legend(fontsize=8)
    for ax, (name, image) in zip(below.subplots(len(grids), 1), grids.items()):
        ax.imshow(image, interpolation="nearest")
        ax.set_title(name, fontsize=10, loc="left")
        ax.axis("off")
    figure.savefig(folder / "compare.png", dpi=110)
    plt.close(figure)

    lowest = {model: best(folder / model / "metrics.csv") for model in titles}
    last = {model: {row["metric"]: row for row in rows[model] if row["step"] == rows[model][-1]["step"]} for model in titles}
    number = lambda text: f"{float(text):.4g}" if text[:1].isdigit() else "-"
    lines = [f"# {title}", "", "![curves and samples](compare.png)", "",
             f"{facts} {rows['semgan'][-1]['samples']} samples against as many training maps. Best: the lowest value during "
             "training, as the paper reports. Real: one half of the maps against the other.", "",
             "| metric | SemGAN | GAN | best SemGAN (step) | best GAN (step) | real |", "|---|---|---|---|---|---|"]
    for name in last["semgan"] | last["gan"]:
        there = [last[model].get(name) for model in titles]
        figures = [number(row["value"]) if row else "-" for row in there]
        figures += [f"{lowest[m][name][0]:.4g} ({lowest[m][name][1]})" if name in lowest[m] else "-" for m in titles]
        figures.append(number(next(row["real at half"] for row in there if row)))
        lines.append(f"| {name} | {' | '.join(figures)} |")
    (folder / "compare.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n" + "\n".join(lines[6:]) + f"\n\nIn {folder}: compare.md, compare.png.")
