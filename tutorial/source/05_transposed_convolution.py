# %% [markdown]
# # 5. Transposed convolution: how do maps become larger?
#
# The discriminator makes maps smaller: each of its convolutions has stride 2 and halves the sides.
# The generator has to go the other way, from small maps to large ones. We could simply repeat each
# pixel, but then there is nothing to learn. Which operation enlarges a map, has weights that can be
# learned, and has gradients that we know?
#
# It turns out that we have written it already.
#
# You need: notebooks 3 and 4. Time: about 100 minutes, of which 65 are exercises.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import inspect
import matplotlib.pyplot as plt
import numpy as np
from kernels.gradient_check import directional_check
from kernels.numpy_ops import conv, conv_input_grad, conv_weight_grad
from kernels.plain import PlainOps
from semgan import Generator, Network, deconv_norm_relu, deconv_norm_relu_grad, settings
from tutorial.checks import check

# %% [markdown]
# ## A convolution is a matrix
#
# [Notebook 4](04_convolution.ipynb) showed a table of all outputs $o$ and pixels $i$ that meet:
# there is a tap $k$ with $i = o s + k - p$, for stride $s$ and padding $p$. Write the weight $w_k$
# into each cell of tap $k$, and 0 into the empty cells. Then multiply each number in row $o$ by its
# pixel and add up: this is $y_o$. And it is how a matrix multiplies a vector: $y = C x$.
#
# To find the matrix $C$ we need not look at the condition. Column $i$ of a matrix is what the
# matrix makes of a vector with a single 1, at place $i$. So we send seven such vectors through
# `conv`, as a batch of seven maps of height 1.

# %%
w = np.array([1.0, 2, 3]).reshape(1, 3, 1, 1)    # (kh, kw, Cin, Cout)
stride, pad = (1, 2), (0, 1)                     # each (y, x)
units = np.eye(7).reshape(7, 1, 7, 1)            # (B, H, W, Cin): row i has its 1 at pixel i
C = conv(units, w, stride, pad).reshape(7, 4).T  # (outputs, pixels)
print(C.astype(int))

# %%
fig, axes = plt.subplots(1, 2, figsize=(6, 2.9), width_ratios=(7, 4), layout="constrained")
for axis, matrix, name in zip(axes, (C, C.T), ("C: 7 pixels to 4", "C transposed: 4 to 7")):
    axis.imshow(np.where(matrix, matrix, np.nan), cmap="Pastel1", vmin=1, vmax=9)
    for (row, column), weight in np.ndenumerate(matrix):
        axis.text(column, row, int(weight), ha="center", va="center")
    axis.set(title=name, xticks=range(matrix.shape[1]), yticks=range(len(matrix)))
axes[0].set(xlabel="pixel", ylabel="output"), axes[1].set(xlabel="output", ylabel="pixel")
plt.show()

# %% [markdown]
# And the gradient? From notebook 4 we know that $dx_i$ is a sum along a *column*, of each weight
# times its $dy_o$. That is a product with the transposed matrix:
#
# $$y = C x, \qquad dx = C^\top dy$$

# %%
rng = np.random.default_rng(0)
x, dy = rng.standard_normal(7), rng.standard_normal(4)
y = conv(x.reshape(1, 1, 7, 1), w, stride, pad)                           # (1, 1, 4, 1)
dx = conv_input_grad(dy.reshape(1, 1, 4, 1), w, (1, 1, 7, 1), stride, pad)  # (1, 1, 7, 1)
assert np.allclose(y.ravel(), C @ x)
assert np.allclose(dx.ravel(), C.T @ dy)
print((C.T @ dy).round(3))

# %% [markdown]
# Look at the shapes: $C^\top$ takes 4 numbers to 7. With stride 2 a convolution makes maps smaller,
# so its input gradient makes them larger. Nothing says that we must use $C^\top$ on gradients only:
# we can multiply a map by it as well. Used in this way, as a step forward, it is called the
# **transposed convolution**. This is the operation that we were looking for, and the project's
# `conv_input_grad` computes it.
#
# ## Stamps
#
# What does it do to a map? Column $o$ of $C^\top$ holds the kernel, at the place of window $o$. So
# each pixel of the small map puts a *stamp* on the large map: the kernel, times the pixel. Stamps
# lie `stride` apart. Where they overlap, they add up. From here on, pixels of the small map are
# called small pixels, and those of the large map large pixels.

