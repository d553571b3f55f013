# %% [markdown]
# # 12. Measuring images: how far apart are two sets of pictures?
#
# The metrics of [notebook 11](11_measuring_maps.ipynb) look at label maps, at their class ids. This
# notebook is about three metrics of coloured images, which are also used for photographs:
#
# - the *sliced Wasserstein distance* (SWD) compares small patches of two sets of images,
# - *MS-SSIM* says how alike the images of one set are,
# - the *Frechet distance* compares two sets by their means and covariances only.
#
# We build each of them up from its formula, and compare ours with the project's. Then we attack it:
# with noise, with one constant colour, with shuffled pixels, and with copies. A metric that a bad
# set of images can please is still useful. But we must know which sets these are.
#
# You need: means, variances and covariances, matrix products, and what an eigenvalue is. Time:
# about 110 minutes, of which 60 are exercises. If an exercise does not work out, run its check
# again: each time it helps more.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import inspect, itertools
import matplotlib.pyplot as plt
import numpy as np
from data import colored_shapes
from image_metrics import (_projected_distance, diversity, frechet_distance, laplacian_level,
                           ms_ssim, sliced_wasserstein)
from metrics import segmentation_distance
from tutorial.checks import check, show

# %% [markdown]
# Our images are Colored Shapes of 32 x 32 pixels. We shuffle the 729 maps, and take the first 100
# and the next 100 as two sets of real images, called `real` and `other`. A good generator would be
# as close to the first set as the second set is. Here are eight of the first:

# %%
shapes = colored_shapes(side=32)
order = np.random.default_rng(0).permutation(len(shapes.maps))
maps, other_maps = shapes.maps[order[:100]], shapes.maps[order[100:200]]  # (100, 32, 32) each
real, other = shapes.palette[maps], shapes.palette[other_maps]            # (100, 32, 32, 3) each
show(real[:8])

# %% [markdown]
# ## Moving numbers
#
# We begin with numbers instead of images. Let $a_1, \dots, a_N$ and $b_1, \dots, b_N$ be two sets
# of $N$ numbers. How far apart are they? Think of each $a_i$ as a small heap of sand that is to be
# moved to the place of some $b_j$. Each $b_j$ takes one heap. Moving a heap costs the distance
# $|a_i - b_j|$. The *Wasserstein distance* is the mean cost of the cheapest plan:
#
# $$W = \min_{\text{pairings } p} \; \frac{1}{N} \sum_i |a_i - b_{p(i)}|$$
#
# There are $N!$ pairings. Luckily we need not try them all. Take two heaps $a_1 \le a_2$ and two
# places $b_1 \le b_2$. If $a_1$ goes to $b_2$ and $a_2$ to $b_1$, the two ways cross. Exchange the
# two places: the cost stays the same or falls. So there is a cheapest plan in which no ways cross.
# In this plan the smallest $a$ goes to the smallest $b$, the second to the second, and so on. We
# only have to *sort* both sets. Here is a test with all $6! = 720$ pairings of six numbers:

# %%
rng = np.random.default_rng(1)
a, b = rng.normal(0, 1, 6), rng.normal(1, 2, 6)
costs = [np.abs(a - b[list(p)]).mean() for p in itertools.permutations(range(6))]
pairs_in_order = np.abs(np.sort(a) - np.sort(b)).mean()
assert np.isclose(pairs_in_order, min(costs))
print(f"cheapest of {len(costs)} pairings: {min(costs):.3f}; dearest: {max(costs):.3f}")

# %%
_, axes = plt.subplots(1, 2, figsize=(6.2, 2.2), layout="constrained")
pairings = {"as they come": (a, b), "sorted": (np.sort(a), np.sort(b))}
for axis, (title, (x, y)) in zip(axes, pairings.items()):
    axis.plot([x, y], [[1] * 6, [0] * 6], "k-", lw=0.8)
    axis.plot(x, [1] * 6, "bo"), axis.plot(y, [0] * 6, "rs")
    axis.set(title=f"{title}: {np.abs(x - y).mean():.2f}", yticks=[0, 1], yticklabels="ba")
    axis.set(ylim=(-0.3, 1.3), xlabel="value")
plt.show()

# %% [markdown]
# ### Exercise 12.1: the Wasserstein distance of numbers
#
# *Difficulty 1 of 3 · 10 minutes · Good for: a distance of two sets, in one line.*
#
# `a` and `b` are (N, D): D pairs of sets, one in each column. Return the D distances. Do not change
# `a` and `b`.

