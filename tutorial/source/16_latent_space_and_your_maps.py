# %% [markdown]
# # 16. Latent space and your maps: what lies between two maps, and how do I train on mine?
#
# A trained generator turns any latent vector into a map. Vectors that are close to each other give
# similar maps. So we can walk from one map to another, and look at what lies between. Which way
# should we go? The first half of this notebook is about that.
#
# In the second half we leave Colored Shapes. We write label maps of our own to a file, read them
# with the project's loader, and train on them. Most of what can go wrong there goes wrong when maps
# are resized: a careless program invents classes that nobody drew.
#
# You need: label maps and palettes ([notebook 2](02_label_maps.ipynb)), angles and norms of
# vectors. Time: about 95 minutes, of which 55 are exercises. If an exercise does not work out, run
# its check again: each time it helps more.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import inspect, io, os, tempfile, textwrap, zipfile
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
import app.commands, app.run_folder, formats.images, formats.palettes, kernels, semgan
from data import colored_shapes, load
from image_metrics import sliced_wasserstein
from tutorial.checks import check, show

# %% [markdown]
# ## A trained generator
#
# Training a generator takes minutes, so the project brings one along. It draws Colored Shapes of
# 32x32 pixels from latent vectors of 32 numbers. These numbers are normally distributed, with mean
# 0 and variance 1, as in training.

# %%
generator, palette = app.run_folder.load_generator(device="numpy")
n = generator.s.latent                     # 32 numbers in a latent vector
rng = np.random.default_rng(0)
z = rng.standard_normal((64, n))
samples = generator.sample(z)              # (64, 32, 32) class ids
show(samples[:16], palette)

# %% [markdown]
# Most maps have good shapes, some have specks, and some lack a shape. `sample` takes the most
# probable class of each pixel. For batch norm it uses the running statistics
# ([notebook 7](07_batch_norm.ipynb)), so a map does not depend on the others of its batch.

# %%
print(inspect.getsource(semgan.Generator.outputs), inspect.getsource(semgan.Generator.sample))

# %%
probabilities, _ = generator.forward(generator.ops.asarray(z[:4]), training=False)  # (4, 32, 32, 4)
assert np.array_equal(generator.ops.asnumpy(probabilities).argmax(-1), generator.sample(z)[:4])
assert np.array_equal(generator.sample(z[2:3])[0], samples[2])     # alone or with others

# %% [markdown]
# ## Almost all vectors have the same length
#
# How long is a latent vector $z$ of $n$ numbers? Its squared length is $z_1^2 + \dots + z_n^2$.
# Each $z_i^2$ has mean 1 and variance 2. So the sum has mean $n$ and variance $2 n$: it is about
# $n \pm \sqrt{2 n}$. A small change $e$ of a square $r^2$ changes $r$ by $e / (2 r)$. Here $r$ is
# about $\sqrt{n}$. So the length is about
#
# $$\sqrt{n} \pm \frac{\sqrt{2 n}}{2 \sqrt{n}} = \sqrt{n} \pm 0.7$$
#
# The spread of 0.7 is about the same for all $n$. With many dimensions it is small compared with
# $\sqrt{n}$. So almost all vectors lie near the surface of a ball, a *sphere*, and the inside of
# the ball is nearly empty.

# %%
_, axis = plt.subplots(figsize=(6, 2.6))
for dimensions in 2, 32, 300:
    lengths = np.linalg.norm(rng.standard_normal((20_000, dimensions)), axis=1)
    axis.hist(lengths, np.arange(0, 20.1, 0.2), density=True, histtype="step",
              label=f"n = {dimensions}")
    print(f"n = {dimensions}: mean length {lengths.mean():.2f}, root of n {dimensions ** 0.5:.2f}, "
          f"spread {lengths.std():.2f}")
axis.set(xlabel="length of a vector", ylabel="density"), axis.legend()
plt.show()

