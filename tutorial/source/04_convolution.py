# %% [markdown]
# # 4. Convolution: how do three sums follow from one condition?
#
# A single pixel says little. A blue one may lie in the middle of a circle or at its edge, and only
# its neighbours tell. A convolution looks at every pixel together with its neighbours, and
# everywhere in the same way. Both networks of this project, the *generator*, which draws maps, and
# the *discriminator*, which judges them, consist of hardly anything else.
#
# To train a network we need three things from a convolution: its output, and the gradients with
# respect to its two inputs, the map and the weights. Must we derive three formulas? In this
# notebook all three follow from one condition, which fits on one line.
#
# You need: matrix products in NumPy, and notebook 3. Time: about 110 minutes, of which 70 are
# exercises.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import inspect
import time
import matplotlib.pyplot as plt
import numpy as np
from data import colored_shapes
from kernels import fourier_conv, gradient_check, numpy_engine
from kernels.numpy_ops import conv, conv_input_grad, conv_weight_grad, pad_maps, taps
from tutorial.checks import check

# %% [markdown]
# ## Weights for the neighbours
#
# A convolution has a *kernel*: one weight for each position in a small window. The window moves
# over the map. At each place the pixels in it are multiplied by the weights, and the products are
# added up. The result is one pixel of the output.
#
# Take the weights $-1, 0, 1$ for the left neighbour, the pixel, and the right neighbour. Where all
# three are equal, the result is 0. At the left edge of a shape it is positive, at the right edge
# negative. Turned by 90 degrees, the same kernel finds upper and lower edges.
#
# We try it on a map of the data set Colored Shapes, of 32x32 pixels (0 is the seed of its random
# numbers). Each pixel is the number of its class: 0 is the background, 1 the circle, 2 the
# rectangle, 3 the square. The project's `conv` takes batches of maps with several numbers in each
# pixel, so the arrays have four axes. Here there is one map, with one number in a pixel. `pad` puts
# zeros around the map, so that the output is as large as the input. We come back to all of this.

# %%
labels = colored_shapes(32, 0).maps[0]               # (32, 32)
x = (labels == 1)[None, :, :, None].astype(float)    # (1, 32, 32, 1): 1 in the circle, 0 elsewhere
w = np.array([-1.0, 0, 1]).reshape(1, 3, 1, 1)       # a kernel 1 high and 3 wide
across = conv(x, w, pad=(0, 1))                      # (1, 32, 32, 1)
down = conv(x, w.reshape(3, 1, 1, 1), pad=(1, 0))    # (1, 32, 32, 1)

# %%
fig, axes = plt.subplots(1, 3, figsize=(6.2, 2.2), layout="constrained")
for axis, a, title in zip(axes, (x, across, down), ("circle", "right - left", "below - above")):
    picture = axis.imshow(a[0, :, :, 0], cmap="RdBu", vmin=-1, vmax=1)
    axis.set_title(title, fontsize=10), axis.set_xticks([]), axis.set_yticks([])
fig.colorbar(picture, ax=axes, ticks=[-1, 0, 1], shrink=0.8)
plt.show()

# %% [markdown]
# Blue is positive, red negative. Here we chose the weights. A network learns them, and for that we
# need gradients.
#
# ## The condition
#
# We begin with one row of pixels $x_0, x_1, \dots$ and a kernel of $n$ weights
# $w_0, \dots, w_{n-1}$. Three choices fix a convolution:
#
# - the kernel's size $n$;
# - the *stride* $s$: how far the window moves from one output to the next;
# - the *padding* $p$: how many zeros we imagine before the first and after the last pixel, so that
#   windows may reach over the border.
#
# The first window starts at $-p$, the next at $s - p$, and the window of output $o$ at $o s - p$.
# So its weight number $k$ lies on pixel
#
# $$\boxed{\; i = o\,s + k - p \;}$$
#
# This is the condition. We say that output $o$, weight $k$ and pixel $i$ *meet* if it holds. Output
# $o$ is the sum over all $k$ and $i$ that it meets:
#
# $$y_o = \sum_{k,\, i \,:\; i = o s + k - p} x_i\, w_k$$
#
# Pixels outside the map are zeros and add nothing. A position $k$ in a kernel is called a *tap*.

