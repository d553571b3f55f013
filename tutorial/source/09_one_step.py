# %% [markdown]
# # 9. One step: can I do it all by hand?
#
# What happens in one step of training, down to the last number? By now you know almost every part:
# the three sums of a convolution, batch norm, the softmax, both losses. One is still missing: Adam,
# the rule that turns gradients into new parameters. We derive it first. Then we build the whole
# step, piece by piece, from plain NumPy, and let it run beside the project's. After each of three
# steps, all losses and all parameters must agree to 12 decimal places.
#
# You need: notebooks 3 to 8. Time: about 110 minutes, of which 65 are exercises.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import inspect
import matplotlib.pyplot as plt
import numpy as np
import data
import semgan
from kernels import gradient_check, load, numpy_ops
from tutorial.checks import check, show

# %% [markdown]
# ## Gradients of all sizes
#
# We need two small networks to work with. Almost all of their sizes differ, so that a mistake in an
# axis shows. `adam_eps` is explained below.

# %%
s = semgan.settings(side=16, batch_size=3, latent=5, kernel_size=3, generator_filters=[9, 8, 6],
                    discriminator_filters=[7, 10], learning_rate=1e-3,
                    discriminator_learning_rate=2e-4, adam_eps=1e-4)
shapes = data.colored_shapes(s.side, s.seed)  # label maps (N, 16, 16) with 4 classes

def new_trainer():
    """The project's, with its fast engine, in float64. It always starts from the same numbers."""
    return semgan.Trainer(load("numpy", np.float64), s, shapes)

# %% [markdown]
# The project does one step. How large are the gradients? For each parameter array we take the root
# mean square (RMS) of its gradient: the root of the mean of all squares.

# %%
def rms(x):
    return np.sqrt((x ** 2).mean())

trainer = new_trainer()
trainer.train_step()
sizes = {f"{network} {name}": rms(grad) for network in "dg"
         for name, grad in trainer.networks[network].grads.items()}
of_g = [size for name, size in sizes.items() if name[0] == "g"]
print(f"largest / smallest in G: {max(of_g) / min(of_g):.0f}")

# %%
plt.figure(figsize=(6.4, 3.8))
for color, first, network in ("C1", "d", "discriminator"), ("C0", "g", "generator"):
    names = [name for name in sizes if name[0] == first]
    plt.semilogx([sizes[name] for name in names], names, "o", color=color, label=network)
plt.xlabel("RMS of the gradient"), plt.grid(alpha=0.4), plt.legend()
plt.gca().invert_yaxis()
plt.tight_layout()
plt.show()

# %% [markdown]
# Gradient descent would move each parameter $\theta$ against its gradient $g$, by the learning rate
# $\eta$ times $g$: $\theta \leftarrow \theta - \eta\, g$. Each network can have a learning rate of
# its own. But within G, too, no single rate fits: where the gradient is 33 times smaller,
# parameters would move 33 times less.
#
# ## Adam
#
# Adam divides each gradient by its usual size. For every single parameter it keeps two numbers, $m$
# and $v$, which start at 0. $m$ is a moving mean of the gradient, and $v$ one of its square:
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1)\, g \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2$$
#
# The parameter then moves by $-\eta\, m / \sqrt{v}$ (almost: two details follow). Two cases show
# what that does:
#
# - The gradient stays the same: then $m$ tends to $g$ and $\sqrt{v}$ to $|g|$. The parameter moves
#   by $\eta$ a step, however small its gradient is.
# - The gradient changes its sign in every step, but not its size: then $|m|$ becomes smaller than
#   $\sqrt{v}$, for $\beta_1 = 0.5$ a third of it. These shorter steps go back and forth, and
#   cancel.
#
# The paper takes $\beta_1 = 0.5$ and $\beta_2 = 0.999$ (Appendix B). So $m$ looks back over about
# $1 / (1 - \beta_1) = 2$ steps, and $v$ over 1000.
#
# ## The first steps
#
# Both means start at 0, so at first they are too small. By how much? Put the rule for $m$ into
# itself, step by step, from $m_0 = 0$:
#
# $$m_t = (1 - \beta_1) \left( g_t + \beta_1 g_{t-1} + \beta_1^2 g_{t-2} + \dots
# + \beta_1^{t-1} g_1 \right)$$
#
# In a mean the weights add up to 1. Here their sum is smaller. It is a geometric series:
#
# $$(1 - \beta_1)(1 + \beta_1 + \dots + \beta_1^{t-1}) = 1 - \beta_1^t$$
#
# We print it for $\beta_1 = 0.9$, the usual choice elsewhere, since it grows more slowly there than
# for the paper's 0.5.

# %%
beta1 = 0.9
for t in 1, 2, 10, 100:
    weights = (1 - beta1) * beta1 ** np.arange(t)
    assert np.isclose(weights.sum(), 1 - beta1 ** t)
    print(f"step {t:3}: the weights add up to {weights.sum():.4f}")