# %%
small = np.array([1.0, 3, 2, 2, 0.5])
kernel = np.array([0.5, 1, 0.5])
large = conv_input_grad(small.reshape(1, 1, 5, 1), kernel.reshape(1, 3, 1, 1), (1, 1, 9, 1),
                        stride, pad).ravel()
print(large)

# %%
plt.figure(figsize=(6, 2.8))
bottom = np.zeros(9)
for o, value in enumerate(small):
    stamp = np.zeros(11)  # the large map, and one pixel of padding on each side
    stamp[2 * o:2 * o + 3] = value * kernel
    plt.bar(np.arange(9), stamp[1:10], bottom=bottom, label=f"pixel {o}: {value}")
    bottom += stamp[1:10]
plt.xlabel("pixel of the large map"), plt.ylabel("value"), plt.legend(fontsize=8)
plt.show()
assert np.allclose(bottom, large)

# %% [markdown]
# The small map is there, at the even pixels. Each odd pixel got half of each of its two neighbours,
# and so it is their mean. With the kernel $\frac12, 1, \frac12$ the transposed convolution is
# linear interpolation:

# %%
assert np.allclose(large, np.interp(np.arange(9) / 2, np.arange(5), small))

# %% [markdown]
# And with a kernel of two ones it repeats each pixel. So two common ways to enlarge a map are
# special cases of it, and a network can learn these kernels or any others.

# %%
two_ones = np.ones((1, 2, 1, 1))
repeated = conv_input_grad(small.reshape(1, 1, 5, 1), two_ones, (1, 1, 10, 1), stride)
assert np.allclose(repeated.ravel(), small.repeat(2))

# %% [markdown]
# One warning. Some call the operation a *deconvolution*, and our layers are named `deconv1`,
# `deconv2`, ... But it does not undo a convolution. $C$ has no inverse, because 4 numbers cannot
# hold all that 7 numbers held, and $C^\top C x$ is not $x$:

# %%
print("x:      ", x.round(2))
print("C^T C x:", (C.T @ (C @ x)).round(2))

# %% [markdown]
# ## Without the matrix
#
# The matrix is good for explaining, but nobody computes with it. It has a row for each number of
# the output and a column for each number of the input. Take the first layer of the discriminator
# for Colored Shapes, the data set of notebook 4, in the project's default settings. It leads from
# 64x64 pixels with 4 channels to 32x32 pixels with 64 channels:

# %%
numbers = (32 * 32 * 64) * (64 * 64 * 4)
weights = 11 * 11 * 4 * 64
print(f"{numbers:,} numbers in the matrix, made of {weights:,} weights")

# %% [markdown]
# How can we then test that a function computes $C^\top$, if we cannot look at $C$? Take any vectors
# $x$ and $y$, as long as an input and an output, and multiply out:
#
# $$\langle y, C x \rangle = \sum_{o,\,i} y_o\, C_{oi}\, x_i = \langle C^\top y, x \rangle$$
#
# Here $\langle a, b \rangle$ is the *inner product*: the sum of all products of corresponding
# numbers. Only $C^\top$ satisfies this equation for all $x$ and $y$. It is called the *adjoint* of
# $C$. A wrong function fails for random $x$ and $y$.

# %% [markdown]
# ### Exercise 5.1: the adjoint test
#
# *Difficulty 1 of 3 · 10 minutes · Good for: testing a linear layer without finite differences.*
#
# Is `backward` the adjoint of `forward`? Return `True` or `False`. Both functions take one array:
# `forward` an array of `x_shape`, `backward` one of `y_shape`, and each returns an array of the
# other shape. Draw `x` and `y` from `rng`, and remember that floats are rounded.

# %%
def is_adjoint(forward, backward, x_shape, y_shape, rng):
    """Whether <y, forward(x)> = <backward(y), x>, for random x and y."""
    ### BEGIN SOLUTION
    x, y = rng.standard_normal(x_shape), rng.standard_normal(y_shape)
    return bool(np.isclose((y * forward(x)).sum(), (backward(y) * x).sum()))
    ### END SOLUTION

# %%
check("5.1", is_adjoint);

# %% [markdown]
# The project's tests do the same for its convolutions. Here is the test for maps with channels:

# %%
w = rng.standard_normal((5, 5, 3, 4))                    # (kh, kw, 3, 4): from 3 channels to 4
x = rng.standard_normal((2, 16, 12, 3))
y = rng.standard_normal((2, 8, 6, 4))
forward = (y * conv(x, w, 2, 2)).sum()
backward = (conv_input_grad(y, w, x.shape, 2, 2) * x).sum()
assert np.isclose(forward, backward)
print(f"{forward:.6f} {backward:.6f}")

