"""Every operation as a pure function of NumPy arrays, written as its formula; read this file first.

Right below each operation is its gradient: from the gradient of the loss with respect to the output
it computes those with respect to the inputs. `dy` is short for d loss / d y. Nothing is changed in
place, and nothing is remembered between calls. contract.py explains the shapes and words;
numpy_engine.py runs these same functions on all cores.
"""
import numpy as np

from kernels.contract import (
    LEAKY_SLOPE,
    SMALL_DIVISOR,
    SMALL_VARIANCE,
    activation_number,
    check_dy,
    check_reading,
    conv_shape,
    pair,
    pool_shape,
    resize_weights,
)


# ------------------------------------------------------------------------------------ convolution
# All three functions follow from one condition: output pixel o and tap k meet input pixel
# i = o stride + k - pad. Each function sums over the triples (o, k, i) that satisfy it.
def conv(x, w, stride=1, pad=0, bias=None, activation=None):
    """y = act(sum over taps k of x[o stride + k - pad] @ w[k] + bias).

    x (B, H, W, Cin), w (kh, kw, Cin, Cout), bias (Cout,) -> y (B, Ho, Wo, Cout).
    """
    y = np.zeros(conv_shape(x.shape, w.shape, stride, pad), x.dtype)
    padded = pad_maps(x, pad)
    for tap, pixels in taps(w.shape, y.shape, stride):
        y += padded[pixels] @ w[tap]
    return bias_activation(y, bias, activation)


def conv_input_grad(dy, w, x_shape, stride=1, pad=0, bias=None, activation=None):
    """dx (B, H, W, Cin): each output pixel sends dy @ w[k]^T back to the input pixels it came from.

    As a forward operation this is the transposed convolution; so it also takes a bias (Cin,) and
    an activation. At stride 2, inputs of 15 and of 16 pixels both give 8: x_shape says which.
    """
    check_dy("conv_input_grad", dy, x_shape, w.shape, stride, pad)
    dpadded = pad_maps(np.zeros(x_shape, dy.dtype), pad)
    for tap, pixels in taps(w.shape, dy.shape, stride):
        dpadded[pixels] += dy @ w[tap].T
    return bias_activation(np.ascontiguousarray(crop_maps(dpadded, pad)), bias, activation)


def conv_weight_grad(x, dy, w_shape, stride=1, pad=0):
    """dw (kh, kw, Cin, Cout): for each tap, the sum over maps and output pixels of x^T dy."""
    check_dy("conv_weight_grad", dy, x.shape, w_shape, stride, pad)
    dw = np.zeros(w_shape, x.dtype)
    padded = pad_maps(x, pad)
    for tap, pixels in taps(w_shape, dy.shape, stride):
        dw[tap] = np.tensordot(padded[pixels], dy, ((0, 1, 2), (0, 1, 2)))
    return dw


def taps(w_shape, y_shape, stride):
    """Yields each tap (ky, kx), and the index of the padded pixels that it meets: (B, Ho, Wo)."""
    (sy, sx), (_, ho, wo, _) = pair(stride), y_shape
    for ky, kx in np.ndindex(*w_shape[:2]):
        yield (ky, kx), np.s_[:, ky:ky + sy * ho:sy, kx:kx + sx * wo:sx]


def pad_maps(x, pad, value=0):
    """(B, H, W, C) -> (B, H + 2 py, W + 2 px, C)."""
    py, px = pair(pad)
    if not (py or px):
        return x
    b, h, w, c = x.shape
    padded = np.full((b, h + 2 * py, w + 2 * px, c), value, x.dtype)  # np.pad takes far longer
    padded[:, py:py + h, px:px + w] = x
    return padded


def crop_maps(x, pad):
    """The inverse of pad_maps."""
    (py, px), (_, h, w, _) = pair(pad), x.shape
    return x[:, py:h - py, px:w - px]


# ---------------------------------------------------------------------------- bias and activation
def bias_activation(x, bias=None, activation=None):
    """y = act(x + bias); bias is (C,), act is None, "relu", "leaky_relu" or "tanh"."""
    activation_number(activation)
    if bias is not None:
        x = x + bias
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "leaky_relu":
        return np.maximum(x, LEAKY_SLOPE * x)
    if activation == "tanh":
        return np.tanh(x)
    return x