# %% [markdown]
# So Adam divides $m$ by that sum, and $v$ likewise. This is the *bias correction*:
#
# $$\hat m = \frac{m}{1 - \beta_1^t} \qquad \hat v = \frac{v}{1 - \beta_2^t} \qquad
# \theta \leftarrow \theta - \eta\, \frac{\hat m}{\sqrt{\hat v} + \varepsilon}$$
#
# This is algorithm 1 of [Kingma and Ba](https://arxiv.org/abs/1412.6980). $t$ counts the steps,
# from 1. The small $\varepsilon$ keeps Adam from dividing by 0.

# %% [markdown]
# ### Exercise 9.1: without the correction
#
# *Difficulty 1 of 3 · 10 minutes · Good for: seeing what the bias correction prevents.*
#
# Let the gradient be the same positive number $g$ in every step. Leave the correction and
# $\varepsilon$ out. How large is the update $\eta\, m / \sqrt{v}$ in step $t$, as a multiple of
# $\eta$? ($g$ cancels.)

# %%
def update_without_correction(t, beta1, beta2):
    """m / sqrt(v) in step t, if all gradients are equal and positive."""
    ### BEGIN SOLUTION
    return (1 - beta1 ** t) / np.sqrt(1 - beta2 ** t)
    ### END SOLUTION

# %%
check("9.1", update_without_correction);

# %% [markdown]
# Let us watch it happen. This loop follows the two means through 10,000 steps; the gradient is
# always 1. We look at the paper's $\beta_1 = 0.5$ and at the usual 0.9.

# %%
def updates_without_correction(beta1, beta2, steps=10_000):
    m = v = 0.0
    for _ in range(steps):
        m, v = beta1 * m + (1 - beta1), beta2 * v + (1 - beta2)
        yield m / np.sqrt(v)

paper, usual = [np.array(list(updates_without_correction(b, 0.999))) for b in (0.5, 0.9)]
for t in 1, 10, 100, 1000, 10_000:
    print(f"step {t:6,}: {paper[t - 1]:5.2f} times the learning rate; {usual[t - 1]:.2f} with 0.9")

# %%
plt.figure(figsize=(6.4, 3))
plt.semilogx(1 + np.arange(len(paper)), paper, label="without correction, $\\beta_1 = 0.5$")
plt.semilogx(1 + np.arange(len(usual)), usual, label="without correction, $\\beta_1 = 0.9$")
plt.axhline(1, color="k", ls="--", lw=1, label="with correction")
plt.xlabel("step"), plt.ylabel("update / learning rate"), plt.legend()
plt.tight_layout()
plt.show()

# %% [markdown]
# $v$ is the slow one: with $\beta_2 = 0.999$ it starts at a thousandth of $g^2$, and we divide by
# its root. Without the correction and with $\beta_1 = 0.5$, the first ten updates are 10 to 17
# times too large, just when both networks know nothing. After 1000 steps they are still too large
# by a quarter. With the correction all of them have the right size, from the first on.

# %% [markdown]
# ### Exercise 9.2: Adam
#
# *Difficulty 2 of 3 · 10 minutes · Good for: the optimizer that most networks are trained with.*
#
# Write one update of Adam, from the formulas above. Return the three arrays that the next step
# needs: the new `p`, `m` and `v`. Leave the arguments as they are: no `m *= beta1`.

# %%
def adam_update(p, g, m, v, t, lr, beta1, beta2, eps):
    """p, g, m, v: parameters, their gradients and both moving means, all (n,). t = 1, 2, ..."""
    ### BEGIN SOLUTION
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g ** 2
    m_hat = m / (1 - beta1 ** t)
    v_hat = v / (1 - beta2 ** t)
    return p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v
    ### END SOLUTION

# %%
check("9.2", adam_update);

# %% [markdown]
# Here is our version, which takes the constants from the settings. `m + (1 - beta1) * (g - m)` is
# the same as `beta1 * m + (1 - beta1) * g`: the mean moves towards `g`.

# %%
def my_adam(p, g, m, v, t, lr, s):
    m = m + (1 - s.beta1) * (g - m)
    v = v + (1 - s.beta2) * (g ** 2 - v)
    m_hat, v_hat = m / (1 - s.beta1 ** t), v / (1 - s.beta2 ** t)
    return p - lr * m_hat / (np.sqrt(v_hat) + s.adam_eps), m, v

# %% [markdown]
# The project's version counts the steps itself:

# %%
print(inspect.getsource(numpy_ops.adam))

# %%
rng = np.random.default_rng(0)
lr = np.array([1e-3])
mine = rng.standard_normal(50), np.zeros(50), np.zeros(50)  # p, m, v
theirs = *mine, np.zeros(1)  # p, m, v, step
for t in range(1, 6):
    g = rng.standard_normal(50)
    mine = my_adam(mine[0], g, *mine[1:], t, lr, s)
    theirs = numpy_ops.adam(theirs[0], g, *theirs[1:], lr, s.beta1, s.beta2, s.adam_eps)
    assert all(np.allclose(a, b, rtol=1e-12, atol=0) for a, b in zip(mine, theirs))

# %% [markdown]
# What is $\varepsilon$ good for? In the first step $\hat m = g$ and $\sqrt{\hat v} = |g|$, so the
# update is $\eta\, g / (|g| + \varepsilon)$. Gradients much larger than $\varepsilon$ give the full
# step, $\eta$, and much smaller ones almost none.

