# %% [markdown]
# # 10. SemGAN and GAN: what does the softmax change?
#
# The paper compares its SemGAN with an ordinary GAN, which draws coloured images. It names three
# advantages of SemGAN (section 3.2):
#
# 1. the generator always outputs a valid class label;
# 2. the gradient is applied to the predicted class labels, not to the generated colours;
# 3. training converges faster, because there is less that the generator can output.
#
# Are these claims true? Here you train both and test each claim.
#
# You need: one-hot maps and palettes ([notebook 2](02_label_maps.ipynb)), and what happens in a
# training step ([notebook 9](09_one_step.ipynb)). Time: about 90 minutes, of which 55 are
# exercises.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import inspect
import matplotlib.pyplot as plt
import numpy as np
import data, kernels, metrics, semgan
from image_metrics import invalid_color_rate, sliced_wasserstein
from kernels.numpy_ops import conv
from tutorial.checks import check, show

# %% [markdown]
# ## Two models, one difference
#
# Both models learn Colored Shapes at 16 x 16 pixels, with equal settings. The networks are small,
# so that both train in a few seconds each.

# %%
dataset = data.colored_shapes(side=16)
labels, palette = dataset.maps, dataset.palette  # (N, H, W) and (K, 3), K = 4
size = dict(side=16, batch_size=16, kernel_size=5, generator_filters=[32, 24, 16],
            discriminator_filters=[16, 32])
rates = dict(learning_rate=1e-3, discriminator_learning_rate=2e-4)
losses = dict(feature_matching="unbiased", moment_matching=0.1)  # notebook 8

def new_trainer(model, dataset, dtype=np.float32):
    s = semgan.settings(model=model, seed=1, **size, **rates, **losses)
    return semgan.Trainer(kernels.load("numpy", dtype), s, dataset)

# %% [markdown]
# The difference is in the number of channels. SemGAN has one channel for each class, the GAN one
# for each of red, green and blue. So the last layer of the generator G and the first layer of the
# discriminator D differ in shape. All other layers have equal shapes:

# %%
trainers = {model: new_trainer(model, dataset) for model in ("semgan", "gan")}
for network in "g", "d":
    ours, theirs = (trainers[model].networks[network].shapes for model in trainers)
    for name in ours:
        if ours[name] != theirs[name]:
            print(f"{network} {name:8} semgan {ours[name]}, gan {theirs[name]}")

# %% [markdown]
# G's last layer ends in a softmax in one model, and in a tanh in the other, which gives numbers
# from -1 to 1. Real maps come in the same form: as one-hot vectors, or as colours, scaled from
# 0..255 to -1..1. Each class is thus a row of a table. In each step both models get the same latent
# vectors z and the same real maps:

# %%
table = {model: semgan.OUTPUTS[model].encoding(palette) for model in trainers}
print(*table.values(), sep="\n")
for step in 0, 1:
    ours, theirs = (trainers[model].inputs(step) for model in trainers)
    assert np.array_equal(ours[0], theirs[0])  # z (B, 100)
    assert np.array_equal(ours[1], theirs[1])  # the numbers of the real maps, (B,)

# %% [markdown]
# To look at samples we must turn the outputs back into something with classes or colours. For
# SemGAN this is the `argmax` of notebook 2. For the GAN it is the inverse of the table's scaling.

# %% [markdown]
# ### Exercise 10.1: numbers to colours
#
# *Difficulty 1 of 3 · 10 minutes · Good for: uint8, where 256 becomes 0.*
#
# Turn the GAN's outputs, from -1 to 1, into colours from 0 to 255: -1 becomes 0, and 1 becomes 255.
# Round to the nearest integer. Outputs below -1 become 0, and outputs above 1 become 255.

# %%
def to_colors(x):
    """Floats, of any shape -> uint8 of the same shape."""
    ### BEGIN SOLUTION
    return np.clip(np.rint((x + 1) * 127.5), 0, 255).astype(np.uint8)
    ### END SOLUTION

# %%
check("10.1", to_colors);

# %% [markdown]
# The order matters: a float becomes uint8 at the very end. As uint8, 200 + 100 is 44, since only
# the remainder after division by 256 is kept. The project's function takes what the table gives
# back to the colours:

# %%
decode = {model: semgan.OUTPUTS[model].decode for model in trainers}
rgb = palette[labels]                                          # (N, H, W, 3)
assert np.array_equal(decode["gan"](table["gan"][labels]), rgb)
assert np.array_equal(decode["semgan"](table["semgan"][labels]), labels)
print(np.uint8(200) + np.array([100], np.uint8))