def bias_activation_grad(dy, y, activation=None):
    """dx = dy act'(x), and dbias (C,), its sum."""
    dx = activation_grad(dy, y, activation)
    return dx, channel_sums(dx)


def activation_grad(dy, y, activation):
    """dy act'(x), where act'(x) is computed from the output y = act(x).

    An activation that does not allow that, such as GELU, would need an operation of its own.
    """
    activation_number(activation)
    if activation == "relu":
        return dy * (y > 0)
    if activation == "leaky_relu":
        return dy * np.maximum((y > 0).astype(dy.dtype), LEAKY_SLOPE)  # np.where is slower
    if activation == "tanh":
        return dy * (1 - y * y)
    return dy


def channel_sums(x):
    """(..., C) -> (C,). As a product with ones: BLAS adds up faster than x.sum((0, 1, 2))."""
    x = x.reshape(-1, x.shape[-1])
    return np.ones(len(x), x.dtype) @ x


# ---------------------------------------------------------------------------- batch normalization
def batch_norm(x, gamma, beta, running_mean, running_var, momentum=0.1, eps=1e-5, activation=None):
    """y = act(gamma (x - mean) / std + beta), with mean and std of the batch (Ioffe, Szegedy 2015).

    Returns y, mean, var, running_mean, running_var. All but y are (C,): statistics are over maps
    and pixels. var is the biased variance; the running one, used at inference, is unbiased.
    std = sqrt(var + eps).
    """
    count = x.size // x.shape[-1]
    mean = channel_sums(x) / count
    var = channel_sums((x - mean) ** 2) / count
    y = batch_norm_inference(x, gamma, beta, mean, var, eps, activation)
    return y, mean, var, *running_statistics(running_mean, running_var, mean, var, count, momentum)


def batch_norm_grad(dy, x, y, gamma, mean, var, eps=1e-5, activation=None):
    """dx, dgamma, dbeta. mean and var depend on x too, hence the second and third term of dx."""
    count = x.size // x.shape[-1]
    std = np.sqrt(var + eps)
    normalized = (x - mean) / std
    dy, dbeta = bias_activation_grad(dy, y, activation)  # now dy is taken before the activation
    dgamma = channel_sums(dy * normalized)
    dx = gamma / std * (dy - dbeta / count - normalized * dgamma / count)
    return dx, dgamma, dbeta


def batch_norm_inference(x, gamma, beta, mean, var, eps=1e-5, activation=None):
    """y = act(gamma (x - mean) / std + beta) with given statistics, (C,) each."""
    scale = gamma / np.sqrt(var + eps)
    return bias_activation((x - mean) * scale, beta, activation)


def running_statistics(running_mean, running_var, mean, var, count, momentum):
    """Both, moved by the share `momentum` towards the statistics of a batch of `count` pixels."""
    unbiased = var * (count / max(1, count - 1))
    return (running_mean + momentum * (mean - running_mean),
            running_var + momentum * (unbiased - running_var))


# ---------------------------------------------------------------------------------------- softmax
def softmax(x, bias=None):
    """p_k = exp(x_k) / sum over classes j of exp(x_j), for x + bias (the paper's eq. 2)."""
    x_t = x.reshape(-1, x.shape[-1]).T  # (K, pixels): NumPy sums faster over the first axis
    if bias is not None:
        x_t = x_t + bias[:, None]
    e = np.exp(x_t - x_t.max(0))  # the largest exponent becomes 0: no overflow
    return (e / e.sum(0)).T.reshape(x.shape)


def softmax_grad(dp, p):
    """dx_k = p_k (dp_k - sum over j of p_j dp_j), and dbias (K,), its sum over maps and pixels."""
    weighted = p * dp
    dot = weighted.reshape(-1, p.shape[-1]).T.sum(0)
    dx = weighted - p * dot.reshape(*p.shape[:-1], 1)
    return dx, channel_sums(dx)


# ----------------------------------------------------------------------------------------- losses
# A loss and its gradient in one call. A loss is an array (1,), which can stay on a GPU.
def bce_with_logits(logits, target, weight=1.0):
    """Binary cross-entropy of sigmoid(z) and t, averaged: log(1 + exp(-|z|)) + max(z, 0) - z t.

    Returns loss (1,) and dlogits = (sigmoid(z) - t) / (number of logits), both times the weight.
    This form is stable for any logit z.
    """
    z = logits
    e = np.exp(-np.abs(z))
    loss = np.mean(np.log1p(e) + np.maximum(z, 0) - z * target)
    sigmoid = np.where(z >= 0, 1, e) / (1 + e)
    return weight * loss.reshape(1), (sigmoid - target) * (weight / z.size)