# %%
print("gradient   eps = 1e-8   eps = 1e-4")
for g in 1e-2, 1e-4, 1e-6, 1e-8, 1e-17:
    print(f"{g:8.0e}{g / (g + 1e-8):13.2g}{g / (g + 1e-4):13.2g}   times the learning rate")

# %% [markdown]
# The last line explains the `adam_eps=1e-4` in our settings. If two programs add up the same
# numbers in different orders, their results differ by rounding errors. Sometimes the terms of a
# gradient should cancel, as they do for a bias in front of a batch norm: where the exact gradient
# is 0, one program may get 0 and the other $10^{-17}$. Adam divides that by $\varepsilon$. With the
# paper's $10^{-8}$, the two updates then differ by $10^{-9}$ learning rates, and with $10^{-4}$
# only by $10^{-13}$. Our networks have no such bias, but elsewhere terms may cancel by chance. We
# want to compare 12 decimal places, so to be safe we take $10^{-4}$. For training, the paper's
# $\varepsilon$ is right.

# %% [markdown]
# ## The plan
#
# One step of training, in order. B is the batch size.
#
# 1. Take B real maps x, one-hot, and B latent vectors z.
# 2. The generator makes B maps: G(z).
# 3. The discriminator sees all 2B maps: logits.
# 4. D's loss is the binary cross-entropy. The targets are 1 for real maps, 0 for generated ones.
# 5. Backward through D. Adam updates D.
# 6. The *new* D sees the same 2B maps: features, the outputs of its layers.
# 7. G's loss is feature matching. Backward through D to the maps G(z), without an update of D.
# 8. Backward through G. Adam updates G.
#
# No framework decides where gradients flow: we send them. In line 5 they end at the first layer of
# D, since G does not learn from D's loss. In line 7 they pass through D to reach G.
#
# Now the pieces. Each is a function of its arguments and remembers nothing. A forward function
# returns what its backward function will need.
#
# ## Three sums (notebook 4)
#
# Slide the kernel over a padded map. At the start its tap $(i, j)$ lies on pixel $(i, j)$. Each
# step moves the kernel `stride` pixels on, to the right or down. So the tap meets every `stride`-th
# pixel of every `stride`-th row.
#
# In the code, `np.ndindex` lists all taps $(i, j)$. `np.s_[...]` stores a selection of pixels, for
# use in brackets later on.
#
# All our maps are square, and before a convolution of stride 2 their sides are even. Those of our
# kernels are odd. With a padding of half the kernel, rounded down, a convolution of stride 1 keeps
# the sides of a map, and one of stride 2 halves them.
#
# All three sums run over the taps:
#
# - forward, each tap multiplies the pixels that it meets by its weights;
# - backward to the input, it multiplies the gradients of the output by its weights, and adds them
#   to the gradients of those pixels;
# - backward to the weights, it multiplies those pixels by the gradients of the output, and sums
#   over all maps and pixels.

# %%
def my_taps(w, side, stride):
    """[(tap, the pixels that it meets in a padded map)]"""
    return [((i, j), np.s_[:, i:i + side:stride, j:j + side:stride])
            for i, j in np.ndindex(*w.shape[:2])]

def my_pad(x, w):
    p = len(w) // 2
    return np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))

# %%
def my_conv(x, w, stride=1):  # x (B, H, H, Cin), w (k, k, Cin, Cout)
    padded = my_pad(x, w)
    return sum(padded[pixels] @ w[tap] for tap, pixels in my_taps(w, x.shape[1], stride))

# %%
def my_conv_input_grad(dy, w, stride=1):  # dy (B, Ho, Ho, Cout)
    p, side = len(w) // 2, stride * dy.shape[1]
    dx = np.zeros((len(dy), side + 2 * p, side + 2 * p, w.shape[2]), dy.dtype)
    for tap, pixels in my_taps(w, side, stride):
        dx[pixels] += dy @ w[tap].T
    return dx[:, p:p + side, p:p + side]  # (B, H, H, Cin), without the padding

# %%
def my_conv_weight_grad(x, dy, w, stride=1):
    padded, axes = my_pad(x, w), ((0, 1, 2), (0, 1, 2))  # sums over maps and pixels
    dw = [np.tensordot(padded[pixels], dy, axes)
          for _, pixels in my_taps(w, x.shape[1], stride)]
    return np.reshape(dw, w.shape)

# %%
x, w = rng.standard_normal((3, 16, 16, 4)), rng.standard_normal((5, 5, 4, 6))
dy = rng.standard_normal((3, 8, 8, 6))
assert np.allclose(my_conv(x, w, 2), numpy_ops.conv(x, w, 2, 2))
assert np.allclose(my_conv_input_grad(dy, w, 2), numpy_ops.conv_input_grad(dy, w, x.shape, 2, 2))
assert np.allclose(my_conv_weight_grad(x, dy, w, 2),
                   numpy_ops.conv_weight_grad(x, dy, w.shape, 2, 2))

