# %% [markdown]
# # 8. The game: why feature matching?
#
# No one can tell a generator which map it should have made from a latent vector $z$. So a GAN lets
# two networks play against each other: the discriminator D learns to tell real maps from generated
# ones, and the generator G learns to make that hard. But what exactly should G minimize? The
# obvious loss hardly works, a better one makes both networks turn around their goal, and the paper
# takes a third: feature matching. We try all of them on numbers instead of maps, where everything
# can be seen.
#
# You need: notebooks 3 and 6. Time: about 95 minutes, of which 60 are exercises.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import inspect
import matplotlib.pyplot as plt
import numpy as np
import kernels
from kernels.gradient_check import directional_check
from kernels.numpy_ops import bce_with_logits, feature_matching, moment_matching
from semgan import Discriminator, settings
from tutorial.checks import check

# %% [markdown]
# ## The discriminator's best answer
#
# D gives each $x$ a probability of being real. Equation 1 of the paper is the game:
#
# $$\min_G \max_D V(D, G) = \mathbb{E}_{x \text{ real}} \log D(x)
#   + \mathbb{E}_{x \text{ generated}} \log (1 - D(x))$$
#
# $\mathbb{E}$ is the expectation: the mean over all $x$ that are real, or generated. D wants $V$
# large: $\log D(x)$ is near 0 if D trusts a real $x$, and very negative if it does not. G wants
# $V$ small. Let us see first what D should answer. Real numbers have the density $p(x)$, generated
# ones $q(x)$. Both expectations are integrals, so
#
# $$V = \int \big[\, p(x) \log D(x) + q(x) \log (1 - D(x)) \,\big]\, dx$$
#
# D may choose its answer for each $x$ separately. So each $x$ is a small problem of its own.

# %% [markdown]
# ### Exercise 8.1: the best discriminator
#
# *Difficulty 2 of 3 · 10 minutes · Good for: knowing what D learns if it learns well.*
#
# Which $D$ between 0 and 1 makes $p \log D + q \log (1 - D)$ largest? Derive it on paper.

# %%
def best_discriminator(p, q):
    """The D with the largest p log D + q log(1 - D); p and q are arrays of densities."""
    ### BEGIN SOLUTION
    return p / (p + q)
    ### END SOLUTION

# %%
check("8.1", best_discriminator);

# %% [markdown]
# The derivative $p / D - q / (1 - D)$ is 0 at $D = p / (p + q)$: the share of real numbers among
# all numbers at $x$. The derivative falls as $D$ grows, so this is a maximum. In the picture, real
# numbers lie around 2, generated ones around -1.

# %%
def normal(x, mean, std):  # a density
    return np.exp(-((x - mean) / std) ** 2 / 2) / (std * np.sqrt(2 * np.pi))

x = np.linspace(-3, 4, 400)
p, q = normal(x, 2, 0.7), normal(x, -1, 0.7)
d = p / (p + q)
plt.figure(figsize=(6.2, 2.6))
plt.plot(x, p, "g", label="real: p"), plt.plot(x, q, "r", label="generated: q")
plt.plot(x, d, "k--", label="best D"), plt.xlabel("x"), plt.legend()
plt.show()

# %% [markdown]
# When is the game over? When G has reached $q = p$ and D answers 1/2 everywhere. Then no change of
# D makes $V$ larger, for 1/2 is the best answer. And no change of G makes $V$ smaller, for this D
# gives every $x$ the same answer. Neither can gain alone: this is the *Nash equilibrium* of section
# 3.1 of the paper.

# %% [markdown]
# ### Exercise 8.2: the value of the game
#
# *Difficulty 1 of 3 · 5 minutes · Good for: recognizing in a log that D can only guess.*
#
# What is $V$, of equation 1, if D answers 1/2 everywhere? Write it with `np.log`.

# %%
value = ...
### BEGIN SOLUTION
value = np.log(1 / 2) + np.log(1 - 1 / 2)
### END SOLUTION

# %%
check("8.2", value);

# %% [markdown]
# In the code, D's loss is the binary cross-entropy of notebook 6, with target 1 for real maps and 0
# for generated ones. It is the mean over both halves of the batch, and so it equals $-V / 2$: to
# make $V$ large is to make this loss small.

