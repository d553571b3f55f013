"""A semantic encoder E: from a label map x back to a latent vector z with G(z) = x, or almost.

Ghelfi et al. 2019, section 7, name as future work the "learning of a semantic encoder able to map
semantic maps to their latent representations". They give neither network nor losses. Here E is the
discriminator with as many outputs as z has numbers. It learns on a trained generator G, which stays
as it is, in two stages:

    first     the mean of |z - E(G(z))|: maps whose z is known, but only maps that G draws
    second    the pixel-wise cross-entropy of G(E(x)) and x: real maps, whose z nobody knows

    python -m experiments.encoder train RUN                     # both stages
    python -m experiments.encoder encode RUN MAPS               # z, and a picture
    python -m experiments.encoder interpolate RUN --between A B
    python -m experiments.encoder evaluate RUN                  # a table; see docs/encoder.md

Read this file first; then latents.py (other ways to a z, and how all are measured).
"""
if __name__ == "__main__":  # before all other imports
    from app.start import start
    start()

from argparse import Namespace
from functools import partial

import numpy as np

from formats.files import InputError
from formats.settings import require
from semgan import Discriminator, Generator, Network, check_settings, conv, map_size, same

# Settings of E: name -> (default, meaning and reason). Each is a flag too.
SETTINGS = {
    "first_steps": (500, "steps of the first stage"),
    "second_steps": (1000, "steps of the second stage"),
    "batch_size": (32, "maps per step"),
    "learning_rate": (1e-3, "Adam's at first; in each stage it falls to 0 in a straight line"),
    "filters": ([64, 128, 256], "channels of E after each halving of the sides"),
    "kernel_size": (5, "sides of E's kernels, odd"),
    "seed": (0, "determines E's first weights, latent vectors and batches"),
}
STAGES = ("both", "first", "second")  # what to train; one stage alone takes the steps of both


def settings(of_generator, stages="both", **changes):
    """The settings of an encoder as a Namespace, checked. Raises InputError.

    of_generator: the settings of a run. changes: new values for names in SETTINGS.
    """
    s = Namespace(**vars(of_generator) | {name: value for name, (value, _) in SETTINGS.items()})
    vars(s).update(changes, stages=stages)
    require(s, "stages", stages in STAGES, " or ".join(STAGES))
    for name in "first_steps", "second_steps":
        good = type(getattr(s, name)) is int and 0 <= getattr(s, name) <= 1 << 23
        require(s, name, good, f"0 to {1 << 23}: Adam counts steps in float32")
    require(s, "second_steps", s.first_steps + s.second_steps, "1 or more if --first-steps is 0")
    height, width = map_size(s)
    good = (type(s.filters) is list and s.filters
            and all(type(n) is int and 1 <= n <= 1 << 14 for n in s.filters)
            and (height | width) % 2 ** len(s.filters) == 0)
    require(s, "filters", good, f"channels, so many that {height}x{width} can be halved as often")
    vars(s).update(discriminator_filters=s.filters, halve_kernels=False,
                   beta1=0.9)  # the usual value: no game is played here
    check_settings(s)
    return s


def steps_of_stages(s):
    """(steps of the first stage, of the second)."""
    steps = s.first_steps + s.second_steps
    return dict(both=(s.first_steps, s.second_steps), first=(steps, 0), second=(0, steps))[s.stages]


# --------------------------------------------------------------------------------------- networks
class Encoder(Discriminator):
    """maps (B, H, W, K) -> z (B, 1, 1, latent): the discriminator with `latent` outputs."""
    def __init__(self, ops, s, classes, rng):
        super().__init__(None, s, classes, None)  # a drawing: layers and shapes
        *dense, _ = self.shapes["dense.w"]
        shapes = self.shapes | {"dense.w": (*dense, s.latent), "dense.b": (s.latent,)}
        Network.__init__(self, ops, s, shapes, rng)

    def codes(self, labels):
        """uint8 class ids (N, H, W) on the host -> z (N, latent) on the host, 64 at a time."""
        ops, found = self.ops, []
        for some in np.split(labels, range(64, len(labels), 64)):
            z, _ = self.forward(ops.rounded(one_hot(ops, some, self.shapes["conv1.w"][2])))
            found.append(ops.asnumpy(z).reshape(len(some), -1))
        return np.concatenate(found)


def one_hot(ops, labels, classes):
    """uint8 class ids (B, H, W) on the host -> (B, H, W, K) on the device."""
    index = ops.asarray(np.arange(len(labels)), np.int32)
    return ops.gather(ops.asarray(labels, np.uint8), index, ops.asarray(np.eye(classes)))


