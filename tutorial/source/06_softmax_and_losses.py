# %% [markdown]
# # 6. Softmax and losses: which class, and how wrong?
#
# The last convolution of the generator gives K numbers for each pixel, of any size and sign. The
# discriminator gives one such number for each map. Both should become probabilities: how probable
# each class is at this pixel, and how probable it is that the map is real. How do numbers become
# probabilities? How does a loss judge them? And which gradient does it send back?
#
# You need: one-hot maps ([notebook 2](02_label_maps.ipynb)), gradients and how to check them
# ([notebook 3](03_checking_gradients.ipynb)), exponentials and logarithms. Time: about 105 minutes,
# of which 65 are exercises. If an exercise does not work out, run its check again: each time it
# helps more.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import inspect
import matplotlib.pyplot as plt
import numpy as np
from kernels.gradient_check import directional_check, off_kinks
from kernels.numpy_ops import (activation_grad, bias_activation, bias_activation_grad,
                               bce_with_logits, softmax, softmax_grad)
from tutorial.checks import check

# %% [markdown]
# ## From scores to probabilities
#
# Call the K numbers of a pixel *scores*, $x_1, \dots, x_K$. We want probabilities $p_k$ from them.
# These must be positive and add up to 1, and a larger score must mean a larger probability. We have
# one more wish: only the differences between scores should count. If we add 5 to all scores, no
# class has gained on another, and nothing should change.
#
# So the ratio $p_j / p_k$ may depend on $x_j - x_k$ only. A function that turns differences into
# ratios is the exponential: $e^{x_j - x_k} = e^{x_j} / e^{x_k}$. Take $p_k$ proportional to
# $e^{x_k}$, and divide by the sum, so that all of them add up to 1. This is the *softmax*:
#
# $$p_k = \frac{e^{x_k}}{\sum_j e^{x_j}}$$

# %%
def my_softmax(x):
    e = np.exp(x)                        # (..., K)
    return e / e.sum(-1, keepdims=True)  # a sum for each pixel

scores = np.array([2.0, 1.0, 0.0])       # one pixel, three classes
print(my_softmax(scores).round(3))
print(my_softmax(scores + 5).round(3))

# %% [markdown]
# Each score is 1 more than the next, so each probability is $e \approx 2.718$ times the next:
# $0.665 / 0.245 \approx 2.71$, which differs from $e$ only because the two numbers are rounded.
#
# Three probabilities that add up to 1 are a point in a triangle, the *simplex*. Its corners are
# the *one-hot* vectors: one class has probability 1, the others 0. In a real map the class of each
# pixel is known, so each pixel is a corner. In a generated map each pixel is some point of the
# simplex. In [equation 2 of the paper](https://arxiv.org/abs/1906.12195) the simplex is written
# $\Delta(L)$, where $L$ stands for the classes. (Below, $L$ is a loss.)
#
# To draw such a point, take the mean of the three corners, weighted by the probabilities:

# %%
corners = np.array([[0, 0], [1, 0], [0.5, 0.866]])  # one for each class
print(my_softmax(scores) @ corners)                 # where to draw (0.665, 0.245, 0.09)

# %% [markdown]
# Each line below belongs to one pixel. Its scores are multiplied by a factor that grows from
# 0 to 30. The dot is where the factor is 1.

# %%
factor = 30 * np.linspace(0, 1, 100)[:, None] ** 2  # (100, 1)
plt.figure(figsize=(4.6, 4))
plt.plot(*corners[[0, 1, 2, 0]].T, color="black", lw=1)
for x in np.random.default_rng(1).standard_normal((20, 3)):
    plt.plot(*(my_softmax(factor * x) @ corners).T, color="bgr"[x.argmax()], lw=0.8)
    plt.plot(*(my_softmax(x) @ corners), "o", color="bgr"[x.argmax()], ms=4)
for name, (across, up) in zip(("circle", "rectangle", "square"), 1.1 * corners - [0.05, 0.05]):
    plt.text(across, up, name, ha="center")
plt.axis("off")
plt.show()

# %% [markdown]
# All lines start in the middle, where all scores are 0 and each class has probability 1/3. The
# larger the factor, the closer the pixel comes to the corner of its largest score. The colour of
# the line is that of this class. But no factor takes a pixel into the corner itself, because $e^x$
# is never 0.
#
# ## Too large for a computer
#
# Nothing should change when we add the same number to all scores. Let us try.

