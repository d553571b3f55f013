"""The compare command: SemGAN and the RGB baseline, trained alike, on one page."""
import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import kernels
from app.pictures import grid
from app.run_folder import load_checkpoint
from app.run_settings import given_settings, load_dataset, resolve
from app.training import train
from label_maps import InputError
from metrics import comparison_page


def compare(args):
    """`compare`: SemGAN and the RGB baseline with the same data, seed, steps and networks.

    Only their last layers differ. A run that was interrupted continues from its checkpoint.
    """
    if args.model:
        raise InputError("compare trains both models; leave out --model")
    folder = Path(args.out or f"runs/{Path(args.dataset or 'shapes').stem}-compare")
    every = args.evaluate_every or max(1, total_steps(args) // 10)
    for model in "semgan", "gan":
        run = folder / model
        started = (run / "checkpoint.npz").exists()
        print(f"\n--- {model}" + ": continues from its checkpoint" * started, flush=True)
        changes = dict(model=model, out=str(run), resume=started, evaluate_every=every)
        train(argparse.Namespace(**vars(args) | changes))
    steps = [load_checkpoint(folder / model)[0]["step"] for model in ("semgan", "gan")]
    s = load_checkpoint(folder / "semgan")[0]["settings"]
    facts = (f"{steps[0]} and {steps[1]} steps, seed {s.seed}, side {s.side}, "
             f"kernel size {s.kernel_size}.")
    comparison_page(folder, f"SemGAN and GAN on {Path(s.dataset).name}", pictures(folder, s), facts)


def total_steps(args):
    """--steps, or those of the preset that this machine takes."""
    if args.steps:
        return args.steps
    gpu = kernels.load(args.device).name == "gpu"
    return resolve(given_settings(args), gpu)[0].steps


def pictures(folder, s):
    """{title: image} of 16 real maps and of the last samples of both models."""
    dataset = load_dataset(s)
    some = np.linspace(0, len(dataset.maps) - 1, 16).astype(int)
    images = {"real maps": grid(dataset.maps[some], dataset.palette)}
    for model, title in ("semgan", "SemGAN"), ("gan", "GAN"):
        last = max((folder / model / "samples").glob("step_*.png"))
        images[title] = Image.open(last).convert("RGB")
    return images
