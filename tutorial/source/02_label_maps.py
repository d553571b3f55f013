# %% [markdown]
# # 2. Label maps: why not RGB?
#
# A label map says for each pixel what it shows: road, car, sky. It is usually drawn in colours. So
# why not generate it as a coloured picture, as other GANs do? This notebook shows what goes wrong
# with colours, and the paper's remedy: let the network give a probability for each class.
#
# You need: NumPy arrays, and one derivative. Time: about 55 minutes, of which 40 are exercises.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import inspect
import numpy as np
from data import colored_shapes, facades
from image_metrics import invalid_color_rate
from kernels.numpy_ops import gather
from metrics import class_areas, nearest_class
from semgan import OUTPUTS
from tutorial.checks import check, show

# %% [markdown]
# ## One number for each pixel
#
# The paper's toy data set is called Colored Shapes. Each map has a rectangle, a square and a
# circle. They are painted in this order, so a later one may cover an earlier one. We use maps of 16
# x 16 pixels, so that you can read the numbers. They are *class ids*: 0 is the background, 1 the
# circle, 2 the rectangle and 3 the square.

# %%
dataset = colored_shapes(side=16)
maps = dataset.maps        # (N, H, W) uint8
print(maps.shape, maps.dtype, dataset.names)
print(maps[150])

# %% [markdown]
# Colours come in only when we draw a map. The *palette* has one row for each class: its red, green
# and blue, from 0 to 255. NumPy looks up all pixels at once: `palette[maps]`.

# %%
palette = dataset.palette  # (K, 3) uint8, here K = 4
rgb = palette[maps]        # (N, H, W, 3)
print(palette)
show(rgb[::13], columns=8)

# %% [markdown]
# ### Exercise 2.1: a circle
#
# *Difficulty 1 of 3 · 5 minutes · Good for: rows and columns, which are easy to mix up.*
#
# A pixel belongs to the circle if its distance from the centre is at most the radius. Return a
# boolean array that is True there. `np.mgrid` gives the row `y` and the column `x` of each pixel.

# %%
def circle(height, width, cy, cx, radius):
    """(height, width) bool: the circle with its centre in row cy and column cx."""
    y, x = np.mgrid[:height, :width]  # (height, width) each
    ### BEGIN SOLUTION
    return (y - cy) ** 2 + (x - cx) ** 2 <= radius ** 2
    ### END SOLUTION

# %%
check("2.1", circle);

# %% [markdown]
# With the circle, one map takes only a few lines. Later shapes are painted over earlier ones. The
# square's place is given; all other places are random.

# %%
def my_map(rng, top, left, side=16):
    y, x = np.mgrid[:side, :side]
    cy, cx = rng.integers(2, side - 2, size=2)  # centre of the circle, radius 2
    ry, rx = rng.integers(side - 5 + 1), rng.integers(side - 3 + 1)  # the rectangle's corner
    m = np.zeros((side, side), np.uint8)
    m[ry:ry + 5, rx:rx + 3] = 2                 # 5 high, 3 wide
    m[top:top + 2, left:left + 2] = 3           # 2 high, 2 wide
    m[(y - cy) ** 2 + (x - cx) ** 2 <= 2 ** 2] = 1
    return m

# %% [markdown]
# The project's function does the same for each place of the square. The paper's square has 10
# pixels on a map of 64, and 64 - 10 = 54 places in each direction. Here there are 16 - 2 = 14, and
# so there are 14 x 14 = 196 maps. (With a larger `least`, each place gets more than one map.)

# %%
print(inspect.getsource(colored_shapes))

# %% [markdown]
# With the same random numbers, ours must give the same maps. It does:

# %%
rng = np.random.default_rng(0)
mine = [my_map(rng, top, left) for top in range(14) for left in range(14)]
assert np.array_equal(mine, colored_shapes(side=16, seed=0).maps)
print(len(mine), "equal maps")

