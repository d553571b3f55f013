"""Inception beside pytorch-fid; its weight file, good, damaged and hostile.

golden/inception.npz: uint8 images of label maps, and what pytorch-fid 0.3.0 computes for them with
the weights of `rule_made`.
golden/inception_keys.txt: key, shape, stride, dtype of the published convolutions and last layer.
golden/legacy.pth, golden/zip.pth: the OrderedDict of `small_state`, as torch 2.13 saves it, with
attributes as a state_dict has (`_metadata`) and, for legacy.pth,
`torch.save(..., _use_new_zipfile_serialization=False)`.
"""
import copy
import functools
import hashlib
import io
import os
import pickle
import re
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from shared import Answer, serving

import inception
import kernels
from app import inception_command
from formats.files import InputError
from formats.weight_file import read_state_dict

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = np.load(GOLDEN / "inception.npz")


def small_state():
    """What the fixtures hold.

    HWIO memory seen as OIHW, a window of a storage, a stride of 2, a transposed matrix, a scalar.
    """
    many = np.arange(10, dtype=np.float32)
    weight = np.arange(60, dtype=np.float32).reshape(2, 3, 2, 5).transpose(3, 2, 0, 1)
    return {"a.conv.weight": weight, "a.bn.bias": many[3:8],
            "a.bn.num_batches_tracked": np.array(7), "double": np.arange(6.0).reshape(2, 3).T,
            "fc.weight": many[::2], "half": np.array([0.5, -2], np.float16)}


def published():
    """Yields key, shape, strides of the published file's convolutions and last layer."""
    for line in (GOLDEN / "inception_keys.txt").read_text().splitlines():
        shape, strides = (tuple(map(int, re.findall(r"\d+", re.search(pattern, line)[1])))
                          for pattern in (r"shape=\((.*?)\)", r"stride=\((.*?)\)"))
        yield line.split("\t")[0], shape, strides


@functools.cache
def rule_made():
    """A state dict with the published keys and shapes; its key is the seed of each array."""
    state = {}
    for name, shape, _ in published():
        state[name] = shape
        if name.endswith(".conv.weight"):
            for key in "weight", "bias", "running_mean", "running_var":
                state[name.replace("conv.weight", f"bn.{key}")] = shape[:1]
    for key, shape in state.items():
        rng = np.random.RandomState(zlib.crc32(key.encode()))
        if key.endswith((".bn.weight", ".running_var")):
            a = rng.uniform(0.8, 1.2, shape)
        else:
            fan_in = np.prod(shape[1:])
            scale = 0.1
            if key.endswith(".conv.weight"):
                scale = np.sqrt(2 / fan_in)
            elif key == "fc.weight":
                scale = fan_in ** -0.5
            a = rng.randn(*shape) * scale
        state[key] = np.float32(a)
    return state


@functools.cache
def weights():
    return inception.fold(rule_made())


# -------------------------------------------------------------------------------------- the network
def test_convolutions_are_those_of_the_published_file():
    expected = {key.removesuffix(".conv.weight"): (*shape[2:], shape[1], shape[0])
                for key, shape, _ in published() if "conv" in key}
    found = list(inception.convolutions())
    assert dict(found) == expected and len(found) == len(expected) == 94