# %% [markdown]
# ## The straight way
#
# The simplest way from $a$ to $b$ is a straight line, *linear interpolation* or *lerp*:
#
# $$p(t) = (1 - t)\, a + t\, b, \qquad 0 \le t \le 1$$
#
# How long is $p(t)$? Multiply out its square:
#
# $$|p(t)|^2 = (1 - t)^2 |a|^2 + t^2 |b|^2 + 2 t (1 - t)\, a \cdot b$$
#
# Both squared lengths are about $n$. And $a \cdot b$ is a sum of $n$ products, each with mean 0 and
# variance 1. So it is about $0 \pm \sqrt{n}$, which is small compared with $n$. This means that two
# random vectors are almost at right angles to each other.

# %% [markdown]
# ### Exercise 16.1: how long is the middle?
#
# *Difficulty 1 of 3 · 10 minutes · Good for: feeling at home in many dimensions.*
#
# Return how long $p(t)$ is, roughly, for random vectors of n numbers. Leave out what is small. `t`
# is a number or an array.

# %%
def length_on_the_line(t, n):
    """About |(1 - t) a + t b|, for random a and b of n numbers."""
    ### BEGIN SOLUTION
    return np.sqrt(n * ((1 - t) ** 2 + t ** 2))
    ### END SOLUTION

# %%
check("16.1", length_on_the_line);

# %% [markdown]
# In the middle this is $\sqrt{n / 2}$, only 71 percent of the usual length. The straight line cuts
# through the empty inside of the ball. With 32 numbers the middle has the length 4. How many random
# vectors are as short as that?

# %%
lengths = np.linalg.norm(rng.standard_normal((200_000, n)), axis=1)
print(f"{(lengths <= 4).mean():.2%} of all vectors are not longer than 4")

# %% [markdown]
# ## Along the sphere
#
# Instead we can go along the sphere: *spherical interpolation*, or *slerp* (Shoemake 1985). Let $a$
# and $b$ have the same length, and let $\theta$ be the angle between them. In the plane of $a$ and
# $b$, find the vector $c$ that is at right angles to $a$, has the same length, and lies on the side
# of $b$. Then $b$ is made of $a$ and $c$:
#
# $$b = a \cos \theta + c \sin \theta, \qquad \text{so} \qquad
# c = \frac{b - a \cos \theta}{\sin \theta}$$
#
# To walk along the circle, turn $a$ by the angle $t \theta$:
#
# $$p(t) = a \cos t \theta + c \sin t \theta
# = \frac{a\, (\sin \theta \cos t \theta - \cos \theta \sin t \theta) + b \sin t \theta}
# {\sin \theta}$$
#
# In the parentheses stands the sine of a difference of angles, $\theta - t \theta$:
#
# $$p(t) = \frac{\sin((1 - t)\, \theta)\, a + \sin(t\, \theta)\, b}{\sin \theta}$$
#
# If the lengths of $a$ and $b$ differ, the same formula goes smoothly from the one to the other.

# %% [markdown]
# ### Exercise 16.2: slerp
#
# *Difficulty 2 of 3 · 20 minutes · Good for: two traps of floating-point numbers.*
#
# Return `frames` points of the walk, for $t = 0, 1/f, 2/f, \dots$ without $t = 1$, where $f$ is
# `frames`. (So the walk can go on from `b` to the next vector.) The angle comes from
# $\cos \theta = a \cdot b / (|a|\, |b|)$. If it is 0, the formula gives 0 / 0, though the way is
# clear: straight. If $a$ and $b$ point in opposite directions, there is no single plane to walk in.
# In both cases, that is if $\sin \theta < 10^{-6}$, go straight.

# %%
def my_slerp(a, b, frames):
    """(frames, n): the walk from a towards b along the sphere, without b itself."""
    t = np.arange(frames)[:, None] / frames  # (frames, 1)
    ### BEGIN SOLUTION
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    angle = np.arccos(np.clip(cosine, -1, 1))  # rounding can give 1.0000000000000002
    if np.sin(angle) < 1e-6:
        return (1 - t) * a + t * b
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    ### END SOLUTION

# %%
check("16.2", my_slerp);

# %%
print(inspect.getsource(app.commands.slerp))

