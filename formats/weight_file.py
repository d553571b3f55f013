"""Torch's weight files, read without torch: a legacy stream or a zip archive, as torch.save writes.

The pickle inside is never unpickled but read opcode by opcode. Of everything that a pickle could
call only a few names are known, and these only describe tensors.
"""
import io
import math
import pickletools
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from formats.files import InputError, require_file

# Inception's file has 96 MB, its pickle 0.06 MB, its tensors 4 axes at most. Reading a pickle as
# large as the file would take more than a minute.
MOST_BYTES, MOST_PICKLE_BYTES, MOST_AXES = 1 << 30, 1 << 20, 8
DTYPES = {"torch FloatStorage": "<f4", "torch DoubleStorage": "<f8",
          "torch HalfStorage": "<f2", "torch LongStorage": "<i8"}
REBUILD, ORDERED_DICT = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
NAMES = (*DTYPES, REBUILD, ORDERED_DICT)
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a legacy stream
VERSION = 1001                  # the second
CONSTANTS = {"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
             "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}


class Global(NamedTuple):
    """A name in the pickle. It is never imported and never called."""
    name: str


class Storage(NamedTuple):
    """The memory of one or more tensors: a type, and the key under which the file holds it."""
    dtype: str
    key: str


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count elements."""
    storage: Storage
    offset: int
    shape: tuple
    strides: tuple


def read_state_dict(path):
    """{key: array} of a dict of tensors that torch.save wrote to a file.

    The arrays are views with the strides of the file. Nothing in the file is ever executed.
    Raises OSError if it cannot be read, InputError if it is damaged or something else.
    """
    require_file(path, MOST_BYTES)
    content = Path(path).read_bytes()
    try:
        read = read_zip if content[:2] == b"PK" else read_legacy
        state, storages = read(io.BytesIO(content))
        return {key: _view(tensor, storages) for key, tensor in state.items()}
    except Exception as error:  # a damaged or hostile file fails in many ways
        reason = f"{type(error).__name__}: {error}"[:200]
        raise InputError(f"{path}: damaged, or not a weight file of torch ({reason})") from None


def _view(tensor, storages):
    """The array of a Tensor: a view of its storage, so that nothing is allocated."""
    storage, offset, shape, strides = tensor
    size, content = np.dtype(storage.dtype).itemsize, storages[storage.key]
    if len(shape) > MOST_AXES or len(strides) != len(shape):
        raise ValueError(f"a tensor of {len(shape)} axes and {len(strides)} strides")
    if not all(type(number) is int for number in (offset, *shape, *strides)):
        raise ValueError("a tensor whose shape, strides or offset is not of integers")
    if math.prod(shape) * size > len(content):
        raise ValueError("a tensor larger than its storage")
    # NumPy refuses shapes and strides that would leave the storage.
    strides = [stride * size for stride in strides]
    return np.ndarray(shape, storage.dtype, content, offset * size, strides)


def read_legacy(stream):
    """(the object, {storage key: bytes}) of a legacy stream.

    The stream holds three pickles as its heading, the object, the keys of its storages, and the
    storages.
    """
    heading_fits = (read_pickle(stream) == MAGIC and read_pickle(stream) == VERSION
                    and read_pickle(stream)["little_endian"])
    if not heading_fits:
        raise ValueError("not the heading of a legacy torch stream")
    state = read_pickle(stream)
    itemsize = {t.storage.key: np.dtype(t.storage.dtype).itemsize for t in state.values()}
    storages = {}
    for key in map(_text, read_pickle(stream)):
        if key in storages:
            raise ValueError("the same storage twice")
        size = int.from_bytes(stream.read(8), "little") * itemsize[key]
        storages[key] = stream.read(size)
        if len(storages[key]) < size:
            raise ValueError("it breaks off")
    if stream.read(1):
        raise ValueError("it continues after its last storage")
    return state, storages


def read_zip(stream):
    """The same for a zip archive with <root>/data.pkl and <root>/data/<storage key>."""
    with zipfile.ZipFile(stream) as archive:
        names = archive.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if not roots or any(member.compress_type for member in archive.infolist()):
            raise ValueError("a zip archive, but not as torch.save writes it")
        root = roots[0]
        if root + "byteorder" in names and archive.read(root + "byteorder") != b"little":
            raise ValueError("written on a big-endian machine")
        state = read_pickle(io.BytesIO(archive.read(root + "data.pkl")))
        keys = {tensor.storage.key for tensor in state.values()}  # tensors may share a storage
        sizes = [archive.getinfo(f"{root}data/{key}").file_size for key in keys]
        if sum(sizes) > stream.getbuffer().nbytes:  # each would be read into memory of its own
            raise ValueError("storages that overlap")
        return state, {key: archive.read(f"{root}data/{key}") for key in keys}


def read_pickle(stream):
    """The next pickle of a stream, as plain values and Tensors. Raises many kinds of Exception."""
    stack, marks, memo = [], [], {}
    for name, value in _opcodes(stream):
        match name:
            case "PROTO":
                pass
            case "MARK":
                marks.append(len(stack))
            case "BINPUT" | "LONG_BINPUT":
                memo[value] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(value)
            case _ if name in CONSTANTS:
                stack.append(CONSTANTS[name]())
            case "TUPLE":
                stack.append(tuple(_pop_from(stack, marks.pop())))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(_pop_from(stack, -int(name[-1]))))
            case "SETITEM" | "SETITEMS":
                items = _pop_from(stack, -2 if name == "SETITEM" else marks.pop())
                stack[-1].update(zip(map(_text, items[::2]), items[1::2]))
            case "APPEND" | "APPENDS":
                items = _pop_from(stack, -1 if name == "APPEND" else marks.pop())
                stack[-1].extend(items)
            case "GLOBAL":
                stack.append(_known_name(value))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                stack.append(_called(*_pop_from(stack, -2)))
            case "BUILD":
                stack.pop()  # attributes of the OrderedDict: version numbers of the modules
            case "STOP":
                return stack.pop()
            case _:
                raise ValueError(f"it holds the pickle opcode {name}, unknown in a weight file")


def _opcodes(stream):
    """Yields the name and the value of each opcode of the next pickle, unless it is too long."""
    start = stream.tell()
    for opcode, value, position in pickletools.genops(stream):
        if position - start > MOST_PICKLE_BYTES:
            raise ValueError(f"a pickle of more than {MOST_PICKLE_BYTES:,} bytes")
        yield opcode.name, value


def _pop_from(stack, start):
    """Remove and return the items of a stack from `start` on."""
    items, stack[start:] = stack[start:], []
    return items


def _text(value):
    """The value if it is text. Keys must be: hashing a hostile tuple could take forever."""
    if not isinstance(value, str):
        raise ValueError("a key that is not text")
    return value


def _known_name(name):
    if name not in NAMES:
        raise ValueError(f"it names {name[:80]!r}, unknown in a weight file")
    return Global(name)


def _storage(fields):
    """Storage of ("storage", type, key, device, number of elements, ...)."""
    kind, key = fields[1:3]
    return Storage(DTYPES[kind.name], _text(key))


def _called(function, arguments):
    """What a call in the pickle gives: a Tensor, or an empty dict."""
    return Tensor(*arguments[:4]) if function == Global(REBUILD) else {}
