# %% [markdown]
# # 3. Checking gradients: how do I know?
#
# A network learns from gradients, and in this project every gradient is written by hand. A wrong
# one gives no error message. The network often still learns, only worse, and you look for the
# reason everywhere else. So before the first gradient we build the tool that checks them all.
#
# You need: derivatives, and NumPy arrays. Time: about 50 minutes, of which 35 are exercises.

# %%
import sys
sys.path[:0] = ["..", "../.."]  # the project is one folder up, or two
import inspect
import matplotlib.pyplot as plt
import numpy as np
from kernels.gradient_check import directional_check, off_kinks
from kernels.numpy_ops import bias_activation, bias_activation_grad, softmax, softmax_grad
from tutorial.checks import check

# %% [markdown]
# ## A derivative without a formula
#
# The derivative says how much $f$ changes when $x$ changes a little. We can just try it out, with
# a small step $h$:
#
# $$f'(x) \approx \frac{f(x + h) - f(x)}{h}$$
#
# This is the *forward difference*. How good is it? Take $f = \tanh$, whose derivative we know:
# $1 - \tanh^2 x$.

# %%
x0 = 0.7
exact = 1 - np.tanh(x0) ** 2
for h in 0.1, 0.01, 0.001:
    forward = (np.tanh(x0 + h) - np.tanh(x0)) / h
    print(f"h = {h:<6} forward difference {forward:.6f}, error {abs(forward - exact):.1e}")

# %% [markdown]
# A tenth of the step gives a tenth of the error. The Taylor series shows why:
#
# $$f(x + h) = f(x) + h f'(x) + \tfrac{1}{2} h^2 f''(x) + \tfrac{1}{6} h^3 f'''(x) + \dots$$
#
# Subtract $f(x)$, divide by $h$, and $\tfrac{1}{2} h f''(x)$ is left as the error. For $f(x - h)$
# the terms with odd powers of $h$ change their sign. So in the difference $f(x + h) - f(x - h)$
# the term with $f''$ cancels:
#
# $$\frac{f(x + h) - f(x - h)}{2h} = f'(x) + \tfrac{1}{6} h^2 f'''(x) + \dots$$
#
# This is the *central difference*. Its error falls with $h^2$.

# %% [markdown]
# ### Exercise 3.1: the central difference
#
# *Difficulty 1 of 3 · 5 minutes · Good for: the line that every check here rests on.*
#
# Complete the function. `f` is a function of one number.

# %%
def central_difference(f, x, h):
    """An approximation of f'(x) from f(x + h) and f(x - h)."""
    ### BEGIN SOLUTION
    return (f(x + h) - f(x - h)) / (2 * h)
    ### END SOLUTION

# %%
check("3.1", central_difference);

# %% [markdown]
# ## How small is small enough?
#
# If a smaller step is better, why not take the smallest? Let us look at the error over many steps.

# %%
steps = 10.0 ** np.arange(-14, 0, 0.25)
forward = (np.tanh(x0 + steps) - np.tanh(x0)) / steps
central = (np.tanh(x0 + steps) - np.tanh(x0 - steps)) / (2 * steps)
plt.figure(figsize=(6, 3.2))
for name, found in ("forward", forward), ("central", central):
    plt.loglog(steps, np.abs(found - exact) + 1e-17, label=name)
plt.xlabel("step h"), plt.ylabel("error"), plt.legend()
plt.show()

# %% [markdown]
# From right to left both errors fall, the central one twice as steeply. Then they rise again. A
# computer rounds: float64 keeps about 16 digits. $f(x + h)$ and $f(x - h)$ agree in most of them,
# and these cancel in the difference. What is left is the rounding error $\varepsilon$, divided by
# $h$. For values of $f$ near 1, $\varepsilon$ is about $10^{-16}$ in float64. Together:
#
# $$\text{error} \approx \frac{m}{6} h^2 + \frac{\varepsilon}{h}, \qquad m = |f'''(x)|$$
#
# This is an estimate from above: rounding errors are often smaller, and so the curve in the picture
# jumps about below it. The best step lies where the two parts balance. In float64 it is about
# $10^{-5}$, and about 11 digits of the derivative are right.

# %% [markdown]
# ### Exercise 3.2: the best step
#
# *Difficulty 2 of 3 · 10 minutes · Good for: knowing why gradients are checked in float64.*
#
# Which $h$ makes the error above smallest? Derive it on paper, and return it. For float32,
# $\varepsilon \approx 10^{-7}$: how many digits are left then?

