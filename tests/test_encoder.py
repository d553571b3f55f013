"""The encoder: gradients through a frozen generator, the same steps as PyTorch's, its commands."""
import json
import os
import shutil
import signal

import numpy as np
import pytest
from conftest import CUDA_DEVICES, TINY_FLAGS, tiny
from PIL import Image

import data
import kernels
import metrics
import semgan
from app.command_line import main as semgan_main
from app.run_folder import load_generator
from experiments import encoder, encoder_training, latents
from experiments.encoder_command import main
from experiments.encoder_files import (
    fingerprint,
    load_encoder,
    load_frozen,
    read_maps,
    real_maps,
)
from formats.files import InputError
from kernels.gradient_check import directional_check

SMALL = dict(filters=[5, 6], kernel_size=3, batch_size=4)
SMALL_FLAGS = ["--filters", "5", "6", "--kernel-size", "3", "--batch-size", "4",
               "--first-steps", "6", "--second-steps", "6"]


def frozen(device="numpy", dtype=np.float64, **changes):
    """A generator with the running statistics of random z, whose scales and biases differ from 1
    and 0."""
    ops, rng = kernels.load(device, dtype), np.random.default_rng(5)
    g = semgan.Generator(ops, tiny(**changes), 4, rng)
    for name, p in g.params.items():
        if not name.endswith(".w"):
            ops.write(p, ops.asnumpy(p) + rng.uniform(-0.3, 0.3, p.shape))
    z = ops.asarray(rng.standard_normal((8, g.s.latent)))
    for _ in range(30):
        g.forward(z)
    return encoder.FrozenGenerator(g)


def make(device="numpy", dtype=np.float64, of_generator=(), **changes):
    g = frozen(device, dtype, **dict(of_generator))
    s = encoder.settings(g.s, **SMALL | changes)
    return encoder.EncoderTrainer(g, s, data.colored_shapes(g.s.side, width=g.s.width).maps)


def state(trainer):
    return {name: trainer.ops.asnumpy(a).copy() for name, a in trainer.encoder.state().items()}


def bits(network):
    """All arrays of a network, its gradients too, as bytes."""
    arrays = network.state() | {"grads": network.flat["grads"]}
    return {name: network.ops.asnumpy(a).tobytes() for name, a in arrays.items()}


# --------------------------------------------------------------------------------------- gradients
@pytest.mark.parametrize("of_generator", [dict(), dict(width=16), dict(bottleneck=True)], ids=str)
@pytest.mark.parametrize("stage", [0, 1])
def test_gradient_of_both_losses(device, stage, of_generator):
    """With respect to all of E's parameters: through E alone, or through G and E."""
    t = make(device, of_generator=of_generator, stages=encoder.STAGES[1 + stage])
    ops, e, rng = t.ops, t.encoder, np.random.default_rng(3)
    for name, p in e.params.items():
        if name.endswith(".b"):
            ops.write(p, rng.uniform(-0.3, 0.3, p.shape))
    t.inputs()
    e.backward(*t.gradient(stage))
    params = {name: ops.asnumpy(p).copy() for name, p in e.params.items()}
    grads = [10 * ops.asnumpy(g) for g in e.grads.values()]
    assert all(np.abs(g).max() > 0 for g in grads), "some parameter gets no gradient"

    def loss():
        for name, p in params.items():
            ops.write(e.params[name], p)
        t.gradient(stage)
        return 10 * ops.asnumpy(t.loss)[0]
    directional_check(loss, list(params.values()), grads, rng, delta=1e-6)


def of_latents(g):
    """(loss(), z, dz) of the cross-entropy of G(z)."""
    x = encoder.one_hot(g.ops, data.colored_shapes(g.s.side).maps[:3], 4)
    z, loss = np.random.default_rng(0).standard_normal((3, g.s.latent)), np.zeros(1)
    dz = latents.gradient_of_latents(g, x, z, loss)

    def value():
        latents.gradient_of_latents(g, x, z, loss)
        return 10 * loss[0]
    return value, z, 10 * dz