# %% [markdown]
# ## Batch norm, ReLU, LeakyReLU and softmax (notebooks 6 and 7)
#
# In the generator, ReLU always follows batch norm, so one function does both.

# %%
def my_norm_relu(a, gamma, beta, eps=1e-5):  # a (B, H, H, C)
    std = np.sqrt(a.var((0, 1, 2)) + eps)  # (C,)
    normalized = (a - a.mean((0, 1, 2))) / std
    return np.maximum(gamma * normalized + beta, 0), normalized, std

# %%
def my_norm_relu_grad(dy, y, normalized, std, gamma):
    dy = dy * (y > 0)
    dgamma, dbeta = (dy * normalized).sum((0, 1, 2)), dy.sum((0, 1, 2))
    count = dy.size / dy.shape[-1]  # B H H
    da = gamma / std * (dy - dbeta / count - normalized * dgamma / count)
    return da, dgamma, dbeta

# %%
a, dy = rng.standard_normal((2, 3, 8, 8, 6))
gamma, beta, running = rng.uniform(0.5, 1, 6), rng.standard_normal(6), (np.zeros(6), np.ones(6))
y, normalized, std = my_norm_relu(a, gamma, beta)
y2, mean, var, _, _ = numpy_ops.batch_norm(a, gamma, beta, *running, activation="relu")
assert np.allclose(y, y2)
grads = numpy_ops.batch_norm_grad(dy, a, y, gamma, mean, var, activation="relu")
for mine, theirs in zip(my_norm_relu_grad(dy, y, normalized, std, gamma), grads):
    assert np.allclose(mine, theirs)

# %%
def my_leaky_relu(x):
    return np.where(x > 0, x, 0.2 * x)

def my_leaky_relu_grad(dy, y):  # y has the sign of x
    return np.where(y > 0, dy, 0.2 * dy)

# %%
def my_softmax(x):  # over the classes, the last axis
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)

def my_softmax_grad(dp, p):
    return p * (dp - (p * dp).sum(-1, keepdims=True))

# %%
assert np.allclose(my_leaky_relu(a), numpy_ops.bias_activation(a, None, "leaky_relu"))
assert np.allclose(my_leaky_relu_grad(dy, a), numpy_ops.activation_grad(dy, a, "leaky_relu"))
p = my_softmax(a)
assert np.allclose(p, numpy_ops.softmax(a))
assert np.allclose(my_softmax_grad(dy, p), numpy_ops.softmax_grad(dy, p)[0])

# %% [markdown]
# ## Generator, forward
#
# From here on, `g`, `d` and an argument `p` are the parameters of a network: a dictionary from
# names to arrays. A new trainer shows us which parameters G has. No convolution in front of a batch
# norm has a bias: batch norm would subtract it again, together with the mean.

# %%
trainer = new_trainer()
for name, array in trainer.generator.params.items():
    print(f"{name:14}{array.shape}")

# %% [markdown]
# The layers in the middle of G: a transposed convolution that doubles the sides (notebook 5), batch
# norm, ReLU.

# %%
def my_deconv(p, name, x):  # x (B, H, H, Cin)
    a = my_conv_input_grad(x, p[name + ".w"], 2)  # (B, 2H, 2H, Cout)
    y, normalized, std = my_norm_relu(a, p[name + ".gamma"], p[name + ".beta"])
    return y, (x, y, normalized, std)

# %% [markdown]
# The dense layer at the start is a convolution with a 1x1 kernel, on maps of a single pixel. So it
# needs no function of its own.

# %%
def my_generator(p, z):  # z (B, latent)
    z = z[:, None, None]  # (B, 1, 1, latent)
    hidden = np.maximum(my_conv(z, p["dense.w"]) + p["dense.b"], 0)
    x1, kept1 = my_deconv(p, "deconv1", hidden.reshape(len(z), 4, 4, -1))  # (B, 8, 8, C1)
    x2, kept2 = my_deconv(p, "deconv2", x1)  # (B, 16, 16, C2)
    maps = my_softmax(my_conv(x2, p["conv.w"]) + p["conv.b"])  # (B, 16, 16, K)
    return maps, (z, hidden, kept1, kept2, x2, maps)

# %% [markdown]
# `trainer.inputs(0)` gives us the first step's latent vectors, and the indices of its real maps.
# Does our generator make the same maps as the project's?

# %%
z, index = trainer.inputs(0)
g = trainer.generator.params
fake, kept = my_generator(g, z)
theirs, their_kept = trainer.generator.forward(z)
assert np.allclose(fake, theirs, rtol=0, atol=1e-12)
print(fake.shape)

# %% [markdown]
# ## Discriminator, forward
#
# Two convolutions of stride 2, with bias and LeakyReLU, and a dense layer to one logit a map. Our
# function also returns the *features*: the outputs of both convolutions. The maps stand before them
# in the same tuple, because on the way back each layer needs its input.

# %%
def my_discriminator(p, maps):  # maps (2B, 16, 16, K)
    f1 = my_leaky_relu(my_conv(maps, p["conv1.w"], 2) + p["conv1.b"])  # (2B, 8, 8, C1)
    f2 = my_leaky_relu(my_conv(f1, p["conv2.w"], 2) + p["conv2.b"])  # (2B, 4, 4, C2)
    logits = my_conv(f2.reshape(len(maps), 1, 1, -1), p["dense.w"]) + p["dense.b"]
    return logits, (maps, f1, f2)