# %% [markdown]
# ### Exercise 4.1: how many outputs?
#
# *Difficulty 1 of 3 · 5 minutes · Good for: every shape in a network.*
#
# The last window must not reach further than the padding: its last weight lies at most on pixel
# $H + p - 1$, where $H$ is the number of pixels. How many windows fit?

# %%
def output_size(size, kernel, stride, pad):
    """The number of outputs for `size` pixels."""
    ### BEGIN SOLUTION
    return (size + 2 * pad - kernel) // stride + 1
    ### END SOLUTION

# %%
check("4.1", output_size);

# %% [markdown]
# ### Exercise 4.2: a row
#
# *Difficulty 1 of 3 · 10 minutes · Good for: the definition, and its trouble at the border.*
#
# Compute $y_o$ with loops, straight from the condition. Do not pad `x`: leave out pixels that lie
# outside the map.

# %%
def conv_row(x, w, out, stride, pad):
    """x (H,), w (n,) -> y (out,)."""
    y = np.zeros(out)
    for o in range(out):
        for k in range(len(w)):
            ### BEGIN SOLUTION
            i = o * stride + k - pad
            if 0 <= i < len(x):
                y[o] += x[i] * w[k]
            ### END SOLUTION
    return y

# %%
check("4.2", conv_row);

# %% [markdown]
# ## All that meet, in one table
#
# Let us list all triples $(o, k, i)$ that satisfy the condition, for 7 pixels and 3 weights with
# padding 1: first as numbers, at stride 2, and then as pictures, at strides 1 and 2. In the
# pictures a row is an output, a column is a pixel, and the number is the tap.

# %%
def meeting(size, out, kernel, stride, pad):
    """All (o, k, i) with i = o stride + k - pad, and i inside the map."""
    return [(o, k, o * stride + k - pad) for o in range(out) for k in range(kernel)
            if 0 <= o * stride + k - pad < size]

print(meeting(7, 4, 3, 2, 1))

# %%
fig, axes = plt.subplots(1, 2, figsize=(6.2, 2.8), layout="constrained")
for axis, stride, out in zip(axes, (1, 2), (7, 4)):
    table = np.full((out, 7), np.nan)
    for o, k, i in meeting(7, out, 3, stride, 1):
        table[o, i] = k
        axis.text(i, o, k, ha="center", va="center")
    axis.imshow(table, cmap="Pastel1", vmin=0, vmax=8)
    axis.set(title=f"stride {stride}", xlabel="pixel i", ylabel="output o", yticks=range(out),
             xticks=range(7))
plt.show()

# %% [markdown]
# Read along a **row**, and you see which pixels one output needs, and through which tap: this is
# the sum for $y_o$. The same table has two more readings.
#
# ## Two more sums
#
# The loss depends on $y$, and the layers above hand us its gradient $dy_o$, short for
# $\partial\, \text{loss} / \partial y_o$. We look for $dx_i$ and $dw_k$, the gradients with respect
# to the pixels and to the weights. The chain rule goes through every output that $x_i$ is part of:
#
# $$dx_i = \sum_o dy_o \frac{\partial y_o}{\partial x_i}, \qquad
#   dw_k = \sum_o dy_o \frac{\partial y_o}{\partial w_k}$$
#
# $y_o$ is a sum of products $x_i w_k$. The derivative of such a product with respect to $x_i$ is
# $w_k$, and with respect to $w_k$ it is $x_i$. Therefore, with the same condition as before:
#
# $$dx_i = \sum_{o,\, k \,:\; i = o s + k - p} dy_o\, w_k, \qquad
#   dw_k = \sum_{o,\, i \,:\; i = o s + k - p} dy_o\, x_i$$
#
# So $dx_i$ sums along a **column** of the table, and $dw_k$ over all cells of one **colour**. Three
# sums over the same triples:

# %%
rng = np.random.default_rng(1)
x, w, dy = rng.standard_normal(7), rng.standard_normal(3), rng.standard_normal(4)
y, dx, dw = np.zeros(4), np.zeros(7), np.zeros(3)
for o, k, i in meeting(7, 4, 3, 2, 1):
    y[o] += x[i] * w[k]
    dx[i] += dy[o] * w[k]
    dw[k] += dy[o] * x[i]
