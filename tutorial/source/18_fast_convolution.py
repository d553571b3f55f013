# %% [markdown]
# # 18. Bonus, fast convolution: how can an 11x11 kernel cost an eighth?
#
# The networks of the paper convolve Colored Shapes with kernels of 11 x 11. By the definition, this
# would take most of a training step. On a CPU the project computes it in another way, with an
# eighth of the multiplications and, up to rounding, the same results. It is a Fourier transform,
# but without complex numbers. All we need is the cosine.
#
# You need: the three sums of a convolution ([notebook 4](04_convolution.ipynb)), sine and cosine,
# matrix products. No other notebook needs this one. Time: about 95 minutes, of which 50 are
# exercises. Are you stuck on one? Run its check again: each time it helps more.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import inspect, time
import matplotlib.pyplot as plt
import numpy as np
from kernels import fourier_conv, numpy_engine
from kernels.numpy_ops import conv, conv_input_grad, conv_weight_grad
from tutorial.checks import check

# %% [markdown]
# ## One sum for three results
#
# We begin with one axis, one channel, and stride 1. There are pixels $x_m$, outputs $y_o$, and
# *taps* $w_d$, the numbers of the kernel. We count the taps so that tap 0 meets the pixel at the
# output's own place: with padding 5, an 11-tap kernel has the taps $d = -5, \dots, 5$. Output $o$
# and tap $d$ meet pixel $m$ if $m = o + d$:
#
# $$y_o = \sum_{m = o + d} x_m\, w_d$$
#
# Now let $y_o$ be any number for each output, and write down one more sum, over all triples that
# meet:
#
# $$S = \sum_{m = o + d} y_o\, x_m\, w_d$$
#
# Its derivative with respect to $y_o$ is the convolution above. And if $y_o$ is the gradient that
# comes back to output $o$, then the derivatives with respect to $x_m$ and $w_d$ are the two
# gradients of [notebook 4](04_convolution.ipynb). So if we find a cheaper formula for $S$, its
# derivatives give us all three.

# %%
rng = np.random.default_rng(0)
m, o, d = np.arange(16), np.arange(16), np.arange(-5, 6)   # pixels, outputs, taps
x, w = rng.standard_normal(16), rng.standard_normal(11)
meet = o[:, None, None] + d == m[:, None]                   # (outputs, pixels, taps) bool
y = np.einsum("omd,m,d->o", meet, x, w)                     # (outputs,)
found = conv(x[None, None, :, None], w[None, :, None, None], 1, (0, 5))  # as a map of one row
assert np.allclose(y, found[0, 0, :, 0])
print(f"{meet.sum()} of {meet.size} triples meet: so many multiplications")

# %% [markdown]
# ## A condition becomes a sum of waves
#
# The condition $m = o + d$ is what makes a convolution slow: each pair of an output and a tap has
# its own pixel. We replace the condition by a sum. Take a whole number $n$, and the mean of $n$
# cosines:
#
# $$\frac{1}{n} \sum_{f = 0}^{n - 1} \cos \frac{2 \pi f k}{n}$$
#
# For $k = 0$ each cosine is 1, and so is the mean. For other $k$ the angles $2 \pi f k / n$ go
# around the circle in equal steps. The mean of their points on the circle is the centre, and the
# mean of the cosines is 0. Only if $k$ is a multiple of $n$ do all steps lead back to the start,
# and the mean is 1 again.

# %%
n, k = 19, np.arange(-30, 31)
mean = np.cos(2 * np.pi * np.arange(n)[:, None] * k / n).mean(0)   # (61,)
assert np.allclose(mean, k % n == 0)
_, (left, right) = plt.subplots(1, 2, figsize=(6.2, 2.3), layout="constrained")
for f in 0, 1, 2:
    left.plot(k, np.cos(2 * np.pi * f * k / n), ".-", ms=3, lw=0.8, label=f"f = {f}")
left.legend(fontsize=8, loc="upper center", ncols=3)
left.set(xlabel="k", title="some of the cosines", ylim=(-1.1, 1.7))
right.plot(k, mean, ".-"), right.set(xlabel="k", title=f"mean of all {n}")
plt.show()

# %% [markdown]
# With $k = o + d - m$ this is 1 if $m = o + d$. It is also 1 if $o + d - m$ is $n$ or $-n$: then an
# output takes a pixel at the other end of the row, as if the row were a ring. This is called
# *wrap-around*. We must choose $n$ so large that it cannot happen.