# %%
def wasserstein(a, b):
    """The Wasserstein distance of each column of a and b: (D,)."""
    ### BEGIN SOLUTION
    return np.abs(np.sort(a, 0) - np.sort(b, 0)).mean(0)
    ### END SOLUTION

# %%
check("12.1", wasserstein);

# %% [markdown]
# ## From numbers to patches
#
# A patch of 7 x 7 pixels with 3 colours is a vector of 147 numbers: a point in a space of 147
# dimensions. How do we compare two sets of such points? There is no order in which to sort them.
# But we can choose a direction, a unit vector $v$, and look at the points along it: each point $x$
# becomes one number, its *projection* $x \cdot v$. And two sets of numbers we can compare. Do this
# for many random directions and take the mean. This is the *sliced* Wasserstein distance.
#
# Is that enough? If two sets of points differ, some direction shows it: a theorem of Cramer and
# Wold says that all projections together determine the points. Here are two sets in two dimensions.
# Both have the mean 0, and both have the same spread along x and along y. Yet they differ in all
# other directions, most of all along the diagonals.

# %%
rng = np.random.default_rng(2)
round_set, long_set = rng.standard_normal((2, 1000, 2))           # (points, 2) each
long_set = long_set @ np.linalg.cholesky([[1, 0.8], [0.8, 1]]).T  # x and y now go together
angles = np.linspace(0, np.pi, 61)
directions = np.stack([np.cos(angles), np.sin(angles)])           # (2, 61), of length 1
p, q = (np.sort(points @ directions, 0) for points in (round_set, long_set))  # (1000, 61)
distances = np.abs(p - q).mean(0)                                 # (61,)

# %%
_, (left, right) = plt.subplots(1, 2, figsize=(6.2, 2.8), layout="constrained")
for points, name in (round_set, "round"), (long_set, "long"):
    left.plot(*points.T, ".", ms=2, label=name)
left.set_aspect("equal"), left.legend(markerscale=5, loc="upper left", fontsize=8)
left.set_title("two sets of points", fontsize=10)
right.set_title("their distance in each direction", fontsize=10)
right.plot(np.degrees(angles), distances)
right.set(xlabel="angle of the direction, in degrees", ylabel="distance", ylim=(0, None))
right.set_xticks([0, 45, 90, 135, 180])
plt.show()

# %% [markdown]
# Along x (0 degrees) and along y (90 degrees) the distance is small. It is not 0, since each set
# has only 1000 random points. At 45 degrees the long set is wider than the round one, and at 135
# degrees narrower: there the distance is large.
#
# ## The Laplacian pyramid
#
# A patch of 7 x 7 pixels sees edges and corners, but not how large a circle is. So the authors of
# SWD ([Karras et al. 2018](https://arxiv.org/abs/1710.10196)) take patches at several sizes of the
# image. They separate these sizes by a *Laplacian pyramid*, so that each level shows what the
# others do not.
#
# To halve an image, blur it, and take every second pixel. The blur is a weighted mean of five
# pixels, with the weights 1, 4, 6, 4, 1, divided by their sum 16. It is taken first along y, then
# along x. At the border the image is mirrored.

# %%
def my_blur(x):                                  # (H, W)
    for _ in range(2):                           # along y; transposed, along x
        p = np.pad(x, [(2, 2), (0, 0)], "reflect")
        x = sum(t * p[i:i + len(x)] for i, t in enumerate([1, 4, 6, 4, 1])).T / 16
    return x

halve = lambda x: my_blur(x)[::2, ::2]           # (H / 2, W / 2)

# %% [markdown]
# To double an image, put zeros between its pixels, and blur. Three of four pixels are zero, so the
# blurred image would be four times too dark. So we multiply by 4.

# %% [markdown]
# ### Exercise 12.2: twice as large
#
# *Difficulty 2 of 3 · 10 minutes · Good for: any pyramid of images.*
#
# Double `x`, (H, W). The pixels of `x` go to even rows and columns. `blur` is a function like
# `my_blur`.

# %%
def double(x, blur):
    """(2 H, 2 W): x with zeros between its pixels, blurred, and as bright as x."""
    ### BEGIN SOLUTION
    y = np.zeros((2 * x.shape[0], 2 * x.shape[1]))
    y[::2, ::2] = x
    return 4 * blur(y)
    ### END SOLUTION

# %%
check("12.2", double);

# %% [markdown]
# A level of the pyramid is what gets lost when an image is halved and doubled again. The last level
# is the small image itself. The project's function does all maps and colours at once:

