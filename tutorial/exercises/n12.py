"""Exercises of notebook 12: what is right, and which mistakes get a hint of their own."""
import numpy as np

from tutorial.checks import Exercise

rng = np.random.default_rng(12)


# ---------------------------------------------------------------------------------------- 12.1
def wasserstein(a, b):
    return np.abs(np.sort(a, 0) - np.sort(b, 0)).mean(0)


def sorted_differently(of_a=np.sort, of_b=np.sort):
    """The distance with other ways to order a and b."""
    return lambda a, b: np.abs(of_a(a) - of_b(b)).mean(0)


def as_it_comes(x):
    return x


def along_columns(x):
    return np.sort(x, 0)


def along_rows(x):
    return np.sort(x, -1)


def downwards(x):
    return np.sort(x, 0)[::-1]


def gaps(a, b):
    """The differences of both in order."""
    return np.sort(a, 0) - np.sort(b, 0)


# ---------------------------------------------------------------------------------------- 12.2
TAPS = 1, 4, 6, 4, 1


def blur(x):
    for _ in range(2):
        p = np.pad(x, [(2, 2), (0, 0)], "reflect")
        x = sum(t * p[i:i + len(x)] for i, t in enumerate(TAPS)).T / 16
    return x


def doubled(gain=4, place=0):
    """With another gain, or with the pixels at other places."""
    def double(x, blur):
        y = np.zeros((2 * x.shape[0], 2 * x.shape[1]))
        y[place::2, place::2] = x
        return gain * blur(y)
    return double


double = doubled()


def repeated(gain):
    return lambda x, blur: gain * blur(x.repeat(2, 0).repeat(2, 1))


def not_blurred(gain):
    return lambda x, blur: doubled(gain)(x, lambda y: y)


def blurred_first(x, blur):
    return doubled()(blur(x), lambda y: y)


# ---------------------------------------------------------------------------------------- 12.3
COLOURS = (0, 2, 3)  # all axes but that of the colours


def normalized_over(mean_axes=COLOURS, std_axes=COLOURS, ddof=0):
    """With mean and standard deviation over these axes; None: over all."""
    def normalized(patches):
        centred = patches - patches.mean(mean_axes, keepdims=True)
        spread = centred.std(std_axes, keepdims=True, ddof=ddof)
        return (centred / spread).reshape(len(patches), -1)
    return normalized


normalized = normalized_over()


def not_flat(patches):
    return normalized(patches).reshape(patches.shape)


def by_variance(patches):
    centred = patches - patches.mean(COLOURS, keepdims=True)
    return (centred / centred.var(COLOURS, keepdims=True)).reshape(len(patches), -1)


def only_centred(patches):
    return (patches - patches.mean(COLOURS, keepdims=True)).reshape(len(patches), -1)


def only_scaled(patches):
    return (patches / patches.std(COLOURS, keepdims=True)).reshape(len(patches), -1)


def colours_last(patches):
    return normalized(patches).reshape(patches.shape).transpose(0, 2, 3, 1).reshape(
        len(patches), -1)


# ---------------------------------------------------------------------------------------- 12.4
def together(means, weights):
    return (means.clip(0) ** weights).prod(1)


def not_clipped(means, weights):
    return (means ** weights).prod(1)


def left_out(means, weights):
    return np.nan_to_num(means ** weights, nan=1).prod(1)


def absolute(means, weights):
    return (np.abs(means) ** weights).prod(1)


def weighted_sum(means, weights):
    return means.clip(0) @ weights


def without_weights(means, weights):
    return means.clip(0).prod(1)


def weights_as_factors(means, weights):
    return (means.clip(0) * weights).prod(1)


def over_the_pairs(means, weights):
    return (means.clip(0) ** weights).prod(0)


def one_number(means, weights):
    return together(means, weights).mean()


# ---------------------------------------------------------------------------------------- 12.5
def frechet_with(cross=2, gap_term=lambda gap: gap @ gap, dof=1, centred=True,
                 root=lambda x, y: np.linalg.svd(x @ y.T, compute_uv=False).sum(),
                 trace=lambda x: (x * x).sum()):
    """The Frechet distance with some parts exchanged."""
    def frechet(a, b):
        gap = a.mean(0) - b.mean(0)
        x, y = ((p - centred * p.mean(0)) / np.sqrt(len(p) - dof) for p in (a, b))
        return gap_term(gap) + trace(x) + trace(y) - cross * root(x, y)
    return frechet


frechet = frechet_with()


def not_divided(a, b):
    gap = a.mean(0) - b.mean(0)
    x, y = a - a.mean(0), b - b.mean(0)
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return gap @ gap + (x * x).sum() + (y * y).sum() - 2 * root


