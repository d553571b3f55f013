# %% [markdown]
# # 7. Batch norm: how do numbers stay in range?
#
# The generator makes its maps larger in several layers, each with a *transposed convolution*, which
# multiplies pixels by learned weights ([notebook 5](05_transposed_convolution.ipynb)). After each
# of them it normalizes the numbers. This is called batch normalization, or *batch norm*. Why does
# the generator need it? How can we compute the variance of millions of numbers without losing
# digits? And why does the gradient have three terms?
#
# You need: means and variances, gradients and how to check them
# ([notebook 3](03_checking_gradients.ipynb)), and ReLU
# ([notebook 6](06_softmax_and_losses.ipynb)). Time: about 100 minutes, of which 60 are exercises.
# If an exercise does not work out, run its check again: each time it helps more.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import inspect
import matplotlib.pyplot as plt
import numpy as np
from kernels.gradient_check import directional_check
from kernels.numpy_ops import (batch_norm, batch_norm_grad, batch_norm_inference,
                               running_statistics)
from tutorial.checks import check

# %% [markdown]
# ## Numbers that fade away
#
# A layer has several numbers for each pixel, its *channels*. Here are ten layers. Each applies
# ReLU, $\max(x, 0)$, and multiplies by a matrix of random weights. These have the standard
# deviation 0.02, a usual choice for GANs. How large are the numbers after each layer? We try it
# twice. The first time we leave the numbers as they come. The second time we shift and scale each
# channel to mean 0 and standard deviation 1 before the next layer. In both we measure what the
# layer itself gives, before any normalization.

# %%
rng = np.random.default_rng(0)
spread = {"as they come": [], "normalized": []}
for name in spread:
    x = rng.standard_normal((1000, 64))          # 1000 pixels, 64 channels
    for _ in range(10):
        x = np.maximum(x, 0) @ rng.normal(0, 0.02, (64, 64))
        spread[name].append(x.std())
        if name == "normalized":
            x = (x - x.mean(0)) / x.std(0)       # each channel by itself

# %%
plt.figure(figsize=(6, 3))
for name, numbers in spread.items():
    plt.semilogy(range(1, 11), numbers, "o-", label=name)
plt.xlabel("layer"), plt.ylabel("standard deviation of its output"), plt.legend()
plt.show()

# %% [markdown]
# Without the normalization each layer makes the numbers about 9 times smaller. The reason: each
# output is a sum of 64 products, an input times a weight, and the variances of the products add up.
# ReLU sets about half of the inputs to 0, so it leaves half of their mean square, which before it
# was their variance $v$. Each product has the variance $0.02^2 \cdot v / 2$, and the sum of 64 has
# $64 \cdot 0.02^2 \cdot v / 2$. The root of this is $0.113 \sqrt{v}$. After ten layers, almost
# nothing is left. Much larger weights would make the numbers explode instead. Gradients pass
# through the same weights on their way back, and fade or explode as well. With the normalization,
# each layer starts afresh, from $v = 1$. So its output, measured before it is normalized in turn,
# always lies near 0.113.

# %% [markdown]
# ## The formula
#
# A batch consists of $B$ maps of $H$ rows and $W$ columns, with $C$ channels. Take one channel. It
# has $n = B H W$ numbers $x_1, \dots, x_n$, one for each pixel of each map. Their mean and variance
# are
#
# $$m = \frac{1}{n} \sum_i x_i, \qquad v = \frac{1}{n} \sum_i (x_i - m)^2$$
#
# Subtract the mean, and divide by the standard deviation $s$. A small $\varepsilon = 10^{-5}$ keeps
# us from dividing by 0 if all numbers are equal:
#
# $$\hat{x}_i = \frac{x_i - m}{s}, \qquad s = \sqrt{v + \varepsilon}$$
#
# Now each channel has mean 0 and, but for the tiny $\varepsilon$, standard deviation 1. That is not
# always best. If a ReLU follows, it cuts off about half of the numbers. So the network may choose
# another mean, $\beta$, and another standard deviation, $\gamma$ (or $-\gamma$, if $\gamma$ is
# negative). Both are parameters that it learns, one pair for each channel:
#
# $$y_i = \gamma\, \hat{x}_i + \beta$$

