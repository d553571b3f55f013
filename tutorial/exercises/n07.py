"""Exercises of notebook 7: what is right, and which mistakes get a hint of their own."""
import numpy as np

from tutorial.checks import Exercise

rng = np.random.default_rng(7)
PIXELS = (0, 1, 2)  # the axes of a batch's maps, rows and columns


# ----------------------------------------------------------------------------------------- 7.1
def normalized_over(axes, keepdims=False, ddof=0):
    """Batch norm with the statistics taken over these axes."""
    def forward(x, gamma, beta, eps=1e-5):
        mean = x.mean(axes, keepdims=keepdims)
        var = x.var(axes, keepdims=keepdims, ddof=ddof)
        return gamma * (x - mean) / np.sqrt(var + eps) + beta, mean, var
    return forward


batch_norm_forward = normalized_over(PIXELS)


def eps_outside_the_root(x, gamma, beta, eps=1e-5):
    mean, var = x.mean(PIXELS), x.var(PIXELS)
    return gamma * (x - mean) / (np.sqrt(var) + eps) + beta, mean, var


def fixed_eps(x, gamma, beta, eps=1e-5):
    return batch_norm_forward(x, gamma, beta)


def divided_by_variance(x, gamma, beta, eps=1e-5):
    mean, var = x.mean(PIXELS), x.var(PIXELS)
    return gamma * (x - mean) / (var + eps) + beta, mean, var


def mean_of_squares(x, gamma, beta, eps=1e-5):
    mean, var = x.mean(PIXELS), (x ** 2).mean(PIXELS)
    return gamma * (x - mean) / np.sqrt(var + eps) + beta, mean, var


def std_returned(x, gamma, beta, eps=1e-5):
    y, mean, var = batch_norm_forward(x, gamma, beta, eps)
    return y, mean, np.sqrt(var + eps)


x = rng.standard_normal((3, 5, 4, 7)) * np.arange(1, 8) + np.arange(-3, 4)
gamma, beta = rng.uniform(0.5, 1.5, 7), rng.standard_normal(7)


# ----------------------------------------------------------------------------------------- 7.2
def gradient(first=1, mean_term=1, std_term=1):
    """The gradient with these factors before the three terms of dx."""
    def backward(dy, x, gamma, mean, var, eps=1e-5):
        std, count = np.sqrt(var + eps), x.size // x.shape[-1]
        normalized = (x - mean) / std
        dgamma, dbeta = (dy * normalized).sum(PIXELS), dy.sum(PIXELS)
        dx = first * dy - mean_term * dbeta / count - std_term * normalized * dgamma / count
        return gamma / std * dx, dgamma, dbeta
    return backward


my_batch_norm_grad = gradient()


def sums_not_divided(dy, x, gamma, mean, var, eps=1e-5):
    count = x.size // x.shape[-1]
    return gradient(1, count, count)(dy, x, gamma, mean, var, eps)


def without_gamma(dy, x, gamma, mean, var, eps=1e-5):
    dx, dgamma, dbeta = my_batch_norm_grad(dy, x, gamma, mean, var, eps)
    return dx / gamma, dgamma, dbeta


def without_std(dy, x, gamma, mean, var, eps=1e-5):
    dx, dgamma, dbeta = my_batch_norm_grad(dy, x, gamma, mean, var, eps)
    return dx * np.sqrt(var + eps), dgamma, dbeta


def dgamma_from_x(dy, x, gamma, mean, var, eps=1e-5):
    dx, _, dbeta = my_batch_norm_grad(dy, x, gamma, mean, var, eps)
    return dx, (dy * x).sum(PIXELS), dbeta


def dgamma_from_x_everywhere(dy, x, gamma, mean, var, eps=1e-5):
    std, count = np.sqrt(var + eps), x.size // x.shape[-1]
    dgamma, dbeta = (dy * x).sum(PIXELS), dy.sum(PIXELS)
    return gamma / std * (dy - dbeta / count - (x - mean) / std * dgamma / count), dgamma, dbeta


def dgamma_with_gamma(dy, x, gamma, mean, var, eps=1e-5):
    dx, dgamma, dbeta = my_batch_norm_grad(dy, x, gamma, mean, var, eps)
    return dx, dgamma * gamma, dbeta


def means_of_all_channels(dy, x, gamma, mean, var, eps=1e-5):
    std = np.sqrt(var + eps)
    normalized = (x - mean) / std
    dx = gamma / std * (dy - dy.mean() - normalized * (dy * normalized).mean())
    return dx, (dy * normalized).sum(PIXELS), dy.sum(PIXELS)


