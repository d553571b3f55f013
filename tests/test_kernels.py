"""Every operation against formulas written out in plain loops or float64 NumPy, over odd shapes."""
import functools
import inspect
import itertools

import numpy as np
import pytest
from conftest import DEVICES, OnHost, load

import kernels
from kernels import launch, numpy_ops
from kernels.cuda_ops import CudaOps

# (input height, width), kernel, stride, padding: odd, prime, non-square, one pixel, kernels larger than the map.
CONV_SHAPES = [((1, 1), (1, 1), 1, 0), ((1, 1), (3, 3), 1, 1), ((7, 5), (1, 1), 2, 0), ((5, 7), (3, 3), 1, 1),
               ((16, 15), (3, 3), 2, 1), ((15, 16), (3, 3), 2, 1), ((8, 8), (5, 5), 2, 2),
               ((13, 8), (1, 7), 1, (0, 3)), ((8, 13), (7, 1), (2, 1), (3, 0)),
               ((4, 6), (11, 11), 2, 5), ((9, 9), (11, 11), 1, 5), ((17, 3), (5, 2), (3, 2), (2, 1)), ((6, 6), (2, 2), 3, 0),
               ((3, 19), (3, 4), (1, 3), (2, 0)), ((2, 2), (5, 5), 3, 2), ((7, 7), (1, 1), 3, 2), ((5, 5), (4, 4), (2, 3), 0),
               ((11, 7), (6, 8), (2, 3), (3, 4)), ((7, 11), (9, 10), 3, (4, 5)), ((11, 11), (7, 7), 2, 3)]
CHANNELS = [(1, 1, 1), (2, 3, 5), (3, 2, 17), (1, 18, 4)]  # batch, Cin, Cout
LARGE = [((13, 11), (3, 3), 2, 1), (2, 70, 67)]  # more than one tile in every direction, none of them full

# Each device with each step of the ladder of convolution kernels: those that compute in `real`, and those on tensor cores.
STEPS = sorted(path.stem for path in (launch.FOLDER / "conv").glob("*.cu"))
TENSOR_CORES = [("4_tensor_cores", "tf32"), ("4_tensor_cores", "bf16"), ("5_pipelined", "tf32"), ("5_pipelined", "bf16")]


def on_each(device, choices):
    """Test parameters: the device with each of the choices, tuples."""
    values, marks = (device.values, device.marks) if hasattr(device, "values") else ((device,), ())
    return [pytest.param(*values, *choice, marks=marks, id="-".join(map(str, (*values, *choice)))) for choice in choices]


ENGINES = [engine for device in DEVICES for engine in
           on_each(device, [(step,) for step in STEPS if step not in dict(TENSOR_CORES)] if device != "numpy" else [(None,)])]
TENSOR_ENGINES = [engine for device in DEVICES if device != "numpy" for engine in on_each(device, TENSOR_CORES)]


def load_step(device, step, dtype, precision="fp32", few_channels=0):
    """With few_channels = 0 every convolution goes straight to the kernels of the step."""
    ops = load(device, dtype, precision)
    if step:
        ops = OnHost(CudaOps(ops.ops.device, step))
        ops.ops.few_channels = few_channels
    return ops


def naive_pairs(x_shape, kernel, stride, pad):
    """All (y, x) of the input, (oy, ox) of the output and (ky, kx) that meet: the definition of a convolution."""
    (sy, sx), (py, px) = numpy_ops.pair(stride), numpy_ops.pair(pad)
    out = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(x_shape, (py, px), kernel, (sy, sx))]
    for oy, ox, ky, kx in itertools.product(*map(range, (*out, *kernel))):
        y, x = oy * sy + ky - py, ox * sx + kx - px
        if 0 <= y < x_shape[0] and 0 <= x < x_shape[1]:
            yield y, x, oy, ox, ky, kx