def softmax_cross_entropy(x, target):
    """-sum over k of t_k log softmax(x)_k, averaged over the pixels: (B, H, W, K), (B, H, W, K).

    target: one-hot, or other probabilities; a pixel without any, t = 0, counts as loss 0. Returns
    loss (1,) and dx_k = (softmax(x)_k sum(t) - t_k) / (number of pixels).
    """
    pixels = x.size // x.shape[-1]
    total = target.sum(-1, keepdims=True)  # of each pixel: 1 or 0
    shifted = x - x.max(-1, keepdims=True)
    e = np.exp(shifted)
    sums = e.sum(-1, keepdims=True)
    loss = np.sum(total * np.log(sums)) - np.sum(target * shifted)
    return loss.reshape(1) / pixels, (e / sums * total - target) / pixels


def feature_matching(real, fake, reading="mean", dabove=None, activation=None):
    """The distance between the features (B, H, W, C) of real and of generated maps, in one layer.

    "mean" (Salimans et al. 2016): mean over h, w, c of (mean over b of fake - mean of real)^2.
    "unbiased": the same minus Var(fake) / B, the part of that square that is only the noise of a
    mean over B maps. That part falls if the generated maps are alike, so "mean" rewards maps that
    are alike. This loss can be negative. With one map there is no variance to subtract.
    "paired" (as in pix2pixHD): mean of |fake - real|, the i-th map against the i-th.

    Returns loss (1,) and dfake. dabove, the gradient that reaches fake from the layers above, is
    added to dfake. With `activation`, which gave fake, dfake is the gradient before that.
    """
    check_reading(reading)
    b = len(fake)
    if reading == "paired":
        gap = fake - real
        loss = np.mean(np.abs(gap))
        dfake = np.sign(gap) / fake.size
    else:
        mean = fake.mean(0)  # (H, W, C)
        gap = mean - real.mean(0)
        loss = np.mean(gap * gap)
        dfake = np.broadcast_to(gap * (2 / fake.size), fake.shape)  # the same for every map
        if reading == "unbiased" and b > 1:
            deviation = fake - mean
            loss = loss - np.sum(deviation * deviation) / ((b - 1) * fake.size)
            dfake = dfake - deviation * (2 / ((b - 1) * fake.size))
    if dabove is not None:
        dfake = dabove + dfake
    return loss.reshape(1), activation_grad(dfake, fake, activation)


def moment_matching(real, fake, weight, dabove=None):
    """The distance between means and standard deviations of pooled features, in one layer.

    A pooled feature is the mean of a feature over the pixels of a map: (B, H, W, C) -> (B, C). It
    says how much of something a map holds, wherever it stands, so a small batch estimates it well.
    With its mean m, variance v and standard deviation s over the maps of a batch:

    loss = weight * mean over c of [(m_fake - m_real)^2 + (s_fake - s_real)^2] / v_real.

    Returns loss (1,) and dfake (B, H, W, C), to which dabove is added. With one map, the terms with
    s are left out and v_real counts as 1.
    """
    (b, h, w, c), pooled = fake.shape, fake.mean((1, 2))
    m_real, v_real = moments(real.mean((1, 2)))
    m_fake, v_fake = moments(pooled)
    scale = weight / (c * (v_real + SMALL_DIVISOR))
    gap = m_fake - m_real
    loss = np.sum(scale * gap * gap)
    dpooled = np.broadcast_to(2 * scale * gap / b, pooled.shape)  # (B, C)
    if b > 1:
        s_fake = np.sqrt(v_fake)
        s_gap = s_fake - np.sqrt(v_real)
        loss = loss + np.sum(scale * s_gap * s_gap)
        dpooled = dpooled + 2 * scale * s_gap * (pooled - m_fake) / ((b - 1) * s_fake)
    above = np.zeros_like(fake) if dabove is None else dabove
    return loss.reshape(1), above + (dpooled / (h * w))[:, None, None]  # the same for every pixel


