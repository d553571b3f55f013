"""What trainers on pairs share: the pairs on the device, and the inputs of a step."""
import numpy as np

import semgan


class PairTrainer:
    """Pairs on the device, and the inputs of one step of training; subclasses add the networks.

    dataset: the training Pairs. networks: {prefix in a checkpoint: Network}, the first of which
    counts the steps. losses: (n,), of the last step.
    """
    def __init__(self, ops, s, dataset, networks, losses):
        self.ops, self.s, self.dataset, self.networks = ops, s, dataset, networks
        self.step = 0
        n, height, width = dataset.maps.shape
        self.labels = ops.asarray(dataset.maps, np.uint8)
        self.photos = ops.asarray(dataset.photos.reshape(n, height, 3 * width), np.uint8)
        self.one_hot = ops.asarray(np.eye(len(dataset.palette)))
        self.levels = ops.asarray(np.arange(256)[:, None] / 127.5 - 1)  # (256, 1), of a byte
        self.indices = ops.asarray(np.zeros((semgan.INPUT_STEPS, s.batch_size)), np.int32)
        self.index = ops.asarray(np.zeros(s.batch_size), np.int32)
        self.rates = ops.asarray(np.zeros((semgan.INPUT_STEPS, 1)))
        self.rate = ops.asarray(np.zeros(1))
        self.losses = ops.asarray(np.zeros(losses))
        self.drawn = self.replay = None

    train_step = semgan.Trainer.train_step  # first operation by operation, then as a recording

    def inputs(self, step):
        """Draws the pairs of the next steps; they depend on seed and step alone. Returns (B,)."""
        number, row = divmod(step, semgan.INPUT_STEPS)
        if self.drawn != number:
            rng = np.random.default_rng([self.s.seed, 1, number])
            self.ops.write(self.indices, rng.integers(len(self.labels), size=self.indices.shape))
            steps = number * semgan.INPUT_STEPS + np.arange(semgan.INPUT_STEPS)
            left = np.clip(2 - 2 * steps / self.s.steps, 0, 1)  # linear in the second half
            self.ops.write(self.rates, self.s.learning_rate * left[:, None])
            self.drawn = number
        return self.indices[row]

    def take_inputs(self):
        """Copies the inputs of one step, which the first network's update counter selects."""
        step = next(iter(self.networks.values())).flat["step"]
        self.ops.take_row(self.indices, step, out=self.index)
        self.ops.take_row(self.rates, step, out=self.rate)

    def maps_of(self, index):
        """One-hot maps (B, H, W, K)."""
        return self.ops.gather(self.labels, index, self.one_hot)

    def photos_of(self, index):
        """Photos (B, H, W, 3) in [-1, 1]. Each byte is looked up in the table of levels."""
        shape = len(index), *self.dataset.maps.shape[1:], 3
        return self.ops.gather(self.photos, index, self.levels).reshape(shape)