@functools.cache
def defined_by_loops(shape, channels):
    """x, w, dy and, from the definition, y, dx, dw in float64."""
    (size, kernel, stride, pad), (b, cin, cout), rng = shape, channels, np.random.default_rng(0)
    x, w = rng.standard_normal((b, *size, cin)), rng.standard_normal((*kernel, cin, cout))
    y = np.zeros(numpy_ops.conv_shape(x.shape, w.shape, stride, pad))
    dy, dx, dw = rng.standard_normal(y.shape), np.zeros_like(x), np.zeros_like(w)
    for iy, ix, oy, ox, ky, kx in naive_pairs(size, kernel, stride, pad):
        y[:, oy, ox] += x[:, iy, ix] @ w[ky, kx]
        dx[:, iy, ix] += dy[:, oy, ox] @ w[ky, kx].T
        dw[ky, kx] += x[:, iy, ix].T @ dy[:, oy, ox]
    for a in (x, w, dy):
        a.flags.writeable = False
    return x, w, dy, y, dx, dw


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("device, step", ENGINES)
@pytest.mark.parametrize("shape, channels", [*itertools.product(CONV_SHAPES, CHANNELS), LARGE], ids=str)
def test_convolution_and_its_gradients(device, step, shape, channels, dtype, tolerance):
    ops, (_, _, stride, pad) = load_step(device, step, dtype), shape
    x, w, dy, y, dx, dw = defined_by_loops(shape, channels)
    for found, expected in ((ops.conv(x, w, stride, pad), y), (ops.conv_input_grad(dy, w, x.shape, stride, pad), dx),
                            (ops.conv_weight_grad(x, dy, w.shape, stride, pad), dw)):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1, abs(expected).max()))


def rounded(x, precision):
    """x as tensor cores take it: TF32 keeps 10 bits of the mantissa, ties away from zero; bf16 keeps 7, ties to even."""
    if precision == "fp32":
        return x
    bits = x.astype(np.float32).view(np.uint32)
    bits = bits + 0x1000 & 0xFFFFE000 if precision == "tf32" else bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF0000
    return bits.view(np.float32).astype(np.float64)


# Channels of whole stages along the sum, and more than one tile of each kind in both directions.
WIDE = [(((9, 6), (3, 5), (2, 1), (1, 2)), (6, 32, 130)), (((5, 7), (4, 3), 2, 2), (3, 64, 34)),
        (((3, 3), (3, 3), 1, 1), (2, 160, 96))]


@functools.cache
def defined_by_products(shape, channels, precision):
    """As defined_by_loops, from x, w and dy rounded to the precision."""
    (size, kernel, stride, pad), (b, cin, cout), rng = shape, channels, np.random.default_rng(0)
    x, w = rng.standard_normal((b, *size, cin)), rng.standard_normal((*kernel, cin, cout))
    dy = rng.standard_normal(numpy_ops.conv_shape(x.shape, w.shape, stride, pad))
    ops, (a, u, da) = numpy_ops.NumpyOps(np.float64), (rounded(array, precision) for array in (x, w, dy))
    return (x, w, dy, ops.conv(a, u, stride, pad), ops.conv_input_grad(da, u, x.shape, stride, pad),
            ops.conv_weight_grad(a, da, w.shape, stride, pad))


@pytest.mark.parametrize("device, step, precision", TENSOR_ENGINES)
@pytest.mark.parametrize("shape, channels", [*itertools.product(CONV_SHAPES, CHANNELS), LARGE, *WIDE], ids=str)
def test_tensor_cores_on_equally_rounded_numbers(device, step, precision, shape, channels):
    """Only the operands are rounded: on rounded operands the result is float32's."""
    ops, (_, _, stride, pad) = load_step(device, step, np.float32, precision), shape
    x, w, dy, y, dx, dw = defined_by_products(shape, channels, precision)
    for found, expected in ((ops.conv(x, w, stride, pad), y), (ops.conv_input_grad(dy, w, x.shape, stride, pad), dx),
                            (ops.conv_weight_grad(x, dy, w.shape, stride, pad), dw)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, abs(expected).max()))


@pytest.mark.parametrize("device, step, precision", TENSOR_ENGINES + [
    engine for device in DEVICES if device != "numpy" for engine in on_each(device, [("3_register_tiles", "fp32")])])
@pytest.mark.parametrize("shape, channels", [*itertools.product(CONV_SHAPES, CHANNELS), LARGE, *WIDE], ids=str)
def test_few_channels(device, step, precision, shape, channels):
    """The taps of a row side by side, up to 24 output channels."""
    ops, (_, _, stride, pad) = load_step(device, step, np.float32, precision, few_channels=24), shape
    x, w, dy, y, dx, dw = defined_by_products(shape, channels, precision)
    for found, expected in ((ops.conv(x, w, stride, pad), y), (ops.conv_input_grad(dy, w, x.shape, stride, pad), dx),
                            (ops.conv_weight_grad(x, dy, w.shape, stride, pad), dw)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, abs(expected).max()))


