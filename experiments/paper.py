"""All GAN experiments of the paper as one list of rows: Tables 1 to 4, Figures 3 to 7, 9 and 10.

Ghelfi et al. 2019 train SemGAN and the RGB GAN with one setting on Colored Shapes (section 5.0.1),
three on Cityscapes (Table 3) and four on the Facades (Table 4). Tables 1 and 2 are the best figures
of each column. Here each row is a `compare` of both models; killed and run again, it continues.

    python -m experiments.paper --data-cityscapes gtFine.zip --data-facades FOLDER  # a GPU's work
    python -m experiments.paper --rows shapes --side 32 --divide-filters 8 --steps 2000

Read this file first: the rows, what the paper prints, and which of it cannot be. Then
paper_command.py (the runs) and paper_report.py (tables and pictures). See docs/paper.md.
"""
if __name__ == "__main__":  # before all other imports
    from app.start import start
    start()

from collections import namedtuple

import semgan

COLUMNS = ("FID", "MS-SSIM", "SWD 16", "SWD 32", "SWD 64", "SWD 128", "SWD avg")
MODELS = {"semgan": "SemGAN", "gan": "GAN"}
# The learning rate of both networks, the length of z, the sides of all kernels; what the paper
# prints for each model, in the order of COLUMNS: the best values during training, SWD times 1000.
Row = namedtuple("Row", "dataset learning_rate latent kernel_size semgan gan")
ROWS = {
    "shapes": Row("shapes", 1e-4, 100, 11, "", ""),  # the paper has only curves of it
    # Table 3
    "cityscapes-1": Row("cityscapes", 2e-4, 128, 7, "50.891 0.1972 20.9 14.4 18.4 15.0 20.5",
                        "164.33 0.3164 47.6 21.7 61.0 245.1 96.1"),
    "cityscapes-2": Row("cityscapes", 2e-4, 300, 11, "55.144 0.211 26.9 16.4 20.6 15.6 24.5",
                        "258.56 0.5768 51.3 20.6 23.8 73.3 51.6"),
    "cityscapes-3": Row("cityscapes", 2e-4, 300, 7, "61.422 0.210 35.3 20.0 20.7 17.6 24.6",
                        "208.09 104.4 80.4 33.5 29.8 68.4 41.4"),
    # Table 4
    "facades-1": Row("facades", 1e-4, 300, 7, "145.80 0.0765 52.8 28.6 26.0 25.1 41.4",
                     "249.14 0.1282 72.5 47.5 40.0 80.1 63.2"),
    "facades-2": Row("facades", 2e-4, 128, 7, "145.55 0.0578 29.5 16.5 22.4 36.2 33.7",
                     "211.79 0.0814 30.6 19.1 22.2 73.8 39.3"),
    "facades-3": Row("facades", 2e-3, 300, 7, "165.05 0.0492 30.2 20.2 27.5 45.0 37.5",
                     "229.85 0.0698 51.3 20.6 23.8 73.3 51.6"),
    "facades-4": Row("facades", 2e-4, 300, 7, "134.83 0.0557 19.8 17.1 21.7 35.6 28.4",
                     "208.09 0.1044 80.4 33.5 29.8 68.4 41.4"),
}
SUMMARIES = {  # Tables 1 and 2
    "cityscapes": dict(semgan="50.89 0.1972 20.9 14.4 18.4 15.0 20.5",
                       gan="164.3 0.3164 47.6 20.0 20.6 15.6 24.5"),
    "facades": dict(semgan="134.83 0.0492 19.8 16.5 21.7 25.1 28.4",
                    gan="198.05 0.0698 30.6 19.1 22.2 68.4 39.3"),
}


def rows_of(dataset):
    """The names of the rows of a data set."""
    return [name for name, row in ROWS.items() if row.dataset == dataset]


def printed(name, model):
    """What the paper prints for a model in a row: 7 texts, empty ones for the shapes."""
    return getattr(ROWS[name], model).split() or [""] * len(COLUMNS)


