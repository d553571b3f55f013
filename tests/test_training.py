"""Training: bit for bit repeatable, resumable, as in PyTorch, safe against kills; and it learns."""
import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import CUDA_DEVICES, ROOT, TINY_FLAGS, WITHOUT_GPU, tiny
from PIL import Image

import data
import kernels
import metrics
import semgan
from app import training
from app.command_line import main
from app.forecast import rehearse
from app.run_folder import (
    CheckpointWriter,
    generator_and_header,
    load_checkpoint,
    restore_trainer,
    snapshot,
    write_checkpoint,
)
from formats.files import InputError
from kernels import numpy_ops

# L_D and the sum of L_G's layers in the first ten steps of tiny("semgan") and tiny("gan"), float32.
FIRST_LOSSES = {
    "semgan": [
        (0.683715, 0.0452663), (0.704882, 0.0320597), (0.703881, 0.0466347), (0.696596, 0.0369499),
        (0.702757, 0.0330958), (0.66891, 0.0326932), (0.656241, 0.0260275), (0.687488, 0.0353483),
        (0.690909, 0.0227365), (0.657565, 0.0273006),
    ],
    "gan": [
        (0.731225, 0.37179), (0.754436, 0.408452), (0.699495, 0.428015), (0.71128, 0.36087),
        (0.717776, 0.365568), (0.655606, 0.387244), (0.715996, 0.372173), (0.664548, 0.397979),
        (0.65845, 0.382966), (0.629705, 0.395824),
    ],
}


def trainer(device="numpy", model="semgan", dtype=np.float32, precision="fp32", **changes):
    s = tiny(model, **changes)
    ops = kernels.load(device, dtype, precision)
    return semgan.Trainer(ops, s, data.colored_shapes(s.side, s.seed, width=s.width))


def state(t):
    return {f"{net}.{name}": t.ops.asnumpy(a) for net, network in t.networks.items()
            for name, a in network.state().items()}


def everything(t):
    """state, losses and gradients."""
    grads = {f"{net}.grads": t.ops.asnumpy(network.flat["grads"])
             for net, network in t.networks.items()}
    return state(t) | grads | {"losses": losses(t)}


def losses(t):
    return t.ops.asnumpy(t.losses)


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


def run_main(*words):
    size = TINY_FLAGS[2:] if "--size" in words else TINY_FLAGS  # which begin with --side
    main(["--save-every", "5", "--log-every", "1", *size, *map(str, words)])


# ------------------------------------------------------------------------------------- repeatable
@pytest.mark.parametrize("model", ["semgan", "gan"])
def test_first_losses(device, model):
    t, found = trainer(device, model), []
    for _ in range(10):
        t.train_step()
        loss_d, *losses_g = losses(t)
        found.append([loss_d, sum(losses_g)])
    np.testing.assert_allclose(found, FIRST_LOSSES[model], rtol=2e-4)


def test_float64_takes_the_same_course(device):
    a, b = trainer(device), trainer(device, dtype=np.float64)
    for _ in range(10):
        a.train_step()
        b.train_step()
        np.testing.assert_allclose(losses(a), losses(b), rtol=1e-3)


@pytest.mark.parametrize("model", ["semgan", "gan"])
@pytest.mark.parametrize("preset", ["full", "paper"])
def test_a_step_of_the_pure_functions_is_the_engine_s(model, preset):
    """Losses, gradients and all that is updated, to 1e-12 in float64; kernels of 3x3 and 11x11."""
    for kernel_size in 3, 11:
        # Adam divides by |g| + eps: with a tiny eps it would magnify the rounding errors of g.
        s = tiny(model, preset, kernel_size=kernel_size, adam_eps=1e-4)
        maps = data.colored_shapes(s.side, s.seed)
        plain, engine = (semgan.Trainer(kernels.load(device, np.float64), s, maps)
                         for device in ("plain", "numpy"))
        for t in plain, engine:
            t.train_step()
        for name, a in everything(plain).items():
            np.testing.assert_allclose(everything(engine)[name], a, rtol=0, err_msg=name,
                                       atol=1e-12 * max(1, abs(a).max()))