@pytest.mark.parametrize("device, step", ENGINES)
def test_long_sums_are_sliced(device, step):
    """conv_weight_grad over more pixels than one slice takes; the slices are added up to the same."""
    ops, rng = load_step(device, step, np.float64), np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 40, 33, 2)), rng.standard_normal((2, 40, 33, 3))
    expected = np.einsum("byxi,byxo->io", x, dy)
    np.testing.assert_allclose(ops.conv_weight_grad(x, dy, (1, 1, 2, 3))[0, 0], expected, rtol=1e-11)


@pytest.mark.parametrize("device, step", ENGINES)
@pytest.mark.parametrize("shape", CONV_SHAPES, ids=str)
def test_input_gradient_is_the_adjoint(device, step, shape):
    """<conv(x), dy> = <x, conv_input_grad(dy)> = <w, conv_weight_grad(x, dy)>, with no formula at all."""
    (size, kernel, stride, pad), ops, rng = shape, load_step(device, step, np.float64), np.random.default_rng(1)
    x, w = rng.standard_normal((2, *size, 3)), rng.standard_normal((*kernel, 3, 20))
    y = ops.conv(x, w, stride, pad)
    dy = rng.standard_normal(y.shape)
    expected = (y * dy).sum()
    assert abs(expected) > 1e-3
    assert (x * ops.conv_input_grad(dy, w, x.shape, stride, pad)).sum() == pytest.approx(expected, rel=1e-10)
    assert (w * ops.conv_weight_grad(x, dy, w.shape, stride, pad)).sum() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("size, kernel, stride, pad", [(32, 11, 2, 5), (32, 11, 1, 5), (4, 11, 2, 5), (4, 11, 1, 5), (7, 5, 3, 2),
                                                       (9, 4, 1, 0), (8, 7, 2, 6), (1, 1, 1, 0), (2, 9, 1, 4), (5, 2, 4, 1)])
def test_tables_of_points(size, kernel, stride, pad):
    """Their products of three add up to 1 where output, pixel and tap meet, and to 0 elsewhere; taps out of reach are 0."""
    out = (size + 2 * pad - kernel) // stride + 1
    a, b, d = numpy_ops._tables(size, kernel, stride, pad, out, np.dtype(np.float64))
    first = -pad // stride
    meets = [[[o + tap + first == m for tap in range(b.shape[1])] for m in range(a.shape[1])] for o in range(out)]
    np.testing.assert_allclose(np.einsum("ro,rm,rd->omd", d, a, b), meets, atol=1e-13)
    np.testing.assert_array_equal((b != 0).any(0), np.any(meets, (0, 1)))


def test_taps_that_reach_no_pixel_have_no_gradient():
    """Rounding would be a direction to Adam, which divides by the gradient's size."""
    ops, rng = kernels.load("numpy"), np.random.default_rng(0)
    dw = ops.conv_weight_grad(*rng.standard_normal((2, 3, 4, 4, 2)).astype(np.float32), (11, 11, 2, 2), 1, 5)
    assert not dw[[0, 1, 9, 10]].any() and not dw[:, [0, 1, 9, 10]].any() and (dw[2:9, 2:9] != 0).all()


