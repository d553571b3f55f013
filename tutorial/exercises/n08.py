"""Exercises of notebook 8: what is right, and which mistakes get a hint of their own."""
import numpy as np

from tutorial.checks import Exercise

rng = np.random.default_rng(8)


# ----------------------------------------------------------------------------------------- 8.3
def through_d(force):
    """A solution with another force on each x: force(d, w), (B,)."""
    def generator_gradient(theta, z, w, b):
        d = 1 / (1 + np.exp(-(w * (theta + z) + b)))
        return force(d, w).mean()
    return generator_gradient


generator_gradient = through_d(lambda d, w: -(1 - d) * w)


# ----------------------------------------------------------------------------------------- 8.4
def feature_matching_gradient(real, fake):
    return spread(real, fake, 2 / fake.size)


def spread(real, fake, factor):
    return np.broadcast_to(factor * (fake.mean(0) - real.mean(0)), fake.shape)


# ----------------------------------------------------------------------------------------- 8.5
def without(subtracted):
    """A solution that subtracts something else: subtracted(real, fake), (C,)."""
    def unbiased(real, fake):
        gap = fake.mean(0) - real.mean(0)
        return (gap ** 2 - subtracted(real, fake)).mean()
    return unbiased


def variance(x):
    return x.var(0, ddof=1)


def added_up(real, fake):
    gap = fake.mean(0) - real.mean(0)
    return (gap ** 2 - variance(fake) / len(fake)).sum()


FEATURES = rng.standard_normal((2, 3, 4, 5, 7))  # real and fake: B = 3, H = 4, W = 5, C = 7
DENSITIES = rng.random((2, 6))