# %%
def my_batch_norm(x, gamma, beta, eps=1e-5):  # one channel: x is (n,)
    m = x.sum() / len(x)
    v = ((x - m) ** 2).sum() / len(x)
    return gamma * (x - m) / np.sqrt(v + eps) + beta

y = my_batch_norm(np.array([1.0, 2.0, 3.0, 6.0]), gamma=1, beta=0)
print(y.round(3), "standard deviation", y.std().round(3))

# %% [markdown]
# ### Exercise 7.1: batch norm of maps
#
# *Difficulty 1 of 3 · 10 minutes · Good for: knowing what shares a mean, and what does not.*
#
# Now `x` is (B, H, W, C), and `gamma` and `beta` are (C,). Return `mean` and `var`, (C,), as well:
# the backward pass needs them. NumPy takes several axes at once as a tuple: `x.mean((2, 3))` would
# be (B, H).

# %%
def batch_norm_forward(x, gamma, beta, eps=1e-5):
    """y (B, H, W, C), mean and var (C,)."""
    ### BEGIN SOLUTION
    mean = x.mean((0, 1, 2))
    var = ((x - mean) ** 2).mean((0, 1, 2))
    return gamma * (x - mean) / np.sqrt(var + eps) + beta, mean, var
    ### END SOLUTION

# %%
check("7.1", batch_norm_forward);

# %% [markdown]
# The project's function also computes running statistics, which we come to below, and can apply an
# activation such as ReLU. `channel_sums` adds up over all maps and pixels. The formula for `y` is
# in `batch_norm_inference`, since the trained generator needs it with other statistics. We shall
# look at that function below.

# %%
print(inspect.getsource(batch_norm))

# %% [markdown]
# It agrees with our function, channel by channel:

# %%
x = rng.standard_normal((4, 8, 8, 3)) * [1, 3, 0.5] + [0, 5, -4]  # (B, H, W, C)
gamma, beta = np.array([1, 0.5, 2]), np.array([0, 1, -1.0])      # (C,)
start = np.zeros(3), np.ones(3)               # running mean and variance, see below
y, mean, var, _, _ = batch_norm(x, gamma, beta, *start)
for c in range(3):
    mine = my_batch_norm(x[..., c].ravel(), gamma[c], beta[c])
    assert np.allclose(y[..., c].ravel(), mine)
print("mean", mean.round(2), "var", var.round(2))

# %% [markdown]
# The three channels before and after, with $\gamma = 1$ and $\beta = 0$. Each colour is a channel.

# %%
_, axes = plt.subplots(1, 2, figsize=(6.2, 2.6), sharey=True, layout="constrained")
after, *_ = batch_norm(x, np.ones(3), np.zeros(3), *start)
for axis, maps, title in zip(axes, (x, after), ("before", "after")):
    for c in range(3):
        axis.hist(maps[..., c].ravel(), np.arange(-6, 14, 0.5), histtype="step", label=f"{c}")
    axis.set(title=title, xlabel="value")
axes[0].set_ylabel("pixels"), axes[1].legend(title="channel")
plt.show()

# %% [markdown]
# Two consequences. If we add a number to a whole channel, subtracting the mean takes it away again.
# So a bias just before batch norm would do nothing, and the generator's transposed convolutions
# have none. And a factor disappears too: weights twice as large give the same output, but for the
# tiny $\varepsilon$.

# %%
again, *_ = batch_norm(x + 7, gamma, beta, *start)
assert np.allclose(again, y)
again, *_ = batch_norm(2 * x, gamma, beta, *start)
assert np.allclose(again, y, atol=1e-3)