# %% [markdown]
# ## What a network says when it does not know
#
# A generator must give numbers, and it is often in doubt: does the edge go here, or one pixel to
# the right? Let us look at a single pixel. Say it belongs to a circle with probability $p$, and to
# a square otherwise. We encode a circle as the number $a$ and a square as $b$. Which number $c$
# should the network give, so that on average it is as close as possible to the right one? If
# closeness is measured by the squared error, as it often is, the average is
#
# $$p\,(c - a)^2 + (1 - p)\,(c - b)^2.$$

# %% [markdown]
# ### Exercise 2.2: the best compromise
#
# *Difficulty 2 of 3 · 10 minutes · Good for: seeing where blur comes from.*
#
# Which $c$ makes this average smallest? Derive it on paper, and return it.

# %%
def best_compromise(p, a, b):
    """The c with the smallest p (c - a)^2 + (1 - p) (c - b)^2."""
    ### BEGIN SOLUTION
    return p * a + (1 - p) * b
    ### END SOLUTION

# %%
check("2.2", best_compromise);

# %% [markdown]
# Set the derivative with respect to $c$ to zero: $2p\,(c - a) + 2(1 - p)(c - b) = 0$. The terms
# with $c$ add up to $2c$, and so $c = p\,a + (1 - p)\,b$: the mean. A code of several numbers works
# the same way, number by number. So a network that learns to make this error small gives a mean
# when it is in doubt. Whether a mean is of any use depends on how we encode the classes. There are
# three ways:

# %%
ids = np.array([0.0, 1.0, 2.0, 3.0])  # the class id itself
colors = palette.astype(float)        # (K, 3)
onehot = np.eye(4)                    # (K, K): a 1 at the place of the class, else 0
for name, code in ("id", ids), ("RGB", colors), ("one-hot", onehot):
    print(f"circle {code[1]}, square {code[3]}, mean {(code[1] + code[3]) / 2}   ({name})")

# %% [markdown]
# - **Ids**: the mean of circle (1) and square (3) is 2. That is a rectangle, which nobody spoke of.
# - **RGB**: the mean of blue and red is purple, which is no class at all.
# - **One-hot**: the mean says exactly what we know: a circle or a square, one half each, and
#   certainly no rectangle.
#
# One-hot codes have another advantage: all classes are equally far from each other. With ids, class
# 0 is nearer to 1 than to 3, for no reason. With colours, too, it cannot be done for more than four
# classes: in three dimensions, at most four points can have equal distances from each other.
# Colored Shapes is a lucky case. It has four classes and just such a palette:

# %%
def distances(code):
    code = code.reshape(len(code), -1)  # (K, channels)
    return np.sqrt(((code[:, None] - code[None]) ** 2).sum(-1)).round(1)  # (K, K)

for name, code in ("id", ids), ("RGB", colors), ("one-hot", onehot):
    print(name, distances(code), sep="\n")

# %% [markdown]
# ## One-hot maps
#
# The paper writes the set of the $K$ classes as
#
# $$L = \{l_1, l_2, \dots, l_K\} \qquad \text{(equation 3)}$$
#
# and the generator as a function from latent vectors (their set is $\mathcal{X}$) to a probability
# distribution over $L$ in each of $W \times H$ pixels ($\Delta(L)$ is the set of such
# distributions):
#
# $$G: \mathcal{X} \to \Delta(L)^{W \times H} \qquad \text{(equation 2)}$$
#
# So its output has the shape (H, W, K). Along the last axis there are $K$ numbers, none of them
# negative, that add up to 1. Real maps are given the same form: one-hot, with probability 1 for the
# right class.

# %% [markdown]
# ### Exercise 2.3: one-hot
#
# *Difficulty 1 of 3 · 10 minutes · Good for: the form in which the discriminator gets real maps.*
#
# Turn a batch of B label maps into one-hot maps.