# %% [markdown]
# ## Training both
#
# We train each model for 500 steps. Every 100 steps, G draws 196 maps, always from the same latent
# vectors. We keep its outputs: probabilities or numbers from -1 to 1. This takes some seconds for
# each model.

# %%
steps, every = 500, 100
z = np.random.default_rng(0).standard_normal((len(labels), 100)).astype(np.float32)

def watch(trainer):
    """Trains. Yields (step, G's outputs (N, H, W, channels)) on the way."""
    for step in range(steps + 1):
        if step % every == 0:
            yield step, np.concatenate(list(trainer.generator.outputs(z)))
        trainer.train_step()

# %% tags=["varies"]
history = {model: dict(watch(trainer)) for model, trainer in trainers.items()}
samples = {model: {step: decode[model](x) for step, x in history[model].items()}
           for model in history}  # class ids (N, H, W); colours (N, H, W, 3)
drawn = [palette[samples["semgan"][step][:8]] for step in (0, 100, 300, 500)]
show(np.concatenate(drawn))

# %% [markdown]
# These are SemGAN's samples. The rows are after 0, 100, 300 and 500 steps. Now the GAN's, after the
# same numbers of steps:

# %% tags=["varies"]
show(np.concatenate([samples["gan"][step][:8] for step in (0, 100, 300, 500)]))

# %% [markdown]
# Both have learnt that something lies in the middle, with background around it. Neither draws clear
# shapes yet: these are small networks after a few seconds. SemGAN's maps have clumps of blue and
# green. The GAN's colours run into each other.

# %% [markdown]
# ## Claim 1: always a valid label
#
# How many pixels have the colour of no class? As in notebook 2, a pixel is *invalid* if it differs
# from each colour of the palette by more than 8 of 255, in red, green or blue.

# %%
def my_invalid(images):  # (N, H, W, 3) uint8
    gaps = np.abs(images[..., None, :].astype(int) - palette).max(-1)  # (N, H, W, K)
    return (gaps.min(-1) > 8).mean()

# %% tags=["varies"]
invalid = {step: my_invalid(images) for step, images in samples["gan"].items()}
for step, images in samples["gan"].items():
    assert np.isclose(invalid[step], invalid_color_rate(images, palette))
    assert invalid_color_rate(palette[samples["semgan"][step]], palette) == 0
    print(f"step {step:3}: GAN {invalid[step]:.0%}, SemGAN 0%")

# %% [markdown]
# The claim holds. But it holds by construction: `argmax` can only give an id that exists. Even
# after 0 steps, when its maps are noise, SemGAN has no invalid pixel. A valid *pixel* is not yet a
# valid *map*. And we could repair the GAN: `nearest_class` gives each pixel the class with the
# nearest colour. Then none of its pixels is invalid, and it draws this:

# %% tags=["varies"]
repaired = {step: metrics.nearest_class(images, palette)
            for step, images in samples["gan"].items()}
assert invalid_color_rate(palette[repaired[steps]], palette) == 0
show(np.concatenate([repaired[steps][:8], samples["semgan"][steps][:8]]))

# %% [markdown]
# The first row is the repaired GAN, the second SemGAN. How sure is SemGAN of the class that
# `argmax` picks? Real maps are one-hot: one probability is 1, the others are 0. The generator gives
# probabilities in between. The *entropy* measures how undecided it is in a pixel:
#
# $$H = -\sum_{k=1}^{K} p_k \ln p_k$$
#
# with $0 \ln 0 = 0$, the limit of $p \ln p$ for $p \to 0$. If one probability is 1, all terms are
# 0, and so is $H$. If all of them are $1 / K$, then $H = \ln K$, and no distribution has more. Here
# $K = 4$ and $\ln 4 \approx 1.386$.

# %% [markdown]
# ### Exercise 10.2: entropy
#
# *Difficulty 2 of 3 · 10 minutes · Good for: a number that shows up all over machine learning.*
#
# Return the mean entropy of all pixels. Some probabilities are exactly 0. There `np.log` gives
# $-\infty$, and $0 \cdot \infty$ is NaN. So put another number into the logarithm where `p` is 0:
# `np.where(p > 0, p, 1)`.

# %%
def mean_entropy(p):
    """p (B, H, W, K), which adds up to 1 over the last axis -> a number."""
    ### BEGIN SOLUTION
    return -(p * np.log(np.where(p > 0, p, 1))).sum(-1).mean()
    ### END SOLUTION

