"""SemGAN from scratch: a generative adversarial network for label maps, without a framework.

Ghelfi et al. 2019, "Adversarial Pixel-Level Generation of Semantic Images" (arXiv 1906.12195). Read
this file from top to bottom: settings -> layers -> generator and discriminator -> one training
step. The arithmetic, called `ops` here, is in kernels/; data.py makes the label maps; app/ is the
program around it: training loop, files, command line.
"""
from argparse import Namespace
from collections import namedtuple
from functools import partial

import numpy as np

import data
from data import InputError
from kernels import buffers

# --------------------------------------------------------------------------------------- settings
# Networks, losses and optimizer: name -> (default, meaning and reason). Each is a flag too. The
# defaults are the paper's settings for Colored Shapes (Appendix B); presets change some of them.
SETTINGS = {
    "side": (64, "height and width of a map in pixels"),
    "steps": (50_000, "training steps in total, the paper's number"),
    "batch_size": (32, "maps in a step; fewer make the means that feature matching compares noisy"),
    "latent": (100, "numbers in a latent vector z ~ N(0, 1), the paper's"),
    "kernel_size": (11, "sides of all kernels, odd; large ones see a whole shape, 5 trains worse"),
    "generator_filters": ([128, 256, 128, 64], "channels at first, and each time the sides double"),
    "discriminator_filters": ([64, 128, 256], "channels each time the sides are halved (DCGAN)"),
    "bottleneck": (False, "the paper's layer of K channels before the last; it trains worse with"),
    "feature_matching": ("mean", "mean: of the batch's features (Salimans et al. 2016, cited by "
                         "the paper); paired: map by map (the authors' library)"),
    "feature_layers": ("all", "all of the discriminator's, or only the last: checkerboards remain"),
    "learning_rate": (1e-4, "of the generator's Adam, the paper's; a short run needs more"),
    "discriminator_learning_rate": (1e-4, "of the discriminator's Adam; equal in the paper"),
    "decay_after": (0, "steps before both learning rates begin to fall"),
    "half_life": (0, "steps in which they then halve; 0: never, the paper's, for a long run"),
    "beta1": (0.5, "Adam's decay of the mean gradient; 0.9 oscillates in GANs (DCGAN)"),
    "beta2": (0.999, "Adam's decay of the mean squared gradient, the paper's"),
    "adam_eps": (1e-8, "keeps Adam from dividing by 0, the paper's"),
    "bn_momentum": (0.1, "share of a batch in batch norm's running statistics; usual"),
    "bn_eps": (1e-5, "keeps batch norm from dividing by 0; usual"),
    "init": ("glorot", "weights: glorot (uniform, the authors' library) or normal (DCGAN)"),
    "seed": (0, "determines data, weights, latent vectors and batches"),
}
CHOICES = {
    "feature_matching": ["mean", "paired"],
    "feature_layers": ["all", "last"],
    "init": ["glorot", "normal"],
}
PRESETS = {
    "small": dict(side=32, steps=7400, generator_filters=[128, 64, 32, 16],
                  discriminator_filters=[16, 32, 64], learning_rate=1e-3,
                  discriminator_learning_rate=2e-4, half_life=2400),
    "full": {},
    "paper": dict(bottleneck=True),
}
# The paper's settings for street scenes (the row with the best FID of its Table 3), which presets
# full and paper take for your own maps; and for facades (Table 4).
STREET_SCENES = dict(side=128, latent=128, kernel_size=7, learning_rate=2e-4,
                     discriminator_learning_rate=2e-4,
                     discriminator_filters=[64, 128, 256, 512])
FACADES = STREET_SCENES | dict(latent=300)


def settings(dataset="shapes", preset="full", model="semgan", **changes):
    """The settings of a run, as attributes. `changes` are some of SETTINGS or data.OPTIONS.

    Raises InputError.
    """
    s = Namespace(dataset=dataset, model=model, **dict.fromkeys(data.OPTIONS), preset=preset)
    for _, values in setting_layers(dataset, preset):
        vars(s).update(values)
    unknown = changes.keys() - vars(s).keys()
    if unknown:
        raise InputError(f"no setting {', '.join(sorted(unknown))}; "
                         f"expected some of {', '.join(vars(s))}")
    vars(s).update(changes)
    check_settings(s)
    return s