# %%
def one_hot(labels, classes):
    """(B, H, W) class ids -> (B, H, W, classes) float64."""
    ### BEGIN SOLUTION
    return np.eye(classes)[labels]
    ### END SOLUTION

# %%
check("2.3", one_hot);

# %% [markdown]
# The project's `gather` picks some maps out of a data set and replaces each pixel by one row of a
# table, the row of the pixel's class. The paper compares its SemGAN with an ordinary GAN, which
# draws colours. The two get the same maps by way of different tables. For SemGAN the table is the
# identity matrix. For the GAN it is the palette, scaled from 0..255 to -1..1. (Their generators
# differ in the last layer: SemGAN's ends in a softmax, the GAN's in a tanh, from -1 to 1.)

# %%
print(inspect.getsource(gather))
for model in "semgan", "gan":
    print(model, OUTPUTS[model].encoding(palette), sep="\n")

# %%
index = np.array([150, 3])
found = gather(maps, index, OUTPUTS["semgan"].encoding(palette))  # (B, H, W, K)
mine = (maps[index][..., None] == np.arange(4)).astype(float)     # the same, in another way
assert np.array_equal(found, mine)
print(found.shape, "sum over the classes:", found.sum(-1).min(), "to", found.sum(-1).max())

# %% [markdown]
# Along the last axis there is one picture for each class, white where the class is. Background,
# circle, rectangle and square of map 150:

# %%
show(np.moveaxis(found[0], -1, 0), columns=4)

# %% [markdown]
# ## A blurred edge
#
# Now we take a whole row of pixels: circle on the left, square on the right. The network does not
# know where the edge lies: five places are equally likely. As we have seen, the best compromise is
# the mean of the five rows, be it in RGB or in one-hot codes.

# %%
edges = np.where(np.arange(12) < np.arange(4, 9)[:, None], 1, 3)  # (5, 12) class ids
mean_rgb = colors[edges].mean(0)       # (12, 3)
mean_onehot = onehot[edges].mean(0)    # (12, K)
decoded = mean_onehot.argmax(-1)       # (12,): the most probable class of each pixel

# %%
import matplotlib.pyplot as plt
fig, axes = plt.subplots(4, 1, figsize=(6.2, 5), height_ratios=(2, 1, 2, 1), sharex=True)
pictures = palette[edges], mean_rgb[None].astype(int), palette[decoded][None]
for axis, image in zip((axes[0], axes[1], axes[3]), pictures):
    axis.imshow(image, aspect="auto"), axis.set_yticks([])
axes[2].plot(mean_onehot[:, 1], "b.-", label="circle"), axes[2].set_ylabel("probability")
axes[2].plot(mean_onehot[:, 3], "r.-", label="square"), axes[2].legend(loc="center left")
titles = "five possible rows", "their mean in RGB", "mean of one-hot codes", "most probable class"
[axis.set_title(title, fontsize=10) for axis, title in zip(axes, titles)], plt.xlabel("pixel")
plt.tight_layout(), plt.show();

# %% [markdown]
# In RGB the edge becomes purple. With one-hot codes the two probabilities cross, and the most
# probable class has a sharp edge, at the middle one of the five places. Someone who needs a label
# map, say for a simulator, can use the last row. What could she do with purple?

# %% [markdown]
# ## How many pixels have no class?
#
# The project counts the pixels that have the colour of no class. Such a pixel differs from every
# colour of the palette by more than 8 (of 255) in at least one of red, green and blue. The share of
# these pixels is the `invalid_color_rate`. Here it is in a few lines:

# %%
def my_invalid_color_rate(images, palette, tolerance=8):
    gap = np.abs(images[..., None, :].astype(int) - palette)  # (N, H, W, K, 3)
    gap = gap.max(-1).min(-1)  # largest of the channels, smallest of the classes: (N, H, W)
    return (gap > tolerance).mean()

