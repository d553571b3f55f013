"""Inception against pytorch-fid's features, and the reader of its weight file against good, damaged and hostile files.

golden/inception.npz: uint8 label-map images and what pytorch-fid 0.3.0 computes for them with the weights of `rule_made`.
golden/inception_keys.txt: key, shape, stride and dtype of the published file's convolutions and last layer.
golden/legacy.pth, golden/zip.pth: the OrderedDict of `small_state`, as torch 2.13 saves it, with attributes as a state_dict has
(`_metadata`) and, for legacy.pth, `torch.save(..., _use_new_zipfile_serialization=False)`.
"""
import functools
import hashlib
import http.server
import io
import pickle
import re
import threading
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

import inception
import kernels
from data import InputError

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = np.load(GOLDEN / "inception.npz")


def small_state():
    """What the fixtures hold: HWIO memory seen as OIHW, a window of a storage, a stride of 2, a transposed matrix, scalars."""
    many = np.arange(10, dtype=np.float32)
    return {"a.conv.weight": np.arange(60, dtype=np.float32).reshape(2, 3, 2, 5).transpose(3, 2, 0, 1), "a.bn.bias": many[3:8],
            "a.bn.num_batches_tracked": np.array(7), "double": np.arange(6.0).reshape(2, 3).T, "fc.weight": many[::2],
            "half": np.array([0.5, -2], np.float16)}


def published():
    """Yields key, shape, strides of the published file's convolutions and last layer."""
    for line in (GOLDEN / "inception_keys.txt").read_text().splitlines():
        numbers = lambda name: tuple(map(int, re.findall(r"\d+", re.search(name + r"=\((.*?)\)", line)[1])))  # noqa: B023
        yield line.split("\t")[0], numbers("shape"), numbers("stride")


@functools.cache
def rule_made():
    """A state dict with the published keys and shapes, each array random with a seed made of its key."""
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
            scale = np.sqrt(2 / fan_in) if key.endswith(".conv.weight") else fan_in ** -0.5 if key == "fc.weight" else 0.1
            a = rng.randn(*shape) * scale
        state[key] = np.float32(a)
    return state


@functools.cache
def weights():
    return inception.fold(rule_made())


# ---------------------------------------------------------------------------------------- the network
def test_convolutions_are_those_of_the_published_file():
    expected = {key[:-len(".conv.weight")]: (*shape[2:], shape[1], shape[0]) for key, shape, _ in published() if "conv" in key}
    found = list(inception.convolutions())
    assert dict(found) == expected and len(found) == len(expected) == 94