# %% [markdown]
# ## The gradient
#
# Take one channel again. $\gamma$ and $\beta$ are easy. From $y_i = \gamma\, \hat{x}_i + \beta$,
# with $dy_i$ the derivative of the loss with respect to $y_i$:
#
# $$d\gamma = \sum_i dy_i\, \hat{x}_i, \qquad d\beta = \sum_i dy_i$$
#
# For $x$ it is not so easy. If $x_j$ changes, $\hat{x}_j$ changes. But so do the mean and the
# standard deviation, and with them *all* $\hat{x}_i$. First the mean. Each number counts with
# the weight $1/n$:
#
# $$\frac{\partial m}{\partial x_j} = \frac{1}{n}$$
#
# Then the variance. A change of $x_j$ changes its own square $(x_j - m)^2$. It also changes $m$,
# and with it all squares. But the changes through $m$ cancel, since the deviations $x_i - m$ add up
# to 0:
#
# $$\frac{\partial v}{\partial x_j}
# = \frac{2}{n} (x_j - m) - \frac{2}{n} \sum_i (x_i - m) \cdot \frac{1}{n} = \frac{2}{n} (x_j - m)$$
#
# And the standard deviation. Take the derivative of $s^2 = v + \varepsilon$ on both sides. On the
# left it is $2 s$ times the derivative of $s$. So
#
# $$\frac{\partial s}{\partial x_j} = \frac{1}{2 s} \cdot \frac{2}{n} (x_j - m)
# = \frac{1}{n}\, \hat{x}_j$$
#
# Now we put all this into the derivative of $\hat{x}_i = (x_i - m) / s$, by the quotient rule.
# Write $[i = j]$ for 1 if $i = j$, and 0 otherwise:
#
# $$\frac{\partial \hat{x}_i}{\partial x_j}
# = \frac{[i = j] - \frac{1}{n}}{s} - \frac{x_i - m}{s^2} \cdot \frac{\hat{x}_j}{n}
# = \frac{1}{s} \Big( [i = j] - \frac{1}{n} - \frac{1}{n}\, \hat{x}_i\, \hat{x}_j \Big)$$
#
# There are three terms: $x_j$ acts by itself, through the mean, and through the standard deviation.
# Let us check them on six numbers, and then look at them, without the factor $1/s$.

# %%
x1 = np.array([-2.0, -1.0, -0.5, 0.5, 1.0, 4.0])    # one channel, n = 6
n, s = len(x1), np.sqrt(x1.var() + 1e-5)
hat = (x1 - x1.mean()) / s
terms = np.eye(n), -np.full((n, n), 1 / n), -np.outer(hat, hat) / n
jacobian = sum(terms) / s                           # row i, column j
for j, step in enumerate(1e-5 * np.eye(n)):         # a step in number j alone
    numeric = (my_batch_norm(x1 + step, 1, 0) - my_batch_norm(x1 - step, 1, 0)) / 2e-5
    assert np.allclose(jacobian[:, j], numeric, atol=1e-8)

# %%
titles = "itself", "through the mean", "through std", "all three"
_, axes = plt.subplots(1, 4, figsize=(6.2, 1.9), layout="constrained")
for axis, title, term in zip(axes, titles, (*terms, sum(terms))):
    picture = axis.imshow(term, cmap="RdBu", vmin=-1, vmax=1)
    axis.set(xticks=[], yticks=[]), axis.set_title(title, fontsize=9)
axes[0].set(xlabel="j", ylabel="i")
plt.colorbar(picture, ax=axes)
plt.show()

# %% [markdown]
# Column $j$ shows what happens to all $\hat{x}_i$ when $x_j$ grows. The last number, 4, is far from
# the others. When it grows, the standard deviation grows with it. So its own $\hat{x}$ moves far
# less than those of the other numbers do when these grow: 0.2 on the diagonal, against 0.6 to 0.8.
#
# The gradient of the loss with respect to $x_j$ adds up what $x_j$ does to all $y_i$:
#
# $$dx_j = \gamma \sum_i dy_i \frac{\partial \hat{x}_i}{\partial x_j} = \frac{\gamma}{s}
# \Big( dy_j - \frac{1}{n} \sum_i dy_i - \hat{x}_j\, \frac{1}{n} \sum_i dy_i\, \hat{x}_i \Big)$$
#
# Both sums are known already: they are $d\beta$ and $d\gamma$.

