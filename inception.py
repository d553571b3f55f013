"""Inception-v3 of 2015-12-05, whose features FID (Frechet inception distance) compares.

    python inception.py --download     fetches the published weights (96 MB) into the cache

The network is that of Szegedy et al. 2016, "Rethinking the Inception Architecture", built from the
operations of kernels/. These weights need two changes: average pooling does not count its padding,
and the last module pools by maximum. Activations are NHWC.
"""
if __name__ == "__main__":  # before all other imports
    from app.start import start
    start()

import numpy as np
from tqdm import tqdm

from formats import files
from formats.files import InputError
from formats.weight_file import MOST_BYTES, read_state_dict

URL = ("https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
       "pt_inception-2015-12-05-6726825d.pth")
SIZE = 95_628_359  # bytes
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIDE = 299
# FID depends on the preprocessing.
PREPROCESSING = "pytorch-fid (bilinear to 299 px, half-pixel centres; x / 127.5 - 1)"
BATCH = 8          # images at once, in 0.2 GB; more images are no faster on a CPU
BN_EPS = 0.001     # of every batch norm; the weight file does not hold it

# ------------------------------------------------------------------------------------- the network
# A string is one layer: a convolution, `name kernel channels`, with batch norm and ReLU, or a
# pooling of 3x3 windows. Padding keeps height and width; "valid" means no padding, "/2" no padding
# and stride 2. A list is a chain of layers. A tuple holds branches: all take the same input, and
# their outputs are concatenated along the channels.


def module_a(pool):
    return ("1x1 1x1 64",
            ["5x5_1 1x1 48", "5x5_2 5x5 64"],
            ["3x3dbl_1 1x1 64", "3x3dbl_2 3x3 96", "3x3dbl_3 3x3 96"],
            ["average", f"_pool 1x1 {pool}"])


MODULE_B = ("3x3 3x3 384 /2",
            ["3x3dbl_1 1x1 64", "3x3dbl_2 3x3 96", "3x3dbl_3 3x3 96 /2"],
            "max /2")


def module_c(c):  # 7x7 kernels, factored into 1x7 and 7x1
    return ("1x1 1x1 192",
            [f"7x7_1 1x1 {c}", f"7x7_2 1x7 {c}", "7x7_3 7x1 192"],
            [f"7x7dbl_1 1x1 {c}", f"7x7dbl_2 7x1 {c}", f"7x7dbl_3 1x7 {c}", f"7x7dbl_4 7x1 {c}",
             "7x7dbl_5 1x7 192"],
            ["average", "_pool 1x1 192"])


MODULE_D = (["3x3_1 1x1 192", "3x3_2 3x3 320 /2"],
            ["7x7x3_1 1x1 192", "7x7x3_2 1x7 192", "7x7x3_3 7x1 192", "7x7x3_4 3x3 192 /2"],
            "max /2")


def module_e(pool):
    return ("1x1 1x1 320",
            ["3x3_1 1x1 384", ("3x3_2a 1x3 384", "3x3_2b 3x1 384")],
            ["3x3dbl_1 1x1 448", "3x3dbl_2 3x3 384", ("3x3dbl_3a 1x3 384", "3x3dbl_3b 3x1 384")],
            [pool, "_pool 1x1 192"])


# Here a tap is not a kernel's but a layer whose output gives features, named by its channels. For
# each tap: the modules that lead to it, with the prefix of their names in the weight file.
NETWORK = {
    64: [("Conv2d_", ["1a_3x3 3x3 32 /2", "2a_3x3 3x3 32 valid", "2b_3x3 3x3 64", "max /2"])],
    192: [("Conv2d_", ["3b_1x1 1x1 80", "4a_3x3 3x3 192 valid", "max /2"])],
    768: [("Mixed_5b.branch", module_a(32)),
          ("Mixed_5c.branch", module_a(64)),
          ("Mixed_5d.branch", module_a(64)),
          ("Mixed_6a.branch", MODULE_B),
          ("Mixed_6b.branch", module_c(128)),
          ("Mixed_6c.branch", module_c(160)),
          ("Mixed_6d.branch", module_c(160)),
          ("Mixed_6e.branch", module_c(192))],
    2048: [("Mixed_7a.branch", MODULE_D),
           ("Mixed_7b.branch", module_e("average")),
           ("Mixed_7c.branch", module_e("max"))],
}  # heights and widths: 73, 35, 17, 8


