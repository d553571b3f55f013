"""The command line: `python semgan.py [command] [flags]`."""
import argparse
import sys
from contextlib import suppress

import kernels
import semgan
from app.commands import doctor, evaluate, export, interpolate, sample
from app.comparison import compare
from app.data_command import add_arguments
from app.evaluation import EVALUATED
from app.failures import Parser, reported
from app.run_settings import shown
from app.training import train
from formats.files import InputError

USAGE = """semgan.py --dataset shapes [options]
       semgan.py compare --dataset shapes [options]
       semgan.py {sample,evaluate,interpolate} RUN
       semgan.py {sample,interpolate} --trained
       semgan.py export RUN FILE
       semgan.py doctor"""
DESCRIPTION = """Train a GAN whose generator writes label maps: the probabilities of K classes for
every pixel. Other commands: compare (SemGAN beside the RGB baseline), sample (new maps), evaluate
(all metrics), interpolate (a walk through the latent space), export (the generator alone, in one
file), doctor (what this machine has)."""


def main(argv=None):
    """Run one command. Bad input and failures end the program with one line on stderr."""
    with reported("semgan"):
        command, args = parse(sys.argv[1:] if argv is None else argv)
        command(args)


def parse(argv):
    """(command, arguments). Without the name of a command, the command is train."""
    parsers = {"sample": (sample, sample_parser), "interpolate": (interpolate, interpolate_parser),
               "evaluate": (evaluate, evaluate_parser), "doctor": (doctor, doctor_parser),
               "export": (export, export_parser), "compare": (compare, training_parser)}
    command, parser = train, training_parser
    if argv and argv[0] in parsers:
        command, parser = parsers[argv[0]]
    args = parser().parse_args(argv[1:] if command != train else argv)
    args.words = argv  # for messages that tell how to go on
    require_paths(args)
    return command, args


def require_paths(args):
    """Raises InputError for an empty path, which would mean the present folder."""
    names = dict(run="RUN", file="FILE", maps="MAPS", between="--between", out="--out",
                 weights="--weights", stand_in="--stand-in")
    for name, shown_as in names.items():
        given = vars(args).get(name)
        if name == "maps" and isinstance(given, list):
            shown_as = "--maps"
        if given == "" or isinstance(given, list) and "" in given:
            raise InputError(f"{shown_as} is empty: expected a path")


# ----------------------------------------------------------------------- commands on a finished run
def run_parser(command, description):
    """The flags that sample, evaluate and interpolate share, without RUN."""
    parser = Parser(prog=f"semgan.py {command}", description=description)
    parser.add_argument("--seed", type=natural, default=0, metavar="N",
                        help="determines the latent vectors (default 0)")
    parser.add_argument("--out", metavar="DIR",
                        help="where to write (default: in the run folder; without one, in "
                             "runs/NAME)")
    parser.add_argument("--device", default="auto", choices=kernels.DEVICES,
                        help="where to compute (default auto)")
    return parser


def generator_parser(command, description):
    """The flags that sample and interpolate share: both need only a generator."""
    parser = run_parser(command, description)
    parser.add_argument("run", metavar="RUN", nargs="?",
                        help="a run folder, such as runs/shapes-semgan, or a file that export "
                             "wrote")
    parser.add_argument("--trained", action="store_true",
                        help="instead of RUN: the generator that comes with the program, of "
                             "Colored Shapes at side 32")
    return parser


def sample_parser():
    parser = generator_parser("sample", "New maps, each as an indexed PNG (RGB from the baseline), "
                                        "and a picture of them all.")
    parser.add_argument("--count", type=positive, default=64, metavar="N",
                        help="how many maps (default 64)")
    return parser


def evaluate_parser():
    parser = run_parser("evaluate", "Every metric of new samples, next to the same metric of real "
                                    "maps. The numbers are printed and written to "
                                    "evaluation.csv.")
    parser.add_argument("run", metavar="RUN", help="a run folder, such as runs/shapes-semgan")
    parser.add_argument("--count", type=positive, metavar="N",
                        help="how many samples (default: as many as there are training maps)")
    add_moved(parser)
    parser.add_argument("--weights", metavar="FILE",
                        help="weights of Inception, which FID needs (default: in the cache, where "
                             "`python inception.py --download` puts them)")
    return parser


def add_moved(parser):
    """The flags that say where a run's maps are now. Returns their group."""
    moved = parser.add_argument_group("where the run's maps are now, if they have moved")
    moved.add_argument("--dataset", metavar="PATH", help="their folder or archive")
    moved.add_argument("--data", metavar="PATH", nargs="+", help="of cityscapes or facades")
    moved.add_argument("--palette", metavar="FILE", help="their colours and names")
    moved.add_argument("--labels", metavar="GLOB", help="which of the files are label maps")
    return moved


def interpolate_parser():
    parser = generator_parser("interpolate", "A closed walk through the latent space, as a GIF "
                                             "and as a picture.")
    parser.add_argument("--keys", type=at_least_two, default=6, metavar="N",
                        help="how many latent vectors to pass through (default 6)")
    parser.add_argument("--frames", type=positive, default=16, metavar="N",
                        help="frames from one latent vector to the next (default 16)")
    return parser


