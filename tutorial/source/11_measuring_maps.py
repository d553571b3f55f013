# %% [markdown]
# # 11. Measuring maps: how good are samples?
#
# A generator has drawn some label maps. Are they like the real ones? A glance at a few is not
# enough: we want numbers. This notebook builds seven metrics from their formulas. Each tells us
# something, and each is blind to something else. So we attack every one, with maps that are
# obviously bad and still get a good value.
#
# You need: label maps and the areas of classes ([notebook 2](02_label_maps.ipynb)), means,
# variances and covariances. Time: about 105 minutes, of which 65 are exercises.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import inspect
import matplotlib.pyplot as plt
import numpy as np
import data, metrics
from tutorial.checks import check, show

# %% [markdown]
# ## Real maps and impostors
#
# We do not train anything here. In place of samples we take sets of maps that we make ourselves, so
# that we know what is wrong with each. The real maps are Colored Shapes at 32 x 32 pixels. One set
# is `train`, the maps a generator would learn from. The other, `heldout`, comes from the same
# program with other random numbers. A perfect generator would draw maps like these.

# %%
train = data.colored_shapes(side=32, seed=0).maps    # (N, H, W) uint8
heldout = data.colored_shapes(side=32, seed=1).maps  # (N, H, W)
n, side, K = len(train), 32, 4
show(np.concatenate([train[::97], heldout[::97]]), columns=8)

# %% [markdown]
# The first row is from `train`, the second from `heldout`. Here are the first three impostors. In
# `noise` each pixel has a random class, in the right proportions. `constant` is background
# everywhere. `one map` is a single held-out map, again and again. Below are three maps of each, in
# this order.

# %%
rng = np.random.default_rng(0)
share = metrics.class_frequencies(train, K)  # (K,)
sets = {"heldout": heldout}
sets["noise"] = rng.choice(K, train.shape, p=share).astype(np.uint8)
sets["constant"] = np.zeros_like(train)
sets["one map"] = np.repeat(heldout[5:6], n, axis=0)
show(np.concatenate([sets[name][:3] for name in ("noise", "constant", "one map")]), columns=9)

# %% [markdown]
# ## 1. Class frequencies
#
# How often does each class occur, among all pixels of all maps? Call these shares $p_k$ for the
# real maps and $q_k$ for the samples. Each list adds up to 1. How far apart are the two? One answer
# is the *total variation*: add up all differences, without their signs, and halve the sum:
#
# $$\mathrm{TV}(p, q) = \frac{1}{2} \sum_k |p_k - q_k|$$
#
# Why half? What one class has too much, others have too little. So each pixel of a wrong class is
# counted twice in the sum. With the factor, TV is the share of pixels that must change their class
# to make the lists equal. It goes from 0 to 1.

# %% [markdown]
# ### Exercise 11.1: total variation
#
# *Difficulty 1 of 3 · 5 minutes · Good for: the distance in three of the seven metrics.*

# %%
def total_variation(p, q):
    """The total variation between two lists of shares, each (K,). From 0 to 1."""
    ### BEGIN SOLUTION
    return np.abs(p - q).sum() / 2
    ### END SOLUTION

# %%
check("11.1", total_variation);

# %% [markdown]
# The project's function does this with the shares of the two sets. Here are both, for each set:

# %%
print(inspect.getsource(metrics.class_frequency_distance))
for name, maps in sets.items():
    p, q = (np.eye(K)[x].mean((0, 1, 2)) for x in (train, maps))  # means of one-hot maps, (K,)
    mine = np.abs(p - q).sum() / 2
    assert np.isclose(mine, metrics.class_frequency_distance(train, maps))
    print(f"{name:9}{mine:.5f}")