@pytest.mark.parametrize("side", [64, 128])
@pytest.mark.parametrize("tap", inception.NETWORK)
def test_features_of_pytorch_fid(side, tap):
    expected = EXPECTED[f"features_{side}_{tap}"]
    found = inception.features(EXPECTED[f"images_{side}"], weights(), kernels.load("numpy"), tap)
    assert found.dtype == np.float32 and abs(expected).max() > 1.5
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_batches_do_not_change_the_features(monkeypatch):
    """Five images in batches of 2, in another number of lanes, and alone."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 20, 31, 3)).astype(np.uint8)
    monkeypatch.setattr(inception, "SIDE", 75)  # the least the network takes
    ops, narrow = kernels.load("numpy"), {name: pair for name, pair in weights().items() if not name.startswith("Mixed_7")}
    together = inception.features(images, narrow, ops, 768)
    assert together.shape == (5, 768) and len(np.unique(together[:, 0])) == 5
    for lanes, batch in ((ops.lanes, 2), (3, 5), (1, 1)):
        found = inception.features(images, narrow, kernels.numpy_ops.NumpyOps(np.float32, lanes), 768, batch)
        np.testing.assert_allclose(found, together, rtol=0, atol=1e-5)
    assert inception.features(images[:0], narrow, ops).shape == (0, 2048)


def test_the_whole_network_on_every_device(device):
    """Every tap of a picture of 75x75, all 94 convolutions, against NumPy in float64."""
    x, found = np.random.default_rng(0).uniform(-1, 1, (1, 75, 75, 3)), []
    for ops in kernels.load("numpy", np.float64), kernels.load(device, precision="fp32"):
        there = {name: tuple(map(ops.asarray, pair)) for name, pair in weights().items()}
        found.append([(tap, ops.asnumpy(maps)) for tap, maps in inception.taps(ops.asarray(x), there, ops)])
    for (tap, expected), (_, maps) in zip(*found):
        assert maps.shape == expected.shape and maps.shape[3] == tap and abs(expected).max() > 1
        np.testing.assert_allclose(maps, expected, rtol=0, atol=2e-5 * abs(expected).max())


@pytest.mark.parametrize("images, tap, message", [
    (np.zeros((2, 8, 8, 3)), 2048, r"float64 \(2, 8, 8, 3\); expected uint8 \(N, H, W, 3\)"),
    (np.zeros((2, 8, 8), np.uint8), 2048, r"uint8 \(2, 8, 8\)"), (np.zeros((2, 3, 8, 8), np.uint8), 2048, "expected uint8"),
    (np.zeros((2, 8, 8, 3), np.uint8), 1008, "tap 1008; expected one of 64, 192, 768, 2048")])
def test_features_refuses(images, tap, message):
    with pytest.raises(InputError, match=message):
        inception.features(images, {}, kernels.load("numpy"), tap)


# ------------------------------------------------------------------------------- reading a weight file
@pytest.mark.parametrize("layout", ["legacy", "zip"])
def test_fixtures_of_both_layouts(layout):
    state, expected = inception.read_state_dict(GOLDEN / f"{layout}.pth", verify=False), small_state()
    assert list(state) == list(expected)
    for key, array in expected.items():
        assert state[key].dtype == array.dtype
        np.testing.assert_array_equal(state[key], array)
    assert not state["a.conv.weight"].flags.c_contiguous


@pytest.mark.parametrize("layout", ["legacy", "zip"])
def test_full_size_file(layout, tmp_path):
    """As the published file: a plain dict in the order of its keys, with its strides."""
    torch = pytest.importorskip("torch")
    arrays, strides = rule_made(), {key: strides for key, _, strides in published()}
    arrays = arrays | {key.replace("conv.weight", "bn.num_batches_tracked"): np.array(0) for key in strides if "conv" in key}
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
        np.testing.assert_array_equal(read[name][0], w)
        np.testing.assert_array_equal(read[name][1], bias)
        assert read[name][0].flags.c_contiguous
    state["Conv2d_1a_3x3.conv.weight"] = state["Conv2d_1a_3x3.conv.weight"].contiguous()
    torch.save(state, path)
    np.testing.assert_array_equal(inception.load_weights(path, verify=False)["Conv2d_1a_3x3"][0], weights()["Conv2d_1a_3x3"][0])
    with pytest.raises(InputError, match=r"weights.pth: [\d,]+ bytes; the published weights have 95,628,359: get it by"):
        inception.load_weights(path)


# Hand-made pickles: `plain` for what the pickle module may write, and opcodes for the names of torch.
def plain(value):
    return pickle.dumps(value, 2)[2:-1]


def tensor(offset=0, shape=(2, 2), strides=(2, 1), key="0", kind=b"torch\nFloatStorage"):
    return (b"ctorch._utils\n_rebuild_tensor_v2\n(" + b"(" + plain("storage") + b"c" + kind + b"\n" + plain(key) + plain("cpu")
            + plain(4) + b"tQ" + plain(offset) + plain(shape) + plain(strides) + b"\x89ccollections\nOrderedDict\n)RtR")


def legacy(body, keys=("0",), numbers=4, heading=(0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})):
    """A legacy stream whose object pickle is `body`, with one storage 0, 1, 2, ... of float32 for each key."""
    storage = numbers.to_bytes(8, "little") + np.arange(numbers, dtype="<f4").tobytes()
    return b"".join([*(pickle.dumps(part, 2) for part in heading), b"\x80\x02" + body + b".", pickle.dumps(list(keys), 2)]) \
        + storage * len(keys)


def one(tensor_):
    """The body of {"w": tensor}."""
    return b"}" + plain("w") + tensor_ + b"s"


def archive(**changes):
    """golden/zip.pth with members changed (None: left out) or, compress=True, compressed."""
    compress, buffer = changes.pop("compress", False), io.BytesIO()
    with zipfile.ZipFile(GOLDEN / "zip.pth") as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = changes.get(name.split("/")[-1].replace(".", "_"), old.read(name))
            if content is not None:
                new.writestr(name, content, zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED)
    return buffer.getvalue()


def test_hand_made_stream_is_read(tmp_path):
    """So that the faults below are the planted ones."""
    path = tmp_path / "w.pth"
    path.write_bytes(legacy(one(tensor(1, (3, 1), (1, 5)))))
    np.testing.assert_array_equal(inception.read_state_dict(path, verify=False)["w"], [[1], [2], [3]])
    path.write_bytes(archive())
    assert len(inception.read_state_dict(path, verify=False)) == 6


HOSTILE = {
    "a command": (legacy(b"cos\nsystem\n" + plain("touch executed") + b"\x85R"), "names 'os system'"),
    "a command inside": (legacy(one(b"cbuiltins\neval\n" + plain("open('executed', 'w')") + b"\x85R")), "names 'builtins eval'"),
    "a command in the heading": (b"cos\nsystem\n" + plain("touch executed") + b"\x85R.", "names 'os system'"),
    "a command in a zip": (archive(data_pkl=b"\x80\x02cos\nsystem\n" + plain("touch executed") + b"\x85R."), "names 'os system'"),
    "INST": (legacy(b"(" + plain("touch executed") + b"ios\nsystem\n"), "opcode INST"),
    "OBJ": (legacy(b"(cos\nsystem\n" + plain("touch executed") + b"o"), "names 'os system'"),
    "NEWOBJ": (legacy(b"ccollections\nOrderedDict\n)\x81"), "opcode NEWOBJ"),
    "an extension": (legacy(b"\x82\x01"), "opcode EXT1"),
    "another function of torch": (legacy(b"ctorch._utils\n_rebuild_parameter\n)R"), "names 'torch._utils _rebuild_parameter'"),
    "protocol 4": (legacy(pickle.dumps({"w": 1}, 4)[2:-1]), "opcode FRAME"),
    "a storage called": (legacy(b"ctorch\nFloatStorage\n)R"), "damaged"),
    "beyond the storage": (legacy(one(tensor(1))), "incompatible with shape"),
    "far beyond": (legacy(one(tensor(0, (2, 2), (1 << 61, 1)))), "damaged"),
    "before the storage": (legacy(one(tensor(-1, (1, 1)))), "damaged"),
    "strides back": (legacy(one(tensor(0, (2, 2), (-2, 1)))), "damaged"),
    "strides are texts": (legacy(one(tensor(0, (2, 2), ("a", "b")))), "damaged"),
    "unknown type": (legacy(one(tensor(kind=b"torch\nComplexStorage"))), "names 'torch ComplexStorage'"),
    "a foreign storage": (legacy(one(tensor(key="1"))), "KeyError"),
    "no tensors": (legacy(plain({"w": 3})), "damaged"),
    "a list": (legacy(plain([1, 2])), "damaged"),
    "keys are numbers": (legacy(b"}" + plain(1) + tensor() + b"s"), "a key that is no text"),
    "a key too deep to hash": (legacy(b"})" + b"\x85" * (1 << 18) + plain(1) + b"s"), "a key that is no text"),
    "a key too wide to hash": (legacy(b"})" + b"q\x00h\x00\x86" * 60 + plain(1) + b"s"), "a key that is no text"),
    "an empty stack": (legacy(b"0" * 3), "damaged"),
    "no mark": (legacy(b"t"), "damaged"),
    "an unknown memo": (legacy(b"h\x07"), "damaged"),
    "too few arguments": (legacy(b"ctorch._utils\n_rebuild_tensor_v2\n)R"), "damaged"),
    "big-endian": (legacy(one(tensor()), heading=(0x1950A86A20F9469CFC6C, 1001, {"little_endian": False})), "heading"),
    "another protocol": (legacy(one(tensor()), heading=(0x1950A86A20F9469CFC6C, 1002, {"little_endian": True})), "heading"),
    "a pickle of something else": (pickle.dumps({"a": 1}, 2), "not the heading"),
    "more than its storages": (legacy(one(tensor())) + b"\0", "goes on after its last storage"),
    "storage shorter than it says": (legacy(one(tensor()))[:-1], "breaks off"),
    "big-endian zip": (archive(byteorder=b"big"), "big-endian"),
    "compressed zip": (archive(compress=True), "not as torch.save writes it"),
    "zip without a pickle": (archive(data_pkl=None), "not as torch.save writes it"),
    "zip without a storage": (archive(**{"0": None}), "damaged"),
    "zip that breaks off": (archive()[:-40], "damaged"),
    "zip with a short storage": (archive(**{"0": b"1234"}), "incompatible with shape"),
    "nothing": (b"", "damaged"),
    "text": (b"hello, this is no weight file\n", "damaged"),
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
    assert str(error.value).startswith(f"{path}: damaged, or not a weight file of torch (") and "\n" not in str(error.value)
    assert len(str(error.value)) < 400 and list(tmp_path.iterdir()) == [path], "something was executed"


@pytest.mark.parametrize("layout", ["legacy", "zip"])
def test_every_truncation_is_noticed(tmp_path, layout):
    content, path = (GOLDEN / f"{layout}.pth").read_bytes(), tmp_path / "w.pth"
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="w.pth: damaged"):
            inception.read_state_dict(path, verify=False)


def test_missing_key_and_wrong_shape():
    state = dict(rule_made())
    del state["Mixed_7c.branch3x3dbl_3a.bn.bias"]
    with pytest.raises(InputError, match="no 'Mixed_7c.branch3x3dbl_3a.bn.bias' in it, which the Inception-v3 of 2015-12-05 has"):
        inception.fold(state)
    state = rule_made() | {"Mixed_5b.branch1x1.conv.weight": np.zeros((64, 192, 3, 3), np.float32)}
    with pytest.raises(InputError, match=r"branch1x1.conv.weight' has the shape \(64, 192, 3, 3\), expected \(64, 192, 1, 1\)"):
        inception.fold(state)


# ---------------------------------------------------------------------------- the cache and the download
@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A server on this machine that answers with mirror.content, and the module told that this is the published file."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(self.server.status)
            self.send_header("Content-Length", str(len(self.server.content) + self.server.withheld))
            self.end_headers()
            self.wfile.write(self.server.content)

        def log_message(self, *args):
            pass
    content = (GOLDEN / "legacy.pth").read_bytes()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.content, server.status, server.withheld = content, 200, 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("SEMGAN_CACHE", str(tmp_path / "cache"))
        for name, value in dict(URL=f"http://127.0.0.1:{server.server_port}/weights.pth", SIZE=len(content),
                                SHA256=hashlib.sha256(content).hexdigest()).items():
            monkeypatch.setattr(inception, name, value)
        yield server
        server.shutdown()


def test_download(mirror, tmp_path):
    path = inception.download()
    assert path == inception.cached_file() == tmp_path / "cache" / "weights.pth"
    assert path.read_bytes() == mirror.content and list(path.parent.iterdir()) == [path]
    assert list(inception.read_state_dict(path)) == list(small_state())


@pytest.mark.parametrize("change, message", [
    (dict(status=404), "weights.pth: cannot be fetched to .*404.*by hand"),
    (dict(withheld=100, content=b"breaks off"), "10 bytes; the published weights have 1,345"),
    (dict(content=b"x" * 100_000), "100,000 bytes; the published weights have 1,345"),
    (dict(content=b"x" * 1345), "the sha256 is")])
def test_a_failed_download_leaves_nothing(mirror, change, message):
    vars(mirror).update(change)
    with pytest.raises(InputError, match=message) as error:
        inception.download()
    assert "\n" not in str(error.value) and not list(inception.cached_file().parent.iterdir())


def test_wrong_files_are_told_before_they_are_read(mirror, tmp_path):
    path = tmp_path / "w.pth"
    for content, message in ((mirror.content[:-1], "1,344 bytes; the published weights have 1,345: get it by"),
                             (mirror.content[:-1] + b"!", "the sha256 is [0-9a-f]{64}, expected [0-9a-f]{64}: get it by")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            inception.load_weights(path)


def test_a_cache_that_cannot_be_written(mirror, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="weights.pth: cannot be fetched to"):
        inception.download()


def test_without_the_file(mirror, tmp_path):
    with pytest.raises(InputError, match="weights.pth: cannot be read .*python inception.py --download`, or from https://github"):
        inception.load_weights()
    with pytest.raises(InputError, match=r"cannot be read \("):
        inception.load_weights(tmp_path)


def test_command_line(mirror, capsys, monkeypatch):
    monkeypatch.setattr(inception, "fold", lambda state, path: state)  # the mirror's file is a small one
    with pytest.raises(SystemExit, match="^inception.py: .*cannot be read"):
        inception.main([])
    inception.main(["--download"])
    assert "published weights, verified" in capsys.readouterr().out
    mirror.status = 404  # a file that is there is not fetched again
    inception.main(["--download"])