print(dx.round(3), dw.round(3), sep="\n")

# %% [markdown]
# There is an even shorter way to say this. Take a loss like that of notebook 3, the sum of all
# products $dy_o\, y_o$ ([notebook 3](03_checking_gradients.ipynb) did this with `dp` and `p`), and
# put in the sum for $y_o$:
#
# $$S = \sum_{o,\, k,\, i \,:\; i = o s + k - p} dy_o\; x_i\; w_k$$
#
# Its derivative with respect to $dy_o$ is $y_o$, with respect to $x_i$ it is $dx_i$, and with
# respect to $w_k$ it is $dw_k$. Each product in $S$ has one factor of each kind. So if we multiply
# every $dy_o$ by its derivative $y_o$ and add up over $o$, we get $S$ again. The same holds for
# $x_i\, dx_i$, added up over $i$, and for $w_k\, dw_k$ over $k$:

# %%
print(f"{(dy * y).sum():.6f} {(x * dx).sum():.6f} {(w * dw).sum():.6f}")

# %% [markdown]
# The project has a function for each of the three sums. As we saw with `conv`, they take arrays of
# four axes. Our row is a batch of one map, of height 1 and with one number in each pixel:

# %%
row_x, row_w, row_dy = x.reshape(1, 1, 7, 1), w.reshape(1, 3, 1, 1), dy.reshape(1, 1, 4, 1)
stride, pad = (1, 2), (0, 1)  # each (y, x)
assert np.allclose(conv(row_x, row_w, stride, pad).ravel(), y)
assert np.allclose(conv_input_grad(row_dy, row_w, row_x.shape, stride, pad).ravel(), dx)
assert np.allclose(conv_weight_grad(row_x, row_dy, row_w.shape, stride, pad).ravel(), dw)

# %% [markdown]
# ## Maps and channels
#
# Real maps differ from our row in three ways.
#
# - They have two directions. The condition then holds in both: $i_y = o_y s + k_y - p$ and
#   $i_x = o_x s + k_x - p$.
# - There are $B$ of them in a batch. All use the same weights, so `dw` sums over the batch too. As
#   an array, a batch is (B, H, W, C): maps, height, width and channels.
# - A pixel is a vector of $C_\text{in}$ numbers, its *channels*, and an output a vector of
#   $C_\text{out}$. The weight of a tap is then a matrix, and $x_i w_k$ becomes the product of a row
#   vector and this matrix. Its channel $c$ is $\sum_j x_j\, w_{jc}$. All weights together are an
#   array (kh, kw, Cin, Cout): the kernel's height and width, and a matrix for each tap.
#
# The gradients of this product, $y = x\,w$, are the only new thing. By the chain rule, as before:
#
# $$dx_j = \sum_c dy_c\, w_{jc} \;\text{ is }\; dy\, w^\top, \qquad
#   dw_{jc} = x_j\, dy_c \;\text{ is }\; x^\top dy$$

# %%
def my_convolutions(x, w, dy, stride, pad):
    y, dx, dw = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(w)
    (_, height, width, _), (_, ho, wo, _), (kh, kw, _, _) = x.shape, dy.shape, w.shape
    for oy, ky, iy in meeting(height, ho, kh, stride, pad):
        for ox, kx, ix in meeting(width, wo, kw, stride, pad):
            y[:, oy, ox] += x[:, iy, ix] @ w[ky, kx]      # (B, Cin) @ (Cin, Cout)
            dx[:, iy, ix] += dy[:, oy, ox] @ w[ky, kx].T  # (B, Cout) @ (Cout, Cin)
            dw[ky, kx] += x[:, iy, ix].T @ dy[:, oy, ox]  # (Cin, B) @ (B, Cout)
    return y, dx, dw