# %% [markdown]
# The constant maps are 15 % away, which is the share of the pixels that are not background. But
# noise is even nearer than the held-out maps. The shares say nothing about places.
#
# ## The noise floor
#
# Even the held-out maps do not get 0. They differ from the training maps by chance. This value is
# the *noise floor*. No set of independent maps that vary like the real ones can be expected to get
# below it. (The noise does, but it is not independent: its proportions are those of the training
# maps themselves.) The floor depends on the number of maps $N$ in each set. Let $s_k$ be the
# standard deviation of class $k$'s share, from map to map. The mean over $N$ maps has the standard
# deviation $s_k / \sqrt{N}$. The difference of two such means has $s_k \sqrt{2 / N}$. If it has a
# normal distribution, the mean of its absolute value is $\sqrt{2 / \pi} \approx 0.8$ times that.
# Add up over the classes, and halve:
#
# $$\text{floor of the class frequencies} \approx \sum_k \frac{s_k}{\sqrt{\pi N}}$$
#
# We draw two sets of $N$ real maps, 40 times for each $N$, and take the mean of the 40 distances.
# We do the same for two more metrics, which are explained below.

# %%
real = np.concatenate([train, heldout])
numbers = 10 * 2 ** np.arange(6)  # 10 to 320
floors = []
for N in numbers:
    rows = [rng.permutation(len(real))[:2 * N].reshape(2, N) for _ in range(40)]
    floors.append([np.mean([f(real[i], real[j]) for i, j in rows]) for f in (
        metrics.class_frequency_distance, metrics.spatial_distance, metrics.segmentation_distance)])
floors = np.array(floors)  # (6, 3)

# %%
s = (metrics.class_areas(real, K) / side ** 2).std(0)  # (K,)
law = s.sum() / np.sqrt(np.pi * numbers)
assert np.allclose(floors[:, 0], law, rtol=0.4)

# %%
plt.figure(figsize=(6.2, 3.4))
for name, floor in zip(("class frequencies", "spatial prior", "FSD"), floors.T):
    plt.loglog(numbers, floor, "o-", ms=4, label=name)
plt.loglog(numbers, law, "k--", lw=1, label="the formula")
plt.loglog(numbers, floors[0, 2] * numbers[0] / numbers, "k:", lw=1, label="1 / N")
plt.xlabel("maps in each set"), plt.ylabel("real against real")
plt.ylim(1e-6, 3), plt.legend(fontsize=8, ncols=2), plt.tight_layout()
plt.show()

# %% [markdown]
# The measured floor follows the formula. The points lie off the line by chance, since 40 draws are
# few. To halve the floor, we need four times as many maps. FSD falls twice as steeply, like
# $1 / N$, because it adds up *squares* of differences. So two rules hold for everything in this
# notebook: compare a metric with its floor, and compare values at the same $N$ only.

# %% [markdown]
# ## 2. FSD: how areas vary from map to map
#
# Two sets may agree in their mean shares, and yet in one of them every map is the same. The
# *Frechet segmentation distance* (FSD) also looks at the spread. It treats the shares of the
# classes in one map as a point with $K$ coordinates. A set of maps is a cloud of points. FSD is a
# distance between two clouds.
#
# We begin with a single coordinate. Suppose that both clouds have normal distributions, with the
# means $m_1, m_2$ and the standard deviations $s_1, s_2$. We can draw both from the same random
# number $e$ with mean 0 and variance 1: $x_1 = m_1 + s_1 e$ and $x_2 = m_2 + s_2 e$. So each point
# of one cloud gets a partner in the other: the smallest gets the smallest, and so on. How far apart
# are partners? We take the square of their distance, and its mean over $e$:
#
# $$\mathrm{mean}\,(x_1 - x_2)^2 = \mathrm{mean}\,\big((m_1 - m_2) + (s_1 - s_2)\, e\big)^2
# = (m_1 - m_2)^2 + (s_1 - s_2)^2$$
#
# The mixed term is 0, because the mean of $e$ is 0. With several coordinates, $m_1$ and $m_2$ are
# vectors, and covariance matrices $A$ and $B$ take the place of $s_1^2$ and $s_2^2$:
#
# $$\mathrm{FSD} = |m_1 - m_2|^2 + \mathrm{tr}\big(A + B - 2\,(A B)^{1/2}\big)$$
#
# The *trace* tr is the sum of a matrix's diagonal. For one coordinate the second term is
# $s_1^2 + s_2^2 - 2 s_1 s_2$, as above. So in spite of its name, FSD is a *squared* distance: if
# all differences double, it becomes four times as large. We never need the root of the matrix
# itself: the trace of $(A B)^{1/2}$ is the sum of the roots of the eigenvalues of $A B$.

