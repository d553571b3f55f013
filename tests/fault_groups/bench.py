"""What all groups share: the program under test, folders to test in, and what counts as clean."""
import csv
import itertools
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SERVER = Path(__file__).with_name("server.py")
NETWORKS = ("--batch-size 4 --latent 5 --kernel-size 3 --generator-filters 6 5 4 "
            "--discriminator-filters 5 6 --preset small").split()
TINY = ["--side", "8", *NETWORKS]
REFUSED, CLEAN, ANY = (1, 2), (0,), (0, 1, 2)  # exit codes


class Result(NamedTuple):
    """How a command ended."""
    command: str
    code: int
    out: str
    err: str
    hung: bool
    seconds: float
    megabytes: int
    reached: bool  # whether the requested fault happened


class Program:
    """The program in a folder of source code, warm: see server.py."""
    def __init__(self, source, environment):
        ours, requests = os.pipe()
        answers, theirs = os.pipe()
        command = [sys.executable, str(SERVER), str(source), str(ours), str(theirs)]
        self.process = subprocess.Popen(command, pass_fds=[ours, theirs], env=environment,
                                        start_new_session=True)
        os.close(ours)
        os.close(theirs)
        self.requests, self.answers = open(requests, "w"), open(answers)

    def ask(self, **request):
        self.requests.write(json.dumps(request) + "\n")
        self.requests.flush()
        answer = self.answers.readline()
        if not answer:
            raise RuntimeError("the warm interpreter has ended")
        return json.loads(answer)

    def address_space(self):
        """The bytes of memory that the warm interpreter has asked for."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[0])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self):
        self.requests.close()
        self.process.wait()


class Bench:
    """A place to test in. Folders are made below `root`; every case is counted."""
    def __init__(self, root, source, seed, quick):
        self.root, self.source, self.quick = root, source, quick
        self.rng = random.Random(seed)
        self.numbers = itertools.count()
        self.tried, self.failures = 0, []
        nowhere = "http://127.0.0.1:9"  # nothing is ever downloaded
        self.environment = os.environ | dict(
            SEMGAN_CACHE=str(root / "cache"), HOME=str(root / "home"), COLUMNS="80",
            CUDA_VISIBLE_DEVICES="-1", OPENBLAS_NUM_THREADS="1", http_proxy=nowhere,
            https_proxy=nowhere, MPLCONFIGDIR=str(root / "matplotlib"))
        self.program = Program(source, self.environment)

    def fresh(self):
        """A new empty folder."""
        folder = self.root / f"{next(self.numbers):05d}"
        folder.mkdir()
        return folder

    def some(self, cases, share):
        """All cases, or with --quick this share of them, at least one, chosen by the seed."""
        cases = list(cases)
        return self.rng.sample(cases, max(1, int(len(cases) * share))) if self.quick else cases

    def part(self, cases, share):
        """This share of the cases, chosen by the seed; with --quick a hundredth of it."""
        cases = list(cases)
        share = share / 100 if self.quick else share
        return self.rng.sample(cases, max(1, int(len(cases) * share)))

    def call(self, *words, folder, files=(), environment=(), limit=30, program=None, **request):
        """Run `words` = script, arguments... in a folder. The request is that of server.py."""
        words = [str(word) for word in words]
        script = words[0] if words[0] == "-c" else str(self.source / words[0])
        number = next(self.numbers)
        outputs = [self.root / f"{number:05d}.out", self.root / f"{number:05d}.err"]
        files = files or ["/dev/null", *map(str, outputs)]
        answer = (program or self.program).ask(
            words=[script, *words[1:]], folder=str(folder), files=files, limit=limit,
            environment=dict(environment), **request)
        out, err = (path.read_text(errors="replace") if path.exists() else "" for path in outputs)
        for path in outputs:
            path.unlink(missing_ok=True)
        how = [f"{key}: {value}" for key, value in request.items()]
        how += [f"{key}={value}" for key, value in dict(environment).items()]
        if files[1] != str(outputs[0]):
            how.append(f"files: {files}")
        command = f"cd {folder}; {shlex.join(['python', *words])}  {'; '.join(how)}".rstrip()
        return Result(command, out=out, err=err, **answer)

    def ended(self, command, code, out, err):
        """The Result of a process that a group started by itself."""
        return Result(command, code, out, err, hung=False, seconds=0, megabytes=0, reached=False)

    def judge(self, result, *problems, codes=ANY):
        """Count a case. It is clean if it ended with one of the codes and nothing is wrong."""
        self.tried += 1
        found = [*complaints(result, codes), *problems]
        if found:
            self.failures.append((result, found))
        return not found


# ----------------------------------------------------------------------------- what counts as clean
def complaints(result, codes):
    """What is wrong with the way in which a command ended."""
    code, lines = result.code, message_lines(result.err)
    if result.hung:
        yield "hung"
    elif code not in codes:
        yield f"exit code {code}, expected {' or '.join(map(str, codes))}"
    for word in "Traceback", "Warning", "Exception ignored", "Fatal", "OpenBLAS":
        if word in result.err:
            yield f"stderr has {word}"
    if re.search(r"[^\n\t -~\u00a1-\U0010ffff]", result.out + result.err):
        yield "control codes in the output"
    if code in REFUSED and not (lines and re.match(r"[\w. ]+: .*\S", lines[-1])):
        yield "no message of the form `program: message`"
    if len(lines) > 3 or any(len(line) > 1200 for line in lines):
        yield f"{len(lines)} lines on stderr"
    if code == 0 and not all(line.startswith("note: ") for line in lines):
        yield "words on stderr after a success"


def message_lines(err):
    """The lines of stderr without argparse's usage."""
    return re.sub(r"(?m)^usage: .*\n(?:  .*\n)*", "", err).splitlines()


