"""Full disks, little memory, few open files, odd environments: one line, nothing torn."""
import os
import shutil

from fault_groups.bench import ANY, CLEAN, TINY, copy, differences, save_maps, torn

# File sizes, in bytes: stderr is a file too. Address space, in MB beside what the warm interpreter
# has: with hardly any, Python itself waits for ever for threads that could not start. Open files.
SIZES = [1000, 2000, 3000, 6000, 10_000, 20_000, 50_000, 100_000]
MEMORIES = [16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048]
FILES = [4, 6, 8, 10, 12, 16, 24, 32]
ENVIRONMENTS = [dict(HOME=""), dict(HOME="/nowhere"), dict(SEMGAN_CACHE="/proc/nowhere"),
                dict(SEMGAN_CACHE="{folder}/file"), dict(SEMGAN_CACHE=""), dict(LC_ALL="C"),
                dict(PYTHONIOENCODING="ascii"), dict(COLUMNS="1"), dict(COLUMNS="x"),
                dict(TERM="dumb"), dict(TMPDIR="/nowhere"), dict(OMP_NUM_THREADS="0")]
COMMANDS = [
    ["semgan.py", "sample", "run", "--count", "3"],
    ["semgan.py", "interpolate", "run", "--keys", "2", "--frames", "2"],
    ["semgan.py", "evaluate", "run"],
    ["semgan.py", "export", "run", "generator.npz"],
    ["data.py", "inspect", "--dataset", "MAPS", "--side", "8"],
    ["metrics.py", "MAPS", "MAPS", "--out", "table.csv"],
]


def run(bench):
    maps = save_maps(bench.fresh() / "maps")
    reference = bench.fresh()
    train = ["semgan.py", *TINY, "--dataset", maps, "--steps", "4", "--save-every", "2",
             "--out", "run"]
    bench.judge(bench.call(*train, folder=reference), codes=CLEAN)
    commands = [[maps if word == "MAPS" else word for word in words] for words in COMMANDS]
    for words in [train, *commands]:
        for kind, values, scale in (("RLIMIT_FSIZE", SIZES, 1), ("RLIMIT_NOFILE", FILES, 1),
                                    ("RLIMIT_AS", MEMORIES, 1 << 20)):
            for value in bench.some(values, 0.1):
                beside = bench.program.address_space() if kind == "RLIMIT_AS" else 0
                limited(bench, reference, words, train, {kind: beside + scale * value})
        for environment in bench.some(ENVIRONMENTS, 0.1):
            here = place(bench, reference, words, train)
            (here / "file").touch()
            changed = {name: value.format(folder=here) for name, value in environment.items()}
            bench.judge(bench.call(*words, folder=here, environment=changed), *torn(here))
    full_disk(bench, reference, [train, *commands])


def place(bench, reference, words, train):
    """A folder for a command: empty for a training run, else with a finished run."""
    return bench.fresh() if words is train else copy(reference, bench.fresh() / "here")


def limited(bench, reference, words, train, limits):
    """A command with a limit fails in one line, and works again without the limit."""
    here = place(bench, reference, words, train)
    result = bench.call(*words, folder=here, limits=limits)
    bench.judge(result, *torn(here, temporary=True), codes=ANY)
    again = words
    if words is train and (here / "run" / "checkpoint.npz").exists():
        again = ["semgan.py", "--resume", "--steps", "4", "--out", "run"]
    second = bench.call(*again, folder=here)
    different = differences(here / "run", reference / "run") if words is train else ()
    bench.judge(second, *torn(here, temporary=True), *different, codes=ANY)


def full_disk(bench, reference, commands):
    """The same on a disk of 256 KB that is full but for a few bytes, as root."""
    disk = bench.root / "full"
    if not disk.is_mount():
        return
    for words in commands:
        for free in bench.some([0, 4, 20, 60, 120], 0.2):  # KB
            run = copy(reference / "run", disk / "run") if "--steps" not in words else None
            filler = disk / "filler"
            with open(filler, "wb", buffering=0) as file:
                left = space(disk)
                file.write(bytes(max(0, left - 1024 * free)))
            result = bench.call(*words, folder=disk)
            bench.judge(result, *torn(disk, temporary=True), codes=ANY)
            empty(disk)
            assert run is None or not run.exists()


def space(folder):
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def empty(folder):
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