# %%
def my_fsd(real, fake):
    a, b = (np.eye(K)[x].mean((1, 2)) for x in (real, fake))  # shares in each map, (N, K)
    gap = a.mean(0) - b.mean(0)
    A, B = np.cov(a.T), np.cov(b.T)                           # (K, K)
    roots = np.sqrt(np.linalg.eigvals(A @ B).real.clip(0))    # rounding may give -1e-20
    return gap @ gap + np.trace(A) + np.trace(B) - 2 * roots.sum()

# %%
print(inspect.getsource(metrics.segmentation_distance))
for name, maps in sets.items():
    mine = my_fsd(train, maps)
    assert np.isclose(mine, metrics.segmentation_distance(train, maps), atol=1e-7)
    print(f"{name:9}{1e6 * mine:9.1f} millionths")

# %% [markdown]
# ([Notebook 12](12_measuring_images.ipynb) explains how the project computes the roots.) FSD sees
# what the class frequencies cannot. In real maps the circle always has 81 pixels, while the other
# shapes may be half hidden. In noise all areas vary by chance: that of the circle too much, that of
# the rectangle too little. So noise is far above the floor.

# %% [markdown]
# ### Exercise 11.2: attack FSD
#
# *Difficulty 1 of 3 · 10 minutes · Good for: seeing what a perfect value proves.*
#
# FSD looks at the areas in each map and nothing else. So make a set with exactly the same areas, in
# each single map, and no shapes at all. Sort the pixels of each map by class: the background comes
# first, from the top row on, from left to right; then the circle's pixels, and so on.

# %%
def sorted_pixels(maps):
    """(N, H, W) -> (N, H, W): each map's pixels in the order of their classes."""
    ### BEGIN SOLUTION
    return np.sort(maps.reshape(len(maps), -1), axis=1).reshape(maps.shape)
    ### END SOLUTION

# %%
check("11.2", sorted_pixels);

# %% [markdown]
# Here are these maps, made in another way: from the areas alone.

# %%
areas = metrics.class_areas(train, K)  # (N, K)
bars = [np.repeat(np.arange(K, dtype=np.uint8), area).reshape(side, side) for area in areas]
sets["bars"] = np.array(bars)
show(sets["bars"][::97], columns=8)
assert metrics.class_frequency_distance(train, sets["bars"]) == 0
assert metrics.segmentation_distance(train, sets["bars"]) < 1e-12

# %% [markdown]
# Both metrics are 0: better than new real maps. We need metrics that look at places.

# %% [markdown]
# ## 3. The spatial prior: what is usual at each pixel?
#
# For each pixel, count in how many of the maps it belongs to class $k$. This gives a picture for
# each class, its *spatial prior*:

# %%
prior = np.eye(K)[train].mean(0)  # (H, W, K)
_, axes = plt.subplots(1, K, figsize=(6.2, 1.9), layout="constrained")
for k, axis in enumerate(axes):
    largest = np.floor(100 * prior[..., k].max()) / 100
    image = axis.imshow(prior[..., k], cmap="Greys", vmin=0, vmax=largest)
    axis.set(xticks=[], yticks=[], title=["background", "circle", "rectangle", "square"][k])
    plt.colorbar(image, ax=axis, orientation="horizontal", ticks=[0, largest])
plt.show()

# %% [markdown]
# Shapes lie inside the map, so they are rare at the edges. The metric is the total variation
# between the two sets' shares at each pixel, averaged over all pixels:

# %%
def my_spatial_distance(real, fake):
    p, q = (np.eye(K)[x].mean(0) for x in (real, fake))  # (H, W, K)
    return (np.abs(p - q).sum(-1) / 2).mean()

for name, maps in sets.items():
    mine = my_spatial_distance(train, maps)
    assert np.isclose(mine, metrics.spatial_distance(train, maps))
    print(f"{name:9}{mine:.3f}")

