"""Exercises of notebook 8: what is right, and which mistakes get a hint of their own."""
import numpy as np

from tutorial.checks import Exercise

rng = np.random.default_rng(8)


# ----------------------------------------------------------------------------------------- 8.3
def each_number(factor):
    """Without the mean: one number for each z."""
    def gradient(theta, z, w, b):
        return -(1 - sigmoid(w * (theta + z) + b)) * w * factor(z)
    return gradient


def through_d(force):
    """A solution with another force on each x: force(d, w), (B,)."""
    def generator_gradient(theta, z, w, b):
        d = 1 / (1 + np.exp(-(w * (theta + z) + b)))
        return force(d, w).mean()
    return generator_gradient


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


generator_gradient = through_d(lambda d, w: -(1 - d) * w)


def with_factor(factor):
    """A solution with another factor for each number: factor(theta, z), (B,)."""
    def gradient(theta, z, w, b):
        return (each_number(lambda z: factor(theta, z))(theta, z, w, b)).mean()
    return gradient


def instead_of_w(factor):
    """A solution with another derivative of the logit than w: factor(theta, z, w, b)."""
    return lambda theta, z, w, b: with_factor(lambda *_: factor(theta, z, w, b) / w)(theta, z, w, b)


def each_number_twice(theta, z, w, b):
    return generator_gradient(theta, z, w, b) / len(z)


# ----------------------------------------------------------------------------------------- 8.4
def feature_matching_gradient(real, fake):
    return spread(real, fake, 2 / fake.size)


def spread(real, fake, factor):
    return np.broadcast_to(factor * (fake.mean(0) - real.mean(0)), fake.shape)


def over_the_pixels(real, fake):
    gap = fake.mean((1, 2), keepdims=True) - real.mean((1, 2), keepdims=True)
    return np.broadcast_to(2 * gap / fake.size, fake.shape)


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


# ----------------------------------------------------------------------------------------- 8.6
def best_constant(real):
    return np.median(real)