# %%
def best_step(eps, m):
    """The h with the smallest m h^2 / 6 + eps / h."""
    ### BEGIN SOLUTION
    return (3 * eps / m) ** (1 / 3)
    ### END SOLUTION

# %%
check("3.2", best_step);

# %% [markdown]
# With $m = 1$ and float32 the best step is 0.007, and the error there is $2 \cdot 10^{-5}$: only 4
# or 5 digits are left. A small mistake in a gradient could hide behind that. So all checks here use
# float64.

# %% [markdown]
# ## Many numbers
#
# A loss depends on many numbers, and its gradient holds one partial derivative for each: how much
# the loss changes when this number changes and all others stay. The softmax, which notebook 6
# derives, will be our example. To get a single number out of its output `p`, we add up all of `p`
# with random weights `dp`. Then `dp` is the gradient of the loss with respect to `p`.

# %%
rng = np.random.default_rng(0)
x = rng.standard_normal((2, 4))   # two pixels, four classes
dp = rng.standard_normal(x.shape)

def loss(x):
    return (softmax(x) * dp).sum()

print(f"loss: {loss(x):.4f}")

# %% [markdown]
# Each partial derivative is a central difference in one number.

# %%
def my_numeric_derivative(loss, x, i, h=1e-5):
    above, below = x.copy(), x.copy()
    above[i] += h
    below[i] -= h
    return (loss(above) - loss(below)) / (2 * h)

print(f"{my_numeric_derivative(loss, x, (0, 2)):.6f}")

# %% [markdown]
# And this is what the project's `softmax_grad` computes from `dp` and `p`, by a formula. It returns
# two gradients, of which the first is that of `x`. All eight numbers must agree:

# %%
dx, _ = softmax_grad(dp, softmax(x))
numeric = [my_numeric_derivative(loss, x, i) for i in np.ndindex(*x.shape)]
assert np.allclose(dx.ravel(), numeric, rtol=1e-8)
print(dx.round(4))

# %% [markdown]
# ### Exercise 3.3: the numeric gradient
#
# *Difficulty 2 of 3 · 10 minutes · Good for: checking any gradient of your own, without a formula.*
#
# Complete the function. It copies nothing: it changes `x` in place, one number after the other. So
# it also works where `loss` reads `x` from somewhere else, as a network reads its parameters.

# %%
def numeric_gradient(loss, x, h=1e-5):
    """The gradient of loss(x) with respect to the array x, which is as before at the end."""
    grad = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        ### BEGIN SOLUTION
        original = x[i]
        x[i] = original + h
        above = loss(x)
        x[i] = original - h
        grad[i] = (above - loss(x)) / (2 * h)
        x[i] = original
        ### END SOLUTION
    return grad

# %%
check("3.3", numeric_gradient);

# %% [markdown]
# ## All numbers at once
#
# The generator of the preset `small` has 1,376,548 parameters. If the loss takes a tenth of a
# second, two evaluations for each of them take more than three days. But we can move all of them at
# once, along a random direction $u$. The chain rule says how much the loss then changes:
#
# $$\frac{d}{dh}\, \text{loss}(x + h u) = \sum_i \frac{\partial\, \text{loss}}{\partial x_i} u_i$$
#
# On the left stands a central difference: two evaluations, however large $x$ is. On the right
# stands the gradient that we want to check.

# %%
def derivative_along(u, loss, x, h=1e-5):
    return (loss(x + h * u) - loss(x - h * u)) / (2 * h)

u = rng.standard_normal(x.shape)
u /= np.sqrt((u ** 2).sum())  # length 1
print(f"finite differences: {derivative_along(u, loss, x):.8f}")
print(f"the gradient:       {(dx * u).sum():.8f}")

# %% [markdown]
# Can a wrong gradient slip through? Only if its error is very small, or almost at right angles to
# $u$, and a random direction is practically never that. Let us break the gradient in one of its
# eight numbers:

# %%
broken = dx.copy()
broken[1, 3] *= 1.01
print(f"finite differences: {derivative_along(u, loss, x):.8f}")
print(f"broken gradient:    {(broken * u).sum():.8f}")

# %% [markdown]
# The project's check does the same, for several arrays together. `loss` takes no argument there:
# the arrays are changed in place and put back.

# %%
print(inspect.getsource(directional_check))