@pytest.mark.parametrize("cin, cout, side, stride", [(64, 128, 8, 2), (16, 32, 32, 2), (16, 4, 32, 1)])
def test_float32_keeps_its_digits_in_layers_of_the_presets(cin, cout, side, stride):
    rng, results = np.random.default_rng(0), []
    x, w = rng.standard_normal((4, side, side, cin)), rng.standard_normal((11, 11, cin, cout))
    dy = rng.standard_normal((4, side // stride, side // stride, cout))
    for dtype in np.float32, np.float64:
        ops, (a, b, c) = kernels.load("numpy", dtype), (array.astype(dtype) for array in (x, w, dy))
        results.append([ops.conv(a, b, stride, 5), ops.conv_input_grad(c, b, x.shape, stride, 5),
                        ops.conv_weight_grad(a, c, w.shape, stride, 5)])
    for found, expected in zip(*results):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * abs(expected).max())


def test_blocks_and_lanes_do_not_change_the_result(monkeypatch):
    """Large enough for several blocks in several lanes, against one block in one lane."""
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((7, 32, 30, 16)), rng.standard_normal((5, 5, 16, 24))
    results = []
    for lanes, block in ((1, 1 << 40), (3, 1 << 16)):
        monkeypatch.setattr(numpy_ops, "BLOCK_BYTES", block)
        ops = numpy_ops.NumpyOps(np.float64, lanes)
        y = ops.conv(x, w, 2, 2)
        results.append((y, ops.conv(x, w[:3, :3], (2, 1), 1), ops.max_pool(x, 3, 2), ops.average_pool(x, 3, 1, 1), ops.concat(x, x),
                        ops.conv_input_grad(y, w, x.shape, 2, 2), ops.conv_weight_grad(x, y, w.shape, 2, 2),
                        ops.batch_norm(x, np.ones(16), np.zeros(16), np.zeros(16), np.ones(16))[0], ops.softmax(x)))
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_an_error_in_a_lane_reaches_the_caller():
    ops = numpy_ops.NumpyOps(np.float32, 2)
    def body(lane, block):
        if lane == 1:
            raise RuntimeError("in lane 1")
    with pytest.raises(RuntimeError, match="in lane 1"):
        ops._blocks(body, 8, 1 << 20)
    ops._blocks(lambda lane, block: None, 8, 1 << 20)  # and the lanes still work


@pytest.mark.parametrize("operation, args, message", [
    ("conv", [(1, 4, 4, 3), (3, 3, 2, 5)], "3 channels"), ("conv", [(1, 2, 2, 3), (5, 5, 3, 5)], "does not fit"),
    ("conv_input_grad", [(1, 2, 2, 5), (3, 3, 3, 5)], "dy is"), ("conv_weight_grad", [(1, 4, 4, 3), (1, 9, 9, 5)], "dy is")])
def test_wrong_shapes_are_refused(device, operation, args, message):
    ops = load(device)
    arrays = [np.zeros(shape) for shape in args]
    extra = {"conv": (), "conv_input_grad": ((1, 9, 9, 3),), "conv_weight_grad": ((3, 3, 3, 5),)}[operation]
    with pytest.raises(ValueError, match=message):
        getattr(ops, operation)(*arrays, *extra)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 5, 7, 4), (2, 1, 13, 22)])