def test_gradient_of_z():
    g = frozen()
    loss, z, dz = of_latents(g)
    directional_check(loss, [z], [dz], np.random.default_rng(1), delta=1e-6)


def test_the_gradient_of_batch_statistics_does_not_fit():
    """semgan.py's own batch-norm gradient: there mean and variance depend on the batch."""
    g = frozen()
    g.norm_relu_grad = lambda name, dy, kept: g.ops.batch_norm_grad(
        dy, kept.a, kept.y, g.params[name + ".gamma"], kept.mean, kept.var, g.s.bn_eps, "relu")[0]
    loss, z, dz = of_latents(g)
    with pytest.raises(AssertionError, match="they differ by"):
        directional_check(loss, [z], [dz], np.random.default_rng(1), delta=1e-6)


# ---------------------------------------------------------------------------------------- training
class TorchEncoder:
    """E and the frozen G of an EncoderTrainer in PyTorch, and one step."""
    def __init__(self, trainer):
        import torch
        import torch_step
        self.torch, self.trainer, s = torch, trainer, trainer.s
        self.g, self.e = torch_step.Generator(s, 4), torch_step.Discriminator(s, 4)
        self.e.dense = torch.nn.Linear(self.e.dense.in_features, s.latent)
        for net in self.g, self.e:
            net.to(torch.float64)
        p, self.first = trainer.g.params, self.g.first
        with torch.no_grad():
            c, h, w = self.first
            for place, dense in (self.g.dense.weight, p["dense.w"][0, 0].T), (
                    self.g.dense.bias, p["dense.b"][:, None]):
                dense = dense if len(dense) == c * h * w else dense.T
                dense = dense.T.reshape(-1, h, w, c).transpose(3, 1, 2, 0)
                place.copy_(torch.from_numpy(dense.reshape(place.shape)))
            for i in range(1, len(trainer.g.strides) + 1):
                norm = self.g.deconvs[3 * i - 2]
                self.copy(self.g.deconvs[3 * i - 3].weight, p[f"deconv{i}.w"].transpose(3, 2, 0, 1))
                values = p[f"deconv{i}.gamma"], p[f"deconv{i}.beta"], *trainer.g.running[
                    f"deconv{i}.gamma"]
                for a, b in zip((norm.weight, norm.bias, norm.running_mean, norm.running_var),
                                values):
                    self.copy(a, b)
            self.copy_conv(self.g.conv, p, "conv")
            p = trainer.encoder.params
            for i, conv in enumerate(self.e.convs, 1):
                self.copy_conv(conv, p, f"conv{i}")
            h, w = semgan.map_size(s, len(self.e.convs))
            dense = p["dense.w"].reshape(h, w, -1, s.latent).transpose(3, 2, 0, 1)
            self.copy(self.e.dense.weight, dense.reshape(s.latent, -1))
            self.copy(self.e.dense.bias, p["dense.b"])
        self.g.eval().requires_grad_(False)

    def copy(self, place, values):
        place.copy_(self.torch.from_numpy(np.array(values)))

    def copy_conv(self, conv, p, name):
        self.copy(conv.weight, p[name + ".w"].transpose(3, 2, 0, 1))
        self.copy(conv.bias, p[name + ".b"])

    def logits(self, z):
        g = self.g
        return g.conv(g.deconvs(g.dense(z).relu().view(-1, *self.first)))

    def begin(self):
        s = self.trainer.s
        self.adam = self.torch.optim.Adam(self.e.parameters(), betas=(s.beta1, s.beta2),
                                          eps=s.adam_eps)

    def step(self, stage, rate):
        F, from_numpy = self.torch.nn.functional, self.torch.from_numpy
        ids = from_numpy(self.trainer.labels.astype(np.int64))
        z, _ = self.e(F.one_hot(ids, 4).permute(0, 3, 1, 2).double())
        known = from_numpy(self.trainer.z.reshape(len(z), -1))
        loss = F.cross_entropy(self.logits(z), ids) if stage else (z - known).abs().mean()
        self.adam.param_groups[0]["lr"] = rate
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return loss.item()


