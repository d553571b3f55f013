"""Exercises of notebook 10: what is right, and which mistakes get a hint of their own."""
import numpy as np

from tutorial.checks import Exercise

rng = np.random.default_rng(10)


# ----------------------------------------------------------------------------------------- 10.1
def to_colors(x):
    return np.clip(np.rint((x + 1) * 127.5), 0, 255).astype(np.uint8)


def wraps(numbers):
    """Floats -> uint8 that keeps the remainder after division by 256."""
    return numbers.astype(np.int64).astype(np.uint8)


# ----------------------------------------------------------------------------------------- 10.2
def mean_entropy(p, log=np.log):
    return -(p * log(np.where(p > 0, p, 1))).sum(-1).mean()


def without_zeros(p):
    """Only for those pixels in which no probability is 0."""
    return mean_entropy(p[(p > 0).all(-1)])


# ----------------------------------------------------------------------------------------- 10.3
def renumber(g_w, g_b, d_w, order):
    return g_w[..., order], g_b[order], d_w[:, :, order]


def back(g_w, g_b, d_w, order):
    return renumber(g_w, g_b, d_w, np.argsort(order))


# ----------------------------------------------------------------------------------------- 10.4
def stays_below(steps, values, limit):
    above = np.flatnonzero(np.asarray(values) >= limit)
    first = above[-1] + 1 if len(above) else 0
    return steps[first] if first < len(steps) else None


def first_below(steps, values, limit):
    below = np.flatnonzero(np.asarray(values) < limit)
    return steps[below[0]] if len(below) else None


def number_not_step(steps, values, limit):
    step = stays_below(steps, values, limit)
    return None if step is None else list(steps).index(step)


def last_above(steps, values, limit):
    above = np.flatnonzero(np.asarray(values) >= limit)
    return steps[above[-1]] if len(above) else steps[0]


def equal_counts(steps, values, limit):
    return stays_below(steps, np.where(np.asarray(values) == limit, limit - 1, values), limit)


def last_step_for_none(steps, values, limit):
    step = stays_below(steps, values, limit)
    return steps[-1] if step is None else step


X = np.concatenate([rng.uniform(-1, 1, (3, 5, 3)).ravel(), [-1, 1, 1.2, -1.1, 0.999, -0.999]])
P = rng.dirichlet(np.full(5, 0.7), (3, 4, 2))
P[0, 0, 0] = [0, 0.25, 0, 0.75, 0]
P[2, 1, 1] = [1, 0, 0, 0, 0]
G_W, G_B = rng.standard_normal((3, 3, 6, 4)), rng.standard_normal(4)
D_W = rng.standard_normal((5, 5, 4, 7))
STEPS = [0, 100, 200, 300, 400]

