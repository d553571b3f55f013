"""Ctrl-C, SIGTERM and closed pipes at every stage of every command."""
import subprocess
import sys
import time

from fault_groups.bench import CLEAN, TINY, copy, differences, save_maps, torn

STEPS = "6"
SAME = "checkpoint.npz", "settings.json", "metrics.csv"  # where a run stops, it draws one more grid
EARLY = -2, -15  # SIGINT while importing, and SIGTERM outside the loop, end the process at once
EARLIEST = 0.05  # seconds after a fork, when the program has begun
# Functions of the program in whose beginning a signal comes.
STAGES = ["given_settings", "locked", "load_maps", "prepare_image", "write_cache", "Generator",
          "rehearse", "loop", "train_step", "snapshot", "write_checkpoint", "restore_trainer",
          "grid", "plot_curves", "measure", "write_table", "report", "open_log", "start_folder"]
SIGNALS = {"SIGINT": 130, "SIGTERM": 143}
COMMANDS = [
    ["semgan.py", "sample", "run", "--count", "3"],
    ["semgan.py", "interpolate", "run", "--keys", "2", "--frames", "2"],
    ["semgan.py", "evaluate", "run"],
    ["semgan.py", "export", "run", "generator.npz"],
    ["semgan.py", "doctor"],
    ["data.py", "inspect", "--dataset", "MAPS", "--side", "8"],
    ["metrics.py", "MAPS", "MAPS", "--out", "table.csv"],
]


def run(bench):
    maps = save_maps(bench.fresh() / "maps")
    reference = bench.fresh()
    train = ["semgan.py", *TINY, "--dataset", maps, "--steps", STEPS, "--save-every", "2",
             "--evaluate-every", "3", "--out", "run"]
    whole = bench.call(*train, folder=reference)
    bench.judge(whole, codes=CLEAN)
    stages = [(name, stage, n) for name in SIGNALS for stage in STAGES for n in (1, 3)]
    for name, stage, n in bench.some(stages, 0.05):
        interrupt(bench, train, reference, name, fault=dict(action=name, function=stage, n=n))
    for name in bench.some([*SIGNALS] * 30, 0.05):
        moment = bench.rng.uniform(EARLIEST, whole.seconds)
        times = [[moment + 0.05 * i, name] for i in range(bench.rng.choice([1, 2]))]
        interrupt(bench, train, reference, name, signals=times)
    for words in COMMANDS:
        words = [maps if word == "MAPS" else word for word in words]
        seconds = bench.call(*words, folder=copy(reference, bench.fresh() / "here")).seconds
        for name in bench.some([*SIGNALS] * 4, 0.1):
            here = copy(reference, bench.fresh() / "here")
            moment = bench.rng.uniform(EARLIEST, EARLIEST + seconds)
            result = bench.call(*words, folder=here, signals=[[moment, name]])
            bench.judge(result, *torn(here, temporary=name == "SIGINT"),
                        codes=(0, *EARLY, SIGNALS[name]))
        closed_pipe(bench, reference, words)
    closed_pipe(bench, reference, train[:-1] + ["other"])
    while_importing(bench, maps)


def interrupt(bench, train, reference, name, **request):
    """A signal while training: it ends tidily, and goes on to the same end."""
    here = bench.fresh()
    stopped = bench.call(*train, folder=here, **request)
    codes = (0, 130, *EARLY, SIGNALS[name])
    bench.judge(stopped, *torn(here), codes=codes)
    again = train
    if (here / "run" / "checkpoint.npz").exists():
        again = ["semgan.py", "--resume", "--steps", STEPS, *train[-6:]]
    resumed = bench.call(*again, folder=here)
    different = differences(here / "run", reference / "run", SAME)
    bench.judge(resumed, *torn(here, temporary=True), *different, codes=CLEAN)


def closed_pipe(bench, reference, words):
    """`| head`: nobody reads what is printed; or standard output is closed, or full."""
    for target in "|", "/dev/full":
        here = copy(reference, bench.fresh() / "here")
        files = ["/dev/null", target, str(here.parent / "err")]
        result = bench.call(*words, folder=here, files=files)
        err = (here.parent / "err").read_text()
        bench.judge(result._replace(err=err), *torn(here), codes=(0, 1, 141))


def while_importing(bench, maps):
    """Ctrl-C in a new interpreter, at moments of its start."""
    for script in "semgan.py", "data.py", "metrics.py", "inception.py":
        for moment in bench.some([0.15, 0.3, 0.45, 0.6, 0.8], 0.2):
            folder = bench.fresh()
            process = subprocess.Popen(
                [sys.executable, bench.source / script, "--help"], cwd=folder, text=True,
                env=bench.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            time.sleep(moment)
            process.send_signal(2)
            out, err = process.communicate()
            bench.judge(bench.ended(f"python {script} --help, SIGINT after {moment} s",
                                    process.returncode, out, err), codes=(0, 130, -2))