# %%
check("10.2", mean_entropy);

# %% [markdown]
# The project's `discreteness` gives the entropy, and the mean of the largest probability:

# %%
print(inspect.getsource(metrics.discreteness))

# %% tags=["varies"]
entropy, largest = [], []
for p in history["semgan"].values():
    entropy.append(-(p * np.log(np.maximum(p, 1e-30))).sum(-1).mean())
    largest.append(p.max(-1).mean())
    assert np.allclose([largest[-1], entropy[-1]], list(metrics.discreteness(p).values()),
                       rtol=1e-4)
print(f"entropy {entropy[0]:.3f} -> {entropy[-1]:.3f}")

# %% tags=["varies"]
_, axes = plt.subplots(1, 2, figsize=(6.2, 2.8), layout="constrained")
axes[0].plot(list(history["semgan"]), entropy, "o-")
axes[0].axhline(np.log(4), color="k", ls=":", label="ln 4"), axes[0].legend()
axes[0].set(xlabel="step", ylabel="mean entropy", ylim=(0, 1.5))
for step in 0, 100, 500:
    axes[1].hist(history["semgan"][step].max(-1).ravel(), np.linspace(0.25, 1, 31),
                 histtype="step", label=f"step {step}")
axes[1].set(xlabel="largest probability", ylabel="pixels", yscale="log"), axes[1].legend()
plt.show()

# %% [markdown]
# At first all classes are almost equally probable. Then the entropy falls. D sees one-hot vectors
# in real maps, so anything in between gives a generated map away. Nobody has told G to be sure: it
# learns that from D. But neither number says anything about the map itself. A generator that is
# certain of background everywhere has the entropy 0.

# %% [markdown]
# ## Claim 2: labels, not colours
#
# What are colours to the networks? If the claim is right, SemGAN must learn the same whatever
# colours we draw the classes in, and the GAN must not. So we exchange the palette, and nothing
# else. In the new palette, the background is dark grey, and circle and square have similar colours.

# %%
new_palette = np.array([[60, 60, 60], [40, 40, 255], [0, 200, 60], [90, 40, 200]], np.uint8)
recolored = data.LabelMaps(labels, new_palette, dataset.names)
show(np.concatenate([palette[labels[:8]], new_palette[labels[:8]]]))

def train(model, dataset, change=lambda trainer: None, steps=5):
    """Some steps in float64. `change` is called before the first."""
    trainer = new_trainer(model, dataset, np.float64)
    change(trainer)
    for _ in range(steps):
        trainer.train_step()
    return trainer

# %%
def parameters(trainer):  # of both networks, as one array
    return np.concatenate([net.flat["params"] for net in trainer.networks.values()])

before = {model: train(model, dataset) for model in ("semgan", "gan")}
for model in before:
    gap = np.abs(parameters(train(model, recolored)) - parameters(before[model])).max()
    print(f"{model}: parameters differ by up to {gap:.3g} after 5 steps")
    assert (gap == 0) == (model == "semgan")

# %% [markdown]
# SemGAN's parameters are the same to the last bit. It has never seen a palette. The GAN's differ by
# about 10 learning rates ($10^{-3}$ each), though G, D, z, and the maps were the same at the start.
# With other colours it learns something else.
#
# ### Why
#
# Look at D's first layer. At each pixel under its kernel, it multiplies the pixel's channels by a
# matrix of weights. Let the pixel have class $c$. For SemGAN the channels are a one-hot vector, so
# the product is row $c$ of that matrix. Each class has weights of its own. For the GAN they are a
# colour, row $c$ of the table $T$ (K, 3). Here we call the matrix $w$. The product is $T_c\, w$, a
# mix of its three rows. So the GAN's D does what a SemGAN's D does with the weights $T w$:

# %%
rng = np.random.default_rng(1)
w = rng.standard_normal((5, 5, 3, 16))                    # (kh, kw, 3, Cout)
from_colors = conv(table["gan"][labels[:4]], w, 2, 2)     # (B, H / 2, W / 2, Cout)
from_labels = conv(table["semgan"][labels[:4]], table["gan"] @ w, 2, 2)
assert np.allclose(from_colors, from_labels)
print(f"T w: {(table['gan'] @ w).shape}, T has rank {np.linalg.matrix_rank(table['gan'])}")

