"""The training step of experiments/pix2pix.py as a PyTorch user would write it.

    python tests/benchmarks/torch_pix2pix.py                  # seconds of a step, beside ours
    python tests/benchmarks/torch_pix2pix.py --device cuda    # both in TF32

Tests compare ten steps in float64. Sizes of the benchmark: the defaults, and side 64.
"""
import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import kernels  # noqa: E402
from experiments import pairs, pix2pix, runs  # noqa: E402


class UNet(nn.Module):
    def __init__(self, s, channels, outputs):
        super().__init__()
        f = s.filters
        norm = lambda c: nn.BatchNorm2d(c, eps=s.bn_eps, momentum=s.bn_momentum)
        self.down1 = nn.Conv2d(channels, f[0], 4, 2, 1)
        self.downs = nn.ModuleList(nn.Sequential(nn.Conv2d(a, b, 4, 2, 1, bias=False), norm(b))
                                   for a, b in zip(f, f[1:]))
        self.ups, cin = nn.ModuleList(), f[-1]
        for cout in f[-2::-1]:
            up = nn.ConvTranspose2d(cin, cout, 4, 2, 1, bias=False)
            self.ups.append(nn.Sequential(up, norm(cout), nn.ReLU()))
            cin = 2 * cout
        self.last = nn.ConvTranspose2d(cin, outputs, 4, 2, 1)

    def forward(self, x):
        skips = [F.leaky_relu(self.down1(x), 0.2)]
        for down in self.downs:
            skips.append(F.leaky_relu(down(skips[-1]), 0.2))
        y = skips.pop()
        for up in self.ups:
            y = torch.cat([up(y), skips.pop()], 1)
        return self.last(y).tanh()


class PatchDiscriminator(nn.Module):
    def __init__(self, s, channels):
        super().__init__()
        f = [channels + 3, *s.patch_filters]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in zip(f, f[1:]))
        self.last = nn.Conv2d(f[-1], 1, 3, padding=1)

    def forward(self, x):
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
        return self.last(x)


class TorchTrainer:
    """Starts from the weights of a pix2pix.Trainer with one-hot inputs; losses (3,) as there."""

    def __init__(self, trainer, dtype=torch.float32, device="cpu"):
        self.s = s = trainer.s
        k = len(trainer.dataset.palette)
        self.g, self.d = UNet(s, k, 3), PatchDiscriminator(s, k)
        for net in self.g, self.d:
            net.to(device=device, dtype=dtype, memory_format=torch.channels_last)
        p, weight = trainer.generator.params, lambda a: torch.from_numpy(
            trainer.ops.asnumpy(a)).permute(3, 2, 0, 1)
        n = len(s.filters)
        with torch.no_grad():
            self.g.down1.weight.copy_(weight(p["down1.w"]))
            self.g.last.weight.copy_(weight(p["last.w"]))
            for i, down in enumerate(self.g.downs, 2):
                down[0].weight.copy_(weight(p[f"down{i}.w"]))
            for i, up in enumerate(self.g.ups, 1):
                up[0].weight.copy_(weight(p[f"up{n - i}.w"]))
            for i, conv in enumerate(self.d.convs, 1):
                conv.weight.copy_(weight(trainer.discriminator.params[f"conv{i}.w"]))
            self.d.last.weight.copy_(weight(trainer.discriminator.params["last.w"]))
            for net in self.g.down1, self.g.last, self.d.last, *self.d.convs:
                net.bias.zero_()
        adam = lambda net: torch.optim.Adam(net.parameters(), s.learning_rate, eps=s.adam_eps,
                                            betas=(s.beta1, s.beta2), fused=True)
        self.adam_g, self.adam_d = adam(self.g), adam(self.d)
        self.labels = torch.from_numpy(trainer.dataset.maps).to(device).long()
        photos = torch.from_numpy(trainer.dataset.photos).to(device, dtype) / 127.5 - 1
        self.photos = photos.permute(0, 3, 1, 2)
        self.one_hot = torch.eye(k, dtype=dtype, device=device)

    def train_step(self, index):
        index = torch.as_tensor(index, device=self.labels.device).long()
        maps = self.one_hot[self.labels[index]].permute(0, 3, 1, 2)
        photos = self.photos[index]
        fake = self.g(maps)
        real, generated = (torch.cat([maps, x], 1) for x in (photos, fake.detach()))
        logits = self.d(torch.cat([real, generated]))
        targets = torch.cat([torch.ones_like(logits[:len(maps)]),
                             torch.zeros_like(logits[len(maps):])])
        loss_d = F.binary_cross_entropy_with_logits(logits, targets)
        self.adam_d.zero_grad()
        loss_d.backward()
        self.adam_d.step()
        self.d.requires_grad_(False)
        logits = self.d(torch.cat([maps, fake], 1))
        error = (fake - photos).abs().mean()
        loss_g = self.s.adversarial_weight * F.binary_cross_entropy_with_logits(
            logits, torch.ones_like(logits))
        self.adam_g.zero_grad()
        (error + loss_g).backward()
        self.adam_g.step()
        self.d.requires_grad_(True)
        return torch.stack([loss_d, error, loss_g]).detach().cpu().numpy()


def main():
    from training_step import alternate
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["numpy", "cuda"], default="numpy")
    device = parser.parse_args().device
    ops = kernels.load(device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    if device == "numpy":
        torch.set_num_threads(ops.workers.count)
    for changes in {}, dict(side=64):
        s = runs.settings(pix2pix.SETTINGS, changes, pix2pix.CHOICES)
        trainer = pix2pix.Trainer(ops, s, pairs.load("shapes", (s.side, s.side), count=256))
        yardstick = TorchTrainer(trainer, device="cpu" if device == "numpy" else device)
        index = ops.asnumpy(trainer.inputs(0)).copy()

        def step(trainer=trainer):
            trainer.train_step()
            return ops.asnumpy(trainer.losses)  # waits for a GPU, as PyTorch's losses do

        turns = {"ours": step, "PyTorch": partial(yardstick.train_step, index)}
        np.testing.assert_allclose(turns["PyTorch"](), turns["ours"](), rtol=0.05)
        for run in turns.values():
            for _ in range(3):
                run()
        ours, theirs = (float(np.median(t)) for t in alternate(turns, 8, 5).values())
        print(f"side {s.side}: ours {ours:.4f} s   PyTorch {theirs:.4f} s   ratio "
              f"{ours / theirs:.2f}   ({ops.why})", flush=True)


if __name__ == "__main__":
    main()
