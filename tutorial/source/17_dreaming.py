# %% [markdown]
# # 17. Dreaming: what would a photo of this map look like?
#
# SemGAN draws label maps. The paper goes one step further (section 6.1): another network turns the
# maps into photos of streets that nobody has ever seen. It calls this dreaming.
#
# The network is pix2pix ([Isola et al. 2016](https://arxiv.org/abs/1611.07004)). It learns from
# pairs of a map and its photo. Here you take it apart: what it has to beat, how far a pixel must
# see, why information takes a shortcut, and what the network is punished for. Then you train one in
# a few seconds, let it dream, and ask whether the dreams show what their maps say.
#
# You need: convolution and its gradients ([notebook 4](04_convolution.ipynb),
# [notebook 5](05_transposed_convolution.ipynb)), and the discriminator's loss
# ([notebook 6](06_softmax_and_losses.ipynb), [notebook 8](08_the_game.ipynb)). Time: about 105
# minutes, of which 60 are exercises.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import inspect
import matplotlib.pyplot as plt
import numpy as np
import app.commands, app.run_folder, kernels, metrics
from experiments import pairs, pix2pix, runs, unet
from kernels.gradient_check import directional_check
from kernels.numpy_ops import add, concat, conv, conv_input_grad, feature_matching, split
from tutorial.checks import check, show

# %% [markdown]
# ## Pairs of map and photo
#
# Real street scenes take a data set and hours of training. So the project paints photos of Colored
# Shapes: toys on tiles, in light from the upper left. A ball shines, a brick has joints, and
# everything casts a soft shadow. A little mottling is random. All the rest follows from the map.

# %%
every = pairs.load("shapes", (32, 32), count=400)
training, held_out = pairs.split(every)       # 320 pairs and 80
palette = every.palette                       # (4, 3), of ground, circle, rectangle, square
print(training.maps.shape, training.photos.shape)
show(np.concatenate([palette[held_out.maps[:8]], held_out.photos[:8]]))

# %% [markdown]
# We train on 320 pairs. The other 80 are *held out*: we only measure with them. A network could
# know the training photos by heart and still be bad at maps it has never seen.
#
# ## What a network has to beat
#
# The simplest way to turn a map into a photo is to give each class one colour. Which one? Say that
# the pixels of a class have the values $x_1, \dots, x_n$ in one channel, and we choose the colour
# $c$. The mean of $(x_i - c)^2$ has the derivative $2 (c - \bar{x})$. It is smallest for the mean
# $c = \bar{x}$. (We shall measure the mean of $|x_i - c|$, for which the median is best. That makes
# little difference here: 0.182 in place of 0.186.)

# %% [markdown]
# ### Exercise 17.1: the mean colour of a class
#
# *Difficulty 1 of 3 · 10 minutes · Good for: selecting pixels with a mask.*
#
# Compute the mean colour of each class over all pixels of all photos that have this class.

# %%
def mean_colors(maps, photos, classes):
    """maps (N, H, W), photos (N, H, W, 3) uint8 -> (classes, 3) floats. All classes occur."""
    ### BEGIN SOLUTION
    return np.array([photos[maps == k].mean(0) for k in range(classes)])
    ### END SOLUTION

# %%
check("17.1", mean_colors);

# %%
colors = np.array([training.photos[training.maps == k].mean(0) for k in range(4)])  # (4, 3)
flat = colors[held_out.maps]                               # (80, 32, 32, 3): our first "photos"
error = np.abs(flat - held_out.photos).mean() / 127.5      # of colours from -1 to 1
assert np.isclose(error, pairs.mean_color_error(training, held_out))
print(f"mean error with one colour for each class: {error:.3f}")
show(np.concatenate([flat[:8].astype(np.uint8), held_out.photos[:8]]))