# %%
with np.errstate(all="ignore"):  # no warnings
    for shift in 0, 100, 700, 1000:
        print(f"shift {shift:>4}:", my_softmax(scores + shift).round(3))

# %% [markdown]
# The largest float64 is about $1.8 \cdot 10^{308}$, and $e^{1000}$ is larger. It becomes infinite,
# and infinity divided by infinity is not a number, NaN. In float32 this happens from $e^{89}$ on.

# %% [markdown]
# ### Exercise 6.1: a softmax that never overflows
#
# *Difficulty 1 of 3 · 10 minutes · Good for: a generator that does not stop with NaN.*
#
# Write the softmax over the last axis so that it works for scores of any size. `x` can be one
# pixel, an array of shape (K,), or a batch of maps, (B, H, W, K): $B$ maps of $H$ rows and $W$
# columns, with $K$ scores for each pixel.

# %%
def stable_softmax(x):
    """Probabilities of the shape of x: p_k = exp(x_k) / sum over j of exp(x_j)."""
    ### BEGIN SOLUTION
    e = np.exp(x - x.max(-1, keepdims=True))  # the largest exponent is 0
    return e / e.sum(-1, keepdims=True)
    ### END SOLUTION

# %%
check("6.1", stable_softmax);

# %% [markdown]
# The project's softmax brings the classes to the front first, because NumPy adds up faster that
# way. It also adds a bias, which we come to below.

# %%
print(inspect.getsource(softmax))

# %%
rng = np.random.default_rng(0)
x = rng.standard_normal((2, 3, 4, 5))  # (B, H, W, K)
p = softmax(x)
assert np.allclose(my_softmax(x), p)
assert np.allclose(softmax(x + 1000), p)
assert np.allclose(p.sum(-1), 1)

# %% [markdown]
# ## The gradient of softmax
#
# Raise one score $x_j$ a little. How much does each probability $p_k$ change? The logarithm makes
# the quotient easy:
#
# $$\log p_k = x_k - \log \sum_i e^{x_i}$$
#
# Take the derivative with respect to $x_j$. Write $[k = j]$ for 1 if $k = j$, and 0 otherwise. The
# first term gives $[k = j]$. The second gives $e^{x_j} / \sum_i e^{x_i}$, which is $p_j$:
#
# $$\frac{\partial \log p_k}{\partial x_j} = [k = j] - p_j$$
#
# The derivative of $\log p_k$ is that of $p_k$, divided by $p_k$. So we multiply by $p_k$:
#
# $$\frac{\partial p_k}{\partial x_j} = p_k \, ([k = j] - p_j)$$
#
# All of them form a matrix, the *Jacobian*: $\operatorname{diag}(p) - p\,p^T$. Finite differences
# agree:

# %%
q = softmax(scores)                          # (3,)
jacobian = np.diag(q) - np.outer(q, q)       # row k, column j
h = 1e-5
for j, step in enumerate(h * np.eye(3)):     # a step in score j alone
    numeric = (softmax(scores + step) - softmax(scores - step)) / (2 * h)
    assert np.allclose(jacobian[:, j], numeric, atol=1e-9)
print(jacobian.round(3))

# %% [markdown]
# On the diagonal we see that raising a score raises the probability of its own class. The other
# numbers are negative: it lowers the probabilities of all other classes. Each column adds up to 0,
# because the probabilities still add up to 1.
#
# In the backward pass we are given `dp`, the derivatives $dp_k$ of the loss with respect to $p_k$.
# By the chain rule, the derivative of the loss with respect to $x_j$ is
#
# $$dx_j = \sum_k dp_k \, \frac{\partial p_k}{\partial x_j}
# = \sum_k dp_k \, p_k \, ([k = j] - p_j) = p_j \Big( dp_j - \sum_k p_k \, dp_k \Big)$$
#
# The sum is the mean of `dp`, weighted by the probabilities. It is the same for all classes of a
# pixel, so there is no need to build the matrix.

# %% [markdown]
# ### Exercise 6.2: the gradient of softmax
#
# *Difficulty 2 of 3 · 10 minutes · Good for: the first step of the generator's backward pass.*
#
# `dp` and `p` are (B, H, W, K). Each pixel has a softmax of its own.