# %%
real = np.eye(4)[shapes.maps[index]]  # one-hot, (B, 16, 16, K)
maps = np.concatenate([real, fake])
d = trainer.discriminator.params
logits, features = my_discriminator(d, maps)
assert np.allclose(logits, trainer.discriminator.forward(maps)[0], rtol=0, atol=1e-12)
print(logits.ravel().round(3))

# %% [markdown]
# The first three logits belong to real maps, the last three to generated ones. A logit below 0
# means "generated". This discriminator has learned nothing yet: it takes all six maps for generated
# ones, and is surest about the real ones.

# %% [markdown]
# ### Exercise 9.3: count the parameters
#
# *Difficulty 1 of 3 · 10 minutes · Good for: knowing where a network's memory goes.*
#
# How many parameters does a discriminator have? `filters` lists the channels after each
# convolution; our own has `[7, 10]`. Each convolution has a kernel of k x k, with k odd, a padding
# of `k // 2`, a bias, and stride 2. The output of the last one goes through a dense layer, with a
# bias, to a single logit. The function returns one number, for any number of convolutions. `check`
# calls it for our own, `count_parameters(16, 4, [7, 10], 3)`. If that is right, it goes on to a
# larger one, `count_parameters(64, 4, [6, 8, 12], 5)`.

# %%
def count_parameters(side, classes, filters, k):
    """Of a discriminator for maps (side, side, classes)."""
    ### BEGIN SOLUTION
    total, channels = 0, classes
    for f in filters:
        total += k * k * channels * f + f
        channels, side = f, side // 2
    return total + side * side * channels + 1
    ### END SOLUTION

# %%
check("9.3", count_parameters);

# %% [markdown]
# Our discriminator has 1060. Training keeps four numbers for each parameter: the parameter, its
# gradient, `m` and `v`.

# %% [markdown]
# ## D's loss, and backward through D (notebook 6)
#
# The binary cross-entropy of a logit $z$ and a target $t$ is $\log(1 + e^z) - z t$, and its
# derivative is $\sigma(z) - t$, with the sigmoid $\sigma$. (Only here, as in notebook 6, are $z$
# and $t$ the logit and the target.) The loss is the mean over all 2B logits. `np.logaddexp(0, z)`
# is $\log(e^0 + e^z)$, without overflow.

# %%
def my_bce(logits, targets):
    loss = (np.logaddexp(0, logits) - logits * targets).mean()
    return loss, (1 / (1 + np.exp(-logits)) - targets) / logits.size

# %%
targets = np.array([1, 1, 1, 0, 0, 0]).reshape(-1, 1, 1, 1)  # real: 1, generated: 0
loss, dlogits = my_bce(logits, targets)
theirs, their_dlogits = numpy_ops.bce_with_logits(logits, targets)
assert np.allclose(loss, theirs) and np.allclose(dlogits, their_dlogits)
print(f"loss {loss:.4f}; a D that guesses, with all logits 0: log 2 = {np.log(2):.4f}")

# %% [markdown]
# Backward through a convolution with a bias: the gradients of its parameters in a dictionary, and
# the gradient of its input.

# %%
def my_conv_grad(p, name, dy, x, stride=1):
    w = p[name + ".w"]
    grads = {name + ".w": my_conv_weight_grad(x, dy, w, stride),
             name + ".b": dy.sum((0, 1, 2))}
    return my_conv_input_grad(dy, w, stride), grads

# %% [markdown]
# Now through the discriminator, from the last layer to the first. The gradient of the maps is not
# used here: G does not learn from D's loss. The last line joins three dictionaries with `|`.

# %%
def my_discriminator_grad(p, dlogits, features):
    maps, f1, f2 = features
    dx, dense = my_conv_grad(p, "dense", dlogits, f2.reshape(len(f2), 1, 1, -1))
    da = my_leaky_relu_grad(dx.reshape(f2.shape), f2)
    dx, conv2 = my_conv_grad(p, "conv2", da, f1, 2)
    da = my_leaky_relu_grad(dx, f1)
    _, conv1 = my_conv_grad(p, "conv1", da, maps, 2)
    return dense | conv2 | conv1

# %%
def largest_difference(a, b):
    """Over all arrays of two dictionaries with equal keys."""
    assert a.keys() == b.keys()
    return max(np.abs(a[name] - b[name]).max() for name in a)

trainer.discriminator.backward(*trainer.discriminator_loss(maps))
assert largest_difference(my_discriminator_grad(d, dlogits, features),
                          trainer.discriminator.grads) < 1e-12

# %% [markdown]
# ## G's loss, and backward to the maps (notebook 8)
#
# Feature matching compares real and generated maps after *every* convolution of D. The loss is a
# sum, with one term for each. So the features of a layer can change the loss in two ways: directly,
# in their own term, and through the layers above. By the chain rule the two gradients add up.

