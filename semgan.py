"""SemGAN from scratch: a generative adversarial network for label maps, without a framework.

Ghelfi et al. 2019, "Adversarial Pixel-Level Generation of Semantic Images" (arXiv 1906.12195). Read
this file from top to bottom: settings -> layers -> generator and discriminator -> one training
step. The arithmetic, called `ops` here, is in kernels/; data.py makes the label maps; app/ is the
program around it: training loop, files, command line.
"""
if __name__ == "__main__":  # before all other imports
    from app.start import start
    start()

from argparse import Namespace
from collections import namedtuple
from functools import partial

import numpy as np

import data
from formats.files import InputError
from formats.settings import check
from kernels import buffers
from kernels.contract import READINGS

# --------------------------------------------------------------------------------------- settings
# Networks, losses and optimizer: name -> (default, meaning and reason). Each is a flag too. The
# defaults are the paper's settings for Colored Shapes (Appendix B); presets change some of them.
SETTINGS = {
    "side": (64, "height of a map in pixels, and its width, unless another is given"),
    "width": (0, "width of a map in pixels; 0: the same as its height, the side"),
    "steps": (50_000, "training steps in total, the paper's number"),
    "batch_size": (32, "maps per step; with fewer, the means in feature matching are noisy"),
    "latent": (100, "length of the latent vector z, drawn from N(0, 1); the paper's"),
    "kernel_size": (11, "sides of all kernels, odd; large ones see a whole shape, 5 trains worse"),
    "generator_filters": ([128, 256, 128, 64], "channels at first, and each time the sides double"),
    "discriminator_filters": ([64, 128, 256], "channels after each halving of the sides (DCGAN)"),
    "halve_kernels": (False, "D's kernels halve with its maps (11, 7, 5): faster; not the paper's"),
    "bottleneck": (False, "the paper's K-channel layer before the last; training is worse with it"),
    "generator_loss": ("feature_matching", "the paper's; non_saturating: -log D(G(z)), equation 1 "
                       "as usual; then the next three settings have no effect"),
    "feature_matching": ("mean", "mean: compare batch means (Salimans et al. 2016, cited by the "
                         "paper); unbiased: the same, without the noise of generated maps; "
                         "paired: compare map by map (the authors' library)"),
    "moment_matching": (0.0, "weight of a second loss, of pooled features; 0: none, as the paper"),
    "feature_layers": ("all", "all the discriminator's; with only the last, checkerboards remain"),
    "learning_rate": (1e-4, "of the generator, the paper's; a short run needs a higher one"),
    "discriminator_learning_rate": (1e-4, "of the discriminator; equal in the paper"),
    "decay_after": (0, "steps before the learning rates begin to fall"),
    "half_life": (0, "steps in which they then halve; 0: never, as in the paper, for long runs"),
    "decay_both": (True, "whether the discriminator's falls too, not the generator's alone"),
    "beta1": (0.5, "Adam's decay of the mean gradient; with 0.9, GANs oscillate (DCGAN)"),
    "beta2": (0.999, "Adam's decay of the mean squared gradient, the paper's"),
    "adam_eps": (1e-8, "keeps Adam from dividing by 0, the paper's"),
    "bn_momentum": (0.1, "a batch's share in batch norm's running statistics; the usual value"),
    "bn_eps": (1e-5, "keeps batch norm from dividing by 0; the usual value"),
    "init": ("glorot", "weights: glorot (uniform, the authors' library) or normal (DCGAN)"),
    "seed": (0, "determines data, weights, latent vectors and batches"),
}
CHOICES = dict(generator_loss=["feature_matching", "non_saturating"], init=["glorot", "normal"],
               feature_matching=list(READINGS), feature_layers=["all", "last"])
PRESETS = {
    "small": dict(side=32, steps=5000, latent=32, generator_filters=[128, 64, 32, 16],
                  discriminator_filters=[64, 64, 64], halve_kernels=True,
                  feature_matching="unbiased", moment_matching=0.03, learning_rate=1e-3,
                  discriminator_learning_rate=4e-4, decay_after=2500, half_life=500,
                  decay_both=False),
    "full": {},
    "paper": dict(bottleneck=True),
}
# The paper's settings for street scenes (best FID in its Table 3) and for facades (Table 4).
# Presets full and paper take the first for your own maps too.
STREET_SCENES = dict(side=128, latent=128, kernel_size=7, learning_rate=2e-4,
                     discriminator_learning_rate=2e-4, discriminator_filters=[64, 128, 256, 512])
