"""The contract's operations in PyTorch: gpu.py's reference in float64 and its yardstick.

Parameters have the contract's names. Maps are (B, C, H, W) and weights (Cout, Cin, kh, kw) in the
memory format channels_last. In memory they equal ours but for the order of the weights' axes:
`to_torch` and `from_torch` translate. Each function returns what ours returns, as a tuple (None
where PyTorch does not return it). A layer that sees one pixel is a matrix product, as in nn.Linear.
"""
import numpy as np
import torch
import torch.nn.functional as F

aten = torch.ops.aten


def to_torch(name, a, dtype, device):
    """A NumPy argument of the contract as PyTorch wants it; what is no array stays."""
    if not isinstance(a, np.ndarray):
        return a
    t = torch.tensor(a, dtype=dtype if a.dtype.kind == "f" else None, device=device)
    if name == "w":
        return t.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    return t.permute(0, 3, 1, 2) if t.ndim == 4 else t


def from_torch(operation, t):
    """A result as the contract has it, in float64 on the host."""
    if t.ndim == 4 and operation != "gather":
        t = t.permute(2, 3, 1, 0) if operation == "conv_weight_grad" else t.permute(0, 2, 3, 1)
    return t.detach().double().cpu().numpy()


def activate(x, activation):
    if activation == "leaky_relu":
        return F.leaky_relu(x, 0.2)
    return x if activation is None else getattr(torch, activation)(x)


def activate_grad(dy, y, activation):
    if activation == "relu":
        return aten.threshold_backward(dy, y, 0)
    if activation == "leaky_relu":
        return aten.leaky_relu_backward(dy, y, 0.2, True)
    return dy if activation is None else aten.tanh_backward(dy, y)


def one_pixel(x_shape, w):
    return x_shape[-2:] == (1, 1) == w.shape[-2:]


def conv(x, w, stride=1, pad=0, bias=None, activation=None):
    if one_pixel(x.shape, w):
        return activate(F.linear(x.flatten(1), w.flatten(1), bias), activation)[..., None, None],
    return activate(F.conv2d(x, w, bias, stride, pad), activation),


def conv_input_grad(dy, w, x_shape, stride=1, pad=0, bias=None, activation=None):
    if one_pixel(dy.shape, w):
        return activate(F.linear(dy.flatten(1), w.flatten(1).T, bias), activation)[..., None, None],
    sizes = zip(x_shape[1:3], dy.shape[2:], w.shape[2:])
    extra = [size - ((out - 1) * stride - 2 * pad + kernel) for size, out, kernel in sizes]
    return activate(F.conv_transpose2d(dy, w, bias, stride, pad, extra), activation),


def conv_weight_grad(x, dy, w_shape, stride=1, pad=0):
    kh, kw, cin, cout = w_shape
    if x.shape[-2:] == (1, 1) == (kh, kw):
        return (dy.flatten(1).T @ x.flatten(1))[..., None, None],
    w = torch.empty(cout, cin, kh, kw, dtype=x.dtype, device=x.device,
                    memory_format=torch.channels_last)  # only its shape matters
    return aten.convolution_backward(
        dy, x, w, None, (stride, stride), (pad, pad), (1, 1), False, (0, 0), 1,
        (False, True, False))[1],


def bias_activation(x, bias=None, activation=None):
    return activate(x if bias is None else x + bias.view(-1, 1, 1), activation),


def bias_activation_grad(dy, y, activation=None):
    dx = activate_grad(dy, y, activation)
    return dx, dx.sum((0, 2, 3))


def batch_norm(x, gamma, beta, running_mean, running_var, momentum=0.1, eps=1e-5,
               activation=None):
    y = F.batch_norm(x, running_mean, running_var, gamma, beta, True, momentum, eps)
    return activate(y, activation), None, None, running_mean, running_var


def batch_norm_grad(dy, x, y, gamma, mean, var, eps=1e-5, activation=None):
    dy = activate_grad(dy, y, activation)
    inverse_std = (var + eps).rsqrt()  # autograd would have saved it: two small launches too many
    return aten.native_batch_norm_backward(
        dy, x, gamma, None, None, mean, inverse_std, True, eps, (True, True, True))


def softmax(x, bias=None):
    return (x if bias is None else x + bias.view(-1, 1, 1)).softmax(1),


def softmax_grad(dp, p):
    dx = aten._softmax_backward_data(dp, p, 1, p.dtype)
    return dx, dx.sum((0, 2, 3))


def gather(labels, index, table):
    return table[labels[index].long()],


def bce_with_logits(logits, target):
    loss = F.binary_cross_entropy_with_logits(logits, target)[None]
    return loss, (logits.sigmoid() - target) / logits.numel()


def feature_matching(real, fake, reading="mean", dabove=None, activation=None):
    if reading == "paired":
        gap = fake - real
        loss = gap.abs().mean()[None]
        gradient = gap.sign() / fake.numel()
    else:
        mean = fake.mean(0, keepdim=True)
        gap = mean - real.mean(0, keepdim=True)
        loss = (gap * gap).mean()[None]
        gradient = gap * (2 / fake.numel())
        if reading == "unbiased" and len(fake) > 1:
            loss = loss - fake.var(0).mean()[None] / len(fake)
            gradient = gradient - (fake - mean) * (2 / ((len(fake) - 1) * fake.numel()))
    if dabove is None:
        dfake = gradient.expand_as(fake).contiguous(memory_format=torch.channels_last)
    else:
        dfake = dabove.add_(gradient)
    return loss, activate_grad(dfake, fake, activation)


def moment_matching(real, fake, weight, dabove=None):
    fake = fake.detach().requires_grad_()
    p_real, p_fake = real.mean((2, 3)), fake.mean((2, 3))
    s_real, s_fake = ((p.var(0) + 1e-10).sqrt() for p in (p_real, p_fake))
    gaps = (p_fake.mean(0) - p_real.mean(0)) ** 2 + (s_fake - s_real) ** 2
    loss = weight * (gaps / (s_real ** 2 + 1e-6)).mean()
    dfake, = torch.autograd.grad(loss, fake)
    return loss.detach()[None], dfake if dabove is None else dabove.add_(dfake)


def adam(params, grads, m, v, step, lr, beta1, beta2, eps):
    step = step.float() + 1  # counter and rate are float32, whatever the parameters are
    torch._fused_adam_(
        [params], [grads], [m], [v], [], [step], lr=lr.float()[0], beta1=beta1, beta2=beta2,
        weight_decay=0, eps=eps, amsgrad=False, maximize=False)
    return params, m, v, step
