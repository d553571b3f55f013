"""The files in a folder, a .zip or a .tar. Nothing is ever unpacked to disk."""
import fnmatch
import functools
import lzma
import os
import tarfile
import zipfile
import zlib
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any, NamedTuple

from formats.files import InputError, digest, require_file

LARGEST_FILE = 256 << 20  # bytes of one file of a map; more must be a decompression bomb
HIDDEN = (".", "__MACOSX")  # what the names of hidden files and folders start with
ZIP_END = 22  # bytes of the record at the end of a .zip
UNREADABLE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError, zlib.error,
              lzma.LZMAError)


class Member(NamedTuple):
    """One file in a folder or an archive."""
    name: str         # inside the folder or archive
    full: str         # with the path of the folder or archive, for messages
    pattern: str      # the first pattern that the name matches
    read: Any         # () -> bytes
    fingerprint: Any  # () -> a value that changes with the content


@contextmanager
def opened(path, patterns):
    """A context with the members of a folder, .zip or .tar(.gz) whose names match a pattern.

    An archive's members come in its own order, a folder's sorted by name. Raises InputError.
    """
    try:
        if path.is_dir():
            yield _members_of_folder(path, patterns)
            return
        require_file(path, 1 << 62)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield _members_of_zip(path, archive, patterns)
        elif _begins(path) and tarfile.is_tarfile(path):
            with tarfile.open(path, tarinfo=_TarHeader) as archive:
                yield _members_of_tar(path, archive, patterns)
        else:
            raise InputError(f"{path}: neither a folder nor a readable .zip or .tar")
    except UNREADABLE as error:
        if isinstance(error, FileNotFoundError) and error.filename == str(path):
            raise InputError(f"{path}: no such folder or archive") from None
        raise _unreadable(path, error) from None


def _begins(path):
    """Whether a file does not begin with zeros. lzma would read them to their end, for gigabytes.
    """
    with open(path, "rb") as file:
        return any(file.read(tarfile.BLOCKSIZE))


def content(member):
    """The bytes of a member. Raises InputError."""
    try:
        return member.read()
    except UNREADABLE as error:
        raise _unreadable(member.full, error) from None


def _unreadable(path, error):
    """The InputError for a path, or for the file in it that the error names."""
    named = getattr(error, "filename", None) or path
    reason = getattr(error, "strerror", None) or str(error)  # which may quote half of the file
    return InputError(f"{named}: cannot be read ({reason:.200})")


def _members_of_folder(path, patterns):
    members = []
    for folder, folders, names in os.walk(path, onerror=_reraise):
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]  # not entered
        for file in (Path(folder, name) for name in names):
            name = file.relative_to(path).as_posix()
            if pattern := _match(path, name, patterns):
                require_file(file, LARGEST_FILE)
                read, print_of = file.read_bytes, functools.partial(digest, file)
                members.append(Member(name, f"{path}/{name}", pattern, read, print_of))
    return sorted(members)


def _reraise(error):
    """For os.walk, which would otherwise leave out a folder that cannot be read."""
    raise error


def _members_of_zip(path, archive, patterns):
    _check_directory(path, archive)
    members = []
    for info in archive.infolist():
        name = info.filename
        link = info.external_attr >> 28 == 0o12
        pattern = not info.is_dir() and _safe_match(path, name, patterns, info.file_size, link)
        if not pattern:
            continue
        read = functools.partial(archive.read, info)
        crc = [info.CRC, info.file_size]
        members.append(Member(name, f"{path}:{name}", pattern, read, lambda crc=crc: crc))
    return _unique(path, members)


def _check_directory(path, archive):
    """Raises BadZipFile if a bit of a .zip's directory is wrong, so that files would be missed.

    At the end of the .zip stands how many files it has, and before each file its name again.
    """
    infos = archive.infolist()
    with open(path, "rb") as file:
        file.seek(-ZIP_END - len(archive.comment), os.SEEK_END)
        count = int.from_bytes(file.read(12)[10:], "little")
    if count not in (len(infos) % 65536, 65535):  # 65535: or more
        raise zipfile.BadZipFile(f"its directory lists {len(infos)} files; expected {count}")
    for info in infos:
        with suppress(RuntimeError):  # encrypted, or compressed in a way that zipfile cannot read
            archive.open(info).close()


def _members_of_tar(path, archive, patterns):
    lock, whole = Lock(), functools.cache(lambda: digest(path))

    def fingerprint():  # a .tar has no checksums of its members; several threads ask at once
        with lock:
            return whole()
    members = []
    for info in archive:
        link = not info.isreg()
        pattern = not info.isdir() and _safe_match(path, info.name, patterns, info.size, link)
        if not pattern:
            continue
        read = lambda info=info: archive.extractfile(info).read()
        members.append(Member(info.name, f"{path}:{info.name}", pattern, read, fingerprint))
    return _unique(path, members)


class _TarHeader(tarfile.TarInfo):
    """The header of a member. tarfile takes a damaged one, or none, as the end of the archive."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError:
            if buf == bytes(tarfile.BLOCKSIZE):  # the empty block at the end
                raise
            raise tarfile.ReadError("cut off, or a damaged header") from None


def _match(path, name, patterns):
    """The first pattern that a name matches, None if there is none or the name is hidden."""
    parts = PurePosixPath(name).parts
    if any(part.startswith(HIDDEN) for part in parts):
        return None
    # With the folder's own name, a pattern such as train/*.png is also found in a folder train.
    full = f"/{path.name}/{name}".lower()
    return next((pattern for pattern in patterns
                 if fnmatch.fnmatchcase(full, f"*/{pattern}".lower())), None)


def _safe_match(path, name, patterns, size, link):
    """_match for a member of an archive. Raises InputError if it could do harm."""
    pure = PurePosixPath(name.replace("\\", "/"))
    problem = None
    if link:
        problem = "is a link"
    elif pure.is_absolute() or ".." in pure.parts or ":" in name[:2]:
        problem = "points outside the archive"
    if problem:
        raise InputError(f"{path}: the member {name!r} {problem}; refused")
    pattern = _match(path, name, patterns)
    if pattern and size > LARGEST_FILE:
        raise InputError(f"{path}: the member {name!r} has {size >> 20} MB; "
                         f"expected {LARGEST_FILE >> 20} at most")
    return pattern


def _unique(path, members):
    for name, count in Counter(member.name for member in members).items():
        if count > 1:
            raise InputError(f"{path}: the member {name!r} occurs twice")
    return members