# %%
def my_softmax_grad(dp, p):
    """dx (B, H, W, K), from dp and from the probabilities p."""
    ### BEGIN SOLUTION
    mean = (p * dp).sum(-1, keepdims=True)  # (B, H, W, 1)
    return p * (dp - mean)
    ### END SOLUTION

# %%
check("6.2", my_softmax_grad);

# %% [markdown]
# The project's function also returns a second gradient, `dbias`, which we come to below. It is the
# sum of `dx` over all maps and pixels: this is what `channel_sums` does.

# %%
print(inspect.getsource(softmax_grad))

# %% [markdown]
# Its first result, `dx`, equals what the Jacobian of each pixel gives. In `einsum` each axis has a
# letter. The axis `k` is in both inputs but not in the output, so the function sums over it: for
# each pixel, `dp` times the Jacobian.

# %%
dp = rng.standard_normal(x.shape)
jacobians = p[..., None] * (np.eye(5) - p[..., None, :])          # (B, H, W, K, K)
dx, dbias = softmax_grad(dp, p)
assert np.allclose(dx, np.einsum("...k,...kj->...j", dp, jacobians))
assert np.allclose(dx.sum(-1), 0)  # nothing pulls all scores up at once
directional_check(lambda: (softmax(x) * dp).sum(), [x], [dx], rng)

# %% [markdown]
# One thing to keep in mind: the numbers in the Jacobian are $p_k (1 - p_k)$ and $-p_k\,p_j$. If one
# probability is almost 1 and the others are almost 0, all of these numbers are almost 0. So a pixel
# that is sure of its class gets hardly any gradient, even if the class is wrong. Suppose that class
# 0 is wrong: the loss grows with its probability, so $dp_0$ is positive, say 1. Let the pixel be
# more and more sure of class 0. How much is left of its gradient?

# %%
for factor in 1, 3, 5, 10:
    q = softmax(factor * scores)
    gradient, _ = softmax_grad(np.array([1.0, 0.0, 0.0]), q)
    print(f"probability of class 0: {q[0]:.5f}, its gradient: {gradient[0]:.5f}")

# %% [markdown]
# ## A bias and an activation
#
# Before the softmax, the layer adds a bias: one number for each class, the same for all pixels of
# all maps. A convolution of the discriminator does this too. Its output has $C$ numbers for each
# pixel, its *channels*, and channel $c$ has the bias $b_c$. Instead of the softmax it then applies
# another *activation*, a function that is not linear. Usual activations are ReLU, LeakyReLU and
# tanh. They act on each number by itself: $y = \text{act}(x + b)$.
#
# The gradient before such an activation is $dx = dy \cdot \text{act}'(x + b)$. The bias is added to
# $x$, so at each pixel the derivative with respect to the bias is the same as that with respect to
# $x$. But the bias is added at *every* pixel of *every* map. When it changes, all of them change,
# and the chain rule adds up all their contributions. For maps $m$, rows $i$ and columns $j$:
#
# $$db_c = \sum_{m, i, j} dx_{m,i,j,c}$$
#
# This is a sum, not a mean. The `dbias` of `softmax_grad` is the same sum:

# %%
bias = rng.standard_normal(5)                             # (K,)
dx, dbias = softmax_grad(dp, softmax(x, bias))
assert np.allclose(dbias, dx.sum((0, 1, 2)))
directional_check(lambda: (softmax(x, bias) * dp).sum(), [x, bias], [dx, dbias], rng)
print(dbias.round(3))

# %% [markdown]
# What about $\text{act}'$? For these activations it can be computed from the output $y$, so that
# the backward pass does not need the input. With $a = x + b$:
#
# | activation | $y = \text{act}(a)$ | $\text{act}'(a)$ |
# |---|---|---|
# | ReLU | $\max(a, 0)$ | 1 if $y > 0$, otherwise 0 |
# | LeakyReLU | $a$ if $a > 0$, otherwise $0.2\,a$ | 1 if $y > 0$, otherwise 0.2 |
# | tanh | $\tanh a$ | $1 - y^2$ |
#
# LeakyReLU keeps the sign, so $y > 0$ says the same as $a > 0$. The discriminator uses LeakyReLU
# after each convolution.

# %%
a = x + bias
assert np.allclose(bias_activation(x, bias, "relu"), np.where(a > 0, a, 0))
assert np.allclose(bias_activation(x, bias, "leaky_relu"), np.where(a > 0, a, 0.2 * a))
assert np.allclose(bias_activation(x, bias, "tanh"), np.tanh(a))