# %% [markdown]
# The error $|\text{ours} - \text{photo}|$ is measured on colours from -1 to 1. Shading, shadows and
# textures are missing. To draw them, a pixel must know more than its own class.
#
# ## How far must a pixel see?
#
# A shadow falls from one object on another, several pixels away. And tiles have joints at fixed
# places, so a pixel must know where it is. It finds out from the border, if it can see that far.
#
# What a network's output can see of its input is its *receptive field*. One convolution with a
# kernel of $k$ pixels sees $k$ pixels in a row. Put a second one after it. Its kernel takes
# neighbouring outputs of the first, and these are $s$ pixels apart in the input, where $s$ is the
# first one's stride. So if the later layers see $r$ pixels of this layer's output, they see
#
# $$(r - 1)\, s + k$$
#
# pixels of its input: the first of the $r$ windows has $k$ pixels, and each further one begins $s$
# pixels later.

# %% [markdown]
# ### Exercise 17.2: the receptive field
#
# *Difficulty 2 of 3 · 10 minutes · Good for: choosing the number of layers of any network.*
#
# How many pixels in a row does one output of a stack of convolutions see? A layer is a pair of
# kernel size and stride. The layers are given in the order in which the data pass them.

# %%
def receptive_field(layers):
    """layers: [(kernel, stride), ...], the first layer first. Without layers: 1."""
    ### BEGIN SOLUTION
    r = 1
    for kernel, stride in reversed(layers):
        r = (r - 1) * stride + kernel
    return r
    ### END SOLUTION

# %%
check("17.2", receptive_field);

# %% [markdown]
# We can also ask the network itself. The discriminator of pix2pix has two layers with 4x4 kernels
# and stride 2, and one with a 3x3 kernel and stride 1. The gradient of a single output is 0 at all
# pixels which that output does not see.

# %%
s = runs.settings(pix2pix.SETTINGS, {}, pix2pix.CHOICES)   # the defaults
d = pix2pix.PatchDiscriminator(kernels.load("numpy", np.float64), s, 4, np.random.default_rng(0))
both = np.random.default_rng(1).standard_normal((1, 32, 32, 7))      # a map and a photo
logits, features = d.forward(both)                         # logits (1, 8, 8, 1)
one = np.zeros(logits.shape)
one[0, 4, 4] = 1
seen = np.abs(d.input_grad(one, features)).sum((0, 2, 3))  # (32,), of each row of pixels
rows = np.flatnonzero(seen > 1e-9)                         # rounding leaves 1e-17 elsewhere
print(logits.shape, "one logit sees the rows", rows[0], "to", rows[-1], "=", len(rows))
assert len(rows) == 18

# %% [markdown]
# So each of its 64 outputs judges a patch of 18x18 pixels: is this piece of photo real, and does it
# fit its piece of map? That is why it is called a *patch discriminator*.
#
# ## A U-Net
#
# The generator must see far, and yet give a photo of full size. So four convolutions of stride 2
# halve the sides, down to 2x2, and four transposed ones double them again. In the middle, each of
# the 2x2 pixels sees 46 pixels in a row: of our 32, all but the one at the far border.
#
# But then the exact place of an edge has to pass through 2x2 pixels. A *U-Net* (Ronneberger et al.
# 2015) gives it a shortcut: each layer on the way up also gets the output of the layer down that
# has its size. This is a *skip connection*. Both are put side by side along the channels, by
# `concat`.

# %%
print(inspect.getsource(unet.UNet.forward))

# %% [markdown]
# ## The gradient of something used twice
#
# Here is the smallest U-Net: one layer down, one up, and a skip connection. To see the gradients
# clearly, we leave out biases and activations.

# %%
def small_unet(a, w2, w3):
    """a (B, H, W, C1) -> y (B, H, W, C3 + C1)."""
    b = conv(a, w2, 2, 1)                                # (B, H / 2, W / 2, C2)
    c = conv_input_grad(b, w3, (*a.shape[:3], w3.shape[2]), 2, 1)    # (B, H, W, C3)
    return concat([c, a])

rng = np.random.default_rng(2)
a = rng.standard_normal((2, 8, 8, 3))
w2, w3 = rng.standard_normal((4, 4, 3, 5)), rng.standard_normal((4, 4, 2, 5))
print(small_unet(a, w2, w3).shape)