FACADES = STREET_SCENES | dict(latent=300)


def settings(*, dataset="shapes", preset="full", model="semgan", **changes):
    """The settings of a run as a Namespace, checked. Raises InputError.

    changes: new values for names in SETTINGS or data.OPTIONS.
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
    """[(where the settings come from, {name: value})]; later entries override earlier ones."""
    layers = [("default", {name: default for name, (default, _) in SETTINGS.items()})]
    if dataset == "shapes":
        layers.append(("the paper's shapes", dict(maps=data.PAPER_MAPS)))
    if dataset == "facades" and preset != "small":
        layers.append(("the paper's facades", FACADES))
    elif dataset != "shapes" and preset != "small":
        layers.append(("the paper's street scenes", STREET_SCENES))
    return [*layers, (f"preset {preset}", PRESETS.get(preset, {}))]


def map_size(s, halvings=0):
    """(height, width) of a run's maps, or of these maps halved so many times."""
    return s.side >> halvings, (s.width or s.side) >> halvings


def check_settings(s):
    """Raises InputError for a setting that cannot work; the message names its flag."""
    check(s, SETTINGS, dict(CHOICES, model=list(OUTPUTS), preset=list(PRESETS)))


# ------------------------------------------------------------------------------------- parameters
class Network:
    """The parameters of one network. All lie in flat buffers, so that Adam is one call.

    params[name] is a parameter and grads[name] its gradient: views of flat["params"] and
    flat["grads"], each (n,). flat also holds Adam's moments "m" and "v" (n,) and its counter
    "step" (1,). running[name] is the pair of running mean and variance of the batch norm whose
    scale is params[name].
    """
    def __init__(self, ops, s, shapes, rng):
        """shapes: {name: shape}; names end in .w, .b, .gamma or .beta. ops None: only a drawing."""
        self.ops, self.s, self.shapes = ops, s, shapes
        if ops is None:
            return
        _, n = buffers.places(shapes, ops.dtype)
        host = np.zeros(n, ops.dtype)
        for name, p in buffers.views(host, shapes).items():
            p[...] = initial_values(name, p.shape, s.init, rng)
        self.flat = {"params": ops.asarray(host)}
        for name, size in ("grads", n), ("m", n), ("v", n), ("step", 1):
            self.flat[name] = ops.asarray(np.zeros(size))
        self.params = buffers.views(self.flat["params"], shapes)
        self.grads = buffers.views(self.flat["grads"], shapes)
        self.running = {name: (ops.asarray(np.zeros(shape)), ops.asarray(np.ones(shape)))
                        for name, shape in shapes.items() if name.endswith(".gamma")}

    def update(self, learning_rate):
        """One Adam update of all parameters, in place. learning_rate: (1,)."""
        s = self.s
        params, grads, m, v, step = map(self.flat.get, ("params", "grads", "m", "v", "step"))
        self.ops.adam(params, grads, m, v, step, learning_rate, s.beta1, s.beta2, s.adam_eps,
                      out=(params, m, v, step))

    def state(self):
        """{name: array} of all that a checkpoint must hold: the arrays themselves, not copies."""
        state = {name: a for name, a in self.flat.items() if name != "grads"}
        for name, (mean, var) in self.running.items():
            state[f"{name}.running_mean"] = mean
            state[f"{name}.running_var"] = var
        return state


def initial_values(name, shape, init, rng):
    """Random numbers for weights (.w), 1 for scales (.gamma), 0 for biases (.b and .beta)."""
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
# of the input. `out=` says where results are written, None in it: anywhere. ops.rounded(x) rounds x
# for tensor cores; it stands where x goes into two convolutions, so that both share the work.
def same(w):
    """The padding that keeps a map's sides at stride 1 and halves them at 2; kernels 4x4 at 2."""
    return (w.shape[0] - 1) // 2


def conv(net, name, x, stride=1, activation=None, out=None):
    """act(conv(x) + b): (B, H, W, Cin) -> (B, H / stride, W / stride, Cout).

    On 1x1 maps, with a 1x1 kernel, this is a dense layer.
    """
    w, bias = net.params[name + ".w"], net.params[name + ".b"]
    return net.ops.conv(x, w, stride, same(w), bias, activation, out=out)


