"""Exercises of notebook 9: what is right, and which mistakes get a hint of their own."""
import numpy as np

from tutorial.checks import Exercise

rng = np.random.default_rng(9)


# ----------------------------------------------------------------------------------------- 9.1
def update_without_correction(t, beta1, beta2):
    return (1 - beta1 ** t) / np.sqrt(1 - beta2 ** t)


# ----------------------------------------------------------------------------------------- 9.2
def adam_update(p, g, m, v, t, lr, beta1, beta2, eps):
    m, v = moving_means(g, m, v, beta1, beta2)
    m_hat, v_hat = m / (1 - beta1 ** t), v / (1 - beta2 ** t)
    return p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


def moving_means(g, m, v, beta1, beta2):
    return beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g ** 2


def no_correction(p, g, m, v, t, lr, beta1, beta2, eps):
    m, v = moving_means(g, m, v, beta1, beta2)
    return p - lr * m / (np.sqrt(v) + eps), m, v


def eps_inside_the_root(p, g, m, v, t, lr, beta1, beta2, eps):
    m, v = moving_means(g, m, v, beta1, beta2)
    m_hat, v_hat = m / (1 - beta1 ** t), v / (1 - beta2 ** t)
    return p - lr * m_hat / np.sqrt(v_hat + eps), m, v


def eps_before_the_correction(p, g, m, v, t, lr, beta1, beta2, eps):
    m, v = moving_means(g, m, v, beta1, beta2)
    lr = lr * np.sqrt(1 - beta2 ** t) / (1 - beta1 ** t)
    return p - lr * m / (np.sqrt(v) + eps), m, v


def no_root(p, g, m, v, t, lr, beta1, beta2, eps):
    m, v = moving_means(g, m, v, beta1, beta2)
    m_hat, v_hat = m / (1 - beta1 ** t), v / (1 - beta2 ** t)
    return p - lr * m_hat / (v_hat + eps), m, v


def corrected_means_returned(p, g, m, v, t, lr, beta1, beta2, eps):
    m, v = moving_means(g, m, v, beta1, beta2)
    m, v = m / (1 - beta1 ** t), v / (1 - beta2 ** t)
    return p - lr * m / (np.sqrt(v) + eps), m, v


def first_correction_always(p, g, m, v, t, lr, beta1, beta2, eps):
    return adam_update(p, g, m, v, 1, lr, beta1, beta2, eps)[0], *moving_means(g, m, v, beta1,
                                                                               beta2)


def counted_from_0(p, g, m, v, t, lr, beta1, beta2, eps):
    return adam_update(p, g, m, v, t + 1, lr, beta1, beta2, eps)


def betas_exchanged(p, g, m, v, t, lr, beta1, beta2, eps):
    return adam_update(p, g, m, v, t, lr, beta2, beta1, eps)


def gradient_not_squared(p, g, m, v, t, lr, beta1, beta2, eps):
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g
    m_hat, v_hat = m / (1 - beta1 ** t), v / (1 - beta2 ** t)
    return p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


def shares_exchanged(p, g, m, v, t, lr, beta1, beta2, eps):
    m, v = moving_means(g, m, v, 1 - beta1, 1 - beta2)
    m_hat, v_hat = m / (1 - beta1 ** t), v / (1 - beta2 ** t)
    return p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


def uphill(p, g, m, v, t, lr, beta1, beta2, eps):
    return adam_update(p, g, m, v, t, -lr, beta1, beta2, eps)


def adam_arguments(t):
    p, g, m = rng.standard_normal((3, 7))
    return p, g, m, rng.uniform(0.5, 2, 7), t, 0.1, 0.6, 0.9, 0.02


# ----------------------------------------------------------------------------------------- 9.3
def count_parameters(side, classes, filters, k, bias=1, dense_bias=1, stride=2):
    total, channels = 0, classes
    for f in filters:
        total += k * k * channels * f + bias * f
        channels, side = f, side // stride
    return total + side * side * channels + dense_bias


def dense_layer_on_one_pixel(side, classes, filters, k):
    return count_parameters(1, classes, filters, k, stride=1)


def only_convolutions(side, classes, filters, k):
    return count_parameters(0, classes, filters, k, dense_bias=0)


def always_classes_in(side, classes, filters, k):
    last = (side >> len(filters)) ** 2 * filters[-1] + 1
    return sum(k * k * classes * f + f for f in filters) + last


def one_tap(side, classes, filters, k):
    return count_parameters(side, classes, filters, k ** 0.5)


# ----------------------------------------------------------------------------------------- 9.4
def through_activation(dy, y):
    return np.where(y > 0, dy, 0.2 * dy)


def two_gradients(d1, d2, f1, f2, w1, w2):
    df1 = d1 + through_activation(d2, f2) @ w2.T
    return through_activation(df1, f1) @ w1.T