def divided_by_the_count(a, b):
    gap = a.mean(0) - b.mean(0)
    x, y = ((p - p.mean(0)) / (len(p) - 1) for p in (a, b))
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return gap @ gap + (x * x).sum() + (y * y).sum() - 2 * root


def both_divided(count):
    """x and y divided by the root of the same number."""
    def frechet(a, b):
        gap = a.mean(0) - b.mean(0)
        x, y = ((p - p.mean(0)) / np.sqrt(count(a, b)) for p in (a, b))
        root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
        return gap @ gap + (x * x).sum() + (y * y).sum() - 2 * root
    return frechet


def by_eigenvalues(a, b, eigenvalues=np.linalg.eigvals):
    """As the formula says: the roots of the eigenvalues of A B."""
    gap, A, B = a.mean(0) - b.mean(0), np.cov(a.T), np.cov(b.T)
    return gap @ gap + np.trace(A) + np.trace(B) - 2 * np.sqrt(eigenvalues(A @ B)).sum()


class WithoutComplex(Exercise):
    """A complex result counts as NaN: by rounding errors, eigenvalues give the one or the other."""
    def outcomes(self, answer):
        return [o if isinstance(o, Exception) or not np.iscomplexobj(o[0])
                else (np.nan, o[1]) for o in super().outcomes(answer)]


def of_all_numbers(a, b):
    """Mean and spread over all dimensions together."""
    gap = a.mean() - b.mean()
    return gap ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2


def of_each_dimension(a, b):
    gap = a.mean(0) - b.mean(0)
    return gap @ gap + ((a.std(0, ddof=1) - b.std(0, ddof=1)) ** 2).sum()


columns = rng.standard_normal((7, 5)), 1 + 2 * rng.standard_normal((7, 5))
patches = rng.standard_normal((5, 3, 7, 7)) * rng.uniform(1, 9, (5, 3, 1, 1)) + 4
means = np.array([[0.9, 0.8, 0.6], [0.7, -0.2, 0.5], [-0.3, 0.4, -0.1], [1, 0.3, 0.2]])
points = rng.standard_normal((2, 9, 5)) @ rng.standard_normal((2, 5, 5)) + rng.random((2, 1, 5))
few = rng.standard_normal((2, 5, 12))  # fewer points than dimensions

