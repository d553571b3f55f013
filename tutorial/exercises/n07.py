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


def eps_missing(x, gamma, beta, eps=1e-5):
    return batch_norm_forward(x, gamma, beta, 0)


def std_returned(eps_in_std, eps_in_y):
    def forward(x, gamma, beta, eps=1e-5):
        y, mean, var = batch_norm_forward(x, gamma, beta, eps_in_y * eps)
        return y, mean, np.sqrt(var + eps_in_std * eps)
    return forward


def divided_by_length(x, gamma, beta, eps=1e-5):
    mean = x.sum(PIXELS) / len(x)
    var = ((x - mean) ** 2).sum(PIXELS) / len(x)
    return gamma * (x - mean) / np.sqrt(var + eps) + beta, mean, var


def variance_divided_by_length(x, gamma, beta, eps=1e-5):
    mean = x.mean(PIXELS)
    var = ((x - mean) ** 2).sum(PIXELS) / len(x)
    return gamma * (x - mean) / np.sqrt(var + eps) + beta, mean, var


def copied(x, gamma, beta, eps=1e-5):
    mean = x.sum() / len(x)
    var = ((x - mean) ** 2).sum() / len(x)
    return gamma * (x - mean) / np.sqrt(var + eps) + beta, mean, var


def without_beta(x, gamma, beta, eps=1e-5):
    return batch_norm_forward(x, gamma, 0, eps)


def gamma_forgotten(x, gamma, beta, eps=1e-5):
    return batch_norm_forward(x, 1, beta, eps)


def only_normalized(x, gamma, beta, eps=1e-5):
    return batch_norm_forward(x, 1, 0, eps)


def beta_scaled(x, gamma, beta, eps=1e-5):
    return batch_norm_forward(x, gamma, gamma * beta, eps)


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


def backward_with_fixed_eps(dy, x, gamma, mean, var, eps=1e-5):
    return my_batch_norm_grad(dy, x, gamma, mean, var)


def dgamma_from_deviations(dx_too):
    def backward(dy, x, gamma, mean, var, eps=1e-5):
        dx, dgamma, dbeta = my_batch_norm_grad(dy, x, gamma, mean, var, eps)
        std, count = np.sqrt(var + eps), x.size // x.shape[-1]
        dgamma = (dy * (x - mean)).sum(PIXELS)
        if dx_too:
            dx = gamma / std * (dy - dbeta / count - (x - mean) / std * dgamma / count)
        return dx, dgamma, dbeta
    return backward


def last_term(normalized):
    """dx with something else for the normalized x in its last term."""
    def backward(dy, x, gamma, mean, var, eps=1e-5):
        dx, dgamma, dbeta = gradient(std_term=0)(dy, x, gamma, mean, var, eps)
        std, count = np.sqrt(var + eps), x.size // x.shape[-1]
        return dx - gamma / std * normalized(x, mean) * dgamma / count, dgamma, dbeta
    return backward


def results_exchanged(dy, x, gamma, mean, var, eps=1e-5):
    dx, dgamma, dbeta = my_batch_norm_grad(dy, x, gamma, mean, var, eps)
    return dx, dbeta, dgamma


def sums_exchanged_in_dx(dy, x, gamma, mean, var, eps=1e-5):
    _, dgamma, dbeta = my_batch_norm_grad(dy, x, gamma, mean, var, eps)
    std, count = np.sqrt(var + eps), x.size // x.shape[-1]
    dx = gamma / std * (dy - dgamma / count - (x - mean) / std * dbeta / count)
    return dx, dgamma, dbeta


def without_parentheses(dy, x, gamma, mean, var, eps=1e-5):
    _, dgamma, dbeta = my_batch_norm_grad(dy, x, gamma, mean, var, eps)
    std, count = np.sqrt(var + eps), x.size // x.shape[-1]
    dx = gamma / std * dy - dbeta / count - (x - mean) / std * dgamma / count
    return dx, dgamma, dbeta