def setting_layers(dataset, preset):
    """[(where settings come from, {name: value})]; a later one overrides those before it."""
    layers = [("default", {name: default for name, (default, _) in SETTINGS.items()})]
    if dataset == "facades" and preset != "small":
        layers.append(("the paper's facades", FACADES))
    elif dataset != "shapes" and preset != "small":
        layers.append(("the paper's street scenes", STREET_SCENES))
    return [*layers, (f"preset {preset}", PRESETS.get(preset, {}))]


# Names of settings, what they must be, and that in words.
RULES = [
    ("side steps batch_size latent kernel_size", lambda x: 1 <= x < 1 << 31, "1 or more"),
    ("steps", lambda x: x <= 1 << 24, f"up to {1 << 24}, which Adam counts in float32"),
    ("kernel_size", lambda x: x % 2 == 1, "an odd number, so that padding is symmetric"),
    ("seed decay_after half_life", lambda x: x >= 0, "0 or more"),
    ("generator_filters discriminator_filters",
     lambda x: x and all(type(n) is int and 1 <= n < 1 << 31 for n in x), "channels of 1 or more"),
    ("learning_rate discriminator_learning_rate adam_eps bn_eps",
     lambda x: 0 < np.float32(x) < np.inf, "a number above 0 that float32 can hold"),
    ("beta1 beta2", lambda x: 0 <= np.float32(x) < 1, "from 0 to below 1 in float32"),
    ("bn_momentum", lambda x: 0 < x <= 1, "a number above 0, up to 1"),
    ("classes", lambda x: x is None or 2 <= x <= 256, "2 to 256"),
    ("data", lambda x: x is None or all(type(path) is str for path in x), "paths"),
]


def check_settings(s):
    """Raises InputError for settings that cannot work, named as the flags that they are."""
    def require(good, name, expected):
        if not good:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} {getattr(s, name)}: expected {expected}")

    for name, choices in dict(CHOICES, model=list(OUTPUTS), preset=list(PRESETS)).items():
        require(getattr(s, name) in choices, name, " or ".join(choices))
    for names, rule, expected in RULES:
        for name in names.split():
            require(rule(getattr(s, name)), name, expected)
    for network, layers in (("generator", len(s.generator_filters) - 1),
                            ("discriminator", len(s.discriminator_filters))):
        require(s.side % 2 ** layers == 0, "side", f"a multiple of {2 ** layers}, since the "
                f"{network} has {layers} layers of stride 2")


# ------------------------------------------------------------------------------------- parameters
class Network:
    """The parameters of one network. All lie in flat buffers, so that Adam is one call.

    params[name] is a parameter and grads[name] its gradient: views of flat["params"] and
    flat["grads"], each (n,). flat also holds Adam's moments "m" and "v" (n,) and its counter
    "step" (1,). running[name] is the pair of running mean and variance of the batch norm whose
    scale is params[name].
    """
    def __init__(self, ops, s, shapes, rng):
        """shapes: {name: shape}; names end in .w, .b, .gamma or .beta."""
        self.ops = ops
        self.s = s
        _, n = buffers.places(shapes, ops.dtype)
        host = np.zeros(n, ops.dtype)
        for name, p in buffers.views(host, shapes).items():
            p[...] = initial_values(name, p.shape, s.init, rng)
        self.flat = {"params": ops.asarray(host), "step": ops.asarray(np.zeros(1))}
        for name in "grads", "m", "v":
            self.flat[name] = ops.asarray(np.zeros(n))
        self.params = buffers.views(self.flat["params"], shapes)
        self.grads = buffers.views(self.flat["grads"], shapes)
        self.running = {name: (ops.asarray(np.zeros(shape)), ops.asarray(np.ones(shape)))
                        for name, shape in shapes.items() if name.endswith(".gamma")}

    def update(self, learning_rate):
        """One update by Adam of all parameters, in place. learning_rate: (1,)."""
        s = self.s
        params, grads, m, v, step = map(self.flat.get, ("params", "grads", "m", "v", "step"))
        self.ops.adam(params, grads, m, v, step, learning_rate, s.beta1, s.beta2, s.adam_eps,
                      out=(params, m, v, step))

    def state(self):
        """{name: array} of all that a checkpoint must hold, as live views."""
        state = {name: a for name, a in self.flat.items() if name != "grads"}
        for name, (mean, var) in self.running.items():
            state[f"{name}.running_mean"] = mean
            state[f"{name}.running_var"] = var
        return state


