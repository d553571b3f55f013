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
from tqdm import tqdm

import data
import inception
import kernels
import label_maps
import metrics
from data import InputError

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


# ----------------------------------------------------------------------------------- settings of a run
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


def settings(dataset="shapes", preset="full", model="semgan", **changes):
    """The settings of a run as a namespace, checked."""
    s = resolve(dataset, preset, model, **changes)[0]
    check(s)
    return s


def check_settings(s):
    check(s)


if __name__ == "__main__":
    from app.command_line import main
    main()
