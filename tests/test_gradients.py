"""Every gradient against finite differences in float64, and every check against a broken gradient.

The cases are in kernels/gradient_check.py. With --ops FILE the operations of a student's file, or
its kernels, are checked, and nothing else: see course_mode.py and course_kernels.py.
"""
from pathlib import Path

import course_mode
import numpy as np
import pytest
from conftest import load, tiny

import data
import kernels
import semgan
from kernels.contract import OPERATIONS
from kernels.gradient_check import CASES, check_operation, directional_check


@pytest.mark.parametrize("case", CASES)
def test_operation(device, case):
    check_operation(case, load(device, np.float64))


def test_task(task, pytestconfig):
    """Course mode: the values, or the gradient, of one operation or kernel of --ops."""
    pytestconfig.faults[task] = None
    try:
        pytestconfig.course.check(pytestconfig.student, *task, Path(pytestconfig.option.ops))
    except course_mode.Fault as fault:
        pytestconfig.faults[task] = str(fault)
        raise


def test_every_operation_has_a_case():
    """Each operation with a gradient, and each gradient, is called by some case."""
    called = set()

    class Recorder:
        def __init__(self, ops):
            self.ops = ops

        def __getattr__(self, name):
            called.add(name)
            return getattr(self.ops, name)
    for case in CASES.values():
        loss, _, _ = case(Recorder(load("plain", np.float64)), np.random.default_rng(1))
        loss()
    expected = {name for name, gradients in OPERATIONS.items() if gradients}
    assert called >= expected | {g for gradients in OPERATIONS.values() for g in gradients}


def test_what_cannot_be_checked_is_one_clear_line():
    with pytest.raises(ValueError, match="no case 'sofmax'; expected one of conv 3x3, "):
        check_operation("sofmax", load("plain", np.float64))
    x = np.ones(3)
    with pytest.raises(AssertionError, match="1 gradients; expected 2"):
        directional_check(lambda: x.sum(), [x, x], [x], np.random.default_rng(0))


# ------------------------------------------------------------------------------ broken on purpose
def sign(g):
    return -g


def scale(g):
    return 1.001 * g