# %% [markdown]
# Two of its lines deserve a second look. It divides the difference by the larger of the two
# numbers, for an error of 0.001 is much if the derivative is 0.002; what is left must be below the
# tolerance of $10^{-6}$. And it refuses a derivative that is almost 0: to compare zero with zero
# proves nothing.
#
# Our check and the project's come to the same verdict. The right gradient passes both:

# %%
assert np.isclose(derivative_along(u, loss, x), (dx * u).sum(), rtol=1e-6)
directional_check(lambda: loss(x), [x], [dx], rng)  # says nothing: all is well

# %% [markdown]
# The broken one passes neither:

# %% tags=["varies"]
assert not np.isclose(derivative_along(u, loss, x), (broken * u).sum(), rtol=1e-6)
try:
    directional_check(lambda: loss(x), [x], [broken], rng)
except AssertionError as error:
    print(error)

# %% [markdown]
# ### Exercise 3.4: one of three is wrong
#
# *Difficulty 2 of 3 · 10 minutes · Good for: finding a fault instead of staring at formulas.*
#
# The function below is $y = x\, s(x)$ with the sigmoid $s(x) = 1 / (1 + e^{-x})$. Here are three
# versions of its gradient. One is wrong. Do not derive anything: check them with
# `derivative_along`, and answer `"a"`, `"b"` or `"c"`.

# %%
def sigmoid(x):
    return 1 / (1 + np.exp(-x))

gradients = {
    "a": lambda dy, x: dy * (sigmoid(x) + x * sigmoid(x) * sigmoid(-x)),
    "b": lambda dy, x: dy * (sigmoid(x) + x * sigmoid(x) ** 2),
    "c": lambda dy, x: dy * sigmoid(x) * (1 + x * (1 - sigmoid(x)))}

# %%
which_is_wrong = ...
### BEGIN SOLUTION
a, dy, v = np.random.default_rng(1).standard_normal((3, 20))
for name, gradient in gradients.items():
    numeric = derivative_along(v, lambda a: (a * sigmoid(a) * dy).sum(), a)
    print(f"{name}: {numeric:.6f} {(gradient(dy, a) * v).sum():.6f}")
which_is_wrong = "b"
### END SOLUTION

# %%
check("3.4", which_is_wrong);

# %% [markdown]
# ## Kinks
#
# ReLU, $\max(x, 0)$, has a kink at 0: the slope jumps from 0 to 1. A central difference whose two
# points lie on both sides of the kink gives a number between 0 and 1, and at $x = 0$ exactly 1/2
# for any step. Nothing is wrong with the gradient then. The check does not apply.

# %%
t = np.linspace(-0.3, 0.3, 301)
h = 0.1
slope = (np.maximum(t + h, 0) - np.maximum(t - h, 0)) / (2 * h)
plt.figure(figsize=(6, 2.6))
plt.plot(t, t > 0, label="derivative of ReLU")
plt.plot(t, slope, label="central difference, h = 0.1")
plt.xlabel("x"), plt.legend(loc="lower right")
plt.show()

# %% [markdown]
# So the project draws its test inputs at least 0.05 away from 0 (`off_kinks`), much further than
# the step of $10^{-5}$. With such an input, LeakyReLU (slope 0.2 instead of 0 for negative $x$)
# passes:

# %%
a = off_kinks(rng, 3, 5)
dy = rng.standard_normal(a.shape)
y = bias_activation(a, None, "leaky_relu")
da, _ = bias_activation_grad(dy, y, "leaky_relu")
assert np.abs(a).min() >= 0.05
assert np.allclose(da, dy * np.where(a > 0, 1, 0.2))
directional_check(lambda: (bias_activation(a, None, "leaky_relu") * dy).sum(), [a], [da], rng)

# %% [markdown]
# ## Summary
#
# - A central difference, $(f(x + h) - f(x - h)) / 2h$, approximates a derivative. Its error is
#   about $\frac{m}{6} h^2 + \varepsilon / h$; in float64, $h = 10^{-5}$ leaves about 11 digits.
# - Along a random direction, two evaluations of the loss check a whole gradient.
# - A check must be able to fail: it needs a derivative that is not 0, and inputs away from kinks.
#
# **In the project:** [`directional_check`](../kernels/gradient_check.py#directional_check) and
# [`off_kinks`](../kernels/gradient_check.py#off_kinks) stand in `kernels/gradient_check.py`, with
# a case for every operation. `python -m pytest tests/test_gradients.py` runs them all, and breaks
# each gradient on purpose to see that its check fails.
#
# **Next:** the operation that does nearly all the work, and its two gradients: convolution,
# in notebook 4.