# %%
print(inspect.getsource(laplacian_level))

# %%
red = real[0, ..., 0].astype(float)              # (32, 32): one image, one colour
zeros_between = np.zeros((32, 32))
zeros_between[::2, ::2] = halve(red)
fine = red - 4 * my_blur(zeros_between)          # (32, 32)
assert np.allclose(fine, laplacian_level(real[:1], 0, last=False)[0, ..., 0], atol=1e-4)
assert np.allclose(halve(red), laplacian_level(real[:1], 1, last=True)[0, ..., 0], atol=1e-4)
assert np.allclose(fine + 4 * my_blur(zeros_between), red)  # nothing is lost

# %%
titles = "image (red)", "fine level, 32 x 32", "last level, 16 x 16"
_, axes = plt.subplots(1, 3, figsize=(6.2, 2.2), layout="constrained")
for axis, title, picture in zip(axes, titles, (red, fine, halve(red))):
    low, high = (-255, 255) if picture is fine else (0, 255)
    axis.imshow(picture, cmap="gray", vmin=low, vmax=high), axis.set_title(title, fontsize=9)
    axis.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# Grey in the second picture is 0. The fine level has little but the edges. The last level has the
# shapes, without sharp edges. From both together we get the image back.
#
# ## The whole distance
#
# From each image take 128 patches at random places. Then, for each colour, subtract the mean and
# divide by the standard deviation. Both are taken over all patches of the set and all their pixels.
# So a set is not far away just because it is brighter or darker, or has more or less contrast.

# %% [markdown]
# ### Exercise 12.3: normalized patches
#
# *Difficulty 2 of 3 · 10 minutes · Good for: knowing what a metric cannot see.*
#
# Normalize M patches, so that each of the three colours has mean 0 and standard deviation 1 over
# the whole set. Return them as vectors of 147 numbers.

# %%
def normalized(patches):
    """(M, 3, 7, 7) -> (M, 147)."""
    ### BEGIN SOLUTION
    centred = patches - patches.mean((0, 2, 3), keepdims=True)
    return (centred / centred.std((0, 2, 3), keepdims=True)).reshape(len(patches), -1)
    ### END SOLUTION

# %%
check("12.3", normalized);

# %% [markdown]
# Now the whole distance, for images that are so small that they have one level only, the image
# itself. It draws its random numbers in the order of the project's function. So it must give the
# same number, not only a similar one.

