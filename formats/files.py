"""Files: the error for bad input, the cache folder, atomic writing, checksums, downloads."""
import hashlib
import http.client
import os
import stat
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

CHUNK = 1 << 16  # bytes to fetch or to hash at a time


class InputError(ValueError):
    """Bad input, described in one line: what, where, and what was expected."""

    def __init__(self, text):
        super().__init__(printable(text))


def printable(text):
    """The text without line breaks and terminal codes, which file names may contain."""
    return "".join(c if c.isprintable() else "?" for c in text)


def note(text):
    """Tell the user something that does not stop the program."""
    print(printable(f"note: {text}"), file=sys.stderr)


def cache_folder():
    """$SEMGAN_CACHE, or else `semgan` in the user's cache folder."""
    user = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME")
    user = user or os.path.expanduser("~/.cache")
    return Path(os.environ.get("SEMGAN_CACHE") or Path(user) / "semgan")


@contextmanager
def written(path, mode="wb", **options):
    """A context with an open file that becomes `path` once it is complete and on the disk.

    Until then, and after any error, `path` stays as it was. `mode` and `options` are those of
    `open`. Raises OSError.
    """
    path = Path(path)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def require_file(path, most_bytes):
    """Raises InputError unless this is a regular file of at most so many bytes, OSError if missing.

    Reading a pipe or a device such as /dev/zero might never end.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, a socket or a device"
        raise InputError(f"{path}: cannot be read ({kind}; expected a file)")
    if found.st_size > most_bytes:
        raise InputError(f"{path}: {found.st_size:,} bytes; expected {most_bytes:,} at most")


# ------------------------------------------------------------------------- checksums and downloads
def digest(path, algorithm="blake2b"):
    """The hash of a file's content, in hexadecimal digits."""
    state = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            state.update(chunk)
    return state.hexdigest()


def verify(file, size=None, sha256=None, name=None, hint=""):
    """A file's size in bytes and its SHA-256. Where expected values are given, they must agree.

    name: what messages call the file. hint: what messages end with. Raises InputError, OSError.
    """
    with open(file, "rb") as opened:  # fails for a folder, too
        found = os.fstat(opened.fileno()).st_size
    if size not in (None, found):
        raise InputError(f"{name or file}: {found:,} bytes; expected {size:,}{hint}")
    checksum = digest(file, "sha256")
    if sha256 not in (None, checksum):
        raise InputError(f"{name or file}: the SHA-256 is {checksum}; expected {sha256}{hint}")
    return found, checksum


def download(url, path, size=None, sha256=None, check=None):
    """Fetch url to path with a progress bar. A file that is there already is only checked.

    size: in bytes. check(file, name) can raise InputError for a file of the wrong kind. The file
    is checked before it gets its name. Returns its size and SHA-256. Raises InputError.
    """
    path = Path(path)

    def checked(file, name):
        found = verify(file, size, sha256, name)
        if check:
            check(file, name)
        return found

    try:
        if path.exists():
            return checked(path, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with written(path) as file:
            _fetch(url, file, path.name, size)
            return checked(file.name, url)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(f"{url}: cannot be fetched to {path} ({error}); "
                         "you can also put the file there yourself") from None


def _fetch(url, file, title, size):
    """Copy the content of url to an open file, which should then have `size` bytes."""
    with urllib.request.urlopen(url, timeout=60) as response:
        announced = int(response.headers.get("Content-Length") or size or 0)
        with tqdm(total=announced, unit="B", unit_scale=True, desc=title, leave=False) as bar:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                if size and file.tell() > size:
                    raise InputError(f"{url}: more than the {size:,} bytes that were expected")
    if file.tell() < announced:
        raise InputError(f"{url}: broke off after {file.tell():,} of {announced:,} bytes")
    file.flush()
