"""How long a run will take, from a step or two that are measured and then undone."""
import threading
import time
from contextlib import contextmanager

import semgan
from app import evaluation, memory
from formats.files import note

COMPILING = 2  # seconds after which a first step is said to compile


def seconds_of_small(trainer, step):
    """About how many seconds the preset small takes, if a step of this run takes `step`.

    Estimated from the multiplications of both.
    """
    s, classes = trainer.s, trainer.dataset.classes
    small = semgan.settings(preset="small", dataset=s.dataset, model=s.model)
    share = memory.multiplications(small, classes) / memory.multiplications(s, classes)
    return small.steps * share * step


def sentence(trainer, step, evaluate_every, weights, samples):
    """A sentence on how long training will take, with an evaluation every so many steps or 0.

    step: the seconds of one. samples: of an evaluation, at most.
    """
    last = trainer.s.steps
    seconds = (last - trainer.step) * step
    if not evaluate_every:
        return f"They will take about {duration(seconds)}."
    count = last // evaluate_every - trainer.step // evaluate_every
    count += last % evaluate_every > 0  # after the last step
    seconds += count * rehearse_evaluation(trainer, weights, samples)
    return f"They and {count} evaluation{'s' * (count > 1)} will take about {duration(seconds)}."


def rehearse(trainer):
    """The seconds that one step takes. Runs a few steps, then restores the trainer.

    Only the last counts: the first also compiles and allocates, and on a GPU the second is the
    first of the recorded ones, which are uploaded then.
    """
    ops, step = trainer.ops, trainer.step
    arrays = [array for net in trainer.networks.values() for array in net.state().values()]
    before = [ops.asnumpy(array) for array in arrays]
    for _ in range(3 if ops.name == "gpu" else 2):
        began = time.perf_counter()
        with patience(ops):
            trainer.train_step()
            ops.asnumpy(trainer.losses)  # waits for the device
    seconds = time.perf_counter() - began
    for array, values in zip(arrays, before):
        ops.write(array, values)
    trainer.step = step
    return seconds


@contextmanager
def patience(ops):
    """A context for a first step. If it takes long because kernels are compiled, a note says so."""
    if ops.name not in ("gpu", "emulator"):
        yield
        return
    text = "Compiling the kernels. This can take a minute; the next run finds them in the cache."
    timer = threading.Timer(COMPILING, note, [text])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def rehearse_evaluation(trainer, weights, samples):
    """The seconds that one evaluation takes, from those of 64 maps: they grow with the maps.

    The first evaluation, of four maps, also compiles and imports, so it does not count.
    """
    total = min(samples, len(trainer.dataset.unpaired))
    for count in min(4, total), min(64, total):
        began = time.perf_counter()
        evaluation.measure(trainer.generator, trainer.dataset, count, trainer.s.seed, weights)
    return (time.perf_counter() - began) * total / count


def duration(seconds):
    """75 -> '75 seconds', 90 -> '2 minutes', 86400 -> '24 hours'."""
    for unit, size in ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1):
        if seconds >= 1.5 * size or unit == "second":
            count = max(1, round(seconds / size))
            return f"{count} {unit}{'s' * (count > 1)}"