# %%
a, b = np.random.default_rng(1).standard_normal((2, n))
frames, t = 40, np.arange(40)[:, None] / 40                 # (frames, 1)
straight, along = (1 - t) * a + t * b, app.commands.slerp(a, b, frames)  # (frames, n) each
angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
c = (b / np.linalg.norm(b) - a / np.linalg.norm(a) * np.cos(angle)) / np.sin(angle)
unit = a / np.linalg.norm(a)
circle = np.cos(t * angle) * unit + np.sin(t * angle) * c   # for vectors of length 1
assert np.allclose(app.commands.slerp(unit, b / np.linalg.norm(b), frames), circle)
print(f"angle between a and b: {np.degrees(angle):.0f} degrees")

# %%
_, (left, right) = plt.subplots(1, 2, figsize=(6.2, 2.5), layout="constrained")
for walk, name in (straight, "straight"), (along, "along the sphere"):
    length = np.linalg.norm(walk, axis=1)
    left.plot(t, length, label=name)
    right.plot(t, np.degrees(np.arccos((walk @ unit / length).clip(-1, 1))))
left.axhline(n ** 0.5, color="grey", ls=":")
left.set(xlabel="t", ylabel="length", ylim=(0, 8)), left.legend(loc="lower left", fontsize=8)
right.set(xlabel="t", ylabel="angle from a, in degrees")
plt.show()

# %% [markdown]
# The dotted line is $\sqrt{n}$. Along the sphere, the length goes smoothly from that of $a$ to that
# of $b$, and the direction turns almost evenly (evenly if $a$ and $b$ have the same length). On the
# straight line, vectors are shorter in the middle, and the direction turns fastest there.
#
# Here are both walks as maps: above the straight one, below the one along the sphere.

# %%
walks = np.concatenate([straight[::5], along[::5]])         # 8 maps each
show(generator.sample(walks), palette, columns=8)

# %% [markdown]
# Nearby vectors give similar maps, and both walks look alike. The circle glides to its new place.
# The square does not: it shrinks in the corner, and another one grows elsewhere. The rectangle
# changes in the same way: while one fades, another comes up in pieces. So what lies between two
# good maps is not always a good map.

# %% [markdown]
# ## Does it matter?
#
# We have shown that the middle of a straight walk is a vector that training hardly ever draws. Does
# the generator draw worse maps there? Let us measure. We multiply latent vectors by a factor, and
# compare the maps with real ones by the sliced Wasserstein distance
# ([notebook 12](12_measuring_images.ipynb)). The smaller it is, the better.

# %% tags=["varies"]
real = colored_shapes(side=32).maps[rng.permutation(729)[:64]]
factors = np.array([0.25, 0.5, 0.71, 1, 1.41, 2])
distances = [sliced_wasserstein(palette[real], palette[generator.sample(f * z)])["average"]
             for f in factors]
for f, distance in zip(factors, distances):
    print(f"factor {f:4.2f}: {distance:.0f}")
assert distances[0] > 2 * distances[3]
again = [sliced_wasserstein(palette[real], palette[generator.sample(rng.standard_normal((64, n)))])
         for _ in range(2)]
print("factor 1, other vectors:", *(f"{d['average']:.0f}" for d in again))

# %% tags=["varies"]
pairs = rng.standard_normal((2, 64, n))
middles = {"straight": pairs.mean(0),
           "along the sphere": np.array([app.commands.slerp(a, b, 2)[1] for a, b in zip(*pairs)])}
for name, middle in middles.items():
    distance = sliced_wasserstein(palette[real], palette[generator.sample(middle)])["average"]
    print(f"{name}: length {np.linalg.norm(middle, axis=1).mean():.1f}, distance {distance:.0f}")

# %% [markdown]
# Far inside the ball, at a quarter of the usual length, the maps are bad. Far outside they become
# worse too. But at 71 percent, where the middle of a straight walk lies, the distance is hardly
# larger than at 100. Other vectors of the usual length change it by more than that. And the middles
# of 64 straight walks are not clearly worse than those along the sphere.
#
# So the argument for the sphere is right, but for this generator it matters little. What remains of
# it: along the sphere the steps are even, and the vectors are such as the generator was trained on.
# To know whether it matters for yours, measure it.

# %% [markdown]
# ## Label maps of your own
#
# Now for your maps. We need some that you can make yourself: small streets. The classes are sky,
# road, house and pole. Each pole is one pixel wide.