# %%
rng = np.random.default_rng(0)
real, fake = rng.standard_normal((2, 16))  # logits of D for 16 real and 16 generated numbers
sigmoid = lambda a: 1 / (1 + np.exp(-a))
v = np.mean(np.log(sigmoid(real))) + np.mean(np.log(1 - sigmoid(fake)))
loss, _ = bce_with_logits(np.concatenate([real, fake]), np.repeat([1, 0], 16))
assert np.isclose(loss, -v / 2)
guessing, _ = bce_with_logits(np.zeros(32), np.repeat([1, 0], 16))
print(f"V = {v:.4f}, loss of D = {loss[0]:.4f}; a D that guesses: {guessing[0]:.4f}")

# %% [markdown]
# ## What the generator feels
#
# G never sees the real data. It learns only from D: the gradient of its loss goes back through D to
# D's input $x$, and from there to G. Let $a$ be D's logit, so that $D = \sigma(a)$ with the
# sigmoid $\sigma$. (Notebook 6 called the logit $z$. Here $z$ is the latent vector.) There are two
# usual losses:
#
# - *saturating*: $\log (1 - D)$, with the derivative $-D$ with respect to $a$,
# - *non-saturating*: $-\log D$, with the derivative $-(1 - D)$ with respect to $a$.
#
# Both want a larger logit. The first is equation 1 to the letter. Early in training, D easily
# recognizes what G makes, and says $D \approx 0$: then the first derivative is about 0, and the
# second about -1. The binary cross-entropy (BCE) of generated numbers with the *target 1* is the
# second loss:

# %%
loss, dlogits = bce_with_logits(fake, np.ones(16))
assert np.isclose(loss, -np.log(sigmoid(fake)).mean())
assert np.allclose(dlogits, -(1 - sigmoid(fake)) / 16)
for a in -8, 0, 8:
    print(f"logit {a:2}: saturating {-sigmoid(a):.4f}, non-saturating {-(1 - sigmoid(a)):.4f}")

# %% [markdown]
# Gradient descent moves $x$ against the gradient of the loss. Let us call minus this gradient the
# *force* on $x$. By the chain rule it is minus the number above, times the slope of the logit,
# $da/dx$. For the best D of the first picture, $a = \log p - \log q$. Both densities have the same
# standard deviation, so the squares of $x$ cancel, and the slope is constant: the difference of the
# means divided by the variance, $3 / 0.7^2 = 6.1$.

# %%
slope = 3 / 0.7 ** 2
plt.figure(figsize=(6.2, 2.6))
plt.plot(x, slope * d, "b", label="saturating: D da/dx")
plt.plot(x, slope * (1 - d), "m", label="non-saturating: (1 - D) da/dx")
plt.fill_between(x, 0, 6 * q, color="r", alpha=0.2, label="generated (density x 6)")
plt.xlabel("x"), plt.ylabel("force to the right"), plt.legend(loc="center right", fontsize=8)
plt.show()

# %% [markdown]
# Where the generated numbers are, the saturating loss hardly moves them. The non-saturating loss
# moves them with full force.

# %% [markdown]
# ### Exercise 8.3: through the discriminator
#
# *Difficulty 2 of 3 · 10 minutes · Good for: the path that every gradient takes to G.*
#
# Let $G(z) = \theta + z$ and $D(x) = \sigma(w x + b)$. Return the derivative with respect to
# $\theta$ of the non-saturating loss: the mean of $-\log D(G(z))$ over all `z`. Go step by step:
# from the loss to the logit, to $x$, to $\theta$.

# %%
def generator_gradient(theta, z, w, b):
    """d/dtheta of mean(-log D(theta + z)), a number; z (B,)."""
    d = 1 / (1 + np.exp(-(w * (theta + z) + b)))  # D(G(z)), (B,)
    ### BEGIN SOLUTION
    dlogit = -(1 - d) / len(z)  # (B,)
    dx = dlogit * w             # (B,): the logit is w x + b
    return dx.sum()             # each x is theta + z
    ### END SOLUTION

# %%
check("8.3", generator_gradient);