def initial_values(name, shape, init, rng):
    """Random weights, scales of 1, and 0 for every bias."""
    if not name.endswith(".w"):
        return np.full(shape, name.endswith(".gamma"))
    if init == "normal":
        return rng.normal(0, 0.02, shape)
    kh, kw, cin, cout = shape
    limit = np.sqrt(6 / (kh * kw * (cin + cout)))  # Glorot and Bengio 2010
    return rng.uniform(-limit, limit, shape)


# ----------------------------------------------------------------------------------------- layers
# Each layer is a function, with its gradient below it. `net` holds its parameters and receives
# their gradients. A gradient function takes dy, the gradient of the output, and returns dx, that
# of the input. ops.rounded(x) rounds x for tensor cores once, where two convolutions need it.
def same(w):
    """The padding with which an odd kernel keeps a map's sides, at stride 1."""
    return w.shape[0] // 2


def conv(net, name, x, stride=1, activation=None, out=None):
    """act(conv(x) + b): (B, H, W, Cin) -> (B, H / stride, W / stride, Cout).

    On 1x1 maps, with a 1x1 kernel, this is a dense layer.
    """
    w, bias = net.params[name + ".w"], net.params[name + ".b"]
    return net.ops.conv(x, w, stride, same(w), bias, activation, out=out)


def conv_grad(net, name, dy, x, y, stride=1, activation=None, inputs=True):
    """Fills the parameters' gradients. Returns dx, or None unless `inputs`."""
    dbias = net.grads[name + ".b"]
    dy, _ = net.ops.bias_activation_grad(dy, y, activation, out=(None, dbias))
    return weight_and_input_grad(net, name, dy, x, stride, inputs)


def conv_softmax(net, name, x, out=None):
    """softmax(conv(x) + b) over the channels."""
    w, bias = net.params[name + ".w"], net.params[name + ".b"]
    return net.ops.softmax(net.ops.conv(x, w, 1, same(w)), bias, out=out)


def conv_softmax_grad(net, name, dy, x, y):
    """Fills the parameters' gradients, returns dx."""
    dy, _ = net.ops.softmax_grad(dy, y, out=(None, net.grads[name + ".b"]))
    return weight_and_input_grad(net, name, dy, x)


def weight_and_input_grad(net, name, dy, x, stride=1, inputs=True):
    w, dw = net.params[name + ".w"], net.grads[name + ".w"]
    dy = net.ops.rounded(dy)
    net.ops.conv_weight_grad(x, dy, w.shape, stride, same(w), out=dw)
    return net.ops.conv_input_grad(dy, w, x.shape, stride, same(w)) if inputs else None


# What the gradient needs: the input, the convolution's output with its statistics, the output.
Kept = namedtuple("Kept", "x a mean var y")


def deconv_norm_relu(net, name, x, stride, training):
    """y = relu(batch_norm(transposed conv(x))): (B, H, W, Cin) -> (B, stride H, stride W, Cout).

    A transposed convolution *is* the input gradient of a convolution: with stride 2 that maps the
    large map to the small one, and its gradient maps small to large. So the weights are stored as
    that convolution's, (kh, kw, Cout, Cin). Returns y and what the gradient needs.
    """
    ops, s, w = net.ops, net.s, net.params[name + ".w"]
    gamma, beta = net.params[name + ".gamma"], net.params[name + ".beta"]
    mean, var = net.running[name + ".gamma"]
    x = ops.rounded(x)
    b, height, width, _ = x.shape
    a = ops.conv_input_grad(x, w, (b, stride * height, stride * width, w.shape[2]), stride, same(w))
    if training:
        y, mean, var, _, _ = ops.batch_norm(a, gamma, beta, mean, var, s.bn_momentum, s.bn_eps,
                                            "relu", out=(None, None, None, mean, var))
    else:
        y = ops.batch_norm_inference(a, gamma, beta, mean, var, s.bn_eps, "relu")
    return y, Kept(x, a, mean, var, y)


