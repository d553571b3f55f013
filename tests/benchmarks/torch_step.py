"""The training step as a PyTorch user would write it, for tests and as a yardstick."""
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from semgan import map_size


class Generator(nn.Module):
    def __init__(self, s, classes):
        super().__init__()
        f, k, n = s.generator_filters, s.kernel_size, len(s.generator_filters) - 1
        self.first = (f[0], *map_size(s, n))
        self.dense = nn.Linear(s.latent, int(np.prod(self.first)))
        layers = []
        widths = f + [classes] * s.bottleneck
        for i, (cin, cout) in enumerate(zip(widths, widths[1:])):
            stride = 2 if i < n else 1
            layers += [
                nn.ConvTranspose2d(
                    cin, cout, k, stride, k // 2, output_padding=stride - 1, bias=False),
                nn.BatchNorm2d(cout, eps=s.bn_eps, momentum=s.bn_momentum),
                nn.ReLU(),
            ]
        self.deconvs = nn.Sequential(*layers)
        self.rgb = s.model == "gan"
        self.conv = nn.Conv2d(widths[-1], 3 if self.rgb else classes, k, padding=k // 2)

    def forward(self, z):
        y = self.conv(self.deconvs(F.relu(self.dense(z)).view(-1, *self.first)))
        return y.tanh() if self.rgb else y.softmax(1)


class Discriminator(nn.Module):
    def __init__(self, s, classes):
        super().__init__()
        f = [3 if s.model == "gan" else classes] + s.discriminator_filters
        kernels = [s.kernel_size]
        for _ in f[1:]:
            kernels.append((kernels[-1] + 1) // 2 | 1 if s.halve_kernels else kernels[-1])
        self.convs = nn.ModuleList(
            nn.Conv2d(cin, cout, k, 2, k // 2) for k, cin, cout in zip(kernels, f, f[1:]))
        h, w = map_size(s, len(self.convs))
        self.dense = nn.Linear(h * w * f[-1], 1)

    def forward(self, x):
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
            features.append(x)
        return self.dense(x.flatten(1)), features


class TorchTrainer:
    """Starts from the weights of a semgan.Trainer; losses (1 + L,) as there. bf16: by autocast."""

    def __init__(self, trainer, dtype=torch.float32, device="cpu", bf16=False):
        self.s = s = trainer.s
        self.step = trainer.step
        self.autocast = lambda: torch.autocast(device, torch.bfloat16, enabled=bf16)
        self.g = Generator(s, trainer.dataset.classes)
        self.d = Discriminator(s, trainer.dataset.classes)
        for net in self.g, self.d:
            net.to(device, dtype, memory_format=torch.channels_last)
        with torch.no_grad():
            self._copy_weights(trainer)
        options = dict(betas=(s.beta1, s.beta2), eps=s.adam_eps, fused=True,
                       capturable=device == "cuda")
        adam = torch.optim.Adam
        self.adam_g = adam(self.g.parameters(), s.learning_rate, **options)
        self.adam_d = adam(self.d.parameters(), s.discriminator_learning_rate, **options)
        self.table = torch.tensor(trainer.ops.asnumpy(trainer.table), dtype=dtype, device=device)
        self.labels = torch.from_numpy(trainer.dataset.maps).to(device)

    def _copy_weights(self, trainer):
        to = lambda a: torch.from_numpy(np.array(trainer.ops.asnumpy(a)))
        p = trainer.generator.params
        c, h, w = self.g.first
        # Ours is flattened as (h, w, c), PyTorch's as (c, h, w).
        dense = to(p["dense.w"])[0, 0].view(-1, h, w, c)
        self.g.dense.weight.copy_(dense.permute(3, 1, 2, 0).reshape(c * h * w, -1))
        self.g.dense.bias.copy_(to(p["dense.b"]).view(h, w, c).permute(2, 0, 1).flatten())
        for i in range(len(trainer.generator.strides)):
            self.g.deconvs[3 * i].weight.copy_(to(p[f"deconv{i + 1}.w"]).permute(3, 2, 0, 1))
        self.g.conv.weight.copy_(to(p["conv.w"]).permute(3, 2, 0, 1))
        p = trainer.discriminator.params
        for i, conv in enumerate(self.d.convs, 1):
            conv.weight.copy_(to(p[f"conv{i}.w"]).permute(3, 2, 0, 1))
        dense = to(p["dense.w"]).view(*map_size(self.s, len(self.d.convs)), -1)
        self.d.dense.weight.copy_(dense.permute(2, 0, 1).flatten()[None])
        for net in self.g.conv, self.d.dense, *self.d.convs:
            net.bias.zero_()

    def train_step(self, z, index):
        """One step on arrays of the host."""
        z, index = torch.tensor(z, dtype=self.table.dtype), torch.as_tensor(index)
        return self.device_step(z.to(self.table.device), index.to(self.table.device)).cpu().numpy()

    def device_step(self, z, index):
        """One step on tensors of the device, without waiting for it."""
        x = self.table[self.labels[index].long()].permute(0, 3, 1, 2)  # channels_last already
        with self.autocast():
            fake = self.g(z)
        loss_d = self._update_discriminator(x, fake.detach())
        losses = self._update_generator(x, fake)
        self.step += 1
        return torch.stack([loss_d, *losses]).detach()

    def _update_discriminator(self, x, fake):
        with self.autocast():
            logits, _ = self.d(torch.cat([x, fake]))
            real, generated = logits.chunk(2)
            targets = torch.cat([torch.ones_like(real), torch.zeros_like(generated)])
            loss = F.binary_cross_entropy_with_logits(logits, targets)
        self.adam_d.zero_grad()
        loss.backward()
        self.adam_d.step()
        return loss

    def _update_generator(self, x, fake):
        s = self.s
        self.d.requires_grad_(False)  # G's loss needs no gradient of D's weights
        with self.autocast():
            with torch.no_grad():
                _, real_features = self.d(x)
            logits, fake_features = self.d(fake)
        pairs = [(real.to(x.dtype), fake.to(x.dtype))
                 for real, fake in zip(real_features, fake_features)]
        losses = [self.feature_matching(real, fake) for real, fake in pairs]
        if s.moment_matching:
            losses += [s.moment_matching * moment_matching(real, fake) for real, fake in pairs]
        if s.feature_layers == "last":
            losses = [loss if i % len(pairs) == len(pairs) - 1 else torch.zeros_like(loss)
                      for i, loss in enumerate(losses)]
        if s.generator_loss == "non_saturating":
            losses = [-F.logsigmoid(logits.to(x.dtype)).mean()]
        self.adam_g.zero_grad()
        sum(losses).backward()
        self.adam_g.step()
        self.d.requires_grad_(True)
        return losses

    def feature_matching(self, real, fake):
        if self.s.feature_matching == "paired":
            return (real - fake).abs().mean()
        loss = ((real.mean(0) - fake.mean(0)) ** 2).mean()
        if self.s.feature_matching == "unbiased":
            loss = loss - fake.var(0).mean() / len(fake)
        return loss


def moment_matching(real, fake):
    real, fake = (x.mean((2, 3)) for x in (real, fake))
    deviations = [(x.var(0) + 1e-10).sqrt() for x in (real, fake)]
    gaps = (real.mean(0) - fake.mean(0)) ** 2 + (deviations[0] - deviations[1]) ** 2
    return (gaps / (deviations[0] ** 2 + 1e-6)).mean()