@pytest.mark.parametrize("precision, tolerance", [("tf32", 2e-3), ("bf16", 2e-2)])
@pytest.mark.parametrize("model", ["semgan", "gan"])
@pytest.mark.parametrize("device", CUDA_DEVICES)
def test_tensor_cores_take_the_same_course(device, model, precision, tolerance):
    """With rounded factors the losses are close to the unrounded ones, but not the same."""
    a, b = trainer(device, model), trainer(device, model, precision=precision)
    for _ in range(10):
        a.train_step()
        b.train_step()
        np.testing.assert_allclose(losses(a), losses(b), rtol=tolerance)
        assert (losses(a) != losses(b)).any()


def test_two_runs_are_bitwise_equal(device, precision="fp32"):
    a, b = trainer(device, precision=precision), trainer(device, precision=precision)
    start = state(a)
    for t in a, b:
        for _ in range(20):
            t.train_step()
    assert_same_bits(state(a), state(b))
    assert all((start[n] != s).any() for n, s in state(a).items()), "something was not trained"
    other = trainer(device, precision=precision, seed=1)
    assert (state(other)["g.params"] != start["g.params"]).any()


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("device", CUDA_DEVICES)
def test_two_runs_on_tensor_cores_are_bitwise_equal(device, precision):
    test_two_runs_are_bitwise_equal(device, precision)


@pytest.mark.parametrize("model", ["semgan", "gan"])
def test_a_recorded_step_is_bitwise_equal(device, model, tmp_path, monkeypatch):
    """As its operations one by one: with decay, new inputs, samples in between, and a resume."""
    monkeypatch.setattr(semgan, "INPUT_STEPS", 3)

    def make():
        return trainer(device, model, decay_after=2, half_life=2)
    one_by_one, recorded = make(), make()
    z = np.random.default_rng(9).standard_normal((70, 5))
    one_by_one.replay = one_by_one.operations
    for step in range(10):
        if step == 5:
            write_checkpoint(tmp_path / "checkpoint.npz", *snapshot(recorded))
            recorded = make()
            restore_trainer(recorded, *load_checkpoint(tmp_path), tmp_path)
        for t in one_by_one, recorded:
            t.train_step()
        assert losses(one_by_one).tobytes() == losses(recorded).tobytes(), f"step {step}"
        if step % 2:
            samples = [t.generator.sample(z) for t in (one_by_one, recorded)]
            np.testing.assert_array_equal(*samples)
            rehearse(recorded)
    assert_same_bits(state(one_by_one), state(recorded))
    assert device in ("numpy", "plain") or recorded.replay != recorded.operations, "not recorded"
    recorded.train_step()  # number 10: 8 steps past the first 2, and halved every 2
    rates = recorded.ops.asnumpy(recorded.rate)
    np.testing.assert_allclose(rates, recorded.s.learning_rate / 2 ** 4, rtol=1e-6)


@pytest.mark.parametrize("both, halvings", [(True, [4, 4]), (False, [4, 0])])
def test_the_discriminator_s_rate_can_stay(both, halvings):
    t = trainer("numpy", decay_after=2, half_life=2, decay_both=both)
    t.inputs(0)
    rates = [t.s.learning_rate, t.s.discriminator_learning_rate]
    np.testing.assert_allclose(t.rates[10], rates / 2.0 ** np.array(halvings), rtol=1e-6)


def test_a_step_computed_by_one_launch_waits_for_nothing(monkeypatch):
    """Between two draws of inputs, a recorded step neither transfers nor allocates."""
    t = trainer("emulator")
    t.train_step()
    for name in "allocate", "upload", "write", "download":
        monkeypatch.setattr(t.ops.device, name, None)
    for _ in range(2):
        t.train_step()


def test_two_small_preset_runs_are_bitwise_equal(device):
    """With several workers; the emulator shuffles its threads each time."""
    steps, batch_size = (3, 32) if device == "numpy" else (1, 2)
    s = semgan.settings(preset="small", batch_size=batch_size)
    runs = [semgan.Trainer(kernels.load(device), s, data.colored_shapes(s.side)) for _ in range(2)]
    if device == "emulator":
        runs[1].ops.device.random.seed(1)
    for t in runs:
        for _ in range(steps):
            t.train_step()
    assert_same_bits(*map(state, runs))


