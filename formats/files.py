"""Files: the error for bad input, commands to paste, locks, atomic writing, downloads."""
import errno
import hashlib
import http.client
import io
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]  # the folder of the program
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


def command(script, *words):
    """The command line that starts a script of this program from the present folder, to paste.

    script: a file, or "-m MODULE". The line names the Python that runs now, and is quoted for the
    shell. A Path among the words is never taken for a flag.
    """
    python = sys.executable or "python"
    if shutil.which(Path(python).name) == python:
        python = Path(python).name
    words = [os.path.join(".", word) if isinstance(word, Path) and str(word)[0] == "-"
             else str(word) for word in words]
    script = script.split() if script.startswith("-m ") else [_from_here(ROOT / script)]
    line = [_from_here(python), *script, *words]
    return printable(subprocess.list2cmdline(line) if os.name == "nt" else shlex.join(line))


def _from_here(path):
    """A path inside the present folder without that folder's name; any other as it is."""
    with suppress(ValueError, OSError):  # elsewhere; or the present folder is gone
        return os.path.join(*Path(path).relative_to(Path.cwd()).parts)
    return str(path)


def cache_folder():
    """$SEMGAN_CACHE, or else `semgan` in the user's cache folder."""
    user = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME")
    user = user or os.path.expanduser("~/.cache")
    return Path(os.environ.get("SEMGAN_CACHE") or Path(user) / "semgan")


@contextmanager
def written(path, mode="wb", sync=True, **options):
    """A context with an open file that becomes `path` once it is complete and on the disk.

    Until then, and after any error, `path` stays as it was. sync: whether to wait for the disk,
    which also survives a power cut. `mode` and `options` are those of `open`. Raises OSError.
    """
    path = Path(path)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "a folder or a device; expected a file", str(path))
    try:
        with open(aside, mode, **options) as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:  # a full disk does not name the file
        if error.filename in (None, str(aside)):
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            aside.unlink()


def save_image(image, path, sync=True, **options):
    """Write a Pillow image whole, in the format that the file's name ends with. Raises OSError."""
    content = io.BytesIO()
    image.save(content, Path(path).suffix[1:], **options)
    with written(path, sync=sync) as file:
        file.write(content.getvalue())


def remove_left_over(folder, age=0):
    """Remove what `written` left in a folder when its process was killed. Raises OSError.

    age: seconds since the last byte. In a folder that several processes write to at once, a file
    that has not grown for an hour is no longer written.
    """
    for path in folder.glob("*.tmp"):
        if re.fullmatch(r".+\.\d+\.tmp", path.name):
            with suppress(FileNotFoundError):  # another process has just removed it
                if time.time() - path.stat().st_mtime >= age:
                    path.unlink()


# ------------------------------------------------------------------------------------------- locks
@contextmanager
def locked(folder):
    """A context in which a folder, made if it is not there, belongs to this process alone.

    The operating system holds the lock, on the file `.lock`, and ends it with the process, even if
    that is killed. Folders that were made and are still empty at the end are removed. Raises
    InputError, which says who holds the lock.
    """
    path = folder / ".lock"
    with made(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = _locked_file(path)
            remove_left_over(folder)
        except OSError as error:
            raise InputError(f"{folder}: cannot write there ({error.strerror or error})") from None
        try:
            yield
        except OSError as error:  # a full disk does not name the file
            error.filename = error.filename or str(folder)
            raise
        finally:
            with suppress(OSError):  # while it is locked: later it can be another's
                path.unlink()
            file.close()


@contextmanager
def made(folder):
    """A context in which a folder may be made. What is new and still empty at its end is removed.
    """
    new = []
    with suppress(OSError):  # a name that is too long ends the second line, not the first
        new = [path for path in folder.parents if not path.exists()]
        new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in new:
            with suppress(OSError):
                path.rmdir()


def _locked_file(path):
    """The file, open and locked. Raises InputError if another process has locked it, OSError."""
    while True:
        file = open(path, "a+b")
        try:
            _lock(file)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                file.seek(0)
                holder = file.read(200).decode(errors="replace") or "another process"
                file.close()
                raise InputError(f"{path.parent} is in use by {holder}; wait until it ends, or "
                                 "choose another folder with --out") from None
            note(f"{path.parent}: this file system has no locks ({error.strerror}); "
                 "make sure that no other run writes there")
            break
        with suppress(FileNotFoundError):  # else the last holder has just removed it
            if os.name == "nt" or os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        file.close()
    file.truncate(0)
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    file.write(f"process {os.getpid()} on {platform.node()} since {now}".encode())
    file.flush()
    return file


def _lock(file):
    """Lock an open file for this process, without waiting. Raises OSError."""
    if os.name == "nt":
        import msvcrt
        file.seek(1 << 30)  # past what the file says, so that others can read that
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def require_file(path, most_bytes):
    """Raises InputError unless this is a regular file of at most so many bytes, OSError if missing.

    Reading a pipe or a device such as /dev/zero might never end.
    """
    if os.path.islink(path) and not os.path.exists(path):
        raise InputError(f"{path}: a link that leads to no file")
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
        with made(path.parent):
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
        with tqdm(total=announced, unit="B", unit_scale=True, desc=title, leave=False,
                  disable=None) as bar:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                if size and file.tell() > size:
                    raise InputError(f"{url}: more than the {size:,} bytes that were expected")
    if file.tell() < announced:
        raise InputError(f"{url}: broke off after {file.tell():,} of {announced:,} bytes")
    file.flush()