def conv_grad(net, name, dy, x, y, stride=1, activation=None, input_grad=True):
    """Fills the parameters' gradients. Returns dx if `input_grad`, else None."""
    dbias = net.grads[name + ".b"]
    dy, _ = net.ops.bias_activation_grad(dy, y, activation, out=(None, dbias))
    return weight_and_input_grad(net, name, dy, x, stride, input_grad)


def conv_softmax(net, name, x, out=None):
    """softmax(conv(x) + b) over the channels."""
    w, bias = net.params[name + ".w"], net.params[name + ".b"]
    return net.ops.softmax(net.ops.conv(x, w, 1, same(w)), bias, out=out)


def conv_softmax_grad(net, name, dy, x, y):
    """Fills the parameters' gradients, returns dx."""
    dy, _ = net.ops.softmax_grad(dy, y, out=(None, net.grads[name + ".b"]))
    return weight_and_input_grad(net, name, dy, x)


def weight_and_input_grad(net, name, dy, x, stride=1, input_grad=True):
    w, dw = net.params[name + ".w"], net.grads[name + ".w"]
    dy = net.ops.rounded(dy)
    net.ops.conv_weight_grad(x, dy, w.shape, stride, same(w), out=dw)
    return net.ops.conv_input_grad(dy, w, x.shape, stride, same(w)) if input_grad else None


# What the gradient needs: the input, the convolution's output with its statistics, the output.
Kept = namedtuple("Kept", "x a mean var y")


def deconv_norm_relu(net, name, x, stride, training):
    """y = relu(batch_norm(transposed conv(x))): (B, H, W, Cin) -> (B, stride H, stride W, Cout).

    A transposed convolution *is* the input gradient of a convolution: with stride 2, a convolution
    takes large maps to small ones, and its input gradient small to large. So the weights are stored
    as that convolution's, (kh, kw, Cout, Cin). Returns y and what the gradient needs.
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


# The two models differ in how they represent a map, and so in the generator's last layer. SemGAN: K
# probabilities for each pixel; real maps are one-hot (section 3.2). The baseline, a GAN of images:
# RGB in [-1, 1]. `encoding` gives each class's vector in real maps, `decode` maps outputs to uint8.
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
KeptByGenerator = namedtuple("KeptByGenerator", "z hidden layers x maps")


class Generator(Network):
    """z (B, latent) -> maps (B, H, W, channels); the paper's Figure 1.

    A dense layer, transposed convolutions of stride 2 with batch norm and ReLU, one convolution.
    `bottleneck` adds a transposed convolution to K channels, of stride 1, before the last layer.
    """
    def __init__(self, ops, s, classes, rng):
        self.output = OUTPUTS[s.model]
        self.rgb = self.output.rgb
        doublings = len(s.generator_filters) - 1
        self.strides = [2] * doublings + [1] * s.bottleneck
        self.base = h, w = map_size(s, doublings)  # of the first map
        k, filters = s.kernel_size, s.generator_filters + [classes] * s.bottleneck
        first = h * w * filters[0]
        shapes = {"dense.w": (1, 1, s.latent, first), "dense.b": (first,)}
        for i, (cin, cout) in enumerate(zip(filters, filters[1:]), 1):
            shapes[f"deconv{i}.w"] = (k, k, cout, cin)
            shapes[f"deconv{i}.gamma"] = shapes[f"deconv{i}.beta"] = (cout,)
        channels = 3 if self.rgb else classes
        shapes |= {"conv.w": (k, k, filters[-1], channels), "conv.b": (channels,)}
        super().__init__(ops, s, shapes, rng)

    def forward(self, z, training=True, out=None):
        """Returns the maps, and what backward needs. `training`: normalize by batch statistics."""
        z = z.reshape(len(z), 1, 1, -1)
        hidden = conv(self, "dense", z, activation="relu")  # (B, 1, 1, H0 W0 C)
        x = hidden.reshape(len(z), *self.base, -1)
        layers = []
        for i, stride in enumerate(self.strides, 1):
            x, kept = deconv_norm_relu(self, f"deconv{i}", x, stride, training)
            layers.append(kept)
        x = self.ops.rounded(x)
        maps = self.output.layer(self, "conv", x, out=out)
        return maps, KeptByGenerator(z, hidden, layers, x, maps)

    def backward(self, dmaps, kept, input_grad=False):
        """Fills self.grads from the gradient of the maps. Returns dz if `input_grad`."""
        dx = self.output.layer_grad(self, "conv", dmaps, kept.x, kept.maps)
        for i in range(len(self.strides), 0, -1):
            dx = deconv_norm_relu_grad(self, f"deconv{i}", dx, kept.layers[i - 1],
                                       self.strides[i - 1])
        dz = conv_grad(self, "dense", dx.reshape(kept.hidden.shape), kept.z, kept.hidden,
                       activation="relu", input_grad=input_grad)
        return dz.reshape(len(dz), -1) if input_grad else None

    def outputs(self, z):
        """Yields forward's maps for z (N, latent) at inference, on the host, 64 at a time."""
        for start in range(0, len(z), 64):  # outside the arena, which is the training step's
            maps, _ = self.forward(self.ops.asarray(z[start:start + 64]), training=False)
            yield self.ops.asnumpy(maps)

    def sample(self, z):
        """z (N, latent) -> uint8 label maps (N, H, W), or RGB (..., 3) from the baseline."""
        return np.concatenate([self.output.decode(maps) for maps in self.outputs(z)])