def part_missing(g):
    g = g.copy()
    g.reshape(-1)[:max(1, g.size // 3)] = 0
    return g


class Broken:
    """ops with one result of one operation damaged."""

    def __init__(self, ops, name, result, damage):
        self.ops, self.broken, self.result, self.damage = ops, name, result, damage
        self.calls = 0

    def __getattr__(self, name):
        operation = getattr(self.ops, name)
        if name != self.broken:
            return operation

        def call(*args, **kwargs):
            self.calls += 1
            found = operation(*args, **kwargs)
            if not isinstance(found, tuple):
                return self.damage(found)
            return tuple(self.damage(a) if i == self.result else a for i, a in enumerate(found))
        return call


# (operation, which of its results, a case that uses it). `conv` is the forward operation of most
# cases; in the transposed ones it computes a gradient.
RESULTS = [
    ("conv_input_grad", 0, "conv 3x3"),
    ("conv_weight_grad", 0, "conv 5x2 stride 2"),
    ("conv", 0, "transposed conv stride 2"),
    ("bias_activation_grad", 0, "bias + leaky_relu"),
    ("bias_activation_grad", 1, "bias + relu"),
    ("batch_norm_grad", 0, "batch norm + relu"),
    ("batch_norm_grad", 1, "batch norm + relu"),
    ("batch_norm_grad", 2, "batch norm + None"),
    ("softmax_grad", 0, "softmax"),
    ("softmax_grad", 1, "softmax"),
    ("bce_with_logits", 1, "bce"),
    ("softmax_cross_entropy", 1, "softmax cross-entropy"),
    ("split", 2, "concat"),
    ("feature_matching", 1, "feature matching mean"),
    ("feature_matching", 1, "feature matching unbiased"),
    ("feature_matching", 1, "feature matching paired in a layer"),
    ("moment_matching", 1, "moment matching, batch 5"),
]


@pytest.mark.parametrize("operation, result, case", RESULTS)
@pytest.mark.parametrize("damage", [sign, scale, part_missing])
def test_broken_gradient_is_caught(operation, result, case, damage):
    ops = Broken(load("plain", np.float64), operation, result, damage)
    rng = np.random.default_rng(1)
    loss, arrays, grads = CASES[case](ops, rng)
    assert ops.calls
    ops.damage = lambda g: g  # forward calls from here on are right
    with pytest.raises(AssertionError, match="they differ by"):
        directional_check(loss, arrays, grads, rng)


def test_a_gradient_of_almost_zero_proves_nothing():
    x, rng = np.ones(3), np.random.default_rng(0)
    with pytest.raises(AssertionError, match="almost 0"):
        directional_check(lambda: 1e-6 * x.sum(), [x], [np.full(3, 1e-6)], rng)
    directional_check(lambda: x.sum(), [x], [np.ones(3)], rng)
    assert (x == 1).all(), "what loss() depends on is put back"


def test_batch_norm_without_its_mean_terms_is_caught(device):
    """The classic mistake: treating the batch's mean and variance as constants."""
    ops, rng = load(device, np.float64), np.random.default_rng(1)
    loss, (x, gamma, beta), (dx, dgamma, dbeta) = CASES["batch norm + None"](ops, rng)
    count = x[..., 0].size
    std = np.sqrt(x.var((0, 1, 2)) + 1e-5)
    normalized = (x - x.mean((0, 1, 2))) / std
    for missing in dbeta / count, normalized * dgamma / count:
        with pytest.raises(AssertionError):
            directional_check(loss, [x], [dx + gamma / std * missing], rng)


# ---------------------------------------------------------------------------------- whole networks
VARIANTS = [dict(),
            dict(bottleneck=True, feature_matching="paired"),
            dict(model="gan", feature_matching="paired", feature_layers="last"),
            dict(model="gan", bottleneck=True),
            dict(feature_layers="last"),
            dict(generator_loss="non_saturating"),
            dict(model="gan", generator_loss="non_saturating"),
            dict(feature_matching="unbiased", moment_matching=0.1),
            dict(width=16),
            dict(side=24, width=12, model="gan", feature_matching="unbiased", moment_matching=0.1)]


def make_trainer(device, changes):
    """A trainer whose scales and biases differ from their special values 1 and 0."""
    s = tiny(**changes)
    ops = kernels.load(device, np.float64)
    trainer = semgan.Trainer(ops, s, data.colored_shapes(s.side, width=s.width))
    for net in trainer.networks.values():
        rng = np.random.default_rng(5)
        for name, p in net.params.items():
            if not name.endswith(".w"):
                off = rng.uniform(0.1, 0.4, p.shape) * (-1 if name.endswith("gamma") else 1)
                ops.write(p, ops.asnumpy(p) + off)
    trainer.inputs(0)
    trainer.take_inputs()
    return trainer


def compute(trainer, backward=False):
    """The losses of D and G in a step without updates, and on which sides of kinks numbers are.

    backward: fill both networks' gradients too.
    """
    t = trainer
    maps, kept = t.real_and_generated()
    dlogits, features = t.discriminator_loss(maps)
    dmaps = t.generator_loss(maps)
    if backward:
        t.generator.backward(dmaps, kept)
        t.discriminator.backward(dlogits, features)  # last: the generator's loss may fill D.grads
    features = [t.ops.asnumpy(a) for a in features[1:]]
    activations = [kept.hidden, *(layer.y for layer in kept.layers)]
    sides = [a > 0 for a in features] + [t.ops.asnumpy(a) > 0 for a in activations]
    if t.s.feature_matching == "paired":
        b = t.s.batch_size
        sides += [f[:b] > f[b:] for f in features]
    loss_d, *losses_g = t.ops.asnumpy(t.losses)
    return dict(d=loss_d, g=sum(losses_g)), sides


def check_network(trainer, which):
    """directional_check of all parameters of a network at once. Returns the kinks' sides."""
    ops, net = trainer.ops, trainer.networks[which]
    params = {name: ops.asnumpy(p) for name, p in net.params.items()}
    grads = [ops.asnumpy(g) for g in net.grads.values()]
    assert all(np.abs(g).max() > 0 for g in grads), "some parameter gets no gradient"
    seen = []

    def loss():
        for name, p in params.items():
            ops.write(net.params[name], p)
        losses, sides = compute(trainer)
        seen.append(sides)
        return losses[which]
    directional_check(loss, list(params.values()), grads, np.random.default_rng(3), delta=1e-6)
    return seen


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("which", ["d", "g"])
def test_whole_network(device, which, changes):
    """D under binary cross-entropy, and G under its own loss through D."""
    trainer = make_trainer(device, changes)
    compute(trainer, backward=True)
    before, after = check_network(trainer, which)
    assert all((a == b).all() for a, b in zip(before, after)), \
        "a kink lies between the two points: choose another seed"


@pytest.mark.parametrize("changes", [dict(), dict(model="gan"), dict(width=16),
                                     dict(generator_loss="non_saturating")], ids=str)
def test_gradient_of_the_maps_and_of_the_latents(changes):
    """What other networks need: gradients with respect to D's input and to z."""
    t = make_trainer("numpy", changes)
    maps, kept = t.real_and_generated()
    z = t.ops.asnumpy(t.z)

    def discriminator_loss():
        t.discriminator_loss(maps)
        return 1000 * t.losses[0]
    dlogits, features = t.discriminator_loss(maps)
    dmaps = t.discriminator.backward(dlogits, features, input_grad=True)
    rng = np.random.default_rng(3)
    directional_check(discriminator_loss, [maps], [1000 * dmaps], rng, delta=1e-6)

    dmaps = t.generator_loss(maps)
    dz = t.generator.backward(dmaps, kept, input_grad=True)

    def generator_loss():
        t.ops.write(t.z, z)
        generated, _ = t.real_and_generated()
        t.generator_loss(generated)
        return 1000 * t.losses[1:].sum()
    directional_check(generator_loss, [z], [1000 * dz], rng, delta=1e-6)


@pytest.mark.parametrize("operation", ["conv_input_grad", "conv_weight_grad", "batch_norm_grad",
                                       "softmax_grad", "conv", "bias_activation_grad"])
def test_broken_gradient_in_a_network_is_caught(operation):
    """Scaled by 1.001 in the generator's backward pass only."""
    trainer = make_trainer("numpy", {})
    ops, backward = trainer.ops, trainer.generator.backward
    right = getattr(ops, operation)

    def broken(*args, **kwargs):
        result = right(*args, **kwargs)
        first = result[0] if isinstance(result, tuple) else result
        ops.write(first, first * 1.001)
        return result

    def broken_backward(*args):
        setattr(ops, operation, broken)
        backward(*args)
        setattr(ops, operation, right)
    trainer.generator.backward = broken_backward
    compute(trainer, backward=True)
    with pytest.raises(AssertionError, match="they differ by"):
        check_network(trainer, "g")