# %% [markdown]
# The array $a$ goes two ways: into the convolution, and past it. If $a$ changes a little, the loss
# changes along both ways. So the two gradients are added. The gradient of `concat` is simple: it
# cuts $dy$ into the channels of its parts. In the project this is the operation `split`.

# %% [markdown]
# ### Exercise 17.3: both ways back
#
# *Difficulty 2 of 3 · 15 minutes · Good for: every network with more than one path.*
#
# Return the gradient of `a` in `small_unet`. You may use `conv`, `conv_input_grad` and slices. (The
# gradient of a transposed convolution is a convolution:
# [notebook 5](05_transposed_convolution.ipynb).)

# %%
def small_unet_grad(dy, w2, w3):
    """dy (B, H, W, C3 + C1) -> da (B, H, W, C1). w2 (4, 4, C1, C2), w3 (4, 4, C3, C2)."""
    ### BEGIN SOLUTION
    c3 = w3.shape[2]
    dc, dskip = dy[..., :c3], dy[..., c3:]
    db = conv(dc, w3, 2, 1)
    return conv_input_grad(db, w2, dskip.shape, 2, 1) + dskip
    ### END SOLUTION

# %%
check("17.3", small_unet_grad);

# %% [markdown]
# The project does the same with its operations. As always, the numbers decide
# ([notebook 3](03_checking_gradients.ipynb)):

# %%
dy = rng.standard_normal((2, 8, 8, 5))
dc, dskip = split(dy, [2, 3])
da = add(conv_input_grad(conv(dc, w3, 2, 1), w2, a.shape, 2, 1), dskip)
directional_check(lambda: (dy * small_unet(a, w2, w3)).sum(), [a], [da], rng)
assert np.array_equal(dskip, dy[..., 2:]) and da.shape == a.shape
print("the gradient is right")

# %% [markdown]
# ## What the generator is punished for
#
# The first loss is the error: the mean of $|\text{fake} - \text{photo}|$ over all photos of the
# batch, all pixels and all channels. It has a weakness wherever the map does not tell everything.
# Say that one pixel is dark, 0, in 40 % of the photos with this map, and bright, 1, in the others.
# Which value costs least?

# %%
c = np.linspace(0, 1, 101)
cost = {"mean |x - c|": 0.4 * c + 0.6 * (1 - c),
        "mean (x - c)²": 0.4 * c ** 2 + 0.6 * (1 - c) ** 2}
for name, values in cost.items():
    plt.plot(c, values, label=f"{name}: best c = {c[values.argmin()]:.1f}")
plt.gcf().set_size_inches(5, 2.4)
plt.xlabel("the pixel that the generator draws, c"), plt.legend(loc="upper right")
plt.show()

# %% [markdown]
# Squares give a grey that no photo has. The absolute error gives the more frequent of the two, each
# time, so a texture becomes a flat surface. Neither looks real, and the discriminator can see that.
# So pix2pix adds a second loss, with a small weight: the cross-entropy of what D says about the map
# and the generated photo, with 1, "real", as the target. Its gradient `dpair` has the shape of all
# that D has seen, map and photo side by side. The map cannot change. So only the part of the photo
# counts.

# %% [markdown]
# ### Exercise 17.4: the gradient of the photo
#
# *Difficulty 2 of 3 · 10 minutes · Good for: losses that come from two sides.*
#
# Return the gradient of the sum of both losses with respect to the generated photos. `dpair` has
# D's weight in it already; the error has the weight 1.

# %%
def gradient_of_fake(fake, photo, dpair):
    """fake, photo (B, H, W, 3), dpair (B, H, W, K + 3): map and photo. Returns (B, H, W, 3)."""
    ### BEGIN SOLUTION
    return np.sign(fake - photo) / fake.size + dpair[..., -3:]
    ### END SOLUTION

# %%
check("17.4", gradient_of_fake);

# %% [markdown]
# In the project, the error is the loss `feature_matching` in its "paired" form. It adds the
# gradient from elsewhere by itself:

