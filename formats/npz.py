"""Reading .npz files of any origin: what a file declares is compared before it takes memory."""
import zipfile
from contextlib import contextmanager
from math import prod

import numpy as np
from numpy.lib import format as npy

from formats.files import InputError

MOST_TEXT = 1 << 24   # bytes of an array that holds a text, four for each character
MOST_PACKED = 10      # times its own size that a file may declare: weights cannot be packed so well
LARGEST = np.finfo(np.float32).max


@contextmanager
def opened(path):
    """A context with the file as a zipfile.ZipFile. Raises InputError."""
    if not zipfile.is_zipfile(path):
        raise InputError("damaged, or not an .npz file")
    with zipfile.ZipFile(path) as file:
        size = sum(member.file_size for member in file.infolist())
        if size > MOST_PACKED * path.stat().st_size + (1 << 20):
            raise InputError(f"it declares {size:,} bytes in a file of {path.stat().st_size:,}")
        yield file


def _declared(file, name):
    """(shape, dtype) of an array from its first bytes, and whether all its numbers are there.

    Raises InputError and what NumPy raises.
    """
    member = file.getinfo(name + ".npy")
    with file.open(member) as content:
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        version = npy.read_magic(content)
        if version not in read:
            raise InputError(f"{name}: format {version} of an array")
        shape, _, dtype = read[version](content)
        size = content.tell() + prod(shape) * dtype.itemsize
    return shape, dtype, member.file_size == size


def _load(file, name):
    with file.open(name + ".npy") as content:
        return npy.read_array(content, allow_pickle=False)


def text(file, name):
    """The text in an array without dimensions. Raises InputError and what NumPy raises."""
    shape, dtype, whole = _declared(file, name)
    if shape != () or dtype.kind != "U" or dtype.itemsize > MOST_TEXT or not whole:
        raise InputError(f"{name}: expected a text, found {dtype} {shape}")
    return str(_load(file, name))


def arrays(file, shapes, others=()):
    """{name: array} of numbers. The file must hold arrays of exactly these shapes.

    shapes: {name: shape}. others: names that it may hold too. All names and shapes are compared
    before the first array is read. Raises InputError and what NumPy raises.
    """
    there = {member.filename.removesuffix(".npy") for member in file.infolist()}
    if unknown := there - shapes.keys() - set(others):
        raise InputError(f"it has an array {min(unknown)[:60]}, which no network of this kind has")
    for name, shape in shapes.items():
        found = "nothing"
        if name in there:
            declared, dtype, whole = _declared(file, name)
            if declared == shape and dtype.kind == "f" and dtype.itemsize <= 8 and whole:
                continue
            found = f"{dtype} {declared}{', cut off' * (not whole)}"
        raise InputError(f"damaged, or of another model ({name}: expected {shape}, found {found})")
    loaded = {name: _load(file, name) for name in shapes}
    for name, a in loaded.items():
        if not (-LARGEST <= a.min() and a.max() <= LARGEST):  # false for NaN, too
            raise InputError(f"{name} holds NaN or infinity, or a number beyond float32")
    return loaded
