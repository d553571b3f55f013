"""The command `train` of the encoder: prepare, train until the last step or Ctrl-C, report."""
import sys
import time

import numpy as np

from app.commands import source
from app.run_folder import restore, write_checkpoint
from app.run_settings import shown
from app.training import stop_signals, tell_other_arithmetic
from experiments.encoder import SETTINGS, EncoderTrainer, settings
from experiments.encoder_files import (
    checksum,
    here,
    load_frozen,
    of_run,
    read_checkpoint,
    real_maps,
    run_words,
    snapshot,
)
from experiments.latents import scores
from formats.files import InputError, locked, printable

SAVE_SECONDS = 60  # between checkpoints
REPORTS = 10       # lines of progress in each stage


def train(args):
    """`train RUN`: an encoder in RUN/encoder/, until its last step or Ctrl-C."""
    path, folder = source(args)
    g, header = load_frozen(path, args.device)
    given = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    s = settings(g.s, args.stages, **given)
    maps, held = real_maps(of_run(header, args, path), header, path)
    file = folder / "encoder" / f"{args.stages}.npz"
    with locked(file.parent):
        if args.resume:
            trainer = continued(g, maps, given, file)
        elif file.exists():
            raise InputError(f"{file} exists already; continue it with --resume, or remove it")
        else:
            trainer = EncoderTrainer(g, s, maps)
        print(f"{g.ops.why}; {len(maps)} maps and {trainer.steps} steps.", flush=True)
        with stop_signals() as stop, np.errstate(all="ignore"):  # we look for NaN
            loop(trainer, file, stop)
    if stop:
        print(stopped(file, g, args))
        sys.exit(128 + stop[0])
    held = held[:256]
    found = g.sample(trainer.encoder.codes(held))
    print(f"\nReconstructions of {len(held)} held-out maps: {scores(found, held, g)}.\n"
          f"The encoder is {file}. Beside other ways: {here('evaluate', *run_words(args))}")


def stopped(file, g, args):
    """What to tell after an interruption: what is saved, and the command that continues."""
    if not file.exists():  # a second Ctrl-C ended the program before it saved
        return f"Stopped before the first checkpoint. To start again: {here(*args.words)}"
    words = args.words if args.resume else [*args.words, "--resume"]
    return f"Stopped at step {read_checkpoint(file, g)[0]['step']}. To continue: {here(*words)}"


def continued(g, maps, given, file):
    """The trainer of a checkpoint. Raises InputError, also if a flag contradicts it."""
    header, s, arrays = read_checkpoint(file, g)
    for name, value in given.items():
        if value != getattr(s, name):
            flag, was = name.replace("_", "-"), shown(getattr(s, name))
            raise InputError(f"--{flag} {shown(value)}: {file} was started with {was}")
    trainer = EncoderTrainer(g, s, maps)
    if header["maps"] != checksum(maps):
        raise InputError(f"{file}: its maps have changed since it was started")
    restore(g.ops, trainer.encoder.state(), "e", arrays)
    tell_other_arithmetic(header, g.ops, file)
    trainer.step = header["step"]
    return trainer


def loop(trainer, file, stop):
    """Train until the last step, or until `stop` is no longer empty. Then save.

    A loss or parameter that is not finite ends the program; the last good checkpoint is kept.
    """
    t, losses = trainer, []
    began = saved_at = time.perf_counter()
    try:
        while t.step < t.steps and not stop:
            stage = t.stage
            t.train_step()
            losses.append(float(t.ops.asnumpy(t.loss)[0]))
            if not np.isfinite(losses[-1]):
                raise FloatingPointError(f"step {t.step}: the loss is NaN or infinite")
            to_go = (t.steps if stage else t.first_steps) - t.step
            if to_go % max(1, (t.second_steps if stage else t.first_steps) // REPORTS) == 0:
                kind = ("|z - E(G(z))|", "cross-entropy")[stage]
                print(f"step {t.step:6d}  {kind} {np.mean(losses):.4f}  "
                      f"{time.perf_counter() - began:.0f} s", flush=True)
                losses = []
            if time.perf_counter() - saved_at >= SAVE_SECONDS:
                write_checkpoint(file, *snapshot(t))
                saved_at = time.perf_counter()
        write_checkpoint(file, *snapshot(t))
    except FloatingPointError as error:
        sys.exit(printable(f"encoder: {error}; try a lower --learning-rate"))
