"""SemGAN from scratch: a generative adversarial network for label maps, with no deep-learning framework.

Ghelfi et al. 2019, "Adversarial Pixel-Level Generation of Semantic Images" (arXiv 1906.12195). Read this file from top
to bottom: layers -> generator, discriminator -> one training step -> training loop -> command line. The arithmetic is in
kernels/ (called `ops` here), label maps come from data.py, and metrics.py tells how good the samples are.
"""
import argparse
import csv
import json
import os
import signal
import sys
import time
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

import data
import inception
import kernels
import metrics
from app import data_command, evaluation
from app.comparison import comparison_page
from formats.files import InputError
from formats.palettes import write_palette

# ------------------------------------------------------------------------------------------ settings
# The network, the losses and the optimizer: name -> (default, meaning and reason). Every one is a flag.
# The defaults are the paper's settings for Colored Shapes (its Appendix B); presets change some of them.
SETTINGS = {
    "side": (64, "height and width of a map in pixels"),
    "steps": (50_000, "training steps in total, the paper's number"),
    "batch_size": (32, "maps per step; feature matching compares means over them, so fewer means more noise"),
    "latent": (100, "numbers in a latent vector z ~ N(0, 1), the paper's"),
    "kernel_size": (11, "height and width of every convolution kernel, odd; large ones see a whole shape, 5 trains worse"),
    "generator_filters": ([128, 256, 128, 64], "channels of the first map and after each stride-2 transposed convolution"),
    "discriminator_filters": ([64, 128, 256], "channels after each stride-2 convolution; one more layer at side 128 (DCGAN)"),
    "bottleneck": (False, "the paper's extra transposed convolution to K channels; without it the generator trains better"),
    "feature_matching": ("mean", "mean: of the batch's features (Salimans et al. 2016, cited by the paper); "
                                 "paired: map by map (the authors' library)"),
    "feature_layers": ("all", "all: sum over D's layers; last: the last one only, which leaves checkerboards"),
    "learning_rate": (1e-4, "of the generator's Adam, the paper's; a short run wants more"),
    "discriminator_learning_rate": (1e-4, "of the discriminator's Adam; the paper uses the same for both"),
    "decay_after": (0, "steps before both learning rates begin to fall"),
    "half_life": (0, "steps in which they halve from then on, which calms the end of a short run; 0: constant, the paper's"),
    "beta1": (0.5, "Adam's decay of the mean gradient; 0.9 oscillates in GANs (DCGAN)"),
    "beta2": (0.999, "Adam's decay of the mean squared gradient, the paper's"),
    "adam_eps": (1e-8, "keeps Adam from dividing by 0, the paper's"),
    "bn_momentum": (0.1, "share of the batch in batch norm's running statistics, with which samples are drawn; usual"),
    "bn_eps": (1e-5, "keeps batch norm from dividing by 0; usual"),
    "init": ("glorot", "weights: glorot (uniform, the authors' library) or normal (0, 0.02) (DCGAN)"),
    "seed": (0, "fixes data, weights, latents and batches"),
}
CHOICES = {"feature_matching": ["mean", "paired"], "feature_layers": ["all", "last"], "init": ["glorot", "normal"]}
PRESETS = {
    "small": dict(side=32, steps=7400, generator_filters=[128, 64, 32, 16], discriminator_filters=[16, 32, 64],
                  learning_rate=1e-3, discriminator_learning_rate=2e-4, half_life=2400),
    "full": {},
    "paper": dict(bottleneck=True),
}
# The paper's settings for street scenes (the row of its Table 3 with the best FID): presets full and paper of your own maps.
STREET_SCENES = dict(side=128, latent=128, kernel_size=7, learning_rate=2e-4, discriminator_learning_rate=2e-4,
                     discriminator_filters=[64, 128, 256, 512])
FACADES = STREET_SCENES | dict(latent=300)  # and its Table 4 for facades

BLOCK = 100  # steps whose latents and map indices are drawn at once