# %% [markdown]
# ### Exercise 9.4: two gradients meet
#
# *Difficulty 3 of 3 · 15 minutes · Good for: losses inside a network, at any layer.*
#
# Take a network of two dense layers, without biases:
# `f1 = my_leaky_relu(x @ w1)`, then `f2 = my_leaky_relu(f1 @ w2)`. The loss is
# $L_1(f_1) + L_2(f_2)$. You are given `d1` $= \partial L_1 / \partial f_1$ and
# `d2` $= \partial L_2 / \partial f_2$. Return the gradient of the loss with respect to `x`.

# %%
def two_gradients(d1, d2, f1, f2, w1, w2):
    """d1 and f1 are (B, C1), d2 and f2 (B, C2), w1 (C0, C1), w2 (C1, C2). Returns dx (B, C0)."""
    def through_activation(dy, y):
        return np.where(y > 0, dy, 0.2 * dy)
    ### BEGIN SOLUTION
    df1 = d1 + through_activation(d2, f2) @ w2.T
    return through_activation(df1, f1) @ w1.T
    ### END SOLUTION

# %%
check("9.4", two_gradients);

# %% [markdown]
# Now with convolutions, and with feature matching as the term of each layer. The gradient of such a
# term is `2 * gap / (B H H C)`, the same for all maps of the batch (notebook 8). The loop takes
# both convolutions, the last one first, and puts each new loss in front of the others.
# `features[0]`, the maps themselves, are not compared.

# %%
def my_feature_matching(p, features):
    losses, dx, b = [], 0, len(features[0]) // 2
    for i in 2, 1:
        real, fake = features[i][:b], features[i][b:]  # (B, H, H, C) each
        gap = fake.mean(0) - real.mean(0)  # (H, H, C)
        losses = [(gap ** 2).mean()] + losses
        dx = dx + 2 * gap / fake.size  # from above, and this layer's own
        dx = my_conv_input_grad(my_leaky_relu_grad(dx, fake), p[f"conv{i}.w"], 2)
    return losses, dx

# %% [markdown]
# One layer agrees with the project's pure function, and both layers with its discriminator:

# %%
losses, dfake = my_feature_matching(d, features)
f = features[2]
theirs, _ = numpy_ops.feature_matching(f[:3], f[3:])
assert np.isclose(losses[1], theirs[0], rtol=1e-12)
their_dfake = trainer.generator_loss(maps)  # writes the losses into trainer.losses
assert np.allclose(losses, trainer.losses[1:], rtol=1e-12)
assert np.abs(dfake - their_dfake).max() < 1e-12

# %% [markdown]
# ## Backward through G
#
# The weights of a transposed convolution get their gradient from the same sum as those of a
# convolution, `my_conv_weight_grad`. Its first argument is the large map, its second the small one.
# In a convolution the large map is the input. Here it is the output, and what we know of that is
# its gradient, `da`. So `da` comes first, and the input `x` second (notebook 5).

# %%
def my_deconv_grad(p, name, dy, kept):
    w, (x, y, normalized, std) = p[name + ".w"], kept
    da, dgamma, dbeta = my_norm_relu_grad(dy, y, normalized, std, p[name + ".gamma"])
    grads = {name + ".w": my_conv_weight_grad(da, x, w, 2),
             name + ".gamma": dgamma, name + ".beta": dbeta}
    return my_conv(da, w, 2), grads

# %%
def my_generator_grad(p, dmaps, kept, deconv_grad=my_deconv_grad):
    z, hidden, kept1, kept2, x2, maps = kept
    dx, conv = my_conv_grad(p, "conv", my_softmax_grad(dmaps, maps), x2)
    dx, deconv2 = deconv_grad(p, "deconv2", dx, kept2)
    dx, deconv1 = deconv_grad(p, "deconv1", dx, kept1)
    dhidden = dx.reshape(hidden.shape) * (hidden > 0)
    _, dense = my_conv_grad(p, "dense", dhidden, z)
    return conv | deconv2 | deconv1 | dense

# %%
trainer.generator.backward(their_dfake, their_kept)
grads = my_generator_grad(g, dfake, kept)
assert largest_difference(grads, trainer.generator.grads) < 1e-12

# %% [markdown]
# Our gradient and the project's could be wrong in the same way. So we ask finite differences
# ([notebook 3](03_checking_gradients.ipynb)): one direction in all parameters of G at once, and a
# loss that goes through both networks. The check prints nothing if both agree, and raises an error
# if not.

# %%
def generator_loss():
    fake, _ = my_generator(g, z)
    _, features = my_discriminator(d, np.concatenate([real, fake]))
    return sum(my_feature_matching(d, features)[0])

gradient_check.directional_check(generator_loss, list(g.values()), [grads[n] for n in g], rng)

# %% [markdown]
# No error: the gradient is right, all the way from G's loss through both networks.