# ------------------------------------------------------------------ what is wrong in these tables
REPEATED, IMPOSSIBLE, NOT_BEST = "†", "‡", "§"
RULES = f"""{REPEATED} The paper prints the same figure for the same model, in the same column, in \
another row of Tables 3 and 4, where data or settings differ (104.4 counts as 1000 times 0.1044).
{IMPOSSIBLE} Cannot be: an MS-SSIM above 1, or a mean SWD below the mean of its four levels, \
although each level is at its best, maybe at another step.
{NOT_BEST} In Tables 1 and 2: not the best figure of its column in Table 3 or 4."""


def marks(name, model):
    """The marks of each printed figure of a row: 7 texts of REPEATED and IMPOSSIBLE."""
    cells = printed(name, model)
    others = [printed(other, model) for other in ROWS if other != name]
    repeated = [bool(cell) and any(_value(cell, column) == _value(other[i], column)
                                   for other in others)
                for i, (cell, column) in enumerate(zip(cells, COLUMNS))]
    return [REPEATED * again + IMPOSSIBLE * bad for again, bad in zip(repeated, _impossible(cells))]


def summary_marks(dataset, model):
    """The marks of each figure of Table 1 or 2: 7 texts of IMPOSSIBLE and NOT_BEST."""
    cells = SUMMARIES[dataset][model].split()
    columns = zip(*(map(float, printed(name, model)) for name in rows_of(dataset)))
    wrong = [abs(float(cell) - min(column)) > 0.51 * 0.1 ** len(cell.partition(".")[2])
             for cell, column in zip(cells, columns)]  # more than by rounding
    return [IMPOSSIBLE * bad + NOT_BEST * other for bad, other in zip(_impossible(cells), wrong)]


def sources(dataset, model):
    """[sentence] for each figure marked NOT_BEST: where else in its column it stands."""
    found = []
    for i, cell in enumerate(SUMMARIES[dataset][model].split()):
        if NOT_BEST in summary_marks(dataset, model)[i]:
            places = [f"{title}'s in {name}" for name in ROWS for other, title in MODELS.items()
                      if printed(name, other)[i] == cell]
            where = f"is {' and '.join(places)}" if places else "is in no row"
            found.append(f"{MODELS[model]}, {COLUMNS[i]}: {cell} {where}.")
    return found


def _value(text, column):
    value = float(text or "nan")
    return value / 1000 if column == "MS-SSIM" and value > 1 else value


def _impossible(cells):
    """For each of 7 printed figures whether it cannot be right."""
    if not cells[0]:
        return [False] * len(cells)
    _, ms_ssim, *levels, average = map(float, cells)
    bad = [False] * len(cells)
    bad[1], bad[-1] = ms_ssim > 1, average < sum(levels) / 4 - 0.05  # by more than rounding
    return bad


# ------------------------------------------------------------------------------ a row as a command
def words(name, args):
    """The flags of `semgan.py compare` for a row. args: the flags of paper_command."""
    row, dataset, data = ROWS[name], ROWS[name].dataset, None
    if dataset != "shapes":
        data = vars(args)["data_" + dataset]
        dataset = dataset if data else args.stand_in
    filters = semgan.settings(dataset=dataset, preset=args.preset)
    flags = dict(
        dataset=dataset, data=data, preset=args.preset, steps=args.steps, side=args.side,
        learning_rate=row.learning_rate, discriminator_learning_rate=row.learning_rate,
        latent=row.latent, kernel_size=row.kernel_size, batch_size=args.batch_size,
        seed=args.seed, evaluate_every=args.evaluate_every,
        evaluate_samples=args.evaluate_samples, device=args.device,
        precision=args.precision, generator_loss=args.generator_loss,
        generator_filters=_divided(filters.generator_filters, args.divide_filters),
        discriminator_filters=_divided(filters.discriminator_filters, args.divide_filters))
    found = ["compare"]
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, list):
            found += [flag, *map(str, value)]
        elif value:
            found.append(f"{flag}={value}")
    return found


def _divided(filters, by):
    return [max(1, n // by) for n in filters]


if __name__ == "__main__":
    from experiments.paper_command import main
    main()
