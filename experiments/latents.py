"""From label maps to latent vectors without an encoder; and the table that compares all ways.

Maps are uint8 class ids (N, H, W), of K classes; z is (N, latent); both on the host.
"""
import csv
import io
import time
from pathlib import Path

import numpy as np

import metrics
from app.commands import source
from app.memory import require_for_sampling
from app.pictures import grid
from app.run_folder import make_folder, require_writable
from experiments.encoder import STAGES, one_hot
from experiments.encoder_files import (
    fingerprint,
    here,
    load_encoder,
    load_frozen,
    of_run,
    real_maps,
    run_words,
)
from formats.files import InputError, save_image, written

RATE = 0.1  # Adam's for z, whose numbers are of size 1


# ------------------------------------------------------------------------------------- two searches
def best_samples(g, maps, z):
    """For each map the sample, of all G(z), that agrees with it in most pixels: (N, H, W)."""
    samples = g.sample(z)
    return np.stack([samples[(samples == m).mean((1, 2)).argmax()] for m in maps])


def optimized(g, maps, z, steps=200, rate=RATE):
    """z after so many steps of Adam on the cross-entropy of G(z) and its map.

    g: a FrozenGenerator. Adam divides by the size of a number's own gradient, so that the maps of
    a batch do not affect one another. The encoder and this search minimize the same loss: E learns
    once for all maps, this begins again for each.
    """
    return np.concatenate([_optimized(g, maps[i:i + 64], z[i:i + 64], steps, rate)
                           for i in range(0, len(maps), 64)])


def _optimized(g, maps, z, steps, rate):
    ops, s = g.ops, g.s
    x = one_hot(ops, maps, g.shapes["conv.b"][0])
    flat = ops.asarray(z.reshape(-1))
    m, v, step, loss = (ops.asarray(np.zeros(n)) for n in (flat.shape, flat.shape, 1, 1))
    rate = ops.asarray(np.full(1, rate))

    def operations():
        with ops.arena:
            dz = gradient_of_latents(g, x, flat.reshape(z.shape), loss)
            ops.adam(flat, dz.reshape(-1), m, v, step, rate, 0.9, s.beta2, s.adam_eps,
                     out=(flat, m, v, step))
    for _ in range(steps):
        operations()
    return ops.asnumpy(flat).reshape(z.shape)


def gradient_of_latents(g, x, z, loss):
    """Writes the cross-entropy of G(z) and x (B, H, W, K) to loss (1,). Returns dz (B, latent)."""
    logits, kept = g.forward(z)
    _, dlogits = g.ops.softmax_cross_entropy(logits, x, out=(loss, None))
    return g.backward(dlogits, kept)


# ---------------------------------------------------------------------------------------- evaluate
def evaluate(args):
    """`evaluate RUN`: reconstructions of held-out maps by encoders, searches and trivial answers.
    """
    path, folder = source(args)
    g, header = load_frozen(path, args.device)
    files = {stages: folder / "encoder" / f"{stages}.npz" for stages in STAGES}
    if not any(file.exists() for file in files.values()):
        raise InputError(f"{files['both']}: no such encoder; "
                         f"to train one: {here('train', *run_words(args))}")
    encoders = {stages: load_encoder(file, g) for stages, file in files.items() if file.exists()}
    train_maps, held = real_maps(of_run(header, args, path), header, path)
    held = held[:args.count]
    require_for_sampling(g.s, len(header["palette"]), args.samples + len(held),
                         "--samples and --count")
    out = Path(args.out or folder / "encoder")
    require_writable(out)
    print(f"{path}: {len(held)} held-out maps\n{'':48s}  accuracy    mIoU  size of z  s a map")
    table, before = {}, fingerprint(g)
    for name, compute in ways(g, encoders, train_maps, held, args):
        began = time.perf_counter()
        found, z = compute()
        seconds = (time.perf_counter() - began) / len(held)
        length = "-" if z is None else f"{np.sqrt(np.square(z, dtype=float).mean()):.2f}"
        table[name] = found, [metrics.pixel_accuracy(found, held),
                              metrics.mean_iou(found, held, len(header["palette"]))], length
        print("{:48s}{:10.3f}{:8.3f}{:>11s}{:8.2g}".format(name, *table[name][1], length, seconds),
              flush=True)
    assert fingerprint(g) == before, "the generator has changed"
    write_results(table, held, header["palette"], out)


def ways(g, encoders, train_maps, held, args):
    """Yields (name, function that returns the maps and their z or None): the rows of the table."""
    commonest = np.bincount(train_maps.ravel()).argmax()
    yield f"class {commonest} everywhere", lambda: (np.full_like(held, commonest), None)
    rng = np.random.default_rng(args.seed)
    z = rng.standard_normal((args.samples, g.s.latent))
    yield f"best of {args.samples} samples", lambda: (best_samples(g, held, z), None)

    def by(z):
        return g.sample(z), z

    def searched(z):
        return by(optimized(g, held, z, args.z_steps))
    text = {"first": "E of the first stage alone", "second": "E of the second stage alone",
            "both": "E of both stages"}
    for stages in "first", "second", "both":
        if stages in encoders:
            e, steps = encoders[stages]
            yield f"{text[stages]} ({steps} steps)", lambda e=e: by(e.codes(held))
    e, _ = next(iter(encoders.values()))  # of both stages, if there is one
    if len(held) > 1:
        yield "E(x) of another map", lambda: by(e.codes(np.roll(held, 1, 0)))
    if args.z_steps:
        yield (f"z from 0 by {args.z_steps} steps of Adam",
               lambda: searched(np.zeros((len(held), g.s.latent))))
        yield f"z from E(x) by {args.z_steps} steps of Adam", lambda: searched(e.codes(held))


def write_results(table, held, palette, out):
    """evaluation.csv and evaluation.png: the real maps, then a row of maps for each of the table.
    """
    make_folder(out)
    text = io.StringIO()
    lines = [[name, *(f"{x:.4f}" for x in numbers), length]
             for name, (_, numbers, length) in table.items()]
    csv.writer(text).writerows([["way", "pixel accuracy", "mIoU", "size of z"], *lines])
    with written(out / "evaluation.csv", "w", newline="") as file:
        file.write(text.getvalue())
    save_image(rows([held[:16], *(found[:16] for found, *_ in table.values())], palette),
               out / "evaluation.png")
    print(f"\nIn {out}: evaluation.csv, and evaluation.png: the maps, then a row for each above.")


def rows(sets, palette, columns=16):
    """A picture of sets of maps, (N, H, W) each: the i-th maps of all sets below one another."""
    n, tiles = len(sets[0]), [palette[maps] for maps in sets]
    columns = min(columns, n)
    tiles = [np.pad(a, [(0, -n % columns), *[(0, 0)] * 3], constant_values=255) for a in tiles]
    bands = [a[i:i + columns] for i in range(0, n, columns) for a in tiles]
    return grid(np.concatenate(bands), palette, columns)


def scores(maps, real, g):
    """Both measures as text."""
    return (f"pixel accuracy {metrics.pixel_accuracy(maps, real):.3f}, "
            f"mIoU {metrics.mean_iou(maps, real, g.shapes['conv.b'][0]):.3f}")
