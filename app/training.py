"""The training command: prepare, train until --steps or Ctrl-C, report."""
import csv
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from tqdm import tqdm

import inception
import kernels
import metrics
import semgan
from app import evaluation, forecast, memory
from app.failures import untraced_interrupts
from app.pictures import grid, plot_curves
from app.run_folder import (
    CheckpointWriter,
    header_of,
    load_checkpoint,
    require_outside,
    restore_trainer,
    start_folder,
    write_generator,
)
from app.run_settings import (
    MOVABLE,
    given_settings,
    load_dataset,
    print_settings,
    resolve,
    resumed,
    shown,
)
from formats.files import InputError, command, locked, printable, save_image

EARLY_GRIDS = (1, 10, 50, 100)  # steps after which samples are drawn,
GRID_EVERY = 250  # and then after every so many, unless --save-every is given
LONG = 3600  # seconds of a run after which a shorter one is proposed
SAVE_SECONDS = 60  # between checkpoints, unless --save-every is given: they can be large


def train(args):
    """Train until --steps or Ctrl-C, then report."""
    given = given_settings(args)
    run = Path(args.out or f"runs/{run_name(given)}")
    with locked(run):
        trainer, origin = prepare(args, given, run)
        with start_folder(run, trainer) as log, np.errstate(all="ignore"):  # we look for NaN
            print_settings(trainer.s, origin, run, trainer.dataset)
            weights = cached_weights() if args.evaluate_every else None
            announce(trainer, args.evaluate_every, weights, args.evaluate_samples)
            recorder = Recorder(trainer, run, log, args, weights)
            with stop_signals() as stop:
                loop(trainer, recorder, stop)
                plot_curves(run)
            if stop:
                print(stopped(recorder))
                sys.exit(128 + stop[0])
            report(trainer, run)
    if args.evaluate_every:
        print()
        for name, (value, step) in evaluation.best_values(run / "metrics.csv").items():
            print(f"best {name:32s} {value:10.4g} at step {step}")


# ---------------------------------------------------------------------------- before the first step
def prepare(args, given, run):
    """Returns the trainer and {setting: its origin}. Bad input fails here."""
    ops = kernels.load(args.device, precision=args.precision, replace=args.replace)
    header = None
    if args.resume:
        header, arrays = load_checkpoint(run)
        s, origin = resumed(header, given, run)
    elif (run / "checkpoint.npz").exists():
        raise InputError(f"{run} already holds a run; continue it with --resume, or choose another "
                         "folder with --out")
    else:
        s, origin = resolve(given, gpu=ops.name == "gpu")
        require_outside(run, s)
    memory.require_for_training(s, on_gpu=ops.name == "gpu")  # before the maps are read
    dataset = load_dataset(s, header or vars(args).get("like"))
    memory.require_for_training(s, dataset.classes, len(dataset.maps), ops.name == "gpu")
    trainer = semgan.Trainer(ops, s, dataset)
    trainer.inputs(0)  # a batch that does not fit into memory fails here
    if args.resume:
        restore_trainer(trainer, header, arrays, run)
        if moved := [given[name] for name in MOVABLE if origin[name] == "flag"]:
            print(f"{run} continues with the same maps and colours, from "
                  f"{', '.join(map(shown, moved))}.")
        tell_other_arithmetic(header, ops, run)
    return trainer, origin


def tell_other_arithmetic(header, ops, run):
    """Tell the user if a run continues on a device that rounds differently from the last one."""
    before = header["arithmetic"] or "an earlier version of this program"
    if before != ops.arithmetic:
        print(f"{run} was computed by {printable(before)} and continues on {ops.arithmetic}: "
              "results will be close, not bit-identical. See --device and --precision.")


def announce(trainer, evaluate_every, weights, samples):
    """Print where the steps are computed, and how long they will take."""
    steps = trainer.s.steps - trainer.step
    print(f"\n{trainer.ops.why}, preset {trainer.s.preset}: {steps} steps.", flush=True)
    s = trainer.s
    if steps >= 20:
        step = forecast.rehearse(trainer)
        print(forecast.sentence(trainer, step, evaluate_every, weights, samples), flush=True)
        if steps * step > LONG and s.preset != "small":
            small = forecast.duration(forecast.seconds_of_small(trainer, step))
            print(f"For a first look, --preset small takes about {small}.", flush=True)
    seventh = s.decay_after + 7 * s.half_life
    if s.half_life and s.steps > seventh:
        print(f"The generator's learning rate halves every {s.half_life} steps: after step "
              f"{seventh} it is below 1 %.\n--half-life and --decay-after change that.")


def run_name(given):
    """DATASET-MODEL, the name of the default run folder."""
    return f"{dataset_name(given.get('dataset', 'shapes'))}-{given.get('model', 'semgan')}"