# %% [markdown]
# ### Exercise 7.2: the gradient of batch norm
#
# *Difficulty 2 of 3 · 15 minutes · Good for: the gradient that goes wrong most often.*
#
# `dy` and `x` are (B, H, W, C); `gamma`, `mean` and `var` are (C,).

# %%
def my_batch_norm_grad(dy, x, gamma, mean, var, eps=1e-5):
    """dx (B, H, W, C), dgamma and dbeta (C,)."""
    count = x.size // x.shape[-1]  # n: the numbers of a channel
    ### BEGIN SOLUTION
    std = np.sqrt(var + eps)
    normalized = (x - mean) / std
    dgamma = (dy * normalized).sum((0, 1, 2))
    dbeta = dy.sum((0, 1, 2))
    dx = gamma / std * (dy - dbeta / count - normalized * dgamma / count)
    return dx, dgamma, dbeta
    ### END SOLUTION

# %%
check("7.2", my_batch_norm_grad);

# %% [markdown]
# The project's function first takes `dy` back through the activation, for which it needs the output
# `y` ([notebook 6](06_softmax_and_losses.ipynb) explains how). On the way it gets `dbeta`, because
# $\beta$ is added like a bias. The rest is the formula.

# %%
print(inspect.getsource(batch_norm_grad))

# %% [markdown]
# The function gives what the Jacobian gives. (Without an activation it does not need `y`: we pass
# `None`.) And along a random direction, for all three gradients together, it agrees with finite
# differences:

# %%
dy1 = rng.standard_normal(n)
dx1, dgamma, dbeta = batch_norm_grad(dy1[:, None], x1[:, None], None, np.array([2.0]),
                                     x1.mean(), x1.var())
assert np.allclose(dx1[:, 0], 2 * dy1 @ jacobian)
assert np.allclose([dgamma, dbeta], [[dy1 @ hat], [dy1.sum()]])

# %%
dy = rng.standard_normal(x.shape)
dx, dgamma, dbeta = batch_norm_grad(dy, x, y, gamma, mean, var)
directional_check(lambda: (batch_norm(x, gamma, beta, *start)[0] * dy).sum(),
                  [x, gamma, beta], [dx, dgamma, dbeta], rng)

# %% [markdown]
# What are the two extra terms for? Adding the same number to a whole channel does not change $y$,
# nor does stretching the channel around its mean (apart from $\varepsilon$). So along these two
# directions the derivative of the loss must be 0. The two terms take these parts out of `dy`:

# %%
dx0, _, _ = batch_norm_grad(dy, x, y, gamma, mean, var, eps=0)
assert np.allclose(dx0.sum((0, 1, 2)), 0)                # all numbers of a channel + 1
assert np.allclose((dx0 * (x - mean)).sum((0, 1, 2)), 0)  # stretched around the mean

# %% [markdown]
# What happens without the extra terms? The check notices at once:

# %% tags=["varies"]
wrong = dy * gamma / np.sqrt(var + 1e-5)  # as if mean and std were constants
try:
    directional_check(lambda: (batch_norm(x, gamma, beta, *start)[0] * dy).sum(),
                      [x, gamma, beta], [wrong, dgamma, dbeta], rng)
except AssertionError as error:
    print(error)

# %% [markdown]
# ## A variance that loses its digits
#
# There is a shortcut for the variance that needs only one pass over the numbers:
#
# $$v = \frac{1}{n} \sum_i x_i^2 - m^2$$
#
# On paper this is the same number. (To see why, multiply out the square in the definition.) On a
# computer the shortcut is dangerous. If the mean is 1000 times the standard deviation, both terms
# are about a million times $v$. They agree in their first six digits, which cancel. Float32 has
# only seven. Let us try both formulas in float32, for means further and further from 0. The
# standard deviation is 1.

