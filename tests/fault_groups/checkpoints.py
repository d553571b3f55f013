"""Damaged and hostile checkpoints, exported generators, and tables of a run folder."""
import json
import shutil

import numpy as np

from fault_groups.bench import ANY, CLEAN, REFUSED, TINY, changed, copy, listing, save_maps

MEMORY = 4 << 30  # bytes of address space
# What a setting in the header cannot be.
SETTINGS = {
    "side": [0, -8, 9, 1 << 20, 1 << 40, 10 ** 400, "8", None, 8.5, [8], True],
    "batch_size": [0, -1, "4", None], "latent": [0, 1 << 30, 10 ** 30, "5"],
    "kernel_size": [0, 2, 1 << 20, "3"],
    "generator_filters": [[], [0], [1 << 30], "6", [6.5], [[6]]],
    "discriminator_filters": [[], [-1], [1 << 30] * 3, None], "steps": [0, 1 << 30, "2"],
    "learning_rate": ["x", None, -1.0, 1e300], "model": ["other", None, 3],
    "feature_matching": ["other", 1], "halve_kernels": ["yes", 2], "dataset": [3, None],
    "classes": ["x", 1, 1000], "unknown_setting": [1], "width": [-1, 9, 1 << 40, "x"]}
HEADERS = {
    "format": [0, 2, "1", None], "step": [-1, "2", None, 1.5, 3, 10 ** 30],
    "palette": [[], [[0, 0]], [[0, 0, 300]] * 3, "x", None, [[0, 0, 0]] * 300],
    "names": [[], ["a"], None, 3, ["\x1b[31m"] * 3, ["x" * 10 ** 6] * 3],
    "maps": ["x", -1, 1.5], "arithmetic": [3, "\x1b[2J", ["x"]], "settings": [None, [], "x", {}]}
# {name: function that changes a dict of arrays}
ARRAYS = {
    "missing g.params": lambda a: a.pop("g.params"),
    "missing running variance": lambda a: a.pop("g.deconv1.gamma.running_var"),
    "missing header": lambda a: a.pop("header"),
    "one more array": lambda a: a.update(more=np.zeros(3)),
    "many more arrays": lambda a: a.update({f"x{i}": np.zeros(1) for i in range(1000)}),
    "swapped networks": lambda a: a.update({"g.params": a["d.params"], "d.params": a["g.params"]}),
    "short": lambda a: a.update({"g.params": a["g.params"][:-1]}),
    "two axes": lambda a: a.update({"g.params": a["g.params"][None]}),
    "empty": lambda a: a.update({"g.params": np.zeros(0, "f")}),
    "NaN": lambda a: a["g.params"].fill(np.nan),
    "infinity": lambda a: a["d.params"].fill(np.inf),
    "negative variance": lambda a: a["g.deconv1.gamma.running_var"].fill(-1),
    "negative v": lambda a: a["g.v"].fill(-1),
    "beyond float32": lambda a: a.update({"g.params": np.full_like(a["g.params"], 1e300, "d")}),
    "integers": lambda a: a.update({"g.params": a["g.params"].astype(np.int64)}),
    "text": lambda a: a.update({"g.params": np.array(["x"] * len(a["g.params"]))}),
    "complex": lambda a: a.update({"g.params": a["g.params"].astype(complex)}),
    "objects": lambda a: a.update({"g.params": np.array([print] * 3, object)}),
    "half precision": lambda a: a.update({"g.params": a["g.params"].astype(np.float16)}),
    "other byte order": lambda a: a.update({"g.params": a["g.params"].astype(">f4")}),
    "other step": lambda a: a["g.step"].fill(7),
    "a bomb": lambda a: a.update({"g.params": np.zeros(1 << 27, "f")}),
    "a bomb beside": lambda a: a.update(more=np.zeros(1 << 27, "f"))}