# %% [markdown]
# We blur the maps a little: each pixel becomes the mean of itself and its right neighbour. (For the
# last pixel of a row, the neighbour is the first one.)

# %%
def blur(rgb):  # (N, H, W, 3) uint8
    return ((rgb.astype(int) + np.roll(rgb, -1, axis=2)) // 2).astype(np.uint8)

blurred = blur(rgb)
for name, images in ("sharp", rgb), ("blurred", blurred):
    rate = my_invalid_color_rate(images, palette)
    assert np.isclose(rate, invalid_color_rate(images, palette))
    print(f"{name}: {rate:.1%} of the pixels have no class")
show(blurred[::13], columns=8)

# %% [markdown]
# A blur over two pixels is enough: one pixel in eleven has no class.

# %% [markdown]
# ## Can we repair it?
#
# We could replace each colour by the nearest one of the palette. The project does so with samples
# of the GAN, by `nearest_class`. Colours count as points in space, with the ordinary distance.

# %%
def my_nearest_class(images, palette):
    squared = ((images[..., None, :].astype(int) - palette) ** 2).sum(-1)  # (N, H, W, K)
    return squared.argmin(-1)

repaired = my_nearest_class(blurred, palette)
assert np.array_equal(repaired, nearest_class(blurred, palette))
other = repaired != maps
third = other & (repaired != np.roll(maps, -1, axis=2))  # not the neighbour's class either
print(f"another class than before: {other.mean():.1%} of the pixels, a third class: {third.mean()}")

# %% [markdown]
# Here that works: every pixel at an edge gets one of the two classes that meet there. But we owe
# this to the palette, whose four colours are equally far from each other. The CMP Facades, one of
# the paper's data sets, have twelve classes. In their palette a wall (the class `facade`) is (0, 0,
# 255) and a door is (0, 170, 255). Look at the mean:

# %%
table = facades()
house, names = table["palette"], table["names"]  # (12, 3) and 12 names
i, j = names.index("facade"), names.index("door")
between = ((house[i].astype(int) + house[j]) // 2).astype(np.uint8)  # (3,)
print(between, "is", names[my_nearest_class(between.reshape(1, 1, 1, 3), house).item()])

# %% [markdown]
# It is exactly the colour of a window. Let us draw a door in a wall, blur it, and take the nearest
# class of each pixel:

# %%
wall = np.full((1, 16, 16), i)  # (N, H, W) class ids
wall[:, 5:, 6:10] = j
after = nearest_class(blur(house[wall]), house)  # (N, H, W)
print([names[k] for k in np.unique(wall)], "->", [names[k] for k in np.unique(after)])
show(house[np.concatenate([wall, after])], columns=2)

# %% [markdown]
# Now the door has a narrow window on each side, and nobody can tell these pixels from a real
# window. How often does such a thing happen? We try all pairs of classes.

# %%
pairs = [(a, b) for a in range(12) for b in range(a)]
middles = np.array([(house[a].astype(int) + house[b]) // 2 for a, b in pairs], np.uint8)  # (66, 3)
found = nearest_class(middles[None, None], house)[0, 0]                                   # (66,)
third = sum(k not in pair for k, pair in zip(found, pairs))
print(f"{third} of {len(pairs)} means lie nearest to a third class")

# %% [markdown]
# With class probabilities this cannot happen. The mean of two one-hot codes is zero at every third
# class, so the most probable class is always one of the two. (In a tie, `argmax` takes the first.)

# %% [markdown]
# ## From probabilities back to a map
#
# SemGAN's last layer, the softmax of notebook 6, makes numbers that are positive and add up to 1.
# To get a label map, take the class with the largest probability in each pixel.

# %% [markdown]
# ### Exercise 2.4: decode
#
# *Difficulty 1 of 3 · 5 minutes · Good for: the last step on the way to every sample of SemGAN.*
#
# Return the class with the largest probability in each pixel.

# %%
def decode(probabilities):
    """(B, H, W, K) -> (B, H, W) uint8 class ids."""
    ### BEGIN SOLUTION
    return probabilities.argmax(-1).astype(np.uint8)
    ### END SOLUTION

# %%
check("2.4", decode);

# %% [markdown]
# Each model, SemGAN and the GAN, must decode its own encoding without loss: encode, decode,
# compare. If that fails, nothing that a network learns can come out right.

# %%
index = np.arange(len(maps))
for model in "semgan", "gan":
    encoded = gather(maps, index, OUTPUTS[model].encoding(palette))
    back = OUTPUTS[model].decode(encoded)
    assert np.array_equal(back, maps if model == "semgan" else rgb)
    print(f"{model}: {encoded.shape} -> {back.shape}")

# %% [markdown]
# ## The first measurement
#
# How do we compare generated maps with real ones? The simplest thing to look at is how many pixels
# each class has in each map.

# %% [markdown]
# ### Exercise 2.5: class areas
#
# *Difficulty 2 of 3 · 10 minutes · Good for: metrics of label maps, which often start here.*
#
# Count the pixels of each class in each map. A class that does not occur counts 0.

# %%
def areas(maps, classes):
    """(N, H, W) class ids -> (N, classes) int: how many pixels of each map have each class."""
    ### BEGIN SOLUTION
    return np.stack([(maps == k).sum((1, 2)) for k in range(classes)], axis=1)
    ### END SOLUTION

# %%
check("2.5", areas);

# %% [markdown]
# Here are the project's function, the same counts by way of one-hot maps, and then a histogram for
# each class, which says how many maps have how many pixels of it:

# %%
print(inspect.getsource(class_areas))
counts = class_areas(maps, 4)  # (N, K)
assert np.array_equal(counts, np.eye(4)[maps].sum((1, 2)))
print("most pixels:", counts.max(0), "fewest:", counts.min(0))

# %%
fig, axes = plt.subplots(1, 4, figsize=(6.4, 2.2), sharey=True)
for k, axis in enumerate(axes):
    values, times = np.unique(counts[:, k], return_counts=True)
    axis.bar(values, times, width=0.8, color=palette[k] / 255, edgecolor="black")
    axis.set_xlim(max(-1, values.max() - 13), values.max() + 1)
    axis.set_title(dataset.names[k]), axis.set_xlabel("pixels")
axes[0].set_ylabel("maps")
plt.tight_layout(), plt.show();

# %% [markdown]
# The circle always has 13 pixels: it is painted last, so nothing covers it. The square has 4, or
# fewer where the circle covers it; in a few maps it has none. A generator whose circles have 9
# pixels, or whose squares never hide, has not learnt the data. Notebook 11 makes metrics of this.

# %% [markdown]
# ## Summary
#
# - A label map holds a class id for each pixel; a palette gives the colours.
# - A network in doubt gives a mean. The mean of two ids or of two colours can be a third class, or
#   none. The mean of two one-hot codes is a probability for each class: it says what we know.
# - SemGAN gives $K$ probabilities for each pixel (equations 2 and 3), and real maps become one-hot.
#   The most probable class of a pixel is always a valid class.
#
# **In the paper:** [section 3.2](https://arxiv.org/abs/1906.12195), equations 2 and 3. **In the
# project:** [`colored_shapes`](../data.py#colored_shapes),
# [`gather`](../kernels/numpy_ops.py#gather),
# [`invalid_color_rate`](../image_metrics.py#invalid_color_rate),
# [`nearest_class`](../metrics.py#nearest_class) and
# [`class_areas`](../metrics.py#class_areas). Both
# encodings stand side by side in `OUTPUTS` of [semgan.py](../semgan.py).
#
# **Next:** before we train anything by hand, a tool that finds wrong gradients, in
# [notebook 3](03_checking_gradients.ipynb).
