"""Every flag of every command with bad values. The flags are read from the program's parsers."""
import argparse
import os
import shutil
import socket
import stat
from contextlib import suppress

from app import command_line, data_command, inception_command, metrics_command
from fault_groups.bench import ANY, CLEAN, REFUSED, TINY, changed, copy, listing, save_maps

MEMORY = 6 << 30  # bytes of address space
LONG = "x" * 300  # longer than a file name can be
VALUES = ["", " ", "-1", "0", "1", "1.5", "1e39", "-1e-50", "nan", "inf", "200000", "2147483647",
          "9223372036854775808", "9" * 30, "9" * 400, "-" + "9" * 400, "ä☃", "\udcff\udc80",
          "\x1b[31mred", "a\nb", "--", "no/such/file", LONG, "{folder}", "{loop}", "{device}",
          "{fifo}", "{socket}", "{readonly}", "{file}/inside", "{empty}", "{binary}", "~", "%s%n",
          "*", "[", "../.."]
# Commands that succeed, to which one bad flag is added.
TRAIN = [*TINY, "--maps", "1", "--steps", "2", "--device", "numpy"]
OWN = [*TINY, "--dataset", "{maps}", "--steps", "2", "--device", "numpy"]
COMMANDS = {
    "semgan.py": [(OWN, 0.5), (TRAIN, 0.1), (["--resume", "--out", "{run}"], 0.1)],
    "semgan.py compare": [(OWN, 0.1)],
    "semgan.py sample": [(["{run}", "--count", "4"], 1), (["--trained", "--count", "4"], 0.3)],
    "semgan.py interpolate": [(["{run}", "--keys", "2", "--frames", "2"], 1)],
    "semgan.py evaluate": [(["{run}"], 1)],
    "semgan.py export": [(["{run}", "new.npz"], 1)],
    "semgan.py doctor": [([], 0.3)],
    "data.py inspect": [(["--dataset", "{maps}", "--side", "8"], 1)],
    "data.py facades": [(["--download"], 0.5)],
    "inception.py": [([], 1)],
    "metrics.py": [(["{maps}", "{maps}"], 1)],
}


class Found(Exception):
    """Carries the parser of a command."""


def parser_of(main, words):
    """The parser that a program uses, caught when it begins to parse."""
    def catch(parser, *_, **__):
        raise Found(parser)
    original = argparse.ArgumentParser.parse_args
    argparse.ArgumentParser.parse_args = catch
    try:
        main(words)
    except Found as found:
        parser = found.args[0]
    finally:
        argparse.ArgumentParser.parse_args = original
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices[words[0]]
    return parser


def make_places(bench, folder):
    """{name: path} of things in a folder that no flag expects, and of some that work."""
    places = {name: folder / name for name in
              ("folder", "loop", "device", "fifo", "socket", "file", "empty", "binary")}
    places["folder"].mkdir()
    places["loop"].symlink_to("loop")
    if os.geteuid() == 0:  # root could replace /dev/zero itself
        os.mknod(places["device"], stat.S_IFCHR | 0o600, os.makedev(1, 5))
    else:
        places["device"].symlink_to("/dev/zero")
    os.mkfifo(places["fifo"])
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(places["socket"]))
    places["file"].write_text("text\n")
    places["empty"].touch()
    places["binary"].write_bytes(bytes(range(256)) * 4)
    places["readonly"] = bench.root / "readonly"
    return places


def must_refuse(action, value, expanded):
    """Whether no reading of a flag could accept this value."""
    if action.choices is not None:
        return expanded not in action.choices
    if action.nargs == 0:  # a flag without a value
        return True
    if action.type is not None:
        try:
            return int(value) < 0
        except ValueError:
            with suppress(ValueError):
                return not -1e-40 <= float(value) < float("inf")  # float32 has nothing below
            return True
    return value == ""


def cases(parser, flags, places):
    """(words, whether they must be refused, whether they may run long) for each flag and value.

    flags: those of a command that succeeds, its positional arguments first.
    """
    positional = [action for action in parser._actions if not action.option_strings]
    for action in parser._actions:
        for value in VALUES:
            expanded = value.format(**places) if value.startswith("{") else value
            refused = must_refuse(action, value, expanded)
            if action in positional:
                at = positional.index(action)
                yield [*flags[:at], expanded, *flags[at + 1:]], refused, False
            elif action.dest != "help":
                words = [*flags, f"{action.option_strings[-1]}={expanded}"]
                yield words, refused, action.type is not None and not refused
    for value in VALUES:
        yield [*flags, "--no-such", value], True, False
        yield [*flags, f"--no-such-{value}"], True, False
        yield [*flags, *["more"] * 3, value], True, False


def run(bench):
    main = {"semgan.py": command_line.main, "data.py": data_command.main,
            "inception.py": inception_command.main, "metrics.py": metrics_command.main}
    folder = bench.fresh()
    places = make_places(bench, folder)
    places["maps"] = save_maps(folder / "maps")
    bench.judge(bench.call("semgan.py", *TINY, "--dataset", places["maps"], "--steps", 2,
                           "--out", folder / "run", folder=folder), codes=CLEAN)
    for command, variants in COMMANDS.items():
        script, *name = command.split()
        parser = parser_of(main[script], name)
        for flags, share in variants:
            places["run"] = "run"
            flags = [word.format(**places) for word in flags]
            found = list(cases(parser, flags, places))
            for words, refused, long in bench.part(found, share):
                try_one(bench, folder, [script, *name, *words], refused, long)


def try_one(bench, folder, words, refused, long):
    """Run one bad command in a folder that holds a run, and judge it."""
    here = bench.fresh()
    copy(folder / "run", here / "run")
    before = listing(here)
    signals = dict(signals=[[4, "SIGINT"]]) if long else {}
    result = bench.call(*words, folder=here, limit=20, limits={"RLIMIT_AS": MEMORY}, **signals)
    left = changed(here, before) if result.code == 2 else ()  # 1: it had begun
    codes = REFUSED if refused else (*ANY, 130) if long else ANY
    bench.judge(result, *left, codes=codes)
    shutil.rmtree(here, ignore_errors=True)