@pytest.mark.parametrize("side", [64, 128])
@pytest.mark.parametrize("tap", inception.NETWORK)
def test_features_of_pytorch_fid(side, tap):
    expected = EXPECTED[f"features_{side}_{tap}"]
    found = inception.features(EXPECTED[f"images_{side}"], weights(), kernels.load("numpy"), tap)
    assert found.dtype == np.float32 and abs(expected).max() > 1.5
    assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_batches_do_not_change_the_features(monkeypatch):
    """Five images in batches of 2, with another number of workers, and alone."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 20, 31, 3)).astype(np.uint8)
    monkeypatch.setattr(inception, "SIDE", 75)  # the least the network takes
    ops = kernels.load("numpy")
    narrow = {name: pair for name, pair in weights().items() if not name.startswith("Mixed_7")}
    together = inception.features(images, narrow, ops, 768)
    assert together.shape == (5, 768) and len(np.unique(together[:, 0])) == 5
    for workers, batch in ((None, 2), (3, 5), (1, 1)):
        other = kernels.NumpyEngine(np.float32, workers)
        found = inception.features(images, narrow, other, 768, batch)
        assert_allclose(found, together, rtol=0, atol=1e-5)
    assert inception.features(images[:0], narrow, ops).shape == (0, 2048)


def test_the_whole_network_on_every_device(device):
    """Every tap of a picture of 75x75, all 94 convolutions, against NumPy in float64."""
    x, found = np.random.default_rng(0).uniform(-1, 1, (1, 75, 75, 3)), []
    for ops in kernels.load("numpy", np.float64), kernels.load(device, precision="fp32"):
        there = {name: tuple(map(ops.asarray, pair)) for name, pair in weights().items()}
        maps = inception.taps(ops.asarray(x), there, ops)
        found.append([(tap, ops.asnumpy(m)) for tap, m in maps])
    for (tap, expected), (_, maps) in zip(*found):
        assert maps.shape == expected.shape and maps.shape[3] == tap and abs(expected).max() > 1
        assert_allclose(maps, expected, rtol=0, atol=2e-5 * abs(expected).max())


@pytest.mark.parametrize("images, tap, message", [
    (np.zeros((2, 8, 8, 3)), 2048, r"float64 \(2, 8, 8, 3\); expected uint8 \(N, H, W, 3\)"),
    (np.zeros((2, 8, 8), np.uint8), 2048, r"uint8 \(2, 8, 8\)"),
    (np.zeros((2, 3, 8, 8), np.uint8), 2048, "expected uint8"),
    (np.zeros((2, 8, 8, 3), np.uint8), 1008, "tap 1008; expected one of 64, 192, 768, 2048")])
def test_features_refuses(images, tap, message):
    with pytest.raises(InputError, match=message):
        inception.features(images, {}, kernels.load("numpy"), tap)


# ---------------------------------------------------------------------------- reading a weight file
@pytest.mark.parametrize("layout", ["legacy", "zip"])
def test_fixtures_of_both_layouts(layout):
    state, expected = read_state_dict(GOLDEN / f"{layout}.pth"), small_state()
    assert list(state) == list(expected)
    for key, array in expected.items():
        assert state[key].dtype == array.dtype
        assert_array_equal(state[key], array)
    assert not state["a.conv.weight"].flags.c_contiguous


@pytest.mark.parametrize("layout", ["legacy", "zip"])
def test_full_size_file(layout, tmp_path):
    """As the published file: a plain dict in the order of its keys, with its strides."""
    torch = pytest.importorskip("torch")
    arrays, strides = rule_made(), {key: strides for key, _, strides in published()}
    arrays |= {key.replace("conv.weight", "bn.num_batches_tracked"): np.array(0)
               for key in strides if "conv" in key}
    state = {}
    for key in sorted(arrays):
        state[key] = torch.from_numpy(arrays[key])
        if key in strides and arrays[key].ndim > 1:
            state[key] = torch.empty_strided(arrays[key].shape, strides[key]).copy_(state[key])
    path = tmp_path / "weights.pth"
    torch.save(state, path, _use_new_zipfile_serialization=layout == "zip")
    assert abs(path.stat().st_size - inception.SIZE) < 1e6
    read = inception.load_weights(path, verify=False)
    for name, (w, bias) in weights().items():
        assert_array_equal(read[name][0], w)
        assert_array_equal(read[name][1], bias)
        assert read[name][0].flags.c_contiguous
    state["Conv2d_1a_3x3.conv.weight"] = state["Conv2d_1a_3x3.conv.weight"].contiguous()
    torch.save(state, path)
    read = inception.load_weights(path, verify=False)
    assert_array_equal(read["Conv2d_1a_3x3"][0], weights()["Conv2d_1a_3x3"][0])
    message = r"weights.pth: [\d,]+ bytes; expected 95,628,359 \(the published weights\); get it by"
    with pytest.raises(InputError, match=message):
        inception.load_weights(path)


# Pickles made by hand: `plain` for what the pickle module may write, opcodes for torch's names.
def plain(value):
    return pickle.dumps(value, 2)[2:-1]


def tensor(offset=0, shape=(2, 2), strides=(2, 1), key="0", kind=b"torch\nFloatStorage"):
    storage = b"(" + plain("storage") + b"c" + kind + b"\n" + plain(key) + plain("cpu") + plain(4)
    return (b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"tQ" + plain(offset)
            + plain(shape) + plain(strides) + b"\x89ccollections\nOrderedDict\n)RtR")


MAGIC = 0x1950A86A20F9469CFC6C
HEADING = MAGIC, 1001, {"little_endian": True}


def legacy(body, heading=HEADING):
    """A legacy stream whose object pickle is `body`, with one storage of float32 0, 1, 2, 3."""
    storage = (4).to_bytes(8, "little") + np.arange(4, dtype="<f4").tobytes()
    return b"".join([*(pickle.dumps(part, 2) for part in heading),
                     b"\x80\x02" + body + b".", pickle.dumps(["0"], 2), storage])


def one(tensor_):
    """The body of {"w": tensor}."""
    return b"}" + plain("w") + tensor_ + b"s"


def zipped(body, *members):
    """A zip archive whose pickle is `body`. members: (name, content)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in [("a/data.pkl", b"\x80\x02" + body + b"."), *members]:
            file.writestr(name, content)
    return buffer.getvalue()