def deconv_norm_relu_grad(net, name, dy, kept, stride):
    """Fills the parameters' gradients, returns dx."""
    ops, w, dw = net.ops, net.params[name + ".w"], net.grads[name + ".w"]
    dgamma, dbeta = net.grads[name + ".gamma"], net.grads[name + ".beta"]
    da, _, _ = ops.batch_norm_grad(dy, kept.a, kept.y, net.params[name + ".gamma"], kept.mean,
                                   kept.var, net.s.bn_eps, "relu", out=(None, dgamma, dbeta))
    da = ops.rounded(da)
    ops.conv_weight_grad(da, kept.x, w.shape, stride, same(w), out=dw)  # da is the large map
    return ops.conv(da, w, stride, same(w))


# The two models differ in how a map is written, and so in the generator's last layer. SemGAN: K
# probabilities for each pixel; real maps are one-hot (section 3.2). The baseline, a GAN of images:
# RGB in [-1, 1]. `encoding` is a class's vector in real maps, `decode` makes uint8 of the output.
Output = namedtuple("Output", "rgb encoding layer layer_grad decode")
OUTPUTS = {
    "semgan": Output(
        rgb=False,
        encoding=lambda palette: np.eye(len(palette)),  # (K, channels)
        layer=conv_softmax,
        layer_grad=conv_softmax_grad,
        decode=lambda maps: maps.argmax(-1).astype(np.uint8)),  # class ids (B, H, W)
    "gan": Output(
        rgb=True,
        encoding=lambda palette: palette / 127.5 - 1,
        layer=partial(conv, activation="tanh"),
        layer_grad=partial(conv_grad, activation="tanh"),
        decode=lambda maps: np.clip(np.rint((maps + 1) * 127.5), 0, 255).astype(np.uint8)),
}


# -------------------------------------------------------------------- generator and discriminator
# What Generator.backward needs: the input, the dense layer's output, a Kept for each transposed
# convolution, the last convolution's input, the output.
KeptByGenerator = namedtuple("KeptByGenerator", "z features layers x maps")


class Generator(Network):
    """z (B, latent) -> maps (B, side, side, channels); the paper's Figure 1.

    A dense layer, transposed convolutions of stride 2 with batch norm and ReLU, one convolution.
    With `bottleneck` there is one more transposed convolution before it, to K channels, stride 1.
    """
    def __init__(self, ops, s, classes, rng):
        self.output = OUTPUTS[s.model]
        self.rgb = self.output.rgb
        self.strides = [2] * (len(s.generator_filters) - 1) + [1] * s.bottleneck
        self.base = s.side >> (len(s.generator_filters) - 1)  # side of the first map
        k, filters = s.kernel_size, s.generator_filters + [classes] * s.bottleneck
        first = self.base ** 2 * filters[0]
        shapes = {"dense.w": (1, 1, s.latent, first), "dense.b": (first,)}
        for i, (cin, cout) in enumerate(zip(filters, filters[1:]), 1):
            shapes[f"deconv{i}.w"] = (k, k, cout, cin)
            shapes[f"deconv{i}.gamma"] = shapes[f"deconv{i}.beta"] = (cout,)
        channels = 3 if self.rgb else classes
        shapes |= {"conv.w": (k, k, filters[-1], channels), "conv.b": (channels,)}
        super().__init__(ops, s, shapes, rng)

    def forward(self, z, training=True, out=None):
        """Returns the maps, and what backward needs. `training`: batch norm uses the batch."""
        z = z.reshape(len(z), 1, 1, -1)
        features = conv(self, "dense", z, activation="relu")  # (B, 1, 1, base base C)
        x = features.reshape(len(z), self.base, self.base, -1)
        layers = []
        for i, stride in enumerate(self.strides, 1):
            x, kept = deconv_norm_relu(self, f"deconv{i}", x, stride, training)
            layers.append(kept)
        x = self.ops.rounded(x)
        maps = self.output.layer(self, "conv", x, out=out)
        return maps, KeptByGenerator(z, features, layers, x, maps)

    def backward(self, dmaps, kept, inputs=False):
        """Fills self.grads from the gradient of the maps. Returns dz if `inputs`."""
        dx = self.output.layer_grad(self, "conv", dmaps, kept.x, kept.maps)
        for i in range(len(self.strides), 0, -1):
            dx = deconv_norm_relu_grad(self, f"deconv{i}", dx, kept.layers[i - 1],
                                       self.strides[i - 1])
        dz = conv_grad(self, "dense", dx.reshape(kept.features.shape), kept.z, kept.features,
                       activation="relu", inputs=inputs)
        return dz.reshape(len(dz), -1) if inputs else None

    def outputs(self, z):
        """Yields what forward gives for z (N, latent) at inference, on the host, 64 maps a time."""
        for start in range(0, len(z), 64):  # outside the arena, which is the training step's
            maps, _ = self.forward(self.ops.asarray(z[start:start + 64]), training=False)
            yield self.ops.asnumpy(maps)

    def sample(self, z):
        """Label maps (N, side, side) uint8; from the baseline RGB (N, side, side, 3) uint8."""
        return np.concatenate([self.output.decode(maps) for maps in self.outputs(z)])


