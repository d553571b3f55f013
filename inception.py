"""Inception-v3 of 2015-12-05, whose features FID compares, on the operations of kernels/; and the reader of its weight file.

    python inception.py --download     fetches the published weights (96 MB) into the cache and verifies them

The network is that of Szegedy et al. 2016, "Rethinking the Inception Architecture", with two turns of these weights: average
pooling does not count its padding, and the last block pools by maximum. Activations are NHWC.
"""
import argparse
import hashlib
import io
import os
import pickletools
import tempfile
import urllib.request
import zipfile
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data import InputError
from kernels.launch import cache_folder

URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
SIZE = 95_628_359  # bytes
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
HOW_TO_GET = f"get it by `python inception.py --download`, or from {URL}"
SIDE = 299
PREPROCESSING = "pytorch-fid (bilinear to 299 px, half-pixel centres; x / 127.5 - 1)"  # another one gives another FID
BATCH = 8          # images at once: some 0.2 GB; more were no faster on a CPU
BN_EPS = 0.001     # of every batch norm; the file does not hold it

# -------------------------------------------------------------------------------------------- the network
# A string is one step: a convolution, `name kernel channels`, with batch norm and ReLU, or a pooling of 3x3 windows. Padding
# keeps height and width; "valid" is without padding, "/2" too and with stride 2. A list is a chain of steps. A tuple
# holds branches: all get the same input, and their outputs are set side by side.


def block_a(pool):
    return ("1x1 1x1 64",
            ["5x5_1 1x1 48", "5x5_2 5x5 64"],
            ["3x3dbl_1 1x1 64", "3x3dbl_2 3x3 96", "3x3dbl_3 3x3 96"],
            ["average", f"_pool 1x1 {pool}"])


BLOCK_B = ("3x3 3x3 384 /2",
           ["3x3dbl_1 1x1 64", "3x3dbl_2 3x3 96", "3x3dbl_3 3x3 96 /2"],
           "max /2")


def block_c(c):  # 7x7 kernels, factored into 1x7 and 7x1
    return ("1x1 1x1 192",
            [f"7x7_1 1x1 {c}", f"7x7_2 1x7 {c}", "7x7_3 7x1 192"],
            [f"7x7dbl_1 1x1 {c}", f"7x7dbl_2 7x1 {c}", f"7x7dbl_3 1x7 {c}", f"7x7dbl_4 7x1 {c}", "7x7dbl_5 1x7 192"],
            ["average", "_pool 1x1 192"])


BLOCK_D = (["3x3_1 1x1 192", "3x3_2 3x3 320 /2"],
           ["7x7x3_1 1x1 192", "7x7x3_2 1x7 192", "7x7x3_3 7x1 192", "7x7x3_4 3x3 192 /2"],
           "max /2")


def block_e(pool):
    return ("1x1 1x1 320",
            ["3x3_1 1x1 384", ("3x3_2a 1x3 384", "3x3_2b 3x1 384")],
            ["3x3dbl_1 1x1 448", "3x3dbl_2 3x3 384", ("3x3dbl_3a 1x3 384", "3x3dbl_3b 3x1 384")],
            [pool, "_pool 1x1 192"])


NETWORK = {  # tap, named by its channels: the blocks that lead to it, each with what precedes its names in the weight file
    64: [("Conv2d_", ["1a_3x3 3x3 32 /2", "2a_3x3 3x3 32 valid", "2b_3x3 3x3 64", "max /2"])],             # 73x73
    192: [("Conv2d_", ["3b_1x1 1x1 80", "4a_3x3 3x3 192 valid", "max /2"])],                               # 35x35
    768: [("Mixed_5b.branch", block_a(32)), ("Mixed_5c.branch", block_a(64)), ("Mixed_5d.branch", block_a(64)),
          ("Mixed_6a.branch", BLOCK_B), ("Mixed_6b.branch", block_c(128)), ("Mixed_6c.branch", block_c(160)),
          ("Mixed_6d.branch", block_c(160)), ("Mixed_6e.branch", block_c(192))],                           # 17x17
    2048: [("Mixed_7a.branch", BLOCK_D), ("Mixed_7b.branch", block_e("average")), ("Mixed_7c.branch", block_e("max"))],  # 8x8
}