# ------------------------------------------------------------------------------------------- network
class Network:
    """The parameters of one network: named views into flat buffers, so that Adam is one call.

    shapes: {name: shape}. self.params[name] is a parameter and self.grads[name] its gradient; self.flat holds the buffers
    params, grads, m, v (n,) and the update counter step (1,); self.running the batch-norm statistics.
    """
    def __init__(self, ops, s, shapes, rng):
        self.ops, self.s, align, offset, offsets = ops, s, 256 // ops.dtype.itemsize, 0, {}
        for name, shape in shapes.items():
            offsets[name] = offset
            offset += -(-int(np.prod(shape)) // align) * align  # every tensor starts at a multiple of 256 bytes
        host = np.zeros(offset)  # the initial parameters
        views = lambda flat: {n: flat[o:o + int(np.prod(shapes[n]))].reshape(shapes[n]) for n, o in offsets.items()}
        self.running = {}
        for name, p in views(host).items():
            if name.endswith(".w"):
                kh, kw, cin, cout = p.shape
                limit = np.sqrt(6 / (kh * kw * (cin + cout)))  # Glorot and Bengio 2010
                p[...] = rng.uniform(-limit, limit, p.shape) if s.init == "glorot" else rng.normal(0, 0.02, p.shape)
            elif name.endswith(".gamma"):
                p[...] = 1
                self.running[name] = ops.asarray(np.zeros(p.shape)), ops.asarray(np.ones(p.shape))  # mean, variance
        self.flat = {name: ops.asarray(host if name == "params" else 0 * host) for name in ("params", "grads", "m", "v")}
        self.flat["step"] = ops.asarray(np.zeros(1))
        self.params, self.grads = views(self.flat["params"]), views(self.flat["grads"])

    def adam(self, lr):
        f, s = self.flat, self.s
        self.ops.adam(f["params"], f["grads"], f["m"], f["v"], f["step"], lr, s.beta1, s.beta2, s.adam_eps)

    def state(self):
        """{name: array}: all that a checkpoint must hold, as live views."""
        running = {f"{name}.running_{kind}": a for name, pair in self.running.items() for kind, a in zip(("mean", "var"), pair)}
        return {k: v for k, v in self.flat.items() if k != "grads"} | running


# -------------------------------------------------------------------------------------------- layers
# Each layer is a function, and its gradient stands below it. `net` gives the parameters and receives their gradients.
# A gradient function takes dy, the gradient of the output, and returns dx, the gradient of the input.

def dense_relu(net, name, x):
    """relu(x W + b): a 1x1 convolution on a 1x1 map. (B, Cin) -> (B, Cout)."""
    x = x.reshape(len(x), 1, 1, -1)
    return net.ops.conv(x, net.params[name + ".w"], bias=net.params[name + ".b"], activation="relu").reshape(len(x), -1)


def dense_relu_grad(net, name, dy, x, y):
    """No dx: x is the latent vector."""
    dy = net.ops.bias_activation_grad(dy.reshape(len(x), 1, 1, -1), y.reshape(len(x), 1, 1, -1), "relu", net.grads[name + ".b"])
    net.ops.conv_weight_grad(x.reshape(len(x), 1, 1, -1), dy, net.grads[name + ".w"].shape, out=net.grads[name + ".w"])


def deconv_norm_relu(net, name, x, stride, training):
    """relu(batch_norm(transposed conv(x))). (B, H, W, Cin) -> (B, stride H, stride W, Cout), and what the gradient needs.

    A transposed convolution *is* the input gradient of a convolution: a convolution with stride 2 maps the large map to
    the small one, and its gradient maps small to large. So the weights are stored as that convolution's: (kh, kw, Cout, Cin).
    """
    w, gamma, beta, x = net.params[name + ".w"], net.params[name + ".gamma"], net.params[name + ".beta"], net.ops.operand(x)
    b, h, width, _ = x.shape
    a = net.ops.conv_input_grad(x, w, (b, stride * h, stride * width, w.shape[2]), stride, w.shape[0] // 2)
    mean, var = net.running[name + ".gamma"]
    if training:
        y, mean, var = net.ops.batch_norm(a, gamma, beta, mean, var, net.s.bn_momentum, net.s.bn_eps, "relu")
    else:
        y = net.ops.batch_norm_inference(a, gamma, beta, mean, var, net.s.bn_eps, "relu")
    return y, (x, a, y, mean, var)


def deconv_norm_relu_grad(net, name, dy, saved, stride):
    (x, a, y, mean, var), w, pad = saved, net.params[name + ".w"], net.params[name + ".w"].shape[0] // 2
    da = net.ops.batch_norm_grad(dy, a, y, net.params[name + ".gamma"], mean, var, net.s.bn_eps, "relu",
                                 dgamma=net.grads[name + ".gamma"], dbeta=net.grads[name + ".beta"])
    da = net.ops.operand(da)
    net.ops.conv_weight_grad(da, x, w.shape, stride, pad, out=net.grads[name + ".w"])  # roles exchanged: da is the large map
    return net.ops.conv(da, w, stride, pad)


def conv_leaky(net, name, x):
    """leaky_relu(conv(x) + b) with stride 2. (B, H, W, Cin) -> (B, H / 2, W / 2, Cout)."""
    w = net.params[name + ".w"]
    return net.ops.conv(x, w, 2, w.shape[0] // 2, bias=net.params[name + ".b"], activation="leaky_relu")


def conv_leaky_grad(net, name, dy, x, y, inputs=True):
    """Fills the parameters' gradients, returns dx if `inputs`."""
    w = net.params[name + ".w"]
    dy = net.ops.operand(net.ops.bias_activation_grad(dy, y, "leaky_relu", net.grads[name + ".b"]))
    net.ops.conv_weight_grad(x, dy, w.shape, 2, w.shape[0] // 2, out=net.grads[name + ".w"])
    return net.ops.conv_input_grad(dy, w, x.shape, 2, w.shape[0] // 2) if inputs else None


# ------------------------------------------------------------------------- generator and discriminator
class Generator(Network):
    """z (B, latent) -> maps (B, side, side, channels): softmax over K classes, or RGB in [-1, 1] through tanh.

    The paper's Figure 1: dense + ReLU, transposed convolutions of stride 2 with batch norm and ReLU, then one convolution.
    With `bottleneck`, one more transposed convolution, to K channels with stride 1, before the last. Only the last layer
    differs between the two models.
    """
    def __init__(self, ops, s, classes, rng):
        f, k = s.generator_filters, s.kernel_size
        self.strides = [2] * (len(f) - 1) + [1] * s.bottleneck
        self.base = s.side >> (len(f) - 1)  # side of the first map
        self.rgb = s.model == "gan"
        widths = f + [classes] * s.bottleneck
        channels = 3 if self.rgb else classes
        shapes = {"dense.w": (1, 1, s.latent, self.base ** 2 * f[0]), "dense.b": (self.base ** 2 * f[0],)}
        for i, (cin, cout) in enumerate(zip(widths, widths[1:]), 1):
            shapes |= {f"deconv{i}.w": (k, k, cout, cin), f"deconv{i}.gamma": (cout,), f"deconv{i}.beta": (cout,)}
        shapes |= {"conv.w": (k, k, widths[-1], channels), "conv.b": (channels,)}
        super().__init__(ops, s, shapes, rng)

    def forward(self, z, training=True, out=None):
        """Returns the maps and what backward needs. In training, batch norm uses the batch's statistics."""
        h = dense_relu(self, "dense", z)
        saved, h = [(z, h)], h.reshape(len(z), self.base, self.base, -1)
        for i, stride in enumerate(self.strides, 1):
            h, saved_layer = deconv_norm_relu(self, f"deconv{i}", h, stride, training)
            saved.append(saved_layer)
        w, b, h = self.params["conv.w"], self.params["conv.b"], self.ops.operand(h)
        if self.rgb:
            maps = self.ops.conv(h, w, 1, w.shape[0] // 2, bias=b, activation="tanh", out=out)
        else:
            maps = self.ops.softmax(self.ops.conv(h, w, 1, w.shape[0] // 2), b, out=out)
        return maps, saved + [(h, maps)]

    def backward(self, dmaps, saved):
        """Fills self.grads from the gradient of the maps."""
        (h, maps), w, db = saved[-1], self.params["conv.w"], self.grads["conv.b"]
        if self.rgb:
            da = self.ops.bias_activation_grad(dmaps, maps, "tanh", db)
        else:
            da = self.ops.softmax_grad(dmaps, maps, db)
        da = self.ops.operand(da)
        self.ops.conv_weight_grad(h, da, w.shape, 1, w.shape[0] // 2, out=self.grads["conv.w"])
        dh = self.ops.conv_input_grad(da, w, h.shape, 1, w.shape[0] // 2)
        for i in range(len(self.strides), 0, -1):
            dh = deconv_norm_relu_grad(self, f"deconv{i}", dh, saved[i], self.strides[i - 1])
        dense_relu_grad(self, "dense", dh, *saved[0])

    def outputs(self, z):
        """What forward gives for z (N, latent) with running statistics, on the host, up to 64 maps at a time."""
        for start in range(0, len(z), 64):  # not in the arena, whose buffers belong to the training step
            yield self.ops.asnumpy(self.forward(self.ops.asarray(z[start:start + 64]), training=False)[0])

    def sample(self, z):
        """Label maps (N, side, side) uint8, or RGB (N, side, side, 3) uint8 from the baseline."""
        return np.concatenate([np.clip(np.rint((out + 1) * 127.5), 0, 255).astype(np.uint8) if self.rgb
                               else out.argmax(-1).astype(np.uint8) for out in self.outputs(z)])


class Discriminator(Network):
    """maps (B, side, side, channels) -> one logit a map: convolutions of stride 2 with LeakyReLU, then a dense layer.

    No normalization: nothing couples the maps of a batch, so real and generated maps can go through as one batch.
    """
    def __init__(self, ops, s, classes, rng):
        f, k = [3 if s.model == "gan" else classes] + s.discriminator_filters, s.kernel_size
        self.layers, shapes = len(f) - 1, {}
        for i, (cin, cout) in enumerate(zip(f, f[1:]), 1):
            shapes |= {f"conv{i}.w": (k, k, cin, cout), f"conv{i}.b": (cout,)}
        flat = (s.side >> self.layers) ** 2 * f[-1]
        shapes |= {"dense.w": (1, 1, flat, 1), "dense.b": (1,)}
        super().__init__(ops, s, shapes, rng)

    def forward(self, maps):
        """Returns logits (B, 1, 1, 1) and the features: the maps, then each layer's output."""
        features = [maps]
        for i in range(1, self.layers + 1):
            features.append(conv_leaky(self, f"conv{i}", features[-1]))
        h = features[-1].reshape(maps.shape[0], 1, 1, -1)
        return self.ops.conv(h, self.params["dense.w"], bias=self.params["dense.b"]), features

    def backward(self, dlogits, features):
        """Fills self.grads from the gradient of the logits."""
        h, w = features[-1].reshape(len(dlogits), 1, 1, -1), self.params["dense.w"]
        dlogits = self.ops.bias_activation_grad(dlogits, dlogits, None, self.grads["dense.b"])
        self.ops.conv_weight_grad(h, dlogits, w.shape, out=self.grads["dense.w"])
        dh = self.ops.conv_input_grad(dlogits, w, h.shape).reshape(features[-1].shape)
        for i in range(self.layers, 0, -1):
            dh = conv_leaky_grad(self, f"conv{i}", dh, features[i - 1], features[i], inputs=i > 1)

    def feature_matching(self, features, reading, layers, losses):
        """The generator's loss, layer by layer into losses (L,), and its gradient with respect to the generated maps.

        features: of real and generated maps, stacked in this order. The real ones are constants.
        """
        b, dh = len(features[1]) // 2, None
        for i in range(self.layers, 0, -1):
            real, fake, w = features[i][:b], features[i][b:], self.params[f"conv{i}.w"]
            if layers == "all" or i == self.layers:  # adds to dh from the layers above
                _, dh = self.ops.feature_matching(real, fake, reading, losses[i - 1:i], dh, "leaky_relu")
            else:
                dh = self.ops.bias_activation_grad(dh, fake, "leaky_relu")
            dh = self.ops.conv_input_grad(dh, w, (b, *features[i - 1].shape[1:]), 2, w.shape[0] // 2)
        return dh


# ------------------------------------------------------------------------------------- one training step
class Trainer:
    """Both networks, the label maps on the device, and one step of training."""

    def __init__(self, ops, s, dataset):
        self.ops, self.s, self.dataset, self.step = ops, s, dataset, 0
        rng = np.random.default_rng([s.seed, 0])
        self.generator, self.discriminator = Generator(ops, s, dataset.classes, rng), Discriminator(ops, s, dataset.classes, rng)
        self.networks = {"g": self.generator, "d": self.discriminator}  # by their prefixes in a checkpoint
        # One-hot vectors, or for the RGB baseline the class's colour in [-1, 1].
        table = dataset.palette / 127.5 - 1 if s.model == "gan" else np.eye(dataset.classes)
        self.labels, self.table = ops.asarray(dataset.maps, np.uint8), ops.asarray(table)
        # What differs from step to step: tables of a block of steps, and the rows of the step at hand.
        b = s.batch_size
        self.zs, self.indices = ops.asarray(np.zeros((BLOCK, b, s.latent))), ops.asarray(np.zeros((BLOCK, b)), np.int32)
        self.z, self.index = ops.asarray(np.zeros((b, s.latent))), ops.asarray(np.zeros(b), np.int32)
        self.rates, self.rate = ops.asarray(np.zeros((BLOCK, 2))), ops.asarray(np.zeros(2))  # learning rates of G and D
        self.targets = ops.asarray(np.repeat([1, 0], b).reshape(2 * b, 1, 1, 1))  # real maps 1, generated maps 0
        self.losses = ops.asarray(np.zeros(1 + self.discriminator.layers))  # D's, then feature matching layer by layer
        self.block = self.replay = None

    def inputs(self, step):
        """z (B, latent) and map indices (B,) of a step: drawn by block, from the seed and the block's number alone."""
        ops, s, (block, offset) = self.ops, self.s, divmod(step, BLOCK)
        if self.block != block:
            rng = np.random.default_rng([s.seed, 1, block])
            ops.write(self.zs, rng.standard_normal(self.zs.shape))
            ops.write(self.indices, rng.integers(len(self.labels), size=self.indices.shape))
            halvings = np.maximum(0, block * BLOCK + np.arange(BLOCK) - s.decay_after) / (s.half_life or np.inf)
            ops.write(self.rates, np.outer(0.5 ** halvings, [s.learning_rate, s.discriminator_learning_rate]))
            self.block = block
        return self.zs[offset], self.indices[offset]

    def train_step(self):
        """One step. The first is computed operation by operation, which compiles and allocates; then they are recorded."""
        self.inputs(self.step)
        if self.replay:
            self.replay()  # on a GPU: one CUDA graph
        else:
            self.operations()
            self.replay = self.ops.record(self.operations)
        self.step += 1

    def operations(self):
        """D learns to tell real maps x from G(z); then G learns to match D's features on the same x and z.

        Always the same operations on the same arrays: all that changes is read from the device.
        """
        ops, s, g, d, z, index = self.ops, self.s, self.generator, self.discriminator, self.z, self.index
        with ops.arena:
            for table, row in (self.zs, z), (self.indices, index), (self.rates, self.rate):
                ops.take_row(table, g.flat["step"], row)  # G's updates so far, as Adam counts them: the number of this step
            b = len(z)
            maps = ops.empty(2 * b, s.side, s.side, self.table.shape[1])  # real maps, then generated ones
            ops.gather(self.labels, index, self.table, out=maps[:b])
            _, saved = g.forward(z, out=maps[b:])
            maps = ops.operand(maps)
            # L_D = 1/2 (BCE(D(x), 1) + BCE(D(G(z)), 0)): the mean over both halves of the batch.
            logits, features = d.forward(maps)
            _, dlogits = ops.bce_with_logits(logits, self.targets, self.losses[:1])
            d.backward(dlogits, features)
            d.adam(self.rate[1:])
            # L_G: feature matching through the discriminator just updated.
            _, features = d.forward(maps)
            g.backward(d.feature_matching(features, s.feature_matching, s.feature_layers, self.losses[1:]), saved)
            g.adam(self.rate[:1])


# ------------------------------------------------------------------------------------------ run folder
def save_checkpoint(path, trainer):
    """All that training needs to go on, written aside and then renamed: at any moment `path` is a whole checkpoint."""
    arrays = {f"{net}.{name}": trainer.ops.asnumpy(a) for net, network in trainer.networks.items()
              for name, a in network.state().items()}
    if not all(np.isfinite(a).all() for a in arrays.values()):
        raise FloatingPointError(f"step {trainer.step}: a parameter is no longer a finite number")
    dataset = trainer.dataset
    header = dict(format=1, step=trainer.step, settings=vars(trainer.s), arithmetic=trainer.ops.arithmetic,
                  palette=dataset.palette.tolist(),
                  names=dataset.names, maps=zlib.crc32(dataset.maps))
    aside = path.with_name(path.name + ".tmp")
    try:
        with open(aside, "wb") as file:
            np.savez(file, header=json.dumps(header), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror}); the checkpoint before it is as it was") from None


def load_checkpoint(run):
    """(header, arrays) of a run folder's checkpoint. Nothing in the file is ever executed. Raises InputError."""
    path = Path(run) / "checkpoint.npz"
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; expected the folder of a run")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        s = header["settings"] = argparse.Namespace(**header["settings"])
        known = vars(resolve("", "full")[0])
        if header["format"] != 1 or vars(s).keys() != known.keys():
            raise InputError("written by another version of this program")
        for name, default in known.items():
            value = getattr(s, name)
            if type(value) is not type(default) and not (value is None or type(value) is data.OPTIONS.get(name)):
                raise InputError(f"{name} is {value!r}")
        check(s)
        header["palette"] = palette = np.array(header["palette"], np.uint8)
        if any(arrays[net + ".step"].tolist() != [header["step"]] for net in "gd"):
            raise InputError("its networks are not those of its step")
        if palette.shape != (len(header["names"]), 3) or type(header["step"]) is not int or header["step"] < 0:
            raise InputError("a palette or step that cannot be")
    except Exception as error:  # a damaged zip, array or header fails in many ways
        raise InputError(f"{path}: not a checkpoint that can be used ({error or type(error).__name__})") from None
    return header, arrays


def restore(net, prefix, arrays, path):
    """Copy a checkpoint's arrays into a network."""
    for name, a in net.state().items():
        saved = arrays.get(f"{prefix}.{name}")
        if saved is None or saved.shape != a.shape or saved.dtype.kind != "f" or not np.isfinite(saved).all():
            found = "nothing" if saved is None else f"{saved.dtype} {saved.shape}, or not finite"
            raise InputError(f"{path}: a damaged checkpoint or one of another model ({prefix}.{name}: expected {a.shape}, "
                             f"found {found})")
        net.ops.write(a, saved)


def strip(maps, palette, columns=16):
    """An image of maps side by side, 1 pixel apart, small ones enlarged. uint8 ids (N, H, W) or RGB (N, H, W, 3)."""
    tiles = palette[maps] if maps.ndim == 3 else maps
    gap = [(0, 0), (0, 1), (0, 1), (0, 0)]
    tiles = np.pad(tiles, gap, constant_values=128)
    n, h, w, _ = tiles.shape
    columns = min(columns, n)
    tiles = np.concatenate([tiles, np.full((-n % columns, h, w, 3), 255, np.uint8)])
    picture = tiles.reshape(-1, columns, h, w, 3).transpose(0, 2, 1, 3, 4).reshape(-1, columns * w, 3)[:-1, :-1]
    zoom = max(1, 64 // (w - 1))
    return Image.fromarray(np.repeat(np.repeat(picture, zoom, 0), zoom, 1))


def plot_curves(run):
    """runs/.../curves.png from log.csv."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    with open(run / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return
    column = lambda name: [float(row[name]) for row in rows]
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.5), layout="constrained")
    axes[0].plot(column("step"), column("loss_d"), linewidth=0.8)
    axes[0].axhline(np.log(2), color="grey", linestyle=":", label="log 2: D cannot tell")
    axes[0].set(title="Discriminator: binary cross-entropy", xlabel="step")
    for name in [n for n in rows[0] if n.startswith("features")]:
        axes[1].semilogy(column("step"), column(name), linewidth=0.8, label=name.replace("_", " of layer "))
    axes[1].set(title="Generator: feature matching", xlabel="step")
    for ax in axes:
        ax.legend()
    figure.savefig(run / "curves.png", dpi=110)
    plt.close(figure)


# --------------------------------------------------------------------------------------- training loop
def prepare(args):
    """Everything that can go wrong before the first step: returns the trainer, where each setting came from, the run folder."""
    flags = {name: getattr(args, name) for name in ("dataset", "preset", "model", *data.OPTIONS, *SETTINGS)}
    for name in "dataset", "palette", "data":  # absolute, so that --resume works from another folder
        value = flags[name]
        if value == "" or name == "data" and "" in (value or ()):
            raise InputError(f"--{name} is empty: expected the path of a {'palette' if name == 'palette' else 'folder or archive'}")
        if name == "data" and value:
            flags[name] = [str(Path(path).resolve()) for path in value]
        elif value not in (None, *data.NAMED):
            flags[name] = str(Path(value).resolve())
    dataset_name = Path(flags["dataset"] or "shapes").name.removesuffix(".gz").rsplit(".", 1)[0]
    ops = kernels.load(args.device, precision=args.precision)
    run = Path(args.out or f"runs/{dataset_name}-{args.model or 'semgan'}")
    if args.resume:
        header, arrays = load_checkpoint(run)
        s, origin = header["settings"], dict.fromkeys(vars(header["settings"]), "checkpoint")
        for name, value in flags.items():
            if name != "steps" and value not in (None, getattr(s, name)):
                raise InputError(f"--{name.replace('_', '-')} {value}: {run} was started with {show(getattr(s, name))}; "
                                 "with --resume only --steps can change")
        if args.steps is not None:
            s.steps, origin["steps"] = args.steps, "flag"
            if s.steps < header["step"]:
                raise InputError(f"--steps {s.steps}: {run} is at step {header['step']} already")
    else:
        if (run / "checkpoint.npz").exists():
            raise InputError(f"{run} already holds a run; go on with it by --resume, or choose another folder by --out")
        s, origin = resolve(**flags, gpu=ops.name == "gpu")
    check(s)
    dataset = load_dataset(s)
    trainer = Trainer(ops, s, dataset)
    trainer.inputs(0)  # a batch that does not fit into memory fails here
    if args.resume:
        if header["maps"] != zlib.crc32(dataset.maps) or not np.array_equal(header["palette"], dataset.palette):
            raise InputError(f"{s.dataset}: its maps or colours are no longer those that {run} was started with")
        restore(trainer.generator, "g", arrays, run / "checkpoint.npz")
        restore(trainer.discriminator, "d", arrays, run / "checkpoint.npz")
        trainer.step = header["step"]
        if header.get("arithmetic") != ops.arithmetic:
            print(f"{run} was computed by {header.get('arithmetic')}, and goes on by {ops.arithmetic}: near the same course, "
                  "not to the same bits. See --device and --precision.")
    return trainer, origin, run


def load_dataset(s):
    return data.load(s.dataset, s.side, s.seed, **{name: getattr(s, name) for name in data.OPTIONS})


def train(args):
    """The command `python semgan.py ...`: prepare, then train until --steps or Ctrl-C, then tell how good it got."""
    trainer, origin, run = prepare(args)
    ops, s, palette, path = trainer.ops, trainer.s, trainer.dataset.palette, run / "checkpoint.npz"
    try:
        (run / "samples").mkdir(parents=True, exist_ok=True)
        (run / "settings.json").write_text(json.dumps(vars(s), indent=1) + "\n")
        log = open_log(run / "log.csv", trainer)
        if trainer.dataset.learnt:  # the colours of RGB maps, in the order of their ids: --palette reads it again
            write_palette(run / "palette.txt", trainer.dataset)
    except OSError as error:
        raise InputError(f"{run}: cannot write there ({error.strerror})") from None
    print_settings(s, origin, run, trainer.dataset)
    np.seterr(all="ignore")  # the loop looks for numbers that are not finite itself
    left = s.steps - trainer.step
    print(f"\n{ops.why}, preset {s.preset}: {left} steps.", flush=True)
    if left >= 20:
        print(f"They will take about {duration(left * rehearse(trainer))}.", flush=True)

    stop = []
    handlers = {name: signal.signal(name, lambda number, _: stop.append(number)) for name in (signal.SIGINT, signal.SIGTERM)}
    fixed_z = np.random.default_rng([s.seed, 2]).standard_normal((16, s.latent))
    weights = inception.load_weights() if args.evaluate_every and inception.cached_file().exists() else None  # FID's
    began, saved = time.perf_counter(), trainer.step
    bar = tqdm(total=s.steps, initial=trainer.step, unit=" steps", smoothing=0.05, dynamic_ncols=True, disable=None)
    try:
        with bar, log:
            while trainer.step < s.steps and not stop:
                trainer.train_step()
                step, last = trainer.step, trainer.step == s.steps or bool(stop)
                bar.update()
                if step % args.log_every == 0 or last:
                    losses = ops.asnumpy(trainer.losses)
                    if not np.isfinite(losses).all():
                        raise FloatingPointError(f"step {step}: a loss is no longer a finite number")
                    csv.writer(log).writerow([step, *(f"{x:.6g}" for x in losses), f"{time.perf_counter() - began:.1f}"])
                    log.flush()
                    bar.set_postfix_str(f"loss D {losses[0]:.3f} G {losses[1:].sum():.4f}")
                if step % args.save_every == 0 or last:
                    save_checkpoint(path, trainer)
                    saved = step
                    strip(trainer.generator.sample(fixed_z), palette).save(run / "samples" / f"step_{step:06d}.png")
                if args.evaluate_every and (step % args.evaluate_every == 0 or step == s.steps):
                    count = len(trainer.dataset.maps)
                    table = evaluation.measure(trainer.generator, trainer.dataset, count, s.seed, weights)
                    evaluation.write_table(run / "metrics.csv", step, count, s.seed, table)
        if saved != trainer.step:  # the signal came after the last look at it
            save_checkpoint(path, trainer)
    except FloatingPointError as error:
        kept = f"the last good checkpoint is of step {saved}, in {path}" if saved else "no checkpoint was saved yet"
        raise SystemExit(f"semgan: {error}; {kept}. Try a lower --learning-rate, or a lower "
                         "--discriminator-learning-rate, or --feature-matching mean.") from None
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)
    plot_curves(run)
    if stop:
        chosen = {"device": args.device, "precision": args.precision}
        how = "".join(f" --{name} {value}" for name, value in chosen.items() if value not in (None, "auto"))
        print(f"Stopped at step {trainer.step}; go on with: python semgan.py --resume --out {run}{how}")
        sys.exit(128 + stop[0])
    report(trainer, run)
    if args.evaluate_every:
        print("\n" + "\n".join(f"best {name:32s} {value:10.4g} at step {step}"
                               for name, (value, step) in evaluation.best_values(run / "metrics.csv").items()))


def rehearse(trainer):
    """The seconds that a step takes. The first of two steps compiles and allocates; then all is put back as it was."""
    ops, step = trainer.ops, trainer.step
    state = [(a, ops.asnumpy(a).copy()) for net in (trainer.generator, trainer.discriminator) for a in net.state().values()]
    for _ in range(2):
        began = time.perf_counter()
        trainer.train_step()
        ops.asnumpy(trainer.losses)  # waits for the device
    for a, before in state:
        ops.write(a, before)
    trainer.step = step
    return time.perf_counter() - began


def open_log(path, trainer):
    """log.csv, ready for appending; rows past the trainer's step are dropped."""
    header = ["step", "loss_d", *(f"features_{i}" for i in range(1, trainer.discriminator.layers + 1)), "seconds"]
    rows = []
    if trainer.step and path.exists():
        try:
            with open(path, newline="") as file:
                rows = [row for row in list(csv.reader(file))[1:]
                        if len(row) == len(header) and [float(x) for x in row] and int(row[0]) <= trainer.step]
        except (ValueError, csv.Error):
            raise InputError(f"{path}: not a readable log; remove it to go on without") from None
    aside = path.with_name("log.csv.tmp")
    with open(aside, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    os.replace(aside, path)
    return open(path, "a", newline="")


def report(trainer, run):
    """How good 256 samples are, beside the real maps themselves."""
    s, dataset = trainer.s, trainer.dataset
    maps = trainer.generator.sample(np.random.default_rng([s.seed, 3]).standard_normal((256, s.latent)))
    maps = metrics.nearest_class(maps, dataset.palette)
    print(f"\n{'':46s}256 samples   real maps")
    real = dataset.maps[::-(-len(dataset.maps) // 2000)]  # enough for two digits
    for label, metric, form in (("maps with every class at half its median area", metrics.whole_share, "{:.0%}"),
                                ("regions per map", lambda m, _, k: metrics.components(m)["per map"], "{:.2f}")):
        ours, theirs = (form.format(metric(m, real, dataset.classes)) for m in (maps, real))
        print(f"{label:46s}{ours:>11s}{theirs:>12s}")
    print(f"\nIn {run}: samples/, log.csv, curves.png, checkpoint.npz.\n"
          f"More maps: python semgan.py sample {run}    A walk: python semgan.py interpolate {run}\n"
          f"All metrics: python semgan.py evaluate {run}")


def evaluate(args):
    """`evaluate RUN`: every metric of new samples, beside the same of real maps in their place; also as metrics.csv."""
    header, _ = load_checkpoint(args.run)
    g, _ = load_generator(args.run, args.device)
    s, dataset = g.s, load_dataset(g.s)
    if header["maps"] != zlib.crc32(dataset.maps):
        raise InputError(f"{s.dataset}: its maps are no longer those that {args.run} was trained with")
    count = min(args.count or len(dataset.maps), len(dataset.maps))
    if count < 4:
        raise InputError(f"{count} maps: expected 4 or more, since half of them are compared with the other half")
    weights, reason = None, ""
    try:
        weights = inception.load_weights(args.weights)
    except InputError as error:
        if args.weights:
            raise
        reason = str(error)
    table = evaluation.measure(g, dataset, count, args.seed, weights)
    print(f"{args.run}: step {header['step']}, {count} samples, seed {args.seed}\n"
          f"{evaluation.describe(table, dataset.palette)}")
    if reason:
        print(f"\nNo FID: {reason}")
    out = Path(args.out or args.run)
    make_folder(out)
    evaluation.write_table(out / "metrics.csv", header["step"], count, args.seed, table)
    print(f"\nIn {out / 'metrics.csv'}. Half of them, and real maps: {count // 2} against {count // 2}.")


# ---------------------------------------------------------------------------------------- SemGAN against GAN
def compare(args):
    """`compare`: SemGAN and the RGB baseline on the same data, seed, steps and networks but for the last layer; one page."""
    if args.model:
        raise InputError("compare trains both models; leave out --model")
    folder = Path(args.out or f"runs/{Path(args.dataset or 'shapes').stem}-compare")
    steps = args.steps or resolve(args.dataset, args.preset, gpu=kernels.load(args.device).name == "gpu")[0].steps
    for model in "semgan", "gan":
        run = folder / model
        done = (run / "checkpoint.npz").exists()
        print(f"\n--- {model}" + ": goes on from its checkpoint" * done, flush=True)
        train(argparse.Namespace(**vars(args) | dict(model=model, out=str(run), resume=done,
                                                     evaluate_every=args.evaluate_every or max(1, steps // 10))))
    headers = {model: load_checkpoint(folder / model)[0] for model in ("semgan", "gan")}
    s, dataset = headers["semgan"]["settings"], load_dataset(headers["semgan"]["settings"])
    grids = {"real maps": strip(dataset.maps[np.linspace(0, len(dataset.maps) - 1, 16).astype(int)], dataset.palette)}
    for model, title in ("semgan", "SemGAN"), ("gan", "GAN"):
        grids[title] = Image.open(sorted((folder / model / "samples").glob("step_*.png"))[-1]).convert("RGB")
    comparison_page(folder, f"SemGAN and GAN on {Path(s.dataset).name}", grids,
                    f"{headers['semgan']['step']} and {headers['gan']['step']} steps, seed {s.seed}, side {s.side}, kernel size "
                    f"{s.kernel_size}.")


def duration(seconds):
    """75 -> '1 minute', 86400 -> '24 hours': for estimates."""
    for unit, size in ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1):
        if seconds >= 1.5 * size or unit == "second":
            count = max(1, round(seconds / size))
            return f"{count} {unit}{'s' * (count > 1)}"


# ---------------------------------------------------------------------------------------- command line
def resolve(dataset=None, preset=None, model=None, gpu=False, **flags):
    """The settings of a run as a namespace, and where each came from; flags that are None are not given."""
    given = {name: value for name, value in dict(dataset=dataset, preset=preset, model=model, **flags).items() if value is not None}
    preset = preset or ("full" if gpu else "small")
    scenes = FACADES if dataset == "facades" else STREET_SCENES
    scenes = {} if dataset in (None, "shapes") or preset == "small" else scenes
    layers = [("default", dict(dataset="shapes", model="semgan", **dict.fromkeys(data.OPTIONS))),
              ("on a GPU" if gpu else "not on a GPU", dict(preset=preset)),
              ("default", {name: default for name, (default, _) in SETTINGS.items()}),
              (f"the paper's {'facades' if scenes is FACADES else 'street scenes'}", scenes),
              (f"preset {preset}", PRESETS[preset]), ("flag", given)]
    values, origin = {}, {}
    for source, changes in layers:
        values |= changes
        origin |= dict.fromkeys(changes, source)
    return argparse.Namespace(**values), origin


def check(s):
    """Raises InputError for settings that cannot work."""
    def require(good, name, expected):
        if not good:
            raise InputError(f"--{name.replace('_', '-')} {show(getattr(s, name))}: expected {expected}")
    for name in "side", "steps", "batch_size", "latent", "kernel_size":
        require(1 <= getattr(s, name) < 1 << 31, name, "1 or more")
    require(s.steps <= 1 << 24, "steps", f"up to {1 << 24}, which Adam counts in float32")
    require(s.kernel_size % 2 == 1, "kernel_size", "an odd number, so that same padding is symmetric")
    for name in "seed", "decay_after", "half_life":
        require(getattr(s, name) >= 0, name, "0 or more")
    for name in "generator_filters", "discriminator_filters":
        filters = getattr(s, name)
        require(filters and all(type(f) is int and 1 <= f < 1 << 31 for f in filters), name, "channels of 1 or more")
        halvings = len(filters) - (name == "generator_filters")
        require(s.side % 2 ** halvings == 0, "side", f"a multiple of {2 ** halvings}, since the {name.split('_')[0]} "
                                                     f"has {halvings} layers of stride 2")
    for name in "learning_rate", "discriminator_learning_rate", "adam_eps", "bn_eps":
        require(0 < np.float32(getattr(s, name)) < np.inf, name, "a number above 0 that float32 can hold")
    for name in "beta1", "beta2":
        require(0 <= np.float32(getattr(s, name)) < 1, name, "a number from 0 to below 1 in float32")
    require(0 < s.bn_momentum <= 1, "bn_momentum", "a number above 0, up to 1")
    for name, choices in dict(CHOICES, model=["semgan", "gan"], preset=list(PRESETS)).items():
        require(getattr(s, name) in choices, name, " or ".join(choices))
    require(s.classes is None or 2 <= s.classes <= 256, "classes", "2 to 256")
    require(s.data is None or all(type(path) is str for path in s.data), "data", "paths")


def show(value):
    """A setting as one types it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def print_settings(s, origin, run, dataset):
    rows = [(name, show(value), origin.get(name, "")) for name, value in vars(s).items()]
    doubtful = f"{dataset.doubtful:.1%} of the pixels blurred by JPEG" if dataset.doubtful else ""
    rows += [("maps", f"{len(dataset.maps)} of {dataset.classes} classes", doubtful), ("run folder", run, "")]
    print("\n".join(f"{name.replace('_', ' '):28s} {value!s:24s} {source}".rstrip() for name, value, source in rows), flush=True)


def load_generator(run, device="auto"):
    """The trained generator of a run folder and its palette."""
    header, arrays = load_checkpoint(run)
    g = Generator(kernels.load(device), header["settings"], len(header["palette"]), np.random.default_rng(0))
    restore(g, "g", arrays, Path(run) / "checkpoint.npz")
    return g, header["palette"]


def sample(args):
    """`sample RUN`: new maps, each as an indexed PNG (RGB from the baseline), and a picture of all."""
    g, palette = load_generator(args.run, args.device)
    out = Path(args.out or Path(args.run) / "generated")
    maps = g.sample(np.random.default_rng(args.seed).standard_normal((args.count, g.s.latent)))
    make_folder(out)
    if any(out.glob("map_*.png")):
        raise InputError(f"{out} already holds maps; remove them, or choose another folder by --out")
    for i, ids in enumerate(tqdm(maps, unit=" maps", disable=None, delay=1)):
        image = Image.fromarray(ids)
        if not g.rgb:
            image.putpalette(palette.tobytes())
        image.save(out / f"map_{i:05d}.png")
    grid = out.with_name(out.name + ".png")  # beside the folder, which so stays a data set
    strip(maps[:256], palette).save(grid)
    print(f"{len(maps)} maps in {out}, a picture of them in {grid}")


def interpolate(args):
    """`interpolate RUN`: a closed walk through the latent space, as a GIF and as a strip."""
    g, palette = load_generator(args.run, args.device)
    keys = np.random.default_rng(args.seed).standard_normal((args.keys, g.s.latent))
    maps = g.sample(np.concatenate([slerp(a, b, args.frames) for a, b in zip(keys, np.roll(keys, -1, 0))]))
    out = Path(args.out or args.run)
    make_folder(out)
    frames = [strip(m[None], palette) for m in maps]
    frames = [frame.resize([4 * n for n in frame.size], 0) for frame in frames]
    frames[0].save(out / "interpolation.gif", save_all=True, append_images=frames[1:], duration=60, loop=0)
    strip(maps[:args.frames * 2], palette, columns=args.frames).save(out / "interpolation.png")
    print(f"interpolation.gif ({len(maps)} frames) and interpolation.png in {out}")


def slerp(a, b, frames):
    """From a towards b along a great circle, b excluded: straight lines would leave the shell where normal vectors live."""
    angle = np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))
    t = np.arange(frames)[:, None] / frames
    if np.sin(angle) < 1e-6:  # (almost) the same or the opposite direction
        return (1 - t) * a + t * b
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def make_folder(out):
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot write there ({error.strerror})") from None


def doctor(args):
    """`doctor`: what this machine has, what will be used, and why."""
    import platform
    from importlib import metadata
    installed = {d.metadata["Name"].lower() for d in metadata.distributions() if d.metadata["Name"]}
    version = lambda name: metadata.version(name) if name in installed else "missing"
    cupy = sorted(name for name in installed if name == "cupy" or name.startswith(("cupy-cuda", "cupy-rocm")))
    rows = [("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
            *((name, version(name)) for name in ("numpy", "scipy", "pillow", "tqdm", "matplotlib", "threadpoolctl")),
            ("CuPy", ", ".join(f"{name} {version(name)}" for name in cupy) or "missing"), *kernels.found(),
            ("will use", kernels.load().why)]
    print("\n".join(f"{name:14s} {value}" for name, value in rows))
    if len(cupy) > 1:
        raise InputError(f"{' and '.join(cupy)} break each other: pip uninstall all of them, then install one")


def parse(argv):
    """The command and its arguments."""
    commands = {"sample": sample, "evaluate": evaluate, "interpolate": interpolate, "doctor": doctor}
    if argv and argv[0] in commands:
        command = commands[argv[0]]
        parser = argparse.ArgumentParser(prog=f"semgan.py {argv[0]}", description=command.__doc__.split(": ", 1)[1])
        if command is not doctor:
            parser.add_argument("run", help="a run folder, such as runs/shapes-semgan")
            parser.add_argument("--seed", type=natural, default=0, help="fixes the latents (default 0)")
            parser.add_argument("--out", help="where to write (default: inside the run folder)")
            parser.add_argument("--device", default="auto", choices=kernels.DEVICES, help="where to compute (default auto)")
        if command is sample:
            parser.add_argument("--count", type=positive, default=64, help="how many maps (default 64)")
        if command is evaluate:
            parser.add_argument("--count", type=positive, help="how many samples (default: as many as there are training maps)")
            parser.add_argument("--weights", metavar="FILE", help="of Inception, for FID (default: in the cache, where "
                                "`python inception.py --download` puts them)")
        if command is interpolate:
            parser.add_argument("--keys", type=lambda text: natural(text, 2), default=6, help="latents to pass through (default 6)")
            parser.add_argument("--frames", type=positive, default=16, help="frames from one to the next (default 16)")
        return command, parser.parse_args(argv[1:])

    command = train
    if argv and argv[0] == "compare":  # takes the same options
        command, argv = compare, argv[1:]
    parser = argparse.ArgumentParser(
        prog="semgan.py", usage="semgan.py --dataset shapes [options]\n       semgan.py compare --dataset "
                                "shapes [options]\n       semgan.py {sample,evaluate,interpolate} RUN\n"
                                "       semgan.py doctor", formatter_class=lambda prog: argparse.HelpFormatter(prog, width=80),
        description="Train a GAN whose generator writes label maps: K class probabilities a pixel. Other commands: sample "
                    "(new maps), evaluate (all metrics), compare (SemGAN beside the RGB baseline), interpolate (a walk through the "
                    "latent space), doctor (what this machine has).")
    data_command.add_arguments(parser)
    parser.add_argument("--model", choices=["semgan", "gan"],
                        help="semgan: softmax over the classes (the default); gan: RGB through tanh, the paper's baseline")
    parser.add_argument("--preset", choices=PRESETS, help="small: side 32, minutes on two cores (the default without a GPU); "
                        "full: the paper's sizes, without its bottleneck; paper: the paper's drawing to the letter")
    run = parser.add_argument_group("the run")
    run.add_argument("--out", metavar="DIR", help="the run folder (default runs/DATASET-MODEL)")
    run.add_argument("--resume", action="store_true", help="go on from the run folder's checkpoint")
    run.add_argument("--save-every", type=positive, default=250, metavar="N", help="steps between checkpoints, and between "
                     "sample grids of the same latents (default 250)")
    run.add_argument("--log-every", type=positive, default=10, metavar="N", help="steps between rows of log.csv (default 10)")
    run.add_argument("--evaluate-every", type=positive, default=0, metavar="N", help="steps between evaluations of all metrics, "
                     "kept in metrics.csv (default: none; compare: a tenth of the steps)")
    run.add_argument("--device", default="auto", choices=kernels.DEVICES, help="where to compute: cuda, on a GPU; numpy; "
                     "emulator, the CUDA kernels on the CPU; auto, cuda if there is a GPU, else numpy (default auto)")
    run.add_argument("--precision", choices=kernels.PRECISIONS, help="what convolutions on a GPU or in the emulator round "
                     "their factors to: fp32, not at all; tf32 or bf16, for tensor cores. Sums and all else stay in float32 "
                     "(default tf32 on a GPU of compute capability 8.0 or more, else fp32)")
    group = parser.add_argument_group("the method", "In brackets: the default, then what a preset changes. Presets full and "
                                      "paper of your own maps start from the paper's settings for street scenes: "
                                      + ", ".join(f"{name.replace('_', ' ')} {show(v)}" for name, v in STREET_SCENES.items())
                                      + f"; of facades the same with latent {FACADES['latent']}.")
    for name, (default, meaning) in SETTINGS.items():
        changed = [f"{preset} {show(changes[name])}" for preset, changes in PRESETS.items() if name in changes]
        options = dict(help=f"{meaning} [{'; '.join([show(default), *changed])}]")
        if isinstance(default, bool):
            options |= dict(action=argparse.BooleanOptionalAction)
        elif isinstance(default, list):
            options |= dict(type=int, nargs="+", metavar="N")
        elif name in CHOICES:
            options |= dict(choices=CHOICES[name])
        else:
            options |= dict(type=type(default), metavar="N" if isinstance(default, int) else "X")
        group.add_argument("--" + name.replace("_", "-"), default=None, **options)
    return command, parser.parse_args(argv)


def natural(text, least=0):
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"{text}: expected {least} or more")
    return number


def positive(text):
    return natural(text, 1)


def main(argv=None):
    command, args = parse(sys.argv[1:] if argv is None else argv)
    try:
        command(args)
    except (InputError, kernels.DeviceError) as error:
        print(f"semgan: {error}", file=sys.stderr)
        sys.exit(2)
    except kernels.KernelError as error:
        print(f"semgan: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(f"semgan: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except MemoryError as error:
        print(f"semgan: not enough memory ({error}); try a smaller side, batch size or count", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("semgan: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