class Discriminator(Network):
    """maps (B, side, side, channels) -> one logit a map: strided convolutions, a dense layer.

    There is no normalization, so nothing couples the maps of a batch, and real and generated maps
    can go through together.
    """
    def __init__(self, ops, s, classes, rng):
        channels = 3 if OUTPUTS[s.model].rgb else classes
        filters, k = [channels] + s.discriminator_filters, s.kernel_size
        self.layers = len(s.discriminator_filters)
        shapes = {}
        for i, (cin, cout) in enumerate(zip(filters, filters[1:]), 1):
            shapes |= {f"conv{i}.w": (k, k, cin, cout), f"conv{i}.b": (cout,)}
        numbers = (s.side >> self.layers) ** 2 * filters[-1]
        shapes |= {"dense.w": (1, 1, numbers, 1), "dense.b": (1,)}
        super().__init__(ops, s, shapes, rng)

    def forward(self, maps):
        """Returns logits (B, 1, 1, 1), and the features: maps, then the output of each layer."""
        features = [maps]
        for i in range(1, self.layers + 1):
            features.append(conv(self, f"conv{i}", features[-1], 2, "leaky_relu"))
        x = features[-1].reshape(maps.shape[0], 1, 1, -1)
        return conv(self, "dense", x), features

    def backward(self, dlogits, features, inputs=False):
        """Fills self.grads from the gradient of the logits. Returns dmaps if `inputs`."""
        x = features[-1].reshape(len(dlogits), 1, 1, -1)
        dx = conv_grad(self, "dense", dlogits, x, dlogits).reshape(features[-1].shape)
        for i in range(self.layers, 0, -1):
            dx = conv_grad(self, f"conv{i}", dx, features[i - 1], features[i], 2, "leaky_relu",
                           inputs=inputs or i > 1)
        return dx

    def feature_matching(self, features, losses):
        """The generator's loss, layer by layer into losses (L,). Returns dmaps of its maps.

        features: of real and then generated maps. The real ones are constants. From the last layer
        to the first, a layer's own gradient is added to the one from the layers above.
        """
        ops, s, dx = self.ops, self.s, None
        b = len(features[1]) // 2
        for i in range(self.layers, 0, -1):
            w, real, fake = self.params[f"conv{i}.w"], features[i][:b], features[i][b:]
            if s.feature_layers == "all" or i == self.layers:
                _, dy = ops.feature_matching(real, fake, s.feature_matching, dx, "leaky_relu",
                                             out=(losses[i - 1:i], dx))
            else:
                dy, _ = ops.bias_activation_grad(dx, fake, "leaky_relu")
            dx = ops.conv_input_grad(dy, w, (b, *features[i - 1].shape[1:]), 2, same(w))
        return dx


