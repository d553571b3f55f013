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


def sum_of_maps_only(dy, y):
    dx, _ = leaky_relu_grad(dy, y)
    return dx, dx.sum(0)


def sum_of_everything(dy, y):
    dx, _ = leaky_relu_grad(dy, y)
    return dx, dx.sum()


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


def exp_of_z(z, t):
    return np.mean(np.log(1 + np.exp(z)) - z * t), (sigmoid(z) - t) / z.size


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


logits = 3 * rng.standard_normal((7, 1, 1, 1))
targets = rng.uniform(0, 1, logits.shape)


# ----------------------------------------------------------------------------------------- 6.5
def cross_entropy(x, labels):
    right = np.eye(x.shape[-1])[labels]
    x = x - x.max(-1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return -(right * log_p).sum() / labels.size, (np.exp(log_p) - right) / labels.size


def log_of_softmax(x, labels):
    right = np.eye(x.shape[-1])[labels]
    p = stable_softmax(x)
    return -(right * np.log(p)).sum() / labels.size, (p - right) / labels.size


def log_of_the_right_probability(x, labels):
    right, p = np.eye(x.shape[-1])[labels], stable_softmax(x)
    return -np.log((right * p).sum(-1)).mean(), (p - right) / labels.size


def without_largest_score(x, labels):
    right = np.eye(x.shape[-1])[labels]
    log_p = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return -(right * log_p).sum() / labels.size, (np.exp(log_p) - right) / labels.size


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
         "Subtract x.max(-1, keepdims=True). Then go on as in my_softmax."),
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
            "instead.": clipped}),
    "6.2": Exercise(
        my_softmax_grad,
        ("First the weighted mean of dp, the sum over k of p_k dp_k: one number for each pixel.",
         "With keepdims=True, (p * dp).sum(-1, keepdims=True) is (B, H, W, 1) and can be "
         "subtracted from dp."),
        inputs=(dp, p), sizes=SIZES,
        traps={
            "the sum over axis -1 has lost this axis, so the shapes do not fit. Use keepdims=True.":
                lambda dp, p: p * (dp - (p * dp).sum(-1)),
            "the sum goes over the classes of one pixel, axis -1. Yours goes over all pixels.":
                lambda dp, p: p * (dp - (p * dp).sum()),
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
        ("Where y > 0, dx is dy. Elsewhere it is 0.2 dy. Then dbias is a sum of dx.",
         "np.where(y > 0, dy, 0.2 * dy) is dx. Sum it over maps, rows and columns: the axes "
         "(0, 1, 2)."),
        inputs=(dy, y), results=("dx", "dbias"),
        traps={
            "dbias is the sum over all maps and pixels, not the mean: the bias is added at each "
            "of them, and each contributes.": mean_of_pixels,
            "one bias serves all pixels of a map too. Sum over the axes (0, 1, 2), not only over "
            "the maps.": sum_of_maps_only,
            "each channel has a bias of its own. Keep the last axis: sum over (0, 1, 2).":
                sum_of_everything,
            "the bias is added before the activation, so the gradient goes through it first: sum "
            "dx, not dy.": bias_before_the_activation,
            "the slope depends on the sign of y, not on the sign of dy.": sign_of_dy,
            "this is ReLU. The slope of LeakyReLU below 0 is 0.2.": relu,
            "the derivative is the slope, 1 or 0.2. You multiply by the value of LeakyReLU.":
                times_y}),
    "6.4": Exercise(
        stable_bce,
        ("The loss of one logit is max(z, 0) + log(1 + exp(-|z|)) - z t. For the array: "
         "np.maximum, np.log1p, np.abs, np.mean.",
         "dz is (s - t) / z.size, since each logit is one of z.size in the mean."),
        inputs=[(logits, targets), (np.array([1000.0, 0.5, -0.1]), np.array([0.0, 1.0, 0.3])),
                (np.array([-1000.0, 0.5, -0.1]), np.array([1.0, 1.0, 0.3]))],
        results=("loss", "dz"),
        traps={
            "at z = 1000 and t = 0 the loss is infinite, because s is rounded to 1. Use the "
            "formula with z instead of s.": from_the_definition,
            "exp(z) overflows at z = 1000. Use log(1 + exp(z)) = max(z, 0) + log(1 + exp(-|z|)).":
                exp_of_z,
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
            "the term z t is subtracted.": plus_z_t,
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
        ("Compute log p for all classes: log p_k = x_k - log of the sum of exp(x_i). The loss "
         "of a pixel is -log p of its right class.",
         "The derivative of -log p_k with respect to x_j is p_j - [k = j]: the probabilities minus "
         "the one-hot `right`. Divide by the number of pixels, labels.size."),
        inputs=(scores, labels), results=("loss", "dx"), sizes=SIZES,
        traps={
            "where a p is rounded to 0, log p is infinite, and 0 times infinity is NaN. Compute "
            "log p from the scores, not from p.": log_of_softmax,
            "one pixel is sure and wrong: its p is rounded to 0, and the loss is infinite. Compute "
            "log p from the scores, not from p.": log_of_the_right_probability,
            "a score of 1000 makes exp overflow. Subtract the largest score of each pixel first.":
                without_largest_score,
            "you subtract the largest score in the sum, but not from the right class's score. "
            "Subtract it from x once, before both.": largest_score_lost,
            "you divide by the number of pixels and by K. The mean goes over the pixels only.":
                mean_over_classes_too,
            "the loss is K times too small: np.mean counts the zeros of the one-hot array too. "
            "Take the sum and divide by labels.size.": mean_of_the_loss_over_classes,
            "the loss is a mean over all pixels, so dx is divided by their number too.":
                mean_forgotten,
            "for the wrong classes dx is not 0, because their scores should fall: dx is p - right.":
                only_the_right_class,
            "dx lacks the right class: it is p - right.": without_one_hot,
            "dx has the wrong sign. It is p - right: a step against the gradient must raise the "
            "score of the right class.": labels_exchanged}),
}