def moments(pooled):
    """Mean and variance over the maps of a batch, (B, C) -> (C,) and (C,); 1 with one map."""
    mean = pooled.mean(0)
    if len(pooled) == 1:
        return mean, np.ones_like(mean)
    return mean, np.sum((pooled - mean) ** 2, 0) / (len(pooled) - 1) + SMALL_VARIANCE


# ------------------------------------------------------------------------------------------- Adam
def adam(params, grads, m, v, step, lr, beta1, beta2, eps):
    """One update of Adam (Kingma and Ba 2015, algorithm 1). Returns params, m, v, step.

    params, grads, m, v (n,): all parameters of a network; m and v are moving means of the gradient
    and of its square. step (1,) counts updates, and lr (1,) is the learning rate.
    """
    step = step + 1
    m = m + (1 - beta1) * (grads - m)
    v = v + (1 - beta2) * (grads * grads - v)
    t = float(step[0])  # in float32, 1 - 0.999 would lose digits
    m_hat = m * (1 / (1 - beta1 ** t))  # m and v start at 0, and so are too small at first
    v_hat = v * (1 / (1 - beta2 ** t))
    return params - lr * m_hat / (np.sqrt(v_hat) + eps), m, v, step


# --------------------------------------------------------------------------- label maps and inputs
def gather(labels, index, table):
    """table[labels[index]]: some label maps, each pixel replaced by its class's row of the table.

    labels (N, H, W) uint8, index (B,), table (K, C) -> (B, H, W, C). The identity as the table
    gives one-hot maps; palette / 127.5 - 1 gives RGB in [-1, 1]. Labels are below K: the data
    set's loader has checked that.
    """
    return np.take(table, labels[index], axis=0, mode="clip")


def take_row(table, number):
    """Row `number` (1,) of a table, modulo its length: one step's inputs, chosen by a counter."""
    return table[int(number[0]) % len(table)]


# ----------------------------------------------------------------------- branches: add, join, split
def add(a, b):
    """a + b, two arrays of one shape: the gradients of a map that goes two ways."""
    return a + b


def concat(parts):
    """Maps side by side along the channels: a list of (B, H, W, Ci) -> (B, H, W, sum of Ci)."""
    return np.concatenate(parts, 3)


def split(dy, channels):
    """The gradient of concat: dy (B, H, W, sum of channels) -> a tuple of (B, H, W, Ci)."""
    return tuple(map(np.ascontiguousarray, np.split(dy, np.cumsum(channels)[:-1], 3)))


# -------------------------------------------------------------------------- for Inception: forward

def max_pool(x, size, stride=1, pad=0):
    """The largest number in each size x size window, (B, Ho, Wo, C). Padding does not count."""
    y_shape = pool_shape(x.shape, size, stride, pad)
    y = np.full(y_shape, -np.inf, x.dtype)
    padded = pad_maps(x, pad, -np.inf)
    for _, pixels in taps((size, size), y_shape, stride):
        y = np.maximum(y, padded[pixels])
    return y


def average_pool(x, size, stride=1, pad=0):
    """The mean of each size x size window, (B, Ho, Wo, C). Padding does not count."""
    y_shape = pool_shape(x.shape, size, stride, pad)
    total = np.zeros(y_shape, x.dtype)
    count = np.zeros((1, *y_shape[1:3], 1), x.dtype)
    padded = pad_maps(x, pad)
    inside = pad_maps(np.ones_like(x[:1, :, :, :1]), pad)
    for _, pixels in taps((size, size), y_shape, stride):
        total += padded[pixels]
        count += inside[pixels]
    return total / count


def resize(x, height, width, half_pixel=True):
    """Bilinear resizing without antialiasing: (B, H, W, C) -> (B, height, width, C).

    half_pixel: see contract.resize_weights.
    """
    top, down = resize_weights(x.shape[1], height, half_pixel)
    left, across = resize_weights(x.shape[2], width, half_pixel)
    bottom = np.minimum(top + 1, x.shape[1] - 1)
    right = np.minimum(left + 1, x.shape[2] - 1)
    down = down.astype(x.dtype)[:, None, None]
    across = across.astype(x.dtype)[:, None]
    rows = x[:, :, left] * (1 - across) + x[:, :, right] * across  # (B, H, width, C)
    return rows[:, top] * (1 - down) + rows[:, bottom] * down