# %% [markdown]
# ### Exercise 6.3: bias and LeakyReLU, backwards
#
# *Difficulty 1 of 3 · 10 minutes · Good for: every layer of the discriminator.*
#
# `y` is the output of $y = \text{LeakyReLU}(x + b)$, with slope 0.2 below 0, and `dy` the gradient
# of the loss with respect to `y`. Both arrays are (B, H, W, C).

# %%
def leaky_relu_grad(dy, y):
    """dx (B, H, W, C) and dbias (C,)."""
    ### BEGIN SOLUTION
    dx = np.where(y > 0, dy, 0.2 * dy)
    return dx, dx.sum((0, 1, 2))
    ### END SOLUTION

# %%
check("6.3", leaky_relu_grad);

# %% [markdown]
# Here are the project's functions. `activation_grad` is our table.

# %%
print(inspect.getsource(bias_activation_grad))
print(inspect.getsource(activation_grad))

# %% [markdown]
# With tanh as the example, they agree with the formulas and with finite differences:

# %%
dy, y = rng.standard_normal(x.shape), bias_activation(x, bias, "tanh")
dx, dbias = bias_activation_grad(dy, y, "tanh")
assert np.allclose(dx, dy * (1 - y ** 2))
assert np.allclose(dbias, (dy * (1 - y ** 2)).sum((0, 1, 2)))
directional_check(lambda: (bias_activation(x, bias, "tanh") * dy).sum(), [x, bias], [dx, dbias],
                  rng)

# %% [markdown]
# LeakyReLU has a kink at 0. As in notebook 3, we check it with inputs that stay away from 0:

# %%
x, bias = off_kinks(rng, 2, 3, 4, 5), np.zeros(5)
y = bias_activation(x, bias, "leaky_relu")
gradients = bias_activation_grad(dy, y, "leaky_relu")
directional_check(lambda: (bias_activation(x, bias, "leaky_relu") * dy).sum(), [x, bias],
                  gradients, rng)

# %% [markdown]
# ## Real or not: the sigmoid
#
# The discriminator knows two classes, "real" and "generated". Only the difference between their
# scores counts. So we fix the score of "generated" at 0, and the discriminator gives a single
# number $z$, the score of "real". The softmax of the two scores gives "real" the probability
#
# $$s(z) = \frac{e^z}{e^z + e^0} = \frac{1}{1 + e^{-z}}$$
#
# This function is the *sigmoid*, and the number $z$ is called a *logit*.

# %%
def sigmoid(z):
    return 1 / (1 + np.exp(-z))

for z in -4.0, 0.0, 1.0:
    real, generated = softmax(np.array([z, 0]))
    assert np.isclose(sigmoid(z), real) and np.isclose(1 - real, generated)
    print(f"z = {z:>4}: real with probability {real:.3f}")

# %% [markdown]
# ## How wrong?
#
# Let $t = 1$ for a real map, and $t = 0$ for a generated one. The probability that the
# discriminator gives to the right class is $s$ if $t = 1$, and $1 - s$ if $t = 0$. This probability
# should be large. The loss is minus its logarithm, the *binary cross-entropy*:
#
# $$L = - t \log s - (1 - t) \log (1 - s)$$
#
# Why the logarithm? The probability that the discriminator gives to the right classes of *all* maps
# of a batch is a product, with one factor for each map. The logarithm turns it into a sum. In
# equation 1 of the paper, the discriminator makes $\log D(x) + \log(1 - D(G(z)))$ as large as
# possible, where $D$ is the probability $s$ that it gives. This is $-L$ of a real map, plus $-L$ of
# a generated one. (There $x$ is a real map, and $z$ is the generator's input. Here $z$ is the
# logit.)
#
# The gradient is surprisingly simple. From the section on softmax we have
# $\partial \log p_k / \partial x_j = [k = j] - p_j$. Here class $j$ is "real": $x_j$ is $z$, and
# $p_j$ is $s$. For $k = j$ the formula says that the derivative of $\log s$ is $1 - s$. If $k$ is
# the other class, "generated", then $p_k$ is $1 - s$, and the derivative of $\log(1 - s)$ is $-s$.
# So
#
# $$\frac{\partial L}{\partial z} = -t\,(1 - s) + (1 - t)\,s = s - t$$
#
# The gradient is what the discriminator says, $s$, minus what is true, $t$.