def dataset_name(path):
    """'shapes' -> 'shapes', 'data/maps.tar.gz' -> 'maps': the beginning of a run folder's name."""
    return Path(os.path.abspath(path)).name.removesuffix(".gz").rsplit(".", 1)[0]


def cached_weights():
    """The weights of FID's network, or None if they have not been downloaded."""
    return inception.load_weights() if inception.cached_file().exists() else None


def measure(trainer, count, weights):
    """The metrics of `count` samples: see evaluation.measure."""
    return evaluation.measure(trainer.generator, trainer.dataset, count, trainer.s.seed, weights)


# ------------------------------------------------------------------------------------ training loop
@contextmanager
def stop_signals():
    """A list of the signals SIGINT and SIGTERM that have come: with one, the loop ends by itself.

    With the second signal the block ends at once, unless Python is just deleting an object.
    """
    received = []

    def receive(number, _):
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        with suppress(OSError):  # not by print, in the middle of which the signal may have come
            os.write(2, b"\nStopping: this step is completed and saved. Again: stop at once.\n")

    old = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with untraced_interrupts():
            yield received
    except (KeyboardInterrupt, ValueError):  # matplotlib turns the first into the second
        if len(received) < 2:
            raise
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def loop(trainer, recorder, stop):
    """Train until the last step, or until `stop` is no longer empty. Then save a checkpoint.

    A loss or parameter that is not finite ends the program; the last good checkpoint is kept.
    """
    s = trainer.s
    bar = tqdm(total=s.steps, initial=trainer.step, unit=" steps", smoothing=0.05,
               dynamic_ncols=True, disable=None)
    try:
        recorder.catch_up()
        with bar:
            while trainer.step < s.steps and not stop:
                trainer.train_step()
                bar.update()
                recorder.after_step(bar, last=trainer.step == s.steps or bool(stop))
        if recorder.saved != trainer.step:  # the signal came after `last` was computed
            recorder.save()
    except FloatingPointError as error:
        recorder.writer.finish()
        kept = "no checkpoint was saved yet"
        if recorder.saved:
            kept = f"the last good checkpoint, of step {recorder.saved}, is {recorder.checkpoint}"
        sys.exit(printable(f"{recorder.program}: {error}; {kept}. Try {recorder.advice}."))
    finally:
        recorder.writer.finish()


def latents_of_grids(s):
    """z (16, latent), the same for every picture of a run."""
    return np.random.default_rng([s.seed, 2]).standard_normal((16, s.latent))


class Recorder:
    """Writes what a run leaves behind: losses, checkpoints, pictures, metrics.

    weights: of FID's network, or None.
    """
    program = "semgan"
    advice = ("a lower --learning-rate, a lower --discriminator-learning-rate, or "
              "--feature-matching mean")  # if a number is no longer finite

    def __init__(self, trainer, run, log, args, weights):
        self.trainer, self.run, self.log, self.args = trainer, run, log, args
        self.weights = weights
        self.checkpoint = run / "checkpoint.npz"
        self.writer = CheckpointWriter(self.checkpoint)
        self.saved = trainer.step  # the step of the checkpoint
        self.began = time.perf_counter()
        self.plotted = self.began   # when the curves were drawn last
        self.plotting = 0.0         # seconds that this took
        self.saved_at = self.began  # when the last checkpoint was begun

    def after_step(self, bar, last):
        """Do whatever is due after this step. last: training ends here."""
        step, args = self.trainer.step, self.args
        if step % args.log_every == 0 or last:
            self.log_losses(bar)
        if self.save_is_due() or last:
            self.save()
        if self.grid_is_due() or last:
            self.draw()
        if self.plot_is_due() and not last:  # after the last step, train() draws the curves
            self.plot()
        if self.evaluation_is_due():
            self.evaluate()

    def save_is_due(self):
        if self.args.save_every:
            return self.trainer.step % self.args.save_every == 0
        return time.perf_counter() - self.saved_at >= SAVE_SECONDS

    def grid_is_due(self):
        return self.trainer.step in EARLY_GRIDS or self.plot_is_due()

    def plot_is_due(self):
        return self.trainer.step % (self.args.save_every or GRID_EVERY) == 0

    def evaluation_is_due(self):
        step, every = self.trainer.step, self.args.evaluate_every
        return every and (step % every == 0 or step == self.trainer.s.steps)

    def catch_up(self):
        """Redo what follows a checkpoint, if the run was killed before it was written."""
        step = self.trainer.step
        if step and (self.grid_is_due() or step == self.trainer.s.steps):
            if not self.grid_file().exists():
                self.draw()
        if step and self.evaluation_is_due():
            rows = evaluation.read_table(self.run / "metrics.csv")
            if str(step) not in [row["step"] for row in rows]:
                self.evaluate()

    def log_losses(self, bar):
        """A row of log.csv. Raises FloatingPointError if a loss is not finite."""
        losses = self.trainer.ops.asnumpy(self.trainer.losses)
        if not np.isfinite(losses).all():
            raise FloatingPointError(f"step {self.trainer.step}: a loss is NaN or infinite")
        seconds = f"{time.perf_counter() - self.began:.1f}"
        csv.writer(self.log).writerow([self.trainer.step, *(f"{x:.6g}" for x in losses), seconds])
        self.log.flush()
        bar.set_postfix_str(f"loss D {losses[0]:.3f} G {losses[1:].sum():.4f}")

    def save(self):
        """Begin the checkpoint. Raises FloatingPointError if a parameter is not finite."""
        self.writer.start(self.trainer)
        self.saved, self.saved_at = self.trainer.step, time.perf_counter()

    def draw(self):
        """A picture of 16 samples, always of the same latent vectors."""
        maps = self.trainer.generator.sample(latents_of_grids(self.trainer.s))
        save_image(grid(maps, self.trainer.dataset.palette), self.grid_file())

    def grid_file(self):
        return self.run / "samples" / f"step_{self.trainer.step:06d}.png"

    def plot(self):
        """curves.png, unless drawing it would take more than 1 % of the time of training."""
        now = time.perf_counter()
        if now - self.plotted >= 100 * self.plotting:
            plot_curves(self.run)
            self.plotted = time.perf_counter()
            self.plotting = self.plotted - now

    def evaluate(self):
        """All metrics of as many samples as there are training maps, up to --evaluate-samples.

        best.npz is the generator with the best of them so far: see evaluation.is_best.
        """
        t = self.trainer
        count = min(self.args.evaluate_samples, len(t.dataset.unpaired))
        table = measure(t, count, self.weights)
        path = self.run / "metrics.csv"
        if evaluation.is_best(path, t.step, table):  # written first: catch_up looks for the metrics
            write_generator(self.run / "best.npz", t.generator, header_of(t))
        evaluation.write_table(path, t.step, count, t.s.seed, table)


