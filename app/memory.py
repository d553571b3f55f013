"""How much memory a run or samples take, estimated before anything large is allocated."""
from math import prod

import numpy as np

import semgan
from formats import memory
from kernels import buffers
from kernels.fourier_conv import is_cheaper, tables
from kernels.workers import CHUNK_BYTES, available_cores

NUMBER = 4  # bytes, float32


def require_for_training(s, classes=2, maps=None, on_gpu=False):
    """Raises TooLarge if training takes more memory than there is.

    maps: their number, None before they are read. on_gpu: only what the host holds is counted.
    """
    height, width = semgan.map_size(s)
    copies = (maps is None) + (not on_gpu)  # the data set itself, and Trainer.labels
    if maps is None:  # shapes: one for each position of the square, which is 0.16 as wide
        maps = max(s.maps or 0, int(0.7 * height * width)) if s.dataset == "shapes" else 1
    parameters = sum(buffers.places(network.shapes, np.float32)[1]
                     for network in _networks(s, classes))
    inputs = semgan.INPUT_STEPS * s.batch_size * s.latent
    parts = {
        # Parameters, gradients and two moments; copies of all but the gradients to be saved.
        "--generator-filters, --discriminator-filters, --latent and --kernel-size":
            7 * NUMBER * parameters,
        "--batch-size and --latent": 12 * inputs,  # drawn in float64, kept in float32
        "the number of maps and --side": copies * maps * height * width}
    memory.require("training", parts)
    if not on_gpu:
        parts["--batch-size and --side"] = NUMBER * _numbers_of_a_step(s, classes)
        memory.require("training", parts)
        parts["--batch-size and --side"] += NUMBER * _scratch(s, classes)
        memory.require("training", parts)


def require_for_sampling(s, classes, count, flags, bytes_of_map=0):
    """Raises TooLarge if `count` samples take more memory than there is.

    flags: those that the number comes from. bytes_of_map: of what is made of each sample.
    """
    height, width = semgan.map_size(s)
    of_map = 2 * height * width * (3 if semgan.OUTPUTS[s.model].rgb else 1)  # once more to join
    of_network, _ = _convolutions(s, classes, min(64, count))
    memory.require("drawing the samples", {
        flags: count * int(of_map + 8 * s.latent + bytes_of_map),
        "the size of a map": NUMBER * sum(2 * prod(x) + prod(_output(x, w, stride))
                                          for x, w, stride in of_network)})


def _convolutions(s, classes, maps):
    """[(x shape, w shape, stride)] of the generator for so many maps, then of the discriminator.

    Transposed convolutions are listed as those whose input gradients they are.
    """
    g, d = _networks(s, classes)
    height, width = semgan.map_size(s)
    of_g, of_d, scale = [], [], prod(g.strides)
    for name, stride in [*((f"deconv{i}", n) for i, n in enumerate(g.strides, 1)), ("conv", 1)]:
        scale //= stride
        w = g.shapes[name + ".w"]
        of_g.append(((maps, height // scale, width // scale, w[2]), w, stride))
    for i in range(d.layers):
        w = d.shapes[f"conv{i + 1}.w"]
        of_d.append(((2 * maps, height >> i, width >> i, w[2]), w, 2))
    return of_g, of_d


def multiplications(s, classes):
    """The multiply-adds of all convolutions in one pass forward, with no zeros left out."""
    both = sum(_convolutions(s, classes, s.batch_size), [])
    return sum(prod(_output(x, w, stride)) * prod(w[:3]) for x, w, stride in both)


def _networks(s, classes):
    """Both networks as drawings, without memory."""
    return [network(None, s, classes, None) for network in
            (semgan.Generator, semgan.Discriminator)]


def _output(x, w, stride):
    return x[0], x[1] // stride, x[2] // stride, w[3]


def _numbers_of_a_step(s, classes):
    """The numbers that the arena of a step holds, layer by layer: see Trainer.operations."""
    (*deconvs, last), of_d = _convolutions(s, classes, s.batch_size)
    dense = s.batch_size * _networks(s, classes)[0].shapes["dense.b"][0]
    x, w, stride = last
    numbers = 2 * dense  # the output, and its gradient
    numbers += prod(x) + 2 * prod(_output(x, w, stride))
    for x, w, stride in deconvs:  # forward: a, y. Backward: da, and dx of the layer's input
        numbers += 3 * prod(x) + prod(_output(x, w, stride))
    numbers += prod(of_d[0][0])  # real and generated maps
    for x, w, stride in of_d:  # two passes forward, dy, dx; then dx of the generated half
        numbers += 4 * prod(_output(x, w, stride)) + prod(x) // 2
    return numbers


def _scratch(s, classes):
    """The numbers that one convolution at a time needs beside its arguments and results."""
    half_spectra, most = [0, 0, 0], 0
    cores = min(8, available_cores())
    for x, w, stride in sum(_convolutions(s, classes, s.batch_size), []):
        y = _output(x, w, stride)
        pad = w[0] // 2
        if is_cheaper(x, w, (stride, stride), (pad, pad)):
            bins = len(tables(x[1], w[0], stride, pad, y[1], "f")[0])
            bins_x = len(tables(x[2], w[1], stride, pad, y[2], "f")[0])
            of_x, of_w, of_y = (bins * stride * (x[0] * x[2] * x[3]),
                                bins * stride * (w[1] + stride) * prod(w[2:]),
                                bins * prod(y) // y[1])
            each = max(of_x, of_w), max(of_w, of_y), max(of_x, of_w, of_y)
            half_spectra = [*map(max, half_spectra, each)]
            in_a_bin = stride ** 2 * (x[0] * x[3] + prod(w[2:])) + x[0] * y[3]
            most = max(most, prod(w), cores * max(CHUNK_BYTES // NUMBER, bins_x * in_a_bin))
        else:
            windows = prod(y[1:3]) * prod(w[:3])  # of one map
            most = max(most, cores * (prod(w) + 2 * max(CHUNK_BYTES // NUMBER, windows)))
    return sum(half_spectra) + most
