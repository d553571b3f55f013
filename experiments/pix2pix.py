"""Dreaming street scenes (the paper's section 6.1): photos from label maps, with pix2pix.

    python -m experiments.pix2pix train                                # painted shapes, minutes
    python -m experiments.pix2pix dream runs/shapes-pix2pix --trained  # photos of generated maps

Isola et al. 2016: a U-Net G turns a map into a photo. A discriminator D sees map and photo, and
says for each patch whether the photo is real. G learns from the error |G(map) - photo| and from D.
This file follows semgan.py: settings -> discriminator -> one training step -> commands.
"""
if __name__ == "__main__":  # before all other imports
    from app.start import start
    start()

import io
import sys

import numpy as np
from PIL import Image

import kernels
import metrics
import semgan
from app.command_line import require_paths
from app.failures import Parser, reported
from app.pictures import grid
from experiments import pairs, runs
from experiments.pair_trainer import PairTrainer
from experiments.unet import KERNEL, UNet
from semgan import Network, conv, conv_grad, same

NAME = "pix2pix"
DESCRIPTION = """Photos from label maps, the paper's section 6.1: train a pix2pix on pairs of map
and photo, then let it dream photos of the maps that generators of semgan.py draw."""
SETTINGS = runs.SHARED | {
    "steps": (3000, "training steps in total"),
    "patch_filters": ([32, 64], "channels of the discriminator, which halves the sides each time"),
    "adversarial_weight": (0.01, "of D's loss beside the error |G(map) - photo|; 0: the error "
                                 "alone"),
    "input": ("onehot", "what G sees: onehot, a map as K channels; rgb, its colours after JPEG "
                        "compression, which the paper's pix2pix saw"),
}
CHOICES = dict(input=["onehot", "rgb"])
JPEG_QUALITY = 75  # Pillow's own value


# ---------------------------------------------------------------------------------- discriminator
class PatchDiscriminator(Network):
    """Map and photo (B, H, W, channels + 3) -> logits (B, H / 4, W / 4, 1), one for each patch.

    Convolutions of stride 2, one for each of s.patch_filters, and a 3x3 convolution. A logit sees
    18x18 pixels. Without normalization, real and generated photos can go through together.
    """
    def __init__(self, ops, s, channels, rng):
        filters = [channels + 3, *s.patch_filters]
        self.layers = len(s.patch_filters)
        shapes = {}
        for i, (cin, cout) in enumerate(zip(filters, filters[1:]), 1):
            shapes |= {f"conv{i}.w": (KERNEL, KERNEL, cin, cout), f"conv{i}.b": (cout,)}
        shapes |= {"last.w": (3, 3, filters[-1], 1), "last.b": (1,)}
        super().__init__(ops, s, shapes, rng)

    def forward(self, x):
        """Returns the logits, and each layer's input."""
        features = [x]
        for i in range(1, self.layers + 1):
            features.append(conv(self, f"conv{i}", features[-1], 2, "leaky_relu"))
        return conv(self, "last", features[-1]), features

    def backward(self, dlogits, features):
        """Fills self.grads from the gradient of the logits, for D's own step."""
        dx = conv_grad(self, "last", dlogits, features[-1], y=dlogits)  # y is not looked at
        for i in range(self.layers, 0, -1):
            dx = conv_grad(self, f"conv{i}", dx, features[i - 1], features[i], 2, "leaky_relu",
                           input_grad=i > 1)

    def input_grad(self, dlogits, features):
        """The gradient of D's input, for G's step: D's weights are constants there."""
        ops, w = self.ops, self.params["last.w"]
        dx = ops.conv_input_grad(ops.rounded(dlogits), w, features[-1].shape, 1, same(w))
        for i in range(self.layers, 0, -1):
            w = self.params[f"conv{i}.w"]
            dy, _ = ops.bias_activation_grad(dx, features[i], "leaky_relu")
            dx = ops.conv_input_grad(ops.rounded(dy), w, features[i - 1].shape, 2, same(w))
        return dx