def overlapping():
    """A zip archive with two storages, of which the first holds the whole second."""
    body = b"}(" + b"".join(plain(key) + tensor(key=key) for key in "01") + b"u"
    inner = zipped(body, ("a/data/1", bytes(4096)))
    with zipfile.ZipFile(io.BytesIO(inner)) as file:
        member, directory = file.getinfo("a/data/1"), file.start_dir
    quoted = inner[member.header_offset:directory]  # its local header and content
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02" + body + b".")
        file.writestr("a/data/0", quoted)
        other = copy.copy(member)
        other.header_offset = file.start_dir - len(quoted)
        file.filelist.append(other)
        file.NameToInfo[other.filename] = other
    return buffer.getvalue()


def archive(**changes):
    """golden/zip.pth with members changed (None: left out) or, compress=True, compressed."""
    compress, buffer = changes.pop("compress", False), io.BytesIO()
    with zipfile.ZipFile(GOLDEN / "zip.pth") as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = changes.get(name.split("/")[-1].replace(".", "_"), old.read(name))
            if content is not None:
                method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
                new.writestr(name, content, method)
    return buffer.getvalue()


def test_hand_made_stream_is_read(tmp_path):
    """So that the faults below are the planted ones."""
    path = tmp_path / "w.pth"
    path.write_bytes(legacy(one(tensor(1, (3, 1), (1, 5)))))
    assert_array_equal(read_state_dict(path)["w"], [[1], [2], [3]])
    path.write_bytes(archive())
    assert len(read_state_dict(path)) == 6