def test_batch_norm(device, shape):
    ops, rng = load(device, np.float64), np.random.default_rng(0)
    x = 1e4 + rng.standard_normal(shape)  # a mean far above the deviation: E[x^2] - E[x]^2 loses 8 digits here
    gamma, beta = rng.standard_normal((2, shape[-1]))
    running_mean, running_var = np.full(shape[-1], 3.0), np.full(shape[-1], 2.0)
    y, mean, var = ops.batch_norm(x, gamma, beta, running_mean, running_var, 0.1, 1e-5, "relu")
    expected_mean, expected_var, n = x.mean((0, 1, 2)), x.var((0, 1, 2)), x[..., 0].size
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-14)
    np.testing.assert_allclose(var, expected_var, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(y, np.maximum(gamma * (x - expected_mean) / np.sqrt(expected_var + 1e-5) + beta, 0), atol=1e-7)
    np.testing.assert_allclose(running_mean, 0.9 * 3 + 0.1 * expected_mean)
    np.testing.assert_allclose(running_var, 0.9 * 2 + 0.1 * expected_var * n / max(1, n - 1))
    same = ops.batch_norm_inference(x, gamma, beta, mean, var, 1e-5, "relu")
    np.testing.assert_allclose(same, y, atol=1e-9)


def test_softmax_is_stable(device):
    ops = load(device, np.float64)
    p = ops.softmax(np.array([[[[1e4, 1e4 - 1, -1e4], [0, 0, 0]]]]), np.array([0.0, 0.0, np.log(2)]))
    np.testing.assert_allclose(p[0, 0], [[1 / (1 + np.exp(-1)), np.exp(-1) / (1 + np.exp(-1)), 0], [0.25, 0.25, 0.5]])


def test_bce_is_stable(device):
    """Any logit; against the definition where that can be computed."""
    ops = load(device, np.float64)
    z, t = np.array([-3.0, 0.5, 2.0]).reshape(3, 1, 1, 1), np.array([1.0, 0.0, 1.0]).reshape(3, 1, 1, 1)
    sigmoid = 1 / (1 + np.exp(-z))
    loss, dz = ops.bce_with_logits(z, t)
    assert loss[0] == pytest.approx(-np.mean(t * np.log(sigmoid) + (1 - t) * np.log(1 - sigmoid)))
    np.testing.assert_allclose(dz, (sigmoid - t) / 3)
    loss, dz = ops.bce_with_logits(np.array([-2000.0, 2000.0]).reshape(2, 1, 1, 1), np.array([1.0, 0.0]).reshape(2, 1, 1, 1))
    assert loss[0] == 2000
    np.testing.assert_allclose(dz.ravel(), [-0.5, 0.5])


def test_feature_matching(device):
    ops, rng = load(device, np.float64), np.random.default_rng(0)
    real, fake = rng.standard_normal((2, 4, 3, 5, 2))
    assert ops.feature_matching(real, fake, "mean")[0][0] == pytest.approx(((real.mean(0) - fake.mean(0)) ** 2).mean())
    assert ops.feature_matching(real, fake, "paired")[0][0] == pytest.approx(abs(real - fake).mean())
    with pytest.raises(ValueError, match="'mean' or 'paired'"):
        ops.feature_matching(real, fake, "median")


def test_gather(device):
    ops, rng = load(device), np.random.default_rng(0)
    labels, index = rng.integers(0, 5, (6, 3, 4)).astype(np.uint8), np.array([5, 0, 5])
    for table in (np.eye(5, dtype=np.float32), rng.standard_normal((5, 3)).astype(np.float32)):
        y = ops.gather(labels, index, table)
        for b, h, w in np.ndindex(3, 3, 4):
            np.testing.assert_array_equal(y[b, h, w], table[labels[index[b], h, w]])


def test_adam(device):
    """Three updates against the algorithm of Kingma and Ba, one number at a time."""
    ops, rng = load(device, np.float64), np.random.default_rng(0)
    p, m, v, step = rng.standard_normal(300), np.zeros(300), np.zeros(300), np.zeros(1)
    q, qm, qv = p.copy(), 0, 0
    for t in range(1, 4):
        g = rng.standard_normal(300)
        ops.adam(p, g, m, v, step, np.array([0.01]), 0.5, 0.999, 1e-8)
        qm, qv = 0.5 * qm + 0.5 * g, 0.999 * qv + 0.001 * g ** 2
        q -= 0.01 * (qm / (1 - 0.5 ** t)) / (np.sqrt(qv / (1 - 0.999 ** t)) + 1e-8)
    assert step[0] == 3
    np.testing.assert_allclose(p, q, rtol=1e-12)


@pytest.mark.parametrize("device, step, precision", TENSOR_ENGINES)
@pytest.mark.parametrize("few_channels", [0, 24])
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu", "tanh"])
def test_fused_forms_on_tensor_cores(device, step, precision, few_channels, activation):
    """With a short sum, and with one that several blocks share."""
    ops, rng = load_step(device, step, np.float32, precision, few_channels), np.random.default_rng(0)
    for x_shape, w_shape in (((2, 6, 5, 3), (3, 3, 3, 6)), ((3, 2, 2, 1600), (2, 2, 1600, 3)), ((3, 2, 2, 3), (2, 2, 3, 1600))):
        x, w, bias, w_bias = (rng.standard_normal(shape) for shape in (x_shape, w_shape, w_shape[3:], w_shape[2:3]))
        y = ops.conv(x, w, 2, 1)
        assert abs(y).max() > 0.1
        tolerance = dict(rtol=1e-5, atol=1e-5 * abs(y).max())
        np.testing.assert_allclose(ops.conv(x, w, 2, 1, bias, activation), ops.bias_activation(y, bias, activation), **tolerance)
        dx = ops.conv_input_grad(y, w, x.shape, 2, 1)
        np.testing.assert_allclose(ops.conv_input_grad(y, w, x.shape, 2, 1, w_bias, activation),
                                   ops.bias_activation(dx, w_bias, activation), rtol=1e-5, atol=1e-5 * abs(dx).max())
        with pytest.raises(ValueError, match="expected None, 'relu'"):
            ops.conv(x, w, 1, 1, bias, "gelu")


@pytest.mark.parametrize("device, step, precision", TENSOR_ENGINES)
def test_numbers_that_are_not_finite_stay_so(device, step, precision):
    """Rounding to TF32 or bf16 must not make a number of NaN, nor infinity of a large one that fits."""
    ops, largest = load_step(device, step, np.float32, precision), 3e38
    x, w = np.ones((1, 4, 4, 1), np.float32), np.ones((1, 1, 1, 1), np.float32)
    for bits in (0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000):  # NaN as CUDA, the emulator and NumPy make it
        x[0, 1, 2, 0] = np.uint32(bits).view(np.float32)
        assert np.array_equal(np.isnan(ops.conv(x, w)), np.isnan(x)) and np.isnan(ops.conv(w, x[:, 1:2, 2:3])).all()
    x[0, 1, 2] = np.inf
    assert np.array_equal(ops.conv(x, w), x)
    x[0, 1, 2] = largest
    assert np.isfinite(ops.conv(x, w)).all()


@pytest.mark.parametrize("device, step", ENGINES)
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu", "tanh"])
def test_fused_forms_are_their_parts(device, step, activation):
    ops, rng = load_step(device, step, np.float64), np.random.default_rng(0)
    x, w, bias, w_bias = (rng.standard_normal(shape) for shape in ((2, 6, 5, 3), (3, 3, 3, 4), (4,), (3,)))
    y = ops.conv(x, w, 2, 1)
    np.testing.assert_allclose(ops.conv(x, w, 2, 1, bias, activation), ops.bias_activation(y, bias, activation), rtol=1e-12)
    dx = ops.conv_input_grad(y, w, x.shape, 2, 1)
    np.testing.assert_allclose(ops.conv_input_grad(y, w, x.shape, 2, 1, w_bias, activation),
                               ops.bias_activation(dx, w_bias, activation), rtol=1e-12)
    with pytest.raises(ValueError, match="expected None, 'relu'"):
        ops.conv(x, w, 1, 1, bias, "gelu")


# ----------------------------------------------------------------- all other operations against NumPy's
SHAPES = [(1, 1, 1, 1), (3, 5, 7, 4), (2, 13, 11, 22), (2, 1, 3, 37), (1, 16, 16, 70), (4, 31, 29, 5), (2, 3, 2, 300),
          (2, 37, 31, 8), (3, 3, 5, 256)]  # these two: rows of whole 16 bytes, many of them; several blocks a row


def operations(rng, shape):
    """name -> arguments, for maps of one shape."""
    x, dy, y = rng.standard_normal((3, *shape))
    c, n = shape[-1], x.size
    bias, gamma, beta, mean = rng.standard_normal((4, c))
    var, p = rng.uniform(0.5, 2, c), np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    zeros = lambda size: np.full(size, 7.0)  # to be overwritten
    for a in numpy_ops.ACTIVATIONS:
        yield "bias_activation", (x, bias, a)
        yield "bias_activation_grad", (dy, y, a, zeros(c))
        yield "batch_norm", (x + 9, gamma, beta, mean, var, 0.1, 1e-5, a)
        yield "batch_norm_grad", (dy, x, y, gamma, mean, var, 1e-5, a, zeros(c), zeros(c))
    yield "bias_activation", (x, None, "relu")
    yield "batch_norm_inference", (x, gamma, beta, mean, var)
    yield "softmax", (5 * x, bias)
    yield "softmax", (x,)
    yield "softmax_grad", (dy, p, zeros(c))
    yield "bce_with_logits", (9 * x, rng.uniform(0, 1, shape))
    for reading in "mean", "paired":
        yield "feature_matching", (x, y, reading)
        yield "feature_matching", (x, y, reading, zeros(1), dy)
        yield "feature_matching", (x, y, reading, zeros(1), dy, "leaky_relu")
    yield "adam", (*rng.standard_normal((3, n)), rng.uniform(0, 1, n), np.full(1, 3.0), np.full(1, 0.01), 0.5, 0.999, 1e-8)
    yield "gather", (rng.integers(0, c, (5, 3, 4)).astype(np.uint8), np.array([4, 0, 4]), rng.standard_normal((min(c, 256), 3)))
    yield "take_row", (rng.standard_normal((7, *shape)), np.full(1, 23.0), zeros(shape))
    yield "concat", (x, y[..., :1], dy)
    yield "concat", (x,)
    yield "resize", (x, 17, 23)
    yield "resize", (x, 2, 3, False)
    if min(shape[1:3]) >= 2:
        yield "max_pool", (x, 2, 2)
        yield "max_pool", (x, 2, 1, 1)
        yield "average_pool", (x, 2, 1, 1)
    if min(shape[1:3]) >= 3:
        yield "max_pool", (x, 3, 2)
        yield "average_pool", (x, 3, 1, 1)
        yield "average_pool", (x, min(shape[1:3]))


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_same_as_numpy(device, shape, dtype, tolerance):
    """Results, and arguments that are filled or updated; NumPy itself in float32 against float64."""
    ops, reference, ran = load(device, dtype), load("numpy", np.float64), set()
    copy = lambda a, kind: a.astype(kind if a.dtype.kind == "f" else a.dtype) if isinstance(a, np.ndarray) else a
    for name, args in operations(np.random.default_rng(0), shape):
        ours, theirs = ([copy(a, kind) for a in args] for kind in (dtype, np.float64))
        results = [getattr(o, name)(*a) for o, a in ((ops, ours), (reference, theirs))]
        results = [list(r) if isinstance(r, tuple) else [r] for r in results]
        for found, expected in zip(results[0] + ours, results[1] + theirs):
            if isinstance(expected, np.ndarray) and expected.dtype.kind == "f":
                assert found.dtype == dtype
                np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1, abs(expected).max()), err_msg=name)
        ran.add(name)
    operations_of_the_contract = {name for name in vars(numpy_ops.NumpyOps) if not name.startswith("_")}
    convolutions = {"conv", "conv_input_grad", "conv_weight_grad", "operand"}  # compared above
    no_arithmetic = {"name", "empty", "asarray", "asnumpy", "write", "record", "unrounded"}
    if min(shape[1:3]) >= 3:
        assert ran == operations_of_the_contract - no_arithmetic - convolutions, "an operation is not compared"