# %%
fake, photo = rng.standard_normal((2, 2, 4, 4, 3))
dpair = rng.standard_normal((2, 4, 4, 7))
_, dfake = feature_matching(photo, fake, "paired", split(dpair, [4, 3])[1])
assert np.allclose(dfake, np.sign(fake - photo) / fake.size + dpair[..., 4:])
print(inspect.getsource(pix2pix.Trainer.generator_loss))

# %% [markdown]
# ## Training
#
# Now all of it. The networks are half as wide as the project's defaults, and 300 steps take some
# seconds. Each step draws 8 pairs.

# %%
s = runs.settings(pix2pix.SETTINGS, dict(steps=300, filters=[16, 32, 64, 128],
                                         patch_filters=[16, 32]), pix2pix.CHOICES)
trainer = pix2pix.Trainer(kernels.load("numpy"), s, training)
curve = []
for _ in range(s.steps):
    trainer.train_step()
    curve.append(float(trainer.losses[1]))          # the error, of 8 training pairs

# %% tags=["varies"]
made = pix2pix.translate(trainer.generator, held_out.maps, palette)     # (80, 32, 32, 3) uint8
learnt = np.abs(made / 127.5 - held_out.photos / 127.5).mean()
print(f"error on held-out pairs: {learnt:.3f}, with one colour for each class: {error:.3f}")
plt.gcf().set_size_inches(5, 2.4)
plt.plot(curve), plt.axhline(error, color="grey", ls=":")
plt.xlabel("step"), plt.ylabel("error"), plt.ylim(0, 0.4)
plt.show()
assert learnt < 0.5 * error

# %%
show(np.concatenate([palette[held_out.maps[:8]], made[:8], held_out.photos[:8]]))

# %% [markdown]
# Above the maps, in the middle what the network makes of them, below the photos. Balls shine,
# shadows fall the right way, tiles have joints. Small bricks are blurred after so few steps. The
# mottling is random, so no network can have an error of 0.
#
# ## Dreaming
#
# And now maps that nobody drew. The generator that comes with the program (notebooks
# [1](01_quick_look.ipynb) and [16](16_latent_space_and_your_maps.ipynb)) draws them from random
# vectors, and our network turns them into photos.

# %%
generator, _ = app.run_folder.load_generator(device="numpy")
z = np.random.default_rng(0).standard_normal((64, generator.s.latent))
drawn = generator.sample(z)                          # (64, 32, 32) class ids
dreams = pix2pix.translate(trainer.generator, drawn, palette)
show(np.concatenate([palette[drawn[:8]], dreams[:8]]))

# %%
walk = app.commands.slerp(z[0], z[4], 8)             # notebook 16
maps = generator.sample(walk)
show(np.concatenate([palette[maps], pix2pix.translate(trainer.generator, maps, palette)]))

# %% [markdown]
# The second picture is a walk through the latent space. Light and shadow follow the shapes. What is
# wrong in a map is wrong in the photo too: the network never asks whether there can be such a ball.
#
# ## Do the dreams show what their maps say?
#
# A dream looks good. But is the ball where the map has it? The idea of Isola et al. (section 4.1):
# let a program that knows *photos* find the classes again, and compare its map with the one that
# the dream was made of. If dreams are like photos, it should do as well on them as on real photos.
#
# Two maps are compared class by class. The *intersection* is the number of pixels that have the
# class in both maps, the *union* the number of those that have it in at least one. Intersection
# over union, *IoU*, is 1 if the two agree, and 0 if they do not overlap. The mean over the classes
# is the *mean IoU*. In it a small class counts as much as the ground, which covers most of a map.

# %% [markdown]
# ### Exercise 17.5: mean IoU
#
# *Difficulty 2 of 3 · 15 minutes · Good for: every paper about segmentation.*
#
# Compute it over all pixels of all maps together. A class that occurs in neither set does not
# count. One that occurs in only one of them has the IoU 0.

# %%
def my_mean_iou(found, real, classes):
    """found, real (N, H, W) class ids. Returns a number from 0 to 1."""
    ### BEGIN SOLUTION
    ious = []
    for k in range(classes):
        both = ((found == k) & (real == k)).sum()
        either = ((found == k) | (real == k)).sum()
        if either:
            ious.append(both / either)
    return np.mean(ious)
    ### END SOLUTION