class FrozenGenerator(Generator):
    """A trained generator as a fixed function: z -> logits, the numbers before its softmax.

    It normalizes by its running statistics. So each map depends on its own z alone, as in samples,
    and the code of a map does not depend on the other maps of a batch. In the gradient, mean and
    variance are then constants. It shares the arrays of `g` and never writes to them.
    """
    def __init__(self, g):
        if g.rgb:
            raise InputError("a run of the baseline --model gan, whose colours are no "
                             "probabilities of classes; expected one of --model semgan")
        vars(self).update(vars(g))
        self.output = g.output._replace(layer=conv)  # without the softmax
        self.zeros = {name: self.ops.asarray(np.zeros(shape)) for name, shape in g.shapes.items()
                      if name.endswith(".gamma")}

    def forward(self, z, training=False):
        """z (B, ..., latent) -> logits (B, H, W, K), and what backward needs."""
        return super().forward(z, training=False)

    def backward(self, dlogits, kept):
        """dz (B, latent). The gradients of the parameters are not computed."""
        ops, w = self.ops, self.params["conv.w"]
        dx = ops.conv_input_grad(ops.rounded(dlogits), w, kept.x.shape, 1, same(w))
        for i in range(len(self.strides), 0, -1):
            dx = self.norm_relu_grad(f"deconv{i}", dx, kept.layers[i - 1])
            w = self.params[f"deconv{i}.w"]
            dx = ops.conv(ops.rounded(dx), w, self.strides[i - 1], same(w))
        dhidden, _ = ops.bias_activation_grad(dx.reshape(kept.hidden.shape), kept.hidden, "relu")
        dz = ops.conv_input_grad(dhidden, self.params["dense.w"], kept.z.shape)
        return dz.reshape(len(dz), -1)

    def norm_relu_grad(self, name, dy, kept):
        """dx of y = relu(gamma / std (x - mean) + beta), mean and std being constants.

        That is dx = gamma / std dy where y > 0: the same formula once more, mean and beta being 0.
        """
        gamma, zero = self.params[name + ".gamma"], self.zeros[name + ".gamma"]
        dy, _ = self.ops.bias_activation_grad(dy, kept.y, "relu")
        return self.ops.batch_norm_inference(dy, gamma, zero, zero, kept.var, self.s.bn_eps)


# --------------------------------------------------------------------------------------- training
class EncoderTrainer:
    """An encoder, and one step of its training in either stage.

    g: a FrozenGenerator. maps: real label maps (N, H, W) uint8. loss (1,): of the last step.
    """
    def __init__(self, g, s, maps):
        self.g, self.s, self.maps, self.ops = g, s, maps, g.ops
        self.classes = g.shapes["conv.b"][0]
        self.encoder = Encoder(g.ops, s, self.classes, np.random.default_rng([s.seed, 0]))
        self.first_steps, self.second_steps = steps_of_stages(s)
        self.step, self.steps = 0, self.first_steps + self.second_steps
        ops, b = g.ops, s.batch_size
        self.labels = ops.asarray(np.zeros((b, *map_size(s))), np.uint8)  # of a step's maps
        self.index = ops.asarray(np.arange(b), np.int32)
        self.table = ops.asarray(np.eye(self.classes))
        self.z = ops.asarray(np.zeros((b, 1, 1, s.latent)))
        self.rate, self.loss = (ops.asarray(np.zeros(1)) for _ in range(2))
        self.replay = {}  # stage -> its recorded step

    @property
    def stage(self):
        """0 or 1: the stage of the next step."""
        return int(self.step >= self.first_steps)

    def train_step(self):
        """One step. The first of a stage runs operation by operation and then records them."""
        stage = self.stage
        if stage and self.step == self.first_steps:  # another loss: Adam's means begin anew
            for name in "m", "v", "step":
                self.ops.write(self.encoder.flat[name], 0)
        self.inputs()
        if stage in self.replay:
            self.replay[stage]()
        else:
            self.operations(stage)
            self.replay[stage] = self.ops.record(partial(self.operations, stage))
        self.step += 1

    def inputs(self):
        """The maps, z and learning rate of the next step; they depend on seed and step alone.

        First stage: maps that G draws, each pixel's likeliest class. E sees one-hot maps in both
        stages, since real maps are one-hot; a softmax would also tell, in its soft borders, what
        no real map tells. No gradient goes through G here, so the argmax costs none.
        """
        s, ops, t = self.s, self.ops, self.step
        rng = np.random.default_rng([s.seed, 1, t])
        if self.stage == 0:
            z = rng.standard_normal((s.batch_size, s.latent))
            ops.write(self.z, z.reshape(self.z.shape))
            labels, done = self.g.sample(z), t / self.first_steps
        else:
            labels = self.maps[rng.integers(len(self.maps), size=s.batch_size)]
            done = (t - self.first_steps) / self.second_steps
        ops.write(self.labels, labels)
        ops.write(self.rate, s.learning_rate * (1 - done))

    def operations(self, stage):
        """The loss of a stage, its gradient and Adam's update, on the arrays of `inputs`."""
        with self.ops.arena:  # memory that every step uses again
            self.encoder.backward(*self.gradient(stage))
            self.encoder.update(self.rate)

    def gradient(self, stage):
        """Writes the loss. Returns its gradient of z = E(x), (B, 1, 1, latent), and E's features.
        """
        ops = self.ops
        x = ops.gather(self.labels, self.index, self.table)  # (B, H, W, K), one-hot
        z, features = self.encoder.forward(ops.rounded(x))
        loss = self.second_loss if stage else self.first_loss
        return loss(z, x).reshape(z.shape), features

    def first_loss(self, z, _):
        """The mean of |z - E(G(z))|: feature matching in the reading "paired". Returns its dz."""
        _, dz = self.ops.feature_matching(self.z, z, "paired", out=(self.loss, None))
        return dz

    def second_loss(self, z, x):
        """The cross-entropy of G(z) and x, in nats a pixel. Returns its dz."""
        logits, kept = self.g.forward(z)
        _, dlogits = self.ops.softmax_cross_entropy(logits, x, out=(self.loss, None))
        return self.g.backward(dlogits, kept)


if __name__ == "__main__":
    from experiments.encoder_command import main
    main()