def mode(real):
    values, counts = np.unique(real, return_counts=True)
    return values[counts.argmax()]


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
                lambda p, q: p / (p - q),
            "a hard decision is not best, and these are truth values. D is a number from 0 to 1.":
                lambda p, q: p > q,
            "this can exceed 1. It is what (1 - D) / D must be; solve for D.": lambda p, q: q / p,
            "this is 1 / D. Turn it over.": lambda p, q: (p + q) / p,
            "the logit is log(p / q), with a logarithm. D is the sigmoid of that.":
                lambda p, q: sigmoid(p / q),
            "this takes the exponential of the densities. They enter as they are.":
                lambda p, q: sigmoid(p - q),
            "1/2 everywhere is best only where both densities are equal.":
                lambda p, q: np.full(p.shape, 0.5),
            "this goes from -1 to 1. D goes from 0 to 1.": lambda p, q: (p - q) / (p + q),
            "this is the largest value. Return the D that gives it.":
                lambda p, q: p * np.log(p / (p + q)) + q * np.log(q / (p + q)),
            "p is only the density of real numbers. D depends on q too.": lambda p, q: p,
            "q is only the density of generated numbers. D depends on p too.": lambda p, q: 1 - q,
            "the densities enter without squares: p / D = q / (1 - D).":
                lambda p, q: p ** 2 / (p ** 2 + q ** 2),
            "p / D = q / (1 - D) contains D twice. Solve for it.": lambda p, q: p / (1 - q),
            "this is log D. Return D.": lambda p, q: np.log(p / (p + q))}),
    "8.2": Exercise(
        -np.log(4),
        ("Insert D = 1/2 into both logarithms of equation 1.",
         "Both terms are log(1/2), and V is their sum."),
        traps={
            "D answers 1/2, but V holds the logarithms of D and of 1 - D.": 0.5,
            "this is only one of the two terms, or the mean of both. V is their sum.": -np.log(2),
            "this is the project's loss of D, which is -V / 2. Equation 1 asks for V.": np.log(2),
            "logarithms of numbers below 1 are negative: mind the sign.": np.log(4),
            "V would be 0 if D were always right and sure. Here it only guesses.": 0,
            "this uses logarithms to base 10. np.log is the natural one.": -np.log10(4),
            "this uses logarithms to base 2. np.log is the natural one.": -2,
            "D answers 1/2, so 1 - D is 1/2 too, and their sum is 1. V is the sum of their "
            "logarithms.": 1,
            "1/4 is the product of D and 1 - D. V is its logarithm.": 0.25,
            "each expectation is a mean already, here of equal numbers: no further factor 1/2.":
                -np.log(2) / 2,
            "this is one of the two terms, and to base 10. np.log is the natural logarithm.":
                -np.log10(2),
            "this is one of the two terms, and to base 2. np.log is the natural logarithm.": -1,
            "the product of the logarithms is not what is asked for. Add them.": np.log(2) ** 2,
            "log 0 would come from a D that is sure and wrong. Here it answers 1/2.": -np.inf},
        tolerance=3e-3),  # so that -1.386 and -1.39 are right
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
                through_d(lambda d, w: -1 / d),
            "-1 / d is the derivative with respect to D. The next factor is d * (1 - d), then w.":
                through_d(lambda d, w: -w / d),
            "this is the loss itself. Return its derivative.": through_d(lambda d, w: -np.log(d)),
            "this is one number for each z. The loss is their mean: add them up, divided by B.":
                each_number(lambda z: 1),
            "this is one number for each z. theta enters all of them: add them up.":
                each_number(lambda z: 1 / len(z)),
            "1/B enters twice: a mean, or a sum with 1/B in each term, but not both.":
                each_number_twice,
            "dx / dtheta is 1, for x is theta + z: no factor z.": with_factor(lambda theta, z: z),
            "dx / dtheta is 1, for x is theta + z: no factor theta + z.":
                with_factor(lambda theta, z: theta + z),
            "to reach x, multiply by w, not by x: the logit is w x + b.":
                instead_of_w(lambda theta, z, w, b: theta + z),
            "to reach x, multiply by w alone, not by w x + b.":
                instead_of_w(lambda theta, z, w, b: w * (theta + z) + b),
            "to reach x, multiply by w once. Here it stands twice.":
                through_d(lambda d, w: -(1 - d) * w * w),
            "to reach x, multiply by w. You divide.": through_d(lambda d, w: -(1 - d) / w),
            "to reach x, multiply by w, not by b: the logit is w x + b.":
                instead_of_w(lambda theta, z, w, b: b),
            "this stops at the logit, and is the sum. Multiply by w, and divide by B.":
                lambda theta, z, w, b: generator_gradient(theta, z, w, b) * len(z) / w,
            "this stops at the logit, and the sign is wrong: -(1 - d), then w.":
                through_d(lambda d, w: 1 - d),
            "this is the derivative of D, with neither the minus nor the logarithm.":
                through_d(lambda d, w: d * (1 - d) * w),
            "this is for the saturating loss, and its sign is wrong.":
                through_d(lambda d, w: d * w),
            "-(1 - d) is already the derivative with respect to the logit. No further d * (1 - d).":
                through_d(lambda d, w: -(1 - d) * d * (1 - d) * w),
            "take the mean at the end: D at the mean of z is another number.":
                lambda theta, z, w, b: generator_gradient(theta, z[:1] * 0 + z.mean(), w, b)}),
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
                lambda real, fake: 2 * (fake - real) / fake.size,
            "you compare map by map, and without 1/B. The loss compares the batch means.":
                lambda real, fake: 2 * (fake - real) / fake[0].size,
            "you compare map by map, and the 2 is missing. The loss compares the batch means.":
                lambda real, fake: (fake - real) / fake.size,
            "each fake map is compared with the mean of the real ones. Take the mean over fake "
            "too.": lambda real, fake: 2 * (fake - real.mean(0)) / fake.size,
            "each real map stands alone here. Take the mean over real too.":
                lambda real, fake: 2 * (fake.mean(0) - real) / fake.size,
            "the real maps are missing: gap is fake.mean(0) - real.mean(0).":
                lambda real, fake: spread(0 * real, fake, 2 / fake.size),
            "this is the loss. Return its gradient, with one number for each of fake.":
                lambda real, fake: ((fake.mean(0) - real.mean(0)) ** 2).mean(),
            "the derivative of gap^2 is 2 gap, not gap^2.":
                lambda real, fake: np.broadcast_to((fake.mean(0) - real.mean(0)) ** 2 / fake.size,
                                                   fake.shape),
            "1/B and the axis of the batch are missing: divide by B, then repeat it for each map.":
                lambda real, fake: 2 * (fake.mean(0) - real.mean(0)) / fake[0].size,
            "the mean runs over the batch only, axis 0. Pixels and channels stay apart.":
                lambda real, fake: np.full(fake.shape, 2 * (fake.mean() - real.mean()) / fake.size),
            "the mean runs over the batch, axis 0, not over the pixels.": over_the_pixels}),
    "8.5": Exercise(
        without(lambda real, fake: variance(fake) / len(fake)),
        ("Take the variance of each feature of `fake` over the batch, axis 0. How does the "
         "variance of a mean over B maps follow from it? Subtract that from gap^2, then average.",
         "fake.var(0, ddof=1) divides by B - 1. Subtract it divided by B from gap ** 2, then take "
         "the mean over the features."),
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
            "take the mean over the features, not the sum.": added_up,
            "nothing is subtracted, or 0: deviations add up to 0 if they are not squared.":
                without(lambda real, fake: 0),
            "this is one number for each feature. Take the mean over the features.":
                lambda real, fake: (fake.mean(0) - real.mean(0)) ** 2 - variance(fake) / len(fake),
            "this is the variance for one map, and it divides by B. Take B - 1, and then divide "
            "by B for the mean.": without(lambda real, fake: fake.var(0)),
            "divide the sum of squares by B - 1, and then once more, by B. You divide by B - 1 "
            "twice.": without(lambda real, fake: variance(fake) / (len(fake) - 1)),
            "subtract the variance, not the standard deviation.":
                without(lambda real, fake: fake.std(0, ddof=1) / len(fake)),
            "the variance runs over the batch: axis 0. Here it runs over everything.":
                without(lambda real, fake: fake.var(ddof=1) / len(fake)),
            "the variance runs over the batch, axis 0, not over the features.":
                without(lambda real, fake: fake.var(1, ddof=1).mean() / len(fake)),
            "divide by the number of maps, B, not by that of the features.":
                without(lambda real, fake: variance(fake) / fake.shape[1]),
            "the standard deviation of a mean is smaller by the root of B, its variance by B.":
                without(lambda real, fake: variance(fake) / len(fake) ** 0.5),
            "deviations of fake are taken from its own mean, fake.mean(0), not from real's.":
                without(lambda real, fake: ((fake - real.mean(0)) ** 2).sum(0)
                        / (len(fake) - 1) / len(fake)),
            "deviations are taken from the mean of each feature, fake.mean(0), not from that of "
            "all numbers.": without(lambda real, fake: ((fake - fake.mean()) ** 2).sum(0)
                                    / (len(fake) - 1) / len(fake)),
            "the squares are added up over the batch only, axis 0, not over the features too.":
                without(lambda real, fake: variance(fake).sum() / len(fake)),
            "the gap is not squared.": lambda real, fake: (
                fake.mean(0) - real.mean(0) - variance(fake) / len(fake)).mean(),
            "square the gap first, then subtract.": lambda real, fake: (
                (fake.mean(0) - real.mean(0) - variance(fake) / len(fake)) ** 2).mean(),
            "a feature's result may be negative. Do not cut it off at 0.":
                lambda real, fake: np.maximum((fake.mean(0) - real.mean(0)) ** 2
                                              - variance(fake) / len(fake), 0).mean(),
            "this is only the noise. Subtract it from gap ** 2.":
                lambda real, fake: (variance(fake) / len(fake)).mean(),
            "the pieces stand the other way round: gap ** 2 minus the noise.":
                lambda real, fake: -without(lambda *a: variance(a[1]) / len(a[1]))(real, fake)}),
    "8.6": Exercise(
        best_constant,
        ("If c moves right, |c - f| grows for all f to the left of c, and falls for all f to the "
         "right.",
         "At the best c, as many values lie to the left as to the right. Sort them and take the "
         "one in the middle; NumPy has a name for it."),
        inputs=[(np.array([0.0, 0, 1, 0, 1]),),
                (np.array([-7.0, 3, 30, 0.5, 10, 2, 4, 30, -1]),)],
        traps={
            "the mean is best for squared gaps. Here the gap itself counts, not its square.":
                lambda real: real.mean(),
            "this is the middle between the smallest and the largest value. Count the values on "
            "each side instead.": lambda real: (real.min() + real.max()) / 2,
            "sort first: unsorted, any value can stand in the middle of the array.":
                lambda real: real[len(real) // 2],
            "this is the smallest possible loss. Return the c that gives it.":
                lambda real: np.abs(np.median(real) - real).mean(),
            "this is the smallest possible sum. Return the c that gives it.":
                lambda real: np.abs(np.median(real) - real).sum(),
            "this is the most frequent value. Count the values on each side of c instead.": mode,
            "this is the smallest value: no value lies to its left. Go on to the middle.":
                lambda real: real.min(),
            "this is the largest value: no value lies to its right. Go on to the middle.":
                lambda real: real.max(),
            "this is one place too far to the right. In a sorted array of odd length the middle "
            "is at len(real) // 2.": lambda real: np.sort(real)[len(real) // 2 + 1],
            "this is one place too far to the left. In a sorted array of odd length the middle "
            "is at len(real) // 2.": lambda real: np.sort(real)[len(real) // 2 - 1],
            "this is an index. Return the value that stands there.":
                lambda real: np.argsort(real)[len(real) // 2],
            "this is the index of the best value in `real`. Return the value.":
                lambda real: np.argmin([np.abs(c - real).mean() for c in real]),
            "0 is the best c only for some arrays.": lambda real: 0,
            "take the values as they are, with their signs.":
                lambda real: np.median(np.abs(real)),
            "this is the mean distance from 0. Which c has the smallest one?":
                lambda real: np.abs(real).mean(),
            "rounding the mean does not help. The mean is best for squared gaps.":
                lambda real: np.round(real.mean()),
            "this is the value next to the mean. The mean is best for squared gaps.":
                lambda real: real[np.argmin(np.abs(real - real.mean()))]}),
}