# %%
means = 10.0 ** np.arange(0, 5.1, 0.25)
errors = {"shortcut": [], "definition": []}
for m in means:
    x32 = (m + rng.standard_normal(10_000)).astype(np.float32)
    exact = x32.astype(np.float64).var()
    shortcut = (x32 ** 2).mean() - x32.mean() ** 2
    definition = ((x32 - x32.mean()) ** 2).mean()
    errors["shortcut"].append(abs(shortcut - exact) / exact)
    errors["definition"].append(abs(definition - exact) / exact)

# %%
plt.figure(figsize=(6, 3.2))
for name, error in errors.items():
    plt.loglog(means, np.array(error) + 1e-9, "o-", ms=3, label=name)
plt.loglog(means, 6e-8 * means ** 2, "k:", label="6e-8 mean² / std²")
plt.axhline(1, color="grey", lw=0.8)
plt.xlabel("mean / standard deviation"), plt.ylabel("relative error of the variance")
plt.legend()
plt.show()

# %% [markdown]
# The error of the shortcut grows with the square of the mean. Rounding to float32 makes a relative
# error of up to $6 \cdot 10^{-8}$. Here it is an error of numbers as large as $m^2$, which is
# $m^2 / v$ times the result. The dotted line reaches the grey one at a mean of about 4000. At all
# larger means in the picture, the error is as large as the variance, or larger: no digit is right.
# The result can even be negative. Where the curve falls to exactly 1, the shortcut gave 0: all
# digits cancelled. The definition keeps its digits far longer. But it needs the mean
# first, and so it reads the numbers twice.

# %% [markdown]
# ## Merging the statistics of parts
#
# The project has a faster version of each operation. It cuts a batch into chunks. The cores of a
# CPU, or groups of threads on a GPU, work on different chunks at the same time. For each chunk $k$
# they find its count $n_k$, its mean $m_k$, and its sum of squared deviations
# $M_k = \sum (x - m_k)^2$. How do we get the mean and the variance of all numbers from these?
#
# The count and the mean are easy. Large chunks weigh more:
#
# $$n = \sum_k n_k, \qquad m = \frac{1}{n} \sum_k n_k\, m_k$$
#
# For the variance we need $M$, the sum of $(x - m)^2$ over all numbers: divided by $n$, it is $v$.
# We begin with the numbers of one chunk. Write $x - m = (x - m_k) + (m_k - m)$, square it, and add
# up over the chunk:
#
# $$\sum (x - m)^2 = \sum (x - m_k)^2 + 2\,(m_k - m) \sum (x - m_k) + n_k\,(m_k - m)^2$$
#
# The sum in the middle is 0, since the deviations from a chunk's own mean add up to 0. Now add up
# over the chunks:
#
# $$M = \sum_k M_k + \sum_k n_k\, (m_k - m)^2$$
#
# The first part is the spread inside the chunks, the second the spread of their means. As in the
# definition, we subtract first and square afterwards, which keeps the digits. (Chan, Golub and
# LeVeque 1983.) Here each map of our batch is a chunk:

# %%
flat = x.reshape(4, -1, 3)                              # 4 chunks of 64 pixels, 3 channels
n_k, m_k = np.full(4, 64), flat.mean(1)                 # (4,) and (4, 3)
M_k = ((flat - m_k[:, None]) ** 2).sum(1)               # (4, 3)
m = n_k @ m_k / n_k.sum()                               # (3,)
M = M_k.sum(0) + n_k @ (m_k - m) ** 2                   # (3,)
_, mean, var, _, _ = batch_norm(x, gamma, beta, *start)
assert np.allclose(m, mean) and np.allclose(M / n_k.sum(), var)