def test_same_training_as_pytorch():
    """Five steps of each stage in float64: the losses, and E's first weights in the end."""
    pytest.importorskip("torch")
    t = make(first_steps=5, second_steps=5)
    theirs = TorchEncoder(t)
    for step in range(10):
        stage = t.stage
        if step in (0, 5):
            theirs.begin()
        t.train_step()
        expected = theirs.step(stage, t.rate[0])
        np.testing.assert_allclose(t.loss[0], expected, rtol=1e-7, err_msg=f"step {step}")
    w = theirs.e.convs[0].weight.detach().permute(2, 3, 1, 0)
    np.testing.assert_allclose(t.encoder.params["conv1.w"], w, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("device", CUDA_DEVICES)
def test_cuda_kernels_take_the_same_course(device):
    """Losses of both stages in float32, and recorded steps as on NumPy."""
    a, b = (make(d, np.float32, first_steps=4, second_steps=4) for d in ("numpy", device))
    for step in range(8):
        a.train_step()
        b.train_step()
        found = b.ops.asnumpy(b.loss)
        np.testing.assert_allclose(found, a.loss, rtol=1e-3, err_msg=f"step {step}")


def test_the_generator_stays_as_it_is(device):
    """To the bit, in both stages, in codes and in the search for z; E does change."""
    t = make(device, np.float32, first_steps=2, second_steps=2)
    before, first = bits(t.g), state(t)
    for _ in range(4):
        t.train_step()
    z = t.encoder.codes(t.maps[:3])
    latents.optimized(t.g, t.maps[:3], z, steps=2)
    assert bits(t.g) == before
    assert all((first[name] != a).any() for name, a in state(t).items())
    assert z.shape == (3, t.s.latent)


def test_stages_and_inputs():
    """One stage alone takes the steps of both. The inputs depend on seed and step alone."""
    for stages, expected in ("first", (7, 0)), ("second", (0, 7)), ("both", (3, 4)):
        t = make(stages=stages, first_steps=3, second_steps=4)
        assert (t.first_steps, t.second_steps) == expected
    a, b = make(first_steps=3, second_steps=4), make(first_steps=3, second_steps=4)
    for step in 0, 2, 3, 6:
        a.step = b.step = step
        a.inputs()
        b.inputs()
        assert (a.labels == b.labels).all() and a.rate == b.rate
        if step < 3:
            assert (a.labels == a.g.sample(a.z.reshape(4, -1))).all(), "maps of z"
        else:
            assert all((a.maps == m).all((1, 2)).any() for m in a.labels), "real maps"
    assert a.rate == pytest.approx(1e-3 / 4)


def test_it_learns():
    """Both losses fall, and so does that of a search for z, on maps that G can draw."""
    t, losses = make(first_steps=150, second_steps=150, learning_rate=5e-3), []
    t.maps = t.g.sample(np.random.default_rng(0).standard_normal((64, t.s.latent)))
    for _ in range(300):
        t.train_step()
        losses.append(t.loss[0])
    assert np.mean(losses[140:150]) < 0.9 * losses[0]
    assert np.mean(losses[290:]) < 0.9 * losses[150]
    maps, z, loss = t.maps[:8], np.zeros((8, t.s.latent)), np.zeros((2, 1))
    for some, place in (z, loss[0]), (latents.optimized(t.g, maps, z, 50), loss[1]):
        latents.gradient_of_latents(t.g, encoder.one_hot(t.ops, maps, 4), some, place)
    assert loss[1] < 0.9 * loss[0]


# ---------------------------------------------------------------------------------------- measures
def test_measures():
    real = np.array([[[0, 0, 0, 1], [0, 0, 2, 2]]], np.uint8)
    found = np.array([[[0, 0, 1, 1], [0, 0, 2, 0]]], np.uint8)
    assert metrics.pixel_accuracy(found, real) == 6 / 8
    assert metrics.mean_iou(found, real, 4) == pytest.approx((4 / 6 + 1 / 2 + 1 / 2) / 3)
    assert metrics.mean_iou(real, real, 4) == 1


def test_best_samples():
    """The sample with the most pixels right; the map itself, if it is a sample."""
    g = frozen()
    z = np.random.default_rng(0).standard_normal((20, g.s.latent))
    samples = g.sample(z)
    np.testing.assert_array_equal(latents.best_samples(g, samples[3:9], z), samples[3:9])


# ---------------------------------------------------------------------------------------- commands
@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run, with an encoder of both stages, and folders of maps."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    semgan_main([*TINY_FLAGS, "--steps", "5", "--out", str(folder)])
    main(["train", folder, *SMALL_FLAGS])
    return folder


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def write_maps(folder, count=3, side=8, palette=None):
    loaded = data.colored_shapes(side)
    folder.mkdir()
    for i, pixels in enumerate(loaded.maps[:count]):
        image = Image.fromarray(pixels)
        image.putpalette((loaded.palette if palette is None else palette).tobytes())
        image.save(folder / f"{i}.png")
    return folder


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fails(capsys, *words, code=2):
    """The only line on stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(words)
    err = capsys.readouterr().err
    assert stop.value.code == code, err
    line, = err.splitlines()
    return line


@pytest.mark.parametrize("saved", [False, True])
def test_stopped_twice_while_saving(run, copy, monkeypatch, capsys, saved):
    """The second Ctrl-C comes before the checkpoint has its name, or just after."""
    (copy / "encoder" / "both.npz").unlink()

    def interrupted(*arguments):
        if saved:
            write_checkpoint(*arguments)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    write_checkpoint = encoder_training.write_checkpoint
    monkeypatch.setattr(encoder_training, "write_checkpoint", interrupted)
    with pytest.raises(SystemExit) as stop:
        main(["train", copy, *SMALL_FLAGS])
    out = capsys.readouterr().out
    assert stop.value.code == 130 and ("--resume" in out) == saved
    assert ("Stopped at step 12. To continue: " if saved else
            "Stopped before the first checkpoint. To start again: ") in out


def arrays(path):
    with np.load(path) as file:
        return {name: file[name].tobytes() for name in file.files}


@pytest.mark.parametrize("at", [3, 6, 8])
@pytest.mark.parametrize("how", ["Ctrl-C", "killed"])
def test_resume_is_bitwise_equal(run, copy, monkeypatch, capsys, at, how):
    """After Ctrl-C, and after a kill that leaves the last checkpoint; in both stages."""
    whole = copy / "encoder" / "both.npz"
    expected = arrays(whole)
    whole.unlink()
    train_step = encoder.EncoderTrainer.train_step

    def stopping(self):
        if how == "killed" and self.step == at + 1:
            raise KeyboardInterrupt  # nothing more is written
        train_step(self)
        if how == "Ctrl-C" and self.step == at:
            os.kill(os.getpid(), signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(encoder.EncoderTrainer, "train_step", stopping)
        patch.setattr(encoder_training, "SAVE_SECONDS", 0 if how == "killed" else 60)
        with pytest.raises(SystemExit) as stop:
            main(["train", copy, *SMALL_FLAGS])
    assert stop.value.code == 130
    half = arrays(whole)
    assert half["e.params"] != expected["e.params"]
    out = capsys.readouterr().out
    assert how == "killed" or f"Stopped at step {at}. To continue: " in out and "--resume" in out
    main(["train", copy, "--resume"])
    assert arrays(whole) == expected


def test_training_leaves_the_run_as_it_was(copy):
    before = tree(copy)
    main(["train", copy, "--stages", "first", *SMALL_FLAGS])
    after = tree(copy)
    new = copy / "encoder" / "first.npz"
    assert after.keys() - before.keys() == {new}
    assert all(after[path] == content for path, content in before.items())
    header = json.loads(str(np.load(new)["header"]))
    assert header["step"] == 12 and header["generator"] == fingerprint(load_generator(copy)[0])


def test_encode(run, tmp_path, capsys):
    """z and the picture, for a folder, one image and RGB; the same z for each map alone."""
    maps = write_maps(tmp_path / "maps", 5)
    main(["encode", run, maps, "--out", tmp_path / "all"])
    with np.load(tmp_path / "all" / "codes.npz") as file:
        z, names = file["z"], file["names"].tolist()
    assert names == [f"{i}.png" for i in range(5)] and z.shape == (5, 5)
    assert "pixel accuracy" in capsys.readouterr().out
    g, header = load_frozen(run)
    e, step = load_encoder(run / "encoder" / "both.npz", g)
    assert step == 12
    expected = e.codes(data.colored_shapes(8).maps[:5])
    np.testing.assert_array_equal(z, expected)
    Image.open(maps / "3.png").convert("RGB").save(tmp_path / "3.png")
    main(["encode", run, tmp_path / "3.png", "--out", tmp_path / "one"])
    np.testing.assert_allclose(np.load(tmp_path / "one" / "codes.npz")["z"][0], z[3], rtol=1e-5,
                               atol=1e-6)
    zoom, picture = 64 // 8, np.asarray(Image.open(tmp_path / "all" / "reconstructions.png"))
    assert picture.shape == (zoom * (2 * 9 - 1), zoom * (5 * 9 - 1), 3)
    map_3 = picture[::zoom, ::zoom][:, 3 * 9:3 * 9 + 8]  # with a line of grey between two maps
    ids = data.colored_shapes(8).maps[3], g.sample(z[3:4])[0]
    np.testing.assert_array_equal(map_3[:8], header["palette"][ids[0]])
    np.testing.assert_array_equal(map_3[9:], header["palette"][ids[1]])


def test_interpolate(run, tmp_path):
    maps = write_maps(tmp_path / "maps", 2)
    main(["interpolate", run, "--between", maps / "0.png", maps / "1.png", "--frames", "3",
          "--out", tmp_path / "out"])
    gif = Image.open(tmp_path / "out" / "between.gif")
    assert gif.size == (256, 256) and 2 <= gif.n_frames <= 6  # Pillow joins frames that are equal
    row = Image.open(tmp_path / "out" / "between.png")
    assert row.size == (8 * (6 * 9 - 1), 64)  # A, 4 frames, B
    ids = data.colored_shapes(8)
    np.testing.assert_array_equal(np.asarray(row)[::8, :64:8], ids.palette[ids.maps[0]])


def test_evaluate(copy, capsys):
    for stages in "first", "second":
        main(["train", copy, "--stages", stages, *SMALL_FLAGS])
    capsys.readouterr()
    main(["evaluate", copy, "--count", "6", "--samples", "10", "--z-steps", "2"])
    out = capsys.readouterr().out
    names = ["class 0 everywhere", "best of 10 samples", "E of the first stage alone (12 steps)",
             "E of the second stage alone (12 steps)", "E of both stages (12 steps)",
             "E(x) of another map", "z from 0 by 2 steps", "z from E(x) by 2 steps"]
    lines = (copy / "encoder" / "evaluation.csv").read_text().splitlines()
    assert len(lines) == 9 and "6 held-out maps" in out
    for name, line in zip(names, lines[1:]):
        assert line.startswith(name) and name in out
        assert all(0 <= float(x) <= 1 for x in line.split(",")[-3:-1])
    picture = Image.open(copy / "encoder" / "evaluation.png")
    assert picture.size == (8 * (6 * 9 - 1), 8 * (9 * 9 - 1))


def test_an_exported_file_will_do(run, tmp_path, monkeypatch):
    """Its encoder has the same bits as that of the run."""
    monkeypatch.chdir(tmp_path)
    semgan_main(["export", str(run), "tiny.npz"])
    main(["train", "tiny.npz", *SMALL_FLAGS])
    assert arrays("runs/tiny/encoder/both.npz") == arrays(run / "encoder" / "both.npz")


@pytest.mark.parametrize("mirror", [False, True])
def test_your_own_maps(tmp_path, capsys, monkeypatch, mirror):
    """The last tenth is held out, also in its mirror images. The maps may move, but not change."""
    monkeypatch.setenv("SEMGAN_CACHE", str(tmp_path / "cache"))
    maps, folder = tmp_path / "maps", tmp_path / "run"
    maps.mkdir()
    for i, ids in enumerate(np.random.default_rng(0).integers(4, size=(20, 8, 8), dtype=np.uint8)):
        Image.fromarray(ids).save(maps / f"{i}.png")
    semgan_main([*TINY_FLAGS, "--dataset", str(maps), "--steps", "1", "--out", str(folder),
                 *["--mirror"] * mirror])
    _, header = load_frozen(folder)
    train, held = real_maps(header["settings"], header, folder)
    assert (len(train), len(held)) == (36 if mirror else 18, 2)
    both = np.concatenate([held, held[:, :, ::-1]])
    assert not any((train == m).all((1, 2)).any() for m in both)
    moved = maps.rename(tmp_path / "moved")
    assert "have moved" in fails(capsys, "train", folder, *SMALL_FLAGS)
    main(["train", folder, "--dataset", moved, *SMALL_FLAGS])
    main(["evaluate", folder, "--dataset", moved, "--z-steps", "0"])
    assert "2 held-out maps" in capsys.readouterr().out
    (moved / "0.png").write_bytes((moved / "1.png").read_bytes())
    assert "have changed" in fails(capsys, "evaluate", folder, "--dataset", moved)


# --------------------------------------------------------------------------------------- bad input
def test_bad_input(copy, tmp_path, capsys, monkeypatch):
    """One line, exit code 2, and no file or folder is made or changed."""
    monkeypatch.chdir(tmp_path)
    maps = write_maps(tmp_path / "maps")
    others = write_maps(tmp_path / "others", palette=data.colored_shapes(8).palette[[0, 2, 1, 3]])
    large = write_maps(tmp_path / "large", side=16)
    Image.fromarray(np.full((8, 8), 9, np.uint8)).save("nine.png")
    Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save("grey.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)
    cases = [
        (["train", "no run"], "no run: not found; expected a run"),
        (["train"], "no RUN: expected a run folder, or --trained"),
        (["train", copy, "--trained"], "only one of them"),
        (["train", copy], "both.npz exists already"),
        (["train", copy, "--stages", "first", "--resume"], "first.npz: no such encoder"),
        (["train", copy, "--resume", "--seed", "4"], "--seed 4: "),
        (["train", copy, "--resume", "--filters", "5"], "was started with 5 6"),
        (["train", copy, "--stages", "second", "--filters", "4", "4", "4", "4"], "--filters"),
        (["train", copy, "--stages", "second", "--kernel-size", "4"], "--kernel-size 4"),
        (["train", copy, "--stages", "second", "--first-steps", "-1"], "--first-steps -1"),
        (["train", copy, "--stages", "second", "--learning-rate", "nan"], "--learning-rate nan"),
        (["train", tmp_path / "maps"], "no such checkpoint"),
        (["encode", copy, "no maps"], "no maps: no such image, folder or archive"),
        (["encode", copy, "empty"], "no label maps in it"),
        (["encode", copy, ""], "MAPS is empty"),
        (["encode", copy, others], "its palette gives class 1 the colour (0, 255, 0)"),
        (["encode", copy, large], "16x16 (height x width); expected the 8x8 of the run"),
        (["encode", copy, "nine.png"], "class id 9 at row 0"),
        (["encode", copy, "grey.png"], "colour (9, 9, 9) at row 0"),
        (["encode", copy, "text.png"], "text.png: not an image"),
        (["encode", copy, maps, "--out", maps / "below"], "would be read as more maps"),
        (["encode", copy, maps, "--stages", "first"], "first.npz: no such encoder"),
        (["interpolate", copy, "--between", maps / "0.png", "no map"], "no map: no such image"),
        (["interpolate", copy, "--between", maps / "0.png", maps], "3 maps; expected one"),
        (["evaluate", "no run"], "no run: not found"),
        (["evaluate", "--trained"], "no such encoder; to train one: "),
    ]
    for words, expected in cases:
        line = fails(capsys, *words)
        assert line.startswith("encoder: ") and expected in line, line
        assert tree(tmp_path) == before and not (tmp_path / "runs").exists(), words
    assert len(read_maps(large, (8, 8), data.colored_shapes(8).palette, resize=True)[0]) == 3


def test_the_baseline_has_no_encoder(tmp_path, capsys):
    folder = tmp_path / "gan"
    semgan_main([*TINY_FLAGS, "--model", "gan", "--steps", "1", "--out", str(folder)])
    before = tree(folder)
    for words in ["train", folder], ["encode", folder, folder / "samples"], ["evaluate", folder]:
        assert "the baseline --model gan" in fails(capsys, *words)
    assert tree(folder) == before


def damaged(path, kind):
    if kind == "another generator":
        semgan_main(["--resume", "--steps", "6", "--out", str(path.parents[1])])
        return
    if kind == "cut off":
        path.write_bytes(path.read_bytes()[:500])
        return
    with np.load(path) as file:
        content = dict(file)
    header = json.loads(str(content["header"]))
    if kind == "other filters":
        header["settings"]["filters"] = [5, 7]
    elif kind == "a text as a number":
        header["settings"]["batch_size"] = "4"
    elif kind == "too many steps":
        header["step"] = 13
    elif kind == "not a number":
        content["e.params"][2] = np.nan
    np.savez(path, **content | {"header": json.dumps(header)})


@pytest.mark.parametrize("kind, expected", [
    ("another generator", "it belongs to another generator"), ("cut off", "not an .npz file"),
    ("other filters", "e.params: expected"), ("a text as a number", "batch_size is '4'"),
    ("too many steps", "its step is 13"), ("not a number", "NaN or infinity")])
def test_damaged_encoders(copy, tmp_path, capsys, kind, expected):
    maps = write_maps(tmp_path / "maps")
    path = copy / "encoder" / "both.npz"
    damaged(path, kind)
    before = tree(tmp_path)
    for words in ["encode", copy, maps], ["train", copy, "--resume"], ["evaluate", copy]:
        line = fails(capsys, *words)
        assert "both.npz: not a usable encoder" in line and expected in line
    assert tree(tmp_path) == before


def test_a_loss_that_is_not_finite(copy, capsys):
    """The last good checkpoint is kept."""
    path = copy / "encoder" / "both.npz"
    path.unlink()
    with pytest.raises(SystemExit) as stop:
        main(["train", copy, *SMALL_FLAGS, "--learning-rate", "1e38"])
    assert "the loss is NaN or infinite; try a lower --learning-rate" in str(stop.value.code)
    assert not path.exists()


def test_settings_of_the_baseline_are_refused():
    ops = kernels.load("numpy")
    g = semgan.Generator(ops, tiny("gan"), 4, np.random.default_rng(0))
    with pytest.raises(InputError, match="no probabilities"):
        encoder.FrozenGenerator(g)