# %%
x = rng.standard_normal((4, 7, 6, 3))  # (B, H, W, Cin)
w = rng.standard_normal((3, 3, 3, 5))  # (kh, kw, Cin, Cout)
dy = rng.standard_normal((4, 4, 3, 5))  # (B, Ho, Wo, Cout)
y, dx, dw = my_convolutions(x, w, dy, 2, 1)
assert np.allclose(conv(x, w, 2, 1), y)
assert np.allclose(conv_input_grad(dy, w, x.shape, 2, 1), dx)
assert np.allclose(conv_weight_grad(x, dy, w.shape, 2, 1), dw)

# %% [markdown]
# Our gradients and the project's could be wrong in the same way. So we compare them with finite
# differences, which know none of our formulas. They agree. But if we flip the kernel in `dx`, which
# is an easy mistake to make, they do not:

# %%
def loss():
    return (conv(x, w, 2, 1) * dy).sum()

gradient_check.directional_check(loss, [x, w], [dx, dw], rng)  # says nothing: all is well
flipped = conv_input_grad(dy, w[::-1, ::-1], x.shape, 2, 1)
try:
    gradient_check.directional_check(loss, [x], [flipped], rng)
except AssertionError:
    print("The flipped kernel is found.")

# %% [markdown]
# ## Tap by tap
#
# Our loops touch every pixel one by one, which is slow in Python. Let us look at the table again,
# at one colour only. Tap $k$ meets the pixels $k - p,\; s + k - p,\; 2s + k - p, \dots$ If we put
# $p$ zeros before the map, these pixels stand at $k,\; s + k,\; 2s + k, \dots$: a slice with step
# $s$. So one line gives all outputs their products with tap $k$, and only a loop over taps is left.
#
# The project's code needs three tools for it. `np.ndindex(3, 3)` goes through all pairs (0, 0),
# (0, 1), ... `np.s_[:, 1:9:2]` keeps the index `[:, 1:9:2]` in a variable, for later use. And
# `pair` makes (2, 2) of the stride 2: one number along y, one along x.

# %%
print(inspect.getsource(taps))
print(inspect.getsource(conv))

# %% [markdown]
# `padded[pixels]` is (B, Ho, Wo, Cin), and `@` multiplies its last axis by the matrix of the tap.
# The last line adds a bias and applies an activation. Both are subjects of notebook 6. Here we pass
# neither, and the line changes nothing.

# %%
padded = pad_maps(x, 1)  # (4, 9, 8, 3)
print("padded:", padded.shape)
for tap, pixels in list(taps(w.shape, y.shape, 2))[:4]:
    print("tap", tap, "rows", pixels[1], "columns", pixels[2], padded[pixels].shape)

# %% [markdown]
# ### Exercise 4.3: the gradient of the weights
#
# *Difficulty 2 of 3 · 15 minutes · Good for: the sum that training is all about.*
#
# Complete the loop, without calling `conv_weight_grad`. `padded[pixels]` (B, Ho, Wo, Cin) holds the
# pixels that meet the tap. At the same places, `dy` (B, Ho, Wo, Cout) holds the gradients of the
# outputs that these pixels meet. `my_convolutions` took the product of two matrices for one output
# pixel after the other. Now all output pixels are there at once, on four axes instead of two.

# %%
def weight_grad(x, dy, w_shape, stride, pad):
    """dw of w_shape (kh, kw, Cin, Cout)."""
    dw = np.zeros(w_shape)
    padded = pad_maps(x, pad)
    for tap, pixels in taps(w_shape, dy.shape, stride):
        ### BEGIN SOLUTION
        dw[tap] = np.einsum("bhwi,bhwo->io", padded[pixels], dy)
        ### END SOLUTION
    return dw

# %%
check("4.3", weight_grad);

# %% [markdown]
# Here are the project's functions for `dw`, as in this exercise, and for `dx`. In the latter, each
# output *scatters*: it adds `dy @ w[tap].T` to each pixel that it came from. Where windows overlap,
# `+=` adds up. (`check_dy` raises an error if the shapes do not fit, `crop_maps` takes the padding
# off again, and `np.tensordot` multiplies and sums over the axes 0, 1 and 2 of both arrays.)

# %%
print(inspect.getsource(conv_weight_grad))
print(inspect.getsource(conv_input_grad))