COMMAND = b"cos\nsystem\n" + plain("touch executed") + b"\x85R"  # os.system("touch executed")
BIG_ENDIAN = MAGIC, 1001, {"little_endian": False}
HOSTILE = {  # name: content, message
    # What could be called.
    "a command": (legacy(COMMAND), "names 'os system'"),
    "a command in a zip": (archive(data_pkl=b"\x80\x02" + COMMAND + b"."), "names 'os system'"),
    "another function of torch": (legacy(b"ctorch._utils\n_rebuild_parameter\n)R"),
                                  "names 'torch._utils _rebuild_parameter'"),
    "an unknown opcode that calls": (legacy(b"(" + plain("touch executed") + b"ios\nsystem\n"),
                                     "opcode INST"),
    "a storage called": (legacy(b"ctorch\nFloatStorage\n)R"), "KeyError"),
    # Pickles that make no sense.
    "no mark": (legacy(b"t"), "IndexError"),
    "an unknown memo": (legacy(b"h\x07"), "KeyError"),
    "too few arguments": (legacy(b"ctorch._utils\n_rebuild_tensor_v2\n)R"), "TypeError"),
    "keys are numbers": (legacy(b"}" + plain(1) + tensor() + b"s"), "a key that is not text"),
    "a key too wide to hash": (legacy(b"})" + b"q\x00h\x00\x86" * 60 + plain(1) + b"s"),
                               "a key that is not text"),
    # Tensors that leave their storage, or have none.
    "beyond the storage": (legacy(one(tensor(1))), "incompatible with shape"),
    "far beyond": (legacy(one(tensor(0, (2, 2), (1 << 61, 1)))), "damaged"),
    "before the storage": (legacy(one(tensor(-1, (1, 1)))), "damaged"),
    "backwards": (legacy(one(tensor(0, (2, 2), (-2, 1)))), "damaged"),
    "strides are texts": (legacy(one(tensor(0, (2, 2), ("a", "b")))), "not of integers"),
    "a shape that multiplies a text": (legacy(one(tensor(0, (1 << 40, "a")))), "not of integers"),
    "numbers of 30 digits": (legacy(one(tensor(10 ** 30, (1, 1), (10 ** 30, 1)))), "OverflowError"),
    "larger than the storage": (legacy(one(tensor(0, (1 << 40, 2), (0, 0)))),
                                "larger than its storage"),
    "too many axes": (legacy(one(tensor(0, (1,) * 9, (0,) * 9))), "9 axes"),
    "more storage than the file": (legacy(one(tensor()))[:-24] + b"\xff" * 8, "damaged"),
    "a foreign storage": (legacy(one(tensor(key="1"))), "KeyError"),
    "no tensors": (legacy(plain({"w": 3})), "AttributeError"),
    # The file around the pickle.
    "big-endian": (legacy(one(tensor()), heading=BIG_ENDIAN), "heading"),
    "another protocol": (legacy(one(tensor()), heading=(MAGIC, 1002, HEADING[2])), "heading"),
    "another pickle": (pickle.dumps({"a": 1}, 2), "not the heading"),
    "more than its storages": (legacy(one(tensor())) + b"\0", "continues after its last storage"),
    "the same storage twice": (legacy(one(tensor())).replace(plain(["0"]), plain(["0", "0"])),
                               "the same storage twice"),
    "storages that overlap": (overlapping(), "storages that overlap"),
    "a long key": (legacy(one(tensor())).replace(plain(["0"]), plain(["k" * 1000])), "KeyError"),
    "a large pickle": (legacy(b"N" * (1 << 20) + b"0"), "a pickle of more than 1,048,576 bytes"),
    "nested deeply": (legacy(b")" + b"\x85" * 100_000 + b"R"), "damaged"),
    "a large memo": (legacy(b"".join(b"Nr" + i.to_bytes(4, "little") for i in range(200_000))),
                     "a pickle of more than"),
    "a storage cut short": (legacy(one(tensor()))[:-1], "breaks off"),
    "big-endian zip": (archive(byteorder=b"big"), "big-endian"),
    "compressed zip": (archive(compress=True), "not as torch.save writes it"),
    "zip without a pickle": (archive(data_pkl=None), "not as torch.save writes it"),
    "a web page": (b"<!DOCTYPE html>\n<html><title>Not Found</title></html>\n", "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_one_clear_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, message = HOSTILE[name]
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        inception.load_weights(path, verify=False)
    assert str(error.value).startswith(f"{path}: damaged, or not a weight file of torch (")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert list(tmp_path.iterdir()) == [path], "something was executed"


@pytest.mark.parametrize("layout", ["legacy", "zip"])
def test_every_truncation_is_noticed(tmp_path, layout):
    content, path = (GOLDEN / f"{layout}.pth").read_bytes(), tmp_path / "w.pth"
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="w.pth: damaged"):
            read_state_dict(path)


def test_a_shared_storage_is_read_once(tmp_path, monkeypatch):
    """100 tensors of one storage: one read of it, and views instead of copies."""
    body = b"}(" + b"".join(plain(f"w{i}") + tensor(i % 2, (3,), (1,)) for i in range(100)) + b"u"
    path, names, read = tmp_path / "w.pth", [], zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read",
                        lambda file, name: names.append(name) or read(file, name))
    for content in zipped(body, ("a/data/0", np.arange(4, dtype="<f4").tobytes())), legacy(body):
        path.write_bytes(content)
        state = read_state_dict(path)
        assert_array_equal(state["w99"], [1, 2, 3])
        assert len(state) == 100 and all(a.base is state["w0"].base for a in state.values())
    assert names == ["a/data.pkl", "a/data/0"]


@pytest.mark.parametrize("kind, message", [
    ("folder", r"cannot be read \(a folder; expected a file"),
    ("pipe", r"cannot be read \(a pipe, a socket or a device; expected a file"),
    ("/dev/zero", r"cannot be read \(a pipe, a socket or a device; expected a file"),
    ("3 GB of holes", "3,000,000,000 bytes; expected 1,073,741,824 at most"),
    ("loop of links", r"a link that leads to no file")])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_files_that_must_not_be_opened(tmp_path, kind, message, monkeypatch):
    path = Path(kind) if kind.startswith("/") else tmp_path / "w.pth"
    makers = {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path),
              "3 GB of holes": lambda: (path.touch(), os.truncate(path, 3_000_000_000)),
              "loop of links": lambda: path.symlink_to(path)}
    makers.get(kind, lambda: None)()
    monkeypatch.setattr("builtins.open", None)
    monkeypatch.setattr(Path, "read_bytes", None)
    for verify in True, False:
        with pytest.raises(InputError, match=message):
            inception.load_weights(path, verify)