# %%
z, t, h = 0.7, 1.0, 1e-5
def loss(z):
    return -t * np.log(sigmoid(z)) - (1 - t) * np.log(1 - sigmoid(z))

print(f"finite differences: {(loss(z + h) - loss(z - h)) / (2 * h):.6f}")
print(f"s - t:              {sigmoid(z) - t:.6f}")
assert np.isclose((loss(z + h) - loss(z - h)) / (2 * h), sigmoid(z) - t)

# %% [markdown]
# Would a squared error, $(s - t)^2$, do as well? The derivative of $\log s$ is $1 - s$, and this is
# the derivative of $s$, divided by $s$. So the derivative of $s$ is $s\,(1 - s)$, and that of the
# squared error is $2\,(s - t)\,s\,(1 - s)$. Here are both losses for a real map, $t = 1$. At the
# left of each picture the discriminator is sure and wrong.

# %%
z = np.linspace(-8, 8, 201)
s = sigmoid(z)
_, (left, right) = plt.subplots(1, 2, figsize=(6.2, 2.9), layout="constrained")
left.plot(z, -np.log(s), label="cross-entropy")
left.plot(z, (s - 1) ** 2, "--", label="squared error")
right.plot(z, s - 1)
right.plot(z, 2 * (s - 1) * s * (1 - s), "--")
left.set(xlabel="logit z", title="loss"), right.set(xlabel="logit z", title="gradient")
left.legend()
plt.show()

# %% [markdown]
# The squared error contains $s\,(1 - s)$, which is almost 0 if the discriminator is sure, right or
# wrong. So from a sure mistake it learns almost nothing. In the cross-entropy the logarithm undoes
# the exponential, and the gradient of a sure mistake is almost $-1$ if $t = 1$ (and almost $+1$ if
# $t = 0$):

# %%
s = sigmoid(-8)
print(f"at z = -8: cross-entropy {s - 1:.4f}, squared error {2 * (s - 1) * s * (1 - s):.4f}")

# %% [markdown]
# ## Sure and wrong, on a computer
#
# If the map is generated, $t = 0$, the loss is $-\log(1 - s)$. Let the discriminator be sure that
# the map is real: $z$ is large. We know what should come out. For large $z$, $1 - s$ is about
# $e^{-z}$, so the loss is about $z$.

# %%
with np.errstate(all="ignore"):
    for z in 10.0, 30.0, 40.0, 1000.0:
        print(f"z = {z:>6}: {-np.log(1 - sigmoid(z)):.5f}")

# %% [markdown]
# At $z = 30$ the third digit after the point is wrong, and at 40 the loss is infinite. The reason:
# $s$ is very close to 1, and float64 keeps only about 16 digits of it. At 30, only three digits of
# $1 - s$ are left. At 40, $s$ is rounded to 1, and $\log 0$ is minus infinity. The cure is to
# simplify the formula *before* the computer gets it. Since $1 - s = 1 / (1 + e^z)$ and
# $s = e^z / (1 + e^z)$,
#
# $$-\log(1 - s) = \log(1 + e^z), \qquad -\log s = \log(1 + e^z) - z$$
#
# Put both into $L$. The terms with $t \log(1 + e^z)$ cancel:
#
# $$L = \log(1 + e^z) - z\,t$$
#
# Only one danger is left: if $z$ is large, $e^z$ overflows. So for $z > 0$ we take $e^z$ out of the
# sum, $\log(1 + e^z) = \log\big(e^z (e^{-z} + 1)\big) = z + \log(1 + e^{-z})$. For $z \le 0$ we
# leave the formula as it is. Both cases in one formula:
#
# $$\log(1 + e^z) = \max(z, 0) + \log(1 + e^{-|z|})$$
#
# One more detail. If $e^{-|z|}$ is tiny, $1 + e^{-|z|}$ is rounded to 1. NumPy's `log1p(a)` gives
# $\log(1 + a)$ without this rounding.

# %%
a = np.exp(-40.0)
print(np.log(1 + a), f"{np.log1p(a):.3e}")

# %% [markdown]
# ### Exercise 6.4: binary cross-entropy for any logit
#
# *Difficulty 2 of 3 · 15 minutes · Good for: the loss of every discriminator.*
#
# `z` and `t` have the same shape, whichever it is. The numbers in `t` may lie anywhere from 0 to 1:
# some GANs take $t = 0.9$ for real maps, so that the discriminator does not become too sure. The
# formulas hold for such $t$ too. The loss is a single number, the mean over all logits. `dz` is the
# gradient of this mean: how does it differ from $s - t$? For the sigmoid you can take
# $1 / (1 + e^{-z})$: if $e^{-z}$ becomes infinite, this is 0, as it should be.