def torn(folder, temporary=False):
    """The files that are not whole. temporary: names of temporary files are wrong too."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if ".tmp" in path.name:
            if temporary:
                yield f"{path.relative_to(folder)} was left behind"
            continue
        try:
            OPENERS.get(path.suffix, lambda path: None)(path)
        except Exception as error:
            yield f"{path.relative_to(folder)} is torn: {type(error).__name__}: {error}"


def _open_picture(path):
    with Image.open(path) as image:
        for frame in range(getattr(image, "n_frames", 1)):
            image.seek(frame)
            image.load()


def _open_table(path):
    content = path.read_text()
    rows = list(csv.reader(content.splitlines()))
    if not content.endswith("\n") or len({len(row) for row in rows}) > 1:
        raise ValueError("a row is not complete")


def _open_arrays(path):
    with zipfile.ZipFile(path) as archive:
        if archive.testzip():
            raise ValueError("a damaged array")


def _open_text(path):
    if not path.read_text().endswith("\n"):
        raise ValueError("a line is not complete")


OPENERS = {".png": _open_picture, ".gif": _open_picture, ".csv": _open_table,
           ".npz": _open_arrays, ".json": lambda path: json.loads(path.read_text()),
           ".txt": _open_text, ".md": _open_text}


def content(path):
    """What must be the same in two runs: the content of a file without times and versions."""
    data = path.read_bytes()
    if path.suffix == ".npz":
        with np.load(path) as file:
            return {name: file[name].tobytes() for name in file.files}
    if path.name == "log.csv":
        return [row[:-1] for row in csv.reader(data.decode().splitlines())]
    return data


def differences(folder, reference, only=()):
    """The files of a folder, or only these, that differ from those of a reference."""
    names, expected = ({path.relative_to(top) for path in top.rglob("*")
                        if path.is_file() and (not only or path.name in only)}
                       for top in (folder, reference))
    for name in sorted(names ^ expected):
        yield f"{name} is {'missing' if name in expected else 'new'}"
    for name in sorted(names & expected):
        if content(folder / name) != content(reference / name):
            yield f"{name} differs from that of an undisturbed run"


def listing(folder):
    """{name: size and checksum} of all that lies in a folder; no device is read."""
    found = {}
    for path in folder.rglob("*"):
        plain = path.is_file() and not path.is_symlink()
        size = path.stat().st_size if plain else None
        found[path.relative_to(folder)] = size and size < 1 << 24 and zlib.crc32(path.read_bytes())
    return found


def changed(folder, before):
    """What a refused command left in a folder, or took from it. before: its listing."""
    after = listing(folder)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name, "nothing") != after.get(name, "nothing"):
            yield f"{name} was changed by a refused command"


# ------------------------------------------------------------------------------------------ samples
def save_maps(folder, count=12, side=8, classes=3):
    """Random maps of these classes' ids, as grey PNGs."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        ids = rng.integers(0, classes, (side, side)).astype(np.uint8)
        Image.fromarray(ids).save(folder / f"map{i:02d}.png")
    return folder


def copy(source, target):
    (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    return target