# %% [markdown]
# ### Exercise 9.5: the order of updates
#
# *Difficulty 2 of 3 · 10 minutes · Good for: a mistake that no gradient check can see.*
#
# Put a step together, for a toy whose networks `g` and `d` have one parameter each. The update is
# gradient descent on each network's own loss, with the learning rate `lr` for both. Follow the plan
# above: which `d` does each function get, the old one or the new?
#
# - `generate(g, z)` returns generated maps.
# - `d_gradient(d, x, fake)` is the derivative of D's loss with respect to `d`. It wants real maps
#   `x` and generated ones.
# - `g_gradient(g, d, x, z)` is the derivative of G's loss with respect to `g`. It makes its
#   generated maps itself, from `z`.

# %%
def toy_step(g, d, x, z, lr, generate, d_gradient, g_gradient):
    """One step of training. Returns the new g and the new d."""
    ### BEGIN SOLUTION
    fake = generate(g, z)
    d = d - lr * d_gradient(d, x, fake)
    g = g - lr * g_gradient(g, d, x, z)
    return g, d
    ### END SOLUTION

# %%
check("9.5", toy_step);

# %% [markdown]
# ## The whole step
#
# All pieces are there. From now on, `g` and `d` are dictionaries from names to triples: a parameter
# with its `m` and `v`. Adam treats each number alone, so it does not matter how parameters are
# grouped.

# %%
def params(net):
    return {name: p for name, (p, _, _) in net.items()}

def my_update(net, grads, t, lr, s):
    return {name: my_adam(p, grads[name], m, v, t, lr, s) for name, (p, m, v) in net.items()}

def start(params):
    return {name: (p.copy(), np.zeros_like(p), np.zeros_like(p)) for name, p in params.items()}

# %% [markdown]
# Lines 3 to 5 of the plan train D, and lines 6 to 8 train G. The targets are truth values, which
# count as 1 and 0. (At the end we train in float32. Integers would turn its numbers into float64,
# truth values do not.)