# %% [markdown]
# ### Exercise 7.3: merge two
#
# *Difficulty 2 of 3 · 15 minutes · Good for: any statistics of data that come in pieces.*
#
# `a` and `b` are triples: a count, a mean (C,) and an $M$ (C,). Return the triple for all numbers
# together. With the difference $d = m_b - m_a$ you can simplify: what are $m_a - m$ and $m_b - m$?

# %%
def merge(a, b):
    """(count, mean, M) of all numbers, from those of two parts."""
    (n_a, m_a, M_a), (n_b, m_b, M_b) = a, b
    ### BEGIN SOLUTION
    n = n_a + n_b
    d = m_b - m_a
    return n, m_a + d * n_b / n, M_a + M_b + d ** 2 * n_a * n_b / n
    ### END SOLUTION

# %%
check("7.3", merge);

# %% [markdown]
# ## One map alone: running statistics
#
# In training, the outputs of a batch depend on each other. Change the first map, and the mean
# changes, and with it the output for all other maps:

# %%
changed = x.copy()
changed[0] += 3
y_changed, *_ = batch_norm(changed, gamma, beta, *start)
print(f"second map: changed by up to {np.abs(y_changed[1] - y[1]).max():.2f}")

# %% [markdown]
# (This is why our discriminator has no batch norm. It should judge each map by itself.) When we
# draw samples from the trained generator, a map should not depend on which others are drawn with
# it. So a network keeps a *running mean* and a *running variance*. In each training step both move
# towards the statistics of the batch, by a share of the distance that is called `momentum`, here
# 0.1. For the running mean $r$:
#
# $$r \leftarrow r + 0.1\,(m - r)$$
#
# For samples, these replace the statistics of the batch. Here is the running mean of one channel
# whose true mean is 5. It starts at 0.

# %%
r, running, batches = 0.0, [], 5 + rng.standard_normal(60)  # the means of 60 batches
for m in batches:
    r += 0.1 * (m - r)
    running.append(r)
plt.figure(figsize=(6, 2.8))
plt.plot(batches, ".", label="mean of the batch")
plt.plot(running, label="running mean")
plt.xlabel("training step"), plt.ylabel("mean"), plt.legend()
plt.show()

# %% [markdown]
# The running mean forgets its start: after $t$ steps, the start has only the weight $0.9^t$, which
# is half a percent after 50 steps. And it varies less than the means of the batches, because it is
# an average over about the last ten or twenty of them.
#
# One detail of the variance. The mean $m$ of a batch lies in the middle of that batch's numbers, so
# on average they are closer to $m$ than to the true mean $\mu$. How much closer? Take the formula
# for a chunk from above, with $\mu$ for $m$ and $m$ for $m_k$, and rearrange it:
#
# $$\sum (x - m)^2 = \sum (x - \mu)^2 - n\,(m - \mu)^2$$
#
# Let $\sigma^2$ be the true variance. On average over very many batches, each $(x - \mu)^2$ is
# $\sigma^2$. And $(m - \mu)^2$ is on average the variance of $m$. If the numbers are independent,
# which means that none says anything about another, this is $\sigma^2 / n$. So the average of the
# right side is
#
# $$n \sigma^2 - n\, \frac{\sigma^2}{n} = (n - 1)\, \sigma^2$$
#
# Divide by $n$, and you see that $v$ is too small on average, by the factor $(n - 1) / n$: it is
# *biased*. To normalize the batch at hand, $v$ is what we want. To estimate the variance over all
# batches, we multiply it by $n / (n - 1)$. An example with $n = 4$ and $\sigma^2 = 1$:

# %%
small = rng.standard_normal((100_000, 4))
v = small.var(1)
print(f"mean of v: {v.mean():.2f}; corrected: {(v * 4 / 3).mean():.2f}")

# %% [markdown]
# ### Exercise 7.4: the running variance
#
# *Difficulty 1 of 3 · 10 minutes · Good for: samples that look as good as those in training.*
#
# Move the running mean and the running variance by the share `momentum` towards the statistics of a
# batch. `var` is the biased variance of `count` numbers.