# %% [markdown]
# ## 15 or 16?
#
# The number of outputs is rounded down. So at stride 2, always two sizes give the same number:

# %%
for size in range(13, 19):
    print(size, "->", conv(np.zeros((1, size, size, 1)), np.zeros((3, 3, 1, 1)), 2, 1).shape[1])

# %% [markdown]
# On the way back, 8 could become 15 or 16, and nothing in the small map says which. That is why
# `conv_input_grad` has the argument `x_shape`. The generator always asks for `stride` times the
# side of the small map. (PyTorch has the argument `output_padding` for the same purpose.)
#
# A size that does not fit is an error:

# %%
try:
    conv_input_grad(np.zeros((1, 8, 8, 1)), np.zeros((3, 3, 1, 1)), (1, 17, 17, 1), 2, 1)
except ValueError as error:
    print(error)

# %% [markdown]
# ### Exercise 5.2: all sizes that fit
#
# *Difficulty 2 of 3 · 10 minutes · Good for: layers whose sizes fit together.*
#
# For which sizes $H$ is $\lfloor (H + 2p - n) / s \rfloor + 1$ equal to `out`? Here $n$ is the
# kernel's size, and the brackets round down. Return all such $H$ as a list, the smallest first.
# A formula is shorter than a search. For stride 2, the table above shows what to expect.

# %%
def sizes_that_give(out, kernel, stride, pad):
    """All sizes from which a convolution makes `out` outputs."""
    ### BEGIN SOLUTION
    smallest = (out - 1) * stride + kernel - 2 * pad
    return list(range(smallest, smallest + stride))
    ### END SOLUTION

# %%
check("5.2", sizes_that_give);

# %% [markdown]
# ## The same, by a convolution
#
# In notebook 4 the input gradient at stride 1 was a convolution of `dy` with the flipped kernel and
# padding $n - 1 - p$. Does this work for larger strides? Put $k = n - 1 - k'$ into the condition
# $i = o s + k - p$, and solve it for $o s$:
#
# $$o\,s = i + k' - (n - 1 - p)$$
#
# The right side is that of a convolution of stride 1: for each tap $k'$, pixel $i$ of the large map
# looks at the place $i + k' - (n - 1 - p)$. The left side says what pixel $i$ finds there: the
# small pixel $o$, if the place is $o s$. At all other places there is nothing. So we spread the
# small map out. Pixel $o$ goes to place $o s$, and all places in between are zeros.

# %% [markdown]
# ### Exercise 5.3: zeros in between
#
# *Difficulty 3 of 3 · 20 minutes · Good for: seeing that enlarging a map is a convolution too.*
#
# Fill `u`, the map that is spread out, and convolve it, without calling `conv_input_grad`. The size
# of `u` is given. It is chosen so that a convolution with stride 1 and padding $n - 1 - p$ makes a
# map of the size we want. The weights, too, must change, as in exercise 4.4.

# %%
def by_spreading_out(x, w, y_shape, stride, pad):
    """x (B, h, w, Cin), w (n, n, Cout, Cin) -> y (B, H, W, Cout), with the project's `conv`."""
    n, (b, height, width, _) = len(w), y_shape
    u = np.zeros((b, height + 2 * pad - n + 1, width + 2 * pad - n + 1, x.shape[3]))
    ### BEGIN SOLUTION
    u[:, ::stride, ::stride] = x
    flipped = w[::-1, ::-1].transpose(0, 1, 3, 2)  # (n, n, Cin, Cout)
    return conv(u, flipped, pad=n - 1 - pad)
    ### END SOLUTION

# %%
check("5.3", by_spreading_out);

# %% [markdown]
# This explains the operation, but it is slow: at stride 2, three of four pixels of `u` are zeros,
# and they are multiplied all the same. `conv_input_grad` places stamps instead, and wastes no
# multiplications on zeros.
#
# ## Checkerboards
#
# How many stamps lie on a pixel of the large map? If the stride does not divide the kernel's size,
# that depends on the pixel.

# %% [markdown]
# ### Exercise 5.4: overlaps
#
# *Difficulty 2 of 3 · 10 minutes · Good for: recognizing an artifact when you see it.*
#
# For a row of `size` large pixels and `out` small ones: on how many stamps does each large pixel
# lie? Pixel $i$ lies on the stamp of $o$ if there is a tap $k$ with $i = o s + k - p$.

