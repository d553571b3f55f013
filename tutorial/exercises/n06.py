"""Exercises of notebook 6: what is right, and which mistakes get a hint of their own."""
import numpy as np

from tutorial.checks import Exercise

rng = np.random.default_rng(6)
PIXELS = (0, 1, 2)  # the axes of a batch's maps, rows and columns
SIZES = {"B": 3, "H": 5, "W": 4, "K": 7}


# ----------------------------------------------------------------------------------------- 6.1
def stable_softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def without_maximum(x):
    e = np.exp(x)
    return e / e.sum(-1, keepdims=True)


def without_keepdims(x):
    e = np.exp(x - x.max(-1))
    return e / e.sum(-1)


def smallest_subtracted(x):
    e = np.exp(x - x.min(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def mean_subtracted(x):
    e = np.exp(x - x.mean(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def maximum_of_all_pixels(x):
    e = np.exp(x - x.max())
    return e / e.sum(-1, keepdims=True)


def sum_of_all_pixels(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum()


def over_the_first_axis(x):
    e = np.exp(x - x.max(0, keepdims=True))
    return e / e.sum(0, keepdims=True)


def divided_by_maximum(x):
    e = np.exp(x / x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def clipped(x):
    e = np.exp(np.clip(x, -700, 700))
    return e / e.sum(-1, keepdims=True)


def largest_size_subtracted(x):
    e = np.exp(x - np.abs(x).max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def only_above_the_line(x):
    return np.exp(x - x.max(-1, keepdims=True)) / np.exp(x).sum(-1, keepdims=True)


def not_divided(x):
    return np.exp(x - x.max(-1, keepdims=True))


large_scores = rng.standard_normal((3, 5, 4, 7))
large_scores[0] += 1000
large_scores[1] -= 1000
large_scores[2, 0, 0] += 1000 * np.arange(7)


# ----------------------------------------------------------------------------------------- 6.2
def my_softmax_grad(dp, p):
    return p * (dp - (p * dp).sum(-1, keepdims=True))


p = stable_softmax(rng.standard_normal((3, 5, 4, 7)))
dp = rng.standard_normal(p.shape)


# ----------------------------------------------------------------------------------------- 6.3
def leaky_relu_grad(dy, y):
    dx = np.where(y > 0, dy, 0.2 * dy)
    return dx, dx.sum(PIXELS)


def mean_of_pixels(dy, y):
    dx, _ = leaky_relu_grad(dy, y)
    return dx, dx.mean(PIXELS)


def bias_before_the_activation(dy, y):
    dx, _ = leaky_relu_grad(dy, y)
    return dx, dy.sum(PIXELS)


def sign_of_dy(dy, y):
    dx = np.where(dy > 0, dy, 0.2 * dy)
    return dx, dx.sum(PIXELS)


def relu(dy, y):
    dx = dy * (y > 0)
    return dx, dx.sum(PIXELS)


def times_y(dy, y):
    dx = dy * np.where(y > 0, y, 0.2 * y)
    return dx, dx.sum(PIXELS)


def sides_exchanged(dy, y):
    dx = np.where(y > 0, 0.2 * dy, dy)
    return dx, dx.sum(PIXELS)


def no_slope(dy, y):
    return dy, dy.sum(PIXELS)


def slopes_alone(dy, y):
    dx = np.where(y > 0, 1, 0.2)
    return dx, dx.sum(PIXELS)


def summed_over(axes):
    def grad(dy, y):
        dx, _ = leaky_relu_grad(dy, y)
        return dx, dx.sum(axes)
    return grad


dy, y = rng.standard_normal((2, 3, 5, 4, 7))


# ----------------------------------------------------------------------------------------- 6.4
def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def stable_bce(z, t):
    loss = np.mean(np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - z * t)
    return loss, (sigmoid(z) - t) / z.size


def from_the_definition(z, t):
    s = sigmoid(z)
    return np.mean(-t * np.log(s) - (1 - t) * np.log(1 - s)), (s - t) / z.size


def exp_of_z(log_of_one_plus):
    def bce(z, t):
        return np.mean(log_of_one_plus(np.exp(z)) - z * t), (sigmoid(z) - t) / z.size
    return bce


def logarithm_rounded(z, t):
    loss = np.mean(np.maximum(z, 0) + np.log(1 + np.exp(-np.abs(z))) - z * t)
    return loss, (sigmoid(z) - t) / z.size


def clipped_probability(eps):
    def bce(z, t):
        s = np.clip(sigmoid(z), eps, 1 - eps)
        return np.mean(-t * np.log(s) - (1 - t) * np.log(1 - s)), (sigmoid(z) - t) / z.size
    return bce


def sigmoid_of_large_exponents(z, t):
    loss, _ = stable_bce(z, t)
    return loss, (np.exp(z) / (1 + np.exp(z)) - t) / z.size


def without_maximum_of_z(z, t):
    return np.mean(np.log1p(np.exp(-np.abs(z))) - z * t), (sigmoid(z) - t) / z.size


def no_minus_before_abs(z, t):
    loss = np.mean(np.maximum(z, 0) + np.log1p(np.exp(np.abs(z))) - z * t)
    return loss, (sigmoid(z) - t) / z.size


def abs_forgotten(z, t):
    return np.mean(np.maximum(z, 0) + np.log1p(np.exp(-z)) - z * t), (sigmoid(z) - t) / z.size


def other_maximum(maximum):
    def bce(z, t):
        loss = np.mean(maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - z * t)
        return loss, (sigmoid(z) - t) / z.size
    return bce


def without_z_t(z, t):
    loss, dz = stable_bce(z, t)
    return loss + np.mean(z * t), dz


def number_of_maps(z, t):
    loss, dz = stable_bce(z, t)
    return loss, dz * z.size / len(z)


def sum_over_number_of_maps(z, t):
    loss, dz = stable_bce(z, t)
    return loss * z.size / len(z), dz * z.size / len(z)


def plus_z_t(z, t):
    loss, dz = stable_bce(z, t)
    return loss + 2 * np.mean(z * t), dz


def one_loss_for_each(z, t):
    loss = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - z * t
    return loss, sigmoid(z) - t


def sum_of_losses(z, t):
    loss, dz = stable_bce(z, t)
    return loss * z.size, dz * z.size


def gradient_of_the_sum(z, t):
    loss, dz = stable_bce(z, t)
    return loss, dz * z.size


def other_sign(z, t):
    loss, dz = stable_bce(z, t)
    return loss, -dz


def gradient_to_s(z, t):
    loss, dz = stable_bce(z, t)
    return loss, dz * sigmoid(z) * sigmoid(-z)


logits = 3 * rng.standard_normal((7, 3, 1, 1))
targets = rng.uniform(0, 1, logits.shape)


# ----------------------------------------------------------------------------------------- 6.5
def cross_entropy(x, labels):
    right = np.eye(x.shape[-1])[labels]
    x = x - x.max(-1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return -(right * log_p).sum() / labels.size, (np.exp(log_p) - right) / labels.size


def unstable(shift, loss, gradient):
    """With another number subtracted from the scores, and with log p or p computed as named."""
    def wrong(x, labels):
        right = np.eye(x.shape[-1])[labels]
        x = x - shift(x)
        e = np.exp(x)
        total = e.sum(-1, keepdims=True)
        log_p = x - np.log(total) if loss.startswith("from the scores") else np.log(e / total)
        if loss.endswith("one-hot"):
            value = -(right * log_p).sum() / labels.size
        else:  # only the right class
            value = -np.take_along_axis(log_p, labels[..., None], -1).mean()
        p = np.exp(log_p) if gradient == "exp(log p)" else e / total
        return value, (p - right) / labels.size
    return wrong


def no_shift(x):
    return 0


def largest_of_each_pixel(x):
    return x.max(-1, keepdims=True)


def largest_of_all(x):
    return x.max()


def through_softmax_grad(loss_of):
    """dx from the gradient of softmax, with dp = -right / p."""
    def wrong(x, labels):
        right, p = np.eye(x.shape[-1])[labels], stable_softmax(x)
        return loss_of(x, labels)[0], my_softmax_grad(-right / p / labels.size, p)
    return wrong


def total_counted_for_each_class(x, labels):
    _, dx = cross_entropy(x, labels)
    right = np.eye(x.shape[-1])[labels]
    x = x - x.max(-1, keepdims=True)
    return (np.log(np.exp(x).sum(-1, keepdims=True)) - right * x).mean(), dx


def summed_for_each_class(x, labels):
    loss, dx = total_counted_for_each_class(x, labels)
    return loss * x.shape[-1], dx


def axis_lost(x, labels):
    x = x - x.max(-1)


def axis_kept_in_one_term(x, labels):
    right = np.eye(x.shape[-1])[labels]
    return np.log(np.exp(x).sum(-1, keepdims=True)) - (right * x).sum(-1)


def largest_score_lost(x, labels):
    loss, dx = cross_entropy(x, labels)
    return loss - x.max(-1).mean(), dx


def mean_over_classes_too(x, labels):
    loss, dx = cross_entropy(x, labels)
    return loss / x.shape[-1], dx / x.shape[-1]


def mean_of_the_loss_over_classes(x, labels):
    loss, dx = cross_entropy(x, labels)
    return loss / x.shape[-1], dx


def mean_forgotten(x, labels):
    loss, dx = cross_entropy(x, labels)
    return loss, dx * labels.size


def sums_over_pixels(x, labels):
    loss, dx = cross_entropy(x, labels)
    return loss * labels.size, dx * labels.size


def only_the_right_class(x, labels):
    loss, dx = cross_entropy(x, labels)
    return loss, dx * np.eye(x.shape[-1])[labels]


def without_one_hot(x, labels):
    loss, _ = cross_entropy(x, labels)
    return loss, stable_softmax(x) / labels.size


def labels_exchanged(x, labels):
    loss, dx = cross_entropy(x, labels)
    return loss, -dx


scores = rng.standard_normal((3, 5, 4, 7))
scores[0, 0, 0] += 1000 * np.arange(7)
labels = rng.integers(7, size=(3, 5, 4))
labels[0, 0, 0] = 0  # sure, and wrong


EXERCISES = {
    "6.1": Exercise(
        stable_softmax,
        ("Nothing changes if you subtract the same number from all K scores of a pixel. Which "
         "number makes the largest exponent 0?",
         "Subtract x.max(-1, keepdims=True) from x before anything else. Then go on as in "
         "my_softmax."),
        inputs=[(large_scores,), (rng.standard_normal(5),)], sizes=SIZES,
        traps={
            "with scores of 1000, exp gives infinity, and infinity / infinity is NaN. Subtract "
            "the largest score of each pixel first.": without_maximum,
            "x.max(-1) has lost the last axis, so the shapes do not fit. With keepdims=True it "
            "stays, with length 1. The sum needs that too.": without_keepdims,
            "you subtract the smallest score, and large ones still overflow. Subtract the largest.":
                smallest_subtracted,
            "you subtract the mean. Where one score is far above it, exp still overflows. Subtract "
            "the largest score.": mean_subtracted,
            "x.max() is the largest score of all pixels. Where all scores are 1000 lower, every "
            "exp is 0, and 0 / 0 is NaN. Take the maximum over the last axis.":
                maximum_of_all_pixels,
            "you divide by a sum over all pixels. The probabilities of each pixel must add up "
            "to 1: sum over the last axis.": sum_of_all_pixels,
            "the classes are the last axis, -1. You use the first, 0.": over_the_first_axis,
            "you divide the scores by the largest, which changes their differences. Subtract it.":
                divided_by_maximum,
            "clipping changes the differences between large scores. Subtract the largest score "
            "instead.": clipped,
            "you subtract the largest size |x|. Where all scores are -1000 this makes them -2000, "
            "each exp is 0, and 0 / 0 is NaN. Subtract the largest score, with its sign.":
                largest_size_subtracted,
            "you subtract the largest score above the fraction bar, but not below it. Subtract it "
            "from x once, before both.": only_above_the_line,
            "these numbers do not add up to 1. Divide them by their sum, pixel by pixel.":
                not_divided}),
    "6.2": Exercise(
        my_softmax_grad,
        ("For each pixel, take the sum over k of p_k dp_k. Subtract it from each dp_j of this "
         "pixel, and multiply the difference by p_j.",
         "The sum is (p * dp).sum(-1, keepdims=True). Its shape is (B, H, W, 1), so it can be "
         "subtracted from dp. The factor p stands before the parentheses."),
        inputs=(dp, p), sizes=SIZES,
        traps={
            "the sum over axis -1 has lost this axis, so the shapes do not fit. Use keepdims=True.":
                lambda dp, p: p * (dp - (p * dp).sum(-1)),
            "the sum goes over the classes of one pixel, axis -1. Yours goes over all pixels.":
                lambda dp, p: p * (dp - (p * dp).sum()),
            "the sum goes over the classes, axis -1. Yours goes over the maps, axis 0.":
                lambda dp, p: p * (dp - (p * dp).sum(0)),
            "the sum goes over the classes, axis -1. Yours goes over the rows, axis 1.":
                lambda dp, p: p * (dp - (p * dp).sum(1, keepdims=True)),
            "the sum goes over the classes of one pixel, axis -1. Yours goes over all maps and "
            "pixels of a class.": lambda dp, p: p * (dp - (p * dp).sum(PIXELS)),
            "the weighted mean is subtracted from dp, not added.":
                lambda dp, p: p * (dp + (p * dp).sum(-1, keepdims=True)),
            "p (1 - p) is only the diagonal of the Jacobian. A score changes the probabilities of "
            "all other classes too.": lambda dp, p: dp * p * (1 - p),
            "the mean of dp must be weighted: take the sum of p dp, not of dp.":
                lambda dp, p: p * (dp - dp.sum(-1, keepdims=True)),
            "each dp_k has the weight p_k, not 1 / K: take the sum of p dp, not the mean of dp.":
                lambda dp, p: p * (dp - dp.mean(-1, keepdims=True)),
            "the weights p_k add up to 1 already. Take the sum of p dp, not its mean.":
                lambda dp, p: p * (dp - (p * dp).mean(-1, keepdims=True)),
            "the factor p_j in front of the parentheses is missing.":
                lambda dp, p: dp - (p * dp).sum(-1, keepdims=True),
            "p_j is a factor of both terms: p * (dp - sum), with parentheses.":
                lambda dp, p: p * dp - (p * dp).sum(-1, keepdims=True),
            "this is p dp alone. The weighted mean is still to be subtracted from dp.":
                lambda dp, p: p * dp}),
    "6.3": Exercise(
        leaky_relu_grad,
        ("Where y > 0, dx is dy. Elsewhere it is 0.2 dy. Then dbias is a sum of dx over maps, "
         "rows and columns, for each channel by itself.",
         "dx = np.where(y > 0, dy, 0.2 * dy), and dbias is the sum of this dx over the axes "
         "(0, 1, 2)."),
        inputs=(dy, y), results=("dx", "dbias"),
        traps={
            "dbias is the sum over all maps and pixels, not the mean: the bias is added at each "
            "of them, and each contributes.": mean_of_pixels,
            "one bias serves all pixels of a map too. Sum over the axes (0, 1, 2), not only over "
            "the maps.": summed_over(0),
            "each channel has a bias of its own. Keep the last axis: sum over (0, 1, 2).":
                summed_over(None),
            "you sum over the channels, axis -1. Each channel has a bias of its own: sum over the "
            "other axes, (0, 1, 2).": summed_over(-1),
            "you sum over the pixels of each map by itself. All maps share the bias: the axis 0 "
            "belongs to the sum too.": summed_over((1, 2)),
            "the slopes are exchanged: 1 where y > 0, and 0.2 elsewhere.": sides_exchanged,
            "your dx is dy everywhere. Where y is not above 0, the slope of LeakyReLU is 0.2.":
                no_slope,
            "you return the slopes alone. By the chain rule dx is dy times the slope.":
                slopes_alone,
            "the bias is added before the activation, so the gradient goes through it first: sum "
            "dx, not dy.": bias_before_the_activation,
            "the slope depends on the sign of y, not on the sign of dy.": sign_of_dy,
            "this is ReLU. The slope of LeakyReLU below 0 is 0.2.": relu,
            "the derivative is the slope, 1 or 0.2. You multiply by the value of LeakyReLU.":
                times_y}),
    "6.4": Exercise(
        stable_bce,
        ("The loss of one logit is max(z, 0) + log(1 + exp(-|z|)) - z t, with the derivative "
         "s - t. In the mean over all logits, each has the weight 1 / z.size, and so has its "
         "derivative.",
         "For arrays, max(z, 0) is np.maximum(z, 0), |z| is np.abs(z), log(1 + a) is np.log1p(a), "
         "and np.mean gives the loss. dz is (s - t) / z.size, with s = 1 / (1 + np.exp(-z))."),
        inputs=[(logits, targets), (np.array([1000.0, 0.5, -0.1]), np.array([0.0, 1.0, 0.3])),
                (np.array([-1000.0, 0.5, -0.1]), np.array([1.0, 1.0, 0.3])),
                (np.array([-40.0]), np.array([0.0]))],
        results=("loss", "dz"),
        traps={
            "at z = 1000 and t = 0 the loss is infinite, because s is rounded to 1. Use the "
            "formula with z instead of s.": from_the_definition,
            "exp(z) overflows at z = 1000. Use log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|)).":
                exp_of_z(lambda a: np.log(1 + a)),
            "exp(z) is infinite at z = 1000, and log1p cannot repair that. Use log(1 + exp(z)) = "
            "max(z, 0) + log(1 + exp(-|z|)).": exp_of_z(np.log1p),
            "at z = -40 your loss is exactly 0, because 1 + exp(-40) is rounded to 1. Use "
            "np.log1p.": logarithm_rounded,
            "the exponent is -|z|, not -z: exp(-z) overflows at z = -1000, and for z < 0 the "
            "formula holds only with |z|.": abs_forgotten,
            "np.max(z, 0) is the largest number along axis 0. np.maximum(z, 0) compares each z "
            "with 0.": other_maximum(np.max),
            "Python's max cannot compare an array with 0. np.maximum(z, 0) does, number by number.":
                other_maximum(max),
            "the last term of the loss, - z t, is missing.": without_z_t,
            "len(z) is the number of maps. The mean goes over all logits, so dz is divided by "
            "z.size.": number_of_maps,
            "len(z) is the number of maps. The mean goes over all logits: divide both the loss "
            "and dz by z.size.": sum_over_number_of_maps,
            "clipping s only hides the problem: for a logit of 1000 the loss is 1000, and here it "
            "is 27.6. Use the formula with z instead of s.": clipped_probability(1e-12),
            "clipping s only hides the problem: for a logit of 1000 the loss is 1000, and here it "
            "is 16.1. Use the formula with z instead of s.": clipped_probability(1e-7),
            "dz is NaN at z = 1000: there exp(z) / (1 + exp(z)) is infinity / infinity. Write "
            "1 / (1 + exp(-z)).": sigmoid_of_large_exponents,
            "max(z, 0) is missing: log(1 + exp(-|z|)) is small even for large z.":
                without_maximum_of_z,
            "the exponent is -|z|, with a minus sign: exp(-|z|) cannot overflow.":
                no_minus_before_abs,
            "in the loss, the term z t is subtracted, not added.": plus_z_t,
            "the loss is a single number. Take the mean of your losses, and divide dz by the "
            "number of logits.": one_loss_for_each,
            "the loss is the mean over all logits, not the sum, and so is its gradient.":
                sum_of_losses,
            "the loss is a mean, so each dz is divided by the number of logits.":
                gradient_of_the_sum,
            "dz has the wrong sign: it is s - t. To make the loss of a real map smaller, z must "
            "grow.": other_sign,
            "s - t is already the derivative with respect to z. The factor s (1 - s) is in it.":
                gradient_to_s}),
    "6.5": Exercise(
        cross_entropy,
        ("First subtract the largest score of each pixel from x. Then log p_k = x_k - log of the "
         "sum of exp(x_i). The loss is the mean of -log p of the right classes, and the derivative "
         "of one such term with respect to x_j is p_j - [k = j].",
         "x = x - x.max(-1, keepdims=True), then log_p = x - np.log(np.exp(x).sum(-1, "
         "keepdims=True)). In the loss, right * log_p leaves only the right classes. With "
         "p = np.exp(log_p), dx is p - right. Both are divided by labels.size."),
        inputs=(scores, labels), results=("loss", "dx"), sizes=SIZES,
        traps={
            "where a p is rounded to 0, log p is infinite, and 0 times infinity is NaN. Compute "
            "log p from the scores, not from p.":
                unstable(largest_of_each_pixel, "from p, one-hot", "e / total"),
            "one pixel is sure and wrong: its p is rounded to 0, and the loss is infinite. Compute "
            "log p from the scores, not from p.":
                unstable(largest_of_each_pixel, "from p, right class", "e / total"),
            "a score of 1000 makes exp overflow. Subtract the largest score of each pixel first.":
                unstable(no_shift, "from the scores, one-hot", "exp(log p)"),
            "exp of a score above 709 is infinite, and so is the loss. Subtract the largest score "
            "of each pixel first.":
                unstable(no_shift, "from the scores, right class", "exp(log p)"),
            "exp overflows, and in p infinity / infinity is NaN. Subtract the largest score of "
            "each pixel first, and compute log p from the scores.":
                unstable(no_shift, "from p, one-hot", "e / total"),
            "exp overflows: in dx infinity / infinity is NaN, and the loss is infinite. Subtract "
            "the largest score of each pixel first, and compute log p from the scores.":
                unstable(no_shift, "from p, right class", "e / total"),
            "x.max() is the largest score of all pixels. In the others each exp is 0, and 0 / 0 is "
            "NaN. Subtract the largest score of each pixel: the maximum over axis -1.":
                unstable(largest_of_all, "from p, one-hot", "e / total"),
            "x.max() is the largest score of all pixels. In the others each exp is 0, and the "
            "log of their sum is infinite. Take the maximum over axis -1.":
                unstable(largest_of_all, "from the scores, one-hot", "exp(log p)"),
            "x.max() is the largest score of all pixels, so the log of most sums is minus "
            "infinity. Take the maximum over axis -1.":
                unstable(largest_of_all, "from the scores, right class", "exp(log p)"),
            "x.max() is the largest score of all pixels, so most sums of exp are 0: their log "
            "is minus infinity, and p is 0 / 0. Take the maximum over axis -1.":
                unstable(largest_of_all, "from the scores, right class", "e / total"),
            "dx is NaN where a p is rounded to 0: -right / p is infinite there. Do not go through "
            "dp. The derivative of the loss with respect to x, p - right, needs no division.":
                through_softmax_grad(cross_entropy),
            "where a p is rounded to 0, log p is infinite, and so is 1 / p. Compute log p from the "
            "scores, and take p - right for dx, which needs no division.":
                through_softmax_grad(
                    unstable(largest_of_each_pixel, "from p, right class", "e / total")),
            "where a p is rounded to 0, log p and 1 / p are infinite, and 0 times infinity is NaN. "
            "Compute log p from the scores, and take p - right for dx.":
                through_softmax_grad(
                    unstable(largest_of_each_pixel, "from p, one-hot", "e / total")),
            "in the loss, .mean() counts each class of a pixel. Sum right * x over the classes "
            "first, so that one number is left for each pixel.": total_counted_for_each_class,
            "in the loss, the log of the sum is added once for each class. Sum right * x over the "
            "classes first, so that one number is left for each pixel.": summed_for_each_class,
            "a maximum or a sum over axis -1 has lost this axis, so the shapes do not fit. With "
            "keepdims=True it stays, with length 1.": axis_lost,
            "one array has kept the axis of the classes, with length 1, and the other has not. Use "
            "keepdims=True for both or for neither.": axis_kept_in_one_term,
            "you subtract the largest score in the sum, but not from the right class's score. "
            "Subtract it from x once, before both.": largest_score_lost,
            "you divide by the number of pixels and by K. The mean goes over the pixels only.":
                mean_over_classes_too,
            "the loss is K times too small: np.mean counts the zeros of the one-hot array too. "
            "Take the sum and divide by labels.size.": mean_of_the_loss_over_classes,
            "the loss is a mean over all pixels, so dx is divided by their number too.":
                mean_forgotten,
            "both the loss and dx are sums over the pixels. Divide them by labels.size.":
                sums_over_pixels,
            "for the wrong classes dx is not 0, because their scores should fall: dx is p - right.":
                only_the_right_class,
            "dx lacks the right class: it is p - right.": without_one_hot,
            "dx has the wrong sign. It is p - right: a step against the gradient must raise the "
            "score of the right class.": labels_exchanged}),
}