# %% [markdown]
# These weights are not free: for each tap of the kernel and each output, the four numbers of the
# four classes are mixes of three. With the 22 classes of street scenes, 22 numbers are mixes of
# three. Classes with similar colours get similar weights, so D can hardly tell them apart. The
# palette, chosen for human eyes, decides which mistakes count as small. The gradient that comes
# back to G has three numbers in each pixel, which pull at its colour. In SemGAN it has $K$, one for
# each class.

# %% [markdown]
# ### Renumbering the classes
#
# What if we keep the colours, but number the classes in another order? The new class $i$ is the old
# class `order[i]`. The palette's rows move along. So each pixel keeps its colour.

# %%
order = np.array([2, 0, 3, 1])
number = np.argsort(order).astype(np.uint8)  # the new number of each old class
renumbered = data.LabelMaps(number[labels], palette[order], dataset.names)
assert np.array_equal(renumbered.palette[renumbered.maps], rgb)
gap = np.abs(parameters(train("gan", renumbered)) - parameters(before["gan"])).max()
assert gap == 0
gap = np.abs(parameters(train("semgan", renumbered)) - parameters(before["semgan"])).max()
print(f"semgan: parameters differ by up to {gap:.3g}")

# %% [markdown]
# Now it is the other way round! The GAN sees the same colours, and its training is the same to the
# last bit. SemGAN's is not. Does it depend on the numbers of classes? Only by way of the random
# weights at the start. Channel 0 has its own random weights. They belonged to the background
# before, and belong to the rectangle now. If we renumber these weights as well, training must be
# the same again, with channels in another order.

# %% [markdown]
# ### Exercise 10.3: renumber the weights
#
# *Difficulty 3 of 3 · 20 minutes · Good for: knowing what each axis of a weight means.*
#
# Given are all parameters in which classes are an axis: those of G's last layer, `g_w`
# (kh, kw, Cin, K) and `g_b` (K,), and the weights of D's first layer, `d_w` (kh, kw, K, Cout).
# Return all three for the new numbers: what belonged to the old class `order[i]` now belongs to
# class `i`.

# %%
def renumber(g_w, g_b, d_w, order):
    """The three arrays with their classes in the new order."""
    ### BEGIN SOLUTION
    return g_w[..., order], g_b[order], d_w[:, :, order]
    ### END SOLUTION

# %%
check("10.3", renumber);

# %% [markdown]
# Here `np.take` does the same. We change the weights before the first step, train, and put the
# channels back in the old order to compare:

# %%
axes = {("g", "conv.w"): 3, ("g", "conv.b"): 0, ("d", "conv1.w"): 2}  # where classes are an axis

def renumber_weights(trainer, order=order):
    for (network, name), axis in axes.items():
        p = trainer.networks[network].params[name]
        p[...] = np.take(p, order, axis)

# %% tags=["varies"]
after = train("semgan", renumbered, change=renumber_weights)
renumber_weights(after, order=number)  # back to the old order
gap = np.abs(parameters(after) - parameters(before["semgan"])).max()
assert gap < 1e-12
print(f"equal up to rounding: {gap < 1e-12}; to the bit: {gap == 0}")

# %% [markdown]
# Equal, up to rounding. (Sums over the classes are added up in another order, and a float sum
# depends on the order.) So a SemGAN with renumbered classes is another roll of the same dice: all
# weights are drawn from the same distribution, so no numbering is better than another. For the GAN,
# another palette is another problem.
#
# Claim 2 holds, in this sense: SemGAN knows nothing of colours. The price is $K$ channels instead
# of 3.

# %% [markdown]
# ## Claim 3: faster convergence
#
# The paper shows this by curves of the *sliced Wasserstein distance* (SWD), which compares small
# patches of two sets of coloured images ([notebook 12](12_measuring_images.ipynb) explains how).
# Lower is better. We give it the real maps and the samples, both coloured by the same palette. For
# the GAN we do it twice: as it draws, and repaired by `nearest_class`. The dotted line shows how
# far other real maps are from the real ones. No generator need be better.

# %%
def swd(images):
    return sliced_wasserstein(rgb, images)["average"]  # times 1000

curves = {"SemGAN": [swd(palette[x]) for x in samples["semgan"].values()],
          "GAN": [swd(x) for x in samples["gan"].values()],
          "GAN, repaired": [swd(palette[x]) for x in repaired.values()]}
floor = swd(palette[data.colored_shapes(side=16, seed=9).maps])

# %% tags=["varies"]
plt.figure(figsize=(6.2, 3.2))
for name, curve in curves.items():
    plt.plot(list(repaired), curve, "o-", label=name)
