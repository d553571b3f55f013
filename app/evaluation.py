"""All metrics of a generator, and their tables: metrics.csv of training, evaluation.csv."""
import csv
from contextlib import suppress

import numpy as np

import image_metrics
import inception
import metrics
from formats.files import InputError, written

TABLE_HEADER = ["step", "samples", "seed", "metric", "value", "value at half", "real at half"]
# Which values are better, by the first words of a metric. A metric that noise or a single repeated
# map could win by being low or high is better near the real value. "memorization, agreement" and
# "held out" are in no list: the first should be like the second.
BETTER = {
    "lower": ("class frequencies", "FSD", "adjacency", "spatial prior", "memorization, copies",
              "invalid colours", "softmax, entropy", "SWD", "FID"),
    "higher": ("shapes, circle", "shapes, rectangle", "shapes, square", "softmax, largest"),
    "near real": ("boundary density", "components", "memorization, memorized", "shapes, share",
                  "shapes, strict share", "MS-SSIM")}
DECIDES = ("FID", "SWD x1e3, average")  # which step is best: the first of them that there is
EVALUATED = 1024  # maps, by default at most, in an evaluation during training: more take too long
COPIES = 0.05  # so many more copies than among real maps, as a share of all samples, are reported


def measure(g, dataset, count, seed, weights=None):
    """{metric: (of the samples, of half of them, of real maps instead of samples)}.

    The first value compares `count` samples with as many training maps; the paper takes all of
    them (its Appendix B). The second compares half of these maps with as many samples, the third
    the same maps with the other half of the maps, as good as a generator can be. If a
    metric cannot be computed, a text says why. weights: from inception.load_weights, for FID.
    """
    maps = dataset.unpaired  # the mirror image of a map would look like a copy
    real = maps[np.random.default_rng([seed, 5]).permutation(len(maps))[:count]]
    z = np.random.default_rng([seed, 4]).standard_normal((count, g.s.latent))
    fake = g.sample(z)
    ids = [metrics.nearest_class(maps, dataset.palette) for maps in (real, fake)]
    images = [dataset.palette[maps] if maps.ndim == 3 else maps for maps in (real, fake)]
    table = label_rows(*ids, g.s.dataset == "shapes")
    table |= image_rows(*images, weights, weights and g.ops)
    if g.rgb:
        rate = lambda _, x: image_metrics.invalid_color_rate(x, dataset.palette)
        table |= _compare("invalid colours", rate, *images)
    else:
        table |= _measure_softmax(g, z)
    return table


def label_rows(real, fake, shapes=False):
    """The rows of `measure` for two sets of label maps; shapes: they are Colored Shapes.

    The sets can differ in number, here and in image_rows. Halves are those of the smaller one.
    """
    table = {}
    for name, metric in metrics.LABEL_METRICS.items():
        table |= _compare(name, metric, real, fake)
    if shapes:
        table |= _compare("shapes", lambda _, maps: metrics.shape_metrics(maps), real, fake)
    return table


def image_rows(real, fake, weights=None, ops=None):
    """The rows of `measure` for two sets of RGB images. ops: where Inception computes FID."""
    table = {}
    count = min(len(real), len(fake))
    for name, metric in metrics.IMAGE_METRICS.items():  # SWD needs equal numbers
        table |= _compare(name, metric, real[:count], fake[:count])
    if weights:
        features = [inception.features(x, weights, ops.unrounded()) for x in (real, fake)]
        table |= _compare("FID", image_metrics.frechet_distance, *features)
    return table


def _compare(name, metric, real, fake):
    """The rows of `measure` for one metric, a function of two sets."""
    half = min(len(real), len(fake)) // 2
    pairs = (real, fake), (real[:half], fake[:half]), (real[:half], real[half:2 * half])
    try:
        values = [metric(*pair) for pair in pairs]
    except ValueError as error:
        return {name: (str(error),) * 3}
    if not isinstance(values[0], dict):
        return {name: tuple(values)}
    return {f"{name}, {key}": tuple(value[key] for value in values) for key in values[0]}