# %% [markdown]
# The bars are found out, and so is the one map. The attack: for each pixel, take the classes that
# it has in all maps, and shuffle them over the maps. Every pixel keeps its prior exactly. But its
# class no longer depends on the classes of the pixels next to it.

# %%
sets["shuffled"] = rng.permuted(train, axis=0)  # each pixel has a permutation of its own
show(sets["shuffled"][::97], columns=8)
assert metrics.spatial_distance(train, sets["shuffled"]) == 0

# %% [markdown]
# Rectangles, circles, squares: nothing is left of them, and the distance is 0. A metric of form has
# to compare pixels of the same map.

# %% [markdown]
# ## 4. Adjacency: which classes touch?
#
# Two pixels are *neighbours* if they share a side. Take all pairs of neighbours of two different
# classes, and sort them by these classes. Only which two they are counts, not the order: circle
# beside square is the same as square beside circle.

# %% [markdown]
# ### Exercise 11.3: count pairs
#
# *Difficulty 2 of 3 · 15 minutes · Good for: slices that are shifted by one, as in convolutions.*
#
# Return an array `counts` (K, K). For $c < d$, `counts[c, d]` is the number of pairs of neighbours
# with the classes $c$ and $d$. All other entries are 0. `np.add.at(counts, (i, j), 1)` adds 1 at
# each place that the arrays `i` and `j` name, however often it comes up. Below and right: that
# counts each pair once.

# %%
def touching(maps, classes):
    """(N, H, W) class ids -> (classes, classes) int."""
    counts = np.zeros((classes, classes), int)
    ### BEGIN SOLUTION
    for a, b in ((maps[:, 1:], maps[:, :-1]), (maps[:, :, 1:], maps[:, :, :-1])):
        np.add.at(counts, (np.minimum(a, b), np.maximum(a, b)), 1)
    return np.triu(counts, 1)
    ### END SOLUTION

# %%
check("11.3", touching);

# %% [markdown]
# Our version counts with a comparison for each pair of classes. Divided by their sum, the counts
# are shares. The *adjacency distance* is the total variation between the shares of two sets. The
# project does the same with `bincount`:

# %%
def my_adjacency(maps):
    shares = np.zeros((K, K))
    for c, d in zip(*np.triu_indices(K, 1)):
        for a, b in ((maps[:, 1:], maps[:, :-1]), (maps[:, :, 1:], maps[:, :, :-1])):
            shares[c, d] += ((a == c) & (b == d) | (a == d) & (b == c)).sum()
    return shares / max(1, shares.sum())

print(inspect.getsource(metrics._adjacency))

# %%
for name, maps in sets.items():
    distance = metrics.adjacency_distance(train, maps)
    if name != "constant":  # which has no such pairs
        mine = np.abs(my_adjacency(train) - my_adjacency(maps)).sum() / 2
        assert np.isclose(mine, distance)
    print(f"{name:9}{distance:.3f}")

# %% [markdown]
# The constant maps have no borders at all, so there are no shares to compare. The project counts
# this as a case of its own: the distance of such maps from any maps with borders is 1. The bars
# have few kinds of borders, and fail. Noise has nine times the floor. But its value is small,
# because most pixels are background, in noise too. So most borders are borders with the background.
# Here are the shares for real maps, noise and bars:

# %%
names = "background", "circle", "rectangle", "square"
_, axes = plt.subplots(1, 3, figsize=(6.2, 2.7), layout="constrained", sharey=True)
for axis, name in zip(axes, ("heldout", "noise", "bars")):
    shares = my_adjacency(sets[name])
    axis.imshow(shares[:-1, 1:], cmap="Greys", vmin=0, vmax=0.9)
    for c, d in zip(*np.triu_indices(K, 1)):
        axis.text(d - 1, c, f"{shares[c, d]:.2f}", ha="center", va="center", color="C3")
    axis.set(xticks=range(3), yticks=range(3), yticklabels=names[:-1], title=name)
    axis.set_xticklabels(names[1:], rotation=30)
plt.show()