# %% [markdown]
# ## Where a gradient goes
#
# Let us look at the scattering. The kernel below has a different weight at each tap. On the left a
# single output pixel has a gradient, 1, and we see what it sends back. On the right a single input
# pixel is 1, all others are 0, and we see the outputs it reaches. The red frame marks the place of
# this single pixel: on the left of an output pixel, on the right of an input pixel.

# %%
w_toy = (9 - np.arange(9.0)).reshape(3, 3, 1, 1)  # 9 at the upper left, 1 at the lower right
one = np.zeros((1, 7, 7, 1))
one[0, 3, 3] = 1
sent_back = conv_input_grad(one, w_toy, one.shape, 1, 1)
reached = conv(one, w_toy, 1, 1)

# %%
fig, axes = plt.subplots(1, 2, figsize=(6, 2.9), layout="constrained")
for axis, a, title in zip(axes, (sent_back, reached), ("dx of one dy", "y of one x")):
    axis.imshow(a[0, :, :, 0], cmap="Blues", vmin=0, vmax=14)
    axis.add_patch(plt.Rectangle((2.5, 2.5), 1, 1, fill=False, edgecolor="red", linewidth=2))
    for iy, ix in np.argwhere(a[0, :, :, 0]):
        axis.text(ix, iy, int(a[0, iy, ix, 0]), ha="center", va="center")
    axis.set_title(title), axis.set_xticks([]), axis.set_yticks([])
plt.show()

# %% [markdown]
# On the left the gradient goes back to the pixels of one window, and we see the kernel as it
# stands. On the right the kernel is flipped in both directions. For an output below the pixel, the
# pixel lies in the upper part of the window, so it meets one of the upper weights, 9, 8 or 7.
#
# So `conv` shows a flipped kernel. To get the left picture with `conv`, we must flip the kernel
# first: flipped twice, it stands as it was. `conv_input_grad` scatters and needs no flip, which is
# why a flip was a mistake above.

# %% [markdown]
# ### Exercise 4.4: gather instead of scatter
#
# *Difficulty 3 of 3 · 20 minutes · Good for: GPUs, where each thread gathers a pixel of `dx`.*
#
# To scatter is to go through the outputs and add to pixels. To *gather* is to go through the pixels
# of `dx`, and to fetch for each what it needs. A convolution gathers. With stride 1, `dx` is itself
# a convolution: of `dy`, with other weights and another padding.
#
# Solve the condition for $o$: now $k$ has a minus sign. Write it as $o = i + k' - p'$, where $k'$
# has a plus sign. This is the condition once more, with `dx` as the output and `dy` as the input.
# Its tap $k'$, too, must count from 0 to $n - 1$, but from the other end of the kernel. What is
# $k'$, and what is $p'$? And must the matrix of each tap be transposed? Call `conv` only, not
# `conv_input_grad`. (Here $p$ is at most $n - 1$, as in every network, so $p'$ is not negative.)

# %%
def input_grad_by_conv(dy, w, pad):
    """dx (B, H, W, Cin) at stride 1, with the project's `conv`. w is (n, n, Cin, Cout)."""
    ### BEGIN SOLUTION
    flipped = w[::-1, ::-1].transpose(0, 1, 3, 2)  # (n, n, Cout, Cin)
    return conv(dy, flipped, pad=len(w) - 1 - pad)
    ### END SOLUTION

# %%
check("4.4", input_grad_by_conv);

# %% [markdown]
# ## One matrix product
#
# `conv` needs a matrix product for each tap: 121 of them for an 11x11 kernel. If there are few
# channels, these products are small, and one large product is faster, as we measure below. So we
# write each window as a row of a matrix, tap after tap, and within each tap channel after channel.
# This is called *im2col*. The weights become a matrix with one column for each output channel, and
#
# $$\text{windows } (B H_o W_o,\; k_h k_w C_\text{in}) \;\cdot\;
#   \text{weights } (k_h k_w C_\text{in},\; C_\text{out})
#   \;=\; \text{outputs } (B H_o W_o,\; C_\text{out})$$
#
# The picture shows a 4x4 map on the left. On the right are its windows, for a 3x3 kernel with one
# pixel of padding, in grey. The project's `unfold` makes them. It yields pairs, piece by piece:
# some rows of the output, and their windows. This map is so small that there is only one pair.
# `next` takes it, and we need only the windows.