# ------------------------------------------------------------------------------ one training step
INPUT_STEPS = 100  # steps whose latent vectors and maps are drawn at once


class Trainer:
    """Both networks, the label maps on the device, and one step of training.

    dataset: a LabelMaps of data.load. losses (1 + L,): the discriminator's, then the generator's
    layer by layer, of the last step.
    """
    def __init__(self, ops, s, dataset):
        self.ops, self.s, self.dataset = ops, s, dataset
        self.step = 0
        rng = np.random.default_rng([s.seed, 0])
        self.generator = Generator(ops, s, dataset.classes, rng)
        self.discriminator = Discriminator(ops, s, dataset.classes, rng)
        self.networks = {"g": self.generator, "d": self.discriminator}  # names in a checkpoint
        self.labels = ops.asarray(dataset.maps, np.uint8)
        self.table = ops.asarray(OUTPUTS[s.model].encoding(dataset.palette))
        b = s.batch_size
        # The inputs of INPUT_STEPS steps, and those of one: z, numbers of maps, learning rates.
        self.zs, self.z = self._inputs((b, s.latent))
        self.indices, self.index = self._inputs((b,), np.int32)
        self.rates, self.rate = self._inputs((2,))  # of generator and discriminator
        self.targets = ops.asarray(np.repeat([1, 0], b).reshape(2 * b, 1, 1, 1))  # real: 1
        self.losses = ops.asarray(np.zeros(1 + self.discriminator.layers))
        self.drawn = None   # which INPUT_STEPS steps the inputs are for
        self.replay = None  # the recorded step

    def _inputs(self, shape, dtype=None):
        return (self.ops.asarray(np.zeros((INPUT_STEPS, *shape)), dtype),
                self.ops.asarray(np.zeros(shape), dtype))

    def train_step(self):
        """One step. The first computes operation by operation, and then they are recorded."""
        self.inputs(self.step)
        if self.replay:
            self.replay()  # on a GPU: one CUDA graph
        else:
            self.operations()
            self.replay = self.ops.record(self.operations)
        self.step += 1

    def inputs(self, step):
        """z (B, latent) and numbers of maps (B,) for a step; they depend on seed and step alone."""
        ops, s, (number, row) = self.ops, self.s, divmod(step, INPUT_STEPS)
        if self.drawn != number:
            rng = np.random.default_rng([s.seed, 1, number])
            ops.write(self.zs, rng.standard_normal(self.zs.shape))
            ops.write(self.indices, rng.integers(len(self.labels), size=self.indices.shape))
            steps = number * INPUT_STEPS + np.arange(INPUT_STEPS)
            halvings = np.maximum(0, steps - s.decay_after) / (s.half_life or np.inf)
            rates = np.outer(0.5 ** halvings, [s.learning_rate, s.discriminator_learning_rate])
            ops.write(self.rates, rates)
            self.drawn = number
        return self.zs[row], self.indices[row]

    def operations(self):
        """D learns to tell real maps x from G(z); G learns to match D's features, on the same x, z.

        Always the same operations on the same arrays: what changes is read from the device.
        """
        with self.ops.arena:
            self.take_inputs()
            maps, kept = self.real_and_generated()
            dlogits, features = self.discriminator_loss(maps)
            self.discriminator.backward(dlogits, features)
            self.discriminator.update(self.rate[1:])
            dmaps = self.generator_loss(maps)
            self.generator.backward(dmaps, kept)
            self.generator.update(self.rate[:1])

    def take_inputs(self):
        """The inputs of one step; the generator's counter of updates says of which."""
        step = self.generator.flat["step"]
        for rows, row in (self.zs, self.z), (self.indices, self.index), (self.rates, self.rate):
            self.ops.take_row(rows, step, out=row)

    def real_and_generated(self):
        """maps (2B, side, side, channels): real ones, then generated ones; and what G kept."""
        ops, b, side = self.ops, self.s.batch_size, self.s.side
        maps = ops.empty(2 * b, side, side, self.table.shape[1])
        ops.gather(self.labels, self.index, self.table, out=maps[:b])
        _, kept = self.generator.forward(self.z, out=maps[b:])
        return ops.rounded(maps), kept

    def discriminator_loss(self, maps):
        """1/2 (BCE(D(x), 1) + BCE(D(G(z)), 0)), the mean over both halves, into losses[0].

        Returns dlogits (2B, 1, 1, 1) and D's features.
        """
        logits, features = self.discriminator.forward(maps)
        _, dlogits = self.ops.bce_with_logits(logits, self.targets, out=(self.losses[:1], None))
        return dlogits, features

    def generator_loss(self, maps):
        """Feature matching through D, just updated, into losses[1:]. Returns dmaps of G(z)."""
        _, features = self.discriminator.forward(maps)
        return self.discriminator.feature_matching(features, self.losses[1:])