# %% [markdown]
# The attack: shares do not say *how many* borders there are. Replace every second held-out map by
# pure background. Half of the shapes are missing, and the shares of the borders hardly change. The
# project therefore also measures the *boundary density*: the share of all neighbouring pairs that
# differ in class.

# %%
sets["half empty"] = heldout * (np.arange(n) % 2).astype(np.uint8)[:, None, None]
for name in "heldout", "half empty":
    print(f"{name:11}adjacency {metrics.adjacency_distance(train, sets[name]):.4f}, "
          f"boundary density {metrics.boundary_density(sets[name]):.4f}")
down, right = (np.diff(heldout.astype(int), axis=axis) != 0 for axis in (1, 2))
mine = (down.sum() + right.sum()) / (down.size + right.size)
assert np.isclose(mine, metrics.boundary_density(heldout))

# %% [markdown]
# ## 5. Regions: is it in one piece?
#
# A *region* is a set of pixels of one class, as large as can be, that are connected: one can walk
# from any of them to any other, from neighbour to neighbour, without leaving the class. (The usual
# name is *connected component*.) The background counts as a class too. Here is a simple way to find
# regions. Give each pixel a number of its own. In each round, two neighbours of the same class both
# take the smaller of their numbers. Repeat until nothing changes. Then each region has one number.

# %%
def one_round(numbers, m):
    """Both (H, W). Two neighbours of one class take the smaller number."""
    new = numbers.copy()
    for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        for here, there in (a, b), (b, a):
            smaller = np.minimum(new[here], new[there])
            new[here] = np.where(m[a] == m[b], smaller, new[here])
    return new

# %%
def number_regions(m, rounds=1000):
    numbers = np.arange(m.size).reshape(m.shape)
    for _ in range(rounds):
        before, numbers = numbers, one_round(numbers, m)
        if np.array_equal(before, numbers):
            break
    return numbers

# %%
m = train[np.argmax([metrics.components(x[None])["per map"] for x in train[:100]])]  # (H, W)
steps = {f"after {rounds}": number_regions(m, rounds) for rounds in (0, 2, 8, 32)}
assert np.array_equal(steps["after 32"], number_regions(m))
colors = rng.random((m.size, 3))  # one for each number
_, axes = plt.subplots(1, 5, figsize=(6.2, 1.7), layout="constrained")
axes[0].imshow(data.colored_shapes(32).palette[m]), axes[0].set_title("map", fontsize=9)
for axis, (name, numbers) in zip(axes[1:], steps.items()):
    axis.imshow(colors[numbers]), axis.set_title(name, fontsize=9)
[axis.set(xticks=[], yticks=[]) for axis in axes]
plt.show()

# %% [markdown]
# Each number has a random colour, and each title says after how many rounds. At first there are as
# many numbers as pixels. After 32 rounds one is left for each region. We can count them, and their
# pixels:

# %%
_, sizes = np.unique(number_regions(m), return_counts=True)
print(len(sizes), "regions of", sizes, "pixels")

# %% [markdown]
# The map has four classes, but five regions. The one of a single pixel is the upper left corner:
# rectangle and square cut it off from the rest of the background.
#
# The project gives two numbers. *Regions per map* is their mean number. *Speckle* is the share of
# regions with fewer than 4 pixels: the specks that a bad generator scatters.

# %%
def my_components(maps):
    areas = [np.unique(number_regions(m), return_counts=True)[1] for m in maps]
    areas = np.concatenate(areas)  # of all regions of all maps
    return len(areas) / len(maps), (areas < 4).mean()

mine, theirs = my_components(heldout[:40]), metrics.components(heldout[:40])
assert np.allclose(mine, list(theirs.values()))
for name, maps in sets.items():
    print(f"{name:11}", *(f"{key} {x:.3f}  " for key, x in metrics.components(maps).items()))

# %% [markdown]
# ### Exercise 11.4: one region
#
# *Difficulty 3 of 3 · 20 minutes · Good for: flood fill, the paint bucket of drawing programs.*
#
# How large is the region that contains a given pixel? Start with a list that holds this pixel. Take
# a pixel from the list, and put those of its neighbours on it that have the same class and have not
# been seen before. When the list is empty, you have seen the whole region. (If the check does not
# end, some pixel is put on the list again and again. Interrupt it.)

