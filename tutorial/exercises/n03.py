"""Exercises of notebook 3: what is right, and which mistakes get a hint of their own."""
import numpy as np

from tutorial.checks import Exercise

rng = np.random.default_rng(3)


# ----------------------------------------------------------------------------------------- 3.1
def central_difference(f, x, h):
    return (f(x + h) - f(x - h)) / (2 * h)


def forward_difference(f, x, h):
    return (f(x + h) - f(x)) / h


def divided_by_h(f, x, h):
    return (f(x + h) - f(x - h)) / h


def without_parentheses(f, x, h):
    return (f(x + h) - f(x - h)) / 2 * h


# ----------------------------------------------------------------------------------------- 3.2
def best_step(eps, m):
    return (3 * eps / m) ** (1 / 3)


# ----------------------------------------------------------------------------------------- 3.3
def numeric_gradient(loss, x, h=1e-5):
    grad = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        original = x[i]
        x[i] = original + h
        above = loss(x)
        x[i] = original - h
        grad[i] = (above - loss(x)) / (2 * h)
        x[i] = original
    return grad


def not_put_back(loss, x, h=1e-5):
    grad = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        x[i] += h
        above = loss(x)
        x[i] -= 2 * h
        grad[i] = (above - loss(x)) / (2 * h)
    return grad


def put_back_to_the_wrong_side(loss, x, h=1e-5):
    grad = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        x[i] += h
        above = loss(x)
        x[i] -= h
        grad[i] = (above - loss(x)) / (2 * h)
    return grad


def all_at_once(loss, x, h=1e-5):
    return np.full(x.shape, (loss(x + h) - loss(x - h)) / (2 * h))


def weighted_tanh(x):
    return (np.tanh(x) * np.arange(1, 1 + x.size).reshape(x.shape)).sum()


EXERCISES = {
    "3.1": Exercise(
        central_difference,
        ("Evaluate f at x + h and at x - h. How far apart are these two points?",
         "The quotient is (f(x + h) - f(x - h)) / (2 h), with the parentheses around 2 h."),
        inputs=[(np.sin, 0.4, 0.1), (np.exp, -1.0, 0.01)],
        traps={
            "this is the forward difference, whose error falls only with h. Use f(x - h) too.":
                forward_difference,
            "the points x + h and x - h are 2 h apart, so divide by 2 h.": divided_by_h,
            "a / 2 * h means (a / 2) * h. Put 2 * h into parentheses.": without_parentheses},
        tolerance=1e-6),
    "3.2": Exercise(
        best_step,
        ("At the best h the derivative of m h^2 / 6 + eps / h with respect to h is 0.",
         "The derivative is m h / 3 - eps / h^2. Solve for h^3."),
        inputs=[(2.2e-16, 1.0), (1.2e-7, 2.0)],
        traps={
            "here both parts are equal, which is close to the best, but not it. Set the "
            "derivative to 0.": lambda eps, m: (6 * eps / m) ** (1 / 3),
            "the square root is the rule for forward differences. Here the error falls with h^2.":
                lambda eps, m: eps ** 0.5,
            "this is h^3. Take the cube root.": lambda eps, m: 3 * eps / m,
            "1 / 3 is the exponent: write ** (1 / 3), with parentheses.":
                lambda eps, m: (3 * eps / m) ** 1 / 3},
        tolerance=1e-6),
    "3.3": Exercise(
        numeric_gradient,
        ("Go through all indices with np.ndindex(*x.shape). Change one number at a time.",
         "Keep the number first: original = x[i]. Then set x[i] to original + h, to original - h, "
         "and at last to original again."),
        inputs=[(weighted_tanh, rng.standard_normal((2, 3)), 0.01),
                (weighted_tanh, rng.standard_normal(5))],
        traps={
            "x[i] must get its old number back before the next one is changed.": not_put_back,
            "the second point is x[i] - h: from x[i] + h that is 2 h down.":
                put_back_to_the_wrong_side,
            "you move all numbers at once. Each partial derivative moves one number.":
                all_at_once},
        tolerance=1e-8),
    "3.4": Exercise(
        "b",
        ("Call derivative_along and np.sum(grad * u) for each of the three functions.",
         "Print both numbers with 6 decimals. Two of the three agree in all of them, the third "
         "does not."),
        traps={
            "this one passes. It is only written in another way.": "a",
            "this one is right: 1 - s is the derivative's second factor.": "c",
            "one of the three does fail. Does your x stay the same for loss and gradient?":
                None}),
}