# %% [markdown]
# ## Round and round
#
# A force alone does not lead to the goal. Consider the smallest game of all (Mescheder et al. 2018,
# cited in the paper). All real numbers are 0, and G always makes the same number $\theta$. D has
# one parameter $\psi$: $D(x) = \sigma(\psi x)$. Then equation 1 is
#
# $$V = \log \sigma(0) + \log (1 - \sigma(\psi\theta))$$
#
# G moves $\theta$ against the gradient of $V$, and D moves $\psi$ along it. Let the steps be so
# small that both move smoothly, with the velocities $\theta'$ and $\psi'$:
#
# $$\theta' = -\frac{\partial V}{\partial \theta} = \psi\, \sigma(\psi\theta), \qquad
#   \psi' = \frac{\partial V}{\partial \psi} = -\theta\, \sigma(\psi\theta)$$
#
# Both should come to rest at $\theta = \psi = 0$. Do they? Look at the squared distance from there,
# $\theta^2 + \psi^2$. Its derivative with respect to time is $2\theta\theta' + 2\psi\psi'$. Insert
# both velocities: the result is exactly 0. So they circle around the goal forever.
#
# With the non-saturating loss, $\theta' = \psi\, \sigma(-\psi\theta)$. The derivative is now
# $2\psi\theta\, [\sigma(-\psi\theta) - \sigma(\psi\theta)]$, which is never positive. So
# they come closer to the goal, but near it the bracket is almost 0, and they come closer ever more
# slowly.

# %%
def equation_1(theta, psi):
    return psi * sigmoid(psi * theta), -theta * sigmoid(psi * theta)  # theta', psi'

def non_saturating(theta, psi):
    return psi * sigmoid(-psi * theta), -theta * sigmoid(psi * theta)

# %% [markdown]
# Now let G no longer try to fool D. Take D's logit $f(x) = \psi x$ as a *feature* of $x$, and let G
# match features: the feature of its number should be that of the real number. It minimizes
# $(f(\theta) - f(0))^2 = \psi^2 \theta^2$. D learns as before.

# %%
def matching(theta, psi):
    return -2 * psi ** 2 * theta, -theta * sigmoid(psi * theta)

# %% [markdown]
# Here $\theta' = -2\psi^2\theta$ points to the real number, 0, whatever sign $\psi$ has. We play
# all three games from the same start, in small steps, and as in training: D first, then G.

# %%
def play(game, theta=1.5, psi=0.5, rate=0.02, steps=1500):
    path = [(theta, psi)]
    for _ in range(steps):
        psi += rate * game(theta, psi)[1]
        theta += rate * game(theta, psi)[0]
        path.append((theta, psi))
    return np.array(path)  # (steps + 1, 2)

paths = {game.__name__: play(game) for game in (equation_1, non_saturating, matching)}
for name, path in paths.items():
    print(f"{name:15} |theta| in the last 500 steps: at most {abs(path[-500:, 0]).max():.3f}")

# %%
grid = np.meshgrid(np.linspace(-2, 2, 13), np.linspace(-2, 2, 13))  # theta, psi: (13, 13) each
fig, axes = plt.subplots(1, 3, figsize=(6.4, 2.7), sharey=True)
for axis, game in zip(axes, (equation_1, non_saturating, matching)):
    u, v = np.array(game(*grid)) / (np.hypot(*game(*grid)) + 1e-9)  # arrows of length 1
    axis.quiver(*grid, u, v, color="gray"), axis.plot(*paths[game.__name__].T, "b")
    axis.plot(1.5, 0.5, "go"), axis.plot(*paths[game.__name__][-1], "rs")
    axis.axvline(0, color="k", lw=0.5), axis.set_title(game.__name__, fontsize=10)
    axis.set_xlabel("theta (G)")
axes[0].set_ylabel("psi (D)"), plt.tight_layout(), plt.show();

# %% [markdown]
# Green is the start, red the end. The vertical line is $\theta = 0$, where G makes what is real.
# Only feature matching goes there without turning around the goal. (Where $\psi = 0$ there is no
# force on G: if D sees no difference, G learns nothing.) A toy is no proof for networks, but it
# shows the reason: to fool D means to run where D points, and D turns. Matching gives G a place to
# go to.

# %% [markdown]
# ## Feature matching
#
# The D that looks at maps has many features: the outputs of its layers. Let $f(x)$ be those of one
# layer, $H \times W \times C$ numbers for each map. *Feature matching* (Salimans et al. 2016)
# compares their means over a batch of $B$ real maps $x_i$ and $B$ generated ones $\tilde x_i$:
#
# $$L_G = \text{mean over } h, w, c \text{ of } (\bar f(\tilde x) - \bar f(x))^2, \qquad
#   \bar f(x) = \frac{1}{B} \sum_i f(x_i)$$
#
# In NumPy this is one line.

# %%
real, fake = rng.standard_normal((2, 5, 4, 3, 6)) + 0.3  # features (B, H, W, C) each

def my_feature_matching(real, fake):
    return ((fake.mean(0) - real.mean(0)) ** 2).mean()

