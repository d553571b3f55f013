# %% [markdown]
# # 1. A quick look: what does it do?
#
# This project draws label maps: images in which every pixel has a class. Nobody tells it how. Two
# networks learn from examples, one against the other, with nothing but NumPy. Such a pair is called
# a *generative adversarial network*, or GAN. This one follows
# [a paper of 2019](https://arxiv.org/abs/1906.12195), which calls it SemGAN. In this notebook you
# train it, in about a minute, and watch the first shapes appear. How each part works is the subject
# of the other notebooks. Here you see what goes in and what comes out.
#
# You need: NumPy arrays. Time: about 50 minutes, of which 30 are exercises.
#
# **How to work with these notebooks.** Run the cells from top to bottom (Shift + Enter). Each
# exercise has a cell with a gap: write your answer there, run it, and then run the cell below. It
# says in one line whether you are right, or what the mistake is. If that does not help, run that
# cell again: it gives a first hint, then a second one, and at last the place of a solution. No
# later cell needs your answers.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import inspect
import matplotlib.pyplot as plt
import numpy as np
import data, kernels, metrics, semgan
from app.run_folder import load_generator
from tutorial.checks import check, show

# %% [markdown]
# ## The examples
#
# The paper's toy data set, Colored Shapes, at 16 x 16 pixels: a green rectangle, a red square of
# 2 x 2 pixels, a blue circle. The circle may cover the others, and the square may cover the
# rectangle. There is one map for each of 14 x 14 places of the square; the other two shapes stand
# at random places.

# %%
dataset = data.colored_shapes(side=16)
print(dataset.maps.shape, dataset.maps.dtype)  # (maps, height, width), one class id per pixel
print(dataset.names)
show(dataset.maps[::13], columns=8)

# %% [markdown]
# ### Exercise 1.1: how many maps are there?
#
# *Difficulty 2 of 3 · 10 minutes · Good for: seeing that learning by heart would not be enough.*
#
# The data set holds 196 maps. How many could there be? Count the places of each shape on a map of
# `side` x `side` pixels. Each shape must lie inside the map. The rectangle is `height` pixels high
# and `width` wide. The circle has a pixel as its centre and reaches `radius` pixels further in each
# direction. The square is `square` pixels wide. It may stand at `side - square` places in each
# direction: this is how the paper counts, and leaves out the last one. (Some of these maps are
# equal, where a shape is covered. Count each of them all the same.)

# %%
def possible_maps(side, square, radius, height, width):
    """The number of ways to place a square, a circle and a rectangle on a map."""
    squares = (side - square) ** 2
    ### BEGIN SOLUTION
    circles = (side - 2 * radius) ** 2
    rectangles = (side - height + 1) * (side - width + 1)
    return squares * circles * rectangles
    ### END SOLUTION

# %%
check("1.1", possible_maps);

# %% [markdown]
# For our maps there are more than four million. A network that has only learnt the 196 examples by
# heart knows hardly any of them.

# %% [markdown]
# ## Two networks
#
# The *generator* G turns 100 random numbers, the latent vector z, into a map. The *discriminator* D
# looks at a map and says how sure it is that the map is real, an example, and not one of G's. D
# learns from maps of both kinds. G learns to make maps in which D finds what it finds in real ones.
# The settings say how large the networks are and how they learn. Our networks are small, so that a
# laptop trains them in a minute.

# %%
s = semgan.settings(
    side=16, steps=1500, kernel_size=7, generator_filters=[64, 32, 16],
    discriminator_filters=[16, 32], learning_rate=1e-3, discriminator_learning_rate=2e-4,
    feature_matching="unbiased", moment_matching=0.1)  # notebook 8 explains these two
trainer = semgan.Trainer(kernels.load("numpy"), s, dataset)
g, d = trainer.generator, trainer.discriminator
for name, net in ("generator", g), ("discriminator", d):
    print(name, {key: p.shape for key, p in net.params.items()}, sep="\n  ")