def own_not_through_the_activation(d1, d2, f1, f2, w1, w2):
    from_above = through_activation(through_activation(d2, f2) @ w2.T, f1)
    return (d1 + from_above) @ w1.T


def only_the_last_layer_s_activation(d1, d2, f1, f2, w1, w2):
    return (d1 + through_activation(d2, f2) @ w2.T) @ w1.T


def without_f2_s_activation(d1, d2, f1, f2, w1, w2):
    return through_activation(d1 + d2 @ w2.T, f1) @ w1.T


def signs_of_the_gradient(d1, d2, f1, f2, w1, w2):
    df1 = d1 + through_activation(d2, d2) @ w2.T
    return through_activation(df1, df1) @ w1.T


# ----------------------------------------------------------------------------------------- 9.5
def generate(g, z):
    return z + g


def d_gradient(d, x, fake):
    """Of the binary cross-entropy, averaged over real and generated numbers; logit d x."""
    maps = np.concatenate([x, fake])
    targets = np.concatenate([np.ones_like(x), np.zeros_like(fake)])
    return np.mean((1 / (1 + np.exp(-d * maps)) - targets) * maps)


def g_gradient(g, d, x, z):
    """Of feature matching, (mean of tanh(d (z + g)) - mean of tanh(d x))^2."""
    features = np.tanh(d * (z + g))
    gap = features.mean() - np.tanh(d * x).mean()
    return 2 * gap * (d * (1 - features ** 2)).mean()


def toy_step(g, d, x, z, lr, generate, d_gradient, g_gradient):
    d = d - lr * d_gradient(d, x, generate(g, z))
    return g - lr * g_gradient(g, d, x, z), d


def both_from_the_old(g, d, x, z, lr, generate, d_gradient, g_gradient):
    return (g - lr * g_gradient(g, d, x, z),
            d - lr * d_gradient(d, x, generate(g, z)))


def g_first_with_new_maps(g, d, x, z, lr, generate, d_gradient, g_gradient):
    g = g - lr * g_gradient(g, d, x, z)
    return g, d - lr * d_gradient(d, x, generate(g, z))


def d_uphill(g, d, x, z, lr, generate, d_gradient, g_gradient):
    d = d + lr * d_gradient(d, x, generate(g, z))
    return g - lr * g_gradient(g, d, x, z), d


def maps_and_latent_exchanged(g, d, x, z, lr, generate, d_gradient, g_gradient):
    d = d - lr * d_gradient(d, generate(g, z), x)
    return g - lr * g_gradient(g, d, x, z), d


def latent_instead_of_maps(g, d, x, z, lr, generate, d_gradient, g_gradient):
    d = d - lr * d_gradient(d, x, z)
    return g - lr * g_gradient(g, d, x, z), d


def toy_arguments(g, d):
    return (g, d, 2 + rng.standard_normal(5), rng.standard_normal(5), 0.3, generate, d_gradient,
            g_gradient)