# %%
def region_size(m, row, column):
    """How many pixels of m (H, W) the region of the pixel (row, column) has."""
    todo, seen = [(row, column)], {(row, column)}
    ### BEGIN SOLUTION
    while todo:
        y, x = todo.pop()
        for near in (y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1):
            inside = 0 <= near[0] < m.shape[0] and 0 <= near[1] < m.shape[1]
            if inside and m[near] == m[row, column] and near not in seen:
                seen.add(near)
                todo.append(near)
    return len(seen)
    ### END SOLUTION

# %%
check("11.4", region_size);

# %% [markdown]
# Noise and the shuffled maps have more than a hundred regions each, nearly all of them specks. But
# the bars have four regions, as real maps do, with even less speckle: both numbers ignore the form
# and the place of a region. And a *low* speckle is no merit: the constant maps have none. The right
# value is that of real maps.

# %% [markdown]
# ## 6. Memorization: does it only copy?
#
# So far, the best samples would be copies of the training maps. They get 0 in every distance. But a
# generator that copies has learnt nothing: we have those maps already. So we look for the nearest
# training map of each sample. The *agreement* of two maps is the share of pixels that have the same
# class in both. The project also tries the mirror image, left for right.

# %% [markdown]
# ### Exercise 11.5: the nearest map
#
# *Difficulty 2 of 3 · 15 minutes · Good for: a mistake that makes every data set look memorized.*
#
# For each map of a set, find the nearest *other* map of the same set. The other one may also be
# mirrored, left for right. Return the agreement with it. If a map is in the set twice, each of the
# two is the other's nearest. All pairs at once fit in memory here: `maps[:, None] == maps[None]` is
# (N, N, H, W).

# %%
def nearest_other(maps):
    """(N, H, W) -> (N,): the agreement of each map with the nearest other one."""
    ### BEGIN SOLUTION
    nearest = np.zeros(len(maps))
    for oriented in maps, maps[:, :, ::-1]:
        agreement = (maps[:, None] == oriented[None]).mean((2, 3))  # (N, N)
        np.fill_diagonal(agreement, 0)
        nearest = np.maximum(nearest, agreement.max(1))
    return nearest
    ### END SOLUTION

# %%
check("11.5", nearest_other);

# %% [markdown]
# For two different sets nothing has to be left out. Our version takes one sample at a time. The
# project's is the same for many maps at once:

# %%
def my_nearest(maps, train):
    both = np.concatenate([train, train[:, :, ::-1]])
    return np.array([(both == m).mean((1, 2)).max() for m in maps])  # (N,)

print(inspect.getsource(metrics.nearest_agreement))
assert np.allclose(my_nearest(heldout[:20], train), metrics.nearest_agreement(heldout[:20], train))

# %% [markdown]
# How high is too high? New real maps also come near to some training map. So we compare: a sample
# counts as *memorized* if it is nearer than 99 % of the held-out maps are. By chance, 1 % of good
# samples count as memorized. We attack with five sets: training maps themselves, mirrored, upside
# down, and moved down by two pixels; and circles alone. For memorization, and for shapes below, we
# take 160 maps of each impostor, to save time.

# %%
sets |= {"copies": train, "mirrored": train[:, :, ::-1], "upside down": train[:, ::-1]}
sets["moved"] = np.roll(train, 2, axis=1)
sets["circles"] = (heldout == 1).astype(np.uint8)
few = {name: rng.permutation(maps)[:160 if name != "heldout" else n]
       for name, maps in sets.items()}
near = {name: metrics.nearest_agreement(maps, train) for name, maps in few.items()}
limit = np.quantile(near["heldout"], 0.99)
memorized = {name: (agreement > limit).mean() for name, agreement in near.items()}
theirs = metrics.memorization(train, few["circles"][:20], heldout)["memorized"]
assert theirs == (near["circles"][:20] > limit).mean()