# %% [markdown]
# These arrays hold the *parameters*: the numbers that training changes, and all that a network
# knows. `w` are weights, `b` biases; `gamma` and `beta` belong to batch norm (notebook 7).
#
# G starts with a dense layer. Its 1024 outputs become a map of 4 x 4 pixels, with 64 numbers, the
# *channels*, at each pixel. Each transposed convolution (`deconv`, notebook 5) then multiplies the
# sides by its *stride*, here 2. Let us send two latent vectors through G and look at the shapes,
# where B is the number of maps:

# %%
rng = np.random.default_rng(0)
z = rng.standard_normal((2, s.latent))  # (B, latent)
maps, kept = g.forward(z.astype(np.float32), training=False)
print("dense layer:", kept.hidden.shape, "as maps:", kept.layers[0].x.shape)
for i, layer in enumerate(kept.layers, 1):
    print(f"deconv{i}:", layer.x.shape, "->", layer.y.shape)
print("conv and softmax:", kept.x.shape, "->", maps.shape)

# %% [markdown]
# ### Exercise 1.2: shapes through the generator
#
# *Difficulty 1 of 3 · 5 minutes · Good for: reading any network, where shapes come first.*
#
# G starts with maps of side `base`. Return the list of all sides on the way, the first included.

# %%
def sides(base, strides):
    """All sides: base, and then one for each stride. sides(4, [2, 2]) has three entries."""
    ### BEGIN SOLUTION
    result = [base]
    for stride in strides:
        result.append(result[-1] * stride)
    return result
    ### END SOLUTION

# %%
check("1.2", sides);

# %% [markdown]
# ### Exercise 1.3: how many numbers can it learn?
#
# *Difficulty 1 of 3 · 5 minutes · Good for: seeing at once which layer of a network is large.*
#
# A transposed convolution has a *kernel* of `k` x `k` weights for each pair of an input channel and
# an output channel. Then comes batch norm. It has `gamma` and `beta`, one of each for every output
# channel. How many parameters are these together? (Look at `deconv1` above.)

# %%
def parameters(k, cin, cout):
    """The number of parameters of a transposed convolution with batch norm."""
    ### BEGIN SOLUTION
    return k * k * cin * cout + 2 * cout
    ### END SOLUTION

# %%
check("1.3", parameters);

# %% [markdown]
# There is no bias: batch norm subtracts each channel's mean, and a bias would vanish with it. We
# count all of G in the same way, and compare with the arrays:

# %%
counts = {"dense": 100 * 1024 + 1024,
          "deconv1": 7 * 7 * 64 * 32 + 2 * 32,
          "deconv2": 7 * 7 * 32 * 16 + 2 * 16,
          "conv": 7 * 7 * 16 * 4 + 4}
total = sum(p.size for p in semgan.Generator(g.ops, s, 4, rng).params.values())
assert sum(counts.values()) == total
print(counts, "together", total)

# %% [markdown]
# ## Before training
#
# The last layer of G gives each pixel four probabilities, one for each of the K = 4 classes. The
# label map takes the class with the largest one: `argmax`. Here are 16 maps of a G that has learnt
# nothing yet.

# %%
z = rng.standard_normal((16, s.latent))  # always the same 16 from now on
probabilities, _ = g.forward(z.astype(np.float32), training=False)  # (B, H, W, K)
before = g.sample(z)
assert np.array_equal(before, probabilities.argmax(-1))
print(probabilities.shape, "->", before.shape)
show(before, columns=8)

# %% [markdown]
# ## One training step
#
# This is a whole step, in the project's own code. First D learns to tell real maps from generated
# ones, then G learns from the new D. Notebook 9 does it by hand.

# %%
print(inspect.getsource(semgan.Trainer.operations))

# %% [markdown]
# How well does D do? Its loss is the mean of $-\log p$ over all maps, where $p$ is the probability
# that D gives to the right answer, "real" or "generated". (The logarithm is the natural one.) If D
# is always right and sure, then $p = 1$ and the loss is 0.

# %% [markdown]
# ### Exercise 1.4: a guess
#
# *Difficulty 1 of 3 · 5 minutes · Good for: reading the curve of D's loss below.*
#
# What is the loss of a D that can only guess, and gives both answers the probability 1/2? Write it
# with `np.log`.

# %%
loss_of_a_guess = ...
### BEGIN SOLUTION
loss_of_a_guess = -np.log(1 / 2)
### END SOLUTION