# ------------------------------------------------------------------------------ one training step
class Trainer(PairTrainer):
    """G, D and one step of both. losses (3,): D's; G's error |G(map) - photo|; G's against D."""
    losses_of = ["loss_d", "error", "loss_g"]

    def __init__(self, ops, s, dataset):
        rng = np.random.default_rng([s.seed, 0])
        channels = 3 if s.input == "rgb" else len(dataset.palette)
        self.generator = UNet(ops, s, channels, 3, "tanh", rng)
        self.discriminator = PatchDiscriminator(ops, s, channels, rng)
        super().__init__(ops, s, dataset, {"g": self.generator, "d": self.discriminator}, 3)
        if s.input == "rgb":
            self.colors = ops.asarray(compressed(dataset.palette[dataset.maps]), np.uint8)
        height, width = semgan.map_size(s, self.discriminator.layers)
        ones = np.ones((s.batch_size, height, width, 1))
        self.ones = ops.asarray(ones)
        self.targets = ops.asarray(np.concatenate([ones, 0 * ones]))  # real: 1

    def operations(self):
        """D learns to tell (map, photo) from (map, G(map)); G to come close to the photo, and to D.
        """
        ops, b = self.ops, self.s.batch_size
        with ops.arena:
            self.take_inputs()
            maps, photos = self.inputs_of(self.index), self.photos_of(self.index)
            fake, kept = self.generator.forward(maps)
            channels = maps.shape[-1]
            both = ops.empty(2 * b, *maps.shape[1:3], channels + 3)
            ops.concat([maps, photos], out=both[:b])
            ops.concat([maps, fake], out=both[b:])
            self.update_discriminator(both)
            dfake = self.generator_loss(photos, fake, both[b:], channels)
            self.generator.backward(dfake, kept)
            self.generator.update(self.rate)

    def update_discriminator(self, both):
        """Binary cross-entropy, the mean over real and generated pairs, into losses[0]."""
        logits, features = self.discriminator.forward(self.ops.rounded(both))
        _, dlogits = self.ops.bce_with_logits(logits, self.targets, out=(self.losses[:1], None))
        self.discriminator.backward(dlogits, features)
        self.discriminator.update(self.rate)

    def generator_loss(self, photos, fake, generated, channels):
        """The error into losses[1], w BCE(D(map, G(map)), 1) into losses[2]. Returns dfake."""
        ops, w = self.ops, self.s.adversarial_weight
        logits, features = self.discriminator.forward(ops.rounded(generated))
        _, dlogits = ops.bce_with_logits(logits, self.ones, w, out=(self.losses[2:], None))
        dpair = self.discriminator.input_grad(dlogits, features)
        _, dfake = ops.split(dpair, [channels, 3])
        _, dfake = ops.feature_matching(photos, fake, "paired", dfake,
                                        out=(self.losses[1:2], None))
        return dfake

    def inputs_of(self, index):
        """What G sees of some maps: (B, H, W, K) one-hot, or (B, H, W, 3) colours."""
        if self.s.input == "onehot":
            return self.maps_of(index)
        shape = len(index), *self.dataset.maps.shape[1:], 3
        return self.ops.gather(self.colors, index, self.levels).reshape(shape)

    def picture(self, some):
        """An image of Pairs: maps, photos that G makes of them, their own photos."""
        made = translate(self.generator, some.maps, some.palette)
        return grid(np.concatenate([some.palette[some.maps], made, some.photos]), None,
                    columns=len(made))


def compressed(colors):
    """(N, H, W, 3) uint8 as JPEG keeps them, (N, H, 3 W)."""
    found = []
    for image in colors:
        content = io.BytesIO()
        Image.fromarray(image).save(content, "JPEG", quality=JPEG_QUALITY)
        found.append(np.asarray(Image.open(content)))
    return np.array(found).reshape(*colors.shape[:2], -1)


# ------------------------------------------------------------------------------------ translation
def translate(generator, maps, palette):
    """Photos (N, H, W, 3) uint8 of class ids (N, H, W) or of RGB maps (N, H, W, 3)."""
    ops, photos = generator.ops, []
    for start in range(0, len(maps), 64):  # outside the arena, which is the training step's
        x = inputs_of(generator.s.input, maps[start:start + 64], palette)
        y, _ = generator.forward(ops.asarray(x), training=False)
        photos.append(semgan.OUTPUTS["gan"].decode(ops.asnumpy(y)))
    return np.concatenate(photos)


def inputs_of(kind, maps, palette):
    """What G sees of maps: one-hot (N, H, W, K), or the compressed colours in [-1, 1]."""
    if kind == "onehot":
        return np.eye(len(palette))[metrics.nearest_class(maps, palette)]
    colors = palette[maps] if maps.ndim == 3 else maps
    return compressed(colors).reshape(colors.shape) / 127.5 - 1


def load_translator(run, device="auto"):
    """(G, header) of a run. Raises InputError or DeviceError."""
    header = runs.load_header(run, NAME, SETTINGS, CHOICES)
    s, classes = header["settings"], len(header["palette"])
    rng = np.random.default_rng(0)  # initial weights, which the checkpoint's replace
    g = UNet(kernels.load(device), s, 3 if s.input == "rgb" else classes, 3, "tanh", rng)
    runs.load_arrays(run, NAME, {"g": g})
    return g, header


# --------------------------------------------------------------------------------- the command line
def train(args):
    """`train`: G and D on pairs, then the error on held-out ones, beside that of mean colours."""
    trainer, held_out = runs.train(args, NAME, SETTINGS, CHOICES, Trainer)
    made = translate(trainer.generator, held_out.maps, held_out.palette)
    error = np.abs(made / 127.5 - held_out.photos / 127.5).mean()
    mean = pairs.mean_color_error(trainer.dataset, held_out)
    print(f"Error |G(map) - photo| on {len(made)} held-out pairs: {error:.4f}, of colours in "
          f"[-1, 1].\nWith each class's mean colour: {mean:.4f}, so {error / mean:.0%} of that.")


def main(argv=None):
    """Run one command. Bad input and failures end the program with one line on stderr."""
    from experiments.dreams import dream_parser  # which imports this module
    with reported(f"experiments.{NAME}"):
        parser = Parser(prog=f"python -m experiments.{NAME}", description=DESCRIPTION)
        commands = parser.add_subparsers(metavar="{train,dream}", required=True)
        runs.training_parser(commands, SETTINGS, CHOICES, train)
        dream_parser(commands)
        args = parser.parse_args(argv)
        args.words = sys.argv[1:] if argv is None else argv  # for messages that tell how to go on
        args.script = f"-m experiments.{NAME}"
        require_paths(args)
        args.command(args)


if __name__ == "__main__":
    from experiments.pix2pix import main  # under its own name, by which dreams.py knows it
    main()
