# %% [markdown]
# # 2. Label maps: why not RGB?
#
# A label map says for each pixel what it shows: road, car, sky. It is usually drawn in colours. So
# why not generate it as a picture, as GANs have always done? This notebook shows what goes wrong
# with colours, and the paper's remedy: let the network put out a probability for each class.
#
# You need: NumPy arrays. Time: about 55 minutes, of which 40 are exercises.

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
# The paper's toy data set is called Colored Shapes. Each map has a rectangle, a square on it, and
# a circle on top. We use maps of 16 x 16 pixels, so that you can read the numbers. They are *class
# ids*: 0 is the background, 1 the circle, 2 the rectangle and 3 the square.

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
# *Difficulty 1 of 3 · 5 minutes · Good for: row and column indices, which are easy to exchange.*
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
# The project's function does the same for each place of the square. The paper has 54 x 54 places,
# for 64 pixels less the square's 10; here these are 16 - 2 = 14, and so 14 x 14 = 196 maps.

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
# A generator must put out numbers, and it is often in doubt: does the edge go here, or one pixel to
# the right? Let us look at a single pixel. Say it is a circle with probability $p$ and a square
# otherwise. We encode a circle as the number $a$ and a square as $b$. Which number $c$ should the
# network put out, if it shall be as close as possible on average? Closeness is often measured by
# the squared error:
#
# $$p\,(c - a)^2 + (1 - p)\,(c - b)^2$$

# %% [markdown]
# ### Exercise 2.2: the best compromise
#
# *Difficulty 2 of 3 · 10 minutes · Good for: seeing where blur comes from.*
#
# Which $c$ makes the expected squared error smallest? Derive it on paper, and return it.

# %%
def best_compromise(p, a, b):
    """The c with the smallest p (c - a)^2 + (1 - p) (c - b)^2."""
    ### BEGIN SOLUTION
    return p * a + (1 - p) * b
    ### END SOLUTION

# %%
check("2.2", best_compromise);

# %% [markdown]
# Set the derivative to zero: $2p\,(c - a) + 2(1 - p)(c - b) = 0$. The solution is the mean,
# $c = p\,a + (1 - p)\,b$. So a network in doubt puts out a mean, and the question is what a mean
# *means*. That depends on how we encode the classes. There are three ways:

# %%
ids = np.array([0.0, 1.0, 2.0, 3.0])  # the class id itself
colors = palette.astype(float)        # (K, 3)
onehot = np.eye(4)                    # (K, K): a 1 at the place of the class, else 0
for name, code in ("id", ids), ("RGB", colors), ("one-hot", onehot):
    print(f"circle {code[1]}, square {code[3]}, mean {(code[1] + code[3]) / 2}   ({name})")

# %% [markdown]
# - **Ids**: the mean of circle (1) and square (3) is 2. That is a rectangle, which nobody spoke of.
# - **RGB**: the mean of blue and red is purple, which is no class at all.
# - **One-hot**: the mean says exactly what we know: a circle or a square, one half each, and surely
#   no rectangle.
#
# One-hot codes also keep equal distances. Ids do not: they say that class 0 is nearer to 1 than to
# 3. Colours cannot keep them in general: in three dimensions, at most four points have equal
# distances from each other. Colored Shapes is a lucky case, with four classes and such a palette.

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
# and the generator as a function from latent vectors to a probability distribution over $L$ in each
# of $W \times H$ pixels:
#
# $$G: \mathcal{X} \to \Delta(L)^{W \times H} \qquad \text{(equation 2)}$$
#
# So its output has the shape (H, W, K), and along the last axis stand $K$ numbers, none negative,
# that add up to 1. Real maps take the same form: one-hot, with probability 1 for the right class.

# %% [markdown]
# ### Exercise 2.3: one-hot
#
# *Difficulty 1 of 3 · 10 minutes · Good for: the form in which the discriminator gets real maps.*
#
# Turn a batch of label maps into one-hot maps.

# %%
def one_hot(labels, classes):
    """(B, H, W) class ids -> (B, H, W, classes) float64."""
    ### BEGIN SOLUTION
    return np.eye(classes)[labels]
    ### END SOLUTION

# %%
check("2.3", one_hot);