EXERCISES = {
    "9.1": Exercise(
        update_without_correction,
        ("With equal gradients g, m after t steps is g times the sum of the weights. And v?",
         "m = (1 - beta1^t) g and v = (1 - beta2^t) g^2. Divide m by the root of v."),
        inputs=[(1, 0.5, 0.999), (4, 0.5, 0.999), (30, 0.9, 0.99)],
        traps={
            "the update is m / sqrt(v): take the square root of v.":
                lambda t, beta1, beta2: (1 - beta1 ** t) / (1 - beta2 ** t),
            "the root goes over v only.":
                lambda t, beta1, beta2: np.sqrt((1 - beta1 ** t) / (1 - beta2 ** t)),
            "beta^t is what the weights still lack. They add up to 1 - beta^t.":
                lambda t, beta1, beta2: beta1 ** t / np.sqrt(beta2 ** t),
            "this is the factor that corrects the update. Here the update itself is asked for.":
                lambda t, beta1, beta2: np.sqrt(1 - beta2 ** t) / (1 - beta1 ** t),
            "this is the first step only. Where does t come in?":
                lambda t, beta1, beta2: (1 - beta1) / np.sqrt(1 - beta2),
            "m belongs to beta1, and v to beta2.":
                lambda t, beta1, beta2: (1 - beta2 ** t) / np.sqrt(1 - beta1 ** t)}),
    "9.2": Exercise(
        adam_update,
        ("Five lines: m, v, m_hat, v_hat, and the update. Each is one formula above.",
         "m = beta1 * m + (1 - beta1) * g, and m_hat = m / (1 - beta1 ** t). v goes the same way "
         "with beta2 and g ** 2. Return m and v, not m_hat and v_hat."),
        inputs=[adam_arguments(1), adam_arguments(3)],
        traps={
            "the bias correction is missing: divide m by 1 - beta1^t and v by 1 - beta2^t.":
                no_correction,
            "eps is added to the root, not under it: sqrt(v_hat) + eps.": eps_inside_the_root,
            "add eps to the root of v_hat, after the correction. Next to sqrt(v) its weight "
            "changes from step to step.": eps_before_the_correction,
            "divide by the square root of v_hat.": no_root,
            "return m and v without the correction: the next step goes on from them.":
                corrected_means_returned,
            "the correction depends on the step: 1 - beta ** t, not 1 - beta.":
                first_correction_always,
            "t counts from 1 already: the exponent is t.": counted_from_0,
            "beta1 belongs to m, and beta2 to v.": betas_exchanged,
            "v is the moving mean of the squared gradient.": gradient_not_squared,
            "the old mean has the weight beta, and the new gradient 1 - beta.": shares_exchanged,
            "the parameters move against the gradient: minus.": uphill},
        results=("p", "m", "v")),
    "9.3": Exercise(
        count_parameters,
        ("A convolution has k * k * Cin * Cout weights and Cout biases. Which channels come in?",
         "Each layer's input has the channels of the layer before, the first one `classes`. Halve "
         "the side each time. The dense layer has side * side * channels weights and 1 bias."),
        inputs=[(16, 4, [7, 10], 3), (64, 4, [64, 128, 256], 11)],
        traps={
            "the convolutions have biases too: one for each output channel.":
                lambda *arguments: count_parameters(*arguments, bias=0),
            "the dense layer has a bias too: one number, for its single logit.":
                lambda *arguments: count_parameters(*arguments, dense_bias=0),
            "all biases are missing.":
                lambda *arguments: count_parameters(*arguments, bias=0, dense_bias=0),
            "each convolution has stride 2, so the dense layer sees a smaller map.":
                lambda *arguments: count_parameters(*arguments, stride=1),
            "the dense layer has a weight for each pixel and channel of the last map.":
                dense_layer_on_one_pixel,
            "the dense layer is missing.": only_convolutions,
            "only the first convolution sees the classes. Later ones see the channels of the layer "
            "before.": always_classes_in,
            "a kernel of k x k has k * k taps.": one_tap}),
    "9.4": Exercise(
        two_gradients,
        ("Start at the end: bring d2 back to f1. What else changes the loss through f1?",
         "The gradient of f1 is d1 + through_activation(d2, f2) @ w2.T. Then go on to x."),
        inputs=[tuple(rng.standard_normal(shape) for shape in
                      ((3, 5), (3, 6), (3, 5), (3, 6), (4, 5), (5, 6)))],
        traps={
            "d1 is missing: f1 has a term of its own in the loss.":
                lambda d1, *others: two_gradients(0 * d1, *others),
            "d2 is missing: f1 also changes f2, and so the second term.":
                lambda d1, d2, *others: two_gradients(d1, 0 * d2, *others),
            "d1 belongs to the activation's output, f1. Add it before you go back through it.":
                own_not_through_the_activation,
            "f1 comes from an activation too. Go through it on the way to x.":
                only_the_last_layer_s_activation,
            "f2 comes from an activation too. Go through it on the way to f1.":
                without_f2_s_activation,
            "the slope depends on the sign of the output, not on that of the gradient.":
                signs_of_the_gradient}),
    "9.5": Exercise(
        toy_step,
        ("Three lines: generated maps, the new d, the new g. Assign the new d to d, then go on.",
         "fake = generate(g, z); d = d - lr * d_gradient(d, x, fake); then g in the same way, with "
         "g_gradient."),
        inputs=[toy_arguments(0.1, 0.7), toy_arguments(-0.5, 1.2)],
        traps={
            "G's gradient goes through the old D here. Update D first, and take the new one.":
                both_from_the_old,
            "G comes first here. Update D first, on maps of the old G.": g_first_with_new_maps,
            "D minimizes its loss too, so it moves against its gradient.": d_uphill,
            "d_gradient takes the real maps first, then the generated ones.":
                maps_and_latent_exchanged,
            "D sees generated maps, generate(g, z), not latent vectors.": latent_instead_of_maps,
            "return g first, then d.": lambda *arguments: toy_step(*arguments)[::-1]},
        results=("g", "d")),
    "9.6": Exercise(
        "d",
        ("A right result clears all lines that it was computed from. List them.",
         "deconv2.gamma and deconv2.beta are right, but deconv2.w is wrong. Which lines lie in "
         "between?"),
        traps={
            "deconv2.beta is right, and it was computed from this line.": "a",
            "deconv2.beta is right, and that is this line's result.": "b",
            "deconv2.gamma is right, and that is this line's result.": "c",
            "the formula is that of notebook 7. Look at the numbers that go into it.": "e",
            "f's result is only the gradient of w. Then deconv1.beta would be right.": "f",
            "deconv2.w was not computed from this line, but it is wrong.": "g"}),
}
