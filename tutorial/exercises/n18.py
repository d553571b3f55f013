"""Exercises of notebook 18: what is right, and which mistakes get a hint of their own."""
import numpy as np

from kernels.fourier_conv import tables
from tutorial.checks import Exercise

rng = np.random.default_rng(18)


# ---------------------------------------------------------------------------------------- 18.1
def smallest_n(pixels, outputs, first, last):
    return max(outputs + last, pixels - first)


# ---------------------------------------------------------------------------------------- 18.2
def weighted(alone=lambda n: [1 / n], other=lambda n: 3 * [8 / 3 / n],
             is_alone=lambda f, n: 2 * f % n == 0):
    def weights(n):
        return np.array(sum((alone(n) if is_alone(f, n) else other(n)
                             for f in range(n // 2 + 1)), []))
    return weights


weights = weighted()


# ---------------------------------------------------------------------------------------- 18.3
def taps_gradient(x, dy, X, W, Y):
    return W.T @ ((X @ x) * (Y @ dy))


# ---------------------------------------------------------------------------------------- 18.4
def taps_of_phase(w, q, stride, pad):
    return w[(q + pad) % stride::stride]


X, W, Y = tables(16, 11, 1, 5, 16, "d")
taps = rng.standard_normal(11)

EXERCISES = {
    "18.1": Exercise(
        smallest_n,
        ("o + d - m is largest for the last output, the last tap and pixel 0. It is smallest for "
         "output 0, the first tap and the last pixel.",
         "The largest value is outputs - 1 + last, the smallest first - (pixels - 1). n is the "
         "larger of both absolute values, plus 1."),
        inputs=[(16, 16, -5, 5), (16, 16, -3, 2), (20, 7, -1, 4), (5, 12, -2, 1), (12, 12, 0, 6)],
        traps={
            "this is a ring of pixels: taps at the border reach over its end. The taps make "
            "o + d - m larger.": lambda pixels, outputs, first, last: pixels,
            "the taps are missing: at the border they reach beyond pixels and outputs.":
                lambda pixels, outputs, first, last: max(pixels, outputs),
            "n must be larger than all absolute values: you are one below. Both outputs and "
            "pixels are counted from 0.":
                lambda pixels, outputs, first, last: max(outputs + last, pixels - first) - 1,
            "this is one more than needed: the last output is outputs - 1, the last pixel "
            "pixels - 1.":
                lambda pixels, outputs, first, last: max(outputs + last, pixels - first) + 1,
            "this is safe, but not the smallest. The first and the last tap never add up: only "
            "one of them is at work at each end.":
                lambda pixels, outputs, first, last: pixels + last - first,
            "you look at the largest value only. o + d - m can also be negative: the first tap "
            "with the last pixel.": lambda pixels, outputs, first, last: outputs + last,
            "you look at the most negative value only. o + d - m is largest for the last output "
            "and the last tap.": lambda pixels, outputs, first, last: pixels - first,
            "this is the number of values that o + d - m can take. We need the largest absolute "
            "value, plus 1.":
                lambda pixels, outputs, first, last: outputs + last + pixels - first - 1}),
    "18.2": Exercise(
        weights,
        ("A frequency stands alone if all its sines are 0: f = 0, and f = n / 2. In one condition: "
         "2 * f % n == 0.",
         "A frequency that stands alone has one bin of weight 1 / n. Any other one has three, of "
         "weight 2 * 4 / 3 / n each."),
        inputs=[(19,), (20,), (7,)],
        traps={
            "frequencies f and n - f share their bins: these count twice.":
                weighted(other=lambda n: 3 * [4 / 3 / n]),
            "the 4 / 3 of the identity is missing where there are three bins.":
                weighted(other=lambda n: 3 * [2 / n]),
            "the factor of the identity is 4 / 3, not 3 / 4.":
                weighted(other=lambda n: 3 * [1.5 / n]),
            "you divide the factor 2 by the three bins. The identity is a sum, with the factor "
            "4 / 3.": weighted(other=lambda n: 3 * [2 / 3 / n]),
            "f = 0 stands alone too, with one bin.": weighted(
                is_alone=lambda f, n: f > 0 and 2 * f % n == 0),
            "for even n, f = n / 2 is its own partner, n - f: it stands alone, with one bin.":
                weighted(is_alone=lambda f, n: f == 0),
            "no frequency stands alone here. f = 0 does, and f = n / 2 for even n.":
                weighted(is_alone=lambda f, n: False),
            "for odd n, n // 2 is not n / 2. That frequency has a partner: test 2 * f % n == 0.":
                weighted(is_alone=lambda f, n: f in (0, n // 2)),
            "a frequency that stands alone needs no identity, so it has no 4 / 3.":
                weighted(alone=lambda n: [4 / 3 / n]),
            "a frequency that stands alone has no partner, so it counts once.":
                weighted(alone=lambda n: [2 / n]),
            "a frequency that stands alone has no partner and needs no identity: 1 / n.":
                weighted(alone=lambda n: [8 / 3 / n]),
            "the mean over n frequencies has the factor 1 / n.":
                weighted(lambda n: [1.0], lambda n: 3 * [8 / 3])}),
    "18.3": Exercise(
        taps_gradient,
        ("Transform both factors: X @ x and Y @ dy. In each bin they are multiplied.",
         "The transposed table of the third one, W.T, turns the bins into taps."),
        inputs=(rng.standard_normal(16), rng.standard_normal(16), X, W, Y),
        sizes={"outputs": 16, "taps": 11, "bins": 31},
        traps={
            "these are the bins of dw. Turn them back into taps, by W.T.":
                lambda x, dy, X, W, Y: (X @ x) * (Y @ dy),
            "X.T gives pixels. For taps use W.T.":
                lambda x, dy, X, W, Y: X.T @ ((X @ x) * (Y @ dy)),
            "Y.T gives outputs. For taps use W.T.":
                lambda x, dy, X, W, Y: Y.T @ ((X @ x) * (Y @ dy)),
            "the tables are exchanged: X belongs to x, and Y to dy.":
                lambda x, dy, X, W, Y: W.T @ ((Y @ x) * (X @ dy)),
            "Y belongs to dy: you transform both with X.":
                lambda x, dy, X, W, Y: W.T @ ((X @ x) * (X @ dy)),
            "X belongs to x: you transform both with Y.":
                lambda x, dy, X, W, Y: W.T @ ((Y @ x) * (Y @ dy)),
            "numbers in the same bin are multiplied, not added.":
                lambda x, dy, X, W, Y: W.T @ (X @ x + Y @ dy),
            "x is not transformed: multiply bins, not pixels. X @ x first.":
                lambda x, dy, X, W, Y: W.T @ (X @ (x * dy)),
            "no inverse is needed. The derivative of S has the transposed table, W.T.":
                lambda x, dy, X, W, Y: np.linalg.pinv(W) @ ((X @ x) * (Y @ dy))}),
    "18.4": Exercise(
        taps_of_phase,
        ("All these k have the same remainder when divided by the stride. Which?",
         "k begins at (q + pad) % stride, and then goes on in steps of the stride."),
        inputs=[(taps, *case) for case in ((0, 2, 5), (1, 2, 5), (2, 3, 5), (0, 3, 4), (1, 3, 1))],
        traps={
            "the padding is missing: k = s d + q + p.":
                lambda w, q, stride, pad: w[q::stride],
            "the padding has the wrong sign: k = s d + q + p.":
                lambda w, q, stride, pad: w[(q - pad) % stride::stride],
            "d may be negative: the taps before number q + p belong to the phase too.":
                lambda w, q, stride, pad: w[q + pad::stride],
            "this is the same for all phases: k = s d + q + p.":
                lambda w, q, stride, pad: w[pad % stride::stride],
            "q has the wrong sign: k = s d + q + p.":
                lambda w, q, stride, pad: w[(pad - q) % stride::stride],
            "these taps are flipped. Keep their order.":
                lambda w, q, stride, pad: taps_of_phase(w, q, stride, pad)[::-1],
            "these are taps side by side. Those of a phase lie one stride apart.":
                lambda w, q, stride, pad: np.array_split(w, stride)[q]}),
}
