"""Exercises of notebook 9: what is right, and which mistakes get a hint of their own."""
import numpy as np

from tutorial.checks import Exercise

rng = np.random.default_rng(9)


# ----------------------------------------------------------------------------------------- 9.1
def update_without_correction(t, beta1, beta2):
    return (1 - beta1 ** t) / np.sqrt(1 - beta2 ** t)


def sums_of_weights(weights):
    """Takes the sums over weights(t, beta) for the means."""
    def update(t, beta1, beta2):
        return sum(weights(t, beta1)) / np.sqrt(sum(weights(t, beta2)))
    return update


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


def update_from(change):
    """A solution with another update: change(m_hat, v_hat, g, (old m, old v), t, ...)."""
    def adam(p, g, old_m, old_v, t, lr, beta1, beta2, eps):
        m, v = moving_means(g, old_m, old_v, beta1, beta2)
        m_hat, v_hat = m / (1 - beta1 ** t), v / (1 - beta2 ** t)
        return p - lr * change(m_hat, v_hat, g, (old_m, old_v), t, beta1, beta2, eps), m, v
    return adam


def other_means(means):
    """A solution with other moving means: means(g, m, v, beta1, beta2)."""
    def adam(p, g, m, v, t, lr, beta1, beta2, eps):
        m, v = means(g, m, v, beta1, beta2)
        m_hat, v_hat = m / (1 - beta1 ** t), v / (1 - beta2 ** t)
        return p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v
    return adam


def old_means_returned(p, g, m, v, *others):
    return adam_update(p, g, m, v, *others)[0], m, v


def eps_added_to_p(p, g, m, v, t, lr, beta1, beta2, eps):
    p, m, v = adam_update(p, g, m, v, t, lr, beta1, beta2, 0)
    return p + eps, m, v


def no_learning_rate(p, g, m, v, t, lr, *others):
    return adam_update(p, g, m, v, t, 1, *others)


def only_the_update(p, *others):
    new, m, v = adam_update(p, *others)
    return p - new, m, v


def squared_after_the_mean(g, m, v, beta1, beta2):
    m = beta1 * m + (1 - beta1) * g
    return m, beta2 * v + (1 - beta2) * m ** 2


def with_beta1_in_v(first, second):
    """Moving means where v takes beta1 in the places told: the old mean's, the new square's."""
    def means(g, m, v, beta1, beta2):
        kept, new = beta1 if first else beta2, beta1 if second else beta2
        return beta1 * m + (1 - beta1) * g, kept * v + (1 - new) * g ** 2
    return means


def beta1_everywhere(p, g, m, v, t, lr, beta1, beta2, eps):
    return adam_update(p, g, m, v, t, lr, beta1, beta1, eps)


def correction_with_product(first, second):
    """A solution with 1 - beta * t for m (first) or v (second)."""
    def adam(p, g, m, v, t, lr, beta1, beta2, eps):
        m, v = moving_means(g, m, v, beta1, beta2)
        m_hat = m / (1 - (beta1 * t if first else beta1 ** t))
        v_hat = v / (1 - (beta2 * t if second else beta2 ** t))
        return p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v
    return adam


def multiplied_by_the_correction(p, g, m, v, t, lr, beta1, beta2, eps):
    m, v = moving_means(g, m, v, beta1, beta2)
    m_hat, v_hat = m * (1 - beta1 ** t), v * (1 - beta2 ** t)
    return p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


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


def dense_weights(weights):
    """A solution with another number of weights in the dense layer: weights(side, filters)."""
    def count(side, classes, filters, k):
        convolutions = only_convolutions(side, classes, filters, k)
        return convolutions + weights(side >> len(filters), filters) + 1
    return count


def classes_in_the_dense_layer(side, classes, filters, k):
    return dense_weights(lambda side, _: side * side * classes)(side, classes, filters, k)


