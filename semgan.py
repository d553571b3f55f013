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
from pathlib import Path

import numpy as np
from tqdm import tqdm

import data
import kernels
import metrics
from data import InputError

# ------------------------------------------------------------------------------------------ settings
# The network, the losses and the optimizer: name -> (default, meaning and reason). Every one is a flag.
# The defaults are the paper's settings for Colored Shapes (its Appendix B); presets change some of them.
SETTINGS = {
    "side": (64, "height and width of a map in pixels"),
    "steps": (50_000, "training steps in total, the paper's number"),
    "batch_size": (32, "maps per step"),
    "latent": (100, "numbers in a latent vector z ~ N(0, 1)"),
    "kernel_size": (11, "height and width of every convolution kernel, odd"),
    "generator_filters": ([128, 256, 128, 64], "channels of the first map and after each stride-2 transposed convolution"),
    "discriminator_filters": ([64, 128, 256], "channels after each stride-2 convolution; one more layer at side 128 (DCGAN)"),
    "bottleneck": (False, "the paper's extra transposed convolution to K channels; without it the generator trains better"),
    "feature_matching": ("mean", "mean: of the batch's features (Salimans et al. 2016, cited by the paper); "
                                 "paired: map by map (the authors' library)"),
    "feature_layers": ("all", "all: sum over D's layers; last: the last one only, which leaves checkerboards"),
    "learning_rate": (1e-4, "of the generator's Adam"),
    "discriminator_learning_rate": (1e-4, "of the discriminator's Adam; the paper uses the same for both"),
    "beta1": (0.5, "Adam's decay of the mean gradient; 0.9 oscillates in GANs (DCGAN)"),
    "beta2": (0.999, "Adam's decay of the mean squared gradient"),
    "adam_eps": (1e-8, "Adam's eps"),
    "init": ("glorot", "weights: glorot (uniform, the authors' library) or normal (0, 0.02) (DCGAN)"),
    "seed": (0, "fixes data, weights, latents and batches"),
}
CHOICES = {"feature_matching": ["mean", "paired"], "feature_layers": ["all", "last"], "init": ["glorot", "normal"]}
PRESETS = {
    "small": dict(side=32, steps=6000, kernel_size=5, generator_filters=[64, 128, 64, 32],
                  discriminator_filters=[32, 64, 128], learning_rate=5e-4, discriminator_learning_rate=5e-4),
    "full": {},
    "paper": dict(bottleneck=True),
}
# The paper's settings for street scenes (the row of its Table 3 with the best FID), for every data set but the shapes.
STREET_SCENES = dict(side=128, latent=128, kernel_size=7, learning_rate=2e-4, discriminator_learning_rate=2e-4,
                     discriminator_filters=[64, 128, 256, 512])

BN_MOMENTUM, BN_EPS = 0.1, 1e-5  # of batch normalization's running statistics; the usual values
BLOCK = 100                      # steps whose latents and map indices are drawn at once