def parse(step):
    """-> name, (kh, kw), channels, stride, padding (y, x): "2a_3x3 3x3 32 valid" -> "2a_3x3", (3, 3), 32, 1, (0, 0)."""
    name, *rest = step.split()
    kernel, channels = (3, 3), None  # a pooling's
    if name not in ("max", "average"):
        kernel, channels = tuple(map(int, rest[0].split("x"))), int(rest[1])
    pad = (0, 0) if rest and rest[-1] in ("valid", "/2") else (kernel[0] // 2, kernel[1] // 2)
    return name, kernel, channels, 2 if "/2" in rest else 1, pad


def run(block, prefix, x, weights, ops):
    """The output (B, H', W', C') of a step, chain or tuple of branches for x (B, H, W, C)."""
    if isinstance(block, list):
        for part in block:
            x = run(part, prefix, x, weights, ops)
        return x
    if isinstance(block, tuple):
        return ops.concat([run(branch, prefix, x, weights, ops) for branch in block])
    name, _, channels, stride, pad = parse(block)
    if channels is None:
        return (ops.max_pool if name == "max" else ops.average_pool)(x, 3, stride, pad[0])
    w, bias = weights[prefix + name]
    return ops.conv(x, w, stride, pad, bias, "relu")


def taps(x, weights, ops):
    """Yields tap, maps (B, h, w, tap), from the first tap to the last. x (B, 299, 299, 3) and weights are on the device."""
    for tap, blocks in NETWORK.items():
        for prefix, block in blocks:
            x = run(block, prefix, x, weights, ops)
        yield tap, x


def convolutions():
    """Yields the name and the shape (kh, kw, Cin, Cout) of every convolution: what the weight file has to hold."""
    def follow(block, prefix, cin):
        if isinstance(block, list):
            for part in block:
                cin = yield from follow(part, prefix, cin)
            return cin
        if isinstance(block, tuple):
            couts = []
            for branch in block:
                couts.append((yield from follow(branch, prefix, cin)))
            return sum(couts)
        name, kernel, channels, _, _ = parse(block)
        if channels is not None:
            yield prefix + name, (*kernel, cin, channels)
        return channels or cin
    channels = 3  # RGB
    for blocks in NETWORK.values():
        for prefix, block in blocks:
            channels = yield from follow(block, prefix, channels)


def preprocess(images, ops):
    """uint8 (B, H, W, 3) -> (B, 299, 299, 3) on the device, as PREPROCESSING says; resizing and scaling commute."""
    return ops.resize(ops.asarray(images.astype(np.float32) / 127.5 - 1), SIDE, SIDE)


def features(images, weights, ops, tap=2048, batch=BATCH):
    """uint8 RGB images (N, H, W, 3) -> (N, tap) float32: the maps of a tap, averaged over their pixels.

    weights: of load_weights. ops: of kernels.load. tap: 64, 192, 768 or 2048, FID's own. Raises InputError.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(f"Inception: images {images.dtype} {images.shape}; expected uint8 (N, H, W, 3), RGB from 0 to 255")
    if tap not in NETWORK:
        raise InputError(f"Inception: tap {tap}; expected one of {', '.join(map(str, NETWORK))}")
    there = {name: tuple(map(ops.asarray, pair)) for name, pair in weights.items()}
    out = np.empty((len(images), tap), np.float32)
    with tqdm(total=len(images), desc="Inception", unit=" images", delay=1, leave=False) as bar:
        for start in range(0, len(images), batch):
            part = slice(start, start + batch)
            maps = next(maps for at, maps in taps(preprocess(images[part], ops), there, ops) if at == tap)
            out[part] = ops.asnumpy(maps).mean((1, 2), np.float64)  # 5329 pixels at the first tap: float32 would lose digits
            bar.update(len(out[part]))
    return out


# ---------------------------------------------------------------------------------------- the weight file
# What torch.save wrote, in its legacy stream or as a zip archive, read without torch. The pickle inside is not unpickled
# but read opcode by opcode: of all that a pickle could call, two names are known, and they only note what a tensor is.
DTYPES = {"torch FloatStorage": "<f4", "torch DoubleStorage": "<f8", "torch HalfStorage": "<f2", "torch LongStorage": "<i8"}
REBUILD, ORDERED_DICT = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a legacy stream


class Global(NamedTuple):  # a name in the pickle: never imported, never called
    name: str


class Storage(NamedTuple):
    dtype: str
    key: str


class Tensor(NamedTuple):
    storage: Storage
    offset: int      # in elements, like the strides
    shape: tuple
    strides: tuple


def text(value):
    """The value, if it is a text; else ValueError. Keys must be: to hash a tuple made for it may take for ever."""
    if not isinstance(value, str):
        raise ValueError("a key that is no text")
    return value


def read_pickle(stream):
    """The next pickle of a stream, made of dicts, lists, tuples, numbers, texts and Tensors. Raises many kinds of Exception."""
    stack, marks, memo = [], [], {}

    def pop_to_mark():
        at = marks.pop()
        items, stack[at:] = stack[at:], []
        return items

    for opcode, value, _ in pickletools.genops(stream):
        match opcode.name:
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
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "EMPTY_DICT" | "EMPTY_LIST":
                stack.append({} if opcode.name == "EMPTY_DICT" else [])
            case "TUPLE" | "EMPTY_TUPLE":
                stack.append(tuple(pop_to_mark()) if opcode.name == "TUPLE" else ())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "SETITEM" | "SETITEMS":
                items = [stack.pop(-2), stack.pop()] if opcode.name == "SETITEM" else pop_to_mark()
                stack[-1].update(zip(map(text, items[::2]), items[1::2]))
            case "APPEND" | "APPENDS":
                items = [stack.pop()] if opcode.name == "APPEND" else pop_to_mark()
                stack[-1].extend(items)
            case "GLOBAL":
                if value not in (*DTYPES, REBUILD, ORDERED_DICT):
                    raise ValueError(f"it names {value[:80]!r}, which a weight file has no use for")
                stack.append(Global(value))
            case "BINPERSID":
                _, kind, key, *_ = stack.pop()  # ("storage", type, key, device, number of elements, ...)
                stack.append(Storage(DTYPES[kind.name], text(key)))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(Tensor(*arguments[:4]) if function == Global(REBUILD) else {})
            case "BUILD":
                stack.pop()  # attributes of the OrderedDict: version numbers of the modules
            case "STOP":
                return stack.pop()
            case name:
                raise ValueError(f"it holds the pickle opcode {name}, which a weight file has no use for")


def read_legacy(stream):
    """(the object, {storage key: bytes}) of a legacy stream: three pickles of heading, the object, its keys, the storages."""
    if read_pickle(stream) != MAGIC or read_pickle(stream) != 1001 or not read_pickle(stream)["little_endian"]:
        raise ValueError("not the heading of a legacy torch stream")
    state = read_pickle(stream)
    itemsize = {t.storage.key: np.dtype(t.storage.dtype).itemsize for t in state.values()}
    storages = {}
    for key in map(text, read_pickle(stream)):
        size = int.from_bytes(stream.read(8), "little") * itemsize[key]
        storages[key] = stream.read(size)
        if len(storages[key]) < size:
            raise ValueError("it breaks off")
    if stream.read(1):
        raise ValueError("it goes on after its last storage")
    return state, storages


def read_zip(stream):
    """The same of a zip archive with <root>/data.pkl and <root>/data/<storage key>."""
    with zipfile.ZipFile(stream) as archive:
        root = next((name[:-len("data.pkl")] for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if root is None or any(member.compress_type for member in archive.infolist()):
            raise ValueError("a zip archive, but not as torch.save writes it")
        if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
            raise ValueError("written on a big-endian machine")
        state = read_pickle(io.BytesIO(archive.read(root + "data.pkl")))
        return state, {t.storage.key: archive.read(f"{root}data/{t.storage.key}") for t in state.values()}


def read_state_dict(path, verify=True):
    """{key: array} of a dict of tensors that torch.save wrote to a file; the arrays are views with the file's own strides.

    verify: the file must be the published one. Nothing in a file is ever executed. Raises InputError.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {HOW_TO_GET}") from None
    if verify:
        check(path, len(content), hashlib.sha256(content).hexdigest())
    try:
        state, storages = (read_zip if content[:2] == b"PK" else read_legacy)(io.BytesIO(content))
        arrays = {}
        for key, (storage, offset, shape, strides) in state.items():
            item = np.dtype(storage.dtype).itemsize  # NumPy refuses shapes and strides that leave the storage
            arrays[key] = np.ndarray(shape, storage.dtype, storages[storage.key], offset * item, [s * item for s in strides])
        return arrays
    except Exception as error:  # a damaged or hostile file fails in many ways
        raise InputError(f"{path}: damaged, or not a weight file of torch ({type(error).__name__}: {error})") from None


def check(name, size, sha256):
    """Raises InputError unless a file has the size and the sha256 of the published one."""
    if size != SIZE:
        raise InputError(f"{name}: {size:,} bytes; the published weights have {SIZE:,}: {HOW_TO_GET}")
    if sha256 != SHA256:
        raise InputError(f"{name}: the sha256 is {sha256}, expected {SHA256}: {HOW_TO_GET}")


def load_weights(path=None, verify=True):
    """{name: (w (kh, kw, Cin, Cout), bias (Cout,))} float32 of every convolution, batch norm folded in.

    path: the weight file; None looks in the cache. verify=False takes other files with the same keys and shapes.
    Raises InputError; where there is no file, with how to get it.
    """
    path = path or cached_file()
    return fold(read_state_dict(path, verify), path)


def fold(state, path="the state dict"):
    """load_weights of arrays {key: array}: relu(gamma (conv(x, w) - mean) / std + beta) is relu(conv(x, w') + bias)."""
    def get(key, shape):
        if key not in state:
            raise InputError(f"{path}: no {key!r} in it, which the Inception-v3 of 2015-12-05 has")
        if state[key].shape != shape:
            raise InputError(f"{path}: {key!r} has the shape {state[key].shape}, expected {shape}")
        return state[key].astype(np.float64)
    weights = {}
    for name, (kh, kw, cin, cout) in convolutions():
        w = get(f"{name}.conv.weight", (cout, cin, kh, kw))
        gamma, beta, mean, var = (get(f"{name}.bn.{key}", (cout,)) for key in ("weight", "bias", "running_mean", "running_var"))
        scale = gamma / np.sqrt(var + BN_EPS)
        weights[name] = (np.ascontiguousarray(w.transpose(2, 3, 1, 0) * scale, np.float32), np.float32(beta - mean * scale))
    return weights


def cached_file():
    """Where the weight file lies in the cache: $SEMGAN_CACHE or ~/.cache/semgan."""
    return cache_folder() / URL.rsplit("/")[-1]


def download():
    """Fetch the published weights into the cache, verified; under its own name the file is whole at any moment. InputError."""
    path, size, sha256 = cached_file(), 0, hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as aside:
            part = Path(aside) / path.name
            with (urllib.request.urlopen(URL, timeout=60) as answer, part.open("wb") as file,
                  tqdm(total=SIZE, desc="Inception's weights", unit="B", unit_scale=True) as bar):
                while size <= SIZE and (chunk := answer.read(1 << 20)):  # more than SIZE is another file
                    size += file.write(chunk)
                    sha256.update(chunk)
                    bar.update(len(chunk))
            check(URL, size, sha256.hexdigest())
            os.replace(part, path)
    except (OSError, HTTPException) as error:
        raise InputError(f"{URL}: cannot be fetched to {path} ({error}); the file may be put there by hand") from None
    return path


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--download", action="store_true", help=f"fetch the weights to {cached_file()}")
    try:
        if parser.parse_args(argv).download and not cached_file().exists():
            download()
        load_weights()
        print(f"{cached_file()}: Inception's published weights, verified")
    except InputError as error:
        raise SystemExit(f"inception.py: {error}") from None


if __name__ == "__main__":
    main()