def shown(value):
    """A setting as one types it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)

import argparse
import csv
import json
import os
import signal
import sys
import time
import zlib
from pathlib import Path
from tqdm import tqdm
import inception
import kernels
import label_maps
import metrics
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
        check_settings(s)
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
    return data.Image.fromarray(np.repeat(np.repeat(picture, zoom, 0), zoom, 1))


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
                raise InputError(f"--{name.replace('_', '-')} {value}: {run} was started with {shown(getattr(s, name))}; "
                                 "with --resume only --steps can change")
        if args.steps is not None:
            s.steps, origin["steps"] = args.steps, "flag"
            if s.steps < header["step"]:
                raise InputError(f"--steps {s.steps}: {run} is at step {header['step']} already")
    else:
        if (run / "checkpoint.npz").exists():
            raise InputError(f"{run} already holds a run; go on with it by --resume, or choose another folder by --out")
        s, origin = resolve(**flags, gpu=ops.name == "gpu")
    check_settings(s)
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
            label_maps.write_palette(run / "palette.txt", trainer.dataset)
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
                    table = metrics.measure(trainer.generator, trainer.dataset, count, s.seed, weights)
                    metrics.write_table(run / "metrics.csv", step, count, s.seed, table)
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
                               for name, (value, step) in metrics.best_values(run / "metrics.csv").items()))


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
                                ("regions per map", lambda m, _, k: metrics.mean_components(m, k), "{:.2f}")):
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
    table = metrics.measure(g, dataset, count, args.seed, weights)
    print(f"{args.run}: step {header['step']}, {count} samples, seed {args.seed}\n"
          f"SWD, MS-SSIM: as in Karras et al. 2018, palette {' '.join(bytes(color).hex() for color in dataset.palette)}\n"
          f"FID: {inception.PREPROCESSING}\n\n{'':32s}{'samples':>12s}{'half of them':>14s}{'real maps':>12s}")
    number = lambda x: f"{x:.4g}" if isinstance(x, float) else "-"
    for name, (full, half, floor) in table.items():
        note = f"   {full}" if isinstance(full, str) else ""
        print(f"{name:32s}{number(full):>12s}{number(half):>14s}{number(floor):>12s}{note}")
    if reason:
        print(f"\nNo FID: {reason}")
    out = Path(args.out or args.run)
    make_folder(out)
    metrics.write_table(out / "metrics.csv", header["step"], count, args.seed, table)
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
        grids[title] = data.Image.open(sorted((folder / model / "samples").glob("step_*.png"))[-1]).convert("RGB")
    metrics.comparison_page(folder, f"SemGAN and GAN on {Path(s.dataset).name}", grids,
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


def print_settings(s, origin, run, dataset):
    rows = [(name, shown(value), origin.get(name, "")) for name, value in vars(s).items()]
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
        image = data.Image.fromarray(ids)
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
    data.add_arguments(parser)
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
                                      + ", ".join(f"{name.replace('_', ' ')} {shown(v)}" for name, v in STREET_SCENES.items())
                                      + f"; of facades the same with latent {FACADES['latent']}.")
    for name, (default, meaning) in SETTINGS.items():
        changed = [f"{preset} {shown(changes[name])}" for preset, changes in PRESETS.items() if name in changes]
        options = dict(help=f"{meaning} [{'; '.join([shown(default), *changed])}]")
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