# %% [markdown]
# ### Exercise 18.1: large enough
#
# *Difficulty 1 of 3 · 10 minutes · Good for: every convolution by a Fourier transform.*
#
# Which values can $o + d - m$ take? Return the smallest $n$ that is larger than all their absolute
# values. There are `pixels` and `outputs`, counted from 0, and the taps from `first` to `last`,
# with `first <= 0 <= last`.

# %%
def smallest_n(pixels, outputs, first, last):
    """A whole number."""
    ### BEGIN SOLUTION
    return max(outputs + last, pixels - first)
    ### END SOLUTION

# %%
check("18.1", smallest_n);

# %% [markdown]
# ## Three angles apart
#
# Now $S$ is the sum over all $o$, $m$, $d$ and $f$ of $\frac{1}{n} \cos(2 \pi f (o + d - m) / n)$
# times $y_o\, x_m\, w_d$. The number $f$ is called a *frequency*. We would like to handle $x$, $w$
# and $y$ one by one, but they sit in one cosine together. Let $a$, $b$ and $c$ be the three angles
# $2 \pi f o / n$, $2 \pi f d / n$ and $-2 \pi f m / n$. How do we write $\cos(a + b + c)$ with a
# cosine of each? A product of three cosines is
#
# $$\cos a \cos b \cos c = \tfrac{1}{4} \big( \cos(a + b + c) + \cos(a + b - c)
# + \cos(a - b + c) + \cos(-a + b + c) \big)$$
#
# (Use $2 \cos a \cos b = \cos(a + b) + \cos(a - b)$ twice.) The first term is what we want. To get
# rid of the others, add the same angle $t$ to $a$, $b$ and $c$, for $t = 0$, a third and two thirds
# of a full turn. The first sum of angles becomes $a + b + c + 3 t$: full turns, so it does not
# change. Each of the others becomes, for example, $a + b - c + t$. And three cosines whose angles
# are a third of a turn apart add up to 0. What remains is three times a quarter:
#
# $$\cos(a + b + c) = \frac{4}{3} \sum_{j = 0}^{2} \cos(a + t_j) \cos(b + t_j) \cos(c + t_j),
# \qquad t_j = \frac{2 \pi j}{3}$$

# %%
a, b, c = rng.uniform(0, 7, (3, 1000))
t = 2 * np.pi * np.arange(3)[:, None] / 3                           # (3, 1)
products = np.cos(a + t) * np.cos(b + t) * np.cos(c + t)            # (3, 1000)
assert np.allclose(np.cos(a + b + c), 4 / 3 * products.sum(0))

# %% [markdown]
# So we have a table $X$ with a row for each pair $(f, j)$ and a column for each pixel, and tables
# $W$ and $Y$ in the same way, such that
#
# $$\sum_{r} Y_{r o}\, X_{r m}\, W_{r d} = \begin{cases} 1 & \text{if } m = o + d \\
# 0 & \text{otherwise} \end{cases}$$
#
# $$S = \sum_r \Big( \sum_o Y_{r o}\, y_o \Big) \Big( \sum_m X_{r m}\, x_m \Big)
# \Big( \sum_d W_{r d}\, w_d \Big)$$
#
# A row $r$ is also called a *bin*. Numbers are multiplied only with those in the same bin.
#
# How many bins do we need? Frequencies $f$ and $n - f$ have the same cosine for whole $k$, so half
# of the frequencies are enough, each counted twice. Two have no partner: $f = 0$, and $f = n / 2$
# if $n$ is even. Their angles are multiples of $\pi$, so all sines are 0, and $\cos(a + b + c)$ is
# simply $\cos a \cos b \cos c$. These two have one bin instead of three.

# %% [markdown]
# ### Exercise 18.2: the weights
#
# *Difficulty 3 of 3 · 15 minutes · Good for: the factors that go wrong in every Fourier transform.*
#
# Each bin has a weight, by which its row of $Y$ is multiplied. It is made of $1 / n$, of the 2 for
# frequencies that stand for two, and of the $4 / 3$ of the identity. The bins are in the order
# $f = 0, 1, \dots, \lfloor n / 2 \rfloor$, and for each $f$ come $j = 0, 1, 2$, or only $j = 0$.