print(f"{my_feature_matching(real, fake):.4f}")

# %% [markdown]
# ### Exercise 8.4: its gradient
#
# *Difficulty 2 of 3 · 10 minutes · Good for: the gradient that G learns from.*
#
# Return the gradient of this loss with respect to `fake`, in its shape. The real maps are
# constants. How does one number `fake[i, h, w, c]` enter the loss?

# %%
def feature_matching_gradient(real, fake):
    """(B, H, W, C) features -> (B, H, W, C), the gradient with respect to fake."""
    ### BEGIN SOLUTION
    gap = fake.mean(0) - real.mean(0)  # (H, W, C)
    return np.broadcast_to(2 * gap / fake.size, fake.shape)
    ### END SOLUTION

# %%
check("8.4", feature_matching_gradient);

# %% [markdown]
# The paper does not say how it compares features. The project's function has three readings of it.
# The formula above is `"mean"`, and we come to the other two below. The function returns the loss
# and its gradient. The check of notebook 3 raises an error if that gradient is wrong.

# %%
loss, dfake = feature_matching(real, fake, "mean")
assert np.isclose(loss, my_feature_matching(real, fake))
assert np.allclose(dfake, dfake[0])  # the same gradient for every map of the batch
directional_check(lambda: feature_matching(real, fake, "mean")[0][0], [fake], [dfake], rng)
print("loss", loss.round(4), "and its gradient agrees with finite differences")

# %% [markdown]
# ## Through all layers of D
#
# Which layer's features? By default the project takes every convolution's: it adds up the losses
# of all these layers. So at each layer two gradients meet: the layer's own, and the one from the
# layers above. (Only the last has none above.) Here is the method. It starts at the last layer and
# works down to the maps. (`moment_matching` is the last subject of this notebook; it is off by
# default. `out` names the arrays that a function writes its results into.)

# %%
print(inspect.getsource(Discriminator.feature_matching))

# %% [markdown]
# We take a small discriminator with random weights, in float64, and maps of random probabilities:
# `rng.dirichlet` draws positive numbers that add up to 1, as a softmax gives them. D's losses must
# agree with ours, and its gradient must pass the check of notebook 3. (For the check we multiply
# loss and gradient by 100, as it refuses derivatives that are almost 0.)

# %%
s = settings(side=8, kernel_size=3, discriminator_filters=[3, 5])
net = Discriminator(kernels.load("plain", np.float64), s, 4, rng)  # for 4 classes
maps = rng.dirichlet(np.ones(4), (12, 8, 8))    # (2 B, H, W, K): 6 real, 6 generated
maps[6:] = rng.dirichlet((1, 2, 3, 4), (6, 8, 8))
_, features = net.forward(maps)                 # maps, then the output of each layer
losses = np.zeros(2)                            # one for each layer
dmaps = net.feature_matching(features, losses)  # (B, H, W, K), of the generated maps
print([f.shape for f in features], losses.round(4))

# %%
def total_loss():
    _, features = net.forward(maps)
    return sum(my_feature_matching(f[:6], f[6:]) for f in features[1:])

assert np.isclose(losses.sum(), total_loss())
directional_check(lambda: 100 * total_loss(), [maps[6:]], [100 * dmaps], rng)

# %% [markdown]
# ## A batch mean is noisy
#
# The loss compares means over a batch, not over all maps. What does that change? Take one feature.
# Its values $f_1, \dots, f_B$ in a batch are independent, with mean $\mu$ and variance $\sigma^2$.
# (From here on, $\sigma$ is a standard deviation, no longer the sigmoid.) How far is the batch mean
# $\bar f$ from $\mu$?
#
# $$\mathbb{E} (\bar f - \mu)^2 = \frac{1}{B^2} \sum_i \sum_j \mathbb{E} (f_i - \mu)(f_j - \mu)
#   = \frac{1}{B^2} \cdot B \sigma^2 = \frac{\sigma^2}{B}$$
#
# For $i \ne j$ the two factors are independent, and each has mean 0: these terms vanish. The $B$
# terms with $i = j$ are $\sigma^2$ each. Let us measure it:

# %%
for b in 4, 16, 64:
    means = rng.normal(0, 3, (20000, b)).mean(1)  # of 20,000 batches; sigma^2 = 9
    print(f"B = {b:2}: E(mean - mu)^2 = {(means ** 2).mean():.3f}, sigma^2 / B = {9 / b:.3f}")