def halved_once(side, classes, filters, k):
    return count_parameters(side // 2, classes, filters, k, stride=1)


def halved_twice(side, classes, filters, k):
    return dense_weights(lambda *_: (side // 4) ** 2 * filters[-1])(side, classes, filters, k)


def without_padding(side, classes, filters, k):
    last = side
    for _ in filters:
        last = (last - k) // 2 + 1
    return dense_weights(lambda *_: last * last * filters[-1])(side, classes, filters, k)


def biases_for_the_input(side, classes, filters, k):
    return (count_parameters(side, classes, filters, k, bias=0)
            + sum([classes, *filters[:-1]]))


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


def no_activation(d1, d2, f1, f2, w1, w2):
    return (d1 + d2 @ w2.T) @ w1.T


def d1_through_the_activation_twice(d1, d2, f1, f2, w1, w2):
    return two_gradients(through_activation(d1, f1), d2, f1, f2, w1, w2)


def weights_before_activation(d1, d2, f1, f2, w1, w2):
    df1 = d1 + through_activation(d2 @ w2.T, f1)
    return through_activation(df1, f1) @ w1.T


def d2_through_its_own_activation_only(d1, d2, f1, f2, w1, w2):
    return (through_activation(d1, f1) + through_activation(d2, f2) @ w2.T) @ w1.T


def gradient_and_output_exchanged(d1, d2, f1, f2, w1, w2):
    df1 = d1 + through_activation(f2, d2) @ w2.T
    return through_activation(f1, df1) @ w1.T


def with_slopes(slope1, slope2):
    """A solution with other slopes for negative numbers, in f1's activation and in f2's."""
    def gradient(d1, d2, f1, f2, w1, w2):
        df1 = d1 + np.where(f2 > 0, d2, slope2 * d2) @ w2.T
        return np.where(f1 > 0, df1, slope1 * df1) @ w1.T
    return gradient


def up_to_f1(d1, d2, f1, f2, w1, w2):
    return d1 + through_activation(d2, f2) @ w2.T


def signs_of_the_gradient(d1, d2, f1, f2, w1, w2):
    df1 = d1 + through_activation(d2, d2) @ w2.T
    return through_activation(df1, df1) @ w1.T


# ----------------------------------------------------------------------------------------- 9.5
def generate(g, z):  # not symmetric in g and z
    return 0.5 * z + g


def d_gradient(d, x, fake):
    """Of the binary cross-entropy, averaged over real and generated numbers; logit d x."""
    maps = np.concatenate([x, fake])
    targets = np.concatenate([np.ones_like(x), np.zeros_like(fake)])
    return np.mean((1 / (1 + np.exp(-d * maps)) - targets) * maps)


def g_gradient(g, d, x, z):
    """Of feature matching, (mean of tanh(d G(z)) - mean of tanh(d x))^2."""
    features = np.tanh(d * generate(g, z))
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


def generate_exchanged(g, d, x, z, lr, generate, *gradients):
    return toy_step(g, d, x, z, lr, lambda g, z: generate(z, g), *gradients)


def g_uphill(g, d, x, z, lr, *functions):
    new_g, new_d = toy_step(g, d, x, z, lr, *functions)
    return 2 * g - new_g, new_d


def both_uphill(g, d, x, z, lr, *functions):
    return toy_step(g, d, x, z, -lr, *functions)


def no_rate(g, d, x, z, lr, *functions):
    return toy_step(g, d, x, z, 1, *functions)


def no_rate_for_g(g, d, x, z, lr, *functions):
    new_g, new_d = toy_step(g, d, x, z, lr, *functions)
    return g - (g - new_g) / lr, new_d


def no_rate_for_d(g, d, x, z, lr, generate, d_gradient, g_gradient):
    d = d - d_gradient(d, x, generate(g, z))
    return g - lr * g_gradient(g, d, x, z), d


def gradients_returned(g, d, x, z, lr, generate, d_gradient, g_gradient):
    grad = d_gradient(d, x, generate(g, z))
    return g_gradient(g, d - lr * grad, x, z), grad


def old_gradients_returned(g, d, x, z, lr, generate, d_gradient, g_gradient):
    return g_gradient(g, d, x, z), d_gradient(d, x, generate(g, z))


def steps_returned(g, d, x, z, lr, *functions):
    new_g, new_d = toy_step(g, d, x, z, lr, *functions)
    return g - new_g, d - new_d


def generated_for_latent(g, d, x, z, lr, generate, d_gradient, g_gradient):
    fake = generate(g, z)
    d = d - lr * d_gradient(d, x, fake)
    return g - lr * g_gradient(g, d, x, fake), d


def latent_and_real_exchanged(g, d, x, z, lr, generate, d_gradient, g_gradient):
    d = d - lr * d_gradient(d, x, generate(g, z))
    return g - lr * g_gradient(g, d, z, x), d


def networks_exchanged(g, d, x, z, lr, generate, d_gradient, g_gradient):
    d = d - lr * d_gradient(d, x, generate(g, z))
    return g - lr * g_gradient(d, g, x, z), d


def old_d_returned(g, d, *others):
    return toy_step(g, d, *others)[0], d


def old_g_returned(g, *others):
    return g, toy_step(g, *others)[1]


def toy_arguments(g, d):
    return (g, d, 2 + rng.standard_normal(5), rng.standard_normal(5), 0.3, generate, d_gradient,
            g_gradient)


EXERCISES = {
    "9.1": Exercise(
        update_without_correction,
        ("With equal gradients g, m after t steps is g times the sum of the weights. And v?",
         "m = (1 - beta1^t) g and v = (1 - beta2^t) g^2. Divide m by the root of v."),
        inputs=[(2, 0.5, 0.999), (4, 0.5, 0.999), (30, 0.9, 0.99)],
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
                lambda t, beta1, beta2: (1 - beta2 ** t) / np.sqrt(1 - beta1 ** t),
            "this is the update with the correction. Leave m and v as they are, too small.":
                lambda t, beta1, beta2: 1,
            "this is m alone. Divide it by the root of v.": lambda t, beta1, beta2: 1 - beta1 ** t,
            "the weights add up to 1 - beta ** t, not to (1 - beta) ** t.":
                lambda t, beta1, beta2: (1 - beta1) ** t / np.sqrt((1 - beta2) ** t),
            "this is the step before. t counts from 1, and in step t both means have seen t "
            "gradients: the exponent is t.":
                lambda t, beta1, beta2: update_without_correction(t - 1, beta1, beta2),
            "this is the step after. In step t both means have seen t gradients: the exponents of "
            "the weights end at t - 1.":
                lambda t, beta1, beta2: update_without_correction(t + 1, beta1, beta2),
            "m is one step behind v. Both have seen t gradients.": lambda t, beta1, beta2:
                (1 - beta1 ** (t - 1)) / np.sqrt(1 - beta2 ** t),
            "v is one step behind m. Both have seen t gradients.": lambda t, beta1, beta2:
                (1 - beta1 ** t) / np.sqrt(1 - beta2 ** (t - 1)),
            "the newest gradient is missing. Its weight is (1 - beta) * beta ** 0: the exponents "
            "are range(t).":
                sums_of_weights(lambda t, b: [(1 - b) * b ** i for i in range(1, t)]),
            "the exponents of the weights go from 0 to t - 1, not from 1 to t.":
                sums_of_weights(lambda t, b: [(1 - b) * b ** i for i in range(1, t + 1)]),
            "each weight has the factor 1 - beta, and then they add up to 1 - beta^t.":
                sums_of_weights(lambda t, b: [b ** i for i in range(t)])}),
    "9.2": Exercise(
        adam_update,
        ("Five lines: m, v, m_hat, v_hat, and the update. Each is one formula above.",
         "m = beta1 * m + (1 - beta1) * g; m_hat = m / (1 - beta1 ** t). v goes the same way, with "
         "beta2 and g ** 2. The new p is p - lr * m_hat / (np.sqrt(v_hat) + eps). Return p, m, v."),
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
            "the parameters move against the gradient: minus.": uphill,
            "eps is missing: divide by sqrt(v_hat) + eps.":
                update_from(lambda m, v, *others: m / np.sqrt(v)),
            "eps is added to the quotient. Put sqrt(v_hat) + eps in parentheses.":
                update_from(lambda m, v, *others: m / np.sqrt(v) + others[-1]),
            "eps is added to the parameters. Put sqrt(v_hat) + eps in parentheses.": eps_added_to_p,
            "v is not corrected: divide it by 1 - beta2 ** t.": update_from(
                lambda m, v, g, old, t, beta1, beta2, eps:
                    m / (np.sqrt(v * (1 - beta2 ** t)) + eps)),
            "m is not corrected: divide it by 1 - beta1 ** t.": update_from(
                lambda m, v, g, old, t, beta1, beta2, eps:
                    m * (1 - beta1 ** t) / (np.sqrt(v) + eps)),
            "v is corrected with beta1. Its own is beta2.": update_from(
                lambda m, v, g, old, t, beta1, beta2, eps:
                    m / (np.sqrt(v * (1 - beta2 ** t) / (1 - beta1 ** t)) + eps)),
            "m is corrected with beta2. Its own is beta1.": update_from(
                lambda m, v, g, old, t, beta1, beta2, eps:
                    m * (1 - beta1 ** t) / (1 - beta2 ** t) / (np.sqrt(v) + eps)),
            "divide m and v by 1 - beta ** t. You multiply.": multiplied_by_the_correction,
            "m_hat comes from the old m here. Compute the new m first.": update_from(
                lambda m, v, g, old, t, beta1, beta2, eps:
                    old[0] / (1 - beta1 ** t) / (np.sqrt(v) + eps)),
            "v_hat comes from the old v here. Compute the new v first.": update_from(
                lambda m, v, g, old, t, beta1, beta2, eps:
                    m / (np.sqrt(old[1] / (1 - beta2 ** t)) + eps)),
            "m_hat and v_hat come from the old m and v here. Compute the new ones first.":
                update_from(lambda m, v, g, old, t, beta1, beta2, eps: old[0] / (1 - beta1 ** t)
                            / (np.sqrt(old[1] / (1 - beta2 ** t)) + eps)),
            "the update takes m_hat, the mean of the gradients, not the gradient g itself.":
                update_from(lambda m, v, g, *others: g / (np.sqrt(v) + others[-1])),
            "return p first, then m, then v. p stands last here.":
                lambda *arguments: (*adam_update(*arguments)[1:], adam_update(*arguments)[0]),
            "the old m and v are returned. The next step needs the new ones.": old_means_returned,
            "the learning rate lr is missing.": no_learning_rate,
            "this is only the update. Subtract it from p and return the new p.": only_the_update,
            "this is only the update, with its minus. Add it to p and return the new p.":
                lambda p, *others: (adam_update(p, *others)[0] - p, *adam_update(p, *others)[1:]),
            "this is m_hat / (sqrt(v_hat) + eps) alone. Multiply it by lr, subtract that from p, "
            "and return the new p.": lambda p, g, m, v, t, lr, *others: only_the_update(
                p, g, m, v, t, 1, *others),
            "v is divided by 1 - beta2 * t. That can be negative, and then the root is NaN. Take "
            "the power in both corrections: 1 - beta ** t.": correction_with_product(False, True),
            "m is divided by 1 - beta1 * t. Take the power, 1 - beta1 ** t.":
                correction_with_product(True, False),
            "v has beta1 in its moving mean. It takes beta2, twice.":
                other_means(with_beta1_in_v(True, True)),
            "v has beta1 in its moving mean and in its correction. It takes beta2 everywhere.":
                beta1_everywhere,
            "v keeps beta1 of the old v. It takes beta2.":
                other_means(with_beta1_in_v(True, False)),
            "in v the square has the weight 1 - beta1. It takes 1 - beta2.":
                other_means(with_beta1_in_v(False, True)),
            "in v only g is squared, not its weight: (1 - beta2) * g ** 2.": other_means(
                lambda g, m, v, beta1, beta2: (beta1 * m + (1 - beta1) * g,
                                               beta2 * v + ((1 - beta2) * g) ** 2)),
            "v takes the square of the gradient g, not of m.": other_means(squared_after_the_mean),
            "the new gradient has the weight 1 - beta in each mean.":
                other_means(lambda g, m, v, beta1, beta2: (beta1 * m + g, beta2 * v + g ** 2)),
            "the old mean has the weight beta. It is counted in full here.": other_means(
                lambda g, m, v, beta1, beta2: (m + (1 - beta1) * g, v + (1 - beta2) * g ** 2))},
        results=("p", "m", "v")),
    "9.3": Exercise(
        count_parameters,
        ("A convolution has k * k * Cin * Cout weights and Cout biases. Which channels come in? "
         "After the last one, count the numbers of one map: each has a weight in the dense layer.",
         "Each layer's input has the channels of the layer before, the first one `classes`. Halve "
         "the side each time. The dense layer has side * side * channels weights and 1 bias."),
        inputs=[(16, 4, [7, 10], 3), (64, 4, [6, 8, 12], 5)],
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
            "a kernel of k x k has k * k taps.": one_tap,
            "the last map has side * side pixels, not side: the dense layer has a weight for each "
            "pixel and channel.": dense_weights(lambda side, filters: side * filters[-1]),
            "the dense layer has a weight for each channel of the last map too, not only for each "
            "pixel.": dense_weights(lambda side, filters: side * side),
            "the dense layer sees the channels of the last convolution, not the classes.":
                classes_in_the_dense_layer,
            "every convolution halves the side, not only the first.": halved_once,
            "the last convolution halves the side too: count the pixels after it.":
                dense_weights(lambda side, filters: 4 * side * side * filters[-1]),
            "the side is halved once for each convolution, not once more.":
                dense_weights(lambda side, filters: side * side * filters[-1] // 4),
            "1060 is right for count_parameters(16, 4, [7, 10], 3), but the function returns it "
            "for every discriminator. Compute it from the arguments.": lambda *_: 1060,
            "count_parameters(16, 4, [7, 10], 3) is right, but not count_parameters(64, 4, "
            "[6, 8, 12], 5): its three convolutions halve the side three times. Count them with "
            "len(filters), or halve in the loop.": halved_twice,
            "count_parameters(16, 4, [7, 10], 3) is right, but not count_parameters(64, 4, "
            "[6, 8, 12], 5): the last map's side is not always 4. Compute it from `side`.":
                dense_weights(lambda _, filters: 16 * filters[-1]),
            "the maps are padded by k // 2, so each convolution halves the side exactly: "
            "side // 2.": without_padding,
            "a convolution has one bias for each output channel, not for each input channel.":
                biases_for_the_input}),
    "9.4": Exercise(
        two_gradients,
        ("Start at the end: bring d2 back to f1, first through f2's activation, then through w2. "
         "What else changes the loss through f1? From f1 to x it goes the same way.",
         "The gradient of f1 is df1 = d1 + through_activation(d2, f2) @ w2.T. Go on to x in the "
         "same way: through f1's activation, then times w1.T."),
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
                signs_of_the_gradient,
            "both activations are missing. Each gradient of an f goes through its activation "
            "before it goes through the weights.": no_activation,
            "d1 goes through f1's activation twice. Add it first, then go through once.":
                d1_through_the_activation_twice,
            "d2 goes through f2's activation first, and then through w2.":
                weights_before_activation,
            "d2 goes through two activations on its way to x: f2's and f1's.":
                d2_through_its_own_activation_only,
            "through_activation takes the gradient first, and then the activation's output.":
                gradient_and_output_exchanged,
            "a negative output lets 0.2 of its gradient through. Here it lets nothing through, "
            "as with ReLU. The function through_activation is given.": with_slopes(0, 0),
            "f1's activation is LeakyReLU too: a negative output lets 0.2 of its gradient through.":
                with_slopes(0, 0.2),
            "f2's activation is LeakyReLU too: a negative output lets 0.2 of its gradient through.":
                with_slopes(0.2, 0),
            "the shapes do not fit at w2: (B, C2) times (C1, C2). Backward, the weights are "
            "transposed: w2.T.": lambda *others: two_gradients(*others[:5], others[5].T),
            "the shapes do not fit at w1: (B, C1) times (C0, C1). Backward, the weights are "
            "transposed: w1.T.": lambda *others: two_gradients(*others[:4], others[4].T, others[5]),
            "this is the gradient of f1. Go on to x: through the activation and w1.": up_to_f1}),
    "9.5": Exercise(
        toy_step,
        ("Three lines: generated maps, the new d, the new g. Each update is minus lr times the "
         "gradient. Assign the new d to d, then go on.",
         "fake = generate(g, z); d = d - lr * d_gradient(d, x, fake); then g in the same way, with "
         "g_gradient(g, d, x, z) and this new d. Return g, d."),
        inputs=[toy_arguments(0.1, 0.7), toy_arguments(-0.5, 1.2)],
        traps={
            "G's gradient goes through the old D here. Update D first, and take the new one.":
                both_from_the_old,
            "G comes first here. Update D first, on maps of the old G.": g_first_with_new_maps,
            "D minimizes its loss too, so it moves against its gradient.": d_uphill,
            "d_gradient takes the real maps first, then the generated ones.":
                maps_and_latent_exchanged,
            "D sees generated maps, generate(g, z), not latent vectors.": latent_instead_of_maps,
            "return g first, then d.": lambda *arguments: toy_step(*arguments)[::-1],
            "generate takes g first, then z.": generate_exchanged,
            "G minimizes its loss too, so it moves against its gradient.": g_uphill,
            "both networks minimize their losses, so both move against their gradients: minus.":
                both_uphill,
            "the learning rate lr is missing in both updates.": no_rate,
            "the learning rate lr is missing in G's update.": no_rate_for_g,
            "the learning rate lr is missing in D's update.": no_rate_for_d,
            "these are the gradients. Return the new parameters, g - lr * gradient and so on.":
                gradients_returned,
            "these are the gradients, both with the old d. Return the new parameters.":
                old_gradients_returned,
            "these are the steps, lr * gradient. Subtract them from g and d.": steps_returned,
            "g_gradient takes the latent vectors z last. It makes generated maps itself.":
                generated_for_latent,
            "g_gradient takes the real maps x before the latent vectors z.":
                latent_and_real_exchanged,
            "g_gradient takes g first, then d.": networks_exchanged,
            "the new d is used for G, but the old d is returned.": old_d_returned,
            "g does not change. Either the old one is returned, or g_gradient gets generated maps "
            "as x. It takes the real maps.": old_g_returned},
        results=("g", "d")),
    "9.6": Exercise(
        "d",
        ("A right result clears all lines that it was computed from. List them.",
         "deconv2.beta and deconv2.gamma are right: that clears a, b and c. deconv2.w and "
         "deconv1.beta are both wrong, and both were computed from da. Two lines make da. In a "
         "mean over B H H numbers, which number stands below the line of the fraction?"),
        traps={
            "deconv2.beta is right, and it was computed from this line.": "a",
            "deconv2.beta is right, and that is this line's result.": "b",
            "deconv2.gamma is right, and that is this line's result.": "c",
            "the formula is that of my_norm_relu_grad. Look at the numbers that go into it.": "e",
            "f's result is only the gradient of w. Then deconv1.beta would be right.": "f",
            "deconv2.w was not computed from this line, but it is wrong.": "g",
            'this is the line. Write its letter small: "d".': "D",
            'this is the line. Write its letter alone: "d".': "line d"}),
}