class Discriminator(Network):
    """maps (B, H, W, channels) -> one logit per map: strided convolutions, a dense layer.

    Without normalization no map of a batch affects another, so real and generated maps can go
    through together.
    """
    def __init__(self, ops, s, classes, rng):
        channels = 3 if OUTPUTS[s.model].rgb else classes
        filters, k = [channels] + s.discriminator_filters, s.kernel_size
        self.layers = len(s.discriminator_filters)
        shapes = {}
        for i, (cin, cout) in enumerate(zip(filters, filters[1:]), 1):
            shapes |= {f"conv{i}.w": (k, k, cin, cout), f"conv{i}.b": (cout,)}
            k = (k + 1) // 2 | 1 if s.halve_kernels else k  # rounded up to an odd number
        h, w = map_size(s, self.layers)
        shapes |= {"dense.w": (1, 1, h * w * filters[-1], 1), "dense.b": (1,)}
        super().__init__(ops, s, shapes, rng)

    def forward(self, maps):
        """Returns logits (B, 1, 1, 1) and the features: maps, then each convolution's output."""
        features = [maps]
        for i in range(1, self.layers + 1):
            features.append(conv(self, f"conv{i}", features[-1], 2, "leaky_relu"))
        x = features[-1].reshape(maps.shape[0], 1, 1, -1)
        return conv(self, "dense", x), features

    def backward(self, dlogits, features, input_grad=False):
        """Fills self.grads from the gradient of the logits. Returns dmaps if `input_grad`."""
        x = features[-1].reshape(len(dlogits), 1, 1, -1)
        dx = conv_grad(self, "dense", dlogits, x, y=dlogits)  # no activation: y is not looked at
        dx = dx.reshape(features[-1].shape)
        for i in range(self.layers, 0, -1):
            dx = conv_grad(self, f"conv{i}", dx, features[i - 1], features[i], 2, "leaky_relu",
                           input_grad=input_grad or i > 1)
        return dx

    def feature_matching(self, features, losses):
        """Writes the generator's losses in each layer to losses (L,) or (2 L,).

        Returns dmaps of its maps. features: of real and then of generated maps; the real ones count
        as constants. From the last layer to the first, a layer's own gradient is added to that
        from the layers above. Losses of moment matching stand behind those of feature matching.
        """
        ops, s, dx = self.ops, self.s, None
        b = len(features[1]) // 2
        for i in range(self.layers, 0, -1):
            w, real, fake = self.params[f"conv{i}.w"], features[i][:b], features[i][b:]
            if s.feature_layers == "all" or i == self.layers:  # dy is written over dx
                if s.moment_matching:
                    _, dx = ops.moment_matching(real, fake, s.moment_matching, dx,
                                                out=(losses[self.layers:][i - 1:i], dx))
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

    dataset: LabelMaps from data.load. losses, of the last step: the discriminator's, then the
    generator's: (1 + L,) layer by layer, (1 + 2 L,) with moment matching; (2,) if non-saturating.
    """
    def __init__(self, ops, s, dataset):
        self.ops, self.s, self.dataset = ops, s, dataset
        self.step, self.matches = 0, s.generator_loss == "feature_matching"
        rng = np.random.default_rng([s.seed, 0])
        self.generator = Generator(ops, s, dataset.classes, rng)
        self.discriminator = Discriminator(ops, s, dataset.classes, rng)
        self.networks = {"g": self.generator, "d": self.discriminator}  # names in a checkpoint
        self.labels = ops.asarray(dataset.maps, np.uint8)
        self.table = ops.asarray(OUTPUTS[s.model].encoding(dataset.palette))
        b = s.batch_size
        # The inputs of INPUT_STEPS steps, and those of one: z, map indices, learning rates.
        self.zs, self.z = self._inputs((b, s.latent))
        self.indices, self.index = self._inputs((b,), np.int32)
        self.rates, self.rate = self._inputs((2,))  # of generator and discriminator
        self.targets = ops.asarray(np.repeat([1, 0], b).reshape(2 * b, 1, 1, 1))  # real: 1
        self.dlogits = ops.asarray(np.zeros(self.targets.shape))  # of the non-saturating loss
        count = (2 if s.moment_matching else 1) * self.discriminator.layers
        self.losses = ops.asarray(np.zeros(1 + (count if self.matches else 1)))
        self.drawn = None   # for which group of INPUT_STEPS steps inputs have been drawn
        self.replay = None  # the recorded step

    def _inputs(self, shape, dtype=None):
        return (self.ops.asarray(np.zeros((INPUT_STEPS, *shape)), dtype),
                self.ops.asarray(np.zeros(shape), dtype))

    def train_step(self):
        """One step. The first runs operation by operation and then records them for the others."""
        self.inputs(self.step)
        if self.replay:
            self.replay()  # on a GPU: one CUDA graph
        else:
            self.operations()
            self.replay = self.ops.record(self.operations)
        self.step += 1

    def inputs(self, step):
        """z (B, latent) and map indices (B,) for a step; they depend on seed and step alone."""
        ops, s, (number, row) = self.ops, self.s, divmod(step, INPUT_STEPS)
        if self.drawn != number:
            rng = np.random.default_rng([s.seed, 1, number])
            ops.write(self.zs, rng.standard_normal(self.zs.shape))
            ops.write(self.indices, rng.integers(len(self.labels), size=self.indices.shape))
            steps = number * INPUT_STEPS + np.arange(INPUT_STEPS)
            halvings = np.maximum(0, steps - s.decay_after) / (s.half_life or np.inf)
            rates = 0.5 ** np.outer(halvings, [1, s.decay_both])  # (steps, 2): of G, of D
            ops.write(self.rates, rates * [s.learning_rate, s.discriminator_learning_rate])
            self.drawn = number
        return self.zs[row], self.indices[row]

    def operations(self):
        """D learns to tell real maps x from G(z); G to match D's features, on the same x and z.

        Each step runs the same operations on the same arrays; what changes is read from the device.
        """
        with self.ops.arena:  # memory that every step uses again
            self.take_inputs()
            maps, kept = self.real_and_generated()
            self.discriminator.backward(*self.discriminator_loss(maps))
            self.discriminator.update(self.rate[1:])
            self.generator.backward(self.generator_loss(maps), kept)
            self.generator.update(self.rate[:1])

    def take_inputs(self):
        """Copies the inputs of one step, which the generator's update counter selects."""
        step = self.generator.flat["step"]
        for rows, row in (self.zs, self.z), (self.indices, self.index), (self.rates, self.rate):
            self.ops.take_row(rows, step, out=row)

    def real_and_generated(self):
        """maps (2B, H, W, channels), real ones, then generated ones; and what G kept."""
        ops, b = self.ops, self.s.batch_size
        maps = ops.empty(2 * b, *map_size(self.s), self.table.shape[1])
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
        """Writes G's loss, through the updated D, to losses[1:]. Returns dmaps of G(z).

        Feature matching; or -log D(G(z)), whose gradient for the real maps, dlogits[:b], stays 0.
        """
        logits, features = self.discriminator.forward(maps)
        if self.matches:
            return self.discriminator.feature_matching(features, self.losses[1:])
        b, loss = self.s.batch_size, self.losses[1:]
        self.ops.bce_with_logits(logits[b:], self.targets[:b], out=(loss, self.dlogits[b:]))
        return self.discriminator.backward(self.dlogits, features, input_grad=True)[b:]


if __name__ == "__main__":
    from app.command_line import main
    main()