# %%
def my_patches(images, rng):                     # (N, H, W, 3) -> (128 N, 147)
    n, h, w, _ = images.shape
    left, top = (rng.randint(side - 6, size=128 * n) for side in (w, h))
    patches = [images[i // 128, y:y + 7, x:x + 7] for i, (y, x) in enumerate(zip(top, left))]
    p = np.array(patches, float)                 # (128 N, 7, 7, 3)
    p = (p - p.mean((0, 1, 2))) / p.std((0, 1, 2))
    return p.transpose(0, 3, 2, 1).reshape(len(p), -1)  # colour, x, y

def my_directions(rng):                          # (147, 512), each of length 1
    v = rng.randn(4, 147, 128)
    return np.concatenate(v / np.linalg.norm(v, axis=1, keepdims=True), 1)

# %%
def my_swd(a, b):
    rng = np.random.RandomState(0)
    p = my_patches(a, rng)
    my_directions(rng)                           # drawn, but not used: see below
    q = my_patches(b, rng)
    v = my_directions(rng)
    return 1000 * np.abs(np.sort(p @ v, 0) - np.sort(q @ v, 0)).mean()

small, small_other = real[:30, ::2, ::2], other[:30, ::2, ::2]  # (30, 16, 16, 3)
print(f"ours: {my_swd(small, small_other):.4f}")
assert np.isclose(my_swd(small, small_other), sliced_wasserstein(small, small_other, batch=30)[16])

# %% [markdown]
# (The authors' program first compares the real set with itself, and draws directions for that. The
# project draws them too, to give the same numbers as that program. And the factor 1000 is there
# because the numbers are small.) Here is how the project compares two sets of patches. It sorts
# along rows, which are contiguous in memory, and takes several directions at once, on several
# threads:

# %%
print(inspect.getsource(_projected_distance))

# %% [markdown]
# ## The noise floor
#
# How large is the distance between two sets of real images? Not 0: they are different images. The
# more images there are, the nearer are the two sets. We measure it for 12, 48 and 192 images. Each
# time we draw ten pairs of sets, since single values vary much.

# %%
rng, counts, floor = np.random.default_rng(5), [12, 48, 192], []
for n in counts:
    rows = [rng.permutation(729)[:2 * n].reshape(2, n) for _ in range(10)]
    values = [sliced_wasserstein(*shapes.palette[shapes.maps[r]])["average"] for r in rows]
    floor.append(np.mean(values))
    print(f"{n:3} images: {floor[-1]:.0f} (from {min(values):.0f} to {max(values):.0f}), "
          f"times the root of {n}: {floor[-1] * n ** 0.5:.0f}")

# %%
plt.figure(figsize=(5, 2.6))
plt.loglog(counts, floor, "o-", label="real against real")
plt.loglog(counts, floor[0] * np.sqrt(12 / np.array(counts)), "k:", label="1 / root of N")
plt.xticks(counts, counts), plt.minorticks_off(), plt.yticks([20, 40, 80], [20, 40, 80])
plt.xlabel("images in each set"), plt.ylabel("SWD x 1000"), plt.legend()
plt.title("the noise floor of SWD", fontsize=10), plt.tight_layout(), plt.show();

# %% [markdown]
# Four times as many images halve the distance: it falls like $1 / \sqrt{N}$, the dotted line, as it
# does for means of independent numbers. A single value can be a third larger or smaller by chance.
# So an SWD says nothing without the number of images. Compare two values at equal numbers only, and
# always print the distance of real images from real images next to it: the *noise floor*.

# %% [markdown]
# ## Attacks
#
# Now we make bad sets of images, 100 in each. We compare each with the first real set, `real`. All
# but the copies are made from the *second* set, `other`, as a generator would draw maps that are
# new. "other real" is the second set itself: its value is what a bad set should exceed.
#
# - copies: the first set itself, as from a generator that has learnt its training maps by heart
# - faint noise: each colour of each pixel changes by up to 3 of 255
# - salt: 3 percent of the pixels get a random class
# - turned: by 90 degrees, so that the rectangles lie instead of standing
# - shuffled: the pixels of each map in a random order
# - one map, 100 times

# %%
rng = np.random.default_rng(3)
salted = np.where(rng.random(maps.shape) < 0.03, rng.integers(0, 4, maps.shape), other_maps)
turned = np.rot90(other_maps, axes=(1, 2))
shuffled = rng.permuted(other_maps.reshape(100, -1), axis=1).reshape(maps.shape)
faint = np.clip(other + rng.integers(-3, 4, other.shape), 0, 255).astype(np.uint8)
one = other_maps[:1].repeat(100, 0)
attacks = {"other real": other, "copies": real, "faint noise": faint}
attacks |= {name: shapes.palette[m] for name, m in
            [("salt", salted), ("turned", turned), ("shuffled", shuffled), ("one map", one)]}

# %%
_, axes = plt.subplots(1, 7, figsize=(6.2, 1.2), layout="constrained")
for axis, (name, images) in zip(axes, attacks.items()):
    axis.imshow(images[0], interpolation="nearest")
    axis.set(xticks=[], yticks=[]), axis.set_title(name, fontsize=8)
plt.show()

# %%
swd = {name: sliced_wasserstein(real, images) for name, images in attacks.items()}
for name, levels in swd.items():
    print(f"{name:12}" + "".join(f"{level:>9}: {d:5.1f}" for level, d in levels.items()))

# %% [markdown]
# Level 32 is the fine one, level 16 the small image. What do we see?
#
# - **Copies win.** They are nearer to the first set than other real maps are. They do not get 0,
#   though: both times the patches are taken at random places, so they are different patches of the
#   same images. SWD cannot tell a generator that copies from one that has learnt. Only a value
#   clearly *below* the noise floor can make you suspicious.
# - **Salt weighs more than form.** Salt in 3 of 100 pixels, of which 2 change, costs 158 at the
#   fine level, where the floor is 19. All rectangles lying instead of standing cost 30. To the eye,
#   the salted map is still a good map, and the turned one is wrong. Only the fine level sees the
#   salt.
# - **Faint noise** is hardly above the floor. You could not see it either.
# - **One map**, 100 times, is far away at the small level, where a patch sees a large part of an
#   image.

# %% [markdown]
# One colour everywhere cannot be measured at all. Its standard deviation is 0, and we would divide
# 0 by 0. The project says so:

# %%
try:
    sliced_wasserstein(real, np.full_like(real, 255))
except ValueError as error:
    print(error)

# %% [markdown]
# ## How alike are two images?
#
# A generator may draw the same good map again and again. So we also want to know how alike its
# images are *to each other*. MS-SSIM, *multi-scale structural similarity*, compares two images. The
# metric is its mean over pairs of images of one set. Low means diverse.
#
# Look at both images through the same small window, and take one colour. The window has weights
# that add up to 1, large in the middle and small at its edge: a Gaussian curve. Let $\mu_a$ and
# $\mu_b$ be the weighted means of the pixels, $\sigma_a^2$ and $\sigma_b^2$ their weighted
# variances, and $\sigma_{ab}$ their weighted covariance, the mean of
# $(a - \mu_a)(b - \mu_b)$. The *structural similarity* (SSIM) is a product of two factors:
#
# $$\underbrace{\frac{2 \mu_a \mu_b + c_1}{\mu_a^2 + \mu_b^2 + c_1}}_{\text{brightness } l}
# \cdot
# \underbrace{\frac{2 \sigma_{ab} + c_2}{\sigma_a^2 + \sigma_b^2 + c_2}}_{\text{structure } s}$$
#
# The brightness has the form $2 x y / (x^2 + y^2)$. Since $(x - y)^2 \ge 0$, this is at most 1, and
# it is 1 only if $x = y$. The structure is at most 1 too, since
# $2 \sigma_{ab} \le 2 \sigma_a \sigma_b \le \sigma_a^2 + \sigma_b^2$. It is 1 if both windows show
# the same, after their means are subtracted, near 0 if they have nothing to do with each other, and
# negative if one is dark where the other is bright. The small constants $c_1$ and $c_2$ keep us
# from dividing by 0 where both windows are black or have one colour each.

# %%
def windows_means(x):                            # (H, W, 3), H = W -> (H - n + 1, W - n + 1, 3)
    n = min(11, len(x))                          # smaller images get a smaller window
    g = np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (1.5 * n / 11)) ** 2)
    for _ in range(2):                           # along y; transposed, along x
        x = np.stack([g @ x[i:i + n].reshape(n, -1) / g.sum() for i in range(len(x) - n + 1)])
        x = x.reshape(len(x), -1, 3).transpose(1, 0, 2)
    return x

