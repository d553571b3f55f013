"""The command `python -m experiments.paper`: trains the rows that are missing, then reports."""
import sys
from pathlib import Path

import kernels
from app import command_line, memory
from app.command_line import at_least_four, natural, positive, require_paths
from app.comparison import compare
from app.evaluation import EVALUATED, read_table
from app.failures import Parser, reported
from app.run_folder import load_checkpoint, require_outside, same_maps
from app.run_settings import given_settings, load_dataset, resolve, resumed
from experiments import paper_report
from experiments.paper import MODELS, ROWS, words
from formats.files import InputError, command, locked, printable

NEEDED = {"cityscapes": "gtFine_trainvaltest.zip from www.cityscapes-dataset.com, or its folder",
          "facades": f"the folder that `{command('data.py', 'facades', '--download')}` fills"}


def main(argv=None):
    """Bad input and failures end the program with one line on stderr."""
    with reported("paper"):
        given = sys.argv[1:] if argv is None else [str(word) for word in argv]
        args = parser().parse_args(given)
        args.words = given
        run(args)


def run(args):
    """Every chosen row, then the report. A run that diverges does not keep the others waiting."""
    names = chosen(args)
    out = Path(args.out)
    with locked(out):
        plans = {name: plan(name, args, out) for name in names}
        paper_report.collect(out)  # damaged files fail here
        diverged = []
        for number, (name, of_row) in enumerate(plans.items(), 1):
            print(f"\n=== {name}, row {number} of {len(plans)}", flush=True)
            if finished(out / name, of_row.steps):
                print("It is complete.", flush=True)
            elif not train(of_row):
                diverged.append(name)
            paper_report.draw_row(out, name, args.device)
            text = paper_report.write(out)
    print(f"\n{text}\n\nIn {out}: paper.md, and the pictures that it shows.")
    if diverged:
        sys.exit(f"paper: {', '.join(diverged)} ended early: a number became NaN or infinite")


def train(of_row):
    """One row. Returns False if a loss or parameter is no longer finite."""
    try:
        compare(of_row)
    except SystemExit as end:
        if not isinstance(end.code, str):  # Ctrl-C
            raise
        print(end.code, file=sys.stderr)
        return False
    return True


# ----------------------------------------------------------------------- before anything is trained
def chosen(args):
    """The names of the rows to train. Raises InputError, also for a data set that is missing."""
    require_paths(args)
    names = list(dict.fromkeys(args.rows or ROWS))
    if unknown := [name for name in names if name not in ROWS]:
        raise InputError(f"--rows {unknown[0]}: no such row; expected some of {', '.join(ROWS)}")
    if args.stand_in in ROWS or args.stand_in in NEEDED:
        raise InputError(f"--stand-in {args.stand_in}: expected the path of label maps")
    if args.stand_in and not Path(args.stand_in).exists():
        raise InputError(f"--stand-in {args.stand_in}: no such folder or archive")
    missing = []
    for dataset, wanted in NEEDED.items():
        rows = [name for name in names if ROWS[name].dataset == dataset]
        if rows and not vars(args)["data_" + dataset] and not args.stand_in:
            missing.append(f"{', '.join(rows)}: --data-{dataset} PATH ({wanted})")
    if missing:
        raise InputError(f"needed for {'; for '.join(missing)}; or --stand-in PATH: other label "
                         "maps, in a folder or archive")
    return names


def plan(name, args, out):
    """The arguments of `compare` for a row. All that can be wrong with it is found out here.

    Raises InputError.
    """
    folder = out / name
    _, of_row = command_line.parse(words(name, args))
    vars(of_row).update(out=str(folder), words=args.words, script="-m experiments.paper")
    given = given_settings(of_row)
    s, _ = resolve(given)
    require_outside(folder, s)
    memory.require_for_training(s)
    with locked(folder):  # in use; not a folder
        dataset = load_dataset(s)
        for model in MODELS:
            run = folder / model
            read_table(run / "metrics.csv")
            if not (run / "checkpoint.npz").exists():
                continue
            header, _ = load_checkpoint(run)
            resumed(header, given | {"model": model}, run)
            if not same_maps(header, load_dataset(s, header) if dataset.invented else dataset):
                raise InputError(f"{s.dataset}: its maps or colours have changed since {run} was "
                                 "started")
    return of_row


def finished(folder, steps):
    """Whether both models of a row have all steps, and the page of `compare` says so."""
    page = folder / "compare.md"
    if not page.is_file() or f"{steps} and {steps} steps" not in page.read_text(encoding="utf-8"):
        return False
    tables = [read_table(folder / model / "metrics.csv") for model in MODELS]
    return all(table and table[-1]["step"] == str(steps) for table in tables)


# ------------------------------------------------------------------------------------------- flags
def parser():
    """The flags."""
    parser = Parser(
        prog="python -m experiments.paper", usage="python -m experiments.paper [options]",
        description="Train SemGAN and the RGB GAN with every setting of the paper, and write its "
                    "tables with our figures beside. Run again, it continues where it stopped. "
                    f"Rows: {', '.join(ROWS)}. See docs/paper.md.")
    add = parser.add_argument
    add("--rows", nargs="+", metavar="ROW", help="only these (default: all)")
    add("--steps", type=positive, default=50_000, metavar="N",
        help="training steps of each run (default 50000, the paper's)")
    add("--out", metavar="DIR", default="runs/paper", help="default runs/paper")
    add("--evaluate-every", type=positive, metavar="N",
        help="steps between evaluations (default: a tenth of the steps)")
    group = parser.add_argument_group("the data")
    for dataset, wanted in NEEDED.items():
        group.add_argument(f"--data-{dataset}", nargs="+", metavar="PATH", help=printable(wanted))
    group.add_argument("--stand-in", metavar="PATH",
                       help="label maps for the rows without a data set; the tables mark them")
    group = parser.add_argument_group("smaller than the paper, for a CPU")
    group.add_argument("--side", type=positive, metavar="N",
                       help="height and width of the maps (default 64 for shapes, else 128)")
    group.add_argument("--divide-filters", type=positive, default=1, metavar="N",
                       help="all channels divided by N; 8: about 50 times less work")
    group.add_argument("--batch-size", type=positive, default=32, metavar="N",
                       help="maps per step (default 32, the paper's)")
    group.add_argument("--evaluate-samples", type=at_least_four, default=EVALUATED, metavar="N",
                       help=f"samples of an evaluation, at most (default {EVALUATED})")
    add_others(parser.add_argument_group("the method, and where it runs"))
    return parser


def add_others(group):
    group.add_argument("--preset", choices=["paper", "full"], default="paper",
                       help="paper: exactly as drawn in the paper; full: without its bottleneck "
                            "(default paper)")
    group.add_argument("--generator-loss", choices=["feature_matching", "non_saturating"],
                       help="as in semgan.py (default feature_matching, the paper's)")
    group.add_argument("--seed", type=natural, default=0, metavar="N", help="default 0")
    group.add_argument("--device", default="auto", choices=kernels.DEVICES, help="default auto")
    group.add_argument("--precision", choices=kernels.PRECISIONS, help="as in semgan.py")
