"""Tries to break the program: kills, signals, bad flags, bad files, limits, two runs at once.

    python tests/faults.py [--group NAME ...] [--seed N] [--quick] [--source FOLDER]

Run by hand, on Linux. Every case is a process of its own. A group prints how many cases it tried,
how many were clean, and of each failure the command, what was wrong, and the output. The exit
code is 1 if there was a failure. As root it also tries disks that are full or read-only.
"""
import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from fault_groups.bench import Bench

ROOT = Path(__file__).resolve().parents[1]
GROUPS = "kills", "signals", "flags", "files", "checkpoints", "limits", "pairs"
MOUNTS = {"full": "size=256k", "readonly": "ro"}  # folders in memory, which only root can make


@contextmanager
def place():
    """A new folder, with the folders of MOUNTS in it where they can be made."""
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    mounted = []
    try:
        for name, options in MOUNTS.items():
            (root / name).mkdir()
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", root / name]
            if os.geteuid() == 0 and not subprocess.run(command, capture_output=True).returncode:
                mounted.append(root / name)
            elif name == "readonly" and os.geteuid():
                (root / name).chmod(0o555)
            else:
                (root / name).rmdir()
        yield root
    finally:
        for folder in mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)
        shutil.rmtree(root, ignore_errors=True)


def try_groups(names, source, seed=0, quick=False, out=sys.stdout):
    """Run some groups. Returns {group: (tried, failures)}; prints the failures to `out`."""
    found = {}
    for name in names:
        began = time.monotonic()
        with place() as root:
            bench = Bench(root, Path(source).resolve(), seed, quick)
            try:
                importlib.import_module(f"fault_groups.{name}").run(bench)
            finally:
                bench.program.close()
        for result, problems in bench.failures:
            print(f"\n{name}: {'; '.join(problems)}\n$ {result.command}\n"
                  f"exit code {result.code}, {result.seconds:.1f} s, {result.megabytes} MB\n"
                  f"{result.out[-300:]}{result.err[-1500:]}".rstrip(), file=out)
        failed = len(bench.failures)
        print(f"{name}: tried {bench.tried}, clean {bench.tried - failed}, failed {failed} "
              f"({time.monotonic() - began:.0f} s)", file=out, flush=True)
        found[name] = bench.tried, bench.failures
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--group", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few cases of each group")
    parser.add_argument("--source", default=ROOT, help="the folder of the program to test")
    args = parser.parse_args()
    sys.path.insert(0, str(args.source))  # the parsers of flags are those of the program
    found = try_groups(args.group, args.source, args.seed, args.quick)
    tried = sum(count for count, _ in found.values())
    failed = sum(len(failures) for _, failures in found.values())
    print(f"\nall: tried {tried}, clean {tried - failed}, failed {failed}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