# %%
check("1.4", loss_of_a_guess);

# %% [markdown]
# ## Training
#
# Now we train: 300 steps first, with 32 real and 32 generated maps in each. We keep D's loss in
# every step. From time to time we also keep *samples*: the maps that G makes of our 16 vectors.

# %%
losses, samples = [], {0: before}

def train(until, keep):
    while trainer.step < until:
        trainer.train_step()
        losses.append(float(trainer.losses[0]))
        if trainer.step in keep:
            samples[trainer.step] = g.sample(z)
    print(f"{trainer.step} steps, D's loss {losses[-1]:.3f}")

# %% tags=["varies"]
train(300, keep=(50, 100, 200, 300))
show(samples[300], columns=8)

# %% [markdown]
# These are the first samples of your own generator. Something is there, but no shape yet. (What you
# see may differ from what we write: each machine rounds in its own way, and training makes small
# differences large.) We go on to 900 steps:

# %% tags=["varies"]
train(900, keep=(600, 900))
show(samples[900], columns=8)

# %% [markdown]
# And to 1500 steps. Then we put all samples together. Each column is one latent vector, each row
# one moment: 0, 50, 100, 200, 300, 600, 900 and 1500 steps.

# %% tags=["varies"]
train(1500, keep=(1500,))
show(np.concatenate([maps[:10] for maps in samples.values()]), columns=10)

# %% [markdown]
# From top to bottom: at first noise, then single pixels on white, then small heaps of them, and at
# last something like circles and rectangles, with a few red pixels where squares should be. The map
# of a latent vector never comes to rest, because both networks keep learning.

# %% tags=["varies"]
smooth = np.convolve(losses, np.ones(25) / 25, "valid")  # the mean of 25 steps
plt.figure(figsize=(6.2, 2.8))
plt.plot(np.arange(len(smooth)) + 13, smooth, "b", label="D, mean of 25 steps")
plt.axhline(np.log(2), color="k", ls="--", label="D can only guess")
plt.xlabel("step"), plt.ylabel("loss"), plt.ylim(0), plt.legend()
plt.show()

# %% [markdown]
# D's loss soon lies far below that of a guess: D sees the difference, and so G has something to
# learn from. But the curve does not say how good the maps are. It rises when G gets better, and
# also when D gets worse. So in a GAN you must look at the samples, or measure them.

# %% [markdown]
# ## How good are they?
#
# The project's measure for Colored Shapes asks how well each map's circle, rectangle and square fit
# their ideal shapes. The *overlap* is the number of pixels in both, divided by the number in at
# least one of them: 1 is perfect, 0 is none. The ideal is tried at every place, and the best place
# counts. Where other shapes cover the ideal, we compare only its visible part. A place with less
# than half of it visible does not count. So we get three numbers for each map.

# %%
overlaps = metrics.shape_overlaps(dataset.maps)  # (N, 3): circle, rectangle, square
some = [0, 34, 49, 65]
print(overlaps[some].round(2))
show(dataset.maps[some])

# %% [markdown]
# Even real maps can have less than 1. In the second of these maps the circle hides the whole
# square. In the third and fourth it hides more than half of the rectangle, so that the right place
# does not count, and what is left is compared with the ideal at a wrong one.

# %% [markdown]
# ### Exercise 1.5: the share of good maps
#
# *Difficulty 2 of 3 · 5 minutes · Good for: the number by which we judge a generator.*
#
# A map is good if all three of its overlaps are `least` or more. What share of the maps is good?

# %%
def good_share(overlaps, least):
    """overlaps (N, 3) -> a number from 0 to 1."""
    ### BEGIN SOLUTION
    return (overlaps >= least).all(1).mean()
    ### END SOLUTION

# %%
check("1.5", good_share);

# %% [markdown]
# Now map by map, and by the project's function. That asks one thing more: each shape must fit its
# ideal better than a *counterpart*, a shape of the same area with other corners. For the circle
# this is a square; for the rectangle it is an ellipse, and for the square a disc. (Otherwise, on 32
# x 32 pixels, a square of 9 x 9 would pass for the circle: they overlap by 0.91.) A perfect overlap
# of 1 always passes. For our real maps both ways count the same:

# %%
good = 0
for circle, rectangle, square in overlaps:
    good += circle >= 0.75 and rectangle >= 0.75 and square >= 0.75
others = metrics.shape_overlaps(dataset.maps, counterparts=True)
assert np.isclose(good / len(overlaps), metrics.shape_share(overlaps, others))
print(f"{good} of {len(overlaps)} real maps show three good shapes")

# %% [markdown]
# And our generator? We draw 400 new maps. The table has the share of good maps, by the three
# overlaps alone, and the median overlaps of circle, rectangle and square. (Here we leave out the
# counterparts: 16 x 16 pixels are too few for them. The ellipse and the disc have the very same
# pixels as the rectangle and the square.)

# %% tags=["varies"]
new = g.sample(rng.standard_normal((400, s.latent)))
for name, these in ("real", dataset.maps), ("generated", new), ("before", before):
    found = metrics.shape_overlaps(these)
    share, medians = (found >= 0.75).all(1).mean(), np.median(found, axis=0)
    print(f"{name:9}  good maps {share:.2f}  median overlaps", *medians.round(2))

# %% [markdown]
# A minute of training gives parts of shapes, and hardly a map with three good ones. In our runs
# three things helped: more steps, larger networks, and more examples. The project's preset `small`
# has all three: 5000 steps, a generator with six times as many parameters, and 2916 maps, of 32 x
# 32 pixels. It takes minutes on two cores. [The settings](../docs/settings.md) say what came of it.

# %% [markdown]
# ## A generator that comes with the project
#
# You need not wait for that: `load_generator` loads a generator that the preset `small` has
# trained. Here are 16 of its samples. Some shapes are still ragged or frayed, but most of the maps
# have all three. No two random latent vectors are equal, so you can draw as many new maps as you
# like.

# %% tags=["varies"]
trained, palette = load_generator(device="numpy")
z0 = np.random.default_rng(1).standard_normal((16, trained.s.latent))
show(trained.sample(z0), palette, columns=8)

# %% [markdown]
# And we can walk from one latent vector to another in a straight line, in seven equal steps. The
# map changes bit by bit. So G has not learnt a list of maps. It has learnt a function of z.

# %% tags=["varies"]
t = np.linspace(0, 1, 8)[:, None]           # (8, 1)
walk = (1 - t) * z0[0] + t * z0[1]          # (8, latent)
show(trained.sample(walk), palette, columns=8)

# %% [markdown]
# ## The same run again
#
# All random numbers of a training come from the setting `seed`: the weights at the start, the
# latent vectors, the choice of maps. On one machine the same settings give the same run, to the
# last bit. So when something goes wrong, you can run it again and look closer. Another seed gives
# another run.

# %%
def run(seed):
    again = semgan.settings(**{**vars(s), "seed": seed})
    other = semgan.Trainer(kernels.load("numpy"), again, dataset)
    for _ in range(3):
        other.train_step()
    return other.losses.copy()

assert np.array_equal(run(seed=0), run(seed=0))
assert not np.array_equal(run(seed=0), run(seed=1))

# %% [markdown]
# ## Summary
#
# - G turns a latent vector into probabilities for each pixel; `argmax` makes a label map of them.
# - D tells real maps from generated ones. A D that can only guess has the loss $\log 2$.
# - A step trains D, then G. After a minute the first shapes appear. To know how good they are, look
#   at them and measure them.
#
# **In the paper:** [figure 1 and section 3.2](https://arxiv.org/abs/1906.12195). **In the
# project:** all of it is [semgan.py](../semgan.py): [`settings`](../semgan.py#settings),
# [`Generator`](../semgan.py#Generator), [`Discriminator`](../semgan.py#Discriminator),
# [`Trainer`](../semgan.py#Trainer). To train without a notebook: `python semgan.py --preset small`.
#
# **Next:** what the numbers in a map are, and why the generator does not simply draw colours, in
# [notebook 2](02_label_maps.ipynb). Then [notebook 3](03_checking_gradients.ipynb) builds a tool
# for checking gradients, notebooks 4 to 8 take the parts one by one, and notebook 9 puts them
# together again.