# %% [markdown]
# Both batch means are noisy in this way, and independently. So what feature matching minimizes is,
# on average,
#
# $$\mathbb{E}\, (\bar f_{\text{fake}} - \bar f_{\text{real}})^2 =
#   (\mu_{\text{fake}} - \mu_{\text{real}})^2
#   + \frac{\sigma^2_{\text{fake}}}{B} + \frac{\sigma^2_{\text{real}}}{B}$$
#
# The first term is what we want. The third does not depend on G. The second rewards what nobody
# intended: **G can lower its loss by making maps that are alike.** Suppose that the means of G's
# features are already right. Then this average is smallest if all its maps have the same features.

# %% [markdown]
# ### Exercise 8.5: without the noise
#
# *Difficulty 3 of 3 · 15 minutes · Good for: removing a bias from a loss, this or another.*
#
# From the squared gap of each feature, subtract an estimate of the second term,
# $\sigma^2_{\text{fake}} / B$. Then take the mean over the features. The unbiased estimate of a
# variance is the sum of the squared deviations of the $B$ values from their mean, divided by
# $B - 1$. (Unbiased: right on average.)

# %%
def unbiased(real, fake):
    """(B, C) features of B real and B generated maps -> the loss, a number."""
    gap = fake.mean(0) - real.mean(0)  # (C,)
    ### BEGIN SOLUTION
    variance = ((fake - fake.mean(0)) ** 2).sum(0) / (len(fake) - 1)  # (C,)
    return (gap ** 2 - variance / len(fake)).mean()
    ### END SOLUTION

# %%
check("8.5", unbiased);

# %% [markdown]
# The project's reading `"unbiased"` subtracts just that. (This loss can be negative, which does no
# harm: only its gradient counts.)

# %%
loss, _ = feature_matching(real, fake, "unbiased")
mean_loss, _ = feature_matching(real, fake, "mean")
noise = fake.var(0, ddof=1).mean() / len(fake)  # ddof=1: divide by B - 1
assert np.isclose(loss, mean_loss - noise)
print(f"mean {mean_loss[0]:.4f} - noise {noise:.4f} of generated maps = unbiased {loss[0]:.4f}")

# %% [markdown]
# ## Paired: map against map
#
# The third reading comes from the authors' library. It takes the mean of
# $|f(\tilde x_i) - f(x_i)|$: the first generated map against the first real one, and so on. But the
# pairs are chosen by chance: the $z$ of $\tilde x_i$ has nothing to do with $x_i$. So what is G's
# best answer, if it cannot know which real map it will be compared with? First, here are all three
# readings in the project. (`dabove` and `activation` are for a layer inside D: they bring in the
# gradient from the layers above, and go back through this layer's LeakyReLU.)

# %%
print(inspect.getsource(feature_matching))

# %%
for reading in "mean", "unbiased", "paired":
    loss = lambda: 100 * feature_matching(real, fake, reading)[0][0]  # as above
    dfake = 100 * feature_matching(real, fake, reading)[1]
    directional_check(loss, [fake], [dfake], rng)
    print(f"{reading}: the gradient agrees with finite differences")

# %% [markdown]
# ### Exercise 8.6: what paired rewards
#
# *Difficulty 2 of 3 · 10 minutes · Good for: seeing what a loss really asks for.*
#
# Let $f_i$ be a feature's values on real maps, the array `real`. G's maps all have the value $c$.
# Which $c$ makes the mean of $|c - f_i|$ smallest? Think of how the sum changes if $c$ moves a
# little: how many values lie to the left of $c$, and how many to the right? (`real` has an odd
# length, so there is only one best $c$.)

# %%
def best_constant(real):
    """The c with the smallest mean of |c - real|; real (N,)."""
    ### BEGIN SOLUTION
    return np.median(real)
    ### END SOLUTION

# %%
check("8.6", best_constant);

# %% [markdown]
# The best $c$ is the median. Imagine a feature that says "here is a square": it is 1 in some maps
# and 0 in most. The median is then 0: a generator that never draws a square gets the smallest
# paired loss. With `"mean"` and `"unbiased"`, it should draw squares as often as real maps contain
# them. (In batches as large as these, `"mean"` has hardly any noise.)

# %%
has_square = (rng.random((4000, 1, 1, 1)) < 0.3).astype(float)  # real: in 30 % of the maps
for share in 0, 0.3, 0.6:
    drawn = (rng.random(has_square.shape) < share).astype(float)
    found = [feature_matching(has_square, drawn, r)[0][0] for r in ("mean", "unbiased", "paired")]
    print(f"squares in {share:3.0%}: mean {found[0]:.3f}, unbiased {found[1]:.3f}, "
          f"paired {found[2]:.3f}")