def dgamma_without_normalized(dy, x, gamma, mean, var, eps=1e-5):
    dx, dgamma, dbeta = gradient(std_term=0)(dy, x, gamma, mean, var, eps)
    return dx - gamma / np.sqrt(var + eps) * dgamma / (x.size // x.shape[-1]), dgamma, dbeta


def without_eps(dy, x, gamma, mean, var, eps=1e-5):
    return my_batch_norm_grad(dy, x, gamma, mean, var, 0)


def means_for_sums(dy, x, gamma, mean, var, eps=1e-5):
    dx, dgamma, dbeta = my_batch_norm_grad(dy, x, gamma, mean, var, eps)
    count = x.size // x.shape[-1]
    return dx, dgamma / count, dbeta / count


def divided_twice(dy, x, gamma, mean, var, eps=1e-5):
    dx, dgamma, dbeta = gradient(1, 1 / 60, 1 / 60)(dy, x, gamma, mean, var, eps)
    return dx, dgamma / 60, dbeta / 60


def sums_over_maps_only(dy, x, gamma, mean, var, eps=1e-5):
    std, count = np.sqrt(var + eps), x.size // x.shape[-1]
    normalized = (x - mean) / std
    dgamma, dbeta = (dy * normalized).sum(0), dy.sum(0)
    return gamma / std * (dy - dbeta / count - normalized * dgamma / count), dgamma, dbeta


dy = rng.standard_normal(x.shape) + 1
statistics = x.mean(PIXELS), x.var(PIXELS)


# ----------------------------------------------------------------------------------------- 7.3
def merge(a, b):
    (n_a, m_a, M_a), (n_b, m_b, M_b) = a, b
    n, d = n_a + n_b, m_b - m_a
    return n, m_a + d * n_b / n, M_a + M_b + d ** 2 * n_a * n_b / n


def merged(weight=None, between=None):
    """merge, with another share of b in the mean, or another factor of d^2 in M."""
    def wrong(a, b):
        (n_a, m_a, M_a), (n_b, m_b, M_b) = a, b
        n, mean, M = merge(a, b)
        d = m_b - m_a
        if weight:
            mean = m_a + d * weight(n_a, n_b)
        if between:
            M = M_a + M_b + d ** 2 * between(n_a, n_b)
        return n, mean, M
    return wrong


def unweighted(a, b):
    """With the wrong mean in the squares too."""
    (n_a, m_a, M_a), (n_b, m_b, M_b) = a, b
    m = (m_a + m_b) / 2
    return n_a + n_b, m, M_a + M_b + n_a * (m_a - m) ** 2 + n_b * (m_b - m) ** 2


def as_variances(a, b):
    n, mean, M = merge(a, b)
    return n, mean, M / n


def weighted_squares(a, b):
    n, mean, _ = merge(a, b)
    return n, mean, (a[0] * a[2] + b[0] * b[2]) / n


def without_square(a, b):
    (n_a, m_a, M_a), (n_b, m_b, M_b) = a, b
    n, mean, _ = merge(a, b)
    return n, mean, M_a + M_b + (m_b - m_a) * n_a * n_b / n


def triple(x):
    mean = x.mean(0)
    return len(x), mean, ((x - mean) ** 2).sum(0)


parts = triple(rng.standard_normal((5, 3))), triple(4 + rng.standard_normal((11, 3)))


# ----------------------------------------------------------------------------------------- 7.4
def running(correction, momentum_of=lambda momentum: momentum):
    """Running statistics with another factor of the variance, or another share."""
    def move(running_mean, running_var, mean, var, count, momentum):
        share, var = momentum_of(momentum), var * correction(count)
        return (running_mean + share * (mean - running_mean),
                running_var + share * (var - running_var))
    return move


def unbiased(count):
    return count / (count - 1)


my_running_statistics = running(unbiased)


def added(running_mean, running_var, mean, var, count, momentum):
    return running_mean + momentum * mean, running_var + momentum * var * unbiased(count)


def mean_corrected_too(running_mean, running_var, mean, var, count, momentum):
    return my_running_statistics(running_mean, running_var, mean * unbiased(count), var, count,
                                 momentum)


def corrected_afterwards(running_mean, running_var, mean, var, count, momentum):
    new_mean, new_var = running(lambda count: 1)(running_mean, running_var, mean, var, count,
                                                 momentum)
    return new_mean, new_var * unbiased(count)


# ----------------------------------------------------------------------------------------- 7.5
def fold(gamma, beta, running_mean, running_var, eps=1e-5):
    scale = gamma / np.sqrt(running_var + eps)
    return scale, beta - running_mean * scale


def folded(shift):
    def wrong(gamma, beta, running_mean, running_var, eps=1e-5):
        scale = gamma / np.sqrt(running_var + eps)
        return scale, shift(beta, running_mean, scale, gamma)
    return wrong


def fold_by_variance(gamma, beta, running_mean, running_var, eps=1e-5):
    scale = gamma / (running_var + eps)
    return scale, beta - running_mean * scale


def fold_with_eps_outside(gamma, beta, running_mean, running_var, eps=1e-5):
    scale = gamma / (np.sqrt(running_var) + eps)
    return scale, beta - running_mean * scale


def fold_without_eps(gamma, beta, running_mean, running_var, eps=1e-5):
    return fold(gamma, beta, running_mean, running_var, 0)


def fold_without_gamma(gamma, beta, running_mean, running_var, eps=1e-5):
    scale = 1 / np.sqrt(running_var + eps)
    return scale, beta - running_mean * scale


means, variances = rng.standard_normal(7), rng.uniform(1, 3, 7)


EXERCISES = {
    "7.1": Exercise(
        batch_norm_forward,
        ("mean and var have one number for each channel: they are taken over the axes (0, 1, 2).",
         "mean = x.mean((0, 1, 2)), and var is the mean of (x - mean) ** 2 over the same axes. "
         "Divide by np.sqrt(var + eps)."),
        inputs=[(x, gamma, beta), (x, gamma, beta, 0.1)], results=("y", "mean", "var"),
        traps={
            "you average over the maps only, for each pixel by itself. All pixels of a "
            "channel share a mean: axes (0, 1, 2).": normalized_over(0),
            "you take statistics of each map by itself. All maps of the batch share a mean: axes "
            "(0, 1, 2).": normalized_over((1, 2), True),
            "you mix the channels. Each has a mean of its own: leave the last axis out.":
                normalized_over(None),
            "you normalize each pixel over its channels, axis -1. It should be each channel over "
            "all maps and pixels: axes (0, 1, 2).": normalized_over(-1, True),
            "var is divided by n here, not by n - 1 (no ddof).": normalized_over(PIXELS, ddof=1),
            "eps belongs inside the root: sqrt(var + eps).": eps_outside_the_root,
            "use the argument eps: it can be another number than 1e-5.": fixed_eps,
            "divide by the standard deviation, which is the root of var + eps.":
                divided_by_variance,
            "var is the mean of (x - mean)^2, not of x^2.": mean_of_squares,
            "y is right, but the third result is the standard deviation instead of var.":
                std_returned}),
    "7.2": Exercise(
        my_batch_norm_grad,
        ("Compute std, then normalized = (x - mean) / std. dbeta and dgamma are sums over the "
         "axes (0, 1, 2).",
         "dx = gamma / std * (dy - dbeta / count - normalized * dgamma / count)."),
        inputs=(dy, x, gamma, *statistics), results=("dx", "dgamma", "dbeta"),
        sizes={"B": 3, "H": 5, "W": 4, "C": 7},
        traps={
            "in dx the term of the mean is missing: each x changes the mean too. Subtract "
            "dbeta / count.": gradient(mean_term=0),
            "in dx the term of the standard deviation is missing. Subtract normalized * dgamma / "
            "count.": gradient(std_term=0),
            "you treat mean and std as constants in dx. They depend on x too, and that gives two "
            "more terms.": gradient(mean_term=0, std_term=0),
            "in dx both sums are divided by n: the formula has their means.": sums_not_divided,
            "in dx both extra terms have the wrong sign: they are subtracted.":
                gradient(mean_term=-1, std_term=-1),
            "in dx the factor gamma is missing.": without_gamma,
            "in dx the division by std is missing: it is gamma / std * (...).": without_std,
            "gamma is the factor of the normalized x, so dgamma is the sum of dy * normalized, "
            "not of dy * x.": dgamma_from_x,
            "dgamma, and with it dx, must use the normalized x, not x.": dgamma_from_x_everywhere,
            "dgamma is the sum of dy * normalized. gamma itself is not in it.": dgamma_with_gamma,
            "in dx you take the means over all channels. Each channel has its own: axes (0, 1, 2).":
                means_of_all_channels,
            "in dx the last term lacks a factor: it is normalized * dgamma / count.":
                dgamma_without_normalized,
            "eps is missing: std = sqrt(var + eps), as in the forward pass.": without_eps,
            "dx is right, but dgamma and dbeta are sums over all maps and pixels, not means.":
                means_for_sums,
            "dgamma and dbeta are sums, not means. (And then you divide by count once more in "
            "dx.)": divided_twice,
            "gamma and beta serve all pixels of a channel: sum over the axes (0, 1, 2), not only "
            "over the maps.": sums_over_maps_only}),
    "7.3": Exercise(
        merge,
        ("The mean: (n_a m_a + n_b m_b) / n, with n = n_a + n_b. Then M from the formula above, "
         "with two chunks.",
         "M = M_a + M_b + n_a (m_a - m)^2 + n_b (m_b - m)^2, or shorter "
         "M_a + M_b + d^2 n_a n_b / n."),
        inputs=[parts, parts[::-1]], results=("count", "mean", "M"),
        traps={
            "the mean of both means is right only for equal counts. Weigh them by n_a and n_b.":
                merged(weight=lambda n_a, n_b: 0.5),
            "weigh the means by n_a and n_b: the mean is wrong, and so is M.": unweighted,
            "the weights are exchanged: m_b has the weight n_b / n.":
                merged(weight=lambda n_a, n_b: n_a / (n_a + n_b)),
            "M lacks the spread between the two means. Add d^2 n_a n_b / n.":
                merged(between=lambda n_a, n_b: 0),
            "the term with d^2 is too large. The distances to the common mean are d n_b / n and "
            "d n_a / n.": merged(between=lambda n_a, n_b: n_a + n_b),
            "in M, n_a n_b must still be divided by n.": merged(between=lambda n_a, n_b: n_a * n_b),
            "in M, d^2 must be weighted with the counts: d^2 n_a n_b / n.":
                merged(between=lambda n_a, n_b: 1),
            "M_a and M_b are sums already: add them without weights, and then add the spread "
            "between the means.": weighted_squares,
            "in M, the difference d of the means must be squared.": without_square,
            "the third result is a variance. M is the sum of the squared deviations: do not divide "
            "by n.": as_variances}),
    "7.4": Exercise(
        my_running_statistics,
        ("The new value is old + momentum * (statistic of the batch - old).",
         "For the variance, the statistic of the batch is var * count / (count - 1)."),
        inputs=(np.arange(1.0, 8), np.arange(3.0, 10), means, variances, 4, 0.1),
        results=("running mean", "running variance"),
        traps={
            "this is the biased variance, too small on average. Multiply var by count / "
            "(count - 1) first.": running(lambda count: 1),
            "momentum is the share of the new batch, 0.1. You keep 0.1 of the old value.":
                running(unbiased, lambda momentum: 1 - momentum),
            "momentum is the share of the new batch, 0.1, and the variance must be unbiased.":
                running(lambda count: 1, lambda momentum: 1 - momentum),
            "the correction is upside down: the biased variance is too small, so the factor is "
            "count / (count - 1).": running(lambda count: (count - 1) / count),
            "the old value must fade: its share is 1 - momentum. You keep all of it.": added,
            "the mean needs no correction. Only the variance is biased.": mean_corrected_too,
            "only the new batch's variance is corrected. The old running variance is unbiased "
            "already.": corrected_afterwards}),
    "7.5": Exercise(
        fold,
        ("Write y = gamma (x - mean) / std + beta, multiply out, and look at what stands with x.",
         "scale = gamma / np.sqrt(running_var + eps). The rest is beta minus something."),
        inputs=(gamma, beta, means, variances, 0.01), results=("scale", "shift"),
        traps={
            "the mean also contributes to the shift: beta - mean * scale.":
                folded(lambda beta, mean, scale, gamma: beta),
            "the mean is subtracted before the scaling: in the shift it has a minus sign.":
                folded(lambda beta, mean, scale, gamma: beta + mean * scale),
            "the mean is scaled like x is: in the shift it has the factor scale.":
                folded(lambda beta, mean, scale, gamma: beta - mean),
            "the mean is divided by std too: in the shift it has the factor scale, not gamma.":
                folded(lambda beta, mean, scale, gamma: beta - mean * gamma),
            "beta is added after the scaling. It is not scaled itself.":
                folded(lambda beta, mean, scale, gamma: (beta - mean) * scale),
            "the scale divides by the variance. Take the root of running_var + eps.":
                fold_by_variance,
            "eps belongs inside the root.": fold_with_eps_outside,
            "eps is missing: the root is that of running_var + eps.": fold_without_eps,
            "the scale lacks gamma.": fold_without_gamma}),
}