# %%
def overlaps(size, out, kernel, stride, pad):
    """The number of stamps on each large pixel: integers (size,)."""
    counts = np.zeros(size, int)
    ### BEGIN SOLUTION
    for o in range(out):
        for k in range(kernel):
            i = o * stride + k - pad
            if 0 <= i < size:
                counts[i] += 1
    ### END SOLUTION
    return counts

# %%
check("5.4", overlaps);

# %% [markdown]
# Let us see it on maps. Every small pixel is 1, and every weight too, so the transposed convolution
# counts the stamps. We go from 16x16 to 32x32 pixels, and look at the middle, where the border
# plays no part. The titles list the counts that occur.

# %%
def stamps(w, pad):
    large = conv_input_grad(np.ones((1, 16, 16, 1)), w, (1, 32, 32, 1), 2, pad)
    return large[0, 12:20, 12:20, 0]  # the middle, (8, 8)

# %%
fig, axes = plt.subplots(1, 3, figsize=(6.2, 2.4), layout="constrained")
for axis, n, pad in zip(axes, (3, 4, 11), (1, 1, 5)):
    counts = stamps(np.ones((n, n, 1, 1)), pad).astype(int)
    axis.imshow(counts, cmap="gray", vmin=0, vmax=counts.max())
    title = f"{n}x{n}: {', '.join(map(str, np.unique(counts)))}"
    axis.set(title=title, xticks=[], yticks=[])
plt.show()

# %% [markdown]
# Black would be 0, and white is the largest count. With a 3x3 kernel, pixels lie on 1, 2 or 4
# stamps. This is the *checkerboard*, well known from generated images
# ([Odena et al. 2016](https://distill.pub/2016/deconv-checkerboard/)). With a 4x4 kernel each pixel
# lies on 4. With 11x11, the paper's size for Colored Shapes, the counts still differ, but less: the
# largest, 36, is 1.44 times the smallest, 25. With 3x3 it is 4 times the smallest.
#
# Equal counts are not the whole story. There are four kinds of large pixels, with even or odd row
# and column, and each kind meets its own group of taps. If all small pixels are 1, a large pixel is
# the sum of the weights in its group. With random weights the four sums differ, even for a 4x4
# kernel:

# %%
w = np.random.default_rng(0).standard_normal((4, 4, 1, 1))
middle = stamps(w, 1)
groups = [[w[y::2, x::2].sum() for x in (1, 0)] for y in (1, 0)]
assert np.allclose(middle, np.tile(groups, (4, 4)))
print(np.round(groups, 2))

# %% [markdown]
# So a generator starts with checkerboards, whatever the size of its kernels, and has to learn to
# avoid them. It can learn this only if the discriminator notices them. This is one reason why the
# project compares features of *all* layers of the discriminator, the subject of notebook 8.
#
# Why then does the project use no even kernels? With an odd size $n$ and $p = (n - 1) / 2$, a
# window has a pixel in its middle, and at stride 1 a map keeps its size.
#
# ## Its gradients
#
# The transposed convolution is now a layer of its own, with a large output $y$ and a small input
# $x$. For training we need $dx$ and $dw$. There is little to derive. The triples that meet are
# those of the convolution, and so the sum of all $dy_i\, y_i$ looks like the sum $S$ of notebook 4:
#
# $$S = \sum_{o,\, k,\, i \,:\; i = o s + k - p} x_o\; w_k\; dy_i$$
#
# Only the letters have changed places. The small map, with index $o$, was `dy` and is now `x`. The
# large map, with index $i$, was `x` and is now `dy`. So which of the three functions of notebook 4
# gives $dx$, and which gives $dw$?

# %% [markdown]
# ### Exercise 5.5: both gradients
#
# *Difficulty 2 of 3 · 15 minutes · Good for: half of the generator's backward pass.*
#
# Use `conv`, `conv_input_grad` or `conv_weight_grad`, as they are. `x` is (B, h, w, Cin), `dy` is
# (B, H, W, Cout), and `w` is (kh, kw, Cout, Cin): the weights of the *convolution* from large to
# small.

# %%
def transposed_grads(dy, x, w, stride, pad):
    """dx and dw of y = conv_input_grad(x, w, y_shape, stride, pad)."""
    ### BEGIN SOLUTION
    dx = conv(dy, w, stride, pad)
    dw = conv_weight_grad(dy, x, w.shape, stride, pad)
    return dx, dw
    ### END SOLUTION

# %%
check("5.5", transposed_grads);