# %%
def train_discriminator(d, maps, t, s):
    targets = np.repeat([True, False], len(maps) // 2).reshape(-1, 1, 1, 1)
    logits, features = my_discriminator(params(d), maps)
    loss, dlogits = my_bce(logits, targets)
    grads = my_discriminator_grad(params(d), dlogits, features)
    return my_update(d, grads, t, s.discriminator_learning_rate, s), loss

# %%
def train_generator(g, d, maps, kept, t, s):
    _, features = my_discriminator(params(d), maps)
    losses, dfake = my_feature_matching(params(d), features)
    grads = my_generator_grad(params(g), dfake, kept)
    return my_update(g, grads, t, s.learning_rate, s), losses

# %% [markdown]
# And this is the step. G's maps are made once and used twice: D's update changes nothing in G, so
# what G kept stays valid.

# %%
def my_step(g, d, x, z, t, s):  # x (B, 16, 16, K), z (B, latent), t = 1, 2, ...
    fake, kept = my_generator(params(g), z)
    maps = np.concatenate([x, fake])  # (2B, 16, 16, K)
    d, loss = train_discriminator(d, maps, t, s)
    g, losses = train_generator(g, d, maps, kept, t, s)  # through the new d
    return g, d, [loss] + losses

# %% [markdown]
# The project's step reads much the same. (`self.ops.arena` is memory that all steps use again.
# `self.rate` holds two learning rates, G's and then D's: the project can lower them as training
# goes on.)

# %%
print(inspect.getsource(semgan.Trainer.operations))

# %% [markdown]
# Now both do three steps, from the same parameters and on the same inputs: our plain functions
# against the project's engine, which uses all cores.

# %%
trainer = new_trainer()
g, d = start(trainer.generator.params), start(trainer.discriminator.params)
for t in 1, 2, 3:
    z, index = trainer.inputs(t - 1)
    g, d, losses = my_step(g, d, np.eye(4)[shapes.maps[index]], z, t, s)
    trainer.train_step()
    assert np.abs(losses - trainer.losses).max() < 1e-12
    assert largest_difference(params(g), trainer.generator.params) < 1e-12
    assert largest_difference(params(d), trainer.discriminator.params) < 1e-12
    print(f"step {t}: D {losses[0]:.6f}, G {losses[1]:.6f} + {losses[2]:.6f}")

# %% [markdown]
# Three losses and all parameters agree, after each of three steps. How much code was it?

# %%
def lines(*functions):
    return sum(len(inspect.getsource(f).strip().splitlines()) for f in functions)

print(lines(my_taps, my_pad, my_conv, my_conv_input_grad, my_conv_weight_grad, my_norm_relu,
            my_norm_relu_grad, my_leaky_relu, my_leaky_relu_grad, my_softmax, my_softmax_grad,
            my_bce, my_adam), "lines of operations")
print(lines(my_deconv, my_generator, my_discriminator, my_conv_grad, my_discriminator_grad,
            my_feature_matching, my_deconv_grad, my_generator_grad), "lines of networks")
print(lines(params, my_update, train_discriminator, train_generator, my_step), "lines of the step")

# %% [markdown]
# ### Exercise 9.6: find the mistake
#
# *Difficulty 2 of 3 · 10 minutes · Good for: finding a wrong line without reading every line.*
#
# Below is another version of `my_deconv_grad`. One of its lines, a to g, is wrong. Nothing stops
# with an error, and all shapes are right. The cell after it runs backward through the generator
# with this version, and compares each gradient with the right one. Find the line by reasoning:
# which gradients are right, and from which lines were they computed? That leaves two lines. To
# decide between them, compare them with the formula in `my_norm_relu_grad`. Answer with one small
# letter in quotes, such as `"a"`.

# %%
def another_deconv_grad(p, name, dy, kept):
    w, (x, y, normalized, std) = p[name + ".w"], kept
    dy = dy * (y > 0)  # ............................................................. a
    dbeta = dy.sum((0, 1, 2))  # ..................................................... b
    dgamma = (dy * normalized).sum((0, 1, 2))  # ..................................... c
    count = dy.size / len(dy)  # ..................................................... d
    da = p[name + ".gamma"] / std * (dy - (dbeta + normalized * dgamma) / count)  # .. e
    dw = my_conv_weight_grad(da, x, w, 2)  # ......................................... f
    dx = my_conv(da, w, 2)  # ........................................................ g
    return dx, {name + ".w": dw, name + ".gamma": dgamma, name + ".beta": dbeta}

# %%
trainer = new_trainer()
p, (z, _) = trainer.generator.params, trainer.inputs(0)
fake, kept = my_generator(p, z)
dmaps = rng.standard_normal(fake.shape)
right = my_generator_grad(p, dmaps, kept)
for name, grad in my_generator_grad(p, dmaps, kept, another_deconv_grad).items():
    error = np.abs(grad - right[name]).max() / np.abs(right[name]).max()
    print(f"{name:14}", "right" if error < 1e-9 else "wrong")

# %%
wrong_line = ...
### BEGIN SOLUTION
# deconv2.beta and deconv2.gamma are right, and so are a, b, c and the dy that comes in.
# deconv2.w is wrong: d, e or f. deconv1.beta is wrong too, and f's result does not go there.
# That leaves d and e. e is the right formula. So it is d: each mean is over B H H numbers, and
# dy.size / dy.shape[-1] is their count.
wrong_line = "d"
### END SOLUTION

# %%
check("9.6", wrong_line);

# %% [markdown]
# ## It learns
#
# Does our step train a generator? We take somewhat larger networks, the paper's $\varepsilon$, and
# float32. From the trainer we take only its first parameters and the inputs of each step. (The
# training below takes about half a minute, and on a busy machine a minute or two.)

# %%
s = semgan.settings(side=16, batch_size=32, latent=16, kernel_size=5, learning_rate=2e-3,
                    generator_filters=[32, 16, 8], discriminator_filters=[16, 32],
                    discriminator_learning_rate=4e-4)
trainer = semgan.Trainer(load("numpy"), s, shapes)
g, d = start(trainer.generator.params), start(trainer.discriminator.params)
fixed_z = rng.standard_normal((32, 16)).astype(np.float32)

def samples(g):
    return my_generator(params(g), fixed_z)[0].argmax(-1)[:10]  # (10, 16, 16)

# %%
rows = [samples(g)]
for t in range(1, 301):
    z, index = trainer.inputs(t - 1)
    x = np.eye(4, dtype=np.float32)[shapes.maps[index]]
    g, d, losses = my_step(g, d, x, z, t, s)
    if t in (40, 100, 300):
        rows.append(samples(g))
show(np.concatenate([*rows, shapes.maps[::20]]), columns=10)

# %% [markdown]
# The last row shows real maps. Above it, each column belongs to one latent vector. The rows are:
# before the first step, and after 40, 100 and 300 steps. Noise becomes background with specks,
# specks become blobs, and some blobs begin to look like the shapes in colour and size. 300 steps
# are few: the preset `small` does 5000. (Here batch norm takes its statistics from the 32 samples.
# The project's `sample` takes the running ones: see notebook 7.)
#
# You have seen every line that did this, from the padding of a map to the update of a parameter.

# %% [markdown]
# ## Summary
#
# - Adam divides a moving mean of the gradient by the root of a moving mean of its square. So a
#   parameter whose gradient keeps its sign moves by about the learning rate in each step, however
#   small the gradient is.
# - Both means start at 0. The bias correction divides each by $1 - \beta^t$, the sum of its weights
#   so far.
# - One step: G makes maps, D learns to tell them from real ones, then G learns to match the
#   features of the new D.
# - A loss with terms in several layers sends gradients into each of them. On the way back they add
#   up.
# - To find a mistake, compare piece by piece: what is right, and from what was it computed?
#
# **In the paper:** [Appendix B](https://arxiv.org/abs/1906.12195) names both losses, Adam and its
# constants. It does not say which network is updated first. Here D is, as in algorithm 1 of
# [Goodfellow et al.](https://arxiv.org/abs/1406.2661)
#
# **In the project:** [`operations`](../semgan.py#operations) is the step,
# [`Generator`](../semgan.py#Generator) and [`Discriminator`](../semgan.py#Discriminator) are the
# networks, and [`adam`](../kernels/numpy_ops.py#adam) updates all parameters of a network in one
# call. `--device plain` trains with pure functions like ours.
#
# **Next:** what does SemGAN gain over an ordinary GAN, which draws colours? In
# [notebook 10](10_semgan_and_gan.ipynb) you train both.