# %%
plt.figure(figsize=(6.2, 3))
shown = "heldout", "upside down", "moved", "circles", "mirrored", "copies"
for name in shown:  # copies are filled, behind the mirrored ones
    style = dict(histtype="stepfilled", alpha=0.3) if name == "copies" else dict(histtype="step")
    plt.hist(near[name][:160], np.arange(0.8, 1.02, 0.005), label=name, **style)
plt.axvline(limit, color="k", ls="--", lw=1, label="limit")
plt.xlabel("agreement with the nearest training map"), plt.ylabel("maps")
plt.legend(fontsize=8), plt.tight_layout(), plt.show()
print({name: round(float(memorized[name]), 3) for name in shown})

# %% [markdown]
# Copies and mirror images are found, all of them: their agreement is 1. Copies that stand upside
# down or are moved by two pixels are not found. Pixel by pixel, they agree with a training map
# hardly better than new maps do. And the circles count as memorized far more often than new maps,
# though none is a copy. They are *simpler*: where both show background, they agree. So a high value
# calls for a look at the pairs, and a low value is no proof.

# %% [markdown]
# ## 7. Shapes: what did we really want?
#
# For Colored Shapes we know what a good map is: it has a circle, a rectangle and a square. How well
# does the class `circle` of a map fit an ideal circle? Lay the ideal on the map. The *intersection*
# is the number of pixels that belong to both, the *union* of those that belong to at least one.
# Their quotient is the *intersection over union*, or IoU: 1 for a perfect fit, 0 if nothing
# overlaps. We try all places of the ideal and take the best.

# %%
def my_circle_overlap(m, ideal):
    own, (h, w) = m == 1, ideal.shape
    windows = np.lib.stride_tricks.sliding_window_view(own, (h, w))  # (places, places, h, w)
    inside = (windows & ideal).sum((2, 3))
    return (inside / (own.sum() + ideal.sum() - inside)).max()

circle = metrics.ideal_shapes(side)[0][0]  # (11, 11) bool
mine = [my_circle_overlap(m, circle) for m in few["heldout"][:20]]
assert np.allclose(mine, metrics.shape_overlaps(few["heldout"][:20])[:, 0])

# %% [markdown]
# Shapes are drawn in this order: rectangle, square, circle. For rectangle and square the project
# does the same, but only for the part that later shapes do not cover. Is a high IoU enough? The
# attack: put a square in place of each circle, with the same area.

# %%
block = np.ones((9, 9), bool)  # 81 pixels; the circle has 81
fake = np.zeros((1, side, side), np.uint8)
fake[0, 10:19, 10:19] = 1
print(circle.sum(), block.sum(), f"IoU {my_circle_overlap(fake[0], circle):.2f}")
tiles = [np.pad(circle, 2), np.pad(block, 3), np.pad(circle, 2) ^ np.pad(block, 3)]
show(np.array(tiles).astype(np.uint8), columns=3)

# %% [markdown]
# From left to right: the circle, the square, and the pixels in which they differ. There are few, so
# the IoU is high. Therefore the project also measures the fit with a *counterpart* of the wrong
# form: for the circle a square, for the rectangle an ellipse, for the square a disc. A shape is
# good if its IoU with the ideal is at least 0.75, and higher than with the counterpart. An IoU of
# exactly 1 is good in any case: of a shape that is almost covered, so little may be visible that
# the counterpart fits it perfectly too. The `share` is that of the maps with three good shapes:

# %%
shape_share = {name: metrics.shape_metrics(maps)["share"] for name, maps in few.items()}
fit, other = (metrics.shape_overlaps(few["heldout"], counterparts=c) for c in (False, True))
mine = ((fit >= 0.75) & ((fit > other) | (fit == 1))).all(1).mean()
assert mine == shape_share["heldout"]
print({name: round(shape_share[name], 2) for name in ("heldout", "one map", "noise", "bars")})

# %% [markdown]
# Even real maps do not reach 1: sometimes a shape is covered by another. And here is the attack
# that wins: a single good map, repeated. This metric looks at one map at a time, so it does not
# notice.