# %%
def stable_bce(z, t):
    """The loss, and dz of the shape of z."""
    ### BEGIN SOLUTION
    loss = np.mean(np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - z * t)
    s = np.where(z >= 0, 1, np.exp(-np.abs(z))) / (1 + np.exp(-np.abs(z)))
    return loss, (s - t) / z.size
    ### END SOLUTION

# %%
check("6.4", stable_bce);

# %% [markdown]
# The project's function. It returns the loss as an array (1,), and computes even the sigmoid
# without an overflow.

# %%
print(inspect.getsource(bce_with_logits))

# %%
z, t = 3 * rng.standard_normal((6, 1, 1, 1)), rng.uniform(0, 1, (6, 1, 1, 1))
found, dz = bce_with_logits(z, t)
assert np.allclose(found, np.mean(-t * np.log(sigmoid(z)) - (1 - t) * np.log(1 - sigmoid(z))))
assert np.allclose(dz, (sigmoid(z) - t) / 6)
directional_check(lambda: bce_with_logits(z, t)[0][0], [z], [dz], rng)
surely_wrong, _ = bce_with_logits(np.array([1000.0]), np.array([0.0]))
print(surely_wrong)

# %% [markdown]
# ## K classes: the cross-entropy
#
# All this works for more than two classes too. If class $k$ is the right one, the loss is
# $-\log p_k$. With the softmax this is
#
# $$L = \log \sum_i e^{x_i} - x_k$$
#
# SemGAN does not need it: its generator is never told the right class of a pixel. But networks that
# find the classes in a photo learn with this loss, and after this notebook you can write it.

# %% [markdown]
# ### Exercise 6.5: cross-entropy of label maps
#
# *Difficulty 3 of 3 · 20 minutes · Good for: every classifier you will ever train.*
#
# `x` holds scores (B, H, W, K), and `labels` the right classes, integers (B, H, W). The loss is
# the mean over all pixels. Scores may be large, so subtract the largest of each pixel first. Even
# then a $p_k$ can be so small that it is rounded to 0: do not take its logarithm, and do not divide
# by it. You have seen the derivative of $\log p_k$ above.

# %%
def cross_entropy(x, labels):
    """The loss, one number, and dx (B, H, W, K)."""
    K = x.shape[-1]
    right = np.eye(K)[labels]  # one-hot, (B, H, W, K)
    ### BEGIN SOLUTION
    x = x - x.max(-1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(-1, keepdims=True))
    loss = -(right * log_p).sum() / labels.size
    return loss, (np.exp(log_p) - right) / labels.size
    ### END SOLUTION

# %%
check("6.5", cross_entropy);

# %% [markdown]
# ## Summary
#
# - Softmax turns differences of scores into ratios of probabilities. Subtract the largest score of
#   each pixel, and nothing overflows.
# - Its gradient is $dx_j = p_j (dp_j - \sum_k p_k\,dp_k)$, pixel by pixel. This is small where the
#   probabilities are close to 0 and 1.
# - The gradient with respect to a bias is the sum of $dx$ over all maps and pixels.
# - The sigmoid is a softmax of two classes. The gradient of the cross-entropy with respect to the
#   logit is $s - t$, which stays large as long as the answer is wrong.
# - Simplify logarithms of exponentials on paper before you compute them.
#
# **In the project:** [`softmax`](../kernels/numpy_ops.py#softmax),
# [`softmax_grad`](../kernels/numpy_ops.py#softmax_grad),
# [`bias_activation_grad`](../kernels/numpy_ops.py#bias_activation_grad) and
# [`bce_with_logits`](../kernels/numpy_ops.py#bce_with_logits). The generator's last layer is
# [`conv_softmax`](../semgan.py#conv_softmax), and the discriminator's loss
# [`discriminator_loss`](../semgan.py#discriminator_loss) (equations 1 and 2 of
# [the paper](https://arxiv.org/abs/1906.12195)).
#
# **Next:** between the generator's layers something keeps the numbers in range, whatever the
# weights are: batch normalization, in [notebook 7](07_batch_norm.ipynb).