# %% [markdown]
# ## The project's layer
#
# A layer of the generator is a transposed convolution, then batch norm, then ReLU, $\max(x, 0)$.
# Batch norm, the subject of notebook 7, shifts and scales each channel. In the code `net` holds the
# parameters of a network, `ops` the operations, and `same(w)` is the padding $(n - 1) / 2$. `Kept`
# is what the backward pass needs again, and `rounded` changes nothing here:

# %%
print(inspect.getsource(deconv_norm_relu))

# %% [markdown]
# We can compare the first part, `a`, with ours. With given statistics, batch norm computes
# $\gamma (a - \text{mean}) / \sqrt{\text{var} + \varepsilon} + \beta$. In a new network, mean is 0,
# var is 1 and $\beta$ is 0. So with $\gamma = \sqrt{1 + \varepsilon}$ batch norm changes nothing.
# We make a network of a single layer. `settings` are the project's options, and `PlainOps` are its
# operations in plain NumPy:

# %%
rng, s = np.random.default_rng(0), settings(kernel_size=3)
shapes = {"deconv1.w": (3, 3, 2, 5), "deconv1.gamma": (2,), "deconv1.beta": (2,)}
net = Network(PlainOps(np.float64), s, shapes, rng)
net.params["deconv1.gamma"][...] = np.sqrt(1 + s.bn_eps)
x = rng.standard_normal((4, 3, 6, 5))                                      # (B, h, w, Cin)
y, _ = deconv_norm_relu(net, "deconv1", x, 2, training=False)              # (B, 2 h, 2 w, Cout)
a = conv_input_grad(x, net.params["deconv1.w"], (4, 6, 12, 2), 2, 1)
assert np.allclose(y, np.maximum(a, 0))
print(x.shape, "->", y.shape)

# %% [markdown]
# In the backward pass, batch norm gives `da`, the gradient with respect to `a`. The last two lines
# then compute `dw` and `dx`. In `conv_weight_grad`, the large map `da` comes first:

# %%
print(inspect.getsource(deconv_norm_relu_grad))

# %% [markdown]
# Are the last two lines right? We check them by finite differences, without batch norm:

# %%
w, da = net.params["deconv1.w"], rng.standard_normal(a.shape)
dx = conv(da, w, 2, 1)
dw = conv_weight_grad(da, x, w.shape, 2, 1)

def loss():
    return (conv_input_grad(x, w, a.shape, 2, 1) * da).sum()

directional_check(loss, [x, w], [dx, dw], rng)  # says nothing: all is well

# %% [markdown]
# The generator of the preset `"small"`, for maps of 32x32 pixels and here of four classes, begins
# with 4x4 and needs three of these layers. Note the order of the last two axes in the weights, Cout
# before Cin:

# %%
generator = Generator(PlainOps(), settings(preset="small"), classes=4, rng=rng)
print("first map:", *generator.base)
for name, p in generator.params.items():
    if name.startswith("deconv") and name.endswith(".w"):
        print(name, p.shape)

# %% [markdown]
# ## Summary
#
# - A convolution is a matrix $C$, and its input gradient is $C^\top$. With stride 2, $C$ halves the
#   sides of a map, and $C^\top$ doubles them. As a layer, $C^\top$ is the transposed convolution.
# - Each small pixel places a stamp: the kernel times the pixel. Stamps lie `stride` apart. This is
#   the same as putting zeros between the pixels and then convolving with the flipped kernel.
# - To test a function for $C^\top$ without knowing $C$, take random $x$ and $y$, and see whether
#   $\langle y, Cx \rangle = \langle C^\top y, x \rangle$.
# - At stride $s$, $s$ sizes give the same `out`. So on the way back the size must be given.
# - Unequal numbers of stamps show as checkerboards. Large kernels soften them.
# - The gradients of the transposed convolution are `conv` for the input, and
#   `conv_weight_grad(dy, x, ...)` for the weights.
#
# **In the project:** [`conv_input_grad`](../kernels/numpy_ops.py#conv_input_grad) in
# `kernels/numpy_ops.py`; [`deconv_norm_relu`](../semgan.py#deconv_norm_relu) and
# [`Generator`](../semgan.py#Generator) in `semgan.py`.
#
# **In the paper** ([arXiv 1906.12195](https://arxiv.org/abs/1906.12195)): Figure 1 shows the
# generator, with its transposed convolutions. It makes maps in $\Delta(L)^{W \times H}$
# (equation 2): $W$ by $H$ pixels, each with a probability for every class.
#
# **Next:** the last layer of the generator turns numbers into probabilities, and the losses judge
# them: [notebook 6](06_softmax_and_losses.ipynb).