# ------------------------------------------------------------------------------------------- network
class Network:
    """The parameters of one network: named views into flat buffers, so that Adam is one call.

    shapes: {name: shape}. self.p[name] is a parameter and self.d[name] its gradient; self.flat holds the buffers
    params, grads, m, v (n,) and the update counter step (1,); self.running the batch-norm statistics.
    """
    def __init__(self, ops, shapes, init, rng):
        self.ops, align, offset, offsets = ops, 256 // ops.dtype.itemsize, 0, {}
        for name, shape in shapes.items():
            offsets[name] = offset
            offset += -(-int(np.prod(shape)) // align) * align  # every tensor starts at a multiple of 256 bytes
        self.flat = {name: ops.asarray(np.zeros(offset)) for name in ("params", "grads", "m", "v")}
        self.flat["step"] = ops.asarray(np.zeros(1))
        view = lambda buffer: {n: self.flat[buffer][o:o + int(np.prod(shapes[n]))].reshape(shapes[n])
                               for n, o in offsets.items()}
        self.p, self.d = view("params"), view("grads")
        self.running = {}
        for name, p in self.p.items():
            if name.endswith(".w"):
                kh, kw, cin, cout = p.shape
                limit = np.sqrt(6 / (kh * kw * (cin + cout)))  # Glorot and Bengio 2010
                draw = rng.uniform(-limit, limit, p.shape) if init == "glorot" else rng.normal(0, 0.02, p.shape)
                p[...] = ops.asarray(draw)
            elif name.endswith(".gamma"):
                p[...] = 1
                self.running[name] = ops.asarray(np.zeros(p.shape)), ops.asarray(np.ones(p.shape))  # mean, variance

    def adam(self, lr, s):
        f = self.flat
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
    return net.ops.conv(x, net.p[name + ".w"], bias=net.p[name + ".b"], activation="relu").reshape(len(x), -1)


def dense_relu_grad(net, name, dy, x, y):
    """No dx: x is the latent vector."""
    dy = net.ops.bias_activation_grad(dy.reshape(len(x), 1, 1, -1), y.reshape(len(x), 1, 1, -1), "relu", net.d[name + ".b"])
    net.ops.conv_weight_grad(x.reshape(len(x), 1, 1, -1), dy, net.d[name + ".w"].shape, out=net.d[name + ".w"])


def deconv_norm_relu(net, name, x, stride, training):
    """relu(batch_norm(transposed convolution(x))). (B, H, W, Cin) -> (B, stride H, stride W, Cout), and what the gradient needs.

    A transposed convolution *is* the input gradient of a convolution: a convolution with stride 2 maps the large map to
    the small one, and its gradient maps small to large. So the weights are stored as that convolution's: (kh, kw, Cout, Cin).
    """
    w, gamma, beta = net.p[name + ".w"], net.p[name + ".gamma"], net.p[name + ".beta"]
    b, h, width, _ = x.shape
    a = net.ops.conv_input_grad(x, w, (b, stride * h, stride * width, w.shape[2]), stride, w.shape[0] // 2)
    mean, var = net.running[name + ".gamma"]
    if training:
        y, mean, var = net.ops.batch_norm(a, gamma, beta, mean, var, BN_MOMENTUM, BN_EPS, "relu")
    else:
        y = net.ops.batch_norm_inference(a, gamma, beta, mean, var, BN_EPS, "relu")
    return y, (x, a, y, mean, var)


def deconv_norm_relu_grad(net, name, dy, saved, stride):
    (x, a, y, mean, var), w, pad = saved, net.p[name + ".w"], net.p[name + ".w"].shape[0] // 2
    da = net.ops.batch_norm_grad(dy, a, y, net.p[name + ".gamma"], mean, var, BN_EPS, "relu",
                                 dgamma=net.d[name + ".gamma"], dbeta=net.d[name + ".beta"])
    net.ops.conv_weight_grad(da, x, w.shape, stride, pad, out=net.d[name + ".w"])  # roles exchanged: da is the large map
    return net.ops.conv(da, w, stride, pad)


def conv_leaky(net, name, x):
    """leaky_relu(conv(x) + b) with stride 2. (B, H, W, Cin) -> (B, H / 2, W / 2, Cout)."""
    w = net.p[name + ".w"]
    return net.ops.conv(x, w, 2, w.shape[0] // 2, bias=net.p[name + ".b"], activation="leaky_relu")


def conv_leaky_grad(net, name, dy, x, y, weights=True, inputs=True):
    """Fills the parameters' gradients if `weights`, returns dx if `inputs`."""
    w = net.p[name + ".w"]
    dy = net.ops.bias_activation_grad(dy, y, "leaky_relu", net.d[name + ".b"] if weights else None)
    if weights:
        net.ops.conv_weight_grad(x, dy, w.shape, 2, w.shape[0] // 2, out=net.d[name + ".w"])
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
        self.rgb, self.latent = s.model == "gan", s.latent
        widths = f + [classes] * s.bottleneck
        channels = 3 if self.rgb else classes
        shapes = {"dense.w": (1, 1, s.latent, self.base ** 2 * f[0]), "dense.b": (self.base ** 2 * f[0],)}
        for i, (cin, cout) in enumerate(zip(widths, widths[1:]), 1):
            shapes |= {f"deconv{i}.w": (k, k, cout, cin), f"deconv{i}.gamma": (cout,), f"deconv{i}.beta": (cout,)}
        shapes |= {"conv.w": (k, k, widths[-1], channels), "conv.b": (channels,)}
        super().__init__(ops, shapes, s.init, rng)

    def forward(self, z, training=True, out=None):
        """Returns the maps and what backward needs. In training, batch norm uses the batch's statistics."""
        h = dense_relu(self, "dense", z)
        saved, h = [(z, h)], h.reshape(len(z), self.base, self.base, -1)
        for i, stride in enumerate(self.strides, 1):
            h, saved_layer = deconv_norm_relu(self, f"deconv{i}", h, stride, training)
            saved.append(saved_layer)
        w, b = self.p["conv.w"], self.p["conv.b"]
        if self.rgb:
            maps = self.ops.conv(h, w, 1, w.shape[0] // 2, bias=b, activation="tanh", out=out)
        else:
            maps = self.ops.softmax(self.ops.conv(h, w, 1, w.shape[0] // 2), b, out=out)
        return maps, saved + [(h, maps)]

    def backward(self, dmaps, saved):
        """Fills self.d from the gradient of the maps."""
        (h, maps), w, db = saved[-1], self.p["conv.w"], self.d["conv.b"]
        if self.rgb:
            da = self.ops.bias_activation_grad(dmaps, maps, "tanh", db)
        else:
            da = self.ops.softmax_grad(dmaps, maps, db)
        self.ops.conv_weight_grad(h, da, w.shape, 1, w.shape[0] // 2, out=self.d["conv.w"])
        dh = self.ops.conv_input_grad(da, w, h.shape, 1, w.shape[0] // 2)
        for i in range(len(self.strides), 0, -1):
            dh = deconv_norm_relu_grad(self, f"deconv{i}", dh, saved[i], self.strides[i - 1])
        dense_relu_grad(self, "dense", dh, *saved[0])


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
        super().__init__(ops, shapes, s.init, rng)

    def forward(self, maps):
        """Returns logits (B, 1, 1, 1) and the features: the maps, then each layer's output."""
        features = [maps]
        for i in range(1, self.layers + 1):
            features.append(conv_leaky(self, f"conv{i}", features[-1]))
        h = features[-1].reshape(len(maps), 1, 1, -1)
        return self.ops.conv(h, self.p["dense.w"], bias=self.p["dense.b"]), features

    def backward(self, dlogits, features):
        """Fills self.d from the gradient of the logits."""
        h, w = features[-1].reshape(len(dlogits), 1, 1, -1), self.p["dense.w"]
        dlogits = self.ops.bias_activation_grad(dlogits, dlogits, None, self.d["dense.b"])
        self.ops.conv_weight_grad(h, dlogits, w.shape, out=self.d["dense.w"])
        dh = self.ops.conv_input_grad(dlogits, w, h.shape).reshape(features[-1].shape)
        for i in range(self.layers, 0, -1):
            dh = conv_leaky_grad(self, f"conv{i}", dh, features[i - 1], features[i], inputs=i > 1)

    def feature_matching(self, features, reading, layers, losses):
        """The generator's loss, layer by layer into losses (L,), and its gradient with respect to the generated maps.

        features: of real and generated maps, stacked in this order. The real ones are constants.
        """
        b, dh = len(features[0]) // 2, None
        for i in range(self.layers, 0, -1):
            real, fake = features[i][:b], features[i][b:]
            if layers == "all" or i == self.layers:
                _, dh = self.ops.feature_matching(real, fake, reading, losses[i - 1:i], dh)  # adds to dh from the layers above
            dh = conv_leaky_grad(self, f"conv{i}", dh, features[i - 1][b:], fake, weights=False)
        return dh


# ------------------------------------------------------------------------------------- one training step
class Trainer:
    """Both networks, the label maps on the device, and one step of training."""

    def __init__(self, ops, s, dataset):
        self.ops, self.s, self.dataset, self.step = ops, s, dataset, 0
        rng = np.random.default_rng([s.seed, 0])
        self.g, self.d = Generator(ops, s, dataset.classes, rng), Discriminator(ops, s, dataset.classes, rng)
        # One-hot vectors, or for the RGB baseline the class's colour in [-1, 1].
        table = dataset.palette / 127.5 - 1 if s.model == "gan" else np.eye(dataset.classes)
        self.labels, self.table = dataset.maps, ops.asarray(table)
        self.lr_g, self.lr_d = ops.asarray([s.learning_rate]), ops.asarray([s.discriminator_learning_rate])
        b = s.batch_size
        self.targets = ops.asarray(np.repeat([1, 0], b).reshape(2 * b, 1, 1, 1))  # real maps 1, generated maps 0
        self.losses = ops.asarray(np.zeros(1 + self.d.layers))  # D's, then feature matching layer by layer
        self.block = None

    def inputs(self, step):
        """z (B, latent) and map indices (B,) of a step: drawn by block, from the seed and the block's number alone."""
        block, offset = divmod(step, BLOCK)
        if self.block != block:
            rng, self.block = np.random.default_rng([self.s.seed, 1, block]), block
            self.z = self.ops.asarray(rng.standard_normal((BLOCK, self.s.batch_size, self.s.latent)))
            self.index = rng.integers(len(self.labels), size=(BLOCK, self.s.batch_size))
        return self.z[offset], self.index[offset]

    def train_step(self):
        """One step: D learns to tell real maps x from G(z); then G learns to match D's features on the same x and z."""
        ops, s, g, d = self.ops, self.s, self.g, self.d
        z, index = self.inputs(self.step)
        with ops.arena:
            b = len(z)
            maps = ops.empty(2 * b, s.side, s.side, self.table.shape[1])  # real maps, then generated ones
            ops.gather(self.labels, index, self.table, out=maps[:b])
            _, saved = g.forward(z, out=maps[b:])
            # L_D = 1/2 (BCE(D(x), 1) + BCE(D(G(z)), 0)): the mean over both halves of the batch.
            logits, features = d.forward(maps)
            _, dlogits = ops.bce_with_logits(logits, self.targets, self.losses[:1])
            d.backward(dlogits, features)
            d.adam(self.lr_d, s)
            # L_G: feature matching through the discriminator just updated.
            _, features = d.forward(maps)
            g.backward(d.feature_matching(features, s.feature_matching, s.feature_layers, self.losses[1:]), saved)
            g.adam(self.lr_g, s)
        self.step += 1

    def sample(self, z):
        """Label maps (N, side, side) uint8, or RGB (N, side, side, 3) uint8 from the baseline; running statistics."""
        maps = []
        for start in range(0, len(z), 64):
            with self.ops.arena:
                out, _ = self.g.forward(self.ops.asarray(z[start:start + 64]), training=False)
                out = self.ops.asnumpy(out)
                maps.append(np.clip(np.rint((out + 1) * 127.5), 0, 255).astype(np.uint8) if self.g.rgb
                            else out.argmax(-1).astype(np.uint8))
        return np.concatenate(maps)


def resolve(dataset, preset, model="semgan", **flags):
    """The settings of a run as a namespace: defaults, then the preset's, then the flags that are not None."""
    changes = {} if dataset == "shapes" or preset == "small" else STREET_SCENES
    values = {name: default for name, (default, _) in SETTINGS.items()} | changes | PRESETS[preset]
    values |= {name: value for name, value in flags.items() if value is not None}
    return argparse.Namespace(dataset=dataset, preset=preset, model=model, **values)