# %% [markdown]
# The project's `gather` picks some maps out of a data set and replaces each pixel by its class's
# row of a table. Which table it gets is the whole difference between the paper's SemGAN and the
# ordinary GAN with which it is compared. For SemGAN the table is the identity matrix. For the GAN
# it is the palette, scaled from 0..255 to -1..1.

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
# The last axis holds one picture for each class, white where the class is. Background, circle,
# rectangle and square of map 150:

# %%
show(np.moveaxis(found[0], -1, 0), columns=4)

# %% [markdown]
# ## A blurred edge
#
# Now a whole row of pixels: circle on the left, square on the right. The network does not know
# where the edge lies: five places are equally likely. As we have seen, the best compromise is the
# mean of the five rows, in RGB or in one-hot codes.

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
# probable class gives a sharp edge, in the middle of the five places. A user who needs a label map,
# say for a simulator, can use the second. What should she do with purple?

# %% [markdown]
# ## How many pixels have no class?
#
# The project counts them: `invalid_color_rate` is the share of pixels that are further than 8 grey
# levels from every colour of the palette, in some channel. Here is the shortest way to say it.

# %%
def my_invalid_color_rate(images, palette, tolerance=8):
    gap = np.abs(images[..., None, :].astype(int) - palette)  # (N, H, W, K, 3)
    gap = gap.max(-1).min(-1)  # largest over the channels, smallest over the classes: (N, H, W)
    return (gap > tolerance).mean()

# %% [markdown]
# We blur the maps a little: each pixel becomes the mean of itself and its right neighbour. (At the
# right border the neighbour is the first pixel of the row.)

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
# We could replace each colour by the nearest one of the palette. The project does so for samples
# of the GAN, with `nearest_class`. The distance is the ordinary one, between points in space.

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
# Here that works: at an edge it picks one of the two classes. But we owe this to the palette, whose
# four colours have equal distances. The CMP Facades, one of the paper's data sets, have twelve
# classes. In their palette a wall is (0, 0, 255) and a door (0, 170, 255). Look at the mean:

# %%
table = facades()
house, names = table["palette"], table["names"]  # (12, 3) and 12 names; a wall is a "facade"
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
# Now the door has a window on each side, and nobody can tell it from a real one. How often does
# that happen? We try all pairs of classes.

# %%
pairs = [(a, b) for a in range(12) for b in range(a)]
middles = np.array([(house[a].astype(int) + house[b]) // 2 for a, b in pairs], np.uint8)  # (66, 3)
found = nearest_class(middles[None, None], house)[0, 0]                                   # (66,)
third = sum(k not in pair for k, pair in zip(found, pairs))
print(f"{third} of {len(pairs)} means lie nearest to a third class")

# %% [markdown]
# With class probabilities this cannot happen. The mean of two one-hot codes has a zero at every
# third class. The most probable class is one of the two, or it is a tie.

# %% [markdown]
# ## From probabilities back to a map
#
# SemGAN's last layer, the softmax of notebook 6, makes numbers that are positive and add up to 1.
# To get a map, take the class of the largest probability in each pixel.

# %% [markdown]
# ### Exercise 2.4: decode
#
# *Difficulty 1 of 3 · 5 minutes · Good for: the last line of every sampler in this project.*
#
# The class with the largest probability in each pixel.

# %%
def decode(probabilities):
    """(B, H, W, K) -> (B, H, W) uint8 class ids."""
    ### BEGIN SOLUTION
    return probabilities.argmax(-1).astype(np.uint8)
    ### END SOLUTION

# %%
check("2.4", decode);

# %% [markdown]
# Both models must decode their own encoding without loss: encode, decode, compare. If that
# fails, nothing that a network learns can be right.

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
# *Difficulty 2 of 3 · 10 minutes · Good for: most metrics of label maps start with these counts.*
#
# Count the pixels of each class in each map. A class that does not occur counts 0.

# %%
def areas(maps, classes):
    """(N, H, W) class ids -> (N, classes): how many pixels of each map have each class."""
    ### BEGIN SOLUTION
    return np.stack([(maps == k).sum((1, 2)) for k in range(classes)], axis=1)
    ### END SOLUTION

# %%
check("2.5", areas);

# %% [markdown]
# The project's function, the same counts by way of one-hot maps, and a histogram for each class:

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
# - A network in doubt puts out means. The mean of two ids or of two colours can be a third class,
#   or none. The mean of two one-hot codes is a probability for each class: it says what we know.
# - SemGAN puts out $K$ probabilities for each pixel (equations 2 and 3) and gets real maps one-hot.
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