def sums_of_everything(dy, x, gamma, mean, var, eps=1e-5):
    std, count = np.sqrt(var + eps), x.size // x.shape[-1]
    normalized = (x - mean) / std
    dgamma, dbeta = (dy * normalized).sum(), dy.sum()
    return gamma / std * (dy - dbeta / count - normalized * dgamma / count), dgamma, dbeta


def each_pixel(a):
    """Without the sum."""
    return a


def mean_of(a):
    return a.mean(PIXELS)


def sum_of(a):
    return a.sum(PIXELS)


def reduced(for_dgamma=sum_of, for_dbeta=sum_of, dx_too=True):
    """Something else for the sums in dgamma and dbeta; in a dx made of them too, or not."""
    def backward(dy, x, gamma, mean, var, eps=1e-5):
        dx, _, _ = my_batch_norm_grad(dy, x, gamma, mean, var, eps)
        std, count = np.sqrt(var + eps), x.size // x.shape[-1]
        normalized = (x - mean) / std
        dgamma, dbeta = for_dgamma(dy * normalized), for_dbeta(dy)
        if dx_too:
            dx = gamma / std * (dy - dbeta / count - normalized * dgamma / count)
        return dx, dgamma, dbeta
    return backward


def dgamma_with_gamma_everywhere(dy, x, gamma, mean, var, eps=1e-5):
    dx, dgamma, dbeta = gradient(std_term=gamma)(dy, x, gamma, mean, var, eps)
    return dx, dgamma * gamma, dbeta


def with_std(in_normalized=None, in_factor=None):
    """Another standard deviation in the normalized x, in the factor gamma / std, or in both."""
    def backward(dy, x, gamma, mean, var, eps=1e-5):
        std, count = np.sqrt(var + eps), x.size // x.shape[-1]
        normalized = (x - mean) / (in_normalized(var, eps) if in_normalized else std)
        dgamma, dbeta = (dy * normalized).sum(PIXELS), dy.sum(PIXELS)
        factor = gamma / (in_factor(var, eps) if in_factor else std)
        return factor * (dy - dbeta / count - normalized * dgamma / count), dgamma, dbeta
    return backward


def no_root(var, eps):
    return var + eps


def eps_outside(var, eps):
    return np.sqrt(var) + eps


def no_eps(var, eps):
    return np.sqrt(var)


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


def merged_at(weight):
    """With another share of b in the mean, and the squared distances from that mean in M."""
    def wrong(a, b):
        (n_a, m_a, M_a), (n_b, m_b, M_b) = a, b
        m = m_a + (m_b - m_a) * weight(n_a, n_b)
        return n_a + n_b, m, M_a + M_b + n_a * (m_a - m) ** 2 + n_b * (m_b - m) ** 2
    return wrong


def share_of_a(n_a, n_b):
    return n_a / (n_a + n_b)


def minus_share_of_b(n_a, n_b):
    return -n_b / (n_a + n_b)


def spread_without_counts(n_a, n_b):
    return (n_a ** 2 + n_b ** 2) / (n_a + n_b) ** 2


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


def mean_not_divided(a, b):
    n, mean, M = merge(a, b)
    return n, mean * n, M


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


def difference_corrected(running_mean, running_var, mean, var, count, momentum):
    new_mean, _ = my_running_statistics(running_mean, running_var, mean, var, count, momentum)
    return new_mean, running_var + momentum * (var - running_var) * unbiased(count)