EXERCISES = {
    "10.1": Exercise(
        to_colors,
        ("x + 1 lies between 0 and 2. By what must you multiply, so that 2 becomes 255?",
         "(x + 1) * 127.5, then np.rint, then np.clip(..., 0, 255), and last .astype(np.uint8)."),
        inputs=[(X[:45].reshape(3, 5, 3),), (X,)],
        traps={
            "astype(np.uint8) cuts off what stands behind the point. Round first, with np.rint.":
                lambda x: np.clip((x + 1) * 127.5, 0, 255).astype(np.uint8),
            "outputs beyond 1 or -1 must become 255 or 0. In uint8 they start again from the other "
            "end: use np.clip before.": lambda x: wraps(np.rint((x + 1) * 127.5)),
            "the type is float. Convert it to uint8 at the end.":
                lambda x: np.clip(np.rint((x + 1) * 127.5), 0, 255),
            "-1 becomes 0 and 1 becomes 255, so the factor is 255 / 2 = 127.5, not 128.":
                lambda x: np.clip(np.rint((x + 1) * 128), 0, 255).astype(np.uint8),
            "the factor is 127.5: x + 1 goes up to 2, not 1.":
                lambda x: np.clip(np.rint((x + 1) * 255), 0, 255).astype(np.uint8),
            "this is right for outputs from 0 to 1. Here they begin at -1.":
                lambda x: np.clip(np.rint(x * 255), 0, 255).astype(np.uint8),
            "in uint8, 127.5 x is negative for half of the outputs and wraps around. Add 1 first, "
            "and convert last.":
                lambda x: (wraps(np.rint(x * 127.5)) + np.uint8(128)).astype(np.uint8),
            "each output has become -1, 0 or 1 before it is scaled. Convert to uint8 last.":
                lambda x: wraps((wraps(x).astype(np.int8) + 1) * 127.5)}),
    "10.2": Exercise(
        mean_entropy,
        ("The sum goes over the last axis. Then take the mean over all pixels, and mind the sign.",
         "-(p * np.log(np.where(p > 0, p, 1))).sum(-1).mean()."),
        inputs=[(P,), (P[1:2],)],
        traps={
            "the sign: logarithms of probabilities are negative, and entropy is not.":
                lambda p: -mean_entropy(p),
            "this is log2, the entropy in bits. The formula has the natural logarithm, np.log.":
                lambda p: mean_entropy(p, np.log2),
            "this is log10. The formula has the natural logarithm, np.log.":
                lambda p: mean_entropy(p, np.log10),
            "0 times the logarithm of 0 is NaN. Where p is 0, take the logarithm of 1.":
                lambda p: -(p * np.log(p)).sum(-1).mean(),
            "the classes of a pixel are summed; the mean goes over the pixels only.":
                lambda p: mean_entropy(p) / p.shape[-1],
            "this is the sum over all pixels. Take their mean.":
                lambda p: mean_entropy(p) * p[..., 0].size,
            "this is the entropy of each pixel. Take the mean.":
                lambda p: -(p * np.log(np.where(p > 0, p, 1))).sum(-1),
            "the factor p is missing in front of the logarithm.":
                lambda p: -np.log(np.where(p > 0, p, 1)).sum(-1).mean(),
            "you leave out pixels that have a 0. Their other probabilities count.": without_zeros,
            "you take the mean of the probabilities first. Entropy comes first, then the mean.":
                lambda p: mean_entropy(p.mean((0, 1, 2)))}),
    "10.3": Exercise(
        renumber,
        ("Where are the classes? In g_w the last axis, in g_b the only one, in d_w the third.",
         "g_w[..., order] takes the channels of the last axis in the new order. For the third axis "
         "write d_w[:, :, order]."),
        inputs=[(G_W, G_B, D_W, np.array([2, 0, 3, 1])), (G_W, G_B, D_W, np.array([1, 2, 3, 0]))],
        results=("g_w", "g_b", "d_w"),
        traps={
            "D is forgotten: its first layer has classes as inputs, so d_w needs the new order.":
                lambda g_w, g_b, d_w, order: (g_w[..., order], g_b[order], d_w),
            "the bias of G's last layer is forgotten.":
                lambda g_w, g_b, d_w, order: (g_w[..., order], g_b, d_w[:, :, order]),
            "G is forgotten: g_w and g_b.":
                lambda g_w, g_b, d_w, order: (g_w, g_b, d_w[:, :, order]),
            "this is the way back: old class i has become class order[i] here. The new class i is "
            "the old class order[i].": back,
            "D's weights go the way back. Both networks need the same order.":
                lambda g_w, g_b, d_w, order: (g_w[..., order], g_b[order],
                                              d_w[:, :, np.argsort(order)]),
            "the last axis of d_w is the output of D's first layer. Classes are its third axis.":
                lambda g_w, g_b, d_w, order: (g_w[..., order], g_b[order], d_w[..., order]),
            "the third axis of g_w is the input of G's last layer. Classes are its last axis.":
                lambda g_w, g_b, d_w, order: (g_w[:, :, order], g_b[order], d_w[:, :, order]),
            "g_w[order] takes rows of the kernel. Classes are the last axis of g_w and the third "
            "of d_w.": lambda g_w, g_b, d_w, order: (g_w[order % 3], g_b[order], d_w[order])}),
    "10.4": Exercise(
        stays_below,
        ("Find the last value that is not below the limit. The answer is the step after it.",
         "above = np.flatnonzero(np.asarray(values) >= limit) lists the places that are not below. "
         "Without any, the answer is steps[0]; else it is at above[-1] + 1, if there is such a "
         "step."),
        inputs=[(STEPS, [9.0, 4.0, 6.0, 3.0, 2.0], 5.0), (STEPS, [9.0, 8.0, 5.0, 4.0, 3.0], 5.0),
                (STEPS, [9.0, 3.0, 4.0, 4.0, 7.0], 5.0), (STEPS, [4.0, 3.0, 4.0, 4.0, 1.0], 5.0)],
        traps={
            "this is the first value below the limit. Later ones rise above it again.": first_below,
            "this is the number of the value in the list. The step is asked for: steps[...].":
                number_not_step,
            "this is the last step that is not below the limit. The one after it is asked for.":
                last_above,
            "a value equal to the limit is not below it.": equal_counts,
            "if the last value is not below the limit, the answer is None.": last_step_for_none,
            "if all values are below the limit, the answer is the first step.":
                lambda steps, values, limit: None if max(values) < limit
                else stays_below(steps, values, limit)}),
}