def test_contract_is_the_same():
    """Both implementations have the same operations with the same arguments and defaults."""
    methods = [{name: str(inspect.signature(f)) for name, f in vars(ops).items() if not name.startswith("_") and callable(f)}
               for ops in (numpy_ops.NumpyOps, CudaOps)]
    assert methods[0] == methods[1]


@pytest.mark.parametrize("size, stride, pad", [(3, 2, 0), (3, 1, 1), (2, 2, 1), (5, 3, 2), (1, 1, 0)])
def test_pooling(device, size, stride, pad):
    """Against PyTorch's definition, written out: windows of what is inside the map."""
    ops, x = load(device, np.float64), np.random.default_rng(0).standard_normal((2, 7, 9, 3))
    largest, mean = ops.max_pool(x, size, stride, pad), ops.average_pool(x, size, stride, pad)
    assert largest.shape == mean.shape == (2, (7 + 2 * pad - size) // stride + 1, (9 + 2 * pad - size) // stride + 1, 3)
    for oy, ox in np.ndindex(largest.shape[1:3]):
        y, x0 = oy * stride - pad, ox * stride - pad
        window = x[:, max(y, 0):y + size, max(x0, 0):x0 + size]
        np.testing.assert_allclose(largest[:, oy, ox], window.max((1, 2)))
        np.testing.assert_allclose(mean[:, oy, ox], window.mean((1, 2)))
    with pytest.raises(ValueError, match="a window of 8 does not fit"):
        ops.max_pool(x, 8)


def test_resize(device):
    """A ramp stays a ramp; both conventions by hand; one pixel is spread out; the identity."""
    ops = load(device, np.float64)
    ramp = np.arange(5.0)[None, :, None, None] * np.ones((1, 1, 4, 2))
    np.testing.assert_allclose(ops.resize(ramp, 10, 4)[0, :, 0, 0], np.clip(np.arange(10) / 2 - 0.25, 0, 4))
    np.testing.assert_allclose(ops.resize(ramp, 10, 8, False)[0, :, 0, 0], np.minimum(np.arange(10) / 2, 4))
    np.testing.assert_allclose(ops.resize(ramp, 5, 4), ramp)
    np.testing.assert_allclose(ops.resize(np.full((1, 1, 1, 1), 3.0), 4, 7), np.full((1, 4, 7, 1), 3.0))


def test_nan_is_not_lost(device):
    """A parameter or sum that turned NaN must reach the losses, and the emulator's NaN the test that looks for it."""
    ops, nan = load(device), np.full((1, 2, 2, 3), np.nan, np.float32)
    w, ones = np.ones((1, 1, 3, 2), np.float32), np.ones(3, np.float32)
    for activation in numpy_ops.ACTIVATIONS:
        for y in (ops.conv(nan, w, activation=activation), ops.bias_activation(nan, None, activation),
                  ops.batch_norm(nan, ones, ones, ones, ones, activation=activation)[0]):
            assert np.isnan(y).all(), activation
    assert np.isnan(ops.softmax(nan)).all()


def test_adam_in_float32_keeps_its_digits(device):
    """The second moment moves by 1 - 0.999 of the way, which float32 arithmetic would get wrong by 1e-5."""
    ops, one = load(device), np.ones(1, np.float32)
    m, v, params = np.zeros(1, np.float32), np.zeros(1, np.float32), np.zeros(1, np.float32)
    ops.adam(params, one, m, v, np.zeros(1, np.float32), one, 0.5, 0.999, 0.0)
    np.testing.assert_allclose([m[0], v[0], params[0]], [0.5, 1 - 0.999, -1], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_take_row(device, dtype):
    ops = kernels.load(device)
    table = np.arange(35).reshape(7, 5)
    there, out = ops.asarray(table, dtype), ops.asarray(np.zeros(5), dtype)
    for number in 0, 6, 7, 1 << 24:
        ops.take_row(there, ops.asarray([number]), out)
        np.testing.assert_array_equal(ops.asnumpy(out), table[number % 7])


def test_recording(device):
    """Nothing runs while operations are recorded; each replay reads what then stands in the arrays."""
    ops, x = kernels.load(device), np.arange(6.0)
    there, bias, y = ops.asarray(x), ops.asarray(np.zeros(6)), []

    def run():
        with ops.arena:
            y[:] = [ops.bias_activation(there, bias)]
    run()
    replay = ops.record(run)
    for value in 1, 2:
        ops.write(bias, value)
        replay()
        np.testing.assert_array_equal(ops.asnumpy(y[0]), x + value)
    if device == "numpy":
        return
    ops.write(bias, 3)
    ops.record(run)
    np.testing.assert_array_equal(ops.asnumpy(y[0]), x + 2)
    for what, refused in {"an allocation": lambda: ops.empty(7), "an upload": lambda: ops.write(bias, 0),
                          "a download": lambda: ops.asnumpy(bias), "a recording": lambda: ops.record(run)}.items():
        with pytest.raises(launch.LaunchError, match=f"^{what} while operations are recorded"):
            ops.record(refused)
    ops.write(bias, 4)  # and all is well again
    replay()
    np.testing.assert_array_equal(ops.asnumpy(y[0]), x + 4)


def test_arena_gives_the_same_addresses_again():
    ops = kernels.load("numpy")
    seen = []
    for _ in range(3):
        with ops.arena:
            a, b = ops.empty(3, 4), ops.empty(5)
            seen.append((a.ctypes.data, b.ctypes.data))
            assert a.dtype == np.float32 and a.ctypes.data != b.ctypes.data
    assert len(set(seen)) == 1
    outside = ops.empty(3, 4)
    assert outside.ctypes.data not in seen[0]
    with ops.arena:  # another sequence: larger
        assert ops.empty(100, 100).shape == (100, 100)


def test_parameters_start_at_multiples_of_256_bytes():
    import semgan
    ops = kernels.load("numpy")
    s = semgan.resolve("shapes", "small")[0]
    net = semgan.Network(ops, s, {"a.w": (3, 3, 2, 5), "a.b": (5,), "b.w": (1, 1, 7, 3)}, np.random.default_rng(0))
    start = net.flat["params"].ctypes.data
    assert [(p.ctypes.data - start) % 256 for p in net.params.values()] == [0, 0, 0]
    net.params["a.b"][:] = 7
    assert (net.flat["params"] == 7).sum() == 5


@pytest.mark.parametrize("args, message", [(("tpu",), "device 'tpu': expected auto, numpy, cuda, emulator"),
                                           (("emulator", np.float32, "fp8"), "precision 'fp8': expected fp32, tf32, bf16"),
                                           (("numpy", np.float32, "bf16"), "precision bf16: on device cuda or emulator only"),
                                           (("emulator", np.float64, "tf32"), "precision tf32: of float32 numbers only"),
                                           (("numpy", np.float16), "dtype float16")])
def test_load_refuses_what_cannot_be_had(args, message):
    with pytest.raises(kernels.DeviceError, match=message):
        kernels.load(*args)