EXERCISES = {
    "12.1": Exercise(
        wasserstein,
        ("np.sort(a, 0) sorts each column of a. Do the same with b: then the pairs stand side by "
         "side.",
         "Subtract the sorted arrays, take the absolute value, and then the mean over axis 0."),
        inputs=columns, sizes={"N": 7, "D": 5},
        traps={
            "only a is sorted. The smallest a must meet the smallest b, so sort b too.":
                sorted_differently(of_b=as_it_comes),
            "only b is sorted. The smallest a must meet the smallest b, so sort a too.":
                sorted_differently(of_a=as_it_comes),
            "the pairs are as they come. Sort both sets first.":
                sorted_differently(as_it_comes, as_it_comes),
            "np.sort sorts along the last axis. The sets are the columns: np.sort(a, 0).":
                sorted_differently(along_rows, along_rows),
            "one set is sorted upwards, the other downwards. That is the dearest plan.":
                sorted_differently(along_columns, downwards),
            "the absolute value is missing, so costs cancel: this is only the difference of the "
            "means.": lambda a, b: gaps(a, b).mean(0),
            "the absolute value comes too late: take it of each difference, before the mean.":
                lambda a, b: np.abs(gaps(a, b).mean(0)),
            "these are squared distances. Moving costs the distance itself.":
                lambda a, b: (gaps(a, b) ** 2).mean(0),
            "this is the root of the mean square. Moving costs the distance itself: the mean of "
            "the absolute values.": lambda a, b: np.sqrt((gaps(a, b) ** 2).mean(0)),
            "you take the mean over all sets. Each column has its own distance: axis 0.":
                lambda a, b: np.abs(gaps(a, b)).mean(),
            "this is the mean over the wrong axis. Each column is a pair of sets: axis 0.":
                lambda a, b: np.abs(gaps(a, b)).mean(1)}),
    "12.2": Exercise(
        double,
        ("Begin with zeros of the shape (2 H, 2 W), and write x to y[::2, ::2].",
         "Blur the result. Three of four pixels were 0, so it is four times too dark: multiply "
         "by 4."),
        inputs=[(rng.random((7, 5)), blur), (rng.random((4, 9)), blur)], sizes={"H": 7, "W": 5},
        traps={
            "it is too dark: three of four pixels were zero. Multiply by 4.": doubled(gain=1),
            "it is too dark. Half of the rows and half of the columns are zero, so the gain is "
            "2 in each direction: 4.": doubled(gain=2),
            "the pixels belong to even rows and columns: y[::2, ::2].": doubled(place=1),
            "the pixels belong to even rows and columns: y[::2, ::2]. And multiply by 4.":
                doubled(1, place=1),
            "pixels are repeated. A Laplacian pyramid puts zeros between them, and then blurs.":
                repeated(1),
            "pixels are repeated, so nothing is too dark. Put zeros between them instead, and "
            "keep the factor 4.": repeated(4),
            "it is not blurred yet.": not_blurred(4),
            "it is neither blurred yet nor multiplied by 4.": not_blurred(1),
            "blur after putting the zeros between the pixels, not before.": blurred_first}),
    "12.3": Exercise(
        normalized,
        ("Mean and standard deviation are over the patches, rows and columns: axes (0, 2, 3). "
         "keepdims=True keeps their shape fit for subtracting.",
         "Subtract patches.mean((0, 2, 3), keepdims=True), divide by the standard deviation over "
         "the same axes, and reshape to (len(patches), -1)."),
        inputs=(patches,), sizes={"M": 5, "7 7": 49, "3": 3},
        traps={
            "each patch is normalized by itself. Mean and standard deviation are those of all "
            "patches together: axes (0, 2, 3).": normalized_over((2, 3), (2, 3)),
            "each patch is normalized by itself, and all colours together. Each colour has its "
            "own numbers, over all patches: axes (0, 2, 3).":
                normalized_over((1, 2, 3), (1, 2, 3)),
            "the mean is right, but each patch has its own standard deviation. It is that of all "
            "patches.": normalized_over(std_axes=(2, 3)),
            "the standard deviation is right, but each patch has its own mean. It is that of all "
            "patches.": normalized_over(mean_axes=(2, 3)),
            "the three colours are normalized together. Each has its own mean and standard "
            "deviation.": normalized_over(None, None),
            "the three colours share one standard deviation. Each has its own.":
                normalized_over(std_axes=None),
            "the three colours share one mean. Each has its own.": normalized_over(mean_axes=None),
            "each of the 147 numbers has its own mean. Pixels of one colour share it: axes "
            "(0, 2, 3), not only 0.": normalized_over((0,), (0,)),
            "the colours are axis 1, not the last. Mean and standard deviation are over the other "
            "axes: (0, 2, 3).": normalized_over((0, 1, 2), (0, 1, 2)),
            "divide by the standard deviation, not by the variance.": by_variance,
            "you take the standard deviation with ddof=1, which divides by the number of pixels "
            "minus 1. So that of the result is not exactly 1. Leave ddof out.":
                normalized_over(ddof=1),
            "the mean is subtracted, but the standard deviation is not 1 yet.": only_centred,
            "the mean is not subtracted.": only_scaled,
            "the numbers are right. Now make each patch a vector of 147 numbers.": not_flat,
            "the colours belong before rows and columns. Do not move axes: reshape only.":
                colours_last}),
    "12.4": Exercise(
        together,
        ("NumPy gives NaN for a negative number to a power that is not whole. Replace negative "
         "means by 0 first: means.clip(0).",
         "(means.clip(0) ** weights) has the shape (N, S). The product over the scales is "
         ".prod(1)."),
        inputs=(means, np.array([0.2, 0.5, 0.3])), sizes={"N": 4, "S": 3},
        traps={
            "a negative mean to a power that is not whole is NaN, and no clip afterwards changes "
            "that. Replace negative means by 0 before the power: means.clip(0).": not_clipped,
            "a negative mean counts as 0, and then the product is 0. You leave it out.":
                left_out,
            "a negative mean counts as 0. You take its absolute value.": absolute,
            "a negative mean counts as 0, exactly: do not put a small number in its place.":
                lambda means, weights: (means.clip(1e-6) ** weights).prod(1),
            "this is a weighted mean. The formula multiplies: the weights are powers.":
                weighted_sum,
            "you add the powers over the scales. Multiply them: .prod(1).":
                lambda means, weights: (means.clip(0) ** weights).sum(1),
            "this is the mean of the powers over the scales. Multiply them: .prod(1).":
                lambda means, weights: (means.clip(0) ** weights).mean(1),
            "this is the product over all pairs too. The scales are axis 1: .prod(1).":
                lambda means, weights: (means.clip(0) ** weights).prod(),
            "the weights are missing: each mean is raised to the power of its weight.":
                without_weights,
            "the weights are powers, not factors: ** instead of *.": weights_as_factors,
            "this is the product over the pairs. The scales are axis 1.": over_the_pairs,
            "each pair has its own product: return all N of them.": one_number}),
    "12.5": WithoutComplex(
        frechet,
        ("x = (a - a.mean(0)) / sqrt(N - 1), and y in the same way from b. The trace of the "
         "covariance of a is the sum of the squares of x.",
         "The last term is twice the sum of the singular values of x @ y.T. Its shape is (N, M), "
         "so that N and M may differ."),
        inputs=[tuple(points), (points[0], points[1, :6]), (few[0], few[1, :4]),
                (points[0], 2 * points[0] + 1)],
        tolerance=1e-6,  # so precise are the roots of eigenvalues, if one cuts them off at 0
        traps={
            "the last term has the factor 2, as in (s1 - s2)^2 = s1^2 + s2^2 - 2 s1 s2.":
                frechet_with(cross=1),
            "the last term is subtracted.": frechet_with(cross=-2),
            "the means are missing: add |m1 - m2|^2.": frechet_with(gap_term=lambda gap: 0),
            "the distance of the means must be squared.":
                frechet_with(gap_term=lambda gap: np.sqrt(gap @ gap)),
            "add the squares of the differences of the means. You take their mean.":
                frechet_with(gap_term=lambda gap: (gap ** 2).mean()),
            "divide by the root of N - 1, not of N.": frechet_with(dof=0),
            "b has M points: divide y by the root of M - 1. You divide both by that of N - 1, "
            "from len(a).": both_divided(lambda a, b: len(a) - 1),
            "a has N points: divide x by the root of N - 1. You divide both by that of M - 1, "
            "from len(b).": both_divided(lambda a, b: len(b) - 1),
            "you divide by the number of dimensions minus 1. N is the number of points, len(a), "
            "and M is len(b).": both_divided(lambda a, b: a.shape[1] - 1),
            "x and y are not divided by the root of N - 1.": not_divided,
            "you divide by N - 1. A covariance is a product of two rows, so each is divided by "
            "the root of N - 1.": divided_by_the_count,
            "x and y are not centred: subtract the mean of each dimension first.":
                frechet_with(centred=False),
            "x.T @ y is (D, D): it needs equally many points in a and b, and its singular values "
            "are others. Take x @ y.T, of shape (N, M).":
                frechet_with(root=lambda x, y: np.linalg.svd(x.T @ y, compute_uv=False).sum()),
            "x.T and y fit together only if a and b have equally many points. Take x @ y.T, of "
            "shape (N, M), not np.dot(x.T, y).":
                frechet_with(root=lambda x, y: np.linalg.svd(
                    np.dot(x.T, y), compute_uv=False).sum()),
            "with fewer points than dimensions it is NaN or complex. There some eigenvalues of A B "
            "are 0, and rounding makes them negative or complex. Take the singular values of "
            "x @ y.T instead.": by_eigenvalues,
            "np.linalg.eigvalsh is for symmetric matrices, and A B is not symmetric. Take the "
            "singular values of x @ y.T instead.":
                lambda a, b: by_eigenvalues(a, b, np.linalg.eigvalsh),
            "the singular values of x.T @ x say nothing about b. Take those of x @ y.T.":
                frechet_with(root=lambda x, y: np.linalg.svd(x.T @ x, compute_uv=False).sum()),
            "these are the singular values of A B. Take those of x @ y.T, which are the roots.":
                frechet_with(root=lambda x, y: np.linalg.svd(
                    x.T @ x @ y.T @ y, compute_uv=False).sum()),
            "the singular values of A B are not its eigenvalues, since A B is not symmetric. Take "
            "the singular values of x @ y.T.":
                frechet_with(root=lambda x, y: np.sqrt(np.linalg.svd(
                    x.T @ x @ y.T @ y, compute_uv=False)).sum()),
            "the singular values of x @ y.T are the roots already. Take no further root.":
                frechet_with(root=lambda x, y: np.sqrt(np.linalg.svd(
                    x @ y.T, compute_uv=False)).sum()),
            "np.sqrt of a matrix takes the root of each number. A matrix root is something else: "
            "take the singular values of x @ y.T.":
                frechet_with(root=lambda x, y: np.trace(np.sqrt(x.T @ x @ y.T @ y))),
            "you take only the largest singular value. Sum all of them.":
                frechet_with(root=lambda x, y: np.linalg.norm(x @ y.T, 2)),
            "this is the root of the sum of squares of the singular values. Sum them as they are.":
                frechet_with(root=lambda x, y: np.linalg.norm(x @ y.T)),
            "you compare each dimension by itself, without covariances between dimensions.":
                of_each_dimension,
            "you compare all numbers together. Each dimension has its own mean: mean(0).":
                of_all_numbers}),
}