EXERCISES = {
    "8.1": Exercise(
        lambda p, q: p / (p + q),
        ("Set the derivative with respect to D to 0. The derivative of log D is 1 / D.",
         "p / D = q / (1 - D). Multiply by both denominators and solve for D."),
        inputs=tuple(DENSITIES),
        traps={
            "this is the share of generated numbers. D is the probability of being real.":
                lambda p, q: q / (p + q),
            "this can exceed 1. It is what D / (1 - D) must be; solve for D.": lambda p, q: p / q,
            "this is D's logit. D itself is its sigmoid.": lambda p, q: np.log(p / q),
            "a hard decision is not best: where both densities are equal, D must say 1/2.":
                lambda p, q: (p > q).astype(float),
            "the derivative of log(1 - D) is -1 / (1 - D): mind its sign.":
                lambda p, q: p / (p - q)}),
    "8.2": Exercise(
        -np.log(4),
        ("Insert D = 1/2 into both logarithms of equation 1.",
         "Both terms are log(1/2), and V is their sum."),
        traps={
            "D answers 1/2, but V holds the logarithms of D and of 1 - D.": 0.5,
            "this is only one of the two terms.": -np.log(2),
            "this is the project's loss of D, which is -V / 2. Equation 1 asks for V.": np.log(2),
            "logarithms of numbers below 1 are negative: mind the sign.": np.log(4),
            "V would be 0 if D were always right and sure. Here it only guesses.": 0,
            "this uses logarithms to base 10. np.log is the natural one.": -np.log10(4)}),
    "8.3": Exercise(
        generator_gradient,
        ("The derivative of -log D with respect to the logit is -(1 - D). What is the logit's "
         "derivative with respect to x?",
         "x is theta + z, so dx / dtheta is 1. Take the mean of -(1 - d) * w over z."),
        inputs=[(0.3, rng.standard_normal(7), 1.5, -0.4),
                (-1.0, rng.standard_normal(3), -0.8, 0.1)],
        traps={
            "this stops at the logit. To reach x, go through w x + b: multiply by w.":
                through_d(lambda d, w: -(1 - d)),
            "this is the gradient of the saturating loss, log(1 - D).":
                through_d(lambda d, w: -d * w),
            "the loss is a mean over z, so its gradient has 1/B. You have the sum.":
                lambda theta, z, w, b: generator_gradient(theta, z, w, b) * len(z),
            "the sign is wrong: the derivative of -log D with respect to the logit is -(1 - D).":
                through_d(lambda d, w: (1 - d) * w),
            "this is the derivative of -D, without the logarithm.":
                through_d(lambda d, w: -d * (1 - d) * w),
            "-1 / d is the derivative with respect to D. Go on to x: dD / dx is d * (1 - d) * w.":
                through_d(lambda d, w: -1 / d)},
        sizes={}),
    "8.4": Exercise(
        feature_matching_gradient,
        ("The loss is the mean of gap^2 over H * W * C numbers, and fake[i, h, w, c] enters "
         "gap[h, w, c] with the factor 1/B.",
         "The gradient is 2 * gap / (H * W * C * B), the same for all maps. np.broadcast_to(g, "
         "fake.shape) repeats it for each map."),
        inputs=tuple(FEATURES),
        traps={
            "1/B is missing: each map is only one of B in the batch mean.":
                lambda real, fake: spread(real, fake, 2 * len(fake) / fake.size),
            "the loss is a mean over H * W * C numbers, not a sum: divide by that too.":
                lambda real, fake: spread(real, fake, 2 / len(fake)),
            "the square has the derivative 2 gap: the 2 is missing.":
                lambda real, fake: spread(real, fake, 1 / fake.size),
            "the sign is wrong: gap is fake minus real.":
                lambda real, fake: spread(real, fake, -2 / fake.size),
            "this is right for one map, but fake has B of them: give each the same gradient.":
                lambda real, fake: 2 * (fake.mean(0) - real.mean(0)) / fake.size,
            "you compare map by map. The loss compares the batch means.":
                lambda real, fake: 2 * (fake - real) / fake.size}),
    "8.5": Exercise(
        without(lambda real, fake: variance(fake) / len(fake)),
        ("Take the variance of each feature of `fake` over the batch, axis 0. How does the "
         "variance of a mean over B maps follow from it?",
         "fake.var(0, ddof=1) divides by B - 1. Subtract it divided by B, then take the mean."),
        inputs=tuple(rng.standard_normal((2, 5, 7))),
        traps={
            "this divides the squared deviations by B, too small on average. Divide by "
            "B - 1.": without(lambda real, fake: fake.var(0) / len(fake)),
            "this is the variance for one map. For a mean over B maps it is B times smaller.":
                without(lambda real, fake: variance(fake)),
            "the real maps' noise is the same whatever G does. Subtract that of generated maps "
            "only.": without(lambda real, fake: (variance(fake) + variance(real)) / len(fake)),
            "this is the variance of the real maps. G is rewarded for a small variance of its own.":
                without(lambda real, fake: variance(real) / len(fake)),
            "the noise makes the squared gap too large, so it must be subtracted, not added.":
                without(lambda real, fake: -variance(fake) / len(fake)),
            "take the mean over the features, not the sum.": added_up},
        sizes={}),
    "8.6": Exercise(
        np.median,
        ("If c moves right, |c - f| grows for all f to the left of c, and falls for all f to the "
         "right.",
         "At the best c, as many values lie to the left as to the right. Sort them and take the "
         "one in the middle; NumPy has a name for it."),
        inputs=[(np.array([0.0, 0, 1, 0, 1]),), (np.array([3.0, -1, 10, 2, 0.5, 4, 30]),)],
        traps={
            "the mean is best for squared gaps. Here the gap itself counts, not its square.":
                lambda real: real.mean(),
            "this is the middle between the smallest and the largest value. Count the values on "
            "each side instead.": lambda real: (real.min() + real.max()) / 2,
            "sort first: unsorted, any value can stand in the middle of the array.":
                lambda real: real[len(real) // 2],
            "this is the smallest possible loss. Return the c that gives it.":
                lambda real: np.abs(np.median(real) - real).mean()}),
}