# %%
small = np.arange(1.0, 17).reshape(1, 4, 4, 1)
_, windows = next(numpy_engine.unfold(small, (3, 3), 1, 1, (4, 4)))  # (16, 9)
print(windows[:2].astype(int))

# %%
fig, axes = plt.subplots(1, 2, figsize=(6.2, 3.6), width_ratios=(1, 1.2), layout="constrained")
colors = plt.get_cmap("viridis").with_extremes(bad="lightgrey")
for axis, a in zip(axes, (small[0, :, :, 0], windows)):
    axis.imshow(np.where(a, a, np.nan), cmap=colors, vmin=1, vmax=16, aspect="auto")
    for (i, j), number in np.ndenumerate(a):
        axis.text(j, i, int(number), ha="center", va="center", fontsize=8,
                  color="black" if number > 8 or not number else "white")
axes[0].set(title="the map", xticks=[], yticks=[])
axes[1].set(title="its windows", xlabel="tap", ylabel="output")
plt.show()

# %% [markdown]
# The price is memory: the 16 pixels have become 144 numbers. With an 11x11 kernel at stride 1 each
# pixel is written up to 121 times.

# %% [markdown]
# ### Exercise 4.5: im2col
#
# *Difficulty 2 of 3 · 20 minutes · Good for: what most fast convolutions do on a CPU.*
#
# Build the matrix for a batch, without calling `unfold`. Its rows are ordered by map, then by
# $o_y$, then by $o_x$. Within a row, the numbers stand in the order of the weights: $k_y$, $k_x$,
# channel. `taps` helps.

# %%
def im2col(x, w_shape, y_shape, stride, pad):
    """x (B, H, W, Cin) -> (B Ho Wo, kh kw Cin); y_shape is (B, Ho, Wo, Cout)."""
    padded = pad_maps(x, pad)
    ### BEGIN SOLUTION
    parts = [padded[pixels] for _, pixels in taps(w_shape, y_shape, stride)]  # (B, Ho, Wo, Cin)
    b, ho, wo, _ = y_shape
    return np.stack(parts, axis=3).reshape(b * ho * wo, -1)
    ### END SOLUTION

# %%
check("4.5", im2col);

# %% [markdown]
# With the matrix of windows, two of the three sums are a single matrix product:

# %%
_, windows = next(numpy_engine.unfold(x, (3, 3), 2, 1, (4, 3)))  # (48, 27)
flat_w, flat_dy = w.reshape(27, 5), dy.reshape(48, 5)
assert np.allclose((windows @ flat_w).reshape(y.shape), conv(x, w, 2, 1))
assert np.allclose((windows.T @ flat_dy).reshape(w.shape), conv_weight_grad(x, dy, w.shape, 2, 1))
print(windows.shape, "@", flat_w.shape, "=", (windows @ flat_w).shape)

# %% [markdown]
# For `dx`, the product `flat_dy @ flat_w.T` gives the gradient of the matrix of windows. In this
# matrix each pixel was copied several times. The gradient of a pixel is the sum of the gradients of
# its copies.
#
# The project's [`NumpyEngine`](../kernels/numpy_engine.py#NumpyEngine) works in this way. An
# *engine* is a set of all operations that a network needs. This one is the fast one for a CPU. It
# shares the work among several threads, its *workers*, but here we take only one.
#
# For large kernels the engine has another method, a Fourier transform, which needs fewer
# multiplications and gives the same numbers, up to rounding. Here are both methods:

# %%
for method in "im2col", "fourier":
    engine = numpy_engine.NumpyEngine(np.float64, workers=1, conv_method=method)
    assert np.allclose(engine.conv(x, w, 2, 1), y)
    assert np.allclose(engine.conv_input_grad(dy, w, x.shape, 2, 1), dx)
    assert np.allclose(engine.conv_weight_grad(x, dy, w.shape, 2, 1), dw)
    print(f"{method}: the same three results")

# %% [markdown]
# Is im2col faster than `conv`, which goes tap by tap? We measure both, on 32 maps with an 11x11
# kernel, from 1 to 8 channels. (With many channels the products of `conv` are large themselves, and
# the advantage shrinks.)