def product_rounded_down(running_mean, running_var, mean, var, count, momentum):
    new_mean, _ = my_running_statistics(running_mean, running_var, mean, var, count, momentum)
    return new_mean, running_var + momentum * (var * count // (count - 1) - running_var)


def moved_away(running_mean, running_var, mean, var, count, momentum):
    return (running_mean + momentum * (running_mean - mean),
            running_var + momentum * (running_var - var * unbiased(count)))


def mean_moved_away(running_mean, running_var, mean, var, count, momentum):
    _, new_var = my_running_statistics(running_mean, running_var, mean, var, count, momentum)
    return running_mean + momentum * (running_mean - mean), new_var


def only_the_batch(running_mean, running_var, mean, var, count, momentum):
    return momentum * mean, momentum * var * unbiased(count)


def exchanged(running_mean, running_var, mean, var, count, momentum):
    return my_running_statistics(running_mean, running_var, mean, var, count, momentum)[::-1]


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


def fold_with_fixed_eps(gamma, beta, running_mean, running_var, eps=1e-5):
    return fold(gamma, beta, running_mean, running_var)


def folded_results_exchanged(gamma, beta, running_mean, running_var, eps=1e-5):
    return fold(gamma, beta, running_mean, running_var, eps)[::-1]


def gamma_missing_in_shift(gamma, beta, running_mean, running_var, eps=1e-5):
    std = np.sqrt(running_var + eps)
    return gamma / std, beta - running_mean / std


means, variances = rng.standard_normal(7), rng.uniform(1, 3, 7)


EXERCISES = {
    "7.1": Exercise(
        batch_norm_forward,
        ("mean and var have one number for each channel: both are means over the axes (0, 1, 2). "
         "Then y is the formula, with gamma, beta and the root of var + eps.",
         "mean = x.mean((0, 1, 2)), and var is the mean of (x - mean) ** 2 over the same axes. "
         "y = gamma * (x - mean) / std + beta, with std = np.sqrt(var + eps)."),
        inputs=[(x, gamma, beta), (x, gamma, beta, 0.1)], results=("y", "mean", "var"),
        traps={
            "you average over the maps only, for each pixel by itself. All pixels of a "
            "channel share a mean: axes (0, 1, 2).": normalized_over(0),
            "you average over the maps only. All pixels of a channel share a mean too: axes "
            "(0, 1, 2), and without keepdims.": normalized_over(0, True),
            "you average over maps and rows only, for each column by itself. All pixels of a "
            "channel share a mean: axes (0, 1, 2).": normalized_over((0, 1)),
            "you average over maps and rows only. The columns share the mean too: axes (0, 1, 2), "
            "and without keepdims.": normalized_over((0, 1), True),
            "you take statistics of each map by itself. All maps of the batch share a mean: axes "
            "(0, 1, 2).": normalized_over((1, 2), True),
            "mean and var of each map by itself are (B, C), which does not fit x. All maps of the "
            "batch share a mean: axes (0, 1, 2).": normalized_over((1, 2)),
            "you mix the channels. Each has a mean of its own: leave the last axis out.":
                normalized_over(None),
            "mean and var are over all axes. Each channel has its own: leave the last axis out, "
            "and keepdims too.": normalized_over(None, True),
            "mean and var over the last axis mix the channels, and their shape does not fit x. "
            "Take the axes (0, 1, 2).": normalized_over(-1),
            "the numbers are right, but mean and var should be (C,): no keepdims here.":
                normalized_over(PIXELS, True),
            "len(x) is B here, the number of maps. A channel has n = B H W numbers: take .mean "
            "instead, or divide by x.size // x.shape[-1].": divided_by_length,
            "mean is right, but in var len(x) is B, the number of maps. Divide by n = B H W, or "
            "take .mean.": variance_divided_by_length,
            "x.sum() mixes the channels, and len(x) is B, the number of maps. Take the mean over "
            "the axes (0, 1, 2).": copied,
            "you normalize each pixel over its channels, axis -1. It should be each channel over "
            "all maps and pixels: axes (0, 1, 2).": normalized_over(-1, True),
            "var is divided by n here, not by n - 1 (no ddof).": normalized_over(PIXELS, ddof=1),
            "eps belongs inside the root: sqrt(var + eps).": eps_outside_the_root,
            "use the argument eps: it can be another number than 1e-5.": fixed_eps,
            "divide by the standard deviation, which is the root of var + eps.":
                divided_by_variance,
            "var is the mean of (x - mean)^2, not of x^2.": mean_of_squares,
            "y is right, but the third result is the standard deviation instead of var.":
                std_returned(1, 1),
            "y is right, but the third result is the root of var. Return var itself.":
                std_returned(0, 1),
            "return var, not the standard deviation. And in y, eps is missing: divide by "
            "sqrt(var + eps).": std_returned(0, 0),
            "eps is missing: divide by sqrt(var + eps).": eps_missing,
            "beta is missing: add it at the end.": without_beta,
            "gamma is missing: the normalized x is multiplied by it.": gamma_forgotten,
            "gamma and beta are both missing: multiply the normalized x by gamma, and add beta.":
                only_normalized,
            "beta is added after the product with gamma, and is not multiplied itself.":
                beta_scaled}),
    "7.2": Exercise(
        my_batch_norm_grad,
        ("With std = np.sqrt(var + eps) and normalized = (x - mean) / std, dgamma and dbeta are "
         "sums over the axes (0, 1, 2). dx is the last formula above, and contains both sums "
         "divided by n.",
         "dgamma is (dy * normalized).sum((0, 1, 2)), and dbeta the same sum of dy alone. "
         "dx = gamma / std * (dy - a - normalized * b), where a is dbeta / count: what is b?"),
        inputs=[(dy, x, gamma, *statistics), (dy, x, gamma, *statistics, 0.1)],
        results=("dx", "dgamma", "dbeta"), sizes={"B": 3, "H": 5, "W": 4, "C": 7},
        traps={
            "in dx the term of the mean is missing: each x changes the mean too. Subtract "
            "dbeta / count.": gradient(mean_term=0),
            "in dx the term of the standard deviation is missing. Subtract normalized * dgamma / "
            "count.": gradient(std_term=0),
            "you treat mean and std as constants in dx. They depend on x too, and that gives two "
            "more terms.": gradient(mean_term=0, std_term=0),
            "in dx both sums are divided by n: the formula has their means.": sums_not_divided,
            "in dx the sum in the middle term is not divided by n: it is dbeta / count.":
                gradient(mean_term=60),
            "in dx the sum in the last term is not divided by n: it is normalized * dgamma / "
            "count.": gradient(std_term=60),
            "in dx both extra terms have the wrong sign: they are subtracted.":
                gradient(mean_term=-1, std_term=-1),
            "in dx the term of the mean has the wrong sign: dbeta / count is subtracted.":
                gradient(mean_term=-1),
            "in dx the last term has the wrong sign: it is subtracted.": gradient(std_term=-1),
            "in dx the factor gamma is missing.": without_gamma,
            "in dx the division by std is missing: it is gamma / std * (...).": without_std,
            "gamma is the factor of the normalized x, so dgamma is the sum of dy * normalized, "
            "not of dy * x.": dgamma_from_x,
            "dgamma, and with it dx, must use the normalized x, not x.": dgamma_from_x_everywhere,
            "dgamma is the sum of dy * normalized. gamma itself is not in it.": dgamma_with_gamma,
            "dgamma, and with it dx, has a factor gamma too much: it is the sum of dy * "
            "normalized.": dgamma_with_gamma_everywhere,
            "dgamma is not summed: it is the sum of dy * normalized over the axes (0, 1, 2). dx "
            "needs this sum too.": reduced(each_pixel),
            "dbeta is not summed: it is the sum of dy over the axes (0, 1, 2). dx needs this sum "
            "too.": reduced(for_dbeta=each_pixel),
            "neither dgamma nor dbeta is summed: both are sums over the axes (0, 1, 2), and dx "
            "needs these sums.": reduced(each_pixel, each_pixel),
            "dgamma is a sum, not a mean. (And then you divide it by count once more in dx.)":
                reduced(mean_of),
            "dbeta is a sum, not a mean. (And then you divide it by count once more in dx.)":
                reduced(for_dbeta=mean_of),
            "dx is right, but dgamma is a sum over all maps and pixels, not a mean.":
                reduced(mean_of, dx_too=False),
            "dx is right, but dbeta is a sum over all maps and pixels, not a mean.":
                reduced(for_dbeta=mean_of, dx_too=False),
            "in dx you take the means over all channels. Each channel has its own: axes (0, 1, 2).":
                means_of_all_channels,
            "in dx the last term lacks a factor: it is normalized * dgamma / count.":
                dgamma_without_normalized,
            "dgamma is the sum of dy * normalized. You have x - mean, not yet divided by std.":
                dgamma_from_deviations(False),
            "dgamma, and with it dx, lacks the division by std: it is the sum of dy * normalized.":
                dgamma_from_deviations(True),
            "in the last term of dx stands the normalized x, not x.": last_term(lambda x, mean: x),
            "in the last term of dx, x - mean must be divided by std: it is the normalized x.":
                last_term(lambda x, mean: x - mean),
            "dgamma and dbeta are exchanged in the result.": results_exchanged,
            "in dx the two sums are exchanged: dgamma is the one with the factor normalized.":
                sums_exchanged_in_dx,
            "in dx, gamma / std is a factor of all three terms. Put them in parentheses.":
                without_parentheses,
            "each channel has its own dgamma and dbeta: sum over the axes (0, 1, 2), not over all.":
                sums_of_everything,
            "eps is missing: std = sqrt(var + eps), as in the forward pass.": without_eps,
            "var + eps is the square of std. Take the root, as in the forward pass.":
                with_std(no_root, no_root),
            "in the normalized x, the root is missing: divide by std = sqrt(var + eps).":
                with_std(in_normalized=no_root),
            "in the factor gamma / std of dx, the root is missing: std = sqrt(var + eps).":
                with_std(in_factor=no_root),
            "eps belongs inside the root: std = sqrt(var + eps).":
                with_std(eps_outside, eps_outside),
            "in the normalized x, eps is missing: divide by std = sqrt(var + eps).":
                with_std(in_normalized=no_eps),
            "in the factor gamma / std of dx, eps is missing: std = sqrt(var + eps).":
                with_std(in_factor=no_eps),
            "use the argument eps: it can be another number than 1e-5.": backward_with_fixed_eps,
            "dx is right, but dgamma and dbeta are sums over all maps and pixels, not means.":
                means_for_sums,
            "dgamma and dbeta are sums, not means. (And then you divide by count once more in "
            "dx.)": divided_twice,
            "gamma and beta serve all pixels of a channel: sum over the axes (0, 1, 2), not only "
            "over the maps.": sums_over_maps_only}),
    "7.3": Exercise(
        merge,
        ("n = n_a + n_b, and the mean is m = (n_a m_a + n_b m_b) / n. M is the formula above with "
         "two chunks: both M_k, and for each chunk its count times the squared distance of its "
         "mean from m.",
         "The mean is m = m_a + d n_b / n. So m_a - m = -d n_b / n, and m_b - m = d n_a / n. Put "
         "both into M: it becomes M_a + M_b + d^2 n_a n_b / n."),
        inputs=[parts, parts[::-1]], results=("count", "mean", "M"),
        traps={
            "the mean of both means is right only for equal counts. Weigh them by n_a and n_b.":
                merged(weight=lambda n_a, n_b: 0.5),
            "the mean of both means is right only for equal counts. Weigh them by n_a and n_b. "
            "With the wrong mean, M is wrong too.": merged_at(lambda n_a, n_b: 0.5),
            "the mean is not divided by n yet.": mean_not_divided,
            "the weights are exchanged: m_b has the weight n_b / n.":
                merged(weight=share_of_a),
            "the weights of the mean are exchanged, and with the wrong mean M is wrong too: m_b "
            "has the weight n_b / n.": merged_at(share_of_a),
            "the mean moves away from m_b. It is m_a + d n_b / n, with d = m_b - m_a.":
                merged(weight=minus_share_of_b),
            "the mean moves away from m_b, and with the wrong mean M is wrong too: m_a + d n_b / "
            "n, with d = m_b - m_a.": merged_at(minus_share_of_b),
            "your M is M_a + M_b: the spread between the means is missing. Or did you forget to "
            "square the distances to m? Then the two terms cancel.":
                merged(between=lambda n_a, n_b: 0),
            "in M, the squared distances lack the counts: they are n_a (m_a - m)^2 and "
            "n_b (m_b - m)^2.": merged(between=spread_without_counts),
            "in M, the term of the second part is missing: n_b (m_b - m)^2.":
                merged(between=lambda n_a, n_b: n_a * n_b ** 2 / (n_a + n_b) ** 2),
            "in M, the term of the first part is missing: n_a (m_a - m)^2.":
                merged(between=lambda n_a, n_b: n_b * n_a ** 2 / (n_a + n_b) ** 2),
            "in M, the counts are exchanged: n_a belongs to (m_a - m)^2, and n_b to (m_b - m)^2.":
                merged(between=lambda n_a, n_b: (n_a ** 3 + n_b ** 3) / (n_a + n_b) ** 2),
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
        ("Both move like r above, with momentum in place of 0.1. But first make the variance of "
         "the batch unbiased: multiply it by n / (n - 1).",
         "The mean is running_mean + momentum * (mean - running_mean). For the variance, write the "
         "same with running_var and var * count / (count - 1)."),
        inputs=[(np.arange(1.0, 8), np.arange(3.0, 10), means, variances, 4, 0.1),
                (np.arange(1.0, 8), np.arange(3.0, 10), means, variances, 9, 0.3),
                (np.arange(1.0, 8), np.arange(3.0, 10), means, variances, 2, 0.1)],
        results=("running mean", "running variance"),
        traps={
            "this is the biased variance, too small on average. Multiply var by count / "
            "(count - 1) first.": running(lambda count: 1),
            "count // (count - 1) rounds down, to 1 for most counts. Divide with /.":
                running(lambda count: count // (count - 1)),
            "// rounds the variance down to a whole number. Divide by count - 1 with /.":
                product_rounded_down,
            "you correct the difference, and with it the old running variance, which is unbiased "
            "already. Correct only var.": difference_corrected,
            "momentum is the share of the new batch. You keep only this share of the old value.":
                running(unbiased, lambda momentum: 1 - momentum),
            "momentum is the share of the new batch, not of the old value. And the variance must "
            "be unbiased.":
                running(lambda count: 1, lambda momentum: 1 - momentum),
            "the correction is upside down: the biased variance is too small, so the factor is "
            "count / (count - 1).": running(lambda count: (count - 1) / count),
            "the old value must fade: its share is 1 - momentum. You keep all of it.": added,
            "the mean needs no correction. Only the variance is biased.": mean_corrected_too,
            "use the argument momentum: it can be another number than 0.1.":
                running(unbiased, lambda momentum: 0.1),
            "momentum can be another number than 0.1. And the variance must be unbiased: times "
            "count / (count - 1).": running(lambda count: 1, lambda momentum: 0.1),
            "both move away from the batch's statistics. The distance is new - old.": moved_away,
            "the running mean moves away from the batch's mean. The distance is mean - "
            "running_mean.": mean_moved_away,
            "the old values are missing: their share is 1 - momentum.": only_the_batch,
            "the two results are exchanged: the running mean comes first.": exchanged,
            "only the new batch's variance is corrected. The old running variance is unbiased "
            "already.": corrected_afterwards}),
    "7.5": Exercise(
        fold,
        ("Multiply out y = gamma (x - mean) / std + beta, with std = sqrt(running_var + eps). What "
         "stands before x is scale, and all that is left without x is shift.",
         "scale = gamma / np.sqrt(running_var + eps). The mean is multiplied by scale too, so "
         "shift is beta minus this product."),
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
            "use the argument eps: it can be another number than 1e-5.": fold_with_fixed_eps,
            "scale and shift are exchanged in the result.": folded_results_exchanged,
            "scale is right, but in shift the mean lacks the factor gamma: it is multiplied by "
            "scale.": gamma_missing_in_shift,
            "the scale lacks gamma, and so does the mean in the shift.": fold_without_gamma}),
}