plt.axhline(floor, color="k", ls=":", label="other real maps")
plt.ylim(0), plt.xlabel("step"), plt.ylabel("SWD x 1000"), plt.legend()
plt.tight_layout(), plt.show()

# %% tags=["varies"]
print({name: np.round(curve).astype(int).tolist() for name, curve in curves.items()})
for name, x in ("SemGAN", samples["semgan"][100]), ("GAN, repaired", repaired[100]), (
        "real", labels):
    print(f"background at step 100: {(x == 0).mean():.1%} ({name})")

# %% [markdown]
# In the run whose results are stored here, SemGAN is nearer to the real maps than the GAN from step
# 200 on, each time. So far the claim holds. But look at two more things.
#
# **After repair the GAN catches up.** At the last steps its curve is even the lowest. Much of the
# GAN's distance was in colours of no class, and `nearest_class` takes these away. (This palette
# makes it easy, since all four colours are equally far from each other. Notebook 2 shows palettes
# where it goes wrong.) The paper compares with the GAN as it draws. Someone who needs label maps
# would repair them.
#
# **The first values mislead.** At step 100 SemGAN's maps are nearly empty, and so are those of the
# repaired GAN. SWD calls that worse than the noise at the start. A curve needs a look at samples
# beside it.
#
# And this is one run of each model. With another seed the curves differ: change `seed=1` above and
# see what remains.
#
# SWD has a weakness of its own: it sees colours. We draw the same maps in the new palette from
# above, real ones and samples alike. The maps have not changed, but the distances have:

# %% tags=["varies"]
last = {"SemGAN": samples["semgan"][steps], "GAN, repaired": repaired[steps]}
for name, x in last.items():
    other = sliced_wasserstein(new_palette[labels], new_palette[x])["average"]
    print(f"{name}: {swd(palette[x]):.0f}, in the other colours {other:.0f}")

# %% [markdown]
# The paper's curves depend on the palette in this way too. Metrics of the label maps themselves do
# not: [notebook 11](11_measuring_maps.ipynb) builds seven of them.

# %% [markdown]
# ### Exercise 10.4: when is it good enough?
#
# *Difficulty 2 of 3 · 15 minutes · Good for: reading curves of training, which go up and down.*
#
# "It converges faster" needs a number. Choose a limit. From which step on does the curve stay below
# it, to the end? A single lucky value does not count. If the last value is not below the limit,
# return None.

# %%
def stays_below(steps, values, limit):
    """steps, values: (n,). The first of the steps from which on all values are < limit, or None."""
    ### BEGIN SOLUTION
    above = np.flatnonzero(np.asarray(values) >= limit)
    first = above[-1] + 1 if len(above) else 0
    return steps[first] if first < len(steps) else None
    ### END SOLUTION

# %%
check("10.4", stays_below);

# %% [markdown]
# ## A longer run
#
# The project's `compare` command trains both models for longer. This is its result for 32 x 32
# pixels after 5000 steps:
#
# ![SWD over the steps, and samples](../tutorial/compare.png)
#
# There SemGAN's curves lie below the GAN's at every step, and its samples have clear shapes where
# the GAN's are smeared. In these curves the GAN is not repaired. But the same run was also measured
# by metrics of label maps, after repair, and SemGAN is nearer to the real maps in all of them but
# one ([table](../docs/metrics.md)). Again it is one run of each.

# %% [markdown]
# ## Summary
#
# - SemGAN and the GAN differ in one layer of each network: it has one channel for each class, or
#   three for colours.
# - **Claim 1** holds by construction: `argmax` gives valid ids, from the first step on. That says
#   nothing about the map.
# - Entropy, $-\sum p \ln p$, measures how undecided the softmax is. It falls, since D sees one-hot
#   vectors in real maps.
# - **Claim 2** holds to the bit: another palette changes the GAN's training, but not SemGAN's.
#   Renumbering the classes changes SemGAN's only by way of its random weights.
# - **Claim 3**: in our short run SemGAN is ahead of the GAN as it draws, but at the end not of the
#   GAN after repair. In a longer run it is ahead of that too, by all metrics of label maps but one.
#
# **In the paper:** [section 3.2](https://arxiv.org/abs/1906.12195) for the claims, section 5 for
# the curves. **In the project:** `OUTPUTS` in [semgan.py](../semgan.py),
# [`discreteness`](../metrics.py#discreteness) and [`nearest_class`](../metrics.py#nearest_class).
# `python semgan.py compare` trains both models and draws their curves.
#
# **Next:** metrics of label maps, and how to cheat them, in
# [notebook 11](11_measuring_maps.ipynb).