# %% [markdown]
# ## Moments: the right spread
#
# We can now ask of each loss which *spread* (standard deviation) it rewards. Let the feature be the
# number itself. Real numbers have spread 1, and G makes numbers with the right mean 0 and spread
# $s$. Which $s$ gives the smallest loss? `"unbiased"` no longer rewards a spread that is too small,
# but it does not punish it either. One more loss in the project does: moment matching. It compares
# means and standard deviations of *pooled* features: each feature's mean over the pixels of a map.

# %%
print(inspect.getsource(moment_matching))

# %% [markdown]
# Here it is in a few lines. (The project adds tiny numbers to the variances so that it never
# divides by 0: hence the tolerance.)

# %%
def my_moment_matching(real, fake, weight):
    r, f = real.mean((1, 2)), fake.mean((1, 2))                   # pooled: (B, C)
    gap, std_gap = f.mean(0) - r.mean(0), f.std(0, ddof=1) - r.std(0, ddof=1)
    return weight * ((gap ** 2 + std_gap ** 2) / r.var(0, ddof=1)).mean()

loss, dfake = moment_matching(real, fake, 0.7)
assert np.isclose(loss, my_moment_matching(real, fake, 0.7), rtol=1e-4)
directional_check(lambda: moment_matching(real, fake, 0.7)[0][0], [fake], [dfake], rng)
print(f"{loss[0]:.4f}")

# %% [markdown]
# For the picture we take batches of 32 numbers and average each loss over 10,000 batches.

# %%
r, z = rng.standard_normal((2, 32, 1, 1, 10000))  # 10,000 features, each with a batch of 32
spreads = np.linspace(0.1, 2, 20)
losses = {name: [feature_matching(r, s * z, name)[0][0] for s in spreads]
          for name in ("mean", "unbiased", "paired")}
losses["moments"] = [moment_matching(r, s * z, 1.0)[0][0] for s in spreads]
for name, values in losses.items():
    print(f"{name:8} at s = 0.1: {values[0]:.3f}, at s = 1: {values[9]:.3f}, "
          f"at s = 2: {values[19]:.3f}")

# %%
fig, axes = plt.subplots(1, 4, figsize=(6.4, 2.3))
for axis, (name, values) in zip(axes, losses.items()):
    axis.plot(spreads, values, "b"), axis.axvline(1, color="g", ls=":")
    axis.set_title(name), axis.set_xlabel("spread s"), axis.tick_params(labelsize=7)
axes[0].set_ylabel("loss"), axes[1].set_ylim(axes[0].get_ylim())
plt.tight_layout(), plt.show();

# %% [markdown]
# The dotted line is the real spread. `"mean"` and `"paired"` are smallest at the smallest spread:
# they reward maps that are alike. `"unbiased"` is flat: what is left is the noise of the real
# numbers, $1 / 32 = 0.031$. Moment matching has its minimum near the real spread. (A little below
# it, in fact, for means and standard deviations of 32 numbers are noisy.)
#
# Is a flat loss too little? Not if D has other features: if one of them is $x^2$, its mean tells a
# wrong spread from the right one. And D learns features that tell real from generated.

# %% [markdown]
# ## Summary
#
# - The best D is $p / (p + q)$. If D can only guess, $V = -\log 4$ and D's loss is $\log 2$.
# - The saturating loss hardly moves numbers that D is sure are generated. The non-saturating loss
#   does, but in the smallest game G and D turn around the goal with either of them. Matching
#   features gives G a place to go to.
# - A batch mean has the variance $\sigma^2 / B$. So `"mean"` rewards generated maps that are alike,
#   and `"unbiased"` removes this reward. `"paired"` rewards the median, and moment matching the
#   right spread.
#
# **In the paper:** [equation 1 and section 3.1](https://arxiv.org/abs/1906.12195); Appendix B: G
# learns by feature matching, D by binary cross-entropy. **In the project:**
# [`bce_with_logits`](../kernels/numpy_ops.py#bce_with_logits),
# [`feature_matching`](../kernels/numpy_ops.py#feature_matching),
# [`moment_matching`](../kernels/numpy_ops.py#moment_matching) and
# [`Discriminator.feature_matching`](../semgan.py#feature_matching).
#
# **Next:** Adam, and then a whole training step by hand, in notebook 9.