def export_parser():
    parser = Parser(
        prog="semgan.py export",
        description="The generator of a run in one small file, without what only training needs. "
                    "sample and interpolate take the file in place of RUN.")
    parser.add_argument("run", metavar="RUN", help="a run folder, such as runs/shapes-semgan")
    parser.add_argument("file", metavar="FILE", help="the new file, such as shapes.npz")
    return parser


def doctor_parser():
    return Parser(
        prog="semgan.py doctor",
        description="What this machine has, what will be used, and why.")


# ----------------------------------------------------------------------------------------- training
def training_parser():
    """The flags of train and compare."""
    parser = Parser(
        prog="semgan.py", usage=USAGE, description=DESCRIPTION,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=80))
    add_arguments(parser)
    parser.add_argument("--model", choices=["semgan", "gan"],
                        help="semgan: softmax over the classes (the default); gan: RGB through "
                             "tanh, the paper's baseline")
    parser.add_argument("--preset", choices=semgan.PRESETS,
                        help="small: side 32, minutes on two cores (the default without a GPU); "
                             "full: the paper's sizes, without its bottleneck (the default on a "
                             "GPU); paper: exactly as drawn in the paper")
    add_run_flags(parser.add_argument_group("the run"))
    add_settings(parser)
    return parser


def add_run_flags(group):
    """Where a run is kept, how often it is saved, and where it is computed."""
    def add(flag, **options):
        group.add_argument(flag, **options)

    add("--out", metavar="DIR", help="the run folder (default runs/DATASET-MODEL)")
    add("--resume", action="store_true", help="continue from the checkpoint in the run folder")
    add("--save-every", type=positive, metavar="N",
        help="steps between checkpoints, each with a picture of 16 samples (default: a checkpoint "
             "a minute, a picture every 250 steps)")
    add("--log-every", type=positive, default=10, metavar="N",
        help="steps between rows of log.csv (default 10)")
    add("--evaluate-every", type=positive, default=0, metavar="N",
        help="steps between evaluations of all metrics, written to metrics.csv (default: none; "
             "compare: a tenth of the steps)")
    add("--evaluate-samples", type=at_least_four, default=EVALUATED, metavar="N",
        help=f"samples of an evaluation, at most: as many as training maps (default {EVALUATED}); "
             "SWD and FID compare at equal numbers only")
    add("--device", default="auto", choices=kernels.DEVICES,
        help="where to compute. cuda: on a GPU; numpy: on the CPU; emulator: the CUDA kernels on "
             "the CPU; plain: the pure functions of numpy_ops.py, slow; auto: cuda if there is a "
             "GPU, else numpy (default auto)")
    add("--precision", choices=kernels.PRECISIONS,
        help="what convolutions on a GPU or in the emulator round their factors to. fp32: no "
             "rounding; tf32 or bf16: for tensor cores. Sums and everything else stay in float32 "
             "(default: tf32 on a GPU of compute capability 8.0 or higher, else fp32)")
    add("--replace", metavar="FILE",
        help="a .cu file of your own: its kernels replace the program's of the same name, on a GPU "
             "or in the emulator")


def add_settings(parser):
    """One flag for each setting of the method. Its help names the values that presets change."""
    scenes = ", ".join(f"{name.replace('_', ' ')} {shown(value)}"
                       for name, value in semgan.STREET_SCENES.items())
    group = parser.add_argument_group(
        "the method", "In brackets: the default, then the values of the presets that change it. "
        "For your own maps, presets full and paper start from the paper's settings for street "
        f"scenes: {scenes}. For facades they are the same, with latent "
        f"{semgan.FACADES['latent']}.")
    for name, (default, meaning) in semgan.SETTINGS.items():
        if name == "width":
            group.add_argument("--size", metavar="HxW",
                               help="height and width of a map in pixels, such as 64x128, in "
                                    "place of --side")
            continue
        values = [shown(default)]
        values += [f"{preset} {shown(changes[name])}"
                   for preset, changes in semgan.PRESETS.items() if name in changes]
        if isinstance(default, bool):
            options = dict(action=argparse.BooleanOptionalAction)
        elif isinstance(default, list):
            options = dict(type=int, nargs="+", metavar="N")
        elif name in semgan.CHOICES:
            options = dict(choices=semgan.CHOICES[name])
        else:
            options = dict(type=type(default), metavar="N" if isinstance(default, int) else "X")
        group.add_argument("--" + name.replace("_", "-"), default=None,
                           help=f"{meaning} [{'; '.join(values)}]", **options)


# ------------------------------------------------------------------------------- numbers in flags
def natural(text, least=0):
    """The integer, if it is `least` or more."""
    with suppress(ValueError):
        if int(text) >= least:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text}: expected {least} or more")


def positive(text):
    return natural(text, 1)


def at_least_two(text):
    return natural(text, 2)


def at_least_four(text):
    return natural(text, 4)