# %%
def street(rng, h=48, w=72):
    m = np.zeros((h, w), np.uint8)                  # 0: sky
    m[36:] = 1                                      # 1: road
    for left in range(0, w, 18):
        top, wide = rng.integers(8, 28), rng.integers(10, 17)
        m[top:36, left:left + wide] = 2             # 2: house
    m[14:36, rng.integers(w)] = 3                   # 3: pole
    return m

# %%
streets = np.array([street(rng) for _ in range(60)])  # (60, 48, 72)
colors = np.array([[70, 130, 180], [128, 64, 128], [90, 60, 40], [255, 230, 0]], np.uint8)
show(colors[streets[:4]].repeat(2, 1).repeat(2, 2), columns=4)  # twice as large

# %% [markdown]
# People keep label maps in files of three kinds: grey images whose values are the class ids, images
# with a palette, and RGB images. We write a .zip of grey images to a temporary folder. (The project
# keeps prepared maps in a cache. For this notebook we put the cache into the same folder.)

# %%
folder = tempfile.TemporaryDirectory()
os.environ["SEMGAN_CACHE"] = f"{folder.name}/cache"

def write_zip(name, images, kind="PNG"):
    with zipfile.ZipFile(f"{folder.name}/{name}", "w") as file:
        for i, image in enumerate(images):
            content = io.BytesIO()
            Image.fromarray(image).save(content, kind)
            file.writestr(f"street_{i:02}.{kind.lower()}", content.getvalue())
    return f"{folder.name}/{name}"

# %%
grey = write_zip("grey.zip", streets)
dataset = load(grey, side=48, width=72)             # the maps' own size
assert np.array_equal(dataset.maps, streets)
print(dataset.classes, dataset.names, dataset.sources[:2])
print(dataset.palette.tolist())

# %% [markdown]
# The loader found four classes, ids 0 to 3. Grey images say nothing about colours. So it chose
# colours that are as far from each other as can be.
#
# RGB images need a *palette file* that says which colour is which class. Each line has red, green
# and blue, from 0 to 255, and a name. The first line is class 0.

# %%
text = """# my streets
70 130 180 sky
128 64 128 road
90 60 40 house with garden
255 230 0 pole  # also lamps
"""
palette_file = f"{folder.name}/palette.txt"
with open(palette_file, "w") as file:
    file.write(text)

# %%
rgb = write_zip("rgb.zip", colors[streets])
dataset = load(rgb, side=48, width=72, palette=palette_file)
assert np.array_equal(dataset.maps, streets) and np.array_equal(dataset.palette, colors)
print(dataset.names)
learnt = load(rgb, side=48, width=72)               # without a palette file
print(learnt.palette.tolist())

# %% [markdown]
# Without the file, the loader takes the colours it finds as classes. But their order is another,
# and their names are missing: it cannot know that sky is your class 0. If others use the data set
# too, write the file.

# %% [markdown]
# ### Exercise 16.3: a line of a palette
#
# *Difficulty 1 of 3 · 10 minutes · Good for: reading files that people write by hand.*
#
# Read one line. What follows a `#` is a comment. A name may have spaces, or be missing: then it is
# `""`. An empty line, or one that is only a comment, gives `None`.

# %%
def palette_line(line):
    """'70 130 180 sky  # blue' -> ((70, 130, 180), 'sky'), or None."""
    ### BEGIN SOLUTION
    fields = line.split("#")[0].split(maxsplit=3)
    if not fields:
        return None
    name = fields[3].strip() if len(fields) > 3 else ""
    return tuple(int(field) for field in fields[:3]), name
    ### END SOLUTION

# %%
check("16.3", palette_line);

# %%
print(inspect.getsource(formats.palettes.read_palette))

# %% [markdown]
# ## Resizing must not invent classes
#
# A generator has a fixed size, for example 16 x 24, so maps are resized. Programs for photos mix
# the colours of neighbouring pixels, which is called *bilinear* resizing. For label maps this is a
# disaster. Between sky (0) and house (2) lies their mean, 1: a road. Let us do it wrong on purpose:
# once with the class ids, and once with the colours.