# ------------------------------------------------------------------------------ after the last step
def stopped(recorder):
    """What to tell after an interruption: what is saved, and the command that continues."""
    args, step = recorder.args, recorder.saved
    words, script = list(args.words), vars(args).get("script", "semgan.py")
    continues = script == "-m experiments.paper" or words[:1] == ["compare"]  # by itself
    if step and not continues and not args.resume:
        words.append("--resume")
    what = (f"Stopped at step {step}. To continue: " if step else
            "Stopped before the first checkpoint. To start again: ")
    return what + command(script, *words)


def report(trainer, run):
    """Print how good 256 samples are, next to real maps, and where everything is."""
    s, dataset = trainer.s, trainer.dataset
    z = np.random.default_rng([s.seed, 3]).standard_normal((256, s.latent))
    maps = metrics.nearest_class(trainer.generator.sample(z), dataset.palette)
    real = dataset.maps[::-(-len(dataset.maps) // 2000)]  # enough for two digits
    if s.dataset == "shapes":
        rows, note = shape_rows(maps, real), ""
    else:
        rows = frequency_rows(maps, real, dataset.names)
        note = ("\nThis tells nothing of place or form: random pixels can have these frequencies,"
                "\nand wrong forms as many regions. Look at samples/.\n")
    regions = [f"{metrics.components(some)['per map']:.2f}" for some in (maps, real)]
    print(f"\n{'':46s}256 samples   real maps")
    for row in [*rows, ("regions per map", *regions)]:
        print("{:46s}{:>11s}{:>12s}".format(*row))
    print(f"{note}\nIn {run}: samples/, log.csv, curves.png, checkpoint.npz.\n"
          f"More maps:   {command('semgan.py', 'sample', run)}\n"
          f"A walk:      {command('semgan.py', 'interpolate', run)}\n"
          f"All metrics: {command('semgan.py', 'evaluate', run)}")


def shape_rows(maps, real):
    """The rows of `report` for Colored Shapes: [(text, of the samples, of the real maps)]."""
    found = [metrics.shape_metrics(some) for some in (maps, real)]
    rows = [("maps with three good shapes", *(f"{values['share']:.0%}" for values in found))]
    for key in "circle overlap", "rectangle overlap", "square overlap":
        rows.append((f"median {key}", *(f"{values[key]:.2f}" for values in found)))
    return rows


def frequency_rows(maps, real, names, most=20):
    """The rows of `report` for other data: a class a row, frequent ones first, the rest as one."""
    frequencies = np.stack([metrics.class_frequencies(some, len(names)) for some in (maps, real)])
    order = np.argsort(-frequencies.max(0), kind="stable")
    row = lambda text, pair: (text, *(f"{share:.2%}" for share in pair))
    rows = [row(f"pixels of {names[k]}"[:46], frequencies[:, k]) for k in order[:most]]
    if len(order) > most:
        rows.append(row(f"pixels of {len(order) - most} other classes",
                        frequencies[:, order[most:]].sum(1)))
    return rows