def test_weights_that_are_not_finite():
    for key, value in ("conv.weight", np.nan), ("bn.running_var", -1), ("bn.weight", 1e300):
        key = f"Mixed_7c.branch1x1.{key}"
        state = rule_made() | {key: np.full(rule_made()[key].shape, value)}
        with pytest.raises(InputError, match="'Mixed_7c.branch1x1' has weights that are NaN"):
            inception.fold(state)


def test_missing_key_and_wrong_shape():
    state = dict(rule_made())
    del state["Mixed_7c.branch3x3dbl_3a.bn.bias"]
    message = ("no 'Mixed_7c.branch3x3dbl_3a.bn.bias' in it, "
               "which the Inception-v3 of 2015-12-05 has")
    with pytest.raises(InputError, match=message):
        inception.fold(state)
    state = rule_made() | {"Mixed_5b.branch1x1.conv.weight": np.zeros((64, 192, 3, 3), np.float32)}
    message = r"has the shape \(64, 192, 3, 3\); expected \(64, 192, 1, 1\)"
    with pytest.raises(InputError, match=f"branch1x1.conv.weight' {message}"):
        inception.fold(state)


# ----------------------------------------------------------------------- the cache and the download
@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """The answer of a server, which is the published file for the module; tests change it."""
    content = (GOLDEN / "legacy.pth").read_bytes()
    answer = Answer(content)
    monkeypatch.setenv("SEMGAN_CACHE", str(tmp_path / "cache"))
    with serving({"weights.pth": answer}) as address:
        monkeypatch.setattr(inception, "URL", f"{address}/weights.pth")
        monkeypatch.setattr(inception, "SIZE", len(content))
        monkeypatch.setattr(inception, "SHA256", hashlib.sha256(content).hexdigest())
        yield answer


def test_download(mirror, tmp_path):
    path = inception.download()
    assert path == inception.cached_file() == tmp_path / "cache" / "weights.pth"
    assert path.read_bytes() == mirror.content and list(path.parent.iterdir()) == [path]
    assert list(read_state_dict(path)) == list(small_state())


@pytest.mark.parametrize("change, message", [
    (dict(status=404), "weights.pth: cannot be fetched to .*404.*yourself"),
    (dict(announced=110, content=b"breaks off"), "weights.pth: broke off after 10 of 110 bytes"),
    (dict(announced=0, content=b"breaks off"), "weights.pth: broke off after 10 of 1,345 bytes"),
    (dict(content=b"too short"), "weights.pth: 9 bytes; expected 1,345"),
    (dict(content=b"x" * 100_000), "weights.pth: more than the 1,345 bytes"),
    (dict(content=b"x" * 1345), "weights.pth: the SHA-256 is")])
def test_a_failed_download_leaves_nothing(mirror, change, message):
    vars(mirror).update(change)
    with pytest.raises(InputError, match=message) as error:
        inception.download()
    assert "\n" not in str(error.value) and not inception.cached_file().parent.exists()


def test_wrong_files_are_refused_before_they_are_read(mirror, tmp_path):
    path = tmp_path / "w.pth"
    digits = "[0-9a-f]{64}"
    hint = r" \(the published weights\); get it by"
    for content, message in ((mirror.content[:-1], f"1,344 bytes; expected 1,345{hint}"),
                             (mirror.content[:-1] + b"!",
                              f"the SHA-256 is {digits}; expected {digits}{hint}")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            inception.load_weights(path)


def test_a_wrong_file_in_the_cache_must_be_removed(mirror, capsys):
    """Since --download would not replace it."""
    inception.cached_file().parent.mkdir()
    inception.cached_file().write_bytes(b"wrong")
    with pytest.raises(SystemExit):
        inception_command.main(["--download"])
    assert "(the published weights); remove it, then get it by" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written(mirror, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="weights.pth: cannot be fetched to"):
        inception.download()


def test_without_the_file(mirror, tmp_path):
    message = "cannot be read .*inception.py --download`, or from http://"
    with pytest.raises(InputError, match=f"weights.pth: {message}"):
        inception.load_weights()
    with pytest.raises(InputError, match=r"cannot be read \("):
        inception.load_weights(tmp_path)


def test_command_line(mirror, capsys, monkeypatch):
    # The mirror's file is a small one.
    monkeypatch.setattr(inception, "fold", lambda state, path: state)
    with pytest.raises(SystemExit):
        inception_command.main([])
    assert re.match("inception.py: .*cannot be read", capsys.readouterr().err)
    inception_command.main(["--download"])
    assert "published weights, verified" in capsys.readouterr().out
    mirror.status = 404  # a file that is there is not fetched again
    inception_command.main(["--download"])