# %%
wrong_ids = np.array([np.asarray(Image.fromarray(m).resize((24, 16), Image.BILINEAR))
                      for m in streets])                            # (60, 16, 24)
wrong_rgb = np.array([np.asarray(Image.fromarray(m).resize((24, 16), Image.BILINEAR))
                      for m in colors[streets]])                    # (60, 16, 24, 3)
right = load(grey, side=16, width=24).maps                          # (60, 16, 24)
show(np.concatenate([colors[wrong_ids[:4]], wrong_rgb[:4], colors[right[:4]]]), columns=4)

# %% [markdown]
# In the first row, with ids, houses have an outline of road. In the second row, with colours, edges
# are blurred, and poles have a colour that no class has. The last row is what the project's loader
# gives. Let us count:

# %%
above = np.s_[:, :11]                  # the rows above the road: no road should be there
for name, maps in ("bilinear", wrong_ids), ("ours", right):
    print(f"{name}: {(maps[above] == 1).mean():.1%} of the pixels above the road are road")
known = (wrong_rgb[..., None, :] == colors).all(-1).any(-1)         # (60, 16, 24)
print(f"bilinear in RGB: {1 - known.mean():.0%} of the pixels have the colour of no class")
assert (right[above] != 1).all() and set(np.unique(right)) <= set(np.unique(streets))

# %% [markdown]
# The remedy: never compute with class ids. Each pixel of the small map takes the class at *one*
# place of the large map, the place of its centre. This is called *nearest neighbour*. New pixel
# $i$ of $m$ covers the part from $i / m$ to $(i + 1) / m$ of the map. Its centre is at
# $(i + \frac{1}{2}) / m$. In a map of $H$ pixels that is in the pixel
#
# $$\Big\lfloor \frac{(i + \frac{1}{2})\, H}{m} \Big\rfloor
# = \Big\lfloor \frac{(2 i + 1)\, H}{2 m} \Big\rfloor$$

# %% [markdown]
# ### Exercise 16.4: nearest neighbour
#
# *Difficulty 2 of 3 · 15 minutes · Good for: any label map, mask or index image.*
#
# Resize a map to `height` x `width`. Use whole numbers only: they are exact.

# %%
def resized(ids, height, width):
    """(H, W) class ids -> (height, width)."""
    ### BEGIN SOLUTION
    rows = (2 * np.arange(height) + 1) * ids.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * ids.shape[1] // (2 * width)
    return ids[rows[:, None], columns]
    ### END SOLUTION

# %%
check("16.4", resized);

# %%
print(inspect.getsource(formats.images.resize_nearest))
rows = [int((i + 0.5) / 16 * 48) for i in range(16)]
columns = [int((i + 0.5) / 24 * 72) for i in range(24)]
assert np.array_equal(right, streets[:, rows][:, :, columns])
assert np.array_equal(right[0], formats.images.resize_nearest(streets[0], (16, 24)))

# %% [markdown]
# This has its price too. A pole is one pixel wide, and only every third column is looked at. Most
# poles vanish. Would it be better to take the most frequent class of each 3 x 3 pixels?

# %%
onehot = np.eye(4)[streets]                                         # (60, 48, 72, 4)
shares = onehot.reshape(60, 16, 3, 24, 3, 4).mean((2, 4))           # (60, 16, 24, 4)
for name, maps in ("large", streets), ("nearest", right), ("most frequent", shares.argmax(-1)):
    poles = (maps == 3)
    print(f"{name}: poles in {poles.any((1, 2)).mean():.0%} of the maps, {poles.mean():.2%} "
          "of the pixels")

# %% [markdown]
# It would not. A pole is never the most frequent class, so *all* poles would vanish. With nearest
# neighbour a third of the maps keep theirs, and there it is one pixel of the small map wide, as
# wide as three pixels of the large one. So the share of the class remains about the same. Nearest
# neighbour is honest on average, over many maps. But if thin things matter to you, train at a
# larger size.

