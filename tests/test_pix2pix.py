"""pix2pix: gradients, PyTorch's training, the same bits after --resume, dreams, bad input."""
import contextlib
import json
import shutil

import numpy as np
import pytest
from conftest import CUDA_DEVICES, DEVICES
from PIL import Image

import kernels
import semgan
from app.command_line import main as semgan_main
from app.run_folder import TRAINED
from experiments import dreams, pairs, pix2pix, runs, segmenter
from experiments.unet import UNet
from kernels.gradient_check import directional_check

TINY = dict(side=8, batch_size=4, filters=[4, 5, 6], patch_filters=[3, 4], steps=12, init="glorot")
TINY_FLAGS = ["--side", "8", "--batch-size", "4", "--filters", "4", "5", "--patch-filters", "3",
              "--count", "20", "--device", "numpy"]

SEMGAN_FLAGS = ["--preset", "small", "--side", "32", "--generator-filters", "4", "4",
                "--discriminator-filters", "4", "--kernel-size", "3", "--batch-size", "2",
                "--maps", "4", "--device", "numpy"]


def trainer(device="numpy", dtype=np.float64, **changes):
    s = runs.settings(pix2pix.SETTINGS, TINY | changes, pix2pix.CHOICES)
    dataset = pairs.load("shapes", semgan.map_size(s), count=40)
    return pix2pix.Trainer(kernels.load(device, dtype), s, dataset)


def main(*words):
    """Runs the program. Returns its exit code."""
    try:
        pix2pix.main([str(word) for word in words])
    except SystemExit as error:
        return error.code
    return 0


def one_line(capsys):
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1, captured
    return captured