# %% [markdown]
# With these means we have all we need. The variance is the mean of the squares minus the square of
# the mean, and the covariance is found in the same way. (The
# [notebook on batch norm](07_batch_norm.ipynb) warns of this formula. Here it is harmless: we use
# float64, and no mean is above 255.)

# %%
def factors(a, b):                               # brightness and structure, for each window
    (ma, mb), (aa, bb, ab) = map(windows_means, (a, b)), map(windows_means, (a * a, b * b, a * b))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    structure = (2 * (ab - ma * mb) + c2) / (aa - ma * ma + bb - mb * mb + c2)
    return (2 * ma * mb + c1) / (ma * ma + mb * mb + c1), structure

# %% [markdown]
# Two images and both factors, as a mean over the three colours:

# %%
a, b = real[1].astype(float), real[3].astype(float)          # (32, 32, 3) each
_, axes = plt.subplots(1, 4, figsize=(6.2, 1.9), layout="constrained")
for axis, title, picture in zip(axes, ("a", "b", "brightness", "structure"),
                                (a / 255, b / 255, *(f.mean(-1) for f in factors(a, b)))):
    drawn = axis.imshow(picture, cmap="RdBu", vmin=-1, vmax=1)
    axis.set(xticks=[], yticks=[]), axis.set_title(title, fontsize=9)
plt.colorbar(drawn, ax=axes)
plt.show()

# %% [markdown]
# Dark blue is near 1. Where all of a window is white in both images, both factors are 1. Where it
# is white in one and coloured in the other, the brightness is lower, and the structure is near 0.
# (The last two pictures have fewer pixels: one for each place of the window.)
#
# *Multi-scale* means: measure this, halve both images by taking means of 2 x 2 pixels, measure
# again, and so on, at five scales. At each scale $j$ take the mean of the structure over all
# windows and colours, $s_j$. At the last scale take the mean of brightness times structure. A
# negative mean counts as 0. Then multiply the means, each to a power:
#
# $$\text{MS-SSIM} = s_1^{0.0448} \cdot s_2^{0.2856} \cdot s_3^{0.3001} \cdot s_4^{0.2363} \cdot
# s_5^{0.1333}$$

# %% [markdown]
# ### Exercise 12.4: five scales together
#
# *Difficulty 1 of 3 · 10 minutes · Good for: a NaN that you will meet again.*
#
# `means` is (N, S): for N pairs of images, the means at S scales. `weights` is (S,).