# %%
def my_running_statistics(running_mean, running_var, mean, var, count, momentum):
    """The new running mean and running variance, (C,) each."""
    ### BEGIN SOLUTION
    unbiased = var * count / (count - 1)
    return (running_mean + momentum * (mean - running_mean),
            running_var + momentum * (unbiased - running_var))
    ### END SOLUTION

# %%
check("7.4", my_running_statistics);

# %% [markdown]
# Here is the project's function. The `max` is for a channel with a single number: without it, the
# function would divide by 0. In the next cell, `batch_norm_inference` normalizes with the
# statistics that it is given.

# %%
print(inspect.getsource(running_statistics))

# %%
_, mean, var, running_mean, running_var = batch_norm(x, gamma, beta, *start)
unbiased = np.array([x[..., c].var(ddof=1) for c in range(3)])
assert np.allclose(running_mean, 0.1 * mean)                       # started at 0
assert np.allclose(running_var, 0.9 * 1 + 0.1 * unbiased)          # started at 1
assert np.allclose(batch_norm_inference(x, gamma, beta, mean, var), y)
alone = batch_norm_inference(x[:1], gamma, beta, running_mean, running_var)
together = batch_norm_inference(x, gamma, beta, running_mean, running_var)
assert np.allclose(alone, together[:1])  # a map does not depend on the others

# %% [markdown]
# ### Exercise 7.5: batch norm for free
#
# *Difficulty 2 of 3 · 10 minutes · Good for: faster samples, without a change in the result.*
#
# With fixed statistics, batch norm is only `y = scale * x + shift`. A program can then multiply the
# weights of the convolution before it by `scale`, use `shift` as the bias of that convolution, and
# leave batch norm out. Find `scale` and `shift`.

# %%
def fold(gamma, beta, running_mean, running_var, eps=1e-5):
    """scale and shift, (C,) each."""
    ### BEGIN SOLUTION
    scale = gamma / np.sqrt(running_var + eps)
    return scale, beta - running_mean * scale
    ### END SOLUTION

# %%
check("7.5", fold);

# %% [markdown]
# The project's function for given statistics has the same scale. It subtracts the mean first, as
# the definition of the variance does, because that keeps more digits. Its last line adds `beta` as
# a bias and applies the activation:

# %%
print(inspect.getsource(batch_norm_inference))

# %% [markdown]
# ## Summary
#
# - Batch norm gives each channel mean 0 and standard deviation 1, over all maps and pixels of a
#   batch. Then $\gamma$ and $\beta$ let the network choose others.
# - Mean and standard deviation depend on $x$. Hence the three terms of
#   $dx = \frac{\gamma}{s} \big( dy - \frac{1}{n} d\beta - \hat{x}\, \frac{1}{n} d\gamma \big)$.
# - Compute a variance from the deviations from the mean, not from the squares of the numbers. From
#   the counts, means and sums of squared deviations of parts one gets those of the whole.
# - The trained generator uses running statistics, so that a map does not depend on its batch.
#
# **In the project:** [`batch_norm`](../kernels/numpy_ops.py#batch_norm),
# [`batch_norm_grad`](../kernels/numpy_ops.py#batch_norm_grad) and
# [`running_statistics`](../kernels/numpy_ops.py#running_statistics). The faster version for CPUs
# [merges its chunks](../kernels/numpy_engine.py#batch_norm), and so do the
# [CUDA kernels](../kernels/batch_norm.cu). Where it stands in the generator:
# [`deconv_norm_relu`](../semgan.py#deconv_norm_relu), in
# [Figure 1 of the paper](https://arxiv.org/abs/1906.12195). The method itself is from
# [Ioffe and Szegedy 2015](https://arxiv.org/abs/1502.03167).
#
# **Next:** two networks play against each other. What does the generator want? Notebook 8.