# %%
check("17.5", my_mean_iou);

# %% [markdown]
# As the program that knows photos, we take the simplest one: each pixel has the class whose mean
# colour is nearest. (The project trains another U-Net for this, from photos to maps.) Two controls
# show the range. The real photos say how well this program can do. And each photo with the map of
# *another* photo says how much agreement there is by chance.

# %% tags=["varies"]
def nearest_class(photos):
    """(N, H, W, 3) -> class ids (N, H, W)."""
    return ((photos[..., None, :] - colors) ** 2).sum(-1).argmin(-1)

others = np.roll(held_out.maps, 1, 0)
for name, photos, maps in (("real photos", held_out.photos, held_out.maps),
                           ("photos of held-out maps", made, held_out.maps),
                           ("dreams of generated maps", dreams, drawn),
                           ("real photos, maps of others", held_out.photos, others)):
    agreement = metrics.mean_iou(nearest_class(photos), maps, 4)
    print(f"{name}: mean IoU {agreement:.2f}")

# %% [markdown]
# The dreams are far above chance, so they do show what their maps say. Dreams of generated maps are
# no worse than photos of held-out maps: to the network, both are new. But neither comes up to the
# real photos. The classes one by one say where it is lost:

# %% tags=["varies"]
for name, photos in ("real photos", held_out.photos), ("photos of held-out maps", made):
    found, real = nearest_class(photos), held_out.maps
    both = np.array([((found == k) & (real == k)).sum() for k in range(4)])
    either = np.array([((found == k) | (real == k)).sum() for k in range(4)])
    print(name, *(f"{each}: {iou:.2f}" for each, iou in zip(every.names, both / either)))
    assert np.isclose((both / either).mean(), metrics.mean_iou(found, real, 4))

# %% [markdown]
# Squares and circles lose most, and the rectangle is hard even in real photos: going by mean
# colours, this program takes its darker stripes for something else. With 583 pairs, 3000 steps,
# wider networks and a trained segmenter, the project finds 0.93 for dreams and 0.96 for real
# photos.
#
# And what did the discriminator do? For painted shapes almost nothing: with a weight of 0 in place
# of 0.01, error and mean IoU come out the same. Here the map tells nearly everything, but for the
# mottling. It matters where a map leaves much open, as a street does.
#
# ## Street scenes
#
# This is what the same code makes of a real data set, with photos of streets. It took minutes on a
# GPU. Above are maps that SemGAN drew, and photos made of them. Below are those of the GAN, whose
# colours often belong to no class.
#
# ![maps and photos](../docs/dreams_streets.png)
#
# [The page on photos](../docs/dreams.md) measures them, and asks whether dreams help to train a
# segmenter that has seen few photos. They do. But pix2pix itself had seen all of them.
#
# ## Summary
#
# - pix2pix learns from pairs of map and photo. It has to beat one colour for each class, on pairs
#   it has not seen.
# - A stack of layers sees $(r - 1)\, s + k$ pixels, layer by layer from the last to the first. A
#   U-Net sees far, and skip connections carry exact places past its narrow middle.
# - Where data fork, gradients are added. The gradient of `concat` is `split`.
# - The absolute error alone gives flat surfaces where the map leaves the photo open. A patch
#   discriminator is there to punish that.
# - Mean IoU of what a program sees in the dreams tells whether they show their maps. It needs
#   controls: real photos, and maps of others.
#
# **In the paper:** [section 6.1](https://arxiv.org/abs/1906.12195) and Figure 8. **In the
# project:** [`UNet`](../experiments/unet.py#UNet), [`PatchDiscriminator` and
# `Trainer`](../experiments/pix2pix.py#PatchDiscriminator),
# [`paint`](../experiments/painter.py#paint). `python -m experiments.pix2pix train` trains the wide
# networks in some minutes, and `dream` writes pairs that can train others.
#
# **Next:** the [bonus notebook](18_fast_convolution.ipynb), if you wonder how large kernels can be
# so fast on a CPU.