def _measure_softmax(g, z):
    """The rows of `measure` that show how discrete the softmax outputs are."""
    found, sizes = [], []
    for probabilities in g.outputs(z):
        found.append(metrics.discreteness(probabilities))
        sizes.append(len(probabilities))
    rows = {}
    for key, of_real_maps in ("largest probability", 1.0), ("entropy", 0.0):
        mean = float(np.average([values[key] for values in found], weights=sizes))
        rows[f"softmax, {key}"] = mean, mean, of_real_maps
    return rows


def better(metric):
    """"lower", "higher" or "near real": which values of a metric are better. "" if none are."""
    for direction, beginnings in BETTER.items():
        if metric.startswith(beginnings):
            return direction
    return ""


def describe(table, palette=()):
    """The table of `measure` as the text that `evaluate` prints. palette: none for images."""
    colors = " ".join(bytes(color).hex() for color in palette)
    number = lambda x: f"{x:.4g}" if isinstance(x, float) else "-"
    lines = ["SWD, MS-SSIM: as in Karras et al. 2018" + f", palette {colors}" * bool(colors),
             f"FID: {inception.PREPROCESSING}", "",
             f"{'':32s}{'samples':>12s}{'half of them':>14s}{'real (half)':>13s}   better"]
    for name, values in table.items():
        full, half, real = map(number, values)
        last = values[0] if isinstance(values[0], str) else better(name)
        lines.append(f"{name:32s}{full:>12s}{half:>14s}{real:>13s}   {last}".rstrip())
    return "\n".join(lines + warning_of_copies(table))


def warning_of_copies(table):
    """The lines that warn of samples that look like copies of training maps: one or none."""
    share, _, real = table.get("memorization, copies", (0, 0, 0))
    if share <= real + COPIES:
        return []
    return ["", f"{share:.0%} of the samples look like copies of training maps or of their mirror "
                f"images (of real maps {real:.0%})."]


# ------------------------------------------------------------------------------------------ tables
def read_table(path):
    """The rows of a table as dicts, none if there is no such file. Raises InputError."""
    if not path.exists():
        return []
    whole = False  # a row with too few cells has the value None, one with too many the key None
    with suppress(UnicodeError, csv.Error), open(path, newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        whole = reader.fieldnames == TABLE_HEADER and all(
            None not in (*row, *row.values()) and row["step"].isdecimal() for row in rows)
    if not whole:
        raise InputError(f"{path}: not a readable table of metrics; remove it to continue "
                         "without it")
    return rows


def write_table(path, step, count, seed, table):
    """Add the metrics of one step to a table.

    They replace those of this and of later steps, which are there if a run was resumed from an
    earlier checkpoint. Raises InputError.
    """
    rows = [row for row in read_table(path) if int(row["step"]) < step]
    for name, values in table.items():
        rows.append(dict(zip(TABLE_HEADER, [step, count, seed, name, *values])))
    with written(path, "w", newline="") as file:
        writer = csv.DictWriter(file, TABLE_HEADER)
        writer.writeheader()
        writer.writerows(rows)


def is_best(path, step, table):
    """Whether a step's table has the lowest FID so far, without FID the lowest mean SWD.

    path: of metrics.csv with the earlier steps. The paper shows the "models yielding the best FID".
    """
    earlier = best_values(path, before=step)
    for name in DECIDES:
        value = table.get(name, [""])[0]
        if isinstance(value, float):
            return value < earlier.get(name, (np.inf, 0))[0]
    return False


def best_values(path, before=np.inf):
    """{metric: (best value, its step)} of metrics.csv, of all metrics that `better` knows.

    Near real means the smallest distance from the value of real maps. before: a step; only rows of
    earlier ones count.
    """
    found = {}
    for row in read_table(path):
        if int(row["step"]) >= before:
            continue
        name = row["metric"]
        try:
            value, real = float(row["value"]), float(row["real at half"])
        except ValueError:  # it could not be computed; the text says why
            continue
        cost = {"lower": value, "higher": -value, "near real": abs(value - real)}.get(better(name))
        if cost is not None:
            best = cost, value, int(row["step"])
            found[name] = min(found.get(name, best), best)
    return {name: (value, step) for name, (_, value, step) in found.items()}
