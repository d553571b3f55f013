"""The networks of pix2pix: a U-Net from maps to images, and a discriminator of their patches.

Isola et al. 2016, "Image-to-Image Translation with Conditional Adversarial Networks". Both are made
of the layers of semgan.py, with 4x4 kernels.
"""
from collections import namedtuple

from semgan import Kept, Network, conv, conv_grad, deconv_norm_relu, deconv_norm_relu_grad, same

KERNEL = 4  # height and width of the kernels: at stride 2 each output pixel sees whole strides


# ----------------------------------------------------------------------------------------- layers
def conv_norm(net, name, x, training):
    """y = leaky_relu(batch_norm(conv(x))): (B, H, W, Cin) -> (B, H / 2, W / 2, Cout).

    Returns y and what the gradient needs.
    """
    ops, s, w = net.ops, net.s, net.params[name + ".w"]
    gamma, beta = net.params[name + ".gamma"], net.params[name + ".beta"]
    mean, var = net.running[name + ".gamma"]
    x = ops.rounded(x)
    a = ops.conv(x, w, 2, same(w))
    if training:
        y, mean, var, _, _ = ops.batch_norm(a, gamma, beta, mean, var, s.bn_momentum, s.bn_eps,
                                            "leaky_relu", out=(None, None, None, mean, var))
    else:
        y = ops.batch_norm_inference(a, gamma, beta, mean, var, s.bn_eps, "leaky_relu")
    return y, Kept(x, a, mean, var, y)


def conv_norm_grad(net, name, dy, kept):
    """Fills the parameters' gradients, returns dx."""
    ops, w, dw = net.ops, net.params[name + ".w"], net.grads[name + ".w"]
    dgamma, dbeta = net.grads[name + ".gamma"], net.grads[name + ".beta"]
    da, _, _ = ops.batch_norm_grad(dy, kept.a, kept.y, net.params[name + ".gamma"], kept.mean,
                                   kept.var, net.s.bn_eps, "leaky_relu",
                                   out=(None, dgamma, dbeta))
    da = ops.rounded(da)
    ops.conv_weight_grad(kept.x, da, w.shape, 2, same(w), out=dw)
    return ops.conv_input_grad(da, w, kept.x.shape, 2, same(w))


def deconv(net, name, x, activation=None, out=None):
    """y = act(transposed conv(x) + b): (B, H, W, Cin) -> (B, 2 H, 2 W, Cout)."""
    w, bias = net.params[name + ".w"], net.params[name + ".b"]
    b, height, width, _ = x.shape
    shape = b, 2 * height, 2 * width, w.shape[2]
    return net.ops.conv_input_grad(x, w, shape, 2, same(w), bias, activation, out=out)


def deconv_grad(net, name, dy, x, y, activation=None):
    """Fills the parameters' gradients, returns dx."""
    ops, w, dw = net.ops, net.params[name + ".w"], net.grads[name + ".w"]
    da, _ = ops.bias_activation_grad(dy, y, activation, out=(None, net.grads[name + ".b"]))
    da = ops.rounded(da)
    ops.conv_weight_grad(da, x, w.shape, 2, same(w), out=dw)  # da is the large map
    return ops.conv(da, w, 2, same(w))


# ------------------------------------------------------------------------------------------ U-Net
# What UNet.backward needs: the input; a Kept for each layer down but the first, and for each layer
# up but the last; the outputs of the layers down; the last layer's input, and the output.
KeptByUNet = namedtuple("KeptByUNet", "x downs ups skips last y")


class UNet(Network):
    """x (B, H, W, channels) -> y (B, H, W, outputs), from any kind of map to any other.

    Ronneberger et al. 2015. Convolutions of stride 2 halve the sides until a pixel has seen almost
    the whole map; transposed ones double them again. Each of these also gets the output of the
    layer down that has the same sides, beside its own: a skip connection, which carries the exact
    place of edges past the narrow middle.
    """
    def __init__(self, ops, s, channels, outputs, activation, rng):
        """activation: of the output, "tanh" or None. s.filters: channels after each halving."""
        self.activation = activation
        self.layers = len(s.filters)
        shapes = {"down1.w": (KERNEL, KERNEL, channels, s.filters[0]), "down1.b": (s.filters[0],)}
        for i, (cin, cout) in enumerate(zip(s.filters, s.filters[1:]), 2):
            shapes[f"down{i}.w"] = (KERNEL, KERNEL, cin, cout)
            shapes[f"down{i}.gamma"] = shapes[f"down{i}.beta"] = (cout,)
        cin = s.filters[-1]
        for i in range(self.layers - 1, 0, -1):
            cout = s.filters[i - 1]
            shapes[f"up{i}.w"] = (KERNEL, KERNEL, cout, cin)
            shapes[f"up{i}.gamma"] = shapes[f"up{i}.beta"] = (cout,)
            cin = 2 * cout  # with the skip connection
        shapes |= {"last.w": (KERNEL, KERNEL, outputs, cin), "last.b": (outputs,)}
        super().__init__(ops, s, shapes, rng)

    def forward(self, x, training=True, out=None):
        """Returns y, and what backward needs. `training`: normalize by batch statistics."""
        x = self.ops.rounded(x)
        skips, downs, ups = [conv(self, "down1", x, 2, "leaky_relu")], [], []
        for i in range(2, self.layers + 1):
            y, kept = conv_norm(self, f"down{i}", skips[-1], training)
            skips.append(y)
            downs.append(kept)
        last = skips[-1]
        for i in range(self.layers - 1, 0, -1):
            y, kept = deconv_norm_relu(self, f"up{i}", last, 2, training)
            last = self.ops.concat([y, skips[i - 1]])
            ups.append(kept)
        last = self.ops.rounded(last)
        y = deconv(self, "last", last, self.activation, out=out)
        return y, KeptByUNet(x, downs, ups, skips, last, y)

    def backward(self, dy, kept):
        """Fills self.grads from the gradient of the output."""
        dx = deconv_grad(self, "last", dy, kept.last, kept.y, self.activation)
        dskips = []  # the part of each skip's gradient that came through the skip connection
        for i in range(1, self.layers):
            channels = kept.skips[i - 1].shape[-1]
            dx, dskip = self.ops.split(dx, [channels, channels])
            dskips.append(dskip)
            dx = deconv_norm_relu_grad(self, f"up{i}", dx, kept.ups[-i], 2)
        for i in range(self.layers, 1, -1):
            dx = conv_norm_grad(self, f"down{i}", dx, kept.downs[i - 2])
            dx = self.ops.add(dx, dskips[i - 2])
        conv_grad(self, "down1", dx, kept.x, kept.skips[0], 2, "leaky_relu", input_grad=False)