def test_the_number_of_workers_changes_rounding_only():
    s = semgan.settings(preset="small", batch_size=5)
    maps = data.colored_shapes(s.side)
    one, three = (semgan.Trainer(kernels.NumpyEngine(np.float64, count), s, maps)
                  for count in (1, 3))
    one.train_step()
    three.train_step()
    np.testing.assert_allclose(one.losses, three.losses, rtol=1e-12)
    for a, b in zip(one.networks.values(), three.networks.values()):
        np.testing.assert_allclose(a.flat["grads"], b.flat["grads"], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("flags", [["--model", "semgan"], ["--model", "gan"], ["--size", "8x16"],
                                   ["--size", "24x12", "--model", "gan"]], ids=str)
def test_resume_is_bitwise_equal(tmp_path, flags):
    run_main(*flags, "--steps", 20, "--out", tmp_path / "a")
    run_main(*flags, "--steps", 10, "--out", tmp_path / "b")
    half = load_checkpoint(tmp_path / "b")[1]
    main(["--resume", *flags, "--steps", "20", "--save-every", "5", "--log-every", "1",
          "--out", str(tmp_path / "b")])
    (header, whole), (_, resumed) = (load_checkpoint(tmp_path / run) for run in "ab")
    assert header["step"] == 20
    assert_same_bits(whole, resumed)
    assert (half["g.params"] != whole["g.params"]).any()
    grids = [(tmp_path / run / "samples" / "step_000020.png").read_bytes() for run in "ab"]
    assert grids[0] == grids[1]
    a, b = ([line.rsplit(",", 1)[0] for line in (tmp_path / run / "log.csv").read_text().split()]
            for run in "ab")
    assert a == b and len(a) == 21  # all but the column of seconds


def test_early_grids_change_nothing(tmp_path, monkeypatch):
    """A run that draws them ends with the same bits as one that does not. Always the same z."""
    run_main("--steps", 10, "--out", tmp_path / "with")
    monkeypatch.setattr(training, "EARLY_GRIDS", ())
    run_main("--steps", 10, "--out", tmp_path / "without")
    a, b = (load_checkpoint(tmp_path / run)[1] for run in ("with", "without"))
    assert_same_bits(a, b)
    run_main("--steps", 1, "--out", tmp_path / "one step")
    early, late = (tmp_path / run / "samples" / "step_000001.png" for run in ("with", "one step"))
    assert early.read_bytes() == late.read_bytes()


def test_resume_by_other_arithmetic_is_announced(tmp_path, capsys):
    tf32 = "--device", "emulator", "--precision", "tf32", "--out", tmp_path
    run_main("--steps", 1, *tf32)
    run_main("--resume", "--steps", 2, *tf32)
    assert "bit-identical" not in capsys.readouterr().out
    run_main("--resume", "--steps", 3, "--device", "numpy", "--out", tmp_path)
    assert ("was computed by the emulator in tf32 and continues on NumPy: results will be close, "
            "not bit-identical") in capsys.readouterr().out


def test_resume_drops_rows_past_the_checkpoint(tmp_path):
    run_main("--steps", 10, "--out", tmp_path)
    with open(tmp_path / "log.csv", "a") as log:
        log.write("11,1,1,1,1\n12,1,")  # killed between checkpoints, in the middle of a row
    run_main("--resume", "--steps", 12, "--out", tmp_path)
    steps = [line.split(",")[0] for line in (tmp_path / "log.csv").read_text().splitlines()]
    assert steps == ["step", *map(str, range(1, 13))]


# What these commits themselves logged for steps 7 to 12: L_D, and L_G layer by layer.
EARLIER_RUNS = {
    "9239939": [  # the first one that could train: no learning-rate decay, no options of data sets
        (0.706466436, 0.141847461, 0.00596078346), (0.710007191, 0.141744792, 0.00801430177),
        (0.686801672, 0.128970265, 0.00742280856), (0.709998488, 0.115638584, 0.00672274968),
        (0.673954248, 0.102371588, 0.00703202374), (0.705062985, 0.106182784, 0.00587929925),
    ],
    "e008dea": [  # the RGB baseline
        (0.618611634, 0.566265583, 0.242650971), (0.631231666, 0.490630239, 0.242859066),
        (0.572285473, 0.575731635, 0.339224666), (0.647057295, 0.503272653, 0.232406735),
        (0.589486718, 0.581119418, 0.350712806), (0.675592303, 0.41225481, 0.194091633),
    ],
}


@pytest.mark.parametrize("commit", EARLIER_RUNS)
def test_runs_of_earlier_commits_load(tmp_path, capsys, commit):
    """A run of 6 steps continues as it did then, and can be sampled. See app/run_folder.py."""
    golden = ROOT / "tests" / "golden" / f"run_{commit}.npz"
    (tmp_path / "checkpoint.npz").write_bytes(golden.read_bytes())
    header, arrays = load_checkpoint(tmp_path)
    s = header["settings"]
    t = semgan.Trainer(kernels.load("numpy"), s, data.colored_shapes(s.side, s.seed))
    for _ in range(header["step"]):
        t.train_step()
    for name, a in state(t).items():  # the first steps, too, are as they were then
        np.testing.assert_allclose(a, arrays[name], rtol=0, atol=1e-5 * abs(a).max(), err_msg=name)
    restore_trainer(t, header, arrays, tmp_path)
    for expected in EARLIER_RUNS[commit]:
        t.train_step()
        np.testing.assert_allclose(losses(t), expected, rtol=0, atol=1e-6)
    for command in ["sample", "--count", "3"], ["evaluate"], ["interpolate", "--keys", "2"]:
        main([command[0], str(tmp_path), *command[1:]])
    assert len(list((tmp_path / "generated").glob("map_*.png"))) == 3
    capsys.readouterr()
    main(["--resume", "--device", "numpy", "--steps", "12", "--out", str(tmp_path)])
    assert "computed by an earlier version of this program" in capsys.readouterr().out
    whole, resumed = load_checkpoint(tmp_path)
    assert whole["added"] == set() and whole["step"] == 12
    np.testing.assert_array_equal(resumed["g.params"], state(t)["g.params"])


def test_options_that_the_first_checkpoints_lack_can_be_given_again(tmp_path, capsys):
    maps, palette = tmp_path / "maps", tmp_path / "palette.txt"
    maps.mkdir()
    colors = np.array([[255, 255, 255], [0, 0, 255], [0, 255, 0], [255, 0, 0]], np.uint8)
    palette.write_text("\n".join(" ".join(map(str, color)) for color in colors.tolist()))
    for i, ids in enumerate(data.colored_shapes(8).maps[:5]):
        Image.fromarray(colors[ids]).save(maps / f"{i}.png")
    with np.load(ROOT / "tests" / "golden" / "run_9239939.npz") as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"]))
    header["settings"]["dataset"] = str(maps)
    np.savez(tmp_path / "checkpoint.npz", **arrays | {"header": json.dumps(header)})
    with pytest.raises(SystemExit):  # the palette that would be learnt has another order
        main(["--resume", "--steps", "7", "--out", str(tmp_path)])
    assert "its maps or colours have changed" in capsys.readouterr().err
    main(["--resume", "--steps", "7", "--palette", str(palette), "--out", str(tmp_path)])
    main(["--resume", "--steps", "8", "--out", str(tmp_path)])
    assert load_checkpoint(tmp_path)[0]["settings"].palette == str(palette)


def test_latents_and_maps_depend_on_the_step_alone():
    a, b = trainer(), trainer()
    for step in (0, 99, 100, 250):
        z, index = (a.ops.asnumpy(x).copy() for x in a.inputs(step))
        b.inputs(step + 7)
        again = b.inputs(step)
        np.testing.assert_array_equal(z, again[0])
        np.testing.assert_array_equal(index, again[1])
    first = a.ops.asnumpy(a.inputs(0)[0])
    for other in a.inputs(1), a.inputs(semgan.INPUT_STEPS), trainer(seed=1).inputs(0):
        assert not np.array_equal(first, other[0])


@pytest.mark.parametrize("model", ["semgan", "gan"])
def test_samples_are_drawn_with_the_running_statistics(model):
    """The generator at inference, written out with the pure functions."""
    t = trainer(model=model, dtype=np.float64, bn_eps=0.3)
    for _ in range(3):
        t.train_step()
    g, z = t.generator, np.random.default_rng(0).standard_normal((66, t.s.latent))
    before = state(t)
    x = numpy_ops.bias_activation(z @ g.params["dense.w"][0, 0], g.params["dense.b"], "relu")
    x = x.reshape(66, *g.base, -1)
    for i, stride in enumerate(g.strides, 1):
        w, gamma = g.params[f"deconv{i}.w"], g.params[f"deconv{i}.gamma"]
        mean, var = g.running[f"deconv{i}.gamma"]
        shape = 66, stride * x.shape[1], stride * x.shape[2], len(gamma)
        x = numpy_ops.conv_input_grad(x, w, shape, stride, w.shape[0] // 2)
        x = gamma * (x - mean) / np.sqrt(var + 0.3) + g.params[f"deconv{i}.beta"]
        x = np.maximum(x, 0)
    x = numpy_ops.conv(x, g.params["conv.w"], 1, 1) + g.params["conv.b"]
    expected = np.tanh(x) if model == "gan" else np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    np.testing.assert_allclose(np.concatenate(list(g.outputs(z))), expected, atol=1e-12)
    assert len(g.sample(z)) == 66
    assert_same_bits(before, state(t))


@pytest.mark.parametrize("init, expected", [
    ("normal", lambda kh, kw, cin, cout: 0.02),
    ("glorot", lambda kh, kw, cin, cout: np.sqrt(2 / (kh * kw * (cin + cout))))])
def test_initial_weights(init, expected):
    """Their standard deviation: for glorot, a uniform distribution's, limit / sqrt(3)."""
    s = semgan.settings(preset="small", init=init)
    net = semgan.Generator(kernels.load("plain"), s, 4, np.random.default_rng(0))
    for name in "deconv1.w", "deconv2.w":
        w = net.params[name]
        assert w.std() == pytest.approx(expected(*w.shape), rel=0.02)
        assert abs(w.mean()) < 0.02 * w.std()
    assert not net.params["conv.b"].any() and (net.params["deconv1.gamma"] == 1).all()


# ---------------------------------------------------------------------------------- other engines
@pytest.mark.parametrize("side, width", [(8, 16), (24, 12)])
def test_maps_that_are_not_square(device, side, width):
    """Three steps in float64 as by the pure functions, to 1e-10; and the shapes on the way."""
    t, plain = (trainer(name, dtype=np.float64, side=side, width=width, adam_eps=1e-4)
                for name in (device, "plain"))
    for _ in range(3):
        t.train_step()
        plain.train_step()
    for name, a in everything(plain).items():
        np.testing.assert_allclose(everything(t)[name], a, rtol=0, err_msg=name,
                                   atol=1e-10 * max(1, abs(a).max()))
    z = np.random.default_rng(0).standard_normal((3, 5))
    maps, kept = t.generator.forward(t.ops.asarray(z), training=False)
    assert t.generator.base == (side // 4, width // 4)
    assert [layer.y.shape[1:3] for layer in kept.layers] == [(side // 2, width // 2), (side, width)]
    _, features = t.discriminator.forward(maps)
    assert [f.shape[1:3] for f in features] == [(side // n, width // n) for n in (1, 2, 4)]
    samples = t.generator.sample(z)
    assert samples.shape == (3, side, width)
    np.testing.assert_array_equal(samples, plain.generator.sample(z))


@pytest.mark.parametrize("changes", [
    dict(width=16), dict(side=24, width=12, model="gan", bottleneck=True),
    dict(), dict(model="gan"), dict(bottleneck=True, feature_matching="paired"),
    dict(feature_layers="last", discriminator_learning_rate=3e-4),
    dict(generator_loss="non_saturating"), dict(model="gan", generator_loss="non_saturating"),
    dict(feature_matching="unbiased", moment_matching=0.1,
         kernel_size=5, halve_kernels=True)], ids=str)
def test_same_training_as_pytorch(device, changes):
    """Ten steps in float64 from the same weights: losses, and all parameters in the end."""
    torch = pytest.importorskip("torch")
    from torch_step import TorchTrainer
    ours = trainer(device, dtype=np.float64, **changes)
    theirs, host = TorchTrainer(ours, torch.float64), ours.ops.asnumpy
    for step in range(10):
        z, index = ours.inputs(step)
        ours.train_step()
        expected = theirs.train_step(host(z), host(index))
        np.testing.assert_allclose(losses(ours), expected, rtol=1e-7)
    weights = [(ours.discriminator.params[f"conv{i}.w"], conv.weight)
               for i, conv in enumerate(theirs.d.convs, 1)]
    for w, torch_w in [*weights, (ours.generator.params["conv.w"], theirs.g.conv.weight)]:
        torch_w = torch_w.detach().permute(2, 3, 1, 0)
        np.testing.assert_allclose(host(w), torch_w, rtol=1e-5, atol=1e-8)
    for i in range(len(ours.generator.strides)):
        norm = theirs.g.deconvs[3 * i + 1]
        mean, var = map(host, ours.generator.running[f"deconv{i + 1}.gamma"])
        np.testing.assert_allclose(mean, norm.running_mean, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(var, norm.running_var, rtol=1e-6)


@pytest.mark.parametrize("model", ["semgan", "gan"])
def test_another_palette_changes_the_training_of_the_gan_alone(model):
    """SemGAN sees classes, not colours: the paper's section 3.2. To the bit."""
    a = trainer(model=model)
    dataset = a.dataset._replace(palette=a.dataset.palette[[1, 2, 3, 0]])
    b = semgan.Trainer(kernels.load("numpy"), a.s, dataset)
    for t in a, b:
        for _ in range(5):
            t.train_step()
    if model == "semgan":
        assert_same_bits(everything(a), everything(b))
    else:
        assert all((losses(a) != losses(b)).tolist())
        assert (state(a)["g.params"] != state(b)["g.params"]).any()


def test_the_non_saturating_loss_resumes_and_has_a_log_of_its_own(tmp_path, capsys):
    """Equation 1's other form; the settings of feature matching are refused."""
    words = "--generator-loss", "non_saturating"
    run_main("--out", tmp_path / "whole", *words)
    run_main("--out", tmp_path / "parts", *words, "--steps", "10")
    run_main("--out", tmp_path / "parts", "--resume", "--steps", "20")
    a, b = (load_checkpoint(tmp_path / name)[1] for name in ("whole", "parts"))
    assert_same_bits(a, b)
    log = (tmp_path / "parts" / "log.csv").read_text().splitlines()
    assert log[0] == "step,loss_d,loss_g,seconds"
    assert len(log) == 21 and 0.3 < float(log[1].split(",")[2]) < 1.5  # log 2 where D cannot decide
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        run_main("--out", tmp_path / "no", *words, "--moment-matching", "0.1")
    assert exit.value.code == 2 and not (tmp_path / "no").exists()
    assert "--moment-matching 0.1 has no effect with" in capsys.readouterr().err


# ------------------------------------------------------------------------------ the best generator
def test_the_best_generator_is_kept(tmp_path, monkeypatch):
    """best.npz: of the step with the lowest FID or mean SWD; the same file after a resume."""
    values = {2: 5.0, 4: 3.0, 6: 3.0, 8: 4.0, 10: 2.0}

    def measured(trainer, *_):
        return {"SWD x1e3, average": (values[trainer.step], 1.0, 1.0)}
    monkeypatch.setattr(training, "measure", measured)
    flags = ["--evaluate-every", "2", "--save-every", "3"]
    run_main("--out", tmp_path / "whole", *flags, "--steps", "8")
    best = (tmp_path / "whole" / "best.npz").read_bytes()
    g, header = generator_and_header(tmp_path / "whole" / "best.npz", "numpy")
    assert header["step"] == 4
    run_main("--out", tmp_path / "short", "--steps", "4")
    _, arrays = load_checkpoint(tmp_path / "short")
    assert g.flat["params"].tobytes() == arrays["g.params"].tobytes()
    write = training.evaluation.write_table

    def killed(path, step, *rest):
        if step == 4 and not (tmp_path / "again").exists():
            (tmp_path / "again").touch()
            raise SystemExit("killed")
        write(path, step, *rest)
    monkeypatch.setattr(training.evaluation, "write_table", killed)
    with pytest.raises(SystemExit):
        run_main("--out", tmp_path / "parts", *flags, "--steps", "8")
    run_main("--out", tmp_path / "parts", "--resume", *flags, "--steps", "8")
    assert (tmp_path / "parts" / "best.npz").read_bytes() == best
    run_main("--out", tmp_path / "parts", "--resume", *flags, "--steps", "10")
    assert generator_and_header(tmp_path / "parts" / "best.npz", "numpy")[1]["step"] == 10
    main(["sample", str(tmp_path / "parts" / "best.npz"), "--count", "2", "--out",
          str(tmp_path / "maps")])
    run_main("--out", tmp_path / "without", "--steps", "2")
    assert not (tmp_path / "without" / "best.npz").exists()


# ----------------------------------------------------------------------------------------- learns
@pytest.mark.parametrize("model", ["semgan", "gan"])
def test_it_learns(model):
    """A few dozen steps at side 16: the maps' class areas come close to the real ones."""
    s = tiny(model, side=16, batch_size=16, latent=16, kernel_size=5,
             generator_filters=[32, 32, 16], discriminator_filters=[16, 32], learning_rate=2e-3,
             discriminator_learning_rate=5e-4)
    dataset = data.colored_shapes(s.side)
    t = semgan.Trainer(kernels.load('numpy'), s, dataset)
    z = np.random.default_rng(9).standard_normal((64, s.latent))
    real = metrics.class_areas(dataset.maps, 4).mean(0)

    def distance():  # of the mean share of each class, 0 to 1
        maps = t.generator.sample(z)
        if model == "gan":
            maps = ((maps[..., None, :].astype(int) - dataset.palette) ** 2).sum(-1).argmin(-1)
        return abs(metrics.class_areas(maps, 4).mean(0) - real).sum() / 2 / s.side ** 2
    before = distance()
    for _ in range(150):
        t.train_step()
    after = distance()
    assert before > 0.25 and after < 0.12, (before, after)
    assert len(np.unique(t.generator.sample(z), axis=0)) > 32, "the samples are all alike"


# ---------------------------------------------------------------------------------- kills and NaN
def start(folder, *words):
    command = [sys.executable, str(ROOT / "semgan.py"), *TINY_FLAGS, "--steps", "100000",
               "--out", str(folder), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            cwd=ROOT, env=WITHOUT_GPU)


def wait_for(happened, seconds=60):
    deadline = time.time() + seconds
    while not happened():
        assert time.time() < deadline, "it did not happen"
        time.sleep(0.005)


@pytest.mark.slow
def test_kill_never_leaves_a_broken_checkpoint(tmp_path):
    """kill -9 at random moments of a run that does little but write checkpoints, then resume."""
    rng, steps, resume, path = np.random.default_rng(0), [0], (), tmp_path / "checkpoint.npz"
    for attempt in range(8):
        written = path.stat().st_mtime_ns if resume else 0
        process = start(tmp_path, "--save-every", 1, *resume)
        if attempt % 4 == 3:  # at any moment, the start included; else once it writes
            time.sleep(rng.uniform(0, 1.5))
        else:
            wait_for(lambda old=written: path.exists() and path.stat().st_mtime_ns != old)
            time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.wait()
        header, arrays = load_checkpoint(tmp_path)
        assert np.isfinite(arrays["g.params"]).all()
        steps.append(header["step"])
        resume = ("--resume",)
    assert steps == sorted(steps) and steps[-1] > steps[1]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_parameter_that_is_not_finite_is_not_saved(tmp_path, value):
    t = trainer()
    t.train_step()
    t.ops.write(t.discriminator.params["conv1.b"], value)
    with pytest.raises(FloatingPointError, match="step 1: a parameter is NaN or infinite"):
        snapshot(t)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dies_in", ["savez", "fsync"])
def test_dying_while_writing_keeps_the_old_checkpoint(tmp_path, monkeypatch, dies_in):
    t, path = trainer(), tmp_path / "checkpoint.npz"
    t.train_step()
    write_checkpoint(path, *snapshot(t))
    before = path.read_bytes()
    t.train_step()

    def die(file, *args, **kwargs):
        if dies_in == "savez":
            file.write(b"PK half a checkpoint")
        raise KeyboardInterrupt
    monkeypatch.setattr(np if dies_in == "savez" else os, dies_in, die)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(path, *snapshot(t))
    assert path.read_bytes() == before
    monkeypatch.undo()
    write_checkpoint(path, *snapshot(t))
    assert load_checkpoint(tmp_path)[0]["step"] == 2


def test_checkpoints_are_written_while_training_goes_on(tmp_path, monkeypatch):
    """The state of its moment, by a thread; a second one waits for the first."""
    t, writer, ready = trainer(), CheckpointWriter(tmp_path / "checkpoint.npz"), threading.Event()
    t.train_step()
    write_checkpoint(tmp_path / "expected.npz", *snapshot(t))
    savez = np.savez
    monkeypatch.setattr(np, "savez", lambda *a, **arrays: ready.wait(60) and savez(*a, **arrays))
    writer.start(t)
    t.train_step()
    assert not writer.path.exists()
    ready.set()
    writer.finish()
    assert writer.path.read_bytes() == (tmp_path / "expected.npz").read_bytes()
    writer.start(t)
    t.train_step()
    writer.start(t)
    writer.finish()
    assert load_checkpoint(tmp_path)[0]["step"] == 3


def test_a_checkpoint_that_cannot_be_written_ends_the_run(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")
    def no_thread(_):
        raise RuntimeError("can't start new thread")
    t, writer = trainer(), CheckpointWriter(tmp_path / "checkpoint.npz")
    with monkeypatch.context() as disk:
        disk.setattr(np, "savez", full)
        writer.start(t)
        with pytest.raises(InputError, match="No space left.*earlier checkpoint is unchanged"):
            writer.start(t)
    with monkeypatch.context() as limit:
        limit.setattr(threading.Thread, "start", no_thread)
        writer = CheckpointWriter(writer.path)
        writer.start(t)
    assert load_checkpoint(tmp_path)[0]["step"] == 0


def test_by_default_a_checkpoint_a_minute(tmp_path, monkeypatch):
    """By the clock, and pictures by the steps."""
    saved, now = [], iter(range(0, 10**6, 7))  # each look at the clock takes 7 seconds
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    monkeypatch.setattr(training, "GRID_EVERY", 20)
    monkeypatch.setattr(CheckpointWriter, "start", lambda self, t: saved.append(t.step))
    main([*TINY_FLAGS, "--steps", "40", "--log-every", "100", "--out", str(tmp_path)])
    grids = sorted(int(path.stem[5:]) for path in (tmp_path / "samples").iterdir())
    assert grids == [1, 10, 20, 40]
    assert saved[-1] == 40 and len(saved) > 3
    assert set(np.diff(saved[:-1])) <= {7, 8, 9}


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_saves_and_leaves(tmp_path, number):
    process = start(tmp_path, "--save-every", 1000000)
    wait_for((tmp_path / "log.csv").exists)
    time.sleep(0.5)
    assert not (tmp_path / "checkpoint.npz").exists()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "Traceback" not in err
    step = load_checkpoint(tmp_path)[0]["step"]
    assert f"Stopped at step {step}" in out and step > 0


def test_nan_stops_the_run(tmp_path, monkeypatch, capsys):
    right = semgan.Trainer.train_step

    def blows_up_at_13(self):
        right(self)
        if self.step == 13:
            self.ops.write(self.losses[:1], np.nan)
    monkeypatch.setattr(semgan.Trainer, "train_step", blows_up_at_13)
    with pytest.raises(SystemExit) as stop:
        run_main("--out", tmp_path)
    message = str(stop.value)
    assert "step 13" in message and "step 10" in message and "--learning-rate" in message
    assert load_checkpoint(tmp_path)[0]["step"] == 10


def test_a_learning_rate_that_explodes(tmp_path):
    """Whatever turns infinite first, a loss or a parameter, no bad checkpoint is written."""
    with pytest.raises(SystemExit) as stop:
        run_main("--learning-rate", 1e30, "--discriminator-learning-rate", 1e30, "--out", tmp_path)
    assert "infinite" in str(stop.value)
    if (tmp_path / "checkpoint.npz").exists():
        assert all(np.isfinite(a).all() for a in load_checkpoint(tmp_path)[1].values())


PEAK = r"""
import re, resource, data, kernels, semgan
s = semgan.settings(preset="paper")
t = semgan.Trainer(kernels.load("numpy"), s, data.colored_shapes(s.side))
t.train_step()
t.train_step()
try:
    peak = re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1]
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(s.batch_size, s.side, s.kernel_size, peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs resource")
def test_paper_preset_fits_into_two_gigabytes():
    """Two steps at batch 32, in a process of its own: the peak of its memory."""
    # Not rusage on Linux: it also covers the process that started this one.
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, cwd=ROOT,
                          check=True)
    batch, side, kernel, peak = map(int, done.stdout.split())
    peak *= 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes elsewhere
    assert (batch, side, kernel) == (32, 64, 11) and 100e6 < peak < 2e9, f"{peak / 1e6:.0f} MB"