# %%
def weights(n):
    """The weight of each bin, (bins,)."""
    result = []
    for f in range(n // 2 + 1):
        ### BEGIN SOLUTION
        alone = 2 * f % n == 0  # f = 0, or f = n / 2
        result += [1 / n] if alone else 3 * [8 / 3 / n]
        ### END SOLUTION
    return np.array(result)

# %%
check("18.2", weights);

# %% [markdown]
# The project makes the three tables in this way. (`m` and `d` are for one *phase*, see below. With
# stride 1 there is only one.)

# %%
print(inspect.getsource(fourier_conv.tables))

# %%
X, W, Y = fourier_conv.tables(16, 11, 1, 5, 16, "d")        # (bins, 16), (bins, 11), (bins, 16)
assert np.allclose(np.einsum("ro,rm,rd->omd", Y, X, W), meet)       # the condition
assert np.allclose(Y.T @ ((X @ x) * (W @ w)), y)                    # the convolution
print(f"{len(X)} multiplications instead of {meet.sum()}")

# %%
_, axes = plt.subplots(1, 3, figsize=(6.2, 3), layout="constrained")
for axis, table, name in zip(axes, (X, W, Y), ("X: pixels", "W: taps", "Y: outputs")):
    axis.imshow(table / np.abs(table).max(), cmap="RdBu", vmin=-1, vmax=1)
    axis.set(title=name, xticks=[]), axis.set_yticks(range(0, len(X), 6))
axes[0].set_ylabel("bin")
plt.show()

# %% [markdown]
# Each row is a wave. From top to bottom the frequency grows. Row 0 has the frequency 0. After it,
# three rows at a time have the same frequency, each a third of a turn further on.
#
# What happens if $n$ is too small? Let us take $n = 16$, as many as there are pixels:

# %%
f, j = np.arange(16)[:, None, None], np.arange(3)[:, None]          # all frequencies
wave = lambda place: np.cos(2 * np.pi * (f * place / 16 + j / 3)).reshape(48, -1)
wrapped = wave(o).T @ ((wave(-m) @ x) * (wave(d) @ w)) * 4 / 3 / 16
print("wrong outputs:", np.flatnonzero(~np.isclose(wrapped, y)))
ring = sum(w[i] * np.roll(x, -k) for i, k in enumerate(d))          # the row as a ring
assert np.allclose(wrapped, ring)

# %% [markdown]
# The outputs in the middle are right. Those near the ends took pixels from the other end. A test
# that looks at the middle only would not see it.
#
# ## The gradients
#
# The formula of $S$ gives its derivatives at once. To differentiate by $x_m$, leave out the factor
# with $x$. In each bin multiply the other two, and bring the products back to pixels by the
# transposed table $X^T$. The other two derivatives go the same way.

# %% [markdown]
# ### Exercise 18.3: the gradient of the taps
#
# *Difficulty 2 of 3 · 10 minutes · Good for: seeing that one identity gives three operations.*
#
# `x` is (pixels,) and `dy`, the gradient of the outputs, is (outputs,). The tables are those from
# above.

# %%
def taps_gradient(x, dy, X, W, Y):
    """dw, (taps,)."""
    ### BEGIN SOLUTION
    return W.T @ ((X @ x) * (Y @ dy))
    ### END SOLUTION

# %%
check("18.3", taps_gradient);

# %%
dy = rng.standard_normal(16)
row, kernel = x[None, None, :, None], w[None, :, None, None]        # as a map of one row
dx = conv_input_grad(dy[None, None, :, None], kernel, row.shape, 1, (0, 5))
dw = conv_weight_grad(row, dy[None, None, :, None], kernel.shape, 1, (0, 5))
assert np.allclose(X.T @ ((Y @ dy) * (W @ w)), dx[0, 0, :, 0])
assert np.allclose(np.einsum("omd,o,m->d", meet, dy, x), dw[0, :, 0, 0])

# %% [markdown]
# ## Maps and channels
#
# In two dimensions, transform along y and then along x, each with its table. Channels are easy too:
# each channel is transformed by itself. In each bin, the numbers of all maps and input channels are
# a matrix (B, Cin), and the transformed weights are a matrix (Cin, Cout). Their product is
# (B, Cout).

# %%
def fast_conv(x, w, pad):                        # (B, H, W, Cin), (k, k, Cin, Cout), stride 1
    X, W, Y = fourier_conv.tables(x.shape[1], len(w), 1, pad, x.shape[1], "d")  # square maps
    x_bins = np.einsum("rh,sw,bhwc->rsbc", X, X, x, optimize=True)  # (bins, bins, B, Cin)
    w_bins = np.einsum("rh,sw,hwcd->rscd", W, W, w, optimize=True)  # (bins, bins, Cin, Cout)
    y_bins = x_bins @ w_bins                                        # (bins, bins, B, Cout)
    return np.einsum("rh,sw,rsbd->bhwd", Y, Y, y_bins, optimize=True)

# %%
maps, kernels = rng.standard_normal((4, 16, 16, 3)), rng.standard_normal((11, 11, 3, 5))
assert np.allclose(fast_conv(maps, kernels, 5), conv(maps, kernels, 1, 5))

# %% [markdown]
# ## Stride 2: phases
#
# With stride $s$ and padding $p$, output $o$ and tap number $k$, counted from 0, meet pixel
# $i = o s + k - p$. Split the pixels into $s$ *phases*: $i = s m + q$, with $q = 0, \dots, s - 1$.
# For stride 2 these are the even and the odd pixels. Then the taps that meet phase $q$ are
# $k = s d + q + p$, for then
#
# $$o s + k - p = o s + s d + q = s\, (o + d) + q$$
#
# which is pixel $m = o + d$ of the phase. So each phase is a convolution of stride 1. The outputs
# are the sum over the phases, like that over channels.

# %% [markdown]
# ### Exercise 18.4: the taps of a phase
#
# *Difficulty 2 of 3 · 15 minutes · Good for: strided and dilated convolutions.*
#
# Return the taps of phase `q`, in their order: all `w[k]` whose number is $k = s d + q + p$ for
# some whole number $d$, which may be negative.

# %%
def taps_of_phase(w, q, stride, pad):
    """Some of w, (taps,)."""
    ### BEGIN SOLUTION
    return w[(q + pad) % stride::stride]
    ### END SOLUTION

# %%
check("18.4", taps_of_phase);

# %%
x = rng.standard_normal(32)                                         # 32 pixels -> 16 outputs
X, W, Y = fourier_conv.tables(32, 11, 2, 5, 16, "d")
padded = np.concatenate([[0], w])                                   # k - p begins at 2 * (-3)
bins = sum((X @ x[q::2]) * (W @ padded[q::2]) for q in (0, 1))      # 6 taps in each phase
found = conv(x[None, None, :, None], w[None, :, None, None], (1, 2), (0, 5))
assert np.allclose(Y.T @ bins, found[0, 0, :, 0])
print(f"n = 19: {len(X)} bins for each of 2 phases")

# %% [markdown]
# Phase 0 has the taps $k = 2 d + 5$, from $d = -2$ on, and phase 1 has $k = 2 d + 6$, from $d = -3$
# on. Both use one table, which begins at $d = -3$. So a 0 stands before the first tap of phase 0.
#
# ## What it costs
#
# An 11x11 kernel from 32x32 to 16x16 pixels, for one input and one output channel:

# %%
def counts(kernel, size=32, stride=2):           # multiplications: definition, transform
    pad, out = kernel // 2, size // stride
    places = np.arange(out)[:, None] * stride + np.arange(kernel) - pad
    meeting = ((places >= 0) & (places < size)).sum()
    bins = len(fourier_conv.tables(size, kernel, stride, pad, out, "d")[0])
    return meeting ** 2, bins ** 2 * stride ** 2

definition, transform = counts(11)
assert (definition, transform) == (161 ** 2, 28 ** 2 * 4)
print(f"{definition} and {transform}: {definition / transform:.1f} times fewer")

# %%
sizes = np.arange(1, 16, 2)
plt.figure(figsize=(5.5, 2.8))
for row, name in zip(np.transpose([counts(k) for k in sizes]), ("definition", "transform")):
    plt.semilogy(sizes, row, "o-", ms=4, label=name)
plt.xlabel("kernel size"), plt.ylabel("multiplications"), plt.xticks(sizes), plt.legend()
plt.tight_layout(), plt.show();

# %% [markdown]
# By the definition the number grows with the square of the kernel size. In the transform it hardly
# grows: only $n$ becomes a little larger. For 3x3 both are about equal, and from 5x5 on the
# transform has fewer. (At the kernel size 1 the transform still handles both phases in each
# direction, of which the definition uses one.)
#
# But it is not free: the transforms of $x$, $w$ and $y$ come on top. They are done once for each
# channel, while the products in the bins are done for each *pair* of channels. So with many
# channels they hardly count.
#
# The project estimates both costs and takes the cheaper way: `is_cheaper`. We measure on 32 maps,
# on one core:

# %% tags=["varies"]
def milliseconds(method, kernel, channels):
    engine = numpy_engine.NumpyEngine(np.float32, workers=1, conv_method=method)
    x = rng.standard_normal((32, 32, 32, channels)).astype(np.float32)
    w = rng.standard_normal((kernel, kernel, channels, channels)).astype(np.float32)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        engine.conv(x, w, 2, kernel // 2)
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds)

# %% tags=["varies"]
for kernel, channels in (3, 32), (5, 32), (7, 32), (11, 1), (11, 32):
    a, b = (milliseconds(method, kernel, channels) for method in ("im2col", "fourier"))
    rule = fourier_conv.is_cheaper((32, 32, 32, channels), (kernel, kernel, channels, channels),
                                   2, kernel // 2)
    print(f"{kernel:2}x{kernel:<2} {channels:2} channels: im2col {a:5.1f} ms, "
          f"transform {b:5.1f} ms; the rule takes {'the transform' if rule else 'im2col'}")

# %% [markdown]
# With 3x3 kernels im2col is faster, and with large kernels and many channels the transform is, by
# far. With a single channel there is little to win. The rule does not always take the faster way:
# on the computer that made these results, it was wrong for 5x5 kernels. But where it is wrong, the
# two ways are not far apart.
#
# Does the transform lose digits? It adds up more numbers, of both signs. In float32:

# %% tags=["varies"]
x32, w32 = (a.astype(np.float32) for a in (maps, kernels))
exact = conv(x32.astype(float), w32.astype(float), 1, 5)
for method in "im2col", "fourier":
    engine = numpy_engine.NumpyEngine(np.float32, workers=1, conv_method=method)
    error = np.abs(engine.conv(x32, w32, 1, 5) - exact).max() / np.abs(exact).max()
    assert error < 1e-5
    print(f"{method}: largest error {error:.0e} of the largest output")

# %% [markdown]
# Both are about 3 to 10 times the rounding error of a single number, $6 \cdot 10^{-8}$. The
# transform is no worse. But it does lose one thing. Where the definition gives exactly 0, since all
# pixels under the kernel are 0, the transform gives a rounding error:

# %% tags=["varies"]
spot = np.zeros((1, 16, 16, 1), np.float32)
spot[0, 0, 0] = 1                                                   # one pixel, in a corner
far = np.s_[0, 6:, 6:]                                              # no kernel reaches it there
assert (conv(spot, w32[:, :, :1, :1], 1, 5)[far] == 0).all()
print(f"{np.abs(engine.conv(spot, w32[:, :, :1, :1], 1, 5)[far]).max():.0e} instead of 0")

# %% [markdown]
# ## In the project
#
# `FourierConv` does what we did, with matrix products that are large enough to be fast, and with as
# many rows of bins at once as fit the cache. Here is its convolution. In each bin the phases of the
# input count as channels.

# %%
print(inspect.getsource(fourier_conv.FourierConv.conv))

# %%
engine = numpy_engine.NumpyEngine(np.float64, workers=1, conv_method="fourier")
maps, weight = rng.standard_normal((4, 32, 32, 3)), rng.standard_normal((11, 11, 3, 5))
y = conv(maps, weight, 2, 5)                                        # (4, 16, 16, 5)
dy = rng.standard_normal(y.shape)
assert np.allclose(engine.conv(maps, weight, 2, 5), y)
assert np.allclose(engine.conv_input_grad(dy, weight, maps.shape, 2, 5),
                   conv_input_grad(dy, weight, maps.shape, 2, 5))
assert np.allclose(engine.conv_weight_grad(maps, dy, weight.shape, 2, 5),
                   conv_weight_grad(maps, dy, weight.shape, 2, 5))

# %% [markdown]
# ## Summary
#
# - A convolution and its two gradients are the derivatives of one sum, over all pixels, taps and
#   outputs that meet.
# - "They meet" can be written as a mean of cosines. If $n$ is too small, the row becomes a ring,
#   and the outputs near the ends are wrong.
# - The cosine of a sum of three angles is a sum of three products. So each of the three factors is
#   transformed by itself, by a table, and then only numbers in the same bin are multiplied.
# - A frequency with sines needs three bins of weight $8 / (3 n)$. Frequencies 0 and $n / 2$ need
#   one of weight $1 / n$.
# - A stride splits pixels and taps into phases, which count as channels.
# - An 11x11 kernel of stride 2 on 32x32 pixels needs an eighth of the multiplications. For small
#   kernels it does not pay.
#
# **In the project:** [fourier_conv.py](../kernels/fourier_conv.py), whose first lines are this
# notebook in short. The rule for choosing is [`is_cheaper`](../kernels/fourier_conv.py#is_cheaper).
# On a GPU the project does not use it: there the convolutions are those of
# [notebook 15](15_the_ladder.ipynb).
#
# **In the paper** ([arXiv 1906.12195](https://arxiv.org/abs/1906.12195)): Appendix B gives the
# kernel size 11 for Colored Shapes. Fast convolutions of this kind are called *bilinear
# algorithms*: S. Winograd, *Arithmetic complexity of computations*, 1980.