# %%
def together(means, weights):
    """The products over the scales, (N,)."""
    ### BEGIN SOLUTION
    return (means.clip(0) ** weights).prod(1)
    ### END SOLUTION

# %%
check("12.4", together);

# %%
def my_ms_ssim(a, b):                            # (H, W, 3) each
    result = 1
    for scale, weight in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333]):
        brightness, s = factors(a, b)
        s = (brightness * s).mean() if scale == 4 else s.mean()
        result = result * max(s, 0) ** weight
        a, b = ((x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4
                if scale < 4 else None for x in (a, b))
    return result

# %%
mine = [my_ms_ssim(a, b) for a, b in zip(real[:20].astype(float), other[:20].astype(float))]
found = ms_ssim(real[:20], other[:20])           # (20,)
assert np.allclose(mine, found)
print(found.round(2))

# %% [markdown]
# Many values are exactly 0. One negative mean is enough for that: a product with a factor 0 is 0.
# Colored Shapes are small and mostly white, and two maps seldom have a shape at the same place.
#
# The metric takes the images in pairs, the first with the second, the third with the fourth, and so
# on. It returns the mean, and the share of pairs with exactly 0. Now we attack it. Two more sets:
# *noise*, pixels of random classes, and *two maps*, which alternate.

# %%
i, j = 0, next(j for j in range(1, 100) if ms_ssim(other[:1], other[j:j + 1])[0] == 0)
attacks["two maps"] = other[np.tile([i, j], 50)]
attacks["noise"] = shapes.palette[rng.integers(0, 4, maps.shape)]
for name, images in attacks.items():
    value = diversity(images)
    print(f"{name:12}{value['mean']:6.3f}{value['zero pairs']:8.0%} of the pairs are 0")

# %% [markdown]
# - **One map**, 100 times, has the value 1. This is what the metric is for.
# - **Two maps that alternate look perfect**: 0. Each pair is the same two maps, and these two have
#   the value 0. The metric sees two images at a time, never the whole set.
# - **Noise wins**: it is less alike than real maps are.
# - **Turned maps and faint noise** have the value of the maps they were made from.
# - The copies are the first real set. The two real sets differ by 0.03 from each other, for no
#   reason but chance. So a smaller difference than this means nothing here.
#
# "Low means diverse" is therefore only half the rule. The value should be *near that of real
# images*, for the same number of pairs.

# %% [markdown]
# ## The Frechet distance
#
# Sorting needs all points of both sets. The *Frechet distance* keeps only the mean and the spread
# of each set, and asks how far apart two normal distributions with these would be.
# [Notebook 11](11_measuring_maps.ipynb) used it for the areas of classes. Here is the idea once
# more, in one dimension. A normal distribution is $m + s\,z$, with mean $m$, standard deviation
# $s$, and a normally distributed $z$ of mean 0 and variance 1. The numbers $m + s\,z$ have the same
# order as the $z$. So the best pairing gives both sets the same $z$. Now take the mean of the
# *squared* distances:
#
# $$\text{mean of } (m_1 + s_1 z - m_2 - s_2 z)^2 = (m_1 - m_2)^2 + (s_1 - s_2)^2$$
#
# (The mean of $z$ is 0, so the mixed term is gone; the mean of $z^2$ is 1.) Multiply out the last
# square: $s_1^2 + s_2^2 - 2 s_1 s_2$. In many dimensions the variances become covariance matrices
# $A$ and $B$, and the formula keeps its form:
#
# $$F = |m_1 - m_2|^2 + \operatorname{tr}(A) + \operatorname{tr}(B)
# - 2 \operatorname{tr} \big( (A B)^{1/2} \big)$$
#
# $\operatorname{tr}$ is the trace, the sum of the diagonal. The last trace is the sum of the square
# roots of the eigenvalues of $A B$. For $1 \times 1$ matrices, $A = s_1^2$ and $B = s_2^2$, it is
# $s_1 s_2$, as above. In spite of its name, $F$ is a squared distance.
#
# Programs that compute it in this way have trouble. $A B$ is not symmetric, and rounding errors
# make some of its eigenvalues complex, or slightly negative. This happens as soon as there are
# fewer points than dimensions, because then some eigenvalues are 0.

# %% tags=["varies"]
rng = np.random.default_rng(4)
few, few_more = rng.standard_normal((2, 20, 50))        # 20 points in 50 dimensions, twice
eigenvalues = np.linalg.eigvals(np.cov(few.T) @ np.cov(few_more.T))
print(f"{len(eigenvalues)} eigenvalues; with an imaginary part: {(eigenvalues.imag != 0).sum()}; "
      f"with a negative real part: {(eigenvalues.real < 0).sum()}")

# %% [markdown]
# There is a better way. Subtract the mean from the points, and divide by $\sqrt{N - 1}$: these rows
# are a matrix $X$, and $A = X^T X$. In the same way $B = Y^T Y$. Now we use that two products $U V$
# and $V U$ have the same eigenvalues, apart from zeros. Why? Let $U V x = \lambda x$, with
# $\lambda \ne 0$ and $x \ne 0$. Multiply by $V$: $V U (V x) = \lambda (V x)$. So the vector $V x$
# is an eigenvector of $V U$, with the same $\lambda$. (An eigenvector must not be 0. $V x$ is not:
# otherwise $U V x$ would be 0, but it is $\lambda x$.) So move the first $X^T$ to the end:
#
# $$A B = X^T (X Y^T Y) \quad \text{has the eigenvalues of} \quad
# (X Y^T Y) X^T = (X Y^T) (X Y^T)^T$$
#
# This is a matrix times its own transpose. The square roots of its eigenvalues are the *singular
# values* of $X Y^T$. These are never negative and never complex. Their sum is the trace we need.

# %% [markdown]
# ### Exercise 12.5: the Frechet distance
#
# *Difficulty 3 of 3 · 20 minutes · Good for: FID, and every other Frechet distance.*
#
# `a` is (N, D): N points in D dimensions. `b` is (M, D). `np.linalg.svd(m, compute_uv=False)` gives
# the singular values of `m`.

# %%
def frechet(a, b):
    """The Frechet distance of two sets of points, a number."""
    ### BEGIN SOLUTION
    gap = a.mean(0) - b.mean(0)
    x, y = ((p - p.mean(0)) / np.sqrt(len(p) - 1) for p in (a, b))
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return gap @ gap + (x * x).sum() + (y * y).sum() - 2 * root
    ### END SOLUTION

# %%
check("12.5", frechet);

# %% [markdown]
# The project's function has one more step. If there are more points than dimensions, $X Y^T$ is
# large. `qr` writes $X = Q_a R_a$, where $Q_a$ has orthogonal columns of length 1 and $R_a$ is
# small, and in the same way $Y = Q_b R_b$. Then $R_a R_b^T$ has the same singular values.

# %%
print(inspect.getsource(frechet_distance))

# %%
a, b = rng.normal(0, 1, (500, 1)), rng.normal(3, 2, (700, 1))        # one dimension
one_dimension = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
assert np.isclose(frechet_distance(a, b), one_dimension)
a, b = rng.standard_normal((2, 300, 8)) @ rng.standard_normal((2, 8, 8))  # eight dimensions
A, B, gap = np.cov(a.T), np.cov(b.T), a.mean(0) - b.mean(0)
root = np.sqrt(np.linalg.eigvals(A @ B).real).sum()
assert np.isclose(frechet_distance(a, b), gap @ gap + np.trace(A) + np.trace(B) - 2 * root)
assert frechet_distance(few, few) < 1e-9                             # fewer points than dimensions

# %% [markdown]
# ## Attacks on the Frechet distance
#
# **Another form.** The Frechet distance sees means and covariances only. Here is a ring, and a
# cloud of normally distributed points. We scale both so that they have the mean 0 and the same
# covariance, the unit matrix.

# %%
angle, radius = rng.uniform(0, 2 * np.pi, 1000), rng.normal(1, 0.05, 1000)
ring = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
cloud = rng.standard_normal((1000, 2))
ring, cloud = ((p - p.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(p.T))).T
               for p in (ring, cloud))