def parse(layer):
    """A layer's string -> name, (kh, kw), channels, stride, (y, x) padding.

    "2a_3x3 3x3 32 valid" -> "2a_3x3", (3, 3), 32, 1, (0, 0). A pooling has no channels: None.
    """
    name, *rest = layer.split()
    kernel, channels = (3, 3), None
    if name not in ("max", "average"):
        kernel = tuple(map(int, rest[0].split("x")))
        channels = int(rest[1])
    valid = "valid" in rest or "/2" in rest
    pad = (0, 0) if valid else (kernel[0] // 2, kernel[1] // 2)
    return name, kernel, channels, 2 if "/2" in rest else 1, pad


def run(module, prefix, x, weights, ops):
    """The output (B, H', W', C') of a layer, chain or tuple of branches for x (B, H, W, C)."""
    if isinstance(module, list):
        for part in module:
            x = run(part, prefix, x, weights, ops)
        return x
    if isinstance(module, tuple):
        return ops.concat([run(branch, prefix, x, weights, ops) for branch in module])
    name, _, channels, stride, pad = parse(module)
    if channels is None:
        pool = ops.max_pool if name == "max" else ops.average_pool
        return pool(x, 3, stride, pad[0])
    w, bias = weights[prefix + name]
    return ops.conv(x, w, stride, pad, bias, "relu")


def taps(x, weights, ops):
    """Yields tap, maps (B, h, w, tap), from the first tap to the last.

    x (B, 299, 299, 3) and the weights are on the device.
    """
    for tap, modules in NETWORK.items():
        for prefix, module in modules:
            x = run(module, prefix, x, weights, ops)
        yield tap, x


def convolutions():
    """Yields the name and shape (kh, kw, Cin, Cout) of every convolution, as in the weight file."""
    channels = 3  # RGB
    for modules in NETWORK.values():
        for prefix, module in modules:
            channels = yield from _convolutions(module, prefix, channels)


def _convolutions(module, prefix, cin):
    """The same for one layer, chain or tuple of branches. Returns its number of channels."""
    if isinstance(module, list):
        for part in module:
            cin = yield from _convolutions(part, prefix, cin)
        return cin
    if isinstance(module, tuple):
        channels = 0
        for branch in module:
            channels += yield from _convolutions(branch, prefix, cin)
        return channels
    name, kernel, channels, _, _ = parse(module)
    if channels is not None:
        yield prefix + name, (*kernel, cin, channels)
    return channels or cin


# ---------------------------------------------------------------------------------------- features
def preprocess(images, ops):
    """uint8 (B, H, W, 3) -> (B, 299, 299, 3) on the device, as PREPROCESSING says.

    Values are scaled first, which gives the same, since resizing is linear.
    """
    return ops.resize(ops.asarray(images.astype(np.float32) / 127.5 - 1), SIDE, SIDE)


def features(images, weights, ops, tap=2048, batch=BATCH):
    """uint8 RGB images (N, H, W, 3) -> (N, tap) float32: a tap's maps, averaged over their pixels.

    weights: from load_weights. ops: from kernels.load. tap: 64, 192, 768, or 2048, which FID uses.
    Raises InputError.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(f"Inception: images {images.dtype} {images.shape}; "
                         "expected uint8 (N, H, W, 3), RGB from 0 to 255")
    if tap not in NETWORK:
        raise InputError(f"Inception: tap {tap}; expected one of {', '.join(map(str, NETWORK))}")
    weights = {name: tuple(map(ops.asarray, pair)) for name, pair in weights.items()}
    out = np.empty((len(images), tap), np.float32)
    with tqdm(total=len(images), desc="Inception", unit=" images", delay=1, leave=False,
              disable=None) as bar:
        for start in range(0, len(images), batch):
            part = slice(start, start + batch)
            x = preprocess(images[part], ops)
            maps = next(maps for at, maps in taps(x, weights, ops) if at == tap)
            # In float32 a mean over the 5329 pixels of the first tap would lose digits.
            out[part] = ops.asnumpy(maps).mean((1, 2), np.float64)
            bar.update(len(out[part]))
    return out


# ----------------------------------------------------------------------------------------- weights
def cached_file():
    """The path of the weight file in the cache."""
    return files.cache_folder() / URL.rsplit("/")[-1]


def download():
    """Fetch the published weights into the cache and verify them. Raises InputError."""
    files.download(URL, cached_file(), SIZE, SHA256)
    return cached_file()


def how_to_get():
    return f"get it by `{files.command('inception.py', '--download')}`, or from {URL}"


def load_weights(path=None, verify=True):
    """{name: (w (kh, kw, Cin, Cout), bias (Cout,))} float32 of every convolution.

    Batch norm is folded in. path: the weight file; None looks in the cache. verify=False accepts
    other files with the same keys and shapes. Raises InputError, which says how to get the file.
    """
    remove = "" if path else "remove it, then "  # a file in the cache is not fetched again
    path = cached_file() if path is None else path
    try:
        files.require_file(path, MOST_BYTES)  # before anything waits for a pipe
        if verify:
            files.verify(path, SIZE, SHA256, hint=f" (the published weights); {remove}"
                         f"{how_to_get()}")
        state = read_state_dict(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {how_to_get()}") from None
    return fold(state, path)


def fold(state, path="the state dict"):
    """The weights of load_weights from a state dict {key: array}. Raises InputError.

    relu(gamma (conv(x, w) - mean) / std + beta) = relu(conv(x, w') + bias) with
    w' = w gamma / std and bias = beta - mean gamma / std.
    """
    def get(key, shape):
        if key not in state:
            raise InputError(f"{path}: no {key!r} in it, which the Inception-v3 of 2015-12-05 has")
        if state[key].shape != shape:
            raise InputError(f"{path}: {key!r} has the shape {state[key].shape}; expected {shape}")
        return state[key].astype(np.float64)

    weights = {}
    for name, (kh, kw, cin, cout) in convolutions():
        w = get(f"{name}.conv.weight", (cout, cin, kh, kw)).transpose(2, 3, 1, 0)
        gamma, beta, mean, var = (get(f"{name}.bn.{key}", (cout,))
                                  for key in ("weight", "bias", "running_mean", "running_var"))
        with np.errstate(all="ignore"):  # what they would warn of is refused below
            scale = gamma / np.sqrt(var + BN_EPS)
            pair = np.ascontiguousarray(w * scale, np.float32), np.float32(beta - mean * scale)
        if not all(np.isfinite(a).all() for a in pair):
            raise InputError(f"{path}: {name!r} has weights that are NaN or infinite, or a "
                             "negative variance")
        weights[name] = pair
    return weights


if __name__ == "__main__":
    from app.inception_command import main
    main()