# -------------------------------------------------------------------------------------- gradients
@pytest.mark.parametrize("activation", ["tanh", None])
@pytest.mark.parametrize("device", DEVICES)
def test_gradient_of_the_unet(device, activation):
    """All parameters at once; scales and biases are off their special values."""
    ops, rng = kernels.load(device, np.float64), np.random.default_rng(0)
    s = runs.settings(pix2pix.SETTINGS, TINY, pix2pix.CHOICES)
    net = UNet(ops, s, 3, 2, activation, rng)
    for name, p in net.params.items():
        if not name.endswith(".w"):
            ops.write(p, ops.asnumpy(p) + rng.uniform(0.1, 0.4, p.shape))
    x, dy = rng.standard_normal((2, 16, 8, 3)), rng.standard_normal((2, 16, 8, 2))
    params = {name: ops.asnumpy(p) for name, p in net.params.items()}

    def forward():
        for name, p in params.items():
            ops.write(net.params[name], p)
        return net.forward(ops.asarray(x))
    _, kept = forward()
    net.backward(ops.asarray(dy), kept)
    grads = [ops.asnumpy(g) for g in net.grads.values()]
    assert all(np.abs(g).max() > 0 for g in grads), "some parameter gets no gradient"
    directional_check(lambda: (ops.asnumpy(forward()[0]) * dy).sum(), list(params.values()), grads,
                      rng, delta=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_both_losses(device):
    """D's parameters under cross-entropy, and the generated photos under error and D."""
    t = trainer(device)
    ops, rng = t.ops, np.random.default_rng(2)
    t.inputs(0)
    t.take_inputs()
    d, k = t.discriminator, len(t.dataset.palette)
    maps, photos = (ops.asnumpy(a) for a in (t.inputs_of(t.index), t.photos_of(t.index)))
    fake = photos + rng.choice([-1, 1], photos.shape) * rng.uniform(0.1, 1, photos.shape)
    params = {name: ops.asnumpy(p) for name, p in d.params.items()}

    def discriminator():
        for name, p in params.items():
            ops.write(d.params[name], p)
        both = np.concatenate([np.concatenate([maps, x], -1) for x in (photos, fake)])
        logits, features = d.forward(ops.asarray(both))
        loss, dlogits = ops.bce_with_logits(logits, t.targets)
        return ops.asnumpy(loss)[0], dlogits, features
    _, dlogits, features = discriminator()
    d.backward(dlogits, features)
    grads = [ops.asnumpy(g) for g in d.grads.values()]
    directional_check(lambda: discriminator()[0], list(params.values()), grads, rng, delta=1e-6)

    def generator():
        pair = ops.asarray(np.concatenate([maps, fake], -1))
        dfake = t.generator_loss(ops.asarray(photos), ops.asarray(fake), pair, k)
        return 1000 * ops.asnumpy(t.losses)[1:].sum(), ops.asnumpy(dfake)
    _, dfake = generator()
    directional_check(lambda: generator()[0], [fake], [1000 * dfake], rng, delta=1e-6)


@pytest.mark.parametrize("changes", [dict(), dict(width=16, patch_filters=[4, 4])], ids=str)
def test_same_training_as_pytorch(changes):
    """Ten steps in float64 from the same weights."""
    pytest.importorskip("torch")
    import torch
    from torch_pix2pix import TorchTrainer
    ours = trainer(steps=40, **changes)  # the learning rate is constant in the first half
    theirs = TorchTrainer(ours, torch.float64)
    for step in range(10):
        index = ours.ops.asnumpy(ours.inputs(step)).copy()
        ours.train_step()
        np.testing.assert_allclose(ours.losses, theirs.train_step(index), rtol=1e-7)
    for name, module in ("down1", theirs.g.down1), ("last", theirs.g.last):
        weight = module.weight.detach().permute(2, 3, 1, 0)
        np.testing.assert_allclose(ours.generator.params[name + ".w"], weight, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("device", CUDA_DEVICES)
def test_a_few_steps_on_other_devices(device):
    ours, theirs = trainer("plain"), trainer(device)
    for _ in range(3):
        ours.train_step()
        theirs.train_step()
        np.testing.assert_allclose(theirs.ops.asnumpy(theirs.losses), ours.losses, rtol=1e-6)


def test_the_rate_falls_to_zero_in_the_second_half():
    t, rates = trainer(steps=8), []
    for _ in range(8):
        t.train_step()
        rates.append(t.rate[0] / t.s.learning_rate)
    assert rates == pytest.approx([1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_it_learns():
    """In two dozen steps the error falls well below that of each class's mean colour."""
    t = trainer(dtype=np.float32, side=16, batch_size=16, filters=[16, 32, 32], steps=40)
    for _ in range(40):
        t.train_step()
    made = pix2pix.translate(t.generator, t.dataset.maps, t.dataset.palette)
    error = np.abs(made / 127.5 - t.dataset.photos / 127.5).mean()
    assert error < 0.8 * pairs.mean_color_error(t.dataset, t.dataset)


# ------------------------------------------------------------------------------------------- runs
def arrays(run):
    with np.load(run / "checkpoint.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize("flags", [[], ["--input", "rgb"]], ids=str)
def test_same_bits_after_resume(tmp_path, monkeypatch, capsys, flags):
    """Killed in step 5 of 6, after the checkpoint of step 4."""
    words = ["train", *TINY_FLAGS, "--steps", 6, "--save-every", 2, *flags]
    assert main(*words, "--out", tmp_path / "whole") == 0
    step = pix2pix.Trainer.train_step

    def die(self):
        if self.step == 4:
            raise KeyboardInterrupt
        step(self)
    with monkeypatch.context() as patch:
        patch.setattr(pix2pix.Trainer, "train_step", die)
        with contextlib.suppress(KeyboardInterrupt):
            main(*words, "--out", tmp_path / "killed")
    assert main(*words, "--out", tmp_path / "killed", "--resume") == 0
    whole, resumed = arrays(tmp_path / "whole"), arrays(tmp_path / "killed")
    assert whole.keys() == resumed.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name])
    logs = [(tmp_path / run / "log.csv").read_text().splitlines() for run in ("whole", "killed")]
    assert [line.rsplit(",", 1)[0] for line in logs[0]] == \
        [line.rsplit(",", 1)[0] for line in logs[1]]
    assert "of colours in [-1, 1]" in capsys.readouterr().out


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run at side 32 on painted shapes, hardly trained."""
    folder = tmp_path_factory.mktemp("pix2pix") / "run"
    words = ["train", *TINY_FLAGS[2:], "--steps", "2", "--out", str(folder)]
    assert main(*words) == 0
    return folder


def test_dreams_are_pairs(run, tmp_path, capsys):
    """A data set of pairs that pairs.load reads, a picture of them, a walk."""
    out = tmp_path / "dreams"
    words = ["dream", run, "--trained", "--count", 9, "--keys", 2, "--frames", 3, "--out", out]
    assert main(*words) == 0
    loaded = pairs.load(str(out / "trained" / "maps"), (32, 32), str(out / "trained" / "photos"),
                        palette=str(out / "trained" / "palette.txt"))
    assert loaded.maps.shape == (9, 32, 32) and loaded.photos.shape == (9, 32, 32, 3)
    generator, _ = pix2pix.load_translator(run, "numpy")
    made = pix2pix.translate(generator, loaded.maps, loaded.palette)
    np.testing.assert_array_equal(made, loaded.photos)
    assert Image.open(out / "dreams.png").size[0] > 500
    assert Image.open(out / "trained.gif").n_frames > 1
    capsys.readouterr()
    assert main(*words) == 2 and "already holds dreams" in one_line(capsys)


def test_dreams_that_fail_leave_nothing(run, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(dreams, "page", full)
    words = ["dream", run, "--trained", "--count", 2, "--keys", 1, "--frames", 1]
    assert main(*words, "--out", tmp_path / "out" / "deep") == 1
    assert "No space left" in one_line(capsys) and not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    assert main(*words, "--out", tmp_path / "mine") == 1 and not list((tmp_path / "mine").iterdir())


def test_sources_are_named_after_their_folders(run, tmp_path, monkeypatch):
    """A folder's name may have dots, and the path may be `.`"""
    for name in "my.v1", "my.v2":
        assert semgan_main(["--steps", "1", "--out", str(tmp_path / name), *SEMGAN_FLAGS]) is None
    monkeypatch.chdir(tmp_path / "my.v1")
    words = ["dream", run, "--maps", ".", "../my.v2", "--count", 1, "--keys", 1, "--frames", 1]
    assert main(*words, "--out", tmp_path / "out") == 0
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["dreams.png", "my.v1", "my.v1.gif", "my.v2", "my.v2.gif"]


def in_other_colors(run, copy):
    """A copy of a run whose first class has another colour."""
    shutil.copytree(run, copy)
    state = arrays(run)
    header = json.loads(str(state["header"]))
    header["palette"][0] = [1, 2, 3]
    np.savez(copy / "checkpoint.npz", **state | {"header": json.dumps(header)})


@pytest.mark.parametrize("words, message", [
    (["dream", "RUN"], "expected --maps"),
    (["dream", "RUN", "--maps", "nowhere"], "nowhere: not found"),
    (["dream", "nowhere", "--trained"], "no such checkpoint"),
    (["dream", "RUN", "--maps", str(TRAINED), "--trained"], "two sources of the name trained"),
    (["dream", "DAMAGED", "--trained"], "not a usable checkpoint of experiments.pix2pix"),
    (["dream", "SMALL", "--trained"], "its maps are 32x32, those of"),
    (["dream", "OTHER", "--trained"], "a run of another data set: its classes or colours"),
    (["train", "--out", "RUN"], "already holds a run"),
    (["train", "--out", "RUN", "--resume", "--seed", "1"], "--seed 1: "),
    (["train", "--out", "NEW", "--resume"], "no such checkpoint"),
    (["train", "--out", "NEW", "--side", "20"], "--side 20: expected a multiple of 16"),
    (["train", "--out", "NEW", "--held-out", "1"], "--held-out 1.0: expected a share"),
    (["train", "--out", "NEW", "--learning-rate", "0"], "--learning-rate 0.0: expected"),
    (["train", "--out", "NEW", "--dataset", "nowhere"], "needs --photos"),
    (["train", "--out", "NEW", "--dataset", "nowhere", "--photos", "no"], "nowhere"),
    (["train", "--out", "NEW", "--filters", "0"], "--filters 0: expected"),
    (["train", "--out", "NEW", "--patch-filters", *"888888"], "8 8 8: expected fewer layers"),
    (["train", "--out", "NEW", "--adversarial-weight", "-1"], "-1.0: expected 0, or a number"),
    (["train", "--out", "NEW", "--photos", ""], "--photos is empty"),
    (["train", "--out", "NEW", "--batch-size", "77777777"], "--batch-size, --side and --filters"),
    (["train", "--out", ""], "--out is empty"),
    (["dream", "RUN", "--maps", ""], "--maps is empty"),
    (["dream", "RUN", "--maps", "RUN"], "a run of experiments.pix2pix; expected one of semgan.py"),
    (["dream", "RUN", "--trained", "--count", "7" * 22], "--count")])
def test_bad_input_is_one_line(run, tmp_path, capsys, words, message):
    places = {"RUN": run, "NEW": tmp_path / "new", "DAMAGED": tmp_path / "damaged",
              "SMALL": tmp_path / "small", "OTHER": tmp_path / "other"}
    if "DAMAGED" in words:
        shutil.copytree(run, places["DAMAGED"])
        (places["DAMAGED"] / "checkpoint.npz").write_bytes(b"no zip")
    if "OTHER" in words:
        in_other_colors(run, places["OTHER"])
    if "SMALL" in words:
        assert main("train", *TINY_FLAGS, "--steps", 1, "--out", places["SMALL"]) == 0
    capsys.readouterr()
    before = sorted(path.name for path in run.rglob("*"))
    assert main(*(places.get(word, word) for word in words)) in (1, 2)
    assert message in one_line(capsys)
    assert not places["NEW"].exists(), "something was written"
    assert sorted(path.name for path in run.rglob("*")) == before


@pytest.mark.parametrize("key, value, message", [
    ("step", 99, "its step is 99"), ("step", "abc", "its step is 'abc'"),
    ("names", [1, 2, 3, 4], "its palette does not fit"),
    ("dataset", 5, "the setting dataset is 5"), ("void", "a", "the setting void is 'a'"),
    ("g.v", -1, "g.v holds a negative number")])
def test_headers_that_do_not_fit(run, tmp_path, capsys, key, value, message):
    shutil.copytree(run, tmp_path / "run")
    state = arrays(run)
    header = json.loads(str(state["header"]))
    place = header["settings"] if key in header["settings"] else header
    place[key] = value
    if key in state:
        state[key] = state[key] + np.float32(value)
    np.savez(tmp_path / "run" / "checkpoint.npz", **state | {"header": json.dumps(header)})
    capsys.readouterr()
    assert main("train", "--resume", "--out", tmp_path / "run", "--device", "numpy") == 2
    assert message in one_line(capsys)


def test_the_segmenter(run, capsys):
    """Real photos show their maps, far better than another's map; a row for each set and source."""
    words = [run, "--trained", "--count", 12, "--few", 6, "--steps", 250, "--seeds", 1]
    segmenter.main([str(word) for word in [*words, "--device", "numpy"]])
    lines = capsys.readouterr().out.splitlines()
    found = {line.split(" | ")[0][2:]: float(line.split()[-2]) for line in lines
             if line and line.split()[-2].startswith(("0.", "1."))}
    assert list(found) == [
        "real photos, real maps", "dreams of real maps", "dreams of trained",
        "real photos, each with another's map", "6 real pairs",
        "6 real pairs and 12 dreams of trained", "all 16 real pairs"]
    assert found["real photos, real maps"] > 0.1 + found["real photos, each with another's map"]
    assert found["all 16 real pairs"] == found["real photos, real maps"]


def test_changed_data_is_refused(run, monkeypatch, capsys):
    """Other photos under the same settings."""
    load = pairs.load

    def painted_anew(*arguments, **options):
        found = load(*arguments, **options)
        return found._replace(photos=found.photos[::-1])
    monkeypatch.setattr(pairs, "load", painted_anew)
    capsys.readouterr()
    assert main("train", "--out", run, "--resume", "--device", "numpy") == 2
    assert "its maps, photos or colours have changed since" in one_line(capsys)


# --------------------------------------------------------------------------------- pairs in files
def save_pairs(folder, count=10):
    """Painted shapes as files: maps/, photos/."""
    found = pairs.load("shapes", (8, 8), count=count)
    for part in "maps", "photos":
        (folder / part).mkdir(parents=True)
    for i, (ids, photo) in enumerate(zip(found.maps, found.photos)):
        Image.fromarray(ids).save(folder / "maps" / f"{i}.png")
        Image.fromarray(photo).save(folder / "photos" / f"{i}.png")


def places(folder):
    return ["--dataset", folder / "maps", "--photos", folder / "photos"]


@pytest.fixture
def run_on_files(tmp_path):
    """The flags of a run of two steps on pairs in tmp_path / "old"."""
    save_pairs(tmp_path / "old")
    flags = [*TINY_FLAGS[:-4], "--device", "numpy", "--out", tmp_path / "run"]
    assert main("train", *places(tmp_path / "old"), "--steps", 2, *flags) == 0
    return flags


def test_pairs_that_have_moved(run_on_files, tmp_path, capsys):
    """--resume needs no other flags; with new places, the run and the segmenter read the pairs."""
    flags = ["train", "--device", "numpy", "--out", tmp_path / "run", "--resume"]
    assert main(*flags) == 0
    (tmp_path / "old").rename(tmp_path / "new")
    capsys.readouterr()
    assert main(*flags) == 2 and "no such folder" in one_line(capsys)
    assert main(*flags, *places(tmp_path / "new")) == 0
    words = [tmp_path / "run", "--steps", 1, "--seeds", 1, "--few", 2, "--device", "numpy"]
    segmenter.main([str(word) for word in [*words, *places(tmp_path / "new")]])
    assert "dreams of real maps" in capsys.readouterr().out


def test_the_segmenter_refuses_other_pairs(run_on_files, tmp_path, capsys):
    """Two photos have changed places."""
    a, b = (tmp_path / "old" / "photos" / name for name in ("0.png", "1.png"))
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        segmenter.main([str(tmp_path / "run"), "--steps", "1", "--device", "numpy"])
    assert "its maps, photos or colours have changed" in one_line(capsys)


@pytest.mark.parametrize("part", ["maps", "photos"])
def test_a_run_among_its_pairs_is_refused(tmp_path, capsys, part):
    """Its pictures would be read as more maps or photos."""
    save_pairs(tmp_path)
    out = tmp_path / part / "run"
    assert main("train", *places(tmp_path), *TINY_FLAGS, "--out", out) == 2
    assert "would be read as more" in one_line(capsys) and not out.exists()


def test_labels_pick_maps_in_a_folder_that_also_has_the_run(tmp_path):
    save_pairs(tmp_path)
    flags = ["--dataset", tmp_path, "--photos", tmp_path / "photos", "--labels", "maps/*.png"]
    words = ["train", *flags, *TINY_FLAGS[:-4], "--device", "numpy", "--out", tmp_path / "run"]
    assert main(*words, "--steps", 1) == 0
    assert main("train", "--resume", "--out", tmp_path / "run", "--device", "numpy") == 0


def test_a_damaged_log_is_one_line(run_on_files, tmp_path, capsys):
    (tmp_path / "run" / "log.csv").write_bytes(b"step,lo\n\xff\xfe\n")
    capsys.readouterr()
    assert main("train", "--device", "numpy", "--out", tmp_path / "run", "--resume") == 2
    assert "not a readable log; remove it" in one_line(capsys)