p, q = (np.sort(points @ directions, 0) for points in (ring, cloud))
frechet_value, sliced = frechet_distance(ring, cloud), np.abs(p - q).mean()
assert frechet_value < 1e-9 and sliced > 0.1
print(f"Frechet distance {frechet_value:.3f}, sliced Wasserstein distance {sliced:.3f}")

# %%
plt.figure(figsize=(3, 3))
for points, name in (cloud, "cloud"), (ring, "ring"):
    plt.plot(*points.T, ".", ms=2, label=name)
plt.title("same mean and covariance", fontsize=9)
plt.axis("equal"), plt.legend(markerscale=5, loc="upper right", fontsize=8)
plt.show()

# %% [markdown]
# **Too few points.** Two sets of the same distribution should have the distance 0. But means and
# covariances of few points are not exact, and any error makes the distance larger. In 50
# dimensions:

# %%
for n in 60, 240, 960:
    values = [frechet_distance(*rng.standard_normal((2, n, 50))) for _ in range(10)]
    print(f"{n:3} points: {np.mean(values):6.2f}, times {n}: {n * np.mean(values):.0f}")

# %% [markdown]
# The distance falls about as $1 / N$, and approaches 0 only for very many points. So here, too:
# compare at equal numbers, and print the value of real against real next to it.
#
# **What are the points?** The formula knows nothing of images. All depends on the numbers that
# describe an image, its *features*. The *Frechet segmentation distance* (FSD) of
# [notebook 11](11_measuring_maps.ipynb) takes the share of each class in a label map. FID, the
# *Frechet inception distance*, takes 2048 features from a network that was trained on photographs.
# (The project computes it, but must first download the network's weights, 96 MB. So FID is not in
# this notebook.) Let us attack FSD:

# %%
label_maps = {"other real": other_maps, "copies": maps, "salt": salted.astype(np.uint8),
              "turned": turned, "shuffled": shuffled, "one map": one}
fsd = {name: segmentation_distance(maps, m) for name, m in label_maps.items()}
for name, value in fsd.items():
    print(f"{name:12}{value:.6f}")
assert np.isclose(fsd["shuffled"], fsd["other real"]) and np.isclose(fsd["turned"], fsd["shuffled"])

# %% [markdown]
# Shuffled pixels and turned maps are exactly as good as the real maps they come from: the shares of
# the classes are the same. FSD asks how much of each class there is in each map, and nothing else.
# But it sees that the one map has another mean and no variety, and that salt brings too much of the
# rare classes.
#
# ## No metric alone
#
# All attacks together, each value divided by that of the other real maps:

# %%
print(f"{'':12}{'SWD':>8}{'MS-SSIM':>9}{'FSD':>8}")
for name in label_maps:
    ratios = (swd[name]["average"] / swd["other real"]["average"],
              diversity(attacks[name])["mean"] / diversity(other)["mean"],
              fsd[name] / fsd["other real"])
    print(f"{name:12}{ratios[0]:8.1f}{ratios[1]:9.1f}{ratios[2]:8.1f}")

# %% [markdown]
# The copies are as good as real maps or better, except in MS-SSIM, where the difference is chance.
# No metric of this notebook sees that they are copies. Shuffled maps and turned maps both please
# MS-SSIM and FSD. The one map pleases none of the three. Two maps, as we saw, look perfectly
# diverse to MS-SSIM. So use several metrics that are blind to different things, look for copies as
# [notebook 11](11_measuring_maps.ipynb) does, and look at the images.

# %% [markdown]
# ## Summary
#
# - The Wasserstein distance of two sets of numbers: sort both, and take the mean of the absolute
#   differences. SWD does this for random projections of patches, at each level of a Laplacian
#   pyramid.
# - SWD sees colours, edges and sizes. It does not see copies. Noise in single pixels weighs more
#   than wrong forms.
# - MS-SSIM compares brightness and structure in small windows, at five scales. A negative mean
#   counts as 0. As a measure of diversity it finds repetition, but noise is "more diverse" than
#   real maps, and it sees two images at a time only.
# - The Frechet distance compares means and covariances of features. Singular values give its last
#   term without complex numbers. What the features do not see, it does not see.
# - SWD and the Frechet distance fall when there are more images. Compare at equal numbers, and
#   print real against real.
#
# **In the project:** [`sliced_wasserstein`](../image_metrics.py#sliced_wasserstein),
# [`ms_ssim`](../image_metrics.py#ms_ssim), [`diversity`](../image_metrics.py#diversity) and
# [`frechet_distance`](../image_metrics.py#frechet_distance). `python semgan.py evaluate RUN` prints
# all metrics of a run beside those of real maps. [What each metric is blind
# to](../docs/metrics.md) has a table with more attacks.
#
# **In the paper** ([arXiv 1906.12195](https://arxiv.org/abs/1906.12195)): Figures 4 and 5 compare
# SemGAN and the GAN by SWD, and Table 1 also by FID and MS-SSIM. SWD, and MS-SSIM as a measure of
# diversity, come from [Karras et al. 2018](https://arxiv.org/abs/1710.10196), FID from
# [Heusel et al. 2017](https://arxiv.org/abs/1706.08500).
#
# **Next:** what happens inside a GPU: [notebook 13](13_first_kernel.ipynb). To see what a trained
# generator can do, go to [notebook 16](16_latent_space_and_your_maps.ipynb).