# %% [markdown]
# ## All metrics, all attacks
#
# Each row below is a set, each column a metric. A metric *sees* a set if the value is more than
# three times that of the held-out maps, or less than a third of it. For distances, only high values
# count. Of good maps, 1 % count as memorized by chance, so that metric sees a set only from 10 %
# on. The last picture marks what is seen.

# %%
columns = {"classes": lambda x: metrics.class_frequency_distance(train, x),
           "FSD": lambda x: metrics.segmentation_distance(train, x),
           "spatial": lambda x: metrics.spatial_distance(train, x),
           "adjacency": lambda x: metrics.adjacency_distance(train, x),
           "boundary": metrics.boundary_density,
           "regions": lambda x: metrics.components(x)["per map"],
           "speckle": lambda x: metrics.components(x)["speckle"]}
values = np.array([[f(maps) for f in columns.values()] + [memorized[name], shape_share[name]]
                   for name, maps in sets.items()])  # (sets, metrics)

# %%
titles = [*columns, "memorized", "shapes"]
print(" " * 11, *(f"{title:>9}" for title in titles))
for name, row in zip(sets, values):
    print(f"{name:11}", *(f"{np.round(value, 7):9.3g}" for value in row))

# %%
too_high, too_low = values > 3 * values[0], values < values[0] / 3
too_low[:, [0, 1, 2, 3, 7]] = False  # distances, and memorized: low is good
too_high[:, 7] = values[:, 7] > 0.1
plt.figure(figsize=(6.4, 3.6))
plt.imshow(too_high | too_low, cmap="Oranges", vmax=2, aspect="auto")
plt.xticks(range(9), titles, rotation=35, ha="right"), plt.yticks(range(len(sets)), sets)
plt.title("which metric sees which set"), plt.tight_layout(), plt.show();

# %%
seen = {name: [t for t, x in zip(titles, row) if x] for name, row in zip(sets, too_high | too_low)}
for name in list(sets)[1:]:
    print(f"{name:12} seen by {', '.join(seen[name]) or 'none'}")
assert seen["copies"] == seen["mirrored"] == ["memorized"] and not seen["upside down"]

# %% [markdown]
# No row is marked everywhere, and no column either. Noise has the right class frequencies, the bars
# also the right FSD. (Speckle sees the bars because they have too little of it, which no user would
# count against them.) The shuffled maps have the right spatial prior. The one map has three good
# shapes. Where every second map is empty, the numbers of borders and shapes halve, which the limit
# of a third does not catch. Copies pass all but one metric. And upside-down copies pass all of
# them! As maps they are fine, since Colored Shapes have no up or down. But a generator that makes
# them has learnt them by heart. The moved copies pass too, though moving has cut some shapes apart
# at the edge.
#
# ## Summary
#
# - Total variation, $\frac{1}{2} \sum |p - q|$, compares two lists of shares.
# - Real maps against real maps do not give 0, but a noise floor, which falls like $1 / \sqrt{N}$.
#   (Squared distances such as FSD fall like $1 / N$.) Compare at the same $N$.
# - Class frequencies see no places, FSD sees areas only, and the spatial prior sees one pixel at a
#   time. Adjacency does not see how many borders there are, and the number of regions sees no
#   forms. Memorization compares pixel by pixel only. The share of good shapes sees one map at a
#   time.
# - So read several metrics together, and look at samples. For each metric, know an attack.
#
# **In the paper:** [section 4](https://arxiv.org/abs/1906.12195) uses metrics of images only, which
# are the subject of notebook 12. FSD comes from
# [Le Moing et al. 2021](https://arxiv.org/abs/2106.01629). **In the project:**
# [`segmentation_distance`](../metrics.py#segmentation_distance),
# [`spatial_distance`](../metrics.py#spatial_distance),
# [`adjacency_distance`](../metrics.py#adjacency_distance),
# [`components`](../metrics.py#components), [`memorization`](../metrics.py#memorization) and
# [`shape_share`](../metrics.py#shape_share). More impostors and metrics stand in
# [docs/metrics.md](../docs/metrics.md).
#
# **Next:** metrics of coloured images, in [notebook 12](12_measuring_images.ipynb).