# %% [markdown]
# ## What the loader refuses
#
# A mistake in a data set is hard to see in the samples of a generator. So the loader stops at the
# first value that is no class, and says where it is. Here are four data sets that went wrong:
# smoothed colours, JPEGs (which change pixels), an id 255 in a corner, and a palette with another
# sky.

# %%
def refusal(*arguments, **options):
    try:
        load(*arguments, side=16, width=24, **options)
    except Exception as error:
        message = str(error).replace(folder.name, "").replace("\\", "/")
        print(textwrap.fill(message, 95), "\n")

smooth = np.array(Image.fromarray(colors[streets[0]]).resize((720, 480), Image.BILINEAR))
refusal(write_zip("smooth.zip", [smooth]))
refusal(write_zip("jpeg.zip", colors[streets[:1]], "JPEG"))

# %%
marked = streets.copy()
marked[:, :6, :9] = 255                             # someone has marked a corner as "no class"
corner = write_zip("corner.zip", marked)
refusal(corner, classes=4)
with open(palette_file, "w") as file:
    file.write(text.replace("70 130 180", "71 130 180"))
refusal(rgb, palette=palette_file)

# %% [markdown]
# Pixels without a class are common: they have an id such as 255, called *void*. Say which id it is,
# and each void pixel takes the class of the nearest pixel that has one. Here that is sky. And if
# left and right are alike in your scenes, `mirror=True` doubles your maps:

# %%
filled = load(corner, side=48, width=72, void=255)
assert np.array_equal(filled.maps[:, :6], streets[:, :6])           # sky again
doubled = load(grey, side=16, width=24, mirror=True)
assert np.array_equal(doubled.maps[60:], right[:, :, ::-1])
print(len(right), "maps,", len(doubled.maps), "with their mirror images")

# %% [markdown]
# ## A generator of streets
#
# A few steps of training with small networks, on one or two cores:

# %%
s = semgan.settings(
    dataset=grey, side=16, width=24, kernel_size=5, generator_filters=[32, 16],
    discriminator_filters=[16, 32], learning_rate=2e-3, discriminator_learning_rate=4e-4)
trainer = semgan.Trainer(kernels.load("numpy"), s, doubled)
for _ in range(200):
    trainer.train_step()
z = rng.standard_normal((8, s.latent))
show(np.concatenate([trainer.generator.sample(z), doubled.maps[:8]]), colors, columns=8)

# %% [markdown]
# Above are samples, below real maps. After 200 steps the generator knows that the road is at the
# bottom and that houses stand on it. Their outlines are still ragged. It has learnt from only 60
# maps and their mirror images. On the command line, the same is done by
#
#     python data.py inspect --dataset maps.zip
#     python semgan.py --dataset maps.zip --size 16x24 --mirror
#
# `inspect` draws 16 maps and counts the classes. Do this first: a mistake is easier to see there
# than in the samples.

# %% [markdown]
# ## Summary
#
# - Random vectors of $n$ normally distributed numbers have about the length $\sqrt{n}$, and any two
#   are almost at right angles.
# - A straight walk between two of them passes vectors of 71 percent of this length. Slerp keeps
#   the length, roughly, and turns almost evenly. If the angle is 0, or rounding makes the cosine
#   larger than 1, the formula needs care.
# - Here both walks give maps of about the same quality. A theory about a generator should be
#   measured.
# - Class ids and colours must not be averaged: between two classes lies a third one, or none.
#   Nearest neighbour takes one pixel, and invents nothing. Thin things may vanish.
# - A palette file says which colour is which class. The loader refuses whatever is no class.
#
# **In the project:** [`slerp`](../app/commands.py#slerp) is behind
# `python semgan.py interpolate RUN`, which draws a walk as a film. [`load`](../data.py#load) reads
# data sets, [`resize_nearest`](../formats/images.py#resize_nearest) resizes, and
# [the page on data sets](../docs/data.md) has all rules.
#
# **In the paper** ([arXiv 1906.12195](https://arxiv.org/abs/1906.12195)): street scenes and
# facades were resized to 128 x 128 pixels. How, it does not say.
#
# **Next:** if you wonder how the trained generator can be so fast on a CPU with its 11x11 kernels,
# the [bonus notebook](18_fast_convolution.ipynb) explains it.