# %% tags=["varies"]
engine = numpy_engine.NumpyEngine(np.float64, workers=1, conv_method="im2col")
big_x, big_w = rng.standard_normal((32, 32, 32, 1)), rng.standard_normal((11, 11, 1, 8))
for name, function in ("tap by tap", conv), ("im2col", engine.conv):
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        function(big_x, big_w, 2, 5)
        seconds.append(time.perf_counter() - start)
    print(f"{name}: {1000 * min(seconds):.0f} ms")

# %% [markdown]
# ## Fewer multiplications
#
# How many multiplications does the Fourier transform save? Take an 11x11 kernel of stride 2 and
# padding 5, from 32x32 to 16x16 pixels, with one input and one output channel. Along one axis 161
# triples $(o, k, i)$ meet. In two dimensions, any triple along y and any along x together make one
# multiplication of our definition: $161^2$.
#
# The transform multiplies frequencies instead of pixels. Let us count along one axis again. At
# stride 2 each tap meets only even or only odd pixels, 16 of each. These two halves are transformed
# separately. A window reaches up to 3 pixels of its half over the border, so the transform uses
# waves over $16 + 3 = 19$ places. They have the frequencies 0 to 9. Frequency 0 is a plain sum and
# needs 1 multiplication. Each other one has a cosine and a sine, so it is a complex number, and the
# product of two complex numbers can be made of 3 real ones. Together these are
# $1 + 9 \cdot 3 = 28$. In two dimensions we get $28^2$ multiplications, for each of
# $2 \cdot 2 = 4$ pairs of halves.
#
# The project's `fourier_conv.tables` makes these waves, from the number of pixels, the kernel's
# size, stride, padding, the number of outputs and the type of numbers (`"f"` is float32). Its first
# table has a row for each multiplication:

# %%
by_definition = len(meeting(32, 16, 11, 2, 5)) ** 2
table = fourier_conv.tables(32, 11, 2, 5, 16, "f")[0]  # (28, 16)
by_transform = len(table) ** 2 * 4
print(f"{by_definition} and {by_transform}: {by_definition / by_transform:.1f} times fewer, "
      "without the transforms")

# %% [markdown]
# The transforms come on top. But each channel is transformed once only, however many channels it is
# combined with. So the more channels there are, the less they matter.

# %% [markdown]
# ## Summary
#
# - Output $o$, tap $k$ and pixel $i$ meet if $i = o s + k - p$. There are
#   $\lfloor (H + 2p - n) / s \rfloor + 1$ outputs.
# - Over all that meet, $y_o$ is the sum of $x_i w_k$, $dx_i$ that of $dy_o w_k$, and $dw_k$ that of
#   $dy_o x_i$. With channels, these products are $x w$, $dy\, w^\top$ and $x^\top dy$.
# - `dw` sums over the pixels of all maps of a batch.
# - Seen from the input, the kernel is flipped: at stride 1, `dx` is a convolution of `dy` with the
#   flipped kernel.
# - im2col turns a convolution into one matrix product, at the price of memory. With few channels
#   that is faster.
#
# **In the project:** [`conv`](../kernels/numpy_ops.py#conv),
# [`conv_input_grad`](../kernels/numpy_ops.py#conv_input_grad) and
# [`conv_weight_grad`](../kernels/numpy_ops.py#conv_weight_grad) are the definitions.
# [`unfold`](../kernels/numpy_engine.py#unfold) is im2col, and the first lines of
# [`fourier_conv.py`](../kernels/fourier_conv.py) explain the transform. The layer with bias and
# activation is [`conv`](../semgan.py#conv) in `semgan.py`.
#
# **In the paper** ([arXiv 1906.12195](https://arxiv.org/abs/1906.12195)): the kernel size `ks` is
# the same in both networks (Table 3). For Colored Shapes it is 11 (Appendix B).
#
# **Next:** a convolution with stride 2 makes maps smaller. The generator must make them larger. In
# [notebook 5](05_transposed_convolution.ipynb) we find that we have already written what it needs.
# How the Fourier transform makes large kernels cheap is shown in a bonus for later,
# [notebook 18](18_fast_convolution.ipynb).
