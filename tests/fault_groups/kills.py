"""Kills at random moments and at every change of a file: nothing is torn, nothing is lost."""
import shutil

from fault_groups.bench import ANY, CLEAN, TINY, copy, differences, save_maps, torn

KILLED = (-9, 0)  # or the command was faster
EXITED = (77, 0)
# Commands on a finished run, whose every change of a file is a place to be killed at.
COMMANDS = [
    ["semgan.py", "sample", "run", "--count", "5"],
    ["semgan.py", "interpolate", "run", "--keys", "2", "--frames", "3"],
    ["semgan.py", "evaluate", "run"],
    ["semgan.py", "export", "run", "generator.npz"],
    ["data.py", "inspect", "--dataset", "MAPS", "--side", "8"],
    ["metrics.py", "MAPS", "MAPS", "--out", "table.csv"],
]


def run(bench):
    start = bench.fresh()  # stays empty
    maps = save_maps(bench.fresh() / "maps")
    reference = bench.fresh()
    train = ["semgan.py", *TINY, "--dataset", maps, "--steps", "6", "--save-every", "1",
             "--evaluate-every", "3", "--out", "run"]
    whole = bench.call(*train, folder=reference)
    bench.judge(whole, codes=CLEAN)
    of_training = bench.some(range(220), 0.02)
    for _ in of_training:
        random_kill(bench, start, train, whole.seconds, reference)
    count = changes(bench, start, train)
    for n in bench.some(range(1, count + 1), 0.03):
        kill_at_change(bench, start, train, n, reference)
    for words in COMMANDS:
        words = [maps if word == "MAPS" else word for word in words]
        count = changes(bench, reference, words)
        for n in bench.some(range(1, count + 1), 0.1):
            kill_command(bench, reference, words, n)
    compare(bench, start, maps)


def random_kill(bench, start, train, seconds, reference):
    """Kill a training run at a random moment. Then it must go on to the same end."""
    here = copy(start, bench.fresh() / "here")
    moment = bench.rng.uniform(0, 1.1 * seconds)
    killed = bench.call(*train, folder=here, signals=[[moment, "SIGKILL"]])
    bench.judge(killed, *torn(here), codes=KILLED)
    go_on(bench, here, train, reference)


def kill_at_change(bench, start, train, n, reference):
    here = copy(start, bench.fresh() / "here")
    killed = bench.call(*train, folder=here, fault=dict(action="exit", n=n))
    bench.judge(killed, *torn(here), codes=EXITED)
    go_on(bench, here, train, reference)


def go_on(bench, here, train, reference):
    """Complete a run that was killed. It must leave the files of a run that never was."""
    if (here / "run" / "checkpoint.npz").exists():
        train = ["semgan.py", "--resume", "--steps", "6", *train[-6:]]
    resumed = bench.call(*train, folder=here)
    bench.judge(resumed, *torn(here, temporary=True), *differences(here, reference), codes=CLEAN)
    shutil.rmtree(here.parent)


def changes(bench, start, words):
    """How many changes of files a command makes."""
    low, high = 0, 1
    while reached(bench, start, words, high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if reached(bench, start, words, middle) else (low, middle)
    return low


def reached(bench, start, words, n):
    here = copy(start, bench.fresh() / "here")
    result = bench.call(*words, folder=here, fault=dict(action="exit", n=n))
    shutil.rmtree(here.parent)
    return result.reached


def kill_command(bench, start, words, n):
    """Kill a command on a finished run: files are whole, and it can be given again."""
    here = copy(start, bench.fresh() / "here")
    killed = bench.call(*words, folder=here, fault=dict(action="exit", n=n))
    bench.judge(killed, *torn(here), codes=EXITED)
    bench.judge(bench.call(*words, folder=here), *torn(here), codes=ANY)
    shutil.rmtree(here.parent)


def compare(bench, start, maps):
    """Kill `compare`: given again, it goes on and writes its page."""
    words = ["semgan.py", "compare", *TINY, "--dataset", maps, "--steps", "2", "--out", "both"]
    seconds = bench.call(*words, folder=copy(start, bench.fresh() / "here")).seconds
    for _ in bench.some(range(20), 0.05):
        here = copy(start, bench.fresh() / "here")
        moment = bench.rng.uniform(0, seconds)
        killed = bench.call(*words, folder=here, signals=[[moment, "SIGKILL"]])
        bench.judge(killed, *torn(here), codes=KILLED)
        again = bench.call(*words, folder=here)
        missing = [] if (here / "both" / "compare.md").exists() else ["no page"]
        bench.judge(again, *torn(here, temporary=True), *missing, codes=CLEAN)
        shutil.rmtree(here.parent)