HARMLESS = {"half precision", "other byte order"}  # the numbers are still there
TABLES = [b"", b"\0" * 100, b"step\n", b"step,loss_d\n1,2\n", b"\xff\xfe", b"1,2,3\n" * 9,
          b'"' * 50, b"step,samples\n" + b"9" * 400 + b",1\n"]


def run(bench):
    maps = save_maps(bench.fresh() / "maps")
    reference = bench.fresh()
    train = ["semgan.py", *TINY, "--dataset", maps, "--steps", "2", "--evaluate-every", "2",
             "--out", "run"]
    bench.judge(bench.call(*train, folder=reference), codes=CLEAN)
    export = ["semgan.py", "export", "run", "run/generator.npz"]
    bench.judge(bench.call(*export, folder=reference), codes=CLEAN)
    for name in "checkpoint.npz", "generator.npz":
        for words, damage, codes in bench.some(damages(reference / "run" / name), 0.05):
            try_damage(bench, reference, name, words, damage, codes)
        content = (reference / "run" / name).read_bytes()
        for _ in bench.some(range(60), 0.05):
            cut = bench.rng.randrange(len(content))
            damaged = bytearray(content)
            damaged[cut] ^= 1 << bench.rng.randrange(8)
            for what in content[:cut], bytes(damaged):
                write = lambda path, what=what: path.write_bytes(what)
                try_damage(bench, reference, name, f"damage at byte {cut}", write, ANY)
    for name in "log.csv", "metrics.csv", "settings.json", "palette.txt":
        for table in bench.some(TABLES, 0.2):
            here = copy(reference, bench.fresh() / "here")
            (here / "run" / name).write_bytes(table)
            words = ["semgan.py", "--resume", "--steps", "3", "--out", "run"]
            bench.judge(bench.call(*words, folder=here), codes=ANY)


def damages(path):
    """(text, function that damages a file, exit codes) for every entry of the tables above."""
    for name, values in SETTINGS.items():
        for value in values:
            # A batch or a rate is not needed to draw samples.
            yield (f"setting {name}: {value!r:.40}",
                   lambda path, n=name, v=value: change_header(path, n, v, "settings"), ANY)
    for name, values in HEADERS.items():
        for value in values:
            yield (f"header {name}: {value!r:.40}",
                   lambda path, n=name, v=value: change_header(path, n, v), ANY)
    for name, change in ARRAYS.items():
        with np.load(path) as file:
            known = set(file.files)
        codes = ANY if name in HARMLESS else REFUSED
        if "checkpoint" not in path.name and ({"negative v", "other step", "infinity",
                                               "swapped networks"} & {name}):
            continue  # an exported generator lacks these arrays
        assert "g.params" in known
        yield name, lambda path, change=change: change_arrays(path, change), codes


def change_header(path, name, value, inside=None):
    def change(arrays):
        header = json.loads(str(arrays["header"]))
        (header[inside] if inside else header)[name] = value
        arrays["header"] = np.array(json.dumps(header))
    change_arrays(path, change)


def change_arrays(path, change):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def try_damage(bench, reference, name, words, damage, codes):
    """Sample from the damaged file; a damaged checkpoint is continued as well."""
    here = copy(reference, bench.fresh() / "here")
    damage(here / "run" / name)
    source = "run" if name.startswith("checkpoint") else f"run/{name}"
    commands = [["semgan.py", "sample", source, "--count", "2", "--out", "new"]]
    if source == "run":
        commands.append(["semgan.py", "--resume", "--steps", "3", "--out", "run"])
    for command in commands:
        before = listing(here)
        result = bench.call(*command, folder=here, limits={"RLIMIT_AS": MEMORY})
        result = result._replace(command=f"{words}: {result.command}")
        left = changed(here, before) if result.code in REFUSED else ()
        heavy = [f"{result.megabytes} MB"] if result.megabytes > 600 else []
        bench.judge(result, *left, *heavy, codes=codes)
    shutil.rmtree(here.parent)
