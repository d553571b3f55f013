"""Do photos show what their maps say? A segmenter, from photos to maps, is asked (paper, 6.1).

    python -m experiments.segmenter runs/shapes-pix2pix --trained

The U-Net of pix2pix learns from the same training pairs, but from photo to map. What it then sees
in a dreamed photo is compared with the map that the photo was made of: pix2pix's "FCN score" (Isola
et al. 2016, section 4.1), the paper's Figure 8 as a number. And the use of dreams: does a segmenter
that has few real pairs become better with dreamed pairs beside them?
"""
if __name__ == "__main__":  # before all other imports
    from app.start import start
    start()

from argparse import Namespace

import numpy as np
from tqdm import tqdm

import metrics
from app.command_line import add_moved, natural, positive, require_paths
from app.failures import Parser, reported
from app.memory import require_for_sampling
from app.run_settings import with_absolute_paths
from experiments import runs
from experiments.dreams import add_sources, load_sources
from experiments.pair_trainer import PairTrainer
from experiments.pix2pix import load_translator, translate
from experiments.unet import UNet
from formats.settings import MOST_STEPS, require


class Trainer(PairTrainer):
    """A U-Net from photos to the logits of K classes. losses (1,): the cross-entropy."""

    def __init__(self, ops, s, dataset):
        rng = np.random.default_rng([s.seed, 6])
        self.net = UNet(ops, s, 3, len(dataset.palette), None, rng)
        super().__init__(ops, s, dataset, {"s": self.net}, 1)

    def operations(self):
        with self.ops.arena:
            self.take_inputs()
            maps, photos = self.maps_of(self.index), self.photos_of(self.index)
            logits, kept = self.net.forward(photos)
            _, dlogits = self.ops.softmax_cross_entropy(logits, maps, out=(self.losses, None))
            self.net.backward(dlogits, kept)
            self.net.update(self.rate)

    def segment(self, photos):
        """The class ids (N, H, W) of photos (N, H, W, 3) uint8."""
        ids = []
        for start in range(0, len(photos), 64):
            x = self.ops.asarray(photos[start:start + 64] / 127.5 - 1)
            logits, _ = self.net.forward(x, training=False)
            ids.append(self.ops.asnumpy(logits).argmax(-1).astype(np.uint8))
        return np.concatenate(ids)


def trained(ops, s, dataset, title):
    """A Trainer after s.steps steps on these Pairs."""
    trainer = Trainer(ops, s, dataset)
    with np.errstate(all="ignore"):
        for _ in tqdm(range(s.steps), desc=title, leave=False, disable=None):
            trainer.train_step()
    return trainer


def consistency(segmenter, photos, maps):
    """The mean over the classes of intersection over union, between what is seen and the maps."""
    return metrics.mean_iou(segmenter.segment(photos), maps, len(segmenter.dataset.palette))


# ------------------------------------------------------------------------------------ two questions
def photo_rows(translator, header, held_out, sources, count, seed):
    """{name: (photos, the maps they should show)}, the last a control that must be low."""
    palette, rows = header["palette"], {}
    rows["real photos, real maps"] = held_out.photos, held_out.maps
    rows["dreams of real maps"] = translate(translator, held_out.maps, palette), held_out.maps
    for name, g in sources.items():
        maps = g.sample(np.random.default_rng(seed).standard_normal((count, g.s.latent)))
        ids = metrics.nearest_class(maps, palette)
        rows[f"dreams of {name}"] = translate(translator, maps, palette), ids
    if len(held_out.maps) > 1:
        rows["real photos, each with another's map"] = held_out.photos, np.roll(held_out.maps, 1, 0)
    return rows


def with_dreams(pairs, photos, maps):
    """Pairs with dreamed ones behind them."""
    return pairs._replace(maps=np.concatenate([pairs.maps, maps]),
                          photos=np.concatenate([pairs.photos, photos]),
                          sources=[*pairs.sources, *("dream" for _ in maps)])


def measure(args):
    """Both tables, as lines of Markdown."""
    require(args, "steps", args.steps <= MOST_STEPS, f"at most {MOST_STEPS}")
    translator, header = load_translator(args.run, args.device)
    sources = load_sources(args, header)
    for g in sources.values():
        require_for_sampling(g.s, len(header["palette"]), args.count, "--count")
    given = with_absolute_paths({name: getattr(args, name) for name in runs.MOVABLE})
    s = runs.moved(header["settings"], given, args.run)
    training, held_out = runs.load_pairs(s, header, args.run)
    rows = photo_rows(translator, header, held_out, sources, args.count, args.seed)
    chosen = np.linspace(0, len(training.maps) - 1, min(args.few, len(training.maps))).astype(int)
    few = training._replace(maps=training.maps[chosen], photos=training.photos[chosen],
                            sources=[training.sources[i] for i in chosen])
    sets = {f"{len(few.maps)} real pairs": few}
    for name, (photos, maps) in rows.items():
        if name.startswith("dreams of") and name != "dreams of real maps":
            sets[f"{len(few.maps)} real pairs and {len(maps)} {name}"] = with_dreams(
                few, photos, maps)
    sets[f"all {len(training.maps)} real pairs"] = training
    found = {name: [] for name in (*rows, *sets)}
    for seed in range(args.seed, args.seed + args.seeds):
        of_seed = Namespace(**vars(s) | dict(seed=seed, steps=args.steps))
        for title, dataset in sets.items():
            segmenter = trained(translator.ops, of_seed, dataset, f"seed {seed}: {title}")
            found[title].append(consistency(segmenter, held_out.photos, held_out.maps))
        for name, (photos, maps) in rows.items():  # by the last one, which knows all real pairs
            found[name].append(consistency(segmenter, photos, maps))
    return table("photos, and what they should show", rows, found) + [""] + table(
        "segmenter trained on", sets, found)


def table(title, names, found):
    """Lines of Markdown: the mIoU of each seed."""
    rows = [[title, *("mIoU" for _ in next(iter(found.values())))]]
    rows.append(["---"] * len(rows[0]))
    rows += [[name, *(f"{x:.3f}" for x in found[name])] for name in names]
    return [f"| {' | '.join(row)} |" for row in rows]


def main(argv=None):
    """Run the program. Bad input and failures end it with one line on stderr."""
    with reported("experiments.segmenter"):
        parser = Parser(prog="python -m experiments.segmenter", description="How well a segmenter "
                        "of photos finds the maps that dreamed photos were made of, and whether "
                        "dreamed pairs help to train one. One column of mIoU for each seed.")
        parser.add_argument("run", metavar="RUN", help="a run of experiments.pix2pix")
        add_sources(parser)
        for flag, default, meaning in (("--count", 256, "dreams of each source"),
                                       ("--few", 50, "real pairs that dreams are added to"),
                                       ("--steps", 600, "training steps of each segmenter"),
                                       ("--seeds", 3, "how many seeds")):
            parser.add_argument(flag, type=positive, default=default, metavar="N",
                                help=f"{meaning} (default {default})")
        parser.add_argument("--seed", type=natural, default=0, metavar="N",
                            help="the first seed (default 0)")
        runs.add_device(parser)
        add_moved(parser).add_argument("--photos", metavar="PATH", help="their photos")
        args = parser.parse_args(argv)
        require_paths(args)
        print("\n".join(measure(args)))


if __name__ == "__main__":
    main()
