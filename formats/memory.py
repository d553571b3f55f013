"""The memory that this machine has, asked before anything large is allocated."""
import os
from contextlib import suppress
from pathlib import Path

RESERVED = 300_000_000  # bytes of address space that threads reserve without using them
LEAST = 100_000_000  # bytes in which any command works; with fewer, libraries end the program


class TooLarge(MemoryError):
    """More than this machine has. The text says how much, what for, and what to lower."""


def require_to_start():
    """Raises TooLarge if hardly any memory is available."""
    free = available()
    if free is not None and free < LEAST:
        raise TooLarge(f"not enough memory: {free // 1_000_000} MB are available; "
                       f"expected {LEAST // 1_000_000} or more")


def require(what, parts):
    """Raises TooLarge if the sum of all parts is more than the memory that is available.

    parts: {the flags that a part grows with: its bytes}.
    """
    free, total = available(), sum(parts.values())
    if free is not None and total > free:
        flags = max(parts, key=parts.get)
        raise TooLarge(f"not enough memory: by estimate {what} takes {shown(total)}, but "
                       f"{shown(free)} are available; {shown(parts[flags])} of it depend on "
                       f"{flags}: expected lower values")


def shown(size):
    """1.5e9 -> '1.5 GB'."""
    return f"{size / 1e9:,.1f} GB" if size < 1e15 else "over a million GB"


def available():
    """Bytes that this process can still get, swapping included; None where nothing tells."""
    with suppress(OSError, ValueError, KeyError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = {name: int(rest.split()[0]) for name, rest in
                     (line.split(":", 1) for line in lines)}
        free = 1024 * (kilobytes["MemAvailable"] + kilobytes["SwapFree"])
        return min([free, *_group_limits(), *_process_limit()])
    with suppress(AttributeError, OSError, ValueError):  # macOS: all that is built in
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_limits():
    """The limits of Linux's control groups, as containers have them, in bytes."""
    root = Path("/sys/fs/cgroup")
    files = [root / "memory/memory.limit_in_bytes"]  # version 1
    with suppress(OSError, IndexError):
        own = Path("/proc/self/cgroup").read_text().split("0::", 1)[1].split("\n")[0]
        folder = root / own.strip("/")
        files += [path / "memory.max" for path in (folder, *folder.parents)]
    for file in files:
        with suppress(OSError, ValueError):  # no such file; or "max"
            yield int(file.read_text())


def _process_limit():
    """What is left of the address space of this process (`ulimit -v`), in bytes, if it is limited.
    """
    import resource  # not on Windows
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        yield limit - pages * resource.getpagesize() - RESERVED
